/*
 * What the item cache knows: disjoint intervals of keys, eviction, and what readers bring.
 *
 * Promises: intervals never overlap and never touch (neighbours are joined); every record lies in
 * one. Eviction takes whole stretches of clean items together with the knowledge about them; a
 * dirty item keeps the interval of its own key.  What a reader brings never replaces or contradicts
 * anything that is known, and is refused when it might be older than something the cache has
 * forgotten since.
 *
 * That is the read barrier of runtime.md 6.6, and it is exact in two numbers.  A reader samples the
 * committed generation before it takes its roots: these show at least everything up to it.  What it
 * read can be too old only if an item of a later generation was committed and then evicted, so
 * evictions record the committed generation at their time.  And when a lock's items were dropped
 * meanwhile, another mount may have written: drops are counted per (hash of a) lock.
 *
 * Eviction is a clock: a hand walks the key space, and the items of one type of an inode that was
 * asked for one since the hand's last visit are passed over once.  So a directory's own item stays
 * while its names go.
 */
#include "items.h"

#include <assert.h>
#include <errno.h>

#include "items_impl.h"
#include "log.h"
#include "names.h"
#include "txn.h"

#define EVICT_BATCH	512u	/* records that a stretch of eviction looks at */
#define EVICT_STRETCHES	512u	/* a transaction passes over, or takes, */
#define EVICT_RECORDS	1024u	/* until about so many are gone */
#define DROP_BATCH	1000u

/* ---- intervals ----------------------------------------------------------------------------- */

static void range_get(const MDB_val *mk, const MDB_val *mv, struct key *first, struct key *last)
{
	*first = key_from_sortable(mk->mv_data);
	*last = key_from_sortable(mv->mv_data);
}

/* The last interval that begins at or before key; 1, 0 or an error. */
static int range_le(struct itx *tx, MDB_cursor *mc, const struct key *key, struct key *first,
		    struct key *last)
{
	uint8_t k[KEY_SORT_BYTES];
	MDB_val mk = mval(k, sizeof(k)), mv;
	int rc;

	key_to_sortable(key, k);
	rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE);
	if (rc == 0 && memcmp(mk.mv_data, k, sizeof(k)) != 0)
		rc = mdb_cursor_get(mc, &mk, &mv, MDB_PREV);
	else if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(mc, &mk, &mv, MDB_LAST);
	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return items_error(tx, rc, "known intervals");
	range_get(&mk, &mv, first, last);
	return 1;
}

/* The first interval that begins at or after key. */
static int range_ge(struct itx *tx, MDB_cursor *mc, const struct key *key, struct key *first,
		    struct key *last)
{
	uint8_t k[KEY_SORT_BYTES];
	MDB_val mk = mval(k, sizeof(k)), mv;
	int rc;

	key_to_sortable(key, k);
	rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE);
	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return items_error(tx, rc, "known intervals");
	range_get(&mk, &mv, first, last);
	return 1;
}

int range_find(struct itx *tx, const struct key *key, struct key *first, struct key *last)
{
	MDB_cursor *mc;
	int ret;

	if (tx->has_known && key_cmp(&tx->known_first, key) <= 0 &&
	    key_cmp(key, &tx->known_last) <= 0) {
		*first = tx->known_first;
		*last = tx->known_last;
		return 1;
	}
	ret = items_near(tx, TABLE_RANGES, &mc);
	if (ret < 0)
		return ret;
	ret = range_le(tx, mc, key, first, last);
	if (ret <= 0 || key_cmp(last, key) < 0)
		return ret < 0 ? ret : 0;
	tx->known_first = *first;
	tx->known_last = *last;
	tx->has_known = true;
	return 1;
}

static int range_write(struct itx *tx, const struct key *first, const struct key *last)
{
	uint8_t k[KEY_SORT_BYTES], v[KEY_SORT_BYTES];
	MDB_val mk = mval(k, sizeof(k)), mv = mval(v, sizeof(v));
	MDB_cursor *mc;
	int ret = items_near(tx, TABLE_RANGES, &mc), rc;

	if (ret < 0)
		return ret;
	key_to_sortable(first, k);
	key_to_sortable(last, v);
	tx->changes++;
	tx->has_known = false;
	rc = mdb_cursor_put(mc, &mk, &mv, 0);
	return rc ? items_error(tx, rc, "known intervals") : 0;
}

