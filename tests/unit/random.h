/* For tests that try many things from one seed: numbers that depend on nothing else, and the environment's wishes. */
#ifndef SCOUTFS_TEST_RANDOM_H
#define SCOUTFS_TEST_RANDOM_H

#include <stdint.h>
#include <stdlib.h>

static uint64_t rng;	/* never 0 */

/* Below n; n 0: any. */
static inline uint64_t rnd(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return n ? rng % n : rng;
}

static inline uint64_t env(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v ? strtoull(v, NULL, 0) : otherwise;
}

#endif
