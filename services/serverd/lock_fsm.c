/*
 * The cluster lock server.
 *
 * Promises: no two grants that conflict (runtime 4.2) exist at one time, counting what a client was
 * asked to give back and has not yet answered as still held; requests of one key are granted in the
 * order they came, so no reader starves a writer; every request is answered with exactly one grant
 * unless its rid goes; every grant of a writing mode has a sequence number greater than any before.
 * Nothing is granted while a rid that was mounted before this server has not reported its locks.
 *
 * How: each key has three lists of {rid, mode}: granted, requested (in order of arrival), and taken
 * (an invalidation is on its way).  key_process() runs after each change: nothing happens while
 * something is taken; else the first request is granted, or everything that stands in its way is taken.
 *
 * A rid may be asked twice around a change of server.  A request by a rid that already holds the mode
 * is granted again; an answer to an invalidation that nobody waits for is counted and dropped.
 *
 * Memory is taken when a request or a recovered lock arrives and at no other time, so that an event
 * that runs out of it has changed nothing.
 */
#include "lock_fsm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/planted.h"
enum entry_state { ENTRY_GRANTED, ENTRY_REQUESTED, ENTRY_TAKEN, ENTRY_STATES_NR };

struct entry {
	struct entry *next;
	uint64_t rid;
	uint64_t handle;	/* requested */
	uint64_t write_seq;	/* granted for writing */
	uint64_t since_ns;	/* requested, taken */
	uint8_t mode;		/* held or wanted */
	uint8_t new_mode;	/* taken: what it was asked to go to */
};

struct entries {
	struct entry *head;
	struct entry *tail;
};

struct lock {
	struct lock *next;	/* in its bucket */
	struct key key;
	struct entries by[ENTRY_STATES_NR];
	bool is_waited;		/* on the list of keys that have requests, in the order in which they got them */
	struct lock *wait_prev, *wait_next;
};

/* A rid that has not reported its locks yet. */
struct expected {
	struct expected *next;
	uint64_t rid;
	struct key from;	/* what it was last asked for */
	bool asked;
};

struct lockfsm {
	struct lockfsm_ops ops;
	struct lock **buckets;
	size_t buckets_nr;	/* a power of two */
	struct expected *expected;
	struct lock *waited_first, *waited_last;
	uint64_t now_ns;
	struct lockfsm_stats st;
};

#define BUCKETS_FIRST	1024u

static void entries_push(struct entries *l, struct entry *e)
{
	e->next = NULL;
	if (l->tail)
		l->tail->next = e;
	else
		l->head = e;
	l->tail = e;
}

/* Unlink the entry that *at points to. */
static struct entry *entries_pull(struct entries *l, struct entry **at)
{
	struct entry *e = *at;

	*at = e->next;
	if (l->tail == e) {
		l->tail = NULL;
		for (struct entry *x = l->head; x; x = x->next)
			l->tail = x;
	}
	e->next = NULL;
	return e;
}

static struct entry **entries_find(struct entries *l, uint64_t rid)
{
	struct entry **at = &l->head;

	while (*at && (*at)->rid != rid)
		at = &(*at)->next;
	return at;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ (x >> 29);
}

static size_t bucket_of(const struct key *k, size_t buckets_nr)
{
	uint64_t h = mix(k->first + 0x51ed27u * k->zone);

	h = mix(h ^ k->second ^ ((uint64_t)k->type << 56));
	h = mix(h ^ k->third ^ k->fourth);
	return (size_t)(h & (buckets_nr - 1));
}

static struct lock *lock_find(const struct lockfsm *f, const struct key *key)
{
	struct lock *l = f->buckets[bucket_of(key, f->buckets_nr)];

	while (l && !key_eq(&l->key, key))
		l = l->next;
	return l;
}

