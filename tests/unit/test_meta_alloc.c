/* What allocation lists and the transaction allocator promise: alloc/meta_alloc.h, format.md 10.2.
 */
#include "rig.h"

#include <errno.h>

#include "alloc/meta_alloc.h"

#define TOTAL 60000u		/* large blocks of the volume under test */
#define RIG_FIRST 50000u	/* the rig's own; below this is what lists and trees are about */

static struct disk_alloc_list_block *make_block(struct rig *r, struct block_ref *ref,
						struct block **bl)
{
	assert_int_equal(block_new(r->bs, &r->al, MAGIC_ALLOC_LIST, ref, bl), 0);
	return (*bl)->data;
}

/* Put one more block in front of head's chain: nr entries from blkno on, `step` apart, window at
 * `at`. */
static void add_block(struct rig *r, struct disk_alloc_list_head *head, uint64_t blkno, uint32_t nr,
		      uint32_t step, uint32_t at)
{
	struct disk_alloc_list_block *b;
	struct block_ref ref;
	struct block *bl;

	b = make_block(r, &ref, &bl);
	b->next = head->ref;
	b->start = le32_of(at);
	b->nr = le32_of(nr);
	/* Descending, so that who needs order has to make it. */
	for (uint32_t i = 0; i < nr; i++)
		b->blknos[at + i] = le64_of(blkno + (uint64_t)(nr - 1 - i) * step);
	block_put(r->bs, bl);
	head->ref = block_ref_put(ref);
	head->first_nr = le32_of(nr);
	le64_add(&head->total_nr, nr);
}

struct seen {
	uint8_t *map;		/* how often each blkno is an entry */
	size_t blocks, entries;
	bool sorted;
	uint64_t last;
};

static int see_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	struct seen *s = arg;

	(void)ref;
	s->blocks++;
	for (uint32_t i = 0; i < le32_get(b->nr); i++) {
		uint64_t blkno = le64_get(b->blknos[le32_get(b->start) + i]);

		s->sorted = s->sorted && (i == 0 || blkno > s->last);
		s->last = blkno;
		s->entries++;
		if (s->map)
			s->map[blkno]++;
	}
	return 0;
}

static struct seen see(struct rig *r, const struct disk_alloc_list_head *head, uint8_t *map)
{
	struct seen s = { .map = map, .sorted = true };

	assert_int_equal(alloc_list_each(r->bs, head, see_block, &s), 0);
	assert_int_equal(s.entries, le64_get(head->total_nr));
	return s;
}

static bool list_has(struct rig *r, const struct disk_alloc_list_head *head, uint64_t blkno)
{
	uint8_t *map = calloc(TOTAL, 1);
	bool has;

	assert_non_null(map);
	see(r, head, map);
	has = map[blkno];
	free(map);
	return has;
}

/* The transaction's first call: new homes from avail's front, old homes onto freed. */

