/*
 * Extents as items.  An item's key carries the extent's *last* block, so the extent that contains a
 * block is the first item at or after it.  Extents of a file never overlap; neighbours that continue
 * each other are merged when one of them is written (format 12.11).
 */
#include "extents.h"

#include <errno.h>
#include <string.h>

#include "log.h"

/* Checked when it was read from the forest, but for the size of the device. */
static bool is_sound(const struct fsd *fsd, const struct ival *iv, struct data_extent *ext)
{
	struct item it = { .key = iv->key, .val = iv->val, .val_len = (uint16_t)iv->len };

	if (iv->len != sizeof(struct disk_extent) || iv->key.third == 0 || iv->key.third > iv->key.second + 1)
		return false;
	extent_from_item(&it, ext);
	return !ext->blkno || (ext->blkno < fsd->total_data_blocks && ext->len <= fsd->total_data_blocks - ext->blkno);
}

static int from_ival(struct itx *tx, uint64_t ino, const struct ival *iv, struct data_extent *ext)
{
	if (is_sound(tx->fsd, iv, ext))
		return 0;
	stats_inc(&tx->fsd->stats.corrupt_items);
	log_err("inode %llu: the extent ending at block %llu is malformed: run scoutfsctl check",
		(unsigned long long)ino, (unsigned long long)iv->key.second);
	return -EIO;
}

static struct key key_of(uint64_t ino, const struct data_extent *e)
{
	return key_extent(ino, e->iblock + e->len - 1, e->len);
}

static int put(struct itx *tx, uint64_t ino, const struct data_extent *e)
{
	struct disk_extent d = { .blkno = le64_of(e->blkno), .flags = e->flags };
	struct key key = key_of(ino, e);
	struct ival iv;
	int ret = item_get(tx, &key, &iv);	/* whether it is known at all */

	if (ret < 0 && ret != -ENOENT)
		return ret;
	return item_put(tx, &key, &d, sizeof(d));
}

static int take(struct itx *tx, uint64_t ino, const struct data_extent *e)
{
	struct key key = key_of(ino, e);

	return item_delete(tx, &key, NULL, 0);
}

int extent_next(struct itx *tx, uint64_t ino, uint64_t iblock, struct data_extent *ext)
{
	struct key key = key_extent(ino, iblock, 1);
	struct key last = key_extent(ino, UINT64_MAX, UINT64_MAX);
	struct ival iv;
	int ret = item_next(tx, &key, &last, &iv);

	return ret < 0 ? ret : from_ival(tx, ino, &iv, ext);
}

/* Whether b continues a. */
static bool continues(const struct data_extent *a, const struct data_extent *b)
{
	return a->iblock + a->len == b->iblock && a->flags == b->flags &&
	       (a->blkno ? a->blkno + a->len == b->blkno : !b->blkno);
}

int extent_add(struct itx *tx, uint64_t ino, struct data_extent ext)
{
	struct data_extent before = { 0 }, after = { 0 };
	bool join_before = false, join_after = false;
	int ret;

	if (ext.iblock > 0) {
		ret = extent_next(tx, ino, ext.iblock - 1, &before);
		if (ret < 0 && ret != -ENOENT)
			return ret;
		join_before = ret == 0 && continues(&before, &ext);
	}
	ret = extent_next(tx, ino, ext.iblock, &after);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (ret == 0 && after.iblock < ext.iblock + ext.len) {
		stats_inc(&tx->fsd->stats.corrupt_items);
		log_err("inode %llu: block %llu would be mapped twice: run scoutfsctl check", (unsigned long long)ino,
			(unsigned long long)ext.iblock);
		return -EIO;
	}
	join_after = ret == 0 && continues(&ext, &after);

	if (join_before) {
		ret = take(tx, ino, &before);
		if (ret < 0)
			return ret;
		ext.iblock = before.iblock;
		ext.blkno = before.blkno;
		ext.len += before.len;
	}
	if (join_after) {
		ret = take(tx, ino, &after);
		if (ret < 0)
			return ret;
		ext.len += after.len;
	}
	return put(tx, ino, &ext);
}

int extent_cut(struct itx *tx, uint64_t ino, uint64_t iblock, uint64_t len, struct data_extent *cut)
{
	struct data_extent ext, left, right;
	int ret = extent_next(tx, ino, iblock, &ext);

	if (ret < 0)
		return ret == -ENOENT ? -EIO : ret;
	if (!extent_has(&ext, iblock) || ext.iblock + ext.len < iblock + len)
		return -EIO;
	left = (struct data_extent){ ext.iblock, iblock - ext.iblock, ext.blkno, ext.flags };
	right = (struct data_extent){ iblock + len, ext.iblock + ext.len - (iblock + len),
				      ext.blkno ? ext.blkno + (iblock + len - ext.iblock) : 0, ext.flags };
	*cut = (struct data_extent){ iblock, len, ext.blkno ? ext.blkno + left.len : 0, ext.flags };
	ret = take(tx, ino, &ext);
	if (ret == 0 && left.len)
		ret = put(tx, ino, &left);
	if (ret == 0 && right.len)
		ret = put(tx, ino, &right);
	return ret;
}
