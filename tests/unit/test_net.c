/*
 * Sessions: each call ends with exactly one answer, each request is handled at most once by one
 * server, whatever is lost, doubled or killed, and wherever.  runtime.md 3.1.
 *
 * A server runs on a thread of its own.  Faults come from zmqu_fault, which sees every frame of
 * both sides: number `fault_at` is lost, doubled, or makes the server die and come back with a
 * greater term. ROUNDS and SEED in the environment make the random test longer or another one.
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
#include "net_client.h"
#include "net_rig.h"
#include "net_server.h"
#include "zmqu.h"

#define FSID		0x1122334455667788ull
#define FMT_VERS	2
#define KEEPALIVE_MS	400
#define DEADLINE_NS	(60 * NSEC_PER_SEC)
#define CLIENTS_MAX	4
#define CALLS_MAX	512
#define ASKS_MAX	8192
#define HELD_MAX	1024

enum fault { FAULT_NONE, FAULT_LOSE, FAULT_DOUBLE, FAULT_NEW_SERVER };

/* --- faults ------------------------------------------------------------------------------------
 */

static struct {
	atomic_uint frames;		/* seen so far */
	unsigned at;
	enum fault kind;
	atomic_uint random;		/* != 0: one in that many frames is lost, and one doubled */
	atomic_uint_fast64_t rng;
} faults;

static atomic_uint server_restarts;	/* asked for */

