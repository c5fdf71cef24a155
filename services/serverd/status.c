/*
 * Mounts in what serverd says of itself (scoutfsctl status, and the fence agent).
 *
 * Promises: a status has room for few texts, and mounts that must be dead come first: an agent that does not see
 * one never fences it.  Leases are shown as far as there is room; all are in `status --cluster`.
 */
#include "serverd.h"

#include "clock.h"
#include "ctl.h"
#include "fenced.h"

static void add_fence(const struct client *c, struct msg_status_reply *reply)
{
	const struct server_conf *conf = &c->server->conf;
	unsigned long long rid = c->info.rid;
	uint32_t a = c->info.addr;
	char note[160];

	fence_agent_note(conf->conf, rid, note, sizeof(note));
	ctl_add_text(reply, "fence", "%016llx: %s%s%s", rid, c->reason, note[0] ? "; agent: " : "", note);
	/* An agent is not asked to kill its own host. */
	if (rid != conf->rid)
		ctl_add_text(reply, "fence_request", "%016llx %u.%u.%u.%u %s %016llx", rid, a >> 24, a >> 16 & 255,
			     a >> 8 & 255, a & 255, c->was_greeted ? "client_reconnect" : "client_recovery",
			     (unsigned long long)conf->fsid);
}

void status_add_mounts(const struct server *s, struct msg_status_reply *reply)
{
	for (const struct client *c = s->clients; c; c = c->next) {
		if (c->state == CLIENT_FENCE_WAIT)
			add_fence(c, reply);
	}
	for (const struct client *c = s->clients; c; c = c->next) {
		if (c->state == CLIENT_UP || c->state == CLIENT_EXPECTED)
			ctl_add_text(reply, "lease", "mount %016llx: lasts %llu ms%s", (unsigned long long)c->info.rid,
				     (unsigned long long)(lease_left_ns(c) / NSEC_PER_MSEC),
				     c->failing_ms ? "; its devices fail" : "");
	}
}
