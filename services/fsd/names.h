/*
 * Which names directories certainly lack, in few bytes each: design.md D2 (what is known and what is
 * not), runtime.md 6.6.  What items_range.c knows goes when items are evicted; this stays.
 */
#ifndef SCOUTFS_FSD_NAMES_H
#define SCOUTFS_FSD_NAMES_H

#include "items.h"

struct names;

/* bytes: about what all of it may take.  -ENOMEM. */
int names_open(struct names **out, size_t bytes);
void names_close(struct names *n);

/* A directory that is being made: it has no names.  Once more is no harm, until it is committed. */
void names_begin(struct fsd *fsd, uint64_t dir);
/* An entry with this hash is about to be added; before its transaction is committed. */
void names_add(struct fsd *fsd, uint64_t dir, uint64_t hash);
/* All that dir has had is known, so positions behind its next_readdir_pos are free. */
bool names_are_known(struct fsd *fsd, uint64_t dir);
/* No entry of dir has this hash in any transaction that the caller can see.  It holds dir's lock. */
bool names_lack(struct fsd *fsd, uint64_t dir, uint64_t hash);

/* For items_range.c: the lock over these keys is being given up.  For tests: how many are known. */
void names_drop(struct names *n, const struct key *start, const struct key *end);
size_t names_dirs(struct names *n);

#endif
