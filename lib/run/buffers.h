/* Buffers of LARGE_SIZE for the blocks of this process's block sets.  Any thread. */
#ifndef SCOUTFS_BUFFERS_H
#define SCOUTFS_BUFFERS_H

#include <stddef.h>

#include "btree/block.h"

/* How many buffers that nobody uses are kept at most. */
#define BUFFERS_SPARE_MAX	32u

/* For block_set_use_buffers(); there is one for all sets, and it is never gone. */
extern const struct block_buffers buffers_pool;

/* How many are in use, and how many of those that are not are kept. */
void buffers_count(size_t *used, size_t *spare);

#endif
