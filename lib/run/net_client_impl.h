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
	int wake_fd;			/* the home thread's */
	int listen_fd;			/* the listener's, net_client_call.c */
	int epoll_fd;			/* what the home thread waits for */

	pthread_mutex_t mutex;	/* the inbox and what is shown */
	struct session_out *inbox_first, *inbox_last;
	uint64_t open_calls;		/* in the inbox or in the session */
	unsigned waiting;		/* callers in net_client_call_sync and _farewell */
	pthread_cond_t left;		/* one of them has left */
	bool stopping;
	bool fenced;
	bool is_awake;			/* the home thread will look at the inbox before it waits */
	struct net_client_stats stats;
	int (*gone)(void *arg);		/* set once farewell has begun */
	void *gone_arg;

	bool has_thread;		/* constant once there is one */
	pthread_mutex_t home;		/* whoever has it is the home thread; before mutex.  All below */
	bool has_listener;		/* a thread that waits for its answer waits at the socket, or is on its way */
	bool is_listening;		/* it does, at this one, and the home thread does not */
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

/* Wakes who waits at one of the eventfds. */
void net_client_ring(int fd);
/* The home thread looks at the inbox. */
void net_client_wake(struct net_client *nc);

/* With `home` held, by a caller: no callback is made by the first and the last two. */
/* Send what is in the inbox.  False: something is left that the home thread is to see to. */
bool net_client_send_inbox(struct net_client *nc);
/* Take what has come, a bounded amount, with callbacks; there is a socket. */
void net_client_read(struct net_client *nc);
/* Wait at the socket instead of the home thread.  False: somebody does, or there is nobody to listen to. */
bool net_client_listen_begin(struct net_client *nc);
void net_client_listen_end(struct net_client *nc);

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
