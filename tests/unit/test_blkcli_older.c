/*
 * A client of an older blockd: what a rolling upgrade looks like between the restart of serverd and that of blockd.
 *
 * The blockd here is one of version 2 as it was first: it ends the connection at a message that it does not know and
 * refuses a descriptor with a flag that it does not know.  The client must do without, and never make it end the
 * connection: the next one would end in the same way, and nobody could write any more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkcli.h"
#include "sockfd.h"

#define ALARM_S		120
#define DONE_MAX	64

/* Its hello's answer: the text took what is told of newer blockds today. */
struct old_hello_reply {
	struct blkmsg_header hdr;
	int32_t error;
	uint32_t entries;
	uint64_t region_bytes, pool_bytes, fsid, meta_blocks, data_blocks;
	char text[160];
};

struct old_blockd {
	char dir[64], path[96];
	int listen_fd, sock;
	int sq_efd, cq_efd;
	struct blkring_shared *ring;
	uint32_t sq_head, cq_tail;
	pthread_t thread;
	atomic_bool is_stopping;
	atomic_uint connections, controls, unknown;
	struct blkring_desc done[DONE_MAX];	/* read when nothing is under way */
	atomic_uint done_nr;
	bool knows_revoke_mount;		/* it is a new one */
};

static int memfd(uint64_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	return fd;
}

static void greet(struct old_blockd *b, const struct blkmsg_hello *h)
{
	union {
		struct old_hello_reply old;
		struct blkmsg_hello_reply new;
	} r = { .old = { .hdr = blkmsg_header(BLKMSG_HELLO_REPLY), .entries = BLKRING_ENTRIES,
			 .region_bytes = h->region_bytes, .fsid = 7, .meta_blocks = 64, .data_blocks = 64 } };
	int fds[4] = { memfd(sizeof(*b->ring)), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		       eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), -1 };
	size_t nr = 3;

	if (!(h->flags & BLK_HELLO_REGION))
		fds[nr++] = memfd(h->region_bytes);
	if (b->knows_revoke_mount)
		r.new.can = BLK_CAN_REVOKE_MOUNT;
	b->ring = mmap(NULL, sizeof(*b->ring), PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	assert_true(b->ring != MAP_FAILED);
	b->sq_head = b->cq_tail = 0;
	b->sq_efd = fds[1];
	b->cq_efd = fds[2];
	blkring_store(&b->ring->blockd_sleeps, 1);
	assert_int_equal(sockfd_send(b->sock, &r.old, sizeof(r.old), fds, nr), 0);
	close(fds[0]);
	if (nr > 3)
		close(fds[3]);
}

static void hang_up(struct old_blockd *b)
{
	if (b->ring) {
		munmap(b->ring, sizeof(*b->ring));
		close(b->sq_efd);
		close(b->cq_efd);
	}
	b->ring = NULL;
	if (b->sock >= 0)
		close(b->sock);
	b->sock = -1;
}

static void take_message(struct old_blockd *b)
{
	struct blkmsg_control_reply reply = { .hdr = blkmsg_header(BLKMSG_CONTROL_REPLY) };
	union blkmsg msg;
	size_t nr = 0;
	int fd = -1;
	ssize_t len = sockfd_recv(b->sock, &msg, sizeof(msg), &fd, 1, &nr);

	if (nr)
		close(fd);
	if (len <= 0) {
		hang_up(b);
	} else if (msg.hdr.type == BLKMSG_HELLO) {
		greet(b, &msg.hello);
	} else if (msg.hdr.type == BLKMSG_SET_TERM || msg.hdr.type == BLKMSG_REVOKE ||
		   (msg.hdr.type == BLKMSG_REVOKE_MOUNT && b->knows_revoke_mount)) {
		reply.id = msg.control.id;
		atomic_fetch_add(&b->controls, 1);
		assert_int_equal(sockfd_send(b->sock, &reply, sizeof(reply), NULL, 0), 0);
	} else if (msg.hdr.type != BLKMSG_LEASE) {
		atomic_fetch_add(&b->unknown, 1);
		hang_up(b);
	}
}

