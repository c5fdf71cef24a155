/*
 * What makes a super block, a pair of devices and a quorum block acceptable.  These are the first
 * bytes of a volume that anybody looks at, so everything is checked before any field is used:
 * identity (magic, own block number), integrity (crc), then meaning (version, kind of device,
 * size).
 */
#include "format/super.h"

#include <errno.h>
#include <string.h>

#include "csum/csum.h"

#define FAIL(err, why, text) (*(why) = (text), -(err))

static int check_header(const struct disk_header *hdr, uint32_t magic, uint64_t blkno,
			const char **why)
{
	if (le32_get(hdr->magic) != magic)
		return FAIL(EINVAL, why, magic == MAGIC_SUPER ? "no scoutfs super block" :
							       "no quorum block");
	if (le32_get(hdr->crc) != block_crc(hdr, SMALL_SIZE))
		return FAIL(EBADMSG, why, "checksum is wrong");
	if (le64_get(hdr->blkno) != blkno)
		return FAIL(EBADMSG, why, "block says it belongs somewhere else");
	return 0;
}

int super_check(const struct disk_super *s, const char **why)
{
	int ret = check_header(&s->hdr, MAGIC_SUPER, SUPER_BLKNO, why);

	if (ret < 0)
		return ret;
	if (le64_get(s->fmt_vers) < FORMAT_VERSION_MIN ||
	    le64_get(s->fmt_vers) > FORMAT_VERSION_MAX)
		return FAIL(EOPNOTSUPP, why, "format version is not 1 or 2");
	return 0;
}

static int check_size(uint64_t blocks, unsigned shift, uint64_t bytes, uint64_t first,
		      const char **why)
{
	if (blocks > UINT64_MAX >> shift || blocks <= first)
		return FAIL(EBADMSG, why, "super block has an impossible number of blocks");
	if (blocks > bytes >> shift)
		return FAIL(ENOSPC, why, "device is smaller than the volume says");
	return 0;
}

int super_check_meta(const struct disk_super *s, uint64_t bytes, const char **why)
{
	if (!(le64_get(s->flags) & SUPER_FLAG_IS_META_BDEV))
		return FAIL(EINVAL, why, "this is a data device, not a metadata device");
	return check_size(le64_get(s->total_meta_blocks), LARGE_SHIFT, bytes, META_FIRST_BLKNO,
			  why);
}

int super_check_data(const struct disk_super *s, uint64_t bytes, const char **why)
{
	if (le64_get(s->flags) & SUPER_FLAG_IS_META_BDEV)
		return FAIL(EINVAL, why, "this is a metadata device, not a data device");
	return check_size(le64_get(s->total_data_blocks), SMALL_SHIFT, bytes, DATA_FIRST_BLKNO,
			  why);
}

int super_check_pair(const struct disk_super *meta, const struct disk_super *data,
		     uint64_t meta_bytes, uint64_t data_bytes, const char **why)
{
	int ret;

	if (memcmp(meta->uuid, data->uuid, sizeof(meta->uuid)) != 0)
		return FAIL(EINVAL, why, "the two devices belong to different volumes");
	if (le64_get(meta->fmt_vers) != le64_get(data->fmt_vers))
		return FAIL(EINVAL, why, "the two devices have different format versions");

	/* Each copy's totals are held against both devices (2.3). */
	ret = check_size(le64_get(meta->total_data_blocks), SMALL_SHIFT, data_bytes,
			 DATA_FIRST_BLKNO, why);
	if (ret == 0)
		ret = check_size(le64_get(data->total_meta_blocks), LARGE_SHIFT, meta_bytes,
				 META_FIRST_BLKNO, why);
	return ret;
}

bool quorum_slot_is_configured(const struct disk_quorum_config *qc, unsigned slot)
{
	return le16_get(qc->slots[slot].family) == ADDR_IPV4;
}

bool quorum_addr_is_valid(uint32_t addr, uint16_t port)
{
	/* 0.x is "this network", 224.x and above are multicast, reserved and broadcast. */
	return port != 0 && addr >> 24 != 0 && addr >> 24 < 224;
}

int quorum_block_check(const struct disk_quorum_block *b, unsigned slot, uint64_t fsid,
		       const char **why)
{
	int ret = check_header(&b->hdr, MAGIC_QUORUM, QUORUM_FIRST_BLKNO + slot, why);

	if (ret < 0)
		return -EBADMSG;
	if (le64_get(b->hdr.fsid) != fsid)
		return FAIL(EBADMSG, why, "quorum block of another volume");
	return 0;
}

bool quorum_block_is_in_use(const struct disk_quorum_block *b)
{
	return le64_get(b->events[QUORUM_EVENT_BEGIN].write_nr) >
	       le64_get(b->events[QUORUM_EVENT_END].write_nr);
}

bool quorum_block_is_elected(const struct disk_quorum_block *b)
{
	return le64_get(b->events[QUORUM_EVENT_ELECT].term) >
	       le64_get(b->events[QUORUM_EVENT_STOP].term);
}

uint64_t quorum_block_fence_term(const struct disk_quorum_block *b)
{
	return le64_get(b->events[QUORUM_EVENT_FENCE].term);
}

bool quorum_block_is_unfenced(const struct disk_quorum_block *b, uint64_t fence_term)
{
	return quorum_block_is_elected(b) &&
	       le64_get(b->events[QUORUM_EVENT_ELECT].term) >= fence_term;
}
