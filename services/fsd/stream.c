/*
 * A generation on its way into the log tree.
 *
 * Promises: the tree then holds exactly what the generation left of each key it wrote: the item, or
 * a marker where it was deleted.  For each inode item written the change indexes agree with it: one
 * entry at its new meta_seq (and data_seq, for a regular file), none at the old ones, wherever
 * those stood (runtime.md 9).  Writing the same stream again, after block_set_abort and into the
 * same committed tree, gives the same items; nothing here depends on how often it was tried.
 *
 * The same for its orphan item, which exists if and only if it has no link.
 *
 * Index and orphan items are made here and nowhere else.  The inode as cached says what the index held for it
 * before this generation (prev_*) and what it shall hold (meta_seq, data_seq).  References in it
 * can be to this generation only, and become its seq: those to earlier ones were settled when these
 * were committed (commit.c).  An old entry that this same tree got from an earlier generation is
 * taken out physically: no other tree can have it.  Any other gets a marker.
 */
#include "stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"
#include "items_impl.h"
#include "locks.h"
#include "log.h"

size_t stream_count_row(uint64_t gen, uint8_t row[16])
{
	uint64_t be = htobe64(gen);

	memcpy(row, "inodes", 6);
	memcpy(row + 6, &be, sizeof(be));
	return 14;
}

/* ---- collecting ---------------------------------------------------------------------------- */

static int grow(void *vec, size_t *cap, size_t need, size_t size)
{
	void **v = vec, *p;
	size_t n = *cap ? *cap : 256;

	if (need <= *cap)
		return 0;
	while (n < need)
		n *= 2;
	p = realloc(*v, n * size);
	if (!p)
		return -ENOMEM;
	*v = p;
	*cap = n;
	return 0;
}

static int add_item(struct stream *st, struct itx *snap, const struct key *key,
		    const struct item_rec *rec, struct key *last_lock, uint64_t *last_seq)
{
	struct key lock_start = key_lock_start(key);
	int ret;

	if (!key_eq(&lock_start, last_lock)) {
		*last_lock = lock_start;
		*last_seq = lock_write_seq(snap->fsd, key);
	}
	ret = grow(&st->items, &st->cap, st->nr + 1, sizeof(*st->items));
	if (ret == 0)
		ret = grow(&st->vals, &st->vals_cap, st->vals_len + rec->len, 1);
	if (ret < 0)
		return ret;
	st->items[st->nr++] = (struct stream_item){ .key = *key, .write_seq = *last_seq,
						    .val_at = st->vals_len, .len = rec->len,
						    .is_deleted = rec->flags & ITEM_REC_DELETED };
	if (rec->len)
		memcpy(st->vals + st->vals_len, rec->val, rec->len);
	st->vals_len += rec->len;
	return 0;
}

static bool is_inode(const struct key *key)
{
	return key->zone == ZONE_FS && key->type == TYPE_INODE;
}

static int collect_items(struct itx *snap, struct stream *st)
{
	struct key last_lock = KEY_ONES, *keys;
	const struct item_rec *rec;
	uint64_t last_seq = 0;
	size_t nr;
	int ret = items_dirty_list(snap, st->gen, &keys, &nr);

	for (size_t i = 0; i < nr && ret >= 0; i++) {
		ret = rec_get(snap, &keys[i], &rec);
		/* Born and deleted in this generation: no tree has heard of it. */
		if (ret <= 0 || rec->mark != st->gen)
			continue;
		assert(!is_inode(&keys[i]) || rec->len == sizeof(struct cinode));
		ret = add_item(st, snap, &keys[i], rec, &last_lock, &last_seq);
	}
	free(keys);
	return ret < 0 ? ret : 0;
}

static int add_extent(struct stream_extents *se, struct extent ext)
{
	int ret = grow(&se->v, &se->cap, se->nr + 1, sizeof(*se->v));

	if (ret == 0)
		se->v[se->nr++] = ext;
	return ret;
}

static int take_log(void *arg, bool alloc, struct extent ext)
{
	struct stream *st = arg;

	return add_extent(alloc ? &st->allocated : &st->freed, ext);
}

