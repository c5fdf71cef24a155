/*
 * The leases that this server gives: design.md D6.  What is decided stands in lib/core/lease.
 *
 * Promises: a mount is given time only while this server's own lease lasts, which is looked at when the
 * answer is made, not when the loop's turn began; a mount that was given up is given none.  Of a mount that
 * lives by leases (it has greeted us, or the volume says so) it is known when nothing of it can reach a device
 * any more; then what it had may be given to others without anybody's word.
 *
 * How long a mount's leases are at most is written into its mounted_clients item before it is given the first,
 * and no leader gives it longer ones: so a later leader knows of a mount that it never hears for how long
 * its predecessors may have let it write.  This instance's own mount gets none that outlives our own right: it dies
 * with us when the host does, and whoever has waited for the end of our right need not wait for it.  As long as it is
 * silent we wait as long as for any other all the same.
 *
 * A mount whose devices refuse what it must write cannot give back a lock, nor let a log merge begin.  While others wait
 * for its answers, or log trees pile up because of it, it is given no more time, so that it holds them up for as long as one
 * that is silent; it may heal until its lease is over.  Not so where programs wait for what one of its programs has locked
 * (flock): that may be kept on purpose, and is given back without a write.
 *
 * Only where the devices are seen to work elsewhere meanwhile: another mount stores file data, or this server itself can write
 * metadata, and read and flush data, which it tries as long as it matters.  Otherwise they may fail for everybody, and to give
 * the mount up would lose what it has and help nobody.
 *
 * A silence counts against a mount only while we could have heard it: not when this process was stopped itself, nor
 * when its own right had run out, so that it gave nobody anything.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "serverd.h"

#define DEAF_NS		(2 * NSEC_PER_SEC)	/* the loop turns at least once a second */
#define HEARING_NS	(3 * NSEC_PER_SEC)	/* to take in what has come meanwhile, and what is sent again */
/* Between two probes, which the loop may begin a second late; that devices work is believed for so long. */
#define PROBE_NS	(500 * NSEC_PER_MSEC)
#define EVIDENCE_NS	(3 * NSEC_PER_SEC)

static uint64_t boot_now(const struct server *s)
{
	return s->conf.boot_ns ? s->conf.boot_ns(s->conf.arg) : s->now_ns;
}

static uint64_t own_until(const struct server *s)
{
	return s->conf.lease_until_ns ? s->conf.lease_until_ns(s->conf.arg) : LEASE_NEVER;
}

void lease_greeted(struct client *c)
{
	lease_granter_greeted(&c->lease, boot_now(c->server));
}

void lease_found(struct client *c)
{
	const struct server_conf *conf = &c->server->conf;
	uint64_t ms = c->info.lease_ms;

	if (!ms)
		return;
	/*
	 * The mount of a leader that has been waited out: its server gave it none that is not over, nor is one that it
	 * had from a leader before.
	 */
	if (c->state == CLIENT_EXPECTED && conf->lapsed_led_ms &&
	    conf->lapsed_led_ms(conf->arg, c->info.rid) >= ms + ms / 25)
		lease_granter_found(&c->lease, 0, 0);
	else
		lease_granter_found(&c->lease, ms * NSEC_PER_MSEC, boot_now(c->server));
}

/* What a mount is given here. */
static uint32_t usual_ms(const struct server *s, const struct client *c)
{
	uint32_t ms = s->conf.conf->lease_ms;

	return c->info.lease_ms && c->info.lease_ms < ms ? c->info.lease_ms : ms;
}

/* What the mount may be given now. */
static uint32_t length_ms(const struct server *s, const struct client *c, uint64_t now)
{
	uint32_t ms = usual_ms(s, c);
	uint64_t own = own_until(s);

	if (c->info.rid == s->conf.rid && own != LEASE_NEVER && own < now + ms * NSEC_PER_MSEC)
		ms = own > now ? (uint32_t)((own - now) / NSEC_PER_MSEC) : 0;
	return ms;
}

static struct server *of_probe(struct task *task)
{
	return (struct server *)((char *)task - offsetof(struct server, probe.task));
}

/* On the worker's thread. */
static int probe_devices(struct task *task)
{
	return txn_probe(worker_txn(of_probe(task)->worker));
}

static void probed(struct task *task, int err)
{
	struct server *s = of_probe(task);
	struct device_probe *p = &s->probe;

	p->is_running = false;
	p->began_ns = p->begins_ns;
	p->ended_ns = boot_now(s);
	p->err = err;
	if (err == -ESHUTDOWN)
		return;
	if (err == 0) {
		p->is_said = false;
		return;
	}
	stats_inc(&s->conf.stats->device_probe_fails);
	/* These are no device's doing: another server writes, or our right is over. */
	if (err == -ESTALE || err == -EKEYEXPIRED || err == -ENOMEM)
		return;
	if (!p->is_said)
		log_warning("a mount holds up others because its devices fail, and they fail here, too: %s.  It is "
			    "waited for until they work: see to the devices", strerror(-err));
	p->is_said = true;
}

