/*
 * A set of large metadata blocks: the clean ones cached, the dirty ones of one transaction kept
 * until they are written.  format.md 3.4, 9.8; runtime.md 6.5.
 *
 * What it promises
 * - A block that block_get() returns had the right crc, magic, fsid, blkno and seq when it was
 *   read, and its bytes do not change while it is held, unless it is dirty and its writer changes
 *   it.
 * - A blkno that the last committed roots may name is never written: a dirty block always lies at a
 *   blkno that the transaction's allocator gave.
 * - Memory is bounded by clean_max blocks, plus the dirty ones, plus the held ones.
 *
 * How Every block of the set is in one hash table by blkno; there is at most one for a blkno.  A
 * block is "out of the set" (not in the table) when it was replaced while somebody still held it;
 * the last block_put() then frees it.  Clean blocks that nobody holds are on the lru list, oldest
 * use first; dirty ones on the dirty list; held clean ones on neither.
 *
 * Callbacks of an allocator may use the set themselves (alloc/meta_alloc.c dirties its list blocks
 * on the first allocation), so nothing that was looked up in the table is relied on across such a
 * call unless it is held.
 *
 * A clean block that becomes dirty is copied only if somebody else holds it.  Otherwise the buffer
 * moves on to the new blkno: the old bytes are on the device, should anybody want them again.
 */
#include "btree/block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"

#define HASH_MIN_BUCKETS	64u
#define WRITE_BATCH		64u
#define BUFFER_ALIGN		4096u

struct link {
	struct link *prev;
	struct link *next;
};

struct cached {
	struct block bl;		/* first: what callers hold is this */
	struct link link;		/* lru or dirty list, else self-linked */
	struct cached *hash_next;
	unsigned holds;
	bool in_set;
};

struct block_set {
	struct block_dev dev;
	const struct block_buffers *buffers;
	uint64_t fsid;
	uint64_t total_blocks;
	struct cached **buckets;
	size_t buckets_nr;		/* a power of two */
	size_t blocks_nr;		/* in the table */
	size_t lru_nr;
	size_t lru_max;
	size_t dirty_nr;
	size_t held_nr;			/* holds on all blocks, in the set or out of it */
	struct link lru;
	struct link dirty;
};

static void link_init(struct link *l)
{
	l->prev = l;
	l->next = l;
}

