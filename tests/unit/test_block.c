/*
 * Sets of blocks.  Promises: a held block keeps its bytes; what committed roots name is never
 * written; a transaction is wholly there or wholly gone; memory is bounded; faults are told, not
 * hidden.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"
#include "memdev.h"

#define FSID	0x1122334455667788ull
#define TOTAL	200u
#define MAGIC	MAGIC_BLOOM

struct fix {
	struct memdev md;
	struct memalloc ma;
	struct block_set *bs;
};

static void fix_open(struct fix *f, size_t clean_max)
{
	memdev_init(&f->md, 1);
	memalloc_init(&f->ma, TOTAL);
	assert_int_equal(block_set_open(&f->bs, &f->md.dev, FSID, TOTAL, clean_max), 0);
}

static void fix_close(struct fix *f)
{
	block_set_close(f->bs);
	memalloc_fini(&f->ma);
	memdev_fini(&f->md);
}

/* A committed block whose bytes from 32 on are `fill`. */
static struct block_ref make_block(struct fix *f, uint8_t fill)
{
	struct block_ref ref;
	struct block *bl;

	assert_int_equal(block_new(f->bs, &f->ma.al, MAGIC, &ref, &bl), 0);
	assert_true(bl->dirty);
	assert_int_equal(bl->blkno, ref.blkno);
	assert_int_equal(bl->seq, ref.seq);
	memset((uint8_t *)bl->data + 32, fill, LARGE_SIZE - 32);
	block_put(f->bs, bl);
	return ref;
}

static void commit(struct fix *f)
{
	assert_int_equal(block_set_write(f->bs), 0);
	assert_int_equal(block_set_dirty_nr(f->bs), 0);
	memalloc_commit(&f->ma);
}

static void assert_filled(const struct block *bl, uint8_t fill)
{
	const uint8_t *p = bl->data;

	for (unsigned i = 32; i < LARGE_SIZE; i++)
		if (p[i] != fill)
			fail_msg("byte %u is %u, not %u", i, p[i], fill);
}

static void assert_reads(struct fix *f, struct block_ref ref, uint8_t fill)
{
	struct block *bl;

	assert_int_equal(block_get(f->bs, ref, MAGIC, &bl), 0);
	assert_filled(bl, fill);
	block_put(f->bs, bl);
}

/* A set that has cached nothing. */
static void reopen(struct fix *f, size_t clean_max)
{
	block_set_close(f->bs);
	assert_int_equal(block_set_open(&f->bs, &f->md.dev, FSID, TOTAL, clean_max), 0);
}

static void written_blocks_are_read_back(void **state)
{
	struct block_ref refs[100];
	struct fix f;

	(void)state;
	fix_open(&f, 1000);
	for (unsigned i = 0; i < 100; i++)
		refs[i] = make_block(&f, (uint8_t)i);
	assert_int_equal(block_set_dirty_nr(f.bs), 100);
	assert_int_equal(f.md.writes, 0);
	commit(&f);
	assert_int_equal(f.md.writes, 100);

	for (unsigned i = 0; i < 100; i++)
		assert_reads(&f, refs[i], (uint8_t)i);
	assert_int_equal(f.md.reads, 0);
	reopen(&f, 1000);
	for (unsigned i = 0; i < 100; i++) {
		const struct disk_header *hdr = (const void *)memdev_at(&f.md, refs[i].blkno);

		assert_int_equal(le32_get(hdr->crc), block_crc(hdr, LARGE_SIZE));
		assert_int_equal(le32_get(hdr->magic), MAGIC);
		assert_int_equal(le64_get(hdr->fsid), FSID);
		assert_int_equal(le64_get(hdr->seq), refs[i].seq);
		assert_int_equal(le64_get(hdr->blkno), refs[i].blkno);
		assert_reads(&f, refs[i], (uint8_t)i);
	}
	assert_int_equal(f.md.reads, 100);
	assert_int_equal(block_set_clean_nr(f.bs), 100);
	assert_int_equal(block_set_dirty_nr(f.bs), 0);
	fix_close(&f);
}

