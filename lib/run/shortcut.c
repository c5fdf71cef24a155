/*
 * The shortcut between a mount and the leader of its own instance.
 *
 * A question through the session is handed from thread to thread eight times until its answer is there, and
 * on idle processors that is most of what a walk of the change index takes.  A question that changes nothing
 * needs none of what a session is for (numbers, order, resending): whoever wants to know asks over a unix
 * socket himself, and a thread of serverd answers.
 *
 * Promises: an answer is that of the leader of the very term that was asked for, of a moment after the
 * question was put, so a reader sees all that was committed before.  Whatever goes wrong - nobody listens, another
 * term, silence, bytes that are no answer - is one error, after which the session is asked, as it would
 * have been; a connection with a question left open is never used again.  A server that does not answer
 * costs the mount a fifth of a second every PAUSE_NS.
 */
#include "shortcut.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "testhook.h"
#include "thread.h"

#define SOCKET_NAME	"roots.sock"
#define SOCKET_MODE	0660
#define CONNS_MAX	4u	/* one mount, and processes of it that are about to end */
#define FRAME_BYTES	2048u
#define ANSWER_MS	200
#define NO_ROOM_MS	100	/* without a descriptor or memory it is tried again after */
#define PAUSE_NS	(2 * NSEC_PER_SEC)

static int fill_address(const struct instance_conf *conf, struct sockaddr_un *un)
{
	char path[CONF_PATH_BYTES + sizeof(SOCKET_NAME)];

	conf_runtime_path(conf, SOCKET_NAME, path, sizeof(path));
	if (strlen(path) >= sizeof(un->sun_path))
		return -ENAMETOOLONG;
	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(un->sun_path, path, strlen(path) + 1);
	return 0;
}

/* 0, or -errno; a frame that the socket does not take at once is not sent. */
static int send_frame(int fd, const struct msg_header *hdr, const void *body)
{
	uint8_t buf[FRAME_BYTES];
	ssize_t n;
	int len = msg_put(hdr, body, buf, sizeof(buf));

	if (len < 0)
		return len;
	testhook_message(TESTHOOK_SEND, hdr->type);
	n = send(fd, buf, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n == len ? 0 : n < 0 ? -errno : -EMSGSIZE;
}

/* 0; -EAGAIN: there is none; else the connection is of no use any more. */
static int recv_frame(int fd, struct msg_header *hdr, union msg_body *body)
{
	uint8_t buf[FRAME_BYTES];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_TRUNC);
	int ret;

	if (n <= 0)
		return n == 0 ? -ECONNRESET : -errno;
	if ((size_t)n > sizeof(buf))
		return -EPROTO;
	ret = msg_get(buf, (size_t)n, hdr, body);
	if (ret == 0)
		testhook_message(TESTHOOK_RECV, hdr->type);
	return ret;
}

/* ---- the server ---------------------------------------------------------------------------- */

struct shortcut_server {
	pthread_t thread;
	int stop_fd, listen_fd;
	int conns[CONNS_MAX];	/* -1: none */
	struct sockaddr_un un;
	shortcut_roots_fn roots;
	void *arg;
	union msg_body *body;
};

/* False: the connection is over. */
static bool answer(struct shortcut_server *s, int fd)
{
	struct msg_get_roots_reply reply = { 0 };
	struct msg_header in = { 0 }, out;
	int ret = recv_frame(fd, &in, s->body);

	if (ret == -EAGAIN)
		return true;
	if (ret < 0 || in.type != MSG_get_roots || in.error || in.flags & MSG_FLAG_RESPONSE)
		return false;
	out = (struct msg_header){ .type = MSG_get_roots_reply, .flags = MSG_FLAG_RESPONSE,
				   .id = in.id, .term = in.term };
	out.error = s->roots(s->arg, in.rid, in.term, &reply);
	return send_frame(fd, &out, &reply) == 0;
}

static void take_conn(struct shortcut_server *s)
{
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* Who waits there goes on to, and asks in the session.  Else he is gone again. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			poll(NULL, 0, NO_ROOM_MS);
		return;
	}
	for (unsigned i = 0; i < CONNS_MAX; i++) {
		if (s->conns[i] < 0) {
			s->conns[i] = fd;
			return;
		}
	}
	close(fd);
}

static void *server_thread(void *arg)
{
	struct shortcut_server *s = arg;
	struct pollfd p[2 + CONNS_MAX];
	bool is_said = false;

	for (;;) {
		p[0] = (struct pollfd){ .fd = s->stop_fd, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = s->listen_fd, .events = POLLIN };
		for (unsigned i = 0; i < CONNS_MAX; i++)
			p[2 + i] = (struct pollfd){ .fd = s->conns[i], .events = POLLIN };
		if (poll(p, 2 + CONNS_MAX, -1) < 0) {
			if (errno == EINTR)
				continue;
			if (!is_said)
				log_err("%s: waiting failed: %s", s->un.sun_path, strerror(errno));
			is_said = true;
			poll(NULL, 0, NO_ROOM_MS);
			continue;
		}
		if (p[0].revents)
			return NULL;
		for (unsigned i = 0; i < CONNS_MAX; i++) {
			if (p[2 + i].revents && !answer(s, s->conns[i])) {
				close(s->conns[i]);
				s->conns[i] = -1;
			}
		}
		if (p[1].revents)
			take_conn(s);
	}
}

