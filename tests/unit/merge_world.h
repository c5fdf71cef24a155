/*
 * A volume with a server and some mounts, in memory, for tests of log merge (lib/core/merge).
 *
 * Mounts write versions, markers and totals into log trees; the server's calls are made in
 * transactions of random size, with crashes between any two commits.  A model knows what every key
 * must read as, and every block of the device must have one owner at any time (16.4).
 */
#ifndef SCOUTFS_TEST_MERGE_WORLD_H
#define SCOUTFS_TEST_MERGE_WORLD_H

#include "rig.h"

#include <errno.h>

#include "btree/btree_parts.h"
#include "log/forest.h"
#include "log/merge_items.h"
#include "merge/merge_server.h"

#define TOTAL		24000u
#define FILL_FIRST	2u		/* blocks 2..FILL_NR+1 begin as free extents */
#define FILL_NR		9000u
#define KEYS		60000u
#define FIRST_TOTAL	1000u
#define FIRST_INDX	2500u
#define FIRST_BIG	3000u		/* values of some hundred bytes from here on */
#define MOUNTS		4u
#define CLIENTS		4u
#define RID(i)		(100u + (i))

/* One key's truth. */
struct truth {
	bool present;
	uint64_t seq;
	uint64_t total, count;		/* zone 12 */
};

struct client {
	bool has;
	struct merge_request req;
	bool is_done;
	struct merge_complete comp;
};

/* What a commit makes durable besides blocks. */
struct state {
	struct disk_super super;
	struct disk_alloc_list_head freed;		/* the server's idle list */
	struct disk_alloc_list_head log_avail, log_freed;
};

struct world {
	struct rig r;
	struct state now, stable;
	struct merge_server ms;
	struct blkno_alloc al;
	unsigned budget, allocs, frees;	/* of the transaction */
	unsigned budget_at_end;		/* of one that ends a merge */
	uint64_t seq, rng;
	struct truth truth[KEYS];
	struct disk_log_trees open[MOUNTS];	/* nr 0: none */
	uint64_t next_nr[MOUNTS];
	struct client clients[CLIENTS];
	unsigned crash_percent;
	bool is_tight;			/* little room in most transactions */
	uint64_t inodes, merges, remains, requests, crashes;
};

static inline unsigned below(struct world *w, unsigned n)
{
	return (unsigned)rnd_below(&w->rng, n);
}

static inline bool percent(struct world *w, unsigned p)
{
	return below(w, 100) < p;
}

/* Keys in order; fields repeat from zone to zone, so that ranges want one item key now and then. */
static inline struct key key_of(unsigned nr)
{
	static const struct { unsigned first; uint8_t zone; } zones[] = {
		{ 0, ZONE_INODE_INDEX }, { 500, ZONE_ORPHAN }, { FIRST_TOTAL, ZONE_XATTR_TOTL },
		{ FIRST_INDX, ZONE_XATTR_INDX }, { FIRST_BIG, ZONE_FS }, { KEYS, 0 } };
	unsigned z = 0, n;

	while (nr >= zones[z + 1].first)
		z++;
	n = nr - zones[z].first;
	return (struct key){ .zone = zones[z].zone, .first = 1 + n / 8, .type = 4,
			     .second = n / 2 % 4, .fourth = (uint8_t)(n % 2) };
}

static inline bool is_total(unsigned nr)
{
	return key_of(nr).zone == ZONE_XATTR_TOTL;
}

static inline uint16_t value_of(unsigned nr, uint64_t seq, uint8_t *val)
{
	uint64_t rng = (uint64_t)nr << 32 ^ seq;
	uint64_t span = nr < FIRST_BIG ? 64 : 256, least = nr < FIRST_BIG ? 0 : 640;
	uint16_t len = (uint16_t)(least + rnd_below(&rng, span));

	for (unsigned i = 0; i < len; i += 8) {
		uint64_t v = test_random(&rng);

		memcpy(val + i, &v, len - i < 8 ? len - i : 8);
	}
	return len;
}

/* --- the server's transactions --- */

