/*
 * Sessions between neighbouring versions: a message that the other side does not know is answered with an error, its
 * session goes on, and nothing is sent again for ever.  docs/protocol.md.
 *
 * One side is real; the other is a socket that says what a later version might.
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
#include "csum/csum.h"
#include "net_client.h"
#include "net_rig.h"
#include "net_server.h"
#include "zmqu.h"

#define FSID		7u
#define TERM		3u
#define RID		5u
#define UNKNOWN		9999u		/* a type of a later version */
#define DEADLINE_NS	(60 * NSEC_PER_SEC)

static uint8_t buf[MSG_FRAME_MAX];
static union msg_body body;

/* ---- the later version's side ---- */

struct peer {
	void *ctx, *sock;
	bool is_router;
	struct zmqu_ident to;
	struct msg_header last;		/* what it received last; body is its body */
	struct net_server *ns;		/* dispatched while it waits; may be NULL */
};

static void say(struct peer *p, const struct msg_header *hdr, const void *msg)
{
	assert_int_equal(zmqu_send_msg(p->sock, p->is_router ? &p->to : NULL, hdr, msg, buf, sizeof(buf)), 0);
}

/* A frame whose type nobody knows yet. */
static void say_unknown(struct peer *p, const struct msg_header *hdr)
{
	int len = msg_put(hdr, NULL, buf, sizeof(buf));
	le16 type = le16_of(UNKNOWN);
	le32 crc;

	assert_true(len > 0);
	memcpy(buf + 6, &type, sizeof(type));
	memset(buf + MSG_HEADER_BYTES - 4, 0, 4);
	crc = le32_of(crc32c(buf, (size_t)len));
	memcpy(buf + MSG_HEADER_BYTES - 4, &crc, sizeof(crc));
	assert_int_equal(zmqu_send(p->sock, p->is_router ? &p->to : NULL, buf, (size_t)len), 0);
}

/* The next frame that is no ping or pong of its own. */
static void hear(struct peer *p)
{
	uint64_t give_up = clock_mono_ns() + DEADLINE_NS;
	struct zmqu_frame f;
	int ret;

	for (;;) {
		if (p->ns)
			net_server_dispatch(p->ns, clock_mono_ns());
		ret = zmqu_recv(p->sock, p->is_router, &f);
		if (ret == -EAGAIN) {
			if (clock_mono_ns() > give_up)
				fail_msg("the other side says nothing");
			poll(NULL, 0, 1);
			continue;
		}
		assert_int_equal(ret, 0);
		p->to = f.from;
		ret = msg_get(zmq_msg_data(&f.msg), zmq_msg_size(&f.msg), &p->last, &body);
		zmqu_frame_close(&f);
		assert_int_equal(ret, 0);
		if (p->last.type != MSG_ping && (p->last.type != MSG_pong || (p->last.flags & MSG_FLAG_RESPONSE)))
			return;
	}
}

/* ---- a mount of a later version, and a server of this one ---- */

static unsigned asked;

static void on_greeting(void *arg, const struct net_greeting *g)
{
	struct peer *p = arg;

	assert_int_equal(net_server_greeted(p->ns, g->msg.rid, GREETING_OK), 0);
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	struct peer *p = arg;

	(void)msg;
	assert_int_equal(type, MSG_alloc_inodes);
	asked++;
	assert_int_equal(net_server_respond(p->ns, rid, handle, 0, MSG_alloc_inodes_reply, NULL), 0);
}

static void on_gone(void *arg, uint64_t rid, uint64_t since_ns)
{
	(void)arg, (void)rid, (void)since_ns;
	fail_msg("the session was cut");
}

static void a_server_answers_what_it_does_not_know(void **state)
{
	struct peer p = { .ctx = zmq_ctx_new() };
	struct net_counts counts = { 0 };
	char endpoint[64];
	struct net_server_conf conf = {
		.term = TERM, .fsid = FSID, .fmt_vers = 2,
		.keepalive_ms = 60000, .arg = &p,
		.counts = &counts,
		.ops = { on_greeting, on_request, net_rig_no_response, on_gone, net_rig_no_rid, net_rig_no_rid },
	};
	struct msg_greeting g = { .fsid = FSID, .fmt_vers = 2, .rid = RID, .epoch = 1, .process = 1 };
	struct msg_header hdr = { .type = MSG_greeting, .rid = RID, .frame_nr = 1 };
	struct net_server_stats st;

	(void)state;
	net_rig_open(&p.ns, p.ctx, &conf, endpoint, sizeof(endpoint));
	assert_int_equal(zmqu_dealer(p.ctx, 60000, &p.sock), 0);
	assert_int_equal(zmq_connect(p.sock, endpoint), 0);
	say(&p, &hdr, &g);
	hear(&p);
	assert_int_equal(p.last.type, MSG_greeting_reply);
	assert_int_equal(body.greeting_reply.status, GREETING_OK);

	hdr = (struct msg_header){ .type = MSG_statfs, .rid = RID, .term = TERM, .id = 41, .seq = 1, .frame_nr = 2 };
	say_unknown(&p, &hdr);
	hear(&p);
	assert_int_equal(p.last.id, 41);
	assert_true(p.last.flags & MSG_FLAG_RESPONSE);
	assert_int_equal(p.last.error, -EOPNOTSUPP);
	/* A request that is not a client's to make is no better known, and the session goes on all the same. */
	hdr = (struct msg_header){ .type = MSG_lock_recover, .rid = RID, .term = TERM, .id = 42, .seq = 2,
				   .frame_nr = 3 };
	say(&p, &hdr, NULL);
	hear(&p);
	assert_int_equal(p.last.id, 42);
	assert_int_equal(p.last.error, -EOPNOTSUPP);
	hdr = (struct msg_header){ .type = MSG_alloc_inodes, .rid = RID, .term = TERM, .id = 43, .seq = 3,
				   .recv_seq = p.last.seq, .frame_nr = 4 };
	say(&p, &hdr, NULL);
	hear(&p);
	assert_int_equal(p.last.id, 43);
	assert_int_equal(p.last.type, MSG_alloc_inodes_reply);
	assert_int_equal(p.last.error, 0);
	assert_int_equal(asked, 1);
	net_server_get_stats(p.ns, &st);
	assert_int_equal(st.connected, 1);
	assert_int_equal(stats_get(&counts.net_malformed), 0);
	net_server_close(p.ns);
	zmqu_close(p.sock);
	zmq_ctx_term(p.ctx);
}

