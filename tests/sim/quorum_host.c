/*
 * A simulated quorumd: the real election and the real quorum blocks; what services/quorumd has around
 * them (main.c, slot_io.c, fence.c, local.c) is done here in virtual time, in the same order.
 *
 * Slot I/O is one job after another.  A record reads the block, changes it with quorum_slot_record(), and
 * writes it; each takes its time, may fail, and between any two of them the process may die.  Before a new
 * process reads, blockd has ended what the one before had under way.
 */
#include "quorum_world.h"

#include <errno.h>
#include <string.h>

#define REPEAT_NS	(500 * SIM_MS)
#define ADOPT_NS	(3 * SIM_SEC)
#define CONNECT_NS	(5 * SIM_MS)
#define LOCAL_NS	(100 * SIM_US)	/* a call to blockd */
#define RESTART_NS	SIM_SEC

static void jobs_next(struct sim *s, struct qw_host *h);
static void q_loop(struct sim *s, struct qw_host *h);

static const char *const record_names[] = { "BEGIN", "TERM", "ELECT", "FENCE", "STOP", "END" };

static bool is_in(const uint64_t *v, size_t nr, uint64_t rid)
{
	for (size_t i = 0; i < nr; i++) {
		if (v[i] == rid)
			return true;
	}
	return false;
}

static void add(struct sim *s, uint64_t *v, size_t *nr, uint64_t rid)
{
	if (is_in(v, *nr, rid))
		return;
	SIM_CHECK(s, *nr < QW_RIDS_MAX, "more rids than the world has room for");
	v[(*nr)++] = rid;
}

static uint64_t host_clock(struct sim *s, const struct qw_host *h)
{
	return sim_clock(s, h->qp);
}

/* --- jobs -------------------------------------------------------------------------------------- */

static void post(struct sim *s, struct qw_host *h, const struct qw_job *job)
{
	SIM_CHECK(s, h->m.jobs_nr < QW_JOBS_MAX, "slot %u: jobs pile up", h->slot);
	h->m.jobs[h->m.jobs_nr++] = *job;
	jobs_next(s, h);
}

static void post_record(struct sim *s, struct qw_host *h, enum quorum_event_kind record,
			uint64_t term)
{
	if (h->m.writes_nr++ == 0)
		h->m.write_since_ns = host_clock(s, h);
	post(s, h, &(struct qw_job){ .kind = QW_RECORD, .record = record, .term = term });
}

/* --- the machine's actions --------------------------------------------------------------------- */

static void send_state(struct sim *s, struct qw_host *h)
{
	struct msg_quorum_state st;

	quorum_fill_state(&h->m.q, host_clock(s, h), &st);
	for (unsigned i = 0; i < h->w->nr; i++) {
		if (i != h->slot)
			sim_net_send(s, h->qp, h->w->hosts[i].qp, &st, sizeof(st));
	}
}

static void tell_server(struct sim *s, struct qw_host *h)
{
	const struct quorum *q = &h->m.q;
	struct qw_local m = {
		.rid = h->rid,
		.term = h->m.is_serving ? q->lead_term : q->term,
		.is_leader = h->m.is_serving,
		.is_stop = h->m.is_serving && q->lead == QUORUM_LEAD_STOP,
	};

	if (h->m.adopt_term || !h->m.is_running)
		return;
	h->m.told_ns = host_clock(s, h);
	sim_net_stream(s, h->qp, h->sp, &m, sizeof(m));
}

static void kill_server(struct sim *s, struct qw_host *h)
{
	if (h->m.server_life && sim_proc_life(s, h->sp) == h->m.server_life)
		sim_proc_restart(s, h->sp, RESTART_NS);
}

