/*
 * The item cache: its LMDB environment, transactions, and items.  The intervals that say what is
 * known, and eviction, are in items_range.c.
 *
 * Promises: a transaction shows one moment; what it wrote is there whole once items_commit returned
 * 0 and not at all otherwise, also when the process is killed at any instruction (not when the node
 * stops: the environment lies in a tmpfs and is begun anew then).  Every record lies inside a known
 * interval.  A record of a generation that may be in some tree is never removed before a marker for
 * it is committed.
 *
 * Generations: a record's mark is the one that last wrote it.  An item that is written again in a
 * later generation, read from the forest, or deleted there, is "persistent": deleting it leaves a
 * marker. Only an item that was born in the open generation vanishes without one.
 *
 * Room: the map is allocated in full at the start, because a tmpfs that fills up under a writable
 * map kills the process.  Operations wait for room before the map is full; what remains is for the
 * engine, which must be able to close and clean generations.  So "full" never reaches an
 * application.
 */
#include "items.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "items_impl.h"
#include "locks.h"
#include "log.h"
#include "names.h"
#include "op.h"
#include "reader.h"
#include "txn.h"

static const char *const table_names[TABLES_NR] = {
	[TABLE_ITEMS] = "items",	[TABLE_RANGES] = "ranges",	[TABLE_DIRTY] = "dirty",
	[TABLE_META] = "meta",		[TABLE_GENS] = "gens",		[TABLE_POOL] = "pool",
	[TABLE_POOL_DIRTY] = "pool_dirty", [TABLE_DAVAIL] = "davail",	[TABLE_DLOG] = "dlog",
	[TABLE_REPLIES] = "replies",	[TABLE_PENDING] = "pending",
	[TABLE_ADVISORY] = "advisory",	[TABLE_TMPFILES] = "tmpfiles",
};

#define META_GENS	"gens"

/* ---- the environment ----------------------------------------------------------------------- */

static int lmdb_errno(int rc)
{
	return rc > 0 ? -rc : -EIO;
}

/* Allocate the file in full without giving it a size: LMDB makes a new environment only of an empty
 * one. */
