/*
 * Advisory locks: ranges against an array of bytes; the server's machine and the mounts' tables against a
 * model of every byte, with messages on their way, several requests of an owner at once, servers that die and
 * learn from the mounts, mounts that go on as another process, mounts that go.
 *
 * After every step: no two mounts believe what excludes each other, and the server has at least what the
 * mounts believe.  Every answer is judged by the model: what was granted was free, what was refused was not,
 * a deadlock is a circle of waits.  When all is quiet the mounts know just what the server has, and who
 * still waits is in nobody's circle.  ROUNDS, SEED and STEPS make other or longer runs.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "advisory/adv_table.h"
#include "random.h"
#include "services/serverd/advisory_fsm.h"

static void seed(uint64_t s)
{
	rng = s * 0x9e3779b97f4a7c15ull + 1;
}

/* --- ranges --- */

#define BYTES	24u

static void check_against(const struct adv_ranges *r, const uint8_t bytes[BYTES])
{
	for (unsigned b = 0; b < BYTES; b++) {
		uint8_t type = ADV_UNLOCK;

		for (uint32_t i = 0; i < r->nr; i++) {
			if (b >= r->v[i].first && b <= r->v[i].last)
				type = r->v[i].type;
		}
		assert_int_equal(type, bytes[b]);
	}
	for (uint32_t i = 1; i < r->nr; i++) {
		assert_true(r->v[i - 1].last < r->v[i].first);
		assert_true(r->v[i - 1].last + 1 < r->v[i].first || r->v[i - 1].type != r->v[i].type);
	}
}

static void ranges_are_what_an_array_of_bytes_says(void **state)
{
	(void)state;
	for (uint64_t s = env("SEED", 1); s < env("SEED", 1) + 300; s++) {
		struct adv_ranges r = { 0 };
		uint8_t bytes[BYTES] = { 0 };

		seed(s);
		for (unsigned n = 0; n < 200; n++) {
			uint64_t first = rnd(BYTES), last = first + rnd(BYTES - (unsigned)first);
			uint8_t type = (uint8_t)rnd(3), want = (uint8_t)(1 + rnd(2));
			const struct adv_range *c;
			bool conflicts = false, all = true;
			uint32_t limit = rnd(4) ? 100 : 3, before = r.nr;
			int ret = adv_ranges_set(&r, first, last, type, limit);

			if (ret == 0)
				memset(bytes + first, type, last - first + 1);
			else
				assert_true(ret == -ENOLCK && limit == 3 && r.nr == before);
			assert_true(r.nr <= limit || r.nr <= before);
			check_against(&r, bytes);
			first = rnd(BYTES);
			last = first + rnd(BYTES - (unsigned)first);
			for (uint64_t b = first; b <= last; b++) {
				conflicts = conflicts || (bytes[b] && (bytes[b] == ADV_WRITE || want == ADV_WRITE));
				all = all && bytes[b] == want;
			}
			c = adv_ranges_conflict(&r, first, last, want);
			assert_int_equal(c != NULL, conflicts);
			assert_int_equal(adv_ranges_have(&r, first, last, want), all);
		}
		assert_int_equal(adv_ranges_set(&r, 0, UINT64_MAX, ADV_UNLOCK, 0), 0);
		assert_int_equal(r.nr, 0);
		adv_ranges_clear(&r);
	}
}

static void ranges_reach_to_the_end(void **state)
{
	struct adv_ranges r = { 0 };

	(void)state;
	assert_int_equal(adv_ranges_set(&r, 0, UINT64_MAX, ADV_READ, 9), 0);
	assert_int_equal(adv_ranges_set(&r, UINT64_MAX, UINT64_MAX, ADV_WRITE, 9), 0);
	assert_int_equal(r.nr, 2);
	assert_true(r.v[0].last == UINT64_MAX - 1);
	assert_int_equal(adv_ranges_set(&r, UINT64_MAX, UINT64_MAX, ADV_READ, 9), 0);
	assert_int_equal(r.nr, 1);
	assert_int_equal(adv_ranges_set(&r, 0, 0, ADV_UNLOCK, 9), 0);
	assert_true(r.nr == 1 && r.v[0].first == 1 && r.v[0].last == UINT64_MAX);
	adv_ranges_clear(&r);
}

/* --- a world --- */