static void free_server(struct shortcut_server *s)
{
	for (unsigned i = 0; i < CONNS_MAX; i++) {
		if (s->conns[i] >= 0)
			close(s->conns[i]);
	}
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	free(s->body);
	free(s);
}

static int start_listening(struct shortcut_server *s)
{
	s->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->listen_fd < 0 || s->stop_fd < 0)
		return -errno;
	if (unlink(s->un.sun_path) < 0 && errno != ENOENT)
		return -errno;
	if (bind(s->listen_fd, (struct sockaddr *)&s->un, sizeof(s->un)) < 0 ||
	    chmod(s->un.sun_path, SOCKET_MODE) < 0 || listen(s->listen_fd, CONNS_MAX) < 0)
		return -errno;
	return 0;
}

int shortcut_server_start(struct shortcut_server **out, const struct instance_conf *conf,
			  shortcut_roots_fn roots, void *arg)
{
	struct shortcut_server *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return -ENOMEM;
	s->roots = roots;
	s->arg = arg;
	s->listen_fd = s->stop_fd = -1;
	for (unsigned i = 0; i < CONNS_MAX; i++)
		s->conns[i] = -1;
	s->body = malloc(sizeof(*s->body));
	ret = s->body ? fill_address(conf, &s->un) : -ENOMEM;
	if (ret == 0)
		ret = start_listening(s);
	if (ret == 0) {
		ret = thread_start(&s->thread, "roots", server_thread, s);
	}
	if (ret < 0) {
		log_err("%s: cannot be listened on: %s", s->un.sun_path[0] ? s->un.sun_path : SOCKET_NAME,
			strerror(-ret));
		free_server(s);
		return ret;
	}
	*out = s;
	return 0;
}

void shortcut_server_stop(struct shortcut_server *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	while (write(s->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(s->thread, NULL);
	free_server(s);
}

/* ---- the mount ----------------------------------------------------------------------------- */

struct shortcut {
	pthread_mutex_t lock;	/* of the rest; held while somebody asks */
	struct sockaddr_un un;
	int fd;			/* -1: not connected */
	uint64_t id;
	uint64_t not_before_ns;	/* clock_mono_ns: there was silence */
	union msg_body *body;
};

int shortcut_open(struct shortcut **out, const struct instance_conf *conf)
{
	struct shortcut *s = calloc(1, sizeof(*s));

	if (s)
		s->body = malloc(sizeof(*s->body));
	if (!s || !s->body) {
		free(s);
		return -ENOMEM;
	}
	pthread_mutex_init(&s->lock, NULL);
	s->fd = -1;
	/* A path that is too long is nobody's: to connect fails, and the session is asked. */
	if (fill_address(conf, &s->un) < 0)
		s->un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*out = s;
	return 0;
}

void shortcut_close(struct shortcut *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	pthread_mutex_destroy(&s->lock);
	free(s->body);
	free(s);
}

static int connect_server(struct shortcut *s)
{
	s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return -errno;
	return connect(s->fd, (struct sockaddr *)&s->un, sizeof(s->un)) < 0 ? -errno : 0;
}

static int wait_answer(struct shortcut *s, struct msg_header *hdr)
{
	uint64_t now = clock_mono_ns(), end = now + ANSWER_MS * NSEC_PER_MSEC;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	for (; now < end; now = clock_mono_ns()) {
		int ms = (int)((end - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);

		if (poll(&p, 1, ms) > 0)
			return recv_frame(s->fd, hdr, s->body);
	}
	s->not_before_ns = now + PAUSE_NS;
	return -ETIMEDOUT;
}

static int ask(struct shortcut *s, uint64_t rid, uint64_t term, struct msg_get_roots_reply *reply)
{
	struct msg_header hdr = { .type = MSG_get_roots, .id = ++s->id, .term = term, .rid = rid };
	int ret = 0;

	if (s->fd < 0)
		ret = connect_server(s);
	if (ret == 0)
		ret = send_frame(s->fd, &hdr, NULL);
	if (ret == 0)
		ret = wait_answer(s, &hdr);
	if (ret == 0 && (hdr.type != MSG_get_roots_reply || hdr.id != s->id || hdr.term != term))
		ret = -EPROTO;
	if (ret < 0 && s->fd >= 0) {
		close(s->fd);
		s->fd = -1;
	}
	if (ret == 0)
		ret = hdr.error;
	if (ret == 0)
		*reply = s->body->get_roots_reply;
	return ret;
}

int shortcut_roots(struct shortcut *s, uint64_t rid, uint64_t term, struct msg_get_roots_reply *reply)
{
	int ret = -EAGAIN;

	if (pthread_mutex_trylock(&s->lock) != 0)
		return -EAGAIN;
	if (clock_mono_ns() >= s->not_before_ns)
		ret = ask(s, rid, term, reply);
	/* Of a server that went away since: the next one listens already, or nobody does. */
	if (ret == -EPIPE || ret == -ECONNRESET)
		ret = ask(s, rid, term, reply);
	pthread_mutex_unlock(&s->lock);
	return ret == 0 ? 0 : -EAGAIN;
}
