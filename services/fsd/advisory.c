/*
 * Advisory locks of this mount's programs.
 *
 * Promises: every lock goes through the leader, so it excludes programs on every node; a lock that a program
 * has been told it has outlives this process, the leader and a change of leader; it goes with the close or the
 * end of its owner, or with this mount when the leader gives that up.  A wait ends with EINTR at a
 * signal; a program that is killed does not wait for the leader.
 *
 * What is held lies in a table in memory (advisory/adv_table.h) and, a row for each owner and file, in the item
 * cache: a row is made before the program is told that it has the lock, and shrunk before the leader is told
 * that something is given back.  So neither table nor rows ever have what somebody else may have got, and
 * a leader that lost its own can be told them.  What the leader did and nobody has heard of is asked again.
 *
 * Giving back (unlock, close) cannot fail for the program: what is gone from the rows is certain to go.  It is
 * answered when the leader has done it, or, with a leader that is away, after GIVE_BACK_MS: a process that ends
 * must not hang.
 *
 * POSIX locks go with FLUSH, which names the table of open files.  The others (flock, OFD locks) go with
 * RELEASE: all that was locked through that open file, which is known by its number in fh.  RELEASE comes
 * after close(2) has returned, and another thread may be in front of it; so an flock that does not wait is tried
 * again a moment later before it is refused.
 *
 * With a leader that does not answer, everything here but giving back waits, and is killable.
 *
 * How much of this the leader is asked at the same time is bounded, for locks of the filesystem, leases
 * and commits go the same way: one program more that wants to wait is refused with ENOLCK, and what is
 * given back waits for its turn; its owner gets nothing new until that is sent.
 */
#include "advisory_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "items.h"
#include "log.h"
#include "net_server.h"
#include "op.h"
#include "thread.h"

#define GIVE_BACK_MS	1000u
#define SEND_AGAIN_MS	100u
#define GIVING_MAX	2048u
/* How often, and how late, an flock that was refused is tried again. */
#define TRIES_MAX	2u
#define TRY_AGAIN_MS(n)	((n) == 0 ? 3u : 20u)

/* Each that waits may be canceled, too. */
static_assert(2 * ADVISORY_ASKED_MAX + GIVING_MAX <= NET_SERVER_QUEUE_MAX * 3 / 4,
	      "the leader takes more than these");
static_assert(ADV_UNLOCK == (int)MSG_ADV_UNLOCK && ADV_READ == (int)MSG_ADV_READ &&
	      ADV_WRITE == (int)MSG_ADV_WRITE && ADV_KIND_FLOCK == (int)MSG_ADV_FLOCK, "as on the wire");

/* A program that wants a lock, or to know of one. */
struct lock_op {
	struct op op;
	fuse_req_t req;
	struct advisory_ask ask;
	/* advisory's mutex: in the list of those that wait */
	struct lock_op *prev, *next;
	struct lock_call *call;		/* the leader has been asked */
	uint64_t again_ns;		/* it will be: then; 0: not so */
	unsigned tries;
	bool is_waiting, is_test, was_signalled;
	bool was_held;			/* what is asked for was the owner's before: nothing to take back */

	bool is_answered;
	int err;
	struct msg_adv_test_reply found;
};

/* What the leader was asked; it outlives a program that is killed. */
struct lock_call {
	struct fsd *fsd;
	struct lock_op *asks;		/* NULL: nobody any more */
	struct adv_call *call;		/* NULL: a test */
	bool is_canceled;
	bool was_held;			/* as of asks */
};

/* Something that is given back. */
struct give_back {
	struct give_back *prev, *next;
	struct fsd *fsd;
	fuse_req_t req;			/* not answered yet; NULL: it is, or there is none */
	struct advisory_ask ask;
	struct adv_call *call;		/* under way */
	uint64_t due_ns;		/* with a call: to answer req; with none: to send it again */
};

/* ---- asking ---------------------------------------------------------------------------------- */

/*
 * Take what ask gives back from table and row.  True: nothing was left to take, and the mutex is held, so
 * that what is sent now is sent in the order of the table.
 */
