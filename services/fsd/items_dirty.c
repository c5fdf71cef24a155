/*
 * Which keys were written in which generation.
 *
 * Promises: each key that a generation has written is listed under it as long as the generation is not
 * clean, in the transaction that wrote it.  More may be listed: a key twice, or one whose item was born
 * and deleted in the generation, or is another generation's by now.  So whoever reads the list looks at
 * the item, which says what it is.
 *
 * A transaction gathers its keys and adds them at its end, in one row behind all others: to a table in
 * the order of keys each of them would have to copy a page of its own.  They are put in order when a
 * generation is read, once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "items_impl.h"

struct row_key {
	uint64_t gen, serial;	/* big-endian */
};

static struct key key_at(const void *keys, size_t i)
{
	return key_from_sortable((const uint8_t *)keys + i * KEY_SORT_BYTES);
}

int dirty_note(struct itx *tx, const struct key *key)
{
	struct items *is = tx->fsd->items;
	int ret = 0;

	tx->changes++;
	if (is->noted_nr == ITEMS_DIRTY_ROW)
		ret = dirty_flush(tx);
	if (ret == 0)
		key_to_sortable(key, is->noted[is->noted_nr++]);
	return ret;
}

int dirty_flush(struct itx *tx)
{
	struct items *is = tx->fsd->items;
	struct row_key row = { .gen = htobe64(tx->open_gen) };
	MDB_val mk, mv;
	MDB_cursor *mc;
	int ret, rc;

	if (!is->noted_nr)
		return 0;
	ret = items_cursor(tx, TABLE_DIRTY, &mc);
	if (ret < 0)
		return ret;
	rc = mdb_cursor_get(mc, &mk, &mv, MDB_LAST);
	if (rc == 0 && mk.mv_size == sizeof(row) && memcmp(mk.mv_data, &row.gen, sizeof(row.gen)) == 0) {
		memcpy(&row, mk.mv_data, sizeof(row));
		row.serial = htobe64(be64toh(row.serial) + 1);
	}
	if (rc == 0 || rc == MDB_NOTFOUND) {
		mk = mval(&row, sizeof(row));
		mv = mval(is->noted, is->noted_nr * sizeof(is->noted[0]));
		rc = mdb_cursor_put(mc, &mk, &mv, MDB_APPEND);
	}
	mdb_cursor_close(mc);
	is->noted_nr = 0;
	return rc ? items_error(tx, rc, "dirty list") : 0;
}

static int cmp_keys(const void *a, const void *b)
{
	return key_cmp(a, b);
}

/* Ascending, each once; how many. */
static size_t in_order(struct key *keys, size_t nr)
{
	size_t n = 0;

	if (!nr)
		return 0;
	qsort(keys, nr, sizeof(*keys), cmp_keys);
	for (size_t i = 1; i < nr; i++) {
		if (!key_eq(&keys[i], &keys[n]))
			keys[++n] = keys[i];
	}
	return n + 1;
}

int items_dirty_list(struct itx *tx, uint64_t gen, struct key **keys, size_t *nr)
{
	struct row_key row = { .gen = htobe64(gen) };
	MDB_val mk = mval(&row, sizeof(row)), mv;
	size_t cap = 0;
	MDB_cursor *mc;
	int ret, rc;

	*keys = NULL;
	*nr = 0;
	ret = items_cursor(tx, TABLE_DIRTY, &mc);
	if (ret < 0)
		return ret;
	for (rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE);
	     rc == 0 && memcmp(mk.mv_data, &row.gen, sizeof(row.gen)) == 0;
	     rc = mdb_cursor_get(mc, &mk, &mv, MDB_NEXT)) {
		size_t n = mv.mv_size / KEY_SORT_BYTES;
		struct key *more = *keys;

		if (*nr + n > cap) {
			cap = 2 * cap + n + 256;
			more = realloc(*keys, cap * sizeof(**keys));
		}
		if (!more) {
			ret = -ENOMEM;
			break;
		}
		*keys = more;
		for (size_t i = 0; i < n; i++)
			more[(*nr)++] = key_at(mv.mv_data, i);
	}
	mdb_cursor_close(mc);
	if (ret == 0 && rc && rc != MDB_NOTFOUND)
		ret = items_error(tx, rc, "dirty list");
	if (ret < 0) {
		free(*keys);
		*keys = NULL;
	}
	*nr = ret < 0 ? 0 : in_order(*keys, *nr);
	return ret;
}

int items_dirty_take(struct itx *tx, uint64_t gen, struct key keys[ITEMS_DIRTY_TAKE], size_t *nr)
{
	MDB_val mk, mv;
	MDB_cursor *mc;
	uint64_t be;
	int ret, rc;

	*nr = 0;
	ret = items_cursor(tx, TABLE_DIRTY, &mc);
	if (ret < 0)
		return ret;
	while ((rc = mdb_cursor_get(mc, &mk, &mv, MDB_FIRST)) == 0 &&
	       *nr + ITEMS_DIRTY_ROW <= ITEMS_DIRTY_TAKE) {
		memcpy(&be, mk.mv_data, sizeof(be));
		if (be64toh(be) > gen)
			break;
		for (size_t i = 0; i < mv.mv_size / KEY_SORT_BYTES && i < ITEMS_DIRTY_ROW; i++)
			keys[(*nr)++] = key_at(mv.mv_data, i);
		tx->changes++;
		rc = mdb_cursor_del(mc, 0);
		if (rc)
			break;
	}
	mdb_cursor_close(mc);
	if (rc && rc != MDB_NOTFOUND)
		return items_error(tx, rc, "dirty list");
	*nr = in_order(keys, *nr);
	return 0;
}

/* Backwards: rows were added at the end, so LMDB has nothing to move when the last one goes. */
int items_dirty_drop(struct itx *tx, uint64_t gen, bool *done)
{
	const struct row_key behind = { .gen = htobe64(gen + 1) };
	uint64_t be = htobe64(gen);
	MDB_val mk, mv;
	MDB_cursor *mc;
	int ret, rc;

	*done = false;
	ret = items_cursor(tx, TABLE_DIRTY, &mc);
	if (ret < 0)
		return ret;
	for (unsigned nr = 0; nr < ITEMS_DIRTY_DROP && !*done; nr++) {
		mk = mval(&behind, sizeof(behind));
		rc = mdb_cursor_get(mc, &mk, &mv, MDB_SET_RANGE);
		if (rc == 0 || rc == MDB_NOTFOUND)
			rc = mdb_cursor_get(mc, &mk, &mv, rc == 0 ? MDB_PREV : MDB_LAST);
		*done = rc == MDB_NOTFOUND || (rc == 0 && memcmp(mk.mv_data, &be, sizeof(be)) != 0);
		if (*done)
			break;
		tx->changes++;
		if (rc == 0)
			rc = mdb_cursor_del(mc, 0);
		if (rc) {
			ret = items_error(tx, rc, "dirty list");
			break;
		}
	}
	mdb_cursor_close(mc);
	return ret;
}
