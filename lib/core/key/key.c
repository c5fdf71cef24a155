/*
 * Keys: one 200-bit number in the order zone, first, type, second, third, fourth (format.md 7.2),
 * kept in host order here, in 32 bytes on a device (7.1), and in 27 sortable bytes in an item
 * cache.  Promise: the three forms agree.  key_cmp(a, b), memcmp of the sortable bytes and the order
 * of key_next steps are one and the same order; converting to and fro loses nothing but disk
 * padding.
 */
#include "key/key.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CMP(a, b) (((a) > (b)) - ((a) < (b)))

int key_cmp(const struct key *a, const struct key *b)
{
	int c;

	if ((c = CMP(a->zone, b->zone)) != 0)
		return c;
	if ((c = CMP(a->first, b->first)) != 0)
		return c;
	if ((c = CMP(a->type, b->type)) != 0)
		return c;
	if ((c = CMP(a->second, b->second)) != 0)
		return c;
	if ((c = CMP(a->third, b->third)) != 0)
		return c;
	return CMP(a->fourth, b->fourth);
}

struct key key_next(struct key k)
{
	/* Each field carries into the one before it when it wraps to zero. */
	if (++k.fourth == 0 && ++k.third == 0 && ++k.second == 0 && ++k.type == 0 && ++k.first == 0)
		++k.zone;
	return k;
}

struct key key_prev(struct key k)
{
	if (k.fourth-- == 0 && k.third-- == 0 && k.second-- == 0 && k.type-- == 0 && k.first-- == 0)
		k.zone--;
	return k;
}

struct disk_key key_to_disk(const struct key *k)
{
	return (struct disk_key){
		.first = le64_of(k->first),
		.second = le64_of(k->second),
		.third = le64_of(k->third),
		.fourth = k->fourth,
		.zone = k->zone,
		.type = k->type,
	};
}

struct key key_from_disk(const struct disk_key *d)
{
	return (struct key){
		.zone = d->zone,
		.first = le64_get(d->first),
		.type = d->type,
		.second = le64_get(d->second),
		.third = le64_get(d->third),
		.fourth = d->fourth,
	};
}

bool key_pad_is_zero(const struct disk_key *d)
{
	static const uint8_t zeros[sizeof(d->pad)];

	return memcmp(d->pad, zeros, sizeof(zeros)) == 0;
}

static void put_be64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

static uint64_t get_be64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

void key_to_sortable(const struct key *k, uint8_t out[KEY_SORT_BYTES])
{
	out[0] = k->zone;
	put_be64(out + 1, k->first);
	out[9] = k->type;
	put_be64(out + 10, k->second);
	put_be64(out + 18, k->third);
	out[26] = k->fourth;
}

struct key key_from_sortable(const uint8_t in[KEY_SORT_BYTES])
{
	return (struct key){
		.zone = in[0],
		.first = get_be64(in + 1),
		.type = in[9],
		.second = get_be64(in + 10),
		.third = get_be64(in + 18),
		.fourth = in[26],
	};
}

int key_to_text(const struct key *k, char *buf, size_t size)
{
	return snprintf(buf, size, "%u.%" PRIu64 ".%u.%" PRIu64 ".%" PRIu64 ".%u", k->zone,
			k->first, k->type, k->second, k->third, k->fourth);
}

/* One field: decimal, 0x and hexadecimal, or -1 for max.  What follows it; NULL if it is wrong. */
static const char *field_from_text(const char *p, uint64_t max, uint64_t *val)
{
	unsigned base = 10;
	const char *digits;

	*val = 0;
	if (strncmp(p, "-1", 2) == 0) {
		*val = max;
		return p + 2;
	}
	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	for (digits = p;; p++) {
		unsigned d;

		if (*p >= '0' && *p <= '9')
			d = (unsigned)(*p - '0');
		else if (base == 16 && *p >= 'a' && *p <= 'f')
			d = (unsigned)(*p - 'a') + 10;
		else if (base == 16 && *p >= 'A' && *p <= 'F')
			d = (unsigned)(*p - 'A') + 10;
		else
			break;
		if (*val > (max - d) / base)
			return NULL;
		*val = *val * base + d;
	}
	return p == digits ? NULL : p;
}

int key_from_text(const char *text, struct key *k)
{
	static const uint64_t max[6] = { 255, UINT64_MAX, 255, UINT64_MAX, UINT64_MAX, 255 };
	uint64_t v[6] = { 0 };
	const char *p = text;

	for (unsigned i = 0; i < 6; i++) {
		p = field_from_text(p, max[i], &v[i]);
		if (!p)
			return -EINVAL;
		if (*p == '\0')
			break;
		if (*p != '.' || i == 5)
			return -EINVAL;
		p++;
	}
	*k = (struct key){ .zone = (uint8_t)v[0],
			   .first = v[1],
			   .type = (uint8_t)v[2],
			   .second = v[3],
			   .third = v[4],
			   .fourth = (uint8_t)v[5] };
	return 0;
}

