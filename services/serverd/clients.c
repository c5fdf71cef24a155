/*
 * Who is mounted: from the first greeting to the last block given back.  runtime.md 2, 3.2-3.7.
 *
 * Promises: a mount is let in only when its mounted_clients item is durable, so that a later server knows
 * of it; its locks, blocks and log tree go to nobody else before its farewell came or it is certain that it
 * cannot write any more; who was given up once is told so and never served again.
 *
 * Who is given up: mounts of an earlier server that do not come back and tell their locks before their
 * leases are over, or, where nobody knows of any, within the recovery window; mounts whose lease is over and for whom
 * somebody waits; mounts that stay away longer than client_timeout_ms; mounts that answer the lock
 * server with nonsense.  A rid that this host recorded is stopped at once through blockd, which
 * holds the devices' locks (design.md D6).  Of others that live by leases the end of theirs is waited for
 * (lease.c): when that, the drift of clocks and the longest write are over they write no more.  Of the rest
 * somebody must say that it was done: `scoutfsctl fence ack RID`, or an agent; if that was said before, of whichever
 * service, it is not asked again (fenced.h).
 *
 * The mount of this very instance shares its rid with this server.  It is given up like any other, with its lease:
 * blockd, which has cut it off by then, refuses its process from then on and nobody else, and the lead stays where it
 * is.  (To resign would make the next leader wait for that same lease, and needs another member.)  But as long as it
 * is the only mount nobody wants what it has: then its dirty state waits in the runtime directory for its next
 * process (D7), and if it is gone for good the operator says so.  So it is, too, as long as this host's blockd is of
 * before it could refuse that process alone (an upgrade that has restarted serverd and not yet blockd).
 *
 * The state is client->state; set_state() is the only place that changes it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "advisory.h"
#include "clock.h"
#include "log.h"
#include "serverd.h"
#include "util/planted.h"

#define RETRY_NS	NSEC_PER_SEC
/* A mount that is there finds a new leader within a second; this is for a busy host. */
#define COME_BACK_NS	(1500 * NSEC_PER_MSEC)
/* Between two looks at a mount that is waited for, while none may be judged. */
#define JUDGE_NS	(100 * NSEC_PER_MSEC)

/* Work of the worker for one client. */
struct client_task {
	struct task task;
	struct server *server;
	struct mount_info info;
};

static struct client_task *of_job(struct txn_job *job)
{
	return (struct client_task *)((char *)job - offsetof(struct client_task, task.job));
}

static struct client_task *of_task(struct task *task)
{
	return (struct client_task *)((char *)task - offsetof(struct client_task, task));
}

const char *client_state_text(enum client_state state)
{
	switch (state) {
	case CLIENT_MOUNTING: return "is being let in";
	case CLIENT_EXPECTED: return "is expected back";
	case CLIENT_UP: return "is mounted";
	case CLIENT_REVOKING: return "is being stopped";
	case CLIENT_FENCE_WAIT: return "waits for its fence to be confirmed";
	case CLIENT_RECLAIMING: return "gives its resources back";
	case CLIENT_STUCK: return "could not give its resources back";
	}
	return "?";
}

static void set_state(struct client *c, enum client_state state)
{
	log_debug("mount %016llx %s", (unsigned long long)c->info.rid, client_state_text(state));
	c->state = state;
	c->since_ns = c->server->now_ns;
}

struct client *client_find(const struct server *s, uint64_t rid)
{
	struct client *c = s->clients;

	while (c && c->info.rid != rid)
		c = c->next;
	return c;
}

static struct client *client_add(struct server *s, const struct mount_info *m,
				 enum client_state state)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->server = s;
	c->info = *m;
	c->next = s->clients;
	s->clients = c;
	s->clients_nr++;
	set_state(c, state);
	return c;
}

static void client_remove(struct server *s, struct client *c)
{
	struct client **at = &s->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	s->clients_nr--;
	requests_forget(c);
	free(c);
}

