/*
 * What must be true of leases, seen from the device: once what a mount had was given to others, nothing that
 * it wrote lands, and it shows nothing that it caches.
 */
#include "lease_world.h"

#include <string.h>

#define RIDS_MAX	1024u
#define BLOCKS_MAX	16u
#define LATELY_NS	(500 * SIM_MS)

struct check_lease {
	const struct sim_disk *disk;
	bool is_reused[RIDS_MAX];
	struct lw_block last[BLOCKS_MAX];	/* what each block shows */
	uint64_t landed_ns[BLOCKS_MAX];
};

static void check(struct sim *s, void *arg, const struct sim_fact *f)
{
	struct check_lease *c = arg;
	struct lw_block b;

	if (f->kind == LW_FACT_MOUNTED) {
		/* One that was given up before it heard that it was mounted has nothing of before. */
		SIM_CHECK(s, f->v[0] < RIDS_MAX, "more rids than the checker has room for");
		c->is_reused[f->v[0]] = false;
	} else if (f->kind == LW_FACT_REUSED) {
		SIM_CHECK(s, !c->is_reused[f->v[0]], "what rid %llu had is given away twice",
			  (unsigned long long)f->v[0]);
		c->is_reused[f->v[0]] = true;
	} else if (f->kind == LW_FACT_SHOWN) {
		SIM_CHECK(s, !c->is_reused[f->v[0]],
			  "rid %llu shows what it caches, and others have it",
			  (unsigned long long)f->v[0]);
	} else if (f->kind == SIM_FACT_LANDED && f->disk == c->disk) {
		memcpy(&b, f->buf, sizeof(b));
		c->landed_ns[f->v[0]] = sim_now(s);
		/* Torn, with nothing of it that is looked at. */
		if (!memcmp(&b, &c->last[f->v[0]], sizeof(b)))
			return;
		c->last[f->v[0]] = b;
		SIM_CHECK(s, !c->is_reused[b.rid], "a write of rid %llu lands on what others have",
			  (unsigned long long)b.rid);
	}
}

struct check_lease *check_lease_new(struct sim *s, const struct sim_disk *disk)
{
	struct check_lease *c = sim_alloc(s, sizeof(*c));

	c->disk = disk;
	sim_watch(s, check, c);
	return c;
}

unsigned check_lease_written(struct sim *s, const struct check_lease *c)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < BLOCKS_MAX; i++)
		nr += c->landed_ns[i] + LATELY_NS > sim_now(s);
	return nr;
}
