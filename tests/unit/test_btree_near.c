/*
 * What changes near the last one promise (btree_parts.h): the tree becomes the same, block for block, as by the same
 * changes that each begin at the root.  Two trees on devices and allocators of the same numbers; runs of changes
 * in the order of keys, mixed, long enough to split and join at every level; after each run all blocks are compared.
 */
#include "btree_model.h"

#include <stdlib.h>

#include "btree/btree_parts.h"

#define KEYS	80000u

struct pair {
	struct fix *near, *far;
	struct btree_near at;
	uint64_t rng;
	unsigned fast;		/* changes that went where the one before did */
};

static unsigned any_below(struct pair *p, unsigned nr)
{
	return (unsigned)(test_random(&p->rng) % nr);
}

static struct key nth_key(unsigned nr)
{
	return (struct key){ .zone = ZONE_FS, .first = nr / 8, .type = 4, .second = nr % 8 };
}

static void pair_open(struct pair *p, uint64_t seed)
{
	*p = (struct pair){ .near = fix_open(2000), .far = fix_open(2000), .rng = test_env("SEED", seed) };
}

static void pair_close(struct pair *p)
{
	btree_near_end(p->near->bs, &p->at);
	fix_close(p->near);
	fix_close(p->far);
}

/* All that was changed is the same in both, and then it is written, or is as if it had never been. */
static void compare_and_end(struct pair *p, bool commit)
{
	struct block_write *a, *b;
	size_t a_nr, b_nr;

	btree_near_end(p->near->bs, &p->at);
	assert_memory_equal(&p->near->root, &p->far->root, sizeof(p->far->root));
	assert_int_equal(block_set_gather(p->near->bs, &a, &a_nr), 0);
	assert_int_equal(block_set_gather(p->far->bs, &b, &b_nr), 0);
	assert_int_equal(a_nr, b_nr);
	for (size_t i = 0; i < a_nr; i++) {
		assert_int_equal(a[i].blkno, b[i].blkno);
		assert_memory_equal(a[i].data, b[i].data, LARGE_SIZE);
	}
	free(a);
	free(b);
	if (commit) {
		assert_int_equal(block_set_write(p->near->bs), 0);
		assert_int_equal(block_set_write(p->far->bs), 0);
		memalloc_commit(&p->near->ma);
		memalloc_commit(&p->far->ma);
		p->near->committed_root = p->near->root;
		p->far->committed_root = p->far->root;
	} else {
		block_set_abort(p->near->bs);
		block_set_abort(p->far->bs);
		memalloc_abort(&p->near->ma);
		memalloc_abort(&p->far->ma);
		p->near->root = p->near->committed_root;
		p->far->root = p->far->committed_root;
	}
}

static int look(struct pair *p, const struct key *key)
{
	struct btree_ref a, b;
	int ret = btree_near_lookup(p->near->bs, &p->near->root, &p->at, key, &a);

	assert_int_equal(ret, btree_lookup(p->far->bs, &p->far->root, key, &b));
	if (ret == 0) {
		assert_int_equal(a.item.seq, b.item.seq);
		assert_int_equal(a.item.val_len, b.item.val_len);
		if (a.item.val_len)
			assert_memory_equal(a.item.val, b.item.val, a.item.val_len);
	}
	btree_put(p->near->bs, &a);
	btree_put(p->far->bs, &b);
	return ret;
}

static void change(struct pair *p, unsigned nr, bool remove)
{
	static const uint8_t val[ITEM_VAL_MAX] = { 1, 2, 3 };
	const struct key key = nth_key(nr);
	const struct block *leaf = p->at.leaf;
	struct item it = { .key = key, .seq = test_random(&p->rng), .val = val,
			   .val_len = (uint16_t)any_below(p, ITEM_VAL_MAX + 1) };
	int ret;

	if (remove) {
		ret = btree_near_delete(p->near->bs, &p->near->ma.al, &p->near->root, &p->at, &key, NULL);
		assert_int_equal(ret, btree_delete(p->far->bs, &p->far->ma.al, &p->far->root, &key));
		assert_true(ret == 0 || ret == -ENOENT);
	} else {
		assert_int_equal(btree_near_force(p->near->bs, &p->near->ma.al, &p->near->root, &p->at, &it,
						  NULL), 0);
		assert_int_equal(btree_force(p->far->bs, &p->far->ma.al, &p->far->root, &it), 0);
	}
	p->fast += leaf && leaf == p->at.leaf;
}

