/*
 * The life of mounts' log trees on the server's side.
 *
 * Promises: a block or extent is owned by one allocator after every call that returned 0 or
 * -EINPROGRESS, for the log_trees item is stored with whatever was moved.  A request that comes twice,
 * be it to the next server, has one effect: the item itself says how far it has come.  What a mount
 * sends is believed only as far as log_trees_check and the totals of the volume allow; flags, zones,
 * seqs and identity of the item are the server's own.
 *
 * A mount's freed blocks go to the server's idle freed list, so they cannot be allocated before the
 * commit that takes them is durable; its freed data extents go to data_alloc and may be given to another
 * mount in the same commit, which that mount learns of only when the commit is durable.
 *
 * A tree is finished when its mount goes, or when a merge is to begin (merge.c).
 */
#include "logs.h"

#include <errno.h>
#include <string.h>

#include "log.h"
#include "util/planted.h"
/* Extents moved between two looks at the room that is left, and looks in one run: others wait for us. */
#define MOVE_STEP	8u
#define MOVE_STEPS_MAX	512u
/* List blocks copied, and entries of a list filled, between two looks. */
#define SPLICE_STEP	16u
#define FILL_STEP	128u
/* A list is refilled from less than half, to a whole block (10.2). */
#define LIST_LOW	4092u
/*
 * What a mount has freed stays in its own list until it is this much: to take a few would write one more
 * block in each commit.  The list's first block keeps more room than a mount counts on (LIST_LOW).
 */
#define FREED_WORTH	512u
/*
 * A mount reads all pieces of its data_avail into its cache when it is given more, so it gets no more than
 * about this many: from a volume in pieces it comes back sooner instead.
 */
#define DATA_PIECES_MAX	16384u
/* A mount's max_item_seq may be past our counter (runtime 3.7), but not absurdly. */
#define SEQ_AHEAD_MAX	(1ull << 40)

static int store(struct txn *t, const struct disk_log_trees *lt, bool is_new)
{
	struct item it = { .key = key_log_trees(le64_get(lt->rid), le64_get(lt->nr)), .val = lt,
			   .val_len = sizeof(*lt) };
	struct disk_btree_root *root = &txn_super(t)->logs_root;

	if (is_new)
		return btree_insert(txn_blocks(t), txn_alloc(t), root, &it);
	return btree_update(txn_blocks(t), txn_alloc(t), root, &it);
}

/* Copy a found item; puts ref. */
static int take(struct txn *t, struct btree_ref *ref, uint64_t rid, struct disk_log_trees *lt)
{
	int ret = ref->item.key.zone == ZONE_LOG_TREES && ref->item.key.first == rid ?
		  log_trees_check(&ref->item, lt) : -ENOENT;

	btree_put(txn_blocks(t), ref);
	return ret;
}

static int load(struct txn *t, uint64_t rid, uint64_t nr, struct disk_log_trees *lt)
{
	struct key key = key_log_trees(rid, nr);
	struct btree_ref ref;
	int ret = btree_lookup(txn_blocks(t), &txn_super(t)->logs_root, &key, &ref);

	return ret < 0 ? ret : take(t, &ref, rid, lt);
}

int logs_newest(struct txn *t, uint64_t rid, struct disk_log_trees *lt)
{
	struct key key = key_log_trees(rid, UINT64_MAX);
	struct btree_ref ref;
	int ret = btree_prev(txn_blocks(t), &txn_super(t)->logs_root, &key, &ref);

	return ret < 0 ? ret : take(t, &ref, rid, lt);
}

static bool is_finalized(const struct disk_log_trees *lt)
{
	return le64_get(lt->flags) & LOG_TREES_FLAG_FINALIZED;
}

/* Two owners of a block have both given it back, say: what nobody may use does less harm than what two do. */
static void note_lost(const struct disk_log_trees *lt, uint64_t blocks)
{
	if (blocks)
		log_err("%llu blocks of the data device that mount %016llx has given back overlap free ones: they are left out; run scoutfsctl check",
			(unsigned long long)blocks, (unsigned long long)le64_get(lt->rid));
}

/* All of src, which is lt's, in small steps while there is room.  -EINPROGRESS: more of it is left. */
static int move_all(struct txn *t, const struct disk_log_trees *lt, struct disk_alloc_root *dst,
		    struct disk_alloc_root *src)
{
	uint64_t want = le64_get(src->total_len), moved, lost;
	unsigned steps = 0;
	int ret = 0;