/* A bigger table keeps chains short; without memory for it chains are long and nothing is wrong. */
static void table_grow(struct lockfsm *f)
{
	size_t nr = f->buckets_nr * 2;
	struct lock **buckets = calloc(nr, sizeof(*buckets));

	if (!buckets)
		return;
	for (size_t i = 0; i < f->buckets_nr; i++) {
		struct lock *l = f->buckets[i];

		while (l) {
			struct lock *next = l->next;
			size_t b = bucket_of(&l->key, nr);

			l->next = buckets[b];
			buckets[b] = l;
			l = next;
		}
	}
	free(f->buckets);
	f->buckets = buckets;
	f->buckets_nr = nr;
}

static struct lock *lock_make(struct lockfsm *f, const struct key *key)
{
	struct lock *l = lock_find(f, key);
	size_t b;

	if (l)
		return l;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->key = *key;
	if (f->st.keys >= f->buckets_nr)
		table_grow(f);
	b = bucket_of(key, f->buckets_nr);
	l->next = f->buckets[b];
	f->buckets[b] = l;
	f->st.keys++;
	return l;
}

static bool lock_is_empty(const struct lock *l)
{
	return !l->by[ENTRY_GRANTED].head && !l->by[ENTRY_REQUESTED].head &&
	       !l->by[ENTRY_TAKEN].head;
}

static void lock_drop_if_empty(struct lockfsm *f, struct lock *l)
{
	struct lock **at;

	if (!lock_is_empty(l))
		return;
	at = &f->buckets[bucket_of(&l->key, f->buckets_nr)];
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	f->st.keys--;
	free(l);
}

static bool mode_can_write(uint8_t mode)
{
	return mode == LOCKFSM_WRITE || mode == LOCKFSM_WRITE_ONLY;
}

/* Whether `held` by one rid lets `want` be granted to another: the table of 4.2. */
static bool modes_agree(uint8_t held, uint8_t want)
{
	return held == LOCKFSM_NULL || want == LOCKFSM_NULL ||
	       (held == want && held != LOCKFSM_WRITE);
}

static bool conflicts(const struct entry *held, const struct entry *req)
{
	if (held->rid != req->rid)
		return !modes_agree(held->mode, req->mode);
	/* A request for nothing takes back what its own rid holds. */
	if (req->mode == LOCKFSM_NULL)
		return true;
	/* Asked again what it has: an answer was lost with an earlier server. */
	if (held->mode == req->mode)
		return false;
	return !(held->mode == LOCKFSM_READ && req->mode == LOCKFSM_WRITE);
}

static void emit(struct lockfsm *f, const struct lockfsm_act *act)
{
	f->ops.emit(f->ops.arg, act);
}

/* Ask everybody whose grant stands in the way of req; whether there was anybody. */
static bool take_conflicts(struct lockfsm *f, struct lock *l, const struct entry *req)
{
	struct entries *granted = &l->by[ENTRY_GRANTED];
	struct entry **at = &granted->head;
	bool taken = false;

	while (*at) {
		struct lockfsm_act act = { .kind = LOCKFSM_INVALIDATE, .key = l->key };
		struct entry *e = *at;

		if (!conflicts(e, req)) {
			at = &e->next;
			continue;
		}
		entries_pull(granted, at);
		e->new_mode = e->mode == LOCKFSM_WRITE && req->mode == LOCKFSM_READ ?
			      LOCKFSM_READ : LOCKFSM_NULL;
		e->since_ns = f->now_ns;
		act.rid = e->rid;
		act.old_mode = e->mode;
		act.new_mode = e->new_mode;
		entries_push(&l->by[ENTRY_TAKEN], e);
		f->st.granted--;
		f->st.invalidating++;
		f->st.invalidates++;
		emit(f, &act);
		taken = true;
	}
	return taken;
}

