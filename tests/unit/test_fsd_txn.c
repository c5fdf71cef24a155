/*
 * Generations and commits against a leader that keeps a volume in memory: operations go on while
 * commits run, and after each commit the forest on the device is compared with what the operations
 * have done (fsd_model.h).
 */
#include "fsd_model.h"
#include "services/fsd/items_impl.h"

static void device_equals_what_operations_did(void **state)
{
	unsigned rounds = (unsigned)test_env("ROUNDS", 40);
	const struct key first = { .zone = ZONE_ORPHAN }, last = KEY_ONES;

	(void)state;
	for (unsigned r = 0; r < rounds; r++) {
		for (uint64_t n = below(120); n; n--) {
			do_step(&inodes[below(INODES_NR)], (enum what)below(WHATS_NR));
			if (below(60) == 0)
				txn_commit(&fsd, TXN_FULL, NULL, NULL);
			if (below(100) == 0)
				items_evict(&fsd, true);
			if (below(30) == 0)
				give_roots();
		}
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
		check_device();
		/* Every item anew from the device: the roots must be of after the commit. */
		if (r % 2)
			assert_int_equal(items_drop(&fsd, &first, &last), 0);
	}
	assert_true(leader.commits >= rounds / 2);
	assert_true(stats_get(&fsd.stats.item_reads) > 0);
}

