/* What srch files promise: log/srch.h, format.md 13, 20.30. */
#include "rig.h"

#include <errno.h>

#include "log/srch.h"

#define TOTAL 30000u

static void entries_are_encoded_as_the_format_says(void **state)
{
	static const struct {
		struct srch_entry e;
		uint8_t len;
		uint8_t bytes[SRCH_ENTRY_MAX_BYTES];
	} v[] = {
		{ { 0x1234, 1024, 0 }, 6, { 0x22, 0x00, 0x68, 0x24, 0x00, 0x08 } },
		{ { 0x1234, 1025, 0 }, 3, { 0x10, 0x00, 0x02 } },
		{ { 0x1234, 1025, 7 }, 3, { 0x00, 0x01, 0x0e } },
		{ { 0x1234, 1025, 7 }, 2, { 0x00, 0x00 } },
		{ { UINT64_MAX, 1, 0 }, 7, { 0x22, 0x01, 0x69, 0x24, 0xff, 0x07, 0x0d } },
		{ { 0x8000000000000000, 65536, 300 },
		  15,
		  { 0x38, 0x02, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0x01,
		    0x58, 0x02 } },
		{ { 0, 5, 0x8000000000000000 }, 21, { 0x38, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff,
						      0xff, 0xff, 0xff, 0xf5, 0xff, 0x01, 0xa8,
						      0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } },
	};
	struct srch_entry prev = { 0 }, got = { 0 };
	uint8_t buf[SRCH_ENTRY_MAX_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		assert_int_equal(srch_entry_encode(&prev, &v[i].e, buf), v[i].len);
		assert_memory_equal(buf, v[i].bytes, v[i].len);
		assert_int_equal(srch_entry_decode(v[i].bytes, sizeof(v[i].bytes), &got), v[i].len);
		assert_memory_equal(&got, &v[i].e, sizeof(got));
		prev = v[i].e;
	}
}

static void any_entry_comes_back_and_no_prefix_of_it_does(void **state)
{
	uint64_t seed = rig_seed(3);
	struct srch_entry prev = { 0 }, e, got;
	uint8_t buf[SRCH_ENTRY_MAX_BYTES];
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		e = (struct srch_entry){ test_random(&seed) >> rnd_below(&seed, 64),
					 test_random(&seed) >> rnd_below(&seed, 64),
					 test_random(&seed) >> rnd_below(&seed, 64) };
		if (rnd_below(&seed, 8) == 0)
			e.hash = ~e.hash;
		len = srch_entry_encode(&prev, &e, buf);
		assert_in_range(len, 2, SRCH_ENTRY_MAX_BYTES);
		for (size_t cut = 0; cut < len; cut++) {
			got = prev;
			assert_int_equal(srch_entry_decode(buf, cut, &got), -EBADMSG);
			assert_memory_equal(&got, &prev, sizeof(got));
		}
		assert_int_equal(srch_entry_decode(buf, len, &got), len);
		assert_memory_equal(&got, &e, sizeof(got));
		prev = e;
	}
	/* Lengths above 8 mean 8. */
	memset(buf, 0, sizeof(buf));
	buf[0] = 0xff;
	buf[1] = 0xff;
	buf[2] = 2;
	got = (struct srch_entry){ 10, 20, 30 };
	assert_int_equal(srch_entry_decode(buf, sizeof(buf), &got), 26);
	assert_int_equal(got.hash, 11);
	assert_int_equal(got.ino, 20);
}

/* Building files */

static void init_block(struct disk_srch_block *b)
{
	memset((uint8_t *)b + sizeof(b->hdr), 0, sizeof(*b) - sizeof(b->hdr));
}

static struct disk_srch_entry to_disk(struct srch_entry e)
{
	return (struct disk_srch_entry){ le64_of(e.hash), le64_of(e.ino), le64_of(e.id) };
}

/* false: the block is full */
static bool append(struct disk_srch_block *b, struct srch_entry e)
{
	struct srch_entry tail = srch_entry_get(&b->tail), first = srch_entry_get(&b->first),
			  last = srch_entry_get(&b->last);
	uint32_t bytes = le32_get(b->entry_bytes), nr = le32_get(b->entry_nr);

	if (bytes > SRCH_LAST_START)
		return false;
	bytes += (uint32_t)srch_entry_encode(&tail, &e, b->entries + bytes);
	if (nr == 0 || srch_entry_cmp(&e, &first) < 0)
		b->first = to_disk(e);
	if (nr == 0 || srch_entry_cmp(&e, &last) > 0)
		b->last = to_disk(e);
	b->tail = to_disk(e);
	b->entry_bytes = le32_of(bytes);
	b->entry_nr = le32_of(nr + 1);
	return true;
}

