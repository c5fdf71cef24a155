/*
 * Log merge, the part of a mount: items of finalized log trees, in key order and each in its newest
 * version, are applied to a private copy of a part of fs_root.  runtime.md 7.4; format.md 14.2.
 * The part of the server is merge/merge_server.h.
 *
 * Errors as btree.h unless said otherwise; -ESTALE from a finalized tree means that the merge went
 * on without us (or that the roots were old): give the work up, or start it again from new roots.
 */
#ifndef SCOUTFS_MERGE_H
#define SCOUTFS_MERGE_H

#include "alloc/meta_alloc.h"
#include "btree/btree.h"
#include "log/merge_items.h"

/* What one request may make dirty, 64 MiB, and the blocks it is given for that (runtime 7.3). */
#define MERGE_DIRTY_BLOCKS_MAX	1024u
#define MERGE_AVAIL_BLOCKS	1028u

/*
 * The item trees that a merge folds in: finalized before input_seq, and not empty.  They do not
 * change until the merge is finished, so they are read once; merge_inputs_free() them.
 * -ENOMEM, or as btree.h.
 */
struct merge_inputs {
	struct disk_btree_root *roots;
	size_t nr;
};
int merge_inputs_read(struct block_set *bs, const struct disk_btree_root *logs_root,
		      uint64_t input_seq, struct merge_inputs *in);
void merge_inputs_free(struct merge_inputs *in);

/* The least (greatest) key in [start, end] that any input has, markers included.  -ENOENT: none. */
int merge_inputs_least(struct block_set *bs, const struct merge_inputs *in, const struct key *start,
		       const struct key *end, struct key *key);
int merge_inputs_greatest(struct block_set *bs, const struct merge_inputs *in,
			  const struct key *start, const struct key *end, struct key *key);

/*
 * The items of all inputs in [start, end], combined: each key once, ascending.  The version with
 * the greatest seq, deletion markers as they are (flags); of totals (zone 12) the sum with the
 * greatest seq, not given at all when the sum is (0, 0).  Memory: one held leaf an input, read when
 * the walk comes to it.  *in may go after _open.  _next: 0 with *it valid until the next call,
 * -ENOENT at the end; after another error only _close is allowed.
 */
struct merge_iter;
int merge_iter_open(struct merge_iter **out, struct block_set *bs, const struct merge_inputs *in,
		    const struct key *start, const struct key *end);
int merge_iter_next(struct merge_iter *mi, struct item *it);
void merge_iter_close(struct merge_iter *mi);

/*
 * The work of one request, in steps.  The set is the caller's, has nothing dirty, and is used for
 * nothing else until the run is closed.  logs_root is any committed one at which the merge
 * (input_seq) was active: that of the request, or a newer one when that gives -ESTALE.  dirty_max:
 * how many blocks may become dirty, at least 16; MERGE_DIRTY_BLOCKS_MAX if memory allows.
 *
 * _step applies up to items_max items: 0: there is more to do, 1: it is finished, or a limit was
 * hit (dirty_max, the request's blocks, or that the root of a subtree may not be split or joined by
 * us). After an error: block_set_abort and tell the server ERROR (merge_run_give_up).
 *
 * After 1: merge_run_result fills *comp, with REMAIN if not everything was done.  Then
 * block_set_write(bs), flush the device, send *comp.  Close the run at any time, before the set.
 */
struct merge_run;
int merge_run_open(struct merge_run **out, struct block_set *bs, const struct merge_request *req,
		   const struct disk_btree_root *logs_root, size_t dirty_max);
int merge_run_step(struct merge_run *run, unsigned items_max);
void merge_run_result(const struct merge_run *run, struct merge_complete *comp);
void merge_run_close(struct merge_run *run);

/* How many input items were applied so far, for counters. */
uint64_t merge_run_items(const struct merge_run *run);

/* What to send instead when the work is given up: nothing of it counts, ERROR is set. */
void merge_run_give_up(const struct merge_request *req, struct merge_complete *comp);

#endif
