/*
 * What the server's part of log merge promises in the corners that random runs (test_merge.c) do
 * not come to: merge/merge_server.h, runtime.md 7.3-7.5 with their [H] notes.
 */
#include "merge_world.h"

static void call_ok(struct world *w, enum call call, unsigned c)
{
	struct merge_request req;

	assert_int_equal(call_server(w, call, c, &req, NULL), 0);
}

static struct merge_counts count(struct world *w)
{
	struct merge_counts n;

	assert_int_equal(merge_server_count(w->r.bs, &w->now.super.log_merge, &n), 0);
	return n;
}

static void put_merge_item(struct world *w, struct key key, const void *val, size_t len)
{
	const struct item it = { .key = key, .val = val, .val_len = (uint16_t)len };

	assert_int_equal(btree_force(w->r.bs, &w->r.al, &w->now.super.log_merge, &it), 0);
}

static void plant_range(struct world *w, struct key start, struct key end)
{
	const struct disk_merge_range d = { key_to_disk(&start), key_to_disk(&end) };

	start.zone = ZONE_MERGE_RANGE;
	put_merge_item(w, start, &d, sizeof(d));
}

static void drop_range(struct world *w, struct key start)
{
	start.zone = ZONE_MERGE_RANGE;
	assert_int_equal(btree_delete(w->r.bs, &w->r.al, &w->now.super.log_merge, &start), 0);
}

static void plant_status(struct world *w, struct key next, uint64_t seq)
{
	struct merge_status st = count(w).status;
	const struct disk_merge_status d = { .next_range_key = key_to_disk(&next),
					     .nr_requests = le64_of(st.nr_requests),
					     .nr_complete = le64_of(st.nr_complete),
					     .seq = le64_of(seq) };

	put_merge_item(w, (struct key){ .zone = ZONE_MERGE_STATUS }, &d, sizeof(d));
}

static unsigned nr_of(struct key key)
{
	return (unsigned)(FIRST_BIG + (key.first - 1) * 8 + key.second * 2 + key.fourth);
}

/* A marker for a key that may be none of the model's: then an input that no reader sees. */
static void write_marker(struct world *w, unsigned m, struct key key)
{
	const struct item it = { .key = key, .seq = ++w->seq, .flags = ITEM_FLAG_DELETION };
	struct meta_alloc ma;

	write_from(w, m, HABIT_FILL, KEYS, 0);
	meta_alloc_open(&ma, w->r.bs, &w->now.log_avail, &w->now.log_freed);
	assert_int_equal(log_tree_force(w->r.bs, &ma, &w->open[m], &it), 0);
	meta_alloc_close(&ma);
	if (key.fourth < 2)
		w->truth[nr_of(key)] = (struct truth){ .seq = it.seq };
	store_log(w, &w->open[m]);
	commit(w);
}

/* Let clients work until the merge is over, and look at everything. */
static void to_the_end(struct world *w)
{
	for (unsigned turns = 0; merge_is_active(w); turns++) {
		assert_true(turns < 1000);
		client_turn(w, below(w, CLIENTS));
	}
	call_ok(w, CALL_FREE, 0);
	check_owners(w);
	check_all(w);
}

/* The greatest key below the first lowest parent. */
static struct key first_parent_end(struct world *w)
{
	const struct key zeros = KEY_ZEROS;
	struct disk_btree_root sub;
	struct key end;

	assert_int_equal(btree_parent_get(w->r.bs, &w->now.super.fs_root, &zeros, &sub, &end), 0);
	assert_int_equal(sub.height, 2);
	return end;
}

static struct key in_zone(struct key key, uint8_t zone)
{
	key.zone = zone;
	return key;
}

/*
 * A merge with inputs in zone 16 only, whose one range begins there, and another range that wants
 * the item key which the rest of the first request would have.
 */
static void plant_collision(struct world *w, struct key rest)
{
	const struct key zone16 = { .zone = ZONE_FS }, ones = KEY_ONES;
	const struct key last12 = { .zone = ZONE_XATTR_TOTL, .first = UINT64_MAX };

	finalize_all(w);
	call_ok(w, CALL_START, 0);
	drop_range(w, KEY_ZEROS);
	plant_range(w, zone16, ones);
	plant_range(w, in_zone(rest, ZONE_XATTR_TOTL), last12);
	plant_status(w, zone16, count(w).status.seq);
	commit(w);
}

