/*
 * read, write, fallocate, lseek.
 *
 * A write copies into pool pages, maps blocks for what had none, and changes the inode, in one
 * transaction; then it is answered.  The data goes to the device with the commit (txn.c).  Pages for it
 * are taken before the transaction and belong to the operation until it has committed.
 *
 * A read gathers what pool and device have (content.c).  What the kernel writes back from mappings is a write, too, of
 * which perhaps only some words are meant, and which may be answered first: mapped.c says why.
 */
#include "ops_file.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "locks.h"
#include "mapped.h"
#include "orphan.h"
#include "pool.h"
#include "quota.h"
#include "shown.h"
#include "xattr.h"

#define FALLOCATE_BLOCKS	32768	/* 128 MiB in one transaction (runtime 0.4) */
#define FALLOCATE_EXTENTS	8

/* ---- read ------------------------------------------------------------------------------------------- */

struct read_op {
	struct op op;
	struct file_req *rq;
	struct busy busy;
	struct content content;
	uint64_t len;		/* bytes to answer, from rq->offset */
};

static int read_run(struct op *op, struct itx *tx)
{
	struct read_op *r = (struct read_op *)op;
	struct file_req *rq = r->rq;
	uint64_t after, last;
	struct cinode ci;
	int ret;

	ret = busy_wait_writes(op, &r->busy);
	if (ret == OP_PARKED)
		r->content.did_io = false;	/* it gives its lock up: what was read says nothing afterwards */
	if (ret == 0)
		ret = data_wait_pending(op, rq->ino, false);
	if (ret == 0)
		ret = lock_inode(op, rq->ino, LOCK_MODE_READ);
	if (ret == 0)
		ret = inode_get(tx, rq->ino, &ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	r->len = 0;
	if (rq->offset < inode_size(&ci))
		r->len = inode_size(&ci) - rq->offset < rq->len ? inode_size(&ci) - rq->offset : rq->len;
	r->content.has_holes = false;
	ret = r->len ? content_gather(&r->content, tx, rq->offset + r->len) : 0;
	/* the kernel fills up what it asked for with zeroes */
	after = (rq->offset + r->len + SMALL_SIZE - 1) >> SMALL_SHIFT;
	last = (rq->offset + rq->len - 1) >> SMALL_SHIFT;
	if (ret == 0 && r->len < rq->len && after <= last) {
		content_note_hole(&r->content, after);
		content_note_hole(&r->content, last);
	}
	return ret;
}

static void read_done(struct op *op, int err)
{
	struct read_op *r = (struct read_op *)op;
	struct file_req *rq = r->rq;

	busy_end(&r->busy);
	fuse_op_done(rq->req, op);
	if (err) {
		fuse_reply_err(rq->req, -err);
	} else {
		inode_give_begin(op->fsd, rq->ino);
		if (r->content.has_holes)
			shown_note(op->fsd, rq->ino, r->content.hole_first, r->content.hole_last);
		fuse_reply_buf(rq->req, (char *)r->content.buf + (rq->offset - (r->content.first << SMALL_SHIFT)), r->len);
		inode_give_end(op->fsd);
	}
	content_fini(&r->content);
	free(rq);
	free(r);
}

void op_read(struct fsd *fsd, struct file_req *rq)
{
	struct read_op *r = calloc(1, sizeof(*r));

	if (!r || content_init(&r->content, &r->op, rq->ino, rq->offset, rq->len) < 0) {
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
	busy_begin(&r->busy, rq->flags & O_DIRECT ? BUSY_DIRECT : BUSY_READ, rq->ino, rq->offset, rq->len, NULL);
	fuse_op_start(rq->req, &r->op);
}

/* ---- write ------------------------------------------------------------------------------------------ */

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

/* Of that part of the request: whether all of it is to be written, or any. */
static bool is_all_stored(const struct write_op *w, uint64_t pos, size_t len)
{
	for (size_t i = 0; w->mask && i < len; i += MAPPED_WORD) {
		if (!mapped_is_stored(w, pos + i))
			return false;
	}
	return true;
}

static bool is_any_stored(const struct write_op *w, uint64_t pos, size_t len)
{
	for (size_t i = 0; i < len; i += MAPPED_WORD) {
		if (mapped_is_stored(w, pos + i))
			return true;
	}
	return false;
}

static void copy_stored(const struct write_op *w, uint8_t *to, uint64_t pos, size_t len)
{
	const uint8_t *from = (const uint8_t *)w->rq->buf + pos;

	for (size_t i = 0; i < len; i += MAPPED_WORD) {
		if (mapped_is_stored(w, pos + i))
			memcpy(to + i, from + i, len - i < MAPPED_WORD ? len - i : MAPPED_WORD);
	}
}

/*
 * The bytes, last of all: a page shows them at once, and they do not come back when the operation waits after all and is
 * killed meanwhile.
 */
static void store_all(const struct write_op *w, struct pool *pool)
{
	for (unsigned i = 0; i < w->stores_nr; i++) {
		const struct write_store *s = &w->stores[i];
		uint8_t *to = (uint8_t *)pool_page(pool, s->page) + s->off;

		if (is_all_stored(w, s->pos, s->len))
			memcpy(to, (const uint8_t *)w->rq->buf + s->pos, s->len);
		else
			copy_stored(w, to, s->pos, s->len);
	}
}

/* A page of the pool for one block of the write, which begins at pos of the request; store_all() puts the bytes there. */
static int write_block(struct write_op *w, struct itx *tx, uint64_t iblock, uint64_t blkno, bool was_mapped,
		       uint64_t size, uint64_t pos, size_t off, size_t len)
{
	struct pool *pool = tx->fsd->pool;
	bool all = is_all_stored(w, pos, len), partial = !all || off != 0 || len != SMALL_SIZE;
	struct pool_rec rec;
	uint8_t *page;
	int ret = pool_find(tx, w->rq->ino, iblock, &rec);

	if (ret == 0) {
		rec.blkno = blkno;
	} else if (ret == -ENOENT) {
		/* the rest of the block: what is on the device, or zeroes where there was nothing */
		if (partial && was_mapped && iblock << SMALL_SHIFT < size &&
		    !(all && off == 0 && (iblock << SMALL_SHIFT) + len >= size))
			return data_need_page(&w->op, w->rq->ino, iblock, blkno);
		if (w->used_nr == w->pages_nr)
			return op_park(&w->op, pool_wait);
		rec.page = w->pages[w->used_nr];
		w->used[w->used_nr].page = rec.page;
		w->used[w->used_nr++].iblock = iblock;
		pool_assign(pool, rec.page, w->rq->ino, iblock);
		page = pool_page(pool, rec.page);
		if (partial)
			memset(page, 0, SMALL_SIZE);
	} else {
		return ret;
	}
	ret = pool_put(tx, w->rq->ino, iblock, rec.page, blkno, true);
	if (ret < 0)
		return ret;
	assert(w->stores_nr < WRITE_PAGES_MAX);
	w->stores[w->stores_nr++] = (struct write_store){ rec.page, (uint16_t)off, (uint16_t)len, (uint32_t)pos };
	return 0;
}

/* The bytes from pos of the request on, at w->offset. */
static int write_blocks(struct write_op *w, struct itx *tx, struct cinode *ci, uint64_t pos)
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
			/* a page of a mapping is taken also where there is no metadata but for deletions, if it has its block */
			ret = w->rq->write_cache && !was_mapped ?
				      txn_hold(&w->op, tx, (unsigned)(last - iblock + 1) * 2 + 20, true) : 0;
			if (ret == 0)
				ret = map_for_write(tx, w->rq->ino, ci, iblock, last - iblock + 1, &hint, &ext);
			if (ret == -ENOSPC && at > w->offset && !w->rq->write_cache) {
				w->len = at - w->offset;	/* what fits is written */
				return 0;
			}
			if (ret == -ENOSPC && w->rq->write_cache) {
				w->lost = true;	/* other pages have nothing to do with it */
				have = false;
				at += len;
				continue;
			}
			if (ret < 0)
				return ret;
			have = true;
		}
		ret = write_block(w, tx, iblock, ext.blkno + (iblock - ext.iblock), was_mapped, size,
				  pos + (at - w->offset), off, len);
		if (ret < 0)
			return ret;
		at += len;
	}
	return 0;
}

