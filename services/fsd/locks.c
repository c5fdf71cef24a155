/*
 * Cluster locks as this mount holds them.
 *
 * Promises: an operation that runs holds every lock it has named, in a mode that is good enough,
 * and no other mount holds a conflicting one until its answer is out.  A revoke is answered only
 * when nothing of this mount relies on the lock any more, in the order of design.md D4: (a) from
 * its arrival replies carry no kernel timeouts; (b), (c) the kernel's caches are withdrawn while
 * requests are still served; (d) new users wait, the last use ends, what is dirty under it is
 * committed, the items are dropped. WRITE to READ keeps all caches: they are clean then.
 *
 * Deadlock: an operation takes a lock out of order only if it is to be had at once.  Otherwise it
 * gives up every lock that comes later in the order of runtime.md 4.8 (and its own weaker use of
 * the same lock), and takes them one by one, in order.  So whoever waits holds only locks that come
 * earlier, in all mounts. Who holds a lock being drained may name it again, for it may need it
 * twice to finish.
 *
 * Fairness: when a grant arrives everybody who waited gets its use before the next revoke is looked
 * at, so each grant does some work; after that no new user is let in before the revoke is answered.
 *
 * One mutex guards the table.  Under it only queues of other modules are touched: op_wake,
 * txn_commit, net_lock_request and net_invalidate_respond neither wait nor call back.  The notifier
 * threads are alone in calling into the kernel and in dropping items; waiting for users and commits
 * takes no thread, so that one revoke never waits behind another.
 */
#include "locks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse.h"
#include "keep.h"
#include "locks_impl.h"
#include "log.h"
#include "net.h"
#include "reader.h"
#include "txn.h"

/* Kernel timeouts under a lock: it is the revoke that ends them. */
#define KERNEL_TIMEOUT_S	3600.0

/* ---- the table ----------------------------------------------------------------------------- */

static size_t hash_of(const struct key *start)
{
	uint64_t h = (start->first >> 10) * 0x9e3779b97f4a7c15ull + start->zone;

	return (size_t)(h >> 32 ^ h) % LOCKS_HASH_NR;
}

struct lock *locks_find(struct locks *ls, const struct key *start)
{
	struct lock *l = ls->hash[hash_of(start)];

	while (l && !key_eq(&l->start, start))
		l = l->hash_next;
	return l;
}

struct lock *locks_find_inode(struct locks *ls, uint64_t ino)
{
	struct key key = key_inode(ino), start = key_lock_start(&key);

	return locks_find(ls, &start);
}

static struct lock *find_or_make(struct locks *ls, const struct key *start)
{
	struct lock *l = locks_find(ls, start);

	if (l)
		return l;
	l = calloc(1, sizeof(*l));
	if (!l)
		fsd_fail(ls->fsd, "out of memory");
	l->ls = ls;
	l->start = *start;
	l->end = key_lock_end(start);
	l->slot = KEEP_NO_LOCK;
	l->waiters_tail = &l->waiters;
	l->invals_tail = &l->invals;
	l->hash_next = ls->hash[hash_of(start)];
	ls->hash[hash_of(start)] = l;
	ls->nr++;
	return l;
}

static void forget(struct locks *ls, struct lock *l)
{
	struct lock **p = &ls->hash[hash_of(&l->start)];

	while (*p != l)
		p = &(*p)->hash_next;
	*p = l->hash_next;
	ls->nr--;
	free(l);
}

/* Idle locks, oldest use first. */

static void lru_remove(struct locks *ls, struct lock *l)
{
	if (!l->is_idle)
		return;
	*(l->lru_prev ? &l->lru_prev->lru_next : &ls->lru_head) = l->lru_next;
	*(l->lru_next ? &l->lru_next->lru_prev : &ls->lru_tail) = l->lru_prev;
	l->lru_prev = l->lru_next = NULL;
	l->is_idle = false;
}

