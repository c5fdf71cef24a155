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
#define CRC_POLY 0x82f63b78u	/* reflected */

static uint32_t crc_tables[8][256];

/* Before main, so that no thread can see them half made. */
__attribute__((constructor)) static void crc_tables_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (unsigned bit = 0; bit < 8; bit++)
			c = (c >> 1) ^ ((c & 1) ? CRC_POLY : 0);
		crc_tables[0][i] = c;
	}
	for (unsigned t = 1; t < 8; t++) {
		for (unsigned i = 0; i < 256; i++) {
			uint32_t c = crc_tables[t - 1][i];

			crc_tables[t][i] = (c >> 8) ^ crc_tables[0][c & 0xff];
		}
	}
}

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
