/*
 * The cluster lock server as a pure machine: events in, actions out.  runtime.md 4.2, 4.7, 3.7.
 *
 * No I/O, clock or randomness.  An action is handed to ops.emit, which must only queue it: calling
 * back into the machine from there is forbidden.  One thread owns a machine.
 */
#ifndef SCOUTFS_SERVERD_LOCK_FSM_H
#define SCOUTFS_SERVERD_LOCK_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "key/key.h"

/* The same numbers as on the wire. */
enum lockfsm_mode { LOCKFSM_NULL, LOCKFSM_READ, LOCKFSM_WRITE, LOCKFSM_WRITE_ONLY,
		    LOCKFSM_MODES_NR };

/* One lock as a client reports it in recovery. */
struct lockfsm_held {
	struct key key;
	uint8_t mode;
	uint64_t write_seq;
};

enum lockfsm_event_kind {
	LOCKFSM_REQUEST,	/* rid asks for new_mode of key; handle names the request */
	LOCKFSM_INVALIDATED,	/* rid answered an invalidation of key: it now holds new_mode */
	LOCKFSM_EXPECT,		/* rid was mounted before this server: everything waits for it */
	LOCKFSM_GREETED,	/* rid reached this server for the first time */
	LOCKFSM_RECOVERED,	/* a batch of rid's locks from the key it was asked for */
	LOCKFSM_GONE,		/* rid is fenced or has said farewell */
};

struct lockfsm_event {
	enum lockfsm_event_kind kind;
	uint64_t rid;
	uint64_t handle;
	struct key key;
	uint8_t old_mode, new_mode;
	const struct lockfsm_held *held;	/* RECOVERED */
	size_t held_nr;
	uint64_t now_ns;	/* only for lockfsm_waits; 0: as with the last event */
};

enum lockfsm_act_kind {
	LOCKFSM_GRANT,		/* answer the request `handle` of rid */
	LOCKFSM_INVALIDATE,	/* ask rid to go from old_mode to new_mode */
	LOCKFSM_ASK,		/* ask rid for the locks it holds from key on */
	LOCKFSM_RID_DONE,	/* rid has reported all its locks */
	LOCKFSM_ALL_DONE,	/* nobody is waited for any more */
	LOCKFSM_LIED,		/* rid reported what cannot be: it must not go on */
};

struct lockfsm_act {
	enum lockfsm_act_kind kind;
	uint64_t rid;
	uint64_t handle;
	struct key key;
	uint8_t old_mode, new_mode;
	uint64_t write_seq;
};

/* What the machine needs of its owner. */
struct lockfsm_ops {
	void *arg;
	void (*emit)(void *arg, const struct lockfsm_act *act);
	uint64_t (*next_seq)(void *arg);		/* a new, greatest sequence number */
	void (*raise_seq)(void *arg, uint64_t seq);	/* later ones are greater than this */
};

struct lockfsm_stats {
	uint64_t granted, waiting, invalidating, keys;
	uint64_t grants, invalidates, late_answers, duplicates;
};

struct lockfsm;

/* -ENOMEM. */
int lockfsm_open(struct lockfsm **out, const struct lockfsm_ops *ops);
void lockfsm_close(struct lockfsm *f);

/*
 * Take one event.  -ENOMEM: nothing has changed (a request must then be answered with the error; a
 * RECOVERED batch may be given again).  -EINVAL: the event's modes make no sense; nothing has changed.
 */
int lockfsm_step(struct lockfsm *f, const struct lockfsm_event *ev);

/* Whether rid has yet to report its locks; whether anybody has. */
bool lockfsm_is_expected(const struct lockfsm *f, uint64_t rid);
bool lockfsm_is_gated(const struct lockfsm *f);

void lockfsm_get_stats(const struct lockfsm *f, struct lockfsm_stats *st);

/* A request that waits.  Times are the now_ns of events. */
struct lockfsm_wait {
	struct key key;
	uint64_t rid;
	uint8_t mode;
	uint64_t since_ns;
	uint64_t ahead;		/* requests of the same key that come first */
	uint64_t holder;	/* the first of `holders` that were asked to give the lock back; 0: none */
	uint8_t holder_mode;
	uint64_t holders;
	uint64_t asked_ns;	/* when */
};

/*
 * The longest waits of those looked at, longest first, at most max; how many.  It looks at LOCKFSM_LOOK_MAX
 * at most, beginning with the keys that have waited longest.
 */
#define LOCKFSM_LOOK_MAX	65536u
size_t lockfsm_waits(const struct lockfsm *f, struct lockfsm_wait *out, size_t max);

/* For tests, after each step: assert every invariant; walks everything. */
void lockfsm_check(const struct lockfsm *f);

/* For tests: the mode rid holds of key as far as the machine knows, what was granted and not taken back. */
uint8_t lockfsm_mode_of(const struct lockfsm *f, uint64_t rid, const struct key *key);

#endif
