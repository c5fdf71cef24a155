/*
 * The server's side of all sessions: one ROUTER, one table of clients, no thread.
 *
 * A client is known by its rid and has at most one socket, that of the greatest epoch that has
 * greeted; a frame from any other identity is a greeting or is refused, so nobody is remembered who
 * has not said who he is.  Everything a client asked is in its table of handles until it is
 * answered; answers stay until they are acknowledged, questions until they are answered: a socket
 * may come and go meanwhile.
 *
 * The server never waits for a client: what a socket does not take stays in the session and is
 * tried again.  A client that breaks the rules loses its socket (it may come back), one that lets
 * more pile up than NET_SERVER_QUEUE_MAX is answered no more until it has caught up.
 */
#include "net_server.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"
#include "csum/csum.h"
#include "keys.h"
#include "log.h"
#include "session.h"
#include "util/planted.h"
#include "testhook.h"
#include "zmqu.h"

#define FRAMES_BATCH	256
#define ACK_FRAMES	64u
#define BLOCKED_NS	(5 * NSEC_PER_MSEC)	/* a full queue is tried again */
#define PROBE_NS	(100 * NSEC_PER_MSEC) /* ROUTER forgets a cut peer a moment after the event */
#define TICK_MAX_NS	(1 * NSEC_PER_SEC)
#define IN_USE_NS	(2 * NSEC_PER_SEC)

/* A request that waits for net_server_respond; known to us by handle, to its client by id. */
struct asked {
	struct id_link link;		/* by handle */
	uint64_t id;
	uint16_t type;
};

struct client {
	struct client *next;		/* in the list of all, the dead included */
	struct id_link by_rid, by_ident;
	uint64_t rid;
	uint64_t epoch;
	uint64_t process;
	bool is_open;			/* it was let in */
	bool is_asked;			/* on_greeting waits for net_server_greeted */
	bool is_connected;
	bool is_blocked;
	bool is_leaving;		/* its farewell has been answered */
	bool is_dead;			/* nobody finds it any more; freed by the next dispatch */
	bool is_told_connected;		/* what the callbacks have said last */
	bool is_new_session;		/* to be said in the greeting's answer */
	struct zmqu_ident ident;
	uint8_t key[KEYS_BYTES];	/* of its node, when there are keys */
	uint64_t since_ns;
	uint64_t last_received_ns, last_sent_ns;
	uint64_t unacked_nr;
	struct session session;
	struct id_map asked;
};

struct net_server {
	struct net_server_conf conf;
	void *sock, *mon;
	void *zap;			/* with keys */
	int epoll_fd;
	struct client *clients;
	size_t clients_nr;		/* alive */
	struct id_map rids, idents;
	bool has_dead;
	bool was_used;			/* since dispatch: it must come again at once */
	bool has_sent;			/* since dispatch: an edge of the descriptor may be gone */
	uint64_t last_handle;
	uint64_t deadline_ns;
	uint64_t probe_ns;		/* 0: no need to look for cut sockets */
	struct net_counts *counts;
	struct net_refusals refusals;	/* where its opener wants none */
	struct net_counts own_counts;
	struct net_refuser refuser;
	uint8_t *buf;
	union msg_body *body;
};

static uint64_t keepalive_ns(const struct net_server *ns)
{
	return ns->conf.keepalive_ms * NSEC_PER_MSEC;
}

/* Dispatch comes again at the latest then. */
static void be_back_at(struct net_server *ns, uint64_t when_ns)
{
	if (when_ns < ns->deadline_ns)
		ns->deadline_ns = when_ns;
}

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

static struct client *find_rid(const struct net_server *ns, uint64_t rid)
{
	struct id_link *l = id_map_find(&ns->rids, rid);

	return l ? container_of(l, struct client, by_rid) : NULL;
}

static struct client *find_ident(const struct net_server *ns, const struct zmqu_ident *ident)
{
	struct id_link *l = id_map_find(&ns->idents, hash64(ident->bytes, ident->len));
	struct client *c = l ? container_of(l, struct client, by_ident) : NULL;

	return c && c->ident.len == ident->len &&
	       memcmp(c->ident.bytes, ident->bytes, ident->len) == 0 ? c : NULL;
}

/* Whether c is who is found by the hash of that frame's identity. */
static bool is_hashed_as(const struct client *c, const struct zmqu_frame *f)
{
	return c->ident.len && c->by_ident.id == hash64(f->from.bytes, f->from.len);
}