static void lru_add(struct locks *ls, struct lock *l)
{
	l->lru_prev = ls->lru_tail;
	*(ls->lru_tail ? &ls->lru_tail->lru_next : &ls->lru_head) = l;
	ls->lru_tail = l;
	l->is_idle = true;
}

void locks_settle(struct locks *ls, struct lock *l)
{
	bool idle = !l->refs && !l->waiters && !l->is_requested && l->step == REVOKE_NONE;

	if (!idle)
		lru_remove(ls, l);
	else if (l->mode == LOCK_MODE_NULL) {
		lru_remove(ls, l);
		forget(ls, l);
	} else if (!l->is_idle)
		lru_add(ls, l);
}

/* Above the limit one idle lock goes back for each new one that is used (runtime 4.4). */
static void shrink(struct locks *ls)
{
	struct lock *l = ls->lru_head;

	if (!l || ls->nr <= ls->fsd->conf.lock_idle_count)
		return;
	lru_remove(ls, l);
	l->is_requested = true;
	net_lock_request(ls->fsd, &l->start, l->mode, LOCK_MODE_NULL);
}

/* ---- uses ---------------------------------------------------------------------------------- */

static bool satisfies(uint8_t mode, uint8_t want)
{
	return mode == LOCK_MODE_WRITE || mode == want;
}

/* Whether a user of that mode is what a revoke waits for. */
static bool conflicts(const struct lock *l, uint8_t mode)
{
	return l->revoke_to == LOCK_MODE_NULL || mode == LOCK_MODE_WRITE;
}

static bool can_take(const struct op *op, const struct lock *l, uint8_t want)
{
	if (!satisfies(l->mode, want))
		return false;
	if (l->step == REVOKE_DROP || (l->step == REVOKE_DRAIN && l->revoke_to == LOCK_MODE_NULL))
		return op->is_writeback;
	return l->step == REVOKE_NONE || l->step == REVOKE_NOTIFY || !conflicts(l, want);
}

static void count_use(struct lock *l, uint8_t mode, int delta)
{
	unsigned *nr = mode == LOCK_MODE_WRITE ? &l->writers : &l->readers;

	assert(delta > 0 || *nr > 0);
	*nr += (unsigned)delta;
	if (delta > 0)
		l->uses_begun++;
}

static void take_use(const struct op *op, struct lock_use *u, uint8_t mode)
{
	if (!op->notes_itself)
		u->lock->gave_all = true;
	if (u->mode)
		count_use(u->lock, u->mode, -1);
	count_use(u->lock, mode, 1);
	u->mode = mode;
}

static void drop_use(struct lock_use *u)
{
	if (!u->mode)
		return;
	count_use(u->lock, u->mode, -1);
	u->mode = LOCK_MODE_NULL;
	revoke_drained(u->lock);
}

static struct lock_use *find_use(const struct op *op, const struct key *start)
{
	for (unsigned i = 0; i < op->uses_nr; i++) {
		if (key_eq(&op->uses[i].lock->start, start))
			return (struct lock_use *)&op->uses[i];
	}
	return NULL;
}

/*
 * Each of its runs may have named another one, for what it follows is moved meanwhile: those of before are not needed
 * any more, and which ones they are only the next run can say.
 */
static void name_anew(struct op *op)
{
	lock_unuse(op);
	op_wake(op);
}

