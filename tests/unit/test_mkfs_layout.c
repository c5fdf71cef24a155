/*
 * A new volume is the one of format.md 22, to the byte, and comes into being only with its last
 * write: checksums of 22.6 for both kinds of AVL heights, versions 1 and 2, the order of writes,
 * every refusal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "csum/csum.h"
#include "format/mkfs_layout.h"
#include "format/super.h"

/* SHA-256, FIPS 180-4: only here to hold blocks against the digests of 22.6. */
static uint32_t ror(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t h[8], const uint8_t *p)
{
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
		0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
		0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
		0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
		0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
		0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
		0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
		0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
		0xc67178f2,
	};
	uint32_t w[64], s[8];

	for (unsigned i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
	for (unsigned i = 16; i < 64; i++)
		w[i] = w[i - 16] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(s, h, sizeof(s));
	for (unsigned i = 0; i < 64; i++) {
		uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
			      ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
		uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
			      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(s[0]));
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++)
		h[i] += s[i];
}

/* Of a whole number of 64-byte pieces. */
static void sha256_hex(const uint8_t *p, size_t len, char hex[65])
{
	uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	uint8_t tail[64] = { 0x80 };

	for (size_t off = 0; off < len; off += 64)
		sha256_block(h, p + off);
	for (unsigned i = 0; i < 8; i++)
		tail[56 + i] = (uint8_t)(len * 8 >> (56 - 8 * i));
	sha256_block(h, tail);
	for (unsigned i = 0; i < 8; i++)
		snprintf(hex + 8 * i, 9, "%08x", h[i]);
}

/* What was written, in order. */
struct written {
	enum mkfs_device dev;
	uint64_t offset;
	size_t len;
	bool is_flush;
	uint8_t *data;
};
struct log {
	struct written w[64];
	unsigned nr;
	unsigned fail_at;	/* the operation that fails; 0 is none, the first is 1 */
};

static struct written *log_add(struct log *log)
{
	assert_true(log->nr < 64);
	return &log->w[log->nr++];
}

static int log_write(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf, size_t len)
{
	struct log *log = arg;
	struct written *w = log_add(log);

	if (log->nr == log->fail_at) {
		log->nr--;
		return -EIO;
	}
	*w = (struct written){ .dev = dev, .offset = offset, .len = len, .data = malloc(len) };
	assert_non_null(w->data);
	memcpy(w->data, buf, len);
	return 0;
}

static int log_flush(void *arg, enum mkfs_device dev)
{
	struct log *log = arg;
	struct written *w = log_add(log);

	if (log->nr == log->fail_at) {
		log->nr--;
		return -EIO;
	}
	*w = (struct written){ .dev = dev, .is_flush = true };
	return 0;
}

static void log_free(struct log *log)
{
	for (unsigned i = 0; i < log->nr; i++)
		free(log->w[i].data);
	memset(log, 0, sizeof(*log));
}

static const uint8_t *block_at(const struct log *log, enum mkfs_device dev, uint64_t offset)
{
	for (unsigned i = 0; i < log->nr; i++) {
		if (!log->w[i].is_flush && log->w[i].dev == dev && log->w[i].offset == offset)
			return log->w[i].data;
	}
	fail_msg("nothing was written at %llu", (unsigned long long)offset);
	return NULL;
}

static struct mkfs_params example(void)
{
	struct mkfs_params p = {
		.fmt_vers = 2,
		.fsid = 0x1122334455667788,
		.now_sec = 1600000000,
		.now_nsec = 123456000,
		.total_meta_blocks = 32768,
		.total_data_blocks = 1048576,
	};

	for (unsigned i = 0; i < 16; i++)
		p.uuid[i] = (uint8_t)i;
	for (unsigned i = 0; i < 3; i++)
		p.slots[i] = (struct mkfs_slot){ true, (uint16_t)(42000 + i), 0x7f000001 };
	return p;
}

static void make(const struct mkfs_params *p, struct log *log)
{
	struct mkfs_ops ops = { log, log_write, log_flush };
	const char *why;

	memset(log, 0, sizeof(*log));
	assert_int_equal(mkfs_params_check(p, &why), 0);
	assert_int_equal(mkfs_layout(p, &ops), 0);
}

static uint32_t crc_at(const struct log *log, enum mkfs_device dev, uint64_t offset, size_t len)
{
	const uint8_t *b = block_at(log, dev, offset);
	le32 crc;

	memcpy(&crc, b, sizeof(crc));
	assert_int_equal(le32_get(crc), block_crc(b, len));
	return le32_get(crc);
}

