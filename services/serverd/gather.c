/*
 * Log merges as the loop sees them: when the worker may begin one, who is asked to commit so that it can,
 * who waits meanwhile, and the work that nobody asks for.  runtime.md 7.1, 7.2.
 *
 * Promises: a commit is answered when it is stored, whatever a merge waits for; what waits is the
 * opening of the mount's next transaction, log_merge_wait_timeout_ms at most.  An attempt that fails
 * costs each mount that took part one more log tree, so they are made only while every mount is there
 * and none leaves, and after failures further and further apart.  Nothing here must survive this server: what is
 * wanted is seen again on the volume, and who waited asks again.
 *
 * An attempt begins when a mount's tree was finished and others' are not yet.  Those are asked to commit,
 * and find the gate closed behind themselves when they have; the last of them begins the merge
 * (merge.c) and everybody's next transaction is opened.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "serverd.h"

/* Between attempts that failed: that long, twice as long after each, up to 64 times. */
#define RETRY_NS	(5 * NSEC_PER_SEC)
#define RETRY_SHIFT_MAX	6u
/* An operator hears of it then. */
#define FAILURES_SAID	5u
/* Between the end of a merge and the next one: a full device would ask for one with every commit. */
#define PAUSE_NS	NSEC_PER_SEC
/* A merge that is wanted is begun after that long without a commit that does. */
#define IDLE_NS		(3 * NSEC_PER_SEC)
/*
 * After that long without any commit what lies in log trees is merged, little as it may be: reading gets
 * cheaper, and what was deleted is given back.
 */
#define QUIET_NS	(15 * NSEC_PER_SEC)
/* Work in the background: between looks at a merge that runs, and between slices of freeing. */
#define LOOK_NS		NSEC_PER_SEC
#define SLICE_NS	(20 * NSEC_PER_MSEC)
/* Finished trees that no merge takes make reading slow. */
#define TREES_ALARM	64u

struct work_task {
	struct task task;
	struct server *server;
};

void gather_init(struct server *s)
{
	s->gather = (struct gather){
		.policy = { .min_height = s->conf.conf->log_merge_min_height,
			    .min_trees = s->conf.conf->log_merge_min_trees },
	};
}

/*
 * Whether every mount is there to take part.  One that leaves commits no more, and its tree is finished when its resources
 * are given back: nobody is to wait for that, and soon it is gone.
 */
static bool all_are_there(const struct server *s)
{
	for (const struct client *c = s->clients; c; c = c->next) {
		if (c->state == CLIENT_MOUNTING)
			continue;
		if (c->state != CLIENT_UP || !c->is_connected || c->is_closing)
			return false;
	}
	return true;
}

static void release_all(struct server *s)
{
	for (struct client *c = s->clients; c; c = c->next)
		requests_release_gathering(c);
}

/* Ask a mount to commit, whether it has something to commit or not. */
static void nudge(struct server *s, struct client *c)
{
	static const struct msg_sync_log_trees sync;

	stats_inc(&s->conf.stats->log_merge_nudges);
	server_ask(s, c->info.rid, MSG_sync_log_trees, &sync, 0);
}

void gather_note(struct server *s, const struct merge_gate *gate)
{
	struct gather *g = &s->gather;

	if (!atomic_load(&g->policy.may_begin))
		return;
	if (!g->deadline_ns) {
		g->attempt++;
		g->deadline_ns = s->now_ns +
				 s->conf.conf->log_merge_wait_timeout_ms * NSEC_PER_MSEC;
	}
	memcpy(g->active, gate->active, sizeof(g->active));
	g->active_nr = gate->active_nr;
	for (unsigned i = 0; i < gate->active_nr; i++) {
		struct client *c = client_find(s, gate->active[i]);

		if (!c || c->nudged == g->attempt)
			continue;
		c->nudged = g->attempt;
		nudge(s, c);
	}
}

