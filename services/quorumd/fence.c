/*
 * Earlier leaders, and how it becomes certain that they write no more.  runtime.md 2.2; design.md
 * D6.
 *
 * A rid that this host recorded as its own, and that is not the running one, is fenced at once: its
 * processes could only write through the blockd that we are connected to, since that holds the
 * devices' lock, and that blockd is told to refuse the rid.  A leader that we have heard itself lives by a
 * lease from a majority, which has left it when it elected us: when that has run out, and the longest write
 * with it, its server writes no more.  Its mount may go on if it is there; what its own server gave it is over as
 * well, of which serverd is told (fenced.h).  Any other rid
 * needs somebody's word: an operator's or an agent's (`scoutfsctl fence ack`).  What is known is kept in the runtime
 * directory (fenced.h) before anything is built on it: serverd finds it there, which may see the same rid
 * among the mounts of the volume, and so does a new quorumd, which derives its questions from the device.
 */
#include "quorumd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "ctl.h"
#include "fenced.h"
#include "instance.h"
#include "lease/lease.h"
#include "log.h"

#define AGAIN_NS	NSEC_PER_SEC	/* a revoke that blockd could not do */

static bool is_in(struct quorumd *qd, const uint64_t *rids, const size_t *nr, uint64_t rid)
{
	bool found = false;

	pthread_mutex_lock(&qd->mutex);
	for (size_t i = 0; i < *nr; i++)
		found = found || rids[i] == rid;
	pthread_mutex_unlock(&qd->mutex);
	return found;
}

static bool is_fenced(struct quorumd *qd, uint64_t rid)
{
	return is_in(qd, qd->fenced, &qd->fenced_nr, rid);
}

static bool is_acked(struct quorumd *qd, uint64_t rid)
{
	return is_in(qd, qd->acked, &qd->acked_nr, rid);
}

static void describe(const struct quorumd *qd, const struct quorum_fence *w, char *buf, size_t size)
{
	uint32_t a = qd->addrs[w->slot];

	snprintf(buf, size,
		 "rid %016" PRIx64 " (slot %u at %u.%u.%u.%u, leader of term %" PRIu64 ")", w->rid,
		 w->slot, a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255, w->term);
}

/* Have blockd refuse the rid from now on; when that is certain it is fenced.  What fails is tried again. */
static void revoke(struct quorumd *qd, struct fences *f, size_t i)
{
	struct slot_job job = { .kind = SLOT_JOB_REVOKE, .rid = f->wanted[i].rid };

	f->is_revoking[i] = slot_io_post(qd->io, &job) == 0;
	f->again_ns[i] = f->is_revoking[i] ? 0 : clock_boot_ns() + AGAIN_NS;
}

/* When what the lease of that leader allowed is over; 0: it has none that we know of. */
static uint64_t lapse_ns(const struct quorumd *qd, const struct quorum_fence *w)
{
	uint64_t over_ns = quorum_lease_over_ns(&qd->q, w->slot, w->term);

	if (!over_ns)
		return 0;
	return over_ns + lease_drift_ns(qd->q.peers[w->slot].lease_ms * NSEC_PER_MSEC) +
	       qd->conf.longest_io_ms * NSEC_PER_MSEC;
}

/* What the operator may have to do about a rid that cannot be fenced at once. */
static void start_one(struct quorumd *qd, struct fences *f, size_t i)
{
	const struct quorum_fence *w = &f->wanted[i];
	char text[160];

	if (is_fenced(qd, w->rid) || is_acked(qd, w->rid))
		return;
	describe(qd, w, text, sizeof(text));
	if (instance_rid_is_ours(&qd->conf, w->rid) == 1) {
		log_notice("%s was this host's and does not run any more: fenced", text);
		stats_inc(&qd->stats.fences_own);
		revoke(qd, f, i);
	} else if (fenced_has(&qd->conf, w->rid) == 1) {
		log_notice("%s is known to be fenced", text);
		revoke(qd, f, i);
	} else if (f->lapse_ns[i]) {
		log_notice("%s has not said that it stopped: its lease is waited for, %llu s; sooner with: "
			   "scoutfsctl fence ack %016" PRIx64, text,
			   f->lapse_ns[i] > f->since_ns ? (f->lapse_ns[i] - f->since_ns) / NSEC_PER_SEC : 0,
			   w->rid);
	} else {
		log_warning(
			"%s led this volume and has not said that it stopped; make sure that its host is "
			"down or has unmounted, then: scoutfsctl fence ack %016" PRIx64,
			text, w->rid);
	}
}

void fences_begin(struct quorumd *qd, struct fences *f, const struct quorum_slots *slots,
		  uint64_t term, uint64_t now)
{
	struct quorum_fence all[QUORUM_FENCES_MAX];
	size_t nr = quorum_slots_to_fence(slots, qd->rid, term ? term : UINT64_MAX, all);

	pthread_mutex_lock(&qd->mutex);
	*f = (struct fences){ .is_active = true, .term = term, .since_ns = now, .scan_ns = now };
	qd->unfenced = 0;
	for (size_t i = 0; i < nr; i++) {
		if (term == 0 && all[i].slot != qd->slot)
			continue;
		f->lapse_ns[f->nr] = term ? lapse_ns(qd, &all[i]) : 0;
		f->wanted[f->nr++] = all[i];
	}
	pthread_mutex_unlock(&qd->mutex);
	for (size_t i = 0; i < f->nr; i++)
		start_one(qd, f, i);
}