static int extent_cmp(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* What a stream of small writes took one by one leaves the tree as one piece. */
static void join_extents(struct stream_extents *se)
{
	size_t nr = 0;

	if (!se->nr)
		return;
	qsort(se->v, se->nr, sizeof(*se->v), extent_cmp);
	for (size_t i = 1; i < se->nr; i++) {
		if (se->v[i].start == se->v[nr].start + se->v[nr].len)
			se->v[nr].len += se->v[i].len;
		else
			se->v[++nr] = se->v[i];
	}
	se->nr = nr + 1;
}

static int collect_inode_delta(struct itx *snap, struct stream *st)
{
	uint8_t row[16];
	MDB_val mk = mval(row, stream_count_row(st->gen, row)), mv;
	int rc = mdb_get(snap->txn, items_dbi(snap, TABLE_META), &mk, &mv);

	if (rc == 0 && mv.mv_size == sizeof(st->inode_delta))
		memcpy(&st->inode_delta, mv.mv_data, sizeof(st->inode_delta));
	return rc && rc != MDB_NOTFOUND ? items_error(snap, rc, "inode count") : 0;
}

int stream_collect(struct itx *snap, uint64_t gen, struct stream *st)
{
	int ret;

	st->gen = gen;
	ret = collect_items(snap, st);
	if (ret == 0)
		ret = dalloc_collect(snap, gen, take_log, st);
	if (ret == 0)
		ret = collect_inode_delta(snap, st);
	if (ret < 0) {
		stream_free(st);
		return ret;
	}
	join_extents(&st->allocated);
	join_extents(&st->freed);
	return 0;
}

void stream_free(struct stream *st)
{
	free(st->items);
	free(st->vals);
	free(st->allocated.v);
	free(st->freed.v);
	*st = (struct stream){ 0 };
}

/* ---- writing ------------------------------------------------------------------------------- */

/* An item that follows from an inode; its lock orders it, the orphan's too (D12). */
struct index_op {
	struct key key;
	uint64_t seq;		/* of the item */
	uint64_t index_seq;	/* that the key names; 0 of an orphan: its tree is not known */
	bool is_insert;
};

struct writer {
	const struct stream *st;
	struct block_set *bs;
	struct meta_alloc ma;
	struct disk_log_trees *lt;
	struct log_tree_run run;
	uint64_t seq, tree_seq;
	uint32_t fmt_vers;
	struct index_op *ops;
	size_t nr, cap;
};

static uint64_t item_seq(const struct writer *w, const struct stream_item *it)
{
	return it->write_seq > w->seq ? it->write_seq : w->seq;
}

static uint64_t real_seq(const struct writer *w, uint64_t seq)
{
	if (seq == SEQ_NONE || !(seq & SEQ_REF))
		return seq;
	assert(seq == seq_ref(w->st->gen));
	return w->seq;
}

static int add_op(struct writer *w, const struct stream_item *it, struct key key,
		  uint64_t index_seq, bool is_insert)
{
	int ret = grow(&w->ops, &w->cap, w->nr + 1, sizeof(*w->ops));

	if (ret == 0)
		w->ops[w->nr++] = (struct index_op){ .key = key,
						     .seq = item_seq(w, it),
						     .index_seq = index_seq,
						     .is_insert = is_insert };
	return ret;
}

static int add_index(struct writer *w, const struct stream_item *it, uint8_t type,
		     uint64_t index_seq, bool is_insert)
{
	return add_op(w, it, key_index(type, index_seq, it->key.first), index_seq, is_insert);
}

static int move_index(struct writer *w, const struct stream_item *it, uint8_t type, uint64_t old,
		      uint64_t new)
{
	int ret = 0;

	if (old == new)
		return 0;
	if (old != SEQ_NONE)
		ret = add_index(w, it, type, old, false);
	if (ret == 0 && new != SEQ_NONE)
		ret = add_index(w, it, type, new, true);
	return ret;
}

static int index_inode(struct writer *w, const struct stream_item *it)
{
	uint64_t meta_seq = SEQ_NONE, data_seq = SEQ_NONE;
	struct cinode ci;
	int ret;

	memcpy(&ci, w->st->vals + it->val_at, sizeof(ci));
	if (!it->is_deleted) {
		meta_seq = real_seq(w, le64_get(ci.d.meta_seq));
		if (S_ISREG(inode_mode(&ci)))
			data_seq = real_seq(w, le64_get(ci.d.data_seq));
	}
	ret = move_index(w, it, TYPE_INDEX_META_SEQ, ci.prev_meta_seq, meta_seq);
	if (ret == 0)
		ret = move_index(w, it, TYPE_INDEX_DATA_SEQ, ci.prev_data_seq, data_seq);
	if (ret == 0 && ci.is_orphan != ci.was_orphan)
		ret = add_op(w, it, key_orphan(it->key.first), 0, ci.is_orphan);
	return ret;
}

static int index_cmp(const void *a, const void *b)
{
	return key_cmp(&((const struct index_op *)a)->key, &((const struct index_op *)b)->key);
}

static int write_index(struct writer *w)
{
	struct item put;
	int ret = 0;

	for (size_t i = 0; i < w->st->nr && ret == 0; i++) {
		if (is_inode(&w->st->items[i].key))
			ret = index_inode(w, &w->st->items[i]);
	}
	if (w->nr)
		qsort(w->ops, w->nr, sizeof(*w->ops), index_cmp);
	for (size_t i = 0; i < w->nr && ret == 0; i++) {
		const struct index_op *op = &w->ops[i];

		put = (struct item){ .key = op->key, .seq = op->seq };
		if (!op->is_insert) {
			put.flags = ITEM_FLAG_DELETION;
			ret = -ENOENT;
			if (op->index_seq >= w->tree_seq && w->lt->item_root.height)
				ret = log_tree_remove_next(w->bs, &w->ma, w->lt, &op->key, &w->run);
			/* Another mount's, of before it gave the lock up: that tree still has
			 * it. */
			if (ret != -ENOENT)
				continue;
		}
		ret = log_tree_force_next(w->bs, &w->ma, w->lt, &put, &w->run);
	}
	return ret;
}

static int write_item(struct writer *w, const struct stream_item *it)
{
	struct item put = { .key = it->key, .seq = item_seq(w, it), .val = w->st->vals + it->val_at,
			    .val_len = it->len };
	struct disk_inode inode;
	struct cinode ci;

	if (it->is_deleted) {
		put.flags = ITEM_FLAG_DELETION;
		put.val = NULL;
		put.val_len = 0;
	} else if (is_inode(&it->key)) {
		memcpy(&ci, put.val, sizeof(ci));
		cinode_to_disk(&ci, real_seq(w, le64_get(ci.d.meta_seq)),
			       real_seq(w, le64_get(ci.d.data_seq)), &inode);
		put.val = &inode;
		put.val_len = w->fmt_vers >= 2 ? INODE_V2_BYTES : INODE_V1_BYTES;
	}
	return log_tree_force_next(w->bs, &w->ma, w->lt, &put, &w->run);
}

/* What is free already is left out: two files had the same blocks, which check says, and both are gone or shorter. */
static int give_back(struct writer *w, struct extent ext)
{
	int ret = free_extents_insert(w->bs, &w->ma.al, &w->lt->data_freed, ext);

	if (ret != -EUCLEAN || free_extents_overlap(w->bs, &w->lt->data_freed, ext) != 1)
		return ret;
	log_err("data blocks %llu to %llu are given back twice: they are left out; run scoutfsctl check",
		(unsigned long long)ext.start, (unsigned long long)(ext.start + ext.len - 1));
	return 0;
}

static int write_extents(struct writer *w)
{
	int ret = 0;

	for (size_t i = 0; i < w->st->allocated.nr && ret == 0; i++)
		ret = free_extents_remove(w->bs, &w->ma.al, &w->lt->data_avail,
					  w->st->allocated.v[i]);
	for (size_t i = 0; i < w->st->freed.nr && ret == 0; i++)
		ret = give_back(w, w->st->freed.v[i]);
	return ret;
}

int stream_write(const struct stream *st, struct block_set *bs, struct disk_log_trees *lt,
		 uint64_t seq, uint64_t tree_seq, uint32_t fmt_vers)
{
	struct writer w = { .st = st, .bs = bs, .lt = lt, .seq = seq, .tree_seq = tree_seq,
			    .fmt_vers = fmt_vers };
	int ret;

	meta_alloc_open(&w.ma, bs, &lt->meta_avail, &lt->meta_freed);
	ret = write_index(&w);
	for (size_t i = 0; i < st->nr && ret == 0; i++)
		ret = write_item(&w, &st->items[i]);
	log_tree_run_end(bs, &w.run);
	if (ret == 0)
		ret = write_extents(&w);
	meta_alloc_close(&w.ma);
	free(w.ops);
	le64_add(&lt->inode_count_delta, (uint64_t)st->inode_delta);
	return ret;
}