/* True: the process has died or ended. */
static bool perform(struct sim *s, struct qw_host *h, const struct quorum_acts *acts)
{
	for (size_t i = 0; i < acts->nr; i++) {
		const struct quorum_act *a = &acts->v[i];
		struct qw_job job = { .term = a->term, .purpose = QW_LEAD };

		if (sim_crash_point(s, h->qp))
			return true;
		switch (a->kind) {
		case QUORUM_ACT_SEND:
			send_state(s, h);
			break;
		case QUORUM_ACT_WRITE:
			sim_trace(s, h->qp, "records %s %llu", record_names[a->record],
				  (unsigned long long)a->term);
			post_record(s, h, a->record, a->term);
			break;
		case QUORUM_ACT_FENCE:
			job.kind = QW_SET_TERM;
			post(s, h, &job);
			job.kind = QW_SCAN;
			post(s, h, &job);
			break;
		case QUORUM_ACT_SERVE:
			sim_trace(s, h->qp, "serverd may serve term %llu", (unsigned long long)a->term);
			h->m.is_serving = true;
			break;
		case QUORUM_ACT_STOP:
			sim_trace(s, h->qp, "serverd shall stop");
			break;
		case QUORUM_ACT_KILL:
			sim_trace(s, h->qp, "kills serverd");
			kill_server(s, h);
			break;
		case QUORUM_ACT_EXIT:
			sim_trace(s, h->qp, "ends");
			sim_proc_restart(s, h->qp, RESTART_NS);
			return true;
		}
	}
	return false;
}

/* What blockd may let serverd do until the next word; as main.c tells it after each event. */
static void renew_right(struct sim *s, struct qw_host *h)
{
	uint64_t now = host_clock(s, h), until = quorum_lease_until(&h->m.q, now);
	uint64_t drift = lease_drift_ns(h->heartbeat_ns);

	if (until > now + drift)
		lease_guard_set(&h->guard, QW_KIND_SERVER, h->rid, h->m.q.lead_term, until - drift,
				now);
}

static void event(struct sim *s, struct qw_host *h, const struct quorum_in *in)
{
	enum quorum_lead lead = h->m.q.lead;
	enum quorum_role role = h->m.q.role;
	uint64_t term = h->m.q.term;
	bool serving = h->m.is_serving;
	struct quorum_acts acts;

	quorum_step(&h->m.q, in, host_clock(s, h), &acts);
	quorum_check(&h->m.q);
	if (role != h->m.q.role || term != h->m.q.term)
		sim_trace(s, h->qp, "is %s of term %llu",
			  h->m.q.role == QUORUM_LEADER ? "leader" :
			  h->m.q.role == QUORUM_CANDIDATE ? "candidate" : "follower",
			  (unsigned long long)h->m.q.term);
	renew_right(s, h);
	if (perform(s, h, &acts))
		return;
	if (h->m.q.lead != QUORUM_LEAD_SERVE && h->m.q.lead != QUORUM_LEAD_STOP)
		h->m.is_serving = false;
	if (h->m.fences.is_active &&
	    (h->m.q.lead != QUORUM_LEAD_FENCE || h->m.fences.term != h->m.q.lead_term))
		h->m.fences.is_active = false;
	if (lead != h->m.q.lead || role != h->m.q.role || term != h->m.q.term ||
	    serving != h->m.is_serving)
		tell_server(s, h);
}

static void event_kind(struct sim *s, struct qw_host *h, enum quorum_event_in kind, uint64_t term)
{
	struct quorum_in in = { .kind = kind, .term = term };

	if (sim_proc_is_alive(s, h->qp))
		event(s, h, &in);
}

/* --- fences: fence.c --------------------------------------------------------------------------- */

static bool is_ours(const struct qw_host *h, uint64_t rid)
{
	return rid >> 32 == h->slot + 1;
}

static void revoke(struct sim *s, struct qw_host *h, struct qw_fences *f, size_t i)
{
	f->is_revoking[i] = true;
	post(s, h, &(struct qw_job){ .kind = QW_REVOKE, .rid = f->wanted[i].rid });
}

