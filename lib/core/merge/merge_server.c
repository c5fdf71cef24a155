/*
 * Log merge, the server's part: items of the log_merge tree and what they stand for. runtime.md
 * 7.3-7.5, 2.6; format.md 14.
 *
 * What it promises, whatever crashes where
 * - A key of an input is in exactly one place at any time: in a RANGE or REQUEST still to be worked
 *   off, at or behind `remain` of a COMPLETE, or in fs_root.  So no delta is added twice, none is
 *   lost.
 * - A block is owned once: a subtree comes into fs_root in the same commit in which the lists of
 *   its COMPLETE, which name the blocks it replaced, come to the server (7.5).  Empty lists say
 *   that this has happened.
 * - Two requests never share a lowest parent: next_range_key is behind the last one handed out, and
 *   fs_root changes only while no request is out.
 * - Inputs vanish all at once, in the commit that ends the merge.  Taking them away one by one
 *   would show readers an item whose marker is in an input that is gone already.
 *
 * Why the stable roots A request names the inputs by logs_root.  The tree being changed in this
 * transaction may be changed further before it is committed, so the request gets the last committed
 * one; and since that must know of every input, the first request waits for the commit of the
 * status.
 *
 * Two ranges that want one item key (7.3, [H]): a range may begin anywhere between the last input
 * key before it and the first one in it, so one of them is moved a little.  Where there is no such
 * place, what would make the range is deferred: a request waits in favour of others, a completion
 * stays for the next splice, and a request given up becomes a completion that did nothing.
 */
#include "merge/merge_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btree/btree_parts.h"
#include "log/forest.h"
#include "log/root_check.h"

/* Requests are filled in steps of this, and need one at least to be of use. */
#define FILL_STEP	32u
/* What is kept to record progress with. */
#define RECORD_BLOCKS	32u

struct ranges {
	struct merge_range *v;
	size_t nr, cap;
};

/* An item of log_merge that outlives the next change of the tree. */
struct copied {
	struct item it;
	uint8_t val[sizeof(struct disk_merge_request)];
};

static_assert(sizeof(struct disk_merge_request) >= sizeof(struct disk_merge_complete) &&
	      sizeof(struct disk_merge_request) >= sizeof(struct disk_merge_freeing),
	      "a copied value fits");

static bool has_room(struct merge_server *ms)
{
	return ms->room(ms->arg) >= MERGE_STEP_BLOCKS;
}

static bool has_room_for(void *arg, unsigned blocks)
{
	struct merge_server *ms = arg;

	return ms->room(ms->arg) >= blocks + RECORD_BLOCKS;
}

static struct btree_bounds bounds_of(struct merge_server *ms)
{
	return (struct btree_bounds){ .arg = ms, .has_room = has_room_for };
}

/* Items */

static int put(struct merge_server *ms, struct key key, const void *val, size_t len)
{
	const struct item it = { .key = key, .val = val, .val_len = (uint16_t)len };

	return btree_force(ms->bs, ms->al, &ms->super->log_merge, &it);
}

static int insert(struct merge_server *ms, struct key key, const void *val, size_t len)
{
	const struct item it = { .key = key, .val = val, .val_len = (uint16_t)len };
	int ret = btree_insert(ms->bs, ms->al, &ms->super->log_merge, &it);

	return ret == -EEXIST ? -EUCLEAN : ret;
}

static int del(struct merge_server *ms, struct key key)
{
	int ret = btree_delete(ms->bs, ms->al, &ms->super->log_merge, &key);

	return ret == -ENOENT ? -EUCLEAN : ret;
}

/* The first item of that zone >= key; -ENOENT: none. */
static int next_item(struct merge_server *ms, uint8_t zone, const struct key *key, struct copied *c)
{
	struct btree_ref ref;
	int ret;

	ret = btree_next(ms->bs, &ms->super->log_merge, key, &ref);
	if (ret < 0)
		return ret;
	if (ref.item.key.zone != zone) {
		ret = -ENOENT;
	} else if (ref.item.val_len > sizeof(c->val)) {
		ret = -EBADMSG;
	} else {
		c->it = ref.item;
		memcpy(c->val, ref.item.val, ref.item.val_len);
		c->it.val = c->val;
	}
	btree_put(ms->bs, &ref);
	return ret;
}