static struct srch_entry nth(uint64_t i, bool sorted)
{
	/* Scattered, or slowly rising. */
	return sorted ? (struct srch_entry){ i / 1000, i % 1000, i } :
			(struct srch_entry){ i * 0x9e3779b97f4a7c15ull, 1024 + i % 97, i };
}

/* A file of nr entries in as many leaves as it takes, under one parent if there is more than one.
 */
static struct disk_srch_file make_file(struct rig *r, uint64_t nr, bool sorted)
{
	struct disk_srch_file sf = { 0 };
	struct disk_block_ref refs[64] = { 0 };
	struct disk_srch_block *b = NULL;
	struct disk_srch_parent *parent;
	struct block *bl = NULL;
	struct block_ref ref;
	uint64_t blocks = 0;

	for (uint64_t i = 0; i < nr; i++) {
		struct srch_entry e = nth(i, sorted), first, last;

		if (!b || !append(b, e)) {
			if (bl)
				block_put(r->bs, bl);
			assert_int_equal(block_new(r->bs, &r->al, MAGIC_SRCH_BLOCK, &ref, &bl), 0);
			assert_in_range(blocks, 0, 63);
			refs[blocks++] = block_ref_put(ref);
			b = bl->data;
			assert_true(append(b, e));
		}
		first = srch_entry_get(&sf.first);
		last = srch_entry_get(&sf.last);
		if (i == 0 || srch_entry_cmp(&e, &first) < 0)
			sf.first = to_disk(e);
		if (i == 0 || srch_entry_cmp(&e, &last) > 0)
			sf.last = to_disk(e);
	}
	block_put(r->bs, bl);
	sf.ref = refs[0];
	if (blocks > 1) {
		assert_int_equal(block_new(r->bs, &r->al, MAGIC_SRCH_PARENT, &ref, &bl), 0);
		parent = bl->data;
		memcpy(parent->refs, refs, blocks * sizeof(refs[0]));
		block_put(r->bs, bl);
		sf.ref = block_ref_put(ref);
	}
	sf.blocks = le64_of(blocks);
	sf.entries = le64_of(nr);
	sf.height = (uint8_t)srch_height(blocks);
	rig_commit(r);
	return sf;
}

struct count {
	uint64_t nr, stop_at;
	bool sorted;
};

static int count_entry(void *arg, const struct srch_entry *e)
{
	struct count *c = arg;
	struct srch_entry want = nth(c->nr, c->sorted);

	assert_memory_equal(e, &want, sizeof(want));
	return ++c->nr == c->stop_at ? 77 : 0;
}

static void files_give_back_what_was_appended(void **state)
{
	static const uint64_t sizes[] = { 1, 2, 1000, 5000, 20000 };
	struct disk_srch_file sf, none = { 0 };
	const char *why = "";
	struct rig r;

	(void)state;
	rig_open(&r, 2, TOTAL);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (int sorted = 0; sorted < 2; sorted++) {
			struct count c = { .sorted = sorted };

			sf = make_file(&r, sizes[i], sorted);
			rig_reopen(&r, 1);
			assert_int_equal(srch_file_each(r.bs, &sf, count_entry, &c), 0);
			assert_int_equal(c.nr, sizes[i]);
			assert_int_equal(srch_file_verify(r.bs, &sf, sorted, &why), 0);
			c = (struct count){ .sorted = sorted, .stop_at = sizes[i] / 2 + 1 };
			assert_int_equal(srch_file_each(r.bs, &sf, count_entry, &c), 77);
		}
	}
	assert_int_equal(le64_get(sf.blocks) > 1, 1);
	assert_int_equal(srch_file_each(r.bs, &none, count_entry, NULL), 0);
	assert_int_equal(srch_file_verify(r.bs, &none, true, &why), 0);
	rig_close(&r);
}

static void a_block_that_breaks_a_rule_is_refused(void **state)
{
	struct disk_srch_block *good = calloc(1, sizeof(*good)), *b = calloc(1, sizeof(*b));
	const char *why = NULL;

	(void)state;
	assert_non_null(good);
	assert_non_null(b);
	assert_int_equal(srch_block_check(good, true, &why), 0);	/* empty, 21.5 */
	for (uint64_t i = 0; i < 100; i++)
		assert_true(append(good, (struct srch_entry){ 5 + i / 10, 6, i }));
	assert_int_equal(srch_block_check(good, true, &why), 0);

#define BAD(sorted, change) do { *b = *good; change; why = NULL; \
		assert_int_equal(srch_block_check(b, sorted, &why), -EBADMSG); \
		assert_non_null(why); } while (0)
	BAD(false, b->entry_bytes = le32_of(SRCH_LEAF_BYTES + 1));
	BAD(false, b->entry_bytes = le32_of(UINT32_MAX));
	BAD(false, b->entry_nr = le32_of(99));
	BAD(false, b->entry_nr = le32_of(101));
	BAD(false, b->entry_nr = le32_of(0));
	BAD(false, b->entry_nr = le32_of(UINT32_MAX));
	BAD(false, le32_get(b->entry_bytes);
	    b->entry_bytes = le32_of(le32_get(b->entry_bytes) - 1));
	BAD(false, b->first.hash = le64_of(6));
	BAD(false, b->last.hash = le64_of(13));
	BAD(false, b->tail.id = le64_of(98));
