/* The record of a host's rids (lib/run/instance.c): its directory may be another user's, who is not to have root do him favours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "instance.h"

static struct instance_conf conf;
static char dir[] = "/tmp/test_instance.XXXXXX";

static char *in_dir(char *buf, size_t size, const char *name)
{
	snprintf(buf, size, "%s/%s", dir, name);
	return buf;
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	in_dir(conf.runtime_dir, sizeof(conf.runtime_dir), "run");
	in_dir(conf.state_dir, sizeof(conf.state_dir), "state");
	return mkdir(conf.runtime_dir, 0755) < 0 || mkdir(conf.state_dir, 0755) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	char cmd[sizeof(dir) + 16];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void what_is_no_file_of_its_own_is_not_written(const char *name, int (*make)(const char *old, const char *new))
{
	char secret[256], path[256], text[8] = "";
	uint64_t rid;
	struct stat st;
	FILE *f = fopen(in_dir(secret, sizeof(secret), "secret"), "w");

	assert_non_null(f);
	fputs("secret", f);
	fclose(f);
	in_dir(path, sizeof(path), name);
	unlink(path);
	assert_int_equal(make(secret, path), 0);
	assert_true(instance_rid_get(&conf, &rid) < 0);
	f = fopen(secret, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	assert_string_equal(text, "secret");
	assert_int_equal(stat(secret, &st), 0);
	assert_int_equal(st.st_uid, geteuid());
	unlink(path);
	unlink(secret);
}

static void links_in_the_state_directory_lead_nowhere(void **state)
{
	uint64_t rid, again;

	(void)state;
	what_is_no_file_of_its_own_is_not_written("state/rids", symlink);
	what_is_no_file_of_its_own_is_not_written("state/rids", link);
	what_is_no_file_of_its_own_is_not_written("state/rids.lock", symlink);
	what_is_no_file_of_its_own_is_not_written("state/rids.lock", link);
	assert_int_equal(instance_rid_get(&conf, &rid), 0);
	assert_int_equal(instance_rid_get(&conf, &again), 0);
	assert_true(rid == again);
	assert_int_equal(instance_rid_is_ours(&conf, rid), 1);
	assert_int_equal(instance_rid_is_ours(&conf, rid ^ 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links_in_the_state_directory_lead_nowhere),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
