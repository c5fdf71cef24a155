/*
 * Quorum blocks.
 *
 * A record is read, checked, changed in one event, written and flushed; nothing of it is believed
 * before the flush has ended.  A block that is older than what we wrote is refused.  Whoever fences must see every configured slot, so the reader says
 * which blocks could not be read; the fence list is only for a complete set.
 */
#include "quorum_slot.h"

#include <errno.h>

#include "csum/csum.h"
#include "format/super.h"
#include "util/planted.h"

static uint64_t slot_blkno(unsigned slot)
{
	return QUORUM_FIRST_BLKNO + slot;
}

static int read_block(const struct quorum_dev *dev, uint64_t fsid, unsigned slot,
		      struct disk_quorum_block *b)
{
	const char *why;
	int ret = dev->read(dev->arg, slot_blkno(slot), b);

	return ret < 0 ? ret : quorum_block_check(b, slot, fsid, &why);
}

void quorum_slots_read(const struct quorum_dev *dev, uint64_t fsid, uint32_t present,
		       struct quorum_slots *out)
{
	_Alignas(4096) struct disk_quorum_block b;

	*out = (struct quorum_slots){ .present = present };
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		int ret;

		if (!(present & 1u << i))
			continue;
		ret = read_block(dev, fsid, i, &b);
		if (ret < 0) {
			if (!out->error)
				out->error = ret;
			continue;
		}
		out->readable |= 1u << i;
		out->write_nr[i] = le64_get(b.write_nr);
		for (unsigned e = 0; e < QUORUM_EVENTS_NR; e++) {
			/* An event with rid 0 never happened (6.2). */
			if (le64_get(b.events[e].rid) == 0)
				continue;
			out->events[i][e] = (struct quorum_event_rec){
				le64_get(b.events[e].write_nr),
				le64_get(b.events[e].rid),
				le64_get(b.events[e].term),
			};
		}
	}
}

uint64_t quorum_slots_incarnation(const struct quorum_slots *s, unsigned slot)
{
	return 1ull << 63 | (s->write_nr[slot] + 1);
}

uint64_t quorum_slots_max_term(const struct quorum_slots *s)
{
	uint64_t term = 0;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		for (unsigned e = 0; e < QUORUM_EVENTS_NR; e++) {
			if (s->events[i][e].term > term)
				term = s->events[i][e].term;
		}
	}
	return term;
}

uint64_t quorum_slots_newer(const struct quorum_slots *s, uint64_t term)
{
	uint64_t newer = 0;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		uint64_t elected = s->events[i][QUORUM_EVENT_ELECT].term;

		if (elected > term && elected > newer && !PLANTED(quorum_overtaken_serves))
			newer = elected;
	}
	return newer;
}

bool quorum_slot_is_led(const struct quorum_slots *s, unsigned slot)
{
	return s->events[slot][QUORUM_EVENT_ELECT].term > s->events[slot][QUORUM_EVENT_STOP].term;
}

static void add_fence(const struct quorum_event_rec *e, unsigned slot, uint64_t fenced,
		      uint64_t rid, uint64_t term, struct quorum_fence *out, size_t *nr)
{
	if (e->term == 0 || e->term < fenced || e->term > term || e->rid == rid)
		return;
	for (size_t i = 0; i < *nr; i++) {
		if (out[i].rid == e->rid)
			return;
	}
	out[(*nr)++] = (struct quorum_fence){ e->rid, e->term, slot };
}

size_t quorum_slots_to_fence(const struct quorum_slots *s, uint64_t rid, uint64_t term,
			     struct quorum_fence out[QUORUM_FENCES_MAX])
{
	uint64_t fenced = 0;
	size_t nr = 0;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (s->events[i][QUORUM_EVENT_FENCE].term > fenced)
			fenced = s->events[i][QUORUM_EVENT_FENCE].term;
	}
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		const struct quorum_event_rec *elect = &s->events[i][QUORUM_EVENT_ELECT];
		const struct quorum_event_rec *fence = &s->events[i][QUORUM_EVENT_FENCE];
		uint64_t stopped = s->events[i][QUORUM_EVENT_STOP].term;

		if (elect->term > stopped)
			add_fence(elect, i, fenced, rid, term, out, &nr);
		if (fence->term > stopped && fence->term < elect->term)
			add_fence(fence, i, fenced, rid, term, out, &nr);
	}
	return nr;
}

int quorum_slot_record(const struct quorum_dev *dev, uint64_t fsid, unsigned slot, uint64_t rid,
		       enum quorum_event_kind kind, uint64_t term, struct timespec now,
		       uint64_t *last_nr)
{
	_Alignas(4096) struct disk_quorum_block b;
	struct disk_quorum_event *e = &b.events[kind];
	uint64_t write_nr;
	int ret;

	ret = read_block(dev, fsid, slot, &b);
	if (ret < 0)
		return ret;
	if (kind != QUORUM_EVENT_BEGIN && le64_get(b.events[QUORUM_EVENT_BEGIN].rid) != rid)
		return -EEXIST;
	/* Writing an old block again would take back what we have promised since. */
	if (le64_get(b.write_nr) < *last_nr && !PLANTED(quorum_believes_an_old_block))
		return -ESTALE;
	write_nr = le64_get(b.write_nr) + 1;
	b.write_nr = le64_of(write_nr);
	e->write_nr = le64_of(write_nr);
	e->rid = le64_of(rid);
	e->term = le64_of(term);
	e->ts.sec = le64_of((uint64_t)now.tv_sec);
	e->ts.nsec = le32_of((uint32_t)now.tv_nsec);
	b.hdr.crc = le32_of(block_crc(&b, sizeof(b)));
	ret = dev->write(dev->arg, slot_blkno(slot), &b);
	ret = ret < 0 ? ret : dev->flush(dev->arg);
	if (ret == 0)
		*last_nr = write_nr;
	return ret;
}
