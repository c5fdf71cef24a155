/*
 * What net_client.c, net_client_link.c and net_client_call.c share; and a session without its thread, for whoever turns
 * it by himself: the simulator (tests/sim) runs many in one thread and virtual time.  The calls of net_client.h but
 * _start, _stop, _call_sync and _farewell work with it.
 */
#ifndef SCOUTFS_NET_CLIENT_IMPL_H
#define SCOUTFS_NET_CLIENT_IMPL_H

#include <pthread.h>

#include "clock.h"
#include "net_client.h"
#include "session.h"

#define NET_RETRY_NS	(100 * NSEC_PER_MSEC)
#define NET_LOOK_NS	(500 * NSEC_PER_MSEC)	/* a server that does not answer: whether another leads by now */

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

static inline uint64_t net_client_keepalive_ns(const struct net_client *nc)
{
	return nc->conf.keepalive_ms * NSEC_PER_MSEC;
}

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

/* With `home` held, by the home thread or by who reads in its place; of net_client_link.c. */
/* Find out who leads, and connect; what comes of it is told by the monitor. */
void net_client_connect(struct net_client *nc);
/* Take what has become of the connection, and greet when it is there. */
void net_client_read_monitor(struct net_client *nc);
/* The server's answer to our greeting; it may be the end of the socket, or of the mount. */
void net_client_greeted(struct net_client *nc, const struct msg_greeting_reply *g);
/*
 * The server does not answer: whether another leads by now, who is asked then.  A host that died says nothing
 * on its connections, for as long as a keepalive or an attempt to connect takes.
 */
void net_client_look_for_another(struct net_client *nc, uint64_t now);
/* Throw the socket away; the next attempt is after delay_ns. */
void net_client_drop(struct net_client *nc, uint64_t delay_ns);
/* How long to wait before that, usually. */
uint64_t net_client_retry_ns(const struct net_client *nc);
/* What the home thread is to be woken for; sock NULL: nothing.  -ENOMEM, -ENOSPC. */
int net_client_watch(struct net_client *nc, void *sock, int op, uint32_t events);
/* The server does not take us: why, for the log and for status. */
void net_client_set_why(struct net_client *nc, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* For that, of net_client.c. */
/* 0; -EAGAIN: later; else the socket is gone. */
int net_client_send(struct net_client *nc, struct msg_header *hdr, const void *body);
/* Every call without an answer ends with err. */
void net_client_end_calls(struct net_client *nc, int err);
/* The rid's item is gone from the device: the answer to our farewell was lost, not the farewell.  Calls have ended then. */
bool net_client_farewell_done(struct net_client *nc);

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