static void grant(struct lockfsm *f, struct lock *l, struct entry *req)
{
	struct entries *granted = &l->by[ENTRY_GRANTED];
	struct entry **at = entries_find(granted, req->rid);
	struct lockfsm_act act = { .kind = LOCKFSM_GRANT, .rid = req->rid, .key = l->key,
				   .handle = req->handle, .new_mode = req->mode };

	if (*at) {
		struct entry *old = entries_pull(granted, at);

		act.old_mode = old->mode;
		f->st.granted--;
		free(old);
	}
	if (mode_can_write(req->mode))
		act.write_seq = f->ops.next_seq(f->ops.arg);
	req->write_seq = act.write_seq;
	f->st.grants++;
	if (req->mode == LOCKFSM_NULL) {
		free(req);
	} else {
		f->st.granted++;
		entries_push(granted, req);
	}
	emit(f, &act);
}

/* Whether anybody waits for l may have changed. */
static void note_waited(struct lockfsm *f, struct lock *l)
{
	bool is_waited = l->by[ENTRY_REQUESTED].head;

	if (is_waited == l->is_waited)
		return;
	l->is_waited = is_waited;
	if (is_waited) {
		l->wait_prev = f->waited_last;
		l->wait_next = NULL;
		*(l->wait_prev ? &l->wait_prev->wait_next : &f->waited_first) = l;
		f->waited_last = l;
	} else {
		*(l->wait_prev ? &l->wait_prev->wait_next : &f->waited_first) = l->wait_next;
		*(l->wait_next ? &l->wait_next->wait_prev : &f->waited_last) = l->wait_prev;
	}
}

/* Go on with a key as far as it goes.  The lock may be gone afterwards. */
static void key_process(struct lockfsm *f, struct lock *l)
{
	struct entries *requested = &l->by[ENTRY_REQUESTED];

	if (!f->expected || PLANTED(lock_granted_in_recovery)) {
		while (requested->head &&
		       (!l->by[ENTRY_TAKEN].head || PLANTED(lock_granted_while_taken))) {
			if (take_conflicts(f, l, requested->head))
				break;
			f->st.waiting--;
			grant(f, l, entries_pull(requested, &requested->head));
		}
	}
	note_waited(f, l);
	lock_drop_if_empty(f, l);
}

/* Call fn for every lock; fn may free the one it is given. */
static void each_lock(struct lockfsm *f, void (*fn)(struct lockfsm *f, struct lock *l, uint64_t rid),
		      uint64_t rid)
{
	for (size_t i = 0; i < f->buckets_nr; i++) {
		struct lock *l = f->buckets[i];

		while (l) {
			struct lock *next = l->next;

			fn(f, l, rid);
			l = next;
		}
	}
}

static void process_one(struct lockfsm *f, struct lock *l, uint64_t rid)
{
	(void)rid;
	key_process(f, l);
}

static struct expected **expected_find(const struct lockfsm *f, uint64_t rid)
{
	struct expected **at = (struct expected **)&f->expected;

	while (*at && (*at)->rid != rid)
		at = &(*at)->next;
	return at;
}

/* rid is not waited for any more; when it was the last, everything that waited goes on. */
static void expected_drop(struct lockfsm *f, struct expected **at, bool reported)
{
	struct expected *x = *at;
	struct lockfsm_act act = { .kind = LOCKFSM_RID_DONE, .rid = x->rid };

	*at = x->next;
	free(x);
	if (reported)
		emit(f, &act);
	if (f->expected)
		return;
	act = (struct lockfsm_act){ .kind = LOCKFSM_ALL_DONE };
	emit(f, &act);
	each_lock(f, process_one, 0);
}

static int step_request(struct lockfsm *f, const struct lockfsm_event *ev)
{
	struct lock *l;
	struct entry *e;

	if (ev->new_mode >= LOCKFSM_MODES_NR)
		return -EINVAL;
	l = lock_make(f, &ev->key);
	if (!l)
		return -ENOMEM;
	for (e = l->by[ENTRY_REQUESTED].head; e; e = e->next) {
		if (e->rid == ev->rid && e->handle == ev->handle) {
			f->st.duplicates++;
			return 0;
		}
	}
	e = calloc(1, sizeof(*e));
	if (!e) {
		lock_drop_if_empty(f, l);
		return -ENOMEM;
	}
	e->rid = ev->rid;
	e->handle = ev->handle;
	e->since_ns = f->now_ns;
	e->mode = ev->new_mode;
	entries_push(&l->by[ENTRY_REQUESTED], e);
	f->st.waiting++;
	key_process(f, l);
	return 0;
}

