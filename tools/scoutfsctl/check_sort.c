/*
 * External sorting for the checker, so that its memory does not grow with the volume.
 *
 * Promises: records come out in order, equal ones too (in any order among themselves); no more than
 * ck->sort_bytes of records, and while reading SOURCE_BYTES for each of at most FAN_IN runs of a level, are
 * in memory.  The temporary file has no name: nothing is left of it however the program ends.  What
 * arrives in order, which is most of what a walk in key order finds, is written once and read in one piece.
 *
 * A full buffer becomes a run; FAN_IN runs of one level are merged into one of the next, whose space is
 * then given back, so a record is written once a level and the file is at most twice what is in it.
 */
#include "check_sort.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check_volume.h"

#define FAN_IN		32u
#define SOURCE_BYTES	65536u
#define BUF_FIRST	64u
#define SORT_BYTES	(4u << 20)

void sorter_init(struct sorter *s, size_t size, sorter_cmp_fn cmp)
{
	*s = (struct sorter){ .size = size, .cmp = cmp, .fd = -1 };
}

static void free_sources(struct sorter *s)
{
	for (size_t i = 0; i < s->sources_all; i++)
		free(s->sources[i].buf);
	free(s->sources);
	s->sources = NULL;
	s->sources_nr = s->sources_all = 0;
}

static void drop_file(struct sorter *s)
{
	free_sources(s);
	if (s->has_file)
		close(s->fd);
	s->fd = -1;
	s->has_file = false;
	s->file_end = 0;
	s->runs_nr = 0;
}

void sorter_reset(struct sorter *s)
{
	drop_file(s);
	s->nr = s->buf_nr = s->pos = 0;
	s->is_unordered = s->is_reading = false;
}

void sorter_fini(struct sorter *s)
{
	drop_file(s);
	free(s->buf);
	free(s->runs);
	free(s->last);
	*s = (struct sorter){ .fd = -1 };
}

static void fail(struct check *ck, int err, const char *what)
{
	if (ck->err)
		return;
	ck->err = err;
	ck->err_what = what;
}

static int order(const struct sorter *s, const void *a, const void *b)
{
	return s->cmp ? s->cmp(a, b) : 0;
}

/* ---- the file ---- */

int check_temp_file(struct check *ck)
{
	const char *dir = ck->temp_dir ? ck->temp_dir : "/var/tmp";
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0) {
		char path[4096];

		/* Not every file system has files without names. */
		snprintf(path, sizeof(path), "%s/scoutfs-check.XXXXXX", dir);
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	if (fd < 0)
		fail(ck, -errno, "making a temporary file");
	return fd;
}

static int open_file(struct check *ck, struct sorter *s)
{
	if (s->has_file)
		return 0;
	s->fd = check_temp_file(ck);
	s->has_file = s->fd >= 0;
	return s->has_file ? 0 : -EIO;
}

static int write_all(struct check *ck, struct sorter *s, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(s->fd, p, len, (off_t)s->file_end);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			fail(ck, n < 0 ? -errno : -EIO, "writing a temporary file");
			return -EIO;
		}
		p += n;
		len -= (size_t)n;
		s->file_end += (uint64_t)n;
	}
	return 0;
}

