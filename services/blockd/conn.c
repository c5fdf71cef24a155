/*
 * Clients: greeting, rings, controls.
 *
 * A connection has at most BLKRING_ENTRIES operations that were taken and whose completions the client
 * has not: a completion always has room, so nothing here waits for a client.  A client that breaks a
 * rule gets -EINVAL where the rule concerns one descriptor, and loses the connection where the ring or
 * the socket itself can no longer be believed.
 *
 * A closed connection stays, without socket and ring, until its I/O has ended: its buffers are in use,
 * and a new connection of the same writer is not greeted before (else an old write, still under way,
 * could land on a newer one that the new connection made).  For the same reason a control is answered
 * only when no write that it forbids is under way; leases are taken meanwhile, or they would run out.
 */
#include "blockd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "sockfd.h"

#define DRAIN_MAX		64	/* descriptors of one client in one pass */
#define REFUSALS_LOGGED_MAX	8	/* of one connection; all are counted */

enum conn_state {
	CONN_NEW,			/* no hello yet */
	CONN_HELD,			/* hello waits for I/O of an earlier connection */
	CONN_OPEN,
	CONN_CLOSED,			/* waits for its I/O to end */
};

struct conn {
	unsigned index;
	enum conn_state state;
	int sock;
	uint32_t kind;
	uint64_t rid;
	uint64_t term;

	struct blkring_shared *ring;
	int sq_efd, cq_efd;
	uint32_t sq_head, cq_tail;
	bool must_ring;			/* completions were posted since the doorbell was looked at */

	int region_fd;			/* until the hello is answered */
	void *region;
	struct ring_limits limits;

	unsigned inflight;
	unsigned writes_inflight;
	unsigned round;			/* 0 or 1: of the writes that start now */
	unsigned round_writes[2];	/* writes_inflight by round */
	struct io *held;		/* flushes that wait for the writes of the other round */
	struct io *held_next;		/* ... and those that came after more writes */
	struct chain chain;
	unsigned refusals_logged;
	uint64_t flush_errors_seen[BLK_DEVS_NR];

	bool is_deaf;			/* its next message is not wanted yet */
	bool has_control;		/* a control that was carried out but not answered */
	struct blkmsg_control control;
};

static const char *const kind_names[BLK_KIND_END] = {
	[BLK_KIND_FSD] = "fsd",
	[BLK_KIND_SERVERD] = "serverd",
	[BLK_KIND_QUORUMD] = "quorumd",
	[BLK_KIND_TOOL] = "tool",
};

static const char *conn_name(const struct conn *c)
{
	return c->kind < BLK_KIND_END && kind_names[c->kind] ? kind_names[c->kind] : "client";
}

/* ---- life ---- */

static void conn_release(struct blockd *d, struct conn *c)
{
	assert(c->inflight == 0);
	if (c->region)
		munmap(c->region, c->limits.region_bytes[BLK_REGION_PRIVATE]);
	chain_fini(&c->chain);
	d->conns[c->index] = NULL;
	d->conns_nr--;
	free(c);
}

/* Whether the writer has another connection. */
static bool writer_is_here(const struct blockd *d, const struct conn *c)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++) {
		const struct conn *o = d->conns[i];

		if (o && o != c && o->state == CONN_OPEN && o->kind == c->kind && o->rid == c->rid)
			return true;
	}
	return false;
}

static void io_release(struct blockd *d, struct io *io)
{
	io->next = d->free_ios;
	d->free_ios = io;
	d->ios_nr--;
}

/* Nobody is left who wants to know. */
static void held_forget(struct blockd *d, struct conn *c, struct io **list)
{
	while (*list) {
		struct io *io = *list;

		*list = io->next;
		c->inflight--;
		io_release(d, io);
	}
}

/* why: what the client did wrong, or NULL when it went by itself. */
static void conn_close(struct blockd *d, struct conn *c, const char *why)
{
	if (c->state == CONN_CLOSED)
		return;
	if (why) {
		log_warning("%s %016" PRIx64 ": %s; its connection is closed", conn_name(c), c->rid,
			    why);
		stats_inc(&d->stats.clients_lied);
	}
	if (c->state == CONN_HELD || c->has_control)
		d->controls_held--;
	c->has_control = false;
	if (c->kind && !writer_is_here(d, c))
		leases_here(d, c->kind, c->rid, false);
	c->state = CONN_CLOSED;
	/* The client has these descriptors too, so closing ours does not end the watch. */
	epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, c->sock, NULL);
	close(c->sock);
	if (c->ring) {
		epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, c->sq_efd, NULL);
		close(c->sq_efd);
		close(c->cq_efd);
		munmap(c->ring, sizeof(*c->ring));
		c->ring = NULL;
	}
	if (c->region_fd >= 0)
		close(c->region_fd);
	c->region_fd = -1;
	held_forget(d, c, &c->held);
	held_forget(d, c, &c->held_next);
	held_forget(d, c, &c->chain.last);
	if (c->inflight == 0)
		conn_release(d, c);
}