static bool nothing_to_give_back(struct advisory *a, struct adv_entry *e, struct advisory_ask *ask)
{
	bool has_changed;

	pthread_mutex_lock(&a->mutex);
	if (adv_give_back(e, ask->first, ask->last, ask->type, &has_changed) < 0)
		fsd_fail(a->fsd, "out of memory");
	if (!has_changed)
		return true;
	pthread_mutex_unlock(&a->mutex);
	advisory_shrink_row(a->fsd, ask);
	return false;
}

/* The mutex is held.  0, and done(arg) will be called; -EBUSY, -ENOMEM: try again; -ENOLINK, -ESHUTDOWN. */
static int send_lock(struct advisory *a, struct adv_entry *e, const struct advisory_ask *ask,
		     struct adv_call **call, net_client_done done, void *arg)
{
	struct msg_adv_lock m = { .wait = ask->wait, .kind = ask->kind, .type = ask->type, .ino = ask->ino,
				  .owner = ask->owner, .first = ask->first, .last = ask->last,
				  .pid = ask->pid };
	int ret = adv_call_begin(a->table, e, ask->first, ask->last, ask->type, call);

	if (ret < 0)
		return ret;
	m.number = (*call)->number;
	ret = net_client_call(a->fsd->net, MSG_adv_lock, &m, done, arg);
	if (ret < 0) {
		adv_call_end(a->table, *call, false);
		*call = NULL;
	}
	return ret;
}

static struct adv_entry *get_entry(struct advisory *a, const struct advisory_ask *ask)
{
	struct adv_entry *e;

	pthread_mutex_lock(&a->mutex);
	e = adv_entry_get(a->table, ask->ino, ask->kind, ask->owner);
	if (e && ask->type != ADV_UNLOCK) {
		e->fh = ask->fh;
		e->pid = ask->pid;
	}
	pthread_mutex_unlock(&a->mutex);
	return e;
}

/* ---- giving back ----------------------------------------------------------------------------- */

/* The mutex is held. */
static void giving_add(struct advisory *a, struct give_back *g)
{
	g->prev = NULL;
	g->next = a->giving;
	if (g->next)
		g->next->prev = g;
	a->giving = g;
	a->unsent_nr++;
}

static void giving_remove(struct advisory *a, struct give_back *g)
{
	if (g->call)
		a->giving_nr--;
	else
		a->unsent_nr--;
	if (g->prev)
		g->prev->next = g->next;
	else
		a->giving = g->next;
	if (g->next)
		g->next->prev = g->prev;
}

/* Of what was given back; NULL: nobody waits for it any more. */
static void answer(struct advisory *a, fuse_req_t req, int err)
{
	if (!req)
		return;
	fuse_reply_err(req, err);
	ops_leave(a->fsd);
}

/* The mutex is held: our thread sends g again.  Its request, which need not wait for that. */
static fuse_req_t send_again(struct advisory *a, struct give_back *g)
{
	fuse_req_t req = g->req;

	g->req = NULL;
	g->call = NULL;
	g->due_ns = clock_mono_ns() + SEND_AGAIN_MS * NSEC_PER_MSEC;
	pthread_cond_signal(&a->cond);
	return req;
}

static void given_back(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_adv_lock_reply *m = reply;
	struct give_back *g = arg;
	struct advisory *a = g->fsd->advisory;
	bool is_done = err == 0 && m->status == MSG_ADV_GRANTED;
	bool is_left = err == -ENOMEM;	/* for another time: nothing has happened */
	fuse_req_t req;

	(void)type;
	pthread_mutex_lock(&a->mutex);
	giving_remove(a, g);
	if (adv_call_end(a->table, g->call, is_done) < 0)
		fsd_fail(g->fsd, "out of memory");
	req = g->req;
	if (is_left) {
		req = send_again(a, g);
		giving_add(a, g);
	}
	pthread_mutex_unlock(&a->mutex);
	if (is_left) {
		answer(a, req, 0);
		return;
	}
	if (err < 0 && err != -ESHUTDOWN && err != -ENOLINK)
		log_err("inode %llu: the leader could not take an advisory lock back: %s; it is free when this mount "
			"leaves", (unsigned long long)g->ask.ino, strerror(-err));
	answer(a, req, is_done || err ? 0 : ENOLCK);
	free(g);
}