static void first_use_pays_for_the_lists_from_avail(void **state)
{
	struct disk_alloc_list_head avail = { 0 }, freed = { 0 };
	struct meta_alloc ma;
	uint64_t blkno, old_avail, old_freed;
	struct seen s;
	struct rig r;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	add_block(&r, &avail, 1000, 10, 1, 8175);
	add_block(&r, &freed, 3000, 3, 1, 0);
	rig_commit(&r);
	old_avail = le64_get(avail.ref.blkno);
	old_freed = le64_get(freed.ref.blkno);

	meta_alloc_open(&ma, r.bs, &avail, &freed);
	assert_int_equal(meta_alloc_avail_nr(&ma), 8);
	assert_int_equal(meta_alloc_freed_room(&ma), ALLOC_LIST_ENTRIES - 3 - 2);
	assert_int_equal(block_set_dirty_nr(r.bs), 0);
	assert_int_equal(ma.al.alloc(ma.al.arg, &blkno), 0);
	/* Entries 0 and 1 as they lay on the device, then the least of what is left. */
	assert_int_equal(le64_get(avail.ref.blkno), 1009);
	assert_int_equal(le64_get(freed.ref.blkno), 1008);
	assert_int_equal(blkno, 1000);
	assert_int_equal(block_set_dirty_nr(r.bs), 2);
	s = see(&r, &avail, NULL);
	assert_true(s.sorted);
	assert_int_equal(s.entries, 7);
	assert_int_equal(le32_get(avail.first_nr), 7);
	assert_int_equal(see(&r, &freed, NULL).blocks, 1);
	assert_int_equal(le64_get(freed.total_nr), 5);
	assert_int_equal(le32_get(freed.first_nr), 5);
	assert_true(list_has(&r, &freed, old_avail));
	assert_true(list_has(&r, &freed, old_freed));
	assert_int_equal(meta_alloc_avail_nr(&ma), 7);
	assert_int_equal(meta_alloc_freed_room(&ma), ALLOC_LIST_ENTRIES - 5);
	meta_alloc_close(&ma);

	/* Opened again in the same transaction the lists are dirty already and cost nothing more.
	 */
	meta_alloc_open(&ma, r.bs, &avail, &freed);
	assert_int_equal(ma.al.free(ma.al.arg, 4000), 0);
	assert_int_equal(le64_get(avail.ref.blkno), 1009);
	assert_int_equal(le64_get(avail.total_nr), 7);
	assert_int_equal(le64_get(freed.total_nr), 6);
	meta_alloc_close(&ma);
	assert_int_equal(block_set_write(r.bs), 0);
	rig_reopen(&r, 8);
	assert_int_equal(see(&r, &freed, NULL).entries, 6);
	rig_close(&r);
}

static void freed_gets_a_fresh_block_when_three_quarters_full(void **state)
{
	static const struct { uint32_t nr; bool fresh; } v[] = {
		{ ALLOC_LIST_ENTRIES - 2046, false }, { ALLOC_LIST_ENTRIES - 2045, true },
		{ ALLOC_LIST_ENTRIES, true },
	};
	struct disk_alloc_list_head avail, freed;
	uint64_t old_avail, old_freed;
	struct meta_alloc ma;
	struct seen s;
	struct rig r;

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		avail = freed = (struct disk_alloc_list_head){ 0 };
		rig_open(&r, RIG_FIRST, TOTAL);
		add_block(&r, &avail, 1000, 10, 1, 0);
		add_block(&r, &freed, 10000, v[i].nr, 2, ALLOC_LIST_ENTRIES - v[i].nr);
		rig_commit(&r);
		old_avail = le64_get(avail.ref.blkno);
		old_freed = le64_get(freed.ref.blkno);
		meta_alloc_open(&ma, r.bs, &avail, &freed);
		assert_int_equal(meta_alloc_freed_room(&ma), v[i].fresh ? ALLOC_LIST_ENTRIES - 1 :
				 2046 - 2);
		assert_int_equal(ma.al.free(ma.al.arg, 5), 0);
		s = see(&r, &freed, NULL);
		assert_int_equal(s.blocks, v[i].fresh ? 2 : 1);
		assert_int_equal(le32_get(freed.first_nr), v[i].fresh ? 2 : v[i].nr + 3);
		assert_true(list_has(&r, &freed, old_avail));
		/* A full block stays where it is, so its number is not free. */
		assert_int_equal(list_has(&r, &freed, old_freed), !v[i].fresh);
		assert_true(list_has(&r, &freed, 5));
		meta_alloc_close(&ma);
		rig_close(&r);
	}
}

