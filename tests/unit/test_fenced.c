/*
 * What is known to be fenced: kept for other processes and later ones, whatever happens in between; never
 * more than was said.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fenced.h"

static char path[128];
static struct instance_conf conf;

static int make_dir(void **state)
{
	(void)state;
	memset(&conf, 0, sizeof(conf));
	strcpy(conf.runtime_dir, "/tmp/scoutfs-fenced.XXXXXX");
	if (!mkdtemp(conf.runtime_dir))
		return -1;
	conf_runtime_path(&conf, "fenced", path, sizeof(path));
	return 0;
}

static int remove_dir(void **state)
{
	char lock[160];

	(void)state;
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(lock);
	if (unlink(path) < 0)
		rmdir(path);
	return rmdir(conf.runtime_dir);
}

static void append(const char *text)
{
	FILE *f = fopen(path, "a");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void what_was_added_is_known_and_nothing_else(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(fenced_has(&conf, 7), 0);
	assert_int_equal(fenced_add(&conf, 7), 0);
	assert_int_equal(fenced_add(&conf, 0xfedcba9876543210ull), 0);
	assert_int_equal(fenced_add(&conf, 7), 0);
	assert_int_equal(fenced_has(&conf, 7), 1);
	assert_int_equal(fenced_has(&conf, 0xfedcba9876543210ull), 1);
	assert_int_equal(fenced_has(&conf, 0xfedcba987654321full), 0);
	assert_int_equal(fenced_has(&conf, 0x70), 0);
	assert_int_equal(fenced_add(&conf, 0), -EINVAL);
	assert_int_equal(fenced_add(&conf, UINT64_MAX), -EINVAL);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 2 * 17);
}

static void lines_that_are_no_rids_name_nobody(void **state)
{
	(void)state;
	append("000000000000000g\n00000000000000011\n\n00000000000000ab \n0000000000000000\n0000000000000005");
	assert_int_equal(fenced_has(&conf, 1), 0);
	assert_int_equal(fenced_has(&conf, 0x11), 0);
	assert_int_equal(fenced_has(&conf, 0xab), 0);
	assert_int_equal(fenced_has(&conf, 0), 0);
	assert_int_equal(fenced_has(&conf, 5), 0);	/* cut: it may have been another one */
	assert_int_equal(fenced_add(&conf, 9), 0);
	assert_int_equal(fenced_has(&conf, 9), 1);
	append("0000000000000006\n");
	assert_int_equal(fenced_has(&conf, 6), 1);
	assert_int_equal(fenced_has(&conf, 9), 1);
}

static void a_list_that_is_full_forgets_the_oldest(void **state)
{
	struct stat st;
	FILE *f = fopen(path, "w");

	(void)state;
	assert_non_null(f);
	for (unsigned i = 1; i <= 4096; i++)
		fprintf(f, "%016x\n", i);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(fenced_has(&conf, 1), 1);
	assert_int_equal(fenced_add(&conf, 5000), 0);
	assert_int_equal(fenced_has(&conf, 1), 0);
	assert_int_equal(fenced_has(&conf, 4096), 1);
	assert_int_equal(fenced_has(&conf, 5000), 1);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 2049 * 17);
}

static void several_processes_lose_nothing(void **state)
{
	int status;

	(void)state;
	for (uint64_t p = 1; p <= 4; p++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			for (uint64_t i = 0; i < 25; i++) {
				if (fenced_add(&conf, p << 32 | i) < 0)
					_exit(1);
			}
			_exit(0);
		}
	}
	for (unsigned p = 1; p <= 4; p++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	for (uint64_t p = 1; p <= 4; p++) {
		for (uint64_t i = 0; i < 25; i++)
			assert_int_equal(fenced_has(&conf, p << 32 | i), 1);
	}
}

static void what_cannot_be_read_or_kept_is_an_error_not_a_yes(void **state)
{
	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	assert_true(fenced_has(&conf, 7) < 0);
	assert_true(fenced_add(&conf, 7) < 0);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(fenced_has(&conf, 7), 0);
	assert_int_equal(mkdir(path, 0700), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
	const struct CMUnitTest tests[] = {
		TEST(what_was_added_is_known_and_nothing_else),
		TEST(lines_that_are_no_rids_name_nobody),
		TEST(a_list_that_is_full_forgets_the_oldest),
		TEST(several_processes_lose_nothing),
		TEST(what_cannot_be_read_or_kept_is_an_error_not_a_yes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
