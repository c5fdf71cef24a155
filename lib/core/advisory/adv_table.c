/*
 * A mount's advisory locks.
 *
 * What makes it never too much: the server answers what it does at once in order, so when a grant is heard
 * of while a later request of that owner that gives something back has no answer yet, the server has done or
 * will do that after the grant; so it is taken out again right away.  A grant that was waited for may come
 * after the answer to a later request, and then counts as it is.  A change of an flock's type gives back
 * first.  So does whoever makes a POSIX write lock a read lock: where all of the range is held nobody can
 * refuse that.  Where it is not, the request may fail and the write lock must stay, so only the answer
 * changes the table; if the server dies between that and its grant, a mount that was let in meanwhile and
 * this one tell of locks that exclude each other, and the next server takes ours for what was asked for.
 */
#include "advisory/adv_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_NR	4096u

struct adv_table {
	uint64_t last_number;
	uint64_t entries;
	uint64_t changes;		/* of which entries there are */
	struct adv_entry **order;	/* all of them in order, while they are told; as of order_changes */
	size_t order_nr;
	uint64_t order_changes;
	struct adv_entry *buckets[BUCKETS_NR];
};

static size_t bucket_of(uint64_t ino)
{
	return (size_t)(ino * 0x9e3779b97f4a7c15ull >> 52);
}
static_assert(BUCKETS_NR == 1u << 12, "12 bits of hash");

int adv_table_open(struct adv_table **out, uint64_t first_number)
{
	struct adv_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->last_number = first_number;
	*out = t;
	return 0;
}

static void entry_free(struct adv_table *t, struct adv_entry *e)
{
	struct adv_entry **at = &t->buckets[bucket_of(e->ino)];

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	t->entries--;
	t->changes++;
	adv_ranges_clear(&e->ranges);
	free(e);
}

void adv_table_close(struct adv_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < BUCKETS_NR; i++) {
		while (t->buckets[i]) {
			struct adv_entry *e = t->buckets[i];

			while (e->calls) {
				struct adv_call *c = e->calls;

				e->calls = c->next;
				free(c);
			}
			entry_free(t, e);
		}
	}
	free(t->order);
	free(t);
}

struct adv_entry *adv_table_find(const struct adv_table *t, uint64_t ino, uint8_t kind, uint64_t owner)
{
	struct adv_entry *e = t->buckets[bucket_of(ino)];

	while (e && (e->ino != ino || e->kind != kind || e->owner != owner))
		e = e->next;
	return e;
}

struct adv_entry *adv_table_find_fh(const struct adv_table *t, uint64_t ino, uint64_t fh)
{
	struct adv_entry *e = t->buckets[bucket_of(ino)];

	while (e && (e->ino != ino || e->fh != fh || !e->ranges.nr))
		e = e->next;
	return e;
}

struct adv_entry *adv_entry_get(struct adv_table *t, uint64_t ino, uint8_t kind, uint64_t owner)
{
	struct adv_entry *e = adv_table_find(t, ino, kind, owner), **at;

	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e)
			return NULL;
		e->ino = ino;
		e->kind = kind;
		e->owner = owner;
		at = &t->buckets[bucket_of(ino)];
		e->next = *at;
		*at = e;
		t->entries++;
		t->changes++;
	}
	e->refs++;
	return e;
}

static void drop_if_empty(struct adv_table *t, struct adv_entry *e)
{
	if (!e->refs && !e->ranges.nr && !e->calls)
		entry_free(t, e);
}

void adv_entry_put(struct adv_table *t, struct adv_entry *e)
{
	assert(e->refs > 0);
	e->refs--;
	drop_if_empty(t, e);
}

/* Whether a request for type gives back what of `held` its owner has. */
static bool gives_back(const struct adv_entry *e, uint8_t type, uint8_t held)
{
	return type == ADV_UNLOCK || (e->kind == ADV_KIND_FLOCK && type != held);
}