static void fences_begin(struct sim *s, struct qw_host *h, struct qw_fences *f,
			 const struct quorum_slots *slots, uint64_t term)
{
	struct quorum_fence all[QUORUM_FENCES_MAX];
	size_t nr = quorum_slots_to_fence(slots, h->rid, term ? term : UINT64_MAX, all);

	*f = (struct qw_fences){ .is_active = true, .term = term, .since_ns = host_clock(s, h) };
	for (size_t i = 0; i < nr; i++) {
		if (term != 0 || all[i].slot == h->slot)
			f->wanted[f->nr++] = all[i];
	}
	for (size_t i = 0; i < f->nr; i++) {
		const struct quorum_fence *w = &f->wanted[i];
		uint64_t over = quorum_lease_over_ns(&h->m.q, w->slot, w->term);

		f->lapse_ns[i] = SIM_NEVER;
		if (is_in(h->fenced, h->fenced_nr, w->rid))
			continue;
		sim_trace(s, h->qp, "must fence rid %llx of term %llu", (unsigned long long)w->rid,
			  (unsigned long long)w->term);
		if (is_ours(h, w->rid)) {
			revoke(s, h, f, i);
			continue;
		}
		/* A lease of a majority was given before we were elected. */
		if (over && term && w->slot != h->slot)
			f->lapse_ns[i] = over + lease_drift_ns(h->m.q.peers[w->slot].lease_ms * SIM_MS) +
					 h->w->longest_io_ns;
		qw_agent_ask(s, h, w);
	}
}

static bool fences_step(struct sim *s, struct qw_host *h, struct qw_fences *f)
{
	bool is_done = true;

	for (size_t i = 0; i < f->nr; i++) {
		uint64_t rid = f->wanted[i].rid;

		/* The end of a lease says nothing of the rid, which may lead again. */
		if (is_in(h->fenced, h->fenced_nr, rid) || host_clock(s, h) >= f->lapse_ns[i])
			continue;
		is_done = false;
		if (!f->is_revoking[i] && is_in(h->m.acked, h->m.acked_nr, rid))
			revoke(s, h, f, i);
	}
	return is_done;
}

void qw_fence_ack(struct sim *s, struct qw_host *h, uint64_t rid)
{
	if (!sim_proc_is_alive(s, h->qp) || !h->m.is_running)
		return;
	add(s, h->m.acked, &h->m.acked_nr, rid);
	q_loop(s, h);
}

/* --- ends of jobs: main.c ---------------------------------------------------------------------- */

static void record_done(struct sim *s, struct qw_host *h, const struct qw_job *job, int ret)
{
	struct quorum_in in = { .kind = QUORUM_IN_WRITTEN, .term = job->term, .record = job->record };

	h->m.write_since_ns = --h->m.writes_nr ? host_clock(s, h) : 0;
	if (ret == 0) {
		event(s, h, &in);
		return;
	}
	sim_trace(s, h->qp, "%s %llu cannot be recorded: %d", record_names[job->record],
		  (unsigned long long)job->term, ret);
	event_kind(s, h, QUORUM_IN_WRITE_FAILED, 0);
}

