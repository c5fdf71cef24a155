/*
 * Which inodes this mount uses, and what its kernel was given of them.
 *
 * An inode is in use while the kernel remembers it (nlookup) or has it open; after a restart under the same connection
 * (fsd->is_resumed) the kernel is asked besides.  Every inode in use is in the table: one that is not counted could be
 * deleted under its user, so without memory for it fsd ends.  What becomes of one that is no longer in use is
 * orphan.c's to say.
 *
 * A message that drops what the kernel has of an inode also voids an answer with attributes that is on its way:
 * whoever asked then goes on with the size from before, and reads too little.  So after a revoke the first
 * answers, which bring the kernel the new size, are not to be trusted afterwards; then nothing has to be dropped.
 */
#include "inuse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "fuse.h"
#include "locks.h"
#include "log.h"
#include "orphan_impl.h"

#define BUCKETS_FIRST		4096u
#define TOLD_MS			10	/* by then the kernel has taken in what it was told */

/* ---- the table ------------------------------------------------------------------------------- */

static size_t bucket_of(const struct orphans *o, uint64_t ino)
{
	return (size_t)((ino * 0x9e3779b97f4a7c15ull) >> 20) & (o->buckets_nr - 1);
}

struct ref *ref_find(struct orphans *o, uint64_t ino)
{
	struct ref *r = o->buckets[bucket_of(o, ino)];

	while (r && r->ino != ino)
		r = r->next;
	return r;
}

static void grow(struct orphans *o)
{
	struct ref **old = o->buckets, **bigger = calloc(o->buckets_nr * 2, sizeof(*bigger));
	size_t old_nr = o->buckets_nr;

	if (!bigger)
		return;		/* slower, not wrong */
	o->buckets = bigger;
	o->buckets_nr *= 2;
	for (size_t i = 0; i < old_nr; i++) {
		for (struct ref *r = old[i], *next; r; r = next) {
			size_t b = bucket_of(o, r->ino);

			next = r->next;
			r->next = o->buckets[b];
			o->buckets[b] = r;
		}
	}
	free(old);
}

struct ref *ref_find_or_add(struct orphans *o, uint64_t ino)
{
	struct ref *r = ref_find(o, ino);
	size_t b;

	if (r)
		return r;
	r = calloc(1, sizeof(*r));
	if (!r) {
		/* an inode in use that is not counted could be deleted under its user */
		log_err("no memory to count the inodes in use: fsd ends, and its mount with it");
		abort();
	}
	if (o->refs_nr >= o->buckets_nr)
		grow(o);
	b = bucket_of(o, ino);
	r->ino = ino;
	r->given = true;
	r->next = o->buckets[b];
	o->buckets[b] = r;
	o->refs_nr++;
	return r;
}

void ref_remove(struct orphans *o, struct ref *r)
{
	struct ref **at = &o->buckets[bucket_of(o, r->ino)];

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	o->refs_nr--;
	free(r);
}

bool ref_is_used(const struct ref *r)
{
	return r->nlookup || r->opens || r->held;
}

int inuse_init(struct orphans *o)
{
	pthread_rwlockattr_t rwattr;

	o->buckets_nr = BUCKETS_FIRST;
	o->buckets = calloc(o->buckets_nr, sizeof(*o->buckets));
	if (!o->buckets)
		return -ENOMEM;
	ref_find_or_add(o, ROOT_INO)->nlookup = 1;	/* known without a look-up */
	pthread_rwlockattr_init(&rwattr);
	/* readers all the time must not keep a revoke waiting */
	pthread_rwlockattr_setkind_np(&rwattr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&o->giving, &rwattr);
	pthread_rwlockattr_destroy(&rwattr);
	return 0;
}

void inuse_fini(struct orphans *o)
{
	for (size_t i = 0; i < o->buckets_nr; i++) {
		for (struct ref *r = o->buckets[i], *next; r; r = next) {
			next = r->next;
			free(r);
		}
	}
	free(o->buckets);
	pthread_rwlock_destroy(&o->giving);
}

void inuse_forget_all(struct orphans *o)
{
	pthread_mutex_lock(&o->mutex);
	for (size_t i = 0; i < o->buckets_nr; i++) {
		for (struct ref *r = o->buckets[i], *next; r; r = next) {
			next = r->next;
			r->nlookup = r->opens = 0;
			r->held = false;
			orphan_settle(o, r);
		}
	}
	pthread_mutex_unlock(&o->mutex);
}

/* ---- for the rest of fsd --------------------------------------------------------------------- */

void inode_ref(struct fsd *fsd, uint64_t ino, uint64_t nr)
{
	struct orphans *o = fsd->orphans;

	pthread_mutex_lock(&o->mutex);
	ref_find_or_add(o, ino)->nlookup += nr;
	pthread_mutex_unlock(&o->mutex);
}

void inode_forget(struct fsd *fsd, uint64_t ino, uint64_t nr)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_mutex_lock(&o->mutex);
	r = ref_find(o, ino);
	if (r) {
		r->nlookup -= nr < r->nlookup ? nr : r->nlookup;
		r->held = false;
		orphan_settle(o, r);
	}
	pthread_mutex_unlock(&o->mutex);
}

void inode_open(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;

	pthread_mutex_lock(&o->mutex);
	ref_find_or_add(o, ino)->opens++;
	pthread_mutex_unlock(&o->mutex);
}

