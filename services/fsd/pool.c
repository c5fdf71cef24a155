/*
 * Pages of the pool.
 *
 * A page is free, held by an operation that has not committed, or indexed: then TABLE_POOL has, or had,
 * a record that names it.  Records come and go with transactions, which may abort; so nothing here is
 * freed by them.  Instead the keeper thread frees an indexed page when a snapshot taken after the page
 * was indexed shows no record for it, and drops records of clean pages when pages run short.
 *
 * A reader copies out of a page without holding anything.  It looks at the page's version before and
 * after: a page that changed hands meanwhile has another one.
 */
#include "pool.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkcli.h"
#include "log.h"
#include "thread.h"

#define PAGE_FREE	0
#define PAGE_HELD	1
#define PAGE_INDEXED	2
#define SWEEP_BATCH	512
#define WRITE_BYTES_MAX	(1u << 20)

struct page {
	atomic_uint version;	/* counts changes of owner */
	uint8_t state;
	uint8_t pins;		/* commits that write it now */
	uint64_t ino, iblock;
};

struct pool {
	struct fsd *fsd;
	uint8_t *base;
	uint32_t pages_nr, free_nr, next;
	struct page *pages;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct op *waiting;	/* operations that need pages */
	bool stopping, sweep_wanted;
	bool is_collecting;	/* a generation is closed, and its pages are not pinned yet */
	pthread_t keeper;
};

void *pool_page(struct pool *p, uint32_t page)
{
	return p->base + (size_t)page * SMALL_SIZE;
}

/* ---- pages ---------------------------------------------------------------------------------------- */

static bool is_short(const struct pool *p)
{
	return p->free_nr < p->pages_nr / 2;
}

/* p->mutex is held */
static void set_free(struct pool *p, struct page *pg)
{
	atomic_fetch_add(&pg->version, 1);
	pg->state = PAGE_FREE;
	p->free_nr++;
}

unsigned pool_take(struct pool *p, uint32_t *pages, unsigned want)
{
	unsigned got = 0;

	pthread_mutex_lock(&p->mutex);
	if (p->free_nr >= want) {
		for (uint32_t i = 0; i < p->pages_nr && got < want; i++) {
			struct page *pg = &p->pages[p->next];

			if (pg->state == PAGE_FREE) {
				pg->state = PAGE_HELD;
				pg->ino = 0;	/* nobody's yet */
				atomic_fetch_add(&pg->version, 1);
				pages[got++] = p->next;
			}
			p->next = p->next + 1 < p->pages_nr ? p->next + 1 : 0;
		}
		p->free_nr -= got;
	}
	if (is_short(p) && !p->sweep_wanted) {
		p->sweep_wanted = true;
		pthread_cond_broadcast(&p->cond);
	}
	pthread_mutex_unlock(&p->mutex);
	return got;
}

/* Wake what waits; returns the list to wake without the mutex. */
static struct op *take_waiting(struct pool *p)
{
	struct op *list = p->waiting;

	p->waiting = NULL;
	return list;
}

static void wake_list(struct op *list)
{
	while (list) {
		struct op *next = list->next;

		list->next = NULL;
		op_wake(list);
		list = next;
	}
}

void pool_give(struct pool *p, const uint32_t *pages, unsigned nr)
{
	struct op *wake;

	if (!nr)
		return;
	pthread_mutex_lock(&p->mutex);
	for (unsigned i = 0; i < nr; i++)
		set_free(p, &p->pages[pages[i]]);
	wake = take_waiting(p);
	pthread_mutex_unlock(&p->mutex);
	wake_list(wake);
}

void pool_assign(struct pool *p, uint32_t page, uint64_t ino, uint64_t iblock)
{
	struct page *pg = &p->pages[page];

	pthread_mutex_lock(&p->mutex);
	pg->ino = ino;
	pg->iblock = iblock;
	pthread_mutex_unlock(&p->mutex);
}

void pool_indexed(struct pool *p, uint32_t page, uint64_t ino, uint64_t iblock)
{
	struct page *pg = &p->pages[page];

	pthread_mutex_lock(&p->mutex);
	pg->ino = ino;
	pg->iblock = iblock;
	pg->state = PAGE_INDEXED;
	pthread_mutex_unlock(&p->mutex);
}

