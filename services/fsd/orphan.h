/* The end of unlinked inodes: runtime.md 10.3, 10.4.  Which are in use: inuse.h. */
#ifndef SCOUTFS_FSD_ORPHAN_H
#define SCOUTFS_FSD_ORPHAN_H

#include "inuse.h"
#include "op.h"

/* fsd->orphans, with its threads; ends with orphans_stop and orphans_close.  -ENOMEM, -EAGAIN. */
int orphans_start(struct fsd *fsd);
/* No scan any more; running deletions are waited for, what is left is the next mount's. */
void orphans_stop(struct fsd *fsd);
/* Frees it, when nobody asks any more which inodes are in use (locks_end_revokes). */
void orphans_close(struct fsd *fsd);
/* At unmount, after the kernel let go: delete what this mount unlinked and nobody uses. */
void orphans_drain(struct fsd *fsd);

/* ino has lost its last link, committed or not: delete it once it is out of use. */
void inode_unlinked(struct fsd *fsd, uint64_t ino);
/* Whether inodes are being deleted, or will be in a moment: then at once, for somebody needs their space. */
bool inode_deletes_hurry(struct fsd *fsd);
/* It was made without a name, and has got one. */
void inode_linked(struct fsd *fsd, uint64_t ino);

#endif
