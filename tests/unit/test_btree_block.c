/*
 * One b-tree block.  Promises: the bytes are those of format.md 9.3 and 22.3; any change keeps
 * every structural rule; every broken rule is named by btb_check().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "btree/block.h"
#include "btree/btree_block.h"
#include "csum/csum.h"
#include "memdev.h"

static _Alignas(4096) uint8_t buf[LARGE_SIZE];
static struct disk_btree_block *const blk = (struct disk_btree_block *)buf;

static struct key key_nr(uint64_t nr)
{
	return (struct key){ .zone = ZONE_FS, .first = nr / 3, .type = 4, .second = nr % 3 };
}

static void assert_sound(const struct disk_btree_block *b)
{
	const char *why = NULL;
	int ret = btb_check(b, &why);

	if (ret)
		fail_msg("btb_check: %s", why);
	assert_null(why);
}

static void insert_nr(struct disk_btree_block *b, uint64_t nr, const void *val, uint16_t len)
{
	struct item it = { .key = key_nr(nr), .seq = nr, .val = val, .val_len = len };

	btb_insert(b, &it);
}

/* --- vectors --- */

struct avl_row {
	uint64_t nr;
	unsigned parent, left, right, height;
};

static void assert_avl(unsigned root, const struct avl_row *rows, unsigned rows_nr)
{
	assert_int_equal(le16_get(blk->item_root), root);
	assert_int_equal(btb_nr(blk), rows_nr);
	for (unsigned i = 0; i < rows_nr; i++) {
		struct key want = key_nr(rows[i].nr);
		struct key got = key_from_disk(&blk->items[i].key);
		const struct disk_avl_node *n = &blk->items[i].node;

		assert_true(key_eq(&want, &got));
		assert_int_equal(le16_get(n->parent), rows[i].parent);
		assert_int_equal(le16_get(n->left), rows[i].left);
		assert_int_equal(le16_get(n->right), rows[i].right);
		assert_int_equal(n->height, rows[i].height);
	}
	assert_sound(blk);
	assert_true(btb_avl_is_balanced(blk));
}

static void delete_nr(uint64_t nr)
{
	struct key key = key_nr(nr);
	int slot = btb_find(blk, &key);

	assert_true(slot >= 0);
	btb_delete(blk, slot);
	assert_int_equal(btb_find(blk, &key), -1);
}

static void avl_has_the_shape_of_the_vector(void **state)
{
	static const uint64_t keys[] = { 10, 20, 30, 40, 50, 25 };

	(void)state;
	btb_init(blk, 0);
	for (unsigned i = 0; i < 6; i++)
		insert_nr(blk, keys[i], NULL, 0);
	assert_avl(128, (struct avl_row[]){ { 10, 72, 0, 0, 1 }, { 20, 128, 16, 296, 2 },
					    { 30, 0, 72, 184, 3 }, { 40, 128, 0, 240, 2 },
					    { 50, 184, 0, 0, 1 }, { 25, 72, 0, 0, 1 } }, 6);
	delete_nr(30);
	assert_avl(184, (struct avl_row[]){ { 10, 72, 0, 0, 1 }, { 20, 184, 16, 128, 2 },
					    { 25, 72, 0, 0, 1 }, { 40, 0, 72, 240, 3 },
					    { 50, 184, 0, 0, 1 } }, 5);
	delete_nr(10);
	assert_avl(184, (struct avl_row[]){ { 50, 184, 0, 0, 1 }, { 20, 184, 0, 128, 2 },
					    { 25, 72, 0, 0, 1 }, { 40, 0, 72, 16, 3 } }, 4);
	delete_nr(40);
	assert_avl(128, (struct avl_row[]){ { 50, 128, 0, 0, 1 }, { 20, 128, 0, 0, 1 },
					    { 25, 0, 72, 16, 2 } }, 3);
}

static void put_hex(unsigned off, const char *hex)
{
	for (; *hex; hex++) {
		unsigned byte;

		if (*hex == ' ')
			continue;
		assert_int_equal(sscanf(hex, "%2x", &byte), 1);
		buf[off++] = (uint8_t)byte;
		hex++;
	}
}

