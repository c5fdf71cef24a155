/*
 * Revokes and pages that the kernel has locked: whatever keeps it from dropping them, a lock is given up in time, also where
 * what keeps them waits for that very lock (services/fsd/notifier.c, busy.c, pending.c).  The kernel is a few lines here: a file
 * has pages that stay locked until its operation is done, and dropping them waits for that.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "clock.h"
#include "services/fsd/busy.h"
#include "services/fsd/data.h"
#include "services/fsd/fsd_stats.h"
#include "services/fsd/fuse.h"
#include "services/fsd/locks_impl.h"
#include "services/fsd/net.h"
#include "services/fsd/pending.h"
#include "services/fsd/reader.h"
#include "services/fsd/txn.h"

#define FILES		(NOTIFIERS_MAX + 40u)
#define DEADLINE_S	60u
#define PAGES_ALL	UINT64_MAX

struct file {
	struct op op, earlier;
	struct busy busy;
	struct pending_turn turn;
	uint64_t ino;
	/* mutex */
	uint64_t kept_first, kept_last;	/* pages that are locked */
	bool keeps, is_done, is_earlier_done;
	unsigned calls, given_up;	/* into the kernel; answers to revokes */
};

static struct fsd fsd;
static struct file files[FILES];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static atomic_bool has_unread;

static struct file *file_of(uint64_t first_ino)
{
	return &files[first_ino / INODE_LOCK_GROUP - 1];
}

static void say(bool *what, bool to)
{
	pthread_mutex_lock(&mutex);
	*what = to;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
}

/* With the mutex held.  False: too late. */
static bool wait_a_while(uint64_t end_ns)
{
	return clock_cond_wait(&cond, &mutex, end_ns) == 0;
}

static uint64_t deadline(void)
{
	return clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
}

/* Threads hang: nothing can be taken down any more. */
static void too_late(const char *what)
{
	fprintf(stderr, "%s in %u s\n", what, DEADLINE_S);
	abort();
}

static void wait_given_up(struct file *f, unsigned nr)
{
	uint64_t until = deadline();

	pthread_mutex_lock(&mutex);
	while (f->given_up < nr && wait_a_while(until))
		;
	if (f->given_up != nr)
		too_late("a lock is not given up");
	pthread_mutex_unlock(&mutex);
}

static void wait_true(const bool *what)
{
	uint64_t until = deadline();

	pthread_mutex_lock(&mutex);
	while (!*what && wait_a_while(until))
		;
	if (!*what)
		too_late("an operation does not end");
	pthread_mutex_unlock(&mutex);
}

/* ---- the kernel -------------------------------------------------------------------------------------- */

/* As kcache.c's: waits while one of the pages is locked, whether the revoke has gone on or not. */
static void drop(struct file *f, struct kcache_call *call, uint64_t first, uint64_t end, uint64_t page)
{
	if (first == end || atomic_load(&call->is_left))
		return;
	atomic_store(&call->page, page);
	atomic_store(&call->since_ns, clock_mono_ns());
	pthread_mutex_lock(&mutex);
	while (f->keeps && f->kept_first < end && f->kept_last >= first)
		pthread_cond_wait(&cond, &mutex);
	pthread_mutex_unlock(&mutex);
}

bool kcache_invalidate(struct fsd *of, uint64_t first_ino, uint64_t last_ino, bool all, struct kcache_call *call)
{
	struct file *f = file_of(first_ino);
	struct busy_pages *busy = NULL;
	uint64_t from = 0;
	bool left;
	int nr;

	(void)last_ino, (void)all;
	pthread_mutex_lock(&mutex);
	f->calls++;
	pthread_mutex_unlock(&mutex);
	if (call->leaves_truncated && locks_keep_pages(of, f->ino))
		return true;
	atomic_store(&call->looked_ns, clock_mono_ns());
	nr = busy_pages(f->ino, &busy);
	atomic_store(&call->ino, f->ino);
	for (int i = 0; i < nr; i++) {
		drop(f, call, from, busy[i].first, KCACHE_MANY);
		from = busy[i].last + 1;
	}
	drop(f, call, from, PAGES_ALL, KCACHE_MANY);
	for (int i = 0; i < nr; i++) {
		if (busy[i].maybe)
			drop(f, call, busy[i].first, busy[i].last + 1, busy[i].first);
	}
	free(busy);
	atomic_store(&call->ino, 0);
	left = nr || atomic_load(&call->is_left);
	return left;
}

