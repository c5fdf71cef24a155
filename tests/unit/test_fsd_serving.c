/*
 * The threads that take the kernel's requests (services/fsd/serving.c): when all are busy for long another one takes the
 * next request, nobody looks for that while one is idle, and they end when they are told to.  A request is a byte in a pipe.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "services/fsd/serving.h"

#define DEADLINE_MS	120000u

enum { QUICK = 'q', STUCK = 's', BROKEN = 'b' };

static struct serving *serving;
static unsigned enough;
static int requests[2];
static pthread_t runner;
static int result;
static atomic_uint begun, ended, quick, stuck, failed;
static struct {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool is_open;
} gate = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static void *begin(void *arg)
{
	(void)arg;
	atomic_fetch_add(&begun, 1);
	return malloc(1);
}

static void end(void *arg, void *mine)
{
	(void)arg;
	atomic_fetch_add(&ended, 1);
	free(mine);
}

static int take(void *arg, void *mine)
{
	ssize_t n = read(requests[0], mine, 1);

	(void)arg;
	if (n == 1 && *(char *)mine == BROKEN)
		return -EIO;
	return n < 0 ? -errno : (int)n;
}

static void serve(void *arg, void *mine)
{
	(void)arg;
	if (*(char *)mine == QUICK) {
		atomic_fetch_add(&quick, 1);
		return;
	}
	pthread_mutex_lock(&gate.mutex);
	atomic_fetch_add(&stuck, 1);
	while (!gate.is_open)
		pthread_cond_wait(&gate.cond, &gate.mutex);
	pthread_mutex_unlock(&gate.mutex);
}

/* Nobody finds another request. */
static void let_nobody_take(void *arg)
{
	(void)arg;
	atomic_fetch_add(&failed, 1);
	close(requests[1]);
	requests[1] = -1;
}

static void *run(void *arg)
{
	(void)arg;
	result = serving_run(serving);
	return NULL;
}

static int setup(unsigned nr)
{
	static const struct serving_calls calls = {
		.begin = begin, .end = end, .take = take, .serve = serve, .fail = let_nobody_take,
	};

	enough = nr;
	atomic_store(&begun, 0);
	atomic_store(&ended, 0);
	atomic_store(&quick, 0);
	atomic_store(&stuck, 0);
	atomic_store(&failed, 0);
	gate.is_open = false;
	serving = serving_new(&calls, NULL, enough);
	return serving && pipe(requests) == 0 && pthread_create(&runner, NULL, run, NULL) == 0 ? 0 : -1;
}

static int setup_one(void **state)
{
	(void)state;
	return setup(1);
}

static int setup_three(void **state)
{
	(void)state;
	return setup(3);
}

/* They have ended, with that. */
static void is_over(int with)
{
	pthread_join(runner, NULL);
	assert_int_equal(result, with);
	assert_int_equal(atomic_load(&ended), atomic_load(&begun));
	serving_free(serving);
	close(requests[0]);
	if (requests[1] >= 0)
		close(requests[1]);
}

static void ask(char what)
{
	assert_int_equal(write(requests[1], &what, 1), 1);
}

static void wait_until(const atomic_uint *nr, unsigned wanted)
{
	uint64_t end_ns = clock_mono_ns() + DEADLINE_MS * NSEC_PER_MSEC;

	while (atomic_load(nr) != wanted && clock_mono_ns() < end_ns)
		usleep(1000);
	assert_int_equal(atomic_load(nr), wanted);
}

static void open_gate(void)
{
	pthread_mutex_lock(&gate.mutex);
	gate.is_open = true;
	pthread_cond_broadcast(&gate.cond);
	pthread_mutex_unlock(&gate.mutex);
}

