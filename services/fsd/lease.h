/*
 * This mount's lease: design.md D6.  Kept while there is a leader; when it runs out operations wait (they do
 * not fail: runtime.md 15, a lost majority) and the kernel forgets what it has cached, until the leader,
 * or the next one, gives another.
 */
#ifndef SCOUTFS_FSD_LEASE_H
#define SCOUTFS_FSD_LEASE_H

#include "fsd.h"

/* Before and after the session is started.  -ENOMEM, and what a thread costs. */
int lease_open(struct fsd *fsd);
int lease_start(struct fsd *fsd);
/* Before the session is stopped: nothing is asked any more. */
void lease_stop(struct fsd *fsd);
/* After it was. */
void lease_close(struct fsd *fsd);

/* The leader of that term listens.  Never blocks. */
void lease_greeted(struct fsd *fsd, uint64_t term);

/* The kernel's connection is there: blockd hears of it with the lease. */
void lease_has_connection(struct fsd *fsd);

/* How long the lease lasts, 0: it has run out or there was none yet, and how often it has run out. */
uint64_t lease_left_ms(struct fsd *fsd, uint64_t *losses);

#endif
