/*
 * Files, holders, waiters and owners of advisory locks, found by hash.
 *
 * Promises: a file is here while it has holders or waiters, a holder while it has ranges, an owner while it
 * holds or waits; the counts of ranges and waiters in the machine's statistics are exact.
 */
#include "advisory_objects.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define BUCKETS_FIRST	256u

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ (x >> 29);
}

int advobj_table_open(struct table *t)
{
	t->buckets = calloc(BUCKETS_FIRST, sizeof(*t->buckets));
	t->buckets_nr = BUCKETS_FIRST;
	return t->buckets ? 0 : -ENOMEM;
}

static struct link **table_at(const struct table *t, uint64_t hash)
{
	return &t->buckets[hash & (t->buckets_nr - 1)];
}

/* A bigger table keeps chains short; without memory for it chains are long and nothing is wrong. */
static void table_grow(struct table *t)
{
	struct table big = { calloc(t->buckets_nr * 2, sizeof(*t->buckets)), t->buckets_nr * 2, t->nr };

	if (!big.buckets)
		return;
	for (size_t i = 0; i < t->buckets_nr; i++) {
		struct link *l = t->buckets[i];

		while (l) {
			struct link *next = l->next, **at = table_at(&big, l->hash);

			l->next = *at;
			*at = l;
			l = next;
		}
	}
	free(t->buckets);
	*t = big;
}

static void table_add(struct table *t, struct link *l, uint64_t hash)
{
	struct link **at;

	if (t->nr >= t->buckets_nr)
		table_grow(t);
	at = table_at(t, hash);
	l->hash = hash;
	l->next = *at;
	*at = l;
	t->nr++;
}

static void table_remove(struct table *t, struct link *l)
{
	struct link **at = table_at(t, l->hash);

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	t->nr--;
}

/* --- files, owners, holders, waiters --- */

static uint64_t file_hash(uint64_t ino, uint8_t kind)
{
	return mix(ino * 2 + kind);
}

struct file *advobj_file_find(const struct advfsm *f, uint64_t ino, uint8_t kind)
{
	uint64_t hash = file_hash(ino, kind);

	for (struct link *l = *table_at(&f->files, hash); l; l = l->next) {
		struct file *file = (struct file *)l;

		if (file->ino == ino && file->kind == kind)
			return file;
	}
	return NULL;
}

struct file *advobj_file_make(struct advfsm *f, uint64_t ino, uint8_t kind)
{
	struct file *file = advobj_file_find(f, ino, kind);

	if (file)
		return file;
	file = calloc(1, sizeof(*file));
	if (!file)
		return NULL;
	file->ino = ino;
	file->kind = kind;
	table_add(&f->files, &file->link, file_hash(ino, kind));
	return file;
}

void advobj_file_drop_if_empty(struct advfsm *f, struct file *file)
{
	if (file->holders || file->waiters)
		return;
	table_remove(&f->files, &file->link);
	free(file);
}

struct owner *advobj_owner_get(struct advfsm *f, uint64_t rid, uint8_t kind, uint64_t number)
{
	uint64_t hash = mix(mix(rid) ^ number) + kind;
	struct owner *o;

	for (struct link *l = *table_at(&f->owners, hash); l; l = l->next) {
		o = (struct owner *)l;
		if (o->rid == rid && o->kind == kind && o->number == number) {
			o->refs++;
			return o;
		}
	}
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->rid = rid;
	o->kind = kind;
	o->number = number;
	o->refs = 1;
	table_add(&f->owners, &o->link, hash);
	return o;
}

static void owner_put(struct advfsm *f, struct owner *o)
{
	if (--o->refs)
		return;
	assert(!o->waits);
	table_remove(&f->owners, &o->link);
	free(o);
}

struct holder **advobj_holder_find(struct file *file, uint64_t rid, uint64_t number)
{
	struct holder **at = &file->holders;

	while (*at && ((*at)->owner->rid != rid || (*at)->owner->number != number))
		at = &(*at)->next;
	return at;
}

struct holder *advobj_holder_make(struct advfsm *f, struct file *file, uint64_t rid, uint64_t number)
{
	struct holder *h = *advobj_holder_find(file, rid, number);

	if (h)
		return h;
	h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->owner = advobj_owner_get(f, rid, file->kind, number);
	if (!h->owner) {
		free(h);
		return NULL;
	}
	h->next = file->holders;
	file->holders = h;
	return h;
}

void advobj_holder_drop(struct advfsm *f, struct holder **at)
{
	struct holder *h = *at;

	*at = h->next;
	f->st.ranges -= h->have.nr;
	adv_ranges_clear(&h->have);
	adv_ranges_clear(&h->told);
	owner_put(f, h->owner);
	free(h);
}

void advobj_holder_drop_if_empty(struct advfsm *f, struct file *file, struct holder *h)
{
	struct holder **at = &file->holders;

	if (h->have.nr || h->told.nr)
		return;
	while (*at != h)
		at = &(*at)->next;
	advobj_holder_drop(f, at);
}

int advobj_holder_set(struct advfsm *f, struct holder *h, uint64_t first, uint64_t last, uint8_t type)
{
	uint32_t before = h->have.nr;
	int ret;

	if (type != ADV_UNLOCK && f->st.ranges >= ADVFSM_RANGES_MAX)
		return -ENOLCK;
	ret = adv_ranges_set(&h->have, first, last, type, ADV_OWNER_RANGES_MAX);
	f->st.ranges += h->have.nr;
	f->st.ranges -= before;
	return ret;
}

const struct adv_range *advobj_conflict(const struct file *file, uint64_t rid, uint64_t number, uint64_t first,
					uint64_t last, uint8_t type, const struct holder **who)
{
	const struct adv_range *lowest = NULL;

	for (const struct holder *h = file->holders; h; h = h->next) {
		const struct adv_range *r;

		if (h->owner->rid == rid && h->owner->number == number)
			continue;
		r = adv_ranges_conflict(&h->have, first, last, type);
		if (r && (!lowest || r->first < lowest->first)) {
			lowest = r;
			*who = h;
		}
	}
	return lowest;
}

bool advobj_is_blocked(const struct file *file, const struct owner *o, uint64_t first, uint64_t last,
		       uint8_t type)
{
	const struct holder *who;

	return advobj_conflict(file, o->rid, o->number, first, last, type, &who);
}

void advobj_waiter_drop(struct advfsm *f, struct waiter **at)
{
	struct waiter *w = *at, **of = &w->owner->waits;

	*at = w->next;
	while (*of && *of != w)
		of = &(*of)->next_of_owner;
	if (*of)
		*of = w->next_of_owner;
	f->st.waiting--;
	owner_put(f, w->owner);
	free(w);
}
