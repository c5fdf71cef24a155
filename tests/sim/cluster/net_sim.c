/*
 * lib/run/zmqu.h and clock.h for processes of the simulator: sockets are numbers in messages of the frame's
 * streams, so the sessions of the product run in virtual time and every frame of theirs is a fact of it.
 *
 * Kept of ZeroMQ's behaviour: a socket that was cut says nothing to its owner but an event of the
 * monitor; a ROUTER forgets a peer with its socket and refuses to send to it; what arrived before a cut
 * can still be read.  Above that, frames are lost and doubled now and then (the frame numbers of the
 * protocol are for that), and a ROUTER's queue is full now and then.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "cluster.h"
#include "log.h"
#include "zmqu.h"

struct node *the_node;

enum packet_kind {
	PACKET_CONNECT,		/* dealer -> router */
	PACKET_ACCEPT,		/* router -> dealer */
	PACKET_CLOSE,		/* either way: the socket is no more */
	PACKET_FRAME,
};

struct packet {
	uint64_t sock;		/* the dealer's number */
	uint8_t kind;
	uint8_t to_router;
	uint8_t pad[6];
};

struct frame {
	struct frame *next;
	struct zmqu_ident from;
	size_t len;
	uint8_t bytes[];
};

struct peer {
	struct peer *next;
	uint64_t sock;
	unsigned proc;
};

#define EVENTS_MAX	8u

struct zsock {
	bool is_monitor;		/* then only `of` counts */
	struct zsock *of;
	struct zsock *next;		/* of the node */
	struct node *node;
	bool is_router, is_bound;
	uint64_t sock;			/* dealer */
	unsigned proc;			/* dealer: of the router */
	bool is_open, is_gone;		/* dealer */
	struct peer *peers;		/* router */
	struct frame *first, **last;
	int events[EVENTS_MAX];
	unsigned events_nr;
	int fd;				/* for epoll; nobody waits for it */
};

/* --- what a socket is told --- */

static void add_event(struct zsock *z, int event)
{
	/* More of the same say nothing new. */
	if (z->events_nr < EVENTS_MAX)
		z->events[z->events_nr++] = event;
}

static void add_frame(struct zsock *z, uint64_t from, const void *buf, size_t len)
{
	struct frame *f = malloc(sizeof(*f) + len);

	SIM_CHECK(z->node->sim, f, "no memory");
	f->next = NULL;
	f->from.len = 9;
	f->from.bytes[0] = 'c';
	memcpy(f->from.bytes + 1, &from, sizeof(from));
	f->len = len;
	memcpy(f->bytes, buf, len);
	*z->last = f;
	z->last = &f->next;
}

static void send_packet(struct node *n, unsigned proc, enum packet_kind kind, bool to_router,
			uint64_t sock, const void *buf, size_t len)
{
	static struct {
		struct packet p;
		uint8_t body[MSG_FRAME_MAX];
	} packet;

	if (!node_acts(n))
		return;
	packet.p = (struct packet){ .sock = sock, .kind = (uint8_t)kind, .to_router = to_router };
	if (len)
		memcpy(packet.body, buf, len);
	sim_net_stream(n->sim, n->proc, proc, &packet, sizeof(packet.p) + len);
}

static struct zsock *find_router(struct node *n)
{
	struct zsock *z = n->socks;

	while (z && !(z->is_router && z->is_bound))
		z = z->next;
	return z;
}

static struct zsock *find_dealer(struct node *n, uint64_t sock)
{
	struct zsock *z = n->socks;

	while (z && (z->is_router || z->sock != sock))
		z = z->next;
	return z;
}

static struct peer **find_peer(struct zsock *z, uint64_t sock)
{
	struct peer **at = &z->peers;

	while (*at && (*at)->sock != sock)
		at = &(*at)->next;
	return at;
}

static void forget_peer(struct zsock *z, struct peer **at)
{
	struct peer *p = *at;

	*at = p->next;
	free(p);
	add_event(z, ZMQ_EVENT_DISCONNECTED);
}

static void router_hears(struct node *n, unsigned from, const struct packet *p, const void *buf,
			 size_t len)
{
	struct zsock *z = find_router(n);
	struct peer **at = z ? find_peer(z, p->sock) : NULL;

	if (p->kind == PACKET_CONNECT && z) {
		struct peer *peer = calloc(1, sizeof(*peer));

		SIM_CHECK(n->sim, peer, "no memory");
		peer->sock = p->sock;
		peer->proc = from;
		peer->next = z->peers;
		z->peers = peer;
		send_packet(n, from, PACKET_ACCEPT, false, p->sock, NULL, 0);
	} else if (p->kind == PACKET_CLOSE) {
		if (at && *at)
			forget_peer(z, at);
	} else if (!at || !*at) {
		send_packet(n, from, PACKET_CLOSE, false, p->sock, NULL, 0);
	} else if (p->kind == PACKET_FRAME) {
		add_frame(z, p->sock, buf, len);
	}
}