static bool pool_cancel(struct op *op)
{
	struct pool *p = op->fsd->pool;
	bool found = false;

	pthread_mutex_lock(&p->mutex);
	for (struct op **at = &p->waiting; *at; at = &(*at)->next) {
		if (*at == op) {
			*at = op->next;
			op->next = NULL;
			found = true;
			break;
		}
	}
	pthread_mutex_unlock(&p->mutex);
	return found;
}

void pool_wait(struct op *op)
{
	struct fsd *fsd = op->fsd;
	struct pool *p = fsd->pool;

	stats_inc(&fsd->stats.op_wait_pool);
	if (op->give_pages)
		op->give_pages(op);
	pthread_mutex_lock(&p->mutex);
	if (!is_short(p)) {
		/* that was what it waited for: nobody else may give any back */
		pthread_mutex_unlock(&p->mutex);
		op_wake(op);
		return;
	}
	op->cancel = pool_cancel;
	op->next = p->waiting;
	p->waiting = op;
	p->sweep_wanted = true;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->mutex);
	txn_commit(fsd, TXN_FULL, NULL, NULL);
}

bool pool_copy(struct pool *p, uint32_t page, uint64_t ino, uint64_t iblock, void *to, size_t off, size_t len)
{
	struct page *pg = &p->pages[page];
	unsigned version = atomic_load(&pg->version);
	bool ours;

	pthread_mutex_lock(&p->mutex);
	/* a held page may be a later write of this very block that is about to be indexed */
	ours = pg->state != PAGE_FREE && pg->ino == ino && pg->iblock == iblock;
	pthread_mutex_unlock(&p->mutex);
	if (!ours)
		return false;
	memcpy(to, (uint8_t *)pool_page(p, page) + off, len);
	atomic_thread_fence(memory_order_acquire);
	return atomic_load(&pg->version) == version;
}

/* ---- the index ------------------------------------------------------------------------------------ */

struct pool_key {
	uint64_t be_ino, be_iblock;
};
struct dirty_key {
	uint64_t be_gen;
	struct pool_key k;
};

static struct pool_key pool_key(uint64_t ino, uint64_t iblock)
{
	return (struct pool_key){ htobe64(ino), htobe64(iblock) };
}

int pool_find(struct itx *tx, uint64_t ino, uint64_t iblock, struct pool_rec *rec)
{
	struct pool_key k = pool_key(ino, iblock);
	MDB_val key = { sizeof(k), &k }, val;
	int rc = mdb_get(tx->txn, items_dbi(tx, TABLE_POOL), &key, &val);

	if (rc == MDB_NOTFOUND)
		return -ENOENT;
	if (rc)
		return items_error(tx, rc, "look up a page of the pool");
	memcpy(rec, val.mv_data, sizeof(*rec));
	return 0;
}

int pool_put(struct itx *tx, uint64_t ino, uint64_t iblock, uint32_t page, uint64_t blkno, bool dirty)
{
	struct pool_rec rec = { .gen = dirty ? tx->open_gen : 0, .blkno = blkno, .page = page };
	struct dirty_key d = { htobe64(tx->open_gen), pool_key(ino, iblock) };
	MDB_val key = { sizeof(d.k), &d.k }, val = { sizeof(rec), &rec };
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_POOL), &key, &val, 0);

	tx->changes++;
	if (rc == 0 && dirty) {
		key = (MDB_val){ sizeof(d), &d };
		val = (MDB_val){ 0, NULL };
		rc = mdb_put(tx->txn, items_dbi(tx, TABLE_POOL_DIRTY), &key, &val, 0);
	}
	return rc ? items_error(tx, rc, "index a page of the pool") : 0;
}

int pool_count_dirty(struct itx *tx, uint64_t *nr)
{
	struct dirty_key from = { htobe64(tx->committed_gen + 1), { 0, 0 } };
	MDB_val key = { sizeof(from), &from }, val;
	MDB_cursor *cur;
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_POOL_DIRTY), &cur);

	*nr = 0;
	if (rc)
		return items_error(tx, rc, "count dirty pages");
	for (rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE); rc == 0;
	     rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT))
		++*nr;
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : items_error(tx, rc, "count dirty pages");
}

