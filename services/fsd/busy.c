/*
 * Requests about the data of files that have no answer yet.
 *
 * Why they have to be known: a revoke drops pages, and the call that does so waits for each that is locked.  A request that
 * waits for the lock which is revoked would never let it go on.  But a page that is locked for such a request is not up to date:
 * no mapping shows it.  So it can be left out, and must be, while all others are dropped (notifier.c, kcache.c).
 *  - READ: all its pages are locked; the one of a symbolic link, too, during READLINK.
 *  - READ of a descriptor with O_DIRECT: none, or as above; that turns out when one tries to drop them.
 *  - WRITE: the kernel copies into page after page and lets each go that it has in full; the first that it lacks the rest of
 *    stays locked, and ends the request.  So it may be the last page, where the request covers it in part; whether it is, turns
 *    out when one tries to drop it.
 *  - WRITE past the cache (FH_PAST_CACHE): none.
 *  - What the kernel writes back from a mapping has pages that are up to date, and has to be waited for.
 * The kernel locks folios.  Those of a FUSE file are single pages up to Linux 6.18 (seen in /proc/kpageflags); of greater ones
 * more than what is said here would be locked.  What was stored to them does not depend on it (mapped.c).
 *
 * A page in the cache has the bytes of a write(2) before we have applied, or even seen, the WRITE.  When such a page is written
 * back, busy_each_write() tells which of its bytes are in truth those of the write (mapped.c).  And when it was dropped by a
 * revoke meanwhile, a read of it waits for the write: nobody else would bring the bytes into the new page.
 */
#include "busy.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "clock.h"
#include "locks.h"

#define BUCKETS		64u

static struct bucket {
	pthread_mutex_t mutex;
	struct busy *list;
	struct op *waiting;	/* reads */
} buckets[BUCKETS] = { [0 ... BUCKETS - 1] = { .mutex = PTHREAD_MUTEX_INITIALIZER } };

static bool is_write(const struct busy *b)
{
	return b->kind == BUSY_WRITE || b->kind == BUSY_PAST;
}

static struct bucket *bucket_of(uint64_t ino)
{
	return &buckets[(ino * 0x9e3779b97f4a7c15ull >> 32) % BUCKETS];
}

void busy_begin(struct busy *b, enum busy_kind kind, uint64_t ino, uint64_t offset, uint64_t len, const void *data)
{
	struct bucket *k = bucket_of(ino);

	*b = (struct busy){ .kind = kind, .ino = ino, .offset = offset, .len = len, .data = data };
	pthread_mutex_lock(&k->mutex);
	b->since_ns = clock_mono_ns();	/* who has not seen it on the list looked before that */
	b->next = k->list;
	k->list = b;
	pthread_mutex_unlock(&k->mutex);
}

void busy_end(struct busy *b)
{
	struct bucket *k = bucket_of(b->ino);
	struct op *wake = NULL, *next;
	struct busy **at = &k->list;

	pthread_mutex_lock(&k->mutex);
	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	if (is_write(b)) {
		wake = k->waiting;
		k->waiting = NULL;
	}
	pthread_mutex_unlock(&k->mutex);
	for (; wake; wake = next) {
		next = wake->next;
		wake->next = NULL;
		op_wake(wake);
	}
}

static bool is_written(const struct bucket *k, const struct busy *read)
{
	uint64_t first = read->offset >> SMALL_SHIFT, last = (read->offset + read->len - 1) >> SMALL_SHIFT;

	for (const struct busy *b = k->list; b; b = b->next) {
		if (b->ino == read->ino && is_write(b) && b->offset >> SMALL_SHIFT <= last &&
		    (b->offset + b->len - 1) >> SMALL_SHIFT >= first)
			return true;
	}
	return false;
}

static void wait_write(struct op *op)
{
	struct busy *b = op->need.ptr;
	struct bucket *k = bucket_of(b->ino);
	bool waits;

	op->cancel = NULL;
	lock_unuse(op);	/* the write may need what a revoke of them waits to give up */
	pthread_mutex_lock(&k->mutex);
	waits = is_written(k, b);
	if (waits) {
		op->next = k->waiting;
		k->waiting = op;
	}
	pthread_mutex_unlock(&k->mutex);
	if (!waits)
		op_wake(op);
}

int busy_wait_writes(struct op *op, struct busy *b)
{
	struct bucket *k = bucket_of(b->ino);
	bool waits;

	pthread_mutex_lock(&k->mutex);
	waits = is_written(k, b);
	pthread_mutex_unlock(&k->mutex);
	op->need.ptr = b;
	return waits ? op_park(op, wait_write) : 0;
}

