/*
 * Stores to shared mappings, as they reach us: whole pages that the kernel writes back (FUSE_WRITE_CACHE).
 *
 * Promise: what another node writes to other bytes of such a page is never undone, however the two fall together.  Bytes that
 * one processor stores at once (MAPPED_WORD of them) count as one.
 *
 * A program stores to a page whenever it likes, also where this mount's lock is for READ only.  Then the write cannot be applied,
 * and must not wait: a revoke of the lock waits for the page.  So it is answered and applied when the lock has come back for
 * WRITE (pending.h), and until then another node may have written to the page.  Therefore it is found out, before the answer, what
 * was stored: the page is compared with what the kernel had in it before.
 *
 * That is known, because the kernel's pages that are up to date have what the file has under the lock, and besides
 *  - what other pending writes of this inode will bring: they are put over it, and reads wait for them;
 *  - what a write(2) has copied into the page before we have applied it.  Words that are so explained are left to that write;
 *    if they were pending they would be written a second time, perhaps over what another node has written in between.  A
 *    write(2) that was not known yet when a page was compared takes its words out of the row before it does anything else,
 *    whether the page is answered or not (mapped_wait): it is known from before its first transaction, and comparing and
 *    making the row are one transaction; so either it finds the row, or the comparison has found it.  (A program that stores
 *    at the same time the very value that another one writes has it in the file when that write is answered.)
 * and it stays so: a revoke takes the lock away after all pages were dropped, for which it waits until they are written back and
 * answered.  For that such a write may use a lock that nobody else may use any more (REVOKE_DROP).  Only when a truncation is
 * parked this is not so (notifier.c); then all of the page counts as stored (mapped_no_base).
 *
 * Where this mount has the lock for WRITE nobody else has written anything, and the page is applied at once as it is.
 *
 * A pending write lies in the item cache, in TABLE_PENDING, from before its answer until the transaction that applies it:
 * the next process applies what this one has answered.
 */
#include "mapped.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"
#include "locks.h"
#include "log.h"
#include "shown.h"

/* Rows of a file lie together, in the order of their answers; both numbers are big-endian. */
struct pending_key {
	uint64_t ino, id;
};
/* The row: this, the bytes, and the mask: one bit for each word. */
struct pending_rec {
	uint64_t ino, offset, len;
};

static size_t mask_bytes(uint64_t len)
{
	return (size_t)((len + MAPPED_WORD * 8 - 1) / (MAPPED_WORD * 8));
}

static uint64_t words_of(uint64_t len)
{
	return (len + MAPPED_WORD - 1) / MAPPED_WORD;
}

static bool word_is_set(const uint8_t *mask, uint64_t word)
{
	return mask[word / 8] & 1u << word % 8;
}

static void word_set(uint8_t *mask, uint64_t word, bool on)
{
	uint8_t bit = (uint8_t)(1u << word % 8);

	mask[word / 8] = (uint8_t)(on ? mask[word / 8] | bit : mask[word / 8] & ~bit);
}

static size_t word_len(uint64_t word, uint64_t len)
{
	return len - word * MAPPED_WORD < MAPPED_WORD ? (size_t)(len - word * MAPPED_WORD) : MAPPED_WORD;
}

/* ---- rows ------------------------------------------------------------------------------------------- */

struct row {
	struct pending_rec rec;
	const uint8_t *bytes, *mask;	/* valid until the next change in the transaction */
};

static MDB_val row_key(uint64_t ino, uint64_t id, struct pending_key *be)
{
	*be = (struct pending_key){ htobe64(ino), htobe64(id) };
	return (MDB_val){ sizeof(*be), be };
}

static bool row_is_of(const MDB_val *mk, uint64_t ino)
{
	uint64_t be = htobe64(ino);

	return mk->mv_size >= sizeof(be) && memcmp(mk->mv_data, &be, sizeof(be)) == 0;
}

static int row_parse(const MDB_val *mk, const MDB_val *mv, struct row *r)
{
	size_t rest = mv->mv_size - sizeof(r->rec);

	if (mk->mv_size != sizeof(struct pending_key) || mv->mv_size < sizeof(r->rec))
		return -EIO;
	memcpy(&r->rec, mv->mv_data, sizeof(r->rec));
	if (r->rec.len > rest || rest - r->rec.len != mask_bytes(r->rec.len) || !row_is_of(mk, r->rec.ino))
		return -EIO;
	r->bytes = (const uint8_t *)mv->mv_data + sizeof(r->rec);
	r->mask = r->bytes + r->rec.len;
	return 0;
}

