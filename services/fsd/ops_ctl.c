/*
 * ioctls: interface.md 1.1-1.5.
 *
 * Each has up to three steps, in threads that suit them.  Who asks, where a privilege is needed, in
 * a thread for touching callers (caller.c).  The answer itself: an operation (op.c) where it comes
 * from the item cache, a thread that may block where it comes from the forest or the leader.  And
 * delivery: in the reply where the command's number lets FUSE carry it, else into the caller's
 * memory, again in a thread of caller.c, when the operation and its locks are long over.
 *
 * What a struct says is checked here: FUSE promises its size and nothing else.
 */
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdlib.h>
#include <string.h>

#include "caller.h"
#include "format/ioctl_abi.h"
#include "format/item_check.h"
#include "fuse.h"
#include "interrupt.h"
#include "locks.h"
#include "log.h"
#include "net.h"
#include "reader.h"
#include "xattr.h"

#define WALK_ENTRIES_MAX	65536u /* of one call; fewer than asked for is a good answer */
#define LIST_BYTES_MAX		(1u << 20)
#define PATH_RESTARTS_MAX	16u

struct ctl {
	struct op op;
	fuse_req_t req;
	uint64_t ino;
	struct caller caller;
	unsigned need_cap;		/* to be looked up: CAP + 1; 0: none is needed */
	union {
		struct ioc_walk_inodes walk;
		struct ioc_walk_inodes_n walk_n;
		struct ioc_ino_path path;
		struct ioc_ino_path_n path_n;
		struct ioc_listxattr_hidden list;
		struct ioc_listxattr_hidden_n list_n;
		struct ioc_inode_attr_x attr;
	} in;

	/* the answer */
	int result;			/* what ioctl(2) returns */
	union {
		struct ioc_walk_inodes_n walk_n;
		struct ioc_ino_path_n path_n;
		struct ioc_listxattr_hidden list;
		struct ioc_listxattr_hidden_n list_n;
		struct ioc_stat_more stat;
		struct ioc_statfs_more statfs;
	} head;				/* goes with the reply */
	size_t head_len;
	uint8_t *data;
	size_t data_len, data_max;
	size_t unit;	/* data may be cut between units: the result counts them; 0: it may not */
	bool to_caller; /* data goes to the caller's memory at `to`, else into the reply */
	uint64_t to;

	/* own memory of INO_PATH: the path grows from its end while its parents are looked up */
	uint64_t at;
	char *path;			/* data_max bytes */
	size_t path_len;
	struct ioc_ino_path_result entry;
	unsigned restarts;
	/* of WALK_INODES */
	struct key first, last;
};

static struct ctl *ctl_of(struct op *op)
{
	return (struct ctl *)op;
}

/* ---- the end of it ------------------------------------------------------------------- */

static void ctl_free(struct ctl *c)
{
	caller_fini(&c->caller);
	free(c->data);
	free(c->path);
	free(c);
}

static void fail(struct ctl *c, int err)
{
	fuse_reply_err(c->req, -err);
	ctl_free(c);
}

static void reply(struct ctl *c)
{
	struct iovec iov[2] = { { &c->head, c->head_len },
				{ c->data, c->to_caller ? 0 : c->data_len } };

	fuse_reply_ioctl_iov(c->req, c->result, iov, 2);
	ctl_free(c);
}

/* Only death counts: many a program gets signals all the time and expects no EINTR from a file. */
static bool is_interrupted(void *arg)
{
	struct ctl *c = arg;
	bool is;

	if (caller_enter())
		return true;
	is = fuse_req_interrupted(c->req) && thread_is_dying(c->caller.tid);
	caller_leave();
	return is;
}

static void deliver_work(void *arg)
{
	struct ctl *c = arg;
	struct fsd *fsd = c->op.fsd;
	size_t done;
	int ret;

	ret = caller_write(c->op.fsd, &c->caller, c->to, c->data, c->data_len,
			   c->unit ? c->unit : 1, is_interrupted, c, &done);
	if (caller_enter()) {
		ops_leave(fsd);
		return;		/* the mount is gone, and the request with it */
	}
	if (ret == -EINTR && c->unit && done / c->unit) {
		c->result = (int)(done / c->unit);
		ret = 0;
	}
	if (ret < 0)
		fail(c, ret);
	else
		reply(c);
	ops_leave(fsd);
	caller_leave();
}