static int allocate(const char *file, size_t size)
{
	int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* keep: there must be what an earlier process has left. */
/* The order of their bytes, as LMDB's own, but in words: much of an operation is comparing keys. */
static int cmp_item_keys(const MDB_val *a, const MDB_val *b)
{
	uint64_t x, y;

	assert(a->mv_size == sizeof(struct ikey) && b->mv_size == sizeof(struct ikey));
	static_assert(sizeof(struct ikey) % sizeof(x) == 0, "keys are whole words");
	for (size_t at = 0; at < sizeof(struct ikey); at += sizeof(x)) {
		memcpy(&x, (const uint8_t *)a->mv_data + at, sizeof(x));
		memcpy(&y, (const uint8_t *)b->mv_data + at, sizeof(y));
		if (x != y)
			return be64toh(x) < be64toh(y) ? -1 : 1;
	}
	return 0;
}

/* LMDB shows a commit to snapshots by means that TSan cannot see in a library that is built without it: it is told. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define tsan_acquire(is) __tsan_acquire(is)
#define tsan_release(is) __tsan_release(is)
#else
#define tsan_acquire(is) ((void)(is))
#define tsan_release(is) ((void)(is))
#endif

static int commit_txn(struct items *is, MDB_txn *txn)
{
	tsan_release(is);
	return mdb_txn_commit(txn);
}

static int open_tables(struct items *is, bool keep)
{
	struct gens fresh = { .open = 1, .committed = 0 };
	MDB_val key = mval(META_GENS, strlen(META_GENS)), val;
	MDB_txn *txn;
	MDB_stat st;
	int rc;

	rc = mdb_txn_begin(is->env, NULL, 0, &txn);
	if (rc)
		return rc;
	for (unsigned i = 0; i < TABLES_NR && !rc; i++)
		rc = mdb_dbi_open(txn, table_names[i], MDB_CREATE, &is->dbi[i]);
	if (!rc)
		rc = mdb_set_compare(txn, is->dbi[TABLE_ITEMS], cmp_item_keys);
	if (!rc)
		rc = mdb_stat(txn, is->dbi[TABLE_META], &st);
	if (!rc) {
		is->page_bytes = st.ms_psize;
		rc = mdb_get(txn, is->dbi[TABLE_META], &key, &val);
		if (rc == MDB_NOTFOUND && !keep) {
			val = mval(&fresh, sizeof(fresh));
			rc = mdb_put(txn, is->dbi[TABLE_META], &key, &val, 0);
			is->gens = fresh;
		} else if (!rc && val.mv_size == sizeof(is->gens)) {
			memcpy(&is->gens, val.mv_data, sizeof(is->gens));
		} else if (!rc || rc == MDB_NOTFOUND) {
			rc = MDB_CORRUPTED;
		}
	}
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return commit_txn(is, txn);
}

int items_open(struct fsd *fsd, const char *path, size_t size, bool keep)
{
	struct items *is = calloc(1, sizeof(*is));
	char file[PATH_MAX], lock[PATH_MAX];
	int rc, dead;

	if (!is)
		return -ENOMEM;
	pthread_mutex_init(&is->writer, NULL);
	pthread_mutex_init(&is->idle_lock, NULL);
	pthread_mutex_init(&is->evict_lock, NULL);
	is->map_bytes = size;
	if (names_open(&is->names, size / ITEMS_NAMES_PART) < 0) {
		free(is);
		return -ENOMEM;
	}
	snprintf(file, sizeof(file), "%s/items.mdb", path);
	snprintf(lock, sizeof(lock), "%s/items.mdb-lock", path);
	if (!keep)
		unlink(file);
	/* Of a process that is dead: its locks, and its readers. */
	unlink(lock);
	rc = -allocate(file, size);
	if (rc) {
		log_err("%s: cannot allocate %zu MiB for the item cache: %s; give the runtime directory more room or lower cache_size",
			file, size >> 20, strerror(rc));
		goto out;
	}
	rc = mdb_env_create(&is->env);
	if (rc)
		goto out;
	rc = mdb_env_set_mapsize(is->env, size);
	if (!rc)
		rc = mdb_env_set_maxdbs(is->env, TABLES_NR);
	if (!rc)
		rc = mdb_env_set_maxreaders(is->env, 256);
	if (!rc)
		rc = mdb_env_open(is->env, file,
				  MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOSYNC | MDB_NOMETASYNC |
					  MDB_NOTLS | MDB_NORDAHEAD,
				  0600);
	if (!rc)
		rc = mdb_reader_check(is->env, &dead);
	if (!rc)
		rc = open_tables(is, keep);
	if (rc)
		log_err("%s: the item cache cannot be opened: %s", file, mdb_strerror(rc));
out:
	if (rc) {
		if (is->env)
			mdb_env_close(is->env);
		/* What the system could not do now it may do later; LMDB's own errors are of what is in the file. */
		if (!keep || rc < 0)
			unlink(file);
		unlink(lock);
		names_close(is->names);
		free(is);
		return lmdb_errno(rc);
	}
	atomic_store(&is->open_gen, is->gens.open);
	fsd->items = is;
	return 0;
}

void items_close(struct fsd *fsd)
{
	struct items *is = fsd->items;

	if (!is)
		return;
	while (is->idle_nr)
		mdb_txn_abort(is->idle[--is->idle_nr]);
	mdb_env_close(is->env);
	names_close(is->names);
	free(is);
	fsd->items = NULL;
}

MDB_dbi items_dbi(const struct itx *tx, enum items_table table)
{
	return tx->fsd->items->dbi[table];
}

/* ---- transactions -------------------------------------------------------------------------- */

int items_error(struct itx *tx, int rc, const char *what)
{
	bool full = rc == MDB_MAP_FULL || rc == MDB_TXN_FULL || rc == ENOSPC;

	if (!tx->err)
		tx->err = full ? -ENOSPC : -EIO;
	if (!full) {
		log_err("item cache: %s: %s; restart this mount", what, mdb_strerror(rc));
		return -EIO;
	}
	if (!tx->op)
		return -ENOSPC;
	return op_park(tx->op, txn_wait_room);
}

