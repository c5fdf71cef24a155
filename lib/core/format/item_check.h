/*
 * Whether an item may stand in a tree and whether its value is well formed: format.md
 * 7.4, 12, 20.11.  Everybody who uses the bytes of an item value calls this first.
 */
#ifndef SCOUTFS_ITEM_CHECK_H
#define SCOUTFS_ITEM_CHECK_H

#include "btree/btree_block.h"

enum tree_kind {
	TREE_FS,
	TREE_LOG_ITEMS,
	TREE_LOGS,
	TREE_LOG_MERGE,
	TREE_MOUNTED_CLIENTS,
	TREE_SRCH,
	TREE_FREE_EXTENTS
};

/*
 * 0, or -EBADMSG with *why in words.  Deltas and markers of log item trees are accepted there; of a
 * marker only the key is looked at (9.9).  What takes more than the item itself is the caller's:
 * bounds of the device, other items of the inode, log_trees contents (log/forest.h).  Padding
 * inside values is ignored, as section 1 wants of readers.
 */
int item_check(enum tree_kind tree, unsigned fmt_vers, const struct item *it, const char **why);

/* A checked inode value at its full size, the fields as they lie on the device (proj 0 in a short
 * one, 12.1). */
void inode_from_item(const struct item *it, struct disk_inode *inode);

/* S_IFMT bits to enum dirent_type and back; -1 where there is none. */
int dirent_type_of_mode(uint32_t mode);
uint32_t mode_of_dirent_type(uint8_t type);

/* Tags of a scoutfs. xattr name, 12.6. */
#define XATTR_TAG_HIDE	1u
#define XATTR_TAG_INDX	2u
#define XATTR_TAG_SRCH	4u
#define XATTR_TAG_TOTL	8u
/* Tag bits (0 for an untagged name), or -EINVAL for a scoutfs. name that may not exist. */
int xattr_name_tags(const void *name, size_t len);

/* A data extent of 12.11 in host order. */
struct data_extent {
	uint64_t iblock;	/* first logical block */
	uint64_t len;
	uint64_t blkno;		/* 0: unmapped */
	uint8_t flags;
};
void extent_from_item(const struct item *it, struct data_extent *ext);

#endif
