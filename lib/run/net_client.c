/*
 * The client's side of a session: one thread, one socket at a time, everything kept until it is
 * answered.
 *
 * What is here: calls on their way to the server, messages on their way from it, and the thread that waits for what
 * is to be done.  The socket, from the look for the leader until the server has accepted us, is net_client_link.c's;
 * calls, and waiting for their answers, for whichever thread, are net_client_call.c's.
 *
 * The home thread connects and, once the server has accepted us, sends what is unanswered in order.  Other threads
 * only put what they have into the inbox and ring.  What was not answered when a socket is lost is sent again, to
 * the same server (which drops what it has had) or to a new one (whose handlers are idempotent, runtime.md 3.8).
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
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "net_client_impl.h"
#include "session.h"
#include "testhook.h"
#include "thread.h"
#include "zmqu.h"

#define ASK_NS		(1 * NSEC_PER_SEC)	/* a server that is silent so long is asked whether it is there */
#define FRAMES_BATCH	256
#define ACK_FRAMES	64u /* unacknowledged messages that bring an acknowledgement */

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

static void count(struct net_client *nc, uint64_t *counter)
{
	pthread_mutex_lock(&nc->mutex);
	(*counter)++;
	pthread_mutex_unlock(&nc->mutex);
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

int net_client_send(struct net_client *nc, struct msg_header *hdr, const void *body)
{
	int ret = try_frame(nc, hdr, body);

	if (ret < 0 && ret != -EAGAIN) {
		log_warning("server at %s: %s cannot be sent: %s; connecting again",
			    nc->stats.endpoint, msg_name(hdr->type), strerror(-ret));
		net_client_drop(nc, NET_RETRY_NS);
	}
	return ret;
}

static void send_ping(struct net_client *nc, unsigned type, uint64_t cookie)
{
	struct msg_header hdr = { .type = (uint16_t)type };
	struct msg_ping ping = { cookie };

	net_client_send(nc, &hdr, &ping);
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

void net_client_end_calls(struct net_client *nc, int err)
{
	struct session_out *o;

	drain_inbox(nc);
	while ((o = session_take_request(&nc->session)))
		finish_call(nc, o, err, 0, NULL);
}

bool net_client_farewell_done(struct net_client *nc)
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
		net_client_greeted(nc, &body->greeting_reply);
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
		net_client_greeted(nc, &body->greeting_reply);
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
		net_client_set_why(nc, LOG_ERR,
				"server at %s speaks another major version of the protocol than ours (%u); upgrade the older "
			"of the two hosts",
			nc->stats.endpoint, MSG_MAJOR);
	if (ret == 0 || ret == -EOPNOTSUPP)
		ret = handle_message(nc, &hdr, nc->body, ret == 0);
	if (ret < 0 && nc->sock) {
		if (ret != -EPROTO || nc->state == LINK_OPEN)
			log_warning("server at %s: a message was lost or damaged; connecting again",
				    nc->stats.endpoint);
		net_client_drop(nc, net_client_retry_ns(nc));
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
			net_client_drop(nc, net_client_retry_ns(nc));
			return;
		}
		handle_frame(nc, &f);
		zmqu_frame_close(&f);
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
	return min_u64(nc->last_sent_ns + net_client_keepalive_ns(nc) / 4,
		       max_u64(nc->last_received_ns, nc->last_asked_ns) + ASK_NS);
}

/* When to look whether another leads. */
static uint64_t look_ns(const struct net_client *nc)
{
	if (nc->state != LINK_OPEN)
		return nc->next_look_ns;
	return max_u64(nc->next_look_ns, nc->last_received_ns + ASK_NS + NET_LOOK_NS);
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
	return min_u64(nc->last_received_ns + net_client_keepalive_ns(nc), min_u64(ping_ns(nc), look_ns(nc)));
}

static void check_times(struct net_client *nc)
{
	uint64_t now = clock_mono_ns();

	switch (nc->state) {
	case LINK_IDLE:
		if (now >= nc->next_try_ns)
			net_client_connect(nc);
		return;
	case LINK_CONNECTING:
	case LINK_GREETING:
		if (now >= nc->deadline_ns)
			net_client_drop(nc, net_client_retry_ns(nc));
		else if (now >= look_ns(nc))
			net_client_look_for_another(nc, now);
		return;
	case LINK_OPEN:
		break;
	}
	if (now >= nc->last_received_ns + net_client_keepalive_ns(nc)) {
		log_warning("server at %s: silent for %u ms; connecting again", nc->stats.endpoint,
			    nc->conf.keepalive_ms);
		net_client_drop(nc, net_client_retry_ns(nc));
		return;
	}
	if (now >= look_ns(nc)) {
		net_client_look_for_another(nc, now);
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
		net_client_read_monitor(nc);
	if (!is_fenced(nc))
		check_times(nc);
	drain_inbox(nc);
	pump(nc, net_client_send);
}

bool net_client_listen_begin(struct net_client *nc)
{
	if (nc->has_listener || nc->state != LINK_OPEN || net_client_watch(nc, nc->sock, EPOLL_CTL_MOD, 0) < 0)
		return false;
	nc->has_listener = nc->is_listening = true;
	return true;
}

void net_client_listen_end(struct net_client *nc)
{
	/* It is watched: that was done before anything else with it. */
	(void)net_client_watch(nc, nc->sock, EPOLL_CTL_MOD, EPOLLIN);
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
	net_client_drop(nc, NET_RETRY_NS);
	net_client_end_calls(nc, -ESHUTDOWN);
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
	uint64_t process;
	int ret;

	if (getrandom(&process, sizeof(process), 0) != sizeof(process))
		return -EIO;
	ret = net_client_open(&nc, conf, process);
	if (ret < 0)
		return ret;
	nc->has_thread = true;
	ret = thread_start(&nc->thread, "session", home_thread, nc);
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