bool items_is_full(struct items *is)
{
	return atomic_load(&is->used) > is->map_bytes / 100 * ITEMS_FULL_PERCENT;
}

bool items_is_tight(struct fsd *fsd)
{
	return atomic_load(&fsd->items->used) > fsd->items->map_bytes / 100 * ITEMS_LOW_PERCENT;
}

void items_measure(struct itx *tx)
{
	struct items *is = tx->fsd->items;
	uint64_t pages = 0;
	MDB_stat st;

	for (unsigned i = 0; i < TABLES_NR; i++) {
		if (mdb_stat(tx->txn, is->dbi[i], &st) == 0)
			pages += st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
	}
	atomic_store(&is->used, pages * is->page_bytes);
	is->used_age = 0;
}

static int snapshot_begin(struct items *is, MDB_txn **txn)
{
	int rc;

	*txn = NULL;
	pthread_mutex_lock(&is->idle_lock);
	if (is->idle_nr)
		*txn = is->idle[--is->idle_nr];
	pthread_mutex_unlock(&is->idle_lock);
	rc = *txn ? mdb_txn_renew(*txn) : mdb_txn_begin(is->env, NULL, MDB_RDONLY, txn);
	tsan_acquire(is);
	return rc;
}

static void snapshot_end(struct items *is, MDB_txn *txn)
{
	mdb_txn_reset(txn);
	pthread_mutex_lock(&is->idle_lock);
	if (is->idle_nr < ITEMS_SNAPSHOTS_IDLE) {
		is->idle[is->idle_nr++] = txn;
		txn = NULL;
	}
	pthread_mutex_unlock(&is->idle_lock);
	if (txn)
		mdb_txn_abort(txn);
}

static int snapshot_gens(struct itx *tx)
{
	MDB_val key = mval(META_GENS, strlen(META_GENS)), val;
	struct gens g;
	int rc = mdb_get(tx->txn, items_dbi(tx, TABLE_META), &key, &val);

	if (rc || val.mv_size != sizeof(g))
		return rc ? rc : MDB_CORRUPTED;
	memcpy(&g, val.mv_data, sizeof(g));
	tx->open_gen = g.open;
	tx->committed_gen = g.committed;
	return 0;
}

static int begin_snapshot(struct fsd *fsd, struct op *op, struct itx *tx)
{
	struct items *is = fsd->items;
	int rc;

	*tx = (struct itx){ .fsd = fsd, .op = op };
	rc = snapshot_begin(is, &tx->txn);
	if (!rc) {
		rc = snapshot_gens(tx);
		if (rc)
			snapshot_end(is, tx->txn);
	}
	if (rc) {
		log_err("item cache: a snapshot cannot begin: %s; restart this mount", mdb_strerror(rc));
		return -EIO;
	}
	return 0;
}

int items_begin(struct fsd *fsd, struct op *op, bool write, struct itx *tx)
{
	struct items *is = fsd->items;
	int rc;

	if (!write)
		return begin_snapshot(fsd, op, tx);
	*tx = (struct itx){ .fsd = fsd, .op = op, .write = true };
	pthread_mutex_lock(&is->writer);
	rc = mdb_txn_begin(is->env, NULL, 0, &tx->txn);
	if (rc) {
		pthread_mutex_unlock(&is->writer);
		log_err("item cache: a transaction cannot begin: %s; restart this mount", mdb_strerror(rc));
		return -EIO;
	}
	is->noted_nr = 0;
	tx->open_gen = is->gens.open;
	tx->committed_gen = is->gens.committed;
	if (++is->used_age >= 64)
		items_measure(tx);
	return 0;
}

