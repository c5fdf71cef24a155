/*
 * This mount's share of log merges.
 *
 * Promises: what is handed in was built by the leader's rules (lib/core/merge), from blocks that the
 * request brought, and is on the device, flushed, before the leader hears of it.  Whatever goes wrong is
 * told as ERROR and nothing of it counts.  Operations do not wait for it: it has a thread with low
 * priority, blocks of its own, not more of them dirty than a part of the cache's size, and writes few
 * at a time.
 *
 * A request that this process does not finish stays with the leader: asked again under the same rid it
 * gives the same one, with the blocks it had in the beginning, and when the mount leaves the leader takes
 * it back.  So stopping needs no word.
 *
 * Calls are made without waiting in them: a leader may be away for long, and the mount must be able to end.
 */
#include "merge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blkcli.h"
#include "blocks.h"
#include "clock.h"
#include "log.h"
#include "log/merge_items.h"
#include "merge/merge.h"
#include "net.h"
#include "net_client.h"
#include "reader.h"
#include "thread.h"

#define POLL_NS		(5 * NSEC_PER_SEC)
#define NICE		10
/* Items between two looks at whether to stop. */
#define STEP_ITEMS	512u
#define CLEAN_PART	8u	/* of cache_size */
#define CLEAN_BLOCKS	128u	/* at most */
/* Dirty blocks are at most that part of the cache's size. */
#define DIRTY_PART	4u
#define DIRTY_MIN	64u
/* Blocks written at a time, so that reads get their turn at the device. */
#define WRITE_BATCH	16u

struct merge {
	struct fsd *fsd;
	pthread_t thread;
	bool is_started;
	pthread_mutex_t lock;		/* guards the rest */
	pthread_cond_t cond;
	bool stopping;
	bool kicked;
	struct merge_progress progress;
};

void merge_kick(struct fsd *fsd)
{
	struct merge *m = fsd->merge;

	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->kicked = true;
	pthread_cond_broadcast(&m->cond);
	pthread_mutex_unlock(&m->lock);
}

static bool is_stopping(struct merge *m)
{
	bool ret;

	pthread_mutex_lock(&m->lock);
	ret = m->stopping;
	pthread_mutex_unlock(&m->lock);
	return ret || atomic_load(&m->fsd->fenced);
}

/* Until there may be work; false: it is to end. */
static bool wait_for_work(struct merge *m)
{
	uint64_t until = clock_mono_ns() + POLL_NS;
	bool go_on;

	pthread_mutex_lock(&m->lock);
	while (!m->stopping && !m->kicked &&
	       clock_cond_wait(&m->cond, &m->lock, until) != ETIMEDOUT)
		;
	m->kicked = false;
	go_on = !m->stopping;
	pthread_mutex_unlock(&m->lock);
	return go_on;
}

/* ---- calls --------------------------------------------------------------------------------- */

/* Whoever comes second of the caller and the answer frees it. */
struct call {
	struct merge *m;
	bool is_done, is_abandoned;
	int err;
	union msg_body reply;
};

static void call_done(void *arg, int err, unsigned type, const void *reply)
{
	struct call *c = arg;
	struct merge *m = c->m;
	bool is_abandoned;

	pthread_mutex_lock(&m->lock);
	c->is_done = true;
	c->err = err;
	if (err == 0 && reply)
		memcpy(&c->reply, reply, msg_struct_bytes(type));
	is_abandoned = c->is_abandoned;
	pthread_cond_broadcast(&m->cond);
	pthread_mutex_unlock(&m->lock);
	if (is_abandoned)
		free(c);
}

/* -ECANCELED: the mount ends; the answer will find nobody. */
static int call(struct merge *m, unsigned type, const void *msg, union msg_body *reply)
{
	struct call *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return -ENOMEM;
	c->m = m;
	ret = net_client_call(m->fsd->net, type, msg, call_done, c);
	if (ret < 0) {
		free(c);
		return ret;
	}
	pthread_mutex_lock(&m->lock);
	while (!c->is_done && !m->stopping)
		pthread_cond_wait(&m->cond, &m->lock);
	if (!c->is_done) {
		c->is_abandoned = true;
		pthread_mutex_unlock(&m->lock);
		return -ECANCELED;
	}
	pthread_mutex_unlock(&m->lock);
	ret = c->err;
	if (ret == 0 && reply)
		*reply = c->reply;
	free(c);
	return ret;
}

