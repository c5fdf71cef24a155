/* What quorumd says of itself: STATUS= for systemd, the status socket, and the operator's verbs. */
#include "quorumd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl.h"
#include "keys.h"
#include "log.h"
#include "sdn.h"

STATS_DESCS(quorumd_stats, QUORUMD_STATS);
STATS_DESCS(net_refusals, NET_REFUSALS);

static const char *const role_names[] = { "follower", "candidate", "leader" };
static const char *const server_names[] = { "down", "starting", "up", "stopping" };

static void describe_state(struct quorumd *qd, char *state, size_t state_size, char *waiting,
			   size_t waiting_size)
{
	const struct quorum *q = &qd->q;
	uint8_t leader = quorum_leader_slot(q);

	waiting[0] = 0;
	if (q->stopping)
		snprintf(state, state_size, "stopping");
	else if (q->failed)
		snprintf(state, state_size, "failed, stopping serverd");
	else if (q->role == QUORUM_LEADER)
		snprintf(state, state_size, "leader of term %" PRIu64 ", serverd %s", q->term,
			 qd->serving ? server_names[q->server] : "not started yet");
	else if (leader != MSG_NO_SLOT)
		snprintf(state, state_size, "follower in term %" PRIu64 ", slot %u leads", q->term,
			 leader);
	else
		snprintf(state, state_size, "%s in term %" PRIu64 ", no leader",
			 role_names[q->role], q->term);

	if (qd->write_since_ns)
		snprintf(waiting, waiting_size, "a record in quorum slot %u to be written",
			 qd->slot);
	if (qd->fences.is_active)
		fences_text(qd, &qd->fences, waiting, waiting_size);
	else if (qd->clean.is_active)
		fences_text(qd, &qd->clean, waiting, waiting_size);
	else if (qd->adopt_term)
		snprintf(waiting, waiting_size, "serverd to say whether it serves term %" PRIu64,
			 qd->adopt_term);
	else if (!q->is_server_here && !q->stopping && leader == MSG_NO_SLOT)
		snprintf(waiting, waiting_size, "serverd of this host");
	else if (q->lead == QUORUM_LEAD_STOP)
		snprintf(waiting, waiting_size, "serverd to stop");
}

void status_update(struct quorumd *qd, uint64_t now)
{
	char state[256], waiting[256];

	describe_state(qd, state, sizeof(state), waiting, sizeof(waiting));
	pthread_mutex_lock(&qd->mutex);
	if (strcmp(state, qd->shown.state) != 0)
		qd->shown.since_ns = now;
	strcpy(qd->shown.state, state);
	strcpy(qd->shown.waiting, waiting);
	qd->shown.term = qd->q.term;
	qd->shown.lead_term = qd->q.lead == QUORUM_LEAD_NONE ? 0 : qd->q.lead_term;
	qd->shown.role = (uint8_t)qd->q.role;
	qd->shown.voted_for = qd->q.voted_for;
	qd->shown.leader_slot = quorum_leader_slot(&qd->q);
	qd->shown.successor = quorum_successor(&qd->q, now);
	qd->shown.server = qd->q.server;
	qd->shown.lease_until_ns = quorum_lease_until(&qd->q, now) ? qd->lease_until_ns : 0;
	qd->shown.is_server_here = qd->q.is_server_here;
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
		qd->shown.heard_ns[i] = qd->q.peers[i].is_heard ? qd->q.peers[i].heard_ns : 0;
	pthread_mutex_unlock(&qd->mutex);
	sdn_status("%s%s%s", state, waiting[0] ? "; waits for " : "", waiting);
}

