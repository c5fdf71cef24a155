/*
 * Advisory locks of all mounts.
 *
 * Promises: two owners never hold locks of one kind and file that exclude each other; a request that
 * waits is granted as soon as nobody holds what excludes it, those that came first being looked at first; as
 * on Linux, one that need not wait does not wait behind those that do.  A POSIX lock whose wait would
 * close a circle of waits is refused; where a grant closes one, which takes an owner with several
 * threads, somebody in that circle is.  OFD locks look like POSIX locks from here and are treated alike.
 *
 * flock changes its type as Linux does it: what is held is given back first, also when the other type cannot
 * be had then.  POSIX locks change in one step when the new type is granted.
 *
 * Recovery: while any mount of an earlier server has not told its locks, or a mount goes on as
 * another process, requests are kept back in order: all of them, or that mount's.  What a mount has told is
 * put in place of what is known of it when it has told all, so that what the process before was granted and
 * nobody knows any more goes; until then nobody else gets it.
 *
 * Every request may come again: what is held is granted again, what is not held is given back again.
 */
#include "advisory_objects.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* --- deadlocks --- */

/* Put everybody who keeps o from that range on the search's stack, once. */
static struct owner *push_blockers(struct advfsm *f, struct owner *stack, const struct file *file,
				   const struct owner *o, uint64_t first, uint64_t last, uint8_t type)
{
	for (struct holder *h = file->holders; h; h = h->next) {
		if (h->owner == o || h->owner->seen == f->last_search ||
		    !adv_ranges_conflict(&h->have, first, last, type))
			continue;
		h->owner->seen = f->last_search;
		h->owner->search_next = stack;
		stack = h->owner;
	}
	return stack;
}

/* Whether o, waiting for that range, would wait for itself. */
static bool is_deadlock(struct advfsm *f, const struct file *file, const struct owner *o, uint64_t first,
			uint64_t last, uint8_t type)
{
	struct owner *stack;

	if (file->kind != ADVFSM_POSIX)
		return false;
	f->last_search++;
	stack = push_blockers(f, NULL, file, o, first, last, type);
	while (stack) {
		struct owner *at = stack;

		stack = at->search_next;
		if (at == o)
			return true;
		for (struct waiter *w = at->waits; w; w = w->next_of_owner)
			stack = push_blockers(f, stack, w->file, at, w->first, w->last, w->type);
	}
	return false;
}

/* --- requests --- */

static void answer(struct advfsm *f, uint64_t rid, uint64_t handle, enum advfsm_status status)
{
	struct advfsm_act act = { .kind = ADVFSM_ANSWER, .rid = rid, .handle = handle, .status = status };

	switch (status) {
	case ADVFSM_GRANTED:
		f->st.grants++;
		break;
	case ADVFSM_DEADLOCK:
		f->st.deadlocks++;
		break;
	case ADVFSM_CANCELED:
		f->st.canceled++;
		break;
	case ADVFSM_WOULD_BLOCK:
	case ADVFSM_LIMIT:
		break;
	}
	f->ops.emit(f->ops.arg, &act);
}

/*
 * A waiter that nobody blocks gets its lock, and goes from *at.  *is_less: its owner had some of that before,
 * which may have been more.  False: there is no memory for it.
 */
static bool grant_waiter(struct advfsm *f, struct file *file, struct waiter **at, bool *is_less)
{
	struct waiter *w = *at;
	struct holder *h = advobj_holder_make(f, file, w->owner->rid, w->owner->number);
	bool had = h && h->have.nr;
	int ret = h ? advobj_holder_set(f, h, w->first, w->last, w->type) : -ENOMEM;

	*is_less = *is_less || (had && w->type == ADV_READ);
	if (h && ret == 0)
		h->pid = w->pid;
	if (h)
		advobj_holder_drop_if_empty(f, file, h);
	/* Without memory it is told so, for nobody would look at it again. */
	answer(f, w->owner->rid, w->handle, ret < 0 ? ADVFSM_LIMIT : ADVFSM_GRANTED);
	advobj_waiter_drop(f, at);
	return ret == 0;
}

