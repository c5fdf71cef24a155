/*
 * FUSE_STATX: attributes with the birth time.
 *
 * The kernel (Linux 6.6) asks so when a program wants the birth time of a file and it is not
 * cached; it keeps what it is told like the answer to a GETATTR, and no longer. libfuse 3.14 does
 * not know the request: it begins like a GETATTR and is taken for one (kcache.c), only the answer
 * is made here.
 */
#include "fuse.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "ops_attr.h"
#include "orphan.h"
#include "shown.h"

/* The answer to FUSE_STATX, which linux/fuse.h of Linux 6.1 lacks: with the birth time. */
struct statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct {
		uint32_t mask, blksize;
		uint64_t attributes;
		uint32_t nlink, uid, gid;
		uint16_t mode, spare0;
		uint64_t ino, size, blocks, attributes_mask;
		struct statx_time {
			int64_t sec;
			uint32_t nsec;
			int32_t reserved;
		} atime, btime, ctime, mtime;
		uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
		uint64_t spare2[14];
	} st;
};
static_assert(sizeof(struct statx_out) == 288, "struct fuse_statx_out");

static struct statx_time statx_time(const struct timespec *ts)
{
	return (struct statx_time){ .sec = ts->tv_sec, .nsec = (uint32_t)ts->tv_nsec };
}

void fuse_done_statx(struct op *op, int err)
{
	struct attr_op *a = (struct attr_op *)op;
	struct statx_out out = { 0 };
	struct stat st;
	double timeout;

	fuse_op_done(a->req, op);
	if (err) {
		fuse_reply_err(a->req, -err);
		free(a);
		return;
	}
	inode_to_stat(&a->ci, a->ino, &st);
	inode_give_begin(op->fsd, 0);
	timeout = shown_attr(op->fsd, a->ino, a->view, &st, inode_attr_timeout(op->fsd, a->ino));
	out.st.mask = STATX_BASIC_STATS | STATX_BTIME;
	out.st.blksize = (uint32_t)st.st_blksize;
	out.st.nlink = (uint32_t)st.st_nlink;
	out.st.uid = st.st_uid;
	out.st.gid = st.st_gid;
	out.st.mode = (uint16_t)st.st_mode;
	out.st.ino = st.st_ino;
	out.st.size = (uint64_t)st.st_size;
	out.st.blocks = (uint64_t)st.st_blocks;
	out.st.atime = statx_time(&st.st_atim);
	out.st.mtime = statx_time(&st.st_mtim);
	out.st.ctime = statx_time(&st.st_ctim);
	out.st.btime = (struct statx_time){ .sec = (int64_t)le64_get(a->ci.d.crtime.sec),
					    .nsec = le32_get(a->ci.d.crtime.nsec) };
	out.st.rdev_major = major(st.st_rdev);
	out.st.rdev_minor = minor(st.st_rdev);
	out.attr_valid = (uint64_t)timeout;
	fuse_reply_buf(a->req, (const char *)&out, sizeof(out));
	inode_give_end(op->fsd);
	free(a);
}
