/*
 * Reading trees of b-tree blocks: descent, lookup, neighbours, iteration, visiting and freeing.
 * format.md 9.6, 11.5.  Changes are in btree_change.c.
 *
 * What it promises
 * - Every block is believed only after its structure, its level and its keys agreed with what its
 *   ancestors say of it.  Therefore each step of a walk makes progress: levels go down by one, keys
 *   only up (or only down), whatever the bytes are; and a block that two parents claim is found
 *   out, since its keys can lie in the range of one of them only.
 * - No block is held across calls, but the leaf in a btree_ref.
 *
 * Walks along the leaves start a new descent from the root for each leaf.  That costs a few cached
 * blocks and saves a stack of held ones, and lets the caller do anything in between.
 */
#include "btree/btree.h"

#include <errno.h>

#include "btree/btree_parts.h"
#include "btree/btree_path.h"

int btree_root_check(const struct disk_btree_root *root)
{
	if (root->height > BTREE_HEIGHT_MAX)
		return -EBADMSG;
	if ((root->height == 0) != (le64_get(root->ref.blkno) == 0))
		return -EBADMSG;
	return 0;
}

int btree_block_check(struct block *bl, unsigned level, const struct key_range *range,
		      const char **why)
{
	const struct disk_btree_block *b = bl->data;
	struct item it;
	int slot;

	if (!bl->checked) {
		int ret = btb_check(b, why);

		if (ret < 0)
			return ret;
		bl->checked = true;
	}
	if (btb_level(b) != level) {
		*why = "the level is not the one expected below its parent";
		return -EBADMSG;
	}
	slot = btb_first(b);
	if (slot < 0)
		return 0;
	btb_item(b, slot, &it);
	if (key_cmp(&it.key, &range->low) < 0) {
		*why = "a key is below the range that the parent gives";
		return -EBADMSG;
	}
	btb_item(b, btb_last(b), &it);
	if (key_cmp(&it.key, &range->high) > 0) {
		*why = "a key is above the range that the parent gives";
		return -EBADMSG;
	}
	return 0;
}

int btree_block_get(struct block_set *bs, struct block_ref ref, unsigned level,
		    const struct key_range *range, struct block **out, const char **why)
{
	struct block *bl;
	int ret;

	*out = NULL;
	*why = NULL;
	ret = block_get(bs, ref, MAGIC_BTREE, &bl);
	if (ret == -EINVAL) {
		*why = "a reference names a block outside the device";
		return -EBADMSG;
	}
	if (ret < 0)
		return ret;
	/* What this set has made writable was checked then, and only we have changed it since. */
	ret = 0;
	if (!bl->dirty || !bl->checked || btb_level(bl->data) != level)
		ret = btree_block_check(bl, level, range, why);
	if (ret < 0) {
		block_put(bs, bl);
		return ret;
	}
	*out = bl;
	return 0;
}

const struct disk_block_ref *btree_child_ref(const struct disk_btree_block *b, int slot)
{
	struct item it;

	btb_item(b, slot, &it);
	return it.val;
}

void btree_child_range(const struct disk_btree_block *b, int slot, struct key_range *range)
{
	int before = btb_prev(b, slot);
	struct item it;

	if (before >= 0) {
		btb_item(b, before, &it);
		range->low = key_next(it.key);
	}
	btb_item(b, slot, &it);
	range->high = it.key;
}

/* The leaf that covers key, held, and its range.  -ENOENT: the tree is empty. */
static int descend(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		   struct block **leaf, struct key_range *range)
{
	struct block_ref ref = block_ref_get(&root->ref);
	const char *why;
	int ret;

	*leaf = NULL;
	*range = KEY_RANGE_ALL;
	ret = btree_root_check(root);
	if (ret < 0)
		return ret;
	if (root->height == 0)
		return -ENOENT;

	for (unsigned level = root->height - 1u;; level--) {
		const struct disk_btree_block *b;
		struct block *bl;
		int slot;

		ret = btree_block_get(bs, ref, level, range, &bl, &why);
		if (ret < 0)
			return ret;
		if (level == 0) {
			*leaf = bl;
			return 0;
		}
		b = bl->data;
		slot = btb_find_ge(b, key);
		if (slot >= 0) {
			btree_child_range(b, slot, range);
			ref = block_ref_get(btree_child_ref(b, slot));
		}
		block_put(bs, bl);
		if (slot < 0)
			return -EBADMSG;
	}
}

int btree_leaf_get(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		   struct block **leaf, struct key *low, struct key *high)
{
	struct key_range range;
	int ret = descend(bs, root, key, leaf, &range);

	*low = range.low;
	*high = range.high;
	return ret;
}

void btree_put(struct block_set *bs, struct btree_ref *ref)
{
	block_put(bs, ref->bl);
	*ref = (struct btree_ref){ .bl = NULL };
}

/* Give the leaf to the caller, or put it if there is no slot. */
static int take_slot(struct block_set *bs, struct block *leaf, int slot, struct btree_ref *ref)
{
	if (slot < 0) {
		block_put(bs, leaf);
		return -ENOENT;
	}
	btb_item(leaf->data, slot, &ref->item);
	ref->bl = leaf;
	return 0;
}

int btree_lookup(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		 struct btree_ref *ref)
{
	struct key_range range;
	struct block *leaf;
	int ret;

	*ref = (struct btree_ref){ .bl = NULL };
	ret = descend(bs, root, key, &leaf, &range);
	if (ret < 0)
		return ret;
	return take_slot(bs, leaf, btb_find(leaf->data, key), ref);
}

int btree_next(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
	       struct btree_ref *ref)
{
	const struct key ones = KEY_ONES;
	struct key from = *key;

