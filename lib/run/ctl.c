/*
 * The status socket: one thread, one ROUTER, one answer for each question.
 *
 * It touches nothing of its service but through the two callbacks, so a service that hangs still
 * says who it is, as far as its callback answers.  Asking is done with a context of its own and a
 * deadline: a service that does not answer costs the asker its patience and nothing else.
 */
#include "ctl.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "thread.h"
#include "zmqu.h"

#define SOCKET_MODE	0660

struct ctl {
	pthread_t thread;
	int stop_fd;
	void *zmq_ctx, *sock;
	struct ctl_ops ops;
	void *arg;
	char path[CONF_PATH_BYTES + 32];
	char service[32];
	uint8_t *buf;
	union msg_body *in, *out;
};

void ctl_path(const struct instance_conf *conf, const char *service, char *buf, size_t size)
{
	char name[64];

	snprintf(name, sizeof(name), "ctl-%.32s.sock", service);
	conf_runtime_path(conf, name, buf, size);
}

void ctl_add_value(struct msg_status_reply *reply, const char *name, uint64_t value)
{
	struct msg_stat_value *v;

	if (reply->values_nr == STATUS_VALUES_MAX)
		return;
	v = &reply->values[reply->values_nr++];
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->value = value;
}

void ctl_add_text(struct msg_status_reply *reply, const char *name, const char *fmt, ...)
{
	struct msg_stat_text *t;
	va_list args;

	if (reply->texts_nr == STATUS_TEXTS_MAX)
		return;
	t = &reply->texts[reply->texts_nr++];
	snprintf(t->name, sizeof(t->name), "%s", name);
	va_start(args, fmt);
	vsnprintf(t->text, sizeof(t->text), fmt, args);
	va_end(args);
}

void ctl_add_stats(struct msg_status_reply *reply, const struct stats_desc *descs, size_t nr,
		   const void *stats)
{
	for (size_t i = 0; i < nr; i++)
		ctl_add_value(reply, descs[i].name, stats_get_nth(stats, i));
}

static void answer_status(struct ctl *c, struct msg_status_reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	snprintf(reply->service, sizeof(reply->service), "%s", c->service);
	snprintf(reply->version, sizeof(reply->version), "%s", SCOUTFS_VERSION);
	reply->pid = (uint32_t)getpid();
	c->ops.fill_status(c->arg, reply);
}

static void answer_command(struct ctl *c, const struct msg_ctl_command *cmd,
			   struct msg_ctl_reply *reply)
{
	int ret = -EOPNOTSUPP;

	memset(reply, 0, sizeof(*reply));
	if (c->ops.command)
		ret = c->ops.command(c->arg, cmd->verb, cmd->arg, reply->text, sizeof(reply->text));
	reply->code = errors_to_wire(ret);
	if (ret < 0 && !reply->text[0])
		snprintf(reply->text, sizeof(reply->text), "%s: %s: %s", c->service, cmd->verb,
			 strerror(-ret));
}

static bool is_cluster(unsigned type)
{
	return type == MSG_cluster_status || type == MSG_cluster_mounts || type == MSG_cluster_waits;
}

static void answer(struct ctl *c, struct zmqu_frame *f)
{
	struct msg_header in = { 0 }, out = { .flags = MSG_FLAG_RESPONSE };
	int ret;

	ret = msg_get(zmq_msg_data(&f->msg), zmq_msg_size(&f->msg), &in, c->in);
	out.id = in.id;
	if (ret == 0 && in.type == MSG_status_request) {
		out.type = MSG_status_reply;
		answer_status(c, &c->out->status_reply);
	} else if (ret == 0 && in.type == MSG_ctl_command && !in.error) {
		out.type = MSG_ctl_reply;
		answer_command(c, &c->in->ctl_command, &c->out->ctl_reply);
	} else if (ret == 0 && !in.error && is_cluster(in.type)) {
		out.type = (uint16_t)msg_reply_type(in.type);
		out.error = c->ops.cluster ? c->ops.cluster(c->arg, in.type, c->in, c->out) : -EOPNOTSUPP;
	} else {
		return;
	}
	/* An asker that is gone, or takes nothing, has its own deadline. */
	zmqu_send_msg(c->sock, &f->from, &out, c->out, c->buf, MSG_FRAME_MAX);
}

static void *ctl_thread(void *arg)
{
	struct ctl *c = arg;

	for (;;) {
		zmq_pollitem_t items[2] = {
			{ .fd = c->stop_fd, .events = ZMQ_POLLIN },
			{ .socket = c->sock, .events = ZMQ_POLLIN },
		};
		struct zmqu_frame f;
		int ret;

		if (zmq_poll(items, 2, -1) < 0 && errno != EINTR)
			log_err("status socket %s: waiting failed: %s", c->path, strerror(errno));
		if (items[0].revents)
			return NULL;
		while ((ret = zmqu_recv(c->sock, 1, &f)) != -EAGAIN) {
			if (ret < 0)
				continue;
			answer(c, &f);
			zmqu_frame_close(&f);
		}
	}
}

