/*
 * fsd: one mount.  What its parts share; each part's promise stands in its own header.
 *
 *   fuse*.c      requests in, replies out              ops_*.c   one POSIX operation each
 *   kcache.c     mounting, what the kernel forgets     inode.c   inode items and attributes
 *   op.c         running, parking, waking operations   pool.c    dirty file data in shared memory
 *   items.c      the item cache in LMDB                data.c    extents, reading and writing
 *   locks.c      cluster locks of this mount           dalloc.c  data blocks of this mount
 *   reader.c     items from the forest                 inuse.c   inodes in use, orphan.c: their end
 *   txn.c        generations; commit.c: their commits  net.c     the session with the leader
 *   merge.c      this mount's share of log merges
 *   interrupt.c  killed applications                   ops_ctl.c, caller.c  ioctls
 *   keep.c       what outlives this process            reply.c   answers the kernel may lack
 *   advisory.c   flock and fcntl locks of programs, advisory_rows.c
 */
#ifndef SCOUTFS_FSD_H
#define SCOUTFS_FSD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "fsd_stats.h"
#include "log/forest.h"

struct blkcli;
struct keys;
struct net_client;
struct session_net;
struct lease_keeper;
struct items;
struct locks;
struct reader;
struct txn;
struct merge;
struct inos;
struct pool;
struct dalloc;
struct orphans;
struct kcache;
struct interrupts;
struct ops;
struct op_answers;
struct replies;
struct keep;
struct advisory;

struct fsd {
	struct instance_conf conf;
	uint64_t rid;
	uint64_t fsid;
	uint32_t fmt_vers;
	uint64_t total_meta_blocks;
	uint64_t total_data_blocks;
	atomic_uint open_requests;	/* op.c: that are no operations */

	struct blkcli *blk;
	struct keys *keys;		/* NULL: the leader is talked to without */
	struct net_client *net;
	struct session_net *session;	/* net.c */
	struct lease_keeper *lease;	/* lease.c */
	struct items *items;
	struct locks *locks;
	struct reader *reader;
	struct txn *txn;
	struct merge *merge;
	struct inos *inos;
	struct pool *pool;
	struct dalloc *dalloc;
	struct orphans *orphans;
	struct kcache *kcache;	/* kcache.c */
	struct interrupts *interrupts;	/* interrupt.c */
	struct ops *ops;	/* op.c: workers and what is parked */
	const struct op_answers *answers;	/* op.h; NULL: nobody records them */
	struct replies *replies;	/* reply.c */
	struct advisory *advisory;	/* advisory.c */
	struct shown *shown;	/* shown.c; NULL: no kernel has pages */
	struct keep *keep;	/* keep.c; NULL: nothing outlives the process */
	/* The kernel's connection is older than this process: what it knows is not all known here. */
	atomic_bool is_resumed;
	bool appends_past_cache;	/* the kernel drops its pages of what is written past its cache: fuse.c */

	atomic_bool stopping;		/* unmount has begun: no new background work */
	atomic_bool fenced;		/* the leader has fenced this rid: everything fails with EIO */
	/* Since when it has no lease: it ran out, or a leader has listened and given none; 0: it has one, or no leader yet. */
	_Atomic uint64_t lease_lost_ns;	/* lease.c */
	atomic_bool was_cut;		/* programs that used the mount were, or may have been, cut off */
	_Atomic uint64_t mappable_nr;	/* open files that programs may have mapped for writing: lost.c */
	struct fsd_stats stats;
};

/*
 * The leader has fenced this mount: say what is lost with it, and end as fsd_fail does, with EXIT_FENCED; the dead
 * mount stays where it is, so that programs get errors and do not write into the directory under it.
 */
void fsd_fenced(struct fsd *fsd) __attribute__((noreturn));
/*
 * This mount cannot go on (the cache and the leader disagree): log why, cut the kernel's
 * connection so that applications get errors instead of waiting for ever, and end the process.
 */
void fsd_fail(struct fsd *fsd, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 2, 3)));

#endif
