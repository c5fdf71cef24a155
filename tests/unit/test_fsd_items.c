/*
 * The item cache against a model: whatever is asked, the answer is the newest state or "not known",
 * while generations close and commit, items are evicted and dropped, and readers bring what they
 * read a while ago.
 *
 * The model has, for each key, what it is now and what the committed trees hold.  A commit moves
 * to the trees exactly what the cache lists as dirty; so a change that the cache forgets, or a
 * deletion without the marker it needs, shows as a difference between the two.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "memdev.h"
#include "services/fsd/items_impl.h"
#include "services/fsd/locks.h"
#include "services/fsd/op.h"
#include "services/fsd/reader.h"
#include "services/fsd/txn.h"

#define KEYS_NR		400u
#define MAP_BYTES	(16u << 20)
#define READS_NR	4u

struct version {
	bool exists;
	uint64_t val;
};

struct delayed_read {
	bool busy;
	struct items_sample sample;
	unsigned first, last, wanted;
	struct version v[KEYS_NR];
};

static struct model {
	struct fsd fsd;
	char dir[64];
	uint64_t seed;
	struct version now[KEYS_NR], tree[KEYS_NR];
	struct delayed_read reads[READS_NR];
	bool closed;			/* a generation is being committed */
	uint64_t gen;
	struct { unsigned key; bool deleted; uint64_t val; } batch[KEYS_NR];
	size_t batch_nr;
	unsigned known, unknown, refused, inserted, evicted;
} m;

/* ---- what items.c needs of others ---- */

bool lock_covers(const struct op *op, const struct key *key, bool write)
{
	(void)op, (void)key, (void)write;
	return true;
}

void reader_wait(struct op *op)
{
	(void)op;
}

void txn_wait_room(struct op *op)
{
	(void)op;
}

void txn_touch(struct itx *tx, const struct key *key, const void *val, size_t len)
{
	(void)tx, (void)key, (void)val, (void)len;
}

void txn_commit_wait(struct fsd *fsd, enum txn_why why, uint64_t gen)
{
	(void)fsd, (void)why, (void)gen;
	fail_msg("the cache asks for a commit to find room");
}

void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	(void)fsd;
	fail_msg("fsd_fail: %s", fmt);
	abort();
}

/* ---- helpers ---- */

static unsigned below(unsigned n)
{
	return (unsigned)(test_random(&m.seed) % n);
}

/* Some inodes of one lock group, several items each: distances of one and more between keys. */
static struct key key_of(unsigned i)
{
	return (struct key){ .zone = ZONE_FS,
			     .first = 1024 + i / 40,
			     .type = TYPE_XATTR,
			     .second = i % 40 / 4,
			     .third = UINT64_MAX - (i % 40 % 4 < 2),
			     .fourth = (uint8_t)(255 * (i & 1)) };
}

static unsigned index_of(const struct key *k)
{
	for (unsigned i = 0; i < KEYS_NR; i++) {
		struct key key = key_of(i);

		if (key_eq(&key, k))
			return i;
	}
	fail_msg("a key that was never written");
	return 0;
}

static void begin(struct itx *tx, bool write)
{
	assert_int_equal(items_begin(&m.fsd, NULL, write, tx), 0);
}

static uint64_t val_of(const struct ival *iv)
{
	uint64_t v;

	assert_int_equal(iv->len, sizeof(v) + iv->key.second % 9);
	assert_int_equal((uintptr_t)iv->val % 8, 0);
	memcpy(&v, iv->val, sizeof(v));
	return v;
}

static int setup(void **state)
{
	(void)state;
	memset(&m, 0, sizeof(m));
	strcpy(m.dir, "/tmp/test_fsd_items.XXXXXX");
	assert_non_null(mkdtemp(m.dir));
	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, false), 0);
	m.seed = test_env("SEED", 1);
	for (unsigned i = 1; i < KEYS_NR; i++) {
		struct key a = key_of(i - 1), b = key_of(i);

		assert_true(key_cmp(&a, &b) < 0);
	}
	return 0;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	items_close(&m.fsd);
	snprintf(path, sizeof(path), "%s/items.mdb", m.dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/items.mdb-lock", m.dir);
	unlink(path);
	assert_int_equal(rmdir(m.dir), 0);
	return 0;
}

