/*
 * read, write, fallocate, lseek.
 *
 * A write copies into pool pages, maps blocks for what had none, and changes the inode, in one
 * transaction; then it is answered.  The data goes to the device with the commit (txn.c).  Pages for it
 * are taken before the transaction and belong to the operation until it has committed.
 *
 * A read looks at pool and extents in one snapshot.  What must come from the device is read without the
 * snapshot and then judged against a second one: if the extents are still the same, the bytes are the
 * file's; if not it begins again.  So it holds nothing while it waits but its lock.
 */
#include "ops_file.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkcli.h"
#include "fuse.h"
#include "locks.h"
#include "log.h"
#include "orphan.h"
#include "pending.h"
#include "pool.h"
#include "quota.h"

#define READ_SEGS_MAX		264	/* a request is at most 257 blocks */
#define WRITE_PAGES_MAX		264
#define FALLOCATE_BLOCKS	32768	/* 128 MiB in one transaction (runtime 0.4) */
#define FALLOCATE_EXTENTS	8

/* ---- read ------------------------------------------------------------------------------------------- */

/* A range that comes from the device. */
struct seg {
	uint64_t blkno;
	uint32_t at;		/* in the buffer, bytes from its aligned start */
	uint32_t blocks;
};

struct read_op {
	struct op op;
	struct file_req *rq;
	uint64_t first;		/* block at the start of buf */
	uint8_t *buf;		/* whole blocks */
	uint64_t len;		/* bytes to answer, from rq->offset */
	struct seg segs[READ_SEGS_MAX], have[READ_SEGS_MAX];
	unsigned segs_nr, have_nr;
	bool did_io;
	int io_err;
};

static void read_io(void *arg)
{
	struct read_op *r = arg;
	struct fsd *fsd = r->op.fsd;
	struct blkcli_op ops[READ_SEGS_MAX];
	int ret;

	for (unsigned i = 0; i < r->segs_nr; i++) {
		ops[i] = (struct blkcli_op){ .op = BLK_OP_READ, .dev = BLK_DEV_DATA,
					     .dev_off = r->segs[i].blkno << SMALL_SHIFT,
					     .len = r->segs[i].blocks << SMALL_SHIFT, .buf = r->buf + r->segs[i].at };
		stats_add(&fsd->stats.data_read_bytes, ops[i].len);
	}
	ret = blkcli_run(fsd->blk, ops, r->segs_nr);
	if (ret < 0)
		log_err("reading file data of inode %llu failed: %s; see blockd's messages about %s",
			(unsigned long long)r->rq->ino, strerror(-ret), fsd->conf.data_device);
	r->io_err = ret < 0 ? -EIO : 0;
	memcpy(r->have, r->segs, sizeof(r->segs[0]) * r->segs_nr);
	r->have_nr = r->segs_nr;
	r->did_io = true;
	op_wake(&r->op);
}

static void wait_read_io(struct op *op)
{
	op->cancel = NULL;
	ops_defer(op->fsd, read_io, op);
}

static void wait_again(struct op *op)
{
	op->cancel = NULL;
	op_wake(op);
}

static int add_seg(struct read_op *r, uint64_t blkno, uint32_t at)
{
	struct seg *last = r->segs_nr ? &r->segs[r->segs_nr - 1] : NULL;

	if (last && last->blkno + last->blocks == blkno && last->at + (last->blocks << SMALL_SHIFT) == at) {
		last->blocks++;
		return 0;
	}
	if (r->segs_nr == READ_SEGS_MAX)
		return -EIO;
	r->segs[r->segs_nr++] = (struct seg){ blkno, at, 1 };
	return 0;
}

