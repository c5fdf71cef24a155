/*
 * What must hold of items: whoever reads one under its lock sees the last value that was written under it; a
 * commit that was acknowledged is never undone; one of a mount that died is there as a whole or not at all,
 * if it had been sent, and otherwise not.
 */
#include <string.h>

#include "cluster.h"

#define LIVES_MAX	1024u
#define WRITES_MAX	64u
#define ITEMS_MAX	(CLUSTER_GROUPS_MAX * CLUSTER_ITEMS)

enum outcome { UNKNOWN, DURABLE, LOST };

/* A mount, in however many processes. */
struct life {
	bool is_dead;
	uint64_t rid;
	uint64_t sent_gen, committed_gen;
	enum outcome last;	/* of sent_gen, when it is dead and that was never acknowledged */
};

struct write {
	unsigned life;
	uint64_t gen, value;
};

struct item_state {
	uint64_t base;			/* durable for certain */
	struct write writes[WRITES_MAX];	/* after it, in order */
	unsigned nr;
};

struct items_check {
	struct cluster *cl;
	struct life lives[LIVES_MAX];
	unsigned lives_nr;
	unsigned life_of[SIM_PROCS_MAX];	/* + 1 */
	struct item_state items[ITEMS_MAX];
};

/* A generation that was not stored when the mount went on in another process is in the next that is sent. */
static enum outcome outcome_of(const struct life *l, uint64_t gen)
{
	if (!l->is_dead || gen <= l->committed_gen)
		return DURABLE;
	return gen <= l->sent_gen ? l->last : LOST;
}

/* Writes at the front whose fate is certain become the base. */
static void fold(struct items_check *c, struct item_state *it)
{
	unsigned nr = 0;

	while (nr < it->nr) {
		const struct write *w = &it->writes[nr];
		const struct life *l = &c->lives[w->life];

		if ((!l->is_dead && w->gen > l->committed_gen) ||
		    outcome_of(l, w->gen) == UNKNOWN)
			break;
		if (outcome_of(l, w->gen) == DURABLE)
			it->base = w->value;
		nr++;
	}
	memmove(it->writes, it->writes + nr, (it->nr - nr) * sizeof(it->writes[0]));
	it->nr -= nr;
}

static void fold_all(struct items_check *c)
{
	for (unsigned i = 0; i < ITEMS_MAX; i++)
		fold(c, &c->items[i]);
}

static void saw(struct items_check *c, struct sim *s, uint64_t item, uint64_t value)
{
	struct item_state *it = &c->items[item];
	uint64_t with = it->base, without = it->base;
	struct life *unknown = NULL;

	for (unsigned i = 0; i < it->nr; i++) {
		const struct write *w = &it->writes[i];
		struct life *l = &c->lives[w->life];

		switch (outcome_of(l, w->gen)) {
		case DURABLE:
			with = without = w->value;
			unknown = NULL;
			break;
		case UNKNOWN:
			with = w->value;
			unknown = l;
			break;
		case LOST:
			break;
		}
	}
	SIM_CHECK(s, value == with || value == without,
		  "item %llu is read as %llu; it must be %llu%s", (unsigned long long)item,
		  (unsigned long long)value, (unsigned long long)with,
		  with != without ? " or what it was before" : "");
	if (!unknown || with == without)
		return;
	unknown->last = value == with ? DURABLE : LOST;
	fold_all(c);
}

static void wrote(struct items_check *c, struct sim *s, unsigned proc, uint64_t item, uint64_t value,
		  uint64_t gen)
{
	struct item_state *it = &c->items[item];
	struct write w = { c->life_of[proc] - 1, gen, value };

	fold(c, it);
	if (it->nr && it->writes[it->nr - 1].life == w.life && it->writes[it->nr - 1].gen == gen)
		it->nr--;
	SIM_CHECK(s, it->nr < WRITES_MAX, "more writes than the checker remembers");
	it->writes[it->nr++] = w;
}

static void mounted(struct items_check *c, struct sim *s, unsigned proc, uint64_t rid)
{
	SIM_CHECK(s, c->lives_nr < LIVES_MAX, "more mounts than the checker remembers");
	c->lives[c->lives_nr] = (struct life){ .rid = rid };
	c->life_of[proc] = ++c->lives_nr;
}

/* Until then a mount whose process is dead may go on in another. */
static void fenced(struct items_check *c, uint64_t rid)
{
	for (unsigned i = 0; i < c->lives_nr; i++)
		c->lives[i].is_dead = c->lives[i].is_dead || c->lives[i].rid == rid;
	fold_all(c);
}

static void on_fact(struct sim *s, void *arg, const struct sim_fact *f)
{
	struct items_check *c = arg;
	struct life *l = f->proc < SIM_PROCS_MAX && c->life_of[f->proc] ?
			 &c->lives[c->life_of[f->proc] - 1] : NULL;

	switch (f->kind) {
	case FACT_FENCED:
		fenced(c, f->v[0]);
		break;
	case FACT_MOUNTED:
		mounted(c, s, f->proc, f->v[0]);
		break;
	case FACT_READ:
		saw(c, s, f->v[0], f->v[1]);
		break;
	case FACT_WRITE:
		wrote(c, s, f->proc, f->v[0], f->v[1], f->v[2]);
		break;
	case FACT_COMMIT_SENT:
		l->sent_gen = f->v[0];
		break;
	case FACT_COMMITTED:
		l->committed_gen = f->v[0];
		fold_all(c);
		break;
	}
}

void check_items_final(struct cluster *cl, uint64_t item, uint64_t value)
{
	saw(cl->items_check, cl->sim, item, value);
}

void check_items_watch(struct cluster *cl)
{
	cl->items_check = sim_alloc(cl->sim, sizeof(*cl->items_check));
	cl->items_check->cl = cl;
	sim_watch(cl->sim, on_fact, cl->items_check);
}