static bool pointers_allowed(const struct ctl *c)
{
	switch (c->op.fsd->conf.ioctl_pointers) {
	case CONF_POINTERS_ON:
		return true;
	case CONF_POINTERS_ROOT:
		return c->caller.uid == 0;
	case CONF_POINTERS_OFF:
		break;
	}
	return false;
}

/* The memory that waits with it: what nothing was written to takes none. */
static size_t bytes_of(const struct ctl *c)
{
	return sizeof(*c) + c->data_len;
}

/* work() ends with ops_leave. */
static void run_in_thread(struct ctl *c, void (*work)(void *arg))
{
	struct fsd *fsd = c->op.fsd;
	int ret;

	ops_enter(fsd);
	ret = caller_run(c->caller.uid, bytes_of(c), work, c);
	if (ret == 0)
		return;
	fail(c, ret);
	ops_leave(fsd);
}

/* The answer is known: err, or what is in *c. */
static void finish(struct ctl *c, int err)
{
	if (err < 0) {
		fail(c, err);
		return;
	}
	if (!c->to_caller || !c->data_len) {
		reply(c);
		return;
	}
	run_in_thread(c, deliver_work);
}

static void ctl_done(struct op *op, int err)
{
	fuse_op_done(ctl_of(op)->req, op);
	finish(ctl_of(op), err);
}

static int data_alloc(struct ctl *c, size_t max)
{
	c->data_max = max;
	c->data = malloc(max ? max : 1);
	return c->data ? 0 : -ENOMEM;
}

/* ---- what an inode says -------------------------------------------------------------- */

static int get_inode(struct op *op, struct itx *tx, uint64_t ino, struct cinode *ci)
{
	int ret = lock_inode(op, ino, LOCK_MODE_READ);

	if (ret == 0)
		ret = inode_get(tx, ino, ci);
	return ret == -ENOENT ? -ESTALE : ret;
}

static int stat_run(struct op *op, struct itx *tx)
{
	struct ctl *c = ctl_of(op);
	struct ioc_stat_more *st = &c->head.stat;
	struct cinode ci;
	uint64_t meta, data;
	int ret = get_inode(op, tx, c->ino, &ci);

	if (ret < 0)
		return ret;
	meta = le64_get(ci.d.meta_seq);
	data = le64_get(ci.d.data_seq);
	ret = txn_resolve_seq(op, tx, &meta);
	if (ret == 0)
		ret = txn_resolve_seq(op, tx, &data);
	if (ret < 0)
		return ret;
	*st = (struct ioc_stat_more){
		.meta_seq = meta,
		.data_seq = data,
		.data_version = le64_get(ci.d.data_version),
		.online_blocks = le64_get(ci.d.online_blocks),
		.offline_blocks = le64_get(ci.d.offline_blocks),
		.crtime_sec = le64_get(ci.d.crtime.sec),
		.crtime_nsec = le32_get(ci.d.crtime.nsec),
	};
	c->head_len = sizeof(*st);
	return 0;
}

/* Where the last field that was asked for ends: no more than that is written back. */
static size_t attr_end(uint64_t mask)
{
	static const struct {
		uint64_t bit;
		size_t end;
	} fields[] = {
#define ATTR_END(field)                                                                            \
	(offsetof(struct ioc_inode_attr_x, field) + sizeof(((struct ioc_inode_attr_x *)0)->field))
		{ ATTR_X_META_SEQ, ATTR_END(meta_seq) },
		{ ATTR_X_DATA_SEQ, ATTR_END(data_seq) },
		{ ATTR_X_DATA_VERSION, ATTR_END(data_version) },
		{ ATTR_X_ONLINE_BLOCKS, ATTR_END(online_blocks) },
		{ ATTR_X_OFFLINE_BLOCKS, ATTR_END(offline_blocks) },
		{ ATTR_X_CTIME, ATTR_END(ctime_nsec) },
		{ ATTR_X_CRTIME, ATTR_END(crtime_sec) },
		{ ATTR_X_SIZE, ATTR_END(size) },
		{ ATTR_X_RETENTION, ATTR_END(bits) },
		{ ATTR_X_PROJECT_ID, ATTR_END(project_id) },
#undef ATTR_END
	};
	size_t end = 0;

	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (mask & fields[i].bit && fields[i].end > end)
			end = fields[i].end;
	}
	return end;
}

