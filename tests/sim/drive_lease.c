/*
 * Leases of mounts under fire: what a mount that was given up had is given away only when nothing of that
 * mount can reach the device any more, whatever its clock, its network and its leaders did.
 *
 * The real machines: holder (fsd), guard (blockd), granter (serverd).  Around them: mounts that write their
 * block of the device all the time, whoever allows it; leaders that come and go, whose own right to write is
 * renewed for a while by somebody who is always right (elections have a machine of their own); an agent
 * that cuts the power of a host whose lease nobody knows.
 */
#include "lease_world.h"
#include "machines.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WRITE_NS	(40 * SIM_MS)
#define PING_NS		(400 * SIM_MS)
#define SILENT_NS	(2 * SIM_SEC)	/* then a connection is given up */
#define GREET_NS	(300 * SIM_MS)
#define RIGHT_NS	(3 * SIM_SEC)	/* of a leader, renewed all the time */
#define RENEW_NS	(200 * SIM_MS)
#define CHAOS_NS	(50 * SIM_SEC)
#define DRIFT_PPM	9000		/* two clocks: below 2 % */
#define LEADERS		2u
#define MOUNTS_MAX	4u
#define RIDS_MAX	64u
#define NOBODY		UINT64_MAX

enum lw_kind { LW_GREET, LW_GREETED, LW_REFUSED, LW_PING, LW_ASK, LW_GRANTED, LW_FAILED };

struct lw_msg {
	enum lw_kind kind;
	uint64_t rid, id, term, lease_ns;
};

/* A mount as its leader sees it. */
struct lw_client {
	uint64_t rid;
	bool is_connected, is_given_up, is_asked_agent;
	uint64_t heard_ns;
	struct lease_granter g;
};

struct lw_leader {
	struct lw_world *w;
	char name[16];
	unsigned proc;
	uint64_t term;			/* 0: leads nothing */
	uint64_t right_ns;		/* its own right, by its clock */
	uint64_t lease_ns;		/* what it gives */
	uint64_t timeout_ns;		/* how long it waits for a mount that is away */
	struct lw_client clients[RIDS_MAX];
	unsigned nr;
};

struct lw_mount {
	struct lw_world *w;
	unsigned index;
	char name[16];
	unsigned proc;
	/* Until its host loses power. */
	uint64_t rid;
	uint64_t seen_term;
	struct lease_guard guard;
	/* The process. */
	struct lease_holder h;
	unsigned leader;		/* it talks to */
	bool is_greeted;
	uint64_t written;
	uint64_t heard_ns, next_write_ns, next_ping_ns, next_greet_ns;
};

struct lw_world {
	struct sim_disk *disk;
	uint64_t longest_io_ns;
	uint64_t term;
	uint64_t leader;		/* index, NOBODY */
	bool is_renewing;
	uint64_t right_over_ns;		/* when the last leader's right is over, true time */
	struct lw_leader leaders[LEADERS];
	struct lw_mount mounts[MOUNTS_MAX];
	unsigned mounts_nr;
	/* The volume: who is mounted. */
	struct {
		uint64_t rid;
		unsigned mount;
	} mounted[RIDS_MAX];
	unsigned mounted_nr;
	uint64_t rids;
};

/* --- mounts ------------------------------------------------------------------------------------ */

static void mount_loop(struct sim *s, struct lw_mount *m);

static uint64_t mount_clock(const struct sim *s, const struct lw_mount *m)
{
	return sim_clock(s, m->proc);
}

static void mount_say(struct sim *s, struct lw_mount *m, enum lw_kind kind, uint64_t id)
{
	struct lw_msg msg = { .kind = kind, .rid = m->rid, .id = id, .term = m->seen_term };

	sim_net_stream(s, m->proc, m->w->leaders[m->leader].proc, &msg, sizeof(msg));
}

/* The host begins again: a new mount. */
static void mount_new_instance(struct lw_mount *m)
{
	m->rid = ++m->w->rids;
	m->seen_term = 0;
	memset(&m->guard, 0, sizeof(m->guard));
}

