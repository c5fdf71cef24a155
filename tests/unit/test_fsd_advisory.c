/*
 * A mount's side of advisory locks (services/fsd/advisory.c) over the real item cache, with a leader that answers
 * when the test wants: what a program was told is kept for the next process; what it gave back is asked for
 * before anything it asks for later, also when that could not be sent at once; the session's thread never waits for
 * the item cache; many programs that wait leave room for everything else.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "fsd_stubs.h"
#include "memdev.h"
#include "services/fsd/advisory_impl.h"
#include "services/fsd/items_impl.h"

#define MAP_BYTES	(16u << 20)
#define PATIENCE_NS	(60 * NSEC_PER_SEC)
#define INO		1024u

/* A program's request. */
struct fuse_req {
	struct op *op;
	bool is_answered;
	int err;
};

struct asked {
	unsigned type;
	struct msg_adv_lock lock;
	struct msg_adv_cancel cancel;
	net_client_done done;
	void *arg;
	bool is_answered;
};

static struct {
	struct fsd fsd;
	char dir[64];
	pthread_mutex_t mutex;
	struct asked asked[3 * ADVISORY_ASKED_MAX];	/* in the order in which the leader got them */
	size_t asked_nr;
	int refuse;		/* what the session says instead of sending */
	unsigned refused_nr;
} m = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* ---- what is around it ---- */

void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	(void)fsd;
	fprintf(stderr, "fsd_fail: %s\n", fmt);
	abort();
}
void net_client_respond(struct net_client *nc, struct net_req *req, int err, unsigned type, const void *msg)
{
	(void)nc, (void)req, (void)err, (void)type, (void)msg;
}

int net_client_call(struct net_client *nc, unsigned type, const void *msg, net_client_done done, void *arg)
{
	struct asked *a;
	int ret;

	(void)nc;
	pthread_mutex_lock(&m.mutex);
	ret = m.refuse;
	m.refused_nr += ret < 0;
	if (ret == 0) {
		assert_in_range(m.asked_nr, 0, sizeof(m.asked) / sizeof(m.asked[0]) - 1);
		a = &m.asked[m.asked_nr++];
		*a = (struct asked){ .type = type, .done = done, .arg = arg };
		if (type == MSG_adv_lock)
			a->lock = *(const struct msg_adv_lock *)msg;
		else if (type == MSG_adv_cancel)
			a->cancel = *(const struct msg_adv_cancel *)msg;
	}
	pthread_mutex_unlock(&m.mutex);
	return ret;
}

void fuse_op_start_repeatable(fuse_req_t req, struct op *op)
{
	req->op = op;
	op_start(op);
}

void fuse_op_done(fuse_req_t req, struct op *op)
{
	assert_ptr_equal(req->op, op);
}

/* Whether the item cache has the owner's row. */
static bool has_row(uint64_t owner)
{
	MDB_cursor *mc;
	MDB_val k, v;
	struct itx tx;
	bool found = false;

	assert_int_equal(items_begin(&m.fsd, NULL, false, &tx), 0);
	assert_int_equal(mdb_cursor_open(tx.txn, items_dbi(&tx, TABLE_ADVISORY), &mc), 0);
	while (mdb_cursor_get(mc, &k, &v, MDB_NEXT) == 0)
		found = found || ((const uint8_t *)k.mv_data)[k.mv_size - 1] == owner;
	mdb_cursor_close(mc);
	items_abort(&tx);
	return found;
}

int fuse_reply_err(fuse_req_t req, int err)
{
	pthread_mutex_lock(&m.mutex);
	assert_false(req->is_answered);
	req->is_answered = true;
	req->err = err;
	pthread_mutex_unlock(&m.mutex);
	return 0;
}

int fuse_reply_lock(fuse_req_t req, const struct flock *lock)
{
	(void)lock;
	return fuse_reply_err(req, 0);
}

/* ---- the test's own ---- */

static bool is_answered(struct fuse_req *r)
{
	bool is;

	pthread_mutex_lock(&m.mutex);
	is = r->is_answered;
	pthread_mutex_unlock(&m.mutex);
	return is;
}

static size_t asked_nr(void)
{
	size_t nr;

	pthread_mutex_lock(&m.mutex);
	nr = m.asked_nr;
	pthread_mutex_unlock(&m.mutex);
	return nr;
}

