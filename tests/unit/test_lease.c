/*
 * Leases: whoever waits until a lease is over waits long enough, whatever the network, the leaders and the
 * clocks do within their bounds.  SEED= and ROUNDS= make other and longer runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "lease/lease.h"

#define MS	1000000ull
#define SEC	1000000000ull
#define IO_NS	(2 * SEC)
#define RID	0x1234ull
#define KIND	1u

static uint64_t rng;

static uint64_t rnd(uint64_t below)
{
	rng = rng * 6364136223846793005ull + 1442695040888963407ull;
	return (rng >> 33) % below;
}

/* ---- one step at a time ---- */

static struct lease_hold_acts hold(struct lease_holder *h, enum lease_hold_in_kind kind, uint64_t id,
				   uint64_t term, uint64_t lease_ns, uint64_t now)
{
	struct lease_hold_in in = { kind, id, term, lease_ns };
	struct lease_hold_acts out;

	lease_holder_step(h, &in, now, &out);
	lease_holder_check(h);
	return out;
}

static void time_counts_from_the_question_and_ends_early(void **state)
{
	struct lease_holder h;
	struct lease_hold_acts a;
	uint64_t until = 100 * SEC + 10 * SEC - lease_drift_ns(10 * SEC);

	(void)state;
	lease_holder_init(&h);
	a = hold(&h, LEASE_HOLD_TICK, 0, 0, 0, 99 * SEC);
	assert_int_equal(a.nr, 0);
	a = hold(&h, LEASE_HOLD_GREETED, 0, 7, 0, 100 * SEC);
	assert_int_equal(a.nr, 1);
	assert_int_equal(a.v[0].kind, LEASE_HOLD_ASK);
	assert_false(lease_holder_may(&h, 100 * SEC));

	a = hold(&h, LEASE_HOLD_GRANTED, a.v[0].id, 7, 10 * SEC, 102 * SEC);
	assert_int_equal(a.nr, 2);
	assert_int_equal(a.v[0].kind, LEASE_HOLD_USE);
	assert_true(a.v[0].until_ns == until);
	assert_int_equal(a.v[0].term, 7);
	assert_int_equal(a.v[1].kind, LEASE_HOLD_RESUME);
	assert_true(lease_holder_may(&h, until - 1));
	assert_false(lease_holder_may(&h, until));
	/* A third of it later it asks again, once. */
	assert_true(lease_holder_deadline(&h) == 100 * SEC + 10 * SEC / 3);
	a = hold(&h, LEASE_HOLD_TICK, 0, 0, 0, 104 * SEC);
	assert_int_equal(a.nr, 1);
	assert_int_equal(a.v[0].kind, LEASE_HOLD_ASK);
	a = hold(&h, LEASE_HOLD_GREETED, 0, 8, 0, 105 * SEC);
	assert_int_equal(a.nr, 0);
	assert_true(lease_holder_deadline(&h) == until);

	a = hold(&h, LEASE_HOLD_TICK, 0, 0, 0, until);
	assert_int_equal(a.nr, 1);
	assert_int_equal(a.v[0].kind, LEASE_HOLD_LOSE);
	assert_int_equal(h.losses, 1);
	/* The answer of the next leader, to the question that is still open. */
	a = hold(&h, LEASE_HOLD_GRANTED, h.ask_id, 8, 10 * SEC, 113 * SEC);
	assert_int_equal(a.nr, 3);
	assert_int_equal(a.v[0].kind, LEASE_HOLD_USE);
	assert_int_equal(a.v[0].term, 8);
	assert_int_equal(a.v[1].kind, LEASE_HOLD_RESUME);
	assert_int_equal(a.v[2].kind, LEASE_HOLD_ASK);
}

static void an_answer_that_came_too_late_is_asked_for_again(void **state)
{
	struct lease_holder h;
	struct lease_hold_acts a;

	(void)state;
	lease_holder_init(&h);
	a = hold(&h, LEASE_HOLD_GREETED, 0, 1, 0, SEC);
	a = hold(&h, LEASE_HOLD_GRANTED, a.v[0].id, 1, SEC, 5 * SEC);
	assert_int_equal(a.nr, 1);
	assert_int_equal(a.v[0].kind, LEASE_HOLD_ASK);
	assert_false(lease_holder_may(&h, 5 * SEC));
	/* Another's answer, or the same twice, gives nothing. */
	a = hold(&h, LEASE_HOLD_GRANTED, a.v[0].id - 1, 1, SEC, 5 * SEC);
	assert_int_equal(a.nr, 0);
	a = hold(&h, LEASE_HOLD_FAILED, h.ask_id, 0, 0, 5 * SEC);
	assert_int_equal(a.nr, 0);
	assert_true(lease_holder_deadline(&h) > 5 * SEC);
	assert_true(lease_holder_deadline(&h) <= 6 * SEC);
}

