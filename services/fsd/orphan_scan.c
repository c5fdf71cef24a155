/*
 * The scan for orphans: at mount and from time to time, for what a deletion has left that stopped half way, or another
 * mount that is no more.
 *
 * To try an orphan takes the lock of its group out of the hands of whoever works there, and all that his kernel has cached
 * under it.  So one whose end is only a moment away is left to the mount that has unlinked it: an orphan must be there in
 * two scans, unless there are too many to have come about in between; and one that is in use to its user.  Both are
 * looked at again under the lock.
 */
#include "orphan_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "net.h"
#include "reader.h"

#define SCAN_BATCH		4096	/* orphans taken from one scan */
#define SCAN_REST		50	/* a scan that took t is not repeated for SCAN_REST * t */
#define SCAN_AGAIN_MS		3000u	/* after the first one that found some */

struct scan {
	uint64_t *inos;
	size_t nr;
};

static int scan_item(void *arg, const struct item *it)
{
	struct scan *s = arg;

	if (it->key.type == TYPE_ORPHAN)
		s->inos[s->nr++] = it->key.second;
	return s->nr == SCAN_BATCH;
}

static bool was_seen(const struct orphans *o, uint64_t ino)
{
	size_t lo = 0, hi = o->seen_nr;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (o->seen[mid] < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < o->seen_nr && o->seen[lo] == ino;
}

/* Of the orphans found those that this mount may have to end, in their order; how many were left for being too new. */
static size_t choose(struct orphans *o, const struct scan *s, uint64_t *inos, size_t *nr)
{
	size_t recent = 0;

	*nr = 0;
	pthread_mutex_lock(&o->mutex);
	for (size_t i = 0; i < s->nr; i++) {
		struct ref *r = ref_find(o, s->inos[i]);

		/* It is asked for again, but not while a deletion that has asked is on its way: that trusts the answer. */
		if (r && !r->deleting)
			r->held = false;
		if (r && (ref_is_used(r) || r->deleting))
			continue;
		if (!r && s->nr < SCAN_BATCH && !was_seen(o, s->inos[i]))
			recent++;
		else
			inos[(*nr)++] = s->inos[i];
	}
	pthread_mutex_unlock(&o->mutex);
	stats_add(&o->fsd->stats.orphan_scan_recent, recent);
	return recent;
}

static bool is_stopping(struct orphans *o)
{
	bool is;

	pthread_mutex_lock(&o->mutex);
	is = o->stopping;
	pthread_mutex_unlock(&o->mutex);
	return is;
}

/* Without those that another mount uses; without any when nobody can say, or this mount leaves. */
static size_t leave_used(struct orphans *o, uint64_t *inos, size_t nr)
{
	uint64_t group = 0;
	uint8_t map[128];
	bool has_map = false;
	size_t left = 0;

	for (size_t i = 0; i < nr; i++) {
		unsigned bit = (unsigned)(inos[i] % INODE_LOCK_GROUP);

		if (!has_map || inos[i] / INODE_LOCK_GROUP != group) {
			group = inos[i] / INODE_LOCK_GROUP;
			if (is_stopping(o) || net_open_ino_map(o->fsd, group, false, map) < 0)
				return left;
			has_map = true;
		}
		if (map[bit / 8] & 1u << bit % 8)
			stats_inc(&o->fsd->stats.orphan_scan_omap_set);
		else
			inos[left++] = inos[i];
	}
	return left;
}

/*
 * Whether some were left for being too new; how long reading took, without the question who uses them, which waits for
 * mounts.
 */
static bool scan(struct orphans *o, uint64_t *took)
{
	struct key start = key_orphan(0), end = key_orphan(UINT64_MAX);
	struct scan s = { .inos = calloc(SCAN_BATCH, sizeof(*s.inos)) };
	uint64_t *inos = calloc(SCAN_BATCH, sizeof(*inos)), began = clock_mono_ns();
	bool left;
	size_t nr;
	int ret;

	*took = 0;
	if (!s.inos || !inos) {
		free(s.inos);
		free(inos);
		return false;
	}
	stats_inc(&o->fsd->stats.orphan_scan);
	ret = reader_iter(o->fsd, &start, &end, scan_item, &s, NULL);
	*took = clock_mono_ns() - began;
	if (ret < 0 && ret != -ESHUTDOWN) {
		stats_inc(&o->fsd->stats.orphan_scan_error);
		log_warning("cannot look for orphans: %s: it is tried again", strerror(-ret));
	}
	if (ret == 0 && s.nr == 0)
		stats_inc(&o->fsd->stats.orphan_scan_empty);
	left = choose(o, &s, inos, &nr);
	nr = leave_used(o, inos, nr);
	pthread_mutex_lock(&o->mutex);
	for (size_t i = 0; i < nr && !o->stopping; i++) {
		struct ref *r = ref_find(o, inos[i]);

		if (r && (ref_is_used(r) || r->deleting))
			continue;
		r = ref_find_or_add(o, inos[i]);
		r->unlinked = true;
		stats_inc(&o->fsd->stats.orphan_scan_attempts);
		orphan_settle(o, r);
	}
	pthread_mutex_unlock(&o->mutex);
	free(inos);
	free(o->seen);
	o->seen = s.inos;
	o->seen_nr = s.nr;
	return left;
}

void *orphan_scanner(void *arg)
{
	struct orphans *o = arg;
	bool is_first = true;

	pthread_mutex_lock(&o->mutex);
	while (!o->stopping) {
		uint64_t took, rest, until;

		pthread_mutex_unlock(&o->mutex);
		rest = o->fsd->conf.orphan_scan_delay_ms * NSEC_PER_MSEC;
		/* What a mount before this one has left need not wait long. */
		if (scan(o, &took) && is_first && rest > SCAN_AGAIN_MS * NSEC_PER_MSEC)
			rest = SCAN_AGAIN_MS * NSEC_PER_MSEC;
		is_first = false;
		if (rest < took * SCAN_REST)
			rest = took * SCAN_REST;
		pthread_mutex_lock(&o->mutex);
		until = clock_mono_ns() + rest;
		while (!o->stopping &&
		       clock_cond_wait(&o->cond, &o->mutex, until) != ETIMEDOUT)
			;
	}
	pthread_mutex_unlock(&o->mutex);
	return NULL;
}
