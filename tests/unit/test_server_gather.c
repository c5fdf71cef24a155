/*
 * Transactions of several mounts: who waits for whom before a log merge begins (gather.c), and that what
 * one mount has committed is not hidden by others that are idle (stable.c).
 */
#include "server_world.h"

static bool merge_runs(struct world *w)
{
	struct txn_view v;

	txn_get_view(worker_txn(w->s->worker), &v);
	return v.merge.is_running;
}

/* Two mounts with open transactions, and the first has committed something that wants a merge. */
static struct world *make_barrier(struct disk_log_trees lt[2])
{
	struct world *w = world_make();

	w->conf.log_merge_wait_timeout_ms = 500;
	for (uint64_t rid = 1; rid <= 2; rid++) {
		let_in(w, rid);
		lt[rid - 1] = open_tree(w, rid);
	}
	turns(w);
	w->s->gather.policy.min_height = 1;
	write_item(w, &lt[0]);
	lt[0] = commit_tree(w, 1, &lt[0]);
	/* It is told that it is stored; its next transaction waits. */
	assert_false(logs_is_open(&lt[0]));
	assert_int_equal(le64_get(lt[0].nr), 2);
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_sync_log_trees);
	assert_null(find(w, ASKED, 1, 0));
	assert_false(merge_runs(w));
	return w;
}

static void a_merge_begins_when_the_last_mount_has_committed(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	uint64_t opening = ask(w, 1, MSG_open_log_trees, NULL);
	struct msg_sync_log_trees_reply none;
	struct said *x;

	(void)state;
	turns(w);
	assert_null(find(w, RESPONDED, 1, opening));
	/* Asked once, however long it takes. */
	assert_null(find(w, ASKED, 2, 0));
	server_on_response(w->s, 2, 0, 0, MSG_sync_log_trees_reply, &none);
	assert_int_equal(stats_get(&w->stats.answers_bad), 0);
	lt[1] = commit_tree(w, 2, &lt[1]);
	assert_true(logs_is_open(&lt[1]));
	assert_true(merge_runs(w));
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	x = find(w, RESPONDED, 1, opening);
	assert_int_equal(x->err, 0);
	assert_true(logs_is_open(&x->body.open_log_trees_reply.log_trees));
	assert_int_equal(stats_get(&w->stats.log_merge_start), 1);
	assert_int_equal(stats_get(&w->stats.log_merge_wait_timeout), 0);
	world_free(w);
}

static void a_mount_that_does_not_commit_delays_others_for_the_timeout_only(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	uint64_t opening = ask(w, 1, MSG_open_log_trees, NULL);
	struct said *x;

	(void)state;
	turns(w);
	w->now += 499 * NSEC_PER_MSEC;
	turns(w);
	assert_null(find(w, RESPONDED, 1, opening));
	w->now += 2 * NSEC_PER_MSEC;
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	x = find(w, RESPONDED, 1, opening);
	lt[0] = x->body.open_log_trees_reply.log_trees;
	assert_true(logs_is_open(&lt[0]));
	assert_false(merge_runs(w));
	assert_int_equal(stats_get(&w->stats.log_merge_wait_timeout), 1);
	/* For a while nobody is bothered again, and no tree is finished for nothing. */
	write_item(w, &lt[0]);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_true(logs_is_open(&lt[0]));
	assert_int_equal(le64_get(lt[0].nr), 2);
	turns(w);
	assert_null(find(w, ASKED, 2, 0));
	/* Then it is tried again. */
	w->now += 6 * NSEC_PER_SEC;
	turns(w);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_false(logs_is_open(&lt[0]));
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_sync_log_trees);
	lt[1] = commit_tree(w, 2, &lt[1]);
	assert_true(merge_runs(w));
	world_free(w);
}

/* A merge waits for the commit of a mount that leaves instead: no time passes before the other one goes on. */
static void a_mount_that_leaves_delays_nobody(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	uint64_t opening = ask(w, 1, MSG_open_log_trees, NULL), left;
	struct msg_commit_log_trees m = { 0 };
	struct said *x;

	(void)state;
	turns(w);
	assert_null(find(w, RESPONDED, 1, opening));
	write_item(w, &lt[1]);
	m.log_trees = lt[1];
	assert_int_equal(call(w, 2, MSG_commit_log_trees, &m)->err, 0);
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	x = find(w, RESPONDED, 1, opening);
	assert_int_equal(x->err, 0);
	lt[0] = x->body.open_log_trees_reply.log_trees;
	assert_true(logs_is_open(&lt[0]));
	/* Nor while it says farewell and is reclaimed; that is no attempt that failed. */
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_true(logs_is_open(&lt[0]));
	assert_false(merge_runs(w));
	left = ask(w, 2, MSG_farewell, NULL);
	WAIT_FOR(w, find(w, RESPONDED, 2, left));
	turns(w);
	assert_int_equal(stats_get(&w->stats.log_merge_wait_timeout), 0);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_true(logs_is_open(&lt[0]));
	assert_true(merge_runs(w));
	world_free(w);
}

