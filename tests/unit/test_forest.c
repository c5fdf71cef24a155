/*
 * What reading the forest promises, case by case: log/forest.h, format.md 11.3-11.6, runtime.md 6 and
 * 13.2.  (Random volumes against a model: test_forest_model.c.)
 */
#include "forest_rig.h"

#include "csum/csum.h"

/* All the ways to see one key; each must give the same. */

struct found {
	bool any;
	struct key key;
	uint64_t seq;
	uint16_t len;
	uint8_t val[ITEM_VAL_MAX];
	unsigned calls;
	int ret;
};

static int find_item(void *arg, const struct item *it)
{
	struct found *fd = arg;

	fd->calls++;
	if (key_eq(&it->key, &fd->key)) {
		fd->any = true;
		fd->seq = it->seq;
		fd->len = it->val_len;
		if (it->val_len)
			memcpy(fd->val, it->val, it->val_len);
	}
	return fd->ret;
}

static void assert_sees(struct forest *f, struct key key, const char *want, uint64_t seq)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	const struct key lock_start = key_lock_start(&key), lock_end = key_lock_end(&lock_start);
	struct found fd = { .key = key };
	struct forest_iter *fi;
	uint8_t val[ITEM_VAL_MAX];
	struct key start, end;
	struct item it;
	int ret;

	ret = forest_lookup(f->r.bs, &f->roots, &key, &it, val);
	assert_int_equal(ret, want ? 0 : -ENOENT);
	if (want) {
		assert_int_equal(it.val_len, strlen(want));
		assert_memory_equal(it.val, want, it.val_len);
		assert_ptr_equal(it.val, val);
		assert_int_equal(it.seq, seq);
	}
	assert_int_equal(forest_read_range(f->r.bs, &f->roots, &lock_start, &lock_end, &key, &start,
					   &end, find_item, &fd),
			 0);
	assert_true(key_cmp(&start, &key) <= 0 && key_cmp(&key, &end) <= 0);
	assert_int_equal(fd.any, want != NULL);
	if (want) {
		assert_int_equal(fd.len, strlen(want));
		assert_memory_equal(fd.val, want, fd.len);
		assert_int_equal(fd.seq, seq);
	}
	for (unsigned way = 0; way < 3; way++) {
		assert_int_equal(forest_iter_open(&fi, f->r.bs, &f->roots, way == 1 ? &key : &zeros,
						  way == 1 ? &key : &ones), 0);
		if (way == 2)
			assert_int_equal(forest_iter_seek(fi, &key), 0);
		while ((ret = forest_iter_next(fi, &it)) == 0 && key_cmp(&it.key, &key) < 0)
			assert_int_equal(way, 0);
		if (want) {
			assert_int_equal(ret, 0);
			assert_true(key_eq(&it.key, &key));
			assert_int_equal(it.val_len, strlen(want));
			assert_memory_equal(it.val, want, it.val_len);
			assert_int_equal(it.seq, seq);
		} else {
			assert_true(ret == -ENOENT || (ret == 0 && !key_eq(&it.key, &key)));
		}
		forest_iter_close(fi);
	}
}

static void a_marker_hides_older_versions_on_every_path(void **state)
{
	const struct key k = key_inode(1030), other = key_inode(1031);
	struct forest f;

	(void)state;
	/* Each pair of places: the old version in one, the marker in the other, in both orders. */
	for (unsigned old = 0; old < 4; old++) {
		for (unsigned marker = 1; marker < 4; marker++) {
			if (old == marker)
				continue;
			forest_open(&f);
			for (unsigned i = 1; i < 4; i++)
				put(&f, add_tree(&f, i), other, 5, 0, "other", 5);
			if (old == 0)
				put_fs(&f, k, 10, "old", 3);
			else
				put(&f, &f.lt[old - 1], k, 10, 0, "old", 3);
			finalize(&f, &f.lt[1]);
			publish(&f, 64);
			assert_sees(&f, k, "old", 10);
			put(&f, &f.lt[marker - 1], k, 11, ITEM_FLAG_DELETION, NULL, 0);
			publish(&f, 64);
			assert_sees(&f, k, NULL, 0);
			assert_sees(&f, other, "other", 5);
			/* And a newer version comes back over the marker. */
			put(&f, &f.lt[marker == 1 ? 2 : 0], k, 12, 0, "again", 5);
			publish(&f, 2);
			assert_sees(&f, k, "again", 12);
			forest_fini(&f);
		}
	}
}

