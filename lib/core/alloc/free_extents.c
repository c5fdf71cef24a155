/*
 * Free-extent trees, format.md 10.1.
 *
 * Promises: no two extents of a tree overlap or touch; each is there twice, under its last block
 * and under its size class, and total_len is their sum.  Both items of an extent change in one
 * call, so a transaction that commits never leaves one without the other.
 *
 * Relies on btree.h alone.  Nothing of a tree is believed before it is checked against its twin:
 * an item with an impossible length, a size class that does not fit, a missing twin or a sum that
 * would go below zero is -EUCLEAN, and so is a range given back that is already free.  A refusal of
 * what the caller gave changes nothing; after any other error of a changing call abort the
 * transaction.
 */
#include "alloc/free_extents.h"

#include <errno.h>

unsigned extent_order(uint64_t len)
{
	return (63u - (unsigned)__builtin_clzll(len | 1)) / 3;
}

struct key key_free_by_blkno(uint64_t start, uint64_t len)
{
	return (struct key){ .zone = ZONE_FREE_BY_BLKNO, .first = start + len - 1, .second = len };
}

struct key key_free_by_order(uint64_t start, uint64_t len)
{
	return (struct key){ .zone = ZONE_FREE_BY_ORDER, .first = UINT64_MAX - extent_order(len),
			     .second = start + len - 1, .third = len };
}

/* An extent that can exist: not empty, and its last block has a number. */
static bool extent_is_sane(struct extent ext)
{
	return ext.len > 0 && ext.start <= UINT64_MAX - (ext.len - 1);
}

/* The extent an item names, from the place or the size half; -EUCLEAN if it cannot be one. */
static int extent_of_key(const struct key *k, struct extent *ext)
{
	uint64_t last = k->zone == ZONE_FREE_BY_BLKNO ? k->first : k->second;
	uint64_t len = k->zone == ZONE_FREE_BY_BLKNO ? k->second : k->third;
	struct key want;

	if (len == 0 || len - 1 > last)
		return -EUCLEAN;
	*ext = (struct extent){ last - (len - 1), len };
	want = k->zone == ZONE_FREE_BY_BLKNO ? key_free_by_blkno(ext->start, len) :
					       key_free_by_order(ext->start, len);
	return key_eq(k, &want) ? 0 : -EUCLEAN;
}

/* The first item >= key if it is of key's zone. */
static int next_in_zone(struct block_set *bs, const struct disk_alloc_root *root,
			const struct key *key, struct extent *ext)
{
	struct btree_ref ref;
	struct key found;
	int ret;

	ret = btree_next(bs, &root->root, key, &ref);
	if (ret < 0)
		return ret;
	found = ref.item.key;
	btree_put(bs, &ref);
	if (found.zone != ZONE_FREE_BY_BLKNO && found.zone != ZONE_FREE_BY_ORDER)
		return -EUCLEAN;
	if (found.zone != key->zone)
		return -ENOENT;
	return extent_of_key(&found, ext);
}

/* The first extent whose last block is >= at. */
static int next_by_blkno(struct block_set *bs, const struct disk_alloc_root *root, uint64_t at,
			 struct extent *ext)
{
	const struct key key = { .zone = ZONE_FREE_BY_BLKNO, .first = at };

	return next_in_zone(bs, root, &key, ext);
}

static int add_items(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
		     struct extent ext)
{
	struct item it = { .key = key_free_by_blkno(ext.start, ext.len) };
	uint64_t total = le64_get(root->total_len);
	int ret;

	if (total > UINT64_MAX - ext.len)
		return -EUCLEAN;
	ret = btree_insert(bs, al, &root->root, &it);
	if (ret == 0) {
		it.key = key_free_by_order(ext.start, ext.len);
		ret = btree_insert(bs, al, &root->root, &it);
	}
	if (ret < 0)
		return ret == -EEXIST ? -EUCLEAN : ret;
	root->total_len = le64_of(total + ext.len);
	return 0;
}

static int drop_items(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
		      struct extent ext)
{
	struct key key = key_free_by_blkno(ext.start, ext.len);
	uint64_t total = le64_get(root->total_len);
	int ret;

	if (total < ext.len)
		return -EUCLEAN;
	ret = btree_delete(bs, al, &root->root, &key);
	if (ret == 0) {
		key = key_free_by_order(ext.start, ext.len);
		ret = btree_delete(bs, al, &root->root, &key);
	}
	if (ret < 0)
		return ret == -ENOENT ? -EUCLEAN : ret;
	root->total_len = le64_of(total - ext.len);
	return 0;
}

int free_extents_insert(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
			struct extent ext)
{
	struct extent merged = ext;
	struct extent left = { 0 }, right = { 0 };
	int ret;

	if (!extent_is_sane(ext))
		return -EINVAL;

