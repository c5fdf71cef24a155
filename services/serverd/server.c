/*
 * The life of one term's server: STARTING (open the volume, see who was mounted), UP (listen), STOPPING
 * (finish the commit that runs), DOWN.  runtime.md 3.6, 1.5.
 *
 * Promises: nothing is written before blockd refuses older terms; nobody is served before the volume was
 * read under this term; an error that leaves it unclear what is on the device stops the server, and
 * what was asked meanwhile is not answered, so that the next server is asked.
 *
 * Lock actions are queued by the machine and done by server_perform() at the end of every entry, because
 * some of them lead back into it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "advisory.h"
#include "format/super.h"
#include "log.h"
#include "serverd.h"

/*
 * Sequence numbers left out when there were mounts before: a write_seq that an earlier server gave and nothing
 * on the volume, nor any mount that reports its locks, remembers is not given again (runtime 4, Must hold).
 * A server gives that many between two commits only after hours.
 */
#define SEQ_GAP			(1ull << 32)

/* Who was mounted, and whose log tree lies around. */
struct start_task {
	struct task task;
	struct server *server;
	struct found {
		struct mount_info info;
		bool is_mounted;
		const char *is_over;	/* why nobody waits for it; NULL: it may come back */
	} *found;
	size_t nr, max;
};

struct finalize_task {
	struct task task;
	struct server *server;
	uint64_t rid;
};

void server_fail(struct server *s, int err, const char *what)
{
	if (s->state == SERVER_DOWN || s->err)
		return;
	log_err("the server of term %llu stops: %s: %s", (unsigned long long)s->conf.term, what,
		strerror(-err));
	s->err = err;
	server_stop(s);
}

void server_respond(struct server *s, uint64_t rid, uint64_t handle, int err, unsigned type,
		    const void *msg)
{
	int ret = s->is_listening ?
		  s->conf.net.respond(s->conf.arg, rid, handle, err, type, msg) : 0;

	/* A request without an answer would hang its mount for ever. */
	if (ret < 0 && ret != -ENOENT && ret != -EINVAL)
		server_fail(s, ret, "a request could not be answered");
}

void server_ask(struct server *s, uint64_t rid, unsigned type, const void *msg, uint64_t tag)
{
	int ret = s->is_listening ? s->conf.net.request(s->conf.arg, rid, type, msg, tag) : 0;
	struct client *c = client_find(s, rid);

	/* Nobody waits for a commit that was asked for: a merge goes on without, the change index lags behind. */
	if (ret == 0 && c && type != MSG_sync_log_trees)
		c->unanswered++;
	if (ret == 0 || ret == -ENOENT)	/* gone: its fence or farewell goes on without the answer */
		return;
	if (ret == -EBUSY && c && !c->is_fenced)
		client_fence(s, c, "it does not answer what it is asked");
	else if (ret != -EBUSY)
		server_fail(s, ret, "a mount could not be asked");
}

/* --- the pure machines --- */

static void emit_lock(void *arg, const struct lockfsm_act *act)
{
	struct server *s = arg;

	if (s->acts_nr == s->acts_max) {
		size_t max = s->acts_max ? s->acts_max * 2 : 256;
		struct lockfsm_act *acts = realloc(s->acts, max * sizeof(*acts));

		if (!acts) {
			server_fail(s, -ENOMEM, "a lock could not be granted");
			return;
		}
		s->acts = acts;
		s->acts_max = max;
	}
	s->acts[s->acts_nr++] = *act;
}

static uint64_t lock_next_seq(void *arg)
{
	return seq_next(&((struct server *)arg)->seq);
}

static void lock_raise_seq(void *arg, uint64_t seq)
{
	seq_raise(&((struct server *)arg)->seq, seq);
}

