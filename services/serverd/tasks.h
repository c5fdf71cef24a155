/* What the worker does with its tasks, without its thread (worker.h): the simulator has another one. */
#ifndef SCOUTFS_SERVERD_TASKS_H
#define SCOUTFS_SERVERD_TASKS_H

#include "worker.h"

/* In the order of submission; owns nothing. */
struct task_list {
	struct txn_job *head;
	struct txn_job **tail;
};

void task_list_init(struct task_list *l);
void task_list_push(struct task_list *l, struct txn_job *job);
/* All of it, linked by next; the list is empty then. */
struct txn_job *task_list_take(struct task_list *l);

struct task *task_of(struct txn_job *job);

/*
 * What has to be done before, of tasks that come new; those that are to be committed go to batch, the others
 * are done (job->done).  open_err: the volume could not be opened.
 */
void tasks_admit(struct txn_job *jobs, int open_err, struct task_list *batch);
/* One transaction; who is not done stays in batch, to go on in the next together with whoever comes meanwhile. */
void tasks_run(struct txn *txn, struct task_list *batch);
/* On the loop's thread: with their own errors, or all with *err. */
void tasks_complete(struct txn_job *jobs, const int *err);

#endif