/* 0, -ENOENT, or another error. */
static int row_get(struct itx *tx, uint64_t ino, uint64_t id, struct row *r)
{
	struct pending_key be;
	MDB_val mk = row_key(ino, id, &be), mv;
	int rc = mdb_get(tx->txn, items_dbi(tx, TABLE_PENDING), &mk, &mv);

	if (rc == MDB_NOTFOUND)
		return -ENOENT;
	return rc ? items_error(tx, rc, "pending write") : row_parse(&mk, &mv, r);
}

static int row_put(struct write_op *w, struct itx *tx)
{
	struct pending_rec rec = { .ino = w->rq->ino, .offset = w->rq->offset, .len = w->stored_len };
	struct pending_key be;
	MDB_val mk = row_key(rec.ino, w->pending_id, &be), mv = { sizeof(rec) + rec.len + mask_bytes(rec.len), NULL };
	int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_PENDING), &mk, &mv, MDB_RESERVE);
	uint8_t *to = mv.mv_data;

	tx->changes++;
	if (rc)
		return items_error(tx, rc, "pending write");
	memcpy(to, &rec, sizeof(rec));
	memcpy(to + sizeof(rec), w->rq->buf, rec.len);
	memcpy(to + sizeof(rec) + rec.len, w->mask, mask_bytes(rec.len));
	return 0;
}

static int row_del(struct itx *tx, void *arg)
{
	struct write_op *w = arg;
	struct pending_key be;
	MDB_val mk = row_key(w->rq->ino, w->pending_id, &be);
	int rc = mdb_del(tx->txn, items_dbi(tx, TABLE_PENDING), &mk, NULL);

	tx->changes++;
	return rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "pending write") : 0;
}

