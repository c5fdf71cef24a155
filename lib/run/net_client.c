/*
 * The client's side of a session: one thread, one socket at a time, everything kept until it is
 * answered.
 *
 * The home thread resolves the leader, connects with a fresh socket, greets, and once it was
 * accepted sends what is unanswered in order.  Other threads only put what they have into the inbox
 * and ring.  A socket that is cut, silent for longer than the keepalive time, or on which a frame
 * is missing or wrong is thrown away and the next one is made; what was not answered is sent again,
 * to the same server (which drops what it has had) or to a new one (whose handlers are idempotent,
 * runtime.md 3.8).
 *
 * Each call ends once: it is in the inbox, then in the session, and whoever takes it out calls
 * done.
 *
 * A wake-up costs more than to send a frame.  So `home` is a role: whoever has that mutex is the home thread for as
 * long.  A caller that finds it free sends what it has, but never calls anybody back, for it may hold what a callback
 * wants; one that waits for its answer anyway (net_client_call.c) also reads what comes, and the thread proper is not
 * woken for it.  Connecting, deadlines and monitors stay with that thread.
 */
#include "net_client.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "clock.h"
#include "keys.h"
#include "log.h"
#include "net_client_impl.h"
#include "session.h"
#include "testhook.h"
#include "zmqu.h"

#define CONNECT_NS	(1 * NSEC_PER_SEC)	/* for a connection to be there */
#define RETRY_NS	(100 * NSEC_PER_MSEC)
#define RETRY_SOON_NS	(20 * NSEC_PER_MSEC)	/* for SOON_NS after a server that had greeted us was lost */
#define SOON_NS		(2 * NSEC_PER_SEC)
#define ASK_NS		(1 * NSEC_PER_SEC)	/* a server that is silent so long is asked whether it is there */
#define LOOK_NS		(500 * NSEC_PER_MSEC)	/* one that does not answer: whether another leads by now */
#define REFUSED_NS	(1 * NSEC_PER_SEC)	/* after an answer that will not change soon */
#define FRAMES_BATCH	256
#define CUTS_MAX	3u	/* connections cut in the handshake before that is taken for a refusal */
#define ACK_FRAMES	64u /* unacknowledged messages that bring an acknowledgement */

static uint64_t keepalive_ns(const struct net_client *nc)
{
	return nc->conf.keepalive_ms * NSEC_PER_MSEC;
}

/* A call is over.  The mutex is not held. */
static void finish_call(struct net_client *nc, struct session_out *o, int err, unsigned type,
			const void *reply)
{
	pthread_mutex_lock(&nc->mutex);
	nc->open_calls--;
	pthread_mutex_unlock(&nc->mutex);
	o->done(o->arg, err, type, err ? NULL : reply);
	session_out_free(o);
}

static void set_greeted(struct net_client *nc, bool greeted)
{
	pthread_mutex_lock(&nc->mutex);
	if (greeted)
		nc->stats.why[0] = 0;
	if (nc->stats.greeted != greeted)
		nc->stats.since_ns = clock_mono_ns();
	nc->stats.greeted = greeted;
	nc->stats.term = nc->term;
	pthread_mutex_unlock(&nc->mutex);
}

