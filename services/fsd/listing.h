/* Where the listing of an open directory ends: at what there was when it began.  runtime.md 14. */
#ifndef SCOUTFS_FSD_LISTING_H
#define SCOUTFS_FSD_LISTING_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The first position that the listing of that open directory does not show, where next_pos is the one that the directory
 * gives to its next name.  begins: it is read from its start, so what is there now counts.  fh 0, or no memory: next_pos.
 */
uint64_t listing_end(uint64_t fh, bool begins, uint64_t next_pos);
/* The directory is not open any more. */
void listing_closed(uint64_t fh);

#endif
