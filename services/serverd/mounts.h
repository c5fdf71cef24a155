/*
 * Mounted clients on the volume, and what is to be given back when one is gone: runtime.md 2.6, 3.2;
 * format.md 13.6, 14, 15.  Calls are for the run() of a txn job, as logs.h says.
 */
#ifndef SCOUTFS_SERVERD_MOUNTS_H
#define SCOUTFS_SERVERD_MOUNTS_H

#include "txn.h"

struct mount_info {
	uint64_t rid;
	uint32_t addr;		/* a number; 0: not known */
	uint16_t port;
	bool is_quorum;
	uint32_t lease_ms;	/* what leaders give it at a time at most; 0: nobody knows */
};

/*
 * Put the mount among the mounted ones; nothing changes when it is there already.  -ENOLINK: it is not,
 * and has an unfinished log tree: it was a mount that is gone.
 */
int mounts_insert(struct txn *t, const struct mount_info *m);
/* Whether it is there: 1, 0, or an error. */
int mounts_has(struct txn *t, uint64_t rid);
/* Every mounted client in order of rid; each() returns 0 to go on. */
int mounts_each(struct txn *t, int (*each)(void *arg, const struct mount_info *m), void *arg);

/*
 * Give back everything of a mount that is fenced or has said farewell: its log tree, its compactions,
 * its merge requests, and, last, its mounted_clients item.  0 also when nothing of it is left.
 */
int mounts_reclaim(struct txn *t, uint64_t rid);

/* Take up to `want` never used inode numbers; *nr is 0 when there are none left.  10.1 */
int inos_take(struct txn *t, uint64_t want, uint64_t *start, uint64_t *nr);

#endif
