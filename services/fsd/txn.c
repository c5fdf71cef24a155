/*
 * Generations: who waits for which, when one is closed, and what an operation may add to the open
 * one. Closing and storing one is commit.c's.
 *
 * Promises: whoever waits for a generation is told once it is durable at the leader, never before;
 * a commit that nobody needs does not happen, and one of nothing writes nothing.  An operation that
 * passed txn_hold can be stored: the blocks its items may need at worst are there.  The ends of
 * room are an earlier commit, then waiting for one, and only where the leader has said LOW, ENOSPC.
 *
 * One thread commits.  The mutex is a leaf but for op_wake: it is taken with the mutex of locks.c
 * or the cache's writer held, and nothing else is taken under it.
 */
#include "txn.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "inode.h"
#include "items_impl.h"
#include "locks.h"
#include "log.h"
#include "op.h"
#include "orphan.h"
#include "stream.h"
#include "thread.h"
#include "txn_impl.h"

#define GEN_BYTES_MAX	(64ull << 20)
/*
 * How long the leader's word that there is no more space is believed without asking again: what others, or a merge, have
 * given back is missed for no longer, and programs that try and try cost no more commits than that.
 */
#define LOW_KNOWN_NS	(100 * NSEC_PER_MSEC)
/* How long an operation waits for data blocks that this mount is giving back. */
#define FREED_WAIT_NS	(10 * NSEC_PER_SEC)

/* ---- asking for commits -------------------------------------------------------------------- */

static void count_why(struct fsd *fsd, enum txn_why why)
{
	stats_counter *c[] = {
		[TXN_FSYNC] = &fsd->stats.trans_commit_fsync,
		[TXN_TIMER] = &fsd->stats.trans_commit_timer,
		[TXN_FULL] = &fsd->stats.trans_commit_full,
		[TXN_LOCK] = &fsd->stats.trans_commit_lock,
	};

	stats_inc(c[why]);
}

/* With the lock held. */
static void want_gen(struct txn *t, enum txn_why why, uint64_t gen)
{
	if (gen <= t->want)
		return;
	if (gen > t->committed_gen)
		count_why(t->fsd, why);
	t->want = gen;
	pthread_cond_signal(&t->work);
}

static void add_waiter(struct txn *t, uint64_t gen, void (*then)(void *arg), void *arg)
{
	struct txn_waiter *w;

	if (!then)
		return;
	w = malloc(sizeof(*w));
	if (!w)
		fsd_fail(t->fsd, "out of memory");
	*w = (struct txn_waiter){ .next = t->waiters, .gen = gen, .then = then, .arg = arg };
	t->waiters = w;
	pthread_cond_signal(&t->work);
}

void txn_commit_to(struct fsd *fsd, enum txn_why why, uint64_t gen, void (*then)(void *arg),
		   void *arg)
{
	struct txn *t = fsd->txn;

	pthread_mutex_lock(&t->lock);
	want_gen(t, why, gen);
	add_waiter(t, gen, then, arg);
	pthread_mutex_unlock(&t->lock);
}

void txn_commit(struct fsd *fsd, enum txn_why why, void (*then)(void *arg), void *arg)
{
	txn_commit_to(fsd, why, items_open_gen(fsd), then, arg);
}

uint64_t txn_committed_gen(struct fsd *fsd)
{
	uint64_t gen;

	pthread_mutex_lock(&fsd->txn->lock);
	gen = fsd->txn->committed_gen;
	pthread_mutex_unlock(&fsd->txn->lock);
	return gen;
}

struct blocking {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void unblock(void *arg)
{
	struct blocking *b = arg;

