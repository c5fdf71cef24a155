/*
 * The connection of a blockd client: one thread that connects, takes the ring and the descriptors,
 * carries controls, notices that blockd died, and begins again; until close.
 *
 * What stays the same over connections: the private region (its memfd is handed to the next blockd),
 * the pool (the same inode or the connection is refused: addresses in it are promises), the volume
 * (same fsid, not smaller).  A connection that would break one of these is not used; callers wait and
 * the log says why.
 *
 * What blockd sends is checked as if it were a stranger's, the seals too: mapping a file that can
 * shrink would let it kill us.
 */
#include "blkcli_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "sockfd.h"
#include "thread.h"

#define BACKOFF_MIN_MS	10
#define BACKOFF_MAX_MS	200
#define RESEND_MS	5	/* for blockd to have heard of the lease that we were given */

/* Positions of descriptors in a hello reply. */
enum { FD_RING, FD_SQ, FD_CQ, FD_FIRST_REGION };

static void ring_bell(int efd)
{
	uint64_t one = 1;

	/* Non-blocking: -EAGAIN means 2^64 rings are waiting already, which is loud enough. */
	if (write(efd, &one, sizeof(one)) < 0)
		return;
}

void client_wake_conn(struct blkcli *c)
{
	ring_bell(c->wake_efd);
}

void client_fail(struct blkcli *c, const char *why)
{
	if (!c->is_connected)
		return;
	log_err("blockd at %s: %s; connecting again", c->path, why);
	c->is_connected = false;
	shutdown(c->sock, SHUT_RDWR);
}

void client_send_slot(struct blkcli *c, struct slot *s)
{
	int ret;

	if (!c->is_connected)
		return;
	ret = blkring_put(&c->ring->sq_head, &c->sq_tail, c->ring->sq, &s->desc);
	if (ret < 0) {
		/* There are as many slots as entries and blockd takes them before it completes them. */
		client_fail(c, "its ring makes no sense");
		return;
	}
	s->state = SLOT_SENT;
}

/* In another order than they were sent at first. */
static void client_resend_slot(struct blkcli *c, struct slot *s)
{
	if (s->waiter)
		s->waiter->was_resent = true;
	client_send_slot(c, s);
}

void client_kick(struct blkcli *c)
{
	if (!c->is_connected || c->sq_shown == c->sq_tail)
		return;
	c->sq_shown = c->sq_tail;
	blkring_store(&c->ring->sq_tail, c->sq_tail);
	blkring_fence();
	if (blkring_load(&c->ring->blockd_sleeps) &&
	    __atomic_exchange_n(&c->ring->blockd_sleeps.v, 0, __ATOMIC_SEQ_CST))
		ring_bell(c->sq_efd);
}

/* Wait until the socket has something or is closed (1), or somebody woke us or the time is over (0). */
static int wait_readable(struct blkcli *c, int sock, int timeout_ms)
{
	struct pollfd pfd[2] = { { .fd = sock, .events = POLLIN },
				 { .fd = c->wake_efd, .events = POLLIN } };
	uint64_t count;

	if (poll(pfd, 2, timeout_ms) < 0)
		return 0;
	if (pfd[1].revents && read(c->wake_efd, &count, sizeof(count)) < 0)
		count = 0;
	return pfd[0].revents != 0;
}

static bool is_stopping(struct blkcli *c)
{
	bool ret;

	pthread_mutex_lock(&c->lock);
	ret = c->is_stopping;
	pthread_mutex_unlock(&c->lock);
	return ret;
}

/* A memfd of at least len bytes that cannot shrink. */
static bool is_safe_memfd(int fd, uint64_t len)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &st) == 0 &&
	       (uint64_t)st.st_size >= len;
}

static void *map_shared(int fd, size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Log a reason why there is no connection, once until it changes or a connection stands. */
static int refuse(struct blkcli *c, int err, const char *why)
{
	if (c->refusal != err)
		log_err("blockd at %s: %s", c->path, why);
	pthread_mutex_lock(&c->lock);
	c->refusal = err;
	pthread_cond_broadcast(&c->conn_cond);
	pthread_mutex_unlock(&c->lock);
	return err;
}

/* Connected socket, or -errno. */
static int conn_connect(struct blkcli *c)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock;
	int err;

	memcpy(sa.sun_path, c->path, strlen(c->path) + 1);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return -errno;
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		err = -errno;
		close(sock);
		return err;
	}
	return sock;
}

