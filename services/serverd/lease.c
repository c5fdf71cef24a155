/*
 * The leases that this server gives: design.md D6.  What is decided stands in lib/core/lease.
 *
 * Promises: a mount is given time only while this server's own lease lasts, which is looked at when the
 * answer is made, not when the loop's turn began; a mount that was given up is given none.  Of a mount that
 * has greeted us (so it lives by leases) it is known when nothing of it can reach a device any more; then
 * what it had may be given to others without anybody's word.
 */
#include <errno.h>

#include "clock.h"
#include "log.h"
#include "serverd.h"

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

void lease_request(struct server *s, struct client *c, uint64_t handle)
{
	struct msg_lease_reply reply = { .lease_ms = s->conf.conf->lease_ms };
	int ret = lease_granter_grant(&c->lease, reply.lease_ms * NSEC_PER_MSEC, own_until(s), boot_now(s));

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

uint64_t lease_left_ns(const struct client *c)
{
	uint64_t now = boot_now(c->server);

	return c->lease.until_ns > now ? c->lease.until_ns - now : 0;
}