static void who_was_fenced_never_gets_time_again(void **state)
{
	struct lease_holder h;
	struct lease_granter g = { 0 };
	struct lease_hold_acts a;

	(void)state;
	lease_holder_init(&h);
	a = hold(&h, LEASE_HOLD_GREETED, 0, 1, 0, SEC);
	hold(&h, LEASE_HOLD_GRANTED, a.v[0].id, 1, 10 * SEC, SEC);
	a = hold(&h, LEASE_HOLD_FENCED, 0, 0, 0, 2 * SEC);
	assert_int_equal(a.nr, 2);
	assert_int_equal(a.v[0].kind, LEASE_HOLD_LOSE);
	assert_int_equal(a.v[1].kind, LEASE_HOLD_END);
	assert_false(lease_holder_may(&h, 2 * SEC));
	a = hold(&h, LEASE_HOLD_GREETED, 0, 2, 0, 3 * SEC);
	assert_int_equal(a.nr, 0);
	assert_true(lease_holder_deadline(&h) == LEASE_NEVER);

	assert_int_equal(lease_granter_grant(&g, SEC, LEASE_NEVER, SEC), 0);
	lease_granter_close(&g);
	assert_int_equal(lease_granter_grant(&g, SEC, LEASE_NEVER, SEC), -ENOLINK);
}

static void a_leader_whose_right_is_over_gives_nothing(void **state)
{
	struct lease_granter g = { 0 };

	(void)state;
	assert_true(lease_granter_over_ns(&g, IO_NS) == LEASE_NEVER);
	assert_int_equal(lease_granter_grant(&g, SEC, 5 * SEC, 5 * SEC), -EAGAIN);
	assert_true(lease_granter_over_ns(&g, IO_NS) == LEASE_NEVER);
	assert_int_equal(lease_granter_grant(&g, SEC, 5 * SEC + 1, 5 * SEC), 0);
	assert_true(lease_granter_over_ns(&g, IO_NS) == 6 * SEC + lease_drift_ns(SEC) + IO_NS);
	/* A mount that was let in by an earlier leader: the longest that any may have given. */
	memset(&g, 0, sizeof(g));
	lease_granter_greeted(&g, SEC);
	assert_true(lease_granter_over_ns(&g, IO_NS) >= SEC + LEASE_MS_MAX * MS + IO_NS);
}

/* ---- guard ---- */

static void no_write_without_a_right_that_lasts(void **state)
{
	struct lease_guard g = { 0 };
	uint64_t until = 0;

	(void)state;
	assert_int_equal(lease_guard_check(&g, KIND, RID, 0, false, SEC, &until), -EKEYEXPIRED);
	assert_int_equal(lease_guard_set(&g, KIND, RID, 3, 5 * SEC, SEC), 1);
	assert_int_equal(lease_guard_check(&g, KIND, RID, 0, false, 5 * SEC - 1, &until), 0);
	assert_true(until == 5 * SEC);
	assert_int_equal(lease_guard_check(&g, KIND, RID, 0, false, 5 * SEC, &until), -EKEYEXPIRED);
	assert_int_equal(lease_guard_check(&g, KIND, RID + 1, 0, false, SEC, &until), -EKEYEXPIRED);
	assert_int_equal(lease_guard_check(&g, KIND + 1, RID, 0, false, SEC, &until), -EKEYEXPIRED);
	/* A server's is for one term. */
	assert_int_equal(lease_guard_check(&g, KIND, RID, 3, true, SEC, &until), 0);
	assert_int_equal(lease_guard_check(&g, KIND, RID, 4, true, SEC, &until), -EKEYEXPIRED);
	assert_int_equal(lease_guard_check(&g, KIND, RID, 2, true, SEC, &until), -EKEYEXPIRED);
	/* Older words change nothing, and nobody gets a right for ever. */
	assert_int_equal(lease_guard_set(&g, KIND, RID, 2, 9 * SEC, SEC), 0);
	assert_int_equal(lease_guard_set(&g, KIND, RID, 3, 4 * SEC, SEC), 0);
	assert_int_equal(lease_guard_set(&g, KIND, RID, 3, SEC + LEASE_SPAN_MAX_NS + 1, SEC), -ERANGE);
	assert_int_equal(lease_guard_check(&g, KIND, RID, 0, false, 4 * SEC, &until), 0);
	assert_true(until == 5 * SEC);
}