/* Read messages, or only notice that the peer is gone. */
static void conn_listen(struct blockd *d, struct conn *c, bool reads)
{
	struct epoll_event ev = { .events = reads ? EPOLLIN : 0,
				  .data.u64 = WATCH_DATA(WATCH_SOCKET, c->index) };

	c->is_deaf = !reads;
	/* Fails only for a descriptor that is not watched, and this one is. */
	if (epoll_ctl(d->epoll_fd, EPOLL_CTL_MOD, c->sock, &ev) < 0)
		log_err("epoll: %s", strerror(errno));
}

static void refuse_hello(struct blockd *d, int sock, int err, const char *text)
{
	struct blkmsg_hello_reply r = { .hdr = blkmsg_header(BLKMSG_HELLO_REPLY), .error = err };

	snprintf(r.text, sizeof(r.text), "%s", text);
	stats_inc(&d->stats.clients_refused);
	/* A client that does not even take this learns from the close. */
	if (sockfd_send(sock, &r, sizeof(r), NULL, 0) < 0)
		return;
}

void conns_accept(struct blockd *d)
{
	unsigned i;
	int sock;

	while ((sock = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct conn *c = NULL;

		for (i = 0; i < BLOCKD_CLIENTS_MAX && d->conns[i]; i++)
			;
		if (i < BLOCKD_CLIENTS_MAX)
			c = calloc(1, sizeof(*c));
		if (c && blockd_watch(d, sock, WATCH_SOCKET, i) == 0) {
			c->index = i;
			c->sock = sock;
			c->region_fd = -1;
			d->conns[i] = c;
			d->conns_nr++;
			stats_inc(&d->stats.clients_accepted);
			continue;
		}
		refuse_hello(d, sock, -ENOSPC, "it serves as many clients as it can");
		free(c);
		close(sock);
	}
	if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
		log_warning("a client cannot be accepted: %s", strerror(errno));
}

/* ---- greeting ---- */

/* A memfd of exactly len bytes that stays that long; made by us earlier, or by a blockd before us. */
static bool is_region(int fd, uint64_t len)
{
	int want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	return seals >= 0 && (seals & want) == want && fstat(fd, &st) == 0 &&
	       (uint64_t)st.st_size == len;
}

static int memfd_make(const char *name, uint64_t len)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)len) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

static void *memfd_map(int fd, uint64_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Whether the writer still has I/O of a closed connection under way. */
static bool writer_has_remains(const struct blockd *d, const struct conn *c)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++) {
		const struct conn *o = d->conns[i];

		if (o && o->state == CONN_CLOSED && o->kind == c->kind && o->rid == c->rid)
			return true;
	}
	return false;
}

/* Make ring and region and hand them out.  On error nothing but the connection is left to close. */
static int conn_open(struct blockd *d, struct conn *c)
{
	struct blkmsg_hello_reply reply = {
		.hdr = blkmsg_header(BLKMSG_HELLO_REPLY),
		.entries = BLKRING_ENTRIES,
		.can = BLK_CAN_REVOKE_MOUNT | BLK_CAN_CHAIN,
		.region_bytes = c->limits.region_bytes[BLK_REGION_PRIVATE],
		.fsid = d->vol.fsid,
		.meta_blocks = d->vol.meta_blocks,
		.data_blocks = d->vol.data_blocks,
	};
	bool brings_region = c->region_fd >= 0;
	int fds[BLKMSG_FDS_MAX];
	size_t nr = 0;
	int ring_fd;
	int ret;

	ring_fd = memfd_make("scoutfs-ring", sizeof(*c->ring));
	if (ring_fd < 0)
		return ring_fd;
	c->ring = memfd_map(ring_fd, sizeof(*c->ring));
	c->sq_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->cq_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!brings_region && reply.region_bytes)
		c->region_fd = memfd_make("scoutfs-region", reply.region_bytes);
	if (c->region_fd >= 0)
		c->region = memfd_map(c->region_fd, reply.region_bytes);
	ret = -ENOMEM;
	if (!c->ring || c->sq_efd < 0 || c->cq_efd < 0 || (reply.region_bytes && !c->region))
		goto out;

	fds[nr++] = ring_fd;
	fds[nr++] = c->sq_efd;
	fds[nr++] = c->cq_efd;
	if (!brings_region && c->region)
		fds[nr++] = c->region_fd;
	if (c->kind == BLK_KIND_FSD) {
		reply.pool_bytes = d->pool.bytes;
		fds[nr++] = d->pool.fd;
	}
	ret = blockd_watch(d, c->sq_efd, WATCH_BELL, c->index);
	if (ret == 0)
		ret = sockfd_send(c->sock, &reply, sizeof(reply), fds, nr);
