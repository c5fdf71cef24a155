/*
 * The mount of the leader's own instance: it is waited for while nobody else needs what it has, then given
 * up like any other, and the server goes on.
 */
#include "server_world.h"

static void this_instances_own_mount_is_waited_for_while_it_is_alone(void **state)
{
	struct world *w = world_make();

	(void)state;
	w->ours[w->ours_nr++] = OWN_RID;
	let_in(w, OWN_RID);
	server_on_disconnected(w->s, OWN_RID, w->now);
	w->now += 60 * NSEC_PER_SEC;
	WAIT_FOR(w, client_find(w->s, OWN_RID)->state == CLIENT_FENCE_WAIT);
	assert_int_equal(w->revoked_nr, 0);
	/* Its next process is let in again. */
	let_in(w, OWN_RID);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
	stop(w);
	/* A new server of the same instance waits for it as well. */
	start_up(w, 2);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_EXPECTED);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_OK);
	tell_no_locks(w, OWN_RID);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
	assert_int_equal(call(w, OWN_RID, MSG_farewell, NULL)->err, 0);
	world_free(w);
}

/* It was away while nobody else was there; who comes then needs what it holds. */
static void this_instances_own_mount_is_given_up_when_another_one_comes(void **state)
{
	struct world *w = world_make();

	(void)state;
	let_in(w, OWN_RID);
	server_on_disconnected(w->s, OWN_RID, w->now);
	pass_time(w, 100);
	WAIT_FOR(w, client_find(w->s, OWN_RID)->state == CLIENT_FENCE_WAIT);
	let_in(w, 1);
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_int_equal(w->own_revoked, 1);
	assert_int_equal(w->revoked_nr, 0);
	assert_false(is_on_volume(w, OWN_RID));
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	world_free(w);
}

/* Its process is stopped, and another mount wants what it has: the lead stays, and blockd refuses that process alone. */
static void this_instances_own_mount_is_given_up_with_its_lease(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	w->own_revoke_err = -EIO;
	let_in(w, OWN_RID);
	let_in(w, 1);
	call(w, OWN_RID, MSG_lock, &want);
	renew(w, OWN_RID);
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(w->own_revoked, 0);
	pass_time(w, 1);
	/* Nobody gets it before blockd has said so, however often it must be asked. */
	WAIT_FOR(w, client_find(w->s, OWN_RID)->state == CLIENT_FENCE_WAIT);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	w->own_revoke_err = 0;
	assert_null(find(w, RESPONDED, 1, h));
	pass_time(w, 2);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_int_equal(stats_get(&w->stats.reclaimed_open_logs), 1);
	assert_int_equal(w->own_revoked, 2);
	assert_int_equal(w->revoked_nr, 0);
	assert_false(is_on_volume(w, OWN_RID));
	assert_int_equal(server_state(w->s), SERVER_UP);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	world_free(w);
}

/*
 * Its process is stopped, others wait, and this host's blockd is of before it could refuse that process alone: the
 * server and everybody else go on, and so does that mount when it answers after all, or the fence when blockd is replaced.
 */
static void with_an_older_blockd_this_instances_own_mount_is_waited_for(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE), other = lock_of(6, MSG_LOCK_WRITE);
	struct msg_lock_invalidate_reply given = { want.key, MSG_LOCK_WRITE, MSG_LOCK_NULL };
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	w->blockd_is_old = true;
	let_in(w, OWN_RID);
	let_in(w, 1);
	call(w, OWN_RID, MSG_lock, &want);
	renew(w, OWN_RID);
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 100);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(w->own_revoked, 0);
	renew(w, 1);
	assert_int_equal(call(w, 1, MSG_lock, &other)->err, 0);
	/* It was stopped, and goes on. */
	renew(w, OWN_RID);
	server_on_response(w->s, OWN_RID, 0, 0, MSG_lock_invalidate_reply, &given);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	/* Once more, and blockd is replaced. */
	h = ask(w, OWN_RID, MSG_lock, &want);
	given.key = want.key;
	server_on_response(w->s, 1, 0, 0, MSG_lock_invalidate_reply, &given);
	WAIT_FOR(w, find(w, RESPONDED, OWN_RID, h));
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 100);
	assert_null(find(w, RESPONDED, 1, h));
	w->blockd_is_old = false;
	pass_time(w, 2);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_int_equal(w->own_revoked, 1);
	world_free(w);
}

/* The same, and it is gone for good: an operator says so.  Also where blockd was found to be too old on the way. */
static void with_an_older_blockd_an_operators_word_ends_this_instances_own_mount(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = world_make();

		w->blockd_is_old = i == 0;
		w->own_revoke_err = -EOPNOTSUPP;
		let_in(w, OWN_RID);
		let_in(w, 1);
		server_on_disconnected(w->s, OWN_RID, w->now);
		pass_time(w, 100);
		WAIT_FOR(w, client_find(w->s, OWN_RID)->is_unstoppable);
		/* Where blockd is asked again each second it may just be asked. */
		turns(w);
		assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_FENCE_WAIT);
		assert_int_equal(w->own_revoked > 0, i);
		w->blockd_is_old = true;
		assert_int_equal(server_fence_ack(w->s, OWN_RID), 0);
		WAIT_FOR(w, !client_find(w->s, OWN_RID));
		turns(w);
		assert_false(is_on_volume(w, OWN_RID));
		assert_int_equal(server_state(w->s), SERVER_UP);
		assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
		world_free(w);
	}
}

