/*
 * Leases of mounts: whoever is silent holds the others up for as long as its lease may last, and no
 * longer; who is waited for by nobody is not given up.
 */
#include "server_world.h"

static void a_lost_mounts_lease_is_waited_for_and_nobody_is_asked(void **state)
{
	struct world *w = world_make();
	uint64_t given;
	struct said *x;

	(void)state;
	let_in(w, 1);
	let_in(w, 2);
	w->now += 50 * NSEC_PER_SEC;
	x = call(w, 2, MSG_lease, &healthy);
	assert_int_equal(x->err, 0);
	assert_int_equal(x->body.lease_reply.lease_ms, 10000);
	given = w->now;
	server_on_disconnected(w->s, 2, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	/* Given up is given up. */
	assert_int_equal(call(w, 2, MSG_lease, &healthy)->err, -ENOLINK);
	/* Its lease, the drift of clocks, the longest write: 40.2 s. */
	w->now = given + 40 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_FENCE_WAIT);
	assert_true(is_on_volume(w, 2));
	w->now = given + 41 * NSEC_PER_SEC;
	WAIT_FOR(w, !client_find(w->s, 2));
	turns(w);
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->stats.fence_lapses, 1);
	/* And it may not come back. */
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	world_free(w);
}

/* It may be of an implementation that knows no leases, or of a leader that gave them without end. */
static void who_has_not_greeted_us_is_not_given_up_by_time(void **state)
{
	struct world *w = world_make();

	(void)state;
	/* Of an implementation that writes nothing of leases into their items. */
	w->conf.lease_ms = 0;
	let_in(w, 1);
	let_in(w, 2);
	stop(w);
	w->conf.lease_ms = 10000;
	start_up(w, 2);
	/* This one has, and then stays away: an earlier leader may have given it the longest lease. */
	assert_int_equal(greet(w, 2, 1, 0), GREETING_OK);
	pass_time(w, 31);
	WAIT_FOR(w, client_find(w->s, 1)->state == CLIENT_FENCE_WAIT);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	w->now += 29 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_FENCE_WAIT);
	w->now += 1000 * NSEC_PER_SEC;
	WAIT_FOR(w, !client_find(w->s, 2));
	turns(w);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_FENCE_WAIT);
	assert_true(is_on_volume(w, 1));
	assert_int_equal(server_fence_ack(w->s, 1), 0);
	WAIT_FOR(w, !client_find(w->s, 1));
	world_free(w);
}

/* The volume says how long its leases are. */
static void who_never_greeted_us_is_over_with_the_leases_that_the_volume_tells_of(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	let_in(w, 1);
	let_in(w, 2);
	call(w, 2, MSG_open_log_trees, NULL);
	stop(w);
	w->conf.lease_ms = 20000;
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	h = ask(w, 1, MSG_lock, &want);
	/* 10 s of its first leader, not 20 of this one; the drift; the longest write. */
	pass_time(w, 6);
	renew(w, 1);
	pass_time(w, 6);
	assert_null(answer_of(w, 1, h));
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->stats.fence_acks, 0);
	/* Nor is a mount given longer ones than the volume says. */
	assert_int_equal(call(w, 1, MSG_lease, &healthy)->body.lease_reply.lease_ms, 10000);
	world_free(w);
}

/* The leader before has been waited out, and its mount with it; not so what that had from another. */
static void the_mount_of_a_leader_that_was_waited_out_is_not_waited_for_again(void **state)
{
	struct world *w = world_make();

	(void)state;
	w->conf.longest_io_ms = 1000;
	let_in(w, 1);
	stop(w);
	w->lapsed_rid = 1;
	w->lapsed_led_ms = 9000;
	start_up(w, 2);
	pass_time(w, 10);
	turns(w);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	stop(w);
	w->lapsed_led_ms = 11000;
	start_up(w, 3);
	pass_time(w, 1);
	turns(w);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	pass_time(w, 3);
	WAIT_FOR(w, !client_find(w->s, 1));
	world_free(w);
}