static void mount_step(struct sim *s, struct lw_mount *m, const struct lease_hold_in *in)
{
	uint64_t now = mount_clock(s, m), life = sim_proc_life(s, m->proc);
	struct lease_hold_acts acts;

	lease_holder_step(&m->h, in, now, &acts);
	lease_holder_check(&m->h);
	for (size_t i = 0; i < acts.nr; i++) {
		const struct lease_hold_act *a = &acts.v[i];

		if (sim_crash_point(s, m->proc) || sim_proc_life(s, m->proc) != life)
			return;
		switch (a->kind) {
		case LEASE_HOLD_ASK:
			mount_say(s, m, LW_ASK, a->id);
			break;
		case LEASE_HOLD_USE:
			lease_guard_set(&m->guard, LW_KIND_MOUNT, m->rid, a->term, a->until_ns, now);
			break;
		case LEASE_HOLD_LOSE:
			sim_trace(s, m->proc, "has lost its lease");
			break;
		case LEASE_HOLD_RESUME:
			sim_trace(s, m->proc, "has a lease");
			break;
		case LEASE_HOLD_END:
			sim_trace(s, m->proc, "rid %llu was given up", (unsigned long long)m->rid);
			mount_new_instance(m);
			sim_proc_restart(s, m->proc, SIM_SEC);
			return;
		}
	}
}

static void mount_disconnected(struct sim *s, struct lw_mount *m)
{
	m->is_greeted = false;
	/* As the volume says, which may be old; and serverd may have moved. */
	if (m->w->leader != NOBODY && sim_rnd(s, 10))
		m->leader = (unsigned)m->w->leader;
	else
		m->leader = (unsigned)sim_rnd(s, LEADERS);
	m->next_greet_ns = mount_clock(s, m) + GREET_NS;
}

static void mount_write(struct sim *s, struct lw_mount *m)
{
	uint8_t block[SMALL_SIZE] = { 0 };
	uint64_t until;

	m->next_write_ns = mount_clock(s, m) + WRITE_NS;
	/* What it caches it shows only while it may. */
	if (lease_holder_may(&m->h, mount_clock(s, m)))
		sim_publish(s, &(struct sim_fact){ .kind = LW_FACT_SHOWN, .proc = m->proc,
						   .v = { m->rid } });
	/* Whether it may write is blockd's to say. */
	if (lease_guard_check(&m->guard, LW_KIND_MOUNT, m->rid, 0, false, mount_clock(s, m), &until))
		return;
	memcpy(block, &(struct lw_block){ m->rid, ++m->written }, sizeof(struct lw_block));
	sim_disk_write(s, m->w->disk, m->proc, m->index, block, NULL, NULL);
}

static void mount_loop(struct sim *s, struct lw_mount *m)
{
	uint64_t now = mount_clock(s, m), life = sim_proc_life(s, m->proc), t;

	if (m->is_greeted && now >= m->heard_ns + SILENT_NS) {
		sim_net_break(s, m->proc, m->w->leaders[m->leader].proc);
		mount_disconnected(s, m);
	}
	mount_step(s, m, &(struct lease_hold_in){ .kind = LEASE_HOLD_TICK });
	if (!sim_proc_is_alive(s, m->proc) || sim_proc_life(s, m->proc) != life)
		return;
	if (now >= m->next_write_ns)
		mount_write(s, m);
	if (m->is_greeted && now >= m->next_ping_ns) {
		m->next_ping_ns = now + PING_NS;
		mount_say(s, m, LW_PING, 0);
	}
	if (!m->is_greeted && now >= m->next_greet_ns) {
		mount_disconnected(s, m);
		mount_say(s, m, LW_GREET, 0);
	}
	t = m->next_write_ns;
	if (lease_holder_deadline(&m->h) < t)
		t = lease_holder_deadline(&m->h);
	sim_timer_set(s, m->proc, t);
}

static void mount_start(struct sim *s, void *arg)
{
	struct lw_mount *m = arg;

	sim_trace(s, m->proc, "is rid %llu", (unsigned long long)m->rid);
	/* blockd takes no connection of a writer whose last one has I/O under way. */
	sim_disk_drain(s, m->w->disk, m->proc);
	lease_holder_init(&m->h);
	m->next_write_ns = m->next_ping_ns = mount_clock(s, m);
	mount_disconnected(s, m);
	mount_loop(s, m);
}

static void mount_wake(struct sim *s, void *arg)
{
	mount_loop(s, arg);
}