static void assert_sha(const struct log *log, enum mkfs_device dev, uint64_t offset, size_t len,
		       const char *want)
{
	char hex[65];

	sha256_hex(block_at(log, dev, offset), len, hex);
	assert_string_equal(hex, want);
}

#define LG(n) ((uint64_t)(n) << LARGE_SHIFT)
#define SM(n) ((uint64_t)(n) << SMALL_SHIFT)

static void quorum_and_list_and_supers_as_given(const struct log *log)
{
	static const uint32_t quorum[15] = {
		0x9d0323ce, 0xc9e5c590, 0x06e3b5f5, 0x6028092c, 0xaf2e7949, 0xfbc89f17, 0x34ceef72,
		0x365fe6a5, 0xf95996c0, 0xadbf709e, 0x62b900fb, 0x0472bc22, 0xcb74cc47, 0x9f922a19,
		0x50945a7c,
	};

	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(crc_at(log, MKFS_META, SM(17 + i), SMALL_SIZE), quorum[i]);
	assert_int_equal(crc_at(log, MKFS_META, SM(16), SMALL_SIZE), 0xf93731e5);
	assert_sha(log, MKFS_META, SM(16), SMALL_SIZE,
		   "6f48528e029fa36d848098d24893c44bc24e7a952af403fe17dfd2e51c02efc5");
	assert_int_equal(crc_at(log, MKFS_DATA, SM(16), SMALL_SIZE), 0x7ff2f347);
	assert_sha(log, MKFS_DATA, SM(16), SMALL_SIZE,
		   "95b14295ecbb857e54565a3cce5f445d463bc5f3852ef94476342d7a581b5dae");
	assert_int_equal(crc_at(log, MKFS_META, LG(3), LARGE_SIZE), 0x67a229e3);
	assert_sha(log, MKFS_META, LG(3), LARGE_SIZE,
		   "ec3ec8497273a8a8de088df14dd8c171d6bbb06d8ad6c4d11a9ceaf19d2732a1");
}

static void with_upstreams_heights_every_block_is_upstreams(void **state)
{
	static const struct {
		uint64_t blkno;
		uint32_t crc;
		const char *sha;
	} v[] = {
		{ 2, 0x227dc656, "04ad6c2b300466e1a7320bc9bc1169f361da26b304d6d8a195c65464d90a7aea" },
		{ 1028, 0x47a834d6, "1c6fbf7d2a684c660be26be073ca442e80ca46cc536445de7507de78434f48c2" },
		{ 1029, 0x6c1e0525, "e87063c578bfdc75948bc2358fefc3974a134ea1f78a2dd57e0fc48e042168ad" },
		{ 1030, 0x9f6fc3ce, "f115542b051adc5b7973e456e544a3b923a701f206b2b8cd2f20babb00bb9206" },
	};
	struct mkfs_params p = example();
	struct log log;

	(void)state;
	p.upstream_heights = true;
	make(&p, &log);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(crc_at(&log, MKFS_META, LG(v[i].blkno), LARGE_SIZE), v[i].crc);
		assert_sha(&log, MKFS_META, LG(v[i].blkno), LARGE_SIZE, v[i].sha);
	}
	quorum_and_list_and_supers_as_given(&log);
	log_free(&log);

	p.fmt_vers = 1;
	make(&p, &log);
	assert_int_equal(crc_at(&log, MKFS_META, LG(2), LARGE_SIZE), 0x971bdc4b);
	log_free(&log);
}

static void with_correct_heights_the_tree_blocks_have_the_given_crcs(void **state)
{
	struct mkfs_params p = example();
	struct log log;

	(void)state;
	make(&p, &log);
	assert_int_equal(crc_at(&log, MKFS_META, LG(2), LARGE_SIZE), 0xafb2f346);
	assert_int_equal(crc_at(&log, MKFS_META, LG(1028), LARGE_SIZE), 0xca6701c6);
	assert_int_equal(crc_at(&log, MKFS_META, LG(1029), LARGE_SIZE), 0xe1d13035);
	assert_int_equal(crc_at(&log, MKFS_META, LG(1030), LARGE_SIZE), 0x12a0f6de);
	quorum_and_list_and_supers_as_given(&log);
	/* 5 large blocks, 15 quorum blocks, 2 supers, 3 flushes and nothing else */
	assert_int_equal(log.nr, 25);
	log_free(&log);
}