#define RIDS	3u
#define OWNERS	3u		/* of a mount */
#define INOS	2u
#define KINDS	2u
#define THREADS	2u		/* of an owner: requests at once */
#define SLOTS	(OWNERS * THREADS)
#define FBYTES	8u
#define QUEUE	256u
#define REQUESTS	64u		/* of a mount that the server has not answered */

enum to_server { TO_LOCK, TO_CANCEL, TO_TOLD, TO_TEST };

struct sent {
	enum to_server what;
	unsigned slot;
	uint64_t number;
	struct msg_told {
		uint64_t round;
		struct adv_told v[2];
		int nr;
		bool is_last;
	} told;
};

struct mount {
	bool is_gone, is_greeted, is_restarted;
	struct adv_table *table;
	struct request {
		bool is_out;
		bool wait, was_canceled;
		uint8_t kind, type;
		uint64_t ino, owner, first, last, number;
		struct adv_call *call;
	} req[SLOTS];
	struct sent out[QUEUE];
	unsigned out_nr;
	struct advfsm_act in[QUEUE];
	unsigned in_nr;
};

/* What the machine holds, and who waits for what, as its answers say. */
struct model {
	uint8_t held[RIDS][OWNERS][KINDS][INOS][FBYTES];
	uint8_t told[RIDS][OWNERS][KINDS][INOS][FBYTES];
	struct at_server {
		bool is_here;
		uint64_t handle;
		struct request r;
	} at[RIDS][REQUESTS];
	bool is_expected[RIDS], is_known[RIDS];
	bool is_old[RIDS];		/* of an earlier server: all wait for it */
};

static struct world {
	struct advfsm *f;
	struct mount m[RIDS];
	struct model d;
	uint64_t last_handle;
	unsigned grants, blocks, deadlocks, cancels, servers, processes;
} w;

static bool excludes(uint8_t a, uint8_t b)
{
	return a && b && (a == ADV_WRITE || b == ADV_WRITE);
}

/* Whether another owner is in the way of (rid, owner). */
static bool model_conflict(unsigned rid, unsigned owner, const struct request *r)
{
	for (unsigned i = 0; i < RIDS * OWNERS; i++) {
		if (i == rid * OWNERS + owner)
			continue;
		for (uint64_t b = r->first; b <= r->last; b++) {
			if (excludes(w.d.held[i / OWNERS][i % OWNERS][r->kind][r->ino][b], r->type))
				return true;
		}
	}
	return false;
}

/* Whether who-ever waits in a (all threads of it) comes to `to`; by depth first over every byte. */
static bool leads_to(unsigned a, unsigned to, bool *seen);
static bool waits_for(unsigned a, const struct request *r, unsigned to, bool *seen)
{
	for (unsigned i = 0; i < RIDS * OWNERS; i++) {
		bool blocks = false;

		if (i == a)
			continue;
		for (uint64_t b = r->first; b <= r->last; b++)
			blocks = blocks ||
				 excludes(w.d.held[i / OWNERS][i % OWNERS][r->kind][r->ino][b], r->type);
		if (blocks && (i == to || leads_to(i, to, seen)))
			return true;
	}
	return false;
}
static bool leads_to(unsigned a, unsigned to, bool *seen)
{
	if (seen[a])
		return false;
	seen[a] = true;
	for (unsigned t = 0; t < REQUESTS; t++) {
		const struct request *r = &w.d.at[a / OWNERS][t].r;

		if (w.d.at[a / OWNERS][t].is_here && r->kind == ADVFSM_POSIX && r->owner == a % OWNERS &&
		    waits_for(a, r, to, seen))
			return true;
	}
	return false;
}

static void set_held(unsigned rid, const struct request *r, uint8_t type)
{
	uint8_t *held = w.d.held[rid][r->owner][r->kind][r->ino];

	/* an flock of another type is given back whole */
	memset(held + r->first, type, r->last - r->first + 1);
}

static struct at_server *at_server(unsigned rid, uint64_t handle)
{
	struct at_server *at = w.d.at[rid];

	while (at < &w.d.at[rid][REQUESTS] && (!at->is_here || at->handle != handle))
		at++;
	assert_true(at < &w.d.at[rid][REQUESTS]);
	return at;
}

