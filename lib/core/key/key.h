/* Item keys: host form, order, bytes, text.  format.md 7. */
#ifndef SCOUTFS_KEY_H
#define SCOUTFS_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/format.h"

/* A key in host order; fields in order of precedence, not of storage (7.2). */
struct key {
	uint8_t zone;
	uint64_t first;
	uint8_t type;
	uint64_t second;
	uint64_t third;
	uint8_t fourth;
};

#define KEY_ZEROS ((struct key){ 0 })
#define KEY_ONES ((struct key){ .zone = 255, .first = UINT64_MAX, .type = 255, \
				.second = UINT64_MAX, .third = UINT64_MAX, .fourth = 255 })

/* <0, 0, >0 as memcmp, in the order of 7.2. */
int key_cmp(const struct key *a, const struct key *b);
static inline bool key_eq(const struct key *a, const struct key *b)
{
	return a->first == b->first && a->second == b->second && a->third == b->third &&
	       a->zone == b->zone && a->type == b->type && a->fourth == b->fourth;
}

/* The next and previous key; both wrap (7.2). */
struct key key_next(struct key k);
struct key key_prev(struct key k);

/* Between host form and the 32 bytes of 7.1.  Padding is written as zero and ignored on reading;
 * key_pad_is_zero tells a checker. */
struct disk_key key_to_disk(const struct key *k);
struct key key_from_disk(const struct disk_key *d);
bool key_pad_is_zero(const struct disk_key *d);

/* 27 big-endian bytes whose memcmp order is key_cmp's order (design.md D2). */
#define KEY_SORT_BYTES 27
void key_to_sortable(const struct key *k, uint8_t out[KEY_SORT_BYTES]);
struct key key_from_sortable(const uint8_t in[KEY_SORT_BYTES]);

/* zone.first.type.second.third.fourth, decimal; returns what snprintf would. */
#define KEY_TEXT_BYTES 96
int key_to_text(const struct key *k, char *buf, size_t size);
/* 0, or -EINVAL.  Missing trailing fields are zero; -1 is the field's maximum. */
int key_from_text(const char *text, struct key *k);

/* Makers of each item's key, 7.4. */
struct key key_inode(uint64_t ino);
struct key key_index(uint8_t type, uint64_t seq, uint64_t ino);
struct key key_orphan(uint64_t ino);
struct key key_xattr(uint64_t ino, uint32_t name_hash, uint64_t id, uint8_t part);
struct key key_dirent(uint64_t dir, uint64_t hash, uint64_t pos);
struct key key_readdir(uint64_t dir, uint64_t pos);
struct key key_backref(uint64_t ino, uint64_t dir, uint64_t pos);
struct key key_symlink(uint64_t ino, uint64_t fragment);
struct key key_extent(uint64_t ino, uint64_t last_iblock, uint64_t len);

/* What the key of an xattr index item says, and back (12.9). */
struct xattr_indx {
	uint8_t major;
	uint64_t minor;
	uint64_t ino;
	uint64_t id;
};
struct key key_xattr_indx(const struct xattr_indx *xi);
struct xattr_indx xattr_indx_from_key(const struct key *k);

struct key key_log_trees(uint64_t rid, uint64_t nr);
struct key key_mounted_client(uint64_t rid);

/* Start key of the lock that covers an item's key (11.4, runtime 4.3): what enters bloom blocks.
 * The matching end key is lock_end_of().  Zone 16 and zone 4 in groups of 1024. */
struct key key_lock_start(const struct key *item);
struct key key_lock_end(const struct key *lock_start);

#endif
