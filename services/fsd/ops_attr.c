/* getattr, setattr, readlink: one inode, one transaction (a truncation: several,
 * INODE_FLAG_TRUNCATE between them). */
#include "ops_attr.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <string.h>

#include "caller.h"
#include "data.h"
#include "locks.h"
#include "log.h"
#include "xattr.h"

#define TRUNCATE_EXTENTS	8	/* in one transaction (runtime 0.4) */

static struct attr_op *attr_op(struct op *op)
{
	return (struct attr_op *)op;
}

int attr_run_get(struct op *op, struct itx *tx)
{
	struct attr_op *a = attr_op(op);
	int ret = data_wait_pending(op, a->ino, false);	/* a store to a mapped page has set mtime */

	if (ret == 0)
		ret = lock_inode(op, a->ino, LOCK_MODE_READ);
	if (ret == 0)
		ret = inode_get(tx, a->ino, &a->ci);
	return ret == -ENOENT ? -ESTALE : ret;
}

static void set_times(struct attr_op *a, struct cinode *ci)
{
	unsigned now = 0;

	if (a->to_set & FUSE_SET_ATTR_ATIME_NOW)
		now |= INODE_ATIME;
	else if (a->to_set & FUSE_SET_ATTR_ATIME)
		ci->d.atime = disk_time(&a->attr.st_atim);
	if (a->to_set & FUSE_SET_ATTR_MTIME_NOW)
		now |= INODE_MTIME;
	else if (a->to_set & FUSE_SET_ATTR_MTIME)
		ci->d.mtime = disk_time(&a->attr.st_mtim);
	if (a->to_set & FUSE_SET_ATTR_CTIME)
		ci->d.ctime = disk_time(&a->attr.st_ctim);
	else
		now |= INODE_CTIME;
	inode_touch(ci, now);
}

int owner_check(const struct asker *by, const struct cinode *ci, unsigned cap)
{
	uint64_t caps;

	if (by->uid == 0 || by->uid == le32_get(ci->d.uid))
		return 0;
	/* one that cannot be seen from here: as the kernel says */
	if (caller_caps(by->tid, le32_get(ci->d.uid), le32_get(ci->d.gid), &caps) < 0)
		return 0;
	return caps >> cap & 1 ? 0 : -EPERM;
}

static bool sets_time(const struct attr_op *a, int flag, int now_flag)
{
	return a->to_set & flag && !(a->to_set & now_flag);
}

/* Kernels before 5.12 say so when somebody else writes to a file that is setuid or setgid. */
static bool only_drops_suidgid(const struct attr_op *a, const struct cinode *ci)
{
	uint32_t old = inode_mode(ci) & 07777, new = a->attr.st_mode & 07777;

	return (old & ~(uint32_t)(S_ISUID | S_ISGID)) == (new & ~(uint32_t)(S_ISUID | S_ISGID)) && new != old &&
	       !(new & ~old);
}

/* What only the owner may set, and what an owner may not change. */
static int check_owner(const struct attr_op *a, const struct cinode *ci)
{
	if (a->to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		return owner_check(&a->by, ci, CAP_CHOWN);
	if ((a->to_set & FUSE_SET_ATTR_MODE && !only_drops_suidgid(a, ci)) ||
	    sets_time(a, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW) ||
	    sets_time(a, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW))
		return owner_check(&a->by, ci, CAP_FOWNER);
	return 0;
}

static int set_size(struct op *op, struct itx *tx, struct cinode *ci)
{
	struct attr_op *a = attr_op(op);
	uint64_t size = (uint64_t)a->attr.st_size;

	if (!S_ISREG(inode_mode(ci)))
		return S_ISDIR(inode_mode(ci)) ? -EISDIR : -EINVAL;
	if (a->attr.st_size < 0)
		return -EINVAL;
	if (!(a->to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)))
		inode_touch(ci, INODE_MTIME);
	return data_set_size(tx, a->ino, ci, size);
}

/* Later transactions of a truncation: a few extents each, then the flag goes. */
static int truncate_more(struct op *op, struct itx *tx)
{
	struct attr_op *a = attr_op(op);
	uint64_t from = (inode_size(&a->ci) + SMALL_SIZE - 1) >> SMALL_SHIFT;
	int ret;

	ret = data_truncate_some(tx, a->ino, &a->ci, from, TRUNCATE_EXTENTS);
	if (ret < 0)
		return ret;
	if (ret == 0)
		a->ci.d.flags = le32_of(le32_get(a->ci.d.flags) & ~INODE_FLAG_TRUNCATE);
	if (inode_put(tx, a->ino, &a->ci, false) < 0)
		return -EIO;
	return ret;
}