static inline int w_alloc(void *arg, uint64_t *blkno)
{
	struct world *w = arg;

	w->allocs++;
	return w->r.al.alloc(w->r.al.arg, blkno);
}

static inline int w_free(void *arg, uint64_t blkno)
{
	struct world *w = arg;

	w->frees++;
	return w->r.al.free(w->r.al.arg, blkno);
}

static inline unsigned w_room(void *arg)
{
	struct world *w = arg;
	unsigned used = w->allocs > w->frees ? w->allocs : w->frees;

	return used < w->budget ? w->budget - used : 0;
}

static inline unsigned w_room_at_end(void *arg)
{
	struct world *w = arg;
	unsigned used = w->allocs > w->frees ? w->allocs : w->frees;

	return used < w->budget_at_end ? w->budget_at_end - used : 0;
}

static inline uint64_t w_seq(void *arg)
{
	return ++((struct world *)arg)->seq;
}

static inline void begin(struct world *w)
{
	w->allocs = 0;
	w->frees = 0;
	w->budget_at_end = w->is_tight && percent(w, 70) ? 300 : 700;
	w->budget = MERGE_STEP_BLOCKS + below(w, w->is_tight && percent(w, 90) ? 20 : 400);
}

/* Lists given to the server become free extents; taken from those only by later transactions. */
static inline void commit(struct world *w)
{
	struct disk_alloc_root *root = &w->now.super.meta_alloc[0];
	uint64_t blkno;
	int ret;

	do {
		ret = alloc_list_empty(w->r.bs, &w->r.al, &w->now.freed, root, 8);
	} while (ret == -EINPROGRESS);
	assert_int_equal(ret, 0);
	while (le64_get(root->total_len) < FILL_NR / 2) {
		assert_int_equal(w->r.al.alloc(w->r.al.arg, &blkno), 0);
		assert_int_equal(free_extents_insert(w->r.bs, &w->r.al, root,
						     (struct extent){ blkno, 1 }), 0);
	}
	rig_commit(&w->r);
	w->stable = w->now;
}

static inline void crash(struct world *w)
{
	block_set_abort(w->r.bs);
	memalloc_abort(&w->r.ma);
	w->now = w->stable;
	w->crashes++;
	if (percent(w, 20))
		rig_reopen(&w->r, 16 + below(w, 200));
	w->ms.bs = w->r.bs;
}

/*
 * is_full: two of three keys of the greatest zone are in fs_root, below some parents; else it has
 * one item.
 */
static inline struct world *world_open(uint64_t seed, bool is_full)
{
	struct world *w = calloc(1, sizeof(*w));
	struct item it = { .seq = 1 };
	uint8_t val[ITEM_VAL_MAX];

	assert_non_null(w);
	w->rng = seed;
	rig_open(&w->r, FILL_FIRST + FILL_NR, TOTAL);
	memalloc_commit(&w->r.ma);
	w->al = (struct blkno_alloc){ .arg = w, .alloc = w_alloc, .free = w_free };
	w->ms = (struct merge_server){
		.bs = w->r.bs, .al = &w->al, .super = &w->now.super, .stable = &w->stable.super,
		.freed = &w->now.freed, .meta_avail = &w->now.super.meta_alloc[0], .arg = w,
		.next_seq = w_seq, .room = w_room, .room_at_end = w_room_at_end,
	};
	assert_int_equal(free_extents_insert(w->r.bs, &w->r.al, &w->now.super.meta_alloc[0],
					     (struct extent){ FILL_FIRST, FILL_NR }), 0);
	w->seq = 1;
	for (unsigned i = 0; i < MOUNTS; i++)
		w->next_nr[i] = 1;
	for (unsigned nr = FIRST_BIG; nr < KEYS; nr++) {
		if (is_full ? nr % 3 == 0 : nr != FIRST_BIG)
			continue;
		it.key = key_of(nr);
		it.val = val;
		it.val_len = value_of(nr, 1, val);
		assert_int_equal(btree_insert(w->r.bs, &w->r.al, &w->now.super.fs_root, &it), 0);
		w->truth[nr] = (struct truth){ .present = true, .seq = 1 };
	}
	assert_int_equal(w->now.super.fs_root.height, is_full ? 3 : 1);
	commit(w);
	rig_reopen(&w->r, 100);
	w->ms.bs = w->r.bs;
	return w;
}