/* From a random place on, with steps of a random length: so many percent are deletions. */
static void run(struct pair *p, unsigned changes, unsigned percent)
{
	unsigned nr = any_below(p, KEYS), step = 1 + any_below(p, 3), back = any_below(p, 20);

	for (unsigned i = 0; i < changes; i++) {
		if (any_below(p, 4) == 0)
			look(p, &(struct key){ .zone = ZONE_FS, .first = nr / 8, .type = any_below(p, 2) ? 4 : 5,
					       .second = nr % 8 });
		change(p, nr, any_below(p, 100) < percent);
		nr = any_below(p, 100) < back ? (nr + KEYS - any_below(p, 40)) % KEYS : (nr + step) % KEYS;
	}
}

static void runs_leave_the_same_tree(void **state)
{
	static const unsigned percents[] = { 0, 5, 50, 95, 100 };
	struct pair p;
	unsigned changes = 0;

	(void)state;
	pair_open(&p, 1);
	for (unsigned i = 0; i < KEYS; i += 2)
		change(&p, i, false);
	compare_and_end(&p, true);
	p.fast = 0;
	for (unsigned round = 0; round < test_env("ROUNDS", 60); round++) {
		unsigned nr = 1 + any_below(&p, 3000);

		run(&p, nr, percents[any_below(&p, 5)]);
		changes += nr;
		compare_and_end(&p, any_below(&p, 8) != 0);
	}
	/* most of them: that is what it is for */
	print_message("%u of %u changes did not begin at the root\n", p.fast, changes);
	assert_true(p.fast > changes / 2);
	pair_close(&p);
}

static void a_tree_grows_and_goes_in_order(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p, 2);
	for (unsigned i = 0; i < KEYS; i++)
		change(&p, i, false);
	compare_and_end(&p, true);
	for (unsigned i = 0; i < KEYS; i++) {
		change(&p, i, true);
		if (i % 20000 == 19999)
			compare_and_end(&p, true);
	}
	assert_int_equal(p.near->root.height, 0);
	pair_close(&p);
}

/* A root that must stay, and room that ends: as without, but that what needs no room is not refused. */
struct room {
	struct fix *f;
	size_t max;
};

static bool has_room(void *arg, unsigned blocks)
{
	const struct room *r = arg;

	return block_set_dirty_nr(r->f->bs) + blocks <= r->max;
}

static void bounds_are_kept(void **state)
{
	struct pair p;
	struct room room;
	struct btree_bounds bounds = { .arg = &room, .has_room = has_room, .keep_root = true };
	unsigned done = 0;
	int ret = 0;

	(void)state;
	pair_open(&p, 3);
	for (unsigned i = 0; i < 20000; i++)
		change(&p, i, false);
	compare_and_end(&p, true);
	room = (struct room){ .f = p.near, .max = 40 };
	for (unsigned i = 0; i < 20000 && ret == 0; i++) {
		const struct key key = nth_key(i);
		const struct item it = { .key = key, .seq = i };

		ret = i % 3 ? btree_near_delete(p.near->bs, &p.near->ma.al, &p.near->root, &p.at, &key, &bounds) :
			      btree_near_force(p.near->bs, &p.near->ma.al, &p.near->root, &p.at, &it, &bounds);
		assert_true(block_set_dirty_nr(p.near->bs) <= 40);
		done += ret == 0;
	}
	assert_int_equal(ret, 1);
	assert_true(done > 1000);
	/* what was refused is as it was, and what came before it is done */
	for (unsigned i = 0; i < 20000; i++) {
		const struct key key = nth_key(i);
		struct btree_ref ref;

		ret = btree_near_lookup(p.near->bs, &p.near->root, &p.at, &key, &ref);
		assert_int_equal(ret, i < done && i % 3 ? -ENOENT : 0);
		btree_put(p.near->bs, &ref);
	}
	btree_near_end(p.near->bs, &p.at);
	block_set_abort(p.near->bs);
	memalloc_abort(&p.near->ma);
	pair_close(&p);
}

/* No such item can be: nothing has happened. */
static void impossible_items_are_refused(void **state)
{
	static const uint8_t val[ITEM_VAL_MAX + 1];
	struct item it = { .key = nth_key(3), .seq = 1, .val = val, .val_len = ITEM_VAL_MAX + 1 };
	struct pair p;

	(void)state;
	pair_open(&p, 4);
	change(&p, 2, false);
	for (unsigned near = 0; near < 2; near++) {
		assert_int_equal(btree_near_force(p.near->bs, &p.near->ma.al, &p.near->root, &p.at, &it, NULL),
				 -EINVAL);
		it.val_len = 1;
		it.flags = 0x80;
		assert_int_equal(btree_near_force(p.near->bs, &p.near->ma.al, &p.near->root, &p.at, &it, NULL),
				 -EINVAL);
		it.val_len = ITEM_VAL_MAX + 1;
		change(&p, 4, false);
	}
	compare_and_end(&p, true);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_leave_the_same_tree),
		cmocka_unit_test(a_tree_grows_and_goes_in_order),
		cmocka_unit_test(bounds_are_kept),
		cmocka_unit_test(impossible_items_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
