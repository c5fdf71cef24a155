/*
 * The other members: datagrams between the addresses of the slots.  runtime.md 1.3; design.md D10.
 *
 * Datagrams, because what is late is worth nothing here: a stream would deliver old heartbeats
 * after a stall, and serverd listens for streams on the same address.  One datagram is one whole
 * state; lost ones are repeated, old ones are told by their numbers (quorum_fsm.c).  What does not
 * come from a slot's own address, or is not a state of this volume, is counted and dropped.
 *
 * With keys they are sealed (seal.h), for each member with what is shared with the node that the list of
 * allowed nodes has at its address.  A member without a line there is neither told nor heard.
 */
#include "quorumd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "keys.h"
#include "log.h"
#include "net_refuse.h"
#include "seal.h"

#define DATAGRAM_BYTES	1024u
#define BATCH		64
#define ANSWER_NS	(50 * NSEC_PER_MSEC)	/* a peer that does not know us is answered so often at most */

struct peers {
	struct quorumd *qd;
	int fd;
	struct net_refuser refuser;
	struct seal seal;			/* with keys */
	uint64_t answered_ns[QUORUM_SLOTS_MAX];
	size_t last_len;			/* of our last state; 0: none yet */
	uint8_t last[DATAGRAM_BYTES];
	uint8_t sealed[DATAGRAM_BYTES + SEAL_BYTES];
	uint8_t buf[DATAGRAM_BYTES + SEAL_BYTES];
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

static bool is_member(const struct quorumd *qd, unsigned slot)
{
	return slot != qd->slot && (qd->present & 1u << slot);
}

static int check_own_key(const struct quorumd *qd)
{
	char err[KEYS_ERR_BYTES];
	int ret = keys_check_own(qd->keys, qd->addrs[qd->slot], qd->ports[qd->slot], err, sizeof(err));

	if (ret < 0)
		log_err("%s", err);
	return ret;
}

/* The keys of the members, as the list has them now. */
static void take_keys(struct peers *p)
{
	struct quorumd *qd = p->qd;
	uint8_t key[KEYS_BYTES];
	uint32_t keyless = 0;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		uint32_t a = qd->addrs[i];

		if (!is_member(qd, i))
			continue;
		if (keys_at_address(qd->keys, a, qd->ports[i], key) == 0 &&
		    seal_set_key(&p->seal, i, key, keys_secret(qd->keys)) == 0)
			continue;
		seal_forget_key(&p->seal, i);
		keyless |= 1u << i;
		log_warning("quorum slot %u: no line of %s has its address %u.%u.%u.%u:%u, so it is neither told nor "
			    "heard: add its node's line (scoutfsctl keygen -p -a ADDRESS there) and reload",
			    i, keys_allow_path(qd->keys), a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255,
			    qd->ports[i]);
	}
	pthread_mutex_lock(&qd->mutex);
	qd->keyless = keyless;
	pthread_mutex_unlock(&qd->mutex);
}

static int open_keys(struct peers *p)
{
	int ret;

	if (!p->qd->keys)
		return 0;
	ret = check_own_key(p->qd);
	if (ret == 0) {
		ret = seal_init(&p->seal);
		if (ret < 0)
			log_err("quorum slot %u: libsodium does not work here", p->qd->slot);
	}
	if (ret == 0)
		take_keys(p);
	return ret;
}

void peers_reload_keys(struct peers *p)
{
	/* What is wrong with it is said; who leads goes on with those who still believe it. */
	check_own_key(p->qd);
	take_keys(p);
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
	p->fd = -1;
	p->refuser.counts = &qd->refusals;
	ret = open_keys(p);
	if (ret < 0) {
		peers_close(p);
		return ret;
	}
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
	seal_fini(&p->seal);
	free(p);
}

int peers_fd(const struct peers *p)
{
	return p->fd;
}

/* The member whose address that is; -ENOENT. */
static int slot_of(const struct quorumd *qd, const struct sockaddr_in *from)
{
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (is_member(qd, i) && ntohl(from->sin_addr.s_addr) == qd->addrs[i] &&
		    ntohs(from->sin_port) == qd->ports[i])
			return (int)i;
	}
	return -ENOENT;
}

/* Lossy by design: it is repeated. */
static bool send_to(struct peers *p, unsigned slot, uint64_t answer, const uint8_t *msg, size_t len)
{
	struct sockaddr_in to = slot_address(p->qd, slot);

	if (p->qd->keys) {
		int ret = p->seal.peers[slot].has_key ?
			  seal_put(&p->seal, slot, answer, msg, len, p->sealed, sizeof(p->sealed)) : -ENOKEY;

		if (ret < 0)
			return false;
		msg = p->sealed;
		len = (size_t)ret;
	}
	return sendto(p->fd, msg, len, 0, (struct sockaddr *)&to, sizeof(to)) >= 0;
}

/* It sent something that may be old, for it does not know this process yet. */
static void introduce(struct peers *p, unsigned slot, uint64_t answer)
{
	uint64_t now = clock_mono_ns();

	if (p->answered_ns[slot] && now - p->answered_ns[slot] < ANSWER_NS)
		return;
	p->answered_ns[slot] = now;
	send_to(p, slot, answer, NULL, 0);
}

