/* What a mount is promised that asks the leader of its own instance beside the session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "shortcut.h"

#define RID	0x1122334455667788ull
#define TERM	7u

struct fixture {
	struct instance_conf conf;
	struct shortcut_server *server;
	struct shortcut *mount;
	struct sockaddr_un un;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	uint64_t asked;		/* questions that have come */
	bool is_stuck;		/* the next answers wait until it is false */
};

static int roots(void *arg, uint64_t rid, uint64_t term, struct msg_get_roots_reply *reply)
{
	struct fixture *fx = arg;

	pthread_mutex_lock(&fx->lock);
	reply->super_seq = ++fx->asked;
	reply->last_stable_seq = 1000 + fx->asked;
	reply->fs_root.height = 3;
	pthread_cond_broadcast(&fx->cond);
	while (fx->is_stuck)
		pthread_cond_wait(&fx->cond, &fx->lock);
	pthread_mutex_unlock(&fx->lock);
	return rid != RID ? -ENOLINK : term != TERM ? -EAGAIN : 0;
}

static void set_stuck(struct fixture *fx, bool is_stuck)
{
	pthread_mutex_lock(&fx->lock);
	fx->is_stuck = is_stuck;
	pthread_cond_broadcast(&fx->cond);
	pthread_mutex_unlock(&fx->lock);
}

static uint64_t asked(struct fixture *fx)
{
	uint64_t nr;

	pthread_mutex_lock(&fx->lock);
	nr = fx->asked;
	pthread_mutex_unlock(&fx->lock);
	return nr;
}

static void listen_on(struct fixture *fx)
{
	assert_int_equal(shortcut_server_start(&fx->server, &fx->conf, roots, fx), 0);
}

static void stop_listening(struct fixture *fx)
{
	shortcut_server_stop(fx->server);
	fx->server = NULL;
}

static int ask(struct fixture *fx, struct msg_get_roots_reply *reply)
{
	return shortcut_roots(fx->mount, RID, TERM, reply);
}

/* A busy machine may let an answer be late: then it is asked again.  The answer is to the last question. */
static void ask_until_answered(struct fixture *fx, struct msg_get_roots_reply *reply)
{
	uint64_t end_ns = clock_mono_ns() + 120 * NSEC_PER_SEC;
	int ret;

	while ((ret = ask(fx, reply)) == -EAGAIN && clock_mono_ns() < end_ns)
		nanosleep(&(struct timespec){ .tv_nsec = 10 * NSEC_PER_MSEC }, NULL);
	assert_int_equal(ret, 0);
	assert_int_equal(reply->super_seq, asked(fx));
	assert_int_equal(reply->last_stable_seq, 1000 + reply->super_seq);
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));
	char dir[] = "/tmp/scoutfs-shortcut.XXXXXX";

	if (!fx || !mkdtemp(dir))
		return -1;
	snprintf(fx->conf.runtime_dir, sizeof(fx->conf.runtime_dir), "%s", dir);
	fx->un.sun_family = AF_UNIX;
	snprintf(fx->un.sun_path, sizeof(fx->un.sun_path), "%s/roots.sock", dir);
	pthread_mutex_init(&fx->lock, NULL);
	pthread_cond_init(&fx->cond, NULL);
	*state = fx;
	return shortcut_open(&fx->mount, &fx->conf);
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	set_stuck(fx, false);
	shortcut_close(fx->mount);
	shortcut_server_stop(fx->server);
	unlink(fx->un.sun_path);
	rmdir(fx->conf.runtime_dir);
	pthread_mutex_destroy(&fx->lock);
	pthread_cond_destroy(&fx->cond);
	free(fx);
	return 0;
}