static int read_run(struct op *op, struct itx *tx)
{
	struct read_op *r = (struct read_op *)op;
	struct file_req *rq = r->rq;
	struct data_extent ext = { 0 };
	bool have_ext = false, no_more = false;
	struct cinode ci;
	uint64_t end, last;
	int ret;

	ret = data_wait_pending(op, rq->ino, false);
	if (ret == 0)
		ret = lock_inode(op, rq->ino, LOCK_MODE_READ);
	if (ret == 0)
		ret = inode_get(tx, rq->ino, &ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	r->len = 0;
	r->segs_nr = 0;
	if (rq->offset >= inode_size(&ci))
		return 0;
	r->len = inode_size(&ci) - rq->offset < rq->len ? inode_size(&ci) - rq->offset : rq->len;
	end = rq->offset + r->len;
	last = (end - 1) >> SMALL_SHIFT;

	for (uint64_t b = r->first; b <= last; b++) {
		uint32_t at = (uint32_t)((b - r->first) << SMALL_SHIFT);
		struct pool_rec rec;

		ret = pool_find(tx, rq->ino, b, &rec);
		if (ret == 0) {
			if (!pool_copy(op->fsd->pool, rec.page, rq->ino, b, r->buf + at, 0, SMALL_SIZE))
				return op_park(op, wait_again);
			continue;
		}
		if (ret != -ENOENT)
			return ret;
		if (!no_more && (!have_ext || ext.iblock + ext.len <= b)) {
			ret = extent_next(tx, rq->ino, b, &ext);
			if (ret < 0 && ret != -ENOENT)
				return ret;
			no_more = ret == -ENOENT;
			have_ext = ret == 0;
		}
		if (no_more || !extent_has(&ext, b) || (ext.flags == EXTENT_FLAG_UNWRITTEN)) {
			memset(r->buf + at, 0, SMALL_SIZE);
		} else if (extent_is_offline(&ext)) {
			log_notice("inode %llu: reading data that is offline: there is no archive agent in this version to bring it back",
				   (unsigned long long)rq->ino);
			return -EIO;
		} else {
			ret = add_seg(r, ext.blkno + (b - ext.iblock), at);
			if (ret < 0)
				return ret;
		}
	}
	if (!r->segs_nr)
		return 0;
	if (r->did_io && r->have_nr == r->segs_nr && memcmp(r->have, r->segs, sizeof(r->segs[0]) * r->segs_nr) == 0)
		return r->io_err;
	return op_park(op, wait_read_io);
}

static void read_done(struct op *op, int err)
{
	struct read_op *r = (struct read_op *)op;
	struct file_req *rq = r->rq;

	fuse_op_done(rq->req, op);
	if (err) {
		fuse_reply_err(rq->req, -err);
	} else {
		inode_give_begin(op->fsd, rq->ino);
		fuse_reply_buf(rq->req, (char *)r->buf + (rq->offset - (r->first << SMALL_SHIFT)), r->len);
		inode_give_end(op->fsd);
	}
	free(r->buf);
	free(rq);
	free(r);
}

void op_read(struct fsd *fsd, struct file_req *rq)
{
	struct read_op *r = calloc(1, sizeof(*r));
	uint64_t blocks = ((rq->offset & (SMALL_SIZE - 1)) + rq->len + SMALL_SIZE - 1) >> SMALL_SHIFT;

	if (r)
		r->buf = aligned_alloc(SMALL_SIZE, (blocks ? blocks : 1) << SMALL_SHIFT);
	if (!r || !r->buf) {
		fuse_reply_err(rq->req, ENOMEM);
		free(r);
		free(rq);
		return;
	}
	r->op.fsd = fsd;
	r->op.name = "read";
	r->op.notes_itself = true;
	r->op.run = read_run;
	r->op.done = read_done;
	r->rq = rq;
	r->first = rq->offset >> SMALL_SHIFT;
	fuse_op_start(rq->req, &r->op);
}

/* ---- write ------------------------------------------------------------------------------------------ */

struct write_op {
	struct op op;
	struct file_req *rq;
	uint32_t pages[WRITE_PAGES_MAX];	/* the operation's own */
	unsigned pages_nr;
	struct { uint32_t page; uint64_t iblock; } used[WRITE_PAGES_MAX];	/* of them, by this run */
	unsigned used_nr;
	uint64_t offset, len;			/* what this run wrote */
	bool dropped_suidgid;
	uint64_t pending_id;			/* it is answered, and lies in the cache under that */
};

/* ---- pending writes in the cache: TABLE_PENDING ---- */

/* Its bytes follow. */
struct pending_rec {
	uint64_t ino, offset;
};

static MDB_val pending_key(uint64_t id, uint64_t *be)
{
	*be = htobe64(id);
	return (MDB_val){ sizeof(*be), be };
}

static int put_pending(struct itx *tx, void *arg)
{
	struct write_op *w = arg;
	uint64_t be;
	MDB_val mk = pending_key(w->pending_id, &be), mv = { sizeof(struct pending_rec) + w->rq->len, NULL };
	struct pending_rec rec = { .ino = w->rq->ino, .offset = w->rq->offset };
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_PENDING), &mk, &mv, MDB_RESERVE);

	if (rc)
		return items_error(tx, rc, "pending write");
	memcpy(mv.mv_data, &rec, sizeof(rec));
	memcpy((uint8_t *)mv.mv_data + sizeof(rec), w->rq->buf, w->rq->len);
	return 0;
}

