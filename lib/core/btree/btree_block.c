/*
 * One b-tree block: an array of item structs that an AVL tree puts in order, values packed down
 * from the end, and in leaves a hash table over the items.  format.md 9.1-9.5.
 *
 * What it promises
 * - Any block that btb_check() accepts can be read and changed by everything else here without
 *   leaving the block's bytes and without looping, and stays acceptable.
 * - To insert, update and delete follows 9.3-9.5 step by step and, where heights are right, gives the same bytes as another
 *   implementation.  A split makes both sides anew: the same items in each, but other slots, hash chains and AVL trees,
 *   which the format leaves open.
 *
 * What it relies on
 * - Callers do not insert a key twice, nor more than fits; that is asserted, since it would be our
 *   bug.
 * - AVL heights are never relied on for safety, only for balance: mkfs of upstream writes wrong
 *   ones (21.2).  A rotation towards a side is done only if that side's height says that it has a
 *   node, and null counts 0, so wrong heights can unbalance a tree but not break it.  The ancestors
 *   of a change are recomputed up to the first that is as high as before, which repairs wrong heights that far.
 *
 * Two ways to point at an item, not to be confused: a node reference counts from the item_root
 * field at offset 32 and a hash bucket from the start of the block.  Slots are array indices.
 */
#include "btree/btree_block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"

#define ITEMS_START	((unsigned)sizeof(struct disk_btree_block))
#define ITEM_BYTES	((unsigned)sizeof(struct disk_btree_item))
#define NODE_BASE	((unsigned)offsetof(struct disk_btree_block, item_root))
#define NODE_FIRST	(ITEMS_START - NODE_BASE)
#define ITEMS_NR_MAX	((LARGE_SIZE - ITEMS_START) / ITEM_BYTES)
#define VAL_ALIGN	8u

static_assert(NODE_BASE == 32, "9.3");
static_assert(BTREE_HASH_OFFSET + BTREE_HASH_BUCKETS * sizeof(le16) == LARGE_SIZE, "9.4");
static_assert(BTREE_HASH_BUCKETS > (BTREE_HASH_OFFSET - ITEMS_START) / ITEM_BYTES,
	      "an empty bucket always ends a probe");

static unsigned round8(unsigned nr)
{
	return (nr + VAL_ALIGN - 1) & ~(VAL_ALIGN - 1);
}

static unsigned area_end(const struct disk_btree_block *b)
{
	return b->level == 0 ? BTREE_HASH_OFFSET : LARGE_SIZE;
}

unsigned btb_nr(const struct disk_btree_block *b)
{
	return le16_get(b->nr_items);
}

unsigned btb_level(const struct disk_btree_block *b)
{
	return b->level;
}

static unsigned items_end(const struct disk_btree_block *b)
{
	return ITEMS_START + ITEM_BYTES * btb_nr(b);
}

/*
 * Items are reached through byte offsets and not through items[]: slots come from 16-bit
 * references, and this keeps the arithmetic in the units of the format.
 */
static struct disk_btree_item *item_at(struct disk_btree_block *b, unsigned slot)
{
	return (struct disk_btree_item *)((uint8_t *)b + ITEMS_START + ITEM_BYTES * slot);
}

static const struct disk_btree_item *item_at_ro(const struct disk_btree_block *b, unsigned slot)
{
	const uint8_t *items = (const uint8_t *)b + ITEMS_START;

	return (const struct disk_btree_item *)(items + ITEM_BYTES * slot);
}

static unsigned ref_of_slot(unsigned slot)
{
	return NODE_FIRST + ITEM_BYTES * slot;
}

static unsigned slot_of_ref(unsigned ref)
{
	return (ref - NODE_FIRST) / ITEM_BYTES;
}

static int slot_or_none(unsigned ref)
{
	return ref ? (int)slot_of_ref(ref) : -1;
}

static struct disk_avl_node *node_at(struct disk_btree_block *b, unsigned ref)
{
	return &item_at(b, slot_of_ref(ref))->node;
}

static const struct disk_avl_node *node_at_ro(const struct disk_btree_block *b, unsigned ref)
{
	return &item_at_ro(b, slot_of_ref(ref))->node;
}

static unsigned root_ref(const struct disk_btree_block *b)
{
	return le16_get(b->item_root);
}

static void le16_add(le16 *x, int delta)
{
	*x = le16_of((uint16_t)(le16_get(*x) + delta));
}

