/*
 * One commit, in the order of design.md D3 and runtime.md 5.4.
 *
 *	close	one transaction of the cache; operations go on in the next generation
 *	collect	copy what the generation changed out of a snapshot that ends with it
 *	write	file data and, into blocks nothing refers to yet, log tree, bloom block, lists; flush both devices,
 *		or leave that to the leader, if it shares our blockd
 *	store	one request: the leader keeps the new roots and opens the next transaction
 *	publish	one transaction of the cache: the generation counts as committed; tell who waits.  Where the
 *		leader has not opened the next one, because a log merge is to begin, wait for that then
 *	clean	rows that named what was dirty, markers that are in the tree now
 *
 * Promises: whatever fails before the leader has stored the roots leaves the old ones in force, and
 * the attempt is made again from them, every two seconds, loudly, with the same items; nothing
 * acknowledged is dropped.  Data is on the device before a mapping to it is.  When the leader and
 * this mount disagree about the open transaction no attempt can succeed and the mount ends itself.
 *
 * The sequence number of a generation is told to nobody before it is committed; so when blocks
 * should run out after all, a commit of nothing fetches more and the generation simply gets the
 * next number.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkcli.h"
#include "blocks.h"
#include "clock.h"
#include "data.h"
#include "items_impl.h"
#include "log.h"
#include "merge.h"
#include "net.h"
#include "reader.h"
#include "resume.h"
#include "stream.h"
#include "txn_impl.h"

#define COMMIT_CACHE_PART	2u	/* of cache_size, of our own tree */
#define COMMIT_CACHE_BLOCKS	512u	/* 32 MiB at most */
#define COMMIT_RETRY_MS		2000u
#define GENS_KEPT		1024u	/* committed generations whose number can be told */

struct extents {
	struct extent *v;
	size_t nr, cap;
};

/* ---- what the leader gives ----------------------------------------------------------------- */

static int load_extents(struct txn *t, const struct disk_alloc_root *root, struct extents *ex)
{
	struct extent ext;
	uint64_t at = 0;
	int ret;

	*ex = (struct extents){ 0 };
	for (;;) {
		ret = free_extents_next(t->bs, root, at, &ext);
		if (ret < 0)
			break;
		at = ext.start + ext.len;
		if (ext.start < DATA_FIRST_BLKNO || at <= ext.start ||
		    at > t->fsd->total_data_blocks) {
			ret = -EBADMSG;
			break;
		}
		if (ex->nr == ex->cap) {
			size_t cap = ex->cap ? 2 * ex->cap : 64;
			void *p = realloc(ex->v, cap * sizeof(*ex->v));

			if (!p) {
				ret = -ENOMEM;
				break;
			}
			ex->v = p;
			ex->cap = cap;
		}
		ex->v[ex->nr++] = ext;
	}
	if (ret == -ENOENT)
		return 0;
	free(ex->v);
	*ex = (struct extents){ 0 };
	return ret;
}

static int check_log_trees(struct txn *t, const struct disk_log_trees *lt)
{
	struct item it = { .key = key_log_trees(t->fsd->rid, le64_get(lt->nr)), .val = lt,
			   .val_len = sizeof(*lt) };
	struct disk_log_trees copy;
	int ret = log_trees_check(&it, &copy);

	if (ret == 0 && le64_get(lt->flags) & LOG_TREES_FLAG_FINALIZED)
		ret = -EBADMSG;
	return ret;
}

/*
 * The leader's answer is where we go on from.  Read errors are tried again: there is nothing else
 * to do. ex: the free data extents, unless data_avail is `known` as it is.
 */