static int range_erase(struct itx *tx, const struct key *first)
{
	uint8_t k[KEY_SORT_BYTES];
	MDB_val mk = mval(k, sizeof(k)), mv;
	MDB_cursor *mc;
	int ret = items_near(tx, TABLE_RANGES, &mc), rc;

	if (ret < 0)
		return ret;
	key_to_sortable(first, k);
	tx->changes++;
	tx->has_known = false;
	rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET);
	if (!rc)
		rc = mdb_cursor_del(mc, 0);
	return rc ? items_error(tx, rc, "known intervals") : 0;
}

static bool is_zeros(const struct key *k)
{
	return key_eq(k, &KEY_ZEROS);
}

static bool is_ones(const struct key *k)
{
	return key_eq(k, &KEY_ONES);
}

int range_add(struct itx *tx, const struct key *first, const struct key *last)
{
	struct key lo = *first, hi = *last, f, l, at;
	MDB_cursor *mc;
	int ret = items_near(tx, TABLE_RANGES, &mc);

	if (ret < 0)
		return ret;
	assert(key_cmp(first, last) <= 0);
	if (tx->has_known && key_cmp(&tx->known_first, first) <= 0 &&
	    key_cmp(last, &tx->known_last) <= 0)
		return 0;
	ret = range_le(tx, mc, first, &f, &l);
	if (ret > 0) {
		if (key_cmp(&l, last) >= 0)
			return 0;
		at = key_next(l);
		if (key_cmp(&at, first) >= 0)
			lo = f;		/* joined; its record is written below with the new end */
	}
	/* Whatever begins inside, or right behind, goes into the one interval. */
	at = key_next(lo);
	while (ret >= 0 && !is_zeros(&at)) {
		ret = range_ge(tx, mc, &at, &f, &l);
		if (ret <= 0)
			break;
		at = key_prev(f);
		if (key_cmp(&at, &hi) > 0)
			break;
		ret = range_erase(tx, &f);
		if (key_cmp(&l, &hi) > 0)
			hi = l;
		at = key_next(f);
	}
	if (ret >= 0)
		ret = range_write(tx, &lo, &hi);
	if (ret < 0)
		return ret;
	tx->known_first = lo;
	tx->known_last = hi;
	tx->has_known = true;
	return 0;
}

int range_remove(struct itx *tx, const struct key *first, const struct key *last)
{
	struct key f, l, at;
	MDB_cursor *mc;
	int ret = items_near(tx, TABLE_RANGES, &mc);

	if (ret < 0)
		return ret;
	assert(key_cmp(first, last) <= 0);
	ret = range_le(tx, mc, first, &f, &l);
	if (ret == 0 || (ret > 0 && key_cmp(&l, first) < 0))
		ret = range_ge(tx, mc, first, &f, &l);
	while (ret > 0 && key_cmp(&f, last) <= 0) {
		ret = range_erase(tx, &f);
		if (ret == 0 && key_cmp(&f, first) < 0) {
			at = key_prev(*first);
			ret = range_write(tx, &f, &at);
		}
		if (ret == 0 && key_cmp(&l, last) > 0) {
			at = key_next(*last);
			ret = range_write(tx, &at, &l);
			break;
		}
		if (ret < 0 || is_ones(&l))
			break;
		at = key_next(l);
		ret = range_ge(tx, mc, &at, &f, &l);
	}
	return ret < 0 ? ret : 0;
}

/* ---- what readers bring -------------------------------------------------------------------- */

void items_sample(struct fsd *fsd, const struct key *key, struct items_sample *s)
{
	struct items *is = fsd->items;
	struct key lock_start = key_lock_start(key);

	pthread_mutex_lock(&is->writer);
	s->committed_gen = is->gens.committed;
	s->drops = is->drops[items_drop_hash(&lock_start)];
	pthread_mutex_unlock(&is->writer);
}

/* Insert those of items[*i..] that lie in [first, last], of which nothing is known. */
static int fill_gap(struct itx *tx, const struct key *first, const struct key *last,
		    const struct read_item *items, size_t nr, size_t *i)
{
	int ret = 0;

	while (*i < nr && key_cmp(&items[*i].key, first) < 0)
		(*i)++;
	for (; *i < nr && key_cmp(&items[*i].key, last) <= 0 && ret == 0; (*i)++)
		ret = rec_put(tx, &items[*i].key, 0, items[*i].flags | ITEM_REC_PERSISTENT,
			      items[*i].val, items[*i].len);
	return ret;
}

