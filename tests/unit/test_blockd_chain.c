/*
 * Chains: the super block of a commit goes to the device when all that it names is durable there, and not before, not by
 * whom it is not to be written any more, and not over another's.
 */
#include "blockd_conn_rig.h"

#include "csum/csum.h"
#include "format/super.h"

#define BLOCK_OFF	(META_FIRST_BLKNO << LARGE_SHIFT)
#define SUPER_OFF	(SUPER_BLKNO << SMALL_SHIFT)
#define SEQ		77u

static struct disk_super super_of(uint64_t seq)
{
	struct disk_super s = { .hdr = { .magic = le32_of(MAGIC_SUPER), .fsid = le64_of(7), .seq = le64_of(seq),
					 .blkno = le64_of(SUPER_BLKNO) },
				.fmt_vers = le64_of(2) };

	s.hdr.crc = le32_of(block_crc(&s, sizeof(s)));
	return s;
}

static void push(struct raw *r, struct blkring_desc d, uint64_t chain, uint64_t tag)
{
	d.chain = chain;
	d.tag = tag;
	assert_int_equal(blkring_push(&r->ring->sq_head, &r->ring->sq_tail, &r->tail, r->ring->sq, &d), 0);
}

/* Tags: a block 1, its flush 2, the data's flush 3, the super 4. */
static void push_last(struct raw *r, uint64_t chain, unsigned before_nr)
{
	struct disk_super s = super_of(SEQ);

	push(r, (struct blkring_desc){ .op = BLK_OP_WRITE, .flags = BLKRING_DURABLE | BLKRING_LAST,
				       .region = BLK_REGION_PRIVATE, .region_off = 8192, .len = 4096,
				       .dev_off = SUPER_OFF, .expect_seq = SEQ,
				       .expect_crc = le32_get(s.hdr.crc), .before_nr = before_nr }, chain, 4);
}

static void push_before(struct raw *r, uint64_t chain)
{
	push(r, (struct blkring_desc){ .op = BLK_OP_WRITE, .region = BLK_REGION_PRIVATE, .len = 65536,
				       .dev_off = BLOCK_OFF }, chain, 1);
	push(r, (struct blkring_desc){ .op = BLK_OP_FLUSH, .dev = BLK_DEV_META, .flags = BLKRING_AFTER }, chain, 2);
	push(r, (struct blkring_desc){ .op = BLK_OP_FLUSH, .dev = BLK_DEV_DATA, .flags = BLKRING_AFTER }, chain, 3);
}

static void send_commit(struct fixture *fx, struct raw *r, uint64_t chain)
{
	push_before(r, chain);
	push_last(r, chain, 3);
	conns_drain(&fx->d);
}

static void join_server(struct fixture *fx, struct raw *r)
{
	join(fx, r, BLK_KIND_SERVERD, 1, 4);
	assert_true(r->reply.can & BLK_CAN_CHAIN);
}

/* The operation of that kind at the device, or NULL. */
static struct io *at_device(unsigned op, unsigned dev)
{
	struct io *io = started;

	while (io && (io->op != op || io->dev != dev))
		io = io->next;
	return io;
}

static unsigned at_device_nr(void)
{
	unsigned nr = 0;

	for (struct io *io = started; io; io = io->next)
		nr++;
	return nr;
}

static struct io *must_be_at_device(unsigned op, unsigned dev)
{
	struct io *io = at_device(op, dev);

	assert_non_null(io);
	return io;
}

/* What stands at the super block's place is read. */
static void end_look(struct fixture *fx, uint64_t seq)
{
	struct io *io = must_be_at_device(BLK_OP_READ, BLK_DEV_META);
	struct disk_super s = super_of(seq);

	assert_int_equal(io->off, SUPER_OFF);
	assert_int_equal(io->len, SMALL_SIZE);
	/* A look takes no right to write: one that ended meanwhile, and was renewed, is no reason to refuse it. */
	assert_int_equal(io->until_ns, 0);
	memcpy(io->buf, &s, sizeof(s));
	end_one(&fx->d, io, 0);
}

/* The next completion. */
static void answered(struct raw *r, uint64_t tag, int result)
{
	struct blkring_desc d;

	assert_int_equal(blkring_pop(&r->ring->cq_tail, &r->ring->cq_head, &r->head, r->ring->cq, &d), 1);
	assert_int_equal(d.tag, tag);
	assert_int_equal(d.result, result);
}

static void nothing_answered(struct raw *r)
{
	assert_int_equal(blkring_load(&r->ring->cq_tail), r->head);
}

/* All before the super ends well. */
static void end_before(struct fixture *fx, struct raw *r)
{
	end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
	answered(r, 1, 0);
	end_one(&fx->d, must_be_at_device(BLK_OP_FLUSH, BLK_DEV_META), 0);
	answered(r, 2, 0);
	end_one(&fx->d, must_be_at_device(BLK_OP_FLUSH, BLK_DEV_DATA), 0);
	answered(r, 3, 0);
}