void clients_free(struct server *s)
{
	while (s->clients)
		client_remove(s, s->clients);
}

/*
 * Nobody may be missing among the members of the open-inode map: it waits for every mount of an earlier
 * server until that has come back, or cannot write any more (3.7).
 */
static void update_gate(struct server *s)
{
	bool gated = false;

	for (const struct client *c = s->clients; c; c = c->next) {
		gated = gated || (!c->was_greeted && (c->state == CLIENT_EXPECTED ||
						      c->state == CLIENT_REVOKING ||
						      c->state == CLIENT_FENCE_WAIT));
	}
	omap_set_gate(s->omap, gated);
}

static void remember_fenced(struct server *s, struct client *c)
{
	c->is_fenced = true;
	lease_granter_close(&c->lease);
	s->fenced[s->fenced_nr++ % SERVER_FENCED_MAX] = c->info.rid;
}

/* A mount that is not connected has this long to come back. */
static void expect_reconnect(struct client *c, uint64_t since_ns)
{
	c->deadline_ns = since_ns + c->server->conf.conf->client_timeout_ms * NSEC_PER_MSEC;
}

static void step_locks(struct server *s, enum lockfsm_event_kind kind, uint64_t rid)
{
	struct lockfsm_event ev = { .kind = kind, .rid = rid };
	int ret = lockfsm_step(s->locks, &ev);

	if (ret < 0)
		server_fail(s, ret, "the lock server could not take note of a mount");
}

/* --- giving back --- */

static int run_reclaim(struct txn_job *job, struct txn *t)
{
	return mounts_reclaim(t, of_job(job)->info.rid);
}

static void reclaim_failed(struct server *s, struct client *c, int err)
{
	stats_inc(&s->conf.stats->reclaim_errors);
	set_state(c, CLIENT_STUCK);
	/* What may pass: what is damaged is told apart from what the device did not give. */
	if (err == -ENOMEM || err == -ENOSPC || err == -EIO) {
		c->deadline_ns = s->now_ns + RETRY_NS;
		if (!c->is_retried)
			log_warning("what mount %016llx had could not be given back: %s; tried again every second",
				    (unsigned long long)c->info.rid, strerror(-err));
		c->is_retried = true;
		return;
	}
	c->deadline_ns = 0;
	log_err("what mount %016llx had cannot be given back: %s; run scoutfsctl check when the "
		"volume is not in use", (unsigned long long)c->info.rid, strerror(-err));
	if (c->has_farewell)
		server_respond(s, c->info.rid, c->farewell_handle, -EIO, MSG_farewell_reply, NULL);
	c->has_farewell = false;
}

static void reclaimed(struct task *task, int err)
{
	struct client_task *ct = of_task(task);
	struct server *s = ct->server;
	struct client *c = client_find(s, ct->info.rid);

	free(ct);
	if (err == -ESHUTDOWN || !c || (err < 0 && txn_failed(worker_txn(s->worker), NULL)))
		return;
	if (err < 0) {
		reclaim_failed(s, c, err);
		return;
	}
	stats_inc(&s->conf.stats->reclaims);
	if (c->is_fenced)
		stats_inc(&s->conf.stats->reclaimed_open_logs);
	if (c->has_farewell)
		server_respond(s, c->info.rid, c->farewell_handle, 0, MSG_farewell_reply, NULL);
	log_notice("mount %016llx has %s; its resources are free again",
		   (unsigned long long)c->info.rid, c->is_fenced ? "been fenced" : "left");
	client_remove(s, c);
	s->kick_farewells = true;
}

/* NULL: no memory, and the server stops. */
static struct client_task *make_task(struct server *s, const struct mount_info *m,
				     int (*run)(struct txn_job *job, struct txn *t),
				     void (*complete)(struct task *task, int err))
{
	struct client_task *ct = calloc(1, sizeof(*ct));

	if (!ct) {
		server_fail(s, -ENOMEM, "a mount could not be worked on");
		return NULL;
	}
	ct->server = s;
	ct->info = *m;
	ct->task.job.run = run;
	ct->task.complete = complete;
	return ct;
}