static int put_status(struct merge_server *ms, const struct merge_status *st)
{
	const struct disk_merge_status d = {
		.next_range_key = key_to_disk(&st->next_range_key),
		.nr_requests = le64_of(st->nr_requests),
		.nr_complete = le64_of(st->nr_complete),
		.seq = le64_of(st->seq),
	};

	return put(ms, (struct key){ .zone = ZONE_MERGE_STATUS }, &d, sizeof(d));
}

static struct key range_key(const struct key *start)
{
	struct key key = *start;

	key.zone = ZONE_MERGE_RANGE;
	return key;
}

static int insert_range(struct merge_server *ms, const struct key *start, const struct key *end)
{
	const struct disk_merge_range d = { key_to_disk(start), key_to_disk(end) };

	return insert(ms, range_key(start), &d, sizeof(d));
}

static struct key request_key(uint64_t rid, uint64_t seq)
{
	return (struct key){ .zone = ZONE_MERGE_REQUEST, .first = rid, .second = seq };
}

static int insert_request(struct merge_server *ms, const struct merge_request *req)
{
	struct disk_merge_request d;

	merge_request_put(req, &d);
	return insert(ms, request_key(req->rid, req->seq), &d, sizeof(d));
}

static struct key complete_key(uint64_t seq)
{
	return (struct key){ .zone = ZONE_MERGE_COMPLETE, .first = seq };
}

static int put_complete(struct merge_server *ms, const struct merge_complete *comp)
{
	struct disk_merge_complete d;

	merge_complete_put(comp, &d);
	return put(ms, complete_key(comp->seq), &d, sizeof(d));
}

static int add_range(void *arg, const struct item *it)
{
	struct ranges *r = arg;
	struct merge_range *v;
	const char *why;

	if (r->nr == r->cap) {
		r->cap = r->cap ? 2 * r->cap : 16;
		v = realloc(r->v, r->cap * sizeof(v[0]));
		if (!v)
			return -ENOMEM;
		r->v = v;
	}
	return merge_range_get(it, &r->v[r->nr++], &why);
}

/* All of them; free r->v. */
static int read_ranges(struct merge_server *ms, struct ranges *r)
{
	const struct key first = { .zone = ZONE_MERGE_RANGE };
	const struct key last = { .zone = ZONE_MERGE_RANGE, .first = UINT64_MAX, .type = 255,
				  .second = UINT64_MAX, .third = UINT64_MAX, .fourth = 255 };
	int ret;

	*r = (struct ranges){ 0 };
	ret = btree_each(ms->bs, &ms->super->log_merge, &first, &last, add_range, r);
	if (ret < 0)
		free(r->v);
	return ret;
}

/* Both lists of a request go to the server. */
static int take_lists(struct merge_server *ms, struct disk_alloc_list_head *avail,
		      struct disk_alloc_list_head *freed)
{
	int ret = alloc_list_splice(ms->bs, ms->al, ms->freed, avail);

	return ret < 0 ? ret : alloc_list_splice(ms->bs, ms->al, ms->freed, freed);
}

/* Start */

int merge_server_start(struct merge_server *ms)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct merge_status st;
	int ret;

	ret = merge_status_read(ms->bs, &ms->super->log_merge, &st);
	if (ret != -ENOENT)
		return ret < 0 ? ret : -EEXIST;
	ret = insert_range(ms, &zeros, &ones);
	if (ret < 0)
		return ret;
	st = (struct merge_status){ .next_range_key = zeros, .seq = ms->next_seq(ms->arg) };
	return put_status(ms, &st);
}

/* Handing out */

