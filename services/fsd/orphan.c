/*
 * Which inodes this mount uses, and the end of those that nobody uses any more.
 *
 * An inode is in use while the kernel remembers it (nlookup) or has it open; after a restart under
 * the same connection (fsd->is_resumed) the kernel is asked besides.  One that lost its last link is deleted when it is in use nowhere: under the WRITE lock of its group no mount can
 * begin to use it, and the leader says who already does (runtime 10.3, 10.4).  Deleting goes in
 * small transactions and may stop anywhere: the orphan item goes with the inode, in the last of them, and the
 * scan - at mount and from time to time - finds what was left.  An inode is deleted by one
 * operation at a time, and one operation deletes many of a group.
 */
#include "orphan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "data.h"
#include "fuse.h"
#include "locks.h"
#include "log.h"
#include "net.h"
#include "pending.h"
#include "reader.h"
#include "tmpfile.h"
#include "xattr.h"

#define BUCKETS_FIRST		4096u
#define DELETES_AT_ONCE		2	/* operations; while they run the next ones get company */
#define DELETE_BATCH		64	/* inodes in one */
#define DELETE_DELAY_MS		50	/* fewer than that wait so long for company */
#define DELETE_HURRY_MS		1000	/* for that long none waits for company, once somebody needs the space */
#define FORGET_MS		100	/* the kernel has by then let go of what was unlinked and is not open */
#define DELETE_LOOK		256	/* doomed inodes looked at for them */
#define DELETE_STEP		8	/* extents or attribute items of an inode in one transaction */
#define DELETE_ITEMS_ONE	(DELETE_STEP * 4 + 16)	/* items an inode changes in one, at most */
#define DELETE_ITEMS		(4 * DELETE_ITEMS_ONE)	/* and all of them */
#define SCAN_BATCH		4096	/* orphans taken from one scan */
#define SCAN_REST		50	/* a scan that took t is not repeated for SCAN_REST * t */
#define SCAN_AGAIN_MS		3000u	/* after the first one that found some */
#define DRAIN_LIMIT_MS		60000
#define TOLD_MS			10	/* by then the kernel has taken in what it was told */

/*
 * A message that drops what the kernel has of an inode also voids an answer with attributes that is on its way:
 * whoever asked then goes on with the size from before, and reads too little.  So after a revoke the first
 * answers, which bring the kernel the new size, are not to be trusted afterwards; then nothing has to be dropped.
 */
enum ref_trust {
	TRUSTED,
	REVOKED,	/* the kernel's attributes are from before a revoke */
	TOLD,		/* they have been sent since, at told_ns */
};

struct ref {
	struct ref *next;	/* in its bucket */
	struct ref *next_doomed;
	uint64_t ino;
	uint64_t nlookup;
	uint32_t opens;
	bool unlinked;		/* lost its last link: delete it when out of use */
	bool deleting;		/* queued or running */
	bool held;		/* the kernel knew it when it was asked (fsd->is_resumed) */
	bool given;		/* the kernel may have pages or attributes of it that it trusts */
	enum ref_trust trust;
	uint64_t told_ns;
};

struct orphans {
	struct fsd *fsd;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct ref **buckets;
	size_t buckets_nr, refs_nr;
	struct ref *doomed, **doomed_tail;
	size_t doomed_nr;
	unsigned deleting_nr;
	bool stopping;
	bool hurry;			/* do not wait for company */
	uint64_t hurry_until_ns;	/* nor until then */
	uint64_t unlinked_ns;		/* when an inode has last lost its last link */
	pthread_cond_t reap;
	pthread_t scanner, reaper;
	uint64_t *seen;		/* the scanner's: what its last scan has found, in order */
	size_t seen_nr;
	/* Read: an answer that gives something is on its way; written: what was given is to be dropped. */
	pthread_rwlock_t giving;
};

/* ---- the table; o->mutex is held ------------------------------------------------------------- */

static size_t bucket_of(const struct orphans *o, uint64_t ino)
{
	return (size_t)((ino * 0x9e3779b97f4a7c15ull) >> 20) & (o->buckets_nr - 1);
}

static struct ref *find(struct orphans *o, uint64_t ino)
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