static uint64_t next_random(void)
{
	uint64_t x = atomic_fetch_add(&faults.rng, 0x9e3779b97f4a7c15ull) + 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static int fault_hook(const struct msg_header *hdr)
{
	unsigned n = atomic_fetch_add(&faults.frames, 1) + 1;
	unsigned one_in = atomic_load(&faults.random);

	(void)hdr;
	if (one_in) {
		uint64_t r = next_random() % one_in;

		return r == 0 ? 1 : r == 1 ? 2 : 0;
	}
	if (n != faults.at)
		return 0;
	if (faults.kind == FAULT_NEW_SERVER)
		atomic_fetch_add(&server_restarts, 1);
	return faults.kind == FAULT_LOSE ? 1 : faults.kind == FAULT_DOUBLE ? 2 : 0;
}

/* --- the server --------------------------------------------------------------------------------
 */

struct held_request {
	uint64_t rid, handle;
	unsigned type;
	uint64_t number;
};

static struct {
	pthread_t thread;
	void *ctx;
	struct net_server *ns;
	char endpoint[64];
	uint64_t term;
	atomic_bool stopping, paused;
	atomic_uint restarts_done;

	pthread_mutex_t mutex;		/* what follows */
	uint8_t handled[CLIENTS_MAX + 1][CALLS_MAX];	/* by the present server */
	uint8_t answered[ASKS_MAX];	/* our questions, by tag; by the present server */
	unsigned asks_nr;
	bool gone[CLIENTS_MAX + 1];	/* farewell has had its durable effect */
	unsigned errors;
	char error[200];
	unsigned greetings, restarted, disconnects, reconnects, left;
	struct held_request held[HELD_MAX];
	unsigned held_nr;
	atomic_bool hold;		/* answer nothing for now */
	unsigned asks_per_request;
	enum greeting_status status;
	uint64_t greet_fsid;
} server;

static void fail_server(const char *text, uint64_t a, uint64_t b)
{
	if (server.errors++ == 0)
		snprintf(server.error, sizeof(server.error), "%s (%llu, %llu)", text,
			 (unsigned long long)a, (unsigned long long)b);
}

static void on_greeting(void *arg, const struct net_greeting *g)
{
	(void)arg;
	server.greetings++;
	server.restarted += g->restarted;
	net_server_greeted(server.ns, g->msg.rid, server.status);
}

static void ask(uint64_t rid)
{
	struct msg_lock_invalidate m = { .key.first = server.asks_nr, .new_mode = MSG_LOCK_READ };

	if (server.asks_nr < ASKS_MAX &&
	    net_server_request(server.ns, rid, MSG_lock_invalidate, &m, server.asks_nr) == 0)
		server.asks_nr++;
}

static void answer(const struct held_request *h)
{
	if (h->type == MSG_farewell) {
		server.gone[h->rid] = true;
		net_server_respond(server.ns, h->rid, h->handle, 0, MSG_farewell_reply, NULL);
	} else if (h->number % 7 == 6) {
		net_server_respond(server.ns, h->rid, h->handle, -ENOSPC, 0, NULL);
	} else {
		struct msg_alloc_inodes_reply reply = { h->rid, h->number };

		net_server_respond(server.ns, h->rid, h->handle, 0, MSG_alloc_inodes_reply, &reply);
	}
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	const struct msg_alloc_inodes *m = msg;
	uint64_t n = type == MSG_farewell ? 0 : m->count;

	(void)arg;
	if (rid == 0 || rid > CLIENTS_MAX || n >= CALLS_MAX) {
		fail_server("a request that nobody made", rid, n);
		return;
	}
	if (server.handled[rid][n]++)
		fail_server("handled twice by one server", rid, n);
	if (server.held_nr == HELD_MAX) {
		fail_server("the test's table is full", rid, n);
		return;
	}
	server.held[server.held_nr++] = (struct held_request){ rid, handle, type, n };
	for (unsigned i = 0; type != MSG_farewell && i < server.asks_per_request; i++)
		ask(rid);
}

static void on_response(void *arg, uint64_t rid, uint64_t tag, int err, unsigned type,
			const void *msg)
{
	const struct msg_lock_invalidate_reply *m = msg;

	(void)arg;
	(void)rid;
	if (err || type != MSG_lock_invalidate_reply || m->key.first != tag)
		fail_server("a wrong answer", tag, (uint64_t)-err);
	else if (server.answered[tag]++)
		fail_server("an answer came twice", tag, 0);
}

static void on_disconnected(void *arg, uint64_t rid, uint64_t since_ns)
{
	(void)arg;
	(void)rid;
	(void)since_ns;
	server.disconnects++;
}

static void on_reconnected(void *arg, uint64_t rid)
{
	(void)arg;
	(void)rid;
	server.reconnects++;
}

static void on_left(void *arg, uint64_t rid)
{
	(void)arg;
	(void)rid;
	server.left++;
}

static struct net_refusals refusals;
static struct net_counts counts;

static void open_server(void)
{
	const char *endpoint = server.endpoint;
	struct net_server_conf conf = {
		.endpoints = &endpoint,
		.endpoints_nr = 1,
		.term = server.term,
		.fsid = server.greet_fsid,
		.fmt_vers = FMT_VERS,
		.keepalive_ms = KEEPALIVE_MS,
		.refusals = &refusals,
		.counts = &counts,
		.ops = { on_greeting, on_request, on_response, on_disconnected, on_reconnected,
			 on_left },
	};

	uint64_t end = clock_mono_ns() + DEADLINE_NS;
	int ret;

	/* ZeroMQ closes the listener of the server before behind our back. */
	while ((ret = net_server_open(&server.ns, server.ctx, &conf)) == -EADDRINUSE && clock_mono_ns() < end) {
		/* or somebody else has the port that was free, and no client knows it yet */
		if (server.term == 1)
			net_rig_pick(server.endpoint, sizeof(server.endpoint));
	}
	if (ret < 0) {
		fprintf(stderr, "the server does not start on %s\n", endpoint);
		abort();
	}
	memset(server.handled, 0, sizeof(server.handled));
	memset(server.answered, 0, sizeof(server.answered));
	server.asks_nr = 0;
	server.held_nr = 0;
}

static void *server_thread(void *arg)
{
	(void)arg;
	while (!atomic_load(&server.stopping)) {
		net_rig_wait(&server.ns, &server.mutex);
		if (atomic_load(&server.paused))
			continue;
		pthread_mutex_lock(&server.mutex);
		if (atomic_load(&server_restarts) != atomic_load(&server.restarts_done)) {
			net_server_close(server.ns);
			server.term++;
			open_server();
			atomic_fetch_add(&server.restarts_done, 1);
		}
		net_server_dispatch(server.ns, clock_mono_ns());
		/* Out of order: the last comes first. */
		while (!server.hold && server.held_nr) {
			struct held_request h = server.held[--server.held_nr];

			answer(&h);
		}
		pthread_mutex_unlock(&server.mutex);
	}
	return NULL;
}

static void start_server(void)
{
	pthread_mutex_init(&server.mutex, NULL);
	server.term = 1;
	server.status = GREETING_OK;
	server.greet_fsid = FSID;
	server.errors = server.greetings = server.restarted = 0;
	server.disconnects = server.reconnects = server.left = 0;
	server.hold = false;
	server.asks_per_request = 0;
	memset(server.gone, 0, sizeof(server.gone));
	atomic_store(&server.stopping, false);
	atomic_store(&server.paused, false);
	atomic_store(&server_restarts, 0);
	atomic_store(&server.restarts_done, 0);
	atomic_store(&faults.frames, 0);
	atomic_store(&faults.random, 0);
	faults.at = 0;
	faults.kind = FAULT_NONE;
	server.ctx = zmq_ctx_new();
	net_rig_pick(server.endpoint, sizeof(server.endpoint));
	open_server();
	assert_int_equal(pthread_create(&server.thread, NULL, server_thread, NULL), 0);
}

static void stop_server(void)
{
	atomic_store(&server.stopping, true);
	pthread_join(server.thread, NULL);
	net_server_close(server.ns);
	zmq_ctx_term(server.ctx);
	pthread_mutex_destroy(&server.mutex);
	if (server.errors)
		fail_msg("%u errors at the server, the first: %s", server.errors, server.error);
}

/* --- a client ----------------------------------------------------------------------------------
 */

struct call_state {
	struct test_client *tc;
	unsigned number;
	unsigned done_nr;
	int err;
	uint64_t nr;
};

struct test_client {
	struct net_client *nc;
	uint64_t rid;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct call_state calls[CALLS_MAX];
	unsigned done_nr;
	unsigned greeted, fenced, disconnected, asked;
	_Atomic uint64_t term;
	uint8_t seen[ASKS_MAX];		/* questions of the present server */
	unsigned errors;
	bool ignore_requests;
	struct net_req *ignored;
};

static int resolve(void *arg, char *buf, size_t size)
{
	(void)arg;
	pthread_mutex_lock(&server.mutex);
	snprintf(buf, size, "%s", server.endpoint);
	pthread_mutex_unlock(&server.mutex);
	return 0;
}

static void on_greeted(void *arg, uint64_t term, bool new_server)
{
	struct test_client *tc = arg;

	pthread_mutex_lock(&tc->mutex);
	tc->greeted++;
	if (new_server != (term != tc->term))
		tc->errors++;
	if (new_server)
		memset(tc->seen, 0, sizeof(tc->seen));
	tc->term = term;
	pthread_cond_broadcast(&tc->cond);
	pthread_mutex_unlock(&tc->mutex);
}

static void client_on_request(void *arg, struct net_req *req, unsigned type, const void *msg)
{
	const struct msg_lock_invalidate *m = msg;
	struct msg_lock_invalidate_reply reply = { m->key, m->old_mode, m->new_mode };
	struct test_client *tc = arg;
	bool ignore;

	pthread_mutex_lock(&tc->mutex);
	tc->asked++;
	if (type != MSG_lock_invalidate || m->key.first >= ASKS_MAX || tc->seen[m->key.first]++)
		tc->errors++;
	ignore = tc->ignore_requests;
	if (ignore)
		tc->ignored = req;
	pthread_cond_broadcast(&tc->cond);
	pthread_mutex_unlock(&tc->mutex);
	if (!ignore)
		net_client_respond(tc->nc, req, 0, MSG_lock_invalidate_reply, &reply);
}

static void on_fenced(void *arg)
{
	struct test_client *tc = arg;

	pthread_mutex_lock(&tc->mutex);
	tc->fenced++;
	pthread_cond_broadcast(&tc->cond);
	pthread_mutex_unlock(&tc->mutex);
}

static void client_on_disconnected(void *arg)
{
	struct test_client *tc = arg;

	pthread_mutex_lock(&tc->mutex);
	tc->disconnected++;
	pthread_cond_broadcast(&tc->cond);
	pthread_mutex_unlock(&tc->mutex);
}

static void start_patient_client(struct test_client *tc, uint64_t rid, uint32_t keepalive_ms)
{
	struct net_client_conf conf = {
		.rid = rid,
		.fsid = FSID,
		.fmt_vers = FMT_VERS,
		.keepalive_ms = keepalive_ms,
		.ops = { resolve, on_greeted, client_on_request, on_fenced,
			 client_on_disconnected },
		.arg = tc,
	};
	pthread_condattr_t attr;

	memset(tc, 0, sizeof(*tc));
	tc->rid = rid;
	pthread_mutex_init(&tc->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&tc->cond, &attr);
	pthread_condattr_destroy(&attr);
	/* Callbacks use tc->nc: they wait for it. */
	pthread_mutex_lock(&tc->mutex);
	assert_int_equal(net_client_start(&tc->nc, &conf), 0);
	pthread_mutex_unlock(&tc->mutex);
}

static void start_client(struct test_client *tc, uint64_t rid)
{
	start_patient_client(tc, rid, KEEPALIVE_MS);
}

static void stop_client(struct test_client *tc)
{
	net_client_stop(tc->nc);
	assert_int_equal(tc->errors, 0);
	pthread_mutex_destroy(&tc->mutex);
	pthread_cond_destroy(&tc->cond);
}

static void call_done(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_alloc_inodes_reply *m = reply;
	struct call_state *c = arg;
	struct test_client *tc = c->tc;

	pthread_mutex_lock(&tc->mutex);
	c->done_nr++;
	c->err = err;
	if (!err && type == MSG_alloc_inodes_reply)
		c->nr = m->nr;
	tc->done_nr++;
	pthread_cond_broadcast(&tc->cond);
	pthread_mutex_unlock(&tc->mutex);
}

static void start_call(struct test_client *tc, unsigned n)
{
	struct msg_alloc_inodes m = { n };

	tc->calls[n] = (struct call_state){ .tc = tc, .number = n };
	assert_int_equal(net_client_call(tc->nc, MSG_alloc_inodes, &m, call_done, &tc->calls[n]),
			 0);
}

/* Wait until *counter is at least want. */
static void wait_count(struct test_client *tc, const unsigned *counter, unsigned want,
		       const char *what)
{
	uint64_t end_ns = clock_mono_ns() + DEADLINE_NS;
	struct timespec end = { (time_t)(end_ns / NSEC_PER_SEC), (long)(end_ns % NSEC_PER_SEC) };
	int ret = 0;

	pthread_mutex_lock(&tc->mutex);
	while (*counter < want && ret == 0)
		ret = pthread_cond_timedwait(&tc->cond, &tc->mutex, &end);
	ret = *counter < want;
	pthread_mutex_unlock(&tc->mutex);
	if (ret)
		fail_msg("client %llu: %s: %u of %u (fault %d at frame %u)",
			 (unsigned long long)tc->rid, what, *counter, want, (int)faults.kind,
			 faults.at);
}

static void check_calls(struct test_client *tc, unsigned from, unsigned to)
{
	for (unsigned n = from; n < to; n++) {
		assert_int_equal(tc->calls[n].done_nr, 1);
		assert_int_equal(tc->calls[n].err, n % 7 == 6 ? -ENOSPC : 0);
		if (n % 7 != 6)
			assert_int_equal(tc->calls[n].nr, n);
	}
}

static int is_gone(void *arg)
{
	const struct test_client *tc = arg;
	int gone;

	pthread_mutex_lock(&server.mutex);
	gone = server.gone[tc->rid];
	pthread_mutex_unlock(&server.mutex);
	return gone;
}

/* Until cond(): the server's numbers, under its mutex. */
#define WAIT_SERVER(cond, what) do {							\
	uint64_t end_ns_ = clock_mono_ns() + DEADLINE_NS;				\
	bool is_true_ = false;								\
	while (!is_true_ && clock_mono_ns() < end_ns_) {				\
		pthread_mutex_lock(&server.mutex);					\
		is_true_ = (cond);							\
		pthread_mutex_unlock(&server.mutex);					\
		if (!is_true_)								\
			poll(NULL, 0, 2);						\
	}										\
	if (!is_true_)									\
		fail_msg("the server never saw: %s (fault %d at frame %u)", what,	\
			 (int)faults.kind, faults.at);					\
} while (0)

