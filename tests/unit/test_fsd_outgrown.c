/*
 * Directories that the item cache no longer holds: one that this mount made is added to without its
 * entries being read; one whose lock was away is not taken for what it was.
 */
#include "fsd_fakes.h"

#include <errno.h>

#include "csum/csum.h"
#include "services/fsd/names.h"
#include "services/fsd/ops_dir.h"

#define OLD	400u
#define NEW	200u

static int setup(void **state)
{
	(void)state;
	fake_open(11, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_close();
	return 0;
}

/* Names stand in the order of a hash that keeps something of their letters: these are spread. */
static struct name name_of(const char *what, unsigned i)
{
	struct name n = { 0 };

	n.len = (uint16_t)snprintf(n.bytes, sizeof(n.bytes), "%08x%s%u", i * 2654435761u, what, i);
	return n;
}

static int make(uint64_t dir, const struct name *name, uint32_t mode, uint64_t *ino)
{
	struct dir_op d = { .dir = dir, .name = *name, .mode = mode, .umask = 022 };
	int ret = fake_run(&d.op, true, dir_run_create);

	if (ino)
		*ino = d.ino;
	return ret;
}

static int look_up(uint64_t dir, const struct name *name)
{
	struct dir_op d = { .dir = dir, .name = *name };

	return fake_run(&d.op, false, dir_run_lookup);
}

static void make_many(uint64_t dir, const char *what, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		struct name name = name_of(what, i);

		assert_int_equal(make(dir, &name, S_IFREG | 0644, NULL), 0);
	}
}

/* All is committed, and nothing of it cached. */
static void forget_all(void)
{
	fake_sync();
	while (items_evict(&fake.fsd, true))
		;
}

static uint64_t make_dir(unsigned i)
{
	struct name name = name_of("dir", i);
	uint64_t dir;

	assert_int_equal(make(ROOT_INO, &name, S_IFDIR | 0755, &dir), 0);
	return dir;
}

static void directory_made_here_is_added_to_without_reading_its_entries(void **state)
{
	uint64_t dir = make_dir(1);
	struct name name;

	(void)state;
	make_many(dir, "old", OLD);
	for (unsigned i = 0; i < NEW; i++) {
		forget_all();
		fake.name_reads = 0;
		name = name_of("new", i);
		assert_int_equal(make(dir, &name, S_IFREG | 0644, NULL), 0);
		name = name_of("none", i);
		assert_int_equal(look_up(dir, &name), -ENOENT);
		assert_int_equal(fake.name_reads, 0);
	}
	for (unsigned i = 0; i < OLD; i++) {
		name = name_of("old", i);
		if (i % 10 == 0)
			forget_all();
		assert_int_equal(make(dir, &name, S_IFREG | 0644, NULL), -EEXIST);
		assert_int_equal(look_up(dir, &name), 0);
	}
	for (unsigned i = 0; i < NEW; i++) {
		name = name_of("new", i);
		assert_int_equal(make(dir, &name, S_IFREG | 0644, NULL), -EEXIST);
	}
}

/* What another mount does while it has the lock: the trees have an entry that this one never made. */
static void put_behind_our_back(uint64_t dir, const struct name *name, uint64_t ino)
{
	struct { struct disk_dirent head; char name[NAME_MAX_BYTES]; } val = { 0 };
	uint64_t hash = dirent_name_hash(name->bytes, name->len), pos = 1000;
	struct key key = key_dirent(dir, hash, pos);

	val.head.ino = le64_of(ino);
	val.head.hash = le64_of(hash);
	val.head.pos = le64_of(pos);
	val.head.type = (uint8_t)dirent_type_of_mode(S_IFREG);
	memcpy((char *)&val + sizeof(val.head), name->bytes, name->len);
	forest_put(&key, &val, sizeof(val.head) + name->len);
}

static void names_end_with_the_lock(void **state)
{
	const struct key first = KEY_ZEROS, last = KEY_ONES;
	struct name name = name_of("theirs", 0), own = name_of("own", 0);
	uint64_t dir = make_dir(1), ino;

	(void)state;
	make_many(dir, "old", OLD);
	assert_int_equal(make(dir, &own, S_IFREG | 0644, &ino), 0);
	forget_all();
	assert_true(names_are_known(&fake.fsd, dir));
	/* as long as the lock is ours nobody can have made it, so nobody looks */
	assert_int_equal(look_up(dir, &name), -ENOENT);
	assert_int_equal(items_drop(&fake.fsd, &first, &last), 0);
	put_behind_our_back(dir, &name, ino);
	assert_false(names_are_known(&fake.fsd, dir));
	assert_int_equal(look_up(dir, &name), 0);
	assert_int_equal(make(dir, &name, S_IFREG | 0644, NULL), -EEXIST);
	/* from now on its entries are read, as any other's */
	fake.name_reads = 0;
	for (unsigned i = 0; i < 20; i++) {
		forget_all();
		name = name_of("none", i);
		assert_int_equal(look_up(dir, &name), -ENOENT);
	}
	assert_in_range(fake.name_reads, 1, 1000);
}

static void directory_that_failed_to_be_made_is_no_directory(void **state)
{
	struct name name = name_of("dir", 1);
	uint64_t dir = make_dir(1), other;

	(void)state;
	assert_int_equal(make(ROOT_INO, &name, S_IFDIR | 0755, &other), -EEXIST);
	make_many(dir, "file", 3);
	forget_all();
	name = name_of("file", 1);
	assert_int_equal(look_up(dir, &name), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			directory_made_here_is_added_to_without_reading_its_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(names_end_with_the_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(directory_that_failed_to_be_made_is_no_directory, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
