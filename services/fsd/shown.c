/*
 * Holes that may be data already.
 *
 * A store to a mapped page reaches us when the kernel writes it back (design D4), and SEEK_DATA, unlike a local filesystem's,
 * cannot look into the page cache: where a program has stored into a hole, or into preallocated space, cp and tar would
 * copy zeroes.  Nothing asks the kernel to write back what is dirty but a revoke, whose call waits for our own answers.
 *
 * So it is noted what can be dirty.  A page of a hole comes into the kernel's cache by a READ that we answer with zeroes; it
 * can be stored to by who has the file open for reading and writing, until that is let go (RELEASE, which comes after the last
 * mapping has been written back).  As long as there is such an open file, blocks of holes that were read count as data.
 * Pages from before the first such open are dropped by the kernel at the open (fuse.c, keep_cache).  When the last one is let go all
 * of them have been written, but only who looks at the extents from then on sees them (shown_view).
 *
 * Promises: no block with a store in it is taken for a hole; too much may be taken for data.  Ranges are few for each file
 * and only grow.  The table holds 2048 files.  As long as more than these are open for reading and writing nobody knows which
 * ones the others are, so every hole of every file without a place in it counts as data; the log says so, and a gauge.  The table is a
 * file in the runtime directory, for the kernel's pages outlive this process: each step of a change leaves it true, wherever the
 * process is killed.  A RELEASE or OPEN that is sent again may have been counted (an OPEN is from when it is read); then a file
 * counts for longer.
 */
#include "shown.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"

#define SHOWN_MAGIC	0x31206e776f687373ull
#define RANGES		7u
#define WAYS		8u
#define SETS		256u
#define SLOTS		(SETS * WAYS)

struct range {
	uint64_t first, last;	/* blocks */
};

/* Free when writers is 0. */
struct slot {
	uint64_t ino;
	_Atomic uint32_t writers;	/* open files of it that may be mapped for writing */
	_Atomic uint32_t nr;
	struct range v[RANGES];
};

struct table {
	uint64_t magic, rid;
	_Atomic uint64_t others;	/* such open files without a slot */
	uint64_t pad;
	struct slot slots[SETS][WAYS];
};

struct shown {
	pthread_mutex_t mutex;
	struct table *t;
	unsigned away[SETS];	/* how many files that belong into this set have found their slot in another one */
	/* how often something of a file of this set, or of any, was forgotten, or applied while nothing was noted of it */
	uint64_t moved[SETS], others_moved;
	bool has_said;
};

bool shown_is_mappable(int flags)
{
	return (flags & O_ACCMODE) == O_RDWR;
}

static unsigned set_of(uint64_t ino)
{
	return (unsigned)((ino * 0x9e3779b97f4a7c15ull >> 32) % SETS);
}

/* Slot n of them all, beginning with those of that set. */
static struct slot *nth_from(struct table *t, unsigned set, unsigned n)
{
	n = (set * WAYS + n) % SLOTS;
	return &t->slots[n / WAYS][n % WAYS];
}

static bool is_away(const struct table *t, const struct slot *s)
{
	return s->writers && (unsigned)(s - &t->slots[0][0]) / WAYS != set_of(s->ino);
}

/* No further than to the last slot of a file that belongs into this set: most files have none, which is to be seen soon. */
static struct slot *find(struct shown *sh, uint64_t ino)
{
	unsigned set = set_of(ino), left = sh->away[set];

	for (unsigned n = 0; n < WAYS || (left && n < SLOTS); n++) {
		struct slot *s = nth_from(sh->t, set, n);

		if (!s->writers)
			continue;
		if (s->ino == ino)
			return s;
		left -= n >= WAYS && set_of(s->ino) == set;
	}
	return NULL;
}

static struct slot *find_free(struct shown *sh, uint64_t ino)
{
	for (unsigned n = 0; n < SLOTS; n++) {
		struct slot *s = nth_from(sh->t, set_of(ino), n);

		if (!s->writers)
			return s;
	}
	return NULL;
}