static void a_dead_mounts_kernel_is_cut_off_when_its_time_is_over(void **state)
{
	struct lease_guard g = { 0 };

	(void)state;
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 10 * SEC, SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 77, SEC), 1);
	lease_guard_here(&g, KIND, RID, true, SEC);
	/* There: it makes the kernel forget by itself, soon. */
	assert_true(lease_guard_deadline(&g, SEC) == 10 * SEC);
	/* Gone within its time, and back: nothing. */
	lease_guard_here(&g, KIND, RID, false, 5 * SEC);
	assert_true(lease_guard_deadline(&g, SEC) == 10 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 9 * SEC), 0);
	lease_guard_here(&g, KIND, RID, true, 9 * SEC);
	lease_guard_withdraws(&g, KIND, RID, 10 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 12 * SEC), 0);
	/* Gone after its time: a moment for who only connects again, then once. */
	lease_guard_here(&g, KIND, RID, false, 12 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 13 * SEC - 1), 0);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 13 * SEC), 77);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 14 * SEC), 0);
	/* Unmounted in order: there is none any more. */
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 78, 14 * SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 0, 14 * SEC), 1);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 99 * SEC), 0);
}

static void a_kernel_that_nobody_makes_forget_is_cut_off(void **state)
{
	struct lease_guard g = { 0 };

	(void)state;
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 10 * SEC, SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 77, SEC), 1);
	lease_guard_here(&g, KIND, RID, true, SEC);
	/* Another lease in time. */
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 20 * SEC, 9 * SEC), 1);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 20 * SEC), 0);
	/* It says that it does, and that it has done: nothing is cut, ever. */
	lease_guard_withdraws(&g, KIND, RID, 20 * SEC);
	lease_guard_withdraws(&g, KIND, RID, 29 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 29 * SEC), 0);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 0, 29 * SEC), 1);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 100 * SEC), 0);
	/* A lease again, and now it begins and does not end. */
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 110 * SEC, 100 * SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 77, 100 * SEC), 1);
	lease_guard_withdraws(&g, KIND, RID, 110 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 110 * SEC + LEASE_WITHDRAW_NS - 1), 0);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 110 * SEC + LEASE_WITHDRAW_NS), 77);
	/* Or it does not even begin: it is stopped. */
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 210 * SEC, 200 * SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 78, 200 * SEC), 1);
	assert_true(lease_guard_deadline(&g, SEC) == 210 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 210 * SEC), 0);
	assert_true(lease_guard_deadline(&g, SEC) == 210 * SEC + LEASE_LATE_NS);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 210 * SEC + LEASE_LATE_NS - 1), 0);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 210 * SEC + LEASE_LATE_NS), 78);
	/* It dies shortly before its time is over: what others change then is not shown either. */
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 310 * SEC, 300 * SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 79, 300 * SEC), 1);
	lease_guard_here(&g, KIND, RID, false, 309 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, 3 * SEC, 310 * SEC + LEASE_LATE_NS - 1), 0);
	assert_int_equal(lease_guard_next_cut(&g, 3 * SEC, 310 * SEC + LEASE_LATE_NS), 79);
}

/* Its blockd was stopped as well, with the whole host: it hears of the end when the process can say something again. */
static void who_could_say_nothing_is_not_cut_off_for_it(void **state)
{
	struct lease_guard g = { 0 };

	(void)state;
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 10 * SEC, SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 77, SEC), 1);
	lease_guard_here(&g, KIND, RID, true, SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 2 * SEC), 0);
	/* All of it is stopped until 15 s. */
	assert_int_equal(lease_guard_next_cut(&g, SEC, 15 * SEC), 0);
	assert_true(lease_guard_deadline(&g, SEC) == 15 * SEC + LEASE_LATE_NS);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 15 * SEC + LEASE_LATE_NS - 1), 0);
	lease_guard_withdraws(&g, KIND, RID, 15 * SEC + LEASE_LATE_NS - 1);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 15 * SEC + LEASE_LATE_NS), 0);
	/* There is another lease, and after that the process alone is stopped. */
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 30 * SEC, 20 * SEC), 1);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 30 * SEC), 0);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 30 * SEC + LEASE_LATE_NS), 77);
	/* Where there is no process nobody can say anything: no moment is given. */
	assert_int_equal(lease_guard_set(&g, KIND, RID, 1, 40 * SEC, 31 * SEC), 1);
	assert_int_equal(lease_guard_fuse(&g, KIND, RID, 78, 31 * SEC), 1);
	lease_guard_here(&g, KIND, RID, false, 32 * SEC);
	assert_int_equal(lease_guard_next_cut(&g, SEC, 45 * SEC), 78);
}