/* The server does not take us: why, for the log and for status. */
static void set_why(struct net_client *nc, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void set_why(struct net_client *nc, int level, const char *fmt, ...)
{
	char why[NET_WHY_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	log_at(level, "%s", why);
	pthread_mutex_lock(&nc->mutex);
	memcpy(nc->stats.why, why, sizeof(why));
	pthread_mutex_unlock(&nc->mutex);
}

static void count(struct net_client *nc, uint64_t *counter)
{
	pthread_mutex_lock(&nc->mutex);
	(*counter)++;
	pthread_mutex_unlock(&nc->mutex);
}

/* What the home thread is to be woken for; sock NULL: nothing. */
static int watch(struct net_client *nc, void *sock, int op, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	return sock && epoll_ctl(nc->epoll_fd, op, zmqu_fd(sock), &ev) < 0 ? -errno : 0;
}

/* Throw the socket away; the next attempt is after delay_ns. */
static void drop_socket(struct net_client *nc, uint64_t delay_ns)
{
	bool was_open = nc->state == LINK_OPEN;

	if (nc->sock)
		zmq_socket_monitor(nc->sock, NULL, 0);
	/* ZeroMQ closes their descriptors some time later.  One that is not watched yet cannot be forgotten. */
	(void)watch(nc, nc->mon, EPOLL_CTL_DEL, 0);
	(void)watch(nc, nc->sock, EPOLL_CTL_DEL, 0);
	if (nc->is_listening) {
		/* It drops it itself, perhaps: the home thread waits for what was due with this socket. */
		net_client_ring(nc->listen_fd);
		net_client_wake(nc);
	}
	nc->is_listening = false;
	zmqu_close(nc->mon);
	zmqu_close(nc->sock);
	nc->sock = nc->mon = NULL;
	nc->state = LINK_IDLE;
	nc->is_blocked = false;
	/* A good connection that broke is made again at once; it may have been the server's
	 * restart. */
	nc->next_try_ns = clock_mono_ns() + (nc->was_greeted ? 0 : delay_ns);
	if (nc->was_greeted)
		nc->lost_ns = clock_mono_ns();
	nc->was_greeted = false;
	if (!was_open)
		return;
	set_greeted(nc, false);
	if (nc->conf.ops.on_disconnected)
		nc->conf.ops.on_disconnected(nc->conf.arg);
}

/* 0; -EAGAIN: later; else the socket is of no use. */
static int try_frame(struct net_client *nc, struct msg_header *hdr, const void *body)
{
	int ret;

	hdr->frame_nr = (uint16_t)(nc->session.sent_nr + 1);
	hdr->recv_seq = nc->session.recv_seq;
	hdr->term = nc->term;
	hdr->rid = nc->conf.rid;
	ret = zmqu_send_msg(nc->sock, NULL, hdr, body, nc->buf, MSG_FRAME_MAX);
	if (ret == -EAGAIN)
		nc->is_blocked = true;
	if (ret < 0)
		return ret;
	nc->session.sent_nr++;
	nc->session.acked_seq = nc->session.recv_seq;
	nc->unacked_nr = 0;
	nc->last_sent_ns = clock_mono_ns();
	return 0;
}

/* 0; -EAGAIN: later; else the socket is gone. */
static int send_frame(struct net_client *nc, struct msg_header *hdr, const void *body)
{
	int ret = try_frame(nc, hdr, body);

	if (ret < 0 && ret != -EAGAIN) {
		log_warning("server at %s: %s cannot be sent: %s; connecting again",
			    nc->stats.endpoint, msg_name(hdr->type), strerror(-ret));
		drop_socket(nc, RETRY_NS);
	}
	return ret;
}

static void send_ping(struct net_client *nc, unsigned type, uint64_t cookie)
{
	struct msg_header hdr = { .type = (uint16_t)type };
	struct msg_ping ping = { cookie };

	send_frame(nc, &hdr, &ping);
}

/* Send what has not been sent on this socket.  The first error of `send`. */
static int pump(struct net_client *nc,
		int (*send)(struct net_client *nc, struct msg_header *hdr, const void *body))
{
	struct session_out *o;
	int ret;

	while (nc->state == LINK_OPEN && !nc->is_blocked && (o = session_next(&nc->session))) {
		bool is_again = o->is_again;

		ret = send(nc, &o->hdr, o->body);
		if (ret < 0)
			return ret;
		session_sent(&nc->session, o);
		if (is_again)
			count(nc, &nc->stats.resent);
	}
	return 0;
}

/* A response to a server that is gone is for nobody. */
static void take_response(struct net_client *nc, struct session_out *o)
{
	if (o->tag != nc->term) {
		session_out_free(o);
		return;
	}
	session_add_response(&nc->session, o, o->link.id);
}

static void drain_inbox(struct net_client *nc)
{
	struct session_out *o, *next;
	bool fenced;

	pthread_mutex_lock(&nc->mutex);
	o = nc->inbox_first;
	nc->inbox_first = nc->inbox_last = NULL;
	fenced = nc->fenced;
	pthread_mutex_unlock(&nc->mutex);
	for (; o; o = next) {
		int ret;

		next = o->next;
		o->next = NULL;
		if (!o->done) {
			take_response(nc, o);
			continue;
		}
		ret = fenced ? -ENOLINK : session_add_request(&nc->session, o);
		if (ret < 0)
			finish_call(nc, o, ret, 0, NULL);
	}
}

/* With the mutex held: what was not taken comes first again. */
static void inbox_back(struct net_client *nc, struct session_out *first)
{
	struct session_out *last = first;

	while (last->next)
		last = last->next;
	last->next = nc->inbox_first;
	if (!nc->inbox_first)
		nc->inbox_last = last;
	nc->inbox_first = first;
}

bool net_client_send_inbox(struct net_client *nc)
{
	struct session_out *o = NULL, *next;
	bool is_first;
	int ret = 0;

	if (nc->state != LINK_OPEN || nc->is_blocked)
		return false;
	pthread_mutex_lock(&nc->mutex);
	is_first = !nc->fenced && !nc->stopping;
	if (is_first) {
		o = nc->inbox_first;
		nc->inbox_first = nc->inbox_last = NULL;
	}
	pthread_mutex_unlock(&nc->mutex);
	for (; o && ret == 0; o = next) {
		next = o->next;
		o->next = NULL;
		if (!o->done)
			take_response(nc, o);
		else
			ret = session_add_request(&nc->session, o);
		if (ret == 0)
			continue;
		/* Its end is the home thread's to tell. */
		o->next = next;
		pthread_mutex_lock(&nc->mutex);
		inbox_back(nc, o);
		pthread_mutex_unlock(&nc->mutex);
	}
	if (ret == 0 && is_first)
		ret = pump(nc, try_frame);
	/* Sending takes in what was signalled: nobody else would hear of it. */
	return ret == 0 && is_first && !(zmqu_events(nc->sock) & ZMQ_POLLIN);
}

static void fail_all(struct net_client *nc, int err)
{
	struct session_out *o;

	drain_inbox(nc);
	while ((o = session_take_request(&nc->session)))
		finish_call(nc, o, err, 0, NULL);
}

static void become_fenced(struct net_client *nc)
{
	log_err("rid %016" PRIx64
		": the server at %s says that this mount was fenced; it can do nothing any "
		"more: unmount it",
		nc->conf.rid, nc->stats.endpoint);
	pthread_mutex_lock(&nc->mutex);
	nc->fenced = true;
	pthread_mutex_unlock(&nc->mutex);
	drop_socket(nc, RETRY_NS);
	fail_all(nc, -ENOLINK);
	if (nc->conf.ops.on_fenced)
		nc->conf.ops.on_fenced(nc->conf.arg);
}

/* The rid's item is gone from the device: the answer to our farewell was lost, not the farewell. */
static bool is_farewell_done(struct net_client *nc)
{
	int (*gone)(void *arg);
	struct session_out *o;
	void *arg;

	pthread_mutex_lock(&nc->mutex);
	gone = nc->gone;
	arg = nc->gone_arg;
	pthread_mutex_unlock(&nc->mutex);
	if (!gone || gone(arg) != 1)
		return false;
	drain_inbox(nc);
	while ((o = session_take_request(&nc->session)))
		finish_call(nc, o, o->hdr.type == MSG_farewell ? 0 : -ESHUTDOWN,
			    msg_reply_type(o->hdr.type), NULL);
	return true;
}

static void start_greeting(struct net_client *nc)
{
	struct msg_header hdr = { .type = MSG_greeting };
	struct msg_greeting g = {
		.fsid = nc->conf.fsid,
		.fmt_vers = nc->conf.fmt_vers,
		.server_term = nc->term,
		.rid = nc->conf.rid,
		.flags = nc->conf.flags,
		.epoch = nc->epoch,
		.process = nc->process,
	};

	pthread_mutex_lock(&nc->mutex);
	if (nc->gone)
		g.flags |= GREETING_FLAG_FAREWELL;
	pthread_mutex_unlock(&nc->mutex);
	session_rewind(&nc->session);
	nc->state = LINK_GREETING;
	nc->deadline_ns = clock_mono_ns() + keepalive_ns(nc);
	nc->next_look_ns = clock_mono_ns() + LOOK_NS;
	send_frame(nc, &hdr, &g);
}

/* Encrypt, when there are keys: the server must prove that it is the node of its address. */
static int secure_socket(struct net_client *nc, const char *endpoint)
{
	uint8_t server_key[KEYS_BYTES];
	struct keys *k = nc->conf.keys;
	char err[KEYS_ERR_BYTES];
	uint32_t addr;
	uint16_t port;

	if (!k)
		return 0;
	if (strncmp(endpoint, "tcp://", 6) != 0 ||
	    keys_parse_address(endpoint + 6, &addr, &port) < 0)
		return -EINVAL;
	/* Without that line there is nothing to lose: it may have been added since. */
	if (keys_at_address(k, addr, port, server_key) < 0 && keys_reload(k, err, sizeof(err)) < 0) {
		set_why(nc, LOG_ERR, "%.250s", err);
		return -ENOKEY;
	}
	if (keys_at_address(k, addr, port, server_key) < 0) {
		set_why(nc, LOG_ERR, "no line of %s has the address of the leader at %s: add its node's line (scoutfsctl "
			"keygen -p -a ADDRESS there)",
			keys_allow_path(k), endpoint);
		return -ENOKEY;
	}
	return zmqu_secure_dealer(nc->sock, server_key, keys_public(k), keys_secret(k));
}

/* A hand-over takes a fraction of a second, and programs wait for it. */
static uint64_t retry_ns(const struct net_client *nc)
{
	return nc->lost_ns && clock_mono_ns() < nc->lost_ns + SOON_NS ? RETRY_SOON_NS : RETRY_NS;
}

/*
 * The server does not answer: whether another leads by now, who is asked then.  A host that died says nothing
 * on its connections, for as long as a keepalive or an attempt to connect takes.
 */
static void look_for_another(struct net_client *nc, uint64_t now)
{
	char endpoint[NET_ENDPOINT_BYTES] = "";

	nc->next_look_ns = now + (nc->state == LINK_CONNECTING ? RETRY_NS : LOOK_NS);
	if (nc->conf.ops.resolve(nc->conf.arg, endpoint, sizeof(endpoint)) < 0 ||
	    strcmp(endpoint, nc->stats.endpoint) == 0)
		return;
	if (nc->state == LINK_OPEN)
		log_notice("server at %s does not answer, and another leads at %s", nc->stats.endpoint, endpoint);
	drop_socket(nc, 0);
}

static void try_connect(struct net_client *nc)
{
	char endpoint[NET_ENDPOINT_BYTES] = "";
	uint64_t now;
	int ret;

	if (is_farewell_done(nc)) {
		nc->next_try_ns = UINT64_MAX;
		return;
	}
	ret = nc->conf.ops.resolve(nc->conf.arg, endpoint, sizeof(endpoint));
	now = clock_mono_ns();
	nc->next_try_ns = now + retry_ns(nc);
	pthread_mutex_lock(&nc->mutex);
	if (ret < 0)
		nc->stats.why[0] = 0;	/* there is nobody who could refuse us */
	pthread_mutex_unlock(&nc->mutex);
	if (ret < 0)
		return;
	pthread_mutex_lock(&nc->mutex);
	memcpy(nc->stats.endpoint, endpoint, sizeof(endpoint));
	nc->stats.connects++;
	pthread_mutex_unlock(&nc->mutex);

	ret = zmqu_dealer(nc->zmq_ctx, nc->conf.keepalive_ms, &nc->sock);
	if (ret == 0)
		ret = secure_socket(nc, endpoint);
	if (ret == 0)
		ret = zmqu_monitor(nc->zmq_ctx, nc->sock, ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
				   ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED |
				   ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
				   ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
				   ZMQ_EVENT_HANDSHAKE_FAILED_AUTH, &nc->mon);
	if (ret == 0)
		ret = watch(nc, nc->sock, EPOLL_CTL_ADD, EPOLLIN);
	if (ret == 0)
		ret = watch(nc, nc->mon, EPOLL_CTL_ADD, EPOLLIN);
	if (ret == 0 && zmq_connect(nc->sock, endpoint) < 0)
		ret = -errno;
	if (ret == -ENOKEY) {
		drop_socket(nc, REFUSED_NS);
		return;
	}
	if (ret < 0) {
		log_err("server at %s: no socket for it: %s; trying again", endpoint,
			strerror(-ret));
		drop_socket(nc, REFUSED_NS);
		return;
	}
	nc->epoch = clock_boot_ns() > nc->epoch ? clock_boot_ns() : nc->epoch + 1;
	nc->state = LINK_CONNECTING;
	nc->deadline_ns = now + CONNECT_NS;
	nc->next_look_ns = now + RETRY_NS;
}

static void handle_greeting_reply(struct net_client *nc, const struct msg_greeting_reply *g)
{
	bool is_new = g->server_term != nc->term;

	switch (g->status) {
	case GREETING_OK:
		break;
	case GREETING_FENCED:
		become_fenced(nc);
		return;
	case GREETING_INVALID:
		set_why(nc, LOG_ERR, "server at %s refuses this mount: it serves fsid %016" PRIx64
			", format version %" PRIu64 "; ours is fsid %016" PRIx64
			", version %" PRIu64 "; are the devices and the quorum "
			"addresses of one volume?",
			nc->stats.endpoint, g->fsid, g->fmt_vers, nc->conf.fsid, nc->conf.fmt_vers);
		nc->was_greeted = false;
		drop_socket(nc, REFUSED_NS);
		return;
	case GREETING_NOT_LEADER:
		if (g->server_term < nc->term)
			set_why(nc, LOG_NOTICE, "server at %s: it serves term %" PRIu64 ", and this mount was served in term %"
				PRIu64 " since: it has been replaced; looking for the leader",
				nc->stats.endpoint, g->server_term, nc->term);
		nc->was_greeted = false;
		drop_socket(nc, retry_ns(nc));
		return;
	default:
		nc->was_greeted = false;
		drop_socket(nc, retry_ns(nc));
		return;
	}
	if (nc->state != LINK_GREETING || g->fsid != nc->conf.fsid || g->server_term < nc->term ||
	    g->server_term == 0) {
		drop_socket(nc, retry_ns(nc));
		return;
	}
	if (is_new || g->new_session) {
		uint16_t sent = nc->session.sent_nr, received = nc->session.received_nr;

		/* The socket has carried the greeting already. */
		session_new_peer(&nc->session);
		nc->session.sent_nr = sent;
		nc->session.received_nr = received;
	}
	nc->term = g->server_term;
	nc->state = LINK_OPEN;
	nc->was_greeted = true;
	set_greeted(nc, true);
	if (nc->conf.ops.on_greeted)
		nc->conf.ops.on_greeted(nc->conf.arg, nc->term, is_new);
}

static void handle_response(struct net_client *nc, const struct msg_header *hdr, const void *body)
{
	struct session_out *o = session_answered(&nc->session, hdr->id);
	int err = hdr->error;

	if (!o)
		return;
	if (!err && hdr->type != msg_reply_type(o->hdr.type)) {
		log_err("server at %s: answers %s with %s; the call fails", nc->stats.endpoint,
			msg_name(o->hdr.type), msg_name(hdr->type));
		err = -EPROTO;
	}
	finish_call(nc, o, err, hdr->type, body);
}

/* -ENOMEM: the message is not taken. */
static int handle_request(struct net_client *nc, const struct msg_header *hdr, const void *body)
{
	struct net_req *req = malloc(sizeof(*req));

	if (!req)
		return -ENOMEM;
	*req = (struct net_req){ nc, hdr->id, nc->term, hdr->type };
	count(nc, &nc->stats.requests);
	if (!msg_is_from(hdr->type, MSG_FROM_SERVER) || !msg_reply_type(hdr->type) || hdr->error)
		net_client_respond(nc, req, -EOPNOTSUPP, 0, NULL);
	else
		nc->conf.ops.on_request(nc->conf.arg, req, hdr->type, body);
	return 0;
}

/* -EPROTO: the socket cannot be used any more. */
static int handle_message(struct net_client *nc, const struct msg_header *hdr,
			  const union msg_body *body, bool is_known)
{
	bool is_greeting = is_known && hdr->type == MSG_greeting_reply && !hdr->error;

	/* A refusal ends the socket whatever else was sent on it: its sender may know nothing of
	 * it. */
	if (is_greeting && body->greeting_reply.status != GREETING_OK) {
		handle_greeting_reply(nc, &body->greeting_reply);
		return 0;
	}
	switch (session_frame(&nc->session, hdr)) {
	case SESSION_NEW:
		break;
	case SESSION_DUPLICATE:
		count(nc, &nc->stats.duplicates);
		return 0;
	case SESSION_LOST:
		count(nc, &nc->stats.lost);
		return -EPROTO;
	case SESSION_LIE:
		return -EPROTO;
	}
	nc->last_received_ns = clock_mono_ns();
	if (is_greeting) {
		handle_greeting_reply(nc, &body->greeting_reply);
		return 0;
	}
	if (nc->state != LINK_OPEN || hdr->term != nc->term)
		return -EPROTO;
	if (is_known && hdr->type == MSG_ping) {
		send_ping(nc, MSG_pong, body->ping.cookie);
		return 0;
	}
	if (is_known && hdr->type == MSG_pong && !(hdr->flags & MSG_FLAG_RESPONSE))
		return 0;
	if (hdr->seq == 0)
		return -EPROTO;
	nc->unacked_nr++;
	if (hdr->seq <= nc->session.recv_seq) {
		count(nc, &nc->stats.duplicates);
		return 0;
	}
	if (!is_known) {
		struct msg_header as_ping = *hdr;

		/* A later version's request: refused by name of nothing. */
		if (hdr->flags & MSG_FLAG_RESPONSE)
			return -EPROTO;
		as_ping.type = MSG_pong;
		if (handle_request(nc, &as_ping, body) < 0)
			return -EPROTO;
	} else if (hdr->flags & MSG_FLAG_RESPONSE) {
		session_receive(&nc->session, hdr);
		handle_response(nc, hdr, body);
		return 0;
	} else if (handle_request(nc, hdr, body) < 0) {
		return -EPROTO;
	}
	session_receive(&nc->session, hdr);
	return 0;
}

static void handle_frame(struct net_client *nc, struct zmqu_frame *f)
{
	struct msg_header hdr = { 0 };
	int ret;

	ret = msg_get(zmq_msg_data(&f->msg), zmq_msg_size(&f->msg), &hdr, nc->body);
	if (ret == 0)
		testhook_message(TESTHOOK_RECV, hdr.type);
	if (ret == -EPROTONOSUPPORT)
		set_why(nc, LOG_ERR, "server at %s speaks another major version of the protocol than ours (%u); upgrade the older "
			"of the two hosts",
			nc->stats.endpoint, MSG_MAJOR);
	if (ret == 0 || ret == -EOPNOTSUPP)
		ret = handle_message(nc, &hdr, nc->body, ret == 0);
	if (ret < 0 && nc->sock) {
		if (ret != -EPROTO || nc->state == LINK_OPEN)
			log_warning("server at %s: a message was lost or damaged; connecting again",
				    nc->stats.endpoint);
		drop_socket(nc, retry_ns(nc));
	}
}

void net_client_read(struct net_client *nc)
{
	for (int i = 0; i < FRAMES_BATCH && nc->sock; i++) {
		struct zmqu_frame f;
		int ret = zmqu_recv(nc->sock, 0, &f);

		if (ret == -EAGAIN)
			return;
		if (ret < 0) {
			drop_socket(nc, retry_ns(nc));
			return;
		}
		handle_frame(nc, &f);
		zmqu_frame_close(&f);
	}
}

/*
 * Why a connection came to nothing before it could be used.  How long to wait before the next.
 *
 * Of two ends of which one has keys and the other none, the one that reads the other's greeting first closes the
 * connection, often before its own greeting is on the wire: the other end then learns nothing but the end.  On some
 * machines it is always the same end.
 */
static uint64_t handshake_failed(struct net_client *nc, int event, int value)
{
	char text[KEYS_TEXT_BYTES] = "";

	if (nc->conf.keys)
		keys_to_text(keys_public(nc->conf.keys), text);
	if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) {
		set_why(nc, LOG_ERR, "the leader at %s does not allow this node's key %s: add its line (scoutfsctl keygen -p "
			"here) to the list there and reload", nc->stats.endpoint, text);
	} else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL &&
		   value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH) {
		if (nc->conf.keys)
			set_why(nc, LOG_ERR, "the leader at %s talks without keys, and this node only with them: does it have "
				"insecure = yes, or no key_file?", nc->stats.endpoint);
		else
			set_why(nc, LOG_ERR, "the leader at %s talks only to nodes with keys, and this one has none: make one "
				"(scoutfsctl keygen), and add its line to the list there", nc->stats.endpoint);
	} else if (++nc->cuts < CUTS_MAX) {
		return RETRY_NS;
	} else if (nc->conf.keys) {
		set_why(nc, LOG_ERR, "the leader at %s ends each connection while keys are exchanged: either it talks without "
			"keys, and this node only with them, or its key is not the one that %s has for its address",
			nc->stats.endpoint, keys_allow_path(nc->conf.keys));
	} else {
		set_why(nc, LOG_ERR, "the leader at %s ends each connection at its start: perhaps it talks only to nodes with "
			"keys, and this one has none (scoutfsctl keygen)", nc->stats.endpoint);
		return RETRY_NS;
	}
	return REFUSED_NS;
}

