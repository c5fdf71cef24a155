/*
 * Running, parking and waking operations.
 *
 * Promises: an operation's transaction is committed before done() is called, done() is called once,
 * and its lock uses are held until done() has returned.  Nothing here waits for a disk or the
 * network: what an operation needs it is parked for, and whoever has it calls op_wake.
 *
 * A parked operation is in exactly one place: its wait()'s list, or the queue of the workers.  From
 * the moment wait() was called it may run in another thread, so nothing of it is touched after that
 * call. Operations that write may share a transaction: all of it is committed, or they run again
 * one by one. An operation that was interrupted ends with -EINTR only where nothing of it has been
 * committed.
 *
 * Three kinds of threads call in: those of FUSE (op_start), workers (op_wake), and any thread that
 * may wake; ops_defer's threads are others, because these may block on a device or the leader.
 */
#include "op.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "locks.h"
#include "log.h"
#include "reader.h"
#include "thread.h"
#include "txn.h"

#define OPS_DEFER_THREADS	4u
#define OPS_WORKERS_MAX		16u
#define OPS_TOGETHER_MAX	16u	/* operations in one write transaction */

struct deferred {
	struct deferred *next;
	void (*work)(void *arg);
	void *arg;
};

struct ops {
	struct fsd *fsd;
	pthread_mutex_t lock;
	pthread_cond_t woken;		/* workers */
	pthread_cond_t deferred;	/* ops_defer's threads */
	pthread_cond_t idle;		/* ops_stop */
	struct op *run_head, **run_tail;
	struct op *write_head, **write_tail;	/* for write transactions, first come first served */
	bool is_writing;			/* somebody runs what is queued there */
	struct op *parked_head;		/* newest first */
	atomic_bool is_held;		/* nobody runs; changed with the lock held */
	struct op *held_head;		/* who would; newest first */
	struct deferred *defer_head, **defer_tail;
	unsigned active;		/* operations that run or are parked */
	unsigned patient;		/* of them: with a `signalled` */
	unsigned deferring;		/* work queued or running */
	bool stopping;
	unsigned workers_nr;
	pthread_t workers[OPS_WORKERS_MAX];
	pthread_t defer_threads[OPS_DEFER_THREADS];
	unsigned defer_nr;
};

/* ---- parked operations ---- */

static void park_add(struct ops *ops, struct op *op)
{
	op->parked_prev = NULL;
	op->parked_next = ops->parked_head;
	if (ops->parked_head)
		ops->parked_head->parked_prev = op;
	ops->parked_head = op;
}

static void park_remove(struct ops *ops, struct op *op)
{
	if (op->parked_prev)
		op->parked_prev->parked_next = op->parked_next;
	else
		ops->parked_head = op->parked_next;
	if (op->parked_next)
		op->parked_next->parked_prev = op->parked_prev;
	op->parked_prev = op->parked_next = NULL;
}

static void count_wait(struct fsd *fsd, const struct op *op)
{
	stats_inc(&fsd->stats.op_parked);
	if (op->wait == lock_wait)
		stats_inc(&fsd->stats.op_wait_lock);
	else if (op->wait == reader_wait)
		stats_inc(&fsd->stats.op_wait_items);
	else if (op->wait == txn_wait_room)
		stats_inc(&fsd->stats.op_wait_commit);
}

static void park(struct op *op)
{
	struct ops *ops = op->fsd->ops;
	void (*wait)(struct op *op) = op->wait;

	assert(wait);
	count_wait(op->fsd, op);
	op->wait = NULL;
	atomic_store(&op->cancel, NULL);
	pthread_mutex_lock(&ops->lock);
	park_add(ops, op);
	pthread_mutex_unlock(&ops->lock);
	wait(op);
}

/* ---- running ---- */

