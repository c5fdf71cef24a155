/*
 * A session without its thread, for whoever turns it by himself: the simulator (tests/sim) runs many in
 * one thread and virtual time.  The calls of net_client.h but _start, _stop, _call_sync and _farewell
 * work with it.
 */
#ifndef SCOUTFS_NET_CLIENT_IMPL_H
#define SCOUTFS_NET_CLIENT_IMPL_H

#include "net_client.h"

/* process is this process's number in greetings: not 0, never used before.  -ENOMEM, -EMFILE. */
int net_client_open(struct net_client **out, const struct net_client_conf *conf, uint64_t process);
/* Take what has come (a bounded amount), do what is due, send what waits; never waits. */
void net_client_turn(struct net_client *nc);
/* When the next turn is due if nothing comes before that. */
uint64_t net_client_deadline(struct net_client *nc);
/* net_client_farewell without waiting: done is called as by net_client_call.  Only when it was greeted. */
int net_client_call_farewell(struct net_client *nc, int (*gone)(void *arg), void *gone_arg,
			     net_client_done done, void *arg);
/* As a process that dies, but that calls without an answer end with -ESHUTDOWN. */
void net_client_close(struct net_client *nc);

#endif