/* ---- invariants ---- */

static void check(struct itx *tx)
{
	struct key at, first, last, prev_last = { 0 };
	const struct item_rec *rec;
	bool any = false;
	MDB_cursor *mc;
	MDB_val mk, mv;
	int rc;

	assert_int_equal(items_cursor(tx, TABLE_RANGES, &mc), 0);
	for (rc = mdb_cursor_get(mc, &mk, &mv, MDB_FIRST); rc == 0;
	     rc = mdb_cursor_get(mc, &mk, &mv, MDB_NEXT)) {
		first = key_from_sortable(mk.mv_data);
		last = key_from_sortable(mv.mv_data);
		assert_true(key_cmp(&first, &last) <= 0);
		if (any) {
			struct key after = key_next(prev_last);

			/* disjoint, and joined where they touch */
			assert_true(key_cmp(&after, &first) < 0);
		}
		prev_last = last;
		any = true;
	}
	mdb_cursor_close(mc);
	assert_int_equal(items_cursor(tx, TABLE_ITEMS, &mc), 0);
	for (rc = rec_step(tx, mc, MDB_FIRST, &at, &rec); rc > 0;
	     rc = rec_step(tx, mc, MDB_NEXT, &at, &rec)) {
		assert_int_equal(range_find(tx, &at, &first, &last), 1);
		if (rec->flags & ITEM_REC_DELETED)
			assert_true(rec->flags & ITEM_REC_PERSISTENT);
		assert_true(rec->mark <= tx->open_gen);
	}
	mdb_cursor_close(mc);
}

/* ---- actions ---- */

static void do_get(struct itx *tx, unsigned i)
{
	struct key key = key_of(i);
	struct ival iv;
	int ret = item_get(tx, &key, &iv);

	if (ret == -EAGAIN) {
		m.unknown++;
		/* What is dirty is never forgotten. */
		assert_int_equal(m.now[i].exists, m.tree[i].exists);
		assert_int_equal(m.now[i].val, m.tree[i].val);
		return;
	}
	m.known++;
	assert_int_equal(ret, m.now[i].exists ? 0 : -ENOENT);
	if (ret == 0)
		assert_int_equal(val_of(&iv), m.now[i].val);
}

static void do_walk(struct itx *tx)
{
	unsigned a = below(KEYS_NR), b = below(KEYS_NR), want, at;
	struct key ka, kb;
	struct ival iv;
	int ret;

	if (a > b) {
		unsigned t = a;

		a = b;
		b = t;
	}
	ka = key_of(a);
	kb = key_of(b);
	ret = item_next(tx, &ka, &kb, &iv);
	if (ret == -EAGAIN)
		return;
	for (want = a; want <= b && !m.now[want].exists; want++)
		;
	if (ret == -ENOENT) {
		assert_true(want == b + 1);
		return;
	}
	assert_int_equal(ret, 0);
	at = index_of(&iv.key);
	assert_int_equal(at, want);
	assert_int_equal(val_of(&iv), m.now[at].val);
}

static void do_write(struct itx *tx)
{
	unsigned i = below(KEYS_NR);
	struct key key = key_of(i);
	uint8_t buf[32] = { 0 };
	struct ival iv;
	uint64_t v = test_random(&m.seed);
	int ret = item_get(tx, &key, &iv);

	if (ret == -EAGAIN)
		return;
	if (m.now[i].exists && below(2)) {
		assert_int_equal(item_delete(tx, &key, NULL, 0), 0);
		m.now[i] = (struct version){ 0 };
	} else if (!m.now[i].exists && !below(3)) {
		assert_int_equal(item_delete(tx, &key, NULL, 0), -ENOENT);
	} else {
		memcpy(buf, &v, sizeof(v));
		assert_int_equal(item_put(tx, &key, buf, sizeof(v) + key.second % 9), 0);
		m.now[i] = (struct version){ true, v };
	}
}

