/*
 * The socket of a session: found, connected, greeted, thrown away.
 *
 * Whoever is told to lead is connected to with a fresh socket and greeted.  A socket that is cut, refused, silent
 * for longer than the keepalive time, or on which a frame is missing or wrong is thrown away and the next one is
 * made, after a pause that depends on why; who is not let in is told why, in the log and for status.
 *
 * Everything here is called with `home` held.  What it owns of struct net_client: `state`, the two sockets, and the
 * times of the next attempt.
 */
#include "net_client_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "clock.h"
#include "keys.h"
#include "log.h"
#include "zmqu.h"

#define CONNECT_NS	(1 * NSEC_PER_SEC)	/* for a connection to be there */
#define RETRY_SOON_NS	(20 * NSEC_PER_MSEC)	/* for SOON_NS after a server that had greeted us was lost */
#define SOON_NS		(2 * NSEC_PER_SEC)
#define REFUSED_NS	(1 * NSEC_PER_SEC)	/* after an answer that will not change soon */
#define CUTS_MAX	3u	/* connections cut in the handshake before that is taken for a refusal */

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

void net_client_set_why(struct net_client *nc, int level, const char *fmt, ...)
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

int net_client_watch(struct net_client *nc, void *sock, int op, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	return sock && epoll_ctl(nc->epoll_fd, op, zmqu_fd(sock), &ev) < 0 ? -errno : 0;
}

void net_client_drop(struct net_client *nc, uint64_t delay_ns)
{
	bool was_open = nc->state == LINK_OPEN;

	if (nc->sock)
		zmq_socket_monitor(nc->sock, NULL, 0);
	/* ZeroMQ closes their descriptors some time later.  One that is not watched yet cannot be forgotten. */
	(void)net_client_watch(nc, nc->mon, EPOLL_CTL_DEL, 0);
	(void)net_client_watch(nc, nc->sock, EPOLL_CTL_DEL, 0);
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

static void become_fenced(struct net_client *nc)
{
	log_err("rid %016" PRIx64
		": the server at %s says that this mount was fenced; it can do nothing any "
		"more: unmount it",
		nc->conf.rid, nc->stats.endpoint);
	pthread_mutex_lock(&nc->mutex);
	nc->fenced = true;
	pthread_mutex_unlock(&nc->mutex);
	net_client_drop(nc, NET_RETRY_NS);
	net_client_end_calls(nc, -ENOLINK);
	if (nc->conf.ops.on_fenced)
		nc->conf.ops.on_fenced(nc->conf.arg);
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
	nc->deadline_ns = clock_mono_ns() + net_client_keepalive_ns(nc);
	nc->next_look_ns = clock_mono_ns() + NET_LOOK_NS;
	net_client_send(nc, &hdr, &g);
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
		net_client_set_why(nc, LOG_ERR, "%.250s", err);
		return -ENOKEY;
	}
	if (keys_at_address(k, addr, port, server_key) < 0) {
		net_client_set_why(nc, LOG_ERR,
				"no line of %s has the address of the leader at %s: add its node's line (scoutfsctl "
			"keygen -p -a ADDRESS there)",
			keys_allow_path(k), endpoint);
		return -ENOKEY;
	}
	return zmqu_secure_dealer(nc->sock, server_key, keys_public(k), keys_secret(k));
}

/* A hand-over takes a fraction of a second, and programs wait for it. */
uint64_t net_client_retry_ns(const struct net_client *nc)
{
	return nc->lost_ns && clock_mono_ns() < nc->lost_ns + SOON_NS ? RETRY_SOON_NS : NET_RETRY_NS;
}

void net_client_look_for_another(struct net_client *nc, uint64_t now)
{
	char endpoint[NET_ENDPOINT_BYTES] = "";

	nc->next_look_ns = now + (nc->state == LINK_CONNECTING ? NET_RETRY_NS : NET_LOOK_NS);
	if (nc->conf.ops.resolve(nc->conf.arg, endpoint, sizeof(endpoint)) < 0 ||
	    strcmp(endpoint, nc->stats.endpoint) == 0)
		return;
	if (nc->state == LINK_OPEN)
		log_notice("server at %s does not answer, and another leads at %s", nc->stats.endpoint, endpoint);
	net_client_drop(nc, 0);
}

