/*
 * What log merge promises, end to end over trees in memory: merge/merge.h, merge/merge_server.h,
 * runtime.md 7 and 13.2, format.md 14.
 *
 * Merges run in requests that are worked off by clients with block sets of their own, within random
 * limits; the server commits little at a time and crashes; clients lose their work, give it up, are
 * fenced, repeat themselves.  After every commit a sample of keys, and after every merge all of
 * them, read as the model says, and every block has one owner.
 */
#include "merge_world.h"

static void everything_written_is_read_through_any_merge(void **state)
{
	struct world *w = world_open(rig_seed(1), true);
	unsigned rounds = rig_rounds(5);

	(void)state;
	check_owners(w);
	for (unsigned round = 0; round < rounds; round++) {
		w->crash_percent = round % 2 ? 20 : 0;
		for (unsigned n = 1 + below(w, 6); n > 0; n--)
			write_some(w, below(w, MOUNTS), (enum habit)below(w, HABITS),
				   below(w, 6000));
		merge_everything(w, percent(w, 70));
	}
	/* Nothing was written since: then the volume's count is what the mounts counted. */
	merge_everything(w, false);
	assert_int_equal(le64_get(w->now.super.inode_count), w->inodes);
	assert_int_equal(w->now.super.logs_root.height, 0);
	assert_int_equal(w->now.super.log_merge.height, 0);
	print_message("merges %llu, requests %llu, remains %llu, crashes %llu\n",
		      (unsigned long long)w->merges, (unsigned long long)w->requests,
		      (unsigned long long)w->remains, (unsigned long long)w->crashes);
	assert_true(w->remains > 0);
	world_close(w);
}

static void a_tree_grows_through_merges_and_shrinks_again(void **state)
{
	struct world *w = world_open(rig_seed(2), false);
	const unsigned part = 7200;

	(void)state;
	w->crash_percent = 5;
	for (unsigned at = 0, n = 0; at < KEYS; at += part, n++) {
		write_from(w, n % MOUNTS, HABIT_FILL, at, part);
		if (n % 3 == 2)
			merge_everything(w, false);
	}
	merge_everything(w, false);
	assert_int_equal(w->now.super.fs_root.height, 3);
	/* Everything but one item goes, from the end to the beginning. */
	for (unsigned at = KEYS; at > FIRST_BIG + 1;) {
		unsigned nr = at - FIRST_BIG - 1 < part ? at - FIRST_BIG - 1 : part;

		at -= nr;
		write_from(w, below(w, MOUNTS), HABIT_CLEAR, at, nr);
		if (percent(w, 30))
			merge_everything(w, false);
	}
	write_from(w, 0, HABIT_CLEAR, 0, FIRST_BIG);
	merge_everything(w, false);
	assert_true(w->now.super.fs_root.height < 3);
	world_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_written_is_read_through_any_merge),
		cmocka_unit_test(a_tree_grows_through_merges_and_shrinks_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