static void do_read_begin(void)
{
	struct delayed_read *r = &m.reads[below(READS_NR)];
	struct key key;

	if (r->busy)
		return;
	r->wanted = below(KEYS_NR);
	r->first = r->wanted - below(r->wanted + 1 < 30 ? r->wanted + 1 : 30);
	r->last = r->wanted + below(KEYS_NR - r->wanted < 30 ? KEYS_NR - r->wanted : 30);
	key = key_of(r->wanted);
	items_sample(&m.fsd, &key, &r->sample);
	memcpy(r->v, m.tree, sizeof(r->v));
	r->busy = true;
}

static void do_read_end(void)
{
	struct delayed_read *r = &m.reads[below(READS_NR)];
	struct read_item items[KEYS_NR];
	uint8_t vals[KEYS_NR][32];
	struct key start, end;
	struct itx tx;
	size_t nr = 0;
	int ret;

	if (!r->busy)
		return;
	r->busy = false;
	memset(vals, 0, sizeof(vals));
	for (unsigned i = r->first; i <= r->last; i++) {
		if (!r->v[i].exists)
			continue;
		memcpy(vals[i], &r->v[i].val, 8);
		items[nr] = (struct read_item){ .key = key_of(i), .val = vals[i] };
		items[nr].len = (uint16_t)(8 + items[nr].key.second % 9);
		nr++;
	}
	start = key_of(r->first);
	end = key_of(r->last);
	begin(&tx, true);
	ret = items_insert_read(&tx, &r->sample, &start, &end, items, nr);
	if (ret < 0) {
		assert_int_equal(ret, -EAGAIN);
		items_abort(&tx);
		m.refused++;
		return;
	}
	assert_int_equal(items_commit(&tx), 0);
	m.inserted++;
	begin(&tx, false);
	for (unsigned i = r->first; i <= r->last; i++) {
		struct key key = key_of(i);
		struct ival iv;

		assert_int_not_equal(item_get(&tx, &key, &iv), -EAGAIN);
		do_get(&tx, i);
	}
	items_abort(&tx);
}

static void count_closed(void *arg, const struct items_dirty *dirty)
{
	*(struct items_dirty *)arg = *dirty;
}

static void do_close(void)
{
	struct items_dirty dirty = { 0 };
	const struct item_rec *rec;
	struct key *keys;
	struct itx snap;
	size_t nr;

	if (m.closed)
		return;
	assert_int_equal(items_close_gen(&m.fsd, &m.gen, &snap, count_closed, &dirty), 0);
	assert_int_equal(snap.open_gen, m.gen + 1);
	m.batch_nr = 0;
	/* Earlier ones were cleaned, later ones do not exist. */
	assert_int_equal(items_dirty_list(&snap, m.gen - 1, &keys, &nr), 0);
	assert_int_equal(nr, 0);
	free(keys);
	assert_int_equal(items_dirty_list(&snap, m.gen, &keys, &nr), 0);
	for (size_t i = 0; i < nr; i++) {
		assert_true(i == 0 || key_cmp(&keys[i - 1], &keys[i]) < 0);
		if (rec_get(&snap, &keys[i], &rec) == 0)
			continue;	/* born and deleted in it */
		assert_int_equal(rec->mark, m.gen);
		m.batch[m.batch_nr].key = index_of(&keys[i]);
		m.batch[m.batch_nr].deleted = rec->flags & ITEM_REC_DELETED;
		if (!m.batch[m.batch_nr].deleted)
			memcpy(&m.batch[m.batch_nr].val, rec->val, 8);
		m.batch_nr++;
	}
	free(keys);
	/* None is missing. */
	nr = 0;
	for (unsigned i = 0; i < KEYS_NR; i++) {
		struct key key = key_of(i);

		nr += rec_get(&snap, &key, &rec) > 0 && rec->mark == m.gen;
	}
	assert_int_equal(nr, m.batch_nr);
	items_abort(&snap);
	assert_true(m.batch_nr <= dirty.nr);
	assert_true(dirty.any || m.batch_nr == 0);
	m.closed = true;
}