int attr_run_set(struct op *op, struct itx *tx)
{
	struct attr_op *a = attr_op(op);
	bool takes = a->to_set & (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID);
	bool sizes = a->to_set & FUSE_SET_ATTR_SIZE, is_set = a->set_part && op->parts_nr >= a->set_part, resized;
	struct cinode ci;
	int ret;

	if (!is_set) {
		a->set_part = 0;	/* that transaction was not committed */
		op->is_decided = false;
	}
	/* what the kernel wrote back before comes first: neither its times nor its bytes may come
	 * after */
	ret = data_wait_pending(op, a->ino, false);
	if (ret == 0)
		ret = lock_inode(op, a->ino, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = inode_get(tx, a->ino, &ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	resized = sizes && (uint64_t)a->attr.st_size != inode_size(&ci);
	ret = txn_hold(op, tx, 16 + TRUNCATE_EXTENTS * 4 + (takes ? XATTR_PARTS_MAX : 0),
		       !sizes || (uint64_t)a->attr.st_size > inode_size(&ci));
	if (ret < 0)
		return ret;
	if (is_set) {
		a->ci = ci;
		return le32_get(ci.d.flags) & INODE_FLAG_TRUNCATE ? truncate_more(op, tx) : 0;
	}
	ret = inode_may_change(tx, a->ino, &ci, sizes);
	if (ret == 0)
		ret = check_owner(a, &ci);
	if (ret < 0)
		return ret;
	if (sizes && le32_get(ci.d.flags) & INODE_FLAG_TRUNCATE) {
		/* an interrupted truncation comes first: its blocks must not show again */
		a->ci = ci;
		ret = truncate_more(op, tx);
		return ret < 0 ? ret : OP_MORE;
	}
	if (takes && S_ISREG(inode_mode(&ci))) {
		ret = xattr_drop_capability(tx, a->ino, &ci);
		if (ret < 0)
			return ret;
	}
	if (a->to_set & FUSE_SET_ATTR_UID)
		ci.d.uid = le32_of(a->attr.st_uid);
	if (a->to_set & FUSE_SET_ATTR_GID)
		ci.d.gid = le32_of(a->attr.st_gid);
	/*
	 * As Linux does, also when root gives a file away.  An explicit mode says what is to stay.  One that sets
	 * nothing is a chown(2) to nobody else, which the kernel lets everybody ask for; or it comes before a write,
	 * which takes them away itself.
	 */
	if (a->kill_suidgid || (a->to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) ||
	    (!a->to_set && (a->by.uid == 0 || a->by.uid == le32_get(ci.d.uid))))
		inode_drop_suidgid(&ci);
	if (a->to_set & FUSE_SET_ATTR_MODE) {
		ci.d.mode = le32_of((inode_mode(&ci) & S_IFMT) | (a->attr.st_mode & 07777));
		ret = acl_chmod(tx, a->ino, &ci, inode_mode(&ci));
		if (ret < 0)
			return ret;
	}
	/* Last of what may wait: what it zeroes in a page does not come back when the operation ends without it. */
	if (sizes) {
		ret = set_size(op, tx, &ci);
		if (ret < 0)
			return ret;
	}
	set_times(a, &ci);
	ret = inode_put(tx, a->ino, &ci, resized);
	if (ret < 0)
		return ret;
	a->ci = ci;
	if (le32_get(ci.d.flags) & INODE_FLAG_TRUNCATE) {
		a->set_part = op->parts_nr + 1;
		op->is_decided = true;	/* the rest may be anybody's work */
		return OP_MORE;
	}
	return 0;
}

int attr_run_readlink(struct op *op, struct itx *tx)
{
	struct readlink_op *r = (struct readlink_op *)op;
	struct cinode ci;
	uint64_t len, at = 0;
	int ret = lock_inode(op, r->ino, LOCK_MODE_READ);

	if (ret == 0)
		ret = inode_get(tx, r->ino, &ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	if (!S_ISLNK(inode_mode(&ci)))
		return -EINVAL;
	len = inode_size(&ci);
	for (uint64_t i = 0; at < len && len <= sizeof(r->target); i++) {
		struct key key = key_symlink(r->ino, i);
		struct ival iv;

		ret = item_get(tx, &key, &iv);
		if (ret == -ENOENT || (ret == 0 && (iv.len > len - at || iv.len == 0)))
			break;
		if (ret < 0)
			return ret;
		memcpy(r->target + at, iv.val, iv.len);
		at += iv.len;
	}
	if (len == 0 || at != len || r->target[len - 1] != 0) {
		log_err("inode %llu: its symlink target is malformed: run scoutfsctl check",
			(unsigned long long)r->ino);
		stats_inc(&op->fsd->stats.corrupt_items);
		return -EIO;
	}
	return 0;
}
