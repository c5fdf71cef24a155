/*
 * The super block, its copy and the quorum region: invariants 1-3, and whether the volume was
 * cleanly unmounted (format.md 6.2, 18.2).  A super that cannot be believed ends the check: every
 * other rule is relative to it.
 */
#include "check_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "format/super.h"

static bool all_zero(const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		if (b[i])
			return false;
	return true;
}

/* Rules of each copy by itself; fsid is taken from the meta copy's own header. */
static bool check_copy(struct check *ck, const struct disk_super *s, const char *which)
{
	uint64_t vers = le64_get(s->fmt_vers);
	const char *why;

	if (block_header_check(s, SMALL_SIZE, MAGIC_SUPER, le64_get(s->hdr.fsid), SUPER_BLKNO,
			       &why)) {
		check_find(ck, 1, NOWHERE, "the super block of the %s device: %s", which, why);
		return false;
	}
	if (vers < FORMAT_VERSION_MIN || vers > FORMAT_VERSION_MAX) {
		check_find(ck, 1, NOWHERE,
			   "the super block of the %s device has format version %" PRIu64
			   ", known are %d to %d",
			   which, vers, FORMAT_VERSION_MIN, FORMAT_VERSION_MAX);
		return false;
	}
	if (!all_zero(s->unused, sizeof(s->unused)))
		check_find(ck, 1, NOWHERE,
			   "unused bytes 1488..4095 of the super block of the %s device "
			   "are not zero",
			   which);
	if (le64_get(s->total_meta_blocks) > ck->meta_bytes >> LARGE_SHIFT)
		check_find(ck, 1, NOWHERE,
			   "the super block of the %s device counts %" PRIu64 " large blocks, "
			   "the metadata device has room for %" PRIu64,
			   which, le64_get(s->total_meta_blocks), ck->meta_bytes >> LARGE_SHIFT);
	if (ck->data_super && le64_get(s->total_data_blocks) > ck->data_bytes >> SMALL_SHIFT)
		check_find(ck, 1, NOWHERE,
			   "the super block of the %s device counts %" PRIu64 " data blocks, "
			   "the data device has room for %" PRIu64,
			   which, le64_get(s->total_data_blocks), ck->data_bytes >> SMALL_SHIFT);
	return true;
}

static void check_data_copy(struct check *ck)
{
	const struct disk_super *m = &ck->super, *d = ck->data_super;

	if (!d || !check_copy(ck, d, "data"))
		return;
	if (le64_get(d->flags) & SUPER_FLAG_IS_META_BDEV)
		check_find(ck, 1, NOWHERE,
			   "the data device's super block says it is a metadata device");
	if (memcmp(m->uuid, d->uuid, sizeof(m->uuid)))
		check_find(ck, 1, NOWHERE,
			   "the two devices have different uuids: they do not belong together");
	if (le64_get(m->hdr.fsid) != le64_get(d->hdr.fsid))
		check_find(ck, 1, NOWHERE,
			   "the two devices have different fsids: they do not belong together");
	if (le64_get(m->fmt_vers) != le64_get(d->fmt_vers))
		check_find(ck, 1, NOWHERE,
			   "format version %" PRIu64 " on the metadata device, %" PRIu64
			   " on the data device",
			   le64_get(m->fmt_vers), le64_get(d->fmt_vers));
}

static void check_qconf(struct check *ck)
{
	const struct disk_quorum_config *q = &ck->super.qconf;
	unsigned nr = 0;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		uint32_t addr = le32_get(q->slots[i].addr);

		if (le16_get(q->slots[i].family) == ADDR_NONE)
			continue;
		nr++;
		if (le16_get(q->slots[i].family) != ADDR_IPV4) {
			check_find(ck, 2, NOWHERE, "quorum slot %u has unknown address family %u",
				   i, le16_get(q->slots[i].family));
			continue;
		}
		if (!le16_get(q->slots[i].port))
			check_find(ck, 2, NOWHERE, "quorum slot %u has port 0", i);
		if (!addr || addr >> 28 >= 0xe)
			check_find(ck, 2, NOWHERE, "the address of quorum slot %u is not unicast",
				   i);
		for (unsigned j = 0; j < i; j++)
			if (le16_get(q->slots[j].family) == ADDR_IPV4 &&
			    le32_get(q->slots[j].addr) == addr &&
			    le16_get(q->slots[j].port) == le16_get(q->slots[i].port))
				check_find(ck, 2, NOWHERE,
					   "quorum slots %u and %u have the same address", j, i);
	}
	if (!nr)
		check_find(ck, 2, NOWHERE, "no quorum slot is configured");
}