static bool all_asks_answered(void)
{
	for (unsigned i = 0; i < server.asks_nr; i++) {
		if (!server.answered[i])
			return false;
	}
	return true;
}

/* --- tests -------------------------------------------------------------------------------------
 */

/* Greet, call, be asked, say farewell.  Returns how many frames that took. */
static unsigned scenario(enum fault kind, unsigned at)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	unsigned frames;

	start_server();
	faults.kind = kind;
	faults.at = at;
	server.asks_per_request = 1;
	start_client(tc, 1);
	for (unsigned n = 1; n <= 4; n++)
		start_call(tc, n);
	wait_count(tc, &tc->done_nr, 4, "answers");
	start_call(tc, 6);
	wait_count(tc, &tc->done_nr, 5, "answers");
	check_calls(tc, 1, 5);
	check_calls(tc, 6, 7);
	WAIT_SERVER(all_asks_answered(), "all answers to its questions");
	assert_int_equal(net_client_farewell(tc->nc, is_gone, tc, 60000), 0);
	assert_true(is_gone(tc));
	frames = atomic_load(&faults.frames);
	stop_client(tc);
	stop_server();
	free(tc);
	return frames;
}

static void every_single_fault_at_every_frame_is_survived(void **state)
{
	unsigned frames = scenario(FAULT_NONE, 0);

	(void)state;
	assert_true(frames >= 14);
	for (unsigned at = 1; at <= frames; at++) {
		scenario(FAULT_LOSE, at);
		scenario(FAULT_DOUBLE, at);
		scenario(FAULT_NEW_SERVER, at);
	}
}