static void take_descriptors(struct old_blockd *b)
{
	uint64_t one = 1;
	struct blkring_desc d;

	if (read(b->sq_efd, &one, sizeof(one)) < 0)
		assert_int_equal(errno, EAGAIN);
	one = 1;
	while (blkring_pop(&b->ring->sq_tail, &b->ring->sq_head, &b->sq_head, b->ring->sq, &d) > 0) {
		bool is_unknown = d.flags || d.chain || d.expect_seq || d.expect_crc || d.before_nr;
		struct blkring_desc answer = { .tag = d.tag, .result = is_unknown ? -EINVAL : 0 };
		unsigned nr = atomic_load(&b->done_nr);

		assert_true(nr < DONE_MAX);
		if (!is_unknown) {
			b->done[nr] = d;
			atomic_store(&b->done_nr, nr + 1);
		}
		assert_int_equal(blkring_push(&b->ring->cq_head, &b->ring->cq_tail, &b->cq_tail, b->ring->cq,
					      &answer), 0);
		assert_int_equal(write(b->cq_efd, &one, sizeof(one)), sizeof(one));
	}
}

static void *old_blockd_main(void *arg)
{
	struct old_blockd *b = arg;

	while (!atomic_load(&b->is_stopping)) {
		struct pollfd fds[3] = { { .fd = b->sock < 0 ? b->listen_fd : -1, .events = POLLIN },
					 { .fd = b->sock, .events = POLLIN },
					 { .fd = b->ring ? b->sq_efd : -1, .events = POLLIN } };

		(void)poll(fds, 3, 20);
		if (fds[0].revents) {
			b->sock = accept4(b->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
			assert_true(b->sock >= 0);
			atomic_fetch_add(&b->connections, 1);
		}
		if (b->ring)
			take_descriptors(b);
		if (fds[1].revents)
			take_message(b);
	}
	hang_up(b);
	return NULL;
}

static void start(struct old_blockd *b)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	strcpy(b->dir, "/tmp/test_blkcli_older.XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	snprintf(b->path, sizeof(b->path), "%s/sock", b->dir);
	strcpy(sa.sun_path, b->path);
	b->sock = -1;
	b->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(b->listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(b->listen_fd, 4), 0);
	assert_int_equal(pthread_create(&b->thread, NULL, old_blockd_main, b), 0);
	alarm(ALARM_S);
}

/* knows_revoke_mount: what takes its place is a new one. */
static void restart(struct old_blockd *b, bool knows_revoke_mount)
{
	atomic_store(&b->is_stopping, true);
	pthread_join(b->thread, NULL);
	atomic_store(&b->is_stopping, false);
	b->knows_revoke_mount = knows_revoke_mount;
	assert_int_equal(pthread_create(&b->thread, NULL, old_blockd_main, b), 0);
}

static void stop(struct old_blockd *b)
{
	atomic_store(&b->is_stopping, true);
	pthread_join(b->thread, NULL);
	close(b->listen_fd);
	unlink(b->path);
	rmdir(b->dir);
	alarm(0);
}

static struct blkcli *client(struct old_blockd *b)
{
	struct blkcli_conf conf = { .socket_path = b->path, .kind = BLK_KIND_SERVERD, .rid = 5, .term = 1,
				    .region_bytes = 65536 };
	struct blkcli *c = NULL;

	assert_int_equal(blkcli_open(&c, &conf), 0);
	return c;
}

static void what_it_does_not_know_is_not_said_to_it(void **state)
{
	struct old_blockd b = { .sock = -1 };
	struct blkcli *c;

	(void)state;
	start(&b);
	c = client(&b);
	assert_false(blkcli_can_revoke_mount(c));
	assert_int_equal(blkcli_revoke_mount(c, 5), -EOPNOTSUPP);
	/* What it knows it does, on the same connection. */
	assert_int_equal(blkcli_set_term(c, 2), 0);
	assert_int_equal(blkcli_revoke(c, 6), 0);
	assert_int_equal(atomic_load(&b.controls), 2);
	assert_int_equal(atomic_load(&b.unknown), 0);
	assert_int_equal(atomic_load(&b.connections), 1);

	/* The upgrade goes on: the next blockd is asked. */
	restart(&b, true);
	while (!blkcli_can_revoke_mount(c))
		poll(NULL, 0, 2);
	assert_int_equal(blkcli_revoke_mount(c, 5), 0);
	assert_int_equal(atomic_load(&b.controls), 3);

	/* And back: what could not be said to the one that is gone is not said to the one that comes. */
	restart(&b, false);
	assert_int_equal(blkcli_revoke_mount(c, 5), -EOPNOTSUPP);
	assert_int_equal(atomic_load(&b.controls), 3);
	assert_int_equal(atomic_load(&b.unknown), 0);
	blkcli_close(c);
	stop(&b);
}

static void flags_that_it_refuses_are_done_without(void **state)
{
	struct old_blockd b = { .sock = -1 };
	struct blkcli_op ops[3];
	struct blkcli *c;
	char *buf;

	(void)state;
	start(&b);
	c = client(&b);
	buf = blkcli_buf_alloc(c, 8192);
	assert_non_null(buf);

	/* A durable write: a write, then a flush. */
	assert_int_equal(blkcli_write_small_durable(c, BLK_DEV_META, 9, buf), 0);
	assert_int_equal(atomic_load(&b.done_nr), 2);
	assert_int_equal(b.done[0].op, BLK_OP_WRITE);
	assert_int_equal(b.done[0].dev_off, 9 * 4096);
	assert_int_equal(b.done[1].op, BLK_OP_FLUSH);
	assert_int_equal(b.done[1].dev, BLK_DEV_META);

	/* Writes with their flush: the flush comes when both have been answered. */
	for (unsigned i = 0; i < 2; i++)
		ops[i] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_DATA, .dev_off = 4096 * i, .len = 4096,
					     .buf = buf + 4096 * i };
	ops[2] = blkcli_flush_op(BLK_DEV_DATA);
	assert_int_equal(blkcli_run(c, ops, 3), 0);
	assert_int_equal(atomic_load(&b.done_nr), 5);
	assert_int_equal(b.done[2].op, BLK_OP_WRITE);
	assert_int_equal(b.done[3].op, BLK_OP_WRITE);
	assert_int_equal(b.done[4].op, BLK_OP_FLUSH);
	assert_int_equal(b.done[4].dev, BLK_DEV_DATA);
	assert_int_equal(atomic_load(&b.connections), 1);
	assert_int_equal(blkcli_flush_failures(c, BLK_DEV_DATA), 0);
	blkcli_buf_free(c, buf);
	blkcli_close(c);
	stop(&b);
}

