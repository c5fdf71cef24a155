/* How much metadata a generation may dirty: runtime.md 5.2; design.md D3 (every answered operation
 * has its room). */
#ifndef SCOUTFS_FSD_ROOM_H
#define SCOUTFS_FSD_ROOM_H

#include "items.h"

struct room;

/* -ENOMEM. */
int room_open(struct room **out);
void room_close(struct room *r);

/* A transaction was opened: lt is what the leader gave.  bs reads our own log tree's parents.  0 or
 * as btree.h. */
int room_opened(struct room *r, struct block_set *bs, const struct disk_log_trees *lt);
/* The open generation was closed with that much in it; from now until room_opened its commit
 * runs. */
void room_closed(struct room *r, const struct items_dirty *closed);

/* key becomes dirty in the open generation; cheap.  Leaves are counted once each. */
void room_touch(struct room *r, const struct key *key);

/* Nothing is dirty, and no commit runs: what was touched by transactions that aborted is
 * forgotten. */
void room_clean(struct room *r);

/*
 * What the open generation may need at worst, with ops_nr more items, and what there will be:
 * blocks. dirty is what is in it; extents how many pieces data_avail has.
 */
struct room_need { uint64_t need, have; bool is_low; };
void room_need(struct room *r, const struct items_dirty *dirty, uint64_t ops_nr, uint64_t extents,
	       struct room_need *out);

#endif
