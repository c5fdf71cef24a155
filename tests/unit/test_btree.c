/*
 * Trees of b-tree blocks.  Promises: a tree holds exactly what was put into it, in order, through
 * any mix of changes, commits and aborts, and gives back every block that it does not need; reads
 * stay in their range.  (Faults and damage: test_btree_faults.c.)
 */
#include "btree_model.h"

static void random_changes(bool with_commits, size_t clean_max)
{
	struct fix *f = fix_open(clean_max);
	unsigned rounds = (unsigned)test_env("ROUNDS", 16000);
	static struct shape s;

	print_message("seed %llu\n", (unsigned long long)f->rng);
	for (unsigned round = 0; round < rounds; round++) {
		assert_int_equal(random_op(f, round), 0);
		if (round % 8 == 0)
			assert_neighbours(f, (unsigned)below(f, KEYS_NR));
		if (with_commits && below(f, 400) == 0) {
			commit(f);
			if (below(f, 3) == 0)
				reopen(f);
		}
		if (with_commits && below(f, 900) == 0)
			abort_all(f);
		if (round % 500 == 0 || f->root.height < 2)
			assert_shape(f, &s);
		if (round % 1000 == 0)
			assert_tree(f);
	}
	assert_tree(f);
	for (unsigned nr = 0; nr < KEYS_NR; nr++)
		assert_neighbours(f, nr);
	for (unsigned i = 0; i < KEYS_NR; i++)
		assert_int_equal(do_op(f, OP_DELETE, i * 1999 % KEYS_NR, 0, 0), 0);
	assert_tree(f);
	assert_int_equal(f->root.height, 0);
	assert_int_equal(le64_get(f->root.ref.blkno), 0);
	assert_int_equal(le64_get(f->root.ref.seq), 0);
	assert_int_equal(memalloc_used_nr(&f->ma), 0);
	fix_close(f);
}

static void random_changes_agree_with_a_model(void **state)
{
	(void)state;
	random_changes(false, 16);
}

static void random_changes_with_commits_agree_with_a_model(void **state)
{
	(void)state;
	random_changes(true, 1000);
}

static void random_changes_without_a_cache_agree_with_a_model(void **state)
{
	(void)state;
	random_changes(true, 0);
}

static void committed_tree_is_never_written(void **state)
{
	struct fix *f = fix_open(1000);
	static struct shape s;

	(void)state;
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(do_op(f, OP_FORCE, (unsigned)below(f, KEYS_NR), 100, i + 1), 0);
	commit(f);
	for (unsigned round = 0; round < 5; round++) {
		struct disk_btree_root was = f->root;
		struct model *m = malloc(sizeof(*m));

		assert_non_null(m);
		*m = f->m;
		for (unsigned i = 0; i < 2000; i++)
			assert_int_equal(random_op(f, round * 4000 + i), 0);
		/* Written, but not published: the old root must still be whole. */
		assert_int_equal(block_set_write(f->bs), 0);
		f->root = was;
		f->m = *m;
		reopen(f);
		memalloc_abort(&f->ma);
		assert_shape(f, &s);
		assert_tree(f);
		commit(f);
		free(m);
	}
	fix_close(f);
}

static void ascending_and_descending_inserts_fill_blocks(void **state)
{
	const unsigned nr = 100000;
	static struct shape s;

	(void)state;
	for (unsigned descending = 0; descending < 2; descending++) {
		struct fix *f = fix_open(100);
		uint8_t val[16] = { 0 };
		struct btree_ref ref;

		for (unsigned i = 0; i < nr; i++) {
			struct item it = { .key = key_inode(descending ? nr - i : i), .seq = 1,
					   .val = val,
					   .val_len = sizeof(val) };

			memcpy(val, &i, sizeof(i));
			assert_int_equal(btree_insert(f->bs, &f->ma.al, &f->root, &it), 0);
		}
		assert_shape(f, &s);
		assert_int_equal(f->root.height, 2);
		/* No leaf emptier than a split leaves it. */
		assert_int_equal(s.below_lwm, 0);
		assert_true(s.leaves <= nr * 72 / 26000 + 1);
		for (unsigned i = 0; i < nr; i += 997) {
			struct key key = key_inode(descending ? nr - i : i);

			assert_int_equal(btree_lookup(f->bs, &f->root, &key, &ref), 0);
			assert_memory_equal(ref.item.val, &i, sizeof(i));
			btree_put(f->bs, &ref);
		}
		assert_int_equal(btree_free(f->bs, &f->ma.al, &f->root), 0);
		assert_int_equal(f->root.height, 0);
		assert_int_equal(memalloc_used_nr(&f->ma), 0);
		fix_close(f);
	}
}

