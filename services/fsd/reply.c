/*
 * Reply records.
 *
 * Promises: a request that changed something and whose answer the kernel has not got is never
 * executed twice, however often the process dies.  A record costs one put of 24 bytes into a page
 * that the transaction has in hand.
 *
 * Records lie in numbered slots, and one is reused as soon as the answer has been written to
 * /dev/fuse: overwriting it takes no transaction of its own, and the table stays a single page.  A
 * slot that an earlier process has filled is not reused before its request has come again and is
 * answered, or none can come any more: this process may die as well.
 */
#include "reply.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "fuse.h"
#include "log.h"

struct record {
	uint64_t unique;
	uint64_t answer;
};

struct known {
	uint64_t unique, answer;
	uint32_t slot;
	bool is_taken;		/* its request has come again */
};

struct replies {
	pthread_mutex_t mutex;
	uint64_t *used;		/* a bit a slot */
	uint32_t words;
	struct known *known;	/* left by the process before */
	size_t known_nr, known_max;
	atomic_bool has_known;
};

/* With the mutex held.  -ENOMEM. */
static int take_slot(struct replies *r, uint32_t *slot)
{
	uint64_t *more;

	for (uint32_t w = 0; w < r->words; w++) {
		if (~r->used[w]) {
			uint32_t bit = (uint32_t)__builtin_ctzll(~r->used[w]);

			r->used[w] |= 1ull << bit;
			*slot = w * 64 + bit;
			return 0;
		}
	}
	more = realloc(r->used, (r->words + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	r->used = more;
	r->used[r->words] = 1;
	*slot = r->words++ * 64;
	return 0;
}

static void free_slot(struct replies *r, uint32_t slot)
{
	r->used[slot / 64] &= ~(1ull << slot % 64);
}

static int record(struct itx *tx, struct op *op)
{
	struct replies *r = tx->fsd->replies;
	struct record rec = { .unique = op->unique };
	MDB_val mk, mv = { sizeof(rec), &rec };
	uint32_t be, slot = op->reply_slot - 1;
	int ret = 0, rc;

	if (!op->reply_slot) {
		pthread_mutex_lock(&r->mutex);
		ret = take_slot(r, &slot);
		pthread_mutex_unlock(&r->mutex);
		if (ret < 0)
			return ret;
		op->reply_slot = slot + 1;
	}
	if (op->again && op->again->answer)
		rec.answer = op->again->answer(op);
	be = htobe32(slot);
	mk = (MDB_val){ sizeof(be), &be };
	rc = mdb_put(tx->txn, items_dbi(tx, TABLE_REPLIES), &mk, &mv, 0);
	return rc ? items_error(tx, rc, "reply record") : 0;
}

static void answered(struct fsd *fsd, uint32_t reply_slot)
{
	struct replies *r = fsd->replies;

	pthread_mutex_lock(&r->mutex);
	free_slot(r, reply_slot - 1);
	pthread_mutex_unlock(&r->mutex);
}

static const struct op_answers answers = { .record = record, .answered = answered };

static int run_nothing(struct op *op, struct itx *tx)
{
	(void)op;
	(void)tx;
	return 0;
}

void reply_begin(struct fsd *fsd, struct op *op, uint64_t unique)
{
	struct replies *r = fsd->replies;
	const struct known *k = NULL;

	op->unique = unique & ~FUSE_UNIQUE_SENT_AGAIN;
	if (!(unique & FUSE_UNIQUE_SENT_AGAIN) || !op->writes || !atomic_load(&r->has_known))
		return;
	pthread_mutex_lock(&r->mutex);
	for (size_t i = 0; i < r->known_nr && !k; i++) {
		if (r->known[i].unique != op->unique)
			continue;
		k = &r->known[i];
		r->known[i].is_taken = true;
		op->reply_slot = k->slot + 1;
		op->answer = k->answer;
	}
	pthread_mutex_unlock(&r->mutex);
	if (!k)
		return;
	stats_inc(&fsd->stats.requests_done_before);
	op->writes = false;
	op->run = op->again && op->again->run ? op->again->run : run_nothing;
}

void replies_settle(struct fsd *fsd)
{
	struct replies *r = fsd->replies;

	if (!r || !atomic_load(&r->has_known))
		return;
	pthread_mutex_lock(&r->mutex);
	atomic_store(&r->has_known, false);
	for (size_t i = 0; i < r->known_nr; i++) {
		if (!r->known[i].is_taken)
			free_slot(r, r->known[i].slot);
	}
	r->known_nr = 0;
	pthread_mutex_unlock(&r->mutex);
}

/* ---- start, stop ----------------------------------------------------------------------------- */

static int add_known(struct replies *r, uint32_t slot, const struct record *rec)
{
	struct known *more;

	while (slot / 64 >= r->words) {
		uint64_t *used = realloc(r->used, (r->words + 1) * sizeof(*used));

		if (!used)
			return -ENOMEM;
		r->used = used;
		r->used[r->words++] = 0;
	}
	if (r->known_nr == r->known_max) {
		r->known_max = r->known_max ? 2 * r->known_max : 64;
		more = realloc(r->known, r->known_max * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->known = more;
	}
	r->used[slot / 64] |= 1ull << slot % 64;
	r->known[r->known_nr++] = (struct known){ rec->unique, rec->answer, slot, false };
	return 0;
}

static int load(struct itx *tx, void *arg)
{
	struct replies *r = arg;
	struct record rec;
	MDB_val mk, mv;
	MDB_cursor *mc;
	uint32_t be;
	int rc = mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_REPLIES), &mc), ret = 0;

	if (rc)
		return items_error(tx, rc, "reply records");
	r->known_nr = 0;
	for (rc = mdb_cursor_get(mc, &mk, &mv, MDB_FIRST); rc == 0 && ret == 0;
	     rc = mdb_cursor_get(mc, &mk, &mv, MDB_NEXT)) {
		if (mk.mv_size != sizeof(be) || mv.mv_size != sizeof(rec)) {
			ret = -EIO;
			break;
		}
		memcpy(&be, mk.mv_data, sizeof(be));
		memcpy(&rec, mv.mv_data, sizeof(rec));
		ret = add_known(r, be32toh(be), &rec);
	}
	mdb_cursor_close(mc);
	return ret == 0 && rc != MDB_NOTFOUND ? items_error(tx, rc, "reply records") : ret;
}

static int forget_all(struct itx *tx, void *arg)
{
	int rc = mdb_drop(tx->txn, items_dbi(tx, TABLE_REPLIES), 0);

	(void)arg;
	return rc ? items_error(tx, rc, "reply records") : 0;
}

int replies_start(struct fsd *fsd, bool keep)
{
	struct replies *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return -ENOMEM;
	pthread_mutex_init(&r->mutex, NULL);
	ret = items_run(fsd, keep ? load : forget_all, r);
	if (ret < 0) {
		log_err("the records of answers cannot be read: %s", strerror(-ret));
		free(r->used);
		free(r->known);
		free(r);
		return ret;
	}
	atomic_store(&r->has_known, r->known_nr > 0);
	fsd->replies = r;
	fsd->answers = &answers;
	return 0;
}

void replies_stop(struct fsd *fsd)
{
	struct replies *r = fsd->replies;

	if (!r)
		return;
	fsd->answers = NULL;
	fsd->replies = NULL;
	pthread_mutex_destroy(&r->mutex);
	free(r->used);
	free(r->known);
	free(r);
}
