/*
 * Elections under fire: worlds of 1 to 15 members whose quorumds, serverds and hosts die, hang, lose
 * power and each other, while records of their slots are late, fail or are torn.
 *
 * Each host's serverd writes all the time when it serves, through a blockd that knows fenced terms and
 * the lease of the leader, so that the checker sees at the device whether two could write.  A fence is
 * the end of the earlier leader's lease, or an agent that cuts its host's power, or that does not answer.
 */
#include "machines.h"
#include "quorum_world.h"

#include "csum/csum.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define HEARTBEAT_NS	(2 * SIM_SEC)
#define WRITE_NS	(30 * SIM_MS)
#define HELLO_NS	(500 * SIM_MS)
#define OPEN_NS		(20 * SIM_MS)	/* reading the volume, at most */
#define FIRST_NS	(2 * SIM_SEC)	/* before the faults begin */
#define CHAOS_NS	(20 * SIM_SEC)
#define DRIFT_PPM	9000		/* of a host's clock at most; two of them: below 2 % */

/* --- blockd ------------------------------------------------------------------------------------ */

int qw_blockd_check(struct sim *s, const struct qw_host *h, uint64_t rid, uint64_t term)
{
	uint64_t until;

	for (size_t i = 0; i < h->revoked_nr; i++) {
		if (h->revoked[i] == rid)
			return -ENOLINK;
	}
	if (term < h->min_term)
		return -ESTALE;
	return lease_guard_check(&h->guard, QW_KIND_SERVER, rid, term, true, sim_clock(s, h->sp),
				 &until);
}

/* --- serverd ----------------------------------------------------------------------------------- */

static void server_say(struct sim *s, struct qw_host *h)
{
	struct qw_local m = {
		.is_from_server = true, .rid = h->rid, .term = h->s.term, .status = h->s.status
	};

	h->s.next_hello_ns = sim_clock(s, h->sp) + HELLO_NS;
	sim_net_stream(s, h->sp, h->qp, &m, sizeof(m));
}

static void server_set(struct sim *s, struct qw_host *h, enum server_status status)
{
	static const char *const names[] = { "down", "starting", "up", "stopping" };

	h->s.status = status;
	sim_trace(s, h->sp, "is %s, term %llu", names[status], (unsigned long long)h->s.term);
	server_say(s, h);
}

/* What is under way ends first. */
static void server_stop(struct sim *s, struct qw_host *h)
{
	if (h->s.status == SERVER_STARTING || h->s.status == SERVER_UP)
		server_set(s, h, SERVER_STOPPING);
	if (h->s.status == SERVER_STOPPING && !h->s.writes && !h->s.is_opening)
		server_set(s, h, SERVER_DOWN);
}

static void server_opened(struct sim *s, void *arg, uint64_t value)
{
	struct qw_host *h = arg;

	(void)value;
	h->s.is_opening = false;
	if (h->s.status != SERVER_STARTING) {
		server_stop(s, h);
		return;
	}
	sim_publish(s, &(struct sim_fact){ .kind = QW_FACT_READ, .proc = h->sp,
					   .v = { h->slot, h->s.term } });
	server_set(s, h, SERVER_UP);
	sim_timer_set(s, h->sp, sim_clock(s, h->sp) + WRITE_NS);
}

static void server_wrote(struct sim *s, void *arg, uint64_t err)
{
	struct qw_host *h = arg;

	h->s.writes--;
	if (err || h->s.status == SERVER_STOPPING)
		server_stop(s, h);
}

static void server_write(struct sim *s, struct qw_host *h)
{
	uint8_t block[SMALL_SIZE] = { 0 };
	struct qw_super w = { h->slot, h->rid, h->s.term, ++h->s.nr };
	int ret = qw_blockd_check(s, h, h->rid, h->s.term);

	if (ret < 0) {
		sim_trace(s, h->sp, "is refused: %d", ret);
		server_stop(s, h);
		return;
	}
	memcpy(block, &w, sizeof(w));
	h->s.writes++;
	sim_disk_write(s, h->w->disk, h->sp, QW_SUPER, block, server_wrote, h);
}

