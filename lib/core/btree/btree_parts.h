/*
 * Trees in parts, for log merge: subtrees below the lowest parents, changes that keep within
 * bounds, walking leaf by leaf, freeing a tree little by little.  format.md 9.6, 9.7, 14.2;
 * runtime.md 7.3-7.5.  Errors as btree.h.
 */
#ifndef SCOUTFS_BTREE_PARTS_H
#define SCOUTFS_BTREE_PARTS_H

#include "btree/btree.h"

/*
 * The leaf that covers key, held and checked, and the inclusive range of keys it may have.
 * -ENOENT: the tree is empty.  block_put() it.
 */
int btree_leaf_get(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		   struct block **leaf, struct key *low, struct key *high);

/*
 * What one descent to a leaf of a tree of that height can allocate at most, and free at most; a
 * change is one descent, or several when blocks on the way had to be split or joined.
 */
#define BTREE_DESCENT_BLOCKS(height)	((unsigned)(height) + 2u)

/*
 * Limits to a change.  has_room() is asked before every descent whether that many more blocks can
 * be allocated and freed; keep_root: the root is a block that another tree's parent refers to, so
 * it is neither split nor left, and nothing is deleted below it while it is under the low-water
 * mark.
 */
struct btree_bounds {
	void *arg;
	bool (*has_room)(void *arg, unsigned blocks);
	bool keep_root;
};

/*
 * btree_force, and btree_delete, within bounds.  1: a bound was hit.  The item is then as it was
 * and the tree valid, though blocks may have been split or joined.
 */
int btree_force_bounded(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
			const struct item *it, const struct btree_bounds *bounds);
int btree_delete_bounded(struct block_set *bs, struct blkno_alloc *al,
			 struct disk_btree_root *root, const struct key *key,
			 const struct btree_bounds *bounds);

/*
 * Changes in the order of keys, for the most part: the leaf that the last one was made in is held, and what belongs into
 * it too needs no descent.  Zeroes at first.  As long as it has a leaf nobody else changes the tree, and the set is
 * neither written nor aborted; btree_near_end() puts the leaf, in any state.
 */
struct btree_near {
	struct block *leaf;	/* NULL: none */
	struct key low, high;	/* what it may have, inclusive */
	bool has_joined;	/* the way to it was joined for a deletion */
};
void btree_near_end(struct block_set *bs, struct btree_near *near);
/* btree_lookup; what is found stays valid until the next change.  btree_put() it. */
int btree_near_lookup(struct block_set *bs, const struct disk_btree_root *root,
		      const struct btree_near *near, const struct key *key, struct btree_ref *ref);
/*
 * btree_force_bounded and btree_delete_bounded, or without bounds if that is NULL.  The tree becomes the same, block
 * for block, as by those; but what dirties nothing is not asked whether there is room.
 */
int btree_near_force(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		     struct btree_near *near, const struct item *it,
		     const struct btree_bounds *bounds);
int btree_near_delete(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		      struct btree_near *near, const struct key *key,
		      const struct btree_bounds *bounds);

/*
 * The lowest parent (level 1) that covers key, as a tree of height 2 of its own, and the greatest
 * key it covers.  For a tree of height 2 or less that is the whole tree, and *end the greatest key.
 */
int btree_parent_get(struct block_set *bs, const struct disk_btree_root *root,
		     const struct key *key, struct disk_btree_root *sub, struct key *end);
/*
 * Whether `sub` can take the place of what btree_parent_get gives for key: 0, or -EBADMSG when it
 * does not fit there by height, level or keys.  Only the top block of sub is looked at.
 */
int btree_parent_fits(struct block_set *bs, const struct disk_btree_root *root,
		      const struct key *key, const struct disk_btree_root *sub);
/* Put it there, copying the path.  Nothing of the old one is freed. */
int btree_parent_replace(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
			 const struct key *key, const struct disk_btree_root *sub);
/*
 * Bring the lowest parent that covers key, and those above it, into the shape in which keep_root
 * lets changes go on: room for one more child, and not below the low-water mark if there is
 * anything to join it with.  0: it is so; changes nothing if it was.  1: bounds hit (keep_root is
 * not looked at): commit and call again.
 */
int btree_parent_rebalance(struct block_set *bs, struct blkno_alloc *al,
			   struct disk_btree_root *root, const struct key *key,
			   const struct btree_bounds *bounds);

/*
 * Free the blocks of a tree that nobody uses any more, in key order, from *from on: each block with
 * the greatest key it covers, so that exactly the blocks wholly below *from are free (14.1).  Reads
 * only parents that are not free yet and changes none.  Ends when *blocks, which is counted down,
 * is 0, or has_room() says no; the parents that end with the last leaf go with it in any case. 0:
 * there are more, *from is where to go on; 1: all are free, *from is the greatest key (an empty
 * tree, or one with *from there already, is such).
 */
int btree_free_some(struct block_set *bs, struct blkno_alloc *al,
		    const struct disk_btree_root *root, struct key *from, unsigned *blocks,
		    const struct btree_bounds *bounds);

#endif
