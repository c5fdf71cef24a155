/*
 * serverd: the metadata server of a volume, serving while this host's quorumd says that it leads.
 * design.md §2, D6, D7, D10.
 *
 * The loop owns everything but the volume, which is the worker's, and the status socket and the shortcut, which have
 * threads of their own.  Its lock (answer.h) is held by the loop while it works, never while it waits, and by these
 * threads while they look; so what they show is of one moment.  While a server is up the worker's thread does the part of
 * the loop that answers (answer.c).
 *
 * It goes on without its quorumd until heartbeat_timeout_ms (D7), serves each term once, and ends with an
 * error when its server had to stop by itself: whoever watches it starts it again, and the volume is
 * recovered as after any crash.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <zmq.h>

#include "advisory.h"
#include "answer.h"
#include "blkcli.h"
#include "buffers.h"
#include "clock.h"
#include "conf.h"
#include "ctl.h"
#include "fenced.h"
#include "format/super.h"
#include "instance.h"
#include "keys.h"
#include "leader.h"
#include "log.h"
#include "sdn.h"
#include "serverd.h"
#include "shortcut.h"
#include "thread.h"

STATS_DESCS(serverd_stats, SERVERD_STATS);
STATS_DESCS(net_refusals, NET_REFUSALS);
STATS_DESCS(net_counts, NET_COUNTS);

#define REGION_BYTES	(16u << 20)
#define TURN_NS		NSEC_PER_SEC	/* a turn of the loop at least this often */
#define ACKS_MAX	16u
#define ANSWER_NS	(200 * NSEC_PER_MSEC)

struct daemon {
	struct instance_conf conf;
	uint64_t rid;
	void *zmq;
	struct blkcli *blk;
	struct leader *leader;
	struct ctl *ctl;
	struct shortcut_server *shortcut;
	struct server *server;
	struct net_server *ns;
	struct serverd_stats stats;
	struct net_refusals refusals;
	struct net_counts net_counts;
	struct keys *keys;		/* NULL: without */
	int signal_fd;
	int wake_fd;			/* blockd is there, or an operator has said something, or the worker's thread has */
	uint64_t last_term;		/* served last, or being served */
	uint64_t lease_until_ns;	/* clock_boot_ns: what quorumd has said of it */
	enum server_status last_state;
	uint64_t state_since_ns;
	uint64_t stop_by_ns;		/* when the last commit must have ended; 0: not stopping */
	bool is_leaving;
	int exit_status;

	struct answer answer;		/* its lock: see above; also of the rest */
	int blk_err;			/* 1: not connected yet */
	struct blkcli *blk_opened;
	uint64_t acks[ACKS_MAX];
	size_t acks_nr;
	uint64_t unfenced;		/* a rid that could not be fenced; 0: none */
	uint64_t unfenced_at_ns;	/* when that counts */
};

/* --- the volume through blockd --- */

/* The blocks and their flushes.  How many ops: two more than blocks at most. */
static size_t durable_ops(struct blkcli_op *ops, const struct block_write *w, size_t nr, bool data)
{
	size_t i;

	for (i = 0; i < nr; i++)
		ops[i] = blkcli_write_op(&w[i]);
	ops[i++] = blkcli_flush_op(BLK_DEV_META);
	if (data)
		ops[i++] = blkcli_flush_op(BLK_DEV_DATA);
	return i;
}

static int dev_write_commit(void *arg, struct txn_write *w)
{
	struct blkcli_op *ops = calloc(w->blocks_nr + 3, sizeof(*ops)), *last;
	size_t i;
	int ret;

	if (!ops)
		return -ENOMEM;
	i = durable_ops(ops, w->blocks, w->blocks_nr, w->data);
	last = &ops[i++];
	*last = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_META, .is_durable = true, .len = SMALL_SIZE,
				    .dev_off = SUPER_BLKNO << SMALL_SHIFT, .buf = (void *)w->super };
	ret = blkcli_run_chain(((struct daemon *)arg)->blk, ops, i, le64_get(w->old->hdr.seq),
			       le32_get(w->old->hdr.crc));
	w->at_super = ret < 0 && ret == last->result;
	free(ops);
	return ret;
}

