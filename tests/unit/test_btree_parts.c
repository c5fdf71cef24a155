/*
 * What trees in parts promise: btree/btree_parts.h, format.md 9.6, 9.7, 14.1.  Changes keep within
 * their bounds and leave a valid tree where they stop; a lowest parent can be taken out, changed
 * and put back; a tree is freed little by little, each block once, and none is read after it was
 * freed.
 */
#include "rig.h"

#include <errno.h>

#include "btree/btree_parts.h"

#define FIRST		2u
#define TOTAL		6000u
#define STEP		10u		/* between the keys a tree is built of */
#define BIG		36000u		/* items of VAL bytes: three levels */
#define VAL		880u

static const uint8_t bytes[ITEM_VAL_MAX] = { 1, 2, 3 };

static struct key key_at(uint64_t n)
{
	return (struct key){ .zone = 16, .first = n };
}

static struct item item_at(uint64_t n, uint64_t seq)
{
	return (struct item){ .key = key_at(n), .seq = seq, .val = bytes, .val_len = VAL };
}

static void build(struct rig *r, struct disk_btree_root *root, unsigned nr)
{
	struct item it;

	rig_open(r, FIRST, TOTAL);
	*root = (struct disk_btree_root){ .height = 0 };
	for (unsigned i = 0; i < nr; i++) {
		it = item_at(STEP * i, 1);
		assert_int_equal(btree_insert(r->bs, &r->al, root, &it), 0);
	}
	rig_commit(r);
}

static int visit_sound(void *arg, const struct btree_visit *v)
{
	uint64_t *nr = arg;
	const char *why;
	struct item it;

	assert_int_equal(v->err, 0);
	assert_int_equal(btb_check(v->bl->data, &why), 0);
	if (v->level_expected > 0) {
		btb_item(v->bl->data, btb_last(v->bl->data), &it);
		assert_true(key_eq(&it.key, &v->high));
	}
	(*nr)++;
	return 0;
}

/* Sound, and nothing else is in use. */
static uint64_t check_tree(struct rig *r, const struct disk_btree_root *root)
{
	uint64_t nr = 0;

	assert_int_equal(btree_visit_blocks(r->bs, root, visit_sound, &nr), 0);
	assert_int_equal(rig_used_nr(r), nr);
	return nr;
}

static bool is_there(struct rig *r, const struct disk_btree_root *root, uint64_t n, uint64_t *seq)
{
	const struct key key = key_at(n);
	struct btree_ref ref;
	int ret = btree_lookup(r->bs, root, &key, &ref);

	if (ret == 0) {
		*seq = ref.item.seq;
		btree_put(r->bs, &ref);
	}
	assert_true(ret == 0 || ret == -ENOENT);
	return ret == 0;
}

/* An allocator and bounds that allow `budget` blocks each way and know when more is taken. */
struct bounded {
	struct rig *r;
	struct blkno_alloc al;
	struct btree_bounds bounds;
	unsigned budget, allocs, frees;
};

static int bounded_alloc(void *arg, uint64_t *blkno)
{
	struct bounded *b = arg;

	assert_true(b->allocs++ < b->budget);
	return b->r->al.alloc(b->r->al.arg, blkno);
}

static int bounded_free(void *arg, uint64_t blkno)
{
	struct bounded *b = arg;

	assert_true(b->frees++ < b->budget);
	return b->r->al.free(b->r->al.arg, blkno);
}

static bool bounded_has_room(void *arg, unsigned blocks)
{
	const struct bounded *b = arg;

	return b->allocs + blocks <= b->budget && b->frees + blocks <= b->budget;
}

static void bounded_open(struct bounded *b, struct rig *r, bool keep_root)
{
	*b = (struct bounded){
		.r = r,
		.al = { .arg = b, .alloc = bounded_alloc, .free = bounded_free },
		.bounds = { .arg = b, .has_room = bounded_has_room, .keep_root = keep_root },
	};
}

