/*
 * Reading the forest: fs_root and the log trees as one set of items.  format.md 11.3-11.6,
 * runtime.md 6.2 and 13.2.
 *
 * Promises: of all versions of a key in all trees the newest decides, and if that is a deletion
 * marker the key is absent, whichever tree holds which; what forest_read_range says about a range
 * is complete, absences included; totals count each increment once, also while a merge has moved
 * only part of them into fs_root (finish_total).
 *
 * Relies on the roots being of one super (forest_roots): then the trees agree about what was
 * merged.  Trees are skipped by their bloom block only where a lock's start key is known.  Equal
 * seqs occur when a merge copied an item into fs_root; the log tree's copy is preferred, as it is
 * the original.
 *
 * No block is held between calls, and a reader that meets a block that was replaced under it gets
 * -ESTALE from below, unchanged, and starts again from new roots.
 */
#include "log/forest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log/forest_impl.h"
#include "log/merge_items.h"

void forest_roots_of_super(const struct disk_super *super, struct forest_roots *roots)
{
	*roots = (struct forest_roots){
		.fs_root = super->fs_root,
		.logs_root = super->logs_root,
		.srch_root = super->srch_root,
		.log_merge = super->log_merge,
	};
}

static bool root_eq(const struct disk_btree_root *a, const struct disk_btree_root *b)
{
	return le64_get(a->ref.blkno) == le64_get(b->ref.blkno) &&
	       le64_get(a->ref.seq) == le64_get(b->ref.seq) && a->height == b->height;
}

bool forest_roots_eq(const struct forest_roots *a, const struct forest_roots *b)
{
	return root_eq(&a->fs_root, &b->fs_root) && root_eq(&a->logs_root, &b->logs_root) &&
	       root_eq(&a->srch_root, &b->srch_root) && root_eq(&a->log_merge, &b->log_merge);
}

/* The trees */

struct sources {
	struct forest_src *v;
	size_t nr, cap;
	uint64_t input_before;	/* finalized before this: an input of the merge */
};

