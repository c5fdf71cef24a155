/*
 * services/serverd/worker.h without a thread: tasks that were submitted run together some time later, as one
 * transaction, in which the process may die between any two writes; some time after that the loop is told.
 */
#include <errno.h>
#include <stdlib.h>

#include "cluster.h"
#include "services/serverd/tasks.h"

#define COMMIT_MIN_NS	(200 * SIM_US)
#define COMMIT_MAX_NS	(8 * SIM_MS)

struct worker {
	struct worker_conf conf;
	struct node *node;
	uint64_t id;
	struct task_list todo, batch, done;
	bool is_open, is_queued, is_stopped;
	struct txn *txn;
	int open_err;
	const char *why;
};

static void task_done(struct txn_job *job, int err)
{
	struct task *task = task_of(job);

	task->err = err;
	task_list_push(&task->worker->done, job);
}

static void run(struct sim *s, void *arg, uint64_t id);

static void run_later(struct worker *w)
{
	struct node *n = w->node;

	if (w->is_queued || w->is_stopped)
		return;
	w->is_queued = true;
	sim_call_proc(n->sim, n->proc, sim_between(n->sim, COMMIT_MIN_NS, COMMIT_MAX_NS), run, n,
		      w->id);
}

/* Once around the loop of the thread. */
static void run(struct sim *s, void *arg, uint64_t id)
{
	struct node *n = arg;
	struct worker *w = n->worker;

	if (!w || w->id != id || w->is_stopped)
		return;
	node_enter(n);
	w->is_queued = false;
	if (!w->is_open) {
		w->is_open = true;
		w->open_err = w->conf.open(w->conf.arg, &w->txn, &w->why);
	}
	tasks_admit(task_list_take(&w->todo), w->open_err, &w->batch);
	tasks_run(w->txn, &w->batch);
	if (w->todo.head || w->batch.head)
		run_later(w);
	node_poke(n, sim_rnd(s, SIM_MS));
	node_leave(n);
}

int worker_start(struct worker **out, const struct worker_conf *conf)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->conf = *conf;
	w->node = the_node;
	w->id = ++the_node->cl->last_process;
	task_list_init(&w->todo);
	task_list_init(&w->batch);
	task_list_init(&w->done);
	the_node->worker = w;
	run_later(w);
	*out = w;
	return 0;
}

void worker_submit(struct worker *w, struct task *task)
{
	task->worker = w;
	task->job.done = task_done;
	task_list_push(&w->todo, &task->job);
	run_later(w);
}

int worker_fd(const struct worker *w)
{
	(void)w;
	return -1;
}

void worker_dispatch(struct worker *w)
{
	tasks_complete(task_list_take(&w->done), NULL);
}

void worker_stop(struct worker *w)
{
	w->is_stopped = true;
}

bool worker_is_stopped(struct worker *w)
{
	return w->is_stopped;
}

void worker_free(struct worker *w)
{
	static const int ended = -ESHUTDOWN;

	SIM_CHECK(w->node->sim, w->is_stopped, "a worker is freed that runs");
	worker_dispatch(w);
	tasks_complete(task_list_take(&w->batch), &ended);
	tasks_complete(task_list_take(&w->todo), &ended);
	txn_close(w->txn);
	w->node->worker = NULL;
	free(w);
}

struct txn *worker_txn(struct worker *w)
{
	return w->txn;
}

const char *worker_why(struct worker *w)
{
	return w->why ? w->why : "for no known reason";
}
