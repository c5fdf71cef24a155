/* What the parts of the forest share: lib/core/log only. */
#ifndef SCOUTFS_FOREST_IMPL_H
#define SCOUTFS_FOREST_IMPL_H

#include "log/forest.h"

/* Who wins between versions with one seq: the greater rank (runtime.md 6.2, [H]). */
enum forest_rank { RANK_FS_ROOT, RANK_FINALIZED, RANK_OPEN };

/* One tree of the forest. */
struct forest_src {
	struct disk_btree_root root;
	struct disk_block_ref bloom_ref;	/* unused for fs_root */
	enum forest_rank rank;
	bool is_merge_input;			/* 11.6: its totals may be in fs_root already */
};

/*
 * All trees that have items, fs_root first, then in logs_root order; the caller frees *srcs.
 * -ENOMEM, -EBADMSG or as btree.h.
 */
int forest_sources(struct block_set *bs, const struct forest_roots *roots, struct forest_src **srcs,
		   size_t *nr);

/* Copies of items.  Values lie in one buffer that moves as it grows: they are named by offset. */
struct kept_item {
	struct key key;
	uint64_t seq;
	size_t val_at;
	uint16_t val_len;
	uint8_t flags;
	uint8_t rank;
};

struct item_list {
	struct kept_item *v;
	size_t nr, cap;
	uint8_t *vals;
	size_t vals_len, vals_cap;
};

int item_list_add(struct item_list *list, const struct item *it, enum forest_rank rank);
static inline void item_list_clear(struct item_list *list)
{
	list->nr = 0;
	list->vals_len = 0;
}
void item_list_free(struct item_list *list);
struct item item_list_get(const struct item_list *list, size_t i);

/* Combines the versions of one key, offered in the order of the sources (11.3, 11.6). */
struct totals {
	bool any;
	uint64_t seq, total, count;
};

struct resolve {
	bool any;
	enum forest_rank rank;
	struct item best;
	struct totals fs, input, live;
	struct disk_xattr_total sum;
};

/* 1: it is the newest so far, and r->best is a copy of *it; 0: it is not, or was added to a total;
 * -EBADMSG: a total that cannot be one. */
int resolve_add(struct resolve *r, const struct forest_src *src, const struct item *it);
/* Whether the key exists; then *it is its version, its value in r or where best's was. */
bool resolve_finish(struct resolve *r, struct item *it);

#endif