static void forget_ident(struct net_server *ns, struct client *c)
{
	if (c->ident.len)
		id_map_remove(&ns->idents, c->by_ident.id);
	c->ident.len = 0;
}

static void forget_asked(struct client *c)
{
	for (size_t i = 0; i < c->asked.buckets_nr; i++) {
		struct id_link *l;

		while ((l = c->asked.buckets[i])) {
			c->asked.buckets[i] = l->next;
			free(container_of(l, struct asked, link));
		}
	}
	id_map_fini(&c->asked);
}

/* The client is no more; those who still look at it may until the next dispatch. */
static void kill_client(struct net_server *ns, struct client *c)
{
	forget_ident(ns, c);
	id_map_remove(&ns->rids, c->rid);
	ns->clients_nr--;
	c->is_dead = true;
	c->is_open = c->is_asked = c->is_connected = false;
	ns->has_dead = true;
}

static void free_dead(struct net_server *ns)
{
	struct client **p = &ns->clients, *c;

	if (!ns->has_dead)
		return;
	ns->has_dead = false;
	while ((c = *p)) {
		if (!c->is_dead) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		forget_asked(c);
		session_fini(&c->session);
		free(c);
	}
}

/* A refusal to somebody whose socket we do not keep; whether it arrives is his concern. */
static void refuse(struct net_server *ns, const struct zmqu_ident *to, enum greeting_status status)
{
	struct msg_header hdr = { .type = MSG_greeting_reply, .term = ns->conf.term };
	struct msg_greeting_reply g = {
		.fsid = ns->conf.fsid,
		.fmt_vers = ns->conf.fmt_vers,
		.server_term = ns->conf.term,
		.status = (uint8_t)status,
	};

	stats_inc(&ns->counts->net_refused);
	zmqu_send_msg(ns->sock, to, &hdr, &g, ns->buf, MSG_FRAME_MAX);
	ns->was_used = true;
}

/* The socket is gone; a client that was let in keeps its session. */
static void disconnect(struct net_server *ns, struct client *c)
{
	if (!c->is_connected)
		return;
	forget_ident(ns, c);
	c->is_connected = c->is_blocked = false;
	c->since_ns = clock_mono_ns();
	ns->was_used = true;
}

/* Say what has become of a client's connection; in dispatch only. */
static void tell(struct net_server *ns, struct client *c)
{
	if (!c->is_open || c->is_told_connected == c->is_connected)
		return;
	if (!c->is_connected && c->is_leaving) {
		kill_client(ns, c);
		ns->conf.ops.on_left(ns->conf.arg, c->rid);
		return;
	}
	c->is_told_connected = c->is_connected;
	if (c->is_connected)
		ns->conf.ops.on_reconnected(ns->conf.arg, c->rid);
	else
		ns->conf.ops.on_disconnected(ns->conf.arg, c->rid, c->since_ns);
}

/* Have the client make a new socket. */
static void reset(struct net_server *ns, struct client *c, const char *why)
{
	log_warning("client %016" PRIx64 ": %s; its connection is made again", c->rid, why);
	refuse(ns, &c->ident, GREETING_BUSY);
	disconnect(ns, c);
}

/* 0; -EAGAIN: later; -EHOSTUNREACH: the socket is gone. */
static int send_frame(struct net_server *ns, struct client *c, struct msg_header *hdr,
		      const void *body)
{
	int ret;

	hdr->frame_nr = (uint16_t)(c->session.sent_nr + 1);
	hdr->recv_seq = c->session.recv_seq;
	hdr->term = ns->conf.term;
	hdr->rid = 0;
	ret = zmqu_send_msg(ns->sock, &c->ident, hdr, body, ns->buf, MSG_FRAME_MAX);
	ns->has_sent = true;
	if (ret == -EAGAIN) {
		c->is_blocked = ns->was_used = true;
		return ret;
	}
	if (ret < 0) {
		if (ret != -EHOSTUNREACH)
			log_warning("client %016" PRIx64 ": %s cannot be sent: %s", c->rid,
				    msg_name(hdr->type), strerror(-ret));
		disconnect(ns, c);
		return -EHOSTUNREACH;
	}
	c->session.sent_nr++;
	c->session.acked_seq = c->session.recv_seq;
	c->unacked_nr = 0;
	c->last_sent_ns = clock_mono_ns();
	return 0;
}

