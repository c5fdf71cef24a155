/* Little-endian wrapper types: what lies on a device or on the wire is never a plain integer. */
#ifndef SCOUTFS_LE_H
#define SCOUTFS_LE_H

#include <endian.h>
#include <stdint.h>

typedef struct { uint16_t v; } le16;
typedef struct { uint32_t v; } le32;
typedef struct { uint64_t v; } le64;

static inline uint16_t le16_get(le16 x) { return le16toh(x.v); }
static inline uint32_t le32_get(le32 x) { return le32toh(x.v); }
static inline uint64_t le64_get(le64 x) { return le64toh(x.v); }
static inline le16 le16_of(uint16_t v) { return (le16){ htole16(v) }; }
static inline le32 le32_of(uint32_t v) { return (le32){ htole32(v) }; }
static inline le64 le64_of(uint64_t v) { return (le64){ htole64(v) }; }

static inline void le64_add(le64 *x, uint64_t delta)
{
	*x = le64_of(le64_get(*x) + delta);
}

#endif
