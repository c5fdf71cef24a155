/*
 * Callers that wait for their answers: each gets its own, whoever reads it; the one that listens answers the server
 * meanwhile, hears of a socket that is gone, and of the end.  What it takes in and leaves is the home thread's at once, not when
 * that looks anyway, which is once a second: such tests go on until one round was far below that, and begin each with
 * the home thread having just looked.
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
#include <pthread.h>
#include <stdatomic.h>

#include "clock.h"
#include "net_client_impl.h"
#include "net_rig.h"
#include "net_server.h"
#include "zmqu.h"

#define FSID		7u
#define RID		5u
#define CALLERS		6u
#define ROUNDS		200u
#define HELD_MAX	64u
#define LATER		300u
#define DEADLINE_NS	(120 * NSEC_PER_SEC)
#define FAST_NS		(400 * NSEC_PER_MSEC)
#define FAST_ROUNDS	20u	/* of which one has to be */
#define MORE		400u	/* than one look at the socket takes */

/* The next question of the server is lost on its way. */
static atomic_bool loses;

static int fault_hook(const struct msg_header *hdr)
{
	return hdr->type == MSG_sync_log_trees && atomic_exchange(&loses, false);
}

static struct world {
	void *ctx;
	struct net_server *ns;
	struct net_client *nc;
	pthread_mutex_t lock;
	char endpoint[64];		/* under lock */
	struct { uint64_t handle, count; } held[HELD_MAX];	/* what was asked, and has no answer */
	unsigned held_nr;
	uint64_t stats[MORE + 1];	/* those that asked for statfs, too */
	unsigned stats_nr;
	unsigned trees;			/* commits that have come, and are never answered */
	unsigned heard;			/* answers of the client */
	_Atomic pthread_t caller;	/* who waits */
	atomic_uint by_caller;		/* requests that it took itself */
	atomic_uint asked;		/* all that it was asked */
	atomic_uint ended;		/* calls that nobody waits for */
	atomic_bool is_held_up, goes_on;	/* the thread that took the first of their answers; it may go on */
} w;

static void on_greeting(void *arg, const struct net_greeting *g)
{
	(void)arg;
	assert_int_equal(net_server_greeted(w.ns, g->msg.rid, GREETING_OK), 0);
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	const struct msg_alloc_inodes *m = msg;

	(void)arg, (void)rid;
	if (type == MSG_commit_log_trees) {
		w.trees++;
		return;
	}
	if (type == MSG_statfs) {
		assert_true(w.stats_nr <= MORE);
		w.stats[w.stats_nr++] = handle;
		return;
	}
	assert_int_equal(type, MSG_alloc_inodes);
	assert_true(w.held_nr < HELD_MAX);
	w.held[w.held_nr].handle = handle;
	w.held[w.held_nr++].count = m->count;
}

static void on_response(void *arg, uint64_t rid, uint64_t tag, int err, unsigned type, const void *msg)
{
	(void)arg, (void)rid, (void)tag, (void)type, (void)msg;
	assert_int_equal(err, 0);
	w.heard++;
}

static int resolve(void *arg, char *to, size_t size)
{
	(void)arg;
	pthread_mutex_lock(&w.lock);
	snprintf(to, size, "%s", w.endpoint);
	pthread_mutex_unlock(&w.lock);
	return 0;
}

static void client_on_request(void *arg, struct net_req *req, unsigned type, const void *msg)
{
	(void)arg, (void)msg;
	assert_int_equal(type, MSG_sync_log_trees);
	if (pthread_equal(pthread_self(), w.caller))
		atomic_fetch_add(&w.by_caller, 1);
	atomic_fetch_add(&w.asked, 1);
	net_client_respond(w.nc, req, 0, MSG_sync_log_trees_reply, NULL);
}

#define SERVE_UNTIL(cond)							\
	for (uint64_t end_ = clock_mono_ns() + DEADLINE_NS; !(cond); poll(NULL, 0, 1)) { \
		assert_true(clock_mono_ns() < end_);				\
		net_server_dispatch(w.ns, clock_mono_ns());			\
	}

static void serve_at_term(uint64_t term)
{
	struct net_server_conf sc = { .term = term, .fsid = FSID,
				      .fmt_vers = 2, .keepalive_ms = 60000,
				      .ops = { on_greeting, on_request, on_response, net_rig_no_disconnect,
					       net_rig_no_rid, net_rig_no_rid } };

	pthread_mutex_lock(&w.lock);
	net_rig_open(&w.ns, w.ctx, &sc, w.endpoint, sizeof(w.endpoint));
	pthread_mutex_unlock(&w.lock);
}