/* In the order of 2.6: locks, then what is on the volume, the item last; the map on the way. */
static void reclaim(struct server *s, struct client *c)
{
	struct client_task *ct;

	set_state(c, CLIENT_RECLAIMING);
	c->deadline_ns = 0;
	requests_forget(c);
	step_locks(s, LOCKFSM_GONE, c->info.rid);
	advisory_note(s, ADVFSM_GONE, c->info.rid);
	omap_drop_rid(s->omap, c->info.rid);
	update_gate(s);
	c->has_merge_work = false;
	ct = make_task(s, &c->info, run_reclaim, reclaimed);
	if (ct)
		worker_submit(s->worker, &ct->task);
}

/* --- giving up --- */

static bool is_own(const struct client *c)
{
	return c->info.rid == c->server->conf.rid;
}

/* Whether nobody but this instance's own mount is there, or to come back. */
static bool is_own_and_alone(const struct client *c)
{
	const struct client *o = is_own(c) ? c->server->clients : NULL;

	if (!o)
		return false;
	while (o && (o == c || o->state == CLIENT_RECLAIMING || o->state == CLIENT_STUCK))
		o = o->next;
	return !o;
}

/* Whether it can be given up at all: with an older blockd our own may come back, or an operator says that it is gone. */
static bool can_be_stopped(const struct client *c)
{
	const struct server_conf *conf = &c->server->conf;

	return !is_own(c) || conf->can_revoke_own_mount(conf->arg);
}

/* Once: it goes on by itself when blockd was restarted. */
static void say_unstoppable(struct client *c, const char *reason)
{
	if (c->is_unstoppable)
		return;
	c->is_unstoppable = true;
	log_warning("this instance's own mount %016llx cannot be fenced: %s, and this host's blockd is of an older version "
		    "than serverd.  Restart scoutfs-blockd of this instance; or, if that mount is gone for good, run: "
		    "scoutfsctl fence ack %016llx", (unsigned long long)c->info.rid, reason,
		    (unsigned long long)c->info.rid);
}

static void wait_for_fence(struct client *c)
{
	uint64_t over_ns = lease_over_in_ns(c);
	uint32_t a = c->info.addr;

	set_state(c, CLIENT_FENCE_WAIT);
	c->deadline_ns = 0;
	if (is_own(c) && c->is_fenced) {
		c->deadline_ns = c->server->now_ns + (over_ns == LEASE_NEVER ? 0 : over_ns);
		log_notice("this instance's own mount %016llx is to be fenced: %s.  Its lease is waited for, %llu s",
			   (unsigned long long)c->info.rid, c->reason,
			   (c->deadline_ns - c->server->now_ns) / NSEC_PER_SEC);
		return;
	}
	if (is_own(c) && !is_own_and_alone(c)) {
		say_unstoppable(c, c->reason);
		return;
	}
	if (is_own(c)) {
		log_warning("this instance's own mount %016llx is away: %s.  Start its fsd again; or, if "
			    "it is gone for good, run: scoutfsctl fence ack %016llx",
			    (unsigned long long)c->info.rid, c->reason,
			    (unsigned long long)c->info.rid);
		return;
	}
	if (over_ns != LEASE_NEVER) {
		c->deadline_ns = c->server->now_ns + over_ns;
		log_notice("mount %016llx (%u.%u.%u.%u) is to be fenced: %s.  Its lease is waited for, %llu s; "
			   "sooner with: scoutfsctl fence ack %016llx", (unsigned long long)c->info.rid,
			   a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255, c->reason,
			   over_ns / NSEC_PER_SEC, (unsigned long long)c->info.rid);
		return;
	}
	log_warning("mount %016llx (%u.%u.%u.%u) is to be fenced: %s.  Make sure that it cannot write "
		    "any more (power its host off), then run: scoutfsctl fence ack %016llx",
		    (unsigned long long)c->info.rid, a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255,
		    c->reason, (unsigned long long)c->info.rid);
}

