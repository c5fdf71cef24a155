/*
 * Chains of allocation list blocks, format.md 10.2: filling one from a free-extent tree, emptying
 * one into a tree, joining two, visiting one.
 *
 * Promises: a block number is in exactly one place between any two calls: what is taken out of a
 * tree is put into a list within the same call, and the other way round.  The lists and trees given
 * here may be read from a device: a block is checked, and compared with the head or the reference
 * that led to it, before any of its entries is believed.
 *
 * Relies on `al` being the allocator of a meta_alloc over other lists than the ones given (in
 * serverd the active pair, while these are the idle pair or a client's), so no call here changes
 * what it is walking.  -EINPROGRESS is a consistent state; any other error of a changing call means
 * abort.
 */
#include "alloc/meta_alloc.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/alloc_window.h"

/*
 * How many extents one alloc_list_empty puts into the tree.  Each can make a leaf of either index
 * dirty, so this bounds what a commit spends on a list whose blocks are scattered over a huge tree.
 */
#define EMPTY_EXTENTS_MAX 2048u

static int u64_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int le64_cmp(const void *a, const void *b)
{
	uint64_t x = le64_get(*(const le64 *)a);
	uint64_t y = le64_get(*(const le64 *)b);

	return (x > y) - (x < y);
}

#define SORT_TAIL_MAX	256u

/* v[0..sorted) and the rest, which is short, become one ascending run. */
static void merge_tail(le64 *v, uint32_t sorted, uint32_t nr)
{
	le64 tail[SORT_TAIL_MAX];
	uint32_t left = nr - sorted;

	memcpy(tail, v + sorted, left * sizeof(v[0]));
	qsort(tail, left, sizeof(tail[0]), le64_cmp);
	while (left) {
		if (sorted && le64_cmp(&v[sorted - 1], &tail[left - 1]) > 0) {
			v[sorted + left - 1] = v[sorted - 1];
			sorted--;
		} else {
			v[sorted + left - 1] = tail[left - 1];
			left--;
		}
	}
}

/* A transaction sorts what the one before has sorted, and a few that came since. */
void window_sort(struct disk_alloc_list_block *b)
{
	le64 *v = &b->blknos[le32_get(b->start)];
	uint32_t nr = le32_get(b->nr), sorted = 1;

	while (sorted < nr && le64_cmp(&v[sorted - 1], &v[sorted]) <= 0)
		sorted++;
	if (sorted >= nr)
		return;
	if (nr - sorted <= SORT_TAIL_MAX)
		merge_tail(v, sorted, nr);
	else
		qsort(v, nr, sizeof(v[0]), le64_cmp);
}

int alloc_list_check(const struct disk_alloc_list_block *b, uint64_t total_meta_blocks)
{
	uint32_t start = le32_get(b->start);
	uint32_t nr = le32_get(b->nr);
	uint64_t blkno;

	if (start > ALLOC_LIST_ENTRIES || nr > ALLOC_LIST_ENTRIES - start)
		return -EBADMSG;
	for (uint32_t i = 0; i < nr; i++) {
		blkno = le64_get(b->blknos[start + i]);
		if (blkno < META_FIRST_BLKNO || blkno >= total_meta_blocks)
			return -EBADMSG;
	}
	return 0;
}

int alloc_list_head_check(const struct disk_alloc_list_head *head)
{
	uint64_t total = le64_get(head->total_nr);
	uint32_t first = le32_get(head->first_nr);

	if (le32_get(head->flags) & ~ALLOC_FLAG_LOW)
		return -EBADMSG;
	if (le64_get(head->ref.blkno) == 0)
		return le64_get(head->ref.seq) || total || first ? -EBADMSG : 0;
	return first > ALLOC_LIST_ENTRIES || first > total ? -EBADMSG : 0;
}

/* Hold the list block ref names, its entries checked. */
static int list_get(struct block_set *bs, struct block_ref ref, struct block **out)
{
	struct block *bl;
	int ret;

	ret = block_get(bs, ref, MAGIC_ALLOC_LIST, &bl);
	if (ret < 0)
		return ret;
	if (!bl->checked) {
		ret = alloc_list_check(bl->data, block_set_total_blocks(bs));
		if (ret < 0) {
			block_put(bs, bl);
			return ret;
		}
		bl->checked = true;
	}
	*out = bl;
	return 0;
}

