/* What a new volume consists of, block by block: format.md 17, 22. */
#ifndef SCOUTFS_MKFS_LAYOUT_H
#define SCOUTFS_MKFS_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "format/format.h"

struct mkfs_slot {
	bool is_used;
	uint16_t port;		/* numbers, not network order */
	uint32_t addr;
};

struct mkfs_params {
	unsigned fmt_vers;
	uint64_t fsid;
	uint8_t uuid[16];
	uint64_t now_sec;
	uint32_t now_nsec;			/* a multiple of 1000 */
	uint64_t total_meta_blocks;		/* large */
	uint64_t total_data_blocks;		/* small */
	uint64_t data_alloc_zone_blocks;	/* 0: option off */
	struct mkfs_slot slots[QUORUM_SLOTS_MAX];
	bool upstream_heights;			/* the odd AVL heights of 21.2, for tests */
};

enum mkfs_device { MKFS_META, MKFS_DATA };

/* How the blocks get to the devices.  Each returns 0 or a negative errno, which ends the layout. */
struct mkfs_ops {
	void *arg;
	int (*write)(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf, size_t len);
	int (*flush)(void *arg, enum mkfs_device dev);
};

/* The least total_meta_blocks and total_data_blocks that hold the initial structures. */
#define MKFS_META_BLOCKS_MIN	1033ull
#define MKFS_DATA_BLOCKS_MIN	65ull

/* 0, or -EINVAL with *why in words: everything mkfs_layout relies on (2.3, 5.1). */
int mkfs_params_check(const struct mkfs_params *p, const char **why);

/*
 * Write a volume: metadata, flush, the data super, flush, the metadata super, flush.  Until the
 * last write there is no valid metadata super of this volume.  p has been checked.  -ENOMEM, or
 * what an operation returned.
 */
int mkfs_layout(const struct mkfs_params *p, const struct mkfs_ops *ops);

#endif