static int del_pending(struct itx *tx, void *arg)
{
	struct write_op *w = arg;
	uint64_t be;
	MDB_val mk = pending_key(w->pending_id, &be);
	int rc = mdb_del(tx->txn, items_dbi(tx, TABLE_PENDING), &mk, NULL);

	tx->changes++;
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "pending write") : 0;
}

/* Store the write so that it can be answered before it is applied. */
static int keep_pending(struct write_op *w)
{
	int ret;

	w->pending_id = pending_new_id();
	ret = items_run(w->op.fsd, put_pending, w);
	if (ret < 0)
		w->pending_id = 0;
	return ret;
}

/*
 * A write from a mapping that needs a lock.  The kernel may wait for this page while it holds what a
 * revoke waits for: it must not wait for us.
 */
static void wait_lock_answered(struct op *op)
{
	struct write_op *w = (struct write_op *)op;
	fuse_req_t req = w->rq->req;
	int ret = pending_add_running(w->rq->ino);

	if (ret == 0) {
		ret = keep_pending(w);
		if (ret < 0)
			pending_end(w->rq->ino, 0);
	}
	if (ret < 0) {
		op_fail(op, ret);
		return;
	}
	op->unique = 0;	/* no record of its answer is needed any more */
	fuse_op_done(req, op);
	atomic_store(&op->interrupted, false);	/* nor does it end with who asked for it */
	fuse_reply_write(req, w->rq->len);
	lock_wait(op);
}

/* An interrupted truncation comes first: 0 when there is none, OP_MORE after a part of it. */
static int finish_truncate(struct itx *tx, uint64_t ino, struct cinode *ci)
{
	int ret;

	if (!(le32_get(ci->d.flags) & INODE_FLAG_TRUNCATE))
		return 0;
	ret = data_truncate_some(tx, ino, ci, (inode_size(ci) + SMALL_SIZE - 1) >> SMALL_SHIFT, 8);
	if (ret < 0)
		return ret;
	if (ret == 0)
		ci->d.flags = le32_of(le32_get(ci->d.flags) & ~INODE_FLAG_TRUNCATE);
	ret = inode_put(tx, ino, ci, false);
	return ret < 0 ? ret : OP_MORE;
}

/* The block's mapping for writing: maps it (and up to `want` that follow) if it has none. */
static int map_for_write(struct itx *tx, uint64_t ino, struct cinode *ci, uint64_t iblock, uint64_t want,
			 uint64_t *hint, struct data_extent *ext)
{
	struct data_extent cut;
	struct extent got;
	int ret = extent_next(tx, ino, iblock, ext);

	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (ret == 0 && extent_has(ext, iblock)) {
		if (extent_is_online(ext))
			return 0;
		if (extent_is_offline(ext))
			return -EOPNOTSUPP;
		/* preallocated: as much of it as is written becomes data */
		want = ext->iblock + ext->len - iblock < want ? ext->iblock + ext->len - iblock : want;
		ret = extent_cut(tx, ino, iblock, want, &cut);
		cut.flags = 0;
		if (ret == 0)
			ret = extent_add(tx, ino, cut);
		if (ret == 0)
			data_count(ci, &cut, true);
		*ext = cut;
		return ret;
	}
	if (ret == 0 && ext->iblock - iblock < want)
		want = ext->iblock - iblock;
	ret = dalloc_get(tx, want, *hint, &got);
	if (ret < 0)
		return ret;
	*hint = got.start + got.len;
	*ext = (struct data_extent){ iblock, got.len, got.start, 0 };
	ret = extent_add(tx, ino, *ext);
	if (ret == 0)
		data_count(ci, ext, true);
	return ret;
}