static void send_ping(struct net_server *ns, struct client *c, unsigned type, uint64_t cookie)
{
	struct msg_header hdr = { .type = (uint16_t)type };
	struct msg_ping ping = { cookie };

	send_frame(ns, c, &hdr, &ping);
}

static void pump(struct net_server *ns, struct client *c)
{
	struct session_out *o;

	while (c->is_open && c->is_connected && !c->is_blocked && (o = session_next(&c->session))) {
		bool is_again = o->is_again;

		if (send_frame(ns, c, &o->hdr, o->body) < 0)
			return;
		session_sent(&c->session, o);
		if (is_again)
			stats_inc(&ns->counts->net_resent);
	}
}

/* The client's socket is this one from now on.  There is room for its identity. */
static void take_socket(struct net_server *ns, struct client *c, const struct msg_greeting *g,
			const struct zmqu_frame *f)
{
	forget_ident(ns, c);
	c->ident = f->from;
	c->by_ident.id = hash64(f->from.bytes, f->from.len);
	id_map_add(&ns->idents, &c->by_ident);
	c->epoch = g->epoch;
	c->is_connected = true;
	c->is_blocked = false;
	c->unacked_nr = 0;
	c->last_received_ns = c->last_sent_ns = c->since_ns = clock_mono_ns();
	session_rewind(&c->session);
	c->session.received_nr = 1;	/* the greeting */
}

/* Tell the client that it is in, then everything that waits for it. */
static void welcome(struct net_server *ns, struct client *c)
{
	struct msg_header hdr = { .type = MSG_greeting_reply };
	struct msg_greeting_reply g = {
		.fsid = ns->conf.fsid,
		.fmt_vers = ns->conf.fmt_vers,
		.server_term = ns->conf.term,
		.status = GREETING_OK,
		.new_session = c->is_new_session,
	};
	int ret;

	ret = send_frame(ns, c, &hdr, &g);
	if (ret == -EAGAIN) {
		/* Nothing was sent on this socket before: it is of no use. */
		disconnect(ns, c);
	} else if (ret == 0) {
		pump(ns, c);
	}
}

static enum greeting_status check_greeting(const struct net_server *ns,
					   const struct msg_greeting *g, const struct client *c)
{
	if (g->fsid != ns->conf.fsid || g->fmt_vers != ns->conf.fmt_vers || g->rid == 0 ||
	    g->rid == UINT64_MAX)
		return GREETING_INVALID;
	if (g->server_term > ns->conf.term)
		return GREETING_NOT_LEADER;
	if (c && g->epoch < c->epoch)
		return GREETING_BUSY;
	if (!c && g->server_term == ns->conf.term && !(g->flags & GREETING_FLAG_FAREWELL))
		return GREETING_FENCED;
	if (!c && ns->clients_nr >= NET_SERVER_CLIENTS_MAX)
		return GREETING_BUSY;
	return GREETING_OK;
}

/* Why it is refused, where an operator must know. */
static void say_greeting(struct net_server *ns, const struct msg_greeting *g, uint32_t addr,
			 enum greeting_status status)
{
	struct net_refusals *r = ns->refuser.counts;

	if (status == GREETING_INVALID && g->fsid != ns->conf.fsid)
		net_refuse(&ns->refuser, &r->refused_foreign, addr,
			    "mount %016" PRIx64 " is of volume %016" PRIx64 ", and this server's is %016" PRIx64
			    ": are its devices and the quorum addresses of one volume?",
			    g->rid, g->fsid, ns->conf.fsid);
	else if (status == GREETING_INVALID && g->fmt_vers != ns->conf.fmt_vers)
		net_refuse(&ns->refuser, &r->refused_format, addr,
			    "mount %016" PRIx64 " takes the volume for format version %" PRIu64
			    ", and it is %" PRIu64 ": mount it again",
			    g->rid, g->fmt_vers, ns->conf.fmt_vers);
	else if (status == GREETING_NOT_LEADER)
		net_refuse(&ns->refuser, &r->refused_term, addr,
			    "mount %016" PRIx64 " was served in term %" PRIu64 ", after term %" PRIu64
			    " of this server, which has been replaced",
			    g->rid, g->server_term, ns->conf.term);
}