static void read_monitor(struct net_client *nc)
{
	int event, value;

	while (nc->mon && zmqu_monitor_next(nc->mon, &event, &value) == 0) {
		if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
			nc->cuts = 0;
			if (nc->state == LINK_CONNECTING)
				start_greeting(nc);
		} else if (event & (ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
				    ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)) {
			drop_socket(nc, handshake_failed(nc, event, value));
			return;
		} else if (event != ZMQ_EVENT_CLOSED || nc->state == LINK_CONNECTING) {
			/* What had arrived before the cut counts. */
			net_client_read(nc);
			if (nc->sock)
				drop_socket(nc, retry_ns(nc));
			return;
		}
	}
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* OPEN: when the server is to hear from us, and to say something itself if it has been silent. */
static uint64_t ping_ns(const struct net_client *nc)
{
	return min_u64(nc->last_sent_ns + keepalive_ns(nc) / 4,
		       max_u64(nc->last_received_ns, nc->last_asked_ns) + ASK_NS);
}

/* When to look whether another leads. */
static uint64_t look_ns(const struct net_client *nc)
{
	if (nc->state != LINK_OPEN)
		return nc->next_look_ns;
	return max_u64(nc->next_look_ns, nc->last_received_ns + ASK_NS + LOOK_NS);
}

static uint64_t next_deadline(const struct net_client *nc)
{
	switch (nc->state) {
	case LINK_IDLE:
		return nc->next_try_ns;
	case LINK_CONNECTING:
	case LINK_GREETING:
		return min_u64(nc->deadline_ns, look_ns(nc));
	case LINK_OPEN:
		break;
	}
	return min_u64(nc->last_received_ns + keepalive_ns(nc), min_u64(ping_ns(nc), look_ns(nc)));
}