/* Whether every later reader of the committed roots will know the merge and its inputs. */
static int status_is_stable(struct merge_server *ms, const struct merge_status *st)
{
	struct merge_status stable;
	int ret = merge_status_read(ms->bs, &ms->stable->log_merge, &stable);

	if (ret == -ENOENT)
		return 0;
	return ret < 0 ? ret : stable.seq == st->seq;
}

/*
 * Cut `range` (not in `others`) into the request's [*start, *end] and what is left, which *rest is
 * then the start of.  1: and *rest, 0: nothing is left, -ENOENT: it has no input, -EAGAIN: no place
 * for the rest now.
 */
static int cut_range(struct merge_server *ms, const struct merge_inputs *in,
		     const struct ranges *others, const struct merge_range *range,
		     struct merge_request *req, struct key *parent_end, struct key *rest)
{
	struct key want, lo, hi;
	int ret;

	ret = merge_inputs_least(ms->bs, in, &range->start, &range->end, &req->start);
	if (ret == 0)
		ret = btree_parent_get(ms->bs, &ms->super->fs_root, &req->start, &req->root,
				       parent_end);
	if (ret < 0)
		return ret;
	req->end = range->end;
	if (key_cmp(&range->end, parent_end) <= 0)
		return 0;
	req->end = *parent_end;
	want = key_next(*parent_end);
	if (merge_place_start(others->v, others->nr, &want, &want, &want, rest))
		return 1;
	ret = merge_inputs_least(ms->bs, in, &want, &range->end, &hi);
	if (ret < 0)
		return ret == -ENOENT ? 0 : ret;
	lo = key_next(req->start);
	if (!merge_place_start(others->v, others->nr, &lo, &want, &hi, rest))
		return -EAGAIN;
	if (key_cmp(rest, parent_end) <= 0)
		req->end = key_prev(*rest);
	return 1;
}

/* Blocks for the request: MERGE_AVAIL_BLOCKS if they are there and can be had in this commit. */
static int fill(struct merge_server *ms, struct disk_alloc_list_head *avail)
{
	uint32_t to = 0;
	int ret = 0;

	while (ret == 0 && to < MERGE_AVAIL_BLOCKS && le64_get(ms->meta_avail->total_len) > 0 &&
	       (to == 0 || has_room(ms))) {
		to += FILL_STEP;
		to = to < MERGE_AVAIL_BLOCKS ? to : MERGE_AVAIL_BLOCKS;
		ret = alloc_list_fill(ms->bs, ms->al, avail, ms->meta_avail, to, to);
	}
	return ret;
}

/* Take ranges->v[pick] out of the array. */
static void set_aside(struct ranges *ranges, size_t pick, struct merge_range *range)
{
	*range = ranges->v[pick];
	ranges->v[pick] = ranges->v[--ranges->nr];
}

static int store_request(struct merge_server *ms, struct merge_status *st,
			 const struct merge_range *range, struct merge_request *req,
			 const struct key *parent_end, const struct key *rest)
{
	const struct key ones = KEY_ONES;
	int ret;

	ret = fill(ms, &req->meta_avail);
	if (ret < 0)
		return ret;
	req->seq = ms->next_seq(ms->arg);
	st->next_range_key = key_eq(parent_end, &ones) ? ones : key_next(*parent_end);
	st->nr_requests++;
	ret = del(ms, range_key(&range->start));
	if (ret == 0 && rest)
		ret = insert_range(ms, rest, &range->end);
	if (ret == 0)
		ret = insert_request(ms, req);
	return ret < 0 ? ret : put_status(ms, st);
}

/* What hand_out answers beside errors. */
enum handed { HANDED_OUT, HANDED_AGAIN, HANDED_SPLICE_FIRST };

/*
 * Cut the range picked, or the next one behind it whose rest has a place.  AGAIN: it has no input,
 * and *range is that range.
 */
static int choose(struct merge_server *ms, const struct merge_status *st, struct ranges *ranges,
		  size_t pick, struct merge_request *req, struct merge_range *range,
		  struct key *parent_end, struct key *rest)
{
	struct merge_status from = *st;
	struct merge_inputs in;
	struct ranges others;
	int ret;