static void the_newest_wins_wherever_it_is(void **state)
{
	static const char *const names[] = { "zero", "one", "two", "three" };
	const struct key k = key_dirent(2000, 77, 5);
	struct forest f;

	(void)state;
	for (unsigned newest = 0; newest < 4; newest++) {
		forest_open(&f);
		for (unsigned i = 0; i < 4; i++) {
			uint64_t seq = i == newest ? 100 : 10 + i;
			uint16_t len = (uint16_t)strlen(names[i]);

			if (i == 0)
				put_fs(&f, k, seq, names[i], len);
			else
				put(&f, add_tree(&f, i), k, seq, 0, names[i], len);
		}
		publish(&f, 64);
		assert_sees(&f, k, names[newest], 100);
		forest_fini(&f);
	}
}

static void a_tie_goes_to_the_log_and_to_the_open_tree(void **state)
{
	const struct key k = key_inode(1030);
	struct forest f;

	(void)state;
	forest_open(&f);
	put_fs(&f, k, 10, "merged", 6);
	put(&f, add_tree(&f, 1), k, 10, 0, "done", 4);
	finalize(&f, &f.lt[0]);
	publish(&f, 64);
	assert_sees(&f, k, "done", 10);
	put(&f, add_tree(&f, 2), k, 10, 0, "open", 4);
	publish(&f, 64);
	assert_sees(&f, k, "open", 10);
	forest_fini(&f);

	forest_open(&f);
	put(&f, add_tree(&f, 1), k, 10, 0, "open", 4);
	put(&f, add_tree(&f, 2), k, 10, 0, "done", 4);
	finalize(&f, &f.lt[1]);
	put_fs(&f, k, 10, "merged", 6);
	publish(&f, 64);
	assert_sees(&f, k, "open", 10);
	forest_fini(&f);
}

static void a_tree_without_the_bits_is_not_read(void **state)
{
	const struct key mine = key_inode(1030), theirs = key_inode(5000);
	const struct key start = key_lock_start(&mine), end = key_lock_end(&start);
	struct found fd = { .key = mine };
	struct key s, e;
	struct item it;
	uint8_t val[ITEM_VAL_MAX];
	struct forest f;

	(void)state;
	forest_open(&f);
	put_fs(&f, mine, 3, "mine", 4);
	put(&f, add_tree(&f, 1), theirs, 4, 0, "theirs", 6);
	publish(&f, 0);
	/* Destroy the other tree: whoever goes there is told so, nobody else is. */
	memset(memdev_at(&f.r.dev, le64_get(f.lt[0].item_root.ref.blkno)), 0, LARGE_SIZE);
	assert_int_equal(forest_lookup(f.r.bs, &f.roots, &mine, &it, val), 0);
	assert_int_equal(
		forest_read_range(f.r.bs, &f.roots, &start, &end, &mine, &s, &e, find_item, &fd),
		0);
	assert_true(fd.any);
	assert_int_equal(forest_lookup(f.r.bs, &f.roots, &theirs, &it, val), -ESTALE);
	forest_fini(&f);
}

static void read_range_refuses_what_it_cannot_answer(void **state)
{
	const struct key totl = { .zone = 12 }, zeros = KEY_ZEROS, ones = KEY_ONES;
	const struct key mine = key_inode(1030), outside = key_inode(2048);
	const struct key start = key_lock_start(&mine), end = key_lock_end(&start);
	const struct key totl_end = { .zone = 12, .first = UINT64_MAX };
	struct found fd = { .key = mine };
	struct key s, e;
	struct forest f;

	(void)state;
	forest_open(&f);
	put_fs(&f, mine, 3, "mine", 4);
	put_fs(&f, key_inode(1031), 3, "next", 4);
	publish(&f, 64);
	assert_int_equal(forest_read_range(f.r.bs, &f.roots, &totl, &totl_end, &totl, &s, &e,
					   find_item, &fd),
			 -EINVAL);
	assert_int_equal(
		forest_read_range(f.r.bs, &f.roots, &zeros, &ones, &mine, &s, &e, find_item, &fd),
		-EINVAL);
	assert_int_equal(
		forest_read_range(f.r.bs, &f.roots, &start, &end, &outside, &s, &e, find_item, &fd),
		-EINVAL);
	assert_int_equal(fd.calls, 0);
	fd.ret = 55;
	assert_int_equal(
		forest_read_range(f.r.bs, &f.roots, &start, &end, &mine, &s, &e, find_item, &fd),
		55);
	assert_int_equal(fd.calls, 1);
	forest_fini(&f);
}

