/*
 * Log merges on the volume, the server's side.
 *
 * The barrier, 7.2.  fs_root keeps no deletion markers and a merge overwrites, so it must take every tree
 * that may hold an older version of what it takes: it begins only at a moment when no mount has a tree
 * that is open or has items and is not finished.  A mount's tree is finished when it has been committed
 * and before it is opened again, never with a transaction open; its allocators move to the mount's next
 * tree in the same commit, because the mount allocates from them meanwhile.  That next tree is on the
 * volume but was never opened: it has no items, and whatever will be in it gets a seq after the merge's.
 * It keeps the seqs of the last transaction, so that a commit that comes again is known (logs.c).
 *
 * Trees of rids that are not mounted are finished here, without their help.
 *
 * The work itself is lib/core/merge; here it is given the transaction, and what mounts send is looked at
 * before it gets there.
 */
#include "merge.h"

#include <errno.h>
#include <string.h>

#include "log/merge_items.h"
#include "logs.h"
#include "merge/merge_server.h"
#include "mounts.h"
#include "util/planted.h"

/* --- the barrier --- */

struct scan {
	uint64_t rid;			/* who asks; not active itself */
	unsigned height;		/* of the tallest tree */
	unsigned finished_nr;
	bool is_cut;			/* more are active than the gate names */
	struct merge_gate *gate;
};

static int scan_tree(void *arg, const struct item *it)
{
	struct scan *sc = arg;
	struct disk_log_trees lt;
	int ret = log_trees_check(it, &lt);

	if (ret < 0)
		return ret;
	if (lt.item_root.height > sc->height)
		sc->height = lt.item_root.height;
	if (le64_get(lt.flags) & LOG_TREES_FLAG_FINALIZED) {
		sc->finished_nr++;
		return 0;
	}
	if (le64_get(lt.rid) == sc->rid || (!logs_is_open(&lt) && !lt.item_root.height))
		return 0;
	if (sc->gate->active_nr < MERGE_ACTIVE_MAX)
		sc->gate->active[sc->gate->active_nr++] = le64_get(lt.rid);
	else
		sc->is_cut = true;
	return 0;
}

bool merge_is_wanted(const struct merge_policy *mp, unsigned height_max, uint64_t finished_nr,
		     bool meta_is_low)
{
	if (!height_max)
		return false;
	return (mp->min_height && height_max >= mp->min_height) ||
	       (atomic_load(&mp->is_idle) && height_max >= MERGE_IDLE_HEIGHT) ||
	       (mp->min_trees && finished_nr >= mp->min_trees) || meta_is_low;
}

/* Whether a merge is under way: 1, 0 or an error. */
static int is_running(struct txn *t)
{
	struct merge_status st;
	int ret = merge_status_read(txn_blocks(t), &txn_super(t)->log_merge, &st);

	return ret == 0 ? 1 : ret == -ENOENT ? 0 : ret;
}

/* Those that are not mounted do not count: they are finished now. */
static int finish_abandoned(struct txn *t, struct merge_gate *gate)
{
	unsigned left = 0;
	int ret;

	for (unsigned i = 0; i < gate->active_nr; i++) {
		ret = mounts_has(t, gate->active[i]);
		if (ret < 0)
			return ret;
		if (ret == 1)
			gate->active[left++] = gate->active[i];
		else
			ret = logs_finalize(t, gate->active[i]);
		if (ret < 0)
			return ret;
	}
	gate->active_nr = left;
	return 0;
}

struct ctx {
	struct txn *t;
	unsigned began;		/* the room there was */
	struct merge_server ms;
};

static uint64_t ctx_next_seq(void *arg)
{
	return seq_next(txn_seq(((struct ctx *)arg)->t));
}

static unsigned ctx_room(void *arg)
{
	struct ctx *c = arg;
	unsigned room = txn_room(c->t), used = c->began > room ? c->began - room : 0;
	unsigned left = used < TXN_JOB_BLOCKS ? TXN_JOB_BLOCKS - used : 0;

	return room < left ? room : left;
}

static unsigned ctx_room_at_end(void *arg)
{
	return txn_room(((struct ctx *)arg)->t);
}

static struct merge_server *ctx_init(struct ctx *c, struct txn *t)
{
	*c = (struct ctx){
		.t = t,
		.began = txn_room(t),
		.ms = { .bs = txn_blocks(t), .al = txn_alloc(t), .super = txn_super(t),
			.stable = txn_stable(t), .freed = txn_meta_freed(t),
			.meta_avail = txn_meta_avail(t), .arg = c, .next_seq = ctx_next_seq,
			.room = ctx_room, .room_at_end = ctx_room_at_end },
	};
	return &c->ms;
}

