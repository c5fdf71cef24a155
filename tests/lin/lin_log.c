/*
 * The logs of the agent (linwork.c), read back.  A process writes a line before an operation and
 * one after it, each with the time; whoever is killed in between leaves an operation without an
 * answer, also when a later process goes on with its log.
 *
 *   I TIME KIND OBJECT A B V
 *   R TIME ERRNO R0 R1 R2
 */
#include "lin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *const lin_kind_names[LIN_KINDS_NR] = {
#define LIN_NAME(k, s) s,
	LIN_KINDS(LIN_NAME)
#undef LIN_NAME
};

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

static int kind_of(const char *name)
{
	for (int k = 0; k < LIN_KINDS_NR; k++) {
		if (!strcmp(name, lin_kind_names[k]))
			return k;
	}
	return -1;
}

static bool is_valid(const struct lin_op *op)
{
	return op->obj >= 0 && op->obj <= LIN_OBJ_SYNC && op->a >= 0 && op->a < LIN_NAMES && op->b >= 0 &&
	       op->b < LIN_NAMES && (op->kind == LIN_SYNC) == (op->obj == LIN_OBJ_SYNC) &&
	       (op->kind <= LIN_LIST) == (op->obj < LIN_OBJ_CELL) && (op->kind != LIN_RENAME || op->a != op->b);
}

int lin_read_log(struct lin_history *h, FILE *f, int node, int inc, int proc, FILE *out)
{
	struct lin_op *open = NULL;
	char line[256], kind[16], nl;
	unsigned nr = 0;

	if (node < 0 || node >= LIN_NODES) {
		fprintf(out, "there is no node %d\n", node);
		return -EINVAL;
	}
	while (fgets(line, sizeof(line), f)) {
		struct lin_op op = { .node = node, .inc = inc, .proc = proc, .end = LIN_NEVER, .err = -1 };
		uint64_t t, r[3];
		int err;

		nr++;
		if (!strchr(line, '\n'))
			break;
		if (sscanf(line, "I %" SCNu64 " %15s %d %d %d %" SCNu64 "%c", &op.start, kind, &op.obj, &op.a, &op.b,
			   &op.v, &nl) == 7 && kind_of(kind) >= 0) {
			/* one that is open was never answered: another process of that number began */
			op.kind = (enum lin_kind)kind_of(kind);
			if (!is_valid(&op))
				goto bad;
			h->ops = grow(h->ops, h->ops_nr, &h->ops_max, sizeof(op));
			open = &h->ops[h->ops_nr++];
			*open = op;
		} else if (sscanf(line, "R %" SCNu64 " %d %" SCNu64 " %" SCNu64 " %" SCNu64 "%c", &t, &err, &r[0],
				  &r[1], &r[2], &nl) == 6 && open && t >= open->start && err >= 0) {
			open->end = t;
			open->err = err;
			memcpy(open->r, r, sizeof(r));
			open = NULL;
		} else {
			goto bad;
		}
	}
	return 0;
bad:
	fprintf(out, "log of node %d, incarnation %d, process %d: line %u is wrong: %s", node, inc, proc, nr, line);
	return -EINVAL;
}

int lin_read_events(struct lin_history *h, FILE *f, FILE *out)
{
	char line[256];

	while (fgets(line, sizeof(line), f)) {
		struct lin_failing d;
		struct lin_crash c;

		if (line[0] == '#')
			continue;
		if (sscanf(line, "failing %d %" SCNu64 " %" SCNu64, &d.node, &d.from, &d.to) == 3 && d.to >= d.from) {
			h->failings = realloc(h->failings, (h->failings_nr + 1) * sizeof(d));
			if (!h->failings)
				abort();
			h->failings[h->failings_nr++] = d;
			continue;
		}
		if (sscanf(line, "crash %d %d %" SCNu64 " %" SCNu64 " %" SCNu64, &c.node, &c.inc, &c.from, &c.to,
			   &c.zombie_until) != 5 || c.to < c.from) {
			fprintf(out, "events: wrong line: %s", line);
			return -EINVAL;
		}
		h->crashes = realloc(h->crashes, (h->crashes_nr + 1) * sizeof(c));
		if (!h->crashes)
			abort();
		h->crashes[h->crashes_nr++] = c;
	}
	return 0;
}

void lin_history_fini(struct lin_history *h)
{
	free(h->ops);
	free(h->crashes);
	free(h->failings);
	memset(h, 0, sizeof(*h));
}