int lock_key(struct op *op, const struct key *key, enum lock_mode mode)
{
	struct locks *ls = op->fsd->locks;
	struct key start = key_lock_start(key);
	struct lock_use *u = find_use(op, &start);
	int ret = 0;

	assert(mode == LOCK_MODE_READ || mode == LOCK_MODE_WRITE);
	if (u && u->mode >= mode)
		return 0;
	if (!u && op->uses_nr == OP_LOCKS_MAX)
		return op_park(op, name_anew);
	pthread_mutex_lock(&ls->mutex);
	if (!u) {
		u = &op->uses[op->uses_nr++];
		*u = (struct lock_use){ .lock = find_or_make(ls, &start) };
		u->lock->refs++;
		lru_remove(ls, u->lock);
	}
	u->want = (uint8_t)mode;
	if (can_take(op, u->lock, u->want)) {
		take_use(op, u, u->want);
	} else {
		op->need.lock.start = start;
		op->need.lock.mode = (uint8_t)mode;
		ret = op_park(op, lock_wait);
	}
	shrink(ls);
	pthread_mutex_unlock(&ls->mutex);
	return ret;
}

int lock_inode(struct op *op, uint64_t ino, enum lock_mode mode)
{
	struct key key = key_inode(ino);

	return lock_key(op, &key, mode);
}

int lock_rename(struct op *op)
{
	const struct key key = { .zone = ZONE_LOCK, .type = TYPE_LOCK_RENAME };

	return lock_key(op, &key, LOCK_MODE_WRITE);
}

bool lock_try_inode(struct op *op, uint64_t ino)
{
	struct locks *ls = op->fsd->locks;
	struct key key = key_inode(ino), start = key_lock_start(&key);
	struct lock_use *u = find_use(op, &start);
	struct lock *l;

	if (u)
		return u->mode != LOCK_MODE_NULL;
	if (op->uses_nr == OP_LOCKS_MAX)
		return false;
	pthread_mutex_lock(&ls->mutex);
	l = locks_find(ls, &start);
	if (l && can_take(op, l, LOCK_MODE_READ)) {
		u = &op->uses[op->uses_nr++];
		*u = (struct lock_use){ .lock = l, .want = LOCK_MODE_READ };
		l->refs++;
		lru_remove(ls, l);
		take_use(op, u, LOCK_MODE_READ);
	}
	pthread_mutex_unlock(&ls->mutex);
	return u;
}

bool lock_covers(const struct op *op, const struct key *key, bool write)
{
	struct key start;
	const struct lock_use *u;

	if (key->zone == ZONE_INODE_INDEX || key->zone == ZONE_ORPHAN ||
	    key->zone == ZONE_XATTR_TOTL || key->zone == ZONE_XATTR_INDX)
		return op->uses_nr > 0;		/* design.md D12 */
	start = key_lock_start(key);
	u = find_use(op, &start);
	return u && (write ? u->mode == LOCK_MODE_WRITE : u->mode != LOCK_MODE_NULL);
}

void lock_release_inode(struct op *op, uint64_t ino)
{
	struct locks *ls = op->fsd->locks;
	struct key key = key_inode(ino), start = key_lock_start(&key);
	struct lock_use *u = find_use(op, &start);
	struct lock *l;

	if (!u || u->mode == LOCK_MODE_WRITE || u->want == LOCK_MODE_WRITE)
		return;
	pthread_mutex_lock(&ls->mutex);
	l = u->lock;
	drop_use(u);
	*u = op->uses[--op->uses_nr];
	l->refs--;
	locks_settle(ls, l);
	pthread_mutex_unlock(&ls->mutex);
}

void lock_unuse(struct op *op)
{
	struct locks *ls = op->fsd->locks;
	struct lock *l;

	if (!op->uses_nr)
		return;
	pthread_mutex_lock(&ls->mutex);
	for (unsigned i = 0; i < op->uses_nr; i++) {
		l = op->uses[i].lock;
		drop_use(&op->uses[i]);
		l->refs--;
		locks_settle(ls, l);
	}
	op->uses_nr = 0;
	pthread_mutex_unlock(&ls->mutex);
}

bool lock_is_wanted(const struct op *op)
{
	struct locks *ls = op->fsd->locks;
	bool is_wanted = false;

	pthread_mutex_lock(&ls->mutex);
	for (unsigned i = 0; i < op->uses_nr; i++)
		is_wanted |= op->uses[i].lock->invals != NULL;
	pthread_mutex_unlock(&ls->mutex);
	return is_wanted;
}