static int dev_write_durable(void *arg, const struct block_write *w, size_t nr, bool data, void *super)
{
	struct blkcli_op *ops = calloc(nr + 3, sizeof(*ops));
	size_t i;
	int ret;

	if (!ops)
		return -ENOMEM;
	i = durable_ops(ops, w, nr, data);
	ops[i++] = (struct blkcli_op){ .op = BLK_OP_READ, .dev = BLK_DEV_META, .len = SMALL_SIZE,
					  .dev_off = SUPER_BLKNO << SMALL_SHIFT, .buf = super };
	ret = blkcli_run(((struct daemon *)arg)->blk, ops, i);
	free(ops);
	return ret;
}

static int dev_read_super(void *arg, void *buf)
{
	return blkcli_read_small(((struct daemon *)arg)->blk, BLK_DEV_META, SUPER_BLKNO, buf);
}

static int dev_write_super(void *arg, const void *buf)
{
	return blkcli_write_small_durable(((struct daemon *)arg)->blk, BLK_DEV_META, SUPER_BLKNO, buf);
}

/* Its super is as good as any other block of it. */
static int dev_probe_data(void *arg)
{
	struct blkcli *blk = ((struct daemon *)arg)->blk;
	uint8_t buf[SMALL_SIZE];
	int ret = blkcli_read_small(blk, BLK_DEV_DATA, SUPER_BLKNO, buf);

	return ret < 0 ? ret : blkcli_flush(blk, BLK_DEV_DATA);
}

static int blk_set_term(void *arg, uint64_t term)
{
	return blkcli_set_term(((struct daemon *)arg)->blk, term);
}

static int blk_revoke(void *arg, uint64_t rid)
{
	return blkcli_revoke(((struct daemon *)arg)->blk, rid);
}

/* Kept first, so that a next process of the mount that has lost what it knew of its leader is not let in as new. */
static int blk_revoke_own_mount(void *arg)
{
	struct daemon *d = arg;

	fenced_add(&d->conf, d->rid);
	return blkcli_revoke_mount(d->blk, d->rid);
}

static bool blk_can_revoke_own_mount(void *arg)
{
	return blkcli_can_revoke_mount(((struct daemon *)arg)->blk);
}

static int rid_is_ours(void *arg, uint64_t rid)
{
	return instance_rid_is_ours(&((struct daemon *)arg)->conf, rid);
}

static int rid_is_fenced(void *arg, uint64_t rid)
{
	return fenced_has(&((struct daemon *)arg)->conf, rid);
}

static uint64_t lapsed_led(void *arg, uint64_t rid)
{
	struct daemon *d = arg;

	return lapsed_led_ms(&d->conf, d->last_term, rid);
}

static uint64_t boot_ns(void *arg)
{
	(void)arg;
	return clock_boot_ns();
}

static uint64_t lease_until_ns(void *arg)
{
	return ((struct daemon *)arg)->lease_until_ns;
}

static void members(void *arg, struct msg_quorum_members *out)
{
	leader_members(((struct daemon *)arg)->leader, clock_mono_ns(), out);
}

