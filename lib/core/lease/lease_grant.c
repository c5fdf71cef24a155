/*
 * The leader's side of one mount's lease.
 *
 * Promises: nothing is given while the leader's own right has run out, nor to a mount that was given up;
 * and when it says that all is over, no write of that mount can reach a device any more, whatever leader
 * gave it its time, if the mount's clock and ours drift no further than lease_drift_ns and no write takes
 * longer than the longest.
 */
#include "lease.h"

#include <errno.h>

#include "util/planted.h"

#define MS	1000000ull

static void reach(struct lease_granter *g, uint64_t lease_ns, uint64_t now)
{
	uint64_t until = now + lease_ns + lease_drift_ns(lease_ns);

	if (until > g->until_ns)
		g->until_ns = until;
}

void lease_granter_greeted(struct lease_granter *g, uint64_t now)
{
	if (!g->lives_by_leases && !PLANTED(lease_of_earlier_leaders_forgotten))
		reach(g, LEASE_MS_MAX * MS, now);
	g->lives_by_leases = true;
}

void lease_granter_found(struct lease_granter *g, uint64_t lease_ns, uint64_t now)
{
	reach(g, lease_ns, now);
	g->lives_by_leases = true;
}

int lease_granter_grant(struct lease_granter *g, uint64_t lease_ns, uint64_t own_until, uint64_t now)
{
	if (g->is_closed)
		return -ENOLINK;
	if (now >= own_until)
		return -EAGAIN;
	g->lives_by_leases = true;
	reach(g, lease_ns, now);
	return 0;
}

void lease_granter_close(struct lease_granter *g)
{
	g->is_closed = true;
}

uint64_t lease_granter_over_ns(const struct lease_granter *g, uint64_t longest_io)
{
	return g->lives_by_leases ? g->until_ns + longest_io : LEASE_NEVER;
}
