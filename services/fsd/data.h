/* File data: extents, the write-back pool, data blocks.  format.md 12.11; runtime.md 11; design.md D3. */
#ifndef SCOUTFS_FSD_DATA_H
#define SCOUTFS_FSD_DATA_H

#include "inode.h"

int pool_start(struct fsd *fsd);
void pool_stop(struct fsd *fsd);
/* For locks.c, when the group of these inodes is lost: forget their clean pages (nothing is dirty). */
void pool_drop(struct fsd *fsd, uint64_t first_ino, uint64_t last_ino);
/* Pages in use and of the pool, for status. */
void pool_usage(struct fsd *fsd, uint64_t *used, uint64_t *total);

/* ---- for ops_attr.c, ops_file.c and orphan.c; all inside the caller's write transaction, WRITE lock held ---- */

/*
 * The bytes of size's block behind size become zero: of a new end, and of the old one of a file that grows without
 * writing that block.  The device may have anything there: an append that was lost with the power, before the size
 * that says so was stored.  0, OP_PARKED, -errno.
 */
int data_zero_tail(struct itx *tx, uint64_t ino, uint64_t size);
/* Set a new size (runtime 11.7): zeroes the tail of a partial last block, drops pool pages, sets
 * INODE_FLAG_TRUNCATE if extents remain past the end.  Changes *ci but does not inode_put it. */
int data_set_size(struct itx *tx, uint64_t ino, struct cinode *ci, uint64_t size);
/* Remove up to `max` extents from from_iblock on and free their blocks; OP_MORE if more may remain, 0 when
 * none do.  Changes *ci but does not inode_put it. */
int data_truncate_some(struct itx *tx, uint64_t ino, struct cinode *ci, uint64_t from_iblock, unsigned max);

/* ---- operations (ops_file.c), begun by fuse.c ---- */
struct file_req;	/* fuse.h */
void op_read(struct fsd *fsd, struct file_req *rq);
void op_write(struct fsd *fsd, struct file_req *rq);
void op_fallocate(struct fsd *fsd, struct file_req *rq);
void op_lseek(struct fsd *fsd, struct file_req *rq);

/*
 * A store to a mapped page reaches us when the kernel writes it back, and is answered before it is
 * applied (D4).  OP_PARKED while such writes of ino are pending; then 0, or the error one of them met,
 * told once (take_error).  Call it first: an operation that has locks already does not wait any more.
 */
int data_wait_pending(struct op *op, uint64_t ino, bool take_error);
/* Before requests are read: apply what an earlier process has answered and not applied. */
int data_start_pending(struct fsd *fsd);

/* ---- for txn.c: the data of one generation ---- */

/* Inside the snapshot of a closing generation: remember its dirty pages and where they go.  Then,
 * outside: write them to the data device (not flushed).  Then, when it is committed: mark them clean. */
struct pool_batch;
struct blkcli_op;
int pool_collect(struct itx *snapshot, uint64_t gen, struct pool_batch **out);
/*
 * From before a generation is closed until its pages are collected: no page becomes free.  A later generation may
 * forget one that the snapshot names, and somebody else's bytes would be written to its block.
 */
void pool_collecting(struct fsd *fsd, bool is_collecting);
/* Write all but the last few, which are left in rest[POOL_REST_MAX] to be written together with something else. */
#define POOL_REST_MAX	16u
int pool_write(struct fsd *fsd, struct pool_batch *pb, struct blkcli_op *rest,
	       size_t *rest_nr);
bool pool_batch_is_empty(const struct pool_batch *pb);
void pool_committed(struct fsd *fsd, struct pool_batch *pb);	/* frees pb */
/* `from`, closed and never stored, becomes part of `to`, the open one (resume.c). */
int pool_fold(struct fsd *fsd, uint64_t from, uint64_t to);
int dalloc_fold(struct fsd *fsd, uint64_t from, uint64_t to);

/* ---- data blocks of this mount (dalloc.c), in TABLE_DAVAIL and TABLE_DLOG ---- */

/* Up to `want` blocks near hint (0: anywhere), contiguous; -ENOSPC if data_avail is LOW and dry, OP_PARKED
 * while a commit fetches more.  Logged for the open generation. */
int dalloc_get(struct itx *tx, uint64_t want, uint64_t hint, struct extent *ext);
/* Free blocks: usable again only after commit and the leader's reclaim. */
int dalloc_put(struct itx *tx, struct extent ext);
/* What generation gen did, in order: allocated (alloc true) or freed. */
int dalloc_collect(struct itx *snapshot, uint64_t gen, int (*each)(void *arg, bool alloc, struct extent ext), void *arg);
/* Forget gen's log; and after a commit whose reply brought a new data_avail tree: the truth is now
 * exactly `exts` less what generations after gen have allocated. */
int dalloc_committed(struct itx *tx, uint64_t gen, const struct extent *exts, size_t nr, bool refilled, bool low);
uint64_t dalloc_free_blocks(struct fsd *fsd);

#endif