void btb_init(struct disk_btree_block *b, uint8_t level)
{
	memset((uint8_t *)b + sizeof(b->hdr), 0, LARGE_SIZE - sizeof(b->hdr));
	b->level = level;
	b->mid_free_len = le16_of((uint16_t)(area_end(b) - ITEMS_START));
}

/* --- search --- */

/* key against a key in the block, in the order of 7.2. */
static int cmp_to_disk(const struct key *key, const struct disk_key *d)
{
	uint64_t v;

	if (key->zone != d->zone)
		return key->zone < d->zone ? -1 : 1;
	v = le64_get(d->first);
	if (key->first != v)
		return key->first < v ? -1 : 1;
	if (key->type != d->type)
		return key->type < d->type ? -1 : 1;
	v = le64_get(d->second);
	if (key->second != v)
		return key->second < v ? -1 : 1;
	v = le64_get(d->third);
	if (key->third != v)
		return key->third < v ? -1 : 1;
	return (key->fourth > d->fourth) - (key->fourth < d->fourth);
}

static const le16 *hash_table_ro(const struct disk_btree_block *b)
{
	return (const le16 *)((const uint8_t *)b + BTREE_HASH_OFFSET);
}

static le16 *hash_table(struct disk_btree_block *b)
{
	return (le16 *)((uint8_t *)b + BTREE_HASH_OFFSET);
}

static unsigned hash_start(const struct disk_key *d)
{
	return hash32(d, sizeof(*d)) % BTREE_HASH_BUCKETS;
}

static unsigned hash_following(unsigned bucket)
{
	return bucket + 1 == BTREE_HASH_BUCKETS ? 0 : bucket + 1;
}

static unsigned hash_of_slot(unsigned slot)
{
	return ITEMS_START + ITEM_BYTES * slot;
}

/* The bucket that holds slot's item, which is there. */
static unsigned hash_bucket_of_slot(const struct disk_btree_block *b, unsigned slot)
{
	const le16 *table = hash_table_ro(b);
	unsigned bucket = hash_start(&item_at_ro(b, slot)->key);

	while (le16_get(table[bucket]) != hash_of_slot(slot)) {
		assert(le16_get(table[bucket]) != 0);
		bucket = hash_following(bucket);
	}
	return bucket;
}

int btb_find(const struct disk_btree_block *b, const struct key *key)
{
	struct disk_key want;
	const le16 *table;
	unsigned bucket;
	unsigned off;

	if (b->level > 0) {
		int slot = btb_find_ge(b, key);

		if (slot < 0 || cmp_to_disk(key, &item_at_ro(b, (unsigned)slot)->key) != 0)
			return -1;
		return slot;
	}
	want = key_to_disk(key);
	table = hash_table_ro(b);
	for (bucket = hash_start(&want); (off = le16_get(table[bucket])) != 0;
	     bucket = hash_following(bucket)) {
		unsigned slot = (off - ITEMS_START) / ITEM_BYTES;

		if (memcmp(&item_at_ro(b, slot)->key, &want, sizeof(want)) == 0)
			return (int)slot;
	}
	return -1;
}

int btb_find_ge(const struct disk_btree_block *b, const struct key *key)
{
	unsigned ref = root_ref(b);
	unsigned best = 0;

	while (ref) {
		const struct disk_btree_item *it = item_at_ro(b, slot_of_ref(ref));
		int c = cmp_to_disk(key, &it->key);

		if (c <= 0)
			best = ref;
		if (c == 0)
			break;
		ref = le16_get(c < 0 ? it->node.left : it->node.right);
	}
	return slot_or_none(best);
}

int btb_find_le(const struct disk_btree_block *b, const struct key *key)
{
	unsigned ref = root_ref(b);
	unsigned best = 0;

	while (ref) {
		const struct disk_btree_item *it = item_at_ro(b, slot_of_ref(ref));
		int c = cmp_to_disk(key, &it->key);

		if (c >= 0)
			best = ref;
		if (c == 0)
			break;
		ref = le16_get(c < 0 ? it->node.left : it->node.right);
	}
	return slot_or_none(best);
}

/* As far left or right below ref as it goes. */
static unsigned leftmost(const struct disk_btree_block *b, unsigned ref)
{
	unsigned left;

	while (ref && (left = le16_get(node_at_ro(b, ref)->left)) != 0)
		ref = left;
	return ref;
}

