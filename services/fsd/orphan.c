/*
 * The end of inodes that nobody uses any more.
 *
 * One that lost its last link is deleted when it is in use nowhere: under the WRITE lock of its group no mount can begin to
 * use it, and the leader says who already does (runtime 10.3, 10.4).  Deleting goes in small transactions and may stop
 * anywhere: the orphan item goes with the inode, in the last of them, and the scan (orphan_scan.c) finds what was
 * left.  An inode is deleted by one operation at a time, and one operation deletes many of a group.
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
#include "orphan_impl.h"
#include "pending.h"
#include "thread.h"
#include "tmpfile.h"
#include "xattr.h"

#define DELETES_AT_ONCE		2	/* operations; while they run the next ones get company */
#define DELETE_BATCH		512	/* inodes in one */
#define DELETE_DELAY_MS		200	/* fewer than that wait so long for company */
#define DELETE_HURRY_MS		1000	/* for that long none waits for company, once somebody needs the space */
#define FORGET_MS		100	/* the kernel has by then let go of what was unlinked and is not open */
#define DELETE_LOOK		2048	/* doomed inodes looked at for them */
#define DELETE_STEP		8	/* extents or attribute items of an inode in one transaction */
#define DELETE_ITEMS_ONE	(XATTR_REMOVE_MAX(DELETE_STEP) + 16)	/* items an inode changes in one, at most */
#define DELETE_ITEMS		(DELETE_ITEMS_ONE + 144)	/* and all of them */
#define DELETE_LATER		1	/* the operation ends before its turn has come */
#define DRAIN_LIMIT_MS		60000

/* ---- whose turn it is ------------------------------------------------------------------------ */