int alloc_list_get_first(struct block_set *bs, const struct disk_alloc_list_head *head,
			 struct block **out)
{
	struct block *bl;
	int ret;

	ret = alloc_list_head_check(head);
	if (ret < 0)
		return ret;
	ret = list_get(bs, block_ref_get(&head->ref), &bl);
	if (ret < 0)
		return ret;
	if (window_nr(bl->data) != le32_get(head->first_nr)) {
		block_put(bs, bl);
		return -EBADMSG;
	}
	*out = bl;
	return 0;
}

static struct block_ref next_of(const struct block *bl)
{
	const struct disk_alloc_list_block *b = bl->data;

	return block_ref_get(&b->next);
}

int alloc_list_fill(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_list_head *head,
		    struct disk_alloc_root *root, uint32_t lo, uint32_t target)
{
	const uint64_t total_blocks = block_set_total_blocks(bs);
	struct disk_alloc_list_block *b;
	struct block_ref ref = block_ref_get(&head->ref);
	struct block *bl;
	struct extent ext;
	uint32_t added = 0;
	int ret;

	if (target > ALLOC_LIST_ENTRIES)
		return -EINVAL;
	ret = alloc_list_head_check(head);
	if (ret < 0)
		return ret;
	if (le32_get(head->first_nr) >= lo || le32_get(head->first_nr) >= target ||
	    le64_get(root->total_len) == 0)
		return 0;

	if (ref.blkno) {
		ret = alloc_list_get_first(bs, head, &bl);
		if (ret < 0)
			return ret;
		block_put(bs, bl);
		ret = block_dirty(bs, al, &ref, MAGIC_ALLOC_LIST, &bl);
	} else {
		ret = block_new(bs, al, MAGIC_ALLOC_LIST, &ref, &bl);
	}
	if (ret < 0)
		return ret;
	b = bl->data;
	head->ref = block_ref_put(ref);

	while (window_nr(b) < target && le64_get(root->total_len) > 0) {
		ret = free_extents_alloc(bs, al, root, target - window_nr(b), &ext);
		if (ret < 0)
			break;
		if (ext.start < META_FIRST_BLKNO || ext.start >= total_blocks ||
		    ext.len > total_blocks - ext.start) {
			ret = -EUCLEAN;
			break;
		}
		for (uint64_t i = 0; i < ext.len; i++)
			window_push(b, ext.start + i);
		added += (uint32_t)ext.len;
	}
	head->first_nr = le32_of(window_nr(b));
	head->total_nr = le64_of(le64_get(head->total_nr) + added);
	block_put(bs, bl);
	return ret;
}

/*
 * Insert the runs of a sorted array as extents, as long as *extents lasts; returns how many entries
 * went in.  A number that stands there twice overlaps itself in the tree: -EUCLEAN.
 */
static int insert_runs(struct block_set *bs, struct blkno_alloc *al, struct disk_alloc_root *root,
		       const uint64_t *blknos, uint32_t nr, unsigned *extents)
{
	struct extent run;
	uint32_t i = 0;
	int ret;

	while (i < nr && *extents > 0) {
		run = (struct extent){ blknos[i], 1 };
		while (i + run.len < nr && blknos[i + run.len] == run.start + run.len)
			run.len++;
		ret = free_extents_insert(bs, al, root, run);
		if (ret < 0)
			return ret;
		i += (uint32_t)run.len;
		(*extents)--;
	}
	return (int)i;
}

/*
 * Take the first block of head out of the chain, or, where not all of its entries went into the
 * tree, leave the rest of them (sorted) in a copy of it.
 */
