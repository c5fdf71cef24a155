/*
 * One log tree: its description in logs_root, its bloom block, and writing its items.
 * format.md 11.1, 11.3, 11.4, 11.6.
 *
 * Promises: a tree with items has a bloom block with the bits of every one of them, and a tree
 * without items has none - upstream's readers miss items in either other case (11.4).  So the bits
 * are set before the item is written, and the bloom block goes with the last item.
 *
 * Zone 12 is different: a value there is an increment, and writing one adds to what the tree
 * already has under that key.
 *
 * Errors as btree.h: after any but -ENOENT and -EINVAL the set must be aborted, and lt is void.
 */
#include "log/forest.h"

#include <errno.h>
#include <string.h>

#include "csum/csum.h"
#include "log/root_check.h"
#include "log/srch.h"

bool bloom_block_test(const struct disk_bloom_block *b, const struct key *lock_start)
{
	uint32_t bits[BLOOM_HASHES];

	bloom_bits(lock_start, bits);
	for (unsigned i = 0; i < BLOOM_HASHES; i++) {
		if (!(b->bits[bits[i] / 8] & (1u << (bits[i] % 8))))
			return false;
	}
	return true;
}

void bloom_block_set(struct disk_bloom_block *b, const struct key *lock_start)
{
	uint32_t bits[BLOOM_HASHES];
	uint8_t *byte, bit;

	bloom_bits(lock_start, bits);
	for (unsigned i = 0; i < BLOOM_HASHES; i++) {
		byte = &b->bits[bits[i] / 8];
		bit = (uint8_t)(1u << (bits[i] % 8));
		if (!(*byte & bit))
			le64_add(&b->total_set, 1);
		*byte |= bit;
	}
}

int bloom_block_check(const struct disk_bloom_block *b)
{
	uint64_t set = 0;

	static_assert(sizeof(b->bits) * 8 == BLOOM_BITS, "every bit of the array is usable");
	for (size_t i = 0; i < sizeof(b->bits); i++)
		set += (unsigned)__builtin_popcount(b->bits[i]);
	return set == le64_get(b->total_set) ? 0 : -EBADMSG;
}

/* What a finalized tree must have given back before (11.2). */
static bool is_drained(const struct disk_log_trees *lt)
{
	return alloc_list_is_empty(&lt->meta_avail) && alloc_list_is_empty(&lt->meta_freed) &&
	       alloc_root_is_empty(&lt->data_avail) && alloc_root_is_empty(&lt->data_freed) &&
	       le64_get(lt->srch_file.ref.blkno) == 0;
}

int log_trees_check(const struct item *it, struct disk_log_trees *lt)
{
	const char *why;
	struct key want;
	bool finalized;

	if (it->val_len != sizeof(*lt))
		return -EBADMSG;
	memcpy(lt, it->val, sizeof(*lt));
	want = key_log_trees(le64_get(lt->rid), le64_get(lt->nr));
	finalized = le64_get(lt->flags) & LOG_TREES_FLAG_FINALIZED;

	if (!key_eq(&it->key, &want) || le64_get(lt->nr) == 0 ||
	    le64_get(lt->flags) & ~LOG_TREES_FLAG_FINALIZED)
		return -EBADMSG;
	if (alloc_list_head_check(&lt->meta_avail) < 0 ||
	    alloc_list_head_check(&lt->meta_freed) < 0 || !alloc_root_is_sane(&lt->data_avail) ||
	    !alloc_root_is_sane(&lt->data_freed) || !btree_root_is_sane(&lt->item_root) ||
	    srch_file_check(&lt->srch_file, &why) < 0)
		return -EBADMSG;
	if (lt->item_root.height && le64_get(lt->bloom_ref.blkno) < META_FIRST_BLKNO)
		return -EBADMSG;
	if (le64_get(lt->commit_trans_seq) > le64_get(lt->get_trans_seq))
		return -EBADMSG;
	if (finalized != (le64_get(lt->finalize_seq) != 0) || (finalized && !is_drained(lt)))
		return -EBADMSG;
	return 0;
}