/* One look at all who wait.  Whether somebody who had been looked at may go now. */
static bool grant_waiters(struct advfsm *f, struct file *file, bool *is_granted)
{
	struct waiter **at = &file->waiters;
	bool is_less = false;

	while (*at) {
		struct waiter *w = *at;

		if (advobj_is_blocked(file, w->owner, w->first, w->last, w->type))
			at = &w->next;
		else if (grant_waiter(f, file, at, &is_less))
			*is_granted = true;
	}
	return is_less;
}

/*
 * Holders of the file have changed: grant what can be granted.  Where somebody got something (is_granted:
 * before the call already), those who wait for it now may wait for themselves.
 */
static void file_process(struct advfsm *f, struct file *file, bool is_granted)
{
	struct waiter **at;

	while (grant_waiters(f, file, &is_granted))
		;
	for (at = &file->waiters; is_granted && *at;) {
		struct waiter *w = *at;

		if (!is_deadlock(f, file, w->owner, w->first, w->last, w->type)) {
			at = &w->next;
			continue;
		}
		answer(f, w->owner->rid, w->handle, ADVFSM_DEADLOCK);
		advobj_waiter_drop(f, at);
	}
	advobj_file_drop_if_empty(f, file);
}

static int do_unlock(struct advfsm *f, const struct advfsm_event *ev)
{
	const struct advfsm_lock *l = &ev->lock;
	struct file *file = advobj_file_find(f, l->ino, l->kind);
	struct holder *h = file ? *advobj_holder_find(file, ev->rid, l->owner) : NULL;
	int ret = h ? advobj_holder_set(f, h, l->first, l->last, ADV_UNLOCK) : 0;

	if (ret == -ENOMEM)
		return ret;
	answer(f, ev->rid, ev->handle, ret < 0 ? ADVFSM_LIMIT : ADVFSM_GRANTED);
	if (h && ret == 0) {
		advobj_holder_drop_if_empty(f, file, h);
		file_process(f, file, false);
	}
	return 0;
}

/* -ENOMEM: it does not wait. */
static int wait_in_file(struct advfsm *f, struct file *file, const struct advfsm_event *ev)
{
	const struct advfsm_lock *l = &ev->lock;
	struct waiter *w = calloc(1, sizeof(*w)), **at = &file->waiters;

	if (!w)
		return -ENOMEM;
	w->owner = advobj_owner_get(f, ev->rid, l->kind, l->owner);
	if (!w->owner) {
		free(w);
		return -ENOMEM;
	}
	w->file = file;
	w->handle = ev->handle;
	w->number = ev->number;
	w->first = l->first;
	w->last = l->last;
	w->type = l->type;
	w->pid = l->pid;
	while (*at)
		at = &(*at)->next;
	*at = w;
	if (l->kind == ADVFSM_POSIX) {
		w->next_of_owner = w->owner->waits;
		w->owner->waits = w;
	}
	f->st.waiting++;
	f->st.blocked++;
	return 0;
}

/* flock: whatever of another type the owner has is given back first. */
static bool give_back_for_flock(struct advfsm *f, struct holder *h, const struct advfsm_lock *l)
{
	if (l->kind != ADVFSM_FLOCK || !h->have.nr || adv_ranges_have(&h->have, l->first, l->last, l->type))
		return false;
	f->st.ranges -= h->have.nr;
	adv_ranges_clear(&h->have);
	return true;
}