int merge_pass_gate(struct txn *t, struct merge_gate *gate, struct disk_log_trees *lt, bool is_new)
{
	struct scan sc = { .rid = le64_get(lt->rid), .gate = gate };
	struct ctx c;
	int ret;

	if (!gate)
		return 0;
	gate->active_nr = 0;
	if (!gate->policy || !atomic_load(&gate->policy->may_begin))
		return 0;
	ret = is_running(t);
	if (ret != 0)
		return ret < 0 ? ret : 0;
	ret = btree_each(txn_blocks(t), &txn_super(t)->logs_root, &KEY_ZEROS, &KEY_ONES, scan_tree, &sc);
	if (ret == 0 && !merge_is_wanted(gate->policy, sc.height, sc.finished_nr, txn_meta_is_low(t))) {
		gate->active_nr = 0;
		return 0;
	}
	if (ret == 0 && !is_new && lt->item_root.height)
		ret = logs_continue(t, lt);
	if (ret == 0)
		ret = finish_abandoned(t, gate);
	if (ret == 0 && ((gate->active_nr == 0 && !sc.is_cut) || PLANTED(merge_without_everybody)))
		ret = merge_server_start(ctx_init(&c, t));
	return ret;
}

/* --- work --- */

int merge_get(struct txn *t, uint64_t rid, bool *has_work, struct disk_merge_request *out)
{
	struct merge_request req;
	struct ctx c;
	int ret = merge_server_get(ctx_init(&c, t), rid, &req);

	*has_work = ret == 0;
	if (ret == 0)
		merge_request_put(&req, out);
	return ret == -ENOENT ? 0 : ret;
}

static bool root_is_in(const struct disk_btree_root *root, uint64_t total)
{
	uint64_t blkno = le64_get(root->ref.blkno);

	return root->height == 0 || (blkno >= META_FIRST_BLKNO && blkno < total);
}

static bool list_is_in(const struct disk_alloc_list_head *head, uint64_t total)
{
	uint64_t blkno = le64_get(head->ref.blkno);

	return (blkno == 0 || (blkno >= META_FIRST_BLKNO && blkno < total)) &&
	       le64_get(head->total_nr) <= total;
}

/* What a mount says came of its request, in host order; its form and the volume's bounds are kept. */
static int read_complete(struct txn *t, const struct disk_merge_complete *in,
			 struct merge_complete *comp)
{
	uint64_t total = le64_get(txn_super(t)->total_meta_blocks);
	uint64_t flags = le64_get(in->flags);
	struct disk_merge_complete d = *in;
	struct item it = { .key = { .zone = ZONE_MERGE_COMPLETE, .first = le64_get(in->seq) },
			   .val = &d, .val_len = sizeof(d) };
	const char *why;

	/* ERROR is said and never stored, so the items' own check refuses it. */
	d.flags = le64_of(flags & ~MERGE_COMPLETE_ERROR);
	if (merge_complete_get(&it, comp, &why) < 0)
		return -EINVAL;
	comp->flags = flags;
	if (!root_is_in(&comp->root, total) || !list_is_in(&comp->meta_avail, total) ||
	    !list_is_in(&comp->meta_freed, total))
		return -EINVAL;
	return 0;
}

int merge_commit(struct txn *t, uint64_t rid, const struct disk_merge_complete *in)
{
	struct merge_complete comp;
	struct ctx c;
	int ret = read_complete(t, in, &comp);

	if (ret == 0)
		ret = merge_server_commit(ctx_init(&c, t), rid, &comp);
	return ret == -ENOENT ? 0 : ret;
}

int merge_release(struct txn *t, uint64_t rid)
{
	struct ctx c;

	return merge_server_release(ctx_init(&c, t), rid);
}

int merge_background(struct txn *t)
{
	struct ctx c;
	int ret = merge_server_advance(ctx_init(&c, t));

	if (ret == 0 && ctx_room(&c) > MERGE_STEP_BLOCKS)
		ret = merge_server_free(&c.ms, ctx_room(&c) - MERGE_STEP_BLOCKS / 2);
	/* The loop asks again, after a pause: others' commits are not to wait for this. */
	return ret == -EINPROGRESS ? 0 : ret;
}
