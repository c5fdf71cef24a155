/*
 * The election.
 *
 * Members tell each other their whole state, again and again; the newest of each counts.  What the
 * original's messages say follows from states: a CANDIDATE asks for votes, a member whose voted_for
 * is a candidate votes for it, a LEADER beats, resigned is a resignation.
 *
 * What keeps it safe:
 * - A term is said to others only when its TERM record is durable, so a restarted member, which
 * takes the term of its slot as one it has voted in already, cannot vote twice in one (1.4 [H]).
 * - serverd is told to serve only after ELECT is durable, the slots then show no later one, and every
 * earlier leader is fenced (of two that are elected at once, one sees the other's ELECT); it is
 * asked to stop as soon as we do not lead its term any more; STOP is written only when it is DOWN
 * or gone.
 * - A leader of three or more has a lease: enough members, in its term, have heard what it said within
 * the heartbeat timeout.  It counts from when it spoke, which an old answer cannot make later; without it
 * the leader gives up (1.7 [H]).  Who is elected after it knows that a majority has left the old term, and when
 * each of them had heard the old leader last; one of them is of the majority that the old lease rests on, so it
 * ends no later than its length after the latest of these.  Two leaders of one term both give up (1.5.3 [H]).
 * - We are no candidate while a term of ours is not over, nor without a serverd, nor while somebody
 * who led from our slot may still write: our ELECT would hide his. Nor while we hear too few to win.
 * - A failed write ends the member: serverd first, then the process (1.2 [H]).
 *
 * What makes it end, also where the device is slow: a member can neither ask for votes nor give its own before its TERM
 * record is durable, so the time that it has for that counts from then, and it does not stand again meanwhile; and the
 * members draw when they stand from a time that is several records long, for whoever stands while another's record is
 * on its way splits the votes.
 *
 * Who has resigned is followed at once by the living member of the lowest slot, which all of them know from
 * the same state: whom it has heard within QUORUM_ALIVE_MS.  The others, and it itself, wait an election timeout first,
 * so that votes are not split; it is no promise, and if that one does not stand, any other does.
 */
#include "quorum_fsm.h"

#include <assert.h>
#include <string.h>

#include "util/planted.h"

static uint32_t next_random(struct quorum *q)
{
	q->rng ^= q->rng << 13;
	q->rng ^= q->rng >> 7;
	q->rng ^= q->rng << 17;
	return (uint32_t)(q->rng >> 32);
}

static unsigned slots_nr(const struct quorum *q)
{
	return (unsigned)__builtin_popcount(q->conf.present);
}

unsigned quorum_votes_needed(unsigned nr)
{
	return nr < QUORUM_LEASE_MEMBERS_MIN ? 1 : nr / 2 + !PLANTED(quorum_half_is_enough);
}

static void emit(struct quorum_acts *out, enum quorum_act_kind kind, enum quorum_event_kind record,
		 uint64_t term)
{
	assert(out->nr < QUORUM_ACTS_MAX);
	out->v[out->nr++] = (struct quorum_act){ kind, record, term };
}

static void emit_write(struct quorum_acts *out, enum quorum_event_kind record, uint64_t term)
{
	emit(out, QUORUM_ACT_WRITE, record, term);
}

/* Say our state if it may be said; else it is said once the term is durable. */
static void say(struct quorum *q, uint64_t now, struct quorum_acts *out)
{
	if (!q->began || (q->durable_term < q->term && !PLANTED(quorum_speaks_before_durable)))
		return;
	for (size_t i = 0; i < out->nr; i++) {
		if (out->v[i].kind == QUORUM_ACT_SEND)
			return;
	}
	emit(out, QUORUM_ACT_SEND, 0, q->term);
	q->beat_ns = now + QUORUM_BEAT_NS;
}

/* So that two members hardly ever stand at once: who stands is heard of only when its record is durable. */
static uint64_t draw_delay(struct quorum *q)
{
	return next_random(q) % 1024 * ((QUORUM_SPREAD_NS + QUORUM_SPREAD_RECORDS * q->record_ns) / 1024);
}