/* 22.3 with the fixed inputs of 22.6, byte by byte. */
static void make_worked_block(void)
{
	static const unsigned times[] = { 62440, 62456, 62472, 62488 };

	memset(buf, 0, sizeof(buf));
	put_hex(4, "6df997e5 8877665544332211 0100000000000000 0200000000000000");
	put_hex(32, "4800 0200 1801 e8f2 0000000000000000");
	put_hex(48, "4800000000000100");
	put_hex(72, "0100000000000000 0004040000000000 0100000000000000");
	put_hex(104, "0000100000000000 0100000000000000");
	put_hex(136, "0010040000000000 0100000000000000 88f3a80000000000");
	put_hex(62392, "0200000000000000");
	put_hex(62416, "02000000");
	put_hex(62428, "ed410000");
	for (unsigned i = 0; i < 4; i++)
		put_hex(times[i], "00105e5f00000000 00ca5b07");
	put_hex(63016, "3000");
	put_hex(64592, "6800");
}

static void worked_block_is_read(void **state)
{
	struct key index = key_index(TYPE_INDEX_META_SEQ, 0, 1);
	struct key inode = key_inode(1);
	struct item it;

	(void)state;
	make_worked_block();
	assert_int_equal(block_crc(buf, LARGE_SIZE), 0x227dc656);
	assert_sound(blk);
	/* mkfs' own heights are wrong, and that is no reason to refuse (21.2). */
	assert_false(btb_avl_is_balanced(blk));

	assert_int_equal(btb_first(blk), 0);
	assert_int_equal(btb_next(blk, 0), 1);
	assert_int_equal(btb_next(blk, 1), -1);
	assert_int_equal(btb_prev(blk, 1), 0);
	assert_int_equal(btb_last(blk), 1);
	assert_int_equal(btb_find(blk, &index), 0);
	assert_int_equal(btb_find(blk, &inode), 1);
	btb_item(blk, 0, &it);
	assert_true(key_eq(&it.key, &index));
	assert_int_equal(it.val_len, 0);
	assert_int_equal(it.seq, 1);
	btb_item(blk, 1, &it);
	assert_true(key_eq(&it.key, &inode));
	assert_int_equal(it.val_len, 168);
	assert_ptr_equal(it.val, buf + 62344);
	assert_int_equal(le32_get(((const struct disk_inode *)it.val)->mode), 040755);
}

static void worked_block_is_built(void **state)
{
	struct item index = { .key = key_index(TYPE_INDEX_META_SEQ, 0, 1), .seq = 1 };
	struct item inode = { .key = key_inode(1), .seq = 1, .val_len = 168 };
	uint8_t val[168];

	(void)state;
	make_worked_block();
	memcpy(val, buf + 62344, sizeof(val));
	inode.val = val;
	memset(buf, 0xa5, sizeof(buf));
	block_header_init(buf, MAGIC_BTREE, 0x1122334455667788, 1, 2);
	btb_init(blk, 0);
	btb_insert(blk, &index);
	btb_insert(blk, &inode);
	assert_sound(blk);
	assert_true(btb_avl_is_balanced(blk));
	assert_int_equal(le16_get(blk->total_item_bytes), 280);
	assert_int_equal(le16_get(blk->mid_free_len), 62184);
	/* mkfs puts the later key at the root, and heights that are right give the crc of 22.6. */
	put_hex(32, "4800");
	put_hex(48, "4800000000000100");
	put_hex(104, "0000100000000200");
	assert_sound(blk);
	assert_int_equal(block_crc(buf, LARGE_SIZE), 0xafb2f346);
}

static void wrong_heights_are_repaired_by_a_change(void **state)
{
	struct item it = { .key = key_inode(2), .seq = 7, .val = "abc", .val_len = 3 };

	(void)state;
	make_worked_block();
	btb_insert(blk, &it);
	assert_sound(blk);
	assert_true(btb_avl_is_balanced(blk));

	make_worked_block();
	btb_update(blk, 1, &it);
	assert_sound(blk);
	assert_false(btb_avl_is_balanced(blk));
	btb_delete(blk, 0);
	assert_sound(blk);
	assert_true(btb_avl_is_balanced(blk));
}

/* --- limits --- */

static void block_holds_what_the_format_says(void **state)
{
	struct disk_block_ref ref = { le64_of(5), le64_of(6) };
	unsigned nr = 0;

	(void)state;
	btb_init(blk, 0);
	assert_int_equal(le16_get(blk->mid_free_len), 62464);
	for (; btb_fits(blk, 0); nr++)
		insert_nr(blk, nr * 7919 % 1115, NULL, 0);
	assert_int_equal(nr, 1115);
	assert_sound(blk);
	assert_true(btb_avl_is_balanced(blk));

	btb_init(blk, 3);
	assert_int_equal(le16_get(blk->mid_free_len), 65488);
	for (nr = 0; btb_fits(blk, sizeof(ref)); nr++)
		insert_nr(blk, nr * 7919 % 909, &ref, sizeof(ref));
	assert_int_equal(nr, 909);
	assert_sound(blk);
	assert_int_equal(btb_level(blk), 3);
}