static int before_revoke(struct task *task)
{
	struct client_task *ct = of_task(task);
	const struct server_conf *conf = &ct->server->conf;
	uint64_t rid = ct->info.rid;

	if (conf->rid_is_ours(conf->arg, rid) <= 0 && conf->rid_is_fenced(conf->arg, rid) <= 0)
		return -ENOENT;
	return conf->revoke(conf->arg, ct->info.rid);
}

/* Its own right is over, and its kernel was made to forget: without that this server's word would not be enough. */
static int before_revoke_own(struct task *task)
{
	const struct server_conf *conf = &of_task(task)->server->conf;

	return conf->revoke_own_mount(conf->arg);
}

static void revoked(struct task *task, int err)
{
	struct client_task *ct = of_task(task);
	struct server *s = ct->server;
	struct client *c = client_find(s, ct->info.rid);

	free(ct);
	if (err == -ESHUTDOWN || !c || c->state != CLIENT_REVOKING)
		return;
	if (err == 0) {
		reclaim(s, c);
		return;
	}
	if (err == -EOPNOTSUPP)
		say_unstoppable(c, c->reason);
	else if (err != -ENOENT)
		log_err("mount %016llx is over and could not be stopped through blockd: %s",
			(unsigned long long)c->info.rid, strerror(-err));
	if (!is_own(c)) {
		wait_for_fence(c);
		return;
	}
	set_state(c, CLIENT_FENCE_WAIT);
	c->deadline_ns = s->now_ns + RETRY_NS;
}

static void revoke(struct server *s, struct client *c, int (*before)(struct task *task))
{
	struct client_task *ct;

	set_state(c, CLIENT_REVOKING);
	c->deadline_ns = 0;
	update_gate(s);
	ct = make_task(s, &c->info, NULL, revoked);
	if (!ct)
		return;
	ct->task.before = before;
	worker_submit(s->worker, &ct->task);
}

static void stop_own(struct server *s, struct client *c)
{
	uint64_t over_ns = lease_over_in_ns(c);

	if (over_ns > 0 && over_ns != LEASE_NEVER)
		wait_for_fence(c);
	else
		revoke(s, c, before_revoke_own);
	update_gate(s);
}

void client_fence(struct server *s, struct client *c, const char *reason)
{
	c->reason = reason;
	if (is_own_and_alone(c) || !can_be_stopped(c)) {
		if (c->state != CLIENT_FENCE_WAIT)
			wait_for_fence(c);
		return;
	}
	stats_inc(&s->conf.stats->fences);
	log_warning("mount %016llx is given up: %s", (unsigned long long)c->info.rid, reason);
	remember_fenced(s, c);
	c->has_farewell = false;
	requests_forget(c);
	s->conf.net.drop(s->conf.arg, c->info.rid);
	if (is_own(c))
		stop_own(s, c);
	else if (PLANTED(locks_before_the_fence))
		reclaim(s, c);
	else
		revoke(s, c, before_revoke);
}

/* say_unstoppable() has asked for it, and it has not come back since. */
static bool waits_for_a_word(const struct client *c)
{
	return c->state == CLIENT_UP && c->is_unstoppable && lease_over_in_ns(c) == 0;
}

int server_fence_ack(struct server *s, uint64_t rid)
{
	struct client *c = client_find(s, rid);

	if (!c || (c->state != CLIENT_FENCE_WAIT && !waits_for_a_word(c)))
		return -ENOENT;
	stats_inc(&s->conf.stats->fence_acks);
	log_notice("mount %016llx is fenced: an operator has confirmed it", (unsigned long long)rid);
	if (!c->is_fenced) {
		remember_fenced(s, c);
		s->conf.net.drop(s->conf.arg, rid);
	}
	if (is_own(c) && can_be_stopped(c))
		stop_own(s, c);
	else
		reclaim(s, c);
	server_perform(s);
	return 0;
}