static int take_opened(struct txn *t, const struct disk_log_trees *lt,
		       const struct disk_alloc_root *known, struct extents *ex)
{
	bool is_known = known && memcmp(known, &lt->data_avail, sizeof(*known)) == 0;
	int ret = check_log_trees(t, lt);

	if (ret < 0) {
		log_err("the leader's answer about our log tree makes no sense (rid %016llx): run scoutfsctl check",
			(unsigned long long)t->fsd->rid);
		return ret;
	}
	if (le64_get(lt->nr) != le64_get(t->lt.nr)) {
		t->tree_seq = le64_get(lt->get_trans_seq);
		/* The one before was finished for a merge. */
		merge_kick(t->fsd);
	}
	t->lt = *lt;
	atomic_store(&t->opened_ns, clock_mono_ns());
	for (;;) {
		ret = room_opened(t->room, t->bs, lt);
		if (ret == 0 && !is_known)
			ret = load_extents(t, &lt->data_avail, ex);
		txn_devices(t, ret == -EIO);
		if (ret == 0 || ret == -EBADMSG)
			break;
		log_err("our log tree cannot be read: %s; trying again", strerror(-ret));
		if (!txn_pause(t, COMMIT_RETRY_MS))
			break;
	}
	return ret;
}

static bool is_low(const struct disk_log_trees *lt)
{
	return le32_get(lt->data_avail.flags) & ALLOC_FLAG_LOW;
}

struct load {
	struct txn *t;
	struct extents ex;
	uint64_t gen;		/* committed up to here */
	bool refilled;		/* ex holds all there is */
};

static int load_davail(struct itx *tx, void *arg)
{
	struct load *l = arg;

	return dalloc_committed(tx, l->gen, l->ex.v, l->ex.nr, l->refilled, is_low(&l->t->lt));
}

static bool is_open(const struct disk_log_trees *lt)
{
	return le64_get(lt->get_trans_seq) > le64_get(lt->commit_trans_seq);
}

int commit_open(struct txn *t)
{
	struct block_dev dev = blkcli_block_dev(t->fsd->blk);
	struct load load = { .t = t, .refilled = true };
	struct disk_log_trees lt;
	struct itx tx;
	int ret;

	ret = blocks_open(t->fsd, &dev, COMMIT_CACHE_PART, COMMIT_CACHE_BLOCKS, &t->bs);
	if (ret < 0)
		return ret;
	ret = net_open_log_trees(t->fsd, &lt);
	if (ret < 0) {
		log_err("the leader does not open a transaction for this mount: %s", strerror(-ret));
		return ret;
	}
	ret = resume_gens(t->fsd, &lt);
	if (ret == 0)
		ret = items_begin(t->fsd, NULL, false, &tx);
	if (ret < 0)
		return ret;
	load.gen = tx.committed_gen;
	items_abort(&tx);
	/* the status is shown already */
	pthread_mutex_lock(&t->lock);
	t->committed_gen = t->want = load.gen;
	pthread_mutex_unlock(&t->lock);
	ret = take_opened(t, &lt, NULL, &load.ex);
	if (ret == 0)
		ret = items_run(t->fsd, load_davail, &load);
	free(load.ex.v);
	if (ret == 0)
		ret = commit_clean(t, load.gen);
	if (ret == 0)
		ret = items_recount(t->fsd);
	pthread_mutex_lock(&t->lock);
	t->trans_seq = le64_get(lt.get_trans_seq);
	t->meta_avail = le64_get(lt.meta_avail.total_nr);
	pthread_mutex_unlock(&t->lock);
	return ret;
}

/* An error of the leader after which no attempt can succeed.  Others (its memory, its disk) may
 * pass. */
static bool is_refused(int err)
{
	return err == -EINVAL || err == -ENOENT || err == -ESTALE || err == -EIO || err == -EPROTO;
}

/* Store lt.  0, or why this mount must end. */
static int store(struct txn *t, const struct disk_log_trees *lt, bool open_next,
		 struct disk_log_trees *next)
{
	uint64_t term;
	int ret;

