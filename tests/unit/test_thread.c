/* The threads of the services (lib/run/thread.c): who looks sees their names, and signals go to others. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "thread.h"

struct seen {
	char name[THREAD_NAME_BYTES];
	sigset_t blocked;
};

static void *look(void *arg)
{
	struct seen *s = arg;

	pthread_getname_np(pthread_self(), s->name, sizeof(s->name));
	pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
	return s;
}

static void it_has_its_name_and_no_signals_but_of_its_faults(void **state)
{
	struct seen s = { 0 };
	sigset_t before, after;
	pthread_t thread;
	void *result;

	(void)state;
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	assert_int_equal(thread_start(&thread, "fifteen letters", look, &s), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, &s);
	assert_string_equal(s.name, "fifteen letters");
	assert_true(sigismember(&s.blocked, SIGTERM) == 1 && sigismember(&s.blocked, SIGUSR1) == 1 &&
		    sigismember(&s.blocked, SIGCHLD) == 1);
	assert_true(sigismember(&s.blocked, SIGSEGV) == 0 && sigismember(&s.blocked, SIGBUS) == 0);
	/* whoever started it keeps theirs */
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	assert_int_equal(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
	assert_int_equal(sigismember(&after, SIGUSR1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_has_its_name_and_no_signals_but_of_its_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