#undef BAD
	/* Order matters in sorted files only. */
	*b = *good;
	assert_true(append(b, (struct srch_entry){ 7, 6, 1 }));
	assert_int_equal(srch_block_check(b, false, &why), 0);
	assert_int_equal(srch_block_check(b, true, &why), -EBADMSG);

	/* The last possible start is 65398; an entry that starts later is damage. */
	init_block(b);
	memset(b->entries, 0, sizeof(b->entries));
	b->entry_nr = le32_of(SRCH_LAST_START / 2 + 1);
	b->entry_bytes = le32_of(SRCH_LAST_START + 2);
	assert_int_equal(srch_block_check(b, true, &why), 0);
	b->entry_nr = le32_of(SRCH_LAST_START / 2 + 2);
	b->entry_bytes = le32_of(SRCH_LAST_START + 4);
	assert_int_equal(srch_block_check(b, true, &why), -EBADMSG);
	free(good);
	free(b);
}

static void heights_are_minimal(void **state)
{
	const uint64_t n = SRCH_PARENT_REFS;

	(void)state;
	assert_int_equal(srch_height(0), 0);
	assert_int_equal(srch_height(1), 1);
	assert_int_equal(srch_height(2), 2);
	assert_int_equal(srch_height(n), 2);
	assert_int_equal(srch_height(n + 1), 3);
	assert_int_equal(srch_height(n * n), 3);
	assert_int_equal(srch_height(n * n + 1), 4);
	assert_int_equal(srch_height(n * n * n * n), 5);
	assert_int_equal(srch_height(n * n * n * n + 1), 0);
	assert_int_equal(srch_height(UINT64_MAX), 0);
}

static void a_file_that_breaks_a_rule_is_refused(void **state)
{
	struct disk_srch_file good, sf;
	struct disk_srch_parent *parent;
	const char *why = NULL;
	struct block_ref ref;
	struct block *bl;
	struct rig r;

	(void)state;
	rig_open(&r, 2, TOTAL);
	good = make_file(&r, 20000, true);
#define BAD(change) do { sf = good; change; why = NULL; \
		assert_true(srch_file_verify(r.bs, &sf, true, &why) < 0); \
		assert_non_null(why); } while (0)
	BAD(sf.height = 1);
	BAD(sf.height = 3);
	BAD(sf.height = 255);
	BAD(sf.blocks = le64_of(0));
	BAD(sf.blocks = le64_of(UINT64_MAX));
	BAD(sf.blocks = le64_of(TOTAL); sf.height = 3);
	BAD(sf.blocks = le64_of(le64_get(sf.blocks) + 1));
	BAD(sf.blocks = le64_of(le64_get(sf.blocks) - 1));
	BAD(sf.entries = le64_of(19999));
	BAD(sf.entries = le64_of(20001));
	BAD(sf.entries = le64_of(UINT64_MAX));
	BAD(sf.ref.blkno = le64_of(0));
	BAD(sf.ref.blkno = le64_of(TOTAL));
	BAD(sf.ref.seq = le64_of(0));
	BAD(sf.first.ino = le64_of(1));
	BAD(sf.last.hash = le64_of(18));
	BAD(sf.first = sf.last; sf.last = good.first);
	assert_int_equal(srch_file_verify(r.bs, &good, true, &why), 0);

	/* Two leaves change places: each is right, the file is not. */
	ref = block_ref_get(&good.ref);
	assert_int_equal(block_dirty(r.bs, &r.al, &ref, MAGIC_SRCH_PARENT, &bl), 0);
	parent = bl->data;
	sf = good;
	sf.ref = block_ref_put(ref);
	assert_int_equal(srch_file_verify(r.bs, &sf, true, &why), 0);
	{
		struct disk_block_ref tmp = parent->refs[0];

		parent->refs[0] = parent->refs[1];
		parent->refs[1] = tmp;
	}
	assert_int_equal(srch_file_verify(r.bs, &sf, true, &why), -EBADMSG);
	assert_int_equal(srch_file_verify(r.bs, &sf, false, &why), 0);
	/* A parent that points to itself is no leaf. */
	parent->refs[0] = sf.ref;
	assert_int_equal(srch_file_verify(r.bs, &sf, false, &why), -ESTALE);
	parent->refs[0] = (struct disk_block_ref){ 0 };
	assert_int_equal(srch_file_verify(r.bs, &sf, false, &why), -EBADMSG);
	block_put(r.bs, bl);