/* Call each() for the rows of ino that share a byte with [offset, offset + len), in the order of their answers. */
static int each_row(struct itx *tx, uint64_t ino, uint64_t offset, uint64_t len,
		    int (*each)(void *arg, MDB_cursor *cur, const MDB_val *key, const struct row *r), void *arg)
{
	MDB_dbi dbi = items_dbi(tx, TABLE_PENDING);
	struct pending_key be;
	MDB_val mk = row_key(ino, 0, &be), mv;
	MDB_cursor *cur;
	MDB_stat st;
	int rc = mdb_stat(tx->txn, dbi, &st), ret = 0;
	struct row r;

	/* mostly, and every write(2) asks */
	if (!rc && !st.ms_entries)
		return 0;
	if (!rc)
		rc = mdb_cursor_open(tx->txn, dbi, &cur);
	if (rc)
		return items_error(tx, rc, "pending writes");
	rc = mdb_cursor_get(cur, &mk, &mv, MDB_SET_RANGE);
	while (ret == 0 && rc == 0 && row_is_of(&mk, ino)) {
		ret = row_parse(&mk, &mv, &r);
		if (ret == 0 && r.rec.offset < offset + len && offset < r.rec.offset + r.rec.len)
			ret = each(arg, cur, &mk, &r);
		if (ret == 0)
			rc = mdb_cursor_get(cur, &mk, &mv, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	return ret == 0 && rc && rc != MDB_NOTFOUND ? items_error(tx, rc, "pending writes") : ret;
}

/* ---- what was stored -------------------------------------------------------------------------------- */

struct base {
	uint8_t *bytes;		/* from offset on */
	uint64_t offset, len;
};

static int put_over(void *arg, MDB_cursor *cur, const MDB_val *key, const struct row *r)
{
	struct base *b = arg;

	(void)cur, (void)key;
	for (uint64_t word = 0; word < words_of(r->rec.len); word++) {
		uint64_t at = r->rec.offset + word * MAPPED_WORD;
		size_t n = word_len(word, r->rec.len);

		if (word_is_set(r->mask, word) && at >= b->offset && at + n <= b->offset + b->len)
			memcpy(b->bytes + (at - b->offset), r->bytes + word * MAPPED_WORD, n);
	}
	return 0;
}

/* What the kernel's pages have had, without stores; NULL in *bytes: it is not known. */
static int get_base(struct write_op *w, struct itx *tx, const uint8_t **bytes, uint64_t *len)
{
	uint64_t offset = w->rq->offset, end;
	struct cinode ci;
	struct base b;
	int ret;

	*bytes = NULL;
	*len = w->rq->len;
	ret = lock_inode(&w->op, w->rq->ino, LOCK_MODE_READ);
	if (ret == OP_PARKED) {
		stats_inc(&tx->fsd->stats.mapped_no_base);
		return 0;
	}
	if (ret == 0)
		ret = inode_get(tx, w->rq->ino, &ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	if (!w->base) {
		w->base = calloc(1, sizeof(*w->base));
		if (!w->base || content_init(w->base, &w->op, w->rq->ino, offset, w->rq->len) < 0)
			return -ENOMEM;
	}
	end = inode_size(&ci) < offset + *len ? inode_size(&ci) : offset + *len;
	*len = end > offset ? end - offset : 0;
	b = (struct base){ w->base->buf + (offset - (w->base->first << SMALL_SHIFT)), offset, *len };
	*bytes = b.bytes;
	if (!*len)
		return 0;
	ret = content_gather(w->base, tx, end);
	return ret == 0 ? each_row(tx, w->rq->ino, offset, *len, put_over, &b) : ret;
}

struct explained {
	struct write_op *w;
	const uint8_t *base;
	uint64_t len;
};

/* Of a word that has changed: are all its changed bytes those of the write b? */
static bool is_of_write(const struct explained *e, uint64_t word, const struct busy *b)
{
	const uint8_t *page = e->w->rq->buf;

	for (uint64_t i = word * MAPPED_WORD; i < word * MAPPED_WORD + word_len(word, e->len); i++) {
		uint64_t at = e->w->rq->offset + i;

		if (e->base && page[i] == e->base[i])
			continue;
		if (at < b->offset || at >= b->offset + b->len || page[i] != b->data[at - b->offset])
			return false;
	}
	return true;
}

static void leave_to_write(void *arg, const struct busy *b)
{
	const struct explained *e = arg;
	uint64_t from = e->w->rq->offset, first, end;

	if (b->offset >= from + e->len || b->offset + b->len <= from)
		return;
	first = b->offset > from ? (b->offset - from) / MAPPED_WORD : 0;
	end = b->offset + b->len < from + e->len ? words_of(b->offset + b->len - from) : words_of(e->len);
	for (uint64_t word = first; word < end; word++) {
		if (word_is_set(e->w->mask, word) && is_of_write(e, word, b))
			word_set(e->w->mask, word, false);
	}
}

/* Fill w's mask.  1: something was stored; 0: nothing; OP_PARKED, -errno. */
static int find_stored(struct write_op *w, struct itx *tx)
{
	const uint8_t *page = w->rq->buf;
	struct explained e = { .w = w };
	int ret = get_base(w, tx, &e.base, &e.len);

	if (ret < 0)
		return ret;
	if (!w->mask)
		w->mask = malloc(mask_bytes(w->rq->len) + 1);
	if (!w->mask)
		return -ENOMEM;
	memset(w->mask, 0, mask_bytes(w->rq->len));
	for (uint64_t word = 0; word < words_of(e.len); word++) {
		uint64_t at = word * MAPPED_WORD;

		if (!e.base || memcmp(page + at, e.base + at, word_len(word, e.len)) != 0)
			word_set(w->mask, word, true);
	}
	busy_each_write(w->rq->ino, leave_to_write, &e);
	for (size_t i = 0; i < mask_bytes(w->rq->len); i++)
		ret |= w->mask[i] != 0;
	/* what the page has behind the end of the file nobody stored, and another node may put something there */
	w->stored_len = e.len;
	return ret;
}

/* ---- the operation ---------------------------------------------------------------------------------- */

/* Its row is committed. */
static void answer(struct op *op)
{
	struct write_op *w = (struct write_op *)op;
	fuse_req_t req = w->rq->req;
	int ret = pending_begin(w->rq->ino, &w->turn);

	op->cancel = NULL;
	if (ret < 0) {
		op_fail(op, ret);
		return;
	}
	w->is_answered = true;
	op->is_writeback = false;
	op->unique = 0;	/* no record of its answer is needed any more */
	busy_end(&w->busy);
	fuse_op_done(req, op);
	atomic_store(&op->interrupted, false);	/* nor does it end with who asked for it */
	fuse_reply_write(req, w->rq->len);
	w->rq->len = w->stored_len;
	/* whose turn it is may need what a revoke of this use waits to give up */
	lock_unuse(op);
	op_wake(op);
}

static int run_unanswered(struct write_op *w, struct itx *tx)
{
	struct op *op = &w->op;
	struct row r;
	int ret;

	if (w->pending_id) {
		ret = row_get(tx, w->rq->ino, w->pending_id, &r);
		if (ret != -ENOENT)
			return ret == 0 ? op_park(op, answer) : ret;
		w->pending_id = 0;	/* that transaction was not committed */
	}
	if (!w->answers_first && !pending_is_there(w->rq->ino)) {
		ret = lock_inode(op, w->rq->ino, LOCK_MODE_WRITE);
		if (ret != OP_PARKED) {
			free(w->mask);
			w->mask = NULL;
			return ret;
		}
	}
	ret = find_stored(w, tx);
	if (ret <= 0)
		return ret == 0 ? MAPPED_SAME : ret;
	w->pending_id = pending_new_id();
	ret = row_put(w, tx);
	return ret < 0 ? ret : OP_MORE;
}

int mapped_run(struct write_op *w, struct itx *tx)
{
	struct row r;
	int ret;

	if (!w->is_answered)
		return run_unanswered(w, tx);
	ret = pending_wait_turn(&w->op, w->rq->ino, &w->turn);
	if (ret == 0)
		ret = lock_inode(&w->op, w->rq->ino, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = row_get(tx, w->rq->ino, w->pending_id, &r);
	if (ret == 0)
		memcpy(w->mask, r.mask, mask_bytes(w->rq->len));	/* a write may have taken some of it */
	return ret == -ENOENT ? MAPPED_SAME : ret;
}

int mapped_applied(struct write_op *w, struct itx *tx)
{
	return w->is_answered ? row_del(tx, w) : 0;
}

void mapped_done(struct write_op *w, int err)
{
	if (err && w->pending_id && items_run(w->op.fsd, row_del, w) < 0)
		log_err("inode %llu: a write that failed is tried again when this mount starts again",
			(unsigned long long)w->rq->ino);
	if (w->is_answered) {
		shown_applied(w->op.fsd, w->rq->ino);	/* first: who finds no pending write looks at this afterwards */
		pending_end(w->rq->ino, &w->turn, err);
	}
}

void mapped_fini(struct write_op *w)
{
	if (w->base)
		content_fini(w->base);
	free(w->base);
	free(w->mask);
}

/* ---- a write(2) meanwhile --------------------------------------------------------------------------- */

/* Whether word `word` of the row is one that the write w brings. */
static bool is_brought_by(const struct write_op *w, const struct row *r, uint64_t word)
{
	const struct file_req *rq = w->rq;
	uint64_t at = r->rec.offset + word * MAPPED_WORD;
	size_t n = word_len(word, r->rec.len);

	return word_is_set(r->mask, word) && at >= rq->offset && at + n <= rq->offset + rq->len &&
	       memcmp(r->bytes + word * MAPPED_WORD, (const uint8_t *)rq->buf + (at - rq->offset), n) == 0;
}

/* 1: there is something to take. */
static int has_words(void *arg, MDB_cursor *cur, const MDB_val *key, const struct row *r)
{
	uint64_t word = 0;

	(void)cur, (void)key;
	while (word < words_of(r->rec.len) && !is_brought_by(arg, r, word))
		word++;
	return word < words_of(r->rec.len);
}

struct taker {
	struct write_op *w;
	struct itx *tx;
};

static int take_words(void *arg, MDB_cursor *cur, const MDB_val *key, const struct row *r)
{
	struct taker *t = arg;
	size_t size = sizeof(r->rec) + r->rec.len + mask_bytes(r->rec.len);
	uint8_t *copy, *mask;
	MDB_val mk = *key, mv = { .mv_size = size };
	int rc;

	if (!has_words(t->w, cur, key, r))
		return 0;
	copy = malloc(size);
	if (!copy)
		return -ENOMEM;
	mv.mv_data = copy;
	memcpy(copy, &r->rec, sizeof(r->rec));
	memcpy(copy + sizeof(r->rec), r->bytes, size - sizeof(r->rec));
	mask = copy + sizeof(r->rec) + r->rec.len;
	for (uint64_t word = 0; word < words_of(r->rec.len); word++) {
		if (is_brought_by(t->w, r, word))
			word_set(mask, word, false);
	}
	rc = mdb_cursor_put(cur, &mk, &mv, MDB_CURRENT);
	free(copy);
	return rc ? items_error(t->tx, rc, "pending write") : 0;
}

static int take_from_rows(struct itx *tx, void *arg)
{
	struct write_op *w = arg;
	struct taker t = { w, tx };
	int ret = each_row(tx, w->rq->ino, w->rq->offset, w->rq->len, take_words, &t);

	tx->changes++;
	return ret;
}

/* In a transaction of its own: the write itself has to wait, for its lock if nothing else. */
static void take(struct op *op)
{
	int ret;

	op->cancel = NULL;
	ret = items_run(op->fsd, take_from_rows, op);
	if (ret < 0)
		op_fail(op, ret);
	else
		op_wake(op);
}

int mapped_wait(struct write_op *w, struct itx *tx)
{
	int ret = each_row(tx, w->rq->ino, w->rq->offset, w->rq->len, has_words, w);

	if (ret)
		return ret < 0 ? ret : op_park(&w->op, take);
	return data_wait_pending(&w->op, w->rq->ino, false);
}

/* ---- what an earlier process has answered and not applied ------------------------------------------- */

struct load {
	struct fsd *fsd;
	struct write_op *first, **tail;
};

static int load_row(struct load *l, uint64_t id, const struct row *r)
{
	struct file_req *rq = calloc(1, sizeof(*rq));
	struct write_op *w = rq ? write_op_new(l->fsd, rq) : NULL;

	if (w) {
		rq->buf = malloc(r->rec.len ? r->rec.len : 1);
		w->mask = malloc(mask_bytes(r->rec.len) + 1);
	}
	if (!w || !rq->buf || !w->mask) {
		if (w)
			mapped_fini(w);
		free(rq ? rq->buf : NULL);
		free(rq);
		free(w);
		return -ENOMEM;
	}
	memcpy(rq->buf, r->bytes, r->rec.len);
	rq->ino = r->rec.ino;
	rq->offset = r->rec.offset;
	rq->len = r->rec.len;
	rq->write_cache = true;
	w->pending_id = id;
	w->is_answered = true;
	*l->tail = w;
	l->tail = (struct write_op **)&w->op.next;
	return 0;
}

static int load_pending(struct itx *tx, void *arg)
{
	struct load *l = arg;
	MDB_val mk, mv;
	MDB_cursor *cur;
	struct pending_key be;
	struct row r;
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_PENDING), &cur), ret = 0;

	if (rc)
		return items_error(tx, rc, "pending writes");
	while (ret == 0 && (rc = mdb_cursor_get(cur, &mk, &mv, MDB_NEXT)) == 0) {
		ret = row_parse(&mk, &mv, &r);
		if (ret < 0)
			continue;
		memcpy(&be, mk.mv_data, sizeof(be));
		ret = load_row(l, be64toh(be.id), &r);
	}
	mdb_cursor_close(cur);
	return ret == 0 && rc != MDB_NOTFOUND ? items_error(tx, rc, "pending writes") : ret;
}

int data_start_pending(struct fsd *fsd)
{
	struct load l = { .fsd = fsd };
	struct write_op *next;
	int ret;

	l.tail = &l.first;
	ret = items_run(fsd, load_pending, &l);
	for (struct write_op *w = l.first; w; w = next) {
		next = (struct write_op *)w->op.next;
		w->op.next = NULL;
		pending_id_seen(w->pending_id);
		if (ret == 0)
			ret = pending_begin(w->rq->ino, &w->turn);
		if (ret == 0) {
			op_queue(&w->op);
			continue;
		}
		mapped_fini(w);
		free(w->rq->buf);
		free(w->rq);
		free(w);
	}
	return ret;
}
