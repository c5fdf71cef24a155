/* What reading the forest promises: log/forest.h, format.md 11.3-11.6, runtime.md 6 and 13.2. */
#include "rig.h"

#include <errno.h>

#include "csum/csum.h"
#include "log/forest.h"
#include "log/merge_items.h"

#define RIG_FIRST 9000u
#define TOTAL 30000u
#define MOUNTS 3u
#define TREES_MAX 64u

/*
 * A volume of some log trees over one fs_root.  Trees are written through one meta_alloc,
 * everything else through the rig's allocator.
 */
struct forest {
	struct rig r;
	struct disk_alloc_list_head avail, freed;
	struct meta_alloc ma;
	struct forest_roots roots;
	struct disk_log_trees lt[TREES_MAX];
	size_t lt_nr;
	uint64_t seq;
};

static void forest_open(struct forest *f)
{
	const struct item first = { .key = key_inode(1), .seq = 1, .val = "root", .val_len = 4 };
	struct disk_alloc_root free_blocks = { 0 };

	memset(f, 0, sizeof(*f));
	rig_open(&f->r, RIG_FIRST, TOTAL);
	assert_int_equal(
		free_extents_insert(f->r.bs, &f->r.al, &free_blocks, (struct extent){ 2, 8000 }),
		0);
	assert_int_equal(alloc_list_fill(f->r.bs, &f->r.al, &f->avail, &free_blocks, 8000, 8000),
			 0);
	assert_int_equal(btree_insert(f->r.bs, &f->r.al, &f->roots.fs_root, &first), 0);
	rig_commit(&f->r);
	meta_alloc_open(&f->ma, f->r.bs, &f->avail, &f->freed);
	f->seq = 1;
}

static void forest_fini(struct forest *f)
{
	meta_alloc_close(&f->ma);
	rig_close(&f->r);
}

static struct disk_log_trees *add_tree(struct forest *f, uint64_t rid)
{
	struct disk_log_trees *lt = &f->lt[f->lt_nr++];
	uint64_t nr = 1;

	assert_true(f->lt_nr <= TREES_MAX);
	for (size_t i = 0; i + 1 < f->lt_nr; i++) {
		if (le64_get(f->lt[i].rid) == rid && le64_get(f->lt[i].nr) >= nr)
			nr = le64_get(f->lt[i].nr) + 1;
	}
	*lt = (struct disk_log_trees){ .rid = le64_of(rid), .nr = le64_of(nr) };
	return lt;
}

static void put(struct forest *f, struct disk_log_trees *lt, struct key key, uint64_t seq,
		uint8_t flags, const void *val, uint16_t len)
{
	const struct item it = {
		.key = key, .seq = seq, .flags = flags, .val = val, .val_len = len
	};

	assert_int_equal(log_tree_force(f->r.bs, &f->ma, lt, &it), 0);
}

static void put_fs(struct forest *f, struct key key, uint64_t seq, const void *val, uint16_t len)
{
	const struct item it = { .key = key, .seq = seq, .val = val, .val_len = len };

	assert_int_equal(btree_force(f->r.bs, &f->r.al, &f->roots.fs_root, &it), 0);
}

static void finalize(struct forest *f, struct disk_log_trees *lt)
{
	lt->flags = le64_of(LOG_TREES_FLAG_FINALIZED);
	lt->finalize_seq = le64_of(++f->seq);
}

static void set_merge_status(struct forest *f, uint64_t seq)
{
	const struct disk_merge_status st = { .seq = le64_of(seq) };
	const struct item it = { .key = { .zone = ZONE_MERGE_STATUS },
				 .val = &st,
				 .val_len = sizeof(st) };

	assert_int_equal(btree_force(f->r.bs, &f->r.al, &f->roots.log_merge, &it), 0);
}