/* One block of the write into a page of the pool. */
static int write_block(struct write_op *w, struct itx *tx, uint64_t iblock, uint64_t blkno, bool was_mapped,
		       uint64_t size, const uint8_t *from, size_t off, size_t len)
{
	struct pool *pool = tx->fsd->pool;
	bool partial = off != 0 || len != SMALL_SIZE;
	struct pool_rec rec;
	uint8_t *page;
	int ret = pool_find(tx, w->rq->ino, iblock, &rec);

	if (ret == 0) {
		rec.blkno = blkno;
	} else if (ret == -ENOENT) {
		/* the rest of the block: what is on the device, or zeroes where there was nothing */
		if (partial && was_mapped && iblock << SMALL_SHIFT < size &&
		    !(off == 0 && (iblock << SMALL_SHIFT) + len >= size))
			return data_need_page(&w->op, w->rq->ino, iblock, blkno);
		if (w->used_nr == w->pages_nr)
			return op_park(&w->op, pool_wait);
		rec.page = w->pages[w->used_nr];
		w->used[w->used_nr].page = rec.page;
		w->used[w->used_nr++].iblock = iblock;
		pool_assign(pool, rec.page, w->rq->ino, iblock);
		page = pool_page(pool, rec.page);
		memset(page, 0, off);
		memset(page + off + len, 0, SMALL_SIZE - off - len);
	} else {
		return ret;
	}
	ret = pool_put(tx, w->rq->ino, iblock, rec.page, blkno, true);
	if (ret == 0)
		memcpy((uint8_t *)pool_page(pool, rec.page) + off, from, len);
	return ret;
}

static int write_blocks(struct write_op *w, struct itx *tx, struct cinode *ci)
{
	uint64_t at = w->offset, end = w->offset + w->len, hint = 0, size = inode_size(ci);
	struct data_extent ext = { 0 };
	bool have = false, was_mapped = false;
	int ret = 0;

	if (w->offset >> SMALL_SHIFT) {
		/* next to what is before it, where that is free */
		ret = extent_next(tx, w->rq->ino, (w->offset >> SMALL_SHIFT) - 1, &ext);
		if (ret == 0 && extent_has(&ext, (w->offset >> SMALL_SHIFT) - 1) && ext.blkno)
			hint = ext.blkno + ext.len;
		else if (ret < 0 && ret != -ENOENT)
			return ret;
	}
	while (at < end) {
		uint64_t iblock = at >> SMALL_SHIFT, last = (end - 1) >> SMALL_SHIFT;
		size_t off = at & (SMALL_SIZE - 1);
		size_t len = end - at < SMALL_SIZE - off ? end - at : SMALL_SIZE - off;

		if (!have || !extent_has(&ext, iblock)) {
			struct data_extent before;

			ret = extent_next(tx, w->rq->ino, iblock, &before);
			was_mapped = ret == 0 && extent_has(&before, iblock) && extent_is_online(&before);
			ret = map_for_write(tx, w->rq->ino, ci, iblock, last - iblock + 1, &hint, &ext);
			if (ret == -ENOSPC && at > w->offset && !w->rq->write_cache) {
				w->len = at - w->offset;	/* what fits is written */
				return 0;
			}
			if (ret < 0)
				return ret;
			have = true;
		}
		ret = write_block(w, tx, iblock, ext.blkno + (iblock - ext.iblock), was_mapped, size,
				  (const uint8_t *)w->rq->buf + (at - w->offset), off, len);
		if (ret < 0)
			return ret;
		at += len;
	}
	return 0;
}

