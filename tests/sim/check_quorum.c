/*
 * What must be true of a quorum, seen from the wire and from the device.  runtime.md 1, 2.
 *
 * - A member says one vote in a term, and of three or more at most one says that it leads one.
 * - A quorum block that can be read is there at every moment, and no event of it goes back.
 * - A server reads the volume only when the ELECT of its term is durable, and when it has, no write of
 * an earlier term lands; none lands after the STOP of its own term either.
 */
#include "csum/csum.h"
#include "format/super.h"
#include "quorum_world.h"

#include <string.h>

#define TERMS_MAX	4096u
#define PARTS		10u		/* of the last second */

struct check_quorum {
	const struct sim_disk *disk;
	unsigned nr;
	uint8_t (*vote_of)[TERMS_MAX];	/* [slot][term]: slot + 1 */
	uint8_t leader_of[TERMS_MAX];
	uint64_t event_term[QUORUM_SLOTS_MAX][QUORUM_EVENTS_NR];
	uint64_t write_nr[QUORUM_SLOTS_MAX];
	uint64_t read_term;		/* greatest that has read the volume */
	/* Who wrote in each tenth of a second, lately. */
	uint64_t part[PARTS], part_term[PARTS];
	uint64_t mixed_ns;
	struct qw_super last;
};

static void check_packet(struct sim *s, struct check_quorum *c, const struct sim_fact *f)
{
	const struct msg_quorum_state *st = f->buf;
	uint8_t *v, *l;

	if (f->len != sizeof(*st))
		return;
	SIM_CHECK(s, st->term < TERMS_MAX, "terms run away");
	v = &c->vote_of[st->slot][st->term];
	/* "Voted already", which a member says of the term that it begins in, is no vote. */
	if (st->voted_for != MSG_NO_SLOT &&
	    !(st->voted_for == st->slot && st->role == QUORUM_FOLLOWER)) {
		SIM_CHECK(s, *v == 0 || *v == st->voted_for + 1,
			  "slot %u votes for %u and for %u in term %llu", st->slot, *v - 1u,
			  st->voted_for, (unsigned long long)st->term);
		*v = (uint8_t)(st->voted_for + 1);
	}
	/* One or two members may elect each other: 1.7. */
	if (st->role != QUORUM_LEADER || c->nr < 3)
		return;
	l = &c->leader_of[st->term];
	SIM_CHECK(s, *l == 0 || *l == st->slot + 1, "slots %u and %u lead term %llu", *l - 1u,
		  st->slot, (unsigned long long)st->term);
	*l = (uint8_t)(st->slot + 1);
}

static void check_block(struct sim *s, struct check_quorum *c, const struct sim_fact *f)
{
	const struct disk_quorum_block *b = f->buf;
	unsigned slot = (unsigned)f->v[0] - 1;
	const char *why;

	SIM_CHECK(s, quorum_block_check(b, slot, QW_FSID, &why) == 0, "quorum block %u: %s", slot,
		  why);
	SIM_CHECK(s, le64_get(b->write_nr) >= c->write_nr[slot],
		  "quorum block %u goes back to write %llu from %llu", slot,
		  (unsigned long long)le64_get(b->write_nr), (unsigned long long)c->write_nr[slot]);
	c->write_nr[slot] = le64_get(b->write_nr);
	for (unsigned e = 0; e < QUORUM_EVENTS_NR; e++) {
		uint64_t term = le64_get(b->events[e].term);

		SIM_CHECK(s, term >= c->event_term[slot][e],
			  "quorum block %u: event %u goes back to term %llu from %llu", slot, e,
			  (unsigned long long)term, (unsigned long long)c->event_term[slot][e]);
		c->event_term[slot][e] = term;
	}
	SIM_CHECK(s, c->event_term[slot][QUORUM_EVENT_FENCE] <= c->read_term,
		  "slot %u has fenced in a term that nobody serves", slot);
}

static void check_super(struct sim *s, struct check_quorum *c, const struct sim_fact *f)
{
	const struct qw_super *w = f->buf;
	uint64_t now = sim_now(s), part = now / (SIM_SEC / PARTS), *term;

	/* A torn write may change nothing of what is looked at. */
	if (!memcmp(w, &c->last, sizeof(*w)))
		return;
	c->last = *w;
	SIM_CHECK(s, w->term >= c->read_term,
		  "a write of term %llu lands after the server of term %llu has read the volume",
		  (unsigned long long)w->term, (unsigned long long)c->read_term);
	SIM_CHECK(s, c->event_term[w->slot][QUORUM_EVENT_STOP] < w->term,
		  "a write of term %llu lands after its STOP", (unsigned long long)w->term);
	term = &c->part_term[part % PARTS];
	if (c->part[part % PARTS] == part && *term != w->term)
		c->mixed_ns = now;
	c->part[part % PARTS] = part;
	*term = w->term;
}

static void check_read(struct sim *s, struct check_quorum *c, const struct sim_fact *f)
{
	uint64_t slot = f->v[0], term = f->v[1];

	SIM_CHECK(s, c->event_term[slot][QUORUM_EVENT_ELECT] == term,
		  "slot %llu serves term %llu, its block shows ELECT %llu", (unsigned long long)slot,
		  (unsigned long long)term,
		  (unsigned long long)c->event_term[slot][QUORUM_EVENT_ELECT]);
	if (term > c->read_term)
		c->read_term = term;
}

static void check(struct sim *s, void *arg, const struct sim_fact *f)
{
	struct check_quorum *c = arg;

	if (f->kind == SIM_FACT_PACKET)
		check_packet(s, c, f);
	else if (f->kind == SIM_FACT_LANDED && f->disk == c->disk && f->v[0] == QW_SUPER)
		check_super(s, c, f);
	else if (f->kind == SIM_FACT_LANDED && f->disk == c->disk)
		check_block(s, c, f);
	else if (f->kind == QW_FACT_READ)
		check_read(s, c, f);
}

struct check_quorum *check_quorum_new(struct sim *s, const struct sim_disk *disk, unsigned nr)
{
	struct check_quorum *c = sim_alloc(s, sizeof(*c));

	c->disk = disk;
	c->nr = nr;
	c->vote_of = sim_alloc(s, nr * sizeof(*c->vote_of));
	sim_watch(s, check, c);
	return c;
}

bool check_quorum_is_served(struct sim *s, const struct check_quorum *c)
{
	uint64_t part = sim_now(s) / (SIM_SEC / PARTS);

	if (c->mixed_ns + SIM_SEC > sim_now(s))
		return false;
	/* The part that has just begun may still be empty. */
	for (uint64_t p = part - (PARTS - 1); p < part; p++) {
		if (c->part[p % PARTS] != p || c->part_term[p % PARTS] != c->read_term)
			return false;
	}
	return true;
}
