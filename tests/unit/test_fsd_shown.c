/* shown.c: no block that the kernel was given zeroes for is taken for a hole while somebody may have stored to it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "services/fsd/shown.h"

#define BLOCKS	300u
#define FILES	40u
#define SLOTS	2048u		/* of the table */

static struct fsd fsd;

static int setup(void **state)
{
	(void)state;
	snprintf(fsd.conf.runtime_dir, sizeof(fsd.conf.runtime_dir), "/tmp/scoutfs-shown.XXXXXX");
	assert_non_null(mkdtemp(fsd.conf.runtime_dir));
	fsd.rid = 7;
	return shown_start(&fsd, false);
}

static int teardown(void **state)
{
	char path[sizeof(fsd.conf.runtime_dir) + 8];

	(void)state;
	shown_stop(&fsd);
	snprintf(path, sizeof(path), "%s/shown", fsd.conf.runtime_dir);
	unlink(path);
	return rmdir(fsd.conf.runtime_dir);
}

/* As SEEK_DATA and SEEK_HOLE go over it. */
static bool is_shown(uint64_t ino, uint64_t block)
{
	uint64_t first, last;

	if (!shown_next(&fsd, ino, block, block + 1, &first, &last))
		return false;
	assert_int_equal(first, block);
	assert_int_equal(last, block);
	return true;
}

static void restart(bool is_resumed)
{
	shown_stop(&fsd);
	assert_int_equal(shown_start(&fsd, is_resumed), 0);
}

static void what_is_noted_counts_until_the_last_release(void **state)
{
	uint64_t first, last;

	(void)state;
	shown_note(&fsd, 5, 1, 1);
	assert_false(is_shown(5, 1));		/* nobody can store to it */
	shown_open(&fsd, 5, O_RDONLY);
	shown_open(&fsd, 5, O_WRONLY | O_APPEND);
	shown_note(&fsd, 5, 1, 1);
	assert_false(is_shown(5, 1));
	shown_open(&fsd, 5, O_RDWR | O_CREAT);
	shown_open(&fsd, 5, O_RDWR);
	shown_note(&fsd, 5, 10, 19);
	shown_note(&fsd, 5, 30, 30);
	assert_false(is_shown(5, 9));
	assert_true(shown_next(&fsd, 5, 0, 100, &first, &last));
	assert_int_equal(first, 10);
	assert_int_equal(last, 19);
	assert_true(shown_next(&fsd, 5, 15, 18, &first, &last));
	assert_int_equal(first, 15);
	assert_int_equal(last, 17);
	assert_true(shown_next(&fsd, 5, 20, 100, &first, &last));
	assert_int_equal(first, 30);
	assert_false(shown_next(&fsd, 5, 31, UINT64_MAX, &first, &last));
	assert_false(is_shown(6, 10));
	shown_release(&fsd, 5, O_RDONLY, false);
	shown_release(&fsd, 5, O_RDWR, false);
	assert_true(is_shown(5, 10));
	shown_release(&fsd, 5, O_RDWR, false);
	assert_false(is_shown(5, 10));
	shown_open(&fsd, 5, O_RDWR);
	assert_false(is_shown(5, 10));
}

static void open_files(uint64_t first, uint64_t last)
{
	for (uint64_t ino = first; ino <= last; ino++) {
		shown_open(&fsd, ino, O_RDWR);
		shown_note(&fsd, ino, 2, 2);
	}
}

static blkcnt_t blocks_of(uint64_t ino, uint64_t view)
{
	struct stat st = { .st_mode = S_IFREG, .st_size = 1 << 20, .st_blksize = 4096 };

	assert_true(shown_attr(&fsd, ino, view, &st, 5.0) == 0.0);
	return st.st_blocks;
}

/* Who looked at the extents before a store came to them, and looks here when it is forgotten, is told that they are too old. */
static void a_view_from_before_the_last_release_is_too_old(void **state)
{
	uint64_t view;

	(void)state;
	view = shown_view(&fsd, 5);
	assert_int_equal(blocks_of(5, view), 0);
	shown_open(&fsd, 5, O_RDWR);
	shown_open(&fsd, 5, O_RDWR);
	shown_note(&fsd, 5, 3, 3);
	shown_release(&fsd, 5, O_RDWR, false);
	shown_applied(&fsd, 5);
	assert_true(shown_view(&fsd, 5) == view);	/* it is still noted: nobody looks for ever while it is written to */
	assert_int_equal(blocks_of(5, view), 8);
	shown_release(&fsd, 5, O_RDWR, false);
	assert_false(is_shown(5, 3));
	assert_int_equal(blocks_of(5, view), 8);
	view = shown_view(&fsd, 5);
	assert_int_equal(blocks_of(5, view), 0);
	shown_applied(&fsd, 5);			/* which was answered before the release */
	assert_int_equal(blocks_of(5, view), 8);
	/* one of those that have no place */
	open_files(100, 100 + SLOTS);
	view = shown_view(&fsd, 5);
	shown_release(&fsd, 100 + SLOTS, O_RDWR, false);
	assert_int_equal(shown_others(&fsd), 0);
	assert_int_equal(blocks_of(5, view), 8);
}

