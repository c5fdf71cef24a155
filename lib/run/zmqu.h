/*
 * ZeroMQ as the services use it: design.md D5.  Frames of one part (with an identity before it on a
 * ROUTER), nothing that waits, nothing that lingers, every size bounded.
 */
#ifndef SCOUTFS_ZMQU_H
#define SCOUTFS_ZMQU_H

#include <stddef.h>
#include <stdint.h>

#include <zmq.h>

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
/* 0 and the event; -EAGAIN: none. */
int zmqu_monitor_next(void *mon, int *event);

/* Its descriptor, readable when something may have happened (edge-triggered). */
int zmqu_fd(void *sock);
/* ZMQ_POLLIN, ZMQ_POLLOUT; 0 on an error. */
int zmqu_events(void *sock);

/* Tests: asked before each frame of a session is sent; 0: send it, 1: lose it, 2: send it twice. */
extern int (*zmqu_fault)(const struct msg_header *hdr);

#endif