static bool touches(const struct range *a, const struct range *b)
{
	return a->first <= b->last + (b->last != UINT64_MAX) && b->first <= a->last + (a->last != UINT64_MAX);
}

static void widen(struct range *r, const struct range *by)
{
	if (by->first < r->first)
		r->first = by->first;
	if (by->last > r->last)
		r->last = by->last;
}

static uint64_t distance(const struct range *a, const struct range *b)
{
	return a->first > b->last ? a->first - b->last : b->first - a->last;
}

static void add(struct slot *s, struct range r)
{
	unsigned at = 0, nr = s->nr;

	while (at < nr && !touches(&s->v[at], &r))
		at++;
	if (at == nr && nr < RANGES) {
		s->v[nr] = r;
		s->nr = nr + 1;
		return;
	}
	if (at == nr) {
		at = 0;
		for (unsigned i = 1; i < nr; i++) {
			if (distance(&s->v[i], &r) < distance(&s->v[at], &r))
				at = i;
		}
	}
	widen(&s->v[at], &r);
	/* those that it has reached now */
	for (unsigned i = 0; i < s->nr; i++) {
		while (i != at && i < s->nr && touches(&s->v[at], &s->v[i])) {
			widen(&s->v[at], &s->v[i]);
			s->v[i] = s->v[s->nr - 1];
			if (at == s->nr - 1)
				at = i;
			s->nr = s->nr - 1;
		}
	}
}

void shown_open(struct fsd *fsd, uint64_t ino, int flags)
{
	struct shown *sh = fsd->shown;
	bool is_first = false;
	struct slot *s;

	if (!sh || !shown_is_mappable(flags))
		return;
	pthread_mutex_lock(&sh->mutex);
	s = find(sh, ino);
	if (s) {
		s->writers++;
	} else if ((s = find_free(sh, ino))) {
		s->ino = ino;
		s->nr = 0;
		/* some of the others may be of this file */
		if (sh->t->others)
			add(s, (struct range){ 0, UINT64_MAX });
		s->writers = 1;
		sh->away[set_of(ino)] += is_away(sh->t, s);
	} else {
		sh->t->others++;
		is_first = !sh->has_said;
		sh->has_said = true;
	}
	pthread_mutex_unlock(&sh->mutex);
	if (is_first)
		log_notice("more than %u files are open for reading and writing: until they are fewer, holes count as data for "
			   "SEEK_DATA, cp and tar (hole_table_others says how many are too many)", SLOTS);
}

void shown_release(struct fsd *fsd, uint64_t ino, int flags, bool sent_again)
{
	struct shown *sh = fsd->shown;
	struct slot *s;

	if (!sh || !shown_is_mappable(flags) || sent_again)
		return;
	pthread_mutex_lock(&sh->mutex);
	s = find(sh, ino);
	if (s && s->writers == 1) {
		sh->away[set_of(ino)] -= is_away(sh->t, s);
		sh->moved[set_of(ino)]++;
	}
	if (s) {
		s->writers--;
	} else if (sh->t->others) {
		sh->t->others--;
		sh->others_moved++;
	}
	pthread_mutex_unlock(&sh->mutex);
}

void shown_note(struct fsd *fsd, uint64_t ino, uint64_t first, uint64_t last)
{
	struct shown *sh = fsd->shown;
	struct slot *s;

	if (!sh)
		return;
	pthread_mutex_lock(&sh->mutex);
	s = find(sh, ino);
	if (s)
		add(s, (struct range){ first, last });
	pthread_mutex_unlock(&sh->mutex);
}

bool shown_next(struct fsd *fsd, uint64_t ino, uint64_t from, uint64_t end, uint64_t *first, uint64_t *last)
{
	struct range found = { .first = UINT64_MAX };
	struct shown *sh = fsd->shown;
	const struct slot *s;

	if (!sh)
		return false;
	pthread_mutex_lock(&sh->mutex);
	s = find(sh, ino);
	if (!s && sh->t->others)
		found = (struct range){ from, UINT64_MAX };
	for (unsigned i = 0; s && i < s->nr; i++) {
		const struct range *r = &s->v[i];

		if (r->last >= from && r->first < end && r->first < found.first)
			found = *r;
	}
	pthread_mutex_unlock(&sh->mutex);
	*first = found.first < from ? from : found.first;
	*last = found.last < end - 1 ? found.last : end - 1;
	return found.first < end;
}