static void judge(const struct advfsm_act *act)
{
	unsigned rid = (unsigned)act->rid;
	struct at_server *at = at_server(rid, act->handle);
	struct request *r = &at->r;
	bool seen[RIDS * OWNERS] = { false };
	uint8_t *held = w.d.held[rid][r->owner][r->kind][r->ino];

	at->is_here = false;
	if (r->kind == ADVFSM_FLOCK && r->type != ADV_UNLOCK && held[0] != r->type &&
	    act->status != ADVFSM_CANCELED)
		memset(held, 0, FBYTES);
	switch (act->status) {
	case ADVFSM_GRANTED:
		assert_true(r->type == ADV_UNLOCK || !model_conflict(rid, (unsigned)r->owner, r));
		set_held(rid, r, r->type);
		w.grants++;
		break;
	case ADVFSM_WOULD_BLOCK:
		/* an flock whose wait was ended before it began */
		assert_true(!r->wait || r->kind == ADVFSM_FLOCK);
		assert_true(model_conflict(rid, (unsigned)r->owner, r));
		break;
	case ADVFSM_DEADLOCK:
		assert_true(r->wait && r->kind == ADVFSM_POSIX);
		assert_true(waits_for(rid * OWNERS + (unsigned)r->owner, r, rid * OWNERS + (unsigned)r->owner, seen));
		w.deadlocks++;
		break;
	case ADVFSM_CANCELED:
		w.cancels++;
		break;
	case ADVFSM_LIMIT:
		fail();
	}
}

static void emit(void *arg, const struct advfsm_act *act)
{
	struct mount *m = &w.m[act->rid];

	(void)arg;
	if (act->kind == ADVFSM_ALL_DONE)
		return;
	/* What a mount tells is never somebody else's. */
	assert_true(act->kind != ADVFSM_CONFLICT && act->kind != ADVFSM_LIED);
	if (act->kind == ADVFSM_ANSWER)
		judge(act);
	if (act->kind == ADVFSM_ASK && act->from_start)
		memset(w.d.told[act->rid], 0, sizeof(w.d.told[act->rid]));
	/* For a process that is no more. */
	if (!m->is_greeted)
		return;
	assert_true(m->in_nr < QUEUE);
	m->in[m->in_nr++] = *act;
}

static bool is_anybody_expected(void)
{
	for (unsigned i = 0; i < RIDS; i++) {
		if (w.d.is_expected[i] && w.d.is_old[i])
			return true;
	}
	return false;
}

static void step(const struct advfsm_event *ev)
{
	assert_int_equal(advfsm_step(w.f, ev), 0);
	/* Who waits has given its flock of another type back. */
	for (unsigned i = 0; i < RIDS * REQUESTS && !is_anybody_expected(); i++) {
		unsigned rid = i / REQUESTS;
		const struct at_server *at = &w.d.at[rid][i % REQUESTS];
		uint8_t *held = w.d.held[rid][at->r.owner][at->r.kind][at->r.ino];

		if (at->is_here && at->r.kind == ADVFSM_FLOCK && !w.d.is_expected[rid] && held[0] != at->r.type)
			memset(held, 0, FBYTES);
	}
	advfsm_check(w.f);
}

static void send(struct mount *m, const struct sent *s)
{
	assert_true(m->out_nr < QUEUE);
	m->out[m->out_nr++] = *s;
}

static void send_request(struct mount *m, unsigned slot)
{
	send(m, &(struct sent){ .what = TO_LOCK, .slot = slot, .number = m->req[slot].number });
	if (m->req[slot].was_canceled)
		send(m, &(struct sent){ .what = TO_CANCEL, .number = m->req[slot].number });
}

static void begin_call(struct mount *m, struct request *r)
{
	struct adv_entry *e = adv_entry_get(m->table, r->ino, r->kind, r->owner);
	bool has_changed;

	assert_int_equal(adv_give_back(e, r->first, r->last, r->type, &has_changed), 0);
	assert_int_equal(adv_call_begin(m->table, e, r->first, r->last, r->type, &r->call), 0);
	r->wait = r->wait && !adv_is_sure(e, r->first, r->last, r->type);
	adv_entry_put(m->table, e);
	r->number = r->call->number;
}

/*
 * A read lock over some of a write lock and more: what adv_table.c says of it is tested on its own.  Two threads
 * that change the flock of one open file at once: another server may do that in another order.
 */