/* Its place in the list is made; it may be gone when this returns. */
static void give_back_send(struct give_back *g)
{
	struct advisory *a = g->fsd->advisory;
	struct adv_entry *e = get_entry(a, &g->ask);
	fuse_req_t req = NULL;
	int ret;

	if (!e)
		fsd_fail(g->fsd, "out of memory");
	while (!nothing_to_give_back(a, e, &g->ask))
		;
	if (a->is_ending)
		ret = -ESHUTDOWN;
	else if (a->giving_nr >= GIVING_MAX)
		ret = -EBUSY;
	else
		ret = send_lock(a, e, &g->ask, &g->call, given_back, g);
	adv_entry_put(a->table, e);
	if (ret == -EBUSY || ret == -ENOMEM) {
		req = send_again(a, g);
		g = NULL;
	} else if (ret < 0) {
		giving_remove(a, g);	/* the end of this mount, and of all it holds */
		req = g->req;
	} else {
		a->unsent_nr--;
		a->giving_nr++;
		if (g->req) {
			g->due_ns = clock_mono_ns() + GIVE_BACK_MS * NSEC_PER_MSEC;
			pthread_cond_signal(&a->cond);
		}
		g = NULL;	/* given_back's */
	}
	pthread_mutex_unlock(&a->mutex);
	answer(a, req, 0);
	free(g);
}

static struct give_back *new_give_back(struct fsd *fsd, fuse_req_t req, const struct advisory_ask *ask)
{
	struct give_back *g = calloc(1, sizeof(*g));

	if (!g)
		fsd_fail(fsd, "out of memory");
	*g = (struct give_back){ .fsd = fsd, .req = req, .ask = *ask, .due_ns = UINT64_MAX };
	g->ask.type = ADV_UNLOCK;
	g->ask.wait = false;
	if (req)
		ops_enter(fsd);
	return g;
}

/* req may be NULL.  May wait for room in the item cache. */
static void give_back(struct fsd *fsd, fuse_req_t req, const struct advisory_ask *ask)
{
	struct give_back *g = new_give_back(fsd, req, ask);

	pthread_mutex_lock(&fsd->advisory->mutex);
	giving_add(fsd->advisory, g);
	pthread_mutex_unlock(&fsd->advisory->mutex);
	give_back_send(g);
}

/* The same, by our own thread.  The mutex is held. */
static void give_back_soon(struct advisory *a, const struct advisory_ask *ask)
{
	struct give_back *g = new_give_back(a->fsd, NULL, ask);

	g->due_ns = 0;
	giving_add(a, g);
	pthread_cond_signal(&a->cond);
}

/* The mutex is held.  Whether something that the owner has given back before is still to be sent. */
static bool owes(const struct advisory *a, const struct advisory_ask *ask)
{
	const struct give_back *g = a->unsent_nr ? a->giving : NULL;

	while (g && (g->call || g->ask.ino != ask->ino || g->ask.kind != ask->kind ||
		     g->ask.owner != ask->owner))
		g = g->next;
	return g;
}

void advisory_flush(struct fsd *fsd, fuse_req_t req, uint64_t ino, uint64_t owner)
{
	struct advisory_ask ask = { .ino = ino, .owner = owner, .last = UINT64_MAX, .kind = MSG_ADV_POSIX };
	struct advisory *a = fsd->advisory;
	bool has_any;

	pthread_mutex_lock(&a->mutex);
	has_any = adv_table_find(a->table, ino, MSG_ADV_POSIX, owner);
	pthread_mutex_unlock(&a->mutex);
	if (has_any)
		give_back(fsd, req, &ask);
	else
		fuse_reply_err(req, 0);
}