out:
	close(ring_fd);
	if (c->region_fd >= 0)
		close(c->region_fd);
	c->region_fd = -1;
	if (ret == 0) {
		for (unsigned i = 0; i < BLK_DEVS_NR; i++)
			c->flush_errors_seen[i] = d->vol.dev[i].flush_errors;
		c->state = CONN_OPEN;
		leases_here(d, c->kind, c->rid, true);
		log_debug("%s %016" PRIx64 " term %" PRIu64 " connected", conn_name(c), c->rid,
			  c->term);
		return 0;
	}
	if (!c->ring) {
		/* conn_close knows of the doorbells only through the ring. */
		if (c->sq_efd >= 0)
			close(c->sq_efd);
		if (c->cq_efd >= 0)
			close(c->cq_efd);
	}
	return ret;
}

static void conn_open_or_close(struct blockd *d, struct conn *c)
{
	int ret = conn_open(d, c);

	if (ret < 0) {
		log_warning("%s %016" PRIx64 ": cannot be served: %s", conn_name(c), c->rid,
			    strerror(-ret));
		if (ret != -EPIPE && ret != -ECONNRESET)
			refuse_hello(d, c->sock, ret, "it has no memory or descriptors for a client");
		conn_close(d, c, NULL);
		return;
	}
	conn_listen(d, c, true);
}

/* What is wrong with a hello, or NULL; *err says how. */
static const char *hello_check(const struct conn *c, const struct blkmsg_hello *h, int *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	*err = -EINVAL;
	if (h->kind == 0 || h->kind >= BLK_KIND_END || (h->flags & ~BLK_HELLO_REGION))
		return "the hello has a kind or flag it does not know";
	if (h->kind != BLK_KIND_TOOL && (h->rid == 0 || h->rid == UINT64_MAX))
		return "the hello has no rid";
	if (!!(h->flags & BLK_HELLO_REGION) != (c->region_fd >= 0))
		return "the hello says one thing about a region and brings another";
	if (h->region_bytes % BLKRING_ALIGN)
		return "the region's size is not a multiple of 4096";
	if (c->region_fd >= 0 && !is_region(c->region_fd, h->region_bytes))
		return "the region it was given is not one that a blockd made";
	if (h->region_bytes > BLKRING_REGION_MAX) {
		*err = -ENOSPC;
		return "the region is larger than allowed";
	}
	if (h->kind == BLK_KIND_FSD) {
		*err = -EPERM;
		if (getsockopt(c->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
		    (cred.uid != 0 && cred.uid != geteuid()))
			return "only root may have the pool";
	}
	return NULL;
}

static void conn_hello(struct blockd *d, struct conn *c, const struct blkmsg_hello *h)
{
	const char *why;
	int err;

	why = hello_check(c, h, &err);
	if (why) {
		refuse_hello(d, c->sock, err, why);
		conn_close(d, c, why);
		return;
	}
	err = leases_set(d, &h->lease, h->kind, h->rid);
	if (err < 0 && h->lease.kind) {
		refuse_hello(d, c->sock, err, "its lease makes no sense");
		conn_close(d, c, "its lease makes no sense");
		return;
	}
	c->kind = h->kind;
	c->rid = h->rid;
	c->term = h->term;
	c->limits.kind = h->kind;
	c->limits.region_bytes[BLK_REGION_PRIVATE] = h->region_bytes;
	c->limits.region_bytes[BLK_REGION_POOL] = h->kind == BLK_KIND_FSD ? d->pool.bytes : 0;
	for (unsigned i = 0; i < BLK_DEVS_NR; i++)
		c->limits.device_bytes[i] = d->vol.dev[i].volume_bytes;
	if (writer_has_remains(d, c)) {
		c->state = CONN_HELD;
		d->controls_held++;
		conn_listen(d, c, false);
		return;
	}
	conn_open_or_close(d, c);
}

/* ---- controls ---- */

/* Whether a write that the control forbids is under way. */
static bool control_must_wait(const struct blockd *d, const struct blkmsg_control *m)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++) {
		const struct conn *o = d->conns[i];

		if (!o || o->writes_inflight == 0)
			continue;
		if (m->hdr.type == BLKMSG_SET_TERM ? o->kind == BLK_KIND_SERVERD && o->term < m->value :
		    o->rid == m->value && (m->hdr.type == BLKMSG_REVOKE || o->kind == BLK_KIND_FSD))
			return true;
	}
	return false;
}

