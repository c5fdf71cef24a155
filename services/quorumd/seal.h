/*
 * Datagrams between members that nobody else can make, read or use twice.  design.md D10.
 *
 * Nothing here sends or waits.  README.md says what a replay could do and why it cannot.
 */
#ifndef SCOUTFS_QUORUMD_SEAL_H
#define SCOUTFS_QUORUMD_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/format.h"
#include "keys.h"

/* Before what is sealed: 8 bytes that tell it from an open message, a nonce; and within it. */
#define SEAL_MAGIC_BYTES	8u
#define SEAL_BYTES		(SEAL_MAGIC_BYTES + 24u + 16u + 4 * 8u)

struct seal_peer {
	bool has_key;
	uint8_t public_key[KEYS_BYTES];
	uint8_t shared[32];		/* between its key and ours */
	uint64_t mine;			/* what it must repeat to us */
	uint64_t theirs;		/* what it wants repeated; 0: not known yet */
	uint64_t process;		/* the last that was believed; 0: none yet */
	uint64_t counter;		/* of its last datagram */
};

struct seal {
	uint64_t process;		/* ours */
	uint64_t counter;
	struct seal_peer peers[QUORUM_SLOTS_MAX];
};

/* -EOPNOTSUPP: libsodium cannot work here. */
int seal_init(struct seal *s);
void seal_fini(struct seal *s);

/* The member of that slot has this key from now on; -EINVAL: it is no key of Curve25519. */
int seal_set_key(struct seal *s, unsigned slot, const uint8_t public_key[KEYS_BYTES],
		 const uint8_t secret[KEYS_BYTES]);
void seal_forget_key(struct seal *s, unsigned slot);

/*
 * Seal a message (len 0: only to be known) for a slot that has a key.  answer != 0: as an answer to what
 * seal_open gave.  The datagram's length; -EMSGSIZE.
 */
int seal_put(struct seal *s, unsigned slot, uint64_t answer, const void *msg, size_t len, uint8_t *out,
	     size_t size);

bool seal_is_sealed(const uint8_t *dgram, size_t len);

enum seal_verdict {
	SEAL_GOOD,		/* the message is the peer's, and new */
	SEAL_FIRST,		/* the same, and the first of its process: it does not know us yet */
	SEAL_STALE,		/* the peer's, but it may be old: it did not know us; answer it */
	SEAL_REPLAYED,		/* it has come before, or a later one has */
	SEAL_FALSE,		/* not made with that member's key and for us */
};
/*
 * Open a datagram that came from that slot's address, which has a key.  msg has room for len bytes.  With
 * SEAL_GOOD and SEAL_FIRST *msg_len is the message's length; with SEAL_STALE *answer is for seal_put.
 */
enum seal_verdict seal_open(struct seal *s, unsigned slot, const uint8_t *dgram, size_t len,
			    uint8_t *msg, size_t *msg_len, uint64_t *answer);

#endif
