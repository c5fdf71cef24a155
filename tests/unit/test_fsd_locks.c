/*
 * Two mounts and a leader: operations that take several locks in any order, in threads, against the
 * real lock server machine.  What must hold at every moment: no two mounts use one lock in
 * conflicting modes; a lock is given back only after the kernel was told, the last use ended, what
 * was dirty was committed and the items were dropped; and everybody gets on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "clock.h"
#include "memdev.h"
#include "services/fsd/data.h"
#include "services/fsd/fuse.h"
#include "services/fsd/locks.h"
#include "services/fsd/net.h"
#include "services/fsd/op.h"
#include "services/fsd/reader.h"
#include "services/fsd/txn.h"
#include "services/serverd/lock_fsm.h"

#define MOUNTS		2u
#define GROUPS		20u	/* of inodes; index GROUPS is the rename lock */
#define SHARED		6u	/* of them, those that two mounts fight for */
#define THREADS		5u	/* of applications, each mount */
#define DEADLINE_S	60u

struct message {
	struct message *next;
	unsigned mount;
	bool is_answer;			/* to the leader: of an invalidation */
	struct lockfsm_act act;		/* from the leader */
	struct key key;
	uint8_t old_mode, new_mode;
	struct net_req *req;
};

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct message *head, **tail;
	bool closed;
};

struct group {
	atomic_int readers, writers;
	_Atomic uint64_t dirty_gen;
	atomic_bool told, dropped;	/* since the last grant */
	atomic_uint revokes;
};

static struct mount {
	struct fsd fsd;
	struct queue in;		/* from the leader, in order */
	pthread_t home;
	struct group groups[GROUPS + 1];
	pthread_mutex_t writer;		/* as the cache's: outside of the mutex of locks.c */
	pthread_mutex_t gen_lock;	/* as the commit's: inside of it */
	uint64_t open_gen, committed_gen;
} mounts[MOUNTS];

static struct {
	struct queue in;
	pthread_t thread;
	struct lockfsm *fsm;
	_Atomic uint64_t seq;
	uint64_t write_seqs[GROUPS + 1];
} leader;

static struct mount *mount_of(struct fsd *fsd)
{
	return (struct mount *)((char *)fsd - offsetof(struct mount, fsd));
}

static unsigned mount_nr(const struct mount *m)
{
	return (unsigned)(m - mounts);
}

static unsigned group_of(const struct key *start)
{
	return start->zone == ZONE_LOCK ? GROUPS : (unsigned)(start->first / INODE_LOCK_GROUP) - 1;
}

static uint64_t ino_of(unsigned group)
{
	return (group + 1) * INODE_LOCK_GROUP + 7;
}

/* Of a number up to SHARED. */
static unsigned target_of(unsigned nr)
{
	return nr == SHARED ? GROUPS : nr;
}

/* ---- queues ---- */

static void queue_init(struct queue *q)
{
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->cond, NULL);
	q->head = NULL;
	q->tail = &q->head;
	q->closed = false;
}

static void push(struct queue *q, const struct message *msg)
{
	struct message *m = malloc(sizeof(*m));

	assert_non_null(m);
	*m = *msg;
	m->next = NULL;
	pthread_mutex_lock(&q->lock);
	*q->tail = m;
	q->tail = &m->next;
	pthread_cond_signal(&q->cond);
	pthread_mutex_unlock(&q->lock);
}

static struct message *pop(struct queue *q)
{
	struct message *m;

	pthread_mutex_lock(&q->lock);
	while (!q->head && !q->closed)
		pthread_cond_wait(&q->cond, &q->lock);
	m = q->head;
	if (m) {
		q->head = m->next;
		if (!q->head)
			q->tail = &q->head;
	}
	pthread_mutex_unlock(&q->lock);
	return m;
}

static void queue_close(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_cond_broadcast(&q->cond);
	pthread_mutex_unlock(&q->lock);
}

/* ---- the leader ---- */

static void emit(void *arg, const struct lockfsm_act *act)
{
	(void)arg;
	if (act->kind == LOCKFSM_GRANT || act->kind == LOCKFSM_INVALIDATE)
		push(&mounts[act->rid - 1].in, &(struct message){ .act = *act });
}

