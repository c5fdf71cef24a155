/*
 * The life of mounts' log trees on the server's side: open, commit, finalize.  format.md 11.1-11.2;
 * runtime.md 3.8, 5.5-5.7.  Calls are for the run() of a txn job, with its rules: -EINPROGRESS means
 * commit and call again, another error means that the transaction is taken back.
 */
#ifndef SCOUTFS_SERVERD_LOGS_H
#define SCOUTFS_SERVERD_LOGS_H

#include "merge.h"
#include "txn.h"

static inline bool logs_is_open(const struct disk_log_trees *lt)
{
	return le64_get(lt->get_trans_seq) > le64_get(lt->commit_trans_seq);
}

/*
 * Open rid's next transaction: *out is its log tree with a new get_trans_seq and refilled allocators,
 * or, unchanged, the transaction that is open already.  It passes gate (NULL: there is none) first;
 * if that is to be waited for *out is not open (logs_is_open): then call again.  -ENOSPC: the server
 * itself has no block left.
 */
int logs_open(struct txn *t, uint64_t rid, struct merge_gate *gate, struct disk_log_trees *out);

/*
 * Store what rid committed, and if open_next open its next transaction in the same commit, unless gate
 * is to be waited for, as above.  Given again after it was stored, it changes nothing; *out is then what
 * is stored.  -EINVAL: it is not the transaction that is open, or it cannot be what such a mount would
 * commit; -ENOENT: no such tree.
 */
int logs_commit(struct txn *t, uint64_t rid, const struct disk_log_trees *in, bool open_next,
		struct merge_gate *gate, struct disk_log_trees *out);

/*
 * Finish *lt, which is stored, not open, and its mount's newest tree; *lt becomes the next one of that
 * mount, which has all of its allocators (format.md 11.2, merge.c).
 */
int logs_continue(struct txn *t, struct disk_log_trees *lt);

/*
 * The mount is gone: give everything its newest tree has in its allocators back and mark it finished.
 * What it had committed stays readable in it.  0 also when there is nothing to do.
 */
int logs_finalize(struct txn *t, uint64_t rid);

/* The newest tree of rid.  -ENOENT. */
int logs_newest(struct txn *t, uint64_t rid, struct disk_log_trees *lt);

/* Call each(rid) for every rid whose newest tree is not finished and that is not in mounted_clients. */
int logs_each_abandoned(struct txn *t, int (*each)(void *arg, uint64_t rid), void *arg);

#endif