/* One that is here and tells its many locks, for longer than one that is away would be waited for. */
static void a_mount_that_tells_its_locks_is_waited_for(void **state)
{
	struct msg_lock_recover_reply some = { .locks_nr = 1 };
	struct world *w = world_make();

	(void)state;
	w->conf.longest_io_ms = 1000;
	w->conf.recovery_timeout_ms = 20000;
	let_in(w, 1);
	stop(w);
	w->lapsed_rid = 1;
	w->lapsed_led_ms = 11000;
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	renew(w, 1);
	for (unsigned n = 0; n < 6; n++) {
		pass_time(w, 1);
		turns(w);
		assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
		some.locks[0].key = lock_of(n + 1, MSG_LOCK_READ).key;
		some.locks[0].mode = MSG_LOCK_READ;
		server_on_response(w->s, 1, 0, 0, MSG_lock_recover_reply, &some);
	}
	tell_no_locks(w, 1);
	turns(w);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_UP);
	stop(w);
	/* Not for ever. */
	start_up(w, 3);
	assert_int_equal(greet(w, 1, 2, 0), GREETING_OK);
	for (unsigned n = 0; n < 40 && client_find(w->s, 1) && client_find(w->s, 1)->state == CLIENT_EXPECTED; n++) {
		pass_time(w, 1);
		some.locks[0].key = lock_of(n + 1, MSG_LOCK_READ).key;
		server_on_response(w->s, 1, 0, 0, MSG_lock_recover_reply, &some);
		turns(w);
	}
	assert_true(!client_find(w->s, 1) || client_find(w->s, 1)->is_fenced);
	world_free(w);
}

static void who_is_waited_for_is_given_up_with_its_lease_and_nobody_else(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	for (uint64_t rid = 1; rid <= 3; rid++)
		let_in(w, rid);
	call(w, 2, MSG_lock, &want);
	renew(w, 2);
	renew(w, 3);
	/* Both are silent from now on, and connected: their processes may be stopped. */
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	assert_null(answer_of(w, 1, h));
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	pass_time(w, 100);
	assert_int_equal(client_find(w->s, 3)->state, CLIENT_UP);
	/* Who has come back in time loses nothing: here when the lease was over, and nobody wanted anything. */
	renew(w, 3);
	world_free(w);
}

static const struct msg_lease failing = { .failing_ms = 100 };

/* Some time, after which it has been tried whether the devices work for the server. */
static void pass_a_probe(struct world *w, unsigned seconds)
{
	uint64_t before = stats_get(&w->stats.device_probes);

	pass_time(w, seconds);
	WAIT_FOR(w, stats_get(&w->stats.device_probes) > before && !w->s->probe.is_running);
}

/* What a mount says of them, which is answered before they were tried; then they are. */
static int ask_failing(struct world *w, uint64_t rid)
{
	int err = call(w, rid, MSG_lease, &failing)->err;

	WAIT_FOR(w, !w->s->probe.is_running);
	return err;
}

/* Its devices refuse what it must write before it can give back a lock, and it says so. */
static void who_cannot_write_holds_the_others_up_for_its_lease_and_no_longer(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	for (uint64_t rid = 1; rid <= 3; rid++)
		let_in(w, rid);
	call(w, 2, MSG_lock, &want);
	/* Nobody waits for it. */
	assert_int_equal(ask_failing(w, 2), 0);
	assert_int_equal(w->stats.device_probes, 0);
	h = ask(w, 1, MSG_lock, &want);
	/* It is not known yet whether they work for others. */
	assert_int_equal(ask_failing(w, 2), 0);
	assert_int_equal(ask_failing(w, 2), -EAGAIN);
	/* It can write again: it has its time, which ends with that. */
	renew(w, 2);
	for (unsigned i = 0; i < 12; i++) {
		assert_int_equal(ask_failing(w, 2), -EAGAIN);
		assert_null(answer_of(w, 1, h));
		pass_a_probe(w, 1);
		renew(w, 1);
		renew(w, 3);
	}
	assert_int_equal(w->stats.leases_withheld, 13);
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(client_find(w->s, 3)->state, CLIENT_UP);
	world_free(w);
}

/* Whoever has nothing to write says nothing of the devices: here 3, and 1 which waits. */
static void where_nobody_can_write_nobody_is_given_up(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	for (uint64_t rid = 1; rid <= 3; rid++)
		let_in(w, rid);
	call(w, 2, MSG_lock, &want);
	h = ask(w, 1, MSG_lock, &want);
	/* First the data device alone, then both. */
	w->dev->data_fails = true;
	for (unsigned i = 0; i < 60; i++) {
		assert_int_equal(ask_failing(w, 2), 0);
		renew(w, 1);
		renew(w, 3);
		if (i == 30) {
			w->dev->data_fails = false;
			w->dev->crash_at = 1;
		}
		pass_a_probe(w, 1);
	}
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	assert_int_equal(server_state(w->s), SERVER_UP);
	assert_int_equal(w->stats.device_probe_fails, w->stats.device_probes);
	assert_int_equal(w->stats.leases_withheld, 0);
	/* But when this host can. */
	w->dev->crash_at = 0;
	pass_a_probe(w, 1);
	assert_int_equal(ask_failing(w, 2), -EAGAIN);
	/* What was seen holds for some seconds. */
	w->dev->data_fails = true;
	pass_a_probe(w, 1);
	assert_int_equal(ask_failing(w, 2), 0);
	w->dev->data_fails = false;
	pass_a_probe(w, 1);
	w->now += 4 * NSEC_PER_SEC;
	assert_int_equal(ask_failing(w, 2), 0);
	world_free(w);
}

