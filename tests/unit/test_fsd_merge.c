/*
 * A mount's share of a log merge: what is handed in is on the device (services/fsd/merge.c).  The leader has one request;
 * how items are merged is tested elsewhere (test_merge.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "blkcli.h"
#include "clock.h"
#include "log/merge_items.h"
#include "merge/merge.h"
#include "net_client.h"
#include "services/fsd/fsd_stats.h"
#include "services/fsd/merge.h"

#define REQUEST_SEQ	7u
#define DEADLINE_S	60u

static struct fsd fsd;
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_given;		/* the request */
	unsigned handed_in, given_up;
	uint64_t flush_failures;
	int flush_says;
	bool other_was_told;	/* of what the device has lost, between our blocks and our flush */
} world = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

/* ---- blockd ------------------------------------------------------------------------------------------ */

static int dev_read(void *arg, uint64_t blkno, void *buf)
{
	(void)arg, (void)blkno, (void)buf;
	return -EIO;
}

static int dev_write(void *arg, const struct block_write *w, size_t nr)
{
	(void)arg, (void)w, (void)nr;
	return 0;
}

static uint64_t dev_random(void *arg)
{
	(void)arg;
	return 4;
}

struct block_dev blkcli_block_dev(struct blkcli *c)
{
	(void)c;
	return (struct block_dev){ .read = dev_read, .write = dev_write, .random = dev_random };
}

int blkcli_flush(struct blkcli *c, enum blk_device dev)
{
	int ret;

	(void)c;
	assert_int_equal(dev, BLK_DEV_META);
	pthread_mutex_lock(&world.lock);
	ret = world.flush_says;
	world.flush_failures += world.other_was_told || ret < 0;
	pthread_mutex_unlock(&world.lock);
	return ret;
}

uint64_t blkcli_flush_failures(struct blkcli *c, enum blk_device dev)
{
	uint64_t nr;

	(void)c, (void)dev;
	pthread_mutex_lock(&world.lock);
	nr = world.flush_failures;
	pthread_mutex_unlock(&world.lock);
	return nr;
}

/* ---- the work, which is done at once ----------------------------------------------------------------- */

int merge_request_get(const struct item *it, struct merge_request *req, const char **why)
{
	(void)why;
	*req = (struct merge_request){ .seq = it->key.second };
	return 0;
}

void merge_complete_put(const struct merge_complete *comp, struct disk_merge_complete *d)
{
	*d = (struct disk_merge_complete){ .seq = le64_of(comp->seq), .flags = le64_of(comp->flags) };
}

int merge_run_open(struct merge_run **out, struct block_set *bs, const struct merge_request *req,
		   const struct disk_btree_root *logs_root, size_t dirty_blocks_max)
{
	(void)bs, (void)logs_root, (void)dirty_blocks_max;
	assert_int_equal(req->seq, REQUEST_SEQ);
	*out = NULL;
	return 0;
}

int merge_run_step(struct merge_run *run, unsigned items_max)
{
	(void)run, (void)items_max;
	return 1;
}

uint64_t merge_run_items(const struct merge_run *run)
{
	(void)run;
	return 1;
}

void merge_run_result(const struct merge_run *run, struct merge_complete *comp)
{
	(void)run;
	*comp = (struct merge_complete){ .seq = REQUEST_SEQ };
}

void merge_run_close(struct merge_run *run)
{
	(void)run;
}

void merge_run_give_up(const struct merge_request *req, struct merge_complete *comp)
{
	*comp = (struct merge_complete){ .seq = req->seq, .flags = MERGE_COMPLETE_ERROR };
}

/* ---- the leader -------------------------------------------------------------------------------------- */

int net_client_call(struct net_client *nc, unsigned type, const void *msg, net_client_done done, void *arg)
{
	struct msg_get_log_merge_reply work = { .has_work = 0 };
	const struct msg_commit_log_merge *m = msg;

	(void)nc;
	pthread_mutex_lock(&world.lock);
	if (type == MSG_get_log_merge) {
		work.has_work = !world.is_given;
		work.request.seq = le64_of(REQUEST_SEQ);
		world.is_given = true;
	} else if (le64_get(m->complete.flags) & MERGE_COMPLETE_ERROR) {
		world.given_up++;
	} else {
		world.handed_in++;
	}
	pthread_cond_broadcast(&world.cond);
	pthread_mutex_unlock(&world.lock);
	if (type == MSG_get_log_merge)
		done(arg, 0, MSG_get_log_merge_reply, &work);
	else
		done(arg, 0, MSG_commit_log_merge_reply, NULL);
	return 0;
}

/* The request is worked on once. */
static void run_once(bool other_was_told, int flush_says)
{
	uint64_t end_ns;
	int rc = 0;

	memset(&fsd, 0, sizeof(fsd));
	fsd.total_meta_blocks = 1000;
	world.is_given = false;
	world.handed_in = world.given_up = 0;
	world.other_was_told = other_was_told;
	world.flush_says = flush_says;
	assert_int_equal(merge_init(&fsd), 0);
	assert_int_equal(merge_start(&fsd), 0);
	end_ns = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	pthread_mutex_lock(&world.lock);
	while (!world.handed_in && !world.given_up && rc == 0)
		rc = clock_cond_wait(&world.cond, &world.lock, end_ns);
	pthread_mutex_unlock(&world.lock);
	merge_stop(&fsd);
	merge_fini(&fsd);
}

static void what_is_on_the_device_is_handed_in(void **state)
{
	(void)state;
	run_once(false, 0);
	assert_int_equal(world.handed_in, 1);
	assert_int_equal(world.given_up, 0);
}

static void what_a_flush_did_not_make_durable_is_given_up(void **state)
{
	(void)state;
	run_once(false, -EIO);
	assert_int_equal(world.handed_in, 0);
	assert_int_equal(world.given_up, 1);
}

/* The device tells a client once that it has lost something; a commit that has flushed may have been told instead of us. */
static void what_another_flush_has_lost_is_given_up(void **state)
{
	(void)state;
	run_once(true, 0);
	assert_int_equal(world.handed_in, 0);
	assert_int_equal(world.given_up, 1);
	assert_int_equal(stats_get(&fsd.stats.log_merge_errors), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_on_the_device_is_handed_in),
		cmocka_unit_test(what_a_flush_did_not_make_durable_is_given_up),
		cmocka_unit_test(what_another_flush_has_lost_is_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