void fences_end(struct quorumd *qd, struct fences *f)
{
	pthread_mutex_lock(&qd->mutex);
	f->is_active = false;
	pthread_mutex_unlock(&qd->mutex);
}

uint64_t fences_lapse_ns(const struct fences *f)
{
	uint64_t latest = 0;

	for (size_t i = 0; i < f->nr; i++)
		latest = f->lapse_ns[i] > latest ? f->lapse_ns[i] : latest;
	return latest;
}

void fences_seen_again(struct fences *f, uint64_t rid, const struct quorum_slots *slots)
{
	struct quorum_fence all[QUORUM_FENCES_MAX];
	size_t nr = quorum_slots_to_fence(slots, rid, f->term ? f->term : UINT64_MAX, all);

	for (size_t i = 0; i < f->nr; i++) {
		bool is_there = f->has_stopped[i];

		for (size_t k = 0; k < nr; k++)
			is_there = is_there || (all[k].slot == f->wanted[i].slot && all[k].rid == f->wanted[i].rid &&
						all[k].term == f->wanted[i].term);
		if (is_there)
			continue;
		log_notice("the leader of term %" PRIu64 " in slot %u has said that it stopped: it need not be fenced",
			   f->wanted[i].term, f->wanted[i].slot);
		f->has_stopped[i] = true;
	}
}

bool fences_step(struct quorumd *qd, struct fences *f, uint64_t now)
{
	struct lapsed_leader lapsed[QUORUM_FENCES_MAX];
	bool is_done = true;
	size_t nr = 0;

	for (size_t i = 0; i < f->nr; i++) {
		uint64_t rid = f->wanted[i].rid;

		if (f->has_stopped[i] || is_fenced(qd, rid))
			continue;
		if (f->lapse_ns[i] && now >= f->lapse_ns[i]) {
			uint64_t since_ns = qd->q.peers[f->wanted[i].slot].led_since_ns;

			lapsed[nr++] = (struct lapsed_leader){ rid, (now - since_ns) / NSEC_PER_MSEC };
			continue;
		}
		is_done = false;
		if (!f->is_revoking[i] && (f->again_ns[i] ? now >= f->again_ns[i] : is_acked(qd, rid)))
			revoke(qd, f, i);
	}
	/* Before serverd is told of the term. */
	if (is_done && f->term)
		lapsed_set(&qd->conf, f->term, lapsed, nr);
	return is_done;
}

static void revoke_again(struct fences *f, uint64_t rid)
{
	for (size_t i = 0; f->is_active && i < f->nr; i++) {
		if (f->wanted[i].rid != rid || !f->is_revoking[i])
			continue;
		f->is_revoking[i] = false;
		f->again_ns[i] = clock_boot_ns() + AGAIN_NS;
	}
}

void fences_revoked(struct quorumd *qd, const struct slot_job *job)
{
	if (job->result < 0) {
		log_err("blockd does not refuse rid %016" PRIx64
			": %s; it cannot be taken for fenced, and is tried again every second",
			job->rid, strerror(-job->result));
		revoke_again(&qd->clean, job->rid);
		revoke_again(&qd->fences, job->rid);
		return;
	}
	if (is_fenced(qd, job->rid))
		return;
	fenced_add(&qd->conf, job->rid);
	pthread_mutex_lock(&qd->mutex);
	if (qd->fenced_nr == FENCED_RIDS_MAX)
		log_err("more than %u fenced rids: restart quorumd", FENCED_RIDS_MAX);
	else
		qd->fenced[qd->fenced_nr++] = job->rid;
	pthread_mutex_unlock(&qd->mutex);
}

static bool is_waited_for(struct quorumd *qd, uint64_t rid)
{
	const struct fences *lists[] = { &qd->fences, &qd->clean };
	bool found = false;

	/* The lists change in the loop only, under the mutex. */
	pthread_mutex_lock(&qd->mutex);
	for (size_t k = 0; k < 2; k++) {
		for (size_t i = 0; lists[k]->is_active && i < lists[k]->nr; i++)
			found = found || lists[k]->wanted[i].rid == rid;
	}
	pthread_mutex_unlock(&qd->mutex);
	return found;
}

