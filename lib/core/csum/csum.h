/* Checksums and hashes of the format: format.md 3.2 and 8. */
#ifndef SCOUTFS_CSUM_H
#define SCOUTFS_CSUM_H

#include <stddef.h>
#include <stdint.h>

#include "format/format.h"
#include "key/key.h"

/* CRC-32C, initial all ones, no final inversion (3.2).  Uses ISA-L where it is linked, else a
 * table. */
uint32_t crc32c(const void *buf, size_t len);
/* Continue a crc32c() over more bytes. */
uint32_t crc32c_more(uint32_t crc, const void *buf, size_t len);
/* The same by table, whatever crc32c_more uses (for the test that compares them). */
uint32_t crc32c_table_more(uint32_t crc, const void *buf, size_t len);

/* The crc of a whole block of `size` bytes: everything but the first four. */
uint32_t block_crc(const void *block, size_t size);

uint32_t hash32(const void *buf, size_t len);	/* FNV-1a 32, 8.1 */
uint64_t hash64(const void *buf, size_t len);	/* FNV-1a 64, 8.1 */

uint32_t name_fingerprint(const void *name, size_t len);	/* 8.3 */
uint64_t dirent_name_hash(const void *name, size_t len);	/* 8.2 */
uint32_t xattr_name_hash(const void *name, size_t len);		/* 8.2 */

/* The three bloom bit numbers of a lock start key, 8.4. */
void bloom_bits(const struct key *lock_start, uint32_t bits[BLOOM_HASHES]);

#endif
