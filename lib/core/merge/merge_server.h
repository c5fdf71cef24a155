/*
 * Log merge, the part of the server: handing out ranges of fs_root, taking back what mounts made of
 * them, splicing, finishing, and freeing the trees that were merged.  runtime.md 7.2 (step 8), 7.3,
 * 7.4 (server), 7.5, 2.6 (step 4); format.md 14.
 *
 * All state is in trees: the items of log_merge.  Every call here is a piece of one server
 * transaction and pure: it reads the items, changes trees through the caller's block set and
 * allocator, and answers
 *   0		done, durable with the next commit;
 *   -EINPROGRESS	what was changed is consistent: commit it, then call again.  Any crash in
 *		between, and any other call of this header, is harmless;
 *   -ENOENT, -EEXIST, -EINVAL: where said; nothing has changed;
 *   another	-EBADMSG, -EUCLEAN, -EIO, -ENOMEM, -ENOSPC...: take back the transaction
 *		(block_set_abort, old super).
 * What comes back in *req and the like may be sent when the commit is durable, not before.
 *
 * Deciding that a merge may start (the barrier of 7.2) is the caller's.
 */
#ifndef SCOUTFS_MERGE_SERVER_H
#define SCOUTFS_MERGE_SERVER_H

#include "merge/merge.h"

/* Requests and completions at a time (14.2). */
#define MERGE_BATCH		8u
/* What one step of work may allocate or free at most, except for the end of a merge. */
#define MERGE_STEP_BLOCKS	150u

/* The server's transaction as seen from here; pointers are borrowed for a call. */
struct merge_server {
	struct block_set *bs;
	struct blkno_alloc *al;
	struct disk_super *super;		/* private: roots and inode_count change */
	const struct disk_super *stable;	/* as last committed */
	struct disk_alloc_list_head *freed;	/* where lists of mounts go (the idle freed list) */
	struct disk_alloc_root *meta_avail;	/* where requests are filled from */
	void *arg;
	uint64_t (*next_seq)(void *arg);
	/*
	 * How many blocks can still be allocated, and as many freed, before this must be committed.
	 */
	unsigned (*room)(void *arg);
	/*
	 * The same for the end of a merge, which cannot be divided, where room() holds back what
	 * others may want; NULL: room() does not.  It takes a block for each input and some more.
	 */
	unsigned (*room_at_end)(void *arg);
};

/*
 * Begin a merge of every tree finalized by now: all mounts' newest trees are (7.2).  -EEXIST: one
 * is active.
 */
int merge_server_start(struct merge_server *ms);

/*
 * Work for rid: 0 with *req.  Splices and finishes when it is time to (7.3 step 3, 7.5), which is
 * why it may answer -EINPROGRESS often.  -ENOENT: no merge, or nothing to hand out now; ask again
 * later.  A rid that has a request already is given that one again: it asks because it never got
 * it, or lost the work on it.
 */
int merge_server_get(struct merge_server *ms, uint64_t rid, struct merge_request *req);

/*
 * Take back a request, as merge_run_result or merge_run_give_up made it.  -ENOENT: rid has no such
 * request (any more): the answer to a repeated commit is success, nothing changes.  -EINVAL: it
 * does not fit the request, or what was to be on the device is not there; nothing changes, and the
 * mount may still give the request up.
 */
int merge_server_commit(struct merge_server *ms, uint64_t rid, const struct merge_complete *comp);

/* Give up every request of rid on its behalf (2.6 step 4).  0 also when there is none. */
int merge_server_release(struct merge_server *ms, uint64_t rid);

/*
 * Splice and finish when it is time to, as merge_server_get does, without asking for work: for a
 * server with nobody who asks.  0: nothing to do (now).
 */
int merge_server_advance(struct merge_server *ms);

/*
 * Free blocks of merged trees, at most blocks_max: 0: none are left to free; -EINPROGRESS: there
 * are more.
 */
int merge_server_free(struct merge_server *ms, unsigned blocks_max);

/* For tests: what is in a log_merge tree.  Errors as btree.h. */
struct merge_counts {
	bool active;
	struct merge_status status;	/* if active */
	unsigned ranges, requests, completes, freeing;
};
int merge_server_count(struct block_set *bs, const struct disk_btree_root *log_merge,
		       struct merge_counts *n);

/*
 * What 7.3 and 14.2 do with these items; for the calls above and for a simulator.  ranges are all
 * of them in any order.
 */
enum merge_next {
	MERGE_NEXT_NOTHING,	/* the batch drains */
	MERGE_NEXT_HAND_OUT,	/* ranges[*pick], the least start >= next_range_key */
	MERGE_NEXT_SPLICE,	/* and finish, if then no range is left */
};
enum merge_next merge_decide(const struct merge_status *st, const struct merge_range *ranges,
			     size_t nr, size_t *pick);

/*
 * RANGE items are keyed by their start with another zone byte, so that starts of different zones
 * may want one key (7.3 step 2, [H]).  Find a start in [lo, hi] whose key no range of the array
 * has, near `want`; false: there is none among the first nr + 1 on either side.
 */
bool merge_place_start(const struct merge_range *ranges, size_t nr, const struct key *lo,
		       const struct key *want, const struct key *hi, struct key *start);

#endif