	*ref = (struct btree_ref){ .bl = NULL };
	for (;;) {
		struct key_range range;
		struct block *leaf;
		int ret = descend(bs, root, &from, &leaf, &range);

		if (ret < 0)
			return ret;
		ret = take_slot(bs, leaf, btb_find_ge(leaf->data, &from), ref);
		if (ret != -ENOENT || key_eq(&range.high, &ones))
			return ret;
		from = key_next(range.high);
	}
}

int btree_prev(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
	       struct btree_ref *ref)
{
	const struct key zeros = KEY_ZEROS;
	struct key from = *key;

	*ref = (struct btree_ref){ .bl = NULL };
	for (;;) {
		struct key_range range;
		struct block *leaf;
		int ret = descend(bs, root, &from, &leaf, &range);

		if (ret < 0)
			return ret;
		ret = take_slot(bs, leaf, btb_find_le(leaf->data, &from), ref);
		if (ret != -ENOENT || key_eq(&range.low, &zeros))
			return ret;
		from = key_prev(range.low);
	}
}

/* Calls for the leaf's items inside [start, end]. */
static int each_in_leaf(const struct disk_btree_block *b, const struct key *start,
			const struct key *end, btree_item_fn each, void *arg)
{
	for (int slot = btb_find_ge(b, start); slot >= 0; slot = btb_next(b, slot)) {
		struct item it;
		int ret;

		btb_item(b, slot, &it);
		if (key_cmp(&it.key, end) > 0)
			break;
		ret = each(arg, &it);
		if (ret != 0)
			return ret;
	}
	return 0;
}

int btree_read_leaf(struct block_set *bs, const struct disk_btree_root *root, const struct key *key,
		    struct key *start, struct key *end, btree_item_fn each, void *arg)
{
	struct key_range range;
	struct block *leaf;
	int ret;

	ret = descend(bs, root, key, &leaf, &range);
	if (ret == -ENOENT)
		return 0;
	if (ret < 0)
		return ret;
	if (key_cmp(start, &range.low) < 0)
		*start = range.low;
	if (key_cmp(end, &range.high) > 0)
		*end = range.high;
	ret = each_in_leaf(leaf->data, start, end, each, arg);
	block_put(bs, leaf);
	return ret;
}

int btree_each(struct block_set *bs, const struct disk_btree_root *root, const struct key *start,
	       const struct key *end, btree_item_fn each, void *arg)
{
	struct key from = *start;

	while (key_cmp(&from, end) <= 0) {
		struct key_range range;
		struct block *leaf;
		int ret = descend(bs, root, &from, &leaf, &range);

		if (ret == -ENOENT)
			return 0;
		if (ret < 0)
			return ret;
		ret = each_in_leaf(leaf->data, &from, end, each, arg);
		block_put(bs, leaf);
		if (ret != 0)
			return ret;
		if (key_cmp(&range.high, end) >= 0)
			return 0;
		from = key_next(range.high);
	}
	return 0;
}

struct visitor {
	struct block_set *bs;
	int (*visit)(void *arg, const struct btree_visit *v);
	void *arg;
};

/* Recursion is bounded by the level, which goes down by one each time and starts below 20. */
static int visit_below(const struct visitor *vr, struct block_ref ref, unsigned level,
		       const struct key_range *range)
{
	struct btree_visit v = { .ref = ref, .level_expected = level, .low = range->low,
				 .high = range->high };
	struct block *bl;
	int ret;

	v.err = btree_block_get(vr->bs, ref, level, range, &bl, &v.why);
	v.bl = bl;
	ret = vr->visit(vr->arg, &v);
	if (ret == 0 && bl && level > 0) {
		const struct disk_btree_block *b = bl->data;

		for (int slot = btb_first(b); slot >= 0 && ret == 0; slot = btb_next(b, slot)) {
			struct key_range child = *range;

			btree_child_range(b, slot, &child);
			ret = visit_below(vr, block_ref_get(btree_child_ref(b, slot)), level - 1,
					  &child);
		}
	}
	block_put(vr->bs, bl);
	return ret < 0 ? ret : 0;
}

int btree_visit_blocks(struct block_set *bs, const struct disk_btree_root *root,
		       int (*visit)(void *arg, const struct btree_visit *v), void *arg)
{
	const struct visitor vr = { .bs = bs, .visit = visit, .arg = arg };
	int ret = btree_root_check(root);

	if (ret < 0 || root->height == 0)
		return ret;
	return visit_below(&vr, block_ref_get(&root->ref), root->height - 1u, &KEY_RANGE_ALL);
}

/* Leaves are freed unread: their parent says all that is needed. */
static int free_below(struct block_set *bs, struct blkno_alloc *al, struct block_ref ref,
		      unsigned level, const struct key_range *range)
{
	const struct disk_btree_block *b;
	struct block *bl;
	const char *why;
	int ret = 0;

	if (level > 0) {
		ret = btree_block_get(bs, ref, level, range, &bl, &why);
		if (ret < 0)
			return ret;
		b = bl->data;
		for (int slot = btb_first(b); slot >= 0 && ret == 0; slot = btb_next(b, slot)) {
			struct key_range child = *range;

			btree_child_range(b, slot, &child);
			ret = free_below(bs, al, block_ref_get(btree_child_ref(b, slot)), level - 1,
					 &child);
		}
		block_put(bs, bl);
	}
	if (ret == 0)
		ret = block_free(bs, al, ref);
	return ret == -EINVAL ? -EBADMSG : ret;
}

int btree_free(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root)
{
	int ret = btree_root_check(root);

	if (ret < 0 || root->height == 0)
		return ret;
	ret = free_below(bs, al, block_ref_get(&root->ref), root->height - 1u, &KEY_RANGE_ALL);
	if (ret == 0)
		*root = (struct disk_btree_root){ .height = 0 };
	return ret;
}