/* From a mapping: the blocks of which something was stored. */
static int write_stored(struct write_op *w, struct itx *tx, struct cinode *ci)
{
	const uint64_t offset = w->offset, len = w->len;
	uint64_t at = 0, run = 0;
	int ret = 0;

	while (ret == 0 && at < len) {
		size_t n = SMALL_SIZE - ((offset + at) & (SMALL_SIZE - 1));
		bool any;

		n = len - at < n ? len - at : n;
		any = is_any_stored(w, at, n);
		at += n;
		if (!any)
			run = at;
		if (any && (at == len || !is_any_stored(w, at, len - at < SMALL_SIZE ? len - at : SMALL_SIZE))) {
			w->offset = offset + run;
			w->len = at - run;
			ret = write_blocks(w, tx, ci, run);
		}
	}
	w->offset = offset;
	w->len = len;
	return ret;
}

static void write_give_pages(struct op *op)
{
	struct write_op *w = (struct write_op *)op;

	pool_give(op->fsd->pool, w->pages, w->pages_nr);
	w->pages_nr = 0;
}

/*
 * There is no block for it, and this mount is giving some back: it keeps nothing that others may need meanwhile.
 * A page that the kernel writes back is what a revoke waits for: it is answered first, once there is one.
 */
static void wait_blocks(struct op *op)
{
	struct write_op *w = (struct write_op *)op;

	write_give_pages(op);
	w->answers_first = op->is_writeback && lock_is_wanted(op);
	if (w->answers_first)
		op_wake(op);
	else
		txn_wait_freed(op);
}