static void refill(struct bounded *b, unsigned budget)
{
	b->budget = budget;
	b->allocs = 0;
	b->frees = 0;
}

static void a_change_stops_before_it_needs_more_than_it_may_have(void **state)
{
	uint64_t seed = rig_seed(1), seq = 1, old, now;
	unsigned stopped = 0, done = 0;
	struct disk_btree_root root;
	struct bounded b;
	struct rig r;

	(void)state;
	build(&r, &root, 400);
	bounded_open(&b, &r, false);
	for (unsigned i = 0; i < 12000; i++) {
		/* Growing, then shrinking to nothing. */
		bool deletes = rnd_below(&seed, 100) < (i < 5000 ? 20 : 90), was, is;
		uint64_t n = rnd_below(&seed, 4000);
		struct item it = item_at(n, ++seq);
		int ret;

		it.val_len = (uint16_t)rnd_below(&seed, VAL);
		refill(&b, (unsigned)rnd_below(&seed, 9));
		old = 0;
		was = is_there(&r, &root, n, &old);
		if (deletes)
			ret = btree_delete_bounded(r.bs, &b.al, &root, &it.key, &b.bounds);
		else
			ret = btree_force_bounded(r.bs, &b.al, &root, &it, &b.bounds);
		now = 0;
		is = is_there(&r, &root, n, &now);
		if (ret == 1 || ret == -ENOENT) {
			assert_int_equal(is, was);
			assert_int_equal(now, old);
		} else {
			assert_int_equal(ret, 0);
			assert_int_equal(is, !deletes);
			assert_true(deletes || now == seq);
		}
		stopped += ret == 1;
		done += ret == 0;
		if (rnd_below(&seed, 4) == 0)
			rig_commit(&r);
		if (i % 500 == 0)
			check_tree(&r, &root);
	}
	assert_true(stopped > 100);
	assert_true(done > 1000);
	check_tree(&r, &root);
	rig_close(&r);
}

/* The first item makes a tree, and the last takes it away: that needs a block too. */
static void a_tree_is_neither_made_nor_removed_without_room(void **state)
{
	struct disk_btree_root root;
	struct item it = item_at(1, 1);
	struct bounded b;
	struct rig r;

	(void)state;
	build(&r, &root, 0);
	bounded_open(&b, &r, false);
	refill(&b, 0);
	assert_int_equal(btree_force_bounded(r.bs, &b.al, &root, &it, &b.bounds), 1);
	assert_int_equal(root.height, 0);
	refill(&b, 1);
	assert_int_equal(btree_force_bounded(r.bs, &b.al, &root, &it, &b.bounds), 0);
	refill(&b, 0);
	assert_int_equal(btree_delete_bounded(r.bs, &b.al, &root, &it.key, &b.bounds), 1);
	assert_int_equal(root.height, 1);
	refill(&b, 1);
	b.bounds.keep_root = true;
	assert_int_equal(btree_delete_bounded(r.bs, &b.al, &root, &it.key, &b.bounds), 1);
	b.bounds.keep_root = false;
	assert_int_equal(btree_delete_bounded(r.bs, &b.al, &root, &it.key, &b.bounds), 0);
	assert_int_equal(root.height, 0);
	rig_close(&r);
}

/* Take the lowest parent of key out, force or delete until it stops, and put it back. */
static uint64_t work_below_parent(struct rig *r, struct disk_btree_root *root, bool deletes,
				  uint64_t n)
{
	const struct key from = key_at(n);
	struct disk_btree_root sub;
	struct bounded b;
	struct key end;
	int ret = 0;

	assert_int_equal(btree_parent_get(r->bs, root, &from, &sub, &end), 0);
	assert_int_equal(sub.height, 2);
	bounded_open(&b, r, true);
	refill(&b, TOTAL);
	while (n <= end.first && ret == 0) {
		struct item it = item_at(n, 2);

		if (deletes)
			ret = btree_delete_bounded(r->bs, &b.al, &sub, &it.key, &b.bounds);
		else
			ret = btree_force_bounded(r->bs, &b.al, &sub, &it, &b.bounds);
		assert_int_equal(sub.height, 2);
		if (ret == -ENOENT)
			ret = 0;
		n += ret == 0;
	}
	assert_true(ret == 0 || ret == 1);
	assert_int_equal(btree_parent_replace(r->bs, &r->al, root, &from, &sub), 0);
	rig_commit(r);
	check_tree(r, root);
	return n;
}

