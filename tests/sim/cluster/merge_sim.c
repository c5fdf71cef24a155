/*
 * A mount's share of log merges (services/fsd/merge.c without its thread): it asks for work, applies the
 * inputs in steps with time between them, writes, flushes and hands in.  It may die at each write, give
 * work up, and be overtaken by a merge that went on without it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log/merge_items.h"
#include "merge/merge.h"
#include "mount_sim.h"

#define POLL_NS		(2 * SIM_SEC)
#define STEP_ITEMS	8u
#define CLEAN_MAX	64u

struct merge_sim {
	struct mount_sim *m;
	struct block_set *bs;
	struct merge_run *run;
	struct merge_request req;
	struct disk_btree_root logs_root;
	bool is_asking, is_working, has_ended;
};

static void ask(struct merge_sim *x);
static void step(struct sim *s, void *arg, uint64_t value);

static void step_later(struct merge_sim *x)
{
	sim_call_proc(sim_of(x->m), x->m->node->proc, sim_rnd(sim_of(x->m), 20 * SIM_MS), step, x->m, 0);
}

static void end_run(struct merge_sim *x)
{
	if (x->run)
		merge_run_close(x->run);
	x->run = NULL;
	if (x->bs)
		block_set_abort(x->bs);
}

static bool is_over(const struct merge_sim *x, int err)
{
	return err == -ESHUTDOWN || err == -ENOLINK || x->has_ended;
}

static void handed_in(void *arg, int err, unsigned type, const void *reply)
{
	struct merge_sim *x = arg;

	(void)type, (void)reply;
	if (is_over(x, err))
		return;
	x->is_working = false;
	/* ENOENT: the merge went on without us. */
	SIM_CHECK(sim_of(x->m), err == 0 || err == -ENOENT, "work of a merge is refused: %d", err);
	ask(x);
}

static void hand_in(struct merge_sim *x, const struct merge_complete *comp)
{
	struct msg_commit_log_merge msg;

	merge_complete_put(comp, &msg.complete);
	mount_call(x->m, MSG_commit_log_merge, &msg, handed_in, x);
}

static void give_up(struct merge_sim *x)
{
	struct merge_complete comp;

	end_run(x);
	merge_run_give_up(&x->req, &comp);
	hand_in(x, &comp);
}

static void roots_came(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_get_roots_reply *r = reply;
	struct merge_sim *x = arg;

	(void)type;
	if (is_over(x, err))
		return;
	SIM_CHECK(sim_of(x->m), err == 0, "roots are refused: %d", err);
	if (memcmp(&x->logs_root, &r->logs_root, sizeof(x->logs_root)) == 0) {
		sim_trace(sim_of(x->m), x->m->node->proc, "inputs of a merge are gone");
		give_up(x);
		return;
	}
	x->logs_root = r->logs_root;
	step_later(x);
}

/* What went wrong with the run: old roots, or something that must not be. */
static void went_wrong(struct merge_sim *x, int err)
{
	end_run(x);
	SIM_CHECK(sim_of(x->m), err == -ESTALE, "work of a merge fails: %d", err);
	mount_call(x->m, MSG_get_roots, NULL, roots_came, x);
}

static void finish(struct merge_sim *x)
{
	struct merge_complete comp;
	int ret;

	merge_run_result(x->run, &comp);
	ret = block_set_write(x->bs);
	if (ret == 0)
		ret = vol_flush(x->m->node);
	merge_run_close(x->run);
	x->run = NULL;
	if (ret == 0)
		hand_in(x, &comp);
	else
		SIM_CHECK(sim_of(x->m), x->m->node->is_zombie ||
				     vol_is_revoked(x->m->node->cl->vol, x->m->rid),
			  "work of a merge cannot be written: %d", ret);
}

static void step(struct sim *s, void *arg, uint64_t value)
{
	struct mount_sim *m = arg;
	struct merge_sim *x = m->merge;
	int ret = 0;

	(void)value;
	node_enter(m->node);
	if (x->has_ended)
		goto out;
	if (!x->run)
		ret = merge_run_open(&x->run, x->bs, &x->req, &x->logs_root,
				     16 + (size_t)sim_rnd(s, 64));
	if (ret < 0)
		x->run = NULL;
	else
		ret = merge_run_step(x->run, 1 + (unsigned)sim_rnd(s, STEP_ITEMS));
	if (ret < 0)
		went_wrong(x, ret);
	else if (sim_is_faulty(s) && sim_chance(s, 20))
		give_up(x);
	else if (ret == 1)
		finish(x);
	else
		step_later(x);
out:
	node_leave(m->node);
}

static void work_came(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_get_log_merge_reply *r = reply;
	struct merge_sim *x = arg;
	struct item it;
	const char *why;

	(void)type;
	x->is_asking = false;
	if (is_over(x, err))
		return;
	SIM_CHECK(sim_of(x->m), err == 0, "work of a merge is not given: %d", err);
	if (!r->has_work)
		return;
	it = (struct item){ .key = { .zone = ZONE_MERGE_REQUEST, .first = x->m->rid,
				     .second = le64_get(r->request.seq) },
			    .val = &r->request, .val_len = sizeof(r->request) };
	SIM_CHECK(sim_of(x->m), merge_request_get(&it, &x->req, &why) == 0,
		  "a request of a merge makes no sense: %s", why);
	sim_trace(sim_of(x->m), x->m->node->proc, "works on a merge, request %llu",
		  (unsigned long long)x->req.seq);
	x->is_working = true;
	x->logs_root = x->req.logs_root;
	step_later(x);
}

static void ask(struct merge_sim *x)
{
	if (x->is_asking || x->is_working || x->has_ended)
		return;
	x->is_asking = true;
	mount_call(x->m, MSG_get_log_merge, NULL, work_came, x);
}

static void poll(struct sim *s, void *arg, uint64_t value)
{
	struct mount_sim *m = arg;

	(void)value;
	node_enter(m->node);
	if (!m->merge->has_ended) {
		ask(m->merge);
		sim_call_proc(s, m->node->proc, POLL_NS / 2 + sim_rnd(s, POLL_NS), poll, m, 0);
	}
	node_leave(m->node);
}

void merge_sim_start(struct mount_sim *m)
{
	struct block_dev dev = vol_dev(m->node);
	struct merge_sim *x = sim_alloc(m->node->sim, sizeof(*x));

	x->m = m;
	SIM_CHECK(m->node->sim,
		  block_set_open(&x->bs, &dev, CLUSTER_FSID, CLUSTER_META_BLOCKS, CLEAN_MAX) == 0,
		  "no memory");
	m->merge = x;
	sim_call_proc(m->node->sim, m->node->proc, sim_rnd(m->node->sim, POLL_NS), poll, m, 0);
}

void merge_sim_end(struct mount_sim *m)
{
	struct merge_sim *x = m->merge;

	if (!x || x->has_ended)
		return;
	x->has_ended = true;
	end_run(x);
	block_set_close(x->bs);
	x->bs = NULL;
}