static inline void world_close(struct world *w)
{
	rig_close(&w->r);
	free(w);
}

/* --- every block has one owner, 16.4 --- */

struct owners {
	struct world *w;
	uint8_t *of;		/* 0: nobody's yet, 1: fs_root's, 2: another's */
	uint8_t as;
	bool may_share_fs;
};

static inline void own(struct owners *o, uint64_t blkno, uint8_t as)
{
	assert_true(blkno >= META_FIRST_BLKNO && blkno < TOTAL);
	if (o->of[blkno])
		print_error("block %llu has two owners\n", (unsigned long long)blkno);
	assert_int_equal(o->of[blkno], 0);
	o->of[blkno] = as;
}

static inline int own_tree_block(void *arg, const struct btree_visit *v)
{
	struct owners *o = arg;

	assert_int_equal(v->err, 0);
	if (o->may_share_fs && o->of[v->ref.blkno] == 1)
		return 1;
	own(o, v->ref.blkno, o->as);
	return 0;
}

static inline void own_tree(struct owners *o, const struct disk_btree_root *root, uint8_t as,
		     bool may_share_fs)
{
	o->as = as;
	o->may_share_fs = may_share_fs;
	assert_int_equal(btree_visit_blocks(o->w->r.bs, root, own_tree_block, o), 0);
}

static inline int own_list_block(void *arg, struct block_ref ref,
				 const struct disk_alloc_list_block *b)
{
	struct owners *o = arg;

	own(o, ref.blkno, 2);
	for (uint32_t i = 0; i < le32_get(b->nr); i++) {
		uint64_t blkno = le64_get(b->blknos[le32_get(b->start) + i]);

		/* What a completed subtree has replaced is in fs_root still. */
		if (!o->may_share_fs || o->of[blkno] != 1)
			own(o, blkno, 2);
	}
	return 0;
}

static inline void own_list(struct owners *o, const struct disk_alloc_list_head *head,
			    bool may_share_fs)
{
	o->may_share_fs = may_share_fs;
	assert_int_equal(alloc_list_each(o->w->r.bs, head, own_list_block, o), 0);
}

static inline int own_log(void *arg, const struct item *it)
{
	struct owners *o = arg;
	struct disk_log_trees lt;

	assert_int_equal(log_trees_check(it, &lt), 0);
	own_tree(o, &lt.item_root, 2, false);
	if (le64_get(lt.bloom_ref.blkno))
		own(o, le64_get(lt.bloom_ref.blkno), 2);
	return 0;
}

struct freeing_walk {
	struct owners *o;
	struct key below;
};

static inline int own_unfreed(void *arg, const struct btree_visit *v)
{
	struct freeing_walk *f = arg;

	if (key_cmp(&v->high, &f->below) < 0)
		return 1;
	assert_int_equal(v->err, 0);
	own(f->o, v->ref.blkno, 2);
	return 0;
}

static inline int own_merge_item(void *arg, const struct item *it)
{
	struct owners *o = arg;
	struct merge_request req;
	struct merge_complete comp;
	struct merge_freeing fr;
	struct freeing_walk walk;
	const char *why;

	switch (it->key.zone) {
	case ZONE_MERGE_REQUEST:
		assert_int_equal(merge_request_get(it, &req, &why), 0);
		own_list(o, &req.meta_avail, false);
		own_list(o, &req.meta_freed, false);
		break;
	case ZONE_MERGE_COMPLETE:
		assert_int_equal(merge_complete_get(it, &comp, &why), 0);
		if (!comp.meta_avail.ref.blkno.v && !comp.meta_freed.ref.blkno.v)
			break;
		own_tree(o, &comp.root, 2, true);
		own_list(o, &comp.meta_avail, false);
		own_list(o, &comp.meta_freed, true);
		break;
	case ZONE_MERGE_FREEING:
		assert_int_equal(merge_freeing_get(it, &fr, &why), 0);
		walk = (struct freeing_walk){ .o = o, .below = fr.key };
		assert_int_equal(btree_visit_blocks(o->w->r.bs, &fr.root, own_unfreed, &walk), 0);
		break;
	}
	return 0;
}