static void control_answer(struct blockd *d, struct conn *c, uint64_t id, int err)
{
	struct blkmsg_control_reply r = { .hdr = blkmsg_header(BLKMSG_CONTROL_REPLY), .id = id,
					  .error = err };

	if (sockfd_send(c->sock, &r, sizeof(r), NULL, 0) < 0)
		conn_close(d, c, NULL);
}

static void conn_control(struct blockd *d, struct conn *c, const struct blkmsg_control *m)
{
	int ret;

	if (c->kind != BLK_KIND_SERVERD && c->kind != BLK_KIND_QUORUMD)
		ret = -EPERM;
	else if (m->hdr.type == BLKMSG_SET_TERM)
		ret = tokens_set_term(&d->tokens, m->value);
	else if (m->value == 0)
		ret = -EINVAL;
	else
		ret = tokens_revoke(&d->tokens, m->value, m->hdr.type == BLKMSG_REVOKE_MOUNT);

	if (ret == 0 && m->hdr.type == BLKMSG_REVOKE)
		log_notice("rid %016" PRIx64 " is fenced on this host: it writes no more", m->value);
	if (ret == 0 && m->hdr.type == BLKMSG_REVOKE_MOUNT)
		log_notice("the mount of rid %016" PRIx64 " is fenced on this host: it writes no more; its serverd goes on",
			   m->value);
	if (ret == 0 && control_must_wait(d, m)) {
		c->has_control = true;
		c->control = *m;
		d->controls_held++;
		return;
	}
	if (ret == 0 && m->hdr.type == BLKMSG_SET_TERM && c->kind == BLK_KIND_SERVERD)
		c->term = m->value;
	control_answer(d, c, m->id, ret);
}

/* I/O has ended: whoever waited for that. */
static void held_retry(struct blockd *d)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX && d->controls_held > 0; i++) {
		struct conn *c = d->conns[i];

		if (c && c->state == CONN_HELD && !writer_has_remains(d, c)) {
			d->controls_held--;
			c->state = CONN_NEW;
			conn_open_or_close(d, c);
		} else if (c && c->has_control && !control_must_wait(d, &c->control)) {
			d->controls_held--;
			c->has_control = false;
			if (c->control.hdr.type == BLKMSG_SET_TERM && c->kind == BLK_KIND_SERVERD)
				c->term = c->control.value;
			if (c->is_deaf)
				conn_listen(d, c, true);
			control_answer(d, c, c->control.id, 0);
		}
	}
}

/* ---- socket ---- */

/* What a message is, by its header and length; 0: nothing we know. */
static int message_type(const union blkmsg *m, ssize_t len)
{
	if (len < (ssize_t)sizeof(m->hdr) || m->hdr.magic != BLKMSG_MAGIC)
		return 0;
	switch (m->hdr.type) {
	case BLKMSG_HELLO:
		/* Another version's may have another length. */
		return m->hdr.version != BLKMSG_VERSION || len == sizeof(m->hello) ?
			       BLKMSG_HELLO : 0;
	case BLKMSG_SET_TERM:
	case BLKMSG_REVOKE:
	case BLKMSG_REVOKE_MOUNT:
		return m->hdr.version == BLKMSG_VERSION && len == sizeof(m->control) ?
			       m->hdr.type : 0;
	case BLKMSG_LEASE:
		return m->hdr.version == BLKMSG_VERSION && len == sizeof(m->lease) ?
			       BLKMSG_LEASE : 0;
	default:
		return 0;
	}
}

static bool is_control(int type)
{
	return type == BLKMSG_SET_TERM || type == BLKMSG_REVOKE || type == BLKMSG_REVOKE_MOUNT;
}

