/* Shared by blkcli.c (calls) and blkcli_conn.c (the connection); nobody else's. */
#ifndef SCOUTFS_BLKCLI_IMPL_H
#define SCOUTFS_BLKCLI_IMPL_H

#include <pthread.h>

#include "blkcli.h"

#define BOUNCE_BYTES	65536u		/* of each slot */

/* A call that waits, on its thread's stack. */
struct waiter {
	struct waiter *next;
	pthread_cond_t cond;
	size_t pending;			/* slots that belong to it */
	bool wants_slot;
	bool was_resent;		/* one of them: perhaps behind a FLUSH that was to cover it */
	uint64_t chain;			/* 0: its operations make none */
	uint64_t chain_connection;	/* the connection that it belongs to */
	uint32_t chain_nr;		/* operations of it, the last not counted */
	uint64_t expect_seq;		/* of the last */
	uint32_t expect_crc;
	uint64_t deadline_ns;		/* 0: none */
};

enum slot_state {
	SLOT_FREE,
	SLOT_FILLING,			/* a caller writes into it */
	SLOT_WAITING,			/* for a connection */
	SLOT_SENT,
};

struct slot {
	enum slot_state state;
	uint32_t gen;			/* so that a tag names one use of the slot */
	struct blkring_desc desc;
	struct waiter *waiter;		/* NULL: the caller gave up */
	struct blkcli_op *op;
	void *copy_to;
};

enum control_state {
	CONTROL_NONE,
	CONTROL_WAITING,
	CONTROL_SENT,
	CONTROL_DONE,
};

struct blkcli {
	struct blkcli_conf conf;
	char *path;

	/* Constant once the first connection stands, until close. */
	void *pool;
	size_t pool_bytes;
	uint64_t pool_dev, pool_ino;
	void *region;			/* user_bytes, then BOUNCE_BYTES for each slot */
	int region_fd;
	size_t user_bytes;
	size_t region_bytes;
	uint64_t fsid, meta_blocks, data_blocks;

	pthread_mutex_t lock;		/* all below */
	pthread_cond_t conn_cond;	/* connection state, control state, is_reaping */
	bool was_opened;		/* by a first connection */
	bool is_connected;
	bool is_reaping;		/* one thread uses ring, cq_head and cq_efd without the lock */
	bool is_stopping;
	int refusal;			/* why blockd or we refused the last connection, or 0 */
	uint32_t can;			/* BLK_CAN_*, as the last blockd said */
	uint64_t connection;		/* how many there have been */
	uint64_t chains;
	struct blkring_shared *ring;
	int sock, sq_efd, cq_efd;
	uint32_t sq_tail, cq_head;
	uint32_t sq_shown;		/* sq_tail as blockd sees it; the same while nobody has the lock */
	struct blkring_spin spin;	/* the reaper's */
	uint32_t reap_for;		/* completions it waits for; read without the lock, only lowered meanwhile */
	struct slot slots[BLKRING_ENTRIES];
	uint32_t free[BLKRING_ENTRIES];	/* a stack, so that few bounce buffers are ever touched */
	uint32_t free_nr;
	struct waiter *waiters;
	uint64_t flush_failures[BLK_DEVS_NR];
	struct {
		enum control_state state;
		int result;
		struct blkmsg_control msg;
	} control;
	struct blk_lease lease;		/* the newest that was said to us */
	bool lease_is_due;		/* and not to this blockd */
	bool must_resend;		/* slots wait for a lease: blockd refused their writes */
	struct blkcli_stats stats;

	pthread_t thread;
	int wake_efd;			/* for the connection thread */

	pthread_mutex_t buf_lock;
	pthread_cond_t buf_cond;
	uint32_t *runs;			/* by page: length of the run that starts there, in pages */
};

static inline void *client_bounce(const struct blkcli *c, const struct slot *s)
{
	return (char *)c->region + c->user_bytes + (size_t)(s - c->slots) * BOUNCE_BYTES;
}

/* All with the lock held. */

/* Hand out what blockd has completed.  Whether there was any; -EPROTO: blockd's ring makes no sense. */
int client_drain(struct blkcli *c);
/* Put a waiting slot into the ring when there is one; client_kick must follow before the unlock. */
void client_send_slot(struct blkcli *c, struct slot *s);
/*
 * The chain that a slot belongs to has ended with its connection: it is an operation like others.
 * Not its last one, which must not be done before the others: that ends with -EAGAIN, and is free.
 */
void client_leave_chain(struct blkcli *c, struct slot *s);
/* Let blockd see what was put into the ring. */
void client_kick(struct blkcli *c);
/* Use this connection no more; the connection thread makes a new one. */
void client_fail(struct blkcli *c, const char *why);
void client_wake_conn(struct blkcli *c);

#endif