static struct ref *find_or_add(struct orphans *o, uint64_t ino)
{
	struct ref *r = find(o, ino);
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

static void remove_ref(struct orphans *o, struct ref *r)
{
	struct ref **at = &o->buckets[bucket_of(o, r->ino)];

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	o->refs_nr--;
	free(r);
}

static bool in_use(const struct ref *r)
{
	return r->nlookup || r->opens || r->held;
}

/* After any change of r: it goes, or its inode does. */
static void settle(struct orphans *o, struct ref *r)
{
	if (in_use(r) || r->deleting)
		return;
	if (!r->unlinked) {
		remove_ref(o, r);
		return;
	}
	r->deleting = true;
	r->next_doomed = NULL;
	*o->doomed_tail = r;
	o->doomed_tail = &r->next_doomed;
	o->doomed_nr++;
	if (o->doomed_nr == 1 || o->doomed_nr == DELETE_BATCH)
		pthread_cond_signal(&o->reap);
}

/* ---- deleting inodes ------------------------------------------------------------------------- */

/*
 * Inodes of one group: one lock, one question to the leader and few transactions serve many.
 * A run looks at each of them from the first on: those that an earlier one deleted are not found.
 */
struct delete_op {
	struct op op;
	unsigned nr;
	bool have_map;		/* of this hold of the lock */
	bool has_directories;
	int deleted_nr;		/* by this run */
	int map_err;
	uint8_t map[INODE_LOCK_GROUP / 8];
	struct {
		uint64_t ino;
		int err;	/* it cannot be deleted: runs pass it over */
		int ret;	/* of the last run: 0 gone, -EAGAIN not ours to delete */
	} inodes[DELETE_BATCH];
};

/*
 * The kernel may know inodes from an earlier process's answers, which are not counted here.  Under
 * the lock of their group nobody begins to use an unlinked one.
 */
static void hold_known(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	if (!atomic_load(&fsd->is_resumed) || !kcache_knows(fsd, ino))
		return;
	pthread_mutex_lock(&o->mutex);
	r = find(o, ino);
	if (r)
		r->held = true;
	pthread_mutex_unlock(&o->mutex);
}

static void fetch_map(void *arg)
{
	struct delete_op *d = arg;

	for (unsigned i = 0; i < d->nr; i++)
		hold_known(d->op.fsd, d->inodes[i].ino);
	d->map_err = net_open_ino_map(d->op.fsd, d->inodes[0].ino / INODE_LOCK_GROUP, d->has_directories, d->map);
	d->have_map = true;
	op_wake(&d->op);
}

static void wait_map(struct op *op)
{
	ops_defer(op->fsd, fetch_map, op);
}

/* A kernel goes on knowing a directory by its name until its mount hears of the end. */
static int ask_for_map(struct delete_op *d, struct itx *tx)
{
	struct cinode ci;

	for (unsigned i = 0; i < d->nr && !d->has_directories; i++) {
		int ret = inode_get(tx, d->inodes[i].ino, &ci);

		if (ret == OP_PARKED)
			return ret;
		d->has_directories = ret == 0 && S_ISDIR(inode_mode(&ci));
	}
	return op_park(&d->op, wait_map);
}

static void wait_again(struct op *op)
{
	op_wake(op);
}

static int delete_symlink(struct itx *tx, uint64_t ino)
{
	struct key key = key_symlink(ino, 0), last = key_symlink(ino, UINT64_MAX);
	struct ival iv;
	int ret;

	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		key = key_next(iv.key);
		ret = item_delete(tx, &iv.key, NULL, 0);
		if (ret < 0)
			return ret;
	}
	return ret == -ENOENT ? 0 : ret;
}