	while (want > 0) {
		if (!txn_has_room(t) || steps++ == MOVE_STEPS_MAX)
			return -EINPROGRESS;
		ret = free_extents_move(txn_blocks(t), txn_alloc(t), dst, src, want, MOVE_STEP,
					&moved, &lost);
		note_lost(lt, lost);
		if (ret < 0 && ret != -EINPROGRESS)
			return ret;
		want -= moved;
	}
	return 0;
}

/* A mount's list goes to the server's freed one; as move_all. */
static int splice_list(struct txn *t, struct disk_alloc_list_head *src)
{
	int ret = -EINPROGRESS;

	if (le64_get(src->ref.blkno) == 0)
		return 0;
	while (ret == -EINPROGRESS && txn_has_room(t))
		ret = alloc_list_splice_some(txn_blocks(t), txn_alloc(t), txn_meta_freed(t), src,
					     SPLICE_STEP);
	return ret;
}

/* More than half a block of entries, if there is, and all that fits while there is room. */
static int fill_list(struct txn *t, struct disk_alloc_list_head *head)
{
	struct disk_alloc_root *tree = txn_meta_avail(t);
	uint32_t to;
	int ret = 0;

	if (le32_get(head->first_nr) >= LIST_LOW)
		return 0;
	while (ret == 0 && le32_get(head->first_nr) < ALLOC_LIST_ENTRIES &&
	       le64_get(tree->total_len) > 0) {
		if (!txn_has_room(t))
			return le32_get(head->first_nr) < LIST_LOW ? -EINPROGRESS : 0;
		to = le32_get(head->first_nr) + FILL_STEP;
		to = to < ALLOC_LIST_ENTRIES ? to : ALLOC_LIST_ENTRIES;
		ret = alloc_list_fill(txn_blocks(t), txn_alloc(t), head, tree, to, to);
	}
	return ret;
}

static void set_low(le32 *flags, bool is_low)
{
	*flags = le32_of(is_low ? ALLOC_FLAG_LOW : 0);
}

/* Whether `lt` has as many pieces of data as it may have, or about so. */
static int has_pieces(struct txn *t, const struct disk_log_trees *lt)
{
	uint64_t nr;
	int ret = free_extents_nr_max(txn_blocks(t), &lt->data_avail, &nr);

	return ret < 0 ? ret : nr >= DATA_PIECES_MAX;
}

/* Bring data_avail up to its target, or to as many pieces as a mount can use; as move_all. */
static int refill_data(struct txn *t, struct disk_log_trees *lt)
{
	struct disk_alloc_root *from = &txn_super(t)->data_alloc;
	uint64_t has = le64_get(lt->data_avail.total_len), want, moved, lost;
	int ret = 0, enough = 0;

	if (has >= DATA_AVAIL_LOW)
		return 0;
	want = DATA_AVAIL_TARGET - has;
	want = want < le64_get(from->total_len) ? want : le64_get(from->total_len);
	for (unsigned steps = 0; want > 0; steps++) {
		if (steps % 64 == 0)
			enough = has_pieces(t, lt);
		if (enough != 0)
			return enough < 0 ? enough : 0;
		/* To go on in another commit is worth it for what the mount needs only. */
		if (!txn_has_room(t) || steps == MOVE_STEPS_MAX)
			return le64_get(lt->data_avail.total_len) < DATA_AVAIL_LOW ? -EINPROGRESS : 0;
		ret = free_extents_move(txn_blocks(t), txn_alloc(t), &lt->data_avail, from, want,
					MOVE_STEP, &moved, &lost);
		note_lost(lt, lost);
		if (ret < 0 && ret != -EINPROGRESS)
			return ret;
		want -= moved;
	}
	return 0;
}

