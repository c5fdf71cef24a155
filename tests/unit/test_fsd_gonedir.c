/*
 * Directories that another node has removed: which ones the kernel is told of, and when (services/fsd/gonedir.c).  Locks are
 * granted; inodes are a number of links each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "clock.h"
#include "fsd_stubs.h"
#include "services/fsd/fuse.h"
#include "services/fsd/gonedir.h"
#include "services/fsd/inode.h"
#include "services/fsd/ops_attr.h"
#include "services/fsd/ops_dir.h"
#include "services/fsd/orphan.h"

#define GROUP		5u
#define INO(n)		(GROUP * INODE_LOCK_GROUP + (n))
#define PARENT		(GROUP * INODE_LOCK_GROUP + 900u)
#define MANY		20000u	/* of other groups */
#define DIRS		8u
#define DEADLINE_S	60u

static struct fsd fsd;
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	uint32_t links[DIRS];
	bool is_used[DIRS];
	unsigned looked[DIRS], told[DIRS];
	int says[DIRS];		/* the kernel, the first time */
	bool has_unread;
	unsigned asked_unread;
	bool waits, is_waiting;	/* in the kernel */
} world = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

int lock_inode(struct op *op, uint64_t ino, enum lock_mode mode)
{
	(void)op, (void)ino;
	assert_int_equal(mode, LOCK_MODE_READ);
	return 0;
}

int inode_get(struct itx *tx, uint64_t ino, struct cinode *ci)
{
	uint64_t n = ino % INODE_LOCK_GROUP;

	(void)tx;
	assert_in_range(n, 0, DIRS - 1);
	memset(ci, 0, sizeof(*ci));
	pthread_mutex_lock(&world.lock);
	ci->d.nlink = le32_of(world.links[n]);
	world.looked[n]++;
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	return 0;
}

bool inode_in_use(struct fsd *of, uint64_t ino)
{
	(void)of;
	return ino / INODE_LOCK_GROUP == GROUP && world.is_used[ino % INODE_LOCK_GROUP];
}

bool kcache_has_unread(struct fsd *of)
{
	bool has;

	(void)of;
	pthread_mutex_lock(&world.lock);
	world.asked_unread++;
	has = world.has_unread;
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	return has;
}

int kcache_tell_removed(struct fsd *of, uint64_t parent, const char *name, size_t len)
{
	unsigned n;
	int ret;

	(void)of;
	assert_int_equal(parent, PARENT);
	assert_int_equal(sscanf(name, "dir%u", &n), 1);
	assert_in_range(n, 0, DIRS - 1);
	assert_int_equal(len, strlen(name));
	pthread_mutex_lock(&world.lock);
	world.is_waiting = world.waits;
	pthread_cond_broadcast(&world.cond);
	while (world.waits)
		pthread_cond_wait(&world.cond, &world.lock);
	world.is_waiting = false;
	ret = world.told[n]++ ? 0 : world.says[n];
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	return ret;
}

int items_begin(struct fsd *of, struct op *op, bool write, struct itx *tx)
{
	*tx = (struct itx){ .fsd = of, .op = op, .write = write };
	return 0;
}
int items_commit(struct itx *tx) { (void)tx; return 0; }
void items_abort(struct itx *tx) { (void)tx; }
void fsd_fail(struct fsd *of, const char *fmt, ...)
{
	(void)of;
	fprintf(stderr, "fsd_fail: %s\n", fmt);
	abort();
}

/* What a parked operation on names is known by. */
static struct op *parked;

static void stay(struct op *op)
{
	parked = op;
}

#define RUN_PARKS(name)					\
	int name(struct op *op, struct itx *tx);	\
	int name(struct op *op, struct itx *tx)		\
	{						\
		(void)tx;				\
		return parked ? 0 : op_park(op, stay);	\
	}
RUN_PARKS(dir_run_lookup)
RUN_PARKS(dir_run_create)
RUN_PARKS(dir_run_tmpfile)
RUN_PARKS(dir_run_link)
RUN_PARKS(dir_run_unlink)
RUN_PARKS(dir_run_rmdir)
RUN_PARKS(dir_run_rename)
RUN_PARKS(readdir_run)
RUN_PARKS(attr_run_set)
RUN_PARKS(xattr_run_set)
RUN_PARKS(xattr_run_remove)
RUN_PARKS(run_fsync)
RUN_PARKS(run_for_earlier)

bool fuse_is_fsync_of(const struct op *op, uint64_t ino)
{
	return op->run == run_fsync && ((const struct attr_op *)op)->ino == ino;
}

static void no_answer(struct op *op, int err)
{
	(void)op;
	assert_int_equal(err, 0);
}

static void name_all(void)
{
	char name[16];

	for (unsigned n = 0; n < DIRS; n++) {
		snprintf(name, sizeof(name), "dir%u", n);
		gonedir_named(INO(n), PARENT, name, strlen(name));
	}
}

