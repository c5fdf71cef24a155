/*
 * lib/run/buffers.c: blocks of any number of sets and threads, with small things allocated between them, give their
 * memory back when they go.  services/fsd/blocks.h: what a mount keeps of blocks follows cache_size.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../services/fsd/blocks.h"
#include "buffers.h"

#define MANY	1024u		/* 64 MiB */
#define THREADS	4u

/* Of this process, that no file is behind. */
static size_t anon_bytes(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "RssAnon: %lu", &kib) == 1)
			break;
	}
	fclose(f);
	assert_int_not_equal(kib, 0);
	return (size_t)kib << 10;
}

static void buffers_are_apart_and_used_again(void **state)
{
	uint8_t *buf[MANY / 8];
	size_t used, spare, again;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < MANY / 8; i++) {
			buf[i] = buffers_pool.get();
			assert_non_null(buf[i]);
			assert_int_equal((uintptr_t)buf[i] % 4096, 0);
			memset(buf[i], (int)i, LARGE_SIZE);
		}
		buffers_count(&used, &spare);
		assert_int_equal(used, MANY / 8);
		assert_int_equal(spare, 0);
		for (unsigned i = 0; i < MANY / 8; i++) {
			assert_int_equal(buf[i][0], i);
			assert_int_equal(buf[i][LARGE_SIZE - 1], i);
			buffers_pool.put(buf[i]);
		}
		buffers_count(&used, &again);
		assert_int_equal(used, 0);
		assert_int_equal(again, BUFFERS_SPARE_MAX);
	}
	buffers_pool.put(NULL);
	buffers_count(&used, &spare);
	assert_int_equal(used, 0);
	assert_int_equal(spare, BUFFERS_SPARE_MAX);
}

/* Blocks as a set has them: each with something small beside it, of which every other stays. */
static void *use_many(void *arg)
{
	void **small = arg, *buf[MANY / THREADS];

	for (unsigned i = 0; i < MANY / THREADS; i++) {
		small[2 * i] = malloc(96);
		buf[i] = buffers_pool.get();
		small[2 * i + 1] = malloc(1000);
		if (buf[i])
			memset(buf[i], 1, LARGE_SIZE);
	}
	for (unsigned i = 0; i < MANY / THREADS; i++) {
		buffers_pool.put(buf[i]);
		free(small[2 * i]);
		small[2 * i] = NULL;
	}
	return NULL;
}

static void memory_goes_back_to_the_system(void **state)
{
	static void *small[THREADS][2 * MANY / THREADS];
	size_t before, after, used, spare;
	pthread_t threads[THREADS];

	(void)state;
	before = anon_bytes();
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_many, small[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	after = anon_bytes();
	buffers_count(&used, &spare);
	assert_int_equal(used, 0);
	assert_int_equal(spare, BUFFERS_SPARE_MAX);
	/* the spare ones, and what the small things and their arenas take */
	if (after > before + BUFFERS_SPARE_MAX * LARGE_SIZE + (8u << 20))
		fail_msg("%zu KiB before, %zu KiB after %u blocks have come and gone", before >> 10, after >> 10, MANY);
	for (unsigned i = 0; i < THREADS; i++) {
		for (unsigned j = 0; j < 2 * MANY / THREADS; j++)
			free(small[i][j]);
	}
}

static void clean_blocks_of_a_mount_follow_cache_size(void **state)
{
	static struct fsd fsd;
	static const struct {
		uint64_t cache_size;
		unsigned part;
		size_t most, expected;
	} v[] = {
		{ 8u << 20, 2, 512, BLOCKS_CLEAN_MIN },
		{ 16u << 20, 2, 512, 128 },
		{ 16u << 20, 4, 256, BLOCKS_CLEAN_MIN },
		{ 48u << 20, 4, 256, 192 },
		{ 64u << 20, 2, 512, 512 },
		{ 1ull << 40, 2, 512, 512 },
		{ 1ull << 40, 1, 1u << 30, 1u << 24 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		fsd.conf.cache_size = v[i].cache_size;
		assert_int_equal(blocks_clean_max(&fsd, v[i].part, v[i].most), v[i].expected);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_are_apart_and_used_again),
		cmocka_unit_test(memory_goes_back_to_the_system),
		cmocka_unit_test(clean_blocks_of_a_mount_follow_cache_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