/* Make logs_root say what f->lt says, write everything and forget what is cached. */
static void publish(struct forest *f, size_t clean_max)
{
	struct item it;

	if (f->roots.logs_root.height)
		assert_int_equal(btree_free(f->r.bs, &f->r.al, &f->roots.logs_root), 0);
	for (size_t i = 0; i < f->lt_nr; i++) {
		it = (struct item){ .key = key_log_trees(le64_get(f->lt[i].rid),
							 le64_get(f->lt[i].nr)),
				    .val = &f->lt[i],
				    .val_len = sizeof(f->lt[i]) };
		assert_int_equal(btree_insert(f->r.bs, &f->r.al, &f->roots.logs_root, &it), 0);
	}
	meta_alloc_close(&f->ma);
	rig_commit(&f->r);
	rig_reopen(&f->r, clean_max);
	meta_alloc_open(&f->ma, f->r.bs, &f->avail, &f->freed);
}

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

/*
 * The model: what a volume holds after random writes by several mounts, with merges that start, do
 * some keys, go on and finish.  Every read path must give the model's state at every step.
 */

#define KEYS 500u
#define TOTLS 40u
#define LANES 4u	/* xattrs that add to one total */

struct model {
	struct forest f;
	uint64_t seed;
	struct mkey {
		struct key key;
		bool exists;
		uint64_t seq;
		uint16_t len;
		uint8_t val[ITEM_VAL_MAX];
	} k[KEYS];
	struct mtotl {
		struct key key;
		bool set[LANES];
		uint64_t val[LANES];
		bool merged;	/* the inputs of the running merge are in fs_root */
	} t[TOTLS];
	bool merged[KEYS];
	bool merging;
	uint64_t merge_seq;
};

static int mkey_cmp(const void *a, const void *b)
{
	return key_cmp(&((const struct mkey *)a)->key, &((const struct mkey *)b)->key);
}

static void model_open(struct model *m, uint64_t seed)
{
	memset(m, 0, sizeof(*m));
	m->seed = seed;
	forest_open(&m->f);
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t n = i;		/* makes them distinct */

		switch (i % 6) {
		case 0: m->k[i].key = key_inode(1024 + 7 * n); break;
		case 1:
			m->k[i].key = key_dirent(1024 + (n % 16) * 200, test_random(&m->seed), n);
			break;
		case 2: m->k[i].key = key_index(TYPE_INDEX_META_SEQ, 5 * n, n); break;
		case 3: m->k[i].key = key_orphan(1024 + n); break;
		case 4: m->k[i].key = key_extent(1024 + (n % 5) * 999, 8 * n + 7, 8); break;
		default:
			m->k[i].key =
				(struct key){ .zone = ZONE_XATTR_INDX, .first = n, .third = n * 3 };
			break;
		}
	}
	qsort(m->k, KEYS, sizeof(m->k[0]), mkey_cmp);
	for (unsigned i = 0; i < TOTLS; i++)
		m->t[i].key =
			(struct key){ .zone = ZONE_XATTR_TOTL, .first = 1 + i / 7, .second = i };
	for (uint64_t rid = 1; rid <= MOUNTS; rid++)
		add_tree(&m->f, rid);
}

static struct disk_log_trees *open_tree_of(struct model *m, uint64_t rid)
{
	for (size_t i = 0; i < m->f.lt_nr; i++) {
		if (le64_get(m->f.lt[i].rid) == rid && !le64_get(m->f.lt[i].flags))
			return &m->f.lt[i];
	}
	return add_tree(&m->f, rid);
}

static void model_write(struct model *m)
{
	struct disk_log_trees *lt = open_tree_of(m, 1 + rnd_below(&m->seed, MOUNTS));
	struct mkey *k = &m->k[rnd_below(&m->seed, KEYS)];

	k->seq = ++m->f.seq;
	k->exists = rnd_below(&m->seed, 3) > 0;
	k->len = k->exists ? (uint16_t)rnd_below(&m->seed, 700) : 0;
	memset(k->val, (int)rnd_below(&m->seed, 256), k->len);
	put(&m->f, lt, k->key, k->seq, k->exists ? 0 : ITEM_FLAG_DELETION, k->val, k->len);
}