static int sources_add(struct sources *s, const struct forest_src *src)
{
	struct forest_src *v;
	size_t cap;

	if (s->nr == s->cap) {
		cap = s->cap ? 2 * s->cap : 8;
		v = realloc(s->v, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		s->v = v;
		s->cap = cap;
	}
	s->v[s->nr++] = *src;
	return 0;
}

static int add_log_tree(void *arg, const struct item *it)
{
	struct sources *s = arg;
	struct disk_log_trees lt;
	struct forest_src src;
	bool finalized;
	int ret;

	ret = log_trees_check(it, &lt);
	if (ret < 0 || lt.item_root.height == 0)
		return ret;
	finalized = le64_get(lt.flags) & LOG_TREES_FLAG_FINALIZED;
	src = (struct forest_src){
		.root = lt.item_root,
		.bloom_ref = lt.bloom_ref,
		.rank = finalized ? RANK_FINALIZED : RANK_OPEN,
		.is_merge_input = finalized && le64_get(lt.finalize_seq) < s->input_before,
	};
	return sources_add(s, &src);
}

int forest_sources(struct block_set *bs, const struct forest_roots *roots, struct forest_src **srcs,
		   size_t *nr)
{
	const struct forest_src fs = { .root = roots->fs_root, .rank = RANK_FS_ROOT };
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct sources s = { .input_before = 0 };	/* no merge runs: nothing is folded in part */
	struct merge_status st;
	int ret;

	ret = merge_status_read(bs, &roots->log_merge, &st);
	if (ret == 0)
		s.input_before = st.seq;
	else if (ret != -ENOENT)
		return ret;

	ret = sources_add(&s, &fs);
	if (ret == 0)
		ret = btree_each(bs, &roots->logs_root, &zeros, &ones, add_log_tree, &s);
	if (ret < 0) {
		free(s.v);
		return ret;
	}
	*srcs = s.v;
	*nr = s.nr;
	return 0;
}

/* 1: the tree may hold items under that lock, 0: it does not (11.4).  fs_root always may. */
static int forest_src_may_have(struct block_set *bs, const struct forest_src *src,
			const struct key *lock_start)
{
	struct block *bl;
	int ret;

	if (src->rank == RANK_FS_ROOT)
		return 1;
	ret = block_get(bs, block_ref_get(&src->bloom_ref), MAGIC_BLOOM, &bl);
	if (ret < 0)
		return ret;
	ret = bloom_block_test(bl->data, lock_start);
	block_put(bs, bl);
	return ret;
}

/* Copies of items */

/* Room for `more` elements beyond nr of an array; -ENOMEM leaves it as it was. */
static int grow(void *array, size_t *cap, size_t nr, size_t more, size_t size)
{
	void **p = array;
	size_t want = *cap ? *cap : 64;
	void *v;

	if (nr + more <= *cap)
		return 0;
	while (want < nr + more)
		want *= 2;
	v = realloc(*p, want * size);
	if (!v)
		return -ENOMEM;
	*p = v;
	*cap = want;
	return 0;
}

int item_list_add(struct item_list *list, const struct item *it, enum forest_rank rank)
{
	/* Values stay 8-aligned, as they are in blocks: users read structures through item.val. */
	size_t val_space = (it->val_len + 7u) & ~(size_t)7;
	int ret;

	ret = grow(&list->v, &list->cap, list->nr, 1, sizeof(list->v[0]));
	if (ret == 0)
		ret = grow(&list->vals, &list->vals_cap, list->vals_len, val_space, 1);
	if (ret < 0)
		return ret;
	if (it->val_len)
		memcpy(list->vals + list->vals_len, it->val, it->val_len);
	list->v[list->nr++] = (struct kept_item){
		.key = it->key,
		.seq = it->seq,
		.val_at = list->vals_len,
		.val_len = it->val_len,
		.flags = it->flags,
		.rank = (uint8_t)rank,
	};
	list->vals_len += val_space;
	return 0;
}

void item_list_free(struct item_list *list)
{
	free(list->v);
	free(list->vals);
	*list = (struct item_list){ 0 };
}

struct item item_list_get(const struct item_list *list, size_t i)
{
	const struct kept_item *k = &list->v[i];

	return (struct item){
		.key = k->key,
		.seq = k->seq,
		.val = k->val_len ? list->vals + k->val_at : NULL,
		.val_len = k->val_len,
		.flags = k->flags,
	};
}

/* Versions of one key */

static bool is_newer(uint64_t seq, enum forest_rank rank, uint64_t than_seq,
		     enum forest_rank than_rank)
{
	return seq > than_seq || (seq == than_seq && rank > than_rank);
}

static int add_total(struct totals *t, const struct item *it)
{
	struct disk_xattr_total d;

	if (it->val_len != sizeof(d) || it->flags)
		return -EBADMSG;
	memcpy(&d, it->val, sizeof(d));
	t->any = true;
	t->total += le64_get(d.total);
	t->count += le64_get(d.count);
	if (it->seq > t->seq)
		t->seq = it->seq;
	return 0;
}

int resolve_add(struct resolve *r, const struct forest_src *src, const struct item *it)
{
	if (it->key.zone == ZONE_XATTR_TOTL) {
		r->best.key = it->key;
		if (src->rank == RANK_FS_ROOT)
			return add_total(&r->fs, it);
		return add_total(src->is_merge_input ? &r->input : &r->live, it);
	}
	if (r->any && !is_newer(it->seq, src->rank, r->best.seq, r->rank))
		return 0;
	r->any = true;
	r->rank = src->rank;
	r->best = *it;
	return 1;
}

/*
 * 11.6.  The inputs of a merge are in fs_root already iff its item has their seq; where the item is
 * missing it was either never there (then they count something) or became zero and was deleted by
 * adding them (then they took away what there was).
 *
 * The second guess assumes that whatever the inputs take away was set in them or in fs_root.  That
 * holds once a merge runs, for all trees were finalized together before it.  While none runs, nothing
 * has been folded in part: every tree simply counts, finalized or not (11.6 would ask the questions of
 * finalized trees then, too, and read a total wrong that was set in a tree still open and lowered in a
 * finalized one).
 */
static bool finish_total(struct resolve *r, struct item *it)
{
	struct totals sum = { 0 };
	const struct totals *part[3] = { 0 };
	bool add_input;

	if (r->fs.any)
		add_input = r->input.seq > r->fs.seq;
	else
		add_input = (int64_t)r->input.count > 0;
	part[0] = r->fs.any ? &r->fs : NULL;
	part[1] = add_input ? &r->input : NULL;
	part[2] = r->live.any ? &r->live : NULL;
	for (unsigned i = 0; i < 3; i++) {
		if (!part[i])
			continue;
		sum.total += part[i]->total;
		sum.count += part[i]->count;
		if (part[i]->seq > sum.seq)
			sum.seq = part[i]->seq;
	}
	if (sum.total == 0 && sum.count == 0)
		return false;
	r->sum = (struct disk_xattr_total){ le64_of(sum.total), le64_of(sum.count) };
	*it = (struct item){ .key = r->best.key, .seq = sum.seq, .val = &r->sum,
			     .val_len = sizeof(r->sum) };
	return true;
}

bool resolve_finish(struct resolve *r, struct item *it)
{
	if (r->fs.any || r->input.any || r->live.any)
		return finish_total(r, it);
	if (!r->any || r->best.flags & ITEM_FLAG_DELETION)
		return false;
	*it = r->best;
	return true;
}

/* One key */

int forest_lookup(struct block_set *bs, const struct forest_roots *roots, const struct key *key,
		  struct item *it, void *val)
{
	const struct key lock_start = key_lock_start(key);
	struct resolve r = { 0 };
	struct forest_src *srcs;
	struct btree_ref ref;
	size_t nr;
	int ret;

	ret = forest_sources(bs, roots, &srcs, &nr);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < nr; i++) {
		ret = forest_src_may_have(bs, &srcs[i], &lock_start);
		if (ret < 0)
			goto out;
		if (ret == 0)
			continue;
		ret = btree_lookup(bs, &srcs[i].root, key, &ref);
		if (ret == -ENOENT)
			continue;
		if (ret < 0)
			goto out;
		ret = resolve_add(&r, &srcs[i], &ref.item);
		if (ret > 0) {
			if (ref.item.val_len)
				memcpy(val, ref.item.val, ref.item.val_len);
			r.best.val = val;
		}
		btree_put(bs, &ref);
		if (ret < 0)
			goto out;
	}
	if (resolve_finish(&r, it)) {
		if (it->val != val && it->val_len)
			memcpy(val, it->val, it->val_len);
		it->val = val;
		ret = 0;
	} else {
		ret = -ENOENT;
	}
out:
	free(srcs);
	return ret;
}