static void finish(struct op *op, int err)
{
	struct ops *ops = op->fsd->ops;
	struct op uses = { .fsd = op->fsd, .uses_nr = op->uses_nr };
	uint32_t reply_slot = op->reply_slot;
	bool is_patient = op->signalled;

	for (unsigned i = 0; i < op->uses_nr; i++)
		uses.uses[i] = op->uses[i];
	op->done(op, err);
	if (reply_slot)
		ops->fsd->answers->answered(ops->fsd, reply_slot);
	lock_unuse(&uses);
	pthread_mutex_lock(&ops->lock);
	ops->patient -= is_patient;
	if (--ops->active == 0)
		pthread_cond_broadcast(&ops->idle);
	pthread_mutex_unlock(&ops->lock);
}

/* op has run in tx, with that result.  What changed anything is recorded with its answer. */
static int record_answer(struct op *op, struct itx *tx, int ret, uint64_t changes_before)
{
	const struct op_answers *a = op->fsd->answers;
	int err;

	if (!a || !op->unique || ret < 0 || (ret == OP_MORE && !op->is_decided) ||
	    tx->changes == changes_before)
		return ret;
	err = a->record(tx, op);
	return err < 0 ? err : ret;
}

/* One transaction.  What run() returned, or -EAGAIN: nothing happened, wait for room. */
static int run_once(struct op *op)
{
	struct itx tx;
	int ret, err;

	ret = items_begin(op->fsd, op, op->writes, &tx);
	if (ret < 0)
		return ret;
	ret = record_answer(op, &tx, op->run(op, &tx), 0);
	if (ret < 0) {
		items_abort(&tx);
		/* Whatever it made of that: the cache had no room, so it did not fail. */
		return tx.err == -ENOSPC ? op_park(op, txn_wait_room) : ret;
	}
	err = items_commit(&tx);
	if (err == -ENOSPC)
		return op_park(op, txn_wait_room);
	if (err < 0)
		return err;
	if (tx.dirty_nr)
		lock_note_dirty(op, tx.open_gen);
	return ret;
}

static bool cancel_hold(struct op *op)
{
	struct ops *ops = op->fsd->ops;
	struct op **p;
	bool found;

	pthread_mutex_lock(&ops->lock);
	for (p = &ops->held_head; *p && *p != op; p = &(*p)->next)
		;
	found = *p;
	if (found)
		*p = op->next;
	pthread_mutex_unlock(&ops->lock);
	return found;
}

static void wait_held(struct op *op)
{
	struct ops *ops = op->fsd->ops;
	bool is_held;

	pthread_mutex_lock(&ops->lock);
	is_held = atomic_load(&ops->is_held);
	if (is_held) {
		op->next = ops->held_head;
		ops->held_head = op;
		atomic_store(&op->cancel, cancel_hold);
	}
	pthread_mutex_unlock(&ops->lock);
	if (!is_held)
		op_wake(op);
}

void ops_hold(struct fsd *fsd, bool on)
{
	struct ops *ops = fsd->ops;
	struct op *op, *next;

	pthread_mutex_lock(&ops->lock);
	atomic_store(&ops->is_held, on);
	op = on ? NULL : ops->held_head;
	if (!on)
		ops->held_head = NULL;
	pthread_mutex_unlock(&ops->lock);
	for (; op; op = next) {
		next = op->next;
		op_wake(op);
	}
}

bool ops_are_held(struct fsd *fsd)
{
	return fsd->ops && atomic_load(&fsd->ops->is_held);
}

/* Why op ends, or waits, without running; 0: it runs. */
static int ends_with(struct op *op)
{
	if (op->err)
		return op->err;
	if (atomic_load(&op->interrupted) && !op->parts_nr)
		return -EINTR;
	return atomic_load_explicit(&op->fsd->ops->is_held, memory_order_relaxed) ?
		       op_park(op, wait_held) : 0;
}

/* op has run; ret is what came of it.  False: it wants to run again. */
static bool settle(struct op *op, int ret)
{
	if (ret == OP_MORE) {
		op->parts_nr++;
		op->no_space_ns = 0;	/* what is committed had some */
		return false;
	}
	if (ret == OP_PARKED)
		park(op);
	else
		finish(op, ret);
	return true;
}

static int run_alone(struct op *op)
{
	int ret = ends_with(op);

	return ret ? ret : run_once(op);
}