static void random_faults_and_server_deaths_lose_nothing(void **state)
{
	unsigned rounds = getenv("ROUNDS") ? (unsigned)atoi(getenv("ROUNDS")) : 4;
	struct test_client *tc[CLIENTS_MAX];
	unsigned issued = 1;

	(void)state;
	start_server();
	atomic_store(&faults.rng, getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 42);
	server.asks_per_request = 2;
	atomic_store(&faults.random, 60);
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		tc[i] = calloc(1, sizeof(*tc[i]));
		start_client(tc[i], i + 1);
	}
	for (unsigned round = 0; round < rounds && issued + 20 < CALLS_MAX; round++) {
		for (unsigned k = 0; k < 20; k++, issued++) {
			for (unsigned i = 0; i < CLIENTS_MAX; i++)
				start_call(tc[i], issued);
		}
		atomic_fetch_add(&server_restarts, 1);
		for (unsigned i = 0; i < CLIENTS_MAX; i++)
			wait_count(tc[i], &tc[i]->done_nr, issued - 1, "answers");
	}
	atomic_store(&faults.random, 0);
	WAIT_SERVER(all_asks_answered(), "all answers to its questions");
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		check_calls(tc[i], 1, issued);
		assert_true(tc[i]->term >= 2);
		stop_client(tc[i]);
		free(tc[i]);
	}
	stop_server();
}