/* Everything between a committed item and an open one, but for the storing of it. */
static int prepare(struct txn *t, struct disk_log_trees *lt)
{
	int ret = 0;

	if (le64_get(lt->meta_freed.total_nr) >= FREED_WORTH || txn_meta_is_low(t))
		ret = splice_list(t, &lt->meta_freed);
	if (ret == 0)
		ret = move_all(t, lt, &txn_super(t)->data_alloc, &lt->data_freed);
	if (ret == 0)
		ret = fill_list(t, &lt->meta_avail);
	if (ret == 0)
		ret = refill_data(t, lt);
	if (ret < 0)
		return ret;
	set_low(&lt->meta_avail.flags, txn_meta_is_low(t));
	/* Little in many pieces is not the end: there is more. */
	set_low(&lt->data_avail.flags, le64_get(lt->data_avail.total_len) < DATA_AVAIL_LOW &&
				       le64_get(txn_super(t)->data_alloc.total_len) == 0);
	/* The zones are a hint for giving mounts disjoint regions; "none" is always right (10.6). */
	lt->data_alloc_zone_blocks = le64_of(0);
	memset(lt->data_alloc_zones, 0, sizeof(lt->data_alloc_zones));
	lt->get_trans_seq = le64_of(seq_next(txn_seq(t)));
	return 0;
}

/* Open lt, which is committed and has just been read or made. */
static int open_tree(struct txn *t, struct disk_log_trees *lt, bool is_new)
{
	int ret = prepare(t, lt);
	int err;

	if (ret < 0 && ret != -EINPROGRESS)
		return ret;
	err = store(t, lt, is_new);
	return err < 0 ? err : ret;
}

/* The same, unless the gate is to be waited for. */
static int pass_and_open(struct txn *t, struct merge_gate *gate, struct disk_log_trees *lt,
			 bool is_new)
{
	int ret = merge_pass_gate(t, gate, lt, is_new);

	if (ret < 0 || (gate && gate->active_nr))
		return ret;
	return open_tree(t, lt, is_new);
}

int logs_open(struct txn *t, uint64_t rid, struct merge_gate *gate, struct disk_log_trees *out)
{
	struct disk_log_trees lt;
	uint64_t nr = 1;
	bool is_new = false;
	int ret;

	ret = logs_newest(t, rid, &lt);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (ret == -ENOENT || is_finalized(&lt)) {
		if (ret == 0)
			nr = le64_get(lt.nr) + 1;
		lt = (struct disk_log_trees){ .rid = le64_of(rid), .nr = le64_of(nr) };
		is_new = true;
	}
	ret = logs_is_open(&lt) ? 0 : pass_and_open(t, gate, &lt, is_new);
	if (ret == 0)
		*out = lt;
	return ret;
}

static bool ref_is_in(struct disk_block_ref ref, const struct disk_super *super)
{
	return le64_get(ref.blkno) == 0 ||
	       (le64_get(ref.blkno) >= META_FIRST_BLKNO &&
		le64_get(ref.blkno) < le64_get(super->total_meta_blocks));
}

/* Whether a mount of this volume could have come to this; its form has been checked. */
static bool commit_is_plausible(struct txn *t, const struct disk_log_trees *lt)
{
	const struct disk_super *super = txn_super(t);
	uint64_t meta = le64_get(super->total_meta_blocks);
	uint64_t data = le64_get(super->total_data_blocks);
	int64_t delta = (int64_t)le64_get(lt->inode_count_delta);

	return ref_is_in(lt->meta_avail.ref, super) && ref_is_in(lt->meta_freed.ref, super) &&
	       ref_is_in(lt->item_root.ref, super) && ref_is_in(lt->bloom_ref, super) &&
	       ref_is_in(lt->data_avail.root.ref, super) &&
	       ref_is_in(lt->data_freed.root.ref, super) && ref_is_in(lt->srch_file.ref, super) &&
	       le64_get(lt->meta_avail.total_nr) <= meta &&
	       le64_get(lt->meta_freed.total_nr) <= meta &&
	       le64_get(lt->srch_file.blocks) <= meta &&
	       le64_get(lt->data_avail.total_len) <= data &&
	       le64_get(lt->data_freed.total_len) <= data &&
	       /* Items without a bloom block are invisible, and one without items hides others' (11.4). */
	       (lt->item_root.height == 0) == (le64_get(lt->bloom_ref.blkno) == 0) &&
	       delta > INT64_MIN / 2 && delta < INT64_MAX / 2 &&
	       le64_get(lt->max_item_seq) <= seq_last(txn_seq(t)) + SEQ_AHEAD_MAX;
}