	pthread_mutex_lock(&b->lock);
	b->done = true;
	pthread_cond_signal(&b->cond);
	pthread_mutex_unlock(&b->lock);
}

void txn_commit_wait(struct fsd *fsd, enum txn_why why, uint64_t gen)
{
	struct txn *t = fsd->txn;
	struct blocking b = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

	/* The commit thread itself, short of room for a moment: readers' snapshots end by
	 * themselves. */
	if (!t->is_started || pthread_equal(pthread_self(), t->thread)) {
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
		return;
	}
	if (gen)
		txn_commit_to(fsd, why, gen, unblock, &b);
	else
		txn_commit(fsd, why, unblock, &b);
	pthread_mutex_lock(&b.lock);
	while (!b.done)
		pthread_cond_wait(&b.cond, &b.lock);
	pthread_mutex_unlock(&b.lock);
}

void txn_sync(struct fsd *fsd)
{
	struct txn *t = fsd->txn;

	pthread_mutex_lock(&t->lock);
	t->sync = true;
	pthread_cond_signal(&t->work);
	pthread_mutex_unlock(&t->lock);
}

void txn_sync_now(struct fsd *fsd)
{
	struct txn *t = fsd->txn;

	pthread_mutex_lock(&t->lock);
	t->sync = t->sync_now = true;
	pthread_cond_signal(&t->work);
	pthread_mutex_unlock(&t->lock);
}

/* ---- parked operations --------------------------------------------------------------------- */

static bool unlist(struct op **list, struct op *op)
{
	for (struct op **p = list; *p; p = &(*p)->next) {
		if (*p == op) {
			*p = op->next;
			return true;
		}
	}
	return false;
}

static bool cancel_wait(struct op *op)
{
	struct txn *t = op->fsd->txn;
	bool found;

	pthread_mutex_lock(&t->lock);
	found = unlist(&t->gen_ops, op) || unlist(&t->room_ops, op);
	pthread_mutex_unlock(&t->lock);
	return found;
}

static void wait_gen(struct op *op)
{
	struct txn *t = op->fsd->txn;
	bool now;

	pthread_mutex_lock(&t->lock);
	now = op->need.gen <= t->committed_gen || t->ended;
	if (!now) {
		want_gen(t, TXN_FSYNC, op->need.gen);
		op->next = t->gen_ops;
		t->gen_ops = op;
		atomic_store(&op->cancel, cancel_wait);
	}
	pthread_mutex_unlock(&t->lock);
	if (now)
		op_wake(op);
}

/* t->lock is held: op is waked when there may be room. */
static void add_room_op(struct txn *t, struct op *op)
{
	op->next = t->room_ops;
	t->room_ops = op;
	atomic_store(&op->cancel, cancel_wait);
	pthread_cond_signal(&t->work);
}

void txn_wait_room(struct op *op)
{
	struct txn *t = op->fsd->txn;
	struct items_dirty open, closed;
	uint64_t told;
	bool now;

	pthread_mutex_lock(&t->lock);
	told = t->room_told;
	pthread_mutex_unlock(&t->lock);
	items_dirty(op->fsd, &open, &closed);
	now = !open.any && !closed.any && items_evict(op->fsd, true) > 0;
	pthread_mutex_lock(&t->lock);
	/* The commit that was seen may have ended meanwhile, and then nothing else need come. */
	now = now || t->ended || t->room_told != told;
	if (!now) {
		if (open.any)
			want_gen(t, TXN_FULL, items_open_gen(op->fsd));
		else if (!closed.any)
			t->sync = true;
		add_room_op(t, op);
	}
	pthread_mutex_unlock(&t->lock);
	if (now)
		op_wake(op);
}

/* Until the leader's next answer, which is asked for at once. */
static void wait_answer(struct op *op)
{
	struct txn *t = op->fsd->txn;
	bool now;

	pthread_mutex_lock(&t->lock);
	now = t->ended;
	if (!now) {
		t->sync = t->sync_now = true;
		add_room_op(t, op);
	}
	pthread_mutex_unlock(&t->lock);
	if (now)
		op_wake(op);
}

int txn_no_space(struct fsd *fsd, struct op *op)
{
	if (op && clock_mono_ns() - atomic_load(&fsd->txn->opened_ns) > LOW_KNOWN_NS)
		return op_park(op, wait_answer);
	/* What others give back we hear of with the leader's next answer; have one soon. */
	txn_sync(fsd);
	return -ENOSPC;
}

/*
 * What is being given back is committed as soon as it may be, and op tries again after each commit.  It keeps no
 * lock: the deletions that it waits for may need the same one, and a revoke of it lets none begin to use it.
 */
void txn_wait_freed(struct op *op)
{
	struct fsd *fsd = op->fsd;
	struct txn *t = fsd->txn;
	bool now;

	lock_unuse(op);
	pthread_mutex_lock(&t->lock);
	now = t->ended;
	if (!now) {
		t->sync = true;		/* within a second, should nothing else come */
		add_room_op(t, op);
	}
	pthread_mutex_unlock(&t->lock);
	if (now)
		op_wake(op);
	else
		txn_freed(fsd);		/* what became dirty before op was listed; op may be gone */
}

void txn_freed(struct fsd *fsd)
{
	struct txn *t = fsd->txn;
	struct items_dirty open, closed;
	uint64_t gen = items_open_gen(fsd);

	items_dirty(fsd, &open, &closed);
	pthread_mutex_lock(&t->lock);
	if (open.any && t->room_ops)
		want_gen(t, TXN_FULL, gen);
	pthread_mutex_unlock(&t->lock);
}

int txn_no_data_space(struct itx *tx, struct op *op)
{
	struct fsd *fsd = tx->fsd;
	struct txn *t = fsd->txn;
	uint64_t now = clock_mono_ns();
	bool is_coming;

	if (!op)
		return txn_no_space(fsd, op);
	if (!op->no_space_ns)
		op->no_space_ns = now;
	if (now - op->no_space_ns < FREED_WAIT_NS) {
		is_coming = inode_deletes_hurry(fsd);
		pthread_mutex_lock(&t->lock);
		is_coming = is_coming || items_freed_gen(tx) > t->answered_gen;
		pthread_mutex_unlock(&t->lock);
		if (is_coming)
			return op_park(op, txn_wait_freed);
	}
	return txn_no_space(fsd, op);
}

static void wake_list(struct op *op, int err)
{
	struct op *next;

	for (; op; op = next) {
		next = op->next;
		if (err)
			op_fail(op, err);
		else
			op_wake(op);
	}
}

/* Take what waits for gen or an earlier one off the lists and tell it. */
static void tell(struct txn *t, uint64_t gen)
{
	struct txn_waiter *due = NULL, **p, *w;
	struct op *ops = NULL, **q, *op;

	pthread_mutex_lock(&t->lock);
	for (p = &t->waiters; (w = *p);) {
		if (w->gen > gen) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->next = due;
		due = w;
	}
	for (q = &t->gen_ops; (op = *q);) {
		if (op->need.gen > gen) {
			q = &op->next;
			continue;
		}
		*q = op->next;
		op->next = ops;
		ops = op;
	}
	pthread_mutex_unlock(&t->lock);
	wake_list(ops, 0);
	while ((w = due)) {
		due = w->next;
		w->then(w->arg);
		free(w);
	}
}

static void wake_room(struct txn *t)
{
	struct op *ops;

	pthread_mutex_lock(&t->lock);
	ops = t->room_ops;
	t->room_ops = NULL;
	t->room_told++;
	t->answered_gen = t->committed_gen;
	pthread_mutex_unlock(&t->lock);
	wake_list(ops, 0);
}

void txn_publish(struct txn *t, uint64_t gen)
{
	pthread_mutex_lock(&t->lock);
	t->committed_gen = gen;
	t->trans_seq = le64_get(t->lt.get_trans_seq);
	t->meta_avail = le64_get(t->lt.meta_avail.total_nr);
	pthread_mutex_unlock(&t->lock);
	tell(t, gen);
}

/* ---- what operations ask ------------------------------------------------------------------- */

void txn_touch(struct itx *tx, const struct key *key, const void *val, size_t len)
{
	struct txn *t = tx->fsd->txn;
	struct cinode ci;
	struct key index;

	room_touch(t->room, key);
	if (key->zone != ZONE_FS || key->type != TYPE_INODE || len != sizeof(ci))
		return;
	memcpy(&ci, val, sizeof(ci));
	if (ci.is_orphan != ci.was_orphan) {
		index = key_orphan(key->first);
		room_touch(t->room, &index);
	}
	/* The old index items go from where they are; the new ones all go to the end. */
	if (ci.prev_meta_seq != SEQ_NONE) {
		index = key_index(TYPE_INDEX_META_SEQ, ci.prev_meta_seq & ~SEQ_REF, key->first);
		room_touch(t->room, &index);
	}
	if (ci.prev_data_seq != SEQ_NONE) {
		index = key_index(TYPE_INDEX_DATA_SEQ, ci.prev_data_seq & ~SEQ_REF, key->first);
		room_touch(t->room, &index);
	}
	index = key_index(TYPE_INDEX_META_SEQ, UINT64_MAX, UINT64_MAX);
	room_touch(t->room, &index);
	index = key_index(TYPE_INDEX_DATA_SEQ, UINT64_MAX, UINT64_MAX);
	room_touch(t->room, &index);
}

int txn_hold(struct op *op, struct itx *tx, unsigned items_nr, bool allocating)
{
	struct txn *t = op->fsd->txn;
	struct items_dirty open, closed;
	struct room_need rn;
	uint64_t used, size;
	MDB_stat st;
	int rc;

	assert(tx->write);
	if (atomic_load(&op->fsd->fenced))
		return -EIO;
	rc = mdb_stat(tx->txn, items_dbi(tx, TABLE_DAVAIL), &st);
	if (rc)
		return items_error(tx, rc, "free blocks");
	items_dirty_in(tx, &open, &closed);
	/* what others have done in this transaction */
	open.bytes += tx->dirty_bytes;
	open.nr += tx->dirty_nr;
	open.dlog_nr += tx->dlog_nr;
	open.any = open.any || tx->changes;
	items_usage(op->fsd, &used, &size);
	room_need(t->room, &open, items_nr, st.ms_entries, &rn);
	if (rn.need > rn.have && !open.any && !closed.any) {
		room_clean(t->room);
		room_need(t->room, &open, items_nr, st.ms_entries, &rn);
	}
	if (allocating && rn.is_low)
		return txn_no_space(op->fsd, op);
	if (rn.need > rn.have && rn.is_low && !open.any && !closed.any)
		return -ENOSPC;	/* not even the first change would fit, and there is no more */
	if (rn.need > rn.have || open.bytes + closed.bytes > size / 2)
		return op_park(op, txn_wait_room);
	if (rn.need > rn.have / 2 || open.bytes > GEN_BYTES_MAX || open.bytes > size / 4) {
		pthread_mutex_lock(&t->lock);
		want_gen(t, TXN_FULL, tx->open_gen);
		pthread_mutex_unlock(&t->lock);
	}
	return 0;
}

int txn_wait_committed(struct op *op, struct itx *tx, uint64_t *gen)
{
	struct items_dirty open, closed;

	if (!*gen) {
		items_dirty_in(tx, &open, &closed);
		*gen = open.any ? tx->open_gen : tx->open_gen - 1;
	}
	if (*gen <= tx->committed_gen)
		return 0;
	if (atomic_load(&op->fsd->fenced))
		return -EIO;
	op->need.gen = *gen;
	return op_park(op, wait_gen);
}

int txn_resolve_seq_now(struct itx *tx, uint64_t *seq)
{
	uint64_t gen = *seq & ~SEQ_REF, be = htobe64(gen), val;
	MDB_val mk = mval(&be, sizeof(be)), mv;
	int rc;

	if (*seq == SEQ_NONE || !(*seq & SEQ_REF))
		return 0;
	if (gen > tx->committed_gen)
		return -EAGAIN;
	rc = mdb_get(tx->txn, items_dbi(tx, TABLE_GENS), &mk, &mv);
	if (rc || mv.mv_size != sizeof(val)) {
		log_err("item cache: the sequence number of generation %llu is missing; restart this mount",
			(unsigned long long)gen);
		return -EIO;
	}
	memcpy(&val, mv.mv_data, sizeof(val));
	*seq = val;
	return 0;
}

int txn_resolve_seq(struct op *op, struct itx *tx, uint64_t *seq)
{
	int ret = txn_resolve_seq_now(tx, seq);

	if (ret != -EAGAIN)
		return ret;
	op->need.gen = *seq & ~SEQ_REF;
	return op_park(op, wait_gen);
}

int txn_inode_count_add(struct itx *tx, int delta)
{
	uint8_t row[16];
	int64_t count = 0;
	MDB_val mk = mval(row, stream_count_row(tx->open_gen, row)), mv;
	int rc = mdb_get(tx->txn, items_dbi(tx, TABLE_META), &mk, &mv);

	if (rc == 0 && mv.mv_size == sizeof(count))
		memcpy(&count, mv.mv_data, sizeof(count));
	if (rc && rc != MDB_NOTFOUND)
		return items_error(tx, rc, "inode count");
	count += delta;
	tx->changes++;
	mv = mval(&count, sizeof(count));
	rc = mdb_put(tx->txn, items_dbi(tx, TABLE_META), &mk, &mv, 0);
	return rc ? items_error(tx, rc, "inode count") : 0;
}

/* ---- the thread ---------------------------------------------------------------------------- */

void txn_doing(struct txn *t, const char *what)
{
	pthread_mutex_lock(&t->lock);
	if (what && !t->busy_since_ns)
		t->busy_since_ns = clock_mono_ns();
	if (!what)
		t->busy_since_ns = 0;
	snprintf(t->doing, sizeof(t->doing), "%s", what ? what : "");
	pthread_mutex_unlock(&t->lock);
}

/* Between attempts.  False: there is no point in another one. */
bool txn_pause(struct txn *t, unsigned ms)
{
	uint64_t end = clock_mono_ns() + ms * NSEC_PER_MSEC;

	pthread_mutex_lock(&t->lock);
	t->retries++;
	while (clock_mono_ns() < end && !atomic_load(&t->fsd->fenced))
		clock_cond_wait(&t->work, &t->lock, end);
	pthread_mutex_unlock(&t->lock);
	return !atomic_load(&t->fsd->fenced);
}

enum work { WORK_NONE, WORK_COMMIT, WORK_SYNC, WORK_STOP };

static enum work next_work(struct txn *t, uint64_t timer)
{
	uint64_t now, until;
	enum work work = WORK_NONE;

