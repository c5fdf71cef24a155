/*
 * The loop's work on the worker's thread.
 *
 * A wake-up costs more than most of what a mount asks for.  So while a server is up the worker's thread does the part
 * of the loop that answers: after each transaction, and when it has no task it listens instead of the loop's own thread,
 * which keeps to signals, terms and deadlines, and goes first (turns.h).
 *
 * Promise: whatever comes from the network is looked at by one of the two without waiting for a deadline.  The network's
 * descriptor tells of changes only, and to look at the network (dispatch, but also net_server_deadline) takes in what it
 * was about to tell.  So
 *
 * - who looks either serves what it finds, or wakes the loop for it;
 * - before the worker's thread waits, it has looked, and found nothing;
 * - one of the two waits for the descriptor at any time: the gate is closed to the loop's thread, under the lock, by
 *   who then waits itself, and opened after what was read has been served;
 * - what serving makes due earlier than the loop's thread waits for, it is woken for.
 */
#include "answer.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include "clock.h"

#define SERVE_TURNS	4u

int answer_init(struct answer *a, const struct answer_ops *ops, void *arg)
{
	a->ops = ops;
	a->arg = arg;
	a->gate_fd = epoll_create1(EPOLL_CLOEXEC);
	return a->gate_fd < 0 ? -errno : 0;
}

/* Which thread listens. */
static int set_gate(struct answer *a, int op, bool is_open)
{
	struct epoll_event ev = { .events = is_open ? EPOLLIN : 0 };

	return epoll_ctl(a->gate_fd, op, net_server_fd(a->ns), &ev) < 0 ? -errno : 0;
}

int answer_listen(struct answer *a, struct net_server *ns)
{
	int ret;

	a->ns = ns;
	ret = set_gate(a, EPOLL_CTL_ADD, true);
	if (ret < 0)
		a->ns = NULL;
	return ret;
}

void answer_unlisten(struct answer *a)
{
	/* The worker's thread may be waiting there still, which keeps the descriptor's file. */
	(void)set_gate(a, EPOLL_CTL_DEL, false);
	a->ns = NULL;
}

int answer_fd(const struct answer *a)
{
	return a->gate_fd;
}

void answer_loop_waits(struct answer *a, uint64_t until_ns)
{
	a->loop_until_ns = until_ns;
}

static bool is_serving(const struct answer *a)
{
	return a->ns && a->ops->is_up(a->arg);
}

static bool is_due_earlier(const struct answer *a)
{
	return net_server_deadline(a->ns) < a->loop_until_ns || a->ops->deadline(a->arg) < a->loop_until_ns;
}

/* With the lock held.  What it leaves, or what is due earlier now, the loop is woken for. */
static void serve(struct answer *a)
{
	for (unsigned i = 0; i < SERVE_TURNS && is_serving(a); i++) {
		uint64_t now = clock_mono_ns();

		a->ops->dispatch(a->arg, now);
		if ((a->ns && net_server_deadline(a->ns) > now) || turns_is_wanted(&a->turns))
			break;
	}
	if (!is_serving(a) || is_due_earlier(a))
		a->ops->wake_loop(a->arg);
}

bool answer_tasks_done(struct answer *a)
{
	bool is_up;

	turns_lock(&a->turns, &a->lock);
	is_up = is_serving(a);
	if (is_up)
		serve(a);
	pthread_mutex_unlock(&a->lock);
	return is_up;
}

bool answer_idle(struct answer *a, int wake_fd)
{
	struct pollfd fds[2] = { { .fd = wake_fd, .events = POLLIN }, { .events = POLLIN } };
	bool listens;

	turns_lock(&a->turns, &a->lock);
	/* To look takes in what would have woken the loop: what is found then is served, or the loop told of. */
	if (is_serving(a) && net_server_deadline(a->ns) == 0)
		serve(a);
	listens = is_serving(a) && net_server_deadline(a->ns) > 0 && set_gate(a, EPOLL_CTL_MOD, false) == 0;
	if (listens)
		fds[1].fd = net_server_fd(a->ns);
	else if (is_serving(a))
		a->ops->wake_loop(a->arg);
	pthread_mutex_unlock(&a->lock);
	if (!listens)
		return false;
	(void)poll(fds, 2, -1);
	turns_lock(&a->turns, &a->lock);
	if (fds[1].revents && is_serving(a))
		serve(a);
	/* Afterwards, or the loop's thread would be woken for what was just read. */
	if (a->ns)
		(void)set_gate(a, EPOLL_CTL_MOD, true);
	pthread_mutex_unlock(&a->lock);
	return true;
}
