/* The three clocks of the services.  None can fail; any thread. */
#ifndef SCOUTFS_CLOCK_H
#define SCOUTFS_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define NSEC_PER_MSEC	1000000ull
#define NSEC_PER_SEC	1000000000ull

/* Time for waits and timeouts: stands still while the machine is suspended. */
uint64_t clock_mono_ns(void);
/* Time for leases: goes on while the machine is suspended (design.md D6). */
uint64_t clock_boot_ns(void);
/* The time of day, for what is stored or shown: nothing waits by it, for it may be set. */
struct timespec clock_real(void);

/*
 * pthread_cond_wait, until clock_mono_ns() is end_ns at the latest: 0, or ETIMEDOUT.  Any cond, of whichever
 * clock it was made.
 */
int clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t end_ns);

#endif
