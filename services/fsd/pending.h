/*
 * The turns of writes from mappings that were answered before they are applied: design.md D4.  Who waits
 * until an inode has none any more calls data_wait_pending() (data.h).
 */
#ifndef SCOUTFS_FSD_PENDING_H
#define SCOUTFS_FSD_PENDING_H

#include <stdbool.h>
#include <stdint.h>

struct op;

/* One such write; embedded in its operation. */
struct pending_turn {
	struct pending_turn *next;
	struct op *op;		/* parked until it is its turn */
};

/* Whether ino has one that is not applied yet. */
bool pending_is_there(uint64_t ino);
/* Whether a truncation of ino waits for them (op->keeps_pages). */
bool pending_keeps_pages(uint64_t ino);
/* Before it is answered: it comes after all that are there.  0 or -ENOMEM. */
int pending_begin(uint64_t ino, struct pending_turn *t);
/* For run(): 0 when nothing is before t, else OP_PARKED. */
int pending_wait_turn(struct op *op, uint64_t ino, struct pending_turn *t);
/*
 * One is over; err < 0 is kept for the next fsync of ino, but -ESTALE: there will be none.  Wakes the next, or who waits
 * for the last.
 */
void pending_end(uint64_t ino, struct pending_turn *t, int err);
/* ino has no name and nobody has it open: an error that is kept for its next fsync goes. */
void pending_nobody_asks(uint64_t ino);

/* Under which a write lies in the item cache: never given twice.  An earlier process's are made known first. */
uint64_t pending_new_id(void);
void pending_id_seen(uint64_t id);

#endif
