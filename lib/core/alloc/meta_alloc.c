/*
 * The metadata allocator of one transaction, format.md 10.2 and runtime.md 8.2.
 *
 * Promises: a blkno is handed out once; what is freed goes to the freed list and is never handed
 * out again in this transaction; neither call changes a tree, so trees may allocate while they
 * change.  meta_alloc_avail_nr and meta_alloc_freed_room are what can be relied on: that many calls
 * succeed unless a device or memory fails.
 *
 * The list blocks are metadata too and are copied on write like any other.  Their new homes are the
 * first two entries of avail as it lies on the device, and their old homes are the first entries
 * of the new freed block; so the lists pay for themselves and nobody else has to know.  A freed
 * block that is three quarters full is not copied but gets a fresh one in front of it: otherwise a
 * list that was filled in the last transaction would leave no room for this one.
 *
 * Only the first block of each list is used within a transaction.  -ENOSPC changes nothing; after
 * another error the set must be aborted, and the heads are the caller's to restore from its copy.
 */
#include "alloc/meta_alloc.h"

#include <errno.h>

#include "alloc/alloc_window.h"

/* With fewer free slots than this the first freed block gets a fresh one in front of it (10.2). */
#define FREED_ROOM_MIN 2046u

/* Free slots of the first freed block as the head has it; the head's number is not trusted yet. */
static uint32_t freed_slots(const struct disk_alloc_list_head *freed)
{
	uint32_t nr = le32_get(freed->first_nr);

	return nr < ALLOC_LIST_ENTRIES ? ALLOC_LIST_ENTRIES - nr : 0;
}

static bool freed_needs_fresh(const struct disk_alloc_list_head *freed)
{
	return le64_get(freed->ref.blkno) == 0 || freed_slots(freed) < FREED_ROOM_MIN;
}

/* The dirty freed block of this transaction, at blkno: a copy of the first one, or a fresh one. */
static int make_freed(struct meta_alloc *ma, uint64_t blkno, struct block_ref *ref,
		      struct block **out)
{
	struct disk_alloc_list_block *b;
	struct disk_block_ref next = ma->freed->ref;
	int ret;

	if (!freed_needs_fresh(ma->freed))
		return block_dirty_at(ma->bs, blkno, ref, MAGIC_ALLOC_LIST, out);
	ret = block_new_at(ma->bs, blkno, MAGIC_ALLOC_LIST, ref, out);
	if (ret == 0) {
		b = (*out)->data;
		b->next = next;
	}
	return ret;
}

/*
 * Make both list blocks writable.  Everything that can be read or refused is read and checked
 * before the first block becomes dirty.  A list block that is dirty already (the lists were opened
 * before in the same transaction) is used as it is and costs nothing.
 */
static int make_dirty(struct meta_alloc *ma)
{
	struct block *old_avail = NULL, *old_freed = NULL, *avail_bl = NULL, *freed_bl = NULL;
	struct block_ref avail_ref = block_ref_get(&ma->avail->ref);
	struct block_ref freed_ref = block_ref_get(&ma->freed->ref);
	const uint64_t old_avail_blkno = avail_ref.blkno;
	const uint64_t old_freed_blkno = freed_ref.blkno;
	const bool fresh = freed_needs_fresh(ma->freed);
	bool copy_avail, copy_freed;
	uint32_t used = 0, pushed = 0;
	uint64_t blknos[2];
	int ret;

	if (ma->avail_bl)
		return 0;
	if (avail_ref.blkno == 0)
		return -ENOSPC;
	if (avail_ref.blkno == freed_ref.blkno)
		return -EBADMSG;

	ret = alloc_list_get_first(ma->bs, ma->avail, &old_avail);
	if (ret == 0)
		ret = alloc_list_head_check(ma->freed);
	if (ret == 0 && freed_ref.blkno)
		ret = alloc_list_get_first(ma->bs, ma->freed, &old_freed);
	if (ret < 0)
		goto out;

	copy_avail = !old_avail->dirty;
	copy_freed = fresh || !old_freed->dirty;
	if (window_nr(old_avail->data) < (uint32_t)copy_avail + (uint32_t)copy_freed) {
		ret = -ENOSPC;
		goto out;
	}
	if (copy_avail) {
		blknos[0] = window_at(old_avail->data, used++);
		ret = block_dirty_at(ma->bs, blknos[0], &avail_ref, MAGIC_ALLOC_LIST, &avail_bl);
	} else {
		ret = block_get(ma->bs, avail_ref, MAGIC_ALLOC_LIST, &avail_bl);
	}
	if (ret < 0)
		goto out;
	if (copy_freed) {
		blknos[1] = window_at(avail_bl->data, used++);
		ret = make_freed(ma, blknos[1], &freed_ref, &freed_bl);
	} else {
		ret = block_get(ma->bs, freed_ref, MAGIC_ALLOC_LIST, &freed_bl);
	}
	if (ret < 0)
		goto out;

	window_drop_front(avail_bl->data, used);
	window_sort(avail_bl->data);
	if (copy_avail) {
		window_push(freed_bl->data, old_avail_blkno);
		pushed++;
	}
	if (copy_freed && !fresh) {
		window_push(freed_bl->data, old_freed_blkno);
		pushed++;
	}

	ma->avail->ref = block_ref_put(avail_ref);
	ma->avail->first_nr = le32_of(window_nr(avail_bl->data));
	ma->avail->total_nr = le64_of(le64_get(ma->avail->total_nr) - used);
	ma->freed->ref = block_ref_put(freed_ref);
	ma->freed->first_nr = le32_of(window_nr(freed_bl->data));
	ma->freed->total_nr = le64_of(le64_get(ma->freed->total_nr) + pushed);
	ma->avail_bl = avail_bl;
	ma->freed_bl = freed_bl;
	avail_bl = NULL;
	freed_bl = NULL;
out:
	if (freed_bl)
		block_put(ma->bs, freed_bl);
	if (avail_bl)
		block_put(ma->bs, avail_bl);
	if (old_freed)
		block_put(ma->bs, old_freed);
	if (old_avail)
		block_put(ma->bs, old_avail);
	return ret;
}