static int do_lock(struct advfsm *f, const struct advfsm_event *ev)
{
	const struct advfsm_lock *l = &ev->lock;
	struct file *file = advobj_file_make(f, l->ino, l->kind);
	bool has_changed, is_granted = false;
	struct holder *h;
	int ret = 0;

	if (!file)
		return -ENOMEM;
	for (const struct waiter *w = file->waiters; w; w = w->next) {
		if (w->owner->rid == ev->rid && w->handle == ev->handle)
			return 0;
	}
	h = advobj_holder_make(f, file, ev->rid, l->owner);
	if (!h) {
		advobj_file_drop_if_empty(f, file);
		return -ENOMEM;
	}
	has_changed = give_back_for_flock(f, h, l);
	if (!advobj_is_blocked(file, h->owner, l->first, l->last, l->type)) {
		ret = advobj_holder_set(f, h, l->first, l->last, l->type);
		is_granted = ret == 0;
		has_changed = has_changed || is_granted;
		if (is_granted)
			h->pid = l->pid;
		if (ret != -ENOMEM)
			answer(f, ev->rid, ev->handle, is_granted ? ADVFSM_GRANTED : ADVFSM_LIMIT);
	} else if (!ev->wait) {
		answer(f, ev->rid, ev->handle, ADVFSM_WOULD_BLOCK);
	} else if (is_deadlock(f, file, h->owner, l->first, l->last, l->type)) {
		answer(f, ev->rid, ev->handle, ADVFSM_DEADLOCK);
	} else if (f->st.waiting >= ADVFSM_WAITERS_MAX) {
		answer(f, ev->rid, ev->handle, ADVFSM_LIMIT);
	} else {
		ret = wait_in_file(f, file, ev);
	}
	advobj_holder_drop_if_empty(f, file, h);
	if (has_changed)
		file_process(f, file, is_granted);
	else
		advobj_file_drop_if_empty(f, file);
	return ret == -ENOMEM ? ret : 0;
}

static int do_test(struct advfsm *f, const struct advfsm_event *ev)
{
	struct advfsm_act act = { .kind = ADVFSM_TESTED, .rid = ev->rid, .handle = ev->handle,
				  .lock = { .type = ADV_UNLOCK } };
	const struct advfsm_lock *l = &ev->lock;
	const struct file *file = advobj_file_find(f, l->ino, l->kind);
	const struct holder *who = NULL;
	const struct adv_range *r = NULL;

	if (file)
		r = advobj_conflict(file, ev->rid, l->owner, l->first, l->last, l->type, &who);
	if (r) {
		act.lock = (struct advfsm_lock){ .ino = l->ino, .kind = l->kind, .type = r->type,
						 .owner = who->owner->number, .first = r->first,
						 .last = r->last, .pid = who->pid };
		act.holder = who->owner->rid;
	}
	f->ops.emit(f->ops.arg, &act);
	return 0;
}

/* --- keeping back --- */

static struct expected **expected_find(const struct advfsm *f, uint64_t rid)
{
	struct expected **at = (struct expected **)&f->expected;

	while (*at && (*at)->rid != rid)
		at = &(*at)->next;
	return at;
}

static bool is_kept_back(const struct advfsm *f, uint64_t rid)
{
	for (const struct expected *x = f->expected; x; x = x->next) {
		if (x->is_new || x->rid == rid)
			return true;
	}
	return false;
}

static int do_request(struct advfsm *f, const struct advfsm_event *ev)
{
	if (ev->kind == ADVFSM_TEST)
		return do_test(f, ev);
	return ev->lock.type == ADV_UNLOCK ? do_unlock(f, ev) : do_lock(f, ev);
}

