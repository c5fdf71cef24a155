/*
 * Applications that are killed while their request waits.
 *
 * The kernel tells of every signal, once, and does not say which.  A request that ended with EINTR
 * for a mere SIGCHLD would break programs that never see EINTR from a local disk, so only a thread
 * that is dying ends its request: SIGKILL is pending for it (the kernel turns every signal that
 * kills into that).  One that got another signal first may be killed later, and the kernel will not
 * say: so whoever was interrupted is looked at from time to time until its request is answered.
 *
 * What may wait for another program for as long as that likes (op->signalled) is told of the first signal.
 *
 * One thread does the looking; it sleeps while nobody was interrupted.  An operation is on the list
 * from its first interrupt until fuse_op_done, which waits while op_interrupt runs on it.
 */
#include "interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "fuse.h"
#include "reply.h"
#include "thread.h"

#define LOOK_AGAIN_MS	200

struct interrupted {
	struct interrupted *next;
	struct op *op;
	pid_t tid;
};

struct interrupts {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	pthread_t thread;
	struct interrupted *list;
	bool news, stopping;
};

bool thread_is_dying(pid_t tid)
{
	unsigned long long pending;
	bool dying = false;
	char line[256];
	FILE *f;

	if (tid <= 0)
		return false;	/* of a process namespace that is not seen from here */
	snprintf(line, sizeof(line), "/proc/%d/status", (int)tid);
	f = fopen(line, "re");
	if (!f)
		return errno == ENOENT || errno == ESRCH;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "SigPnd: %llx", &pending) == 1)
			dying = pending >> (SIGKILL - 1) & 1;
	}
	fclose(f);
	return dying;
}

static void *look(void *arg)
{
	struct interrupts *is = arg;
	uint64_t until;

	pthread_mutex_lock(&is->mutex);
	while (!is->stopping) {
		for (struct interrupted *i = is->list; i; i = i->next) {
			if (thread_is_dying(i->tid))
				op_interrupt(i->op);
		}
		is->news = false;
		until = clock_mono_ns() + LOOK_AGAIN_MS * NSEC_PER_MSEC;
		while (!is->stopping && !is->news) {
			if (!is->list)
				pthread_cond_wait(&is->cond, &is->mutex);
			else if (clock_cond_wait(&is->cond, &is->mutex, until) == ETIMEDOUT)
				break;
		}
	}
	pthread_mutex_unlock(&is->mutex);
	return NULL;
}

/* libfuse calls this in any thread, or inside fuse_op_start. */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct op *op = data;
	struct interrupts *is = op->fsd->interrupts;
	struct interrupted *i = malloc(sizeof(*i));

	stats_inc(&op->fsd->stats.fuse_interrupts);
	if (op->signalled)
		op->signalled(op);
	if (!i)
		return;		/* it waits for its answer */
	i->op = op;
	i->tid = fuse_req_ctx(req)->pid;
	pthread_mutex_lock(&is->mutex);
	i->next = is->list;
	is->list = i;
	is->news = true;
	pthread_cond_signal(&is->cond);
	pthread_mutex_unlock(&is->mutex);
}

void fuse_op_start(fuse_req_t req, struct op *op)
{
	fuse_req_interrupt_func(req, on_interrupt, op);
	reply_begin(op->fsd, op, fuse_request()->unique);
	op_start(op);
}

void fuse_op_start_repeatable(fuse_req_t req, struct op *op)
{
	fuse_req_interrupt_func(req, on_interrupt, op);
	op_start(op);
}

void fuse_op_done(fuse_req_t req, struct op *op)
{
	struct interrupts *is = op->fsd->interrupts;
	struct interrupted **at, *i;

	/* After this on_interrupt neither runs nor will run. */
	fuse_req_interrupt_func(req, NULL, NULL);
	pthread_mutex_lock(&is->mutex);
	for (at = &is->list; (i = *at);) {
		if (i->op == op) {
			*at = i->next;
			free(i);
		} else {
			at = &i->next;
		}
	}
	pthread_mutex_unlock(&is->mutex);
}

int interrupts_start(struct fsd *fsd)
{
	struct interrupts *is = calloc(1, sizeof(*is));
	int ret;

	if (!is)
		return -ENOMEM;
	pthread_mutex_init(&is->mutex, NULL);
	pthread_cond_init(&is->cond, NULL);
	ret = thread_start(&is->thread, "interrupts", look, is);
	if (ret < 0) {
		pthread_cond_destroy(&is->cond);
		pthread_mutex_destroy(&is->mutex);
		free(is);
		return ret;
	}
	fsd->interrupts = is;
	return 0;
}

void interrupts_stop(struct fsd *fsd)
{
	struct interrupts *is = fsd->interrupts;
	struct interrupted *i;

	if (!is)
		return;
	pthread_mutex_lock(&is->mutex);
	is->stopping = true;
	pthread_cond_signal(&is->cond);
	pthread_mutex_unlock(&is->mutex);
	pthread_join(is->thread, NULL);
	while ((i = is->list)) {
		is->list = i->next;
		free(i);
	}
	pthread_cond_destroy(&is->cond);
	pthread_mutex_destroy(&is->mutex);
	free(is);
	fsd->interrupts = NULL;
}
