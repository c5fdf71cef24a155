/*
 * The services of this host: who leads goes out to all of them, serverd's state comes in.
 *
 * Everything is repeated by both sides, so a lost line costs half a second.  serverd is known by a
 * descriptor of its process: it counts as gone only when the process has ended, not when the line
 * is cut, and one that is silent for the heartbeat timeout is killed, which on the same host is a
 * true fence together with blockd's tokens (runtime.md 1.8, design.md D6).
 */
#include "quorumd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "zmqu.h"

#define LOCALS_MAX	64u
#define REPEAT_NS	(500 * NSEC_PER_MSEC)
#define FORGET_NS	(10 * NSEC_PER_SEC)	/* a service repeats itself twice a second */
#define FRAME_BYTES	1024u
#define BATCH		256
#define SERVER_COMM	"scoutfs-serverd"	/* the kernel keeps 15 bytes of a name */
#define SOCKET_MODE	0660

struct service {
	struct zmqu_ident ident;
	uint8_t kind;
	uint32_t pid;
	uint64_t heard_ns;
	bool is_known;		/* it has said hello, under our rid */
};

struct local {
	struct quorumd *qd;
	void *sock;
	int epoll_fd;
	size_t services_nr;
	struct service services[LOCALS_MAX];
	bool has_state;			/* until there is one nobody is told anything */
	struct msg_leader_state state;
	uint64_t next_repeat_ns;
	uint32_t server_pid;		/* 0: none */
	int server_fd;			/* its pidfd */
	uint64_t server_heard_ns;
	bool has_server_state, is_killed;
	struct msg_server_state server_state;
	uint8_t buf[FRAME_BYTES];
	union msg_body body;
};

static struct service *find_service(struct local *l, const struct zmqu_ident *ident)
{
	for (size_t i = 0; i < l->services_nr; i++) {
		if (l->services[i].ident.len == ident->len &&
		    memcmp(l->services[i].ident.bytes, ident->bytes, ident->len) == 0)
			return &l->services[i];
	}
	return NULL;
}

static void forget_service(struct local *l, struct service *s)
{
	*s = l->services[--l->services_nr];
}

static int say(struct local *l, const struct zmqu_ident *to, unsigned type, const void *body)
{
	struct msg_header hdr = { .type = (uint16_t)type, .rid = l->qd->rid };

	return zmqu_send_msg(l->sock, to, &hdr, body, l->buf, sizeof(l->buf));
}

/* What the members say of themselves, ourselves too; serverd tells it to those who ask how the cluster is. */
static void say_members(struct local *l, const struct zmqu_ident *to, uint64_t now)
{
	const struct quorumd *qd = l->qd;
	struct msg_quorum_members m = { 0 };

	for (uint8_t i = 0; i < QUORUM_SLOTS_MAX; i++) {
		const struct quorum_peer *p = &qd->q.peers[i];
		struct msg_quorum_member *out = &m.members[m.members_nr];

		if (!(qd->present & 1u << i))
			continue;
		m.members_nr++;
		*out = (struct msg_quorum_member){ .slot = i, .addr = qd->addrs[i], .port = qd->ports[i],
						   .voted_for = MSG_NO_SLOT, .said_ms = UINT64_MAX };
		if (i == qd->slot) {
			out->role = (uint8_t)qd->q.role;
			out->term = qd->q.term;
			out->voted_for = qd->q.voted_for;
			out->resigned = qd->q.resigned;
			out->said_ms = 0;
		} else if (p->is_heard) {
			out->role = p->role;
			out->term = p->term;
			out->voted_for = p->voted_for;
			out->resigned = p->resigned_seen;
			out->said_ms = now > p->heard_ns ? (now - p->heard_ns) / NSEC_PER_MSEC : 0;
		}
	}
	say(l, to, MSG_quorum_members, &m);
}