static void wake_loop(struct daemon *d)
{
	uint64_t one = 1;

	if (write(d->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_err("the loop cannot be woken: %s", strerror(errno));
}

/* A thread, for blockd may take its time and signals shall be heard meanwhile. */
static void *open_blockd(void *arg)
{
	struct daemon *d = arg;
	char path[CONF_PATH_BYTES];
	struct blkcli_conf bc = { .socket_path = path, .kind = BLK_KIND_SERVERD, .rid = d->rid,
				  .region_bytes = REGION_BYTES };
	struct blkcli *blk = NULL;
	int ret;

	conf_runtime_path(&d->conf, "blockd.sock", path, sizeof(path));
	ret = blkcli_open(&blk, &bc);
	pthread_mutex_lock(&d->answer.lock);
	d->blk_opened = blk;
	d->blk_err = ret;
	pthread_mutex_unlock(&d->answer.lock);
	wake_loop(d);
	return NULL;
}

/* --- the network --- */

static int net_greeted(void *arg, uint64_t rid, enum greeting_status status)
{
	return net_server_greeted(((struct daemon *)arg)->ns, rid, status);
}

static int net_respond(void *arg, uint64_t rid, uint64_t handle, int err, unsigned type,
		       const void *msg)
{
	return net_server_respond(((struct daemon *)arg)->ns, rid, handle, err, type, msg);
}

static int net_request(void *arg, uint64_t rid, unsigned type, const void *msg, uint64_t tag)
{
	return net_server_request(((struct daemon *)arg)->ns, rid, type, msg, tag);
}

static int net_drop(void *arg, uint64_t rid)
{
	return net_server_drop(((struct daemon *)arg)->ns, rid);
}

static void on_greeting(void *arg, const struct net_greeting *g)
{
	server_on_greeting(((struct daemon *)arg)->server, g);
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	server_on_request(((struct daemon *)arg)->server, rid, handle, type, msg);
}

static void on_response(void *arg, uint64_t rid, uint64_t tag, int err, unsigned type,
			const void *msg)
{
	server_on_response(((struct daemon *)arg)->server, rid, tag, err, type, msg);
}

static void on_disconnected(void *arg, uint64_t rid, uint64_t since_ns)
{
	server_on_disconnected(((struct daemon *)arg)->server, rid, since_ns);
}

static void on_reconnected(void *arg, uint64_t rid)
{
	server_on_reconnected(((struct daemon *)arg)->server, rid);
}

static void on_left(void *arg, uint64_t rid)
{
	server_on_left(((struct daemon *)arg)->server, rid);
}

/* Where our slot of the volume says that its server listens. */
static int slot_endpoint(const struct daemon *d, const struct disk_super *super, char *buf, size_t size)
{
	unsigned slot = (unsigned)d->conf.quorum_slot;
	uint32_t a = le32_get(super->qconf.slots[slot].addr);
	uint16_t port = le16_get(super->qconf.slots[slot].port);
	char err[KEYS_ERR_BYTES];
	int ret;

	if (!quorum_slot_is_configured(&super->qconf, slot)) {
		log_err("quorum_slot: the volume has no slot %u; `scoutfsctl print` shows which it has",
			slot);
		return -EINVAL;
	}
	if (a >> 24 != 127 && !d->keys && !d->conf.insecure) {
		log_err("slot %u of the volume has the address %u.%u.%u.%u, which others can reach, and this node has "
			"no keys: make one with scoutfsctl keygen and add it to the lists, or set insecure = yes to "
			"serve there all the same", slot,
			a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
		return -EPERM;
	}
	ret = d->keys ? keys_check_own(d->keys, a, port, err, sizeof(err)) : 0;
	if (ret < 0) {
		log_err("%s", err);
		return ret;
	}
	snprintf(buf, size, "tcp://%u.%u.%u.%u:%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255,
		 port);
	return 0;
}

static int listen_at_slot(void *arg, const struct txn_view *view)
{
	struct daemon *d = arg;
	char endpoint[64];
	const char *endpoints[] = { endpoint };
	struct net_server_conf nc = {
		.endpoints = endpoints, .endpoints_nr = 1,
		.term = d->last_term,
		.fsid = le64_get(view->super.hdr.fsid),
		.fmt_vers = le64_get(view->super.fmt_vers),
		.keepalive_ms = d->conf.tcp_keepalive_timeout_ms,
		.keys = d->keys,
		.refusals = &d->refusals,
		.counts = &d->net_counts,
		.ops = { on_greeting, on_request, on_response, on_disconnected, on_reconnected,
			 on_left },
		.arg = d,
	};
	int ret = slot_endpoint(d, &view->super, endpoint, sizeof(endpoint));

	if (ret == 0)
		ret = net_server_open(&d->ns, d->zmq, &nc);
	if (ret == 0) {
		ret = answer_listen(&d->answer, d->ns);
		if (ret < 0) {
			net_server_close(d->ns);
			d->ns = NULL;
		}
	}
	if (ret == 0)
		log_info("listening at %s", endpoint);
	return ret;
}

static void unlisten(void *arg)
{
	struct daemon *d = arg;

	answer_unlisten(&d->answer);
	net_server_close(d->ns);
	d->ns = NULL;
}

/* --- what either thread does of the loop --- */

static bool is_up(void *arg)
{
	const struct daemon *d = arg;

	return d->server && server_state(d->server) == SERVER_UP;
}

static void dispatch(void *arg, uint64_t now)
{
	struct daemon *d = arg;

	if (d->server)
		d->server->now_ns = now;	/* requests come before its dispatch */
	if (d->ns)
		net_server_dispatch(d->ns, now);
	if (d->server)
		server_dispatch(d->server, now);
}

static uint64_t due_ns(void *arg)
{
	return server_deadline(((struct daemon *)arg)->server);
}

static void wake(void *arg)
{
	wake_loop(arg);
}

static bool tasks_done(void *arg)
{
	return answer_tasks_done(&((struct daemon *)arg)->answer);
}

static bool worker_idle(void *arg, int wake_fd)
{
	return answer_idle(&((struct daemon *)arg)->answer, wake_fd);
}

/* --- which term --- */

/* The term that is to be served now; 0: none. */
static uint64_t wanted_term(struct daemon *d, uint64_t now)
{
	struct msg_leader_state st;

	if (d->is_leaving || !d->blk)
		return 0;
	if (leader_state(d->leader, &st)) {
		if (st.role == QUORUM_LEADER && st.term == d->last_term &&
		    st.lease_until_ns > d->lease_until_ns)
			d->lease_until_ns = st.lease_until_ns;
		return st.role == QUORUM_LEADER && !st.stop ? st.term : 0;
	}
	/* quorumd is silent: what is served is served on until others may have elected somebody. */
	if (d->server && now - leader_last_heard_ns(d->leader) <
			 d->conf.heartbeat_timeout_ms * NSEC_PER_MSEC)
		return d->last_term;
	return 0;
}

static void start_server(struct daemon *d, uint64_t term, uint64_t now)
{
	struct server_conf sc = {
		.conf = &d->conf,
		.term = term,
		.rid = d->rid,
		.fsid = blkcli_fsid(d->blk),
		.dev = { .arg = d, .blocks = blkcli_block_dev(d->blk),
			 .write_durable = dev_write_durable, .write_commit = dev_write_commit,
			 .read_super = dev_read_super,
			 .write_super = dev_write_super, .probe_data = dev_probe_data,
			 .buffers = &buffers_pool },
		.set_term = blk_set_term,
		.revoke = blk_revoke,
		.revoke_own_mount = blk_revoke_own_mount,
		.can_revoke_own_mount = blk_can_revoke_own_mount,
		.rid_is_ours = rid_is_ours,
		.rid_is_fenced = rid_is_fenced,
		.lapsed_led_ms = lapsed_led,
		.tasks_done = tasks_done,
		.worker_idle = worker_idle,
		.listen = listen_at_slot,
		.unlisten = unlisten,
		.boot_ns = boot_ns,
		.lease_until_ns = lease_until_ns,
		.members = members,
		.net = { net_greeted, net_respond, net_request, net_drop },
		.arg = d,
		.stats = &d->stats,
	};
	int ret;

	d->last_term = term;
	d->lease_until_ns = 0;
	ret = server_start(&d->server, &sc, now);
	if (ret < 0) {
		log_err("term %llu cannot be served: %s", (unsigned long long)term, strerror(-ret));
		d->is_leaving = true;
		d->exit_status = 1;
	}
}

static void set_reported(struct daemon *d, enum server_status state, uint64_t now)
{
	if (state == d->last_state)
		return;
	d->last_state = state;
	d->state_since_ns = now;
	leader_report(d->leader, d->last_term, state);
}

/* Bring the server towards what quorumd wants. */
static void drive(struct daemon *d, uint64_t now)
{
	uint64_t want = wanted_term(d, now);

	if (d->server && server_state(d->server) != SERVER_DOWN && want != d->last_term) {
		server_stop(d->server);
		server_dispatch(d->server, now);
	}
	if (d->server)
		set_reported(d, server_state(d->server), now);
	if (d->server && server_state(d->server) == SERVER_DOWN) {
		if (server_error(d->server) < 0) {
			d->is_leaving = true;
			d->exit_status = 1;
		}
		log_notice("term %llu is served no more", (unsigned long long)d->last_term);
		server_free(d->server);
		d->server = NULL;
	}
	if (!d->server && want > d->last_term) {
		start_server(d, want, now);
		if (d->server)
			set_reported(d, SERVER_STARTING, now);
	}
	if (d->is_leaving && d->server && !d->stop_by_ns)
		d->stop_by_ns = now + d->conf.heartbeat_timeout_ms * NSEC_PER_MSEC;
}

/* --- what is said of it --- */

/* A mount that waits for an operator, NULL if there is none. */
static const struct client *waiting_client(const struct daemon *d)
{
	const struct client *c = d->server ? d->server->clients : NULL;

	while (c && c->state != CLIENT_FENCE_WAIT)
		c = c->next;
	return c;
}

static const struct client *expected_client(const struct daemon *d)
{
	const struct client *c = d->server ? d->server->clients : NULL;

	while (c && c->state != CLIENT_EXPECTED)
		c = c->next;
	return c;
}

static void state_text(const struct daemon *d, char *buf, size_t size)
{
	unsigned long long term = (unsigned long long)d->last_term;

	if (!d->blk)
		snprintf(buf, size, "waiting for blockd");
	else if (!d->server)
		snprintf(buf, size, d->is_leaving ? "stopped" : "standing by");
	else if (server_state(d->server) == SERVER_STARTING)
		snprintf(buf, size, "starting to serve term %llu", term);
	else if (server_state(d->server) == SERVER_UP)
		snprintf(buf, size, "leader of term %llu, %zu mounts", term, d->server->clients_nr);
	else
		snprintf(buf, size, "stopping to serve term %llu", term);
}

static void waiting_text(const struct daemon *d, char *buf, size_t size)
{
	const struct client *w = waiting_client(d), *e = expected_client(d);
	struct msg_leader_state st;

	buf[0] = '\0';
	if (w && w->deadline_ns)
		snprintf(buf, size, "mount %016llx: %s; its lease is over in %llu s",
			 (unsigned long long)w->info.rid, w->reason, lease_over_in_ns(w) / NSEC_PER_SEC);
	else if (w)
		snprintf(buf, size, "mount %016llx: %s; fence it, then: scoutfsctl fence ack %016llx",
			 (unsigned long long)w->info.rid, w->reason,
			 (unsigned long long)w->info.rid);
	else if (e)
		snprintf(buf, size, "mount %016llx to come back", (unsigned long long)e->info.rid);
	else if (!d->blk)
		snprintf(buf, size, "blockd");
	else if (!d->server && !leader_state(d->leader, &st))
		snprintf(buf, size, "quorumd");
}

static void show_status(struct daemon *d)
{
	char state[256], waiting[256];

	state_text(d, state, sizeof(state));
	waiting_text(d, waiting, sizeof(waiting));
	sdn_status("%s%s%s", state, waiting[0] ? "; waits for " : "", waiting);
}

static void add_merge_text(const struct daemon *d, const struct txn_view *v,
			   struct msg_status_reply *reply)
{
	const struct gather *g = &d->server->gather;
	uint64_t ms = (clock_mono_ns() - g->running_since_ns) / NSEC_PER_MSEC;

	if (!v->merge.is_running)
		ctl_add_text(reply, "log_merge", "freeing %llu merged log trees",
			     (unsigned long long)v->merge.freeing);
	else if (!g->was_running)
		ctl_add_text(reply, "log_merge", "has just begun");
	else
		ctl_add_text(reply, "log_merge",
			     "runs for %llu.%llu s: %llu ranges wait, %llu are worked on, %llu are done",
			     (unsigned long long)(ms / 1000), (unsigned long long)(ms % 1000 / 100),
			     (unsigned long long)v->merge.ranges,
			     (unsigned long long)v->merge.requests,
			     (unsigned long long)v->merge.completes);
}

static void add_gauges(struct daemon *d, struct msg_status_reply *reply)
{
	struct server *s = d->server;
	struct txn *t = worker_txn(s->worker);
	struct lockfsm_stats locks;
	struct advfsm_stats adv;
	const struct txn_stats *ts;
	struct txn_view v;

	lockfsm_get_stats(s->locks, &locks);
	ctl_add_value(reply, "mounts", s->clients_nr);
	ctl_add_value(reply, "locks_granted", locks.granted);
	ctl_add_value(reply, "locks_waiting", locks.waiting);
	ctl_add_value(reply, "locks_invalidating", locks.invalidating);
	ctl_add_value(reply, "lock_grants", locks.grants);
	ctl_add_value(reply, "lock_invalidations", locks.invalidates);
	advisory_stats(s, &adv);
	ctl_add_value(reply, "advisory_locks", adv.ranges);
	ctl_add_value(reply, "advisory_waiting", adv.waiting + adv.gated);
	ctl_add_value(reply, "advisory_deadlocks", adv.deadlocks);
	ctl_add_value(reply, "omap_rounds", omap_rounds_nr(s->omap));
	if (!t)
		return;
	ts = txn_stats(t);
	txn_get_view(t, &v);
	ctl_add_value(reply, "server_cache_size_bytes", s->conf.conf->server_cache_size);
	ctl_add_value(reply, "commits", atomic_load(&ts->commits));
	ctl_add_value(reply, "commit_us", atomic_load(&ts->commit_us_last));
	ctl_add_value(reply, "commit_us_sum", atomic_load(&ts->commit_us_sum));
	ctl_add_value(reply, "commit_jobs", atomic_load(&ts->jobs));
	ctl_add_value(reply, "commit_jobs_failed", atomic_load(&ts->jobs_failed));
	ctl_add_value(reply, "commit_slices", atomic_load(&ts->slices));
	ctl_add_value(reply, "commit_blocks", atomic_load(&ts->blocks_written));
	ctl_add_value(reply, "log_trees_nr", v.log_trees_nr);
	ctl_add_value(reply, "log_trees_finished", v.finished_trees_nr);
	ctl_add_value(reply, "log_trees_height", v.height_max);
	ctl_add_value(reply, "log_merge_running", v.merge.is_running);
	ctl_add_value(reply, "log_merge_ranges", v.merge.ranges);
	ctl_add_value(reply, "log_merge_requests", v.merge.requests);
	ctl_add_value(reply, "log_merge_completes", v.merge.completes);
	ctl_add_value(reply, "log_merge_freeing", v.merge.freeing);
	ctl_add_value(reply, "log_merge_failures", s->gather.failures);
	if (v.merge.is_running || v.merge.freeing)
		add_merge_text(d, &v, reply);
	if (s->gather.is_alarmed && !v.merge.is_running)
		ctl_add_text(reply, "alarm", "%llu finished log trees wait for a merge: reading gets slow",
			     (unsigned long long)v.finished_trees_nr);
	ctl_add_value(reply, "free_meta_blocks", v.free_meta_blocks);
	ctl_add_value(reply, "free_data_blocks", v.free_data_blocks);
	ctl_add_value(reply, "reserved_meta_blocks", v.reserved_meta_blocks);
	ctl_add_value(reply, "last_stable_seq", v.last_stable_seq);
}

static void add_sessions(const struct daemon *d, struct msg_status_reply *reply)
{
	struct net_server_stats st;

	net_server_get_stats(d->ns, &st);
	ctl_add_value(reply, "net_sessions", st.sessions);
	ctl_add_value(reply, "net_connected", st.connected);
}

static void fill_status(void *arg, struct msg_status_reply *reply)
{
	struct daemon *d = arg;

	pthread_mutex_lock(&d->answer.lock);
	state_text(d, reply->state, sizeof(reply->state));
	waiting_text(d, reply->waiting_for, sizeof(reply->waiting_for));
	reply->since_ms = (clock_mono_ns() - d->state_since_ns) / NSEC_PER_MSEC;
	ctl_add_value(reply, "term", d->server ? d->last_term : 0);
	if (d->server)
		add_gauges(d, reply);
	if (d->ns)
		add_sessions(d, reply);
	keys_status(d->keys, &d->conf, reply);
	if (d->server)
		status_add_mounts(d->server, reply);
	CTL_ADD_STATS(reply, serverd_stats, &d->stats);
	CTL_ADD_STATS(reply, net_refusals, &d->refusals);
	CTL_ADD_STATS(reply, net_counts, &d->net_counts);
	pthread_mutex_unlock(&d->answer.lock);
}

static int cluster(void *arg, unsigned type, const void *msg, union msg_body *reply)
{
	struct daemon *d = arg;
	int ret = -EAGAIN;

	pthread_mutex_lock(&d->answer.lock);
	if (d->server)
		ret = cluster_answer(d->server, type, msg, clock_mono_ns(), reply);
	pthread_mutex_unlock(&d->answer.lock);
	return ret;
}

static int roots(void *arg, uint64_t rid, uint64_t term, struct msg_get_roots_reply *reply)
{
	struct daemon *d = arg;
	int ret = -EAGAIN;

	pthread_mutex_lock(&d->answer.lock);
	if (d->server && rid == d->rid)
		ret = server_roots(d->server, rid, term, reply);
	pthread_mutex_unlock(&d->answer.lock);
	return ret;
}

static int end_fence(struct daemon *d, bool is_fenced, const char *arg_text, char *text, size_t text_size)
{
	const struct client *c = NULL;
	unsigned long long rid;
	char *end;

	errno = 0;
	rid = strtoull(arg_text, &end, 16);
	if (errno || end == arg_text || *end) {
		snprintf(text, text_size, "%s: a rid is up to 16 hexadecimal digits", arg_text);
		return -EINVAL;
	}
	if (d->server)
		c = client_find(d->server, rid);
	if (!c || c->state != CLIENT_FENCE_WAIT) {
		snprintf(text, text_size, "%016llx: no mount of that rid waits for its fence to be "
			 "confirmed", rid);
		return -ENOENT;
	}
	if (!is_fenced) {
		d->unfenced = rid;
		d->unfenced_at_ns = clock_mono_ns() + ANSWER_NS;
		snprintf(text, text_size, "mount %016llx is not fenced: this server stops, so that another may "
			 "try", rid);
		return 0;
	}
	if (d->acks_nr == ACKS_MAX) {
		snprintf(text, text_size, "too many at once, say it again");
		return -EBUSY;
	}
	/* Kept for who serves next; our own is, when blockd has been told. */
	if (rid != d->rid)
		fenced_add(&d->conf, rid);
	d->acks[d->acks_nr++] = rid;
	snprintf(text, text_size, "mount %016llx counts as fenced; what it had is being given back", rid);
	return 0;
}

static int command(void *arg, const char *verb, const char *arg_text, char *text, size_t text_size)
{
	struct daemon *d = arg;
	bool is_ack = strcmp(verb, "fence-ack") == 0;
	int ret;

	if (!is_ack && strcmp(verb, "fence-fail") != 0) {
		snprintf(text, text_size, "%s: serverd knows only fence-ack RID and fence-fail RID", verb);
		return -EOPNOTSUPP;
	}
	pthread_mutex_lock(&d->answer.lock);
	ret = end_fence(d, is_ack, arg_text, text, text_size);
	pthread_mutex_unlock(&d->answer.lock);
	if (ret == 0)
		wake_loop(d);
	return ret;
}

/* --- the loop --- */

enum { FD_SIGNAL, FD_WAKE, FD_LEADER, FD_SERVER, FD_NET, FDS_NR };

static void take_signals(struct daemon *d)
{
	struct signalfd_siginfo si;

	while (read(d->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP) {
			if (keys_reload_said(d->keys) && d->ns)
				net_server_check_keys(d->ns);
			continue;
		}
		if (!d->is_leaving)
			log_info("asked to stop by signal %u", si.ssi_signo);
		d->is_leaving = true;
		sdn_stopping();
	}
}

static void take_wakes(struct daemon *d)
{
	uint64_t n;

	if (read(d->wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_err("the loop's wake cannot be read: %s", strerror(errno));
	for (size_t i = 0; i < d->acks_nr; i++) {
		if (d->server)
			server_fence_ack(d->server, d->acks[i]);
	}
	d->acks_nr = 0;
	/* The end of this process must not overtake the answer. */
	if (d->unfenced && clock_mono_ns() >= d->unfenced_at_ns) {
		if (d->server)
			server_fence_fail(d->server, d->unfenced);
		d->unfenced = 0;
	}
	if (!d->blk && d->blk_err < 0) {
		log_err("blockd does not let this service in: %s", strerror(-d->blk_err));
		d->is_leaving = true;
		d->exit_status = 1;
	} else if (!d->blk && d->blk_opened) {
		d->blk = d->blk_opened;
		log_info("ready to serve the volume %016llx", (unsigned long long)blkcli_fsid(d->blk));
		sdn_ready();
	}
}

static void turn(struct daemon *d, uint64_t now)
{
	take_signals(d);
	take_wakes(d);
	leader_dispatch(d->leader, now);
	dispatch(d, now);
	drive(d, now);
	show_status(d);
	sdn_watchdog();
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int timeout_ms(struct daemon *d, uint64_t now)
{
	uint64_t at = now + TURN_NS;
	uint64_t watchdog = sdn_watchdog_ns();

	if (watchdog)
		at = min_u64(at, now + watchdog);
	at = min_u64(at, leader_deadline(d->leader));
	if (d->ns)
		at = min_u64(at, net_server_deadline(d->ns));
	if (d->server)
		at = min_u64(at, server_deadline(d->server));
	answer_loop_waits(&d->answer, at);
	return at <= now ? 0 : (int)((at - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

static void loop(struct daemon *d)
{
	struct pollfd fds[FDS_NR];

	pthread_mutex_lock(&d->answer.lock);
	while (!d->is_leaving || d->server) {
		uint64_t now = clock_mono_ns();
		int timeout = timeout_ms(d, now);

		for (int i = 0; i < FDS_NR; i++)
			fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
		fds[FD_SIGNAL].fd = d->signal_fd;
		fds[FD_WAKE].fd = d->wake_fd;
		fds[FD_LEADER].fd = leader_fd(d->leader);
		if (d->server)
			fds[FD_SERVER].fd = server_fd(d->server);
		if (d->ns)
			fds[FD_NET].fd = answer_fd(&d->answer);
		pthread_mutex_unlock(&d->answer.lock);
		poll(fds, FDS_NR, timeout);
		turns_lock_first(&d->answer.turns, &d->answer.lock);
		turn(d, clock_mono_ns());
		if (d->stop_by_ns && d->server && clock_mono_ns() > d->stop_by_ns) {
			/* blockd is gone or hangs; what the worker waits for was answered to nobody. */
			log_err("the last commit does not end, blockd does not answer: ending without it");
			log_flush();
			_exit(1);
		}
	}
	pthread_mutex_unlock(&d->answer.lock);
}

/* --- beginning and end --- */

static int block_signals(struct daemon *d)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return -EINVAL;
	signal(SIGPIPE, SIG_IGN);
	d->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	d->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return d->signal_fd < 0 || d->wake_fd < 0 ? -errno : 0;
}

static int begin(struct daemon *d)
{
	static const struct ctl_ops ctl_ops = { fill_status, command, cluster };
	static const struct answer_ops answer_ops = { is_up, dispatch, due_ns, wake };
	pthread_t opener;
	int ret;

	if (d->conf.quorum_slot == CONF_NO_SLOT) {
		log_err("this instance has no quorum_slot: only quorum members can serve");
		return -EINVAL;
	}
	ret = keys_open_said(&d->keys, &d->conf);
	if (ret == 0)
		ret = instance_check_runtime_dir(&d->conf);
	if (ret == 0)
		ret = instance_rid_get(&d->conf, &d->rid);
	if (ret == 0)
		ret = block_signals(d);
	if (ret == 0)
		ret = answer_init(&d->answer, &answer_ops, d);
	if (ret < 0)
		return ret;
	d->zmq = zmq_ctx_new();
	if (!d->zmq)
		return -ENOMEM;
	ret = leader_open(&d->leader, d->zmq, &d->conf, LOCAL_SERVERD, d->rid);
	if (ret == 0) {
		/* Whatever a process before this one served, nothing is served now. */
		leader_report(d->leader, 0, SERVER_DOWN);
		ret = ctl_start(&d->ctl, &d->conf, "serverd", &ctl_ops, d);
	}
	/* After the status socket: that one is the only one of the instance. */
	if (ret == 0)
		ret = shortcut_server_start(&d->shortcut, &d->conf, roots, d);
	if (ret == 0)
		ret = thread_start(&opener, "opener", open_blockd, d);
	if (ret == 0)
		pthread_detach(opener);
	return ret;
}

int main(int argc, char **argv)
{
	static struct daemon d = { .blk_err = 1, .signal_fd = -1, .wake_fd = -1, .answer = ANSWER_INITIALIZER };
	bool done = false;
	int ret;

	ret = conf_from_args(&d.conf, argc, argv, &done);
	if (ret != 0 || done)
		return ret;
	d.state_since_ns = clock_mono_ns();
	ret = begin(&d);
	if (ret < 0) {
		log_err("serverd cannot start: %s", strerror(-ret));
		return 2;
	}
	loop(&d);
	shortcut_server_stop(d.shortcut);
	ctl_stop(d.ctl);
	leader_close(d.leader);
	/* A thread may still wait for blockd; the process ends, and it with it. */
	if (d.blk) {
		blkcli_close(d.blk);
		zmq_ctx_term(d.zmq);
	}
	log_info("ended");
	log_flush();
	return d.exit_status;
}