static int attr_run(struct op *op, struct itx *tx)
{
	struct ctl *c = ctl_of(op);
	struct ioc_inode_attr_x *a = &c->in.attr;
	uint64_t mask = a->x_mask, meta, data;
	struct cinode ci;
	int ret = get_inode(op, tx, c->ino, &ci);

	if (ret < 0)
		return ret;
	meta = le64_get(ci.d.meta_seq);
	data = le64_get(ci.d.data_seq);
	if (mask & ATTR_X_META_SEQ)
		ret = txn_resolve_seq(op, tx, &meta);
	if (ret == 0 && mask & ATTR_X_DATA_SEQ)
		ret = txn_resolve_seq(op, tx, &data);
	if (ret < 0)
		return ret;
	if (mask & ATTR_X_META_SEQ)
		a->meta_seq = meta;
	if (mask & ATTR_X_DATA_SEQ)
		a->data_seq = data;
	if (mask & ATTR_X_DATA_VERSION)
		a->data_version = le64_get(ci.d.data_version);
	if (mask & ATTR_X_ONLINE_BLOCKS)
		a->online_blocks = le64_get(ci.d.online_blocks);
	if (mask & ATTR_X_OFFLINE_BLOCKS)
		a->offline_blocks = le64_get(ci.d.offline_blocks);
	if (mask & ATTR_X_CTIME) {
		a->ctime_sec = le64_get(ci.d.ctime.sec);
		a->ctime_nsec = le32_get(ci.d.ctime.nsec);
	}
	if (mask & ATTR_X_CRTIME) {
		a->crtime_sec = le64_get(ci.d.crtime.sec);
		a->crtime_nsec = le32_get(ci.d.crtime.nsec);
	}
	if (mask & ATTR_X_SIZE)
		a->size = inode_size(&ci);
	if (mask & ATTR_X_RETENTION)
		a->bits = le32_get(ci.d.flags) & INODE_FLAG_RETENTION ? ATTR_X_BIT_RETENTION : 0;
	if (mask & ATTR_X_PROJECT_ID)
		a->project_id = le64_get(ci.d.proj);
	c->data_len = attr_end(mask);
	memcpy(c->data, a, c->data_len);
	return 0;
}

static int attr_prepare(struct ctl *c)
{
	if (c->in.attr.x_mask == 0)
		return 1;
	if (c->in.attr.x_mask & ~(uint64_t)ATTR_X_ALL ||
	    c->in.attr.x_flags & ~(uint64_t)ATTR_X_FLAG_SIZE_OFFLINE)
		return -EINVAL;
	if (c->in.attr.x_mask & (ATTR_X_RETENTION | ATTR_X_PROJECT_ID) && c->op.fsd->fmt_vers < 2)
		return -EOPNOTSUPP;
	return data_alloc(c, sizeof(c->in.attr));
}

/* ---- hidden attributes --------------------------------------------------------------- */

struct acl_entry {
	le16 tag;
	le16 perm;
	le32 id;
};

/* The access ACL's word on reading, in the order of acl(5).  Well-formed: it was checked when it
 * was set. */
