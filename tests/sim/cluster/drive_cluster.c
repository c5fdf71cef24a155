/*
 * The cluster's worlds: up to three hosts that may lead and five mounts.  For a while everything goes wrong
 * that this world was given to go wrong; then nothing does, and everybody must get on within a bound; then
 * everybody stops, and the volume must be right.
 *
 * Who leads is decided here (elections have worlds of their own): a leader that is dead, or does not come up, is
 * followed by another with a greater term, and now and then one that is well is deposed and learns of it
 * late.  An operator fences who the leader gives up: he ends the process, then says so.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cluster.h"
#include "log/forest.h"
#include "server_sim.h"

#define FAULTY_MIN_NS	(2 * SIM_SEC)
#define FAULTY_MAX_NS	(12 * SIM_SEC)
#define BOUND_NS	(90 * SIM_SEC)	/* fences, recovery and a merge's barrier are in it */
#define OPS_AFTER	10u		/* of each mount, when nothing goes wrong any more */
#define MIND_NS		(100 * SIM_MS)

/* --- nodes -------------------------------------------------------------------------------------- */

void cluster_fact(struct node *n, unsigned kind, uint64_t a, uint64_t b, uint64_t c)
{
	if (!n->is_zombie)
		sim_publish(n->sim, &(struct sim_fact){ .kind = kind, .proc = n->proc, .v = { a, b, c } });
}

static void bury(struct node *n)
{
	struct node *before = the_node;

	the_node = n;
	n->bury(n);
	net_sim_bury(n);
	the_node = before;
}

void node_enter(struct node *n)
{
	SIM_CHECK(n->sim, n->depth++ == 0, "a process is entered twice");
	the_node = n;
}

void node_leave(struct node *n)
{
	if (!n->is_zombie)
		n->turn(n);
	n->depth--;
	if (n->is_zombie)
		bury(n);
	the_node = NULL;
}

bool node_acts(struct node *n)
{
	struct cluster *cl = n->cl;

	if (n->is_zombie)
		return false;
	if (sim_is_faulty(n->sim) && cl->crash_one_in && sim_rnd(n->sim, cl->crash_one_in) == 0) {
		sim_trace(n->sim, n->proc, "crashes between two actions");
		sim_proc_restart(n->sim, n->proc, sim_between(n->sim, 100 * SIM_MS, 3 * SIM_SEC));
	}
	return !n->is_zombie;
}

static void poked(struct sim *s, void *arg, uint64_t value)
{
	(void)s, (void)value;
	node_enter(arg);
	node_leave(arg);
}

void node_poke(struct node *n, uint64_t after_ns)
{
	if (!n->is_zombie)
		sim_call_proc(n->sim, n->proc, after_ns, poked, n, 0);
}

static void on_start(struct sim *s, void *arg)
{
	struct node *n = arg;

	(void)s;
	n->is_zombie = false;
	if (n->is_server)
		server_sim_learn(n);
	node_enter(n);
	node_leave(n);
}

static void on_wake(struct sim *s, void *arg)
{
	(void)s;
	node_enter(arg);
	node_leave(arg);
}

static void on_recv(struct sim *s, void *arg, unsigned from, const void *buf, size_t len)
{
	(void)s;
	node_enter(arg);
	net_sim_recv(arg, from, buf, len);
	node_leave(arg);
}

static void on_broken(struct sim *s, void *arg, unsigned peer)
{
	(void)s;
	node_enter(arg);
	net_sim_broken(arg, peer);
	node_leave(arg);
}

static void on_died(struct sim *s, void *arg)
{
	struct node *n = arg;

	(void)s;
	n->is_zombie = true;
	if (!n->depth)
		bury(n);
}

void node_init(struct node *n, struct cluster *cl, const char *name)
{
	static const struct sim_proc_ops ops = { on_start, on_wake, on_recv, on_broken, on_died };

	n->cl = cl;
	n->sim = cl->sim;
	n->is_zombie = true;
	n->proc = sim_proc_new(cl->sim, name, &ops, n);
}

/* --- who leads ---------------------------------------------------------------------------------- */

static void elect(struct cluster *cl)
{
	unsigned i = (unsigned)sim_rnd(cl->sim, cl->servers_nr);

	cl->leader = i;
	cl->term++;
	cl->leader_since_ns = sim_now(cl->sim);
	sim_trace(cl->sim, cl->servers[i].proc, "is elected, term %llu", (unsigned long long)cl->term);
	for (unsigned j = 0; j < cl->servers_nr; j++)
		server_sim_learn(&cl->servers[j]);
}

