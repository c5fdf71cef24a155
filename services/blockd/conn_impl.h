/* What conn.c (who is connected) and conn_io.c (what they ask for) share; nobody else's. */
#ifndef SCOUTFS_BLOCKD_CONN_IMPL_H
#define SCOUTFS_BLOCKD_CONN_IMPL_H

#include "blockd.h"

enum conn_state {
	CONN_NEW,			/* no hello yet */
	CONN_HELD,			/* hello waits for I/O of an earlier connection */
	CONN_OPEN,
	CONN_CLOSED,			/* waits for its I/O to end */
};

struct conn {
	unsigned index;
	enum conn_state state;
	int sock;
	uint32_t kind;
	uint64_t rid;
	uint64_t term;

	struct blkring_shared *ring;
	int sq_efd, cq_efd;
	uint32_t sq_head, cq_tail;
	bool must_ring;			/* completions were posted since the doorbell was looked at */

	int region_fd;			/* until the hello is answered */
	void *region;
	struct ring_limits limits;

	unsigned inflight;
	unsigned writes_inflight;
	unsigned round;			/* 0 or 1: of the writes that start now */
	unsigned round_writes[2];	/* writes_inflight by round */
	struct io *held;		/* flushes that wait for the writes of the other round */
	struct io *held_next;		/* ... and those that came after more writes */
	struct chain chain;
	unsigned refusals_logged;
	uint64_t flush_errors_seen[BLK_DEVS_NR];

	bool is_deaf;			/* its next message is not wanted yet */
	bool has_control;		/* a control that was carried out but not answered */
	struct blkmsg_control control;
};

/* What its client is called in messages. */
const char *conn_name(const struct conn *c);
/*
 * Close its socket and its ring; it is gone when no I/O of it is under way, which may be now.  why:
 * what the client did wrong, or NULL when it went by itself.
 */
void conn_close(struct blockd *d, struct conn *c, const char *why);
/* Nothing is under way for it any more, and it is closed: it is gone. */
void conn_release(struct blockd *d, struct conn *c);
void io_release(struct blockd *d, struct io *io);
/* I/O has ended: answer controls and hellos that waited for that. */
void conns_retry_held(struct blockd *d);

#endif
