/*
 * Promises of the shared ring (lib/run/blkring.h) and of the descriptor check (services/blockd/ring.c),
 * without any process: nothing is lost or repeated, a lying index is seen, and no descriptor that
 * reaches outside of what its client may touch gets through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/format.h"
#include "services/blockd/blockd.h"

#define POOL_BYTES	(8ull << 20)
#define REGION_BYTES	(1ull << 20)
#define META_BYTES	(64ull << 20)
#define DATA_BYTES	(16ull << 20)

static struct blkring_shared ring;

static const struct ring_limits limits = {
	.kind = BLK_KIND_SERVERD,
	.region_bytes = { 0, REGION_BYTES },
	.device_bytes = { META_BYTES, DATA_BYTES },
};

static void what_goes_in_comes_out_once_and_in_order(void **state)
{
	/* Start near the wrap of the indices. */
	uint32_t tail = UINT32_MAX - 300, head = tail;
	uint64_t put = 0, got = 0;
	uint64_t x = 1;

	(void)state;
	memset(&ring, 0, sizeof(ring));
	ring.sq_tail.v = tail;
	ring.sq_head.v = head;
	while (got < 5000) {
		struct blkring_desc d = { .tag = put };

		x = x * 6364136223846793005u + 1442695040888963407u;
		if (x >> 63) {
			int ret = blkring_push(&ring.sq_head, &ring.sq_tail, &tail, ring.sq, &d);

			assert_int_equal(ret, put - got == BLKRING_ENTRIES ? -ENOSPC : 0);
			put += ret == 0;
		} else {
			int ret = blkring_pop(&ring.sq_tail, &ring.sq_head, &head, ring.sq, &d);

			assert_int_equal(ret, put != got);
			if (ret)
				assert_int_equal(d.tag, got++);
		}
	}
}

static void a_full_ring_takes_no_more(void **state)
{
	uint32_t tail = 0, head = 0;
	struct blkring_desc d = { .tag = 7 };

	(void)state;
	memset(&ring, 0, sizeof(ring));
	for (unsigned i = 0; i < BLKRING_ENTRIES; i++)
		assert_int_equal(blkring_push(&ring.sq_head, &ring.sq_tail, &tail, ring.sq, &d), 0);
	assert_int_equal(blkring_push(&ring.sq_head, &ring.sq_tail, &tail, ring.sq, &d), -ENOSPC);
	assert_int_equal(blkring_pop(&ring.sq_tail, &ring.sq_head, &head, ring.sq, &d), 1);
	assert_int_equal(blkring_push(&ring.sq_head, &ring.sq_tail, &tail, ring.sq, &d), 0);
}

static void an_index_that_cannot_be_is_seen(void **state)
{
	uint32_t lies[] = { BLKRING_ENTRIES + 1, 0x80000000u, UINT32_MAX };
	struct blkring_desc d = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint32_t own = 0;

		memset(&ring, 0, sizeof(ring));
		ring.sq_tail.v = lies[i];
		assert_int_equal(blkring_pop(&ring.sq_tail, &ring.sq_head, &own, ring.sq, &d), -EPROTO);
		assert_int_equal(own, 0);
		ring.cq_head.v = -lies[i];
		assert_int_equal(blkring_push(&ring.cq_head, &ring.cq_tail, &own, ring.cq, &d),
				 -EPROTO);
		assert_int_equal(own, 0);
	}
}

static struct blkring_desc good_read(void)
{
	return (struct blkring_desc){ .op = BLK_OP_READ, .dev = BLK_DEV_META, .tag = 9,
				      .region = BLK_REGION_PRIVATE, .len = 65536,
				      .region_off = 4096, .dev_off = 131072 };
}

static unsigned spin_long(struct blkring_spin *s, unsigned waits, const uint64_t *ns, unsigned ns_nr)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < waits; i++) {
		nr += blkring_spin_ns(s) == BLKRING_SPIN_MAX_NS;
		blkring_spin_end(s, ns[i % ns_nr]);
	}
	return nr;
}

/* Fast answers are spun for; for slow ones, and where only some are fast, only some waits try. */
static void spinning_follows_what_paid(void **state)
{
	static const uint64_t fast[] = { BLKRING_SPIN_MAX_NS }, slow[] = { UINT64_MAX };
	static const uint64_t mostly[] = { 0, 0, BLKRING_SPIN_MAX_NS + 1 };
	static const uint64_t seldom[] = { 0, BLKRING_SPIN_MAX_NS + 1, UINT64_MAX };
	struct blkring_spin s = { 0 };

	(void)state;
	assert_int_equal(spin_long(&s, 100, fast, 1), 100);
	assert_int_equal(spin_long(&s, 300, mostly, 3), 300);
	assert_int_equal(spin_long(&s, 100, fast, 1), 100);
	assert_int_equal(spin_long(&s, 8, slow, 1), 8);
	assert_int_equal(spin_long(&s, 160, slow, 1), 10);
	assert_true(spin_long(&s, 1600, seldom, 3) < 400);
	/* One that was right is followed by another, and those that follow by more. */
	assert_int_equal(spin_long(&s, 160, slow, 1), 10);
	while (blkring_spin_ns(&s) != BLKRING_SPIN_MAX_NS)
		blkring_spin_end(&s, 0);
	blkring_spin_end(&s, 0);
	assert_int_equal(spin_long(&s, 100, fast, 1), 100);
}