	ret = merge_inputs_read(ms->bs, &ms->super->logs_root, st->seq, &in);
	if (ret < 0)
		return ret;
	for (;;) {
		others = *ranges;
		set_aside(&others, pick, range);
		ret = cut_range(ms, &in, &others, range, req, parent_end, rest);
		others.v[others.nr] = *range;
		if (ret != -EAGAIN)
			break;
		from.next_range_key = key_next(range->start);
		if (merge_decide(&from, ranges->v, ranges->nr, &pick) != MERGE_NEXT_HAND_OUT)
			break;
	}
	merge_inputs_free(&in);
	return ret;
}

static int hand_out(struct merge_server *ms, struct merge_status *st, struct ranges *ranges,
		    size_t pick, uint64_t rid, struct merge_request *req)
{
	const struct key zeros = KEY_ZEROS;
	struct merge_range range;
	struct key parent_end, rest;
	int ret;

	ret = status_is_stable(ms, st);
	if (ret < 0)
		return ret;
	if (ret == 0 || !has_room(ms))
		return -EINPROGRESS;
	/* Less would not do, and to wait costs nothing. */
	if (le64_get(ms->meta_avail->total_len) < 2 * FILL_STEP)
		return -ENOENT;

	*req = (struct merge_request){
		.logs_root = ms->stable->logs_root,
		.input_seq = st->seq,
		.rid = rid,
	};
	ret = choose(ms, st, ranges, pick, req, &range, &parent_end, &rest);
	if (ret == -ENOENT) {
		ret = del(ms, range_key(&range.start));
		return ret < 0 ? ret : HANDED_AGAIN;
	}
	if (ret == -EAGAIN) {
		/*
		 * Every rest falls on another range.  With all ranges to choose from that cannot
		 * be: the one whose rest has the greatest item key is in nobody's way.
		 */
		if (st->nr_requests > 0)
			return -ENOENT;
		return key_eq(&st->next_range_key, &zeros) ? -EUCLEAN : HANDED_SPLICE_FIRST;
	}
	if (ret < 0)
		return ret;
	req->flags = ms->super->fs_root.height > 2 ? MERGE_REQUEST_SUBTREE : 0;
	ret = store_request(ms, st, &range, req, &parent_end, ret == 1 ? &rest : NULL);
	return ret < 0 ? ret : HANDED_OUT;
}

/* Splicing */

static bool is_spliced(const struct merge_complete *comp)
{
	return alloc_list_is_empty(&comp->meta_avail) && alloc_list_is_empty(&comp->meta_freed);
}

/* Phase 1: one completed subtree comes into fs_root, and its lists to the server. */
static int splice_one(struct merge_server *ms, struct merge_complete *comp)
{
	int ret;

	ret = btree_parent_replace(ms->bs, ms->al, &ms->super->fs_root, &comp->start, &comp->root);
	if (ret == 0)
		ret = take_lists(ms, &comp->meta_avail, &comp->meta_freed);
	return ret < 0 ? ret : put_complete(ms, comp);
}

/*
 * Phase 2: what a completion left over is a range again.  1: it has no place yet, nothing changed.
 */
static int put_back_rest(struct merge_server *ms, const struct merge_inputs *in,
			 const struct merge_complete *comp)
{
	struct key lo = comp->start, start, last;
	struct ranges ranges;
	bool placed;
	int ret = -ENOENT;

	if (!key_eq(&comp->remain, &comp->start)) {
		last = key_prev(comp->remain);
		ret = merge_inputs_greatest(ms->bs, in, &comp->start, &last, &last);
	}
	if (ret == 0)
		lo = key_next(last);
	else if (ret != -ENOENT)
		return ret;
	ret = read_ranges(ms, &ranges);
	if (ret < 0)
		return ret;
	placed = merge_place_start(ranges.v, ranges.nr, &lo, &comp->remain, &comp->remain, &start);
	free(ranges.v);
	return placed ? insert_range(ms, &start, &comp->end) : 1;
}

