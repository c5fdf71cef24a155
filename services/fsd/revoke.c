/*
 * Taking a lock away from this mount: the steps of design.md D4, one revoke of a lock at a time,
 * many locks at once.  What is promised stands in locks.c.
 *
 * This file decides and queues; what calls into the kernel or drops items is done by notifier.c (in the
 * simulator by its own loop), which takes one lock after another from revoke_next.  DRAIN ends in
 * whatever thread ends the last use, and COMMIT in the commit thread.  A lock with a revoke under way is not freed.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "keep.h"
#include "locks_impl.h"
#include "log.h"
#include "net.h"
#include "txn.h"
#include "util/planted.h"

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
		l->is_dropped = false;
		l->leaves_truncated = false;
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

	if (l->step != REVOKE_DRAIN)
		return;
	if ((l->writers || (l->revoke_to == LOCK_MODE_NULL && l->readers)) &&
	    !PLANTED(revoke_waits_for_nobody))
		return;
	if (l->revoke_to == LOCK_MODE_NULL && !l->is_dropped) {
		l->step = REVOKE_DROP;
		queue_work(l);
		return;
	}
	if (l->dirty_gen > txn_committed_gen(fsd) && !PLANTED(revoke_forgets_to_commit)) {
		l->step = REVOKE_COMMIT;
		txn_commit_to(fsd, TXN_LOCK, l->dirty_gen, committed, l);
		return;
	}
	l->step = REVOKE_FINISH;
	queue_work(l);
}

struct lock *revoke_next(struct locks *ls, bool may_begin)
{
	struct lock **at = &ls->work_head, *l;

	while (*at && !may_begin && (*at)->step == REVOKE_NOTIFY)
		at = &(*at)->work_next;
	l = *at;
	if (!l)
		return NULL;
	*at = l->work_next;
	if (!l->work_next)
		ls->work_tail = at;
	return l;
}

bool revoke_has_to_notify(struct lock *l)
{
	/* who uses it now may still give the kernel something */
	l->uses_at_pass = l->readers || l->writers ? UINT64_MAX : l->uses_begun;
	return l->step == REVOKE_NOTIFY || l->step == REVOKE_DROP;
}

void revoke_notified(struct lock *l, bool left_out)
{
	assert(l->step == REVOKE_NOTIFY || l->step == REVOKE_DROP);
	/* In DROP what is left out waits for this lock, so it shows nothing; and nobody else was there. */
	l->is_dropped = l->step == REVOKE_DROP || (!left_out && l->uses_begun == l->uses_at_pass);
	l->step = REVOKE_DRAIN;
	revoke_drained(l);
}

void revoke_leave_notify(struct lock *l, bool truncated)
{
	assert(l->step == REVOKE_NOTIFY || l->step == REVOKE_DROP);
	/* of some inodes it was noted that they have nothing any more, and they were not told */
	l->gave_all = true;
	l->is_dropped = false;
	l->leaves_truncated |= truncated;
	l->step = REVOKE_DRAIN;
	revoke_drained(l);
}

bool revoke_has_to_drop(const struct lock *l)
{
	return l->mode != LOCK_MODE_NULL && l->revoke_to == LOCK_MODE_NULL;
}

void revoke_dropped(struct lock *l, int err)
{
	struct locks *ls = l->ls;
	struct inval *in = l->invals;

	assert(l->step == REVOKE_FINISH);
	if (err == -EBUSY) {
		log_warning("a revoked lock has dirty items that no operation has told of: they are committed first");
		l->step = REVOKE_COMMIT;
		txn_commit(ls->fsd, TXN_LOCK, committed, l);
		return;
	}
	if (err < 0)
		fsd_fail(ls->fsd, "items under a revoked lock cannot be dropped");
	if (l->mode > l->revoke_to)
		l->mode = l->revoke_to;
	keep_note_lock(ls->fsd->keep, &l->slot, &l->start, l->mode, l->write_seq);
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