/* A range */

/*
 * Items of the leaves read so far.  `all` keeps every copy; `order` has the winners of the trees
 * that were read, in key order, within the range that is left.
 */
struct range_read {
	struct item_list all;
	size_t *order, *merged;
	size_t order_nr, order_cap, merged_cap;
	enum forest_rank rank;
};

static int keep_item(void *arg, const struct item *it)
{
	struct range_read *rr = arg;

	return item_list_add(&rr->all, it, rr->rank);
}

/* Merge what was added from `from` on into the order; older versions and outsiders drop out. */
static int merge_leaf(struct range_read *rr, size_t from, const struct key *start,
		      const struct key *end)
{
	const struct kept_item *v = rr->all.v;
	size_t a = 0, b = from, out = 0;
	size_t pick, *swap;
	int c, ret;

	ret = grow(&rr->merged, &rr->merged_cap, 0, rr->order_nr + rr->all.nr - from + 1,
		   sizeof(size_t));
	if (ret < 0)
		return ret;
	while (a < rr->order_nr || b < rr->all.nr) {
		if (a == rr->order_nr)
			c = 1;
		else if (b == rr->all.nr)
			c = -1;
		else
			c = key_cmp(&v[rr->order[a]].key, &v[b].key);
		if (c < 0)
			pick = rr->order[a++];
		else if (c > 0)
			pick = b++;
		else {
			pick = rr->order[a++];
			if (is_newer(v[b].seq, v[b].rank, v[pick].seq, v[pick].rank))
				pick = b;
			b++;
		}
		if (key_cmp(&v[pick].key, start) >= 0 && key_cmp(&v[pick].key, end) <= 0)
			rr->merged[out++] = pick;
	}
	swap = rr->order;
	rr->order = rr->merged;
	rr->merged = swap;
	a = rr->order_cap;
	rr->order_cap = rr->merged_cap;
	rr->merged_cap = a;
	rr->order_nr = out;
	return 0;
}

int forest_read_range(struct block_set *bs, const struct forest_roots *roots,
		      const struct key *lock_start, const struct key *lock_end,
		      const struct key *key, struct key *start, struct key *end, btree_item_fn each,
		      void *arg)
{
	struct range_read rr = { 0 };
	struct forest_src *srcs;
	struct item it;
	size_t nr, from;
	int ret;

	if (key_cmp(key, lock_start) < 0 || key_cmp(key, lock_end) > 0 ||
	    (lock_start->zone <= ZONE_XATTR_TOTL && lock_end->zone >= ZONE_XATTR_TOTL))
		return -EINVAL;
	ret = forest_sources(bs, roots, &srcs, &nr);
	if (ret < 0)
		return ret;

	*start = *lock_start;
	*end = *lock_end;
	for (size_t i = 0; i < nr; i++) {
		ret = forest_src_may_have(bs, &srcs[i], lock_start);
		if (ret < 0)
			goto out;
		if (ret == 0)
			continue;
		rr.rank = srcs[i].rank;
		from = rr.all.nr;
		ret = btree_read_leaf(bs, &srcs[i].root, key, start, end, keep_item, &rr);
		if (ret == 0)
			ret = merge_leaf(&rr, from, start, end);
		if (ret < 0)
			goto out;
	}
	ret = 0;
	for (size_t i = 0; i < rr.order_nr && ret == 0; i++) {
		it = item_list_get(&rr.all, rr.order[i]);
		if (!(it.flags & ITEM_FLAG_DELETION))
			ret = each(arg, &it);
	}
out:
	item_list_free(&rr.all);
	free(rr.order);
	free(rr.merged);
	free(srcs);
	return ret;
}