static void the_rest_of_a_range_begins_where_no_other_range_does(void **state)
{
	struct world *w = world_open(rig_seed(1), true);
	struct key end = first_parent_end(w), after = key_next(end);
	struct client *c = &w->clients[0];

	(void)state;
	/* No input near: the rest begins a little later. */
	write_from(w, 0, HABIT_FILL, nr_of(end) - 50, 40);
	write_from(w, 1, HABIT_CLEAR, nr_of(end) + 50, 40);
	plant_collision(w, after);
	call_ok(w, CALL_GET, 0);
	assert_int_equal(count(w).ranges, 2);
	assert_int_equal(call_server(w, CALL_GET, 0, &c->req, NULL), 0);
	assert_true(key_eq(&c->req.end, &end));
	c->has = true;
	to_the_end(w);

	/* An input right behind the parent: the rest begins within the parent. */
	end = first_parent_end(w);
	after = key_next(end);
	write_from(w, 0, HABIT_FILL, nr_of(end) - 50, 51);
	write_marker(w, 1, after);
	plant_collision(w, after);
	assert_int_equal(call_server(w, CALL_GET, 1, &w->clients[1].req, NULL), 0);
	w->clients[1].has = true;
	w->clients[1].is_done = false;	/* as it was left by the merge before */
	assert_int_equal(count(w).ranges, 2);
	assert_true(key_cmp(&w->clients[1].req.end, &end) < 0);
	/* Such a rest shares the parent with the request: it has to wait for the next batch. */
	assert_int_equal(call_server(w, CALL_GET, 2, &c->req, NULL), -ENOENT);
	to_the_end(w);
	world_close(w);
}

static void a_range_whose_rest_has_no_place_lets_others_go_first(void **state)
{
	struct world *w = world_open(rig_seed(1), true);
	struct key end = first_parent_end(w), after = key_next(end);
	struct merge_request req;

	(void)state;
	/* The only inputs are the last key of a parent and the one behind it. */
	write_from(w, 0, HABIT_FILL, nr_of(end), 1);
	write_marker(w, 1, after);
	plant_collision(w, after);
	assert_int_equal(call_server(w, CALL_GET, 0, &req, NULL), 0);
	assert_true(key_eq(&req.start, &end));
	assert_true(key_eq(&req.end, &end));
	assert_int_equal(count(w).ranges, 1);
	w->clients[0] = (struct client){ .has = true, .req = req };
	to_the_end(w);
	world_close(w);
}

static void work_given_up_waits_for_a_place_among_the_ranges(void **state)
{
	struct world *w = world_open(rig_seed(1), false);
	const struct key zone16 = { .zone = ZONE_FS }, ones = KEY_ONES;
	struct merge_request req;
	unsigned total = FIRST_TOTAL + 7;
	struct key rival = key_of(total), same = in_zone(rival, ZONE_FS);

	(void)state;
	/* A total and an item that differ in the zone only. */
	write_from(w, 0, HABIT_FILL, FIRST_BIG + 7, 1);
	write_from(w, 1, HABIT_FILL, total, 1);
	finalize_all(w);
	call_ok(w, CALL_START, 0);
	drop_range(w, KEY_ZEROS);
	plant_range(w, zone16, ones);
	commit(w);
	assert_int_equal(call_server(w, CALL_GET, 0, &req, NULL), 0);
	assert_true(key_eq(&req.start, &same));
	plant_range(w, rival, rival);
	commit(w);
	call_ok(w, CALL_RELEASE, 0);
	assert_int_equal(count(w).requests, 0);
	assert_int_equal(count(w).completes, 1);
	assert_int_equal(count(w).ranges, 1);
	check_owners(w);
	/* The rival is handed out; what was given up stays as it is until that is done. */
	assert_int_equal(call_server(w, CALL_GET, 1, &req, NULL), 0);
	assert_true(key_eq(&req.start, &rival));
	assert_int_equal(count(w).requests, 1);
	assert_int_equal(count(w).completes, 1);
	assert_int_equal(count(w).status.nr_complete, 1);
	check_owners(w);
	w->clients[1] = (struct client){ .has = true, .req = req };
	to_the_end(w);
	world_close(w);
}

/*
 * What remains cannot begin earlier than behind the last key that was done: a total there would be
 * added again.
 */
