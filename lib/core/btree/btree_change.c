/*
 * Changing trees of b-tree blocks: insert, update, delete, split, join.  format.md 9.7, 9.8.
 *
 * What it promises
 * - Every change makes the whole path from the root writable first (copy-on-write), so a tree that
 *   some other root names is never touched.
 * - A call that answers -EEXIST, -ENOENT or -EINVAL has changed and dirtied nothing: presence is
 *   looked up read-only before the path is made writable.
 * - The tree is a valid tree after each step, also after one that failed: what a step allocates and
 *   reads it has before it changes the first byte.  The exception is a block whose freeing fails
 *   after a join or a last delete, which is then nobody's; so a caller that gets an error aborts
 *   the set.
 *
 * Changes within bounds (btree_parts.h) stop before a descent that could go beyond them, or at a
 * root that must stay; all the above holds for them too.
 *
 * How Going down, each block is first brought into a shape that lets the next step succeed without
 * coming back: room for one more item (9.7 insert) or enough items to lose one (9.7 delete).
 * Whenever that changed more than the block itself, the descent starts again from the root, which
 * is simple and, as the path is dirty and in memory by then, cheap.  Each restart has split or
 * joined blocks in a way that the next descent does not undo, so it ends.
 */
#include "btree/btree.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "btree/btree_parts.h"
#include "btree/btree_path.h"

#define ITEM_BYTES	((unsigned)sizeof(struct disk_btree_item))
#define PARENT_NEED	(ITEM_BYTES + (unsigned)sizeof(struct disk_block_ref))
#define ITEM_BYTES_MAX	(ITEM_BYTES + ITEM_VAL_MAX)

/* What a step says to the descent. */
#define GO_ON	0
#define RESTART	1
#define STOP	2	/* a bound was hit */

enum change {
	CHANGE_INSERT,
	CHANGE_UPDATE,
	CHANGE_FORCE,
	CHANGE_DELETE,
	CHANGE_SHAPE,	/* no item: split and join as if both were to come */
	CHANGE_PATH,	/* nothing but the copying */
};

/* One change on its way down.  Blocks are dirty and held; parent is NULL at the root. */
struct path {
	struct block_set *bs;
	struct blkno_alloc *al;
	struct disk_btree_root *root;
	enum change change;
	const struct btree_bounds *bounds;	/* NULL: none */
	struct btree_near *near;	/* takes the leaf that was changed; NULL: nobody does */
	unsigned stop_level;		/* where the descent ends */
	unsigned val_len;
	unsigned level;			/* of bl */
	struct block *parent;
	bool parent_is_root;
	int slot;			/* of bl in parent */
	struct key_range parent_range;
	struct block *bl;
	struct key_range range;
};

static unsigned item_bytes(unsigned val_len)
{
	return ITEM_BYTES + ((val_len + 7u) & ~7u);
}

static unsigned total_bytes(const struct disk_btree_block *b)
{
	return le16_get(b->total_item_bytes);
}

static void set_child_ref(struct disk_btree_block *b, int slot, struct block_ref ref)
{
	const struct disk_btree_item *it = &b->items[slot];
	const struct disk_block_ref d = block_ref_put(ref);

	memcpy((uint8_t *)b + le16_get(it->val_off), &d, sizeof(d));
}

static struct key key_at(const struct disk_btree_block *b, int slot)
{
	struct item it;

	btb_item(b, slot, &it);
	return it.key;
}

/* Hold the block that *ref names, checked and then made writable.  On error nothing has changed. */
static int dirty_checked(struct path *p, struct block_ref *ref, unsigned level,
			 const struct key_range *range, struct block **out)
{
	const char *why;
	int ret;

	ret = btree_block_get(p->bs, *ref, level, range, out, &why);
	if (ret < 0)
		return ret;
	ret = block_dirty_held(p->bs, p->al, ref, out);
	if (ret < 0) {
		block_put(p->bs, *out);
		*out = NULL;
	}
	return ret;
}

