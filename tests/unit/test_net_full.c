/*
 * A client that asks as much as it may while the server answers nothing: it is told that it must wait, and the server
 * takes all of it.  More would make the server cut it off, and the same would be asked again on the next connection.
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
#include <stdatomic.h>

#include "clock.h"
#include "net_client.h"
#include "net_rig.h"
#include "net_server.h"
#include "zmqu.h"

#define FSID		7u
#define RID		5u
#define DEADLINE_NS	(120 * NSEC_PER_SEC)

static struct net_server *ns;
static uint64_t handles[NET_SERVER_QUEUE_MAX];
static unsigned held, cuts;
static char endpoint[64];
static atomic_uint answered, failed;

static void on_greeting(void *arg, const struct net_greeting *g)
{
	(void)arg;
	assert_int_equal(net_server_greeted(ns, g->msg.rid, GREETING_OK), 0);
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	(void)arg, (void)rid, (void)type, (void)msg;
	assert_true(held < NET_SERVER_QUEUE_MAX);
	handles[held++] = handle;
}

static void on_gone(void *arg, uint64_t rid, uint64_t since_ns)
{
	(void)arg, (void)rid, (void)since_ns;
	cuts++;
}

static int resolve(void *arg, char *to, size_t size)
{
	(void)arg;
	snprintf(to, size, "%s", endpoint);
	return 0;
}

static void client_on_request(void *arg, struct net_req *req, unsigned type, const void *msg)
{
	(void)arg, (void)req, (void)type, (void)msg;
	fail_msg("nobody asks the client");
}

static void done(void *arg, int err, unsigned type, const void *reply)
{
	(void)arg, (void)type, (void)reply;
	if (err)
		atomic_fetch_add(&failed, 1);
	atomic_fetch_add(&answered, 1);
}

#define SERVE_UNTIL(cond)							\
	for (uint64_t end_ = clock_mono_ns() + DEADLINE_NS; !(cond); poll(NULL, 0, 1)) { \
		assert_true(clock_mono_ns() < end_);				\
		net_server_dispatch(ns, clock_mono_ns());			\
	}

static void as_much_as_a_client_may_ask_is_taken(void **state)
{
	struct net_counts counts = { 0 };
	struct net_server_conf sc = { .term = 1, .fsid = FSID, .fmt_vers = 2,
				      .keepalive_ms = 60000, .counts = &counts,
				      .ops = { on_greeting, on_request, net_rig_no_response, on_gone, net_rig_no_rid,
					       net_rig_no_rid } };
	struct net_client_conf cc = { .rid = RID, .fsid = FSID, .fmt_vers = 2, .keepalive_ms = 60000,
				      .ops = { .resolve = resolve, .on_request = client_on_request } };
	struct net_client *nc;
	void *ctx = zmq_ctx_new();
	unsigned asked = 0;
	int ret;

	(void)state;
	net_rig_open(&ns, ctx, &sc, endpoint, sizeof(endpoint));
	assert_int_equal(net_client_start(&nc, &cc), 0);
	while ((ret = net_client_call(nc, MSG_statfs, NULL, done, NULL)) == 0)
		asked++;
	assert_int_equal(ret, -EBUSY);
	assert_int_equal(asked, NET_CLIENT_CALLS_MAX);
	SERVE_UNTIL(held == asked);
	assert_int_equal(stats_get(&counts.net_queue_full), 0);
	for (unsigned i = 0; i < held; i++)
		assert_int_equal(net_server_respond(ns, RID, handles[i], 0, MSG_statfs_reply, NULL), 0);
	/* As soon as there is room it goes on, before its answers are known to be heard. */
	held = 0;
	SERVE_UNTIL(atomic_load(&answered) > 0);
	while (net_client_call(nc, MSG_statfs, NULL, done, NULL) == 0)
		asked++;
	SERVE_UNTIL(atomic_load(&answered) >= NET_CLIENT_CALLS_MAX && held == asked - NET_CLIENT_CALLS_MAX);
	for (unsigned i = 0; i < held; i++)
		assert_int_equal(net_server_respond(ns, RID, handles[i], 0, MSG_statfs_reply, NULL), 0);
	SERVE_UNTIL(atomic_load(&answered) == asked);
	assert_int_equal(stats_get(&counts.net_queue_full), 0);
	assert_int_equal(cuts, 0);
	assert_int_equal(atomic_load(&failed), 0);
	net_client_stop(nc);
	net_server_close(ns);
	zmq_ctx_term(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_much_as_a_client_may_ask_is_taken),
	};

	return cmocka_run_group_tests_name("net_full", tests, NULL, NULL);
}