static void mount_recv(struct sim *s, void *arg, unsigned from, const void *buf, size_t len)
{
	struct lw_mount *m = arg;
	struct lw_msg msg;

	memcpy(&msg, buf, len);
	if (msg.rid != m->rid || from != m->w->leaders[m->leader].proc)
		return;
	m->heard_ns = mount_clock(s, m);
	switch (msg.kind) {
	case LW_GREETED:
		m->is_greeted = true;
		m->seen_term = msg.term;
		/* The session sends again what was not answered. */
		if (m->h.is_asked)
			mount_say(s, m, LW_ASK, m->h.ask_id);
		mount_step(s, m, &(struct lease_hold_in){ LEASE_HOLD_GREETED, 0, msg.term, 0 });
		break;
	case LW_REFUSED:
		mount_step(s, m, &(struct lease_hold_in){ .kind = LEASE_HOLD_FENCED });
		break;
	case LW_GRANTED:
		mount_step(s, m, &(struct lease_hold_in){ LEASE_HOLD_GRANTED, msg.id, msg.term,
							  msg.lease_ns });
		break;
	case LW_FAILED:
		mount_step(s, m, &(struct lease_hold_in){ LEASE_HOLD_FAILED, msg.id, 0, 0 });
		break;
	case LW_GREET:
	case LW_PING:
	case LW_ASK:
		break;
	}
	if (sim_proc_is_alive(s, m->proc))
		mount_loop(s, m);
}

static void mount_broken(struct sim *s, void *arg, unsigned peer)
{
	struct lw_mount *m = arg;

	if (peer == m->w->leaders[m->leader].proc)
		mount_disconnected(s, m);
}

static const struct sim_proc_ops mount_ops = {
	.start = mount_start,
	.wake = mount_wake,
	.recv = mount_recv,
	.broken = mount_broken,
};

static void mount_power_off(struct sim *s, struct lw_mount *m, uint64_t for_ns)
{
	sim_trace(s, m->proc, "host loses power");
	sim_disk_drop(s, m->w->disk, m->proc);
	mount_new_instance(m);
	sim_proc_restart(s, m->proc, for_ns);
}

/* --- leaders ----------------------------------------------------------------------------------- */

static uint64_t leader_clock(const struct sim *s, const struct lw_leader *l)
{
	return sim_clock(s, l->proc);
}

static bool has_right(const struct sim *s, const struct lw_leader *l)
{
	return l->term && leader_clock(s, l) < l->right_ns;
}

static int mounted_find(const struct lw_world *w, uint64_t rid)
{
	for (unsigned i = 0; i < w->mounted_nr; i++) {
		if (w->mounted[i].rid == rid)
			return (int)i;
	}
	return -1;
}

static struct lw_client *client_find(struct lw_leader *l, uint64_t rid)
{
	for (unsigned i = 0; i < l->nr; i++) {
		if (l->clients[i].rid == rid)
			return &l->clients[i];
	}
	return NULL;
}

static struct lw_client *client_add(struct sim *s, struct lw_leader *l, uint64_t rid)
{
	struct lw_client *c = &l->clients[l->nr];

	SIM_CHECK(s, l->nr < RIDS_MAX, "more rids than the world has room for");
	l->nr++;
	*c = (struct lw_client){ .rid = rid, .heard_ns = leader_clock(s, l) };
	return c;
}

static void leader_say(struct sim *s, struct lw_leader *l, unsigned to, enum lw_kind kind,
		       const struct lw_msg *of)
{
	struct lw_msg msg = { kind, of->rid, of->id, l->term, l->lease_ns };

	sim_net_stream(s, l->proc, to, &msg, sizeof(msg));
}

static void greet(struct sim *s, struct lw_leader *l, unsigned from, const struct lw_msg *m)
{
	struct lw_client *c = client_find(l, m->rid);

	/* A new mount is written down before it is told so; that needs the right to write. */
	if (!c && m->term == 0 && mounted_find(l->w, m->rid) < 0) {
		if (!has_right(s, l))
			return;
		SIM_CHECK(s, l->w->mounted_nr < RIDS_MAX, "too many mounts");
		l->w->mounted[l->w->mounted_nr].rid = m->rid;
		l->w->mounted[l->w->mounted_nr++].mount = from - LEADERS;
		c = client_add(s, l, m->rid);
		sim_publish(s, &(struct sim_fact){ .kind = LW_FACT_MOUNTED, .proc = l->proc,
						   .v = { m->rid } });
	}
	if (!c || c->is_given_up) {
		/* Who leads no more does not know who is mounted. */
		if (has_right(s, l))
			leader_say(s, l, from, LW_REFUSED, m);
		return;
	}
	c->is_connected = true;
	c->heard_ns = leader_clock(s, l);
	lease_granter_greeted(&c->g, leader_clock(s, l));
	leader_say(s, l, from, LW_GREETED, m);
}

