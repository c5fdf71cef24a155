/*
 * Rows of the item cache with what programs have locked: TABLE_ADVISORY, one for each owner and file.
 *
 * Promises: a row is what the table in memory had when its transaction ran, whole; rows of another process are
 * checked before they are believed, and one that makes no sense is an error, not a lock less.
 */
#include "advisory_impl.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "items_impl.h"
#include "log.h"

struct row_key {
	uint8_t b[17];
};

struct row {
	uint64_t fh;
	uint32_t pid;
	uint32_t nr;			/* struct adv_range follow */
};

static struct row_key row_key(const struct advisory_ask *ask)
{
	uint64_t ino = htobe64(ask->ino), owner = htobe64(ask->owner);
	struct row_key k;

	memcpy(k.b, &ino, 8);
	k.b[8] = ask->kind;
	memcpy(k.b + 9, &owner, 8);
	return k;
}

/* What the owner has at this moment, as a row.  NULL: nothing, *len is 0; or no memory. */
static void *make_row(struct advisory *a, const struct advisory_ask *ask, size_t *len)
{
	const struct adv_entry *e;
	struct row row = { 0 };
	uint8_t *p = NULL;

	*len = 0;
	pthread_mutex_lock(&a->mutex);
	e = adv_table_find(a->table, ask->ino, ask->kind, ask->owner);
	if (e && e->ranges.nr) {
		row = (struct row){ .fh = e->fh, .pid = e->pid, .nr = e->ranges.nr };
		*len = sizeof(row) + e->ranges.nr * sizeof(struct adv_range);
		p = calloc(1, *len);
		if (p) {
			memcpy(p, &row, sizeof(row));
			memcpy(p + sizeof(row), e->ranges.v, e->ranges.nr * sizeof(struct adv_range));
		}
	}
	pthread_mutex_unlock(&a->mutex);
	return p;
}

/* Transactions that write exclude each other, so the last row is the newest. */
int advisory_put_row(struct itx *tx, struct advisory_ask *ask)
{
	struct row_key key = row_key(ask);
	size_t len;
	void *row = make_row(tx->fsd->advisory, ask, &len);
	MDB_val mk = mval(key.b, sizeof(key.b)), mv = mval(row, len);
	int rc;

	if (len && !row)
		return -ENOMEM;
	if (row)
		rc = mdb_put(tx->txn, items_dbi(tx, TABLE_ADVISORY), &mk, &mv, 0);
	else
		rc = mdb_del(tx->txn, items_dbi(tx, TABLE_ADVISORY), &mk, NULL);
	tx->changes++;
	free(row);
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "advisory locks") : 0;
}

static int put_row(struct itx *tx, void *ask)
{
	return advisory_put_row(tx, ask);
}

void advisory_shrink_row(struct fsd *fsd, struct advisory_ask *ask)
{
	int ret = items_run(fsd, put_row, ask);

	if (ret < 0)
		fsd_fail(fsd, "which advisory locks programs hold cannot be noted: %s", strerror(-ret));
}

static int load_row(struct adv_table *t, const MDB_val *mk, const MDB_val *mv)
{
	struct adv_range *v;
	uint64_t ino, owner;
	struct row row;
	const uint8_t *key = mk->mv_data;
	uint8_t kind;
	int ret = 0;

	if (mk->mv_size != sizeof(struct row_key) || mv->mv_size < sizeof(row))
		return -EIO;
	memcpy(&ino, key, 8);
	kind = key[8];
	memcpy(&owner, key + 9, 8);
	memcpy(&row, mv->mv_data, sizeof(row));
	if (kind > MSG_ADV_FLOCK || mv->mv_size != sizeof(row) + row.nr * sizeof(*v))
		return -EIO;
	v = malloc(mv->mv_size);
	if (!v)
		return -ENOMEM;
	memcpy(v, (const uint8_t *)mv->mv_data + sizeof(row), row.nr * sizeof(*v));
	for (uint32_t i = 0; i < row.nr && ret == 0; i++) {
		if (v[i].first > v[i].last || (v[i].type != ADV_READ && v[i].type != ADV_WRITE))
			ret = -EIO;
	}
	if (ret == 0)
		ret = adv_table_load(t, be64toh(ino), kind, be64toh(owner), row.fh, row.pid, v, row.nr);
	free(v);
	return ret;
}

int advisory_load_rows(struct itx *tx, void *advisory)
{
	struct advisory *a = advisory;
	MDB_cursor *mc;
	MDB_val mk, mv;
	int ret = 0, rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_ADVISORY), &mc);

	if (rc)
		return items_error(tx, rc, "advisory locks");
	for (rc = mdb_cursor_get(mc, &mk, &mv, MDB_FIRST); rc == 0 && ret == 0;
	     rc = mdb_cursor_get(mc, &mk, &mv, MDB_NEXT))
		ret = load_row(a->table, &mk, &mv);
	mdb_cursor_close(mc);
	return ret == 0 && rc != MDB_NOTFOUND ? items_error(tx, rc, "advisory locks") : ret;
}

int advisory_forget_rows(struct itx *tx, void *advisory)
{
	int rc = mdb_drop(tx->txn, items_dbi(tx, TABLE_ADVISORY), 0);

	(void)advisory;
	return rc ? items_error(tx, rc, "advisory locks") : 0;
}