static void held_answers_survive_many_connections(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	struct net_client_stats st;

	(void)state;
	start_server();
	server.hold = true;
	start_client(tc, 1);
	start_call(tc, 1);
	start_call(tc, 2);
	WAIT_SERVER(server.held_nr == 2, "two requests");
	/* A server that says nothing is given up, and comes back to the same session. */
	atomic_store(&server.paused, true);
	wait_count(tc, &tc->disconnected, 1, "lost connections");
	atomic_store(&server.paused, false);
	wait_count(tc, &tc->greeted, 2, "greetings");
	assert_int_equal(tc->done_nr, 0);
	pthread_mutex_lock(&server.mutex);
	assert_int_equal(server.handled[1][1], 1);
	server.hold = false;
	pthread_mutex_unlock(&server.mutex);
	wait_count(tc, &tc->done_nr, 2, "answers");
	check_calls(tc, 1, 3);
	net_client_get_stats(tc->nc, &st);
	assert_int_equal(st.term, 1);
	assert_int_equal(st.pending, 0);
	stop_client(tc);
	stop_server();
	free(tc);
}

static void a_stop_ends_every_call(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));

	(void)state;
	start_server();
	server.hold = true;
	start_client(tc, 1);
	start_call(tc, 1);
	WAIT_SERVER(server.held_nr == 1, "the request");
	start_call(tc, 2);
	stop_client(tc);
	for (unsigned n = 1; n <= 2; n++) {
		assert_int_equal(tc->calls[n].done_nr, 1);
		assert_int_equal(tc->calls[n].err, -ESHUTDOWN);
	}
	WAIT_SERVER(server.disconnects == server.reconnects + 1, "the end of the connection");
	stop_server();
	free(tc);
}