/* 0: deleted, OP_MORE: a part of it, or it is not ours to delete (-EAGAIN). */
static int delete_inode(struct delete_op *d, struct itx *tx, uint64_t ino)
{
	unsigned bit = (unsigned)(ino % INODE_LOCK_GROUP);
	struct cinode ci;
	int ret;

	if (d->map[bit / 8] & 1u << bit % 8 || inode_in_use(tx->fsd, ino))
		return -EAGAIN;
	ret = inode_get(tx, ino, &ci);
	if (ret == -ENOENT)
		return 0;	/* an earlier run, or somebody else, did it */
	if (ret < 0)
		return ret;
	if (le32_get(ci.d.nlink) != 0)
		return -EAGAIN;
	ret = inode_may_delete(tx, ino, &ci);
	if (ret < 0)
		return ret;

	if (S_ISREG(inode_mode(&ci))) {
		ret = data_truncate_some(tx, ino, &ci, 0, DELETE_STEP);
		if (ret < 0)
			return ret;
		if (ret == OP_MORE)
			return inode_put(tx, ino, &ci, false) < 0 ? -EIO : OP_MORE;
	}
	ret = xattr_remove_some(tx, ino, DELETE_STEP);
	if (ret != 0)
		return ret;
	if (S_ISLNK(inode_mode(&ci))) {
		ret = delete_symlink(tx, ino);
		if (ret < 0)
			return ret;
	}
	ret = tmpfile_end(tx, ino);
	if (ret == 0)
		ret = inode_delete(tx, ino, &ci);
	if (ret == 0)
		d->deleted_nr++;
	return ret;
}

/* As delete_run, but how many are gone is only in d->deleted_nr. */
static int delete_some(struct op *op, struct itx *tx)
{
	struct delete_op *d = (struct delete_op *)op;
	uint64_t began = tx->dirty_nr;
	int ret;

	ret = txn_hold(op, tx, DELETE_ITEMS, false);
	if (ret == 0)
		ret = lock_inode(op, d->inodes[0].ino, LOCK_MODE_WRITE);
	if (ret < 0)
		return ret;
	if (!d->have_map)
		return ask_for_map(d, tx);
	if (d->map_err < 0)
		return d->map_err;
	for (unsigned i = 0; i < d->nr; i++) {
		if (d->inodes[i].err)
			continue;
		/* what one of them may still change must fit into what is held */
		if (tx->dirty_nr - began > DELETE_ITEMS - DELETE_ITEMS_ONE)
			return OP_MORE;
		ret = delete_inode(d, tx, d->inodes[i].ino);
		d->inodes[i].ret = ret;
		if (ret == OP_PARKED || ret == OP_MORE)
			return ret;
		if (ret < 0 && ret != -EAGAIN) {
			if (tx->err)
				return ret;
			/* a part of it may be in the transaction, which goes: again without it */
			d->inodes[i].err = ret;
			return op_park(op, wait_again);
		}
	}
	return 0;
}

static int delete_run(struct op *op, struct itx *tx)
{
	struct delete_op *d = (struct delete_op *)op;
	int ret, err = 0;

	d->deleted_nr = 0;
	ret = delete_some(op, tx);
	if (ret >= 0 && d->deleted_nr)
		err = txn_inode_count_add(tx, -d->deleted_nr);
	return err < 0 ? err : ret;
}

static void delete_done(struct op *op, int err)
{
	struct delete_op *d = (struct delete_op *)op;
	struct orphans *o = op->fsd->orphans;

	pthread_mutex_lock(&o->mutex);
	for (unsigned i = 0; i < d->nr; i++) {
		uint64_t ino = d->inodes[i].ino;
		int ret = err ? err : d->inodes[i].err ? d->inodes[i].err : d->inodes[i].ret;
		struct ref *r = find(o, ino);

		if (ret == 0) {
			stats_inc(&op->fsd->stats.inode_deleted);
			pending_nobody_asks(ino);
		} else if (ret != -EAGAIN && ret != -EOPNOTSUPP && ret != -EPERM) {
			log_warning("inode %llu is unlinked but could not be deleted: %s: the "
				    "next scan for orphans tries again",
				    (unsigned long long)ino, strerror(-ret));
		}
		r->deleting = false;
		if (ret == 0 || !in_use(r))
			r->unlinked = false;	/* gone, or left to the scan */
		settle(o, r);
	}
	o->deleting_nr--;
	pthread_cond_signal(&o->reap);
	pthread_cond_broadcast(&o->cond);
	pthread_mutex_unlock(&o->mutex);
	txn_freed(op->fsd);
	free(d);
}

/* Take the first of the doomed, and those of its group that are not far behind it. */
static void take_doomed(struct orphans *o, struct delete_op *d)
{
	struct ref **at = &o->doomed, *r;
	uint64_t group = o->doomed->ino / INODE_LOCK_GROUP;

	for (unsigned look = 0; (r = *at) && look < DELETE_LOOK && d->nr < DELETE_BATCH; look++) {
		if (r->ino / INODE_LOCK_GROUP != group) {
			at = &r->next_doomed;
			continue;
		}
		d->inodes[d->nr++].ino = r->ino;
		o->doomed_nr--;
		*at = r->next_doomed;
		if (!*at)
			o->doomed_tail = at;
	}
}

