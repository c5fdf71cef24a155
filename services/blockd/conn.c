/*
 * Clients: who is connected, greetings, controls.  What they put into their rings is conn_io.c's.
 *
 * A client that breaks a rule of the socket loses the connection.
 *
 * A closed connection stays, without socket and ring, until its I/O has ended: its buffers are in use,
 * and a new connection of the same writer is not greeted before (else an old write, still under way,
 * could land on a newer one that the new connection made).  For the same reason a control is answered
 * only when no write that it forbids is under way; leases are taken meanwhile, or they would run out.
 */
#include "conn_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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

static const char *const kind_names[BLK_KIND_END] = {
	[BLK_KIND_FSD] = "fsd",
	[BLK_KIND_SERVERD] = "serverd",
	[BLK_KIND_QUORUMD] = "quorumd",
	[BLK_KIND_TOOL] = "tool",
};

const char *conn_name(const struct conn *c)
{
	return c->kind < BLK_KIND_END && kind_names[c->kind] ? kind_names[c->kind] : "client";
}

/* ---- life ---- */

void conn_release(struct blockd *d, struct conn *c)
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

void io_release(struct blockd *d, struct io *io)
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

void conn_close(struct blockd *d, struct conn *c, const char *why)
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

void conns_retry_held(struct blockd *d)
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

void conns_close(struct blockd *d)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i])
			conn_close(d, d->conns[i], NULL);
}
