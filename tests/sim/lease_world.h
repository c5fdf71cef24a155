/*
 * What the worlds of leases and their checker share.
 */
#ifndef SCOUTFS_SIM_LEASE_WORLD_H
#define SCOUTFS_SIM_LEASE_WORLD_H

#include "format/format.h"
#include "lease/lease.h"
#include "sim.h"

#define LW_KIND_MOUNT	2u	/* of the guard's writers */

/* How a block of the device begins. */
struct lw_block {
	uint64_t rid, nr;
};

enum {
	LW_FACT_MOUNTED = SIM_FACT_OWN,	/* rid v[0] is written down as mounted */
	LW_FACT_REUSED,			/* what rid v[0] had is given to others */
	LW_FACT_SHOWN,			/* rid v[0] shows what it caches */
};

/* The checker; check_lease.c. */
struct check_lease;
struct check_lease *check_lease_new(struct sim *s, const struct sim_disk *disk);
/* How many blocks were written in the last half second. */
unsigned check_lease_written(struct sim *s, const struct check_lease *c);

#endif
