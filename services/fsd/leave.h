/* The end of a mount that has no leader any more: design.md D7, runtime.md 2.5. */
#ifndef SCOUTFS_FSD_LEAVE_H
#define SCOUTFS_FSD_LEAVE_H

#include "fsd.h"

/* The exit status of a process that the next one goes on from: the units and scoutfsctl know it. */
#define EXIT_KEPT	75

/*
 * The mount is asked to stop, or (is_restart) its process to end for the next one, which may follow or come before the
 * former: from now on it ends as soon as the kernel has let go of it and there is no leader to wait for.  Any thread, as often
 * as one likes; on an error, said, it waits for a leader as long as whoever stops it does.
 */
void leave_begin(struct fsd *fsd, bool is_restart);

/* All that is left is the farewell; is_stored: and all that programs had done is committed.  Before PHASE_LEAVING. */
void leave_farewell(bool is_stored);

/* What decides; leave.c says why. */
struct leave_view {
	uint64_t stopped_ms;	/* since it was asked to stop */
	uint64_t silent_ms;	/* since its lease was over; 0: it has one */
	uint64_t patience_ms;	/* as long as the next leader may take */
	uint64_t election_ms;	/* as long as one that has come back may take to listen */
	bool is_greeted;	/* a leader listens, and may give a lease soon */
};

/* Whether programs that use the mount are to be cut off. */
bool leave_may_cut(const struct leave_view *v);
/* Whether no leader is waited for any more; is_dirty: something is not committed. */
bool leave_is_over(const struct leave_view *v, bool is_dirty);

#endif
