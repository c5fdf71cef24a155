/*
 * A session's calls and answers, for whichever thread: they are put into the inbox, and sent from there by who finds
 * `home` free, else by the home thread (net_client.c), which is rung unless it is about to look anyway.
 *
 * Waiting for an answer is a call whose end wakes the waiter; one that gives up leaves it to be freed by that end.  One
 * of those that wait for as long as it takes listens: it waits at the socket and reads what comes, be it for others.
 * It leaves that to the home thread when it has its answer, or the socket is gone.
 */
#include "net_client_impl.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "zmqu.h"

void net_client_ring(int fd)
{
	uint64_t one = 1;

	/* It can only fail by being rung already. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

void net_client_wake(struct net_client *nc)
{
	net_client_ring(nc->wake_fd);
}

/* There is something in the inbox. */
static void hand_over(struct net_client *nc, bool is_awake)
{
	bool is_sent = false;

	if (is_awake)
		return;
	/* From a callback it is this thread that has it, and the home thread is rung. */
	if (nc->has_thread && pthread_mutex_trylock(&nc->home) == 0) {
		is_sent = net_client_send_inbox(nc);
		pthread_mutex_unlock(&nc->home);
	}
	if (!is_sent)
		net_client_wake(nc);
}

/* With the mutex held. */
static void inbox_add(struct net_client *nc, struct session_out *o)
{
	o->next = NULL;
	if (nc->inbox_last)
		nc->inbox_last->next = o;
	else
		nc->inbox_first = o;
	nc->inbox_last = o;
}

int net_client_call(struct net_client *nc, unsigned type, const void *msg, net_client_done done,
		    void *arg)
{
	struct session_out *o;
	bool is_awake;
	int ret;

	if (!msg_is_from(type, MSG_FROM_CLIENT) || !msg_reply_type(type))
		return -EINVAL;
	ret = session_out_alloc(&o, type, 0, msg);
	if (ret < 0)
		return ret;
	o->done = done;
	o->arg = arg;
	pthread_mutex_lock(&nc->mutex);
	if (nc->fenced)
		ret = -ENOLINK;
	else if (nc->stopping)
		ret = -ESHUTDOWN;
	else if (nc->open_calls >= NET_CLIENT_CALLS_MAX)
		ret = -EBUSY;
	if (ret == 0) {
		nc->open_calls++;
		nc->stats.calls++;
		inbox_add(nc, o);
	}
	is_awake = nc->is_awake;
	pthread_mutex_unlock(&nc->mutex);
	if (ret < 0)
		session_out_free(o);
	else
		hand_over(nc, is_awake);
	return ret;
}

struct sync_call {
	struct net_client *nc;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool is_done;
	bool is_left;		/* the waiter has given up: done frees this */
	bool is_polling;	/* it waits at the socket, and is to be rung */
	int err;
	void *reply;
};

static void sync_done(void *arg, int err, unsigned type, const void *reply)
{
	struct sync_call *c = arg;
	struct net_client *nc = c->nc;
	bool is_left;

	pthread_mutex_lock(&c->mutex);
	c->err = err;
	if (!err && c->reply && reply)
		memcpy(c->reply, reply, msg_struct_bytes(type));
	c->is_done = true;
	is_left = c->is_left;
	if (c->is_polling)
		net_client_ring(nc->listen_fd);
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->mutex);
	if (is_left) {
		pthread_mutex_destroy(&c->mutex);
		pthread_cond_destroy(&c->cond);
		free(c);
	}
}

/* Whether there is an answer; polls: and if there is none it is waited for at the socket now. */
static bool is_answered(struct sync_call *c, bool polls)
{
	bool is_done;

	pthread_mutex_lock(&c->mutex);
	is_done = c->is_done;
	c->is_polling = polls && !is_done;
	pthread_mutex_unlock(&c->mutex);
	return is_done;
}

/* Until there is the answer, or the home thread is to wait for it. */
static void listen_for(struct net_client *nc, struct sync_call *c)
{
	struct pollfd fds[2] = { { .events = POLLIN }, { .fd = nc->listen_fd, .events = POLLIN } };
	uint64_t count;

	if (!nc->has_thread || pthread_mutex_trylock(&nc->home) != 0)
		return;
	if (!net_client_listen_begin(nc)) {
		pthread_mutex_unlock(&nc->home);
		return;
	}
	fds[0].fd = zmqu_fd(nc->sock);
	while (nc->is_listening && !is_answered(c, false)) {
		int events = zmqu_events(nc->sock);

		/* The home thread does not hear it any more, and is to go on sending. */
		if (nc->is_blocked && events & ZMQ_POLLOUT)
			net_client_wake(nc);
		if (events & ZMQ_POLLIN) {
			net_client_read(nc);
			continue;
		}
		if (is_answered(c, true))
			break;
		pthread_mutex_unlock(&nc->home);
		(void)poll(fds, 2, -1);
		pthread_mutex_lock(&nc->home);
		if (fds[1].revents && read(nc->listen_fd, &count, sizeof(count)) < 0)
			count = 0;
	}
	is_answered(c, false);
	net_client_listen_end(nc);
	pthread_mutex_unlock(&nc->home);
}

