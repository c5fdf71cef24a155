/*
 * The search: all states that one object can be in are carried along the time of a history.
 *
 * A configuration is a state, and which of the steps under way have taken effect in it.  When a
 * step is answered, every configuration is extended by steps under way, in every order, until
 * that one has taken effect; those in which it cannot are dropped, and when none is left no order
 * explains the history.  Steps that only look take effect as soon as they fit: that never hurts.
 * So the cost is that of what runs at the same time, not of the history's length.
 *
 * A mount that was lost may take back what it had not committed.  A configuration therefore has a
 * fork: the state without the changes of that mount since the fork began, and the names that
 * these touched.  Who else looks at those names had to get a lock, for which the mount would have
 * committed: so that does not fit a fork.  The loss goes back to the state before the fork.
 */
#include "lin_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS		128
#define CONFIGS_MAX	400000u		/* at one time, and */
#define SAID_MAX	30		/* steps around one that is wrong */
#define TRIES_MAX	100000000ul	/* all in all: then it is undecided */

union state {
	uint16_t name[LIN_NAMES];
	struct {
		uint64_t value, nr;	/* a register; records and their hash */
	};
};

struct config {
	union state now, saved;
	uint64_t mask[SLOTS / 64];
	uint32_t crashed;		/* mounts whose loss has taken effect */
	int16_t forked;			/* whose loss is going to take back what is not in `saved`, or -1 */
	uint16_t touched;
};

struct set {
	struct config *c;
	uint32_t nr, max;
	uint32_t *index;		/* position + 1 */
	uint32_t index_nr;
};

struct search {
	const struct object *o;
	struct set now, next;
	const struct step *slot[SLOTS];
	unsigned slots_nr;		/* the highest in use, and one */
	unsigned long tries;
};

static uint64_t config_hash(const struct config *c)
{
	uint64_t h = 1, w[sizeof(*c) / 8];

	memcpy(w, c, sizeof(*c));
	for (unsigned i = 0; i < sizeof(w) / sizeof(w[0]); i++)
		h = lin_hash(h, w[i]);
	return h;
}

static void set_clear(struct set *s)
{
	s->nr = 0;
	if (s->index)
		memset(s->index, 0, s->index_nr * sizeof(*s->index));
}

static void set_index(struct set *s, uint32_t i)
{
	uint32_t at = (uint32_t)config_hash(&s->c[i]) & (s->index_nr - 1);

	while (s->index[at])
		at = (at + 1) & (s->index_nr - 1);
	s->index[at] = i + 1;
}

static void set_grow(struct set *s)
{
	s->max = s->max ? s->max * 4 : 64;
	s->index_nr = s->max * 4;
	free(s->index);
	s->c = realloc(s->c, s->max * sizeof(*s->c));
	s->index = calloc(s->index_nr, sizeof(*s->index));
	if (!s->c || !s->index)
		abort();
	for (uint32_t i = 0; i < s->nr; i++)
		set_index(s, i);
}

static void set_add(struct set *s, const struct config *c)
{
	uint32_t at;

	if (s->nr == s->max)
		set_grow(s);
	for (at = (uint32_t)config_hash(c) & (s->index_nr - 1); s->index[at]; at = (at + 1) & (s->index_nr - 1)) {
		if (!memcmp(&s->c[s->index[at] - 1], c, sizeof(*c)))
			return;
	}
	s->c[s->nr] = *c;
	s->index[at] = ++s->nr;
}

static bool has_bit(const struct config *c, unsigned slot)
{
	return c->mask[slot / 64] >> slot % 64 & 1;
}

static void set_bit(struct config *c, unsigned slot, bool on)
{
	c->mask[slot / 64] &= ~(1ull << slot % 64);
	c->mask[slot / 64] |= (uint64_t)on << slot % 64;
}

static bool is_look(const struct step *s)
{
	return s->kind > STEP_CRASH || s->err;
}

static unsigned touches(const struct step *s)
{
	switch (s->kind) {
	case STEP_RENAME:
		return 1u << s->a | 1u << s->b;
	case STEP_LINK:
		return 1u << s->b;
	case STEP_NLINK:
	case STEP_CRASH:
		return 0;
	default:
		return 1u << s->a;
	}
}

