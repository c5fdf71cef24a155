/*
 * Going on from the generations of a process that has died.
 *
 * At most two have something dirty: the open one, O, and the one before, N, whose commit was under
 * way.  Whether the leader has stored N is seen from the number of the transaction it was sent under,
 * which was noted just before.  If it has, N is committed and only the clean-up remains.  If not,
 * nothing of N is anywhere: blocks it was written to belong to no tree, and what the next commit
 * allocates comes from the committed lists again.  But N cannot be stored as it was, for operations of
 * O have overwritten items of it.  So N becomes part of O: all that is dirty is stored by one commit.
 *
 * What makes that right: an item says which version of it the index knows for the generation before
 * as well (inode.h), and every other item counts only as it is now.  It is done in steps of a few
 * hundred items, each a transaction; a process that dies on the way leaves N smaller.
 */
#include "resume.h"

#include <endian.h>
#include <errno.h>

#include "data.h"
#include "items_impl.h"
#include "log.h"
#include "stream.h"

#define META_STORING	"storing"

struct storing {
	uint64_t gen, seq, nr;
};

static int put_storing(struct itx *tx, void *arg)
{
	MDB_val mk = mval(META_STORING, strlen(META_STORING)), mv = mval(arg, sizeof(struct storing));
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_META), &mk, &mv, 0);

	return rc ? items_error(tx, rc, "commit") : 0;
}

int resume_note_storing(struct fsd *fsd, uint64_t gen, const struct disk_log_trees *lt)
{
	struct storing st = { .gen = gen, .seq = le64_get(lt->get_trans_seq),
			      .nr = le64_get(lt->nr) };

	return items_run(fsd, put_storing, &st);
}

/* ---- N was stored ---------------------------------------------------------------------------- */

static bool is_stored(uint64_t nr, uint64_t seq, const struct disk_log_trees *now)
{
	/* A tree is finished only between two transactions: a newer one means that all of the last
	 * one's are stored. */
	return le64_get(now->nr) > nr ||
	       (le64_get(now->nr) == nr && le64_get(now->commit_trans_seq) >= seq);
}

bool resume_was_stored(const struct disk_log_trees *sent, const struct disk_log_trees *now)
{
	return is_stored(le64_get(sent->nr), le64_get(sent->get_trans_seq), now);
}

static int set_stored(struct itx *tx, void *arg)
{
	struct storing *st = arg;
	uint64_t be = htobe64(st->gen);
	uint8_t row[16];
	MDB_val mk = mval(&be, sizeof(be)), mv = mval(&st->seq, sizeof(st->seq));
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_GENS), &mk, &mv, 0);

	if (rc == 0) {
		mk = mval(row, stream_count_row(st->gen, row));
		rc = mdb_del(tx->txn, items_dbi(tx, TABLE_META), &mk, NULL);
		rc = rc == MDB_NOTFOUND ? 0 : rc;
	}
	return rc ? items_error(tx, rc, "commit") : items_set_committed(tx, st->gen);
}

/* ---- N was not stored: it becomes part of O -------------------------------------------------- */

struct fold {
	uint64_t from, to;
	bool more;
};

static uint64_t fold_seq(const struct fold *f, uint64_t seq)
{
	return seq == seq_ref(f->from) ? seq_ref(f->to) : seq;
}

static int fold_inode(struct itx *tx, const struct fold *f, struct cinode *ci)
{
	int ret = 0;

	ci->d.meta_seq = le64_of(fold_seq(f, le64_get(ci->d.meta_seq)));
	ci->d.data_seq = le64_of(fold_seq(f, le64_get(ci->d.data_seq)));
	if (ci->gen == f->to && ci->base_gen == f->from) {
		ci->prev_meta_seq = ci->base_meta_seq;
		ci->prev_data_seq = ci->base_data_seq;
		ci->was_orphan = ci->base_orphan;
		ret = txn_resolve_seq_now(tx, &ci->prev_meta_seq);
		if (ret == 0)
			ret = txn_resolve_seq_now(tx, &ci->prev_data_seq);
	}
	ci->gen = f->to;
	ci->base_gen = 0;
	return ret == -EAGAIN ? -EIO : ret;
}

