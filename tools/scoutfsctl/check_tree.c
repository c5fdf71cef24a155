/*
 * One b-tree block against invariants 4-11.  Written from format.md 9 and not from btb_check(), so
 * that a mistake in the code that writes blocks is not repeated by the code that judges them;
 * whatever btb_check() refuses beyond that is reported as well, since every reader would refuse
 * the block.
 */
#include "check_volume.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"

#define ITEMS_START sizeof(struct disk_btree_block)
#define ITEM_SIZE sizeof(struct disk_btree_item)
#define NODE_FIRST (ITEMS_START - offsetof(struct disk_btree_block, item_root)) /* 16, 9.3 */

struct view {
	struct check *ck;
	const struct check_tree *t;
	const struct disk_btree_block *b;
	uint64_t blkno;
	unsigned nr;
	unsigned values_end;
};

#define FIND(v, nr_, fmt, ...) \
	check_find((v)->ck, nr_, AT_BLOCK((v)->blkno), "%s: " fmt, (v)->t->name, ##__VA_ARGS__)

static unsigned round8(unsigned n) { return (n + 7) & ~7u; }

/* The slot an AVL reference names: -1 null, -2 nonsense. */
static int node_slot(const struct view *v, le16 ref)
{
	unsigned r = le16_get(ref);

	if (!r)
		return -1;
	if (r < NODE_FIRST || (r - NODE_FIRST) % ITEM_SIZE || (r - NODE_FIRST) / ITEM_SIZE >= v->nr)
		return -2;
	return (int)((r - NODE_FIRST) / ITEM_SIZE);
}

/* In-order walk by child links; parents must agree with the way that was taken. */
static bool check_avl(const struct view *v, uint16_t *order)
{
	const struct disk_btree_item *items = v->b->items;
	uint16_t stack[CHECK_ITEMS_MAX];
	bool seen[CHECK_ITEMS_MAX] = { false };
	unsigned depth = 0, nr = 0;
	int at = node_slot(v, v->b->item_root), from = -1;

	if (!v->nr) {
		if (at == -1)
			return true;
		FIND(v, 5, "a block without items has an AVL root");
		return false;
	}
	for (;;) {
		for (; at >= 0; at = node_slot(v, items[at].node.left)) {
			if (seen[at]) {
				FIND(v, 5, "the AVL links lead to slot %d twice", at);
				return false;
			}
			seen[at] = true;
			if (node_slot(v, items[at].node.parent) != from) {
				FIND(v, 5, "the AVL parent link of slot %d is wrong", at);
				return false;
			}
			stack[depth++] = (uint16_t)at;
			from = at;
		}
		if (at == -2) {
			FIND(v, 5, "an AVL link is not an item's place");
			return false;
		}
		if (!depth)
			break;
		from = stack[--depth];
		order[nr++] = (uint16_t)from;
		at = node_slot(v, items[from].node.right);
	}
	if (nr != v->nr) {
		FIND(v, 5, "the AVL tree holds %u items, the block %u", nr, v->nr);
		return false;
	}
	for (unsigned i = 1; i < nr; i++) {
		struct key a = key_from_disk(&items[order[i - 1]].key),
			   b = key_from_disk(&items[order[i]].key);

		if (key_cmp(&a, &b) >= 0) {
			check_find(v->ck, 5, AT_BLOCK_KEY(v->blkno, &b), "%s: keys do not ascend",
				   v->t->name);
			return false;
		}
	}
	return true;
}

static int cmp_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* 8 and 9.  False: a value lies where it cannot. */
static bool check_values(const struct view *v)
{
	unsigned level = v->b->level, sum = 0, with_value = 0;
	unsigned items_end = (unsigned)(ITEMS_START + ITEM_SIZE * v->nr), least = v->values_end;
	unsigned free_end = items_end + le16_get(v->b->mid_free_len);
	uint32_t spans[CHECK_ITEMS_MAX];

	for (unsigned s = 0; s < v->nr; s++) {
		const struct disk_btree_item *it = &v->b->items[s];
		unsigned off = le16_get(it->val_off), len = le16_get(it->val_len);
		struct key key = key_from_disk(&it->key);
		const struct check_where *at = AT_BLOCK_KEY(v->blkno, &key);

		sum += (unsigned)ITEM_SIZE + round8(len);
		if (len > ITEM_VAL_MAX || (level && len != sizeof(struct disk_block_ref))) {
			check_find(v->ck, 8, at, "%s: a value of %u bytes%s", v->t->name, len,
				   level ? " in a parent" : "");
			return false;
		}
		if (!len && off)
			check_find(v->ck, 8, at, "%s: an item without value has value offset %u",
				   v->t->name, off);
		if (!len)
			continue;
		if (off % 8 || off < items_end || off + round8(len) > v->values_end) {
			check_find(v->ck, 8, at, "%s: a value at %u+%u is outside the value area",
				   v->t->name, off, len);
			return false;
		}
		spans[with_value++] = (uint32_t)off << 16 | round8(len);
		if (off < least)
			least = off;
	}
	qsort(spans, with_value, sizeof(spans[0]), cmp_u32);
	for (unsigned i = 1; i < with_value; i++)
		if ((spans[i - 1] >> 16) + (spans[i - 1] & 0xffff) > spans[i] >> 16) {
			FIND(v, 8, "values at %u and %u overlap", spans[i - 1] >> 16,
			     spans[i] >> 16);
			return false;
		}
	if (sum != le16_get(v->b->total_item_bytes))
		FIND(v, 9, "total_item_bytes is %u, the items sum to %u",
		     le16_get(v->b->total_item_bytes), sum);
	if (free_end > least)
		FIND(v, 9, "the free middle ends at %u, beyond the first value at %u", free_end,
		     least);
	return true;
}

/* 7, leaves only. */
static void check_hash(const struct view *v)
{
	const uint8_t *table = (const uint8_t *)v->b + BTREE_HASH_OFFSET;
	unsigned used = 0;

#define BUCKET(i) ((unsigned)(table[2 * (i)] | table[2 * (i) + 1] << 8))
	for (unsigned i = 0; i < BTREE_HASH_BUCKETS; i++) {
		unsigned off = BUCKET(i);

		if (!off)
			continue;
		used++;
		if (off < ITEMS_START || (off - ITEMS_START) % ITEM_SIZE ||
		    (off - ITEMS_START) / ITEM_SIZE >= v->nr) {
			FIND(v, 7, "leaf hash bucket %u does not hold an item's place", i);
			return;
		}
	}
	if (used != v->nr) {
		FIND(v, 7, "the leaf hash has %u entries, the block %u items", used, v->nr);
		return;
	}
	for (unsigned s = 0; s < v->nr; s++) {
		const struct disk_btree_item *it = &v->b->items[s];
		unsigned i = hash32(&it->key, sizeof(it->key)) % BTREE_HASH_BUCKETS;
		unsigned steps = 0;

		while (BUCKET(i) && BUCKET(i) != ITEMS_START + ITEM_SIZE * s &&
		       steps++ < BTREE_HASH_BUCKETS)
			i = (i + 1) % BTREE_HASH_BUCKETS;
		if (BUCKET(i) != ITEMS_START + ITEM_SIZE * s) {
			struct key key = key_from_disk(&it->key);

			check_find(v->ck, 7, AT_BLOCK_KEY(v->blkno, &key),
				   "%s: the leaf hash does not lead to "
				   "this item",
				   v->t->name);
			return;
		}
	}
#undef BUCKET
}

/* 10 and 11. */
static void check_keys(const struct view *v, const uint16_t *order, const struct key *low,
		       const struct key *high, bool is_right_edge)
{
	static const uint8_t zero[7];
	const struct disk_btree_item *items = v->b->items;

	if (memcmp(v->b->pad, zero, sizeof(v->b->pad)))
		FIND(v, 11, "padding of the block is not zero");
	for (unsigned i = 0; i < v->nr; i++) {
		const struct disk_btree_item *it = &items[order[i]];
		struct key key = key_from_disk(&it->key);
		const struct check_where *at = AT_BLOCK_KEY(v->blkno, &key);
		unsigned flags_ok = v->t->kind == TREE_LOG_ITEMS && !v->b->level
					    ? ITEM_FLAG_DELETION
					    : 0;

		if (key_cmp(&key, low) < 0 || key_cmp(&key, high) > 0)
			check_find(v->ck, 10, at, "%s: the key is outside the block's range",
				   v->t->name);
		if (it->node.pad || memcmp(it->pad, zero, sizeof(it->pad)) ||
		    !key_pad_is_zero(&it->key))
			check_find(v->ck, 11, at, "%s: padding of an item is not zero", v->t->name);
		if (it->flags & ~flags_ok)
			check_find(v->ck,
				   v->t->kind == TREE_FS && it->flags == ITEM_FLAG_DELETION ? 18
											    : 11,
				   at, "%s: item flags %#x may not stand in this tree", v->t->name,
				   it->flags);
	}
	if (v->b->level && is_right_edge) {
		struct key last = KEY_ONES, is = { 0 };

		if (v->nr)
			is = key_from_disk(&items[order[v->nr - 1]].key);
		if (!key_eq(&last, &is))
			FIND(v, 10,
			     "the last key of a parent on the right edge is not the greatest key");
	}
}

bool check_tree_block(struct check *ck, const struct check_tree *t,
		      const struct disk_btree_block *b, uint64_t blkno, unsigned level,
		      const struct key *low, const struct key *high, bool is_right_edge,
		      uint16_t *order)
{
	struct view v = { .ck = ck,
			  .t = t,
			  .b = b,
			  .blkno = blkno,
			  .nr = le16_get(b->nr_items),
			  .values_end = b->level ? LARGE_SIZE : BTREE_HASH_OFFSET };
	uint64_t before = check_findings(ck);
	const char *why = "";

	if (b->level != level) {
		FIND(&v, 4, "the block is at level %u where %u is expected", b->level, level);
		return false;
	}
	if (ITEMS_START + ITEM_SIZE * v.nr > v.values_end) {
		FIND(&v, 5, "%u items do not fit a block", v.nr);
		return false;
	}
	if (!check_avl(&v, order) || !check_values(&v))
		return false;
	check_keys(&v, order, low, high, is_right_edge);
	if (!level)
		check_hash(&v);
	else if (!v.nr)
		FIND(&v, 10, "a parent without children");
	if (!btb_avl_is_balanced(b))
		check_warn(ck, 6, AT_BLOCK(blkno), "%s: AVL heights or balance are wrong", t->name);
	if (check_findings(ck) == before && btb_check(b, &why))
		FIND(&v, 5, "%s", why);
	return true;
}
