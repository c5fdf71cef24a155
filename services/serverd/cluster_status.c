/*
 * What `scoutfsctl status --cluster` is told: the cluster as its leader sees it.  interface.md 4.4.
 *
 * Promises: it is told from memory and waits for nothing; whatever the number of mounts and locks, an answer is
 * bounded and says how much it leaves out; nothing is changed by asking.  Mounts ask over the network (on the
 * loop), an operator over serverd's status socket (another thread, while the loop waits).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "advisory.h"
#include "clock.h"
#include "serverd.h"

/* "there is none", of an age. */
#define NO_AGE	UINT64_MAX

static uint64_t ms_since(uint64_t now_ns, uint64_t since_ns)
{
	return now_ns > since_ns ? (now_ns - since_ns) / NSEC_PER_MSEC : 0;
}

static void fill_locks(const struct server *s, struct msg_cluster_status_reply *r)
{
	struct lockfsm_stats st;
	struct advfsm_stats adv;

	lockfsm_get_stats(s->locks, &st);
	advisory_stats(s, &adv);
	r->advisory_held = adv.ranges;
	r->advisory_waiting = adv.waiting + adv.gated;
	r->locks_held = st.granted + st.invalidating;
	r->locks_waiting = st.waiting;
	r->locks_revoking = st.invalidating;
	r->lock_grants = st.grants;
	r->lock_revokes = st.invalidates;
}

static void fill_mounts(const struct server *s, struct msg_cluster_status_reply *r)
{
	r->mounts = s->clients_nr;
	for (const struct client *c = s->clients; c; c = c->next) {
		r->mounts_expected += c->state == CLIENT_EXPECTED;
		r->mounts_fencing += c->state == CLIENT_REVOKING || c->state == CLIENT_FENCE_WAIT;
	}
}

static void fill_merge(const struct server *s, const struct txn_view *v, uint64_t now_ns,
		       struct msg_cluster_status_reply *r)
{
	const struct gather *g = &s->gather;

	r->log_trees = v->log_trees_nr;
	r->log_trees_open = v->open_trees_nr;
	r->log_trees_finished = v->finished_trees_nr;
	r->log_trees_height = v->height_max;
	r->merge_is_running = v->merge.is_running;
	r->merge_ms = v->merge.is_running && g->was_running ? ms_since(now_ns, g->running_since_ns) :
							      NO_AGE;
	r->merge_ranges = v->merge.ranges;
	r->merge_requests = v->merge.requests;
	r->merge_completes = v->merge.completes;
	r->merge_freeing = v->merge.freeing;
	r->merge_failures = g->failures;
	if (g->failures && g->active_nr)
		r->merge_kept_by = g->active[0];
}

static void fill_volume(const struct server *s, uint64_t now_ns, struct msg_cluster_status_reply *r)
{
	const struct txn_stats *ts;
	struct txn_view v;

	txn_get_view(worker_txn(s->worker), &v);
	ts = txn_stats(worker_txn(s->worker));
	r->fmt_vers = le64_get(v.super.fmt_vers);
	r->total_meta = le64_get(v.super.total_meta_blocks);
	r->free_meta = v.free_meta_blocks;
	r->reserved_meta = v.reserved_meta_blocks;
	r->meta_is_low = v.meta_is_low;
	r->total_data = le64_get(v.super.total_data_blocks);
	r->free_data = v.free_data_blocks;
	r->inodes = v.inode_count;
	r->stable_seq = v.last_stable_seq;
	r->commits = atomic_load(&ts->commits);
	r->commit_us = atomic_load(&ts->commit_us_last);
	fill_merge(s, &v, now_ns, r);
}

static void fill_status(const struct server *s, uint64_t now_ns, struct msg_cluster_status_reply *r)
{
	struct msg_quorum_members m = { 0 };

	snprintf(r->version, sizeof(r->version), "%s", SCOUTFS_VERSION);
	r->fsid = s->conf.fsid;
	r->term = s->conf.term;
	r->leader_rid = s->conf.rid;
	r->leader_slot = s->conf.conf->quorum_slot == CONF_NO_SLOT ? MSG_NO_SLOT :
			 (uint8_t)s->conf.conf->quorum_slot;
	r->votes_needed = s->votes_needed;
	r->leads_ms = ms_since(now_ns, s->up_since_ns);
	if (s->conf.members)
		s->conf.members(s->conf.arg, &m);
	r->members_nr = m.members_nr;
	memcpy(r->members, m.members, m.members_nr * sizeof(m.members[0]));
	fill_mounts(s, r);
	fill_locks(s, r);
	fill_volume(s, now_ns, r);
}