int pool_forget(struct itx *tx, uint64_t ino, uint64_t from_iblock)
{
	struct pool_key k = pool_key(ino, from_iblock);
	MDB_val key = { sizeof(k), &k }, val;
	MDB_cursor *cur;
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_POOL), &cur);

	if (rc)
		return items_error(tx, rc, "forget pages of the pool");
	rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
	while (rc == 0 && memcmp(key.mv_data, &k.be_ino, sizeof(k.be_ino)) == 0) {
		tx->changes++;
		rc = mdb_cursor_del(cur, 0);
		if (rc == 0)
			rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);	/* after a delete: the one that follows */
	}
	mdb_cursor_close(cur);
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "forget pages of the pool") : 0;
}

/* ---- the keeper ----------------------------------------------------------------------------------- */

struct sweep {
	uint32_t batch[SWEEP_BATCH];
	struct pool_key keys[SWEEP_BATCH];
	bool gone[SWEEP_BATCH];
	unsigned nr;
	bool drop_clean;
};

/* For each page of the batch: whether its record is gone; with drop_clean, make it go if it is clean. */
static int sweep_batch(struct itx *tx, void *arg)
{
	struct sweep *s = arg;

	for (unsigned i = 0; i < s->nr; i++) {
		MDB_val key = { sizeof(s->keys[i]), &s->keys[i] }, val;
		struct pool_rec rec;
		int rc = mdb_get(tx->txn, items_dbi(tx, TABLE_POOL), &key, &val);

		s->gone[i] = rc == MDB_NOTFOUND;
		if (rc == MDB_NOTFOUND)
			continue;
		if (rc)
			return items_error(tx, rc, "look after the pool");
		memcpy(&rec, val.mv_data, sizeof(rec));
		s->gone[i] = rec.page != s->batch[i];
		if (s->gone[i] || !s->drop_clean || rec.gen > tx->committed_gen)
			continue;
		rc = mdb_del(tx->txn, items_dbi(tx, TABLE_POOL), &key, NULL);
		if (rc)
			return items_error(tx, rc, "drop a clean page of the pool");
		s->gone[i] = true;
	}
	return 0;
}

/* One pass over all pages; returns how many were freed. */
static unsigned sweep(struct pool *p, bool drop_clean)
{
	struct sweep *s = calloc(1, sizeof(*s));
	unsigned freed = 0;

	if (!s)
		return 0;
	s->drop_clean = drop_clean;
	for (uint32_t at = 0; at < p->pages_nr;) {
		struct op *wake;

		pthread_mutex_lock(&p->mutex);
		for (s->nr = 0; at < p->pages_nr && s->nr < SWEEP_BATCH; at++) {
			struct page *pg = &p->pages[at];

			if (pg->state != PAGE_INDEXED || pg->pins)
				continue;
			s->batch[s->nr] = at;
			s->keys[s->nr++] = pool_key(pg->ino, pg->iblock);
		}
		pthread_mutex_unlock(&p->mutex);
		if (!s->nr)
			continue;
		/* a write transaction sees everything that was committed before it, and nobody writes meanwhile */
		if (items_run(p->fsd, sweep_batch, s) < 0)
			break;
		pthread_mutex_lock(&p->mutex);
		for (unsigned i = 0; i < s->nr; i++) {
			struct page *pg = &p->pages[s->batch[i]];

			if (s->gone[i] && pg->state == PAGE_INDEXED && !pg->pins && !p->is_collecting) {
				set_free(p, pg);
				freed++;
			}
		}
		wake = s->nr ? take_waiting(p) : NULL;
		pthread_mutex_unlock(&p->mutex);
		wake_list(wake);
	}
	free(s);
	return freed;
}

static void *keeper(void *arg)
{
	struct pool *p = arg;

	pthread_mutex_lock(&p->mutex);
	while (!p->stopping) {
		if (!p->sweep_wanted) {
			pthread_cond_wait(&p->cond, &p->mutex);
			continue;
		}
		p->sweep_wanted = false;
		pthread_mutex_unlock(&p->mutex);
		if (!sweep(p, true))
			txn_commit(p->fsd, TXN_FULL, NULL, NULL);
		pthread_mutex_lock(&p->mutex);
		/* nothing was to be had: the commit's end wants the next sweep */
	}
	pthread_mutex_unlock(&p->mutex);
	return NULL;
}

