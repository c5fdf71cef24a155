/* What blockd's connections promise while I/O is under way. */
#include "blockd_conn_rig.h"

/* ---- promises ---- */

static void a_revoke_is_answered_when_no_write_is_under_way(void **state)
{
	struct fixture *fx = *state;
	struct raw victim, serverd;

	join(fx, &victim, BLK_KIND_FSD, VICTIM, 0);
	join(fx, &serverd, BLK_KIND_SERVERD, 1, 1);
	ask(fx, &victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	assert_non_null(started);
	control(fx, &serverd, BLKMSG_REVOKE, VICTIM);
	assert_int_equal(control_answer(&serverd), 1);
	/* Already refused, though the answer is not there yet. */
	ask(fx, &victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF + 4096);
	assert_int_equal(answer(&victim), -ENOLINK);
	/* A victim that goes away has not taken its write along. */
	leave(fx, &victim);
	assert_int_equal(control_answer(&serverd), 1);
	end_all(&fx->d);
	assert_int_equal(control_answer(&serverd), 0);
	/* And the next control is heard again. */
	control(fx, &serverd, BLKMSG_REVOKE, VICTIM);
	assert_int_equal(control_answer(&serverd), 0);
	leave(fx, &serverd);
}

static void a_read_under_way_holds_no_revoke(void **state)
{
	struct fixture *fx = *state;
	struct raw victim, serverd;

	join(fx, &victim, BLK_KIND_FSD, VICTIM, 0);
	join(fx, &serverd, BLK_KIND_SERVERD, 1, 1);
	ask(fx, &victim, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	control(fx, &serverd, BLKMSG_REVOKE, VICTIM);
	assert_int_equal(control_answer(&serverd), 0);
	end_all(&fx->d);
	assert_int_equal(answer(&victim), 0);
	leave(fx, &victim);
	leave(fx, &serverd);
}

static void a_term_is_set_when_no_older_write_is_under_way(void **state)
{
	struct fixture *fx = *state;
	struct raw old, fsd, quorumd;

	join(fx, &old, BLK_KIND_SERVERD, 1, 4);
	join(fx, &fsd, BLK_KIND_FSD, 2, 0);
	join(fx, &quorumd, BLK_KIND_QUORUMD, 3, 0);
	ask(fx, &fsd, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	control(fx, &quorumd, BLKMSG_SET_TERM, 4);
	assert_int_equal(control_answer(&quorumd), 0);
	ask(fx, &old, BLK_OP_WRITE, BLK_DEV_META, 65536);
	assert_int_equal(answer(&old), 1);
	control(fx, &quorumd, BLKMSG_SET_TERM, 5);
	assert_int_equal(control_answer(&quorumd), 1);
	ask(fx, &old, BLK_OP_WRITE, BLK_DEV_META, 65536);
	assert_int_equal(answer(&old), -ESTALE);
	end_all(&fx->d);
	assert_int_equal(control_answer(&quorumd), 0);
	leave(fx, &old);
	leave(fx, &fsd);
	leave(fx, &quorumd);
}

static void one_who_asked_may_go_before_the_answer(void **state)
{
	struct fixture *fx = *state;
	struct raw victim, serverd;

	join(fx, &victim, BLK_KIND_FSD, VICTIM, 0);
	join(fx, &serverd, BLK_KIND_SERVERD, 1, 1);
	ask(fx, &victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	control(fx, &serverd, BLKMSG_REVOKE, VICTIM);
	leave(fx, &serverd);
	assert_int_equal(fx->d.conns_nr, 1);
	assert_int_equal(fx->d.controls_held, 0);
	end_all(&fx->d);
	leave(fx, &victim);
}

static void a_writer_is_greeted_again_when_its_old_writes_have_ended(void **state)
{
	struct fixture *fx = *state;
	struct raw first, second, other;

	join(fx, &first, BLK_KIND_FSD, VICTIM, 0);
	ask(fx, &first, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	leave(fx, &first);
	say_hello(fx, &second, BLK_KIND_FSD, VICTIM, 0);
	assert_false(is_welcome(&second));
	/* Somebody else need not wait. */
	join(fx, &other, BLK_KIND_FSD, VICTIM + 1, 0);
	assert_false(is_welcome(&second));
	end_all(&fx->d);
	assert_true(is_welcome(&second));
	ask(fx, &second, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	end_all(&fx->d);
	assert_int_equal(answer(&second), 0);
	leave(fx, &second);
	leave(fx, &other);
}

static void a_buffer_stays_until_its_operation_ends(void **state)
{
	struct fixture *fx = *state;
	struct raw r;

	join(fx, &r, BLK_KIND_FSD, VICTIM, 0);
	ask(fx, &r, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	leave(fx, &r);
	assert_int_equal(fx->d.conns_nr, 1);
	/* The device "reads": a crash if the pages had gone with the client. */
	memset(started->buf, 1, started->len);
	end_all(&fx->d);
	assert_int_equal(fx->d.conns_nr, 0);
}

static void a_failed_flush_is_told_to_everybody_once(void **state)
{
	struct fixture *fx = *state;
	struct raw a, b;

	join(fx, &a, BLK_KIND_FSD, 1, 0);
	join(fx, &b, BLK_KIND_FSD, 2, 0);
	ask(fx, &a, BLK_OP_FLUSH, BLK_DEV_DATA, 0);
	end_one(&fx->d, started, -ENOSPC);
	assert_int_equal(answer(&a), -ENOSPC);
	ask(fx, &a, BLK_OP_FLUSH, BLK_DEV_DATA, 0);
	ask(fx, &b, BLK_OP_FLUSH, BLK_DEV_META, 0);
	end_all(&fx->d);
	assert_int_equal(answer(&a), 0);
	assert_int_equal(answer(&b), 0);
	ask(fx, &b, BLK_OP_FLUSH, BLK_DEV_DATA, 0);
	end_all(&fx->d);
	assert_int_equal(answer(&b), -EIO);
	ask(fx, &b, BLK_OP_FLUSH, BLK_DEV_DATA, 0);
	end_all(&fx->d);
	assert_int_equal(answer(&b), 0);
	leave(fx, &a);
	leave(fx, &b);
}

/* It flushes too: what the kernel says then is for everybody. */
static void a_failed_durable_write_is_told_to_those_who_flush(void **state)
{
	struct fixture *fx = *state;
	struct raw a, b;

	join(fx, &a, BLK_KIND_QUORUMD, 1, 0);
	join(fx, &b, BLK_KIND_FSD, 2, 0);
	ask_flags(fx, &a, BLK_OP_WRITE, BLK_DEV_META, QUORUM_OFF, BLKRING_DURABLE);
	assert_true(started->is_durable);
	end_one(&fx->d, started, -ENOSPC);
	assert_int_equal(answer(&a), -ENOSPC);
	ask(fx, &b, BLK_OP_FLUSH, BLK_DEV_META, 0);
	end_all(&fx->d);
	assert_int_equal(answer(&b), -EIO);
	ask(fx, &b, BLK_OP_FLUSH, BLK_DEV_META, 0);
	end_all(&fx->d);
	assert_int_equal(answer(&b), 0);
	/* An ordinary one that fails is its own client's business. */
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_META, QUORUM_OFF);
	assert_false(started->is_durable);
	end_one(&fx->d, started, -ENOSPC);
	assert_int_equal(answer(&a), -ENOSPC);
	ask(fx, &b, BLK_OP_FLUSH, BLK_DEV_META, 0);
	end_all(&fx->d);
	assert_int_equal(answer(&b), 0);
	leave(fx, &a);
	leave(fx, &b);
}

static struct io *find(unsigned op, unsigned dev)
{
	for (struct io *io = started; io; io = io->next) {
		if (io->op == op && io->dev == dev)
			return io;
	}
	return NULL;
}

/* What is written later, by itself or by another client, does not hold it. */
static void a_flush_that_is_to_come_after_waits_for_the_writes_before_it(void **state)
{
	struct fixture *fx = *state;
	struct io *first, *second, *third;
	struct raw a, b;

	join(fx, &a, BLK_KIND_FSD, 1, 0);
	join(fx, &b, BLK_KIND_FSD, 2, 0);
	/* Nothing before it: at once. */
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_META, 0, BLKRING_AFTER);
	assert_non_null(find(BLK_OP_FLUSH, BLK_DEV_META));
	end_all(&fx->d);
	assert_int_equal(answer(&a), 0);

	ask(fx, &b, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	first = started;
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_META, 0, BLKRING_AFTER);
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_DATA, 0, BLKRING_AFTER);
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	second = started;
	assert_null(find(BLK_OP_FLUSH, BLK_DEV_META));
	/* The next one waits for the second write, too. */
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_DATA, 0, BLKRING_AFTER);
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	third = started;
	end_one(&fx->d, first, 0);
	assert_int_equal(answer(&a), 0);
	assert_non_null(find(BLK_OP_FLUSH, BLK_DEV_META));
	end_one(&fx->d, find(BLK_OP_FLUSH, BLK_DEV_META), 0);
	end_one(&fx->d, find(BLK_OP_FLUSH, BLK_DEV_DATA), 0);
	assert_int_equal(answer(&a), 0);
	assert_int_equal(answer(&a), 0);
	assert_null(find(BLK_OP_FLUSH, BLK_DEV_DATA));
	/* A write that fails has ended, too. */
	end_one(&fx->d, second, -ENOSPC);
	assert_int_equal(answer(&a), -ENOSPC);
	/* From when it is its turn what comes later does not count: nobody waits for ever. */
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	second = started;
	end_one(&fx->d, third, 0);
	assert_int_equal(answer(&a), 0);
	end_one(&fx->d, find(BLK_OP_FLUSH, BLK_DEV_DATA), 0);
	assert_int_equal(answer(&a), 0);
	end_one(&fx->d, second, 0);
	assert_int_equal(answer(&a), 0);

	/* The last one of both came before both ended. */
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	first = started;
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_META, 0, BLKRING_AFTER);
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	second = started;
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_DATA, 0, BLKRING_AFTER);
	end_one(&fx->d, second, 0);
	assert_null(find(BLK_OP_FLUSH, BLK_DEV_META));
	assert_null(find(BLK_OP_FLUSH, BLK_DEV_DATA));
	end_one(&fx->d, first, 0);
	assert_non_null(find(BLK_OP_FLUSH, BLK_DEV_META));
	assert_non_null(find(BLK_OP_FLUSH, BLK_DEV_DATA));
	end_all(&fx->d);

	/* Those of a client that goes are forgotten. */
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_META, 0, BLKRING_AFTER);
	ask(fx, &a, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	ask_flags(fx, &a, BLK_OP_FLUSH, BLK_DEV_META, 0, BLKRING_AFTER);
	leave(fx, &a);
	assert_null(find(BLK_OP_FLUSH, BLK_DEV_META));
	end_all(&fx->d);
	assert_int_equal(fx->d.ios_nr, 0);
	assert_int_equal(fx->d.conns_nr, 1);
	leave(fx, &b);
}

static void operations_in_flight_are_bounded_and_none_is_lost(void **state)
{
	enum { CLIENTS = BLOCKD_IOS_MAX / BLKRING_ENTRIES + 1 };
	struct fixture *fx = *state;
	struct raw r[CLIENTS];

	for (unsigned i = 0; i < CLIENTS; i++) {
		join(fx, &r[i], BLK_KIND_FSD, 1 + i, 0);
		for (unsigned k = 0; k < BLKRING_ENTRIES; k++)
			ask(fx, &r[i], BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	}
	assert_int_equal(fx->d.ios_nr, BLOCKD_IOS_MAX);
	/* No client is asked to wait for a doorbell in vain, and nobody spins for what cannot be taken. */
	assert_false(conns_sleep_begin(&fx->d));
	conns_sleep_end(&fx->d);
	while (started) {
		end_all(&fx->d);
		conns_drain(&fx->d);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		for (unsigned k = 0; k < BLKRING_ENTRIES; k++)
			assert_int_equal(answer(&r[i]), 0);
		assert_int_equal(answer(&r[i]), 1);
		leave(fx, &r[i]);
	}
}

static void a_sleeping_client_is_rung_and_a_waking_one_is_not(void **state)
{
	struct fixture *fx = *state;
	struct pollfd pfd = { .events = POLLIN };
	struct raw r;
	uint64_t count;

	join(fx, &r, BLK_KIND_FSD, 1, 0);
	pfd.fd = r.fds[2];
	ask(fx, &r, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	end_all(&fx->d);
	assert_int_equal(poll(&pfd, 1, 0), 0);
	blkring_store(&r.ring->client_sleeps, 1);
	ask(fx, &r, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	assert_int_equal(poll(&pfd, 1, 0), 0);
	end_all(&fx->d);
	assert_int_equal(poll(&pfd, 1, 0), 1);
	assert_int_equal(read(r.fds[2], &count, sizeof(count)), sizeof(count));
	/* A refusal is an answer too. */
	blkring_store(&r.ring->client_sleeps, 1);
	ask(fx, &r, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF + 1);
	assert_int_equal(poll(&pfd, 1, 0), 1);
	assert_int_equal(read(r.fds[2], &count, sizeof(count)), sizeof(count));
	/* Who has taken none of these, and wants two more, is rung for the second. */
	blkring_store(&r.ring->client_sleeps, 5);
	ask(fx, &r, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	end_all(&fx->d);
	assert_int_equal(poll(&pfd, 1, 0), 0);
	ask(fx, &r, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	end_all(&fx->d);
	assert_int_equal(poll(&pfd, 1, 0), 1);
	leave(fx, &r);
}

/* ---- leases ---- */

static void nobody_writes_without_a_lease(void **state)
{
	uint64_t far = clock_boot_ns() + 60 * NSEC_PER_SEC;
	struct fixture *fx = *state;
	struct raw fsd, serverd, quorumd;

	join_only(fx, &fsd, BLK_KIND_FSD, VICTIM, 0);
	join_only(fx, &serverd, BLK_KIND_SERVERD, 1, 4);
	join_only(fx, &quorumd, BLK_KIND_QUORUMD, 1, 0);
	ask(fx, &fsd, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	assert_int_equal(answer(&fsd), -EKEYEXPIRED);
	ask(fx, &serverd, BLK_OP_WRITE, BLK_DEV_META, 65536);
	assert_int_equal(answer(&serverd), -EKEYEXPIRED);
	assert_null(started);
	assert_int_equal(fx->d.stats.refused_lease, 2);
	/* Reading, flushing, and the elections themselves need none. */
	ask(fx, &fsd, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF);
	ask(fx, &fsd, BLK_OP_FLUSH, BLK_DEV_DATA, 0);
	ask(fx, &quorumd, BLK_OP_WRITE, BLK_DEV_META, QUORUM_FIRST_BLKNO << SMALL_SHIFT);
	end_all(&fx->d);
	assert_int_equal(answer(&fsd), 0);
	assert_int_equal(answer(&fsd), 0);
	assert_int_equal(answer(&quorumd), 0);

	lease(fx, &fsd, BLK_KIND_FSD, VICTIM, 1, far);
	ask(fx, &fsd, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	end_all(&fx->d);
	assert_int_equal(answer(&fsd), 0);
	/* For a server, of its very term. */
	lease(fx, &quorumd, BLK_KIND_SERVERD, 1, 5, far);
	ask(fx, &serverd, BLK_OP_WRITE, BLK_DEV_META, 65536);
	assert_int_equal(answer(&serverd), -EKEYEXPIRED);
	control(fx, &serverd, BLKMSG_SET_TERM, 5);
	assert_int_equal(control_answer(&serverd), 0);
	ask(fx, &serverd, BLK_OP_WRITE, BLK_DEV_META, 65536);
	end_all(&fx->d);
	assert_int_equal(answer(&serverd), 0);
	leave(fx, &fsd);
	leave(fx, &serverd);
	leave(fx, &quorumd);
}

static void a_lease_ends_by_itself(void **state)
{
	struct fixture *fx = *state;
	uint64_t until = clock_boot_ns() + 20 * NSEC_PER_MSEC;
	struct raw fsd;

	join_only(fx, &fsd, BLK_KIND_FSD, VICTIM, 0);
	lease(fx, &fsd, BLK_KIND_FSD, VICTIM, 1, until);
	while (clock_boot_ns() < until)
		poll(NULL, 0, 1);
	ask(fx, &fsd, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	assert_int_equal(answer(&fsd), -EKEYEXPIRED);
	assert_null(started);
	leave(fx, &fsd);
}

static bool is_closed(struct raw *r)
{
	char c;

	return recv(r->sock, &c, 1, MSG_DONTWAIT) == 0;
}

static void nobody_tells_of_a_lease_that_is_not_his(void **state)
{
	uint64_t now = clock_boot_ns(), far = now + 60 * NSEC_PER_SEC;
	struct fixture *fx = *state;
	const struct { uint32_t kind, told; uint64_t rid, until; } lies[] = {
		{ BLK_KIND_FSD, BLK_KIND_FSD, VICTIM + 1, far },
		{ BLK_KIND_FSD, BLK_KIND_SERVERD, VICTIM, far },
		{ BLK_KIND_SERVERD, BLK_KIND_SERVERD, VICTIM, far },
		{ BLK_KIND_QUORUMD, BLK_KIND_FSD, VICTIM, far },
		{ BLK_KIND_QUORUMD, BLK_KIND_SERVERD, VICTIM + 1, far },
		{ BLK_KIND_TOOL, BLK_KIND_FSD, VICTIM, far },
		{ BLK_KIND_FSD, BLK_KIND_FSD, VICTIM, now + 10 * LEASE_SPAN_MAX_NS },
	};
	struct raw r;

	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		join_only(fx, &r, lies[i].kind, VICTIM, 0);
		lease(fx, &r, lies[i].told, lies[i].rid, 1, lies[i].until);
		assert_true(is_closed(&r));
		leave(fx, &r);
	}
	assert_null(lease_guard_find(&fx->d.leases, BLK_KIND_FSD, VICTIM + 1));
	assert_null(lease_guard_find(&fx->d.leases, BLK_KIND_SERVERD, VICTIM));
}

static void leases_are_taken_while_a_control_is_held(void **state)
{
	uint64_t far = clock_boot_ns() + 60 * NSEC_PER_SEC;
	struct fixture *fx = *state;
	struct raw victim, quorumd, serverd;

	join(fx, &victim, BLK_KIND_FSD, VICTIM, 0);
	join_only(fx, &quorumd, BLK_KIND_QUORUMD, 1, 0);
	join_only(fx, &serverd, BLK_KIND_SERVERD, 1, 3);
	ask(fx, &victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF);
	control(fx, &quorumd, BLKMSG_REVOKE, VICTIM);
	assert_int_equal(control_answer(&quorumd), 1);
	lease(fx, &quorumd, BLK_KIND_SERVERD, 1, 3, far);
	ask(fx, &serverd, BLK_OP_WRITE, BLK_DEV_META, 65536);
	assert_int_equal(answer(&serverd), 1);
	assert_non_null(started);
	/* The next control waits for its turn, and a lease behind it as well. */
	control(fx, &quorumd, BLKMSG_REVOKE, VICTIM);
	lease(fx, &quorumd, BLK_KIND_SERVERD, 1, 4, far);
	turn(&fx->d);
	assert_true(lease_guard_find(&fx->d.leases, BLK_KIND_SERVERD, 1)->term == 3);
	end_all(&fx->d);
	assert_int_equal(control_answer(&quorumd), 0);
	for (int i = 0; i < 3; i++)
		turn(&fx->d);
	assert_int_equal(control_answer(&quorumd), 0);
	assert_true(lease_guard_find(&fx->d.leases, BLK_KIND_SERVERD, 1)->term == 4);
	leave(fx, &victim);
	leave(fx, &quorumd);
	leave(fx, &serverd);
}

static void a_dead_mount_is_noticed_with_its_last_connection(void **state)
{
	struct fixture *fx = *state;
	const struct lease_right *right;
	struct raw a, b;

	join(fx, &a, BLK_KIND_FSD, VICTIM, 0);
	join(fx, &b, BLK_KIND_FSD, VICTIM, 0);
	right = lease_guard_find(&fx->d.leases, BLK_KIND_FSD, VICTIM);
	assert_true(right->is_here);
	leave(fx, &a);
	assert_true(right->is_here);
	leave(fx, &b);
	assert_false(right->is_here);
	/* Its connection is cut only if that is a mount of ours: nothing happens to others. */
	fx->d.leases.v[0].fuse_id = 0xfffff;
	fx->d.leases.v[0].until_ns = 1;
	fx->d.leases.v[0].since_ns = 1;
	assert_int_equal(leases_tick(&fx->d), -1);
	assert_int_equal(fx->d.stats.fuse_cut, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(a_revoke_is_answered_when_no_write_is_under_way),
		TEST(a_read_under_way_holds_no_revoke),
		TEST(a_term_is_set_when_no_older_write_is_under_way),
		TEST(one_who_asked_may_go_before_the_answer),
		TEST(a_writer_is_greeted_again_when_its_old_writes_have_ended),
		TEST(a_buffer_stays_until_its_operation_ends),
		TEST(a_failed_flush_is_told_to_everybody_once),
		TEST(a_failed_durable_write_is_told_to_those_who_flush),
		TEST(a_flush_that_is_to_come_after_waits_for_the_writes_before_it),
		TEST(operations_in_flight_are_bounded_and_none_is_lost),
		TEST(a_sleeping_client_is_rung_and_a_waking_one_is_not),
		TEST(nobody_writes_without_a_lease),
		TEST(a_lease_ends_by_itself),
		TEST(nobody_tells_of_a_lease_that_is_not_his),
		TEST(leases_are_taken_while_a_control_is_held),
		TEST(a_dead_mount_is_noticed_with_its_last_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