static void start_delete(struct orphans *o)
{
	struct delete_op *d = calloc(1, sizeof(*d));

	if (!d) {
		/* an inode that is not deleted now is left to the scan, as after a power cut */
		log_err("no memory to delete inodes: fsd ends, and its mount with it");
		abort();
	}
	take_doomed(o, d);
	d->op.fsd = o->fsd;
	d->op.name = "delete";
	d->op.writes = true;
	d->op.run = delete_run;
	d->op.notes_itself = true;
	d->op.done = delete_done;
	o->deleting_nr++;
	op_queue(&d->op);	/* o->mutex is held, and it will want it */
}

static struct timespec after_ms(uint64_t ms)
{
	uint64_t at = clock_mono_ns() + ms * NSEC_PER_MSEC;

	return (struct timespec){ .tv_sec = (time_t)(at / NSEC_PER_SEC),
				  .tv_nsec = (long)(at % NSEC_PER_SEC) };
}

/* Starts deletions: of many at a time, or when a few have waited for long enough. */
static void *reaper(void *arg)
{
	struct orphans *o = arg;
	struct timespec until;

	pthread_mutex_lock(&o->mutex);
	for (;;) {
		while (!o->stopping && (!o->doomed || o->deleting_nr >= DELETES_AT_ONCE))
			pthread_cond_wait(&o->reap, &o->mutex);
		if (o->stopping)
			break;
		until = after_ms(DELETE_DELAY_MS);
		while (!o->stopping && !o->hurry && clock_mono_ns() >= o->hurry_until_ns &&
		       o->doomed_nr < DELETE_BATCH &&
		       pthread_cond_timedwait(&o->reap, &o->mutex, &until) != ETIMEDOUT)
			;
		if (!o->stopping && o->doomed && o->deleting_nr < DELETES_AT_ONCE)
			start_delete(o);
	}
	pthread_mutex_unlock(&o->mutex);
	return NULL;
}

/* ---- the scan -------------------------------------------------------------------------------- */

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
		struct ref *r = find(o, s->inos[i]);

		if (r)
			r->held = false;	/* it is asked for again */
		if (r && (in_use(r) || r->deleting))
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
 * To try an orphan takes the lock of its group out of the hands of whoever works there, and all that his kernel has cached
 * under it.  So one whose end is only a moment away is left to the mount that has unlinked it: an orphan must be there in two
 * scans, unless there are too many to have come about in between; and one that is in use to its user.  Both are looked at
 * again under the lock.  Whether some were left for being too new; how long reading took, without the question who
 * uses them, which waits for mounts.
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
		struct ref *r = find(o, inos[i]);

		if (r && (in_use(r) || r->deleting))
			continue;
		r = find_or_add(o, inos[i]);
		r->unlinked = true;
		stats_inc(&o->fsd->stats.orphan_scan_attempts);
		settle(o, r);
	}
	pthread_mutex_unlock(&o->mutex);
	free(inos);
	free(o->seen);
	o->seen = s.inos;
	o->seen_nr = s.nr;
	return left;
}

static void *scanner(void *arg)
{
	struct orphans *o = arg;
	bool is_first = true;

	pthread_mutex_lock(&o->mutex);
	while (!o->stopping) {
		uint64_t took, rest;
		struct timespec until;

		pthread_mutex_unlock(&o->mutex);
		rest = o->fsd->conf.orphan_scan_delay_ms * NSEC_PER_MSEC;
		/* What a mount before this one has left need not wait long. */
		if (scan(o, &took) && is_first && rest > SCAN_AGAIN_MS * NSEC_PER_MSEC)
			rest = SCAN_AGAIN_MS * NSEC_PER_MSEC;
		is_first = false;
		if (rest < took * SCAN_REST)
			rest = took * SCAN_REST;
		pthread_mutex_lock(&o->mutex);
		until = after_ms(rest / NSEC_PER_MSEC);
		while (!o->stopping &&
		       pthread_cond_timedwait(&o->cond, &o->mutex, &until) != ETIMEDOUT)
			;
	}
	pthread_mutex_unlock(&o->mutex);
	return NULL;
}

