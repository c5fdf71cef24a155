/* What free-extent trees promise: alloc/free_extents.h, format.md 10.1. */
#include "rig.h"

#include <errno.h>

#include "alloc/free_extents.h"

#define SPACE 20000u	/* block numbers the model test plays with */

static void order_is_the_octal_logarithm(void **state)
{
	static const struct {
		uint64_t len;
		unsigned order;
	} v[] = {
		{ 1, 0 },      { 7, 0 },       { 8, 1 },       { 63, 1 },
		{ 64, 2 },     { 511, 2 },     { 512, 3 },     { 4095, 3 },
		{ 4096, 4 },   { 32767, 4 },   { 32768, 5 },   { 262143, 5 },
		{ 262144, 6 }, { 2097151, 6 }, { 2097152, 7 }, { UINT64_MAX, 21 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		assert_int_equal(extent_order(v[i].len), v[i].order);
}

static void keys_are_those_of_the_format(void **state)
{
	struct key k = key_free_by_blkno(64, 1048512);
	char text[KEY_TEXT_BYTES];

	(void)state;
	key_to_text(&k, text, sizeof(text));
	assert_string_equal(text, "36.1048575.0.1048512.0.0");
	k = key_free_by_order(64, 1048512);
	key_to_text(&k, text, sizeof(text));
	assert_string_equal(text, "40.18446744073709551609.0.1048575.1048512.0");
}

/* Compare a tree with what is free by the model: the runs, both indexes, the sum. */
struct expect {
	const uint8_t *is_free;
	uint64_t at, total;
	size_t extents, orders;
	struct rig *r;
	const struct disk_alloc_root *root;
};

static int expect_item(void *arg, const struct item *it)
{
	struct expect *e = arg;
	uint64_t start, len = 0;
	struct key twin;
	struct btree_ref ref;

	assert_int_equal(it->val_len, 0);
	if (it->key.zone == ZONE_FREE_BY_ORDER) {
		e->orders++;
		return 0;
	}
	assert_int_equal(it->key.zone, ZONE_FREE_BY_BLKNO);
	while (e->at < SPACE && !e->is_free[e->at])
		e->at++;
	start = e->at;
	while (e->at < SPACE && e->is_free[e->at]) {
		e->at++;
		len++;
	}
	assert_int_equal(it->key.first, start + len - 1);
	assert_int_equal(it->key.second, len);
	twin = key_free_by_order(start, len);
	assert_int_equal(btree_lookup(e->r->bs, &e->root->root, &twin, &ref), 0);
	btree_put(e->r->bs, &ref);
	e->total += len;
	e->extents++;
	return 0;
}

static void expect_tree(struct rig *r, const struct disk_alloc_root *root, const uint8_t *is_free)
{
	struct expect e = { .is_free = is_free, .r = r, .root = root };
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;

	assert_int_equal(btree_each(r->bs, &root->root, &zeros, &ones, expect_item, &e), 0);
	while (e.at < SPACE)
		assert_false(e.is_free[e.at++]);
	assert_int_equal(e.orders, e.extents);
	assert_int_equal(le64_get(root->total_len), e.total);
	assert_int_equal(root->root.height == 0, e.total == 0);
}

static int insert(struct rig *r, struct disk_alloc_root *root, uint64_t start, uint64_t len)
{
	return free_extents_insert(r->bs, &r->al, root, (struct extent){ start, len });
}

static int take(struct rig *r, struct disk_alloc_root *root, uint64_t start, uint64_t len)
{
	return free_extents_remove(r->bs, &r->al, root, (struct extent){ start, len });
}

static void mark(uint8_t *is_free, uint64_t start, uint64_t len, uint8_t value)
{
	memset(is_free + start, value, len);
}

static void neighbours_are_merged(void **state)
{
	static const uint64_t order[][2] = { { 100, 10 }, { 120, 10 }, { 110, 10 },
					     { 90, 10 },  { 130, 1 },  { 140, 5 },
					     { 139, 1 },  { 132, 7 },  { 131, 1 } };
	uint8_t is_free[SPACE] = { 0 };
	struct disk_alloc_root root = { 0 };
	struct rig r;

	(void)state;
	rig_open(&r, 2, 1000);
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		assert_int_equal(insert(&r, &root, order[i][0], order[i][1]), 0);
		mark(is_free, order[i][0], order[i][1], 1);
		expect_tree(&r, &root, is_free);
	}
	/* Block 0 has no left neighbour, and its extent is found all the same. */
	assert_int_equal(insert(&r, &root, 1, 1), 0);
	assert_int_equal(insert(&r, &root, 0, 1), 0);
	mark(is_free, 0, 2, 1);
	expect_tree(&r, &root, is_free);
	rig_close(&r);
}

static void what_is_free_cannot_be_freed_and_what_is_not_cannot_be_taken(void **state)
{
	static const uint64_t overlaps[][2] = { { 100, 20 }, { 105, 5 },  { 100, 1 },
						{ 119, 1 },  { 95, 6 },	  { 119, 10 },
						{ 90, 50 },  { 90, 111 }, { 200, 1 } };
	static const uint64_t absent[][2] = { { 99, 1 },   { 99, 2 },  { 120, 1 }, { 119, 2 },
					      { 100, 21 }, { 95, 30 }, { 300, 1 }, { 0, 1 } };
	static const uint64_t impossible[][2] = { { 5, 0 }, { UINT64_MAX, 2 }, { 2, UINT64_MAX } };
	uint8_t is_free[SPACE] = { 0 };
	struct disk_alloc_root root = { 0 };
	struct rig r;

	(void)state;
	rig_open(&r, 2, 1000);
	assert_int_equal(take(&r, &root, 100, 1), -EUCLEAN);
	assert_int_equal(insert(&r, &root, 100, 20), 0);
	assert_int_equal(insert(&r, &root, 200, 1), 0);
	mark(is_free, 100, 20, 1);
	mark(is_free, 200, 1, 1);
	for (size_t i = 0; i < sizeof(overlaps) / sizeof(overlaps[0]); i++)
		assert_int_equal(insert(&r, &root, overlaps[i][0], overlaps[i][1]), -EUCLEAN);
	for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
		assert_int_equal(take(&r, &root, absent[i][0], absent[i][1]), -EUCLEAN);
	for (size_t i = 0; i < sizeof(impossible) / sizeof(impossible[0]); i++) {
		assert_int_equal(insert(&r, &root, impossible[i][0], impossible[i][1]), -EINVAL);
		assert_int_equal(take(&r, &root, impossible[i][0], impossible[i][1]), -EINVAL);
	}
	expect_tree(&r, &root, is_free);
	rig_close(&r);
}

static void alloc_takes_the_front_of_the_greatest_class(void **state)
{
	struct disk_alloc_root root = { 0 };
	struct extent ext;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 1000);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 1, &ext), -ENOSPC);
	assert_int_equal(insert(&r, &root, 100, 7), 0);
	assert_int_equal(insert(&r, &root, 200, 70), 0);
	assert_int_equal(insert(&r, &root, 300, 65), 0);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 0, &ext), -EINVAL);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 10, &ext), 0);
	assert_int_equal(ext.start, 200);
	assert_int_equal(ext.len, 10);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 1000, &ext), 0);
	assert_int_equal(ext.start, 300);
	assert_int_equal(ext.len, 65);
	assert_int_equal(free_extents_next(r.bs, &root, 0, &ext), 0);
	assert_int_equal(ext.start, 100);
	assert_int_equal(free_extents_next(r.bs, &root, 106, &ext), 0);
	assert_int_equal(ext.start, 100);
	assert_int_equal(free_extents_next(r.bs, &root, 107, &ext), 0);
	assert_int_equal(ext.start, 210);
	assert_int_equal(free_extents_next(r.bs, &root, 270, &ext), -ENOENT);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 60, &ext), 0);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 60, &ext), 0);
	assert_int_equal(le64_get(root.total_len), 0);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 1, &ext), -ENOSPC);
	/* Nothing of the tree is left behind. */
	assert_int_equal(rig_used_nr(&r), 0);
	rig_close(&r);
}

