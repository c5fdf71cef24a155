/*
 * Gathering the bytes of a file.
 *
 * Pool and extents are looked at in one snapshot.  What must come from the device is read without the snapshot and then judged
 * against a second one: if the extents are still the same, the bytes are the file's; if not it begins again.  So an operation
 * holds nothing while it waits but its lock.
 */
#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkcli.h"
#include "ops_file.h"
#include "log.h"
#include "pool.h"

int content_init(struct content *c, struct op *op, uint64_t ino, uint64_t offset, uint64_t len)
{
	uint64_t blocks = ((offset & (SMALL_SIZE - 1)) + len + SMALL_SIZE - 1) >> SMALL_SHIFT;

	c->op = op;
	c->ino = ino;
	c->first = offset >> SMALL_SHIFT;
	c->buf = aligned_alloc(SMALL_SIZE, (blocks ? blocks : 1) << SMALL_SHIFT);
	return c->buf ? 0 : -ENOMEM;
}

void content_fini(struct content *c)
{
	free(c->buf);
}

static void read_io(void *arg)
{
	struct content *c = arg;
	struct fsd *fsd = c->op->fsd;
	struct blkcli_op ops[CONTENT_SEGS_MAX];
	int ret;

	for (unsigned i = 0; i < c->segs_nr; i++) {
		ops[i] = (struct blkcli_op){ .op = BLK_OP_READ, .dev = BLK_DEV_DATA,
					     .dev_off = c->segs[i].blkno << SMALL_SHIFT,
					     .len = c->segs[i].blocks << SMALL_SHIFT, .buf = c->buf + c->segs[i].at };
		stats_add(&fsd->stats.data_read_bytes, ops[i].len);
	}
	ret = blkcli_run(fsd->blk, ops, c->segs_nr);
	if (ret < 0)
		log_err("reading file data of inode %llu failed: %s; see blockd's messages about %s",
			(unsigned long long)c->ino, strerror(-ret), fsd->conf.data_device);
	c->io_err = ret < 0 ? -EIO : 0;
	memcpy(c->have, c->segs, sizeof(c->segs[0]) * c->segs_nr);
	c->have_nr = c->segs_nr;
	c->did_io = true;
	op_wake(c->op);
}

static void wait_read_io(struct op *op)
{
	struct content *c = op->need.ptr;

	op->cancel = NULL;
	ops_defer(op->fsd, read_io, c);
}

static void wait_again(struct op *op)
{
	op->cancel = NULL;
	op_wake(op);
}

static int add_seg(struct content *c, uint64_t blkno, uint32_t at)
{
	struct content_seg *last = c->segs_nr ? &c->segs[c->segs_nr - 1] : NULL;

	if (last && last->blkno + last->blocks == blkno && last->at + (last->blocks << SMALL_SHIFT) == at) {
		last->blocks++;
		return 0;
	}
	if (c->segs_nr == CONTENT_SEGS_MAX)
		return -EIO;
	c->segs[c->segs_nr++] = (struct content_seg){ blkno, at, 1 };
	return 0;
}

void content_note_hole(struct content *c, uint64_t b)
{
	if (!c->has_holes)
		c->hole_first = b;
	c->has_holes = true;
	c->hole_last = b;
}

int content_gather(struct content *c, struct itx *tx, uint64_t end)
{
	uint64_t last = (end - 1) >> SMALL_SHIFT;
	struct data_extent ext = { 0 };
	bool have_ext = false, no_more = false;
	int ret;

	c->segs_nr = 0;
	c->has_holes = false;
	for (uint64_t b = c->first; b <= last; b++) {
		uint32_t at = (uint32_t)((b - c->first) << SMALL_SHIFT);
		struct pool_rec rec;

		ret = pool_find(tx, c->ino, b, &rec);
		if (ret == 0) {
			if (!pool_copy(tx->fsd->pool, rec.page, c->ino, b, c->buf + at, 0, SMALL_SIZE))
				return op_park(c->op, wait_again);
			continue;
		}
		if (ret != -ENOENT)
			return ret;
		if (!no_more && (!have_ext || ext.iblock + ext.len <= b)) {
			ret = extent_next(tx, c->ino, b, &ext);
			if (ret < 0 && ret != -ENOENT)
				return ret;
			no_more = ret == -ENOENT;
			have_ext = ret == 0;
		}
		if (no_more || !extent_has(&ext, b) || (ext.flags == EXTENT_FLAG_UNWRITTEN)) {
			memset(c->buf + at, 0, SMALL_SIZE);
			content_note_hole(c, b);
		} else if (extent_is_offline(&ext)) {
			log_notice("inode %llu: reading data that is offline: there is no archive agent in this version to bring it back",
				   (unsigned long long)c->ino);
			return -EIO;
		} else {
			ret = add_seg(c, ext.blkno + (b - ext.iblock), at);
			if (ret < 0)
				return ret;
		}
	}
	if (!c->segs_nr)
		return 0;
	if (c->did_io && c->have_nr == c->segs_nr && memcmp(c->have, c->segs, sizeof(c->segs[0]) * c->segs_nr) == 0)
		return c->io_err;
	c->op->need.ptr = c;
	return op_park(c->op, wait_read_io);
}