static void the_next_process_knows(void **state)
{
	(void)state;
	shown_open(&fsd, 5, O_RDWR);
	shown_note(&fsd, 5, 3, 4);
	restart(true);
	assert_true(is_shown(5, 4));
	assert_false(is_shown(5, 5));
	shown_release(&fsd, 5, O_RDWR, true);	/* the one before may have counted it */
	assert_true(is_shown(5, 4));
	restart(false);
	assert_false(is_shown(5, 4));
	/* a table that is not of this mount: nothing is known, so all may be */
	shown_open(&fsd, 5, O_RDWR);
	shown_stop(&fsd);
	fsd.rid = 8;
	assert_int_equal(shown_start(&fsd, true), 0);
	assert_int_equal(shown_others(&fsd), UINT32_MAX);
	assert_true(is_shown(77, 1000));
	shown_open(&fsd, 78, O_RDWR);
	assert_true(is_shown(78, 1000));
}

static void no_set_of_the_table_overflows_before_all_do(void **state)
{
	(void)state;
	open_files(1, SLOTS);
	assert_int_equal(shown_others(&fsd), 0);
	assert_false(is_shown(SLOTS + 1, 2));	/* that of an unrelated file stays a hole */
	restart(true);
	for (uint64_t ino = 1; ino <= SLOTS; ino += 3)
		shown_release(&fsd, ino, O_RDWR, false);
	for (uint64_t ino = 1; ino <= SLOTS; ino++) {
		assert_int_equal(is_shown(ino, 2), ino % 3 != 1);
		assert_false(is_shown(ino, 9));
	}
	restart(true);
	open_files(SLOTS + 1, SLOTS + 600);
	assert_int_equal(shown_others(&fsd), 0);
	for (uint64_t ino = 1; ino <= SLOTS + 600; ino++)
		assert_int_equal(is_shown(ino, 2), ino > SLOTS || ino % 3 != 1);
	for (uint64_t ino = 1; ino <= SLOTS + 600; ino++) {
		if (ino > SLOTS || ino % 3 != 1)
			shown_release(&fsd, ino, O_RDWR, false);
		assert_false(is_shown(ino, 2));
	}
	assert_int_equal(shown_others(&fsd), 0);
}

static void more_files_than_fit_count_as_a_whole(void **state)
{
	unsigned nr = 20000, held = 0;

	(void)state;
	open_files(1, nr);
	assert_int_equal(shown_others(&fsd), nr - SLOTS);
	for (uint64_t ino = 1; ino <= nr; ino++) {
		assert_true(is_shown(ino, 2));
		held += !is_shown(ino, 9);
	}
	assert_true(held > 1000);
	for (uint64_t ino = 1; ino <= nr; ino++)
		shown_release(&fsd, ino, O_RDWR, false);
	for (uint64_t ino = 1; ino <= nr; ino++)
		assert_false(is_shown(ino, 2));
}

/* Against a model, with restarts in between: too much may be shown, never too little, and nothing of who has no writer. */
static void random_ranges_are_never_forgotten(void **state)
{
	static bool model[FILES][BLOCKS];
	static unsigned writers[FILES];

	(void)state;
	srand(11);
	for (unsigned i = 0; i < 60000; i++) {
		unsigned f = (unsigned)rand() % FILES, b = (unsigned)rand() % BLOCKS;
		unsigned n = b + (unsigned)rand() % 4;

		switch (rand() % 16) {
		case 0:
			shown_open(&fsd, f + 1, O_RDWR);
			writers[f]++;
			break;
		case 1:
			if (!writers[f])
				break;
			shown_release(&fsd, f + 1, O_RDWR, false);
			if (--writers[f] == 0)
				memset(model[f], 0, sizeof(model[f]));
			break;
		case 2:
			if (i % 64 == 0)
				restart(true);
			break;
		default:
			shown_note(&fsd, f + 1, b, n);
			for (unsigned k = b; writers[f] && k <= n && k < BLOCKS; k++)
				model[f][k] = true;
		}
		b = (unsigned)rand() % BLOCKS;
		if (model[f][b])
			assert_true(is_shown(f + 1, b));
		if (!writers[f])
			assert_false(is_shown(f + 1, b));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_noted_counts_until_the_last_release, setup, teardown),
		cmocka_unit_test_setup_teardown(a_view_from_before_the_last_release_is_too_old, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_process_knows, setup, teardown),
		cmocka_unit_test_setup_teardown(no_set_of_the_table_overflows_before_all_do, setup, teardown),
		cmocka_unit_test_setup_teardown(more_files_than_fit_count_as_a_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(random_ranges_are_never_forgotten, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
