/*
 * What stands around fsd's operations, for tests of them over the real item cache: a forest in
 * memory that commits arrive in and reads come from, locks that are granted at once or after a
 * refusal, and a loop that runs operations as op.c does.
 *
 * It is hard on what it tests: operations are stopped at random at each lock and each inode number,
 * items are evicted at random, reads bring a few items only, so everything runs many times from its
 * start.  It checks itself what an operation promises to its surroundings: no item without its
 * lock, no more dirty items than were held, index items that can be replaced.
 */
#ifndef SCOUTFS_TEST_FSD_FAKES_H
#define SCOUTFS_TEST_FSD_FAKES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/item_check.h"
#include "memdev.h"
#include "services/fsd/caller.h"
#include "services/fsd/data.h"
#include "services/fsd/fuse.h"
#include "services/fsd/gonedir.h"
#include "services/fsd/inode.h"
#include "services/fsd/items_impl.h"
#include "services/fsd/locks.h"
#include "services/fsd/orphan.h"
#include "services/fsd/quota.h"
#include "services/fsd/reader.h"

#define FAKE_CACHE_BYTES	(64u << 20)
#define FAKE_USES_MAX		64u

struct fake_item {
	struct key key;
	size_t len;
	uint8_t *val;		/* of inodes: struct disk_inode */
	uint64_t index_meta, index_data;	/* of inodes: what the index has for it */
};

static struct {
	struct fsd fsd;
	char dir[64];
	uint64_t seed;
	bool calm;		/* nothing is refused or evicted at random */
	unsigned evict_one_in;	/* attempts to run an operation */

	struct fake_item *forest;
	size_t forest_nr, forest_max;
	int64_t inode_count;

	struct { struct key start; uint8_t mode; } uses[FAKE_USES_MAX];
	unsigned uses_nr;
	unsigned hold_nr;
	uint64_t next_ino[2];

	bool closing;		/* a generation is closed and not yet committed */
	uint64_t gen;
	struct itx snap;
	unsigned parked;	/* how often anything was, in all */
	unsigned name_reads;	/* for entries of directories */
} fake;

static inline bool chance(unsigned one_in)
{
	return test_random(&fake.seed) % one_in == 0;
}

static inline uint64_t below(uint64_t n)
{
	return test_random(&fake.seed) % n;
}

/* ---- locks, numbers, room -------------------------------------------------------------------- */

static inline int fake_lock(struct op *op, const struct key *key, uint8_t mode)
{
	struct key start = key_lock_start(key);
	bool refused = !fake.calm && chance(12);
	unsigned i = 0;

	while (i < fake.uses_nr && !key_eq(&fake.uses[i].start, &start))
		i++;
	if (i < fake.uses_nr && fake.uses[i].mode >= mode)
		return 0;
	assert_in_range(i, 0, FAKE_USES_MAX - 1);
	if (i == fake.uses_nr)
		fake.uses_nr++;
	fake.uses[i].start = start;
	fake.uses[i].mode = mode;
	return refused ? op_park(op, lock_wait) : 0;
}

int lock_inode(struct op *op, uint64_t ino, enum lock_mode mode)
{
	struct key key = key_inode(ino);

	return fake_lock(op, &key, (uint8_t)mode);
}

int lock_key(struct op *op, const struct key *key, enum lock_mode mode)
{
	return fake_lock(op, key, (uint8_t)mode);
}

int lock_rename(struct op *op)
{
	const struct key key = { .zone = ZONE_LOCK, .type = TYPE_LOCK_RENAME };

	return fake_lock(op, &key, LOCK_MODE_WRITE);
}

bool lock_try_inode(struct op *op, uint64_t ino)
{
	(void)op;
	if (!fake.calm && chance(3))
		return false;
	return fake_lock(op, &(struct key){ .zone = ZONE_FS, .first = ino, .type = TYPE_INODE },
			 LOCK_MODE_READ) == 0;
}

bool lock_covers(const struct op *op, const struct key *key, bool write)
{
	struct key start = key_lock_start(key);

	(void)op;
	if (key->zone == ZONE_ORPHAN)
		return fake.uses_nr > 0;
	for (unsigned i = 0; i < fake.uses_nr; i++) {
		if (key_eq(&fake.uses[i].start, &start))
			return !write || fake.uses[i].mode == LOCK_MODE_WRITE;
	}
	return false;
}