/* *err is the answer's.  False: there is none in time, and who brings one frees c. */
static bool wait_for(struct sync_call *c, unsigned timeout_ms, int *err)
{
	uint64_t end_ns = clock_mono_ns() + timeout_ms * NSEC_PER_MSEC;
	bool is_left;
	int ret = 0;

	pthread_mutex_lock(&c->mutex);
	while (!c->is_done && ret != ETIMEDOUT)
		ret = timeout_ms ? clock_cond_wait(&c->cond, &c->mutex, end_ns) :
				   pthread_cond_wait(&c->cond, &c->mutex);
	is_left = c->is_left = !c->is_done;
	if (is_left)
		c->reply = NULL;
	*err = is_left ? -ETIMEDOUT : c->err;
	pthread_mutex_unlock(&c->mutex);
	return !is_left;
}

static void count_waiting(struct net_client *nc, unsigned more)
{
	pthread_mutex_lock(&nc->mutex);
	nc->waiting += more;
	if (!nc->waiting)
		pthread_cond_signal(&nc->left);
	pthread_mutex_unlock(&nc->mutex);
}

static int call_and_wait(struct net_client *nc, unsigned type, const void *msg, void *reply,
			 unsigned timeout_ms)
{
	struct sync_call *c = calloc(1, sizeof(*c));
	bool is_left = false;
	int ret;

	if (!c)
		return -ENOMEM;
	c->nc = nc;
	c->reply = reply;
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->cond, NULL);

	count_waiting(nc, 1);
	ret = net_client_call(nc, type, msg, sync_done, c);
	if (ret == 0) {
		if (!timeout_ms)
			listen_for(nc, c);
		is_left = !wait_for(c, timeout_ms, &ret);
	}
	count_waiting(nc, -1u);
	if (is_left)
		return ret;
	pthread_mutex_destroy(&c->mutex);
	pthread_cond_destroy(&c->cond);
	free(c);
	return ret;
}

int net_client_call_sync(struct net_client *nc, unsigned type, const void *msg, void *reply)
{
	return call_and_wait(nc, type, msg, reply, 0);
}

void net_client_respond(struct net_client *nc, struct net_req *req, int err, unsigned type,
			const void *msg)
{
	unsigned reply_type = msg_reply_type(req->type);
	struct session_out *o;
	bool is_awake;
	int ret;

	assert(req->nc == nc);
	if (!err && type != reply_type)
		err = -EIO;
	ret = session_out_alloc(&o, reply_type ? reply_type : MSG_pong, err, msg);
	if (ret == -EINVAL)
		ret = session_out_alloc(&o, reply_type, -EIO, NULL);
	/* The server waits for this answer; without it locks of the whole cluster would hang. */
	if (ret == -ENOMEM) {
		log_err("no memory to answer the server's %s: giving up", msg_name(req->type));
		abort();
	}
	o->link.id = req->id;
	o->tag = req->term;
	free(req);
	pthread_mutex_lock(&nc->mutex);
	inbox_add(nc, o);
	is_awake = nc->is_awake;
	pthread_mutex_unlock(&nc->mutex);
	hand_over(nc, is_awake);
}

/* From now on gone is asked before each connect.  False: no server knows us. */
static bool begin_farewell(struct net_client *nc, int (*gone)(void *arg), void *arg)
{
	bool is_known;

	pthread_mutex_lock(&nc->mutex);
	is_known = nc->stats.term;
	if (is_known) {
		nc->gone = gone;
		nc->gone_arg = arg;
	}
	pthread_mutex_unlock(&nc->mutex);
	return is_known;
}

int net_client_call_farewell(struct net_client *nc, int (*gone)(void *arg), void *gone_arg,
			     net_client_done done, void *arg)
{
	if (!begin_farewell(nc, gone, gone_arg))
		return -ENOTCONN;
	return net_client_call(nc, MSG_farewell, NULL, done, arg);
}

int net_client_farewell(struct net_client *nc, int (*gone)(void *arg), void *arg,
			unsigned timeout_ms)
{
	if (!begin_farewell(nc, gone, arg))
		return 0;
	return call_and_wait(nc, MSG_farewell, NULL, NULL, timeout_ms);
}

void net_client_get_stats(struct net_client *nc, struct net_client_stats *st)
{
	pthread_mutex_lock(&nc->mutex);
	*st = nc->stats;
	st->pending = nc->open_calls;
	pthread_mutex_unlock(&nc->mutex);
}
