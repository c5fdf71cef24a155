/* The threads that take the kernel's requests: how many there are, and how they end.  design.md D4. */
#ifndef SCOUTFS_FSD_SERVING_H
#define SCOUTFS_FSD_SERVING_H

#include <stdbool.h>

#define SERVING_THREADS	10u	/* at most, with those in reserve */
#define SERVING_WATCH_MS 25u	/* all are busy for so long, and take nothing: one of the reserve is called */

/* What a thread does.  All calls but fail() are made without a lock. */
struct serving_calls {
	/* What the thread needs for a request; NULL: no memory.  end() frees it. */
	void *(*begin)(void *arg);
	void (*end)(void *arg, void *mine);
	/* Wait for a request: > 0: it is in mine; 0: no more come; -EINTR, -EAGAIN: try again; -errno: all end with it. */
	int (*take)(void *arg, void *mine);
	void (*serve)(void *arg, void *mine);
	/* take() has failed: let nobody take anything any more. */
	void (*fail)(void *arg);
};

struct serving;

/* As many threads as are `enough` (0: half as many as processors) take requests, others are in reserve.  NULL: no memory. */
struct serving *serving_new(const struct serving_calls *calls, void *arg, unsigned enough);
/* Serve until no more requests come, or serving_stop; when it returns no thread is left.  0, or take()'s error; once. */
int serving_run(struct serving *s);
/* No more requests are taken, ever; returns when that is so, and what is being served is served.  Any other thread. */
void serving_stop(struct serving *s);
bool serving_is_stopped(const struct serving *s);
/* How often serving_run has looked whether all are busy, which is not at all while one waits for a request. */
unsigned serving_looks(const struct serving *s);
void serving_free(struct serving *s);

#endif
