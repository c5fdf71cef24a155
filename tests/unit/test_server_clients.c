/*
 * The server of a term as its mounts see it: who is let in, waited for, given up and let go, and what is
 * durable when they hear of it.  (Leases: test_server_leases.c; the mount of its own instance:
 * test_server_own_mount.c; merges: test_server_gather.c.)
 */
#include "server_world.h"

static void a_mount_is_let_in_when_its_item_is_durable(void **state)
{
	struct world *w = world_make();
	struct msg_alloc_inodes want = { .count = 10240 };
	struct said *x;
	struct msg_commit_log_trees commit = { .open_next = 1 };
	uint64_t seq;

	(void)state;
	assert_false(is_on_volume(w, 1));
	let_in(w, 1);
	assert_true(is_on_volume(w, 1));
	x = call(w, 1, MSG_open_log_trees, NULL);
	assert_int_equal(x->err, 0);
	assert_int_equal(le64_get(x->body.open_log_trees_reply.log_trees.nr), 1);
	commit.log_trees = x->body.open_log_trees_reply.log_trees;
	seq = le64_get(commit.log_trees.get_trans_seq);
	x = call(w, 1, MSG_commit_log_trees, &commit);
	assert_int_equal(x->err, 0);
	assert_true(le64_get(x->body.commit_log_trees_reply.log_trees.get_trans_seq) > seq);
	x = call(w, 1, MSG_get_roots, NULL);
	assert_true(x->body.get_roots_reply.last_stable_seq >= seq);
	x = call(w, 1, MSG_alloc_inodes, &want);
	assert_int_equal(x->body.alloc_inodes_reply.start, FIRST_INO);
	x = call(w, 1, MSG_statfs, NULL);
	assert_int_equal(x->body.statfs_reply.total_meta, META);
	/* Nothing is used but a few blocks of trees and lists. */
	assert_true(x->body.statfs_reply.free_meta > META - 100);
	assert_int_equal(x->body.statfs_reply.free_data, DATA - DATA_FIRST_BLKNO);
	assert_int_equal(x->body.statfs_reply.inode_count, 1);
	x = call(w, 1, MSG_sync_log_trees, NULL);
	assert_int_equal(x->err, -EOPNOTSUPP);
	/* Who is not mounted is not served. */
	x = call(w, 2, MSG_get_roots, NULL);
	assert_int_equal(x->err, -ENOLINK);
	world_free(w);
}

/* Beside the session the answer is the same, and only for who would get one there, from the server it means. */
static void roots_are_told_beside_the_session(void **state)
{
	struct world *w = world_make();
	struct msg_commit_log_trees commit = { .open_next = 1 };
	struct msg_get_roots_reply reply;
	struct said *x;

	(void)state;
	assert_int_equal(server_roots(w->s, 1, w->term, &reply), -ENOLINK);
	let_in(w, 1);
	assert_int_equal(server_roots(w->s, 1, w->term - 1, &reply), -EAGAIN);
	assert_int_equal(server_roots(w->s, 1, w->term + 1, &reply), -EAGAIN);
	for (int i = 0; i < 3; i++) {
		commit.log_trees = open_tree(w, 1);
		x = call(w, 1, MSG_commit_log_trees, &commit);
		assert_int_equal(x->err, 0);
		memset(&reply, 0xff, sizeof(reply));
		assert_int_equal(server_roots(w->s, 1, w->term, &reply), 0);
		x = call(w, 1, MSG_get_roots, NULL);
		assert_memory_equal(&reply, &x->body.get_roots_reply, sizeof(reply));
	}
	/* From the end of its own right on another may lead and commit, of which it knows nothing. */
	w->lease_until_ns = w->now + 1;
	assert_int_equal(server_roots(w->s, 1, w->term, &reply), 0);
	w->lease_until_ns = w->now;
	assert_int_equal(server_roots(w->s, 1, w->term, &reply), -EAGAIN);
	w->lease_until_ns = UINT64_MAX;
	assert_int_equal(server_roots(w->s, 1, w->term, &reply), 0);
	server_stop(w->s);
	assert_int_equal(server_roots(w->s, 1, w->term, &reply), -EAGAIN);
	world_free(w);
}

