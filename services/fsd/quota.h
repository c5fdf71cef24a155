/* Quota rules: format.md 12.10, runtime.md 13.3, interface.md 3.5. */
#ifndef SCOUTFS_FSD_QUOTA_H
#define SCOUTFS_FSD_QUOTA_H

#include "op.h"

enum quota_op { QUOTA_INODE, QUOTA_DATA };

/*
 * Whether an inode with these attributes may be created (QUOTA_INODE) or grow (QUOTA_DATA): 0,
 * -EDQUOT, or OP_PARKED while rules or a total are read.  Rules are strict (read under the quota
 * lock); totals may be 5 s old.  Call it after the inode locks have been taken.
 */
int quota_check(struct op *op, struct itx *tx, enum quota_op what, uint64_t proj, uint32_t uid, uint32_t gid);

#endif