/* A chain is not sent to it, nor to the one that comes in the place of one that knows them. */
static void a_commit_in_one_call_is_not_asked_of_it(void **state)
{
	struct old_blockd b = { .sock = -1 };
	struct blkcli_op ops[2];
	struct blkcli *c;
	char *buf;

	(void)state;
	start(&b);
	c = client(&b);
	buf = blkcli_buf_alloc(c, 4096);
	assert_non_null(buf);
	ops[0] = blkcli_flush_op(BLK_DEV_META);
	ops[1] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_META, .is_durable = true,
				     .dev_off = SUPER_BLKNO << SMALL_SHIFT, .len = 4096, .buf = buf };
	assert_int_equal(blkcli_run_chain(c, ops, 2, 1, 1), -EAGAIN);
	assert_int_equal(atomic_load(&b.done_nr), 0);
	assert_int_equal(blkcli_run(c, ops, 2), 0);
	assert_int_equal(atomic_load(&b.done_nr), 3);
	assert_int_equal(atomic_load(&b.connections), 1);
	blkcli_buf_free(c, buf);
	blkcli_close(c);
	stop(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_does_not_know_is_not_said_to_it),
		cmocka_unit_test(flags_that_it_refuses_are_done_without),
		cmocka_unit_test(a_commit_in_one_call_is_not_asked_of_it),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