static int unpack_one(struct merge_server *ms, const struct merge_inputs *in,
		      const struct merge_complete *comp, uint64_t *deferred)
{
	const struct btree_bounds bounds = bounds_of(ms);
	int ret;

	ret = btree_parent_rebalance(ms->bs, ms->al, &ms->super->fs_root, &comp->remain, &bounds);
	if (ret != 0)
		return ret < 0 ? ret : -EINPROGRESS;
	if (comp->flags & MERGE_COMPLETE_REMAIN)
		ret = put_back_rest(ms, in, comp);
	if (ret == 1) {
		(*deferred)++;
		return 0;
	}
	if (ret == 0)
		ret = del(ms, complete_key(comp->seq));
	return ret;
}

/*
 * Phase 1 (in NULL) or 2 for every completion.  All subtrees are in fs_root before the first path
 * is rebalanced: that may join a parent with its neighbour, of which a newer copy could be waiting
 * still.
 */
static int each_complete(struct merge_server *ms, const struct merge_inputs *in, uint64_t *deferred)
{
	struct key key = { .zone = ZONE_MERGE_COMPLETE };
	struct merge_complete comp;
	struct copied c;
	const char *why;
	int ret;

	for (;;) {
		ret = next_item(ms, ZONE_MERGE_COMPLETE, &key, &c);
		if (ret < 0)
			return ret == -ENOENT ? 0 : ret;
		ret = merge_complete_get(&c.it, &comp, &why);
		if (ret < 0)
			return ret;
		key = key_next(c.it.key);
		if (!in && is_spliced(&comp))
			continue;
		if (!has_room(ms))
			return -EINPROGRESS;
		ret = in ? unpack_one(ms, in, &comp, deferred) : splice_one(ms, &comp);
		if (ret < 0)
			return ret;
	}
}

/* The end of a merge */

struct input_item {
	struct key key;
	struct disk_btree_root root;
	struct block_ref bloom;
	uint64_t inodes;
};

struct input_items {
	struct input_item *v;
	size_t nr, cap;
	uint64_t input_seq;
};

static int add_input(void *arg, const struct item *it)
{
	struct input_items *in = arg;
	struct input_item *v;
	struct disk_log_trees lt;
	int ret;

	ret = log_trees_check(it, &lt);
	if (ret < 0)
		return ret;
	if (!log_trees_is_input(&lt, in->input_seq))
		return 0;
	if (in->nr == in->cap) {
		in->cap = in->cap ? 2 * in->cap : 16;
		v = realloc(in->v, in->cap * sizeof(v[0]));
		if (!v)
			return -ENOMEM;
		in->v = v;
	}
	in->v[in->nr++] = (struct input_item){
		.key = it->key,
		.root = lt.item_root,
		.bloom = block_ref_get(&lt.bloom_ref),
		.inodes = le64_get(lt.inode_count_delta),
	};
	return 0;
}

static struct key freeing_key(uint64_t seq)
{
	return (struct key){ .zone = ZONE_MERGE_FREEING, .first = seq };
}

static int retire_input(struct merge_server *ms, const struct input_item *in)
{
	struct disk_merge_freeing fr = { .root = in->root };
	int ret = 0;

	if (in->root.height > 0) {
		fr.seq = le64_of(ms->next_seq(ms->arg));
		ret = insert(ms, freeing_key(le64_get(fr.seq)), &fr, sizeof(fr));
	}
	if (ret == 0 && in->bloom.blkno)
		ret = block_free(ms->bs, ms->al, in->bloom);
	if (ret == 0)
		ret = btree_delete(ms->bs, ms->al, &ms->super->logs_root, &in->key);
	if (ret < 0)
		return ret == -EINVAL || ret == -ENOENT ? -EUCLEAN : ret;
	le64_add(&ms->super->inode_count, in->inodes);
	return 0;
}

