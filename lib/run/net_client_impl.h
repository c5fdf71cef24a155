/*
 * What net_client.c and net_client_call.c share; and a session without its thread, for whoever turns it by
 * himself: the simulator (tests/sim) runs many in one thread and virtual time.  The calls of net_client.h but
 * _start, _stop, _call_sync and _farewell work with it.
 */
#ifndef SCOUTFS_NET_CLIENT_IMPL_H
#define SCOUTFS_NET_CLIENT_IMPL_H

#include <pthread.h>

#include "net_client.h"
#include "session.h"

enum link_state {
	LINK_IDLE,		/* no socket */
	LINK_CONNECTING,	/* greeted as soon as there is a connection */
	LINK_GREETING,		/* connected; the answer is awaited */
	LINK_OPEN,
};

struct net_req {
	struct net_client *nc;
	uint64_t id;
	uint64_t term;
	unsigned type;
};

struct net_client {
	struct net_client_conf conf;
	pthread_t thread;
	int wake_fd;

	pthread_mutex_t mutex;	/* the inbox and what is shown */
	struct session_out *inbox_first, *inbox_last;
	uint64_t open_calls;		/* in the inbox or in the session */
	bool stopping;
	bool fenced;
	struct net_client_stats stats;
	int (*gone)(void *arg);		/* set once farewell has begun */
	void *gone_arg;

	/* The home thread's own. */
	void *zmq_ctx;
	void *sock, *mon;
	enum link_state state;
	struct session session;
	uint64_t term;			/* of the server that greeted us last */
	uint64_t epoch;
	uint64_t process;
	uint64_t next_try_ns;		/* IDLE */
	uint64_t deadline_ns;		/* CONNECTING, GREETING */
	uint64_t last_received_ns, last_sent_ns, last_asked_ns;
	uint64_t lost_ns;		/* when a server that had greeted us was lost; 0: never */
	uint64_t next_look_ns;		/* with a socket: whether another leads by now */
	uint64_t unacked_nr;		/* messages received since our last frame */
	bool was_greeted;		/* on the socket that was lost last */
	bool is_blocked;		/* the socket takes no more */
	unsigned cuts;			/* connections cut in the handshake, one after the other */
	uint8_t *buf;			/* one frame to be sent */
	union msg_body *body;		/* of the frame being handled */
};

/* The home thread looks at the inbox. */
void net_client_wake(struct net_client *nc);

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
