/*
 * Every worked value of format.md that is about hashes and keys: 3.2, 4, 8.5-8.8, 12.9, 12.10.  The
 * vectors of 9.3, 13.4 and 22.6 are in the tests of what they describe.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "csum/csum.h"
#include "key/key.h"

#define NR(a) (sizeof(a) / sizeof((a)[0]))

static void crc_has_the_check_and_control_values(void **state)
{
	uint8_t *zeros = calloc(1, LARGE_SIZE);

	(void)state;
	assert_non_null(zeros);
	assert_int_equal(crc32c("123456789", 9), 0x1cf96d7c);
	assert_int_equal(crc32c("", 0), 0xffffffff);
	assert_int_equal(block_crc(zeros, SMALL_SIZE), 0x58cda791);
	assert_int_equal(block_crc(zeros, LARGE_SIZE), 0xe8a56956);
	/* The crc field itself is not covered; the last byte is. */
	zeros[3] = 1;
	assert_int_equal(block_crc(zeros, SMALL_SIZE), 0x58cda791);
	zeros[SMALL_SIZE - 1] = 1;
	assert_int_not_equal(block_crc(zeros, SMALL_SIZE), 0x58cda791);
	free(zeros);
}

static void crc_by_table_and_by_library_agree_at_every_length_and_alignment(void **state)
{
	uint8_t buf[700];
	uint64_t x = 0x9e3779b97f4a7c15ull;

	(void)state;
	for (size_t i = 0; i < sizeof(buf); i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		buf[i] = (uint8_t)(x >> 56);
	}
	for (size_t off = 0; off < 16; off++) {
		for (size_t len = 0; len + off <= sizeof(buf); len++) {
			uint32_t crc = crc32c(buf + off, len);

			assert_int_equal(crc, crc32c_table_more(0xffffffff, buf + off, len));
			/* and in two pieces */
			assert_int_equal(crc, crc32c_more(crc32c(buf + off, len / 3),
							  buf + off + len / 3, len - len / 3));
		}
	}
}

static void names_hash_as_given(void **state)
{
	static char xs[255];
	static const struct {
		const char *name;
		size_t len;
		uint32_t h32, fp;
		uint64_t dirent, h64;
		uint32_t crc;
	} v[] = {
		{ "a", 1, 0xe40c292c, 0x61000000, 0x61000000e40c292c, 0xaf63dc4c8601ec8c, 0x3e2fbccf },
		{ "ab", 2, 0x4d2505ca, 0x61620000, 0x616200004d2505ca, 0x089c4407b545986a, 0x1d5dd6c9 },
		{ "lost+found", 10, 0xa3603574, 0x67547574, 0x67547574a3603574, 0xa213ba07215f7714,
		  0x69ae2ff5 },
		{ "file.0001", 9, 0x28aa6854, 0x56647444, 0x5664744428aa6854, 0xfb33b4bdd2b9d5b4,
		  0x494bcf11 },
		{ "README.md", 9, 0x18eb20e2, 0x10002076, 0x1000207618eb20e2, 0x3f15cf6f633a5d62,
		  0x18ddc818 },
		{ "hello world", 11, 0xd58b3fa7, 0x64667457, 0x64667457d58b3fa7, 0x779a65e7023cd2e7,
		  0x366b9a55 },
		{ "0123456789abcdef0123456789abcdef", 32, 0x86d04db5, 0, 0x86d04db5,
		  0x01527c9731f0ff55, 0xa32fc166 },
		{ xs, 255, 0x6318963f, 0x0f0f0f0f, 0x0f0f0f0f6318963f, 0xdff658324c99c7bf, 0x2c6697db },
		{ "", 0, 0x811c9dc5, 0, 0x811c9dc5, 0xcbf29ce484222325, 0xffffffff },
	};

	(void)state;
	memset(xs, 'x', sizeof(xs));
	for (size_t i = 0; i < NR(v); i++) {
		assert_int_equal(hash32(v[i].name, v[i].len), v[i].h32);
		assert_int_equal(name_fingerprint(v[i].name, v[i].len), v[i].fp);
		assert_true(dirent_name_hash(v[i].name, v[i].len) == v[i].dirent);
		assert_true(hash64(v[i].name, v[i].len) == v[i].h64);
		assert_int_equal(crc32c(v[i].name, v[i].len), v[i].crc);
	}
}

