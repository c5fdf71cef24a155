/*
 * Room in the mount's metadata allocator.
 *
 * Promises: what room_need says is an upper bound of the blocks that streaming the open generation
 * out will allocate, and of those it will free.  As long as operations wait when need reaches have,
 * a commit never runs out of blocks.
 *
 * A write to the log tree copies a leaf and its parents, once per transaction; a full leaf splits
 * and an empty one is joined with a neighbour.  So what counts is how many leaves are touched: the
 * ends of all leaves of the tree as it was when the generation began are kept (27 bytes each), with
 * one bit each. While the generation before is still being streamed out the tree changes under the
 * bits, by at most as many new leaves as that one makes; `extra` stands for them.  Where nothing is
 * dirty the newest tree takes the place of the old one: else what one big generation has added
 * would keep everybody out for good.
 */
#include "room.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/meta_alloc.h"

/* A leaf that was split gets about half of a block; less than this it never has when it splits
 * again. */
#define LEAF_HALF_BYTES		24576u
/* Children of a parent, at least, but for the root. */
#define PARENT_ITEMS_MIN	128u
/* The server brings a list up to 8185 when it has less than this, if it can. */
#define AVAIL_PROMISED		4092u

struct leaves {
	uint8_t (*ends)[KEY_SORT_BYTES];
	uint64_t nr, cap, parents;
};

struct room {
	pthread_mutex_t lock;
	struct leaves cur;	/* what the bits are about */
	struct leaves next;	/* of the newest tree; becomes cur when the next generation opens */
	uint8_t *bits;		/* of cur */
	uint64_t touched;
	uint64_t extra;
	uint32_t height;
	bool is_committing;
	uint32_t avail, freed_room;
	bool is_low;
	bool has_next;
};

int room_open(struct room **out)
{
	struct room *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	pthread_mutex_init(&r->lock, NULL);
	*out = r;
	return 0;
}

