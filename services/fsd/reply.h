/*
 * Answers of requests that changed something, kept until the kernel has them: design.md D2.
 *
 * A request that the kernel sends again because it has no answer, may have been done by the process
 * before this one.  What it was answered, or would have been, stands in the item cache, put there by
 * the very transaction that did it.
 */
#ifndef SCOUTFS_FSD_REPLY_H
#define SCOUTFS_FSD_REPLY_H

#include "op.h"

/* keep: what is in the item cache is of the connection that goes on; else it is forgotten. */
int replies_start(struct fsd *fsd, bool keep);
void replies_stop(struct fsd *fsd);

/*
 * For who reads requests: op is for the request `unique` (as the kernel says it).  If it was done
 * already op is made one that only answers.
 */
void reply_begin(struct fsd *fsd, struct op *op, uint64_t unique);
/* What the kernel has not sent again by now it never will. */
void replies_settle(struct fsd *fsd);

#endif
