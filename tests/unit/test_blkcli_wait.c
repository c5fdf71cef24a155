/*
 * How a client of blockd waits: a call that is alone is woken once, when all of it is completed; one that others
 * join keeps none of them waiting.  The test itself is the blockd, so it decides what is completed when.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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
#define READS		3u

struct fake {
	char dir[64], path[96];
	int listen_fd, sock, sq_efd, cq_efd;
	struct blkring_shared *ring;
	uint32_t sq_head, cq_tail;
	unsigned bells;
	pthread_t opener;
	struct blkcli *cli;
};

struct call {
	struct blkcli *cli;
	pthread_t thread;
	unsigned nr;
	atomic_int result;	/* 1: not back yet */
};

static int memfd(uint64_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	return fd;
}

static void *open_client(void *arg)
{
	struct fake *f = arg;
	struct blkcli_conf conf = { .socket_path = f->path, .kind = BLK_KIND_TOOL, .rid = 5,
				    .region_bytes = 65536 };

	return (void *)(intptr_t)blkcli_open(&f->cli, &conf);
}

static void start(struct fake *f)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct blkmsg_hello_reply reply = { .hdr = blkmsg_header(BLKMSG_HELLO_REPLY), .entries = BLKRING_ENTRIES,
					    .fsid = 7, .meta_blocks = 64, .data_blocks = 64 };
	union blkmsg msg;
	size_t nr = 0;
	int fds[4];
	void *ret;

	alarm(ALARM_S);
	strcpy(f->dir, "/tmp/test_blkcli_wait.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	strcpy(sa.sun_path, f->path);
	f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(f->listen_fd, 1), 0);
	assert_int_equal(pthread_create(&f->opener, NULL, open_client, f), 0);
	f->sock = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	assert_true(f->sock >= 0);
	assert_int_equal(sockfd_recv(f->sock, &msg, sizeof(msg), fds, 0, &nr), sizeof(msg.hello));
	reply.region_bytes = msg.hello.region_bytes;
	fds[0] = memfd(sizeof(*f->ring));
	fds[1] = f->sq_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fds[2] = f->cq_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fds[3] = memfd(reply.region_bytes);
	f->ring = mmap(NULL, sizeof(*f->ring), PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	assert_true(f->ring != MAP_FAILED);
	assert_int_equal(sockfd_send(f->sock, &reply, sizeof(reply), fds, 4), 0);
	close(fds[0]);
	close(fds[3]);
	assert_int_equal(pthread_join(f->opener, &ret), 0);
	assert_int_equal((intptr_t)ret, 0);
}

static void stop(struct fake *f)
{
	blkcli_close(f->cli);
	munmap(f->ring, sizeof(*f->ring));
	close(f->sq_efd);
	close(f->cq_efd);
	close(f->sock);
	close(f->listen_fd);
	unlink(f->path);
	rmdir(f->dir);
	alarm(0);
}

static void *run_reads(void *arg)
{
	struct call *call = arg;
	struct blkcli_op ops[READS];
	char *buf = blkcli_buf_alloc(call->cli, READS * 4096);

	for (unsigned i = 0; i < call->nr; i++)
		ops[i] = (struct blkcli_op){ .op = BLK_OP_READ, .dev = BLK_DEV_DATA, .dev_off = 4096 * i, .len = 4096,
					     .buf = buf + 4096 * i };
	atomic_store(&call->result, blkcli_run(call->cli, ops, call->nr));
	blkcli_buf_free(call->cli, buf);
	return NULL;
}

static void begin(struct fake *f, struct call *call, unsigned nr)
{
	call->cli = f->cli;
	call->nr = nr;
	atomic_store(&call->result, 1);
	assert_int_equal(pthread_create(&call->thread, NULL, run_reads, call), 0);
}

static void end(struct call *call)
{
	assert_int_equal(pthread_join(call->thread, NULL), 0);
	assert_int_equal(atomic_load(&call->result), 0);
}

/* The next operation that was sent, when it comes. */
static uint64_t take(struct fake *f)
{
	struct blkring_desc d;
	int ret;

	while ((ret = blkring_pop(&f->ring->sq_tail, &f->ring->sq_head, &f->sq_head, f->ring->sq, &d)) == 0)
		poll(NULL, 0, 1);
	assert_int_equal(ret, 1);
	return d.tag;
}

/* Until the client sleeps and wants to be woken for that many. */
static void wait_asleep(struct fake *f, uint32_t nr)
{
	while (blkring_load(&f->ring->client_sleeps) != nr)
		poll(NULL, 0, 1);
}

/* As blockd does: it rings for who sleeps and has what it wants. */
static void complete(struct fake *f, uint64_t tag)
{
	struct blkring_desc d = { .tag = tag };
	uint64_t one = 1;
	uint32_t wanted;

	assert_int_equal(blkring_push(&f->ring->cq_head, &f->ring->cq_tail, &f->cq_tail, f->ring->cq, &d), 0);
	blkring_fence();
	wanted = blkring_load(&f->ring->client_sleeps);
	if (!wanted || f->cq_tail - blkring_load(&f->ring->cq_head) < wanted)
		return;
	if (__atomic_exchange_n(&f->ring->client_sleeps.v, 0, __ATOMIC_SEQ_CST)) {
		f->bells++;
		assert_int_equal(write(f->cq_efd, &one, sizeof(one)), sizeof(one));
	}
}

static void a_call_is_woken_once_when_all_is_done(void **state)
{
	struct fake f = { 0 };
	uint64_t tags[READS];
	struct call call;

	(void)state;
	start(&f);
	begin(&f, &call, READS);
	for (unsigned i = 0; i < READS; i++)
		tags[i] = take(&f);
	wait_asleep(&f, READS);
	for (unsigned i = 0; i < READS; i++) {
		assert_int_equal(f.bells, 0);
		complete(&f, tags[i]);
	}
	end(&call);
	assert_int_equal(f.bells, 1);
	stop(&f);
}

static void a_call_waits_for_no_other(void **state)
{
	struct call first, second;
	struct fake f = { 0 };
	uint64_t tags[READS];

	(void)state;
	start(&f);
	begin(&f, &first, READS);
	for (unsigned i = 0; i < READS; i++)
		tags[i] = take(&f);
	wait_asleep(&f, READS);
	/* It sleeps for longer than the second call takes, and the second one's answer comes to it. */
	begin(&f, &second, 1);
	complete(&f, take(&f));
	end(&second);
	assert_int_equal(atomic_load(&first.result), 1);
	for (unsigned i = 0; i < READS; i++)
		complete(&f, tags[i]);
	end(&first);
	stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_is_woken_once_when_all_is_done),
		cmocka_unit_test(a_call_waits_for_no_other),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