/* It is asked again until it is stored: a mount that was told an error would end, and its changes with it. */
static void a_commit_whose_metadata_cannot_be_read_for_a_while_is_no_error(void **state)
{
	struct world *w = world_make();
	struct msg_commit_log_trees commit = { .open_next = 1 };
	struct said *x;
	unsigned failed = 0;

	(void)state;
	let_in(w, 1);
	commit.log_trees = open_tree(w, 1);
	/* what it reads first is read by then */
	for (int at = 6; at >= 0; at--) {
		stop(w);
		start_up(w, w->term + 1);
		assert_int_equal(greet(w, 1, w->term - 1, 0), GREETING_OK);
		tell_no_locks(w, 1);
		w->dev->reads_left = at;
		w->dev->reads_fail = true;
		x = call(w, 1, MSG_commit_log_trees, &commit);
		w->dev->reads_fail = false;
		if (x->err < 0) {
			assert_int_equal(x->err, -EAGAIN);
			failed++;
			x = call(w, 1, MSG_commit_log_trees, &commit);
		}
		assert_int_equal(x->err, 0);
		commit.log_trees = x->body.commit_log_trees_reply.log_trees;
	}
	assert_true(failed > 0);
	world_free(w);
}

/* Only for the mount of its own instance, in this term; whoever else asks has to flush first. */
static void a_server_flushes_for_the_mount_that_shares_its_blockd(void **state)
{
	struct world *w = world_make();
	struct msg_commit_unflushed m = { 0 };
	uint64_t flushes, stored;
	struct said *x;

	(void)state;
	let_in(w, OWN_RID);
	let_in(w, 1);
	m.log_trees = open_tree(w, 1);
	m.term = w->term;
	flushes = w->dev->data_flushes;
	x = call(w, 1, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, -EAGAIN);

	m.log_trees = open_tree(w, OWN_RID);
	m.term = w->term - 1;
	x = call(w, OWN_RID, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, -EAGAIN);
	x = call(w, OWN_RID, MSG_open_log_trees, NULL);
	stored = le64_get(m.log_trees.get_trans_seq);
	assert_int_equal(le64_get(x->body.open_log_trees_reply.log_trees.get_trans_seq), stored);
	assert_int_equal(w->dev->data_flushes, flushes);

	m.term = w->term;
	x = call(w, OWN_RID, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, 0);
	assert_int_equal(le64_get(x->body.commit_log_trees_reply.log_trees.commit_trans_seq), stored);
	assert_true(le64_get(x->body.commit_log_trees_reply.log_trees.get_trans_seq) > stored);
	assert_int_equal(w->dev->data_flushes, flushes + 1);
	/* What comes again is answered, and who has flushed needs none. */
	x = call(w, OWN_RID, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, 0);
	assert_int_equal(le64_get(x->body.commit_log_trees_reply.log_trees.commit_trans_seq), stored);
	{
		struct msg_commit_log_trees plain = { .open_next = 1 };

		flushes = w->dev->data_flushes;
		plain.log_trees = x->body.commit_log_trees_reply.log_trees;
		assert_int_equal(call(w, OWN_RID, MSG_commit_log_trees, &plain)->err, 0);
		assert_int_equal(w->dev->data_flushes, flushes);
	}
	world_free(w);
}

static void a_farewell_is_answered_when_nothing_of_the_mount_is_left(void **state)
{
	struct world *w = world_make();
	struct said *x;

	(void)state;
	assert_int_equal(greet(w, 1, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	call(w, 1, MSG_open_log_trees, NULL);
	x = call(w, 1, MSG_farewell, NULL);
	assert_int_equal(x->err, 0);
	assert_false(is_on_volume(w, 1));
	assert_int_equal(w->s->clients_nr, 0);
	/* Said again, to this server or the next: it has left. */
	assert_int_equal(greet(w, 1, 1, GREETING_FLAG_FAREWELL), GREETING_OK);
	x = call(w, 1, MSG_farewell, NULL);
	assert_int_equal(x->err, 0);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, GREETING_FLAG_FAREWELL), GREETING_OK);
	x = call(w, 1, MSG_farewell, NULL);
	assert_int_equal(x->err, 0);
	world_free(w);
}