/* The definition, 8.1, a byte at a time. */
static uint32_t fnv1a(const uint8_t *p, size_t len)
{
	uint32_t h = 0x811c9dc5u;

	while (len--)
		h = (h ^ *p++) * 0x01000193u;
	return h;
}

static void zeros_hash_as_any_bytes_at_every_length_and_place(void **state)
{
	uint8_t bytes[64];
	uint32_t rng = 1;

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++) {
			rng = rng * 1664525u + 1013904223u;
			/* none, few, most or all of them zeros */
			bytes[i] = rng >> 28 < round % 17 ? 0 : (uint8_t)(rng >> 16);
		}
		for (size_t at = 0; at < 8; at++)
			assert_int_equal(hash32(bytes + at, round % (sizeof(bytes) - at)),
					 fnv1a(bytes + at, round % (sizeof(bytes) - at)));
	}
}

static void xattr_names_hash_as_given(void **state)
{
	static const struct {
		const char *name;
		uint32_t crc;
		uint64_t h64;
	} v[] = {
		{ "user.a", 0x8ef14919, 0xf84162aa75418a8f },
		{ "user.test", 0xf21778d1, 0x9dda95d0cb1dd6b0 },
		{ "security.selinux", 0x118241bd, 0x6853fe6533e196f3 },
		{ "system.posix_acl_access", 0x0cad41c7, 0x0cea5bb44587e165 },
		{ "scoutfs.srch.test", 0xf0648c09, 0x2590d44734868b58 },
		{ "scoutfs.hide.srch.totl.foo.1.2.3", 0x0e25424a, 0xd5436e839ab01943 },
		{ "trusted.overlay.opaque", 0x30c4b523, 0x51aea02526590f33 },
	};

	(void)state;
	for (size_t i = 0; i < NR(v); i++) {
		assert_int_equal(xattr_name_hash(v[i].name, strlen(v[i].name)), v[i].crc);
		assert_true(hash64(v[i].name, strlen(v[i].name)) == v[i].h64);
	}
}

static void hex_to_bytes(const char *hex, uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned b;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &b), 1);
		out[i] = (uint8_t)b;
	}
}

#define Z "0000000000000000"
#define F "ffffffffffffffff"

static void keys_have_the_given_bytes_hashes_and_bloom_bits(void **state)
{
	static const struct {
		const char *text, *hex;
		uint32_t h32, bucket;
		uint64_t h64;
		uint32_t bloom[3];
	} v[] = {
		{ "4.0.4.0.1.0", Z Z "0100000000000000" "0004040000000000", 0xf6d1cdfc, 252,
		  0x1a939d52aaedaadc, { 25628, 289309, 155317 } },
		{ "16.1.4.0.0.0", "0100000000000000" Z Z "0010040000000000", 0x1aacbf90, 1040,
		  0xe9f7856b100ac9f0, { 346928, 197249, 28757 } },
		{ "16.1.12.0x61000000e40c292c.2.0",
		  "0100000000000000" "2c290ce400000061" "0200000000000000" "00100c0000000000",
		  0x2002a546, 38, 0x8881c72a54c24d66, { 494758, 405208, 154652 } },
		{ "16.1024.4.0.0.0", "0004000000000000" Z Z "0010040000000000", 0x36723c0d, 997,
		  0x58e677b3bccc94ed, { 137517, 447001, 250078 } },
		{ "36.1048575.0.1048512.0.0", "ffff0f0000000000" "c0ff0f0000000000" Z "0024000000000000",
		  0xbb93a6aa, 1042, 0xc1e5ac6292f0380a, { 471050, 46238, 4081 } },
		{ "40.18446744073709551609.0.1048575.1048512.0",
		  "f9ffffffffffffff" "ffff0f0000000000" "c0ff0f0000000000" "0028000000000000",
		  0x16f5e950, 1048, 0xc731d10c90136530, { 125808, 174146, 344836 } },
		{ "-1.-1.-1.-1.-1.-1", F F F "ffffff0000000000", 0x3e1627b4, 1380, 0x6a26c4cb1c886874,
		  { 318900, 213073, 56659 } },
	};

	(void)state;
	for (size_t i = 0; i < NR(v); i++) {
		uint8_t bytes[32];
		uint32_t bits[BLOOM_HASHES];
		struct disk_key disk;
		struct key k;

		hex_to_bytes(v[i].hex, bytes, sizeof(bytes));
		assert_int_equal(key_from_text(v[i].text, &k), 0);
		disk = key_to_disk(&k);
		assert_memory_equal(&disk, bytes, sizeof(bytes));
		k = key_from_disk(&disk);
		disk = key_to_disk(&k);
		assert_memory_equal(&disk, bytes, sizeof(bytes));
		assert_int_equal(hash32(bytes, 32), v[i].h32);
		assert_int_equal(hash32(bytes, 32) % BTREE_HASH_BUCKETS, v[i].bucket);
		assert_true(hash64(bytes, 32) == v[i].h64);
		bloom_bits(&k, bits);
		assert_memory_equal(bits, v[i].bloom, sizeof(bits));
	}
}

