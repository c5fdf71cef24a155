/*
 * Trees that cannot be read, given space or believed.  Promises: a tree is whole after whatever
 * failed; malformed or replaced blocks are told as such and never followed; shapes that other
 * makers may leave are accepted.
 */
#include "btree_model.h"

#include "csum/csum.h"

/* --- faults --- */

static void no_space_anywhere_aborts_cleanly(void **state)
{
	struct fix *f = fix_open(1000);
	unsigned hit = 0;

	(void)state;
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(random_op(f, i), 0);
	commit(f);
	for (unsigned round = 0; round < 120; round++) {
		unsigned op;
		int ret = 0;

		if (round % 3 == 2)
			f->ma.free_budget = (int64_t)below(f, 40);
		else
			f->ma.budget = (int64_t)below(f, 40);
		for (op = 0; op < 400 && ret == 0; op++)
			ret = random_op(f, round * 400 + op);
		f->ma.budget = -1;
		f->ma.free_budget = -1;
		if (ret == 0) {
			commit(f);
			continue;
		}
		assert_int_equal(ret, -ENOSPC);
		hit++;
		abort_all(f);
		assert_int_equal(block_set_dirty_nr(f->bs), 0);
		assert_tree(f);
	}
	assert_true(hit > 20);
	fix_close(f);
}

/* An operation that failed for want of an allocation leaves a tree that is whole even without
 * abort. */
static void tree_is_whole_after_a_failed_allocation(void **state)
{
	struct fix *f = fix_open(1000);
	unsigned hit = 0;

	(void)state;
	for (unsigned i = 0; i < 4000; i++) {
		int ret;

		f->ma.budget = (int64_t)below(f, 3);
		ret = random_op(f, i);
		f->ma.budget = -1;
		if (ret < 0) {
			hit++;
			assert_int_equal(ret, -ENOSPC);
			if (hit % 8 == 0)
				assert_tree(f);
		}
		if (i % 100 == 0)
			commit(f);
	}
	assert_true(hit > 20);
	assert_tree(f);
	fix_close(f);
}

static void read_errors_are_passed_on_and_abort_cleanly(void **state)
{
	struct fix *f = fix_open(4);
	unsigned hit = 0;

	(void)state;
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(random_op(f, i), 0);
	commit(f);
	for (unsigned round = 0; round < 60; round++) {
		unsigned op;
		int ret = 0;

		f->md.fail_reads_after = (int64_t)below(f, 25);
		for (op = 0; op < 200 && ret == 0; op++)
			ret = random_op(f, round * 200 + op);
		f->md.fail_reads_after = -1;
		if (ret < 0) {
			assert_int_equal(ret, -EIO);
			hit++;
		}
		abort_all(f);
		assert_tree(f);
	}
	assert_true(hit > 20);
	fix_close(f);
}

/* As if the block at arg had been reused by another node. */
static int read_reused(void *arg, uint64_t blkno, void *buf)
{
	struct disk_header *hdr = buf;

	if (blkno == *(uint64_t *)arg) {
		le64_add(&hdr->seq, 1);
		hdr->crc = le32_of(block_crc(buf, LARGE_SIZE));
	}
	return 0;
}

static int visit_note_error(void *arg, const struct btree_visit *v)
{
	if (v->err) {
		assert_null(v->bl);
		*(int *)arg = v->err;
	}
	return 0;
}

static int visit_pick(void *arg, const struct btree_visit *v)
{
	struct block_ref *ref = arg;

	/* The last block visited: a leaf on the right edge. */
	*ref = v->ref;
	return 0;
}

