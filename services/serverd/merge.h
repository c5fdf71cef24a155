/*
 * Log merges on the volume, the server's side: when one may begin (the barrier of runtime.md 7.2),
 * and its work.  format.md 14.  Calls are for the run() of a txn job, with its rules, as logs.h says.
 */
#ifndef SCOUTFS_SERVERD_MERGE_H
#define SCOUTFS_SERVERD_MERGE_H

#include "txn.h"

/* More than one block. */
#define MERGE_IDLE_HEIGHT	2u

/* What the loop allows; read by the worker whenever a mount's tree is to be opened. */
struct merge_policy {
	atomic_bool may_begin;		/* trees may be finished now, so that a merge can begin */
	atomic_bool is_idle;		/* nobody writes: a tree of MERGE_IDLE_HEIGHT wants a merge */
	unsigned min_height;		/* a tree of that height wants a merge; 0: none does */
	unsigned min_trees;		/* so many finished trees want one; 0: they do not */
};

/*
 * Whether log trees of which the tallest has that height (0: they have no items), and so many are finished,
 * want a merge: 7.1, and their number is bounded.
 */
bool merge_is_wanted(const struct merge_policy *mp, unsigned height_max, uint64_t finished_nr,
		     bool meta_is_low);

#define MERGE_ACTIVE_MAX	64u

/* One pass through the barrier. */
struct merge_gate {
	const struct merge_policy *policy;	/* NULL: no merge begins here */
	/* Result: mounts whose newest tree is not finished, so that no merge can begin yet. */
	uint64_t active[MERGE_ACTIVE_MAX];
	unsigned active_nr;
};

/*
 * lt is rid's newest tree, stored (unless is_new) and not open.  If a merge is wanted, may begin and none
 * runs: lt is finished, its allocators go on in the next tree, which *lt then is; when nobody else's
 * tree is unfinished either the merge begins.  gate->active_nr != 0: it could not yet, and *lt should
 * not be opened before it does or the loop gives up.  Errors: those of trees, and -EINPROGRESS.
 */
int merge_pass_gate(struct txn *t, struct merge_gate *gate, struct disk_log_trees *lt, bool is_new);

/* Work for rid; *has_work false: none now.  Splices on the way.  7.3, 7.5 */
int merge_get(struct txn *t, uint64_t rid, bool *has_work, struct disk_merge_request *out);
/* What came of it; 0 also when the request is not known any more.  -EINVAL: it cannot be that. */
int merge_commit(struct txn *t, uint64_t rid, const struct disk_merge_complete *in);
/* The mount is gone: what it was given can be given to others.  2.6 */
int merge_release(struct txn *t, uint64_t rid);
/* Splice, finish, and free merged trees, as far as one run goes: for nobody's request. */
int merge_background(struct txn *t);

#endif