static void iterators_go_forwards_only(void **state)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES, a = key_inode(10), b = key_inode(20);
	struct forest_iter *fi;
	struct item it;
	struct forest f;

	(void)state;
	forest_open(&f);
	for (uint64_t ino = 2; ino < 30; ino++)
		put_fs(&f, key_inode(ino), 3, "v", 1);
	publish(&f, 64);
	assert_int_equal(forest_iter_open(&fi, f.r.bs, &f.roots, &a, &b), 0);
	assert_int_equal(forest_iter_seek(fi, &zeros), -EINVAL);
	for (uint64_t ino = 10; ino <= 15; ino++) {
		assert_int_equal(forest_iter_next(fi, &it), 0);
		assert_int_equal(it.key.first, ino);
	}
	assert_int_equal(forest_iter_seek(fi, &a), -EINVAL);
	assert_int_equal(forest_iter_seek(fi, &b), 0);
	assert_int_equal(forest_iter_next(fi, &it), 0);
	assert_int_equal(it.key.first, 20);
	assert_int_equal(forest_iter_next(fi, &it), -ENOENT);
	assert_int_equal(forest_iter_seek(fi, &ones), 0);
	assert_int_equal(forest_iter_next(fi, &it), -ENOENT);
	forest_iter_close(fi);
	/* A range that ends before it starts has nothing. */
	assert_int_equal(forest_iter_open(&fi, f.r.bs, &f.roots, &b, &a), 0);
	assert_int_equal(forest_iter_next(fi, &it), -ENOENT);
	forest_iter_close(fi);
	forest_fini(&f);
}

/* Every way of reading once; -ENOENT and 0 are answers. */
static int read_all_ways(struct forest *f, struct key key)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	const struct key lock_start = key_lock_start(&key), lock_end = key_lock_end(&lock_start);
	struct found fd = { .key = key };
	struct forest_iter *fi;
	uint8_t val[ITEM_VAL_MAX];
	struct key start, end;
	struct item it;
	int ret;

	ret = forest_lookup(f->r.bs, &f->roots, &key, &it, val);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	ret = forest_read_range(f->r.bs, &f->roots, &lock_start, &lock_end, &key, &start, &end,
				find_item, &fd);
	if (ret < 0) {
		assert_int_equal(fd.calls, 0);
		return ret;
	}
	ret = forest_iter_open(&fi, f->r.bs, &f->roots, &zeros, &ones);
	if (ret < 0)
		return ret;
	while ((ret = forest_iter_next(fi, &it)) == 0)
		;
	forest_iter_close(fi);
	return ret == -ENOENT ? 0 : ret;
}

static void a_failing_device_fails_the_read_and_nothing_else(void **state)
{
	const struct key k = key_inode(1030);
	uint8_t val[ITEM_VAL_MAX] = { 0 };
	unsigned failed = 0;
	struct forest f;
	int ret;

	(void)state;
	forest_open(&f);
	for (uint64_t ino = 1024; ino < 1324; ino++) {
		put_fs(&f, key_inode(ino), 3, val, sizeof(val));
		put(&f, ino == 1024 ? add_tree(&f, 1) : &f.lt[0], key_inode(ino), 4, 0, val,
		    sizeof(val));
	}
	put(&f, add_tree(&f, 2), k, 5, 0, val, 1);
	set_merge_status(&f, 9);
	publish(&f, 0);
	for (int64_t n = 0; ; n++) {
		f.r.dev.fail_reads_after = n;
		f.r.dev.read_err = -EIO;
		ret = read_all_ways(&f, k);
		f.r.dev.fail_reads_after = -1;
		if (ret == 0)
			break;
		assert_int_equal(ret, -EIO);
		failed++;
		/* Nothing is held: a set with holds would not close. */
		meta_alloc_close(&f.ma);
		rig_reopen(&f.r, 0);
		meta_alloc_open(&f.ma, f.r.bs, &f.avail, &f.freed);
	}
	assert_true(failed > 20);
	forest_fini(&f);
}