static void clean(struct itx *tx, const struct key *key)
{
	const struct item_rec *rec;

	if (rec_get(tx, key, &rec) > 0 && rec->flags & ITEM_REC_DELETED && rec->mark <= m.gen)
		assert_int_equal(rec_del_found(tx), 0);
}

/* What another process finds: only the list says what there is. */
static void clean_listed(struct itx *tx)
{
	struct key keys[ITEMS_DIRTY_TAKE];
	size_t nr;

	do {
		assert_int_equal(items_dirty_take(tx, m.gen, keys, &nr), 0);
		for (size_t i = 0; i < nr; i++)
			clean(tx, &keys[i]);
	} while (nr > 0);
}

/* What was streamed out is known; the list goes unread. */
static void clean_streamed(struct itx *tx)
{
	bool done = false;

	for (size_t i = m.batch_nr; i-- > 0;) {
		struct key key = key_of(m.batch[i].key);

		clean(tx, &key);
	}
	while (!done)
		assert_int_equal(items_dirty_drop(tx, m.gen, &done), 0);
}

/* As commit.c does it: the trees, then the number, then the rows. */
static void do_commit(void)
{
	struct itx tx;

	if (!m.closed)
		return;
	for (size_t i = 0; i < m.batch_nr; i++)
		m.tree[m.batch[i].key] = m.batch[i].deleted ? (struct version){ 0 } :
					 (struct version){ true, m.batch[i].val };
	begin(&tx, true);
	assert_int_equal(items_set_committed(&tx, m.gen), 0);
	assert_int_equal(items_commit(&tx), 0);
	if (!below(3))
		m.evicted += (unsigned)items_evict(&m.fsd, true);
	begin(&tx, true);
	if (below(2))
		clean_listed(&tx);
	else
		clean_streamed(&tx);
	assert_int_equal(items_commit(&tx), 0);
	m.closed = false;
}

/* Another mount takes the lock, changes things and gives it back. */
static void do_drop(void)
{
	struct key key = key_of(0), lock_start = key_lock_start(&key),
		   lock_end = key_lock_end(&lock_start);
	bool is_dirty;
	int ret;

	if (below(2)) {
		do_commit();
		do_close();
		do_commit();
		do_read_begin();
	}
	is_dirty = memcmp(m.now, m.tree, sizeof(m.now)) != 0;
	ret = items_drop(&m.fsd, &lock_start, &lock_end);
	if (is_dirty)
		assert_int_equal(ret, -EBUSY);
	if (ret < 0)
		return;
	for (unsigned i = 0; i < 20; i++) {
		unsigned k = below(KEYS_NR);

		m.tree[k] = m.now[k] = below(2) ? (struct version){ true, test_random(&m.seed) }
						: (struct version){ 0 };
	}
}

static void do_transaction(void)
{
	struct version saved[KEYS_NR];
	bool keep = below(5) != 0;
	unsigned nr = 1 + below(12);
	struct itx tx;

	memcpy(saved, m.now, sizeof(saved));
	begin(&tx, true);
	while (nr--) {
		do_write(&tx);
		do_get(&tx, below(KEYS_NR));
		do_walk(&tx);
	}
	if (keep) {
		assert_int_equal(items_commit(&tx), 0);
	} else {
		items_abort(&tx);
		memcpy(m.now, saved, sizeof(saved));
	}
}