void lock_note_dirty(struct op *op, uint64_t gen)
{
	struct locks *ls = op->fsd->locks;

	pthread_mutex_lock(&ls->mutex);
	for (unsigned i = 0; i < op->uses_nr; i++) {
		struct lock *l = op->uses[i].lock;

		if (op->uses[i].mode == LOCK_MODE_WRITE && l->dirty_gen < gen)
			l->dirty_gen = gen;
	}
	pthread_mutex_unlock(&ls->mutex);
}

/* ---- waiting ------------------------------------------------------------------------------- */

/* The order of runtime.md 4.8: rename, inode groups by number, quota. */
static int order_cmp(const struct lock *a, const struct lock *b)
{
	static const uint8_t rank[256] = { [ZONE_LOCK] = 1, [ZONE_FS] = 2, [ZONE_QUOTA] = 3 };

	if (rank[a->start.zone] != rank[b->start.zone])
		return rank[a->start.zone] < rank[b->start.zone] ? -1 : 1;
	return key_cmp(&a->start, &b->start);
}

static void sort_uses(struct op *op)
{
	for (unsigned i = 1; i < op->uses_nr; i++) {
		struct lock_use u = op->uses[i];
		unsigned j = i;

		for (; j > 0 && order_cmp(op->uses[j - 1].lock, u.lock) > 0; j--)
			op->uses[j] = op->uses[j - 1];
		op->uses[j] = u;
	}
}

/* Ask the leader for what the waiters of l need most, unless an answer or a revoke is under way. */
static void ask(struct locks *ls, struct lock *l)
{
	uint8_t want = LOCK_MODE_NULL;

	if (l->is_requested || l->step != REVOKE_NONE)
		return;
	for (struct op *op = l->waiters; op; op = op->next) {
		if (op->need.lock.mode > want)
			want = op->need.lock.mode;
	}
	if (want == LOCK_MODE_NULL || satisfies(l->mode, want))
		return;
	l->is_requested = true;
	stats_inc(&ls->fsd->stats.lock_grant_request);
	net_lock_request(ls->fsd, &l->start, l->mode, want);
}

static bool cancel_wait(struct op *op)
{
	struct locks *ls = op->fsd->locks;
	struct op **p;
	bool found = false;

	pthread_mutex_lock(&ls->mutex);
	for (unsigned i = 0; i < op->uses_nr && !found; i++) {
		struct lock *l = op->uses[i].lock;

		for (p = &l->waiters; *p && *p != op; p = &(*p)->next)
			;
		if (!*p)
			continue;
		*p = op->next;
		if (!*p)
			l->waiters_tail = p;
		found = true;
	}
	pthread_mutex_unlock(&ls->mutex);
	return found;
}

/* Take all that op has named, in order; or put it on the list of the first lock that is not to be
 * had. */
static bool take_all(struct locks *ls, struct op *op)
{
	sort_uses(op);
	for (unsigned i = 0; i < op->uses_nr; i++) {
		struct lock_use *u = &op->uses[i];

		if (u->mode >= u->want)
			continue;
		if (can_take(op, u->lock, u->want)) {
			take_use(op, u, u->want);
			continue;
		}
		for (unsigned j = i; j < op->uses_nr; j++)
			drop_use(&op->uses[j]);
		op->need.lock.start = u->lock->start;
		op->need.lock.mode = u->want;
		op->next = NULL;
		*u->lock->waiters_tail = op;
		u->lock->waiters_tail = &op->next;
		atomic_store(&op->cancel, cancel_wait);
		ask(ls, u->lock);
		return false;
	}
	return true;
}

void lock_wait(struct op *op)
{
	struct locks *ls = op->fsd->locks;

	pthread_mutex_lock(&ls->mutex);
	if (take_all(ls, op))
		op_wake(op);
	pthread_mutex_unlock(&ls->mutex);
}