void pool_drop(struct fsd *fsd, uint64_t first_ino, uint64_t last_ino)
{
	struct pool *p = fsd->pool;
	struct sweep *s;

	if (!p)
		return;
	s = calloc(1, sizeof(*s));
	if (!s) {
		fsd_fail(fsd, "no memory to drop cached data of a lock that is lost");
		return;
	}
	s->drop_clean = true;
	for (uint32_t at = 0; at < p->pages_nr;) {
		pthread_mutex_lock(&p->mutex);
		for (s->nr = 0; at < p->pages_nr && s->nr < SWEEP_BATCH; at++) {
			struct page *pg = &p->pages[at];

			if (pg->state == PAGE_INDEXED && pg->ino >= first_ino && pg->ino <= last_ino) {
				s->batch[s->nr] = at;
				s->keys[s->nr++] = pool_key(pg->ino, pg->iblock);
			}
		}
		pthread_mutex_unlock(&p->mutex);
		if (s->nr && items_run(fsd, sweep_batch, s) < 0)
			fsd_fail(fsd, "cached data of a lock that is lost cannot be dropped");
	}
	free(s);
	pthread_mutex_lock(&p->mutex);
	p->sweep_wanted = true;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->mutex);
}

void pool_usage(struct fsd *fsd, uint64_t *used, uint64_t *total)
{
	struct pool *p = fsd->pool;

	*used = *total = 0;
	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	*used = p->pages_nr - p->free_nr;
	*total = p->pages_nr;
	pthread_mutex_unlock(&p->mutex);
}

/* What an earlier process has indexed is the index's still; all other pages are free. */
static int take_over(struct itx *tx, void *arg)
{
	struct pool *p = arg;
	struct pool_rec rec;
	struct pool_key k;
	MDB_val key, val;
	MDB_cursor *cur;
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_POOL), &cur), ret = 0;

	if (rc)
		return items_error(tx, rc, "read the pool's index");
	while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
		memcpy(&k, key.mv_data, sizeof(k));
		memcpy(&rec, val.mv_data, sizeof(rec));
		if (rec.page >= p->pages_nr || p->pages[rec.page].state != PAGE_FREE) {
			log_err("the pool's index names page %u twice, or beyond its end", rec.page);
			ret = -EIO;
			break;
		}
		p->pages[rec.page].state = PAGE_INDEXED;
		p->pages[rec.page].ino = be64toh(k.be_ino);
		p->pages[rec.page].iblock = be64toh(k.be_iblock);
		p->free_nr--;
	}
	mdb_cursor_close(cur);
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "read the pool's index") : ret;
}

int pool_start(struct fsd *fsd)
{
	struct pool *p = calloc(1, sizeof(*p));
	size_t len;
	int ret;

	if (!p)
		return -ENOMEM;
	p->fsd = fsd;
	p->base = blkcli_pool(fsd->blk, &len);
	p->pages_nr = p->free_nr = (uint32_t)(len / SMALL_SIZE);
	p->pages = calloc(p->pages_nr ? p->pages_nr : 1, sizeof(*p->pages));
	pthread_mutex_init(&p->mutex, NULL);
	pthread_cond_init(&p->cond, NULL);
	ret = p->base && p->pages ? 0 : -ENOMEM;
	if (ret < 0)
		log_err("blockd gave no pool: restart it");
	fsd->pool = p;
	if (ret == 0)
		ret = items_run(fsd, take_over, p);
	if (ret == 0)
		ret = thread_start(&p->keeper, "pool keeper", keeper, p);
	if (ret < 0) {
		fsd->pool = NULL;
		free(p->pages);
		free(p);
	}
	return ret;
}

void pool_stop(struct fsd *fsd)
{
	struct pool *p = fsd->pool;

	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	p->stopping = true;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->mutex);
	pthread_join(p->keeper, NULL);
	fsd->pool = NULL;
	pthread_cond_destroy(&p->cond);
	pthread_mutex_destroy(&p->mutex);
	free(p->pages);
	free(p);
}