static void refuse(int err)
{
	pthread_mutex_lock(&m.mutex);
	m.refuse = err;
	m.refused_nr = 0;
	pthread_mutex_unlock(&m.mutex);
}

#define WAIT_FOR(what)										\
	do {											\
		uint64_t end = clock_mono_ns() + PATIENCE_NS;					\
												\
		while (!(what)) {								\
			if (clock_mono_ns() > end)						\
				fail_msg("never: %s", #what);					\
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);		\
		}										\
	} while (0)

/* The leader's answer to the nth question. */
static void answer(size_t n, uint8_t status)
{
	struct msg_adv_lock_reply reply = { .status = status };
	struct asked *a = &m.asked[n];

	assert_false(a->is_answered);
	a->is_answered = true;
	a->done(a->arg, 0, msg_reply_type(a->type), &reply);
}

static void answer_error(size_t n, int err)
{
	m.asked[n].is_answered = true;
	m.asked[n].done(m.asked[n].arg, err, 0, NULL);
}

static struct advisory_ask ask_of(uint64_t owner, uint8_t type, bool wait)
{
	return (struct advisory_ask){ .ino = INO, .owner = owner, .fh = owner, .last = UINT64_MAX, .pid = 7,
				      .kind = MSG_ADV_POSIX, .type = type, .wait = wait };
}

static void lock(struct fuse_req *r, uint64_t owner, bool wait)
{
	struct advisory_ask ask = ask_of(owner, ADV_WRITE, wait);

	advisory_lock(&m.fsd, r, &ask);
}

/* A lock that the owner has. */
static void have(uint64_t owner)
{
	struct fuse_req r = { 0 };
	size_t n = asked_nr();

	lock(&r, owner, false);
	assert_int_equal(asked_nr(), n + 1);
	answer(n, MSG_ADV_GRANTED);
	WAIT_FOR(is_answered(&r));
	assert_int_equal(r.err, 0);
	assert_true(has_row(owner));
}

static int setup(void **state)
{
	(void)state;
	memset(m.asked, 0, sizeof(m.asked));
	m.asked_nr = 0;
	refuse(0);
	memset(&m.fsd, 0, sizeof(m.fsd));
	strcpy(m.dir, "/tmp/test_fsd_advisory.XXXXXX");
	assert_non_null(mkdtemp(m.dir));
	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, false), 0);
	assert_int_equal(ops_start(&m.fsd, 2), 0);
	return advisory_start(&m.fsd, false);
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	advisory_end_waits(&m.fsd);
	ops_drain(&m.fsd);
	/* As net_stop: what is still unanswered ends. */
	for (size_t i = 0; i < m.asked_nr; i++) {
		if (!m.asked[i].is_answered)
			m.asked[i].done(m.asked[i].arg, -ESHUTDOWN, 0, NULL);
	}
	ops_stop(&m.fsd);
	advisory_stop(&m.fsd);
	items_close(&m.fsd);
	snprintf(path, sizeof(path), "%s/items.mdb", m.dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/items.mdb-lock", m.dir);
	unlink(path);
	return rmdir(m.dir);
}

/* ---- promises ---- */

static void what_a_program_has_is_known_to_the_next_process(void **state)
{
	uint64_t held, waiting;

	(void)state;
	have(1);
	have(2);
	advisory_stop(&m.fsd);
	assert_int_equal(advisory_start(&m.fsd, true), 0);
	advisory_counts(&m.fsd, &held, &waiting);
	assert_int_equal(held, 2);
	advisory_stop(&m.fsd);
	/* A new connection: nobody has anything. */
	assert_int_equal(advisory_start(&m.fsd, false), 0);
	advisory_counts(&m.fsd, &held, &waiting);
	assert_int_equal(held, 0);
	assert_false(has_row(1));
}

static void what_is_given_back_is_gone_before_the_leader_hears_of_it(void **state)
{
	struct fuse_req r = { 0 };

	(void)state;
	have(1);
	advisory_flush(&m.fsd, &r, INO, 1);
	assert_int_equal(asked_nr(), 2);
	assert_int_equal(m.asked[1].lock.type, MSG_ADV_UNLOCK);
	assert_false(has_row(1));
	assert_false(is_answered(&r));
	answer(1, MSG_ADV_GRANTED);
	assert_true(is_answered(&r));
	assert_int_equal(r.err, 0);
}