static void oldest_clean_blocks_are_dropped(void **state)
{
	struct block_ref refs[10];
	struct block *held;
	struct fix f;

	(void)state;
	fix_open(&f, 4);
	for (unsigned i = 0; i < 10; i++)
		refs[i] = make_block(&f, (uint8_t)i);
	assert_int_equal(block_set_dirty_nr(f.bs), 10);
	commit(&f);
	assert_int_equal(block_set_clean_nr(f.bs), 4);

	reopen(&f, 4);
	assert_int_equal(block_get(f.bs, refs[0], MAGIC, &held), 0);
	for (unsigned i = 1; i < 10; i++)
		assert_reads(&f, refs[i], (uint8_t)i);
	assert_int_equal(block_set_clean_nr(f.bs), 5);	/* the held one does not count */
	assert_int_equal(f.md.reads, 10);
	assert_reads(&f, refs[6], 6);		/* still there, and now the youngest */
	assert_int_equal(f.md.reads, 10);
	assert_reads(&f, refs[1], 1);		/* pushes 7 out */
	assert_reads(&f, refs[6], 6);
	assert_int_equal(f.md.reads, 11);
	assert_reads(&f, refs[7], 7);
	assert_int_equal(f.md.reads, 12);
	assert_filled(held, 0);
	block_put(f.bs, held);
	fix_close(&f);
}

static unsigned buffers_got, buffers_put;

static void *count_get(void)
{
	buffers_got++;
	return aligned_alloc(4096, LARGE_SIZE);
}

static void count_put(void *buf)
{
	buffers_put++;
	free(buf);
}

/* What a set was given to take buffers from has all of them back, and at any time no more out than the set keeps. */
static void buffers_go_back_to_where_they_came_from(void **state)
{
	static const struct block_buffers buffers = { count_get, count_put };
	struct block *held, *changed;
	struct block_ref refs[10];
	struct fix f;

	(void)state;
	fix_open(&f, 4);
	block_set_use_buffers(f.bs, &buffers);
	buffers_got = buffers_put = 0;
	for (unsigned i = 0; i < 10; i++)
		refs[i] = make_block(&f, (uint8_t)i);
	assert_int_equal(buffers_got - buffers_put, 10);
	commit(&f);
	assert_int_equal(buffers_got - buffers_put, 4);
	for (unsigned i = 0; i < 10; i++) {
		assert_reads(&f, refs[i], (uint8_t)i);
		assert_int_equal(buffers_got - buffers_put, 4);
	}
	/* a copy for the writer, and another's old bytes */
	assert_int_equal(block_get(f.bs, refs[9], MAGIC, &held), 0);
	assert_int_equal(block_dirty(f.bs, &f.ma.al, &refs[9], MAGIC, &changed), 0);
	assert_int_equal(buffers_got - buffers_put, 5);
	block_put(f.bs, held);
	block_put(f.bs, changed);
	assert_int_equal(buffers_got - buffers_put, block_set_clean_nr(f.bs) + block_set_dirty_nr(f.bs));
	fix_close(&f);
	assert_int_equal(buffers_got, buffers_put);
}

static void held_block_keeps_its_bytes_when_it_is_changed(void **state)
{
	struct block_ref old, ref;
	struct block *reader, *writer, *again;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	old = make_block(&f, 1);
	commit(&f);
	assert_int_equal(block_get(f.bs, old, MAGIC, &reader), 0);
	reader->checked = true;
	ref = old;
	assert_int_equal(block_dirty(f.bs, &f.ma.al, &ref, MAGIC, &writer), 0);
	assert_true(writer->checked);
	assert_int_not_equal(ref.blkno, old.blkno);
	assert_int_not_equal(ref.seq, old.seq);
	assert_int_equal(f.ma.now[old.blkno], MEMALLOC_PENDING);
	assert_filled(writer, 1);
	memset((uint8_t *)writer->data + 32, 2, LARGE_SIZE - 32);
	assert_filled(reader, 1);
	assert_int_equal(reader->blkno, old.blkno);
	assert_false(reader->dirty);

	/* Dirty already: the same one, and nothing allocated. */
	f.ma.budget = 0;
	assert_int_equal(block_dirty(f.bs, &f.ma.al, &ref, MAGIC, &again), 0);
	assert_ptr_equal(again, writer);
	assert_int_equal(block_set_dirty_nr(f.bs), 1);
	block_put(f.bs, again);
	block_put(f.bs, writer);
	block_put(f.bs, reader);
	commit(&f);
	assert_reads(&f, ref, 2);
	assert_int_equal(memdev_at(&f.md, old.blkno)[32], 1);
	fix_close(&f);
}

