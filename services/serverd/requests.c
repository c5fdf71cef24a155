/*
 * What mounts ask of the server, and what they answer: runtime.md 3.8, 17.
 *
 * Promises: every request that was delivered is answered exactly once, or its session is gone, or the
 * server stops (then it comes again to the next one).  What changes the volume is answered when it is
 * durable.  Locks, open-inode maps, roots and free space are answered from memory and never wait for the
 * worker.  A mount that has not told all its locks gets no new transaction (3.7); one whose tree was
 * finished for a merge gets its next when that has begun (7.2).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "advisory.h"
#include "log.h"
#include "serverd.h"

/* One request that the worker does. */
struct request_task {
	struct task task;
	struct server *server;
	uint64_t rid;
	uint64_t handle;
	unsigned type;
	bool open_next, is_unflushed, has_work;
	struct merge_gate gate;
	struct disk_log_trees in, out;
	struct disk_merge_request work;
	struct disk_merge_complete done;
	uint64_t want, start, nr;
};

static struct request_task *of_job(struct txn_job *job)
{
	return (struct request_task *)((char *)job - offsetof(struct request_task, task.job));
}

static int run_inos(struct txn_job *job, struct txn *t)
{
	struct request_task *r = of_job(job);

	return inos_take(t, r->want, &r->start, &r->nr);
}

static int run_open(struct txn_job *job, struct txn *t)
{
	struct request_task *r = of_job(job);

	return logs_open(t, r->rid, &r->gate, &r->out);
}

static int run_commit(struct txn_job *job, struct txn *t)
{
	struct request_task *r = of_job(job);

	/* The mount must hear of a flush that failed: it flushes itself, and for the rest of the term. */
	if (r->is_unflushed && txn_has_missed(t))
		return -EOPNOTSUPP;
	if (r->is_unflushed)
		txn_flush_data(t);
	return logs_commit(t, r->rid, &r->in, r->open_next, &r->gate, &r->out);
}

static int run_get_merge(struct txn_job *job, struct txn *t)
{
	struct request_task *r = of_job(job);

	return merge_get(t, r->rid, &r->has_work, &r->work);
}

static int run_commit_merge(struct txn_job *job, struct txn *t)
{
	struct request_task *r = of_job(job);

	return merge_commit(t, r->rid, &r->done);
}

/* At the end: they go on in the order in which they came. */
static void list_add(struct txn_job **list, struct txn_job *job)
{
	while (*list)
		list = &(*list)->next;
	job->next = NULL;
	*list = job;
}

/* Its answer is due when a merge has begun, or will not for now (gather.c). */
static void wait_for_merge(struct server *s, struct request_task *r)
{
	struct client *c = client_find(s, r->rid);

	/* It goes: nobody may open a tree for it any more. */
	if (!c || (c->state != CLIENT_UP && c->state != CLIENT_EXPECTED)) {
		free(r);
		return;
	}
	list_add(&c->gathering, &r->task.job);
}

static void note_open(const struct request_task *r, int err)
{
	struct client *c = client_find(r->server, r->rid);

	if (!c || err < 0 || (r->type != MSG_open_log_trees && r->type != MSG_commit_log_trees))
		return;
	stable_note(c, &r->out);
	lease_note_trees(c, r->type == MSG_commit_log_trees ? &r->in : NULL, &r->out);
	c->is_closing = r->type == MSG_commit_log_trees && !r->open_next;
}

/* A mount works on one part at a time. */
static void note_merge_work(const struct request_task *r, bool has_work)
{
	struct client *c = client_find(r->server, r->rid);

	if (c)
		c->has_merge_work = has_work;
}