/* A vote takes a record of whoever gives it. */
static void arm_election(struct quorum *q, uint64_t now)
{
	q->timeout_ns = now + QUORUM_ELECTION_NS + q->record_ns + draw_delay(q);
}

/* All hear the last of a leader at the same time. */
static void arm_heartbeat(struct quorum *q, uint64_t now)
{
	q->timeout_ns = now + q->conf.heartbeat_timeout_ns + draw_delay(q);
}

/* The greatest lately, and no more than what a member that goes on may take. */
static void note_record_time(struct quorum *q, uint64_t now)
{
	uint64_t took = now - q->asked_ns, most = q->conf.heartbeat_timeout_ns / 8;

	if (took < q->record_ns / 2)
		took = q->record_ns / 2;
	q->record_ns = took < most ? took : most;
}

/* With each beat of a leader: a device that was busy once, and is not any more, delays no later election. */
static void forget_record_time(struct quorum *q)
{
	q->record_ns -= q->record_ns / 256;
}

/* A greater term exists: we are a follower in it and have not voted. */
static void enter_term(struct quorum *q, uint64_t term, uint64_t now, struct quorum_acts *out)
{
	q->term = term;
	q->role = QUORUM_FOLLOWER;
	q->voted_for = MSG_NO_SLOT;
	q->votes = 0;
	q->resigned = false;
	for (size_t i = 0; i < QUORUM_SLOTS_MAX; i++) {
		q->peers[i].resigned_seen = false;
		q->peers[i].granted_ns = 0;
		/* an earlier process of ours may have heard it just now, and granted it a lease */
		q->left_ns[i] = q->peers[i].is_heard ? q->peers[i].heard_ns : now;
	}
	q->asked_ns = now;
	emit_write(out, QUORUM_EVENT_TERM, term);
}

/*
 * Who hears too few others cannot win, and would only count its term up: when it is heard again that would
 * depose a leader with whom everything is well.
 */
static bool hears_enough(const struct quorum *q, uint64_t now)
{
	unsigned nr = 1;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
		nr += q->peers[i].is_heard && now - q->peers[i].heard_ns < QUORUM_ALIVE_MS * 1000000ull;
	return nr >= quorum_votes_needed(slots_nr(q));
}

static bool may_be_candidate(const struct quorum *q)
{
	return q->began && q->lead == QUORUM_LEAD_NONE && q->is_clean && q->is_server_here &&
	       !q->stopping && !q->failed;
}

static void become_candidate(struct quorum *q, uint64_t now, struct quorum_acts *out)
{
	enter_term(q, q->term + 1, now, out);
	q->role = QUORUM_CANDIDATE;
	q->voted_for = (uint8_t)q->conf.slot;
	q->votes = 1u << q->conf.slot;
	arm_election(q, now);
}

static void check_votes(struct quorum *q, uint64_t now, struct quorum_acts *out)
{
	/* Our own vote is one only when it cannot be forgotten. */
	if (q->role != QUORUM_CANDIDATE || q->durable_term < q->term || !may_be_candidate(q) ||
	    (unsigned)__builtin_popcount(q->votes) < quorum_votes_needed(slots_nr(q)))
		return;
	q->role = QUORUM_LEADER;
	q->led_since_ns = now;
	q->lead = QUORUM_LEAD_ELECT;
	q->lead_term = q->term;
	q->fence_written = false;
	q->server = SERVER_STARTING;
	emit_write(out, QUORUM_EVENT_ELECT, q->term);
	say(q, now, out);
}

/* Whether we are the leader of the term that our serverd serves or is about to. */
static bool is_leading(const struct quorum *q)
{
	return q->role == QUORUM_LEADER && q->term == q->lead_term && !q->stopping && !q->failed;
}

static void write_stop(struct quorum *q, struct quorum_acts *out)
{
	/* A member that cannot write leaves its ELECT unstopped: the next leader has it fenced. */
	if (q->failed) {
		q->lead = QUORUM_LEAD_NONE;
		return;
	}
	q->lead = QUORUM_LEAD_STOPPED;
	emit_write(out, QUORUM_EVENT_STOP, q->lead_term);
}