/* A merge that is about to begin keeps nobody waiting but the commit after the next. */
static void who_waits_for_a_commit_does_not_wait_for_the_next_transaction(void **state)
{
	uint64_t gen;

	(void)state;
	leader.hold_every = 1;
	atomic_store(&leader.is_holding, true);
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	gen = txn_committed_gen(&fsd);
	/* Stored and told, while the next transaction is not open; operations go on. */
	while (atomic_load(&leader.waits) < 2)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	do_step(&inodes[1], CREATE);
	do_step(&inodes[0], WRITE);
	assert_int_equal(txn_committed_gen(&fsd), gen);
	atomic_store(&leader.is_holding, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_true(txn_committed_gen(&fsd) > gen);
	check_device();
}

/*
 * A leader of this host flushes what the mount has written; the first commit under each leader the mount flushes
 * itself.  Where another one leads before the answer, what it had stored is stored, and the rest is written
 * again and flushed: that nothing is stored without a flush the mock of the leader sees.
 */
static void a_leader_of_this_host_flushes_for_the_mount(void **state)
{
	unsigned flushes, commits;

	(void)state;
	leader.finalize_every = leader.hold_every = 0;
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	atomic_store(&leader.own_term, 1);
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(leader.unflushed, 0);
	flushes = leader.flushes;
	commits = leader.commits;
	for (unsigned i = 1; i <= 4; i++) {
		do_step(&inodes[i], CREATE);
		do_step(&inodes[0], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	assert_int_equal(leader.unflushed, 4);
	assert_int_equal(leader.flushes, flushes);
	assert_int_equal(leader.commits, commits + 4);
	check_device();
	leader.changes_every = 5;
	for (unsigned i = 5; i < 45; i++) {
		do_step(&inodes[i], CREATE);
		do_step(&inodes[i / 2], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	/* Of both kinds of change, and after each one commit that is flushed. */
	assert_true(atomic_load(&leader.own_term) > 5);
	assert_true(leader.flushes > flushes);
	check_device();
	leader.changes_every = 0;
	/* An older leader is asked once: then each commit is written once, and flushed. */
	atomic_fetch_add(&leader.own_term, 1);
	leader.is_older = true;
	do_step(&inodes[0], WRITE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	commits = leader.unflushed;
	flushes = leader.flushes;
	for (unsigned i = 1; i <= 4; i++) {
		do_step(&inodes[i], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	assert_int_equal(leader.unflushed, commits + 1);
	assert_true(leader.flushes >= flushes + 4);
	/* It is restarted as a newer one, which is another term. */
	leader.is_older = false;
	atomic_fetch_add(&leader.own_term, 1);
	for (unsigned i = 1; i <= 4; i++) {
		do_step(&inodes[i], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	assert_int_equal(leader.unflushed, commits + 1 + 3);
	check_device();
	/* Another host leads. */
	atomic_store(&leader.own_term, 0);
	commits = leader.unflushed;
	do_step(&inodes[0], WRITE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(leader.unflushed, commits);
	check_device();
}

/* The device tells a client once that it has lost something; a merge that has flushed may have been told instead of us. */
static void what_another_flush_has_lost_is_written_again(void **state)
{
	uint64_t retries = stats_get(&fsd.stats.trans_commit_retry);
	unsigned commits = leader.commits;

	(void)state;
	leader.finalize_every = leader.hold_every = 0;
	leader.fails_others = true;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_false(leader.fails_others);
	assert_int_equal(stats_get(&fsd.stats.trans_commit_retry), retries + 1);
	assert_int_equal(leader.commits, commits + 1);
	check_device();
}

/* So that the leader may be told while it lasts, and is told when it is over. */
static void a_mount_knows_for_how_long_its_devices_have_failed(void **state)
{
	uint32_t ms;

	(void)state;
	assert_int_equal(txn_failing_ms(&fsd), 0);
	atomic_store(&leader.fails, true);
	do_step(&inodes[0], CREATE);
	txn_commit(&fsd, TXN_FSYNC, NULL, NULL);
	while (!(ms = txn_failing_ms(&fsd)))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	while (txn_failing_ms(&fsd) <= ms)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	atomic_store(&leader.fails, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(txn_failing_ms(&fsd), 0);
	check_device();
}

static void nothing_dirty_writes_and_sends_nothing(void **state)
{
	unsigned commits;
	uint64_t writes;

	(void)state;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	commits = leader.commits;
	writes = leader.dev.writes;
	for (unsigned i = 0; i < 5; i++)
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(leader.commits, commits);
	assert_int_equal(leader.dev.writes, writes);
	check_device();
}

/* With a grant come roots; others are asked for when they are too old, and only then. */
static void roots_that_came_with_a_grant_are_not_asked_for(void **state)
{
	const struct key first = { .zone = ZONE_ORPHAN }, last = KEY_ONES;
	unsigned asked;

	(void)state;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(items_drop(&fsd, &first, &last), 0);
	asked = roots_asked();
	give_roots();
	do_step(&inodes[0], TOUCH);
	assert_int_equal(roots_asked(), asked);
	/* What is committed now is not in them. */
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(items_drop(&fsd, &first, &last), 0);
	do_step(&inodes[0], TOUCH);
	assert_true(roots_asked() > asked);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

static void failed_writes_are_repeated_until_they_succeed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 30; i++)
		do_step(&inodes[i], CREATE);
	pthread_mutex_lock(&leader.lock);
	leader.dev.fail_writes_after = 2;
	pthread_mutex_unlock(&leader.lock);
	txn_commit(&fsd, TXN_FSYNC, NULL, NULL);
	while (stats_get(&fsd.stats.trans_commit_retry) == 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	do_step(&inodes[40], CREATE);		/* operations go on meanwhile */
	do_step(&inodes[3], DELETE);
	pthread_mutex_lock(&leader.lock);
	leader.dev.fail_writes_after = -1;
	pthread_mutex_unlock(&leader.lock);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

/* Lists so short that a generation can hold a few items only: operations wait, none fails. */
static void short_lists_make_operations_wait_and_nothing_is_lost(void **state)
{
	(void)state;
	leader.finalize_every = 0;
	for (unsigned i = 0; i < INODES_NR; i++)
		do_step(&inodes[i], CREATE);
	for (unsigned n = 0; n < 5000; n++)
		do_step(&inodes[below(INODES_NR)], below(4) ? XATTR : WRITE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
	for (unsigned i = 0; i < INODES_NR; i++)
		do_step(&inodes[i], DELETE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
	assert_int_equal(inodes_nr, 0);
	assert_true(stats_get(&fsd.stats.trans_commit_full) > 3);
	assert_int_equal(stats_get(&fsd.stats.trans_commit_retry), 0);
}

/* Nothing else would wake it: nobody else is there, and the timer is far away. */
static void who_comes_to_wait_for_room_as_the_commit_ends_is_not_forgotten(void **state)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	(void)state;
	leader.finalize_every = leader.hold_every = 0;
	for (unsigned i = 0; i < INODES_NR; i++)
		do_step(&inodes[i], CREATE);
	atomic_store(&late_looks.nr, 0);
	atomic_store(&late_looks.on, true);
	while (atomic_load(&late_looks.nr) < 3 && clock_mono_ns() < end)
		do_step(&inodes[below(INODES_NR)], (enum what)below(ORPHAN));
	assert_true(atomic_load(&late_looks.nr) > 0);
	atomic_store(&late_looks.on, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

static void wait_until_low(void)
{
	struct txn_status st;
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	do {
		txn_get_status(&fsd, &st);
		assert_true(clock_mono_ns() < end);
		usleep(1000);
	} while (!st.is_low);
}

/* An xattr on the first inode; what the program is told. */
static int try_xattr(void)
{
	struct step *s = &the_step;

	memset(s, 0, sizeof(*s));
	s->what = XATTR;
	s->mi = inodes[0];
	return run_op(s);
}

/* The leader's answer is not of just now. */
static void let_answer_age(void)
{
	atomic_store(&fsd.txn->opened_ns, clock_mono_ns() - 150 * NSEC_PER_MSEC);
}

/* The leader has said LOW, and then nothing was asked for a while. */
static void be_idle_and_low(void)
{
	atomic_store(&leader.is_low, true);
	txn_sync_now(&fsd);
	wait_until_low();
	let_answer_age();
}

static void that_there_was_no_space_a_moment_ago_is_asked_again_before_it_is_told(void **state)
{
	uint64_t seq;

	(void)state;
	leader.finalize_every = leader.hold_every = 0;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	/* It still is so: told, but only after the leader has said so again. */
	be_idle_and_low();
	seq = last_seq();
	assert_int_equal(try_xattr(), -ENOSPC);
	assert_true(last_seq() > seq);
	/* It is so no more, and nothing was asked since: nobody is told. */
	atomic_store(&leader.is_low, false);
	let_answer_age();
	do_step(&inodes[0], XATTR);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

/* ---- no data blocks ------------------------------------------------------------------------- */

static struct extent everything;

static int run_take_everything(struct op *op, struct itx *tx)
{
	(void)op;
	return dalloc_get(tx, DATA_NR, 0, &everything);
}

/* Gives something back, and fails. */
static int run_give_and_fail(struct op *op, struct itx *tx)
{
	int ret = dalloc_put(tx, everything);

	(void)op;
	return ret < 0 ? ret : -EIO;
}

/* Writes: under a use of a lock. */
static int run_use_and_step(struct op *op, struct itx *tx)
{
	if (!op->uses_nr) {
		op->uses_nr = 1;
		atomic_fetch_add(&lock_uses, 1);
	}
	return run_step(op, tx);
}

static void start_op(struct step *s, int (*run)(struct op *op, struct itx *tx))
{
	s->op = (struct op){ .fsd = &fsd, .name = "step", .writes = true, .run = run, .done = done_step };
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	op_start(&s->op);
}

static bool is_done(struct step *s)
{
	bool is;

	pthread_mutex_lock(&s->lock);
	is = s->done;
	pthread_mutex_unlock(&s->lock);
	return is;
}

static int await_op(struct step *s)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	while (!is_done(s)) {
		assert_true(clock_mono_ns() < end);
		usleep(1000);
	}
	ops_drain(&fsd);
	return s->err;
}

/* Two inodes, of which the first has all blocks, and the leader has no more. */
static void fill_the_device(void)
{
	struct step s = { 0 };

	leader.finalize_every = leader.hold_every = 0;
	do_step(&inodes[0], CREATE);
	do_step(&inodes[1], CREATE);
	atomic_store(&leader.is_data_low, true);
	start_op(&s, run_take_everything);
	assert_int_equal(await_op(&s), 0);
	assert_int_equal(everything.len, DATA_NR);
	inodes[0].ext = everything;
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	wait_until_settled();
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
}

/* Otherwise who deletes what it waits for, under the same lock, could not begin once somebody else wants that. */
static void who_waits_for_blocks_that_come_back_keeps_no_lock(void **state)
{
	struct step s = { .what = ALLOC };

	(void)state;
	fill_the_device();
	s.mi = inodes[1];
	atomic_store(&deletes_hurry, true);
	start_op(&s, run_use_and_step);
	while (atomic_load(&lock_uses)) {
		assert_false(is_done(&s));
		usleep(1000);
	}
	assert_false(is_done(&s));
	do_step(&inodes[0], FREE);
	txn_freed(&fsd);
	assert_int_equal(await_op(&s), 0);
	atomic_store(&deletes_hurry, false);
	assert_int_equal(atomic_load(&lock_uses), 0);
	inodes[1].ext = s.mi.ext;
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	atomic_store(&leader.is_data_low, false);
	check_device();
}

static int run_give_twice(struct op *op, struct itx *tx)
{
	int ret = dalloc_put(tx, everything);

	(void)op;
	if (ret == 0)
		ret = dalloc_put(tx, (struct extent){ everything.start + 1, 2 });
	return ret;
}

/* As of two files that have the same blocks: the volume is damaged, and nobody else has to wait for that. */
static void what_is_given_back_twice_is_free_once(void **state)
{
	struct step s = { 0 };

	(void)state;
	fill_the_device();
	start_op(&s, run_give_twice);
	assert_int_equal(await_op(&s), 0);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	do_step(&inodes[1], XATTR);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	atomic_store(&leader.is_data_low, false);
	inodes[0].ext = (struct extent){ 0 };
	check_device();
}

static void what_was_not_given_back_after_all_is_not_waited_for(void **state)
{
	struct step s = { 0 }, w = { .what = ALLOC };
	uint64_t began;

	(void)state;
	fill_the_device();
	start_op(&s, run_give_and_fail);
	assert_int_equal(await_op(&s), -EIO);
	w.mi = inodes[1];
	began = clock_mono_ns();
	start_op(&w, run_use_and_step);
	assert_int_equal(await_op(&w), -ENOSPC);
	assert_true(clock_mono_ns() - began < 9 * NSEC_PER_SEC);
	check_device();
}

static void sequence_is_told_when_it_is_committed(void **state)
{
	struct minode *mi = &inodes[0];
	struct cinode ci;
	struct itx tx;
	uint64_t seq, cached, end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	(void)state;
	do_step(mi, CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	/* At once through the table, and in the item itself when the commit has cleaned up. */
	do {
		assert_true(clock_mono_ns() < end);
		assert_int_equal(items_begin(&fsd, NULL, false, &tx), 0);
		assert_int_equal(inode_get(&tx, mi->ino, &ci), 0);
		seq = cached = le64_get(ci.d.meta_seq);
		assert_int_equal(txn_resolve_seq_now(&tx, &seq), 0);
		assert_false(seq & SEQ_REF);
		assert_true(seq >= mi->meta_at);
		seq = seq_ref(tx.open_gen);
		assert_int_equal(txn_resolve_seq_now(&tx, &seq), -EAGAIN);
		items_abort(&tx);
	} while (cached & SEQ_REF);
}

/* What the item cache still has of stored generations: rows of the list of what is dirty, and deletion markers. */
static void count_left(size_t *rows, unsigned *markers)
{
	const struct item_rec *rec;
	struct itx tx;
	struct key at;
	MDB_cursor *mc;
	MDB_stat st;
	int rc;

	assert_int_equal(items_begin(&fsd, NULL, false, &tx), 0);
	assert_int_equal(mdb_stat(tx.txn, items_dbi(&tx, TABLE_DIRTY), &st), 0);
	*rows = st.ms_entries;
	*markers = 0;
	assert_int_equal(items_cursor(&tx, TABLE_ITEMS, &mc), 0);
	for (rc = rec_step(&tx, mc, MDB_FIRST, &at, &rec); rc > 0; rc = rec_step(&tx, mc, MDB_NEXT, &at, &rec))
		*markers += (rec->flags & ITEM_REC_DELETED) != 0;
	mdb_cursor_close(mc);
	items_abort(&tx);
}

/* Or the cache would fill up with them. */
static void a_stored_generation_leaves_no_list_and_no_markers(void **state)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	unsigned markers;
	size_t rows;

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		do_step(&inodes[i], CREATE);
		do_step(&inodes[i], XATTR);
	}
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	wait_until_settled();
	for (unsigned i = 0; i < 8; i += 2)
		do_step(&inodes[i], DELETE);
	count_left(&rows, &markers);
	assert_true(rows && markers);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	/* The commit is told before it has cleaned up. */
	do {
		assert_true(clock_mono_ns() < end);
		count_left(&rows, &markers);
	} while (rows || markers);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define RARE(f) cmocka_unit_test_setup_teardown(f, setup_rare, teardown)
	const struct CMUnitTest tests[] = {
		RARE(who_waits_for_a_commit_does_not_wait_for_the_next_transaction),
		T(device_equals_what_operations_did),
		RARE(a_leader_of_this_host_flushes_for_the_mount),
		RARE(what_another_flush_has_lost_is_written_again),
		RARE(a_mount_knows_for_how_long_its_devices_have_failed),
		T(nothing_dirty_writes_and_sends_nothing),
		T(roots_that_came_with_a_grant_are_not_asked_for),
		RARE(failed_writes_are_repeated_until_they_succeed),
		cmocka_unit_test_setup_teardown(
			short_lists_make_operations_wait_and_nothing_is_lost, setup_short_lists,
			teardown),
		cmocka_unit_test_setup_teardown(
			who_comes_to_wait_for_room_as_the_commit_ends_is_not_forgotten, setup_short_lists,
			teardown),
		T(sequence_is_told_when_it_is_committed),
		T(a_stored_generation_leaves_no_list_and_no_markers),
		RARE(that_there_was_no_space_a_moment_ago_is_asked_again_before_it_is_told),
		RARE(who_waits_for_blocks_that_come_back_keeps_no_lock),
		RARE(what_was_not_given_back_after_all_is_not_waited_for),
		RARE(what_is_given_back_twice_is_free_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
