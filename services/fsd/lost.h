/* What a mount that was fenced had not committed: runtime.md 2.5, 15. */
#ifndef SCOUTFS_FSD_LOST_H
#define SCOUTFS_FSD_LOST_H

#include "fsd.h"

/* Say it in the log.  Any thread; waits for nobody. */
void lost_report(struct fsd *fsd);
/* The same of a mount that ends before a leader has let it in, if there is something: it waits for the next process. */
void lost_report_kept(struct fsd *fsd);
/* The same of one that stops while there is no leader, for that many seconds.  Whether there was something. */
bool lost_report_left(struct fsd *fsd, uint64_t seconds);

#endif