static void what_remains_never_begins_before_what_was_done(void **state)
{
	struct world *w = world_open(rig_seed(1), false);
	const unsigned remain = FIRST_TOTAL + 5;
	const struct key last12 = { .zone = ZONE_XATTR_TOTL, .first = UINT64_MAX };
	const struct key ones = KEY_ONES, rival = in_zone(key_of(remain), ZONE_FS);
	struct client *c = &w->clients[0];
	struct merge_request whole;
	struct key done;

	(void)state;
	write_from(w, 0, HABIT_FILL, FIRST_TOTAL, 8);
	write_from(w, 1, HABIT_FILL, nr_of(rival), 1);
	finalize_all(w);
	call_ok(w, CALL_START, 0);
	drop_range(w, KEY_ZEROS);
	plant_range(w, KEY_ZEROS, last12);
	commit(w);
	assert_int_equal(call_server(w, CALL_GET, 0, &whole, NULL), 0);
	/* Done up to a key whose next one is an input too; the rest of the range remains. */
	c->req = whole;
	c->req.end = key_prev(key_of(remain));
	done = key_of(remain - 1);
	assert_true(key_eq(&c->req.end, &done));
	work(w, c);
	c->comp.end = whole.end;
	c->comp.remain = key_of(remain);
	c->comp.flags = MERGE_COMPLETE_REMAIN;
	plant_range(w, rival, ones);
	commit(w);
	assert_int_equal(call_server(w, CALL_COMMIT, 0, NULL, &c->comp), 0);
	assert_int_equal(call_server(w, CALL_GET, 1, &w->clients[1].req, NULL), 0);
	assert_true(key_eq(&w->clients[1].req.start, &rival));
	assert_int_equal(count(w).completes, 1);
	w->clients[1].has = true;
	to_the_end(w);
	world_close(w);
}

/* Each change of a good completion is refused, and the request stays. */
static void what_cannot_have_come_of_a_request_is_refused(void **state)
{
	struct world *w = world_open(rig_seed(1), true);
	struct merge_complete good, bad;
	struct client *c = &w->clients[0];

	(void)state;
	write_from(w, 0, HABIT_FILL, FIRST_BIG, 500);
	finalize_all(w);
	call_ok(w, CALL_START, 0);
	assert_int_equal(call_server(w, CALL_GET, 0, &c->req, NULL), 0);
	assert_true(c->req.flags & MERGE_REQUEST_SUBTREE);
	work(w, c);
	good = c->comp;
#define REFUSED(change) do { \
		bad = good; \
		change; \
		assert_int_equal(call_server(w, CALL_COMMIT, 0, NULL, &bad), -EINVAL); } while (0)
	REFUSED(bad.flags |= 4);
	REFUSED(bad.rid++);
	REFUSED(bad.start = key_next(bad.start));
	REFUSED(bad.end = key_prev(bad.end));
	REFUSED(bad.remain = key_next(bad.end));
	REFUSED(bad.flags = MERGE_COMPLETE_REMAIN; bad.remain = key_prev(bad.start));
	REFUSED(bad.flags = 0; bad.remain = bad.start);
	REFUSED(bad.root.height = 3);
	REFUSED(bad.root.height = 0);
	REFUSED(bad.root = (struct disk_btree_root){ .height = 0 });
	REFUSED(bad.meta_avail = bad.meta_freed = (struct disk_alloc_list_head){ 0 });
	REFUSED(bad.meta_avail.total_nr = le64_of(le64_get(bad.meta_avail.total_nr) + 1));
	REFUSED(bad.meta_freed.total_nr = le64_of(le64_get(bad.meta_freed.total_nr) + 1));
	REFUSED(bad.meta_avail = c->req.meta_avail; bad.meta_avail.first_nr = le32_of(2000);
		bad.meta_avail.total_nr = le64_of(2000));
	bad = good;
	bad.seq++;
	assert_int_equal(call_server(w, CALL_COMMIT, 0, NULL, &bad), -ENOENT);
	assert_int_equal(call_server(w, CALL_COMMIT, 1, NULL, &good), -ENOENT);
	c->has = true;
	to_the_end(w);
	world_close(w);
}

/* A subtree that does not fit into its place, or was not written, is not taken. */
static void a_subtree_of_another_range_is_refused(void **state)
{
	struct world *w = world_open(rig_seed(1), true);
	struct key end, after = key_next(first_parent_end(w));
	struct client *c = &w->clients[0];
	struct merge_complete good, bad;
	struct disk_btree_root other;

	(void)state;
	write_from(w, 0, HABIT_FILL, FIRST_BIG, 10);
	finalize_all(w);
	call_ok(w, CALL_START, 0);
	assert_int_equal(call_server(w, CALL_GET, 0, &c->req, NULL), 0);
	work(w, c);
	assert_int_equal(btree_parent_get(w->r.bs, &w->now.super.fs_root, &after, &other, &end), 0);
	good = c->comp;
	REFUSED(bad.root = other);
	REFUSED(bad.root.ref.blkno = good.meta_avail.ref.blkno);
	REFUSED(bad.root.ref.seq = le64_of(1));
	c->has = true;
	to_the_end(w);
	world_close(w);
}