static int write_run(struct op *op, struct itx *tx)
{
	struct write_op *w = (struct write_op *)op;
	struct file_req *rq = w->rq;
	uint64_t blocks = ((rq->offset & (SMALL_SIZE - 1)) + rq->len + SMALL_SIZE - 1) / SMALL_SIZE + 1;
	struct cinode ci;
	int ret;

	w->used_nr = 0;
	w->len = 0;
	/* what the kernel wrote back before may be about the same bytes */
	ret = rq->write_cache ? 0 : data_wait_pending(op, rq->ino, false);
	if (ret == 0)
		ret = txn_hold(op, tx, (unsigned)blocks * 2 + 16, true);
	if (ret == 0) {
		ret = lock_inode(op, rq->ino, LOCK_MODE_WRITE);
		if (ret == OP_PARKED && rq->write_cache && !w->pending_id)
			op->wait = wait_lock_answered;
	}
	if (ret == 0)
		ret = inode_get(tx, rq->ino, &ci);
	if (ret == -ENOENT)
		ret = -ESTALE;
	if (ret == 0 && !S_ISREG(inode_mode(&ci)))
		ret = -EINVAL;
	if (ret == 0)
		ret = inode_may_change(tx, rq->ino, &ci, true);
	if (ret == 0)
		ret = quota_check(op, tx, QUOTA_DATA, le64_get(ci.d.proj), le32_get(ci.d.uid), le32_get(ci.d.gid));
	if (ret == 0)
		ret = finish_truncate(tx, rq->ino, &ci);
	if (ret == 0 && w->pending_id)
		ret = del_pending(tx, w);
	if (ret != 0)
		return ret;

	w->offset = rq->offset;
	w->len = rq->len;
	if (rq->flags & O_APPEND && !rq->write_cache)
		w->offset = inode_size(&ci);
	if (rq->write_cache) {
		/* a mapped page: it never makes the file longer */
		if (w->offset >= inode_size(&ci))
			w->len = 0;
		else if (w->len > inode_size(&ci) - w->offset)
			w->len = inode_size(&ci) - w->offset;
	}
	if (w->len == 0)
		return 0;
	if (w->offset + w->len > INT64_MAX)
		return -EFBIG;
	if (w->pages_nr < blocks) {
		w->pages_nr += pool_take(op->fsd->pool, w->pages + w->pages_nr, (unsigned)blocks - w->pages_nr);
		if (w->pages_nr < blocks)
			return op_park(op, pool_wait);
	}
	ret = write_blocks(w, tx, &ci);
	if (ret < 0)
		return ret;
	if (w->offset + w->len > inode_size(&ci))
		ci.d.size = le64_of(w->offset + w->len);
	w->dropped_suidgid = rq->kill_suidgid && inode_drop_suidgid(&ci);
	inode_touch(&ci, INODE_MTIME | INODE_CTIME);
	return inode_put(tx, rq->ino, &ci, true);
}

static uint64_t write_answer(const struct op *op)
{
	return ((const struct write_op *)op)->len;
}

static int write_was_done(struct op *op, struct itx *tx)
{
	struct write_op *w = (struct write_op *)op;

	(void)tx;
	w->len = op->answer;
	w->dropped_suidgid = w->rq->kill_suidgid;	/* perhaps: the kernel is told once more */
	return 0;
}

static const struct op_again write_again = { .answer = write_answer, .run = write_was_done };

static void write_done(struct op *op, int err)
{
	struct write_op *w = (struct write_op *)op;
	struct file_req *rq = w->rq;
	struct pool *pool = op->fsd->pool;
	unsigned from = 0;

	if (!w->pending_id)
		fuse_op_done(rq->req, op);
	if (!err) {
		/* pages are used in the order in which they were taken */
		for (; from < w->used_nr; from++)
			pool_indexed(pool, w->used[from].page, rq->ino, w->used[from].iblock);
	}
	pool_give(pool, w->pages + from, w->pages_nr - from);
	/* Before the answer: the file may be executed right after it. */
	if (!err && w->dropped_suidgid)
		kcache_forget_attributes(op->fsd, rq->ino);
	if (w->pending_id) {
		if (err && items_run(op->fsd, del_pending, w) < 0)
			log_err("inode %llu: a write that failed is tried again when this mount starts again",
				(unsigned long long)rq->ino);
		pending_end(rq->ino, err);
	} else if (err) {
		fuse_reply_err(rq->req, -err);
	} else {
		inode_give_begin(op->fsd, rq->ino);
		/* a mapped page beyond the end is taken, though nothing of it is kept */
		fuse_reply_write(rq->req, rq->write_cache ? rq->len : w->len);
		inode_give_end(op->fsd);
	}
	free(rq->buf);
	free(rq);
	free(w);
}

