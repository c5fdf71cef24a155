/*
 * The planted bugs.  P(name, machine whose worlds show it, seeds that must be enough, what it is).
 * One can be on at a time, chosen by the runner (main.c); the code has it as `if (PLANTED(name))`.
 */
#ifndef SCOUTFS_SIM_PLANTED_H
#define SCOUTFS_SIM_PLANTED_H

#include <stdbool.h>

#define PLANTED_BUGS(P)									\
	P(frame_loses_in_order, frame, 50, "a connection loses a message without a break")

enum planted_bug {
	PLANTED_none,
#define PLANTED_ENUM(name, machine, seeds, what) PLANTED_##name,
	PLANTED_BUGS(PLANTED_ENUM)
#undef PLANTED_ENUM
	PLANTED_BUGS_NR,
};

/* Set by the runner between worlds only. */
extern enum planted_bug planted_bug;

#define PLANTED(name) (planted_bug == PLANTED_##name)

#endif
