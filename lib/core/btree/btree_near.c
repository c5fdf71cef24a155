/*
 * Changes of one tree one after the other, most of them in the leaf of the one before.  btree_parts.h.
 *
 * What it promises
 * - The tree becomes what the same changes would make of it that begin at the root: the same items in the same
 *   blocks, byte for byte.
 *
 * Why A change in order finds nothing to do on its way down that the one before has not done: each block above the
 * leaf has room for one more child since then, and, if that was a deletion, is above the low-water mark or cannot be
 * joined.  A change that needs none of the blocks above cannot alter that.  So what is left of a descent is what it
 * does in the leaf: the item goes there if it fits without compaction, which a descent would begin with; and it goes
 * from there if the leaf is above the low-water mark, below which a descent would look at its siblings.  Everything
 * else begins at the root.
 *
 * The leaf is held, so it can neither be freed nor copied under our eyes; who would do that is the descent from the
 * root, and before that it is put.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "btree/btree_parts.h"
#include "btree/btree_path.h"

void btree_near_end(struct block_set *bs, struct btree_near *near)
{
	block_put(bs, near->leaf);
	near->leaf = NULL;
}

static bool is_near(const struct btree_near *near, const struct key *key)
{
	return near->leaf && key_cmp(key, &near->low) >= 0 && key_cmp(key, &near->high) <= 0;
}

int btree_near_lookup(struct block_set *bs, const struct disk_btree_root *root,
		      const struct btree_near *near, const struct key *key, struct btree_ref *ref)
{
	int slot;

	if (!is_near(near, key))
		return btree_lookup(bs, root, key, ref);
	*ref = (struct btree_ref){ .bl = NULL };
	slot = btb_find(near->leaf->data, key);
	if (slot < 0)
		return -ENOENT;
	btb_item(near->leaf->data, slot, &ref->item);
	return 0;
}

/* What is to be changed, or NULL: that begins at the root. */
static struct disk_btree_block *near_block(const struct btree_near *near, const struct key *key,
					   uint16_t val_len)
{
	if (!is_near(near, key) || !btb_fits(near->leaf->data, val_len))
		return NULL;
	assert(near->leaf->dirty);
	return near->leaf->data;
}

int btree_near_force(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		     struct btree_near *near, const struct item *caller_it,
		     const struct btree_bounds *bounds)
{
	uint8_t val[ITEM_VAL_MAX];
	struct item it = *caller_it;
	struct disk_btree_block *b;
	int slot;

	if (it.val_len > ITEM_VAL_MAX || (it.flags & ~ITEM_FLAG_DELETION))
		return -EINVAL;
	b = near_block(near, &it.key, it.val_len);
	if (!b) {
		btree_near_end(bs, near);
		return btree_force_from_root(bs, al, root, &it, bounds, near);
	}
	/* The caller's value may lie in this very block. */
	if (it.val_len)
		memcpy(val, it.val, it.val_len);
	it.val = val;
	slot = btb_find(b, &it.key);
	if (slot >= 0)
		btb_update(b, slot, &it);
	else
		btb_insert(b, &it);
	return 0;
}

int btree_near_delete(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		      struct btree_near *near, const struct key *key,
		      const struct btree_bounds *bounds)
{
	struct disk_btree_block *b = near->has_joined ? near_block(near, key, 0) : NULL;
	int slot;

	if (!b || le16_get(b->total_item_bytes) < BTREE_LWM_BYTES) {
		btree_near_end(bs, near);
		return btree_delete_from_root(bs, al, root, key, bounds, near);
	}
	slot = btb_find(b, key);
	if (slot < 0)
		return -ENOENT;
	btb_delete(b, slot);
	return 0;
}
