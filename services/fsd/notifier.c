/*
 * The threads that act for revoke.c: alone in calling into the kernel because of a revoke, and in
 * dropping items.  Neither is done under the mutex of the table.
 *
 * Dropping pages waits for whoever has them locked.  That may be a request which we have parked: the kernel locks
 * the pages of a write until it is answered, stops writing back while a truncation is, and a read waits for
 * what was stored before it.  If such a one waits for more of the very lock that is revoked (for WRITE, where
 * this mount and the other hold READ), neither could go on.  So there is always a thread that watches, and lets
 * the revoke go on without the call, which ends when that request has been answered.  Until then the kernel may
 * show a mapping pages from before; read(2) compares the attributes first, which the call has dropped before.
 */
#include "clock.h"
#include "data.h"
#include "fsd_stats.h"
#include "fuse.h"
#include "locks_impl.h"

#define WATCH_MS	1	/* how often calls are looked at while there are any */
#define LATE_MS		3	/* a call of that age is waiting for something */

/* One into the kernel; l is NULL when the revoke has gone on without it. */
struct call {
	struct call *next;
	struct lock *l;
	uint64_t begun_ns;
};

/* All are called and return with the mutex held; some let go of it in between. */

static void *notifier(void *locks);

/* Somebody has to take the next revoke, and to watch, while this thread is in the kernel. */
static void keep_one_free(struct locks *ls)
{
	if (!ls->free_nr && ls->threads_nr < NOTIFIERS_MAX &&
	    pthread_create(&ls->threads[ls->threads_nr], NULL, notifier, ls) == 0)
		ls->threads_nr++;
	pthread_cond_signal(&ls->work);
}

static void notify(struct locks *ls, struct lock *l)
{
	uint64_t first = l->start.first, last = l->end.first;
	struct call call = { .next = ls->calls, .l = l, .begun_ns = clock_mono_ns() };
	struct call **at;
	bool is_fs = l->start.zone == ZONE_FS;

	if (is_fs)
		keep_one_free(ls);
	ls->calls = &call;
	while (call.l && revoke_has_to_notify(l)) {
		if (is_fs) {
			bool all = l->gave_all;

			/* those who use it now will give something afterwards */
			if (!l->readers && !l->writers)
				l->gave_all = false;
			pthread_mutex_unlock(&ls->mutex);
			kcache_invalidate(ls->fsd, first, last, all);
			pthread_mutex_lock(&ls->mutex);
		}
		if (call.l)
			revoke_notified(l);
	}
	for (at = &ls->calls; *at != &call; at = &(*at)->next)
		;
	*at = call.next;
}

static bool is_waited_for(const struct lock *l)
{
	const struct op *op = l->waiters;

	while (op && !op->keeps_pages)
		op = op->next;
	return op;
}

/* Whether there are calls to look at again. */
static bool watch(struct locks *ls)
{
	uint64_t now = clock_mono_ns();
	bool again = false;

	for (struct call *c = ls->calls; c; c = c->next) {
		struct lock *l = c->l;

		if (!l)
			continue;
		if (now - c->begun_ns < LATE_MS * NSEC_PER_MSEC || !is_waited_for(l)) {
			again = true;
			continue;
		}
		c->l = NULL;
		stats_inc(&ls->fsd->stats.lock_notify_left);
		revoke_leave_notify(l);
	}
	return again;
}

static void finish(struct locks *ls, struct lock *l)
{
	int ret = 0;

	if (revoke_has_to_drop(l)) {
		pthread_mutex_unlock(&ls->mutex);
		ret = items_drop(ls->fsd, &l->start, &l->end);
		if (ret == 0 && l->start.zone == ZONE_FS)
			pool_drop(ls->fsd, l->start.first, l->end.first);
		pthread_mutex_lock(&ls->mutex);
	}
	revoke_dropped(l, ret);
}

static void wait_for_work(struct locks *ls, bool watching)
{
	struct timespec until;

	ls->free_nr++;
	if (watching) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += (long)(WATCH_MS * NSEC_PER_MSEC);
		if (until.tv_nsec >= (long)NSEC_PER_SEC) {
			until.tv_sec++;
			until.tv_nsec -= (long)NSEC_PER_SEC;
		}
		pthread_cond_timedwait(&ls->work, &ls->mutex, &until);
	} else {
		pthread_cond_wait(&ls->work, &ls->mutex);
	}
	ls->free_nr--;
}

static void *notifier(void *locks)
{
	struct locks *ls = locks;
	struct lock *l;
	bool watching;

	pthread_mutex_lock(&ls->mutex);
	for (;;) {
		watching = watch(ls);
		l = revoke_next(ls);
		if (l && l->step == REVOKE_NOTIFY)
			notify(ls, l);
		else if (l)
			finish(ls, l);
		else if (ls->stopping)
			break;
		else
			wait_for_work(ls, watching);
	}
	pthread_mutex_unlock(&ls->mutex);
	return NULL;
}

int locks_start(struct fsd *fsd)
{
	int ret = locks_open(fsd);

	if (ret < 0)
		return ret;
	ret = -pthread_create(&fsd->locks->threads[0], NULL, notifier, fsd->locks);
	if (ret < 0)
		locks_close(fsd);
	else
		fsd->locks->threads_nr = 1;
	return ret;
}

void locks_stop(struct fsd *fsd)
{
	struct locks *ls = fsd->locks;
	unsigned nr;

	if (!ls)
		return;
	pthread_mutex_lock(&ls->mutex);
	ls->stopping = true;
	pthread_cond_broadcast(&ls->work);
	nr = ls->threads_nr;
	pthread_mutex_unlock(&ls->mutex);
	for (unsigned i = 0; i < nr; i++)
		pthread_join(ls->threads[i], NULL);
	locks_close(fsd);
}
