/*
 * Datagrams of members that may be anybody's.  The first byte says what was done to what follows: nothing, so it
 * came as it is; or it was sealed by the peer, so what is inside is a peer's that cannot be believed either.
 * Whatever comes is refused or gives a message no longer than itself; a message that was believed once is
 * not believed again; and after all of it the peer is still heard.
 */
#include <assert.h>
#include <sodium.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "services/quorumd/seal.h"

#define PEER	3u
#define DGRAM_MAX 2048u
#define INNER	(SEAL_MAGIC_BYTES + crypto_box_NONCEBYTES)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

static struct seal ours, theirs, ours_new, theirs_new;

/* Two members that have said nothing yet. */
static void begin(void)
{
	uint8_t our_public[KEYS_BYTES], our_secret[KEYS_BYTES];
	uint8_t peer_public[KEYS_BYTES], peer_secret[KEYS_BYTES];

	if (!ours_new.process) {
		assert(seal_init(&ours_new) == 0 && seal_init(&theirs_new) == 0);
		crypto_box_keypair(our_public, our_secret);
		crypto_box_keypair(peer_public, peer_secret);
		assert(seal_set_key(&ours_new, PEER, peer_public, our_secret) == 0);
		assert(seal_set_key(&theirs_new, PEER, our_public, peer_secret) == 0);
	}
	ours = ours_new;
	theirs = theirs_new;
}

static enum seal_verdict take(const uint8_t *dgram, size_t len)
{
	uint8_t msg[DGRAM_MAX];
	uint64_t answer = 0;
	size_t msg_len = 0;
	enum seal_verdict v = seal_open(&ours, PEER, dgram, len, msg, &msg_len, &answer);

	assert(msg_len <= len);
	assert(v != SEAL_STALE || answer);
	return v;
}

/* The peer says something and is believed, after an answer or two. */
static void peer_is_heard(void)
{
	uint8_t dgram[DGRAM_MAX], answered[DGRAM_MAX], msg[DGRAM_MAX];
	uint64_t answer = 0;
	size_t len;
	int nr, back;

	for (unsigned i = 0; i < 3; i++) {
		nr = seal_put(&theirs, PEER, 0, "hello", 5, dgram, sizeof(dgram));
		assert(nr > 0);
		switch (seal_open(&ours, PEER, dgram, (size_t)nr, msg, &len, &answer)) {
		case SEAL_GOOD:
		case SEAL_FIRST:
			assert(len == 5 && memcmp(msg, "hello", 5) == 0);
			assert(take(dgram, (size_t)nr) != SEAL_GOOD && take(dgram, (size_t)nr) != SEAL_FIRST);
			return;
		case SEAL_STALE:
			back = seal_put(&ours, PEER, answer, NULL, 0, answered, sizeof(answered));
			assert(back > 0);
			seal_open(&theirs, PEER, answered, (size_t)back, msg, &len, &answer);
			break;
		case SEAL_REPLAYED:
		case SEAL_FALSE:
			abort();
		}
	}
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t dgram[DGRAM_MAX];
	enum seal_verdict v;
	size_t len;

	if (size < 1 || size > 1500)
		return 0;
	begin();
	if (data[0] & 1) {
		/* As it came from the network: at best what the peer has said to somebody before us. */
		v = take(data + 1, size - 1);
	} else {
		/* Made with the peer's key: its numbers and its message are what the fuzzer says. */
		memcpy(dgram, "sfseal1", SEAL_MAGIC_BYTES);
		randombytes_buf(dgram + SEAL_MAGIC_BYTES, crypto_box_NONCEBYTES);
		len = INNER + crypto_box_MACBYTES + size - 1;
		assert(len <= sizeof(dgram));
		assert(crypto_box_easy_afternm(dgram + INNER, data + 1, size - 1, dgram + SEAL_MAGIC_BYTES,
					       theirs.peers[PEER].shared) == 0);
		v = take(dgram, len);
	}
	/* Nobody can guess what we want to hear repeated. */
	assert(v == SEAL_FALSE || v == SEAL_STALE);
	peer_is_heard();
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	int len = -1;

	begin();
	memset(buf, 0, max < 64 ? max : 64);
	if (i == 0) {
		buf[0] = 1;
		len = seal_put(&theirs, PEER, 0, "state", 5, buf + 1, max - 1);
	} else if (i == 1 && max > 64) {
		buf[1] = buf[9] = buf[17] = buf[25] = 1;
		len = 63;
	}
	return len < 0 ? 0 : (size_t)len + 1;
}