static void what_is_promised_can_be_used_and_no_more(void **state)
{
	static const struct { uint32_t avail, freed; bool has_freed; } v[] = {
		{ 0, 0, false }, { 1, 0, false }, { 2, 0, false }, { 3, 0, false }, { 3, 5, true },
		{ 500, 8000, true }, { 8185, 6139, true }, { 8185, 0, true },
	};
	struct disk_alloc_list_head avail, freed, before;
	struct meta_alloc ma;
	uint32_t can_alloc, can_free;
	uint64_t blkno;
	struct rig r;

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		for (unsigned frees_first = 0; frees_first < 2; frees_first++) {
			avail = freed = (struct disk_alloc_list_head){ 0 };
			rig_open(&r, RIG_FIRST, TOTAL);
			add_block(&r, &avail, 20000, v[i].avail, 1, 0);
			if (v[i].has_freed)
				add_block(&r, &freed, 30000, v[i].freed, 1, 0);
			rig_commit(&r);
			meta_alloc_open(&ma, r.bs, &avail, &freed);
			can_alloc = meta_alloc_avail_nr(&ma);
			can_free = meta_alloc_freed_room(&ma);
			assert_int_equal(can_alloc, v[i].avail > 2 ? v[i].avail - 2 : 0);
			assert_int_equal(can_free > 0, v[i].avail >= 2);
			for (uint32_t n = 0; frees_first && n < can_free; n++)
				assert_int_equal(ma.al.free(ma.al.arg, 2 + n), 0);
			for (uint32_t n = 0; n < can_alloc; n++) {
				assert_int_equal(ma.al.alloc(ma.al.arg, &blkno), 0);
				assert_in_range(blkno, 20000, 20000 + v[i].avail - 1);
			}
			for (uint32_t n = 0; !frees_first && n < can_free; n++)
				assert_int_equal(ma.al.free(ma.al.arg, 2 + n), 0);
			before = avail;
			assert_int_equal(meta_alloc_avail_nr(&ma), 0);
			assert_int_equal(ma.al.alloc(ma.al.arg, &blkno), -ENOSPC);
			assert_int_equal(meta_alloc_freed_room(&ma), 0);
			assert_int_equal(ma.al.free(ma.al.arg, 9999), -ENOSPC);
			assert_memory_equal(&avail, &before, sizeof(avail));
			meta_alloc_close(&ma);
			if (v[i].avail >= 2)
				see(&r, &freed, NULL);
			rig_close(&r);
		}
	}
}

static void freed_blocks_are_not_handed_out_again(void **state)
{
	struct disk_alloc_list_head avail = { 0 }, freed = { 0 };
	uint8_t *given = calloc(TOTAL, 1);
	struct meta_alloc ma;
	uint64_t blkno;
	struct rig r;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	add_block(&r, &avail, 100, 1000, 3, 0);
	rig_commit(&r);
	meta_alloc_open(&ma, r.bs, &avail, &freed);
	while (meta_alloc_avail_nr(&ma) > 0) {
		assert_int_equal(ma.al.alloc(ma.al.arg, &blkno), 0);
		assert_int_equal(given[blkno]++, 0);
		assert_int_equal(ma.al.free(ma.al.arg, blkno), 0);
	}
	assert_int_equal(ma.al.free(ma.al.arg, 1), -EINVAL);
	meta_alloc_close(&ma);
	rig_close(&r);
	free(given);
}

/* Damage */

static int try_alloc(struct rig *r, struct disk_alloc_list_head avail,
		     struct disk_alloc_list_head freed)
{
	const struct disk_alloc_list_head a = avail, f = freed;
	struct meta_alloc ma;
	uint64_t blkno;
	int ret;

	meta_alloc_open(&ma, r->bs, &avail, &freed);
	ret = ma.al.alloc(ma.al.arg, &blkno);
	if (ret < 0) {
		assert_memory_equal(&a, &avail, sizeof(a));
		assert_memory_equal(&f, &freed, sizeof(f));
	}
	meta_alloc_close(&ma);
	block_set_abort(r->bs);
	return ret;
}

