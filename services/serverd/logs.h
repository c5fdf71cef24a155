/*
 * The life of mounts' log trees on the server's side: open, commit, finalize.  format.md 11.1-11.2;
 * runtime.md 3.8, 5.5-5.7.  Calls are for the run() of a txn job, with its rules: -EINPROGRESS means
 * commit and call again, another error means that the transaction is taken back.
 */
#ifndef SCOUTFS_SERVERD_LOGS_H
#define SCOUTFS_SERVERD_LOGS_H

#include "txn.h"

/*
 * Open rid's next transaction: *out is its log tree with a new get_trans_seq and refilled allocators,
 * or, unchanged, the transaction that is open already.  -ENOSPC: the server itself has no block left.
 */
int logs_open(struct txn *t, uint64_t rid, struct disk_log_trees *out);

/*
 * Store what rid committed, and if open_next open its next transaction in the same commit.  Given
 * again after it was stored, it changes nothing; *out is then what is stored.  -EINVAL: it is not the
 * transaction that is open, or it cannot be what such a mount would commit; -ENOENT: no such tree.
 */
int logs_commit(struct txn *t, uint64_t rid, const struct disk_log_trees *in, bool open_next,
		struct disk_log_trees *out);

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