void advisory_released(struct fsd *fsd, uint64_t ino, uint64_t fh)
{
	struct advisory *a = fsd->advisory;
	struct advisory_ask ask = { .ino = ino, .last = UINT64_MAX };
	const struct adv_entry *e;

	do {
		pthread_mutex_lock(&a->mutex);
		e = adv_table_find_fh(a->table, ino, fh);
		if (e) {
			ask.kind = e->kind;
			ask.owner = e->owner;
		}
		pthread_mutex_unlock(&a->mutex);
		if (e)
			give_back(fsd, NULL, &ask);
	} while (e);
}

uint64_t advisory_new_fh(struct fsd *fsd)
{
	return atomic_fetch_add(&fsd->advisory->last_fh, 1) + 1;
}

/* ---- locking --------------------------------------------------------------------------------- */

/* The mutex is held. */
static void waiting_add(struct advisory *a, struct lock_op *l)
{
	assert(!l->is_waiting);
	l->is_waiting = true;
	l->prev = NULL;
	l->next = a->waiting;
	if (l->next)
		l->next->prev = l;
	a->waiting = l;
	a->waiting_nr++;
}

static void waiting_remove(struct advisory *a, struct lock_op *l)
{
	if (l->prev)
		l->prev->next = l->next;
	else
		a->waiting = l->next;
	if (l->next)
		l->next->prev = l->prev;
	l->is_waiting = false;
	a->waiting_nr--;
}

static void canceled(void *arg, int err, unsigned type, const void *reply)
{
	(void)arg;
	(void)err;
	(void)type;
	(void)reply;
}

/* The mutex is held.  The leader ends the wait; what became of it is its answer to the request. */
static void cancel_call(struct advisory *a, struct lock_call *c)
{
	struct msg_adv_cancel m = { .number = c->call->number };

	/* Without room for the message the wait goes on until the next signal. */
	if (!c->is_canceled)
		c->is_canceled = net_client_call(a->fsd->net, MSG_adv_cancel, &m, canceled, NULL) == 0;
}

/* op.h: the program is being killed, and does not wait for any answer. */
static bool abandon(struct op *op)
{
	struct lock_op *l = (struct lock_op *)op;
	struct advisory *a = op->fsd->advisory;
	bool was_waiting;

	pthread_mutex_lock(&a->mutex);
	was_waiting = l->is_waiting;
	if (was_waiting) {
		waiting_remove(a, l);
		if (l->call) {
			l->call->asks = NULL;
			if (l->ask.wait)
				cancel_call(a, l->call);
		}
		l->call = NULL;
		l->again_ns = 0;
	}
	pthread_mutex_unlock(&a->mutex);
	return was_waiting;
}

/* The mutex is held. */
static void end_wait(struct advisory *a, struct lock_op *l)
{
	l->was_signalled = true;
	if (l->call && l->ask.wait)
		cancel_call(a, l->call);
}

/* A signal has come while it waited for its lock. */
static void signalled(struct op *op)
{
	struct advisory *a = op->fsd->advisory;

	pthread_mutex_lock(&a->mutex);
	end_wait(a, (struct lock_op *)op);
	pthread_mutex_unlock(&a->mutex);
}

static int status_errno(uint8_t status)
{
	switch ((enum msg_adv_status)status) {
	case MSG_ADV_GRANTED: return 0;
	case MSG_ADV_WOULD_BLOCK: return -EAGAIN;
	case MSG_ADV_DEADLOCK: return -EDEADLK;
	case MSG_ADV_CANCELED: return -EINTR;
	case MSG_ADV_LIMIT: return -ENOLCK;
	}
	return -EIO;
}

/* The mutex is held, l is among those that wait. */
static void ask_again_in(struct advisory *a, struct lock_op *l, unsigned ms)
{
	l->again_ns = clock_mono_ns() + ms * NSEC_PER_MSEC;
	pthread_cond_signal(&a->cond);
}