static void unheld_block_is_changed_without_a_copy(void **state)
{
	struct block_ref old, ref;
	struct block *bl;
	struct fix f;
	void *data;

	(void)state;
	fix_open(&f, 10);
	old = make_block(&f, 1);
	commit(&f);
	assert_int_equal(block_get(f.bs, old, MAGIC, &bl), 0);
	data = bl->data;
	block_put(f.bs, bl);
	ref = old;
	assert_int_equal(block_dirty(f.bs, &f.ma.al, &ref, MAGIC, &bl), 0);
	assert_ptr_equal(bl->data, data);
	memset((uint8_t *)bl->data + 32, 2, LARGE_SIZE - 32);
	block_put(f.bs, bl);
	/* The old incarnation is still on the device for whoever has old roots. */
	assert_reads(&f, old, 1);
	assert_reads(&f, ref, 2);
	fix_close(&f);
}

static void aborted_transaction_never_was(void **state)
{
	struct block_ref old, ref, fresh;
	struct block *bl;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	old = make_block(&f, 1);
	commit(&f);
	ref = old;
	assert_int_equal(block_dirty(f.bs, &f.ma.al, &ref, MAGIC, &bl), 0);
	memset((uint8_t *)bl->data + 32, 2, LARGE_SIZE - 32);
	fresh = make_block(&f, 3);
	block_set_abort(f.bs);
	memalloc_abort(&f.ma);
	assert_int_equal(block_set_dirty_nr(f.bs), 0);
	assert_filled(bl, 2);		/* held across the abort, as an open allocator does */
	block_put(f.bs, bl);
	assert_reads(&f, old, 1);
	assert_int_equal(block_get(f.bs, ref, MAGIC, &bl), -ESTALE);
	assert_int_equal(block_get(f.bs, fresh, MAGIC, &bl), -ESTALE);
	assert_int_equal(f.md.writes, 1);
	fix_close(&f);
}

static void failed_dirtying_changes_nothing(void **state)
{
	struct block_ref old, ref;
	struct block *bl, *reader;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	old = make_block(&f, 1);
	commit(&f);
	for (unsigned held = 0; held < 2; held++) {
		if (held)
			assert_int_equal(block_get(f.bs, old, MAGIC, &reader), 0);
		ref = old;
		f.ma.budget = 0;
		assert_int_equal(block_dirty(f.bs, &f.ma.al, &ref, MAGIC, &bl), -ENOSPC);
		assert_null(bl);
		f.ma.budget = -1;
		f.ma.free_budget = 0;
		assert_int_equal(block_dirty(f.bs, &f.ma.al, &ref, MAGIC, &bl), -ENOSPC);
		f.ma.free_budget = -1;
		assert_int_equal(ref.blkno, old.blkno);
		assert_int_equal(ref.seq, old.seq);
		assert_int_equal(f.ma.now[old.blkno], MEMALLOC_USED);
		assert_int_equal(block_set_dirty_nr(f.bs), 0);
		assert_reads(&f, old, 1);
		if (held) {
			assert_filled(reader, 1);
			block_put(f.bs, reader);
		}
		memalloc_abort(&f.ma);
	}
	f.ma.budget = 0;
	assert_int_equal(block_new(f.bs, &f.ma.al, MAGIC, &ref, &bl), -ENOSPC);
	assert_null(bl);
	f.ma.budget = -1;
	f.ma.free_budget = 0;
	assert_int_equal(block_free(f.bs, &f.ma.al, old), -ENOSPC);
	assert_reads(&f, old, 1);
	fix_close(&f);
}

