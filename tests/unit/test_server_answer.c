/*
 * serverd's loop on two threads (services/serverd/answer.c): what comes from the network, at whatever moment, is answered by one
 * of them at once, and the loop's own thread is woken when it is its business, and only then.
 *
 * The sessions are real.  The mount is a socket that says nothing by itself, and the loop's thread of these tests waits
 * without a deadline: a wake-up that is lost is not made good by anything later.
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
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "net_rig.h"
#include "services/serverd/answer.h"
#include "services/serverd/worker.h"
#include "zmqu.h"

#define FSID		7u
#define TERM		3u
#define RID		5u
#define DEADLINE_NS	(120 * NSEC_PER_SEC)
#define ROUNDS		4000u
#define TASK_EVERY	2u	/* one request in that many is a task of the worker */

static struct world {
	void *ctx, *sock;
	struct net_server *ns;
	struct answer answer;
	uint16_t frame_nr;
	uint64_t seq;			/* of the mount */
	struct msg_header last;		/* what the mount has heard last */
	int wake_fd;			/* the loop's */
	int idle_fd;			/* where no worker is: its wake_fd */

	/* With the lock held, or by one thread at a time. */
	bool is_up, ends_in_dispatch, is_deaf;	/* deaf: dispatch does not look at the network, which always has more then */
	unsigned dispatches, requests, wakes;
	uint64_t due_ns;
	bool gate_was_open;		/* to the loop's thread, while the other was about to read */
	pthread_t *goes_first;		/* started by the first dispatch */

	struct worker *worker;
	struct { struct task task; uint64_t handle; } job;
	atomic_bool stops;
} w;