bool kcache_has_unread(struct fsd *of)
{
	(void)of;
	return atomic_load(&has_unread);
}

/* ---- the leader, and the rest of a mount ------------------------------------------------------------- */

void net_lock_request(struct fsd *of, const struct key *key, uint8_t old_mode, uint8_t new_mode)
{
	(void)of, (void)key, (void)old_mode, (void)new_mode;	/* the test knows, and grants */
}

void net_invalidate_respond(struct fsd *of, struct net_req *req, const struct key *key, uint8_t old_mode, uint8_t new_mode)
{
	struct file *f = file_of(key->first);

	(void)of, (void)req, (void)old_mode, (void)new_mode;
	pthread_mutex_lock(&mutex);
	f->given_up++;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
}

int items_drop(struct fsd *of, const struct key *start, const struct key *end)
{
	(void)of, (void)start, (void)end;
	return 0;
}
void pool_drop(struct fsd *of, uint64_t first_ino, uint64_t last_ino) { (void)of, (void)first_ino, (void)last_ino; }
void reader_roots_stale(struct fsd *of) { (void)of; }
void reader_roots_given(struct fsd *of, const struct forest_roots *roots) { (void)of, (void)roots; }
void reader_wait(struct op *op) { op_wake(op); }
void txn_wait_room(struct op *op) { op_wake(op); }
uint64_t txn_committed_gen(struct fsd *of) { (void)of; return UINT64_MAX; }
void txn_commit_to(struct fsd *of, enum txn_why why, uint64_t gen, void (*then)(void *arg), void *arg)
{
	(void)of, (void)why, (void)gen, (void)then, (void)arg;
	fail_msg("nothing is dirty");
}
void txn_commit(struct fsd *of, enum txn_why why, void (*then)(void *arg), void *arg)
{
	txn_commit_to(of, why, 0, then, arg);
}
void fsd_fail(struct fsd *of, const char *fmt, ...)
{
	(void)of;
	fprintf(stderr, "fsd_fail: %s\n", fmt);
	abort();
}
int items_begin(struct fsd *of, struct op *op, bool write, struct itx *tx)
{
	*tx = (struct itx){ .fsd = of, .op = op, .write = write };
	return 0;
}
int items_commit(struct itx *tx) { (void)tx; return 0; }
void items_abort(struct itx *tx) { (void)tx; }

/* ---- operations -------------------------------------------------------------------------------------- */

/* A request about data that waits for its lock for WRITE. */
static int run_request(struct op *op, struct itx *tx)
{
	struct file *f = (struct file *)op;
	int ret = data_wait_pending(op, f->ino, false);

	(void)tx;
	return ret == 0 ? lock_inode(op, f->ino, LOCK_MODE_WRITE) : ret;
}

static void end_request(struct op *op, int err)
{
	struct file *f = (struct file *)op;

	assert_int_equal(err, 0);
	if (f->busy.len)
		busy_end(&f->busy);
	say(&f->keeps, false);
	say(&f->is_done, true);
}

static void begin_request(struct file *f, enum busy_kind kind, uint64_t offset, uint64_t len)
{
	static const uint8_t data[2 * SMALL_SIZE];

	f->op = (struct op){ .fsd = &fsd, .name = "request", .notes_itself = true, .run = run_request, .done = end_request };
	if (len)
		busy_begin(&f->busy, kind, f->ino, offset, len, data);
	op_start(&f->op);
}

