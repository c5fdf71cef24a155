/*
 * The worker thread.
 *
 * Promises: each submitted task is completed exactly once, by the loop (worker.h); everything that waits
 * when a transaction begins is in it (group commit, runtime 3.9), in the order of submission.  Long work
 * is done in slices of one transaction each, and others' tasks go along with each slice.
 *
 * One mutex covers both queues and the flags; nobody waits for a device under it.
 */
#include "tasks.h"
#include "thread.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct worker {
	struct worker_conf conf;
	pthread_t thread;
	int fd;
	int wake_fd;		/* for conf.idle */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct task_list todo;
	struct task_list done;
	bool stop;
	bool is_stopped;
	bool is_idle;		/* waits in conf.idle */
	bool is_running;	/* the worker's own: a transaction, whose tasks are told of together */
	struct txn *txn;
	const char *why;
};

static void ring(int fd)
{
	uint64_t one = 1;
	ssize_t ret = write(fd, &one, sizeof(one));

	/* Its counter can only be full when the loop has been told very often. */
	assert(ret == sizeof(one) || errno == EAGAIN);
}

static void unring(int fd)
{
	uint64_t n;
	ssize_t ret = read(fd, &n, sizeof(n));

	assert(ret == sizeof(n) || errno == EAGAIN);
}

/* A task is done; the loop shall know. */
static void task_done(struct txn_job *job, int err)
{
	struct task *task = task_of(job);
	struct worker *w = task->worker;

	task->err = err;
	pthread_mutex_lock(&w->lock);
	task_list_push(&w->done, job);
	pthread_mutex_unlock(&w->lock);
	if (!w->is_running)
		ring(w->fd);
}

static void run(struct worker *w, struct txn *txn, struct task_list *batch)
{
	bool any;

	w->is_running = true;
	tasks_run(txn, batch);
	w->is_running = false;
	pthread_mutex_lock(&w->lock);
	any = w->done.head;
	pthread_mutex_unlock(&w->lock);
	if (any && !(w->conf.tasks_done && w->conf.tasks_done(w->conf.arg)))
		ring(w->fd);
}

/* Called and returns with the lock held: until there may be something to do. */
static void wait_for_task(struct worker *w)
{
	bool has_waited = false;

	if (w->conf.idle) {
		w->is_idle = true;
		pthread_mutex_unlock(&w->lock);
		has_waited = w->conf.idle(w->conf.arg, w->wake_fd);
		pthread_mutex_lock(&w->lock);
		w->is_idle = false;
		unring(w->wake_fd);
	}
	if (!has_waited && !w->stop && !w->todo.head)
		pthread_cond_wait(&w->wake, &w->lock);
}

/* With the lock held. */
static void wake(struct worker *w)
{
	if (w->is_idle)
		ring(w->wake_fd);
	else
		pthread_cond_signal(&w->wake);
}

/* With the lock held: unfinished tasks before those that have not begun. */
static void jobs_back(struct worker *w, struct task_list *batch)
{
	struct txn_job *jobs = task_list_take(&w->todo);

	w->todo = *batch;
	if (!batch->head)
		task_list_init(&w->todo);
	while (jobs) {
		struct txn_job *next = jobs->next;

		task_list_push(&w->todo, jobs);
		jobs = next;
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	const char *why = NULL;
	struct txn *txn = NULL;
	struct task_list batch;
	int err = w->conf.open(w->conf.arg, &txn, &why);

	task_list_init(&batch);
	pthread_mutex_lock(&w->lock);
	w->txn = txn;
	w->why = why;
	for (;;) {
		struct txn_job *jobs;

		while (!w->stop && !w->todo.head && !batch.head)
			wait_for_task(w);
		if (w->stop)
			break;
		jobs = task_list_take(&w->todo);
		pthread_mutex_unlock(&w->lock);
		tasks_admit(jobs, err, &batch);
		run(w, txn, &batch);
		pthread_mutex_lock(&w->lock);
	}
	/* What is between two slices goes back: it is on the volume as far as it came. */
	jobs_back(w, &batch);
	w->is_stopped = true;
	pthread_mutex_unlock(&w->lock);
	ring(w->fd);
	return NULL;
}

int worker_start(struct worker **out, const struct worker_conf *conf)
{
	struct worker *w = calloc(1, sizeof(*w));
	int ret;

	if (!w)
		return -ENOMEM;
	w->conf = *conf;
	task_list_init(&w->todo);
	task_list_init(&w->done);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->fd < 0 || w->wake_fd < 0) {
		ret = -errno;
		goto fail;
	}
	ret = thread_start(&w->thread, "worker", worker_main, w);
	if (ret < 0)
		goto fail;
	*out = w;
	return 0;
fail:
	if (w->fd >= 0)
		close(w->fd);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
	return ret;
}

void worker_submit(struct worker *w, struct task *task)
{
	task->worker = w;
	task->job.done = task_done;
	pthread_mutex_lock(&w->lock);
	task_list_push(&w->todo, &task->job);
	wake(w);
	pthread_mutex_unlock(&w->lock);
}

int worker_fd(const struct worker *w)
{
	return w->fd;
}

void worker_dispatch(struct worker *w)
{
	struct txn_job *jobs;

	unring(w->fd);
	pthread_mutex_lock(&w->lock);
	jobs = task_list_take(&w->done);
	pthread_mutex_unlock(&w->lock);
	tasks_complete(jobs, NULL);
}

void worker_stop(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	wake(w);
	pthread_mutex_unlock(&w->lock);
}

bool worker_is_stopped(struct worker *w)
{
	bool ret;

	pthread_mutex_lock(&w->lock);
	ret = w->is_stopped;
	pthread_mutex_unlock(&w->lock);
	return ret;
}

void worker_free(struct worker *w)
{
	static const int ended = -ESHUTDOWN;

	assert(worker_is_stopped(w));
	pthread_join(w->thread, NULL);
	worker_dispatch(w);
	tasks_complete(task_list_take(&w->todo), &ended);
	txn_close(w->txn);
	close(w->fd);
	close(w->wake_fd);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

struct txn *worker_txn(struct worker *w)
{
	struct txn *t;

	pthread_mutex_lock(&w->lock);
	t = w->txn;
	pthread_mutex_unlock(&w->lock);
	return t;
}

const char *worker_why(struct worker *w)
{
	const char *why;

	pthread_mutex_lock(&w->lock);
	why = w->why;
	pthread_mutex_unlock(&w->lock);
	return why ? why : "for no known reason";
}