static void count_dirty(struct itx *tx)
{
	struct dirty_count *d = &tx->fsd->items->dirty[tx->open_gen & 1];

	if (tx->dirty_nr || tx->dlog_nr) {
		atomic_fetch_add(&d->bytes, tx->dirty_bytes);
		atomic_fetch_add(&d->nr, tx->dirty_nr);
		atomic_fetch_add(&d->dlog_nr, tx->dlog_nr);
		atomic_store(&d->any, true);
	}
	atomic_fetch_add(&tx->fsd->items->davail, tx->davail_delta);
	if (tx->has_freed)
		tx->fsd->items->freed_gen = tx->open_gen;
}

/* Cursors end before their transaction. */
static void close_near(struct itx *tx)
{
	if (tx->items_mc)
		mdb_cursor_close(tx->items_mc);
	if (tx->ranges_mc)
		mdb_cursor_close(tx->ranges_mc);
	tx->items_mc = tx->ranges_mc = NULL;
}

int items_commit(struct itx *tx)
{
	struct items *is = tx->fsd->items;
	struct gens g = { .open = tx->open_gen, .committed = tx->committed_gen };
	int rc;

	if (!tx->write) {
		close_near(tx);
		snapshot_end(is, tx->txn);
		return 0;
	}
	if (!tx->err)
		dirty_flush(tx);
	if (tx->err) {
		items_abort(tx);
		return tx->err;
	}
	close_near(tx);
	rc = commit_txn(is, tx->txn);
	if (!rc) {
		count_dirty(tx);
		is->gens = g;
	}
	pthread_mutex_unlock(&is->writer);
	if (!rc)
		return 0;
	if (rc == MDB_MAP_FULL || rc == ENOSPC)
		return -ENOSPC;
	log_err("item cache: a transaction cannot be committed: %s; restart this mount", mdb_strerror(rc));
	return -EIO;
}

void items_abort(struct itx *tx)
{
	struct items *is = tx->fsd->items;

	close_near(tx);
	if (!tx->write) {
		snapshot_end(is, tx->txn);
		return;
	}
	mdb_txn_abort(tx->txn);
	pthread_mutex_unlock(&is->writer);
}

int items_run(struct fsd *fsd, int (*fn)(struct itx *tx, void *arg), void *arg)
{
	struct itx tx;
	int ret;

	for (;;) {
		ret = items_begin(fsd, NULL, true, &tx);
		if (ret < 0)
			return ret;
		ret = fn(&tx, arg);
		if (ret < 0)
			items_abort(&tx);
		else
			ret = items_commit(&tx);
		if (ret != -ENOSPC)
			return ret;
		items_make_room(fsd);
	}
}

/* ---- generations --------------------------------------------------------------------------- */

static int put_gens(struct itx *tx)
{
	struct gens g = { .open = tx->open_gen, .committed = tx->committed_gen };
	MDB_val key = mval(META_GENS, strlen(META_GENS)), val = mval(&g, sizeof(g));
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_META), &key, &val, 0);

	return rc ? items_error(tx, rc, "generations") : 0;
}

static void get_dirty(struct dirty_count *d, struct items_dirty *out)
{
	*out = (struct items_dirty){ .bytes = atomic_load(&d->bytes), .nr = atomic_load(&d->nr),
				     .dlog_nr = atomic_load(&d->dlog_nr), .any = atomic_load(&d->any) };
}

int items_close_gen(struct fsd *fsd, uint64_t *gen, struct itx *snap,
		    void (*closed)(void *arg, const struct items_dirty *dirty), void *arg)
{
	struct items *is = fsd->items;
	struct items_dirty dirty;
	struct dirty_count *d;
	struct itx tx;
	int ret;

	ret = items_begin(fsd, NULL, true, &tx);
	if (ret < 0)
		return ret;
	assert(tx.committed_gen + 1 == tx.open_gen);
	*gen = tx.open_gen++;
	ret = put_gens(&tx);
	if (ret < 0) {
		items_abort(&tx);
		return ret;
	}
	/* As items_commit, but nobody may write before the snapshot is taken. */
	ret = commit_txn(is, tx.txn);
	if (ret == 0) {
		is->gens.open = tx.open_gen;
		atomic_store(&is->open_gen, tx.open_gen);
		d = &is->dirty[tx.open_gen & 1];
		atomic_store(&d->bytes, 0);
		atomic_store(&d->nr, 0);
		atomic_store(&d->dlog_nr, 0);
		atomic_store(&d->any, false);
		get_dirty(&is->dirty[*gen & 1], &dirty);
		closed(arg, &dirty);
		ret = begin_snapshot(fsd, NULL, snap);
		if (ret < 0)
			fsd_fail(fsd, "generation %llu is closed but cannot be read",
				 (unsigned long long)*gen);
	} else {
		ret = ret == MDB_MAP_FULL || ret == ENOSPC ? -ENOSPC : -EIO;
	}
	pthread_mutex_unlock(&is->writer);
	return ret;
}

