/*
 * Items of the log_merge tree in host order, checked: format.md 14.1.
 *
 * Each _get: 0, or -EBADMSG with *why in words when key, length, padding or fields cannot be such
 * an item's.  Allocator heads and roots stay in their disk form, as the calls that use them want
 * it.
 */
#ifndef SCOUTFS_MERGE_ITEMS_H
#define SCOUTFS_MERGE_ITEMS_H

#include "alloc/meta_alloc.h"
#include "btree/btree.h"

struct merge_status {
	struct key next_range_key;
	uint64_t nr_requests;
	uint64_t nr_complete;
	uint64_t seq;
};

struct merge_range {
	struct key start;
	struct key end;		/* inclusive, as everywhere here */
};

struct merge_request {
	struct disk_alloc_list_head meta_avail;
	struct disk_alloc_list_head meta_freed;
	struct disk_btree_root logs_root;
	struct disk_btree_root root;
	struct key start;
	struct key end;
	uint64_t input_seq;
	uint64_t rid;
	uint64_t seq;
	uint64_t flags;		/* MERGE_REQUEST_ */
};

struct merge_complete {
	struct disk_alloc_list_head meta_avail;
	struct disk_alloc_list_head meta_freed;
	struct disk_btree_root root;
	struct key start;
	struct key end;
	struct key remain;
	uint64_t rid;
	uint64_t seq;
	uint64_t flags;		/* MERGE_COMPLETE_ */
};

struct merge_freeing {
	struct disk_btree_root root;
	struct key key;		/* blocks up to here are free already; zeros: none */
	uint64_t seq;
};

int merge_status_get(const struct item *it, struct merge_status *st, const char **why);
int merge_range_get(const struct item *it, struct merge_range *range, const char **why);
int merge_request_get(const struct item *it, struct merge_request *req, const char **why);
int merge_complete_get(const struct item *it, struct merge_complete *comp, const char **why);
int merge_freeing_get(const struct item *it, struct merge_freeing *fr, const char **why);

/* Back into their stored form. */
void merge_request_put(const struct merge_request *req, struct disk_merge_request *d);
void merge_complete_put(const struct merge_complete *comp, struct disk_merge_complete *d);

/* The status item of a log_merge tree; -ENOENT: no merge is active.  Errors as btree.h. */
int merge_status_read(struct block_set *bs, const struct disk_btree_root *log_merge,
		      struct merge_status *st);

#endif
