/*
 * Every request is executed once and answered with what came of that, whenever the process dies and
 * however often: before it, between its commit and its answer, while it answers one that was sent again.
 *
 * Requests add one to a number, and their answer is the sum; so one that is executed twice, or answered
 * with another's record, shows.  What is true here of one thread is true of many: a record is in the
 * transaction of its operation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fsd_stubs.h"
#include "memdev.h"
#include "services/fsd/items_impl.h"
#include "services/fsd/reply.h"

#define MAP_BYTES	(8u << 20)
#define OPEN_MAX	12u
#define ROUNDS		400u

/* As the kernel has it. */
struct request {
	uint64_t unique;	/* 0: none */
	bool was_sent;
};

static struct {
	struct fsd fsd;
	char dir[64];
	uint64_t seed;
	bool dies;		/* the next answer does not arrive */
	bool is_dead;
	struct request open[OPEN_MAX];
	uint64_t last_unique;
	uint64_t made, answered;
	uint8_t *answers;	/* which sums were given as an answer */
} m;

struct add {
	struct op op;
	struct request *req;
	uint64_t sum;
	bool half;		/* it is done in two transactions, decided in the first */
};

void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	(void)fsd;
	fail_msg("fsd_fail: %s", fmt);
	abort();
}

/* ---- requests ---- */

static const struct key number = { .zone = ZONE_FS, .first = 1024, .type = TYPE_XATTR };

static int add_run(struct op *op, struct itx *tx)
{
	struct add *a = (struct add *)op;
	struct ival iv;
	int ret = item_get(tx, &number, &iv);

	if (a->op.is_decided)
		return 0;
	assert_int_equal(ret, 0);
	memcpy(&a->sum, iv.val, sizeof(a->sum));
	a->sum++;
	ret = item_put(tx, &number, &a->sum, sizeof(a->sum));
	if (ret == 0 && a->half) {
		a->op.is_decided = true;
		return OP_MORE;
	}
	return ret;
}

static uint64_t add_answer(const struct op *op)
{
	return ((const struct add *)op)->sum;
}

static int add_again(struct op *op, struct itx *tx)
{
	(void)tx;
	((struct add *)op)->sum = op->answer;
	return 0;
}

static const struct op_again again = { .answer = add_answer, .run = add_again };

static void add_done(struct op *op, int err)
{
	struct add *a = (struct add *)op;

	assert_int_equal(err, 0);
	if (m.dies) {
		m.is_dead = true;
	} else {
		assert_true(a->sum > 0 && a->sum <= m.made);
		assert_int_equal(m.answers[a->sum]++, 0);	/* nobody else's */
		m.answered++;
		a->req->unique = 0;
	}
	free(a);
}

static void send_request(struct request *r, bool dies)
{
	struct add *a = calloc(1, sizeof(*a));

	assert_non_null(a);
	a->op = (struct op){ .fsd = &m.fsd, .name = "add", .writes = true, .run = add_run,
			     .done = add_done, .again = &again };
	a->req = r;
	a->half = test_random(&m.seed) % 4 == 0;
	m.dies = dies;
	reply_begin(&m.fsd, &a->op, r->unique | (r->was_sent ? FUSE_UNIQUE_SENT_AGAIN : 0));
	r->was_sent = true;
	op_start(&a->op);
}

static void start(bool keep)
{
	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, keep), 0);
	assert_int_equal(ops_start(&m.fsd, 1), 0);
	assert_int_equal(replies_start(&m.fsd, keep), 0);
	m.is_dead = false;
}

/* A process that is gone leaves the cache; stopping what is in memory changes nothing there. */
static void die(void)
{
	ops_stop(&m.fsd);
	replies_stop(&m.fsd);
	items_close(&m.fsd);
}

static void make_number(void)
{
	struct itx tx;
	uint64_t zero = 0;

	assert_int_equal(items_begin(&m.fsd, NULL, true, &tx), 0);
	assert_int_equal(items_set_known(&tx, &number, &number), 0);
	assert_int_equal(item_put(&tx, &number, &zero, sizeof(zero)), 0);
	assert_int_equal(items_commit(&tx), 0);
}

static uint64_t number_now(void)
{
	struct itx tx;
	struct ival iv;
	uint64_t n;

	assert_int_equal(items_begin(&m.fsd, NULL, false, &tx), 0);
	assert_int_equal(item_get(&tx, &number, &iv), 0);
	memcpy(&n, iv.val, sizeof(n));
	items_abort(&tx);
	return n;
}

static struct request *new_request(void)
{
	for (unsigned i = 0; i < OPEN_MAX; i++) {
		if (m.open[i].unique)
			continue;
		m.last_unique += 2;
		m.made++;
		m.open[i] = (struct request){ .unique = m.last_unique };
		return &m.open[i];
	}
	return NULL;
}

/* One process: some requests, new and sent again in any order, until it dies in one of them. */
static void live(unsigned requests)
{
	while (requests-- && !m.is_dead) {
		struct request *r = &m.open[test_random(&m.seed) % OPEN_MAX];

		if (test_random(&m.seed) % 2)
			r = new_request();
		if (r && r->unique)
			send_request(r, test_random(&m.seed) % 8 == 0);
	}
}

static void each_request_is_done_once_whenever_processes_die(void **state)
{
	(void)state;
	make_number();
	for (unsigned round = 0; round < ROUNDS; round++) {
		live((unsigned)(test_random(&m.seed) % 30));
		die();
		start(true);
		/* An old process's last requests may come late, but not for ever. */
		if (round % 16 == 15) {
			for (unsigned i = 0; i < OPEN_MAX; i++) {
				if (m.open[i].unique && m.open[i].was_sent)
					send_request(&m.open[i], false);
			}
			replies_settle(&m.fsd);
		}
	}
	for (unsigned i = 0; i < OPEN_MAX; i++) {
		if (m.open[i].unique)
			send_request(&m.open[i], false);
	}
	assert_true(m.made > ROUNDS);
	assert_int_equal(m.answered, m.made);
	assert_int_equal(number_now(), m.made);
}

/* A number of another connection says nothing. */
static void a_new_connection_begins_without_records(void **state)
{
	struct request *r;

	(void)state;
	make_number();
	r = new_request();
	send_request(r, true);
	assert_true(m.is_dead);
	ops_stop(&m.fsd);
	replies_stop(&m.fsd);
	items_close(&m.fsd);
	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, true), 0);
	assert_int_equal(ops_start(&m.fsd, 1), 0);
	assert_int_equal(replies_start(&m.fsd, false), 0);
	m.made++;
	send_request(r, false);
	assert_int_equal(number_now(), 2);
}

static int setup(void **state)
{
	(void)state;
	memset(&m, 0, sizeof(m));
	strcpy(m.dir, "/tmp/test_fsd_reply.XXXXXX");
	assert_non_null(mkdtemp(m.dir));
	m.seed = test_env("SEED", 1);
	m.answers = calloc(ROUNDS * 40 + 64, 1);
	assert_non_null(m.answers);
	start(false);
	return 0;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	die();
	free(m.answers);
	snprintf(path, sizeof(path), "%s/items.mdb", m.dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/items.mdb-lock", m.dir);
	unlink(path);
	return rmdir(m.dir);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(each_request_is_done_once_whenever_processes_die),
		T(a_new_connection_begins_without_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