static void the_supers_pass_the_checks_of_a_mount(void **state)
{
	struct mkfs_params p = example();
	const struct disk_super *meta, *data;
	const char *why;
	struct log log;

	(void)state;
	p.data_alloc_zone_blocks = 1048576;
	make(&p, &log);
	meta = (const void *)block_at(&log, MKFS_META, SM(16));
	data = (const void *)block_at(&log, MKFS_DATA, SM(16));
	assert_int_equal(super_check(meta, &why), 0);
	assert_int_equal(super_check(data, &why), 0);
	assert_int_equal(super_check_meta(meta, LG(32768), &why), 0);
	assert_int_equal(super_check_data(data, SM(1048576), &why), 0);
	assert_int_equal(super_check_pair(meta, data, LG(32768), SM(1048576), &why), 0);
	assert_true(le64_get(meta->volopt.set_bits) == 1);
	assert_true(le64_get(meta->volopt.data_alloc_zone_blocks) == 1048576);

	/* each other's place, one byte too small, another volume */
	assert_int_equal(super_check_meta(data, LG(32768), &why), -EINVAL);
	assert_int_equal(super_check_data(meta, SM(1048576), &why), -EINVAL);
	assert_int_equal(super_check_meta(meta, LG(32768) - 1, &why), -ENOSPC);
	assert_int_equal(super_check_data(data, SM(1048576) - 1, &why), -ENOSPC);
	assert_int_equal(super_check_pair(meta, data, LG(32768) - 1, SM(1048576), &why), -ENOSPC);
	assert_int_equal(super_check_pair(meta, data, LG(32768), SM(1048576) - 1, &why), -ENOSPC);
	for (unsigned i = 17; i < 32; i++) {
		struct disk_quorum_block q;

		memcpy(&q, block_at(&log, MKFS_META, SM(i)), sizeof(q));
		assert_int_equal(quorum_block_check(&q, i - 17, p.fsid, &why), 0);
		assert_int_equal(quorum_block_check(&q, i - 16, p.fsid, &why), -EBADMSG);
		assert_int_equal(quorum_block_check(&q, i - 17, p.fsid + 1, &why), -EBADMSG);
		assert_false(quorum_block_is_in_use(&q));
		assert_false(quorum_block_is_elected(&q));
	}
	log_free(&log);
}

/* A super that is wrong in one respect, with a right checksum, is refused for that respect. */
static void a_wrong_super_is_refused(void **state)
{
	struct mkfs_params p = example();
	struct disk_super s, t;
	const char *why;
	struct log log;

	(void)state;
	make(&p, &log);
	memcpy(&s, block_at(&log, MKFS_META, SM(16)), sizeof(s));
	log_free(&log);

	t = s;
	t.hdr.magic = le32_of(MAGIC_QUORUM);
	t.hdr.crc = le32_of(block_crc(&t, sizeof(t)));
	assert_int_equal(super_check(&t, &why), -EINVAL);
	t = s;
	t.unused[sizeof(t.unused) - 1] ^= 1;
	assert_int_equal(super_check(&t, &why), -EBADMSG);
	t = s;
	t.hdr.blkno = le64_of(17);
	t.hdr.crc = le32_of(block_crc(&t, sizeof(t)));
	assert_int_equal(super_check(&t, &why), -EBADMSG);
	for (unsigned v = 0; v < 5; v++) {
		t = s;
		t.fmt_vers = le64_of(v);
		t.hdr.crc = le32_of(block_crc(&t, sizeof(t)));
		assert_int_equal(super_check(&t, &why), v == 1 || v == 2 ? 0 : -EOPNOTSUPP);
	}
	t = s;
	t.uuid[5] ^= 1;
	assert_int_equal(super_check_pair(&s, &t, UINT64_MAX, UINT64_MAX, &why), -EINVAL);
	t = s;
	t.fmt_vers = le64_of(1);
	assert_int_equal(super_check_pair(&s, &t, UINT64_MAX, UINT64_MAX, &why), -EINVAL);
	/* totals that would wrap when turned into bytes */
	t = s;
	t.total_meta_blocks = le64_of(1ull << 48);
	assert_int_equal(super_check_meta(&t, UINT64_MAX, &why), -EBADMSG);
}