static struct write_op *new_write(struct fsd *fsd, struct file_req *rq)
{
	struct write_op *w = calloc(1, sizeof(*w));

	if (w) {
		w->op.fsd = fsd;
		w->op.name = "write";
		w->op.writes = true;
		w->op.run = write_run;
		w->op.again = &write_again;
		w->op.keeps_pages = true;
		w->op.notes_itself = true;
		w->op.done = write_done;
		w->rq = rq;
	}
	return w;
}

/* Writes from a mapping of this file are answered and not applied: so is this one. */
static int queue_write(struct write_op *w)
{
	fuse_req_t req = w->rq->req;
	size_t len = w->rq->len;
	int ret = keep_pending(w), turn;

	if (ret < 0)
		return ret;
	turn = pending_add(w->rq->ino, &w->op);
	if (turn < 0) {
		if (items_run(w->op.fsd, del_pending, w) < 0)
			fsd_fail(w->op.fsd, "out of memory");
		return turn;
	}
	fuse_reply_write(req, len);	/* w and its rq may be gone */
	if (turn)
		op_start(&w->op);
	return 0;
}

void op_write(struct fsd *fsd, struct file_req *rq)
{
	bool is_too_long = rq->len > (WRITE_PAGES_MAX - 2) * SMALL_SIZE;
	struct write_op *w = is_too_long ? NULL : new_write(fsd, rq);
	int err = is_too_long ? EINVAL : ENOMEM;

	if (w && rq->write_cache && pending_is_there(rq->ino)) {
		err = -queue_write(w);
		if (!err)
			return;
	} else if (w) {
		fuse_op_start(rq->req, &w->op);
		return;
	}
	fuse_reply_err(rq->req, err);
	free(w);
	free(rq->buf);
	free(rq);
}

/* ---- what an earlier process has answered and not applied ---- */

struct load {
	struct fsd *fsd;
	struct write_op *first, **tail;
};

static int load_pending(struct itx *tx, void *arg)
{
	struct load *l = arg;
	MDB_val mk, mv;
	MDB_cursor *cur;
	uint64_t be;
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_PENDING), &cur), ret = 0;

	if (rc)
		return items_error(tx, rc, "pending writes");
	while (ret == 0 && (rc = mdb_cursor_get(cur, &mk, &mv, MDB_NEXT)) == 0) {
		struct pending_rec rec;
		struct file_req *rq = calloc(1, sizeof(*rq));
		struct write_op *w = rq ? new_write(l->fsd, rq) : NULL;
		size_t len = mv.mv_size - sizeof(rec);

		if (w)
			rq->buf = malloc(len ? len : 1);
		if (!w || !rq->buf) {
			free(w);
			free(rq);
			ret = -ENOMEM;
			break;
		}
		memcpy(&be, mk.mv_data, sizeof(be));
		memcpy(&rec, mv.mv_data, sizeof(rec));
		memcpy(rq->buf, (const uint8_t *)mv.mv_data + sizeof(rec), len);
		rq->ino = rec.ino;
		rq->offset = rec.offset;
		rq->len = len;
		rq->write_cache = true;
		w->pending_id = be64toh(be);
		*l->tail = w;
		l->tail = (struct write_op **)&w->op.next;
	}
	mdb_cursor_close(cur);
	return ret == 0 && rc != MDB_NOTFOUND ? items_error(tx, rc, "pending writes") : ret;
}