static void dealer_hears(struct node *n, const struct packet *p, const void *buf, size_t len)
{
	struct zsock *z = find_dealer(n, p->sock);

	if (!z || z->is_gone)
		return;
	if (p->kind == PACKET_ACCEPT) {
		z->is_open = true;
		add_event(z, ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
	} else if (p->kind == PACKET_CLOSE) {
		add_event(z, z->is_open ? ZMQ_EVENT_DISCONNECTED : ZMQ_EVENT_CLOSED);
		z->is_gone = true;
	} else if (p->kind == PACKET_FRAME) {
		add_frame(z, 0, buf, len);
	}
}

void net_sim_recv(struct node *n, unsigned from, const void *buf, size_t len)
{
	struct packet p;

	memcpy(&p, buf, sizeof(p));
	buf = (const uint8_t *)buf + sizeof(p);
	len -= sizeof(p);
	if (p.to_router)
		router_hears(n, from, &p, buf, len);
	else
		dealer_hears(n, &p, buf, len);
}

void net_sim_broken(struct node *n, unsigned peer)
{
	for (struct zsock *z = n->socks; z; z = z->next) {
		struct peer **at = &z->peers;

		if (!z->is_router) {
			if (z->proc == peer && !z->is_gone)
				add_event(z, z->is_open ? ZMQ_EVENT_DISCONNECTED : ZMQ_EVENT_CLOSED);
			z->is_gone = z->is_gone || z->proc == peer;
			continue;
		}
		while (*at) {
			if ((*at)->proc == peer)
				forget_peer(z, at);
			else
				at = &(*at)->next;
		}
	}
}

bool net_sim_has_input(const struct node *n)
{
	for (const struct zsock *z = n->socks; z; z = z->next) {
		if (z->first || z->events_nr)
			return true;
	}
	return false;
}

/* --- zmqu.h --- */

static int open_socket(bool is_router, void **out)
{
	struct zsock *z = calloc(1, sizeof(*z));

	if (!z)
		return -ENOMEM;
	z->node = the_node;
	z->is_router = is_router;
	z->last = &z->first;
	z->sock = ++the_node->cl->last_sock;
	z->fd = -1;
	z->next = the_node->socks;
	the_node->socks = z;
	*out = z;
	return 0;
}

int zmqu_router(void *ctx, uint32_t keepalive_ms, void **out)
{
	(void)ctx, (void)keepalive_ms;
	return open_socket(true, out);
}

int zmqu_dealer(void *ctx, uint32_t keepalive_ms, void **out)
{
	(void)ctx, (void)keepalive_ms;
	return open_socket(false, out);
}

void zmqu_close(void *sock)
{
	struct zsock *z = sock, **at;
	struct frame *f;

	if (!z)
		return;
	if (z->fd >= 0)
		close(z->fd);
	if (z->is_monitor) {
		free(z);
		return;
	}
	at = &z->node->socks;
	while (*at != z)
		at = &(*at)->next;
	*at = z->next;
	if (!z->is_router && !z->is_gone)
		send_packet(z->node, z->proc, PACKET_CLOSE, true, z->sock, NULL, 0);
	while (z->peers) {
		send_packet(z->node, z->peers->proc, PACKET_CLOSE, false, z->peers->sock, NULL, 0);
		forget_peer(z, &z->peers);
	}
	while ((f = z->first)) {
		z->first = f->next;
		free(f);
	}
	free(z);
}

void net_sim_bury(struct node *n)
{
	SIM_CHECK(n->sim, !n->socks, "a dead process has left a socket behind");
}

int zmqu_send(void *sock, const struct zmqu_ident *to, const void *buf, size_t len)
{
	struct zsock *z = sock;
	struct cluster *cl = z->node->cl;
	struct peer **at;
	uint64_t nr;

	if (!to) {
		if (z->is_gone)
			return -EAGAIN;		/* as a DEALER without a connection */
		send_packet(z->node, z->proc, PACKET_FRAME, true, z->sock, buf, len);
		return 0;
	}
	memcpy(&nr, to->bytes + 1, sizeof(nr));
	at = find_peer(z, nr);
	if (!*at)
		return -EHOSTUNREACH;
	if (sim_is_faulty(z->node->sim) && sim_chance(z->node->sim, cl->send_full_pm))
		return -EAGAIN;
	send_packet(z->node, (*at)->proc, PACKET_FRAME, false, nr, buf, len);
	return 0;
}

static void trace_msg(struct node *n, const struct msg_header *hdr, const void *body)
{
	const struct msg_lock *lock = body;
	char what[64] = "";

	/* The three begin alike. */
	static_assert(offsetof(struct msg_lock_reply, new_mode) == offsetof(struct msg_lock, new_mode) &&
		      offsetof(struct msg_lock_invalidate, new_mode) == offsetof(struct msg_lock, new_mode),
		      "messages about one lock");
	if (!hdr->error && (hdr->type == MSG_lock || hdr->type == MSG_lock_reply ||
			    hdr->type == MSG_lock_invalidate || hdr->type == MSG_lock_invalidate_reply))
		snprintf(what, sizeof(what), " lock %u: %u -> %u", cluster_lock(&lock->key),
			 lock->old_mode, lock->new_mode);
	sim_trace(n->sim, n->proc, "says %s seq %llu id %llu error %d%s", msg_name(hdr->type),
		  (unsigned long long)hdr->seq, (unsigned long long)hdr->id, hdr->error, what);
}

int zmqu_send_msg(void *sock, const struct zmqu_ident *to, const struct msg_header *hdr,
		  const void *body, uint8_t *buf, size_t size)
{
	struct node *n = ((struct zsock *)sock)->node;
	int len = msg_put(hdr, body, buf, size);
	int ret;

	if (len < 0)
		return len;
	if (sim_is_traced(n->sim) && !n->is_zombie)
		trace_msg(n, hdr, body);
	/* A frame without a number is not of a session. */
	if (hdr->frame_nr && sim_is_faulty(n->sim) && sim_chance(n->sim, n->cl->frame_loss_pm))
		return 0;
	ret = zmqu_send(sock, to, buf, (size_t)len);
	if (ret == 0 && hdr->frame_nr && sim_is_faulty(n->sim) &&
	    sim_chance(n->sim, n->cl->frame_dup_pm))
		zmqu_send(sock, to, buf, (size_t)len);
	return ret;
}

int zmqu_recv(void *sock, int is_router, struct zmqu_frame *f)
{
	struct zsock *z = sock;
	struct frame *in = z->first;

	(void)is_router;
	if (!in)
		return -EAGAIN;
	f->from = in->from;
	f->addr = 0x7f000001;
	zmq_msg_init_size(&f->msg, in->len);
	memcpy(zmq_msg_data(&f->msg), in->bytes, in->len);
	z->first = in->next;
	if (!z->first)
		z->last = &z->first;
	free(in);
	return 0;
}

void zmqu_frame_close(struct zmqu_frame *f)
{
	zmq_msg_close(&f->msg);
}

int zmqu_monitor(void *ctx, void *sock, int events, void **out)
{
	struct zsock *z = calloc(1, sizeof(*z));

	(void)ctx, (void)events;
	if (!z)
		return -ENOMEM;
	z->is_monitor = true;
	z->of = sock;
	z->fd = -1;
	*out = z;
	return 0;
}

int zmqu_monitor_next(void *mon, int *event, int *value)
{
	struct zsock *z = ((struct zsock *)mon)->of;

	if (!z->events_nr)
		return -EAGAIN;
	*value = 0;
	*event = z->events[0];
	memmove(z->events, z->events + 1, --z->events_nr * sizeof(z->events[0]));
	return 0;
}

int zmqu_fd(void *sock)
{
	struct zsock *z = sock;

	if (z->fd < 0)
		z->fd = eventfd(0, EFD_CLOEXEC);
	return z->fd < 0 ? -errno : z->fd;
}

int zmqu_events(void *sock)
{
	const struct zsock *z = sock;

	if (z->is_monitor)
		return z->of->events_nr ? ZMQ_POLLIN : 0;
	return ZMQ_POLLOUT | (z->first ? ZMQ_POLLIN : 0);
}

/* --- the calls that lib/run makes to ZeroMQ itself --- */

void *zmq_ctx_new(void)
{
	return the_node;
}

int zmq_ctx_term(void *ctx)
{
	(void)ctx;
	return 0;
}

int zmq_socket_monitor(void *sock, const char *endpoint, int events)
{
	(void)sock, (void)endpoint, (void)events;
	return 0;
}

/* "tcp://NUMBER of the process". */
int zmq_connect(void *sock, const char *endpoint)
{
	struct zsock *z = sock;

	z->proc = (unsigned)strtoul(endpoint + strlen("tcp://"), NULL, 10);
	send_packet(z->node, z->proc, PACKET_CONNECT, true, z->sock, NULL, 0);
	return 0;
}

int zmq_bind(void *sock, const char *endpoint)
{
	(void)endpoint;
	((struct zsock *)sock)->is_bound = true;
	return 0;
}

/* --- clocks and the log --- */

uint64_t clock_mono_ns(void)
{
	return sim_clock(the_node->sim, the_node->proc);
}

uint64_t clock_boot_ns(void)
{
	return clock_mono_ns();
}

struct timespec clock_real(void)
{
	uint64_t now = clock_mono_ns();

	return (struct timespec){ (time_t)(now / NSEC_PER_SEC), (long)(now % NSEC_PER_SEC) };
}

/* Who would wait here would wait for ever: time goes on when all have done what they can. */
int clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t end_ns)
{
	(void)cond, (void)mutex, (void)end_ns;
	abort();
}

void log_at(int level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	(void)level;
	if (!the_node || !sim_is_traced(the_node->sim))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sim_trace(the_node->sim, the_node->proc, "%s%s", the_node->is_zombie ? "(dead) " : "", text);
}

void log_flush(void)
{
}