/* The session took nothing for a moment, and the program was told that its lock is given back. */
static void what_was_given_back_first_is_sent_first(void **state)
{
	struct fuse_req closed = { 0 }, again = { 0 };

	(void)state;
	have(1);
	refuse(-EBUSY);
	advisory_flush(&m.fsd, &closed, INO, 1);
	WAIT_FOR(is_answered(&closed));
	refuse(0);
	lock(&again, 1, false);
	WAIT_FOR(asked_nr() >= 2);
	assert_int_equal(m.asked[1].lock.type, MSG_ADV_UNLOCK);
	answer(1, MSG_ADV_GRANTED);
	WAIT_FOR(asked_nr() >= 3);
	assert_int_equal(m.asked[2].lock.type, MSG_ADV_WRITE);
	answer(2, MSG_ADV_GRANTED);
	WAIT_FOR(is_answered(&again));
	assert_int_equal(again.err, 0);
	assert_true(has_row(1));
	/* Nothing takes it away later. */
	assert_int_equal(asked_nr(), 3);
}

/* A program is told that its lock is free, so it must get free whatever happens on the way. */
static void a_leader_without_memory_is_asked_again(void **state)
{
	struct fuse_req r = { 0 };

	(void)state;
	have(1);
	advisory_flush(&m.fsd, &r, INO, 1);
	answer_error(1, -ENOMEM);
	assert_true(is_answered(&r));
	assert_int_equal(r.err, 0);
	WAIT_FOR(asked_nr() >= 3);
	assert_int_equal(m.asked[2].lock.type, MSG_ADV_UNLOCK);
	assert_int_equal(m.asked[2].lock.owner, 1);
	answer(2, MSG_ADV_GRANTED);
}

/* What the leader would refuse is refused before it is noted: nobody would give it back later. */
static void an_owner_with_all_the_pieces_it_may_have_keeps_them(void **state)
{
	static struct adv_range v[ADV_OWNER_RANGES_MAX];
	struct advisory_ask ask = ask_of(1, ADV_UNLOCK, false);
	struct fuse_req middle = { 0 }, end = { 0 };
	uint64_t held, waiting;

	(void)state;
	for (uint64_t i = 0; i < ADV_OWNER_RANGES_MAX; i++)
		v[i] = (struct adv_range){ i * 10, i * 10 + 4, ADV_WRITE };
	assert_int_equal(adv_table_load(m.fsd.advisory->table, INO, MSG_ADV_POSIX, 1, 1, 7, v,
					ADV_OWNER_RANGES_MAX), 0);
	ask.first = ask.last = 102;
	advisory_lock(&m.fsd, &middle, &ask);
	assert_true(is_answered(&middle));
	assert_int_equal(middle.err, ENOLCK);
	assert_int_equal(asked_nr(), 0);
	ask.first = 103;
	ask.last = 109;
	advisory_lock(&m.fsd, &end, &ask);
	assert_int_equal(asked_nr(), 1);
	answer(0, MSG_ADV_GRANTED);
	assert_int_equal(end.err, 0);
	advisory_counts(&m.fsd, &held, &waiting);
	assert_int_equal(held, ADV_OWNER_RANGES_MAX);
}

struct leader_says {
	size_t n;
};

static void *session_thread(void *arg)
{
	answer(((struct leader_says *)arg)->n, MSG_ADV_GRANTED);
	return NULL;
}

/* Processes that share an open file share its flock; one of them asks for it again, and is killed before the answer. */
static void who_is_killed_asking_again_takes_nothing_from_who_shares_the_lock(void **state)
{
	struct advisory_ask ask = ask_of(1, ADV_WRITE, true);
	struct fuse_req first = { 0 }, again = { 0 };

	(void)state;
	ask.kind = MSG_ADV_FLOCK;
	advisory_lock(&m.fsd, &first, &ask);
	answer(0, MSG_ADV_GRANTED);
	WAIT_FOR(is_answered(&first));
	assert_int_equal(first.err, 0);

	advisory_lock(&m.fsd, &again, &ask);
	WAIT_FOR(asked_nr() == 2);
	op_interrupt(again.op);
	WAIT_FOR(is_answered(&again));
	assert_int_equal(again.err, EINTR);
	answer(1, MSG_ADV_GRANTED);
	/* whatever goes back is sent before this */
	have(2);
	for (size_t n = 2; n < asked_nr(); n++)
		assert_false(m.asked[n].type == MSG_adv_lock && m.asked[n].lock.type == MSG_ADV_UNLOCK);
}