static void answers_are_the_newest_or_unknown(void **state)
{
	unsigned rounds = (unsigned)test_env("ROUNDS", 6000);
	struct itx tx;

	(void)state;
	for (unsigned i = 0; i < rounds; i++) {
		unsigned what = below(100);

		if (what < 40)
			do_transaction();
		else if (what < 60)
			do_read_begin();
		else if (what < 80)
			do_read_end();
		else if (what < 86)
			do_close();
		else if (what < 92)
			do_commit();
		else if (what < 96)
			m.evicted += (unsigned)items_evict(&m.fsd, true);
		else
			do_drop();
		if (i % 64 == 0) {
			begin(&tx, false);
			check(&tx);
			for (unsigned k = 0; k < KEYS_NR; k++)
				do_get(&tx, k);
			items_abort(&tx);
		}
	}
	do_commit();
	do_close();
	do_commit();
	assert_memory_equal(m.now, m.tree, sizeof(m.now));
	/* A run that did not do these things proves nothing. */
	assert_true(m.known > rounds && m.unknown > rounds / 10);
	print_message("%u reads inserted, %u refused, %u items evicted\n", m.inserted, m.refused,
		      m.evicted);
	assert_true(m.inserted > rounds / 100 && m.refused > 10 && m.evicted > rounds / 20);
}

static void what_is_dirty_is_never_evicted(void **state)
{
	struct key first = key_of(0), last = key_of(KEYS_NR - 1), key;
	uint64_t v = 7;
	uint8_t buf[32] = { 0 };
	struct ival iv;
	struct itx tx;

	(void)state;
	begin(&tx, true);
	assert_int_equal(items_set_known(&tx, &first, &last), 0);
	for (unsigned i = 0; i < KEYS_NR; i++) {
		key = key_of(i);
		memcpy(buf, &v, sizeof(v));
		assert_int_equal(item_put(&tx, &key, buf, 8 + key.second % 9), 0);
	}
	assert_int_equal(items_commit(&tx), 0);
	assert_int_equal(items_evict(&m.fsd, true), 0);
	assert_int_equal(items_evict(&m.fsd, true), 0);
	assert_int_equal(items_drop(&m.fsd, &first, &last), -EBUSY);
	begin(&tx, false);
	check(&tx);
	for (unsigned i = 0; i < KEYS_NR; i++) {
		key = key_of(i);
		assert_int_equal(item_get(&tx, &key, &iv), 0);
	}
	items_abort(&tx);
}

static void fresh_item_leaves_no_marker_but_a_committing_one_does(void **state)
{
	struct key key = key_of(3);
	const struct item_rec *rec;
	struct items_dirty dirty;
	uint64_t v[2] = { 1, 0 };
	struct itx tx, snap;

	(void)state;
	begin(&tx, true);
	assert_int_equal(items_set_known(&tx, &key, &key), 0);
	assert_int_equal(item_put(&tx, &key, v, 8), 0);
	assert_int_equal(item_delete(&tx, &key, NULL, 0), 0);
	assert_int_equal(rec_get(&tx, &key, &rec), 0);
	assert_int_equal(item_put(&tx, &key, v, 8), 0);
	assert_int_equal(items_commit(&tx), 0);
	assert_int_equal(items_close_gen(&m.fsd, &m.gen, &snap, count_closed, &dirty), 0);
	items_abort(&snap);
	begin(&tx, true);
	assert_int_equal(item_delete(&tx, &key, v, 16), 0);
	assert_int_equal(rec_get(&tx, &key, &rec), 1);
	assert_int_equal(rec->flags, ITEM_REC_DELETED | ITEM_REC_PERSISTENT);
	assert_int_equal(rec->len, 16);		/* the value that was to be kept */
	assert_int_equal(rec->mark, m.gen + 1);
	items_abort(&tx);
}

static struct key many_key(uint64_t i)
{
	return (struct key){ .zone = ZONE_FS, .first = 2048, .type = TYPE_DIRENT, .second = i };
}

