/* Operations on names: look-up, create, link, unlink, rename.  runtime.md 14, format.md 12.4-12.5. */
#ifndef SCOUTFS_FSD_OPS_DIR_H
#define SCOUTFS_FSD_OPS_DIR_H

#include "inode.h"

/* A name of 1..255 bytes; longer ones are refused before an operation is made. */
struct name {
	uint16_t len;
	char bytes[NAME_MAX_BYTES + 1];
};

/*
 * One operation on one or two names.  fuse.c fills it in, sets op.run to one of dir_run_* and op.done
 * to its reply, and frees it there.
 */
struct dir_op {
	struct op op;
	void *req;			/* fuse.c's */
	void *req_data;

	uint64_t dir;
	struct name name;
	uint64_t new_dir;		/* rename, link */
	struct name new_name;
	unsigned flags;			/* rename */

	uint32_t mode, umask, uid, gid;	/* create */
	uint64_t rdev;
	const char *target;		/* symlink, NUL terminated */
	bool may_exist;			/* open(O_CREAT) without O_EXCL, with these flags */
	int open_flags;

	/* results */
	uint64_t ino;			/* found, made, unlinked; create: kept over re-runs */
	bool is_pinned;			/* tmpfile: ino counts as open already */
	uint64_t existing;		/* create: the file that has the name already, to be opened */
	struct cinode ci;
	bool was_tmpfile;		/* link: it is ino's first name */
	bool lost_last_link;		/* unlink, rmdir, rename: `victim` has nlink 0 now */
	uint64_t victim;
};

int dir_run_lookup(struct op *op, struct itx *tx);	/* dir, name; "." and ".." too */
int dir_run_create(struct op *op, struct itx *tx);	/* any type, by mode; target for symlinks */
int dir_run_tmpfile(struct op *op, struct itx *tx);	/* a regular file without a name, as if made in dir */
int dir_run_link(struct op *op, struct itx *tx);	/* ino under new_dir/new_name */
int dir_run_unlink(struct op *op, struct itx *tx);
int dir_run_rmdir(struct op *op, struct itx *tx);
int dir_run_rename(struct op *op, struct itx *tx);

/* The parent of a directory through its one backref; the root is its own. */
int dir_parent(struct itx *tx, uint64_t dir, uint64_t *parent);

#endif
