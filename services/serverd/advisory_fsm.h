/*
 * Advisory locks of all mounts, flock(2) and fcntl(2), as a pure machine: events in, actions out.
 *
 * No I/O, clock or randomness.  An action is handed to ops.emit, which must only queue it: calling back
 * into the machine from there is forbidden.  One thread owns a machine.
 *
 * An owner is (rid, kind, number): the number is the kernel's, of the open file (flock, OFD locks) or of the
 * table of open files of a process (POSIX locks), and means nothing outside its mount.
 */
#ifndef SCOUTFS_SERVERD_ADVISORY_FSM_H
#define SCOUTFS_SERVERD_ADVISORY_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "advisory/adv_ranges.h"

/* The same numbers as on the wire.  The two do not see each other, as on a local filesystem. */
enum advfsm_kind { ADVFSM_POSIX, ADVFSM_FLOCK, ADVFSM_KINDS_NR };
enum advfsm_status {
	ADVFSM_GRANTED,
	ADVFSM_WOULD_BLOCK,	/* another owner has it, and the request does not wait */
	ADVFSM_DEADLOCK,	/* POSIX: to wait would be to wait for oneself */
	ADVFSM_CANCELED,	/* as was asked for */
	ADVFSM_LIMIT,		/* too many locks */
};

#define ADVFSM_RANGES_MAX	(1u << 20)	/* of all */
#define ADVFSM_WAITERS_MAX	65536u

/* A lock, or what is asked for. */
struct advfsm_lock {
	uint64_t ino;
	uint64_t owner;
	uint64_t first, last;
	uint32_t pid;		/* on its mount; only handed back */
	uint8_t kind;
	uint8_t type;		/* enum adv_type */
};

enum advfsm_event_kind {
	ADVFSM_LOCK,		/* rid asks for lock, or with ADV_UNLOCK gives it back; handle is the request's,
				   number the mount's own name for it */
	ADVFSM_CANCEL,		/* rid's request `number` is not to wait any longer; it may end with WOULD_BLOCK */
	ADVFSM_TEST,		/* who keeps rid from getting lock? */
	ADVFSM_EXPECT,		/* rid was mounted before this server: nothing is granted before it told its locks */
	ADVFSM_GREETED,		/* rid reached this server for the first time */
	ADVFSM_RESTARTED,	/* rid goes on as another process, which asks anew and tells what it knows to be held */
	ADVFSM_TOLD,		/* a part of that */
	ADVFSM_GONE,		/* rid is fenced or has said farewell */
};

struct advfsm_event {
	enum advfsm_event_kind kind;
	uint64_t rid;
	uint64_t handle;
	uint64_t number;
	bool wait;
	struct advfsm_lock lock;
	/* TOLD: as asked for in that round (0: in whichever), in order of ino, kind, owner, first. */
	uint64_t round;
	const struct advfsm_lock *told;
	size_t told_nr;
	bool is_last;
};

enum advfsm_act_kind {
	ADVFSM_ANSWER,		/* the LOCK request `handle` of rid ends with status */
	ADVFSM_TESTED,		/* the TEST request `handle`: lock of `holder`; type ADV_UNLOCK: nobody's */
	ADVFSM_ASK,		/* ask rid for its locks; those after the end of `lock` if not from_start */
	ADVFSM_LIED,		/* rid told what cannot be: it must not go on */
	ADVFSM_CONFLICT,	/* rid told of `lock`, of which another has some: it is not taken over, or for reading */
	ADVFSM_ALL_DONE,	/* nobody is waited for any more */
};

struct advfsm_act {
	enum advfsm_act_kind kind;
	uint64_t rid;
	uint64_t handle;
	enum advfsm_status status;
	struct advfsm_lock lock;
	uint64_t holder;	/* TESTED: the rid it is on */
	uint64_t round;
	bool from_start;
};

struct advfsm_ops {
	void *arg;
	void (*emit)(void *arg, const struct advfsm_act *act);
};

struct advfsm_stats {
	uint64_t ranges, waiting, gated;	/* now */
	uint64_t grants, blocked, deadlocks, canceled, conflicts;
};

struct advfsm;

int advfsm_open(struct advfsm **out, const struct advfsm_ops *ops);	/* -ENOMEM */
void advfsm_close(struct advfsm *f);

/*
 * Take one event.  -ENOMEM: nothing has changed (a LOCK or TEST must then be answered with the error).
 * -EINVAL: the lock makes no sense; nothing has changed.
 */
int advfsm_step(struct advfsm *f, const struct advfsm_event *ev);

/* For tests: whether anybody has yet to tell its locks. */
bool advfsm_is_gated(const struct advfsm *f);
/* Whether a request of another rid waits for what this one has, or for what it has not told yet.  Looks at all that wait. */
bool advfsm_waits_for(const struct advfsm *f, uint64_t rid);
void advfsm_get_stats(const struct advfsm *f, struct advfsm_stats *st);
/* For tests: call fn for every lock that is held. */
void advfsm_each(const struct advfsm *f, void *arg,
		 void (*fn)(void *arg, uint64_t rid, const struct advfsm_lock *lock));

/* For tests, after each step: assert every invariant; walks everything. */
void advfsm_check(const struct advfsm *f);

#endif
