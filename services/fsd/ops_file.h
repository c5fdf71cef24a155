/* What data.c and ops_file.c share. */
#ifndef SCOUTFS_FSD_OPS_FILE_H
#define SCOUTFS_FSD_OPS_FILE_H

#include "data.h"
#include "extents.h"

/* Add an extent to, or take it from, the inode's counters. */
void data_count(struct cinode *ci, const struct data_extent *e, bool added);
/* For run(): the block must be in the pool; OP_PARKED until it has been read. */
int data_need_page(struct op *op, uint64_t ino, uint64_t iblock, uint64_t blkno);

#endif
