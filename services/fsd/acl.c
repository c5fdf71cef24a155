/*
 * POSIX ACLs: the kernel's version 2 xattr encoding, stored as it is (format 12.6, interface 2.3).
 * The kernel enforces them (default_permissions, FUSE_POSIX_ACL); what is ours is inheritance by
 * new inodes and keeping mode and access ACL in step.
 */
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "acl.h"
#include "log.h"
#include "xattr.h"

/* An ACL of a page, the most that Linux sets through FUSE, is inherited twice in 10 items; others
 * may set more. */
#define ACL_ORDINARY_BYTES	4096
#define ACL_HUGE_ITEMS		(24 + 2 * 74)

struct acl_bytes {
	le32 version;
	struct {
		le16 tag;
		le16 perm;
		le32 id;
	} e[];
};

/*
 * The number of entries of a well-formed ACL, or -EINVAL: in the order of their tags, one each of
 * owner, group and others, a mask if anything is named, at most one of it (as the kernel has it).
 */
static int acl_check(const void *val, size_t len)
{
	static const uint16_t order[] = { ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ,
					  ACL_GROUP,    ACL_MASK, ACL_OTHER };
	const struct acl_bytes *a = val;
	unsigned seen[6] = { 0 }, at = 0;
	size_t n;

	if (len < sizeof(*a) || (len - sizeof(*a)) % sizeof(a->e[0]) ||
	    le32_get(a->version) != POSIX_ACL_XATTR_VERSION)
		return -EINVAL;
	n = (len - sizeof(*a)) / sizeof(a->e[0]);
	for (size_t i = 0; i < n; i++) {
		while (at < 6 && order[at] != le16_get(a->e[i].tag))
			at++;
		if (at == 6 || le16_get(a->e[i].perm) & ~7)
			return -EINVAL;
		seen[at]++;
	}
	if (seen[0] != 1 || seen[2] != 1 || seen[5] != 1 || seen[4] > 1 ||
	    ((seen[1] || seen[3]) && !seen[4]))
		return -EINVAL;
	return (int)n;
}

/*
 * What each class may at most do: the owner, the group class (the mask if there is one) and others.
 * `mode` gives the limits; entries are cut to them and *mode becomes what the ACL says.  Returns
 * whether the ACL says no more than mode bits do.
 */
static bool acl_mask_with_mode(struct acl_bytes *a, int n, uint32_t *mode)
{
	int group = -1, mask = -1;
	uint32_t out = *mode & ~0777u, perm;
	bool plain = true;

	for (int i = 0; i < n; i++) {
		uint16_t tag = le16_get(a->e[i].tag);

		perm = le16_get(a->e[i].perm);
		if (tag == ACL_USER_OBJ) {
			perm &= *mode >> 6 & 7;
			a->e[i].perm = le16_of((uint16_t)perm);
			out |= perm << 6;
		} else if (tag == ACL_OTHER) {
			perm &= *mode & 7;
			a->e[i].perm = le16_of((uint16_t)perm);
			out |= perm;
		} else if (tag == ACL_GROUP_OBJ) {
			group = i;
		} else if (tag == ACL_MASK) {
			mask = i;
			plain = false;
		} else {
			plain = false;
		}
	}
	if (mask >= 0)
		group = mask;
	if (group >= 0) {
		perm = le16_get(a->e[group].perm) & (*mode >> 3 & 7);
		a->e[group].perm = le16_of((uint16_t)perm);
		out |= perm << 3;
	}
	*mode = out;
	return plain;
}

