/*
 * Reading items of the forest into the cache.
 *
 * Promises: what is inserted is the newest committed version under the lock that the waiting
 * operations hold: roots are taken after the lock was granted and after the last commit of this
 * mount, and what may be too old by the time it is inserted is refused by the cache
 * (items_insert_read) and read again. A block that was replaced under the reader means newer roots,
 * for as long as they are newer; the same roots twice mean that the volume is damaged: EIO.
 *
 * Operations that miss keys of one range share one read.  Each thread has its own blocks; nobody
 * who serves a request blocks here.  Items that are malformed are cached as such, so that the
 * damage stays with whoever asks for that very item.
 */
#include "reader.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkcli.h"
#include "blocks.h"
#include "format/item_check.h"
#include "inode.h"
#include "items.h"
#include "log.h"
#include "net.h"
#include "thread.h"

#define READER_THREADS		2u
#define READER_CACHE_PART	4u	/* a thread, of cache_size */
#define READER_CACHE_BLOCKS	256u	/* 16 MiB at most */
#define WALKER_CACHE_PART	2u
#define WALKER_CACHE_BLOCKS	512u
#define NARROW_ITEMS		64u
#define NARROW_NAMES		2u

struct read_req {
	struct read_req *next;
	struct key key;
	struct op *ops;
	bool is_running;
};

struct read_thread {
	struct reader *reader;
	pthread_t thread;
	struct block_set *bs;
};

struct reader {
	struct fsd *fsd;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct read_req *reqs, **reqs_tail;
	bool stopping;
	unsigned threads_nr;
	struct read_thread threads[READER_THREADS];

	_Atomic uint64_t epoch;		/* roots of an earlier one are too old */
	struct forest_roots roots;	/* under lock */
	uint64_t roots_epoch;
	bool has_roots;

	pthread_mutex_t walk_lock;	/* walkers take turns */
	struct block_set *walk_bs;
};

void reader_roots_stale(struct fsd *fsd)
{
	if (fsd->reader)
		atomic_fetch_add(&fsd->reader->epoch, 1);
}

void reader_roots_given(struct fsd *fsd, const struct forest_roots *roots)
{
	struct reader *r = fsd->reader;
	uint64_t epoch;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	epoch = atomic_fetch_add(&r->epoch, 1) + 1;
	/* Where a commit is done at this very moment its epoch is another, and nobody takes these. */
	if (!r->has_roots || r->roots_epoch < epoch) {
		r->roots = *roots;
		r->roots_epoch = epoch;
		r->has_roots = true;
	}
	pthread_mutex_unlock(&r->lock);
}

static int get_roots(struct reader *r, bool fresh, struct forest_roots *roots)
{
	uint64_t epoch = atomic_load(&r->epoch), stable_seq;
	bool cached;
	int ret;

	pthread_mutex_lock(&r->lock);
	cached = !fresh && r->has_roots && r->roots_epoch == epoch;
	if (cached)
		*roots = r->roots;
	pthread_mutex_unlock(&r->lock);
	if (cached)
		return 0;
	ret = net_get_roots(r->fsd, roots, &stable_seq);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&r->lock);
	if (!r->has_roots || r->roots_epoch <= epoch) {
		r->roots = *roots;
		r->roots_epoch = epoch;
		r->has_roots = true;
	}
	pthread_mutex_unlock(&r->lock);
	return 0;
}

/* ---- one range ----------------------------------------------------------------------------- */

struct range {
	struct fsd *fsd;
	struct key start, end;
	struct read_item *items;
	size_t *val_at;
	size_t nr, cap;
	uint8_t *vals;
	size_t vals_len, vals_cap;
};

static int range_grow(struct range *rg, size_t len)
{
	size_t cap;
	void *p;

	if (rg->nr == rg->cap) {
		cap = rg->cap ? 2 * rg->cap : 512;
		p = realloc(rg->items, cap * sizeof(*rg->items));
		if (!p)
			return -ENOMEM;
		rg->items = p;
		p = realloc(rg->val_at, cap * sizeof(*rg->val_at));
		if (!p)
			return -ENOMEM;
		rg->val_at = p;
		rg->cap = cap;
	}
	if (rg->vals_len + len > rg->vals_cap) {
		cap = rg->vals_cap ? 2 * rg->vals_cap : 65536;
		p = realloc(rg->vals, cap);
		if (!p)
			return -ENOMEM;
		rg->vals = p;
		rg->vals_cap = cap;
	}
	return 0;
}

