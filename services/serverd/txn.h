/*
 * The server's transaction: the one writer of the super and of every tree it roots.
 * runtime.md 3.9; format.md 10.3, 18.1.
 *
 * One thread (the worker; in tests the test) owns a txn and makes every call but those that say
 * otherwise.  A change is a struct txn_job: its run() changes trees through the txn; jobs run one
 * after another and are committed together; done() is called when the commit is durable.
 */
#ifndef SCOUTFS_SERVERD_TXN_H
#define SCOUTFS_SERVERD_TXN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "alloc/meta_alloc.h"
#include "btree/btree.h"
#include "log/forest.h"

/* What a job may take from the allocator in one run, and what the end of a commit may (runtime 0.4). */
#define TXN_JOB_BLOCKS		500u
#define TXN_CLOSE_BLOCKS	400u

/* What a commit writes. */
struct txn_write {
	const struct block_write *blocks;
	size_t blocks_nr;
	bool data;			/* the data device is flushed, too */
	const struct disk_super *old;	/* what must stand there */
	const struct disk_super *super;
	bool at_super;			/* out: it was this that failed */
};

/* The devices.  Each returns 0 or -errno. */
struct txn_dev {
	void *arg;
	struct block_dev blocks;
	/*
	 * Write all: on 0 they are durable, and whatever was written to the device before (with data: to the
	 * data device, too), and super (SMALL_SIZE bytes) is what stood at SUPER_BLKNO at some time meanwhile.
	 */
	int (*write_durable)(void *arg, const struct block_write *w, size_t nr, bool data, void *super);
	/*
	 * The whole commit in one: write_durable, and when that is done well and the super that
	 * stands there is the old one, write_super.  -EUCLEAN: it is another.  -EAGAIN: not
	 * possible, or interrupted: the super may be written or not, and all is to be done step by
	 * step.  NULL: never possible.
	 */
	int (*write_commit)(void *arg, struct txn_write *w);
	int (*read_super)(void *arg, void *buf);	/* SMALL_SIZE bytes at SUPER_BLKNO */
	int (*write_super)(void *arg, const void *buf);	/* durable when it returns 0 */
	int (*probe_data)(void *arg);	/* reads something of the data device, and flushes it */
	const struct block_buffers *buffers;	/* for the blocks in memory; NULL: malloc */
};

/* The volume's sequence counter, 16.1: any thread. */
struct seq_source {
	_Atomic uint64_t last;
};
uint64_t seq_next(struct seq_source *s);
void seq_raise(struct seq_source *s, uint64_t seq);
uint64_t seq_last(struct seq_source *s);

/* What is in the log_merge tree. */
struct txn_merge_view {
	bool is_running;
	uint64_t seq;			/* of the merge that runs */
	uint64_t ranges, requests, completes, freeing;
	uint64_t blocks;		/* in lists of requests and completions */
};

/* What the last durable commit says, and what was counted while it was made. */
struct txn_view {
	struct disk_super super;
	uint64_t last_stable_seq;	/* runtime 9.4 */
	uint64_t newest_item_seq;	/* of the items that mounts have committed */
	uint64_t inode_count;
	uint64_t free_meta_blocks;	/* 16.6 */
	uint64_t free_data_blocks;
	uint64_t reserved_meta_blocks;
	bool meta_is_low;
	uint64_t log_trees_nr;
	uint64_t open_trees_nr;
	uint64_t finished_trees_nr;
	uint64_t height_max;		/* of a log tree */
	uint64_t mounted_nr;
	struct txn_merge_view merge;
};

struct txn_stats {
	_Atomic uint64_t commits, commit_us_sum, commit_us_last, jobs, jobs_failed, slices, aborts,
			 blocks_written;
};

struct txn;

struct txn_job {
	struct txn_job *next;		/* the queue's */
	/*
	 * Change trees.  0: done.  -EINPROGRESS: what was changed is consistent; commit it and run
	 * again.  Another error: nothing of it may stay; the txn takes back everything since the last
	 * commit, runs the other jobs again and this one fails.  So run() may be called many times,
	 * and must change nothing but trees and its own result fields.
	 */
	int (*run)(struct txn_job *job, struct txn *t);
	/* The result: 0 once durable, run()'s error, or what the commit failed with. */
	void (*done)(struct txn_job *job, int err);
};

/*
 * Read the super, choose the roles of the allocator lists and trees (runtime 3.6, step 5), and raise seq
 * to what the volume knows.  fsid and fmt_vers are what this host expects.  On error *why says in
 * words: -EINVAL another volume, -EBADMSG, -EIO, -ENOMEM.
 */
int txn_open(struct txn **out, const struct txn_dev *dev, struct seq_source *seq, uint64_t fsid,
	     size_t clean_blocks_max, const char **why);
void txn_close(struct txn *t);

/*
 * Run jobs (a list linked by next) and commit, as often as it takes until all are done; done() of each
 * is called before it returns.  With no jobs nothing is written.  0, or the fatal error after
 * which the txn refuses everything: a block, flush or super could not be written; -ESTALE: the super
 * is not the one we wrote last, so somebody else writes it and nothing was written.
 */
int txn_run(struct txn *t, struct txn_job *jobs);
/* The same up to the first commit: *jobs is then what is left, and others may be put behind it. */
int txn_step(struct txn *t, struct txn_job **jobs);
/* The fatal error, or 0; why in words.  Any thread. */
int txn_failed(struct txn *t, const char **why);

/*
 * Whether the devices do what is asked of them, tried with what stands there: the super is written once more as it is.  An
 * error is no fatal one, but for -ESTALE as above.
 */
int txn_probe(struct txn *t);
/* Whether a flush has failed and the txn has not: what others wrote before it may be lost, and no later flush would tell. */
bool txn_has_missed(const struct txn *t);

/* Copies what the last commit published.  Any thread; never waits for a device. */
void txn_get_view(struct txn *t, struct txn_view *view);
const struct txn_stats *txn_stats(const struct txn *t);

/* For run(): the parts of the transaction. */
struct block_set *txn_blocks(struct txn *t);
struct blkno_alloc *txn_alloc(struct txn *t);
struct disk_super *txn_super(struct txn *t);		/* the private, dirty one */
const struct disk_super *txn_stable(struct txn *t);	/* as last committed */
struct seq_source *txn_seq(struct txn *t);
struct disk_alloc_root *txn_meta_avail(struct txn *t);	/* the tree new lists are filled from */
/* The idle freed list, where the lists of clients are spliced to. */
struct disk_alloc_list_head *txn_meta_freed(struct txn *t);
/* The commit of this run flushes the data device before it writes the super. */
void txn_flush_data(struct txn *t);
/* Whether the two metadata trees together are down to the reserve of 2.3. */
bool txn_meta_is_low(const struct txn *t);
/* Whether another small step of work (a few dozen blocks) fits this run; always so at its beginning. */
bool txn_has_room(struct txn *t);
/* How many blocks may be allocated, and as many freed, beside what the end of the commit needs. */
unsigned txn_room(struct txn *t);

#endif