static void parent_key_can_be_replaced(void **state)
{
	struct disk_block_ref ref = { le64_of(5), le64_of(6) };
	struct key old = key_nr(20), new = key_nr(25);
	int slot;

	(void)state;
	btb_init(blk, 1);
	insert_nr(blk, 10, &ref, sizeof(ref));
	insert_nr(blk, 20, &ref, sizeof(ref));
	insert_nr(blk, 30, &ref, sizeof(ref));
	slot = btb_find(blk, &old);
	btb_set_key(blk, slot, &new);
	assert_sound(blk);
	assert_int_equal(btb_find(blk, &new), slot);
	assert_int_equal(btb_find(blk, &old), -1);
	assert_int_equal(btb_find_ge(blk, &old), slot);
}

/* --- model --- */

#define MODEL_KEYS 1500u

struct model {
	bool present[MODEL_KEYS];
	uint16_t len[MODEL_KEYS];
	uint64_t seq[MODEL_KEYS];
	uint8_t flags[MODEL_KEYS];
};

/* A value that says whose and which it is. */
static void fill_value(uint8_t *val, uint16_t len, uint64_t nr, uint64_t seq)
{
	uint64_t rng = nr << 32 ^ seq;

	for (unsigned i = 0; i < len; i += 8) {
		uint64_t v = test_random(&rng);

		memcpy(val + i, &v, len - i < 8 ? len - i : 8);
	}
}

static void assert_item_is(const struct model *m, int slot, unsigned nr)
{
	struct key key = key_nr(nr);
	uint8_t want[ITEM_VAL_MAX];
	struct item it;

	btb_item(blk, slot, &it);
	assert_true(key_eq(&it.key, &key));
	assert_int_equal(it.val_len, m->len[nr]);
	assert_int_equal(it.seq, m->seq[nr]);
	assert_int_equal(it.flags, m->flags[nr]);
	fill_value(want, it.val_len, nr, it.seq);
	if (it.val_len)
		assert_memory_equal(it.val, want, it.val_len);
}

static void assert_model(const struct model *m)
{
	unsigned total = 0;
	int slot = btb_first(blk);
	int before = -1;

	for (unsigned nr = 0; nr < MODEL_KEYS; nr++) {
		struct key key = key_nr(nr);

		if (!m->present[nr]) {
			assert_int_equal(btb_find(blk, &key), -1);
			assert_int_equal(btb_find_ge(blk, &key), slot);
			assert_int_equal(btb_find_le(blk, &key), before);
			continue;
		}
		assert_true(slot >= 0);
		assert_item_is(m, slot, nr);
		assert_int_equal(btb_find(blk, &key), slot);
		assert_int_equal(btb_find_ge(blk, &key), slot);
		assert_int_equal(btb_find_le(blk, &key), slot);
		assert_int_equal(btb_prev(blk, slot), before);
		total += 56 + ((m->len[nr] + 7u) & ~7u);
		before = slot;
		slot = btb_next(blk, slot);
	}
	assert_int_equal(slot, -1);
	assert_int_equal(btb_last(blk), before);
	assert_int_equal(le16_get(blk->total_item_bytes), total);
	assert_sound(blk);
	assert_true(btb_avl_is_balanced(blk));
}