static struct file *file_of_earlier(struct op *op)
{
	return (struct file *)((char *)op - offsetof(struct file, earlier));
}

/* A store to a mapping that is answered and not applied. */
static int run_earlier(struct op *op, struct itx *tx)
{
	struct file *f = file_of_earlier(op);
	int ret = pending_wait_turn(op, f->ino, &f->turn);

	(void)tx;
	return ret == 0 ? lock_inode(op, f->ino, LOCK_MODE_WRITE) : ret;
}

static void end_earlier(struct op *op, int err)
{
	struct file *f = file_of_earlier(op);

	pending_end(f->ino, &f->turn, err);
	say(&f->is_earlier_done, true);
}

static void begin_earlier(struct file *f)
{
	f->earlier = (struct op){ .fsd = &fsd, .name = "pending", .notes_itself = true, .run = run_earlier, .done = end_earlier };
	assert_int_equal(pending_begin(f->ino, &f->turn), 0);
	op_start(&f->earlier);
}

static void keep_pages(struct file *f, uint64_t first, uint64_t last)
{
	f->kept_first = first;
	f->kept_last = last;
	say(&f->keeps, true);
}

static void grant(struct file *f, uint8_t old_mode, uint8_t mode)
{
	struct key key = key_inode(f->ino), start = key_lock_start(&key);

	locks_granted(&fsd, &start, old_mode, mode, 1, NULL);
}

static void revoke(struct file *f)
{
	struct key key = key_inode(f->ino), start = key_lock_start(&key);

	locks_invalidate(&fsd, NULL, &start, LOCK_MODE_READ, LOCK_MODE_NULL);
}