static bool acl_lets_read(const uint8_t *acl, size_t len, const struct cinode *ci,
			  const struct caller *who)
{
	uint16_t mask = 7, other = 0;
	bool in_group = false, group_reads = false;
	struct acl_entry e;

	for (size_t at = sizeof(le32); at + sizeof(e) <= len; at += sizeof(e)) {
		memcpy(&e, acl + at, sizeof(e));
		if (le16_get(e.tag) == ACL_MASK)
			mask = le16_get(e.perm);
	}
	for (size_t at = sizeof(le32); at + sizeof(e) <= len; at += sizeof(e)) {
		gid_t gid;

		memcpy(&e, acl + at, sizeof(e));
		switch (le16_get(e.tag)) {
		case ACL_USER:
			if (le32_get(e.id) == who->uid)
				return le16_get(e.perm) & mask & ACL_READ;
			break;
		case ACL_GROUP:
		case ACL_GROUP_OBJ:
			gid = le16_get(e.tag) == ACL_GROUP ? le32_get(e.id) : le32_get(ci->d.gid);
			if (caller_in_group(who, gid)) {
				in_group = true;
				group_reads |= le16_get(e.perm) & mask & ACL_READ;
			}
			break;
		case ACL_OTHER:
			other = le16_get(e.perm);
			break;
		}
	}
	return in_group ? group_reads : other & ACL_READ;
}

/* 0 or -EACCES: whether the caller may read the inode, whatever its descriptor was opened for. */
static int may_read(struct op *op, struct itx *tx, uint64_t ino, const struct cinode *ci)
{
	const struct caller *who = &ctl_of(op)->caller;
	uint32_t mode = inode_mode(ci);
	uint8_t *acl;
	bool reads;
	int ret;

	if (caller_is_capable(who, CAP_DAC_OVERRIDE) || caller_is_capable(who, CAP_DAC_READ_SEARCH))
		return 0;
	if (who->uid == le32_get(ci->d.uid))
		return mode & S_IRUSR ? 0 : -EACCES;
	if (op->fsd->conf.acl && mode & S_IRWXG) {
		acl = malloc(XATTR_VALUE_MAX_BYTES);
		if (!acl)
			return -ENOMEM;
		ret = xattr_read(tx, ino, ACL_ACCESS_NAME, acl);
		reads = ret >= 0 && acl_lets_read(acl, (size_t)ret, ci, who);
		free(acl);
		if (ret >= 0)
			return reads ? 0 : -EACCES;
		if (ret != -ENODATA)
			return ret;
	}
	if (caller_in_group(who, le32_get(ci->d.gid)))
		return mode & S_IRGRP ? 0 : -EACCES;
	return mode & S_IROTH ? 0 : -EACCES;
}

static int list_run(struct op *op, struct itx *tx)
{
	struct ctl *c = ctl_of(op);
	bool native = c->caller.cmd == SCOUTFS_IOC_LISTXATTR_HIDDEN_N;
	uint32_t hash = native ? c->in.list_n.hash_pos : c->in.list.hash_pos;
	uint64_t id = native ? c->in.list_n.id_pos : c->in.list.id_pos;
	struct key key = key_xattr(c->ino, hash, id, 0),
		   last = key_xattr(c->ino, UINT32_MAX, UINT64_MAX, UINT8_MAX);
	struct cinode ci;
	struct ival iv;
	int ret = get_inode(op, tx, c->ino, &ci);

	if (ret == 0)
		ret = may_read(op, tx, c->ino, &ci);
	if (ret < 0)
		return ret;
	c->data_len = 0;
	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		const struct disk_xattr *x = iv.val;
		int tags;

		if (iv.key.fourth == 0) {
			if (iv.len < sizeof(*x) || iv.len < sizeof(*x) + x->name_len) {
				stats_inc(&op->fsd->stats.corrupt_items);
				log_err("inode %llu: attribute id %llu is malformed: run "
					"scoutfsctl check",
					(unsigned long long)c->ino,
					(unsigned long long)iv.key.third);
				return -EIO;
			}
			tags = xattr_name_tags(x->name, x->name_len);
			if (tags > 0 && tags & XATTR_TAG_HIDE) {
				if (c->data_len + x->name_len + 1u > c->data_max)
					break;
				memcpy(c->data + c->data_len, x->name, x->name_len);
				c->data[c->data_len + x->name_len] = 0;
				c->data_len += x->name_len + 1u;
			}
		}
		/* the next attribute, over the parts of this one's value */
		key = key_next(key_xattr(c->ino, (uint32_t)iv.key.second, iv.key.third, UINT8_MAX));
		hash = (uint32_t)key.second;
		id = key.third;
		if (key_cmp(&key, &last) > 0) {
			hash = UINT32_MAX;
			id = UINT64_MAX;
			break;
		}
	}
	if (ret < 0 && ret != -ENOENT)
		return ret;
	c->result = (int)c->data_len;
	if (native) {
		c->head.list_n = (struct ioc_listxattr_hidden_n){ .id_pos = id,
								  .bytes = c->data_len,
								  .hash_pos = hash };
		c->head_len = sizeof(c->head.list_n);
	} else {
		c->head.list = c->in.list;
		c->head.list.id_pos = id;
		c->head.list.hash_pos = hash;
		c->head_len = sizeof(c->head.list);
	}
	return 0;
}

