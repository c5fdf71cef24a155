/* Writes from mappings (FUSE_WRITE_CACHE): which bytes of them were stored, and those that are answered first.  design.md D4. */
#ifndef SCOUTFS_FSD_MAPPED_H
#define SCOUTFS_FSD_MAPPED_H

#include "write_op.h"

#define MAPPED_WORD	8u	/* what a processor stores at once */

/*
 * For run(), after it is known that there is room: 0: w has a use of its inode's lock for WRITE, and applies what its mask says.
 * MAPPED_SAME: nothing was stored that is not in the file; w is done.  OP_MORE: commit, and run again.  OP_PARKED, -errno.
 */
#define MAPPED_SAME	2
int mapped_run(struct write_op *w, struct itx *tx);
/* In the transaction that applies an answered one: it is no longer to be done. */
int mapped_applied(struct write_op *w, struct itx *tx);
/* An answered one is over, err says how: the file's next fsync is told. */
void mapped_done(struct write_op *w, int err);
/* Release what w has of this file. */
void mapped_fini(struct write_op *w);

/* Whether byte `at` of the request was stored. */
static inline bool mapped_is_stored(const struct write_op *w, uint64_t at)
{
	return !w->mask || w->mask[at / MAPPED_WORD / 8] & 1u << (at / MAPPED_WORD % 8);
}

/*
 * For run() of a write(2), first of all: as data_wait_pending, but writes from mappings that have its bytes from the page cache
 * leave them to it, the pending ones and those that are about to be.
 */
int mapped_wait(struct write_op *w, struct itx *tx);

/* Make a write operation for rq; NULL: no memory.  ops_file.c's. */
struct write_op *write_op_new(struct fsd *fsd, struct file_req *rq);

#endif