static void probe(struct server *s)
{
	struct device_probe *p = &s->probe;
	uint64_t now = boot_now(s);

	if (p->is_running || (p->ended_ns && now < p->ended_ns + PROBE_NS) || lease_is_right_over(s))
		return;
	stats_inc(&s->conf.stats->device_probes);
	p->is_running = true;
	p->begins_ns = now;
	p->task = (struct task){ .before = probe_devices, .complete = probed };
	worker_submit(s->worker, &p->task);
}

/*
 * A commit that took data blocks has flushed both devices before it was sent.  (Or its mount only promised a file space; then
 * it says nothing of the data device, which few programs do each second.)
 */
void lease_note_trees(struct client *c, const struct disk_log_trees *in, const struct disk_log_trees *out)
{
	if (in && le64_get(in->data_avail.total_len) < c->data_blocks)
		c->data_stored_ns = boot_now(c->server);
	c->data_blocks = le64_get(out->data_avail.total_len);
}

static bool is_evidence(const struct client *against, uint64_t began_ns, uint64_t ended_ns)
{
	return ended_ns && began_ns >= against->failing_since_ns &&
	       ended_ns + EVIDENCE_NS >= boot_now(against->server);
}

/* Whether it has been seen just now, while they failed for that mount. */
static bool do_devices_work(const struct server *s, const struct client *than)
{
	const struct device_probe *p = &s->probe;

	if (p->err == 0 && is_evidence(than, p->began_ns, p->ended_ns))
		return true;
	for (const struct client *c = s->clients; c; c = c->next) {
		if (c != than && c->state == CLIENT_UP && is_evidence(than, c->data_stored_ns, c->data_stored_ns))
			return true;
	}
	return false;
}

static void take_failing(struct client *c, uint32_t ms)
{
	uint64_t now = boot_now(c->server), ns = ms * NSEC_PER_MSEC;

	if (!ms || ms < c->failing_ms || !c->failing_ms)
		c->failing_since_ns = now > ns ? now - ns : 0;
	c->failing_ms = ms;
	if (!ms)
		c->is_withheld = false;
}

/* Whether the mount's lease must run out, unless it can write before that. */
static bool must_withhold(struct server *s, struct client *c)
{
	if (!c->failing_ms || !client_must_write(s, c))
		return false;
	probe(s);
	if (!do_devices_work(s, c))
		return false;
	if (!c->is_withheld)
		log_warning("mount %016llx (%u.%u.%u.%u) holds up others, and its devices have refused what it must write for "
			    "%.1f s: it gets no more time before it can.  See to the devices of that host",
			    (unsigned long long)c->info.rid, c->info.addr >> 24, c->info.addr >> 16 & 255,
			    c->info.addr >> 8 & 255, c->info.addr & 255, (double)c->failing_ms / 1e3);
	c->is_withheld = true;
	return true;
}

void lease_request(struct server *s, struct client *c, uint64_t handle, const struct msg_lease *m)
{
	uint64_t now = boot_now(s);
	struct msg_lease_reply reply = { .lease_ms = length_ms(s, c, now) };
	int ret = -EAGAIN;

	take_failing(c, m->failing_ms);
	if (!c->lease.is_closed && must_withhold(s, c)) {
		stats_inc(&s->conf.stats->leases_withheld);
		server_respond(s, c->info.rid, handle, ret, MSG_lease_reply, &reply);
		return;
	}
	/* What is left of our own right may be too short to be one: asked again, there is more. */
	if (reply.lease_ms >= LEASE_MS_MIN || c->lease.is_closed)
		ret = lease_granter_grant(&c->lease, usual_ms(s, c) * NSEC_PER_MSEC, own_until(s), now);
	if (ret == 0)
		stats_inc(&s->conf.stats->leases_given);
	else
		stats_inc(&s->conf.stats->leases_refused);
	server_respond(s, c->info.rid, handle, ret, MSG_lease_reply, &reply);
}

uint64_t lease_over_in_ns(const struct client *c)
{
	uint64_t over = lease_granter_over_ns(&c->lease, c->server->conf.conf->longest_io_ms * NSEC_PER_MSEC);
	uint64_t now = boot_now(c->server);

	if (over == LEASE_NEVER)
		return LEASE_NEVER;
	return over > now ? over - now : 0;
}

void lease_tick(struct server *s)
{
	uint64_t now = boot_now(s);

	if ((s->ticked_ns && now > s->ticked_ns + DEAF_NS) || now >= own_until(s))
		s->judge_from_ns = now + HEARING_NS;
	s->ticked_ns = now;
	for (const struct client *c = s->clients; c; c = c->next) {
		if (c->failing_ms && client_must_write(s, c))
			probe(s);
	}
}

bool lease_is_right_over(const struct server *s)
{
	return boot_now(s) >= own_until(s);
}

bool lease_may_judge(const struct server *s)
{
	return boot_now(s) >= s->judge_from_ns;
}

uint64_t lease_left_ns(const struct client *c)
{
	uint64_t now = boot_now(c->server);

	return c->lease.until_ns > now ? c->lease.until_ns - now : 0;
}