static void a_merge_of_nothing_ends_by_itself(void **state)
{
	struct world *w = world_open(rig_seed(1), false);
	struct merge_request req;

	(void)state;
	finalize_all(w);
	call_ok(w, CALL_START, 0);
	assert_int_equal(call_server(w, CALL_GET, 0, &req, NULL), -ENOENT);
	assert_false(count(w).active);
	assert_int_equal(call_server(w, CALL_GET, 0, &req, NULL), -ENOENT);
	check_owners(w);
	world_close(w);
}

static void the_first_request_waits_for_the_commit_of_the_status(void **state)
{
	struct world *w = world_open(rig_seed(1), false);
	struct merge_request req;

	(void)state;
	write_from(w, 0, HABIT_FILL, FIRST_BIG, 10);
	finalize_all(w);
	begin(w);
	assert_int_equal(merge_server_start(&w->ms), 0);
	assert_int_equal(merge_server_get(&w->ms, RID(0), &req), -EINPROGRESS);
	commit(w);
	/* Also when it is another merge's that is committed: its inputs are others. */
	begin(w);
	plant_status(w, KEY_ZEROS, count(w).status.seq + 1);
	assert_int_equal(merge_server_get(&w->ms, RID(0), &req), -EINPROGRESS);
	crash(w);
	assert_int_equal(call_server(w, CALL_GET, 0, &req, NULL), 0);
	assert_int_equal(le64_get(req.logs_root.ref.blkno),
			 le64_get(w->now.super.logs_root.ref.blkno));
	w->clients[0] = (struct client){ .has = true, .req = req };
	to_the_end(w);
	world_close(w);
}

static void without_blocks_nothing_is_handed_out(void **state)
{
	struct world *w = world_open(rig_seed(1), false);
	struct disk_alloc_root none = { 0 };
	struct merge_request req;

	(void)state;
	write_from(w, 0, HABIT_FILL, FIRST_BIG, 10);
	finalize_all(w);
	call_ok(w, CALL_START, 0);
	w->ms.meta_avail = &none;
	assert_int_equal(call_server(w, CALL_GET, 0, &req, NULL), -ENOENT);
	assert_true(count(w).active);
	w->ms.meta_avail = &w->now.super.meta_alloc[0];
	to_the_end(w);
	world_close(w);
}

/*
 * The last step takes the bloom blocks and items of all inputs in one commit, however little fits
 * in others.
 */
static void many_inputs_vanish_at_once(void **state)
{
	struct world *w = world_open(rig_seed(1), false);
	struct client *c = &w->clients[0];

	(void)state;
	w->is_tight = true;
	for (unsigned i = 0; i < 500; i++) {
		write_some(w, i % MOUNTS, HABIT_SPARSE, 2);
		if (i % MOUNTS == MOUNTS - 1)
			finalize_all(w);
	}
	finalize_all(w);
	call_ok(w, CALL_START, 0);
	assert_int_equal(call_server(w, CALL_GET, 0, &c->req, NULL), 0);
	c->has = true;
	to_the_end(w);
	assert_int_equal(w->now.super.logs_root.height, 0);
	assert_int_equal(le64_get(w->now.super.inode_count), w->inodes);
	world_close(w);
}

/* By 11.3 there is no such thing; but what readers see must not change when it is merged. */
static void an_input_older_than_what_is_there_changes_nothing(void **state)
{
	struct world *w = world_open(rig_seed(1), false);
	uint64_t seq;

	(void)state;
	write_from(w, 0, HABIT_FILL, FIRST_BIG, 20);
	merge_everything(w, false);
	seq = w->seq;
	w->seq = 0;	/* older than all */
	write_from(w, 1, HABIT_FILL, FIRST_BIG, 1);
	write_marker(w, 1, key_of(FIRST_BIG + 1));
	w->seq = seq;
	/* The model believes the last write; readers the newest version. */
	for (unsigned nr = FIRST_BIG; nr < FIRST_BIG + 2; nr++) {
		struct key key = key_of(nr);
		struct btree_ref ref;

		assert_int_equal(btree_lookup(w->r.bs, &w->now.super.fs_root, &key, &ref), 0);
		w->truth[nr] = (struct truth){ .present = true, .seq = ref.item.seq };
		btree_put(w->r.bs, &ref);
	}
	check_all(w);
	merge_everything(w, false);
	world_close(w);
}