static void mind_leader(struct cluster *cl)
{
	struct node *n = &cl->servers[cl->leader];

	if (server_sim_is_up(n) && server_sim_term(n) == cl->term && !sim_proc_is_paused(cl->sim, n->proc))
		cl->leader_since_ns = sim_now(cl->sim);
	else if (sim_now(cl->sim) >= cl->leader_since_ns + cl->election_ns)
		elect(cl);
}

/* --- the operator ------------------------------------------------------------------------------- */

static void fence(struct cluster *cl, uint64_t rid)
{
	for (unsigned i = 0; i < cl->mounts_nr; i++) {
		struct node *m = &cl->mounts[i];

		if (sim_proc_is_alive(cl->sim, m->proc) && mount_sim_rid(m) == rid)
			sim_proc_restart(cl->sim, m->proc,
					 sim_between(cl->sim, 100 * SIM_MS, 2 * SIM_SEC));
		if (mount_sim_rid(m) == rid)
			mount_sim_forget(m);
	}
	if (vol_is_revoked(cl->vol, rid))
		return;
	vol_revoke(cl->vol, rid);
	sim_publish(cl->sim, &(struct sim_fact){ .kind = FACT_FENCED, .proc = SIM_PROCS_MAX,
						 .v = { rid } });
}

static void mind_fences(struct cluster *cl)
{
	struct node *n = &cl->servers[cl->leader];
	uint64_t rid = server_sim_fence_wanted(n);

	if (!rid || sim_chance(cl->sim, 700))
		return;
	sim_trace(cl->sim, SIM_PROCS_MAX, "the operator fences mount %llx", (unsigned long long)rid);
	fence(cl, rid);
	server_sim_fence_ack(n, rid);
}

static void mind(struct sim *s, void *arg, uint64_t value)
{
	struct cluster *cl = arg;

	(void)value;
	mind_leader(cl);
	mind_fences(cl);
	sim_call_at(s, sim_now(s) + MIND_NS, mind, cl, 0);
}

/* --- what goes wrong ---------------------------------------------------------------------------- */

static struct node *any_node(struct cluster *cl)
{
	unsigned i = (unsigned)sim_rnd(cl->sim, cl->servers_nr + cl->mounts_nr);

	return i < cl->servers_nr ? &cl->servers[i] : &cl->mounts[i - cl->servers_nr];
}

static void mend(struct sim *s, void *arg, uint64_t value)
{
	(void)arg;
	sim_net_cut(s, (unsigned)(value >> 32), (unsigned)value, false);
}

static void power_cut(struct cluster *cl)
{
	struct sim *s = cl->sim;

	sim_trace(s, SIM_PROCS_MAX, "power is lost");
	for (unsigned i = 0; i < cl->servers_nr; i++)
		sim_proc_restart(s, cl->servers[i].proc, sim_between(s, 0, SIM_SEC));
	for (unsigned i = 0; i < cl->mounts_nr; i++) {
		sim_proc_restart(s, cl->mounts[i].proc, sim_between(s, 0, SIM_SEC));
		mount_sim_forget(&cl->mounts[i]);
	}
	vol_power_cut(cl->vol);
}

enum fault { FAULT_KILL_MOUNT, FAULT_RESTART_MOUNT, FAULT_KILL_SERVER, FAULT_PAUSE, FAULT_CUT, FAULT_BREAK, FAULT_DEPOSE,
	     FAULT_POWER, FAULT_LEAVE, FAULTS_NR };