static void say_to_all(struct local *l, uint64_t now)
{
	l->next_repeat_ns = now + REPEAT_NS;
	for (size_t i = l->services_nr; i > 0; i--) {
		struct service *s = &l->services[i - 1];

		if (now >= s->heard_ns + FORGET_NS ||
		    (l->has_state &&
		     say(l, &s->ident, MSG_leader_state, &l->state) == -EHOSTUNREACH))
			forget_service(l, s);
		else if (s->is_known && s->kind == LOCAL_SERVERD)
			say_members(l, &s->ident, now);
	}
}

void local_tell(struct local *l, const struct msg_leader_state *st)
{
	l->state = *st;
	l->has_state = true;
	l->next_repeat_ns = 0;
}

/* A serverd has said hello: know its process. */
static void meet_server(struct local *l, uint32_t pid, uint64_t now)
{
	int fd;

	if (l->server_pid == pid) {
		l->server_heard_ns = now;
		return;
	}
	/* One that we know is alive until its descriptor says otherwise. */
	if (l->server_pid)
		return;
	fd = pidfd_open((pid_t)pid, 0);
	if (fd < 0) {
		if (errno != ESRCH)
			log_err("serverd (pid %u) cannot be watched: %s", pid, strerror(errno));
		return;
	}
	l->server_pid = pid;
	l->server_fd = fd;
	l->server_heard_ns = now;
	l->has_server_state = l->is_killed = false;
	log_info("serverd (pid %u) is here", pid);
}

static void handle_hello(struct local *l, const struct zmqu_ident *from,
			 const struct msg_local_hello *h, uint64_t now)
{
	struct service *s = find_service(l, from);

	if (!s && l->services_nr == LOCALS_MAX) {
		stats_inc(&l->qd->stats.local_refused);
		return;
	}
	if (!s) {
		s = &l->services[l->services_nr++];
		*s = (struct service){ .ident = *from };
	}
	s->kind = h->kind;
	s->pid = h->pid;
	s->heard_ns = now;
	s->is_known = h->rid == l->qd->rid;
	if (!s->is_known && h->kind == LOCAL_SERVERD)
		log_err("serverd (pid %u) belongs to an earlier run of this instance (rid %016" PRIx64
			", ours is %016" PRIx64 "); restart it",
			h->pid, h->rid, l->qd->rid);
	if (s->is_known && h->kind == LOCAL_SERVERD && h->pid)
		meet_server(l, h->pid, now);
	if (l->has_state)
		say(l, from, MSG_leader_state, &l->state);
}

static void handle_server_state(struct local *l, const struct service *s,
				const struct msg_server_state *st)
{
	struct quorum_in in = {
		.kind = QUORUM_IN_SERVER_STATE,
		.term = st->term,
		.status = (enum server_status)st->state,
	};

	if (!s || !s->is_known || s->kind != LOCAL_SERVERD || s->pid != l->server_pid) {
		stats_inc(&l->qd->stats.local_refused);
		return;
	}
	l->server_state = *st;
	l->has_server_state = true;
	quorumd_event(l->qd, &in);
}

static void handle(struct local *l, struct zmqu_frame *f, uint64_t now)
{
	struct msg_header hdr = { 0 };
	struct service *s;

	if (msg_get(zmq_msg_data(&f->msg), zmq_msg_size(&f->msg), &hdr, &l->body) < 0 ||
	    hdr.error) {
		stats_inc(&l->qd->stats.local_refused);
		return;
	}
	stats_inc(&l->qd->stats.local_messages);
	s = find_service(l, &f->from);
	if (s)
		s->heard_ns = now;
	if (s && s->is_known && s->kind == LOCAL_SERVERD && s->pid == l->server_pid)
		l->server_heard_ns = now;
	if (hdr.type == MSG_local_hello)
		handle_hello(l, &f->from, &l->body.local_hello, now);
	else if (hdr.type == MSG_server_state)
		handle_server_state(l, s, &l->body.server_state);
	else if (hdr.type != MSG_pong)
		stats_inc(&l->qd->stats.local_refused);
}

void local_server_ended(struct local *l)
{
	if (l->server_fd >= 0)
		close(l->server_fd);
	l->server_fd = -1;
	l->server_pid = 0;
	l->has_server_state = false;
}