/* ---- one request --------------------------------------------------------------------------- */

struct throttled {
	struct block_dev dev;
};

static int read_block(void *arg, uint64_t blkno, void *buf)
{
	struct throttled *th = arg;

	return th->dev.read(th->dev.arg, blkno, buf);
}

static int write_blocks(void *arg, const struct block_write *w, size_t nr)
{
	struct throttled *th = arg;
	int ret = 0;

	for (size_t at = 0; at < nr && ret == 0; at += WRITE_BATCH)
		ret = th->dev.write(th->dev.arg, w + at, nr - at < WRITE_BATCH ? nr - at : WRITE_BATCH);
	return ret;
}

static uint64_t random_number(void *arg)
{
	struct throttled *th = arg;

	return th->dev.random(th->dev.arg);
}

static size_t dirty_max(const struct fsd *fsd)
{
	uint64_t part = (fsd->conf.cache_size / DIRTY_PART) >> LARGE_SHIFT;

	if (part < DIRTY_MIN)
		return DIRTY_MIN;
	return part < MERGE_DIRTY_BLOCKS_MAX ? (size_t)part : MERGE_DIRTY_BLOCKS_MAX;
}

static void set_progress(struct merge *m, uint64_t since_ns, uint64_t items)
{
	pthread_mutex_lock(&m->lock);
	m->progress.since_ns = since_ns;
	m->progress.items = items;
	pthread_mutex_unlock(&m->lock);
}

static int run_request(struct merge *m, struct block_set *bs, const struct merge_request *req,
		       const struct disk_btree_root *logs_root, struct merge_complete *comp)
{
	uint64_t failures = blkcli_flush_failures(m->fsd->blk, BLK_DEV_META);
	uint64_t since = clock_mono_ns();
	struct merge_run *run;
	int ret = merge_run_open(&run, bs, req, logs_root, dirty_max(m->fsd));

	if (ret < 0)
		return ret;
	do {
		set_progress(m, since, merge_run_items(run));
		ret = is_stopping(m) ? -ECANCELED : merge_run_step(run, STEP_ITEMS);
	} while (ret == 0);
	if (ret == 1) {
		merge_run_result(run, comp);
		stats_add(&m->fsd->stats.log_merge_items, merge_run_items(run));
		ret = block_set_write(bs);
		if (ret == 0)
			ret = blkcli_flush(m->fsd->blk, BLK_DEV_META);
		/* A commit may have been told of what the device has lost of this. */
		if (ret == 0 && blkcli_flush_failures(m->fsd->blk, BLK_DEV_META) != failures)
			ret = -EIO;
	}
	merge_run_close(run);
	set_progress(m, 0, 0);
	return ret;
}

/* What the request remembers of the log trees may be gone; what is there now has the same inputs. */
static int fresh_logs_root(struct merge *m, struct disk_btree_root *logs_root)
{
	union msg_body reply;
	int ret = call(m, MSG_get_roots, NULL, &reply);

	if (ret == 0)
		*logs_root = reply.get_roots_reply.logs_root;
	return ret;
}

/* 0 and *comp to be handed in, or an error. */
static int do_request(struct merge *m, const struct merge_request *req, struct merge_complete *comp)
{
	struct throttled th = { blkcli_block_dev(m->fsd->blk) };
	struct block_dev dev = { &th, read_block, write_blocks, random_number };
	struct disk_btree_root logs_root = req->logs_root, old;
	struct block_set *bs;
	int ret = blocks_open(m->fsd, &dev, CLEAN_PART, CLEAN_BLOCKS, &bs);

	if (ret < 0)
		return ret;
	ret = run_request(m, bs, req, &logs_root, comp);
	while (ret == -ESTALE) {
		block_set_abort(bs);
		old = logs_root;
		ret = fresh_logs_root(m, &logs_root);
		if (ret == 0 && memcmp(&old, &logs_root, sizeof(old)) == 0)
			ret = -EIO;	/* the same roots twice: blocks are missing */
		if (ret == 0)
			ret = run_request(m, bs, req, &logs_root, comp);
	}
	block_set_abort(bs);
	block_set_close(bs);
	return ret;
}