static void go_wrong(struct cluster *cl, enum fault f)
{
	struct sim *s = cl->sim;
	struct node *m = &cl->mounts[sim_rnd(s, cl->mounts_nr)];
	struct node *l = &cl->servers[sim_rnd(s, cl->servers_nr)];
	unsigned from = m->proc, to = l->proc;

	switch (f) {
	case FAULT_KILL_MOUNT:
		sim_proc_restart(s, m->proc, sim_between(s, 50 * SIM_MS, 3 * SIM_SEC));
		break;
	case FAULT_RESTART_MOUNT:
		sim_proc_restart(s, m->proc, sim_between(s, SIM_MS, 300 * SIM_MS));
		break;
	case FAULT_KILL_SERVER:
		sim_proc_restart(s, l->proc, sim_between(s, 50 * SIM_MS, 3 * SIM_SEC));
		break;
	case FAULT_PAUSE:
		sim_proc_pause(s, any_node(cl)->proc, sim_between(s, 10 * SIM_MS, 6 * SIM_SEC));
		break;
	case FAULT_CUT:
		if (sim_chance(s, 500)) {
			from = l->proc;
			to = m->proc;
		}
		sim_net_cut(s, from, to, true);
		sim_call_at(s, sim_now(s) + sim_between(s, 100 * SIM_MS, 8 * SIM_SEC), mend, cl,
			    (uint64_t)from << 32 | to);
		break;
	case FAULT_BREAK:
		sim_net_break(s, from, to);
		break;
	case FAULT_DEPOSE:
		elect(cl);
		break;
	case FAULT_POWER:
		power_cut(cl);
		break;
	case FAULT_LEAVE:
		mount_sim_leave(m);
		break;
	case FAULTS_NR:
		break;
	}
}

static void nemesis(struct sim *s, void *arg, uint64_t value)
{
	struct cluster *cl = arg;
	unsigned f = (unsigned)sim_rnd(s, FAULTS_NR);

	(void)value;
	if (!sim_is_faulty(s) || !cl->faults)
		return;
	while (!(cl->faults >> f & 1))
		f = (f + 1) % FAULTS_NR;
	if (f != FAULT_POWER || sim_chance(s, 200))
		go_wrong(cl, f);
	sim_call_at(s, sim_now(s) + sim_between(s, 50 * SIM_MS, cl->calm_ns), nemesis, cl, 0);
}

/* --- the end ------------------------------------------------------------------------------------ */

static bool all_go_on(struct cluster *cl, const uint64_t *done)
{
	bool all = server_sim_is_recovered(&cl->servers[cl->leader]);

	for (unsigned i = 0; i < cl->mounts_nr; i++)
		all = all && mount_sim_is_running(&cl->mounts[i]) &&
		      mount_sim_done(&cl->mounts[i]) >= done[i] + OPS_AFTER;
	return all;
}

static bool all_idle(struct cluster *cl)
{
	bool all = check_locks_all_answered(cl);

	for (unsigned i = 0; i < cl->mounts_nr; i++)
		all = all && mount_sim_is_idle(&cl->mounts[i]);
	return all;
}

static void wait_for(struct cluster *cl, bool (*cond)(struct cluster *cl, const uint64_t *arg),
		     const uint64_t *arg, const char *what)
{
	uint64_t end = sim_now(cl->sim) + BOUND_NS;

	while (!cond(cl, arg)) {
		SIM_CHECK(cl->sim, sim_now(cl->sim) < end, "%s, though nothing went wrong for %u s", what,
			  (unsigned)(BOUND_NS / SIM_SEC));
		sim_run_until(cl->sim, sim_now(cl->sim) + 500 * SIM_MS);
	}
}

static bool cond_idle(struct cluster *cl, const uint64_t *arg)
{
	(void)arg;
	return all_idle(cl);
}

/* What is on the volume is what was written last. */
static void check_contents(struct cluster *cl)
{
	struct block_dev dev = vol_checkers_dev(cl->vol);
	struct forest_roots roots;
	struct block_set *bs;

	forest_roots_of_super(vol_super(cl->vol), &roots);
	SIM_CHECK(cl->sim, block_set_open(&bs, &dev, CLUSTER_FSID, CLUSTER_META_BLOCKS, 64) == 0,
		  "no memory");
	for (uint64_t i = 0; i < cl->groups_nr * CLUSTER_ITEMS; i++) {
		struct key key = cluster_item_key(i);
		uint8_t val[ITEM_VAL_MAX];
		uint64_t value = 0;
		struct item it;
		int ret = forest_lookup(bs, &roots, &key, &it, val);

		SIM_CHECK(cl->sim, ret == 0 || ret == -ENOENT, "item %llu cannot be read: %d",
			  (unsigned long long)i, ret);
		if (ret == 0)
			memcpy(&value, val, sizeof(value));
		check_items_final(cl, i, value);
	}
	block_set_close(bs);
}