/* Keep what the first connection brought; compare it with what a later one brings. */
static int conn_check_regions(struct blkcli *c, const struct blkmsg_hello_reply *hr, const int *fds,
			      size_t nr)
{
	size_t next = FD_FIRST_REGION;
	struct stat st;

	if (c->region_fd < 0) {
		if (nr <= next || hr->region_bytes != c->region_bytes ||
		    !is_safe_memfd(fds[next], c->region_bytes))
			return refuse(c, -EPROTO, "it gave no usable private region");
		c->region = map_shared(fds[next], c->region_bytes);
		if (!c->region)
			return refuse(c, -ENOMEM, "no memory to map the private region");
		c->region_fd = fcntl(fds[next], F_DUPFD_CLOEXEC, 3);
		if (c->region_fd < 0) {
			munmap(c->region, c->region_bytes);
			c->region = NULL;
			return refuse(c, -EMFILE, "no descriptor for the private region");
		}
		next++;
	}
	if (c->conf.kind != BLK_KIND_FSD)
		return 0;
	if (nr <= next || hr->pool_bytes == 0 || hr->pool_bytes > SIZE_MAX / 2 ||
	    fstat(fds[next], &st) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size != hr->pool_bytes)
		return refuse(c, -EPROTO, "it gave no usable pool");
	if (c->pool) {
		if (st.st_dev != c->pool_dev || st.st_ino != c->pool_ino ||
		    hr->pool_bytes != c->pool_bytes)
			return refuse(c, -ESTALE, "its pool is another file than before; file data "
				      "in the old one is not reachable: restart this service");
		return 0;
	}
	c->pool = map_shared(fds[next], hr->pool_bytes);
	if (!c->pool)
		return refuse(c, -ENOMEM, "no memory to map the pool");
	c->pool_bytes = hr->pool_bytes;
	c->pool_dev = st.st_dev;
	c->pool_ino = st.st_ino;
	return 0;
}

/* Use the ring that blockd gave: everything unanswered goes into it. */
static int conn_install(struct blkcli *c, int sock, const struct blkmsg_hello_reply *hr, int *fds,
			size_t nr)
{
	struct blkring_shared *ring;
	int ret;

	if (nr < FD_FIRST_REGION || hr->entries != BLKRING_ENTRIES ||
	    !is_safe_memfd(fds[FD_RING], sizeof(*ring)))
		return refuse(c, -EPROTO, "it gave no usable ring");
	if (c->was_opened && (hr->fsid != c->fsid || hr->meta_blocks < c->meta_blocks ||
			      hr->data_blocks < c->data_blocks))
		return refuse(c, -ESTALE, "it serves another volume than before");
	ret = conn_check_regions(c, hr, fds, nr);
	if (ret < 0)
		return ret;
	ring = map_shared(fds[FD_RING], sizeof(*ring));
	if (!ring)
		return refuse(c, -ENOMEM, "no memory to map the ring");

	pthread_mutex_lock(&c->lock);
	c->ring = ring;
	c->sock = sock;
	c->sq_efd = fds[FD_SQ];
	c->cq_efd = fds[FD_CQ];
	fds[FD_SQ] = -1;
	fds[FD_CQ] = -1;
	c->sq_tail = 0;
	c->sq_shown = 0;
	c->cq_head = 0;
	if (!c->was_opened) {
		c->fsid = hr->fsid;
		c->meta_blocks = hr->meta_blocks;
		c->data_blocks = hr->data_blocks;
		c->was_opened = true;
	} else {
		c->stats.reconnects++;
	}
	c->is_connected = true;
	c->can = hr->can;
	c->connection++;
	c->refusal = 0;
	for (size_t i = 0; i < BLKRING_ENTRIES; i++) {
		if (c->slots[i].state == SLOT_WAITING) {
			c->stats.resent++;
			client_resend_slot(c, &c->slots[i]);
		}
	}
	client_kick(c);
	if (c->control.state == CONTROL_SENT)
		c->control.state = CONTROL_WAITING;
	/* Also what an fsd was given while it said hello. */
	c->lease_is_due = c->lease.kind != 0;
	c->must_resend = false;
	for (struct waiter *w = c->waiters; w; w = w->next)
		pthread_cond_signal(&w->cond);
	pthread_cond_broadcast(&c->conn_cond);
	pthread_mutex_unlock(&c->lock);
	return 0;
}

