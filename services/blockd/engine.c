/*
 * I/O on the devices: io_uring where the kernel allows it, else a few threads; the loop sees the same
 * two descriptors and the same list of ended operations.
 *
 * An operation ends once, when all its bytes are done or with the first error.  What ends short is
 * continued here, and a read or write that moves nothing is -EIO: the device is smaller than it said.
 * DISCARD always goes to a helper thread, for the ioctl blocks.  So does what a file cannot take without
 * waiting, a write into a hole above all: the kernel's own threads would do such writes to one file one
 * after the other.  A helper that takes something wakes the next one if there is more: small writes are
 * often done before that one runs, and a wake-up costs as much as they.  Buffers are never touched by us, only by the kernel, so a client that takes its pages
 * away gets -EFAULT and we live on.
 */
#include "blockd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "thread.h"

#define RING_SQ_ENTRIES	256
#define RING_CQ_ENTRIES	(2 * BLOCKD_IOS_MAX)
#define THREADS_ALONE	8	/* when they do everything */
#define THREADS_HELPING	4	/* when the ring does what it can without waiting */

struct engine {
	bool has_ring;
	bool is_dirty;			/* submission entries the kernel has not seen */
	struct io_uring ring;
	int ring_efd;

	pthread_t threads[THREADS_ALONE];
	unsigned threads_nr;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct io *todo, **todo_tail;
	struct io *ended;		/* also read without the lock, to see whether there is any */
	unsigned idle;			/* helpers that wait */
	bool is_waking;			/* one of them has been told, and has not looked yet */
	bool is_stopping;
	int thread_efd;
	uint32_t sleeps;		/* the loop does, and wants to be told by thread_efd */
};

/* ---- helper threads ---- */

static int io_discard(const struct io *io)
{
	uint64_t range[2] = { io->off, io->len };

	if (io->is_bdev)
		return ioctl(io->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	if (fallocate(io->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)io->off,
		      (off_t)io->len) < 0)
		return -errno;
	return 0;
}