	pthread_mutex_lock(&t->lock);
	while (work == WORK_NONE) {
		now = clock_mono_ns();
		until = timer;
		if (t->stopping)
			work = WORK_STOP;
		else if (t->want > t->committed_gen || t->waiters)
			work = WORK_COMMIT;
		else if (t->sync && (t->sync_now || now >= t->next_sync_ns))
			work = WORK_SYNC;
		else if (now >= timer)
			break;
		else
			clock_cond_wait(&t->work, &t->lock, t->sync && t->next_sync_ns < until ? t->next_sync_ns : until);
	}
	if (work == WORK_SYNC || work == WORK_STOP)
		t->sync = t->sync_now = false;
	pthread_mutex_unlock(&t->lock);
	return work;
}

/*
 * Nothing is dirty in the open generation: whoever waits for it has what it wants.  Only those that
 * waited before that was seen; who came later may have dirtied something first.
 */
static bool tell_if_clean(struct txn *t)
{
	struct items_dirty open, closed;
	struct txn_waiter *w, *waiters;
	struct op *ops;

	pthread_mutex_lock(&t->lock);
	waiters = t->waiters;
	ops = t->gen_ops;
	t->waiters = NULL;
	t->gen_ops = NULL;
	t->want = t->committed_gen;
	pthread_mutex_unlock(&t->lock);
	items_dirty(t->fsd, &open, &closed);
	if (open.any) {
		pthread_mutex_lock(&t->lock);
		while ((w = waiters)) {
			waiters = w->next;
			w->next = t->waiters;
			t->waiters = w;
		}
		for (struct op *op = ops, *next; op; op = next) {
			next = op->next;
			op->next = t->gen_ops;
			t->gen_ops = op;
		}
		pthread_mutex_unlock(&t->lock);
		return false;
	}
	assert(t->committed_gen + 1 == items_open_gen(t->fsd));
	wake_list(ops, 0);
	while ((w = waiters)) {
		waiters = w->next;
		w->then(w->arg);
		free(w);
	}
	return true;
}

static int commit_if_dirty(struct txn *t)
{
	int ret;

	tell(t, t->committed_gen);
	if (tell_if_clean(t)) {
		pthread_mutex_lock(&t->lock);
		t->sync = t->sync || t->room_ops;
		pthread_mutex_unlock(&t->lock);
		return 0;
	}
	ret = commit_gen(t, false);
	if (ret == 0)
		wake_room(t);
	return ret;
}

static int do_sync(struct txn *t)
{
	struct items_dirty open, closed;
	int ret;

	items_dirty(t->fsd, &open, &closed);
	ret = open.any ? commit_gen(t, false) : commit_sync(t);
	/* A leader that has nothing to give is not asked without end. */
	t->next_sync_ns = clock_mono_ns() + NSEC_PER_SEC;
	if (ret == 0)
		wake_room(t);
	return ret;
}

static void end_thread(struct txn *t, int err)
{
	struct txn_waiter *w, *waiters;
	struct op *gen_ops, *room_ops;

	pthread_mutex_lock(&t->lock);
	t->ended = true;
	t->err = err;
	waiters = t->waiters;
	gen_ops = t->gen_ops;
	room_ops = t->room_ops;
	t->waiters = NULL;
	t->gen_ops = t->room_ops = NULL;
	pthread_mutex_unlock(&t->lock);
	wake_list(gen_ops, err ? -EIO : 0);
	wake_list(room_ops, err ? -EIO : 0);
	while ((w = waiters)) {
		waiters = w->next;
		w->then(w->arg);
		free(w);
	}
}

static void *commit_thread(void *arg)
{
	struct txn *t = arg;
	uint64_t timer = clock_mono_ns() + t->fsd->conf.commit_interval_ms * NSEC_PER_MSEC;
	struct items_dirty open, closed;
	int ret = 0;

	for (;;) {
		enum work work = next_work(t, timer);

		if (work == WORK_STOP)
			break;
		if (work == WORK_COMMIT) {
			ret = commit_if_dirty(t);
		} else if (work == WORK_SYNC) {
			ret = do_sync(t);
		} else {
			items_dirty(t->fsd, &open, &closed);
			if (open.any) {
				count_why(t->fsd, TXN_TIMER);
				ret = commit_gen(t, false);
				wake_room(t);
			}
		}
		if (ret < 0)
			break;
		timer = clock_mono_ns() + t->fsd->conf.commit_interval_ms * NSEC_PER_MSEC;
	}
	if (ret == 0) {
		items_dirty(t->fsd, &open, &closed);
		if (open.any)
			ret = commit_gen(t, true);
	}
	end_thread(t, ret);
	return NULL;
}

/* ---- start, stop --------------------------------------------------------------------------- */

int txn_init(struct fsd *fsd)
{
	struct txn *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return -ENOMEM;
	t->fsd = fsd;
	t->ended = true;
	ret = room_open(&t->room);
	if (ret < 0) {
		free(t);
		return ret;
	}
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->work, NULL);
	fsd->txn = t;
	return 0;
}