/* With the lock held; false: not within the deadline. */
static bool wait_for(bool (*is)(void))
{
	uint64_t end_ns = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	bool did;

	pthread_mutex_lock(&world.lock);
	while (!(did = is()) && clock_cond_wait(&world.cond, &world.lock, end_ns) == 0)
		;
	pthread_mutex_unlock(&world.lock);
	return did;
}

static const unsigned *counter;
static unsigned counter_min;

static bool has_counted(void)
{
	return *counter >= counter_min;
}

static unsigned wait_nr(const unsigned *what, unsigned nr)
{
	unsigned got;

	counter = what;
	counter_min = nr;
	wait_for(has_counted);
	pthread_mutex_lock(&world.lock);
	got = *what;
	pthread_mutex_unlock(&world.lock);
	return got;
}

static bool is_waiting(void)
{
	return world.is_waiting;
}

/* Put off: it has been tried once, and then again. */
static bool was_told_or_put_off(void)
{
	return world.told[6] || world.asked_unread > 1;
}

static int setup(void **state)
{
	(void)state;
	memset(&fsd, 0, sizeof(fsd));
	for (unsigned n = 0; n < DIRS; n++) {
		world.links[n] = 2;
		world.is_used[n] = true;
		world.looked[n] = world.told[n] = 0;
		world.says[n] = 0;
	}
	parked = NULL;
	world.has_unread = world.waits = false;
	world.asked_unread = 0;
	return ops_start(&fsd, 2) < 0 || gonedirs_start(&fsd) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	ops_drain(&fsd);
	assert_true(gonedirs_stop(DEADLINE_S * 1000));
	ops_stop(&fsd);
	for (unsigned n = 0; n < DIRS; n++) {
		world.is_used[n] = false;
		gonedir_forgotten(&fsd, INO(n));
	}
	return 0;
}

static void only_what_has_no_link_is_told_and_once(void **state)
{
	(void)state;
	name_all();
	world.links[3] = 0;
	gonedir_asked(GROUP);
	assert_int_equal(wait_nr(&world.told[3], 1), 1);
	/* it is not looked at any more, the others are */
	gonedir_asked(GROUP);
	assert_int_equal(wait_nr(&world.looked[7], 2), 2);
	for (unsigned n = 0; n < DIRS; n++)
		assert_int_equal(world.told[n], n == 3);
	assert_int_equal(world.looked[3], 1);
}

static void what_the_kernel_has_forgotten_or_moved_is_known_as_such(void **state)
{
	(void)state;
	gonedir_named(INO(1), PARENT, "other", 5);
	gonedir_moved(INO(1), PARENT, "dir1", 4);
	gonedir_named(INO(2), PARENT, "dir2", 4);
	gonedir_moved(INO(4), PARENT, "dir4", 4);	/* never given */
	world.links[1] = world.links[2] = world.links[4] = 0;
	world.is_used[2] = false;
	gonedir_forgotten(&fsd, INO(1));
	gonedir_forgotten(&fsd, INO(2));
	gonedir_asked(GROUP);
	assert_int_equal(wait_nr(&world.told[1], 1), 1);
	assert_int_equal(world.looked[2] + world.looked[4], 0);
}

static void what_could_not_be_told_is_told_again_without_another_look(void **state)
{
	(void)state;
	name_all();
	world.links[5] = 0;
	world.says[5] = -EAGAIN;
	gonedir_asked(GROUP);
	assert_int_equal(wait_nr(&world.told[5], 2), 2);
	assert_int_equal(world.looked[5], 1);
}

/* Whether directory 6 is put off while op is parked. */
static bool is_put_off_by(struct op *op)
{
	bool told;

	assert_true(gonedirs_stop(DEADLINE_S * 1000));	/* it has done with the last one */
	assert_int_equal(gonedirs_start(&fsd), 0);
	op->fsd = &fsd;
	op->name = "parked";
	op->done = no_answer;
	parked = NULL;
	op_start(op);
	assert_non_null(parked);
	world.told[6] = world.asked_unread = 0;
	name_all();
	gonedir_asked(GROUP);
	assert_true(wait_for(was_told_or_put_off));
	pthread_mutex_lock(&world.lock);
	told = world.told[6];
	pthread_mutex_unlock(&world.lock);
	op_wake(parked);
	ops_drain(&fsd);	/* it is on this stack */
	assert_int_equal(wait_nr(&world.told[6], 1), 1);
	return !told;
}

