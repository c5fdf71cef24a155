/*
 * Cluster locks of this mount: runtime.md 4, design.md D4.  A lock is known by its start key.
 */
#ifndef SCOUTFS_FSD_LOCKS_H
#define SCOUTFS_FSD_LOCKS_H

#include "op.h"

enum lock_mode { LOCK_MODE_NULL, LOCK_MODE_READ, LOCK_MODE_WRITE, LOCK_MODE_WRITE_ONLY };

int locks_start(struct fsd *fsd);
/* Take over what an earlier process has held (keep.h), before anybody asks for a lock or the leader
 * for them; up to generation open_gen something under them may be dirty.  -EIO: it makes no sense. */
int locks_restore(struct fsd *fsd, uint64_t open_gen);
/*
 * No thread acts for revokes any more: it answers through the session and asks what is in use, so this comes before
 * those end; but after the farewell, which may wait for others that wait for these locks.
 */
void locks_end_revokes(struct fsd *fsd);
void locks_stop(struct fsd *fsd);

/*
 * Give op a use of the lock that covers key (or ino's group), in that mode or better.  0, or
 * OP_PARKED: the engine takes it for op in the order of runtime.md 4.8 (uses of later locks are
 * given up and taken again), then run() starts from its beginning.  Uses stay with op until it is
 * done.
 */
int lock_key(struct op *op, const struct key *key, enum lock_mode mode);
int lock_inode(struct op *op, uint64_t ino, enum lock_mode mode);
int lock_rename(struct op *op);
/* A READ use of ino's group if that needs no waiting and op has room for it. */
bool lock_try_inode(struct op *op, uint64_t ino);
/* Whether op may touch key in that mode (assertions of items.c). */
bool lock_covers(const struct op *op, const struct key *key, bool write);
/* Give up op's READ use of ino's group before it is done (a long walk); nothing if it is a WRITE
 * use. */
void lock_release_inode(struct op *op, uint64_t ino);
/* Drop all uses; called by op.c. */
void lock_unuse(struct op *op);
/* Whether the leader wants one back that op has named. */
bool lock_is_wanted(const struct op *op);

/* The write_seq of the lock that covers key (0 if none): txn.c's item seqs, format 11.3. */
uint64_t lock_write_seq(struct fsd *fsd, const struct key *key);
/* How long the kernel may cache entries and attributes of ino: seconds, 0 while its lock is absent
 * or being revoked. */
double lock_kernel_timeout(struct fsd *fsd, uint64_t ino);
/* Whether a truncation of ino waits, for its lock or for a write that does: until then the kernel writes nothing of it back. */
bool locks_keep_pages(struct fsd *fsd, uint64_t ino);
/* The open generation in which a use with write mode was last dropped: a revoke commits up to
 * it. */
void lock_note_dirty(struct op *op, uint64_t gen);

/* The part of op_park for what lock_key found missing. */
void lock_wait(struct op *op);

/* From net.c, in receive order: the leader's messages.  roots: those that came with the grant, or NULL. */
struct forest_roots;
void locks_granted(struct fsd *fsd, const struct key *key, uint8_t old_mode, uint8_t new_mode,
		   uint64_t write_seq, const struct forest_roots *roots);
struct net_req;
void locks_invalidate(struct fsd *fsd, struct net_req *req, const struct key *key, uint8_t old_mode,
		      uint8_t new_mode);
/* Locks from start on, for recovery: fills up to max, returns how many. */
struct lock_state { struct key key; uint8_t mode; uint64_t write_seq; };
size_t locks_recover(struct fsd *fsd, const struct key *start, struct lock_state *out, size_t max);

void locks_counts(struct fsd *fsd, uint64_t *held, uint64_t *waiting);

#endif