static void a_parent_that_stops_changes_goes_on_when_it_is_rebalanced(void **state)
{
	const uint64_t last = STEP * BIG;
	struct disk_btree_root root;
	uint64_t n = 0, was, at = 0, seq;
	struct bounded b;
	struct rig r;
	unsigned stops = 0;

	(void)state;
	build(&r, &root, BIG);
	assert_int_equal(root.height, 3);
	bounded_open(&b, &r, false);
	/* First twice as many items, then none. */
	for (int deletes = 0; deletes < 2; deletes++) {
		for (n = 0; n < (deletes ? last : 2 * BIG); n = at) {
			const struct key key = key_at(n);
			int ret = 1;

			while (ret == 1) {
				refill(&b, BTREE_DESCENT_BLOCKS(root.height) + 1);
				ret = btree_parent_rebalance(r.bs, &b.al, &root, &key, &b.bounds);
				rig_commit(&r);
			}
			assert_int_equal(ret, 0);
			if (root.height < 3)
				break;
			was = n;
			at = work_below_parent(&r, &root, deletes, n);
			assert_true(at > was);
			stops++;
		}
		for (uint64_t i = 0; i < n; i += 777)
			assert_int_equal(is_there(&r, &root, i, &seq), !deletes);
		at = 0;
	}
	/* More often than there are parents. */
	assert_true(stops > 6);
	assert_int_equal(root.height, 2);
	rig_close(&r);
}

static void a_parent_in_good_shape_is_left_alone(void **state)
{
	const struct key key = key_at(5);
	struct disk_btree_root root, before;
	struct bounded b;
	struct rig r;

	(void)state;
	build(&r, &root, BIG);
	before = root;
	bounded_open(&b, &r, false);
	assert_int_equal(btree_parent_rebalance(r.bs, &b.al, &root, &key, &b.bounds), 0);
	assert_int_equal(block_set_dirty_nr(r.bs), 0);
	assert_memory_equal(&root, &before, sizeof(root));
	rig_close(&r);
}

/* Not made by us, but legal: below it no parent has a neighbour to be joined with. */
static void a_root_with_one_child_gives_way_to_it(void **state)
{
	const struct key key = key_at(5), ones = KEY_ONES;
	struct disk_block_ref child;
	const struct item only = { .key = ones, .val = &child, .val_len = sizeof(child) };
	struct disk_btree_root root;
	struct block_ref ref;
	struct block *bl;
	struct bounded b;
	struct rig r;

	(void)state;
	build(&r, &root, 700);
	child = root.ref;
	assert_int_equal(block_new(r.bs, &r.al, MAGIC_BTREE, &ref, &bl), 0);
	btb_init(bl->data, 2);
	btb_insert(bl->data, &only);
	block_put(r.bs, bl);
	root = (struct disk_btree_root){ .ref = block_ref_put(ref), .height = 3 };
	rig_commit(&r);
	bounded_open(&b, &r, false);
	refill(&b, 0);
	assert_int_equal(btree_parent_rebalance(r.bs, &b.al, &root, &key, &b.bounds), 1);
	refill(&b, 1);
	assert_int_equal(btree_parent_rebalance(r.bs, &b.al, &root, &key, &b.bounds), 0);
	assert_int_equal(root.height, 2);
	check_tree(&r, &root);
	rig_close(&r);
}