/* Whether nobody has committed for long, but because a nudge of ours asked for it. */
static bool is_quiet(struct server *s, const struct txn_view *v)
{
	struct gather *g = &s->gather;
	uint64_t seq = le64_get(v->super.hdr.seq);

	if ((seq != g->commit_seq && !g->is_nudged) || v->merge.is_running || v->merge.freeing)
		g->commit_ns = s->now_ns;
	if (seq != g->commit_seq)
		g->is_nudged = false;
	g->commit_seq = seq;
	return s->now_ns >= g->commit_ns + QUIET_NS;
}

/*
 * A merge is wanted and nobody commits, after a big delete that was the last for a while perhaps: then
 * one mount is asked to.  Its commit begins the merge, or an attempt.
 */
static void begin_when_idle(struct server *s, const struct txn_view *v)
{
	struct gather *g = &s->gather;
	bool quiet = is_quiet(s, v);

	atomic_store(&g->policy.is_idle, quiet && g->is_nudged);
	if (!atomic_load(&g->policy.may_begin) || g->deadline_ns || v->merge.is_running ||
	    !(merge_is_wanted(&g->policy, (unsigned)v->height_max, v->finished_trees_nr, v->meta_is_low) ||
	      (quiet && v->height_max >= MERGE_IDLE_HEIGHT))) {
		g->idle_since_ns = 0;
		return;
	}
	if (!g->idle_since_ns)
		g->idle_since_ns = s->now_ns;
	if (s->now_ns < g->idle_since_ns + IDLE_NS)
		return;
	g->idle_since_ns = s->now_ns;
	for (struct client *c = s->clients; c; c = c->next) {
		if (c->state == CLIENT_UP) {
			g->is_nudged = true;
			atomic_store(&g->policy.is_idle, quiet);
			nudge(s, c);
			return;
		}
	}
}

static void attempt_failed(struct server *s)
{
	struct gather *g = &s->gather;
	unsigned shift = g->failures < RETRY_SHIFT_MAX ? g->failures : RETRY_SHIFT_MAX;

	g->deadline_ns = 0;
	g->failures++;
	g->next_try_ns = s->now_ns + (RETRY_NS << shift);
	stats_inc(&s->conf.stats->log_merge_wait_timeout);
	if (g->failures == FAILURES_SAID && g->active_nr)
		log_warning("no log merge can begin, and log trees pile up: mount %016llx%s not commit "
			    "within %u ms when asked to; see its host's status, or raise "
			    "log_merge_wait_timeout_ms", (unsigned long long)g->active[0],
			    g->active_nr > 1 ? " and others do" : " does",
			    s->conf.conf->log_merge_wait_timeout_ms);
}

/*
 * Room is there again.  Mounts refuse to allocate as long as their own lists say LOW, and an idle one would
 * hear of it only with its next commit.
 */
static void tell_if_not_low(struct server *s, const struct txn_view *v)
{
	struct gather *g = &s->gather;

	for (struct client *c = s->clients; c && g->was_low && !v->meta_is_low; c = c->next) {
		if (c->state == CLIENT_UP)
			nudge(s, c);
	}
	g->was_low = v->meta_is_low;
}

/* A merge begins or ends with a commit; both are seen in what that has published. */
static void look_at(struct server *s, const struct txn_view *v)
{
	struct gather *g = &s->gather;

	if (v->merge.is_running && !g->was_running) {
		stats_inc(&s->conf.stats->log_merge_start);
		log_info("log merge %llu has begun: %llu finished log trees",
			 (unsigned long long)v->merge.seq,
			 (unsigned long long)v->finished_trees_nr);
		g->running_since_ns = s->now_ns;
		g->deadline_ns = 0;
		g->failures = 0;
	} else if (!v->merge.is_running && g->was_running) {
		stats_inc(&s->conf.stats->log_merge_complete);
		log_info("the log merge is finished after %llu ms; %llu log trees are left",
			 (unsigned long long)((s->now_ns - g->running_since_ns) / NSEC_PER_MSEC),
			 (unsigned long long)v->log_trees_nr);
		g->next_try_ns = s->now_ns + PAUSE_NS;
	}
	g->was_running = v->merge.is_running;
	if (v->finished_trees_nr >= TREES_ALARM && !v->merge.is_running && !g->is_alarmed)
		log_warning("%llu finished log trees wait for a merge that does not begin: reading gets "
			    "slow; see that all mounts are reachable",
			    (unsigned long long)v->finished_trees_nr);
	g->is_alarmed = v->finished_trees_nr >= TREES_ALARM;
}