void lock_release_inode(struct op *op, uint64_t ino)
{
	struct key key = key_inode(ino), start = key_lock_start(&key);

	(void)op;
	for (unsigned i = 0; i < fake.uses_nr; i++) {
		if (key_eq(&fake.uses[i].start, &start) && fake.uses[i].mode == LOCK_MODE_READ) {
			fake.uses[i] = fake.uses[--fake.uses_nr];
			return;
		}
	}
}

void lock_wait(struct op *op)
{
	(void)op;
}

double lock_kernel_timeout(struct fsd *fsd, uint64_t ino)
{
	(void)fsd;
	(void)ino;
	return 1.0;
}

double inode_attr_timeout(struct fsd *fsd, uint64_t ino)
{
	return lock_kernel_timeout(fsd, ino);
}

void inode_give_begin(struct fsd *fsd, uint64_t pages_of)
{
	(void)fsd;
	(void)pages_of;
}

void inode_give_end(struct fsd *fsd)
{
	(void)fsd;
}

void gonedir_named(uint64_t ino, uint64_t parent, const char *name, size_t len)
{
	(void)ino, (void)parent, (void)name, (void)len;
}

void gonedir_forgotten(struct fsd *fsd, uint64_t ino)
{
	(void)fsd, (void)ino;
}

double kcache_entry_timeout(struct fsd *fsd, uint64_t dir)
{
	(void)fsd;
	(void)dir;
	return 1.0;
}

int txn_hold(struct op *op, struct itx *tx, unsigned items_nr, bool allocating)
{
	(void)op;
	(void)tx;
	(void)allocating;
	fake.hold_nr = items_nr;
	return 0;
}

int txn_alloc_ino(struct op *op, struct itx *tx, bool dir, uint64_t *ino)
{
	(void)tx;
	if (!fake.calm && chance(8))
		return op_park(op, txn_wait_room);
	/* sometimes a new group, as when a batch is used up */
	if (chance(16))
		fake.next_ino[dir] = (fake.next_ino[0] > fake.next_ino[1] ? fake.next_ino[0]
									  : fake.next_ino[1]) +
				     2048;
	*ino = fake.next_ino[dir]++;
	return 0;
}

uint64_t txn_last_unused_ino(const struct itx *tx, bool dir, uint64_t ino)
{
	uint64_t group_last = ino | (INODE_LOCK_GROUP - 1), last = ino + below(40);

	(void)tx;
	if (fake.next_ino[dir] != ino + 1)
		return ino;
	return last < group_last ? last : group_last;
}

int txn_inode_count_add(struct itx *tx, int delta)
{
	(void)tx;
	fake.inode_count += delta; /* last thing an operation does: it is not stopped any more */
	return 0;
}

void txn_touch(struct itx *tx, const struct key *key, const void *val, size_t len)
{
	(void)tx;
	(void)key;
	(void)val;
	(void)len;
}

void txn_wait_room(struct op *op)
{
	(void)op;
}

static inline void fake_commit_gen(void);

/* The snapshot of a generation keeps every page that was written since. */
void txn_commit_wait(struct fsd *fsd, enum txn_why why, uint64_t gen)
{
	(void)fsd;
	(void)why;
	(void)gen;
	if (!fake.closing)
		fail_msg("the cache is full");
	fake_commit_gen();
}

int quota_check(struct op *op, struct itx *tx, enum quota_op what, uint64_t proj, uint32_t uid,
		uint32_t gid)
{
	(void)op;
	(void)tx;
	(void)what;
	(void)proj;
	(void)uid;
	(void)gid;
	return 0;
}

void inode_open(struct fsd *fsd, uint64_t ino)
{
	(void)fsd;
	(void)ino;
}

void reader_wait(struct op *op)
{
	(void)op;
}

