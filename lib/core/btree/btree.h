/*
 * Trees of b-tree blocks with copy-on-write: read, insert, update, delete, split, join, iterate.
 * format.md 9.6-9.9.  A root is the caller's struct disk_btree_root; a changing call rewrites it.
 *
 * Errors, unless said otherwise: -ESTALE a block was replaced under a reader (start again from
 * fresh roots, runtime.md 6.5); -EBADMSG a block is malformed; -EIO; -ENOSPC the allocator is dry.
 * A changing call that fails with any of these, -ENOMEM or -EUCLEAN (block.h) may have dirtied
 * blocks: abort the set.
 *
 * Items point into blocks.  An item of a tree that is being changed in the same set is good until
 * the next change of that tree; one of a committed tree until its block is put.
 */
#ifndef SCOUTFS_BTREE_H
#define SCOUTFS_BTREE_H

#include "btree/block.h"
#include "btree/btree_block.h"

/* An item and the leaf that holds its bytes; btree_put() it. */
struct btree_ref {
	struct item item;
	struct block *bl;
};
void btree_put(struct block_set *bs, struct btree_ref *ref);

/* -ENOENT: absent. */
int btree_lookup(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		 struct btree_ref *ref);
/* The first item >= key, the last item <= key; -ENOENT: none. */
int btree_next(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
	       struct btree_ref *ref);
int btree_prev(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
	       struct btree_ref *ref);

/* Insert a new item (-EEXIST), replace one (-ENOENT), or either.  -EINVAL: the value is longer than
 * ITEM_VAL_MAX, or unknown flags.  None of these three has dirtied anything.  it->val may point
 * into any block, also of this tree. */
int btree_insert(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		 const struct item *it);
int btree_update(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		 const struct item *it);
int btree_force(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		const struct item *it);
/* -ENOENT: absent. */
int btree_delete(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		 const struct key *key);

/*
 * The leaf that covers key: calls each item of it inside [*start, *end] in key order, after
 * shrinking *start and *end to what the leaf covers (11.5).  An empty tree covers everything and
 * has no items. each() returns 0 to go on; anything else ends the call with that value.
 */
typedef int (*btree_item_fn)(void *arg, const struct item *it);
int btree_read_leaf(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		    struct key *start, struct key *end, btree_item_fn each, void *arg);

/* Every item in [start, end], in order; the tree must not change meanwhile. */
int btree_each(struct block_set *bs, const struct disk_btree_root *root, const struct key *start,
	       const struct key *end, btree_item_fn each, void *arg);

/*
 * Visit every block of a tree, parents before children, with the inclusive key range its ancestors
 * give it.  err is 0, or why the block could not be read (bl is then NULL and it is not descended
 * into).  visit() returns 0 to descend, 1 to skip what is below, negative to stop.
 */
struct btree_visit {
	struct block_ref ref;
	const struct block *bl;
	unsigned level_expected;
	struct key low, high;
	int err;
	const char *why;	/* in words, where err is -EBADMSG */
};
int btree_visit_blocks(struct block_set *bs, const struct disk_btree_root *root,
		       int (*visit)(void *arg, const struct btree_visit *v), void *arg);

/* Free every block of a tree through al and zero the root.  Leaves are not read.  On an error some
 * blocks are freed and the root is as it was: abort the set. */
int btree_free(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root);

#endif
