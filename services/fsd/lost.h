/* What a mount that was fenced, or ends, had not committed: runtime.md 2.5, 15. */
#ifndef SCOUTFS_FSD_LOST_H
#define SCOUTFS_FSD_LOST_H

#include "fsd.h"

#define LOST_NAMED_MAX	8u	/* inodes that are named */

struct lost {
	uint64_t items, inodes;
	uint64_t pages;		/* of file data, in the pool */
	uint64_t mapped;	/* stores to mappings that are answered and not applied */
	uint64_t named[LOST_NAMED_MAX];
};

/* How much it is.  Any thread, with fsd->items; waits for nobody.  The item cache's error. */
int lost_count(struct fsd *fsd, struct lost *l);
bool lost_is_none(const struct lost *l);

/* A program has opened a file with these flags (before it is answered), or let go of it.  Any thread. */
void lost_note_open(struct fsd *fsd, int flags);
void lost_note_release(struct fsd *fsd, int flags);
/* The mount ends, and no program lets go of anything any more: what an earlier process may have opened is kept in mind. */
void lost_note_end(struct fsd *fsd);
/* Whether the kernel may have stores to mappings that nobody here has been told of: where it is cut off they are lost. */
bool lost_may_have_stores(struct fsd *fsd);
/* Of a mount that ends: say it, if programs were cut off, and may have had such stores.  Whether it was so. */
bool lost_report_cut(struct fsd *fsd);

/* Say it in the log.  Any thread; waits for nobody. */
void lost_report(struct fsd *fsd);
/* The same of a mount that ends before a leader has let it in, if there is something: it waits for the next process. */
void lost_report_kept(struct fsd *fsd);
/* The same of one that stops while there is no leader, for that many seconds.  Whether there was something. */
bool lost_report_left(struct fsd *fsd, uint64_t seconds);

#endif
