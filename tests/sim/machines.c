/*
 * All machines, in the order in which they are run.
 */
#include "machines.h"

const struct sim_machine *const sim_machines[] = {
	&sim_machine_frame,
	&sim_machine_quorum,
	&sim_machine_lease,
	&sim_machine_cluster,
};
const size_t sim_machines_nr = sizeof(sim_machines) / sizeof(sim_machines[0]);