/* The growing srch file becomes an item of srch_root (13.5). */
static int rotate_srch(struct txn *t, struct disk_log_trees *lt)
{
	struct item it = { .key = { .zone = ZONE_SRCH, .type = TYPE_SRCH_LOG,
				    .second = le64_get(lt->srch_file.ref.blkno) },
			   .val = &lt->srch_file, .val_len = sizeof(lt->srch_file) };
	int ret;

	if (le64_get(lt->srch_file.ref.blkno) == 0)
		return 0;
	ret = btree_insert(txn_blocks(t), txn_alloc(t), &txn_super(t)->srch_root, &it);
	if (ret < 0)
		return ret == -EEXIST ? -EUCLEAN : ret;
	memset(&lt->srch_file, 0, sizeof(lt->srch_file));
	return 0;
}

/* What of a sent item is the mount's to say, over what is stored. */
static void adopt(struct disk_log_trees *lt, const struct disk_log_trees *in)
{
	struct disk_log_trees had = *lt;

	*lt = *in;
	lt->meta_avail.flags = had.meta_avail.flags;
	lt->meta_freed.flags = had.meta_freed.flags;
	lt->data_avail.flags = had.data_avail.flags;
	lt->data_freed.flags = had.data_freed.flags;
	lt->data_alloc_zone_blocks = had.data_alloc_zone_blocks;
	memcpy(lt->data_alloc_zones, had.data_alloc_zones, sizeof(lt->data_alloc_zones));
	lt->get_trans_seq = had.get_trans_seq;
	lt->commit_trans_seq = had.get_trans_seq;
	lt->finalize_seq = had.finalize_seq;
	lt->rid = had.rid;
	lt->nr = had.nr;
	lt->flags = had.flags;
}

static int store_commit(struct txn *t, struct disk_log_trees *lt, const struct disk_log_trees *in)
{
	struct disk_log_trees checked;
	struct item it;
	int ret;

	adopt(lt, in);
	it = (struct item){ .key = key_log_trees(le64_get(lt->rid), le64_get(lt->nr)), .val = lt,
			    .val_len = sizeof(*lt) };
	if (log_trees_check(&it, &checked) < 0 || !commit_is_plausible(t, lt))
		return -EINVAL;
	/* Its items may carry versions of locks that an earlier server granted (runtime 3.7). */
	seq_raise(txn_seq(t), le64_get(lt->max_item_seq));
	if (le64_get(lt->srch_file.blocks) >= SRCH_LOG_ROTATE_BLOCKS) {
		ret = rotate_srch(t, lt);
		if (ret < 0)
			return ret;
	}
	return store(t, lt, false);
}

/*
 * Whether rid's transaction trans_seq of a tree that is finished, or merged and gone, was stored: then
 * the next tree says so, and *lt is that one.
 */
static int find_stored(struct txn *t, uint64_t rid, uint64_t nr, uint64_t trans_seq,
		       struct disk_log_trees *lt)
{
	int ret = logs_newest(t, rid, lt);

	if (ret < 0)
		return ret;
	if (le64_get(lt->nr) < nr)
		return -ENOENT;
	if (le64_get(lt->nr) == nr || is_finalized(lt) || le64_get(lt->commit_trans_seq) != trans_seq)
		return -EINVAL;
	return 0;
}

int logs_commit(struct txn *t, uint64_t rid, const struct disk_log_trees *in, bool open_next,
		struct merge_gate *gate, struct disk_log_trees *out)
{
	uint64_t trans_seq = le64_get(in->get_trans_seq);
	struct disk_log_trees lt;
	int ret;

	if (le64_get(in->rid) != rid || trans_seq == 0)
		return -EINVAL;
	ret = load(t, rid, le64_get(in->nr), &lt);
	if (ret == 0 && !is_finalized(&lt)) {
		if (logs_is_open(&lt) && le64_get(lt.get_trans_seq) == trans_seq)
			ret = store_commit(t, &lt, in);
		else if (le64_get(lt.commit_trans_seq) != trans_seq || PLANTED(commit_is_not_repeatable))
			ret = -EINVAL;
	} else if (ret == 0 || ret == -ENOENT) {
		ret = find_stored(t, rid, le64_get(in->nr), trans_seq, &lt);
	}
	/* Committed, now or before; perhaps the next one is open already. */
	if (ret == 0 && open_next && !logs_is_open(&lt))
		ret = pass_and_open(t, gate, &lt, false);
	if (ret == 0)
		*out = lt;
	return ret;
}