static void a_replaced_block_is_stale(void **state)
{
	const struct key k = key_inode(1030);
	struct disk_block_ref refs[4];
	uint8_t *at, *copy = malloc(LARGE_SIZE);
	struct disk_header *hdr;
	struct forest f;

	(void)state;
	assert_non_null(copy);
	forest_open(&f);
	put_fs(&f, k, 3, "v", 1);
	put(&f, add_tree(&f, 1), k, 4, 0, "w", 1);
	publish(&f, 0);
	refs[0] = f.roots.fs_root.ref;
	refs[1] = f.roots.logs_root.ref;
	refs[2] = f.lt[0].item_root.ref;
	refs[3] = f.lt[0].bloom_ref;
	for (unsigned i = 0; i < 4; i++) {
		at = memdev_at(&f.r.dev, le64_get(refs[i].blkno));
		memcpy(copy, at, LARGE_SIZE);
		/* Somebody else has written another block there, a good one. */
		hdr = (struct disk_header *)at;
		hdr->seq = le64_of(le64_get(hdr->seq) + 1);
		hdr->crc = le32_of(block_crc(at, LARGE_SIZE));
		assert_int_equal(read_all_ways(&f, k), -ESTALE);
		memcpy(at, copy, LARGE_SIZE);
		assert_int_equal(read_all_ways(&f, k), 0);
	}
	free(copy);
	forest_fini(&f);
}

static void damage_is_told_from_absence(void **state)
{
	const struct key k = key_inode(1030), totl = { .zone = 12, .first = 9 };
	uint8_t val[ITEM_VAL_MAX];
	struct item it;
	struct forest f;

	(void)state;
	forest_open(&f);
	put(&f, add_tree(&f, 1), k, 4, 0, "w", 1);
	f.lt[0].commit_trans_seq = le64_of(7);
	publish(&f, 64);
	assert_int_equal(read_all_ways(&f, k), -EBADMSG);
	f.lt[0].commit_trans_seq = le64_of(0);
	publish(&f, 64);
	assert_int_equal(read_all_ways(&f, k), 0);
	/* A total of the wrong size. */
	put_fs(&f, totl, 3, "short", 5);
	publish(&f, 64);
	assert_int_equal(forest_lookup(f.r.bs, &f.roots, &totl, &it, val), -EBADMSG);
	assert_int_equal(read_all_ways(&f, k), -EBADMSG);
	/* A merge status that is none. */
	assert_int_equal(btree_delete(f.r.bs, &f.r.al, &f.roots.fs_root, &totl), 0);
	assert_int_equal(btree_insert(f.r.bs, &f.r.al, &f.roots.log_merge,
				      &(struct item){ .key = { .zone = ZONE_MERGE_STATUS },
						      .val = "x",
						      .val_len = 1 }),
			 0);
	publish(&f, 64);
	assert_int_equal(read_all_ways(&f, k), -EBADMSG);
	forest_fini(&f);
}

static void roots_are_compared_one_by_one(void **state)
{
	struct disk_super *super = calloc(1, sizeof(*super));
	struct disk_btree_root *root[4];
	struct forest_roots a, b;

	(void)state;
	assert_non_null(super);
	super->fs_root = (struct disk_btree_root){ .ref = { le64_of(2), le64_of(1) }, .height = 1 };
	super->srch_root =
		(struct disk_btree_root){ .ref = { le64_of(3), le64_of(1) }, .height = 2 };
	forest_roots_of_super(super, &a);
	forest_roots_of_super(super, &b);
	assert_true(forest_roots_eq(&a, &b));
	root[0] = &b.fs_root;
	root[1] = &b.logs_root;
	root[2] = &b.srch_root;
	root[3] = &b.log_merge;
	for (unsigned i = 0; i < 4; i++) {
		le64_add(&root[i]->ref.blkno, 1);
		assert_false(forest_roots_eq(&a, &b));
		le64_add(&root[i]->ref.blkno, (uint64_t)-1);
		le64_add(&root[i]->ref.seq, 1);
		assert_false(forest_roots_eq(&a, &b));
		le64_add(&root[i]->ref.seq, (uint64_t)-1);
		root[i]->height++;
		assert_false(forest_roots_eq(&a, &b));
		root[i]->height--;
	}
	assert_true(forest_roots_eq(&a, &b));
	free(super);
}