/* --- in the background --- */

static int run_work(struct txn_job *job, struct txn *t)
{
	(void)job;
	return merge_background(t);
}

static void worked(struct task *task, int err)
{
	struct work_task *wt = (struct work_task *)((char *)task - offsetof(struct work_task, task));
	struct server *s = wt->server;

	free(wt);
	if (err == -ESHUTDOWN)
		return;
	s->gather.is_working = false;
	if (err == 0 || txn_failed(worker_txn(s->worker), NULL))
		return;
	/* Full, or short of memory: both pass.  A damaged tree does not, and is for check. */
	s->gather.work_at_ns = s->now_ns + (err == -ENOSPC || err == -ENOMEM ? LOOK_NS : 60 * LOOK_NS);
	if (err != -ENOSPC && err != -ENOMEM)
		log_err("merged log trees cannot be freed, or a merge not finished: %s; run scoutfsctl "
			"check when the volume is not in use", strerror(-err));
}

static void work(struct server *s, const struct txn_view *v)
{
	struct gather *g = &s->gather;
	struct work_task *wt;

	if (g->is_working)
		return;
	if (!v->merge.freeing && !v->merge.is_running) {
		g->work_at_ns = 0;
		return;
	}
	if (!g->work_at_ns)
		g->work_at_ns = s->now_ns + (v->merge.freeing ? SLICE_NS : LOOK_NS);
	if (s->now_ns < g->work_at_ns)
		return;
	g->work_at_ns = 0;
	wt = calloc(1, sizeof(*wt));
	if (!wt)
		return;		/* the next turn tries again */
	wt->server = s;
	wt->task.job.run = run_work;
	wt->task.complete = worked;
	g->is_working = true;
	worker_submit(s->worker, &wt->task);
}

void gather_tick(struct server *s)
{
	struct gather *g = &s->gather;
	struct txn_view v;

	txn_get_view(worker_txn(s->worker), &v);
	look_at(s, &v);
	g->is_wanted = !v.merge.is_running && merge_is_wanted(&g->policy, (unsigned)v.height_max,
							      v.finished_trees_nr, v.meta_is_low);
	if (g->deadline_ns && s->now_ns >= g->deadline_ns)
		attempt_failed(s);
	atomic_store(&g->policy.may_begin, s->now_ns >= g->next_try_ns && all_are_there(s));
	if (!g->deadline_ns || !atomic_load(&g->policy.may_begin)) {
		g->deadline_ns = 0;
		release_all(s);
	}
	tell_if_not_low(s, &v);
	begin_when_idle(s, &v);
	work(s, &v);
}

bool gather_waits_for(const struct server *s, const struct client *c)
{
	const struct gather *g = &s->gather;
	bool waits = g->was_running ? c->has_merge_work : g->is_wanted && !c->is_connected;

	for (unsigned i = 0; i < g->active_nr && !g->was_running && g->is_wanted; i++)
		waits = waits || g->active[i] == c->info.rid;
	return waits;
}

uint64_t gather_deadline(const struct server *s)
{
	const struct gather *g = &s->gather;
	uint64_t at = g->deadline_ns ? g->deadline_ns : UINT64_MAX;

	return g->work_at_ns && g->work_at_ns < at ? g->work_at_ns : at;
}
