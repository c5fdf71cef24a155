/* Operations on one inode's attributes and extended attributes.  runtime.md 14, interface.md 2. */
#ifndef SCOUTFS_FSD_OPS_ATTR_H
#define SCOUTFS_FSD_OPS_ATTR_H

#include "busy.h"
#include "inode.h"

/* Who asks for a change. */
struct asker {
	uint32_t uid;			/* fsuid of the request */
	pid_t tid;			/* 0: not visible from here */
};

struct attr_op {
	struct op op;
	void *req;			/* fuse.c's */
	uint64_t ino;
	struct stat attr;		/* setattr: new values of what to_set names (FUSE_SET_ATTR_*) */
	int to_set;
	struct asker by;		/* setattr */
	bool kill_suidgid;		/* a new size: who sets it may not keep setuid and setgid */
	uint64_t view;			/* shown.h's, before it runs */
	unsigned set_part;		/* own memory: the part, from 1, that has set all but for extents that still go; 0: none */
	struct cinode ci;		/* result */
};
int attr_run_get(struct op *op, struct itx *tx);
int attr_run_set(struct op *op, struct itx *tx);
/*
 * Whether who asks may do what only the owner may, or who has capability cap.  The kernel has asked so already, but of
 * the owner that it knows: an open file brings it no new one when another node gives the file away.  0, -EPERM.
 */
int owner_check(const struct asker *by, const struct cinode *ci, unsigned cap);
/* The target into buf (SYMLINK_MAX_BYTES), NUL terminated. */
struct readlink_op {
	struct op op;
	void *req;
	uint64_t ino;
	struct busy busy;		/* the kernel keeps what is read as a page, locked until the answer */
	char target[SYMLINK_MAX_BYTES];
};
int attr_run_readlink(struct op *op, struct itx *tx);

struct xattr_op {
	struct op op;
	void *req;
	uint64_t ino;
	char name[XATTR_NAME_MAX_BYTES + 1];
	void *val;			/* set: the value; get, list: a buffer of XATTR_LIST_BYTES */
	size_t len;			/* of val; result of get, list */
	int flags;			/* of setxattr(2) */
	struct asker by;		/* set, remove */
	/* set, of an access ACL: the groups of who asks, one of which must be the file's or its setgid
	 * bit goes; NULL: may keep it in any case */
	gid_t *groups;
	size_t groups_nr;
};
#define XATTR_LIST_BYTES	65536u
int xattr_run_get(struct op *op, struct itx *tx);
int xattr_run_set(struct op *op, struct itx *tx);
int xattr_run_remove(struct op *op, struct itx *tx);
int xattr_run_list(struct op *op, struct itx *tx);

/* A directory's entries from position `off` on, as FUSE's buffer of at most `size` bytes. */
struct readdir_op {
	struct op op;
	void *req;
	uint64_t ino;
	uint64_t fh;			/* of the open directory (listing.h) */
	uint64_t off;
	uint64_t reached;		/* the offset behind the last entry of the answer */
	size_t size, used;
	bool plus;
	char *buf;
	uint64_t *looked_up;		/* plus: inodes whose look-up the reply counts */
	size_t looked_up_nr, looked_up_max;
};
int readdir_run(struct op *op, struct itx *tx);

#endif