static int world_up(void **state)
{
	struct net_client_conf cc = { .rid = RID, .fsid = FSID, .fmt_vers = 2, .keepalive_ms = 60000,
				      .ops = { .resolve = resolve, .on_request = client_on_request } };

	(void)state;
	memset(&w, 0, sizeof(w));
	pthread_mutex_init(&w.lock, NULL);
	w.ctx = zmq_ctx_new();
	serve_at_term(1);
	assert_int_equal(net_client_start(&w.nc, &cc), 0);
	return 0;
}

static int world_down(void **state)
{
	(void)state;
	net_client_stop(w.nc);
	net_server_close(w.ns);
	zmq_ctx_term(w.ctx);
	return 0;
}

static void answer(unsigned i)
{
	struct msg_alloc_inodes_reply r = { .start = w.held[i].count * 3, .nr = 1 };

	assert_int_equal(net_server_respond(w.ns, RID, w.held[i].handle, 0, MSG_alloc_inodes_reply, &r), 0);
	w.held[i] = w.held[--w.held_nr];
}

struct caller {
	pthread_t thread;
	unsigned nr, rounds;
	int err;
	bool is_right;
	atomic_bool has_ended;
};

static void *call(void *arg)
{
	struct caller *c = arg;

	c->is_right = true;
	for (unsigned i = 0; i < c->rounds && c->err == 0; i++) {
		struct msg_alloc_inodes m = { .count = 1 + c->nr * ROUNDS + i };
		struct msg_alloc_inodes_reply r = { 0 };

		c->err = net_client_call_sync(w.nc, MSG_alloc_inodes, &m, &r);
		c->is_right = c->is_right && (c->err || r.start == m.count * 3);
	}
	atomic_store(&c->has_ended, true);
	return NULL;
}

static void start(struct caller *c, unsigned nr, unsigned rounds)
{
	*c = (struct caller){ .nr = nr, .rounds = rounds };
	assert_int_equal(pthread_create(&c->thread, NULL, call, c), 0);
}

static unsigned ended(const struct caller *c, unsigned nr)
{
	unsigned sum = 0;

	while (nr-- > 0)
		sum += atomic_load(&c[nr].has_ended);
	return sum;
}

/* In another order than they came in: the one that listens reads the others' as well. */
static void each_gets_its_own_answer(void **state)
{
	struct caller c[CALLERS];
	unsigned seed = 1;

	(void)state;
	for (unsigned i = 0; i < CALLERS; i++)
		start(&c[i], i, ROUNDS);
	for (uint64_t end = clock_mono_ns() + DEADLINE_NS; ended(c, CALLERS) < CALLERS;) {
		struct pollfd fd = { .fd = net_server_fd(w.ns), .events = POLLIN };

		assert_true(clock_mono_ns() < end);
		net_server_dispatch(w.ns, clock_mono_ns());
		while (w.held_nr > seed % 3) {
			seed = seed * 1103515245u + 12345u;
			answer((seed >> 16) % w.held_nr);
		}
		seed = seed * 1103515245u + 12345u;
		poll(&fd, 1, net_server_deadline(w.ns) == 0 ? 0 : 1);
	}
	for (unsigned i = 0; i < CALLERS; i++) {
		pthread_join(c[i].thread, NULL);
		assert_int_equal(c[i].err, 0);
		assert_true(c[i].is_right);
	}
}

/* Again and again, as it may be the home thread that finds it. */
static void who_waits_answers_the_server(void **state)
{
	static const struct msg_sync_log_trees sync;
	struct caller c;
	unsigned asked = 0;

	(void)state;
	/* Where there is no connection yet nobody can listen. */
	start(&c, 0, 1);
	SERVE_UNTIL(w.held_nr == 1);
	answer(0);
	SERVE_UNTIL(atomic_load(&c.has_ended));
	pthread_join(c.thread, NULL);
	start(&c, 0, 1);
	w.caller = c.thread;
	SERVE_UNTIL(w.held_nr == 1);
	for (uint64_t end = clock_mono_ns() + DEADLINE_NS; !atomic_load(&w.by_caller);) {
		assert_true(clock_mono_ns() < end);
		assert_int_equal(net_server_request(w.ns, RID, MSG_sync_log_trees, &sync, 0), 0);
		asked++;
		SERVE_UNTIL(w.heard == asked);
	}
	assert_false(atomic_load(&c.has_ended));
	answer(0);
	SERVE_UNTIL(atomic_load(&c.has_ended));
	pthread_join(c.thread, NULL);
	assert_int_equal(c.err, 0);
	/*
	 * Nobody waits any more: the home thread answers, woken by what comes (it looks once a second anyway, which
	 * would take minutes).
	 */
	w.by_caller = 0;
	for (uint64_t end = clock_mono_ns() + DEADLINE_NS, until = asked + LATER; asked < until;) {
		assert_int_equal(net_server_request(w.ns, RID, MSG_sync_log_trees, &sync, 0), 0);
		asked++;
		SERVE_UNTIL(w.heard == asked);
		assert_true(clock_mono_ns() < end);
	}
	assert_int_equal(w.by_caller, 0);
}