static int step_invalidated(struct lockfsm *f, const struct lockfsm_event *ev)
{
	struct lock *l = lock_find(f, &ev->key);
	struct entry **at = l ? entries_find(&l->by[ENTRY_TAKEN], ev->rid) : NULL;
	struct entry *e;

	/*
	 * Nobody waits for it: an answer that was sent again around a change of server.  Nor does an
	 * answer count that leads elsewhere than asked.
	 */
	if (!at || !*at || (*at)->new_mode != ev->new_mode) {
		f->st.late_answers++;
		return 0;
	}
	e = entries_pull(&l->by[ENTRY_TAKEN], at);
	f->st.invalidating--;
	e->mode = e->new_mode;
	if (e->mode == LOCKFSM_NULL) {
		free(e);
	} else {
		entries_push(&l->by[ENTRY_GRANTED], e);
		f->st.granted++;
	}
	key_process(f, l);
	return 0;
}

static int step_expect(struct lockfsm *f, const struct lockfsm_event *ev)
{
	struct expected *x;

	if (*expected_find(f, ev->rid))
		return 0;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->rid = ev->rid;
	x->next = f->expected;
	f->expected = x;
	return 0;
}

static void ask(struct lockfsm *f, struct expected *x, struct key from)
{
	struct lockfsm_act act = { .kind = LOCKFSM_ASK, .rid = x->rid, .key = from };

	x->from = from;
	x->asked = true;
	emit(f, &act);
}

/* Whether a batch is in order, and agrees with what others have reported. */
static bool batch_is_sane(const struct lockfsm *f, const struct expected *x,
			  const struct lockfsm_event *ev)
{
	for (size_t i = 0; i < ev->held_nr; i++) {
		const struct lockfsm_held *h = &ev->held[i];
		const struct lock *l;

		if (h->mode == LOCKFSM_NULL || h->mode >= LOCKFSM_MODES_NR ||
		    key_cmp(&h->key, &x->from) < 0 ||
		    (i > 0 && key_cmp(&h->key, &ev->held[i - 1].key) <= 0))
			return false;
		l = lock_find(f, &h->key);
		for (const struct entry *e = l ? l->by[ENTRY_GRANTED].head : NULL; e; e = e->next) {
			if (e->rid == ev->rid || !modes_agree(e->mode, h->mode))
				return false;
		}
	}
	return true;
}

static int step_recovered(struct lockfsm *f, const struct lockfsm_event *ev)
{
	struct expected **at = expected_find(f, ev->rid);
	struct expected *x = *at;
	struct entry *list = NULL;
	size_t done;
	struct key last;

	if (!x || !x->asked) {
		f->st.late_answers++;
		return 0;
	}
	if (!batch_is_sane(f, x, ev)) {
		struct lockfsm_act act = { .kind = LOCKFSM_LIED, .rid = ev->rid };

		emit(f, &act);
		return 0;
	}
	if (ev->held_nr == 0) {
		expected_drop(f, at, true);
		return 0;
	}
	/* All the memory first. */
	for (done = 0; done < ev->held_nr; done++) {
		struct entry *e = calloc(1, sizeof(*e));

		if (!e || !lock_make(f, &ev->held[done].key)) {
			free(e);
			goto nomem;
		}
		e->next = list;
		list = e;
	}
	for (size_t i = 0; i < ev->held_nr; i++) {
		const struct lockfsm_held *h = &ev->held[i];
		struct entry *e = list;

		list = e->next;
		e->rid = ev->rid;
		e->mode = h->mode;
		e->write_seq = h->write_seq;
		f->ops.raise_seq(f->ops.arg, h->write_seq);
		entries_push(&lock_find(f, &h->key)->by[ENTRY_GRANTED], e);
		f->st.granted++;
	}
	last = ev->held[ev->held_nr - 1].key;
	if (key_eq(&last, &KEY_ONES))
		expected_drop(f, at, true);
	else
		ask(f, x, key_next(last));
	return 0;
nomem:
	for (size_t i = 0; i < done; i++) {
		struct lock *l = lock_find(f, &ev->held[i].key);
		struct entry *e = list;

		list = e->next;
		free(e);
		if (l)
			lock_drop_if_empty(f, l);
	}
	return -ENOMEM;
}