/* The mutex is held: l has no answer yet, and is asked again in a moment. */
static bool tries_again(struct advisory *a, struct lock_op *l)
{
	if (l->err != -EAGAIN || l->ask.kind != MSG_ADV_FLOCK || l->tries >= TRIES_MAX)
		return false;
	ask_again_in(a, l, TRY_AGAIN_MS(l->tries));
	l->tries++;
	return true;
}

static void lock_answered(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_adv_lock_reply *m = reply;
	struct lock_call *c = arg;
	struct advisory *a = c->fsd->advisory;
	const struct adv_entry *e = c->call->entry;
	struct advisory_ask undo = { .ino = e->ino, .owner = e->owner, .kind = e->kind,
				     .first = c->call->first, .last = c->call->last };
	struct lock_op *l;

	(void)type;
	if (err == 0)
		err = status_errno(m->status);
	else if (err != -ENOMEM)
		err = -EIO;
	else
		err = -ENOLCK;
	pthread_mutex_lock(&a->mutex);
	a->asked_nr--;
	if (adv_call_end(a->table, c->call, err == 0) < 0)
		fsd_fail(c->fsd, "out of memory");
	l = c->asks;
	/* Who asked for it is dead.  This is the session's thread, for which a full item cache waits. */
	if (!l && err == 0 && !c->was_held)
		give_back_soon(a, &undo);
	if (l) {
		l->call = NULL;
		l->err = err == -EAGAIN && l->ask.wait ? -EINTR : err;
		if (tries_again(a, l))
			l = NULL;
		else
			waiting_remove(a, l);
	}
	pthread_mutex_unlock(&a->mutex);
	if (l) {
		l->is_answered = true;
		l->op.writes = err == 0;
		op_wake(&l->op);
	}
	free(c);
}

/* op.h: nothing is held here. */
static void lock_send(struct op *op)
{
	struct lock_op *l = (struct lock_op *)op;
	struct advisory *a = op->fsd->advisory;
	struct lock_call *c = calloc(1, sizeof(*c));
	struct adv_entry *e = get_entry(a, &l->ask);
	int ret = -ENOMEM;

	if (!c || !e) {
		free(c);
		if (e) {
			pthread_mutex_lock(&a->mutex);
			adv_entry_put(a->table, e);
			pthread_mutex_unlock(&a->mutex);
		}
		op_fail(op, -ENOLCK);
		return;
	}
	*c = (struct lock_call){ .fsd = op->fsd, .asks = l };
	while (!nothing_to_give_back(a, e, &l->ask))
		;
	/* others may share the open file, and its locks, with a program that is killed */
	l->was_held = c->was_held = adv_ranges_have(&e->ranges, l->ask.first, l->ask.last, l->ask.type);
	if (adv_is_sure(e, l->ask.first, l->ask.last, l->ask.type))
		l->ask.wait = false;
	if (a->is_ending)
		ret = -ESHUTDOWN;
	else if (l->ask.wait && l->was_signalled)
		ret = -EINTR;
	else if (owes(a, &l->ask))
		ret = -EAGAIN;
	else if (a->asked_nr >= ADVISORY_ASKED_MAX)
		ret = -EBUSY;
	else
		ret = send_lock(a, e, &l->ask, &c->call, lock_answered, c);
	adv_entry_put(a->table, e);
	if (ret == 0 || ret == -EAGAIN) {
		waiting_add(a, l);
		atomic_store(&op->cancel, abandon);
	}
	if (ret == 0) {
		l->call = c;
		a->asked_nr++;
		c = NULL;
	} else if (ret == -EAGAIN) {
		ask_again_in(a, l, TRY_AGAIN_MS(0));
	}
	pthread_mutex_unlock(&a->mutex);
	free(c);
	if (ret == 0 || ret == -EAGAIN)
		return;		/* op may be gone */
	op_fail(op, ret == -EINTR ? ret : ret == -EBUSY || ret == -ENOMEM ? -ENOLCK : -EIO);
}

static int lock_run(struct op *op, struct itx *tx)
{
	struct lock_op *l = (struct lock_op *)op;

	if (!l->is_answered)
		return op_park(op, lock_send);
	return l->err < 0 ? l->err : advisory_put_row(tx, &l->ask);
}

