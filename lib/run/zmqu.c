/*
 * The few calls of ZeroMQ that we make, with the options that design.md D5 asks for in one place.
 *
 * A DEALER's RECONNECT_IVL is -1: a socket that was cut is never used again, so nothing is lost
 * without its owner knowing.  The ROUTER is mandatory: sending to a peer that is gone, or whose
 * queue is full, is an error and not silence.
 */
#include "zmqu.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "testhook.h"

#define QUEUE_FRAMES 1000

int (*zmqu_fault)(const struct msg_header *hdr);

static int set_int(void *sock, int option, int v)
{
	return zmq_setsockopt(sock, option, &v, sizeof(v)) < 0 ? -errno : 0;
}

static int set_common(void *sock, uint32_t keepalive_ms)
{
	int64_t max = MSG_FRAME_MAX;
	int ret;

	ret = set_int(sock, ZMQ_LINGER, 0);
	ret = ret ?: set_int(sock, ZMQ_SNDHWM, QUEUE_FRAMES);
	ret = ret ?: set_int(sock, ZMQ_RCVHWM, QUEUE_FRAMES);
	if (ret == 0 && zmq_setsockopt(sock, ZMQ_MAXMSGSIZE, &max, sizeof(max)) < 0)
		ret = -errno;
	if (keepalive_ms) {
		ret = ret ?: set_int(sock, ZMQ_HEARTBEAT_IVL, (int)(keepalive_ms / 4));
		ret = ret ?: set_int(sock, ZMQ_HEARTBEAT_TIMEOUT, (int)keepalive_ms);
		ret = ret ?: set_int(sock, ZMQ_TCP_MAXRT, (int)keepalive_ms);
	}
	return ret;
}

static int open_socket(void *ctx, int type, uint32_t keepalive_ms, void **out)
{
	void *sock = zmq_socket(ctx, type);
	int ret;

	if (!sock)
		return -errno;
	ret = set_common(sock, keepalive_ms);
	if (ret < 0) {
		zmq_close(sock);
		return ret;
	}
	*out = sock;
	return 0;
}

int zmqu_router(void *ctx, uint32_t keepalive_ms, void **out)
{
	int ret = open_socket(ctx, ZMQ_ROUTER, keepalive_ms, out);

	if (ret == 0)
		ret = set_int(*out, ZMQ_ROUTER_MANDATORY, 1);
	return ret;
}

int zmqu_dealer(void *ctx, uint32_t keepalive_ms, void **out)
{
	uint8_t ident[16];
	int ret;

	if (getrandom(ident, sizeof(ident), 0) != sizeof(ident))
		return -EIO;
	ident[0] = 'c';		/* one that begins with 0 is ZeroMQ's own */
	ret = open_socket(ctx, ZMQ_DEALER, keepalive_ms, out);
	if (ret < 0)
		return ret;
	ret = set_int(*out, ZMQ_RECONNECT_IVL, -1);
	if (ret == 0 && zmq_setsockopt(*out, ZMQ_ROUTING_ID, ident, sizeof(ident)) < 0)
		ret = -errno;
	if (ret < 0) {
		zmq_close(*out);
		*out = NULL;
	}
	return ret;
}

void zmqu_close(void *sock)
{
	if (sock)
		zmq_close(sock);
}

static int ipc_address(const char *path, struct sockaddr_un *un, char *endpoint, size_t size)
{
	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(un->sun_path))
		return -ENAMETOOLONG;
	strcpy(un->sun_path, path);
	snprintf(endpoint, size, "ipc://%s", path);
	return 0;
}