static int read_all(struct check *ck, struct sorter *s, uint64_t at, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(s->fd, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			fail(ck, n < 0 ? -errno : -EIO, "reading a temporary file");
			return -EIO;
		}
		p += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

static struct sorter_run *add_run(struct check *ck, struct sorter *s, uint64_t at, uint64_t nr,
				  unsigned level)
{
	if (s->runs_nr == s->runs_cap) {
		size_t cap = s->runs_cap ? 2 * s->runs_cap : 64;
		void *p = reallocarray(s->runs, cap, sizeof(*s->runs));

		if (!p) {
			fail(ck, -ENOMEM, NULL);
			return NULL;
		}
		s->runs = p;
		s->runs_cap = cap;
	}
	s->runs[s->runs_nr] = (struct sorter_run){ .at = at, .nr = nr, .level = level };
	return &s->runs[s->runs_nr++];
}

/* ---- merging ---- */

static const void *source_rec(const struct sorter *s, const struct sorter_source *src)
{
	return src->buf + src->pos * s->size;
}

/* The next records of a run.  -ENOENT: there are none. */
static int source_fill(struct check *ck, struct sorter *s, struct sorter_source *src)
{
	size_t fit = SOURCE_BYTES / s->size;

	src->pos = 0;
	src->nr = src->left < fit ? (size_t)src->left : fit;
	if (!src->nr)
		return -ENOENT;
	if (read_all(ck, s, src->at, src->buf, src->nr * s->size) < 0)
		return -EIO;
	src->at += src->nr * s->size;
	src->left -= src->nr;
	return 0;
}

static bool source_less(const struct sorter *s, size_t a, size_t b)
{
	return order(s, source_rec(s, &s->sources[a]), source_rec(s, &s->sources[b])) < 0;
}

static void swap_sources(struct sorter *s, size_t a, size_t b)
{
	struct sorter_source tmp = s->sources[a];

	s->sources[a] = s->sources[b];
	s->sources[b] = tmp;
}

static void sift_down(struct sorter *s, size_t at)
{
	for (;;) {
		size_t least = at, child = 2 * at + 1;

		if (child < s->sources_nr && source_less(s, child, least))
			least = child;
		if (child + 1 < s->sources_nr && source_less(s, child + 1, least))
			least = child + 1;
		if (least == at)
			return;
		swap_sources(s, at, least);
		at = least;
	}
}

/* Begin to read the runs from `first` on together. */
static int open_sources(struct check *ck, struct sorter *s, size_t first)
{
	size_t nr = s->runs_nr - first;

	assert(s->size <= SOURCE_BYTES);
	free_sources(s);
	s->sources = calloc(nr ? nr : 1, sizeof(*s->sources));
	if (!s->sources)
		goto no_memory;
	for (size_t i = 0; i < nr; i++) {
		const struct sorter_run *run = &s->runs[first + i];
		struct sorter_source *src = &s->sources[s->sources_all++];

		src->at = run->at;
		src->left = run->nr;
		src->buf = malloc(SOURCE_BYTES);
		if (!src->buf)
			goto no_memory;
		if (source_fill(ck, s, src) < 0)
			return -EIO;
	}
	s->sources_nr = nr;
	for (size_t i = nr / 2; i-- > 0;)
		sift_down(s, i);
	return 0;
no_memory:
	fail(ck, -ENOMEM, NULL);
	return -ENOMEM;
}

/* Step over the least record. */
static int sources_next(struct check *ck, struct sorter *s)
{
	struct sorter_source *src = &s->sources[0];
	int ret = 0;

	if (++src->pos == src->nr)
		ret = source_fill(ck, s, src);
	if (ret == -ENOENT) {
		swap_sources(s, 0, --s->sources_nr);
		ret = 0;
	}
	if (ret == 0)
		sift_down(s, 0);
	return ret;
}

/* All runs from `first` on become one. */
static void merge_runs(struct check *ck, struct sorter *s, size_t first)
{
	uint64_t began = s->file_end, old = s->runs[first].at, nr = 0;
	unsigned level = s->runs[first].level + 1;
	uint8_t *out = malloc(SOURCE_BYTES);
	size_t used = 0;

	if (!out) {
		fail(ck, -ENOMEM, NULL);
		return;
	}
	if (open_sources(ck, s, first) < 0)
		goto out;
	for (; s->sources_nr; nr++) {
		memcpy(out + used, source_rec(s, &s->sources[0]), s->size);
		memcpy(s->last, out + used, s->size);
		used += s->size;
		if (used + s->size > SOURCE_BYTES) {
			if (write_all(ck, s, out, used) < 0)
				goto out;
			used = 0;
		}
		if (sources_next(ck, s) < 0)
			goto out;
	}
	if (write_all(ck, s, out, used) < 0)
		goto out;
	s->runs_nr = first;
	add_run(ck, s, began, nr, level);
	/* Only a matter of space; where it cannot be done the file is larger. */
	(void)fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)old,
			(off_t)(began - old));