static unsigned rightmost(const struct disk_btree_block *b, unsigned ref)
{
	unsigned right;

	while (ref && (right = le16_get(node_at_ro(b, ref)->right)) != 0)
		ref = right;
	return ref;
}

int btb_first(const struct disk_btree_block *b)
{
	return slot_or_none(leftmost(b, root_ref(b)));
}

int btb_last(const struct disk_btree_block *b)
{
	return slot_or_none(rightmost(b, root_ref(b)));
}

int btb_next(const struct disk_btree_block *b, int slot)
{
	unsigned ref = ref_of_slot((unsigned)slot);
	const struct disk_avl_node *node = node_at_ro(b, ref);
	unsigned up;

	if (le16_get(node->right))
		return slot_or_none(leftmost(b, le16_get(node->right)));
	while ((up = le16_get(node->parent)) != 0) {
		node = node_at_ro(b, up);
		if (le16_get(node->left) == ref)
			break;
		ref = up;
	}
	return slot_or_none(up);
}

int btb_prev(const struct disk_btree_block *b, int slot)
{
	unsigned ref = ref_of_slot((unsigned)slot);
	const struct disk_avl_node *node = node_at_ro(b, ref);
	unsigned up;

	if (le16_get(node->left))
		return slot_or_none(rightmost(b, le16_get(node->left)));
	while ((up = le16_get(node->parent)) != 0) {
		node = node_at_ro(b, up);
		if (le16_get(node->right) == ref)
			break;
		ref = up;
	}
	return slot_or_none(up);
}

void btb_item(const struct disk_btree_block *b, int slot, struct item *it)
{
	const struct disk_btree_item *d = item_at_ro(b, (unsigned)slot);

	it->key = key_from_disk(&d->key);
	it->seq = le64_get(d->seq);
	it->val_len = le16_get(d->val_len);
	it->flags = d->flags;
	it->val = it->val_len ? (const uint8_t *)b + le16_get(d->val_off) : NULL;
}

/* --- the AVL tree, 9.3 --- */

static unsigned height_of(const struct disk_btree_block *b, unsigned ref)
{
	return ref ? node_at_ro(b, ref)->height : 0;
}

/* Height of the right side less that of the left. */
static int balance_of(const struct disk_btree_block *b, unsigned ref)
{
	const struct disk_avl_node *node = node_at_ro(b, ref);

	return (int)height_of(b, le16_get(node->right)) - (int)height_of(b, le16_get(node->left));
}

static void recompute_height(struct disk_btree_block *b, unsigned ref)
{
	struct disk_avl_node *node = node_at(b, ref);
	unsigned left = height_of(b, le16_get(node->left));
	unsigned right = height_of(b, le16_get(node->right));
	unsigned height = 1 + (left > right ? left : right);

	/* A degenerate tree from a device may be deeper than the field can say. */
	node->height = height > UINT8_MAX ? UINT8_MAX : (uint8_t)height;
}

/* Let parent (0: the root) point at `to` where it pointed at `from`; to may be 0. */
static void replace_child(struct disk_btree_block *b, unsigned parent, unsigned from, unsigned to)
{
	le16 *link = &b->item_root;

	if (parent) {
		struct disk_avl_node *node = node_at(b, parent);

		link = le16_get(node->left) == from ? &node->left : &node->right;
		assert(le16_get(*link) == from);
	}
	*link = le16_of((uint16_t)to);
	if (to)
		node_at(b, to)->parent = le16_of((uint16_t)parent);
}

/* Raise the right child of ref into its place; returns it. */
static unsigned rotate_left(struct disk_btree_block *b, unsigned ref)
{
	struct disk_avl_node *node = node_at(b, ref);
	unsigned up = le16_get(node->right);
	unsigned moved = le16_get(node_at(b, up)->left);

	replace_child(b, le16_get(node->parent), ref, up);
	node_at(b, up)->left = le16_of((uint16_t)ref);
	node->parent = le16_of((uint16_t)up);
	node->right = le16_of((uint16_t)moved);
	if (moved)
		node_at(b, moved)->parent = le16_of((uint16_t)ref);
	recompute_height(b, ref);
	recompute_height(b, up);
	return up;
}