/* ---- for the rest of fsd --------------------------------------------------------------------- */

static void end_thread(struct orphans *o, pthread_t thread)
{
	pthread_mutex_lock(&o->mutex);
	o->stopping = true;
	pthread_cond_broadcast(&o->cond);
	pthread_cond_broadcast(&o->reap);
	pthread_mutex_unlock(&o->mutex);
	pthread_join(thread, NULL);
}

int orphans_start(struct fsd *fsd)
{
	struct orphans *o = calloc(1, sizeof(*o));
	pthread_rwlockattr_t rwattr;
	pthread_condattr_t attr;
	int ret;

	if (!o)
		return -ENOMEM;
	o->fsd = fsd;
	o->doomed_tail = &o->doomed;
	o->buckets_nr = BUCKETS_FIRST;
	o->buckets = calloc(o->buckets_nr, sizeof(*o->buckets));
	if (o->buckets)
		find_or_add(o, ROOT_INO)->nlookup = 1;	/* known without a look-up */
	pthread_mutex_init(&o->mutex, NULL);
	pthread_rwlockattr_init(&rwattr);
	/* readers all the time must not keep a revoke waiting */
	pthread_rwlockattr_setkind_np(&rwattr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&o->giving, &rwattr);
	pthread_rwlockattr_destroy(&rwattr);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&o->cond, &attr);
	pthread_cond_init(&o->reap, &attr);
	pthread_condattr_destroy(&attr);
	fsd->orphans = o;
	ret = o->buckets ? -pthread_create(&o->scanner, NULL, scanner, o) : -ENOMEM;
	if (ret == 0) {
		ret = -pthread_create(&o->reaper, NULL, reaper, o);
		if (ret < 0)
			end_thread(o, o->scanner);
	}
	if (ret < 0) {
		fsd->orphans = NULL;
		free(o->buckets);
		free(o);
	}
	return ret;
}

/* Wait until nothing is being deleted, or the limit. */
static void wait_deletes(struct orphans *o, unsigned limit_ms)
{
	uint64_t end = clock_mono_ns() + limit_ms * NSEC_PER_MSEC;
	struct timespec until = { .tv_sec = (time_t)(end / NSEC_PER_SEC),
				  .tv_nsec = (long)(end % NSEC_PER_SEC) };

	pthread_mutex_lock(&o->mutex);
	o->hurry = true;
	pthread_cond_signal(&o->reap);
	while ((o->deleting_nr || o->doomed) && clock_mono_ns() < end)
		pthread_cond_timedwait(&o->cond, &o->mutex, &until);
	if (o->doomed || o->deleting_nr)
		log_notice("unlinked inodes are left for the next mount's scan to delete");
	while (o->doomed) {
		struct ref *r = o->doomed;

		o->doomed = r->next_doomed;
		r->deleting = false;
	}
	o->doomed_tail = &o->doomed;
	o->doomed_nr = 0;
	while (o->deleting_nr)
		pthread_cond_wait(&o->cond, &o->mutex);
	pthread_mutex_unlock(&o->mutex);
}

void orphans_drain(struct fsd *fsd)
{
	struct orphans *o = fsd->orphans;

	atomic_store(&fsd->is_resumed, false);
	pthread_mutex_lock(&o->mutex);
	for (size_t i = 0; i < o->buckets_nr; i++) {
		for (struct ref *r = o->buckets[i], *next; r; r = next) {
			next = r->next;
			r->nlookup = r->opens = 0;
			r->held = false;
			settle(o, r);
		}
	}
	pthread_mutex_unlock(&o->mutex);
	wait_deletes(o, DRAIN_LIMIT_MS);
}

void orphans_stop(struct fsd *fsd)
{
	struct orphans *o = fsd->orphans;

	if (!o)
		return;
	end_thread(o, o->scanner);
	end_thread(o, o->reaper);
	wait_deletes(o, 0);
	for (size_t i = 0; i < o->buckets_nr; i++) {
		for (struct ref *r = o->buckets[i], *next; r; r = next) {
			next = r->next;
			free(r);
		}
	}
	free(o->buckets);
	free(o->seen);
	pthread_cond_destroy(&o->cond);
	pthread_cond_destroy(&o->reap);
	pthread_rwlock_destroy(&o->giving);
	pthread_mutex_destroy(&o->mutex);
	free(o);
	fsd->orphans = NULL;
}