/* Say hello on sock and take what comes back.  0: installed, sock is the client's. */
static int conn_greet(struct blkcli *c, int sock)
{
	struct blkmsg_hello hello = {
		.hdr = blkmsg_header(BLKMSG_HELLO),
		.kind = c->conf.kind,
		.flags = c->region_fd >= 0 ? BLK_HELLO_REGION : 0,
		.rid = c->conf.rid,
		.region_bytes = c->region_bytes,
	};
	union blkmsg msg;
	int fds[BLKMSG_FDS_MAX];
	size_t nr = 0;
	ssize_t len;
	int ret;

	pthread_mutex_lock(&c->lock);
	hello.term = c->conf.term;
	if (c->conf.kind == BLK_KIND_FSD)
		hello.lease = c->lease;
	pthread_mutex_unlock(&c->lock);

	ret = sockfd_send(sock, &hello, sizeof(hello), &c->region_fd, c->region_fd >= 0 ? 1 : 0);
	if (ret < 0)
		return ret;
	/* blockd may take its time: it answers when I/O of our last connection has ended. */
	while (!wait_readable(c, sock, -1))
		if (is_stopping(c))
			return -ECANCELED;
	len = sockfd_recv(sock, &msg, sizeof(msg), fds, BLKMSG_FDS_MAX, &nr);
	if (len <= 0)
		return len < 0 ? (int)len : -ECONNRESET;

	if (len < (ssize_t)sizeof(msg.hdr) || msg.hdr.magic != BLKMSG_MAGIC) {
		ret = refuse(c, -EPROTO, "it does not speak like a blockd");
	} else if (msg.hdr.version != BLKMSG_VERSION) {
		ret = refuse(c, -EPROTO, "it is of another version; restart the services of the older");
	} else if (len != sizeof(msg.hello_reply) || msg.hdr.type != BLKMSG_HELLO_REPLY ||
		   !memchr(msg.hello_reply.text, 0, sizeof(msg.hello_reply.text)) ||
		   msg.hello_reply.error > 0) {
		ret = refuse(c, -EPROTO, "its greeting makes no sense");
	} else if (msg.hello_reply.error < 0) {
		ret = refuse(c, msg.hello_reply.error, msg.hello_reply.text);
	} else {
		ret = conn_install(c, sock, &msg.hello_reply, fds, nr);
	}
	sockfd_close_all(fds, nr);
	return ret;
}

static void lease_send(struct blkcli *c)
{
	struct blkmsg_lease msg = { .hdr = blkmsg_header(BLKMSG_LEASE) };
	bool is_due;

	pthread_mutex_lock(&c->lock);
	is_due = c->lease_is_due;
	c->lease_is_due = false;
	msg.lease = c->lease;
	pthread_mutex_unlock(&c->lock);
	if (is_due && sockfd_send(c->sock, &msg, sizeof(msg), NULL, 0) < 0)
		shutdown(c->sock, SHUT_RDWR);
}

/*
 * Writes that were refused for want of a lease go out again when we have one, a moment later, for blockd may
 * not have read of it yet.  due_ns: when, 0: none wait.  For how many ms to sleep; -1: until something happens.
 */
static int lease_resend(struct blkcli *c, uint64_t *due_ns)
{
	uint64_t now = clock_mono_ns();
	bool may, is_due;

	pthread_mutex_lock(&c->lock);
	may = c->must_resend && clock_boot_ns() < c->lease.until_ns;
	is_due = may && *due_ns && now >= *due_ns;
	if (is_due) {
		c->must_resend = may = false;
		for (size_t i = 0; i < BLKRING_ENTRIES; i++) {
			if (c->slots[i].state == SLOT_WAITING)
				client_resend_slot(c, &c->slots[i]);
		}
		client_kick(c);
	}
	pthread_mutex_unlock(&c->lock);
	if (!may)
		*due_ns = 0;
	else if (!*due_ns)
		*due_ns = now + RESEND_MS * 1000000ull;
	return may ? RESEND_MS : -1;
}

