/*
 * The forest: fs_root plus any number of log trees, read as one set of items; and the writing of
 * one log tree.  format.md 11; runtime.md 6.
 */
#ifndef SCOUTFS_FOREST_H
#define SCOUTFS_FOREST_H

#include "alloc/meta_alloc.h"
#include "btree/btree_parts.h"

/* One consistent set of roots: all from one committed super. */
struct forest_roots {
	struct disk_btree_root fs_root;
	struct disk_btree_root logs_root;
	struct disk_btree_root srch_root;
	struct disk_btree_root log_merge;
};
void forest_roots_of_super(const struct disk_super *super, struct forest_roots *roots);
bool forest_roots_eq(const struct forest_roots *a, const struct forest_roots *b);

/*
 * Read what is known around `key` under the lock [lock_start, lock_end] (11.5): on 0 every item of
 * [*start, *end], newest version, markers dropped, has been given to each() in key order, and
 * absences in between are certain.  key lies in [*start, *end].  Zone 12 must not be read this way:
 * -EINVAL, as for a key outside the lock.  -ESTALE: take new roots and start again (each() was not
 * called).  each() returning other than 0 ends the call with that.  Other errors as btree.h.
 */
int forest_read_range(struct block_set *bs, const struct forest_roots *roots,
		      const struct key *lock_start, const struct key *lock_end,
		      const struct key *key, struct key *start, struct key *end, btree_item_fn each,
		      void *arg);

/*
 * A merged walk over all trees, newest versions, markers dropped, totals (zone 12) summed as 11.6
 * says.  Opens every log tree once; memory is one leaf a tree.  forest_iter_next: 0 with *it valid
 * until the next call, -ENOENT at the end; after another error (btree.h) only _close is allowed.
 */
struct forest_iter;
int forest_iter_open(struct forest_iter **out, struct block_set *bs,
		     const struct forest_roots *roots, const struct key *start,
		     const struct key *end);
int forest_iter_next(struct forest_iter *fi, struct item *it);
/* Go on from key instead; -EINVAL: key was passed already.  Cheap within the same leaves. */
int forest_iter_seek(struct forest_iter *fi, const struct key *key);
void forest_iter_close(struct forest_iter *fi);

/* One item's newest version, or the sum of a total; -ENOENT: absent or deleted.  Copies at most
 * ITEM_VAL_MAX bytes to val, where it->val then points.  Errors as btree.h. */
int forest_lookup(struct block_set *bs, const struct forest_roots *roots, const struct key *key,
		  struct item *it, void *val);

/* Bloom blocks, 11.4. */
bool bloom_block_test(const struct disk_bloom_block *b, const struct key *lock_start);
/* Sets the three bits, keeps total_set. */
void bloom_block_set(struct disk_bloom_block *b, const struct key *lock_start);
int bloom_block_check(const struct disk_bloom_block *b);	/* total_set and unusable bits */

/*
 * Write items of a transaction into lt's item tree and bloom block (11.3, 11.4).  lt is the
 * caller's copy; ma allocates from it.  Keys may come in any order, but ascending is fast.  Raises
 * lt->max_item_seq.  it->flags may hold ITEM_FLAG_DELETION (then no value is stored).
 * log_tree_force replaces, but adds in zone 12 (11.6), where the value is an increment;
 * log_tree_remove takes the item out physically (-ENOENT): right only where no other tree can hold
 * the key.  The bloom block goes with the last item.  -EINVAL: no such item can be; after any error
 * but that and -ENOENT abort the set and forget lt.
 */
int log_tree_force(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
		   const struct item *it);
/*
 * The same, one after the other: *run, zeroes at first, says for which lock the bloom block has the bits already, because
 * the item before was under it, and in which leaf that is now.  Until log_tree_run_end(), which may come in any state, nobody
 * else writes to lt, and the set is neither written nor aborted.
 */
struct log_tree_run {
	struct key lock_start;
	uint64_t bloom_blkno;	/* 0: for none */
	struct btree_near near;
};
int log_tree_force_next(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
			const struct item *it, struct log_tree_run *run);
int log_tree_remove_next(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
			 const struct key *key, struct log_tree_run *run);
void log_tree_run_end(struct block_set *bs, struct log_tree_run *run);
int log_tree_remove(struct block_set *bs, struct meta_alloc *ma, struct disk_log_trees *lt,
		    const struct key *key);

/* Value of a logs_root item, checked against its key (20.16): 0 or -EBADMSG. */
int log_trees_check(const struct item *it, struct disk_log_trees *lt);

/* Whether the tree is folded in by the merge of seq input_seq: it was finished before (runtime 7.2). */
static inline bool log_trees_is_input(const struct disk_log_trees *lt, uint64_t input_seq)
{
	return (le64_get(lt->flags) & LOG_TREES_FLAG_FINALIZED) &&
	       le64_get(lt->finalize_seq) < input_seq;
}

#endif
