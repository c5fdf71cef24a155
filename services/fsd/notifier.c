/*
 * The thread that acts for revoke.c: alone in calling into the kernel because of a revoke, and in
 * dropping items.  Neither is done under the mutex of the table.
 */
#include "data.h"
#include "fuse.h"
#include "locks_impl.h"

/* Both are called and return with the mutex held, and let go of it in between. */

static void notify(struct locks *ls, struct lock *l)
{
	while (revoke_has_to_notify(l)) {
		pthread_mutex_unlock(&ls->mutex);
		if (l->start.zone == ZONE_FS)
			kcache_invalidate(ls->fsd, l->start.first, l->end.first);
		pthread_mutex_lock(&ls->mutex);
		revoke_notified(l);
	}
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

static void *notifier(void *locks)
{
	struct locks *ls = locks;
	struct lock *l;

	pthread_mutex_lock(&ls->mutex);
	for (;;) {
		while (!ls->work_head && !ls->stopping)
			pthread_cond_wait(&ls->work, &ls->mutex);
		l = revoke_next(ls);
		if (!l)
			break;
		if (l->step == REVOKE_NOTIFY)
			notify(ls, l);
		else
			finish(ls, l);
	}
	pthread_mutex_unlock(&ls->mutex);
	return NULL;
}

int locks_start(struct fsd *fsd)
{
	int ret = locks_open(fsd);

	if (ret < 0)
		return ret;
	ret = -pthread_create(&fsd->locks->notifier, NULL, notifier, fsd->locks);
	if (ret < 0)
		locks_close(fsd);
	return ret;
}

void locks_stop(struct fsd *fsd)
{
	struct locks *ls = fsd->locks;

	if (!ls)
		return;
	pthread_mutex_lock(&ls->mutex);
	ls->stopping = true;
	pthread_cond_broadcast(&ls->work);
	pthread_mutex_unlock(&ls->mutex);
	pthread_join(ls->notifier, NULL);
	locks_close(fsd);
}
