/*
 * ZeroMQ as the services use it: design.md D5.  Frames of one part (with an identity before it on a
 * ROUTER), nothing that waits, nothing that lingers, every size bounded.
 */
#ifndef SCOUTFS_ZMQU_H
#define SCOUTFS_ZMQU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <zmq.h>

#include "keys.h"
#include "msg.h"

#define ZMQU_IDENT_MAX 32u

struct zmqu_ident {
	uint8_t len;
	uint8_t bytes[ZMQU_IDENT_MAX];
};

/*
 * A ROUTER (mandatory) or a DEALER with a fresh identity that never reconnects by itself, so that
 * its owner knows of each loss.  keepalive_ms: a tcp peer silent for longer is gone; 0: no such
 * check. The caller closes *out with zmqu_close.  -EMFILE, -ENOMEM.
 */
int zmqu_router(void *ctx, uint32_t keepalive_ms, void **out);
int zmqu_dealer(void *ctx, uint32_t keepalive_ms, void **out);
void zmqu_close(void *sock);

/* An ipc socket at path, replacing a dead one, with this mode.  -EADDRINUSE: somebody answers
 * there. */
int zmqu_bind_ipc(void *sock, const char *path, unsigned mode);
int zmqu_connect_ipc(void *sock, const char *path);

/* to is NULL on a DEALER.  -EAGAIN: its queue is full; -EHOSTUNREACH: the peer is gone. */
int zmqu_send(void *sock, const struct zmqu_ident *to, const void *buf, size_t len);

struct zmqu_frame {
	struct zmqu_ident from;
	uint32_t addr;			/* IPv4 of a tcp peer, else 0 */
	zmq_msg_t msg;
};
/*
 * The next frame; close it with zmqu_frame_close after 0.  -EAGAIN: none; -EPROTO: something of
 * another shape was thrown away.
 */
int zmqu_recv(void *sock, int is_router, struct zmqu_frame *f);
void zmqu_frame_close(struct zmqu_frame *f);

/* Encode and send: a message's struct, or msg_put's error. */
int zmqu_send_msg(void *sock, const struct zmqu_ident *to, const struct msg_header *hdr,
		  const void *body, uint8_t *buf, size_t size);

/* What happens to a socket's connections; read with zmqu_monitor_next.  Close *out with zmqu_close.
 */
int zmqu_monitor(void *ctx, void *sock, int events, void **out);
/* 0, the event and its value (a descriptor, an error); -EAGAIN: none. */
int zmqu_monitor_next(void *mon, int *event, int *value);

/*
 * Before a ROUTER listens, a DEALER connects: talk encrypted (CURVE).  The listener lets in whom the
 * owner of the context's zmqu_zap_open allows, and looks at zmqu_frame_key before it believes a peer;
 * the DEALER only talks with the holder of server_key.
 * -EINVAL: libzmq cannot.
 */
int zmqu_secure_listener(void *sock, const uint8_t secret[KEYS_BYTES]);
int zmqu_secure_dealer(void *sock, const uint8_t server_key[KEYS_BYTES],
		       const uint8_t public_key[KEYS_BYTES], const uint8_t secret[KEYS_BYTES]);

/* A socket that is asked about each peer of the context's secure listeners (RFC 27); close it with
 * zmqu_zap_close.  -EADDRINUSE: the context has one. */
int zmqu_zap_open(void *ctx, void **out);
void zmqu_zap_close(void *zap);
struct zmqu_zap_request {
	uint8_t id[16];
	uint8_t id_len;
	bool has_key;			/* and it is proven; else the peer may not be let in */
	uint8_t key[KEYS_BYTES];
	uint32_t addr;			/* IPv4, 0: unknown */
};
/* 0: answer it before the next; -EAGAIN: none. */
int zmqu_zap_next(void *zap, struct zmqu_zap_request *rq);
void zmqu_zap_answer(void *zap, const struct zmqu_zap_request *rq, bool is_allowed);

/* Whose frame of a secure listener that is.  -ENOENT: no peer that was let in with a key. */
int zmqu_frame_key(struct zmqu_frame *f, uint8_t key[KEYS_BYTES]);

/* Its descriptor, readable when something may have happened (edge-triggered). */
int zmqu_fd(void *sock);
/* ZMQ_POLLIN, ZMQ_POLLOUT; 0 on an error. */
int zmqu_events(void *sock);

/* Tests: asked before each frame of a session is sent; 0: send it, 1: lose it, 2: send it twice. */
extern int (*zmqu_fault)(const struct msg_header *hdr);

#endif