void room_close(struct room *r)
{
	if (!r)
		return;
	free(r->cur.ends);
	free(r->next.ends);
	free(r->bits);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* ---- the leaves of the tree ---- */

static int add_leaf(struct leaves *l, const struct key *end)
{
	uint64_t cap;
	void *p;

	if (l->nr == l->cap) {
		cap = l->cap ? 2 * l->cap : 64;
		p = realloc(l->ends, cap * sizeof(*l->ends));
		if (!p)
			return -ENOMEM;
		l->ends = p;
		l->cap = cap;
	}
	key_to_sortable(end, l->ends[l->nr++]);
	return 0;
}

/* Called for parents only: a leaf is known by the parent's item, so no leaf is read. */
static int visit_parent(void *arg, const struct btree_visit *v)
{
	const struct disk_btree_block *b;
	struct leaves *l = arg;
	struct item it;
	int ret = 0;

	if (v->err)
		return v->err;
	b = v->bl->data;
	if (v->level_expected == 0)
		return add_leaf(l, &v->high);
	l->parents++;
	if (v->level_expected > 1)
		return 0;
	for (int s = btb_first(b); s >= 0 && ret == 0; s = btb_next(b, s)) {
		btb_item(b, s, &it);
		ret = add_leaf(l, &it.key);
	}
	return ret < 0 ? ret : 1;
}

/* Without memory for the bits the old ones stay: they count as before, and extra makes up for the
 * rest. */
static void use_next(struct room *r)
{
	uint8_t *bits = r->has_next ? calloc(1, r->next.nr / 8 + 1) : NULL;

	if (bits) {
		free(r->cur.ends);
		free(r->bits);
		r->cur = r->next;
		r->next = (struct leaves){ 0 };
		r->has_next = false;
		r->bits = bits;
	} else if (r->bits) {
		memset(r->bits, 0, r->cur.nr / 8 + 1);
	}
	r->touched = 0;
}

int room_opened(struct room *r, struct block_set *bs, const struct disk_log_trees *lt)
{
	struct leaves l = { 0 };
	uint32_t freed = le32_get(lt->meta_freed.first_nr);
	int ret;

	ret = btree_visit_blocks(bs, &lt->item_root, visit_parent, &l);
	if (ret < 0) {
		free(l.ends);
		return ret;
	}
	pthread_mutex_lock(&r->lock);
	free(r->next.ends);
	r->next = l;
	r->has_next = true;
	r->extra = r->bits && l.nr > r->cur.nr ? l.nr - r->cur.nr : 0;
	r->height = lt->item_root.height;
	r->avail = le32_get(lt->meta_avail.first_nr);
	/* Fewer than 2046 slots and the allocator begins a fresh block. */
	r->freed_room = freed + 2046 <= ALLOC_LIST_ENTRIES ? ALLOC_LIST_ENTRIES - freed
							   : ALLOC_LIST_ENTRIES;
	r->is_low = le32_get(lt->meta_avail.flags) & ALLOC_FLAG_LOW;
	r->is_committing = false;
	if (!r->bits)
		use_next(r);	/* the first one */
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static uint64_t worst(const struct room *r, uint64_t touched, uint64_t bytes)
{
	uint64_t fresh = bytes / LEAF_HALF_BYTES + 1;
	uint64_t parents = r->cur.parents + r->extra / PARENT_ITEMS_MIN;

	/* Copied, split, joined with a neighbour; then the parents, at most all there are. */
	return 3 * touched + fresh + (parents < 2 * touched ? parents : 2 * touched) +
	       (touched + fresh) / PARENT_ITEMS_MIN + 2 * r->height + 8;
}

void room_closed(struct room *r, const struct items_dirty *closed)
{
	pthread_mutex_lock(&r->lock);
	r->extra = r->touched + closed->bytes / LEAF_HALF_BYTES + 1;
	use_next(r);
	r->is_committing = true;
	pthread_mutex_unlock(&r->lock);
}

/* ---- the open generation ---- */

void room_touch(struct room *r, const struct key *key)
{
	uint8_t k[KEY_SORT_BYTES];
	uint64_t lo = 0, hi, mid;

	key_to_sortable(key, k);
	pthread_mutex_lock(&r->lock);
	if (!r->bits) {
		r->touched++;
		pthread_mutex_unlock(&r->lock);
		return;
	}
	hi = r->cur.nr;
	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (memcmp(r->cur.ends[mid], k, sizeof(k)) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!(r->bits[lo / 8] & 1u << lo % 8)) {
		r->bits[lo / 8] |= (uint8_t)(1u << lo % 8);
		r->touched++;
	}
	pthread_mutex_unlock(&r->lock);
}

void room_clean(struct room *r)
{
	pthread_mutex_lock(&r->lock);
	use_next(r);
	if (!r->has_next)
		r->extra = 0;
	pthread_mutex_unlock(&r->lock);
}

void room_need(struct room *r, const struct items_dirty *dirty, uint64_t ops_nr, uint64_t extents,
	       struct room_need *out)
{
	uint64_t avail, freed, leaves;

	pthread_mutex_lock(&r->lock);
	/* Each item of the operation may be in a leaf of its own, and an inode moves four index
	 * items. */
	leaves = r->touched + r->extra + 2 * ops_nr;
	if (leaves > r->cur.nr + r->extra + 1)
		leaves = r->cur.nr + r->extra + 1;
	out->need = worst(r, leaves, dirty->bytes + ops_nr * 1200);
	/* Data blocks: each piece is two items in one of two trees. */
	leaves = 4 + (extents + dirty->dlog_nr) * 2 * 56 / LEAF_HALF_BYTES;
	out->need += 3 * (leaves < 4 * dirty->dlog_nr ? leaves : 4 * dirty->dlog_nr) + 16;
	avail = r->avail;
	freed = r->freed_room;
	if (r->is_committing) {
		/* What the answer will bring is not known yet, but this much it does if
		 * anything. */
		avail = avail < AVAIL_PROMISED ? avail : AVAIL_PROMISED;
		freed = AVAIL_PROMISED;
	}
	avail = avail > 4 ? avail - 4 : 0;
	freed = freed > 4 ? freed - 4 : 0;
	out->have = avail < freed ? avail : freed;
	out->is_low = r->is_low;
	pthread_mutex_unlock(&r->lock);
}