static void move_stops_at_its_bound_and_goes_on(void **state)
{
	struct disk_alloc_root src = { 0 }, dst = { 0 };
	uint8_t is_free[SPACE] = { 0 };
	uint64_t moved, lost, sum = 0;
	unsigned calls = 0;
	struct rig r;
	int ret;

	(void)state;
	rig_open(&r, 2, 2000);
	for (uint64_t b = 1000; b < 1200; b += 2)
		assert_int_equal(insert(&r, &src, b, 1), 0);
	mark(is_free, 1000, 200, 1);
	for (uint64_t b = 1001; b < 1200; b += 2)
		assert_int_equal(insert(&r, &dst, b, 1), 0);
	do {
		ret = free_extents_move(r.bs, &r.al, &dst, &src, 1000, 30, &moved, &lost);
		sum += moved;
		calls++;
		rig_commit(&r);
	} while (ret == -EINPROGRESS);
	assert_int_equal(ret, 0);
	assert_int_equal(calls, 4);
	assert_int_equal(sum, 100);
	assert_int_equal(le64_get(src.total_len), 0);
	expect_tree(&r, &dst, is_free);

	/* No more than was asked for. */
	assert_int_equal(free_extents_move(r.bs, &r.al, &src, &dst, 7, 5, &moved, &lost), 0);
	assert_int_equal(lost, 0);
	assert_int_equal(moved, 7);
	assert_int_equal(le64_get(src.total_len), 7);
	assert_int_equal(le64_get(dst.total_len), 193);
	/* A range of which a part is free in both trees is in one only, afterwards. */
	assert_int_equal(insert(&r, &dst, 1003, 4), 0);
	assert_int_equal(free_extents_move(r.bs, &r.al, &dst, &src, 7, 5, &moved, &lost), 0);
	assert_int_equal(moved, 7);
	assert_int_equal(lost, 7);
	assert_int_equal(le64_get(src.total_len), 0);
	mark(is_free, 1000, 3, 0);
	expect_tree(&r, &dst, is_free);
	rig_close(&r);
}