uint64_t items_open_gen(struct fsd *fsd)
{
	return atomic_load(&fsd->items->open_gen);
}

int items_set_committed(struct itx *tx, uint64_t gen)
{
	assert(gen == tx->committed_gen + 1);
	assert(gen < tx->open_gen);
	tx->committed_gen = gen;
	return put_gens(tx);
}

static void dirty_of(struct items *is, const struct gens *g, struct items_dirty *open,
		     struct items_dirty *closed)
{
	get_dirty(&is->dirty[g->open & 1], open);
	*closed = (struct items_dirty){ 0 };
	if (g->committed + 1 < g->open)
		get_dirty(&is->dirty[(g->open + 1) & 1], closed);
}

void items_dirty(struct fsd *fsd, struct items_dirty *open, struct items_dirty *closed)
{
	struct items *is = fsd->items;

	pthread_mutex_lock(&is->writer);
	dirty_of(is, &is->gens, open, closed);
	pthread_mutex_unlock(&is->writer);
}

void items_dirty_in(const struct itx *tx, struct items_dirty *open, struct items_dirty *closed)
{
	struct gens g = { .open = tx->open_gen, .committed = tx->committed_gen };

	dirty_of(tx->fsd->items, &g, open, closed);
}

uint64_t items_freed_gen(const struct itx *tx)
{
	assert(tx->write);
	return tx->fsd->items->freed_gen;
}

uint64_t items_davail(struct fsd *fsd)
{
	int64_t nr = atomic_load(&fsd->items->davail);

	return nr > 0 ? (uint64_t)nr : 0;
}

void items_usage(struct fsd *fsd, uint64_t *used_bytes, uint64_t *size_bytes)
{
	*used_bytes = atomic_load(&fsd->items->used);
	*size_bytes = fsd->items->map_bytes;
}

/* ---- records ------------------------------------------------------------------------------- */

int items_cursor(struct itx *tx, enum items_table table, MDB_cursor **mc)
{
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, table), mc);

	return rc ? items_error(tx, rc, "cursor") : 0;
}

int items_near(struct itx *tx, enum items_table table, MDB_cursor **mc)
{
	MDB_cursor **near = table == TABLE_ITEMS ? &tx->items_mc : &tx->ranges_mc;
	int ret = *near ? 0 : items_cursor(tx, table, near);

	*mc = *near;
	return ret;
}

int rec_get(struct itx *tx, const struct key *key, const struct item_rec **rec)
{
	struct ikey k = ikey_of(key);
	MDB_val mk = mval(k.b, sizeof(k.b)), mv;
	MDB_cursor *mc;
	int ret = items_near(tx, TABLE_ITEMS, &mc), rc;

	if (ret < 0)
		return ret;
	rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET);
	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return items_error(tx, rc, "look-up");
	*rec = mv.mv_data;
	return 1;
}

int rec_step(struct itx *tx, MDB_cursor *mc, MDB_cursor_op how, struct key *at,
	     const struct item_rec **rec)
{
	MDB_val mk, mv;
	int rc = mdb_cursor_get(mc, &mk, &mv, how);

	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return items_error(tx, rc, "walk");
	*at = key_from_sortable(mk.mv_data);
	*rec = mv.mv_data;
	return 1;
}