static int setup(void **state)
{
	(void)state;
	memset(&fsd, 0, sizeof(fsd));
	memset(files, 0, sizeof(files));
	atomic_store(&has_unread, false);
	fsd.conf.lock_idle_count = 2 * FILES;
	if (ops_start(&fsd, 3) < 0 || locks_start(&fsd) < 0)
		return -1;
	for (unsigned i = 0; i < FILES; i++) {
		files[i].ino = (i + 1) * INODE_LOCK_GROUP + 7;
		grant(&files[i], LOCK_MODE_NULL, LOCK_MODE_READ);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ops_drain(&fsd);
	locks_stop(&fsd);
	ops_stop(&fsd);
	return 0;
}

/* ---- tests ------------------------------------------------------------------------------------------- */

static void a_page_that_a_write_has_locked_is_left_out(void **state)
{
	struct file *f = &files[0];

	(void)state;
	keep_pages(f, 1, 1);
	begin_request(f, BUSY_WRITE, SMALL_SIZE / 2, SMALL_SIZE);	/* the last page in part: perhaps it is locked */
	revoke(f);
	wait_given_up(f, 1);
	grant(f, LOCK_MODE_NULL, LOCK_MODE_WRITE);
	wait_true(&f->is_done);
}

/* It has no page of the cache; so what it is about may be in mappings, and has to go. */
static void keeps_nothing_in_mappings(enum busy_kind kind, uint64_t offset)
{
	struct busy_pages *p = NULL;
	struct file *f = &files[0];
	int left_out;

	begin_request(f, kind, offset, 2 * SMALL_SIZE);
	left_out = busy_pages(f->ino, &p);
	free(p);
	revoke(f);
	wait_given_up(f, 1);
	grant(f, LOCK_MODE_NULL, LOCK_MODE_WRITE);
	wait_true(&f->is_done);
	assert_int_equal(left_out, 0);
	assert_int_equal(f->calls, 1);
}

static void a_direct_read_keeps_nothing_in_mappings(void **state)
{
	(void)state;
	keeps_nothing_in_mappings(BUSY_DIRECT, 0);
}

static void a_write_past_the_cache_keeps_nothing_in_mappings(void **state)
{
	(void)state;
	keeps_nothing_in_mappings(BUSY_PAST, SMALL_SIZE / 2);
}

/* Some of a direct read goes through the cache after all, where the memory it reads into is mapped of the same file. */
static void a_direct_read_that_has_pages_locked_is_noticed(void **state)
{
	struct file *f = &files[0];

	(void)state;
	keep_pages(f, 0, 1);
	begin_request(f, BUSY_DIRECT, 0, 2 * SMALL_SIZE);
	revoke(f);
	wait_given_up(f, 1);
	assert_true(f->calls >= 2);
	grant(f, LOCK_MODE_NULL, LOCK_MODE_WRITE);
	wait_true(&f->is_done);
}

/* A page that has to be written back first is not taken for one that is locked by the read. */
static void a_page_that_is_written_back_is_waited_for(void **state)
{
	struct file *f = &files[0];
	unsigned too_early;
	struct busy back;

	(void)state;
	keep_pages(f, 0, 0);
	busy_begin(&back, BUSY_BACK, f->ino, 0, SMALL_SIZE, NULL);
	begin_request(f, BUSY_DIRECT, 0, SMALL_SIZE);
	revoke(f);
	for (unsigned i = 0; i < 100; i++)	/* longer than anything is looked at */
		nanosleep(&(struct timespec){ .tv_nsec = NSEC_PER_MSEC }, NULL);
	pthread_mutex_lock(&mutex);
	too_early = f->given_up;
	pthread_mutex_unlock(&mutex);
	busy_end(&back);
	say(&f->keeps, false);
	wait_given_up(f, 1);
	grant(f, LOCK_MODE_NULL, LOCK_MODE_WRITE);
	wait_true(&f->is_done);
	assert_int_equal(too_early, 0);
}

/*
 * While a truncation waits, the kernel writes nothing of the file back, and dropping a page that was stored to waits for that.
 * The truncation waits for an earlier store, which waits for the lock.
 */
static void a_truncation_that_waits_for_an_earlier_store_stops_no_revoke(void **state)
{
	struct file *f = &files[0], *other = &files[1];
	bool leaves_other;

	(void)state;
	begin_earlier(f);
	keep_pages(f, 0, PAGES_ALL - 1);
	f->op = (struct op){ .fsd = &fsd, .name = "truncate", .notes_itself = true, .run = run_request, .done = end_request,
			     .keeps_pages = f->ino };
	op_start(&f->op);
	revoke(f);
	wait_given_up(f, 1);
	leaves_other = locks_keep_pages(&fsd, other->ino);
	grant(f, LOCK_MODE_NULL, LOCK_MODE_WRITE);
	wait_true(&f->is_earlier_done);
	wait_true(&f->is_done);
	assert_true(stats_get(&fsd.stats.lock_notify_left) >= 1);
	assert_false(leaves_other);
}

/* As many calls wait as there may be threads, and more: somebody watches all the same, and does what the others have left. */
static void more_calls_wait_than_there_are_threads(void **state)
{
	(void)state;
	for (unsigned i = 0; i < FILES; i++) {
		keep_pages(&files[i], 0, 0);
		begin_request(&files[i], BUSY_DIRECT, 0, SMALL_SIZE);
		revoke(&files[i]);
	}
	/* one of the others has the lock next, and gives it back: then the request goes on, and the thread comes back */
	for (unsigned i = 0; i < FILES; i++) {
		wait_given_up(&files[i], 1);
		grant(&files[i], LOCK_MODE_NULL, LOCK_MODE_WRITE);
		wait_true(&files[i].is_done);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_page_that_a_write_has_locked_is_left_out),
		T(a_direct_read_keeps_nothing_in_mappings),
		T(a_write_past_the_cache_keeps_nothing_in_mappings),
		T(a_direct_read_that_has_pages_locked_is_noticed),
		T(a_page_that_is_written_back_is_waited_for),
		T(a_truncation_that_waits_for_an_earlier_store_stops_no_revoke),
		T(more_calls_wait_than_there_are_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