/*
 * Several operations in one transaction, which costs little more than one in it.  False: nothing
 * has happened, for one of them failed half way or there was no room; each must have its own.
 */
static bool run_together(struct fsd *fsd, struct op **v, unsigned nr, int *ret)
{
	bool dirtied[OPS_TOGETHER_MAX];
	uint64_t changes, dirty;
	struct itx tx;

	if (nr < 2 || items_begin(fsd, NULL, true, &tx) < 0)
		return false;
	for (unsigned i = 0; i < nr; i++) {
		changes = tx.changes;
		dirty = tx.dirty_nr;
		tx.op = v[i];
		ret[i] = ends_with(v[i]);
		if (!ret[i])
			ret[i] = record_answer(v[i], &tx, v[i]->run(v[i], &tx), changes);
		if (tx.err || (ret[i] < 0 && tx.changes != changes)) {
			items_abort(&tx);
			return false;
		}
		dirtied[i] = tx.dirty_nr != dirty;
	}
	tx.op = NULL;
	if (items_commit(&tx) < 0)
		return false;
	for (unsigned i = 0; i < nr; i++) {
		if (dirtied[i])
			lock_note_dirty(v[i], tx.open_gen);
	}
	return true;
}

/* ops->lock is held. */
static void queue_write(struct ops *ops, struct op *op)
{
	op->next = NULL;
	*ops->write_tail = op;
	ops->write_tail = &op->next;
}

static unsigned take_writes(struct ops *ops, struct op **v)
{
	unsigned nr = 0;

	while (ops->write_head && nr < OPS_TOGETHER_MAX) {
		v[nr] = ops->write_head;
		ops->write_head = v[nr]->next;
		v[nr++]->next = NULL;
	}
	if (!ops->write_head)
		ops->write_tail = &ops->write_head;
	return nr;
}

/*
 * Write transactions exclude each other.  So whoever comes while one runs leaves its operation to
 * the thread that runs it, which takes all that have gathered for the next one.
 */
static void run_write(struct op *op)
{
	struct ops *ops = op->fsd->ops;
	struct op *v[OPS_TOGETHER_MAX];
	int ret[OPS_TOGETHER_MAX];
	unsigned nr;
	bool together;

	pthread_mutex_lock(&ops->lock);
	queue_write(ops, op);
	if (ops->is_writing) {
		pthread_mutex_unlock(&ops->lock);
		return;
	}
	ops->is_writing = true;
	while ((nr = take_writes(ops, v))) {
		pthread_mutex_unlock(&ops->lock);
		together = run_together(ops->fsd, v, nr, ret);
		for (unsigned i = 0; i < nr; i++) {
			if (settle(v[i], together ? ret[i] : run_alone(v[i])))
				continue;
			pthread_mutex_lock(&ops->lock);
			queue_write(ops, v[i]);
			pthread_mutex_unlock(&ops->lock);
		}
		pthread_mutex_lock(&ops->lock);
	}
	ops->is_writing = false;
	pthread_mutex_unlock(&ops->lock);
}

static void run(struct op *op)
{
	if (op->writes)
		run_write(op);
	else
		while (!settle(op, run_alone(op)))
			;
}

void op_start(struct op *op)
{
	struct ops *ops = op->fsd->ops;

	assert(op->run && op->done && op->uses_nr == 0);
	op->started_ns = clock_mono_ns();
	pthread_mutex_lock(&ops->lock);
	ops->active++;
	ops->patient += op->signalled != NULL;
	pthread_mutex_unlock(&ops->lock);
	run(op);
}

/* ops->lock is held. */
static void give_worker(struct ops *ops, struct op *op)
{
	op->next = NULL;
	*ops->run_tail = op;
	ops->run_tail = &op->next;
	pthread_cond_signal(&ops->woken);
}

void op_queue(struct op *op)
{
	struct ops *ops = op->fsd->ops;

	assert(op->run && op->done && op->uses_nr == 0);
	op->started_ns = clock_mono_ns();
	pthread_mutex_lock(&ops->lock);
	ops->active++;
	give_worker(ops, op);
	pthread_mutex_unlock(&ops->lock);
}