static void the_super_comes_after_all_before_it(void **state)
{
	struct fixture *fx = *state;
	struct raw r;
	struct io *io;

	join_server(fx, &r);
	send_commit(fx, &r, 1);
	/* The block, and the look. */
	assert_int_equal(at_device_nr(), 2);
	end_look(fx, SEQ);
	assert_int_equal(at_device_nr(), 1);
	end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
	assert_null(at_device(BLK_OP_WRITE, BLK_DEV_META));
	end_one(&fx->d, must_be_at_device(BLK_OP_FLUSH, BLK_DEV_META), 0);
	assert_null(at_device(BLK_OP_WRITE, BLK_DEV_META));
	end_one(&fx->d, must_be_at_device(BLK_OP_FLUSH, BLK_DEV_DATA), 0);
	io = must_be_at_device(BLK_OP_WRITE, BLK_DEV_META);
	assert_int_equal(io->off, SUPER_OFF);
	assert_int_equal(io->len, SMALL_SIZE);
	assert_true(io->is_durable);
	for (uint64_t tag = 1; tag < 4; tag++)
		answered(&r, tag, 0);
	nothing_answered(&r);
	end_one(&fx->d, io, 0);
	answered(&r, 4, 0);

	/* The look may be what is late; and the next chain of the same connection goes the same way. */
	send_commit(fx, &r, 2);
	end_before(fx, &r);
	assert_null(at_device(BLK_OP_WRITE, BLK_DEV_META));
	end_look(fx, SEQ);
	end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
	answered(&r, 4, 0);
	assert_int_equal(at_device_nr(), 0);
	leave(fx, &r);
}

/* Whatever fails, whenever the look ends: the super is not written. */
static void an_error_before_the_super_keeps_it_back(void **state)
{
	static const unsigned ops[3][2] = { { BLK_OP_WRITE, BLK_DEV_META }, { BLK_OP_FLUSH, BLK_DEV_META },
					    { BLK_OP_FLUSH, BLK_DEV_DATA } };
	struct fixture *fx = *state;

	for (unsigned at = 0; at < 6; at++) {
		bool looks_first = at >= 3;
		struct raw r;

		join_server(fx, &r);
		send_commit(fx, &r, 1);
		if (looks_first)
			end_look(fx, SEQ);
		for (unsigned i = 0; i < 3; i++) {
			int result = i == at % 3 ? -EIO : 0;

			assert_null(i > 0 ? at_device(BLK_OP_WRITE, BLK_DEV_META) : NULL);
			end_one(&fx->d, must_be_at_device(ops[i][0], ops[i][1]), result);
			answered(&r, i + 1, result);
		}
		if (!looks_first) {
			nothing_answered(&r);
			end_look(fx, SEQ);
		}
		answered(&r, 4, -ECANCELED);
		assert_int_equal(at_device_nr(), 0);
		/* What failed has no part in the next one. */
		send_commit(fx, &r, 2);
		end_look(fx, SEQ);
		end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
		end_one(&fx->d, must_be_at_device(BLK_OP_FLUSH, BLK_DEV_META), 0);
		end_one(&fx->d, must_be_at_device(BLK_OP_FLUSH, BLK_DEV_DATA), 0);
		end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
		leave(fx, &r);
	}
}

static void anothers_super_is_not_written_over(void **state)
{
	struct fixture *fx = *state;
	struct raw r;
	struct io *io;

	join_server(fx, &r);
	send_commit(fx, &r, 1);
	end_look(fx, SEQ + 1);
	answered(&r, 4, -EUCLEAN);
	end_before(fx, &r);
	assert_int_equal(at_device_nr(), 0);

	/* Nor one that is damaged, though it has the number and the checksum. */
	send_commit(fx, &r, 2);
	io = must_be_at_device(BLK_OP_READ, BLK_DEV_META);
	*(struct disk_super *)(void *)io->buf = super_of(SEQ);
	((struct disk_super *)(void *)io->buf)->inode_count = le64_of(1);
	end_one(&fx->d, io, 0);
	answered(&r, 4, -EUCLEAN);
	end_before(fx, &r);

	/* One that cannot be read is none. */
	send_commit(fx, &r, 3);
	end_one(&fx->d, must_be_at_device(BLK_OP_READ, BLK_DEV_META), -EIO);
	answered(&r, 4, -EIO);
	end_before(fx, &r);
	assert_int_equal(at_device_nr(), 0);
	leave(fx, &r);
}

/* A look of long ago says nothing: what it missed is found. */
static void where_the_devices_took_long_it_is_looked_at_again(void **state)
{
	struct fixture *fx = *state;
	struct raw r;

	for (unsigned found = 0; found < 2; found++) {
		join_server(fx, &r);
		send_commit(fx, &r, 1);
		end_look(fx, SEQ);
		/* Any time is long. */
		fx->d.look_known_ns = 0;
		end_before(fx, &r);
		assert_null(at_device(BLK_OP_WRITE, BLK_DEV_META));
		end_look(fx, SEQ + found);
		if (found) {
			answered(&r, 4, -EUCLEAN);
		} else {
			end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
			answered(&r, 4, 0);
		}
		assert_int_equal(at_device_nr(), 0);
		leave(fx, &r);
	}
}