/*
 * Whether a change takes file capabilities away here: the kernel does before it writes into its cache, and not past
 * it; and where it has once seen none it looks no more, though another node may have given some.
 */
static bool takes_capability(const struct file_req *rq)
{
	return rq->past_cache || rq->kill_suidgid;
}

static int write_run(struct op *op, struct itx *tx)
{
	struct write_op *w = (struct write_op *)op;
	struct file_req *rq = w->rq;
	uint64_t blocks = ((rq->offset & (SMALL_SIZE - 1)) + rq->len + SMALL_SIZE - 1) / SMALL_SIZE + 1;
	struct cinode ci;
	int ret;

	w->used_nr = w->stores_nr = 0;
	w->lost = false;
	w->len = 0;
	/* what the kernel wrote back before may be about the same bytes */
	ret = rq->write_cache ? 0 : mapped_wait(w, tx);
	if (ret == 0)
		ret = txn_hold(op, tx, (unsigned)blocks * 2 + 20 + (takes_capability(rq) ? XATTR_PARTS_MAX : 0),
			       !rq->write_cache);
	if (ret == 0)
		ret = rq->write_cache ? mapped_run(w, tx) : lock_inode(op, rq->ino, LOCK_MODE_WRITE);
	if (ret == MAPPED_SAME)
		return 0;
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
	if (ret == 0)
		ret = mapped_applied(w, tx);
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
	ret = takes_capability(rq) ? xattr_drop_capability(tx, rq->ino, &ci) : 0;
	if (ret < 0)
		return ret;
	/* a write in that block zeroes it itself */
	if (w->offset >> SMALL_SHIFT > inode_size(&ci) >> SMALL_SHIFT)
		ret = data_zero_tail(tx, rq->ino, inode_size(&ci));
	if (ret < 0)
		return ret;
	if (w->pages_nr < blocks) {
		w->pages_nr += pool_take(op->fsd->pool, w->pages + w->pages_nr, (unsigned)blocks - w->pages_nr);
		if (w->pages_nr < blocks)
			return op_park(op, pool_wait);
	}
	ret = rq->write_cache ? write_stored(w, tx, &ci) : write_blocks(w, tx, &ci, 0);
	if (ret == OP_PARKED && op->wait == txn_wait_freed)
		return op_park(op, wait_blocks);
	if (ret < 0)
		return ret;
	if (w->offset + w->len > inode_size(&ci))
		ci.d.size = le64_of(w->offset + w->len);
	w->dropped_suidgid = rq->kill_suidgid && inode_drop_suidgid(&ci);
	inode_touch(&ci, INODE_MTIME | INODE_CTIME);
	ret = inode_put(tx, rq->ino, &ci, true);
	if (ret == 0)
		store_all(w, op->fsd->pool);
	return ret;
}