static void a_fenced_mount_is_told_and_does_nothing_more(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	struct msg_alloc_inodes m = { 3 };

	(void)state;
	start_server();
	server.hold = true;
	start_client(tc, 1);
	start_call(tc, 1);
	WAIT_SERVER(server.held_nr == 1, "the request");
	pthread_mutex_lock(&server.mutex);
	assert_int_equal(net_server_drop(server.ns, 1), 0);
	assert_int_equal(net_server_drop(server.ns, 1), -ENOENT);
	assert_int_equal(net_server_respond(server.ns, 1, server.held[0].handle, 0,
					    MSG_alloc_inodes_reply, NULL),
			 -ENOENT);
	server.held_nr = 0;
	pthread_mutex_unlock(&server.mutex);
	wait_count(tc, &tc->fenced, 1, "fences");
	assert_int_equal(tc->calls[1].done_nr, 1);
	assert_int_equal(tc->calls[1].err, -ENOLINK);
	assert_int_equal(net_client_call(tc->nc, MSG_alloc_inodes, &m, call_done, &tc->calls[3]),
			 -ENOLINK);
	assert_int_equal(net_client_call_sync(tc->nc, MSG_alloc_inodes, &m, NULL), -ENOLINK);
	stop_client(tc);
	stop_server();
	free(tc);
}

/* A host that lost its power says nothing on its connections; the next leader is not missed for that. */
static void a_silent_server_is_left_when_another_leads(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	struct net_server *silent;

	(void)state;
	start_server();
	start_patient_client(tc, 1, 600000);
	start_call(tc, 1);
	wait_count(tc, &tc->done_nr, 1, "answers");
	pthread_mutex_lock(&server.mutex);
	server.hold = true;
	pthread_mutex_unlock(&server.mutex);
	start_call(tc, 2);
	WAIT_SERVER(server.held_nr == 1, "the request");
	pthread_mutex_lock(&server.mutex);
	silent = server.ns;
	server.hold = false;
	server.term++;
	net_rig_pick(server.endpoint, sizeof(server.endpoint));
	open_server();
	pthread_mutex_unlock(&server.mutex);
	wait_count(tc, &tc->done_nr, 2, "answers, the second by another server");
	assert_int_equal(tc->term, 2);
	check_calls(tc, 1, 3);
	stop_client(tc);
	net_server_close(silent);
	stop_server();
	free(tc);
}

static void a_server_may_refuse(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	struct net_client_stats st;

	(void)state;
	start_server();
	pthread_mutex_lock(&server.mutex);
	server.status = GREETING_BUSY;
	pthread_mutex_unlock(&server.mutex);
	start_client(tc, 1);
	start_call(tc, 1);
	WAIT_SERVER(server.greetings >= 3, "three attempts");
	net_client_get_stats(tc->nc, &st);
	assert_false(st.greeted);
	assert_int_equal(st.term, 0);
	/* Never greeted: there is nothing to say farewell to. */
	assert_int_equal(net_client_farewell(tc->nc, is_gone, tc, 1), 0);
	pthread_mutex_lock(&server.mutex);
	server.status = GREETING_OK;
	pthread_mutex_unlock(&server.mutex);
	wait_count(tc, &tc->done_nr, 1, "answers");
	stop_client(tc);
	stop_server();
	free(tc);
}