static int alloc_fixed(void *arg, uint64_t *blkno)
{
	*blkno = *(uint64_t *)arg;
	return 0;
}

static int free_nothing(void *arg, uint64_t blkno)
{
	(void)arg;
	(void)blkno;
	return 0;
}

static void senseless_blknos_of_an_allocator_are_refused(void **state)
{
	uint64_t blkno;
	struct blkno_alloc al = { .arg = &blkno, .alloc = alloc_fixed, .free = free_nothing };
	uint64_t bad[4] = { 0, 1, TOTAL, 0 };
	struct block_ref dirty, clean, ref;
	struct block *bl;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	clean = make_block(&f, 1);
	commit(&f);
	dirty = make_block(&f, 2);
	bad[3] = dirty.blkno;
	for (unsigned i = 0; i < 4; i++) {
		blkno = bad[i];
		ref = clean;
		assert_int_equal(block_dirty(f.bs, &al, &ref, MAGIC, &bl), -EUCLEAN);
		assert_int_equal(block_dirty_at(f.bs, blkno, &ref, MAGIC, &bl), -EUCLEAN);
		assert_int_equal(block_new(f.bs, &al, MAGIC, &ref, &bl), -EUCLEAN);
		assert_int_equal(block_new_at(f.bs, blkno, MAGIC, &ref, &bl), -EUCLEAN);
		assert_int_equal(ref.blkno, clean.blkno);
		assert_int_equal(ref.seq, clean.seq);
	}
	/* A block copied onto itself would overwrite what committed roots name. */
	blkno = clean.blkno;
	assert_int_equal(block_dirty(f.bs, &al, &ref, MAGIC, &bl), -EUCLEAN);
	assert_int_equal(block_dirty_at(f.bs, clean.blkno, &ref, MAGIC, &bl), -EUCLEAN);

	ref = (struct block_ref){ dirty.blkno, dirty.seq + 1 };
	assert_int_equal(block_free(f.bs, &f.ma.al, ref), -EUCLEAN);
	assert_reads(&f, clean, 1);
	assert_reads(&f, dirty, 2);
	fix_close(&f);
}

static void given_blknos_are_used(void **state)
{
	struct block_ref old, ref, fresh;
	struct block *bl;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	old = make_block(&f, 1);
	commit(&f);
	ref = old;
	assert_int_equal(block_dirty_at(f.bs, 77, &ref, MAGIC, &bl), 0);
	assert_int_equal(ref.blkno, 77);
	assert_int_equal(f.ma.now[old.blkno], MEMALLOC_USED);	/* the caller's to free */
	block_put(f.bs, bl);
	assert_int_equal(block_dirty_at(f.bs, 78, &ref, MAGIC, &bl), 0);
	assert_int_equal(ref.blkno, 77);			/* dirty already: it stays */
	block_put(f.bs, bl);
	assert_int_equal(block_new_at(f.bs, 79, MAGIC, &fresh, &bl), 0);
	assert_int_equal(fresh.blkno, 79);
	assert_filled(bl, 0);
	block_put(f.bs, bl);
	fix_close(&f);
}

static void reused_blkno_replaces_the_old_block(void **state)
{
	struct block_ref old, ref;
	struct block *reader, *bl;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	old = make_block(&f, 1);
	commit(&f);
	assert_int_equal(block_get(f.bs, old, MAGIC, &reader), 0);
	assert_int_equal(block_free(f.bs, &f.ma.al, old), 0);
	commit(&f);
	assert_int_equal(block_new_at(f.bs, old.blkno, MAGIC, &ref, &bl), 0);
	assert_filled(reader, 1);
	assert_filled(bl, 0);
	/* Somebody with old roots must not be given the new bytes, nor take the dirty block
	 * away. */
	block_put(f.bs, reader);
	assert_int_equal(block_get(f.bs, old, MAGIC, &reader), -ESTALE);
	assert_int_equal(block_set_dirty_nr(f.bs), 1);
	block_put(f.bs, bl);
	fix_close(&f);
}

