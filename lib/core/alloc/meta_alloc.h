/*
 * Allocation lists, and the allocator of one transaction made of an avail and a freed list.
 * format.md 10.2; runtime.md 8.2.
 */
#ifndef SCOUTFS_META_ALLOC_H
#define SCOUTFS_META_ALLOC_H

#include "alloc/free_extents.h"

/*
 * The metadata allocator of a transaction: pops from the first block of *avail, pushes on the first
 * block of *freed.  Both heads are the caller's and stay where they are until meta_alloc_close.
 * The first alloc or free of a transaction makes both list blocks dirty with two entries of avail
 * itself (10.2).
 */
struct meta_alloc {
	struct block_set *bs;
	struct disk_alloc_list_head *avail;
	struct disk_alloc_list_head *freed;
	struct block *avail_bl;
	struct block *freed_bl;
	struct blkno_alloc al;		/* hand &ma->al to trees */
};

void meta_alloc_open(struct meta_alloc *ma, struct block_set *bs, struct disk_alloc_list_head *avail,
		     struct disk_alloc_list_head *freed);
/* How many blocks this transaction can still allocate, and how many it can still free, counting what
 * making the lists dirty will cost. */
uint32_t meta_alloc_avail_nr(const struct meta_alloc *ma);
uint32_t meta_alloc_freed_room(const struct meta_alloc *ma);
/* Let go of the list blocks; the heads are final.  Before block_set_write, or after an abort. */
void meta_alloc_close(struct meta_alloc *ma);

/*
 * If head's first block has fewer than lo entries, bring it to target from the extents of root
 * (10.2 "fill").  al pays for the tree's and the list's copies and is another transaction's allocator
 * (the server's).  A dry root is not an error: the head then holds what there was.
 */
int alloc_list_fill(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_list_head *head,
		    struct disk_alloc_root *root, uint32_t lo, uint32_t target);
/* Move entries of head into extents of root, freeing emptied list blocks, at most `blocks_max` list
 * blocks; -EINPROGRESS: more remain. */
int alloc_list_empty(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_list_head *head,
		     struct disk_alloc_root *root, unsigned blocks_max);
/* Put src's chain in front of dst's; src becomes empty. */
int alloc_list_splice(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_list_head *dst,
		      struct disk_alloc_list_head *src);

/* Visit the blocks of a chain (for a checker): entries are blk->blknos[start .. start+nr-1]. */
int alloc_list_each(struct block_set *bs, const struct disk_alloc_list_head *head,
		    int (*each)(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b),
		    void *arg);
/* Window rules of 10.2 within one block; 0 or -EBADMSG. */
int alloc_list_check(const struct disk_alloc_list_block *b, uint64_t total_meta_blocks);

#endif
