/*
 * Files that were made without a name.
 *
 * Promises: an inode without links gets a link only if it never had one; a file whose last name was
 * removed, here or on another node, does not come back. On the volume the two look the same (no
 * link, an orphan item), so what was made by O_TMPFILE is noted in the item cache, where it
 * outlives this process like the open file does. After the end of the mount nobody can have it
 * open: it is an orphan like others, and is deleted.
 */
#include "tmpfile.h"

#include <endian.h>

static MDB_val row(uint64_t ino, uint64_t *be)
{
	*be = htobe64(ino);
	return (MDB_val){ sizeof(*be), be };
}

int tmpfile_note(struct itx *tx, uint64_t ino)
{
	uint64_t be;
	MDB_val mk = row(ino, &be), mv = { 0, NULL };
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_TMPFILES), &mk, &mv, 0);

	tx->changes++;
	return rc ? items_error(tx, rc, "file without a name") : 0;
}

int tmpfile_is(struct itx *tx, uint64_t ino, bool *is)
{
	uint64_t be;
	MDB_val mk = row(ino, &be), mv;
	int rc = mdb_get(tx->txn, items_dbi(tx, TABLE_TMPFILES), &mk, &mv);

	*is = rc == 0;
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "file without a name") : 0;
}

int tmpfile_end(struct itx *tx, uint64_t ino)
{
	uint64_t be;
	MDB_val mk = row(ino, &be);
	int rc = mdb_del(tx->txn, items_dbi(tx, TABLE_TMPFILES), &mk, NULL);

	if (rc == MDB_NOTFOUND)
		return 0;
	tx->changes++;
	return rc ? items_error(tx, rc, "file without a name") : 0;
}