int items_insert_read(struct itx *tx, const struct items_sample *s, const struct key *start,
		      const struct key *end, const struct read_item *items, size_t nr)
{
	struct items *is = tx->fsd->items;
	struct key lock_start = key_lock_start(start), at = *start, f, l, gap_end;
	MDB_cursor *mc;
	size_t i = 0;
	int ret;

	assert(tx->write);
	if (is->evicted_gen > s->committed_gen ||
	    is->drops[items_drop_hash(&lock_start)] != s->drops)
		return -EAGAIN;
	if (items_is_full(is))
		return -ENOSPC;
	ret = items_cursor(tx, TABLE_RANGES, &mc);
	if (ret < 0)
		return ret;
	ret = range_le(tx, mc, start, &f, &l);
	if (ret == 0 || (ret > 0 && key_cmp(&l, start) < 0))
		ret = range_ge(tx, mc, start, &f, &l);
	while (ret >= 0) {
		bool is_last = ret == 0 || key_cmp(&f, end) > 0;

		if (is_last || key_cmp(&f, &at) > 0) {
			gap_end = is_last ? *end : key_prev(f);
			ret = fill_gap(tx, &at, &gap_end, items, nr, &i);
		}
		if (ret < 0 || is_last || key_cmp(&l, end) >= 0)
			break;
		at = key_next(l);
		ret = range_ge(tx, mc, &at, &f, &l);
	}
	mdb_cursor_close(mc);
	return ret < 0 ? ret : range_add(tx, start, end);
}

/* ---- dropping what a lock covered ---------------------------------------------------------- */

struct drop {
	struct key at, end;
	struct key next;	/* where the next transaction goes on, unless done */
	bool done;
};

static int drop_some(struct itx *tx, void *arg)
{
	struct drop *d = arg;
	struct items *is = tx->fsd->items;
	struct key lock_start = key_lock_start(&d->end), k, last = d->end;
	const struct item_rec *rec;
	unsigned nr = 0;
	MDB_cursor *mc;
	int ret;

	is->drops[items_drop_hash(&lock_start)]++;
	ret = items_cursor(tx, TABLE_ITEMS, &mc);
	if (ret < 0)
		return ret;
	ret = rec_seek(tx, mc, &d->at, &k, &rec);
	while (ret > 0 && key_cmp(&k, &d->end) <= 0) {
		if (nr++ == DROP_BATCH) {
			last = key_prev(k);
			break;
		}
		if (rec->mark > tx->committed_gen) {
			ret = -EBUSY;
			break;
		}
		ret = mdb_cursor_del(mc, 0);
		ret = ret ? items_error(tx, ret, "removal") : rec_seek(tx, mc, &k, &k, &rec);
	}
	mdb_cursor_close(mc);
	if (ret < 0)
		return ret;
	d->done = key_eq(&last, &d->end);
	d->next = key_next(last);
	return range_remove(tx, &d->at, &last);
}

int items_drop(struct fsd *fsd, const struct key *start, const struct key *end)
{
	struct drop d = { .at = *start, .end = *end };
	int ret;

	names_drop(fsd->items->names, start, end);
	do {
		ret = items_run(fsd, drop_some, &d);
		d.at = d.next;
	} while (ret == 0 && !d.done);
	return ret;
}

/* ---- eviction ------------------------------------------------------------------------------ */

struct evict {
	size_t records;		/* gone */
	bool wrapped;		/* the hand has been at the end of the keys */
};

/* A key's kind of items of its inode (or zone) was looked at since the hand's last visit; `visit`: this is one. */
static bool is_recent(struct items *is, const struct key *k, bool visit)
{
	_Atomic uint8_t *r = &is->recent[items_recent_hash(k)];

	return visit ? atomic_exchange_explicit(r, 0, memory_order_relaxed) :
		       atomic_load_explicit(r, memory_order_relaxed);
}

static struct key end_of_kind(const struct key *k)
{
	struct key end = KEY_ONES;

	end.zone = k->zone;
	end.first = k->first;
	end.type = k->type;
	return end;
}

/*
 * Take the records of a stretch out, beginning at `from` and inside the interval that ends at
 * `end`; *upto is how far it went.  Dirty ones stay; their keys are remembered.
 */
