/*
 * The data blocks of this mount, as rows of the item cache: what may be handed out, and a log of
 * what each generation took and gave back.  runtime.md 8.5; design.md D3.
 *
 * Promises: a block is handed out once; it is handed out again only after the leader has reclaimed
 * it. The rows change in the very transaction that changes the extent items, so neither a crash nor
 * an aborted operation can make them disagree.  At any time TABLE_DAVAIL is what the committed
 * data_avail tree has, less what the generations after it have taken.
 *
 * Allocation continues where the last one ended, so that files written one after another lie one
 * after another, unless the caller names a place.
 */
#include <assert.h>
#include <errno.h>

#include "data.h"
#include "items_impl.h"
#include "locks.h"

/* A commit fetches more when less than this is left (runtime 5.2: 256 MiB). */
#define DALLOC_SHORT_BLOCKS	65536u
/* Pieces looked at for one that is long enough. */
#define DALLOC_LOOK		16u

struct dlog {
	uint64_t start, len;
	uint64_t is_alloc;
};

/* Rows of TABLE_META. */
#define META_LOW	"data_low"
#define META_NEXT	"data_next"
#define META_DLOG_NR	"dlog_nr"

static int meta_get(struct itx *tx, const char *name, uint64_t *val)
{
	MDB_val mk = mval(name, strlen(name)), mv;
	int rc = mdb_get(tx->txn, items_dbi(tx, TABLE_META), &mk, &mv);

	*val = 0;
	if (rc == 0 && mv.mv_size == sizeof(*val))
		memcpy(val, mv.mv_data, sizeof(*val));
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "allocator") : 0;
}

static int meta_put(struct itx *tx, const char *name, uint64_t val)
{
	MDB_val mk = mval(name, strlen(name)), mv = mval(&val, sizeof(val));
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_META), &mk, &mv, 0);

	tx->changes++;
	return rc ? items_error(tx, rc, "allocator") : 0;
}

static void get_extent(const MDB_val *mk, const MDB_val *mv, struct extent *ext)
{
	uint64_t be, len;

	memcpy(&be, mk->mv_data, sizeof(be));
	memcpy(&len, mv->mv_data, sizeof(len));
	*ext = (struct extent){ .start = be64toh(be), .len = le64toh(len) };
}

static int put_extent(struct itx *tx, struct extent ext)
{
	uint64_t k = htobe64(ext.start), v = htole64(ext.len);
	MDB_val mk = mval(&k, sizeof(k)), mv = mval(&v, sizeof(v));
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_DAVAIL), &mk, &mv, 0);

	tx->changes++;
	tx->davail_delta += (int64_t)ext.len;
	return rc ? items_error(tx, rc, "free blocks") : 0;
}

static int del_extent(struct itx *tx, struct extent ext)
{
	uint64_t k = htobe64(ext.start);
	MDB_val mk = mval(&k, sizeof(k));
	int rc = mdb_del(tx->txn, items_dbi(tx, TABLE_DAVAIL), &mk, NULL);

	tx->changes++;
	tx->davail_delta -= (int64_t)ext.len;
	return rc ? items_error(tx, rc, "free blocks") : 0;
}

/* Take [start, start + len) out of ext, which contains it. */
static int cut_extent(struct itx *tx, struct extent ext, uint64_t start, uint64_t len)
{
	struct extent tail = { .start = start + len, .len = ext.start + ext.len - start - len };
	int ret = del_extent(tx, ext);

	if (ret == 0 && start > ext.start)
		ret = put_extent(tx,
				 (struct extent){ .start = ext.start, .len = start - ext.start });
	if (ret == 0 && tail.len)
		ret = put_extent(tx, tail);
	return ret;
}

static int log_change(struct itx *tx, bool alloc, struct extent ext)
{
	struct dlog d = { .start = ext.start, .len = ext.len, .is_alloc = alloc };
	uint64_t row[2], n;
	MDB_val mk = mval(row, sizeof(row)), mv = mval(&d, sizeof(d));
	int ret = meta_get(tx, META_DLOG_NR, &n), rc;

	if (ret == 0)
		ret = meta_put(tx, META_DLOG_NR, n + 1);
	if (ret < 0)
		return ret;
	row[0] = htobe64(tx->open_gen);
	row[1] = htobe64(n);
	rc = mdb_put(tx->txn, items_dbi(tx, TABLE_DLOG), &mk, &mv, 0);
	tx->dlog_nr++;
	return rc ? items_error(tx, rc, "log of blocks") : 0;
}

/* ---- handing out --------------------------------------------------------------------------- */