/* A control whose client was told nothing of the one before waits in the socket. */
static bool is_next_control(struct conn *c)
{
	struct blkmsg_header hdr;

	return recv(c->sock, &hdr, sizeof(hdr), MSG_PEEK | MSG_DONTWAIT) == (ssize_t)sizeof(hdr) &&
	       is_control(hdr.type);
}

static void conn_lease(struct blockd *d, struct conn *c, const struct blkmsg_lease *m)
{
	if (leases_set(d, &m->lease, c->kind, c->rid) < 0)
		conn_close(d, c, "it told of a lease that makes no sense or is not its to tell");
}

void conn_socket_event(struct blockd *d, unsigned index)
{
	struct conn *c = index < BLOCKD_CLIENTS_MAX ? d->conns[index] : NULL;
	union blkmsg msg;
	size_t fds_nr = 0;
	ssize_t len;
	int fd = -1;
	int type;

	if (!c || c->state == CONN_CLOSED)
		return;
	if (c->is_deaf) {
		/* We asked not to be told of messages, so this is the end of the connection. */
		conn_close(d, c, NULL);
		return;
	}
	if (c->has_control && is_next_control(c)) {
		conn_listen(d, c, false);
		return;
	}
	len = sockfd_recv(c->sock, &msg, sizeof(msg), &fd, c->state == CONN_NEW ? 1 : 0, &fds_nr);
	if (len == -EAGAIN)
		return;
	if (len == -EMSGSIZE) {
		conn_close(d, c, "it sent too long a message or descriptors nobody asked for");
		return;
	}
	if (len <= 0) {
		log_debug("%s %016" PRIx64 " gone", conn_name(c), c->rid);
		conn_close(d, c, NULL);
		return;
	}
	if (fds_nr > 0)
		c->region_fd = fd;
	type = message_type(&msg, len);
	if (c->state == CONN_NEW && type == BLKMSG_HELLO) {
		if (msg.hdr.version != BLKMSG_VERSION) {
			refuse_hello(d, c->sock, -EPROTO, "it is of another version");
			conn_close(d, c, "it is of another version");
			return;
		}
		conn_hello(d, c, &msg.hello);
	} else if (c->state == CONN_OPEN && is_control(type)) {
		conn_control(d, c, &msg.control);
	} else if (c->state == CONN_OPEN && type == BLKMSG_LEASE) {
		conn_lease(d, c, &msg.lease);
	} else {
		conn_close(d, c, "it sent a message that makes no sense here");
	}
}

/* ---- rings ---- */

/* How many more descriptors may be taken. */
static unsigned conn_room(const struct blockd *d, const struct conn *c)
{
	uint32_t untaken = c->cq_tail - blkring_load(&c->ring->cq_head);

	if (!d->free_ios || untaken > BLKRING_ENTRIES || c->inflight + untaken >= BLKRING_ENTRIES)
		return 0;
	return BLKRING_ENTRIES - c->inflight - untaken;
}

static void conn_post(struct blockd *d, struct conn *c, uint64_t tag, int result)
{
	struct blkring_desc done = { .tag = tag, .result = result };
	int ret;

	ret = blkring_push(&c->ring->cq_head, &c->ring->cq_tail, &c->cq_tail, c->ring->cq, &done);
	if (ret < 0)
		conn_close(d, c, "its completion ring makes no sense");
	else
		c->must_ring = true;
}

/* Count a refusal, and log the first ones: a client may repeat itself as fast as it likes. */
static void note_refusal(struct blockd *d, struct conn *c, const struct blkring_desc *desc, int err)
{
	const char *why = "it makes no sense";
	stats_counter *counter = &d->stats.refused_descriptors;

	switch (err) {
	case -ESTALE:
		why = "a newer term was set";
		counter = &d->stats.refused_stale_term;
		break;
	case -ENOLINK:
		why = "its rid is fenced";
		counter = &d->stats.refused_revoked;
		break;
	case -EPERM:
		why = "these blocks are not its to write";
		counter = &d->stats.refused_kind;
		break;
	case -EKEYEXPIRED:
		why = "it has no lease";
		counter = &d->stats.refused_lease;
		break;
	case -EBUSY:
		why = "another chain of it is under way";
		break;
	case -ENOMEM:
		why = "there is no memory";
		break;
	}
	stats_inc(counter);
	if (c->refusals_logged == REFUSALS_LOGGED_MAX)
		return;
	c->refusals_logged++;
	log_warning("%s %016" PRIx64 " term %" PRIu64 ": operation %u of %s at %" PRIu64 "+%u is "
		    "refused: %s", conn_name(c), c->rid, c->term, desc->op,
		    desc->dev < BLK_DEVS_NR ? d->vol.dev[desc->dev].name : "no device",
		    desc->dev_off, desc->len, why);
}