static int dirty_root(struct path *p)
{
	struct block_ref ref = block_ref_get(&p->root->ref);
	int ret;

	ret = dirty_checked(p, &ref, p->level, &p->range, &p->bl);
	if (ret == 0)
		p->root->ref = block_ref_put(ref);
	return ret;
}

static int dirty_child(struct path *p, struct block *parent, int slot,
		       const struct key_range *range, unsigned level, struct block **out)
{
	struct block_ref ref = block_ref_get(btree_child_ref(parent->data, slot));
	int ret;

	ret = dirty_checked(p, &ref, level, range, out);
	if (ret == 0)
		set_child_ref(parent->data, slot, ref);
	return ret;
}

static void path_put(struct path *p)
{
	block_put(p->bs, p->bl);
	block_put(p->bs, p->parent);
	p->bl = NULL;
	p->parent = NULL;
}

/* The item was changed, or inserted, or is gone: the leaf is held on, for what comes next. */
static void keep_near(struct path *p)
{
	if (!p->near)
		return;
	*p->near = (struct btree_near){ .leaf = p->bl, .low = p->range.low, .high = p->range.high,
					.has_joined = p->change == CHANGE_DELETE };
	p->bl = NULL;
}

static void insert_child(struct disk_btree_block *parent, const struct key *key,
			 struct block_ref ref)
{
	const struct disk_block_ref d = block_ref_put(ref);
	const struct item it = { .key = *key, .val = &d, .val_len = sizeof(d) };

	btb_insert(parent, &it);
}

static void move_item(struct disk_btree_block *to, struct disk_btree_block *from, int slot)
{
	struct item it;

	btb_item(from, slot, &it);
	btb_insert(to, &it);
	btb_delete(from, slot);
}

static int new_node(struct path *p, unsigned level, struct block_ref *ref, struct block **out)
{
	int ret = block_new(p->bs, p->al, MAGIC_BTREE, ref, out);

	if (ret < 0)
		return ret;
	btb_init((*out)->data, (uint8_t)level);
	(*out)->checked = true;
	return 0;
}

/* A new root above bl, which becomes its only child. */
static int grow(struct path *p)
{
	const struct key ones = KEY_ONES;
	struct block_ref ref;
	int ret;

	if (p->root->height >= BTREE_HEIGHT_MAX)
		return -EBADMSG;
	ret = new_node(p, p->root->height, &ref, &p->parent);
	if (ret < 0)
		return ret;
	insert_child(p->parent->data, &ones, (struct block_ref){ p->bl->blkno, p->bl->seq });
	p->root->ref = block_ref_put(ref);
	p->root->height++;
	return 0;
}

/* Move the lower half of bl into a new left sibling.  The parent has room for its item. */
static int split(struct path *p)
{
	struct disk_btree_block *b = p->bl->data;
	struct disk_btree_block *l;
	struct block *left;
	struct block_ref ref;
	struct key key;
	int ret;

	ret = new_node(p, p->level, &ref, &left);
	if (ret < 0)
		return ret;
	if (!p->parent) {
		ret = grow(p);
		if (ret < 0) {
			block_put(p->bs, left);
			(void)block_free(p->bs, p->al, ref);
			return ret;
		}
	}
	l = left->data;
	btb_split(b, l, total_bytes(b) / 2);
	key = key_at(l, btb_last(l));
	insert_child(p->parent->data, &key, ref);
	block_put(p->bs, left);
	return RESTART;
}

static bool keeps_root(const struct path *p)
{
	return p->bounds && p->bounds->keep_root;
}

static bool has_room(const struct path *p, unsigned blocks)
{
	return !p->bounds || p->bounds->has_room(p->bounds->arg, blocks);
}

