/*
 * Operations that write and come together share one transaction (op.c), and nobody can tell from
 * what it is answered: who fails without having changed anything fails alone; when one fails half
 * way, or the commit finds no room, nothing of the shared transaction remains and each has its own.
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
	atomic_uint waited;		/* for room */
} cache;

struct adder {
	struct op op;
	unsigned runs, dones;
	int fail_clean, fail_half;	/* errors to end with: before, after a change */
	unsigned more;			/* parts it has besides the last one */
	int err;
};

static struct fsd fsd;

/* ---- the cache ---- */

int items_begin(struct fsd *f, struct op *op, bool write, struct itx *tx)
{
	pthread_mutex_lock(&cache.writer);
	*tx = (struct itx){ .fsd = f, .op = op, .write = write, .open_gen = 1 };
	cache.pending = 0;
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

/* ---- operations ---- */

static int add_run(struct op *op, struct itx *tx)
{
	struct adder *a = (struct adder *)op;

	assert_ptr_equal(tx->op, op);
	a->runs++;
	if (a->fail_clean)
		return a->fail_clean;
	cache.pending++;
	tx->changes++;
	tx->dirty_nr++;
	if (a->fail_half)
		return a->fail_half;
	if (!a->more)
		return 0;
	a->more--;
	return OP_MORE;
}

static void add_done(struct op *op, int err)
{
	struct adder *a = (struct adder *)op;

	a->dones++;
	a->err = err;
}

static void add_init(struct adder *a)
{
	a->op = (struct op){ .fsd = &fsd, .name = "add", .writes = true, .run = add_run,
			     .done = add_done };
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

	(void)tx;
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
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].dones, 1);
}

static int setup(void **state)
{
	(void)state;
	memset(&cache, 0, sizeof(cache));
	memset(&fsd, 0, sizeof(fsd));
	pthread_mutex_init(&cache.writer, NULL);
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
	assert_int_equal(cache.value, OPS);
	assert_int_equal(cache.committed, 2);		/* the holder's, and one for all */
	assert_int_equal(cache.noted, OPS);		/* each lock knows what is dirty under it */
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
	assert_int_equal(cache.value, OPS - 1);
	assert_int_equal(cache.noted, OPS - 1);
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].err, i == 1 ? -ENOENT : 0);
}

static void who_fails_half_way_leaves_nothing(void **state)
{
	struct adder ops[OPS] = { [2] = { .fail_half = -EIO } };

	(void)state;
	run_all(ops, 0);
	assert_int_equal(cache.value, OPS - 1);
	assert_int_equal(cache.committed, 1 + OPS - 1);	/* each has its own */
	assert_int_equal(cache.aborted, 2);		/* the shared one, and that of the one */
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].err, i == 2 ? -EIO : 0);
}

static void without_room_each_waits_for_its_own(void **state)
{
	struct adder ops[OPS] = { 0 };

	(void)state;
	run_all(ops, 3);				/* the shared one, and those of two */
	assert_int_equal(cache.value, OPS);
	assert_int_equal(cache.waited, 2);
	for (unsigned i = 0; i < OPS; i++)
		assert_int_equal(ops[i].err, 0);
}

static void a_part_of_one_is_committed_with_the_others(void **state)
{
	struct adder ops[OPS] = { [0] = { .more = 2 } };

	(void)state;
	run_all(ops, 0);
	assert_int_equal(cache.value, OPS + 2);
	assert_int_equal(ops[0].runs, 3);
	assert_int_equal(cache.committed, 1 + 3);
	assert_int_equal(ops[0].err, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_comes_together_shares_a_transaction, setup, teardown),
		cmocka_unit_test_setup_teardown(who_fails_without_a_change_fails_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(who_fails_half_way_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(without_room_each_waits_for_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(a_part_of_one_is_committed_with_the_others, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
