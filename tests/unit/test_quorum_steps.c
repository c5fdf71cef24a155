/*
 * One machine of the election, step by step: nothing is said, served or counted before what it rests
 * on is durable, fenced or heard; a lease is what a majority has heard.  runtime.md 1, 2.2.  (Worlds
 * of several members with faults: test_quorum.c.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/quorumd/quorum_fsm.h"

#define FSID		0x0123456789abcdefull
#define MS		1000000ull
#define SEC		(1000 * MS)
#define HEARTBEAT_NS	(10 * SEC)

static void written(struct quorum *q, enum quorum_event_kind record, uint64_t term, uint64_t now,
		    struct quorum_acts *acts)
{
	struct quorum_in in = { .kind = QUORUM_IN_WRITTEN, .record = record, .term = term };

	quorum_step(q, &in, now, acts);
}

static void happens(struct quorum *q, enum quorum_event_in kind, uint64_t term, uint64_t now,
		    struct quorum_acts *acts)
{
	struct quorum_in in = { .kind = kind, .term = term };

	quorum_step(q, &in, now, acts);
}

/* The records of the slot are known, its past is clean, and a serverd is there. */
static void start_clean(struct quorum *q, unsigned present, struct quorum_acts *acts)
{
	struct quorum_conf conf = {
		.fsid = FSID, .present = present, .heartbeat_timeout_ns = HEARTBEAT_NS, .seed = 7
	};

	quorum_start(q, &conf, SEC, acts);
	written(q, QUORUM_EVENT_BEGIN, 0, SEC, acts);
	happens(q, QUORUM_IN_SERVER_HERE, 0, SEC, acts);
	happens(q, QUORUM_IN_CLEAN, 0, SEC, acts);
}

static void votes_needed_are_as_specified(void **state)
{
	static const unsigned needed[] = { 0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8 };

	(void)state;
	for (unsigned nr = 1; nr <= 15; nr++)
		assert_int_equal(quorum_votes_needed(nr), needed[nr]);
}

static void elect_is_durable_and_earlier_leaders_fenced_before_serving(void **state)
{
	struct quorum_conf conf = {
		.fsid = FSID, .present = 1, .heartbeat_timeout_ns = HEARTBEAT_NS, .seed = 7
	};
	struct quorum_acts acts;
	struct quorum q;

	(void)state;
	quorum_start(&q, &conf, SEC, &acts);
	assert_int_equal(acts.nr, 1);
	assert_int_equal(acts.v[0].record, QUORUM_EVENT_BEGIN);
	written(&q, QUORUM_EVENT_BEGIN, 0, SEC, &acts);
	/* Neither without a serverd nor with an unknown past of the slot. */
	happens(&q, QUORUM_IN_SERVER_HERE, 0, 2 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_FOLLOWER);
	happens(&q, QUORUM_IN_CLEAN, 0, 2 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_CANDIDATE);
	assert_int_equal(acts.v[0].record, QUORUM_EVENT_TERM);
	assert_int_equal(acts.nr, 1);
	/* Not a word of the term before it is durable. */
	happens(&q, QUORUM_IN_TICK, 0, 2 * SEC + 150 * MS, &acts);
	assert_int_equal(q.role, QUORUM_CANDIDATE);
	assert_int_equal(acts.nr, 0);
	written(&q, QUORUM_EVENT_TERM, 1, 2 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_LEADER);
	assert_int_equal(q.lead, QUORUM_LEAD_ELECT);
	for (size_t i = 0; i < acts.nr; i++)
		assert_int_not_equal(acts.v[i].kind, QUORUM_ACT_FENCE);
	written(&q, QUORUM_EVENT_ELECT, 1, 2 * SEC, &acts);
	assert_int_equal(acts.v[0].kind, QUORUM_ACT_FENCE);
	assert_int_equal(acts.nr, 1);
	/* However long that takes, and whatever a serverd claims meanwhile. */
	quorum_step(&q,
		    &(struct quorum_in){
			    .kind = QUORUM_IN_SERVER_STATE, .term = 1, .status = SERVER_UP },
		    60 * SEC, &acts);
	for (size_t i = 0; i < acts.nr; i++)
		assert_int_equal(acts.v[i].kind, QUORUM_ACT_SEND);
	happens(&q, QUORUM_IN_FENCED, 1, 60 * SEC, &acts);
	assert_int_equal(acts.v[0].kind, QUORUM_ACT_SERVE);
}