static void damaged_lists_are_refused(void **state)
{
	static const struct { uint32_t start, nr; uint64_t blkno; } v[] = {
		{ ALLOC_LIST_ENTRIES + 1, 0, 100 }, { ALLOC_LIST_ENTRIES, 10, 100 },
		{ 0, ALLOC_LIST_ENTRIES + 1, 100 }, { UINT32_MAX, 10, 100 }, { 8176, 10, 100 },
		{ 0, 10, 0 }, { 0, 10, 1 }, { 0, 10, TOTAL }, { 0, 10, UINT64_MAX },
	};
	struct disk_alloc_list_head good = { 0 }, bad, none = { 0 };
	struct disk_alloc_list_block *b;
	struct block_ref ref;
	struct block *bl;
	struct rig r;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	add_block(&r, &good, 1000, 10, 1, 0);
	rig_commit(&r);
	assert_int_equal(try_alloc(&r, good, none), 0);
	assert_int_equal(try_alloc(&r, good, good), -EBADMSG);	/* the lists share a block */

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		b = make_block(&r, &ref, &bl);
		b->start = le32_of(v[i].start);
		b->nr = le32_of(v[i].nr);
		for (uint32_t e = 0; e < ALLOC_LIST_ENTRIES; e++)
			b->blknos[e] = le64_of(e == 5 ? v[i].blkno : 2000 + e);
		assert_int_equal(alloc_list_check(b, TOTAL), -EBADMSG);
		block_put(r.bs, bl);
		rig_commit(&r);
		bad = (struct disk_alloc_list_head){ .ref = block_ref_put(ref),
						     .total_nr = le64_of(10),
						     .first_nr = le32_of(10) };
		rig_reopen(&r, 8);
		assert_int_equal(try_alloc(&r, bad, none), -EBADMSG);
		if (v[i].nr == 10)
			assert_int_equal(try_alloc(&r, good, bad), -EBADMSG);
	}

	bad = good;
	bad.first_nr = le32_of(9);
	assert_int_equal(try_alloc(&r, bad, none), -EBADMSG);
	bad.first_nr = le32_of(11);
	assert_int_equal(try_alloc(&r, bad, none), -EBADMSG);
	bad = good;
	bad.flags = le32_of(2);
	assert_int_equal(try_alloc(&r, bad, none), -EBADMSG);
	bad = (struct disk_alloc_list_head){ .total_nr = le64_of(1) };
	assert_int_equal(try_alloc(&r, good, bad), -EBADMSG);
	bad = good;
	bad.ref.seq = le64_of(7);
	assert_int_equal(try_alloc(&r, bad, none), -ESTALE);
	/* A head that says more than a block can hold does not wrap. */
	bad = good;
	bad.first_nr = le32_of(UINT32_MAX);
	bad.total_nr = le64_of(UINT64_MAX);
	assert_int_equal(try_alloc(&r, good, bad), -EBADMSG);
	rig_close(&r);
}

/* Filling and emptying */

static struct disk_alloc_root tree_of(struct rig *r, uint64_t start, uint64_t len)
{
	struct disk_alloc_root root = { 0 };

	assert_int_equal(free_extents_insert(r->bs, &r->al, &root, (struct extent){ start, len }),
			 0);
	return root;
}

static void fill_brings_a_list_to_its_target(void **state)
{
	struct disk_alloc_list_head head = { 0 }, before;
	struct disk_alloc_root root, dry = { 0 };
	struct meta_alloc ma;
	uint64_t blkno;
	struct rig r;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	root = tree_of(&r, 1000, 10000);
	assert_int_equal(alloc_list_fill(r.bs, &r.al, &head, &dry, 4092, 8185), 0);
	assert_int_equal(le64_get(head.ref.blkno), 0);
	assert_int_equal(alloc_list_fill(r.bs, &r.al, &head, &root, 4092, 8186), -EINVAL);
	assert_int_equal(alloc_list_fill(r.bs, &r.al, &head, &root, 1028, 1028), 0);
	assert_int_equal(le32_get(head.first_nr), 1028);
	assert_int_equal(le64_get(root.total_len), 10000 - 1028);
	/* Enough is left alone, also its block. */
	rig_commit(&r);
	before = head;
	assert_int_equal(alloc_list_fill(r.bs, &r.al, &head, &root, 1028, 8185), 0);
	assert_memory_equal(&before, &head, sizeof(head));
	assert_int_equal(block_set_dirty_nr(r.bs), 0);
	/* The window has moved away from the front; it is filled all the same. */
	{
		struct disk_alloc_list_head freed = { 0 };

		meta_alloc_open(&ma, r.bs, &head, &freed);
		for (unsigned i = 0; i < 500; i++)
			assert_int_equal(ma.al.alloc(ma.al.arg, &blkno), 0);
		meta_alloc_close(&ma);
		assert_int_equal(block_set_write(r.bs), 0);
	}
	assert_int_equal(le32_get(head.first_nr), 526);
	assert_int_equal(alloc_list_fill(r.bs, &r.al, &head, &root, 1028, 8185), 0);
	assert_int_equal(le32_get(head.first_nr), 8185);
	assert_int_equal(see(&r, &head, NULL).entries, 8185);
	/* A dry tree is not an error. */
	head = (struct disk_alloc_list_head){ 0 };
	assert_int_equal(alloc_list_fill(r.bs, &r.al, &head, &root, 4092, 8185), 0);
	assert_int_equal(le32_get(head.first_nr), 10000 - 1028 - (8185 - 526));
	assert_int_equal(le64_get(root.total_len), 0);
	/* What lies beyond the device is not put in a list. */
	root = tree_of(&r, TOTAL - 1, 2);
	assert_int_equal(alloc_list_fill(r.bs, &r.al, &head, &root, 8185, 8185), -EUCLEAN);
	rig_close(&r);
}