out:
	free_sources(s);
	free(out);
}

/* While the last FAN_IN runs are of one level they become one of the next. */
static void merge_levels(struct check *ck, struct sorter *s)
{
	while (!ck->err && s->runs_nr >= FAN_IN) {
		size_t first = s->runs_nr - FAN_IN;

		if (s->runs[first].level != s->runs[s->runs_nr - 1].level)
			return;
		merge_runs(ck, s, first);
	}
}

/* ---- adding ---- */

static void sort_buf(struct sorter *s)
{
	if (s->is_unordered)
		qsort(s->buf, s->buf_nr, s->size, s->cmp);
	s->is_unordered = false;
}

static void spill(struct check *ck, struct sorter *s)
{
	uint64_t at = s->file_end;
	struct sorter_run *run = s->runs_nr ? &s->runs[s->runs_nr - 1] : NULL;
	bool goes_on;

	sort_buf(s);
	goes_on = run && run->at + run->nr * s->size == at && order(s, s->last, s->buf) <= 0;
	if (!s->last && !(s->last = malloc(s->size))) {
		fail(ck, -ENOMEM, NULL);
		return;
	}
	if (open_file(ck, s) < 0 || write_all(ck, s, s->buf, s->buf_nr * s->size) < 0)
		return;
	memcpy(s->last, s->buf + (s->buf_nr - 1) * s->size, s->size);
	if (goes_on)
		run->nr += s->buf_nr;
	else
		add_run(ck, s, at, s->buf_nr, 0);
	s->buf_nr = 0;
	if (!goes_on)
		merge_levels(ck, s);
}

static bool grow(struct check *ck, struct sorter *s)
{
	size_t cap = s->buf_cap ? 2 * s->buf_cap : BUF_FIRST;
	size_t most = (ck->sort_bytes ? ck->sort_bytes : SORT_BYTES) / s->size;
	void *p;

	most = most < 2 ? 2 : most;
	cap = cap < most ? cap : most;
	if (cap <= s->buf_cap)
		return false;
	p = reallocarray(s->buf, cap, s->size);
	if (!p) {
		fail(ck, -ENOMEM, NULL);
		return false;
	}
	s->buf = p;
	s->buf_cap = cap;
	return true;
}

void sorter_add(struct check *ck, struct sorter *s, const void *rec)
{
	assert(!s->is_reading);
	if (ck->err)
		return;
	if (s->buf_nr == s->buf_cap && !grow(ck, s)) {
		if (!ck->err)
			spill(ck, s);
		if (ck->err)
			return;
	}
	if (s->buf_nr && order(s, s->buf + (s->buf_nr - 1) * s->size, rec) > 0)
		s->is_unordered = true;
	memcpy(s->buf + s->buf_nr++ * s->size, rec, s->size);
	s->nr++;
}

/* ---- reading ---- */

void sorter_rewind(struct check *ck, struct sorter *s)
{
	s->pos = 0;
	if (!s->is_reading) {
		s->is_reading = true;
		if (s->runs_nr && s->buf_nr && !ck->err)
			spill(ck, s);
		if (s->runs_nr) {
			free(s->buf);
			s->buf = NULL;
			s->buf_nr = s->buf_cap = 0;
		}
		sort_buf(s);
	}
	if (ck->err)
		s->pos = s->buf_nr;
	if (s->runs_nr && (ck->err || open_sources(ck, s, 0) < 0))
		s->sources_nr = 0;
}

const void *sorter_peek(const struct sorter *s)
{
	if (s->runs_nr)
		return s->sources_nr ? source_rec(s, &s->sources[0]) : NULL;
	return s->pos < s->buf_nr ? s->buf + s->pos * s->size : NULL;
}

void sorter_next(struct check *ck, struct sorter *s)
{
	if (!s->runs_nr)
		s->pos++;
	else if (sources_next(ck, s) < 0)
		s->sources_nr = 0;
}
