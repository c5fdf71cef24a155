/* The sets of metadata blocks of one mount: what they keep is a part of cache_size each, so memory is bounded by it. */
#ifndef SCOUTFS_FSD_BLOCKS_H
#define SCOUTFS_FSD_BLOCKS_H

#include "btree/block.h"
#include "buffers.h"
#include "fsd.h"

/* So many whatever cache_size is: less, and the ways down to the leaves are read again and again. */
#define BLOCKS_CLEAN_MIN	64u

/* What a set of the mount keeps of clean blocks: a part-th of cache_size, and most at most. */
static inline size_t blocks_clean_max(const struct fsd *fsd, unsigned part, size_t most)
{
	uint64_t nr = (fsd->conf.cache_size / part) >> LARGE_SHIFT;

	return nr < BLOCKS_CLEAN_MIN ? BLOCKS_CLEAN_MIN : nr < most ? (size_t)nr : most;
}

/* block_set_open() of the mount's volume with what blocks_clean_max() says, from buffers_pool. */
static inline int blocks_open(struct fsd *fsd, const struct block_dev *dev, unsigned part, size_t most,
			      struct block_set **bs)
{
	int ret = block_set_open(bs, dev, fsd->fsid, fsd->total_meta_blocks, blocks_clean_max(fsd, part, most));

	if (ret == 0)
		block_set_use_buffers(*bs, &buffers_pool);
	return ret;
}

#endif