static unsigned rotate_right(struct disk_btree_block *b, unsigned ref)
{
	struct disk_avl_node *node = node_at(b, ref);
	unsigned up = le16_get(node->left);
	unsigned moved = le16_get(node_at(b, up)->right);

	replace_child(b, le16_get(node->parent), ref, up);
	node_at(b, up)->right = le16_of((uint16_t)ref);
	node->parent = le16_of((uint16_t)up);
	node->left = le16_of((uint16_t)moved);
	if (moved)
		node_at(b, moved)->parent = le16_of((uint16_t)ref);
	recompute_height(b, ref);
	recompute_height(b, up);
	return up;
}

/*
 * From ref upwards: right heights, and rotations where the sides differ by more than one.  Above what is
 * as high as it was nothing has changed.
 */
static void rebalance_up(struct disk_btree_block *b, unsigned ref)
{
	while (ref) {
		unsigned was = height_of(b, ref);
		int balance;

		recompute_height(b, ref);
		balance = balance_of(b, ref);
		if (balance > 1) {
			unsigned right = le16_get(node_at(b, ref)->right);

			if (balance_of(b, right) < 0)
				rotate_right(b, right);
			ref = rotate_left(b, ref);
		} else if (balance < -1) {
			unsigned left = le16_get(node_at(b, ref)->left);

			if (balance_of(b, left) > 0)
				rotate_left(b, left);
			ref = rotate_right(b, ref);
		}
		if (height_of(b, ref) == was)
			break;
		ref = le16_get(node_at(b, ref)->parent);
	}
}

static void avl_insert(struct disk_btree_block *b, unsigned slot, const struct key *key)
{
	const unsigned ref = ref_of_slot(slot);
	unsigned parent = 0;
	le16 *link = &b->item_root;

	while (le16_get(*link)) {
		struct disk_btree_item *it;
		int c;

		parent = le16_get(*link);
		it = item_at(b, slot_of_ref(parent));
		c = cmp_to_disk(key, &it->key);
		assert(c != 0);
		link = c < 0 ? &it->node.left : &it->node.right;
	}
	*link = le16_of((uint16_t)ref);
	item_at(b, slot)->node = (struct disk_avl_node){ .parent = le16_of((uint16_t)parent),
							 .height = 1 };
	rebalance_up(b, parent);
}

/*
 * Exchange the places of ref, which has two children, and of its successor, which has no left one.
 * The successor may be the right child itself.  ref is about to go and so gets no height.
 */
static void swap_with_successor(struct disk_btree_block *b, unsigned ref)
{
	struct disk_avl_node *node = node_at(b, ref);
	const unsigned succ = leftmost(b, le16_get(node->right));
	struct disk_avl_node *succ_node = node_at(b, succ);
	const struct disk_avl_node was = *node;
	const struct disk_avl_node succ_was = *succ_node;

	replace_child(b, le16_get(was.parent), ref, succ);
	succ_node->height = was.height;
	succ_node->left = was.left;
	node_at(b, le16_get(was.left))->parent = le16_of((uint16_t)succ);
	if (le16_get(was.right) == succ) {
		succ_node->right = le16_of((uint16_t)ref);
		node->parent = le16_of((uint16_t)succ);
	} else {
		succ_node->right = was.right;
		node_at(b, le16_get(was.right))->parent = le16_of((uint16_t)succ);
		replace_child(b, le16_get(succ_was.parent), succ, ref);
	}
	node->left = le16_of(0);
	node->right = succ_was.right;
	if (le16_get(succ_was.right))
		node_at(b, le16_get(succ_was.right))->parent = le16_of((uint16_t)ref);
}

static void avl_delete(struct disk_btree_block *b, unsigned slot)
{
	const unsigned ref = ref_of_slot(slot);
	struct disk_avl_node *node = node_at(b, ref);
	unsigned parent;
	unsigned child;

	if (le16_get(node->left) && le16_get(node->right))
		swap_with_successor(b, ref);
	parent = le16_get(node->parent);
	child = le16_get(node->left) ? le16_get(node->left) : le16_get(node->right);
	replace_child(b, parent, ref, child);
	rebalance_up(b, parent);
}

/* --- the leaf hash, 9.4 --- */

static void hash_insert(struct disk_btree_block *b, unsigned slot)
{
	le16 *table = hash_table(b);
	unsigned bucket = hash_start(&item_at(b, slot)->key);

	while (le16_get(table[bucket]))
		bucket = hash_following(bucket);
	table[bucket] = le16_of((uint16_t)hash_of_slot(slot));
}

