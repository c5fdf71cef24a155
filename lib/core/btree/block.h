/*
 * A set of 64 KiB metadata blocks in memory: a bounded cache of verified clean blocks, and the
 * dirty blocks of at most one transaction.  format.md 3.4, 9.8; runtime.md 6.5.
 *
 * Pure: reading, writing and randomness come from struct block_dev.  A set belongs to one thread at
 * a time; the callbacks may block.  Clean blocks that nobody holds are dropped, oldest use first,
 * when there are more than clean_max of them.  Dirty blocks stay until block_set_write or _abort.
 */
#ifndef SCOUTFS_BLOCK_H
#define SCOUTFS_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/format.h"

struct block_set;

/* A block reference in host order; blkno 0 is "no block". */
struct block_ref {
	uint64_t blkno;
	uint64_t seq;
};

static inline struct block_ref block_ref_get(const struct disk_block_ref *d)
{
	return (struct block_ref){ le64_get(d->blkno), le64_get(d->seq) };
}
static inline struct disk_block_ref block_ref_put(struct block_ref r)
{
	return (struct disk_block_ref){ le64_of(r.blkno), le64_of(r.seq) };
}

/*
 * A block somebody holds.  data is LARGE_SIZE bytes, aligned to 4096; readers must not write to it.
 * `checked` is for the module that owns the magic: false whenever the bytes came from the device,
 * and true once that module found their structure right, so that it need not look again.
 */
struct block {
	uint64_t blkno;
	uint64_t seq;
	void *data;
	bool dirty;
	bool checked;
};

struct block_write {
	uint64_t blkno;		/* large */
	const void *data;	/* LARGE_SIZE bytes, crc set */
};

/* What the set needs of the world.  Each returns 0 or -errno. */
struct block_dev {
	void *arg;
	int (*read)(void *arg, uint64_t blkno, void *buf);
	/* Write all, in any order; done when they are written, not when they are durable. */
	int (*write)(void *arg, const struct block_write *w, size_t nr);
	uint64_t (*random)(void *arg);
};

/* Where a transaction takes blknos from and gives them back (alloc/meta_alloc.h, or a test's). */
struct blkno_alloc {
	void *arg;
	int (*alloc)(void *arg, uint64_t *blkno);	/* -ENOSPC: nothing left */
	int (*free)(void *arg, uint64_t blkno);
};

/* Where the bytes of blocks are kept, LARGE_SIZE each, aligned to 4096.  get() gives NULL when there is no memory. */
struct block_buffers {
	void *(*get)(void);
	void (*put)(void *buf);
};

/* total_meta_blocks bounds the blknos a reference may name.  -ENOMEM. */
int block_set_open(struct block_set **out, const struct block_dev *dev, uint64_t fsid,
		   uint64_t total_meta_blocks, size_t clean_max);
void block_set_close(struct block_set *bs);
/* Before the set has any block: take their bytes from b, which outlives the set, instead of malloc. */
void block_set_use_buffers(struct block_set *bs, const struct block_buffers *b);
/* The total_meta_blocks it was opened with. */
uint64_t block_set_total_blocks(const struct block_set *bs);

/*
 * Hold the block that ref names, read and verified (3.4).  A clean copy with another seq is dropped
 * and the device is read once.  -ESTALE: what is there is not what ref means; -EIO from the device;
 * -EINVAL: ref is out of range.  block_put() it.
 */
int block_get(struct block_set *bs, struct block_ref ref, uint32_t magic, struct block **out);
void block_put(struct block_set *bs, struct block *bl);

/*
 * Make the block that *ref names writable in this transaction (9.8): a block already dirty is held
 * as it is; else it is copied to a new blkno from al, the old one is freed to al, and *ref changes.
 * Whoever holds the old block keeps reading its old bytes.  Errors as block_get, plus al's, plus
 * -EUCLEAN: al gave a blkno that is out of range or dirty already.  On error nothing has changed,
 * but that al may have taken a new blkno which it was given back at once.
 */
int block_dirty(struct block_set *bs, struct blkno_alloc *al, struct block_ref *ref, uint32_t magic,
		struct block **out);
/*
 * As block_dirty, for a block that is held already (and so can be checked before it is copied):
 * *held is put and the dirty block held in its stead.  On error *held stays held.
 */
int block_dirty_held(struct block_set *bs, struct blkno_alloc *al, struct block_ref *ref,
		     struct block **held);
/*
 * As block_dirty, but the new blkno is given and the old one is the caller's to free (10.2).  A
 * block that is dirty already stays where it is: then *ref is unchanged and new_blkno still the
 * caller's.
 */
int block_dirty_at(struct block_set *bs, uint64_t new_blkno, struct block_ref *ref, uint32_t magic,
		   struct block **out);
/* A new zeroed dirty block with its header set; held.  -ENOMEM, -EUCLEAN as above, or al's error;
 * on error nothing has changed. */
int block_new(struct block_set *bs, struct blkno_alloc *al, uint32_t magic, struct block_ref *ref,
	      struct block **out);
int block_new_at(struct block_set *bs, uint64_t new_blkno, uint32_t magic, struct block_ref *ref,
		 struct block **out);
/*
 * Free the block to al and forget it (dirty or clean).  Nobody may hold it.  It is not read:
 * -EINVAL for a ref out of range, -EUCLEAN if a dirty block with another seq has that blkno, or
 * al's error.
 */
int block_free(struct block_set *bs, struct blkno_alloc *al, struct block_ref ref);

/* How many blocks are dirty; how many others it keeps, held or not (for tests of what it drops). */
size_t block_set_dirty_nr(const struct block_set *bs);
size_t block_set_clean_nr(const struct block_set *bs);
/* Set crcs and write every dirty block in order of blkno; on 0 they are clean and stay cached.  On
 * error (-ENOMEM or the device's) all stay dirty and the call may be repeated. */
int block_set_write(struct block_set *bs);
/*
 * The same in two steps, for who writes the blocks together with something else: crcs are set and *out, to be
 * freed, lists the nr blocks in order of blkno; once they are written all are clean.  -ENOMEM.
 */
int block_set_gather(struct block_set *bs, struct block_write **out, size_t *nr);
void block_set_written(struct block_set *bs);
/* Forget every dirty block, as if the transaction had never been.  What is still held stays
 * readable until it is put, but is no longer of the set. */
void block_set_abort(struct block_set *bs);

/* Header of any block of `size` bytes (3.1).  _check: 0, or -EBADMSG and *why says it in words. */
void block_header_init(void *data, uint32_t magic, uint64_t fsid, uint64_t seq, uint64_t blkno);
int block_header_check(const void *data, size_t size, uint32_t magic, uint64_t fsid, uint64_t blkno,
		       const char **why);

#endif
