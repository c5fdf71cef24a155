/*
 * The ranges of one file that one owner has locked: disjoint, in order, never two of a type side by side.
 * fcntl(2) "Advisory record locking".  Pure; allocates.
 *
 * serverd keeps one for each owner and file, and so does the mount that the owner lives on: both apply
 * the same changes in the same order and so have the same.
 */
#ifndef SCOUTFS_ADV_RANGES_H
#define SCOUTFS_ADV_RANGES_H

#include <stdbool.h>
#include <stdint.h>

/* The same numbers as on the wire. */
enum adv_type { ADV_UNLOCK, ADV_READ, ADV_WRITE };

#define ADV_OWNER_RANGES_MAX	4096u	/* of one owner in one file */

struct adv_range {
	uint64_t first, last;	/* both inside */
	uint8_t type;		/* ADV_READ or ADV_WRITE */
};

struct adv_ranges {
	struct adv_range *v;
	uint32_t nr, max;
};

/*
 * What the owner has from first to last is `type` from now on; ADV_UNLOCK: nothing.  -ENOLCK: more than
 * `limit` pieces; -ENOMEM.  On an error nothing has changed.  Unlocking everything never fails.
 */
int adv_ranges_set(struct adv_ranges *r, uint64_t first, uint64_t last, uint8_t type, uint32_t limit);
/* The first range that keeps another owner from getting `type` from first to last; NULL: none does. */
const struct adv_range *adv_ranges_conflict(const struct adv_ranges *r, uint64_t first, uint64_t last,
					    uint8_t type);
/* Whether all from first to last is `type` already. */
bool adv_ranges_have(const struct adv_ranges *r, uint64_t first, uint64_t last, uint8_t type);
/* Whether all from first to last is locked, of whichever type. */
bool adv_ranges_cover(const struct adv_ranges *r, uint64_t first, uint64_t last);
/* Free what it has; it is empty then, and good for use. */
void adv_ranges_clear(struct adv_ranges *r);

#endif
