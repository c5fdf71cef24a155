/*
 * Quota rules.  Rules are items under a lock of their own, read through the item cache like any other, so
 * they are strict: whoever changes one takes that lock away from everybody first.  A rule names an xattr
 * total; totals are read without a lock from what is committed and kept for five seconds.
 */
#include "quota.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "locks.h"
#include "log.h"
#include "reader.h"

#define TOTAL_LIFE_NS	(5 * NSEC_PER_SEC)
#define TOTALS_KEPT	64
#define SOURCE_LITERAL	0
#define SOURCE_GID	3
#define NAME_SELECT	1
#define RULE_COUNT	1

/* A total as last read.  Few rules apply to an operation: a small table, replaced round robin. */
struct total {
	struct key key;
	uint64_t total, count;
	uint64_t read_ns;	/* 0: free */
};
static struct {
	pthread_mutex_t mutex;
	struct total kept[TOTALS_KEPT];
	unsigned next;
} totals = { .mutex = PTHREAD_MUTEX_INITIALIZER };

struct fetch {
	struct op *op;
	struct total t;
};

static int take_total(void *arg, const struct item *it)
{
	struct total *t = arg;
	struct disk_xattr_total v;

	if (it->val_len == sizeof(v)) {
		memcpy(&v, it->val, sizeof(v));
		t->total = le64_get(v.total);
		t->count = le64_get(v.count);
	}
	return 0;
}

static void fetch_total(void *arg)
{
	struct fetch *f = arg;
	struct op *op = f->op;
	int ret = reader_iter(op->fsd, &f->t.key, &f->t.key, take_total, &f->t, NULL);

	if (ret == 0) {
		f->t.read_ns = clock_mono_ns();
		pthread_mutex_lock(&totals.mutex);
		totals.kept[totals.next] = f->t;
		totals.next = (totals.next + 1) % TOTALS_KEPT;
		pthread_mutex_unlock(&totals.mutex);
	}
	free(f);
	if (ret < 0)
		op_fail(op, ret);
	else
		op_wake(op);
}

static void wait_total(struct op *op)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f) {
		op_fail(op, -ENOMEM);
		return;
	}
	f->op = op;
	f->t.key = op->need.items;
	ops_defer(op->fsd, fetch_total, f);
}

static int get_total(struct op *op, const struct key *key, struct total *out)
{
	uint64_t now = clock_mono_ns();
	bool found = false;

	pthread_mutex_lock(&totals.mutex);
	for (unsigned i = 0; i < TOTALS_KEPT && !found; i++) {
		const struct total *t = &totals.kept[i];

		if (t->read_ns && now - t->read_ns < TOTAL_LIFE_NS && key_eq(&t->key, key)) {
			*out = *t;
			found = true;
		}
	}
	pthread_mutex_unlock(&totals.mutex);
	if (found)
		return 0;
	op->need.items = *key;
	return op_park(op, wait_total);
}

static uint64_t attribute(uint8_t source, uint64_t proj, uint32_t uid, uint32_t gid)
{
	return source == 1 ? proj : source == 2 ? uid : gid;
}

/* Whether every selecting name has the operation's value; names[] becomes the total's name. */
static bool matches(const struct disk_quota_rule *r, uint64_t proj, uint32_t uid, uint32_t gid, uint64_t names[3])
{
	for (int i = 0; i < 3; i++) {
		uint64_t val = le64_get(r->name_val[i]);

		if (r->name_source[i] > SOURCE_GID)
			return false;	/* nobody knows of what */
		names[i] = r->name_source[i] == SOURCE_LITERAL ? val : attribute(r->name_source[i], proj, uid, gid);
		if (r->name_flags[i] & NAME_SELECT && names[i] != val)
			return false;
	}
	return true;
}

/* Precedence among matching rules: (prio, V0,S0,F0, V1,S1,F1, V2,S2,F2, op, limit, flags), the greatest wins. */
static bool outranks(const struct disk_quota_rule *a, const struct disk_quota_rule *b)
{
	if (a->prio != b->prio)
		return a->prio > b->prio;
	for (int i = 0; i < 3; i++) {
		if (le64_get(a->name_val[i]) != le64_get(b->name_val[i]))
			return le64_get(a->name_val[i]) > le64_get(b->name_val[i]);
		if (a->name_source[i] != b->name_source[i])
			return a->name_source[i] > b->name_source[i];
		if (a->name_flags[i] != b->name_flags[i])
			return a->name_flags[i] > b->name_flags[i];
	}
	if (le64_get(a->limit) != le64_get(b->limit))
		return le64_get(a->limit) > le64_get(b->limit);
	return a->rule_flags > b->rule_flags;
}

int quota_check(struct op *op, struct itx *tx, enum quota_op what, uint64_t proj, uint32_t uid, uint32_t gid)
{
	struct key key = { .zone = ZONE_QUOTA, .type = TYPE_QUOTA_RULE };
	struct key last = { .zone = ZONE_QUOTA, .type = TYPE_QUOTA_RULE, .second = UINT64_MAX, .third = UINT64_MAX,
			    .fourth = UINT8_MAX };
	struct disk_quota_rule best = { 0 };
	uint64_t names[3], best_names[3] = { 0 };
	bool have = false;
	struct total t;
	struct ival iv;
	int ret;

	if (op->fsd->fmt_vers < 2)
		return 0;
	ret = lock_key(op, &key, LOCK_MODE_READ);
	if (ret < 0)
		return ret;
	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		struct disk_quota_rule r;

		key = key_next(iv.key);
		if (iv.len != sizeof(r)) {
			stats_inc(&op->fsd->stats.corrupt_items);
			log_err("a quota rule is malformed: run scoutfsctl check");
			return -EIO;
		}
		memcpy(&r, iv.val, sizeof(r));
		if (r.op != what || !matches(&r, proj, uid, gid, names) || (have && !outranks(&r, &best)))
			continue;
		best = r;
		memcpy(best_names, names, sizeof(names));
		have = true;
	}
	if (ret != -ENOENT)
		return ret;
	if (!have)
		return 0;
	key = (struct key){ .zone = ZONE_XATTR_TOTL, .first = best_names[0], .second = best_names[1], .third = best_names[2] };
	ret = get_total(op, &key, &t);
	if (ret < 0)
		return ret;
	return (best.rule_flags & RULE_COUNT ? t.count : t.total) >= le64_get(best.limit) ? -EDQUOT : 0;
}