static void check_volopt(struct check *ck)
{
	const struct disk_volume_options *o = &ck->super.volopt;
	uint64_t bits = le64_get(o->set_bits), zone = le64_get(o->data_alloc_zone_blocks);

	if (bits & ~1ull || !all_zero(o->future, sizeof(o->future)))
		check_find(ck, 2, NOWHERE, "unknown volume options are set (bits %#" PRIx64 ")",
			   bits);
	if (!(bits & 1) && zone)
		check_find(ck, 2, NOWHERE, "the data zone size is %" PRIu64 " but not set", zone);
	if (bits & 1 && (zone < DATA_ALLOC_ZONE_BLOCKS_MIN ||
			 zone < ck->data_blocks / DATA_ALLOC_ZONES_MAX || zone > ck->data_blocks))
		check_find(ck, 2, NOWHERE, "the data zone size %" PRIu64 " is outside its limits",
			   zone);
}

int check_super(struct check *ck, const uint8_t *block1)
{
	memcpy(&ck->super, block1, sizeof(ck->super));
	if (!check_copy(ck, &ck->super, "metadata"))
		return -EBADMSG;
	if (!(le64_get(ck->super.flags) & SUPER_FLAG_IS_META_BDEV)) {
		check_find(ck, 1, NOWHERE,
			   "the super block does not say that this is a metadata device");
		return -EBADMSG;
	}
	ck->fsid = le64_get(ck->super.hdr.fsid);
	ck->fmt_vers = (unsigned)le64_get(ck->super.fmt_vers);
	ck->meta_blocks = le64_get(ck->super.total_meta_blocks);
	ck->data_blocks = le64_get(ck->super.total_data_blocks);
	ck->seq_max = le64_get(ck->super.seq);
	if (ck->meta_blocks <= META_FIRST_BLKNO || ck->data_blocks <= DATA_FIRST_BLKNO) {
		check_find(ck, 1, NOWHERE,
			   "the super block counts %" PRIu64 " large and %" PRIu64
			   " data blocks: there can be nothing",
			   ck->meta_blocks, ck->data_blocks);
		return -EBADMSG;
	}
	if (ck->meta_blocks > ck->meta_bytes >> LARGE_SHIFT)
		return -EBADMSG;
	check_data_copy(ck);
	check_qconf(ck);
	check_volopt(ck);
	return 0;
}

static void check_events(struct check *ck, unsigned slot, const struct disk_quorum_block *q)
{
	for (unsigned e = 0; e < QUORUM_EVENTS_NR; e++) {
		uint64_t nr = le64_get(q->events[e].write_nr);

		if (nr > le64_get(q->write_nr))
			check_find(ck, 3, NOWHERE,
				   "quorum slot %u: event %u has write number %" PRIu64
				   ", the block "
				   "only %" PRIu64,
				   slot, e, nr, le64_get(q->write_nr));
		for (unsigned f = 0; nr && f < e; f++)
			if (le64_get(q->events[f].write_nr) == nr)
				check_find(ck, 3, NOWHERE,
					   "quorum slot %u: events %u and %u have the same write "
					   "number %" PRIu64,
					   slot, f, e, nr);
	}
}

static const struct disk_quorum_block *slot_block(const uint8_t *block1, unsigned slot)
{
	return (const void *)(block1 + (QUORUM_FIRST_BLKNO - SUPER_BLKNO + slot) * SMALL_SIZE);
}

/* The newest term whose leader has fenced all before it: what those left is nobody's concern. */
static uint64_t newest_fence(const struct check *ck, const uint8_t *block1)
{
	uint64_t term, newest = 0;
	const char *why;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (quorum_block_check(slot_block(block1, i), i, ck->fsid, &why) < 0)
			continue;
		term = quorum_block_fence_term(slot_block(block1, i));
		if (term > newest)
			newest = term;
	}
	return newest;
}

/* All 15 blocks must be well formed; only configured slots can be in use (6.2). */
void check_quorum(struct check *ck, const uint8_t *block1)
{
	uint64_t fence_term = newest_fence(ck, block1);

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		const struct disk_quorum_block *q = slot_block(block1, i);
		const struct disk_quorum_event *ev = q->events;
		const char *why;

		if (block_header_check(q, SMALL_SIZE, MAGIC_QUORUM, ck->fsid,
				       QUORUM_FIRST_BLKNO + i, &why)) {
			check_find(ck, 1, NOWHERE, "quorum block %u: %s", i, why);
			continue;
		}
		check_events(ck, i, q);
		if (le16_get(ck->super.qconf.slots[i].family) != ADDR_IPV4)
			continue;
		if (quorum_block_is_in_use(q)) {
			ck->is_in_use = true;
			check_note(
				ck,
				"not cleanly unmounted: quorum slot %u was in use by rid %016" PRIx64,
				i, le64_get(ev[QUORUM_EVENT_BEGIN].rid));
		}
		if (quorum_block_is_unfenced(q, fence_term)) {
			ck->is_in_use = true;
			check_note(ck,
				   "not cleanly unmounted: the leader of term %" PRIu64
				   " in slot %u (rid %016" PRIx64 ") has not stopped",
				   le64_get(ev[QUORUM_EVENT_ELECT].term), i,
				   le64_get(ev[QUORUM_EVENT_ELECT].rid));
		}
	}
}