static int drop_entries(struct block_set *bs, struct blkno_alloc *al,
			struct disk_alloc_list_head *head, const uint64_t *blknos, uint32_t nr,
			uint32_t done)
{
	struct block_ref ref = block_ref_get(&head->ref);
	struct disk_alloc_list_block *b;
	struct block_ref next;
	struct block *bl;
	uint32_t next_nr = 0;
	int ret;

	if (done < nr) {
		ret = block_dirty(bs, al, &ref, MAGIC_ALLOC_LIST, &bl);
		if (ret < 0)
			return ret;
		b = bl->data;
		b->start = le32_of(0);
		b->nr = le32_of(0);
		for (uint32_t i = done; i < nr; i++)
			window_push(b, blknos[i]);
		block_put(bs, bl);
		head->ref = block_ref_put(ref);
		head->first_nr = le32_of(nr - done);
		head->total_nr = le64_of(le64_get(head->total_nr) - done);
		return 0;
	}

	ret = list_get(bs, ref, &bl);
	if (ret < 0)
		return ret;
	next = next_of(bl);
	block_put(bs, bl);
	if (next.blkno) {
		ret = list_get(bs, next, &bl);
		if (ret < 0)
			return ret;
		next_nr = window_nr(bl->data);
		block_put(bs, bl);
	}
	if (next_nr > le64_get(head->total_nr) - nr ||
	    (!next.blkno && le64_get(head->total_nr) != nr))
		return -EBADMSG;
	ret = block_free(bs, al, ref);
	if (ret < 0)
		return ret;
	head->ref = next.blkno ? block_ref_put(next) : (struct disk_block_ref){ 0 };
	head->first_nr = le32_of(next_nr);
	head->total_nr = le64_of(le64_get(head->total_nr) - nr);
	return 0;
}

int alloc_list_empty(struct block_set *bs, struct blkno_alloc *al,
		     struct disk_alloc_list_head *head, struct disk_alloc_root *root,
		     unsigned blocks_max)
{
	return alloc_list_empty_some(bs, al, head, root, blocks_max, EMPTY_EXTENTS_MAX);
}

int alloc_list_empty_some(struct block_set *bs, struct blkno_alloc *al,
			  struct disk_alloc_list_head *head, struct disk_alloc_root *root,
			  unsigned blocks_max, unsigned extents)
{
	struct block *bl;
	uint64_t *blknos;
	uint32_t nr;
	int ret = 0;

	if (le64_get(head->ref.blkno) == 0)
		return alloc_list_head_check(head);
	blknos = malloc(ALLOC_LIST_ENTRIES * sizeof(blknos[0]));
	if (!blknos)
		return -ENOMEM;

	while (le64_get(head->ref.blkno) != 0) {
		if (blocks_max-- == 0 || extents == 0) {
			ret = -EINPROGRESS;
			break;
		}
		ret = alloc_list_get_first(bs, head, &bl);
		if (ret < 0)
			break;
		nr = window_nr(bl->data);
		for (uint32_t i = 0; i < nr; i++)
			blknos[i] = window_at(bl->data, i);
		block_put(bs, bl);
		qsort(blknos, nr, sizeof(blknos[0]), u64_cmp);

		ret = insert_runs(bs, al, root, blknos, nr, &extents);
		if (ret >= 0)
			ret = drop_entries(bs, al, head, blknos, nr, (uint32_t)ret);
		if (ret < 0)
			break;
	}
	free(blknos);
	return ret;
}

/*
 * Tells a chain that bites its own tail from one that is merely long (Brent): remembers one earlier
 * block and moves it up at every power of two.
 */
struct loop_guard {
	struct block_ref mark;
	uint64_t steps;
};

static bool loop_guard_sees_again(struct loop_guard *g, struct block_ref ref)
{
	if (g->steps > 0 && g->mark.blkno == ref.blkno)
		return true;
	g->steps++;
	if ((g->steps & (g->steps - 1)) == 0)
		g->mark = ref;
	return false;
}

