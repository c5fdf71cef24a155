/*
 * Trees of b-tree blocks.  Promises: a tree holds exactly what was put into it, in order, through
 * any mix of changes, commits, aborts and faults; every block of it is sound, referenced once and
 * accounted for; malformed or replaced blocks are told as such and never followed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "btree/btree.h"
#include "csum/csum.h"
#include "memdev.h"

#define FSID		77ull
#define TOTAL		20000u
#define KEYS_NR		4000u

/* What a tree must hold.  Key numbers are in the order of keys. */
struct model {
	bool present[KEYS_NR];
	uint16_t len[KEYS_NR];
	uint64_t seq[KEYS_NR];
	uint8_t flags[KEYS_NR];
};

struct fix {
	struct memdev md;
	struct memalloc ma;
	struct block_set *bs;
	struct disk_btree_root root;
	struct disk_btree_root committed_root;
	struct model m;
	struct model committed;
	size_t clean_max;
	uint64_t rng;
};

static struct key key_nr(unsigned nr)
{
	/* The first and the last key there are; every field matters somewhere in between. */
	if (nr == 0)
		return KEY_ZEROS;
	if (nr == KEYS_NR - 1)
		return KEY_ONES;
	return (struct key){
		.zone = (uint8_t)(1 + nr / 1000),
		.first = nr / 100 % 10,
		.type = (uint8_t)(nr / 50 % 2),
		.second = nr / 10 % 5,
		.third = nr % 10 / 2,
		.fourth = (uint8_t)(nr % 2),
	};
}

static struct fix *fix_open(size_t clean_max)
{
	struct fix *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->rng = test_env("SEED", 1);
	f->clean_max = clean_max;
	memdev_init(&f->md, f->rng);
	memalloc_init(&f->ma, TOTAL);
	assert_int_equal(block_set_open(&f->bs, &f->md.dev, FSID, TOTAL, clean_max), 0);
	return f;
}

static void fix_close(struct fix *f)
{
	block_set_close(f->bs);
	memalloc_fini(&f->ma);
	memdev_fini(&f->md);
	free(f);
}

static void commit(struct fix *f)
{
	assert_int_equal(block_set_write(f->bs), 0);
	memalloc_commit(&f->ma);
	f->committed_root = f->root;
	f->committed = f->m;
}

static void abort_all(struct fix *f)
{
	block_set_abort(f->bs);
	memalloc_abort(&f->ma);
	f->root = f->committed_root;
	f->m = f->committed;
}

/* A set that has cached nothing: what follows is read from the device. */
static void reopen(struct fix *f)
{
	block_set_close(f->bs);
	assert_int_equal(block_set_open(&f->bs, &f->md.dev, FSID, TOTAL, f->clean_max), 0);
}

static void fill_value(uint8_t *val, unsigned len, unsigned nr, uint64_t seq)
{
	uint64_t rng = (uint64_t)nr << 40 ^ seq;

	for (unsigned i = 0; i < len; i += 8) {
		uint64_t v = test_random(&rng);

		memcpy(val + i, &v, len - i < 8 ? len - i : 8);
	}
}

static void assert_item(const struct model *m, unsigned nr, const struct item *it)
{
	struct key key = key_nr(nr);
	uint8_t want[ITEM_VAL_MAX];

	assert_true(m->present[nr]);
	assert_true(key_eq(&key, &it->key));
	assert_int_equal(it->val_len, m->len[nr]);
	assert_int_equal(it->seq, m->seq[nr]);
	assert_int_equal(it->flags, m->flags[nr]);
	fill_value(want, it->val_len, nr, it->seq);
	if (it->val_len)
		assert_memory_equal(it->val, want, it->val_len);
}

/* --- the shape of a tree --- */

struct shape {
	uint8_t seen[TOTAL];
	unsigned blocks;
	unsigned leaves;
	unsigned below_lwm;
	bool single_child_root;
};

static int visit_shape(void *arg, const struct btree_visit *v)
{
	const struct key ones = KEY_ONES;
	struct shape *s = arg;
	const struct disk_btree_block *b;
	const char *why;
	struct item it;

	assert_int_equal(v->err, 0);
	b = v->bl->data;
	assert_int_equal(s->seen[v->ref.blkno]++, 0);
	assert_int_equal(v->bl->blkno, v->ref.blkno);
	assert_int_equal(btb_level(b), v->level_expected);
	if (btb_check(b, &why))
		fail_msg("block %llu: %s", (unsigned long long)v->ref.blkno, why);
	assert_true(btb_avl_is_balanced(b));
	if (btb_nr(b)) {
		btb_item(b, btb_first(b), &it);
		assert_true(key_cmp(&it.key, &v->low) >= 0);
		btb_item(b, btb_last(b), &it);
		assert_true(key_cmp(&it.key, &v->high) <= 0);
	}
	if (btb_level(b) > 0) {
		/* 9.6: parents end in the key their own parent has for them, ones on the right
		 * edge. */
		assert_true(key_eq(&it.key, &v->high));
		if (s->blocks == 0)
			assert_true(key_eq(&it.key, &ones));
		for (int slot = btb_first(b); slot >= 0; slot = btb_next(b, slot)) {
			btb_item(b, slot, &it);
			assert_int_equal(it.seq, 0);
			assert_int_equal(it.flags, 0);
		}
		if (s->blocks == 0)
			assert_true(btb_nr(b) > 1);
	} else {
		s->leaves++;
	}
	if (s->blocks > 0 && le16_get(b->total_item_bytes) < BTREE_LWM_BYTES)
		s->below_lwm++;
	s->blocks++;
	return 0;
}