/* A commit for which some of the file data's blocks were written, and given up again; or without any. */
static struct disk_log_trees store(struct world *w, uint64_t rid, struct disk_log_trees *lt, bool data)
{
	struct block_dev bd = { w->dev, dev_read, dev_write, dev_random };
	struct block_set *bs;
	struct meta_alloc ma;
	struct extent e;

	write_item(w, lt);
	assert_int_equal(block_set_open(&bs, &bd, FSID, META, 64), 0);
	meta_alloc_open(&ma, bs, &lt->meta_avail, &lt->meta_freed);
	if (data) {
		assert_int_equal(free_extents_alloc(bs, &ma.al, &lt->data_avail, 1, &e), 0);
		assert_int_equal(free_extents_insert(bs, &ma.al, &lt->data_freed, e), 0);
	}
	meta_alloc_close(&ma);
	assert_int_equal(block_set_write(bs), 0);
	assert_int_equal(dev_flush(w->dev), 0);
	block_set_close(bs);
	return commit_tree(w, rid, lt);
}

/* The server's own path to the data may be the one that is broken. */
static void that_another_mount_stores_file_data_is_enough(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	struct disk_log_trees lt, of_2;

	(void)state;
	let_in(w, 1);
	let_in(w, 2);
	lt = open_tree(w, 1);
	of_2 = open_tree(w, 2);
	call(w, 2, MSG_lock, &want);
	ask(w, 1, MSG_lock, &want);
	w->dev->data_fails = true;
	lt = store(w, 1, &lt, true);
	w->now += NSEC_PER_SEC;
	/* That was before they failed, this says nothing of the data device, and that is its own. */
	assert_int_equal(ask_failing(w, 2), 0);
	lt = store(w, 1, &lt, false);
	assert_int_equal(ask_failing(w, 2), 0);
	store(w, 2, &of_2, true);
	assert_int_equal(ask_failing(w, 2), 0);
	store(w, 1, &lt, true);
	assert_int_equal(ask_failing(w, 2), -EAGAIN);
	pass_time(w, 4);
	assert_int_equal(ask_failing(w, 2), 0);
	world_free(w);
}

/* A probe changes nothing; but no later flush tells what one that failed has lost. */
static void after_a_probe_that_failed_the_server_flushes_for_nobody(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	struct msg_commit_unflushed m = { .term = 1 };
	uint8_t super[SMALL_SIZE];
	struct said *x;

	(void)state;
	for (uint64_t rid = 1; rid <= 2; rid++)
		let_in(w, rid);
	let_in(w, OWN_RID);
	m.log_trees = open_tree(w, OWN_RID);
	call(w, 2, MSG_lock, &want);
	ask(w, 1, MSG_lock, &want);
	turns(w);
	memcpy(super, w->dev->super_disk, sizeof(super));
	w->dev->supers = 0;
	ask_failing(w, 2);
	assert_int_equal(ask_failing(w, 2), -EAGAIN);
	assert_int_equal(w->dev->supers, 1);
	assert_memory_equal(super, w->dev->super_disk, sizeof(super));
	write_item(w, &m.log_trees);
	x = call(w, OWN_RID, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, 0);
	m.log_trees = x->body.commit_log_trees_reply.log_trees;
	w->dev->data_fails = true;
	pass_a_probe(w, 1);
	w->dev->data_fails = false;
	write_item(w, &m.log_trees);
	assert_int_equal(call(w, OWN_RID, MSG_commit_unflushed, &m)->err, -EOPNOTSUPP);
	commit_tree(w, OWN_RID, &m.log_trees);
	world_free(w);
}