/* Take what is sealed out of the datagram; its length, 0: there is no message; -EACCES: counted. */
static ssize_t unseal(struct peers *p, unsigned slot, uint32_t addr, uint8_t *dgram, size_t len)
{
	struct net_refusals *counts = p->refuser.counts;
	struct quorumd *qd = p->qd;
	uint8_t msg[DATAGRAM_BYTES + SEAL_BYTES];
	uint64_t answer = 0;
	size_t msg_len = 0;

	if (!qd->keys && seal_is_sealed(dgram, len)) {
		net_refuse(&p->refuser, &counts->refused_no_key, addr,
			   "quorum slot %u talks only with keys, and this node has none: insecure = yes here?",
			   slot);
		return -EACCES;
	}
	if (!qd->keys)
		return (ssize_t)len;
	if (!seal_is_sealed(dgram, len)) {
		net_refuse(&p->refuser, &counts->refused_no_key, addr,
			   "quorum slot %u talks without keys, and only members with one are heard: make one there "
			   "(scoutfsctl keygen), or does it have insecure = yes?", slot);
		return -EACCES;
	}
	switch (seal_open(&p->seal, slot, dgram, len, msg, &msg_len, &answer)) {
	case SEAL_FIRST:
		/* Now it is known what it wants to hear; what we said before was nothing to it. */
		send_to(p, slot, 0, p->last, p->last_len);
		break;
	case SEAL_GOOD:
		break;
	case SEAL_STALE:
		stats_inc(&qd->stats.states_stale);
		introduce(p, slot, answer);
		return -EACCES;
	case SEAL_REPLAYED:
		stats_inc(&qd->stats.states_replayed);
		return -EACCES;
	case SEAL_FALSE:
		net_refuse(&p->refuser, &counts->refused_key, addr,
			   p->seal.peers[slot].has_key ?
			   "quorum slot %u has another key than its line in %s, or another one for us" :
			   "quorum slot %u: no line of %s has its address", slot, keys_allow_path(qd->keys));
		return -EACCES;
	}
	memcpy(dgram, msg, msg_len);
	return (ssize_t)msg_len;
}

/* Whether that is a state of the member. */
static bool is_state(struct peers *p, unsigned slot, uint32_t addr, size_t len)
{
	const struct msg_quorum_state *st = &p->body.quorum_state;
	struct net_refusals *counts = p->refuser.counts;
	struct msg_header hdr = { 0 };
	int ret = msg_get(p->buf, len, &hdr, &p->body);

	if (ret == -EPROTONOSUPPORT) {
		net_refuse(&p->refuser, &counts->refused_version, addr,
			   "quorum slot %u speaks another major version of the protocol than ours (%u): upgrade the "
			   "older of the two hosts", slot, MSG_MAJOR);
		return false;
	}
	if (ret < 0 || hdr.type != MSG_quorum_state || hdr.error)
		return false;
	if (st->fsid != p->qd->fsid) {
		net_refuse(&p->refuser, &counts->refused_foreign, addr,
			   "quorum slot %u is of volume %016llx, and this member of %016llx: do two volumes use one "
			   "address?", slot, (unsigned long long)st->fsid, (unsigned long long)p->qd->fsid);
		return false;
	}
	return st->slot == slot;
}

static void take_datagram(struct peers *p, const struct sockaddr_in *from, size_t len)
{
	struct quorum_in in = { .kind = QUORUM_IN_PEER, .peer = &p->body.quorum_state };
	uint32_t addr = ntohl(from->sin_addr.s_addr);
	struct quorumd *qd = p->qd;
	int slot = slot_of(qd, from);
	ssize_t n;

	if (slot < 0) {
		stats_inc(&qd->stats.states_refused);
		return;
	}
	n = unseal(p, (unsigned)slot, addr, p->buf, len);
	if (n == 0 && qd->keys)
		return;
	if (n < 0 || !is_state(p, (unsigned)slot, addr, (size_t)n)) {
		stats_inc(&qd->stats.states_refused);
		return;
	}
	if (p->body.quorum_state.term < qd->q.term)
		stats_inc(&p->refuser.counts->refused_term);
	stats_inc(&qd->stats.states_received);
	quorumd_event(qd, &in);
}

void peers_dispatch(struct peers *p)
{
	for (int i = 0; i < BATCH; i++) {
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		ssize_t n;

		n = recvfrom(p->fd, p->buf, sizeof(p->buf), 0, (struct sockaddr *)&from, &from_len);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		/* A member that is not there answers with an ICMP error: no news. */
		if (n >= 0 && from_len == sizeof(from))
			take_datagram(p, &from, (size_t)n);
	}
}

void peers_send(struct peers *p, const struct msg_quorum_state *st)
{
	struct msg_header hdr = { .type = MSG_quorum_state, .term = st->term, .rid = p->qd->rid };
	int len = msg_put(&hdr, st, p->last, sizeof(p->last));

	p->last_len = len < 0 ? 0 : (size_t)len;
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX && p->last_len; i++) {
		if (is_member(p->qd, i) && send_to(p, i, 0, p->last, p->last_len))
			stats_inc(&p->qd->stats.states_sent);
	}
}