static void say_bad(struct fsd *fsd, const struct item *it, const char *why)
{
	char text[KEY_TEXT_BYTES];

	key_to_text(&it->key, text, sizeof(text));
	log_err("item %s: %s; it is left alone and cannot be used: run scoutfsctl check", text, why);
	stats_inc(&fsd->stats.corrupt_items);
}

static int keep(void *arg, const struct item *it)
{
	struct range *rg = arg;
	const void *val = it->val;
	size_t len = it->val_len;
	uint8_t flags = 0;
	const char *why;
	struct cinode ci;
	int ret;

	if (item_check(TREE_FS, rg->fsd->fmt_vers, it, &why) < 0) {
		say_bad(rg->fsd, it, why);
		flags = ITEM_REC_BAD;
		len = 0;
	} else if (it->key.zone == ZONE_FS && it->key.type == TYPE_INODE) {
		cinode_from_item(it, &ci);
		val = &ci;
		len = sizeof(ci);
	}
	ret = range_grow(rg, len);
	if (ret < 0)
		return ret;
	rg->items[rg->nr] =
		(struct read_item){ .key = it->key, .len = (uint16_t)len, .flags = flags };
	rg->val_at[rg->nr++] = rg->vals_len;
	if (len)
		memcpy(rg->vals + rg->vals_len, val, len);
	rg->vals_len += len;
	return 0;
}

struct insert {
	const struct range *rg;
	const struct items_sample *s;
};

static int run_insert(struct itx *tx, void *arg)
{
	const struct insert *in = arg;

	return items_insert_read(tx, in->s, &in->rg->start, &in->rg->end, in->rg->items, in->rg->nr);
}

static int insert(struct range *rg, const struct items_sample *s)
{
	struct insert in = { rg, s };

	for (size_t i = 0; i < rg->nr; i++)
		rg->items[i].val = rg->vals + rg->val_at[i];
	return items_run(rg->fsd, run_insert, &in);
}

/*
 * A leaf holds hundreds of items.  Where each that comes lets another go, only the neighbours of the
 * key are kept: the one before it, for those who look back, and those that a walk asks for next.  Names are
 * looked up in no order.
 */