	for (;;) {
		term = net_own_term(t->fsd);
		ret = net_commit_log_trees(t->fsd, lt, open_next, next);
		if (ret == 0)
			t->own_term = term;
		if (ret == 0 || ret == -ESHUTDOWN || ret == -ENOLINK)
			return ret;
		if (is_refused(ret)) {
			log_err("the leader refuses transaction %llu of this mount: %s; what is not stored is lost, mount again",
				(unsigned long long)le64_get(lt->get_trans_seq), strerror(-ret));
			return ret;
		}
		log_err("the leader cannot store transaction %llu: %s; trying again",
			(unsigned long long)le64_get(lt->get_trans_seq), strerror(-ret));
		if (!txn_pause(t, COMMIT_RETRY_MS))
			return -ENOLINK;
	}
}

/* *next until it is open: the leader lets it wait for a log merge to begin (runtime 7.2). */
static int await_open(struct txn *t, struct disk_log_trees *next)
{
	int ret = 0;

	while (!is_open(next)) {
		txn_doing(t, "waiting for a log merge to begin");
		ret = net_open_log_trees(t->fsd, next);
		if (ret == 0 && !is_open(next))
			ret = -EPROTO;
		if (ret == 0 || ret == -ESHUTDOWN || ret == -ENOLINK)
			break;
		if (is_refused(ret)) {
			log_err("the leader opens no further transaction for this mount: %s; mount again",
				strerror(-ret));
			break;
		}
		log_err("the leader cannot open a transaction: %s; trying again", strerror(-ret));
		if (!txn_pause(t, COMMIT_RETRY_MS))
			return -ENOLINK;
	}
	return ret;
}

/*
 * Whose flush covers what we write: a leader that shares our blockd flushes the devices anyway before it writes
 * the super block, and then a flush of our own would only be waited for.  Its term, or 0: we flush.  The first
 * commit under a leader is flushed; and the last of all, for it opens no transaction.
 */
static uint64_t flushing_term(struct txn *t, bool last)
{
	uint64_t term = net_own_term(t->fsd);

	return !last && term == t->own_term && term != t->unknowing_term ? term : 0;
}

/*
 * Store lt, which the leader of term is to flush.  -EAGAIN: it is not stored, and everything is to be written
 * again and flushed: that leader has ended, perhaps because its flush failed, and nobody knows what was lost.
 */
static int store_unflushed(struct txn *t, const struct disk_log_trees *lt, uint64_t term,
			   struct disk_log_trees *next)
{
	int ret = net_commit_unflushed(t->fsd, lt, term, next);

	if (ret == 0 || ret == -ESHUTDOWN || ret == -ENOLINK)
		return ret;
	t->own_term = 0;
	/* Of before there was this message: each commit that tried it would be written twice. */
	if (ret == -EOPNOTSUPP)
		t->unknowing_term = term;
	/* It may have stored it and ended before it could say so. */
	memset(next, 0, sizeof(*next));
	ret = await_open(t, next);
	return ret < 0 || resume_was_stored(lt, next) ? ret : -EAGAIN;
}

/* Go on in *next, which may have to be waited for; sent: what it came after. */
static int go_on(struct txn *t, struct disk_log_trees *next, const struct disk_log_trees *sent)
{
	struct load load = { .t = t, .gen = t->committed_gen };
	int ret = await_open(t, next);

	if (ret == 0)
		ret = take_opened(t, next, &sent->data_avail, &load.ex);
	load.refilled = memcmp(&sent->data_avail, &next->data_avail, sizeof(next->data_avail)) != 0;
	if (ret == 0)
		ret = items_run(t->fsd, load_davail, &load);
	free(load.ex.v);
	pthread_mutex_lock(&t->lock);
	t->trans_seq = le64_get(t->lt.get_trans_seq);
	t->meta_avail = le64_get(t->lt.meta_avail.total_nr);
	pthread_mutex_unlock(&t->lock);
	return ret;
}