static void lock_done(struct op *op, int err)
{
	struct lock_op *l = (struct lock_op *)op;

	fuse_op_done(l->req, op);
	/* It was had, and could not be noted. */
	if (err < 0 && l->is_answered && l->err == 0 && !l->was_held)
		give_back(op->fsd, NULL, &l->ask);
	fuse_reply_err(l->req, -err);
	free(l);
}

static struct lock_op *new_lock_op(struct fsd *fsd, fuse_req_t req, const struct advisory_ask *ask,
				   const char *name, int (*run)(struct op *, struct itx *),
				   void (*done)(struct op *, int))
{
	struct lock_op *l = calloc(1, sizeof(*l));

	stats_inc(&fsd->stats.fuse_requests);
	if (!l) {
		fuse_reply_err(req, ENOLCK);
		return NULL;
	}
	l->op.fsd = fsd;
	l->op.name = name;
	l->op.run = run;
	l->op.done = done;
	l->req = req;
	l->ask = *ask;
	return l;
}

/*
 * The one case in which giving back is refused, as on Linux for want of memory.  Not after it was noted: what the
 * leader keeps then would be taken back by nobody.
 */
static bool is_too_much(struct advisory *a, const struct advisory_ask *ask)
{
	const struct adv_entry *e;
	bool is;

	pthread_mutex_lock(&a->mutex);
	e = adv_table_find(a->table, ask->ino, ask->kind, ask->owner);
	is = e && adv_is_too_much(e, ask->first, ask->last);
	pthread_mutex_unlock(&a->mutex);
	return is;
}

void advisory_lock(struct fsd *fsd, fuse_req_t req, const struct advisory_ask *ask)
{
	struct lock_op *l;

	if (ask->type == ADV_UNLOCK) {
		stats_inc(&fsd->stats.fuse_requests);
		if (is_too_much(fsd->advisory, ask))
			fuse_reply_err(req, ENOLCK);
		else
			give_back(fsd, req, ask);
		return;
	}
	l = new_lock_op(fsd, req, ask, ask->wait ? "waiting for an advisory lock" : "advisory lock", lock_run,
			lock_done);
	if (!l)
		return;
	if (ask->wait)
		l->op.signalled = signalled;
	fuse_op_start_repeatable(req, &l->op);
}

/* ---- asking who has one ---------------------------------------------------------------------- */

static void test_answered(void *arg, int err, unsigned type, const void *reply)
{
	struct lock_call *c = arg;
	struct advisory *a = c->fsd->advisory;
	struct lock_op *l;

	(void)type;
	pthread_mutex_lock(&a->mutex);
	a->asked_nr--;
	l = c->asks;
	if (l) {
		l->call = NULL;
		waiting_remove(a, l);
	}
	pthread_mutex_unlock(&a->mutex);
	free(c);
	if (!l)
		return;
	l->err = err < 0 ? -EIO : 0;
	if (err == 0)
		l->found = *(const struct msg_adv_test_reply *)reply;
	l->is_answered = true;
	op_wake(&l->op);
}

static void test_send(struct op *op)
{
	struct lock_op *l = (struct lock_op *)op;
	struct advisory *a = op->fsd->advisory;
	struct msg_adv_test m = { .kind = l->ask.kind, .type = l->ask.type, .ino = l->ask.ino,
				  .owner = l->ask.owner, .first = l->ask.first, .last = l->ask.last };
	struct lock_call *c = calloc(1, sizeof(*c));
	int ret = -ENOMEM;

	pthread_mutex_lock(&a->mutex);
	if (a->is_ending) {
		ret = -ESHUTDOWN;
	} else if (c && a->asked_nr < ADVISORY_ASKED_MAX) {
		*c = (struct lock_call){ .fsd = op->fsd, .asks = l };
		ret = net_client_call(op->fsd->net, MSG_adv_test, &m, test_answered, c);
	}
	if (ret == 0) {
		l->call = c;
		a->asked_nr++;
		waiting_add(a, l);
		atomic_store(&op->cancel, abandon);
	}
	pthread_mutex_unlock(&a->mutex);
	if (ret == 0)
		return;
	free(c);
	op_fail(op, ret == -EBUSY || ret == -ENOMEM ? -ENOLCK : -EIO);
}