/* ---- paths --------------------------------------------------------------------------- */

static void path_restart(struct ctl *c)
{
	c->at = c->in.path.ino;
	c->path_len = 0;
}

/* Put name in front of what there is of the path. */
static int path_prepend(struct ctl *c, const uint8_t *name, size_t len)
{
	size_t room = c->data_max - sizeof(c->entry), slash = c->path_len ? 1 : 0;
	char *end = c->path + room;

	if (c->path_len == 0) {
		if (room == 0)
			return -ENAMETOOLONG;
		end[-1] = 0;
		c->path_len = 1;
	}
	if (c->path_len + len + slash > room)
		return -ENAMETOOLONG;
	if (slash)
		end[-(ssize_t)++c->path_len] = '/';
	c->path_len += len;
	memcpy(end - c->path_len, name, len);
	return 0;
}

/*
 * One directory at a time, each under its own lock only: a path may be thousands long.  So it is
 * not one moment's; a parent that is moved meanwhile may be met twice, or not be there, then the
 * search begins again (interface 1.3 wants no more).
 */
static int path_run(struct op *op, struct itx *tx)
{
	struct ctl *c = ctl_of(op);
	int ret = 0;

	if (c->data_max < sizeof(c->entry))
		return -ENAMETOOLONG;
	while (c->at != ROOT_INO || c->path_len == 0) {
		bool is_last_name = c->path_len == 0;
		struct key key =
			is_last_name ? key_backref(c->at, c->in.path.dir_ino, c->in.path.dir_pos)
				     : key_backref(c->at, 0, 0);
		struct key last = key_backref(c->at, UINT64_MAX, UINT64_MAX);
		uint64_t at = c->at;
		struct ival iv;

		ret = lock_inode(op, at, LOCK_MODE_READ);
		if (ret == 0)
			ret = item_next(tx, &key, &last, &iv);
		if (ret == OP_PARKED)
			return ret;
		if (ret == -ENOENT && !is_last_name) {
			lock_release_inode(op, at);
			if (++c->restarts > PATH_RESTARTS_MAX) {
				log_err("directory %llu has entries but no parent: run scoutfsctl "
					"check",
					(unsigned long long)at);
				return -EIO;
			}
			path_restart(c);
			continue;
		}
		if (ret < 0)
			return ret;
		if (iv.len <= sizeof(struct disk_dirent) ||
		    iv.len > sizeof(struct disk_dirent) + NAME_MAX_BYTES) {
			stats_inc(&op->fsd->stats.corrupt_items);
			log_err("inode %llu: its link in directory %llu is malformed: run "
				"scoutfsctl check",
				(unsigned long long)at, (unsigned long long)iv.key.second);
			return -EIO;
		}
		if (is_last_name) {
			c->entry.dir_ino = iv.key.second;
			c->entry.dir_pos = iv.key.third;
		}
		ret = path_prepend(c, (const uint8_t *)iv.val + sizeof(struct disk_dirent),
				   iv.len - sizeof(struct disk_dirent));
		if (ret < 0)
			return ret;
		c->at = iv.key.second;
		lock_release_inode(op, at);
	}
	c->entry.path_bytes = (uint16_t)c->path_len;
	memcpy(c->data, &c->entry, sizeof(c->entry));
	memcpy(c->data + sizeof(c->entry), c->path + (c->data_max - sizeof(c->entry)) - c->path_len,
	       c->path_len);
	c->data_len = sizeof(c->entry) + c->path_len;
	if (c->caller.cmd == SCOUTFS_IOC_INO_PATH_N) {
		c->head.path_n = c->in.path_n;
		c->head.path_n.result_bytes = c->data_len;
		c->head_len = sizeof(c->head.path_n);
	}
	return 0;
}

