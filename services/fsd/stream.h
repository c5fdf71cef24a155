/* What one generation changed, and putting that into the mount's log tree: format.md 11.3, 12.2;
 * design.md D3. */
#ifndef SCOUTFS_FSD_STREAM_H
#define SCOUTFS_FSD_STREAM_H

#include "alloc/meta_alloc.h"
#include "inode.h"

/* A copy of an item as the generation left it. */
struct stream_item {
	struct key key;
	uint64_t write_seq;	/* of the lock that orders it */
	size_t val_at;		/* in vals */
	uint16_t len;
	bool is_deleted;
};

struct stream_extents {
	struct extent *v;
	size_t nr, cap;
};

/* Everything of a generation but its file data; owns its memory.  Begin with all zero. */
struct stream {
	uint64_t gen;
	struct stream_item *items;	/* ascending */
	size_t nr, cap;
	uint8_t *vals;
	size_t vals_len, vals_cap;
	struct stream_extents allocated, freed;	/* data blocks: sorted, joined */
	int64_t inode_delta;
};

/* From the snapshot that items_close_gen made for gen.  0, -ENOMEM, -EIO. */
int stream_collect(struct itx *snap, uint64_t gen, struct stream *st);
void stream_free(struct stream *st);

/*
 * Write it into *lt, which the caller copied from the last committed one.  seq: the transaction's;
 * tree_seq: the first one of this log tree (nr): an index item since then was written by us into
 * this tree and can be taken out without a marker.  lt's lists are closed on return;
 * block_set_write is the caller's.  Errors as btree.h; abort the set and forget lt then.
 */
int stream_write(const struct stream *st, struct block_set *bs, struct disk_log_trees *lt,
		 uint64_t seq, uint64_t tree_seq, uint32_t fmt_vers);

/* The row of TABLE_META that holds what gen adds to the inode count. */
size_t stream_count_row(uint64_t gen, uint8_t row[16]);

#endif
