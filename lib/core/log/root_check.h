/* Whether small structures of format.md 4 and 10 can be what they say; for what carries them. */
#ifndef SCOUTFS_ROOT_CHECK_H
#define SCOUTFS_ROOT_CHECK_H

#include "alloc/meta_alloc.h"

static inline bool btree_root_is_sane(const struct disk_btree_root *root)
{
	if (root->height == 0)
		return le64_get(root->ref.blkno) == 0 && le64_get(root->ref.seq) == 0;
	return root->height <= BTREE_HEIGHT_MAX && le64_get(root->ref.blkno) >= META_FIRST_BLKNO;
}

static inline bool alloc_root_is_sane(const struct disk_alloc_root *root)
{
	return btree_root_is_sane(&root->root) && !(le32_get(root->flags) & ~ALLOC_FLAG_LOW) &&
	       (root->root.height != 0 || le64_get(root->total_len) == 0);
}

static inline bool alloc_root_is_empty(const struct disk_alloc_root *root)
{
	return root->root.height == 0 && le64_get(root->total_len) == 0;
}

static inline bool alloc_list_is_empty(const struct disk_alloc_list_head *head)
{
	return le64_get(head->ref.blkno) == 0 && le64_get(head->total_nr) == 0;
}

#endif