static void only_what_fits_takes_a_parents_place(void **state)
{
	const struct key first = key_at(0), last = key_at(STEP * BIG), ones = KEY_ONES;
	struct disk_btree_root root, before, a, b, bad;
	struct block_ref ref;
	struct block *bl;
	struct item it;
	struct key end;
	struct rig r;

	(void)state;
	build(&r, &root, BIG);
	assert_int_equal(btree_parent_get(r.bs, &root, &first, &a, &end), 0);
	assert_true(end.first < STEP * BIG);
	assert_int_equal(btree_parent_get(r.bs, &root, &last, &b, &end), 0);
	assert_true(key_eq(&end, &ones));
	before = root;
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &first, &b), -EBADMSG);
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &last, &a), -EBADMSG);
	bad = a;
	bad.height = 1;
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &first, &bad), -EBADMSG);
	bad.height = 3;
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &first, &bad), -EBADMSG);
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &first, &root), -EBADMSG);
	/* A leaf, all of whose keys belong there. */
	ref = block_ref_get(&a.ref);
	assert_int_equal(block_get(r.bs, ref, MAGIC_BTREE, &bl), 0);
	btb_item(bl->data, btb_first(bl->data), &it);
	memcpy(&bad.ref, it.val, sizeof(bad.ref));
	bad.height = 1;
	block_put(r.bs, bl);
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &first, &bad), -EBADMSG);
	bad = a;
	bad.ref.seq = le64_of(7);
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &first, &bad), -ESTALE);
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &first, &a), 0);
	assert_memory_equal(&root, &before, sizeof(root));
	assert_int_equal(block_set_dirty_nr(r.bs), 0);
	/* A parent that ends before its end. */
	ref = block_ref_get(&b.ref);
	assert_int_equal(block_dirty(r.bs, &r.al, &ref, MAGIC_BTREE, &bl), 0);
	btb_delete(bl->data, btb_find(bl->data, &ones));
	block_put(r.bs, bl);
	bad = (struct disk_btree_root){ .ref = block_ref_put(ref), .height = 2 };
	assert_int_equal(btree_parent_replace(r.bs, &r.al, &root, &last, &bad), -EBADMSG);
	assert_memory_equal(&root, &before, sizeof(root));
	rig_close(&r);
}

/* --- freeing --- */

struct freed_below {
	struct rig *r;
	struct key from;
};

static int look_if_freed(void *arg, const struct btree_visit *v)
{
	const struct freed_below *f = arg;
	bool is_freed = key_cmp(&v->high, &f->from) < 0 || key_eq(&f->from, &KEY_ONES);

	assert_int_equal(f->r->ma.now[v->ref.blkno] == MEMALLOC_USED, !is_freed);
	if (is_freed)	/* somebody else writes there now: nobody may look again */
		memset(memdev_at(&f->r->dev, v->ref.blkno), 0xee, LARGE_SIZE);
	return is_freed && v->level_expected == 0 ? 1 : 0;
}