static void a_tree_that_contradicts_itself_is_refused(void **state)
{
	struct disk_alloc_root root = { 0 }, lying;
	struct key key = key_free_by_order(100, 10);
	struct item it;
	struct extent ext;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 1000);
	assert_int_equal(insert(&r, &root, 100, 10), 0);
	assert_int_equal(insert(&r, &root, 200, 1), 0);

	lying = root;
	lying.total_len = le64_of(5);
	assert_int_equal(take(&r, &lying, 100, 10), -EUCLEAN);
	lying.total_len = le64_of(UINT64_MAX);
	assert_int_equal(insert(&r, &lying, 300, 1), -EUCLEAN);
	lying = (struct disk_alloc_root){ .total_len = le64_of(1) };
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &lying, 1, &ext), -EUCLEAN);

	/* The size half is missing. */
	assert_int_equal(btree_delete(r.bs, &r.al, &root.root, &key), 0);
	assert_int_equal(take(&r, &root, 100, 10), -EUCLEAN);
	/* The place half is missing. */
	it = (struct item){ .key = key_free_by_order(500, 600) };
	assert_int_equal(btree_insert(r.bs, &r.al, &root.root, &it), 0);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 1, &ext), -EUCLEAN);
	assert_int_equal(btree_delete(r.bs, &r.al, &root.root, &it.key), 0);
	/* A size class that does not fit the length. */
	it.key.first--;
	assert_int_equal(btree_insert(r.bs, &r.al, &root.root, &it), 0);
	assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 1, &ext), -EUCLEAN);
	/* Longer than there are blocks before its end, and of no length. */
	it.key = (struct key){ .zone = ZONE_FREE_BY_BLKNO, .first = 900, .second = 902 };
	assert_int_equal(btree_insert(r.bs, &r.al, &root.root, &it), 0);
	assert_int_equal(free_extents_next(r.bs, &root, 850, &ext), -EUCLEAN);
	it.key = (struct key){ .zone = ZONE_FREE_BY_BLKNO, .first = 800 };
	assert_int_equal(btree_insert(r.bs, &r.al, &root.root, &it), 0);
	assert_int_equal(free_extents_next(r.bs, &root, 750, &ext), -EUCLEAN);
	/* Something else altogether. */
	it.key = (struct key){ .zone = ZONE_FREE_BY_BLKNO + 1 };
	assert_int_equal(btree_insert(r.bs, &r.al, &root.root, &it), 0);
	assert_int_equal(free_extents_next(r.bs, &root, 901, &ext), -EUCLEAN);
	rig_close(&r);
}