static void the_dead_make_room(void **state)
{
	struct lease_guard g = { 0 };

	(void)state;
	for (unsigned i = 0; i < LEASE_GUARD_MAX; i++)
		assert_int_equal(lease_guard_set(&g, KIND, RID + i, 1, 10 * SEC, SEC), 1);
	assert_int_equal(lease_guard_set(&g, KIND, RID + LEASE_GUARD_MAX, 1, 20 * SEC, 2 * SEC), -ENOSPC);
	lease_guard_here(&g, KIND, RID, true, SEC);
	assert_int_equal(lease_guard_set(&g, KIND, RID + LEASE_GUARD_MAX, 1, 20 * SEC, 11 * SEC), 1);
	assert_non_null(lease_guard_find(&g, KIND, RID));
	assert_null(lease_guard_find(&g, KIND, RID + 1));
}

/* ---- all together, at random ---- */

#define NET_MAX		64u

struct packet {
	bool is_answer;
	uint64_t at;		/* of true time */
	uint64_t id, term, lease_ns;
};

/* One mount with its blockd, and leaders one after the other, each with a clock of its own. */
struct world {
	uint64_t now;			/* true time */
	double mount_rate, leader_rate;
	uint64_t mount_base, leader_base;
	struct lease_holder h;
	struct lease_guard guard;
	bool is_lost;			/* LOSE came, RESUME did not */
	struct lease_granter g;
	uint64_t term, leader_since;
	uint64_t lease_ns;
	bool leader_is_up;
	uint64_t down_until, paused_until;
	bool has_faults;
	struct packet net[NET_MAX];
	size_t net_nr;
	/* The session: the question that is open, for the next leader too. */
	uint64_t open_id;
};

static uint64_t mount_clock(const struct world *w)
{
	return w->mount_base + (uint64_t)((double)w->now * w->mount_rate);
}

static uint64_t leader_clock(const struct world *w)
{
	return w->leader_base + (uint64_t)((double)w->now * w->leader_rate);
}

/* Within the bound that two clocks are allowed to differ by: half of it each. */
static double a_rate(void)
{
	return 1.0 + ((double)rnd(1900) - 950.0) / 100000.0;
}

static void new_leader(struct world *w)
{
	w->term++;
	w->leader_is_up = true;
	w->leader_base = rnd(1000) * SEC;
	w->leader_rate = a_rate();
	w->leader_since = w->now;
	w->lease_ns = (LEASE_MS_MIN + rnd(LEASE_MS_MAX - LEASE_MS_MIN + 1)) * MS;
	memset(&w->g, 0, sizeof(w->g));
	lease_granter_greeted(&w->g, leader_clock(w));
}

static void send(struct world *w, struct packet p)
{
	p.at = w->now + rnd(w->has_faults && rnd(10) == 0 ? 40 * SEC : 50 * MS);
	if (w->net_nr < NET_MAX)
		w->net[w->net_nr++] = p;
}

static void holder_event(struct world *w, enum lease_hold_in_kind kind, uint64_t id, uint64_t term,
			 uint64_t lease_ns)
{
	struct lease_hold_acts a = hold(&w->h, kind, id, term, lease_ns, mount_clock(w));

	for (size_t i = 0; i < a.nr; i++) {
		switch (a.v[i].kind) {
		case LEASE_HOLD_ASK:
			w->open_id = a.v[i].id;
			send(w, (struct packet){ .id = a.v[i].id, .term = w->term });
			break;
		case LEASE_HOLD_USE:
			assert_int_equal(lease_guard_set(&w->guard, KIND, RID, a.v[i].term,
							 a.v[i].until_ns, mount_clock(w)), 1);
			break;
		case LEASE_HOLD_LOSE:
			assert_false(w->is_lost);
			w->is_lost = true;
			break;
		case LEASE_HOLD_RESUME:
			w->is_lost = false;
			break;
		case LEASE_HOLD_END:
			fail();
		}
	}
}

