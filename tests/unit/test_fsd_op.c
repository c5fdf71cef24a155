/*
 * Operations that write and come together share one transaction (op.c), and nobody can tell from
 * what it is answered: who fails without having changed anything fails alone, who waits waits alone; when
 * one fails half way, or the commit finds no room, nothing of the shared transaction remains and each has
 * its own.  Nobody is answered before what it changed, and its answer, are committed.
 *
 * The cache is a counter here: what transactions added to it and committed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/fsd/locks.h"
#include "services/fsd/op.h"
#include "services/fsd/reader.h"
#include "services/fsd/txn.h"

#define OPS 4u

static struct {
	pthread_mutex_t writer;		/* of all */
	unsigned value, pending;	/* committed; of the running transaction */
	unsigned committed, aborted;
	unsigned commits_fail;		/* so many, for want of room */
	unsigned noted;			/* calls of lock_note_dirty */
	unsigned answers, answers_pending;	/* records of them: committed, of the running transaction */
	unsigned answered;
	atomic_uint waited;		/* for room */
} cache;

struct adder {
	struct op op;
	unsigned runs, dones;
	int fail_clean, fail_half;	/* errors to end with: before, after a change */
	unsigned more;			/* parts it has besides the last one */
	bool waits_on;			/* what an earlier part waited for counts for the next */
	unsigned parks;			/* so often, before a change */
	bool is_early;			/* it was answered before the record of that was committed */
	int err;
};

static struct fsd fsd;

/* ---- the cache ---- */

int items_begin(struct fsd *f, struct op *op, bool write, struct itx *tx)
{
	pthread_mutex_lock(&cache.writer);
	*tx = (struct itx){ .fsd = f, .op = op, .write = write, .open_gen = 1 };
	cache.pending = 0;
	cache.answers_pending = 0;
	return 0;
}

int items_commit(struct itx *tx)
{
	int ret = 0;

	(void)tx;
	if (cache.commits_fail) {
		cache.commits_fail--;
		ret = -ENOSPC;
	} else {
		cache.value += cache.pending;
		cache.answers += cache.answers_pending;
		cache.committed++;
	}
	pthread_mutex_unlock(&cache.writer);
	return ret;
}

void items_abort(struct itx *tx)
{
	(void)tx;
	cache.aborted++;
	pthread_mutex_unlock(&cache.writer);
}

void lock_unuse(struct op *op)
{
	(void)op;
}

void lock_note_dirty(struct op *op, uint64_t gen)
{
	(void)op, (void)gen;
	cache.noted++;
}

void lock_wait(struct op *op)
{
	op_wake(op);
}

void reader_wait(struct op *op)
{
	op_wake(op);
}

void txn_wait_room(struct op *op)
{
	cache.waited++;
	op_wake(op);
}

void fsd_fail(struct fsd *f, const char *fmt, ...)
{
	(void)f, (void)fmt;
	abort();
}

/* ---- records of answers ---- */

static int record(struct itx *tx, struct op *op)
{
	assert_ptr_equal(tx->op, op);
	op->reply_slot = 1;
	cache.answers_pending++;
	return 0;
}

static void answered(struct fsd *f, uint32_t slot)
{
	(void)f, (void)slot;
	cache.answered++;
}

/* ---- operations ---- */

static int add_run(struct op *op, struct itx *tx)
{
	struct adder *a = (struct adder *)op;

	assert_ptr_equal(tx->op, op);
	a->runs++;
	if (a->fail_clean)
		return a->fail_clean;
	if (a->parks) {
		a->parks--;
		return op_park(op, lock_wait);
	}
	a->waits_on |= op->no_space_ns != 0;
	cache.pending++;
	tx->changes++;
	tx->dirty_nr++;
	if (a->fail_half)
		return a->fail_half;
	if (!a->more)
		return 0;
	a->more--;
	op->no_space_ns = 1;		/* the next part begins to wait anew */
	return OP_MORE;
}

static void add_done(struct op *op, int err)
{
	struct adder *a = (struct adder *)op;

	/* what it is answered can be told again: its record is not of a transaction that may still go */
	a->is_early = err == 0 && cache.answers <= cache.answered;
	a->dones++;
	a->err = err;
}

static void add_init(struct adder *a)
{
	a->op = (struct op){ .fsd = &fsd, .name = "add", .writes = true, .run = add_run,
			     .done = add_done, .unique = 1 };
}

/* Starts the others while it is in its transaction, so that they gather behind it. */
struct holder {
	struct op op;
	struct adder *others;
	unsigned commits_fail;		/* of those after its own */
};

static int hold_run(struct op *op, struct itx *tx)
{
	struct holder *h = (struct holder *)op;

	cache.pending++;
	tx->changes++;
	for (unsigned i = 0; i < OPS; i++) {
		op_start(&h->others[i].op);
		assert_int_equal(h->others[i].runs, 0);		/* and nobody waits for its turn */
	}
	return 0;
}

static void hold_done(struct op *op, int err)
{
	assert_int_equal(err, 0);
	cache.commits_fail = ((struct holder *)op)->commits_fail;
}

static void run_all(struct adder *ops, unsigned commits_fail)
{
	struct holder h = { .op = { .fsd = &fsd, .name = "hold", .writes = true, .run = hold_run,
				    .done = hold_done },
			    .others = ops, .commits_fail = commits_fail };

	for (unsigned i = 0; i < OPS; i++)
		add_init(&ops[i]);
	op_start(&h.op);
	ops_drain(&fsd);
	for (unsigned i = 0; i < OPS; i++) {
		assert_int_equal(ops[i].dones, 1);
		assert_false(ops[i].is_early);
	}
}