/* Go on with the end of a term of ours. */
static void end_term(struct quorum *q, uint64_t now, struct quorum_acts *out)
{
	switch (q->lead) {
	case QUORUM_LEAD_NONE:
	case QUORUM_LEAD_ELECT:		/* when it is written */
	case QUORUM_LEAD_STOPPED:
		return;
	case QUORUM_LEAD_FENCE:
		write_stop(q, out);
		return;
	case QUORUM_LEAD_SERVE:
		if (q->server != SERVER_DOWN && !PLANTED(quorum_stops_too_early)) {
			q->lead = QUORUM_LEAD_STOP;
			q->stop_by_ns = now + q->conf.heartbeat_timeout_ns;
			emit(out, QUORUM_ACT_STOP, 0, q->lead_term);
			return;
		}
		write_stop(q, out);
		return;
	case QUORUM_LEAD_STOP:
		if (q->server == SERVER_DOWN)
			write_stop(q, out);
		return;
	}
}

/* Of the members that `heard_ms` ago were heard by the one in slot `of`, the first that is alive. */
static uint8_t first_alive(uint32_t present, unsigned of, const uint64_t *heard_ms)
{
	for (uint8_t i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (i != of && (present & 1u << i) && heard_ms[i] < QUORUM_ALIVE_MS)
			return i;
	}
	return MSG_NO_SLOT;
}

static void fill_heard_ms(const struct quorum *q, uint64_t now, uint64_t *heard_ms)
{
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
		heard_ms[i] = q->peers[i].is_heard ? (now - q->peers[i].heard_ns) / 1000000 : UINT64_MAX;
}

uint8_t quorum_successor(const struct quorum *q, uint64_t now)
{
	uint64_t heard_ms[QUORUM_SLOTS_MAX];

	fill_heard_ms(q, now, heard_ms);
	return first_alive(q->conf.present, q->conf.slot, heard_ms);
}

/* STOP is durable: the term is over for this host. */
static void term_is_over(struct quorum *q, uint64_t now, struct quorum_acts *out)
{
	q->lead = QUORUM_LEAD_NONE;
	if (q->term == q->lead_term) {
		q->role = QUORUM_FOLLOWER;
		q->resigned = true;
		/* Others first: who stands at the same time as the successor takes votes from it. */
		arm_election(q, now);
		if (quorum_successor(q, now) != MSG_NO_SLOT)
			q->timeout_ns += QUORUM_ELECTION_NS;
		say(q, now, out);
	}
}

/* When we said what a majority, we included, has heard last; 0: there is none. */
static uint64_t majority_ns(const struct quorum *q)
{
	unsigned others = quorum_votes_needed(slots_nr(q)) - 1;
	uint64_t best = 0;

	/* The latest time that so many others have reached. */
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		uint64_t t = q->peers[i].granted_ns;
		unsigned nr = 0;

		for (unsigned k = 0; k < QUORUM_SLOTS_MAX; k++)
			nr += q->peers[k].granted_ns >= t;
		if (nr >= others && t > best)
			best = t;
	}
	return best;
}

uint64_t quorum_lease_until(const struct quorum *q, uint64_t now)
{
	uint64_t said = now;

	if (q->role != QUORUM_LEADER || q->term != q->lead_term || q->failed)
		return 0;
	if (slots_nr(q) >= QUORUM_LEASE_MEMBERS_MIN && !PLANTED(quorum_leads_without_a_majority))
		said = majority_ns(q);
	return said ? said + q->conf.heartbeat_timeout_ns : 0;
}

uint64_t quorum_lease_over_ns(const struct quorum *q, unsigned slot, uint64_t term)
{
	const struct quorum_peer *p = &q->peers[slot];

	if (slots_nr(q) < QUORUM_LEASE_MEMBERS_MIN || p->led_term < term)
		return 0;
	return q->left_ns[slot] + (PLANTED(quorum_waits_for_its_own_lease) ? q->conf.heartbeat_timeout_ns
									   : p->lease_ms * 1000000ull);
}

