/*
 * getxattr, setxattr, removexattr, listxattr: which names exist, who may change them (interface 2).
 * Access by namespace (user., trusted., security.) is the kernel's business; scoutfs. tags are
 * ours.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "acl.h"
#include "caller.h"
#include "format/item_check.h"
#include "locks.h"
#include "log.h"
#include "ops_attr.h"
#include "xattr.h"

static struct xattr_op *xattr_op(struct op *op)
{
	return (struct xattr_op *)op;
}

static bool has_prefix(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_acl(const char *name)
{
	return strcmp(name, ACL_ACCESS_NAME) == 0 || strcmp(name, ACL_DEFAULT_NAME) == 0;
}

/* Whether the name may exist at all here. */
static int check_name(struct op *op, const char *name)
{
	if (is_acl(name))
		return op->fsd->conf.acl ? 0 : -EOPNOTSUPP;
	if (has_prefix(name, "user.") || has_prefix(name, "trusted.") ||
	    has_prefix(name, "security."))
		return strchr(name, '.')[1] ? 0 : -EINVAL;
	if (strncmp(name, "scoutfs.", 8) == 0)
		return 0;
	return -EOPNOTSUPP;
}

/* Tags have effects elsewhere on the volume that this version does not make (design.md §6). */
static int check_change(struct op *op, uint64_t ino, const char *name)
{
	int ret = check_name(op, name);

	if (ret < 0 || strncmp(name, "scoutfs.", 8) != 0)
		return ret;
	if (xattr_name_tags(name, strlen(name)) <= 0)
		return -EINVAL;
	stats_inc(&op->fsd->stats.refused_unsupported);
	log_notice("inode %llu: changing the attribute %s is refused: this version reads tagged "
		   "attributes but does not write them yet",
		   (unsigned long long)ino, name);
	return -EOPNOTSUPP;
}

static int load(struct op *op, struct itx *tx, enum lock_mode mode, struct cinode *ci)
{
	struct xattr_op *x = xattr_op(op);
	int ret = lock_inode(op, x->ino, mode);

	if (ret == 0)
		ret = inode_get(tx, x->ino, ci);
	return ret == -ENOENT ? -ESTALE : ret;
}

int xattr_run_get(struct op *op, struct itx *tx)
{
	struct xattr_op *x = xattr_op(op);
	struct cinode ci;
	int ret = check_name(op, x->name);

	if (ret == 0)
		ret = load(op, tx, LOCK_MODE_READ, &ci);
	if (ret < 0)
		return ret;
	ret = xattr_read(tx, x->ino, x->name, x->val);
	if (ret < 0)
		return ret;
	x->len = (size_t)ret;
	return 0;
}

/* The parts of the largest value, new or replaced (format 12.6), and the inode. */
#define CHANGE_ITEMS	(74 + 2)

static int begin_change(struct op *op, struct itx *tx, bool allocating, struct cinode *ci)
{
	struct xattr_op *x = xattr_op(op);
	int ret = check_change(op, x->ino, x->name);

	if (ret == 0)
		ret = txn_hold(op, tx, CHANGE_ITEMS, allocating);
	if (ret == 0)
		ret = load(op, tx, LOCK_MODE_WRITE, ci);
	if (ret == 0 && has_prefix(x->name, "user."))
		ret = inode_may_change(tx, x->ino, ci, false);
	if (ret == 0 && is_acl(x->name))
		ret = owner_check(&x->by, ci, CAP_FOWNER);
	return ret;
}

static bool is_of_group(const struct xattr_op *x, uint32_t gid)
{
	for (size_t i = 0; i < x->groups_nr; i++) {
		if (x->groups[i] == gid)
			return true;
	}
	return false;
}

int xattr_run_set(struct op *op, struct itx *tx)
{
	struct xattr_op *x = xattr_op(op);
	struct cinode ci;
	int ret;

	if ((x->flags & (XATTR_CREATE | XATTR_REPLACE)) == (XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (x->len > XATTR_VALUE_MAX_BYTES)
		return -E2BIG;
	ret = begin_change(op, tx, true, &ci);
	if (ret < 0)
		return ret;
	if (strcmp(x->name, ACL_ACCESS_NAME) == 0) {
		ret = acl_set_access(&ci, x->val, x->len);
		if (ret < 0)
			return ret;
		if (x->groups && !is_of_group(x, le32_get(ci.d.gid)))
			ci.d.mode = le32_of(inode_mode(&ci) & ~(uint32_t)S_ISGID);
		if (ret == 1)
			ret = xattr_remove(tx, x->ino, &ci, x->name);
		else
			ret = xattr_write(tx, x->ino, &ci, x->name, x->val, x->len, 0);
		if (ret == -ENODATA)
			ret = 0;
	} else {
		if (strcmp(x->name, ACL_DEFAULT_NAME) == 0) {
			if (!S_ISDIR(inode_mode(&ci)))
				return -EACCES;
			ret = acl_check_value(x->val, x->len);
			if (ret < 0)
				return ret;
		}
		ret = xattr_write(tx, x->ino, &ci, x->name, x->val, x->len, x->flags);
	}
	if (ret < 0)
		return ret;
	inode_touch(&ci, INODE_CTIME);
	return inode_put(tx, x->ino, &ci, false);
}

int xattr_run_remove(struct op *op, struct itx *tx)
{
	struct xattr_op *x = xattr_op(op);
	struct cinode ci;
	int ret = begin_change(op, tx, false, &ci);

	if (ret < 0)
		return ret;
	ret = xattr_remove(tx, x->ino, &ci, x->name);
	if (ret == -ENODATA && is_acl(x->name))
		return 0;	/* removing an ACL that is not there succeeds, as in the VFS */
	if (ret < 0)
		return ret;
	inode_touch(&ci, INODE_CTIME);
	return inode_put(tx, x->ino, &ci, false);
}

int xattr_run_list(struct op *op, struct itx *tx)
{
	struct xattr_op *x = xattr_op(op);
	struct key key = key_xattr(x->ino, 0, 0, 0);
	struct key last = key_xattr(x->ino, UINT32_MAX, UINT64_MAX, UINT8_MAX);
	struct cinode ci;
	struct ival iv;
	int ret = load(op, tx, LOCK_MODE_READ, &ci);

	if (ret < 0)
		return ret;
	x->len = 0;
	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		const struct disk_xattr *d = iv.val;
		int tags;

		key = key_next(key_xattr(x->ino, (uint32_t)iv.key.second, iv.key.third, UINT8_MAX));
		if (iv.key.fourth != 0 || iv.len < sizeof(*d) + d->name_len) {
			stats_inc(&op->fsd->stats.corrupt_items);
			log_err("inode %llu: attribute id %llu is malformed: run scoutfsctl check",
				(unsigned long long)x->ino, (unsigned long long)iv.key.third);
			return -EIO;
		}
		tags = xattr_name_tags(d->name, d->name_len);
		if (tags > 0 && tags & XATTR_TAG_HIDE)
			continue;
		if (x->len + d->name_len + 1 > XATTR_LIST_BYTES)
			return -E2BIG;
		memcpy((char *)x->val + x->len, d->name, d->name_len);
		((char *)x->val)[x->len + d->name_len] = 0;
		x->len += d->name_len + 1u;
	}
	return ret == -ENOENT ? 0 : ret;
}