static void what_is_decided_depends_on_the_counts_and_ranges(void **state)
{
	const struct merge_range r[] = { { { .zone = 16 }, { .zone = 17 } },
					 { { .zone = 4 }, { .zone = 5 } },
					 { { .zone = 12 }, { .zone = 13 } } };
	const struct key ones = KEY_ONES;
	struct merge_status st = { 0 };
	size_t pick = 9;

	(void)state;
	assert_int_equal(merge_decide(&st, r, 0, &pick), MERGE_NEXT_SPLICE);
	assert_int_equal(merge_decide(&st, r, 3, &pick), MERGE_NEXT_HAND_OUT);
	assert_int_equal(pick, 1);
	st.next_range_key = (struct key){ .zone = 4, .first = 1 };
	assert_int_equal(merge_decide(&st, r, 3, &pick), MERGE_NEXT_HAND_OUT);
	assert_int_equal(pick, 2);
	st.nr_requests = 3;
	st.nr_complete = 5;
	assert_int_equal(merge_decide(&st, r, 3, &pick), MERGE_NEXT_NOTHING);
	st.nr_complete = UINT64_MAX;	/* bad bytes add up to little */
	assert_int_equal(merge_decide(&st, r, 3, &pick), MERGE_NEXT_NOTHING);
	st.nr_complete = 4;
	assert_int_equal(merge_decide(&st, r, 3, &pick), MERGE_NEXT_HAND_OUT);
	st.nr_requests = 0;
	st.nr_complete = 8;
	assert_int_equal(merge_decide(&st, r, 3, &pick), MERGE_NEXT_SPLICE);
	st.nr_complete = 1;
	st.next_range_key = ones;
	assert_int_equal(merge_decide(&st, &(struct merge_range){ ones, ones }, 1, &pick),
			 MERGE_NEXT_SPLICE);
	st.nr_requests = 1;
	assert_int_equal(merge_decide(&st, r, 3, &pick), MERGE_NEXT_NOTHING);
}

static void a_start_is_placed_near_and_within_bounds(void **state)
{
	struct merge_range r[] = { { { .zone = 4, .first = 10 }, KEY_ONES },
				   { { .zone = 8, .first = 10, .fourth = 1 }, KEY_ONES },
				   { { .zone = 12, .first = 10, .fourth = 2 }, KEY_ONES } };
	const struct key want = { .zone = 16, .first = 10 }, far = { .zone = 16, .first = 99 };
	struct key start, two = { .zone = 16, .first = 10, .fourth = 2 };

	(void)state;
	assert_true(merge_place_start(r, 0, &want, &want, &want, &start));
	assert_true(key_eq(&start, &want));
	assert_false(merge_place_start(r, 1, &want, &want, &want, &start));
	assert_false(merge_place_start(r, 3, &want, &want, &two, &start));
	assert_true(merge_place_start(r, 3, &want, &want, &far, &start));
	assert_int_equal(start.fourth, 3);
	/* Upwards there is nothing, downwards there is. */
	assert_true(merge_place_start(r, 3, &KEY_ZEROS, &want, &two, &start));
	assert_true(key_cmp(&start, &want) < 0);
	assert_true(merge_place_start(r, 2, &want, &two, &two, &start));
	assert_true(key_eq(&start, &two));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rest_of_a_range_begins_where_no_other_range_does),
		cmocka_unit_test(a_range_whose_rest_has_no_place_lets_others_go_first),
		cmocka_unit_test(work_given_up_waits_for_a_place_among_the_ranges),
		cmocka_unit_test(what_remains_never_begins_before_what_was_done),
		cmocka_unit_test(what_cannot_have_come_of_a_request_is_refused),
		cmocka_unit_test(a_subtree_of_another_range_is_refused),
		cmocka_unit_test(a_merge_of_nothing_ends_by_itself),
		cmocka_unit_test(the_first_request_waits_for_the_commit_of_the_status),
		cmocka_unit_test(without_blocks_nothing_is_handed_out),
		cmocka_unit_test(many_inputs_vanish_at_once),
		cmocka_unit_test(an_input_older_than_what_is_there_changes_nothing),
		cmocka_unit_test(what_is_decided_depends_on_the_counts_and_ranges),
		cmocka_unit_test(a_start_is_placed_near_and_within_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