static bool is_ambiguous(struct mount *m, const struct request *r)
{
	const struct adv_entry *e;

	if (r->kind != ADVFSM_FLOCK && r->type == ADV_UNLOCK)
		return false;
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct request *o = &m->req[i];

		if (o != r && o->is_out && o->owner == r->owner && o->kind == r->kind &&
		    (r->kind == ADVFSM_FLOCK || (o->type != ADV_UNLOCK && o->type != r->type)))
			return true;
	}
	if (r->kind == ADVFSM_FLOCK || r->type != ADV_READ)
		return false;
	e = adv_table_find(m->table, r->ino, r->kind, r->owner);
	return e && adv_ranges_conflict(&e->ranges, r->first, r->last, ADV_READ) &&
	       !adv_ranges_cover(&e->ranges, r->first, r->last);
}

static void ask(unsigned rid)
{
	struct mount *m = &w.m[rid];
	unsigned slot = rnd(SLOTS);
	struct request *r = &m->req[slot];

	if (m->is_gone || r->is_out)
		return;
	*r = (struct request){ .is_out = true, .wait = rnd(2), .kind = (uint8_t)(rnd(4) == 0),
			       .type = (uint8_t)rnd(3), .ino = rnd(INOS), .owner = slot / THREADS };
	r->first = r->kind == ADVFSM_FLOCK ? 0 : rnd(FBYTES);
	r->last = r->kind == ADVFSM_FLOCK ? FBYTES - 1 : r->first + rnd(FBYTES - (unsigned)r->first);
	if (r->type == ADV_UNLOCK)
		r->wait = false;
	if (is_ambiguous(m, r)) {
		r->is_out = false;
		return;
	}
	begin_call(m, r);
	send_request(m, slot);
}

static void cancel(unsigned rid)
{
	struct request *r = &w.m[rid].req[rnd(SLOTS)];

	if (!r->is_out || !r->wait || r->was_canceled)
		return;
	r->was_canceled = true;
	send(&w.m[rid], &(struct sent){ .what = TO_CANCEL, .number = r->number });
}

/* --- delivery --- */

static void take_told(unsigned rid, const struct msg_told *told)
{
	for (int i = 0; i < told->nr; i++) {
		const struct adv_told *t = &told->v[i];

		memset(w.d.told[rid][t->owner][t->kind][t->ino] + t->range.first, t->range.type,
		       t->range.last - t->range.first + 1);
	}
	if (told->is_last && w.d.is_expected[rid]) {
		memcpy(w.d.held[rid], w.d.told[rid], sizeof(w.d.held[rid]));
		w.d.is_expected[rid] = w.d.is_old[rid] = false;
	}
}

static void to_server(unsigned rid)
{
	struct mount *m = &w.m[rid];
	struct advfsm_event ev = { .rid = rid };
	struct advfsm_lock told[2];
	struct sent s;

	if (m->is_gone)
		return;
	if (!m->is_greeted) {
		m->is_greeted = true;
		if (m->is_restarted && w.d.is_known[rid]) {
			w.d.is_expected[rid] = true;
			memset(w.d.at[rid], 0, sizeof(w.d.at[rid]));
			ev.kind = ADVFSM_RESTARTED;
		} else {
			ev.kind = ADVFSM_GREETED;
		}
		w.d.is_known[rid] = true;
		m->is_restarted = false;
		step(&ev);
		return;
	}
	if (!m->out_nr)
		return;
	s = m->out[0];
	memmove(m->out, m->out + 1, --m->out_nr * sizeof(m->out[0]));
	switch (s.what) {
	case TO_LOCK: {
		const struct request *r = &m->req[s.slot];
		struct at_server *at = w.d.at[rid];

		while (at->is_here)
			at++;
		assert_true(at < &w.d.at[rid][REQUESTS]);
		*at = (struct at_server){ true, ++w.last_handle * SLOTS + s.slot, *r };
		ev.kind = ADVFSM_LOCK;
		ev.handle = at->handle;
		ev.number = s.number;
		ev.wait = r->wait;
		ev.lock = (struct advfsm_lock){ .ino = r->ino, .owner = r->owner, .first = r->first,
						.last = r->last, .kind = r->kind, .type = r->type,
						.pid = s.slot };
		step(&ev);
		w.blocks += at->is_here && !w.d.is_expected[rid];
		break;
	}
	case TO_CANCEL:
		ev.kind = ADVFSM_CANCEL;
		ev.number = s.number;
		step(&ev);
		break;
	case TO_TOLD:
		ev.kind = ADVFSM_TOLD;
		ev.round = s.told.round;
		ev.told = told;
		ev.told_nr = (size_t)s.told.nr;
		ev.is_last = s.told.is_last;
		for (int i = 0; i < s.told.nr; i++)
			told[i] = (struct advfsm_lock){ .ino = s.told.v[i].ino, .owner = s.told.v[i].owner,
							.first = s.told.v[i].range.first,
							.last = s.told.v[i].range.last,
							.kind = s.told.v[i].kind,
							.type = s.told.v[i].range.type };
		take_told(rid, &s.told);
		step(&ev);
		break;
	case TO_TEST:
		break;
	}
}

