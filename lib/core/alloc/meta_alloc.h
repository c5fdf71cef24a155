/*
 * Allocation lists, and the allocator of one transaction made of an avail and a freed list.
 * format.md 10.2; runtime.md 8.2.
 */
#ifndef SCOUTFS_META_ALLOC_H
#define SCOUTFS_META_ALLOC_H

#include "alloc/free_extents.h"

/*
 * The metadata allocator of a transaction: pops from the first block of *avail, pushes on the first
 * block of *freed.  Both heads are the caller's and stay where they are until meta_alloc_close; so
 * does the struct itself, whose address is in al.  The first alloc or free of a transaction makes
 * both list blocks dirty with two entries of avail itself (10.2).
 *
 * al.alloc and al.free: -ENOSPC, and nothing has changed, when meta_alloc_avail_nr or
 * meta_alloc_freed_room is 0; -EBADMSG, -EIO, -ESTALE, -ENOMEM from the first call of a
 * transaction: abort the set.
 */
struct meta_alloc {
	struct block_set *bs;
	struct disk_alloc_list_head *avail;
	struct disk_alloc_list_head *freed;
	struct block *avail_bl;
	struct block *freed_bl;
	struct blkno_alloc al;		/* hand &ma->al to trees */
};

void meta_alloc_open(struct meta_alloc *ma, struct block_set *bs,
		     struct disk_alloc_list_head *avail, struct disk_alloc_list_head *freed);
/* How many blocks this transaction can still allocate, and how many it can still free, counting
 * what making the lists dirty will cost.  Exact; only for lists opened a second time in one
 * transaction it is up to two less than the truth. */
uint32_t meta_alloc_avail_nr(const struct meta_alloc *ma);
uint32_t meta_alloc_freed_room(const struct meta_alloc *ma);
/* Let go of the list blocks; the heads are final.  Before block_set_write, or after an abort. */
void meta_alloc_close(struct meta_alloc *ma);

/*
 * If head's first block has fewer than lo entries, bring it to target from the extents of root
 * (10.2 "fill").  al pays for the tree's and the list's copies and is another transaction's
 * allocator (the server's).  A dry root is not an error: the head then holds what there was.
 */
int alloc_list_fill(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_list_head *head,
		    struct disk_alloc_root *root, uint32_t lo, uint32_t target);
/* Move entries of head into extents of root, freeing emptied list blocks, at most `blocks_max` list
 * blocks and at most 2048 extents (which may end inside a block), so that a scattered list cannot
 * outgrow a commit; -EINPROGRESS: more remain, call again, in this commit or another.  -EUCLEAN: an
 * entry is free already. */
int alloc_list_empty(struct block_set *bs, struct blkno_alloc *al,
		     struct disk_alloc_list_head *head, struct disk_alloc_root *root,
		     unsigned blocks_max);
/* The same, and at most extents_max runs of neighbouring blocks: each may make some blocks of the
 * tree dirty, so a caller with little room left does little. */
int alloc_list_empty_some(struct block_set *bs, struct blkno_alloc *al,
			  struct disk_alloc_list_head *head, struct disk_alloc_root *root,
			  unsigned blocks_max, unsigned extents_max);
/* Put src's blocks in front of dst's; src becomes empty, its flags too.  Copies every block of src
 * unless dst is empty.  On error both heads are as they were, but the set must be aborted. */
int alloc_list_splice(struct block_set *bs, struct blkno_alloc *al,
		      struct disk_alloc_list_head *dst, struct disk_alloc_list_head *src);
/* The same, at most blocks_max list blocks, each of which costs al one block and gives it one;
 * -EINPROGRESS: more remain, both heads are right, call again, in this commit or another. */
int alloc_list_splice_some(struct block_set *bs, struct blkno_alloc *al,
			   struct disk_alloc_list_head *dst, struct disk_alloc_list_head *src,
			   unsigned blocks_max);

/* Visit the blocks of a chain (for a checker): entries are b->blknos[start .. start+nr-1], in
 * range; whether they are distinct is not looked at.  -EBADMSG: window, range, a sum that differs
 * from the head's, or a loop (found at the latest after twice its length).  each() returning other
 * than 0 ends the call with that. */
int alloc_list_each(struct block_set *bs, const struct disk_alloc_list_head *head,
		    int (*each)(void *arg, struct block_ref ref,
				const struct disk_alloc_list_block *b),
		    void *arg);
/* Window rules of 10.2 within one block, entries in [2, total_meta_blocks); 0 or -EBADMSG. */
int alloc_list_check(const struct disk_alloc_list_block *b, uint64_t total_meta_blocks);
/* Whether a head can be one: counts against each other and the reference, flags; 0 or -EBADMSG. */
int alloc_list_head_check(const struct disk_alloc_list_head *head);

#endif