/* With keys: the one whose frame this is, if it is (still) allowed; else -EKEYREJECTED. */
static int check_key(struct net_server *ns, struct zmqu_frame *f, uint8_t key[KEYS_BYTES])
{
	memset(key, 0, KEYS_BYTES);
	if (!ns->conf.keys)
		return 0;
	if (zmqu_frame_key(f, key) < 0 || !keys_allows(ns->conf.keys, key))
		return -EKEYREJECTED;
	return 0;
}

static struct client *add_client(struct net_server *ns, const struct msg_greeting *g)
{
	struct client *c;

	if (id_map_reserve(&ns->rids) < 0)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->rid = c->by_rid.id = g->rid;
	id_map_add(&ns->rids, &c->by_rid);
	c->process = g->process;
	session_init(&c->session);
	c->next = ns->clients;
	ns->clients = c;
	ns->clients_nr++;
	return c;
}

static void handle_greeting(struct net_server *ns, const struct msg_greeting *g,
			    struct zmqu_frame *f)
{
	struct client *c = find_rid(ns, g->rid);
	enum greeting_status status = check_greeting(ns, g, c);
	struct net_greeting ask = { .msg = *g, .addr = f->addr };
	uint8_t key[KEYS_BYTES];

	/* It came in before the list was changed. */
	if (check_key(ns, f, key) < 0) {
		net_refuse(&ns->refuser, &ns->refuser.counts->refused_key, f->addr,
			    "mount %016" PRIx64 ": its node's key is not in %s any more", g->rid,
			    keys_allow_path(ns->conf.keys));
		refuse(ns, &f->from, GREETING_BUSY);
		return;
	}
	/* Two identities of one hash cannot both be kept. */
	if (status == GREETING_OK &&
	    (f->from.len == 0 || id_map_reserve(&ns->idents) < 0 ||
	     id_map_find(&ns->idents, hash64(f->from.bytes, f->from.len))))
		status = GREETING_BUSY;
	if (status == GREETING_OK && !c) {
		c = add_client(ns, g);
		if (!c)
			status = GREETING_BUSY;
	}
	if (status != GREETING_OK) {
		say_greeting(ns, g, f->addr, status);
		refuse(ns, &f->from, status);
		return;
	}
	memcpy(c->key, key, KEYS_BYTES);
	if (c->process != g->process) {
		/* Nobody waits for the old process's answers; ours to be answered are asked again.
		 */
		ask.restarted = c->is_open || c->is_asked;
		c->process = g->process;
		c->is_open = c->is_asked = c->is_leaving = false;
		forget_asked(c);
		session_new_peer(&c->session);
	}
	if (c->is_open)
		tell(ns, c);
	if (c->is_dead) {
		refuse(ns, &f->from, GREETING_BUSY);
		return;
	}
	/* The peer chooses its identity, and two with the same hash are told apart by nothing. */
	if (id_map_find(&ns->idents, hash64(f->from.bytes, f->from.len)) && !is_hashed_as(c, f)) {
		stats_inc(&ns->counts->net_malformed);
		return;
	}
	take_socket(ns, c, g, f);
	if (c->is_open) {
		/* A client that has not seen our answer believes in an older term: we are new to
		 * it. */
		c->is_new_session = g->server_term != ns->conf.term;
		tell(ns, c);
		if (!c->is_dead)
			welcome(ns, c);
		return;
	}
	c->is_told_connected = true;
	c->is_new_session = true;
	if (c->is_asked)
		return;
	c->is_asked = true;
	stats_inc(&ns->counts->net_greetings);
	ns->conf.ops.on_greeting(ns->conf.arg, &ask);
}

/* The client's request gets an error without having been delivered. */
static int answer_error(struct client *c, const struct msg_header *hdr, int error)
{
	struct session_out *o;
	unsigned type = msg_reply_type(hdr->type);
	int ret = session_out_alloc(&o, type ? type : MSG_pong, error, NULL);

	if (ret < 0)
		return ret;
	session_add_response(&c->session, o, hdr->id);
	return 0;
}

