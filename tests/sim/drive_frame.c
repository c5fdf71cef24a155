/*
 * The frame itself, simulated: what every driver relies on.
 *
 * A few processes number what they send to each other on connections and as datagrams, write blocks
 * to a device that name their writer, die, pause, lose power.  A connection must keep its order and lose
 * nothing but at a break that both ends hear of; a dead or paused process must do nothing; a block is
 * always whole but after a loss of power, and then torn only between sectors; a write that was
 * answered has landed.
 */
#include "machines.h"

#include <stdio.h>
#include <string.h>

#define NODES		4u
#define BLOCK		4096u
#define RUN_NS		(8 * SIM_SEC)
#define SAY_NS		(50 * SIM_MS)
#define BOUND_NS	(3 * SIM_SEC)

struct said {
	bool is_stream;
	uint64_t session;	/* changes with each break that the sender has heard of, and each life */
	uint64_t number;
};

struct node {
	struct world *w;
	unsigned proc;
	char name[16];
	uint64_t session[NODES], next[NODES];
	uint64_t heard_session[NODES], heard[NODES];
	uint64_t last_ns;
	uint64_t wrote, landed;		/* numbers of its blocks */
	bool is_writing;
	unsigned received;
};

struct world {
	struct sim_disk *disk;
	struct node nodes[NODES];
	bool is_power_lost;
	uint64_t sessions;
};

static struct node *node_of(struct world *w, unsigned proc)
{
	return &w->nodes[proc];
}

static void must_run(struct sim *s, const struct node *n)
{
	SIM_CHECK(s, sim_proc_is_alive(s, n->proc), "%s runs though it is dead", n->name);
	SIM_CHECK(s, !sim_proc_is_paused(s, n->proc), "%s runs in a pause", n->name);
}

static void wrote(struct sim *s, void *arg, uint64_t value)
{
	struct node *n = arg;
	uint64_t on_disk;

	must_run(s, n);
	n->is_writing = false;
	memcpy(&on_disk, sim_disk_block(n->w->disk, n->proc), sizeof(on_disk));
	SIM_CHECK(s, value || on_disk == n->wrote, "%s: a write was answered and is not there",
		  n->name);
}

static void say_all(struct sim *s, struct node *n)
{
	for (unsigned to = 0; to < NODES; to++) {
		struct said m = { false, 0, 0 };

		if (to == n->proc)
			continue;
		sim_net_send(s, n->proc, to, &m, sizeof(m));
		m = (struct said){ true, n->session[to], n->next[to]++ };
		sim_net_stream(s, n->proc, to, &m, sizeof(m));
		if (sim_crash_point(s, n->proc))
			return;
	}
	if (!n->is_writing) {
		uint64_t block[BLOCK / 8];

		n->wrote++;
		for (size_t i = 0; i < BLOCK / 8; i++)
			block[i] = n->wrote;
		n->is_writing = true;
		sim_disk_write(s, n->w->disk, n->proc, n->proc, block, wrote, n);
	}
	sim_timer_set(s, n->proc, sim_clock(s, n->proc) + SAY_NS);
}

static void node_start(struct sim *s, void *arg)
{
	struct node *n = arg;

	for (unsigned i = 0; i < NODES; i++) {
		n->session[i] = ++n->w->sessions;
		n->next[i] = n->heard_session[i] = n->heard[i] = 0;
	}
	/* A write of an earlier life that landed late would cover ours. */
	sim_disk_drain(s, n->w->disk, n->proc);
	n->is_writing = false;
	n->last_ns = sim_clock(s, n->proc);
	sim_timer_set(s, n->proc, n->last_ns + SAY_NS);
}

static void node_wake(struct sim *s, void *arg)
{
	struct node *n = arg;
	uint64_t now = sim_clock(s, n->proc);

	must_run(s, n);
	SIM_CHECK(s, now >= n->last_ns + SAY_NS, "%s is woken too early", n->name);
	n->last_ns = now;
	say_all(s, n);
}

static void node_recv(struct sim *s, void *arg, unsigned from, const void *buf, size_t len)
{
	struct node *n = arg;
	struct said m;

	must_run(s, n);
	SIM_CHECK(s, len == sizeof(m), "a message has changed its length");
	memcpy(&m, buf, len);
	n->received++;
	if (!m.is_stream)
		return;
	SIM_CHECK(s, m.session >= n->heard_session[from],
		  "%s hears an old connection with %u", n->name, from);
	if (m.session != n->heard_session[from]) {
		n->heard_session[from] = m.session;
		n->heard[from] = m.number;
		SIM_CHECK(s, m.number == 0, "%s: a connection begins with message %llu", n->name,
			  (unsigned long long)m.number);
		return;
	}
	n->heard[from]++;
	SIM_CHECK(s, m.number == n->heard[from],
		  "%s hears message %llu of %u after %llu", n->name, (unsigned long long)m.number, from,
		  (unsigned long long)n->heard[from] - 1);
}