static void begin(struct sim *s, struct qw_host *h, const struct quorum_slots *slots)
{
	const struct quorum_event_rec *own = slots->events[h->slot];
	struct quorum_conf conf = {
		.fsid = QW_FSID,
		.slot = h->slot,
		.present = (1u << h->w->nr) - 1,
		.heartbeat_timeout_ns = h->heartbeat_ns,
		.incarnation = quorum_slots_incarnation(slots, h->slot),
		.seed = sim_rnd(s, UINT64_MAX),
	};
	struct quorum_acts acts;

	if (!(slots->readable & 1u << h->slot)) {
		sim_trace(s, h->qp, "cannot read its block, ends");
		sim_proc_restart(s, h->qp, RESTART_NS);
		return;
	}
	h->m.write_nr = slots->write_nr[h->slot];
	conf.first_term = quorum_slots_max_term(slots);
	for (unsigned i = 0; i < h->w->nr; i++)
		conf.leader_on_disk = conf.leader_on_disk ||
				      (i != h->slot && quorum_slot_is_led(slots, i));
	if (quorum_slot_is_led(slots, h->slot) && own[QUORUM_EVENT_ELECT].rid == h->rid) {
		h->m.adopt_term = own[QUORUM_EVENT_ELECT].term;
		h->m.adopt_until_ns = host_clock(s, h) + ADOPT_NS;
	}
	h->m.is_running = true;
	quorum_start(&h->m.q, &conf, host_clock(s, h), &acts);
	if (perform(s, h, &acts))
		return;
	tell_server(s, h);
	if (!h->m.adopt_term)
		post(s, h, &(struct qw_job){ .kind = QW_SCAN, .purpose = QW_CLEAN });
}

static void scan_done(struct sim *s, struct qw_host *h, const struct qw_job *job,
		      const struct quorum_slots *slots)
{
	uint64_t newer;

	if (!h->m.is_running) {
		begin(s, h, slots);
		return;
	}
	if (job->purpose == QW_LEAD &&
	    (h->m.q.lead != QUORUM_LEAD_FENCE || h->m.q.lead_term != job->term))
		return;
	if (slots->readable != slots->present) {
		sim_trace(s, h->qp, "cannot read all blocks");
		event_kind(s, h, job->purpose == QW_LEAD ? QUORUM_IN_FENCE_FAILED
							 : QUORUM_IN_WRITE_FAILED, job->term);
		return;
	}
	newer = job->purpose == QW_LEAD ? quorum_slots_newer(slots, job->term) : 0;
	if (newer) {
		sim_trace(s, h->qp, "finds that term %llu was elected", (unsigned long long)newer);
		event_kind(s, h, QUORUM_IN_NEWER, newer);
		return;
	}
	fences_begin(s, h, job->purpose == QW_LEAD ? &h->m.fences : &h->m.clean, slots,
		     job->purpose == QW_LEAD ? job->term : 0);
}

static void set_term_done(struct sim *s, struct qw_host *h, const struct qw_job *job)
{
	if (job->purpose == QW_SERVER_GONE) {
		event_kind(s, h, QUORUM_IN_SERVER_GONE, 0);
	} else if (job->purpose == QW_ADOPT) {
		post_record(s, h, QUORUM_EVENT_STOP, job->term - 1);
		post(s, h, &(struct qw_job){ .kind = QW_SCAN, .purpose = QW_CLEAN });
	}
}

static void job_ended(struct sim *s, struct qw_host *h, int ret, const struct quorum_slots *slots)
{
	struct qw_job job = h->m.jobs[0];
	uint64_t life = sim_proc_life(s, h->qp);

	memmove(h->m.jobs, h->m.jobs + 1, --h->m.jobs_nr * sizeof(h->m.jobs[0]));
	h->m.is_job_running = false;
	switch (job.kind) {
	case QW_RECORD:
		record_done(s, h, &job, ret);
		break;
	case QW_SCAN:
		scan_done(s, h, &job, slots);
		break;
	case QW_SET_TERM:
		set_term_done(s, h, &job);
		break;
	case QW_REVOKE:
		add(s, h->fenced, &h->fenced_nr, job.rid);
		break;
	}
	if (!sim_proc_is_alive(s, h->qp) || sim_proc_life(s, h->qp) != life)
		return;
	jobs_next(s, h);
	if (h->m.is_running)
		q_loop(s, h);
}

/* --- slot I/O: slot_io.c ----------------------------------------------------------------------- */

static int dev_read(void *arg, uint64_t blkno, void *buf)
{
	struct qw_host *h = arg;
	unsigned slot = (unsigned)(blkno - QUORUM_FIRST_BLKNO);

	memcpy(buf, h->io.blocks[slot], SMALL_SIZE);
	return -h->io.errors[slot];
}