/* The next server gets the same question, and its answer arrives. */
static void who_waits_goes_on_with_the_next_server(void **state)
{
	struct caller c[CALLERS];

	(void)state;
	for (unsigned i = 0; i < CALLERS; i++)
		start(&c[i], i, 1);
	for (uint64_t term = 1; term < 5; term++) {
		SERVE_UNTIL(w.held_nr == CALLERS);
		assert_int_equal(ended(c, CALLERS), 0);
		w.held_nr = 0;
		net_server_close(w.ns);
		serve_at_term(term + 1);
	}
	SERVE_UNTIL(w.held_nr == CALLERS);
	while (w.held_nr)
		answer(0);
	SERVE_UNTIL(ended(c, CALLERS) == CALLERS);
	for (unsigned i = 0; i < CALLERS; i++) {
		pthread_join(c[i].thread, NULL);
		assert_int_equal(c[i].err, 0);
		assert_true(c[i].is_right);
	}
}

static void who_waits_hears_of_the_end(void **state)
{
	struct caller c[CALLERS];

	(void)state;
	world_up(NULL);
	for (unsigned i = 0; i < CALLERS; i++)
		start(&c[i], i, 1);
	SERVE_UNTIL(w.held_nr == CALLERS);
	net_client_stop(w.nc);
	for (unsigned i = 0; i < CALLERS; i++) {
		pthread_join(c[i].thread, NULL);
		assert_int_equal(c[i].err, -ESHUTDOWN);
	}
	net_server_close(w.ns);
	zmq_ctx_term(w.ctx);
}

static bool is_listening(void)
{
	bool is;

	pthread_mutex_lock(&w.nc->home);
	is = w.nc->is_listening;
	pthread_mutex_unlock(&w.nc->home);
	return is;
}

static bool is_blocked(void)
{
	bool is;

	pthread_mutex_lock(&w.nc->home);
	is = w.nc->is_blocked;
	pthread_mutex_unlock(&w.nc->home);
	return is;
}

static void ask_and_hear(unsigned nr)
{
	static const struct msg_sync_log_trees sync;
	unsigned until = w.heard + nr;

	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(net_server_request(w.ns, RID, MSG_sync_log_trees, &sync, 0), 0);
	SERVE_UNTIL(w.heard == until);
}

/* One that waits, and listens; the home thread has looked after what there was a moment ago. */
static void start_listener(struct caller *c)
{
	for (uint64_t end = clock_mono_ns() + DEADLINE_NS;;) {
		assert_true(clock_mono_ns() < end);
		start(c, 0, 1);
		SERVE_UNTIL(w.held_nr == 1);
		w.caller = c->thread;
		ask_and_hear(1);
		poll(NULL, 0, 20);
		if (is_listening())
			return;
		answer(0);
		pthread_join(c->thread, NULL);
	}
}

static void end_listener(struct caller *c)
{
	if (w.held_nr)
		answer(0);
	SERVE_UNTIL(atomic_load(&c->has_ended));
	pthread_join(c->thread, NULL);
	assert_int_equal(c->err, 0);
	assert_true(c->is_right);
}

static void some_round_is_fast(uint64_t (*round)(void))
{
	for (unsigned i = 0; i < FAST_ROUNDS; i++) {
		uint64_t ns = round();

		printf("# %.0f ms\n", (double)ns / NSEC_PER_MSEC);
		if (ns < FAST_NS)
			return;
	}
	fail_msg("each round took as long as if the home thread was not woken");
}

/* A frame is missing; whoever finds it throws the socket away. */
static uint64_t be_cut(void)
{
	struct caller c;
	uint64_t ns;

	start_listener(&c);
	ns = clock_mono_ns();
	atomic_store(&loses, true);
	ask_and_hear(2);
	ns = clock_mono_ns() - ns;
	assert_false(atomic_load(&loses));
	end_listener(&c);
	return ns;
}