static bool is_write(unsigned op)
{
	return op == BLK_OP_WRITE || op == BLK_OP_DISCARD;
}

/*
 * A flush with BLKRING_AFTER waits for the writes that came before it, and a client that writes all the time
 * does not keep it waiting.  So writes have a round, and there are never more than two under way: those that
 * `held` waits for, and those of now.  What is to wait for both is in `held_next`, and when the first is over
 * a new round begins.
 */
static void flush_hold(struct blockd *d, struct conn *c, struct io *io)
{
	struct io **list = &c->held;

	if (!c->held) {
		if (c->round_writes[c->round] == 0) {
			engine_queue(d->engine, io);
			return;
		}
		c->round ^= 1;
	} else if (c->held_next || c->round_writes[c->round] > 0) {
		list = &c->held_next;
	}
	io->next = *list;
	*list = io;
}

/* A write has ended: those flushes that waited for the last of a round. */
static void flush_release(struct blockd *d, struct conn *c)
{
	while (c->held && c->round_writes[c->round ^ 1] == 0) {
		struct io *io = c->held;

		c->held = c->held_next;
		c->held_next = NULL;
		if (c->held)
			c->round ^= 1;
		while (io) {
			struct io *next = io->next;

			engine_queue(d->engine, io);
			io = next;
		}
	}
}

/* Whether this client may write now. */
static int write_check(const struct blockd *d, const struct conn *c, uint64_t *until_ns)
{
	int ret = tokens_check(&d->tokens, c->kind, c->rid, c->term);

	return ret < 0 ? ret : leases_check(d, c->kind, c->rid, c->term, until_ns);
}

static void write_queue(struct blockd *d, struct conn *c, struct io *io)
{
	c->writes_inflight++;
	c->round_writes[c->round]++;
	io->round = (uint8_t)c->round;
	engine_queue(d->engine, io);
}

/* The last of a chain reads what stands at its place. */
static void chain_look(struct blockd *d, struct conn *c, struct io *io)
{
	c->chain.looked_ns = clock_mono_ns();
	io->part = CHAIN_LOOK;
	io->op = BLK_OP_READ;
	io->is_durable = false;
	io->buf = c->chain.block;
	io->started_ns = c->chain.looked_ns;
	engine_queue(d->engine, io);
}

/* It is not written. */
static void chain_give_up(struct blockd *d, struct conn *c, struct io *io, int result)
{
	chain_end(&c->chain);
	c->inflight--;
	conn_post(d, c, io->tag, result);
	io_release(d, io);
}

static void chain_write(struct blockd *d, struct conn *c, struct io *io)
{
	const struct blkring_desc desc = { .op = BLK_OP_WRITE, .dev = io->dev, .dev_off = io->off,
					   .len = io->len };
	int ret = write_check(d, c, &io->until_ns);

	c->chain.last = NULL;
	if (ret < 0) {
		note_refusal(d, c, &desc, ret);
		chain_give_up(d, c, io, ret);
		return;
	}
	io->part = CHAIN_LAST;
	io->op = BLK_OP_WRITE;
	io->is_durable = true;
	io->buf = c->chain.buf;
	io->started_ns = clock_mono_ns();
	write_queue(d, c, io);
}

/* Something of an open connection's chain has ended. */
static void chain_go_on(struct blockd *d, struct conn *c)
{
	struct io *io = c->chain.last;

	switch (chain_next(&c->chain, clock_mono_ns(), d->look_known_ns)) {
	case CHAIN_WAIT:
		break;
	case CHAIN_FAIL:
		chain_give_up(d, c, io, -ECANCELED);
		break;
	case CHAIN_LOOK_AGAIN:
		c->chain.last = NULL;
		c->chain.has_looked_twice = true;
		chain_look(d, c, io);
		break;
	case CHAIN_WRITE:
		chain_write(d, c, io);
		break;
	}
}

/* The last of an open connection's chain has looked. */
static void chain_looked(struct blockd *d, struct conn *c, struct io *io, int result)
{
	if (result == 0)
		result = chain_check_look(&c->chain);
	if (result < 0) {
		chain_give_up(d, c, io, result);
		return;
	}
	io->next = NULL;
	c->chain.last = io;
	chain_go_on(d, c);
}

