/*
 * Quorum blocks: reading all of them, what they say together, recording an event in ours.
 * format.md 6; runtime.md 1.2, 2.2.
 */
#ifndef SCOUTFS_QUORUM_SLOT_H
#define SCOUTFS_QUORUM_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "format/format.h"

/* Small blocks of the metadata device; each returns 0 or -errno and may block. */
struct quorum_dev {
	void *arg;
	int (*read)(void *arg, uint64_t blkno, void *buf);
	int (*write)(void *arg, uint64_t blkno, const void *buf);
	int (*flush)(void *arg);
};

struct quorum_event_rec {
	uint64_t write_nr, rid, term;
};

struct quorum_slots {
	uint32_t present;	/* configured in the super */
	uint32_t readable;	/* of these, whose block could be read and was right */
	int error;		/* the first that made one unreadable, else 0 */
	uint64_t write_nr[QUORUM_SLOTS_MAX];	/* how often each block was written */
	struct quorum_event_rec events[QUORUM_SLOTS_MAX][QUORUM_EVENTS_NR];
};

/* Read the blocks of all present slots; an unreadable one is left out, not an error. */
void quorum_slots_read(const struct quorum_dev *dev, uint64_t fsid, uint32_t present,
		       struct quorum_slots *out);

/*
 * Of the process that finds this slot's block as it is, and will write BEGIN before it speaks: greater than that of each
 * process of the slot before it, whatever the clock says.  (Those of earlier versions took the time of day, below 2^63.)
 */
uint64_t quorum_slots_incarnation(const struct quorum_slots *s, unsigned slot);
/* The greatest term of any event of any readable slot. */
uint64_t quorum_slots_max_term(const struct quorum_slots *s);
/*
 * The greatest term above `term` in which a slot was elected; 0: none.  Who is elected and finds one has been
 * overtaken, and may not serve: that leader may have looked for earlier ones before our ELECT was there.
 */
uint64_t quorum_slots_newer(const struct quorum_slots *s, uint64_t term);
/* Whether a slot's last leader has not stopped. */
bool quorum_slot_is_led(const struct quorum_slots *s, unsigned slot);

struct quorum_fence {
	uint64_t rid, term;
	unsigned slot;
};
#define QUORUM_FENCES_MAX (2 * QUORUM_SLOTS_MAX)

/*
 * The previous leaders that must be fenced before a leader of `term` with our rid may serve (2.2),
 * each rid once; returns how many.
 */
size_t quorum_slots_to_fence(const struct quorum_slots *s, uint64_t rid, uint64_t term,
			     struct quorum_fence out[QUORUM_FENCES_MAX]);

/*
 * Record an event in our block, durably.  *write_nr is the last write of the block that we know of (of the
 * scan at the start, then ours), and is this one afterwards.  -EEXIST: the slot is used by another mount at
 * the same time (BEGIN is not ours); -ESTALE: the device gave a block that is older than that write; -EBADMSG:
 * the block is damaged; errors of the device.
 */
int quorum_slot_record(const struct quorum_dev *dev, uint64_t fsid, unsigned slot, uint64_t rid,
		       enum quorum_event_kind kind, uint64_t term, struct timespec now,
		       uint64_t *write_nr);

#endif