static void ring(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static bool is_readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

/* ---- the server ---- */

static void respond(uint64_t handle)
{
	assert_int_equal(net_server_respond(w.ns, RID, handle, 0, MSG_alloc_inodes_reply, NULL), 0);
}

static void task_complete(struct task *task, int err)
{
	(void)task;
	assert_int_equal(err, 0);
	respond(w.job.handle);
}

static void on_greeting(void *arg, const struct net_greeting *g)
{
	(void)arg;
	assert_int_equal(net_server_greeted(w.ns, g->msg.rid, GREETING_OK), 0);
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	(void)arg, (void)rid, (void)msg;
	assert_int_equal(type, MSG_alloc_inodes);
	if (++w.requests % TASK_EVERY || !w.worker) {
		respond(handle);
		return;
	}
	w.job.handle = handle;
	w.job.task = (struct task){ .complete = task_complete };
	worker_submit(w.worker, &w.job.task);
}

static bool is_up(void *arg)
{
	(void)arg;
	return w.is_up;
}

static void close_server(void)
{
	answer_unlisten(&w.answer);
	net_server_close(w.ns);
	w.ns = NULL;
}

static void *go_first(void *arg)
{
	(void)arg;
	turns_lock_first(&w.answer.turns, &w.answer.lock);
	pthread_mutex_unlock(&w.answer.lock);
	return NULL;
}

static void dispatch(void *arg, uint64_t now_ns)
{
	uint64_t give_up = clock_mono_ns() + DEADLINE_NS;

	(void)arg;
	w.dispatches++;
	w.gate_was_open = is_readable(answer_fd(&w.answer), 0);
	if (w.goes_first && w.dispatches == 1) {
		assert_int_equal(pthread_create(w.goes_first, NULL, go_first, NULL), 0);
		while (!turns_is_wanted(&w.answer.turns) && clock_mono_ns() < give_up)
			poll(NULL, 0, 1);
	}
	if (!w.is_deaf)
		net_server_dispatch(w.ns, now_ns);
	if (w.worker)
		worker_dispatch(w.worker);
	if (w.ends_in_dispatch) {
		w.is_up = false;
		close_server();
	}
}

static uint64_t due_ns(void *arg)
{
	(void)arg;
	return w.due_ns;
}

static void wake_loop(void *arg)
{
	(void)arg;
	w.wakes++;
	ring(w.wake_fd);
}

/* ---- the mount ---- */

static void say(unsigned type, const void *msg)
{
	static uint8_t buf[MSG_FRAME_MAX];
	struct msg_header hdr = { .type = (uint16_t)type, .rid = RID, .frame_nr = ++w.frame_nr };

	if (type != MSG_greeting) {
		hdr.term = TERM;
		hdr.seq = hdr.id = ++w.seq;
		hdr.recv_seq = w.last.seq;
	}
	assert_int_equal(zmqu_send_msg(w.sock, NULL, &hdr, msg, buf, sizeof(buf)), 0);
}

/* The next answer, if there is one. */
static bool hears(void)
{
	static union msg_body body;
	struct zmqu_frame f;
	int ret = zmqu_recv(w.sock, 0, &f);

	if (ret == -EAGAIN)
		return false;
	assert_int_equal(ret, 0);
	assert_int_equal(msg_get(zmq_msg_data(&f.msg), zmq_msg_size(&f.msg), &w.last, &body), 0);
	zmqu_frame_close(&f);
	return w.last.type == MSG_greeting_reply || w.last.type == MSG_alloc_inodes_reply;
}

static void ask(void)
{
	struct msg_alloc_inodes m = { .count = 1 };

	say(MSG_alloc_inodes, &m);
}

/* While others serve. */
static bool is_answered(void)
{
	uint64_t give_up = clock_mono_ns() + DEADLINE_NS;

	while (!hears()) {
		if (clock_mono_ns() > give_up)
			return false;
		sched_yield();
	}
	return w.last.type == MSG_alloc_inodes_reply && w.last.id == w.seq;
}

/*
 * While nobody serves: a request has come, the server has sent something, and looked.  The descriptor tells of what comes,
 * and both take that in: it makes no noise any more.
 */
static void ask_unheard(void)
{
	uint64_t give_up = clock_mono_ns() + DEADLINE_NS;

	assert_int_equal(net_server_request(w.ns, RID, MSG_sync_log_trees, NULL, 0), 0);
	ask();
	while (net_server_deadline(w.ns) != 0) {
		assert_true(clock_mono_ns() < give_up);
		poll(NULL, 0, 1);
	}
}

static int up(void **state)
{
	static const struct answer_ops ops = { is_up, dispatch, due_ns, wake_loop };
	struct msg_greeting g = { .fsid = FSID, .fmt_vers = 2, .rid = RID, .epoch = 1, .process = 1 };
	char endpoint[64];
	struct net_server_conf conf = {
		.term = TERM, .fsid = FSID, .fmt_vers = 2,
		.keepalive_ms = 3600000,
		.ops = { on_greeting, on_request, net_rig_no_response, net_rig_no_disconnect, net_rig_no_rid, net_rig_no_rid },
	};
	uint64_t give_up = clock_mono_ns() + DEADLINE_NS;

	(void)state;
	w = (struct world){ .answer = ANSWER_INITIALIZER, .is_up = true, .due_ns = UINT64_MAX, .ctx = zmq_ctx_new(),
			    .wake_fd = eventfd(0, EFD_NONBLOCK), .idle_fd = eventfd(0, EFD_NONBLOCK) };
	assert_int_equal(answer_init(&w.answer, &ops, &w), 0);
	net_rig_open(&w.ns, w.ctx, &conf, endpoint, sizeof(endpoint));
	assert_int_equal(answer_listen(&w.answer, w.ns), 0);
	assert_int_equal(zmqu_dealer(w.ctx, 3600000, &w.sock), 0);
	assert_int_equal(zmq_connect(w.sock, endpoint), 0);
	say(MSG_greeting, &g);
	do {
		assert_true(clock_mono_ns() < give_up);
		net_server_dispatch(w.ns, clock_mono_ns());
	} while (!hears());
	/* Nothing is left over of that. */
	while (net_server_deadline(w.ns) == 0)
		net_server_dispatch(w.ns, clock_mono_ns());
	return 0;
}

static int down(void **state)
{
	(void)state;
	if (w.ns)
		close_server();
	zmqu_close(w.sock);
	zmq_ctx_term(w.ctx);
	close(w.wake_fd);
	close(w.idle_fd);
	close(w.answer.gate_fd);
	return 0;
}

/* ---- one thread after the other ---- */

static void a_request_that_comes_just_before_the_wait_is_answered_first(void **state)
{
	(void)state;
	ask_unheard();
	ring(w.idle_fd);
	(void)answer_idle(&w.answer, w.idle_fd);
	assert_int_equal(w.requests, 1);
	assert_true(is_answered());
}

static void who_does_not_listen_leaves_it_to_the_loop(void **state)
{
	(void)state;
	w.is_up = false;
	ring(w.idle_fd);
	assert_false(answer_idle(&w.answer, w.idle_fd));
	assert_false(answer_tasks_done(&w.answer));
	assert_int_equal(w.dispatches, 0);
	ask();
	assert_true(is_readable(answer_fd(&w.answer), (int)(DEADLINE_NS / NSEC_PER_MSEC)));
}

static void after_the_wait_a_request_is_the_loops_again(void **state)
{
	(void)state;
	ring(w.idle_fd);
	assert_true(answer_idle(&w.answer, w.idle_fd));
	assert_int_equal(w.requests, 0);
	ask();
	assert_true(is_readable(answer_fd(&w.answer), (int)(DEADLINE_NS / NSEC_PER_MSEC)));
}

static void what_becomes_due_earlier_wakes_the_loop(void **state)
{
	uint64_t now = clock_mono_ns();

	(void)state;
	/* Nothing is due before that. */
	answer_loop_waits(&w.answer, now);
	w.due_ns = now + 1;
	assert_true(answer_tasks_done(&w.answer));
	assert_int_equal(w.dispatches, 1);
	assert_int_equal(w.wakes, 0);
	w.due_ns = now - 1;
	assert_true(answer_tasks_done(&w.answer));
	assert_int_equal(w.wakes, 1);
	assert_true(is_readable(w.wake_fd, 0));
	/* The network's own deadline counts as well. */
	w.due_ns = UINT64_MAX;
	answer_loop_waits(&w.answer, now + 3600 * NSEC_PER_SEC);
	assert_true(answer_tasks_done(&w.answer));
	assert_int_equal(w.wakes, 2);
}

static void a_network_that_always_has_more_goes_back_to_the_loop(void **state)
{
	(void)state;
	ask_unheard();
	w.is_deaf = true;
	answer_loop_waits(&w.answer, clock_mono_ns());
	assert_true(answer_tasks_done(&w.answer));
	assert_true(w.dispatches > 1 && w.dispatches < 100);
	assert_int_equal(w.wakes, 1);
	/* Nor does the worker's thread wait then. */
	w.dispatches = 0;
	assert_false(answer_idle(&w.answer, w.idle_fd));
	assert_true(w.dispatches > 1 && w.dispatches < 100);
	assert_true(w.wakes > 1);
}

static void the_loops_thread_goes_first(void **state)
{
	pthread_t first;

	(void)state;
	ask_unheard();
	w.is_deaf = true;
	w.goes_first = &first;
	assert_true(answer_tasks_done(&w.answer));
	pthread_join(first, NULL);
	assert_int_equal(w.dispatches, 1);
}

static void a_server_that_ends_while_it_is_served_is_the_loops(void **state)
{
	(void)state;
	w.ends_in_dispatch = true;
	answer_loop_waits(&w.answer, 0);
	assert_true(answer_tasks_done(&w.answer));
	assert_int_equal(w.dispatches, 1);
	assert_int_equal(w.wakes, 1);
	assert_false(answer_tasks_done(&w.answer));
}

/* ---- two threads ---- */

/* The descriptor may tell of what is ZeroMQ's own; then there was nothing to serve. */
static void *idle_until_asked(void *arg)
{
	(void)arg;
	while (w.requests == 0 && answer_idle(&w.answer, w.idle_fd))
		;
	return NULL;
}

static void what_comes_during_the_wait_does_not_wake_the_loop(void **state)
{
	pthread_t thread;

	(void)state;
	/* Nothing that serving makes due is earlier. */
	answer_loop_waits(&w.answer, 0);
	assert_int_equal(pthread_create(&thread, NULL, idle_until_asked, NULL), 0);
	ask();
	assert_true(is_answered());
	pthread_join(thread, NULL);
	assert_int_equal(w.requests, 1);
	assert_false(w.gate_was_open);
	assert_int_equal(w.wakes, 0);
}

static void *idle_once(void *arg)
{
	(void)arg;
	(void)answer_idle(&w.answer, w.idle_fd);
	return NULL;
}

static void a_server_may_end_while_the_workers_thread_listens(void **state)
{
	for (unsigned i = 0; i < 30; i++) {
		pthread_t thread;

		up(state);
		assert_int_equal(pthread_create(&thread, NULL, idle_once, NULL), 0);
		poll(NULL, 0, (int)(i % 3));
		pthread_mutex_lock(&w.answer.lock);
		w.is_up = false;
		close_server();
		pthread_mutex_unlock(&w.answer.lock);
		ring(w.idle_fd);
		pthread_join(thread, NULL);
		assert_int_equal(w.requests, 0);
		down(state);
	}
}

static bool worker_tasks_done(void *arg)
{
	return answer_tasks_done(arg);
}

static bool worker_idle(void *arg, int wake_fd)
{
	return answer_idle(arg, wake_fd);
}

static int open_nothing(void *arg, struct txn **t, const char **why)
{
	(void)arg, (void)why;
	*t = NULL;
	return 0;
}

/* As main.c has it, but that it waits for ever. */
static void *loop(void *arg)
{
	struct pollfd fds[3] = { { .fd = answer_fd(&w.answer) }, { .fd = w.wake_fd }, { .fd = worker_fd(w.worker) } };
	uint64_t n;

	(void)arg;
	for (unsigned i = 0; i < 3; i++)
		fds[i].events = POLLIN;
	pthread_mutex_lock(&w.answer.lock);
	while (!atomic_load(&w.stops)) {
		uint64_t until = net_server_deadline(w.ns);

		answer_loop_waits(&w.answer, until);
		pthread_mutex_unlock(&w.answer.lock);
		poll(fds, 3, until <= clock_mono_ns() ? 0 : -1);
		turns_lock_first(&w.answer.turns, &w.answer.lock);
		assert_true(read(w.wake_fd, &n, sizeof(n)) == sizeof(n) || errno == EAGAIN);
		dispatch(NULL, clock_mono_ns());
	}
	pthread_mutex_unlock(&w.answer.lock);
	return NULL;
}

static void every_request_is_answered_by_one_of_the_threads(void **state)
{
	struct worker_conf conf = { open_nothing, worker_tasks_done, worker_idle, &w.answer };
	uint64_t give_up;
	pthread_t thread;

	(void)state;
	pthread_mutex_lock(&w.answer.lock);
	assert_int_equal(worker_start(&w.worker, &conf), 0);
	pthread_mutex_unlock(&w.answer.lock);
	assert_int_equal(pthread_create(&thread, NULL, loop, NULL), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		ask();
		if (!is_answered())
			fail_msg("request %u of %u is not answered", i, ROUNDS);
	}
	atomic_store(&w.stops, true);
	ring(w.wake_fd);
	pthread_join(thread, NULL);
	assert_int_equal(w.requests, ROUNDS);
	print_message("%u requests: the loop's thread was woken %u times\n", ROUNDS, w.wakes);
	worker_stop(w.worker);
	for (give_up = clock_mono_ns() + DEADLINE_NS; !worker_is_stopped(w.worker); poll(NULL, 0, 1))
		assert_true(clock_mono_ns() < give_up);
	worker_free(w.worker);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_request_that_comes_just_before_the_wait_is_answered_first, up, down),
		cmocka_unit_test_setup_teardown(who_does_not_listen_leaves_it_to_the_loop, up, down),
		cmocka_unit_test_setup_teardown(after_the_wait_a_request_is_the_loops_again, up, down),
		cmocka_unit_test_setup_teardown(what_becomes_due_earlier_wakes_the_loop, up, down),
		cmocka_unit_test_setup_teardown(a_network_that_always_has_more_goes_back_to_the_loop, up, down),
		cmocka_unit_test_setup_teardown(the_loops_thread_goes_first, up, down),
		cmocka_unit_test_setup_teardown(a_server_that_ends_while_it_is_served_is_the_loops, up, down),
		cmocka_unit_test_setup_teardown(what_comes_during_the_wait_does_not_wake_the_loop, up, down),
		cmocka_unit_test(a_server_may_end_while_the_workers_thread_listens),
		cmocka_unit_test_setup_teardown(every_request_is_answered_by_one_of_the_threads, up, down),
	};

	return cmocka_run_group_tests_name("server_answer", tests, NULL, NULL);
}