static void replaced_block_is_stale_in_every_read(void **state)
{
	struct fix *f = fix_open(0);
	struct key zeros = KEY_ZEROS, ones = KEY_ONES, start = KEY_ZEROS, end = KEY_ONES;
	struct item it = { .key = KEY_ONES };
	struct block_ref leaf = { 0, 0 };
	struct btree_ref ref;
	int count = 0;
	int err = 0;

	(void)state;
	for (unsigned nr = 0; nr < KEYS_NR; nr++)
		assert_int_equal(do_op(f, OP_INSERT, nr, 100, 1), 0);
	commit(f);
	assert_int_equal(btree_visit_blocks(f->bs, &f->root, visit_pick, &leaf), 0);
	f->md.on_read = read_reused;
	f->md.on_read_arg = &leaf.blkno;
	assert_int_equal(btree_lookup(f->bs, &f->root, &ones, &ref), -ESTALE);
	assert_null(ref.bl);
	assert_int_equal(btree_next(f->bs, &f->root, &ones, &ref), -ESTALE);
	assert_int_equal(btree_prev(f->bs, &f->root, &ones, &ref), -ESTALE);
	assert_int_equal(btree_read_leaf(f->bs, &f->root, &ones, &start, &end, count_items, &count),
			 -ESTALE);
	assert_int_equal(btree_each(f->bs, &f->root, &zeros, &ones, count_items, &count), -ESTALE);
	assert_true(count > 0 && count < (int)KEYS_NR);
	assert_int_equal(btree_insert(f->bs, &f->ma.al, &f->root, &it), -ESTALE);
	assert_int_equal(btree_force(f->bs, &f->ma.al, &f->root, &it), -ESTALE);
	abort_all(f);
	assert_int_equal(btree_delete(f->bs, &f->ma.al, &f->root, &ones), -ESTALE);
	abort_all(f);
	assert_int_equal(btree_visit_blocks(f->bs, &f->root, visit_note_error, &err), 0);
	assert_int_equal(err, -ESTALE);
	f->md.on_read = NULL;
	assert_tree(f);
	fix_close(f);
}

/* --- malformed trees --- */

/* Change a block on the device behind everybody's back, with a right checksum. */
static struct disk_btree_block *block_on_device(struct fix *f, uint64_t blkno)
{
	return (void *)memdev_at(&f->md, blkno);
}

static void seal(struct fix *f, uint64_t blkno)
{
	struct disk_header *hdr = (void *)memdev_at(&f->md, blkno);

	hdr->crc = le32_of(block_crc(hdr, LARGE_SIZE));
}

struct bad_visit {
	const char *why;
	unsigned errors;
};

static int visit_note_why(void *arg, const struct btree_visit *v)
{
	struct bad_visit *bv = arg;

	if (v->err == 0)
		return 0;
	assert_int_equal(v->err, -EBADMSG);
	assert_null(v->bl);
	bv->errors++;
	bv->why = v->why;
	return 0;
}

/* A tree of height 2, committed; *parent is its root block on the device. */
static struct fix *make_two_levels(struct disk_btree_block **parent)
{
	struct fix *f = fix_open(0);

	for (unsigned nr = 0; nr < KEYS_NR; nr++)
		assert_int_equal(do_op(f, OP_INSERT, nr, 100, 1), 0);
	commit(f);
	assert_int_equal(f->root.height, 2);
	*parent = block_on_device(f, le64_get(f->root.ref.blkno));
	return f;
}

static struct disk_block_ref *child_ref(struct disk_btree_block *b, int slot)
{
	return (void *)((uint8_t *)b + le16_get(b->items[slot].val_off));
}

static void assert_bad_below(struct fix *f, const struct key *key, const char *why)
{
	struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct item it = { .key = *key };
	struct bad_visit bv = { .errors = 0 };
	struct btree_ref ref;
	int count = 0;

	assert_int_equal(btree_lookup(f->bs, &f->root, key, &ref), -EBADMSG);
	assert_int_equal(btree_next(f->bs, &f->root, key, &ref), -EBADMSG);
	assert_int_equal(btree_prev(f->bs, &f->root, key, &ref), -EBADMSG);
	assert_int_equal(btree_each(f->bs, &f->root, &zeros, &ones, count_items, &count), -EBADMSG);
	assert_int_equal(btree_insert(f->bs, &f->ma.al, &f->root, &it), -EBADMSG);
	assert_int_equal(btree_force(f->bs, &f->ma.al, &f->root, &it), -EBADMSG);
	abort_all(f);
	assert_int_equal(btree_delete(f->bs, &f->ma.al, &f->root, key), -EBADMSG);
	abort_all(f);
	if (!why)
		return;
	assert_int_equal(btree_visit_blocks(f->bs, &f->root, visit_note_why, &bv), 0);
	assert_int_equal(bv.errors, 1);
	assert_string_equal(bv.why, why);
}