int commit_sync(struct txn *t)
{
	struct disk_log_trees sent = t->lt, next;
	int ret;

	txn_doing(t, "asking the leader for more blocks");
	ret = store(t, &sent, true, &next);
	if (ret == 0)
		ret = go_on(t, &next, &sent);
	txn_doing(t, NULL);
	return ret;
}

/* ---- closing and collecting ---------------------------------------------------------------- */

struct closing {
	struct txn *t;
	uint64_t gen;
	struct stream st;
	struct pool_batch *pool;
	struct blkcli_op data[POOL_REST_MAX];	/* file data to be written with the tree */
	size_t data_nr;
	const char *failed;		/* what the last try could not write */
};

static void note_closed(void *arg, const struct items_dirty *dirty)
{
	struct txn *t = arg;

	room_closed(t->room, dirty);
}

static int close_open_gen(struct txn *t, struct closing *c, struct itx *snap)
{
	int ret;

	while ((ret = items_close_gen(t->fsd, &c->gen, snap, note_closed, t)) == -ENOSPC) {
		items_evict(t->fsd, true);
		if (!txn_pause(t, 10))
			return -ENOLINK;
	}
	return ret;
}

/* The snapshot stays until all is copied: later generations overwrite what it shows. */
static int collect(struct txn *t, struct closing *c, struct itx *snap)
{
	int ret;

	for (;;) {
		ret = stream_collect(snap, c->gen, &c->st);
		if (ret == 0) {
			ret = pool_collect(snap, c->gen, &c->pool);
			if (ret < 0)
				stream_free(&c->st);
		}
		if (ret == 0 || ret == -EIO)
			return ret;
		log_err("generation %llu cannot be copied for its commit: %s; trying again",
			(unsigned long long)c->gen, strerror(-ret));
		if (!txn_pause(t, COMMIT_RETRY_MS))
			return -ENOLINK;
	}
}

/* ---- writing ------------------------------------------------------------------------------- */

/*
 * One call for what is left of the file data, all blocks of the tree, and the flushes, if they are ours to do: the tree refers to
 * file data, but nothing refers to the tree yet.
 */
static int write_and_flush(struct txn *t, struct closing *c, bool flush)
{
	struct block_write *blocks;
	struct blkcli_op *ops;
	size_t blocks_nr, nr = 0;
	int ret;

	ret = block_set_gather(t->bs, &blocks, &blocks_nr);
	if (ret < 0)
		return ret;
	ops = calloc(c->data_nr + blocks_nr + BLK_DEVS_NR, sizeof(*ops));
	if (!ops) {
		free(blocks);
		return -ENOMEM;
	}
	memcpy(ops, c->data, c->data_nr * sizeof(*ops));
	nr = c->data_nr;
	for (size_t i = 0; i < blocks_nr; i++)
		ops[nr++] = blkcli_write_op(&blocks[i]);
	if (flush)
		ops[nr++] = blkcli_flush_op(BLK_DEV_META);
	if (flush && !pool_batch_is_empty(c->pool))
		ops[nr++] = blkcli_flush_op(BLK_DEV_DATA);
	ret = blkcli_run(t->fsd->blk, ops, nr);
	if (ret == 0)
		block_set_written(t->bs);
	for (size_t i = 0; i < nr; i++) {
		if (ops[i].result < 0 && ops[i].dev == BLK_DEV_DATA)
			c->failed = "file data";
	}
	free(ops);
	free(blocks);
	return ret;
}

static int write_tree(struct txn *t, struct closing *c, bool flush, struct disk_log_trees *lt)
{
	int ret;

	txn_doing(t, "writing the log tree");
	c->failed = "the log tree";
	*lt = t->lt;
	ret = stream_write(&c->st, t->bs, lt, le64_get(lt->get_trans_seq), t->tree_seq,
			   t->fsd->fmt_vers);
	if (ret == 0) {
		txn_doing(t, "writing to the devices, and flushing them");
		ret = write_and_flush(t, c, flush);
	}
	return ret;
}