/* Its blocks are nobody's until then, and no merge can begin. */
static void what_a_mount_had_is_given_back_though_metadata_cannot_be_read_for_a_while(void **state)
{
	struct world *w = world_make();
	struct disk_log_trees lt;
	unsigned failed = 0;
	uint64_t h;

	(void)state;
	/* what it reads first is read by then */
	for (int at = 6; at >= 0; at--) {
		let_in(w, 1);
		lt = open_tree(w, 1);
		write_item(w, &lt);
		commit_tree(w, 1, &lt);
		stop(w);
		start_up(w, w->term + 1);
		assert_int_equal(greet(w, 1, w->term - 1, 0), GREETING_OK);
		tell_no_locks(w, 1);
		w->dev->reads_left = at;
		w->dev->reads_fail = true;
		h = ask(w, 1, MSG_farewell, NULL);
		WAIT_FOR(w, find(w, RESPONDED, 1, h) || stats_get(&w->s->conf.stats->reclaim_errors));
		w->dev->reads_fail = false;
		failed += stats_get(&w->s->conf.stats->reclaim_errors) > 0;
		pass_time(w, 2);
		assert_int_equal(answer_of(w, 1, h)->err, 0);
		assert_false(is_on_volume(w, 1));
		assert_int_equal(w->s->clients_nr, 0);
	}
	assert_true(failed > 0);
	world_free(w);
}

static void quorum_members_leave_last_and_together(void **state)
{
	struct world *w = world_make();
	uint64_t h1, h2, h3;

	(void)state;
	w->s->votes_needed = 2;
	assert_int_equal(greet(w, 1, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	assert_int_equal(greet(w, 3, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	let_in(w, 4);
	/* The third is not needed for a majority. */
	assert_int_equal(call(w, 1, MSG_farewell, NULL)->err, 0);
	h2 = ask(w, 2, MSG_farewell, NULL);
	h3 = ask(w, 3, MSG_farewell, NULL);
	/* The other two are, as long as somebody else is mounted. */
	turns(w);
	assert_true(is_on_volume(w, 2) && is_on_volume(w, 3));
	assert_null(find(w, RESPONDED, 2, h2));
	assert_null(find(w, RESPONDED, 3, h3));
	h1 = ask(w, 4, MSG_farewell, NULL);
	WAIT_FOR(w, find(w, RESPONDED, 4, h1) && find(w, RESPONDED, 2, h2) &&
		    find(w, RESPONDED, 3, h3));
	assert_int_equal(w->s->clients_nr, 0);
	assert_false(is_on_volume(w, 2) || is_on_volume(w, 3) || is_on_volume(w, 4));
	world_free(w);
}

static void a_lock_waits_for_mounts_of_before_and_goes_on_without_who_is_fenced(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	for (uint64_t rid = 1; rid <= 3; rid++) {
		let_in(w, rid);
		call(w, rid, MSG_open_log_trees, NULL);
	}
	stop(w);
	dev_power_cut(w->dev);
	w->ours[w->ours_nr++] = 3;	/* a mount of this host before it was started anew */
	start_up(w, 2);
	WAIT_FOR(w, !client_find(w->s, 3));
	assert_false(is_on_volume(w, 3));
	assert_int_equal(w->revoked_nr, 1);
	assert_int_equal(w->revoked[0], 3);
	assert_int_equal(greet(w, 3, 1, 0), GREETING_FENCED);
	assert_int_equal(greet(w, 3, 0, 0), GREETING_FENCED);

	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	assert_non_null(find(w, ASKED, 1, 0));
	/* Until its locks are known it gets no transaction. */
	h = ask(w, 1, MSG_open_log_trees, NULL);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	tell_no_locks(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	h = ask(w, 1, MSG_lock, &want);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));

	/* 2 never comes: it is not of this host, so somebody has to say that it is dead, or its lease must end. */
	pass_time(w, 31);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(server_fence_ack(w->s, 9), -ENOENT);
	assert_int_equal(server_fence_ack(w->s, 1), -ENOENT);
	assert_true(is_on_volume(w, 2));
	assert_int_equal(server_fence_ack(w->s, 2), 0);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->body.lock_reply.new_mode, MSG_LOCK_WRITE);
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(server_fence_ack(w->s, 2), -ENOENT);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	world_free(w);
}

/* Its holder has given the lock back, nothing was written under it, and nobody remembers the number. */
static void a_write_seq_that_nobody_remembers_is_not_granted_again(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t first;

	(void)state;
	let_in(w, 1);
	call(w, 1, MSG_open_log_trees, NULL);
	first = call(w, 1, MSG_lock, &want)->body.lock_reply.write_seq;
	assert_true(first > 0);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	assert_true(call(w, 1, MSG_lock, &want)->body.lock_reply.write_seq > first);
	world_free(w);
}

/* Its leader was fenced by an operator's word; that its mount is the same is no reason to ask again. */
static void who_is_known_to_be_fenced_is_not_waited_for(void **state)
{
	struct world *w = world_make();

	(void)state;
	for (uint64_t rid = 1; rid <= 2; rid++) {
		let_in(w, rid);
		call(w, rid, MSG_open_log_trees, NULL);
	}
	stop(w);
	dev_power_cut(w->dev);
	w->known_fenced = 2;
	start_up(w, 2);
	/* Without the clock going on. */
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->revoked_nr, 1);
	assert_int_equal(w->revoked[0], 2);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	stop(w);
	/* Nor is it let in as a new one by a server that has not given it up itself. */
	start_up(w, 3);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_FENCED);
	assert_false(is_on_volume(w, 2));
	assert_null(client_find(w->s, 2));
	world_free(w);
}