/* The leader's bytes, checked; what it refers to is checked where it is read. */
static int read_request(struct merge *m, const struct disk_merge_request *d, struct merge_request *req)
{
	struct item it = { .key = { .zone = ZONE_MERGE_REQUEST, .first = m->fsd->rid,
				    .second = le64_get(d->seq) },
			   .val = d, .val_len = sizeof(*d) };
	const char *why;
	int ret = merge_request_get(&it, req, &why);

	if (ret < 0)
		log_err("the leader's request for a log merge makes no sense: %s", why);
	return ret;
}

static int hand_in(struct merge *m, const struct merge_complete *comp)
{
	struct msg_commit_log_merge msg;

	merge_complete_put(comp, &msg.complete);
	return call(m, MSG_commit_log_merge, &msg, NULL);
}

/* 1: ask again at once; 0: there is no work; or an error, after which to wait. */
static int work_once(struct merge *m)
{
	struct merge_complete comp;
	struct merge_request req;
	union msg_body reply;
	int ret, err;

	ret = call(m, MSG_get_log_merge, NULL, &reply);
	if (ret < 0 || !reply.get_log_merge_reply.has_work)
		return ret;
	ret = read_request(m, &reply.get_log_merge_reply.request, &req);
	if (ret < 0)
		return ret;
	err = do_request(m, &req, &comp);
	if (err == 0)
		err = hand_in(m, &comp);
	if (err == 0) {
		stats_inc(&m->fsd->stats.log_merge_requests);
		return 1;
	}
	if (err == -ECANCELED || err == -ESHUTDOWN || err == -ENOLINK)
		return err;
	stats_inc(&m->fsd->stats.log_merge_errors);
	log_err("work of a log merge (request %llu) failed and is given back: %s",
		(unsigned long long)req.seq, strerror(-err));
	merge_run_give_up(&req, &comp);
	hand_in(m, &comp);
	return err;
}

static void *merge_thread(void *arg)
{
	struct merge *m = arg;

	/* Linux has priorities by thread; without it the work is done all the same. */
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	while (wait_for_work(m)) {
		while (!is_stopping(m) && work_once(m) > 0)
			;
	}
	return NULL;
}

/* ---- start, stop, status ------------------------------------------------------------------- */

int merge_init(struct fsd *fsd)
{
	struct merge *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->fsd = fsd;
	m->kicked = true;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->cond, NULL);
	fsd->merge = m;
	return 0;
}

int merge_start(struct fsd *fsd)
{
	struct merge *m = fsd->merge;
	int ret = thread_start(&m->thread, "merge", merge_thread, m);

	m->is_started = ret == 0;
	return ret;
}

void merge_stop(struct fsd *fsd)
{
	struct merge *m = fsd->merge;

	if (!m || !m->is_started)
		return;
	pthread_mutex_lock(&m->lock);
	m->stopping = true;
	pthread_cond_broadcast(&m->cond);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->thread, NULL);
	m->is_started = false;
}

void merge_fini(struct fsd *fsd)
{
	struct merge *m = fsd->merge;

	if (!m)
		return;
	assert(!m->is_started);
	fsd->merge = NULL;
	pthread_mutex_destroy(&m->lock);
	pthread_cond_destroy(&m->cond);
	free(m);
}

void merge_get_progress(struct fsd *fsd, struct merge_progress *p)
{
	struct merge *m = fsd->merge;

	*p = (struct merge_progress){ 0 };
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	*p = m->progress;
	pthread_mutex_unlock(&m->lock);
}
