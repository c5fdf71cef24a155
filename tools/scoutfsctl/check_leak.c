/*
 * The one leak of large blocks that is known and excused (docs/decisions/0002-leaked-blocks.md):
 * after a merge, the upstream implementation frees the leaves of a log tree of height 2 but not
 * its root.  Such a block costs 64 KiB and endangers nothing.
 *
 * The excuse needs proof from the bytes: the volume was made by upstream's mkfs, the block is an
 * intact root of a log tree of height 2, and everything below it was given back.  Any other block
 * that belongs to nothing is a finding, on every volume.
 */
#include "check_volume.h"

#include <stdlib.h>
#include <string.h>

/* Upstream's mkfs leaves bytes of its stack behind the address of a configured slot, ours
 * zeros (21.1). */
static bool slots_have_junk(const struct disk_super *s)
{
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		const struct disk_inet_addr *a = &s->qconf.slots[i];

		if (le16_get(a->family) != ADDR_IPV4)
			continue;
		for (unsigned j = 0; j < sizeof(a->unused); j++)
			if (a->unused[j])
				return true;
	}
	return false;
}

/* Whether the block that ref named was given back: it is free now, or is something else by now. */
static bool was_freed(struct check *ck, struct block_ref ref, void *buf)
{
	enum check_owner owner;

	if (ref.blkno < META_FIRST_BLKNO || ref.blkno >= ck->meta_blocks)
		return false;
	owner = ck->owner[ref.blkno];
	if (owner == OWNER_NONE)
		return false;
	if (owner > OWNER_LAST_REF)
		return true;
	return !ck->dev.read(ck->dev.arg, ref.blkno, buf) &&
	       le64_get(((struct disk_header *)buf)->seq) != ref.seq;
}

/* Keys of a log tree's root: file system zones, the greatest key last. */
static bool key_is_in_place(const struct key *key, bool is_last)
{
	const struct key ones = KEY_ONES;

	return is_last ? key_eq(key, &ones) : key->zone >= ZONE_INODE_INDEX && key->zone <= ZONE_FS;
}

bool check_is_known_leak(struct check *ck, uint64_t blkno, const void *data)
{
	const struct disk_btree_block *b = data;
	bool is_known = true;
	const char *why;
	void *buf;

	if (!slots_have_junk(&ck->super) && !(ck->data_super && slots_have_junk(ck->data_super)))
		return false;
	if (block_header_check(b, LARGE_SIZE, MAGIC_BTREE, ck->fsid, blkno, &why) ||
	    b->level != 1 || btb_check(b, &why) || btb_nr(b) < 2)
		return false;
	buf = malloc(LARGE_SIZE);
	if (!buf)
		return false;
	for (int slot = btb_first(b); is_known && slot >= 0; slot = btb_next(b, slot)) {
		struct disk_block_ref child;
		struct item it;

		btb_item(b, slot, &it);
		memcpy(&child, it.val, sizeof(child));
		is_known = key_is_in_place(&it.key, slot == btb_last(b)) &&
			   was_freed(ck, block_ref_get(&child), buf);
	}
	free(buf);
	return is_known;
}
