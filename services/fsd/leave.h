/* The end of a mount that has no leader any more: design.md D7, runtime.md 2.5. */
#ifndef SCOUTFS_FSD_LEAVE_H
#define SCOUTFS_FSD_LEAVE_H

#include "fsd.h"

/*
 * The mount is asked to stop: from now on it ends as soon as the kernel has let go of it and there is no leader to wait
 * for.  Any thread, as often as one likes; on an error, said, it waits for a leader as long as whoever stops it does.
 */
void leave_begin(struct fsd *fsd);

#endif