static void emit_omap(void *arg, const struct omap_act *act)
{
	struct server *s = arg;

	if (act->kind == OMAP_ASK) {
		struct msg_open_ino_map_query m = { .group = act->group, .has_directories = act->has_directories };

		server_ask(s, act->rid, MSG_open_ino_map_query, &m, act->id);
	} else {
		struct msg_open_ino_map_reply m;

		memcpy(m.bits.bytes, act->bits, OMAP_BYTES);
		server_respond(s, act->rid, act->handle, 0, MSG_open_ino_map_reply, &m);
	}
}

/*
 * What the last holder has committed was stable before it answered; so who is granted the lock may read from the roots of now,
 * and is spared a question.
 */
static void respond_grant(struct server *s, const struct lockfsm_act *act)
{
	struct msg_lock_reply granted = { .key = act->key, .old_mode = act->old_mode, .new_mode = act->new_mode,
					  .write_seq = act->write_seq };
	struct txn_view v;

	if (act->new_mode != LOCKFSM_NULL) {
		txn_get_view(worker_txn(s->worker), &v);
		granted.has_roots = true;
		granted.fs_root = v.super.fs_root;
		granted.logs_root = v.super.logs_root;
		granted.srch_root = v.super.srch_root;
		granted.log_merge = v.super.log_merge;
	}
	server_respond(s, act->rid, act->handle, 0, MSG_lock_reply, &granted);
}

static void perform(struct server *s, const struct lockfsm_act *act)
{
	struct msg_lock_invalidate invalidate = { act->key, act->old_mode, act->new_mode };
	struct msg_lock_recover recover = { act->key };
	struct client *c;

	switch (act->kind) {
	case LOCKFSM_GRANT:
		respond_grant(s, act);
		break;
	case LOCKFSM_INVALIDATE:
		server_ask(s, act->rid, MSG_lock_invalidate, &invalidate, 0);
		break;
	case LOCKFSM_ASK:
		server_ask(s, act->rid, MSG_lock_recover, &recover, 0);
		break;
	case LOCKFSM_RID_DONE:
		client_locks_done(s, act->rid);
		break;
	case LOCKFSM_ALL_DONE:
		log_info("all locks of the mounts are known; granting goes on");
		break;
	case LOCKFSM_LIED:
		c = client_find(s, act->rid);
		if (c && !c->is_fenced)
			client_fence(s, c, "it told of locks that it cannot have");
		break;
	}
}

void server_perform(struct server *s)
{
	if (s->is_performing)
		return;
	s->is_performing = true;
	for (size_t i = 0; i < s->acts_nr; i++) {
		struct lockfsm_act act = s->acts[i];	/* the array may move */

		perform(s, &act);
	}
	s->acts_nr = 0;
	advisory_perform(s);
	s->is_performing = false;
}

/* --- starting --- */

static int open_volume(void *arg, struct txn **t, const char **why)
{
	struct server *s = arg;
	int ret;

	*why = "blockd does not take this term";
	ret = s->conf.set_term(s->conf.arg, s->conf.term);
	if (ret < 0)
		return ret;
	return txn_open(t, &s->conf.dev, &s->seq, s->conf.fsid,
			(unsigned)(s->conf.conf->server_cache_size >> LARGE_SHIFT), why);
}

static bool tasks_done(void *arg)
{
	struct server *s = arg;

	return s->conf.tasks_done(s->conf.arg);
}

static bool worker_idle(void *arg, int wake_fd)
{
	struct server *s = arg;

	return s->conf.worker_idle(s->conf.arg, wake_fd);
}

static struct start_task *start_of(struct txn_job *job)
{
	return (struct start_task *)((char *)job - offsetof(struct start_task, task.job));
}

static int add_found(struct start_task *st, const struct mount_info *m, bool is_mounted)
{
	if (st->nr == st->max) {
		size_t max = st->max ? st->max * 2 : 64;
		struct found *found = realloc(st->found, max * sizeof(*found));

		if (!found)
			return -ENOMEM;
		st->found = found;
		st->max = max;
	}
	st->found[st->nr++] = (struct found){ .info = *m, .is_mounted = is_mounted };
	return 0;
}