static void what_is_dirty_is_listed_in_order_and_taken_once(void **state)
{
	enum { MANY = 5 * ITEMS_DIRTY_ROW + 7 };
	struct key first = many_key(0), last = many_key(UINT64_MAX), taken[ITEMS_DIRTY_TAKE], *keys;
	uint64_t v = 1;
	struct itx tx;
	size_t nr, at = 0;
	uint64_t gen;

	(void)state;
	begin(&tx, true);
	gen = tx.open_gen;
	assert_int_equal(items_set_known(&tx, &first, &last), 0);
	for (unsigned i = MANY; i-- > 0;) {	/* some twice, for they were deleted in between */
		struct key key = many_key(i);

		assert_int_equal(item_put(&tx, &key, &v, 8), 0);
		if (i % 3 == 0) {
			assert_int_equal(item_delete(&tx, &key, NULL, 0), 0);
			assert_int_equal(item_put(&tx, &key, &v, 8), 0);
		}
	}
	assert_int_equal(items_commit(&tx), 0);
	begin(&tx, true);	/* what is taken back was never dirty */
	first = many_key(MANY);
	assert_int_equal(item_put(&tx, &first, &v, 8), 0);
	items_abort(&tx);
	begin(&tx, true);
	assert_int_equal(items_dirty_list(&tx, gen, &keys, &nr), 0);
	assert_int_equal(nr, MANY);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(keys[i].second, i);
	free(keys);
	assert_int_equal(items_dirty_list(&tx, gen + 1, &keys, &nr), 0);
	assert_int_equal(nr, 0);
	free(keys);
	assert_int_equal(items_dirty_take(&tx, gen - 1, taken, &nr), 0);
	assert_int_equal(nr, 0);
	for (;;) {
		assert_int_equal(items_dirty_take(&tx, gen, taken, &nr), 0);
		if (!nr)
			break;
		assert_in_range(nr, 1, ITEMS_DIRTY_TAKE);
		at += nr;
	}
	assert_in_range(at, MANY, MANY + MANY / 3 + 1);
	assert_int_equal(items_dirty_list(&tx, gen, &keys, &nr), 0);
	assert_int_equal(nr, 0);
	free(keys);
	items_abort(&tx);
}

static void a_list_is_dropped_in_steps_and_the_next_one_stays(void **state)
{
	enum { ROWS = ITEMS_DIRTY_DROP + 20 };
	struct key first = many_key(0), last = many_key(UINT64_MAX), *keys;
	struct items_dirty dirty;
	uint64_t gen, v = 1;
	struct itx tx, snap;
	unsigned steps = 0;
	bool done = false;
	size_t nr;

	(void)state;
	begin(&tx, true);
	assert_int_equal(items_set_known(&tx, &first, &last), 0);
	assert_int_equal(items_commit(&tx), 0);
	for (unsigned i = 0; i < ROWS; i++) {	/* a row each */
		struct key key = many_key(i);

		begin(&tx, true);
		assert_int_equal(item_put(&tx, &key, &v, 8), 0);
		assert_int_equal(items_commit(&tx), 0);
	}
	assert_int_equal(items_close_gen(&m.fsd, &gen, &snap, count_closed, &dirty), 0);
	items_abort(&snap);
	begin(&tx, true);
	assert_int_equal(item_put(&tx, &first, &v, 8), 0);
	assert_int_equal(items_commit(&tx), 0);

	while (!done) {
		begin(&tx, true);
		assert_int_equal(items_dirty_list(&tx, gen, &keys, &nr), 0);
		assert_int_equal(nr, ROWS - steps * ITEMS_DIRTY_DROP);
		free(keys);
		assert_int_equal(items_dirty_drop(&tx, gen, &done), 0);
		assert_int_equal(items_commit(&tx), 0);
		steps++;
	}
	assert_int_equal(steps, 2);
	begin(&tx, true);
	assert_int_equal(items_dirty_list(&tx, gen, &keys, &nr), 0);
	assert_int_equal(nr, 0);
	free(keys);
	assert_int_equal(items_dirty_list(&tx, gen + 1, &keys, &nr), 0);
	assert_int_equal(nr, 1);
	assert_true(key_eq(&keys[0], &first));
	free(keys);
	assert_int_equal(items_dirty_drop(&tx, gen, &done), 0);	/* there are none, and later ones */
	assert_true(done);
	assert_int_equal(items_dirty_drop(&tx, gen + 1, &done), 0);
	assert_int_equal(items_dirty_drop(&tx, gen + 1, &done), 0);	/* none at all */
	assert_true(done);
	items_abort(&tx);
}