/* Whether that makes a read lock of what is held in full, some of it for writing. */
static bool is_lessening(const struct adv_entry *e, uint64_t first, uint64_t last, uint8_t type)
{
	return e->kind != ADV_KIND_FLOCK && type == ADV_READ &&
	       adv_ranges_conflict(&e->ranges, first, last, ADV_READ) &&
	       adv_ranges_cover(&e->ranges, first, last);
}

/* Read locks that were asked for and are sure to come. */
static int lessen(struct adv_entry *e)
{
	int ret = 0;

	for (const struct adv_call *c = e->calls; c && ret == 0; c = c->next) {
		if (is_lessening(e, c->first, c->last, c->type))
			ret = adv_ranges_set(&e->ranges, c->first, c->last, ADV_READ, UINT32_MAX);
	}
	return ret;
}

int adv_give_back(struct adv_entry *e, uint64_t first, uint64_t last, uint8_t type, bool *has_changed)
{
	int ret = 0;

	*has_changed = false;
	if (e->kind == ADV_KIND_FLOCK && e->ranges.nr && type != e->ranges.v[0].type) {
		adv_ranges_clear(&e->ranges);
		*has_changed = true;
	} else if (type == ADV_UNLOCK) {
		/* whoever would exclude a writer from there */
		*has_changed = adv_ranges_conflict(&e->ranges, first, last, ADV_WRITE);
		ret = adv_ranges_set(&e->ranges, first, last, ADV_UNLOCK, UINT32_MAX);
	} else if (is_lessening(e, first, last, type)) {
		*has_changed = true;
		ret = adv_ranges_set(&e->ranges, first, last, ADV_READ, UINT32_MAX);
	}
	return ret;
}

bool adv_is_too_much(const struct adv_entry *e, uint64_t first, uint64_t last)
{
	/* Only what takes a part out of the middle of a range makes one more. */
	const struct adv_range *r = adv_ranges_conflict(&e->ranges, first, last, ADV_WRITE);

	return e->ranges.nr >= ADV_OWNER_RANGES_MAX && r && r->first < first && r->last > last;
}

bool adv_is_sure(const struct adv_entry *e, uint64_t first, uint64_t last, uint8_t type)
{
	/* What was lessened for it must not come to nothing because the wait for it is ended. */
	return e->kind != ADV_KIND_FLOCK && type == ADV_READ && adv_ranges_cover(&e->ranges, first, last);
}

int adv_call_begin(struct adv_table *t, struct adv_entry *e, uint64_t first, uint64_t last, uint8_t type,
		   struct adv_call **out)
{
	struct adv_call *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = (struct adv_call){ .next = e->calls, .entry = e, .number = ++t->last_number, .first = first,
				.last = last, .type = type };
	e->calls = c;
	*out = c;
	return 0;
}

int adv_call_end(struct adv_table *t, struct adv_call *c, bool is_granted)
{
	struct adv_entry *e = c->entry;
	struct adv_call **at = &e->calls;
	int ret = 0;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	if (is_granted)
		ret = adv_ranges_set(&e->ranges, c->first, c->last, c->type, UINT32_MAX);
	for (const struct adv_call *later = e->calls; later && is_granted && ret == 0; later = later->next) {
		if (later->number > c->number && c->type != ADV_UNLOCK && gives_back(e, later->type, c->type))
			ret = adv_ranges_set(&e->ranges, later->first, later->last, ADV_UNLOCK, UINT32_MAX);
	}
	if (ret == 0)
		ret = lessen(e);
	free(c);
	drop_if_empty(t, e);
	return ret;
}

int adv_table_load(struct adv_table *t, uint64_t ino, uint8_t kind, uint64_t owner, uint64_t fh, uint32_t pid,
		   const struct adv_range *v, uint32_t nr)
{
	struct adv_entry *e = adv_entry_get(t, ino, kind, owner);
	int ret = e ? 0 : -ENOMEM;

	if (ret < 0)
		return ret;
	e->fh = fh;
	e->pid = pid;
	for (uint32_t i = 0; i < nr && ret == 0; i++)
		ret = adv_ranges_set(&e->ranges, v[i].first, v[i].last, v[i].type, UINT32_MAX);
	adv_entry_put(t, e);
	return ret;
}