static int add_mounted(void *arg, const struct mount_info *m)
{
	struct start_task *st = arg;
	const struct server_conf *conf = &st->server->conf;
	int ret = add_found(st, m, true);

	if (ret < 0)
		return ret;
	if (m->rid != conf->rid && conf->rid_is_ours(conf->arg, m->rid) > 0)
		st->found[st->nr - 1].is_over = "it was a mount of this host, and this host has started anew";
	else if (conf->rid_is_fenced(conf->arg, m->rid) > 0)
		st->found[st->nr - 1].is_over = "it is known to be fenced";
	return 0;
}

static int add_abandoned(void *arg, uint64_t rid)
{
	struct mount_info m = { .rid = rid };

	return add_found(arg, &m, false);
}

static int run_start(struct txn_job *job, struct txn *t)
{
	struct start_task *st = start_of(job);
	int ret;

	st->nr = 0;
	ret = mounts_each(t, add_mounted, st);
	if (ret == 0)
		ret = logs_each_abandoned(t, add_abandoned, st);
	return ret;
}

static struct finalize_task *finalize_of(struct txn_job *job)
{
	return (struct finalize_task *)((char *)job - offsetof(struct finalize_task, task.job));
}

static int run_finalize(struct txn_job *job, struct txn *t)
{
	return logs_finalize(t, finalize_of(job)->rid);
}

static void finalized(struct task *task, int err)
{
	struct finalize_task *ft = (struct finalize_task *)((char *)task -
							    offsetof(struct finalize_task, task));

	if (err == 0)
		log_notice("the log tree of %016llx, which is not mounted, is finished",
			   (unsigned long long)ft->rid);
	else if (err != -ESHUTDOWN)
		log_err("the log tree of %016llx, which is not mounted, cannot be finished: %s",
			(unsigned long long)ft->rid, strerror(-err));
	free(ft);
}

static void finalize_abandoned(struct server *s, uint64_t rid)
{
	struct finalize_task *ft = calloc(1, sizeof(*ft));

	if (!ft) {
		server_fail(s, -ENOMEM, "an abandoned log tree could not be finished");
		return;
	}
	ft->server = s;
	ft->rid = rid;
	ft->task.job.run = run_finalize;
	ft->task.complete = finalized;
	worker_submit(s->worker, &ft->task);
}

static unsigned votes_needed(const struct disk_super *super)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
		nr += quorum_slot_is_configured(&super->qconf, i);
	return nr < 3 ? 1 : nr / 2 + 1;
}

static void begin_to_serve(struct server *s, const struct start_task *st)
{
	struct txn_view view;
	size_t expected = 0;
	int ret;

	txn_get_view(worker_txn(s->worker), &view);
	s->votes_needed = votes_needed(&view.super);
	ret = s->conf.listen(s->conf.arg, &view);
	if (ret < 0) {
		server_fail(s, ret, "it cannot listen");
		return;
	}
	s->is_listening = true;
	s->state = SERVER_UP;
	s->up_since_ns = s->now_ns;
	stable_init(s, &view);
	if (view.mounted_nr)
		seq_raise(&s->seq, seq_last(&s->seq) + SEQ_GAP);
	for (size_t i = 0; i < st->nr && !s->err; i++) {
		const struct found *f = &st->found[i];

		if (!f->is_mounted) {
			finalize_abandoned(s, f->info.rid);
			continue;
		}
		expected += !f->is_over;
		ret = client_expect(s, &f->info, f->is_over);
		if (ret < 0)
			server_fail(s, ret, "a mount could not be waited for");
	}
	log_notice("serving term %llu; %zu mounts of before are waited for",
		   (unsigned long long)s->conf.term, expected);
}