static void server_recv(struct sim *s, void *arg, unsigned from, const void *buf, size_t len)
{
	const struct qw_local *m = buf;
	struct qw_host *h = arg;
	bool is_wanted = m->is_leader && !m->is_stop;

	(void)from;
	(void)len;
	if (m->rid != h->rid)
		return;
	h->s.quorumd_heard_ns = sim_clock(s, h->sp);
	if (h->s.status == SERVER_DOWN && is_wanted && m->term > h->s.term) {
		/* Each term once; blockd refuses older servers before anything is read. */
		if (m->term < h->min_term)
			return;
		h->min_term = m->term;
		h->s.term = m->term;
		h->s.is_opening = true;
		server_set(s, h, SERVER_STARTING);
		sim_call_proc(s, h->sp, sim_rnd(s, OPEN_NS), server_opened, h, 0);
	} else if (h->s.status != SERVER_DOWN && (!is_wanted || m->term != h->s.term)) {
		server_stop(s, h);
	}
}

static void server_wake(struct sim *s, void *arg)
{
	struct qw_host *h = arg;
	uint64_t now = sim_clock(s, h->sp);

	if (now >= h->s.quorumd_heard_ns + h->heartbeat_ns)
		server_stop(s, h);
	if (h->s.status == SERVER_UP)
		server_write(s, h);
	if (now >= h->s.next_hello_ns)
		server_say(s, h);
	sim_timer_set(s, h->sp, h->s.status == SERVER_UP ? now + WRITE_NS : h->s.next_hello_ns);
}

static void server_start(struct sim *s, void *arg)
{
	struct qw_host *h = arg;

	memset(&h->s, 0, sizeof(h->s));
	h->s.status = SERVER_DOWN;
	server_say(s, h);
	sim_timer_set(s, h->sp, h->s.next_hello_ns);
}

static void server_died(struct sim *s, void *arg)
{
	struct qw_host *h = arg;

	if (sim_proc_is_alive(s, h->qp))
		sim_call_proc(s, h->qp, SIM_MS, qw_server_ended, h, sim_proc_life(s, h->sp));
}

static const struct sim_proc_ops server_ops = {
	.start = server_start,
	.wake = server_wake,
	.recv = server_recv,
	.died = server_died,
};

/* --- hosts ------------------------------------------------------------------------------------- */

static void host_new_instance(struct qw_host *h)
{
	h->rid = (uint64_t)(h->slot + 1) << 32 | ++h->boots;
	memset(&h->guard, 0, sizeof(h->guard));
	h->min_term = 0;
	h->revoked_nr = h->fenced_nr = 0;
}

static void host_power_off(struct sim *s, struct qw_host *h, uint64_t for_ns)
{
	sim_trace(s, h->qp, "host loses power, rid %llx", (unsigned long long)h->rid);
	sim_disk_drop(s, h->w->disk, h->qp);
	sim_disk_drop(s, h->w->disk, h->sp);
	sim_proc_restart(s, h->sp, for_ns + sim_rnd(s, 200 * SIM_MS));
	sim_proc_restart(s, h->qp, for_ns + sim_rnd(s, 200 * SIM_MS));
	host_new_instance(h);
}

struct agent_ask {
	struct qw_host *asker;
	uint64_t rid, life;
	unsigned slot;
};

static void agent_acts(struct sim *s, void *arg, uint64_t value)
{
	struct agent_ask *a = arg;
	struct qw_host *h = &a->asker->w->hosts[a->slot];

	(void)value;
	if (h->rid == a->rid)
		host_power_off(s, h, SIM_SEC + sim_rnd(s, 2 * SIM_SEC));
	if (sim_proc_life(s, a->asker->qp) == a->life)
		qw_fence_ack(s, a->asker, a->rid);
}

void qw_agent_ask(struct sim *s, struct qw_host *h, const struct quorum_fence *f)
{
	struct agent_ask *a = sim_alloc(s, sizeof(*a));

	if (h->w->is_agent_dead)
		return;
	*a = (struct agent_ask){ h, f->rid, sim_proc_life(s, h->qp), f->slot };
	sim_call_at(s, sim_now(s) + sim_between(s, 50 * SIM_MS, 3 * SIM_SEC), agent_acts, a, 0);
}

/* --- faults ------------------------------------------------------------------------------------ */

