/*
 * Sealed datagrams: crypto_box of libsodium (Curve25519, XSalsa20, Poly1305) with a random nonce, between
 * the keys of two nodes.  Inside stand four numbers and then the message:
 *
 *	process	of the sender, random
 *	mine	what the sender wants repeated, random for each peer
 *	theirs	what the receiver wanted repeated, as far as the sender knows
 *	counter	of the sender's datagrams
 *
 * A message is believed only when it repeats what we asked that peer for last and its counter is greater
 * than any of its process before.  So it was made after this process began to ask, by a process that is
 * not older than the one believed last: when another process of the peer comes, what we ask for changes,
 * and nothing that its predecessors made counts any more.  Who does not know what to repeat is told by an
 * answer without a message; that costs a round trip whenever one of the two begins.  A datagram of ours that
 * comes back to us has our own slot in its message, which peers.c refuses.
 */
#include "seal.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#define NONCE_AT	SEAL_MAGIC_BYTES
#define BOX_AT		(NONCE_AT + crypto_box_NONCEBYTES)
#define NUMBERS_BYTES	(4 * sizeof(uint64_t))
#define PLAIN_MAX	1024u

static const uint8_t magic[SEAL_MAGIC_BYTES] = { 's', 'f', 's', 'e', 'a', 'l', '1', 0 };

static_assert(SEAL_BYTES == BOX_AT + crypto_box_MACBYTES + NUMBERS_BYTES, "as the header says");
static_assert(crypto_box_BEFORENMBYTES == 32 && crypto_box_PUBLICKEYBYTES == KEYS_BYTES,
	      "keys of ZeroMQ's CURVE are libsodium's");

static uint64_t random_number(void)
{
	uint64_t n;

	do
		randombytes_buf(&n, sizeof(n));
	while (!n);
	return n;
}

static void put_u64(uint8_t *at, uint64_t v)
{
	for (unsigned i = 0; i < sizeof(v); i++)
		at[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_u64(const uint8_t *at)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < sizeof(v); i++)
		v |= (uint64_t)at[i] << 8 * i;
	return v;
}

int seal_init(struct seal *s)
{
	memset(s, 0, sizeof(*s));
	if (sodium_init() < 0)
		return -EOPNOTSUPP;
	s->process = random_number();
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
		s->peers[i].mine = random_number();
	return 0;
}

void seal_fini(struct seal *s)
{
	sodium_memzero(s, sizeof(*s));
}

int seal_set_key(struct seal *s, unsigned slot, const uint8_t public_key[KEYS_BYTES],
		 const uint8_t secret[KEYS_BYTES])
{
	struct seal_peer *p = &s->peers[slot];

	if (p->has_key && memcmp(p->public_key, public_key, KEYS_BYTES) == 0)
		return 0;
	seal_forget_key(s, slot);
	if (crypto_box_beforenm(p->shared, public_key, secret) < 0)
		return -EINVAL;
	memcpy(p->public_key, public_key, KEYS_BYTES);
	p->has_key = true;
	return 0;
}

void seal_forget_key(struct seal *s, unsigned slot)
{
	struct seal_peer *p = &s->peers[slot];

	sodium_memzero(p, sizeof(*p));
	p->mine = random_number();
}

int seal_put(struct seal *s, unsigned slot, uint64_t answer, const void *msg, size_t len, uint8_t *out,
	     size_t size)
{
	const struct seal_peer *p = &s->peers[slot];
	uint8_t plain[NUMBERS_BYTES + PLAIN_MAX];

	if (len > PLAIN_MAX || size < SEAL_BYTES + len)
		return -EMSGSIZE;
	put_u64(plain, s->process);
	put_u64(plain + 8, p->mine);
	put_u64(plain + 16, answer ? answer : p->theirs);
	put_u64(plain + 24, ++s->counter);
	if (len)
		memcpy(plain + NUMBERS_BYTES, msg, len);
	memcpy(out, magic, sizeof(magic));
	randombytes_buf(out + NONCE_AT, crypto_box_NONCEBYTES);
	if (crypto_box_easy_afternm(out + BOX_AT, plain, NUMBERS_BYTES + len, out + NONCE_AT, p->shared) < 0)
		return -EMSGSIZE;
	return (int)(SEAL_BYTES + len);
}

bool seal_is_sealed(const uint8_t *dgram, size_t len)
{
	return len >= sizeof(magic) && memcmp(dgram, magic, sizeof(magic)) == 0;
}

enum seal_verdict seal_open(struct seal *s, unsigned slot, const uint8_t *dgram, size_t len,
			    uint8_t *msg, size_t *msg_len, uint64_t *answer)
{
	struct seal_peer *p = &s->peers[slot];
	uint8_t plain[NUMBERS_BYTES + PLAIN_MAX];
	uint64_t process, mine, theirs, counter;
	bool is_first;

	if (!p->has_key || !seal_is_sealed(dgram, len) || len < SEAL_BYTES || len > SEAL_BYTES + PLAIN_MAX ||
	    crypto_box_open_easy_afternm(plain, dgram + BOX_AT, len - BOX_AT, dgram + NONCE_AT, p->shared) < 0)
		return SEAL_FALSE;
	process = get_u64(plain);
	mine = get_u64(plain + 8);
	theirs = get_u64(plain + 16);
	counter = get_u64(plain + 24);
	if (!process || !mine)
		return SEAL_FALSE;
	if (theirs != p->mine) {
		*answer = mine;
		return SEAL_STALE;
	}
	is_first = process != p->process;
	if (!is_first && counter <= p->counter)
		return SEAL_REPLAYED;
	if (is_first) {
		p->process = process;
		p->mine = random_number();
	}
	p->counter = counter;
	p->theirs = mine;
	*msg_len = len - SEAL_BYTES;
	memcpy(msg, plain + NUMBERS_BYTES, *msg_len);
	return is_first ? SEAL_FIRST : SEAL_GOOD;
}