static void complete(struct task *task, int err)
{
	struct request_task *r = (struct request_task *)((char *)task -
							 offsetof(struct request_task, task));
	struct server *s = r->server;
	union msg_body body;

	/*
	 * A server that cannot commit any more says nothing: the mount asks the next one.  So it sees a pause
	 * and no error.
	 */
	if (err == -ESHUTDOWN || (err < 0 && txn_failed(worker_txn(s->worker), NULL)))
		goto out;
	if (err == 0 && r->gate.active_nr)
		gather_note(s, &r->gate);
	note_open(r, err);
	if (err == 0 && r->type == MSG_open_log_trees && !logs_is_open(&r->out)) {
		wait_for_merge(s, r);
		return;
	}
	if (err < 0 && !(r->is_unflushed && err == -EOPNOTSUPP)) {
		stats_inc(&s->conf.stats->request_errors);
		log_err("%s of mount %016llx failed: %s", msg_name(r->type),
			(unsigned long long)r->rid, strerror(-err));
	}
	/*
	 * What could not be read now may be read by the next try, or by the next leader; a mount that is refused ends,
	 * and what it has not committed with it.  Blocks that are damaged (-ESTALE) stay so.
	 */
	if (err == -EIO && (r->type == MSG_open_log_trees || r->type == MSG_commit_log_trees))
		err = -EAGAIN;
	memset(&body, 0, sizeof(body));
	switch (r->type) {
	case MSG_alloc_inodes:
		body.alloc_inodes_reply.start = r->start;
		body.alloc_inodes_reply.nr = r->nr;
		break;
	case MSG_open_log_trees:
		body.open_log_trees_reply.log_trees = r->out;
		break;
	case MSG_commit_log_trees:
		body.commit_log_trees_reply.log_trees = r->out;
		break;
	case MSG_get_log_merge:
		body.get_log_merge_reply.has_work = r->has_work;
		if (r->has_work)
			body.get_log_merge_reply.request = r->work;
		note_merge_work(r, err == 0 && r->has_work);
		break;
	case MSG_commit_log_merge:
		if (err == 0)
			note_merge_work(r, false);
		break;
	default:
		break;
	}
	server_respond(s, r->rid, r->handle, err, msg_reply_type(r->type), &body);
out:
	free(r);
}

/* NULL: no memory; the request has been answered. */
static struct request_task *make_task(struct server *s, uint64_t rid, uint64_t handle, unsigned type,
				      int (*run)(struct txn_job *job, struct txn *t))
{
	struct request_task *r = calloc(1, sizeof(*r));

	if (!r) {
		server_respond(s, rid, handle, -ENOMEM, msg_reply_type(type), NULL);
		return NULL;
	}
	r->server = s;
	r->rid = rid;
	r->handle = handle;
	r->type = type;
	r->gate.policy = &s->gather.policy;
	r->task.job.run = run;
	r->task.complete = complete;
	return r;
}

/* A new transaction is only given to a mount whose locks are known. */
static void submit_or_hold(struct server *s, struct client *c, struct request_task *r)
{
	if (!lockfsm_is_expected(s->locks, c->info.rid)) {
		worker_submit(s->worker, &r->task);
		return;
	}
	stats_inc(&s->conf.stats->requests_held);
	list_add(&c->held, &r->task.job);
}

static struct task *take_first(struct txn_job **list)
{
	struct txn_job *job = *list;

	*list = job->next;
	return &of_job(job)->task;
}

void requests_release(struct client *c)
{
	while (c->held)
		worker_submit(c->server->worker, take_first(&c->held));
}

void requests_release_gathering(struct client *c)
{
	while (c->gathering)
		worker_submit(c->server->worker, take_first(&c->gathering));
}

static void forget_all(struct txn_job **list)
{
	while (*list) {
		struct task *task = take_first(list);

		task->complete(task, -ESHUTDOWN);
	}
}

void requests_forget(struct client *c)
{
	forget_all(&c->held);
	forget_all(&c->gathering);
}

static void on_open(struct server *s, struct client *c, uint64_t handle)
{
	struct request_task *r = make_task(s, c->info.rid, handle, MSG_open_log_trees, run_open);

	stats_inc(&s->conf.stats->requests_open);
	if (r)
		submit_or_hold(s, c, r);
}

