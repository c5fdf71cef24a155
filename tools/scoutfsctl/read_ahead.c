/*
 * A walk of a tree reads one block after another and would leave a device idle most of the time, and one
 * made of many (an array, flash) most of itself always.  Each parent names up to some hundred children that
 * are wanted next, so they are asked for together when the parent is met; the kernel reads them in any order
 * it likes and keeps them.  That works for every reader of parents, whatever it does with them.
 *
 * Nothing here is trusted or decided: the bytes are a hint.
 */
#include "read_ahead.h"

#include <fcntl.h>
#include <string.h>

#include "btree/btree_block.h"

static void want(const struct device *meta, uint64_t total_blocks, const struct disk_block_ref *ref)
{
	uint64_t blkno = le64_get(ref->blkno);

	if (blkno >= META_FIRST_BLKNO && blkno < total_blocks)
		(void)posix_fadvise(meta->fd, (off_t)(blkno << LARGE_SHIFT), LARGE_SIZE,
				    POSIX_FADV_WILLNEED);
}

static void want_tree_children(const struct device *meta, uint64_t total_blocks,
			       const struct disk_btree_block *b)
{
	unsigned nr = le16_get(b->nr_items);
	struct disk_block_ref ref;

	if (!b->level || b->level >= BTREE_HEIGHT_MAX ||
	    sizeof(*b) + nr * sizeof(b->items[0]) > LARGE_SIZE)
		return;
	for (unsigned i = 0; i < nr; i++) {
		unsigned off = le16_get(b->items[i].val_off);

		if (off + sizeof(ref) > LARGE_SIZE)
			continue;
		memcpy(&ref, (const uint8_t *)b + off, sizeof(ref));
		want(meta, total_blocks, &ref);
	}
}

void read_ahead_children(const struct device *meta, uint64_t total_blocks, const void *block)
{
	const struct disk_header *hdr = block;

	if (le32_get(hdr->magic) == MAGIC_BTREE)
		want_tree_children(meta, total_blocks, block);
	if (le32_get(hdr->magic) == MAGIC_SRCH_PARENT) {
		const struct disk_srch_parent *p = block;

		for (unsigned i = 0; i < SRCH_PARENT_REFS; i++)
			want(meta, total_blocks, &p->refs[i]);
	}
}