static void empty_turns_lists_into_extents(void **state)
{
	struct disk_alloc_list_head head = { 0 };
	struct disk_alloc_root root = { 0 };
	struct extent ext;
	unsigned calls;
	struct rig r;
	int ret;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	assert_int_equal(alloc_list_empty(r.bs, &r.al, &head, &root, 5), 0);
	add_block(&r, &head, 1000, 100, 1, 0);
	add_block(&r, &head, 0, 0, 1, 0);	/* an emptied block in the middle */
	add_block(&r, &head, 1100, 8185, 1, 0);
	rig_commit(&r);
	assert_int_equal(alloc_list_empty(r.bs, &r.al, &head, &root, 1), -EINPROGRESS);
	assert_int_equal(le64_get(head.total_nr), 100);
	assert_int_equal(le32_get(head.first_nr), 0);
	assert_int_equal(le64_get(root.total_len), 8185);
	rig_commit(&r);
	assert_int_equal(alloc_list_empty(r.bs, &r.al, &head, &root, 9), 0);
	assert_int_equal(le64_get(head.ref.blkno), 0);
	assert_int_equal(le64_get(head.total_nr), 0);
	assert_int_equal(free_extents_next(r.bs, &root, 0, &ext), 0);
	assert_int_equal(ext.start, 1000);
	assert_int_equal(ext.len, 8285);
	rig_commit(&r);
	/* The list blocks are free again: all that is in use is the tree. */
	assert_int_equal(rig_used_nr(&r), 1);

	/* Nothing but single blocks: several calls, each with a bounded number of extents. */
	add_block(&r, &head, 20001, 8185, 2, 0);
	rig_commit(&r);
	/* A caller with little room sets a lower bound itself; none at all does nothing. */
	assert_int_equal(alloc_list_empty_some(r.bs, &r.al, &head, &root, 100, 0), -EINPROGRESS);
	assert_int_equal(le64_get(head.total_nr), 8185);
	assert_int_equal(alloc_list_empty_some(r.bs, &r.al, &head, &root, 100, 10), -EINPROGRESS);
	assert_int_equal(le64_get(head.total_nr), 8175);
	see(&r, &head, NULL);
	rig_commit(&r);
	for (calls = 1; ; calls++) {
		uint64_t before = le64_get(head.total_nr);

		ret = alloc_list_empty(r.bs, &r.al, &head, &root, 100);
		assert_true(before - le64_get(head.total_nr) <= 2048);
		rig_commit(&r);
		if (ret != -EINPROGRESS)
			break;
		see(&r, &head, NULL);
	}
	assert_int_equal(ret, 0);
	assert_int_equal(calls, 4);
	assert_int_equal(le64_get(root.total_len), 8285 + 8185);
	rig_close(&r);
}