static unsigned links(const union state *st, uint16_t id)
{
	unsigned nr = 0;

	for (int i = 0; i < LIN_NAMES; i++)
		nr += st->name[i] == id;
	return nr;
}

static bool fits_error(const struct step *s, const union state *st)
{
	uint16_t a = st->name[s->a];

	switch (s->kind) {
	case STEP_CREATE:
	case STEP_MKDIR:
		return s->err == EEXIST && a != ID_NONE;
	case STEP_UNLINK:
		return s->err == ENOENT ? a == ID_NONE : s->err == EISDIR && a == ID_DIR;
	case STEP_RMDIR:
		return s->err == ENOENT ? a == ID_NONE : s->err == ENOTDIR && a >= ID_FILES;
	case STEP_RENAME:
		return s->err == ENOENT && a == ID_NONE;
	case STEP_LINK:
		return s->err == ENOENT ? links(st, s->id) == 0 : s->err == EEXIST && st->name[s->b] != ID_NONE;
	default:
		return false;
	}
}

static bool fits(const struct step *s, const union state *st)
{
	if (s->err)
		return fits_error(s, st);
	switch (s->kind) {
	case STEP_LOOKUP:
		return st->name[s->a] == s->id;
	case STEP_NLINK:
		return links(st, s->id) == s->v;
	case STEP_PRESENT:
		return (st->name[s->a] != ID_NONE) == s->v;
	case STEP_READ:
		return st->value == s->v;
	case STEP_READLOG:
		return st->nr == s->v && st->value == s->w;
	default:
		return false;
	}
}

/* Does this look fit now, also with what a loss is going to take back? */
static bool look_fits(const struct config *c, const struct step *s)
{
	if (s->crash >= 0 && c->crashed >> s->crash & 1)
		return false;
	if (c->forked >= 0 && c->forked != s->crash && (touches(s) & c->touched || !fits(s, &c->saved)))
		return false;
	return fits(s, &c->now);
}

static void look_all(const struct search *w, struct config *c)
{
	for (unsigned i = 0; i < w->slots_nr; i++) {
		if (w->slot[i] && is_look(w->slot[i]) && !has_bit(c, i) && look_fits(c, w->slot[i]))
			set_bit(c, i, true);
	}
}

static bool change_rename(const struct step *s, union state *st)
{
	uint16_t *a = &st->name[s->a], *b = &st->name[s->b];

	if (*a == *b && *a >= ID_FILES)
		return true;
	if (*a == ID_NONE)
		return s->weak_same && *b != ID_NONE;
	if (*b != ID_NONE && (*a == ID_DIR) != (*b == ID_DIR))
		return false;
	*b = *a;
	*a = ID_NONE;
	return true;
}

/* The change on this state; false if it cannot have succeeded in it. */
static bool change(const struct step *s, union state *st, uint16_t id)
{
	uint16_t *a = &st->name[s->a];

	switch (s->kind) {
	case STEP_CREATE:
		if (*a != ID_NONE || links(st, id))
			return false;
		*a = id;
		return true;
	case STEP_MKDIR:
		if (*a != ID_NONE)
			return false;
		*a = ID_DIR;
		return true;
	case STEP_UNLINK:
		if (*a < ID_FILES)
			return false;
		*a = ID_NONE;
		return true;
	case STEP_RMDIR:
		if (*a != ID_DIR)
			return false;
		*a = ID_NONE;
		return true;
	case STEP_RENAME:
		return change_rename(s, st);
	case STEP_LINK:
		if (st->name[s->b] != ID_NONE || !links(st, s->id))
			return false;
		st->name[s->b] = s->id;
		return true;
	case STEP_WRITE:
		st->value = s->v;
		return true;
	case STEP_APPEND:
		if (st->nr < LIN_LOG_MAX) {
			st->value = lin_hash(st->value, s->v);
			st->nr++;
		}
		return true;
	default:
		return false;
	}
}

static void add_after(struct search *w, struct set *to, struct config *c, unsigned slot)
{
	set_bit(c, slot, true);
	look_all(w, c);
	set_add(to, c);
}

