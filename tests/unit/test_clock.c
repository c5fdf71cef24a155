/* Waiting on a condition until a moment of the monotonic clock, whichever clock the condition was made for. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;	/* by the time of day, if left alone */
static bool is_waked;

static void a_wait_ends_when_its_time_has_come(void **state)
{
	uint64_t end = clock_mono_ns() + 20 * NSEC_PER_MSEC;

	(void)state;
	pthread_mutex_lock(&mutex);
	while (clock_cond_wait(&cond, &mutex, end) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&mutex);
	assert_true(clock_mono_ns() >= end);
}

static void what_is_over_is_not_waited_for(void **state)
{
	(void)state;
	pthread_mutex_lock(&mutex);
	assert_int_equal(clock_cond_wait(&cond, &mutex, 0), ETIMEDOUT);
	pthread_mutex_unlock(&mutex);
}

static void *wake(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&mutex);
	is_waked = true;
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&mutex);
	return NULL;
}

static void who_is_waked_goes_on(void **state)
{
	uint64_t end = clock_mono_ns() + 120 * NSEC_PER_SEC;
	pthread_t thread;
	int ret = 0;

	(void)state;
	pthread_mutex_lock(&mutex);
	assert_int_equal(pthread_create(&thread, NULL, wake, NULL), 0);
	while (!is_waked && ret == 0)
		ret = clock_cond_wait(&cond, &mutex, end);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	assert_int_equal(ret, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wait_ends_when_its_time_has_come),
		cmocka_unit_test(what_is_over_is_not_waited_for),
		cmocka_unit_test(who_is_waked_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