int server_fence_fail(struct server *s, uint64_t rid)
{
	struct client *c = client_find(s, rid);

	if (!c || c->state != CLIENT_FENCE_WAIT)
		return -ENOENT;
	stats_inc(&s->conf.stats->fence_fails);
	/* Never serve on with a fence that failed (runtime.md 2): whoever leads next asks for it again. */
	server_fail(s, -EHOSTUNREACH, "a mount could not be fenced");
	return 0;
}

/* Its lease ran out long ago, by a clock that may have run while ours stood still. */
static void lapsed(struct server *s, struct client *c)
{
	uint64_t over_ns = lease_over_in_ns(c);

	if (over_ns > 0) {
		c->deadline_ns = s->now_ns + over_ns;
		return;
	}
	if (is_own(c)) {
		revoke(s, c, before_revoke_own);
		return;
	}
	stats_inc(&s->conf.stats->fence_lapses);
	log_notice("mount %016llx is fenced: its lease is over, and the longest write with it",
		   (unsigned long long)c->info.rid);
	reclaim(s, c);
}

/*
 * Everybody's locks wait for it: so only while it may be writing, whether it comes or not, and long enough for one
 * that is there.
 */
static void expect_no_longer(struct server *s, struct client *c)
{
	uint64_t over_ns = lease_over_in_ns(c);
	uint64_t ns = over_ns > COME_BACK_NS ? over_ns : COME_BACK_NS;

	if (over_ns != LEASE_NEVER && s->now_ns + ns < c->deadline_ns)
		c->deadline_ns = s->now_ns + ns;
}

void client_is_coming(struct server *s, struct client *c)
{
	uint64_t until = s->now_ns + COME_BACK_NS;

	if (c->state != CLIENT_EXPECTED || !c->deadline_ns)
		return;
	if (until > c->come_until_ns)
		until = c->come_until_ns;
	if (until > c->deadline_ns)
		c->deadline_ns = until;
}

int client_expect(struct server *s, const struct mount_info *m, const char *is_over)
{
	struct lockfsm_event ev = { .kind = LOCKFSM_EXPECT, .rid = m->rid };
	struct client *c = client_add(s, m, CLIENT_EXPECTED);
	int ret;

	if (!c)
		return -ENOMEM;
	ret = lockfsm_step(s->locks, &ev);
	if (ret < 0)
		return ret;
	advisory_note(s, ADVFSM_EXPECT, m->rid);
	update_gate(s);
	c->come_until_ns = s->now_ns + s->conf.conf->recovery_timeout_ms * NSEC_PER_MSEC;
	c->deadline_ns = c->come_until_ns;
	lease_found(c);
	expect_no_longer(s, c);
	if (is_over && is_own(c)) {
		/* An earlier server of this instance had blockd refuse it, when its lease was over. */
		c->reason = is_over;
		remember_fenced(s, c);
		revoke(s, c, before_revoke_own);
	} else if (is_over) {
		client_fence(s, c, is_over);
	}
	return 0;
}

/* --- greetings --- */

static bool was_fenced(const struct server *s, uint64_t rid)
{
	for (size_t i = 0; i < s->fenced_nr && i < SERVER_FENCED_MAX; i++) {
		if (s->fenced[i] == rid)
			return true;
	}
	return false;
}

