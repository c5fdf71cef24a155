/*
 * What blockd tells of itself on its status socket.  Runs on the thread of that socket: it reads only
 * atomics, what never changes, and leases under their lock.
 */
#include "blockd.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "conf.h"
#include "ctl.h"

STATS_DESCS(blockd_stats, BLOCKD_STATS);

static void fill_status(void *arg, struct msg_status_reply *r)
{
	struct blockd *d = arg;
	unsigned held = d->controls_held;
	unsigned ios = d->ios_nr;

	r->since_ms = (clock_mono_ns() - d->started_ns) / NSEC_PER_MSEC;
	if (d->is_stopping) {
		snprintf(r->state, sizeof(r->state), "stopping");
		snprintf(r->waiting_for, sizeof(r->waiting_for), "%u operations on the devices to end", ios);
	} else {
		snprintf(r->state, sizeof(r->state), "serving volume %016llx to %u clients",
			 (unsigned long long)d->vol.fsid, d->conns_nr);
		if (held > 0)
			snprintf(r->waiting_for, sizeof(r->waiting_for),
				 "%u requests of clients wait for operations on the devices to end", held);
	}

	ctl_add_text(r, "engine", "%s", engine_name(d->engine));
	for (unsigned i = 0; i < BLK_DEVS_NR; i++) {
		const struct device *dev = &d->vol.dev[i];

		ctl_add_text(r, dev->name, "%s, %s", dev->path,
			     dev->is_direct ? "direct I/O" : "through the page cache");
	}
	ctl_add_value(r, "clients", d->conns_nr);
	ctl_add_value(r, "ios_in_flight", ios);
	ctl_add_value(r, "requests_held", held);
	ctl_add_value(r, "pool_bytes", d->pool.bytes);
	ctl_add_value(r, "min_term", d->tokens.min_term);
	ctl_add_value(r, "rids_revoked", d->tokens.revoked_nr);
	leases_fill_status(d, r);
	CTL_ADD_STATS(r, blockd_stats, &d->stats);
}

int status_start(struct blockd *d)
{
	static const struct ctl_ops ops = { .fill_status = fill_status };

	return ctl_start(&d->ctl, d->conf, "blockd", &ops, d);
}