/* Both sides of a split hold what they should, whatever slots and holes the block had. */
static void split_parts_a_block_in_the_order_of_keys(void **state)
{
	static _Alignas(4096) uint8_t left_buf[LARGE_SIZE];
	struct disk_btree_block *left = (struct disk_btree_block *)left_buf;
	uint64_t rng = test_env("SEED", 2);
	unsigned rounds = (unsigned)test_env("ROUNDS", 300);
	uint8_t val[ITEM_VAL_MAX];

	(void)state;
	print_message("seed %llu\n", (unsigned long long)rng);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned level = round % 4 == 3, keys = 2 + (unsigned)(test_random(&rng) % 1500);
		unsigned ops = 2 + (unsigned)(test_random(&rng) % 3000), len_max = round % 3 * 100;
		unsigned before, nr, bytes, at = 0, moved = 0, last = 0;
		static bool present[1502];
		static uint64_t seq[1502];

		memset(present, 0, sizeof(present));
		memset(left_buf, 0xa5, sizeof(left_buf));
		btb_init(blk, (uint8_t)level);
		btb_init(left, (uint8_t)level);
		for (unsigned op = 0; op < ops; op++) {
			unsigned k = (unsigned)(test_random(&rng) % keys);
			struct disk_block_ref child = { .blkno = le64_of(k + META_FIRST_BLKNO), .seq = le64_of(1) };
			struct item it = { .key = key_nr(k), .seq = op, .val = level ? (void *)&child : val };
			int slot = btb_find(blk, &it.key);

			it.val_len = level ? sizeof(child) : (uint16_t)(test_random(&rng) % (len_max + 1));
			if (!level)
				fill_value(val, it.val_len, k, op);
			if (slot >= 0) {
				btb_delete(blk, slot);
				present[k] = false;
			} else if (btb_fits(blk, it.val_len)) {
				btb_insert(blk, &it);
				present[k] = true;
				seq[k] = op;
			}
		}
		before = le16_get(blk->total_item_bytes);
		nr = btb_nr(blk);
		if (nr < 32)	/* no block is split that has so few */
			continue;
		bytes = before / 2;
		btb_split(blk, left, bytes);
		if (level == 0) {
			assert_sound(blk);
			assert_sound(left);
		}
		assert_true(btb_avl_is_balanced(blk));
		assert_true(btb_avl_is_balanced(left));
		assert_int_equal(btb_nr(blk) + btb_nr(left), nr);
		assert_int_equal(le16_get(blk->total_item_bytes) + le16_get(left->total_item_bytes), before);
		assert_true(btb_nr(blk) > 0);
		for (unsigned k = 0; k < keys; k++) {
			struct key key = key_nr(k);
			struct disk_btree_block *in = at < btb_nr(left) ? left : blk;
			struct disk_btree_block *out = in == left ? blk : left;
			int slot = btb_find(in, &key);
			struct item it;

			assert_int_equal(slot >= 0, present[k]);
			assert_int_equal(btb_find(out, &key), -1);
			if (slot < 0)
				continue;
			btb_item(in, slot, &it);
			assert_int_equal(it.seq, seq[k]);
			if (level == 0) {
				fill_value(val, it.val_len, k, (unsigned)seq[k]);
				assert_memory_equal(it.val ? it.val : val, val, it.val_len);
			}
			at++;
			if (in == left) {
				last = (unsigned)sizeof(struct disk_btree_item) + ((it.val_len + 7u) & ~7u);
				moved += last;
			}
		}
		/* as many as it takes, and no more */
		assert_int_equal(moved, le16_get(left->total_item_bytes));
		assert_true(moved >= bytes && moved - last < bytes);
		assert_int_equal(at, nr);
	}
}

static void random_changes_agree_with_a_model(void **state)
{
	static struct model m;
	uint64_t rng = test_env("SEED", 1);
	unsigned ops = (unsigned)test_env("ROUNDS", 40000);
	uint8_t val[ITEM_VAL_MAX];

	(void)state;
	print_message("seed %llu\n", (unsigned long long)rng);
	memset(&m, 0, sizeof(m));
	btb_init(blk, 0);
	for (unsigned op = 0; op < ops; op++) {
		unsigned nr = (unsigned)(test_random(&rng) % MODEL_KEYS);
		/* Phases of mostly inserting and mostly deleting, of long values and of none. */
		bool wants_delete = test_random(&rng) % 100 < (op / 3000 % 2 ? 70 : 20);
		unsigned len_max = (unsigned[]){ 0, 24, 200, ITEM_VAL_MAX }[op / 5000 % 4];
		struct item it = { .key = key_nr(nr), .seq = op, .val = val,
				   .val_len = (uint16_t)(test_random(&rng) % (len_max + 1)),
				   .flags = (uint8_t)(test_random(&rng) % 2) };
		int slot = btb_find(blk, &it.key);

		fill_value(val, it.val_len, nr, op);
		if (slot >= 0 && wants_delete) {
			btb_delete(blk, slot);
			m.present[nr] = false;
			continue;
		}
		if (!btb_fits(blk, it.val_len))
			btb_compact(blk);
		if (!btb_fits(blk, it.val_len))
			continue;
		if (slot >= 0)
			btb_update(blk, slot, &it);
		else
			btb_insert(blk, &it);
		m.present[nr] = true;
		m.len[nr] = it.val_len;
		m.seq[nr] = op;
		m.flags[nr] = it.flags;
		if (op % 64 == 0)
			assert_model(&m);
	}
	assert_model(&m);
	btb_compact(blk);
	assert_model(&m);
	for (unsigned nr = 0; nr < MODEL_KEYS; nr++)
		if (m.present[nr])
			delete_nr(nr);
	assert_int_equal(btb_nr(blk), 0);
	assert_int_equal(le16_get(blk->item_root), 0);
	assert_sound(blk);
}