static int test_run(struct op *op, struct itx *tx)
{
	struct lock_op *l = (struct lock_op *)op;

	(void)tx;
	return l->is_answered ? l->err : op_park(op, test_send);
}

/* A process on another node has no number here: 0. */
static void test_done(struct op *op, int err)
{
	struct lock_op *l = (struct lock_op *)op;
	const struct msg_adv_test_reply *m = &l->found;
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	fuse_op_done(l->req, op);
	if (err) {
		fuse_reply_err(l->req, -err);
	} else {
		if (m->type != MSG_ADV_UNLOCK) {
			lock.l_type = m->type == MSG_ADV_WRITE ? F_WRLCK : F_RDLCK;
			lock.l_start = (off_t)m->first;
			lock.l_len = m->last >= INT64_MAX ? 0 : (off_t)(m->last - m->first + 1);
			lock.l_pid = m->rid == op->fsd->rid ? (pid_t)m->pid : 0;
		}
		fuse_reply_lock(l->req, &lock);
	}
	free(l);
}

void advisory_test(struct fsd *fsd, fuse_req_t req, const struct advisory_ask *ask)
{
	struct lock_op *l = new_lock_op(fsd, req, ask, "question for an advisory lock", test_run, test_done);

	if (l)
		fuse_op_start_repeatable(req, &l->op);
}

/* ---- the leader asks ------------------------------------------------------------------------- */

void advisory_tell(struct fsd *fsd, struct net_req *req, const struct msg_adv_recover *m)
{
	const struct adv_told after = { .ino = m->ino, .owner = m->owner, .kind = m->kind,
					.range.last = m->after };
	struct msg_adv_recover_reply *reply = calloc(1, sizeof(*reply));
	struct adv_told *told = calloc(ADV_RECOVER_MAX, sizeof(*told));
	bool is_last;
	int nr;

	if (!reply || !told)
		fsd_fail(fsd, "out of memory");
	pthread_mutex_lock(&fsd->advisory->mutex);
	nr = adv_table_tell(fsd->advisory->table, m->from_start ? NULL : &after, told, ADV_RECOVER_MAX, &is_last);
	pthread_mutex_unlock(&fsd->advisory->mutex);
	if (nr < 0)
		fsd_fail(fsd, "out of memory");
	reply->round = m->round;
	reply->is_last = is_last;
	reply->locks_nr = (uint32_t)nr;
	for (int i = 0; i < nr; i++)
		reply->locks[i] = (struct msg_adv_held){ .ino = told[i].ino, .kind = told[i].kind,
							 .type = told[i].range.type, .owner = told[i].owner,
							 .first = told[i].range.first,
							 .last = told[i].range.last, .pid = told[i].pid };
	net_client_respond(fsd->net, req, 0, MSG_adv_recover_reply, reply);
	free(told);
	free(reply);
}

void advisory_counts(struct fsd *fsd, uint64_t *held, uint64_t *waiting)
{
	uint64_t entries;

	*held = *waiting = 0;
	if (!fsd->advisory)
		return;
	pthread_mutex_lock(&fsd->advisory->mutex);
	adv_table_count(fsd->advisory->table, &entries, held);
	*waiting = fsd->advisory->waiting_nr;
	pthread_mutex_unlock(&fsd->advisory->mutex);
}

/* ---- what is due ----------------------------------------------------------------------------- */

