/*
 * blockd's connections under control, for tests.  The engine here is a list that ends an operation when the test says so;
 * everything else is blockd's own code, in this process, and the clients are bare sockets whose messages wait in the
 * socket until the test lets blockd look.
 */
#ifndef TEST_BLOCKD_CONN_RIG_H
#define TEST_BLOCKD_CONN_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "conf.h"
#include "format/format.h"
#include "services/blockd/blockd.h"
#include "sockfd.h"

#define VICTIM	0x55ull
#define DATA_OFF (DATA_FIRST_BLKNO << SMALL_SHIFT)
#define QUORUM_OFF (QUORUM_FIRST_BLKNO << SMALL_SHIFT)

/* ---- an engine under control ---- */

static struct io *started;

int engine_open(struct engine **out, bool use_threads)
{
	(void)use_threads;
	*out = NULL;
	return 0;
}

void engine_close(struct engine *e)
{
	(void)e;
}

const char *engine_name(const struct engine *e)
{
	(void)e;
	return "test";
}

void engine_fds(const struct engine *e, int fds[2])
{
	(void)e;
	fds[0] = -1;
	fds[1] = -1;
}

void engine_queue(struct engine *e, struct io *io)
{
	(void)e;
	io->next = started;
	started = io;
}

bool engine_submit(struct engine *e)
{
	(void)e;
	return true;
}

struct io *engine_reap(struct engine *e)
{
	(void)e;
	return NULL;
}

void engine_sleep_begin(struct engine *e)
{
	(void)e;
}

void engine_sleep_end(struct engine *e)
{
	(void)e;
}

/* ---- fixture ---- */

struct fixture {
	char dir[64];
	struct instance_conf conf;
	struct blockd d;
};

struct raw {
	int sock;
	int fds[BLKMSG_FDS_MAX];
	size_t fds_nr;
	struct blkmsg_hello_reply reply;
	struct blkring_shared *ring;
	uint32_t tail, head;
};

static inline int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct blockd *d = &fx->d;

	assert_non_null(fx);
	started = NULL;
	strcpy(fx->dir, "/tmp/test_blockd_conn.XXXXXX");
	assert_non_null(mkdtemp(fx->dir));
	for (unsigned i = 0; i < BLOCKD_IOS_MAX; i++) {
		d->ios[i].next = d->free_ios;
		d->free_ios = &d->ios[i];
	}
	d->vol.fsid = 7;
	d->vol.meta_blocks = 2048;
	d->vol.data_blocks = 16384;
	d->vol.dev[0] = (struct device){ .name = "meta_device", .path = "M", .volume_bytes = 128 << 20 };
	d->vol.dev[1] = (struct device){ .name = "data_device", .path = "D", .volume_bytes = 64 << 20 };
	d->pool.fd = memfd_create("pool", MFD_CLOEXEC);
	d->pool.bytes = 1 << 20;
	strcpy(fx->conf.runtime_dir, fx->dir);
	strcpy(fx->conf.name, "no-such-mount");
	d->conf = &fx->conf;
	d->look_known_ns = UINT64_MAX;
	pthread_mutex_init(&d->leases_lock, NULL);
	assert_int_equal(tokens_load(&d->tokens, fx->dir, 7), 0);
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	d->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/s", fx->dir);
	assert_int_equal(bind(d->listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(d->listen_fd, 80), 0);
	*state = fx;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *fx = *state;
	struct blockd *d = &fx->d;
	char path[128];

	conns_close(d);
	conns_complete(d, started);
	assert_int_equal(d->conns_nr, 0);
	assert_int_equal(d->ios_nr, 0);
	assert_int_equal(d->controls_held, 0);
	close(d->pool.fd);
	close(d->epoll_fd);
	close(d->listen_fd);
	snprintf(path, sizeof(path), "%s/s", fx->dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/tokens", fx->dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/leases", fx->dir);
	unlink(path);
	assert_int_equal(rmdir(fx->dir), 0);
	free(fx);
	return 0;
}

/* Let blockd look at everything that waits for it. */
static inline void turn(struct blockd *d)
{
	struct epoll_event ev[32];
	int nr = epoll_wait(d->epoll_fd, ev, 32, 0);

	for (int i = 0; i < nr; i++) {
		if (ev[i].data.u64 >> 32 == WATCH_SOCKET)
			conn_socket_event(d, (unsigned)(ev[i].data.u64 & UINT32_MAX));
	}
	conns_accept(d);
	conns_drain(d);
}

static inline void end_one(struct blockd *d, struct io *io, int result)
{
	struct io **p = &started;

	while (*p != io)
		p = &(*p)->next;
	*p = io->next;
	io->next = NULL;
	io->result = result;
	conns_complete(d, io);
}