void inode_release(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_mutex_lock(&o->mutex);
	r = ref_find(o, ino);
	if (r && r->opens) {
		r->opens--;
		orphan_settle(o, r);
	}
	pthread_mutex_unlock(&o->mutex);
}

bool inode_in_use(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;
	bool used;

	pthread_mutex_lock(&o->mutex);
	r = ref_find(o, ino);
	used = r && ref_is_used(r);
	pthread_mutex_unlock(&o->mutex);
	return used;
}

void inode_use_map(struct fsd *fsd, uint64_t group, uint8_t map[INODE_LOCK_GROUP / 8])
{
	struct orphans *o = fsd->orphans;

	memset(map, 0, INODE_LOCK_GROUP / 8);
	if (!o)
		return;
	pthread_mutex_lock(&o->mutex);
	for (unsigned bit = 0; bit < INODE_LOCK_GROUP; bit++) {
		struct ref *r = ref_find(o, group * INODE_LOCK_GROUP + bit);

		if (r && ref_is_used(r))
			map[bit / 8] |= (uint8_t)(1u << bit % 8);
	}
	pthread_mutex_unlock(&o->mutex);
	if (!atomic_load(&fsd->is_resumed))
		return;
	for (unsigned bit = 0; bit < INODE_LOCK_GROUP; bit++) {
		if (!(map[bit / 8] & 1u << bit % 8) &&
		    kcache_knows(fsd, group * INODE_LOCK_GROUP + bit))
			map[bit / 8] |= (uint8_t)(1u << bit % 8);
	}
}

/* Bring an inode into the state after a revoke.  Whether the kernel has something to drop; `last`: it is told now. */
static bool revoke_ref(struct ref *r, bool all, bool last)
{
	bool drop = all || r->given;

	r->trust = REVOKED;
	if (last)
		r->given = false;
	return drop;
}

/* each() may wait for the kernel, which may wait for a thread that wants the mutex: not held. */
static void each_ref_at_all(struct orphans *o, void (*each)(void *arg, uint64_t ino), void *arg)
{
	uint64_t *found = NULL;
	size_t nr = 0;

	pthread_mutex_lock(&o->mutex);
	found = malloc((o->refs_nr + 1) * sizeof(*found));
	for (size_t b = 0; found && b < o->buckets_nr; b++) {
		for (struct ref *r = o->buckets[b]; r; r = r->next) {
			if (ref_is_used(r) && revoke_ref(r, true, false))
				found[nr++] = r->ino;
		}
	}
	pthread_mutex_unlock(&o->mutex);
	if (!found)
		fsd_fail(o->fsd, "out of memory");
	for (size_t i = 0; i < nr; i++)
		each(arg, found[i]);
	free(found);
}

void inode_each_ref(struct fsd *fsd, uint64_t first, uint64_t last, bool all, bool told,
		    void (*each)(void *arg, uint64_t ino), void *arg)
{
	struct orphans *o = fsd->orphans;
	uint64_t found[64];

	if (!o)
		return;
	if (last - first >= UINT64_MAX - 64) {
		each_ref_at_all(o, each, arg);
		return;
	}
	/* counted, not compared: last may be the greatest number there is */
	for (uint64_t at = 0, end = last - first + 1; at < end;) {
		unsigned nr = 0;

		if (told)
			pthread_rwlock_wrlock(&o->giving);
		pthread_mutex_lock(&o->mutex);
		for (; at < end && nr < 64; at++) {
			struct ref *r = ref_find(o, first + at);
			bool drop = r && ref_is_used(r) && revoke_ref(r, all, told);

			/* what an earlier process has given is not known here */
			if (drop || (atomic_load(&fsd->is_resumed) && !(r && r->nlookup)))
				found[nr++] = first + at;
		}
		pthread_mutex_unlock(&o->mutex);
		if (told)
			pthread_rwlock_unlock(&o->giving);
		for (unsigned i = 0; i < nr; i++)
			each(arg, found[i]);
	}
}

void inode_give_begin(struct fsd *fsd, uint64_t pages_of)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_rwlock_rdlock(&o->giving);
	if (!pages_of)
		return;
	pthread_mutex_lock(&o->mutex);
	r = ref_find(o, pages_of);
	if (r)
		r->given = true;
	pthread_mutex_unlock(&o->mutex);
}

void inode_give_end(struct fsd *fsd)
{
	pthread_rwlock_unlock(&fsd->orphans->giving);
}

double inode_attr_timeout(struct fsd *fsd, uint64_t ino)
{
	double timeout = lock_kernel_timeout(fsd, ino);
	struct orphans *o = fsd->orphans;
	uint64_t now;
	struct ref *r;

	if (timeout == 0.0)
		return timeout;
	now = clock_mono_ns();
	pthread_mutex_lock(&o->mutex);
	r = ref_find(o, ino);
	if (r && r->trust == REVOKED) {
		r->trust = TOLD;
		r->told_ns = now;
	}
	if (r && r->trust == TOLD && now - r->told_ns < TOLD_MS * NSEC_PER_MSEC) {
		timeout = 0.0;
	} else if (r) {
		r->trust = TRUSTED;
		r->given = true;
	}
	pthread_mutex_unlock(&o->mutex);
	return timeout;
}