static int evict_stretch(struct itx *tx, struct evict *ev, const struct key *from,
			 const struct key *end, struct key *upto, bool *forget, struct key *dirty,
			 size_t *dirty_nr)
{
	struct key k, kind_end = *from;
	const struct item_rec *rec;
	bool is_first = true;
	unsigned looked = 0;
	MDB_cursor *mc;
	int ret = items_cursor(tx, TABLE_ITEMS, &mc);

	if (ret < 0)
		return ret;
	*upto = *end;
	*forget = true;
	*dirty_nr = 0;
	ret = rec_seek(tx, mc, from, &k, &rec);
	while (ret > 0 && key_cmp(&k, end) <= 0) {
		if (is_first || key_cmp(&k, &kind_end) > 0) {
			kind_end = end_of_kind(&k);
			if (is_recent(tx->fsd->items, &k, is_first)) {
				/* What lies before it goes; it is passed over when the hand is
				 * there. */
				*forget = !is_first;
				*upto = is_first ? kind_end : key_prev(k);
				if (is_first && key_cmp(upto, end) > 0)
					*upto = *end;
				break;
			}
			is_first = false;
		}
		if (++looked > EVICT_BATCH) {
			*upto = key_prev(k);
			break;
		}
		if (rec->mark > tx->committed_gen) {
			dirty[(*dirty_nr)++] = k;
			ret = rec_step(tx, mc, MDB_NEXT, &k, &rec);
			continue;
		}
		ret = mdb_cursor_del(mc, 0);
		if (ret) {
			ret = items_error(tx, ret, "eviction");
			break;
		}
		ev->records++;
		ret = rec_seek(tx, mc, &k, &k, &rec);
	}
	mdb_cursor_close(mc);
	return ret < 0 ? ret : 0;
}

static int evict_next(struct itx *tx, struct evict *ev)
{
	struct items *is = tx->fsd->items;
	struct key dirty[EVICT_BATCH], f, l, from, upto;
	size_t dirty_nr;
	MDB_cursor *mc;
	bool forget;
	int ret;

	ret = items_cursor(tx, TABLE_RANGES, &mc);
	if (ret < 0)
		return ret;
	ret = range_le(tx, mc, &is->hand, &f, &l);
	if (ret == 0 || (ret > 0 && key_cmp(&l, &is->hand) < 0))
		ret = range_ge(tx, mc, &is->hand, &f, &l);
	mdb_cursor_close(mc);
	if (ret < 0)
		return ret;
	if (ret == 0) {
		ev->wrapped = true;
		is->hand = KEY_ZEROS;
		return 0;
	}
	from = key_cmp(&f, &is->hand) < 0 ? is->hand : f;
	ret = evict_stretch(tx, ev, &from, &l, &upto, &forget, dirty, &dirty_nr);
	if (ret == 0 && forget) {
		is->evicted_gen = tx->committed_gen;
		ret = range_remove(tx, &from, &upto);
		for (size_t i = 0; i < dirty_nr && ret == 0; i++)
			ret = range_add(tx, &dirty[i], &dirty[i]);
	}
	if (ret < 0)
		return ret;
	if (is_ones(&upto))
		ev->wrapped = true;
	is->hand = key_next(upto);
	return 0;
}

static int evict_some(struct itx *tx, struct evict *ev)
{
	int ret = 0;

	for (unsigned nr = 0; nr < EVICT_STRETCHES && ev->records < EVICT_RECORDS && !ev->wrapped &&
	     ret == 0; nr++)
		ret = evict_next(tx, ev);
	if (ret == 0)
		items_measure(tx);
	return ret;
}

/*
 * Not items_run: when there is no room even for eviction the caller must know, and an evictor that
 * waits for eviction would wait for itself.
 */
static int evict_once(struct fsd *fsd, struct evict *ev)
{
	struct itx tx;
	int ret = items_begin(fsd, NULL, true, &tx);

	if (ret < 0)
		return ret;
	ret = evict_some(&tx, ev);
	if (ret < 0)
		items_abort(&tx);
	else
		ret = items_commit(&tx);
	return ret;
}

size_t items_evict(struct fsd *fsd, bool now)
{
	struct items *is = fsd->items;
	size_t high = is->map_bytes / 100 * ITEMS_HIGH_PERCENT;
	size_t low = is->map_bytes / 100 * ITEMS_LOW_PERCENT;
	unsigned wraps = 0;
	size_t total = 0;

	if (!now && atomic_load(&is->used) < high)
		return 0;
	pthread_mutex_lock(&is->evict_lock);
	while (wraps < 3 && (atomic_load(&is->used) > low || (now && total == 0))) {
		struct evict ev = { 0 };

		if (evict_once(fsd, &ev) < 0)
			break;
		total += ev.records;
		wraps += ev.wrapped;
	}
	pthread_mutex_unlock(&is->evict_lock);
	stats_add(&fsd->stats.item_evicted, total);
	return total;
}

void items_make_room(struct fsd *fsd)
{
	struct items_dirty open, closed;

	if (items_evict(fsd, true))
		return;
	items_dirty(fsd, &open, &closed);
	if (!open.any && !closed.any) {
		log_err("the item cache is full and nothing in it can go: raise cache_size and restart this mount");
		return;
	}
	txn_commit_wait(fsd, TXN_FULL, 0);
}