static int fold_item(struct itx *tx, const struct fold *f, const struct key *key)
{
	const struct item_rec *rec;
	struct cinode ci;
	int ret = rec_get(tx, key, &rec);

	/* Deleted without a trace in N, or no longer N's. */
	if (ret <= 0 || (rec->mark != f->from && rec->mark != f->to))
		return ret < 0 ? ret : 0;
	if (key->zone == ZONE_FS && key->type == TYPE_INODE && rec->len == sizeof(ci)) {
		memcpy(&ci, rec->val, sizeof(ci));
		ret = fold_inode(tx, f, &ci);
		if (ret == 0)
			ret = rec_put(tx, key, f->to, rec->flags, &ci, sizeof(ci));
	} else {
		ret = rec_put(tx, key, f->to, rec->flags, rec->val, rec->len);
	}
	return ret < 0 ? ret : dirty_note(tx, key);
}

static int fold_items(struct itx *tx, void *arg)
{
	struct fold *f = arg;
	struct key keys[ITEMS_DIRTY_TAKE];
	size_t nr;
	int ret = items_dirty_take(tx, f->from, keys, &nr);

	f->more = nr > 0;
	for (size_t i = 0; i < nr && ret == 0; i++)
		ret = fold_item(tx, f, &keys[i]);
	return ret;
}

/* The last step: what there is of one row, and N is no more. */
static int fold_end(struct itx *tx, void *arg)
{
	struct fold *f = arg;
	uint8_t row[16];
	MDB_val mk = mval(row, stream_count_row(f->from, row)), mv;
	int64_t delta = 0;
	int ret = 0, rc = mdb_get(tx->txn, items_dbi(tx, TABLE_META), &mk, &mv);

	if (rc == 0 && mv.mv_size == sizeof(delta)) {
		memcpy(&delta, mv.mv_data, sizeof(delta));
		rc = mdb_del(tx->txn, items_dbi(tx, TABLE_META), &mk, NULL);
	}
	if (rc && rc != MDB_NOTFOUND)
		return items_error(tx, rc, "inode count");
	if (delta)
		ret = txn_inode_count_add(tx, (int)delta);
	return ret < 0 ? ret : items_set_committed(tx, f->from);
}

static int fold(struct fsd *fsd, uint64_t from)
{
	struct fold f = { .from = from, .to = from + 1 };
	int ret;

	do {
		ret = items_run(fsd, fold_items, &f);
	} while (ret == 0 && f.more);
	if (ret == 0)
		ret = dalloc_fold(fsd, f.from, f.to);
	if (ret == 0)
		ret = pool_fold(fsd, f.from, f.to);
	return ret < 0 ? ret : items_run(fsd, fold_end, &f);
}

/* ---- both ------------------------------------------------------------------------------------ */

int resume_gens(struct fsd *fsd, const struct disk_log_trees *lt)
{
	MDB_val mk = mval(META_STORING, strlen(META_STORING)), mv;
	struct storing st = { 0 };
	uint64_t open, committed;
	struct itx tx;
	int ret = items_begin(fsd, NULL, false, &tx), rc;

	if (ret < 0)
		return ret;
	open = tx.open_gen;
	committed = tx.committed_gen;
	rc = mdb_get(tx.txn, items_dbi(&tx, TABLE_META), &mk, &mv);
	if (rc == 0 && mv.mv_size == sizeof(st))
		memcpy(&st, mv.mv_data, sizeof(st));
	items_abort(&tx);
	if (open == committed + 1)
		return 0;
	if (open != committed + 2) {
		log_err("the item cache is at generation %llu, but %llu is committed",
			(unsigned long long)open, (unsigned long long)committed);
		return -EIO;
	}
	if (st.gen == committed + 1 && is_stored(st.nr, st.seq, lt)) {
		log_info("generation %llu of the process before was stored",
			 (unsigned long long)committed + 1);
		return items_run(fsd, set_stored, &st);
	}
	log_info("generation %llu of the process before was not stored: it is stored with the next one",
		 (unsigned long long)committed + 1);
	return fold(fsd, committed + 1);
}
