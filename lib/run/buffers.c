/*
 * Buffers of 64 KiB for metadata blocks, apart from what malloc gives.
 *
 * Promises: whatever is put is used for the next get, by any set of any thread, or goes back to the system at once;
 * at most BUFFERS_SPARE_MAX are kept.  So the memory of blocks is that of those in use, and 2 MiB.
 *
 * Why: malloc(3) cuts an aligned block out of a larger piece and leaves a remainder on both sides, in which small
 * things settle, and keeps what is freed for the arena of the thread that had it.  A daemon whose caches stay the
 * same size grew by a third and more so, and what a merge or a walk had used stayed.
 */
#include "buffers.h"

#include <pthread.h>
#include <sys/mman.h>

/* At the start of each spare one. */
struct spare {
	struct spare *next;
};

static struct {
	pthread_mutex_t lock;
	struct spare *spares;
	size_t spares_nr, used_nr;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *pool_get(void)
{
	struct spare *s;
	void *buf;

	pthread_mutex_lock(&pool.lock);
	s = pool.spares;
	if (s) {
		pool.spares = s->next;
		pool.spares_nr--;
		pool.used_nr++;
	}
	pthread_mutex_unlock(&pool.lock);
	if (s)
		return s;
	/* All of it is going to be written: no fault for each page. */
	buf = mmap(NULL, LARGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED)
		return NULL;
	pthread_mutex_lock(&pool.lock);
	pool.used_nr++;
	pthread_mutex_unlock(&pool.lock);
	return buf;
}

static void keep(void *buf)
{
	struct spare *s = buf;

	s->next = pool.spares;
	pool.spares = s;
	pool.spares_nr++;
}

static void pool_put(void *buf)
{
	bool is_kept;

	if (!buf)
		return;
	pthread_mutex_lock(&pool.lock);
	pool.used_nr--;
	is_kept = pool.spares_nr < BUFFERS_SPARE_MAX;
	if (is_kept)
		keep(buf);
	pthread_mutex_unlock(&pool.lock);
	if (is_kept || munmap(buf, LARGE_SIZE) == 0)
		return;
	/* The system has no room to note the hole: its memory is given back, the address stays with us. */
	madvise(buf, LARGE_SIZE, MADV_DONTNEED);
	pthread_mutex_lock(&pool.lock);
	keep(buf);
	pthread_mutex_unlock(&pool.lock);
}

const struct block_buffers buffers_pool = { pool_get, pool_put };

void buffers_count(size_t *used, size_t *spare)
{
	pthread_mutex_lock(&pool.lock);
	*used = pool.used_nr;
	*spare = pool.spares_nr;
	pthread_mutex_unlock(&pool.lock);
}