static int handle_request(struct net_server *ns, struct client *c, const struct msg_header *hdr,
			  const void *body, bool is_known)
{
	struct asked *a;
	uint64_t rid = c->rid;
	int ret;

	stats_inc(&ns->counts->net_requests);
	if (!is_known || hdr->error || !msg_is_from(hdr->type, MSG_FROM_CLIENT) ||
	    !msg_reply_type(hdr->type) || hdr->type == MSG_greeting) {
		ret = answer_error(c, hdr, -EOPNOTSUPP);
		if (ret < 0)
			return ret;
		session_receive(&c->session, hdr);
		pump(ns, c);
		return 0;
	}
	ret = id_map_reserve(&c->asked);
	a = ret < 0 ? NULL : malloc(sizeof(*a));
	if (!a)
		return -ENOMEM;
	*a = (struct asked){ .link.id = ++ns->last_handle, .id = hdr->id, .type = hdr->type };
	id_map_add(&c->asked, &a->link);
	session_receive(&c->session, hdr);
	ns->conf.ops.on_request(ns->conf.arg, rid, a->link.id, hdr->type, body);
	return 0;
}

static void handle_response(struct net_server *ns, struct client *c, const struct msg_header *hdr,
			    const void *body)
{
	struct session_out *o = session_answered(&c->session, hdr->id);
	int err = hdr->error;

	if (!o)
		return;
	stats_inc(&ns->counts->net_responses);
	if (!err && hdr->type != msg_reply_type(o->hdr.type)) {
		log_err("client %016" PRIx64 ": answers %s with %s", c->rid, msg_name(o->hdr.type),
			msg_name(hdr->type));
		err = -EPROTO;
	}
	ns->conf.ops.on_response(ns->conf.arg, c->rid, o->tag, err, hdr->type, err ? NULL : body);
	session_out_free(o);
}

/* -EPROTO and others: the socket must be made again. */
static int handle_message(struct net_server *ns, struct client *c, const struct msg_header *hdr,
			  const union msg_body *body, bool is_known)
{
	switch (session_frame(&c->session, hdr)) {
	case SESSION_NEW:
		break;
	case SESSION_DUPLICATE:
		stats_inc(&ns->counts->net_duplicates);
		return 0;
	case SESSION_LOST:
		stats_inc(&ns->counts->net_lost);
		return -EPROTO;
	case SESSION_LIE:
		stats_inc(&ns->counts->net_malformed);
		return -EPROTO;
	}
	c->last_received_ns = clock_mono_ns();
	if (hdr->term != ns->conf.term)
		stats_inc(&ns->refuser.counts->refused_term);
	if (hdr->rid != c->rid || hdr->term != ns->conf.term || !c->is_open)
		return -EPROTO;
	if (is_known && hdr->type == MSG_ping) {
		send_ping(ns, c, MSG_pong, body->ping.cookie);
		return 0;
	}
	if (is_known && hdr->type == MSG_pong && !(hdr->flags & MSG_FLAG_RESPONSE))
		return 0;
	if (hdr->seq == 0)
		return -EPROTO;
	c->unacked_nr++;
	if (hdr->seq <= c->session.recv_seq && !PLANTED(session_hears_twice)) {
		stats_inc(&ns->counts->net_duplicates);
		return 0;
	}
	if (!(hdr->flags & MSG_FLAG_RESPONSE)) {
		if (c->asked.nr + c->session.responses.nr >= NET_SERVER_QUEUE_MAX) {
			stats_inc(&ns->counts->net_queue_full);
			return -ENOBUFS;
		}
		return handle_request(ns, c, hdr, body, is_known);
	}
	if (!is_known)
		return -EPROTO;
	session_receive(&c->session, hdr);
	handle_response(ns, c, hdr, body);
	return 0;
}

static void handle_frame(struct net_server *ns, struct zmqu_frame *f)
{
	struct client *c = find_ident(ns, &f->from);
	struct msg_header hdr = { 0 };
	int ret;

	ret = msg_get(zmq_msg_data(&f->msg), zmq_msg_size(&f->msg), &hdr, ns->body);
	if (ret == 0)
		testhook_message(TESTHOOK_RECV, hdr.type);
	if (ret == -EPROTONOSUPPORT) {
		net_refuse(&ns->refuser, &ns->refuser.counts->refused_version, f->addr,
			    "a mount there speaks another major version of the protocol than ours (%u): upgrade "
			    "the older of the two hosts", MSG_MAJOR);
		refuse(ns, &f->from, GREETING_INVALID);
		return;
	}
	if (ret < 0 && ret != -EOPNOTSUPP)
		stats_inc(&ns->counts->net_malformed);
	if (ret == 0 && hdr.type == MSG_greeting && !hdr.error) {
		/* A second one on a socket is a duplicate of the first. */
		if (!c)
			handle_greeting(ns, &ns->body->greeting, f);
		return;
	}
	if (!c) {
		/* Somebody who believes in a socket that we have forgotten; noise is not answered.
		 */
		if (ret == 0 || ret == -EOPNOTSUPP)
			refuse(ns, &f->from, GREETING_BUSY);
		return;
	}
	if (ret == 0 || ret == -EOPNOTSUPP)
		ret = handle_message(ns, c, &hdr, ns->body, ret == 0);
	if (ret == -ENOBUFS)
		reset(ns, c, "it has asked more than it takes answers for");
	else if (ret == -ENOMEM)
		reset(ns, c, "there is no memory for its request");
	else if (ret < 0)
		reset(ns, c, "a message of it was lost, damaged or out of order");
}