static void the_answer_is_that_of_now(void **state)
{
	struct fixture *fx = *state;
	struct msg_get_roots_reply reply;
	struct stat st;

	listen_on(fx);
	assert_int_equal(stat(fx->un.sun_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	for (uint64_t i = 1; i <= 100; i++) {
		ask_until_answered(fx, &reply);
		assert_true(reply.super_seq >= i);
		assert_int_equal(reply.fs_root.height, 3);
	}
}

static void another_leader_or_mount_is_no_answer(void **state)
{
	struct fixture *fx = *state;
	struct msg_get_roots_reply reply;

	listen_on(fx);
	assert_int_equal(shortcut_roots(fx->mount, RID, TERM + 1, &reply), -EAGAIN);
	assert_int_equal(shortcut_roots(fx->mount, RID + 1, TERM, &reply), -EAGAIN);
	ask_until_answered(fx, &reply);
}

static void a_server_may_come_and_go(void **state)
{
	struct fixture *fx = *state;
	struct msg_get_roots_reply reply;

	assert_int_equal(ask(fx, &reply), -EAGAIN);
	for (int i = 0; i < 3; i++) {
		listen_on(fx);
		ask_until_answered(fx, &reply);
		stop_listening(fx);
		/* what it has left in the directory is nobody's */
		assert_int_equal(access(fx->un.sun_path, F_OK), 0);
		if (i == 1)
			assert_int_equal(ask(fx, &reply), -EAGAIN);
	}
}

/*
 * It is waited for once, and then left in peace for two seconds.  Also later the answer that comes too late is never
 * taken for that to another question.
 */
static void a_silent_server_holds_nobody_up(void **state)
{
	struct fixture *fx = *state;
	struct msg_get_roots_reply reply;
	uint64_t began_ns, pauses, seq;

	listen_on(fx);
	ask_until_answered(fx, &reply);
	seq = reply.super_seq;
	set_stuck(fx, true);
	began_ns = clock_mono_ns();
	while (asked(fx) == seq)
		assert_int_equal(ask(fx, &reply), -EAGAIN);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(ask(fx, &reply), -EAGAIN);
	set_stuck(fx, false);
	ask_until_answered(fx, &reply);
	pauses = (clock_mono_ns() - began_ns) / (2 * NSEC_PER_SEC);
	assert_in_range(reply.super_seq - seq, 2, 2 + pauses);
}

static int connect_raw(struct fixture *fx)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&fx->un, sizeof(fx->un)), 0);
	return fd;
}

static void bytes_that_are_no_question_end_their_connection(void **state)
{
	struct fixture *fx = *state;
	struct msg_header hdrs[] = {
		{ .type = MSG_statfs, .id = 1, .term = TERM, .rid = RID },
		{ .type = MSG_get_roots, .id = 1, .term = TERM, .rid = RID, .flags = MSG_FLAG_RESPONSE },
		{ .type = MSG_get_roots, .id = 1, .term = TERM, .rid = RID, .error = -EIO },
	};
	struct msg_get_roots_reply reply;
	uint8_t buf[8192];
	int fd, len;

	listen_on(fx);
	for (unsigned i = 0; i < 3 + 3; i++) {
		fd = connect_raw(fx);
		memset(buf, 'x', sizeof(buf));
		len = i < 3 ? msg_put(&hdrs[i], NULL, buf, sizeof(buf)) : i == 3 ? 1 : i == 4 ? 200 : 8192;
		assert_true(len > 0);
		assert_int_equal(send(fd, buf, (size_t)len, MSG_NOSIGNAL), len);
		assert_true(recv(fd, buf, sizeof(buf), 0) <= 0);
		close(fd);
	}
	assert_int_equal(asked(fx), 0);
	ask_until_answered(fx, &reply);
}

