/*
 * Allocators: free-extent trees (13), allocation lists (14), and the partition of the data device
 * (15). Every free extent of metadata is marked in the owner map block by block; data extents,
 * free and used, are gathered as (start, length, owner) and compared sorted (check_sort.h).
 */
#include "check_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/free_extents.h"

struct free_tree {
	struct sorter by_blkno; /* struct extent */
	struct sorter by_order;
};

static void free_tree_item(struct check *ck, struct check_tree *t, const struct item *it,
			   uint64_t blkno)
{
	struct free_tree *ft = t->arg;
	bool by_blkno = it->key.zone == ZONE_FREE_BY_BLKNO;
	uint64_t end = by_blkno ? it->key.first : it->key.second;
	uint64_t len = by_blkno ? it->key.second : it->key.third;
	struct extent e = { .start = end - len + 1, .len = len };
	uint64_t total = t->owner == OWNER_META_ALLOC ? ck->meta_blocks : ck->data_blocks;
	uint64_t least = t->owner == OWNER_META_ALLOC ? META_FIRST_BLKNO : DATA_FIRST_BLKNO;

	if (!len || len > end + 1 || e.start < least || end >= total) {
		check_find(ck, 13, AT_BLOCK_KEY(blkno, &it->key),
			   "%s: a free extent that ends at %" PRIu64 " with %" PRIu64
			   " blocks is outside %" PRIu64 "..%" PRIu64,
			   t->name, end, len, least, total - 1);
		return;
	}
	if (!by_blkno && it->key.first != UINT64_MAX - extent_order(len))
		check_find(ck, 13, AT_BLOCK_KEY(blkno, &it->key),
			   "%s: the order of a free extent of %" PRIu64 " blocks is not %" PRIu64,
			   t->name, len, UINT64_MAX - it->key.first);
	sorter_add(ck, by_blkno ? &ft->by_blkno : &ft->by_order, &e);
}

static int cmp_extent(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->len < y->len ? -1 : x->len > y->len;
}

static void check_pairs(struct check *ck, struct free_tree *ft, const char *name)
{
	const struct extent *x, *y;

	sorter_rewind(ck, &ft->by_blkno);
	sorter_rewind(ck, &ft->by_order);
	for (;;) {
		int cmp;

		x = sorter_peek(&ft->by_blkno);
		y = sorter_peek(&ft->by_order);
		if (!x && !y)
			break;
		cmp = !x ? 1 : !y ? -1 : cmp_extent(x, y);
		if (cmp < 0)
			check_find(ck, 13, NOWHERE,
				   "%s: the free extent %" PRIu64 "+%" PRIu64 " is listed by place "
				   "but not by size",
				   name, x->start, x->len);
		if (cmp > 0)
			check_find(ck, 13, NOWHERE,
				   "%s: the free extent %" PRIu64 "+%" PRIu64 " is listed by size "
				   "but not by place",
				   name, y->start, y->len);
		if (cmp <= 0)
			sorter_next(ck, &ft->by_blkno);
		if (cmp >= 0)
			sorter_next(ck, &ft->by_order);
	}
}

/* The first trouble of an extent is told with its number of blocks, not each block. */
static void claim_meta_extent(struct check *ck, const struct extent *e, const char *name)
{
	uint64_t first = 0, nr = 0;
	enum check_owner old = OWNER_NONE;

	for (uint64_t b = e->start; b < e->start + e->len; b++) {
		if (ck->owner[b] == OWNER_NONE) {
			ck->owner[b] = OWNER_FREE_EXTENT;
			continue;
		}
		if (!nr++) {
			first = b;
			old = ck->owner[b];
		}
	}
	if (nr)
		check_find(ck, 15, AT_BLOCK(first),
			   "%s: %" PRIu64 " blocks of the free extent %" PRIu64 "+%" PRIu64
			   " are used elsewhere, the first by %s",
			   name, nr, e->start, e->len, check_owner_name(old));
}

/* Each extent gets its owner; returns their sum. */
static uint64_t own_extents(struct check *ck, struct free_tree *ft, const char *name, const char *who)
{
	const struct extent *e;
	uint64_t sum = 0, end = 0;

	for (sorter_rewind(ck, &ft->by_blkno); !ck->err && (e = sorter_peek(&ft->by_blkno));
	     sorter_next(ck, &ft->by_blkno)) {
		sum += e->len;
		if (e->start < end)
			check_find(ck, 13, NOWHERE,
				   "%s: the free extent %" PRIu64 "+%" PRIu64 " overlaps the one "
				   "before it",
				   name, e->start, e->len);
		else if (who)
			sorter_add(ck, &ck->data,
				   &(struct check_data){
					   .start = e->start, .len = e->len, .who = who });
		else
			claim_meta_extent(ck, e, name);
		end = e->start + e->len;
	}
	return sum;
}