static void children_that_contradict_their_parent_are_refused(void **state)
{
	struct disk_btree_block *parent;
	struct disk_btree_block *leaf;
	struct key ones = KEY_ONES, key;
	struct item it;
	struct fix *f;
	int first, last;

	(void)state;
	f = make_two_levels(&parent);
	last = btb_last(parent);
	leaf = block_on_device(f, le64_get(child_ref(parent, last)->blkno));
	leaf->level = 1;	/* and so not a leaf's bytes any more */
	seal(f, le64_get(leaf->hdr.blkno));
	assert_bad_below(f, &ones, "a parent's value is not a block reference");
	fix_close(f);

	f = make_two_levels(&parent);
	last = btb_last(parent);
	*child_ref(parent, last) = f->root.ref;	/* a cycle */
	seal(f, le64_get(parent->hdr.blkno));
	/* The reference in the block cannot have the block's own seq on a sane device; here it
	 * does. */
	assert_bad_below(f, &ones, "the level is not the one expected below its parent");
	fix_close(f);

	f = make_two_levels(&parent);
	first = btb_first(parent);
	last = btb_last(parent);
	*child_ref(parent, last) = *child_ref(parent, first);
	seal(f, le64_get(parent->hdr.blkno));
	assert_bad_below(f, &ones, "a key is below the range that the parent gives");
	fix_close(f);

	f = make_two_levels(&parent);
	first = btb_first(parent);
	last = btb_last(parent);
	*child_ref(parent, first) = *child_ref(parent, last);
	seal(f, le64_get(parent->hdr.blkno));
	key = KEY_ZEROS;
	assert_bad_below(f, &key, "a key is above the range that the parent gives");
	fix_close(f);

	f = make_two_levels(&parent);
	last = btb_last(parent);
	child_ref(parent, last)->blkno = le64_of(TOTAL);
	seal(f, le64_get(parent->hdr.blkno));
	assert_bad_below(f, &ones, "a reference names a block outside the device");
	fix_close(f);

	/* No child for the greatest keys. */
	f = make_two_levels(&parent);
	last = btb_last(parent);
	btb_item(parent, last, &it);
	key = key_nr(KEYS_NR - 2);
	btb_set_key(parent, last, &key);
	seal(f, le64_get(parent->hdr.blkno));
	assert_int_equal(btree_lookup(f->bs, &f->root, &ones, &(struct btree_ref){ .bl = NULL }),
			 -EBADMSG);
	it = (struct item){ .key = KEY_ONES };
	assert_int_equal(btree_force(f->bs, &f->ma.al, &f->root, &it), -EBADMSG);
	abort_all(f);
	fix_close(f);
}

static void malformed_sibling_is_refused_by_a_join(void **state)
{
	struct disk_btree_block *parent, *leaf;
	struct fix *f = make_two_levels(&parent);
	int ret = 0;

	(void)state;
	leaf = block_on_device(f, le64_get(child_ref(parent, btb_first(parent))->blkno));
	leaf->total_item_bytes = le16_of(8);
	seal(f, le64_get(leaf->hdr.blkno));
	/* Empty the second leaf until it wants to join the first. */
	for (unsigned nr = 0; nr < KEYS_NR && ret == 0; nr++) {
		struct key key = key_nr(nr);
		struct key first;
		struct item it;

		btb_item(parent, btb_first(parent), &it);
		first = it.key;
		if (key_cmp(&key, &first) <= 0)
			continue;
		ret = btree_delete(f->bs, &f->ma.al, &f->root, &key);
	}
	assert_int_equal(ret, -EBADMSG);
	abort_all(f);
	fix_close(f);
}

