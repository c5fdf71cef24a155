/* Whether anybody else uses a device or a file, and who: for device_open(). */
#ifndef SCOUTFSCTL_IN_USE_H
#define SCOUTFSCTL_IN_USE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "tools/scoutfsctl/volume.h"

/* For a holder that has died, and for one that was gone when it was looked for. */
struct in_use_waited {
	unsigned dead_ms, gone_ms;
};

/* The device is refused.  Whether to try again, for whoever has it has died, or only reads and may be done soon (a second
 * is given for that); a moment has passed then. */
bool in_use_wait_for_dead(const struct stat *st, struct in_use_waited *w);

/* Say on stderr under `verb` who has `path`, as far as that is known, and what to do.  -EBUSY. */
int in_use_say(const char *verb, const char *path, const struct stat *st);

/*
 * Look at what lies above and below an open device: loop devices over it, and what it is a loop
 * device over.  0: nobody uses them; with DEVICE_WRITE the loop devices over it are held until
 * in_use_release().  -EBUSY or another negative errno: said.
 */
int in_use_claim(struct device *d, const struct stat *st, enum device_use use, const char *verb);
/* Let go of what in_use_claim() has held; good for a device that holds nothing. */
void in_use_release(struct device *d);

#endif