static int finish(struct merge_server *ms, const struct merge_status *st)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct input_items in = { .input_seq = st->seq };
	size_t need, has;
	int ret;

	ret = btree_each(ms->bs, &ms->super->logs_root, &zeros, &ones, add_input, &in);
	/* A bloom block each, and the blocks of the trees that the items are in. */
	need = in.nr + in.nr / 32 + 2 * RECORD_BLOCKS;
	has = ms->room_at_end ? ms->room_at_end(ms->arg) : ms->room(ms->arg);
	if (ret == 0 && need > ALLOC_LIST_ENTRIES)
		ret = -ENOSPC;
	else if (ret == 0 && has < need)
		ret = -EINPROGRESS;
	for (size_t i = 0; i < in.nr && ret == 0; i++)
		ret = retire_input(ms, &in.v[i]);
	if (ret == 0)
		ret = del(ms, (struct key){ .zone = ZONE_MERGE_STATUS });
	free(in.v);
	return ret;
}

/* 0: requests can be handed out again, or the merge is over. */
static int splice(struct merge_server *ms, struct merge_status *st)
{
	struct key key = { .zone = ZONE_MERGE_COMPLETE };
	struct merge_inputs in;
	uint64_t deferred = 0;
	struct copied c;
	int ret;

	if (!has_room(ms))
		return -EINPROGRESS;
	ret = next_item(ms, ZONE_MERGE_COMPLETE, &key, &c);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	/* No request is handed out until this is through. */
	if (ret == 0 && st->nr_complete < MERGE_BATCH) {
		st->nr_complete = MERGE_BATCH;
		ret = put_status(ms, st);
		if (ret < 0)
			return ret;
	}
	ret = each_complete(ms, NULL, NULL);
	if (ret < 0)
		return ret;
	ret = merge_inputs_read(ms->bs, &ms->super->logs_root, st->seq, &in);
	if (ret < 0)
		return ret;
	ret = each_complete(ms, &in, &deferred);
	merge_inputs_free(&in);
	if (ret < 0)
		return ret;

	key = (struct key){ .zone = ZONE_MERGE_RANGE };
	ret = next_item(ms, ZONE_MERGE_RANGE, &key, &c);
	if (ret == -ENOENT)
		return deferred ? -EUCLEAN : finish(ms, st);
	if (ret < 0)
		return ret;
	st->next_range_key = KEY_ZEROS;
	st->nr_complete = deferred;
	return put_status(ms, st);
}

/* The calls */

/* The first request of rid; -ENOENT. */
static int first_request(struct merge_server *ms, uint64_t rid, struct merge_request *req)
{
	const struct key key = request_key(rid, 0);
	struct copied c;
	const char *why;
	int ret;

	ret = next_item(ms, ZONE_MERGE_REQUEST, &key, &c);
	if (ret == 0 && c.it.key.first != rid)
		ret = -ENOENT;
	return ret < 0 ? ret : merge_request_get(&c.it, req, &why);
}

/*
 * Splice while it is time to; 0: *ranges (to be freed) and *pick are what there is to hand out,
 * -ENOENT: nothing.  *changed is set if anything did.
 */
static int advance(struct merge_server *ms, struct merge_status *st, struct ranges *ranges,
		   size_t *pick, bool *changed)
{
	enum merge_next next;
	int ret;

	for (;;) {
		ret = merge_status_read(ms->bs, &ms->super->log_merge, st);
		if (ret == 0)
			ret = read_ranges(ms, ranges);
		if (ret < 0)
			return ret;
		next = merge_decide(st, ranges->v, ranges->nr, pick);
		if (next == MERGE_NEXT_HAND_OUT)
			return 0;
		free(ranges->v);
		if (next == MERGE_NEXT_NOTHING)
			return -ENOENT;
		ret = splice(ms, st);
		if (ret < 0)
			return ret;
		*changed = true;
	}
}