/* The extent that contains or follows `at`; 1, 0. */
static int extent_at(struct itx *tx, MDB_cursor *mc, uint64_t at, struct extent *ext)
{
	uint64_t k = htobe64(at);
	MDB_val mk = mval(&k, sizeof(k)), mv;
	int rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE);
	MDB_val pk = mk, pv = mv;

	if (rc && rc != MDB_NOTFOUND)
		return items_error(tx, rc, "free blocks");
	if (rc == 0)
		get_extent(&mk, &mv, ext);
	if (rc == 0 && ext->start == at)
		return 1;
	if (mdb_cursor_get(mc, &pk, &pv, rc == 0 ? MDB_PREV : MDB_LAST) == 0) {
		struct extent prev;

		get_extent(&pk, &pv, &prev);
		if (prev.start + prev.len > at) {
			*ext = prev;
			return 1;
		}
		if (rc == 0 && mdb_cursor_get(mc, &pk, &pv, MDB_NEXT) != 0)
			return items_error(tx, MDB_CORRUPTED, "free blocks");
	}
	return rc == 0;
}

/* From `at` on: the first piece that is long enough, or the longest of some. */
static int look_from(struct itx *tx, MDB_cursor *mc, uint64_t at, uint64_t want,
		     struct extent *from, uint64_t *start)
{
	struct extent ext;
	uint64_t begin, best = 0;
	MDB_val mk, mv;
	int ret = extent_at(tx, mc, at, &ext), rc;

	for (unsigned i = 0; ret > 0 && i < DALLOC_LOOK; i++) {
		begin = ext.start < at ? at : ext.start;
		if (ext.start + ext.len - begin > best) {
			best = ext.start + ext.len - begin;
			*from = ext;
			*start = begin;
		}
		if (best >= want)
			break;
		rc = mdb_cursor_get(mc, &mk, &mv, MDB_NEXT);
		if (rc && rc != MDB_NOTFOUND)
			return items_error(tx, rc, "free blocks");
		if (rc)
			break;
		get_extent(&mk, &mv, &ext);
	}
	return ret < 0 ? ret : best > 0;
}

static int find_piece(struct itx *tx, uint64_t want, uint64_t hint, struct extent *from,
		      uint64_t *start)
{
	uint64_t next;
	MDB_cursor *mc;
	int ret = meta_get(tx, META_NEXT, &next);

	if (ret == 0)
		ret = items_cursor(tx, TABLE_DAVAIL, &mc);
	if (ret < 0)
		return ret;
	if (hint) {
		ret = extent_at(tx, mc, hint, from);
		if (ret > 0 && from->start <= hint) {
			*start = hint;
			mdb_cursor_close(mc);
			return 1;
		}
	}
	if (ret == 0 || ret == 1)
		ret = look_from(tx, mc, next, want, from, start);
	if (ret == 0 && next)
		ret = look_from(tx, mc, 0, want, from, start);
	mdb_cursor_close(mc);
	return ret;
}

static void want_more(struct itx *tx)
{
	struct fsd *fsd = tx->fsd;
	uint64_t before = items_davail(fsd), after = before + (uint64_t)tx->davail_delta;
	uint64_t low;

	/* Once, when the line is crossed; if the leader has no more it says LOW. */
	if (before >= DALLOC_SHORT_BLOCKS && after < DALLOC_SHORT_BLOCKS &&
	    meta_get(tx, META_LOW, &low) == 0 && !low)
		txn_sync(fsd);
}

int dalloc_get(struct itx *tx, uint64_t want, uint64_t hint, struct extent *ext)
{
	uint64_t start, len, low;
	struct extent from;
	int ret = find_piece(tx, want, hint, &from, &start);

	assert(tx->write && want);
	if (ret < 0)
		return ret;
	if (ret == 0) {
		ret = meta_get(tx, META_LOW, &low);
		if (ret < 0)
			return ret;
		if (!low && tx->op)
			return op_park(tx->op, txn_wait_room);
		return txn_no_data_space(tx, tx->op);
	}
	len = from.start + from.len - start;
	if (len > want)
		len = want;
	*ext = (struct extent){ .start = start, .len = len };
	ret = cut_extent(tx, from, start, len);
	if (ret == 0)
		ret = log_change(tx, true, *ext);
	if (ret == 0)
		ret = meta_put(tx, META_NEXT, start + len);
	if (ret == 0)
		want_more(tx);
	return ret;
}

int dalloc_put(struct itx *tx, struct extent ext)
{
	assert(tx->write && ext.len);
	tx->has_freed = true;
	return log_change(tx, false, ext);
}

uint64_t dalloc_free_blocks(struct fsd *fsd)
{
	return items_davail(fsd);
}

/* ---- for commits --------------------------------------------------------------------------- */