static void a_mount_that_stays_away_is_given_up_and_its_locks_with_it(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->ours[w->ours_nr++] = 2;
	let_in(w, 1);
	let_in(w, 2);
	assert_int_equal(call(w, 2, MSG_lock, &want)->err, 0);
	server_on_disconnected(w->s, 2, w->now);
	h = ask(w, 1, MSG_lock, &want);
	assert_non_null(find(w, ASKED, 2, 0));
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_lock_invalidate);
	/* Back in time: nothing happens. */
	w->now += 19 * NSEC_PER_SEC;
	server_dispatch(w->s, w->now);
	server_on_reconnected(w->s, 2);
	w->now += 40 * NSEC_PER_SEC;
	server_dispatch(w->s, w->now);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	/* Away for too long. */
	server_on_disconnected(w->s, 2, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->err, 0);
	assert_non_null(find(w, DROPPED, 2, 0));
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->revoked_nr, 1);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	world_free(w);
}

static void a_rid_that_nobody_knows_is_told_that_it_was_fenced(void **state)
{
	struct world *w = world_make();

	(void)state;
	assert_int_equal(greet(w, 7, 1, 0), GREETING_FENCED);
	assert_false(is_on_volume(w, 7));
	world_free(w);
}

static void a_mount_that_lies_of_its_locks_is_given_up(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	struct msg_lock_recover_reply lie = { .locks_nr = 1 };

	(void)state;
	let_in(w, 1);
	let_in(w, 2);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_OK);
	lie.locks[0] = (struct msg_lock_held){ want.key, MSG_LOCK_WRITE, 3 };
	server_on_response(w->s, 1, 0, 0, MSG_lock_recover_reply, &lie);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	server_on_response(w->s, 2, 0, 0, MSG_lock_recover_reply, &lie);
	assert_true(client_find(w->s, 2)->is_fenced);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	tell_no_locks(w, 1);
	assert_int_equal(server_fence_ack(w->s, 2), 0);
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	/* An error instead of an answer is no better. */
	server_on_response(w->s, 1, 0, -EIO, MSG_lock_invalidate_reply, NULL);
	assert_true(client_find(w->s, 1)->is_fenced);
	world_free(w);
}

static void the_open_inode_map_waits_for_who_may_have_inodes_open(void **state)
{
	struct world *w = world_make();
	struct msg_open_ino_map want = { .group = 3, .has_directories = true };
	struct msg_open_ino_map_query_reply bits = { .bits.bytes[0] = 6 };
	struct said *x;
	uint64_t h;

	(void)state;
	let_in(w, 1);
	let_in(w, 2);
	h = ask(w, 1, MSG_open_ino_map, &want);
	x = find(w, ASKED, 2, 0);
	assert_non_null(x);
	assert_int_equal(x->body.open_ino_map_query.group, 3);
	assert_true(x->body.open_ino_map_query.has_directories);
	server_on_response(w->s, 2, x->handle, 0, MSG_open_ino_map_query_reply, &bits);
	assert_int_equal(find(w, RESPONDED, 1, h)->body.open_ino_map_reply.bits.bytes[0], 6);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	h = ask(w, 1, MSG_open_ino_map, &want);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	/* Given up is not enough: it may still have files open until it is certainly dead. */
	pass_time(w, 31);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(server_fence_ack(w->s, 2), 0);
	assert_non_null(find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->body.open_ino_map_reply.bits.bytes[0], 0);
	world_free(w);
}