/* The right to write is looked at when the super is submitted. */
static void the_right_may_end_while_it_waits(void **state)
{
	struct fixture *fx = *state;
	struct raw r, quorumd;
	uint64_t until;

	join_server(fx, &r);
	join(fx, &quorumd, BLK_KIND_QUORUMD, 1, 0);
	send_commit(fx, &r, 1);
	end_look(fx, SEQ);
	end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
	control(fx, &quorumd, BLKMSG_SET_TERM, 5);
	/* No write of an older term is under way, and there will be none. */
	assert_int_equal(control_answer(&quorumd), 0);
	end_all(&fx->d);
	for (uint64_t tag = 1; tag < 4; tag++)
		answered(&r, tag, 0);
	answered(&r, 4, -ESTALE);
	assert_int_equal(at_device_nr(), 0);
	leave(fx, &r);

	join(fx, &r, BLK_KIND_SERVERD, 1, 6);
	send_commit(fx, &r, 1);
	end_look(fx, SEQ);
	until = clock_boot_ns();
	for (unsigned i = 0; i < LEASE_GUARD_MAX; i++)
		fx->d.leases.v[i].until_ns = until;
	end_all(&fx->d);
	for (uint64_t tag = 1; tag < 4; tag++)
		answered(&r, tag, 0);
	answered(&r, 4, -EKEYEXPIRED);
	assert_int_equal(at_device_nr(), 0);
	leave(fx, &r);
	leave(fx, &quorumd);
}

static void one_that_is_not_whole_is_not_ended(void **state)
{
	struct fixture *fx = *state;
	struct raw r;

	join_server(fx, &r);
	/* Part of it went to the blockd before. */
	push_last(&r, 1, 3);
	conns_drain(&fx->d);
	end_look(fx, SEQ);
	answered(&r, 4, -ECANCELED);

	/* An operation of it was refused. */
	push(&r, (struct blkring_desc){ .op = BLK_OP_WRITE, .region = BLK_REGION_PRIVATE, .len = 65536,
					.dev_off = 1 }, 2, 1);
	push(&r, (struct blkring_desc){ .op = BLK_OP_FLUSH, .flags = BLKRING_AFTER }, 2, 2);
	push_last(&r, 2, 2);
	conns_drain(&fx->d);
	answered(&r, 1, -EINVAL);
	end_look(fx, SEQ);
	end_one(&fx->d, must_be_at_device(BLK_OP_FLUSH, BLK_DEV_META), 0);
	answered(&r, 2, 0);
	answered(&r, 4, -ECANCELED);
	assert_int_equal(at_device_nr(), 0);

	/* Nor are two mixed. */
	push_before(&r, 3);
	push_last(&r, 4, 0);
	conns_drain(&fx->d);
	answered(&r, 4, -EBUSY);
	push_last(&r, 3, 3);
	push_before(&r, 3);
	conns_drain(&fx->d);
	for (uint64_t tag = 1; tag < 4; tag++)
		answered(&r, tag, -EBUSY);
	end_look(fx, SEQ);
	end_before(fx, &r);
	end_one(&fx->d, must_be_at_device(BLK_OP_WRITE, BLK_DEV_META), 0);
	answered(&r, 4, 0);
	leave(fx, &r);
}

/* At whatever moment its client goes: no super is written for it, and nothing of it stays. */
static void it_ends_with_its_connection(void **state)
{
	struct fixture *fx = *state;
	struct raw r;

	for (unsigned at = 0; at < 4; at++) {
		join_server(fx, &r);
		send_commit(fx, &r, 1);
		if (at & 1)
			end_look(fx, SEQ);
		if (at & 2)
			end_before(fx, &r);
		/* Only what is at the device already will be there. */
		assert_int_equal(at_device_nr(), at == 0 ? 2 : 1);
		leave(fx, &r);
		for (; started; end_one(&fx->d, started, 0))
			assert_int_equal(started->op == BLK_OP_WRITE && started->off == SUPER_OFF, at == 3);
		assert_int_equal(fx->d.conns_nr, 0);
		assert_int_equal(fx->d.ios_nr, 0);
	}
}

/* Who may not write when it begins is told so for each part, and the super is not left behind. */
static void without_a_right_all_is_refused(void **state)
{
	struct fixture *fx = *state;
	struct raw r;

	join_only(fx, &r, BLK_KIND_SERVERD, 1, 4);
	send_commit(fx, &r, 1);
	answered(&r, 1, -EKEYEXPIRED);
	answered(&r, 4, -EKEYEXPIRED);
	end_all(&fx->d);
	assert_int_equal(fx->d.ios_nr, 0);
	leave(fx, &r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(the_super_comes_after_all_before_it),
		TEST(an_error_before_the_super_keeps_it_back),
		TEST(anothers_super_is_not_written_over),
		TEST(where_the_devices_took_long_it_is_looked_at_again),
		TEST(the_right_may_end_while_it_waits),
		TEST(one_that_is_not_whole_is_not_ended),
		TEST(it_ends_with_its_connection),
		TEST(without_a_right_all_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
