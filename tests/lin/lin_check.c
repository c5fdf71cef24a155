/*
 * What a shared filesystem promises, as a check of what programs on all its nodes have seen.
 *
 * Every operation takes effect at one moment between its call and its return, in one order for
 * all nodes.  That can be looked at object by object: an object is a register (a cell of a file
 * within a page, a size, a mode, an xattr), a log (records appended by O_APPEND), or an arena:
 * two directories with four names each, between which files are created, linked, renamed and
 * removed.
 *
 * What is weaker, because POSIX or the kernel promise no more:
 * - readdir: a name was there, or was not, at some moment of the call; so is the link count that
 *   stat(2) returns.
 * - A program that looks while another on the *same* node changes the same thing is not held to
 *   anything: the kernel shows a page or a name before the change is answered.
 * - rename(2) that fails for the kinds of its two names has looked at them one after the other; so
 *   has one that succeeds because both were the same file while somebody renamed one to the other.
 * - An operation that failed otherwise (EIO), or was not answered, may have happened or not.  EIO is
 *   no error only while a device of that very node fails.
 *
 * A mount that is lost (power cut, fencing) takes back its last changes, but: none from before an
 * fsync of that mount that succeeded, none that another node has seen, and of all objects those
 * after one moment (the cut).  The cut is looked for after the objects have been checked one by
 * one.  What was written to a cell after the cut may be there all the same: blocks that a file has are
 * overwritten in place, before the commit that the rest comes with (runtime.md 5.7).
 */
#include "lin_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CRASHES_MAX	32		/* bits of struct config's crashed */

static void *grow(void *p, size_t nr, size_t *max, size_t each)
{
	if (nr < *max)
		return p;
	*max = *max ? *max * 2 : 64;
	p = realloc(p, *max * each);
	if (!p)
		abort();
	return p;
}

static int op_cmp(const void *a, const void *b)
{
	const struct lin_op *x = a, *y = b;

	if (x->obj != y->obj)
		return x->obj < y->obj ? -1 : 1;
	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->proc < y->proc ? -1 : x->proc > y->proc;
}

/*
 * A directory that another node has moved is found at its new place while somebody works in its
 * old one: the kernel cannot move its entry then, and says so.
 */
static bool is_moved(const struct lin_op *op)
{
	return op->err == ESTALE && op->obj < LIN_OBJ_CELL;
}

static int crash_of(const struct lin_history *h, const struct lin_op *op)
{
	for (size_t i = 0; i < h->crashes_nr; i++) {
		if (h->crashes[i].node == op->node && h->crashes[i].inc == op->inc)
			return (int)i;
	}
	return -1;
}

static bool is_of_failing_device(const struct lin_history *h, const struct lin_op *op)
{
	for (size_t i = 0; op->err == EIO && i < h->failings_nr; i++) {
		const struct lin_failing *d = &h->failings[i];

		if (d->node == op->node && op->start <= d->to && op->end >= d->from)
			return true;
	}
	return false;
}

static bool is_change(const struct lin_op *op)
{
	switch (op->kind) {
	case LIN_STAT:
	case LIN_LIST:
	case LIN_READ:
	case LIN_READLOG:
	case LIN_SYNC:
		return false;
	default:
		return true;
	}
}

/* Errors that say something about the names; all others leave open whether anything has happened. */
static bool is_answer(const struct lin_op *op)
{
	static const int errs[LIN_KINDS_NR][5] = {
		[LIN_CREATE] = { EEXIST },
		[LIN_MKDIR] = { EEXIST },
		[LIN_UNLINK] = { ENOENT, EISDIR },
		[LIN_RMDIR] = { ENOENT, ENOTDIR },
		[LIN_RENAME] = { ENOENT, EISDIR, ENOTDIR, EEXIST, ENOTEMPTY },
		[LIN_LINK] = { ENOENT, EEXIST },
		[LIN_STAT] = { ENOENT },
	};

	for (int i = 0; op->err > 0 && i < 5; i++) {
		if (errs[op->kind][i] == op->err)
			return true;
	}
	return op->err == 0;
}

static uint16_t id_of(struct object *o, uint64_t ino)
{
	for (uint16_t i = 0; i < o->inos_nr; i++) {
		if (o->inos[i] == ino)
			return (uint16_t)(ID_FILES + i);
	}
	o->inos = realloc(o->inos, (o->inos_nr + 1u) * sizeof(*o->inos));
	if (!o->inos || o->inos_nr == UINT16_MAX - ID_FILES)
		abort();
	o->inos[o->inos_nr] = ino;
	return (uint16_t)(ID_FILES + o->inos_nr++);
}

