/* The thread behind an ioctl: who it is, and its memory.  interface.md 1.5.1. */
#ifndef SCOUTFS_FSD_CALLER_H
#define SCOUTFS_FSD_CALLER_H

#include <linux/capability.h>
#include <sys/types.h>

#include "fsd.h"

/* What the request says, and what caller_identify adds.  The owner calls caller_fini. */
struct caller {
	uint32_t uid, gid;	/* fsuid, fsgid of the request */
	pid_t tid;		/* 0: not visible from here */
	unsigned cmd;
	uint64_t arg;
	bool compat;		/* a 32-bit program on a 64-bit kernel */

	uint64_t caps;		/* effective in our user namespace */
	gid_t *groups;
	size_t groups_nr;
};

static inline bool caller_is_capable(const struct caller *c, unsigned cap)
{
	return c->caps >> cap & 1;
}
bool caller_in_group(const struct caller *c, gid_t gid);

/*
 * Run work(arg) in one of the threads that are there for touching other processes, which may be
 * made to wait for as long as those processes like.  At most 4 at a time for one uid, the others
 * queue: more threads than any program has, and `bytes` of memory that goes with it in sum (64 MiB; root's may be more,
 * as long as there is room).  -EAGAIN: too many wait; -ESHUTDOWN; -ENOMEM.
 */
int caller_run(uint32_t uid, size_t bytes, void (*work)(void *arg), void *arg);
/*
 * For such threads: true when what they worked for is gone, because the mount ended before they
 * did; then nothing of it may be touched any more.  False: it stays until caller_leave.
 */
bool caller_enter(void);
void caller_leave(void);
/* Before the FUSE session and fsd go: waits at most wait_ms for the threads, then gives them up. */
void caller_stop(unsigned wait_ms);

/*
 * The capabilities that a thread, whose request is not answered yet, has over a file of uid and gid: the effective ones,
 * but none in a user namespace that does not know both.  0, or -errno where they cannot be known (tid 0: it is not
 * visible from here).
 */
int caller_caps(pid_t tid, uint32_t uid, uint32_t gid, uint64_t *caps);

/* For such threads.  Fill in capabilities and groups of the thread, which must still wait in its
 * ioctl: 0, -EINTR (it does not), -EPERM (it is not who the request says), -ENOMEM.  A thread that
 * is not visible from here has no capabilities and no groups but its own. */
int caller_identify(struct caller *c);
/*
 * For such threads.  Copy into the caller's memory as its own system call would: the pages must be
 * writable for it.  *done counts what went, in multiples of `unit` unless the end was reached.
 * interrupted() is asked between parts.  0, -EFAULT, -EINTR, -EPERM, -EOPNOTSUPP (not visible).
 */
int caller_write(struct fsd *fsd, const struct caller *c, uint64_t to, const void *from, size_t len,
		 size_t unit, bool (*interrupted)(void *arg), void *arg, size_t *done);
void caller_fini(struct caller *c);

#endif