static int told_cmp(const void *va, const void *vb)
{
	const struct adv_told *a = va, *b = vb;

	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->owner != b->owner)
		return a->owner < b->owner ? -1 : 1;
	if (a->range.first != b->range.first)
		return a->range.first < b->range.first ? -1 : 1;
	return 0;
}

/* Whether some of t comes after what was told last; t is that part of it then. */
static bool is_left(struct adv_told *t, const struct adv_told *after)
{
	struct adv_told end;

	if (!after)
		return true;
	end = *after;
	end.range.first = after->range.last;
	if (t->ino == end.ino && t->kind == end.kind && t->owner == end.owner &&
	    t->range.first <= end.range.last && t->range.last > end.range.last)
		t->range.first = end.range.last + 1;
	return told_cmp(t, &end) > 0;
}

static int entry_cmp(const void *va, const void *vb)
{
	const struct adv_entry *a = *(struct adv_entry *const *)va, *b = *(struct adv_entry *const *)vb;

	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	return a->owner == b->owner ? 0 : a->owner < b->owner ? -1 : 1;
}

static void forget_order(struct adv_table *t)
{
	free(t->order);
	t->order = NULL;
}

/* Sorted once for all the questions of a server, unless entries come or go meanwhile. */
static int make_order(struct adv_table *t)
{
	if (t->order && t->order_changes == t->changes)
		return 0;
	forget_order(t);
	t->order = malloc((t->entries + 1) * sizeof(struct adv_entry *));
	if (!t->order)
		return -ENOMEM;
	t->order_nr = 0;
	for (size_t i = 0; i < BUCKETS_NR; i++) {
		for (struct adv_entry *e = t->buckets[i]; e; e = e->next)
			t->order[t->order_nr++] = e;
	}
	qsort(t->order, t->order_nr, sizeof(struct adv_entry *), entry_cmp);
	t->order_changes = t->changes;
	return 0;
}

/* The first in order that has something after what was told last, or nothing at all. */
static size_t find_place(const struct adv_table *t, const struct adv_told *after)
{
	struct adv_entry last;
	const struct adv_entry *key = &last;
	size_t from = 0, to = after ? t->order_nr : 0;

	if (after)
		last = (struct adv_entry){ .ino = after->ino, .owner = after->owner, .kind = after->kind };
	while (from < to) {
		size_t mid = from + (to - from) / 2;

		if (entry_cmp(&t->order[mid], &key) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

int adv_table_tell(struct adv_table *t, const struct adv_told *after, struct adv_told *out, size_t max, bool *is_last)
{
	size_t nr = 0;
	int ret = make_order(t);

	if (ret < 0)
		return ret;
	for (size_t i = find_place(t, after); i < t->order_nr; i++) {
		const struct adv_entry *e = t->order[i];

		for (uint32_t k = 0; k < e->ranges.nr; k++) {
			struct adv_told told = { .ino = e->ino, .owner = e->owner, .range = e->ranges.v[k],
						 .pid = e->pid, .kind = e->kind };

			if (!is_left(&told, after))
				continue;
			if (nr == max) {
				*is_last = false;
				return (int)nr;
			}
			out[nr++] = told;
		}
	}
	*is_last = true;
	forget_order(t);
	return (int)nr;
}

void adv_table_count(const struct adv_table *t, uint64_t *entries, uint64_t *ranges)
{
	*entries = t->entries;
	*ranges = 0;
	for (size_t i = 0; i < BUCKETS_NR && t->entries; i++) {
		for (const struct adv_entry *e = t->buckets[i]; e; e = e->next)
			*ranges += e->ranges.nr;
	}
}
