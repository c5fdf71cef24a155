/*
 * One merge request, worked off: the items of its range are applied to a private copy of its part
 * of fs_root.  runtime.md 7.4; format.md 11.6, 14.2.
 *
 * Promises: whatever the run leaves, up to `remain` the copy holds exactly what a reader of the
 * whole forest would have found among fs_root and the inputs, and behind it nothing has changed.
 * It allocates from the request's avail list, and what it replaces goes to its freed list, nowhere
 * else: a run that is thrown away costs nothing, and one that counts is spliced with both lists at
 * once.
 *
 * An item older than what fs_root holds is left out.  By 11.3 there is none, for inputs are newer
 * than anything merged before; where a volume breaks that rule readers prefer the newer one, and so
 * must the merge, or what they see would change.  Totals have no versions: they are added.
 *
 * Limits are looked at before each descent into the tree (struct btree_bounds), so they are kept
 * however many blocks one item makes us split or join.  An item that goes into the leaf of the one before it needs no
 * descent, and no room.
 */
#include "merge/merge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btree/btree_parts.h"

/* The first blocks of both lists become dirty too. */
#define LIST_BLOCKS	2u
#define DIRTY_MIN	16u

struct merge_run {
	struct block_set *bs;
	struct merge_request req;
	struct disk_alloc_list_head avail, freed;
	struct meta_alloc ma;
	struct btree_bounds bounds;
	struct merge_iter *mi;
	struct disk_btree_root root;
	struct btree_near near;		/* in root: items come in the order of their keys */
	size_t dirty_max;
	uint64_t items;
	struct key remain;
	bool remains;
	bool done;
};

static bool run_has_room(void *arg, unsigned blocks)
{
	const struct merge_run *run = arg;

	return block_set_dirty_nr(run->bs) + blocks + LIST_BLOCKS <= run->dirty_max &&
	       meta_alloc_avail_nr(&run->ma) >= blocks && meta_alloc_freed_room(&run->ma) >= blocks;
}

int merge_run_open(struct merge_run **out, struct block_set *bs, const struct merge_request *req,
		   const struct disk_btree_root *logs_root, size_t dirty_max)
{
	struct merge_run *run = calloc(1, sizeof(*run));
	struct merge_inputs in;
	int ret;

	*out = NULL;
	if (!run)
		return -ENOMEM;
	assert(block_set_dirty_nr(bs) == 0);
	assert(dirty_max >= DIRTY_MIN);
	ret = merge_inputs_read(bs, logs_root, req->input_seq, &in);
	if (ret == 0) {
		ret = merge_iter_open(&run->mi, bs, &in, &req->start, &req->end);
		merge_inputs_free(&in);
	}
	if (ret < 0) {
		free(run);
		return ret;
	}
	run->bs = bs;
	run->req = *req;
	run->avail = req->meta_avail;
	run->freed = req->meta_freed;
	run->root = req->root;
	run->dirty_max = dirty_max;
	run->remain = req->end;
	run->bounds = (struct btree_bounds){
		.arg = run,
		.has_room = run_has_room,
		.keep_root = req->flags & MERGE_REQUEST_SUBTREE,
	};
	meta_alloc_open(&run->ma, bs, &run->avail, &run->freed);
	*out = run;
	return 0;
}

void merge_run_close(struct merge_run *run)
{
	if (!run)
		return;
	btree_near_end(run->bs, &run->near);
	meta_alloc_close(&run->ma);
	merge_iter_close(run->mi);
	free(run);
}

/* fs_root's version of a key: its seq, and its value if it is a total.  0: there is none. */
static int read_old(struct merge_run *run, const struct key *key, uint64_t *seq,
		    struct disk_xattr_total *total)
{
	struct btree_ref ref;
	int ret;

	ret = btree_near_lookup(run->bs, &run->root, &run->near, key, &ref);
	if (ret == -ENOENT)
		return 0;
	if (ret < 0)
		return ret;
	*seq = ref.item.seq;
	ret = 1;
	if (key->zone == ZONE_XATTR_TOTL) {
		if (ref.item.val_len == sizeof(*total))
			memcpy(total, ref.item.val, sizeof(*total));
		else
			ret = -EBADMSG;
	}
	btree_put(run->bs, &ref);
	return ret;
}

/* 1: a limit was hit and the item does not count yet. */
static int apply(struct merge_run *run, const struct item *caller_it)
{
	struct disk_xattr_total sum, old = { 0 };
	struct item it = *caller_it;
	uint64_t old_seq = 0;
	bool is_total = it.key.zone == ZONE_XATTR_TOTL, is_delete;
	int had;

	had = read_old(run, &it.key, &old_seq, &old);
	if (had < 0)
		return had;
	if (is_total) {
		memcpy(&sum, it.val, sizeof(sum));
		le64_add(&sum.total, le64_get(old.total));
		le64_add(&sum.count, le64_get(old.count));
		it.val = &sum;
		is_delete = le64_get(sum.total) == 0 && le64_get(sum.count) == 0;
	} else {
		if (had && old_seq > it.seq)
			return 0;
		is_delete = it.flags & ITEM_FLAG_DELETION;
	}
	if (!is_delete)
		return btree_near_force(run->bs, &run->ma.al, &run->root, &run->near, &it,
					&run->bounds);
	if (!had)
		return 0;
	return btree_near_delete(run->bs, &run->ma.al, &run->root, &run->near, &it.key, &run->bounds);
}

/* Nothing more will be done: the lists are final. */
static int finish(struct merge_run *run)
{
	btree_near_end(run->bs, &run->near);
	meta_alloc_close(&run->ma);
	merge_iter_close(run->mi);
	run->mi = NULL;
	run->done = true;
	return 1;
}

int merge_run_step(struct merge_run *run, unsigned items_max)
{
	struct item it;
	int ret;

	if (run->done)
		return 1;
	for (unsigned i = 0; i < items_max; i++) {
		ret = merge_iter_next(run->mi, &it);
		if (ret == -ENOENT)
			return finish(run);
		if (ret == 0)
			ret = apply(run, &it);
		if (ret < 0)
			return ret;
		if (ret > 0) {
			run->remains = true;
			run->remain = it.key;
			return finish(run);
		}
		run->items++;
	}
	return 0;
}

void merge_run_result(const struct merge_run *run, struct merge_complete *comp)
{
	assert(run->done);
	*comp = (struct merge_complete){
		.meta_avail = run->avail,
		.meta_freed = run->freed,
		.root = run->root,
		.start = run->req.start,
		.end = run->req.end,
		.remain = run->remain,
		.rid = run->req.rid,
		.seq = run->req.seq,
		.flags = run->remains ? MERGE_COMPLETE_REMAIN : 0,
	};
}

uint64_t merge_run_items(const struct merge_run *run)
{
	return run->items;
}

void merge_run_give_up(const struct merge_request *req, struct merge_complete *comp)
{
	*comp = (struct merge_complete){
		.meta_avail = req->meta_avail,
		.meta_freed = req->meta_freed,
		.root = req->root,
		.start = req->start,
		.end = req->end,
		.remain = req->end,
		.rid = req->rid,
		.seq = req->seq,
		.flags = MERGE_COMPLETE_ERROR,
	};
}
