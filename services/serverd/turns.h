/* A mutex that one thread is always the next to have. */
#ifndef SCOUTFS_SERVERD_TURNS_H
#define SCOUTFS_SERVERD_TURNS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Begins as TURNS_INITIALIZER; the mutex is the caller's, and others may lock it as any other. */
struct turns {
	atomic_bool is_wanted;		/* by the one that goes first */
	pthread_cond_t had;		/* it has it */
};
#define TURNS_INITIALIZER { .had = PTHREAD_COND_INITIALIZER }

/* Lock m before all that wait in turns_lock and come to it later; one thread does so. */
void turns_lock_first(struct turns *t, pthread_mutex_t *m);
/* Lock m, after whoever wants to go first. */
void turns_lock(struct turns *t, pthread_mutex_t *m);
/* Whether that one waits now: who holds m is to end soon. */
bool turns_is_wanted(struct turns *t);

#endif