static uint64_t next_seq(void *arg)
{
	(void)arg;
	return atomic_fetch_add(&leader.seq, 1) + 1;
}

static void raise_seq(void *arg, uint64_t seq)
{
	(void)arg, (void)seq;
}

static void *lead(void *arg)
{
	struct message *m;

	(void)arg;
	while ((m = pop(&leader.in))) {
		struct lockfsm_event ev = { .kind = m->is_answer ? LOCKFSM_INVALIDATED
								 : LOCKFSM_REQUEST,
					    .rid = m->mount + 1,
					    .key = m->key,
					    .old_mode = m->old_mode,
					    .new_mode = m->new_mode };

		assert_int_equal(lockfsm_step(leader.fsm, &ev), 0);
		lockfsm_check(leader.fsm);
		free(m);
	}
	return NULL;
}

/* What arrives at a mount, one after another. */
static void *home(void *arg)
{
	struct mount *mt = arg;
	struct message *m;

	while ((m = pop(&mt->in))) {
		const struct lockfsm_act *a = &m->act;
		struct group *g = &mt->groups[group_of(&a->key)];

		if (a->kind == LOCKFSM_GRANT) {
			if (a->old_mode == LOCK_MODE_NULL) {
				atomic_store(&g->told, false);
				atomic_store(&g->dropped, false);
			}
			locks_granted(&mt->fsd, &a->key, a->old_mode, a->new_mode, a->write_seq,
				      NULL);
		} else {
			locks_invalidate(&mt->fsd, NULL, &a->key, a->old_mode, a->new_mode);
		}
		free(m);
	}
	return NULL;
}

void net_lock_request(struct fsd *fsd, const struct key *key, uint8_t old_mode, uint8_t new_mode)
{
	push(&leader.in, &(struct message){ .mount = mount_nr(mount_of(fsd)),
					    .key = *key,
					    .old_mode = old_mode,
					    .new_mode = new_mode });
}

void net_invalidate_respond(struct fsd *fsd, struct net_req *req, const struct key *key,
			    uint8_t old_mode, uint8_t new_mode)
{
	struct mount *mt = mount_of(fsd);
	struct group *g = &mt->groups[group_of(key)];

	(void)req;
	assert_int_equal(atomic_load(&g->writers), 0);
	if (new_mode == LOCK_MODE_NULL) {
		assert_int_equal(atomic_load(&g->readers), 0);
		assert_true(atomic_load(&g->dropped));
		assert_true(key->zone == ZONE_LOCK || atomic_load(&g->told));
	}
	pthread_mutex_lock(&mt->gen_lock);
	assert_true(atomic_load(&g->dirty_gen) <= mt->committed_gen);
	pthread_mutex_unlock(&mt->gen_lock);
	atomic_fetch_add(&g->revokes, 1);
	push(&leader.in, &(struct message){ .mount = mount_nr(mt), .is_answer = true, .key = *key,
					    .old_mode = old_mode, .new_mode = new_mode });
}

/* ---- the rest of a mount ---- */

bool kcache_invalidate(struct fsd *fsd, uint64_t first_ino, uint64_t last_ino, bool all, struct kcache_call *call)
{
	struct mount *mt = mount_of(fsd);
	struct group *g = &mt->groups[first_ino / INODE_LOCK_GROUP - 1];

	assert_int_equal(last_ino - first_ino, INODE_LOCK_GROUP - 1);
	(void)all, (void)call;
	assert_true(lock_kernel_timeout(fsd, first_ino) == 0.0);
	atomic_store(&g->told, true);
	return false;
}

bool kcache_has_unread(struct fsd *fsd)
{
	(void)fsd;
	return false;
}

int items_drop(struct fsd *fsd, const struct key *start, const struct key *end)
{
	struct mount *mt = mount_of(fsd);
	struct group *g = &mt->groups[group_of(start)];

	(void)end;
	assert_int_equal(atomic_load(&g->writers), 0);
	assert_int_equal(atomic_load(&g->readers), 0);
	pthread_mutex_lock(&mt->gen_lock);
	assert_true(atomic_load(&g->dirty_gen) <= mt->committed_gen);
	pthread_mutex_unlock(&mt->gen_lock);
	assert_true(start->zone == ZONE_LOCK || atomic_load(&g->told));
	atomic_store(&g->dropped, true);
	return 0;
}