/* --- what is refused --- */

/* 1 = left child, 2 = root, 3 = right child, each with 16 bytes, in slots 0, 1, 2. */
static void make_small(uint8_t level)
{
	struct disk_block_ref ref = { le64_of(5), le64_of(6) };

	memset(buf, 0, sizeof(buf));
	btb_init(blk, level);
	for (unsigned nr = 1; nr <= 3; nr++)
		insert_nr(blk, nr, &ref, sizeof(ref));
	assert_sound(blk);
	assert_int_equal(le16_get(blk->item_root), 16 + 56);
}

static void assert_refused(const char *want)
{
	const char *why = NULL;

	assert_int_equal(btb_check(blk, &why), -EBADMSG);
	assert_non_null(why);
	assert_string_equal(why, want);
}

static void broken_values_are_refused(void **state)
{
	struct disk_btree_item *items = blk->items;

	(void)state;
	make_small(1);
	blk->level = BTREE_HEIGHT_MAX;
	assert_refused("the level is beyond the greatest height");

	make_small(0);
	blk->nr_items = le16_of(1116);
	assert_refused("more items than fit");
	make_small(1);
	blk->nr_items = le16_of(UINT16_MAX);
	assert_refused("more items than fit");

	make_small(0);
	blk->mid_free_len = le16_of(62464 - 3 * 56 + 1);
	assert_refused("mid_free_len reaches beyond the value area");

	make_small(0);
	blk->mid_free_len = le16_of((uint16_t)(le16_get(blk->mid_free_len) - 4));
	assert_refused("mid_free_len is not a multiple of 8");

	btb_init(blk, 1);
	assert_refused("a parent without children");

	make_small(0);
	items[1].flags = 2;
	assert_refused("an item has unknown flags");
	make_small(1);
	items[1].flags = ITEM_FLAG_DELETION;
	assert_refused("an item has unknown flags");

	make_small(0);
	items[2].val_len = le16_of(ITEM_VAL_MAX + 1);
	assert_refused("a value is too long");

	make_small(1);
	items[2].val_len = le16_of(8);
	assert_refused("a parent's value is not a block reference");

	make_small(0);
	items[0].val_off = le16_of((uint16_t)(le16_get(items[0].val_off) - 4));
	assert_refused("a value is not aligned");

	make_small(0);
	items[0].val_off = le16_of(BTREE_HASH_OFFSET - 8);
	assert_refused("a value lies outside the value area");
	make_small(0);
	items[0].val_off = le16_of(0xfff8);
	assert_refused("a value lies outside the value area");
	make_small(0);
	items[0].val_off = le16_of((uint16_t)(le16_get(items[2].val_off) - 16));
	assert_refused("a value lies outside the value area");

	make_small(0);
	items[0].val_off = items[1].val_off;
	assert_refused("two values overlap");
	make_small(0);
	items[0].val_off = le16_of((uint16_t)(le16_get(items[1].val_off) + 8));
	assert_refused("two values overlap");

	make_small(1);
	memset(buf + le16_get(items[0].val_off), 0, 8);
	assert_refused("a child reference is zero");

	make_small(0);
	blk->total_item_bytes = le16_of((uint16_t)(le16_get(blk->total_item_bytes) + 8));
	assert_refused("total_item_bytes is not the sum of the items");
}