/* One xattr is set, replaced or removed by some mount: an increment in that mount's tree. */
static void model_write_total(struct model *m)
{
	struct disk_log_trees *lt = open_tree_of(m, 1 + rnd_below(&m->seed, MOUNTS));
	struct mtotl *t = &m->t[rnd_below(&m->seed, TOTLS)];
	unsigned lane = (unsigned)rnd_below(&m->seed, LANES);
	bool set = rnd_below(&m->seed, 2);
	/* A lane has its own bits, so a value counted twice shows. */
	uint64_t val = (1 + rnd_below(&m->seed, 200)) << 10 * lane;
	uint64_t old = t->set[lane] ? t->val[lane] : 0;
	struct disk_xattr_total d = {
		.total = le64_of((set ? val : 0) - old),
		.count = le64_of((uint64_t)set - (uint64_t)t->set[lane]),
	};

	if (!set && !t->set[lane])
		return;
	t->set[lane] = set;
	t->val[lane] = val;
	put(&m->f, lt, t->key, ++m->f.seq, 0, &d, sizeof(d));
}

/* All trees are finalized together, with every later seq greater (runtime.md 7.2). */
static void model_start_merge(struct model *m)
{
	for (size_t i = 0; i < m->f.lt_nr; i++) {
		if (!le64_get(m->f.lt[i].flags))
			finalize(&m->f, &m->f.lt[i]);
	}
	m->merge_seq = ++m->f.seq;
	set_merge_status(&m->f, m->merge_seq);
	m->merging = true;
	memset(m->merged, 0, sizeof(m->merged));
	for (unsigned i = 0; i < TOTLS; i++)
		m->t[i].merged = false;
	for (uint64_t rid = 1; rid <= MOUNTS; rid++)
		add_tree(&m->f, rid);
}

static bool is_input(const struct model *m, const struct disk_log_trees *lt)
{
	return le64_get(lt->flags) && le64_get(lt->finalize_seq) < m->merge_seq;
}

/* Merge one key as 14.2 step 3 says: the winner among the inputs goes to fs_root. */
static void merge_key(struct model *m, unsigned at)
{
	const struct key *key = &m->k[at].key;
	uint8_t val[ITEM_VAL_MAX];
	struct item best = { 0 };
	struct btree_ref ref;
	bool any = false;
	int ret;

	if (m->merged[at])
		return;
	m->merged[at] = true;
	for (size_t i = 0; i < m->f.lt_nr; i++) {
		if (!is_input(m, &m->f.lt[i]) ||
		    btree_lookup(m->f.r.bs, &m->f.lt[i].item_root, key, &ref) < 0)
			continue;
		if (!any || ref.item.seq > best.seq) {
			best = ref.item;
			if (best.val_len)
				memcpy(val, best.val, best.val_len);
			best.val = val;
		}
		any = true;
		btree_put(m->f.r.bs, &ref);
	}
	if (!any)
		return;
	if (best.flags & ITEM_FLAG_DELETION) {
		ret = btree_delete(m->f.r.bs, &m->f.r.al, &m->f.roots.fs_root, key);
		assert_true(ret == 0 || ret == -ENOENT);
	} else {
		put_fs(&m->f, *key, best.seq, best.val, best.val_len);
	}
}

static void merge_total(struct model *m, struct mtotl *t)
{
	struct disk_xattr_total d, sum = { 0 };
	struct btree_ref ref;
	uint64_t seq = 0;

	if (t->merged)
		return;
	t->merged = true;
	for (size_t i = 0; i < m->f.lt_nr; i++) {
		if (!is_input(m, &m->f.lt[i]) ||
		    btree_lookup(m->f.r.bs, &m->f.lt[i].item_root, &t->key, &ref) < 0)
			continue;
		memcpy(&d, ref.item.val, sizeof(d));
		le64_add(&sum.total, le64_get(d.total));
		le64_add(&sum.count, le64_get(d.count));
		if (ref.item.seq > seq)
			seq = ref.item.seq;
		btree_put(m->f.r.bs, &ref);
	}
	if (le64_get(sum.total) == 0 && le64_get(sum.count) == 0)
		return;
	if (btree_lookup(m->f.r.bs, &m->f.roots.fs_root, &t->key, &ref) == 0) {
		memcpy(&d, ref.item.val, sizeof(d));
		le64_add(&sum.total, le64_get(d.total));
		le64_add(&sum.count, le64_get(d.count));
		btree_put(m->f.r.bs, &ref);
		if (le64_get(sum.total) == 0 && le64_get(sum.count) == 0) {
			assert_int_equal(
				btree_delete(m->f.r.bs, &m->f.r.al, &m->f.roots.fs_root, &t->key),
				0);
			return;
		}
	}
	put_fs(&m->f, t->key, seq, &sum, sizeof(sum));
}