/* Another node has written the block anew: seq 999, filled with `fill`. */
static void overwrite_on_device(struct fix *f, uint64_t blkno, uint8_t fill)
{
	uint8_t *data = memdev_at(&f->md, blkno);
	struct disk_header *hdr = (void *)data;

	block_header_init(data, MAGIC, FSID, 999, blkno);
	memset(data + 32, fill, LARGE_SIZE - 32);
	hdr->crc = le32_of(block_crc(data, LARGE_SIZE));
}

static void replaced_block_is_stale_or_read_again(void **state)
{
	struct block_ref old, ref;
	struct block *bl, *reader;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	old = make_block(&f, 1);
	commit(&f);
	assert_int_equal(block_get(f.bs, old, MAGIC, &reader), 0);
	overwrite_on_device(&f, old.blkno, 9);
	ref = (struct block_ref){ old.blkno, 999 };
	assert_reads(&f, ref, 9);		/* the cached copy was older than the reference */
	assert_int_equal(f.md.reads, 1);
	assert_filled(reader, 1);
	block_put(f.bs, reader);
	assert_int_equal(block_get(f.bs, old, MAGIC, &bl), -ESTALE);
	assert_null(bl);
	assert_int_equal(f.md.reads, 2);
	fix_close(&f);
}

static void what_a_reference_does_not_mean_is_stale(void **state)
{
	static const unsigned offsets[] = { 0, 4, 8, 16, 24, 40, LARGE_SIZE - 1 };
	struct block_ref ref;
	struct block *bl;
	struct fix f;

	(void)state;
	fix_open(&f, 0);
	ref = make_block(&f, 1);
	commit(&f);
	for (unsigned i = 0; i < 7; i++) {
		uint8_t *data = memdev_at(&f.md, ref.blkno);
		struct disk_header *hdr = (void *)data;

		data[offsets[i]] ^= 1;
		assert_int_equal(block_get(f.bs, ref, MAGIC, &bl), -ESTALE);
		if (offsets[i] >= 4 && offsets[i] < 32) {
			/* Also when the checksum agrees with the wrong field. */
			hdr->crc = le32_of(block_crc(data, LARGE_SIZE));
			assert_int_equal(block_get(f.bs, ref, MAGIC, &bl), -ESTALE);
		}
		data[offsets[i]] ^= 1;
		hdr->crc = le32_of(block_crc(data, LARGE_SIZE));
		assert_reads(&f, ref, 1);
	}
	assert_int_equal(block_get(f.bs, ref, MAGIC_BTREE, &bl), -ESTALE);
	fix_close(&f);
}

static void references_out_of_range_are_refused(void **state)
{
	static const uint64_t bad[] = { 0, 1, TOTAL, UINT64_MAX };
	struct block *bl;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	for (unsigned i = 0; i < 4; i++) {
		struct block_ref ref = { bad[i], 1 };

		assert_int_equal(block_get(f.bs, ref, MAGIC, &bl), -EINVAL);
		assert_int_equal(block_dirty(f.bs, &f.ma.al, &ref, MAGIC, &bl), -EINVAL);
		assert_int_equal(block_free(f.bs, &f.ma.al, ref), -EINVAL);
	}
	assert_int_equal(f.md.reads, 0);
	fix_close(&f);
}

