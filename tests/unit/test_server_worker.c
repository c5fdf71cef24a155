/*
 * The worker's thread between transactions: whether it waits by itself or in the loop's place, a task that is submitted
 * is done, once, and a stop ends it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "clock.h"
#include "services/serverd/worker.h"

#define TASKS		2000u
#define DEADLINE_NS	(120 * NSEC_PER_SEC)

static struct world {
	struct worker *w;
	atomic_uint idles;	/* times it has waited in the loop's place */
	atomic_uint declined;
	bool declines;		/* every other time it does not */
	unsigned completed;
} world;

static int open_nothing(void *arg, struct txn **t, const char **why)
{
	(void)arg, (void)why;
	*t = NULL;
	return 0;
}

static bool idle(void *arg, int wake_fd)
{
	struct world *wd = arg;
	struct pollfd fd = { .fd = wake_fd, .events = POLLIN };

	if (wd->declines && atomic_load(&wd->idles) > atomic_load(&wd->declined)) {
		atomic_fetch_add(&wd->declined, 1);
		return false;
	}
	atomic_fetch_add(&wd->idles, 1);
	(void)poll(&fd, 1, -1);
	return true;
}

static void completed(struct task *task, int err)
{
	(void)task;
	assert_int_equal(err, 0);
	world.completed++;
}

static void up(bool declines)
{
	struct worker_conf conf = { .open = open_nothing, .idle = idle, .arg = &world };

	world = (struct world){ .declines = declines };
	assert_int_equal(worker_start(&world.w, &conf), 0);
}

#define UNTIL(cond)								\
	for (uint64_t end_ = clock_mono_ns() + DEADLINE_NS; !(cond);) {		\
		struct pollfd fd_ = { .fd = worker_fd(world.w), .events = POLLIN }; \
										\
		assert_true(clock_mono_ns() < end_);				\
		(void)poll(&fd_, 1, 1);						\
		worker_dispatch(world.w);					\
	}

static void down(void)
{
	worker_stop(world.w);
	UNTIL(worker_is_stopped(world.w));
	worker_free(world.w);
}

static void do_tasks(void)
{
	static struct task tasks[TASKS];

	for (unsigned i = 0; i < TASKS; i++) {
		tasks[i] = (struct task){ .complete = completed };
		worker_submit(world.w, &tasks[i]);
		/* One by one, so that it waits in between, or several at once. */
		if (i % 3)
			UNTIL(world.completed == i + 1);
	}
	UNTIL(world.completed == TASKS);
}

static void a_task_ends_the_wait_in_the_loops_place(void **state)
{
	(void)state;
	up(false);
	do_tasks();
	assert_true(atomic_load(&world.idles) > 0);
	down();
	assert_int_equal(world.completed, TASKS);
}

static void a_task_ends_either_wait(void **state)
{
	(void)state;
	up(true);
	do_tasks();
	assert_true(atomic_load(&world.idles) > 0 && atomic_load(&world.declined) > 0);
	down();
	assert_int_equal(world.completed, TASKS);
}

static void a_stop_ends_the_wait_in_the_loops_place(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		up(false);
		if (i % 2)
			UNTIL(atomic_load(&world.idles) > 0);
		down();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_task_ends_the_wait_in_the_loops_place),
		cmocka_unit_test(a_task_ends_either_wait),
		cmocka_unit_test(a_stop_ends_the_wait_in_the_loops_place),
	};

	return cmocka_run_group_tests_name("server_worker", tests, NULL, NULL);
}
