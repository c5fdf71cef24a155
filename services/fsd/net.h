/*
 * What the mount says to the leader, as the rest of fsd needs it.  runtime.md 3, 17.
 *
 * The blocking calls wait across restarts of the server, for threads that may; they end early only
 * with -ESHUTDOWN (net_stop) or when the leader refuses: -EIO, -EINVAL, -ENOSPC, -ENOENT, -ENOLINK.
 */
#ifndef SCOUTFS_FSD_NET_H
#define SCOUTFS_FSD_NET_H

#include "fsd.h"
#include "locks.h"

int net_start(struct fsd *fsd);
/* Wait for the first greeting: 0, or -errno with the reason logged. */
int net_wait_greeted(struct fsd *fsd);
/* Say farewell, after a greeting, and wait for the answer. */
void net_farewell(struct fsd *fsd);
void net_stop(struct fsd *fsd);

/* Whether fsd->orphans is there to say which inodes are in use; until then and after that none
 * are. */
void net_answer_maps(struct fsd *fsd, bool on);

int net_open_log_trees(struct fsd *fsd, struct disk_log_trees *lt);
/* Store lt; with open_next *next is the newly opened transaction, else what was stored. */
int net_commit_log_trees(struct fsd *fsd, const struct disk_log_trees *lt, bool open_next,
			 struct disk_log_trees *next);
/*
 * The same with open_next, for the mount of the leader's own instance, of what is written and not flushed: the
 * leader of term flushes it.  -EAGAIN: another one leads, and has done nothing; -EOPNOTSUPP: it is too old for it.
 */
int net_commit_unflushed(struct fsd *fsd, const struct disk_log_trees *lt, uint64_t term,
			 struct disk_log_trees *next);
/* The term of a leader of our own instance, that is of our quorum slot; 0: it is another's, or there is no session now. */
uint64_t net_own_term(struct fsd *fsd);
int net_get_roots(struct fsd *fsd, struct forest_roots *roots, uint64_t *last_stable_seq);
int net_alloc_inodes(struct fsd *fsd, uint64_t count, uint64_t *start, uint64_t *nr);
/* Inodes of the group (ino / 1024) in use by other mounts. */
int net_open_ino_map(struct fsd *fsd, uint64_t group, bool has_directories, uint8_t bits[128]);

struct net_statfs {
	uint64_t total_meta, free_meta;		/* large blocks */
	uint64_t total_data, free_data;		/* small blocks */
	uint64_t inode_count, reserved_meta, committed_seq;
};
int net_statfs(struct fsd *fsd, struct net_statfs *st);

/* Never block and never call back from inside; locks_granted tells the answer. */
void net_lock_request(struct fsd *fsd, const struct key *key, uint8_t old_mode, uint8_t new_mode);
void net_invalidate_respond(struct fsd *fsd, struct net_req *req, const struct key *key,
			    uint8_t old_mode, uint8_t new_mode);

/* For status: whether there is a session, and in words who is waited for and since when. */
bool net_is_connected(struct fsd *fsd, char *words, size_t size, uint64_t *since_ns);

#endif