/* A run of keys, in no order of runs. */
static void model_merge_some(struct model *m)
{
	unsigned from = (unsigned)rnd_below(&m->seed, KEYS),
		 nr = (unsigned)rnd_below(&m->seed, 200);

	for (unsigned i = from; i < from + nr && i < KEYS; i++)
		merge_key(m, i);
	for (unsigned i = 0; i < TOTLS; i++) {
		if (rnd_below(&m->seed, 3) == 0)
			merge_total(m, &m->t[i]);
	}
}

static void model_finish_merge(struct model *m)
{
	size_t left = 0;

	for (unsigned i = 0; i < KEYS; i++)
		merge_key(m, i);
	for (unsigned i = 0; i < TOTLS; i++)
		merge_total(m, &m->t[i]);
	for (size_t i = 0; i < m->f.lt_nr; i++) {
		if (!is_input(m, &m->f.lt[i]))
			m->f.lt[left++] = m->f.lt[i];
	}
	m->f.lt_nr = left;
	assert_int_equal(btree_free(m->f.r.bs, &m->f.r.al, &m->f.roots.log_merge), 0);
	m->merging = false;
}

static void assert_is_key(const struct item *it, const struct mkey *k)
{
	assert_true(key_eq(&it->key, &k->key));
	assert_int_equal(it->seq, k->seq);
	assert_int_equal(it->flags, 0);
	assert_int_equal(it->val_len, k->len);
	if (k->len)
		assert_memory_equal(it->val, k->val, k->len);
}

/* false: the total does not exist */
static bool total_of(const struct mtotl *t, uint64_t *total, uint64_t *count)
{
	*total = 0;
	*count = 0;
	for (unsigned l = 0; l < LANES; l++) {
		if (t->set[l]) {
			*total += t->val[l];
			(*count)++;
		}
	}
	return *count > 0;
}

static void assert_is_total(const struct item *it, const struct mtotl *t)
{
	struct disk_xattr_total d;
	uint64_t total, count;

	assert_true(total_of(t, &total, &count));
	assert_true(key_eq(&it->key, &t->key));
	assert_int_equal(it->val_len, sizeof(d));
	memcpy(&d, it->val, sizeof(d));
	assert_int_equal(le64_get(d.total), total);
	assert_int_equal(le64_get(d.count), count);
}

/* The items of [start, end], now and then jumping ahead. */
static void check_walk(struct model *m, struct key start, struct key end, bool jump)
{
	const struct key root_dir = key_inode(1);
	unsigned k = 0, t = 0;
	struct forest_iter *fi;
	uint64_t total, count;
	struct item it;
	struct key to;
	int ret;

	assert_int_equal(forest_iter_open(&fi, m->f.r.bs, &m->f.roots, &start, &end), 0);
	for (;;) {
		if (jump && rnd_below(&m->seed, 8) == 0) {
			to = m->k[rnd_below(&m->seed, KEYS)].key;
			if (forest_iter_seek(fi, &to) == 0 && key_cmp(&to, &start) > 0)
				start = to;
		}
		ret = forest_iter_next(fi, &it);
		if (ret == 0 && key_eq(&it.key, &root_dir))
			continue;
		while (k < KEYS && (!m->k[k].exists || key_cmp(&m->k[k].key, &start) < 0))
			k++;
		while (t < TOTLS &&
		       (!total_of(&m->t[t], &total, &count) || key_cmp(&m->t[t].key, &start) < 0))
			t++;
		if (k < KEYS && key_cmp(&m->k[k].key, &end) <= 0 &&
		    (t == TOTLS || key_cmp(&m->k[k].key, &m->t[t].key) < 0)) {
			assert_int_equal(ret, 0);
			assert_is_key(&it, &m->k[k++]);
		} else if (t < TOTLS && key_cmp(&m->t[t].key, &end) <= 0) {
			assert_int_equal(ret, 0);
			assert_is_total(&it, &m->t[t++]);
		} else {
			assert_int_equal(ret, -ENOENT);
			break;
		}
	}
	forest_iter_close(fi);
}

struct range_check {
	struct model *m;
	struct key got[KEYS + 1];
	size_t nr;
};

