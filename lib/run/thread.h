/* Threads of the services: named, and without signals. */
#ifndef SCOUTFS_THREAD_H
#define SCOUTFS_THREAD_H

#include <pthread.h>

/* What the kernel keeps of a name, with its NUL. */
#define THREAD_NAME_BYTES	16u

/*
 * Start a thread that `top -H`, `ps -L` and debuggers show as name (at most THREAD_NAME_BYTES - 1 bytes).  It takes no
 * signal but those of its own faults: signals are for the service's main thread, or whom that has told off for them.
 * 0, -ENOMEM, -EAGAIN: the caller's to join or detach.
 */
int thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg);

#endif
