/*
 * Refusals.  ZeroMQ tells of a failed handshake without the peer's address, so the addresses of the
 * last connections are kept from when they were accepted; the end of a connection follows its failure
 * and has the same descriptor.  A connection that was over before we looked has no address any more.
 */
#include "net_refuse.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <zmq.h>

#include "clock.h"
#include "log.h"

#define SAY_NS	(10 * NSEC_PER_SEC)	/* so many of a kind are said in this time */
#define SAY_NR	5u

void net_refuse(struct net_refuser *r, stats_counter *kind, uint32_t addr, const char *fmt, ...)
{
	size_t i = (size_t)(kind - (stats_counter *)r->counts);
	uint64_t now = clock_mono_ns();
	char text[512], who[32];
	va_list args;

	stats_inc(kind);
	if (!r->since_ns[i] || now - r->since_ns[i] >= SAY_NS) {
		r->since_ns[i] = now;
		r->said_nr[i] = 0;
	}
	if (r->said_nr[i]++ >= SAY_NR)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (addr)
		snprintf(who, sizeof(who), "%u.%u.%u.%u", addr >> 24, addr >> 16 & 255, addr >> 8 & 255,
			 addr & 255);
	else
		snprintf(who, sizeof(who), "an unknown address");
	log_warning("refused: %s: %s", who, text);
}

static void remember_peer(struct net_refuser *r, int fd)
{
	struct sockaddr_in in = { .sin_family = AF_UNSPEC };
	socklen_t len = sizeof(in);

	if (getpeername(fd, (struct sockaddr *)&in, &len) < 0 || in.sin_family != AF_INET)
		return;
	r->peers[r->peers_at].fd = fd;
	r->peers[r->peers_at].addr = ntohl(in.sin_addr.s_addr);
	r->peers_at = (r->peers_at + 1) % NET_REFUSE_PEERS;
}

static uint32_t take_peer(struct net_refuser *r, int fd)
{
	uint32_t addr = 0;

	for (unsigned i = 0; i < NET_REFUSE_PEERS; i++) {
		if (r->peers[i].fd != fd || !r->peers[i].addr)
			continue;
		addr = r->peers[i].addr;
		r->peers[i].addr = 0;
	}
	return addr;
}

static void say_handshake(struct net_refuser *r, bool has_keys, uint32_t addr)
{
	if (r->failed == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
		net_refuse(r, &r->counts->refused_no_key, addr, has_keys ?
			   "a node without a key, and only those with one are let in: make one there (scoutfsctl "
			   "keygen) and add its line to the list" :
			   "a node that talks only with keys, and this one has none: insecure = yes here?");
	else if (r->failed == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
		net_refuse(r, &r->counts->refused_key, addr,
			   "a node that expects another key here: its list has not this node's key at this address");
}

void net_refuse_event(struct net_refuser *r, bool has_keys, int event, int value)
{
	uint32_t addr;

	if (event == ZMQ_EVENT_ACCEPTED) {
		remember_peer(r, value);
	} else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL) {
		r->has_failed = true;
		r->failed = value;
	} else if (event == ZMQ_EVENT_DISCONNECTED) {
		addr = take_peer(r, value);
		if (r->has_failed)
			say_handshake(r, has_keys, addr);
		r->has_failed = false;
	}
}