void pool_drop(struct fsd *fsd, uint64_t first_ino, uint64_t last_ino)
{
	(void)fsd, (void)first_ino, (void)last_ino;
}

void reader_roots_stale(struct fsd *fsd)
{
	(void)fsd;
}

void reader_roots_given(struct fsd *fsd, const struct forest_roots *roots)
{
	(void)fsd, (void)roots;
}

void reader_wait(struct op *op)
{
	op_wake(op);
}

void txn_wait_room(struct op *op)
{
	op_wake(op);
}

uint64_t txn_committed_gen(struct fsd *fsd)
{
	struct mount *mt = mount_of(fsd);
	uint64_t gen;

	pthread_mutex_lock(&mt->gen_lock);
	gen = mt->committed_gen;
	pthread_mutex_unlock(&mt->gen_lock);
	return gen;
}

struct commit {
	struct mount *mt;
	uint64_t gen;
	void (*then)(void *arg);
	void *arg;
};

static void commit(void *arg)
{
	struct commit *c = arg;

	pthread_mutex_lock(&c->mt->writer);
	pthread_mutex_lock(&c->mt->gen_lock);
	if (c->mt->committed_gen < c->gen) {
		c->mt->committed_gen = c->mt->open_gen++;
		assert_true(c->mt->committed_gen >= c->gen);
	}
	pthread_mutex_unlock(&c->mt->gen_lock);
	pthread_mutex_unlock(&c->mt->writer);
	c->then(c->arg);
	free(c);
}

void txn_commit_to(struct fsd *fsd, enum txn_why why, uint64_t gen, void (*then)(void *arg),
		   void *arg)
{
	struct commit *c = malloc(sizeof(*c));

	assert_int_equal(why, TXN_LOCK);
	assert_non_null(c);
	*c = (struct commit){ .mt = mount_of(fsd), .gen = gen, .then = then, .arg = arg };
	ops_defer(fsd, commit, c);
}

void txn_commit(struct fsd *fsd, enum txn_why why, void (*then)(void *arg), void *arg)
{
	(void)fsd, (void)why, (void)then, (void)arg;
	fail_msg("dirty items that no operation told of");
}

void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	(void)fsd;
	fprintf(stderr, "fsd_fail: %s\n", fmt);
	abort();
}

/* Transactions say only which generation is open: writers keep it from closing while they are in
 * one. */
int items_begin(struct fsd *fsd, struct op *op, bool write, struct itx *tx)
{
	struct mount *mt = mount_of(fsd);

	*tx = (struct itx){ .fsd = fsd, .op = op, .write = write };
	if (write)
		pthread_mutex_lock(&mt->writer);
	pthread_mutex_lock(&mt->gen_lock);
	tx->open_gen = mt->open_gen;
	pthread_mutex_unlock(&mt->gen_lock);
	return 0;
}

int items_commit(struct itx *tx)
{
	if (tx->write)
		pthread_mutex_unlock(&mount_of(tx->fsd)->writer);
	return 0;
}

void items_abort(struct itx *tx)
{
	items_commit(tx);
}

/* ---- operations ---- */

struct locker {
	struct op op;
	unsigned targets[4];
	uint8_t modes[4];
	unsigned nr;
	unsigned parks; /* how often it waits for something else, holding its locks */
	bool forever;			/* waits until it is woken by the test */
	bool counted;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done, is_waiting;
	int err;
};

static void count(struct locker *l, int delta)
{
	struct mount *mt = mount_of(l->op.fsd);

	for (unsigned i = 0; i < l->nr; i++) {
		struct group *g = &mt->groups[l->targets[i]];

		atomic_fetch_add(l->modes[i] == LOCK_MODE_WRITE ? &g->writers : &g->readers, delta);
	}
	l->counted = delta > 0;
}

