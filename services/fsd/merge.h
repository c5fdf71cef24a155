/* This mount's share of log merges: runtime.md 7.4. */
#ifndef SCOUTFS_FSD_MERGE_H
#define SCOUTFS_FSD_MERGE_H

#include "fsd.h"

/* Before there are other threads.  -ENOMEM. */
int merge_init(struct fsd *fsd);
/* A thread that asks the leader for work and does it.  -EAGAIN. */
int merge_start(struct fsd *fsd);
/* Gives up what it is doing; the leader has it done by somebody else, or again by this mount. */
void merge_stop(struct fsd *fsd);
/* After the session with the leader has ended, whose answers may still come until then. */
void merge_fini(struct fsd *fsd);
/* There may be work: ask now.  Any thread. */
void merge_kick(struct fsd *fsd);

struct merge_progress {
	uint64_t since_ns;	/* a request is worked on since; 0: none */
	uint64_t items;		/* of it, applied */
};
void merge_get_progress(struct fsd *fsd, struct merge_progress *p);

#endif