static int check_range_item(void *arg, const struct item *it)
{
	struct range_check *rc = arg;
	const struct key root_dir = key_inode(1);

	if (key_eq(&it->key, &root_dir))
		return 0;
	for (unsigned i = 0; i < KEYS; i++) {
		if (key_eq(&rc->m->k[i].key, &it->key)) {
			assert_true(rc->m->k[i].exists);
			assert_is_key(it, &rc->m->k[i]);
			if (rc->nr)
				assert_true(key_cmp(&rc->got[rc->nr - 1], &it->key) < 0);
			rc->got[rc->nr++] = it->key;
			return 0;
		}
	}
	fail_msg("an item that nobody wrote");
	return 0;
}

/* Read a whole lock range piece by piece, as an item cache would. */
static void check_lock_range(struct model *m, struct key lock_start)
{
	const struct key lock_end = key_lock_end(&lock_start);
	struct key at = lock_start, start, end;
	struct range_check rc;
	size_t want;

	for (;;) {
		rc.m = m;
		rc.nr = 0;
		assert_int_equal(forest_read_range(m->f.r.bs, &m->f.roots, &lock_start, &lock_end,
						   &at, &start, &end, check_range_item, &rc),
				 0);
		assert_true(key_cmp(&lock_start, &start) <= 0 && key_cmp(&start, &at) <= 0);
		assert_true(key_cmp(&at, &end) <= 0 && key_cmp(&end, &lock_end) <= 0);
		want = 0;
		for (unsigned i = 0; i < KEYS; i++) {
			if (m->k[i].exists && key_cmp(&start, &m->k[i].key) <= 0 &&
			    key_cmp(&m->k[i].key, &end) <= 0)
				want++;
		}
		assert_int_equal(rc.nr, want);
		if (key_eq(&end, &lock_end))
			break;
		at = key_next(end);
	}
}

static void model_check(struct model *m)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct key lock_start, before = KEY_ONES;
	uint8_t val[ITEM_VAL_MAX];
	uint64_t total, count;
	struct item it;
	unsigned a, b;
	int ret;

	publish(&m->f, rnd_below(&m->seed, 2) ? 0 : 40);
	check_walk(m, zeros, ones, false);
	for (unsigned i = 0; i < 4; i++) {
		a = (unsigned)rnd_below(&m->seed, KEYS);
		b = a + (unsigned)rnd_below(&m->seed, KEYS - a);
		check_walk(m, m->k[a].key, m->k[b].key, i & 1);
	}
	for (unsigned i = 0; i < 40; i++) {
		const struct mkey *k = &m->k[rnd_below(&m->seed, KEYS)];

		ret = forest_lookup(m->f.r.bs, &m->f.roots, &k->key, &it, val);
		assert_int_equal(ret, k->exists ? 0 : -ENOENT);
		if (ret == 0)
			assert_is_key(&it, k);
	}
	for (unsigned i = 0; i < TOTLS; i++) {
		ret = forest_lookup(m->f.r.bs, &m->f.roots, &m->t[i].key, &it, val);
		assert_int_equal(ret, total_of(&m->t[i], &total, &count) ? 0 : -ENOENT);
		if (ret == 0)
			assert_is_total(&it, &m->t[i]);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		lock_start = key_lock_start(&m->k[i].key);
		if (!key_eq(&lock_start, &before))
			check_lock_range(m, lock_start);
		before = lock_start;
	}
}

static void every_path_agrees_with_the_model_while_merges_run(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	unsigned rounds = rig_rounds(2);
	uint64_t seed = rig_seed(5);

	(void)state;
	assert_non_null(m);
	while (rounds-- > 0) {
		model_open(m, test_random(&seed));
		for (unsigned step = 0; step < 14; step++) {
			for (uint64_t n = rnd_below(&m->seed, 300); n > 0; n--) {
				model_write(m);
				model_write_total(m);
			}
			if (!m->merging)
				model_start_merge(m);
			else if (rnd_below(&m->seed, 3))
				model_merge_some(m);
			else
				model_finish_merge(m);
			model_check(m);
		}
		forest_fini(&m->f);
	}
	free(m);
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
		cmocka_unit_test(every_path_agrees_with_the_model_while_merges_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
