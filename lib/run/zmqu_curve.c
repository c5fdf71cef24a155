/*
 * CURVE and who is let in (ZeroMQ RFC 26, 27): sockets that talk only encrypted and only with nodes
 * whose keys they know.
 *
 * A listener proves its key to whoever connects, and asks for each peer's; whether that key is allowed
 * is asked of the owner of the socket of zmqu_zap_open, in the same context.  The answer gives the peer's
 * key to each of its frames; a frame without one is of somebody about whom nobody was asked (libzmq 4.3
 * lets them pass while there is no such socket), so its receiver must look.
 */
#include "zmqu.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "keys.h"

#define ZAP_ENDPOINT	"inproc://zeromq.zap.01"
#define ZAP_DOMAIN	"scoutfs"
#define ZAP_PARTS	7	/* version, id, domain, address, identity, mechanism, the key */
#define CURVE_BYTES	64	/* what encryption adds to a frame, and more */

static int set_bytes(void *sock, int option, const void *v, size_t len)
{
	return zmq_setsockopt(sock, option, v, len) < 0 ? -errno : 0;
}

static int set_secret(void *sock, const uint8_t secret[KEYS_BYTES])
{
	int64_t max = MSG_FRAME_MAX + CURVE_BYTES;
	int ret = set_bytes(sock, ZMQ_MAXMSGSIZE, &max, sizeof(max));

	return ret ?: set_bytes(sock, ZMQ_CURVE_SECRETKEY, secret, KEYS_BYTES);
}

int zmqu_secure_listener(void *sock, const uint8_t secret[KEYS_BYTES])
{
	int on = 1;
	int ret = set_bytes(sock, ZMQ_CURVE_SERVER, &on, sizeof(on));

	ret = ret ?: set_bytes(sock, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, strlen(ZAP_DOMAIN));
	return ret ?: set_secret(sock, secret);
}

int zmqu_secure_dealer(void *sock, const uint8_t server_key[KEYS_BYTES],
		       const uint8_t public_key[KEYS_BYTES], const uint8_t secret[KEYS_BYTES])
{
	int ret = set_bytes(sock, ZMQ_CURVE_SERVERKEY, server_key, KEYS_BYTES);

	ret = ret ?: set_bytes(sock, ZMQ_CURVE_PUBLICKEY, public_key, KEYS_BYTES);
	return ret ?: set_secret(sock, secret);
}

int zmqu_zap_open(void *ctx, void **out)
{
	void *zap = zmq_socket(ctx, ZMQ_REP);
	int linger = 0;
	int ret;

	if (!zap)
		return -errno;
	ret = set_bytes(zap, ZMQ_LINGER, &linger, sizeof(linger));
	if (ret == 0 && zmq_bind(zap, ZAP_ENDPOINT) < 0)
		ret = -errno;
	if (ret < 0) {
		zmq_close(zap);
		return ret;
	}
	*out = zap;
	return 0;
}

void zmqu_zap_close(void *zap)
{
	if (!zap)
		return;
	/* At once: closing happens behind our back, and the next one wants the name. */
	zmq_unbind(zap, ZAP_ENDPOINT);
	zmq_close(zap);
}

/* Copy a part's text; what is too long is not the text that was meant. */
static void copy_text(char *to, size_t size, zmq_msg_t *part)
{
	size_t len = zmq_msg_size(part);

	if (len >= size)
		len = 0;
	memcpy(to, zmq_msg_data(part), len);
	to[len] = 0;
}

int zmqu_zap_next(void *zap, struct zmqu_zap_request *rq)
{
	char mechanism[8] = "", address[INET_ADDRSTRLEN] = "";
	struct in_addr in;
	unsigned nr = 0;
	bool more = true;

	*rq = (struct zmqu_zap_request){ .id_len = 0 };
	while (more) {
		zmq_msg_t part;
		size_t len;

		zmq_msg_init(&part);
		if (zmq_msg_recv(&part, zap, ZMQ_DONTWAIT) < 0) {
			zmq_msg_close(&part);
			return -EAGAIN;
		}
		len = zmq_msg_size(&part);
		if (nr == 1 && len <= sizeof(rq->id)) {
			memcpy(rq->id, zmq_msg_data(&part), len);
			rq->id_len = (uint8_t)len;
		} else if (nr == 3) {
			copy_text(address, sizeof(address), &part);
		} else if (nr == 5) {
			copy_text(mechanism, sizeof(mechanism), &part);
		} else if (nr == 6 && len == KEYS_BYTES) {
			memcpy(rq->key, zmq_msg_data(&part), len);
			rq->has_key = true;
		}
		nr++;
		more = zmq_msg_more(&part);
		zmq_msg_close(&part);
	}
	rq->has_key = rq->has_key && nr == ZAP_PARTS && strcmp(mechanism, "CURVE") == 0;
	if (inet_pton(AF_INET, address, &in) == 1)
		rq->addr = ntohl(in.s_addr);
	return 0;
}

void zmqu_zap_answer(void *zap, const struct zmqu_zap_request *rq, bool is_allowed)
{
	const char *status = is_allowed ? "200" : "400";
	char user[KEYS_TEXT_BYTES] = "";

	if (is_allowed)
		keys_to_text(rq->key, user);
	/* To a peer that is gone it goes nowhere. */
	zmq_send(zap, "1.0", 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
	zmq_send(zap, rq->id, rq->id_len, ZMQ_SNDMORE | ZMQ_DONTWAIT);
	zmq_send(zap, status, 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
	zmq_send(zap, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT);
	zmq_send(zap, user, strlen(user), ZMQ_SNDMORE | ZMQ_DONTWAIT);
	zmq_send(zap, "", 0, ZMQ_DONTWAIT);
}

int zmqu_frame_key(struct zmqu_frame *f, uint8_t key[KEYS_BYTES])
{
	const char *user = zmq_msg_gets(&f->msg, "User-Id");

	if (!user || keys_from_text(user, strlen(user), key) < 0)
		return -ENOENT;
	return 0;
}
