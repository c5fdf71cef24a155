/*
 * What the walk over a merge's inputs promises: merge/merge.h, runtime.md 7.4, format.md 11.6.
 */
#include "rig.h"

#include <errno.h>

#include "log/forest.h"
#include "merge/merge.h"

#define FIRST		2u
#define TOTAL		8000u
#define TREES		24u
#define KEYS		1500u
#define FIRST_TOTAL	500u	/* totals are the keys from here to LAST_TOTAL */
#define LAST_TOTAL	799u

struct version {
	bool any;
	uint64_t seq;
	uint64_t total, count;
	uint8_t flags;
	unsigned tree;
};

static struct key key_of(unsigned nr)
{
	const uint8_t zone = nr < FIRST_TOTAL ? ZONE_ORPHAN :
			     nr <= LAST_TOTAL ? ZONE_XATTR_TOTL : ZONE_FS;

	return (struct key){ .zone = zone, .second = nr };
}

static bool is_total(unsigned nr)
{
	return key_of(nr).zone == ZONE_XATTR_TOTL;
}

static void put(struct rig *r, struct disk_btree_root *root, unsigned nr, uint64_t seq,
		uint8_t flags, const void *val, uint16_t len)
{
	const struct item it = { .key = key_of(nr), .seq = seq, .flags = flags, .val = val,
				 .val_len = len };

	assert_int_equal(btree_force(r->bs, &r->al, root, &it), 0);
}

/* Every tree gets versions of random keys; best[] is what must come out. */
static void fill_trees(struct rig *r, struct merge_inputs *in, struct version *best, uint64_t *seed)
{
	uint8_t val[ITEM_VAL_MAX];

	memset(best, 0, KEYS * sizeof(*best));
	for (unsigned t = 0; t < in->nr; t++) {
		unsigned span = 1 + (unsigned)rnd_below(seed, KEYS);
		unsigned from = (unsigned)rnd_below(seed, KEYS - span + 1);

		for (unsigned nr = from; nr < from + span; nr++) {
			/* Few seqs, so that some are equal. */
			uint64_t seq = 1 + rnd_below(seed, 12), total, count;
			uint8_t flags = !is_total(nr) && rnd_below(seed, 3) == 0;
			struct disk_xattr_total d;
			struct version *b = &best[nr];

			if (rnd_below(seed, 3) == 0)
				continue;
			if (is_total(nr)) {
				total = rnd_below(seed, 5) - 2;
				count = rnd_below(seed, 3) - 1;
				d = (struct disk_xattr_total){ le64_of(total), le64_of(count) };
				put(r, &in->roots[t], nr, seq, 0, &d, sizeof(d));
				b->total += total;
				b->count += count;
				if (seq > b->seq)
					b->seq = seq;
				b->any = b->total || b->count;
				continue;
			}
			/* The value says which tree it is of. */
			memset(val, (int)t, sizeof(val));
			put(r, &in->roots[t], nr, seq, flags, val, flags ? 0 : 300);
			if (!b->any || seq > b->seq)
				*b = (struct version){ .any = true, .seq = seq, .flags = flags,
						       .tree = t };
		}
	}
	rig_commit(r);
}

static void assert_version(const struct version *b, unsigned nr, const struct item *it)
{
	struct disk_xattr_total d;
	const uint8_t *val = it->val;

	assert_int_equal(it->seq, b->seq);
	assert_int_equal(it->flags, b->flags);
	if (is_total(nr)) {
		assert_int_equal(it->val_len, sizeof(d));
		memcpy(&d, it->val, sizeof(d));
		assert_int_equal(le64_get(d.total), b->total);
		assert_int_equal(le64_get(d.count), b->count);
	} else if (!b->flags) {
		assert_int_equal(it->val_len, 300);
		assert_int_equal(val[0], b->tree);
		assert_int_equal(val[299], b->tree);
	}
}

static void assert_walk(struct rig *r, const struct merge_inputs *in, const struct version *best,
			unsigned from, unsigned to, const struct key *start, const struct key *end)
{
	struct merge_iter *mi;
	struct item it;
	struct key key;

	assert_int_equal(merge_iter_open(&mi, r->bs, in, start, end), 0);
	for (unsigned nr = from; nr <= to; nr++) {
		if (!best[nr].any)
			continue;
		key = key_of(nr);
		assert_int_equal(merge_iter_next(mi, &it), 0);
		assert_true(key_eq(&it.key, &key));
		assert_version(&best[nr], nr, &it);
	}
	assert_int_equal(merge_iter_next(mi, &it), -ENOENT);
	merge_iter_close(mi);
}