#define ANSWER_LOST	UINT64_MAX

static uint64_t write_answer(const struct op *op)
{
	const struct write_op *w = (const struct write_op *)op;

	return w->lost ? ANSWER_LOST : w->len;
}

static int write_was_done(struct op *op, struct itx *tx)
{
	struct write_op *w = (struct write_op *)op;

	(void)tx;
	w->lost = op->answer == ANSWER_LOST;
	w->len = w->lost ? 0 : op->answer;
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

	if (!w->is_answered) {
		busy_end(&w->busy);
		fuse_op_done(rq->req, op);
	}
	if (!err) {
		/* pages are used in the order in which they were taken */
		for (; from < w->used_nr; from++)
			pool_indexed(pool, w->used[from].page, rq->ino, w->used[from].iblock);
	}
	pool_give(pool, w->pages + from, w->pages_nr - from);
	/* Before the answer: the file may be executed right after it. */
	if (!err && w->dropped_suidgid)
		kcache_forget_attributes(op->fsd, rq->ino);
	/* The kernel, or the file's next fsync, is told of what is lost. */
	if (!err && w->lost)
		err = -ENOSPC;
	mapped_done(w, err);
	if (!w->is_answered && err) {
		fuse_reply_err(rq->req, -err);
	} else if (!w->is_answered) {
		inode_give_begin(op->fsd, rq->ino);
		/* a mapped page beyond the end is taken, though nothing of it is kept */
		fuse_reply_write(rq->req, rq->write_cache ? rq->len : w->len);
		inode_give_end(op->fsd);
	}
	mapped_fini(w);
	free(rq->buf);
	free(rq);
	free(w);
}

struct write_op *write_op_new(struct fsd *fsd, struct file_req *rq)
{
	struct write_op *w = calloc(1, sizeof(*w));

	if (w) {
		w->op.fsd = fsd;
		w->op.name = "write";
		w->op.writes = true;
		w->op.run = write_run;
		w->op.give_pages = write_give_pages;
		w->op.again = &write_again;
		w->op.notes_itself = true;
		w->op.done = write_done;
		w->rq = rq;
	}
	return w;
}

void op_write(struct fsd *fsd, struct file_req *rq)
{
	bool is_too_long = rq->len > (WRITE_PAGES_MAX - 2) * SMALL_SIZE;
	struct write_op *w = is_too_long ? NULL : write_op_new(fsd, rq);

	if (!w) {
		fuse_reply_err(rq->req, is_too_long ? EINVAL : ENOMEM);
		free(rq->buf);
		free(rq);
		return;
	}
	w->op.is_writeback = rq->write_cache;
	busy_begin(&w->busy, rq->write_cache ? BUSY_BACK : rq->past_cache ? BUSY_PAST : BUSY_WRITE,
		   rq->ino, rq->offset, rq->len, rq->buf);
	fuse_op_start(rq->req, &w->op);
}

/* ---- fallocate -------------------------------------------------------------------------------------- */

struct fallocate_op {
	struct op op;
	struct file_req *rq;
	uint64_t at;		/* own memory, of this hold of the lock: blocks before it are allocated and committed */
	uint64_t next;		/* what `at` becomes if the last run is committed, */
	unsigned next_part;	/* which it is if so many parts are; 0: that run came to no end */
	bool dropped_suidgid;	/* in any part, perhaps one that is not committed */
};