/* Make sure the bits of the lock are set; copy the block only if one is not. */
static int set_bloom(struct block_set *bs, struct blkno_alloc *al, struct disk_log_trees *lt,
		     const struct key lock_start)
{
	struct block_ref ref = block_ref_get(&lt->bloom_ref);
	struct block *bl;
	bool is_set;
	int ret;

	if (ref.blkno) {
		ret = block_get(bs, ref, MAGIC_BLOOM, &bl);
		if (ret < 0)
			return ret;
		is_set = bloom_block_test(bl->data, &lock_start);
		block_put(bs, bl);
		if (is_set)
			return 0;
		ret = block_dirty(bs, al, &ref, MAGIC_BLOOM, &bl);
	} else {
		ret = block_new(bs, al, MAGIC_BLOOM, &ref, &bl);
	}
	if (ret < 0)
		return ret;
	bloom_block_set(bl->data, &lock_start);
	block_put(bs, bl);
	lt->bloom_ref = block_ref_put(ref);
	return 0;
}

/* The sum of an increment and what the tree has under its key. */
static int add_to_stored(struct block_set *bs, const struct disk_log_trees *lt,
			 const struct item *it, struct disk_xattr_total *sum)
{
	struct disk_xattr_total old;
	struct btree_ref ref;
	int ret;

	if (it->val_len != sizeof(*sum) || it->flags)
		return -EINVAL;
	memcpy(sum, it->val, sizeof(*sum));
	ret = btree_lookup(bs, &lt->item_root, &it->key, &ref);
	if (ret == -ENOENT)
		return 0;
	if (ret < 0)
		return ret;
	if (ref.item.val_len == sizeof(old)) {
		memcpy(&old, ref.item.val, sizeof(old));
		le64_add(&sum->total, le64_get(old.total));
		le64_add(&sum->count, le64_get(old.count));
	} else {
		ret = -EBADMSG;
	}
	btree_put(bs, &ref);
	return ret;
}

int log_tree_force_next(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
			const struct item *it, struct log_tree_run *run)
{
	const struct key lock_start = key_lock_start(&it->key);
	struct disk_xattr_total sum;
	struct item put = *it;
	int ret;

	if (it->val_len > ITEM_VAL_MAX)
		return -EINVAL;
	if (it->key.zone == ZONE_XATTR_TOTL) {
		ret = add_to_stored(bs, lt, it, &sum);
		if (ret < 0)
			return ret;
		put.val = &sum;
	} else if (it->flags & ITEM_FLAG_DELETION) {
		put.val = NULL;
		put.val_len = 0;
	}
	ret = 0;
	if (!run->bloom_blkno || run->bloom_blkno != le64_get(lt->bloom_ref.blkno) ||
	    !key_eq(&run->lock_start, &lock_start)) {
		ret = set_bloom(bs, &ma->al, lt, lock_start);
		run->lock_start = lock_start;
		run->bloom_blkno = le64_get(lt->bloom_ref.blkno);
	}
	if (ret == 0)
		ret = btree_near_force(bs, &ma->al, &lt->item_root, &run->near, &put, NULL);
	if (ret < 0)
		return ret;
	if (it->seq > le64_get(lt->max_item_seq))
		lt->max_item_seq = le64_of(it->seq);
	return 0;
}

int log_tree_force(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
		   const struct item *it)
{
	struct log_tree_run run = { .bloom_blkno = 0 };
	int ret = log_tree_force_next(bs, ma, lt, it, &run);

	log_tree_run_end(bs, &run);
	return ret;
}

int log_tree_remove_next(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
			 const struct key *key, struct log_tree_run *run)
{
	int ret;

	ret = btree_near_delete(bs, &ma->al, &lt->item_root, &run->near, key, NULL);
	if (ret < 0 || lt->item_root.height)
		return ret;
	ret = block_free(bs, &ma->al, block_ref_get(&lt->bloom_ref));
	if (ret == 0)
		lt->bloom_ref = (struct disk_block_ref){ 0 };
	return ret;
}

int log_tree_remove(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
		    const struct key *key)
{
	struct log_tree_run run = { .bloom_blkno = 0 };
	int ret = log_tree_remove_next(bs, ma, lt, key, &run);

	log_tree_run_end(bs, &run);
	return ret;
}

void log_tree_run_end(struct block_set *bs, struct log_tree_run *run)
{
	btree_near_end(bs, &run->near);
}