static void foreign_and_old_states_are_ignored(void **state)
{
	struct quorum_conf conf = { .fsid = FSID,
				    .present = 7,
				    .heartbeat_timeout_ns = HEARTBEAT_NS,
				    .seed = 7,
				    .first_term = 5 };
	struct msg_quorum_state st = { .fsid = FSID,
				       .slot = 1,
				       .incarnation = 2,
				       .number = 10,
				       .term = 4,
				       .voted_for = MSG_NO_SLOT };
	struct quorum_in in = { .kind = QUORUM_IN_PEER, .peer = &st };
	struct quorum_acts acts;
	struct quorum q;

	(void)state;
	quorum_start(&q, &conf, SEC, &acts);
	quorum_step(&q, &in, SEC, &acts);
	assert_int_equal(q.term, 5);
	st.number = 11;
	st.term = 9;
	st.fsid++;
	quorum_step(&q, &in, SEC, &acts);
	assert_int_equal(q.term, 5);
	st.fsid--;
	st.slot = 3;	/* not configured */
	quorum_step(&q, &in, SEC, &acts);
	assert_int_equal(q.term, 5);
	st.slot = 0;	/* we ourselves */
	quorum_step(&q, &in, SEC, &acts);
	assert_int_equal(q.term, 5);
	st.slot = 1;
	st.number = 9;	/* older than what we have */
	quorum_step(&q, &in, SEC, &acts);
	assert_int_equal(q.term, 5);
	st.incarnation = 1;
	st.number = 100;
	quorum_step(&q, &in, SEC, &acts);
	assert_int_equal(q.term, 5);
	st.incarnation = 3;
	st.number = 1;
	quorum_step(&q, &in, SEC, &acts);
	assert_int_equal(q.term, 9);
	/* Begun in term 5: nobody gets a vote there, even a candidate. */
	assert_int_equal(q.voted_for, MSG_NO_SLOT);
}

static void a_lease_is_what_a_majority_has_heard(void **state)
{
	struct quorum q = { .conf = { .present = 31, .heartbeat_timeout_ns = HEARTBEAT_NS },
			    .role = QUORUM_LEADER, .term = 3, .lead_term = 3 };

	(void)state;
	/* Of five two others are needed. */
	q.peers[1].granted_ns = 5 * SEC;
	assert_true(quorum_lease_until(&q, 6 * SEC) == 0);
	q.peers[4].granted_ns = 3 * SEC;
	assert_true(quorum_lease_until(&q, 6 * SEC) == 3 * SEC + HEARTBEAT_NS);
	q.peers[2].granted_ns = 4 * SEC;
	assert_true(quorum_lease_until(&q, 6 * SEC) == 4 * SEC + HEARTBEAT_NS);
	q.lead_term = 2;
	assert_true(quorum_lease_until(&q, 6 * SEC) == 0);
	/* One slot needs nobody. */
	q = (struct quorum){ .conf = { .present = 1, .heartbeat_timeout_ns = HEARTBEAT_NS },
			     .role = QUORUM_LEADER, .term = 3, .lead_term = 3 };
	assert_true(quorum_lease_until(&q, 6 * SEC) == 6 * SEC + HEARTBEAT_NS);
	q.role = QUORUM_FOLLOWER;
	assert_true(quorum_lease_until(&q, 6 * SEC) == 0);
}

/* A process that has not heard a leader yet may be the next of one that had granted it a lease just before. */
static void who_was_not_heard_yet_counts_as_heard_just_now(void **state)
{
	struct quorum_conf conf = { .fsid = FSID, .slot = 2, .present = 7, .incarnation = 5,
				    .heartbeat_timeout_ns = HEARTBEAT_NS, .seed = 7, .first_term = 1 };
	struct msg_quorum_state st = { .fsid = FSID, .slot = 1, .incarnation = 2, .number = 1, .term = 2,
				       .role = QUORUM_CANDIDATE, .voted_for = 1 };
	struct quorum_in in = { .kind = QUORUM_IN_PEER, .peer = &st };
	struct quorum_acts acts;
	struct quorum q;

	(void)state;
	quorum_start(&q, &conf, 100 * SEC, &acts);
	written(&q, QUORUM_EVENT_BEGIN, 0, 100 * SEC, &acts);
	happens(&q, QUORUM_IN_SERVER_HERE, 0, 100 * SEC, &acts);
	happens(&q, QUORUM_IN_CLEAN, 0, 100 * SEC, &acts);
	quorum_step(&q, &in, 101 * SEC, &acts);
	assert_int_equal(q.term, 2);
	written(&q, QUORUM_EVENT_TERM, 2, 101 * SEC, &acts);
	/* it does not win; we stand, and are elected by it, which has heard the old leader long ago */
	for (uint64_t now = 101 * SEC; q.term == 2; now += SEC / 10) {
		assert_true(now < 200 * SEC);
		st.number++;
		quorum_step(&q, &in, now, &acts);
		happens(&q, QUORUM_IN_TICK, 0, now + SEC / 20, &acts);
	}
	assert_int_equal(q.role, QUORUM_CANDIDATE);
	written(&q, QUORUM_EVENT_TERM, 3, 110 * SEC, &acts);
	st.number++;
	st.term = 3;
	st.role = QUORUM_FOLLOWER;
	st.voted_for = 2;
	st.last_heard.v[0] = 20000;
	quorum_step(&q, &in, 110 * SEC, &acts);
	/* one late word of the leader of the term before */
	st = (struct msg_quorum_state){ .fsid = FSID, .slot = 0, .incarnation = 1, .number = 1, .term = 1,
					.role = QUORUM_LEADER, .voted_for = 0, .lease_ms = 7000 };
	quorum_step(&q, &in, 110 * SEC, &acts);
	assert_true(quorum_lease_over_ns(&q, 0, 1) >= q.asked_ns + 7 * SEC);
}

