/*
 * Leases: a right to write that ends by itself.  design.md D6, D8; runtime.md 2.1, 2.7.
 *
 * Three pure machines, one for each party; none has a clock, allocates, or does I/O:
 *
 *	holder	 the mount (fsd): asks the leader for more time, says when what it caches may be used
 *	granter	 the leader (serverd), one for each mount: gives time, and knows when all of it is over
 *	guard	 blockd: what of which writer may be submitted now
 *
 * Times are nanoseconds of a clock that goes on while the machine is suspended (CLOCK_BOOTTIME).  Each
 * party uses its own host's and no two are ever compared: the holder counts from when it *asked* and stops
 * early by the drift, the granter counts from when it *answered* and waits longer by the drift.  A host
 * whose clock runs wrong by more than that is what an external fence agent is for.
 */
#ifndef SCOUTFS_LEASE_H
#define SCOUTFS_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEASE_MS_MIN		1000u
#define LEASE_MS_MAX		30000u		/* what any leader of any configuration gives at most */
#define LEASE_MS_DEFAULT	10000u
#define LEASE_NEVER		UINT64_MAX

/* How far two clocks may drift apart in so long a time. */
uint64_t lease_drift_ns(uint64_t lease_ns);

/* ---- holder ---- */

enum lease_hold_in_kind {
	LEASE_HOLD_TICK,	/* nothing but time */
	LEASE_HOLD_GREETED,	/* there is a leader to ask, of `term` */
	LEASE_HOLD_GRANTED,	/* it has answered ask `id`: lease_ns from when that was sent */
	LEASE_HOLD_FAILED,	/* or it has not: an error; asked again */
	LEASE_HOLD_FENCED,	/* the leader has given this mount up: never again */
};

struct lease_hold_in {
	enum lease_hold_in_kind kind;
	uint64_t id;		/* GRANTED, FAILED */
	uint64_t term;		/* GREETED, GRANTED */
	uint64_t lease_ns;	/* GRANTED */
};

enum lease_hold_act_kind {
	LEASE_HOLD_ASK,		/* send a request now; its answer is GRANTED or FAILED with `id` */
	LEASE_HOLD_USE,		/* writes under `term` may be submitted until `until_ns`: tell blockd */
	LEASE_HOLD_LOSE,	/* the time has run out: nothing cached may be shown or changed */
	LEASE_HOLD_RESUME,	/* there is time again, after LOSE or for the first time */
	LEASE_HOLD_END,		/* never again */
};

struct lease_hold_act {
	enum lease_hold_act_kind kind;
	uint64_t id, term, until_ns;
};

#define LEASE_HOLD_ACTS_MAX	4u
struct lease_hold_acts {
	size_t nr;
	struct lease_hold_act v[LEASE_HOLD_ACTS_MAX];
};

enum lease_hold_state {
	LEASE_HOLDER_NONE,	/* none yet, or it has run out */
	LEASE_HOLDER_HELD,
	LEASE_HOLDER_ENDED,
};

/* In place; private but for what a status shows. */
struct lease_holder {
	enum lease_hold_state state;
	bool has_leader;	/* it was greeted once */
	bool is_asked;		/* the answer to ask_id is awaited */
	uint64_t ask_id;
	uint64_t asked_ns;
	uint64_t next_ask_ns;	/* unless is_asked */
	uint64_t term;		/* that gave it */
	uint64_t until_ns;
	uint64_t losses;	/* how often it has run out */
};

void lease_holder_init(struct lease_holder *h);
/* Take one event.  out is overwritten. */
void lease_holder_step(struct lease_holder *h, const struct lease_hold_in *in, uint64_t now_ns,
		       struct lease_hold_acts *out);
/* When TICK must come at the latest. */
uint64_t lease_holder_deadline(const struct lease_holder *h);
/* Whether it may write and show what it caches at this very moment, ticked or not. */
bool lease_holder_may(const struct lease_holder *h, uint64_t now_ns);
void lease_holder_check(const struct lease_holder *h);

/* ---- granter ---- */

/* In place, one for each mount; all zero is none. */
struct lease_granter {
	bool is_closed;		/* given up: no more */
	bool lives_by_leases;	/* it speaks our protocol: without a lease its blockd submits nothing */
	uint64_t until_ns;	/* nothing that was given reaches further; drift included */
};

/*
 * The mount has greeted this leader, so it lives by leases; an earlier leader, who is over since `now_ns` at
 * the latest, may have given it one of any length.
 */
