/* The part of the loop that answers mounts, done by whichever thread is awake: the loop's or the worker's. */
#ifndef SCOUTFS_SERVERD_ANSWER_H
#define SCOUTFS_SERVERD_ANSWER_H

#include "net_server.h"
#include "turns.h"

struct answer_ops {
	/* Whether there is a server whose requests are to be looked at. */
	bool (*is_up)(void *arg);
	/* What has come from the network and what has become due, a bounded amount; it may end that server. */
	void (*dispatch)(void *arg, uint64_t now_ns);
	/* When that is due again for another reason than the network (clock_mono_ns). */
	uint64_t (*deadline)(void *arg);
	/* From any thread: the loop's own does not wait on. */
	void (*wake_loop)(void *arg);
};

/* In place; what is in it belongs to answer.c, but `lock` and `turns` are the loop's to take as well. */
struct answer {
	const struct answer_ops *ops;		/* called with the lock held, but wake_loop */
	void *arg;
	pthread_mutex_t lock;			/* the loop is whoever has it */
	struct turns turns;			/* the loop's own thread has it before the worker's */
	struct net_server *ns;			/* borrowed; NULL: nobody listens */
	int gate_fd;				/* epoll: the network, as long as it is the loop's thread that listens */
	uint64_t loop_until_ns;			/* the loop's own thread waits until then */
};
#define ANSWER_INITIALIZER { .lock = PTHREAD_MUTEX_INITIALIZER, .turns = TURNS_INITIALIZER, .gate_fd = -1 }

/* ops and arg must outlive a, an ANSWER_INITIALIZER.  -EMFILE, -ENFILE, -ENOMEM.  The process's end is its end. */
int answer_init(struct answer *a, const struct answer_ops *ops, void *arg);

/*
 * All that follows but the last two: with the lock held.
 *
 * From now on ns is listened to, until answer_unlisten, which comes before ns is closed.  -ENOMEM, -ENOSPC.
 */
int answer_listen(struct answer *a, struct net_server *ns);
void answer_unlisten(struct answer *a);

/* What the loop's own thread waits for besides its deadline: readable when the network is its business. */
int answer_fd(const struct answer *a);
/* It is about to wait until then, or until it is woken. */
void answer_loop_waits(struct answer *a, uint64_t until_ns);

/* On the worker's thread, without the lock: what struct worker_conf has tasks_done and idle for (worker.h). */
bool answer_tasks_done(struct answer *a);
bool answer_idle(struct answer *a, int wake_fd);

#endif