/* Let a known mount in. */
static void welcome(struct server *s, struct client *c)
{
	int ret = s->conf.net.greeted(s->conf.arg, c->info.rid, GREETING_OK);

	if (ret < 0 && ret != -ENOENT)
		log_err("the greeting of mount %016llx could not be answered: %s",
			(unsigned long long)c->info.rid, strerror(-ret));
	c->is_connected = ret == 0;
	if (c->state == CLIENT_UP) {
		c->deadline_ns = 0;
		if (!c->is_connected)
			expect_reconnect(c, s->now_ns);
	}
	lease_greeted(c);
	client_is_coming(s, c);
	if (!c->was_greeted) {
		c->was_greeted = true;
		ret = omap_add_member(s->omap, c->info.rid);
		if (ret < 0) {
			server_fail(s, ret, "the open-inode map could not take a mount");
			return;
		}
		update_gate(s);
		step_locks(s, LOCKFSM_GREETED, c->info.rid);
		advisory_note(s, ADVFSM_GREETED, c->info.rid);
	}
	s->kick_farewells = true;
}

static int before_mount(struct task *task)
{
	const struct server_conf *conf = &of_task(task)->server->conf;

	return conf->rid_is_fenced(conf->arg, of_task(task)->info.rid) > 0 ? -ENOLINK : 0;
}

static int run_mount(struct txn_job *job, struct txn *t)
{
	return mounts_insert(t, &of_job(job)->info);
}

static void mounted(struct task *task, int err)
{
	struct client_task *ct = of_task(task);
	struct server *s = ct->server;
	struct client *c = client_find(s, ct->info.rid);

	free(ct);
	if (err == -ESHUTDOWN || !c || (err < 0 && txn_failed(worker_txn(s->worker), NULL)))
		return;
	if (err < 0) {
		log_err("mount %016llx could not be let in: %s", (unsigned long long)c->info.rid,
			strerror(-err));
		s->conf.net.greeted(s->conf.arg, c->info.rid,
				    err == -ENOLINK ? GREETING_FENCED : GREETING_BUSY);
		client_remove(s, c);
		return;
	}
	stats_inc(&s->conf.stats->greetings_new);
	log_notice("mount %016llx is mounted", (unsigned long long)c->info.rid);
	set_state(c, CLIENT_UP);
	lease_found(c);
	welcome(s, c);
}

static void let_in(struct server *s, const struct mount_info *m)
{
	struct client *c = client_add(s, m, CLIENT_MOUNTING);
	struct client_task *ct;

	if (!c) {
		s->conf.net.greeted(s->conf.arg, m->rid, GREETING_BUSY);
		return;
	}
	ct = make_task(s, m, run_mount, mounted);
	if (!ct)
		return;
	ct->task.before = before_mount;
	worker_submit(s->worker, &ct->task);
}

static void refuse(struct server *s, uint64_t rid)
{
	stats_inc(&s->conf.stats->greetings_fenced);
	log_warning("mount %016llx is told that it was fenced", (unsigned long long)rid);
	s->conf.net.greeted(s->conf.arg, rid, GREETING_FENCED);
}