static int io_transfer(struct io *io)
{
	while (io->done < io->len) {
		char *buf = io->buf + io->done;
		size_t len = io->len - io->done;
		off_t off = (off_t)(io->off + io->done);
		struct iovec iov = { buf, len };
		ssize_t n = io->op == BLK_OP_READ ? pread(io->fd, buf, len, off) :
			    pwritev2(io->fd, &iov, 1, off, io->is_durable ? RWF_DSYNC : 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		io->done += (uint32_t)n;
	}
	return 0;
}

/* Right before it goes to the kernel, which may be long after it was allowed. */
static bool is_too_late(const struct io *io)
{
	return io->until_ns && clock_boot_ns() >= io->until_ns;
}

static void io_run(struct io *io)
{
	if (is_too_late(io)) {
		io->result = -EKEYEXPIRED;
		return;
	}
	switch (io->op) {
	case BLK_OP_FLUSH:
		io->result = fdatasync(io->fd) < 0 ? -errno : 0;
		break;
	case BLK_OP_DISCARD:
		io->result = io_discard(io);
		break;
	default:
		io->result = io_transfer(io);
		break;
	}
}

/* With the lock held: whether a helper is to be signalled for what is in todo. */
static bool must_wake(struct engine *e)
{
	if (!e->todo || e->idle == 0 || e->is_waking)
		return false;
	e->is_waking = true;
	return true;
}

static void tell_loop(struct engine *e)
{
	uint64_t one = 1;

	blkring_fence();
	if (!__atomic_exchange_n(&e->sleeps, 0, __ATOMIC_SEQ_CST))
		return;
	/* An eventfd write of 1 fails only when nobody has read 2^64 of them. */
	if (write(e->thread_efd, &one, sizeof(one)) < 0)
		log_err("engine: eventfd: %s", strerror(errno));
}

static void *thread_main(void *arg)
{
	struct engine *e = arg;
	bool wake;

	pthread_mutex_lock(&e->lock);
	while (!e->is_stopping) {
		struct io *io = e->todo;

		if (!io) {
			e->idle++;
			pthread_cond_wait(&e->cond, &e->lock);
			e->idle--;
			e->is_waking = false;
			continue;
		}
		e->todo = io->next;
		if (!e->todo)
			e->todo_tail = &e->todo;
		wake = must_wake(e);
		pthread_mutex_unlock(&e->lock);
		if (wake)
			pthread_cond_signal(&e->cond);
		io_run(io);
		pthread_mutex_lock(&e->lock);
		io->next = e->ended;
		__atomic_store_n(&e->ended, io, __ATOMIC_RELEASE);
		pthread_mutex_unlock(&e->lock);
		tell_loop(e);
		pthread_mutex_lock(&e->lock);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

static void thread_queue(struct engine *e, struct io *io)
{
	bool wake;

	io->next = NULL;
	pthread_mutex_lock(&e->lock);
	*e->todo_tail = io;
	e->todo_tail = &io->next;
	wake = must_wake(e);
	pthread_mutex_unlock(&e->lock);
	if (wake)
		pthread_cond_signal(&e->cond);
}

/* Signals are the loop's; a helper must never be the one that is interrupted. */
static int threads_start(struct engine *e, unsigned nr)
{
	int ret = 0;

	while (e->threads_nr < nr && ret == 0) {
		ret = thread_start(&e->threads[e->threads_nr], "io", thread_main, e);
		if (ret == 0)
			e->threads_nr++;
	}
	return ret;
}

/* ---- io_uring ---- */

static int ring_start(struct engine *e)
{
	struct io_uring_params params = { .flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
					  .cq_entries = RING_CQ_ENTRIES };
	int ret;

	ret = io_uring_queue_init_params(RING_SQ_ENTRIES, &e->ring, &params);
	if (ret < 0)
		return ret;
	e->ring_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = e->ring_efd < 0 ? -errno : io_uring_register_eventfd(&e->ring, e->ring_efd);
	if (ret == 0)
		ret = io_uring_cq_eventfd_toggle(&e->ring, false);
	if (ret < 0) {
		io_uring_queue_exit(&e->ring);
		return ret;
	}
	e->has_ring = true;
	return 0;
}

static void ring_queue(struct engine *e, struct io *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring);
	uint64_t off = io->off + io->done;
	unsigned len = io->len - io->done;

	if (!sqe) {
		engine_submit(e);
		sqe = io_uring_get_sqe(&e->ring);
	}
	if (!sqe) {
		/* The kernel takes none just now (out of memory): the helper can always make progress. */
		thread_queue(e, io);
		return;
	}
	switch (io->op) {
	case BLK_OP_READ:
		io_uring_prep_read(sqe, io->fd, io->buf + io->done, len, off);
		sqe->rw_flags = io->is_bdev ? 0 : RWF_NOWAIT;
		break;
	case BLK_OP_WRITE:
		io_uring_prep_write(sqe, io->fd, io->buf + io->done, len, off);
		sqe->rw_flags = (io->is_bdev ? 0 : RWF_NOWAIT) | (io->is_durable ? RWF_DSYNC : 0);
		break;
	default:
		io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
	e->is_dirty = true;
}

/* What a completion means.  Whether the operation has ended; if not it was queued again. */
static bool ring_ended(struct engine *e, struct io *io, int res)
{
	if ((res == -EINTR || res == -EAGAIN || (res > 0 && io->done + (uint32_t)res < io->len)) &&
	    is_too_late(io)) {
		io->result = -EKEYEXPIRED;
		return true;
	}
	if (res == -EAGAIN || (res == -EOPNOTSUPP && !io->is_bdev)) {
		thread_queue(e, io);
		return false;
	}
	if (res == -EINTR) {
		ring_queue(e, io);
		return false;
	}
	if (res < 0 || io->op == BLK_OP_FLUSH) {
		io->result = res < 0 ? res : 0;
		return true;
	}
	if (res == 0) {
		io->result = -EIO;
		return true;
	}
	io->done += (uint32_t)res;
	if (io->done < io->len) {
		ring_queue(e, io);
		return false;
	}
	io->result = 0;
	return true;
}

/* ---- both ---- */

int engine_open(struct engine **out, bool use_threads)
{
	struct engine *e = calloc(1, sizeof(*e));
	int ret;

	if (!e)
		return -ENOMEM;
	e->ring_efd = -1;
	e->todo_tail = &e->todo;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->cond, NULL);
	e->thread_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->thread_efd < 0) {
		ret = -errno;
		goto out;
	}
	if (!use_threads) {
		ret = ring_start(e);
		if (ret < 0)
			log_notice("io_uring is not possible here (%s); using threads for I/O, which is "
				   "slower (see sysctl kernel.io_uring_disabled)", strerror(-ret));
	}
	ret = threads_start(e, e->has_ring ? THREADS_HELPING : THREADS_ALONE);
out:
	if (ret < 0) {
		log_err("the I/O engine cannot start: %s", strerror(-ret));
		engine_close(e);
		return ret;
	}
	*out = e;
	return 0;
}

void engine_close(struct engine *e)
{
	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	e->is_stopping = true;
	pthread_cond_broadcast(&e->cond);
	pthread_mutex_unlock(&e->lock);
	for (unsigned i = 0; i < e->threads_nr; i++)
		pthread_join(e->threads[i], NULL);
	if (e->has_ring)
		io_uring_queue_exit(&e->ring);
	if (e->ring_efd >= 0)
		close(e->ring_efd);
	if (e->thread_efd >= 0)
		close(e->thread_efd);
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->cond);
	free(e);
}

