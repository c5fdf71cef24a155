/*
 * The inputs of a log merge, and the walk over all of them as one.  runtime.md 7.4; format.md 11.3,
 * 11.6, 14.2.
 *
 * Promises: every key that any input has in the range comes once, in order, whatever the shape of
 * the trees; its version is the one a reader of the forest would prefer among them; a total is
 * their sum and carries the greatest seq of those that were summed, by which readers tell whether
 * fs_root has it already (runtime 13.2).
 *
 * Relies on the inputs not changing while they are walked, which holds until the merge is finished.
 *
 * How A heap of cursors, one an input.  A cursor stands on an item of a leaf that it holds, or, not
 * loaded, at the key where its next leaf begins; it is loaded when it comes to the top, so a tree
 * that begins far behind costs nothing before.
 */
#include "merge/merge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btree/btree_parts.h"
#include "log/forest.h"

struct collect {
	struct merge_inputs *in;
	size_t cap;
	uint64_t input_seq;
};

static int collect_input(void *arg, const struct item *it)
{
	struct collect *c = arg;
	struct merge_inputs *in = c->in;
	struct disk_btree_root *roots;
	struct disk_log_trees lt;
	int ret;

	ret = log_trees_check(it, &lt);
	if (ret < 0)
		return ret;
	if (!log_trees_is_input(&lt, c->input_seq) || lt.item_root.height == 0)
		return 0;
	if (in->nr == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 16;
		roots = realloc(in->roots, c->cap * sizeof(roots[0]));
		if (!roots)
			return -ENOMEM;
		in->roots = roots;
	}
	in->roots[in->nr++] = lt.item_root;
	return 0;
}

int merge_inputs_read(struct block_set *bs, const struct disk_btree_root *logs_root,
		      uint64_t input_seq, struct merge_inputs *in)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct collect c = { .in = in, .input_seq = input_seq };
	int ret;

	*in = (struct merge_inputs){ 0 };
	ret = btree_each(bs, logs_root, &zeros, &ones, collect_input, &c);
	if (ret < 0)
		merge_inputs_free(in);
	return ret;
}

void merge_inputs_free(struct merge_inputs *in)
{
	free(in->roots);
	*in = (struct merge_inputs){ 0 };
}

int merge_inputs_least(struct block_set *bs, const struct merge_inputs *in, const struct key *start,
		       const struct key *end, struct key *key)
{
	struct btree_ref ref;
	struct key best;
	bool any = false;
	int ret;

	for (size_t i = 0; i < in->nr; i++) {
		ret = btree_next(bs, &in->roots[i], start, &ref);
		if (ret == -ENOENT)
			continue;
		if (ret < 0)
			return ret;
		if (key_cmp(&ref.item.key, end) <= 0 &&
		    (!any || key_cmp(&ref.item.key, &best) < 0)) {
			any = true;
			best = ref.item.key;
		}
		btree_put(bs, &ref);
	}
	if (any)
		*key = best;
	return any ? 0 : -ENOENT;
}

int merge_inputs_greatest(struct block_set *bs, const struct merge_inputs *in,
			  const struct key *start, const struct key *end, struct key *key)
{
	struct btree_ref ref;
	struct key best;
	bool any = false;
	int ret;

	for (size_t i = 0; i < in->nr; i++) {
		ret = btree_prev(bs, &in->roots[i], end, &ref);
		if (ret == -ENOENT)
			continue;
		if (ret < 0)
			return ret;
		if (key_cmp(&ref.item.key, start) >= 0 &&
		    (!any || key_cmp(&ref.item.key, &best) > 0)) {
			any = true;
			best = ref.item.key;
		}
		btree_put(bs, &ref);
	}
	if (any)
		*key = best;
	return any ? 0 : -ENOENT;
}

/* The walk */

struct cursor {
	struct disk_btree_root root;
	struct key at;			/* of the item, or where the next leaf begins */
	struct key high;		/* of the leaf */
	struct block *leaf;		/* NULL: not loaded */
	int slot;
	bool ended;			/* the tree has no more */
	size_t nr;			/* its place among the inputs */
};

struct merge_iter {
	struct block_set *bs;
	struct key end;
	struct item best;
	uint8_t val[ITEM_VAL_MAX];
	size_t heap_nr;
	struct cursor **heap;		/* the least at the front */
	struct cursor cursors[];
};

/* On one key cursors that are not loaded come first: they may have it too. */
static bool comes_before(const struct cursor *a, const struct cursor *b)
{
	int c = key_cmp(&a->at, &b->at);

	return c < 0 || (c == 0 && !a->leaf && b->leaf);
}

static void heap_sift_down(struct merge_iter *mi, size_t i)
{
	struct cursor **h = mi->heap, *moved = h[i];
	size_t child;

	while ((child = 2 * i + 1) < mi->heap_nr) {
		if (child + 1 < mi->heap_nr && comes_before(h[child + 1], h[child]))
			child++;
		if (!comes_before(h[child], moved))
			break;
		h[i] = h[child];
		i = child;
	}
	h[i] = moved;
}