static void leader_recv(struct sim *s, void *arg, unsigned from, const void *buf, size_t len)
{
	struct lw_leader *l = arg;
	struct lw_client *c;
	struct lw_msg m;
	int ret;

	memcpy(&m, buf, len);
	if (!l->term)
		return;
	if (m.kind == LW_GREET) {
		greet(s, l, from, &m);
		return;
	}
	c = client_find(l, m.rid);
	if (!c || !c->is_connected || c->is_given_up)
		return;
	c->heard_ns = leader_clock(s, l);
	if (m.kind == LW_PING) {
		leader_say(s, l, from, LW_PING, &m);
	} else if (m.kind == LW_ASK) {
		ret = lease_granter_grant(&c->g, l->lease_ns, l->right_ns, leader_clock(s, l));
		leader_say(s, l, from, ret == 0 ? LW_GRANTED : LW_FAILED, &m);
	}
}

static void leader_broken(struct sim *s, void *arg, unsigned peer)
{
	struct lw_leader *l = arg;

	/* The newest instance of that mount's host. */
	for (unsigned i = 0; i < l->nr; i++) {
		int k = mounted_find(l->w, l->clients[i].rid);

		if (k >= 0 && l->w->mounted[k].mount == peer - LEADERS && l->clients[i].is_connected) {
			l->clients[i].is_connected = false;
			l->clients[i].heard_ns = leader_clock(s, l);
		}
	}
}

struct agent_ask {
	struct lw_world *w;
	unsigned leader;
	uint64_t term, rid;
};

static void reuse(struct sim *s, struct lw_leader *l, uint64_t rid)
{
	struct lw_world *w = l->w;
	int i = mounted_find(w, rid);

	/* In a commit of the leader's: without its right there is none. */
	if (i < 0 || !has_right(s, l))
		return;
	sim_trace(s, l->proc, "gives away what rid %llu had", (unsigned long long)rid);
	w->mounted[i] = w->mounted[--w->mounted_nr];
	sim_publish(s, &(struct sim_fact){ .kind = LW_FACT_REUSED, .proc = l->proc, .v = { rid } });
}

static void agent_acts(struct sim *s, void *arg, uint64_t value)
{
	struct agent_ask *a = arg;
	struct lw_world *w = a->w;
	struct lw_leader *l = &w->leaders[a->leader];
	int i = mounted_find(w, a->rid);
	struct lw_mount *m;

	(void)value;
	if (i < 0)
		return;
	/* A mount that is over is gone when what it had under way is. */
	m = &w->mounts[w->mounted[i].mount];
	if (m->rid == a->rid) {
		mount_power_off(s, m, SIM_SEC);
	} else if (sim_disk_is_busy(w->disk, m->proc)) {
		sim_call_at(s, sim_now(s) + 10 * SIM_MS, agent_acts, a, 0);
		return;
	}
	if (sim_proc_is_alive(s, l->proc) && l->term == a->term)
		reuse(s, l, a->rid);
}

static void give_up(struct sim *s, struct lw_leader *l, struct lw_client *c)
{
	struct agent_ask *a;

	if (!c->is_given_up) {
		sim_trace(s, l->proc, "gives rid %llu up", (unsigned long long)c->rid);
		c->is_given_up = true;
		lease_granter_close(&c->g);
	}
	if (lease_granter_over_ns(&c->g, l->w->longest_io_ns) != LEASE_NEVER) {
		if (leader_clock(s, l) >= lease_granter_over_ns(&c->g, l->w->longest_io_ns))
			reuse(s, l, c->rid);
		return;
	}
	if (c->is_asked_agent)
		return;
	c->is_asked_agent = true;
	a = sim_alloc(s, sizeof(*a));
	*a = (struct agent_ask){ l->w, (unsigned)(l - l->w->leaders), l->term, c->rid };
	sim_call_at(s, sim_now(s) + sim_between(s, 100 * SIM_MS, 3 * SIM_SEC), agent_acts, a, 0);
}

static void leader_wake(struct sim *s, void *arg)
{
	struct lw_leader *l = arg;
	uint64_t now = leader_clock(s, l);

	/* Its quorumd has it stop. */
	if (l->term && !has_right(s, l)) {
		sim_trace(s, l->proc, "leads no more");
		l->term = 0;
		for (unsigned i = 0; i < l->w->mounts_nr; i++)
			sim_net_break(s, l->proc, l->w->mounts[i].proc);
	}
	for (unsigned i = 0; l->term && i < l->nr; i++) {
		struct lw_client *c = &l->clients[i];

		if (c->is_connected && now >= c->heard_ns + SILENT_NS)
			c->is_connected = false;
		if (mounted_find(l->w, c->rid) >= 0 &&
		    (c->is_given_up || (!c->is_connected && now >= c->heard_ns + l->timeout_ns)))
			give_up(s, l, c);
	}
	sim_timer_set(s, l->proc, now + 50 * SIM_MS);
}

