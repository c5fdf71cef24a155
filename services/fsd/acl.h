/* POSIX ACL values: interface.md 2.3.  acl_inherit and acl_chmod stand in xattr.h. */
#ifndef SCOUTFS_FSD_ACL_H
#define SCOUTFS_FSD_ACL_H

#include "inode.h"

/* An access ACL is being set: ci's mode bits become what it says.  1: it says no more than mode bits do
 * (store no attribute); 0: store it; -EINVAL. */
int acl_set_access(struct cinode *ci, const void *val, size_t len);
/* Whether the bytes are a well-formed ACL: 0 or -EINVAL. */
int acl_check_value(const void *val, size_t len);

#endif
