/*
 * A volume's metadata in memory, for tests of what stands on trees: a device, a block set over it,
 * and an allocator that refuses a double free and a reuse within a transaction (memdev.h).
 */
#ifndef SCOUTFS_TEST_RIG_H
#define SCOUTFS_TEST_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "btree/btree.h"
#include "memdev.h"

#define RIG_FSID 0x1122334455667788ull

struct rig {
	struct memdev dev;
	struct memalloc ma;
	struct block_set *bs;
	struct blkno_alloc al;
	uint64_t first, total;
};

static inline uint64_t rnd_below(uint64_t *seed, uint64_t n)
{
	return test_random(seed) % n;
}

/* SEED of the environment or the test's own; printed, so that a failure can be repeated. */
static inline uint64_t rig_seed(uint64_t otherwise)
{
	uint64_t seed = test_env("SEED", otherwise);

	print_message("SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static inline unsigned rig_rounds(unsigned otherwise)
{
	return (unsigned)test_env("ROUNDS", otherwise);
}

static inline void rig_open_cache(struct rig *r, size_t clean_max)
{
	assert_int_equal(block_set_open(&r->bs, &r->dev.dev, RIG_FSID, r->total, clean_max), 0);
}

/* r->al gives blknos from `first` on; those below are the test's to hand out. */
static inline void rig_open(struct rig *r, uint64_t first, uint64_t total)
{
	memdev_init(&r->dev, 1);
	memalloc_init(&r->ma, total);
	memset(r->ma.now, MEMALLOC_USED, first);
	r->ma.cursor = first;
	r->al = r->ma.al;
	r->first = first;
	r->total = total;
	rig_open_cache(r, 64);
}

/* How many blocks r->al has given and not got back. */
static inline uint64_t rig_used_nr(const struct rig *r)
{
	uint64_t nr = 0;

	for (uint64_t b = r->first; b < r->total; b++)
		nr += r->ma.now[b] == MEMALLOC_USED;
	return nr;
}

/* Write what is dirty; what was freed may be used again. */
static inline void rig_commit(struct rig *r)
{
	assert_int_equal(block_set_write(r->bs), 0);
	memalloc_commit(&r->ma);
}

/* Forget everything cached, as another process would come to the volume. */
static inline void rig_reopen(struct rig *r, size_t clean_max)
{
	block_set_close(r->bs);
	rig_open_cache(r, clean_max);
}

static inline void rig_close(struct rig *r)
{
	block_set_close(r->bs);
	memdev_fini(&r->dev);
	memalloc_fini(&r->ma);
}

#endif