/* Every configuration that comes of one by a step that changes something. */
static void apply_change(struct search *w, struct set *to, const struct config *from, unsigned slot, uint16_t id)
{
	const struct step *s = w->slot[slot];
	struct config c = *from;

	if (c.forked >= 0 && c.forked != s->crash) {
		if (!(touches(s) & c.touched) && change(s, &c.now, id) && change(s, &c.saved, id))
			add_after(w, to, &c, slot);
		return;
	}
	if (c.forked >= 0) {
		if (s->is_volatile && !s->keep && change(s, &c.now, id)) {
			c.touched |= (uint16_t)touches(s);
			add_after(w, to, &c, slot);
		}
		return;
	}
	if (!change(s, &c.now, id))
		return;
	if (!s->lose)
		add_after(w, to, &c, slot);
	if (s->is_volatile && !s->keep) {
		c = *from;
		c.saved = c.now;
		c.forked = (int16_t)s->crash;
		c.touched = (uint16_t)touches(s);
		change(s, &c.now, id);
		add_after(w, to, &c, slot);
	}
}

static void apply(struct search *w, struct set *to, const struct config *from, unsigned slot)
{
	const struct step *s = w->slot[slot];
	struct config c = *from;

	if (s->crash >= 0 && c.crashed >> s->crash & 1)
		return;
	if (s->kind == STEP_CRASH) {
		if (c.forked == s->crash) {
			c.now = c.saved;
			memset(&c.saved, 0, sizeof(c.saved));
			c.forked = -1;
			c.touched = 0;
		}
		c.crashed |= 1u << s->crash;
		add_after(w, to, &c, slot);
		return;
	}
	apply_change(w, to, from, slot, s->id);
	for (unsigned i = 0; s->any_id && i < w->o->unknown_nr; i++)
		apply_change(w, to, from, slot, w->o->unknown[i]);
}

static void swap_sets(struct search *w)
{
	struct set t = w->now;

	w->now = w->next;
	w->next = t;
}

/* A step begins. */
static bool begin(struct search *w, const struct step *s)
{
	unsigned slot = 0;

	while (slot < SLOTS && w->slot[slot])
		slot++;
	if (slot == SLOTS)
		return false;
	w->slot[slot] = s;
	if (slot >= w->slots_nr)
		w->slots_nr = slot + 1;
	if (!is_look(s))
		return true;
	set_clear(&w->next);
	for (uint32_t i = 0; i < w->now.nr; i++) {
		struct config c = w->now.c[i];

		set_bit(&c, slot, look_fits(&c, s));
		set_add(&w->next, &c);
	}
	swap_sets(w);
	return true;
}

/* A step is answered, or known to have no effect later than this. */
static bool answer(struct search *w, const struct step *s)
{
	unsigned slot = 0;

	while (w->slot[slot] != s)
		slot++;
	set_clear(&w->next);
	for (uint32_t i = 0; i < w->now.nr; i++) {
		struct config c = w->now.c[i];	/* a copy: the set grows */

		w->tries += w->slots_nr;
		if (w->now.nr > CONFIGS_MAX || w->tries > TRIES_MAX)
			return false;
		if (has_bit(&c, slot)) {
			set_bit(&c, slot, false);
			set_add(&w->next, &c);
			continue;
		}
		if (s->maybe || (s->zombie && c.crashed >> s->crash & 1))
			set_add(&w->next, &c);
		for (unsigned m = 0; m < w->slots_nr; m++) {
			if (w->slot[m] && !is_look(w->slot[m]) && !has_bit(&c, m))
				apply(w, &w->now, &c, m);
		}
	}
	w->slot[slot] = NULL;
	swap_sets(w);
	return true;
}

struct event {
	uint64_t time;
	const struct step *step;
	bool is_answer;
};

/* At the same time beginnings are before answers, and the loss of a mount is answered last. */
static int event_cmp(const void *a, const void *b)
{
	const struct event *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	if (x->is_answer != y->is_answer)
		return x->is_answer ? 1 : -1;
	if ((x->step->kind == STEP_CRASH) != (y->step->kind == STEP_CRASH))
		return x->step->kind == STEP_CRASH ? 1 : -1;
	return x->step < y->step ? -1 : x->step > y->step;
}

static void say_time(FILE *out, uint64_t t)
{
	if (t == LIN_NEVER)
		fprintf(out, "(no answer)");
	else
		fprintf(out, "%" PRIu64 ".%06u", t / 1000000000, (unsigned)(t / 1000 % 1000000));
}