/* An answer that was long under way says nothing about now. */
static void a_leader_counts_its_lease_from_when_it_spoke(void **state)
{
	struct quorum_conf conf = { .fsid = FSID, .present = 7, .incarnation = 5,
				    .heartbeat_timeout_ns = HEARTBEAT_NS, .seed = 7 };
	struct msg_quorum_state st = { .fsid = FSID, .slot = 1, .incarnation = 2, .number = 1 };
	struct quorum_in in = { .kind = QUORUM_IN_PEER, .peer = &st };
	struct quorum_acts acts;
	struct msg_quorum_state ours, reply;
	struct quorum q, other;

	(void)state;
	quorum_start(&q, &conf, SEC, &acts);
	written(&q, QUORUM_EVENT_BEGIN, 0, SEC, &acts);
	happens(&q, QUORUM_IN_SERVER_HERE, 0, SEC, &acts);
	happens(&q, QUORUM_IN_CLEAN, 0, SEC, &acts);
	/* Somebody is heard, without whom it would not stand. */
	st.slot = 2;
	st.incarnation = 1;
	st.voted_for = MSG_NO_SLOT;
	quorum_step(&q, &in, 2 * SEC, &acts);
	st = (struct msg_quorum_state){ .fsid = FSID, .slot = 1, .incarnation = 2, .number = 1 };
	happens(&q, QUORUM_IN_TICK, 0, 2 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_CANDIDATE);
	written(&q, QUORUM_EVENT_TERM, 1, 2 * SEC, &acts);
	quorum_fill_state(&q, 2 * SEC, &ours);
	/* A real member hears that, and says so. */
	conf.slot = 1;
	conf.incarnation = 2;
	quorum_start(&other, &conf, 100 * SEC, &acts);
	written(&other, QUORUM_EVENT_BEGIN, 0, 100 * SEC, &acts);
	quorum_step(&other, &(struct quorum_in){ .kind = QUORUM_IN_PEER, .peer = &ours }, 100 * SEC,
		    &acts);
	written(&other, QUORUM_EVENT_TERM, 1, 100 * SEC, &acts);
	ours.number++;	/* heard again: not a state that was ever said */
	quorum_step(&other, &(struct quorum_in){ .kind = QUORUM_IN_PEER, .peer = &ours }, 100 * SEC,
		    &acts);
	ours.number--;
	quorum_fill_state(&other, 100 * SEC, &reply);
	assert_int_equal(reply.voted_for, 0);
	in.peer = &reply;
	quorum_step(&q, &in, 9 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_LEADER);
	assert_true(quorum_lease_until(&q, 9 * SEC) == 0);

	/* What was said at 2 s and is answered at 9 s is good until 12 s. */
	reply.number++;
	reply.heard_state.v[0]--;
	quorum_step(&q, &in, 9 * SEC, &acts);
	assert_true(quorum_lease_until(&q, 9 * SEC) == 2 * SEC + HEARTBEAT_NS);
	/* A state of another process of ours, and a member of another term, count for nothing. */
	quorum_fill_state(&q, 9 * SEC, &ours);
	reply.number++;
	reply.heard_state.v[0] = 6;
	quorum_step(&q, &in, 9 * SEC, &acts);
	assert_true(quorum_lease_until(&q, 9 * SEC) == 0);
	st.term = 0;
	st.slot = 2;
	st.heard_state.v[0] = other.peers[0].heard_state;
	in.peer = &st;
	quorum_step(&q, &in, 9 * SEC, &acts);
	assert_true(quorum_lease_until(&q, 9 * SEC) == 0);
	/* How long another leader's may last is known of who was heard to lead. */
	assert_true(quorum_lease_over_ns(&q, 1, 1) == 0);
	st.term = 2;
	st.number++;
	st.role = QUORUM_LEADER;
	st.voted_for = 2;
	st.lease_ms = 3000;
	quorum_step(&q, &in, 9 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_FOLLOWER);
	assert_true(quorum_lease_until(&q, 9 * SEC) == 0);
	assert_true(quorum_lease_over_ns(&q, 2, 3) == 0);
	/*
	 * We are elected in its place.  Neither of us has heard it since: we at 9 s; who votes for us at 10 s, when it
	 * says so; who has never heard it may have forgotten.
	 */
	assert_true(quorum_lease_over_ns(&q, 2, 2) <= 12 * SEC);
	q.left_ns[2] = 9 * SEC;
	q.role = QUORUM_CANDIDATE;
	st = (struct msg_quorum_state){ .fsid = FSID, .slot = 1, .incarnation = reply.incarnation,
					.number = reply.number + 1, .term = q.term, .voted_for = 0 };
	st.last_heard.v[2] = 4000;
	quorum_step(&q, &in, 14 * SEC, &acts);
	assert_true(quorum_lease_over_ns(&q, 2, 2) == 13 * SEC);
	q.role = QUORUM_CANDIDATE;
	st.number++;
	st.last_heard.v[2] = UINT64_MAX;
	quorum_step(&q, &in, 15 * SEC, &acts);
	assert_true(quorum_lease_over_ns(&q, 2, 2) == 18 * SEC);
}