/* One that nothing has returned: the inode of a create without an answer that nobody has looked at. */
static uint16_t id_new(struct object *o)
{
	return id_of(o, UINT64_MAX - o->inos_nr);
}

static struct step *add(struct object *o, const struct step *s)
{
	o->steps = grow(o->steps, o->steps_nr, &o->steps_max, sizeof(*s));
	o->steps[o->steps_nr] = *s;
	return &o->steps[o->steps_nr++];
}

/* The first of them, which are in the order of their beginnings, that may still run when op begins. */
static size_t first_beside(const struct lin_op *ops, size_t nr, uint64_t longest, const struct lin_op *op)
{
	size_t low = 0;

	while (nr) {
		size_t half = nr / 2;

		if (op->start > longest && ops[low + half].start < op->start - longest) {
			low += half + 1;
			nr -= half + 1;
		} else {
			nr = half;
		}
	}
	return low;
}

/* Does an operation that looks overlap with one of the same node that changes this object? */
static bool is_overlapped(const struct lin_op *ops, size_t nr, uint64_t longest, const struct lin_op *op)
{
	for (size_t i = first_beside(ops, nr, longest, op); i < nr; i++) {
		const struct lin_op *c = &ops[i];

		if (c->start > op->end)
			break;
		if (c != op && c->node == op->node && is_change(c) && c->end >= op->start)
			return true;
	}
	return false;
}

static bool is_weak_same(const struct lin_op *ops, size_t nr, uint64_t longest, const struct lin_op *op)
{
	for (size_t i = first_beside(ops, nr, longest, op); i < nr && ops[i].start <= op->end; i++) {
		const struct lin_op *c = &ops[i];

		if (c != op && c->kind == LIN_RENAME && c->a == op->a && c->b == op->b && c->err <= 0 &&
		    c->end >= op->start)
			return true;
	}
	return false;
}

/* When the last fsync of this mount began that succeeded; 0: none. */
static uint64_t last_sync(const struct lin_history *h, const struct lin_crash *c)
{
	uint64_t last = 0;

	for (size_t i = 0; i < h->ops_nr; i++) {
		const struct lin_op *s = &h->ops[i];

		if ((s->kind == LIN_SYNC || s->kind == LIN_STORE) && s->err == 0 && s->node == c->node &&
		    s->inc == c->inc && s->start > last)
			last = s->start;
	}
	return last;
}

static void add_looks(struct object *o, const struct lin_op *op, struct step *s)
{
	switch (op->kind) {
	case LIN_STAT:
		s->kind = STEP_LOOKUP;
		s->id = op->err ? ID_NONE : op->r[2] ? ID_DIR : id_of(o, op->r[0]);
		s->err = 0;
		add(o, s);
		if (!op->err && !op->r[2] && op->r[1]) {
			s->kind = STEP_NLINK;
			s->v = op->r[1];
			add(o, s);
		}
		break;
	case LIN_LIST:
		s->kind = STEP_PRESENT;
		for (int i = 0; i < LIN_NAMES / 2; i++) {
			s->a = (uint8_t)(op->a / (LIN_NAMES / 2) * (LIN_NAMES / 2) + i);
			s->v = op->r[0] >> s->a & 1;
			add(o, s);
		}
		break;
	default:
		s->kind = op->kind == LIN_READ ? STEP_READ : STEP_READLOG;
		s->v = op->r[0];
		s->w = op->r[1];
		add(o, s);
	}
}

static void add_change(struct object *o, const struct lin_op *op, struct step *s)
{
	static const enum step_kind kinds[LIN_KINDS_NR] = {
		[LIN_CREATE] = STEP_CREATE, [LIN_MKDIR] = STEP_MKDIR, [LIN_UNLINK] = STEP_UNLINK,
		[LIN_RMDIR] = STEP_RMDIR, [LIN_RENAME] = STEP_RENAME, [LIN_LINK] = STEP_LINK,
		[LIN_WRITE] = STEP_WRITE, [LIN_STORE] = STEP_WRITE, [LIN_APPEND] = STEP_APPEND,
	};

	s->kind = kinds[op->kind];
	if (op->kind == LIN_LINK)
		s->id = id_of(o, op->v);
	if (op->kind == LIN_CREATE && s->maybe) {
		s->id = id_new(o);
		s->any_id = true;
	} else if (op->kind == LIN_CREATE && !op->err) {
		s->id = id_of(o, op->r[0]);
	}
	add(o, s);
}

