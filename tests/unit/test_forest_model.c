/*
 * The forest against a model: what a volume holds after random writes by several mounts, with merges
 * that start, do some keys, go on and finish.  Every read path gives the model's state at every step.
 */
#include "forest_rig.h"

#define MOUNTS 3u
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_path_agrees_with_the_model_while_merges_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