/* ---- the data of one generation -------------------------------------------------------------------- */

struct batch_page {
	uint64_t blkno;
	uint32_t page;
};
struct pool_batch {
	uint64_t gen;
	size_t nr, cap;
	struct batch_page *pages;
};

static int by_blkno(const void *a, const void *b)
{
	const struct batch_page *x = a, *y = b;

	return x->blkno < y->blkno ? -1 : x->blkno > y->blkno;
}

static int batch_add(struct fsd *fsd, struct pool_batch *pb, const struct pool_rec *rec)
{
	struct pool *p = fsd->pool;

	if (pb->nr == pb->cap) {
		size_t cap = pb->cap ? 2 * pb->cap : 1024;
		struct batch_page *more = realloc(pb->pages, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		pb->pages = more;
		pb->cap = cap;
	}
	pb->pages[pb->nr++] = (struct batch_page){ rec->blkno, rec->page };
	pthread_mutex_lock(&p->mutex);
	p->pages[rec->page].pins++;
	pthread_mutex_unlock(&p->mutex);
	return 0;
}

static void batch_free(struct fsd *fsd, struct pool_batch *pb)
{
	struct pool *p = fsd->pool;

	pthread_mutex_lock(&p->mutex);
	for (size_t i = 0; i < pb->nr; i++)
		p->pages[pb->pages[i].page].pins--;
	pthread_mutex_unlock(&p->mutex);
	free(pb->pages);
	free(pb);
}

void pool_collecting(struct fsd *fsd, bool is_collecting)
{
	struct pool *p = fsd->pool;

	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	p->is_collecting = is_collecting;
	if (!is_collecting && p->waiting) {
		/* what it would have freed meanwhile */
		p->sweep_wanted = true;
		pthread_cond_broadcast(&p->cond);
	}
	pthread_mutex_unlock(&p->mutex);
}

int pool_collect(struct itx *snapshot, uint64_t gen, struct pool_batch **out)
{
	struct dirty_key from = { .be_gen = htobe64(gen) };
	MDB_val key = { sizeof(from), &from }, val;
	struct pool_batch *pb = calloc(1, sizeof(*pb));
	MDB_cursor *cur;
	int rc, ret = 0;

	if (!pb)
		return -ENOMEM;
	pb->gen = gen;
	rc = mdb_cursor_open(snapshot->txn, items_dbi(snapshot, TABLE_POOL_DIRTY), &cur);
	if (rc) {
		free(pb);
		return items_error(snapshot, rc, "collect the dirty pages of a generation");
	}
	rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
	while (rc == 0 && ret == 0 && memcmp(key.mv_data, &from.be_gen, sizeof(from.be_gen)) == 0) {
		struct dirty_key d;
		struct pool_rec rec;

		memcpy(&d, key.mv_data, sizeof(d));
		ret = pool_find(snapshot, be64toh(d.k.be_ino), be64toh(d.k.be_iblock), &rec);
		if (ret == 0)
			ret = batch_add(snapshot->fsd, pb, &rec);
		else if (ret == -ENOENT)
			ret = 0;	/* truncated meanwhile */
		if (ret == 0)
			rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	if (ret == 0 && rc && rc != MDB_NOTFOUND)
		ret = items_error(snapshot, rc, "collect the dirty pages of a generation");
	if (ret < 0) {
		batch_free(snapshot->fsd, pb);
		return ret;
	}
	if (pb->nr)
		qsort(pb->pages, pb->nr, sizeof(*pb->pages), by_blkno);
	*out = pb;
	return 0;
}

bool pool_batch_is_empty(const struct pool_batch *pb)
{
	return pb->nr == 0;
}

int pool_write(struct fsd *fsd, struct pool_batch *pb, struct blkcli_op *rest,
	       size_t *rest_nr)
{
	size_t at = 0, nr = 0;
	int ret;

	while (at < pb->nr) {
		size_t run = 1;

		if (nr == POOL_REST_MAX) {
			ret = blkcli_run(fsd->blk, rest, nr);
			if (ret < 0)
				return ret;
			nr = 0;
		}
		/* contiguous on the device and in the pool: one write */
		while (at + run < pb->nr && run < WRITE_BYTES_MAX / SMALL_SIZE &&
		       pb->pages[at + run].blkno == pb->pages[at].blkno + run &&
		       pb->pages[at + run].page == pb->pages[at].page + run)
			run++;
		rest[nr++] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_DATA,
						 .dev_off = pb->pages[at].blkno << SMALL_SHIFT,
						 .len = (uint32_t)(run * SMALL_SIZE),
						 .buf = pool_page(fsd->pool, pb->pages[at].page) };
		stats_add(&fsd->stats.data_write_bytes, run * SMALL_SIZE);
		at += run;
	}
	*rest_nr = nr;
	return 0;
}

struct dirty_rows {
	uint64_t gen;
	bool more;
};

static int drop_dirty_rows(struct itx *tx, void *arg)
{
	struct dirty_rows *rows = arg;
	struct dirty_key from = { 0 };
	MDB_val key = { sizeof(from), &from }, val;
	MDB_cursor *cur;
	unsigned n = 0;
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_POOL_DIRTY), &cur);

	rows->more = false;
	if (rc)
		return items_error(tx, rc, "end a generation of the pool");
	rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST);
	while (rc == 0) {
		memcpy(&from, key.mv_data, sizeof(from));
		if (be64toh(from.be_gen) > rows->gen)
			break;
		if (n++ == 4 * SWEEP_BATCH) {
			rows->more = true;
			break;
		}
		rc = mdb_cursor_del(cur, 0);
		if (rc == 0)
			rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST);
	}
	mdb_cursor_close(cur);
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "end a generation of the pool") : 0;
}