/* It ends with the term, in whatever state it is; and who may not write does not try. */
static void a_probe_ends_with_the_servers_right(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		struct world *w = world_make();
		struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);

		let_in(w, 1);
		let_in(w, 2);
		call(w, 2, MSG_lock, &want);
		ask(w, 1, MSG_lock, &want);
		w->lease_until_ns = w->now;
		assert_int_equal(call(w, 2, MSG_lease, &failing)->err, -EAGAIN);
		pass_time(w, 2);
		assert_int_equal(w->stats.device_probes, 0);
		w->lease_until_ns = UINT64_MAX;
		assert_int_equal(call(w, 2, MSG_lease, &failing)->err, 0);
		assert_int_equal(w->stats.device_probes, 1);
		world_free(w);
	}
}

static void who_waits_for_a_silent_mounts_file_lock_gets_it_with_its_lease(void **state)
{
	struct world *w = world_make();
	struct msg_adv_lock m = { .number = 1, .kind = MSG_ADV_FLOCK, .type = MSG_ADV_WRITE, .ino = 77, .owner = 5,
				  .last = UINT64_MAX, .pid = 9 };
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	for (uint64_t rid = 1; rid <= 3; rid++)
		let_in(w, rid);
	assert_int_equal(call(w, 2, MSG_adv_lock, &m)->body.adv_lock_reply.status, MSG_ADV_GRANTED);
	m.ino = 78;
	assert_int_equal(call(w, 3, MSG_adv_lock, &m)->body.adv_lock_reply.status, MSG_ADV_GRANTED);
	renew(w, 2);
	renew(w, 3);
	/* Both are silent from now on; what 3 has nobody wants. */
	m.ino = 77;
	m.wait = 1;
	h = ask(w, 1, MSG_adv_lock, &m);
	pass_time(w, 12);
	assert_null(answer_of(w, 1, h));
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->body.adv_lock_reply.status, MSG_ADV_GRANTED);
	pass_time(w, 100);
	assert_int_equal(client_find(w->s, 3)->state, CLIENT_UP);
	world_free(w);
}

static void silence_does_not_count_while_the_server_itself_was_away(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);

	(void)state;
	w->conf.longest_io_ms = 2000;
	let_in(w, 1);
	let_in(w, 2);
	call(w, 2, MSG_lock, &want);
	renew(w, 2);
	ask(w, 1, MSG_lock, &want);
	/* Stopped, and what 2 has sent meanwhile is not read yet. */
	w->now += 60 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	renew(w, 2);
	pass_time(w, 9);
	/* And while it could give nobody a lease. */
	w->lease_until_ns = w->now;
	pass_time(w, 60);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	w->lease_until_ns = UINT64_MAX;
	pass_time(w, 2);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	pass_time(w, 2);
	WAIT_FOR(w, !client_find(w->s, 2));
	world_free(w);
}

static void a_server_whose_own_lease_is_over_gives_none(void **state)
{
	struct world *w = world_make();

	(void)state;
	let_in(w, 1);
	w->lease_until_ns = w->now + 1;
	renew(w, 1);
	w->now++;
	assert_int_equal(call(w, 1, MSG_lease, &healthy)->err, -EAGAIN);
	assert_int_equal(w->stats.leases_given, 1);
	assert_int_equal(w->stats.leases_refused, 1);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_cannot_write_holds_the_others_up_for_its_lease_and_no_longer),
		cmocka_unit_test(where_nobody_can_write_nobody_is_given_up),
		cmocka_unit_test(that_another_mount_stores_file_data_is_enough),
		cmocka_unit_test(after_a_probe_that_failed_the_server_flushes_for_nobody),
		cmocka_unit_test(a_probe_ends_with_the_servers_right),
		cmocka_unit_test(who_waits_for_a_silent_mounts_file_lock_gets_it_with_its_lease),
		cmocka_unit_test(a_lost_mounts_lease_is_waited_for_and_nobody_is_asked),
		cmocka_unit_test(who_has_not_greeted_us_is_not_given_up_by_time),
		cmocka_unit_test(who_never_greeted_us_is_over_with_the_leases_that_the_volume_tells_of),
		cmocka_unit_test(the_mount_of_a_leader_that_was_waited_out_is_not_waited_for_again),
		cmocka_unit_test(a_mount_that_tells_its_locks_is_waited_for),
		cmocka_unit_test(who_is_waited_for_is_given_up_with_its_lease_and_nobody_else),
		cmocka_unit_test(silence_does_not_count_while_the_server_itself_was_away),
		cmocka_unit_test(a_server_whose_own_lease_is_over_gives_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