static void impossible_roots_are_refused(void **state)
{
	struct fix *f = fix_open(10);
	struct key key = key_nr(5), ones = KEY_ONES;
	struct item it = { .key = key_nr(5) };
	struct disk_btree_root bad[3] = {
		{ .height = 1 },
		{ .ref = { le64_of(5), le64_of(1) } },
		{ .ref = { le64_of(5), le64_of(1) }, .height = BTREE_HEIGHT_MAX + 1 },
	};
	struct btree_ref ref;
	int count = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(btree_lookup(f->bs, &bad[i], &key, &ref), -EBADMSG);
		assert_int_equal(btree_next(f->bs, &bad[i], &key, &ref), -EBADMSG);
		assert_int_equal(btree_each(f->bs, &bad[i], &key, &ones, count_items, &count),
				 -EBADMSG);
		assert_int_equal(btree_insert(f->bs, &f->ma.al, &bad[i], &it), -EBADMSG);
		assert_int_equal(btree_force(f->bs, &f->ma.al, &bad[i], &it), -EBADMSG);
		assert_int_equal(btree_delete(f->bs, &f->ma.al, &bad[i], &key), -EBADMSG);
		assert_int_equal(btree_free(f->bs, &f->ma.al, &bad[i]), -EBADMSG);
		assert_int_equal(btree_visit_blocks(f->bs, &bad[i], visit_note_why, NULL),
				 -EBADMSG);
	}
	fix_close(f);
}

/* --- blocks of other makers --- */

static void other_makers_shapes_are_accepted(void **state)
{
	struct fix *f = fix_open(10);
	struct block *bl, *leaf;
	struct block_ref ref, leaf_ref;
	struct disk_block_ref d;
	struct item it = { .key = KEY_ONES, .val = &d, .val_len = sizeof(d) };
	struct btree_ref found;
	struct key key = key_nr(5);

	(void)state;
	/* Three levels with one child each, and an empty leaf. */
	assert_int_equal(block_new(f->bs, &f->ma.al, MAGIC_BTREE, &leaf_ref, &leaf), 0);
	btb_init(leaf->data, 0);
	block_put(f->bs, leaf);
	ref = leaf_ref;
	for (uint8_t level = 1; level < 3; level++) {
		d = block_ref_put(ref);
		assert_int_equal(block_new(f->bs, &f->ma.al, MAGIC_BTREE, &ref, &bl), 0);
		btb_init(bl->data, level);
		btb_insert(bl->data, &it);
		block_put(f->bs, bl);
	}
	f->root = (struct disk_btree_root){ .ref = block_ref_put(ref), .height = 3 };
	commit(f);
	assert_int_equal(btree_lookup(f->bs, &f->root, &key, &found), -ENOENT);
	assert_int_equal(btree_next(f->bs, &f->root, &key, &found), -ENOENT);
	assert_int_equal(btree_prev(f->bs, &f->root, &key, &found), -ENOENT);
	assert_int_equal(btree_delete(f->bs, &f->ma.al, &f->root, &key), -ENOENT);
	assert_int_equal(do_op(f, OP_INSERT, 5, 10, 1), 0);
	assert_neighbours(f, 5);
	assert_int_equal(do_op(f, OP_DELETE, 5, 0, 0), 0);
	assert_neighbours(f, 5);
	assert_int_equal(btree_free(f->bs, &f->ma.al, &f->root), 0);
	assert_int_equal(memalloc_used_nr(&f->ma), 0);
	fix_close(f);
}

static int visit_skip_below(void *arg, const struct btree_visit *v)
{
	(void)v;
	++*(int *)arg;
	return 1;
}

static int visit_stop_at_second(void *arg, const struct btree_visit *v)
{
	(void)v;
	return ++*(int *)arg == 2 ? -EINTR : 0;
}

static void visitor_decides_how_far(void **state)
{
	struct disk_btree_block *parent;
	struct fix *f = make_two_levels(&parent);
	int count = 0;

	(void)state;
	assert_int_equal(btree_visit_blocks(f->bs, &f->root, visit_skip_below, &count), 0);
	assert_int_equal(count, 1);
	count = 0;
	assert_int_equal(btree_visit_blocks(f->bs, &f->root, visit_stop_at_second, &count), -EINTR);
	assert_int_equal(count, 2);
	fix_close(f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_space_anywhere_aborts_cleanly),
		cmocka_unit_test(tree_is_whole_after_a_failed_allocation),
		cmocka_unit_test(read_errors_are_passed_on_and_abort_cleanly),
		cmocka_unit_test(replaced_block_is_stale_in_every_read),
		cmocka_unit_test(children_that_contradict_their_parent_are_refused),
		cmocka_unit_test(malformed_sibling_is_refused_by_a_join),
		cmocka_unit_test(impossible_roots_are_refused),
		cmocka_unit_test(other_makers_shapes_are_accepted),
		cmocka_unit_test(visitor_decides_how_far),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