static void assert_shape(struct fix *f, struct shape *s)
{
	memset(s, 0, sizeof(*s));
	assert_int_equal(btree_visit_blocks(f->bs, &f->root, visit_shape, s), 0);
	for (unsigned i = 0; i < TOTAL; i++)
		assert_int_equal(s->seen[i], f->ma.now[i] == MEMALLOC_USED);
	assert_int_equal(f->root.height == 0, s->blocks == 0);
}

struct walk {
	const struct model *m;
	unsigned nr;		/* the next key number that may come */
};

static int walk_item(void *arg, const struct item *it)
{
	struct walk *w = arg;

	while (w->nr < KEYS_NR && !w->m->present[w->nr])
		w->nr++;
	assert_true(w->nr < KEYS_NR);
	assert_item(w->m, w->nr, it);
	w->nr++;
	return 0;
}

static void assert_tree(struct fix *f)
{
	struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct walk w = { .m = &f->m };
	static struct shape s;

	assert_int_equal(btree_each(f->bs, &f->root, &zeros, &ones, walk_item, &w), 0);
	for (; w.nr < KEYS_NR; w.nr++)
		assert_false(f->m.present[w.nr]);
	assert_shape(f, &s);
}

/* --- one operation on tree and model --- */

static void assert_neighbours(struct fix *f, unsigned nr)
{
	struct key key = key_nr(nr);
	struct btree_ref ref;
	int want = (int)nr;
	int ret;

	ret = btree_lookup(f->bs, &f->root, &key, &ref);
	assert_int_equal(ret, f->m.present[nr] ? 0 : -ENOENT);
	if (ret == 0)
		assert_item(&f->m, nr, &ref.item);
	btree_put(f->bs, &ref);

	while (want < (int)KEYS_NR && !f->m.present[want])
		want++;
	ret = btree_next(f->bs, &f->root, &key, &ref);
	assert_int_equal(ret, want < (int)KEYS_NR ? 0 : -ENOENT);
	if (ret == 0)
		assert_item(&f->m, (unsigned)want, &ref.item);
	btree_put(f->bs, &ref);

	want = (int)nr;
	while (want >= 0 && !f->m.present[want])
		want--;
	ret = btree_prev(f->bs, &f->root, &key, &ref);
	assert_int_equal(ret, want >= 0 ? 0 : -ENOENT);
	if (ret == 0)
		assert_item(&f->m, (unsigned)want, &ref.item);
	btree_put(f->bs, &ref);
}

enum op { OP_INSERT, OP_UPDATE, OP_FORCE, OP_DELETE, OPS_NR };

/* Whatever fails otherwise than by the key's presence is returned and has not touched the model. */
static int do_op(struct fix *f, enum op op, unsigned nr, uint16_t len, uint64_t seq)
{
	uint8_t val[ITEM_VAL_MAX];
	struct item it = { .key = key_nr(nr), .seq = seq, .val = val, .val_len = len,
			   .flags = seq % 5 == 0 };
	size_t dirty = block_set_dirty_nr(f->bs);
	bool present = f->m.present[nr];
	int expect = 0;
	int ret = 0;

	fill_value(val, len, nr, seq);
	switch (op) {
	case OP_INSERT:
		expect = present ? -EEXIST : 0;
		ret = btree_insert(f->bs, &f->ma.al, &f->root, &it);
		break;
	case OP_UPDATE:
		expect = present ? 0 : -ENOENT;
		ret = btree_update(f->bs, &f->ma.al, &f->root, &it);
		break;
	case OP_FORCE:
		ret = btree_force(f->bs, &f->ma.al, &f->root, &it);
		break;
	case OP_DELETE:
		expect = present ? 0 : -ENOENT;
		ret = btree_delete(f->bs, &f->ma.al, &f->root, &it.key);
		break;
	case OPS_NR:
		fail();
	}
	if (ret == -ENOSPC || ret == -EIO || ret == -ESTALE)
		return ret;
	assert_int_equal(ret, expect);
	if (ret < 0) {
		assert_int_equal(block_set_dirty_nr(f->bs), dirty);
		return 0;
	}
	f->m.present[nr] = op != OP_DELETE;
	f->m.len[nr] = len;
	f->m.seq[nr] = seq;
	f->m.flags[nr] = it.flags;
	return 0;
}

static uint64_t below(struct fix *f, uint64_t n)
{
	return test_random(&f->rng) % n;
}

static uint16_t random_len(struct fix *f)
{
	switch (below(f, 6)) {
	case 0:
		return 0;
	case 1:
		return ITEM_VAL_MAX;
	case 2:
		return (uint16_t)below(f, 32);
	default:
		return (uint16_t)below(f, ITEM_VAL_MAX + 1);
	}
}

/* Phases of growing and of shrinking, over the whole key space and over a narrow piece of it. */
static int random_op(struct fix *f, unsigned round)
{
	bool shrinking = round / 4000 % 2;
	bool narrow = round / 1000 % 4 == 3;
	unsigned nr = narrow ? 1000 + (unsigned)below(f, 300) : (unsigned)below(f, KEYS_NR);
	uint64_t dice = below(f, 10);
	enum op op;

	if (dice < (shrinking ? 7u : 2u))
		op = OP_DELETE;
	else
		op = (enum op)below(f, OP_DELETE);
	return do_op(f, op, nr, random_len(f), round + 1);
}

/* --- tests --- */

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

static int count_items(void *arg, const struct item *it)
{
	(void)it;
	++*(int *)arg;
	return 0;
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