static void read_frames(struct net_server *ns)
{
	for (int i = 0; i < FRAMES_BATCH; i++) {
		struct zmqu_frame f;
		int ret = zmqu_recv(ns->sock, 1, &f);

		if (ret == -EAGAIN)
			return;
		if (ret == -EPROTO) {
			stats_inc(&ns->counts->net_malformed);
			continue;
		}
		if (ret < 0) {
			log_err("sessions: reading failed: %s", strerror(-ret));
			be_back_at(ns, clock_mono_ns() + PROBE_NS);
			return;
		}
		handle_frame(ns, &f);
		zmqu_frame_close(&f);
	}
}

/* What time asks for on one socket. */
static void check_client(struct net_server *ns, struct client *c, uint64_t now, bool is_probe)
{
	uint64_t ping_ns = c->last_sent_ns + keepalive_ns(ns) / 4;
	uint64_t dead_ns = c->last_received_ns + keepalive_ns(ns);

	/* Who has left may come back for our answer; not for ever. */
	if (c->is_open && c->is_leaving && !c->is_connected &&
	    now >= c->since_ns + keepalive_ns(ns)) {
		kill_client(ns, c);
		ns->conf.ops.on_left(ns->conf.arg, c->rid);
	}
	if (!c->is_connected)
		return;
	if (now >= dead_ns) {
		log_notice("client %016" PRIx64 ": silent for %u ms, its connection is given up",
			   c->rid, ns->conf.keepalive_ms);
		disconnect(ns, c);
		return;
	}
	c->is_blocked = false;
	pump(ns, c);
	if (c->is_open && !c->is_blocked &&
	    (is_probe || now >= ping_ns || c->unacked_nr >= ACK_FRAMES))
		send_ping(ns, c, MSG_ping, now);
	ping_ns = c->last_sent_ns + keepalive_ns(ns) / 4;
	if (c->is_blocked)
		be_back_at(ns, now + BLOCKED_NS);
	else if (c->is_open)
		be_back_at(ns, ping_ns);
	be_back_at(ns, dead_ns);
}

/* Whether those who knock may come in. */
static void read_zap(struct net_server *ns)
{
	struct zmqu_zap_request rq;
	char text[KEYS_TEXT_BYTES];

	for (int i = 0; ns->zap && i < FRAMES_BATCH && zmqu_zap_next(ns->zap, &rq) == 0; i++) {
		bool is_allowed = rq.has_key && keys_allows(ns->conf.keys, rq.key);

		keys_to_text(rq.key, text);
		if (!is_allowed)
			net_refuse(&ns->refuser, &ns->refuser.counts->refused_key, rq.addr,
				    "its node's key %s is not in %s: if it may take part add its line (scoutfsctl "
				    "keygen -p there) and reload", text, keys_allow_path(ns->conf.keys));
		zmqu_zap_answer(ns->zap, &rq, is_allowed);
	}
}

static void read_monitor(struct net_server *ns, uint64_t now)
{
	int event, value;

	while (zmqu_monitor_next(ns->mon, &event, &value) == 0) {
		if (event == ZMQ_EVENT_DISCONNECTED && !ns->probe_ns)
			ns->probe_ns = now;
		net_refuse_event(&ns->refuser, ns->conf.keys, event, value);
	}
}

static bool has_more(const struct net_server *ns)
{
	return (zmqu_events(ns->sock) | zmqu_events(ns->mon)) & ZMQ_POLLIN ||
	       (ns->zap && zmqu_events(ns->zap) & ZMQ_POLLIN);
}

