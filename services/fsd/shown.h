/*
 * Which holes of files the kernel has pages of that a program may have stored to: runtime.md 11.10 (SEEK_DATA).
 */
#ifndef SCOUTFS_FSD_SHOWN_H
#define SCOUTFS_FSD_SHOWN_H

#include <sys/stat.h>

#include "fsd.h"

/* Any thread, all of them.  Before requests are served: the table, of the earlier process if this one goes on from it; a
 * negative errno, logged. */
int shown_start(struct fsd *fsd, bool is_resumed);
void shown_stop(struct fsd *fsd);

/*
 * A program opens ino with these flags, before it is found out whether it has holes of which the kernel has pages, and
 * before that is answered; or it could not, or has let go of it, sent_again: perhaps not just now.
 */
void shown_open(struct fsd *fsd, uint64_t ino, int flags);
void shown_release(struct fsd *fsd, uint64_t ino, int flags, bool sent_again);
/* Whether it can map the file for writing. */
bool shown_is_mappable(int flags);

/* The kernel is about to be given zeroes for blocks first..last (before the answer). */
void shown_note(struct fsd *fsd, uint64_t ino, uint64_t first, uint64_t last);
/*
 * Extents are looked at in a snapshot, and here afterwards: what is noted may meanwhile have come to the extents, and be forgotten.
 * So who wants to know of a hole asks for this number before the snapshot, and again after shown_next: if it has changed,
 * the snapshot is too old.
 */
uint64_t shown_view(struct fsd *fsd, uint64_t ino);
/* A write of the kernel's that was answered before is applied (committed to the item cache). */
void shown_applied(struct fsd *fsd, uint64_t ino);
/* How many such open files have no place in the table, or UINT32_MAX and more: it is not known; not 0: holes count as data. */
uint64_t shown_others(struct fsd *fsd);
/* The first blocks in [from, end) of a hole that may hold what the kernel has not written back: *first..*last. */
bool shown_next(struct fsd *fsd, uint64_t ino, uint64_t from, uint64_t end, uint64_t *first, uint64_t *last);
/*
 * For *st as it is given to the kernel, and for how long it may keep it: a file in which no block is seems to be one hole, which
 * tar -S does not even look into.  If there may be stores it has one, and this is never kept.  `view` is shown_view's, from before
 * the snapshot that *st is of.
 */
double shown_attr(struct fsd *fsd, uint64_t ino, uint64_t view, struct stat *st, double timeout);

#endif