static void narrow(struct range *rg, const struct key *key)
{
	size_t lo = 0, hi = rg->nr;
	size_t ahead = key->zone == ZONE_FS && key->type == TYPE_DIRENT ? NARROW_NAMES : NARROW_ITEMS;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (key_cmp(&rg->items[mid].key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo > 1)
		rg->start = key_next(rg->items[lo - 2].key);
	if (lo + ahead < rg->nr)
		rg->end = key_prev(rg->items[lo + ahead].key);
}

/*
 * Whether an operation still waits for q.  Each holds a use of the lock, and what is dropped after this look spoils the
 * sample before it; but where all were killed nothing keeps the lock, and what is read may be of long ago.
 */
static bool is_wanted(struct reader *r, const struct read_req *q)
{
	bool is;

	pthread_mutex_lock(&r->lock);
	is = q->ops;
	pthread_mutex_unlock(&r->lock);
	return is;
}

/* -ECANCELED: nobody waits for it any more. */
static int read_range(struct read_thread *t, const struct read_req *q, struct range *rg)
{
	const struct key *key = &q->key;
	const struct key lock_start = key_lock_start(key), lock_end = key_lock_end(&lock_start);
	struct forest_roots roots, stale;
	bool was_stale = false, fresh = false;
	struct items_sample sample;
	int ret;

	for (;;) {
		items_sample(rg->fsd, key, &sample);
		if (!is_wanted(t->reader, q))
			return -ECANCELED;
		ret = get_roots(t->reader, fresh, &roots);
		if (ret < 0)
			return ret;
		rg->nr = rg->vals_len = 0;
		ret = forest_read_range(t->bs, &roots, &lock_start, &lock_end, key, &rg->start,
					&rg->end, keep, rg);
		if (ret == -ESTALE) {
			if (was_stale && forest_roots_eq(&roots, &stale)) {
				log_err("the trees of the volume refer to blocks that are not there: run scoutfsctl check");
				return -EIO;
			}
			stats_inc(&rg->fsd->stats.item_reads_stale);
			stale = roots;
			was_stale = fresh = true;
			continue;
		}
		if (ret < 0)
			return ret;
		if (items_is_tight(rg->fsd))
			narrow(rg, key);
		ret = insert(rg, &sample);
		if (ret != -EAGAIN)
			return ret;
		fresh = true;
	}
}

/* ---- requests ------------------------------------------------------------------------------ */

static bool covers(const struct range *rg, const struct key *key)
{
	return key_cmp(&rg->start, key) <= 0 && key_cmp(key, &rg->end) <= 0;
}

/* Take every request that rg answers (and own, whatever happened) off the list; returns their
 * operations. */
static struct op *take_answered(struct reader *r, struct read_req *own, const struct range *rg,
				int err)
{
	struct read_req **p = &r->reqs, *q;
	struct op *ops = NULL, *op;

	while ((q = *p)) {
		if (q != own && (err || q->is_running || !covers(rg, &q->key))) {
			p = &q->next;
			continue;
		}
		while ((op = q->ops)) {
			q->ops = op->next;
			op->next = ops;
			ops = op;
		}
		*p = q->next;
		if (q != own)
			free(q);
	}
	r->reqs_tail = p;
	return ops;
}

static void serve(struct read_thread *t, struct read_req *q)
{
	struct reader *r = t->reader;
	struct range rg = { .fsd = r->fsd };
	struct op *ops, *next;
	int ret = read_range(t, q, &rg);

	stats_inc(&r->fsd->stats.item_reads);
	pthread_mutex_lock(&r->lock);
	if (ret == -ECANCELED && q->ops) {
		/* somebody has come since: from the start */
		q->is_running = false;
		q = NULL;
		ops = NULL;
	} else {
		if (ret < 0 && ret != -ENOMEM)
			ret = -EIO;
		ops = take_answered(r, q, &rg, ret);
	}
	pthread_mutex_unlock(&r->lock);
	for (; ops; ops = next) {
		next = ops->next;
		if (ret < 0)
			op_fail(ops, ret);
		else
			op_wake(ops);
	}
	free(q);
	free(rg.items);
	free(rg.val_at);
	free(rg.vals);
	items_evict(r->fsd, false);
}

static struct read_req *find_waiting(struct reader *r)
{
	struct read_req *q = r->reqs;

	while (q && q->is_running)
		q = q->next;
	return q;
}

static void *read_thread(void *arg)
{
	struct read_thread *t = arg;
	struct reader *r = t->reader;
	struct read_req *q;

	pthread_mutex_lock(&r->lock);
	for (;;) {
		q = find_waiting(r);
		if (!q) {
			if (r->stopping)
				break;
			pthread_cond_wait(&r->work, &r->lock);
			continue;
		}
		q->is_running = true;
		pthread_mutex_unlock(&r->lock);
		serve(t, q);
		pthread_mutex_lock(&r->lock);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static bool cancel_wait(struct op *op)
{
	struct reader *r = op->fsd->reader;
	bool found = false;

	pthread_mutex_lock(&r->lock);
	for (struct read_req *q = r->reqs; q && !found; q = q->next) {
		for (struct op **p = &q->ops; *p && !found; p = &(*p)->next) {
			found = *p == op;
			if (found) {
				*p = op->next;
				break;
			}
		}
	}
	pthread_mutex_unlock(&r->lock);
	return found;
}

void reader_wait(struct op *op)
{
	struct reader *r = op->fsd->reader;
	struct read_req *q, *made = calloc(1, sizeof(*made));

	if (!made)
		fsd_fail(op->fsd, "out of memory");
	pthread_mutex_lock(&r->lock);
	for (q = r->reqs; q; q = q->next) {
		if (key_eq(&q->key, &op->need.items))
			break;
	}
	if (!q) {
		q = made;
		made = NULL;
		q->key = op->need.items;
		*r->reqs_tail = q;
		r->reqs_tail = &q->next;
		pthread_cond_signal(&r->work);
	}
	op->next = q->ops;
	q->ops = op;
	atomic_store(&op->cancel, cancel_wait);
	pthread_mutex_unlock(&r->lock);
	free(made);
}

/* ---- walks --------------------------------------------------------------------------------- */

struct walk {
	struct reader *r;
	struct key at, end;	/* what is left */
	uint64_t stable_seq;
	bool has_stable, done;
	int (*each)(void *arg, const struct item *it);
	void *arg;
};

/* With one set of roots, as far as they go. */
static int walk_roots(struct walk *w, const struct forest_roots *roots)
{
	struct forest_iter *fi;
	struct item it;
	const char *why;
	int ret = forest_iter_open(&fi, w->r->walk_bs, roots, &w->at, &w->end);

	if (ret < 0)
		return ret;
	while ((ret = forest_iter_next(fi, &it)) == 0) {
		w->at = key_next(it.key);
		w->done = key_eq(&it.key, &w->end) || key_eq(&w->at, &KEY_ZEROS);
		if (it.key.zone == ZONE_INODE_INDEX && it.key.second > w->stable_seq)
			continue;
		if (item_check(TREE_FS, w->r->fsd->fmt_vers, &it, &why) < 0) {
			say_bad(w->r->fsd, &it, why);
			continue;
		}
		ret = w->each(w->arg, &it);
		if (ret != 0)
			break;
	}
	forest_iter_close(fi);
	if (ret == -ENOENT) {
		w->done = true;
		ret = 0;
	}
	return ret;
}

static int walk_all(struct walk *w)
{
	struct forest_roots roots, stale;
	bool was_stale = false;
	uint64_t seq;
	int ret;

	do {
		ret = net_get_roots(w->r->fsd, &roots, &seq);
		if (ret < 0)
			return ret;
		if (!w->has_stable) {
			w->stable_seq = seq;
			w->has_stable = true;
			/* Nothing newer is given, so nothing newer need be walked. */
			if (w->end.zone == ZONE_INODE_INDEX && w->end.second > seq) {
				w->end.second = seq;
				w->end.third = UINT64_MAX;
				w->end.fourth = UINT8_MAX;
			}
			if (key_cmp(&w->at, &w->end) > 0)
				return 0;
		}
		ret = walk_roots(w, &roots);
		if (ret == -ESTALE) {
			if (was_stale && forest_roots_eq(&roots, &stale)) {
				log_err("the trees of the volume refer to blocks that are not there: run scoutfsctl check");
				return -EIO;
			}
			stats_inc(&w->r->fsd->stats.item_reads_stale);
			stale = roots;
			was_stale = true;
		}
	} while (ret == -ESTALE && !w->done);
	return ret == -ESTALE ? 0 : ret;
}

int reader_iter(struct fsd *fsd, const struct key *start, const struct key *end,
		int (*each)(void *arg, const struct item *it), void *arg, uint64_t *stable_seq)
{
	struct walk w = { .r = fsd->reader, .at = *start, .end = *end, .each = each, .arg = arg };
	int ret;

	pthread_mutex_lock(&w.r->walk_lock);
	ret = walk_all(&w);
	pthread_mutex_unlock(&w.r->walk_lock);
	if (stable_seq)
		*stable_seq = w.stable_seq;
	return ret == -EBADMSG || ret == -EINVAL ? -EIO : ret;
}

/* ---- start, stop --------------------------------------------------------------------------- */

int reader_start(struct fsd *fsd)
{
	struct block_dev dev = blkcli_block_dev(fsd->blk);
	struct reader *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return -ENOMEM;
	r->fsd = fsd;
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->walk_lock, NULL);
	pthread_cond_init(&r->work, NULL);
	r->reqs_tail = &r->reqs;
	fsd->reader = r;
	ret = blocks_open(fsd, &dev, WALKER_CACHE_PART, WALKER_CACHE_BLOCKS, &r->walk_bs);
	for (unsigned i = 0; i < READER_THREADS && ret == 0; i++) {
		struct read_thread *t = &r->threads[i];

		t->reader = r;
		ret = blocks_open(fsd, &dev, READER_CACHE_PART, READER_CACHE_BLOCKS, &t->bs);
		if (ret == 0)
			ret = thread_start(&t->thread, "item reader", read_thread, t);
		if (ret == 0)
			r->threads_nr++;
		else if (t->bs)
			block_set_close(t->bs);
	}
	if (ret < 0)
		reader_stop(fsd);
	return ret;
}

void reader_stop(struct fsd *fsd)
{
	struct reader *r = fsd->reader;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	pthread_cond_broadcast(&r->work);
	pthread_mutex_unlock(&r->lock);
	for (unsigned i = 0; i < r->threads_nr; i++) {
		pthread_join(r->threads[i].thread, NULL);
		block_set_close(r->threads[i].bs);
	}
	assert(!r->reqs);
	if (r->walk_bs)
		block_set_close(r->walk_bs);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->walk_lock);
	pthread_cond_destroy(&r->work);
	free(r);
	fsd->reader = NULL;
}