void lease_granter_greeted(struct lease_granter *g, uint64_t now_ns);
/*
 * The mount was found on the volume, which says that earlier leaders, who are over since `now_ns` at the
 * latest, gave it lease_ns at a time at most: so much is known of it even if it never greets this one.
 */
void lease_granter_found(struct lease_granter *g, uint64_t lease_ns, uint64_t now_ns);
/*
 * Give lease_ns.  own_until_ns: the leader's own right, on the same clock; LEASE_NEVER: it needs none.
 * -EAGAIN: that has run out; -ENOLINK: the mount was given up.
 */
int lease_granter_grant(struct lease_granter *g, uint64_t lease_ns, uint64_t own_until_ns,
			uint64_t now_ns);
/* It was given up. */
void lease_granter_close(struct lease_granter *g);
/*
 * From when on nothing of the mount can reach a device any more, if a single write takes longest_io_ns at
 * most.  LEASE_NEVER: nobody knows: it has not greeted us, and may be of an implementation without leases.
 */
uint64_t lease_granter_over_ns(const struct lease_granter *g, uint64_t longest_io_ns);

/* ---- guard ---- */

#define LEASE_GUARD_MAX		64u	/* writers: as many as a blockd has clients */
#define LEASE_SPAN_MAX_NS	(120ull * 1000000000u)	/* no right is believed to reach further */

/* The right of one writer, and what to do when its time is over. */
struct lease_right {
	uint32_t kind;		/* the caller's: 0 is none */
	uint64_t rid;
	uint64_t term;
	uint64_t until_ns;
	uint32_t fuse_id;	/* of the mount's FUSE connection, 0: none */
	bool is_here;		/* a process of the writer is connected */
	uint64_t since_ns;	/* it is, or is not */
	uint64_t withdraws_ns;	/* since when it makes its kernel forget; 0: it does not */
	uint64_t over_seen_ns;	/* when it was first looked at with its time over; 0: not yet */
};

/* In place; all zero is empty. */
struct lease_guard {
	struct lease_right v[LEASE_GUARD_MAX];
};

/*
 * The writer (kind, rid) may write under `term` until then; what is older than what is known changes
 * nothing.  1: something has changed; 0; -ENOSPC: too many writers; -ERANGE: further than LEASE_SPAN_MAX_NS.
 */
int lease_guard_set(struct lease_guard *g, uint32_t kind, uint64_t rid, uint64_t term, uint64_t until_ns,
		    uint64_t now_ns);
/*
 * May the writer write now, and until when (*until_ns)?  A server (is_server) only under the very term that
 * it was given; a mount's right outlives the leader that gave it.  0 or -EKEYEXPIRED.
 */
int lease_guard_check(const struct lease_guard *g, uint32_t kind, uint64_t rid, uint64_t term,
		      bool is_server, uint64_t now_ns, uint64_t *until_ns);
/* The right of a writer as it is known; NULL: none ever. */
const struct lease_right *lease_guard_find(const struct lease_guard *g, uint32_t kind, uint64_t rid);

/* A process of the writer has come or gone. */
void lease_guard_here(struct lease_guard *g, uint32_t kind, uint64_t rid, bool is_here, uint64_t now_ns);
/*
 * The mount's kernel caches hang on this FUSE connection; 0: it has none any more, or the kernel remembers
 * nothing.  1, 0, -ENOSPC as set.
 */
int lease_guard_fuse(struct lease_guard *g, uint32_t kind, uint64_t rid, uint32_t fuse_id, uint64_t now_ns);
/* Its time is over, and its process is making the kernel forget, which takes a while. */
void lease_guard_withdraws(struct lease_guard *g, uint32_t kind, uint64_t rid, uint64_t now_ns);
/*
 * The next mount whose time is over and whose kernel remembers what others may change now: its process is not there
 * (for grace_ns, where there is that much time), or does nothing about it.  Its FUSE connection must be cut.  It is
 * returned once; 0: there is none.  A process that is there has LEASE_LATE_NS from when this was first called with
 * its time over: where the caller was stopped, with the whole host perhaps, the process may have been as well.
 */
#define LEASE_LATE_NS		1000000000ull	/* longest_io_ms is that at least: nobody changes anything before */
#define LEASE_WITHDRAW_NS	10000000000ull
uint32_t lease_guard_next_cut(struct lease_guard *g, uint64_t grace_ns, uint64_t now_ns);
/* When there may be one. */
uint64_t lease_guard_deadline(const struct lease_guard *g, uint64_t grace_ns);

#endif