void net_server_dispatch(struct net_server *ns, uint64_t now_ns)
{
	bool is_probe;

	free_dead(ns);
	ns->deadline_ns = now_ns + TICK_MAX_NS;
	read_zap(ns);
	read_frames(ns);
	read_monitor(ns, now_ns);
	/* Once at the event and once when ZeroMQ must have got to it. */
	is_probe = ns->probe_ns && (now_ns == ns->probe_ns || now_ns >= ns->probe_ns + PROBE_NS);
	if (ns->probe_ns && now_ns >= ns->probe_ns + PROBE_NS)
		ns->probe_ns = 0;
	else if (ns->probe_ns)
		be_back_at(ns, ns->probe_ns + PROBE_NS);
	/* Clients are added in front, so the walk meets each that it began with. */
	for (struct client *c = ns->clients; c; c = c->next) {
		if (!c->is_dead)
			check_client(ns, c, now_ns, is_probe);
		if (!c->is_dead)
			tell(ns, c);
	}
	/* Nothing may be left over from before the last send: the descriptor tells of changes only.
	 */
	if (has_more(ns))
		ns->deadline_ns = 0;
	ns->was_used = ns->has_sent = false;
}

uint64_t net_server_deadline(const struct net_server *ns)
{
	return ns->was_used || (ns->has_sent && has_more(ns)) ? 0 : ns->deadline_ns;
}

int net_server_fd(const struct net_server *ns)
{
	return ns->epoll_fd;
}

/* ZeroMQ closes sockets behind our back: the listener of a server just closed is in the way a
 * moment. */
