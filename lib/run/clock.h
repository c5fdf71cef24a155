/* The three clocks of the services.  None can fail; any thread. */
#ifndef SCOUTFS_CLOCK_H
#define SCOUTFS_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_MSEC	1000000ull
#define NSEC_PER_SEC	1000000000ull

/* Time for waits and timeouts: stands still while the machine is suspended. */
uint64_t clock_mono_ns(void);
/* Time for leases: goes on while the machine is suspended (design.md D6). */
uint64_t clock_boot_ns(void);
/* The time of day, for what is stored or shown. */
struct timespec clock_real(void);

#endif
