/*
 * Directories that another node has removed while they are somebody's working directory here.
 *
 * Promise: getcwd(2) in such a directory fails soon after, without that anybody looks for its name.  The kernel answers it alone,
 * by the name that it was given; FUSE_NOTIFY_DELETE takes that away.
 *
 * Who has removed a directory asks before it deletes the inode who else uses that: only then is there anything to tell, and
 * only the group of the inode is known.  So all directories of the group that the kernel has a name of are looked at, in a
 * moment, and the more there are the less often: that takes the lock from the one that deletes.  What is not told (the node
 * that has removed it still uses it, this process is not the one that gave the name) is found when somebody looks for the name.
 *
 * Telling waits for the directory above, uninterruptibly, which an operation that we have parked may hold; and a process of
 * which a thread waits so cannot die.  So this has a thread of its own, and nothing is told while such an operation is parked.
 */
#include "gonedir.h"

#include <errno.h>
#include <pthread.h>
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

#define BUCKETS		16384u
#define GROUPS_MAX	64u	/* more are looked at when they are asked for again */
#define LOOK_MS		200u	/* and 1 more for each that is looked at */
#define TRIES		50u	/* to tell of one, LOOK_MS apart */

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
	pthread_cond_t cond;
	struct fsd *fsd;
	pthread_t thread;
	bool is_running, stopping;
	struct dir *buckets[BUCKETS];
	uint64_t groups[GROUPS_MAX];
	unsigned groups_nr;
	bool any_gone;
} dirs = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

/* ---- the table; the mutex is held -------------------------------------------------------------------- */

static struct dir **place_of(uint64_t ino)
{
	struct dir **at = &dirs.buckets[(ino * 0x9e3779b97f4a7c15ull >> 32) % BUCKETS];

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

static void drop(struct dir **at)
{
	struct dir *d = *at;

	*at = d->next;
	free(d);
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

void gonedir_named(uint64_t ino, uint64_t parent, const char *name, size_t len)
{
	if (ino == ROOT_INO || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return;
	pthread_mutex_lock(&dirs.mutex);
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

	pthread_mutex_lock(&dirs.mutex);
	at = place_of(ino);
	if (*at && !inode_in_use(fsd, ino))
		drop(at);
	pthread_mutex_unlock(&dirs.mutex);
}

void gonedir_asked(uint64_t group)
{
	pthread_mutex_lock(&dirs.mutex);
	if (dirs.is_running)
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
		d->is_gone = err == 0 && l->is_gone;
		dirs.any_gone |= d->is_gone;
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

static bool is_in(const struct op *op, const void *arg)
{
	const struct dir_op *d = (const struct dir_op *)op;
	uint64_t parent = *(const uint64_t *)arg;

	if (op->run == readdir_run)
		return ((const struct readdir_op *)op)->ino == parent;
	return (op->run == dir_run_lookup || op->run == dir_run_create || op->run == dir_run_tmpfile || op->run == dir_run_link ||
		op->run == dir_run_unlink || op->run == dir_run_rmdir || op->run == dir_run_rename) &&
	       (d->dir == parent || d->new_dir == parent);
}

/* The mutex is held, but not meanwhile; *d may be gone afterwards. */
static void tell(const struct dir *d)
{
	struct fsd *fsd = dirs.fsd;
	uint64_t ino = d->ino, parent = d->parent;
	char name[NAME_MAX_BYTES + 1];
	size_t len = d->len;
	struct dir **at;
	int ret = -EAGAIN;

	memcpy(name, d->name, len);
	name[len] = 0;
	pthread_mutex_unlock(&dirs.mutex);
	if (!ops_any_parked(fsd, is_in, &parent))
		ret = kcache_tell_removed(fsd, parent, ino, name, len);
	pthread_mutex_lock(&dirs.mutex);
	at = place_of(ino);
	if (!*at)
		return;
	(*at)->is_gone = false;
	/* a directory in it comes first */
	if ((ret == -EAGAIN || ret == -ENOTEMPTY) && (*at)->tries++ < TRIES)
		ask_for(ino / INODE_LOCK_GROUP);
	else
		drop(at);
}

static void tell_all(void)
{
	dirs.any_gone = false;
	for (unsigned b = 0; b < BUCKETS && !dirs.stopping; b++) {
		struct dir *d = dirs.buckets[b];

		while (d && !d->is_gone)
			d = d->next;
		if (!d)
			continue;
		tell(d);
		b--;	/* there may be others, and the list has changed */
	}
}

static void *gonedirs(void *arg)
{
	uint64_t next_ns = 0;

	(void)arg;
	pthread_mutex_lock(&dirs.mutex);
	while (!dirs.stopping) {
		uint64_t now = clock_mono_ns();

		if (dirs.any_gone) {
			tell_all();
		} else if (dirs.groups_nr && now >= next_ns) {
			next_ns = now + LOOK_MS * NSEC_PER_MSEC;
			for (unsigned i = 0; i < dirs.groups_nr; i++)
				next_ns += look_at_group(dirs.groups[i]) * NSEC_PER_MSEC;
			dirs.groups_nr = 0;
		} else if (dirs.groups_nr) {
			clock_cond_wait(&dirs.cond, &dirs.mutex, next_ns);
		} else {
			pthread_cond_wait(&dirs.cond, &dirs.mutex);
		}
	}
	pthread_mutex_unlock(&dirs.mutex);
	return NULL;
}

int gonedirs_start(struct fsd *fsd)
{
	int ret;

	pthread_mutex_lock(&dirs.mutex);
	dirs.fsd = fsd;
	dirs.stopping = false;
	ret = -pthread_create(&dirs.thread, NULL, gonedirs, NULL);
	dirs.is_running = ret == 0;
	pthread_mutex_unlock(&dirs.mutex);
	return ret;
}

void gonedirs_stop(bool wait)
{
	bool was_running;

	pthread_mutex_lock(&dirs.mutex);
	was_running = dirs.is_running;
	dirs.is_running = false;
	dirs.stopping = true;
	pthread_cond_signal(&dirs.cond);
	pthread_mutex_unlock(&dirs.mutex);
	if (was_running && wait)
		pthread_join(dirs.thread, NULL);
}