static void control_send(struct blkcli *c)
{
	struct blkmsg_control msg;
	bool is_due;

	pthread_mutex_lock(&c->lock);
	is_due = c->control.state == CONTROL_WAITING;
	if (is_due && c->control.msg.hdr.type == BLKMSG_REVOKE_MOUNT && !(c->can & BLK_CAN_REVOKE_MOUNT)) {
		/* It would end the connection, and the next one: nobody could write any more. */
		is_due = false;
		c->control.state = CONTROL_DONE;
		c->control.result = -EOPNOTSUPP;
		pthread_cond_broadcast(&c->conn_cond);
	}
	if (is_due)
		c->control.state = CONTROL_SENT;
	msg = c->control.msg;
	pthread_mutex_unlock(&c->lock);
	/* Whatever keeps it from leaving closes the socket too, and the next connection sends it again. */
	if (is_due && sockfd_send(c->sock, &msg, sizeof(msg), NULL, 0) < 0)
		shutdown(c->sock, SHUT_RDWR);
}

/* Receive one message.  0; -errno: the connection is over. */
static int control_receive(struct blkcli *c)
{
	union blkmsg msg;
	size_t nr;
	ssize_t len = sockfd_recv(c->sock, &msg, sizeof(msg), NULL, 0, &nr);

	if (len == -EAGAIN)
		return 0;
	if (len <= 0)
		return len < 0 ? (int)len : -ECONNRESET;
	if (len != sizeof(msg.control_reply) || msg.hdr.magic != BLKMSG_MAGIC ||
	    msg.hdr.version != BLKMSG_VERSION || msg.hdr.type != BLKMSG_CONTROL_REPLY ||
	    msg.control_reply.error > 0)
		return -EPROTO;
	pthread_mutex_lock(&c->lock);
	/* An answer to a control whose caller gave up has an older id. */
	if (c->control.state == CONTROL_SENT && msg.control_reply.id == c->control.msg.id) {
		c->control.state = CONTROL_DONE;
		c->control.result = msg.control_reply.error;
		pthread_cond_broadcast(&c->conn_cond);
	}
	pthread_mutex_unlock(&c->lock);
	return 0;
}

/* Until the connection is over or we stop. */
static void conn_serve(struct blkcli *c)
{
	uint64_t resend_ns = 0;

	while (!is_stopping(c)) {
		/* First, so that a control that is answered says that it was heard. */
		lease_send(c);
		control_send(c);
		if (wait_readable(c, c->sock, lease_resend(c, &resend_ns)) && control_receive(c) < 0)
			return;
	}
}

static void conn_drop(struct blkcli *c)
{
	pthread_mutex_lock(&c->lock);
	c->is_connected = false;
	ring_bell(c->cq_efd);
	while (c->is_reaping)
		pthread_cond_wait(&c->conn_cond, &c->lock);
	/* What it completed before it died need not be done again. */
	(void)client_drain(c);
	for (size_t i = 0; i < BLKRING_ENTRIES; i++) {
		struct slot *s = &c->slots[i];

		if (s->waiter && (s->state == SLOT_SENT || s->state == SLOT_WAITING))
			client_leave_chain(c, s);
		if (s->state != SLOT_SENT)
			continue;
		if (s->waiter) {
			s->state = SLOT_WAITING;
		} else {
			s->state = SLOT_FREE;
			s->gen++;
			c->free[c->free_nr++] = (uint32_t)i;
		}
	}
	munmap(c->ring, sizeof(*c->ring));
	c->ring = NULL;
	close(c->sq_efd);
	close(c->cq_efd);
	for (struct waiter *w = c->waiters; w; w = w->next)
		pthread_cond_signal(&w->cond);
	pthread_cond_broadcast(&c->conn_cond);
	pthread_mutex_unlock(&c->lock);
}

/* Sleep, or less when somebody wakes us. */
static void conn_back_off(struct blkcli *c, unsigned ms)
{
	struct pollfd pfd = { .fd = c->wake_efd, .events = POLLIN };
	uint64_t end = clock_mono_ns() + ms * 1000000ull;
	uint64_t now;
	uint64_t count;

	while (!is_stopping(c) && (now = clock_mono_ns()) < end) {
		(void)poll(&pfd, 1, (int)((end - now) / 1000000) + 1);
		if (pfd.revents && read(c->wake_efd, &count, sizeof(count)) < 0)
			count = 0;
	}
}

