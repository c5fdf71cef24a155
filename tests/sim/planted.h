/*
 * The planted bugs.  P(name, machine whose worlds show it, seeds that must be enough, what it is).
 * One can be on at a time, chosen by the runner (main.c); the code has it as `if (PLANTED(name))`.
 */
#ifndef SCOUTFS_SIM_PLANTED_H
#define SCOUTFS_SIM_PLANTED_H

#include <stdbool.h>

#define PLANTED_BUGS(P)									\
	P(frame_loses_in_order, frame, 50, "a connection loses a message without a break")	\
	P(quorum_speaks_before_durable, quorum, 2000,					\
	  "a member speaks of a term, and votes in it, before its block shows it")	\
	P(quorum_forgets_its_vote, quorum, 3000,						\
	  "a restarted member votes in the term that it began in")			\
	P(quorum_overtaken_serves, quorum, 5000,					\
	  "who is elected and finds a later ELECT serves all the same")			\
	P(quorum_stops_too_early, quorum, 1000,						\
	  "STOP is recorded before serverd is down")					\
	P(quorum_leads_without_a_majority, quorum, 4000,					\
	  "a leader that nobody hears goes on writing")					\
	P(quorum_half_is_enough, quorum, 1000, "half of the votes make a leader")	\
	P(quorum_waits_for_a_fence_for_ever, quorum, 1000,				\
	  "a leader whose fence fails does not let another try")			\
	P(quorum_believes_an_old_block, quorum, 1000,					\
	  "a record is made in a block that is older than the one written last")	\
	P(quorum_waits_for_its_own_lease, quorum, 3000,				\
	  "who is elected waits as long as its own lease would last, not the other's")	\
	P(lease_clocks_are_equal, lease, 4000, "nobody thinks of clocks that drift")	\
	P(lease_counts_from_the_answer, lease, 4000,					\
	  "a mount counts its lease from the answer, the leader from when it gave it")	\
	P(lease_of_earlier_leaders_forgotten, lease, 1000,				\
	  "a leader waits only for the leases that it gave itself")			\
	P(lease_never_runs_out, lease, 1000, "blockd does not look at the time")		\
	P(lease_asks_no_more, lease, 1000, "a mount that was refused once asks no more")	\
	P(lock_granted_while_taken, cluster, 100,						\
	  "a lock is granted while its holder has not given it back")			\
	P(lock_granted_in_recovery, cluster, 300,					\
	  "a new server grants locks before all mounts have told theirs")		\
	P(locks_before_the_fence, cluster, 300,						\
	  "the locks of a mount that is given up go to others before it is fenced")	\
	P(revoke_waits_for_nobody, cluster, 100, "a lock is given back while it is used")	\
	P(revoke_forgets_to_commit, cluster, 100,					\
	  "a lock is given back before what was written under it is committed")		\
	P(session_answers_once, cluster, 1000, "an answer is not sent again on the next socket")	\
	P(session_hears_twice, cluster, 1000, "a request that comes again is handled again")	\
	P(map_before_everybody_is_back, cluster, 1000,					\
	  "a new server tells who uses an inode before all mounts have come back")	\
	P(commit_is_not_repeatable, cluster, 1000, "a commit that is sent again is refused")	\
	P(merge_without_everybody, cluster, 300,					\
	  "a merge begins while a mount's tree is not finished")

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