static inline int own_extent(void *arg, const struct item *it)
{
	struct owners *o = arg;

	/* Each is stored twice; by place is enough. */
	if (it->key.zone == ZONE_FREE_BY_BLKNO)
		for (uint64_t i = 0; i < it->key.second; i++)
			own(o, it->key.first - i, 2);
	return 0;
}

static inline void check_owners(struct world *w)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct owners o = { .w = w, .of = calloc(1, TOTAL) };
	const struct disk_super *s = &w->now.super;

	own_tree(&o, &s->fs_root, 1, false);
	own_tree(&o, &s->logs_root, 2, false);
	own_tree(&o, &s->log_merge, 2, false);
	own_tree(&o, &s->meta_alloc[0].root, 2, false);
	assert_int_equal(btree_each(w->r.bs, &s->logs_root, &zeros, &ones, own_log, &o), 0);
	own_list(&o, &w->now.freed, false);
	own_list(&o, &w->now.log_avail, false);
	own_list(&o, &w->now.log_freed, false);
	assert_int_equal(btree_each(w->r.bs, &s->meta_alloc[0].root, &zeros, &ones, own_extent, &o),
			 0);
	assert_int_equal(btree_each(w->r.bs, &s->log_merge, &zeros, &ones, own_merge_item, &o), 0);
	for (uint64_t b = META_FIRST_BLKNO; b < TOTAL; b++) {
		if ((o.of[b] != 0) != (w->r.ma.now[b] == MEMALLOC_USED))
			print_error("block %llu is %s\n", (unsigned long long)b,
				    o.of[b] ? "used but free" : "leaked");
		assert_int_equal(o.of[b] != 0, w->r.ma.now[b] == MEMALLOC_USED);
	}
	free(o.of);
}

/* --- what can be read --- */

static inline struct forest_roots roots_of(struct world *w)
{
	struct forest_roots roots;

	forest_roots_of_super(&w->now.super, &roots);
	return roots;
}

static inline void assert_item(struct world *w, unsigned nr, const struct item *it)
{
	const struct truth *t = &w->truth[nr];
	uint8_t want[ITEM_VAL_MAX];
	struct disk_xattr_total d;

	if (is_total(nr)) {
		assert_int_equal(it->val_len, sizeof(d));
		memcpy(&d, it->val, sizeof(d));
		assert_int_equal(le64_get(d.total), t->total);
		assert_int_equal(le64_get(d.count), t->count);
		return;
	}
	assert_true(t->present);
	assert_int_equal(it->seq, t->seq);
	assert_int_equal(it->val_len, value_of(nr, t->seq, want));
	if (it->val_len)
		assert_memory_equal(it->val, want, it->val_len);
}

static inline bool exists(const struct world *w, unsigned nr)
{
	const struct truth *t = &w->truth[nr];

	return is_total(nr) ? t->total || t->count : t->present;
}

static inline void check_some(struct world *w, unsigned tries)
{
	const struct forest_roots roots = roots_of(w);
	uint8_t val[ITEM_VAL_MAX];
	struct item it;
	struct key key;

	while (tries--) {
		unsigned nr = percent(w, 30) ? FIRST_TOTAL + below(w, 1500) : below(w, KEYS);
		int ret;

		key = key_of(nr);
		ret = forest_lookup(w->r.bs, &roots, &key, &it, val);
		if (ret != (exists(w, nr) ? 0 : -ENOENT))
			print_error("key %u\n", nr);
		assert_int_equal(ret, exists(w, nr) ? 0 : -ENOENT);
		if (ret == 0)
			assert_item(w, nr, &it);
	}
}

