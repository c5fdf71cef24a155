/* What a mount that was fenced had not committed: runtime.md 2.5, 15. */
#ifndef SCOUTFS_FSD_LOST_H
#define SCOUTFS_FSD_LOST_H

#include "fsd.h"

/* Say it in the log.  Any thread; waits for nobody. */
void lost_report(struct fsd *fsd);

#endif