void check_free_extents(struct check *ck, const struct disk_alloc_root *root,
			enum check_owner owner, const char *name, const char *who)
{
	struct free_tree ft;
	struct check_tree t = {
		.owner = owner, .kind = TREE_FREE_EXTENTS, .item = free_tree_item, .arg = &ft
	};
	uint64_t sum;

	sorter_init(&ft.by_blkno, sizeof(struct extent), cmp_extent);
	sorter_init(&ft.by_order, sizeof(struct extent), cmp_extent);
	snprintf(t.name, sizeof(t.name), "%s", name);
	if (le32_get(root->flags) & ~ALLOC_FLAG_LOW)
		check_find(ck, 13, NOWHERE, "%s: unknown flags %#x", name, le32_get(root->flags));
	check_walk_tree(ck, &t, &root->root);
	if (t.is_broken) {
		if (who)
			ck->data_unknown = true;
		else
			ck->blocks_unknown = true;
	} else {
		check_pairs(ck, &ft, name);
	}
	sum = own_extents(ck, &ft, name, who);
	if (!t.is_broken && !ck->err && sum != le64_get(root->total_len))
		check_find(ck, 13, NOWHERE,
			   "%s: total_len is %" PRIu64 ", the extents sum to %" PRIu64, name,
			   le64_get(root->total_len), sum);
	sorter_fini(&ft.by_blkno);
	sorter_fini(&ft.by_order);
}

static int check_cmp_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/*
 * An entry of the freed list of a merge or a compaction may still be used by what that work
 * replaces, and not by what it has made (16.4): those lists are looked at last, and such a block is left with its
 * first owner, but may be in one such list only.
 */
static bool may_be_used(struct check *ck, uint64_t blkno, enum check_owner entry_owner, bool is_freed)
{
	enum check_owner old = ck->owner[blkno];

	if (is_freed && entry_owner == OWNER_ENTRY_MERGE && old == OWNER_FS_ROOT)
		ck->owner[blkno] = OWNER_FS_FREED;
	else if (is_freed && entry_owner == OWNER_ENTRY_COMPACT && old == OWNER_SRCH_INPUT)
		ck->owner[blkno] = OWNER_SRCH_FREED;
	else
		return false;
	return true;
}

static void check_entries(struct check *ck, struct disk_alloc_list_block *b, uint64_t blkno,
			  enum check_owner entry_owner, bool is_freed, const char *name)
{
	uint32_t start = le32_get(b->start), nr = le32_get(b->nr);
	uint64_t *sorted = malloc(ALLOC_LIST_ENTRIES * sizeof(*sorted));

	if (!sorted) {
		ck->err = -ENOMEM;
		return;
	}
	for (uint32_t i = 0; i < nr; i++)
		sorted[i] = le64_get(b->blknos[start + i]);
	qsort(sorted, nr, sizeof(*sorted), check_cmp_u64);
	for (uint32_t i = 0; i < nr; i++) {
		if (i && sorted[i] == sorted[i - 1])
			check_find(ck, 14, AT_BLOCK(blkno),
				   "%s: entry %" PRIu64 " stands twice in one block", name,
				   sorted[i]);
		else if (sorted[i] >= ck->meta_blocks ||
			 !may_be_used(ck, sorted[i], entry_owner, is_freed))
			check_claim(ck, sorted[i], entry_owner, name);
	}
	free(sorted);
}

