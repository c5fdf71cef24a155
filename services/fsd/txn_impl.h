/* What txn.c and commit.c share. */
#ifndef SCOUTFS_FSD_TXN_IMPL_H
#define SCOUTFS_FSD_TXN_IMPL_H

#include "room.h"
#include "txn.h"

struct txn_waiter {
	struct txn_waiter *next;
	uint64_t gen;
	void (*then)(void *arg);
	void *arg;
};

struct txn {
	struct fsd *fsd;
	pthread_t thread;

	pthread_mutex_t lock;		/* guards what follows, up to the next comment */
	pthread_cond_t work;
	uint64_t committed_gen;		/* those who waited for it are being told */
	uint64_t want;			/* commit up to here */
	bool sync;			/* have the leader refill */
	bool sync_now;			/* ... whenever it was last asked to */
	bool stopping;
	bool is_started;		/* there is a thread */
	bool ended;			/* it takes no more work */
	int err;			/* why it has ended early */
	struct txn_waiter *waiters;
	struct op *gen_ops;		/* parked until need.gen is committed */
	struct op *room_ops;		/* parked until there may be room */
	uint64_t room_told;		/* how often these were waked */
	uint64_t answered_gen;		/* the leader has answered to what was given back up to there */
	uint64_t trans_seq, meta_avail, retries, busy_since_ns;
	char doing[64];

	/* the commit thread's */
	struct disk_log_trees lt;	/* the leader's last word */
	uint64_t tree_seq;		/* first transaction of this log tree, for stream_write */
	struct block_set *bs;
	uint64_t own_term;		/* of the leader of our instance, which has stored something of ours */
	uint64_t unknowing_term;	/* of one that is too old to flush for us; 0: none was */
	uint64_t next_sync_ns;

	_Atomic uint64_t opened_ns;	/* when lt came; any thread */
	_Atomic uint64_t failing_ns;	/* since when devices fail what a commit needs; 0: they do not; any thread */
	struct room *room;		/* locks itself */
};

/* Open the mount's log tree and load the data blocks it may use. */
int commit_open(struct txn *t);
/* gen is committed, and nothing of it is listed as dirty any more. */
int commit_clean(struct txn *t, uint64_t gen);
/* Commit the open generation; with `last` no next transaction is opened.  0, or why this mount must
 * end. */
int commit_gen(struct txn *t, bool last);
/* A commit of nothing: the leader refills our allocators. */
int commit_sync(struct txn *t);
/* gen is committed: tell who waits for it (txn.c). */
void txn_publish(struct txn *t, uint64_t gen);
/* For status, and whether waiting is over because the mount is being torn down. */
void txn_doing(struct txn *t, const char *what);
/* Whether the devices did what the commit in hand needs of them. */
void txn_devices(struct txn *t, bool fail);
bool txn_pause(struct txn *t, unsigned ms);

#endif
