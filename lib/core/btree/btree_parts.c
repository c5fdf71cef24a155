/*
 * The lowest parents of a tree, and freeing a tree little by little.  format.md 14.1, 14.2.
 *
 * Promises: btree_free_some frees every block of a tree once, however often it is stopped and gone
 * on with from *from, in this transaction or, after a crash, from an older one.  It never reads a
 * block that is free already, since such blocks may have been written anew by others: blocks wholly
 * below *from are not descended into, and a parent goes in the same step as the last block below
 * it.
 */
#include "btree/btree_parts.h"

#include <errno.h>

#include "btree/btree_path.h"

/* The lowest parent that covers key, and the keys it covers. */
static int find_parent(struct block_set *bs, const struct disk_btree_root *root,
		       const struct key *key, struct disk_btree_root *sub, struct key_range *range)
{
	struct block_ref ref = block_ref_get(&root->ref);
	struct block *bl;
	const char *why;
	int ret, slot;

	*sub = *root;
	*range = KEY_RANGE_ALL;
	ret = btree_root_check(root);
	if (ret < 0 || root->height <= 2)
		return ret;
	for (unsigned level = root->height - 1u; level > 1; level--) {
		ret = btree_block_get(bs, ref, level, range, &bl, &why);
		if (ret < 0)
			return ret;
		slot = btb_find_ge(bl->data, key);
		if (slot >= 0) {
			btree_child_range(bl->data, slot, range);
			ref = block_ref_get(btree_child_ref(bl->data, slot));
		}
		block_put(bs, bl);
		if (slot < 0)
			return -EBADMSG;
	}
	*sub = (struct disk_btree_root){ .ref = block_ref_put(ref), .height = 2 };
	return 0;
}

int btree_parent_get(struct block_set *bs, const struct disk_btree_root *root,
		     const struct key *key, struct disk_btree_root *sub, struct key *end)
{
	struct key_range range;
	int ret = find_parent(bs, root, key, sub, &range);

	*end = range.high;
	return ret;
}

int btree_parent_fits(struct block_set *bs, const struct disk_btree_root *root,
		      const struct key *key, const struct disk_btree_root *sub)
{
	struct disk_btree_root old;
	struct key_range range;
	struct block *bl;
	const char *why;
	struct item last;
	int ret;

	ret = find_parent(bs, root, key, &old, &range);
	if (ret == 0)
		ret = btree_root_check(sub);
	if (ret == 0 && root->height > 2 && sub->height != 2)
		ret = -EBADMSG;
	if (ret < 0 || sub->height == 0)
		return ret;
	ret = btree_block_get(bs, block_ref_get(&sub->ref), sub->height - 1u, &range, &bl, &why);
	if (ret < 0)
		return ret;
	/* A parent's last child reaches exactly to its end, or keys would be nobody's. */
	if (sub->height > 1) {
		ret = btb_nr(bl->data) ? 0 : -EBADMSG;
		if (ret == 0)
			btb_item(bl->data, btb_last(bl->data), &last);
		if (ret == 0 && !key_eq(&last.key, &range.high))
			ret = -EBADMSG;
	}
	block_put(bs, bl);
	return ret;
}

/* Blocks from the root to a lowest parent; above[0] is the root. */
struct way {
	unsigned nr;
	struct block_ref above[BTREE_HEIGHT_MAX];
	struct key high[BTREE_HEIGHT_MAX];
	struct key_range range;		/* of the last */
	struct block *bl;		/* the last, held */
};

static int find_way(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		    struct way *w)
{
	struct block_ref ref = block_ref_get(&root->ref);
	const char *why;
	int ret, slot;

	w->nr = 0;
	w->range = KEY_RANGE_ALL;
	for (unsigned level = root->height - 1u;; level--) {
		ret = btree_block_get(bs, ref, level, &w->range, &w->bl, &why);
		if (ret < 0)
			return ret;
		w->above[w->nr] = ref;
		w->high[w->nr] = w->range.high;
		w->nr++;
		if (level == 1)
			return 0;
		slot = btb_find_ge(w->bl->data, key);
		if (slot >= 0) {
			btree_child_range(w->bl->data, slot, &w->range);
			ref = block_ref_get(btree_child_ref(w->bl->data, slot));
		}
		block_put(bs, w->bl);
		if (slot < 0)
			return -EBADMSG;
	}
}

static int free_one(struct block_set *bs, struct blkno_alloc *al, struct block_ref ref,
		    unsigned *blocks)
{
	int ret = block_free(bs, al, ref);

	if (*blocks > 0)
		(*blocks)--;
	/* It was named by a block, not by the caller. */
	return ret == -EINVAL ? -EBADMSG : ret;
}

/* Free one leaf, whose greatest key is high, and the parents that end with it. */
static int free_leaf(struct block_set *bs, struct blkno_alloc *al, const struct way *w,
		     struct block_ref ref, const struct key *high, unsigned *blocks)
{
	int ret = free_one(bs, al, ref, blocks);

	for (unsigned i = w->nr; i > 0 && ret == 0 && key_eq(&w->high[i - 1], high); i--)
		ret = free_one(bs, al, w->above[i - 1], blocks);
	return ret;
}

/* The leaves of one lowest parent.  0: a limit is reached, 1: all are free. */
static int free_leaves(struct block_set *bs, struct blkno_alloc *al, const struct way *w,
		       struct key *from, unsigned *blocks, const struct btree_bounds *bounds)
{
	const struct disk_btree_block *b = w->bl->data;
	const struct key ones = KEY_ONES;
	struct item it;
	int ret;

	for (int slot = btb_find_ge(b, from); slot >= 0; slot = btb_next(b, slot)) {
		if (*blocks == 0 || !bounds->has_room(bounds->arg, w->nr + 1))
			return 0;
		btb_item(b, slot, &it);
		/* No key between the last child and the parent's end: it would be nobody's. */
		if (btb_next(b, slot) < 0 && !key_eq(&it.key, &w->range.high))
			return -EBADMSG;
		ret = free_leaf(bs, al, w, block_ref_get(btree_child_ref(b, slot)), &it.key,
				blocks);
		if (ret < 0)
			return ret;
		*from = key_eq(&it.key, &ones) ? ones : key_next(it.key);
	}
	return 1;
}

int btree_free_some(struct block_set *bs, struct blkno_alloc *al,
		    const struct disk_btree_root *root, struct key *from, unsigned *blocks,
		    const struct btree_bounds *bounds)
{
	const struct key ones = KEY_ONES;
	struct way w;
	int ret;

	ret = btree_root_check(root);
	if (ret < 0)
		return ret;
	if (root->height == 0)
		*from = ones;
	while (!key_eq(from, &ones)) {
		if (root->height == 1) {
			if (*blocks == 0 || !bounds->has_room(bounds->arg, 1))
				return 0;
			ret = free_one(bs, al, block_ref_get(&root->ref), blocks);
			if (ret < 0)
				return ret;
			*from = ones;
			break;
		}
		ret = find_way(bs, root, from, &w);
		if (ret < 0)
			return ret;
		if (btb_find_ge(w.bl->data, from) < 0)
			ret = -EBADMSG;
		else
			ret = free_leaves(bs, al, &w, from, blocks, bounds);
		block_put(bs, w.bl);
		if (ret <= 0)
			return ret;
	}
	return 1;
}
