/*
 * For tests of lib/core/btree: a tree and what it must hold, one operation on both, and the walk that
 * proves that every block of it is sound, referenced once and accounted for.
 */
#ifndef SCOUTFS_TEST_BTREE_MODEL_H
#define SCOUTFS_TEST_BTREE_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "btree/btree.h"
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

static inline struct key key_nr(unsigned nr)
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

static inline struct fix *fix_open(size_t clean_max)
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

static inline void fix_close(struct fix *f)
{
	block_set_close(f->bs);
	memalloc_fini(&f->ma);
	memdev_fini(&f->md);
	free(f);
}

static inline void commit(struct fix *f)
{
	assert_int_equal(block_set_write(f->bs), 0);
	memalloc_commit(&f->ma);
	f->committed_root = f->root;
	f->committed = f->m;
}

static inline void abort_all(struct fix *f)
{
	block_set_abort(f->bs);
	memalloc_abort(&f->ma);
	f->root = f->committed_root;
	f->m = f->committed;
}

/* A set that has cached nothing: what follows is read from the device. */
static inline void reopen(struct fix *f)
{
	block_set_close(f->bs);
	assert_int_equal(block_set_open(&f->bs, &f->md.dev, FSID, TOTAL, f->clean_max), 0);
}

static inline void fill_value(uint8_t *val, unsigned len, unsigned nr, uint64_t seq)
{
	uint64_t rng = (uint64_t)nr << 40 ^ seq;

	for (unsigned i = 0; i < len; i += 8) {
		uint64_t v = test_random(&rng);

		memcpy(val + i, &v, len - i < 8 ? len - i : 8);
	}
}

static inline void assert_item(const struct model *m, unsigned nr, const struct item *it)
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

static inline int visit_shape(void *arg, const struct btree_visit *v)
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

static inline void assert_shape(struct fix *f, struct shape *s)
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

static inline int walk_item(void *arg, const struct item *it)
{
	struct walk *w = arg;

	while (w->nr < KEYS_NR && !w->m->present[w->nr])
		w->nr++;
	assert_true(w->nr < KEYS_NR);
	assert_item(w->m, w->nr, it);
	w->nr++;
	return 0;
}

static inline void assert_tree(struct fix *f)
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

static inline void assert_neighbours(struct fix *f, unsigned nr)
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
static inline int do_op(struct fix *f, enum op op, unsigned nr, uint16_t len, uint64_t seq)
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

static inline uint64_t below(struct fix *f, uint64_t n)
{
	return test_random(&f->rng) % n;
}

static inline uint16_t random_len(struct fix *f)
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
static inline int random_op(struct fix *f, unsigned round)
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

static inline int count_items(void *arg, const struct item *it)
{
	(void)it;
	++*(int *)arg;
	return 0;
}

#endif
