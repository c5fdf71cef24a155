/*
 * btb_check() against any 64 KiB: what it accepts must be readable and changeable by all of
 * btree_block.h without leaving the block or hanging, and must stay acceptable.
 *
 * An input shorter than a block is the front of one: the rest is zeros, and for a leaf the hash
 * table is then built from the items, since no short input could bring it.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "btree/btree_block.h"
#include "csum/csum.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

static void assert_accepted(const struct disk_btree_block *b)
{
	const char *why = NULL;

	if (btb_check(b, &why) != 0) {
		fprintf(stderr, "a change made the block unacceptable: %s\n", why);
		abort();
	}
}

/* Every item, forwards and backwards, found by each search, its value within the block. */
static void read_all(const struct disk_btree_block *b)
{
	const uint8_t *start = (const uint8_t *)b;
	unsigned nr = 0;
	unsigned sum = 0;

	for (int slot = btb_first(b); slot >= 0; slot = btb_next(b, slot)) {
		struct item it;
		int next = btb_next(b, slot);

		btb_item(b, slot, &it);
		assert(it.val_len <= ITEM_VAL_MAX);
		if (it.val_len) {
			const uint8_t *val = it.val;

			assert(val >= start && val + it.val_len <= start + LARGE_SIZE);
			for (unsigned i = 0; i < it.val_len; i++)
				sum += val[i];
		}
		assert(btb_find(b, &it.key) == slot);
		assert(btb_find_ge(b, &it.key) == slot);
		assert(btb_find_le(b, &it.key) == slot);
		assert(next < 0 || btb_prev(b, next) == slot);
		nr++;
	}
	assert(nr == btb_nr(b));
	assert(sum < UINT32_MAX);
}

/* Small changes, whose choice follows from the block's own bytes. */
static void change(struct disk_btree_block *b)
{
	uint32_t dice = hash32(b, 4096);
	uint8_t val[ITEM_VAL_MAX] = { 1 };

	for (unsigned i = 0; i < 24; i++, dice = dice * 1664525u + 1013904223u) {
		struct item it = { .key = { .zone = (uint8_t)(dice >> 24), .first = dice % 5,
					    .type = (uint8_t)(dice % 3) },
				   .seq = i, .val = val };
		int slot;

		it.val_len = sizeof(struct disk_block_ref);
		if (btb_level(b) == 0)
			it.val_len = (uint16_t)((dice >> 8) % (ITEM_VAL_MAX + 1));
		slot = btb_find_ge(b, &it.key);
		if (slot >= 0 && dice % 3 == 0 && (btb_level(b) == 0 || btb_nr(b) > 1)) {
			btb_delete(b, slot);
			continue;
		}
		if (!btb_fits(b, it.val_len))
			btb_compact(b);
		if (!btb_fits(b, it.val_len))
			continue;
		slot = btb_find(b, &it.key);
		if (slot >= 0)
			btb_update(b, slot, &it);
		else
			btb_insert(b, &it);
		assert(btb_find(b, &it.key) >= 0);
	}
}

static void build_hash(struct disk_btree_block *b)
{
	le16 *table = (le16 *)((uint8_t *)b + BTREE_HASH_OFFSET);

	if (b->level > 0 || btb_nr(b) > 1115)
		return;
	for (unsigned slot = 0; slot < btb_nr(b); slot++) {
		const struct disk_key *key = &b->items[slot].key;
		unsigned bucket = hash32(key, sizeof(*key)) % BTREE_HASH_BUCKETS;

		while (le16_get(table[bucket]))
			bucket = (bucket + 1) % BTREE_HASH_BUCKETS;
		table[bucket] = le16_of((uint16_t)(48 + 56 * slot));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A buffer of exactly one block, for a sanitizer to guard its ends. */
	struct disk_btree_block *b = calloc(1, LARGE_SIZE);
	const char *why;

	assert(b);
	memcpy(b, data, size < LARGE_SIZE ? size : LARGE_SIZE);
	if (size <= BTREE_HASH_OFFSET)
		build_hash(b);
	if (btb_check(b, &why) == 0) {
		(void)btb_avl_is_balanced(b);
		read_all(b);
		change(b);
		assert_accepted(b);
		btb_compact(b);
		assert_accepted(b);
		read_all(b);
	} else {
		assert(why);
	}
	free(b);
	return 0;
}

/* Blocks of every kind and fill. */
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	static const unsigned fills[] = { 0, 1, 2, 5, 40, 2000 };
	const unsigned fills_nr = sizeof(fills) / sizeof(fills[0]);
	struct disk_btree_block *b = (struct disk_btree_block *)buf;
	uint8_t val[ITEM_VAL_MAX] = { 3 };
	const uint8_t level = i / fills_nr == 2 ? 1 : 0;

	if (i >= 3 * fills_nr || max < LARGE_SIZE)
		return 0;
	memset(buf, 0, LARGE_SIZE);
	btb_init(b, level);
	for (unsigned n = 0; n < fills[i % fills_nr] + level; n++) {
		struct item it = { .key = { .zone = 16, .first = n * 37 % 2003, .type = 4 },
				   .seq = n, .val = val };

		/* Leaves without values, leaves with values, parents. */
		if (level)
			it.val_len = sizeof(struct disk_block_ref);
		else if (i / fills_nr == 1)
			it.val_len = (uint16_t)(n * 131 % 897);
		if (!btb_fits(b, it.val_len))
			break;
		btb_insert(b, &it);
	}
	return LARGE_SIZE;
}
