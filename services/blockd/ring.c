/*
 * What a client may ask for.  Pure: a descriptor and the limits of its connection go in, a verdict
 * comes out.  The caller has copied the descriptor out of shared memory, so what was checked is what
 * is done.
 *
 * Beside range and alignment this keeps each kind of client off the blocks that are never its own to
 * write: nobody writes what lies before the super block, nobody the data device's copy of it, and an
 * fsd neither super nor quorum blocks.  A bug in one daemon then cannot take the whole volume along.
 */
#include "blockd.h"

#include "format/format.h"

static int write_check(const struct blkring_desc *d, uint32_t kind)
{
	uint64_t first = SUPER_BLKNO << SMALL_SHIFT;

	if (kind == BLK_KIND_TOOL)
		return -EPERM;
	if (d->dev == BLK_DEV_DATA)
		first = DATA_FIRST_BLKNO << SMALL_SHIFT;
	else if (kind == BLK_KIND_FSD || d->op == BLK_OP_DISCARD)
		first = META_FIRST_BLKNO << LARGE_SHIFT;
	return d->dev_off < first ? -EPERM : 0;
}

/* Nothing of a chain, or what belongs to one. */
static int chain_check(const struct blkring_desc *d, uint32_t kind)
{
	bool is_last = d->flags & BLKRING_LAST;

	if (!is_last && (d->expect_seq || d->expect_crc || d->before_nr))
		return -EINVAL;
	if (!d->chain)
		return is_last ? -EINVAL : 0;
	if (kind != BLK_KIND_SERVERD || d->op == BLK_OP_DISCARD)
		return -EINVAL;
	if (is_last && (!(d->flags & BLKRING_DURABLE) || d->dev != BLK_DEV_META ||
			d->len != SMALL_SIZE || d->dev_off != SUPER_BLKNO << SMALL_SHIFT))
		return -EINVAL;
	return 0;
}

int ring_desc_check(const struct blkring_desc *d, const struct ring_limits *lim)
{
	uint64_t max = d->op == BLK_OP_DISCARD ? BLKRING_DISCARD_MAX : BLKRING_LEN_MAX;
	unsigned flags = d->op == BLK_OP_WRITE ? BLKRING_DURABLE | BLKRING_LAST :
			 d->op == BLK_OP_FLUSH ? BLKRING_AFTER : 0;
	uint64_t bytes;

	if (d->dev >= BLK_DEVS_NR || d->flags & ~flags || d->result != 0)
		return -EINVAL;
	if (chain_check(d, lim->kind) < 0)
		return -EINVAL;

	switch (d->op) {
	case BLK_OP_FLUSH:
		return d->len || d->dev_off || d->region || d->region_off ? -EINVAL : 0;
	case BLK_OP_READ:
	case BLK_OP_WRITE:
		if (d->region >= BLK_REGIONS_NR)
			return -EINVAL;
		bytes = lim->region_bytes[d->region];
		if (d->region_off % BLKRING_ALIGN || d->len > bytes ||
		    d->region_off > bytes - d->len)
			return -EINVAL;
		break;
	case BLK_OP_DISCARD:
		if (d->region || d->region_off)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}

	bytes = lim->device_bytes[d->dev];
	if (d->len == 0 || d->len > max || d->len % BLKRING_ALIGN || d->dev_off % BLKRING_ALIGN ||
	    d->len > bytes || d->dev_off > bytes - d->len)
		return -EINVAL;
	return d->op == BLK_OP_READ ? 0 : write_check(d, lim->kind);
}
