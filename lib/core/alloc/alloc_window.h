/*
 * The floating window of entries in one allocation list block, format.md 10.2.  Private to
 * lib/core/alloc; every function assumes alloc_list_check passed or that we made the block.
 */
#ifndef SCOUTFS_ALLOC_WINDOW_H
#define SCOUTFS_ALLOC_WINDOW_H

#include "alloc/meta_alloc.h"

static inline uint32_t window_nr(const struct disk_alloc_list_block *b)
{
	return le32_get(b->nr);
}

static inline uint64_t window_at(const struct disk_alloc_list_block *b, uint32_t i)
{
	return le64_get(b->blknos[le32_get(b->start) + i]);
}

/* The block must not be full. */
static inline void window_push(struct disk_alloc_list_block *b, uint64_t blkno)
{
	uint32_t start = le32_get(b->start);
	uint32_t nr = le32_get(b->nr);

	assert(nr < ALLOC_LIST_ENTRIES);
	if (start + nr < ALLOC_LIST_ENTRIES) {
		b->blknos[start + nr] = le64_of(blkno);
	} else {
		start--;
		b->blknos[start] = le64_of(blkno);
		b->start = le32_of(start);
	}
	b->nr = le32_of(nr + 1);
}

/* Drop the first n entries. */
static inline void window_drop_front(struct disk_alloc_list_block *b, uint32_t n)
{
	uint32_t nr = le32_get(b->nr);

	assert(n <= nr);
	b->nr = le32_of(nr - n);
	b->start = n == nr ? le32_of(0) : le32_of(le32_get(b->start) + n);
}

/* Ascending, so that what a transaction allocates is written in runs. */
void window_sort(struct disk_alloc_list_block *b);

/*
 * Hold the first block of head, verified and in agreement with it.  Errors as block_get; -EBADMSG.
 * block_put() it.
 */
int alloc_list_get_first(struct block_set *bs, const struct disk_alloc_list_head *head,
			 struct block **out);

#endif