static void check_times(struct net_client *nc)
{
	uint64_t now = clock_mono_ns();

	switch (nc->state) {
	case LINK_IDLE:
		if (now >= nc->next_try_ns)
			try_connect(nc);
		return;
	case LINK_CONNECTING:
	case LINK_GREETING:
		if (now >= nc->deadline_ns)
			drop_socket(nc, retry_ns(nc));
		else if (now >= look_ns(nc))
			look_for_another(nc, now);
		return;
	case LINK_OPEN:
		break;
	}
	if (now >= nc->last_received_ns + keepalive_ns(nc)) {
		log_warning("server at %s: silent for %u ms; connecting again", nc->stats.endpoint,
			    nc->conf.keepalive_ms);
		drop_socket(nc, retry_ns(nc));
		return;
	}
	if (now >= look_ns(nc)) {
		look_for_another(nc, now);
		if (nc->state != LINK_OPEN)
			return;
	}
	if (now >= ping_ns(nc) || nc->unacked_nr >= ACK_FRAMES) {
		nc->last_asked_ns = now;
		send_ping(nc, MSG_ping, now);
	}
}

/* Whether something is there that no descriptor tells of any more. */
static bool has_sock_pending(const struct net_client *nc)
{
	int wanted = ZMQ_POLLIN | (nc->is_blocked ? ZMQ_POLLOUT : 0);

	return nc->sock && zmqu_events(nc->sock) & wanted;
}

