/*
 * Whether a b-tree block may be used: the structural rules of format.md 20.4-20.11 that one block
 * can show.  This is the door between bytes of a device and btree_block.c, so it believes nothing:
 * every reference is bounded before it is followed, and no walk is longer than the number of items.
 *
 * Refused is what a reader could stumble over.  Padding is not looked at, since readers ignore it
 * (1); the one place where it matters is the padding of a leaf's key, because the leaf hash covers
 * it: such an item cannot be found by its key and fails as unreachable.  Heights and balance are
 * told apart (21.2).
 */
#include "btree/btree_block.h"

#include <errno.h>
#include <string.h>

#include "csum/csum.h"

#define ITEMS_START	((unsigned)sizeof(struct disk_btree_block))
#define ITEM_BYTES	((unsigned)sizeof(struct disk_btree_item))
#define NODE_FIRST	(ITEMS_START - (unsigned)offsetof(struct disk_btree_block, item_root))
#define VAL_UNIT	8u

static unsigned round8(unsigned nr)
{
	return (nr + VAL_UNIT - 1) & ~(VAL_UNIT - 1);
}

static const struct disk_btree_item *item_of(const struct disk_btree_block *b, unsigned slot)
{
	const uint8_t *items = (const uint8_t *)b + ITEMS_START;

	return (const struct disk_btree_item *)(items + ITEM_BYTES * slot);
}

static bool ref_is_valid(unsigned ref, unsigned nr)
{
	return ref == 0 || (ref >= NODE_FIRST && (ref - NODE_FIRST) % ITEM_BYTES == 0 &&
			    (ref - NODE_FIRST) / ITEM_BYTES < nr);
}

static const struct disk_avl_node *node_of(const struct disk_btree_block *b, unsigned ref)
{
	return &item_of(b, (ref - NODE_FIRST) / ITEM_BYTES)->node;
}

/*
 * Bounds of the array and the middle, then of each value.  used[] has a bit for every 8 bytes of
 * the block, set where a value lies.
 */
static const char *check_values(const struct disk_btree_block *b)
{
	uint8_t used[LARGE_SIZE / VAL_UNIT / 8] = { 0 };
	const unsigned end = b->level == 0 ? BTREE_HASH_OFFSET : LARGE_SIZE;
	const unsigned nr = le16_get(b->nr_items);
	const unsigned items_end = ITEMS_START + ITEM_BYTES * nr;
	const unsigned mid_end = items_end + le16_get(b->mid_free_len);
	unsigned total = 0;

	if (b->level >= BTREE_HEIGHT_MAX)
		return "the level is beyond the greatest height";
	if (items_end > end)
		return "more items than fit";
	if (mid_end > end)
		return "mid_free_len reaches beyond the value area";
	/* Every step of 9.5 keeps it so, and the next value's place is computed from it. */
	if (mid_end % VAL_UNIT)
		return "mid_free_len is not a multiple of 8";
	if (b->level > 0 && nr == 0)
		return "a parent without children";

	for (unsigned slot = 0; slot < nr; slot++) {
		const struct disk_btree_item *it = item_of(b, slot);
		const unsigned off = le16_get(it->val_off);
		const unsigned len = le16_get(it->val_len);

		if (it->flags & (b->level == 0 ? ~ITEM_FLAG_DELETION : ~0u))
			return "an item has unknown flags";
		if (len > ITEM_VAL_MAX)
			return "a value is too long";
		if (b->level > 0 && len != sizeof(struct disk_block_ref))
			return "a parent's value is not a block reference";
		total += ITEM_BYTES + round8(len);
		if (len == 0)
			continue;
		if (off % VAL_UNIT)
			return "a value is not aligned";
		if (off < mid_end || off + round8(len) > end)
			return "a value lies outside the value area";
		for (unsigned u = off / VAL_UNIT; u < (off + round8(len)) / VAL_UNIT; u++) {
			if (used[u / 8] & 1u << u % 8)
				return "two values overlap";
			used[u / 8] |= (uint8_t)(1u << u % 8);
		}
		if (b->level > 0) {
			struct disk_block_ref ref;

			memcpy(&ref, (const uint8_t *)b + off, sizeof(ref));
			if (le64_get(ref.blkno) == 0)
				return "a child reference is zero";
		}
	}
	if (total != le16_get(b->total_item_bytes))
		return "total_item_bytes is not the sum of the items";
	return NULL;
}