static int dev_write(void *arg, uint64_t blkno, const void *buf)
{
	struct qw_host *h = arg;

	(void)blkno;
	memcpy(&h->io.record, buf, SMALL_SIZE);
	h->io.is_record_made = true;
	return 0;
}

static int dev_flush(void *arg)
{
	(void)arg;
	return 0;
}

static struct quorum_dev dev_of(struct qw_host *h)
{
	return (struct quorum_dev){ h, dev_read, dev_write, dev_flush };
}

static void record_written(struct sim *s, void *arg, uint64_t err)
{
	job_ended(s, arg, -(int)err, NULL);
}

static void record_read(struct sim *s, struct qw_host *h)
{
	const struct qw_job *job = &h->m.jobs[0];
	struct quorum_dev dev = dev_of(h);
	int ret;

	h->io.is_record_made = false;
	ret = quorum_slot_record(&dev, QW_FSID, h->slot, h->rid, job->record, job->term,
				 (struct timespec){ 1, 0 }, &h->m.write_nr);
	if (ret < 0 || !h->io.is_record_made) {
		job_ended(s, h, ret, NULL);
		return;
	}
	sim_disk_write(s, h->w->disk, h->qp, 1 + h->slot, &h->io.record, record_written, h);
}

static void scan_read(struct sim *s, struct qw_host *h)
{
	struct quorum_dev dev = dev_of(h);
	struct quorum_slots slots;

	quorum_slots_read(&dev, QW_FSID, (1u << h->w->nr) - 1, &slots);
	job_ended(s, h, 0, &slots);
}

static void blocks_read(struct sim *s, struct qw_host *h)
{
	if (h->m.jobs[0].kind == QW_RECORD)
		record_read(s, h);
	else
		scan_read(s, h);
}

struct block_read {
	struct qw_host *h;
	unsigned slot;
};

static void block_read(struct sim *s, void *arg, uint64_t err)
{
	struct block_read *r = arg;

	r->h->io.errors[r->slot] = (int)err;
	if (--r->h->io.left == 0)
		blocks_read(s, r->h);
}

static void read_blocks(struct sim *s, struct qw_host *h, unsigned first, unsigned nr)
{
	h->io.left = nr;
	for (unsigned i = first; i < first + nr; i++) {
		struct block_read *r = sim_alloc(s, sizeof(*r));

		*r = (struct block_read){ h, i };
		/* A device that forgets is found out by who wrote; of others nobody could know. */
		if (nr == 1 && h->m.is_running && sim_is_faulty(s) && sim_chance(s, h->w->old_block_pm))
			sim_disk_read_old(s, h->w->disk, h->qp, 1 + i, h->io.blocks[i], block_read, r);
		else
			sim_disk_read(s, h->w->disk, h->qp, 1 + i, h->io.blocks[i], block_read, r);
	}
}

/* blockd answers when no write that it forbids is under way. */
static void blockd_said(struct sim *s, void *arg, uint64_t value)
{
	struct qw_host *h = arg;

	(void)value;
	if (sim_disk_is_busy(h->w->disk, h->sp)) {
		sim_call_proc(s, h->qp, SIM_MS, blockd_said, h, 0);
		return;
	}
	job_ended(s, h, 0, NULL);
}

static void jobs_next(struct sim *s, struct qw_host *h)
{
	const struct qw_job *job = &h->m.jobs[0];

	if (h->m.is_job_running || !h->m.jobs_nr)
		return;
	h->m.is_job_running = true;
	switch (job->kind) {
	case QW_RECORD:
		read_blocks(s, h, h->slot, 1);
		return;
	case QW_SCAN:
		read_blocks(s, h, 0, h->w->nr);
		return;
	case QW_SET_TERM:
		if (job->term > h->min_term)
			h->min_term = job->term;
		break;
	case QW_REVOKE:
		add(s, h->revoked, &h->revoked_nr, job->rid);
		break;
	}
	sim_call_proc(s, h->qp, LOCAL_NS, blockd_said, h, 0);
}