uint64_t shown_view(struct fsd *fsd, uint64_t ino)
{
	struct shown *sh = fsd->shown;
	uint64_t view;

	if (!sh)
		return 0;
	pthread_mutex_lock(&sh->mutex);
	view = sh->moved[set_of(ino)] + sh->others_moved;
	pthread_mutex_unlock(&sh->mutex);
	return view;
}

void shown_applied(struct fsd *fsd, uint64_t ino)
{
	struct shown *sh = fsd->shown;

	if (!sh)
		return;
	pthread_mutex_lock(&sh->mutex);
	sh->moved[set_of(ino)] += !find(sh, ino);
	pthread_mutex_unlock(&sh->mutex);
}

double shown_attr(struct fsd *fsd, uint64_t ino, uint64_t view, struct stat *st, double timeout)
{
	uint64_t first, last;

	if (!S_ISREG(st->st_mode) || st->st_size == 0 || st->st_blocks)
		return timeout;
	if (shown_next(fsd, ino, 0, UINT64_MAX, &first, &last) || shown_view(fsd, ino) != view)
		st->st_blocks = st->st_blksize / 512;
	return 0.0;
}

uint64_t shown_others(struct fsd *fsd)
{
	return fsd->shown ? fsd->shown->t->others : 0;
}

static int map_table(struct table **out, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), ret;
	void *p;

	if (fd < 0)
		return -errno;
	/* All of it, now: a full tmpfs under a mapping kills the process. */
	ret = -posix_fallocate(fd, 0, sizeof(struct table));
	p = ret == 0 ? mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : NULL;
	if (p == MAP_FAILED)
		ret = -errno;
	else
		*out = p;
	close(fd);
	return ret;
}

int shown_start(struct fsd *fsd, bool is_resumed)
{
	struct shown *sh = calloc(1, sizeof(*sh));
	char path[PATH_MAX];
	bool is_theirs;
	int ret;

	if (!sh)
		return -ENOMEM;
	snprintf(path, sizeof(path), "%s/shown", fsd->conf.runtime_dir);
	ret = map_table(&sh->t, path);
	if (ret < 0) {
		log_err("%s: %s; give the runtime directory %zu KiB more room", path, strerror(-ret),
			sizeof(struct table) >> 10);
		free(sh);
		return ret;
	}
	pthread_mutex_init(&sh->mutex, NULL);
	is_theirs = sh->t->magic == SHOWN_MAGIC && sh->t->rid == fsd->rid;
	for (unsigned i = 0; is_theirs && i < SLOTS; i++)
		is_theirs = nth_from(sh->t, 0, i)->nr <= RANGES;
	if (!is_resumed || !is_theirs) {
		memset(sh->t, 0, sizeof(*sh->t));
		/* a process of a version without this table has not said what it had open: until the mount ends */
		sh->t->others = is_resumed ? UINT32_MAX : 0;
		if (is_resumed)
			log_notice("the fsd before this one has not left a table of files that are open for reading and writing: "
				   "holes count as data for SEEK_DATA, cp and tar until this mount is unmounted");
		sh->t->rid = fsd->rid;
		sh->t->magic = SHOWN_MAGIC;
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct slot *s = nth_from(sh->t, 0, i);

		sh->away[set_of(s->ino)] += is_away(sh->t, s);
	}
	sh->has_said = sh->t->others != 0;
	fsd->shown = sh;
	return 0;
}

void shown_stop(struct fsd *fsd)
{
	if (!fsd->shown)
		return;
	munmap(fsd->shown->t, sizeof(struct table));
	pthread_mutex_destroy(&fsd->shown->mutex);
	free(fsd->shown);
	fsd->shown = NULL;
}