static bool is_well(const struct client *c)
{
	switch (c->state) {
	case CLIENT_UP:
		return c->is_connected;
	case CLIENT_MOUNTING:
		return true;
	case CLIENT_RECLAIMING:
		return !c->is_fenced;
	case CLIENT_EXPECTED:
	case CLIENT_REVOKING:
	case CLIENT_FENCE_WAIT:
	case CLIENT_STUCK:
		return false;
	}
	return false;
}

static void fill_mount(const struct client *c, uint64_t now_ns, struct msg_cluster_mount *m)
{
	const char *reason = c->reason;

	*m = (struct msg_cluster_mount){
		.rid = c->info.rid,
		.addr = c->info.addr,
		.is_quorum = c->info.is_quorum,
		.is_connected = c->is_connected,
		.is_well = is_well(c),
		.since_ms = ms_since(now_ns, c->since_ns),
		.lease_ms = lease_left_ns(c) / NSEC_PER_MSEC,
		.next_ms = c->deadline_ns ? ms_since(c->deadline_ns, now_ns) : NO_AGE,
	};
	snprintf(m->state, sizeof(m->state), "%s", client_state_text(c->state));
	if (c->state == CLIENT_UP || c->state == CLIENT_MOUNTING)
		reason = c->is_connected || c->state == CLIENT_MOUNTING ? NULL : "its connection is gone";
	else if (c->state == CLIENT_EXPECTED)
		reason = "it was mounted before this leader's term";
	if (reason)
		snprintf(m->reason, sizeof(m->reason), "%s", reason);
}

/* The smallest rids after the last page, in order. */
static void fill_page(const struct server *s, uint64_t now_ns, uint64_t after,
		      struct msg_cluster_mounts_reply *r)
{
	const struct client *page[CLUSTER_MOUNTS_MAX];
	uint32_t nr = 0, at;

	for (const struct client *c = s->clients; c; c = c->next) {
		if (c->info.rid <= after)
			continue;
		r->left++;
		if (nr == CLUSTER_MOUNTS_MAX && page[nr - 1]->info.rid < c->info.rid)
			continue;
		if (nr < CLUSTER_MOUNTS_MAX)
			nr++;
		for (at = nr - 1; at > 0 && page[at - 1]->info.rid > c->info.rid; at--)
			page[at] = page[at - 1];
		page[at] = c;
	}
	for (at = 0; at < nr; at++)
		fill_mount(page[at], now_ns, &r->mounts[at]);
	r->mounts_nr = nr;
	r->left -= nr;
}

static void fill_waits(const struct server *s, uint64_t now_ns, struct msg_cluster_waits_reply *r)
{
	struct lockfsm_wait waits[CLUSTER_WAITS_MAX];
	struct lockfsm_stats st;
	size_t nr = lockfsm_waits(s->locks, waits, CLUSTER_WAITS_MAX);

	for (size_t i = 0; i < nr; i++) {
		const struct lockfsm_wait *w = &waits[i];

		r->waits[i] = (struct msg_cluster_wait){
			.key = w->key,
			.rid = w->rid,
			.mode = w->mode,
			.since_ms = ms_since(now_ns, w->since_ns),
			.ahead = w->ahead,
			.holder = w->holder,
			.holder_mode = w->holder_mode,
			.holders = w->holders,
			.asked_ms = w->holders ? ms_since(now_ns, w->asked_ns) : NO_AGE,
		};
	}
	r->waits_nr = (uint32_t)nr;
	lockfsm_get_stats(s->locks, &st);
	r->left = st.waiting - nr;
	r->is_recovering = lockfsm_is_gated(s->locks);
}

int cluster_answer(const struct server *s, unsigned type, const void *msg, uint64_t now_ns,
		   union msg_body *reply)
{
	const struct msg_cluster_mounts *page = msg;

	memset(reply, 0, msg_struct_bytes(msg_reply_type(type)));
	if (s->state != SERVER_UP)
		return -EAGAIN;
	switch (type) {
	case MSG_cluster_status:
		fill_status(s, now_ns, &reply->cluster_status_reply);
		return 0;
	case MSG_cluster_mounts:
		fill_page(s, now_ns, page->after, &reply->cluster_mounts_reply);
		return 0;
	case MSG_cluster_waits:
		fill_waits(s, now_ns, &reply->cluster_waits_reply);
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}