static void *conn_main(void *arg)
{
	struct blkcli *c = arg;
	unsigned backoff_ms = BACKOFF_MIN_MS;
	bool is_said = false;

	while (!is_stopping(c)) {
		int sock = conn_connect(c);

		if (sock < 0 && !is_said) {
			log_notice("waiting for blockd at %s: %s", c->path, strerror(-sock));
			is_said = true;
		}
		if (sock >= 0 && conn_greet(c, sock) == 0) {
			backoff_ms = BACKOFF_MIN_MS;
			is_said = false;
			if (c->conf.on_state)
				c->conf.on_state(c->conf.arg, true);
			conn_serve(c);
			conn_drop(c);
			if (c->conf.on_state)
				c->conf.on_state(c->conf.arg, false);
		}
		if (sock >= 0)
			close(sock);
		conn_back_off(c, backoff_ms);
		backoff_ms = backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS;
	}
	return NULL;
}

/* Wait for the first connection; what keeps us from having one. */
static int open_wait(struct blkcli *c)
{
	uint64_t end = clock_mono_ns() + c->conf.deadline_ms * 1000000ull;
	struct timespec ts = { .tv_sec = (time_t)(end / 1000000000),
			       .tv_nsec = (long)(end % 1000000000) };
	int ret = 0;

	pthread_mutex_lock(&c->lock);
	while (!c->was_opened && c->refusal == 0 && ret == 0)
		ret = c->conf.deadline_ms ?
			      pthread_cond_timedwait(&c->conn_cond, &c->lock, &ts) :
			      pthread_cond_wait(&c->conn_cond, &c->lock);
	if (c->was_opened)
		ret = 0;
	else
		ret = c->refusal ? c->refusal : -ETIMEDOUT;
	pthread_mutex_unlock(&c->lock);
	return ret;
}

int blkcli_open(struct blkcli **out, const struct blkcli_conf *conf)
{
	struct sockaddr_un sa;
	pthread_condattr_t attr;
	struct blkcli *c;
	int ret;

	if (conf->kind == 0 || conf->kind >= BLK_KIND_END)
		return -EINVAL;
	if (strlen(conf->socket_path) >= sizeof(sa.sun_path)) {
		log_err("%s: longer than the %zu bytes a socket's path may have; use a shorter "
			"runtime_dir", conf->socket_path, sizeof(sa.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	if (conf->region_bytes > BLKRING_REGION_MAX - BLKRING_ENTRIES * BOUNCE_BYTES)
		return -ENOSPC;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->conf = *conf;
	c->conf.socket_path = NULL;
	c->user_bytes = (conf->region_bytes + BLKRING_ALIGN - 1) / BLKRING_ALIGN * BLKRING_ALIGN;
	c->region_bytes = c->user_bytes + BLKRING_ENTRIES * BOUNCE_BYTES;
	c->region_fd = -1;
	while (c->free_nr < BLKRING_ENTRIES) {
		c->free[c->free_nr] = BLKRING_ENTRIES - 1 - c->free_nr;
		c->free_nr++;
	}
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->buf_lock, NULL);
	pthread_cond_init(&c->buf_cond, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->conn_cond, &attr);
	pthread_condattr_destroy(&attr);

	ret = -ENOMEM;
	c->path = strdup(conf->socket_path);
	c->runs = calloc(c->user_bytes / BLKRING_ALIGN + 1, sizeof(*c->runs));
	if (!c->path || !c->runs)
		goto out_free;
	c->wake_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_efd < 0) {
		ret = -errno;
		goto out_free;
	}
	ret = thread_start(&c->thread, "blockd client", conn_main, c);
	if (ret < 0) {
		close(c->wake_efd);
		goto out_free;
	}
	ret = open_wait(c);
	if (ret < 0) {
		blkcli_close(c);
		return ret;
	}
	*out = c;
	return 0;

out_free:
	free(c->runs);
	free(c->path);
	free(c);
	return ret;
}

void blkcli_close(struct blkcli *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->is_stopping = true;
	pthread_mutex_unlock(&c->lock);
	client_wake_conn(c);
	pthread_join(c->thread, NULL);

	if (c->region)
		munmap(c->region, c->region_bytes);
	if (c->pool)
		munmap(c->pool, c->pool_bytes);
	if (c->region_fd >= 0)
		close(c->region_fd);
	close(c->wake_efd);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->buf_lock);
	pthread_cond_destroy(&c->buf_cond);
	pthread_cond_destroy(&c->conn_cond);
	free(c->runs);
	free(c->path);
	free(c);
}