static int ma_alloc(void *arg, uint64_t *blkno)
{
	struct meta_alloc *ma = arg;
	struct disk_alloc_list_block *b;
	int ret;

	/* Dirtying the lists for an allocation that then fails would waste two blocks. */
	if (meta_alloc_avail_nr(ma) == 0)
		return -ENOSPC;
	ret = make_dirty(ma);
	if (ret < 0)
		return ret;
	b = ma->avail_bl->data;
	*blkno = window_at(b, 0);
	window_drop_front(b, 1);
	ma->avail->first_nr = le32_of(window_nr(b));
	ma->avail->total_nr = le64_of(le64_get(ma->avail->total_nr) - 1);
	return 0;
}

static int ma_free(void *arg, uint64_t blkno)
{
	struct meta_alloc *ma = arg;
	struct disk_alloc_list_block *b;
	int ret;

	if (blkno < META_FIRST_BLKNO)
		return -EINVAL;
	if (meta_alloc_freed_room(ma) == 0)
		return -ENOSPC;
	ret = make_dirty(ma);
	if (ret < 0)
		return ret;
	b = ma->freed_bl->data;
	window_push(b, blkno);
	ma->freed->first_nr = le32_of(window_nr(b));
	ma->freed->total_nr = le64_of(le64_get(ma->freed->total_nr) + 1);
	return 0;
}

void meta_alloc_open(struct meta_alloc *ma, struct block_set *bs,
		     struct disk_alloc_list_head *avail, struct disk_alloc_list_head *freed)
{
	*ma = (struct meta_alloc){
		.bs = bs,
		.avail = avail,
		.freed = freed,
		.al = { .arg = ma, .alloc = ma_alloc, .free = ma_free },
	};
}

uint32_t meta_alloc_avail_nr(const struct meta_alloc *ma)
{
	uint32_t nr = le32_get(ma->avail->first_nr);

	if (ma->avail_bl)
		return nr;
	return nr > 2 ? nr - 2 : 0;
}

uint32_t meta_alloc_freed_room(const struct meta_alloc *ma)
{
	if (ma->avail_bl)
		return freed_slots(ma->freed);
	if (le32_get(ma->avail->first_nr) < 2)
		return 0;
	/* A fresh block takes the old avail block's number, a copy also its own old one. */
	return freed_needs_fresh(ma->freed) ? ALLOC_LIST_ENTRIES - 1 :
					      freed_slots(ma->freed) - 2;
}

void meta_alloc_close(struct meta_alloc *ma)
{
	if (ma->avail_bl)
		block_put(ma->bs, ma->avail_bl);
	if (ma->freed_bl)
		block_put(ma->bs, ma->freed_bl);
	ma->avail_bl = NULL;
	ma->freed_bl = NULL;
}
