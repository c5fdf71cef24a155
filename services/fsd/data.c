/*
 * File data inside transactions: what truncation, deletion and writing do to extents and pool pages; and
 * the one read that writing needs, of a block that is overwritten in part.
 *
 * What stays true in every committed transaction: online_blocks and offline_blocks of an inode are the
 * sums over its extents; every dirty page of the pool belongs to a mapped block; a block that is freed is
 * in no extent (format 12.11, 16.5).
 */
#include "data.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkcli.h"
#include "ops_file.h"
#include "locks.h"
#include "log.h"
#include "pool.h"

static uint64_t blocks_of(uint64_t size)
{
	return (size >> SMALL_SHIFT) + ((size & (SMALL_SIZE - 1)) != 0);
}

void data_count(struct cinode *ci, const struct data_extent *e, bool added)
{
	uint64_t delta = added ? e->len : -e->len;

	if (extent_is_online(e))
		le64_add(&ci->d.online_blocks, delta);
	if (extent_is_offline(e))
		le64_add(&ci->d.offline_blocks, delta);
}

/* ---- reading a block into the pool ------------------------------------------------------------------ */

/* An operation wants block iblock of ino in the pool.  Its lock uses keep the inode while it is parked. */
struct fill {
	struct op *op;
	uint64_t ino, iblock, blkno;
	uint32_t page;
	bool used;
};

static int fill_index(struct itx *tx, void *arg)
{
	struct fill *f = arg;
	struct data_extent ext;
	struct pool_rec rec;
	struct cinode ci;
	uint64_t end;
	int ret;

	f->used = false;
	ret = pool_find(tx, f->ino, f->iblock, &rec);
	if (ret != -ENOENT)
		return ret;	/* somebody was faster */
	ret = inode_get(tx, f->ino, &ci);
	if (ret == 0)
		ret = extent_next(tx, f->ino, f->iblock, &ext);
	if (ret < 0)
		return ret == -ENOENT || ret == OP_PARKED ? 0 : ret;	/* the operation looks again */
	if (!extent_has(&ext, f->iblock) || !extent_is_online(&ext) ||
	    ext.blkno + (f->iblock - ext.iblock) != f->blkno)
		return 0;
	/* what lies beyond the end of the file reads as zero, whatever the device holds */
	end = inode_size(&ci) - (f->iblock << SMALL_SHIFT);
	if (inode_size(&ci) < (f->iblock << SMALL_SHIFT))
		end = 0;
	if (end < SMALL_SIZE)
		memset((uint8_t *)pool_page(tx->fsd->pool, f->page) + end, 0, SMALL_SIZE - end);
	f->used = true;
	return pool_put(tx, f->ino, f->iblock, f->page, f->blkno, false);
}

static void fill_work(void *arg)
{
	struct fill *f = arg;
	struct fsd *fsd = f->op->fsd;
	struct blkcli_op io = { .op = BLK_OP_READ, .dev = BLK_DEV_DATA, .dev_off = f->blkno << SMALL_SHIFT,
				.len = SMALL_SIZE, .buf = pool_page(fsd->pool, f->page) };
	struct op *op = f->op;
	int ret = blkcli_run(fsd->blk, &io, 1);

	stats_add(&fsd->stats.data_read_bytes, SMALL_SIZE);
	if (ret < 0)
		log_err("reading block %llu of %s failed: %s", (unsigned long long)f->blkno, fsd->conf.data_device,
			strerror(-ret));
	else
		ret = items_run(fsd, fill_index, f);
	if (ret == 0 && f->used)
		pool_indexed(fsd->pool, f->page, f->ino, f->iblock);
	else
		pool_give(fsd->pool, &f->page, 1);
	free(f);
	if (ret < 0)
		op_fail(op, -EIO);
	else
		op_wake(op);
}

static void wait_fill(struct op *op)
{
	struct fill *f = calloc(1, sizeof(*f));

	if (!f) {
		op_fail(op, -ENOMEM);
		return;
	}
	f->op = op;
	f->ino = op->need.page.ino;
	f->iblock = op->need.page.iblock;
	f->blkno = op->need.page.blkno;
	if (pool_take(op->fsd->pool, &f->page, 1) != 1) {
		free(f);
		pool_wait(op);
		return;
	}
	ops_defer(op->fsd, fill_work, f);
}

int data_need_page(struct op *op, uint64_t ino, uint64_t iblock, uint64_t blkno)
{
	op->need.page.ino = ino;
	op->need.page.iblock = iblock;
	op->need.page.blkno = blkno;
	return op_park(op, wait_fill);
}

/* ---- size and truncation ---------------------------------------------------------------------------- */

int data_zero_tail(struct itx *tx, uint64_t ino, uint64_t size)
{
	uint64_t iblock = size >> SMALL_SHIFT;
	size_t keep = size & (SMALL_SIZE - 1);
	struct data_extent ext;
	struct pool_rec rec;
	int ret;

	if (!keep)
		return 0;
	ret = extent_next(tx, ino, iblock, &ext);
	if (ret < 0)
		return ret == -ENOENT ? 0 : ret;
	if (!extent_has(&ext, iblock) || !extent_is_online(&ext))
		return 0;
	ret = pool_find(tx, ino, iblock, &rec);
	if (ret == -ENOENT)
		return data_need_page(tx->op, ino, iblock, ext.blkno + (iblock - ext.iblock));
	if (ret < 0)
		return ret;
	ret = pool_put(tx, ino, iblock, rec.page, rec.blkno, true);
	if (ret == 0)
		memset((uint8_t *)pool_page(tx->fsd->pool, rec.page) + keep, 0, SMALL_SIZE - keep);
	return ret;
}

int data_set_size(struct itx *tx, uint64_t ino, struct cinode *ci, uint64_t size)
{
	struct data_extent ext;
	bool is_rest;
	int ret;

	if (size > INT64_MAX)
		return -EFBIG;
	if (size > inode_size(ci)) {
		ret = data_zero_tail(tx, ino, inode_size(ci));
		if (ret < 0)
			return ret;
	} else {
		ret = extent_next(tx, ino, blocks_of(size), &ext);
		if (ret < 0 && ret != -ENOENT)
			return ret;
		is_rest = ret == 0;
		ret = pool_forget(tx, ino, blocks_of(size));
		/* Last of all: what a page had does not come back when the transaction goes. */
		if (ret == 0)
			ret = data_zero_tail(tx, ino, size);
		if (ret < 0)
			return ret;
		if (is_rest)
			ci->d.flags = le32_of(le32_get(ci->d.flags) | INODE_FLAG_TRUNCATE);
	}
	ci->d.size = le64_of(size);
	return 0;
}

int data_truncate_some(struct itx *tx, uint64_t ino, struct cinode *ci, uint64_t from_iblock, unsigned max)
{
	struct data_extent ext, cut;
	int ret = pool_forget(tx, ino, from_iblock);

	if (ret < 0)
		return ret;
	while (max-- > 0) {
		ret = extent_next(tx, ino, from_iblock, &ext);
		if (ret < 0)
			return ret == -ENOENT ? 0 : ret;
		if (ext.iblock < from_iblock) {
			ext.len -= from_iblock - ext.iblock;
			ext.iblock = from_iblock;
		}
		ret = extent_cut(tx, ino, ext.iblock, ext.len, &cut);
		if (ret == 0 && cut.blkno)
			ret = dalloc_put(tx, (struct extent){ cut.blkno, cut.len });
		if (ret < 0)
			return ret;
		data_count(ci, &cut, false);
	}
	return OP_MORE;
}
