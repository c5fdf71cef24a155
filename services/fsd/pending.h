/*
 * The turns of writes from mappings that were answered before they are applied: design.md D4.  Who waits
 * until an inode has none any more calls data_wait_pending() (data.h).
 */
#ifndef SCOUTFS_FSD_PENDING_H
#define SCOUTFS_FSD_PENDING_H

#include <stdbool.h>
#include <stdint.h>

struct op;

/* Whether ino has one that is not applied yet. */
bool pending_is_there(uint64_t ino);
/* One that runs already: those that come from now on wait for it.  0 or -ENOMEM. */
int pending_add_running(uint64_t ino);
/* 1: nothing is before op, start it; 0: it will be started; or -ENOMEM. */
int pending_add(uint64_t ino, struct op *op);
/* One is over; err < 0 is kept for the next fsync of ino.  Starts the next one, wakes who waits for the last. */
void pending_end(uint64_t ino, int err);

/* Under which a write lies in the item cache: never given twice.  An earlier process's are made known first. */
uint64_t pending_new_id(void);
void pending_id_seen(uint64_t id);

#endif
