/*
 * The threads that take the kernel's requests.
 *
 * There are half as many as processors.  Whoever asks needs a processor, too, about as much of it as the answer takes; with
 * more threads than that the kernel wakes one for each request, which displaces the one that has just asked, or finds that who
 * has answered the last one was faster; what changes anything is done by one of them at a time anyway (op.c).  Measured with two
 * processors: three threads make 0.63 as many changes of names a second as one.  Handlers wait neither for devices nor for the
 * leader, but where the item cache is full; should all threads be busy for a while nevertheless, others are in reserve.
 *
 * Promises: whatever the others do, a request is taken at the latest SERVING_WATCH_MS or two after it came, as long as there
 * is one of SERVING_THREADS left.  serving_run watches for that, and sleeps while a thread waits for a request: whoever is the
 * last one to be busy wakes it.  It does so at most once in SERVING_WATCH_MS, so a busy mount pays nothing for it.
 */
#include "serving.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "thread.h"

#define STOP_LOOK_MS	2u

struct serving {
	const struct serving_calls *calls;
	void *arg;
	unsigned enough;		/* of those awake */
	atomic_bool stopping;		/* no more requests are taken */
	atomic_bool is_watch_asleep;
	atomic_uint idle;		/* threads that wait for a request */
	atomic_uint awake;		/* threads that are not in reserve; changed with the mutex held */
	atomic_uint taken;		/* requests */
	atomic_uint looks;
	pthread_mutex_t mutex;
	pthread_cond_t reserve;
	pthread_cond_t cond;		/* a thread has ended, or the watch is to wake up */
	/* mutex */
	bool is_called;			/* one of the reserve is to wake up */
	bool is_over;			/* no more requests come */
	unsigned threads_nr, running;
	pthread_t threads[SERVING_THREADS];
	int err;
};

static void *serve_thread(void *arg);

static unsigned enough_threads(void)
{
	long nr = sysconf(_SC_NPROCESSORS_ONLN) / 2;

	return nr < 1 ? 1 : nr > SERVING_THREADS ? SERVING_THREADS : (unsigned)nr;
}

/* Nobody is left to wait for requests.  The mutex is held. */
static void add_thread(struct serving *s)
{
	if (s->running > atomic_load(&s->awake)) {
		s->is_called = true;
		pthread_cond_signal(&s->reserve);
	} else if (s->threads_nr < SERVING_THREADS && !atomic_load(&s->stopping)) {
		atomic_fetch_add(&s->idle, 1);
		if (thread_start(&s->threads[s->threads_nr], "requests", serve_thread, s) == 0) {
			s->threads_nr++;
			s->running++;
			atomic_fetch_add(&s->awake, 1);
		} else {
			atomic_fetch_sub(&s->idle, 1);	/* those that there are must do */
		}
	}
}

/* The last one that waited for requests has one. */
static void all_are_busy(struct serving *s)
{
	bool is_short = atomic_load_explicit(&s->awake, memory_order_relaxed) < s->enough;

	if (!is_short && !atomic_load(&s->is_watch_asleep))
		return;
	pthread_mutex_lock(&s->mutex);
	if (is_short)
		add_thread(s);
	if (atomic_exchange(&s->is_watch_asleep, false))
		pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->mutex);
}

/* One more than enough goes into reserve. */
static void rest(struct serving *s)
{
	if (atomic_load_explicit(&s->awake, memory_order_relaxed) <= s->enough)
		return;
	pthread_mutex_lock(&s->mutex);
	if (atomic_load(&s->awake) > s->enough && !s->is_called) {
		atomic_fetch_sub(&s->awake, 1);
		while (!s->is_called && !s->is_over && !atomic_load(&s->stopping))
			pthread_cond_wait(&s->reserve, &s->mutex);
		s->is_called = false;
		atomic_fetch_add(&s->awake, 1);
	}
	pthread_mutex_unlock(&s->mutex);
}

static bool is_to_try_again(int n)
{
	return n == -EINTR || n == -EAGAIN;
}