/* Start what a copied-out descriptor asks for, or answer why not. */
static void conn_start(struct blockd *d, struct conn *c, const struct blkring_desc *desc)
{
	bool is_last = desc->flags & BLKRING_LAST, is_taken = false;
	uint64_t until_ns = 0;
	struct io *io;
	char *base;
	int ret;

	ret = ring_desc_check(desc, &c->limits);
	if (ret == 0 && desc->chain) {
		ret = chain_take(&c->chain, desc);
		is_taken = ret == 0;
	}
	if (ret == 0 && is_write(desc->op))
		ret = write_check(d, c, &until_ns);
	if (ret < 0) {
		if (is_taken && is_last)
			chain_end(&c->chain);
		else if (is_taken)
			chain_ended(&c->chain, ret);
		note_refusal(d, c, desc, ret);
		conn_post(d, c, desc->tag, ret);
		return;
	}

	io = d->free_ios;
	d->free_ios = io->next;
	d->ios_nr++;
	base = desc->region == BLK_REGION_POOL ? d->pool.map : c->region;
	*io = (struct io){
		.owner = c,
		.tag = desc->tag,
		.op = desc->op,
		.dev = desc->dev,
		.is_bdev = d->vol.dev[desc->dev].is_bdev,
		.is_durable = desc->flags & BLKRING_DURABLE,
		.part = desc->chain ? CHAIN_BEFORE : CHAIN_NONE,
		.fd = d->vol.dev[desc->dev].fd,
		.off = desc->dev_off,
		.len = desc->len,
		.started_ns = clock_mono_ns(),
		.until_ns = until_ns,
	};
	if (desc->op == BLK_OP_READ || desc->op == BLK_OP_WRITE)
		io->buf = base + desc->region_off;
	c->inflight++;
	if (is_last) {
		c->chain.buf = io->buf;
		chain_look(d, c, io);
	} else if (desc->op == BLK_OP_FLUSH && desc->flags & BLKRING_AFTER) {
		flush_hold(d, c, io);
	} else if (is_write(desc->op)) {
		write_queue(d, c, io);
	} else {
		engine_queue(d->engine, io);
	}
}

static bool conn_drain(struct blockd *d, struct conn *c)
{
	unsigned nr = conn_room(d, c);
	unsigned index = c->index;
	bool any = false;

	nr = nr < DRAIN_MAX ? nr : DRAIN_MAX;
	while (nr-- > 0) {
		struct blkring_desc desc;
		int ret;

		if (!d->free_ios) {
			stats_inc(&d->stats.ios_full);
			break;
		}
		ret = blkring_pop(&c->ring->sq_tail, &c->ring->sq_head, &c->sq_head, c->ring->sq,
				  &desc);
		if (ret == 0)
			break;
		any = true;
		if (ret < 0) {
			conn_close(d, c, "its submission ring makes no sense");
			break;
		}
		conn_start(d, c, &desc);
		/* What it was answered may have shown its ring to be bad, and then it may be gone. */
		if (d->conns[index] != c || c->state != CONN_OPEN)
			break;
	}
	return any;
}

static void conn_ring_bell(struct blockd *d, struct conn *c)
{
	uint64_t one = 1;
	uint32_t wanted;

	if (!c->must_ring || c->state != CONN_OPEN)
		return;
	c->must_ring = false;
	blkring_fence();
	/* It sleeps until there are so many.  What it says of its own ring is its own affair. */
	wanted = blkring_load(&c->ring->client_sleeps);
	if (wanted && c->cq_tail - blkring_load(&c->ring->cq_head) >= wanted &&
	    __atomic_exchange_n(&c->ring->client_sleeps.v, 0, __ATOMIC_SEQ_CST)) {
		stats_inc(&d->stats.doorbells_sent);
		/* -EAGAIN: it has been rung 2^64 times, by the client itself. */
		if (write(c->cq_efd, &one, sizeof(one)) < 0)
			return;
	}
}

bool conns_drain(struct blockd *d)
{
	bool any = false;

	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++) {
		struct conn *c = d->conns[i];

		if (!c || c->state != CONN_OPEN)
			continue;
		/* A connection that was closed may be gone; its slot says so. */
		any |= conn_drain(d, c);
		if (d->conns[i] == c)
			conn_ring_bell(d, c);
	}
	return any;
}