/* The kernel has a directory locked for it, and a thread that waits for that cannot be killed. */
static void nothing_is_told_while_an_operation_in_either_directory_is_parked(void **state)
{
	static int (*const in_names[])(struct op *, struct itx *) = {
		dir_run_lookup, dir_run_create, dir_run_tmpfile, dir_run_link, dir_run_unlink, dir_run_rmdir, dir_run_rename,
	};
	static int (*const in_attrs[])(struct op *, struct itx *) = { attr_run_set, run_fsync };
	static int (*const in_xattrs[])(struct op *, struct itx *) = { xattr_run_set, xattr_run_remove };
	static const struct op_again again = { .run = run_for_earlier };
	static const uint64_t which[] = { PARENT, INO(6) };

	(void)state;
	world.links[6] = 0;
	for (unsigned w = 0; w < 2; w++) {
		for (size_t i = 0; i < sizeof(in_names) / sizeof(in_names[0]); i++) {
			struct dir_op d = { .op.run = in_names[i], .dir = which[w] };
			struct dir_op to = { .op.run = in_names[i], .dir = INO(3), .new_dir = which[w] };

			assert_true(is_put_off_by(&d.op));
			if (in_names[i] == dir_run_link)
				assert_true(is_put_off_by(&to.op));
		}
		for (unsigned i = 0; i < 2; i++) {
			struct attr_op a = { .op.run = in_attrs[i], .ino = which[w] };
			struct xattr_op x = { .op.run = in_xattrs[i], .ino = which[w] };

			assert_true(is_put_off_by(&a.op));
			assert_true(is_put_off_by(&x.op));
		}
		{
			struct readdir_op r = { .op.run = readdir_run, .ino = which[w] };

			assert_true(is_put_off_by(&r.op));
		}
	}
	/* which directory is removed by name is not known, nor what was sent again */
	struct dir_op rmdir = { .op.run = dir_run_rmdir, .dir = INO(3) };
	struct dir_op earlier = { .op = { .run = run_for_earlier, .again = &again } };
	struct dir_op other = { .op.run = dir_run_lookup, .dir = INO(3) };

	assert_true(is_put_off_by(&rmdir.op));
	assert_true(is_put_off_by(&earlier.op));
	assert_false(is_put_off_by(&other.op));
}

static void nothing_is_told_while_there_are_requests_that_nobody_has_looked_at(void **state)
{
	(void)state;
	name_all();
	world.links[6] = 0;
	world.has_unread = true;
	gonedir_asked(GROUP);
	wait_nr(&world.asked_unread, 2);
	pthread_mutex_lock(&world.lock);
	assert_int_equal(world.told[6], 0);
	world.has_unread = false;
	pthread_mutex_unlock(&world.lock);
	assert_int_equal(wait_nr(&world.told[6], 1), 1);
}

/* A restart waits for it while requests are still read, and no longer than it wants to. */
static void a_stop_waits_for_what_is_being_told_and_says_when_that_takes_too_long(void **state)
{
	(void)state;
	name_all();
	world.links[2] = world.links[6] = 0;
	world.waits = true;
	gonedir_asked(GROUP);
	assert_true(wait_for(is_waiting));
	assert_false(gonedirs_stop(1));
	pthread_mutex_lock(&world.lock);
	world.waits = false;
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	assert_true(gonedirs_stop(DEADLINE_S * 1000));
	/* the other one is not told any more, and a second stop finds nothing to do */
	assert_int_equal(world.told[2] + world.told[6], 1);
	assert_true(gonedirs_stop(0));
}

static void each_of_many_is_found_and_forgotten(void **state)
{
	const uint64_t first = 100 * INODE_LOCK_GROUP;

	(void)state;
	for (unsigned i = 0; i < MANY / 2; i++)
		gonedir_named(first + i, PARENT, "many", 4);
	name_all();
	for (unsigned i = MANY / 2; i < MANY; i++)
		gonedir_named(first + i, PARENT, "many", 4);
	for (unsigned i = 0; i < DIRS; i++)
		world.is_used[i] = i != 4;
	gonedir_forgotten(&fsd, INO(4));
	world.links[1] = world.links[4] = world.links[7] = 0;
	gonedir_asked(GROUP);
	assert_int_equal(wait_nr(&world.told[1], 1), 1);
	assert_int_equal(wait_nr(&world.told[7], 1), 1);
	assert_int_equal(world.looked[4], 0);
	for (unsigned i = 0; i < DIRS; i++)
		world.is_used[i] = false;
	for (unsigned i = 0; i < MANY; i++)
		gonedir_forgotten(&fsd, first + i);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(only_what_has_no_link_is_told_and_once),
		T(what_the_kernel_has_forgotten_or_moved_is_known_as_such),
		T(what_could_not_be_told_is_told_again_without_another_look),
		T(nothing_is_told_while_an_operation_in_either_directory_is_parked),
		T(nothing_is_told_while_there_are_requests_that_nobody_has_looked_at),
		T(a_stop_waits_for_what_is_being_told_and_says_when_that_takes_too_long),
		T(each_of_many_is_found_and_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
