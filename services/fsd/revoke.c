/*
 * Taking a lock away from this mount: the steps of design.md D4, one revoke of a lock at a time,
 * many locks at once.  What is promised stands in locks.c.
 *
 * NOTIFY and FINISH are done by the notifier thread, DRAIN ends in whatever thread ends the last
 * use, and COMMIT in the commit thread.  A lock with a revoke under way is not freed.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "data.h"
#include "fuse.h"
#include "locks_impl.h"
#include "log.h"
#include "net.h"
#include "txn.h"

/* Passes over the kernel's caches while reads go on; what the last one misses, AUTO_INVAL_DATA
 * catches: attributes carry no timeout any more, so the next read compares them first. */
#define NOTIFY_PASSES	5u

static void queue_work(struct lock *l)
{
	struct locks *ls = l->ls;

	l->work_next = NULL;
	*ls->work_tail = l;
	ls->work_tail = &l->work_next;
	pthread_cond_signal(&ls->work);
}

static void begin(struct lock *l)
{
	l->revoke_to = l->invals->new_mode;
	if (l->mode == LOCK_MODE_NULL || l->mode == l->revoke_to) {
		l->step = REVOKE_FINISH;	/* nothing to give up: just answer */
		queue_work(l);
	} else if (l->revoke_to == LOCK_MODE_READ) {
		l->step = REVOKE_DRAIN;
		revoke_drained(l);
	} else {
		l->step = REVOKE_NOTIFY;
		queue_work(l);
	}
}

void locks_invalidate(struct fsd *fsd, struct net_req *req, const struct key *key, uint8_t old_mode,
		      uint8_t new_mode)
{
	struct locks *ls = fsd->locks;
	struct inval *in = malloc(sizeof(*in));
	struct lock *l;

	if (!in)
		fsd_fail(fsd, "out of memory");
	*in = (struct inval){ .req = req, .old_mode = old_mode, .new_mode = new_mode };
	stats_inc(&fsd->stats.lock_invalidate_request);
	pthread_mutex_lock(&ls->mutex);
	l = locks_find(ls, key);
	if (l) {
		*l->invals_tail = in;
		l->invals_tail = &in->next;
		if (l->step == REVOKE_NONE)
			begin(l);
		locks_settle(ls, l);
	}
	pthread_mutex_unlock(&ls->mutex);
	if (!l) {
		net_invalidate_respond(fsd, req, key, old_mode, new_mode);
		free(in);
	}
}

static void committed(void *arg)
{
	struct lock *l = arg;
	struct locks *ls = l->ls;

	pthread_mutex_lock(&ls->mutex);
	assert(l->step == REVOKE_COMMIT);
	l->step = REVOKE_FINISH;
	queue_work(l);
	pthread_mutex_unlock(&ls->mutex);
}

void revoke_drained(struct lock *l)
{
	struct fsd *fsd = l->ls->fsd;

	if (l->step != REVOKE_DRAIN || l->writers || (l->revoke_to == LOCK_MODE_NULL && l->readers))
		return;
	if (l->dirty_gen > txn_committed_gen(fsd)) {
		l->step = REVOKE_COMMIT;
		txn_commit_to(fsd, TXN_LOCK, l->dirty_gen, committed, l);
		return;
	}
	l->step = REVOKE_FINISH;
	queue_work(l);
}

/* Called and returns with the mutex held; lets go of it in between. */
static void notify(struct locks *ls, struct lock *l)
{
	uint64_t begun;

	for (unsigned pass = 0; pass < NOTIFY_PASSES; pass++) {
		begun = l->uses_begun;
		pthread_mutex_unlock(&ls->mutex);
		if (l->start.zone == ZONE_FS)
			kcache_invalidate(ls->fsd, l->start.first, l->end.first);
		pthread_mutex_lock(&ls->mutex);
		if (l->uses_begun == begun)
			break;
	}
	l->step = REVOKE_DRAIN;
	revoke_drained(l);
}

static void finish(struct locks *ls, struct lock *l)
{
	struct inval *in = l->invals;
	int ret = 0;

	pthread_mutex_unlock(&ls->mutex);
	if (l->mode != LOCK_MODE_NULL && l->revoke_to == LOCK_MODE_NULL) {
		ret = items_drop(ls->fsd, &l->start, &l->end);
		if (ret == 0 && l->start.zone == ZONE_FS)
			pool_drop(ls->fsd, l->start.first, l->end.first);
	}
	pthread_mutex_lock(&ls->mutex);
	if (ret == -EBUSY) {
		log_warning("a revoked lock has dirty items that no operation has told of: they are committed first");
		l->step = REVOKE_COMMIT;
		txn_commit(ls->fsd, TXN_LOCK, committed, l);
		return;
	}
	if (ret < 0)
		fsd_fail(ls->fsd, "items under a revoked lock cannot be dropped");
	if (l->mode > l->revoke_to)
		l->mode = l->revoke_to;
	net_invalidate_respond(ls->fsd, in->req, &l->start, in->old_mode, in->new_mode);
	l->invals = in->next;
	if (!l->invals)
		l->invals_tail = &l->invals;
	free(in);
	l->step = REVOKE_NONE;
	if (l->invals)
		begin(l);
	else
		locks_pump(ls, l);
	locks_settle(ls, l);
}

void revoke_forget(struct lock *l)
{
	struct inval *in;

	while ((in = l->invals)) {
		l->invals = in->next;
		free(in);
	}
}

void *revoke_notifier(void *locks)
{
	struct locks *ls = locks;
	struct lock *l;

	pthread_mutex_lock(&ls->mutex);
	for (;;) {
		while (!ls->work_head && !ls->stopping)
			pthread_cond_wait(&ls->work, &ls->mutex);
		l = ls->work_head;
		if (!l)
			break;
		ls->work_head = l->work_next;
		if (!ls->work_head)
			ls->work_tail = &ls->work_head;
		if (l->step == REVOKE_NOTIFY)
			notify(ls, l);
		else
			finish(ls, l);
	}
	pthread_mutex_unlock(&ls->mutex);
	return NULL;
}