static void find_unknown(struct object *o)
{
	bool *known = calloc(o->inos_nr + 1u, 1);

	o->unknown = calloc(o->inos_nr + 1u, sizeof(*o->unknown));
	if (!known || !o->unknown)
		abort();
	for (size_t i = 0; i < o->steps_nr; i++) {
		if (o->steps[i].kind == STEP_CREATE && !o->steps[i].err)
			known[o->steps[i].id - ID_FILES] = true;
	}
	for (uint16_t i = 0; i < o->inos_nr; i++) {
		if (!known[i])
			o->unknown[o->unknown_nr++] = (uint16_t)(ID_FILES + i);
	}
	free(known);
}

static void prepare(const struct lin_history *h, const uint64_t *synced, const struct lin_op *ops, size_t nr,
		    struct object *o, struct lin_stats *stats)
{
	uint64_t longest = 0;

	for (size_t i = 0; i < nr; i++) {
		if (ops[i].end - ops[i].start > longest)
			longest = ops[i].end - ops[i].start;
	}
	for (size_t i = 0; i < nr; i++) {
		const struct lin_op *op = &ops[i];
		struct step s = { .start = op->start, .end = op->end, .op = op, .a = (uint8_t)op->a,
				  .b = (uint8_t)op->b, .v = op->v, .crash = crash_of(h, op) };
		const struct lin_crash *c = s.crash < 0 ? NULL : &h->crashes[s.crash];

		s.maybe = !is_answer(op);
		if (s.maybe && !is_change(op))
			continue;
		if (op->err < 0 && c)
			s.end = c->to > op->start ? c->to : op->start;
		if (op->kind == LIN_RENAME && op->err > 0 && op->err != ENOENT && !s.maybe)
			continue;
		s.err = s.maybe ? 0 : op->err;
		s.zombie = c && op->start < c->zombie_until && s.end > c->from;
		if (!is_change(op)) {
			if (is_overlapped(ops, nr, longest, op))
				stats->overlapped++;
			else
				add_looks(o, op, &s);
			continue;
		}
		s.is_volatile = c && !s.err && op->kind != LIN_STORE && s.end > synced[s.crash];
		s.weak_same = op->kind == LIN_RENAME && is_weak_same(ops, nr, longest, op);
		add_change(o, op, &s);
	}
	for (size_t i = 0; i < h->crashes_nr; i++) {
		const struct lin_crash *c = &h->crashes[i];

		add(o, &(struct step){ .start = c->from, .end = c->to, .kind = STEP_CRASH, .crash = (int)i });
	}
	find_unknown(o);
}

static int time_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_cut_step(const struct step *s, int crash)
{
	return s->crash == crash && s->is_volatile && !s->maybe && s->kind != STEP_CRASH;
}

static bool is_in_place(const struct object *o)
{
	return o->obj >= LIN_OBJ_CELL && o->obj < LIN_OBJ_SIZE;
}

/* Can this object be explained when the lost mount's changes up to a moment were kept, and none after it? */
static bool fits_cut(struct object *o, int crash, uint64_t cut, struct lin_stats *stats)
{
	for (size_t i = 0; i < o->steps_nr; i++) {
		struct step *s = &o->steps[i];

		s->keep = is_cut_step(s, crash) && s->end < cut;
		s->lose = is_cut_step(s, crash) && s->start > cut && !is_in_place(o);
	}
	return lin_search(o, &stats->configs_max, NULL) != VERDICT_WRONG;
}

/* Strike out the moments that this object does not allow. */
static void strike_cuts(struct object *o, int crash, const uint64_t *times, bool *fine, size_t nr,
			struct lin_stats *stats)
{
	size_t last_kept = SIZE_MAX, last_lost = SIZE_MAX;
	bool last = true;

	for (size_t t = 0; t < nr; t++) {
		size_t kept = 0, lost = 0;

		for (size_t i = 0; i < o->steps_nr; i++) {
			kept += is_cut_step(&o->steps[i], crash) && o->steps[i].end < times[t];
			lost += is_cut_step(&o->steps[i], crash) && o->steps[i].start > times[t];
		}
		if (!kept && !lost)
			continue;
		if (kept != last_kept || lost != last_lost)
			last = fits_cut(o, crash, times[t], stats);
		last_kept = kept;
		last_lost = lost;
		fine[t] &= last;
	}
	for (size_t i = 0; i < o->steps_nr; i++)
		o->steps[i].keep = o->steps[i].lose = false;
}