static void on_commit(struct server *s, struct client *c, uint64_t handle,
		      const struct msg_commit_log_trees *m)
{
	struct request_task *r = make_task(s, c->info.rid, handle, MSG_commit_log_trees, run_commit);

	stats_inc(&s->conf.stats->requests_commit);
	if (!r)
		return;
	r->in = m->log_trees;
	r->open_next = m->open_next;
	if (r->open_next)
		submit_or_hold(s, c, r);
	else
		worker_submit(s->worker, &r->task);
}

/*
 * The mount has not flushed what it wrote.  That this server's flush covers it holds for the mount that writes
 * through the same blockd; and for this term only, for if the flush fails the term is over, and who asks
 * again must have flushed, so as to hear of it.
 */
static void on_commit_unflushed(struct server *s, struct client *c, uint64_t handle,
				const struct msg_commit_unflushed *m)
{
	struct request_task *r;

	stats_inc(&s->conf.stats->requests_commit_unflushed);
	if (c->info.rid != s->conf.rid || m->term != s->conf.term) {
		server_respond(s, c->info.rid, handle, -EAGAIN, MSG_commit_log_trees_reply, NULL);
		return;
	}
	r = make_task(s, c->info.rid, handle, MSG_commit_log_trees, run_commit);
	if (!r)
		return;
	r->in = m->log_trees;
	r->open_next = r->is_unflushed = true;
	submit_or_hold(s, c, r);
}

static void on_inos(struct server *s, uint64_t rid, uint64_t handle, const struct msg_alloc_inodes *m)
{
	struct request_task *r = make_task(s, rid, handle, MSG_alloc_inodes, run_inos);

	stats_inc(&s->conf.stats->requests_inos);
	if (!r)
		return;
	r->want = m->count;
	worker_submit(s->worker, &r->task);
}

static void on_get_merge(struct server *s, uint64_t rid, uint64_t handle)
{
	struct request_task *r = make_task(s, rid, handle, MSG_get_log_merge, run_get_merge);

	stats_inc(&s->conf.stats->requests_get_merge);
	if (r)
		worker_submit(s->worker, &r->task);
}

static void on_commit_merge(struct server *s, uint64_t rid, uint64_t handle,
			    const struct msg_commit_log_merge *m)
{
	struct request_task *r = make_task(s, rid, handle, MSG_commit_log_merge, run_commit_merge);

	stats_inc(&s->conf.stats->requests_commit_merge);
	if (le64_get(m->complete.flags) & MERGE_COMPLETE_ERROR)
		stats_inc(&s->conf.stats->merge_given_up);
	if (!r)
		return;
	r->done = m->complete;
	worker_submit(s->worker, &r->task);
}

static void fill_roots(struct server *s, struct msg_get_roots_reply *reply)
{
	struct txn_view v;

	stats_inc(&s->conf.stats->requests_roots);
	txn_get_view(worker_txn(s->worker), &v);
	*reply = (struct msg_get_roots_reply){
		.fs_root = v.super.fs_root,
		.logs_root = v.super.logs_root,
		.srch_root = v.super.srch_root,
		.log_merge = v.super.log_merge,
		.super_seq = le64_get(v.super.seq),
		.last_stable_seq = v.last_stable_seq,
	};
}

static void on_roots(struct server *s, uint64_t rid, uint64_t handle)
{
	struct msg_get_roots_reply reply;

	fill_roots(s, &reply);
	server_respond(s, rid, handle, 0, MSG_get_roots_reply, &reply);
}

int server_roots(struct server *s, uint64_t rid, uint64_t term, struct msg_get_roots_reply *reply)
{
	const struct client *c = client_find(s, rid);

	if (s->state != SERVER_UP || s->conf.term != term)
		return -EAGAIN;
	if (!c || c->state != CLIENT_UP)
		return -ENOLINK;
	fill_roots(s, reply);
	/* Afterwards: they are those of a moment at which nobody else could have led. */
	return lease_is_right_over(s) ? -EAGAIN : 0;
}