int merge_server_get(struct merge_server *ms, uint64_t rid, struct merge_request *req)
{
	struct merge_status st;
	struct ranges ranges;
	bool changed = false;
	size_t pick;
	int ret;

	ret = first_request(ms, rid, req);
	if (ret != -ENOENT)
		return ret;
	for (;;) {
		ret = advance(ms, &st, &ranges, &pick, &changed);
		if (ret < 0)
			break;
		ret = hand_out(ms, &st, &ranges, pick, rid, req);
		free(ranges.v);
		if (ret == HANDED_OUT)
			return 0;
		if (ret == HANDED_SPLICE_FIRST)
			ret = splice(ms, &st);
		if (ret < 0)
			break;
		changed = true;
	}
	/* -ENOENT says that nothing has changed; what has is to stay. */
	return ret == -ENOENT && changed ? -EINPROGRESS : ret;
}

int merge_server_advance(struct merge_server *ms)
{
	struct merge_status st;
	struct ranges ranges;
	bool changed;
	size_t pick;
	int ret;

	ret = advance(ms, &st, &ranges, &pick, &changed);
	if (ret == 0)
		free(ranges.v);
	return ret == -ENOENT ? 0 : ret;
}

/* The status of a merge that has requests. */
static int status_with_requests(struct merge_server *ms, struct merge_status *st)
{
	int ret = merge_status_read(ms->bs, &ms->super->log_merge, st);

	if (ret == -ENOENT || (ret == 0 && st->nr_requests == 0))
		return -EUCLEAN;	/* requests break 20.33 then */
	return ret;
}

/* A request is now a completion. */
static int complete(struct merge_server *ms, struct merge_status *st,
		    const struct merge_request *req, const struct merge_complete *comp)
{
	int ret;

	st->nr_requests--;
	st->nr_complete++;
	ret = del(ms, request_key(req->rid, req->seq));
	if (ret == 0)
		ret = put_complete(ms, comp);
	return ret < 0 ? ret : put_status(ms, st);
}

/* Nothing was done: the range is handed out again, and the blocks were not used. */
static int give_back(struct merge_server *ms, struct merge_request *req)
{
	struct merge_complete comp;
	struct merge_status st;
	struct ranges ranges;
	struct key start;
	bool placed;
	int ret;

	ret = status_with_requests(ms, &st);
	if (ret == 0)
		ret = read_ranges(ms, &ranges);
	if (ret < 0)
		return ret;
	placed = merge_place_start(ranges.v, ranges.nr, &req->start, &req->start, &req->start,
				   &start);
	free(ranges.v);
	if (!placed) {
		merge_run_give_up(req, &comp);
		comp.remain = req->start;
		comp.flags = MERGE_COMPLETE_REMAIN;
		return complete(ms, &st, req, &comp);
	}
	st.nr_requests--;
	ret = del(ms, request_key(req->rid, req->seq));
	if (ret == 0)
		ret = insert_range(ms, &req->start, &req->end);
	if (ret == 0)
		ret = take_lists(ms, &req->meta_avail, &req->meta_freed);
	return ret < 0 ? ret : put_status(ms, &st);
}

static bool is_one_block(const struct disk_alloc_list_head *head)
{
	return alloc_list_head_check(head) == 0 &&
	       le64_get(head->total_nr) == le32_get(head->first_nr);
}

/* Whether a mount's completion can have come of its request. */
static bool fits(const struct merge_request *req, const struct merge_complete *comp)
{
	bool remains = comp->flags & MERGE_COMPLETE_REMAIN;

	if (comp->flags & ~MERGE_COMPLETE_REMAIN || comp->rid != req->rid ||
	    !key_eq(&comp->start, &req->start) || !key_eq(&comp->end, &req->end))
		return false;
	if (key_cmp(&comp->remain, &req->start) < 0 || key_cmp(&comp->remain, &req->end) > 0 ||
	    (!remains && !key_eq(&comp->remain, &req->end)))
		return false;
	if (!is_one_block(&comp->meta_avail) || !is_one_block(&comp->meta_freed) ||
	    is_spliced(comp) ||
	    le64_get(comp->meta_avail.total_nr) > le64_get(req->meta_avail.total_nr))
		return false;
	if (!btree_root_is_sane(&comp->root))
		return false;
	return !(req->flags & MERGE_REQUEST_SUBTREE) || comp->root.height == 2;
}