/* The mutex is held, and given up if something was done. */
static bool do_one(struct advisory *a, uint64_t now)
{
	for (struct lock_op *l = a->waiting; l; l = l->next) {
		if (!l->again_ns || l->again_ns > now)
			continue;
		l->again_ns = 0;
		waiting_remove(a, l);
		pthread_mutex_unlock(&a->mutex);
		op_wake(&l->op);
		return true;
	}
	for (struct give_back *g = a->giving; g; g = g->next) {
		fuse_req_t req = g->req;

		if (g->due_ns > now)
			continue;
		g->due_ns = UINT64_MAX;
		g->req = NULL;
		pthread_mutex_unlock(&a->mutex);
		if (req)
			answer(a, req, 0);
		else if (!g->call)
			give_back_send(g);
		return true;
	}
	return false;
}

static uint64_t next_due(const struct advisory *a)
{
	uint64_t due = UINT64_MAX;

	for (const struct lock_op *l = a->waiting; l; l = l->next) {
		if (l->again_ns && l->again_ns < due)
			due = l->again_ns;
	}
	for (const struct give_back *g = a->giving; g; g = g->next) {
		if (g->due_ns < due)
			due = g->due_ns;
	}
	return due;
}

static void *run_thread(void *arg)
{
	struct advisory *a = arg;
	uint64_t due;

	pthread_mutex_lock(&a->mutex);
	while (!a->is_stopping) {
		if (do_one(a, clock_mono_ns())) {
			pthread_mutex_lock(&a->mutex);
			continue;
		}
		due = next_due(a);
		if (due == UINT64_MAX)
			pthread_cond_wait(&a->cond, &a->mutex);
		else
			clock_cond_wait(&a->cond, &a->mutex, due);
	}
	pthread_mutex_unlock(&a->mutex);
	return NULL;
}

/* ---- start, stop ----------------------------------------------------------------------------- */

static void free_all(struct advisory *a)
{
	adv_table_close(a->table);
	pthread_cond_destroy(&a->cond);
	pthread_mutex_destroy(&a->mutex);
	free(a);
}

int advisory_start(struct fsd *fsd, bool keep)
{
	struct advisory *a = calloc(1, sizeof(*a));
	int ret;

	if (!a)
		return -ENOMEM;
	a->fsd = fsd;
	pthread_mutex_init(&a->mutex, NULL);
	pthread_cond_init(&a->cond, NULL);
	/* Above all that earlier processes have given: fewer than one a nanosecond. */
	atomic_store(&a->last_fh, clock_boot_ns());
	ret = adv_table_open(&a->table, atomic_load(&a->last_fh));
	if (ret == 0)
		ret = items_run(fsd, keep ? advisory_load_rows : advisory_forget_rows, a);
	if (ret == 0)
		ret = thread_start(&a->thread, "advisory", run_thread, a);
	if (ret < 0) {
		log_err("the advisory locks of programs cannot be taken over: %s", strerror(-ret));
		free_all(a);
		return ret;
	}
	fsd->advisory = a;
	return 0;
}

void advisory_interrupt_waits(struct fsd *fsd)
{
	struct advisory *a = fsd->advisory;

	pthread_mutex_lock(&a->mutex);
	for (struct lock_op *l = a->waiting; l; l = l->next)
		end_wait(a, l);
	pthread_mutex_unlock(&a->mutex);
}

void advisory_end_waits(struct fsd *fsd)
{
	struct advisory *a = fsd->advisory;
	struct lock_op *l;

	if (!a)
		return;
	for (;;) {
		pthread_mutex_lock(&a->mutex);
		a->is_ending = true;
		l = a->waiting;
		if (l) {
			waiting_remove(a, l);
			if (l->call)
				l->call->asks = NULL;
			l->call = NULL;
		}
		pthread_mutex_unlock(&a->mutex);
		if (!l)
			return;
		op_fail(&l->op, -EIO);
	}
}

void advisory_stop(struct fsd *fsd)
{
	struct advisory *a = fsd->advisory;

	if (!a)
		return;
	pthread_mutex_lock(&a->mutex);
	a->is_stopping = true;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->mutex);
	pthread_join(a->thread, NULL);
	while (a->giving) {
		struct give_back *g = a->giving;

		giving_remove(a, g);
		if (g->req)
			ops_leave(fsd);
		free(g);
	}
	fsd->advisory = NULL;
	free_all(a);
}