/*
 * Links of the AVL tree.  With every child link answered by the child's parent link, and the root
 * without a parent, what can be reached from the root is a tree: no node has two parents, so the
 * traversal that follows ends.
 */
static const char *check_links(const struct disk_btree_block *b)
{
	const unsigned nr = le16_get(b->nr_items);
	const unsigned root = le16_get(b->item_root);

	if (!ref_is_valid(root, nr))
		return "item_root does not point at an item";
	if ((root == 0) != (nr == 0))
		return "item_root and nr_items do not agree";
	for (unsigned slot = 0; slot < nr; slot++) {
		const struct disk_avl_node *node = &item_of(b, slot)->node;
		const unsigned ref = NODE_FIRST + ITEM_BYTES * slot;
		const unsigned left = le16_get(node->left);
		const unsigned right = le16_get(node->right);
		const unsigned parent = le16_get(node->parent);

		if (!ref_is_valid(left, nr) || !ref_is_valid(right, nr) ||
		    !ref_is_valid(parent, nr))
			return "an AVL link does not point at an item";
		if (left && left == right)
			return "an AVL node has one child twice";
		if ((left && le16_get(node_of(b, left)->parent) != ref) ||
		    (right && le16_get(node_of(b, right)->parent) != ref))
			return "an AVL child does not point back at its parent";
		if (ref == root && parent != 0)
			return "the AVL root has a parent";
	}
	return NULL;
}

static const char *check_order(const struct disk_btree_block *b)
{
	const unsigned nr = le16_get(b->nr_items);
	unsigned visited = 0;
	struct item it;
	struct key prev;

	for (int slot = btb_first(b); slot >= 0; slot = btb_next(b, slot)) {
		btb_item(b, slot, &it);
		if (visited > 0 && key_cmp(&prev, &it.key) >= 0)
			return "the AVL tree is not in the order of the keys";
		prev = it.key;
		visited++;
	}
	return visited == nr ? NULL : "the AVL tree does not reach every item";
}

static const char *check_hash(const struct disk_btree_block *b)
{
	const le16 *table = (const le16 *)((const uint8_t *)b + BTREE_HASH_OFFSET);
	const unsigned nr = le16_get(b->nr_items);
	unsigned filled = 0;

	for (unsigned i = 0; i < BTREE_HASH_BUCKETS; i++) {
		unsigned off = le16_get(table[i]);

		if (off == 0)
			continue;
		if (off < ITEMS_START || (off - ITEMS_START) % ITEM_BYTES ||
		    (off - ITEMS_START) / ITEM_BYTES >= nr)
			return "a bucket of the leaf hash does not point at an item";
		filled++;
	}
	if (filled != nr)
		return "the leaf hash does not have a bucket for each item";
	for (unsigned slot = 0; slot < nr; slot++) {
		struct key key = key_from_disk(&item_of(b, slot)->key);

		if (btb_find(b, &key) != (int)slot)
			return "the leaf hash does not lead to an item";
	}
	return NULL;
}

int btb_check(const struct disk_btree_block *b, const char **why)
{
	*why = check_values(b);
	if (!*why)
		*why = check_links(b);
	if (!*why)
		*why = check_order(b);
	if (!*why && b->level == 0)
		*why = check_hash(b);
	return *why ? -EBADMSG : 0;
}

bool btb_avl_is_balanced(const struct disk_btree_block *b)
{
	const unsigned nr = le16_get(b->nr_items);

	/* Each height against the children's: true of all nodes means true of all subtrees. */
	for (unsigned slot = 0; slot < nr; slot++) {
		const struct disk_avl_node *node = &item_of(b, slot)->node;
		const unsigned l = le16_get(node->left);
		const unsigned r = le16_get(node->right);
		const unsigned lh = l ? node_of(b, l)->height : 0;
		const unsigned rh = r ? node_of(b, r)->height : 0;

		if (node->height != 1 + (lh > rh ? lh : rh))
			return false;
		if (lh > rh + 1 || rh > lh + 1)
			return false;
	}
	return true;
}