static void clear_allocators(struct disk_log_trees *lt)
{
	memset(&lt->meta_avail, 0, sizeof(lt->meta_avail));
	memset(&lt->meta_freed, 0, sizeof(lt->meta_freed));
	memset(&lt->data_avail, 0, sizeof(lt->data_avail));
	memset(&lt->data_freed, 0, sizeof(lt->data_freed));
	lt->data_alloc_zone_blocks = le64_of(0);
	memset(lt->data_alloc_zones, 0, sizeof(lt->data_alloc_zones));
}

static void set_finalized(struct txn *t, struct disk_log_trees *lt)
{
	lt->finalize_seq = le64_of(seq_next(txn_seq(t)));
	lt->flags = le64_of(le64_get(lt->flags) | LOG_TREES_FLAG_FINALIZED);
}

int logs_continue(struct txn *t, struct disk_log_trees *lt)
{
	struct disk_log_trees next = {
		.meta_avail = lt->meta_avail,
		.meta_freed = lt->meta_freed,
		.data_avail = lt->data_avail,
		.data_freed = lt->data_freed,
		.data_alloc_zone_blocks = lt->data_alloc_zone_blocks,
		.get_trans_seq = lt->commit_trans_seq,
		.commit_trans_seq = lt->commit_trans_seq,
		.rid = lt->rid,
		.nr = le64_of(le64_get(lt->nr) + 1),
	};
	int ret = rotate_srch(t, lt);

	memcpy(next.data_alloc_zones, lt->data_alloc_zones, sizeof(next.data_alloc_zones));
	clear_allocators(lt);
	set_finalized(t, lt);
	if (ret == 0)
		ret = store(t, lt, false);
	if (ret == 0)
		ret = store(t, &next, true);
	*lt = next;
	return ret;
}

/* Empty the allocators of lt.  -EINPROGRESS: something is left. */
static int drain(struct txn *t, struct disk_log_trees *lt)
{
	struct disk_alloc_root *data = &txn_super(t)->data_alloc;
	int ret;

	ret = rotate_srch(t, lt);
	if (ret == 0)
		ret = splice_list(t, &lt->meta_freed);
	if (ret == 0)
		ret = splice_list(t, &lt->meta_avail);
	if (ret == 0)
		ret = move_all(t, lt, data, &lt->data_avail);
	if (ret == 0)
		ret = move_all(t, lt, data, &lt->data_freed);
	return ret;
}

int logs_finalize(struct txn *t, uint64_t rid)
{
	struct disk_log_trees lt;
	int ret, err;

	ret = logs_newest(t, rid, &lt);
	if (ret < 0)
		return ret == -ENOENT ? 0 : ret;
	if (is_finalized(&lt))
		return 0;
	/*
	 * What was open has never been: its blocks were all in the lists.  That is stored with the first part of what is
	 * given back: the mount may live, and the next leader not know that this one has let it go; a commit of what was
	 * open would then bring back lists that are somebody else's.
	 */
	if (logs_is_open(&lt)) {
		lt.get_trans_seq = le64_of(seq_next(txn_seq(t)));
		lt.commit_trans_seq = lt.get_trans_seq;
	}
	ret = drain(t, &lt);
	if (ret < 0 && ret != -EINPROGRESS)
		return ret;
	if (ret == 0) {
		clear_allocators(&lt);
		set_finalized(t, &lt);
	}
	err = store(t, &lt, false);
	return err < 0 ? err : ret;
}

struct abandoned {
	struct txn *t;
	int (*each)(void *arg, uint64_t rid);
	void *arg;
};

static int look_at_tree(void *arg, const struct item *it)
{
	struct abandoned *a = arg;
	struct disk_log_trees lt;
	struct btree_ref ref;
	struct key key;
	int ret = log_trees_check(it, &lt);

	if (ret < 0 || is_finalized(&lt))
		return ret;
	key = key_mounted_client(le64_get(lt.rid));
	ret = btree_lookup(txn_blocks(a->t), &txn_super(a->t)->mounted_clients, &key, &ref);
	if (ret == -ENOENT)
		return a->each(a->arg, le64_get(lt.rid));
	if (ret == 0)
		btree_put(txn_blocks(a->t), &ref);
	return ret;
}

int logs_each_abandoned(struct txn *t, int (*each)(void *arg, uint64_t rid), void *arg)
{
	struct abandoned a = { t, each, arg };

	return btree_each(txn_blocks(t), &txn_super(t)->logs_root, &KEY_ZEROS, &KEY_ONES, look_at_tree,
			  &a);
}
