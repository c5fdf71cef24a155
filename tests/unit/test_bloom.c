/* What bloom blocks and the writing of one log tree promise: log/forest.h,
 * format.md 11.4, 11.6, 20.17. */
#include "rig.h"

#include <errno.h>

#include "log/forest.h"

#define RIG_FIRST 9000u
#define TOTAL 20000u

/* format.md 8.7, lock start keys. */
static const struct { struct key key; uint32_t bits[3]; } vectors[] = {
	{ { .zone = 16, .first = 0 }, { 349301, 400905, 383775 } },
	{ { .zone = 16, .first = 1024 }, { 410633, 362016, 181083 } },
	{ { .zone = 4, .type = 4, .second = 1024 }, { 506305, 65312, 393352 } },
	{ { .zone = 4, .type = 8, .second = 1024 }, { 257053, 505895, 283397 } },
	{ { .zone = 8, .type = 4 }, { 418537, 160996, 431949 } },
	{ { .zone = 10 }, { 64599, 21928, 350900 } },
	{ { .zone = 12 }, { 509345, 323443, 200855 } },
	{ { .zone = 14 }, { 430123, 100990, 9851 } },
};

static void bits_are_where_the_format_says(void **state)
{
	struct disk_bloom_block *b = calloc(1, sizeof(*b));
	const uint8_t *raw = (const uint8_t *)b;
	uint64_t set = 0;

	(void)state;
	assert_non_null(b);
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		assert_false(bloom_block_test(b, &vectors[i].key));
		bloom_block_set(b, &vectors[i].key);
		set += 3;
		for (unsigned k = 0; k < 3; k++)
			assert_true(raw[40 + vectors[i].bits[k] / 8] &
				    (1u << vectors[i].bits[k] % 8));
		assert_int_equal(le64_get(b->total_set), set);
		assert_true(bloom_block_test(b, &vectors[i].key));
		/* Again changes nothing. */
		bloom_block_set(b, &vectors[i].key);
		assert_int_equal(le64_get(b->total_set), set);
		assert_int_equal(bloom_block_check(b), 0);
	}
	free(b);
}