static int path_prepare(struct ctl *c, size_t room)
{
	int ret = data_alloc(c, room);

	c->path = malloc(room ? room : 1);
	if (ret == 0 && !c->path)
		ret = -ENOMEM;
	path_restart(c);
	return ret;
}

/* ---- the change index ---------------------------------------------------------------- */

static int walk_each(void *arg, const struct item *it)
{
	struct ioc_walk_inodes_entry e = { .major = it->key.second, .ino = it->key.third };
	struct ctl *c = arg;

	memcpy(c->data + c->data_len, &e, sizeof(e));
	c->data_len += sizeof(e);
	return c->data_len == c->data_max;
}

/* What stands before the entries in the native form. */
static void walk_head(struct ctl *c, bool is_end)
{
	c->head.walk_n = c->in.walk_n;
	c->head.walk_n.nr_entries = (uint32_t)c->result;
	c->head.walk_n.is_end = is_end;
	c->head_len = sizeof(c->head.walk_n);
}

static void walk_work(void *arg)
{
	struct ctl *c = arg;
	uint64_t stable;
	int ret;

	ret = reader_iter(c->op.fsd, &c->first, &c->last, walk_each, c, &stable);
	c->result = (int)(c->data_len / sizeof(struct ioc_walk_inodes_entry));
	if (c->caller.cmd == SCOUTFS_IOC_WALK_INODES_N)
		walk_head(c, ret == 0);
	if (c->result > 0 && ret != -EINTR)
		ret = 0;	/* what was found is given; the next call meets the error */
	finish(c, ret < 0 ? ret : 0);
}

/* 1: there is nothing to find. */
static int walk_prepare(struct ctl *c, const struct ioc_walk_inodes_entry *first,
			const struct ioc_walk_inodes_entry *last, uint8_t index, uint64_t max)
{
	uint64_t first_major = first->major, first_ino = first->ino, last_ino = last->ino;
	uint8_t type;

	if (index != WALK_INDEX_META_SEQ && index != WALK_INDEX_DATA_SEQ)
		return -EINVAL;
	type = index == WALK_INDEX_META_SEQ ? TYPE_INDEX_META_SEQ : TYPE_INDEX_DATA_SEQ;
	/* minor stands between major and ino, and is 0 wherever there is an entry */
	if (first->minor) {
		if (first_major++ == UINT64_MAX)
			return 1;
		first_ino = 0;
	}
	if (last->minor)
		last_ino = UINT64_MAX;
	c->first = key_index(type, first_major, first_ino);
	c->last = key_index(type, last->major, last_ino);
	if (max == 0 || key_cmp(&c->first, &c->last) > 0)
		return 1;
	if (max > WALK_ENTRIES_MAX)
		max = WALK_ENTRIES_MAX;
	c->unit = sizeof(struct ioc_walk_inodes_entry);
	return data_alloc(c, max * c->unit);
}

/* ---- the volume ---------------------------------------------------------------------- */

static void statfs_work(void *arg)
{
	struct ctl *c = arg;
	struct fsd *fsd = c->op.fsd;
	struct net_statfs st;
	int ret = net_statfs(fsd, &st);

	if (ret == 0) {
		c->head.statfs = (struct ioc_statfs_more){
			.fsid = fsd->fsid,
			.rid = fsd->rid,
			.committed_seq = st.committed_seq,
			.total_meta_blocks = st.total_meta,
			.total_data_blocks = st.total_data,
			.reserved_meta_blocks = st.reserved_meta,
		};
		c->head_len = sizeof(c->head.statfs);
	}
	finish(c, ret);
}

