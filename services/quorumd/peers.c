/*
 * The other members: datagrams between the addresses of the slots.  runtime.md 1.3.
 *
 * Datagrams, because what is late is worth nothing here: a stream would deliver old heartbeats
 * after a stall, and serverd listens for streams on the same address.  One datagram is one whole
 * state; lost ones are repeated, old ones are told by their numbers (quorum_fsm.c).  What does not
 * come from a slot's own address, or is not a state of this volume, is counted and dropped.
 */
#include "quorumd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"

#define DATAGRAM_BYTES	1024u
#define BATCH		64

struct peers {
	struct quorumd *qd;
	int fd;
	uint8_t buf[DATAGRAM_BYTES];
	union msg_body body;
};

static struct sockaddr_in slot_address(const struct quorumd *qd, unsigned slot)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(qd->ports[slot]),
		.sin_addr.s_addr = htonl(qd->addrs[slot]),
	};
}

int peers_open(struct peers **out, struct quorumd *qd)
{
	struct sockaddr_in in = slot_address(qd, qd->slot);
	struct peers *p = calloc(1, sizeof(*p));
	char text[INET_ADDRSTRLEN] = "?";
	int ret;

	if (!p)
		return -ENOMEM;
	p->qd = qd;
	p->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->fd < 0 || bind(p->fd, (struct sockaddr *)&in, sizeof(in)) < 0) {
		ret = -errno;
		inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
		log_err("quorum slot %u: cannot use %s port %u: %s; is it this host's address, and is no other "
			"quorumd using the slot?",
			qd->slot, text, qd->ports[qd->slot], strerror(-ret));
		peers_close(p);
		return ret;
	}
	*out = p;
	return 0;
}

void peers_close(struct peers *p)
{
	if (!p)
		return;
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

int peers_fd(const struct peers *p)
{
	return p->fd;
}

static bool is_from_slot(const struct quorumd *qd, const struct sockaddr_in *from, unsigned slot)
{
	return slot < QUORUM_SLOTS_MAX && (qd->present & 1u << slot) && slot != qd->slot &&
	       ntohl(from->sin_addr.s_addr) == qd->addrs[slot] &&
	       ntohs(from->sin_port) == qd->ports[slot];
}

void peers_dispatch(struct peers *p)
{
	struct quorumd *qd = p->qd;

	for (int i = 0; i < BATCH; i++) {
		struct quorum_in in = { .kind = QUORUM_IN_PEER, .peer = &p->body.quorum_state };
		struct msg_header hdr = { 0 };
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		ssize_t n;

		n = recvfrom(p->fd, p->buf, sizeof(p->buf), 0, (struct sockaddr *)&from, &from_len);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		/* A member that is not there answers with an ICMP error: no news. */
		if (n < 0)
			continue;
		if (msg_get(p->buf, (size_t)n, &hdr, &p->body) < 0 ||
		    hdr.type != MSG_quorum_state || hdr.error ||
		    p->body.quorum_state.fsid != qd->fsid || from_len != sizeof(from) ||
		    !is_from_slot(qd, &from, p->body.quorum_state.slot)) {
			stats_inc(&qd->stats.states_refused);
			continue;
		}
		stats_inc(&qd->stats.states_received);
		quorumd_event(qd, &in);
	}
}

void peers_send(struct peers *p, const struct msg_quorum_state *st)
{
	struct msg_header hdr = { .type = MSG_quorum_state, .term = st->term, .rid = p->qd->rid };
	int len = msg_put(&hdr, st, p->buf, sizeof(p->buf));

	if (len < 0)
		return;
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		struct sockaddr_in to = slot_address(p->qd, i);

		if (i == p->qd->slot || !(p->qd->present & 1u << i))
			continue;
		/* Lossy by design: it is repeated. */
		if (sendto(p->fd, p->buf, (size_t)len, 0, (struct sockaddr *)&to, sizeof(to)) >= 0)
			stats_inc(&p->qd->stats.states_sent);
	}
}