/* File data and the new tree; *lt names the tree. */
static int write_all(struct txn *t, struct closing *c, bool flush, struct disk_log_trees *lt)
{
	uint64_t failures;
	int ret;

	for (;;) {
		/* All of it at each try: nobody knows what a flush that failed has lost. */
		failures = blkcli_flush_failures(t->fsd->blk, BLK_DEV_META);
		txn_doing(t, "writing file data");
		c->failed = "file data";
		ret = pool_write(t->fsd, c->pool, c->data, &c->data_nr);
		if (ret == 0) {
			ret = write_tree(t, c, flush, lt);
			/* A merge may have been told of what the device has lost of this. */
			if (ret == 0 && blkcli_flush_failures(t->fsd->blk, BLK_DEV_META) != failures)
				ret = -EIO;
			if (ret == 0) {
				txn_devices(t, false);
				return 0;
			}
			block_set_abort(t->bs);
		}
		/* What blockd refuses is no device's doing, and nothing is known of the devices then. */
		if (ret != -ENOLINK && ret != -ESHUTDOWN && ret != -ENOSPC && ret != -ENOMEM)
			txn_devices(t, true);
		stats_inc(&t->fsd->stats.trans_commit_retry);
		/* blockd refuses this mount: the server of this host has fenced it, whatever a later leader knows. */
		if (ret == -ENOLINK && !atomic_load(&t->fsd->fenced))
			fsd_fenced(t->fsd);
		if (ret == -ENOLINK || ret == -ESHUTDOWN)
			return ret;
		if (ret == -ENOSPC) {
			log_warning("generation %llu needs more metadata blocks than this mount has (%llu): asking for more",
				    (unsigned long long)c->gen,
				    (unsigned long long)le64_get(t->lt.meta_avail.total_nr));
			ret = commit_sync(t);
			if (ret < 0)
				return ret;
		} else {
			log_err("%s of generation %llu cannot be written: %s; trying again until it can: see to the device",
				c->failed, (unsigned long long)c->gen, strerror(-ret));
		}
		if (!txn_pause(t, COMMIT_RETRY_MS))
			return -ENOLINK;
	}
}

/* ---- publishing ---------------------------------------------------------------------------- */

struct published {
	uint64_t gen, seq;
	struct extents ex;
	bool refilled, low;
};

static int publish_tx(struct itx *tx, void *arg)
{
	struct published *p = arg;
	uint64_t be = htobe64(p->gen), old = htobe64(p->gen - GENS_KEPT);
	uint8_t row[16];
	MDB_val mk = mval(&be, sizeof(be)), mv = mval(&p->seq, sizeof(p->seq));
	int ret, rc;

	rc = mdb_put(tx->txn, items_dbi(tx, TABLE_GENS), &mk, &mv, 0);
	if (rc == 0 && p->gen > GENS_KEPT) {
		mk = mval(&old, sizeof(old));
		rc = mdb_del(tx->txn, items_dbi(tx, TABLE_GENS), &mk, NULL);
		rc = rc == MDB_NOTFOUND ? 0 : rc;
	}
	if (rc == 0) {
		mk = mval(row, stream_count_row(p->gen, row));
		rc = mdb_del(tx->txn, items_dbi(tx, TABLE_META), &mk, NULL);
		rc = rc == MDB_NOTFOUND ? 0 : rc;
	}
	if (rc)
		return items_error(tx, rc, "commit");
	ret = dalloc_committed(tx, p->gen, p->ex.v, p->ex.nr, p->refilled, p->low);
	return ret < 0 ? ret : items_set_committed(tx, p->gen);
}

struct cleaning {
	uint64_t gen;
	bool done;
	uint64_t ref, seq;	/* resolved last: most are to the same generation */
	const struct stream *st;
	size_t left, next_left;	/* of its items; after the transaction that runs */
};