static void on_statfs(struct server *s, uint64_t rid, uint64_t handle)
{
	struct msg_statfs_reply reply;
	struct txn_view v;

	stats_inc(&s->conf.stats->requests_statfs);
	txn_get_view(worker_txn(s->worker), &v);
	reply = (struct msg_statfs_reply){
		.fsid = s->conf.fsid,
		.total_meta = le64_get(v.super.total_meta_blocks),
		.free_meta = v.free_meta_blocks,
		.total_data = le64_get(v.super.total_data_blocks),
		.free_data = v.free_data_blocks,
		.inode_count = v.inode_count,
		.reserved_meta = v.reserved_meta_blocks,
		.committed_seq = v.last_stable_seq,
	};
	server_respond(s, rid, handle, 0, MSG_statfs_reply, &reply);
}

static void on_cluster(struct server *s, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	union msg_body reply;
	int ret = cluster_answer(s, type, msg, s->now_ns, &reply);

	stats_inc(&s->conf.stats->requests_cluster);
	server_respond(s, rid, handle, ret, msg_reply_type(type), &reply);
}

static void on_lock(struct server *s, uint64_t rid, uint64_t handle, const struct msg_lock *m)
{
	struct lockfsm_event ev = { .kind = LOCKFSM_REQUEST, .rid = rid, .handle = handle,
				    .key = m->key, .old_mode = m->old_mode,
				    .new_mode = m->new_mode, .now_ns = s->now_ns };
	int ret;

	stats_inc(&s->conf.stats->requests_lock);
	ret = lockfsm_step(s->locks, &ev);
	if (ret < 0)
		server_respond(s, rid, handle, ret, MSG_lock_reply, NULL);
}

static void on_omap(struct server *s, uint64_t rid, uint64_t handle, const struct msg_open_ino_map *m)
{
	int ret = omap_request(s->omap, rid, handle, m->group, m->has_directories);

	stats_inc(&s->conf.stats->requests_omap);
	if (ret < 0)
		server_respond(s, rid, handle, ret, MSG_open_ino_map_reply, NULL);
}

static void take_request(struct server *s, uint64_t rid, uint64_t handle, unsigned type,
			 const void *msg)
{
	struct client *c = client_find(s, rid);

	if (type == MSG_farewell) {
		stats_inc(&s->conf.stats->requests_farewell);
		client_farewell(s, rid, handle);
		return;
	}
	/* Who is not mounted may only say farewell (it has said so before). */
	if (!c || (c->state != CLIENT_UP && c->state != CLIENT_EXPECTED)) {
		server_respond(s, rid, handle, -ENOLINK, msg_reply_type(type), NULL);
		return;
	}
	switch (type) {
	case MSG_alloc_inodes:
		on_inos(s, rid, handle, msg);
		break;
	case MSG_open_log_trees:
		on_open(s, c, handle);
		break;
	case MSG_commit_log_trees:
		on_commit(s, c, handle, msg);
		break;
	case MSG_commit_unflushed:
		on_commit_unflushed(s, c, handle, msg);
		break;
	case MSG_get_log_merge:
		on_get_merge(s, rid, handle);
		break;
	case MSG_commit_log_merge:
		on_commit_merge(s, rid, handle, msg);
		break;
	case MSG_get_roots:
		on_roots(s, rid, handle);
		break;
	case MSG_lock:
		on_lock(s, rid, handle, msg);
		break;
	case MSG_open_ino_map:
		on_omap(s, rid, handle, msg);
		break;
	case MSG_statfs:
		on_statfs(s, rid, handle);
		break;
	case MSG_lease:
		lease_request(s, c, handle, msg);
		break;
	case MSG_adv_lock:
	case MSG_adv_cancel:
	case MSG_adv_test:
		advisory_request(s, rid, handle, type, msg);
		break;
	case MSG_cluster_status:
	case MSG_cluster_mounts:
	case MSG_cluster_waits:
		on_cluster(s, rid, handle, type, msg);
		break;
	default:
		stats_inc(&s->conf.stats->requests_unknown);
		server_respond(s, rid, handle, -EOPNOTSUPP, msg_reply_type(type), NULL);
	}
}