static void another_volumes_server_lets_nobody_in(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	uint64_t before = stats_get(&counts.net_refused);

	(void)state;
	start_server();
	pthread_mutex_lock(&server.mutex);
	net_server_close(server.ns);
	server.greet_fsid = FSID + 1;
	open_server();
	pthread_mutex_unlock(&server.mutex);
	start_client(tc, 1);
	start_call(tc, 1);
	WAIT_SERVER(stats_get(&counts.net_refused) > before, "a refusal");
	assert_int_equal(server.greetings, 0);
	stop_client(tc);
	assert_int_equal(tc->greeted, 0);
	assert_int_equal(tc->calls[1].err, -ESHUTDOWN);
	stop_server();
	free(tc);
}

static void a_new_process_of_a_rid_takes_over(void **state)
{
	struct test_client *old = calloc(1, sizeof(*old)), *new = calloc(1, sizeof(*new));
	uint64_t old_handle;

	(void)state;
	start_server();
	server.hold = true;
	server.asks_per_request = 1;
	start_client(old, 1);
	pthread_mutex_lock(&old->mutex);
	old->ignore_requests = true;
	pthread_mutex_unlock(&old->mutex);
	start_call(old, 1);
	WAIT_SERVER(server.held_nr == 1, "the request");
	wait_count(old, &old->asked, 1, "questions");
	net_client_respond(old->nc, old->ignored, -EIO, 0, NULL); /* not before it is stopped */
	stop_client(old);
	pthread_mutex_lock(&server.mutex);
	old_handle = server.held[0].handle;
	server.held_nr = 0;
	server.errors = 0;	/* the -EIO above may have arrived */
	memset(server.handled, 0, sizeof(server.handled));
	ask(1);
	pthread_mutex_unlock(&server.mutex);

	start_client(new, 1);
	wait_count(new, &new->asked, 1, "questions");
	WAIT_SERVER(server.restarted == 1, "a new process");
	WAIT_SERVER(server.answered[1], "the new process's answer");
	pthread_mutex_lock(&server.mutex);
	assert_int_equal(net_server_respond(server.ns, 1, old_handle, -EIO, 0, NULL), -ENOENT);
	server.hold = false;
	pthread_mutex_unlock(&server.mutex);
	start_call(new, 1);
	wait_count(new, &new->done_nr, 1, "answers");
	check_calls(new, 1, 2);
	stop_client(new);
	stop_server();
	free(old);
	free(new);
}

static void wrong_answers_and_questions_are_errors_not_hangs(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	struct msg_greeting_reply bad = { .status = 99 };
	struct msg_alloc_inodes m = { 1 };

	(void)state;
	start_server();
	server.hold = true;
	start_client(tc, 1);
	start_call(tc, 1);
	start_call(tc, 2);
	WAIT_SERVER(server.held_nr == 2, "the requests");
	pthread_mutex_lock(&server.mutex);
	assert_int_equal(
		net_server_respond(server.ns, 1, server.held[0].handle, 0, MSG_statfs_reply, NULL),
		-EINVAL);
	assert_int_equal(net_server_respond(server.ns, 1, server.held[0].handle, 0,
					    MSG_alloc_inodes_reply, NULL),
			 -ENOENT);
	assert_int_equal(net_server_request(server.ns, 1, MSG_statfs, NULL, 0), -EINVAL);
	assert_int_equal(net_server_request(server.ns, 77, MSG_sync_log_trees, NULL, 0), -ENOENT);
	server.held_nr = 0;
	pthread_mutex_unlock(&server.mutex);
	wait_count(tc, &tc->done_nr, 1, "answers");
	assert_int_equal(tc->calls[1].err + tc->calls[2].err, -EIO);
	assert_int_equal(net_client_call(tc->nc, MSG_lock_invalidate, NULL, call_done, tc),
			 -EINVAL);
	assert_int_equal(net_client_call(tc->nc, MSG_greeting_reply, &bad, call_done, tc), -EINVAL);
	assert_int_equal(net_client_call(tc->nc, 9999, &m, call_done, tc), -EINVAL);
	stop_client(tc);
	stop_server();
	free(tc);
}

