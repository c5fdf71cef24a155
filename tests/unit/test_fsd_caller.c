/*
 * caller.c, threads and memory for the answers of ioctls: users whose programs never take theirs hold up neither root nor, all of
 * them, each other's memory.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"
#include "services/fsd/caller.h"

#define USERS		20u
#define PER_USER	6u
#define THREADS		64u
#define FOR_ROOT	4u
#define MIB		(1u << 20)

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned users, roots, done;	/* hang now; have ended */
	bool is_over;
} jobs = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static void hang(void *arg)
{
	unsigned *nr = arg;

	pthread_mutex_lock(&jobs.mutex);
	++*nr;
	pthread_cond_broadcast(&jobs.cond);
	while (!jobs.is_over)
		pthread_cond_wait(&jobs.cond, &jobs.mutex);
	--*nr;
	jobs.done++;
	pthread_cond_broadcast(&jobs.cond);
	pthread_mutex_unlock(&jobs.mutex);
}

static void await(const unsigned *what, unsigned nr)
{
	uint64_t end_ns = clock_mono_ns() + 60 * NSEC_PER_SEC;
	int rc = 0;

	pthread_mutex_lock(&jobs.mutex);
	while (*what != nr && rc == 0)
		rc = clock_cond_wait(&jobs.cond, &jobs.mutex, end_ns);
	assert_int_equal(*what, nr);
	pthread_mutex_unlock(&jobs.mutex);
}

static int begin(void **state)
{
	(void)state;
	jobs.is_over = false;
	jobs.done = 0;
	return 0;
}

static void end(unsigned nr)
{
	pthread_mutex_lock(&jobs.mutex);
	jobs.is_over = true;
	pthread_cond_broadcast(&jobs.cond);
	pthread_mutex_unlock(&jobs.mutex);
	await(&jobs.done, nr);
}

static void users_that_hang_leave_threads_to_root(void **state)
{
	(void)state;
	for (uint32_t uid = 1; uid <= USERS; uid++) {
		for (unsigned i = 0; i < PER_USER; i++)
			assert_int_equal(caller_run(uid, 1, hang, &jobs.users), 0);
	}
	await(&jobs.users, THREADS - FOR_ROOT);
	for (unsigned i = 0; i < FOR_ROOT; i++)
		assert_int_equal(caller_run(0, 1, hang, &jobs.roots), 0);
	await(&jobs.roots, FOR_ROOT);
	/* when they go on, all that waited have their turn */
	end(USERS * PER_USER + FOR_ROOT);
}

/* As much as fits, to the byte: what ended before may still be counted for a moment. */
static void fill(uint32_t uid, unsigned nr, size_t bytes, unsigned *what)
{
	uint64_t end_ns = clock_mono_ns() + 60 * NSEC_PER_SEC;

	while (nr) {
		if (caller_run(uid, bytes, hang, what) == 0) {
			nr--;
			continue;
		}
		assert_true(clock_mono_ns() < end_ns);
		sched_yield();
	}
}

static void refused(uint32_t uid, size_t bytes)
{
	assert_int_equal(caller_run(uid, bytes, hang, &jobs.users), -EAGAIN);
}

static void root_has_more_memory_where_there_is_some(void **state)
{
	(void)state;
	fill(0, 128, 3 * MIB / 2, &jobs.roots);		/* walks with a full answer */
	refused(0, MIB);
	/* a user has its share all the same, and not more */
	fill(1, 64, MIB, &jobs.users);
	refused(1, 1);
	refused(2, 1);
	end(128 + 64);
}

static void root_has_its_share_whatever_users_have(void **state)
{
	(void)state;
	for (uint32_t uid = 1; uid <= 4; uid++)
		fill(uid, 64, MIB, &jobs.users);
	refused(1, 1);
	refused(5, 1);
	fill(0, 64, MIB, &jobs.roots);
	refused(0, 1);
	end(5 * 64);
}

/*
 * Somebody without any right, who makes himself root in a user namespace: it knows him alone.  Another program, for one
 * with several threads may not (a sanitizer has some).
 */
static void own_namespace(int ready)
{
	if (dup2(ready, STDOUT_FILENO) < 0 || setresgid(1000, 1000, 1000) < 0 || setresuid(1000, 1000, 1000) < 0)
		_exit(1);
	execlp("unshare", "unshare", "-Ur", "sh", "-c", "echo && exec sleep 100", (char *)NULL);
	_exit(2);
}

static void capabilities_of_a_user_namespace_count_for_whom_it_knows(void **state)
{
	uint64_t caps;
	char c;
	int ready[2];
	pid_t pid;

	(void)state;
	assert_int_equal(caller_caps(0, 0, 0, &caps), -EOPNOTSUPP);
	assert_int_equal(caller_caps(getpid(), 12345, 12345, &caps), 0);
	assert_true(caps >> CAP_FOWNER & 1);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0)
		own_namespace(ready[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(caller_caps(pid, 0, 0, &caps), 0);
	assert_true(caps == 0);
	assert_int_equal(caller_caps(pid, 1000, 0, &caps), 0);
	assert_true(caps == 0);
	assert_int_equal(caller_caps(pid, 1000, 1000, &caps), 0);
	assert_true(caps >> CAP_FOWNER & 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(ready[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(capabilities_of_a_user_namespace_count_for_whom_it_knows),
		cmocka_unit_test_setup(users_that_hang_leave_threads_to_root, begin),
		cmocka_unit_test_setup(root_has_more_memory_where_there_is_some, begin),
		cmocka_unit_test_setup(root_has_its_share_whatever_users_have, begin),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	caller_stop(60000);
	return failed;
}