/* Any input, whatever its version. */
static void assert_ends(struct rig *r, const struct merge_inputs *in, const struct key *start,
			const struct key *end)
{
	struct key least = KEY_ONES, greatest = KEY_ZEROS, k;
	struct btree_ref ref;
	bool any = false;
	int ret;

	for (size_t i = 0; i < in->nr; i++) {
		for (k = *start; btree_next(r->bs, &in->roots[i], &k, &ref) == 0;) {
			k = ref.item.key;
			btree_put(r->bs, &ref);
			if (key_cmp(&k, end) > 0)
				break;
			any = true;
			least = key_cmp(&k, &least) < 0 ? k : least;
			greatest = key_cmp(&k, &greatest) > 0 ? k : greatest;
			k = key_next(k);
		}
	}
	ret = merge_inputs_least(r->bs, in, start, end, &k);
	assert_int_equal(ret, any ? 0 : -ENOENT);
	assert_true(!any || key_eq(&k, &least));
	ret = merge_inputs_greatest(r->bs, in, start, end, &k);
	assert_int_equal(ret, any ? 0 : -ENOENT);
	assert_true(!any || key_eq(&k, &greatest));
}

static void each_key_comes_once_in_its_newest_version(void **state)
{
	static const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	static struct version best[KEYS];
	uint64_t seed = rig_seed(1);

	(void)state;
	for (unsigned round = 0; round < rig_rounds(12); round++) {
		struct merge_inputs in = { .nr = round % TREES };
		struct rig r;

		rig_open(&r, FIRST, TOTAL);
		in.roots = calloc(in.nr + 1, sizeof(in.roots[0]));
		assert_non_null(in.roots);
		fill_trees(&r, &in, best, &seed);
		rig_reopen(&r, rnd_below(&seed, 20));
		assert_walk(&r, &in, best, 0, KEYS - 1, &zeros, &ones);
		for (unsigned i = 0; i < 8; i++) {
			unsigned from = (unsigned)rnd_below(&seed, KEYS);
			unsigned to = from + (unsigned)rnd_below(&seed, KEYS - from);
			struct key start = key_of(from), end = key_of(to);

			assert_walk(&r, &in, best, from, to, &start, &end);
			/* Ends between keys. */
			start = from ? key_next(key_of(from - 1)) : zeros;
			end = to + 1 < KEYS ? key_prev(key_of(to + 1)) : ones;
			assert_walk(&r, &in, best, from, to, &start, &end);
			if (i == 0)
				assert_ends(&r, &in, &start, &end);
		}
		merge_inputs_free(&in);
		rig_close(&r);
	}
}

static void a_range_without_keys_is_empty(void **state)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES, a = key_of(5), b = key_of(4);
	const struct key before = key_of(3);
	struct disk_btree_root root = { .height = 0 };
	struct merge_inputs in = { .roots = &root, .nr = 1 };
	struct merge_iter *mi;
	struct item it;
	struct key k;
	struct rig r;

	(void)state;
	rig_open(&r, FIRST, TOTAL);
	assert_int_equal(merge_iter_open(&mi, r.bs, &in, &b, &a), 0);
	assert_int_equal(merge_iter_next(mi, &it), -ENOENT);
	merge_iter_close(mi);
	put(&r, &root, 4, 1, 0, "x", 1);
	assert_int_equal(merge_iter_open(&mi, r.bs, &in, &a, &ones), 0);
	assert_int_equal(merge_iter_next(mi, &it), -ENOENT);
	merge_iter_close(mi);
	assert_int_equal(merge_iter_open(&mi, r.bs, &in, &a, &b), 0);
	assert_int_equal(merge_iter_next(mi, &it), -ENOENT);
	merge_iter_close(mi);
	assert_int_equal(merge_inputs_least(r.bs, &in, &a, &ones, &k), -ENOENT);
	assert_int_equal(merge_inputs_greatest(r.bs, &in, &zeros, &before, &k), -ENOENT);
	rig_close(&r);
}

/* The greatest key of all is a key like any other. */
static void a_walk_reaches_the_greatest_key(void **state)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct disk_btree_root roots[3] = { { .height = 0 } };
	struct merge_inputs in = { .roots = roots, .nr = 3 };
	const struct item last = { .key = KEY_ONES, .seq = 3, .val = "z", .val_len = 1 };
	struct merge_iter *mi;
	struct item it;
	struct rig r;

	(void)state;
	rig_open(&r, FIRST, TOTAL);
	put(&r, &roots[0], 4, 1, 0, "x", 1);
	assert_int_equal(btree_insert(r.bs, &r.al, &roots[1], &last), 0);
	put(&r, &roots[2], 5, 1, 0, "x", 1);
	assert_int_equal(merge_iter_open(&mi, r.bs, &in, &zeros, &ones), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(merge_iter_next(mi, &it), 0);
	assert_true(key_eq(&it.key, &ones));
	assert_int_equal(merge_iter_next(mi, &it), -ENOENT);
	merge_iter_close(mi);
	rig_close(&r);
}

