/*
 * Which names a directory lacks: never one that it has, and, as long as there is room, each that it
 * never had.  What is not known, or no longer, lacks nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memdev.h"
#include "services/fsd/items_impl.h"
#include "services/fsd/names.h"

static struct fsd fsd;
static struct items items;

static void open_names(size_t bytes)
{
	fsd.items = &items;
	assert_int_equal(names_open(&items.names, bytes), 0);
}

static uint64_t hash_of(uint64_t dir, uint64_t i)
{
	uint64_t seed = dir << 32 | i;

	return test_random(&seed);
}

static void add(uint64_t dir, uint64_t nr)
{
	names_begin(&fsd, dir);
	for (uint64_t i = 0; i < nr; i++)
		names_add(&fsd, dir, hash_of(dir, i));
}

static void directory_lacks_no_name_that_it_has(void **state)
{
	uint64_t lacked = 0;

	(void)state;
	open_names(64u << 20);
	names_begin(&fsd, 2048);
	assert_true(names_are_known(&fsd, 2048));
	for (uint64_t i = 0; i < 200000; i++) {
		lacked += names_lack(&fsd, 2048, hash_of(2048, i));
		names_add(&fsd, 2048, hash_of(2048, i));
		assert_false(names_lack(&fsd, 2048, hash_of(2048, i)));
	}
	for (uint64_t i = 0; i < 200000; i++)
		assert_false(names_lack(&fsd, 2048, hash_of(2048, i)));
	/* 32 bits of hash are mistaken for another's once in 20,000 times */
	assert_in_range(lacked, 199900, 200000);
	names_close(items.names);
}

static void hashes_that_differ_in_few_bits_are_kept_apart(void **state)
{
	(void)state;
	open_names(64u << 20);
	names_begin(&fsd, 7);
	for (unsigned bit = 0; bit < 64; bit++) {
		assert_true(names_lack(&fsd, 7, 1ull << bit));
		names_add(&fsd, 7, 1ull << bit);
	}
	names_add(&fsd, 7, 0);
	assert_false(names_lack(&fsd, 7, 0));
	names_close(items.names);
}

static void what_is_not_known_lacks_nothing(void **state)
{
	(void)state;
	open_names(1u << 20);
	assert_false(names_are_known(&fsd, 5));
	assert_false(names_lack(&fsd, 5, 1));
	names_add(&fsd, 5, 1);
	assert_false(names_are_known(&fsd, 5));
	assert_false(names_lack(&fsd, 5, 2));
	names_close(items.names);
}

static void lock_takes_its_directories_with_it(void **state)
{
	struct key in = key_inode(3000), start = key_lock_start(&in), end = key_lock_end(&start);

	(void)state;
	open_names(8u << 20);
	for (uint64_t dir = 2000; dir < 4000; dir++)
		add(dir, 3);
	assert_int_equal(names_dirs(items.names), 2000);
	names_drop(items.names, &start, &end);
	for (uint64_t dir = 2000; dir < 4000; dir++) {
		bool within = dir >= start.first && dir <= end.first;

		assert_int_equal(names_are_known(&fsd, dir), !within);
		assert_int_equal(names_lack(&fsd, dir, hash_of(dir, 77)), !within);
	}
	/* once more from the start, as a new directory would */
	names_begin(&fsd, start.first);
	assert_true(names_lack(&fsd, start.first, hash_of(start.first, 0)));
	/* all of the zone, and one that has no directories */
	names_drop(items.names, &(struct key){ .zone = ZONE_ORPHAN }, &(struct key){ .zone = ZONE_ORPHAN });
	assert_true(names_are_known(&fsd, 2000));
	names_drop(items.names, &KEY_ZEROS, &KEY_ONES);
	assert_int_equal(names_dirs(items.names), 0);
	names_close(items.names);
}

/* Directories come without end; the newest, and one that is asked for all the time, stay. */
static void memory_is_bounded(void **state)
{
	const size_t bytes = 1u << 20;

	(void)state;
	open_names(bytes);
	add(1, 5000);
	for (uint64_t dir = 100; dir < 50100; dir++) {
		add(dir, 10);
		assert_true(names_are_known(&fsd, dir));
		assert_false(names_lack(&fsd, 1, hash_of(1, dir % 5000)));
		assert_true(names_are_known(&fsd, 1));
		assert_in_range(names_dirs(items.names), 1, bytes / 64);
	}
	/* one that alone is too big goes */
	add(2, 400000);
	assert_false(names_are_known(&fsd, 2));
	names_close(items.names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(directory_lacks_no_name_that_it_has),
		cmocka_unit_test(hashes_that_differ_in_few_bits_are_kept_apart),
		cmocka_unit_test(what_is_not_known_lacks_nothing),
		cmocka_unit_test(lock_takes_its_directories_with_it),
		cmocka_unit_test(memory_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