/* --- the loop: main.c, local.c ----------------------------------------------------------------- */

static void check_adoption(struct sim *s, struct qw_host *h)
{
	struct quorum_in in = { .kind = QUORUM_IN_ADOPT, .term = h->m.adopt_term };
	struct qw_job job = { .kind = QW_SET_TERM, .term = h->m.adopt_term + 1, .purpose = QW_ADOPT };
	bool is_said = h->m.has_server_state;

	if (!h->m.adopt_term)
		return;
	if (is_said && h->m.server_term == h->m.adopt_term && h->m.server_status != SERVER_DOWN) {
		sim_trace(s, h->qp, "takes serverd of term %llu over",
			  (unsigned long long)h->m.adopt_term);
		in.status = h->m.server_status;
		h->m.adopt_term = 0;
		event(s, h, &in);
		if (sim_proc_is_alive(s, h->qp))
			post(s, h, &(struct qw_job){ .kind = QW_SCAN, .purpose = QW_CLEAN });
	} else if (is_said || host_clock(s, h) >= h->m.adopt_until_ns) {
		h->m.adopt_term = 0;
		tell_server(s, h);
		post(s, h, &job);
	}
}

static void check_fences(struct sim *s, struct qw_host *h)
{
	if (h->m.clean.is_active && fences_step(s, h, &h->m.clean)) {
		h->m.clean.is_active = false;
		event_kind(s, h, QUORUM_IN_CLEAN, 0);
	}
	if (!h->m.fences.is_active)
		return;
	if (fences_step(s, h, &h->m.fences)) {
		h->m.fences.is_active = false;
		event_kind(s, h, QUORUM_IN_FENCED, h->m.fences.term);
	} else if (h->w->nr > 1 && host_clock(s, h) >= h->m.fences.since_ns + h->w->fence_wait_ns) {
		event_kind(s, h, QUORUM_IN_FENCE_FAILED, h->m.fences.term);
	}
}

static uint64_t earliest(struct sim *s, const struct qw_host *h)
{
	uint64_t t = quorum_deadline(&h->m.q), v[] = {
		h->m.told_ns + REPEAT_NS,
		h->m.adopt_term ? h->m.adopt_until_ns : SIM_NEVER,
		h->m.fences.is_active ? h->m.fences.since_ns + h->w->fence_wait_ns : SIM_NEVER,
		h->m.write_since_ns && !h->m.q.failed ? h->m.write_since_ns + h->heartbeat_ns
						      : SIM_NEVER,
	};

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		t = v[i] < t ? v[i] : t;
	for (size_t i = 0; h->m.fences.is_active && i < h->m.fences.nr; i++) {
		if (!h->m.fences.is_revoking[i] && h->m.fences.lapse_ns[i] < t)
			t = h->m.fences.lapse_ns[i];
	}
	return t > host_clock(s, h) ? t : host_clock(s, h) + SIM_MS;
}

static void q_loop(struct sim *s, struct qw_host *h)
{
	uint64_t life = sim_proc_life(s, h->qp);

#define ALIVE() (sim_proc_is_alive(s, h->qp) && sim_proc_life(s, h->qp) == life)
	if (h->m.server_life && host_clock(s, h) >= h->m.server_heard_ns + h->heartbeat_ns)
		kill_server(s, h);
	if (host_clock(s, h) >= h->m.told_ns + REPEAT_NS)
		tell_server(s, h);
	check_adoption(s, h);
	if (ALIVE())
		check_fences(s, h);
	if (ALIVE() && !h->m.q.is_server_here && h->m.has_server_state && !h->m.adopt_term)
		event_kind(s, h, QUORUM_IN_SERVER_HERE, 0);
	if (ALIVE() && h->m.write_since_ns && !h->m.q.failed &&
	    host_clock(s, h) >= h->m.write_since_ns + h->heartbeat_ns) {
		sim_trace(s, h->qp, "a record takes too long");
		event_kind(s, h, QUORUM_IN_WRITE_FAILED, 0);
	}
	if (ALIVE())
		event_kind(s, h, QUORUM_IN_TICK, 0);
	if (ALIVE())
		sim_timer_set(s, h->qp, earliest(s, h));
#undef ALIVE
}

