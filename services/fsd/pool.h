/*
 * The write-back pool: file data in pages of shared memory that blockd made (design.md §3, D3).
 *
 * Which page holds which block of which file stands in LMDB (TABLE_POOL), so it changes with the
 * transaction that writes; what stands here in memory is who may use a page for something new.
 */
#ifndef SCOUTFS_FSD_POOL_H
#define SCOUTFS_FSD_POOL_H

#include "data.h"

/* Value of TABLE_POOL.  Dirty iff gen > committed generation; gen 0: as read from the device. */
struct pool_rec {
	uint64_t gen;
	uint64_t blkno;
	uint32_t page;
	uint32_t pad;
};

void *pool_page(struct pool *p, uint32_t page);

/* Take up to `want` free pages for an operation, contiguous where possible; returns how many. */
unsigned pool_take(struct pool *p, uint32_t *pages, unsigned want);
/* Give back pages that no committed transaction has indexed. */
void pool_give(struct pool *p, const uint32_t *pages, unsigned nr);
/* An operation is about to put that block into a page it holds: readers of anything else keep off it. */
void pool_assign(struct pool *p, uint32_t page, uint64_t ino, uint64_t iblock);
/* The transaction that indexed the page has committed: it is the index's now. */
void pool_indexed(struct pool *p, uint32_t page, uint64_t ino, uint64_t iblock);
/*
 * For op_park: until pages are free (reclaims clean ones, begins a commit).  An operation that holds some gives them
 * back first (op->give_pages): those that wait would wait for one another.
 */
void pool_wait(struct op *op);

/*
 * Copy out of a page that a snapshot's index names: false if it has meanwhile been given to something
 * else, and what was copied is worth nothing.
 */
bool pool_copy(struct pool *p, uint32_t page, uint64_t ino, uint64_t iblock, void *to, size_t off, size_t len);

/* ---- the index, inside a transaction ---- */

/* 0, -ENOENT, or items_error's. */
int pool_find(struct itx *tx, uint64_t ino, uint64_t iblock, struct pool_rec *rec);
/* Write a record; dirty in the open generation when `dirty`. */
int pool_put(struct itx *tx, uint64_t ino, uint64_t iblock, uint32_t page, uint64_t blkno, bool dirty);
/* How many pages hold what no commit has stored.  items_error's. */
int pool_count_dirty(struct itx *tx, uint64_t *nr);
/* Forget all blocks of ino from iblock on; their pages become free some time after the commit. */
int pool_forget(struct itx *tx, uint64_t ino, uint64_t from_iblock);

#endif