static void a_total_that_cannot_be_one_is_refused(void **state)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct disk_btree_root root = { .height = 0 };
	struct merge_inputs in = { .roots = &root, .nr = 1 };
	struct merge_iter *mi;
	struct item it;
	struct rig r;

	(void)state;
	for (unsigned way = 0; way < 2; way++) {
		rig_open(&r, FIRST, TOTAL);
		root = (struct disk_btree_root){ .height = 0 };
		if (way)
			put(&r, &root, FIRST_TOTAL, 1, 0, "short", 5);
		else
			put(&r, &root, FIRST_TOTAL, 1, ITEM_FLAG_DELETION, "0123456789abcde", 16);
		assert_int_equal(merge_iter_open(&mi, r.bs, &in, &zeros, &ones), 0);
		assert_int_equal(merge_iter_next(mi, &it), -EBADMSG);
		merge_iter_close(mi);
		rig_close(&r);
	}
}

/* Inputs are finalized, before the merge, and have items; nothing else is one. */
static void inputs_are_the_trees_finalized_before_the_merge(void **state)
{
	const struct disk_block_ref ref = { le64_of(50), le64_of(1) };
	const struct disk_btree_root items = { .ref = ref, .height = 2 };
	struct disk_btree_root logs = { .height = 0 };
	struct disk_log_trees lt;
	struct merge_inputs in;
	struct rig r;

	(void)state;
	rig_open(&r, FIRST, TOTAL);
	for (unsigned i = 0; i < 40; i++) {
		bool finalized = i % 4 != 0;
		struct item it = { .key = key_log_trees(1 + i % 3, 1 + i), .val = &lt,
				   .val_len = sizeof(lt) };

		lt = (struct disk_log_trees){ .rid = le64_of(1 + i % 3), .nr = le64_of(1 + i) };
		if (finalized) {
			lt.flags = le64_of(LOG_TREES_FLAG_FINALIZED);
			lt.finalize_seq = le64_of(100 + i);
		}
		if (i % 5 != 0) {
			lt.item_root = items;
			lt.item_root.ref.seq = le64_of(i);
			lt.bloom_ref = ref;
		}
		assert_int_equal(btree_insert(r.bs, &r.al, &logs, &it), 0);
	}
	assert_int_equal(merge_inputs_read(r.bs, &logs, 120, &in), 0);
	assert_int_equal(in.nr, 12);	/* of 20: 15 finalized, 3 of them empty */
	for (size_t i = 0; i < in.nr; i++) {
		uint64_t nr = le64_get(in.roots[i].ref.seq);

		assert_true(nr < 20 && nr % 4 != 0 && nr % 5 != 0);
	}
	merge_inputs_free(&in);
	r.dev.fail_reads_after = 0;
	rig_commit(&r);
	rig_reopen(&r, 4);
	assert_int_equal(merge_inputs_read(r.bs, &logs, 120, &in), -EIO);
	assert_null(in.roots);
	rig_close(&r);
}

static void a_replaced_leaf_is_told(void **state)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct disk_btree_root root = { .height = 0 };
	struct merge_inputs in = { .roots = &root, .nr = 1 };
	struct merge_iter *mi;
	struct item it;
	struct rig r;

	(void)state;
	rig_open(&r, FIRST, TOTAL);
	put(&r, &root, 4, 1, 0, "x", 1);
	rig_commit(&r);
	memset(memdev_at(&r.dev, le64_get(root.ref.blkno)), 0, LARGE_SIZE);
	rig_reopen(&r, 4);
	assert_int_equal(merge_iter_open(&mi, r.bs, &in, &zeros, &ones), 0);
	assert_int_equal(merge_iter_next(mi, &it), -ESTALE);
	merge_iter_close(mi);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_key_comes_once_in_its_newest_version),
		cmocka_unit_test(a_range_without_keys_is_empty),
		cmocka_unit_test(a_walk_reaches_the_greatest_key),
		cmocka_unit_test(a_total_that_cannot_be_one_is_refused),
		cmocka_unit_test(inputs_are_the_trees_finalized_before_the_merge),
		cmocka_unit_test(a_replaced_leaf_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