/*
 * A member votes for us, and from now on grants no lease to the leader of an earlier term.  One that has not heard
 * of a slot may have forgotten it with a process before: it counts as if it had just now.
 */
static void count_vote(struct quorum *q, const struct msg_quorum_state *p, uint64_t now)
{
	q->votes |= 1u << p->slot;
	for (size_t i = 0; i < QUORUM_SLOTS_MAX; i++) {
		uint64_t age_ms = p->last_heard.v[i], t = now;

		if (age_ms != UINT64_MAX)
			t = age_ms < now / 1000000 ? now - age_ms * 1000000 : 0;
		if (t > q->left_ns[i])
			q->left_ns[i] = t;
	}
}

static bool has_lease(const struct quorum *q, uint64_t now)
{
	return now < q->led_since_ns + q->conf.heartbeat_timeout_ns ||
	       now < quorum_lease_until(q, now);
}

/* How a state of ours is told from all others, in what members say that they have heard. */
static uint64_t state_id(uint64_t incarnation, uint64_t number)
{
	return incarnation * 0x9e3779b97f4a7c15ull + number;
}

/* When we said that state; 0: it is none of this process, or too old to count. */
static uint64_t said_ns(const struct quorum *q, uint64_t id)
{
	uint64_t number = id - state_id(q->conf.incarnation, 0);

	if (number == 0 || number > q->number || number + QUORUM_SENT_MAX <= q->number)
		return 0;
	return q->sent_ns[number % QUORUM_SENT_MAX];
}

static void vote(struct quorum *q, const struct msg_quorum_state *p, uint64_t now,
		 struct quorum_acts *out)
{
	/* Later, when the candidate repeats itself, if the term is not durable yet. */
	if (q->role != QUORUM_FOLLOWER || q->voted_for != MSG_NO_SLOT ||
	    (q->durable_term < q->term && !PLANTED(quorum_speaks_before_durable)) ||
	    q->stopping || q->failed)
		return;
	q->voted_for = p->slot;
	arm_election(q, now);
	say(q, now, out);
}

/* 1.5: rules 1 to 4, 6 and 12. */
static void peer_event(struct quorum *q, const struct msg_quorum_state *p, uint64_t now,
		       struct quorum_acts *out)
{
	struct quorum_peer *peer;

	if (p->fsid != q->conf.fsid || p->slot >= QUORUM_SLOTS_MAX || p->slot == q->conf.slot ||
	    !(q->conf.present & 1u << p->slot))
		return;
	peer = &q->peers[p->slot];
	if (peer->is_heard && (p->incarnation < peer->incarnation ||
			       (p->incarnation == peer->incarnation && p->number <= peer->number)))
		return;
	if (!peer->is_heard || p->term != peer->term || p->incarnation != peer->incarnation)
		peer->resigned_seen = false;
	peer->is_heard = true;
	peer->incarnation = p->incarnation;
	peer->number = p->number;
	peer->term = p->term;
	peer->role = p->role;
	peer->voted_for = p->voted_for;
	peer->heard_ns = now;
	peer->heard_state = state_id(p->incarnation, p->number);
	peer->lease_ms = p->lease_ms;
	if (p->role == QUORUM_LEADER) {
		if (peer->led_term != p->term)
			peer->led_since_ns = now;
		peer->led_term = p->term;
	}
	if (p->term == q->term)
		peer->granted_ns = said_ns(q, p->heard_state.v[q->conf.slot]);