static void free_in_pieces(unsigned items, unsigned height, unsigned piece)
{
	const struct key ones = KEY_ONES;
	uint64_t seed = rig_seed(items), total;
	struct key from = KEY_ZEROS, committed = KEY_ZEROS;
	struct disk_btree_root root;
	struct block_set *reader;
	unsigned calls = 0, blocks;
	struct bounded b;
	struct memdev copy;
	struct rig r;
	int ret = 0;

	build(&r, &root, items);
	assert_int_equal(root.height, height);
	total = rig_used_nr(&r);
	/* What the tree was, for the test to look at while the blocks are overwritten. */
	memdev_init(&copy, 1);
	for (uint64_t i = FIRST; i < TOTAL && i < r.dev.blocks_nr; i++)
		if (r.dev.blocks[i])
			memcpy(memdev_at(&copy, i), r.dev.blocks[i], LARGE_SIZE);
	assert_int_equal(block_set_open(&reader, &copy.dev, RIG_FSID, TOTAL, 64), 0);
	bounded_open(&b, &r, false);

	while (ret == 0) {
		struct freed_below f = { .r = &r };

		assert_true(calls++ < 20 * total + 50);
		rig_reopen(&r, 4);
		refill(&b, (unsigned)rnd_below(&seed, piece));
		blocks = (unsigned)rnd_below(&seed, piece);
		ret = btree_free_some(r.bs, &b.al, &root, &from, &blocks, &b.bounds);
		assert_true(ret == 0 || ret == 1);
		assert_int_equal(block_set_dirty_nr(r.bs), 0);
		if (rnd_below(&seed, 3) == 0) {
			memalloc_abort(&r.ma);
			from = committed;
			ret = 0;
			continue;
		}
		memalloc_commit(&r.ma);
		committed = from;
		assert_int_equal(ret == 1, key_eq(&from, &ones));
		f.from = from;
		assert_int_equal(btree_visit_blocks(reader, &root, look_if_freed, &f), 0);
	}
	assert_int_equal(rig_used_nr(&r), 0);
	/* Again is not an error and frees nothing. */
	refill(&b, 0);
	blocks = 1;
	assert_int_equal(btree_free_some(r.bs, &b.al, &root, &from, &blocks, &b.bounds), 1);
	block_set_close(reader);
	memdev_fini(&copy);
	rig_close(&r);
}

static void a_tree_is_freed_in_pieces_each_block_once(void **state)
{
	(void)state;
	free_in_pieces(0, 0, 10);
	free_in_pieces(10, 1, 3);
	free_in_pieces(700, 2, 10);
	free_in_pieces(BIG, 3, 500);
}

static void a_parent_with_keys_that_are_nobodys_is_not_freed_past(void **state)
{
	const struct key ones = KEY_ONES;
	struct disk_btree_root root;
	struct key from = KEY_ZEROS;
	unsigned blocks = 1000;
	struct bounded b;
	struct block *bl;
	struct block_ref ref;
	struct rig r;

	(void)state;
	build(&r, &root, 700);
	ref = block_ref_get(&root.ref);
	assert_int_equal(block_dirty(r.bs, &r.al, &ref, MAGIC_BTREE, &bl), 0);
	btb_delete(bl->data, btb_find(bl->data, &ones));
	block_put(r.bs, bl);
	root.ref = block_ref_put(ref);
	rig_commit(&r);
	bounded_open(&b, &r, false);
	refill(&b, 1000);
	assert_int_equal(btree_free_some(r.bs, &b.al, &root, &from, &blocks, &b.bounds), -EBADMSG);
	rig_close(&r);
}

static void a_leaf_says_how_far_it_reaches(void **state)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct key at = KEY_ZEROS, low, high, next = KEY_ZEROS;
	struct disk_btree_root root;
	struct block *leaf;
	struct rig r;
	unsigned nr = 0, items = 0;

	(void)state;
	build(&r, &root, 700);
	for (;; at = next) {
		assert_int_equal(btree_leaf_get(r.bs, &root, &at, &leaf, &low, &high), 0);
		assert_true(key_eq(&low, nr ? &next : &zeros));
		items += btb_nr(leaf->data);
		nr++;
		block_put(r.bs, leaf);
		if (key_eq(&high, &ones))
			break;
		next = key_next(high);
	}
	assert_int_equal(items, 700);
	assert_true(nr > 5);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_change_stops_before_it_needs_more_than_it_may_have),
		cmocka_unit_test(a_tree_is_neither_made_nor_removed_without_room),
		cmocka_unit_test(a_parent_that_stops_changes_goes_on_when_it_is_rebalanced),
		cmocka_unit_test(a_parent_in_good_shape_is_left_alone),
		cmocka_unit_test(a_root_with_one_child_gives_way_to_it),
		cmocka_unit_test(only_what_fits_takes_a_parents_place),
		cmocka_unit_test(a_tree_is_freed_in_pieces_each_block_once),
		cmocka_unit_test(a_parent_with_keys_that_are_nobodys_is_not_freed_past),
		cmocka_unit_test(a_leaf_says_how_far_it_reaches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
