/*
 * The machines that the simulator has.  A new one: drive_NAME.c with its `struct sim_machine`, named
 * here and in machines.c.
 */
#ifndef SCOUTFS_SIM_MACHINES_H
#define SCOUTFS_SIM_MACHINES_H

#include "sim.h"

extern const struct sim_machine sim_machine_frame;
extern const struct sim_machine sim_machine_quorum;
extern const struct sim_machine sim_machine_lease;
extern const struct sim_machine sim_machine_cluster;

extern const struct sim_machine *const sim_machines[];
extern const size_t sim_machines_nr;

#endif