	if (p->term < q->term)
		return;
	if (p->term > q->term) {
		enter_term(q, p->term, now, out);
		if (p->role == QUORUM_LEADER)
			arm_heartbeat(q, now);
		else
			arm_election(q, now);
	}
	switch (p->role) {
	case QUORUM_LEADER:
		if (q->role == QUORUM_LEADER) {
			/* Two of one term: neither may go on. */
			q->role = QUORUM_FOLLOWER;
			arm_heartbeat(q, now);
			say(q, now, out);
			return;
		}
		q->role = QUORUM_FOLLOWER;
		/* What a record took long ago says little: while a leader beats, half of it is forgotten in 18 s. */
		forget_record_time(q);
		arm_heartbeat(q, now);
		return;
	case QUORUM_CANDIDATE:
		if (p->voted_for == p->slot)
			vote(q, p, now, out);
		return;
	case QUORUM_FOLLOWER:
		if (q->role == QUORUM_CANDIDATE && p->voted_for == q->conf.slot) {
			count_vote(q, p, now);
			check_votes(q, now, out);
		} else if (q->role == QUORUM_FOLLOWER && p->resigned && !peer->resigned_seen) {
			peer->resigned_seen = true;
			arm_election(q, now);
			if (first_alive(q->conf.present, p->slot, p->last_heard.v) == q->conf.slot)
				q->timeout_ns = now;
		}
		return;
	}
}

static void written_event(struct quorum *q, const struct quorum_in *in, uint64_t now,
			  struct quorum_acts *out)
{
	switch (in->record) {
	case QUORUM_EVENT_BEGIN:
		q->began = true;
		if (q->term == q->conf.first_term)
			note_record_time(q, now);
		say(q, now, out);
		return;
	case QUORUM_EVENT_TERM:
		if (in->term > q->durable_term)
			q->durable_term = in->term;
		if (in->term == q->term) {
			note_record_time(q, now);
			if (q->role == QUORUM_CANDIDATE)
				arm_election(q, now);
		}
		say(q, now, out);
		check_votes(q, now, out);
		return;
	case QUORUM_EVENT_ELECT:
		if (q->lead != QUORUM_LEAD_ELECT || in->term != q->lead_term)
			return;
		q->lead = QUORUM_LEAD_FENCE;
		if (is_leading(q))
			emit(out, QUORUM_ACT_FENCE, 0, q->lead_term);
		return;
	case QUORUM_EVENT_STOP:
		if (q->lead == QUORUM_LEAD_STOPPED && in->term == q->lead_term)
			term_is_over(q, now, out);
		return;
	case QUORUM_EVENT_END:
		q->exited = true;
		emit(out, QUORUM_ACT_EXIT, 0, 0);
		return;
	case QUORUM_EVENT_FENCE:
	case QUORUM_EVENTS_NR:
		return;
	}
}

static void server_event(struct quorum *q, enum server_status status, uint64_t term,
			 struct quorum_acts *out)
{
	/* Before SERVE it knows nothing of the term; what it says of another one is old. */
	if ((q->lead != QUORUM_LEAD_SERVE && q->lead != QUORUM_LEAD_STOP) || term != q->lead_term)
		return;
	q->server = status;
	if (status == SERVER_UP && q->lead == QUORUM_LEAD_SERVE && !q->fence_written &&
	    is_leading(q)) {
		q->fence_written = true;
		emit_write(out, QUORUM_EVENT_FENCE, q->lead_term);
	}
}

/* Our slot shows that we lead, and our serverd agrees: as if we had never been away. */
static void adopt(struct quorum *q, const struct quorum_in *in, uint64_t now,
		  struct quorum_acts *out)
{
	if (q->lead != QUORUM_LEAD_NONE || in->term > q->term || in->status == SERVER_DOWN)
		return;
	q->lead = QUORUM_LEAD_SERVE;
	q->lead_term = in->term;
	q->server = in->status;
	q->fence_written = false;
	if (in->term == q->term && q->role == QUORUM_FOLLOWER && !q->stopping && !q->failed) {
		q->role = QUORUM_LEADER;
		q->voted_for = (uint8_t)q->conf.slot;
		q->votes = 1u << q->conf.slot;
		q->led_since_ns = now;
		emit(out, QUORUM_ACT_SERVE, 0, in->term);
		say(q, now, out);
		server_event(q, in->status, in->term, out);
	}
}