static void hash_delete(struct disk_btree_block *b, unsigned slot)
{
	le16 *table = hash_table(b);
	unsigned bucket = hash_bucket_of_slot(b, slot);
	unsigned off;

	table[bucket] = le16_of(0);
	for (bucket = hash_following(bucket); (off = le16_get(table[bucket])) != 0;
	     bucket = hash_following(bucket)) {
		table[bucket] = le16_of(0);
		hash_insert(b, (off - ITEMS_START) / ITEM_BYTES);
	}
}

/* --- values and items, 9.5 --- */

bool btb_fits(const struct disk_btree_block *b, uint16_t val_len)
{
	return ITEM_BYTES + round8(val_len) <= le16_get(b->mid_free_len);
}

/* Space from the end of the middle, and the value in it.  slot's old value becomes a hole. */
static void store_value(struct disk_btree_block *b, unsigned slot, const struct item *it)
{
	struct disk_btree_item *d = item_at(b, slot);
	unsigned off = 0;

	if (it->val_len) {
		le16_add(&b->mid_free_len, -(int)round8(it->val_len));
		off = items_end(b) + le16_get(b->mid_free_len);
		memcpy((uint8_t *)b + off, it->val, it->val_len);
	}
	d->seq = le64_of(it->seq);
	d->val_off = le16_of((uint16_t)off);
	d->val_len = le16_of(it->val_len);
	d->flags = it->flags;
}

/* A new slot with the item, which neither tree nor hash know yet. */
static unsigned append_item(struct disk_btree_block *b, const struct item *it)
{
	const unsigned slot = btb_nr(b);
	struct disk_btree_item *d = item_at(b, slot);

	assert(it->val_len <= ITEM_VAL_MAX);
	assert(btb_fits(b, it->val_len));
	b->nr_items = le16_of((uint16_t)(slot + 1));
	le16_add(&b->mid_free_len, -(int)ITEM_BYTES);
	le16_add(&b->total_item_bytes, (int)(ITEM_BYTES + round8(it->val_len)));
	memset(d, 0, sizeof(*d));
	d->key = key_to_disk(&it->key);
	store_value(b, slot, it);
	return slot;
}

void btb_insert(struct disk_btree_block *b, const struct item *it)
{
	const unsigned slot = append_item(b, it);

	avl_insert(b, slot, &it->key);
	if (b->level == 0)
		hash_insert(b, slot);
}

void btb_update(struct disk_btree_block *b, int slot, const struct item *it)
{
	unsigned was = le16_get(item_at(b, (unsigned)slot)->val_len);

	assert(it->val_len <= ITEM_VAL_MAX);
	assert(round8(it->val_len) <= le16_get(b->mid_free_len));
	store_value(b, (unsigned)slot, it);
	le16_add(&b->total_item_bytes, (int)round8(it->val_len) - (int)round8(was));
}

/* Let everything that points at slot `from` point at `to`, and move the item there. */
static void move_slot(struct disk_btree_block *b, unsigned from, unsigned to)
{
	struct disk_btree_item *d = item_at(b, to);

	if (b->level == 0) {
		unsigned bucket = hash_bucket_of_slot(b, from);

		hash_table(b)[bucket] = le16_of((uint16_t)hash_of_slot(to));
	}
	*d = *item_at(b, from);
	replace_child(b, le16_get(d->node.parent), ref_of_slot(from), ref_of_slot(to));
	if (le16_get(d->node.left))
		node_at(b, le16_get(d->node.left))->parent = le16_of((uint16_t)ref_of_slot(to));
	if (le16_get(d->node.right))
		node_at(b, le16_get(d->node.right))->parent = le16_of((uint16_t)ref_of_slot(to));
}

void btb_delete(struct disk_btree_block *b, int slot)
{
	const unsigned gone = (unsigned)slot;
	const unsigned last = btb_nr(b) - 1;

	assert(gone <= last);
	le16_add(&b->total_item_bytes,
		 -(int)(ITEM_BYTES + round8(le16_get(item_at(b, gone)->val_len))));
	if (b->level == 0)
		hash_delete(b, gone);
	avl_delete(b, gone);
	if (gone != last)
		move_slot(b, last, gone);
	b->nr_items = le16_of((uint16_t)last);
	le16_add(&b->mid_free_len, (int)ITEM_BYTES);
}

/* --- splitting: both sides are made anew, which is less work than moving items one by one --- */