static void link_del(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

static void link_add_tail(struct link *head, struct link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

static struct cached *cached_of_link(struct link *l)
{
	return (struct cached *)((char *)l - offsetof(struct cached, link));
}

static struct cached *cached_of_block(struct block *bl)
{
	return (struct cached *)bl;
}

static size_t bucket_of(const struct block_set *bs, uint64_t blkno)
{
	/* Blknos come in runs; a multiplication spreads them without letting runs collide. */
	return (size_t)((blkno * 0x9e3779b97f4a7c15ull) >> 32) & (bs->buckets_nr - 1);
}

static struct cached *table_find(const struct block_set *bs, uint64_t blkno)
{
	struct cached *c = bs->buckets[bucket_of(bs, blkno)];

	while (c && c->bl.blkno != blkno)
		c = c->hash_next;
	return c;
}

/* Twice the buckets; without memory the chains just grow longer. */
static void table_grow(struct block_set *bs)
{
	struct cached **old = bs->buckets;
	size_t old_nr = bs->buckets_nr;
	struct cached **buckets = calloc(old_nr * 2, sizeof(*buckets));

	if (!buckets)
		return;
	bs->buckets = buckets;
	bs->buckets_nr = old_nr * 2;
	for (size_t i = 0; i < old_nr; i++) {
		struct cached *next;

		for (struct cached *c = old[i]; c; c = next) {
			size_t b = bucket_of(bs, c->bl.blkno);

			next = c->hash_next;
			c->hash_next = buckets[b];
			buckets[b] = c;
		}
	}
	free(old);
}

static void table_add(struct block_set *bs, struct cached *c)
{
	size_t b;

	if (bs->blocks_nr >= bs->buckets_nr)
		table_grow(bs);
	b = bucket_of(bs, c->bl.blkno);
	c->hash_next = bs->buckets[b];
	bs->buckets[b] = c;
	c->in_set = true;
	bs->blocks_nr++;
}

static void table_del(struct block_set *bs, struct cached *c)
{
	struct cached **p = &bs->buckets[bucket_of(bs, c->bl.blkno)];

	while (*p != c) {
		assert(*p);
		p = &(*p)->hash_next;
	}
	*p = c->hash_next;
	c->hash_next = NULL;
	c->in_set = false;
	bs->blocks_nr--;
}

static void *malloc_get(void)
{
	return aligned_alloc(BUFFER_ALIGN, LARGE_SIZE);
}

static const struct block_buffers malloc_buffers = { malloc_get, free };

static struct cached *cached_alloc(struct block_set *bs)
{
	struct cached *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->bl.data = bs->buffers->get();
	if (!c->bl.data) {
		free(c);
		return NULL;
	}
	link_init(&c->link);
	return c;
}

static void cached_free(struct block_set *bs, struct cached *c)
{
	bs->buffers->put(c->bl.data);
	free(c);
}

/* Take a block out of the set; it is freed now, or by its last holder. */
static void set_drop(struct block_set *bs, struct cached *c)
{
	if (c->bl.dirty)
		bs->dirty_nr--;
	else if (c->holds == 0)
		bs->lru_nr--;
	link_del(&c->link);
	table_del(bs, c);
	if (c->holds == 0)
		cached_free(bs, c);
}

static void set_trim(struct block_set *bs)
{
	while (bs->lru_nr > bs->lru_max)
		set_drop(bs, cached_of_link(bs->lru.next));
}

static void set_hold(struct block_set *bs, struct cached *c)
{
	if (c->in_set && !c->bl.dirty && c->holds == 0) {
		link_del(&c->link);
		bs->lru_nr--;
	}
	c->holds++;
	bs->held_nr++;
}

static void set_make_dirty(struct block_set *bs, struct cached *c)
{
	assert(c->in_set && !c->bl.dirty && c->holds > 0);
	c->bl.dirty = true;
	link_add_tail(&bs->dirty, &c->link);
	bs->dirty_nr++;
}

int block_set_open(struct block_set **out, const struct block_dev *dev, uint64_t fsid,
		   uint64_t total_meta_blocks, size_t clean_max)
{
	struct block_set *bs = calloc(1, sizeof(*bs));

	*out = NULL;
	if (!bs)
		return -ENOMEM;
	bs->buckets = calloc(HASH_MIN_BUCKETS, sizeof(*bs->buckets));
	if (!bs->buckets) {
		free(bs);
		return -ENOMEM;
	}
	bs->buckets_nr = HASH_MIN_BUCKETS;
	bs->dev = *dev;
	bs->buffers = &malloc_buffers;
	bs->fsid = fsid;
	bs->total_blocks = total_meta_blocks;
	bs->lru_max = clean_max;
	link_init(&bs->lru);
	link_init(&bs->dirty);
	*out = bs;
	return 0;
}

void block_set_close(struct block_set *bs)
{
	if (!bs)
		return;
	assert(bs->held_nr == 0);
	block_set_abort(bs);
	bs->lru_max = 0;
	set_trim(bs);
	assert(bs->blocks_nr == 0);
	free(bs->buckets);
	free(bs);
}

void block_set_use_buffers(struct block_set *bs, const struct block_buffers *b)
{
	assert(bs->blocks_nr == 0 && bs->held_nr == 0);
	bs->buffers = b;
}

uint64_t block_set_total_blocks(const struct block_set *bs)
{
	return bs->total_blocks;
}

static bool blkno_is_valid(const struct block_set *bs, uint64_t blkno)
{
	return blkno >= META_FIRST_BLKNO && blkno < bs->total_blocks;
}

void block_header_init(void *data, uint32_t magic, uint64_t fsid, uint64_t seq, uint64_t blkno)
{
	struct disk_header *hdr = data;

	hdr->crc = le32_of(0);
	hdr->magic = le32_of(magic);
	hdr->fsid = le64_of(fsid);
	hdr->seq = le64_of(seq);
	hdr->blkno = le64_of(blkno);
}

int block_header_check(const void *data, size_t size, uint32_t magic, uint64_t fsid, uint64_t blkno,
		       const char **why)
{
	const struct disk_header *hdr = data;

	if (le32_get(hdr->magic) != magic)
		*why = "the magic number is not the one expected here";
	else if (le64_get(hdr->fsid) != fsid)
		*why = "the fsid is another volume's";
	else if (le64_get(hdr->blkno) != blkno)
		*why = "the block says that it belongs elsewhere";
	else if (le32_get(hdr->crc) != block_crc(data, size))
		*why = "the checksum is wrong";
	else
		return 0;
	return -EBADMSG;
}

static bool is_what_ref_means(const struct cached *c, struct block_ref ref, uint32_t magic)
{
	const struct disk_header *hdr = c->bl.data;

	return c->bl.seq == ref.seq && le32_get(hdr->magic) == magic;
}

/* Read and verify into a new block of the set; held. */
static int read_block(struct block_set *bs, struct block_ref ref, uint32_t magic,
		      struct block **out)
{
	const struct disk_header *hdr;
	struct cached *c = cached_alloc(bs);
	const char *why;
	int ret;

	if (!c)
		return -ENOMEM;
	ret = bs->dev.read(bs->dev.arg, ref.blkno, c->bl.data);
	if (ret < 0)
		goto err;
	hdr = c->bl.data;
	if (block_header_check(c->bl.data, LARGE_SIZE, magic, bs->fsid, ref.blkno, &why) < 0 ||
	    le64_get(hdr->seq) != ref.seq) {
		ret = -ESTALE;
		goto err;
	}
	c->bl.blkno = ref.blkno;
	c->bl.seq = ref.seq;
	c->holds = 1;
	bs->held_nr++;
	table_add(bs, c);
	*out = &c->bl;
	return 0;
err:
	cached_free(bs, c);
	return ret;
}

int block_get(struct block_set *bs, struct block_ref ref, uint32_t magic, struct block **out)
{
	struct cached *c;

	*out = NULL;
	if (!blkno_is_valid(bs, ref.blkno))
		return -EINVAL;
	c = table_find(bs, ref.blkno);
	if (c && is_what_ref_means(c, ref, magic)) {
		set_hold(bs, c);
		*out = &c->bl;
		return 0;
	}
	/* Only a reader with roots older than this transaction can mean something else. */
	if (c && c->bl.dirty)
		return -ESTALE;
	if (c)
		set_drop(bs, c);
	return read_block(bs, ref, magic, out);
}

void block_put(struct block_set *bs, struct block *bl)
{
	struct cached *c;

	if (!bl)
		return;
	c = cached_of_block(bl);
	assert(c->holds > 0);
	assert(bs->held_nr > 0);
	bs->held_nr--;
	if (--c->holds > 0)
		return;
	if (!c->in_set) {
		cached_free(bs, c);
	} else if (!c->bl.dirty) {
		link_add_tail(&bs->lru, &c->link);
		bs->lru_nr++;
		set_trim(bs);
	}
}

/* Whether a dirty block may be made at blkno; an old clean one there is forgotten. */
static int claim_blkno(struct block_set *bs, uint64_t blkno)
{
	struct cached *c;

	if (!blkno_is_valid(bs, blkno))
		return -EUCLEAN;
	c = table_find(bs, blkno);
	if (c && c->bl.dirty)
		return -EUCLEAN;
	if (c)
		set_drop(bs, c);
	return 0;
}

/*
 * Take a blkno for a new dirty block and give old_blkno back (0: there is none).  What the caller
 * needs of memory it has by now, so what follows cannot fail.
 */
static int take_blkno(struct block_set *bs, struct blkno_alloc *al, uint64_t old_blkno,
		      uint64_t *blkno)
{
	int ret = al->alloc(al->arg, blkno);

	if (ret < 0)
		return ret;
	ret = *blkno == old_blkno ? -EUCLEAN : claim_blkno(bs, *blkno);
	if (ret < 0)
		return ret;
	if (old_blkno) {
		ret = al->free(al->arg, old_blkno);
		if (ret < 0)
			(void)al->free(al->arg, *blkno);
	}
	return ret;
}

/*
 * Make a held clean block dirty at a blkno from al, or at new_blkno if al is NULL.  The hold on
 * *held becomes one on the dirty block; on error it stays as it was.
 */
static int dirty_held(struct block_set *bs, struct blkno_alloc *al, uint64_t new_blkno,
		      struct block_ref *ref, struct block **held)
{
	struct block *bl = *held;
	struct cached *c = cached_of_block(bl), *copy = NULL;
	const struct disk_header *hdr = bl->data;
	const uint32_t magic = le32_get(hdr->magic);
	int ret;

	assert(bl->blkno == ref->blkno);
	assert(bl->seq == ref->seq);
	if (bl->dirty)
		return 0;
	if (c->holds > 1) {
		copy = cached_alloc(bs);
		if (!copy)
			return -ENOMEM;
		memcpy(copy->bl.data, bl->data, LARGE_SIZE);
		copy->bl.checked = bl->checked;
		copy->holds = 1;
		bs->held_nr++;
	}
	if (al)
		ret = take_blkno(bs, al, ref->blkno, &new_blkno);
	else
		ret = new_blkno == ref->blkno ? -EUCLEAN : claim_blkno(bs, new_blkno);
	if (ret < 0)
		goto err;

	if (copy) {
		block_put(bs, bl);
		c = copy;
	} else if (c->in_set) {
		table_del(bs, c);
	}
	c->bl.blkno = new_blkno;
	c->bl.seq = bs->dev.random(bs->dev.arg);
	block_header_init(c->bl.data, magic, bs->fsid, c->bl.seq, new_blkno);
	table_add(bs, c);
	set_make_dirty(bs, c);
	*ref = (struct block_ref){ c->bl.blkno, c->bl.seq };
	*held = &c->bl;
	return 0;
err:
	if (copy)
		block_put(bs, &copy->bl);
	return ret;
}

static int dirty_block(struct block_set *bs, struct blkno_alloc *al, uint64_t new_blkno,
		       struct block_ref *ref, uint32_t magic, struct block **out)
{
	int ret = block_get(bs, *ref, magic, out);

	if (ret < 0)
		return ret;
	ret = dirty_held(bs, al, new_blkno, ref, out);
	if (ret < 0) {
		block_put(bs, *out);
		*out = NULL;
	}
	return ret;
}

int block_dirty_held(struct block_set *bs, struct blkno_alloc *al, struct block_ref *ref,
		     struct block **held)
{
	return dirty_held(bs, al, 0, ref, held);
}

int block_dirty(struct block_set *bs, struct blkno_alloc *al, struct block_ref *ref, uint32_t magic,
		struct block **out)
{
	return dirty_block(bs, al, 0, ref, magic, out);
}

int block_dirty_at(struct block_set *bs, uint64_t new_blkno, struct block_ref *ref, uint32_t magic,
		   struct block **out)
{
	return dirty_block(bs, NULL, new_blkno, ref, magic, out);
}

static int new_block(struct block_set *bs, struct blkno_alloc *al, uint64_t new_blkno,
		     uint32_t magic, struct block_ref *ref, struct block **out)
{
	struct cached *c = cached_alloc(bs);
	int ret;

	*out = NULL;
	if (!c)
		return -ENOMEM;
	ret = al ? take_blkno(bs, al, 0, &new_blkno) : claim_blkno(bs, new_blkno);
	if (ret < 0) {
		cached_free(bs, c);
		return ret;
	}
	memset(c->bl.data, 0, LARGE_SIZE);
	c->bl.blkno = new_blkno;
	c->bl.seq = bs->dev.random(bs->dev.arg);
	block_header_init(c->bl.data, magic, bs->fsid, c->bl.seq, new_blkno);
	c->holds = 1;
	bs->held_nr++;
	table_add(bs, c);
	set_make_dirty(bs, c);
	*ref = (struct block_ref){ c->bl.blkno, c->bl.seq };
	*out = &c->bl;
	return 0;
}

int block_new(struct block_set *bs, struct blkno_alloc *al, uint32_t magic, struct block_ref *ref,
	      struct block **out)
{
	return new_block(bs, al, 0, magic, ref, out);
}

int block_new_at(struct block_set *bs, uint64_t new_blkno, uint32_t magic, struct block_ref *ref,
		 struct block **out)
{
	return new_block(bs, NULL, new_blkno, magic, ref, out);
}

int block_free(struct block_set *bs, struct blkno_alloc *al, struct block_ref ref)
{
	struct cached *c;
	int ret;

	if (!blkno_is_valid(bs, ref.blkno))
		return -EINVAL;
	c = table_find(bs, ref.blkno);
	if (c && c->bl.dirty && c->bl.seq != ref.seq)
		return -EUCLEAN;
	assert(!c || !c->bl.dirty || c->holds == 0);
	ret = al->free(al->arg, ref.blkno);
	if (ret < 0)
		return ret;
	c = table_find(bs, ref.blkno);
	if (c)
		set_drop(bs, c);
	return 0;
}

size_t block_set_dirty_nr(const struct block_set *bs)
{
	return bs->dirty_nr;
}

size_t block_set_clean_nr(const struct block_set *bs)
{
	return bs->blocks_nr - bs->dirty_nr;
}

static int cmp_blkno(const void *a, const void *b)
{
	const struct block_write *x = a, *y = b;

	return (x->blkno > y->blkno) - (x->blkno < y->blkno);
}

int block_set_gather(struct block_set *bs, struct block_write **out, size_t *nr)
{
	struct block_write *writes = calloc(bs->dirty_nr ? bs->dirty_nr : 1, sizeof(*writes));

	if (!writes)
		return -ENOMEM;
	*nr = 0;
	for (struct link *l = bs->dirty.next; l != &bs->dirty; l = l->next) {
		struct cached *c = cached_of_link(l);
		struct disk_header *hdr = c->bl.data;

		hdr->crc = le32_of(block_crc(c->bl.data, LARGE_SIZE));
		writes[(*nr)++] = (struct block_write){ c->bl.blkno, c->bl.data };
	}
	assert(*nr == bs->dirty_nr);
	qsort(writes, *nr, sizeof(*writes), cmp_blkno);
	*out = writes;
	return 0;
}

void block_set_written(struct block_set *bs)
{
	while (bs->dirty.next != &bs->dirty) {
		struct cached *c = cached_of_link(bs->dirty.next);

		link_del(&c->link);
		bs->dirty_nr--;
		c->bl.dirty = false;
		if (c->holds == 0) {
			link_add_tail(&bs->lru, &c->link);
			bs->lru_nr++;
		}
	}
	set_trim(bs);
}

int block_set_write(struct block_set *bs)
{
	struct block_write *writes;
	size_t nr;
	int ret;

	if (bs->dirty_nr == 0)
		return 0;
	ret = block_set_gather(bs, &writes, &nr);
	if (ret < 0)
		return ret;
	for (size_t done = 0; done < nr && ret == 0; done += WRITE_BATCH) {
		size_t batch = nr - done < WRITE_BATCH ? nr - done : WRITE_BATCH;

		ret = bs->dev.write(bs->dev.arg, writes + done, batch);
	}
	free(writes);
	if (ret == 0)
		block_set_written(bs);
	return ret;
}

void block_set_abort(struct block_set *bs)
{
	while (bs->dirty.next != &bs->dirty)
		set_drop(bs, cached_of_link(bs->dirty.next));
}
