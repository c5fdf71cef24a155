/* What programs have stored to mappings is written back before they are cut off: design.md D4, D7.
 */
#ifndef SCOUTFS_FSD_SAVED_H
#define SCOUTFS_FSD_SAVED_H

#include <stdbool.h>

#include "fsd.h"

struct saved;

/*
 * Have the kernel write back what it has of stores to mappings, for `ms` at most, where there is a
 * leader and a lease.  Of a mount that is about to be cut off, once.  NULL: nothing was tried. What
 * comes back is for saved_end(), after the cut.
 */
struct saved *saved_begin(struct fsd *fsd, unsigned ms);
/* The programs were cut off since.  It is noted (fsd->stores_saved) when none of them had stored
 * anything that is not here. */
void saved_end(struct saved *s);

#endif