static void more_connections_than_there_is_room_for_are_closed(void **state)
{
	struct fixture *fx = *state;
	struct msg_get_roots_reply reply;
	struct pollfd p = { .events = POLLIN };
	int fds[5], open_nr = 0;
	char c;

	listen_on(fx);
	ask_until_answered(fx, &reply);
	for (unsigned i = 0; i < 5; i++)
		fds[i] = connect_raw(fx);
	/* One after the other is taken in their order, so the last is told last. */
	p.fd = fds[4];
	assert_int_equal(poll(&p, 1, 120000), 1);
	for (unsigned i = 0; i < 5; i++) {
		open_nr += recv(fds[i], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
		close(fds[i]);
	}
	assert_int_equal(open_nr, 3);
	ask_until_answered(fx, &reply);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Who connects then is there all the time; it is not tried again all the time. */
static void without_a_descriptor_the_server_waits_and_takes_who_waits_afterwards(void **state)
{
	struct fixture *fx = *state;
	struct msg_get_roots_reply reply;
	struct rlimit old, none;
	uint64_t used_ns;
	int fd, free_fd;

	listen_on(fx);
	ask_until_answered(fx, &reply);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	free_fd = dup(fd);
	assert_true(fd >= 0 && free_fd >= 0);
	close(free_fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ .rlim_cur = (rlim_t)free_fd, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	used_ns = cpu_ns();
	assert_int_equal(connect(fd, (struct sockaddr *)&fx->un, sizeof(fx->un)), 0);
	poll(NULL, 0, 1000);
	used_ns = cpu_ns() - used_ns;
	printf("# %.1f ms of processor time\n", (double)used_ns / NSEC_PER_MSEC);
	ask_until_answered(fx, &reply);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_true(used_ns < 100 * NSEC_PER_MSEC);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
	/* It is taken, and its byte is no question. */
	assert_true(recv(fd, &reply, sizeof(reply), 0) <= 0);
	close(fd);
}

/* ---- a server that lies -------------------------------------------------------------------- */

enum lie { LIE_ID, LIE_TERM, LIE_TYPE, LIE_LENGTH, LIE_BYTES, LIE_END, LIES_NR };

struct liar {
	int fd;
	atomic_bool is_done;
};

/* One answer that is none; false: the mount has given up before. */
static bool lie_once(int fd, enum lie lie, const struct msg_header *question, uint8_t *buf, size_t size)
{
	struct msg_header hdr = { .type = MSG_get_roots_reply, .flags = MSG_FLAG_RESPONSE,
				  .id = question->id, .term = question->term };
	struct msg_get_roots_reply reply = { .super_seq = 1 };
	int len;

	if (lie == LIE_END)
		return true;
	hdr.id += lie == LIE_ID;
	hdr.term += lie == LIE_TERM;
	if (lie == LIE_TYPE)
		hdr.type = MSG_statfs_reply;
	len = msg_put(&hdr, lie == LIE_TYPE ? NULL : &reply, buf, size);
	if (len < 0)
		abort();
	if (lie == LIE_LENGTH)
		len = (int)size;
	if (lie == LIE_BYTES)
		buf[len - 1] ^= 1;
	return send(fd, buf, (size_t)len, MSG_NOSIGNAL) == len;
}

static void *liar(void *arg)
{
	struct liar *l = arg;
	union msg_body *body = malloc(sizeof(*body));
	uint8_t buf[4096];
	struct msg_header hdr;
	unsigned lie = 0;

	while (lie < LIES_NR) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (!body || fd < 0)
			abort();
		if (n > 0 && msg_get(buf, (size_t)n, &hdr, body) == 0 &&
		    lie_once(fd, lie, &hdr, buf, sizeof(buf))) {
			/* The mount goes away by itself, but where it was told nothing. */
			if (lie != LIE_END && recv(fd, buf, sizeof(buf), 0) > 0)
				abort();
			lie++;
		}
		close(fd);
	}
	free(body);
	atomic_store(&l->is_done, true);
	return NULL;
}

static void an_answer_that_is_none_is_not_believed(void **state)
{
	struct fixture *fx = *state;
	struct liar l = { .fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) };
	struct msg_get_roots_reply reply;
	pthread_t thread;

	assert_int_equal(bind(l.fd, (struct sockaddr *)&fx->un, sizeof(fx->un)), 0);
	assert_int_equal(listen(l.fd, 8), 0);
	assert_int_equal(pthread_create(&thread, NULL, liar, &l), 0);
	while (!atomic_load(&l.is_done)) {
		assert_int_equal(ask(fx, &reply), -EAGAIN);
		nanosleep(&(struct timespec){ .tv_nsec = NSEC_PER_MSEC }, NULL);
	}
	pthread_join(thread, NULL);
	close(l.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_answer_is_that_of_now, setup, teardown),
		cmocka_unit_test_setup_teardown(another_leader_or_mount_is_no_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(a_server_may_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(a_silent_server_holds_nobody_up, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_that_are_no_question_end_their_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(more_connections_than_there_is_room_for_are_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_descriptor_the_server_waits_and_takes_who_waits_afterwards, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_that_is_none_is_not_believed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