void server_on_request(struct server *s, uint64_t rid, uint64_t handle, unsigned type,
		       const void *msg)
{
	/* What comes while it stops is asked again of the next server. */
	if (s->state != SERVER_UP)
		return;
	take_request(s, rid, handle, type, msg);
	server_perform(s);
}

static void on_invalidated(struct server *s, uint64_t rid, const struct msg_lock_invalidate_reply *m)
{
	struct lockfsm_event ev = { .kind = LOCKFSM_INVALIDATED, .rid = rid, .key = m->key,
				    .old_mode = m->old_mode, .new_mode = m->new_mode,
				    .now_ns = s->now_ns };

	lockfsm_step(s->locks, &ev);
}

static void on_recovered(struct server *s, struct client *c, const struct msg_lock_recover_reply *m)
{
	struct lockfsm_held held[LOCK_RECOVER_MAX];
	struct lockfsm_event ev = { .kind = LOCKFSM_RECOVERED, .rid = c->info.rid, .held = held,
				    .held_nr = m->locks_nr };
	int ret;

	for (uint32_t i = 0; i < m->locks_nr; i++)
		held[i] = (struct lockfsm_held){ m->locks[i].key, m->locks[i].mode,
						 m->locks[i].write_seq };
	ret = lockfsm_step(s->locks, &ev);
	if (ret < 0)
		server_fail(s, ret, "a mount's locks could not be taken over");
	else if (m->locks_nr)
		client_is_coming(s, c);
}

static void bad_answer(struct server *s, struct client *c, unsigned type, int err)
{
	stats_inc(&s->conf.stats->answers_bad);
	log_err("mount %016llx answered %s with an error (%s): it cannot be relied on",
		(unsigned long long)c->info.rid, msg_name(type), strerror(-err));
	client_fence(s, c, "it answered the lock server with an error");
}

static void take_response(struct server *s, uint64_t rid, uint64_t tag, int err, unsigned type,
			  const void *msg)
{
	static const uint8_t everything[OMAP_BYTES] = { [0 ... OMAP_BYTES - 1] = 0xff };
	struct client *c = client_find(s, rid);
	const struct msg_open_ino_map_query_reply *bits = msg;

	if (!c || c->is_fenced)
		return;
	/* A tag is a round of the open-inode map, or 0. */
	if (tag) {
		static_assert(sizeof(bits->bits.bytes) == OMAP_BYTES, "a map on the wire");
		/* What a mount cannot say is in use. */
		omap_response(s->omap, rid, tag,
			      err < 0 ? everything : bits->bits.bytes);
		return;
	}
	if (type == MSG_adv_recover_reply) {
		advisory_told(s, c, err, msg);
		return;
	}
	if (err < 0) {
		bad_answer(s, c, type, err);
		return;
	}
	switch (type) {
	case MSG_lock_invalidate_reply:
		on_invalidated(s, rid, msg);
		break;
	case MSG_lock_recover_reply:
		on_recovered(s, c, msg);
		break;
	case MSG_sync_log_trees_reply:
		break;		/* it commits; that is what counts */
	default:
		stats_inc(&s->conf.stats->answers_bad);
	}
}

void server_on_response(struct server *s, uint64_t rid, uint64_t tag, int err, unsigned type,
			const void *msg)
{
	struct client *c = client_find(s, rid);

	if (s->state != SERVER_UP)
		return;
	if (c && c->unanswered && type != MSG_sync_log_trees_reply)
		c->unanswered--;
	take_response(s, rid, tag, err, type, msg);
	server_perform(s);
}
