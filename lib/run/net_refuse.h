/*
 * Who is not let in by a server of sessions: counted by reason, and said to its operator, but not so
 * often that a peer that tries for ever fills the log.
 */
#ifndef SCOUTFS_NET_REFUSE_H
#define SCOUTFS_NET_REFUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "stats.h"

#define NET_REFUSALS(C)									\
	C(refused_no_key,	"Connections refused: with keys on one side only")	\
	C(refused_key,		"... the peer's key is not in the list, or it takes us for another node") \
	C(refused_foreign,	"Greetings refused: of another volume (fsid)")		\
	C(refused_format,	"... of another version of the format")			\
	C(refused_version,	"... of another major version of the protocol")		\
	C(refused_term,		"Messages refused: of another term than the server's")

STATS_STRUCT(net_refusals, NET_REFUSALS);

#define NET_REFUSE_PEERS 32u

/* Embedded in the server; all zero but `counts` to begin with. */
struct net_refuser {
	struct net_refusals *counts;	/* its owner's */
	uint64_t since_ns[STATS_NR(net_refusals)];	/* of each kind: when saying it began */
	unsigned said_nr[STATS_NR(net_refusals)];	/* and how often it was said since */
	/* The addresses of connections that were accepted last. */
	struct {
		int fd;
		uint32_t addr;
	} peers[NET_REFUSE_PEERS];
	unsigned peers_at;
	bool has_failed;		/* a handshake, with this error; which connection comes next */
	int failed;
};

/* Count a refusal of that kind, one of r->counts, and say it; addr 0: unknown. */
void net_refuse(struct net_refuser *r, stats_counter *kind, uint32_t addr, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The events of a listener's monitor that net_refuse_event wants. */
#define NET_REFUSE_EVENTS \
	(ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)
/* All of them, in order: refuses peers that do not talk as this side does. */
void net_refuse_event(struct net_refuser *r, bool has_keys, int event, int value);

#endif