int fences_ack(struct quorumd *qd, uint64_t rid, char *text, size_t size)
{
	int ret = 0;

	if (is_fenced(qd, rid) || is_acked(qd, rid)) {
		snprintf(text, size, "rid %016" PRIx64 " is taken for fenced already", rid);
		return 0;
	}
	/* Kept before it counts, for serverd may be started at once.  That fails loudly, and only costs a word. */
	if (is_waited_for(qd, rid))
		fenced_add(&qd->conf, rid);
	else
		ret = -ENOENT;
	if (ret == 0) {
		pthread_mutex_lock(&qd->mutex);
		if (qd->acked_nr == FENCED_RIDS_MAX)
			ret = -ENOSPC;
		else
			qd->acked[qd->acked_nr++] = rid;
		pthread_mutex_unlock(&qd->mutex);
	}
	if (ret == -ENOENT) {
		snprintf(text, size,
			 "nobody waits for rid %016" PRIx64
			 "; `scoutfsctl status` shows what is waited for",
			 rid);
	} else if (ret < 0) {
		snprintf(text, size, "more than %u fenced rids: restart quorumd", FENCED_RIDS_MAX);
	} else {
		snprintf(text, size, "rid %016" PRIx64 " is taken for fenced", rid);
		log_notice("rid %016" PRIx64 " is fenced by an operator's word", rid);
		stats_inc(&qd->stats.fences_acked);
	}
	return ret;
}

int fences_fail(struct quorumd *qd, uint64_t rid, char *text, size_t size)
{
	bool leads = false;

	if (!is_waited_for(qd, rid)) {
		snprintf(text, size, "nobody waits for rid %016" PRIx64
			 "; `scoutfsctl status` shows what is waited for", rid);
		return -ENOENT;
	}
	pthread_mutex_lock(&qd->mutex);
	for (size_t i = 0; qd->fences.is_active && i < qd->fences.nr; i++)
		leads = leads || qd->fences.wanted[i].rid == rid;
	if (leads)
		qd->unfenced = rid;
	pthread_mutex_unlock(&qd->mutex);
	if (!leads) {
		snprintf(text, size, "rid %016" PRIx64 " led from this host's slot: no other member can see "
			 "to it; this one goes on waiting", rid);
		return -EBUSY;
	}
	snprintf(text, size, "rid %016" PRIx64 " is not fenced: this host gives its term up", rid);
	log_warning("rid %016" PRIx64 " could not be fenced: this host gives its term up, so that another may "
		    "try", rid);
	return 0;
}

bool fences_failed(struct quorumd *qd, const struct fences *f)
{
	bool failed = false;

	pthread_mutex_lock(&qd->mutex);
	for (size_t i = 0; i < f->nr && qd->unfenced; i++)
		failed = failed || f->wanted[i].rid == qd->unfenced;
	qd->unfenced = 0;
	pthread_mutex_unlock(&qd->mutex);
	return failed;
}

void fences_text(struct quorumd *qd, const struct fences *f, char *buf, size_t size)
{
	buf[0] = 0;
	for (size_t i = 0; f->is_active && i < f->nr; i++) {
		char text[160];

		if (is_fenced(qd, f->wanted[i].rid))
			continue;
		describe(qd, &f->wanted[i], text, sizeof(text));
		if (f->is_revoking[i] || f->again_ns[i])
			snprintf(buf, size, "blockd to refuse %s", text);
		else if (f->lapse_ns[i])
			snprintf(buf, size, "the lease of %s to run out; sooner: scoutfsctl fence ack %016" PRIx64,
				 text, f->wanted[i].rid);
		else
			snprintf(
				buf, size,
				"%s to be fenced; when it is certainly down: scoutfsctl fence ack %016" PRIx64,
				text, f->wanted[i].rid);
		return;
	}
}

void fences_fill_status(struct quorumd *qd, struct msg_status_reply *reply)
{
	const struct fences *lists[] = { &qd->fences, &qd->clean };
	struct quorum_fence wanted[2 * QUORUM_FENCES_MAX];
	size_t nr = 0;

	pthread_mutex_lock(&qd->mutex);
	for (size_t k = 0; k < 2; k++) {
		for (size_t i = 0; lists[k]->is_active && i < lists[k]->nr; i++)
			wanted[nr++] = lists[k]->wanted[i];
	}
	pthread_mutex_unlock(&qd->mutex);
	for (size_t i = 0; i < nr; i++) {
		uint32_t a = qd->addrs[wanted[i].slot];
		char note[160];

		if (is_fenced(qd, wanted[i].rid) || is_acked(qd, wanted[i].rid) ||
		    instance_rid_is_ours(&qd->conf, wanted[i].rid) == 1 ||
		    fenced_has(&qd->conf, wanted[i].rid) == 1)
			continue;
		fence_agent_note(&qd->conf, wanted[i].rid, note, sizeof(note));
		ctl_add_text(reply, "fence",
			     "%016" PRIx64 ": led term %" PRIu64 " from slot %u at %u.%u.%u.%u "
			     "and has not said that it stopped%s%s",
			     wanted[i].rid, wanted[i].term, wanted[i].slot, a >> 24, a >> 16 & 255,
			     a >> 8 & 255, a & 255, note[0] ? "; agent: " : "", note);
		ctl_add_text(reply, "fence_request", "%016" PRIx64 " %u.%u.%u.%u quorum_block_leader %016" PRIx64,
			     wanted[i].rid, a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255, qd->fsid);
	}
}
