/* Requests of threads that are being killed.  Used through fuse_op_start and fuse_op_done (fuse.h).
 */
#ifndef SCOUTFS_FSD_INTERRUPT_H
#define SCOUTFS_FSD_INTERRUPT_H

#include <signal.h>

#include "fsd.h"

/* For kcache.c: before the session serves, and when no operation of it is left.  0 or -errno. */
int interrupts_start(struct fsd *fsd);
void interrupts_stop(struct fsd *fsd);

/* Whether the thread is gone, or a fatal signal is pending for it. */
bool thread_is_dying(pid_t tid);

#endif
