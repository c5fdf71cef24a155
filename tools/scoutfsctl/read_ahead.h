/* Telling the kernel which blocks will be read soon, so that a walk keeps a device busy. */
#ifndef SCOUTFSCTL_READ_AHEAD_H
#define SCOUTFSCTL_READ_AHEAD_H

#include <stdint.h>

#include "volume.h"

/*
 * `block` has just been read from the metadata device and is not checked: if it looks like a parent, ask
 * for what it refers to, within total_blocks.  Never fails; at worst blocks are read that nobody wants.
 */
void read_ahead_children(const struct device *meta, uint64_t total_blocks, const void *block);

#endif