/* The greatest class first, so a tree of single blocks gives them in order and stays whole. */
static void a_tree_of_single_blocks_fills_up_again(void **state)
{
	struct disk_alloc_root root = { 0 };
	static uint8_t is_free[SPACE];
	struct extent ext;
	struct rig r;

	(void)state;
	memset(is_free, 0, sizeof(is_free));
	rig_open(&r, 2, 4000);
	for (uint64_t b = 64; b < SPACE; b += 2) {
		assert_int_equal(insert(&r, &root, b, 1), 0);
		is_free[b] = 1;
		if (b % 4096 == 0)
			rig_commit(&r);
	}
	expect_tree(&r, &root, is_free);
	assert_in_range(root.root.height, 2, 3);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 8, &ext), 0);
		assert_int_equal(ext.start, 64 + 2 * i);
		assert_int_equal(ext.len, 1);
		is_free[ext.start] = 0;
	}
	rig_commit(&r);
	for (uint64_t b = SPACE - 1; b > 64; b -= 2) {
		assert_int_equal(insert(&r, &root, b, 1), 0);
		is_free[b] = 1;
		if (b % 4096 == 1)
			rig_commit(&r);
	}
	expect_tree(&r, &root, is_free);
	rig_commit(&r);
	while (le64_get(root.total_len) > 0) {
		assert_int_equal(free_extents_alloc(r.bs, &r.al, &root, 512, &ext), 0);
		for (uint64_t b = ext.start; b < ext.start + ext.len; b++)
			assert_true(is_free[b]);
		mark(is_free, ext.start, ext.len, 0);
	}
	expect_tree(&r, &root, is_free);
	assert_int_equal(rig_used_nr(&r), 0);
	rig_close(&r);
}

static void random_use_agrees_with_a_bitmap(void **state)
{
	uint64_t seed = rig_seed(7);
	unsigned rounds = rig_rounds(6000);
	struct disk_alloc_root root = { 0 };
	static uint8_t is_free[SPACE];
	uint64_t start, len, i;
	struct extent ext;
	struct rig r;
	int ret;

	(void)state;
	memset(is_free, 0, sizeof(is_free));
	rig_open(&r, 2, 2000);
	while (rounds-- > 0) {
		start = rnd_below(&seed, SPACE);
		len = 1 + rnd_below(&seed, 1ull << rnd_below(&seed, 9));
		if (len > SPACE - start)
			len = SPACE - start;
		switch (rnd_below(&seed, 4)) {
		case 0:
		case 1:
			for (i = 0; i < len && !is_free[start + i]; i++)
				;
			ret = insert(&r, &root, start, len);
			assert_int_equal(ret, i == len ? 0 : -EUCLEAN);
			if (ret == 0)
				mark(is_free, start, len, 1);
			break;
		case 2:
			for (i = 0; i < len && is_free[start + i]; i++)
				;
			ret = take(&r, &root, start, len);
			assert_int_equal(ret, i == len ? 0 : -EUCLEAN);
			if (ret == 0)
				mark(is_free, start, len, 0);
			break;
		default:
			ret = free_extents_alloc(r.bs, &r.al, &root, len, &ext);
			if (le64_get(root.total_len) == 0 && ret == -ENOSPC)
				break;
			assert_int_equal(ret, 0);
			assert_in_range(ext.len, 1, len);
			for (i = 0; i < ext.len; i++)
				assert_true(is_free[ext.start + i]);
			mark(is_free, ext.start, ext.len, 0);
			break;
		}
		if (rnd_below(&seed, 200) == 0) {
			expect_tree(&r, &root, is_free);
			rig_commit(&r);
		}
		if (rnd_below(&seed, 1000) == 0) {
			rig_commit(&r);
			rig_reopen(&r, 0);
		}
	}
	expect_tree(&r, &root, is_free);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_is_the_octal_logarithm),
		cmocka_unit_test(keys_are_those_of_the_format),
		cmocka_unit_test(neighbours_are_merged),
		cmocka_unit_test(what_is_free_cannot_be_freed_and_what_is_not_cannot_be_taken),
		cmocka_unit_test(alloc_takes_the_front_of_the_greatest_class),
		cmocka_unit_test(move_stops_at_its_bound_and_goes_on),
		cmocka_unit_test(a_tree_that_contradicts_itself_is_refused),
		cmocka_unit_test(a_tree_of_single_blocks_fills_up_again),
		cmocka_unit_test(random_use_agrees_with_a_bitmap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