void net_client_connect(struct net_client *nc)
{
	char endpoint[NET_ENDPOINT_BYTES] = "";
	uint64_t now;
	int ret;

	if (net_client_farewell_done(nc)) {
		nc->next_try_ns = UINT64_MAX;
		return;
	}
	ret = nc->conf.ops.resolve(nc->conf.arg, endpoint, sizeof(endpoint));
	now = clock_mono_ns();
	nc->next_try_ns = now + net_client_retry_ns(nc);
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
		ret = net_client_watch(nc, nc->sock, EPOLL_CTL_ADD, EPOLLIN);
	if (ret == 0)
		ret = net_client_watch(nc, nc->mon, EPOLL_CTL_ADD, EPOLLIN);
	if (ret == 0 && zmq_connect(nc->sock, endpoint) < 0)
		ret = -errno;
	if (ret == -ENOKEY) {
		net_client_drop(nc, REFUSED_NS);
		return;
	}
	if (ret < 0) {
		log_err("server at %s: no socket for it: %s; trying again", endpoint,
			strerror(-ret));
		net_client_drop(nc, REFUSED_NS);
		return;
	}
	nc->epoch = clock_boot_ns() > nc->epoch ? clock_boot_ns() : nc->epoch + 1;
	nc->state = LINK_CONNECTING;
	nc->deadline_ns = now + CONNECT_NS;
	nc->next_look_ns = now + NET_RETRY_NS;
}

void net_client_greeted(struct net_client *nc, const struct msg_greeting_reply *g)
{
	bool is_new = g->server_term != nc->term;

	switch (g->status) {
	case GREETING_OK:
		break;
	case GREETING_FENCED:
		become_fenced(nc);
		return;
	case GREETING_INVALID:
		net_client_set_why(nc, LOG_ERR, "server at %s refuses this mount: it serves fsid %016" PRIx64
			", format version %" PRIu64 "; ours is fsid %016" PRIx64
			", version %" PRIu64 "; are the devices and the quorum "
			"addresses of one volume?",
			nc->stats.endpoint, g->fsid, g->fmt_vers, nc->conf.fsid, nc->conf.fmt_vers);
		nc->was_greeted = false;
		net_client_drop(nc, REFUSED_NS);
		return;
	case GREETING_NOT_LEADER:
		if (g->server_term < nc->term)
			net_client_set_why(nc, LOG_NOTICE,
					"server at %s: it serves term %" PRIu64 ", and this mount was served in term %"
				PRIu64 " since: it has been replaced; looking for the leader",
				nc->stats.endpoint, g->server_term, nc->term);
		nc->was_greeted = false;
		net_client_drop(nc, net_client_retry_ns(nc));
		return;
	default:
		nc->was_greeted = false;
		net_client_drop(nc, net_client_retry_ns(nc));
		return;
	}
	if (nc->state != LINK_GREETING || g->fsid != nc->conf.fsid || g->server_term < nc->term ||
	    g->server_term == 0) {
		net_client_drop(nc, net_client_retry_ns(nc));
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
		net_client_set_why(nc, LOG_ERR,
				"the leader at %s does not allow this node's key %s: add its line (scoutfsctl keygen -p "
			"here) to the list there and reload", nc->stats.endpoint, text);
	} else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL &&
		   value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH) {
		if (nc->conf.keys)
			net_client_set_why(nc, LOG_ERR,
					"the leader at %s talks without keys, and this node only with them: does it have "
				"insecure = yes, or no key_file?", nc->stats.endpoint);
		else
			net_client_set_why(nc, LOG_ERR,
					"the leader at %s talks only to nodes with keys, and this one has none: make one "
				"(scoutfsctl keygen), and add its line to the list there", nc->stats.endpoint);
	} else if (++nc->cuts < CUTS_MAX) {
		return NET_RETRY_NS;
	} else if (nc->conf.keys) {
		net_client_set_why(nc, LOG_ERR,
				"the leader at %s ends each connection while keys are exchanged: either it talks without "
			"keys, and this node only with them, or its key is not the one that %s has for its address",
			nc->stats.endpoint, keys_allow_path(nc->conf.keys));
	} else {
		net_client_set_why(nc, LOG_ERR,
				"the leader at %s ends each connection at its start: perhaps it talks only to nodes with "
			"keys, and this one has none (scoutfsctl keygen)", nc->stats.endpoint);
		return NET_RETRY_NS;
	}
	return REFUSED_NS;
}

void net_client_read_monitor(struct net_client *nc)
{
	int event, value;

	while (nc->mon && zmqu_monitor_next(nc->mon, &event, &value) == 0) {
		if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
			nc->cuts = 0;
			if (nc->state == LINK_CONNECTING)
				start_greeting(nc);
		} else if (event & (ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
				    ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)) {
			net_client_drop(nc, handshake_failed(nc, event, value));
			return;
		} else if (event != ZMQ_EVENT_CLOSED || nc->state == LINK_CONNECTING) {
			/* What had arrived before the cut counts. */
			net_client_read(nc);
			if (nc->sock)
				net_client_drop(nc, net_client_retry_ns(nc));
			return;
		}
	}
}