static void the_super_comes_last_and_only_after_everything_is_durable(void **state)
{
	struct mkfs_params p = example();
	struct log log;

	(void)state;
	make(&p, &log);
	for (unsigned i = 0; i < log.nr; i++) {
		const struct written *w = &log.w[i];
		bool is_super = !w->is_flush && w->offset == SM(16);

		if (i < 20)
			assert_true(!w->is_flush && !is_super && w->dev == MKFS_META);
		if (i == 20)
			assert_true(w->is_flush && w->dev == MKFS_META);
		if (i == 21)
			assert_true(is_super && w->dev == MKFS_DATA);
		if (i == 22)
			assert_true(w->is_flush && w->dev == MKFS_DATA);
		if (i == 23)
			assert_true(is_super && w->dev == MKFS_META);
		if (i == 24)
			assert_true(w->is_flush && w->dev == MKFS_META);
	}
	log_free(&log);
}

static void any_failing_operation_ends_it_with_its_error_and_no_later_write(void **state)
{
	struct mkfs_params p = example();

	(void)state;
	for (unsigned at = 1; at <= 25; at++) {
		struct log log = { .fail_at = at };
		struct mkfs_ops ops = { &log, log_write, log_flush };

		assert_int_equal(mkfs_layout(&p, &ops), -EIO);
		assert_int_equal(log.nr, at - 1);
		log_free(&log);
	}
}

static void the_smallest_volume_has_an_extent_in_each_allocator(void **state)
{
	struct mkfs_params p = example();
	const struct disk_super *s;
	struct log log;

	(void)state;
	p.total_meta_blocks = MKFS_META_BLOCKS_MIN;
	p.total_data_blocks = MKFS_DATA_BLOCKS_MIN;
	make(&p, &log);
	s = (const void *)block_at(&log, MKFS_META, SM(16));
	assert_true(le64_get(s->meta_alloc[0].total_len) == 1);
	assert_true(le64_get(s->meta_alloc[1].total_len) == 1);
	assert_true(le64_get(s->data_alloc.total_len) == 1);
	log_free(&log);
}

static void assert_refused(const struct mkfs_params *p)
{
	const char *why = NULL;

	assert_int_equal(mkfs_params_check(p, &why), -EINVAL);
	assert_non_null(why);
}

static void bad_parameters_are_refused_with_a_reason(void **state)
{
	const struct mkfs_params good = example();
	struct mkfs_params p;

	(void)state;
	p = good; p.fmt_vers = 0; assert_refused(&p);
	p = good; p.fmt_vers = 3; assert_refused(&p);
	p = good; p.total_meta_blocks = MKFS_META_BLOCKS_MIN - 1; assert_refused(&p);
	p = good; p.total_data_blocks = MKFS_DATA_BLOCKS_MIN - 1; assert_refused(&p);
	p = good; p.total_meta_blocks = 1ull << 48; assert_refused(&p);
	p = good; p.total_data_blocks = 1ull << 52; assert_refused(&p);
	p = good; p.data_alloc_zone_blocks = 1048575; assert_refused(&p);
	p = good; p.data_alloc_zone_blocks = 1048577; assert_refused(&p);
	p = good; p.data_alloc_zone_blocks = 1048576; p.total_data_blocks = (1ull << 30) + 1;
	assert_refused(&p);
	p = good; memset(p.slots, 0, sizeof(p.slots)); assert_refused(&p);
	p = good; p.slots[1].port = 0; assert_refused(&p);
	p = good; p.slots[1].addr = 0; assert_refused(&p);
	p = good; p.slots[1].addr = 0xe0000001; assert_refused(&p);
	p = good; p.slots[1].addr = 0xffffffff; assert_refused(&p);
	p = good; p.slots[14] = p.slots[0]; assert_refused(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_upstreams_heights_every_block_is_upstreams),
		cmocka_unit_test(with_correct_heights_the_tree_blocks_have_the_given_crcs),
		cmocka_unit_test(the_supers_pass_the_checks_of_a_mount),
		cmocka_unit_test(a_wrong_super_is_refused),
		cmocka_unit_test(the_super_comes_last_and_only_after_everything_is_durable),
		cmocka_unit_test(any_failing_operation_ends_it_with_its_error_and_no_later_write),
		cmocka_unit_test(the_smallest_volume_has_an_extent_in_each_allocator),
		cmocka_unit_test(bad_parameters_are_refused_with_a_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