static void io_count(struct blockd *d, const struct io *io)
{
	struct blockd_stats *s = &d->stats;
	bool is_meta = io->dev == BLK_DEV_META;
	stats_counter *errors = &s->discard_errors;

	stats_add(&s->io_us, (clock_mono_ns() - io->started_ns) / 1000);
	switch (io->op) {
	case BLK_OP_READ:
		stats_inc(is_meta ? &s->meta_reads : &s->data_reads);
		stats_add(is_meta ? &s->meta_read_bytes : &s->data_read_bytes, io->len);
		errors = &s->read_errors;
		break;
	case BLK_OP_WRITE:
		stats_inc(is_meta ? &s->meta_writes : &s->data_writes);
		stats_add(is_meta ? &s->meta_write_bytes : &s->data_write_bytes, io->len);
		errors = &s->write_errors;
		break;
	case BLK_OP_FLUSH:
		stats_inc(is_meta ? &s->meta_flushes : &s->data_flushes);
		errors = &s->flush_errors;
		break;
	default:
		stats_inc(&s->discards);
		break;
	}
	if (io->result < 0)
		stats_inc(errors);
}

/* The result that the client is told. */
static int io_result(struct blockd *d, struct conn *c, const struct io *io)
{
	static const char *const names[BLK_OP_END] = { "", "read", "write", "flush", "discard" };
	struct device *dev = &d->vol.dev[io->dev];
	int result = io->result;

	if (result == -EKEYEXPIRED) {
		stats_inc(&d->stats.refused_lease);
		return result;
	}
	if (result < 0 && !(io->op == BLK_OP_DISCARD && result == -EOPNOTSUPP))
		log_err("%s %s: %s of %u bytes at %" PRIu64 " for %s failed: %s; check the device",
			dev->name, dev->path, names[io->op], io->len, io->off, conn_name(c),
			strerror(-result));
	/*
	 * The kernel tells of a lost write-back once, to whoever flushes first, be it with a write;
	 * every client has something to lose by it, so each is told at its next flush.
	 */
	if (result < 0 && (io->op == BLK_OP_FLUSH || io->is_durable))
		dev->flush_errors++;
	if (io->op != BLK_OP_FLUSH)
		return result;
	if (c->flush_errors_seen[io->dev] != dev->flush_errors) {
		c->flush_errors_seen[io->dev] = dev->flush_errors;
		return result < 0 ? result : -EIO;
	}
	return result;
}

/* An operation has ended. */
static void io_complete(struct blockd *d, struct io *io)
{
	struct conn *c = io->owner;
	unsigned index = c->index;
	enum chain_part part = io->part;
	int result;

	io_count(d, io);
	result = io_result(d, c, io);
	if (part == CHAIN_LOOK && c->state == CONN_OPEN) {
		chain_looked(d, c, io, result);
		return;
	}
	c->inflight--;
	if (is_write(io->op)) {
		c->writes_inflight--;
		c->round_writes[io->round]--;
		flush_release(d, c);
	}
	if (part == CHAIN_LAST)
		chain_end(&c->chain);
	else if (part == CHAIN_BEFORE)
		chain_ended(&c->chain, result);
	if (c->state == CONN_OPEN)
		conn_post(d, c, io->tag, result);
	else if (c->inflight == 0)
		conn_release(d, c);
	io_release(d, io);
	/* What it was told may have shown its ring to be bad, and then it may be gone. */
	if (part == CHAIN_BEFORE && d->conns[index] == c && c->state == CONN_OPEN)
		chain_go_on(d, c);
}

void conns_complete(struct blockd *d, struct io *list)
{
	while (list) {
		struct io *io = list;

		list = io->next;
		io_complete(d, io);
	}
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i])
			conn_ring_bell(d, d->conns[i]);
	held_retry(d);
}

bool conns_sleep_begin(struct blockd *d)
{
	bool any = false;

	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i] && d->conns[i]->state == CONN_OPEN)
			blkring_store(&d->conns[i]->ring->blockd_sleeps, 1);
	blkring_fence();
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++) {
		struct conn *c = d->conns[i];

		if (c && c->state == CONN_OPEN && blkring_load(&c->ring->sq_tail) != c->sq_head)
			any |= conn_room(d, c) > 0;
	}
	return any;
}

void conns_sleep_end(struct blockd *d)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i] && d->conns[i]->state == CONN_OPEN)
			blkring_store(&d->conns[i]->ring->blockd_sleeps, 0);
}

void conns_close(struct blockd *d)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i])
			conn_close(d, d->conns[i], NULL);
}