static void who_waits_and_finds_the_cut_wakes_the_home_thread(void **state)
{
	(void)state;
	some_round_is_fast(be_cut);
}

static void call_ended(void *arg, int err, unsigned type, const void *reply)
{
	(void)arg, (void)type, (void)reply;
	if (!err)
		atomic_fetch_add(&w.ended, 1);
}

static void first_call_ended(void *arg, int err, unsigned type, const void *reply)
{
	atomic_store(&w.is_held_up, true);
	while (!atomic_load(&w.goes_on))
		poll(NULL, 0, 1);
	call_ended(arg, err, type, reply);
}

static void answer_stat(unsigned i)
{
	assert_int_equal(net_server_respond(w.ns, RID, w.stats[i], 0, MSG_statfs_reply, NULL), 0);
}

/* Its own answer comes before more of others' than it looks at. */
static uint64_t leave_answers(void)
{
	struct caller c;
	uint64_t ns;

	w.stats_nr = w.ended = 0;
	w.is_held_up = w.goes_on = false;
	start_listener(&c);
	for (unsigned i = 0; i <= MORE; i++)
		assert_int_equal(net_client_call(w.nc, MSG_statfs, NULL, i ? call_ended : first_call_ended, NULL), 0);
	SERVE_UNTIL(w.stats_nr == MORE + 1);
	ask_and_hear(1);
	poll(NULL, 0, 20);
	answer_stat(0);
	SERVE_UNTIL(atomic_load(&w.is_held_up));
	answer(0);
	for (unsigned i = 1; i <= MORE; i++)
		answer_stat(i);
	/* Until they are there, or else the round finds nothing. */
	for (unsigned i = 0; i < 100; i++) {
		net_server_dispatch(w.ns, clock_mono_ns());
		poll(NULL, 0, 1);
	}
	ns = clock_mono_ns();
	atomic_store(&w.goes_on, true);
	SERVE_UNTIL(atomic_load(&w.ended) == MORE + 1);
	ns = clock_mono_ns() - ns;
	end_listener(&c);
	return ns;
}

static void what_who_waited_leaves_is_read_at_once(void **state)
{
	(void)state;
	some_round_is_fast(leave_answers);
}

/* Until the socket takes no more, and that for longer than what is on its way needs.  How many; 0: it takes them all. */
static unsigned fill_socket(void)
{
	static const struct msg_commit_log_trees commit;

	for (unsigned sent = 0; sent < NET_CLIENT_CALLS_MAX - 1;) {
		assert_int_equal(net_client_call(w.nc, MSG_commit_log_trees, &commit, call_ended, NULL), 0);
		sent++;
		if (!is_blocked())
			continue;
		poll(NULL, 0, 20);
		if (is_blocked())
			return sent;
	}
	return 0;
}

/* The server takes what it did not; how long it saw nothing of it. */
static uint64_t be_blocked(void)
{
	uint64_t last, gap_ns = 0;
	struct caller c;
	unsigned sent, seen = 0;

	world_up(NULL);
	start_listener(&c);
	sent = fill_socket();
	last = clock_mono_ns();
	for (uint64_t end = last + DEADLINE_NS; w.trees < sent; poll(NULL, 0, 1)) {
		uint64_t now = clock_mono_ns();

		assert_true(now < end);
		net_server_dispatch(w.ns, now);
		if (now - last > gap_ns)
			gap_ns = now - last;
		if (w.trees > seen)
			last = now;
		seen = w.trees;
	}
	end_listener(&c);
	world_down(NULL);
	if (!sent)
		printf("# the socket takes all that a client may ask\n");
	return gap_ns;
}

static void there_is_room_again_while_somebody_waits(void **state)
{
	(void)state;
	some_round_is_fast(be_blocked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_gets_its_own_answer, world_up, world_down),
		cmocka_unit_test_setup_teardown(who_waits_answers_the_server, world_up, world_down),
		cmocka_unit_test_setup_teardown(who_waits_goes_on_with_the_next_server, world_up, world_down),
		cmocka_unit_test(who_waits_hears_of_the_end),
		cmocka_unit_test_setup_teardown(who_waits_and_finds_the_cut_wakes_the_home_thread, world_up, world_down),
		cmocka_unit_test_setup_teardown(what_who_waited_leaves_is_read_at_once, world_up, world_down),
		cmocka_unit_test(there_is_room_again_while_somebody_waits),
	};

	zmqu_fault = fault_hook;
	return cmocka_run_group_tests_name("net_wait", tests, NULL, NULL);
}