void inode_ref(struct fsd *fsd, uint64_t ino, uint64_t nr)
{
	struct orphans *o = fsd->orphans;

	pthread_mutex_lock(&o->mutex);
	find_or_add(o, ino)->nlookup += nr;
	pthread_mutex_unlock(&o->mutex);
}

void inode_forget(struct fsd *fsd, uint64_t ino, uint64_t nr)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_mutex_lock(&o->mutex);
	r = find(o, ino);
	if (r) {
		r->nlookup -= nr < r->nlookup ? nr : r->nlookup;
		r->held = false;
		settle(o, r);
	}
	pthread_mutex_unlock(&o->mutex);
}

void inode_open(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;

	pthread_mutex_lock(&o->mutex);
	find_or_add(o, ino)->opens++;
	pthread_mutex_unlock(&o->mutex);
}

void inode_release(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_mutex_lock(&o->mutex);
	r = find(o, ino);
	if (r && r->opens) {
		r->opens--;
		settle(o, r);
	}
	pthread_mutex_unlock(&o->mutex);
}

bool inode_in_use(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;
	bool used;

	pthread_mutex_lock(&o->mutex);
	r = find(o, ino);
	used = r && in_use(r);
	pthread_mutex_unlock(&o->mutex);
	return used;
}

void inode_unlinked(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_mutex_lock(&o->mutex);
	r = find_or_add(o, ino);
	r->unlinked = true;
	o->unlinked_ns = clock_mono_ns();
	settle(o, r);
	pthread_mutex_unlock(&o->mutex);
}

bool inode_deletes_hurry(struct fsd *fsd)
{
	struct orphans *o = fsd->orphans;
	uint64_t now;
	bool some;

	pthread_mutex_lock(&o->mutex);
	now = clock_mono_ns();	/* not before unlinked_ns */
	some = o->doomed || o->deleting_nr ||
	       (o->unlinked_ns && now - o->unlinked_ns < FORGET_MS * NSEC_PER_MSEC);
	if (some) {
		o->hurry_until_ns = now + DELETE_HURRY_MS * NSEC_PER_MSEC;
		pthread_cond_signal(&o->reap);
	}
	pthread_mutex_unlock(&o->mutex);
	return some;
}

void inode_linked(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_mutex_lock(&o->mutex);
	r = find(o, ino);
	if (r)
		r->unlinked = false;
	pthread_mutex_unlock(&o->mutex);
}

void inode_use_map(struct fsd *fsd, uint64_t group, uint8_t map[INODE_LOCK_GROUP / 8])
{
	struct orphans *o = fsd->orphans;

	memset(map, 0, INODE_LOCK_GROUP / 8);
	if (!o)
		return;
	pthread_mutex_lock(&o->mutex);
	for (unsigned bit = 0; bit < INODE_LOCK_GROUP; bit++) {
		struct ref *r = find(o, group * INODE_LOCK_GROUP + bit);

		if (r && in_use(r))
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

/* each() may wait for the kernel, which may wait for a thread that wants the mutex: not held. */
/* Bring an inode into the state after a revoke.  Whether the kernel has something to drop; `last`: it is told now. */
static bool revoke_ref(struct ref *r, bool all, bool last)
{
	bool drop = all || r->given;

	r->trust = REVOKED;
	if (last)
		r->given = false;
	return drop;
}

static void each_ref_at_all(struct orphans *o, void (*each)(void *arg, uint64_t ino), void *arg)
{
	uint64_t *found = NULL;
	size_t nr = 0;

	pthread_mutex_lock(&o->mutex);
	found = malloc((o->refs_nr + 1) * sizeof(*found));
	for (size_t b = 0; found && b < o->buckets_nr; b++) {
		for (struct ref *r = o->buckets[b]; r; r = r->next) {
			if (in_use(r) && revoke_ref(r, true, false))
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
			struct ref *r = find(o, first + at);
			bool drop = r && in_use(r) && revoke_ref(r, all, told);

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
	r = find(o, pages_of);
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
	r = find(o, ino);
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