int rec_seek(struct itx *tx, MDB_cursor *mc, const struct key *key, struct key *at,
	     const struct item_rec **rec)
{
	struct ikey k = ikey_of(key);
	MDB_val mk = mval(k.b, sizeof(k.b)), mv;
	int rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE);

	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return items_error(tx, rc, "walk");
	*at = key_from_sortable(mk.mv_data);
	*rec = mv.mv_data;
	return 1;
}

static size_t rec_bytes(size_t len)
{
	return sizeof(struct item_rec) + ((len + ITEM_REC_ALIGN - 1) & ~(size_t)(ITEM_REC_ALIGN - 1));
}

/* is_found: rec_get has just found it, so the cursor stands there and need not look again. */
static int rec_put_room(struct itx *tx, const struct key *key, bool is_found, uint64_t mark,
			uint8_t flags, const void *val, size_t len, size_t room)
{
	size_t bytes = rec_bytes(len > room ? len : room);
	struct ikey k = ikey_of(key);
	MDB_val mk = mval(k.b, sizeof(k.b)), mv = mval(NULL, bytes);
	uint8_t copy[sizeof(struct item_rec) + ITEM_CACHED_MAX] __attribute__((aligned(8)));
	struct item_rec *rec = (struct item_rec *)copy;
	MDB_cursor *mc;
	int ret = items_near(tx, TABLE_ITEMS, &mc), rc;

	if (ret < 0)
		return ret;
	/* val may point into the very record that is replaced, so it is copied first. */
	assert(bytes <= sizeof(copy));
	memset(copy, 0, sizeof(*rec));
	rec->mark = mark;
	rec->flags = flags;
	rec->len = (uint16_t)len;
	if (len)
		memcpy(rec->val, val, len);
	memset(rec->val + len, 0, bytes - sizeof(*rec) - len);
	mv.mv_data = copy;
	tx->changes++;
	rc = mdb_cursor_put(mc, &mk, &mv, is_found ? MDB_CURRENT : 0);
	return rc ? items_error(tx, rc, "write") : 0;
}

int rec_put(struct itx *tx, const struct key *key, uint64_t mark, uint8_t flags, const void *val,
	    size_t len)
{
	return rec_put_room(tx, key, false, mark, flags, val, len, 0);
}

int rec_put_found(struct itx *tx, const struct key *key, uint64_t mark, uint8_t flags, const void *val,
		  size_t len)
{
	return rec_put_room(tx, key, true, mark, flags, val, len, 0);
}

int rec_del_found(struct itx *tx)
{
	int rc;

	tx->changes++;
	rc = mdb_cursor_del(tx->items_mc, 0);
	return rc ? items_error(tx, rc, "removal") : 0;
}

/* ---- reading ------------------------------------------------------------------------------- */

static int not_known(struct itx *tx, const struct key *key)
{
	if (!tx->op)
		return -EAGAIN;
	tx->op->need.items = *key;
	return op_park(tx->op, reader_wait);
}

static void note_recent(struct itx *tx, const struct key *key)
{
	_Atomic uint8_t *r = &tx->fsd->items->recent[items_recent_hash(key)];

	if (!atomic_load_explicit(r, memory_order_relaxed))
		atomic_store_explicit(r, 1, memory_order_relaxed);
}

static int give(struct itx *tx, const struct key *key, const struct item_rec *rec, struct ival *iv)
{
	note_recent(tx, key);
	if (rec->flags & ITEM_REC_BAD)
		return -EIO;
	*iv = (struct ival){ .key = *key, .val = rec->val, .len = rec->len, .mark = rec->mark,
			     .flags = rec->flags };
	stats_inc(&tx->fsd->stats.item_hits);
	return 0;
}

int item_get(struct itx *tx, const struct key *key, struct ival *iv)
{
	const struct item_rec *rec;
	struct key first, last;
	int ret;

	assert(!tx->op || lock_covers(tx->op, key, false));
	ret = rec_get(tx, key, &rec);
	if (ret < 0)
		return ret;
	if (ret)
		return rec->flags & ITEM_REC_DELETED ? -ENOENT : give(tx, key, rec, iv);
	ret = range_find(tx, key, &first, &last);
	if (ret < 0)
		return ret;
	return ret ? -ENOENT : not_known(tx, key);
}