static void deliver(struct world *w, const struct packet *p)
{
	if (p->is_answer) {
		if (p->term == w->term || w->has_faults)
			holder_event(w, LEASE_HOLD_GRANTED, p->id, p->term, p->lease_ns);
		return;
	}
	/* A leader that is gone hears nothing; the session asks the next one. */
	if (p->term != w->term || !w->leader_is_up)
		return;
	if (lease_granter_grant(&w->g, w->lease_ns, LEASE_NEVER, leader_clock(w)) == 0)
		send(w, (struct packet){ .is_answer = true, .id = p->id, .term = w->term,
					 .lease_ns = w->lease_ns });
}

static void turn(struct world *w, uint64_t *held_since)
{
	uint64_t until;
	bool may;

	w->now += 1 + rnd(200 * MS);
	if (!w->leader_is_up && w->now >= w->down_until) {
		new_leader(w);
		holder_event(w, LEASE_HOLD_GREETED, 0, w->term, 0);
		if (w->h.is_asked)
			send(w, (struct packet){ .id = w->open_id, .term = w->term });
	}
	if (w->has_faults && w->leader_is_up && rnd(400) == 0) {
		w->leader_is_up = false;
		w->down_until = w->now + rnd(30 * SEC);
	}
	if (w->has_faults && rnd(400) == 0)
		w->paused_until = w->now + rnd(40 * SEC);
	for (size_t i = 0; i < w->net_nr; ) {
		struct packet p = w->net[i];

		if (p.at > w->now || (p.is_answer && w->now < w->paused_until)) {
			i++;
			continue;
		}
		w->net[i] = w->net[--w->net_nr];
		deliver(w, &p);
	}
	if (w->now >= w->paused_until)
		holder_event(w, LEASE_HOLD_TICK, 0, 0, 0);

	may = lease_guard_check(&w->guard, KIND, RID, 0, false, mount_clock(w), &until) == 0;
	/* The promise: who may write is not over for the leader, though blockd never pauses and fsd may. */
	if (may && w->leader_is_up && leader_clock(w) >= lease_granter_over_ns(&w->g, 0))
		fail_msg("a write is allowed %llu ms after the leader took the lease for over",
			 (unsigned long long)((leader_clock(w) - lease_granter_over_ns(&w->g, 0)) / MS));
	/* What fsd believes is never more than what blockd allows. */
	if (lease_holder_may(&w->h, mount_clock(w)))
		assert_true(may);
	if (may)
		*held_since = w->now;
}

static void one_seed(uint64_t seed)
{
	struct world w = { .has_faults = true };
	uint64_t held = 0;

	rng = seed;
	w.mount_rate = a_rate();
	w.mount_base = rnd(1000) * SEC;
	lease_holder_init(&w.h);
	new_leader(&w);
	holder_event(&w, LEASE_HOLD_GREETED, 0, w.term, 0);
	for (unsigned i = 0; i < 1000; i++)
		turn(&w, &held);
	/* Faults stop: after what is under way has come, there is always a lease. */
	w.has_faults = false;
	for (uint64_t end = w.now + 100 * SEC; w.now < end; )
		turn(&w, &held);
	for (uint64_t end = w.now + 60 * SEC; w.now < end; ) {
		turn(&w, &held);
		assert_true(held == w.now);
		assert_false(w.is_lost);
	}
}

static uint64_t env(const char *name, uint64_t fallback)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : fallback;
}

static void whoever_waits_for_a_lease_waits_long_enough(void **state)
{
	uint64_t seed = env("SEED", 1), rounds = env("ROUNDS", 500);

	(void)state;
	for (uint64_t i = 0; i < rounds; i++) {
		if (getenv("SEED") || getenv("ROUNDS"))
			print_message("seed %llu\n", (unsigned long long)(seed + i));
		one_seed(seed + i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_counts_from_the_question_and_ends_early),
		cmocka_unit_test(an_answer_that_came_too_late_is_asked_for_again),
		cmocka_unit_test(who_was_fenced_never_gets_time_again),
		cmocka_unit_test(a_leader_whose_right_is_over_gives_nothing),
		cmocka_unit_test(no_write_without_a_right_that_lasts),
		cmocka_unit_test(a_dead_mounts_kernel_is_cut_off_when_its_time_is_over),
		cmocka_unit_test(a_kernel_that_nobody_makes_forget_is_cut_off),
		cmocka_unit_test(who_could_say_nothing_is_not_cut_off_for_it),
		cmocka_unit_test(the_dead_make_room),
		cmocka_unit_test(whoever_waits_for_a_lease_waits_long_enough),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
