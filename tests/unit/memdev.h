/*
 * For unit tests of what lies on struct block_set: a metadata device in memory with faults on
 * demand, and an allocator of block numbers that knows each one's state.
 */
#ifndef SCOUTFS_TEST_MEMDEV_H
#define SCOUTFS_TEST_MEMDEV_H

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "btree/block.h"

/* splitmix64: enough for tests, the same everywhere. */
static inline uint64_t test_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* NAME from the environment, or a default: for seeds and numbers of rounds. */
static inline uint64_t test_env(const char *name, uint64_t otherwise)
{
	const char *val = getenv(name);

	return val && *val ? strtoull(val, NULL, 0) : otherwise;
}

/*
 * Blocks exist once written; others read as zeros.  Faults: fail_reads_after = N lets N more reads
 * succeed and fails all later ones with read_err; likewise writes (counted in blocks, so a batch
 * may be written in part).  -1: no fault.  on_read may change what a read returns, or fail it.
 */
struct memdev {
	struct block_dev dev;		/* hand &md->dev to block_set_open */
	uint8_t **blocks;
	size_t blocks_nr;
	uint64_t rng;
	uint64_t reads;
	uint64_t writes;
	int64_t fail_reads_after;
	int64_t fail_writes_after;
	int read_err;
	int write_err;
	int (*on_read)(void *arg, uint64_t blkno, void *buf);
	void *on_read_arg;
};

/* The bytes of a block on the device, made if need be. */
static inline uint8_t *memdev_at(struct memdev *md, uint64_t blkno)
{
	if (blkno >= md->blocks_nr) {
		size_t nr = blkno < 64 ? 128 : (size_t)blkno * 2;

		md->blocks = realloc(md->blocks, nr * sizeof(*md->blocks));
		assert(md->blocks);
		memset(md->blocks + md->blocks_nr, 0, (nr - md->blocks_nr) * sizeof(*md->blocks));
		md->blocks_nr = nr;
	}
	if (!md->blocks[blkno]) {
		md->blocks[blkno] = calloc(1, LARGE_SIZE);
		assert(md->blocks[blkno]);
	}
	return md->blocks[blkno];
}

static inline int memdev_read(void *arg, uint64_t blkno, void *buf)
{
	struct memdev *md = arg;

	__atomic_fetch_add(&md->reads, 1, __ATOMIC_RELAXED);	/* check reads from two threads */
	if (md->fail_reads_after == 0)
		return md->read_err;
	if (md->fail_reads_after > 0)
		md->fail_reads_after--;
	if (blkno < md->blocks_nr && md->blocks[blkno])
		memcpy(buf, md->blocks[blkno], LARGE_SIZE);
	else
		memset(buf, 0, LARGE_SIZE);
	return md->on_read ? md->on_read(md->on_read_arg, blkno, buf) : 0;
}

static inline int memdev_write(void *arg, const struct block_write *w, size_t nr)
{
	struct memdev *md = arg;

	for (size_t i = 0; i < nr; i++) {
		if (md->fail_writes_after == 0)
			return md->write_err;
		if (md->fail_writes_after > 0)
			md->fail_writes_after--;
		memcpy(memdev_at(md, w[i].blkno), w[i].data, LARGE_SIZE);
		md->writes++;
	}
	return 0;
}

static inline uint64_t memdev_random(void *arg)
{
	struct memdev *md = arg;

	return test_random(&md->rng);
}

static inline void memdev_init(struct memdev *md, uint64_t seed)
{
	*md = (struct memdev){
		.dev = { .arg = md, .read = memdev_read, .write = memdev_write,
			 .random = memdev_random },
		.rng = seed,
		.fail_reads_after = -1,
		.fail_writes_after = -1,
		.read_err = -EIO,
		.write_err = -EIO,
	};
}

static inline void memdev_fini(struct memdev *md)
{
	for (size_t i = 0; i < md->blocks_nr; i++)
		free(md->blocks[i]);
	free(md->blocks);
	md->blocks = NULL;
	md->blocks_nr = 0;
}

/*
 * An allocator over blknos 2..total-1.  What is freed cannot be allocated before memalloc_commit,
 * as 9.8 demands; memalloc_abort goes back to the last commit.  Freeing what is not in use is an
 * assertion.
 * budget: how many allocations still succeed, -1 for any number; free_budget likewise.
 */
enum memalloc_state { MEMALLOC_FREE, MEMALLOC_USED, MEMALLOC_PENDING };

struct memalloc {
	struct blkno_alloc al;		/* hand &ma->al to trees */
	uint8_t *now;
	uint8_t *committed;
	uint64_t total;
	uint64_t cursor;
	int64_t budget;
	int64_t free_budget;
};

static inline int memalloc_alloc(void *arg, uint64_t *blkno)
{
	struct memalloc *ma = arg;

	if (ma->budget == 0)
		return -ENOSPC;
	for (uint64_t i = 0; i < ma->total; i++) {
		uint64_t at = (ma->cursor + i) % ma->total;

		if (at < META_FIRST_BLKNO || ma->now[at] != MEMALLOC_FREE)
			continue;
		ma->now[at] = MEMALLOC_USED;
		ma->cursor = at + 1;
		if (ma->budget > 0)
			ma->budget--;
		*blkno = at;
		return 0;
	}
	return -ENOSPC;
}

static inline int memalloc_free(void *arg, uint64_t blkno)
{
	struct memalloc *ma = arg;

	if (ma->free_budget == 0)
		return -ENOSPC;
	if (ma->free_budget > 0)
		ma->free_budget--;
	assert(blkno >= META_FIRST_BLKNO && blkno < ma->total);
	assert(ma->now[blkno] == MEMALLOC_USED);
	ma->now[blkno] = MEMALLOC_PENDING;
	return 0;
}

static inline void memalloc_init(struct memalloc *ma, uint64_t total)
{
	*ma = (struct memalloc){
		.al = { .arg = ma, .alloc = memalloc_alloc, .free = memalloc_free },
		.now = calloc(1, total),
		.committed = calloc(1, total),
		.total = total,
		.budget = -1,
		.free_budget = -1,
	};
	assert(ma->now && ma->committed);
}

static inline void memalloc_fini(struct memalloc *ma)
{
	free(ma->now);
	free(ma->committed);
}

static inline void memalloc_commit(struct memalloc *ma)
{
	for (uint64_t i = 0; i < ma->total; i++)
		if (ma->now[i] == MEMALLOC_PENDING)
			ma->now[i] = MEMALLOC_FREE;
	memcpy(ma->committed, ma->now, ma->total);
}

static inline void memalloc_abort(struct memalloc *ma)
{
	memcpy(ma->now, ma->committed, ma->total);
}

static inline uint64_t memalloc_used_nr(const struct memalloc *ma)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < ma->total; i++)
		nr += ma->now[i] == MEMALLOC_USED;
	return nr;
}

#endif