static void nobody_conflicts(struct locker *l)
{
	struct mount *other = &mounts[1 - mount_nr(mount_of(l->op.fsd))];

	for (unsigned i = 0; i < l->nr; i++) {
		struct group *g = &other->groups[l->targets[i]];

		assert_int_equal(atomic_load(&g->writers), 0);
		if (l->modes[i] == LOCK_MODE_WRITE)
			assert_int_equal(atomic_load(&g->readers), 0);
	}
}

static void wait_elsewhere(struct op *op)
{
	struct locker *l = (struct locker *)op;

	if (!l->forever) {
		op_wake(op);
		return;
	}
	pthread_mutex_lock(&l->lock);
	l->is_waiting = true;
	pthread_cond_broadcast(&l->cond);
	pthread_mutex_unlock(&l->lock);
}

static int run_locker(struct op *op, struct itx *tx)
{
	struct locker *l = (struct locker *)op;
	struct mount *mt = mount_of(op->fsd);

	if (l->counted)
		count(l, -1);
	for (unsigned i = 0; i < l->nr; i++) {
		int ret = l->targets[i] == GROUPS ? lock_rename(op) :
			  lock_inode(op, ino_of(l->targets[i]), l->modes[i]);

		if (ret < 0)
			return ret;
	}
	for (unsigned i = 0; i < l->nr; i++) {
		struct key key = key_inode(ino_of(l->targets[i]));

		if (l->targets[i] != GROUPS)
			assert_true(lock_covers(op, &key, l->modes[i] == LOCK_MODE_WRITE));
	}
	count(l, 1);
	nobody_conflicts(l);
	if (l->parks) {
		l->parks--;
		return op_park(op, wait_elsewhere);
	}
	for (unsigned i = 0; i < l->nr && tx->write; i++) {
		if (l->modes[i] == LOCK_MODE_WRITE)
			atomic_store(&mt->groups[l->targets[i]].dirty_gen, tx->open_gen);
	}
	tx->dirty_nr++;
	return 0;
}

static void done_locker(struct op *op, int err)
{
	struct locker *l = (struct locker *)op;

	if (l->counted) {
		nobody_conflicts(l);
		count(l, -1);
	}
	pthread_mutex_lock(&l->lock);
	l->err = err;
	l->done = true;
	pthread_cond_broadcast(&l->cond);
	pthread_mutex_unlock(&l->lock);
}

static void locker_init(struct locker *l, struct mount *mt)
{
	memset(l, 0, sizeof(*l));
	l->op = (struct op){ .fsd = &mt->fsd, .name = "test", .writes = true, .run = run_locker,
			     .done = done_locker };
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->cond, NULL);
}

static void add_target(struct locker *l, unsigned target, uint8_t mode)
{
	for (unsigned i = 0; i < l->nr; i++) {
		if (l->targets[i] == target)
			return;
	}
	l->targets[l->nr] = target;
	l->modes[l->nr++] = target == GROUPS ? LOCK_MODE_WRITE : mode;
}

/* Whether flag became true in time. */
static bool wait_flag(struct locker *l, const bool *flag)
{
	uint64_t end_ns = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	bool ok;

	pthread_mutex_lock(&l->lock);
	while (!*flag && clock_cond_wait(&l->cond, &l->lock, end_ns) == 0)
		;
	ok = *flag;
	pthread_mutex_unlock(&l->lock);
	return ok;
}

struct app {
	struct mount *mt;
	uint64_t seed;
	unsigned rounds;
	pthread_t thread;
};

static void *application(void *arg)
{
	struct app *a = arg;
	struct locker *l = calloc(1, sizeof(*l));

	for (unsigned i = 0; i < a->rounds; i++) {
		locker_init(l, a->mt);
		for (unsigned n = 1 + test_random(&a->seed) % 4; n; n--)
			add_target(l, target_of((unsigned)(test_random(&a->seed) % (SHARED + 1))),
				   test_random(&a->seed) % 2 ? LOCK_MODE_WRITE : LOCK_MODE_READ);
		l->parks = (unsigned)(test_random(&a->seed) % 3);
		op_start(&l->op);
		if (!wait_flag(l, &l->done)) {
			fprintf(stderr, "an operation of mount %u did not end in %u s\n",
				mount_nr(a->mt), DEADLINE_S);
			abort();
		}
		assert_int_equal(l->err, 0);
	}
	/* The last operation's struct may be looked at until its uses are dropped. */
	ops_drain(&a->mt->fsd);
	free(l);
	return NULL;
}