static void forget_rid(struct lockfsm *f, struct lock *l, uint64_t rid)
{
	uint64_t *count[ENTRY_STATES_NR] = { &f->st.granted, &f->st.waiting, &f->st.invalidating };
	bool changed = false;

	for (int s = 0; s < ENTRY_STATES_NR; s++) {
		struct entry **at;

		while (*(at = entries_find(&l->by[s], rid))) {
			free(entries_pull(&l->by[s], at));
			(*count[s])--;
			changed = true;
		}
	}
	if (changed)
		key_process(f, l);
}

static int step_gone(struct lockfsm *f, const struct lockfsm_event *ev)
{
	struct expected **at = expected_find(f, ev->rid);

	each_lock(f, forget_rid, ev->rid);
	if (*at)
		expected_drop(f, at, false);
	return 0;
}

int lockfsm_step(struct lockfsm *f, const struct lockfsm_event *ev)
{
	if (ev->now_ns)
		f->now_ns = ev->now_ns;
	switch (ev->kind) {
	case LOCKFSM_REQUEST:
		return step_request(f, ev);
	case LOCKFSM_INVALIDATED:
		return step_invalidated(f, ev);
	case LOCKFSM_EXPECT:
		return step_expect(f, ev);
	case LOCKFSM_GREETED: {
		struct expected *x = *expected_find(f, ev->rid);

		if (x && !x->asked)
			ask(f, x, KEY_ZEROS);
		return 0;
	}
	case LOCKFSM_RECOVERED:
		return step_recovered(f, ev);
	case LOCKFSM_GONE:
		return step_gone(f, ev);
	}
	return -EINVAL;
}

bool lockfsm_is_expected(const struct lockfsm *f, uint64_t rid)
{
	return *expected_find(f, rid) != NULL;
}

bool lockfsm_is_gated(const struct lockfsm *f)
{
	return f->expected != NULL;
}

void lockfsm_get_stats(const struct lockfsm *f, struct lockfsm_stats *st)
{
	*st = f->st;
}

/* Into its place among the nr longest, if it has one; how many there are then. */
static size_t keep_longest(struct lockfsm_wait *out, size_t nr, size_t max, const struct lockfsm_wait *w)
{
	size_t at;

	if (max == 0 || (nr == max && out[max - 1].since_ns <= w->since_ns))
		return nr;
	if (nr < max)
		nr++;
	for (at = nr - 1; at > 0 && out[at - 1].since_ns > w->since_ns; at--)
		out[at] = out[at - 1];
	out[at] = *w;
	return nr;
}

size_t lockfsm_waits(const struct lockfsm *f, struct lockfsm_wait *out, size_t max)
{
	size_t looked = 0, nr = 0;

	for (const struct lock *l = f->waited_first; l && looked < LOCKFSM_LOOK_MAX; l = l->wait_next) {
		struct lockfsm_wait w = { .key = l->key };

		for (const struct entry *t = l->by[ENTRY_TAKEN].head; t; t = t->next, looked++) {
			if (w.holders++ > 0)
				continue;
			w.holder = t->rid;
			w.holder_mode = t->mode;
			w.asked_ns = t->since_ns;
		}
		for (const struct entry *e = l->by[ENTRY_REQUESTED].head; e && looked < LOCKFSM_LOOK_MAX;
		     e = e->next, looked++) {
			w.rid = e->rid;
			w.mode = e->mode;
			w.since_ns = e->since_ns;
			nr = keep_longest(out, nr, max, &w);
			w.ahead++;
		}
	}
	return nr;
}

