/*
 * What services/serverd/main.c does, for a process of the simulator: it serves the term that it believes to be
 * its own, ends what it serves when it learns of another, and serves each term once.
 */
#include "server_sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "services/serverd/serverd.h"

#define LEARN_MAX_NS	(2 * SIM_SEC)	/* until a deposed leader hears of it */
#define TURN_MIN_NS	(20 * SIM_US)

struct server_sim {
	struct instance_conf conf;
	struct serverd_stats stats;
	uint64_t rid;
	struct server *server;
	struct net_server *ns;
	uint64_t last_term;
	uint64_t known_term;		/* that it believes to be elected for; 0: none */
};

uint64_t server_sim_term(const struct node *n)
{
	return n->server->last_term;
}

/* --- the devices and the network --- */

static int dev_read_super(void *arg, void *buf)
{
	return vol_read_super(arg, buf);
}

static int dev_write_durable(void *arg, const struct block_write *w, size_t nr, bool data, void *super)
{
	struct block_dev dev = vol_dev(arg);
	int ret = dev.write(dev.arg, w, nr);

	(void)data;
	if (ret == 0)
		ret = vol_flush(arg);
	return ret < 0 ? ret : vol_read_super(arg, super);
}

static int dev_write_super(void *arg, const void *buf)
{
	int ret = vol_write_super(arg, buf);

	return ret < 0 ? ret : vol_flush(arg);
}

static int dev_probe_data(void *arg)
{
	struct node *n = arg;

	sim_trace(n->sim, n->proc, "tries its devices");
	return node_acts(n) ? 0 : -EIO;
}

static int set_term(void *arg, uint64_t term)
{
	struct node *n = arg;

	if (!node_acts(n))
		return -EIO;
	vol_set_term(n->cl->vol, term);
	return 0;
}

static int revoke(void *arg, uint64_t rid)
{
	struct node *n = arg;

	if (!node_acts(n))
		return -EIO;
	vol_revoke(n->cl->vol, rid);
	return 0;
}

/* Mounts are on other hosts, so somebody must say that they were fenced. */
static int rid_is_ours(void *arg, uint64_t rid)
{
	(void)arg, (void)rid;
	return 0;
}

static int rid_is_fenced(void *arg, uint64_t rid)
{
	return vol_is_revoked(((struct node *)arg)->cl->vol, rid);
}

static struct server_sim *of(void *arg)
{
	return ((struct node *)arg)->server;
}

static int net_greeted(void *arg, uint64_t rid, enum greeting_status status)
{
	return net_server_greeted(of(arg)->ns, rid, status);
}

static int net_respond(void *arg, uint64_t rid, uint64_t handle, int err, unsigned type,
		       const void *msg)
{
	return net_server_respond(of(arg)->ns, rid, handle, err, type, msg);
}

static int net_request(void *arg, uint64_t rid, unsigned type, const void *msg, uint64_t tag)
{
	return net_server_request(of(arg)->ns, rid, type, msg, tag);
}

static int net_drop(void *arg, uint64_t rid)
{
	return net_server_drop(of(arg)->ns, rid);
}

static void on_greeting(void *arg, const struct net_greeting *g)
{
	server_on_greeting(of(arg)->server, g);
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	struct node *n = arg;

	/* The number that a mount of the simulator asks for is its question's own. */
	if (type == MSG_alloc_inodes)
		cluster_fact(n, FACT_HEARD, ((const struct msg_alloc_inodes *)msg)->count,
			     n->server->last_term, rid);
	server_on_request(of(arg)->server, rid, handle, type, msg);
}

static void on_response(void *arg, uint64_t rid, uint64_t tag, int err, unsigned type,
			const void *msg)
{
	server_on_response(of(arg)->server, rid, tag, err, type, msg);
}

static void on_disconnected(void *arg, uint64_t rid, uint64_t since_ns)
{
	server_on_disconnected(of(arg)->server, rid, since_ns);
}

static void on_reconnected(void *arg, uint64_t rid)
{
	server_on_reconnected(of(arg)->server, rid);
}

static void on_left(void *arg, uint64_t rid)
{
	server_on_left(of(arg)->server, rid);
}

static int listen_here(void *arg, const struct txn_view *view)
{
	static const char *const endpoints[] = { "tcp://here" };
	struct node *n = arg;
	struct net_server_conf nc = {
		.endpoints = endpoints, .endpoints_nr = 1,
		.term = n->server->last_term,
		.fsid = le64_get(view->super.hdr.fsid),
		.fmt_vers = le64_get(view->super.fmt_vers),
		.keepalive_ms = n->cl->keepalive_ms,
		.ops = { on_greeting, on_request, on_response, on_disconnected, on_reconnected,
			 on_left },
		.arg = n,
	};

	return net_server_open(&n->server->ns, n, &nc);
}

static void unlisten(void *arg)
{
	net_server_close(of(arg)->ns);
	of(arg)->ns = NULL;
}

/* --- the loop --- */

/*
 * The mounts here ask for no leases, which have a world of their own (drive_lease.c): for serverd's leases no time
 * passes, so that nobody is given up for having let one run out.  Who is dead is buried by our agent.
 */
static uint64_t no_time(void *arg)
{
	(void)arg;
	return SIM_SEC;
}