static inline void check_all(struct world *w)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	const struct forest_roots roots = roots_of(w);
	struct forest_iter *fi;
	struct item it;
	struct key key;

	assert_int_equal(forest_iter_open(&fi, w->r.bs, &roots, &zeros, &ones), 0);
	for (unsigned nr = 0; nr < KEYS; nr++) {
		if (!exists(w, nr))
			continue;
		key = key_of(nr);
		assert_int_equal(forest_iter_next(fi, &it), 0);
		assert_true(key_eq(&it.key, &key));
		assert_item(w, nr, &it);
	}
	assert_int_equal(forest_iter_next(fi, &it), -ENOENT);
	forest_iter_close(fi);
}

static inline int no_marker(void *arg, const struct item *it)
{
	(void)arg;
	assert_int_equal(it->flags, 0);
	return 0;
}

/* --- mounts write --- */

static inline void write_key(struct world *w, struct meta_alloc *ma, struct disk_log_trees *lt,
			     unsigned nr, bool delete)
{
	struct truth *t = &w->truth[nr];
	struct disk_xattr_total d;
	uint8_t val[ITEM_VAL_MAX];
	struct item it = { .key = key_of(nr), .seq = ++w->seq, .val = val };
	uint64_t add = 1 + nr % 7;

	if (is_total(nr)) {
		/* Never less than nothing: what is taken away was set before. */
		delete = delete && t->count > 0;
		add = delete ? -add : add;
		d = (struct disk_xattr_total){ le64_of(add), le64_of(delete ? UINT64_MAX : 1) };
		it.val = &d;
		it.val_len = sizeof(d);
		t->total += add;
		t->count += delete ? UINT64_MAX : 1;
	} else {
		it.flags = delete ? ITEM_FLAG_DELETION : 0;
		it.val_len = delete ? 0 : value_of(nr, it.seq, val);
		*t = (struct truth){ .present = !delete, .seq = it.seq };
	}
	assert_int_equal(log_tree_force(w->r.bs, ma, lt, &it), 0);
}

static inline void store_log(struct world *w, const struct disk_log_trees *lt)
{
	const struct item it = { .key = key_log_trees(le64_get(lt->rid), le64_get(lt->nr)),
				 .val = lt, .val_len = sizeof(*lt) };

	assert_int_equal(btree_force(w->r.bs, &w->r.al, &w->now.super.logs_root, &it), 0);
}

enum habit { HABIT_SPARSE, HABIT_FILL, HABIT_CLEAR, HABIT_TOTALS, HABITS };

static inline unsigned pick_key(struct world *w, enum habit habit, unsigned nr)
{
	switch (habit) {
	case HABIT_SPARSE:
		return below(w, KEYS);
	case HABIT_TOTALS:
		return FIRST_TOTAL + below(w, percent(w, 50) ? 20 : FIRST_INDX - FIRST_TOTAL);
	case HABIT_FILL:
	case HABIT_CLEAR:
	case HABITS:
		break;
	}
	return nr;
}

/* Writes of one mount, committed: of keys from `from` on, or of any. */
static inline void write_from(struct world *w, unsigned m, enum habit habit, unsigned from,
			      unsigned ops)
{
	struct disk_log_trees *lt = &w->open[m];
	struct disk_alloc_root *root = &w->now.super.meta_alloc[0];
	const unsigned deletes[] = { [HABIT_SPARSE] = 40, [HABIT_CLEAR] = 100,
				     [HABIT_TOTALS] = 50, [HABITS] = 0 };
	unsigned inodes = below(w, 5);
	struct meta_alloc ma;
	int ret;

	begin(w);
	if (!le64_get(lt->nr))
		*lt = (struct disk_log_trees){ .rid = le64_of(RID(m)),
					       .nr = le64_of(w->next_nr[m]++) };
	ret = alloc_list_fill(w->r.bs, &w->r.al, &w->now.log_avail, root, 2000, 2000);
	assert_int_equal(ret, 0);
	meta_alloc_open(&ma, w->r.bs, &w->now.log_avail, &w->now.log_freed);
	for (unsigned i = 0; i < ops && from + i < KEYS; i++) {
		assert_true(meta_alloc_avail_nr(&ma) > 40);
		write_key(w, &ma, lt, pick_key(w, habit, from + i), percent(w, deletes[habit]));
	}
	meta_alloc_close(&ma);
	do {
		ret = alloc_list_empty(w->r.bs, &w->r.al, &w->now.log_freed, root, 8);
	} while (ret == -EINPROGRESS);
	assert_int_equal(ret, 0);
	/* The change may be negative. */
	le64_add(&lt->inode_count_delta, (uint64_t)inodes - 2);
	w->inodes += (uint64_t)inodes - 2;
	store_log(w, lt);
	commit(w);
}