static int setup(void **state)
{
	static const struct op_answers answers = { .record = record, .answered = answered };

	(void)state;
	memset(&cache, 0, sizeof(cache));
	pthread_mutex_init(&cache.writer, NULL);
	memset(&fsd, 0, sizeof(fsd));
	fsd.answers = &answers;
	return ops_start(&fsd, 2);
}

static int teardown(void **state)
{
	(void)state;
	ops_stop(&fsd);
	return 0;
}

static void who_comes_together_shares_a_transaction(void **state)
{
	struct adder ops[OPS] = { 0 };

	(void)state;
	run_all(ops, 0);
	assert_int_equal(cache.value, 1 + OPS);
	assert_int_equal(cache.committed, 2);	/* one for all of them */
	assert_int_equal(cache.noted, OPS);	/* each lock knows what is dirty under it */
	assert_int_equal(cache.answers, OPS);
	assert_int_equal(cache.answered, OPS);
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].err, 0);
}

static void who_fails_without_a_change_fails_alone(void **state)
{
	struct adder ops[OPS] = { [1] = { .fail_clean = -ENOENT } };

	(void)state;
	run_all(ops, 0);
	assert_int_equal(cache.committed, 2);
	assert_int_equal(cache.aborted, 0);
	assert_int_equal(cache.value, 1 + OPS - 1);
	assert_int_equal(cache.noted, OPS - 1);
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].err, i == 1 ? -ENOENT : 0);
}

static void who_has_changed_nothing_commits_nothing(void **state)
{
	struct adder a = { .fail_clean = -ENOENT };

	(void)state;
	add_init(&a);
	op_start(&a.op);
	assert_int_equal(a.dones, 1);
	assert_int_equal(a.err, -ENOENT);
	assert_int_equal(a.runs, 1);
	assert_int_equal(cache.committed, 0);
	assert_int_equal(cache.aborted, 1);
}

/* It runs again when it has what it waited for; the others are not kept waiting. */
static void who_waits_waits_alone(void **state)
{
	struct adder ops[OPS] = { [1] = { .parks = 1 } };

	(void)state;
	run_all(ops, 0);
	assert_int_equal(cache.value, 1 + OPS);
	assert_int_equal(cache.aborted, 0);
	assert_int_equal(cache.committed, 3);
	assert_int_equal(cache.answers, OPS);
	for (unsigned i = 0; i < OPS; i++) {
		assert_int_equal(ops[i].err, 0);
		assert_int_equal(ops[i].runs, i == 1 ? 2 : 1);
	}
}

static void who_fails_half_way_leaves_nothing(void **state)
{
	struct adder ops[OPS] = { [2] = { .fail_half = -EIO } };

	(void)state;
	run_all(ops, 0);
	assert_int_equal(cache.value, 1 + OPS - 1);
	assert_int_equal(cache.committed, 1 + OPS - 1);	/* each has its own */
	assert_int_equal(cache.aborted, 2);	/* the shared one, and that of the one */
	assert_int_equal(cache.answers, OPS - 1);
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].err, i == 2 ? -EIO : 0);
}

static void without_room_each_waits_for_its_own(void **state)
{
	struct adder ops[OPS] = { 0 };

	(void)state;
	run_all(ops, 3);			/* the shared one, and those of two */
	assert_int_equal(cache.value, 1 + OPS);
	assert_int_equal(cache.waited, 2);
	assert_int_equal(cache.answers, OPS);
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].err, 0);
}

static void a_part_of_one_is_committed_with_the_others(void **state)
{
	struct adder ops[OPS] = { [0] = { .more = 2 } };

	(void)state;
	run_all(ops, 0);
	assert_int_equal(cache.value, 1 + OPS + 2);
	assert_int_equal(ops[0].runs, 3);
	assert_false(ops[0].waits_on);
	assert_int_equal(cache.committed, 1 + 3);
	assert_int_equal(ops[0].err, 0);
}

/* Whoever began it is not kept for others that go on coming. */
static struct endless {
	unsigned runs, runs_at_done, left;
} endless;

static void endless_done(struct op *op, int err);

static int endless_run(struct op *op, struct itx *tx)
{
	struct op *next = calloc(1, sizeof(*next));

	(void)op;
	tx->changes++;
	endless.runs++;
	assert_non_null(next);
	*next = (struct op){ .fsd = &fsd, .name = "endless", .writes = true, .run = endless_run,
			     .done = endless_done };
	if (endless.left) {
		endless.left--;
		op_start(next);
	} else {
		free(next);
	}
	return 0;
}

static void endless_done(struct op *op, int err)
{
	assert_int_equal(err, 0);
	if (!endless.runs_at_done)
		endless.runs_at_done = endless.runs;
	free(op);
}

static void the_first_is_answered_while_others_go_on_coming(void **state)
{
	struct op *first = calloc(1, sizeof(*first));

	(void)state;
	endless = (struct endless){ .left = 1000 };
	assert_non_null(first);
	*first = (struct op){ .fsd = &fsd, .name = "endless", .writes = true, .run = endless_run,
			      .done = endless_done };
	op_start(first);
	ops_drain(&fsd);
	assert_int_equal(endless.runs, 1001);
	assert_true(endless.runs_at_done <= 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_comes_together_shares_a_transaction, setup, teardown),
		cmocka_unit_test_setup_teardown(who_fails_without_a_change_fails_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(who_has_changed_nothing_commits_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(who_waits_waits_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(the_first_is_answered_while_others_go_on_coming, setup, teardown),
		cmocka_unit_test_setup_teardown(who_fails_half_way_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(without_room_each_waits_for_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(a_part_of_one_is_committed_with_the_others, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