static void say_step(FILE *out, const struct step *s)
{
	const struct lin_op *op = s->op;

	say_time(out, s->start);
	fprintf(out, " - ");
	say_time(out, s->end);
	if (!op) {
		fprintf(out, " the mount is lost\n");
		return;
	}
	fprintf(out, " n%d/%d/%d %s", op->node, op->inc, op->proc, lin_kind_names[op->kind]);
	if (op->obj < LIN_OBJ_CELL)
		fprintf(out, " %d", op->kind == LIN_LINK ? op->b : op->a);
	if (op->kind == LIN_RENAME)
		fprintf(out, " -> %d", op->b);
	if (op->v)
		fprintf(out, " %" PRIu64, op->v);
	if (op->err > 0)
		fprintf(out, ": %s", strerror(op->err));
	else if (op->err == 0)
		fprintf(out, " = %" PRIu64 " %" PRIu64 " %" PRIu64, op->r[0], op->r[1], op->r[2]);
	if (s->kind == STEP_PRESENT)
		fprintf(out, " (name %u %s)", s->a, s->v ? "listed" : "not listed");
	if (s->kind == STEP_NLINK)
		fprintf(out, " (the link count)");
	fprintf(out, "%s%s\n", s->is_volatile ? " [not fsynced]" : "", s->maybe ? " [maybe]" : "");
}

static void say_wrong(const struct search *w, const struct step *s, FILE *out)
{
	const struct object *o = w->o;
	size_t after = 0;

	fprintf(out, "object %d: no order explains this:\n    ", o->obj);
	say_step(out, s);
	fprintf(out, "  what could have been before its answer:\n");
	/* w->next is what answer() has tried, all of it */
	for (uint32_t i = 0; i < w->next.nr && i < 8; i++) {
		const union state *st = &w->next.c[i].now;

		fprintf(out, "   ");
		for (int n = 0; o->obj < LIN_OBJ_CELL && n < LIN_NAMES; n++) {
			if (st->name[n] < ID_FILES)
				fprintf(out, " %d:%s", n, st->name[n] ? "dir" : "-");
			else
				fprintf(out, " %d:%" PRIu64, n, o->inos[st->name[n] - ID_FILES]);
		}
		if (o->obj >= LIN_OBJ_CELL)
			fprintf(out, " %" PRIu64 " %" PRIu64, st->value, st->nr);
		fprintf(out, "\n");
	}
	/* steps are in the order of their beginnings, but for losses */
	fprintf(out, "  what was before and around it:\n");
	for (size_t i = 0; i < o->steps_nr; i++)
		after += o->steps[i].start <= s->end;
	for (size_t i = 0, n = 0; i < o->steps_nr; i++) {
		if (o->steps[i].start > s->end || n++ + SAID_MAX < after)
			continue;
		fprintf(out, "    ");
		say_step(out, &o->steps[i]);
	}
}

enum verdict lin_search(const struct object *o, size_t *configs_max, FILE *out)
{
	struct search w = { .o = o };
	struct event *ev = malloc(sizeof(*ev) * 2 * (o->steps_nr + 1));
	struct config first = { .forked = -1 };
	enum verdict v = VERDICT_FINE;
	size_t nr = 0;

	if (!ev)
		abort();
	for (size_t i = 0; i < o->steps_nr; i++) {
		const struct step *s = &o->steps[i];

		ev[nr++] = (struct event){ s->start, s, false };
		ev[nr++] = (struct event){ s->end, s, true };
	}
	qsort(ev, nr, sizeof(*ev), event_cmp);
	set_grow(&w.now);
	set_grow(&w.next);
	set_add(&w.now, &first);
	for (size_t i = 0; i < nr && v == VERDICT_FINE; i++) {
		if (!ev[i].is_answer) {
			if (!begin(&w, ev[i].step))
				v = VERDICT_UNDECIDED;
		} else if (!answer(&w, ev[i].step)) {
			v = VERDICT_UNDECIDED;
		} else if (!w.now.nr) {
			v = VERDICT_WRONG;
			if (out)
				say_wrong(&w, ev[i].step, out);
		}
		if (w.now.nr > *configs_max)
			*configs_max = w.now.nr;
	}
	free(w.now.c);
	free(w.now.index);
	free(w.next.c);
	free(w.next.index);
	free(ev);
	return v;
}
