/*
 * The server's side of all sessions.  runtime.md 3.1, 3.2; design.md D5.
 *
 * Not a thread: one loop owns it, polls net_server_fd(), and calls net_server_dispatch() when that
 * is readable or net_server_deadline() has come.  Callbacks are made by dispatch only; they may
 * call everything here but close and dispatch.
 */
#ifndef SCOUTFS_NET_SERVER_H
#define SCOUTFS_NET_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "msg.h"
#include "net_refuse.h"

struct keys;

#define NET_SERVER_CLIENTS_MAX	1024u
#define NET_SERVER_QUEUE_MAX	MSG_QUEUE_MAX	/* messages that one client has not acknowledged or answered */

/* What a server of sessions counts. */
#define NET_COUNTS(C)									\
	C(net_greetings, "Greetings of mounts, each connection once")			\
	C(net_refused, "... answered with a refusal")					\
	C(net_requests, "Requests of mounts, each once")				\
	C(net_responses, "Answers of mounts, each once")				\
	C(net_resent, "Messages sent again after a connection was made again")		\
	C(net_duplicates, "Messages that had come before")				\
	C(net_lost, "Connections made again because a message was missing")		\
	C(net_malformed, "Messages that were none, or of nobody who may send them")	\
	C(net_queue_full, "Connections or requests given up: a mount had too many unanswered ones")

STATS_STRUCT(net_counts, NET_COUNTS);

struct net_server;

/* A mount asks to be let in. */
struct net_greeting {
	struct msg_greeting msg;	/* fsid, format version and term are already checked */
	uint32_t addr;			/* the peer's IPv4 address as a number, 0 if unknown */
	bool restarted; /* there is a session of this rid, but its process is a new one */
};

struct net_server_ops {
	/*
	 * A rid's first contact with this server, or with server_term 0 its process's.  Answer with
	 * net_server_greeted, now or later.  The same rid may come again before that; one answer is
	 * for all.
	 */
	void (*on_greeting)(void *arg, const struct net_greeting *g);
	/* Exactly once for each request of a process; answer with net_server_respond.  msg lives
	 * for the call. */
	void (*on_request)(void *arg, uint64_t rid, uint64_t handle, unsigned type,
			   const void *msg);
	/* Exactly once for each net_server_request; err is the client's or -EPROTO, then msg is
	 * NULL. */
	void (*on_response)(void *arg, uint64_t rid, uint64_t tag, int err, unsigned type,
			    const void *msg);
	/* The rid's connection is gone since then (clock_mono_ns); its session stays. */
	void (*on_disconnected)(void *arg, uint64_t rid, uint64_t since_ns);
	/* It is back. */
	void (*on_reconnected)(void *arg, uint64_t rid);
	/* A session ended itself after a farewell was answered.  Nothing of it is valid any more.
	 */
	void (*on_left)(void *arg, uint64_t rid);
};

struct net_server_conf {
	const char *const *endpoints;	/* "tcp://ADDRESS:PORT" */
	size_t endpoints_nr;
	uint64_t term;
	uint64_t fsid;
	uint64_t fmt_vers;
	uint32_t keepalive_ms;		/* a client silent for longer is disconnected */
	/*
	 * keys.h: only nodes that they allow are let in, encrypted; NULL: everybody is.  With keys one
	 * server a zmq_ctx.  They must outlive the server.
	 */
	struct keys *keys;
	struct net_refusals *refusals;	/* counted into; it outlives the server; NULL: not wanted */
	struct net_counts *counts;	/* the same */
	struct net_server_ops ops;	/* all of them */
	void *arg;
};

/*
 * Bind and be ready; waits up to 2 s for an address in use.  zmq_ctx is the caller's and must
 * outlive the server.  -EADDRINUSE, -EADDRNOTAVAIL and others of bind (logged with the endpoint);
 * -ENOMEM.
 */
int net_server_open(struct net_server **out, void *zmq_ctx, const struct net_server_conf *conf);
/* The keys have been reloaded: who is not allowed any more loses its connection. */
void net_server_check_keys(struct net_server *ns);
/* Sessions end without a word: clients find the next server. */
void net_server_close(struct net_server *ns);

int net_server_fd(const struct net_server *ns);
/* Handle what has come and send what waits, a bounded amount; call again until the deadline is
 * later than now. */
void net_server_dispatch(struct net_server *ns, uint64_t now_ns);
/* When dispatch must be called at the latest (clock_mono_ns); not later than now when there is more
 * to do. */
uint64_t net_server_deadline(const struct net_server *ns);

/* Answer an on_greeting.  With GREETING_OK requests of rid are delivered from now on.  -ENOENT:
 * gone meanwhile. */
int net_server_greeted(struct net_server *ns, uint64_t rid, enum greeting_status status);

/*
 * Answer a request, once: err, or 0 and the struct of its answer's type (NULL: all zero).  The
 * handle is good whatever happened to the socket.  -ENOENT: the process that asked is gone, which
 * is no error; -EINVAL: not a value of the type, and the client gets -EIO; -ENOMEM: answer again.
 */
int net_server_respond(struct net_server *ns, uint64_t rid, uint64_t handle, int err, unsigned type,
		       const void *msg);

/*
 * Ask rid; tag comes back with on_response.  It is sent again after a reconnect, and to a restarted
 * process. -ENOENT: no such session; -EBUSY: NET_SERVER_QUEUE_MAX; -ENOMEM; -EINVAL.
 */
int net_server_request(struct net_server *ns, uint64_t rid, unsigned type, const void *msg,
		       uint64_t tag);

/*
 * End rid's session: what it asked and was asked is forgotten without a callback, and a process of
 * that rid that claims this term is told that it was fenced.  -ENOENT.
 */
int net_server_drop(struct net_server *ns, uint64_t rid);

/* What there is now; what has been is in the counts. */
struct net_server_stats {
	uint64_t sessions, connected;
};
void net_server_get_stats(const struct net_server *ns, struct net_server_stats *st);

#endif
