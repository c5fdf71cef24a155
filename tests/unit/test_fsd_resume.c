/*
 * A mount whose commit was refused or whose process has died in one, and the next process: what it has left is in the
 * next commit (resume.c), as if there had been one generation.
 */
#include "fsd_model.h"

/* What a commit has in its hands when the process ends; by whom it was allocated, for its callers may not be in the trace. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:services/fsd/stream.c\nleak:pool_collect\n";
}

/* The generation that is open is closed, and its commit refused: blockd has fenced this mount. */
static void lose_commit(void)
{
	uint64_t end_ns = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	unsigned told = atomic_load(&leader.told_fenced);

	pthread_mutex_lock(&leader.lock);
	leader.refuses = true;
	pthread_mutex_unlock(&leader.lock);
	txn_commit(&fsd, TXN_FSYNC, NULL, NULL);
	while (atomic_load(&leader.told_fenced) == told) {
		assert_true(clock_mono_ns() < end_ns);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static void next_process(void)
{
	mount_stop();
	pthread_mutex_lock(&leader.lock);
	leader.refuses = false;
	pthread_mutex_unlock(&leader.lock);
	mount_start(true);
}

static int setup_quiet(void **state)
{
	setup_rare(state);
	leader.finalize_every = leader.hold_every = 0;
	return 0;
}

static void a_commit_that_blockd_refuses_ends_the_mount(void **state)
{
	unsigned commits;

	(void)state;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	commits = leader.commits;
	do_step(&inodes[0], WRITE);
	lose_commit();
	mount_stop();
	assert_int_equal(atomic_load(&leader.told_fenced), 1);	/* and it is not tried again */
	assert_int_equal(leader.commits, commits);
	leader.refuses = false;
	mount_start(true);
}

/* In the generation that was lost inodes lose their last link, or get one, and in the one after they change again. */
static void orphans_of_a_lost_generation_are_in_the_next_commit(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++)
		do_step(&inodes[i], CREATE);
	for (unsigned i = 4; i < 8; i++)
		do_step(&inodes[i], ORPHAN);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	do_step(&inodes[0], ORPHAN);
	do_step(&inodes[1], ORPHAN);
	do_step(&inodes[4], ADOPT);
	do_step(&inodes[5], ADOPT);
	do_step(&inodes[6], TOUCH);
	lose_commit();
	do_step(&inodes[0], TOUCH);
	do_step(&inodes[1], ADOPT);
	do_step(&inodes[2], ORPHAN);
	do_step(&inodes[4], TOUCH);
	do_step(&inodes[5], ORPHAN);
	do_step(&inodes[6], ADOPT);
	do_step(&inodes[7], DELETE);
	next_process();
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
	do_step(&inodes[0], DELETE);
	do_step(&inodes[2], ADOPT);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup_quiet, teardown)
	const struct CMUnitTest tests[] = {
		T(a_commit_that_blockd_refuses_ends_the_mount),
		T(orphans_of_a_lost_generation_are_in_the_next_commit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