static inline void write_some(struct world *w, unsigned m, enum habit habit, unsigned ops)
{
	write_from(w, m, habit, FIRST_BIG + below(w, KEYS - FIRST_BIG), ops);
}

static inline void finalize_all(struct world *w)
{
	begin(w);
	for (unsigned m = 0; m < MOUNTS; m++) {
		struct disk_log_trees *lt = &w->open[m];

		if (!le64_get(lt->nr))
			continue;
		lt->flags = le64_of(LOG_TREES_FLAG_FINALIZED);
		lt->finalize_seq = le64_of(++w->seq);
		store_log(w, lt);
		lt->nr = le64_of(0);
	}
	commit(w);
}

/* --- a call of the server, as often as it wants, with crashes --- */

static inline bool merge_is_active(struct world *w)
{
	struct merge_counts n;

	assert_int_equal(merge_server_count(w->r.bs, &w->now.super.log_merge, &n), 0);
	return n.active;
}

/* 20.33: what the status counts is there, but for completions while they are spliced. */
static inline void check_counts(struct world *w)
{
	struct merge_counts n;

	assert_int_equal(merge_server_count(w->r.bs, &w->now.super.log_merge, &n), 0);
	if (n.active) {
		assert_int_equal(n.status.nr_requests, n.requests);
		assert_true(n.status.nr_complete == n.completes ||
			    n.status.nr_complete >= MERGE_BATCH);
		assert_true(n.requests + n.completes <= MERGE_BATCH);
	} else {
		assert_int_equal(n.ranges + n.requests + n.completes, 0);
	}
}

enum call { CALL_START, CALL_GET, CALL_COMMIT, CALL_RELEASE, CALL_ADVANCE, CALL_FREE };

static inline int call_once(struct world *w, enum call call, unsigned c,
			    struct merge_request *req, const struct merge_complete *comp)
{
	switch (call) {
	case CALL_START:
		return merge_server_start(&w->ms);
	case CALL_GET:
		return merge_server_get(&w->ms, RID(c), req);
	case CALL_COMMIT:
		return merge_server_commit(&w->ms, RID(c), comp);
	case CALL_RELEASE:
		return merge_server_release(&w->ms, RID(c));
	case CALL_ADVANCE:
		return merge_server_advance(&w->ms);
	case CALL_FREE:
		return merge_server_free(&w->ms, 1 + below(w, 300));
	}
	return -EINVAL;
}

static inline int call_server(struct world *w, enum call call, unsigned c,
			      struct merge_request *req, const struct merge_complete *comp)
{
	bool was_active;
	int ret;

	for (unsigned n = 0;; n++) {
		assert_true(n < 5000);
		was_active = merge_is_active(w);
		begin(w);
		ret = call_once(w, call, c, req, comp);
		assert_true(w->allocs <= w->budget);
		assert_true(w->frees <= (was_active && !merge_is_active(w) ? w->budget_at_end :
									     w->budget));
		if (percent(w, w->crash_percent)) {
			crash(w);
			continue;
		}
		if (ret == -ENOENT || ret == -EEXIST || ret == -EINVAL) {
			/* Said to have changed nothing. */
			assert_int_equal(block_set_dirty_nr(w->r.bs), 0);
			return ret;
		}
		assert_true(ret == 0 || ret == -EINPROGRESS);
		commit(w);
		check_counts(w);
		check_some(w, 4);
		if (percent(w, 3))
			check_owners(w);
		if (ret == 0)
			return 0;
	}
}

/* --- a client works --- */