/* Long values make few items a leaf, so that few items make a tree of three levels. */
static void tall_trees_grow_and_shrink(void **state)
{
	const unsigned nr = 70000;
	struct fix *f = fix_open(300);
	uint8_t val[ITEM_VAL_MAX] = { 1 };
	static struct shape s;

	(void)state;
	for (unsigned i = 0; i < nr; i++) {
		struct item it = { .key = key_inode(i), .val = val, .val_len = sizeof(val) };

		assert_int_equal(btree_force(f->bs, &f->ma.al, &f->root, &it), 0);
	}
	assert_int_equal(f->root.height, 3);
	assert_shape(f, &s);
	/* From the middle outwards: siblings on both sides, at both levels. */
	for (unsigned i = 0; i < nr; i++) {
		struct key key = key_inode(i % 2 ? nr / 2 + i / 2 : nr / 2 - 1 - i / 2);

		assert_int_equal(btree_delete(f->bs, &f->ma.al, &f->root, &key), 0);
		if (i % 10000 == 0) {
			assert_shape(f, &s);
			/* Only the blocks around the hole may be low. */
			assert_true(s.below_lwm <= 4);
		}
	}
	assert_int_equal(f->root.height, 0);
	assert_int_equal(memalloc_used_nr(&f->ma), 0);
	fix_close(f);
}

struct leaf_items {
	unsigned nr;
	struct key first;
	struct key last;
};

static int note_item(void *arg, const struct item *it)
{
	struct leaf_items *li = arg;

	if (li->nr++ == 0)
		li->first = it->key;
	li->last = it->key;
	return 0;
}

/*
 * Leaves that are nearly full, one of which is emptied: it takes items from its right sibling if it
 * is the first, else from its left one, and is never merged with what would not fit.
 */
static void low_leaf_takes_from_a_full_sibling(void **state)
{
	(void)state;
	for (unsigned leaf = 0; leaf < 2; leaf++) {
		struct fix *f = fix_open(100);
		struct key_bounds { struct key start, end; } range = { KEY_ZEROS, KEY_ONES };
		struct key at = KEY_ZEROS;
		struct leaf_items li = { .nr = 0 };
		static struct shape s;
		unsigned leaves;
		unsigned deleted = 0;

		/* Ascending keys leave half-full leaves; the second pass fills them up. */
		for (unsigned nr = 0; nr < KEYS_NR; nr += 2)
			assert_int_equal(do_op(f, OP_INSERT, nr, 152, 1), 0);
		for (unsigned nr = 1; nr < KEYS_NR; nr += 2)
			if (nr % 20 != 1)
				assert_int_equal(do_op(f, OP_INSERT, nr, 128, 1), 0);
		assert_shape(f, &s);
		leaves = s.leaves;
		for (unsigned i = 0; i <= leaf; i++) {
			range = (struct key_bounds){ KEY_ZEROS, KEY_ONES };
			li.nr = 0;
			assert_int_equal(btree_read_leaf(f->bs, &f->root, &at, &range.start,
							 &range.end, note_item, &li), 0);
			at = key_next(range.end);
		}
		for (unsigned nr = 0; nr < KEYS_NR; nr++) {
			struct key key = key_nr(nr);

			if (key_cmp(&key, &range.start) < 0 || key_cmp(&key, &range.end) > 0 ||
			    !f->m.present[nr])
				continue;
			assert_int_equal(do_op(f, OP_DELETE, nr, 0, 0), 0);
			assert_shape(f, &s);
			/* One leaf may be just below the mark: the next deletion joins it. */
			assert_true(s.below_lwm <= 1);
			deleted++;
		}
		assert_int_equal(deleted, li.nr);
		assert_int_equal(s.leaves, leaves);
		assert_tree(f);
		fix_close(f);
	}
}

/* A root that splits needs two blocks; with only one it stays as it was and gives that one back. */
static void root_split_needs_both_blocks_or_none(void **state)
{
	struct fix *f = fix_open(10);
	unsigned nr = 0;

	(void)state;
	assert_int_equal(do_op(f, OP_INSERT, nr++, ITEM_VAL_MAX, 1), 0);
	f->ma.budget = 1;
	while (do_op(f, OP_INSERT, nr, ITEM_VAL_MAX, 1) == 0)
		nr++;
	f->ma.budget = -1;
	assert_int_equal(f->root.height, 1);
	assert_true(nr > 50);
	assert_tree(f);
	assert_int_equal(memalloc_used_nr(&f->ma), 1);
	assert_int_equal(do_op(f, OP_INSERT, nr, ITEM_VAL_MAX, 1), 0);
	assert_int_equal(f->root.height, 2);
	assert_tree(f);
	fix_close(f);
}

static int stop_at_third(void *arg, const struct item *it)
{
	(void)it;
	return ++*(int *)arg == 3 ? 42 : 0;
}

static void iteration_stays_in_its_range(void **state)
{
	struct fix *f = fix_open(1000);
	struct key start = key_nr(700), end = key_nr(2900);
	int count = 0;

	(void)state;
	for (unsigned nr = 0; nr < KEYS_NR; nr += 2)
		assert_int_equal(do_op(f, OP_INSERT, nr, 300, 1), 0);
	assert_int_equal(btree_each(f->bs, &f->root, &start, &end, count_items, &count), 0);
	assert_int_equal(count, (2900 - 700) / 2 + 1);
	count = 0;
	assert_int_equal(btree_each(f->bs, &f->root, &end, &start, count_items, &count), 0);
	assert_int_equal(count, 0);
	assert_int_equal(btree_each(f->bs, &f->root, &start, &end, stop_at_third, &count), 42);
	assert_int_equal(count, 3);
	fix_close(f);
}