static void take_greeting(struct server *s, const struct net_greeting *g)
{
	struct mount_info m = { .rid = g->msg.rid, .addr = g->addr,
				.is_quorum = g->msg.flags & GREETING_FLAG_QUORUM,
				.lease_ms = s->conf.conf->lease_ms };
	struct client *c = client_find(s, m.rid);

	if (was_fenced(s, m.rid) || (c && c->is_fenced)) {
		refuse(s, m.rid);
		return;
	}
	if (!c && (g->msg.flags & GREETING_FLAG_FAREWELL)) {
		/* It has left already and only wants to hear so. */
		s->conf.net.greeted(s->conf.arg, m.rid, GREETING_OK);
		return;
	}
	if (!c && g->msg.server_term == 0) {
		let_in(s, &m);
		return;
	}
	if (!c) {
		refuse(s, m.rid);
		return;
	}
	/*
	 * Who has come again as another process has not said farewell yet, and will ask for itself what
	 * has become of what the one before asked: that must not be done after it was told.
	 */
	if (g->restarted) {
		requests_forget(c);
		if (c->state != CLIENT_RECLAIMING)
			c->has_farewell = false;
	}
	switch (c->state) {
	case CLIENT_MOUNTING:
		return;		/* one answer is for all */
	case CLIENT_RECLAIMING:
	case CLIENT_STUCK:
		/* It is leaving; who wants to stay comes again when that is done. */
		if (g->msg.flags & GREETING_FLAG_FAREWELL)
			welcome(s, c);
		else
			s->conf.net.greeted(s->conf.arg, m.rid, GREETING_BUSY);
		return;
	case CLIENT_FENCE_WAIT:
		/* Our own instance's mount, back after all. */
		set_state(c, lockfsm_is_expected(s->locks, m.rid) ? CLIENT_EXPECTED : CLIENT_UP);
		/* fall through */
	case CLIENT_EXPECTED:
	case CLIENT_UP:
		stats_inc(&s->conf.stats->greetings_known);
		if (g->restarted)
			advisory_note(s, ADVFSM_RESTARTED, m.rid);
		welcome(s, c);
		return;
	case CLIENT_REVOKING:
		refuse(s, m.rid);
		return;
	}
}

void server_on_greeting(struct server *s, const struct net_greeting *g)
{
	if (s->state != SERVER_UP)
		return;
	take_greeting(s, g);
	server_perform(s);
}

void client_locks_done(struct server *s, uint64_t rid)
{
	struct client *c = client_find(s, rid);

	if (!c)
		return;
	if (c->state == CLIENT_EXPECTED) {
		set_state(c, CLIENT_UP);
		c->deadline_ns = 0;
		if (!c->is_connected)
			expect_reconnect(c, s->now_ns);
		log_info("mount %016llx is back and has told its locks", (unsigned long long)rid);
	}
	requests_release(c);
	s->kick_farewells = true;
}

void server_on_disconnected(struct server *s, uint64_t rid, uint64_t since_ns)
{
	struct client *c = client_find(s, rid);

	if (!c)
		return;
	c->is_connected = false;
	if (c->state == CLIENT_UP)
		expect_reconnect(c, since_ns);
}

void server_on_reconnected(struct server *s, uint64_t rid)
{
	struct client *c = client_find(s, rid);

	if (!c)
		return;
	c->is_connected = true;
	if (c->state == CLIENT_UP)
		c->deadline_ns = 0;
	else if (c->state == CLIENT_FENCE_WAIT && !c->is_fenced)
		set_state(c, CLIENT_UP);
}

void server_on_left(struct server *s, uint64_t rid)
{
	/* Its farewell was answered, so nothing of it is here but what is stuck. */
	(void)s;
	log_debug("the session of mount %016llx has ended", (unsigned long long)rid);
}

/* --- farewells, 3.4 --- */

void client_farewell(struct server *s, uint64_t rid, uint64_t handle)
{
	struct client *c = client_find(s, rid);

	if (!c || c->state == CLIENT_STUCK) {
		server_respond(s, rid, handle, c ? -EIO : 0, MSG_farewell_reply, NULL);
		return;
	}
	c->has_farewell = true;
	c->farewell_handle = handle;
	s->kick_farewells = true;
}

static bool may_leave(const struct client *c)
{
	return c->has_farewell && c->state == CLIENT_UP;
}

