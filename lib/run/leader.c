/*
 * The line to quorumd: a DEALER that is thrown away and made again whenever it may be dead.
 *
 * Both sides repeat what they have to say, so nothing is acknowledged and nothing has to be
 * remembered: the newest word counts.  While there is no line, quorumd's last word does not count
 * any more (it may have been restarted and know better); what a service does meanwhile is its own
 * rule (design.md D7).
 */
#include "leader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "zmqu.h"

#define RETRY_NS	(200 * NSEC_PER_MSEC)
#define REPEAT_NS	(500 * NSEC_PER_MSEC)
#define SILENT_NS	(5 * NSEC_PER_SEC) /* quorumd speaks twice a second: the line is dead */
#define FRAME_BYTES	1024u

struct leader {
	void *zmq_ctx, *sock, *mon;
	int epoll_fd;
	char path[CONF_PATH_BYTES + 32];
	enum local_kind kind;
	uint64_t rid;
	uint64_t next_try_ns;		/* without a socket */
	uint64_t next_repeat_ns, silent_ns;	/* with one */
	uint64_t last_heard_ns;
	bool has_state;
	struct msg_leader_state state;
	uint64_t members_ns;		/* when they were told; 0: never */
	struct msg_quorum_members members;
	bool has_report;
	struct msg_server_state report;
	uint8_t buf[FRAME_BYTES];
	union msg_body body;
};

static void drop(struct leader *l, uint64_t now)
{
	if (l->sock)
		zmq_socket_monitor(l->sock, NULL, 0);
	zmqu_close(l->mon);
	zmqu_close(l->sock);
	l->sock = l->mon = NULL;
	l->has_state = false;
	l->next_try_ns = now + RETRY_NS;
}

/* Say a message; what cannot be said now is repeated soon. */
static void say(struct leader *l, unsigned type, const void *body)
{
	struct msg_header hdr = { .type = (uint16_t)type, .rid = l->rid };

	if (l->sock)
		zmqu_send_msg(l->sock, NULL, &hdr, body, l->buf, sizeof(l->buf));
}

static void say_all(struct leader *l, uint64_t now)
{
	struct msg_local_hello hello = { (uint8_t)l->kind, l->rid, (uint32_t)getpid() };

	say(l, MSG_local_hello, &hello);
	if (l->has_report)
		say(l, MSG_server_state, &l->report);
	l->next_repeat_ns = now + REPEAT_NS;
}

static int watch(struct leader *l, void *sock)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int fd = zmqu_fd(sock);

	/* A closed socket's descriptor leaves the set by itself. */
	if (fd < 0)
		return fd;
	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static void try_connect(struct leader *l, uint64_t now)
{
	int ret;

	l->next_try_ns = now + RETRY_NS;
	if (access(l->path, F_OK) < 0)
		return;
	ret = zmqu_dealer(l->zmq_ctx, 0, &l->sock);
	ret = ret
		      ?: zmqu_monitor(l->zmq_ctx, l->sock,
				      ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED, &l->mon);
	ret = ret ?: zmqu_connect_ipc(l->sock, l->path);
	ret = ret ?: watch(l, l->sock);
	ret = ret ?: watch(l, l->mon);
	if (ret < 0) {
		log_warning("quorumd at %s: %s; trying again", l->path, strerror(-ret));
		drop(l, now);
		return;
	}
	l->silent_ns = now + SILENT_NS;
	say_all(l, now);
}

static void handle(struct leader *l, struct zmqu_frame *f, uint64_t now)
{
	struct msg_header hdr = { 0 };

	if (msg_get(zmq_msg_data(&f->msg), zmq_msg_size(&f->msg), &hdr, &l->body) < 0 || hdr.error)
		return;
	l->last_heard_ns = now;
	l->silent_ns = now + SILENT_NS;
	if (hdr.type == MSG_leader_state) {
		l->state = l->body.leader_state;
		l->has_state = true;
	} else if (hdr.type == MSG_quorum_members) {
		l->members = l->body.quorum_members;
		l->members_ns = now;
	} else if (hdr.type == MSG_ping) {
		struct msg_pong pong = { l->body.ping.cookie };

		say(l, MSG_pong, &pong);
	}
}

void leader_dispatch(struct leader *l, uint64_t now_ns)
{
	struct zmqu_frame f;
	bool is_cut = false;
	int event, value;

	if (!l->sock && now_ns >= l->next_try_ns)
		try_connect(l, now_ns);
	while (l->sock && zmqu_monitor_next(l->mon, &event, &value) == 0)
		is_cut = true;
	if (l->sock && now_ns >= l->next_repeat_ns)
		say_all(l, now_ns);
	/* After the last send, until dry: the descriptor tells of changes only. */
	for (int ret = 0; l->sock && ret != -EAGAIN;) {
		ret = zmqu_recv(l->sock, 0, &f);
		if (ret < 0)
			continue;
		handle(l, &f, now_ns);
		zmqu_frame_close(&f);
	}
	if (l->sock && (is_cut || now_ns >= l->silent_ns))
		drop(l, now_ns);
}

uint64_t leader_deadline(const struct leader *l)
{
	if (!l->sock)
		return l->next_try_ns;
	return l->next_repeat_ns < l->silent_ns ? l->next_repeat_ns : l->silent_ns;
}

int leader_fd(const struct leader *l)
{
	return l->epoll_fd;
}

bool leader_state(const struct leader *l, struct msg_leader_state *st)
{
	if (l->has_state)
		*st = l->state;
	return l->has_state;
}

uint64_t leader_last_heard_ns(const struct leader *l)
{
	return l->last_heard_ns;
}

void leader_members(const struct leader *l, uint64_t now_ns, struct msg_quorum_members *out)
{
	uint64_t age_ms = now_ns > l->members_ns ? (now_ns - l->members_ns) / NSEC_PER_MSEC : 0;

	memset(out, 0, sizeof(*out));
	if (!l->members_ns)
		return;
	*out = l->members;
	for (uint32_t i = 0; i < out->members_nr; i++) {
		if (out->members[i].said_ms != UINT64_MAX)
			out->members[i].said_ms += age_ms;
	}
}

void leader_report(struct leader *l, uint64_t term, enum server_status state)
{
	l->has_report = true;
	l->report = (struct msg_server_state){ term, (uint8_t)state };
	/* The next dispatch says it, which then reads until dry. */
	l->next_repeat_ns = 0;
}

int leader_open(struct leader **out, void *zmq_ctx, const struct instance_conf *conf,
		enum local_kind kind, uint64_t rid)
{
	struct leader *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->zmq_ctx = zmq_ctx;
	l->kind = kind;
	l->rid = rid;
	conf_runtime_path(conf, "quorumd.sock", l->path, sizeof(l->path));
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		int ret = -errno;

		free(l);
		return ret;
	}
	*out = l;
	return 0;
}

void leader_close(struct leader *l)
{
	if (!l)
		return;
	drop(l, 0);
	close(l->epoll_fd);
	free(l);
}