int alloc_list_each(struct block_set *bs, const struct disk_alloc_list_head *head,
		    int (*each)(void *arg, struct block_ref ref,
				const struct disk_alloc_list_block *b),
		    void *arg)
{
	struct block_ref ref = block_ref_get(&head->ref);
	struct loop_guard guard = { 0 };
	uint64_t total = 0;
	struct block *bl;
	int ret;

	ret = alloc_list_head_check(head);
	while (ret == 0 && ref.blkno) {
		if (loop_guard_sees_again(&guard, ref))
			return -EBADMSG;
		if (guard.steps == 1)
			ret = alloc_list_get_first(bs, head, &bl);
		else
			ret = list_get(bs, ref, &bl);
		if (ret < 0)
			return ret;
		ret = each(arg, ref, bl->data);
		total += window_nr(bl->data);
		ref = next_of(bl);
		block_put(bs, bl);
	}
	if (ret == 0 && total != le64_get(head->total_nr))
		ret = -EBADMSG;
	return ret;
}

static int look_at_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	(void)arg;
	(void)ref;
	(void)b;
	return 0;
}

/* How many entries the block behind ref has; 0 for none. */
static int entries_at(struct block_set *bs, struct block_ref ref, uint32_t *nr)
{
	struct block *bl;
	int ret;

	*nr = 0;
	if (!ref.blkno)
		return 0;
	ret = list_get(bs, ref, &bl);
	if (ret < 0)
		return ret;
	*nr = window_nr(bl->data);
	block_put(bs, bl);
	return 0;
}

/* The first block of src becomes the first of dst; only one with something to link to is copied. */
static int splice_first(struct block_set *bs, struct blkno_alloc *al,
			struct disk_alloc_list_head *dst, struct disk_alloc_list_head *src)
{
	struct block_ref ref = block_ref_get(&src->ref), next;
	uint32_t nr = le32_get(src->first_nr), next_nr;
	struct disk_alloc_list_block *b;
	struct block *bl;
	int ret;

	ret = alloc_list_get_first(bs, src, &bl);
	if (ret < 0)
		return ret;
	next = next_of(bl);
	block_put(bs, bl);
	ret = entries_at(bs, next, &next_nr);
	if (ret < 0)
		return ret;
	if (next.blkno || le64_get(dst->ref.blkno)) {
		ret = block_dirty(bs, al, &ref, MAGIC_ALLOC_LIST, &bl);
		if (ret < 0)
			return ret;
		b = bl->data;
		b->next = dst->ref;
		block_put(bs, bl);
	}
	dst->ref = block_ref_put(ref);
	dst->first_nr = le32_of(nr);
	dst->total_nr = le64_of(le64_get(dst->total_nr) + nr);
	src->ref = next.blkno ? block_ref_put(next) : (struct disk_block_ref){ 0 };
	src->first_nr = le32_of(next_nr);
	src->total_nr = le64_of(le64_get(src->total_nr) - nr);
	return 0;
}

int alloc_list_splice_some(struct block_set *bs, struct blkno_alloc *al,
			   struct disk_alloc_list_head *dst, struct disk_alloc_list_head *src,
			   unsigned blocks_max)
{
	struct disk_alloc_list_head to = *dst, from = *src;
	int ret;

	/* The whole of src is looked at before anything of it is copied: its end must exist. */
	ret = alloc_list_head_check(dst);
	if (ret == 0)
		ret = alloc_list_each(bs, src, look_at_block, NULL);
	if (ret < 0)
		return ret;
	if (le64_get(src->total_nr) > UINT64_MAX - le64_get(dst->total_nr))
		return -EBADMSG;

	if (le64_get(from.ref.blkno) && !le64_get(to.ref.blkno)) {
		to = from;
		to.flags = dst->flags;
		from.ref = (struct disk_block_ref){ 0 };
	}
	while (ret == 0 && le64_get(from.ref.blkno)) {
		if (blocks_max-- == 0)
			ret = -EINPROGRESS;
		else
			ret = splice_first(bs, al, &to, &from);
	}
	if (ret < 0 && ret != -EINPROGRESS)
		return ret;
	*dst = to;
	*src = ret == 0 ? (struct disk_alloc_list_head){ 0 } : from;
	return ret;
}

int alloc_list_splice(struct block_set *bs, struct blkno_alloc *al,
		      struct disk_alloc_list_head *dst, struct disk_alloc_list_head *src)
{
	return alloc_list_splice_some(bs, al, dst, src, UINT_MAX);
}