static void lock_start_keys_have_the_given_bloom_bits(void **state)
{
	/* An item, the lock start key it must give, that key's hash and bits, the lock's last key. */
	static const struct {
		const char *item, *start, *end;
		uint64_t h64;
		uint32_t bloom[3];
	} v[] = {
		{ "16.1.12.5.2.0", "16.0.0.0.0.0", "16.1023.-1.-1.-1.-1", 0xb75a57d3304dc7f5,
		  { 349301, 400905, 383775 } },
		{ "16.2047.28.9.9.0", "16.1024.0.0.0.0", "16.2047.-1.-1.-1.-1", 0xe68ce6e805057c09,
		  { 410633, 362016, 181083 } },
		{ "4.0.4.1030.77.0", "4.0.4.1024.0.0", "4.0.4.2047.-1.-1", 0xcb6092311f02e1c1,
		  { 506305, 65312, 393352 } },
		{ "4.0.8.2047.77.0", "4.0.8.1024.0.0", "4.0.8.2047.-1.-1", 0x59070165673bc8dd,
		  { 257053, 505895, 283397 } },
		{ "8.0.4.77.0.0", "8.0.4.0.0.0", "8.-1.-1.-1.-1.-1", 0x6f94a35a072545e9,
		  { 418537, 160996, 431949 } },
		{ "10.0.4.5.0.0", "10.0.0.0.0.0", "10.-1.-1.-1.-1.-1", 0x57493d111b44b917,
		  { 64599, 21928, 350900 } },
		{ "12.1.0.2.3.0", "12.0.0.0.0.0", "12.-1.-1.-1.-1.-1", 0xcca445fc779d1361,
		  { 509345, 323443, 200855 } },
		{ "14.9.0.2.3.4", "14.0.0.0.0.0", "14.-1.-1.-1.-1.-1", 0x41ff4ee7d3f56dab,
		  { 430123, 100990, 9851 } },
	};

	(void)state;
	for (size_t i = 0; i < NR(v); i++) {
		struct key item, start, end, got, got_end;
		struct disk_key disk;
		uint32_t bits[BLOOM_HASHES];

		assert_int_equal(key_from_text(v[i].item, &item), 0);
		assert_int_equal(key_from_text(v[i].start, &start), 0);
		assert_int_equal(key_from_text(v[i].end, &end), 0);
		got = key_lock_start(&item);
		assert_true(key_eq(&got, &start));
		got_end = key_lock_end(&got);
		assert_true(key_eq(&got_end, &end));
		/* The lock covers its item, and the start key is its own start. */
		assert_true(key_cmp(&start, &item) <= 0 && key_cmp(&item, &end) <= 0);
		got = key_lock_start(&start);
		assert_true(key_eq(&got, &start));
		disk = key_to_disk(&start);
		assert_true(hash64(&disk, sizeof(disk)) == v[i].h64);
		bloom_bits(&start, bits);
		assert_memory_equal(bits, v[i].bloom, sizeof(bits));
	}
}

