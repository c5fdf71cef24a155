/*
 * Records of one size in order, however many there are: a bounded buffer in memory, sorted runs in an
 * unlinked temporary file beyond it.  Shared by check_*.c only.
 *
 * Add all, then read them from the first on, as often as wanted; adding ends with the first sorter_rewind().
 * A failure (memory, the temporary file) is kept in ck->err; reading then ends early.
 */
#ifndef SCOUTFSCTL_CHECK_SORT_H
#define SCOUTFSCTL_CHECK_SORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct check;

typedef int (*sorter_cmp_fn)(const void *a, const void *b);

struct sorter_run {
	uint64_t at, nr;	/* bytes in the file, records */
	unsigned level;		/* how often its records have been merged */
};

/* Where one run is being read. */
struct sorter_source {
	uint64_t at, left;	/* behind what is in buf */
	size_t pos, nr;		/* records in buf */
	uint8_t *buf;
};

struct sorter {
	size_t size;
	sorter_cmp_fn cmp;
	uint64_t nr;			/* records */
	/* In memory: what was not spilled yet. */
	uint8_t *buf;
	size_t buf_nr, buf_cap;
	bool is_unordered;		/* buf is */
	/* In the file, once there is one. */
	bool has_file;
	int fd;
	uint64_t file_end;
	struct sorter_run *runs;
	size_t runs_nr, runs_cap;
	void *last;			/* greatest record of the last run */
	/* Reading. */
	bool is_reading;
	size_t pos;			/* in buf */
	struct sorter_source *sources;	/* a heap, the least in front */
	size_t sources_nr, sources_all;
};

/* cmp orders records; NULL: they stay in the order they came in. */
void sorter_init(struct sorter *s, size_t size, sorter_cmp_fn cmp);
void sorter_fini(struct sorter *s);
/* Forget the records, keep the memory. */
void sorter_reset(struct sorter *s);
void sorter_add(struct check *ck, struct sorter *s, const void *rec);
/* Start at the first record. */
void sorter_rewind(struct check *ck, struct sorter *s);
/* The record that is the turn's, NULL at the end; it stays where it is until sorter_next(). */
const void *sorter_peek(const struct sorter *s);
void sorter_next(struct check *ck, struct sorter *s);

/* An open file without a name, for the caller to close; -1, and ck->err says why. */
int check_temp_file(struct check *ck);

#endif