static void empty_refuses_what_is_free_already(void **state)
{
	struct disk_alloc_list_head head = { 0 };
	struct disk_alloc_root root;
	struct block_ref ref;
	struct block *bl;
	struct rig r;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	root = tree_of(&r, 1005, 1);
	add_block(&r, &head, 1000, 10, 1, 0);
	rig_commit(&r);
	assert_int_equal(alloc_list_empty(r.bs, &r.al, &head, &root, 9), -EUCLEAN);
	block_set_abort(r.bs);
	/* An entry twice in one block. */
	root = (struct disk_alloc_root){ 0 };
	head = (struct disk_alloc_list_head){ 0 };
	add_block(&r, &head, 1000, 10, 0, 0);
	assert_int_equal(alloc_list_empty(r.bs, &r.al, &head, &root, 9), -EUCLEAN);
	/* A head that promises more than its chain has. */
	root = (struct disk_alloc_root){ 0 };
	head = (struct disk_alloc_list_head){ 0 };
	add_block(&r, &head, 1000, 10, 1, 0);
	head.total_nr = le64_of(11);
	assert_int_equal(alloc_list_empty(r.bs, &r.al, &head, &root, 9), -EBADMSG);
	/* And one whose chain goes on beyond its total. */
	root = (struct disk_alloc_root){ 0 };
	head = (struct disk_alloc_list_head){ 0 };
	add_block(&r, &head, 1000, 10, 1, 0);
	ref = block_ref_get(&head.ref);
	add_block(&r, &head, 2000, 10, 1, 0);
	head.total_nr = le64_of(10);
	assert_int_equal(alloc_list_empty(r.bs, &r.al, &head, &root, 9), -EBADMSG);
	assert_int_equal(block_get(r.bs, ref, MAGIC_ALLOC_LIST, &bl), 0);
	block_put(r.bs, bl);
	rig_close(&r);
}

static void splice_puts_one_chain_before_the_other(void **state)
{
	struct disk_alloc_list_head dst = { 0 }, src = { 0 }, empty = { 0 }, moved;
	uint8_t *map = calloc(TOTAL, 1);
	struct seen s;
	struct rig r;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	for (unsigned i = 0; i < 2; i++)
		add_block(&r, &dst, 1000 + 1000 * i, 50, 3, 0);
	for (unsigned i = 0; i < 3; i++)
		add_block(&r, &src, 10000 + 1000 * i, 70 + i, 3, 0);
	dst.flags = le32_of(ALLOC_FLAG_LOW);
	rig_commit(&r);

	assert_int_equal(alloc_list_splice(r.bs, &r.al, &dst, &src), 0);
	assert_memory_equal(&src, &empty, sizeof(src));
	assert_int_equal(le32_get(dst.flags), ALLOC_FLAG_LOW);
	/* Block by block, so the last one of src is in front. */
	assert_int_equal(le32_get(dst.first_nr), 70);
	s = see(&r, &dst, map);
	assert_int_equal(s.blocks, 5);
	assert_int_equal(s.entries, 100 + 213);
	for (uint64_t b = 0; b < TOTAL; b++)
		assert_true(map[b] <= 1);
	assert_int_equal(rig_used_nr(&r), 5);
	rig_commit(&r);
	rig_reopen(&r, 8);
	see(&r, &dst, NULL);

	/* Nothing into something, something into nothing: no block is copied. */
	moved = dst;
	assert_int_equal(alloc_list_splice(r.bs, &r.al, &dst, &empty), 0);
	assert_memory_equal(&dst, &moved, sizeof(dst));
	assert_int_equal(alloc_list_splice(r.bs, &r.al, &src, &dst), 0);
	assert_memory_equal(&src.ref, &moved.ref, sizeof(src.ref));
	assert_int_equal(le64_get(src.total_nr), 313);
	assert_int_equal(block_set_dirty_nr(r.bs), 0);
	rig_close(&r);
	free(map);
}

static void a_long_chain_is_spliced_in_pieces_that_cost_what_they_say(void **state)
{
	struct disk_alloc_list_head dst = { 0 }, src = { 0 }, empty = { 0 };
	unsigned calls = 0, entries;
	struct seen s;
	struct rig r;
	int ret;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	add_block(&r, &dst, 1000, 9, 3, 0);
	for (unsigned i = 0; i < 23; i++)
		add_block(&r, &src, 2000 + 100 * i, i % 7, 3, 0);
	entries = (unsigned)le64_get(src.total_nr);
	rig_commit(&r);
	do {
		ret = alloc_list_splice_some(r.bs, &r.al, &dst, &src, 5);
		calls++;
		assert_true(ret == 0 || ret == -EINPROGRESS);
		assert_true(block_set_dirty_nr(r.bs) <= 5);
		/* Consistent at each step, also where nothing is in memory any more. */
		rig_commit(&r);
		rig_reopen(&r, 8);
		s = see(&r, &dst, NULL);
		assert_int_equal(s.blocks, calls < 5 ? 1 + 5 * calls : 24);
		if (ret < 0)
			assert_int_equal(see(&r, &src, NULL).entries + s.entries, entries + 9);
	} while (ret == -EINPROGRESS);
	assert_int_equal(calls, 5);
	assert_memory_equal(&src, &empty, sizeof(src));
	assert_int_equal(s.entries, entries + 9);
	rig_close(&r);
}

