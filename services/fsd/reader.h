/* Items from the forest into the cache: runtime.md 6, design.md D2. */
#ifndef SCOUTFS_FSD_READER_H
#define SCOUTFS_FSD_READER_H

#include "op.h"

int reader_start(struct fsd *fsd);
/* Nothing may be waiting for it. */
void reader_stop(struct fsd *fsd);

/* op->wait of what item_get and friends found unknown: op->need.items is read, then op runs
 * again. */
void reader_wait(struct op *op);

/* Roots taken before now are too old: a lock was granted, or a commit is done. */
void reader_roots_stale(struct fsd *fsd);
/*
 * The same, and these have come with the grant: they are copied, and good until the next of both.  From the thread that takes
 * the leader's messages, in their order: so they have every commit of this mount of which the leader has told before.
 */
struct forest_roots;
void reader_roots_given(struct fsd *fsd, const struct forest_roots *roots);

/*
 * Walk all committed items of [start, end] in key order, newest versions, for threads that may
 * block. Nothing of the cache and no lock is used.  Roots and the last stable seq come in one reply
 * of the leader; of zone 4 nothing newer than *stable_seq (may be NULL) is given (runtime 9.4).
 * When blocks were replaced under the walk it goes on behind the last item from newer roots.  0;
 * what each() returned, when not 0; -EIO, -ENOMEM.
 */
int reader_iter(struct fsd *fsd, const struct key *start, const struct key *end,
		int (*each)(void *arg, const struct item *it), void *arg, uint64_t *stable_seq);

#endif