/* A process of a mount that ends has committed, and the next one goes on with it: then it takes part again. */
static void a_mount_whose_process_ends_delays_nobody(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	uint64_t opening = ask(w, 1, MSG_open_log_trees, NULL);
	struct msg_commit_log_trees m = { .log_trees = lt[1] };

	(void)state;
	turns(w);
	assert_int_equal(call(w, 2, MSG_commit_log_trees, &m)->err, 0);
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	lt[0] = find(w, RESPONDED, 1, opening)->body.open_log_trees_reply.log_trees;
	assert_true(logs_is_open(&lt[0]));
	lt[1] = open_tree(w, 2);
	turns(w);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_false(logs_is_open(&lt[0]));
	lt[1] = commit_tree(w, 2, &lt[1]);
	assert_true(merge_runs(w));
	world_free(w);
}

/* It is given up while its next transaction waits: that is opened for nobody. */
static void who_is_given_up_gets_no_tree_any_more(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	struct txn_view v;

	(void)state;
	w->ours[w->ours_nr++] = 1;
	ask(w, 1, MSG_open_log_trees, NULL);
	turns(w);
	server_on_disconnected(w->s, 1, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, !client_find(w->s, 1));
	turns(w);
	txn_get_view(worker_txn(w->s->worker), &v);
	assert_int_equal(v.mounted_nr, 1);
	assert_int_equal(v.open_trees_nr, 1);
	assert_int_equal(v.finished_trees_nr, 2);
	world_free(w);
}

/* One mount, which has committed an item. */
static struct world *make_written(struct disk_log_trees *lt)
{
	struct world *w = world_make();

	let_in(w, 1);
	*lt = open_tree(w, 1);
	write_item(w, lt);
	*lt = commit_tree(w, 1, lt);
	assert_true(logs_is_open(lt));
	return w;
}

/* Nobody writes any more, and what was written wants a merge. */
static void a_merge_that_is_wanted_begins_without_load(void **state)
{
	struct disk_log_trees lt;
	struct world *w = make_written(&lt);

	(void)state;
	w->s->gather.policy.min_height = 1;
	turns(w);
	assert_null(find(w, ASKED, 1, 0));
	w->now += 10 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(find(w, ASKED, 1, 0)->type, MSG_sync_log_trees);
	lt = commit_tree(w, 1, &lt);
	assert_true(logs_is_open(&lt));
	assert_true(merge_runs(w));
	world_free(w);
}

/* Nothing wants a merge, but nobody has written for long, and there is more than a block to gain. */
static void what_lies_in_log_trees_is_merged_when_nobody_writes(void **state)
{
	struct disk_log_trees lt;
	struct world *w = make_written(&lt);

	(void)state;
	turns(w);
	w->now += 16 * NSEC_PER_SEC;
	turns(w);
	w->now += 4 * NSEC_PER_SEC;
	turns(w);
	assert_null(find(w, ASKED, 1, 0));
	write_items(w, &lt, 3000);
	assert_int_equal(lt.item_root.height, 2);
	lt = commit_tree(w, 1, &lt);
	turns(w);
	w->now += 14 * NSEC_PER_SEC;
	turns(w);
	assert_null(find(w, ASKED, 1, 0));
	w->now += 2 * NSEC_PER_SEC;
	turns(w);
	w->now += 4 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(find(w, ASKED, 1, 0)->type, MSG_sync_log_trees);
	lt = commit_tree(w, 1, &lt);
	assert_true(merge_runs(w));
	world_free(w);
}

static void a_merge_waits_for_a_silent_mount_no_longer_than_its_lease(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	struct said *x;
	uint64_t opening;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	renew(w, 2);
	opening = ask(w, 1, MSG_open_log_trees, NULL);
	/* It has something that is not committed and says nothing any more. */
	turns(w);
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	x = find(w, RESPONDED, 1, opening);
	lt[0] = x->body.open_log_trees_reply.log_trees;
	pass_time(w, 11);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	pass_time(w, 1);
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(merge_runs(w));
	pass_time(w, 10);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_true(merge_runs(w));
	/* Work of the merge that a mount has taken is another's when that one is silent. */
	let_in(w, 3);
	renew(w, 3);
	assert_true(call(w, 3, MSG_get_log_merge, NULL)->body.get_log_merge_reply.has_work);
	assert_false(call(w, 1, MSG_get_log_merge, NULL)->body.get_log_merge_reply.has_work);
	pass_time(w, 12);
	turns(w);
	assert_non_null(client_find(w->s, 3));
	pass_time(w, 1);
	WAIT_FOR(w, !client_find(w->s, 3));
	turns(w);
	assert_true(call(w, 1, MSG_get_log_merge, NULL)->body.get_log_merge_reply.has_work);
	world_free(w);
}