static void good_descriptors_pass(void **state)
{
	struct blkring_desc d = good_read();

	(void)state;
	assert_int_equal(ring_desc_check(&d, &limits), 0);
	d.op = BLK_OP_WRITE;
	assert_int_equal(ring_desc_check(&d, &limits), 0);
	d.flags = BLKRING_DURABLE;
	assert_int_equal(ring_desc_check(&d, &limits), 0);
	d.flags = BLKRING_DURABLE | BLKRING_AFTER;
	assert_int_equal(ring_desc_check(&d, &limits), -EINVAL);
	d.flags = 0;
	d.dev_off = META_BYTES - d.len;
	d.region_off = REGION_BYTES - d.len;
	assert_int_equal(ring_desc_check(&d, &limits), 0);
	d.len = BLKRING_LEN_MAX;
	d.region_off = 0;
	d.dev_off = 131072;
	assert_int_equal(ring_desc_check(&d, &limits), 0);
	d = (struct blkring_desc){ .op = BLK_OP_FLUSH, .dev = BLK_DEV_DATA };
	assert_int_equal(ring_desc_check(&d, &limits), 0);
	d.flags = BLKRING_DURABLE;
	assert_int_equal(ring_desc_check(&d, &limits), -EINVAL);
	d.flags = BLKRING_AFTER;
	assert_int_equal(ring_desc_check(&d, &limits), 0);
	d.flags = BLKRING_AFTER | 4;
	assert_int_equal(ring_desc_check(&d, &limits), -EINVAL);
	d = (struct blkring_desc){ .op = BLK_OP_DISCARD, .dev = BLK_DEV_DATA, .dev_off = 1 << 20,
				   .len = 8 << 20 };
	assert_int_equal(ring_desc_check(&d, &limits), 0);
}

static void one_field_wrong_is_refused(void **state)
{
	struct { size_t off, size; uint64_t value; } wrong[] = {
#define WRONG(field, v) { offsetof(struct blkring_desc, field), sizeof(((struct blkring_desc *)0)->field), v }
		WRONG(op, 0), WRONG(op, BLK_OP_END), WRONG(op, 255),
		WRONG(dev, BLK_DEVS_NR), WRONG(dev, 255),
		WRONG(flags, 1), WRONG(result, 1), WRONG(expect_seq, 1ull << 63),
		WRONG(expect_crc, 1), WRONG(before_nr, 1),
		WRONG(region, BLK_REGION_POOL), WRONG(region, BLK_REGIONS_NR),
		WRONG(region, UINT32_MAX),
		WRONG(len, 0), WRONG(len, 1), WRONG(len, 4095), WRONG(len, 65537),
		WRONG(len, BLKRING_LEN_MAX + 4096), WRONG(len, UINT32_MAX - 4095),
		WRONG(region_off, 1), WRONG(region_off, 512), WRONG(region_off, REGION_BYTES),
		WRONG(region_off, REGION_BYTES - 65536 + 4096), WRONG(region_off, UINT64_MAX - 4095),
		WRONG(region_off, 1ull << 63),
		WRONG(dev_off, 512), WRONG(dev_off, META_BYTES), WRONG(dev_off, UINT64_MAX - 4095),
		WRONG(dev_off, META_BYTES - 65536 + 4096), WRONG(dev_off, 1ull << 63),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct blkring_desc d = good_read();

		memcpy((char *)&d + wrong[i].off, &wrong[i].value, wrong[i].size);
		if (ring_desc_check(&d, &limits) != -EINVAL)
			fail_msg("case %zu passed", i);
	}
}

static struct blkring_desc good_last(void)
{
	return (struct blkring_desc){ .op = BLK_OP_WRITE, .dev = BLK_DEV_META, .flags = BLKRING_DURABLE | BLKRING_LAST,
				      .region = BLK_REGION_PRIVATE, .len = 4096,
				      .dev_off = SUPER_BLKNO << SMALL_SHIFT, .chain = 1, .expect_seq = 2,
				      .expect_crc = 3, .before_nr = 4 };
}