static bool has_pending(const struct net_client *nc)
{
	return has_sock_pending(nc) || (nc->mon && zmqu_events(nc->mon) & ZMQ_POLLIN);
}

/* Called and returns with `home` held. */
static void wait_for_work(struct net_client *nc, uint64_t deadline_ns)
{
	struct epoll_event ev[3];
	uint64_t now, ring;
	bool is_due = has_pending(nc);
	int ms, nr = 0;

	pthread_mutex_lock(&nc->mutex);
	is_due = is_due || nc->inbox_first || nc->stopping;
	nc->is_awake = is_due;
	pthread_mutex_unlock(&nc->mutex);
	now = clock_mono_ns();
	if (deadline_ns <= now || is_due)
		ms = 0;
	else if (deadline_ns - now > 60 * NSEC_PER_SEC)
		ms = 60000;
	else
		ms = (int)((deadline_ns - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
	pthread_mutex_unlock(&nc->home);
	if (!is_due)
		nr = epoll_wait(nc->epoll_fd, ev, 3, ms);
	if (nr < 0 && errno != EINTR)
		log_err("session with the server: waiting failed: %s", strerror(errno));
	if (nr > 0 && read(nc->wake_fd, &ring, sizeof(ring)) < 0 && errno != EAGAIN)
		log_err("session with the server: its wake cannot be read: %s", strerror(errno));
	pthread_mutex_lock(&nc->home);
	pthread_mutex_lock(&nc->mutex);
	nc->is_awake = true;
	pthread_mutex_unlock(&nc->mutex);
	if (nc->sock && nc->is_blocked && zmqu_events(nc->sock) & ZMQ_POLLOUT)
		nc->is_blocked = false;
}

static bool is_fenced(struct net_client *nc)
{
	bool fenced;

	pthread_mutex_lock(&nc->mutex);
	fenced = nc->fenced;
	pthread_mutex_unlock(&nc->mutex);
	return fenced;
}

void net_client_turn(struct net_client *nc)
{
	if (nc->sock)
		net_client_read(nc);
	if (nc->sock)
		read_monitor(nc);
	if (!is_fenced(nc))
		check_times(nc);
	drain_inbox(nc);
	pump(nc, send_frame);
}

bool net_client_listen_begin(struct net_client *nc)
{
	if (nc->has_listener || nc->state != LINK_OPEN || watch(nc, nc->sock, EPOLL_CTL_MOD, 0) < 0)
		return false;
	nc->has_listener = nc->is_listening = true;
	return true;
}

void net_client_listen_end(struct net_client *nc)
{
	/* It is watched: that was done before anything else with it. */
	(void)watch(nc, nc->sock, EPOLL_CTL_MOD, EPOLLIN);
	nc->has_listener = nc->is_listening = false;
	/* More than it has taken, of which the home thread would not hear. */
	if (has_sock_pending(nc))
		net_client_wake(nc);
}

uint64_t net_client_deadline(struct net_client *nc)
{
	return is_fenced(nc) ? UINT64_MAX : next_deadline(nc);
}

static void end_session(struct net_client *nc)
{
	drop_socket(nc, RETRY_NS);
	fail_all(nc, -ESHUTDOWN);
}

static void *home_thread(void *arg)
{
	struct net_client *nc = arg;
	bool stopping = false;

	pthread_mutex_lock(&nc->home);
	while (!stopping) {
		net_client_turn(nc);
		wait_for_work(nc, net_client_deadline(nc));
		pthread_mutex_lock(&nc->mutex);
		stopping = nc->stopping;
		pthread_mutex_unlock(&nc->mutex);
	}
	end_session(nc);
	pthread_mutex_unlock(&nc->home);
	/* Those who waited have their answers, and are on their way out. */
	pthread_mutex_lock(&nc->mutex);
	while (nc->waiting)
		pthread_cond_wait(&nc->left, &nc->mutex);
	pthread_mutex_unlock(&nc->mutex);
	return NULL;
}

static void free_client(struct net_client *nc)
{
	session_fini(&nc->session);
	if (nc->zmq_ctx)
		zmq_ctx_term(nc->zmq_ctx);
	if (nc->wake_fd >= 0)
		close(nc->wake_fd);
	if (nc->listen_fd >= 0)
		close(nc->listen_fd);
	if (nc->epoll_fd >= 0)
		close(nc->epoll_fd);
	pthread_mutex_destroy(&nc->mutex);
	pthread_mutex_destroy(&nc->home);
	pthread_cond_destroy(&nc->left);
	free(nc->buf);
	free(nc->body);
	free(nc);
}

int net_client_open(struct net_client **out, const struct net_client_conf *conf, uint64_t process)
{
	struct net_client *nc = calloc(1, sizeof(*nc));
	struct epoll_event ev = { .events = EPOLLIN };
	int ret = 0;

	if (!nc)
		return -ENOMEM;
	assert(conf->ops.resolve && conf->ops.on_request && conf->keepalive_ms);
	nc->conf = *conf;
	nc->term = conf->term;
	nc->process = process;
	pthread_mutex_init(&nc->mutex, NULL);
	pthread_mutex_init(&nc->home, NULL);
	pthread_cond_init(&nc->left, NULL);
	session_init(&nc->session);
	nc->stats.since_ns = clock_mono_ns();
	nc->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	nc->listen_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	nc->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (nc->wake_fd < 0 || nc->listen_fd < 0 || nc->epoll_fd < 0 ||
	    epoll_ctl(nc->epoll_fd, EPOLL_CTL_ADD, nc->wake_fd, &ev) < 0)
		ret = -errno;
	nc->zmq_ctx = ret == 0 ? zmq_ctx_new() : NULL;
	if (ret == 0 && !nc->zmq_ctx)
		ret = -errno;
	nc->buf = malloc(MSG_FRAME_MAX);
	nc->body = malloc(sizeof(*nc->body));
	if (ret == 0 && (!nc->buf || !nc->body))
		ret = -ENOMEM;
	if (ret < 0) {
		free_client(nc);
		return ret;
	}
	*out = nc;
	return 0;
}

void net_client_close(struct net_client *nc)
{
	end_session(nc);
	free_client(nc);
}

int net_client_start(struct net_client **out, const struct net_client_conf *conf)
{
	struct net_client *nc;
	sigset_t all, old;
	uint64_t process;
	int ret;

	if (getrandom(&process, sizeof(process), 0) != sizeof(process))
		return -EIO;
	ret = net_client_open(&nc, conf, process);
	if (ret < 0)
		return ret;
	/* Signals are for the service's main thread. */
	nc->has_thread = true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&nc->thread, NULL, home_thread, nc);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret < 0) {
		free_client(nc);
		return ret;
	}
	*out = nc;
	return 0;
}

void net_client_stop(struct net_client *nc)
{
	if (!nc)
		return;
	pthread_mutex_lock(&nc->mutex);
	nc->stopping = true;
	pthread_mutex_unlock(&nc->mutex);
	net_client_wake(nc);
	pthread_join(nc->thread, NULL);
	free_client(nc);
}
