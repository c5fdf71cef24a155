/*
 * One b-tree block: items in an AVL tree, values from the end, the leaf hash.  format.md 9.1-9.5.
 * Everything here works on 65536 bytes in memory and knows nothing of trees of blocks.
 */
#ifndef SCOUTFS_BTREE_BLOCK_H
#define SCOUTFS_BTREE_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/format.h"
#include "key/key.h"

/* An item as seen by callers; val points into the block. */
struct item {
	struct key key;
	uint64_t seq;
	const void *val;
	uint16_t val_len;
	uint8_t flags;
};

/* Make an empty block of that level; the 32 header bytes are left alone. */
void btb_init(struct disk_btree_block *b, uint8_t level);

/*
 * Whether every structural rule of 20.4-20.11 that can be seen in this one block holds, but for AVL
 * heights and balance (21.2).  0, or -EBADMSG with *why in words.  Everything below assumes it ran,
 * or that this process made the block.
 */
int btb_check(const struct disk_btree_block *b, const char **why);
/* Whether AVL heights and balance are right too (a warning, 20.6). */
bool btb_avl_is_balanced(const struct disk_btree_block *b);

unsigned btb_nr(const struct disk_btree_block *b);
unsigned btb_level(const struct disk_btree_block *b);
/* Slots are 0..nr-1; -1 is none.  _find is exact (leaf hash in leaves); _ge/_le search the tree. */
int btb_find(const struct disk_btree_block *b, const struct key *key);
int btb_find_ge(const struct disk_btree_block *b, const struct key *key);
int btb_find_le(const struct disk_btree_block *b, const struct key *key);
int btb_first(const struct disk_btree_block *b);
int btb_last(const struct disk_btree_block *b);
int btb_next(const struct disk_btree_block *b, int slot);
int btb_prev(const struct disk_btree_block *b, int slot);
void btb_item(const struct disk_btree_block *b, int slot, struct item *it);

/* Whether an item with a value of val_len fits without compaction (9.5). */
bool btb_fits(const struct disk_btree_block *b, uint16_t val_len);
/* Insert; the key must be absent and the item must fit. */
void btb_insert(struct disk_btree_block *b, const struct item *it);
/* New value, seq and flags for a slot; round8(val_len) must fit in the middle. */
void btb_update(struct disk_btree_block *b, int slot, const struct item *it);
void btb_delete(struct disk_btree_block *b, int slot);
/* Move the lowest items, of at least `bytes` (9.7), to the empty block `left` of the same level. */
void btb_split(struct disk_btree_block *b, struct disk_btree_block *left, unsigned bytes);
/* Give a parent's slot another key (its order among the others must not change). */
void btb_set_key(struct disk_btree_block *b, int slot, const struct key *key);
void btb_compact(struct disk_btree_block *b);

#endif