static int bind_one(struct net_server *ns, const char *endpoint)
{
	uint64_t end_ns = clock_mono_ns() + IN_USE_NS;
	const struct timespec pause = { 0, 10 * NSEC_PER_MSEC };

	while (zmq_bind(ns->sock, endpoint) < 0) {
		if (errno != EADDRINUSE || clock_mono_ns() >= end_ns)
			return -errno;
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int bind_all(struct net_server *ns)
{
	for (size_t i = 0; i < ns->conf.endpoints_nr; i++) {
		int ret = bind_one(ns, ns->conf.endpoints[i]);

		if (ret == 0)
			continue;
		log_err("sessions: cannot listen on %s: %s; %s", ns->conf.endpoints[i],
			zmq_strerror(-ret),
			ret == -EADDRINUSE
				? "find out who does (ss -ltnp)"
				: "is it this host's quorum slot, and is the address configured?");
		return ret;
	}
	return 0;
}

static int watch(struct net_server *ns, void *sock)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int fd = zmqu_fd(sock);

	if (fd < 0)
		return fd;
	return epoll_ctl(ns->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* Only those who prove an allowed key come in. */
static int secure(struct net_server *ns, void *zmq_ctx)
{
	int ret;

	if (!ns->conf.keys)
		return 0;
	ret = zmqu_zap_open(zmq_ctx, &ns->zap);
	ret = ret ?: watch(ns, ns->zap);
	ret = ret ?: zmqu_secure_listener(ns->sock, keys_secret(ns->conf.keys));
	if (ret < 0)
		log_err("sessions: keys cannot be used: %s; is libzmq5 the distribution's?",
			zmq_strerror(-ret));
	return ret;
}

int net_server_open(struct net_server **out, void *zmq_ctx, const struct net_server_conf *conf)
{
	struct net_server *ns = calloc(1, sizeof(*ns));
	int ret;

	if (!ns)
		return -ENOMEM;
	assert(conf->term && conf->keepalive_ms);
	ns->conf = *conf;
	ns->refuser.counts = conf->refusals ?: &ns->refusals;
	ns->counts = conf->counts ?: &ns->own_counts;
	ns->was_used = true;
	ns->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ret = ns->epoll_fd < 0 ? -errno : 0;
	ns->buf = malloc(MSG_FRAME_MAX);
	ns->body = malloc(sizeof(*ns->body));
	if (ret == 0 && (!ns->buf || !ns->body))
		ret = -ENOMEM;
	ret = ret ?: zmqu_router(zmq_ctx, conf->keepalive_ms, &ns->sock);
	ret = ret ?: zmqu_monitor(zmq_ctx, ns->sock, NET_REFUSE_EVENTS, &ns->mon);
	ret = ret ?: secure(ns, zmq_ctx);
	ret = ret ?: bind_all(ns);
	ret = ret ?: watch(ns, ns->sock);
	ret = ret ?: watch(ns, ns->mon);
	if (ret < 0) {
		net_server_close(ns);
		return ret;
	}
	*out = ns;
	return 0;
}

void net_server_close(struct net_server *ns)
{
	if (!ns)
		return;
	for (struct client *c = ns->clients; c; c = c->next) {
		if (!c->is_dead)
			kill_client(ns, c);
	}
	free_dead(ns);
	id_map_fini(&ns->rids);
	id_map_fini(&ns->idents);
	if (ns->sock)
		zmq_socket_monitor(ns->sock, NULL, 0);
	zmqu_close(ns->mon);
	zmqu_close(ns->sock);
	zmqu_zap_close(ns->zap);
	if (ns->epoll_fd >= 0)
		close(ns->epoll_fd);
	free(ns->buf);
	free(ns->body);
	free(ns);
}

void net_server_check_keys(struct net_server *ns)
{
	for (struct client *c = ns->clients; c; c = c->next) {
		if (!ns->conf.keys || !c->is_connected || keys_allows(ns->conf.keys, c->key))
			continue;
		stats_inc(&ns->refuser.counts->refused_key);
		log_warning("client %016" PRIx64 ": its node's key is not in %s any more: its connection is cut",
			    c->rid, keys_allow_path(ns->conf.keys));
		refuse(ns, &c->ident, GREETING_BUSY);
		disconnect(ns, c);
	}
}

int net_server_greeted(struct net_server *ns, uint64_t rid, enum greeting_status status)
{
	struct client *c = find_rid(ns, rid);

	if (!c || !c->is_asked)
		return -ENOENT;
	c->is_asked = false;
	if (status != GREETING_OK) {
		if (c->is_connected)
			refuse(ns, &c->ident, status);
		kill_client(ns, c);
		return 0;
	}
	c->is_open = true;
	ns->was_used = true;
	if (c->is_connected)
		welcome(ns, c);
	return 0;
}

int net_server_respond(struct net_server *ns, uint64_t rid, uint64_t handle, int err, unsigned type,
		       const void *msg)
{
	struct client *c = find_rid(ns, rid);
	struct id_link *l = c ? id_map_find(&c->asked, handle) : NULL;
	struct session_out *o;
	struct asked *a;
	int ret;

	if (!l)
		return -ENOENT;
	a = container_of(l, struct asked, link);
	if (!err && type != msg_reply_type(a->type))
		ret = -EINVAL;
	else
		ret = session_out_alloc(&o, msg_reply_type(a->type), err, msg);
	if (ret == -ENOMEM)
		return ret;
	if (ret == -EINVAL && session_out_alloc(&o, msg_reply_type(a->type), -EIO, NULL) < 0)
		return -ENOMEM;
	session_add_response(&c->session, o, a->id);
	if (a->type == MSG_farewell && !o->hdr.error)
		c->is_leaving = true;
	id_map_remove(&c->asked, handle);
	free(a);
	pump(ns, c);
	return ret;
}

int net_server_request(struct net_server *ns, uint64_t rid, unsigned type, const void *msg,
		       uint64_t tag)
{
	struct client *c = find_rid(ns, rid);
	struct session_out *o;
	int ret;

	if (!c)
		return -ENOENT;
	if (!msg_is_from(type, MSG_FROM_SERVER) || !msg_reply_type(type))
		return -EINVAL;
	if (c->session.requests.nr >= NET_SERVER_QUEUE_MAX) {
		stats_inc(&ns->counts->net_queue_full);
		return -EBUSY;
	}
	ret = session_out_alloc(&o, type, 0, msg);
	if (ret < 0)
		return ret;
	o->tag = tag;
	ret = session_add_request(&c->session, o);
	if (ret < 0) {
		session_out_free(o);
		return ret;
	}
	pump(ns, c);
	return 0;
}

int net_server_drop(struct net_server *ns, uint64_t rid)
{
	struct client *c = find_rid(ns, rid);

	if (!c)
		return -ENOENT;
	if (c->is_connected)
		refuse(ns, &c->ident, GREETING_BUSY);
	kill_client(ns, c);
	return 0;
}

void net_server_get_stats(const struct net_server *ns, struct net_server_stats *st)
{
	*st = (struct net_server_stats){ 0 };
	for (const struct client *c = ns->clients; c; c = c->next) {
		st->sessions += c->is_open;
		st->connected += c->is_open && c->is_connected;
	}
}