/* What follows from the state and the time: rules 5, 7, 9 to 11, and the end. */
static void evaluate(struct quorum *q, uint64_t now, struct quorum_acts *out)
{
	if (q->exited)
		return;
	if (q->role == QUORUM_LEADER && !has_lease(q, now)) {
		q->role = QUORUM_FOLLOWER;
		arm_heartbeat(q, now);
		say(q, now, out);
	}
	if (!is_leading(q) || (q->lead == QUORUM_LEAD_SERVE && q->server == SERVER_DOWN))
		end_term(q, now, out);
	if (q->lead == QUORUM_LEAD_STOP && now >= q->stop_by_ns) {
		q->stop_by_ns = UINT64_MAX;
		emit(out, QUORUM_ACT_KILL, 0, q->lead_term);
	}
	/* Where no serverd has been started there is nothing to wait for. */
	if (q->failed && q->lead != QUORUM_LEAD_SERVE && q->lead != QUORUM_LEAD_STOP) {
		q->exited = true;
		emit(out, QUORUM_ACT_EXIT, 0, 0);
		return;
	}
	if (q->stopping && q->began && q->lead == QUORUM_LEAD_NONE && !q->end_written) {
		q->end_written = true;
		emit_write(out, QUORUM_EVENT_END, q->term);
	}
	if (q->role != QUORUM_LEADER && now >= q->timeout_ns) {
		if (may_be_candidate(q) && q->durable_term == q->term && hears_enough(q, now))
			become_candidate(q, now, out);
		else
			arm_election(q, now);
	}
	if (now >= q->beat_ns) {
		if (q->role == QUORUM_LEADER)
			forget_record_time(q);
		say(q, now, out);
	}
	if (now >= q->beat_ns)
		q->beat_ns = now + QUORUM_BEAT_NS;
}

void quorum_start(struct quorum *q, const struct quorum_conf *conf, uint64_t now,
		  struct quorum_acts *out)
{
	assert(conf->slot < QUORUM_SLOTS_MAX && (conf->present & 1u << conf->slot));
	memset(q, 0, sizeof(*q));
	out->nr = 0;
	q->conf = *conf;
	q->rng = conf->seed ? conf->seed : 1;
	q->term = q->durable_term = conf->first_term;
	/* In the term that we begin in we may have voted before: nobody gets another vote of ours.
	 */
	q->voted_for = PLANTED(quorum_forgets_its_vote) ? MSG_NO_SLOT : (uint8_t)conf->slot;
	q->lead = QUORUM_LEAD_NONE;
	q->asked_ns = now;
	if (slots_nr(q) == 1)
		q->timeout_ns = now;
	else if (conf->leader_on_disk)
		arm_heartbeat(q, now);
	else
		arm_election(q, now);
	q->beat_ns = now + QUORUM_BEAT_NS;
	emit_write(out, QUORUM_EVENT_BEGIN, q->term);
}