static int keep_back(struct advfsm *f, const struct advfsm_event *ev)
{
	struct gated *g;

	for (g = f->gated; g; g = g->next) {
		if (g->ev.rid == ev->rid && g->ev.handle == ev->handle)
			return 0;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->ev = *ev;
	*f->gated_tail = g;
	f->gated_tail = &g->next;
	f->st.gated++;
	return 0;
}

static struct gated *gated_pull(struct advfsm *f, struct gated **at)
{
	struct gated *g = *at;

	*at = g->next;
	if (!g->next)
		f->gated_tail = at;
	f->st.gated--;
	return g;
}

/* Do what was kept back and need not be any more, in order. */
static void release_gated(struct advfsm *f)
{
	struct gated **at = &f->gated;

	while (*at) {
		struct gated *g = *at;

		if (is_kept_back(f, g->ev.rid)) {
			at = &g->next;
			continue;
		}
		gated_pull(f, at);
		if (do_request(f, &g->ev) < 0)
			answer(f, g->ev.rid, g->ev.handle, ADVFSM_LIMIT);
		free(g);
	}
}

static void forget_gated(struct advfsm *f, uint64_t rid)
{
	struct gated **at = &f->gated;

	while (*at) {
		if ((*at)->ev.rid == rid)
			free(gated_pull(f, at));
		else
			at = &(*at)->next;
	}
}

static int step_request(struct advfsm *f, const struct advfsm_event *ev)
{
	const struct advfsm_lock *l = &ev->lock;

	if (l->kind >= ADVFSM_KINDS_NR || l->type > ADV_WRITE || l->first > l->last ||
	    (ev->kind == ADVFSM_TEST && l->type == ADV_UNLOCK))
		return -EINVAL;
	return is_kept_back(f, ev->rid) ? keep_back(f, ev) : do_request(f, ev);
}

static void step_cancel(struct advfsm *f, const struct advfsm_event *ev)
{
	for (struct gated **g = &f->gated; *g; g = &(*g)->next) {
		if ((*g)->ev.rid == ev->rid && (*g)->ev.kind == ADVFSM_LOCK && (*g)->ev.wait &&
		    (*g)->ev.number == ev->number) {
			/* Its mount has given back already what it gives back with that. */
			if ((*g)->ev.lock.kind == ADVFSM_FLOCK) {
				(*g)->ev.wait = false;
				return;
			}
			answer(f, ev->rid, (*g)->ev.handle, ADVFSM_CANCELED);
			free(gated_pull(f, g));
			return;
		}
	}
	for (size_t i = 0; i < f->files.buckets_nr; i++) {
		for (struct link *l = f->files.buckets[i]; l; l = l->next) {
			struct file *file = (struct file *)l;

			for (struct waiter **at = &file->waiters; *at; at = &(*at)->next) {
				if ((*at)->owner->rid != ev->rid || (*at)->number != ev->number)
					continue;
				answer(f, ev->rid, (*at)->handle, ADVFSM_CANCELED);
				advobj_waiter_drop(f, at);
				advobj_file_drop_if_empty(f, file);
				return;
			}
		}
	}
}

/* --- recovery --- */

/* Call fn for every file; fn may free the one it is given. */
static void each_file(struct advfsm *f, void (*fn)(struct advfsm *f, struct file *file, uint64_t rid),
		      uint64_t rid)
{
	for (size_t i = 0; i < f->files.buckets_nr; i++) {
		struct link *l = f->files.buckets[i];

		while (l) {
			struct link *next = l->next;

			fn(f, (struct file *)l, rid);
			l = next;
		}
	}
}

static void drop_waiters(struct advfsm *f, struct file *file, uint64_t rid)
{
	struct waiter **at = &file->waiters;

	while (*at) {
		if ((*at)->owner->rid == rid)
			advobj_waiter_drop(f, at);
		else
			at = &(*at)->next;
	}
}

/* Its process has ended: nobody waits, and what it had told so far does not count. */
static void forget_process(struct advfsm *f, struct file *file, uint64_t rid)
{
	struct holder *next;

	drop_waiters(f, file, rid);
	for (struct holder *h = file->holders; h; h = next) {
		next = h->next;
		if (h->owner->rid != rid)
			continue;
		adv_ranges_clear(&h->told);
		advobj_holder_drop_if_empty(f, file, h);
	}
	advobj_file_drop_if_empty(f, file);
}

static void forget_rid(struct advfsm *f, struct file *file, uint64_t rid)
{
	struct holder **at = &file->holders;

	drop_waiters(f, file, rid);
	while (*at) {
		if ((*at)->owner->rid == rid)
			advobj_holder_drop(f, at);
		else
			at = &(*at)->next;
	}
	file_process(f, file, false);
}

/*
 * What of h's told ranges another has does not count.  A write lock where others have read locks was made a
 * read lock by the server before, whose answer its mount has not heard: it will ask again (adv_table.c).
 */
static void settle_told(struct advfsm *f, struct file *file, struct holder *h)
{
	const struct owner *o = h->owner;
	const struct holder *who;

	for (uint32_t i = 0; i < h->told.nr;) {
		struct adv_range r = h->told.v[i];
		const struct adv_range *other = advobj_conflict(file, o->rid, o->number, r.first, r.last, r.type, &who);
		struct advfsm_act act = { .kind = ADVFSM_CONFLICT, .rid = o->rid,
					  .lock = { .ino = file->ino, .kind = file->kind, .owner = o->number, .type = r.type } };
		uint8_t left;

		if (!other) {
			i++;
			continue;
		}
		act.lock.first = other->first > r.first ? other->first : r.first;
		act.lock.last = other->last < r.last ? other->last : r.last;
		left = other->type == ADV_READ && r.type == ADV_WRITE ? ADV_READ : ADV_UNLOCK;
		if (adv_ranges_set(&h->told, act.lock.first, act.lock.last, left, UINT32_MAX) < 0) {
			/* A whole range: that needs no memory. */
			act.lock.first = r.first;
			act.lock.last = r.last;
			adv_ranges_set(&h->told, r.first, r.last,
				       advobj_is_blocked(file, o, r.first, r.last, ADV_READ) ? ADV_UNLOCK : ADV_READ,
				       UINT32_MAX);
		}
		f->st.conflicts++;
		f->ops.emit(f->ops.arg, &act);
		i = 0;
	}
}

/* What was told is true from now on. */
static void take_told(struct advfsm *f, struct file *file, uint64_t rid)
{
	struct holder *next;

	for (struct holder *h = file->holders; h; h = next) {
		next = h->next;
		if (h->owner->rid != rid)
			continue;
		settle_told(f, file, h);
		f->st.ranges += h->told.nr;
		f->st.ranges -= h->have.nr;
		adv_ranges_clear(&h->have);
		h->have = h->told;
		h->told = (struct adv_ranges){ 0 };
		advobj_holder_drop_if_empty(f, file, h);
	}
	file_process(f, file, true);
}

static void expected_drop(struct advfsm *f, struct expected **at)
{
	struct advfsm_act act = { .kind = ADVFSM_ALL_DONE };
	struct expected *x = *at;

	*at = x->next;
	free(x);
	if (!f->expected)
		f->ops.emit(f->ops.arg, &act);
	release_gated(f);
}

static int expect(struct advfsm *f, uint64_t rid, bool is_new, struct expected **out)
{
	struct expected *x = *expected_find(f, rid);

	if (!x) {
		x = calloc(1, sizeof(*x));
		if (!x)
			return -ENOMEM;
		x->rid = rid;
		x->is_new = is_new;
		x->next = f->expected;
		f->expected = x;
	}
	*out = x;
	return 0;
}

static void ask(struct advfsm *f, struct expected *x)
{
	struct advfsm_act act = { .kind = ADVFSM_ASK, .rid = x->rid, .round = x->round, .lock = x->last,
				  .from_start = !x->has_told };

	f->ops.emit(f->ops.arg, &act);
}

static void ask_from_start(struct advfsm *f, struct expected *x)
{
	x->round = ++f->last_round;
	x->has_told = false;
	x->last = (struct advfsm_lock){ 0 };
	ask(f, x);
}

static int step_restarted(struct advfsm *f, uint64_t rid)
{
	struct expected *x;
	int ret = expect(f, rid, false, &x);

	if (ret < 0)
		return ret;
	forget_gated(f, rid);
	each_file(f, forget_process, rid);
	ask_from_start(f, x);
	return 0;
}

static bool is_after(const struct advfsm_lock *a, const struct advfsm_lock *b)
{
	if (a->ino != b->ino)
		return a->ino > b->ino;
	if (a->kind != b->kind)
		return a->kind > b->kind;
	if (a->owner != b->owner)
		return a->owner > b->owner;
	return a->first > b->last;
}

static bool batch_is_sane(const struct expected *x, const struct advfsm_event *ev)
{
	for (size_t i = 0; i < ev->told_nr; i++) {
		const struct advfsm_lock *l = &ev->told[i], *before = i ? l - 1 : &x->last;

		if (l->kind >= ADVFSM_KINDS_NR || (l->type != ADV_READ && l->type != ADV_WRITE) ||
		    l->first > l->last || ((i || x->has_told) && !is_after(l, before)))
			return false;
	}
	return ev->told_nr || ev->is_last;
}

static int take_batch(struct advfsm *f, const struct advfsm_event *ev)
{
	for (size_t i = 0; i < ev->told_nr; i++) {
		const struct advfsm_lock *l = &ev->told[i];
		struct file *file = advobj_file_make(f, l->ino, l->kind);
		struct holder *h = file ? advobj_holder_make(f, file, ev->rid, l->owner) : NULL;
		int ret = h ? adv_ranges_set(&h->told, l->first, l->last, l->type, UINT32_MAX) : -ENOMEM;

		if (h)
			h->pid = l->pid;
		if (h && ret < 0)
			advobj_holder_drop_if_empty(f, file, h);
		if (file && ret < 0)
			advobj_file_drop_if_empty(f, file);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int step_told(struct advfsm *f, const struct advfsm_event *ev)
{
	struct expected **at = expected_find(f, ev->rid);
	struct expected *x = *at;
	int ret;

	/* The answer to a question that was asked of an earlier process. */
	if (!x || x->round == 0 || (ev->round && x->round != ev->round))
		return 0;
	if (!batch_is_sane(x, ev)) {
		struct advfsm_act act = { .kind = ADVFSM_LIED, .rid = ev->rid };

		f->ops.emit(f->ops.arg, &act);
		return 0;
	}
	ret = take_batch(f, ev);
	if (ret < 0)
		return ret;
	if (!ev->is_last) {
		x->has_told = true;
		x->last = ev->told[ev->told_nr - 1];
		ask(f, x);
		return 0;
	}
	each_file(f, take_told, ev->rid);
	expected_drop(f, at);
	return 0;
}

static void step_gone(struct advfsm *f, uint64_t rid)
{
	struct expected **at;

	forget_gated(f, rid);
	each_file(f, forget_rid, rid);
	at = expected_find(f, rid);
	if (*at)
		expected_drop(f, at);
}

int advfsm_step(struct advfsm *f, const struct advfsm_event *ev)
{
	struct expected *x;

	switch (ev->kind) {
	case ADVFSM_LOCK:
	case ADVFSM_TEST:
		return step_request(f, ev);
	case ADVFSM_CANCEL:
		step_cancel(f, ev);
		return 0;
	case ADVFSM_EXPECT:
		return expect(f, ev->rid, true, &x);
	case ADVFSM_GREETED:
		x = *expected_find(f, ev->rid);
		if (x && !x->round)
			ask_from_start(f, x);
		return 0;
	case ADVFSM_RESTARTED:
		return step_restarted(f, ev->rid);
	case ADVFSM_TOLD:
		return step_told(f, ev);
	case ADVFSM_GONE:
		step_gone(f, ev->rid);
		return 0;
	}
	return -EINVAL;
}

bool advfsm_is_gated(const struct advfsm *f)
{
	return f->expected != NULL;
}

static bool others_wait(const struct file *file, uint64_t rid)
{
	for (const struct waiter *w = file->waiters; w; w = w->next) {
		for (const struct holder *h = file->holders; h && w->owner->rid != rid; h = h->next) {
			if (h->owner->rid == rid && adv_ranges_conflict(&h->have, w->first, w->last, w->type))
				return true;
		}
	}
	return false;
}

bool advfsm_waits_for(const struct advfsm *f, uint64_t rid)
{
	const struct expected *x = *expected_find(f, rid);

	for (const struct gated *g = f->gated; g && x && x->is_new; g = g->next) {
		if (g->ev.rid != rid)
			return true;
	}
	if (!f->st.waiting)
		return false;
	for (size_t i = 0; i < f->files.buckets_nr; i++) {
		for (const struct link *l = f->files.buckets[i]; l; l = l->next) {
			if (others_wait((const struct file *)l, rid))
				return true;
		}
	}
	return false;
}

void advfsm_get_stats(const struct advfsm *f, struct advfsm_stats *st)
{
	*st = f->st;
}

void advfsm_each(const struct advfsm *f, void *arg,
		 void (*fn)(void *arg, uint64_t rid, const struct advfsm_lock *lock))
{
	for (size_t i = 0; i < f->files.buckets_nr; i++) {
		for (struct link *l = f->files.buckets[i]; l; l = l->next) {
			struct file *file = (struct file *)l;

			for (struct holder *h = file->holders; h; h = h->next) {
				for (uint32_t k = 0; k < h->have.nr; k++) {
					struct advfsm_lock lock = { .ino = file->ino, .kind = file->kind,
								    .owner = h->owner->number,
								    .first = h->have.v[k].first,
								    .last = h->have.v[k].last,
								    .type = h->have.v[k].type,
								    .pid = h->pid };

					fn(arg, h->owner->rid, &lock);
				}
			}
		}
	}
}

/* --- invariants --- */

static void check_ranges(const struct adv_ranges *r)
{
	for (uint32_t i = 0; i < r->nr; i++) {
		assert(r->v[i].first <= r->v[i].last);
		assert(r->v[i].type == ADV_READ || r->v[i].type == ADV_WRITE);
		if (i == 0)
			continue;
		assert(r->v[i - 1].last < r->v[i].first);
		assert(r->v[i - 1].last != r->v[i].first - 1 || r->v[i - 1].type != r->v[i].type);
	}
}

void advfsm_check(const struct advfsm *f)
{
	uint64_t ranges = 0, waiting = 0, gated = 0;
	size_t files = 0;

	for (size_t i = 0; i < f->files.buckets_nr; i++) {
		for (struct link *l = f->files.buckets[i]; l; l = l->next) {
			struct file *file = (struct file *)l;

			files++;
			assert(file->holders || file->waiters);
			for (struct holder *h = file->holders; h; h = h->next) {
				assert(h->have.nr || h->told.nr);
				assert(h->owner->kind == file->kind && h->owner->refs > 0);
				check_ranges(&h->have);
				ranges += h->have.nr;
				for (uint32_t k = 0; k < h->have.nr; k++)
					assert(!advobj_is_blocked(file, h->owner, h->have.v[k].first,
								  h->have.v[k].last,
								  h->have.v[k].type));
			}
			for (struct waiter *w = file->waiters; w; w = w->next) {
				waiting++;
				/* Nobody waits for nothing, and nobody for himself. */
				assert(w->file == file);
				assert(advobj_is_blocked(file, w->owner, w->first, w->last, w->type));
				assert(!is_deadlock((struct advfsm *)f, file, w->owner, w->first, w->last,
						    w->type));
			}
		}
	}
	for (const struct gated *g = f->gated; g; g = g->next) {
		assert(is_kept_back(f, g->ev.rid));
		gated++;
	}
	assert(files == f->files.nr);
	assert(ranges == f->st.ranges);
	assert(waiting == f->st.waiting);
	assert(gated == f->st.gated);
}

/* --- open, close --- */

int advfsm_open(struct advfsm **out, const struct advfsm_ops *ops)
{
	struct advfsm *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->ops = *ops;
	f->gated_tail = &f->gated;
	if (advobj_table_open(&f->files) < 0 || advobj_table_open(&f->owners) < 0) {
		free(f->files.buckets);
		free(f->owners.buckets);
		free(f);
		return -ENOMEM;
	}
	*out = f;
	return 0;
}

static void free_file(struct advfsm *f, struct file *file, uint64_t rid)
{
	(void)rid;
	while (file->waiters)
		advobj_waiter_drop(f, &file->waiters);
	while (file->holders)
		advobj_holder_drop(f, &file->holders);
	advobj_file_drop_if_empty(f, file);
}

void advfsm_close(struct advfsm *f)
{
	if (!f)
		return;
	each_file(f, free_file, 0);
	while (f->gated)
		free(gated_pull(f, &f->gated));
	while (f->expected) {
		struct expected *x = f->expected;

		f->expected = x->next;
		free(x);
	}
	free(f->files.buckets);
	free(f->owners.buckets);
	free(f);
}