static void strangers_are_not_believed(void **state)
{
	struct test_client *tc = calloc(1, sizeof(*tc));
	struct msg_header hdr = {
		.type = MSG_alloc_inodes, .rid = 1, .term = 1, .seq = 1, .frame_nr = 2
	};
	struct msg_alloc_inodes m = { 400 };
	static uint8_t buf[MSG_FRAME_MAX];
	struct net_server_stats st;
	void *ctx = zmq_ctx_new(), *sock;
	uint64_t requests = stats_get(&counts.net_requests), malformed = stats_get(&counts.net_malformed),
		 refused = stats_get(&counts.net_refused), greetings = stats_get(&counts.net_greetings);

	(void)state;
	start_server();
	zmqu_fault = NULL;
	start_client(tc, 1);
	wait_count(tc, &tc->greeted, 1, "greetings");
	assert_int_equal(zmqu_dealer(ctx, KEEPALIVE_MS, &sock), 0);
	assert_int_equal(zmq_connect(sock, server.endpoint), 0);
	/* Noise, nothing, two parts, and a request in the name of a rid that is there. */
	assert_int_equal(zmqu_send(sock, NULL, "noise", 5), 0);
	assert_int_equal(zmqu_send(sock, NULL, "", 0), 0);
	assert_int_equal(zmq_send(sock, "a", 1, ZMQ_SNDMORE), 1);
	assert_int_equal(zmq_send(sock, "b", 1, 0), 1);
	assert_int_equal(zmqu_send_msg(sock, NULL, &hdr, &m, buf, sizeof(buf)), 0);
	WAIT_SERVER((net_server_get_stats(server.ns, &st), stats_get(&counts.net_malformed) == malformed + 3 &&
		     stats_get(&counts.net_refused) > refused), "three malformed frames and a refusal");
	assert_int_equal(st.sessions, 1);
	assert_int_equal(st.connected, 1);
	assert_int_equal(stats_get(&counts.net_requests), requests);
	assert_int_equal(stats_get(&counts.net_greetings), greetings + 1);
	start_call(tc, 1);
	wait_count(tc, &tc->done_nr, 1, "answers");
	assert_int_equal(stats_get(&counts.net_requests), requests + 1);
	zmqu_close(sock);
	zmq_ctx_term(ctx);
	stop_client(tc);
	stop_server();
	zmqu_fault = fault_hook;
	free(tc);
}

static void an_address_in_use_is_an_error(void **state)
{
	const char *endpoint = server.endpoint;
	struct net_server_conf conf = {
		.endpoints = &endpoint,
		.endpoints_nr = 1,
		.term = 1,
		.keepalive_ms = KEEPALIVE_MS,
	};
	struct net_server *ns;
	void *ctx = zmq_ctx_new();

	(void)state;
	start_server();
	assert_int_equal(net_server_open(&ns, ctx, &conf), -EADDRINUSE);
	stop_server();
	zmq_ctx_term(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_single_fault_at_every_frame_is_survived),
		cmocka_unit_test(random_faults_and_server_deaths_lose_nothing),
		cmocka_unit_test(held_answers_survive_many_connections),
		cmocka_unit_test(a_stop_ends_every_call),
		cmocka_unit_test(a_fenced_mount_is_told_and_does_nothing_more),
		cmocka_unit_test(a_silent_server_is_left_when_another_leads),
		cmocka_unit_test(a_server_may_refuse),
		cmocka_unit_test(another_volumes_server_lets_nobody_in),
		cmocka_unit_test(a_new_process_of_a_rid_takes_over),
		cmocka_unit_test(wrong_answers_and_questions_are_errors_not_hangs),
		cmocka_unit_test(strangers_are_not_believed),
		cmocka_unit_test(an_address_in_use_is_an_error),
	};

	zmqu_fault = fault_hook;
	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
