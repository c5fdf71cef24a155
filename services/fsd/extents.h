/* Data extent items of one file inside a transaction: format.md 12.11. */
#ifndef SCOUTFS_FSD_EXTENTS_H
#define SCOUTFS_FSD_EXTENTS_H

#include "format/item_check.h"
#include "items.h"

/* The extent that contains iblock, or the next one.  -ENOENT: none; else as item_next. */
int extent_next(struct itx *tx, uint64_t ino, uint64_t iblock, struct data_extent *ext);
/* Whether ext (of extent_next) contains iblock. */
static inline bool extent_has(const struct data_extent *ext, uint64_t iblock)
{
	return ext->iblock <= iblock && iblock - ext->iblock < ext->len;
}
/* Add an extent where there is none, merged with its neighbours. */
int extent_add(struct itx *tx, uint64_t ino, struct data_extent ext);
/*
 * Take [iblock, iblock + len) out of the one extent it lies in; what is left on either side stays.
 * *cut is what the range held.  Nothing is freed.
 */
int extent_cut(struct itx *tx, uint64_t ino, uint64_t iblock, uint64_t len, struct data_extent *cut);

/* How an extent counts in the inode: blocks online, blocks offline. */
static inline bool extent_is_online(const struct data_extent *e)
{
	return e->blkno && e->flags == 0;
}
static inline bool extent_is_offline(const struct data_extent *e)
{
	return e->flags & EXTENT_FLAG_OFFLINE;
}

#endif