/* Leaves read one after the other, each from where the last ended, give everything once. */
static void leaf_reads_cover_the_key_space(void **state)
{
	struct fix *f = fix_open(1000);
	struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct key key = KEY_ZEROS, start, end;
	struct leaf_items li;
	unsigned total = 0, leaves = 0;

	(void)state;
	start = zeros;
	end = ones;
	memset(&li, 0, sizeof(li));
	assert_int_equal(btree_read_leaf(f->bs, &f->root, &key, &start, &end, note_item, &li), 0);
	assert_true(key_eq(&start, &zeros));
	assert_true(key_eq(&end, &ones));
	assert_int_equal(li.nr, 0);

	for (unsigned nr = 1; nr < KEYS_NR - 1; nr++)
		assert_int_equal(do_op(f, OP_INSERT, nr, 300, 1), 0);
	for (;;) {
		start = zeros;
		end = ones;
		memset(&li, 0, sizeof(li));
		assert_int_equal(btree_read_leaf(f->bs, &f->root, &key, &start, &end, note_item,
						 &li), 0);
		assert_true(key_eq(&start, &key));
		assert_true(li.nr > 0);
		assert_true(key_cmp(&li.first, &start) >= 0);
		assert_true(key_cmp(&li.last, &end) <= 0);
		total += li.nr;
		leaves++;
		if (key_eq(&end, &ones))
			break;
		key = key_next(end);
	}
	assert_int_equal(total, KEYS_NR - 2);
	assert_true(leaves > 10);

	/* A narrower range is not widened, and cuts the items. */
	key = key_nr(50);
	start = key_nr(40);
	end = key_nr(60);
	memset(&li, 0, sizeof(li));
	assert_int_equal(btree_read_leaf(f->bs, &f->root, &key, &start, &end, note_item, &li), 0);
	assert_int_equal(li.nr, 21);
	assert_true(key_eq(&li.first, &start));
	assert_true(key_eq(&li.last, &end));
	li.nr = 0;
	assert_int_equal(btree_read_leaf(f->bs, &f->root, &key, &start, &end, stop_at_third,
					 &li.nr), 42);
	fix_close(f);
}

static void impossible_items_are_refused(void **state)
{
	struct fix *f = fix_open(10);
	uint8_t val[ITEM_VAL_MAX + 1] = { 0 };
	struct item it = { .key = key_nr(5), .val = val, .val_len = sizeof(val) };

	(void)state;
	assert_int_equal(btree_insert(f->bs, &f->ma.al, &f->root, &it), -EINVAL);
	assert_int_equal(btree_force(f->bs, &f->ma.al, &f->root, &it), -EINVAL);
	it.val_len = 1;
	it.flags = 2;
	assert_int_equal(btree_insert(f->bs, &f->ma.al, &f->root, &it), -EINVAL);
	assert_int_equal(f->root.height, 0);
	assert_int_equal(block_set_dirty_nr(f->bs), 0);
	fix_close(f);
}

/* The caller's value may be the tree's own bytes, in the very leaf that is compacted. */
static void value_may_lie_in_the_leaf_that_changes(void **state)
{
	struct fix *f = fix_open(10);

	(void)state;
	for (unsigned nr = 0; nr < 60; nr++)
		assert_int_equal(do_op(f, OP_INSERT, nr, 700, nr + 1), 0);
	assert_int_equal(f->root.height, 1);
	for (unsigned i = 0; i < 500; i++) {
		struct key key = key_nr((unsigned)below(f, 60));
		uint8_t want[700];
		struct btree_ref ref;

		assert_int_equal(btree_lookup(f->bs, &f->root, &key, &ref), 0);
		memcpy(want, ref.item.val, sizeof(want));
		assert_int_equal(btree_update(f->bs, &f->ma.al, &f->root, &ref.item), 0);
		btree_put(f->bs, &ref);
		assert_int_equal(btree_lookup(f->bs, &f->root, &key, &ref), 0);
		assert_memory_equal(ref.item.val, want, sizeof(want));
		btree_put(f->bs, &ref);
	}
	assert_tree(f);
	fix_close(f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_agree_with_a_model),
		cmocka_unit_test(random_changes_with_commits_agree_with_a_model),
		cmocka_unit_test(random_changes_without_a_cache_agree_with_a_model),
		cmocka_unit_test(committed_tree_is_never_written),
		cmocka_unit_test(ascending_and_descending_inserts_fill_blocks),
		cmocka_unit_test(tall_trees_grow_and_shrink),
		cmocka_unit_test(low_leaf_takes_from_a_full_sibling),
		cmocka_unit_test(root_split_needs_both_blocks_or_none),
		cmocka_unit_test(iteration_stays_in_its_range),
		cmocka_unit_test(leaf_reads_cover_the_key_space),
		cmocka_unit_test(impossible_items_are_refused),
		cmocka_unit_test(value_may_lie_in_the_leaf_that_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