static void answer_ask(struct mount *m, const struct advfsm_act *act)
{
	const struct adv_told after = { .ino = act->lock.ino, .owner = act->lock.owner, .kind = act->lock.kind,
					.range.last = act->lock.last };
	struct sent s = { .what = TO_TOLD, .told.round = act->round };

	s.told.nr = adv_table_tell(m->table, act->from_start ? NULL : &after, s.told.v, 2, &s.told.is_last);
	assert_true(s.told.nr >= 0);
	send(m, &s);
}

static void to_mount(unsigned rid)
{
	struct mount *m = &w.m[rid];
	struct advfsm_act act;
	struct request *r;

	if (!m->in_nr || !m->is_greeted)
		return;
	act = m->in[0];
	memmove(m->in, m->in + 1, --m->in_nr * sizeof(m->in[0]));
	if (act.kind == ADVFSM_ASK) {
		answer_ask(m, &act);
		return;
	}
	assert_int_equal(act.kind, ADVFSM_ANSWER);
	r = &m->req[act.handle % SLOTS];
	assert_true(r->is_out);
	assert_int_equal(adv_call_end(m->table, r->call, act.status == ADVFSM_GRANTED), 0);
	r->is_out = false;
}

/* --- what breaks --- */

/* Everything under way is lost; what has no answer is asked again, in the order in which it was. */
static void connect_anew(unsigned rid)
{
	struct mount *m = &w.m[rid];
	uint64_t last = 0;

	m->is_greeted = false;
	m->in_nr = m->out_nr = 0;
	for (;;) {
		unsigned next = SLOTS;

		for (unsigned i = 0; i < SLOTS; i++) {
			if (m->req[i].is_out && m->req[i].number > last &&
			    (next == SLOTS || m->req[i].number < m->req[next].number))
				next = i;
		}
		if (next == SLOTS)
			return;
		last = m->req[next].number;
		send_request(m, next);
	}
}

static void another_server(void)
{
	struct advfsm_ops ops = { NULL, emit };

	w.servers++;
	advfsm_close(w.f);
	assert_int_equal(advfsm_open(&w.f, &ops), 0);
	memset(&w.d, 0, sizeof(w.d));
	for (unsigned i = 0; i < RIDS; i++) {
		if (w.m[i].is_gone)
			continue;
		w.d.is_expected[i] = w.d.is_old[i] = true;
		step(&(struct advfsm_event){ .kind = ADVFSM_EXPECT, .rid = i });
		connect_anew(i);
	}
}

/* The next process has the table as it was, and the kernel sends again, in any order. */
static void another_process(unsigned rid)
{
	struct mount *m = &w.m[rid];
	struct adv_told told[1024];
	struct adv_table *next;
	unsigned order[SLOTS];
	bool is_last;
	int nr;

	if (m->is_gone)
		return;
	w.processes++;
	nr = adv_table_tell(m->table, NULL, told, 1024, &is_last);
	assert_true(nr >= 0 && is_last);
	assert_int_equal(adv_table_open(&next, 0), 0);
	for (int i = 0; i < nr; i++)
		assert_int_equal(adv_table_load(next, told[i].ino, told[i].kind, told[i].owner, 0, 0,
						&told[i].range, 1), 0);
	adv_table_close(m->table);
	m->table = next;
	for (unsigned i = 0; i < SLOTS; i++) {
		unsigned at = rnd(i + 1);

		order[i] = order[at];
		order[at] = i;
	}
	/* numbers begin anew: none may be taken for one of before */
	for (unsigned i = 0; i < SLOTS; i++)
		m->req[i].number = UINT64_MAX - 1;
	for (unsigned i = 0; i < SLOTS; i++) {
		if (m->req[order[i]].is_out)
			begin_call(m, &m->req[order[i]]);
	}
	m->is_restarted = true;
	connect_anew(rid);
}