/* The front cursor has moved on, or is past the end. */
static void heap_front_changed(struct merge_iter *mi)
{
	struct cursor *c = mi->heap[0];

	if (c->ended || key_cmp(&c->at, &mi->end) > 0) {
		block_put(mi->bs, c->leaf);
		c->leaf = NULL;
		mi->heap[0] = mi->heap[--mi->heap_nr];
	}
	if (mi->heap_nr > 0)
		heap_sift_down(mi, 0);
}

/* Stand on the item in slot of the leaf, or, if there is none, where the next leaf begins. */
static void cursor_stand(struct merge_iter *mi, struct cursor *c, int slot)
{
	const struct key ones = KEY_ONES;
	struct item it;

	c->slot = slot;
	if (slot >= 0) {
		btb_item(c->leaf->data, slot, &it);
		c->at = it.key;
		return;
	}
	block_put(mi->bs, c->leaf);
	c->leaf = NULL;
	c->ended = key_eq(&c->high, &ones);
	if (!c->ended)
		c->at = key_next(c->high);
}

static int cursor_load(struct merge_iter *mi, struct cursor *c)
{
	struct key low;
	int ret;

	ret = btree_leaf_get(mi->bs, &c->root, &c->at, &c->leaf, &low, &c->high);
	if (ret == 0)
		cursor_stand(mi, c, btb_find_ge(c->leaf->data, &c->at));
	c->ended |= ret == -ENOENT;
	return ret == -ENOENT ? 0 : ret;
}

int merge_iter_open(struct merge_iter **out, struct block_set *bs, const struct merge_inputs *in,
		    const struct key *start, const struct key *end)
{
	struct merge_iter *mi = calloc(1, sizeof(*mi) + in->nr * sizeof(mi->cursors[0]));

	*out = NULL;
	if (!mi)
		return -ENOMEM;
	mi->heap = calloc(in->nr + 1, sizeof(mi->heap[0]));
	if (!mi->heap) {
		free(mi);
		return -ENOMEM;
	}
	mi->bs = bs;
	mi->end = *end;
	for (size_t i = 0; i < in->nr && key_cmp(start, end) <= 0; i++) {
		mi->cursors[i] = (struct cursor){ .root = in->roots[i], .at = *start, .nr = i };
		mi->heap[mi->heap_nr++] = &mi->cursors[i];
	}
	*out = mi;
	return 0;
}

void merge_iter_close(struct merge_iter *mi)
{
	if (!mi)
		return;
	for (size_t i = 0; i < mi->heap_nr; i++)
		block_put(mi->bs, mi->heap[i]->leaf);
	free(mi->heap);
	free(mi);
}

/* What was gathered for one key so far. */
struct gathered {
	bool any;
	size_t nr;		/* the input that best is of */
	struct disk_xattr_total sum;
};

static void take_best(struct merge_iter *mi, const struct item *it)
{
	mi->best = *it;
	if (it->val_len)
		memcpy(mi->val, it->val, it->val_len);
	mi->best.val = mi->val;
}

static int gather(struct merge_iter *mi, struct gathered *g, const struct cursor *c)
{
	struct disk_xattr_total d;
	struct item it;

	btb_item(c->leaf->data, c->slot, &it);
	if (it.val_len > ITEM_VAL_MAX)
		return -EBADMSG;
	if (it.key.zone == ZONE_XATTR_TOTL) {
		if (it.val_len != sizeof(d) || it.flags)
			return -EBADMSG;
		memcpy(&d, it.val, sizeof(d));
		le64_add(&g->sum.total, le64_get(d.total));
		le64_add(&g->sum.count, le64_get(d.count));
	}
	/* On equal seqs the first in the order of logs_root (11.3). */
	if (!g->any || it.seq > mi->best.seq || (it.seq == mi->best.seq && c->nr < g->nr)) {
		take_best(mi, &it);
		g->nr = c->nr;
	}
	g->any = true;
	return 0;
}

/* Everything about the least key there is.  1: it is to be given, 0: it is not. */
static int gather_key(struct merge_iter *mi)
{
	const struct key key = mi->heap[0]->at;
	struct gathered g = { 0 };
	struct cursor *c;
	int ret;

	while (mi->heap_nr > 0 && key_eq(&mi->heap[0]->at, &key)) {
		c = mi->heap[0];
		assert(c->leaf);	/* those that are not came first */
		ret = gather(mi, &g, c);
		if (ret < 0)
			return ret;
		cursor_stand(mi, c, btb_next(c->leaf->data, c->slot));
		heap_front_changed(mi);
	}
	if (key.zone == ZONE_XATTR_TOTL) {
		memcpy(mi->val, &g.sum, sizeof(g.sum));
		mi->best.val_len = sizeof(g.sum);
		return le64_get(g.sum.total) != 0 || le64_get(g.sum.count) != 0;
	}
	return 1;
}

int merge_iter_next(struct merge_iter *mi, struct item *it)
{
	int ret;

	while (mi->heap_nr > 0) {
		if (!mi->heap[0]->leaf) {
			ret = cursor_load(mi, mi->heap[0]);
			if (ret < 0)
				return ret;
			heap_front_changed(mi);
			continue;
		}
		ret = gather_key(mi);
		if (ret < 0)
			return ret;
		if (ret > 0) {
			*it = mi->best;
			return 0;
		}
	}
	return -ENOENT;
}