static void node_broken(struct sim *s, void *arg, unsigned peer)
{
	struct node *n = arg;

	must_run(s, n);
	n->session[peer] = ++n->w->sessions;
	n->next[peer] = 0;
}

static const struct sim_proc_ops node_ops = {
	.start = node_start,
	.wake = node_wake,
	.recv = node_recv,
	.broken = node_broken,
};

/* What lands must be whole, unless power was lost in this moment. */
static void check(struct sim *s, void *arg, const struct sim_fact *f)
{
	struct world *w = arg;
	uint64_t block[BLOCK / 8];

	if (f->kind != SIM_FACT_LANDED)
		return;
	memcpy(block, f->buf, BLOCK);
	for (size_t i = 1; i < BLOCK / 8; i++) {
		if (block[i] == block[i - 1])
			continue;
		SIM_CHECK(s, w->is_power_lost, "a block is torn though nothing happened");
		SIM_CHECK(s, i % (512 / 8) == 0, "a block is torn within a sector");
	}
}

static void nemesis(struct sim *s, void *arg, uint64_t value)
{
	struct world *w = arg;
	struct node *n = node_of(w, (unsigned)sim_rnd(s, NODES));
	unsigned other = (unsigned)sim_rnd(s, NODES);

	(void)value;
	if (!sim_is_faulty(s))
		return;
	switch (sim_rnd(s, 6)) {
	case 0:
		sim_proc_restart(s, n->proc, sim_rnd(s, SIM_SEC));
		break;
	case 1:
		w->is_power_lost = true;
		sim_disk_drop(s, w->disk, n->proc);
		w->is_power_lost = false;
		sim_proc_restart(s, n->proc, sim_rnd(s, SIM_SEC));
		break;
	case 2:
		sim_proc_pause(s, n->proc, sim_rnd(s, SIM_SEC));
		break;
	case 3:
		if (other != n->proc)
			sim_net_cut(s, n->proc, other, sim_rnd(s, 2));
		break;
	case 4:
		if (other != n->proc)
			sim_net_break(s, n->proc, other);
		break;
	default:
		sim_disk_stall(s, n->proc, sim_rnd(s, SIM_SEC));
		break;
	}
	sim_call_at(s, sim_now(s) + sim_rnd(s, SIM_SEC), nemesis, w, 0);
}

static void run(struct sim *s)
{
	struct world *w = sim_alloc(s, sizeof(*w));
	struct sim_faults *f = sim_faults(s);

	f->loss_pm = (unsigned)sim_rnd(s, 300);
	f->dup_pm = (unsigned)sim_rnd(s, 300);
	f->delay_max_ns = sim_rnd(s, 200 * SIM_MS);
	f->crash_pm = (unsigned)sim_rnd(s, 5);
	f->write_error_pm = (unsigned)sim_rnd(s, 50);
	w->disk = sim_disk_new(s, "disk", NODES, BLOCK);
	sim_watch(s, check, w);
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = &w->nodes[i];

		n->w = w;
		snprintf(n->name, sizeof(n->name), "node%u", i);
		n->proc = sim_proc_new(s, n->name, &node_ops, n);
		sim_clock_set_drift(s, n->proc, (int)sim_rnd(s, 401) - 200);
		sim_proc_start(s, n->proc);
	}
	sim_call_at(s, sim_now(s) + SIM_SEC, nemesis, w, 0);
	sim_run_until(s, sim_now(s) + RUN_NS);
	sim_faults_stop(s);
	sim_run_until(s, sim_now(s) + BOUND_NS);
	for (unsigned i = 0; i < NODES; i++)
		w->nodes[i].received = 0;
	sim_run_until(s, sim_now(s) + BOUND_NS);
	for (unsigned i = 0; i < NODES; i++) {
		SIM_CHECK(s, sim_proc_is_alive(s, i), "node%u has not come back", i);
		SIM_CHECK(s, w->nodes[i].received > 2 * (NODES - 1) * (BOUND_NS / SAY_NS) * 9 / 10,
			  "node%u hears only %u messages though nothing is wrong", i,
			  w->nodes[i].received);
	}
}

const struct sim_machine sim_machine_frame = { "frame", 1, run };