static void leader_start(struct sim *s, void *arg)
{
	struct lw_leader *l = arg;

	l->term = 0;
	sim_timer_set(s, l->proc, leader_clock(s, l) + 50 * SIM_MS);
}

static void leader_died(struct sim *s, void *arg);

static const struct sim_proc_ops leader_ops = {
	.start = leader_start,
	.wake = leader_wake,
	.recv = leader_recv,
	.broken = leader_broken,
	.died = leader_died,
};

/* --- who leads, decided by somebody who knows --------------------------------------------------- */

static void extend(struct sim *s, struct lw_world *w, struct lw_leader *l)
{
	l->right_ns = leader_clock(s, l) + RIGHT_NS - lease_drift_ns(RIGHT_NS);
	/* A commit of it may be under way at the end. */
	w->right_over_ns = sim_now(s) + RIGHT_NS + w->longest_io_ns;
}

static void elect(struct sim *s, void *arg, uint64_t value)
{
	struct lw_world *w = arg;
	unsigned i = (unsigned)sim_rnd(s, LEADERS);
	struct lw_leader *l = &w->leaders[i];

	(void)value;
	if (w->leader != NOBODY || sim_now(s) < w->right_over_ns)
		return;
	if (!sim_proc_is_alive(s, l->proc)) {
		sim_call_at(s, sim_now(s) + 100 * SIM_MS, elect, w, 0);
		return;
	}
	w->leader = i;
	w->is_renewing = true;
	l->term = ++w->term;
	extend(s, w, l);
	l->lease_ns = sim_between(s, LEASE_MS_MIN, 12000) * SIM_MS;
	l->timeout_ns = sim_between(s, 500 * SIM_MS, 6 * SIM_SEC);
	l->nr = 0;
	sim_trace(s, l->proc, "leads term %llu, gives %.1f s", (unsigned long long)l->term,
		  (double)l->lease_ns / 1e9);
	for (unsigned k = 0; k < w->mounted_nr; k++)
		client_add(s, l, w->mounted[k].rid);
}

static void renew(struct sim *s, void *arg, uint64_t value)
{
	struct lw_world *w = arg;
	struct lw_leader *l = w->leader == NOBODY ? NULL : &w->leaders[w->leader];

	(void)value;
	if (l && w->is_renewing && sim_proc_is_alive(s, l->proc)) {
		extend(s, w, l);
	} else if (l && sim_now(s) >= w->right_over_ns) {
		w->leader = NOBODY;
	}
	if (w->leader == NOBODY)
		elect(s, w, 0);
	sim_call_at(s, sim_now(s) + RENEW_NS, renew, w, 0);
}

/* Nothing of a dead process writes when what it had under way is over. */
static void leader_died(struct sim *s, void *arg)
{
	struct lw_leader *l = arg;
	struct lw_world *w = l->w;

	if (w->leader != NOBODY && l == &w->leaders[w->leader]) {
		w->leader = NOBODY;
		w->right_over_ns = sim_now(s) + w->longest_io_ns;
	}
}

/* --- faults ------------------------------------------------------------------------------------ */

static void nemesis(struct sim *s, void *arg, uint64_t kinds)
{
	struct lw_world *w = arg;
	struct lw_mount *m = &w->mounts[sim_rnd(s, w->mounts_nr)];
	struct lw_leader *l = &w->leaders[w->leader == NOBODY ? 0 : w->leader];
	uint64_t a_while = sim_rnd(s, sim_rnd(s, 4) ? 4 * SIM_SEC : 20 * SIM_SEC);
	unsigned kind = (unsigned)sim_rnd(s, 10);

	if (!sim_is_faulty(s))
		return;
	sim_call_at(s, sim_now(s) + sim_rnd(s, 4 * SIM_SEC), nemesis, w, kinds);
	if (!(kinds & 1u << kind))
		return;
	switch (kind) {
	case 0:
		sim_proc_restart(s, m->proc, a_while / 4);
		break;
	case 1:
		sim_proc_pause(s, m->proc, a_while);
		break;
	case 2:
		mount_power_off(s, m, a_while / 2);
		break;
	case 3:
		sim_proc_restart(s, l->proc, a_while / 8);
		break;
	case 4:
		sim_proc_pause(s, l->proc, a_while);
		break;
	case 5:		/* the cluster has another mind */
		w->is_renewing = false;
		break;
	case 6:
		sim_net_cut(s, m->proc, w->leaders[sim_rnd(s, LEADERS)].proc, true);
		sim_net_cut(s, w->leaders[sim_rnd(s, LEADERS)].proc, m->proc, true);
		break;
	case 7:
	case 8:		/* alone, or not any more */
		for (unsigned i = 0; i < LEADERS; i++) {
			sim_net_cut(s, w->leaders[i].proc, m->proc, kind == 7);
			sim_net_cut(s, m->proc, w->leaders[i].proc, kind == 7);
		}
		break;
	default:
		sim_net_break(s, m->proc, l->proc);
		break;
	}
}