void quorum_step(struct quorum *q, const struct quorum_in *in, uint64_t now,
		 struct quorum_acts *out)
{
	out->nr = 0;
	switch (in->kind) {
	case QUORUM_IN_TICK:
		break;
	case QUORUM_IN_PEER:
		peer_event(q, in->peer, now, out);
		break;
	case QUORUM_IN_WRITTEN:
		written_event(q, in, now, out);
		break;
	case QUORUM_IN_WRITE_FAILED:
		q->failed = true;
		q->role = QUORUM_FOLLOWER;
		break;
	case QUORUM_IN_SERVER_HERE:
		/* With one slot nobody else is waited for. */
		if (!q->is_server_here && slots_nr(q) == 1 && q->role == QUORUM_FOLLOWER)
			q->timeout_ns = now;
		q->is_server_here = true;
		break;
	case QUORUM_IN_SERVER_STATE:
		server_event(q, in->status, in->term, out);
		break;
	case QUORUM_IN_SERVER_GONE:
		q->is_server_here = false;
		server_event(q, SERVER_DOWN, q->lead_term, out);
		break;
	case QUORUM_IN_CLEAN:
		if (!q->is_clean && slots_nr(q) == 1 && q->role == QUORUM_FOLLOWER)
			q->timeout_ns = now;
		q->is_clean = true;
		break;
	case QUORUM_IN_ADOPT:
		adopt(q, in, now, out);
		break;
	case QUORUM_IN_FENCED:
		if (q->lead != QUORUM_LEAD_FENCE || in->term != q->lead_term || !is_leading(q))
			break;
		/* Nobody would ever say that a serverd that died before it was told has stopped. */
		if (!q->is_server_here) {
			end_term(q, now, out);
		} else {
			q->lead = QUORUM_LEAD_SERVE;
			emit(out, QUORUM_ACT_SERVE, 0, q->lead_term);
		}
		break;
	case QUORUM_IN_FENCE_FAILED:
		/* Somebody else shall try: we do not lead this term any more. */
		if (q->lead == QUORUM_LEAD_FENCE && in->term == q->lead_term &&
		    !PLANTED(quorum_waits_for_a_fence_for_ever))
			end_term(q, now, out);
		break;
	case QUORUM_IN_NEWER:
		/* As if that leader had told us. */
		if (in->term > q->term) {
			enter_term(q, in->term, now, out);
			arm_heartbeat(q, now);
		}
		break;
	case QUORUM_IN_RESIGN:
		/* What follows from not leading any more comes with the evaluation: stop, STOP, say so. */
		if (q->role == QUORUM_LEADER) {
			q->role = QUORUM_FOLLOWER;
			arm_heartbeat(q, now);
		}
		break;
	case QUORUM_IN_SHUTDOWN:
		q->stopping = true;
		break;
	}
	evaluate(q, now, out);
}

uint64_t quorum_deadline(const struct quorum *q)
{
	uint64_t t = q->beat_ns;

	if (q->role != QUORUM_LEADER && q->timeout_ns < t)
		t = q->timeout_ns;
	if (q->lead == QUORUM_LEAD_STOP && q->stop_by_ns < t)
		t = q->stop_by_ns;
	return t;
}

void quorum_check(const struct quorum *q)
{
	assert(q->durable_term <= q->term);
	assert(q->lead_term <= q->term);
	assert(!(q->votes & ~q->conf.present));
	if (q->role == QUORUM_LEADER) {
		/* A term that we lead is our last one, and is not over. */
		assert(q->lead != QUORUM_LEAD_NONE);
		assert(q->lead_term == q->term);
		assert(q->durable_term == q->term);
		assert(q->voted_for == q->conf.slot);
		assert(!q->resigned);
	}
	if (q->role == QUORUM_CANDIDATE) {
		assert(q->votes & 1u << q->conf.slot);
		assert(q->voted_for == q->conf.slot);
	}
	if (q->lead == QUORUM_LEAD_NONE)
		assert(q->role != QUORUM_LEADER);
	if (q->exited)
		assert(q->failed || q->end_written);
}

void quorum_fill_state(struct quorum *q, uint64_t now, struct msg_quorum_state *out)
{
	*out = (struct msg_quorum_state){
		.fsid = q->conf.fsid,
		.slot = (uint8_t)q->conf.slot,
		.incarnation = q->conf.incarnation,
		.number = ++q->number,
		.term = q->term,
		.role = (uint8_t)q->role,
		.voted_for = q->voted_for,
		.resigned = q->resigned,
		.lease_ms = (uint32_t)(q->conf.heartbeat_timeout_ns / 1000000),
	};
	q->sent_ns[q->number % QUORUM_SENT_MAX] = now;
	fill_heard_ms(q, now, out->last_heard.v);
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
		out->heard_state.v[i] = q->peers[i].heard_state;
}

uint8_t quorum_leader_slot(const struct quorum *q)
{
	if (q->role == QUORUM_LEADER)
		return (uint8_t)q->conf.slot;
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (q->peers[i].is_heard && q->peers[i].term == q->term &&
		    q->peers[i].role == QUORUM_LEADER)
			return (uint8_t)i;
	}
	return MSG_NO_SLOT;
}