/* ---- set-up ---- */

static int setup(void **state)
{
	static const struct lockfsm_ops ops = { .emit = emit,
						.next_seq = next_seq,
						.raise_seq = raise_seq };

	(void)state;
	memset(&leader, 0, sizeof(leader));
	queue_init(&leader.in);
	assert_int_equal(lockfsm_open(&leader.fsm, &ops), 0);
	memset(mounts, 0, sizeof(mounts));
	for (unsigned i = 0; i < MOUNTS; i++) {
		struct mount *mt = &mounts[i];

		mt->open_gen = 1;
		mt->fsd.conf.lock_idle_count = 3;
		pthread_mutex_init(&mt->writer, NULL);
		pthread_mutex_init(&mt->gen_lock, NULL);
		queue_init(&mt->in);
		assert_int_equal(ops_start(&mt->fsd, 3), 0);
		assert_int_equal(locks_start(&mt->fsd), 0);
		assert_int_equal(pthread_create(&mt->home, NULL, home, mt), 0);
	}
	assert_int_equal(pthread_create(&leader.thread, NULL, lead, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	struct message *m;

	(void)state;
	queue_close(&leader.in);
	pthread_join(leader.thread, NULL);
	for (unsigned i = 0; i < MOUNTS; i++) {
		queue_close(&mounts[i].in);
		pthread_join(mounts[i].home, NULL);
		ops_drain(&mounts[i].fsd);
		locks_stop(&mounts[i].fsd);
		ops_stop(&mounts[i].fsd);
	}
	/* What a mount has still said when nobody led any more. */
	while ((m = pop(&leader.in)))
		free(m);
	lockfsm_close(leader.fsm);
	return 0;
}

/* ---- tests ---- */

static void no_two_mounts_conflict_and_all_get_on(void **state)
{
	unsigned rounds = (unsigned)test_env("ROUNDS", 400);
	uint64_t seed = test_env("SEED", 1);
	struct app apps[MOUNTS * THREADS];
	unsigned revokes = 0;

	(void)state;
	for (unsigned i = 0; i < MOUNTS * THREADS; i++) {
		apps[i] = (struct app){ .mt = &mounts[i % MOUNTS],
					.seed = test_random(&seed),
					.rounds = rounds };
		assert_int_equal(pthread_create(&apps[i].thread, NULL, application, &apps[i]), 0);
	}
	for (unsigned i = 0; i < MOUNTS * THREADS; i++)
		pthread_join(apps[i].thread, NULL);
	for (unsigned i = 0; i < MOUNTS; i++) {
		for (unsigned g = 0; g <= GROUPS; g++)
			revokes += atomic_load(&mounts[i].groups[g].revokes);
	}
	assert_true(revokes > 20);	/* else the mounts did not meet */
}

static void one_op(struct mount *mt, unsigned group, uint8_t mode, int err)
{
	struct locker *l = calloc(1, sizeof(*l));

	locker_init(l, mt);
	add_target(l, group, mode);
	op_start(&l->op);
	assert_true(wait_flag(l, &l->done));
	assert_int_equal(l->err, err);
	ops_drain(&mt->fsd);
	free(l);
}

static void interrupted_waiter_ends_and_the_lock_goes_on(void **state)
{
	struct locker *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
	struct key key = key_inode(ino_of(2)), start = key_lock_start(&key);
	uint64_t held, waiting = 0, end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	(void)state;
	locker_init(a, &mounts[0]);
	add_target(a, 2, LOCK_MODE_WRITE);
	a->parks = 1;
	a->forever = true;
	op_start(&a->op);
	assert_true(wait_flag(a, &a->is_waiting));

	locker_init(b, &mounts[1]);
	add_target(b, 2, LOCK_MODE_READ);
	op_start(&b->op);
	while (!waiting && clock_mono_ns() < end)
		locks_counts(&mounts[1].fsd, &held, &waiting);
	assert_int_equal(waiting, 1);
	op_interrupt(&b->op);
	assert_true(wait_flag(b, &b->done));
	assert_int_equal(b->err, -EINTR);

	a->forever = false;
	op_wake(&a->op);
	assert_true(wait_flag(a, &a->done));
	assert_int_equal(a->err, 0);
	one_op(&mounts[1], 2, LOCK_MODE_WRITE, 0);
	one_op(&mounts[0], 2, LOCK_MODE_READ, 0);
	assert_true(lock_kernel_timeout(&mounts[0].fsd, ino_of(2)) > 0);
	assert_true(lock_write_seq(&mounts[1].fsd, &start) >
			    lock_write_seq(&mounts[0].fsd, &start) ||
		    lock_write_seq(&mounts[0].fsd, &start) == 0);
	ops_drain(&mounts[0].fsd);
	ops_drain(&mounts[1].fsd);
	free(a);
	free(b);
}

static void tells_all_in_batches_of(size_t max)
{
	struct lock_state got[GROUPS + 1];
	struct key at = KEY_ZEROS;
	unsigned seen = 0;
	size_t nr;

	while ((nr = locks_recover(&mounts[0].fsd, &at, got, max))) {
		assert_true(nr == max || seen + nr == GROUPS);
		for (size_t i = 0; i < nr; i++) {
			assert_int_equal(group_of(&got[i].key), seen);
			assert_int_equal(got[i].mode, seen & 1 ? LOCK_MODE_WRITE : LOCK_MODE_READ);
			assert_int_equal(got[i].mode, lockfsm_mode_of(leader.fsm, 1, &got[i].key));
			seen++;
		}
		at = key_next(got[nr - 1].key);
	}
	assert_int_equal(seen, GROUPS);
}

static void recovery_tells_all_locks_in_order_in_batches(void **state)
{
	(void)state;
	mounts[0].fsd.conf.lock_idle_count = 100;
	for (unsigned g = GROUPS; g-- > 0;)
		one_op(&mounts[0], g, g & 1 ? LOCK_MODE_WRITE : LOCK_MODE_READ, 0);
	for (size_t max = 1; max <= GROUPS + 1; max++)
		tells_all_in_batches_of(max);
}

/* A name that others move between its runs leads it to another inode each time. */
struct wanderer {
	struct locker l;
	unsigned run_nr;
};

static int run_wanderer(struct op *op, struct itx *tx)
{
	struct wanderer *w = (struct wanderer *)op;
	int ret = lock_inode(op, ino_of(GROUPS - 1), LOCK_MODE_READ);

	if (ret == 0)
		ret = lock_inode(op, ino_of(w->run_nr), LOCK_MODE_READ);
	if (ret == OP_PARKED || ++w->run_nr < GROUPS - 1)
		return ret == OP_PARKED ? ret : op_park(op, wait_elsewhere);
	tx->dirty_nr++;
	return ret;
}

static void an_operation_that_names_ever_other_locks_ends(void **state)
{
	struct wanderer *w = calloc(1, sizeof(*w));

	(void)state;
	mounts[0].fsd.conf.lock_idle_count = 100;
	locker_init(&w->l, &mounts[0]);
	w->l.op.run = run_wanderer;
	op_start(&w->l.op);
	assert_true(wait_flag(&w->l, &w->l.done));
	assert_int_equal(w->l.err, 0);
	assert_int_equal(w->run_nr, GROUPS - 1);
	ops_drain(&mounts[0].fsd);
	free(w);
}

static void unknown_lock_is_answered_at_once(void **state)
{
	struct key key = key_inode(ino_of(1)), start = key_lock_start(&key);

	(void)state;
	atomic_store(&mounts[0].groups[1].dropped, true);
	atomic_store(&mounts[0].groups[1].told, true);
	locks_invalidate(&mounts[0].fsd, NULL, &start, LOCK_MODE_WRITE, LOCK_MODE_NULL);
	assert_int_equal(atomic_load(&mounts[0].groups[1].revokes), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(no_two_mounts_conflict_and_all_get_on),
		T(interrupted_waiter_ends_and_the_lock_goes_on),
		T(recovery_tells_all_locks_in_order_in_batches),
		T(an_operation_that_names_ever_other_locks_ends),
		T(unknown_lock_is_answered_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