static void a_chain_that_bites_its_tail_is_refused(void **state)
{
	struct disk_alloc_list_head head = { 0 }, dst = { 0 };
	struct disk_alloc_list_block *b;
	struct seen s = { 0 };
	struct block *bl;
	struct rig r;

	(void)state;
	rig_open(&r, RIG_FIRST, TOTAL);
	add_block(&r, &head, 1000, 0, 1, 0);
	b = NULL;
	assert_int_equal(block_get(r.bs, block_ref_get(&head.ref), MAGIC_ALLOC_LIST, &bl), 0);
	b = bl->data;
	for (unsigned i = 0; i < 4; i++)
		add_block(&r, &head, 2000 + 100 * i, 0, 1, 0);
	b->next = head.ref;
	block_put(r.bs, bl);
	add_block(&r, &dst, 5000, 4, 1, 0);
	rig_commit(&r);
	assert_int_equal(alloc_list_each(r.bs, &head, see_block, &s), -EBADMSG);
	assert_int_equal(alloc_list_splice(r.bs, &r.al, &dst, &head), -EBADMSG);
	assert_int_equal(block_set_dirty_nr(r.bs), 0);
	rig_close(&r);
}

/*
 * The whole circle as a server and its mounts run it: two pairs of lists in turn, a mount's lists
 * that are refilled and reclaimed, two trees; a tree that grows and shrinks uses the blocks.  After
 * every commit each block of the volume is in exactly one place.
 */
struct circle {
	struct rig r;		/* its allocator gives only the first blocks */
	struct disk_alloc_root meta[2];
	struct disk_alloc_list_head avail[2], freed[2];
	struct disk_alloc_list_head mount_avail, mount_freed;
	struct disk_btree_root tree;
	unsigned active;
	uint8_t *map;
};

static void own(struct circle *c, uint64_t blkno)
{
	assert_in_range(blkno, META_FIRST_BLKNO, c->r.total - 1);
	assert_int_equal(c->map[blkno]++, 0);
}

static int own_list_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	struct circle *c = arg;

	own(c, ref.blkno);
	for (uint32_t i = 0; i < le32_get(b->nr); i++)
		own(c, le64_get(b->blknos[le32_get(b->start) + i]));
	return 0;
}

static int own_tree_block(void *arg, const struct btree_visit *v)
{
	assert_int_equal(v->err, 0);
	own(arg, v->ref.blkno);
	return 0;
}

static int own_extent(void *arg, const struct item *it)
{
	if (it->key.zone == ZONE_FREE_BY_BLKNO) {
		for (uint64_t i = 0; i < it->key.second; i++)
			own(arg, it->key.first - i);
	}
	return 0;
}

static void check_every_block_has_one_place(struct circle *c)
{
	const struct disk_alloc_list_head *heads[] = { &c->avail[0],	&c->avail[1],
						       &c->freed[0],	&c->freed[1],
						       &c->mount_avail, &c->mount_freed };
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;

	memset(c->map, 0, c->r.total);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		assert_int_equal(alloc_list_each(c->r.bs, heads[i], own_list_block, c), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(btree_visit_blocks(c->r.bs, &c->meta[i].root, own_tree_block, c),
				 0);
		assert_int_equal(
			btree_each(c->r.bs, &c->meta[i].root, &zeros, &ones, own_extent, c), 0);
	}
	assert_int_equal(btree_visit_blocks(c->r.bs, &c->tree, own_tree_block, c), 0);
	for (uint64_t b = META_FIRST_BLKNO; b < c->r.total; b++)
		assert_int_equal(c->map[b], 1);
}