static void insert_and_delete_look_before_they_change(void **state)
{
	struct key key = key_of(3), other = key_of(4);
	uint64_t v[2] = { 1, 2 };
	struct ival iv;
	struct itx tx;

	(void)state;
	begin(&tx, true);
	assert_int_equal(item_insert(&tx, &key, v, 8), -EAGAIN);	/* not known: it may be there */
	assert_int_equal(item_delete(&tx, &key, NULL, 0), -EAGAIN);
	assert_int_equal(tx.changes, 0);
	assert_int_equal(items_set_known(&tx, &key, &key), 0);
	assert_int_equal(item_delete(&tx, &key, NULL, 0), -ENOENT);
	assert_int_equal(item_insert(&tx, &key, v, 8), 0);
	assert_int_equal(item_insert(&tx, &key, v + 1, 8), -EEXIST);
	assert_int_equal(item_get(&tx, &key, &iv), 0);
	assert_memory_equal(iv.val, v, 8);
	assert_int_equal(item_insert(&tx, &other, v, 8), -EAGAIN);
	/* An interval that was found once is not believed when it has become smaller. */
	assert_int_equal(items_set_known(&tx, &other, &other), 0);
	assert_int_equal(item_get(&tx, &other, &iv), -ENOENT);
	assert_int_equal(range_remove(&tx, &other, &other), 0);
	assert_int_equal(item_get(&tx, &other, &iv), -EAGAIN);
	/* What was malformed when it was read is neither replaced nor deleted. */
	assert_int_equal(items_set_known(&tx, &other, &other), 0);
	assert_int_equal(rec_put(&tx, &other, 0, ITEM_REC_BAD | ITEM_REC_PERSISTENT, v, 8), 0);
	assert_int_equal(item_insert(&tx, &other, v, 8), -EIO);
	assert_int_equal(item_delete(&tx, &other, NULL, 0), -EIO);
	items_abort(&tx);
}

static int parked_run(struct itx *tx)
{
	struct key first = { .zone = ZONE_FS, .first = 2048 };
	struct key last = { .zone = ZONE_FS, .first = 3000 };
	uint8_t val[ITEM_VAL_MAX] = { 0 };
	int ret = items_set_known(tx, &first, &last);

	for (unsigned i = 0; ret == 0 && i < 100000; i++) {
		struct key key = {
			.zone = ZONE_FS, .first = 2048 + i % 900, .type = TYPE_XATTR, .second = i
		};

		ret = item_put(tx, &key, val, sizeof(val));
	}
	return ret;
}

static void full_cache_parks_and_is_usable_again(void **state)
{
	struct op op = { .fsd = &m.fsd };
	struct items_dirty open, closed;
	struct key key = key_of(1);
	struct ival iv;
	struct itx tx;

	(void)state;
	assert_int_equal(items_begin(&m.fsd, &op, true, &tx), 0);
	assert_int_equal(parked_run(&tx), OP_PARKED);
	assert_ptr_equal(op.wait, txn_wait_room);
	assert_int_equal(tx.err, -ENOSPC);
	/* Even if somebody forgot: nothing of it happens. */
	assert_int_equal(items_commit(&tx), -ENOSPC);
	items_dirty(&m.fsd, &open, &closed);
	assert_false(open.any);
	begin(&tx, true);
	assert_int_equal(items_set_known(&tx, &key, &key), 0);
	assert_int_equal(item_put(&tx, &key, "value", 5), 0);
	assert_int_equal(items_commit(&tx), 0);
	begin(&tx, false);
	assert_int_equal(item_get(&tx, &key, &iv), 0);
	assert_memory_equal(iv.val, "value", 5);
	items_abort(&tx);
}

static void what_is_not_known_parks_for_that_key(void **state)
{
	struct op op = { .fsd = &m.fsd };
	struct key key = key_of(10), last = key_of(20), known_to = key_of(15), want;
	struct ival iv;
	struct itx tx;

	(void)state;
	begin(&tx, true);
	assert_int_equal(items_set_known(&tx, &key, &known_to), 0);
	assert_int_equal(items_commit(&tx), 0);
	assert_int_equal(items_begin(&m.fsd, &op, false, &tx), 0);
	assert_int_equal(item_get(&tx, &key, &iv), -ENOENT);
	assert_int_equal(item_next(&tx, &key, &last, &iv), OP_PARKED);
	assert_ptr_equal(op.wait, reader_wait);
	want = key_next(known_to);
	assert_true(key_eq(&op.need.items, &want));
	items_abort(&tx);
}