void op_wake(struct op *op)
{
	struct ops *ops = op->fsd->ops;

	pthread_mutex_lock(&ops->lock);
	park_remove(ops, op);
	atomic_store(&op->cancel, NULL);
	give_worker(ops, op);
	pthread_mutex_unlock(&ops->lock);
}

void op_fail(struct op *op, int err)
{
	assert(err < 0);
	op->err = err;
	op_wake(op);
}

void op_interrupt(struct op *op)
{
	bool (*cancel)(struct op *op);

	atomic_store(&op->interrupted, true);
	if (op->parts_nr)
		return;
	cancel = atomic_load(&op->cancel);
	if (cancel && cancel(op))
		op_wake(op);
}

static void *worker(void *arg)
{
	struct ops *ops = arg;
	struct op *op;

	pthread_mutex_lock(&ops->lock);
	for (;;) {
		while (!ops->run_head && !ops->stopping)
			pthread_cond_wait(&ops->woken, &ops->lock);
		op = ops->run_head;
		if (!op)
			break;
		ops->run_head = op->next;
		if (!ops->run_head)
			ops->run_tail = &ops->run_head;
		op->next = NULL;
		pthread_mutex_unlock(&ops->lock);
		run(op);
		pthread_mutex_lock(&ops->lock);
	}
	pthread_mutex_unlock(&ops->lock);
	return NULL;
}

/* ---- work that may block ---- */

static void *defer_thread(void *arg)
{
	struct ops *ops = arg;
	struct deferred *d;

	pthread_mutex_lock(&ops->lock);
	for (;;) {
		while (!ops->defer_head && !ops->stopping)
			pthread_cond_wait(&ops->deferred, &ops->lock);
		d = ops->defer_head;
		if (!d)
			break;
		ops->defer_head = d->next;
		if (!ops->defer_head)
			ops->defer_tail = &ops->defer_head;
		pthread_mutex_unlock(&ops->lock);
		d->work(d->arg);
		free(d);
		pthread_mutex_lock(&ops->lock);
		if (--ops->deferring == 0)
			pthread_cond_broadcast(&ops->idle);
	}
	pthread_mutex_unlock(&ops->lock);
	return NULL;
}

void ops_defer(struct fsd *fsd, void (*work)(void *arg), void *arg)
{
	struct ops *ops = fsd->ops;
	struct deferred *d = malloc(sizeof(*d));

	/* A few words for an operation that is under way: without them nothing can be promised any
	 * more. */
	if (!d)
		fsd_fail(fsd, "out of memory");
	*d = (struct deferred){ .work = work, .arg = arg };
	pthread_mutex_lock(&ops->lock);
	ops->deferring++;
	*ops->defer_tail = d;
	ops->defer_tail = &d->next;
	pthread_cond_signal(&ops->deferred);
	pthread_mutex_unlock(&ops->lock);
}

/* ---- start, stop, status ---- */

int ops_start(struct fsd *fsd, unsigned workers)
{
	struct ops *ops = calloc(1, sizeof(*ops));
	int ret = 0;

	if (!ops)
		return -ENOMEM;
	ops->fsd = fsd;
	pthread_mutex_init(&ops->lock, NULL);
	pthread_cond_init(&ops->woken, NULL);
	pthread_cond_init(&ops->deferred, NULL);
	pthread_cond_init(&ops->idle, NULL);
	ops->run_tail = &ops->run_head;
	ops->write_tail = &ops->write_head;
	ops->defer_tail = &ops->defer_head;
	fsd->ops = ops;
	while (ops->workers_nr < workers && ops->workers_nr < OPS_WORKERS_MAX && ret == 0) {
		ret = thread_start(&ops->workers[ops->workers_nr], "worker", worker, ops);
		ops->workers_nr += ret == 0;
	}
	while (ops->defer_nr < OPS_DEFER_THREADS && ret == 0) {
		ret = thread_start(&ops->defer_threads[ops->defer_nr], "deferred", defer_thread, ops);
		ops->defer_nr += ret == 0;
	}
	if (ret < 0)
		ops_stop(fsd);
	return ret;
}

