/* The FUSE side: session, node ids, requests and replies, the kernel's caches.  design.md D4;
 * interface.md 1.5. */
#ifndef SCOUTFS_FSD_FUSE_H
#define SCOUTFS_FSD_FUSE_H

#include <fuse_lowlevel.h>

#include "op.h"

/* Node id = inode number with its 32-bit halves swapped; the root is 1 either way
 * (interface 1.5.3). */
static inline uint64_t ino_of_node(fuse_ino_t node)
{
	return node == FUSE_ROOT_ID ? 1 : (node << 32 | node >> 32);
}
static inline fuse_ino_t node_of_ino(uint64_t ino)
{
	return ino == 1 ? FUSE_ROOT_ID : (ino << 32 | ino >> 32);
}

/*
 * kcache_mount: 0 or -errno, said.  kcache_adopt instead: the connection behind fd, which is older
 * than this process, goes on; -errno, and fd is the caller's still, unless there is a fsd->kcache now.
 * kcache_serve answers requests until the mount is gone, or kcache_stop_reading: 0, else -errno; it
 * returns when no thread of the session runs any more.  kcache_unmount (any other thread) makes it
 * gone: at once, or, while programs use it, detached from the namespace until they let go, and aborted
 * after `grace_ms`.  kcache_abort ends the connection now: programs get ECONNABORTED.
 */
int kcache_mount(struct fsd *fsd);
int kcache_adopt(struct fsd *fsd, int fd);
int kcache_serve(struct fsd *fsd);
/* No more requests are read; returns when that is so. */
void kcache_stop_reading(struct fsd *fsd);
bool kcache_is_draining(struct fsd *fsd);
/* Whether the kernel can be asked for what it has no answer to (Linux 6.9). */
bool kcache_can_resend(struct fsd *fsd);
/* Whether this process has served for so long that what it began from was good. */
bool kcache_has_served(struct fsd *fsd);
void kcache_unmount(struct fsd *fsd, unsigned grace_ms);
void kcache_abort(struct fsd *fsd);
void kcache_free(struct fsd *fsd);

/* What a call of kcache_invalidate does now. */
struct kcache_call {
	_Atomic uint64_t ino;		/* whose pages are being dropped; 0: none */
	_Atomic uint64_t page;		/* KCACHE_MANY, or the one that may be locked for a write */
	_Atomic uint64_t looked_ns;	/* when it was found out which are locked */
	_Atomic uint64_t since_ns;	/* when it began with this one, or these */
	atomic_bool is_left;		/* set by who watches: another call does what is left, no more of it */
	bool leaves_truncated;		/* files of which a truncation waits (locks_keep_pages) are left out */
};
#define KCACHE_MANY	UINT64_MAX

/*
 * D4 step (b) and (c) for the inodes of [first, last]: epoch; attributes and pages, unless `all` only of inodes of
 * which something was given (inuse.h).  True: it has left out pages that are locked for requests without an answer (busy.h).
 * Blocks; called by the notifier threads of locks.c, never by a thread that serves a request.
 */
bool kcache_invalidate(struct fsd *fsd, uint64_t first_ino, uint64_t last_ino, bool all, struct kcache_call *call);
/* Whether there are requests that nobody has taken yet. */
bool kcache_has_unread(struct fsd *fsd);
/* How long the kernel may trust that a name is, or is not, in dir: seconds.  0 without epochs,
 * because then nothing could take it back. */
double kcache_entry_timeout(struct fsd *fsd, uint64_t dir);

/*
 * Drop every name and attribute that the kernel has cached, which waits for nobody; or every page, which waits for
 * requests that the kernel has sent for some of them.  Works on a connection that was aborted, too.
 */
void kcache_forget_all(struct fsd *fsd, bool pages);
/* Whether the connection has ended without an unmount. */
bool kcache_was_cut(struct fsd *fsd);
/* ino's attributes have changed without the kernel's knowing; waits for nothing. */
void kcache_forget_attributes(struct fsd *fsd, uint64_t ino);
/*
 * What the kernel knows by that name is no more.  Waits, uninterruptibly, while the kernel has the directory above locked for
 * a request; -ENOENT: it knows nothing by that name; -EAGAIN: nothing is said, for no more requests are read.
 */
int kcache_tell_removed(struct fsd *fsd, uint64_t parent, const char *name, size_t len);
/* Whether the kernel has that inode in its tables; "yes" when it cannot be known yet.  For threads that
 * may block, of a mount that is_resumed. */
bool kcache_knows(struct fsd *fsd, uint64_t ino);

/* Of the request that the calling thread handles; all 0 in threads that handle none. */
struct fuse_request_now {
	uint64_t unique;
	uint32_t opcode;
	bool kill_suidgid;	/* write, setattr of size: without CAP_FSETID */
};
const struct fuse_request_now *fuse_request(void);
/* libfuse 3.14 does not know them: Linux 6.1, 6.6. */
#define FUSE_TMPFILE_OPCODE	51u
#define FUSE_STATX_OPCODE	52u

/*
 * op answers req: start it, and end it with EINTR if the application is killed while it waits.
 * fuse_op_done comes first in its done(), before the answer.
 */
void fuse_op_start(fuse_req_t req, struct op *op);
void fuse_op_done(fuse_req_t req, struct op *op);
/* Whether op is an fsync of that file or directory. */
bool fuse_is_fsync_of(const struct op *op, uint64_t ino);
/* The same for what may be done twice: no answer of it is recorded for the next process (reply.h). */
void fuse_op_start_repeatable(fuse_req_t req, struct op *op);

/* In the number of an open file (fh): the kernel sends its writes past the page cache (FOPEN_DIRECT_IO). */
#define FH_PAST_CACHE	(1ull << 63)

/* A request about a file's data. */
struct file_req {
	fuse_req_t req;
	uint64_t ino;
	uint64_t offset;
	uint64_t len;
	int flags; /* read, write: open flags as the kernel sent them; lseek: whence; fallocate: mode */
	bool write_cache;	/* FUSE_WRITE_CACHE: from the page cache of a mapping */
	bool kill_suidgid;	/* who changes the data may not keep setuid and setgid */
	bool past_cache;	/* write: of a handle with FH_PAST_CACHE */
	void *buf;		/* write: malloc'd copy, owned by the request */
	uint32_t uid, gid;
	int pid;
};

/* statx.c: done() of a getattr (struct attr_op) that came as FUSE_STATX: answers and frees it. */
void fuse_done_statx(struct op *op, int err);

/* ops_ctl.c: any ioctl; answers req. */
void op_ioctl(struct fsd *fsd, fuse_req_t req, uint64_t ino, unsigned cmd, void *arg,
	      unsigned flags, const void *in, size_t in_size, size_t out_size);

#endif
