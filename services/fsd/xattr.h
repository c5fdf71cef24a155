/* Extended attributes and POSIX ACLs inside a transaction: format.md 12.6, interface.md 2. */
#ifndef SCOUTFS_FSD_XATTR_H
#define SCOUTFS_FSD_XATTR_H

#include "inode.h"

#define ACL_ACCESS_NAME		"system.posix_acl_access"
#define ACL_DEFAULT_NAME	"system.posix_acl_default"

/* The value of an attribute into buf (at least XATTR_VALUE_MAX_BYTES); returns its length, -ENODATA, or as item_get. */
int xattr_read(struct itx *tx, uint64_t ino, const char *name, void *buf);
/* Create or replace (flags of setxattr(2)); remove.  Changes next_xattr_id in *ci where needed, but does
 * not inode_put it.  -EEXIST, -ENODATA, or as item_put. */
int xattr_write(struct itx *tx, uint64_t ino, struct cinode *ci, const char *name, const void *val,
		size_t len, int flags);
int xattr_remove(struct itx *tx, uint64_t ino, struct cinode *ci, const char *name);
/* security.capability, where there is one: a write, a truncation and a chown take it away.  As xattr_remove. */
int xattr_drop_capability(struct itx *tx, uint64_t ino, struct cinode *ci);
/*
 * Remove every attribute, whole ones until `max` items or more are gone, XATTR_REMOVE_MAX(max) at most; OP_MORE if
 * more remain.
 */
#define XATTR_REMOVE_MAX(max) ((max) - 1 + XATTR_PARTS_MAX)
int xattr_remove_some(struct itx *tx, uint64_t ino, unsigned max);

/*
 * A new inode under dir: dir's default ACL becomes its access ACL masked by *mode (and, for a directory,
 * its default ACL too); without one the umask applies.  Changes *mode and ci's mode, writes attributes.
 */
int acl_inherit(struct itx *tx, uint64_t dir, uint64_t ino, struct cinode *ci, uint32_t umask);
/* chmod: rewrite the mask (or group) entry of the access ACL, if there is one. */
int acl_chmod(struct itx *tx, uint64_t ino, struct cinode *ci, uint32_t mode);

#endif