static inline void end_all(struct blockd *d)
{
	while (started)
		end_one(d, started, 0);
}

static inline void say_hello(struct fixture *fx, struct raw *r, uint32_t kind, uint64_t rid, uint64_t term)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct blkmsg_hello h = { .hdr = blkmsg_header(BLKMSG_HELLO), .kind = kind, .rid = rid,
				  .term = term, .region_bytes = 1 << 20 };

	memset(r, 0, sizeof(*r));
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/s", fx->dir);
	r->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(r->sock, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(sockfd_send(r->sock, &h, sizeof(h), NULL, 0), 0);
	turn(&fx->d);	/* accept */
	turn(&fx->d);	/* hello */
}

static inline bool is_welcome(struct raw *r)
{
	ssize_t n = sockfd_recv(r->sock, &r->reply, sizeof(r->reply), r->fds, BLKMSG_FDS_MAX, &r->fds_nr);

	if (n == -EAGAIN)
		return false;
	assert_int_equal(n, sizeof(r->reply));
	assert_int_equal(r->reply.error, 0);
	r->ring = mmap(NULL, sizeof(*r->ring), PROT_READ | PROT_WRITE, MAP_SHARED, r->fds[0], 0);
	assert_true(r->ring != MAP_FAILED);
	return true;
}

/* Without a lease. */
static inline void join_only(struct fixture *fx, struct raw *r, uint32_t kind, uint64_t rid, uint64_t term)
{
	say_hello(fx, r, kind, rid, term);
	assert_true(is_welcome(r));
}

static inline void join(struct fixture *fx, struct raw *r, uint32_t kind, uint64_t rid, uint64_t term)
{
	uint64_t now = clock_boot_ns();

	assert_true(lease_guard_set(&fx->d.leases, kind, rid, term, now + LEASE_SPAN_MAX_NS, now) >= 0);
	join_only(fx, r, kind, rid, term);
}

static inline void lease(struct fixture *fx, struct raw *r, uint32_t kind, uint64_t rid, uint64_t term,
		  uint64_t until_ns)
{
	struct blkmsg_lease m = { .hdr = blkmsg_header(BLKMSG_LEASE),
				  .lease = { .kind = kind, .rid = rid, .term = term,
					     .until_ns = until_ns } };

	assert_int_equal(sockfd_send(r->sock, &m, sizeof(m), NULL, 0), 0);
	turn(&fx->d);
}

static inline void leave(struct fixture *fx, struct raw *r)
{
	if (r->ring)
		munmap(r->ring, sizeof(*r->ring));
	sockfd_close_all(r->fds, r->fds_nr);
	close(r->sock);
	turn(&fx->d);
}

static inline void ask_flags(struct fixture *fx, struct raw *r, unsigned op, unsigned dev, uint64_t off,
		      unsigned flags)
{
	struct blkring_desc d = { .op = (uint8_t)op, .dev = (uint8_t)dev, .tag = 9,
				  .flags = (uint16_t)flags };

	if (op != BLK_OP_FLUSH) {
		d.region = BLK_REGION_PRIVATE;
		d.len = 4096;
		d.dev_off = off;
	}
	assert_int_equal(blkring_push(&r->ring->sq_head, &r->ring->sq_tail, &r->tail, r->ring->sq, &d), 0);
	conns_drain(&fx->d);
}

static inline void ask(struct fixture *fx, struct raw *r, unsigned op, unsigned dev, uint64_t off)
{
	ask_flags(fx, r, op, dev, off, 0);
}

/* The next completion; 1: none yet. */
static inline int answer(struct raw *r)
{
	struct blkring_desc d;
	int ret = blkring_pop(&r->ring->cq_tail, &r->ring->cq_head, &r->head, r->ring->cq, &d);

	assert_true(ret >= 0);
	if (ret == 0)
		return 1;
	assert_int_equal(d.tag, 9);
	return d.result;
}

static inline void control(struct fixture *fx, struct raw *r, enum blkmsg_type type, uint64_t value)
{
	struct blkmsg_control m = { .hdr = blkmsg_header(type), .id = 3, .value = value };

	assert_int_equal(sockfd_send(r->sock, &m, sizeof(m), NULL, 0), 0);
	turn(&fx->d);
}

/* The answer to a control; 1: none yet. */
static inline int control_answer(struct raw *r)
{
	struct blkmsg_control_reply m;
	size_t nr;
	ssize_t n = sockfd_recv(r->sock, &m, sizeof(m), NULL, 0, &nr);

	if (n == -EAGAIN)
		return 1;
	assert_int_equal(n, sizeof(m));
	assert_int_equal(m.id, 3);
	return m.error;
}

#endif