const char *engine_name(const struct engine *e)
{
	return e->has_ring ? "io_uring" : "threads";
}

void engine_fds(const struct engine *e, int fds[2])
{
	fds[0] = e->thread_efd;
	fds[1] = e->has_ring ? e->ring_efd : -1;
}

void engine_queue(struct engine *e, struct io *io)
{
	io->done = 0;
	io->result = 0;
	if (!e->has_ring || io->op == BLK_OP_DISCARD)
		thread_queue(e, io);
	else
		ring_queue(e, io);
}

bool engine_submit(struct engine *e)
{
	int ret;

	if (!e->has_ring || !e->is_dirty)
		return true;
	do {
		ret = io_uring_submit(&e->ring);
	} while (ret == -EINTR);
	/* On -EAGAIN or -EBUSY the entries stay and the next pass tries again. */
	e->is_dirty = io_uring_sq_ready(&e->ring) > 0;
	return !e->is_dirty;
}

struct io *engine_reap(struct engine *e)
{
	struct io *list = NULL;
	struct io_uring_cqe *cqe;

	if (__atomic_load_n(&e->ended, __ATOMIC_ACQUIRE)) {
		pthread_mutex_lock(&e->lock);
		list = e->ended;
		e->ended = NULL;
		pthread_mutex_unlock(&e->lock);
	}
	while (e->has_ring && io_uring_peek_cqe(&e->ring, &cqe) == 0) {
		struct io *io = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&e->ring, cqe);
		if (ring_ended(e, io, res)) {
			io->next = list;
			list = io;
		}
	}
	return list;
}

void engine_sleep_begin(struct engine *e)
{
	if (e->has_ring)
		io_uring_cq_eventfd_toggle(&e->ring, true);
	__atomic_store_n(&e->sleeps, 1, __ATOMIC_SEQ_CST);
	blkring_fence();
}

void engine_sleep_end(struct engine *e)
{
	if (e->has_ring)
		io_uring_cq_eventfd_toggle(&e->ring, false);
	__atomic_store_n(&e->sleeps, 0, __ATOMIC_SEQ_CST);
}