/*
 * Its devices fail and others wait for it: where it could not be given up it is given time, or it would neither heal nor end.
 * Nor is it when the others have gone.
 */
static void this_instances_own_mount_may_heal_where_it_cannot_be_given_up(void **state)
{
	static const struct msg_lease failing = { .failing_ms = 100 };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = world_make();
		struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);

		w->conf.longest_io_ms = 2000;
		w->conf.client_timeout_ms = 600000;
		let_in(w, OWN_RID);
		let_in(w, 1);
		call(w, OWN_RID, MSG_lock, &want);
		ask(w, 1, MSG_lock, &want);
		call(w, OWN_RID, MSG_lease, &failing);
		WAIT_FOR(w, !w->s->probe.is_running);
		assert_int_equal(call(w, OWN_RID, MSG_lease, &failing)->err, -EAGAIN);
		/* While it lasts an operator's word ends nothing. */
		w->blockd_is_old = i == 0;
		assert_int_equal(server_fence_ack(w->s, OWN_RID), -ENOENT);
		if (i == 1) {
			assert_int_equal(call(w, 1, MSG_farewell, NULL)->err, 0);
			WAIT_FOR(w, !client_find(w->s, 1));
		}
		pass_time(w, 100);
		WAIT_FOR(w, !w->s->probe.is_running);
		assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
		assert_int_equal(call(w, OWN_RID, MSG_lease, &failing)->err, 0);
		if (i == 0) {
			/* It never heals; the operator is told what to say, and may. */
			assert_true(client_find(w->s, OWN_RID)->is_unstoppable);
			assert_int_equal(server_fence_ack(w->s, OWN_RID), -ENOENT);
			pass_time(w, 13);
			assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
			assert_int_equal(server_fence_ack(w->s, OWN_RID), 0);
			WAIT_FOR(w, !client_find(w->s, OWN_RID));
			turns(w);
			assert_false(is_on_volume(w, OWN_RID));
		}
		world_free(w);
	}
}

static void a_new_server_waits_for_its_own_mount_no_longer_than_for_others(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	let_in(w, OWN_RID);
	let_in(w, 1);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	pass_time(w, 2);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(w->own_revoked, 1);
	world_free(w);
}

/* The server that had blockd refuse it died before that was on the volume. */
static void own_mount_that_an_earlier_server_fenced_does_not_come_back(void **state)
{
	struct world *w = world_make();

	(void)state;
	let_in(w, OWN_RID);
	stop(w);
	w->known_fenced = OWN_RID;
	start_up(w, 2);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_false(is_on_volume(w, OWN_RID));
	assert_int_equal(w->own_revoked, 1);
	/* Nor does a process that knows of no leader. */
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_FENCED);
	world_free(w);
}

/* Or whoever has waited for the end of the server's right would have to wait for its mount as well. */
static void the_servers_own_mount_gets_no_lease_beyond_its_own(void **state)
{
	struct world *w = world_make();

	(void)state;
	let_in(w, OWN_RID);
	let_in(w, 1);
	w->lease_until_ns = w->now + 4 * NSEC_PER_SEC;
	assert_int_equal(call(w, OWN_RID, MSG_lease, &healthy)->body.lease_reply.lease_ms, 4000);
	assert_int_equal(call(w, 1, MSG_lease, &healthy)->body.lease_reply.lease_ms, 10000);
	w->lease_until_ns = w->now + NSEC_PER_SEC / 2;
	assert_int_equal(call(w, OWN_RID, MSG_lease, &healthy)->err, -EAGAIN);
	w->lease_until_ns = w->now + 20 * NSEC_PER_SEC;
	assert_int_equal(call(w, OWN_RID, MSG_lease, &healthy)->body.lease_reply.lease_ms, 10000);
	world_free(w);
}

/* Its lease is short only because the server's right is: it is not given up for silence any sooner for that. */
static void the_servers_own_mount_may_be_silent_as_long_as_others(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);

	(void)state;
	w->conf.longest_io_ms = 2000;
	let_in(w, OWN_RID);
	let_in(w, 1);
	call(w, OWN_RID, MSG_lock, &want);
	pass_time(w, 40);
	w->lease_until_ns = w->now + 3 * NSEC_PER_SEC;
	assert_int_equal(call(w, OWN_RID, MSG_lease, &healthy)->body.lease_reply.lease_ms, 3000);
	w->lease_until_ns = UINT64_MAX;
	ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	turns(w);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
	pass_time(w, 1);
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(this_instances_own_mount_is_waited_for_while_it_is_alone),
		cmocka_unit_test(this_instances_own_mount_is_given_up_when_another_one_comes),
		cmocka_unit_test(this_instances_own_mount_is_given_up_with_its_lease),
		cmocka_unit_test(with_an_older_blockd_this_instances_own_mount_is_waited_for),
		cmocka_unit_test(with_an_older_blockd_an_operators_word_ends_this_instances_own_mount),
		cmocka_unit_test(this_instances_own_mount_may_heal_where_it_cannot_be_given_up),
		cmocka_unit_test(a_new_server_waits_for_its_own_mount_no_longer_than_for_others),
		cmocka_unit_test(own_mount_that_an_earlier_server_fenced_does_not_come_back),
		cmocka_unit_test(the_servers_own_mount_gets_no_lease_beyond_its_own),
		cmocka_unit_test(the_servers_own_mount_may_be_silent_as_long_as_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
