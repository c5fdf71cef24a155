/* The leader's side of a cluster's world. */
#ifndef SCOUTFS_SIM_SERVER_SIM_H
#define SCOUTFS_SIM_SERVER_SIM_H

#include "cluster.h"

/* The term that this process serves or has served last. */
uint64_t server_sim_term(const struct node *n);

#endif
