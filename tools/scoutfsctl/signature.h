/* Whether a device holds something that somebody may want to keep. */
#ifndef SCOUTFSCTL_SIGNATURE_H
#define SCOUTFSCTL_SIGNATURE_H

#include "tools/scoutfsctl/volume.h"

/*
 * Look for what mkfs must not overwrite unasked: file systems, volume managers, partition tables.
 * 1 with *name in words (a constant) if something is there, 0 if nothing known is, negative errno
 * if the device cannot be read.
 */
int signature_find(const struct device *d, const char **name);

#endif
