/*
 * What btree.c, btree_change.c and btree_near.c share: a block of a tree seen together with the keys that its
 * ancestors leave to it.  Nobody else includes this.
 */
#ifndef SCOUTFS_BTREE_PATH_H
#define SCOUTFS_BTREE_PATH_H

#include "btree/btree_parts.h"

/* Inclusive; what a block may hold (9.6). */
struct key_range {
	struct key low;
	struct key high;
};

#define KEY_RANGE_ALL ((struct key_range){ KEY_ZEROS, KEY_ONES })

/* Height and reference agree and are possible (20.4): 0 or -EBADMSG. */
int btree_root_check(const struct disk_btree_root *root);

/*
 * Whether a block that was read through a reference of a tree is what belongs there: structure
 * (once per read), level, keys inside the range.  0, or -EBADMSG with *why in words.
 */
int btree_block_check(struct block *bl, unsigned level, const struct key_range *range,
		      const char **why);

/* block_get and btree_block_check.  A reference out of range is -EBADMSG: it came from a block. */
int btree_block_get(struct block_set *bs, struct block_ref ref, unsigned level,
		    const struct key_range *range, struct block **out, const char **why);

/* Where a parent's item keeps the reference of its child. */
const struct disk_block_ref *btree_child_ref(const struct disk_btree_block *b, int slot);

/* Narrow *range, the range of parent b, to that of the child in slot. */
void btree_child_range(const struct disk_btree_block *b, int slot, struct key_range *range);

/*
 * btree_force_bounded and btree_delete_bounded; bounds and near may be NULL.  Near, which has no leaf, gets the one
 * in which the item is now, or was.
 */
int btree_force_from_root(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
			  const struct item *it, const struct btree_bounds *bounds,
			  struct btree_near *near);
int btree_delete_from_root(struct block_set *bs, struct blkno_alloc *al,
			   struct disk_btree_root *root, const struct key *key,
			   const struct btree_bounds *bounds, struct btree_near *near);

#endif
