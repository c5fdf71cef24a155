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
	return world.is_used[ino % INODE_LOCK_GROUP];
}

int kcache_tell_removed(struct fsd *of, uint64_t parent, uint64_t ino, const char *name, size_t len)
{
	uint64_t n = ino % INODE_LOCK_GROUP;
	char want[16];
	int ret;

	(void)of;
	assert_int_equal(parent, PARENT);
	snprintf(want, sizeof(want), "dir%u", (unsigned)n);
	assert_string_equal(name, want);
	assert_int_equal(len, strlen(want));
	pthread_mutex_lock(&world.lock);
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
#define RUN_PARKS(name)					\
	int name(struct op *op, struct itx *tx)		\
	{						\
		(void)tx;				\
		return op->err ? op->err : -ENOSYS;	\
	}
RUN_PARKS(dir_run_create)
RUN_PARKS(dir_run_tmpfile)
RUN_PARKS(dir_run_link)
RUN_PARKS(dir_run_unlink)
RUN_PARKS(dir_run_rmdir)
RUN_PARKS(dir_run_rename)
RUN_PARKS(readdir_run)

static struct op *parked;

static void stay(struct op *op)
{
	parked = op;
}

int dir_run_lookup(struct op *op, struct itx *tx)
{
	(void)tx;
	return parked ? 0 : op_park(op, stay);
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

static unsigned wait_nr(const unsigned *what, unsigned nr)
{
	struct timespec until;
	unsigned got;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += DEADLINE_S;
	pthread_mutex_lock(&world.lock);
	while (*what < nr && pthread_cond_timedwait(&world.cond, &world.lock, &until) == 0)
		;
	got = *what;
	pthread_mutex_unlock(&world.lock);
	return got;
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
	return ops_start(&fsd, 2) < 0 || gonedirs_start(&fsd) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	ops_drain(&fsd);
	gonedirs_stop(true);
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

/* A directory in it comes first; the kernel says so. */
static void what_is_not_empty_for_the_kernel_is_told_again(void **state)
{
	(void)state;
	name_all();
	world.links[5] = 0;
	world.says[5] = -ENOTEMPTY;
	gonedir_asked(GROUP);
	assert_int_equal(wait_nr(&world.told[5], 2), 2);
}

/* The kernel has the directory above locked for it, and a thread that waits for that cannot be killed. */
static void nothing_is_told_while_an_operation_in_the_directory_above_is_parked(void **state)
{
	struct dir_op look = { .op = { .fsd = &fsd, .name = "lookup", .run = dir_run_lookup, .done = no_answer }, .dir = PARENT };
	unsigned told;

	(void)state;
	op_start(&look.op);
	assert_non_null(parked);
	name_all();
	world.links[6] = 0;
	gonedir_asked(GROUP);
	wait_nr(&world.looked[6], 2);	/* it has been put off once */
	pthread_mutex_lock(&world.lock);
	told = world.told[6];
	pthread_mutex_unlock(&world.lock);
	op_wake(parked);
	ops_drain(&fsd);	/* it is on this stack */
	assert_int_equal(told, 0);
	assert_int_equal(wait_nr(&world.told[6], 1), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(only_what_has_no_link_is_told_and_once),
		T(what_the_kernel_has_forgotten_or_moved_is_known_as_such),
		T(what_is_not_empty_for_the_kernel_is_told_again),
		T(nothing_is_told_while_an_operation_in_the_directory_above_is_parked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