static int resolve(struct itx *tx, struct cleaning *cl, uint64_t *seq)
{
	uint64_t ref = *seq;
	int ret = 0;

	if (ref == SEQ_NONE || !(ref & SEQ_REF))
		return 0;
	if (ref == cl->ref) {
		*seq = cl->seq;
		return 0;
	}
	ret = txn_resolve_seq_now(tx, seq);
	if (ret == 0) {
		cl->ref = ref;
		cl->seq = *seq;
	}
	return ret == -EAGAIN ? 0 : ret;	/* of the open generation */
}

/* References of an inode, which rec_get has just found, to generations that have their numbers now. */
static int settle_inode(struct itx *tx, struct cleaning *cl, const struct key *key, const struct item_rec *rec)
{
	struct cinode ci, before;
	uint64_t meta_seq, data_seq;
	uint64_t *seqs[] = { &meta_seq, &data_seq, &ci.prev_meta_seq, &ci.prev_data_seq };
	int ret = 0;

	if (rec->len != sizeof(ci))
		return 0;
	memcpy(&ci, rec->val, sizeof(ci));
	before = ci;
	meta_seq = le64_get(ci.d.meta_seq);
	data_seq = le64_get(ci.d.data_seq);
	for (unsigned i = 0; i < sizeof(seqs) / sizeof(seqs[0]) && ret == 0; i++)
		ret = resolve(tx, cl, seqs[i]);
	if (ret < 0)
		return ret;
	ci.d.meta_seq = le64_of(meta_seq);
	ci.d.data_seq = le64_of(data_seq);
	if (memcmp(&ci, &before, sizeof(ci)) == 0)
		return 0;
	return rec_put_found(tx, key, rec->mark, rec->flags, &ci, sizeof(ci));
}

static bool is_inode_key(const struct key *key)
{
	return key->zone == ZONE_FS && key->type == TYPE_INODE;
}

/* gen is committed: what it deleted goes, unless a later one has written it again. */
static int clean_item(struct itx *tx, struct cleaning *cl, const struct key *key)
{
	const struct item_rec *rec;
	int ret = rec_get(tx, key, &rec);

	if (ret <= 0)
		return ret;
	if (rec->flags & ITEM_REC_DELETED && rec->mark <= cl->gen)
		return rec_del_found(tx);
	return is_inode_key(key) ? settle_inode(tx, cl, key, rec) : 0;
}

static int clean_listed(struct itx *tx, void *arg)
{
	struct cleaning *cl = arg;
	struct key keys[ITEMS_DIRTY_TAKE];
	size_t nr;
	int ret = items_dirty_take(tx, cl->gen, keys, &nr);

	cl->done = nr == 0;
	for (size_t i = 0; i < nr && ret >= 0; i++)
		ret = clean_item(tx, cl, &keys[i]);
	return ret < 0 ? ret : 0;
}

int commit_clean(struct txn *t, uint64_t gen)
{
	struct cleaning cl = { .gen = gen };
	int ret = 0;

	while (ret == 0 && !cl.done)
		ret = items_run(t->fsd, clean_listed, &cl);
	return ret;
}

/* Some items of the stream, from the end on: LMDB moves less of a page when its last record goes. */
static int clean_streamed(struct itx *tx, void *arg)
{
	struct cleaning *cl = arg;
	size_t at = cl->left;
	int ret = 0;

	for (unsigned nr = 0; at > 0 && nr < ITEMS_DIRTY_TAKE && ret >= 0; at--) {
		const struct stream_item *it = &cl->st->items[at - 1];

		if (!it->is_deleted && !is_inode_key(&it->key))
			continue;
		ret = clean_item(tx, cl, &it->key);
		nr++;
	}
	cl->next_left = at;
	return ret < 0 ? ret : 0;
}

