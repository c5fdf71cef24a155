/*
 * services/serverd/worker.h without a thread: tasks that were submitted run together some time later, as one
 * transaction, in which the process may die between any two writes; some time after that the loop is told.
 */
#include <errno.h>
#include <stdlib.h>

#include "cluster.h"
#include "services/serverd/worker.h"

#define COMMIT_MIN_NS	(200 * SIM_US)
#define COMMIT_MAX_NS	(8 * SIM_MS)

struct list {
	struct txn_job *head, **tail;
};

struct worker {
	struct worker_conf conf;
	struct node *node;
	uint64_t id;
	struct list todo, batch, done;
	bool is_open, is_queued, is_stopped;
	struct txn *txn;
	int open_err;
	const char *why;
};

static void list_init(struct list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_push(struct list *l, struct txn_job *job)
{
	job->next = NULL;
	*l->tail = job;
	l->tail = &job->next;
}

static struct txn_job *list_take_all(struct list *l)
{
	struct txn_job *head = l->head;

	list_init(l);
	return head;
}

static struct task *task_of(struct txn_job *job)
{
	return (struct task *)((char *)job - offsetof(struct task, job));
}

static void task_done(struct txn_job *job, int err)
{
	struct task *task = task_of(job);

	task->err = err;
	list_push(&task->worker->done, job);
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

static void admit(struct worker *w)
{
	struct txn_job *jobs = list_take_all(&w->todo);

	while (jobs) {
		struct task *task = task_of(jobs);
		int err = w->open_err;

		jobs = jobs->next;
		if (err == 0 && task->before)
			err = task->before(task);
		if (err < 0 || !task->job.run)
			task_done(&task->job, err);
		else
			list_push(&w->batch, &task->job);
	}
}

/* Once around the loop of the thread. */
static void run(struct sim *s, void *arg, uint64_t id)
{
	struct node *n = arg;
	struct worker *w = n->worker;
	struct txn_job *jobs;

	if (!w || w->id != id || w->is_stopped)
		return;
	node_enter(n);
	w->is_queued = false;
	if (!w->is_open) {
		w->is_open = true;
		w->open_err = w->conf.open(w->conf.arg, &w->txn, &w->why);
	}
	admit(w);
	jobs = list_take_all(&w->batch);
	if (jobs)
		txn_step(w->txn, &jobs);
	while (jobs) {
		struct txn_job *next = jobs->next;

		list_push(&w->batch, jobs);
		jobs = next;
	}
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
	list_init(&w->todo);
	list_init(&w->batch);
	list_init(&w->done);
	the_node->worker = w;
	run_later(w);
	*out = w;
	return 0;
}

void worker_submit(struct worker *w, struct task *task)
{
	task->worker = w;
	task->job.done = task_done;
	list_push(&w->todo, &task->job);
	run_later(w);
}

int worker_fd(const struct worker *w)
{
	(void)w;
	return -1;
}

static void complete_all(struct txn_job *jobs, const int *err)
{
	while (jobs) {
		struct task *task = task_of(jobs);

		jobs = jobs->next;
		task->complete(task, err ? *err : task->err);
	}
}

void worker_dispatch(struct worker *w)
{
	complete_all(list_take_all(&w->done), NULL);
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
	complete_all(list_take_all(&w->batch), &ended);
	complete_all(list_take_all(&w->todo), &ended);
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