static struct qw_host *victim(struct sim *s, struct qw_world *w)
{
	/* Whoever leads is the interesting one. */
	if (sim_rnd(s, 2)) {
		for (unsigned i = 0; i < w->nr; i++) {
			if (w->hosts[i].m.is_running && w->hosts[i].m.q.role == QUORUM_LEADER)
				return &w->hosts[i];
		}
	}
	return &w->hosts[sim_rnd(s, w->nr)];
}

static void cut(struct sim *s, struct qw_world *w, unsigned from, unsigned to, bool is_cut)
{
	if (from != to)
		sim_net_cut(s, w->hosts[from].qp, w->hosts[to].qp, is_cut);
}

static void cut_some(struct sim *s, struct qw_world *w, struct qw_host *h)
{
	unsigned how = (unsigned)sim_rnd(s, 5);

	for (unsigned i = 0; i < w->nr; i++) {
		switch (how) {
		case 0:		/* it is alone */
			cut(s, w, h->slot, i, true);
			cut(s, w, i, h->slot, true);
			break;
		case 1:		/* it is not heard */
			cut(s, w, h->slot, i, true);
			break;
		case 2:		/* it does not hear */
			cut(s, w, i, h->slot, true);
			break;
		case 3:		/* by some */
			cut(s, w, h->slot, i, sim_rnd(s, 2));
			break;
		default:	/* two parts */
			for (unsigned k = 0; k < w->nr; k++) {
				cut(s, w, i, k, (i + h->slot) % 2 != (k + h->slot) % 2);
			}
			break;
		}
	}
}

static void mend(struct sim *s, struct qw_world *w)
{
	for (unsigned i = 0; i < w->nr; i++) {
		for (unsigned k = 0; k < w->nr; k++)
			cut(s, w, i, k, false);
	}
}

static void nemesis(struct sim *s, void *arg, uint64_t kinds)
{
	struct qw_world *w = arg;
	struct qw_host *h = victim(s, w);
	uint64_t a_while = sim_rnd(s, 2 * w->heartbeat_ns);
	unsigned kind = (unsigned)sim_rnd(s, 12);

	if (!sim_is_faulty(s))
		return;
	sim_call_at(s, sim_now(s) + sim_rnd(s, 1500 * SIM_MS), nemesis, w, kinds);
	if (!(kinds & 1u << kind))
		return;
	switch (kind) {
	case 0:
		host_power_off(s, h, sim_rnd(s, 3 * SIM_SEC));
		break;
	case 1:
		sim_proc_restart(s, h->qp, a_while);
		break;
	case 2:
		sim_proc_restart(s, h->sp, a_while / 2);
		break;
	case 3:
		sim_proc_pause(s, h->qp, a_while);
		break;
	case 4:
		sim_proc_pause(s, h->sp, a_while);
		break;
	case 5:
		sim_proc_pause(s, h->qp, a_while);
		sim_proc_pause(s, h->sp, a_while);
		break;
	case 6:
	case 7:
		cut_some(s, w, h);
		break;
	case 8:
		mend(s, w);
		break;
	case 9:		/* of its quorum block; a serverd's writes have a longest time */
		sim_disk_stall(s, h->qp, a_while);
		break;
	case 10:
		if (a_while % 2)
			qw_quorumd_stop(s, h);
		else
			qw_quorumd_resign(s, h);
		break;
	default:
		w->is_agent_dead = !w->is_agent_dead;
		break;
	}
}

/* --- a world ----------------------------------------------------------------------------------- */

static unsigned members(struct sim *s)
{
	static const uint8_t sizes[] = { 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7 };
	uint64_t n = sim_rnd(s, 200);

	/* The great ones cost the most, and find the least. */
	return n < 2 ? 8 + (unsigned)sim_rnd(s, 8) : sizes[sim_rnd(s, sizeof(sizes))];
}

static void format(struct qw_world *w)
{
	for (unsigned i = 0; i < w->nr; i++) {
		struct disk_quorum_block b = { 0 };

		b.hdr.magic = le32_of(MAGIC_QUORUM);
		b.hdr.fsid = le64_of(QW_FSID);
		b.hdr.seq = le64_of(1);
		b.hdr.blkno = le64_of(QUORUM_FIRST_BLKNO + i);
		b.hdr.crc = le32_of(block_crc(&b, sizeof(b)));
		sim_disk_format(w->disk, 1 + i, &b);
	}
}

