/* What items.c and items_range.c share. */
#ifndef SCOUTFS_FSD_ITEMS_IMPL_H
#define SCOUTFS_FSD_ITEMS_IMPL_H

#include <string.h>

#include "items.h"

/* Keys of TABLE_ITEMS are padded and values rounded up, so that LMDB keeps both on 8-byte
 * boundaries. */
#define ITEM_KEY_BYTES	32u
#define ITEM_REC_ALIGN	8u
#define ITEM_CACHED_MAX	1024u	/* of a value as cached; on the devices it is ITEM_VAL_MAX */
static_assert(sizeof(struct item_rec) == 16, "values begin aligned");
static_assert(ITEM_VAL_MAX <= ITEM_CACHED_MAX, "every item fits");

struct ikey {
	uint8_t b[ITEM_KEY_BYTES];
};

static inline struct ikey ikey_of(const struct key *key)
{
	struct ikey k = { { 0 } };

	key_to_sortable(key, k.b);
	return k;
}

#define ITEMS_DROPS_NR		256u
#define ITEMS_RECENT_NR		262144u
#define ITEMS_SNAPSHOTS_IDLE	32u
#define ITEMS_DIRTY_ROW		64u	/* keys in a row of TABLE_DIRTY, at most */
#define ITEMS_DIRTY_TAKE	512u
#define ITEMS_DIRTY_DROP	512u	/* rows in one transaction */
#define ITEMS_NAMES_PART	8u	/* of the map's size, beside it: names.c */

/* Percent of the map: eviction begins, eviction ends, operations wait for room. */
#define ITEMS_HIGH_PERCENT	75u
#define ITEMS_LOW_PERCENT	65u
#define ITEMS_FULL_PERCENT	90u

struct gens {
	uint64_t open;
	uint64_t committed;
};

struct dirty_count {
	_Atomic uint64_t bytes, nr, dlog_nr;
	atomic_bool any;
};

struct items {
	MDB_env *env;
	MDB_dbi dbi[TABLES_NR];
	size_t map_bytes;
	size_t page_bytes;

	pthread_mutex_t writer;		/* one write transaction at a time; what follows is its */
	struct gens gens;
	uint64_t evicted_gen;		/* committed_gen when something was last evicted */
	uint64_t freed_gen;		/* open_gen when data blocks were last given back */
	uint64_t drops[ITEMS_DROPS_NR];	/* by hash of a lock: how often its items were dropped */
	unsigned used_age;
	unsigned noted_nr;		/* keys that the running transaction has dirtied */
	uint8_t noted[ITEMS_DIRTY_ROW][KEY_SORT_BYTES];

	_Atomic uint64_t open_gen;	/* gens.open, for who does not write */
	_Atomic uint64_t used;		/* bytes of pages in tables, as of a moment ago */
	_Atomic int64_t davail;
	struct dirty_count dirty[2];	/* by generation & 1 */
	/* By hash of an inode and a type: looked up since the hand came by. */
	_Atomic uint8_t recent[ITEMS_RECENT_NR];

	pthread_mutex_t idle_lock;
	MDB_txn *idle[ITEMS_SNAPSHOTS_IDLE];
	unsigned idle_nr;

	struct names *names;		/* locks itself */

	pthread_mutex_t evict_lock;
	struct key hand;
};

static inline size_t items_drop_hash(const struct key *lock_start)
{
	return (size_t)((lock_start->first >> 10) + lock_start->zone * 37u +
			(lock_start->second >> 10)) %
	       ITEMS_DROPS_NR;
}

static inline size_t items_recent_hash(const struct key *key)
{
	uint64_t what = key->first * 64u + key->zone * 7919u + key->type;

	return (size_t)(what * 0x9e3779b97f4a7c15ull >> 46);
}
static_assert(ITEMS_RECENT_NR == 1u << 18, "18 bits of hash");

static inline MDB_val mval(const void *p, size_t len)
{
	return (MDB_val){ .mv_size = len, .mv_data = (void *)p };
}

/* Whether key is inside a known interval, and which: 1, 0, or an error of items_error. */
int range_find(struct itx *tx, const struct key *key, struct key *first, struct key *last);
/* Make [first, last] known, joined with what it touches; or unknown. */
int range_add(struct itx *tx, const struct key *first, const struct key *last);
int range_remove(struct itx *tx, const struct key *first, const struct key *last);

/* The record of a key: 1 with *rec, 0, or an error of items_error. */
int rec_get(struct itx *tx, const struct key *key, const struct item_rec **rec);
/* The first record >= key (cursor mc), 1 with *at and *rec, 0. */
int rec_seek(struct itx *tx, MDB_cursor *mc, const struct key *key, struct key *at,
	     const struct item_rec **rec);
int rec_step(struct itx *tx, MDB_cursor *mc, MDB_cursor_op how, struct key *at,
	     const struct item_rec **rec);
int rec_put(struct itx *tx, const struct key *key, uint64_t mark, uint8_t flags, const void *val,
	    size_t len);
/* Write or delete the record that rec_get has just found, which is not looked for again. */
int rec_put_found(struct itx *tx, const struct key *key, uint64_t mark, uint8_t flags, const void *val,
		  size_t len);
int rec_del_found(struct itx *tx);
int items_cursor(struct itx *tx, enum items_table table, MDB_cursor **mc);
/* The transaction's own cursor of TABLE_ITEMS or TABLE_RANGES: stays open, stands anywhere. */
int items_near(struct itx *tx, enum items_table table, MDB_cursor **mc);
/*
 * Which keys are dirty.  dirty_note: key is, in the open generation.  dirty_flush: before tx is committed.
 * Errors of items_error.
 */
int dirty_note(struct itx *tx, const struct key *key);
int dirty_flush(struct itx *tx);
/*
 * The keys that generation gen has written, ascending, for the caller to free.  Their items may be gone, or
 * another generation's.  -ENOMEM.
 */
int items_dirty_list(struct itx *tx, uint64_t gen, struct key **keys, size_t *nr);
/* Take some of those of all generations up to gen off the list, ascending; none: *nr is 0. */
int items_dirty_take(struct itx *tx, uint64_t gen, struct key keys[ITEMS_DIRTY_TAKE], size_t *nr);
/* Take some of those of generation gen off the list without looking at them; *done: all are. */
int items_dirty_drop(struct itx *tx, uint64_t gen, bool *done);
/* Whether operations should wait for room. */
bool items_is_full(struct items *is);
/* Measure what the tables use, in tx. */
void items_measure(struct itx *tx);

#endif