	/* Whoever ends just before us comes first in the index by last block, then who follows. */
	ret = next_by_blkno(bs, root, ext.start ? ext.start - 1 : 0, &right);
	if (ret == 0 && right.start < ext.start && right.start + right.len == ext.start) {
		left = right;
		ret = next_by_blkno(bs, root, ext.start, &right);
	}
	if (ret == -ENOENT)
		right.len = 0;
	else if (ret < 0)
		return ret;
	else if (right.start <= ext.start || right.start - ext.start < ext.len)
		return -EUCLEAN;
	else if (right.start - ext.start > ext.len)
		right.len = 0;

	/* Both neighbours are known before the first item changes: a refusal changes nothing. */
	if (left.len) {
		ret = drop_items(bs, al, root, left);
		if (ret < 0)
			return ret;
		merged.start = left.start;
		merged.len += left.len;
	}
	if (right.len) {
		ret = drop_items(bs, al, root, right);
		if (ret < 0)
			return ret;
		merged.len += right.len;
	}
	return add_items(bs, al, root, merged);
}

int free_extents_overlap(struct block_set *bs, const struct disk_alloc_root *root, struct extent ext)
{
	struct extent found;
	int ret = next_by_blkno(bs, root, ext.start, &found);

	if (ret < 0)
		return ret == -ENOENT ? 0 : ret;
	return found.start < ext.start || found.start - ext.start < ext.len;
}

int free_extents_remove(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
			struct extent ext)
{
	struct extent whole, before, after;
	int ret;

	if (!extent_is_sane(ext))
		return -EINVAL;
	ret = next_by_blkno(bs, root, ext.start, &whole);
	if (ret < 0)
		return ret == -ENOENT ? -EUCLEAN : ret;
	if (whole.start > ext.start || ext.start - whole.start > whole.len - 1 ||
	    whole.len - (ext.start - whole.start) < ext.len)
		return -EUCLEAN;

	before = (struct extent){ whole.start, ext.start - whole.start };
	after = (struct extent){ ext.start + ext.len, whole.len - before.len - ext.len };
	ret = drop_items(bs, al, root, whole);
	if (ret == 0 && before.len)
		ret = add_items(bs, al, root, before);
	if (ret == 0 && after.len)
		ret = add_items(bs, al, root, after);
	return ret;
}

/* An empty tree has no blocks and no sum; one without the other is damage. */
static int is_empty(const struct disk_alloc_root *root)
{
	if (root->root.height == 0)
		return le64_get(root->total_len) == 0 ? 1 : -EUCLEAN;
	return 0;
}

int free_extents_alloc(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
		       uint64_t want, struct extent *ext)
{
	const struct key key = { .zone = ZONE_FREE_BY_ORDER };
	struct extent whole;
	int ret;

	if (want == 0)
		return -EINVAL;
	ret = is_empty(root);
	if (ret != 0)
		return ret < 0 ? ret : -ENOSPC;
	ret = next_in_zone(bs, root, &key, &whole);
	if (ret == -ENOENT)		/* a leaf without items is legal (9.7), a sum is not then */
		return le64_get(root->total_len) == 0 ? -ENOSPC : -EUCLEAN;
	if (ret < 0)
		return ret;

	ret = drop_items(bs, al, root, whole);
	if (ret == 0 && want < whole.len)
		ret = add_items(bs, al, root,
				(struct extent){ whole.start + want, whole.len - want });
	if (ret < 0)
		return ret;
	*ext = (struct extent){ whole.start, want < whole.len ? want : whole.len };
	return 0;
}

int free_extents_next(struct block_set *bs, const struct disk_alloc_root *root, uint64_t at,
		      struct extent *ext)
{
	return next_by_blkno(bs, root, at, ext);
}

/* Two items without value each. */
#define LEAF_EXTENTS_MAX							\
	((BTREE_HASH_OFFSET - sizeof(struct disk_btree_block)) / sizeof(struct disk_btree_item) / 2)

static int count_block(void *arg, const struct btree_visit *v)
{
	uint64_t *nr = arg;
	uint64_t items;

	if (v->err)
		return v->err;
	items = btb_nr(v->bl->data);
	if (v->level_expected == 0)
		*nr += items / 2;
	else if (v->level_expected == 1)
		*nr += items * LEAF_EXTENTS_MAX;
	return v->level_expected <= 1;
}

int free_extents_nr_max(struct block_set *bs, const struct disk_alloc_root *root, uint64_t *nr)
{
	*nr = 0;
	return btree_visit_blocks(bs, &root->root, count_block, nr);
}

int free_extents_move(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *dst,
		      struct disk_alloc_root *src, uint64_t want, unsigned extents_max,
		      uint64_t *moved, uint64_t *lost)
{
	struct extent ext;
	unsigned steps = 0;
	int ret;

	*moved = *lost = 0;
	while (*moved < want && le64_get(src->total_len) > 0) {
		if (steps++ == extents_max)
			return -EINPROGRESS;
		ret = free_extents_alloc(bs, al, src, want - *moved, &ext);
		if (ret == 0)
			ret = free_extents_insert(bs, al, dst, ext);
		if (ret == -EUCLEAN && free_extents_overlap(bs, dst, ext) == 1) {
			*lost += ext.len;
			ret = 0;
		}
		if (ret < 0)
			return ret;
		*moved += ext.len;
	}
	return 0;
}
