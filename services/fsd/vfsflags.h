/* Options that the VFS keeps with the mount (ro, nosuid, nodev, ...): interface.md 4.1. */
#ifndef SCOUTFS_FSD_VFSFLAGS_H
#define SCOUTFS_FSD_VFSFLAGS_H

#include "fsd.h"

/*
 * What is mounted at the mountpoint is about to be replaced: its options are noted for the next
 * mount, if none are.  What cannot be noted is said.
 */
void vfsflags_note(struct fsd *fsd);
/* The noted ones as flags of mount(2), 0: none. */
unsigned long vfsflags_noted(struct fsd *fsd);
/* The mount has them: the next one that replaces it notes its own. */
void vfsflags_applied(struct fsd *fsd);

#endif