/* ---- beginning ----------------------------------------------------------------------- */

static bool is_known_upstream(unsigned cmd)
{
	switch (cmd) {
	case SCOUTFS_IOC_RELEASE: case SCOUTFS_IOC_STAGE: case SCOUTFS_IOC_DATA_WAITING:
	case SCOUTFS_IOC_SETATTR_MORE:
	case SCOUTFS_IOC_SEARCH_XATTRS:
	case SCOUTFS_IOC_DATA_WAIT_ERR:
	case SCOUTFS_IOC_ALLOC_DETAIL:
	case SCOUTFS_IOC_MOVE_BLOCKS:
	case SCOUTFS_IOC_RESIZE_DEVICES:
	case SCOUTFS_IOC_READ_XATTR_TOTALS: case SCOUTFS_IOC_GET_ALLOCATED_INOS:
	case SCOUTFS_IOC_GET_REFERRING_ENTRIES:
	case SCOUTFS_IOC_SET_ATTR_X:
	case SCOUTFS_IOC_GET_QUOTA_RULES:
	case SCOUTFS_IOC_ADD_QUOTA_RULE:
	case SCOUTFS_IOC_DEL_QUOTA_RULE:
	case SCOUTFS_IOC_READ_XATTR_INDEX:
	case SCOUTFS_IOC_PUNCH_OFFLINE: case SCOUTFS_IOC_INJECT_TOTL_DELTA:
		return true;
	}
	return false;
}

static bool is_ours(unsigned cmd)
{
	switch (cmd) {
	case SCOUTFS_IOC_WALK_INODES: case SCOUTFS_IOC_WALK_INODES_N: case SCOUTFS_IOC_INO_PATH:
	case SCOUTFS_IOC_INO_PATH_N: case SCOUTFS_IOC_STAT_MORE: case SCOUTFS_IOC_STATFS_MORE:
	case SCOUTFS_IOC_LISTXATTR_HIDDEN:
	case SCOUTFS_IOC_LISTXATTR_HIDDEN_N:
	case SCOUTFS_IOC_GET_ATTR_X:
	case SCOUTFS_IOC_GET_ATTR_X_N:
		return true;
	}
	return false;
}

/* Who asks is to be known before the operation runs. */
static void identify_work(void *arg)
{
	struct ctl *c = arg;
	struct fsd *fsd = c->op.fsd;
	int ret = caller_identify(&c->caller);

	if (caller_enter()) {
		ops_leave(fsd);
		return;		/* the mount is gone, and the request with it */
	}
	if (ret == 0 && c->need_cap && !caller_is_capable(&c->caller, c->need_cap - 1))
		ret = -EPERM;
	if (ret < 0)
		fail(c, ret);
	else
		fuse_op_start(c->req, &c->op);
	ops_leave(fsd);
	caller_leave();
}

static void start_op(struct ctl *c, const char *name, int (*run)(struct op *op, struct itx *tx),
		     bool identify)
{
	c->op.name = name;
	c->op.run = run;
	c->op.done = ctl_done;
	if (!identify) {
		fuse_op_start(c->req, &c->op);
		return;
	}
	run_in_thread(c, identify_work);
}

