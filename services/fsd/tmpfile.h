/* Files that were made without a name (O_TMPFILE), until they get one or end: interface.md 1.6. */
#ifndef SCOUTFS_FSD_TMPFILE_H
#define SCOUTFS_FSD_TMPFILE_H

#include "items.h"

/*
 * In tx, 0 or as items_error: ino has no name yet and may get its first one; whether that is so;
 * it has one, or is being deleted.
 */
int tmpfile_note(struct itx *tx, uint64_t ino);
int tmpfile_is(struct itx *tx, uint64_t ino, bool *is);
int tmpfile_end(struct itx *tx, uint64_t ino);

#endif