uint8_t lockfsm_mode_of(const struct lockfsm *f, uint64_t rid, const struct key *key)
{
	struct lock *l = lock_find(f, key);
	struct entry *e = NULL;

	if (l) {
		e = *entries_find(&l->by[ENTRY_GRANTED], rid);
		if (!e)
			e = *entries_find(&l->by[ENTRY_TAKEN], rid);
	}
	return e ? e->mode : LOCKFSM_NULL;
}

/* Every pair of holders of one key, the taken ones as what they still hold. */
static void check_pairs(const struct lock *l)
{
	static const enum entry_state held[] = { ENTRY_GRANTED, ENTRY_TAKEN };

	for (unsigned i = 0; i < 2; i++) {
		for (const struct entry *a = l->by[held[i]].head; a; a = a->next) {
			assert(a->mode != LOCKFSM_NULL);
			for (unsigned j = 0; j < 2; j++) {
				for (const struct entry *b = l->by[held[j]].head; b; b = b->next) {
					if (a == b)
						continue;
					assert(a->rid != b->rid);
					assert(modes_agree(a->mode, b->mode));
				}
			}
		}
	}
}

void lockfsm_check(const struct lockfsm *f)
{
	uint64_t keys = 0, waited = 0, nr[ENTRY_STATES_NR] = { 0 };
	const struct lock *prev = NULL;

	for (size_t i = 0; i < f->buckets_nr; i++) {
		for (const struct lock *l = f->buckets[i]; l; l = l->next) {
			keys++;
			assert(bucket_of(&l->key, f->buckets_nr) == i);
			assert(!lock_is_empty(l));
			for (int s = 0; s < ENTRY_STATES_NR; s++) {
				const struct entry *last = NULL;

				for (const struct entry *e = l->by[s].head; e; e = e->next) {
					nr[s]++;
					last = e;
				}
				assert(l->by[s].tail == last);
			}
			check_pairs(l);
			waited += l->is_waited;
			assert(l->is_waited == (l->by[ENTRY_REQUESTED].head != NULL));
			/* Nobody waits for nothing. */
			assert(!l->by[ENTRY_REQUESTED].head || l->by[ENTRY_TAKEN].head ||
			       f->expected);
			assert(!l->by[ENTRY_TAKEN].head || !f->expected);
		}
	}
	for (const struct lock *l = f->waited_first; l; prev = l, l = l->wait_next, waited--)
		assert(l->is_waited && l->wait_prev == prev);
	assert(waited == 0 && f->waited_last == prev);
	assert(keys == f->st.keys);
	assert(nr[ENTRY_GRANTED] == f->st.granted);
	assert(nr[ENTRY_REQUESTED] == f->st.waiting);
	assert(nr[ENTRY_TAKEN] == f->st.invalidating);
}

int lockfsm_open(struct lockfsm **out, const struct lockfsm_ops *ops)
{
	struct lockfsm *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->ops = *ops;
	f->buckets_nr = BUCKETS_FIRST;
	f->buckets = calloc(f->buckets_nr, sizeof(*f->buckets));
	if (!f->buckets) {
		free(f);
		return -ENOMEM;
	}
	*out = f;
	return 0;
}

static void free_lock(struct lockfsm *f, struct lock *l, uint64_t rid)
{
	(void)f;
	(void)rid;
	for (int s = 0; s < ENTRY_STATES_NR; s++) {
		while (l->by[s].head)
			free(entries_pull(&l->by[s], &l->by[s].head));
	}
	free(l);
}

void lockfsm_close(struct lockfsm *f)
{
	if (!f)
		return;
	each_lock(f, free_lock, 0);
	while (f->expected) {
		struct expected *x = f->expected;

		f->expected = x->next;
		free(x);
	}
	free(f->buckets);
	free(f);
}