static uint64_t stable_seq(struct world *w)
{
	struct txn_view v;

	txn_get_view(worker_txn(w->s->worker), &v);
	return v.last_stable_seq;
}

static void what_one_mount_commits_is_not_hidden_by_idle_ones(void **state)
{
	struct world *w = world_make();
	struct disk_log_trees lt[3];
	uint64_t seq = 0;

	(void)state;
	for (uint64_t rid = 1; rid <= 3; rid++) {
		let_in(w, rid);
		lt[rid - 1] = open_tree(w, rid);
	}
	/* Where nothing has changed nobody is asked. */
	w->seen = w->said_nr;
	for (unsigned i = 0; i < 3; i++) {
		w->now += 2 * NSEC_PER_SEC;
		turns(w);
	}
	assert_true(!find(w, ASKED, 1, 0) && !find(w, ASKED, 2, 0) && !find(w, ASKED, 3, 0));
	seq = le64_get(lt[2].get_trans_seq);
	write_item(w, &lt[2]);
	lt[2] = commit_tree(w, 3, &lt[2]);
	assert_true(stable_seq(w) < seq);
	w->now += 2 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(find(w, ASKED, 1, 0)->type, MSG_sync_log_trees);
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_sync_log_trees);
	assert_null(find(w, ASKED, 3, 0));
	/* Who does not answer that is not given up for it. */
	assert_int_equal(client_find(w->s, 1)->unanswered, 0);
	for (unsigned i = 0; i < 2; i++)
		lt[i] = commit_tree(w, i + 1, &lt[i]);
	assert_true(stable_seq(w) >= seq);
	/* And empty commits bring no others. */
	w->seen = w->said_nr;
	w->now += 2 * NSEC_PER_SEC;
	turns(w);
	assert_true(!find(w, ASKED, 1, 0) && !find(w, ASKED, 2, 0) && !find(w, ASKED, 3, 0));
	world_free(w);
}

/* Mounts come until there is nothing left for two of them; they are told so, until the first one gives back what it has. */
static void a_mount_without_space_is_asked_when_others_give_some_back(void **state)
{
	struct world *w = world_make();
	struct disk_log_trees lt;
	uint64_t rid = 0, left;

	(void)state;
	for (unsigned without = 0; without < 2;) {
		let_in(w, ++rid);
		lt = open_tree(w, rid);
		if (le64_get(lt.data_avail.total_len))
			continue;
		assert_true(le32_get(lt.data_avail.flags) & ALLOC_FLAG_LOW);
		without++;
	}
	assert_true(rid >= 3);
	/* Commits that give nothing back ask nobody. */
	lt = commit_tree(w, rid, &lt);
	w->now += NSEC_PER_SEC / 2;
	turns(w);
	assert_int_equal(stats_get(&w->stats.space_nudges), 0);
	left = ask(w, 1, MSG_farewell, NULL);
	WAIT_FOR(w, find(w, RESPONDED, 1, left));
	/* At once, both. */
	WAIT_FOR(w, stats_get(&w->stats.space_nudges) == 2);
	assert_int_equal(find(w, ASKED, rid, 0)->type, MSG_sync_log_trees);
	assert_int_equal(find(w, ASKED, rid - 1, 0)->type, MSG_sync_log_trees);
	/* Who commits has it; who does not is not asked again. */
	lt = commit_tree(w, rid, &lt);
	assert_true(le64_get(lt.data_avail.total_len) > 0);
	w->now += NSEC_PER_SEC / 2;
	turns(w);
	assert_int_equal(stats_get(&w->stats.space_nudges), 2);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_merge_begins_when_the_last_mount_has_committed),
		cmocka_unit_test(a_mount_that_does_not_commit_delays_others_for_the_timeout_only),
		cmocka_unit_test(a_mount_that_leaves_delays_nobody),
		cmocka_unit_test(a_mount_whose_process_ends_delays_nobody),
		cmocka_unit_test(who_is_given_up_gets_no_tree_any_more),
		cmocka_unit_test(a_merge_that_is_wanted_begins_without_load),
		cmocka_unit_test(what_lies_in_log_trees_is_merged_when_nobody_writes),
		cmocka_unit_test(a_merge_waits_for_a_silent_mount_no_longer_than_its_lease),
		cmocka_unit_test(what_one_mount_commits_is_not_hidden_by_idle_ones),
		cmocka_unit_test(a_mount_without_space_is_asked_when_others_give_some_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
