/*
 * Generations and commits: design.md D3, runtime.md 5.
 *
 * Every operation belongs to the open generation of the transaction it runs in.  Closing one is a
 * transaction of its own; then, in the commit thread, its dirty items are copied out of a snapshot,
 * streamed into the log tree, flushed, and stored by one commit request that also opens the next.
 */
#ifndef SCOUTFS_FSD_TXN_H
#define SCOUTFS_FSD_TXN_H

#include "op.h"

/* A cached seq is a real one, or a reference to the generation that will get one. */
#define SEQ_REF		(1ull << 63)
#define SEQ_NONE	UINT64_MAX
static inline uint64_t seq_ref(uint64_t gen) { return SEQ_REF | gen; }

/*
 * txn_init: before the session with the leader, which may ask for commits.  txn_start: opens the
 * mount's log tree at the leader, then commits by timer.  txn_stop: the last commit; 0 or why it is
 * not stored. txn_fini: when nobody can ask any more.
 */
int txn_init(struct fsd *fsd);
int txn_start(struct fsd *fsd);
int txn_stop(struct fsd *fsd);
void txn_fini(struct fsd *fsd);

/*
 * First thing in run() of everything that writes: 0; -ENOSPC (only if allocating: metadata is LOW);
 * or OP_PARKED until a commit has made room.  items_nr: at most how many items the operation
 * dirties.
 */
int txn_hold(struct op *op, struct itx *tx, unsigned items_nr, bool allocating);

/* OP_PARKED until the generation that was open when first called is committed; then 0 (fsync).
 * *gen is the operation's own memory of it, 0 at first.  Begins a commit at once. */
int txn_wait_committed(struct op *op, struct itx *tx, uint64_t *gen);
/* OP_PARKED until seq (real or a reference) can be told; then 0 and *seq is real. */
int txn_resolve_seq(struct op *op, struct itx *tx, uint64_t *seq);
/* Resolve without waiting; -EAGAIN: still open. */
int txn_resolve_seq_now(struct itx *tx, uint64_t *seq);

/* Commit whatever is open, because of `why` (a counter), and call then(arg) when it is
 * committed. */
enum txn_why { TXN_FSYNC, TXN_TIMER, TXN_FULL, TXN_LOCK };
/* Neither waits nor calls back from inside: then() (may be NULL) runs in the commit thread. */
void txn_commit(struct fsd *fsd, enum txn_why why, void (*then)(void *arg), void *arg);
/* The same, up to generation gen. */
void txn_commit_to(struct fsd *fsd, enum txn_why why, uint64_t gen, void (*then)(void *arg),
		   void *arg);
uint64_t txn_committed_gen(struct fsd *fsd);
/* Blocking form, for worker threads: until generation gen is committed (0: all that is dirty
 * now). */
void txn_commit_wait(struct fsd *fsd, enum txn_why why, uint64_t gen);

/* Inode count of the open generation: +1 created, -1 deleted (format 16.3); part of tx. */
int txn_inode_count_add(struct itx *tx, int delta);

/* For items.c: key becomes dirty in tx (in the order of the tree, for what a commit may take). */
void txn_touch(struct itx *tx, const struct key *key, const void *val, size_t len);
/* op->wait: until a commit has made room (anywhere: metadata, data, the cache). */
void txn_wait_room(struct op *op);
/*
 * The leader has said LOW, so there is no space: -ENOSPC, or, where it has said so some time ago,
 * OP_PARKED until it has been asked again (op may be NULL: then -ENOSPC).
 */
int txn_no_space(struct fsd *fsd, struct op *op);
/*
 * The same for data blocks.  Those that this mount is giving back - unlinked inodes are being
 * deleted, or what was truncated is not committed - come with a commit: OP_PARKED until then, for
 * 10 s at most.  A program that deletes and then writes is not told of a full device.
 */
int txn_no_data_space(struct itx *tx, struct op *op);
/* That wait (op->wait tells it from others): op gives up its lock uses, and names its locks anew when it runs again. */
void txn_wait_freed(struct op *op);
/* Something was deleted: who waits for that has it committed. */
void txn_freed(struct fsd *fsd);
/* Have the leader refill this mount's allocators, with a commit even if nothing is dirty. */
void txn_sync(struct fsd *fsd);
/* The same at once: the leader asks, for others wait for this mount. */
void txn_sync_now(struct fsd *fsd);
/* For how long devices have failed what a commit needs, so that no lock which waits for it is given back; 0: they do not. */
uint32_t txn_failing_ms(struct fsd *fsd);
/* The leader, or a generation that cannot be stored: counters for status. */
struct txn_status {
	uint64_t open_gen, committed_gen, trans_seq, meta_avail, retries;
	uint64_t busy_since_ns;		/* a commit is running since; 0: none */
	bool is_low;			/* metadata: allocating operations get ENOSPC */
	char doing[64];			/* in words, of the running commit */
};
void txn_get_status(struct fsd *fsd, struct txn_status *st);

/* inos.c: the numbers fetched from the leader. */
int inos_start(struct fsd *fsd);
void inos_stop(struct fsd *fsd);
/* A new inode number, never used before; dirs come from a batch of their own (runtime 10.1).
 * OP_PARKED while more are asked for. */
int txn_alloc_ino(struct op *op, struct itx *tx, bool dir, uint64_t *ino);
/* The last number of those behind `ino` of which none was handed out, in its lock group and batch; `ino` itself if
 * the one behind it was.  In a write transaction, so that none is before it ends. */
uint64_t txn_last_unused_ino(const struct itx *tx, bool dir, uint64_t ino);

#endif