static void device_errors_are_passed_on(void **state)
{
	struct block_ref refs[100];
	struct block *bl;
	struct fix f;

	(void)state;
	fix_open(&f, 1000);
	for (unsigned i = 0; i < 100; i++)
		refs[i] = make_block(&f, (uint8_t)i);
	f.md.fail_writes_after = 70;	/* in the middle of the second batch */
	assert_int_equal(block_set_write(f.bs), -EIO);
	assert_int_equal(block_set_dirty_nr(f.bs), 100);
	f.md.fail_writes_after = -1;
	commit(&f);
	reopen(&f, 1000);
	f.md.fail_reads_after = 0;
	f.md.read_err = -ETIMEDOUT;
	assert_int_equal(block_get(f.bs, refs[5], MAGIC, &bl), -ETIMEDOUT);
	assert_int_equal(block_dirty(f.bs, &f.ma.al, &refs[5], MAGIC, &bl), -ETIMEDOUT);
	f.md.fail_reads_after = -1;
	for (unsigned i = 0; i < 100; i++)
		assert_reads(&f, refs[i], (uint8_t)i);
	fix_close(&f);
}

static void freed_blocks_are_forgotten(void **state)
{
	struct block_ref clean, dirty;
	struct fix f;

	(void)state;
	fix_open(&f, 10);
	clean = make_block(&f, 1);
	commit(&f);
	dirty = make_block(&f, 2);
	assert_int_equal(block_free(f.bs, &f.ma.al, dirty), 0);
	assert_int_equal(block_free(f.bs, &f.ma.al, clean), 0);
	assert_int_equal(block_set_clean_nr(f.bs), 0);
	assert_int_equal(block_set_dirty_nr(f.bs), 0);
	commit(&f);
	assert_int_equal(f.md.writes, 1);
	assert_int_equal(memalloc_used_nr(&f.ma), 0);
	fix_close(&f);
}

static void headers_are_checked_field_by_field(void **state)
{
	static uint8_t small[SMALL_SIZE];
	struct disk_header *hdr = (void *)small;
	const char *why;

	(void)state;
	block_header_init(small, MAGIC_SUPER, FSID, 7, 16);
	hdr->crc = le32_of(block_crc(small, SMALL_SIZE));
	assert_int_equal(block_header_check(small, SMALL_SIZE, MAGIC_SUPER, FSID, 16, &why), 0);
	assert_int_equal(block_header_check(small, SMALL_SIZE, MAGIC_QUORUM, FSID, 16, &why),
			 -EBADMSG);
	assert_string_equal(why, "the magic number is not the one expected here");
	assert_int_equal(block_header_check(small, SMALL_SIZE, MAGIC_SUPER, FSID + 1, 16, &why),
			 -EBADMSG);
	assert_string_equal(why, "the fsid is another volume's");
	assert_int_equal(block_header_check(small, SMALL_SIZE, MAGIC_SUPER, FSID, 17, &why),
			 -EBADMSG);
	assert_string_equal(why, "the block says that it belongs elsewhere");
	small[SMALL_SIZE - 1] = 1;
	assert_int_equal(block_header_check(small, SMALL_SIZE, MAGIC_SUPER, FSID, 16, &why),
			 -EBADMSG);
	assert_string_equal(why, "the checksum is wrong");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_blocks_are_read_back),
		cmocka_unit_test(oldest_clean_blocks_are_dropped),
		cmocka_unit_test(buffers_go_back_to_where_they_came_from),
		cmocka_unit_test(held_block_keeps_its_bytes_when_it_is_changed),
		cmocka_unit_test(unheld_block_is_changed_without_a_copy),
		cmocka_unit_test(aborted_transaction_never_was),
		cmocka_unit_test(failed_dirtying_changes_nothing),
		cmocka_unit_test(senseless_blknos_of_an_allocator_are_refused),
		cmocka_unit_test(given_blknos_are_used),
		cmocka_unit_test(reused_blkno_replaces_the_old_block),
		cmocka_unit_test(replaced_block_is_stale_or_read_again),
		cmocka_unit_test(what_a_reference_does_not_mean_is_stale),
		cmocka_unit_test(references_out_of_range_are_refused),
		cmocka_unit_test(device_errors_are_passed_on),
		cmocka_unit_test(freed_blocks_are_forgotten),
		cmocka_unit_test(headers_are_checked_field_by_field),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