static void when_all_are_stuck_another_takes_the_next_request(void **state)
{
	uint64_t longest_ns = 0;

	(void)state;
	for (unsigned nr = 1; nr < SERVING_THREADS; nr++) {
		uint64_t began_ns;

		ask(STUCK);
		wait_until(&stuck, nr);
		began_ns = clock_mono_ns();
		ask(QUICK);
		wait_until(&quick, nr);
		if (clock_mono_ns() - began_ns > longest_ns)
			longest_ns = clock_mono_ns() - began_ns;
	}
	print_message("the longest wait for a thread of the reserve: %llu ms\n",
		      (unsigned long long)(longest_ns / NSEC_PER_MSEC));
	/* All there are: the next waits for one of them. */
	ask(STUCK);
	wait_until(&stuck, SERVING_THREADS);
	ask(QUICK);
	open_gate();
	wait_until(&quick, SERVING_THREADS);
	assert_int_equal(atomic_load(&begun), SERVING_THREADS);
	/* Most are in reserve now: they end, too. */
	serving_stop(serving);
	assert_true(serving_is_stopped(serving));
	is_over(0);
}

/* The reserve is called again after it has rested. */
static void the_reserve_is_called_as_often_as_it_takes(void **state)
{
	(void)state;
	for (unsigned round = 1; round <= 3; round++) {
		pthread_mutex_lock(&gate.mutex);
		gate.is_open = false;
		pthread_mutex_unlock(&gate.mutex);
		for (unsigned i = 0; i < enough + 2; i++)
			ask(STUCK);
		wait_until(&stuck, round * (enough + 2));
		open_gate();
		for (unsigned i = 0; i < 100; i++)
			ask(QUICK);
		wait_until(&quick, round * 100);
	}
	close(requests[1]);	/* no more come */
	requests[1] = -1;
	is_over(0);
}

static void nobody_looks_while_one_is_idle(void **state)
{
	uint64_t end_ns = clock_mono_ns() + DEADLINE_MS * NSEC_PER_MSEC;
	unsigned before, after;

	(void)state;
	usleep(5 * SERVING_WATCH_MS * 1000);
	assert_int_equal(serving_looks(serving), 0);
	/* and after all have been busy it ends */
	for (unsigned i = 0; i < 500; i++)
		ask(QUICK);
	wait_until(&quick, 500);
	do {
		before = serving_looks(serving);
		usleep(5 * SERVING_WATCH_MS * 1000);
		after = serving_looks(serving);
	} while (before != after && clock_mono_ns() < end_ns);
	assert_int_equal(before, after);
	serving_stop(serving);
	is_over(0);
}

static void an_error_ends_all(void **state)
{
	(void)state;
	ask(QUICK);
	ask(QUICK);
	wait_until(&quick, 2);
	ask(BROKEN);
	is_over(-EIO);
	assert_int_equal(atomic_load(&failed), 1);
}

static void one_that_is_stopped_before_it_runs_serves_nothing(void **state)
{
	static const struct serving_calls none;
	struct serving *s = serving_new(&none, NULL, 0);

	(void)state;
	assert_non_null(s);
	serving_stop(s);
	assert_int_equal(serving_run(s), 0);
	serving_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* one is what a machine with two processors has */
		cmocka_unit_test_setup(when_all_are_stuck_another_takes_the_next_request, setup_one),
		cmocka_unit_test_setup(when_all_are_stuck_another_takes_the_next_request, setup_three),
		cmocka_unit_test_setup(the_reserve_is_called_as_often_as_it_takes, setup_one),
		cmocka_unit_test_setup(the_reserve_is_called_as_often_as_it_takes, setup_three),
		cmocka_unit_test_setup(nobody_looks_while_one_is_idle, setup_one),
		cmocka_unit_test_setup(nobody_looks_while_one_is_idle, setup_three),
		cmocka_unit_test_setup(an_error_ends_all, setup_one),
		cmocka_unit_test_setup(an_error_ends_all, setup_three),
		cmocka_unit_test(one_that_is_stopped_before_it_runs_serves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