void qw_server_ended(struct sim *s, void *arg, uint64_t life)
{
	struct qw_host *h = arg;

	if (h->m.server_life != life || !h->m.is_running)
		return;
	h->m.server_life = 0;
	h->m.has_server_state = false;
	if (h->m.q.lead != QUORUM_LEAD_SERVE && h->m.q.lead != QUORUM_LEAD_STOP)
		event_kind(s, h, QUORUM_IN_SERVER_GONE, 0);
	else
		post(s, h, &(struct qw_job){ .kind = QW_SET_TERM,
					     .term = h->m.q.lead_term + 1,
					     .purpose = QW_SERVER_GONE });
	if (sim_proc_is_alive(s, h->qp) && h->m.is_running)
		q_loop(s, h);
}

void qw_quorumd_stop(struct sim *s, struct qw_host *h)
{
	if (sim_proc_is_alive(s, h->qp) && h->m.is_running)
		event_kind(s, h, QUORUM_IN_SHUTDOWN, 0);
}

void qw_quorumd_resign(struct sim *s, struct qw_host *h)
{
	if (sim_proc_is_alive(s, h->qp) && h->m.is_running)
		event_kind(s, h, QUORUM_IN_RESIGN, 0);
}

static void server_said(struct sim *s, struct qw_host *h, const struct qw_local *m)
{
	struct quorum_in in = {
		.kind = QUORUM_IN_SERVER_STATE, .term = m->term, .status = m->status
	};
	uint64_t life = sim_proc_life(s, h->sp);

	if (m->rid != h->rid || !sim_proc_is_alive(s, h->sp))
		return;
	if (h->m.server_life && h->m.server_life != life)
		return;
	h->m.server_life = life;
	h->m.server_heard_ns = host_clock(s, h);
	h->m.has_server_state = true;
	h->m.server_term = m->term;
	h->m.server_status = m->status;
	event(s, h, &in);
}

static void quorumd_recv(struct sim *s, void *arg, unsigned from, const void *buf, size_t len)
{
	struct qw_host *h = arg;
	struct quorum_in in = { .kind = QUORUM_IN_PEER, .peer = buf };
	uint64_t life = sim_proc_life(s, h->qp);

	(void)len;
	if (!h->m.is_running)
		return;
	if (from == h->sp)
		server_said(s, h, buf);
	else
		event(s, h, &in);
	if (sim_proc_is_alive(s, h->qp) && sim_proc_life(s, h->qp) == life)
		q_loop(s, h);
}

static void quorumd_wake(struct sim *s, void *arg)
{
	struct qw_host *h = arg;

	if (h->m.is_running) {
		q_loop(s, h);
		return;
	}
	/* blockd greets when nothing of the process before is under way. */
	if (sim_disk_is_busy(h->w->disk, h->qp))
		sim_timer_set(s, h->qp, host_clock(s, h) + CONNECT_NS);
	else
		post(s, h, &(struct qw_job){ .kind = QW_SCAN });
}

static void quorumd_start(struct sim *s, void *arg)
{
	struct qw_host *h = arg;

	memset(&h->m, 0, sizeof(h->m));
	sim_timer_set(s, h->qp, host_clock(s, h) + CONNECT_NS);
}

const struct sim_proc_ops qw_quorumd_ops = {
	.start = quorumd_start,
	.wake = quorumd_wake,
	.recv = quorumd_recv,
};