/* False: none is locked. */
static bool locked_pages(const struct busy *b, struct busy_pages *p)
{
	uint64_t end = b->offset + b->len;

	if (!b->len || b->kind == BUSY_BACK || b->kind == BUSY_PAST)
		return false;
	*p = (struct busy_pages){ b->offset >> SMALL_SHIFT, (end - 1) >> SMALL_SHIFT, false };
	if (b->kind == BUSY_READ)
		return true;
	if (b->kind == BUSY_DIRECT)
		return b->is_locked;
	if (!(end & (SMALL_SIZE - 1)) && b->offset <= p->last << SMALL_SHIFT)
		return false;
	p->first = p->last;
	p->maybe = !b->is_locked;
	return true;
}

static int pages_cmp(const void *a, const void *b)
{
	const struct busy_pages *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Make one of those that overlap or touch; the number that is left. */
static int join(struct busy_pages *p, int nr)
{
	int out = 0;

	if (nr == 0)
		return 0;
	qsort(p, (size_t)nr, sizeof(*p), pages_cmp);
	for (int i = 1; i < nr; i++) {
		if (p[i].first > p[out].last + 1 || (p[i].first > p[out].last && p[i].maybe != p[out].maybe)) {
			p[++out] = p[i];
			continue;
		}
		/* who has it locked for certain knows it */
		p[out].maybe = p[out].maybe && p[i].maybe;
		if (p[i].last > p[out].last)
			p[out].last = p[i].last;
	}
	return out + 1;
}

int busy_pages(uint64_t ino, struct busy_pages **out)
{
	struct bucket *k = bucket_of(ino);
	struct busy_pages *p = NULL;
	int nr = 0, max = 0;

	pthread_mutex_lock(&k->mutex);
	for (struct busy *b = k->list; b; b = b->next)
		max += b->ino == ino;
	if (max)
		p = malloc((size_t)max * sizeof(*p));
	for (struct busy *b = k->list; p && b; b = b->next) {
		if (b->ino == ino && locked_pages(b, &p[nr]))
			nr++;
	}
	pthread_mutex_unlock(&k->mutex);
	if (max && !p)
		return -ENOMEM;
	*out = p;
	return join(p, nr);
}

bool busy_has_begun(uint64_t ino, uint64_t since_ns, bool all_read)
{
	struct bucket *k = bucket_of(ino);
	bool found = false, written_back = false;
	struct busy_pages p;

	pthread_mutex_lock(&k->mutex);
	for (struct busy *b = k->list; b; b = b->next) {
		found |= b->ino == ino && b->since_ns >= since_ns && locked_pages(b, &p);
		written_back |= b->ino == ino && b->kind == BUSY_BACK;
	}
	/* When nothing else explains it: a fault, or the rest of a direct read that went through the cache. */
	for (struct busy *b = k->list; b && !found && all_read && !written_back; b = b->next) {
		if (b->ino == ino && b->kind == BUSY_DIRECT && !b->is_locked)
			found = b->is_locked = true;
	}
	pthread_mutex_unlock(&k->mutex);
	return found;
}

bool busy_found_locked(uint64_t ino, uint64_t page)
{
	struct bucket *k = bucket_of(ino);
	struct busy_pages p;
	bool found = false, written_back = false;

	pthread_mutex_lock(&k->mutex);
	for (struct busy *b = k->list; b; b = b->next) {
		if (b->ino == ino && b->kind == BUSY_BACK)
			written_back |= b->offset >> SMALL_SHIFT <= page && (b->offset + b->len - 1) >> SMALL_SHIFT >= page;
	}
	for (struct busy *b = k->list; b && !written_back; b = b->next) {
		if (b->ino == ino && locked_pages(b, &p) && p.first <= page && page <= p.last)
			found = b->is_locked = true;
	}
	pthread_mutex_unlock(&k->mutex);
	return found;
}

void busy_each_write(uint64_t ino, void (*each)(void *arg, const struct busy *b), void *arg)
{
	struct bucket *k = bucket_of(ino);

	pthread_mutex_lock(&k->mutex);
	for (struct busy *b = k->list; b; b = b->next) {
		if (b->ino == ino && b->kind == BUSY_WRITE)
			each(arg, b);
	}
	pthread_mutex_unlock(&k->mutex);
}
