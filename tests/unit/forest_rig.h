/* For tests of log/forest.h: a volume of some log trees over one fs_root. */
#ifndef SCOUTFS_TEST_FOREST_RIG_H
#define SCOUTFS_TEST_FOREST_RIG_H

#include "rig.h"

#include <errno.h>

#include "log/forest.h"
#include "log/merge_items.h"

#define RIG_FIRST 9000u
#define TOTAL 30000u
#define TREES_MAX 64u

/*
 * A volume of some log trees over one fs_root.  Trees are written through one meta_alloc,
 * everything else through the rig's allocator.
 */
struct forest {
	struct rig r;
	struct disk_alloc_list_head avail, freed;
	struct meta_alloc ma;
	struct forest_roots roots;
	struct disk_log_trees lt[TREES_MAX];
	size_t lt_nr;
	uint64_t seq;
};

static inline void forest_open(struct forest *f)
{
	const struct item first = { .key = key_inode(1), .seq = 1, .val = "root", .val_len = 4 };
	struct disk_alloc_root free_blocks = { 0 };

	memset(f, 0, sizeof(*f));
	rig_open(&f->r, RIG_FIRST, TOTAL);
	assert_int_equal(
		free_extents_insert(f->r.bs, &f->r.al, &free_blocks, (struct extent){ 2, 8000 }),
		0);
	assert_int_equal(alloc_list_fill(f->r.bs, &f->r.al, &f->avail, &free_blocks, 8000, 8000),
			 0);
	assert_int_equal(btree_insert(f->r.bs, &f->r.al, &f->roots.fs_root, &first), 0);
	rig_commit(&f->r);
	meta_alloc_open(&f->ma, f->r.bs, &f->avail, &f->freed);
	f->seq = 1;
}

static inline void forest_fini(struct forest *f)
{
	meta_alloc_close(&f->ma);
	rig_close(&f->r);
}

static inline struct disk_log_trees *add_tree(struct forest *f, uint64_t rid)
{
	struct disk_log_trees *lt = &f->lt[f->lt_nr++];
	uint64_t nr = 1;

	assert_true(f->lt_nr <= TREES_MAX);
	for (size_t i = 0; i + 1 < f->lt_nr; i++) {
		if (le64_get(f->lt[i].rid) == rid && le64_get(f->lt[i].nr) >= nr)
			nr = le64_get(f->lt[i].nr) + 1;
	}
	*lt = (struct disk_log_trees){ .rid = le64_of(rid), .nr = le64_of(nr) };
	return lt;
}

static inline void put(struct forest *f, struct disk_log_trees *lt, struct key key, uint64_t seq,
		       uint8_t flags, const void *val, uint16_t len)
{
	const struct item it = {
		.key = key, .seq = seq, .flags = flags, .val = val, .val_len = len
	};

	assert_int_equal(log_tree_force(f->r.bs, &f->ma, lt, &it), 0);
}

static inline void put_fs(struct forest *f, struct key key, uint64_t seq, const void *val, uint16_t len)
{
	const struct item it = { .key = key, .seq = seq, .val = val, .val_len = len };

	assert_int_equal(btree_force(f->r.bs, &f->r.al, &f->roots.fs_root, &it), 0);
}

static inline void finalize(struct forest *f, struct disk_log_trees *lt)
{
	lt->flags = le64_of(LOG_TREES_FLAG_FINALIZED);
	lt->finalize_seq = le64_of(++f->seq);
}

static inline void set_merge_status(struct forest *f, uint64_t seq)
{
	const struct disk_merge_status st = { .seq = le64_of(seq) };
	const struct item it = { .key = { .zone = ZONE_MERGE_STATUS },
				 .val = &st,
				 .val_len = sizeof(st) };

	assert_int_equal(btree_force(f->r.bs, &f->r.al, &f->roots.log_merge, &it), 0);
}

/* Make logs_root say what f->lt says, write everything and forget what is cached. */
static inline void publish(struct forest *f, size_t clean_max)
{
	struct item it;

	if (f->roots.logs_root.height)
		assert_int_equal(btree_free(f->r.bs, &f->r.al, &f->roots.logs_root), 0);
	for (size_t i = 0; i < f->lt_nr; i++) {
		it = (struct item){ .key = key_log_trees(le64_get(f->lt[i].rid),
							 le64_get(f->lt[i].nr)),
				    .val = &f->lt[i],
				    .val_len = sizeof(f->lt[i]) };
		assert_int_equal(btree_insert(f->r.bs, &f->r.al, &f->roots.logs_root, &it), 0);
	}
	meta_alloc_close(&f->ma);
	rig_commit(&f->r);
	rig_reopen(&f->r, clean_max);
	meta_alloc_open(&f->ma, f->r.bs, &f->avail, &f->freed);
}

#endif
