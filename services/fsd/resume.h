/* Generations that an earlier process of this mount has left: design.md D3, D7. */
#ifndef SCOUTFS_FSD_RESUME_H
#define SCOUTFS_FSD_RESUME_H

#include "format/format.h"
#include "txn.h"

/* Whether the leader, whose word is `now`, has stored what was sent to it. */
bool resume_was_stored(const struct disk_log_trees *sent, const struct disk_log_trees *now);
/* Before generation gen is stored under lt: the next process can tell whether it was. */
int resume_note_storing(struct fsd *fsd, uint64_t gen, const struct disk_log_trees *lt);

/*
 * When no operation runs yet, and the leader's word (lt) is known: a generation that was being stored
 * counts as committed if it was, and else is part of the open one.  0 or -errno.
 */
int resume_gens(struct fsd *fsd, const struct disk_log_trees *lt);

#endif