void locks_pump(struct locks *ls, struct lock *l)
{
	struct op *op = l->waiters, *next;

	l->waiters = NULL;
	l->waiters_tail = &l->waiters;
	for (; op; op = next) {
		next = op->next;
		if (take_all(ls, op))
			op_wake(op);
	}
	ask(ls, l);
}

/* ---- grants, recovery ---------------------------------------------------------------------- */

void locks_granted(struct fsd *fsd, const struct key *key, uint8_t old_mode, uint8_t new_mode,
		   uint64_t write_seq, const struct forest_roots *roots)
{
	struct locks *ls = fsd->locks;
	struct lock *l;

	stats_inc(&fsd->stats.lock_grant_response);
	/* Before anybody can read under the grant: older roots may lack what the last holder
	 * wrote. */
	if (roots)
		reader_roots_given(fsd, roots);
	else
		reader_roots_stale(fsd);
	pthread_mutex_lock(&ls->mutex);
	l = find_or_make(ls, key);
	lru_remove(ls, l);
	l->is_requested = false;
	if (new_mode != LOCK_MODE_NULL) {
		if (l->mode != old_mode)
			log_debug("lock: granted from mode %u, but mode %u is held", old_mode, l->mode);
		l->mode = new_mode;
		if (new_mode == LOCK_MODE_WRITE)
			l->write_seq = write_seq;
		keep_note_lock(fsd->keep, &l->slot, &l->start, l->mode, l->write_seq);
	}
	locks_pump(ls, l);
	locks_settle(ls, l);
	pthread_mutex_unlock(&ls->mutex);
}

int locks_restore(struct fsd *fsd, uint64_t open_gen)
{
	struct locks *ls = fsd->locks;
	struct keep *k = fsd->keep;
	int ret = 0;

	pthread_mutex_lock(&ls->mutex);
	for (uint32_t i = 0; i < KEEP_LOCKS_MAX && ret == 0; i++) {
		struct key start = k->locks[i].start, whole;
		uint64_t mode = atomic_load(&k->locks[i].mode);
		struct lock *l;

		if (mode == LOCK_MODE_NULL)
			continue;
		whole = key_lock_start(&start);
		if (mode > LOCK_MODE_WRITE || !key_eq(&whole, &start) || locks_find(ls, &start)) {
			ret = -EIO;
			break;
		}
		l = find_or_make(ls, &start);
		l->mode = (uint8_t)mode;
		l->gave_all = true;
		l->write_seq = atomic_load(&k->locks[i].write_seq);
		l->slot = i;
		/* Which of them have something dirty nobody remembers. */
		if (mode == LOCK_MODE_WRITE)
			l->dirty_gen = open_gen;
		locks_settle(ls, l);
	}
	pthread_mutex_unlock(&ls->mutex);
	if (ret < 0)
		log_err("the locks that an earlier process has held make no sense");
	return ret;
}

static int state_cmp(const void *a, const void *b)
{
	return key_cmp(&((const struct lock_state *)a)->key, &((const struct lock_state *)b)->key);
}

static int greatest_first(const void *a, const void *b)
{
	return state_cmp(b, a);
}

/* v[0] of a heap with the greatest on top has been replaced by one that may be less. */
static void sift_down(struct lock_state *v, size_t nr)
{
	for (size_t at = 0, child; (child = 2 * at + 1) < nr; at = child) {
		struct lock_state moved = v[at];

		if (child + 1 < nr && state_cmp(&v[child], &v[child + 1]) < 0)
			child++;
		if (state_cmp(&moved, &v[child]) >= 0)
			break;
		v[at] = v[child];
		v[child] = moved;
	}
}