static void gone(unsigned rid)
{
	struct mount *m = &w.m[rid];

	if (m->is_gone)
		return;
	m->is_gone = true;
	memset(w.d.held[rid], 0, sizeof(w.d.held[rid]));
	memset(w.d.at[rid], 0, sizeof(w.d.at[rid]));
	w.d.is_expected[rid] = w.d.is_old[rid] = false;
	adv_table_close(m->table);
	memset(m->req, 0, sizeof(m->req));
	m->in_nr = m->out_nr = 0;
	assert_int_equal(adv_table_open(&m->table, 0), 0);
	step(&(struct advfsm_event){ .kind = ADVFSM_GONE, .rid = rid });
}

/* --- what must hold --- */

static void believe(unsigned rid, uint8_t out[OWNERS][KINDS][INOS][FBYTES])
{
	struct adv_told told[1024];
	bool is_last;
	int nr = adv_table_tell(w.m[rid].table, NULL, told, 1024, &is_last);

	memset(out, 0, OWNERS * KINDS * INOS * FBYTES);
	for (int i = 0; i < nr; i++)
		memset(out[told[i].owner][told[i].kind][told[i].ino] + told[i].range.first, told[i].range.type,
		       told[i].range.last - told[i].range.first + 1);
}

static uint8_t seen[RIDS][OWNERS][KINDS][INOS][FBYTES];

static void see(void *arg, uint64_t rid, const struct advfsm_lock *l)
{
	(void)arg;
	memset(seen[rid][l->owner][l->kind][l->ino] + l->first, l->type, l->last - l->first + 1);
}

static void check_world(void)
{
	static uint8_t b[RIDS][OWNERS][KINDS][INOS][FBYTES];

	memset(seen, 0, sizeof(seen));
	advfsm_each(w.f, NULL, see);
	assert_memory_equal(seen, w.d.held, sizeof(seen));
	for (unsigned i = 0; i < RIDS; i++) {
		believe(i, b[i]);
		for (unsigned k = 0; k < sizeof(b[i]) && !w.d.is_expected[i]; k++) {
			uint8_t mine = ((uint8_t *)b[i])[k], its = ((uint8_t *)w.d.held[i])[k];

			assert_true(!mine || its == mine || its == ADV_WRITE || w.m[i].out_nr || w.m[i].in_nr);
		}
	}
	for (unsigned x = 0; x < RIDS * OWNERS; x++) {
		for (unsigned y = 0; y < x; y++) {
			const uint8_t *p = (const uint8_t *)b[x / OWNERS][x % OWNERS];
			const uint8_t *q = (const uint8_t *)b[y / OWNERS][y % OWNERS];

			for (unsigned k = 0; k < KINDS * INOS * FBYTES; k++)
				assert_false(excludes(p[k], q[k]));
		}
	}
}

static void settle(void)
{
	uint8_t b[OWNERS][KINDS][INOS][FBYTES];
	bool more = true;

	while (more) {
		more = false;
		for (unsigned i = 0; i < RIDS; i++) {
			if (w.m[i].is_gone)
				continue;
			more = more || w.m[i].out_nr || w.m[i].in_nr || !w.m[i].is_greeted;
			to_server(i);
			to_mount(i);
		}
	}
	check_world();
	assert_false(advfsm_is_gated(w.f));
	for (unsigned i = 0; i < RIDS; i++) {
		believe(i, b);
		assert_memory_equal(b, w.d.held[i], sizeof(b));
		/* Who has no answer waits for somebody. */
		for (unsigned t = 0; t < SLOTS; t++) {
			const struct request *r = &w.m[i].req[t];

			assert_true(!r->is_out || (r->wait && !r->was_canceled &&
						   model_conflict(i, (unsigned)r->owner, r)));
		}
	}
}

static void random_steps(unsigned steps)
{
	for (unsigned n = 0; n < steps; n++) {
		unsigned rid = rnd(RIDS), dice = rnd(1000);

		if (dice < 300)
			ask(rid);
		else if (dice < 600)
			to_server(rid);
		else if (dice < 900)
			to_mount(rid);
		else if (dice < 980)
			cancel(rid);
		else if (dice < 988)
			another_server();
		else if (dice < 996)
			another_process(rid);
		else if (dice < 997)
			gone(rid);
		else
			settle();
		check_world();
	}
	settle();
}

