/*
 * What one side of a session keeps: runtime.md 3.1.  Used by net_client.c and net_server.c.
 *
 * Requests stay until their response has been processed, responses until the peer's recv_seq covers
 * them.  On a new socket all of them are sent again in the order of their seqs; the receiver drops
 * what it has had.  Nothing here sends, locks or waits.
 */
#ifndef SCOUTFS_SESSION_H
#define SCOUTFS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "msg.h"

/* A map from ids to entries that embed an id_link. */
struct id_link {
	uint64_t id;
	struct id_link *next;
};
struct id_map {
	struct id_link **buckets;
	size_t buckets_nr;
	size_t nr;
};
void id_map_fini(struct id_map *m);
/* Make room for one more.  -ENOMEM only if there is no table at all. */
int id_map_reserve(struct id_map *m);
/* After a reserve that succeeded it cannot fail. */
void id_map_add(struct id_map *m, struct id_link *l);
struct id_link *id_map_find(const struct id_map *m, uint64_t id);
struct id_link *id_map_remove(struct id_map *m, uint64_t id);

/* A message that may have to be sent again.  One allocation with its body behind it. */
struct session_out {
	struct id_link link;		/* requests, by hdr.id */
	struct session_out *next, *prev;
	struct msg_header hdr;
	/* Who waits for the answer: the client's callback, the server's tag. */
	void (*done)(void *arg, int err, unsigned type, const void *reply);
	void *arg;
	uint64_t tag;
	bool is_again;			/* it was sent on an earlier socket */
	_Alignas(16) uint8_t body[];
};

struct session_list {
	struct session_out *first, *last;
	struct session_out *unsent;	/* the first that was not sent on this socket */
	size_t nr;
};

struct session {
	uint64_t last_seq;		/* the last that we gave */
	uint64_t last_id;
	uint64_t recv_seq;		/* the greatest that we have received */
	uint64_t acked_seq;		/* the recv_seq that we last sent */
	uint16_t sent_nr, received_nr;	/* frames of this socket */
	struct session_list requests, responses;
	struct id_map ids;		/* of requests */
};

/* A message ready to be added; body NULL: all zero.  -EINVAL: a value out of its range; -ENOMEM. */
int session_out_alloc(struct session_out **out, unsigned type, int error, const void *body);
void session_out_free(struct session_out *o);

void session_init(struct session *s);
/* Frees all that is kept, without a word to anybody. */
void session_fini(struct session *s);

/* Take o as a request with a new id, or as the response to the peer's request id.  -ENOMEM: not
 * taken. */
int session_add_request(struct session *s, struct session_out *o);
void session_add_response(struct session *s, struct session_out *o, uint64_t id);

/* The next to send on this socket, NULL: none.  After it went out: session_sent. */
struct session_out *session_next(const struct session *s);
void session_sent(struct session *s, struct session_out *o);

/* There is another socket: everything is sent again. */
void session_rewind(struct session *s);
/* There is another peer: it has sent nothing yet, and never asked what we have answered. */
void session_new_peer(struct session *s);

enum session_verdict { SESSION_NEW, SESSION_DUPLICATE, SESSION_LOST, SESSION_LIE };
/* Count a frame that has come: LOST: one before it is missing; LIE: it acknowledges what was never
 * sent. */
enum session_verdict session_frame(struct session *s, const struct msg_header *hdr);
/* A numbered message: NEW or DUPLICATE. */
enum session_verdict session_receive(struct session *s, const struct msg_header *hdr);
/* The request that a response with this id answers, taken out of the session; NULL: none (any
 * more). */
struct session_out *session_answered(struct session *s, uint64_t id);
/* Any request, taken out; NULL: none is left. */
struct session_out *session_take_request(struct session *s);

#endif
