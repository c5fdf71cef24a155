/*
 * Directories that another node has removed while they are somebody's working directory here.
 *
 * Promise: getcwd(2) in such a directory fails soon after, without that anybody looks for its name.  The kernel answers it alone,
 * by the name that it was given; that is taken away.
 *
 * Who has removed a directory asks before it deletes the inode who else uses that, and says that there are directories among
 * what it wants to delete: only then is there anything to tell, and only the group of the inode is known.  So all directories
 * of the group that the kernel has a name of are looked at, in a moment, and the more there are the less often: that takes the
 * lock from the one that deletes.  What is not told (the node that has removed it still uses it, this process is not the one
 * that gave the name) is found when somebody looks for the name.
 *
 * Telling waits, uninterruptibly, for the directory above, which the kernel has locked for some requests until they are
 * answered; and a process of which a thread waits so cannot die.  So this has a thread of its own; nothing is told while such
 * an operation is parked, or one for the directory itself (who removes that has both), or requests are there that nobody has
 * looked at; and before a restart it ends while requests are still read.  What is left is a request that comes just then and
 * waits for long, and a process that is killed just then.  No other message does better: all that take a name away lock the
 * directory above.  FUSE_NOTIFY_DELETE locks the removed one besides, and one that lets a name only expire leaves getcwd as it is.
 */
#include "gonedir.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "fuse.h"
#include "locks.h"
#include "log.h"
#include "ops_attr.h"
#include "ops_dir.h"
#include "orphan.h"
#include "thread.h"

#define BUCKETS_FIRST	64u
#define SEEN_BITS	22u	/* of the hash of an inode */
#define GROUPS_MAX	64u	/* more are looked at when they are asked for again */
#define LOOK_MS		200u	/* and 1 more for each that is looked at */
#define TELL_MS		200u	/* until one that could not be told is tried again */
#define TRIES		50u

struct dir {
	struct dir *next;
	uint64_t ino, parent;
	bool is_looked_at;
	bool is_gone;
	unsigned tries;
	size_t len;
	char name[];
};

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t cond, over;
	struct fsd *fsd;
	bool is_running;		/* there is the thread */
	bool stopping;
	struct dir *first[BUCKETS_FIRST], **buckets;
	size_t buckets_nr, nr;
	uint64_t groups[GROUPS_MAX];
	unsigned groups_nr;
	uint64_t *gone;			/* to be told; some may have been forgotten since */
	size_t gone_nr, gone_max;
} dirs = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .over = PTHREAD_COND_INITIALIZER,
	   .buckets = dirs.first, .buckets_nr = BUCKETS_FIRST };

/* Which inodes may have been directories, by their hash: files are forgotten without a look at the table. */
static atomic_uint seen[(1u << SEEN_BITS) / 32];

/* ---- the table; the mutex is held -------------------------------------------------------------------- */

static uint64_t hash(uint64_t ino)
{
	return ino * 0x9e3779b97f4a7c15ull;
}

static size_t bucket_of(uint64_t ino)
{
	return (size_t)(hash(ino) >> 20) & (dirs.buckets_nr - 1);
}

