/*
 * Free-extent trees: every free extent stored twice, by place and by size.  format.md 10.1.
 * Used for large metadata blknos and small data blknos alike; lengths are in that unit.
 * Errors as btree.h; -EUCLEAN: the tree contradicts itself or the caller (double free, not free).
 */
#ifndef SCOUTFS_FREE_EXTENTS_H
#define SCOUTFS_FREE_EXTENTS_H

#include "btree/btree.h"

struct extent {
	uint64_t start;
	uint64_t len;
};

unsigned extent_order(uint64_t len);	/* floor(log8(len)) */
struct key key_free_by_blkno(uint64_t start, uint64_t len);
struct key key_free_by_order(uint64_t start, uint64_t len);

/* Add a free extent, merged with the neighbours it touches. */
int free_extents_insert(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
			struct extent ext);
/* Whether any of its blocks is free: 1 or 0. */
int free_extents_overlap(struct block_set *bs, const struct disk_alloc_root *root, struct extent ext);
/* Take out a range that lies inside one free extent. */
int free_extents_remove(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
			struct extent ext);
/* Take up to `want` from the front of an extent of the greatest order.  -ENOSPC: empty. */
int free_extents_alloc(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
		       uint64_t want, struct extent *ext);
/* The extent that contains or follows `at`.  -ENOENT. */
int free_extents_next(struct block_set *bs, const struct disk_alloc_root *root, uint64_t at,
		      struct extent *ext);
/* An upper bound of the number of extents, at most four times as many as there are unless there are
 * few; from the parents of the tree, no leaf of a tall one is read. */
int free_extents_nr_max(struct block_set *bs, const struct disk_alloc_root *root, uint64_t *nr);
/* Move up to `want` blocks, in at most extents_max steps, from src to dst; *moved says how many.
 * An extent of src that overlaps what is free in dst is in neither afterwards: *lost says how many blocks of *moved that is.
 * -EINPROGRESS: extents_max was reached before `want` (call again in another commit). */
int free_extents_move(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *dst,
		      struct disk_alloc_root *src, uint64_t want, unsigned extents_max,
		      uint64_t *moved, uint64_t *lost);

#endif