/* Room for one more item, by compaction or a split: GO_ON, RESTART, STOP or an error. */
static int make_room(struct path *p)
{
	struct disk_btree_block *b = p->bl->data;
	unsigned need = p->level > 0 ? PARENT_NEED : item_bytes(p->val_len);

	if (le16_get(b->mid_free_len) >= need)
		return GO_ON;
	if (total_bytes(b) * 100 / BTREE_USABLE_BYTES < BTREE_SPLIT_PERCENT) {
		btb_compact(b);
		return GO_ON;
	}
	if (!p->parent && keeps_root(p))
		return STOP;
	return split(p);
}

/* Copy every item of sib into bl. */
static void take_all(struct disk_btree_block *b, const struct disk_btree_block *sib)
{
	for (int slot = btb_first(sib); slot >= 0; slot = btb_next(sib, slot)) {
		struct item it;

		btb_item(sib, slot, &it);
		btb_insert(b, &it);
	}
}

/* Move the items of sib that are nearest to bl until `bytes` have moved. */
static void take_some(struct disk_btree_block *b, struct disk_btree_block *sib, bool sib_is_left,
		      unsigned bytes)
{
	unsigned moved = 0;

	while (moved < bytes) {
		int slot = sib_is_left ? btb_last(sib) : btb_first(sib);
		struct item it;

		btb_item(sib, slot, &it);
		moved += item_bytes(it.val_len);
		move_item(b, sib, slot);
	}
}

/*
 * sib's items are all in bl: take sib out of the parent, free it, and if bl is then the root's only
 * child let bl be the root.  A right sibling's key becomes bl's: the keys between the two greatest
 * items are now bl's to hold.
 */
static int remove_sibling(struct path *p, int sib_slot, bool sib_is_left, struct block_ref sib_ref)
{
	struct disk_btree_block *parent = p->parent->data;
	const struct key sib_key = key_at(parent, sib_slot);
	const struct key own_key = key_at(parent, p->slot);
	struct block_ref parent_ref = { p->parent->blkno, p->parent->seq };
	int ret;

	btb_delete(parent, sib_slot);
	if (!sib_is_left)
		btb_set_key(parent, btb_find(parent, &own_key), &sib_key);
	ret = block_free(p->bs, p->al, sib_ref);
	if (ret < 0 || btb_nr(parent) > 1 || !p->parent_is_root || keeps_root(p))
		return ret;

	p->root->ref = block_ref_put((struct block_ref){ p->bl->blkno, p->bl->seq });
	p->root->height--;
	block_put(p->bs, p->parent);
	p->parent = NULL;
	return block_free(p->bs, p->al, parent_ref);
}

/* Bring a block below the low-water mark above it, or nearer to it: GO_ON, RESTART, STOP or an
 * error. */
static int join(struct path *p)
{
	struct disk_btree_block *b = p->bl->data;
	struct disk_btree_block *parent;
	struct key_range sib_range;
	struct block_ref sib_ref;
	struct block *sib;
	const char *why;
	unsigned bytes;
	bool sib_is_left;
	int sib_slot;
	int ret;

	if (total_bytes(b) >= BTREE_LWM_BYTES)
		return GO_ON;
	if (!p->parent)
		return keeps_root(p) && p->level > 0 ? STOP : GO_ON;
	parent = p->parent->data;
	sib_slot = btb_prev(parent, p->slot);
	sib_is_left = sib_slot >= 0;
	if (!sib_is_left)
		sib_slot = btb_next(parent, p->slot);
	if (sib_slot < 0)
		return GO_ON;	/* an only child below the root: not by us, but legal */

	sib_range = p->parent_range;
	btree_child_range(parent, sib_slot, &sib_range);
	sib_ref = block_ref_get(btree_child_ref(parent, sib_slot));
	ret = btree_block_get(p->bs, sib_ref, p->level, &sib_range, &sib, &why);
	if (ret < 0)
		return ret;
	bytes = total_bytes(sib->data);
	if (bytes > 2 * BTREE_LWM_BYTES) {
		bytes = BTREE_LWM_BYTES;
		block_put(p->bs, sib);
		ret = dirty_child(p, p->parent, sib_slot, &sib_range, p->level, &sib);
		if (ret < 0)
			return ret;
	}

	if (le16_get(b->mid_free_len) < bytes + ITEM_BYTES_MAX)
		btb_compact(b);
	if (bytes == total_bytes(sib->data)) {
		/* A sibling that is only going to be freed need not become writable for that. */
		take_all(b, sib->data);
		block_put(p->bs, sib);
		ret = remove_sibling(p, sib_slot, sib_is_left, sib_ref);
		return ret < 0 ? ret : RESTART;
	}
	take_some(b, sib->data, sib_is_left, bytes);
	if (sib_is_left) {
		struct key key = key_at(sib->data, btb_last(sib->data));

		btb_set_key(parent, sib_slot, &key);
	} else {
		struct key key = key_at(b, btb_last(b));

		btb_set_key(parent, p->slot, &key);
	}
	block_put(p->bs, sib);
	return RESTART;
}