void orphan_settle(struct orphans *o, struct ref *r)
{
	if (ref_is_used(r) || r->deleting)
		return;
	if (!r->unlinked) {
		ref_remove(o, r);
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

/*
 * Inodes of one group: one lock, one question to the leader and few transactions serve many.
 * A run goes on behind those that a committed part has done with.
 */
struct delete_op {
	struct op op;
	unsigned nr;
	unsigned first;		/* those before it are done with */
	unsigned next, next_part;	/* and before next, once part next_part is committed (op.h); 0: nothing */
	bool have_map;		/* of this hold of the lock */
	bool has_directories;
	int deleted_nr;		/* by this run */
	int map_err;
	uint8_t map[INODE_LOCK_GROUP / 8];
	struct {
		uint64_t ino;
		int err;	/* it cannot be deleted: runs pass it over */
		int ret;	/* of the last run: 0 gone, -EAGAIN not ours to delete, DELETE_LATER */
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
	r = ref_find(o, ino);
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
	if (ret == OP_MORE)	/* the last extents may have gone in this part, too: its counts say so */
		return inode_put(tx, ino, &ci, false) < 0 ? -EIO : OP_MORE;
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
	if (d->next_part && op->parts_nr >= d->next_part)
		d->first = d->next;
	d->next_part = 0;
	/* Others need the lock, or the mount ends: the rest is another operation's, or another mount's. */
	if (d->first && (lock_is_wanted(op) || atomic_load(&op->fsd->orphans->gives_up))) {
		for (unsigned i = d->first; i < d->nr; i++)
			d->inodes[i].ret = DELETE_LATER;
		return 0;
	}
	for (unsigned i = d->first; i < d->nr; i++) {
		if (d->inodes[i].err)
			continue;
		/* what one of them may still change must fit into what is held */
		ret = OP_MORE;
		if (tx->dirty_nr - began <= DELETE_ITEMS - DELETE_ITEMS_ONE) {
			ret = delete_inode(d, tx, d->inodes[i].ino);
			d->inodes[i].ret = ret;
		}
		if (ret == OP_MORE) {
			d->next = i;
			d->next_part = op->parts_nr + 1;
		}
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
		struct ref *r = ref_find(o, ino);

		if (ret == 0) {
			stats_inc(&op->fsd->stats.inode_deleted);
			pending_nobody_asks(ino);
		} else if (ret != DELETE_LATER && ret != -EAGAIN && ret != -EOPNOTSUPP && ret != -EPERM) {
			log_warning("inode %llu is unlinked but could not be deleted: %s: the "
				    "next scan for orphans tries again",
				    (unsigned long long)ino, strerror(-ret));
		}
		r->deleting = false;
		if (ret == 0 || (ret != DELETE_LATER && !ref_is_used(r)))
			r->unlinked = false;	/* gone, or left to the scan */
		orphan_settle(o, r);
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

/* Starts deletions: of many at a time, or when a few have waited for long enough. */
static void *reaper(void *arg)
{
	struct orphans *o = arg;
	uint64_t until;

	pthread_mutex_lock(&o->mutex);
	for (;;) {
		while (!o->stopping && (!o->doomed || o->gives_up || o->deleting_nr >= DELETES_AT_ONCE))
			pthread_cond_wait(&o->reap, &o->mutex);
		if (o->stopping)
			break;
		until = clock_mono_ns() + DELETE_DELAY_MS * NSEC_PER_MSEC;
		while (!o->stopping && !o->hurry && clock_mono_ns() >= o->hurry_until_ns &&
		       o->doomed_nr < DELETE_BATCH &&
		       clock_cond_wait(&o->reap, &o->mutex, until) != ETIMEDOUT)
			;
		if (!o->stopping && !o->gives_up && o->doomed && o->deleting_nr < DELETES_AT_ONCE)
			start_delete(o);
	}
	pthread_mutex_unlock(&o->mutex);
	return NULL;
}

/* ---- for the rest of fsd --------------------------------------------------------------------- */

static void free_orphans(struct orphans *o)
{
	pthread_cond_destroy(&o->cond);
	pthread_cond_destroy(&o->reap);
	pthread_mutex_destroy(&o->mutex);
	free(o);
}

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
	int ret;

	if (!o)
		return -ENOMEM;
	o->fsd = fsd;
	o->doomed_tail = &o->doomed;
	pthread_mutex_init(&o->mutex, NULL);
	pthread_cond_init(&o->cond, NULL);
	pthread_cond_init(&o->reap, NULL);
	ret = inuse_init(o);
	if (ret < 0)
		goto out_free;
	fsd->orphans = o;
	ret = thread_start(&o->scanner, "orphan scanner", orphan_scanner, o);
	if (ret < 0)
		goto out_table;
	ret = thread_start(&o->reaper, "deletions", reaper, o);
	if (ret == 0)
		return 0;
	end_thread(o, o->scanner);
out_table:
	fsd->orphans = NULL;
	free(o->seen);
	inuse_fini(o);
out_free:
	free_orphans(o);
	return ret;
}

/* Wait until nothing is being deleted, or the limit. */
static void wait_deletes(struct orphans *o, unsigned limit_ms)
{
	uint64_t end = clock_mono_ns() + limit_ms * NSEC_PER_MSEC;

	pthread_mutex_lock(&o->mutex);
	o->hurry = true;
	pthread_cond_signal(&o->reap);
	while ((o->deleting_nr || o->doomed) && clock_mono_ns() < end)
		clock_cond_wait(&o->cond, &o->mutex, end);
	atomic_store(&o->gives_up, true);
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
	inuse_forget_all(o);
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
}

void orphans_close(struct fsd *fsd)
{
	struct orphans *o = fsd->orphans;

	if (!o)
		return;
	inuse_fini(o);
	free(o->seen);
	free_orphans(o);
	fsd->orphans = NULL;
}

void inode_unlinked(struct fsd *fsd, uint64_t ino)
{
	struct orphans *o = fsd->orphans;
	struct ref *r;

	pthread_mutex_lock(&o->mutex);
	r = ref_find_or_add(o, ino);
	r->unlinked = true;
	o->unlinked_ns = clock_mono_ns();
	orphan_settle(o, r);
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
	r = ref_find(o, ino);
	if (r)
		r->unlinked = false;
	pthread_mutex_unlock(&o->mutex);
}