/* --- a world ----------------------------------------------------------------------------------- */

/* The worst that the machines must bear, or anything less. */
static int draw_drift(struct sim *s)
{
	static const int worst[] = { -DRIFT_PPM, DRIFT_PPM };

	return sim_rnd(s, 2) ? worst[sim_rnd(s, 2)] : (int)sim_rnd(s, 2 * DRIFT_PPM + 1) - DRIFT_PPM;
}

static void run(struct sim *s)
{
	struct lw_world *w = sim_alloc(s, sizeof(*w));
	struct sim_faults *f = sim_faults(s);
	struct check_lease *c;
	uint64_t bound, kinds;

	w->leader = NOBODY;
	w->mounts_nr = 1 + (unsigned)sim_rnd(s, MOUNTS_MAX);
	if (sim_rnd(s, 2))
		f->delay_max_ns = sim_rnd(s, SIM_SEC);
	if (sim_rnd(s, 2))
		f->crash_pm = (unsigned)sim_rnd(s, 10);
	if (sim_rnd(s, 2)) {
		f->stall_pm = (unsigned)sim_rnd(s, 300);
		f->stall_max_ns = sim_rnd(s, 2 * SIM_SEC);
	}
	w->longest_io_ns = sim_disk_longest_ns(s);
	w->disk = sim_disk_new(s, "data", MOUNTS_MAX, SMALL_SIZE);
	c = check_lease_new(s, w->disk);
	for (unsigned i = 0; i < LEADERS; i++) {
		struct lw_leader *l = &w->leaders[i];

		l->w = w;
		snprintf(l->name, sizeof(l->name), "leader%u", i & 7);
		l->proc = sim_proc_new(s, l->name, &leader_ops, l);
		sim_clock_set_drift(s, l->proc, draw_drift(s));
		sim_proc_start(s, l->proc);
	}
	for (unsigned i = 0; i < w->mounts_nr; i++) {
		struct lw_mount *m = &w->mounts[i];

		m->w = w;
		m->index = i;
		snprintf(m->name, sizeof(m->name), "mount%u", i & 7);
		m->proc = sim_proc_new(s, m->name, &mount_ops, m);
		sim_clock_set_drift(s, m->proc, draw_drift(s));
		mount_new_instance(m);
		sim_proc_start(s, m->proc);
	}
	renew(s, w, 0);
	/* Many kinds of faults, or few: what one hides another shows. */
	kinds = sim_rnd(s, 1u << 10);
	kinds = sim_rnd(s, 2) ? kinds | sim_rnd(s, 1u << 10) : kinds & sim_rnd(s, 1u << 10);
	sim_call_at(s, sim_now(s) + 2 * SIM_SEC, nemesis, w, kinds);
	sim_run_until(s, sim_now(s) + CHAOS_NS);
	sim_faults_stop(s);
	/* Who was given up waits at most for the longest lease of all, the others only for a leader. */
	bound = sim_now(s) + (LEASE_MS_MAX + LEASE_MS_MAX / 50) * SIM_MS + w->longest_io_ns + 15 * SIM_SEC;
	do {
		sim_run_until(s, sim_now(s) + SIM_SEC);
		if (w->mounted_nr == w->mounts_nr && check_lease_written(s, c) == w->mounts_nr)
			return;
	} while (sim_now(s) < bound);
	sim_fail(s, "%u mounts of %u write, %u are on the volume, though nothing is wrong any more",
		 check_lease_written(s, c), w->mounts_nr, w->mounted_nr);
}

const struct sim_machine sim_machine_lease = { "lease", 4, run };