static void reopened_cache_has_what_was_committed(void **state)
{
	struct key key = key_of(1);
	struct ival iv;
	struct itx tx;

	(void)state;
	begin(&tx, true);
	assert_int_equal(items_set_known(&tx, &key, &key), 0);
	assert_int_equal(item_put(&tx, &key, "value", 5), 0);
	assert_int_equal(items_commit(&tx), 0);
	items_close(&m.fsd);
	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, true), 0);
	begin(&tx, false);
	assert_int_equal(item_get(&tx, &key, &iv), 0);
	items_abort(&tx);
	items_close(&m.fsd);
	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, false), 0);
	begin(&tx, false);
	assert_int_equal(item_get(&tx, &key, &iv), -EAGAIN);
	items_abort(&tx);
}

/* What was not stored yet is nowhere else: it goes only when it cannot be read at all. */
static void what_cannot_be_opened_now_is_there_later(void **state)
{
	struct key key = key_of(1);
	struct rlimit few, before;
	struct ival iv;
	struct itx tx;
	int next;

	(void)state;
	begin(&tx, true);
	assert_int_equal(items_set_known(&tx, &key, &key), 0);
	assert_int_equal(item_put(&tx, &key, "value", 5), 0);
	assert_int_equal(items_commit(&tx), 0);
	items_close(&m.fsd);

	/* One descriptor more, where the cache needs two. */
	next = dup(STDERR_FILENO);
	assert_return_code(next, errno);
	close(next);
	assert_return_code(getrlimit(RLIMIT_NOFILE, &before), errno);
	few = (struct rlimit){ .rlim_cur = (rlim_t)next + 1, .rlim_max = before.rlim_max };
	assert_return_code(setrlimit(RLIMIT_NOFILE, &few), errno);
	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, true), -EMFILE);
	assert_return_code(setrlimit(RLIMIT_NOFILE, &before), errno);

	assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, true), 0);
	begin(&tx, false);
	assert_int_equal(item_get(&tx, &key, &iv), 0);
	items_abort(&tx);
}

/* Whoever goes on from it must not take it for a cache that had nothing in it. */
static void what_makes_no_sense_is_said_and_removed(void **state)
{
	char path[sizeof(m.dir) + 16], junk[16384];
	int fd;

	(void)state;
	memset(junk, 'x', sizeof(junk));
	snprintf(path, sizeof(path), "%s/items.mdb", m.dir);
	for (unsigned is_empty = 0; is_empty < 2; is_empty++) {
		items_close(&m.fsd);
		fd = open(path, O_WRONLY);
		assert_return_code(fd, errno);
		if (is_empty)
			assert_return_code(ftruncate(fd, 0), errno);
		else
			assert_int_equal(write(fd, junk, sizeof(junk)), sizeof(junk));
		close(fd);
		assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, true), -EIO);
		assert_int_equal(access(path, F_OK), -1);
		assert_int_equal(items_open(&m.fsd, m.dir, MAP_BYTES, false), 0);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(answers_are_the_newest_or_unknown),
		T(what_is_dirty_is_never_evicted),
		T(fresh_item_leaves_no_marker_but_a_committing_one_does),
		T(insert_and_delete_look_before_they_change),
		T(what_is_dirty_is_listed_in_order_and_taken_once),
		T(a_list_is_dropped_in_steps_and_the_next_one_stays),
		T(full_cache_parks_and_is_usable_again),
		T(what_is_not_known_parks_for_that_key),
		T(reopened_cache_has_what_was_committed),
		T(what_cannot_be_opened_now_is_there_later),
		T(what_makes_no_sense_is_said_and_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
