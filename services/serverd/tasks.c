/*
 * Tasks of the worker: what is done before a transaction, in it, and after it.
 *
 * Each is completed exactly once; everything that waits when a transaction begins is in it (group
 * commit, runtime 3.9), in the order of submission.
 */
#include "tasks.h"

#include <stddef.h>

void task_list_init(struct task_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

void task_list_push(struct task_list *l, struct txn_job *job)
{
	job->next = NULL;
	*l->tail = job;
	l->tail = &job->next;
}

struct txn_job *task_list_take(struct task_list *l)
{
	struct txn_job *head = l->head;

	task_list_init(l);
	return head;
}

struct task *task_of(struct txn_job *job)
{
	return (struct task *)((char *)job - offsetof(struct task, job));
}

void tasks_admit(struct txn_job *jobs, int open_err, struct task_list *batch)
{
	while (jobs) {
		struct task *task = task_of(jobs);
		int err = open_err;

		jobs = jobs->next;
		if (err == 0 && task->before)
			err = task->before(task);
		if (err < 0 || !task->job.run)
			task->job.done(&task->job, err);
		else
			task_list_push(batch, &task->job);
	}
}

void tasks_run(struct txn *txn, struct task_list *batch)
{
	struct txn_job *jobs = task_list_take(batch);

	if (jobs)
		txn_step(txn, &jobs);
	while (jobs) {
		struct txn_job *next = jobs->next;

		task_list_push(batch, jobs);
		jobs = next;
	}
}

void tasks_complete(struct txn_job *jobs, const int *err)
{
	while (jobs) {
		struct task *task = task_of(jobs);

		jobs = jobs->next;
		task->complete(task, err ? *err : task->err);
	}
}