struct key key_inode(uint64_t ino)
{
	return (struct key){ .zone = ZONE_FS, .first = ino, .type = TYPE_INODE };
}

struct key key_index(uint8_t type, uint64_t seq, uint64_t ino)
{
	return (struct key){ .zone = ZONE_INODE_INDEX, .type = type, .second = seq, .third = ino };
}

struct key key_orphan(uint64_t ino)
{
	return (struct key){ .zone = ZONE_ORPHAN, .type = TYPE_ORPHAN, .second = ino };
}

struct key key_xattr(uint64_t ino, uint32_t name_hash, uint64_t id, uint8_t part)
{
	return (struct key){ .zone = ZONE_FS, .first = ino, .type = TYPE_XATTR, .second = name_hash,
			     .third = id, .fourth = part };
}

struct key key_dirent(uint64_t dir, uint64_t hash, uint64_t pos)
{
	return (struct key){ .zone = ZONE_FS, .first = dir, .type = TYPE_DIRENT, .second = hash,
			     .third = pos };
}

struct key key_readdir(uint64_t dir, uint64_t pos)
{
	return (struct key){ .zone = ZONE_FS, .first = dir, .type = TYPE_READDIR, .second = pos };
}

struct key key_backref(uint64_t ino, uint64_t dir, uint64_t pos)
{
	return (struct key){ .zone = ZONE_FS,
			     .first = ino,
			     .type = TYPE_LINK_BACKREF,
			     .second = dir,
			     .third = pos };
}

struct key key_symlink(uint64_t ino, uint64_t fragment)
{
	return (struct key){
		.zone = ZONE_FS, .first = ino, .type = TYPE_SYMLINK, .second = fragment
	};
}

struct key key_extent(uint64_t ino, uint64_t last_iblock, uint64_t len)
{
	return (struct key){ .zone = ZONE_FS, .first = ino, .type = TYPE_DATA_EXTENT,
			     .second = last_iblock, .third = len };
}

/* 12.9: the four numbers are one big-endian string of 200 bits, cut again at the key's fields. */
struct key key_xattr_indx(const struct xattr_indx *xi)
{
	return (struct key){ .zone = ZONE_XATTR_INDX,
			     .first = (uint64_t)xi->major << 56 | xi->minor >> 8,
			     .second = xi->minor << 56 | xi->ino >> 8,
			     .third = xi->ino << 56 | xi->id >> 8,
			     .fourth = (uint8_t)xi->id };
}

struct xattr_indx xattr_indx_from_key(const struct key *k)
{
	return (struct xattr_indx){ .major = (uint8_t)(k->first >> 56),
				    .minor = k->first << 8 | k->second >> 56,
				    .ino = k->second << 8 | k->third >> 56,
				    .id = k->third << 8 | k->fourth };
}

struct key key_log_trees(uint64_t rid, uint64_t nr)
{
	return (struct key){ .zone = ZONE_LOG_TREES, .first = rid, .second = nr };
}

struct key key_mounted_client(uint64_t rid)
{
	return (struct key){ .zone = ZONE_MOUNTED_CLIENT, .first = rid };
}

struct key key_lock_start(const struct key *item)
{
	switch (item->zone) {
	case ZONE_FS:
		return (struct key){ .zone = ZONE_FS,
				     .first = item->first & ~(INODE_LOCK_GROUP - 1) };
	case ZONE_INODE_INDEX:
		return (struct key){ .zone = ZONE_INODE_INDEX, .type = item->type,
				     .second = item->second & ~(SEQ_LOCK_GROUP - 1) };
	case ZONE_ORPHAN:
		return (struct key){ .zone = ZONE_ORPHAN, .type = TYPE_ORPHAN };
	case ZONE_LOCK:
		return *item;
	default:
		return (struct key){ .zone = item->zone };
	}
}

struct key key_lock_end(const struct key *lock_start)
{
	struct key end = KEY_ONES;

	end.zone = lock_start->zone;
	switch (lock_start->zone) {
	case ZONE_FS:
		end.first = lock_start->first | (INODE_LOCK_GROUP - 1);
		return end;
	case ZONE_INODE_INDEX:
		end.first = 0;
		end.type = lock_start->type;
		end.second = lock_start->second | (SEQ_LOCK_GROUP - 1);
		return end;
	case ZONE_LOCK:
		return *lock_start;
	default:
		return end;
	}
}
