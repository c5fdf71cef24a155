/*
 * A mutex that one thread is always the next to have (services/serverd/turns.c), against a thread that unlocks it only
 * to lock it again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "services/serverd/turns.h"

#define ROUNDS	300u

static struct turns turns = TURNS_INITIALIZER;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned late;		/* how often it was had by the other while the first one waited; the mutex's */
static atomic_uint entries;
static atomic_bool stops;

static void *greedy(void *arg)
{
	(void)arg;
	while (!atomic_load(&stops)) {
		turns_lock(&turns, &mutex);
		late += turns_is_wanted(&turns);
		for (unsigned i = 0; i < 20000 && !atomic_load(&stops); i++)
			;
		atomic_fetch_add(&entries, 1);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

/* It may have looked just before; then it had it once. */
static void who_goes_first_waits_for_one_that_had_looked_before(void **state)
{
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, greedy, NULL), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned seen = atomic_load(&entries), was_late;

		/* the other one is at it again */
		while (atomic_load(&entries) == seen)
			nanosleep(&(struct timespec){ .tv_nsec = 10000 }, NULL);
		turns_lock_first(&turns, &mutex);
		was_late = late;
		late = 0;
		assert_false(turns_is_wanted(&turns));
		pthread_mutex_unlock(&mutex);
		assert_true(was_late <= 1);
	}
	atomic_store(&stops, true);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_goes_first_waits_for_one_that_had_looked_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