static void nobody_has_what_another_has(void **state)
{
	struct advfsm_ops ops = { NULL, emit };
	uint64_t first = env("SEED", 1), rounds = env("ROUNDS", 60);
	unsigned total[6] = { 0 };

	(void)state;
	for (uint64_t s = first; s < first + rounds; s++) {
		memset(&w, 0, sizeof(w));
		seed(s);
		assert_int_equal(advfsm_open(&w.f, &ops), 0);
		for (unsigned i = 0; i < RIDS; i++)
			assert_int_equal(adv_table_open(&w.m[i].table, 0), 0);
		if (getenv("VERBOSE"))
			print_message("SEED=%llu\n", (unsigned long long)s);
		random_steps((unsigned)env("STEPS", 1500));
		advfsm_close(w.f);
		for (unsigned i = 0; i < RIDS; i++)
			adv_table_close(w.m[i].table);
		total[0] += w.grants;
		total[1] += w.blocks;
		total[2] += w.deadlocks;
		total[3] += w.cancels;
		total[4] += w.servers;
		total[5] += w.processes;
	}
	print_message("%u grants, %u waits, %u deadlocks, %u canceled, %u servers, %u processes\n", total[0],
		      total[1], total[2], total[3], total[4], total[5]);
	/* All of it happens. */
	for (unsigned i = 0; i < 6; i++)
		assert_true(total[i] > 0 || rounds < 20);
}

/* ---- a server that comes when one of two locks is told as it was ---------------------------- */

static unsigned conflicts;

static void count_conflicts(void *arg, const struct advfsm_act *act)
{
	(void)arg;
	assert_true(act->kind != ADVFSM_LIED);
	conflicts += act->kind == ADVFSM_CONFLICT;
}

struct found { struct advfsm_lock v[8]; unsigned nr; };

static void find_of_one(void *arg, uint64_t rid, const struct advfsm_lock *l)
{
	struct found *found = arg;

	assert_true(found->nr < 8);
	if (rid == 1)
		found->v[found->nr++] = *l;
}

/*
 * The first has made bytes 20 to 49 of its write lock a read lock, and others have read locks there; it has not heard the answer
 * when the server ends, and tells the next one all of what it had.
 */
static void only_the_part_that_others_have_becomes_less(void **state)
{
	static const struct adv_range want[] = { { 0, 19, ADV_WRITE }, { 20, 49, ADV_READ }, { 50, 100, ADV_WRITE } };
	struct advfsm_ops ops = { NULL, count_conflicts };
	struct advfsm_lock had = { .ino = 1, .owner = 5, .kind = ADVFSM_POSIX, .type = ADV_WRITE, .last = 100 };
	struct advfsm_lock others[2] = {
		{ .ino = 1, .owner = 6, .kind = ADVFSM_POSIX, .type = ADV_READ, .first = 20, .last = 29 },
		{ .ino = 1, .owner = 6, .kind = ADVFSM_POSIX, .type = ADV_READ, .first = 30, .last = 49 } };
	struct found found = { .nr = 0 };
	struct advfsm *f;

	(void)state;
	others[1].owner = 7;
	conflicts = 0;
	assert_int_equal(advfsm_open(&f, &ops), 0);
	for (uint64_t rid = 1; rid <= 2; rid++) {
		assert_int_equal(advfsm_step(f, &(struct advfsm_event){ .kind = ADVFSM_EXPECT, .rid = rid }), 0);
		assert_int_equal(advfsm_step(f, &(struct advfsm_event){ .kind = ADVFSM_GREETED, .rid = rid }), 0);
	}
	assert_int_equal(advfsm_step(f, &(struct advfsm_event){ .kind = ADVFSM_TOLD, .rid = 2, .told = others,
								.told_nr = 2, .is_last = true }), 0);
	assert_int_equal(advfsm_step(f, &(struct advfsm_event){ .kind = ADVFSM_TOLD, .rid = 1, .told = &had,
								.told_nr = 1, .is_last = true }), 0);
	assert_false(advfsm_is_gated(f));
	advfsm_check(f);
	advfsm_each(f, &found, find_of_one);
	assert_int_equal(found.nr, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(found.v[i].first, want[i].first);
		assert_int_equal(found.v[i].last, want[i].last);
		assert_int_equal(found.v[i].type, want[i].type);
	}
	assert_true(conflicts > 0);
	advfsm_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_are_what_an_array_of_bytes_says),
		cmocka_unit_test(ranges_reach_to_the_end),
		cmocka_unit_test(nobody_has_what_another_has),
		cmocka_unit_test(only_the_part_that_others_have_becomes_less),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