/* Found by the simulator: a leader without a serverd waited for ever for that to stop. */
static void a_serverd_that_died_before_it_could_serve_is_not_waited_for(void **state)
{
	struct quorum_acts acts;
	struct quorum q;

	(void)state;
	start_clean(&q, 1, &acts);
	written(&q, QUORUM_EVENT_TERM, 1, SEC, &acts);
	written(&q, QUORUM_EVENT_ELECT, 1, SEC, &acts);
	happens(&q, QUORUM_IN_SERVER_GONE, 0, SEC, &acts);
	assert_int_equal(q.lead, QUORUM_LEAD_FENCE);
	happens(&q, QUORUM_IN_FENCED, 1, SEC, &acts);
	assert_int_equal(q.lead, QUORUM_LEAD_STOPPED);
	written(&q, QUORUM_EVENT_STOP, 1, SEC, &acts);
	assert_int_equal(q.lead, QUORUM_LEAD_NONE);
	/* The next serverd is led into a new term. */
	happens(&q, QUORUM_IN_SERVER_HERE, 0, 2 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_CANDIDATE);
}

/* Found by the simulator: of two that are elected at once, the later may have looked before the earlier's
 * ELECT was there, so it does not fence it. */
static void who_finds_a_later_leader_on_the_device_does_not_serve(void **state)
{
	struct quorum_acts acts;
	struct quorum q;

	(void)state;
	start_clean(&q, 3, &acts);
	happens(&q, QUORUM_IN_TICK, 0, 2 * SEC, &acts);
	written(&q, QUORUM_EVENT_TERM, 1, 2 * SEC, &acts);
	written(&q, QUORUM_EVENT_ELECT, 1, 2 * SEC, &acts);
	assert_int_equal(q.lead, QUORUM_LEAD_FENCE);
	happens(&q, QUORUM_IN_NEWER, 2, 2 * SEC, &acts);
	assert_int_equal(q.role, QUORUM_FOLLOWER);
	assert_int_equal(q.term, 2);
	assert_int_equal(q.lead, QUORUM_LEAD_STOPPED);
	happens(&q, QUORUM_IN_FENCED, 1, 2 * SEC, &acts);
	assert_int_equal(q.lead, QUORUM_LEAD_STOPPED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(votes_needed_are_as_specified),
		cmocka_unit_test(elect_is_durable_and_earlier_leaders_fenced_before_serving),
		cmocka_unit_test(foreign_and_old_states_are_ignored),
		cmocka_unit_test(a_lease_is_what_a_majority_has_heard),
		cmocka_unit_test(a_leader_counts_its_lease_from_when_it_spoke),
		cmocka_unit_test(who_was_not_heard_yet_counts_as_heard_just_now),
		cmocka_unit_test(a_serverd_that_died_before_it_could_serve_is_not_waited_for),
		cmocka_unit_test(who_finds_a_later_leader_on_the_device_does_not_serve),
	};

	return cmocka_run_group_tests_name("quorum_steps", tests, NULL, NULL);
}