static struct dir **place_of(uint64_t ino)
{
	struct dir **at = &dirs.buckets[bucket_of(ino)];

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

static void drop(struct dir **at)
{
	struct dir *d = *at;

	*at = d->next;
	dirs.nr--;
	free(d);
}

static void grow(void)
{
	struct dir **old = dirs.buckets, **bigger = calloc(dirs.buckets_nr * 2, sizeof(*bigger));
	size_t old_nr = dirs.buckets_nr;

	if (!bigger)
		return;		/* slower, not wrong */
	dirs.buckets = bigger;
	dirs.buckets_nr *= 2;
	for (size_t i = 0; i < old_nr; i++) {
		for (struct dir *d = old[i], *next; d; d = next) {
			size_t b = bucket_of(d->ino);

			next = d->next;
			d->next = bigger[b];
			bigger[b] = d;
		}
	}
	if (old != dirs.first)
		free(old);
}

static void set_name(struct dir **at, uint64_t ino, uint64_t parent, const char *name, size_t len)
{
	struct dir *d = *at;

	if (d && d->parent == parent && d->len == len && memcmp(d->name, name, len) == 0)
		return;
	if (d)
		drop(at);
	d = calloc(1, sizeof(*d) + len + 1);
	if (!d)
		return;		/* it is told nothing, then */
	d->ino = ino;
	d->parent = parent;
	d->len = len;
	memcpy(d->name, name, len);
	d->next = *at;
	*at = d;
	dirs.nr++;
}

static bool note_gone(uint64_t ino)
{
	if (dirs.gone_nr == dirs.gone_max) {
		size_t max = dirs.gone_max ? dirs.gone_max * 2 : 16;
		uint64_t *gone = realloc(dirs.gone, max * sizeof(*gone));

		if (!gone)
			return false;
		dirs.gone = gone;
		dirs.gone_max = max;
	}
	dirs.gone[dirs.gone_nr++] = ino;
	return true;
}

static void ask_for(uint64_t group)
{
	unsigned i = 0;

	while (i < dirs.groups_nr && dirs.groups[i] != group)
		i++;
	if (i == dirs.groups_nr && i < GROUPS_MAX)
		dirs.groups[dirs.groups_nr++] = group;
	pthread_cond_signal(&dirs.cond);
}

/* ---- from everywhere --------------------------------------------------------------------------------- */

static atomic_uint *seen_word(uint64_t ino)
{
	return &seen[(hash(ino) >> (64 - SEEN_BITS)) / 32];
}

static unsigned seen_bit(uint64_t ino)
{
	return 1u << (hash(ino) >> (64 - SEEN_BITS)) % 32;
}

void gonedir_named(uint64_t ino, uint64_t parent, const char *name, size_t len)
{
	if (ino == ROOT_INO || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return;
	atomic_fetch_or(seen_word(ino), seen_bit(ino));
	pthread_mutex_lock(&dirs.mutex);
	if (dirs.nr >= dirs.buckets_nr)
		grow();
	set_name(place_of(ino), ino, parent, name, len);
	pthread_mutex_unlock(&dirs.mutex);
}

void gonedir_moved(uint64_t ino, uint64_t parent, const char *name, size_t len)
{
	struct dir **at;

	pthread_mutex_lock(&dirs.mutex);
	at = place_of(ino);
	if (*at)
		set_name(at, ino, parent, name, len);
	pthread_mutex_unlock(&dirs.mutex);
}

void gonedir_forgotten(struct fsd *fsd, uint64_t ino)
{
	struct dir **at;

	if (!(atomic_load(seen_word(ino)) & seen_bit(ino)))
		return;
	pthread_mutex_lock(&dirs.mutex);
	at = place_of(ino);
	if (*at && !inode_in_use(fsd, ino))
		drop(at);
	pthread_mutex_unlock(&dirs.mutex);
}

void gonedir_asked(uint64_t group)
{
	pthread_mutex_lock(&dirs.mutex);
	if (dirs.is_running && !dirs.stopping)
		ask_for(group);
	pthread_mutex_unlock(&dirs.mutex);
}

/* ---- looking ----------------------------------------------------------------------------------------- */

struct look_op {
	struct op op;
	uint64_t ino;
	bool is_gone;
};

static int look_run(struct op *op, struct itx *tx)
{
	struct look_op *l = (struct look_op *)op;
	struct cinode ci;
	int ret = lock_inode(op, l->ino, LOCK_MODE_READ);

	if (ret == 0)
		ret = inode_get(tx, l->ino, &ci);
	l->is_gone = ret == -ENOENT || (ret == 0 && le32_get(ci.d.nlink) == 0);
	return ret == -ENOENT ? 0 : ret;
}

static void look_done(struct op *op, int err)
{
	struct look_op *l = (struct look_op *)op;
	struct dir *d;

	pthread_mutex_lock(&dirs.mutex);
	d = *place_of(l->ino);
	if (d) {
		d->is_looked_at = false;
		d->is_gone = err == 0 && l->is_gone && note_gone(l->ino);
		pthread_cond_signal(&dirs.cond);
	}
	pthread_mutex_unlock(&dirs.mutex);
	free(l);
}

/* How many are looked at.  The mutex is held. */
static unsigned look_at_group(uint64_t group)
{
	unsigned nr = 0;

	for (uint64_t ino = group * INODE_LOCK_GROUP; ino < (group + 1) * INODE_LOCK_GROUP; ino++) {
		struct dir *d = *place_of(ino);
		struct look_op *l = d && !d->is_looked_at && !d->is_gone ? calloc(1, sizeof(*l)) : NULL;

		if (!l)
			continue;
		l->op = (struct op){ .fsd = dirs.fsd, .name = "look at a directory", .notes_itself = true, .run = look_run,
				     .done = look_done };
		l->ino = ino;
		d->is_looked_at = true;
		op_queue(&l->op);
		nr++;
	}
	return nr;
}

/* ---- telling ----------------------------------------------------------------------------------------- */

struct both {
	uint64_t parent, ino;
};

static bool is_one(const struct both *b, uint64_t ino)
{
	return ino == b->parent || ino == b->ino;
}

/* Whether the kernel may have one of them locked until that is answered. */
static bool is_in(const struct op *op, const void *arg)
{
	const struct dir_op *d = (const struct dir_op *)op;
	const struct both *b = arg;

	if (op->run == readdir_run)
		return is_one(b, ((const struct readdir_op *)op)->ino);
	if (op->run == attr_run_set)
		return is_one(b, ((const struct attr_op *)op)->ino);
	if (op->run == xattr_run_set || op->run == xattr_run_remove)
		return is_one(b, ((const struct xattr_op *)op)->ino);
	/* which directory they remove, or move, is known when they have run; and what runs for an earlier process is any of these */
	if (op->run == dir_run_rmdir || op->run == dir_run_rename || (op->again && op->run == op->again->run))
		return true;
	if (op->run == dir_run_lookup || op->run == dir_run_create || op->run == dir_run_tmpfile || op->run == dir_run_link ||
	    op->run == dir_run_unlink)
		return is_one(b, d->dir) || is_one(b, d->new_dir);
	return fuse_is_fsync_of(op, b->parent) || fuse_is_fsync_of(op, b->ino);
}

/* Whether it is to be tried again.  The mutex is held, but not meanwhile. */
static bool tell(uint64_t ino)
{
	struct fsd *fsd = dirs.fsd;
	struct dir **at = place_of(ino);
	char name[NAME_MAX_BYTES + 1];
	struct both b = { .ino = ino };
	int ret = -EAGAIN;
	size_t len;

	if (!*at || !(*at)->is_gone)
		return false;
	b.parent = (*at)->parent;
	len = (*at)->len;
	memcpy(name, (*at)->name, len + 1);
	pthread_mutex_unlock(&dirs.mutex);
	if (!kcache_has_unread(fsd) && !ops_any_parked(fsd, is_in, &b))
		ret = kcache_tell_removed(fsd, b.parent, name, len);
	pthread_mutex_lock(&dirs.mutex);
	at = place_of(ino);
	if (!*at || !(*at)->is_gone)
		return false;
	if (ret == -EAGAIN && ++(*at)->tries < TRIES)
		return true;
	drop(at);
	return false;
}

static void tell_all(void)
{
	size_t i = 0;

	while (i < dirs.gone_nr && !dirs.stopping) {
		if (tell(dirs.gone[i]))
			i++;
		else
			dirs.gone[i] = dirs.gone[--dirs.gone_nr];
	}
}

static void *gonedirs(void *arg)
{
	uint64_t look_ns = 0, tell_ns = 0;

	(void)arg;
	pthread_mutex_lock(&dirs.mutex);
	while (!dirs.stopping) {
		uint64_t now = clock_mono_ns();

		if (dirs.gone_nr && now >= tell_ns) {
			tell_all();
			tell_ns = dirs.gone_nr ? now + TELL_MS * NSEC_PER_MSEC : 0;
		} else if (dirs.groups_nr && now >= look_ns) {
			look_ns = now + LOOK_MS * NSEC_PER_MSEC;
			for (unsigned i = 0; i < dirs.groups_nr; i++)
				look_ns += look_at_group(dirs.groups[i]) * NSEC_PER_MSEC;
			dirs.groups_nr = 0;
		} else if (dirs.gone_nr || dirs.groups_nr) {
			clock_cond_wait(&dirs.cond, &dirs.mutex,
					!dirs.groups_nr || (dirs.gone_nr && tell_ns < look_ns) ? tell_ns : look_ns);
		} else {
			pthread_cond_wait(&dirs.cond, &dirs.mutex);
		}
	}
	dirs.is_running = false;
	pthread_cond_broadcast(&dirs.over);
	pthread_mutex_unlock(&dirs.mutex);
	return NULL;
}

int gonedirs_start(struct fsd *fsd)
{
	pthread_t thread;
	int ret;

	pthread_mutex_lock(&dirs.mutex);
	dirs.fsd = fsd;
	dirs.stopping = false;
	ret = thread_start(&thread, "gone dirs", gonedirs, NULL);
	dirs.is_running = ret == 0;
	if (ret == 0)
		pthread_detach(thread);
	pthread_mutex_unlock(&dirs.mutex);
	return ret;
}

bool gonedirs_stop(unsigned limit_ms)
{
	uint64_t end_ns = clock_mono_ns() + limit_ms * NSEC_PER_MSEC;
	bool is_over;

	pthread_mutex_lock(&dirs.mutex);
	dirs.stopping = true;
	pthread_cond_signal(&dirs.cond);
	while (dirs.is_running && clock_cond_wait(&dirs.over, &dirs.mutex, end_ns) != ETIMEDOUT)
		;
	is_over = !dirs.is_running;
	pthread_mutex_unlock(&dirs.mutex);
	return is_over;
}
