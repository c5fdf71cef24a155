/*
 * The thread that does a server's transactions.  The loop submits tasks and gets them back completed; it
 * never waits for a device.  As a wake-up costs more than what most tasks ask of the loop, this thread may do the
 * loop's work between transactions: the loop is whoever has its lock.
 */
#ifndef SCOUTFS_SERVERD_WORKER_H
#define SCOUTFS_SERVERD_WORKER_H

#include "txn.h"

struct worker;

/* Owned by whoever submitted it, from before submit and again from complete() on. */
struct task {
	struct txn_job job;	/* run: what is to be committed, NULL: nothing; done is the worker's */
	/* Something outside the transaction, first; its error ends the task.  May be NULL. */
	int (*before)(struct task *task);
	/* Of the loop: the task is done, durably with 0.  -ESHUTDOWN: the worker has ended. */
	void (*complete)(struct task *task, int err);
	struct worker *worker;
	int err;
};

struct worker_conf {
	/* On the worker's thread, before any task: open the volume.  why stays valid. */
	int (*open)(void *arg, struct txn **t, const char **why);
	/*
	 * The same, without any lock; both may be NULL.  Tasks are done: do what the loop does then; false: it shall
	 * (worker_fd).  There are none: wait until wake_fd is readable, and meanwhile for what the loop waits for; false:
	 * not now.
	 */
	bool (*tasks_done)(void *arg);
	bool (*idle)(void *arg, int wake_fd);
	void *arg;
};

/* -ENOMEM, -EMFILE, -EAGAIN. */
int worker_start(struct worker **out, const struct worker_conf *conf);
void worker_submit(struct worker *w, struct task *task);
/* Readable when worker_dispatch has something to do. */
int worker_fd(const struct worker *w);
/* Call complete() of what has been done. */
void worker_dispatch(struct worker *w);

/* End after the transaction that runs; the fd tells when. */
void worker_stop(struct worker *w);
bool worker_is_stopped(struct worker *w);
/* Only when it is stopped; completes what was never done with -ESHUTDOWN. */
void worker_free(struct worker *w);

/* NULL until the volume is open; txn_get_view, txn_failed and txn_stats of it may be called. */
struct txn *worker_txn(struct worker *w);
/* Why the volume could not be opened. */
const char *worker_why(struct worker *w);

#endif
