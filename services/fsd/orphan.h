/* Inodes in use by this mount, and the end of unlinked ones: runtime.md 10, design.md D4 (open-inode map). */
#ifndef SCOUTFS_FSD_ORPHAN_H
#define SCOUTFS_FSD_ORPHAN_H

#include "op.h"

int orphans_start(struct fsd *fsd);
void orphans_stop(struct fsd *fsd);	/* stops scanning; waits for running deletions */
/* At unmount, after the kernel let go: delete what this mount unlinked and nobody uses. */
void orphans_drain(struct fsd *fsd);

/* The kernel's reference count on ino (nlookup), and open handles.  Dropping the last one of an inode
 * with nlink 0 begins its deletion. */
void inode_ref(struct fsd *fsd, uint64_t ino, uint64_t nr);
void inode_forget(struct fsd *fsd, uint64_t ino, uint64_t nr);
void inode_open(struct fsd *fsd, uint64_t ino);
void inode_release(struct fsd *fsd, uint64_t ino);
bool inode_in_use(struct fsd *fsd, uint64_t ino);
/* ino has lost its last link, committed or not: delete it once it is out of use. */
void inode_unlinked(struct fsd *fsd, uint64_t ino);
/* Bits of the group's inodes in use here (128 bytes), for open_ino_map queries. */
void inode_use_map(struct fsd *fsd, uint64_t group, uint8_t map[128]);
/* Each inode of [first, last] the kernel knows (or may know), for cache invalidation. */
void inode_each_ref(struct fsd *fsd, uint64_t first, uint64_t last, void (*each)(void *arg, uint64_t ino), void *arg);

#endif