static void broken_links_are_refused(void **state)
{
	static const uint16_t bad_refs[] = { 1, 15, 17, 16 + 3 * 56, 0xffff };
	struct disk_btree_item *items = blk->items;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		make_small(0);
		blk->item_root = le16_of(bad_refs[i]);
		assert_refused("item_root does not point at an item");
		make_small(0);
		items[1].node.left = le16_of(bad_refs[i]);
		assert_refused("an AVL link does not point at an item");
		make_small(0);
		items[1].node.right = le16_of(bad_refs[i]);
		assert_refused("an AVL link does not point at an item");
		make_small(0);
		items[1].node.parent = le16_of(bad_refs[i]);
		assert_refused("an AVL link does not point at an item");
	}

	make_small(0);
	blk->item_root = le16_of(0);
	assert_refused("item_root and nr_items do not agree");
	btb_init(blk, 0);
	blk->item_root = le16_of(16);
	assert_refused("item_root does not point at an item");

	make_small(0);
	items[1].node.right = items[1].node.left;
	assert_refused("an AVL node has one child twice");

	make_small(0);
	items[0].node.parent = le16_of(16 + 2 * 56);
	assert_refused("an AVL child does not point back at its parent");
	make_small(0);
	items[0].node.left = le16_of(16);	/* its own child */
	assert_refused("an AVL child does not point back at its parent");

	make_small(0);
	items[1].node.parent = le16_of(16);
	assert_refused("the AVL root has a parent");

	make_small(0);
	items[1].node.left = items[1].node.right;
	items[1].node.right = le16_of(16);
	assert_refused("the AVL tree is not in the order of the keys");
	make_small(1);
	items[0].key = items[1].key;
	assert_refused("the AVL tree is not in the order of the keys");

	/* Two nodes that are each other's parent and child, away from the root. */
	make_small(0);
	items[1].node.left = le16_of(0);
	items[1].node.right = le16_of(0);
	items[0].node.parent = le16_of(16 + 2 * 56);
	items[0].node.left = le16_of(16 + 2 * 56);
	items[2].node.parent = le16_of(16);
	items[2].node.right = le16_of(16);
	assert_refused("the AVL tree does not reach every item");
}

static void broken_hash_is_refused(void **state)
{
	le16 *table = (le16 *)(buf + BTREE_HASH_OFFSET);
	static const uint16_t bad[] = { 47, 49, 48 + 3 * 56, 0xffff, 1 };
	unsigned used = 0;

	(void)state;
	make_small(0);
	while (le16_get(table[used]) == 0)
		used++;
	for (unsigned i = 0; i < 5; i++) {
		make_small(0);
		table[used] = le16_of(bad[i]);
		assert_refused("a bucket of the leaf hash does not point at an item");
	}
	make_small(0);
	table[used] = le16_of(0);
	assert_refused("the leaf hash does not have a bucket for each item");
	make_small(0);
	table[used + 1] = table[used];
	assert_refused("the leaf hash does not have a bucket for each item");
	/* Out of reach: an empty bucket lies between it and its place. */
	make_small(0);
	table[(used + BTREE_HASH_BUCKETS - 1) % BTREE_HASH_BUCKETS] = table[used];
	table[used] = le16_of(0);
	assert_refused("the leaf hash does not lead to an item");
	/* The padding of a key is hashed on disk, so it would hide the item. */
	make_small(0);
	blk->items[0].key.pad[2] = 1;
	assert_refused("the leaf hash does not lead to an item");
}

static void padding_is_ignored(void **state)
{
	(void)state;
	make_small(0);
	blk->items[0].pad[1] = 1;
	blk->items[1].node.pad = 1;
	blk->pad[6] = 1;
	assert_sound(blk);
}

static void wrong_balance_is_told_apart(void **state)
{
	(void)state;
	make_small(0);
	blk->items[0].node.height = 2;
	assert_sound(blk);
	assert_false(btb_avl_is_balanced(blk));

	/* A chain whose heights are right is still not balanced. */
	make_small(0);
	blk->item_root = le16_of(16);
	blk->items[0].node = (struct disk_avl_node){ .right = le16_of(16 + 56), .height = 3 };
	blk->items[1].node = (struct disk_avl_node){ .parent = le16_of(16),
						     .right = le16_of(16 + 112),
						     .height = 2 };
	blk->items[2].node = (struct disk_avl_node){ .parent = le16_of(16 + 56), .height = 1 };
	assert_sound(blk);
	assert_false(btb_avl_is_balanced(blk));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(avl_has_the_shape_of_the_vector),
		cmocka_unit_test(worked_block_is_read),
		cmocka_unit_test(worked_block_is_built),
		cmocka_unit_test(wrong_heights_are_repaired_by_a_change),
		cmocka_unit_test(block_holds_what_the_format_says),
		cmocka_unit_test(parent_key_can_be_replaced),
		cmocka_unit_test(split_parts_a_block_in_the_order_of_keys),
		cmocka_unit_test(random_changes_agree_with_a_model),
		cmocka_unit_test(broken_values_are_refused),
		cmocka_unit_test(broken_links_are_refused),
		cmocka_unit_test(broken_hash_is_refused),
		cmocka_unit_test(padding_is_ignored),
		cmocka_unit_test(wrong_balance_is_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