void local_kill_server(struct local *l)
{
	char path[64], comm[32] = "";
	FILE *f;

	if (!l->server_pid || l->is_killed)
		return;
	l->is_killed = true;
	/* It is the process that said hello; what it said of itself is looked at all the same. */
	snprintf(path, sizeof(path), "/proc/%u/comm", l->server_pid);
	f = fopen(path, "re");
	if (f && !fgets(comm, sizeof(comm), f))
		comm[0] = 0;
	if (f)
		fclose(f);
	if (strncmp(comm, SERVER_COMM, sizeof(SERVER_COMM) - 1) != 0) {
		log_err("pid %u has said that it is serverd but is '%.15s': it is not killed; end it",
			l->server_pid, comm);
		return;
	}
	log_err("serverd (pid %u) does not answer or does not stop within %u ms: it is killed",
		l->server_pid, l->qd->conf.heartbeat_timeout_ms);
	stats_inc(&l->qd->stats.server_killed);
	if (pidfd_send_signal(l->server_fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		log_err("serverd (pid %u) cannot be killed: %s", l->server_pid, strerror(errno));
}

bool local_server_state(const struct local *l, struct msg_server_state *st)
{
	if (!l->server_pid || !l->has_server_state)
		return false;
	*st = l->server_state;
	return true;
}

void local_dispatch(struct local *l, uint64_t now)
{
	if (l->server_pid && now >= l->server_heard_ns +
	    l->qd->conf.heartbeat_timeout_ms * NSEC_PER_MSEC)
		local_kill_server(l);
	if (now >= l->next_repeat_ns)
		say_to_all(l, now);
	/* After the last send: the descriptor tells of changes only. */
	for (int i = 0; i < BATCH; i++) {
		struct zmqu_frame f;
		int ret = zmqu_recv(l->sock, 1, &f);

		if (ret == -EAGAIN)
			return;
		if (ret < 0) {
			stats_inc(&l->qd->stats.local_refused);
			continue;
		}
		handle(l, &f, now);
		zmqu_frame_close(&f);
	}
	l->next_repeat_ns = 0;	/* there is more: come back at once */
}

uint64_t local_deadline(const struct local *l)
{
	uint64_t t = l->next_repeat_ns;

	if (l->server_pid && !l->is_killed &&
	    l->server_heard_ns + l->qd->conf.heartbeat_timeout_ms * NSEC_PER_MSEC < t)
		t = l->server_heard_ns + l->qd->conf.heartbeat_timeout_ms * NSEC_PER_MSEC;
	return t;
}

int local_fd(const struct local *l)
{
	return l->epoll_fd;
}

int local_server_fd(const struct local *l)
{
	return l->server_fd;
}

int local_open(struct local **out, struct quorumd *qd)
{
	struct local *l = calloc(1, sizeof(*l));
	struct epoll_event ev = { .events = EPOLLIN };
	char path[CONF_PATH_BYTES + 32];
	int ret;

	if (!l)
		return -ENOMEM;
	l->qd = qd;
	l->server_fd = -1;
	conf_runtime_path(&qd->conf, "quorumd.sock", path, sizeof(path));
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ret = l->epoll_fd < 0 ? -errno : 0;
	ret = ret ?: zmqu_router(qd->zmq_ctx, 0, &l->sock);
	ret = ret ?: zmqu_bind_ipc(l->sock, path, SOCKET_MODE);
	if (ret == 0 && epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, zmqu_fd(l->sock), &ev) < 0)
		ret = -errno;
	if (ret < 0) {
		log_err("%s: %s%s", path, strerror(-ret),
			ret == -EADDRINUSE ? "; quorumd of this instance runs already" : "");
		local_close(l);
		return ret;
	}
	*out = l;
	return 0;
}

void local_close(struct local *l)
{
	if (!l)
		return;
	local_server_ended(l);
	zmqu_close(l->sock);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	free(l);
}
