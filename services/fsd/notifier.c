/*
 * The threads that act for revoke.c: alone in calling into the kernel because of a revoke, and in
 * dropping items.  Neither is done under the mutex of the table.
 *
 * Dropping pages waits for whoever has them locked.  That may be a request which we have parked, and which waits for more of
 * the very lock that is revoked (for WRITE, where this mount and the other hold READ): neither could go on.  A page that is
 * locked for a read or a write(2) is not up to date and in no mapping, so it is left out (busy.h).  One may come between
 * looking and calling, and of the last page of a write it is not known before; so there is always a thread that watches, lets
 * the revoke go on without such a call, and drops the other pages again, around it.  The call ends when that request has been
 * answered.
 *
 * While a truncation is parked the kernel writes nothing back that was stored to mappings of the file, and it is not known
 * which pages wait for that.  There the revoke goes on (lock_notify_left), and until the truncation is answered mappings of
 * that one file may show what was before.
 */
#include "busy.h"
#include "clock.h"
#include "data.h"
#include "fsd_stats.h"
#include "fuse.h"
#include "locks_impl.h"
#include "pending.h"
#include "thread.h"

#define WATCH_MS	1	/* how often calls are looked at while there are any */
#define LATE_MS		3	/* a call of that age is waiting for something */
#define VERY_LATE_MS	50	/* ... and not for a device */

/* One into the kernel; l is NULL when the revoke has gone on without it. */
struct call {
	struct call *next;
	struct lock *l;
	struct kcache_call kernel;
};

/* All are called and return with the mutex held; some let go of it in between. */

static void *notifier(void *locks);

/* Somebody has to take the next revoke, and to watch, while this thread is in the kernel.  False: nobody would. */
static bool keep_one_free(struct locks *ls)
{
	bool is_one = ls->free_nr;

	if (!is_one && ls->threads_nr < NOTIFIERS_MAX &&
	    thread_start(&ls->threads[ls->threads_nr], "revokes", notifier, ls) == 0) {
		ls->threads_nr++;
		is_one = true;
	}
	return is_one;
}

/*
 * The next lock with work for this thread.  The last one that is not in the kernel begins no revoke, of which it is not known
 * whether it gets stuck: it watches, and does what the others have left, so that they come back.
 */
static struct lock *next_work(struct locks *ls)
{
	bool may_begin = true;

	if (ls->work_head && ls->work_head->step != REVOKE_FINISH && !ls->stopping)
		may_begin = keep_one_free(ls) || !ls->calls;
	return revoke_next(ls, may_begin);
}

static void notify(struct locks *ls, struct lock *l)
{
	uint64_t first = l->start.first, last = l->end.first;
	struct call call = { .next = ls->calls, .l = l };
	bool is_fs = l->start.zone == ZONE_FS, left_out = false, all = l->gave_all;
	struct call **at;

	if (!revoke_has_to_notify(l))
		return;
	if (is_fs) {
		pthread_cond_signal(&ls->work);
		ls->calls = &call;
		/* those who use it now will give something afterwards */
		if (!l->readers && !l->writers)
			l->gave_all = false;
		call.kernel.leaves_truncated = l->leaves_truncated;
		pthread_mutex_unlock(&ls->mutex);
		left_out = kcache_invalidate(ls->fsd, first, last, all, &call.kernel);
		pthread_mutex_lock(&ls->mutex);
		for (at = &ls->calls; *at != &call; at = &(*at)->next)
			;
		*at = call.next;
	}
	if (call.l)
		revoke_notified(l, left_out);
}

static bool truncation_waits(const struct lock *l, uint64_t ino)
{
	const struct op *op = l->waiters;

	while (op && op->keeps_pages != ino)
		op = op->next;
	return op || (l->waiters && pending_keeps_pages(ino));
}

bool locks_keep_pages(struct fsd *fsd, uint64_t ino)
{
	struct lock *l;
	bool waits;

	pthread_mutex_lock(&fsd->locks->mutex);
	l = locks_find_inode(fsd->locks, ino);
	waits = l && truncation_waits(l, ino);
	pthread_mutex_unlock(&fsd->locks->mutex);
	return waits;
}

/* Whether a call does not go on by itself; *truncated: because of a truncation. */
static bool is_stuck(struct locks *ls, struct call *c, uint64_t now, bool *truncated)
{
	uint64_t ino = atomic_load(&c->kernel.ino), page = atomic_load(&c->kernel.page);
	uint64_t since = atomic_load(&c->kernel.since_ns);

	*truncated = false;
	if (!ino || now < since + LATE_MS * NSEC_PER_MSEC)
		return false;
	*truncated = now >= since + VERY_LATE_MS * NSEC_PER_MSEC && truncation_waits(c->l, ino);
	if (*truncated)
		return true;
	if (page == KCACHE_MANY)
		return busy_has_begun(ino, atomic_load(&c->kernel.looked_ns), !kcache_has_unread(ls->fsd));
	/* it may have to be written back first, by a request that is still to be read */
	return !kcache_has_unread(ls->fsd) && busy_found_locked(ino, page);
}

/* Whether there are calls to look at again. */
static bool watch(struct locks *ls)
{
	uint64_t now = clock_mono_ns();
	bool again = false, truncated;

	for (struct call *c = ls->calls; c; c = c->next) {
		struct lock *l = c->l;

		if (!l)
			continue;
		if (!is_stuck(ls, c, now, &truncated)) {
			again = true;
			continue;
		}
		c->l = NULL;
		if (truncated)
			stats_inc(&ls->fsd->stats.lock_notify_left);
		atomic_store(&c->kernel.is_left, true);
		revoke_leave_notify(l, truncated);
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
	ls->free_nr++;
	if (watching)
		clock_cond_wait(&ls->work, &ls->mutex, clock_mono_ns() + WATCH_MS * NSEC_PER_MSEC);
	else
		pthread_cond_wait(&ls->work, &ls->mutex);
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
		l = next_work(ls);
		if (l && (l->step == REVOKE_NOTIFY || l->step == REVOKE_DROP))
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
	ret = thread_start(&fsd->locks->threads[0], "revokes", notifier, fsd->locks);
	if (ret < 0)
		locks_close(fsd);
	else
		fsd->locks->threads_nr = 1;
	return ret;
}

void locks_end_revokes(struct fsd *fsd)
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
	pthread_mutex_lock(&ls->mutex);
	ls->threads_nr = 0;
	pthread_mutex_unlock(&ls->mutex);
}

void locks_stop(struct fsd *fsd)
{
	if (!fsd->locks)
		return;
	locks_end_revokes(fsd);
	locks_close(fsd);
}
