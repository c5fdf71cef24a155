/* Where the listing of an open directory ends: at what there was when it began.  runtime.md 14. */
#ifndef SCOUTFS_FSD_LISTING_H
#define SCOUTFS_FSD_LISTING_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The first position that the listing of that open directory does not show, where next_pos is the one that the directory
 * gives to its next name.  off is what FUSE asks for: where that does not go on from the answer before, the listing
 * has begun anew (the kernel may have had its begin itself), and what is there now counts.  fh 0, or no memory:
 * next_pos.
 */
uint64_t listing_end(uint64_t fh, uint64_t off, uint64_t next_pos);
/* What was asked from off on has been answered, up to offset reached; off itself where there was nothing more. */
void listing_gave(uint64_t fh, uint64_t off, uint64_t reached);
/* The directory is not open any more. */
void listing_closed(uint64_t fh);

#endif