static inline void work(struct world *w, struct client *c)
{
	const struct disk_btree_root *logs_root = percent(w, 50) ? &c->req.logs_root :
								   &w->stable.super.logs_root;
	size_t dirty_max = percent(w, 50) ? 16 + below(w, 100) : MERGE_DIRTY_BLOCKS_MAX;
	struct block_set *bs;
	struct merge_run *run;
	int ret;

	assert_int_equal(block_set_open(&bs, &w->r.dev.dev, RIG_FSID, TOTAL, 64), 0);
	ret = merge_run_open(&run, bs, &c->req, logs_root, dirty_max);
	if (ret == -ESTALE)	/* the snapshot's blocks may be used anew by now */
		ret = merge_run_open(&run, bs, &c->req, &w->stable.super.logs_root, dirty_max);
	assert_int_equal(ret, 0);
	do {
		ret = merge_run_step(run, 1 + below(w, 500));
		assert_true(block_set_dirty_nr(bs) <= dirty_max);
	} while (ret == 0);
	assert_int_equal(ret, 1);
	merge_run_result(run, &c->comp);
	if (c->req.flags & MERGE_REQUEST_SUBTREE)
		assert_int_equal(c->comp.root.height, 2);
	w->remains += c->comp.flags & MERGE_COMPLETE_REMAIN ? 1 : 0;
	assert_int_equal(block_set_write(bs), 0);
	merge_run_close(run);
	block_set_close(bs);
	c->is_done = true;
}

static inline void client_turn(struct world *w, unsigned i)
{
	struct client *c = &w->clients[i];
	struct merge_request again;
	int ret;

	if (!c->has) {
		ret = call_server(w, CALL_GET, i, &c->req, NULL);
		assert_true(ret == 0 || ret == -ENOENT);
		c->has = ret == 0;
		c->is_done = false;
		w->requests += c->has;
		return;
	}
	if (percent(w, 10)) {
		/* The answer was lost, or what came of it. */
		assert_int_equal(call_server(w, CALL_GET, i, &again, NULL), 0);
		assert_int_equal(again.seq, c->req.seq);
		assert_true(key_eq(&again.start, &c->req.start) && key_eq(&again.end, &c->req.end));
		c->is_done = false;
	}
	if (percent(w, 5)) {
		assert_int_equal(call_server(w, CALL_RELEASE, i, NULL, NULL), 0);
		assert_int_equal(call_server(w, CALL_COMMIT, i, NULL, &c->comp), -ENOENT);
		c->has = false;
		return;
	}
	if (!c->is_done) {
		work(w, c);
		return;
	}
	if (percent(w, 10))
		merge_run_give_up(&c->req, &c->comp);
	assert_int_equal(call_server(w, CALL_COMMIT, i, NULL, &c->comp), 0);
	assert_int_equal(call_server(w, CALL_COMMIT, i, NULL, &c->comp), -ENOENT);
	c->has = false;
}

static inline void merge_everything(struct world *w, bool writes_go_on)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;

	finalize_all(w);
	assert_int_equal(call_server(w, CALL_START, 0, NULL, NULL), 0);
	assert_int_equal(call_server(w, CALL_START, 0, NULL, NULL), -EEXIST);
	for (unsigned turns = 0; merge_is_active(w); turns++) {
		assert_true(turns < 5000);
		client_turn(w, below(w, CLIENTS));
		if (writes_go_on && percent(w, 10))
			write_some(w, below(w, MOUNTS), (enum habit)below(w, HABITS), 20);
		if (percent(w, 5))
			assert_int_equal(call_server(w, CALL_ADVANCE, 0, NULL, NULL), 0);
		if (percent(w, 5))
			assert_int_equal(call_server(w, CALL_FREE, 0, NULL, NULL), 0);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		assert_false(w->clients[i].has);
	w->merges++;
	check_owners(w);
	assert_int_equal(call_server(w, CALL_FREE, 0, NULL, NULL), 0);
	check_owners(w);
	check_all(w);
	assert_int_equal(btree_each(w->r.bs, &w->now.super.fs_root, &zeros, &ones, no_marker, NULL),
			 0);
}

#endif