static void started(struct task *task, int err)
{
	struct start_task *st = (struct start_task *)((char *)task -
						      offsetof(struct start_task, task));
	struct server *s = st->server;

	if (err == 0 && s->state == SERVER_STARTING)
		begin_to_serve(s, st);
	else if (err < 0 && err != -ESHUTDOWN)
		server_fail(s, err, worker_txn(s->worker) ? "the mounts of the volume cannot be read" :
							    worker_why(s->worker));
	free(st->found);
	free(st);
}

static int open_machines(struct server *s)
{
	struct lockfsm_ops lock_ops = { s, emit_lock, lock_next_seq, lock_raise_seq };
	struct omap_ops omap_ops = { s, emit_omap };
	int ret = lockfsm_open(&s->locks, &lock_ops);

	if (ret == 0)
		ret = omap_open(&s->omap, &omap_ops);
	return ret < 0 ? ret : advisory_open(s);
}

int server_start(struct server **out, const struct server_conf *conf, uint64_t now_ns)
{
	struct server *s = calloc(1, sizeof(*s));
	struct start_task *st = calloc(1, sizeof(*st));
	struct worker_conf wconf = { open_volume, conf->tasks_done ? tasks_done : NULL,
				     conf->worker_idle ? worker_idle : NULL, s };
	int ret = -ENOMEM;

	if (!s || !st)
		goto fail;
	s->conf = *conf;
	s->now_ns = now_ns;
	s->state = SERVER_STARTING;
	gather_init(s);
	ret = open_machines(s);
	if (ret == 0)
		ret = worker_start(&s->worker, &wconf);
	if (ret < 0)
		goto fail;
	stats_inc(&conf->stats->terms);
	st->server = s;
	st->task.job.run = run_start;
	st->task.complete = started;
	worker_submit(s->worker, &st->task);
	*out = s;
	return 0;
fail:
	if (s) {
		lockfsm_close(s->locks);
		omap_close(s->omap);
		advisory_close(s);
	}
	free(st);
	free(s);
	return ret;
}

/* --- running and stopping --- */

void server_stop(struct server *s)
{
	if (s->state == SERVER_STOPPING || s->state == SERVER_DOWN)
		return;
	s->state = SERVER_STOPPING;
	worker_stop(s->worker);
}

static void stop_listening(struct server *s)
{
	if (s->is_listening)
		s->conf.unlisten(s->conf.arg);
	s->is_listening = false;
}

void server_dispatch(struct server *s, uint64_t now_ns)
{
	const char *why;
	int err;

	s->now_ns = now_ns;
	if (s->state == SERVER_DOWN)
		return;
	worker_dispatch(s->worker);
	err = worker_txn(s->worker) ? txn_failed(worker_txn(s->worker), &why) : 0;
	if (err < 0)
		server_fail(s, err, why);
	if (s->state == SERVER_UP) {
		lease_tick(s);
		clients_tick(s);
		gather_tick(s);
		stable_tick(s);
		space_tick(s);
		server_perform(s);
	}
	if (s->state == SERVER_STOPPING) {
		stop_listening(s);
		if (worker_is_stopped(s->worker))
			s->state = SERVER_DOWN;
	}
}

uint64_t server_deadline(const struct server *s)
{
	if (s->state == SERVER_UP) {
		uint64_t a = clients_deadline(s), b = gather_deadline(s), c = space_deadline(s);

		a = a < b ? a : b;
		return a < c ? a : c;
	}
	/* Once more, to stop listening. */
	return s->state == SERVER_STOPPING && s->is_listening ? 0 : UINT64_MAX;
}

int server_fd(const struct server *s)
{
	return worker_fd(s->worker);
}

enum server_status server_state(const struct server *s)
{
	return s->state;
}

int server_error(const struct server *s)
{
	return s->err;
}

void server_free(struct server *s)
{
	if (!s)
		return;
	assert(s->state == SERVER_DOWN);
	clients_free(s);
	worker_free(s->worker);
	lockfsm_close(s->locks);
	omap_close(s->omap);
	advisory_close(s);
	free(s->acts);
	free(s);
}