/* The first live record in [from, last]; 1, 0 or an error. */
static int first_live(struct itx *tx, const struct key *from, const struct key *last,
		      struct key *at, const struct item_rec **rec)
{
	MDB_cursor *mc;
	int ret = items_near(tx, TABLE_ITEMS, &mc);

	if (ret < 0)
		return ret;
	for (ret = rec_seek(tx, mc, from, at, rec); ret > 0;
	     ret = rec_step(tx, mc, MDB_NEXT, at, rec)) {
		if (key_cmp(at, last) > 0) {
			ret = 0;
			break;
		}
		if (!((*rec)->flags & ITEM_REC_DELETED))
			break;
	}
	return ret;
}

int item_next(struct itx *tx, const struct key *key, const struct key *last, struct ival *iv)
{
	const struct item_rec *rec;
	struct key at, from = *key, first, end;
	int ret;

	if (key_cmp(key, last) > 0)
		return -ENOENT;
	assert(!tx->op || lock_covers(tx->op, key, false));
	assert(!tx->op || lock_covers(tx->op, last, false));
	for (;;) {
		ret = range_find(tx, &from, &first, &end);
		if (ret < 0)
			return ret;
		if (!ret)
			return not_known(tx, &from);
		if (key_cmp(&end, last) > 0)
			end = *last;
		ret = first_live(tx, &from, &end, &at, &rec);
		if (ret < 0)
			return ret;
		if (ret)
			return give(tx, &at, rec, iv);
		if (key_eq(&end, last)) {
			note_recent(tx, key);
			return -ENOENT;
		}
		from = key_next(end);
	}
}

/* ---- writing ------------------------------------------------------------------------------- */

/* What an item costs in the log tree at most: with an inode item go four index items and an orphan item. */
#define ITEM_TREE_BYTES		64u
#define INODE_INDEX_BYTES	(5u * 56u)

static int may_write(struct itx *tx, const struct key *key)
{
	assert(tx->write);
	assert(key->zone != ZONE_INODE_INDEX);
	assert(!tx->op || lock_covers(tx->op, key, true));
	if (tx->op && items_is_full(tx->fsd->items))
		return items_error(tx, MDB_MAP_FULL, "cache");
	return 0;
}

/* Names are written once, and the kernel keeps them: only asking for one shows that it is of use. */
static void note_written(struct itx *tx, const struct key *key)
{
	if (key->zone == ZONE_FS && key->type >= TYPE_DIRENT && key->type <= TYPE_LINK_BACKREF)
		return;
	note_recent(tx, key);
}

/*
 * The record, which rec_get has just found or not, becomes dirty in the open generation.  room: bytes of value
 * that it takes at least; a record that keeps its size is written where it is, without moving its page's others.
 */
static int write_dirty(struct itx *tx, const struct key *key, bool is_found, bool is_dirty_already,
		       uint8_t flags, const void *val, size_t len, size_t room)
{
	int ret;

	tx->dirty_bytes += len + ITEM_TREE_BYTES;
	if (!is_dirty_already) {
		tx->dirty_nr++;
		if (key->zone == ZONE_FS && key->type == TYPE_INODE)
			tx->dirty_bytes += INODE_INDEX_BYTES;
		txn_touch(tx, key, val, len);
		ret = dirty_note(tx, key);
		if (ret < 0)
			return ret;
	}
	return rec_put_room(tx, key, is_found, tx->open_gen, flags, val, len, room);
}

