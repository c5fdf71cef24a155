/*
 * Slot I/O: one thread that blocks, so that the loop does not.
 *
 * Jobs run one after another in the order they were posted: the order of records is part of the
 * promise of quorum_fsm.c.  The loop, not this thread, has the deadline: when a device or blockd
 * hangs, the loop stops serverd and ends the process, and this thread with it.
 */
#include "quorumd.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blkcli.h"
#include "clock.h"
#include "thread.h"

struct job_list {
	struct slot_job *first, *last;
};

struct slot_io {
	struct quorumd *qd;
	pthread_t thread;
	int done_fd;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool stopping, busy;
	struct job_list todo, done;
};

static int dev_read(void *arg, uint64_t blkno, void *buf)
{
	return blkcli_read_small(arg, BLK_DEV_META, blkno, buf);
}

static int dev_write(void *arg, uint64_t blkno, const void *buf)
{
	return blkcli_write_small(arg, BLK_DEV_META, blkno, buf);
}

static int dev_flush(void *arg)
{
	return blkcli_flush(arg, BLK_DEV_META);
}

static void list_add(struct job_list *l, struct slot_job *job)
{
	job->next = NULL;
	if (l->last)
		l->last->next = job;
	else
		l->first = job;
	l->last = job;
}

static struct slot_job *list_take(struct job_list *l)
{
	struct slot_job *job = l->first;

	if (job) {
		l->first = job->next;
		if (!l->first)
			l->last = NULL;
		job->next = NULL;
	}
	return job;
}

static void run(struct quorumd *qd, struct slot_job *job)
{
	const struct quorum_dev dev = { qd->blk, dev_read, dev_write, dev_flush };

	switch (job->kind) {
	case SLOT_JOB_RECORD:
		job->result = quorum_slot_record(&dev, qd->fsid, qd->slot, qd->rid, job->record,
						 job->term, clock_real(), &qd->slot_write_nr);
		return;
	case SLOT_JOB_SCAN:
		quorum_slots_read(&dev, qd->fsid, qd->present, &job->slots);
		job->result = job->slots.error;
		return;
	case SLOT_JOB_SET_TERM:
		job->result = blkcli_set_term(qd->blk, job->term);
		/* A newer term is set already: older ones do not write either. */
		if (job->result == -ESTALE)
			job->result = 0;
		return;
	case SLOT_JOB_REVOKE:
		job->result = blkcli_revoke(qd->blk, job->rid);
		return;
	}
}

static void *io_thread(void *arg)
{
	struct slot_io *io = arg;
	uint64_t one = 1;

	pthread_mutex_lock(&io->mutex);
	while (!io->stopping) {
		struct slot_job *job = list_take(&io->todo);

		if (!job) {
			pthread_cond_wait(&io->cond, &io->mutex);
			continue;
		}
		io->busy = true;
		pthread_mutex_unlock(&io->mutex);
		run(io->qd, job);
		pthread_mutex_lock(&io->mutex);
		io->busy = false;
		list_add(&io->done, job);
		/* It can only fail by being rung already. */
		if (write(io->done_fd, &one, sizeof(one)) < 0)
			continue;
	}
	pthread_mutex_unlock(&io->mutex);
	return NULL;
}

int slot_io_start(struct slot_io **out, struct quorumd *qd)
{
	struct slot_io *io = calloc(1, sizeof(*io));
	int ret;

	if (!io)
		return -ENOMEM;
	io->qd = qd;
	pthread_mutex_init(&io->mutex, NULL);
	pthread_cond_init(&io->cond, NULL);
	io->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = io->done_fd < 0 ? -errno : 0;
	if (ret == 0) {
		ret = thread_start(&io->thread, "slot io", io_thread, io);
	}
	if (ret < 0) {
		if (io->done_fd >= 0)
			close(io->done_fd);
		free(io);
		return ret;
	}
	*out = io;
	return 0;
}

void slot_io_stop(struct slot_io *io)
{
	struct slot_job *job;
	bool busy;

	if (!io)
		return;
	pthread_mutex_lock(&io->mutex);
	io->stopping = true;
	busy = io->busy;
	pthread_cond_signal(&io->cond);
	pthread_mutex_unlock(&io->mutex);
	if (busy)
		return;
	pthread_join(io->thread, NULL);
	while ((job = list_take(&io->todo)) || (job = list_take(&io->done)))
		free(job);
	close(io->done_fd);
	pthread_mutex_destroy(&io->mutex);
	pthread_cond_destroy(&io->cond);
	free(io);
}

int slot_io_fd(const struct slot_io *io)
{
	return io->done_fd;
}

int slot_io_post(struct slot_io *io, const struct slot_job *job)
{
	struct slot_job *j = malloc(sizeof(*j));

	if (!j)
		return -ENOMEM;
	*j = *job;
	pthread_mutex_lock(&io->mutex);
	list_add(&io->todo, j);
	pthread_cond_signal(&io->cond);
	pthread_mutex_unlock(&io->mutex);
	return 0;
}

struct slot_job *slot_io_done(struct slot_io *io)
{
	struct slot_job *job;
	uint64_t n;

	while (read(io->done_fd, &n, sizeof(n)) > 0)
		;
	pthread_mutex_lock(&io->mutex);
	job = list_take(&io->done);
	pthread_mutex_unlock(&io->mutex);
	return job;
}