static int fallocate_run(struct op *op, struct itx *tx)
{
	struct fallocate_op *f = (struct fallocate_op *)op;
	struct file_req *rq = f->rq;
	uint64_t end = rq->offset + rq->len, last = (end - 1) >> SMALL_SHIFT, at, left = FALLOCATE_BLOCKS, hint = 0;
	struct data_extent ext;
	struct cinode ci;
	bool dropped;
	unsigned n = 0;
	int ret;

	/* without the lock (it was given up for a while) others may have taken away again what is allocated */
	if (!op->uses_nr)
		f->at = rq->offset >> SMALL_SHIFT;
	else if (f->next_part && op->parts_nr >= f->next_part)
		f->at = f->next;
	f->next_part = 0;
	at = f->at;
	ret = txn_hold(op, tx, FALLOCATE_EXTENTS * 4 + 20 + XATTR_PARTS_MAX, true);
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
	ret = takes_capability(rq) ? xattr_drop_capability(tx, rq->ino, &ci) : 0;
	if (ret < 0)
		return ret;
	dropped = rq->kill_suidgid && inode_drop_suidgid(&ci);
	f->dropped_suidgid = f->dropped_suidgid || dropped;
	n += dropped;		/* something has changed */
	if (!(rq->flags & FALLOC_FL_KEEP_SIZE)) {
		uint64_t reached = at > last ? end : at << SMALL_SHIFT;

		if (reached > inode_size(&ci)) {
			ret = data_zero_tail(tx, rq->ino, inode_size(&ci));
			if (ret < 0)
				return ret;
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
	f->next = at;
	f->next_part = op->parts_nr + 1;
	return at <= last ? OP_MORE : 0;
}

static void fallocate_done(struct op *op, int err)
{
	struct fallocate_op *f = (struct fallocate_op *)op;

	fuse_op_done(f->rq->req, op);
	/* also when a later part has failed */
	if (f->dropped_suidgid)
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
	fuse_op_start(rq->req, &f->op);
}

/* ---- lseek ------------------------------------------------------------------------------------------ */

struct lseek_op {
	struct op op;
	struct file_req *rq;
	uint64_t found, view;
};

/* Offline blocks are data, preallocated ones a hole (runtime 11.10). */
static bool is_data(const struct data_extent *e)
{
	return e->flags != EXTENT_FLAG_UNWRITTEN;
}

/* Blocks b..*end - 1 of a file of so many are data, or a hole; what the kernel may have stores to is data. */
static int next_stretch(struct itx *tx, uint64_t ino, uint64_t b, uint64_t blocks, uint64_t *end, bool *data)
{
	struct data_extent ext;
	uint64_t first, last;
	int ret = extent_next(tx, ino, b, &ext);

	if (ret < 0 && ret != -ENOENT)
		return ret;
	*data = false;
	*end = blocks;
	if (ret == 0 && extent_has(&ext, b)) {
		*data = is_data(&ext);
		*end = ext.iblock + ext.len;
	} else if (ret == 0) {
		*end = ext.iblock;
	}
	if (*end > blocks)
		*end = blocks;
	if (!*data && shown_next(tx->fsd, ino, b, *end, &first, &last)) {
		*data = first == b;
		*end = *data ? last + 1 : first;
	}
	return 0;
}

/* What it has seen is too old.  Without the lock, so that writes that are answered and not applied are waited for. */
static void wait_look_again(struct op *op)
{
	op->cancel = NULL;
	lock_unuse(op);
	op_wake(op);
}

static int lseek_run(struct op *op, struct itx *tx)
{
	struct lseek_op *l = (struct lseek_op *)op;
	struct file_req *rq = l->rq;
	bool want_data = rq->flags == SEEK_DATA, data = !want_data;
	uint64_t b, end = rq->offset >> SMALL_SHIFT, blocks, size, view;
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
	blocks = ((size - 1) >> SMALL_SHIFT) + 1;
	do {
		b = end;
		if (b < blocks)
			ret = next_stretch(tx, rq->ino, b, blocks, &end, &data);
		if (ret < 0)
			return ret;
	} while (b < blocks && data != want_data);
	view = shown_view(op->fsd, rq->ino);
	if (view != l->view) {
		l->view = view;
		return op_park(op, wait_look_again);
	}
	if (b == blocks && want_data)
		return -ENXIO;
	l->found = b << SMALL_SHIFT;
	if (l->found < rq->offset)
		l->found = rq->offset;
	if (b == blocks)
		l->found = size;
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
	l->view = shown_view(fsd, rq->ino);
	fuse_op_start(rq->req, &l->op);
}