/* Quorum members stay while they are needed for a majority; the last ones leave together. */
static void process_farewells(struct server *s)
{
	size_t quorum_nr = 0, quorum_leaving = 0, others_nr = 0;
	struct client *c, *next;

	s->kick_farewells = false;
	for (c = s->clients; c; c = next) {
		next = c->next;
		if (!c->info.is_quorum && may_leave(c))
			reclaim(s, c);
	}
	for (c = s->clients; c; c = c->next) {
		if (!c->info.is_quorum) {
			others_nr += c->state != CLIENT_RECLAIMING && c->state != CLIENT_STUCK;
			continue;
		}
		if (c->state == CLIENT_RECLAIMING || c->state == CLIENT_STUCK)
			continue;
		quorum_nr++;
		quorum_leaving += may_leave(c);
	}
	for (c = s->clients; c; c = next) {
		bool all = quorum_leaving == quorum_nr && others_nr == 0;

		next = c->next;
		if (!c->info.is_quorum || !may_leave(c) || (quorum_nr <= s->votes_needed && !all))
			continue;
		quorum_nr--;
		quorum_leaving--;
		reclaim(s, c);
	}
}

/* --- time --- */

/* Whether others wait for an answer of a mount, for what its programs have locked, or for its share of a log merge. */
static bool is_waited_for(const struct server *s, const struct client *c)
{
	return c->unanswered || gather_waits_for(s, c) || advisory_waits_for(s, c->info.rid);
}

bool client_must_write(const struct server *s, const struct client *c)
{
	return c->state == CLIENT_UP && !is_own_and_alone(c) && can_be_stopped(c) &&
	       (c->unanswered || (s->gather.is_alarmed && gather_waits_for(s, c)));
}

static bool may_be_given_up(const struct server *s, const struct client *c)
{
	return lease_over_in_ns(c) == 0 && lease_may_judge(s) && !is_own_and_alone(c);
}

static void client_tick(struct server *s, struct client *c)
{
	/* Connected or not: it has let its lease run out. */
	if (c->state == CLIENT_UP && may_be_given_up(s, c) && is_waited_for(s, c)) {
		const char *reason = "others wait for it, and its lease has run out";

		if (can_be_stopped(c)) {
			client_fence(s, c, reason);
			return;
		}
		say_unstoppable(c, reason);
	}
	/* This instance's own mount was waited for while it was the only one, or blockd was an older one. */
	if (c->state == CLIENT_FENCE_WAIT && is_own(c) && !c->is_fenced && may_be_given_up(s, c) &&
	    can_be_stopped(c)) {
		client_fence(s, c, c->reason);
		return;
	}
	if (!c->deadline_ns || s->now_ns < c->deadline_ns)
		return;
	if (c->state == CLIENT_EXPECTED && !lease_may_judge(s)) {
		c->deadline_ns = s->now_ns + COME_BACK_NS;
		return;
	}
	c->deadline_ns = 0;
	switch (c->state) {
	case CLIENT_EXPECTED:
		client_fence(s, c, "it did not come back to this server in time");
		break;
	case CLIENT_UP:
		client_fence(s, c, "its connection was gone for client_timeout_ms");
		break;
	case CLIENT_FENCE_WAIT:
		lapsed(s, c);
		break;
	case CLIENT_STUCK:
		reclaim(s, c);
		break;
	case CLIENT_MOUNTING:
	case CLIENT_REVOKING:
	case CLIENT_RECLAIMING:
		break;
	}
}

void clients_tick(struct server *s)
{
	struct client *next;

	for (struct client *c = s->clients; c; c = next) {
		next = c->next;
		client_tick(s, c);
	}
	while (s->kick_farewells)
		process_farewells(s);
}

uint64_t clients_deadline(const struct server *s)
{
	uint64_t deadline = s->kick_farewells ? 0 : UINT64_MAX;

	for (const struct client *c = s->clients; c; c = c->next) {
		if (c->deadline_ns && c->deadline_ns < deadline)
			deadline = c->deadline_ns;
		/* What else it may be waited for is seen when the loop turns, which it does once a second. */
		if (c->state == CLIENT_UP && c->unanswered && !is_own_and_alone(c)) {
			uint64_t over_ns = lease_over_in_ns(c);

			if (over_ns != LEASE_NEVER && s->now_ns + over_ns + JUDGE_NS < deadline)
				deadline = s->now_ns + over_ns + JUDGE_NS;
		}
	}
	return deadline;
}
