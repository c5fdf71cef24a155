/*
 * quorumd: elections, and who may lead on this host.  README.md; runtime.md 1; design.md §2, D6,
 * D7.
 *
 * The loop below is the daemon: it feeds quorum_fsm.c with what the members, serverd, the slot and
 * the clock say, and carries out what the machine answers.  What may block, slot I/O through
 * blockd, is done by a thread of its own (slot_io.c) under a deadline that the loop keeps.
 *
 * A start: read the super and all quorum blocks; BEGIN; if our slot shows that we lead a term, take
 * over the serverd that serves it or make certain that none does and record STOP; have whoever led
 * from our slot before fenced; then be a candidate like any other.
 */
#include "quorumd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "blkcli.h"
#include "clock.h"
#include "ctl.h"
#include "format/super.h"
#include "instance.h"
#include "keys.h"
#include "lease/lease.h"
#include "log.h"
#include "sdn.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif
#include <zmq.h>

#define ADOPT_NS	(3 * NSEC_PER_SEC)	/* a running serverd says hello twice a second */
#define FENCE_WAIT_NS	(30 * NSEC_PER_SEC)	/* then another member may try, if there is one */
#define RESCAN_NS	(500 * NSEC_PER_MSEC)	/* who is to be fenced may stop by itself */
#define TICK_MAX_NS	(1 * NSEC_PER_SEC)
#ifdef __SANITIZE_THREAD__
#define THREAD_STACK_BYTES	(8u << 20)	/* what TSan keeps of each thread, there, is 767 KiB */
#else
#define THREAD_STACK_BYTES	(512u << 10)
#endif
#define LEASE_STEPS	8u			/* serverd's lease is told so often in its time */

/* A signal's only effects: the end before the loop runs, a ring in it. */
static volatile sig_atomic_t is_looping, is_asked_to_stop, is_asked_to_reload;
static int signal_wake_fd = -1;