int data_start_pending(struct fsd *fsd)
{
	struct load l = { .fsd = fsd };
	struct write_op *next;
	int ret, turn;

	l.tail = &l.first;
	ret = items_run(fsd, load_pending, &l);
	for (struct write_op *w = l.first; w; w = next) {
		next = (struct write_op *)w->op.next;
		w->op.next = NULL;
		pending_id_seen(w->pending_id);
		turn = ret < 0 ? ret : pending_add(w->rq->ino, &w->op);
		if (turn > 0) {
			op_queue(&w->op);
		} else if (turn < 0) {
			ret = turn;
			free(w->rq->buf);
			free(w->rq);
			free(w);
		}
	}
	return ret;
}

/* ---- fallocate -------------------------------------------------------------------------------------- */

struct fallocate_op {
	struct op op;
	struct file_req *rq;
	uint64_t at;		/* own memory: blocks before it are allocated and committed */
	bool dropped_suidgid;
};

static int fallocate_run(struct op *op, struct itx *tx)
{
	struct fallocate_op *f = (struct fallocate_op *)op;
	struct file_req *rq = f->rq;
	uint64_t end = rq->offset + rq->len, last = (end - 1) >> SMALL_SHIFT, at = f->at, left = FALLOCATE_BLOCKS, hint = 0;
	struct data_extent ext;
	struct cinode ci;
	unsigned n = 0;
	int ret;

	ret = txn_hold(op, tx, FALLOCATE_EXTENTS * 4 + 16, true);
	if (ret == 0)
		ret = lock_inode(op, rq->ino, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = inode_get(tx, rq->ino, &ci);
	if (ret == -ENOENT)
		ret = -ESTALE;
	if (ret == 0 && !S_ISREG(inode_mode(&ci)))
		ret = -ENODEV;
	if (ret == 0)
		ret = inode_may_change(tx, rq->ino, &ci, true);
	if (ret == 0)
		ret = quota_check(op, tx, QUOTA_DATA, le64_get(ci.d.proj), le32_get(ci.d.uid), le32_get(ci.d.gid));
	if (ret == 0)
		ret = finish_truncate(tx, rq->ino, &ci);
	if (ret != 0)
		return ret;

	while (at <= last && n < FALLOCATE_EXTENTS && left) {
		uint64_t want = last - at + 1 < left ? last - at + 1 : left;
		struct extent got;

		ret = extent_next(tx, rq->ino, at, &ext);
		if (ret < 0 && ret != -ENOENT)
			return ret;
		if (ret == 0 && extent_has(&ext, at)) {
			at = ext.iblock + ext.len;
			hint = ext.blkno ? ext.blkno + ext.len : 0;
			continue;
		}
		if (ret == 0 && ext.iblock - at < want)
			want = ext.iblock - at;
		ret = dalloc_get(tx, want, hint, &got);
		if (ret < 0)
			return ret;
		hint = got.start + got.len;
		ret = extent_add(tx, rq->ino,
				 (struct data_extent){ at, got.len, got.start, EXTENT_FLAG_UNWRITTEN });
		if (ret < 0)
			return ret;
		at += got.len;
		left -= got.len;
		n++;
	}
	f->dropped_suidgid = rq->kill_suidgid && inode_drop_suidgid(&ci);
	n += f->dropped_suidgid;	/* something has changed */
	if (!(rq->flags & FALLOC_FL_KEEP_SIZE)) {
		uint64_t reached = at > last ? end : at << SMALL_SHIFT;

		if (reached > inode_size(&ci)) {
			ci.d.size = le64_of(reached);
			inode_touch(&ci, INODE_MTIME | INODE_CTIME);
			ret = inode_put(tx, rq->ino, &ci, true);	/* runtime 9.2: a longer file is other data */
		} else {
			ret = n ? inode_put(tx, rq->ino, &ci, false) : 0;
		}
	} else {
		ret = n ? inode_put(tx, rq->ino, &ci, false) : 0;
	}
	if (ret < 0)
		return ret;
	f->at = at;
	return at <= last ? OP_MORE : 0;
}

static void fallocate_done(struct op *op, int err)
{
	struct fallocate_op *f = (struct fallocate_op *)op;

	fuse_op_done(f->rq->req, op);
	if (!err && f->dropped_suidgid)
		kcache_forget_attributes(op->fsd, f->rq->ino);
	fuse_reply_err(f->rq->req, -err);
	free(f->rq);
	free(f);
}

void op_fallocate(struct fsd *fsd, struct file_req *rq)
{
	struct fallocate_op *f = NULL;
	int err = 0;

	if (rq->flags & ~FALLOC_FL_KEEP_SIZE)
		err = EOPNOTSUPP;
	else if (rq->len == 0 || rq->offset + rq->len < rq->offset)
		err = EINVAL;
	else if (rq->offset + rq->len > INT64_MAX)
		err = EFBIG;
	else if (!(f = calloc(1, sizeof(*f))))
		err = ENOMEM;
	if (err) {
		fuse_reply_err(rq->req, err);
		free(rq);
		return;
	}
	f->op.fsd = fsd;
	f->op.name = "fallocate";
	f->op.writes = true;
	f->op.run = fallocate_run;
	f->op.done = fallocate_done;
	f->rq = rq;
	f->at = rq->offset >> SMALL_SHIFT;
	fuse_op_start(rq->req, &f->op);
}

/* ---- lseek ------------------------------------------------------------------------------------------ */

struct lseek_op {
	struct op op;
	struct file_req *rq;
	uint64_t found;
};

/* Offline blocks are data, preallocated ones a hole (runtime 11.10). */
static bool is_data(const struct data_extent *e)
{
	return e->flags != EXTENT_FLAG_UNWRITTEN;
}

static int lseek_run(struct op *op, struct itx *tx)
{
	struct lseek_op *l = (struct lseek_op *)op;
	struct file_req *rq = l->rq;
	bool want_data = rq->flags == SEEK_DATA;
	struct data_extent ext;
	uint64_t b = rq->offset >> SMALL_SHIFT, size;
	struct cinode ci;
	int ret;

	ret = data_wait_pending(op, rq->ino, false);
	if (ret == 0)
		ret = lock_inode(op, rq->ino, LOCK_MODE_READ);
	if (ret == 0)
		ret = inode_get(tx, rq->ino, &ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	size = inode_size(&ci);
	if (rq->offset >= size)
		return -ENXIO;
	while (b << SMALL_SHIFT < size) {
		ret = extent_next(tx, rq->ino, b, &ext);
		if (ret < 0 && ret != -ENOENT)
			return ret;
		if (ret == -ENOENT || (want_data && ext.iblock << SMALL_SHIFT >= size)) {
			if (want_data)
				return -ENXIO;
			break;
		}
		if (want_data ? is_data(&ext) : (!extent_has(&ext, b) || !is_data(&ext))) {
			if (want_data && !extent_has(&ext, b))
				b = ext.iblock;
			break;
		}
		b = ext.iblock + ext.len;
	}
	l->found = b << SMALL_SHIFT;
	if (l->found < rq->offset)
		l->found = rq->offset;
	if (l->found >= size) {
		if (want_data)
			return -ENXIO;
		l->found = size;
	}
	return 0;
}

static void lseek_done(struct op *op, int err)
{
	struct lseek_op *l = (struct lseek_op *)op;

	fuse_op_done(l->rq->req, op);
	if (err)
		fuse_reply_err(l->rq->req, -err);
	else
		fuse_reply_lseek(l->rq->req, (off_t)l->found);
	free(l->rq);
	free(l);
}

void op_lseek(struct fsd *fsd, struct file_req *rq)
{
	struct lseek_op *l = rq->flags == SEEK_DATA || rq->flags == SEEK_HOLE ? calloc(1, sizeof(*l)) : NULL;

	if (!l) {
		fuse_reply_err(rq->req, EINVAL);
		free(rq);
		return;
	}
	l->op.fsd = fsd;
	l->op.name = "lseek";
	l->op.run = lseek_run;
	l->op.done = lseek_done;
	l->rq = rq;
	fuse_op_start(rq->req, &l->op);
}