/* A chain is serverd's, and ends with its super block. */
static void a_chain_that_makes_no_sense_is_refused(void **state)
{
	struct ring_limits lim = limits;
	struct blkring_desc d = good_last();

	(void)state;
	lim.kind = BLK_KIND_SERVERD;
	assert_int_equal(ring_desc_check(&d, &lim), 0);
#define REFUSED(...)	d = good_last(); __VA_ARGS__; assert_int_equal(ring_desc_check(&d, &lim), -EINVAL)
	REFUSED(d.flags = BLKRING_LAST);
	REFUSED(d.flags = BLKRING_DURABLE);
	REFUSED(d.chain = 0);
	REFUSED(d.len = 8192);
	REFUSED(d.dev_off += 4096);
	REFUSED(d.dev = BLK_DEV_DATA);
	REFUSED(d.op = BLK_OP_READ);
	for (lim.kind = 0; lim.kind <= BLK_KIND_END; lim.kind++) {
		d = good_last();
		assert_int_equal(ring_desc_check(&d, &lim), lim.kind == BLK_KIND_SERVERD ? 0 : -EINVAL);
		d = good_read();
		d.chain = 1;
		assert_int_equal(ring_desc_check(&d, &lim), lim.kind == BLK_KIND_SERVERD ? 0 : -EINVAL);
	}
	lim.kind = BLK_KIND_SERVERD;
	d = (struct blkring_desc){ .op = BLK_OP_DISCARD, .dev = BLK_DEV_DATA, .dev_off = 1 << 20, .len = 8 << 20 };
	assert_int_equal(ring_desc_check(&d, &lim), 0);
	REFUSED(d = (struct blkring_desc){ .op = BLK_OP_DISCARD, .dev = BLK_DEV_DATA, .dev_off = 1 << 20, .len = 8 << 20,
					   .chain = 1 });
#undef REFUSED
}

static int try_write(uint32_t kind, unsigned op, unsigned dev, uint64_t off)
{
	struct ring_limits lim = limits;
	struct blkring_desc d = { .op = (uint8_t)op, .dev = (uint8_t)dev, .len = 4096, .dev_off = off };

	lim.kind = kind;
	if (op != BLK_OP_DISCARD)
		d.region = BLK_REGION_PRIVATE;
	return ring_desc_check(&d, &lim);
}

static void nobody_writes_what_is_not_his(void **state)
{
	uint64_t super = SUPER_BLKNO << SMALL_SHIFT;
	uint64_t quorum = QUORUM_FIRST_BLKNO << SMALL_SHIFT;
	uint64_t first_meta = META_FIRST_BLKNO << LARGE_SHIFT;
	uint64_t first_data = DATA_FIRST_BLKNO << SMALL_SHIFT;

	(void)state;
	assert_int_equal(try_write(BLK_KIND_SERVERD, BLK_OP_WRITE, BLK_DEV_META, 0), -EPERM);
	assert_int_equal(try_write(BLK_KIND_SERVERD, BLK_OP_WRITE, BLK_DEV_META, super), 0);
	assert_int_equal(try_write(BLK_KIND_QUORUMD, BLK_OP_WRITE, BLK_DEV_META, quorum), 0);
	assert_int_equal(try_write(BLK_KIND_FSD, BLK_OP_WRITE, BLK_DEV_META, super), -EPERM);
	assert_int_equal(try_write(BLK_KIND_FSD, BLK_OP_WRITE, BLK_DEV_META, quorum), -EPERM);
	assert_int_equal(try_write(BLK_KIND_FSD, BLK_OP_WRITE, BLK_DEV_META, first_meta), 0);
	assert_int_equal(try_write(BLK_KIND_FSD, BLK_OP_WRITE, BLK_DEV_DATA, super), -EPERM);
	assert_int_equal(try_write(BLK_KIND_SERVERD, BLK_OP_WRITE, BLK_DEV_DATA, first_data - 4096),
			 -EPERM);
	assert_int_equal(try_write(BLK_KIND_FSD, BLK_OP_WRITE, BLK_DEV_DATA, first_data), 0);
	assert_int_equal(try_write(BLK_KIND_SERVERD, BLK_OP_DISCARD, BLK_DEV_META, super), -EPERM);
	assert_int_equal(try_write(BLK_KIND_SERVERD, BLK_OP_DISCARD, BLK_DEV_META, first_meta), 0);
	assert_int_equal(try_write(BLK_KIND_TOOL, BLK_OP_WRITE, BLK_DEV_DATA, first_data), -EPERM);
	assert_int_equal(try_write(BLK_KIND_TOOL, BLK_OP_READ, BLK_DEV_META, super), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_goes_in_comes_out_once_and_in_order),
		cmocka_unit_test(a_full_ring_takes_no_more),
		cmocka_unit_test(an_index_that_cannot_be_is_seen),
		cmocka_unit_test(spinning_follows_what_paid),
		cmocka_unit_test(good_descriptors_pass),
		cmocka_unit_test(one_field_wrong_is_refused),
		cmocka_unit_test(a_chain_that_makes_no_sense_is_refused),
		cmocka_unit_test(nobody_writes_what_is_not_his),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
