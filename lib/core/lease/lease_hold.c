/*
 * The mount's side of its lease.
 *
 * Promises: what it says may be used ends, by its own clock, before the leader's wait for it does; there is
 * never more than one question under way; a question that was asked is answered once (the session sees to
 * that over any number of servers), so nothing is repeated here but after an error.  Time is asked for again
 * when a third of it has gone, so two thirds are left to find a leader that restarts.
 *
 * A lease survives the leader that gave it: the next one waits for it as for its own.
 */
#include "lease.h"

#include <assert.h>
#include <string.h>

#include "util/planted.h"

#define RETRY_NS	100000000ull

uint64_t lease_drift_ns(uint64_t lease_ns)
{
	/* Quartz is good for 1 in 10,000, a virtual machine's clock for 1 in 1,000 at worst. */
	return PLANTED(lease_clocks_are_equal) ? 0 : lease_ns / 50;
}

void lease_holder_init(struct lease_holder *h)
{
	memset(h, 0, sizeof(*h));
	h->next_ask_ns = LEASE_NEVER;
}

static struct lease_hold_act *emit(struct lease_hold_acts *out, enum lease_hold_act_kind kind)
{
	assert(out->nr < LEASE_HOLD_ACTS_MAX);
	out->v[out->nr] = (struct lease_hold_act){ .kind = kind };
	return &out->v[out->nr++];
}

static void granted(struct lease_holder *h, const struct lease_hold_in *in, uint64_t now,
		    struct lease_hold_acts *out)
{
	uint64_t from = PLANTED(lease_counts_from_the_answer) ? now : h->asked_ns;
	uint64_t until = from + in->lease_ns - lease_drift_ns(in->lease_ns);
	struct lease_hold_act *a;

	h->next_ask_ns = h->asked_ns + in->lease_ns / 3;
	/* A shorter one takes nothing back of what another leader gave. */
	if (until <= h->until_ns)
		return;
	h->until_ns = until;
	h->term = in->term;
	/* The answer took longer than it is good for: ask again at once. */
	if (now >= until) {
		h->next_ask_ns = now;
		return;
	}
	a = emit(out, LEASE_HOLD_USE);
	a->term = h->term;
	a->until_ns = until;
	if (h->state == LEASE_HOLDER_NONE) {
		h->state = LEASE_HOLDER_HELD;
		emit(out, LEASE_HOLD_RESUME);
	}
}

static void evaluate(struct lease_holder *h, uint64_t now, struct lease_hold_acts *out)
{
	if (h->state == LEASE_HOLDER_HELD && now >= h->until_ns) {
		h->state = LEASE_HOLDER_NONE;
		h->losses++;
		emit(out, LEASE_HOLD_LOSE);
	}
	if (h->has_leader && !h->is_asked && now >= h->next_ask_ns) {
		h->is_asked = true;
		h->asked_ns = now;
		emit(out, LEASE_HOLD_ASK)->id = ++h->ask_id;
	}
}

void lease_holder_step(struct lease_holder *h, const struct lease_hold_in *in, uint64_t now,
		       struct lease_hold_acts *out)
{
	bool is_answer = h->is_asked && in->id == h->ask_id;

	out->nr = 0;
	if (h->state == LEASE_HOLDER_ENDED)
		return;
	switch (in->kind) {
	case LEASE_HOLD_TICK:
		break;
	case LEASE_HOLD_GREETED:
		if (!h->has_leader)
			h->next_ask_ns = now;
		h->has_leader = true;
		break;
	case LEASE_HOLD_GRANTED:
		if (!is_answer)
			break;
		h->is_asked = false;
		granted(h, in, now, out);
		break;
	case LEASE_HOLD_FAILED:
		if (!is_answer)
			break;
		h->is_asked = false;
		h->next_ask_ns = PLANTED(lease_asks_no_more) ? LEASE_NEVER : now + RETRY_NS;
		break;
	case LEASE_HOLD_FENCED:
		if (h->state == LEASE_HOLDER_HELD)
			emit(out, LEASE_HOLD_LOSE);
		h->state = LEASE_HOLDER_ENDED;
		h->until_ns = 0;
		emit(out, LEASE_HOLD_END);
		return;
	}
	evaluate(h, now, out);
}

uint64_t lease_holder_deadline(const struct lease_holder *h)
{
	uint64_t t = LEASE_NEVER;

	if (h->state == LEASE_HOLDER_ENDED)
		return t;
	if (h->has_leader && !h->is_asked)
		t = h->next_ask_ns;
	if (h->state == LEASE_HOLDER_HELD && h->until_ns < t)
		t = h->until_ns;
	return t;
}

bool lease_holder_may(const struct lease_holder *h, uint64_t now)
{
	return h->state == LEASE_HOLDER_HELD && now < h->until_ns;
}

void lease_holder_check(const struct lease_holder *h)
{
	if (h->is_asked)
		assert(h->has_leader);
	if (h->state == LEASE_HOLDER_HELD) {
		assert(h->until_ns > 0);
		assert(h->ask_id > 0);
	}
	if (h->state == LEASE_HOLDER_ENDED)
		assert(h->until_ns == 0);
}