int merge_server_commit(struct merge_server *ms, uint64_t rid, const struct merge_complete *comp)
{
	const struct key key = request_key(rid, comp->seq);
	struct merge_request req;
	struct merge_status st;
	struct btree_ref ref;
	const char *why;
	int ret;

	ret = btree_lookup(ms->bs, &ms->super->log_merge, &key, &ref);
	if (ret < 0)
		return ret;
	ret = merge_request_get(&ref.item, &req, &why);
	btree_put(ms->bs, &ref);
	if (ret < 0)
		return ret;
	if (!has_room(ms))
		return -EINPROGRESS;
	if (comp->flags & MERGE_COMPLETE_ERROR)
		return give_back(ms, &req);
	if (!fits(&req, comp))
		return -EINVAL;
	ret = btree_parent_fits(ms->bs, &ms->super->fs_root, &req.start, &comp->root);
	if (ret < 0)
		return ret == -EBADMSG || ret == -ESTALE ? -EINVAL : ret;
	ret = status_with_requests(ms, &st);
	return ret < 0 ? ret : complete(ms, &st, &req, comp);
}

int merge_server_release(struct merge_server *ms, uint64_t rid)
{
	struct merge_request req;
	int ret;

	while ((ret = first_request(ms, rid, &req)) == 0) {
		if (!has_room(ms))
			return -EINPROGRESS;
		ret = give_back(ms, &req);
		if (ret < 0)
			return ret;
	}
	return ret == -ENOENT ? 0 : ret;
}

/* Freeing */

static int put_freeing(struct merge_server *ms, const struct merge_freeing *fr)
{
	const struct disk_merge_freeing d = { fr->root, key_to_disk(&fr->key), le64_of(fr->seq) };

	return put(ms, freeing_key(fr->seq), &d, sizeof(d));
}

int merge_server_free(struct merge_server *ms, unsigned blocks_max)
{
	const struct btree_bounds bounds = bounds_of(ms);
	struct key key = { .zone = ZONE_MERGE_FREEING };
	struct merge_freeing fr;
	struct copied c;
	const char *why;
	int ret;

	for (;;) {
		ret = next_item(ms, ZONE_MERGE_FREEING, &key, &c);
		if (ret < 0)
			return ret == -ENOENT ? 0 : ret;
		if (blocks_max == 0 || !has_room(ms))
			return -EINPROGRESS;
		ret = merge_freeing_get(&c.it, &fr, &why);
		if (ret == 0)
			ret = btree_free_some(ms->bs, ms->al, &fr.root, &fr.key, &blocks_max,
					      &bounds);
		if (ret == 0)
			ret = put_freeing(ms, &fr);
		else if (ret == 1)
			ret = del(ms, c.it.key);
		if (ret < 0)
			return ret;
	}
}

/* Looking */

static int count_item(void *arg, const struct item *it)
{
	struct merge_counts *n = arg;
	const char *why;

	switch (it->key.zone) {
	case ZONE_MERGE_STATUS:
		n->active = true;
		return merge_status_get(it, &n->status, &why);
	case ZONE_MERGE_RANGE:
		n->ranges++;
		break;
	case ZONE_MERGE_REQUEST:
		n->requests++;
		break;
	case ZONE_MERGE_COMPLETE:
		n->completes++;
		break;
	case ZONE_MERGE_FREEING:
		n->freeing++;
		break;
	}
	return 0;
}

int merge_server_count(struct block_set *bs, const struct disk_btree_root *log_merge,
		       struct merge_counts *n)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;

	*n = (struct merge_counts){ .active = false };
	return btree_each(bs, log_merge, &zeros, &ones, count_item, n);
}