static void a_server_that_cannot_write_stops_and_answers_nothing(void **state)
{
	struct world *w = world_make();
	unsigned said;
	uint64_t h;

	(void)state;
	let_in(w, 1);
	w->dev->crash_at = w->dev->ops + 1;
	h = ask(w, 1, MSG_open_log_trees, NULL);
	said = w->said_nr;
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_int_equal(server_error(w->s), -EIO);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(w->said_nr, said);
	server_free(w->s);
	w->s = NULL;
	dev_power_cut(w->dev);
	/* The next one has everything that was durable. */
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	assert_int_equal(call(w, 1, MSG_open_log_trees, NULL)->err, 0);
	world_free(w);
}

static void a_term_that_blockd_refuses_is_not_served(void **state)
{
	struct world *w = world_make();

	(void)state;
	stop(w);
	w->term_err = -ESTALE;
	start(w, 3);
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_int_equal(server_error(w->s), -ESTALE);
	assert_false(w->is_listening);
	server_free(w->s);
	w->s = NULL;
	world_free(w);
}

static int forget_mounts(struct txn_job *job, struct txn *t)
{
	struct key key = key_mounted_client(1);

	(void)job;
	return btree_delete(txn_blocks(t), txn_alloc(t), &txn_super(t)->mounted_clients, &key);
}

static void must_succeed(struct txn_job *job, int err)
{
	(void)job;
	assert_int_equal(err, 0);
}

static void abandoned_log_trees_are_finished_at_the_start(void **state)
{
	struct txn_job job = { .run = forget_mounts, .done = must_succeed };
	struct world *w = world_make();
	struct seq_source seq = { 0 };
	struct disk_log_trees lt;
	struct txn_dev dev;
	struct txn *t;
	const char *why;

	(void)state;
	let_in(w, 1);
	assert_int_equal(call(w, 1, MSG_open_log_trees, NULL)->err, 0);
	stop(w);
	/* As an upstream server may leave it: the log tree without the mounted item. */
	dev = txn_dev_of(w->dev);
	assert_int_equal(txn_open(&t, &dev, &seq, FSID, 64, &why), 0);
	assert_int_equal(txn_run(t, &job), 0);
	txn_close(t);
	start_up(w, 2);
	/* Its rid may not come back as if it were new. */
	assert_int_equal(greet(w, 1, 1, 0), GREETING_FENCED);
	/* The tasks before this one have been done when it is answered. */
	let_in(w, 2);
	stop(w);
	assert_int_equal(txn_open(&t, &dev, &seq, FSID, 64, &why), 0);
	assert_int_equal(logs_newest(t, 1, &lt), 0);
	assert_int_equal(le64_get(lt.flags), LOG_TREES_FLAG_FINALIZED);
	txn_close(t);
	world_free(w);
}

/*
 * A process sends its commit again to a new server and dies before all locks are known; the next process of the
 * mount asks whether that was stored.  It was not, and may not be stored afterwards: its blocks are used again.
 */