/*
 * Everything that could make room in a full cache comes by the session's thread: so it must not wait for
 * the cache, here held by somebody else.
 */
static void the_sessions_thread_does_not_wait_for_the_cache(void **state)
{
	struct leader_says says = { 0 };
	struct fuse_req r = { 0 };
	struct timespec until;
	pthread_t thread;
	struct itx tx;
	int ret;

	(void)state;
	lock(&r, 1, true);
	assert_int_equal(asked_nr(), 1);
	/* The program is killed: the leader is asked to end the wait, and has granted it already. */
	op_interrupt(r.op);
	WAIT_FOR(is_answered(&r));
	assert_int_equal(r.err, EINTR);
	assert_int_equal(asked_nr(), 2);
	assert_int_equal(m.asked[1].type, MSG_adv_cancel);

	assert_int_equal(items_begin(&m.fsd, NULL, true, &tx), 0);
	assert_int_equal(pthread_create(&thread, NULL, session_thread, &says), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 30;
	ret = pthread_timedjoin_np(thread, NULL, &until);
	items_abort(&tx);
	if (ret) {
		pthread_join(thread, NULL);
		fail_msg("it waits for the item cache");
	}
	/* Nobody wants that lock: it goes back. */
	WAIT_FOR(asked_nr() >= 3);
	assert_int_equal(m.asked[2].type, MSG_adv_lock);
	assert_int_equal(m.asked[2].lock.type, MSG_ADV_UNLOCK);
	assert_false(has_row(1));
}

/* Others' messages go the same way, and the leader takes no more than so many of a mount. */
static void many_who_wait_leave_room_for_others(void **state)
{
	static struct fuse_req waits[ADVISORY_ASKED_MAX], tests[2];
	struct fuse_req more = { 0 }, back = { 0 };
	const struct advisory_ask test = ask_of(1, ADV_READ, false);
	size_t nr;

	(void)state;
	memset(waits, 0, sizeof(waits));
	have(1);
	for (unsigned i = 0; i < ADVISORY_ASKED_MAX; i++)
		lock(&waits[i], 2 + i, true);
	nr = asked_nr();
	assert_int_equal(nr, 1 + ADVISORY_ASKED_MAX);
	lock(&more, 1, true);
	WAIT_FOR(is_answered(&more));
	assert_int_equal(more.err, ENOLCK);
	advisory_test(&m.fsd, &tests[0], &test);
	WAIT_FOR(is_answered(&tests[0]));
	assert_int_equal(tests[0].err, ENOLCK);
	assert_int_equal(asked_nr(), nr);
	/* Who holds what they wait for can give it back. */
	advisory_flush(&m.fsd, &back, INO, 1);
	assert_int_equal(asked_nr(), nr + 1);
	answer(nr, MSG_ADV_GRANTED);
	assert_int_equal(back.err, 0);
	/* The first gets it; there is room for one again. */
	answer(1, MSG_ADV_GRANTED);
	WAIT_FOR(is_answered(&waits[0]));
	assert_int_equal(waits[0].err, 0);
	more = (struct fuse_req){ 0 };
	lock(&more, 1, true);
	WAIT_FOR(asked_nr() > nr + 1);
	assert_false(is_answered(&more));
	advisory_end_waits(&m.fsd);
	WAIT_FOR(is_answered(&more));
	assert_int_equal(more.err, EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_a_program_has_is_known_to_the_next_process, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_given_back_is_gone_before_the_leader_hears_of_it, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_given_back_first_is_sent_first, setup, teardown),
		cmocka_unit_test_setup_teardown(a_leader_without_memory_is_asked_again, setup, teardown),
		cmocka_unit_test_setup_teardown(an_owner_with_all_the_pieces_it_may_have_keeps_them, setup, teardown),
		cmocka_unit_test_setup_teardown(the_sessions_thread_does_not_wait_for_the_cache, setup, teardown),
		cmocka_unit_test_setup_teardown(who_is_killed_asking_again_takes_nothing_from_who_shares_the_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(many_who_wait_leave_room_for_others, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