static void run_down(struct cluster *cl)
{
	uint64_t done[SIM_MOUNTS_MAX];

	sim_faults_stop(cl->sim);
	for (unsigned i = 0; i < cl->mounts_nr; i++)
		done[i] = mount_sim_done(&cl->mounts[i]);
	wait_for(cl, all_go_on, done, "not everybody gets on");
	cl->is_ending = true;
	wait_for(cl, cond_idle, NULL, "not everybody comes to an end");
	check_contents(cl);
	vol_check(cl->vol);
	for (unsigned i = 0; i < cl->mounts_nr; i++)
		sim_proc_kill(cl->sim, cl->mounts[i].proc);
	for (unsigned i = 0; i < cl->servers_nr; i++)
		sim_proc_kill(cl->sim, cl->servers[i].proc);
}

/* --- the beginning ------------------------------------------------------------------------------ */

static void draw_world(struct cluster *cl)
{
	struct sim *s = cl->sim;
	struct sim_faults *f = sim_faults(s);

	cl->servers_nr = 1 + (unsigned)sim_rnd(s, SIM_SERVERS_MAX);
	cl->mounts_nr = 1 + (unsigned)sim_rnd(s, SIM_MOUNTS_MAX);
	cl->groups_nr = 1 + (unsigned)sim_rnd(s, CLUSTER_GROUPS_MAX);
	cl->keepalive_ms = (uint32_t)sim_between(s, 800, 3000);
	cl->client_timeout_ms = (uint32_t)sim_between(s, 1000, 5000);
	cl->recovery_timeout_ms = (uint32_t)sim_between(s, 2000, 6000);
	cl->election_ns = sim_between(s, 300 * SIM_MS, 3 * SIM_SEC);
	cl->merge_wait_ms = (uint32_t)sim_between(s, 100, 1000);
	cl->merge_min_height = sim_chance(s, 500) ? 1 : 3;
	cl->merge_min_trees = 2 + (uint32_t)sim_rnd(s, 7);
	cl->idle_locks = sim_chance(s, 500) ? 10000 : 1 + sim_rnd(s, 4);
	cl->calm_ns = sim_between(s, 200 * SIM_MS, 2 * SIM_SEC);
	/* Each fault is in half of the worlds; one world in eight is without any. */
	cl->faults = (unsigned)sim_rnd(s, 1u << FAULTS_NR);
	if (sim_chance(s, 125)) {
		cl->faults = 0;
	} else {
		cl->crash_one_in = sim_chance(s, 500) ? sim_between(s, 300, 10000) : 0;
		cl->frame_loss_pm = sim_chance(s, 300) ? (unsigned)sim_rnd(s, 20) : 0;
		cl->frame_dup_pm = sim_chance(s, 300) ? (unsigned)sim_rnd(s, 20) : 0;
		cl->send_full_pm = sim_chance(s, 300) ? (unsigned)sim_rnd(s, 20) : 0;
	}
	if (cl->faults >> FAULT_RESTART_MOUNT & 1)
		cl->resume_pm = (unsigned)sim_between(s, 500, 1000);
	f->delay_min_ns = 20 * SIM_US;
	f->delay_max_ns = sim_between(s, 50 * SIM_US, 20 * SIM_MS);
}

static void run(struct sim *s)
{
	struct cluster *cl = sim_alloc(s, sizeof(*cl));

	the_node = NULL;
	cl->sim = s;
	draw_world(cl);
	cl->vol = vol_new(s);
	check_locks_watch(cl);
	check_items_watch(cl);
	for (unsigned i = 0; i < cl->servers_nr; i++)
		server_sim_init(cl, i);
	for (unsigned i = 0; i < cl->mounts_nr; i++)
		mount_sim_init(cl, i);
	elect(cl);
	for (unsigned i = 0; i < cl->servers_nr; i++)
		sim_proc_start(s, cl->servers[i].proc);
	for (unsigned i = 0; i < cl->mounts_nr; i++)
		sim_proc_start(s, cl->mounts[i].proc);
	mind(s, cl, 0);
	sim_call_at(s, sim_now(s) + cl->calm_ns, nemesis, cl, 0);
	sim_run_until(s, sim_now(s) + sim_between(s, FAULTY_MIN_NS, FAULTY_MAX_NS));
	run_down(cl);
}

const struct sim_machine sim_machine_cluster = { .name = "cluster", .share = 1, .run = run };
