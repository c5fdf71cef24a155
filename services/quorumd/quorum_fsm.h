/*
 * The election as a pure machine: step(state, event, now) -> actions.  runtime.md 1.4, 1.5, with
 * its [H] rules; design.md D5 (whole states instead of single messages), D7 (adoption), D8.
 *
 * No I/O, clock, allocation or randomness: the seed is part of the state.  One thread owns a
 * machine.
 */
#ifndef SCOUTFS_QUORUM_FSM_H
#define SCOUTFS_QUORUM_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/format.h"
#include "msg.h"

#define QUORUM_ELECTION_NS	250000000ull	/* and a record's time */
#define QUORUM_SPREAD_NS	100000000ull	/* up to that and QUORUM_SPREAD_RECORDS records' time more, by lot */
#define QUORUM_SPREAD_RECORDS	4u
#define QUORUM_BEAT_NS		100000000ull
#define QUORUM_ALIVE_MS		1000u		/* a member that was heard within it may be handed a term to */
#define QUORUM_LEASE_MEMBERS_MIN 3u		/* with fewer there is no majority to have it from */
#define QUORUM_ACTS_MAX		16u
#define QUORUM_SENT_MAX		256u		/* states of ours whose time is known: 25 s of beats */

struct quorum_conf {
	uint64_t fsid;
	unsigned slot;			/* ours */
	uint32_t present;		/* one bit for each configured slot */
	uint64_t heartbeat_timeout_ns;
	uint64_t incarnation;		/* greater in each process of this slot */
	uint64_t seed;
	uint64_t first_term;		/* the greatest of any event on the device */
	bool leader_on_disk;		/* some other slot's last leader has not stopped */
};

enum quorum_event_in {
	QUORUM_IN_TICK, /* nothing but time */
	QUORUM_IN_PEER, /* a member's state has come */
	QUORUM_IN_WRITTEN, /* a write that was asked for is durable */
	QUORUM_IN_WRITE_FAILED, /* or will never be: this member cannot go on */
	QUORUM_IN_SERVER_HERE, /* this host has a serverd that can be started */
	QUORUM_IN_SERVER_STATE, /* it says what it is */
	QUORUM_IN_SERVER_GONE, /* it is dead and nothing of it can reach the device any more */
	QUORUM_IN_CLEAN, /* nobody led from our slot who is not known to be fenced */
	QUORUM_IN_ADOPT, /* at start: our serverd serves the term that our slot shows */
	QUORUM_IN_FENCED, /* every earlier leader is fenced */
	QUORUM_IN_FENCE_FAILED,
	QUORUM_IN_NEWER, /* the slots show that somebody was elected in that greater term */
	QUORUM_IN_RESIGN, /* give the term up, so that another member leads; who leads none ignores it */
	QUORUM_IN_SHUTDOWN,
};

struct quorum_in {
	enum quorum_event_in kind;
	uint64_t term;			/* WRITTEN, SERVER_STATE, ADOPT, FENCED, FENCE_FAILED, NEWER */
	enum quorum_event_kind record;	/* WRITTEN */
	enum server_status status;	/* SERVER_STATE, ADOPT */
	const struct msg_quorum_state *peer;
};

enum quorum_act_kind {
	QUORUM_ACT_SEND, /* send our state (quorum_fill_state) to every member */
	QUORUM_ACT_WRITE, /* record an event in our slot; the order of writes counts */
	QUORUM_ACT_FENCE, /* have every earlier leader fenced; answer FENCED or FENCE_FAILED */
	QUORUM_ACT_SERVE, /* serverd shall serve this term */
	QUORUM_ACT_STOP, /* serverd shall stop serving this term */
	QUORUM_ACT_KILL, /* it did not within the time it has: end it, then SERVER_GONE */
	QUORUM_ACT_EXIT, /* the last record is written: the process may end */
};

struct quorum_act {
	enum quorum_act_kind kind;
	enum quorum_event_kind record;
	uint64_t term;
};

struct quorum_acts {
	size_t nr;
	struct quorum_act v[QUORUM_ACTS_MAX];
};

