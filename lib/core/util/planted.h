/*
 * Planted bugs: `if (PLANTED(name))` is a mistake that only the simulator's build can make, so that
 * `make check` shows that the simulator would find it (tests/sim/planted.h lists them).  In every
 * product build the condition is the constant false.
 */
#ifndef SCOUTFS_UTIL_PLANTED_H
#define SCOUTFS_UTIL_PLANTED_H

#ifdef SCOUTFS_SIMULATOR
#include "tests/sim/planted.h"
#else
#include <stdbool.h>
#define PLANTED(name) false
#endif

#endif