/* The subtree of nr slots in the order of their keys; its top, 0 if there are none. */
static unsigned build_subtree(struct disk_btree_block *b, const uint16_t *slots, unsigned nr,
			      unsigned parent)
{
	const unsigned half = nr / 2;
	struct disk_avl_node *node;
	unsigned ref;

	if (!nr)
		return 0;
	ref = ref_of_slot(slots[half]);
	node = node_at(b, ref);
	*node = (struct disk_avl_node){ .parent = le16_of((uint16_t)parent) };
	node->left = le16_of((uint16_t)build_subtree(b, slots, half, ref));
	node->right = le16_of((uint16_t)build_subtree(b, slots + half + 1, nr - half - 1, ref));
	recompute_height(b, ref);
	return ref;
}

/* Tree and hash of a block whose nr items are all in `slots`, in the order of their keys. */
static void rebuild(struct disk_btree_block *b, const uint16_t *slots, unsigned nr)
{
	b->item_root = le16_of((uint16_t)build_subtree(b, slots, nr, 0));
	if (b->level > 0)
		return;
	memset(hash_table(b), 0, BTREE_HASH_BUCKETS * sizeof(le16));
	for (unsigned i = 0; i < nr; i++)
		hash_insert(b, slots[i]);
}

void btb_split(struct disk_btree_block *b, struct disk_btree_block *left, unsigned bytes)
{
	uint16_t slots[ITEMS_NR_MAX], left_slots[ITEMS_NR_MAX] = { 0 }, now_at[ITEMS_NR_MAX] = { 0 };
	const unsigned nr = btb_nr(b);
	unsigned moved = 0, moved_nr = 0, kept_nr = 0, at = 0;

	assert(btb_nr(left) == 0 && left->level == b->level);
	for (int slot = btb_first(b); slot >= 0; slot = btb_next(b, slot))
		slots[at++] = (uint16_t)slot;
	assert(at == nr);
	for (; moved < bytes && moved_nr < nr; moved_nr++) {
		struct item it;

		btb_item(b, slots[moved_nr], &it);
		moved += ITEM_BYTES + round8(it.val_len);
		left_slots[moved_nr] = (uint16_t)append_item(left, &it);
		now_at[slots[moved_nr]] = UINT16_MAX;
	}
	rebuild(left, left_slots, moved_nr);

	for (unsigned slot = 0; slot < nr; slot++) {
		if (now_at[slot] == UINT16_MAX)
			continue;
		*item_at(b, kept_nr) = *item_at(b, slot);
		now_at[slot] = (uint16_t)kept_nr++;
	}
	for (unsigned i = 0; i < kept_nr; i++)
		slots[i] = now_at[slots[moved_nr + i]];
	b->nr_items = le16_of((uint16_t)kept_nr);
	le16_add(&b->mid_free_len, (int)(ITEM_BYTES * moved_nr));
	le16_add(&b->total_item_bytes, -(int)moved);
	rebuild(b, slots, kept_nr);
}

void btb_set_key(struct disk_btree_block *b, int slot, const struct key *key)
{
	/* In a leaf the hash would have to follow. */
	assert(b->level > 0);
	item_at(b, (unsigned)slot)->key = key_to_disk(key);
}

static int cmp_descending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x < y) - (x > y);
}

void btb_compact(struct disk_btree_block *b)
{
	uint32_t vals[ITEMS_NR_MAX];	/* val_off above, slot below */
	const unsigned nr = btb_nr(b);
	unsigned end = area_end(b);
	unsigned vals_nr = 0;

	for (unsigned slot = 0; slot < nr; slot++) {
		const struct disk_btree_item *d = item_at(b, slot);

		if (le16_get(d->val_len))
			vals[vals_nr++] = (uint32_t)le16_get(d->val_off) << 16 | slot;
	}
	qsort(vals, vals_nr, sizeof(vals[0]), cmp_descending);
	for (unsigned i = 0; i < vals_nr; i++) {
		struct disk_btree_item *d = item_at(b, vals[i] & 0xffff);

		end -= round8(le16_get(d->val_len));
		memmove((uint8_t *)b + end, (uint8_t *)b + le16_get(d->val_off),
			le16_get(d->val_len));
		d->val_off = le16_of((uint16_t)end);
	}
	b->mid_free_len = le16_of((uint16_t)(end - items_end(b)));
}