int dalloc_collect(struct itx *snapshot, uint64_t gen,
		   int (*each)(void *arg, bool alloc, struct extent ext), void *arg)
{
	uint64_t row[2] = { htobe64(gen), 0 };
	MDB_val mk = mval(row, sizeof(row)), mv;
	struct dlog d;
	MDB_cursor *mc;
	int ret = items_cursor(snapshot, TABLE_DLOG, &mc), rc;

	if (ret < 0)
		return ret;
	for (rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE); rc == 0 && ret == 0;
	     rc = mdb_cursor_get(mc, &mk, &mv, MDB_NEXT)) {
		if (memcmp(mk.mv_data, row, sizeof(row[0])) != 0)
			break;
		memcpy(&d, mv.mv_data, sizeof(d));
		ret = each(arg, d.is_alloc, (struct extent){ .start = d.start, .len = d.len });
	}
	mdb_cursor_close(mc);
	return ret == 0 && rc && rc != MDB_NOTFOUND ? items_error(snapshot, rc, "log of blocks")
						    : ret;
}

static int forget_log(struct itx *tx, uint64_t gen)
{
	uint64_t row[2] = { 0 };
	MDB_val mk = mval(row, sizeof(row)), mv;
	uint64_t be;
	MDB_cursor *mc;
	int ret = items_cursor(tx, TABLE_DLOG, &mc), rc;

	if (ret < 0)
		return ret;
	while ((rc = mdb_cursor_get(mc, &mk, &mv, MDB_FIRST)) == 0) {
		memcpy(&be, mk.mv_data, sizeof(be));
		if (be64toh(be) > gen)
			break;
		rc = mdb_cursor_del(mc, 0);
		if (rc)
			break;
	}
	mdb_cursor_close(mc);
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "log of blocks") : 0;
}

struct fold {
	uint64_t from, to;
	bool more;
};

static int fold_log(struct itx *tx, void *arg)
{
	struct fold *f = arg;
	uint64_t row[2];
	MDB_val mk, mv;
	struct dlog d;
	unsigned n;
	int rc = 0;

	f->more = false;
	for (n = 0; rc == 0; n++) {
		MDB_cursor *mc;
		int ret = items_cursor(tx, TABLE_DLOG, &mc);

		if (ret < 0)
			return ret;
		row[0] = htobe64(f->from);
		row[1] = 0;
		mk = mval(row, sizeof(row));
		rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE);
		if (rc == 0 && (memcmp(mk.mv_data, row, sizeof(row[0])) != 0 || n == 512)) {
			f->more = n == 512;
			mdb_cursor_close(mc);
			return 0;
		}
		if (rc == 0) {
			memcpy(row, mk.mv_data, sizeof(row));
			memcpy(&d, mv.mv_data, sizeof(d));
			rc = mdb_cursor_del(mc, 0);
		}
		mdb_cursor_close(mc);
		if (rc)
			break;
		row[0] = htobe64(f->to);
		mk = mval(row, sizeof(row));
		mv = mval(&d, sizeof(d));
		rc = mdb_put(tx->txn, items_dbi(tx, TABLE_DLOG), &mk, &mv, 0);
	}
	return rc == MDB_NOTFOUND ? 0 : items_error(tx, rc, "log of blocks");
}

int dalloc_fold(struct fsd *fsd, uint64_t from, uint64_t to)
{
	struct fold f = { .from = from, .to = to };
	int ret;

	do {
		ret = items_run(fsd, fold_log, &f);
	} while (ret == 0 && f.more);
	return ret;
}

/* What a later generation took is not free, whatever the tree says. */
static int take_again(void *arg, bool alloc, struct extent ext)
{
	struct itx *tx = arg;
	struct extent from;
	MDB_cursor *mc;
	int ret;

	if (!alloc)
		return 0;
	ret = items_cursor(tx, TABLE_DAVAIL, &mc);
	if (ret < 0)
		return ret;
	ret = extent_at(tx, mc, ext.start, &from);
	mdb_cursor_close(mc);
	if (ret < 0)
		return ret;
	if (ret == 0 || from.start > ext.start || from.start + from.len < ext.start + ext.len)
		return -EUCLEAN;
	return cut_extent(tx, from, ext.start, ext.len);
}

int dalloc_committed(struct itx *tx, uint64_t gen, const struct extent *exts, size_t nr,
		     bool refilled, bool low)
{
	int ret = forget_log(tx, gen), rc;

	if (ret == 0)
		ret = meta_put(tx, META_LOW, low);
	if (ret < 0 || !refilled)
		return ret;
	rc = mdb_drop(tx->txn, items_dbi(tx, TABLE_DAVAIL), 0);
	if (rc)
		return items_error(tx, rc, "free blocks");
	tx->davail_delta = -(int64_t)items_davail(tx->fsd);
	for (size_t i = 0; i < nr && ret == 0; i++)
		ret = put_extent(tx, exts[i]);
	for (uint64_t later = gen + 1; later <= tx->open_gen && ret == 0; later++)
		ret = dalloc_collect(tx, later, take_again, tx);
	return ret;
}