static void fill_status(void *arg, struct msg_status_reply *reply)
{
	struct quorumd *qd = arg;
	uint64_t now;

	pthread_mutex_lock(&qd->mutex);
	now = clock_boot_ns();	/* not before what the loop has noted */
	snprintf(reply->state, sizeof(reply->state), "%s", qd->shown.state);
	snprintf(reply->waiting_for, sizeof(reply->waiting_for), "%s", qd->shown.waiting);
	reply->since_ms = (now - qd->shown.since_ns) / NSEC_PER_MSEC;
	ctl_add_value(reply, "quorum_slot_nr", qd->slot);
	ctl_add_value(reply, "term", qd->shown.term);
	ctl_add_value(reply, "server_start_term", qd->shown.lead_term);
	ctl_add_value(reply, "is_leader", qd->shown.role == QUORUM_LEADER);
	ctl_add_text(reply, "role", "%s", role_names[qd->shown.role]);
	ctl_add_text(reply, "server", "%s",
		     qd->shown.is_server_here ? server_names[qd->shown.server] : "absent");
	if (qd->shown.lease_until_ns > now)
		ctl_add_text(reply, "lease", "serverd may write for %llu ms",
			     (unsigned long long)(qd->shown.lease_until_ns - now) / NSEC_PER_MSEC);
	ctl_add_text(reply, "vote_for", qd->shown.voted_for == MSG_NO_SLOT ? "nobody" : "slot %u",
		     qd->shown.voted_for);
	ctl_add_text(reply, "leader", qd->shown.leader_slot == MSG_NO_SLOT ? "none" : "slot %u",
		     qd->shown.leader_slot);
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		char name[32];

		if (i == qd->slot || !(qd->present & 1u << i))
			continue;
		snprintf(name, sizeof(name), "slot_%u", i);
		if (qd->keyless & 1u << i)
			ctl_add_text(reply, name, "its address is in no line of %s",
				     keys_allow_path(qd->keys));
		else if (qd->shown.heard_ns[i])
			ctl_add_text(reply, name, "heard %" PRIu64 " ms ago",
				     (uint64_t)((now - qd->shown.heard_ns[i]) / NSEC_PER_MSEC));
		else
			ctl_add_text(reply, name, "never heard");
	}
	pthread_mutex_unlock(&qd->mutex);
	keys_status(qd->keys, &qd->conf, reply);
	fences_fill_status(qd, reply);
	CTL_ADD_STATS(reply, quorumd_stats, &qd->stats);
	CTL_ADD_STATS(reply, net_refusals, &qd->refusals);
}

static void ring(struct quorumd *qd)
{
	uint64_t one = 1;

	/* It can only fail by being rung already. */
	if (write(qd->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* A planned hand-over; the loop does it. */
static int resign(struct quorumd *qd, char *text, size_t size)
{
	int ret = 0;

	pthread_mutex_lock(&qd->mutex);
	if (qd->shown.role != QUORUM_LEADER) {
		ret = -ENOENT;
		snprintf(text, size, "this host does not lead");
	} else if (qd->shown.successor == MSG_NO_SLOT) {
		ret = -EBUSY;
		snprintf(text, size, "no other member of the quorum is alive: nobody could lead instead");
	} else {
		qd->is_asked_to_resign = true;
		snprintf(text, size, "slot %u is to lead instead", qd->shown.successor);
	}
	pthread_mutex_unlock(&qd->mutex);
	if (ret == 0)
		ring(qd);
	return ret;
}

static int command(void *arg, const char *verb, const char *arg_text, char *text, size_t size)
{
	struct quorumd *qd = arg;
	uint64_t rid;
	char *end;
	int ret;

	if (strcmp(verb, "resign") == 0)
		return resign(qd, text, size);
	if (strcmp(verb, "fence-ack") != 0 && strcmp(verb, "fence-fail") != 0) {
		snprintf(text, size, "quorumd knows no '%s'; it knows resign, fence-ack RID and fence-fail RID",
			 verb);
		return -EOPNOTSUPP;
	}
	errno = 0;
	rid = strtoull(arg_text, &end, 16);
	if (errno || *end || strlen(arg_text) != 16 ||
	    strspn(arg_text, "0123456789abcdefABCDEF") != 16) {
		snprintf(text, size, "'%.64s' is not a rid: give its 16 hex digits", arg_text);
		return -EINVAL;
	}
	ret = strcmp(verb, "fence-ack") == 0 ? fences_ack(qd, rid, text, size) :
					       fences_fail(qd, rid, text, size);
	ring(qd);
	return ret;
}

int status_start(struct quorumd *qd)
{
	static const struct ctl_ops ops = { .fill_status = fill_status, .command = command };

	return ctl_start(&qd->ctl, &qd->conf, "quorumd", &ops, qd);
}