/* Of whoever asks for a change. */
static uint64_t caller_has;
int caller_caps(pid_t tid, uint32_t uid, uint32_t gid, uint64_t *caps)
{
	(void)uid; (void)gid;
	*caps = caller_has;
	return tid ? 0 : -EOPNOTSUPP;
}
void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	(void)fsd;
	fprintf(stderr, "fsd_fail: %s\n", fmt);
	abort();
}

/* ---- data: no operation here has any --------------------------------------------------------- */

int data_wait_pending(struct op *op, uint64_t ino, bool take_error)
{
	(void)op;
	(void)ino;
	(void)take_error;
	return 0;
}

int data_set_size(struct itx *tx, uint64_t ino, struct cinode *ci, uint64_t size)
{
	(void)tx;
	(void)ino;
	ci->d.size = le64_of(size);
	return 0;
}

int data_truncate_some(struct itx *tx, uint64_t ino, struct cinode *ci, uint64_t from_iblock,
		       unsigned max)
{
	(void)tx;
	(void)ino;
	(void)ci;
	(void)from_iblock;
	(void)max;
	return 0;
}

/* ---- the forest ------------------------------------------------------------------------------ */

/* Where key is or would be. */
static inline size_t forest_at(const struct key *key)
{
	size_t lo = 0, hi = fake.forest_nr;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (key_cmp(&fake.forest[mid].key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static inline struct fake_item *forest_find(const struct key *key)
{
	size_t at = forest_at(key);

	return at < fake.forest_nr && key_eq(&fake.forest[at].key, key) ? &fake.forest[at] : NULL;
}

static inline struct fake_item *forest_put(const struct key *key, const void *val, size_t len)
{
	size_t at = forest_at(key);
	struct fake_item *it;

	if (at == fake.forest_nr || !key_eq(&fake.forest[at].key, key)) {
		if (fake.forest_nr == fake.forest_max) {
			fake.forest_max = fake.forest_max ? fake.forest_max * 2 : 1024;
			fake.forest = realloc(fake.forest, fake.forest_max * sizeof(*fake.forest));
			assert_non_null(fake.forest);
		}
		memmove(fake.forest + at + 1, fake.forest + at,
			(fake.forest_nr - at) * sizeof(*fake.forest));
		fake.forest_nr++;
		fake.forest[at] = (struct fake_item){ .key = *key,
						      .index_meta = SEQ_NONE,
						      .index_data = SEQ_NONE };
	}
	it = &fake.forest[at];
	free(it->val);
	it->val = malloc(len ? len : 1);
	assert_non_null(it->val);
	if (len)
		memcpy(it->val, val, len);
	it->len = len;
	return it;
}

static inline void forest_remove(const struct key *key)
{
	struct fake_item *it = forest_find(key);

	if (!it)
		return;
	free(it->val);
	memmove(it, it + 1, (size_t)(fake.forest + --fake.forest_nr - it) * sizeof(*it));
}

static inline bool is_inode_key(const struct key *key)
{
	return key->zone == ZONE_FS && key->type == TYPE_INODE;
}

struct fake_read {
	struct items_sample sample;
	struct key start, end;
	struct read_item *items;
	size_t nr;
};

static inline int fake_insert(struct itx *tx, void *arg)
{
	struct fake_read *r = arg;

	return items_insert_read(tx, &r->sample, &r->start, &r->end, r->items, r->nr);
}

/* Bring key and some of its neighbours into the cache, as a reader does from one leaf. */
static inline void fake_fetch(const struct key *key)
{
	struct key lock_start = key_lock_start(key);
	struct fake_read r = { .start = lock_start, .end = key_lock_end(&lock_start) };
	size_t at = forest_at(key), from = forest_at(&r.start), to = from, nr = below(40);
	struct cinode *cis;

	items_sample(&fake.fsd, key, &r.sample);
	if (!fake.calm) {
		if (at > from + nr) {
			from = at - nr;
			r.start = nr ? fake.forest[from].key : *key;
		}
		to = at + below(40);
		if (to < fake.forest_nr && key_cmp(&fake.forest[to].key, &r.end) < 0)
			r.end = fake.forest[to].key;
	}
	r.items = calloc(fake.forest_nr + 1, sizeof(*r.items));
	cis = calloc(fake.forest_nr + 1, sizeof(*cis));
	for (; from < fake.forest_nr && key_cmp(&fake.forest[from].key, &r.end) <= 0; from++) {
		const struct fake_item *f = &fake.forest[from];
		struct read_item *it = &r.items[r.nr];

		*it = (struct read_item){ .key = f->key, .len = (uint16_t)f->len, .val = f->val };
		if (is_inode_key(&f->key)) {
			struct item disk = { .key = f->key,
					     .val = f->val,
					     .val_len = (uint16_t)f->len };

			cinode_from_item(&disk, &cis[r.nr]);
			it->val = &cis[r.nr];
			it->len = sizeof(*cis);
		}
		r.nr++;
	}
	assert_int_equal(items_run(&fake.fsd, fake_insert, &r), 0);
	free(r.items);
	free(cis);
}

/* ---- generations ----------------------------------------------------------------------------- */

static inline uint64_t fake_seq(uint64_t seq)
{
	return seq != SEQ_NONE && seq & SEQ_REF ? 1000 + (seq & ~SEQ_REF) : seq;
}

static inline void fake_commit_inode(const struct key *key, const struct item_rec *rec)
{
	struct key orphan = key_orphan(key->first);
	struct fake_item *it = forest_find(key);
	struct cinode ci;
	struct disk_inode d;

	assert_int_equal(rec->len, sizeof(ci));
	memcpy(&ci, rec->val, sizeof(ci));
	assert_int_equal(ci.gen, fake.gen);
	/* the index items that the commit deletes are those that are there */
	assert_int_equal(fake_seq(ci.prev_meta_seq), it ? it->index_meta : SEQ_NONE);
	assert_int_equal(fake_seq(ci.prev_data_seq), it ? it->index_data : SEQ_NONE);
	assert_int_equal(ci.was_orphan, forest_find(&orphan) != NULL);
	if (ci.was_orphan)
		forest_remove(&orphan);
	if (ci.is_orphan)
		forest_put(&orphan, NULL, 0);
	it = forest_find(key);
	if (rec->flags & ITEM_REC_DELETED) {
		assert_non_null(it);
		forest_remove(key);
		return;
	}
	assert_int_equal(le64_get(ci.d.meta_seq), seq_ref(fake.gen));
	cinode_to_disk(&ci, fake_seq(le64_get(ci.d.meta_seq)), fake_seq(le64_get(ci.d.data_seq)),
		       &d);
	it = forest_put(key, &d, sizeof(d));
	it->index_meta = le64_get(d.meta_seq);
	it->index_data = S_ISREG(le32_get(d.mode)) ? le64_get(d.data_seq) : SEQ_NONE;
}

static inline void fake_commit_item(const struct key *key, const struct item_rec *rec)
{
	assert_int_equal(rec->mark, fake.gen);
	if (is_inode_key(key))
		fake_commit_inode(key, rec);
	else if (rec->flags & ITEM_REC_DELETED)
		forest_remove(key);
	else
		forest_put(key, rec->val, rec->len);
}

/* Each key that is dirty in generation `gen`, as tx sees it. */
static inline size_t fake_dirty(struct itx *tx, uint64_t gen, struct key **keys)
{
	const struct item_rec *rec;
	size_t nr, n = 0;

	assert_int_equal(items_dirty_list(tx, gen, keys, &nr), 0);
	for (size_t i = 0; i < nr; i++) {
		if (rec_get(tx, &(*keys)[i], &rec) > 0 && rec->mark == gen)
			(*keys)[n++] = (*keys)[i];
	}
	return n;
}

static inline int fake_committed(struct itx *tx, void *arg)
{
	struct key keys[ITEMS_DIRTY_TAKE];
	const struct item_rec *rec;
	size_t nr = 1;
	int ret = items_set_committed(tx, fake.gen);

	(void)arg;
	while (ret == 0 && nr > 0) {
		ret = items_dirty_take(tx, fake.gen, keys, &nr);
		for (size_t i = 0; i < nr && ret == 0; i++) {
			if (rec_get(tx, &keys[i], &rec) > 0 && rec->mark == fake.gen &&
			    rec->flags & ITEM_REC_DELETED)
				ret = rec_del_found(tx);
		}
	}
	return ret;
}

static inline void fake_closed(void *arg, const struct items_dirty *dirty)
{
	(void)arg;
	(void)dirty;
}

static inline void fake_close_gen(void)
{
	if (fake.closing)
		return;
	assert_int_equal(items_close_gen(&fake.fsd, &fake.gen, &fake.snap, fake_closed, NULL), 0);
	fake.closing = true;
}

static inline void fake_commit_gen(void)
{
	struct key *keys;
	size_t nr;

	if (!fake.closing)
		return;
	nr = fake_dirty(&fake.snap, fake.gen, &keys);
	for (size_t i = 0; i < nr; i++) {
		const struct item_rec *rec;

		assert_int_equal(rec_get(&fake.snap, &keys[i], &rec), 1);
		fake_commit_item(&keys[i], rec);
	}
	free(keys);
	items_abort(&fake.snap);
	assert_int_equal(items_run(&fake.fsd, fake_committed, NULL), 0);
	fake.closing = false;
}

/* Everything is in the forest after it. */
static inline void fake_sync(void)
{
	fake_commit_gen();
	fake_close_gen();
	fake_commit_gen();
}

/* ---- running --------------------------------------------------------------------------------- */

/* As op.c: until it is done.  Its result. */
static inline int fake_run(struct op *op, bool writes, int (*run)(struct op *, struct itx *))
{
	op->fsd = &fake.fsd;
	fake.uses_nr = 0;
	for (unsigned n = 0;; n++) {
		struct itx tx;
		int ret;

		assert_in_range(n, 0, 2000);
		if (!fake.calm && chance(fake.evict_one_in))
			items_evict(&fake.fsd, true);
		assert_int_equal(items_begin(&fake.fsd, op, writes, &tx), 0);
		fake.hold_nr = 0;
		ret = run(op, &tx);
		if (ret >= 0) {
			assert_in_range(tx.dirty_nr, 0, fake.hold_nr);
			assert_int_equal(items_commit(&tx), 0);
			if (ret == OP_MORE)
				continue;
			return ret;
		}
		items_abort(&tx);
		if (ret != OP_PARKED)
			return ret;
		fake.parked++;
		assert_non_null(op->wait);
		if (op->wait == reader_wait) {
			uint8_t type = op->need.items.type;

			fake.name_reads += type == TYPE_DIRENT || type == TYPE_READDIR;
			fake_fetch(&op->need.items);
		}
		op->wait = NULL;
	}
}

static inline void fake_open(uint64_t seed, bool calm)
{
	struct disk_inode root = { .mode = le32_of(S_IFDIR | 0755),
				   .nlink = le32_of(2),
				   .next_readdir_pos = le64_of(DIRENT_FIRST_POS),
				   .meta_seq = le64_of(1) };
	struct key key = key_inode(ROOT_INO);

	memset(&fake, 0, sizeof(fake));
	fake.seed = seed;
	fake.calm = calm;
	fake.evict_one_in = 6;
	fake.fsd.fmt_vers = 2;
	fake.fsd.conf.acl = true;
	fake.next_ino[0] = 5000;
	fake.next_ino[1] = 2048;
	fake.inode_count = 1;
	forest_put(&key, &root, sizeof(root))->index_meta = 1;
	strcpy(fake.dir, "/tmp/test_fsd_ops.XXXXXX");
	assert_non_null(mkdtemp(fake.dir));
	assert_int_equal(items_open(&fake.fsd, fake.dir, FAKE_CACHE_BYTES, false), 0);
}

static inline void fake_close(void)
{
	char file[96];

	if (fake.closing)
		items_abort(&fake.snap);
	items_close(&fake.fsd);
	snprintf(file, sizeof(file), "%s/items.mdb", fake.dir);
	unlink(file);
	snprintf(file, sizeof(file), "%s/items.mdb-lock", fake.dir);
	unlink(file);
	assert_int_equal(rmdir(fake.dir), 0);
	for (size_t i = 0; i < fake.forest_nr; i++)
		free(fake.forest[i].val);
	free(fake.forest);
}

#endif