int zmqu_bind_ipc(void *sock, const char *path, unsigned mode)
{
	char endpoint[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	struct sockaddr_un un;
	int ret, fd;

	ret = ipc_address(path, &un, endpoint, sizeof(endpoint));
	if (ret < 0)
		return ret;
	/* ZeroMQ would take the path away from a service that is alive. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	ret = connect(fd, (struct sockaddr *)&un, sizeof(un));
	if (ret < 0)
		ret = errno == EAGAIN ? 0 : -errno;
	close(fd);
	if (ret == 0)
		return -EADDRINUSE;
	if (ret == -ECONNREFUSED && unlink(path) < 0)
		return -errno;
	if (zmq_bind(sock, endpoint) < 0)
		return -errno;
	return chmod(path, mode) < 0 ? -errno : 0;
}

int zmqu_connect_ipc(void *sock, const char *path)
{
	char endpoint[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	struct sockaddr_un un;
	int ret;

	ret = ipc_address(path, &un, endpoint, sizeof(endpoint));
	if (ret < 0)
		return ret;
	return zmq_connect(sock, endpoint) < 0 ? -errno : 0;
}

int zmqu_send(void *sock, const struct zmqu_ident *to, const void *buf, size_t len)
{
	/* Where the identity was taken the rest is taken too: a ROUTER decides about a message by
	 * its first part. */
	if (to && zmq_send(sock, to->bytes, to->len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
		return -errno;
	if (zmq_send(sock, buf, len, ZMQ_DONTWAIT) < 0)
		return -errno;
	return 0;
}

int zmqu_send_msg(void *sock, const struct zmqu_ident *to, const struct msg_header *hdr,
		  const void *body, uint8_t *buf, size_t size)
{
	int fault = zmqu_fault && hdr->frame_nr ? zmqu_fault(hdr) : 0;
	int len = msg_put(hdr, body, buf, size);
	int ret;

	if (len < 0)
		return len;
	if (fault == 1)
		return 0;
	testhook_message(TESTHOOK_SEND, hdr->type);
	ret = zmqu_send(sock, to, buf, (size_t)len);
	if (ret == 0 && fault == 2)
		zmqu_send(sock, to, buf, (size_t)len);
	return ret;
}

/* Throw away the remaining parts of a message; returns whether there were any. */
static int drain_parts(void *sock, zmq_msg_t *msg)
{
	int found = 0;

	while (zmq_msg_more(msg)) {
		found = 1;
		if (zmq_msg_recv(msg, sock, ZMQ_DONTWAIT) < 0)
			break;
	}
	return found;
}

int zmqu_recv(void *sock, int is_router, struct zmqu_frame *f)
{
	const char *peer;
	struct in_addr in;
	int ret = 0;

	f->from.len = 0;
	f->addr = 0;
	zmq_msg_init(&f->msg);
	if (zmq_msg_recv(&f->msg, sock, ZMQ_DONTWAIT) < 0) {
		ret = errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
		goto out;
	}
	if (is_router) {
		size_t len = zmq_msg_size(&f->msg);

		if (len > ZMQU_IDENT_MAX || !zmq_msg_more(&f->msg)) {
			drain_parts(sock, &f->msg);
			ret = -EPROTO;
			goto out;
		}
		f->from.len = (uint8_t)len;
		memcpy(f->from.bytes, zmq_msg_data(&f->msg), len);
		if (zmq_msg_recv(&f->msg, sock, ZMQ_DONTWAIT) < 0) {
			ret = -EPROTO;
			goto out;
		}
		peer = zmq_msg_gets(&f->msg, "Peer-Address");
		if (peer && inet_pton(AF_INET, peer, &in) == 1)
			f->addr = ntohl(in.s_addr);
	}
	if (drain_parts(sock, &f->msg))
		ret = -EPROTO;
out:
	if (ret < 0)
		zmq_msg_close(&f->msg);
	return ret;
}

void zmqu_frame_close(struct zmqu_frame *f)
{
	zmq_msg_close(&f->msg);
}

int zmqu_monitor(void *ctx, void *sock, int events, void **out)
{
	char endpoint[64];
	void *mon;
	int ret;

	snprintf(endpoint, sizeof(endpoint), "inproc://monitor-%p", sock);
	if (zmq_socket_monitor(sock, endpoint, events) < 0)
		return -errno;
	mon = zmq_socket(ctx, ZMQ_PAIR);
	if (!mon)
		return -errno;
	ret = set_int(mon, ZMQ_LINGER, 0);
	if (ret == 0 && zmq_connect(mon, endpoint) < 0)
		ret = -errno;
	if (ret < 0) {
		zmq_close(mon);
		return ret;
	}
	*out = mon;
	return 0;
}

int zmqu_monitor_next(void *mon, int *event, int *value)
{
	struct zmqu_frame f;
	uint16_t number;
	int32_t v;
	zmq_msg_t msg;
	int ret;

	/* Two parts: the event's number and value, and the endpoint. */
	zmq_msg_init(&msg);
	ret = zmq_msg_recv(&msg, mon, ZMQ_DONTWAIT) < 0 ? -EAGAIN : 0;
	if (ret == 0 && zmq_msg_size(&msg) >= sizeof(number) + sizeof(v)) {
		memcpy(&number, zmq_msg_data(&msg), sizeof(number));
		memcpy(&v, (const uint8_t *)zmq_msg_data(&msg) + sizeof(number), sizeof(v));
		*event = number;
		*value = v;
		if (zmq_msg_more(&msg) && zmqu_recv(mon, 0, &f) == 0)
			zmqu_frame_close(&f);
	}
	zmq_msg_close(&msg);
	return ret;
}

int zmqu_fd(void *sock)
{
	size_t len = sizeof(int);
	int fd;

	return zmq_getsockopt(sock, ZMQ_FD, &fd, &len) < 0 ? -errno : fd;
}

int zmqu_events(void *sock)
{
	size_t len = sizeof(int);
	int events;

	return zmq_getsockopt(sock, ZMQ_EVENTS, &events, &len) < 0 ? 0 : events;
}