static void make_host(struct sim *s, struct qw_world *w, unsigned slot)
{
	struct qw_host *h = &w->hosts[slot];

	h->w = w;
	h->slot = slot;
	h->heartbeat_ns = w->is_uneven && sim_rnd(s, 2) ? w->heartbeat_ns / 4 : w->heartbeat_ns;
	snprintf(h->qname, sizeof(h->qname), "quorumd%u", slot);
	snprintf(h->sname, sizeof(h->sname), "serverd%u", slot);
	h->qp = sim_proc_new(s, h->qname, &qw_quorumd_ops, h);
	h->sp = sim_proc_new(s, h->sname, &server_ops, h);
	sim_clock_set_drift(s, h->qp, (int)sim_rnd(s, 2 * DRIFT_PPM + 1) - DRIFT_PPM);
	sim_clock_share(s, h->sp, h->qp);
	host_new_instance(h);
}

/* Not every world has every fault: what one hides another shows. */
static uint64_t draw_faults(struct sim *s)
{
	struct sim_faults *f = sim_faults(s);

	if (sim_rnd(s, 2))
		f->loss_pm = (unsigned)sim_rnd(s, 400);
	if (sim_rnd(s, 2))
		f->dup_pm = (unsigned)sim_rnd(s, 200);
	if (sim_rnd(s, 2))
		f->delay_max_ns = sim_rnd(s, 300 * SIM_MS);
	if (sim_rnd(s, 3) == 0)
		f->delay_long_ns = sim_rnd(s, 10 * SIM_SEC);
	if (sim_rnd(s, 2))
		f->crash_pm = (unsigned)sim_rnd(s, 10);
	if (sim_rnd(s, 3) == 0)
		f->write_error_pm = (unsigned)sim_rnd(s, 50);
	if (sim_rnd(s, 3) == 0)
		f->read_error_pm = (unsigned)sim_rnd(s, 30);
	if (sim_rnd(s, 2)) {
		f->stall_pm = (unsigned)sim_rnd(s, 200);
		f->stall_max_ns = sim_rnd(s, SIM_SEC);
	}
	return sim_rnd(s, 1u << 12) | sim_rnd(s, 1u << 12);
}

static bool is_served_within(struct sim *s, const struct check_quorum *c, uint64_t ns)
{
	for (uint64_t end = sim_now(s) + ns; sim_now(s) < end;) {
		sim_run_until(s, sim_now(s) + 250 * SIM_MS);
		if (check_quorum_is_served(s, c))
			return true;
	}
	return false;
}

static void run(struct sim *s)
{
	struct qw_world *w = sim_alloc(s, sizeof(*w));
	struct check_quorum *c;
	uint64_t kinds;

	w->nr = members(s);
	w->is_uneven = sim_rnd(s, 4) == 0;
	w->heartbeat_ns = w->is_uneven ? 2 * HEARTBEAT_NS : HEARTBEAT_NS;
	w->fence_wait_ns = 2 * w->heartbeat_ns;
	w->hosts = sim_alloc(s, w->nr * sizeof(*w->hosts));
	w->disk = sim_disk_new(s, "meta", 1 + w->nr, SMALL_SIZE);
	kinds = draw_faults(s);
	if (sim_rnd(s, 4) == 0)
		w->old_block_pm = (unsigned)sim_rnd(s, 30);
	w->longest_io_ns = sim_disk_longest_ns(s);
	format(w);
	c = check_quorum_new(s, w->disk, w->nr);
	for (unsigned i = 0; i < w->nr; i++)
		make_host(s, w, i);
	for (unsigned i = 0; i < w->nr; i++) {
		sim_proc_start(s, w->hosts[i].sp);
		sim_proc_start(s, w->hosts[i].qp);
	}
	sim_call_at(s, sim_now(s) + FIRST_NS, nemesis, w, kinds);
	sim_run_until(s, sim_now(s) + CHAOS_NS);
	sim_faults_stop(s);
	w->is_agent_dead = false;
	/* A hung term ends (one timeout), its host's restart, election, a wait for a lease or an agent. */
	SIM_CHECK(s, is_served_within(s, c, 4 * w->heartbeat_ns + w->fence_wait_ns +
					    w->longest_io_ns + 5 * SIM_SEC),
		  "nobody serves though nothing is wrong any more");
}

const struct sim_machine sim_machine_quorum = { "quorum", 10, run };
