/*
 * Checksums and hashes of the format (format.md 3.2, 8).  All are functions of their bytes only and
 * every vector of the specification is a unit test.
 *
 * CRC-32C is ISA-L's where its header is there at build time: a register inverted neither at the
 * start nor at the end, which is exactly what 3.2 stores.  Without it eight tables of 256 entries
 * do the same, eight bytes at a time.  crc32c_table_more() is compiled either way, so that a test
 * can hold one against the other.
 */
#include "csum/csum.h"

#include <string.h>

#if __has_include(<isa-l/crc.h>)
#include <isa-l/crc.h>
#define HAVE_ISAL 1
#else
#define HAVE_ISAL 0
#endif

#define CRC_INIT 0xffffffffu

/*
 * What a byte i, t bytes before the end of eight, does to the register: crc_tables[t][i].  That is linear, so eight
 * entries of each table, those of one bit, say all 256.  The first of them are of the polynomial 0x82f63b78
 * (reflected), those of the next table are those of this one after a byte of zeros.
 */
#define BIT(i, n, of_bit)	((i) & (1u << (n)) ? (of_bit) : 0)
#define ENTRY(i, a, b, c, d, e, f, g, h) (BIT(i, 0, a) ^ BIT(i, 1, b) ^ BIT(i, 2, c) ^ BIT(i, 3, d) ^ \
					  BIT(i, 4, e) ^ BIT(i, 5, f) ^ BIT(i, 6, g) ^ BIT(i, 7, h))
#define ENTRIES_4(i, ...)	ENTRY(i, __VA_ARGS__), ENTRY((i) + 1, __VA_ARGS__), \
				ENTRY((i) + 2, __VA_ARGS__), ENTRY((i) + 3, __VA_ARGS__)
#define ENTRIES_16(i, ...)	ENTRIES_4(i, __VA_ARGS__), ENTRIES_4((i) + 4, __VA_ARGS__), \
				ENTRIES_4((i) + 8, __VA_ARGS__), ENTRIES_4((i) + 12, __VA_ARGS__)
#define ENTRIES_64(i, ...)	ENTRIES_16(i, __VA_ARGS__), ENTRIES_16((i) + 16, __VA_ARGS__), \
				ENTRIES_16((i) + 32, __VA_ARGS__), ENTRIES_16((i) + 48, __VA_ARGS__)
#define TABLE(...) { ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), \
		     ENTRIES_64(128, __VA_ARGS__), ENTRIES_64(192, __VA_ARGS__) }

static const uint32_t crc_tables[8][256] = {
	TABLE(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf,
	      0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
	TABLE(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8,
	      0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
	TABLE(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5,
	      0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
	TABLE(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6,
	      0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
	TABLE(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91,
	      0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
	TABLE(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f,
	      0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
	TABLE(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53,
	      0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
	TABLE(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da,
	      0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};

uint32_t crc32c_table_more(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, sizeof(v));
		v = le64toh(v) ^ crc;
		crc = crc_tables[7][v & 0xff] ^ crc_tables[6][(v >> 8) & 0xff] ^
		      crc_tables[5][(v >> 16) & 0xff] ^ crc_tables[4][(v >> 24) & 0xff] ^
		      crc_tables[3][(v >> 32) & 0xff] ^ crc_tables[2][(v >> 40) & 0xff] ^
		      crc_tables[1][(v >> 48) & 0xff] ^ crc_tables[0][v >> 56];
	}
	for (; len; p++, len--)
		crc = (crc >> 8) ^ crc_tables[0][(crc ^ *p) & 0xff];
	return crc;
}

uint32_t crc32c_more(uint32_t crc, const void *buf, size_t len)
{
#if HAVE_ISAL
	const uint8_t *p = buf;

	/* Its length is an int and its pointer is not const; it only reads. */
	while (len) {
		size_t n = len < (1u << 30) ? len : (1u << 30);

		crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)n, crc);
		p += n;
		len -= n;
	}
	return crc;
#else
	return crc32c_table_more(crc, buf, len);
#endif
}

uint32_t crc32c(const void *buf, size_t len)
{
	return crc32c_more(CRC_INIT, buf, len);
}

uint32_t block_crc(const void *block, size_t size)
{
	return crc32c((const uint8_t *)block + sizeof(le32), size - sizeof(le32));
}

/* FNV-1a's prime, and what so many zero bytes multiply by. */
#define FNV_1	0x01000193u
#define FNV_2	(FNV_1 * FNV_1)
#define FNV_4	(FNV_2 * FNV_2)
static const uint32_t fnv_zeros[] = { 1, FNV_1, FNV_2, FNV_2 * FNV_1, FNV_4, FNV_4 * FNV_1, FNV_4 * FNV_2,
				      FNV_4 * FNV_2 * FNV_1, FNV_4 * FNV_4 };

/* Most bytes of a key are zeros, which only multiply: those at the end of a word of eight do so at once. */
uint32_t hash32(const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint32_t h = 0x811c9dc5u;
	le64 word;

	for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		unsigned zeros = sizeof(word);
		uint64_t v;

		memcpy(&word, p, sizeof(word));
		for (v = le64_get(word); v; v >>= 8, zeros--)
			h = (h ^ (uint8_t)v) * FNV_1;
		h *= fnv_zeros[zeros];
	}
	while (len--)
		h = (h ^ *p++) * FNV_1;
	return h;
}

uint64_t hash64(const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint64_t h = 0xcbf29ce484222325ull;

	while (len--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

uint32_t name_fingerprint(const void *name, size_t len)
{
	const uint8_t *p = name;
	size_t bits = len * 8;
	size_t skip = bits / 32 ? bits / 32 : 1;
	uint32_t print = 0;

	/* at counts from the top bit of the first byte, so bit n of 8.3 is bits - 1 - at. */
	for (size_t i = 0, at = 0; i < 32 && at < bits; i++, at += skip) {
		uint32_t bit = (p[at / 8] >> (7 - at % 8)) & 1u;

		print |= bit << (31 - i);
	}
	return print;
}

uint64_t dirent_name_hash(const void *name, size_t len)
{
	return (uint64_t)name_fingerprint(name, len) << 32 | hash32(name, len);
}

uint32_t xattr_name_hash(const void *name, size_t len)
{
	return crc32c(name, len);
}

void bloom_bits(const struct key *lock_start, uint32_t bits[BLOOM_HASHES])
{
	struct disk_key disk = key_to_disk(lock_start);
	uint64_t h = hash64(&disk, sizeof(disk));

	for (unsigned i = 0; i < BLOOM_HASHES; i++) {
		bits[i] = (uint32_t)h % BLOOM_BITS;
		h >>= BLOOM_HASH_SHIFT;
	}
}
