/* Inodes as cached, their attributes and times: format.md 12.1, runtime.md 9, 14. */
#ifndef SCOUTFS_FSD_INODE_H
#define SCOUTFS_FSD_INODE_H

#include <sys/stat.h>

#include "op.h"
#include "txn.h"

/*
 * The cached value of an inode item.  d.meta_seq and d.data_seq may be references (txn.h).  prev_* are
 * what the index holds for it before generation `gen`: SEQ_NONE if nothing (new in gen, or for data_seq
 * not a regular file).
 */
struct cinode {
	struct disk_inode d;
	uint64_t prev_meta_seq;
	uint64_t prev_data_seq;
	uint64_t gen;		/* generation prev_* belong to; 0: as read, prev_* == d's */
	/* prev_* as they were for the generation before (base_gen), in case that one is never stored */
	uint64_t base_meta_seq, base_data_seq, base_gen;
	/* Whether an orphan item stands for it: as of this value, before gen, before base_gen. */
	bool is_orphan, was_orphan, base_orphan;
	uint8_t pad[5];
};

/* From a checked inode item, for reader.c; to disk bytes with real seqs, for txn.c. */
void cinode_from_item(const struct item *it, struct cinode *ci);
void cinode_to_disk(const struct cinode *ci, uint64_t meta_seq, uint64_t data_seq, struct disk_inode *out);

/* The lock on ino must be held by tx->op.  -ENOENT: no such inode (also: deleted). */
int inode_get(struct itx *tx, uint64_t ino, struct cinode *ci);
/* Write back a changed inode: meta_seq (and data_seq if data) become the open generation's, version
 * counts up; data also counts data_version up. */
int inode_put(struct itx *tx, uint64_t ino, struct cinode *ci, bool data);
/* A new inode in memory: owner, mode, times now, crtime; then inode_put. */
void inode_init(struct itx *tx, struct cinode *ci, uint32_t mode, uint32_t uid, uint32_t gid, uint64_t rdev);
int inode_delete(struct itx *tx, uint64_t ino, struct cinode *ci);

#define INODE_ATIME 1u
#define INODE_MTIME 2u
#define INODE_CTIME 4u
void inode_touch(struct cinode *ci, unsigned which);	/* CLOCK_REALTIME */

void inode_to_stat(const struct cinode *ci, uint64_t ino, struct stat *st);
/* A file's setuid goes, and its setgid if its group may execute it (without, it is no privilege); whether
 * anything did. */
bool inode_drop_suidgid(struct cinode *ci);
struct disk_timespec disk_time(const struct timespec *ts);

static inline uint32_t inode_mode(const struct cinode *ci) { return le32_get(ci->d.mode); }
static inline uint64_t inode_size(const struct cinode *ci) { return le64_get(ci->d.size); }

/*
 * design.md §6: what this version cannot do right is refused.  0, or -EOPNOTSUPP with a log line and a
 * counter: inode under retention or with offline extents (changing), quota rules present (writing or
 * creating), tagged xattrs (deleting).
 */
int inode_may_change(struct itx *tx, uint64_t ino, const struct cinode *ci, bool data);
int inode_may_delete(struct itx *tx, uint64_t ino, const struct cinode *ci);

#endif