/* From bl to its child that covers key. */
static int step_down(struct path *p, const struct key *key)
{
	struct key_range range = p->range;
	struct block *child;
	int slot = btb_find_ge(p->bl->data, key);
	int ret;

	if (slot < 0)
		return -EBADMSG;
	btree_child_range(p->bl->data, slot, &range);
	ret = dirty_child(p, p->bl, slot, &range, p->level - 1, &child);
	if (ret < 0)
		return ret;
	block_put(p->bs, p->parent);
	p->parent_is_root = p->parent == NULL;
	p->parent = p->bl;
	p->parent_range = p->range;
	p->slot = slot;
	p->bl = child;
	p->range = range;
	p->level--;
	return 0;
}

/* One descent to key's leaf, or to stop_level: p->bl, held.  GO_ON, RESTART, STOP or an error. */
static int try_descend(struct path *p, const struct key *key)
{
	int ret;

	p->level = p->root->height - 1u;
	p->range = KEY_RANGE_ALL;
	p->parent_is_root = false;
	if (!has_room(p, BTREE_DESCENT_BLOCKS(p->root->height)))
		return STOP;
	ret = dirty_root(p);
	while (ret == 0) {
		if (p->change == CHANGE_DELETE || p->change == CHANGE_SHAPE)
			ret = join(p);
		if (ret == GO_ON && p->change != CHANGE_PATH)
			ret = make_room(p);
		if (ret != GO_ON || p->level == p->stop_level)
			return ret;
		ret = step_down(p, key);
	}
	return ret;
}

static int descend_dirty(struct path *p, const struct key *key)
{
	int ret;

	while ((ret = try_descend(p, key)) == RESTART)
		path_put(p);
	return ret;
}

/* 0: the key is there, -ENOENT: it is not; dirties nothing. */
static int is_present(struct path *p, const struct key *key)
{
	struct btree_ref ref;
	int ret = btree_lookup(p->bs, p->root, key, &ref);

	if (ret == 0)
		btree_put(p->bs, &ref);
	return ret;
}

static int first_item(struct path *p, const struct item *it)
{
	struct block_ref ref;
	struct block *bl;
	int ret;

	if (!has_room(p, 1))
		return STOP;
	ret = new_node(p, 0, &ref, &bl);
	if (ret < 0)
		return ret;
	btb_insert(bl->data, it);
	block_put(p->bs, bl);
	p->root->ref = block_ref_put(ref);
	p->root->height = 1;
	return 0;
}