static int recount(struct itx *tx, void *arg)
{
	struct dirty_count *d = arg;
	uint64_t row[2] = { htobe64(tx->open_gen), 0 }, bytes = 0, nr = 0, dlog_nr = 0;
	MDB_val mk = mval(row, sizeof(row)), mv;
	const struct item_rec *rec;
	struct key *keys;
	size_t keys_nr;
	MDB_cursor *mc;
	int rc, ret = items_dirty_list(tx, tx->open_gen, &keys, &keys_nr);

	for (size_t i = 0; i < keys_nr && ret >= 0; i++) {
		ret = rec_get(tx, &keys[i], &rec);
		if (ret <= 0 || rec->mark != tx->open_gen)
			continue;
		nr++;
		bytes += rec->len + ITEM_TREE_BYTES;
		if (keys[i].zone == ZONE_FS && keys[i].type == TYPE_INODE)
			bytes += INODE_INDEX_BYTES;
		txn_touch(tx, &keys[i], rec->val, rec->len);
	}
	free(keys);
	if (ret >= 0)
		ret = items_cursor(tx, TABLE_DLOG, &mc);
	if (ret < 0)
		return ret;
	mk = mval(row, sizeof(row));
	for (rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE); rc == 0;
	     rc = mdb_cursor_get(mc, &mk, &mv, MDB_NEXT))
		dlog_nr++;
	mdb_cursor_close(mc);
	if (rc != MDB_NOTFOUND)
		return items_error(tx, rc, "log of blocks");
	atomic_store(&d->bytes, bytes);
	atomic_store(&d->nr, nr);
	atomic_store(&d->dlog_nr, dlog_nr);
	atomic_store(&d->any, nr || dlog_nr);
	items_measure(tx);
	return 0;
}

int items_recount(struct fsd *fsd)
{
	struct items *is = fsd->items;

	assert(is->gens.open == is->gens.committed + 1);
	return items_run(fsd, recount, &is->dirty[is->gens.open & 1]);
}

/* replace: an item may be there, and the caller has seen to it that the key is known. */
static int put(struct itx *tx, const struct key *key, const void *val, size_t len, bool replace)
{
	const struct item_rec *rec;
	struct key first, last;
	bool is_dirty = false, is_found;
	uint8_t flags = 0;
	int ret = may_write(tx, key);

	if (ret < 0)
		return ret;
	ret = rec_get(tx, key, &rec);
	if (ret < 0)
		return ret;
	is_found = ret;
	if (is_found) {
		if (!replace && !(rec->flags & ITEM_REC_DELETED))
			return rec->flags & ITEM_REC_BAD ? -EIO : -EEXIST;
		is_dirty = rec->mark == tx->open_gen;
		flags = rec->flags & ITEM_REC_PERSISTENT;
		if (!is_dirty)
			flags |= ITEM_REC_PERSISTENT;
	} else {
		ret = range_find(tx, key, &first, &last);
		if (ret < 0)
			return ret;
		if (!ret && !replace)
			return not_known(tx, key);
		assert(ret == 1);
	}
	note_written(tx, key);
	return write_dirty(tx, key, is_found, is_dirty, flags, val, len, 0);
}

int item_put(struct itx *tx, const struct key *key, const void *val, size_t len)
{
	return put(tx, key, val, len, true);
}

int item_insert(struct itx *tx, const struct key *key, const void *val, size_t len)
{
	return put(tx, key, val, len, false);
}

int item_delete(struct itx *tx, const struct key *key, const void *keep_val, size_t keep_len)
{
	const struct item_rec *rec;
	struct key first, last;
	bool is_dirty;
	int ret = may_write(tx, key);

	if (ret < 0)
		return ret;
	ret = rec_get(tx, key, &rec);
	if (ret < 0)
		return ret;
	if (ret == 0) {
		ret = range_find(tx, key, &first, &last);
		if (ret < 0)
			return ret;
		return ret ? -ENOENT : not_known(tx, key);
	}
	if (rec->flags & ITEM_REC_DELETED)
		return -ENOENT;
	if (rec->flags & ITEM_REC_BAD)
		return -EIO;
	is_dirty = rec->mark == tx->open_gen;
	if (is_dirty && !(rec->flags & ITEM_REC_PERSISTENT))
		return rec_del_found(tx);
	return write_dirty(tx, key, true, is_dirty, ITEM_REC_DELETED | ITEM_REC_PERSISTENT, keep_val,
			   keep_len, rec->len);
}

int items_set_known(struct itx *tx, const struct key *first, const struct key *last)
{
	assert(tx->write);
	return range_add(tx, first, last);
}