static void check_list(struct check *ck, const struct disk_alloc_list_head *head,
		       enum check_owner block_owner, enum check_owner entry_owner, bool is_freed,
		       const char *name)
{
	struct block_ref ref = block_ref_get(&head->ref);
	uint64_t total = 0;
	bool is_first = true;
	struct disk_alloc_list_block *b;

	if (le32_get(head->flags) & ~ALLOC_FLAG_LOW)
		check_find(ck, 14, NOWHERE, "%s: unknown flags %#x", name, le32_get(head->flags));
	b = malloc(LARGE_SIZE);
	if (!b) {
		ck->err = -ENOMEM;
		return;
	}
	for (; ref.blkno && !ck->err; ref = block_ref_get(&b->next)) {
		uint32_t start, nr;

		if (!check_claim(ck, ref.blkno, block_owner, name) ||
		    !check_read(ck, ref, MAGIC_ALLOC_LIST, name, b)) {
			ck->blocks_unknown = true;
			goto out;
		}
		start = le32_get(b->start);
		nr = le32_get(b->nr);
		if (nr > ALLOC_LIST_ENTRIES || start > ALLOC_LIST_ENTRIES - nr) {
			check_find(ck, 14, AT_BLOCK(ref.blkno),
				   "%s: entries %u+%u do not fit a list block", name, start, nr);
			ck->blocks_unknown = true;
			goto out;
		}
		if (is_first && nr != le32_get(head->first_nr))
			check_find(ck, 14, AT_BLOCK(ref.blkno),
				   "%s: first_nr is %u, the first block has %u entries", name,
				   le32_get(head->first_nr), nr);
		is_first = false;
		total += nr;
		check_entries(ck, b, ref.blkno, entry_owner, is_freed, name);
	}
	if (total != le64_get(head->total_nr))
		check_find(ck, 14, NOWHERE,
			   "%s: total_nr is %" PRIu64 ", the chain has %" PRIu64 " entries", name,
			   le64_get(head->total_nr), total);
	if (!le64_get(head->ref.blkno) && le32_get(head->first_nr))
		check_find(ck, 14, NOWHERE, "%s: first_nr is %u without a chain", name,
			   le32_get(head->first_nr));
out:
	free(b);
}

void check_alloc_list(struct check *ck, const struct disk_alloc_list_head *head,
		      enum check_owner block_owner, enum check_owner entry_owner, const char *name)
{
	check_list(ck, head, block_owner, entry_owner, false, name);
}

void check_freed_list(struct check *ck, const struct disk_alloc_list_head *head,
		      enum check_owner block_owner, enum check_owner entry_owner, const char *name)
{
	check_list(ck, head, block_owner, entry_owner, true, name);
}

int check_cmp_data(const void *a, const void *b)
{
	const struct check_data *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->len < y->len ? -1 : x->len > y->len;
}

static void data_hole(struct check *ck, uint64_t start, uint64_t end)
{
	if (!ck->data_unknown)
		check_find(ck, 15, NOWHERE,
			   "data blocks %" PRIu64 "..%" PRIu64 " are neither used nor free", start,
			   end - 1);
}

static void data_overlap(struct check *ck, const struct check_data *a, const struct check_data *b)
{
	const struct check_data *file = b->ino ? b : a, *other = b->ino ? a : b;
	char who[64];

	if (other->ino)
		snprintf(who, sizeof(who), "inode %" PRIu64, other->ino);
	else
		snprintf(who, sizeof(who), "%s", other->who);
	check_find(ck, 15, file->ino ? AT_INO(file->ino) : NOWHERE,
		   "data blocks %" PRIu64 "+%" PRIu64 " of %s are "
		   "also part of %" PRIu64 "+%" PRIu64 " of %s",
		   file->start, file->len, file->ino ? "the file" : file->who, other->start,
		   other->len, who);
}

/* Which of them has the next extent: what is free, or what files have. */
static struct sorter *first_data(struct check *ck)
{
	const struct check_data *x = sorter_peek(&ck->data), *y = sorter_peek(&ck->mapped);

	return !y || (x && check_cmp_data(x, y) <= 0) ? &ck->data : &ck->mapped;
}

/* Extents come in by owner; sorted by place they must touch exactly (16.5). */
void check_data_partition(struct check *ck)
{
	struct check_data widest = { 0 };
	const struct check_data *d;
	uint64_t end = DATA_FIRST_BLKNO;

	if (ck->forest_broken || ck->data_unknown) {
		ck->data_unknown = true;
		check_note(
			ck,
			"not checked: whether every data block belongs to something (15), since some trees "
			"could not be read");
	}
	sorter_rewind(ck, &ck->data);
	sorter_rewind(ck, &ck->mapped);
	for (struct sorter *s; (s = first_data(ck)) && (d = sorter_peek(s)); sorter_next(ck, s)) {
		ck->data_blocks_nr += d->len;
		if (d->start < end)
			data_overlap(ck, &widest, d);
		else if (d->start > end)
			data_hole(ck, end, d->start);
		if (d->start + d->len > end) {
			end = d->start + d->len;
			widest = *d;
		}
	}
	if (end < ck->data_blocks && !ck->err)
		data_hole(ck, end, ck->data_blocks);
}