void ops_drain(struct fsd *fsd)
{
	struct ops *ops = fsd->ops;

	pthread_mutex_lock(&ops->lock);
	while (ops->active || ops->deferring)
		pthread_cond_wait(&ops->idle, &ops->lock);
	pthread_mutex_unlock(&ops->lock);
}

void ops_enter(struct fsd *fsd)
{
	atomic_fetch_add(&fsd->open_requests, 1);
}

void ops_leave(struct fsd *fsd)
{
	atomic_fetch_sub(&fsd->open_requests, 1);
}

bool ops_drain_for(struct fsd *fsd, unsigned ms, bool all)
{
	struct ops *ops = fsd->ops;
	uint64_t now = clock_mono_ns(), end = now + ms * NSEC_PER_MSEC;
	bool drained, is_quiet;

	/* A look now and then: this is for the end of a process. */
	for (;;) {
		pthread_mutex_lock(&ops->lock);
		/* First: one that becomes an operation is that before it is none of these. */
		is_quiet = !atomic_load(&fsd->open_requests) && !ops->deferring;
		drained = is_quiet && !ops->active;
		is_quiet = drained || (is_quiet && !all && ops->active == ops->patient);
		pthread_mutex_unlock(&ops->lock);
		if (is_quiet || now >= end)
			return drained;
		nanosleep(&(struct timespec){ .tv_nsec = NSEC_PER_MSEC }, NULL);
		now = clock_mono_ns();
	}
}

void ops_stop(struct fsd *fsd)
{
	struct ops *ops = fsd->ops;

	if (!ops)
		return;
	ops_drain(fsd);
	pthread_mutex_lock(&ops->lock);
	ops->stopping = true;
	pthread_cond_broadcast(&ops->woken);
	pthread_cond_broadcast(&ops->deferred);
	pthread_mutex_unlock(&ops->lock);
	for (unsigned i = 0; i < ops->workers_nr; i++)
		pthread_join(ops->workers[i], NULL);
	for (unsigned i = 0; i < ops->defer_nr; i++)
		pthread_join(ops->defer_threads[i], NULL);
	pthread_mutex_destroy(&ops->lock);
	pthread_cond_destroy(&ops->woken);
	pthread_cond_destroy(&ops->deferred);
	pthread_cond_destroy(&ops->idle);
	free(ops);
	fsd->ops = NULL;
}

unsigned ops_active(struct fsd *fsd)
{
	struct ops *ops = fsd->ops;
	unsigned nr;

	if (!ops)
		return 0;
	pthread_mutex_lock(&ops->lock);
	nr = ops->active;
	pthread_mutex_unlock(&ops->lock);
	return nr;
}

bool ops_any_parked(struct fsd *fsd, bool (*is)(const struct op *op, const void *arg), const void *arg)
{
	struct ops *ops = fsd->ops;
	const struct op *op;

	pthread_mutex_lock(&ops->lock);
	for (op = ops->parked_head; op && !is(op, arg); op = op->parked_next)
		;
	pthread_mutex_unlock(&ops->lock);
	return op;
}

bool ops_oldest_waiting(struct fsd *fsd, char *what, size_t size, uint64_t *age_ns)
{
	struct ops *ops = fsd->ops;
	uint64_t now = clock_mono_ns();
	const struct op *oldest = NULL;

	if (!ops)
		return false;
	pthread_mutex_lock(&ops->lock);
	for (const struct op *op = ops->parked_head; op; op = op->parked_next) {
		if (!oldest || op->started_ns < oldest->started_ns)
			oldest = op;
	}
	if (oldest) {
		snprintf(what, size, "%s", oldest->name ? oldest->name : "operation");
		*age_ns = now > oldest->started_ns ? now - oldest->started_ns : 0;
	}
	pthread_mutex_unlock(&ops->lock);
	return oldest;
}