/* ---- a server of a later version, and a mount of this one ---- */

static char server_endpoint[64];
static atomic_uint client_asked, client_cut;
static atomic_int call_err;
static _Atomic(struct net_client *) asked_client;

static int resolve(void *arg, char *to, size_t size)
{
	(void)arg;
	snprintf(to, size, "%s", server_endpoint);
	return 0;
}

static void client_on_request(void *arg, struct net_req *req, unsigned type, const void *msg)
{
	(void)arg, (void)msg;
	assert_int_equal(type, MSG_sync_log_trees);
	atomic_fetch_add(&client_asked, 1);
	net_client_respond(atomic_load(&asked_client), req, 0, MSG_sync_log_trees_reply, NULL);
}

static void client_on_disconnected(void *arg)
{
	(void)arg;
	atomic_fetch_add(&client_cut, 1);
}

static void call_done(void *arg, int err, unsigned type, const void *reply)
{
	(void)arg, (void)type, (void)reply;
	atomic_store(&call_err, err);
}

static void a_mount_answers_what_it_does_not_know(void **state)
{
	struct peer p = { .ctx = zmq_ctx_new(), .is_router = true };
	struct net_client *nc = NULL;
	struct net_client_conf conf = { .rid = RID, .fsid = FSID, .fmt_vers = 2, .keepalive_ms = 60000,
					.ops = { .resolve = resolve, .on_request = client_on_request,
						 .on_disconnected = client_on_disconnected } };
	struct msg_greeting_reply r = { .fsid = FSID, .fmt_vers = 2, .server_term = TERM, .status = GREETING_OK,
					.new_session = 1 };
	struct msg_alloc_inodes want = { 1 };
	struct msg_header hdr = { .type = MSG_greeting_reply, .term = TERM, .frame_nr = 1, .flags = MSG_FLAG_RESPONSE };
	size_t size = sizeof(server_endpoint);

	(void)state;
	atomic_store(&call_err, 1);
	assert_int_equal(zmqu_router(p.ctx, 60000, &p.sock), 0);
	assert_int_equal(zmq_bind(p.sock, "tcp://127.0.0.1:*"), 0);
	assert_int_equal(zmq_getsockopt(p.sock, ZMQ_LAST_ENDPOINT, server_endpoint, &size), 0);
	assert_int_equal(net_client_start(&nc, &conf), 0);
	atomic_store(&asked_client, nc);
	hear(&p);
	assert_int_equal(p.last.type, MSG_greeting);
	hdr.id = p.last.id;
	say(&p, &hdr, &r);

	hdr = (struct msg_header){ .type = MSG_sync_log_trees, .term = TERM, .id = 51, .seq = 1, .frame_nr = 2 };
	say_unknown(&p, &hdr);
	hear(&p);
	assert_int_equal(p.last.id, 51);
	assert_true(p.last.flags & MSG_FLAG_RESPONSE);
	assert_int_equal(p.last.error, -EOPNOTSUPP);
	hdr = (struct msg_header){ .type = MSG_sync_log_trees, .term = TERM, .id = 52, .seq = 2, .frame_nr = 3,
				   .recv_seq = p.last.seq };
	say(&p, &hdr, NULL);
	hear(&p);
	assert_int_equal(p.last.id, 52);
	assert_int_equal(p.last.error, 0);
	assert_int_equal(atomic_load(&client_asked), 1);

	/* And what an older server does not know ends the call that asked it, once. */
	assert_int_equal(net_client_call(nc, MSG_alloc_inodes, &want, call_done, NULL), 0);
	hear(&p);
	assert_int_equal(p.last.type, MSG_alloc_inodes);
	hdr = (struct msg_header){ .type = MSG_pong, .flags = MSG_FLAG_RESPONSE, .term = TERM, .id = p.last.id,
				   .seq = 3, .frame_nr = 4, .recv_seq = p.last.seq, .error = -EOPNOTSUPP };
	say(&p, &hdr, NULL);
	for (uint64_t end = clock_mono_ns() + DEADLINE_NS; atomic_load(&call_err) == 1;) {
		assert_true(clock_mono_ns() < end);
		poll(NULL, 0, 1);
	}
	assert_int_equal(atomic_load(&call_err), -EOPNOTSUPP);
	assert_int_equal(atomic_load(&client_cut), 0);
	net_client_stop(nc);
	zmqu_close(p.sock);
	zmq_ctx_term(p.ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_answers_what_it_does_not_know),
		cmocka_unit_test(a_mount_answers_what_it_does_not_know),
	};

	return cmocka_run_group_tests_name("net_older", tests, NULL, NULL);
}
