/*
 * A mount's session with whichever server leads.  runtime.md 3.1, 3.2, 3.4; design.md D5.
 *
 * Callbacks are made one at a time, in the order in which messages arrived, by the session's home thread or by one
 * that waits in net_client_call_sync; a callback must not block, nor want what a thread holds that waits there, and
 * must not call net_client_stop, _call_sync or _farewell. Everything else may be called by any thread, from callbacks
 * too.
 */
#ifndef SCOUTFS_NET_CLIENT_H
#define SCOUTFS_NET_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "msg.h"

struct keys;

#define NET_ENDPOINT_BYTES	64
#define NET_WHY_BYTES		256
/* The server takes so many, with room for answers that it does not know to have been heard yet. */
#define NET_CLIENT_CALLS_MAX	(MSG_QUEUE_MAX / 8 * 7)

struct net_client;
struct net_req;		/* a request of the server that has not been answered */

struct net_client_ops {
	/*
	 * Where the leader listens ("tcp://ADDRESS:PORT") into buf; asked before each attempt to
	 * connect, and while a server does not answer, which is left when another leads.  It may take a
	 * moment (it reads the device).  Negative: there is none now; it is asked again.
	 */
	int (*resolve)(void *arg, char *buf, size_t size);
	/* A server has accepted us.  new_server: another term than the last one. */
	void (*on_greeted)(void *arg, uint64_t term, bool new_server);
	/* The server asks; answer req once with net_client_respond, now or later.  msg lives for
	 * the call. */
	void (*on_request)(void *arg, struct net_req *req, unsigned type, const void *msg);
	/* This rid has been fenced: no call succeeds any more (-ENOLINK). */
	void (*on_fenced)(void *arg);
	/* The connection is gone; it is made again. */
	void (*on_disconnected)(void *arg);
};

struct net_client_conf {
	uint64_t rid;
	uint64_t fsid;
	uint64_t fmt_vers;
	uint8_t flags;			/* GREETING_FLAG_QUORUM */
	uint32_t keepalive_ms;		/* a server silent for longer is given up */
	/* Of the server that accepted this rid last, which an earlier process may have seen: who has
	 * forgotten the rid since has fenced it.  0: no server knows it yet. */
	uint64_t term;
	/* keys.h; NULL: without.  It must outlive the session, and may be reloaded meanwhile. */
	struct keys *keys;
	struct net_client_ops ops;	/* all but resolve and on_request may be NULL */
	void *arg;
};

/* Start the home thread; the caller ends it with net_client_stop.  -ENOMEM, -EMFILE, -EAGAIN. */
int net_client_start(struct net_client **out, const struct net_client_conf *conf);

/* End the session without a farewell.  Calls that have no answer end with -ESHUTDOWN before it
 * returns. */
void net_client_stop(struct net_client *nc);

/*
 * Ask the server.  msg (NULL: all zero) is copied.  done is called exactly once when this returned
 * 0: with the server's answer, however many servers it takes, or an error: the server's (errors.h),
 * -ENOLINK after a fence, -ESHUTDOWN after a stop, -EPROTO for an answer of another type.  reply is
 * the struct of msg_reply_type(type), for the call only, NULL with an error.  -EBUSY:
 * NET_CLIENT_CALLS_MAX; -ENOMEM; -EINVAL: a value out of its range; -ENOLINK, -ESHUTDOWN: done is
 * not called.
 */
typedef void (*net_client_done)(void *arg, int err, unsigned type, const void *reply);
int net_client_call(struct net_client *nc, unsigned type, const void *msg, net_client_done done,
		    void *arg);

/* The same, waiting; *reply (may be NULL) receives the answer's struct. */
int net_client_call_sync(struct net_client *nc, unsigned type, const void *msg, void *reply);

/*
 * Answer a request and forget req: with err, or with 0 and the struct of the request's answer type
 * (type; NULL: all zero).  If the server that asked is gone nothing is sent.
 */
void net_client_respond(struct net_client *nc, struct net_req *req, int err, unsigned type,
			const void *msg);

/*
 * Say farewell and wait until the server has answered, however many servers it takes.  gone is
 * asked before each connect (home thread): 1: the rid's item is not on the device any more, so it
 * was answered; 0: it is; negative: unknown.  A mount that was never greeted needs none. 0;
 * -ETIMEDOUT after timeout_ms (0: waits for ever); -ENOLINK: fenced; -ESHUTDOWN.
 */
int net_client_farewell(struct net_client *nc, int (*gone)(void *arg), void *arg,
			unsigned timeout_ms);

struct net_client_stats {
	bool greeted;			/* there is a server that listens to us */
	uint64_t term;			/* of the last one; 0: never greeted */
	uint64_t since_ns;		/* clock_mono_ns() of the last change of `greeted` */
	uint64_t connects, calls, resent, pending, requests, duplicates, lost;
	char endpoint[NET_ENDPOINT_BYTES];
	char why[NET_WHY_BYTES];	/* the server did not take us when last tried; "": not so */
};
void net_client_get_stats(struct net_client *nc, struct net_client_stats *st);

#endif
