/*
 * blockd's side: who may have a write submitted now.
 *
 * Promises: no write of a mount or server is allowed for which nobody said that it may, nor after the time
 * that was said; what was said stays when the writer's process dies, so that its next one goes on within
 * that time, and can be recorded and loaded (the table is plain data).  A mount's kernel goes on showing
 * cached files when the mount's process is dead or stopped: so when its time is over and nobody makes the
 * kernel forget, the connection is to be cut.
 *
 * The table never fills with the dead: an entry whose time is over, whose process is gone, and that has no
 * connection to cut, gives its place to a new one.
 */
#include "lease.h"

#include <errno.h>
#include <string.h>

#include "util/planted.h"

static struct lease_right *find(struct lease_guard *g, uint32_t kind, uint64_t rid)
{
	for (size_t i = 0; i < LEASE_GUARD_MAX; i++) {
		if (g->v[i].kind == kind && g->v[i].rid == rid)
			return &g->v[i];
	}
	return NULL;
}

static bool is_dead(const struct lease_right *r, uint64_t now)
{
	return !r->is_here && !r->fuse_id && now >= r->until_ns;
}

/* The writer's entry, made if it has none; NULL: too many writers. */
static struct lease_right *get(struct lease_guard *g, uint32_t kind, uint64_t rid, uint64_t now)
{
	struct lease_right *r = find(g, kind, rid);

	for (size_t i = 0; i < LEASE_GUARD_MAX && !r; i++) {
		if (g->v[i].kind == 0 || is_dead(&g->v[i], now)) {
			r = &g->v[i];
			*r = (struct lease_right){ .kind = kind, .rid = rid, .since_ns = now };
		}
	}
	return r;
}

const struct lease_right *lease_guard_find(const struct lease_guard *g, uint32_t kind, uint64_t rid)
{
	for (size_t i = 0; i < LEASE_GUARD_MAX; i++) {
		if (g->v[i].kind == kind && g->v[i].rid == rid)
			return &g->v[i];
	}
	return NULL;
}

int lease_guard_set(struct lease_guard *g, uint32_t kind, uint64_t rid, uint64_t term, uint64_t until,
		    uint64_t now)
{
	struct lease_right *r;

	if (until > now && until - now > LEASE_SPAN_MAX_NS)
		return -ERANGE;
	r = get(g, kind, rid, now);
	if (!r)
		return -ENOSPC;
	if (term < r->term || (term == r->term && until <= r->until_ns))
		return 0;
	r->term = term;
	r->until_ns = until;
	r->withdraws_ns = 0;
	r->over_seen_ns = 0;
	return 1;
}

int lease_guard_check(const struct lease_guard *g, uint32_t kind, uint64_t rid, uint64_t term,
		      bool is_server, uint64_t now, uint64_t *until)
{
	const struct lease_right *r = lease_guard_find(g, kind, rid);

	if (!r || (now >= r->until_ns && !PLANTED(lease_never_runs_out)) || (is_server && term != r->term))
		return -EKEYEXPIRED;
	*until = r->until_ns;
	return 0;
}

void lease_guard_here(struct lease_guard *g, uint32_t kind, uint64_t rid, bool is_here, uint64_t now)
{
	struct lease_right *r = find(g, kind, rid);

	if (!r || r->is_here == is_here)
		return;
	r->is_here = is_here;
	r->since_ns = now;
	r->withdraws_ns = 0;
}

int lease_guard_fuse(struct lease_guard *g, uint32_t kind, uint64_t rid, uint32_t fuse_id, uint64_t now)
{
	struct lease_right *r = fuse_id ? get(g, kind, rid, now) : find(g, kind, rid);

	if (!r)
		return fuse_id ? -ENOSPC : 0;
	if (r->fuse_id == fuse_id)
		return 0;
	r->fuse_id = fuse_id;
	r->withdraws_ns = 0;
	return 1;
}

void lease_guard_withdraws(struct lease_guard *g, uint32_t kind, uint64_t rid, uint64_t now)
{
	struct lease_right *r = find(g, kind, rid);

	if (r && !r->withdraws_ns)
		r->withdraws_ns = now;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t cut_ns(const struct lease_right *r, uint64_t grace)
{
	uint64_t late = max_u64(r->until_ns, r->since_ns) + LEASE_LATE_NS, back = r->since_ns + grace;

	if (!r->fuse_id)
		return LEASE_NEVER;
	if (r->is_here)
		return r->withdraws_ns ? r->withdraws_ns + LEASE_WITHDRAW_NS :
					 max_u64(late, r->over_seen_ns + LEASE_LATE_NS);
	return max_u64(r->until_ns, back < late ? back : late);
}

uint32_t lease_guard_next_cut(struct lease_guard *g, uint64_t grace, uint64_t now)
{
	for (size_t i = 0; i < LEASE_GUARD_MAX; i++) {
		struct lease_right *r = &g->v[i];
		uint32_t id = r->fuse_id;

		if (r->kind && !r->over_seen_ns && now >= r->until_ns)
			r->over_seen_ns = now;
		if (now < cut_ns(r, grace))
			continue;
		r->fuse_id = 0;
		return id;
	}
	return 0;
}

uint64_t lease_guard_deadline(const struct lease_guard *g, uint64_t grace)
{
	uint64_t t = LEASE_NEVER;

	for (size_t i = 0; i < LEASE_GUARD_MAX; i++) {
		const struct lease_right *r = &g->v[i];
		uint64_t at = cut_ns(r, grace);

		/* Its end is to be seen, too. */
		if (at != LEASE_NEVER && r->is_here && !r->over_seen_ns && r->until_ns < at)
			at = r->until_ns;
		if (at < t)
			t = at;
	}
	return t;
}