static void a_bit_too_many_or_too_few_is_noticed(void **state)
{
	struct disk_bloom_block *b = calloc(1, sizeof(*b));

	(void)state;
	assert_non_null(b);
	bloom_block_set(b, &vectors[0].key);
	b->bits[sizeof(b->bits) - 1] ^= 0x80;
	assert_int_equal(bloom_block_check(b), -EBADMSG);
	b->bits[sizeof(b->bits) - 1] ^= 0x80;
	b->total_set = le64_of(2);
	assert_int_equal(bloom_block_check(b), -EBADMSG);
	/* All three bits count: with any one missing the key is not there. */
	for (unsigned k = 0; k < 3; k++) {
		uint32_t bit = vectors[0].bits[k];

		b->bits[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(bloom_block_test(b, &vectors[0].key));
		b->bits[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	free(b);
}

/* A volume with one list pair to write log trees from. */
struct tree_rig {
	struct rig r;
	struct disk_alloc_list_head avail, freed;
	struct disk_alloc_root none;
	struct disk_log_trees lt;
	struct meta_alloc ma;
};

static void open_tree(struct tree_rig *t, uint32_t blocks)
{
	struct disk_alloc_root free_blocks = { 0 };

	memset(t, 0, sizeof(*t));
	rig_open(&t->r, RIG_FIRST, TOTAL);
	assert_int_equal(free_extents_insert(t->r.bs, &t->r.al, &free_blocks,
					     (struct extent){ 2, blocks }), 0);
	assert_int_equal(
		alloc_list_fill(t->r.bs, &t->r.al, &t->avail, &free_blocks, blocks, blocks), 0);
	rig_commit(&t->r);
	meta_alloc_open(&t->ma, t->r.bs, &t->avail, &t->freed);
	t->lt.rid = le64_of(5);
	t->lt.nr = le64_of(1);
}

static void close_tree(struct tree_rig *t)
{
	meta_alloc_close(&t->ma);
	rig_close(&t->r);
}

static int force(struct tree_rig *t, struct key key, uint64_t seq, uint8_t flags, const void *val,
		 uint16_t len)
{
	const struct item it = {
		.key = key, .seq = seq, .flags = flags, .val = val, .val_len = len
	};

	return log_tree_force(t->r.bs, &t->ma, &t->lt, &it);
}

static bool bloom_has(struct tree_rig *t, struct key lock_start)
{
	struct block *bl;
	bool has;

	assert_int_equal(block_get(t->r.bs, block_ref_get(&t->lt.bloom_ref), MAGIC_BLOOM, &bl), 0);
	assert_int_equal(bloom_block_check(bl->data), 0);
	has = bloom_block_test(bl->data, &lock_start);
	block_put(t->r.bs, bl);
	return has;
}

static void every_item_is_found_through_its_locks_bits(void **state)
{
	static const struct { struct key item, lock; } v[] = {
		{ { 16, 1, 4, 0, 0, 0 }, { .zone = 16 } },
		{ { 16, 5000, 12, 77, 3, 0 }, { .zone = 16, .first = 4096 } },
		{ { 16, 2047, 20, 1, 3, 0 }, { .zone = 16, .first = 1024 } },
		{ { 4, 0, 4, 1500, 9, 0 }, { .zone = 4, .type = 4, .second = 1024 } },
		{ { 4, 0, 8, 1500, 9, 0 }, { .zone = 4, .type = 8, .second = 1024 } },
		{ { 8, 0, 4, 1500, 0, 0 }, { .zone = 8, .type = 4 } },
		{ { 10, 0, 4, 1500, 1, 0 }, { .zone = 10 } },
		{ { 14, 3, 0, 1, 2, 3 }, { .zone = 14 } },
	};
	struct tree_rig t;
	uint8_t val[ITEM_VAL_MAX + 1] = { 0 };

	(void)state;
	open_tree(&t, 100);
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		if (i > 0)
			assert_false(bloom_has(&t, v[i].lock));
		assert_int_equal(force(&t, v[i].item, 40 + i % 3, i & 1, val, 0), 0);
		assert_true(bloom_has(&t, v[i].lock));
		assert_int_equal(le64_get(t.lt.max_item_seq), 40 + (i < 2 ? i : 2));
	}
	assert_int_equal(force(&t, v[0].item, 1, 0, val, ITEM_VAL_MAX + 1), -EINVAL);
	close_tree(&t);
}

static void bits_that_are_set_cost_no_copy(void **state)
{
	struct key k = { .zone = 16, .first = 1030, .type = 4 };
	struct disk_block_ref before;
	struct tree_rig t;

	(void)state;
	open_tree(&t, 100);
	assert_int_equal(force(&t, k, 1, 0, "x", 1), 0);
	assert_int_equal(block_set_write(t.r.bs), 0);
	before = t.lt.bloom_ref;
	k.first = 2000;
	assert_int_equal(force(&t, k, 1, 0, "x", 1), 0);
	assert_memory_equal(&before, &t.lt.bloom_ref, sizeof(before));
	k.first = 2048;
	assert_int_equal(force(&t, k, 1, 0, "x", 1), 0);
	assert_memory_not_equal(&before, &t.lt.bloom_ref, sizeof(before));
	assert_true(bloom_has(&t, (struct key){ .zone = 16, .first = 1024 }));
	assert_true(bloom_has(&t, (struct key){ .zone = 16, .first = 2048 }));
	close_tree(&t);
}

/* What is remembered of the item before never keeps bits from being set that are not. */
static void items_one_after_the_other_have_their_bits(void **state)
{
	const struct key a = { .zone = 16, .first = 1030, .type = 4 };
	const struct key b = { .zone = 16, .first = 5000, .type = 4 };
	const struct key at[] = { a, a, b, b, a, b };
	struct log_tree_run run = { .bloom_blkno = 0 };
	struct tree_rig t;

	(void)state;
	open_tree(&t, 100);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		struct item it = { .key = at[i], .seq = i, .val = "x", .val_len = 1 };

		assert_int_equal(log_tree_force_next(t.r.bs, &t.ma, &t.lt, &it, &run), 0);
		assert_true(bloom_has(&t, key_lock_start(&at[i])));
		assert_int_equal(le64_get(t.lt.max_item_seq), i);
		if (i == 3) {
			log_tree_run_end(t.r.bs, &run);
			assert_int_equal(block_set_write(t.r.bs), 0);
		}
	}
	/* the bloom block goes with the last item, and what it had with it */
	assert_int_equal(log_tree_remove_next(t.r.bs, &t.ma, &t.lt, &a, &run), 0);
	assert_int_equal(log_tree_remove_next(t.r.bs, &t.ma, &t.lt, &a, &run), -ENOENT);
	assert_int_equal(log_tree_remove_next(t.r.bs, &t.ma, &t.lt, &b, &run), 0);
	assert_int_equal(le64_get(t.lt.bloom_ref.blkno), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct item it = { .key = i ? a : b, .seq = 9, .val = "x", .val_len = 1 };

		assert_int_equal(log_tree_force_next(t.r.bs, &t.ma, &t.lt, &it, &run), 0);
		assert_true(bloom_has(&t, key_lock_start(&it.key)));
	}
	log_tree_run_end(t.r.bs, &run);
	close_tree(&t);
}

static void a_marker_has_no_value(void **state)
{
	const struct key k = { .zone = 16, .first = 1030, .type = 4 };
	struct btree_ref ref;
	struct tree_rig t;

	(void)state;
	open_tree(&t, 100);
	assert_int_equal(force(&t, k, 8, 0, "value", 5), 0);
	assert_int_equal(force(&t, k, 9, ITEM_FLAG_DELETION, "value", 5), 0);
	assert_int_equal(btree_lookup(t.r.bs, &t.lt.item_root, &k, &ref), 0);
	assert_int_equal(ref.item.val_len, 0);
	assert_int_equal(ref.item.flags, ITEM_FLAG_DELETION);
	assert_int_equal(ref.item.seq, 9);
	btree_put(t.r.bs, &ref);
	close_tree(&t);
}

static void an_empty_tree_has_no_bloom_block(void **state)
{
	const struct key a = { .zone = 16, .first = 1030, .type = 4 };
	const struct key b = { .zone = 16, .first = 1031, .type = 4 };
	struct tree_rig t;

	(void)state;
	open_tree(&t, 100);
	assert_int_equal(log_tree_remove(t.r.bs, &t.ma, &t.lt, &a), -ENOENT);
	assert_int_equal(force(&t, a, 8, 0, "v", 1), 0);
	assert_int_equal(force(&t, b, 8, 0, "v", 1), 0);
	assert_int_equal(log_tree_remove(t.r.bs, &t.ma, &t.lt, &a), 0);
	assert_int_equal(log_tree_remove(t.r.bs, &t.ma, &t.lt, &a), -ENOENT);
	assert_int_not_equal(le64_get(t.lt.bloom_ref.blkno), 0);
	assert_int_equal(log_tree_remove(t.r.bs, &t.ma, &t.lt, &b), 0);
	assert_int_equal(t.lt.item_root.height, 0);
	assert_int_equal(le64_get(t.lt.bloom_ref.blkno), 0);
	assert_int_equal(le64_get(t.lt.bloom_ref.seq), 0);
	/* Everything went back: 2 blocks of the tree and the old avail block. */
	assert_int_equal(le64_get(t.freed.total_nr), 3);
	close_tree(&t);
}

static void totals_add_up_in_a_tree(void **state)
{
	const struct key k = { .zone = 12, .first = 1, .second = 2, .third = 3 };
	const struct disk_xattr_total plus = { le64_of(100), le64_of(1) };
	const struct disk_xattr_total minus = { le64_of((uint64_t)-100), le64_of((uint64_t)-1) };
	struct disk_xattr_total got;
	struct btree_ref ref;
	struct tree_rig t;

	(void)state;
	open_tree(&t, 100);
	assert_int_equal(force(&t, k, 8, 0, &plus, sizeof(plus)), 0);
	assert_int_equal(force(&t, k, 9, 0, &plus, sizeof(plus)), 0);
	assert_int_equal(btree_lookup(t.r.bs, &t.lt.item_root, &k, &ref), 0);
	memcpy(&got, ref.item.val, sizeof(got));
	assert_int_equal(le64_get(got.total), 200);
	assert_int_equal(le64_get(got.count), 2);
	assert_int_equal(ref.item.seq, 9);
	btree_put(t.r.bs, &ref);
	/* A sum of nothing stays as an item: it may have to undo what another tree holds. */
	assert_int_equal(force(&t, k, 10, 0, &minus, sizeof(minus)), 0);
	assert_int_equal(force(&t, k, 11, 0, &minus, sizeof(minus)), 0);
	assert_int_equal(btree_lookup(t.r.bs, &t.lt.item_root, &k, &ref), 0);
	memcpy(&got, ref.item.val, sizeof(got));
	assert_int_equal(le64_get(got.total), 0);
	assert_int_equal(le64_get(got.count), 0);
	btree_put(t.r.bs, &ref);
	assert_int_equal(force(&t, k, 12, ITEM_FLAG_DELETION, NULL, 0), -EINVAL);
	assert_int_equal(force(&t, k, 12, 0, &plus, 8), -EINVAL);
	close_tree(&t);
}

static void running_dry_is_reported(void **state)
{
	struct key k = { .zone = 16, .type = 4 };
	uint8_t val[ITEM_VAL_MAX] = { 0 };
	struct tree_rig t;
	int ret;

	(void)state;
	open_tree(&t, 6);
	do {
		k.first++;
		ret = force(&t, k, 8, 0, val, sizeof(val));
	} while (ret == 0);
	assert_int_equal(ret, -ENOSPC);
	assert_in_range(k.first, 60, 300);
	close_tree(&t);
}

/* The description of a log tree. */

static int check_lt(const struct disk_log_trees *lt, struct key key)
{
	const struct item it = { .key = key, .val = lt, .val_len = sizeof(*lt) };
	struct disk_log_trees got;
	int ret = log_trees_check(&it, &got);

	if (ret == 0)
		assert_memory_equal(&got, lt, sizeof(got));
	return ret;
}

static void a_log_tree_is_what_its_item_may_say(void **state)
{
	const struct disk_log_trees good = {
		.item_root = { .ref = { le64_of(9), le64_of(1) }, .height = 1 },
		.bloom_ref = { le64_of(10), le64_of(1) },
		.rid = le64_of(5), .nr = le64_of(2), .get_trans_seq = le64_of(20),
		.commit_trans_seq = le64_of(19), .max_item_seq = le64_of(18),
		.data_avail = { .total_len = le64_of(3),
				.root = { .ref = { le64_of(11), le64_of(1) }, .height = 1 } },
		.meta_avail = { .ref = { le64_of(12), le64_of(1) }, .total_nr = le64_of(4),
				.first_nr = le32_of(4), .flags = le32_of(1) },
	};
	const struct key key = key_log_trees(5, 2);
	struct disk_log_trees lt, done;

	(void)state;
	assert_int_equal(check_lt(&good, key), 0);
	assert_int_equal(check_lt(&good, key_log_trees(5, 3)), -EBADMSG);
	assert_int_equal(check_lt(&good, key_log_trees(6, 2)), -EBADMSG);
	assert_int_equal(check_lt(&good, (struct key){ 24, 5, 1, 2, 0, 0 }), -EBADMSG);
	assert_int_equal(
		log_trees_check(
			&(struct item){ .key = key, .val = &good, .val_len = sizeof(good) - 1 },
			&lt),
		-EBADMSG);

#define BAD(change) \
	do { \
		lt = good; \
		change; \
		assert_int_equal(check_lt(&lt, key), -EBADMSG); \
	} while (0)
	BAD(lt.commit_trans_seq = le64_of(21));
	BAD(lt.flags = le64_of(2));
	BAD(lt.flags = le64_of(LOG_TREES_FLAG_FINALIZED));
	BAD(lt.finalize_seq = le64_of(7));
	BAD(lt.bloom_ref.blkno = le64_of(0));
	BAD(lt.item_root.height = 21);
	BAD(lt.item_root.height = 0);
	BAD(lt.item_root.ref.blkno = le64_of(1));
	BAD(lt.data_avail.root = (struct disk_btree_root){ 0 });
	BAD(lt.data_freed.flags = le32_of(4));
	BAD(lt.meta_avail.first_nr = le32_of(5));
	BAD(lt.meta_freed.total_nr = le64_of(1));
	BAD(lt.srch_file.height = 1);
	lt = good;
	lt.nr = le64_of(0);
	assert_int_equal(check_lt(&lt, key_log_trees(5, 0)), -EBADMSG);

	done = good;
	done.flags = le64_of(LOG_TREES_FLAG_FINALIZED);
	done.finalize_seq = le64_of(21);
	assert_int_equal(check_lt(&done, key), -EBADMSG);	/* has allocators yet */
	done.data_avail = (struct disk_alloc_root){ 0 };
	assert_int_equal(check_lt(&done, key), -EBADMSG);
	done.meta_avail = (struct disk_alloc_list_head){ 0 };
	assert_int_equal(check_lt(&done, key), 0);
	done.srch_file = (struct disk_srch_file){ .ref = { le64_of(13), le64_of(1) }, .height = 1,
						  .blocks = le64_of(1), .entries = le64_of(1) };
	assert_int_equal(check_lt(&done, key), -EBADMSG);
#undef BAD
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits_are_where_the_format_says),
		cmocka_unit_test(a_bit_too_many_or_too_few_is_noticed),
		cmocka_unit_test(every_item_is_found_through_its_locks_bits),
		cmocka_unit_test(bits_that_are_set_cost_no_copy),
		cmocka_unit_test(items_one_after_the_other_have_their_bits),
		cmocka_unit_test(a_marker_has_no_value),
		cmocka_unit_test(an_empty_tree_has_no_bloom_block),
		cmocka_unit_test(totals_add_up_in_a_tree),
		cmocka_unit_test(running_dry_is_reported),
		cmocka_unit_test(a_log_tree_is_what_its_item_may_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