static void what_a_dead_process_asked_is_not_done_after_the_next_one_was_told(void **state)
{
	struct world *w = world_make();
	struct net_greeting again = { .msg = { .fsid = FSID, .fmt_vers = 2, .rid = 1 }, .addr = 0x7f000001,
				      .restarted = true };
	struct msg_commit_log_trees m = { .open_next = 1 };
	struct disk_log_trees lt, told;
	uint64_t commit, opening;

	(void)state;
	let_in(w, 1);
	lt = open_tree(w, 1);
	write_item(w, &lt);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	m.log_trees = lt;
	commit = ask(w, 1, MSG_commit_log_trees, &m);
	turns(w);
	assert_null(find(w, RESPONDED, 1, commit));
	w->seen = w->said_nr;
	server_on_greeting(w->s, &again);
	WAIT_FOR(w, find(w, GREETED, 1, 0));
	opening = ask(w, 1, MSG_open_log_trees, NULL);
	tell_no_locks(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	told = find(w, RESPONDED, 1, opening)->body.open_log_trees_reply.log_trees;
	assert_int_equal(le64_get(told.item_root.ref.blkno), 0);
	turns(w);
	told = open_tree(w, 1);
	assert_int_equal(le64_get(told.item_root.ref.blkno), 0);
	assert_null(find(w, RESPONDED, 1, commit));
	world_free(w);
}

static void a_fence_that_failed_stops_the_server_and_the_next_one_asks_again(void **state)
{
	struct world *w = world_make();

	(void)state;
	let_in(w, 1);
	assert_int_equal(server_fence_fail(w->s, 1), -ENOENT);
	server_on_disconnected(w->s, 1, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, client_find(w->s, 1)->state == CLIENT_FENCE_WAIT);
	assert_int_equal(server_fence_fail(w->s, 9), -ENOENT);
	assert_int_equal(server_fence_fail(w->s, 1), 0);
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_int_equal(server_error(w->s), -EHOSTUNREACH);
	server_free(w->s);
	w->s = NULL;
	start_up(w, 2);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	assert_true(is_on_volume(w, 1));
	world_free(w);
}

/* Who is granted a lock reads from the roots that come along: all that was committed before is in them. */
static void a_grant_brings_the_roots_of_the_last_commit(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(7, MSG_LOCK_READ);
	struct disk_btree_root before;
	struct disk_log_trees lt;
	struct txn_view v;
	struct said *x;

	(void)state;
	let_in(w, 1);
	lt = open_tree(w, 1);
	txn_get_view(worker_txn(w->s->worker), &v);
	before = v.super.logs_root;
	write_item(w, &lt);
	lt = commit_tree(w, 1, &lt);
	x = call(w, 1, MSG_lock, &want);
	assert_int_equal(x->err, 0);
	assert_true(x->body.lock_reply.has_roots);
	txn_get_view(worker_txn(w->s->worker), &v);
	assert_memory_equal(&x->body.lock_reply.logs_root, &v.super.logs_root, sizeof(before));
	assert_memory_equal(&x->body.lock_reply.fs_root, &v.super.fs_root, sizeof(before));
	assert_memory_not_equal(&x->body.lock_reply.logs_root, &before, sizeof(before));
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mount_is_let_in_when_its_item_is_durable),
		cmocka_unit_test(roots_are_told_beside_the_session),
		cmocka_unit_test(a_commit_whose_metadata_cannot_be_read_for_a_while_is_no_error),
		cmocka_unit_test(a_server_flushes_for_the_mount_that_shares_its_blockd),
		cmocka_unit_test(a_farewell_is_answered_when_nothing_of_the_mount_is_left),
		cmocka_unit_test(what_a_mount_had_is_given_back_though_metadata_cannot_be_read_for_a_while),
		cmocka_unit_test(quorum_members_leave_last_and_together),
		cmocka_unit_test(a_lock_waits_for_mounts_of_before_and_goes_on_without_who_is_fenced),
		cmocka_unit_test(a_write_seq_that_nobody_remembers_is_not_granted_again),
		cmocka_unit_test(who_is_known_to_be_fenced_is_not_waited_for),
		cmocka_unit_test(a_mount_that_stays_away_is_given_up_and_its_locks_with_it),
		cmocka_unit_test(what_a_dead_process_asked_is_not_done_after_the_next_one_was_told),
		cmocka_unit_test(a_rid_that_nobody_knows_is_told_that_it_was_fenced),
		cmocka_unit_test(a_mount_that_lies_of_its_locks_is_given_up),
		cmocka_unit_test(the_open_inode_map_waits_for_who_may_have_inodes_open),
		cmocka_unit_test(a_server_that_cannot_write_stops_and_answers_nothing),
		cmocka_unit_test(a_term_that_blockd_refuses_is_not_served),
		cmocka_unit_test(abandoned_log_trees_are_finished_at_the_start),
		cmocka_unit_test(a_fence_that_failed_stops_the_server_and_the_next_one_asks_again),
		cmocka_unit_test(a_grant_brings_the_roots_of_the_last_commit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