static void start(struct ctl *c)
{
	struct fsd *fsd = c->op.fsd;
	int ret = 0;

	switch (c->caller.cmd) {
	case SCOUTFS_IOC_STAT_MORE:
		start_op(c, "stat_more", stat_run, false);
		return;
	case SCOUTFS_IOC_STATFS_MORE:
		ops_defer(fsd, statfs_work, c);
		return;
	case SCOUTFS_IOC_GET_ATTR_X:
		c->to = c->caller.arg;
		/* fall through */
	case SCOUTFS_IOC_GET_ATTR_X_N:
		ret = attr_prepare(c);
		if (ret == 0)
			start_op(c, "get_attr_x", attr_run, false);
		break;
	case SCOUTFS_IOC_WALK_INODES:
		c->to = c->in.walk.entries_ptr;
		ret = walk_prepare(c, &c->in.walk.first, &c->in.walk.last, c->in.walk.index,
				   c->in.walk.nr_entries);
		if (ret == 0)
			ops_defer(fsd, walk_work, c);
		break;
	case SCOUTFS_IOC_WALK_INODES_N: {
		struct ioc_walk_inodes_n *w = &c->in.walk_n;
		uint64_t fits = (SCOUTFS_NATIVE_BYTES - sizeof(*w)) / sizeof(w->entries[0]);

		ret = walk_prepare(c, &w->first, &w->last, w->index,
				   w->nr_entries && w->nr_entries < fits ? w->nr_entries : fits);
		if (ret == 0)
			ops_defer(fsd, walk_work, c);
		if (ret == 1)
			walk_head(c, true);
		break;
	}
	case SCOUTFS_IOC_INO_PATH:
	case SCOUTFS_IOC_INO_PATH_N: {
		bool native = c->caller.cmd == SCOUTFS_IOC_INO_PATH_N;

		/* the first three fields are the same in both */
		c->to = native ? 0 : c->in.path.result_ptr;
		c->need_cap = CAP_DAC_READ_SEARCH + 1;
		ret = path_prepare(c, native ? SCOUTFS_NATIVE_BYTES - sizeof(c->in.path_n)
					     : c->in.path.result_bytes);
		if (ret == 0)
			start_op(c, "ino_path", path_run, true);
		break;
	}
	case SCOUTFS_IOC_LISTXATTR_HIDDEN:
		c->to = c->in.list.buf_ptr;
		ret = data_alloc(c, c->in.list.buf_bytes < LIST_BYTES_MAX ? c->in.list.buf_bytes
									  : LIST_BYTES_MAX);
		if (ret == 0)
			start_op(c, "listxattr_hidden", list_run, true);
		break;
	case SCOUTFS_IOC_LISTXATTR_HIDDEN_N:
		ret = data_alloc(c, SCOUTFS_NATIVE_BYTES - sizeof(c->in.list_n));
		if (ret == 0)
			start_op(c, "listxattr_hidden", list_run, true);
		break;
	}
	if (ret < 0)
		fail(c, ret);
	else if (ret > 0)
		reply(c);
}

static bool follows_pointers(unsigned cmd)
{
	return cmd == SCOUTFS_IOC_WALK_INODES || cmd == SCOUTFS_IOC_INO_PATH ||
	       cmd == SCOUTFS_IOC_LISTXATTR_HIDDEN || cmd == SCOUTFS_IOC_GET_ATTR_X;
}

void op_ioctl(struct fsd *fsd, fuse_req_t req, uint64_t ino, unsigned cmd, void *arg,
	      unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct ctl *c;

	if (!is_ours(cmd)) {
		if (is_known_upstream(cmd))
			stats_inc(&fsd->stats.refused_unsupported);
		fuse_reply_err(req, is_known_upstream(cmd) ? EOPNOTSUPP : ENOTTY);
		return;
	}
	if (in_size != (_IOC_DIR(cmd) & _IOC_WRITE ? _IOC_SIZE(cmd) : 0) ||
	    out_size != (_IOC_DIR(cmd) & _IOC_READ ? _IOC_SIZE(cmd) : 0)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	c->op.fsd = fsd;
	c->req = req;
	c->ino = ino;
	c->caller = (struct caller){ .uid = ctx->uid, .gid = ctx->gid, .tid = ctx->pid, .cmd = cmd,
				     .arg = (uintptr_t)arg, .compat = flags & FUSE_IOCTL_COMPAT };
	if (in_size)
		memcpy(&c->in, in, in_size < sizeof(c->in) ? in_size : sizeof(c->in));
	c->to_caller = follows_pointers(cmd);
	if (c->to_caller && !pointers_allowed(c)) {
		stats_inc(&fsd->stats.ioctl_refused);
		fail(c, -EOPNOTSUPP);
		return;
	}
	start(c);
}