static void quota_rules_hash_as_given(void **state)
{
	struct disk_quota_rule r = { .prio = 1, .op = 1, .limit = le64_of(100) };
	struct disk_quota_rule s = { .prio = 9, .op = 0, .limit = le64_of(1048576), .rule_flags = 1,
				     .name_source = { 0, 2, 0 }, .name_flags = { 0, 1, 0 } };

	(void)state;
	r.name_val[0] = le64_of(7);
	assert_true(hash64(&r, sizeof(r)) == 0x0e889eaaf1b0cdcc);
	s.name_val[0] = le64_of(1);
	s.name_val[1] = le64_of(1000);
	assert_true(hash64(&s, sizeof(s)) == 0xf78f728af74aa7cc);
}

static void inet_addr_is_stored_as_little_endian_numbers(void **state)
{
	static const uint8_t bytes[8] = { 0x01, 0x00, 0x10, 0xa4, 0x01, 0x00, 0x00, 0x7f };
	struct disk_inet_addr a = { .family = le16_of(ADDR_IPV4), .port = le16_of(42000),
				    .addr = le32_of(0x7f000001) };

	(void)state;
	assert_memory_equal(&a, bytes, sizeof(bytes));
}

/* 12.9 by hand: major 1, minor 2, ino 3, id 4 in 200 big-endian bits, cut at 64, 64, 64 and 8. */
static void xattr_index_keys_pack_as_one_number(void **state)
{
	struct xattr_indx xi = { .major = 1, .minor = 0x1122334455667788, .ino = 0x99aabbccddeeff00,
				 .id = 0x0123456789abcdef };
	struct key k = key_xattr_indx(&xi);
	struct xattr_indx back;

	(void)state;
	assert_true(k.zone == 14 && k.type == 0);
	assert_true(k.first == 0x0111223344556677);
	assert_true(k.second == 0x8899aabbccddeeff);
	assert_true(k.third == 0x000123456789abcd);
	assert_true(k.fourth == 0xef);
	back = xattr_indx_from_key(&k);
	assert_true(back.major == xi.major && back.minor == xi.minor && back.ino == xi.ino &&
		    back.id == xi.id);

	/* The greatest of everything, and order by major, then minor, then inode. */
	xi = (struct xattr_indx){ 255, UINT64_MAX, UINT64_MAX, UINT64_MAX };
	k = key_xattr_indx(&xi);
	assert_true(k.first == UINT64_MAX && k.second == UINT64_MAX && k.third == UINT64_MAX &&
		    k.fourth == 255);
	for (unsigned i = 0; i < 3; i++) {
		static const struct xattr_indx lows[3] = {
			{ 0, UINT64_MAX, UINT64_MAX, UINT64_MAX },
			{ 1, 0, UINT64_MAX, UINT64_MAX },
			{ 1, 1, 0, UINT64_MAX },
		};
		struct xattr_indx high = { 1, 1, 1, 0 };
		struct key a, b;

		a = key_xattr_indx(&lows[i]);
		b = key_xattr_indx(&high);
		assert_true(key_cmp(&a, &b) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc_has_the_check_and_control_values),
		cmocka_unit_test(crc_by_table_and_by_library_agree_at_every_length_and_alignment),
		cmocka_unit_test(names_hash_as_given),
		cmocka_unit_test(zeros_hash_as_any_bytes_at_every_length_and_place),
		cmocka_unit_test(xattr_names_hash_as_given),
		cmocka_unit_test(keys_have_the_given_bytes_hashes_and_bloom_bits),
		cmocka_unit_test(lock_start_keys_have_the_given_bloom_bits),
		cmocka_unit_test(quota_rules_hash_as_given),
		cmocka_unit_test(inet_addr_is_stored_as_little_endian_numbers),
		cmocka_unit_test(xattr_index_keys_pack_as_one_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