static int change_item(struct path *p, const struct item *caller_it)
{
	uint8_t val[ITEM_VAL_MAX];
	struct item it = *caller_it;
	struct disk_btree_block *b;
	int slot;
	int ret;

	if (it.val_len > ITEM_VAL_MAX || (it.flags & ~ITEM_FLAG_DELETION))
		return -EINVAL;
	ret = btree_root_check(p->root);
	if (ret < 0)
		return ret;
	if (p->change != CHANGE_FORCE) {
		ret = is_present(p, &it.key);
		if (ret == 0 && p->change == CHANGE_INSERT)
			return -EEXIST;
		if (ret < 0 && (ret != -ENOENT || p->change == CHANGE_UPDATE))
			return ret;
	}
	if (p->root->height == 0)
		return first_item(p, &it);

	/* The caller's value may lie in a block that compaction is about to move it in. */
	if (it.val_len)
		memcpy(val, it.val, it.val_len);
	it.val = val;
	p->val_len = it.val_len;
	ret = descend_dirty(p, &it.key);
	if (ret == 0) {
		b = p->bl->data;
		slot = btb_find(b, &it.key);
		if (slot >= 0)
			btb_update(b, slot, &it);
		else
			btb_insert(b, &it);
		keep_near(p);
	}
	path_put(p);
	return ret;
}

int btree_insert(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		 const struct item *it)
{
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_INSERT };

	return change_item(&p, it);
}

int btree_update(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		 const struct item *it)
{
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_UPDATE };

	return change_item(&p, it);
}

int btree_force(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		const struct item *it)
{
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_FORCE };

	return change_item(&p, it);
}

/* Whether the tree is one leaf with one item: 1 or 0, or an error. */
static int is_last_item(struct path *p)
{
	struct block *bl;
	const char *why;
	int ret;

	if (p->root->height != 1)
		return 0;
	ret = btree_block_get(p->bs, block_ref_get(&p->root->ref), 0, &KEY_RANGE_ALL, &bl, &why);
	if (ret < 0)
		return ret;
	ret = btb_nr(bl->data) == 1;
	block_put(p->bs, bl);
	return ret;
}

static int delete_item(struct path *p, const struct key *key)
{
	int ret;

	ret = btree_root_check(p->root);
	if (ret == 0)
		ret = is_present(p, key);
	if (ret < 0)
		return ret;

	do {
		ret = is_last_item(p);
		if (ret < 0)
			return ret;
		if (ret == 1) {
			if (keeps_root(p) || !has_room(p, 1))
				return STOP;
			ret = block_free(p->bs, p->al, block_ref_get(&p->root->ref));
			if (ret == 0)
				*p->root = (struct disk_btree_root){ .height = 0 };
			return ret;
		}
		ret = try_descend(p, key);
		if (ret == GO_ON) {
			btb_delete(p->bl->data, btb_find(p->bl->data, key));
			keep_near(p);
		}
		path_put(p);
	} while (ret == RESTART);
	return ret;
}

int btree_delete(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
		 const struct key *key)
{
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_DELETE };

	return delete_item(&p, key);
}

/* Near the last change (btree_near.c), within bounds, and the lowest parents: btree_parts.h */

int btree_force_from_root(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
			  const struct item *it, const struct btree_bounds *bounds,
			  struct btree_near *near)
{
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_FORCE,
			  .bounds = bounds, .near = near };
	int ret = change_item(&p, it);

	return ret == STOP ? 1 : ret;
}

int btree_delete_from_root(struct block_set *bs, struct blkno_alloc *al,
			   struct disk_btree_root *root, const struct key *key,
			   const struct btree_bounds *bounds, struct btree_near *near)
{
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_DELETE,
			  .bounds = bounds, .near = near };
	int ret = delete_item(&p, key);

	return ret == STOP ? 1 : ret;
}

int btree_force_bounded(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
			const struct item *it, const struct btree_bounds *bounds)
{
	return btree_force_from_root(bs, al, root, it, bounds, NULL);
}

int btree_delete_bounded(struct block_set *bs, struct blkno_alloc *al,
			 struct disk_btree_root *root, const struct key *key,
			 const struct btree_bounds *bounds)
{
	return btree_delete_from_root(bs, al, root, key, bounds, NULL);
}

static bool root_eq(const struct disk_btree_root *a, const struct disk_btree_root *b)
{
	return le64_get(a->ref.blkno) == le64_get(b->ref.blkno) &&
	       le64_get(a->ref.seq) == le64_get(b->ref.seq) && a->height == b->height;
}