static void free_ctl(struct ctl *c)
{
	zmqu_close(c->sock);
	if (c->zmq_ctx)
		zmq_ctx_term(c->zmq_ctx);
	if (c->stop_fd >= 0)
		close(c->stop_fd);
	free(c->buf);
	free(c->in);
	free(c->out);
	free(c);
}

int ctl_start(struct ctl **out, const struct instance_conf *conf, const char *service,
	      const struct ctl_ops *ops, void *arg)
{
	struct ctl *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return -ENOMEM;
	c->ops = *ops;
	c->arg = arg;
	snprintf(c->service, sizeof(c->service), "%s", service);
	ctl_path(conf, service, c->path, sizeof(c->path));
	c->buf = malloc(MSG_FRAME_MAX);
	c->in = malloc(sizeof(*c->in));
	c->out = malloc(sizeof(*c->out));
	c->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->zmq_ctx = c->stop_fd >= 0 ? zmq_ctx_new() : NULL;
	ret = !c->zmq_ctx ? -errno : !c->buf || !c->in || !c->out ? -ENOMEM : 0;
	ret = ret ?: zmqu_router(c->zmq_ctx, 0, &c->sock);
	ret = ret ?: zmqu_bind_ipc(c->sock, c->path, SOCKET_MODE);
	if (ret == 0) {
		ret = thread_start(&c->thread, "control", ctl_thread, c);
	}
	if (ret < 0) {
		log_err("status socket %s: %s%s", c->path, strerror(-ret),
			ret == -EADDRINUSE ? "; this service of the instance runs already" : "");
		free_ctl(c);
		return ret;
	}
	*out = c;
	return 0;
}

void ctl_stop(struct ctl *c)
{
	uint64_t one = 1;

	if (!c)
		return;
	while (write(c->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(c->thread, NULL);
	free_ctl(c);
}

/* Whether anybody listens at path: ZeroMQ would wait for somebody to come.  So would connect(), where too many wait already. */
static int probe(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int ret, fd;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	ret = connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0 ? -errno : 0;
	close(fd);
	return ret == -EAGAIN ? 0 : ret;
}

/* One question, one answer of the type `want`, copied to reply. */
static int ask(const char *path, unsigned timeout_ms, unsigned type, const void *body,
	       unsigned want, void *reply)
{
	uint64_t end_ns = clock_mono_ns() + timeout_ms * NSEC_PER_MSEC;
	struct msg_header hdr = { .type = (uint16_t)type, .id = 1 };
	void *ctx = zmq_ctx_new(), *sock = NULL;
	union msg_body *in = malloc(sizeof(*in));
	uint8_t *buf = malloc(MSG_FRAME_MAX);
	struct zmqu_frame f;
	int ret;

	ret = !ctx || !in || !buf ? -ENOMEM : probe(path);
	ret = ret ?: zmqu_dealer(ctx, 0, &sock);
	ret = ret ?: zmqu_connect_ipc(sock, path);
	ret = ret ?: zmqu_send_msg(sock, NULL, &hdr, body, buf, MSG_FRAME_MAX);
	while (ret == 0 && (ret = zmqu_recv(sock, 0, &f)) == -EAGAIN) {
		zmq_pollitem_t item = { .socket = sock, .events = ZMQ_POLLIN };
		uint64_t now = clock_mono_ns();

		if (now >= end_ns) {
			ret = -ETIMEDOUT;
			break;
		}
		zmq_poll(&item, 1, (long)((end_ns - now) / NSEC_PER_MSEC + 1));
		ret = 0;
	}
	if (ret == 0) {
		ret = msg_get(zmq_msg_data(&f.msg), zmq_msg_size(&f.msg), &hdr, in);
		if (ret == 0 && hdr.type != want)
			ret = -EPROTO;
		if (ret == 0)
			ret = hdr.error;
		if (ret == 0)
			memcpy(reply, in, msg_struct_bytes(want));
		zmqu_frame_close(&f);
	}
	zmqu_close(sock);
	if (ctx)
		zmq_ctx_term(ctx);
	free(in);
	free(buf);
	return ret;
}

int ctl_query(const char *path, unsigned timeout_ms, struct msg_status_reply *reply)
{
	return ask(path, timeout_ms, MSG_status_request, NULL, MSG_status_reply, reply);
}

int ctl_cluster(const char *path, unsigned timeout_ms, unsigned type, const void *msg, void *reply)
{
	return ask(path, timeout_ms, type, msg, msg_reply_type(type), reply);
}

int ctl_do(const char *path, unsigned timeout_ms, const char *verb, const char *arg,
	   struct msg_ctl_reply *reply)
{
	struct msg_ctl_command cmd = { 0 };

	if (strlen(verb) >= sizeof(cmd.verb) || strlen(arg) >= sizeof(cmd.arg))
		return -EINVAL;
	strcpy(cmd.verb, verb);
	strcpy(cmd.arg, arg);
	return ask(path, timeout_ms, MSG_ctl_command, &cmd, MSG_ctl_reply, reply);
}
