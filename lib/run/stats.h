/*
 * Counters from one table (style.md 9):
 *
 *	#define THING_STATS(C) C(lookups, "Look-ups") C(misses, "Look-ups that found nothing")
 *	STATS_STRUCT(thing_stats, THING_STATS);			in a header
 *	STATS_DESCS(thing_stats, THING_STATS);			in the .c that shows them
 *
 * A counter is changed and read by any thread; readers may see them a moment apart.
 */
#ifndef SCOUTFS_STATS_H
#define SCOUTFS_STATS_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t stats_counter;

struct stats_desc {
	const char *name;
	const char *text;
};

#define STATS_FIELD(name, text) stats_counter name;
#define STATS_DESC(name, text) { #name, text },

/* The struct: one counter an entry, in the table's order. */
#define STATS_STRUCT(type, TABLE) struct type { TABLE(STATS_FIELD) }
/* `static const struct stats_desc TYPE_descs[]`, of as many entries as the struct has counters. */
#define STATS_DESCS(type, TABLE)								\
	static const struct stats_desc type##_descs[] = { TABLE(STATS_DESC) };			\
	static_assert(sizeof(type##_descs) / sizeof(type##_descs[0]) ==				\
		      sizeof(struct type) / sizeof(stats_counter), "a struct of counters only")
#define STATS_NR(type) (sizeof(struct type) / sizeof(stats_counter))

static inline void stats_add(stats_counter *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static inline void stats_inc(stats_counter *c)
{
	stats_add(c, 1);
}

static inline uint64_t stats_get(const stats_counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

/* Counter number i of a STATS_STRUCT. */
static inline uint64_t stats_get_nth(const void *stats, size_t i)
{
	return stats_get((const stats_counter *)stats + i);
}

#endif