/* 11.6, case by case: fs_root, an input of the merge, another finalized tree, an open one. */
static void totals_follow_the_rule_of_the_format(void **state)
{
	const struct key k = { .zone = ZONE_XATTR_TOTL, .first = 4, .second = 5, .third = 6 };
	static const struct {
		int64_t fs[2], in[2], later[2], live[2];
		uint64_t fs_seq, in_seq;
		int64_t want[2];
	} v[] = {
		/* nothing merged: everything counts */
		{ { 10, 1 }, { 20, 1 }, { 40, 1 }, { 80, 1 }, 5, 10, { 150, 4 } },
		/* the inputs are in fs_root already */
		{ { 30, 2 }, { 20, 1 }, { 40, 1 }, { 80, 1 }, 10, 10, { 150, 4 } },
		/* fs_root has none and the inputs brought some */
		{ { 0, 0 }, { 20, 1 }, { 40, 1 }, { 80, 1 }, 0, 10, { 140, 3 } },
		/* fs_root has none since the inputs took it away */
		{ { 0, 0 }, { -20, -1 }, { 40, 1 }, { 80, 1 }, 0, 10, { 120, 2 } },
		/* what is left is nothing */
		{ { 10, 1 }, { -10, -1 }, { 0, 0 }, { 0, 0 }, 5, 10, { 0, 0 } },
		/* no input at all */
		{ { 10, 1 }, { 0, 0 }, { 1, 0 }, { 0, 0 }, 5, 0, { 11, 1 } },
		/* a total of nothing over one xattr is something */
		{ { 0, 0 }, { 0, 1 }, { 0, 0 }, { 0, 0 }, 0, 10, { 0, 1 } },
	};
	struct disk_xattr_total d;
	uint8_t val[ITEM_VAL_MAX];
	struct item it;
	struct forest f;
	int ret;

	(void)state;
#define D(x) \
	(d = (struct disk_xattr_total){ le64_of((uint64_t)(x)[0]), le64_of((uint64_t)(x)[1]) }, &d)
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		forest_open(&f);
		if (v[i].fs_seq)
			put_fs(&f, k, v[i].fs_seq, D(v[i].fs), sizeof(d));
		if (v[i].in_seq)
			put(&f, add_tree(&f, 1), k, v[i].in_seq, 0, D(v[i].in), sizeof(d));
		f.seq = 20;
		if (v[i].in_seq)
			finalize(&f, &f.lt[0]);
		set_merge_status(&f, ++f.seq);
		put(&f, add_tree(&f, 2), k, 30, 0, D(v[i].later), sizeof(d));
		f.seq = 31;
		finalize(&f, &f.lt[f.lt_nr - 1]);
		put(&f, add_tree(&f, 3), k, 40, 0, D(v[i].live), sizeof(d));
		publish(&f, 64);
		ret = forest_lookup(f.r.bs, &f.roots, &k, &it, val);
		if (v[i].want[0] == 0 && v[i].want[1] == 0) {
			assert_int_equal(ret, -ENOENT);
		} else {
			assert_int_equal(ret, 0);
			assert_memory_equal(it.val, D(v[i].want), sizeof(d));
		}
		forest_fini(&f);
	}
#undef D
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_marker_hides_older_versions_on_every_path),
		cmocka_unit_test(the_newest_wins_wherever_it_is),
		cmocka_unit_test(a_tie_goes_to_the_log_and_to_the_open_tree),
		cmocka_unit_test(a_tree_without_the_bits_is_not_read),
		cmocka_unit_test(read_range_refuses_what_it_cannot_answer),
		cmocka_unit_test(iterators_go_forwards_only),
		cmocka_unit_test(a_failing_device_fails_the_read_and_nothing_else),
		cmocka_unit_test(a_replaced_block_is_stale),
		cmocka_unit_test(damage_is_told_from_absence),
		cmocka_unit_test(roots_are_compared_one_by_one),
		cmocka_unit_test(totals_follow_the_rule_of_the_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