static void *serve_thread(void *arg)
{
	struct serving *s = arg;
	void *mine = s->calls->begin(s->arg);
	int n = mine ? 0 : -ENOMEM;
	sigset_t wake;

	sigemptyset(&wake);
	sigaddset(&wake, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
	while (mine && !atomic_load(&s->stopping)) {
		n = s->calls->take(s->arg, mine);
		if (is_to_try_again(n))
			continue;
		if (n <= 0)
			break;
		atomic_fetch_add_explicit(&s->taken, 1, memory_order_relaxed);
		if (atomic_fetch_sub(&s->idle, 1) == 1)
			all_are_busy(s);
		s->calls->serve(s->arg, mine);
		rest(s);
		atomic_fetch_add(&s->idle, 1);
	}
	if (mine)
		s->calls->end(s->arg, mine);
	pthread_mutex_lock(&s->mutex);
	/* Without memory for one more, those that there are must do. */
	if (n < 0 && !is_to_try_again(n) && (n != -ENOMEM || s->running == 1)) {
		s->err = n;
		s->calls->fail(s->arg);
	}
	if (n <= 0 && !is_to_try_again(n) && n != -ENOMEM)
		s->is_over = true;
	s->running--;
	atomic_fetch_sub(&s->idle, 1);
	atomic_fetch_sub(&s->awake, 1);
	pthread_cond_broadcast(&s->reserve);
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->mutex);
	return NULL;
}

/* Its only use is to end a read. */
static void on_wake(int sig)
{
	(void)sig;
}

/* Until no thread waits for requests, or none runs.  The mutex is held. */
static void sleep_while_one_is_idle(struct serving *s)
{
	atomic_store(&s->is_watch_asleep, true);
	/* whoever is the last one to be busy after this sees that it sleeps; this one sees who was before */
	while (s->running && atomic_load(&s->idle) && atomic_load(&s->is_watch_asleep))
		pthread_cond_wait(&s->cond, &s->mutex);
	atomic_store(&s->is_watch_asleep, false);
}

int serving_run(struct serving *s)
{
	struct sigaction sa = { .sa_handler = on_wake };
	int ret;

	sigaction(SIGUSR1, &sa, NULL);
	pthread_mutex_lock(&s->mutex);
	add_thread(s);
	/* A stop that was asked for before there was a thread has let none begin. */
	ret = s->threads_nr || atomic_load(&s->stopping) ? 0 : -EAGAIN;
	while (s->running) {
		unsigned taken;

		sleep_while_one_is_idle(s);
		taken = atomic_load(&s->taken);
		if (s->running)
			clock_cond_wait(&s->cond, &s->mutex, clock_mono_ns() + SERVING_WATCH_MS * NSEC_PER_MSEC);
		atomic_fetch_add(&s->looks, 1);
		if (!s->is_over && !atomic_load(&s->idle) && atomic_load(&s->taken) == taken)
			add_thread(s);
	}
	pthread_mutex_unlock(&s->mutex);
	for (unsigned i = 0; i < s->threads_nr; i++)
		pthread_join(s->threads[i], NULL);
	return ret ? ret : s->err;
}

void serving_stop(struct serving *s)
{
	pthread_mutex_lock(&s->mutex);
	atomic_store(&s->stopping, true);
	/* A thread may be between its look at `stopping` and its read: it is woken until it is gone. */
	while (s->running) {
		pthread_cond_broadcast(&s->reserve);
		for (unsigned i = 0; i < s->threads_nr; i++)
			pthread_kill(s->threads[i], SIGUSR1);
		clock_cond_wait(&s->cond, &s->mutex, clock_mono_ns() + STOP_LOOK_MS * NSEC_PER_MSEC);
	}
	pthread_mutex_unlock(&s->mutex);
}

bool serving_is_stopped(const struct serving *s)
{
	return atomic_load(&s->stopping);
}

unsigned serving_looks(const struct serving *s)
{
	return atomic_load(&s->looks);
}

struct serving *serving_new(const struct serving_calls *calls, void *arg, unsigned enough)
{
	struct serving *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->calls = calls;
	s->arg = arg;
	s->enough = enough ? enough : enough_threads();
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->reserve, NULL);
	pthread_cond_init(&s->cond, NULL);
	return s;
}

void serving_free(struct serving *s)
{
	if (!s)
		return;
	pthread_cond_destroy(&s->cond);
	pthread_cond_destroy(&s->reserve);
	pthread_mutex_destroy(&s->mutex);
	free(s);
}