static void start_server(struct node *n)
{
	struct server_sim *x = n->server;
	struct server_conf sc = {
		.conf = &x->conf,
		.term = x->known_term,
		.rid = x->rid,
		.fsid = CLUSTER_FSID,
		.dev = { .arg = n, .blocks = vol_dev(n),
			 .write_durable = dev_write_durable, .read_super = dev_read_super,
			 .write_super = dev_write_super, .probe_data = dev_probe_data },
		.set_term = set_term, .revoke = revoke,
		.rid_is_ours = rid_is_ours, .rid_is_fenced = rid_is_fenced,
		.listen = listen_here, .unlisten = unlisten,
		.boot_ns = no_time,
		.net = { net_greeted, net_respond, net_request, net_drop },
		.arg = n,
		.stats = &x->stats,
	};

	x->last_term = x->known_term;
	sim_trace(n->sim, n->proc, "serves term %llu", (unsigned long long)x->last_term);
	SIM_CHECK(n->sim, server_start(&x->server, &sc, clock_mono_ns()) == 0,
		  "a server cannot start");
}

static void drive(struct node *n, uint64_t now)
{
	struct server_sim *x = n->server;

	if (x->server && server_state(x->server) != SERVER_DOWN && x->known_term != x->last_term) {
		server_stop(x->server);
		server_dispatch(x->server, now);
	}
	if (x->server && server_state(x->server) == SERVER_DOWN) {
		sim_trace(n->sim, n->proc, "serves term %llu no more",
			  (unsigned long long)x->last_term);
		server_free(x->server);
		x->server = NULL;
	}
	if (!x->server && x->known_term > x->last_term)
		start_server(n);
}

static void turn(struct node *n)
{
	struct server_sim *x = n->server;
	uint64_t now = clock_mono_ns(), at = SIM_NEVER, deadline;

	if (x->ns)
		net_server_dispatch(x->ns, now);
	if (x->server) {
		/* Said with questions for a lease, which there are none of here: the server has reason to probe. */
		for (struct client *c = x->server->clients; c; c = c->next)
			c->failing_ms = 1;
		server_dispatch(x->server, now);
	}
	drive(n, now);
	if (x->ns && (deadline = net_server_deadline(x->ns)) < at)
		at = deadline;
	if (x->server && (deadline = server_deadline(x->server)) < at)
		at = deadline;
	if (net_sim_has_input(n))
		at = now;
	if (at != SIM_NEVER && at < now + TURN_MIN_NS)
		at = now + TURN_MIN_NS;
	if (!n->is_zombie)
		sim_timer_set(n->sim, n->proc, at);
}

static void bury(struct node *n)
{
	struct server_sim *x = n->server;

	if (!x->server)
		return;
	server_stop(x->server);
	server_dispatch(x->server, clock_mono_ns());
	SIM_CHECK(n->sim, server_state(x->server) == SERVER_DOWN, "a dead server does not end");
	server_free(x->server);
	x->server = NULL;
}

/* --- the world's side --- */

static void learn(struct sim *s, void *arg, uint64_t term)
{
	struct node *n = arg;
	struct cluster *cl = n->cl;

	(void)s, (void)term;
	n->server->known_term = cl->leader == n->index ? cl->term : 0;
	node_enter(n);
	node_leave(n);
}

void server_sim_learn(struct node *n)
{
	struct cluster *cl = n->cl;

	if (sim_proc_is_alive(n->sim, n->proc))
		sim_call_proc(n->sim, n->proc, cl->leader == n->index ? sim_rnd(n->sim, 50 * SIM_MS) :
			      sim_rnd(n->sim, LEARN_MAX_NS), learn, n, cl->term);
}

bool server_sim_fence_ack(struct node *n, uint64_t rid)
{
	bool done = false;

	if (!sim_proc_is_alive(n->sim, n->proc) || sim_proc_is_paused(n->sim, n->proc))
		return false;
	node_enter(n);
	if (n->server->server && server_state(n->server->server) == SERVER_UP)
		done = server_fence_ack(n->server->server, rid) == 0;
	node_leave(n);
	return done;
}

uint64_t server_sim_fence_wanted(const struct node *n)
{
	const struct server *s = n->server->server;

	for (const struct client *c = s && s->state == SERVER_UP ? s->clients : NULL; c; c = c->next) {
		if (c->state == CLIENT_FENCE_WAIT)
			return c->info.rid;
	}
	return 0;
}

bool server_sim_is_up(const struct node *n)
{
	return n->server->server && server_state(n->server->server) == SERVER_UP;
}

bool server_sim_is_recovered(const struct node *n)
{
	return server_sim_is_up(n) && !lockfsm_is_gated(n->server->server->locks);
}

void server_sim_init(struct cluster *cl, unsigned i)
{
	static const char *const names[SIM_SERVERS_MAX] = { "server0", "server1", "server2" };
	struct node *n = &cl->servers[i];
	struct server_sim *x = sim_alloc(cl->sim, sizeof(*x));

	n->index = i;
	n->is_server = true;
	n->server = x;
	n->turn = turn;
	n->bury = bury;
	x->rid = 0xaaaa0000 + i;
	x->conf.client_timeout_ms = cl->client_timeout_ms;
	x->conf.recovery_timeout_ms = cl->recovery_timeout_ms;
	x->conf.tcp_keepalive_timeout_ms = cl->keepalive_ms;
	x->conf.lease_ms = LEASE_MS_DEFAULT;
	x->conf.server_cache_size = 64u << 20;
	x->conf.longest_io_ms = 5000;
	x->conf.log_merge_wait_timeout_ms = cl->merge_wait_ms;
	x->conf.log_merge_min_height = cl->merge_min_height;
	x->conf.log_merge_min_trees = cl->merge_min_trees;
	node_init(n, cl, names[i]);
}