static void on_signal(int number)
{
	uint64_t one = 1;

	if (number == SIGHUP)
		is_asked_to_reload = 1;
	else if (!is_looping)
		_exit(0);
	else
		is_asked_to_stop = 1;
	/* It can only fail by being rung already. */
	if (write(signal_wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* Purposes of jobs. */
enum { PURPOSE_NONE, PURPOSE_SERVER_GONE, PURPOSE_ADOPT, PURPOSE_CLEAN, PURPOSE_LEAD, PURPOSE_AGAIN };

static unsigned slots_nr(const struct quorumd *qd)
{
	return (unsigned)__builtin_popcount(qd->present);
}

/* This process cannot go on in an orderly way. */
static void quorumd_fail(struct quorumd *qd, int status)
{
	qd->exiting = true;
	qd->exit_status = status;
}

static void post(struct quorumd *qd, const struct slot_job *job)
{
	if (slot_io_post(qd->io, job) < 0) {
		log_err("no memory for a job of the slot: ending");
		quorumd_event_kind(qd, QUORUM_IN_WRITE_FAILED, 0);
	}
}

static void post_record(struct quorumd *qd, enum quorum_event_kind record, uint64_t term)
{
	struct slot_job job = { .kind = SLOT_JOB_RECORD, .record = record, .term = term };

	if (qd->writes_nr++ == 0)
		qd->write_since_ns = clock_boot_ns();
	post(qd, &job);
}

static void tell_services(struct quorumd *qd)
{
	const struct quorum *q = &qd->q;
	/* A term is one process's: who comes while it is not over yet must not take it up. */
	bool serving = qd->serving && !qd->server_has_ended;
	struct msg_leader_state st = {
		.term = serving ? q->lead_term : q->term,
		.role = (uint8_t)(serving ? QUORUM_LEADER : QUORUM_FOLLOWER),
		.leader_slot = quorum_leader_slot(q),
		.stop = serving && q->lead == QUORUM_LEAD_STOP,
		.lease_until_ns = serving && qd->lease_term == q->lead_term ? qd->lease_until_ns : 0,
	};

	/* A serverd that serves must not hear that it shall not before we know (D7). */
	if (qd->adopt_term)
		return;
	if (st.leader_slot != MSG_NO_SLOT) {
		st.leader_addr = qd->addrs[st.leader_slot];
		st.leader_port = qd->ports[st.leader_slot];
	}
	local_tell(qd->local, &st);
}

/*
 * How long a lease from the majority is.  Shorter than the silence after which others elect, by the longest write:
 * then they need not wait for one any more.
 */
static uint64_t lease_ns(const struct quorumd *qd)
{
	uint64_t timeout_ns = qd->q.conf.heartbeat_timeout_ns, io_ns = qd->conf.longest_io_ms * NSEC_PER_MSEC;

	if (slots_nr(qd) < QUORUM_LEASE_MEMBERS_MIN)
		return timeout_ns;
	return timeout_ns - (io_ns < timeout_ns / 2 ? io_ns : timeout_ns / 2);
}

/*
 * How long this host's serverd may write, to blockd before anything lets it begin (the connection is the one
 * that SLOT_JOB_SET_TERM goes through), then to serverd.  Whether there is news.
 */
static bool tell_lease(struct quorumd *qd, uint64_t now)
{
	uint64_t timeout_ns = qd->q.conf.heartbeat_timeout_ns;
	uint64_t until = quorum_lease_until(&qd->q, now);

	if (!until)
		return false;
	until -= timeout_ns - lease_ns(qd) + lease_drift_ns(timeout_ns);
	if (qd->lease_term == qd->q.lead_term && until < qd->lease_until_ns + timeout_ns / LEASE_STEPS)
		return false;
	qd->lease_term = qd->q.lead_term;
	qd->lease_until_ns = until;
	blkcli_lease(qd->blk, BLK_KIND_SERVERD, qd->lease_term, until);
	return true;
}

/* The machine has decided; do it. */
static void perform(struct quorumd *qd, const struct quorum_acts *acts, uint64_t now)
{
	for (size_t i = 0; i < acts->nr; i++) {
		const struct quorum_act *a = &acts->v[i];
		struct slot_job job = { .term = a->term, .purpose = PURPOSE_LEAD };
		struct msg_quorum_state st;

		switch (a->kind) {
		case QUORUM_ACT_SEND:
			quorum_fill_state(&qd->q, now, &st);
			st.lease_ms = (uint32_t)(lease_ns(qd) / NSEC_PER_MSEC);
			if (qd->peers)
				peers_send(qd->peers, &st);
			break;
		case QUORUM_ACT_WRITE:
			if (a->record == QUORUM_EVENT_TERM)
				stats_inc(&qd->stats.elections_tried);
			if (a->record == QUORUM_EVENT_ELECT) {
				stats_inc(&qd->stats.elections_won);
				log_notice("elected leader of term %" PRIu64, a->term);
			}
			if (a->record == QUORUM_EVENT_STOP)
				log_notice("term %" PRIu64 " of this host is over", a->term);
			post_record(qd, a->record, a->term);
			break;
		case QUORUM_ACT_FENCE:
			/* Old servers of this host first, then what the slots show. */
			job.kind = SLOT_JOB_SET_TERM;
			post(qd, &job);
			job.kind = SLOT_JOB_SCAN;
			post(qd, &job);
			break;
		case QUORUM_ACT_SERVE:
			log_notice("leader of term %" PRIu64 ": serverd may serve", a->term);
			qd->serving = true;
			break;
		case QUORUM_ACT_STOP:
			log_notice("serverd is asked to stop serving term %" PRIu64, a->term);
			break;
		case QUORUM_ACT_KILL:
			local_kill_server(qd->local);
			break;
		case QUORUM_ACT_EXIT:
			quorumd_fail(qd, qd->q.failed ? 1 : 0);
			break;
		}
	}
}

void quorumd_event(struct quorumd *qd, const struct quorum_in *in)
{
	enum quorum_lead lead = qd->q.lead;
	enum quorum_role role = qd->q.role;
	uint64_t term = qd->q.term, now = clock_boot_ns();
	uint8_t leader = quorum_leader_slot(&qd->q);
	bool serving = qd->serving, has_lease_news;
	struct quorum_acts acts;

	quorum_step(&qd->q, in, now, &acts);
	quorum_check(&qd->q);
	has_lease_news = tell_lease(qd, now);
	perform(qd, &acts, now);
	if (qd->q.lead != QUORUM_LEAD_SERVE && qd->q.lead != QUORUM_LEAD_STOP)
		qd->serving = qd->server_has_ended = false;
	if (qd->fences.is_active &&
	    (qd->q.lead != QUORUM_LEAD_FENCE || qd->fences.term != qd->q.lead_term))
		fences_end(qd, &qd->fences);
	if (lead != qd->q.lead || role != qd->q.role || term != qd->q.term ||
	    serving != qd->serving || leader != quorum_leader_slot(&qd->q) || has_lease_news)
		tell_services(qd);
}

void quorumd_event_kind(struct quorumd *qd, enum quorum_event_in kind, uint64_t term)
{
	struct quorum_in in = { .kind = kind, .term = term };

	quorumd_event(qd, &in);
}

static const char *record_name(enum quorum_event_kind record)
{
	static const char *const names[] = { "BEGIN", "TERM", "ELECT", "FENCE", "STOP", "END" };

	return names[record];
}

static void record_done(struct quorumd *qd, const struct slot_job *job)
{
	struct quorum_in in = { .kind = QUORUM_IN_WRITTEN,
				.record = job->record,
				.term = job->term };

	qd->write_since_ns = --qd->writes_nr ? clock_boot_ns() : 0;
	if (job->result == 0) {
		stats_inc(&qd->stats.slot_writes);
		quorumd_event(qd, &in);
		return;
	}
	stats_inc(&qd->stats.slot_write_errors);
	if (job->result == -EEXIST)
		log_err("quorum slot %u is used by another mount at the same time: give each mount a slot of its own",
			qd->slot);
	else if (job->result == -ESTALE)
		log_err("quorum slot %u: %s gave an older block than the one written last; it cannot be relied on: "
			"this member ends",
			qd->slot, qd->conf.meta_device);
	else
		log_err("quorum slot %u: %s cannot be recorded: %s; this member cannot prove that it leads and ends",
			qd->slot, record_name(job->record), strerror(-job->result));
	quorumd_event_kind(qd, QUORUM_IN_WRITE_FAILED, 0);
}

/* While earlier leaders are waited for: one may have stopped, and another member may have been elected. */
static void scanned_again(struct quorumd *qd, const struct slot_job *job)
{
	uint64_t newer = quorum_slots_newer(&job->slots, job->term);

	if (!qd->fences.is_active || qd->fences.term != job->term)
		return;
	qd->fences.scan_ns = clock_boot_ns() + RESCAN_NS;
	/* What cannot be read now was read when this began. */
	if (job->slots.readable != job->slots.present)
		return;
	if (newer) {
		log_notice("another member was elected in term %" PRIu64 ": term %" PRIu64 " is not served", newer,
			   job->term);
		quorumd_event_kind(qd, QUORUM_IN_NEWER, newer);
	} else {
		fences_seen_again(&qd->fences, qd->rid, &job->slots);
	}
}

static void scan_done(struct quorumd *qd, const struct slot_job *job)
{
	struct fences *f = job->purpose == PURPOSE_LEAD ? &qd->fences : &qd->clean;
	uint64_t newer;

	if (job->purpose == PURPOSE_AGAIN) {
		scanned_again(qd, job);
		return;
	}

	if (job->purpose == PURPOSE_LEAD &&
	    (qd->q.lead != QUORUM_LEAD_FENCE || qd->q.lead_term != job->term))
		return;
	if (job->slots.readable != job->slots.present) {
		log_err("not all quorum blocks can be read (%s), so earlier leaders cannot be known; `scoutfsctl "
			"print quorum` shows which",
			strerror(-job->slots.error));
		if (job->purpose == PURPOSE_LEAD)
			quorumd_event_kind(qd, QUORUM_IN_FENCE_FAILED, job->term);
		else
			quorumd_event_kind(qd, QUORUM_IN_WRITE_FAILED, 0);
		return;
	}
	newer = job->purpose == PURPOSE_LEAD ? quorum_slots_newer(&job->slots, job->term) : 0;
	if (newer) {
		log_notice("another member was elected in term %" PRIu64 ": term %" PRIu64 " is not served", newer,
			   job->term);
		quorumd_event_kind(qd, QUORUM_IN_NEWER, newer);
		return;
	}
	fences_begin(qd, f, &job->slots, job->purpose == PURPOSE_LEAD ? job->term : 0,
		     clock_boot_ns());
}

/* Our slot is looked at once nobody can serve a term that it shows. */
static void start_clean(struct quorumd *qd)
{
	struct slot_job job = { .kind = SLOT_JOB_SCAN, .purpose = PURPOSE_CLEAN };

	post(qd, &job);
}

static void set_term_done(struct quorumd *qd, const struct slot_job *job)
{
	if (job->result < 0) {
		log_err("blockd does not refuse servers of earlier terms: %s; this member ends",
			strerror(-job->result));
		quorumd_event_kind(qd, QUORUM_IN_WRITE_FAILED, 0);
		return;
	}
	if (job->purpose == PURPOSE_SERVER_GONE) {
		quorumd_event_kind(qd, QUORUM_IN_SERVER_GONE, 0);
	} else if (job->purpose == PURPOSE_ADOPT) {
		/* Nobody serves the term that our slot shows, and nobody can. */
		post_record(qd, QUORUM_EVENT_STOP, job->term - 1);
		start_clean(qd);
	}
}

static void jobs_done(struct quorumd *qd)
{
	struct slot_job *job;

	while ((job = slot_io_done(qd->io))) {
		switch (job->kind) {
		case SLOT_JOB_RECORD:
			record_done(qd, job);
			break;
		case SLOT_JOB_SCAN:
			scan_done(qd, job);
			break;
		case SLOT_JOB_SET_TERM:
			set_term_done(qd, job);
			break;
		case SLOT_JOB_REVOKE:
			fences_revoked(qd, job);
			break;
		}
		free(job);
	}
}

/* At start: does serverd serve the term that our slot shows? */
static void check_adoption(struct quorumd *qd, uint64_t now)
{
	struct slot_job job = {
		.kind = SLOT_JOB_SET_TERM,
		.term = qd->adopt_term + 1,
		.purpose = PURPOSE_ADOPT,
	};
	struct quorum_in in = { .kind = QUORUM_IN_ADOPT, .term = qd->adopt_term };
	struct msg_server_state st;
	bool is_said = local_server_state(qd->local, &st);

	if (!qd->adopt_term)
		return;
	if (is_said && st.term == qd->adopt_term && st.state != SERVER_DOWN) {
		log_notice("serverd serves term %" PRIu64 ": going on as its leader", st.term);
		stats_inc(&qd->stats.adoptions);
		in.status = (enum server_status)st.state;
		qd->adopt_term = 0;
		quorumd_event(qd, &in);
		start_clean(qd);
	} else if (is_said || now >= qd->adopt_until_ns) {
		qd->adopt_term = 0;
		tell_services(qd);
		post(qd, &job);
	}
}

/*
 * Who led from our slot before us is fenced: what it left open is over, and whoever was elected meanwhile, and
 * waits for its fence, finds that on the device.  Where we are the only member nobody waits; what is open then
 * stays until our own term, so that a word that fenced a leader holds for its mount until that is reclaimed.
 */
static void record_stop_of_the_dead(struct quorumd *qd)
{
	uint64_t term = 0;

	if (slots_nr(qd) == 1)
		return;
	for (size_t i = 0; i < qd->clean.nr; i++)
		term = qd->clean.wanted[i].term > term ? qd->clean.wanted[i].term : term;
	if (term)
		post_record(qd, QUORUM_EVENT_STOP, term);
}

static void check_fences(struct quorumd *qd, uint64_t now)
{
	struct slot_job again = { .kind = SLOT_JOB_SCAN, .purpose = PURPOSE_AGAIN, .term = qd->fences.term };

	if (qd->clean.is_active && fences_step(qd, &qd->clean, now)) {
		record_stop_of_the_dead(qd);
		fences_end(qd, &qd->clean);
		quorumd_event_kind(qd, QUORUM_IN_CLEAN, 0);
	}
	if (!qd->fences.is_active)
		return;
	if (fences_step(qd, &qd->fences, now)) {
		uint64_t term = qd->fences.term;

		fences_end(qd, &qd->fences);
		quorumd_event_kind(qd, QUORUM_IN_FENCED, term);
	} else if (fences_failed(qd, &qd->fences) ||
		   (slots_nr(qd) > 1 && now >= qd->fences.since_ns + FENCE_WAIT_NS &&
		    now >= fences_lapse_ns(&qd->fences))) {
		quorumd_event_kind(qd, QUORUM_IN_FENCE_FAILED, qd->fences.term);
	} else if (now >= qd->fences.scan_ns) {
		qd->fences.scan_ns = UINT64_MAX;
		post(qd, &again);
	}
}

/* serverd's process has ended; before that counts blockd must refuse what it may have left. */
static void server_ended(struct quorumd *qd)
{
	struct slot_job job = {
		.kind = SLOT_JOB_SET_TERM,
		.term = qd->q.lead_term + 1,
		.purpose = PURPOSE_SERVER_GONE,
	};

	local_server_ended(qd->local);
	/* One that was only taken over to be stopped may have written as well. */
	if (qd->q.lead != QUORUM_LEAD_SERVE && qd->q.lead != QUORUM_LEAD_STOP) {
		log_notice("serverd has ended");
		quorumd_event_kind(qd, QUORUM_IN_SERVER_GONE, 0);
		return;
	}
	if (qd->q.lead == QUORUM_LEAD_SERVE)
		log_warning("serverd has ended while it was to serve term %" PRIu64, qd->q.lead_term);
	else
		log_notice("serverd has ended; it was to stop serving term %" PRIu64, qd->q.lead_term);
	stats_inc(&qd->stats.server_gone);
	qd->server_has_ended = true;
	tell_services(qd);
	post(qd, &job);
}

/* A serverd that has told its state can be started, if it is not still wanted by an earlier end. */
static void check_server_here(struct quorumd *qd)
{
	struct msg_server_state st;

	if (!qd->q.is_server_here && local_server_state(qd->local, &st) && !qd->adopt_term)
		quorumd_event_kind(qd, QUORUM_IN_SERVER_HERE, 0);
}

/* An operator has asked for a hand-over, which makes sense only while somebody else could lead. */
static void check_resign(struct quorumd *qd, uint64_t now)
{
	bool is_asked;

	pthread_mutex_lock(&qd->mutex);
	is_asked = qd->is_asked_to_resign;
	qd->is_asked_to_resign = false;
	pthread_mutex_unlock(&qd->mutex);
	if (!is_asked || qd->q.role != QUORUM_LEADER || quorum_successor(&qd->q, now) == MSG_NO_SLOT)
		return;
	log_notice("term %" PRIu64 " is given up, as an operator has asked", qd->q.term);
	stats_inc(&qd->stats.resignations);
	quorumd_event_kind(qd, QUORUM_IN_RESIGN, 0);
}

static void check_write_deadline(struct quorumd *qd, uint64_t now)
{
	if (!qd->write_since_ns || qd->q.failed ||
	    now < qd->write_since_ns + qd->conf.heartbeat_timeout_ms * NSEC_PER_MSEC)
		return;
	log_err("quorum slot %u: a record is not written after %u ms; this member ends", qd->slot,
		qd->conf.heartbeat_timeout_ms);
	quorumd_event_kind(qd, QUORUM_IN_WRITE_FAILED, 0);
}

static uint64_t earliest(const struct quorumd *qd, uint64_t now, uint64_t watchdog_ns)
{
	uint64_t t = quorum_deadline(&qd->q);

	if (local_deadline(qd->local) < t)
		t = local_deadline(qd->local);
	if (now + TICK_MAX_NS < t)
		t = now + TICK_MAX_NS;
	if (qd->fences.is_active && qd->fences.scan_ns < t)
		t = qd->fences.scan_ns;
	if (watchdog_ns && now + watchdog_ns < t)
		t = now + watchdog_ns;
	return t;
}

static void drain(int fd)
{
	uint64_t n;

	while (read(fd, &n, sizeof(n)) > 0)
		;
}

static void reload_keys(struct quorumd *qd)
{
	is_asked_to_reload = 0;
	if (keys_reload_said(qd->keys) && qd->peers)
		peers_reload_keys(qd->peers);
}

static void loop(struct quorumd *qd)
{
	uint64_t watchdog_ns = sdn_watchdog_ns();
	bool is_ready = false, is_stopping = false;

	while (!qd->exiting) {
		enum { FD_WAKE, FD_IO, FD_LOCAL, FD_SERVER, FD_PEERS, FDS };
		struct pollfd fds[FDS] = {
			[FD_WAKE] = { qd->wake_fd, POLLIN, 0 },
			[FD_IO] = { slot_io_fd(qd->io), POLLIN, 0 },
			[FD_LOCAL] = { local_fd(qd->local), POLLIN, 0 },
			[FD_SERVER] = { local_server_fd(qd->local), POLLIN, 0 },
			[FD_PEERS] = { qd->peers ? peers_fd(qd->peers) : -1, POLLIN, 0 },
		};
		uint64_t now = clock_boot_ns(), t = earliest(qd, now, watchdog_ns);

		if (poll(fds, FDS,
			 t <= now ? 0 : (int)((t - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC)) < 0 &&
		    errno != EINTR)
			log_err("waiting failed: %s", strerror(errno));
		if (fds[FD_WAKE].revents)
			drain(qd->wake_fd);
		if (is_asked_to_stop && !is_stopping) {
			is_stopping = true;
			log_info("stopping");
			sdn_stopping();
			quorumd_event_kind(qd, QUORUM_IN_SHUTDOWN, 0);
		}
		if (is_asked_to_reload)
			reload_keys(qd);
		if (qd->peers)
			peers_dispatch(qd->peers);
		jobs_done(qd);
		if (fds[FD_SERVER].fd >= 0 && (fds[FD_SERVER].revents & POLLIN))
			server_ended(qd);
		now = clock_boot_ns();
		local_dispatch(qd->local, now);
		check_adoption(qd, now);
		check_fences(qd, now);
		check_server_here(qd);
		check_resign(qd, now);
		check_write_deadline(qd, now);
		quorumd_event_kind(qd, QUORUM_IN_TICK, 0);
		status_update(qd, now);
		if (qd->q.began && !is_ready) {
			is_ready = true;
			sdn_ready();
		}
		if (watchdog_ns)
			sdn_watchdog();
	}
}

/* The members as the super configures them: 1.1. */
static int read_config(struct quorumd *qd)
{
	_Alignas(4096) struct disk_super super;
	uint32_t a, present = 0;
	const char *why;
	int ret;

	ret = blkcli_read_small(qd->blk, BLK_DEV_META, SUPER_BLKNO, &super);
	if (ret < 0) {
		log_err("%s: the super block cannot be read: %s", qd->conf.meta_device,
			strerror(-ret));
		return ret;
	}
	ret = super_check(&super, &why);
	if (ret < 0) {
		log_err("%s: %s", qd->conf.meta_device, why);
		return ret;
	}
	qd->fsid = le64_get(super.hdr.fsid);
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (!quorum_slot_is_configured(&super.qconf, i))
			continue;
		present |= 1u << i;
		qd->addrs[i] = le32_get(super.qconf.slots[i].addr);
		qd->ports[i] = le16_get(super.qconf.slots[i].port);
		if (!quorum_addr_is_valid(qd->addrs[i], qd->ports[i])) {
			log_err("%s: quorum slot %u has an address that cannot be used; change the quorum "
				"configuration offline",
				qd->conf.meta_device, i);
			return -EINVAL;
		}
		for (unsigned j = 0; j < i; j++) {
			if ((present & 1u << j) && qd->addrs[j] == qd->addrs[i] &&
			    qd->ports[j] == qd->ports[i]) {
				log_err("%s: quorum slots %u and %u have the same address",
					qd->conf.meta_device, j, i);
				return -EINVAL;
			}
		}
	}
	pthread_mutex_lock(&qd->mutex);
	qd->present = present;		/* the status is asked for already */
	pthread_mutex_unlock(&qd->mutex);
	if (!(present & 1u << qd->slot)) {
		log_err("quorum_slot %u is not configured in the volume; give one of the slots that mkfs -Q made",
			qd->slot);
		return -EINVAL;
	}
	a = qd->addrs[qd->slot];
	if (slots_nr(qd) > 1 && a >> 24 != 127 && !qd->keys && !qd->conf.insecure) {
		log_err("quorum slot %u is at %u.%u.%u.%u, which is not loopback: without keys anybody on that network "
			"could take part: make one with scoutfsctl keygen and add it to the lists of all nodes, or if that "
			"network is trusted set insecure = yes",
			qd->slot, a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
		return -EPERM;
	}
	return 0;
}

/* What the slots say before we begin, and the machine's start. */
static int start_machine(struct quorumd *qd)
{
	struct quorum_conf conf = {
		.fsid = qd->fsid,
		.slot = qd->slot,
		.present = qd->present,
		.heartbeat_timeout_ns = qd->conf.heartbeat_timeout_ms * NSEC_PER_MSEC,
	};
	struct slot_job job = { .kind = SLOT_JOB_SCAN };
	const struct quorum_event_rec *own;
	struct quorum_acts acts;
	struct slot_job *done;
	uint64_t now;
	int ret;

	if (getrandom(&conf.seed, sizeof(conf.seed), 0) != sizeof(conf.seed))
		return -EIO;
	ret = slot_io_post(qd->io, &job);
	if (ret < 0)
		return ret;
	while (!(done = slot_io_done(qd->io))) {
		struct pollfd p = { slot_io_fd(qd->io), POLLIN, 0 };

		poll(&p, 1, -1);
	}
	if (!(done->slots.readable & 1u << qd->slot)) {
		log_err("%s: the block of quorum slot %u cannot be used: %s; `scoutfsctl check` tells more",
			qd->conf.meta_device, qd->slot, strerror(-done->slots.error));
		free(done);
		return -EIO;
	}
	qd->slot_write_nr = done->slots.write_nr[qd->slot];
	conf.incarnation = quorum_slots_incarnation(&done->slots, qd->slot);
	conf.first_term = quorum_slots_max_term(&done->slots);
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
		conf.leader_on_disk = conf.leader_on_disk ||
				      (i != qd->slot && quorum_slot_is_led(&done->slots, i));
	own = done->slots.events[qd->slot];
	now = clock_boot_ns();
	if (quorum_slot_is_led(&done->slots, qd->slot) && own[QUORUM_EVENT_ELECT].rid == qd->rid) {
		qd->adopt_term = own[QUORUM_EVENT_ELECT].term;
		qd->adopt_until_ns = now + ADOPT_NS;
	}
	free(done);
	quorum_start(&qd->q, &conf, now, &acts);
	perform(qd, &acts, now);
	tell_services(qd);
	/* After BEGIN, which the worker does first. */
	if (!qd->adopt_term)
		start_clean(qd);
	return 0;
}

static int start(struct quorumd *qd)
{
	char path[CONF_PATH_BYTES + 32];
	struct blkcli_conf blk = { .socket_path = path, .kind = BLK_KIND_QUORUMD };
	int ret;

	if (qd->conf.quorum_slot == CONF_NO_SLOT) {
		log_err("%s: no quorum_slot: this mount does not vote, and needs no quorumd",
			qd->conf.name);
		return -EINVAL;
	}
	qd->slot = (unsigned)qd->conf.quorum_slot;
	ret = keys_open_said(&qd->keys, &qd->conf);
	if (ret < 0)
		return ret;
	ret = instance_rid_get(&qd->conf, &qd->rid);
	if (ret < 0)
		return ret;
	strcpy(qd->shown.state, "starting");
	strcpy(qd->shown.waiting, "blockd");
	qd->shown.since_ns = clock_boot_ns();
	qd->shown.leader_slot = qd->shown.voted_for = MSG_NO_SLOT;
	/* Before blockd: a service that is there already must not be disturbed. */
	ret = status_start(qd);
	if (ret < 0)
		return ret;
	sdn_status("waits for blockd");
	conf_runtime_path(&qd->conf, "blockd.sock", path, sizeof(path));
	blk.rid = qd->rid;
	ret = blkcli_open(&qd->blk, &blk);
	if (ret < 0) {
		log_err("blockd at %s: %s", path, strerror(-ret));
		return ret;
	}
	ret = read_config(qd);
	ret = ret ?: slot_io_start(&qd->io, qd);
	ret = ret ?: local_open(&qd->local, qd);
	if (ret == 0 && slots_nr(qd) > 1)
		ret = peers_open(&qd->peers, qd);
	return ret ?: start_machine(qd);
}

/* All that is mapped is locked, below, and a thread's stack would be 8 MiB: ours need few KiB, libzmq's few dozens. */
static void limit_stacks(void)
{
	pthread_attr_t attr;

	if (pthread_attr_init(&attr) != 0)
		return;
	/* where it cannot be had they are larger, which does no harm */
	if (pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES) == 0)
		pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
}

/* Late heartbeats are what causes needless elections: no paging, and before others on the
 * processor. */
static void be_prompt(void)
{
	const struct rlimit *unlimited = &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_MEMLOCK, unlimited);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		log_info("memory is not locked (%s); a busy machine may cause elections",
			 strerror(errno));
	if (setpriority(PRIO_PROCESS, 0, -10) < 0)
		log_info("no raised priority (%s); a busy machine may cause elections",
			 strerror(errno));
}

static void catch_signals(struct quorumd *qd)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	signal_wake_fd = qd->wake_fd;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	static struct quorumd qd;
	int status;
	bool done;

	status = conf_from_args(&qd.conf, argc, argv, &done);
	if (status || done)
		return status;
	limit_stacks();
	pthread_mutex_init(&qd.mutex, NULL);
	qd.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	qd.zmq_ctx = zmq_ctx_new();
	if (qd.wake_fd < 0 || !qd.zmq_ctx) {
		log_err("no descriptors or memory to start with: %s", strerror(errno));
		return 1;
	}
	catch_signals(&qd);
	if (start(&qd) < 0) {
		log_flush();
		_exit(1);
	}
	be_prompt();
	is_looping = 1;
	loop(&qd);

	ctl_stop(qd.ctl);
	local_close(qd.local);
	peers_close(qd.peers);
	log_info("ended");
	/* The worker may hang in a call that no deadline ends; the process does not. */
	slot_io_stop(qd.io);
	log_flush();
#ifdef __SANITIZE_ADDRESS__
	__lsan_do_leak_check();	/* an end by _exit has none */
#endif
	_exit(qd.exit_status);
}