#undef BAD
	rig_close(&r);
}

/* Who is visited: counts by level, and the least leaf of each. */
struct visits {
	uint64_t nr[3], least[3];
};

static int see_block(void *arg, const struct srch_visit *v)
{
	struct visits *s = arg;

	assert_int_equal(v->err, 0);
	assert_in_range(v->level, 0, 2);
	if (s->nr[v->level]++ == 0)
		s->least[v->level] = v->leaf;
	return 0;
}

static void tall_files_and_half_freed_ones_are_walked_by_leaf_number(void **state)
{
	const uint64_t blocks = SRCH_PARENT_REFS + 3;
	struct disk_srch_compact_input in = { 0 };
	struct disk_block_ref leaf_ref, parents[2];
	struct disk_srch_parent *parent;
	struct visits s;
	struct block_ref ref;
	struct block *bl;
	struct rig r;

	(void)state;
	/* Every leaf is the same block, which only its owner could object to. */
	rig_open(&r, 2, TOTAL);
	assert_int_equal(block_new(r.bs, &r.al, MAGIC_SRCH_BLOCK, &ref, &bl), 0);
	assert_true(append(bl->data, (struct srch_entry){ 1, 2, 3 }));
	block_put(r.bs, bl);
	leaf_ref = block_ref_put(ref);
	for (unsigned p = 0; p < 2; p++) {
		assert_int_equal(block_new(r.bs, &r.al, MAGIC_SRCH_PARENT, &ref, &bl), 0);
		parent = bl->data;
		for (unsigned i = 0; i < (p ? 3 : SRCH_PARENT_REFS); i++)
			parent->refs[i] = leaf_ref;
		block_put(r.bs, bl);
		parents[p] = block_ref_put(ref);
	}
	assert_int_equal(block_new(r.bs, &r.al, MAGIC_SRCH_PARENT, &ref, &bl), 0);
	parent = bl->data;
	parent->refs[0] = parents[0];
	parent->refs[1] = parents[1];
	block_put(r.bs, bl);
	in.file = (struct disk_srch_file){ .ref = block_ref_put(ref), .blocks = le64_of(blocks),
					   .entries = le64_of(blocks), .height = 3 };

#define VISIT(pos_, blk_, leaves, mids, roots) do { \
		memset(&s, 0, sizeof(s)); \
		in.pos = le64_of(pos_); \
		in.blk = le64_of(blk_); \
		assert_int_equal(srch_input_visit_unfreed(r.bs, &in, false, see_block, &s), 0); \
		assert_int_equal(s.nr[0], leaves); \
		assert_int_equal(s.nr[1], mids); \
		assert_int_equal(s.nr[2], roots); } while (0)
	VISIT(0, 0, blocks, 2, 1);
	VISIT(1, 0, blocks, 2, 1);
	VISIT(1, 10, blocks - 10, 2, 1);
	assert_int_equal(s.least[0], 10);
	VISIT(1, SRCH_PARENT_REFS + 1, 2, 2, 1);
	VISIT(1, blocks, 0, 2, 1);
	VISIT(2, 0, 0, 2, 1);
	VISIT(2, 1, 0, 1, 1);
	assert_int_equal(s.least[1], SRCH_PARENT_REFS);
	VISIT(2, blocks, 0, 0, 1);
	VISIT(3, 0, 0, 0, 1);
	VISIT(4, 0, 0, 0, 0);
#undef VISIT
	in.pos = le64_of(5);
	assert_int_equal(srch_input_visit_unfreed(r.bs, &in, false, see_block, &s), -EBADMSG);
	memset(&s, 0, sizeof(s));
	assert_int_equal(srch_file_visit_blocks(r.bs, &in.file, true, see_block, &s), 0);
	assert_int_equal(s.nr[0], blocks);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_are_encoded_as_the_format_says),
		cmocka_unit_test(any_entry_comes_back_and_no_prefix_of_it_does),
		cmocka_unit_test(files_give_back_what_was_appended),
		cmocka_unit_test(a_block_that_breaks_a_rule_is_refused),
		cmocka_unit_test(heights_are_minimal),
		cmocka_unit_test(a_file_that_breaks_a_rule_is_refused),
		cmocka_unit_test(tall_files_and_half_freed_ones_are_walked_by_leaf_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