int txn_start(struct fsd *fsd)
{
	struct txn *t = fsd->txn;
	struct items_dirty open, closed;
	int ret = commit_open(t);

	if (ret < 0)
		return ret;
	/* What an earlier process has left comes first, so that this one begins with nothing dirty. */
	items_dirty(fsd, &open, &closed);
	if (open.any)
		ret = commit_gen(t, false);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&t->lock);
	t->ended = false;
	ret = thread_start(&t->thread, "commit", commit_thread, t);
	t->is_started = ret == 0;
	pthread_mutex_unlock(&t->lock);
	return ret;
}

int txn_stop(struct fsd *fsd)
{
	struct txn *t = fsd->txn;

	if (!t || !t->is_started)
		return 0;
	pthread_mutex_lock(&t->lock);
	t->stopping = true;
	pthread_cond_signal(&t->work);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	t->is_started = false;
	return t->err;
}

void txn_fini(struct fsd *fsd)
{
	struct txn *t = fsd->txn;

	if (!t)
		return;
	if (t->bs)
		block_set_close(t->bs);
	room_close(t->room);
	pthread_mutex_destroy(&t->lock);
	pthread_cond_destroy(&t->work);
	fsd->txn = NULL;
	free(t);
}

void txn_devices(struct txn *t, bool fail)
{
	if (!fail)
		atomic_store(&t->failing_ns, 0);
	else if (!atomic_load(&t->failing_ns))
		atomic_store(&t->failing_ns, clock_mono_ns());
}

uint32_t txn_failing_ms(struct fsd *fsd)
{
	uint64_t since = fsd->txn ? atomic_load(&fsd->txn->failing_ns) : 0;
	uint64_t ms = since ? (clock_mono_ns() - since) / NSEC_PER_MSEC + 1 : 0;

	return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

void txn_get_status(struct fsd *fsd, struct txn_status *st)
{
	struct txn *t = fsd->txn;
	struct items_dirty none = { 0 };
	struct room_need rn;

	room_need(t->room, &none, 0, 0, &rn);
	pthread_mutex_lock(&t->lock);
	*st = (struct txn_status){ .open_gen = items_open_gen(fsd),
				   .committed_gen = t->committed_gen,
				   .trans_seq = t->trans_seq,
				   .meta_avail = t->meta_avail,
				   .retries = t->retries,
				   .busy_since_ns = t->busy_since_ns,
				   .is_low = rn.is_low };
	memcpy(st->doing, t->doing, sizeof(st->doing));
	pthread_mutex_unlock(&t->lock);
}