int acl_inherit(struct itx *tx, uint64_t dir, uint64_t ino, struct cinode *ci, uint32_t umask)
{
	uint32_t mode = inode_mode(ci);
	void *buf;
	int len, n, ret = 0;
	bool plain;

	if (S_ISLNK(mode))
		return 0;
	if (!tx->fsd->conf.acl) {
		ci->d.mode = le32_of(mode & ~umask);
		return 0;
	}
	buf = malloc(XATTR_VALUE_MAX_BYTES);
	if (!buf)
		return -ENOMEM;
	len = xattr_read(tx, dir, ACL_DEFAULT_NAME, buf);
	if (len == -ENODATA) {
		ci->d.mode = le32_of(mode & ~umask);
		goto out;
	}
	if (len < 0) {
		ret = len;
		goto out;
	}
	if (len > ACL_ORDINARY_BYTES && tx->op) {
		/* more items than the creation has reckoned with */
		ret = txn_hold(tx->op, tx, ACL_HUGE_ITEMS, true);
		if (ret < 0)
			goto out;
	}
	n = acl_check(buf, (size_t)len);
	if (n < 0) {
		log_err("inode %llu: its default ACL is malformed: remove it with setfacl -k",
			(unsigned long long)dir);
		ret = -EIO;
		goto out;
	}
	if (S_ISDIR(mode)) {
		ret = xattr_write(tx, ino, ci, ACL_DEFAULT_NAME, buf, (size_t)len, 0);
		if (ret < 0)
			goto out;
	}
	plain = acl_mask_with_mode(buf, n, &mode);
	ci->d.mode = le32_of(mode);
	if (!plain)
		ret = xattr_write(tx, ino, ci, ACL_ACCESS_NAME, buf, (size_t)len, 0);
out:
	free(buf);
	return ret;
}

int acl_chmod(struct itx *tx, uint64_t ino, struct cinode *ci, uint32_t mode)
{
	struct acl_bytes *a;
	int len, n, group = -1, ret = 0;

	if (!tx->fsd->conf.acl || S_ISLNK(inode_mode(ci)))
		return 0;
	a = malloc(XATTR_VALUE_MAX_BYTES);
	if (!a)
		return -ENOMEM;
	len = xattr_read(tx, ino, ACL_ACCESS_NAME, a);
	if (len < 0) {
		ret = len == -ENODATA ? 0 : len;
		goto out;
	}
	n = acl_check(a, (size_t)len);
	if (n < 0) {
		log_err("inode %llu: its access ACL is malformed: remove it with setfacl -b",
			(unsigned long long)ino);
		ret = -EIO;
		goto out;
	}
	for (int i = 0; i < n; i++) {
		uint16_t tag = le16_get(a->e[i].tag);

		if (tag == ACL_USER_OBJ)
			a->e[i].perm = le16_of((uint16_t)(mode >> 6 & 7));
		else if (tag == ACL_OTHER)
			a->e[i].perm = le16_of((uint16_t)(mode & 7));
		else if (tag == ACL_MASK || (tag == ACL_GROUP_OBJ && group < 0))
			group = i;
	}
	if (group >= 0)
		a->e[group].perm = le16_of((uint16_t)(mode >> 3 & 7));
	ret = xattr_write(tx, ino, ci, ACL_ACCESS_NAME, a, (size_t)len, XATTR_REPLACE);
out:
	free(a);
	return ret;
}

int acl_set_access(struct cinode *ci, const void *val, size_t len)
{
	const struct acl_bytes *a = val;
	uint32_t mode = inode_mode(ci) & ~0777u;
	int n = acl_check(val, len), group = -1;
	bool plain = true;

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		uint16_t tag = le16_get(a->e[i].tag);
		uint32_t perm = le16_get(a->e[i].perm);

		if (tag == ACL_USER_OBJ)
			mode |= perm << 6;
		else if (tag == ACL_OTHER)
			mode |= perm;
		else if (tag == ACL_GROUP_OBJ)
			group = group < 0 ? i : group;
		else
			plain = false;
		if (tag == ACL_MASK)
			group = i;
	}
	if (group >= 0)
		mode |= (uint32_t)le16_get(a->e[group].perm) << 3;
	ci->d.mode = le32_of(mode);
	return plain;
}

int acl_check_value(const void *val, size_t len)
{
	int n = acl_check(val, len);

	return n < 0 ? n : 0;
}