struct fold_rows {
	uint64_t from, to;
	bool more;
};

static int fold_rows(struct itx *tx, void *arg)
{
	struct fold_rows *f = arg;
	struct dirty_key from = { .be_gen = htobe64(f->from) };
	MDB_val key, val;
	unsigned n = 0;
	int ret = 0, rc;

	f->more = false;
	for (;;) {
		MDB_cursor *cur;
		struct dirty_key d;
		struct pool_rec rec;

		rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_POOL_DIRTY), &cur);
		if (rc)
			break;
		key = (MDB_val){ sizeof(from), &from };
		rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
		if (rc == 0)
			memcpy(&d, key.mv_data, sizeof(d));
		if (rc || d.be_gen != from.be_gen || n++ == SWEEP_BATCH) {
			f->more = rc == 0 && d.be_gen == from.be_gen;
			mdb_cursor_close(cur);
			break;
		}
		rc = mdb_cursor_del(cur, 0);
		mdb_cursor_close(cur);
		if (rc)
			break;
		ret = pool_find(tx, be64toh(d.k.be_ino), be64toh(d.k.be_iblock), &rec);
		if (ret == -ENOENT) {
			ret = 0;	/* truncated meanwhile */
			continue;
		}
		if (ret == 0 && tx->open_gen != f->to)
			ret = -EIO;
		if (ret == 0)
			ret = pool_put(tx, be64toh(d.k.be_ino), be64toh(d.k.be_iblock), rec.page,
				       rec.blkno, true);
		if (ret < 0)
			return ret;
	}
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "join generations of the pool") : 0;
}

int pool_fold(struct fsd *fsd, uint64_t from, uint64_t to)
{
	struct fold_rows f = { .from = from, .to = to };
	int ret;

	do {
		ret = items_run(fsd, fold_rows, &f);
	} while (ret == 0 && f.more);
	return ret;
}

/* gen was committed by an earlier process. */
static void pool_clean(struct fsd *fsd, uint64_t gen)
{
	struct dirty_rows rows = { .gen = gen };

	do {
		if (items_run(fsd, drop_dirty_rows, &rows) < 0)
			fsd_fail(fsd, "the pool's index cannot be updated after a commit");
	} while (rows.more);
}

void pool_committed(struct fsd *fsd, struct pool_batch *pb)
{
	struct pool *p = fsd->pool;

	pool_clean(fsd, pb->gen);
	batch_free(fsd, pb);
	pthread_mutex_lock(&p->mutex);
	if (is_short(p) || p->waiting) {
		p->sweep_wanted = true;
		pthread_cond_broadcast(&p->cond);
	}
	pthread_mutex_unlock(&p->mutex);
}