int btree_parent_replace(struct block_set *bs, struct blkno_alloc *al, struct disk_btree_root *root,
			 const struct key *key, const struct disk_btree_root *sub)
{
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_PATH,
			  .stop_level = 2 };
	struct disk_btree_root old;
	struct key end;
	int ret;

	ret = btree_parent_get(bs, root, key, &old, &end);
	if (ret < 0 || root_eq(&old, sub))
		return ret;
	ret = btree_parent_fits(bs, root, key, sub);
	if (ret < 0)
		return ret;
	if (root->height <= 2) {
		*root = *sub;
		return 0;
	}
	ret = try_descend(&p, key);
	if (ret == 0)
		set_child_ref(p.bl->data, btb_find_ge(p.bl->data, key), block_ref_get(&sub->ref));
	path_put(&p);
	return ret;
}

/* 1: a block on the way to key's lowest parent wants to be split or joined, or the root to go. */
static int wants_shape(struct path *p, const struct key *key)
{
	struct key_range range = KEY_RANGE_ALL;
	struct block_ref ref = block_ref_get(&p->root->ref);
	bool is_only = true;
	struct block *bl;
	const char *why;
	int ret = 0;

	for (unsigned level = p->root->height - 1u; level > 0 && ret == 0; level--) {
		const struct disk_btree_block *b;
		bool is_root = level == p->root->height - 1u;
		int slot;

		ret = btree_block_get(p->bs, ref, level, &range, &bl, &why);
		if (ret < 0)
			return ret;
		b = bl->data;
		slot = btb_find_ge(b, key);
		if (slot < 0) {
			ret = -EBADMSG;
		} else {
			ret = (is_root && btb_nr(b) == 1) ||
			      (!is_root && !is_only && total_bytes(b) < BTREE_LWM_BYTES) ||
			      le16_get(b->mid_free_len) < PARENT_NEED;
			is_only = btb_nr(b) == 1;
			btree_child_range(b, slot, &range);
			ref = block_ref_get(btree_child_ref(b, slot));
		}
		block_put(p->bs, bl);
	}
	return ret;
}

/* While the root has one child only, let that be the root. */
static int collapse_root(struct path *p)
{
	struct block_ref ref, child;
	struct block *bl;
	const char *why;
	int ret = 0;
	bool is_only;

	while (p->root->height > 2 && ret == 0) {
		ref = block_ref_get(&p->root->ref);
		ret = btree_block_get(p->bs, ref, p->root->height - 1u, &KEY_RANGE_ALL, &bl, &why);
		if (ret < 0)
			return ret;
		is_only = btb_nr(bl->data) == 1;
		if (is_only)
			child = block_ref_get(btree_child_ref(bl->data, btb_first(bl->data)));
		block_put(p->bs, bl);
		if (!is_only)
			break;
		if (!has_room(p, 1))
			return STOP;
		ret = block_free(p->bs, p->al, ref);
		if (ret == 0) {
			p->root->ref = block_ref_put(child);
			p->root->height--;
		}
	}
	return ret;
}

int btree_parent_rebalance(struct block_set *bs, struct blkno_alloc *al,
			   struct disk_btree_root *root, const struct key *key,
			   const struct btree_bounds *bounds)
{
	const struct btree_bounds no_root = { .arg = bounds->arg, .has_room = bounds->has_room };
	struct path p = { .bs = bs, .al = al, .root = root, .change = CHANGE_SHAPE,
			  .bounds = &no_root, .stop_level = 1 };
	int ret = btree_root_check(root);

	while (ret == 0 && root->height > 2) {
		ret = wants_shape(&p, key);
		if (ret <= 0)
			return ret;
		ret = collapse_root(&p);
		if (ret != 0 || root->height <= 2)
			break;
		ret = try_descend(&p, key);
		path_put(&p);
		if (ret == RESTART)
			ret = 0;
	}
	return ret == STOP ? 1 : ret;
}