/* s may be one of the `max` least.  There are nr of them, in no order as long as they are fewer, and then a heap. */
static void keep_if_least(struct lock_state *v, size_t *nr, size_t max, const struct lock_state *s)
{
	if (*nr < max) {
		v[(*nr)++] = *s;
		if (*nr == max)
			qsort(v, max, sizeof(*v), greatest_first);	/* which is a heap */
	} else if (state_cmp(s, &v[0]) < 0) {
		v[0] = *s;
		sift_down(v, max);
	}
}

size_t locks_recover(struct fsd *fsd, const struct key *start, struct lock_state *out, size_t max)
{
	struct locks *ls = fsd->locks;
	size_t nr = 0;

	assert(max);
	pthread_mutex_lock(&ls->mutex);
	for (size_t i = 0; i < LOCKS_HASH_NR; i++) {
		for (struct lock *l = ls->hash[i]; l; l = l->hash_next) {
			/* One being revoked counts with its old mode: nothing was given back
			 * yet. */
			if (l->mode != LOCK_MODE_NULL && key_cmp(&l->start, start) >= 0)
				keep_if_least(out, &nr, max, &(struct lock_state){ l->start, l->mode, l->write_seq });
		}
	}
	pthread_mutex_unlock(&ls->mutex);
	qsort(out, nr, sizeof(*out), state_cmp);
	return nr;
}

/* ---- questions ----------------------------------------------------------------------------- */

uint64_t lock_write_seq(struct fsd *fsd, const struct key *key)
{
	struct key start = key_lock_start(key);
	struct lock *l;
	uint64_t seq;

	pthread_mutex_lock(&fsd->locks->mutex);
	l = locks_find(fsd->locks, &start);
	seq = l ? l->write_seq : 0;
	pthread_mutex_unlock(&fsd->locks->mutex);
	return seq;
}

double lock_kernel_timeout(struct fsd *fsd, uint64_t ino)
{
	struct lock *l;
	bool covered;

	pthread_mutex_lock(&fsd->locks->mutex);
	l = locks_find_inode(fsd->locks, ino);
	covered = l && l->mode != LOCK_MODE_NULL &&
		  (l->step == REVOKE_NONE || l->revoke_to == LOCK_MODE_READ);
	pthread_mutex_unlock(&fsd->locks->mutex);
	/* Without a lease nothing that was read is good for longer than the answer. */
	return covered && !ops_are_held(fsd) ? KERNEL_TIMEOUT_S : 0.0;
}

void locks_counts(struct fsd *fsd, uint64_t *held, uint64_t *waiting)
{
	struct locks *ls = fsd->locks;

	*held = *waiting = 0;
	pthread_mutex_lock(&ls->mutex);
	for (size_t i = 0; i < LOCKS_HASH_NR; i++) {
		for (struct lock *l = ls->hash[i]; l; l = l->hash_next) {
			*held += l->mode != LOCK_MODE_NULL;
			*waiting += l->waiters != NULL;
		}
	}
	pthread_mutex_unlock(&ls->mutex);
}

/* ---- start, stop --------------------------------------------------------------------------- */

int locks_open(struct fsd *fsd)
{
	struct locks *ls = calloc(1, sizeof(*ls));

	if (!ls)
		return -ENOMEM;
	ls->fsd = fsd;
	pthread_mutex_init(&ls->mutex, NULL);
	pthread_cond_init(&ls->work, NULL);
	ls->work_tail = &ls->work_head;
	fsd->locks = ls;
	return 0;
}

void locks_close(struct fsd *fsd)
{
	struct locks *ls = fsd->locks;
	struct lock *l;

	for (size_t i = 0; i < LOCKS_HASH_NR; i++) {
		while ((l = ls->hash[i])) {
			ls->hash[i] = l->hash_next;
			revoke_forget(l);
			free(l);
		}
	}
	pthread_mutex_destroy(&ls->mutex);
	pthread_cond_destroy(&ls->work);
	free(ls);
	fsd->locks = NULL;
}