static void mount_transaction(struct circle *c, uint64_t *seed)
{
	struct meta_alloc ma;
	uint8_t val[ITEM_VAL_MAX];
	struct item it;
	int ret;

	memset(val, 7, sizeof(val));
	meta_alloc_open(&ma, c->r.bs, &c->mount_avail, &c->mount_freed);
	for (unsigned i = 0;
	     i < 300 && meta_alloc_avail_nr(&ma) > 50 && meta_alloc_freed_room(&ma) > 50; i++) {
		it = (struct item){ .key = { .zone = ZONE_FS, .first = rnd_below(seed, 3000) },
				    .val = val, .val_len = sizeof(val) };
		if (rnd_below(seed, 2))
			ret = btree_delete(c->r.bs, &ma.al, &c->tree, &it.key);
		else
			ret = btree_force(c->r.bs, &ma.al, &c->tree, &it);
		assert_true(ret == 0 || ret == -ENOENT);
	}
	meta_alloc_close(&ma);
	assert_int_equal(block_set_write(c->r.bs), 0);
}

static void server_transaction(struct circle *c)
{
	const unsigned a = c->active, o = !a;
	const bool swap = le64_get(c->meta[1].total_len) > le64_get(c->meta[0].total_len);
	struct disk_alloc_root *from = &c->meta[swap], *to = &c->meta[!swap];
	struct meta_alloc ma;
	int ret;

	meta_alloc_open(&ma, c->r.bs, &c->avail[a], &c->freed[a]);
	assert_int_equal(alloc_list_fill(c->r.bs, &ma.al, &c->avail[o], from, 600, 700), 0);
	ret = alloc_list_empty(c->r.bs, &ma.al, &c->freed[o], to, 2);
	assert_true(ret == 0 || ret == -EINPROGRESS);
	assert_int_equal(alloc_list_splice(c->r.bs, &ma.al, &c->freed[o], &c->mount_freed), 0);
	assert_int_equal(alloc_list_fill(c->r.bs, &ma.al, &c->mount_avail, from, 500, 800), 0);
	meta_alloc_close(&ma);
	assert_int_equal(block_set_write(c->r.bs), 0);
	c->active = o;
}

static void no_block_is_lost_or_owned_twice(void **state)
{
	uint64_t seed = rig_seed(11);
	unsigned rounds = rig_rounds(60);
	struct circle c = { 0 };

	(void)state;
	rig_open(&c.r, META_FIRST_BLKNO, 8000);
	c.map = calloc(c.r.total, 1);
	/* Like mkfs: blocks 2, 3, 4 are the list and the trees, then what they say is free. */
	c.meta[0] = tree_of(&c.r, 1000, 3500);
	c.meta[1] = tree_of(&c.r, 4500, 3500);
	add_block(&c.r, &c.avail[0], 5, 995, 1, 0);
	assert_int_equal(c.r.ma.cursor, 5);
	rig_commit(&c.r);
	check_every_block_has_one_place(&c);
	while (rounds-- > 0) {
		server_transaction(&c);
		check_every_block_has_one_place(&c);
		mount_transaction(&c, &seed);
		check_every_block_has_one_place(&c);
		rig_reopen(&c.r, rnd_below(&seed, 3));
	}
	free(c.map);
	rig_close(&c.r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_use_pays_for_the_lists_from_avail),
		cmocka_unit_test(freed_gets_a_fresh_block_when_three_quarters_full),
		cmocka_unit_test(what_is_promised_can_be_used_and_no_more),
		cmocka_unit_test(freed_blocks_are_not_handed_out_again),
		cmocka_unit_test(damaged_lists_are_refused),
		cmocka_unit_test(fill_brings_a_list_to_its_target),
		cmocka_unit_test(empty_turns_lists_into_extents),
		cmocka_unit_test(empty_refuses_what_is_free_already),
		cmocka_unit_test(splice_puts_one_chain_before_the_other),
		cmocka_unit_test(a_long_chain_is_spliced_in_pieces_that_cost_what_they_say),
		cmocka_unit_test(a_chain_that_bites_its_tail_is_refused),
		cmocka_unit_test(no_block_is_lost_or_owned_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