/* What a term of ours has come to on this host. */
enum quorum_lead {
	QUORUM_LEAD_NONE,
	QUORUM_LEAD_ELECT,	/* ELECT is being written */
	QUORUM_LEAD_FENCE,	/* earlier leaders are being fenced */
	QUORUM_LEAD_SERVE,	/* serverd has been told */
	QUORUM_LEAD_STOP,	/* serverd has been told to stop */
	QUORUM_LEAD_STOPPED,	/* STOP is being written */
};

struct quorum_peer {
	bool is_heard;
	bool resigned_seen;		/* its resignation from this term has been acted on */
	uint64_t incarnation, number;
	uint64_t term;
	uint8_t role, voted_for;
	uint64_t heard_ns;		/* when its newest state came */
	uint64_t heard_state;		/* which one that was, as we tell it */
	uint64_t granted_ns;		/* when we said what it, in our term, has heard last; 0: nothing */
	uint64_t led_term;		/* the last that it said it leads */
	uint64_t led_since_ns;		/* when it was heard to for the first time */
	uint32_t lease_ms;		/* of its own lease */
};

/* In place; private to quorum_fsm.c but for what is shown. */
struct quorum {
	struct quorum_conf conf;
	uint64_t rng;
	uint64_t number;		/* of our last state */
	uint64_t sent_ns[QUORUM_SENT_MAX];	/* by number: when it was said */
	bool began;			/* BEGIN is durable */
	bool failed;			/* a write failed: stop, then exit */
	bool stopping;			/* SHUTDOWN */
	bool exited;
	bool is_clean, is_server_here;
	enum quorum_role role;
	uint64_t term;
	uint64_t durable_term;		/* what may be said: a TERM record of it is durable */
	uint8_t voted_for;		/* in this term; ourselves too */
	uint32_t votes;
	bool resigned;			/* we led this term and do not any more */
	uint64_t asked_ns;		/* when the newest TERM, or BEGIN, was to be recorded */
	uint64_t record_ns;		/* how long such a record takes here */
	uint64_t timeout_ns;
	uint64_t beat_ns;		/* when to say our state again */
	uint64_t led_since_ns;
	enum quorum_lead lead;
	uint64_t lead_term;
	bool fence_written;
	bool end_written;
	enum server_status server;	/* of lead_term */
	uint64_t stop_by_ns;		/* LEAD_STOP */
	struct quorum_peer peers[QUORUM_SLOTS_MAX];
	uint64_t left_ns[QUORUM_SLOTS_MAX];	/* when those who vote for us had last heard of that slot */
};

/* How many votes make a leader of nr slots: 1.1. */
unsigned quorum_votes_needed(unsigned nr);

/* Begin: the first action is the BEGIN record. */
void quorum_start(struct quorum *q, const struct quorum_conf *conf, uint64_t now_ns,
		  struct quorum_acts *out);
/* Take one event.  out is overwritten. */
void quorum_step(struct quorum *q, const struct quorum_in *in, uint64_t now_ns,
		 struct quorum_acts *out);
/* When TICK must come at the latest. */
uint64_t quorum_deadline(const struct quorum *q);
/* Assert every invariant. */
void quorum_check(const struct quorum *q);

/*
 * Until when the leader of lead_term may write: its lease from a majority, counted from when we spoke
 * (drift not taken off); alone, or with one other, always heartbeat_timeout_ns from now.  0: it has none.
 */
uint64_t quorum_lease_until(const struct quorum *q, uint64_t now_ns);
/*
 * While we lead: when, by our clock, the lease of slot's leader of `term` is over (drift not added).  0: nobody
 * knows, for we have not heard that leader, or there are too few members for a majority.
 */
uint64_t quorum_lease_over_ns(const struct quorum *q, unsigned slot, uint64_t term);

/* Our state as it goes to the members at now_ns, with a new number. */
void quorum_fill_state(struct quorum *q, uint64_t now_ns, struct msg_quorum_state *out);
/* Who would be a candidate at once if we resigned now: MSG_NO_SLOT: no other member is alive. */
uint8_t quorum_successor(const struct quorum *q, uint64_t now_ns);
/* The slot that leads our term as far as we know, MSG_NO_SLOT. */
uint8_t quorum_leader_slot(const struct quorum *q);

#endif