static int drop_rows(struct itx *tx, void *arg)
{
	struct cleaning *cl = arg;

	return items_dirty_drop(tx, cl->gen, &cl->done);
}

/*
 * The same for a generation that this process has streamed out.  What it has written is known, and in order, so each page of
 * the cache is changed once, and then the list goes unread.  A process that dies on the way leaves the list to the next one.
 */
static int clean_up(struct txn *t, const struct closing *c)
{
	struct cleaning cl = { .gen = c->gen, .st = &c->st, .left = c->st.nr };
	int ret = 0;

	while (ret == 0 && cl.left) {
		ret = items_run(t->fsd, clean_streamed, &cl);
		cl.left = cl.next_left;
	}
	while (ret == 0 && !cl.done)
		ret = items_run(t->fsd, drop_rows, &cl);
	return ret;
}

/* next: what the leader opened; NULL: nothing (yet). */
static int publish(struct txn *t, struct closing *c, const struct disk_log_trees *sent,
		   const struct disk_log_trees *next)
{
	struct published p = { .gen = c->gen, .seq = le64_get(sent->get_trans_seq),
			       .low = is_low(next ? next : &t->lt) };
	int ret = 0;

	txn_doing(t, "finishing the commit");
	if (next) {
		ret = take_opened(t, next, &sent->data_avail, &p.ex);
		p.refilled =
			memcmp(&sent->data_avail, &next->data_avail, sizeof(next->data_avail)) != 0;
	}
	/* Who reads from now on must find this generation: the cache may forget it. */
	reader_roots_stale(t->fsd);
	if (ret == 0)
		ret = items_run(t->fsd, publish_tx, &p);
	free(p.ex.v);
	if (ret < 0)
		return ret;
	stats_inc(&t->fsd->stats.trans_commit_done);
	txn_publish(t, c->gen);
	return clean_up(t, c);
}

/* Until the leader has stored the generation, as *lt; *next is what it said. */
static int write_and_store(struct txn *t, struct closing *c, bool last, struct disk_log_trees *lt,
			   struct disk_log_trees *next)
{
	uint64_t term;
	int ret;

	do {
		term = flushing_term(t, last);
		ret = write_all(t, c, term == 0, lt);
		if (ret == 0)
			ret = resume_note_storing(t->fsd, c->gen, lt);
		if (ret < 0)
			return ret;
		txn_doing(t, "waiting for the leader to store the transaction");
		ret = term ? store_unflushed(t, lt, term, next) : store(t, lt, !last, next);
	} while (term && ret == -EAGAIN);
	return ret;
}

int commit_gen(struct txn *t, bool last)
{
	struct closing c = { .t = t };
	struct disk_log_trees lt, next;
	struct itx snap;
	int ret;

	txn_doing(t, "closing the generation");
	pool_collecting(t->fsd, true);
	ret = close_open_gen(t, &c, &snap);
	if (ret == 0) {
		ret = collect(t, &c, &snap);
		items_abort(&snap);
	}
	pool_collecting(t->fsd, false);
	if (ret < 0)
		goto out;
	ret = write_and_store(t, &c, last, &lt, &next);
	if (ret == 0)
		ret = publish(t, &c, &lt, !last && is_open(&next) ? &next : NULL);
	stream_free(&c.st);
	if (ret < 0)
		goto out;
	pool_committed(t->fsd, c.pool);
	items_evict(t->fsd, false);
	/* Who waited for this generation has been told: only the next one's commit waits here. */
	if (!last && !is_open(&next))
		ret = go_on(t, &next, &lt);
	if (ret < 0)
		goto out;
	txn_doing(t, NULL);
	return 0;
out:
	/* Items of a closed generation can no longer be stored: that is the end of this mount. */
	if (ret != -ESHUTDOWN && ret != -ENOLINK)
		fsd_fail(t->fsd, "generation %llu cannot be committed: %s",
			 (unsigned long long)c.gen, strerror(-ret));
	return ret;
}