/* Is there a moment for a lost mount that all objects allow? */
static bool has_cut(struct object *objs, size_t objs_nr, int crash, struct lin_stats *stats)
{
	size_t nr = 0, max = 0;
	uint64_t *times = NULL;
	bool *fine, any = false;

	for (size_t n = 0; n < objs_nr; n++) {
		for (size_t i = 0; i < objs[n].steps_nr; i++) {
			const struct step *s = &objs[n].steps[i];

			if (!is_cut_step(s, crash))
				continue;
			times = grow(times, nr, &max, sizeof(*times));
			times[nr++] = s->start;
			times = grow(times, nr, &max, sizeof(*times));
			times[nr++] = s->end;
		}
	}
	if (!nr)
		return true;
	qsort(times, nr, sizeof(*times), time_cmp);
	fine = malloc(nr);
	if (!fine)
		abort();
	memset(fine, true, nr);
	for (size_t n = 0; n < objs_nr; n++)
		strike_cuts(&objs[n], crash, times, fine, nr, stats);
	for (size_t t = 0; t < nr; t++)
		any |= fine[t];
	free(times);
	free(fine);
	return any;
}

static void count_ops(const struct lin_history *h, struct lin_stats *stats)
{
	for (size_t i = 0; i < h->ops_nr; i++) {
		const struct lin_op *op = &h->ops[i];

		stats->ops++;
		if (crash_of(h, op) < 0) {
			stats->unanswered += op->err < 0;
			if (is_of_failing_device(h, op)) {
				stats->device_errors++;
			} else if (op->err > 0 && !is_answer(op) && !is_moved(op)) {
				if (!stats->errors++)
					stats->first_error = *op;
			}
		} else {
			stats->lost_unanswered += op->err < 0;
			stats->lost_errors += op->err > 0 && !is_answer(op);
		}
		if (op->err < 0)
			continue;
		if (op->end - op->start > stats->node_worst_ns[op->node])
			stats->node_worst_ns[op->node] = op->end - op->start;
		if (op->end - op->start > stats->worst_ns) {
			stats->worst_ns = op->end - op->start;
			stats->worst_kind = op->kind;
		}
	}
}

size_t lin_check(struct lin_history *h, struct lin_stats *stats, FILE *out)
{
	size_t wrong = 0, objs_nr = 0, objs_max = 0, nr;
	uint64_t synced[CRASHES_MAX];
	struct object *objs = NULL;

	memset(stats, 0, sizeof(*stats));
	if (h->crashes_nr > CRASHES_MAX) {
		fprintf(out, "%zu lost mounts in one history are more than can be looked at\n", h->crashes_nr);
		return 1;
	}
	qsort(h->ops, h->ops_nr, sizeof(*h->ops), op_cmp);
	count_ops(h, stats);
	for (size_t i = 0; i < h->crashes_nr; i++)
		synced[i] = last_sync(h, &h->crashes[i]);
	for (size_t i = 0; i < h->ops_nr; i += nr) {
		struct object *o;
		enum verdict v;

		for (nr = 1; i + nr < h->ops_nr && h->ops[i + nr].obj == h->ops[i].obj; nr++)
			;
		if (h->ops[i].obj == LIN_OBJ_SYNC)
			continue;
		objs = grow(objs, objs_nr, &objs_max, sizeof(*objs));
		o = &objs[objs_nr++];
		*o = (struct object){ .obj = h->ops[i].obj };
		prepare(h, synced, &h->ops[i], nr, o, stats);
		v = lin_search(o, &stats->configs_max, out);
		wrong += v == VERDICT_WRONG;
		stats->undecided += v == VERDICT_UNDECIDED;
		stats->checked += o->steps_nr;
	}
	stats->objects = objs_nr;
	for (size_t i = 0; !wrong && i < h->crashes_nr; i++) {
		if (has_cut(objs, objs_nr, (int)i, stats))
			continue;
		fprintf(out, "node %d, incarnation %d: what its lost mount has kept and lost is not all before and after "
			"one moment\n", h->crashes[i].node, h->crashes[i].inc);
		wrong++;
	}
	for (size_t i = 0; i < objs_nr; i++) {
		free(objs[i].steps);
		free(objs[i].inos);
		free(objs[i].unknown);
	}
	free(objs);
	return wrong;
}
