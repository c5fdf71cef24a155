/*
 * Generations and commits against a leader that keeps a volume in memory: operations go on while
 * commits run, and after each commit the forest on the device is compared with what the operations
 * have done.
 *
 * The leader gives blocks, takes log trees, sometimes finishes a tree and begins the next, moves
 * freed data blocks back, and keeps account of every metadata block it gave: each is in one place.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkcli.h"
#include "clock.h"
#include "csum/csum.h"
#include "memdev.h"
#include "services/fsd/data.h"
#include "services/fsd/inode.h"
#include "services/fsd/items_impl.h"
#include "services/fsd/locks.h"
#include "services/fsd/merge.h"
#include "services/fsd/net.h"
#include "services/fsd/op.h"
#include "services/fsd/reader.h"
#include "services/fsd/txn_impl.h"

#define FSID		0x1234567890abcdefull
#define RID		77u
#define META_BLOCKS	400000u
#define LIST_NR		1200u
#define DATA_FIRST	DATA_FIRST_BLKNO
#define DATA_NR		20000u
#define INODES_NR	150u
#define XATTRS_NR	40u	/* most an inode has */
#define DEADLINE_S	60u

/* ---- the leader and the device ------------------------------------------------------------- */

enum { NOT_GIVEN, GIVEN, TAKEN_BACK };

static struct {
	pthread_mutex_t lock;		/* of the device and of the leader */
	struct memdev dev;
	struct block_set *bs;
	struct blkno_alloc al;
	uint64_t next_blkno;
	uint8_t given[META_BLOCKS];
	struct disk_btree_root fs_root, logs_root;
	struct disk_log_trees lt;
	uint64_t seq;
	uint64_t stable_seq;
	unsigned roots_asked;
	uint64_t next_ino;
	unsigned commits, finalize_every, list_nr;
	unsigned hold_every;		/* such a commit is answered without the next transaction */
	atomic_bool is_holding;		/* who asks for that waits */
	atomic_bool is_low;		/* it says that there is no space */
	atomic_uint waits;
	unsigned flushes;
	bool fails_others;		/* before the next flush another thread's failed */
	uint64_t failures;		/* such flushes */
	bool flushed;			/* nothing was written since the last flush */
	bool flushes_itself;		/* what comes need not be flushed */
	atomic_ullong own_term;		/* it is of this instance; 0: it is not */
	bool is_older;			/* it does not know commits that it is to flush for */
	unsigned unflushed;		/* such commits, */
	unsigned changes_every;		/* ... and when another leads instead */
} leader;

static pthread_mutex_t call_lock = PTHREAD_MUTEX_INITIALIZER;	/* one request at a time */

static int dev_read(void *arg, uint64_t blkno, void *buf)
{
	int ret;

	(void)arg;
	pthread_mutex_lock(&leader.lock);
	ret = memdev_read(&leader.dev, blkno, buf);
	pthread_mutex_unlock(&leader.lock);
	return ret;
}

/* arg: whether it is the leader's own, which is not flushed by the mount. */
static int dev_write(void *arg, const struct block_write *w, size_t nr)
{
	int ret;

	pthread_mutex_lock(&leader.lock);
	ret = memdev_write(&leader.dev, w, nr);
	if (!arg)
		leader.flushed = false;
	pthread_mutex_unlock(&leader.lock);
	return ret;
}

static uint64_t dev_random(void *arg)
{
	uint64_t r;

	(void)arg;
	pthread_mutex_lock(&leader.lock);
	r = memdev_random(&leader.dev);
	pthread_mutex_unlock(&leader.lock);
	return r;
}

struct block_dev blkcli_block_dev(struct blkcli *c)
{
	(void)c;
	return (struct block_dev){ .read = dev_read, .write = dev_write, .random = dev_random };
}

int blkcli_run(struct blkcli *c, struct blkcli_op *ops, size_t nr)
{
	int ret = 0;

	(void)c;
	pthread_mutex_lock(&leader.lock);
	for (size_t i = 0; i < nr && ret == 0; i++) {
		struct block_write w = { ops[i].dev_off >> LARGE_SHIFT, ops[i].buf };

		if (ops[i].op == BLK_OP_WRITE) {
			assert_int_equal(ops[i].dev, BLK_DEV_META);
			assert_int_equal(ops[i].len, LARGE_SIZE);
			ret = memdev_write(&leader.dev, &w, 1);
			leader.flushed = false;
			continue;
		}
		/* Together with what it is to cover it must say so. */
		assert_int_equal(ops[i].op, BLK_OP_FLUSH);
		assert_true(ops[i].is_after || nr == 1);
		if (ops[i].dev == BLK_DEV_META)
			leader.flushed = true;
		leader.flushes++;
		leader.failures += leader.fails_others;
		leader.fails_others = false;
	}
	pthread_mutex_unlock(&leader.lock);
	return ret;
}

uint64_t blkcli_flush_failures(struct blkcli *c, enum blk_device dev)
{
	uint64_t nr;

	(void)c, (void)dev;
	pthread_mutex_lock(&leader.lock);
	nr = leader.failures;
	pthread_mutex_unlock(&leader.lock);
	return nr;
}

static int lead_alloc(void *arg, uint64_t *blkno)
{
	(void)arg;
	assert_true(leader.next_blkno < META_BLOCKS);
	*blkno = leader.next_blkno++;
	return 0;
}

static int lead_free(void *arg, uint64_t blkno)
{
	(void)arg;
	if (leader.given[blkno] == GIVEN)
		leader.given[blkno] = TAKEN_BACK;
	return 0;
}

/* A block that belongs to the mount from now on. */
static int give_alloc(void *arg, uint64_t *blkno)
{
	int ret = lead_alloc(arg, blkno);

	leader.given[*blkno] = GIVEN;
	return ret;
}

static struct blkno_alloc give_al = { .alloc = give_alloc, .free = lead_free };

static void put_lt(void)
{
	struct item it = { .key = key_log_trees(RID, le64_get(leader.lt.nr)), .val = &leader.lt,
			   .val_len = sizeof(leader.lt) };

	assert_int_equal(btree_force(leader.bs, &leader.al, &leader.logs_root, &it), 0);
	assert_int_equal(block_set_write(leader.bs), 0);
}

static int take_list_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	(void)arg;
	assert_int_equal(leader.given[ref.blkno], GIVEN);
	leader.given[ref.blkno] = TAKEN_BACK;
	for (uint32_t i = 0; i < le32_get(b->nr); i++) {
		uint64_t blkno = le64_get(b->blknos[le32_get(b->start) + i]);

		assert_int_equal(leader.given[blkno], GIVEN);
		leader.given[blkno] = TAKEN_BACK;
	}
	return 0;
}

static void take_list(struct disk_alloc_list_head *head)
{
	uint32_t flags = le32_get(head->flags);

	assert_int_equal(alloc_list_each(leader.bs, head, take_list_block, NULL), 0);
	*head = (struct disk_alloc_list_head){ .flags = le32_of(flags) };
}

static void give_list(struct disk_alloc_list_head *head, uint32_t nr)
{
	struct disk_alloc_list_block *b;
	struct block_ref ref = { 0 };
	struct block *bl;
	uint64_t blkno;

	assert_int_equal(block_new(leader.bs, &give_al, MAGIC_ALLOC_LIST, &ref, &bl), 0);
	b = bl->data;
	for (uint32_t i = 0; i < nr; i++) {
		give_alloc(NULL, &blkno);
		b->blknos[i] = le64_of(blkno);
	}
	b->nr = le32_of(nr);
	block_put(leader.bs, bl);
	head->ref = block_ref_put(ref);
	head->first_nr = le32_of(nr);
	head->total_nr = le64_of(nr);
}

static void finalize(void)
{
	struct extent ext;
	uint64_t nr = le64_get(leader.lt.nr);
	struct disk_alloc_root avail = leader.lt.data_avail, freed = leader.lt.data_freed;

	take_list(&leader.lt.meta_avail);
	take_list(&leader.lt.meta_freed);
	memset(&leader.lt.data_avail, 0, sizeof(avail));
	memset(&leader.lt.data_freed, 0, sizeof(freed));
	leader.lt.flags = le64_of(LOG_TREES_FLAG_FINALIZED);
	leader.lt.finalize_seq = le64_of(++leader.seq);
	put_lt();
	memset(&leader.lt, 0, sizeof(leader.lt));
	leader.lt.rid = le64_of(RID);
	leader.lt.nr = le64_of(nr + 1);
	for (uint64_t at = 0; free_extents_next(leader.bs, &avail, at, &ext) == 0;
	     at = ext.start + ext.len)
		assert_int_equal(
			free_extents_insert(leader.bs, &give_al, &leader.lt.data_avail, ext), 0);
	for (uint64_t at = 0; free_extents_next(leader.bs, &freed, at, &ext) == 0;
	     at = ext.start + ext.len)
		assert_int_equal(
			free_extents_insert(leader.bs, &give_al, &leader.lt.data_avail, ext), 0);
	assert_int_equal(btree_free(leader.bs, &leader.al, &avail.root), 0);
	assert_int_equal(btree_free(leader.bs, &leader.al, &freed.root), 0);
}

/* Unlocked: the device's callbacks lock for themselves. */
static void open_next(void)
{
	uint64_t moved;

	if (leader.finalize_every && leader.commits && leader.commits % leader.finalize_every == 0)
		finalize();
	take_list(&leader.lt.meta_freed);
	if (le32_get(leader.lt.meta_avail.first_nr) < leader.list_nr / 10 * 9) {
		take_list(&leader.lt.meta_avail);
		give_list(&leader.lt.meta_avail, leader.list_nr);
	}
	if (leader.commits % 3 == 0)
		assert_int_equal(free_extents_move(leader.bs, &give_al, &leader.lt.data_avail,
						   &leader.lt.data_freed, UINT64_MAX, 100000,
						   &moved),
				 0);
	leader.lt.meta_avail.flags = le32_of(atomic_load(&leader.is_low) ? ALLOC_FLAG_LOW : 0);
	leader.lt.get_trans_seq = le64_of(++leader.seq);
	put_lt();
}

int net_open_log_trees(struct fsd *fsd, struct disk_log_trees *lt)
{
	(void)fsd;
	atomic_fetch_add(&leader.waits, 1);
	while (atomic_load(&leader.is_holding))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	pthread_mutex_lock(&call_lock);
	if (le64_get(leader.lt.get_trans_seq) == le64_get(leader.lt.commit_trans_seq))
		open_next();
	*lt = leader.lt;
	pthread_mutex_unlock(&call_lock);
	return 0;
}

int net_commit_log_trees(struct fsd *fsd, const struct disk_log_trees *lt, bool next_too,
			 struct disk_log_trees *next)
{
	struct item it = { .key = key_log_trees(RID, le64_get(lt->nr)), .val = lt, .val_len = sizeof(*lt) };
	struct disk_log_trees copy;

	(void)fsd;
	/* So that operations meet commits. */
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	pthread_mutex_lock(&call_lock);
	pthread_mutex_lock(&leader.lock);
	assert_true(leader.flushed || leader.flushes_itself);
	pthread_mutex_unlock(&leader.lock);
	assert_int_equal(log_trees_check(&it, &copy), 0);
	assert_int_equal(le64_get(lt->get_trans_seq), le64_get(leader.lt.get_trans_seq));
	assert_int_equal(le64_get(lt->nr), le64_get(leader.lt.nr));
	leader.lt = *lt;
	leader.lt.commit_trans_seq = lt->get_trans_seq;
	if (le64_get(lt->max_item_seq) > leader.seq)
		leader.seq = le64_get(lt->max_item_seq);
	leader.stable_seq = leader.seq;
	leader.commits++;
	put_lt();
	if (next_too && (!leader.hold_every || leader.commits % leader.hold_every))
		open_next();
	*next = leader.lt;
	pthread_mutex_unlock(&call_lock);
	return 0;
}

uint64_t net_own_term(struct fsd *fsd)
{
	(void)fsd;
	return atomic_load(&leader.own_term);
}

/* Another term leads when it comes; it was stored before, or it was not. */
int net_commit_unflushed(struct fsd *fsd, const struct disk_log_trees *lt, uint64_t term,
			 struct disk_log_trees *next)
{
	int ret;

	leader.unflushed++;
	if (leader.is_older) {
		memset(next, 0x55, sizeof(*next));
		return -EOPNOTSUPP;
	}
	if (leader.changes_every && leader.unflushed % leader.changes_every == 0) {
		if (leader.unflushed % 2) {
			leader.flushes_itself = true;
			net_commit_log_trees(fsd, lt, true, next);
			leader.flushes_itself = false;
		}
		memset(next, 0x55, sizeof(*next));
		atomic_fetch_add(&leader.own_term, 1);
		return -EAGAIN;
	}
	assert_int_equal(term, atomic_load(&leader.own_term));
	leader.flushes_itself = true;
	ret = net_commit_log_trees(fsd, lt, true, next);
	leader.flushes_itself = false;
	return ret;
}

int net_get_roots(struct fsd *fsd, struct forest_roots *roots, uint64_t *last_stable_seq)
{
	(void)fsd;
	pthread_mutex_lock(&call_lock);
	memset(roots, 0, sizeof(*roots));
	roots->fs_root = leader.fs_root;
	roots->logs_root = leader.logs_root;
	*last_stable_seq = leader.stable_seq;
	leader.roots_asked++;
	pthread_mutex_unlock(&call_lock);
	return 0;
}

int net_alloc_inodes(struct fsd *fsd, uint64_t count, uint64_t *start, uint64_t *nr)
{
	(void)fsd, (void)count;
	pthread_mutex_lock(&call_lock);
	*start = leader.next_ino;
	*nr = 1500;
	leader.next_ino += 1500;
	pthread_mutex_unlock(&call_lock);
	return 0;
}

/* Where who waits for room looks while a commit runs: what it does with that comes after the commit's end. */
static struct {
	atomic_bool on;
	atomic_uint nr;
} late_looks;

void __real_items_dirty(struct fsd *fsd, struct items_dirty *open, struct items_dirty *closed);
void __wrap_items_dirty(struct fsd *fsd, struct items_dirty *open, struct items_dirty *closed);

static uint64_t room_told(struct txn *t)
{
	uint64_t told;

	pthread_mutex_lock(&t->lock);
	told = t->room_told;
	pthread_mutex_unlock(&t->lock);
	return told;
}

void __wrap_items_dirty(struct fsd *fsd, struct items_dirty *open, struct items_dirty *closed)
{
	struct txn *t = fsd->txn;
	uint64_t told = room_told(t);

	__real_items_dirty(fsd, open, closed);
	if (!atomic_load(&late_looks.on) || pthread_equal(pthread_self(), t->thread) || open->any || !closed->any)
		return;
	while (room_told(t) == told)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	atomic_fetch_add(&late_looks.nr, 1);
}

/* ---- the rest of a mount ------------------------------------------------------------------- */

int lock_inode(struct op *op, uint64_t ino, enum lock_mode mode)
{
	(void)op, (void)ino, (void)mode;
	return 0;
}

bool lock_covers(const struct op *op, const struct key *key, bool write)
{
	(void)op, (void)key, (void)write;
	return true;
}

void lock_wait(struct op *op)
{
	op_wake(op);
}

void lock_unuse(struct op *op)
{
	(void)op;
}

void lock_note_dirty(struct op *op, uint64_t gen)
{
	(void)op, (void)gen;
}

static bool is_young_lock(uint64_t ino)
{
	return ino / INODE_LOCK_GROUP % 2 == 0;
}

/* For every other group as if it had been granted after the transaction was opened. */
uint64_t lock_write_seq(struct fsd *fsd, const struct key *key)
{
	uint64_t seq;

	(void)fsd;
	pthread_mutex_lock(&call_lock);
	seq = leader.seq + 1;
	pthread_mutex_unlock(&call_lock);
	return is_young_lock(key->first) ? seq : 0;
}

struct pool_batch {
	uint64_t gen;
};

int pool_collect(struct itx *snapshot, uint64_t gen, struct pool_batch **out)
{
	(void)snapshot;
	*out = malloc(sizeof(**out));
	assert_non_null(*out);
	(*out)->gen = gen;
	return 0;
}

bool pool_batch_is_empty(const struct pool_batch *pb)
{
	(void)pb;
	return false;
}

int pool_write(struct fsd *fsd, struct pool_batch *pb, struct blkcli_op *rest, size_t *rest_nr)
{
	(void)fsd, (void)pb, (void)rest;
	*rest_nr = 0;
	return 0;
}

int pool_fold(struct fsd *fsd, uint64_t from, uint64_t to)
{
	(void)fsd;
	(void)from;
	(void)to;
	return 0;
}

void pool_committed(struct fsd *fsd, struct pool_batch *pb)
{
	assert_true(txn_committed_gen(fsd) >= pb->gen);
	free(pb);
}

void merge_kick(struct fsd *fsd)
{
	(void)fsd;
}

void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	(void)fsd;
	fprintf(stderr, "fsd_fail: %s\n", fmt);
	abort();
}

void fsd_fenced(struct fsd *fsd)
{
	(void)fsd;
	fprintf(stderr, "fsd_fenced\n");
	abort();
}

/* ---- operations and the model -------------------------------------------------------------- */

struct minode {
	uint64_t ino;		/* 0: none in this place */
	uint32_t mode;
	uint64_t size;
	bool is_orphan;
	uint64_t xattrs;	/* a bit for each id that has one */
	struct extent ext;	/* len 0: none */
	uint64_t meta_at, data_at; /* the leader's last sequence number before it was changed */
};

enum what { CREATE, TOUCH, WRITE, XATTR, DELETE, ORPHAN, ADOPT, ALLOC, FREE, WHATS_NR };

struct step {
	struct op op;
	enum what what;
	struct minode mi;
	unsigned id;		/* of the xattr */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int err;
	uint64_t gen;
};

static struct fsd fsd;
static char dir[64];
static uint64_t seed;
static struct minode inodes[INODES_NR];
static uint64_t inodes_nr;
static struct step the_step;

static int run_create(struct step *s, struct itx *tx)
{
	struct key first, last;
	struct cinode ci;
	int ret = 0;

	if (!s->mi.ino)
		ret = txn_alloc_ino(&s->op, tx, S_ISDIR(s->mi.mode), &s->mi.ino);
	if (ret < 0)
		return ret;
	first = (struct key){ .zone = ZONE_FS, .first = s->mi.ino };
	last = (struct key){ .zone = ZONE_FS,
			     .first = s->mi.ino,
			     .type = UINT8_MAX,
			     .second = UINT64_MAX,
			     .third = UINT64_MAX,
			     .fourth = UINT8_MAX };
	ret = items_set_known(tx, &first, &last);
	inode_init(tx, &ci, s->mi.mode, 1, 2, 0);
	if (ret == 0)
		ret = inode_put(tx, s->mi.ino, &ci, false);
	return ret < 0 ? ret : txn_inode_count_add(tx, 1);
}

static struct key xattr_key(uint64_t ino, unsigned id)
{
	return key_xattr(ino, xattr_name_hash("user.12345", 10), id, 0);
}

static int run_xattr(struct step *s, struct itx *tx)
{
	struct {
		struct disk_xattr x;
		char rest[700];
	} val = { .x = { .val_len = le16_of(690), .name_len = 10 } };
	struct key key = xattr_key(s->mi.ino, s->id);
	struct ival iv;
	int ret = item_get(tx, &key, &iv);

	if (ret < 0 && ret != -ENOENT)
		return ret;
	assert_int_equal(ret, s->mi.xattrs >> s->id & 1 ? 0 : -ENOENT);
	memcpy(val.rest, "user.12345", 10);
	return ret == 0 ? item_delete(tx, &key, NULL, 0)
			: item_put(tx, &key, &val, sizeof(val.x) + 700);
}

static int run_delete(struct step *s, struct itx *tx, struct cinode *ci)
{
	struct key key = xattr_key(s->mi.ino, 0), last = xattr_key(s->mi.ino, UINT_MAX);
	struct ival iv;
	int ret;

	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		ret = item_delete(tx, &iv.key, NULL, 0);
		if (ret < 0)
			return ret;
	}
	if (ret != -ENOENT)
		return ret;
	ret = 0;
	if (s->mi.ext.len)
		ret = dalloc_put(tx, s->mi.ext);
	if (ret == 0)
		ret = inode_delete(tx, s->mi.ino, ci);
	return ret < 0 ? ret : txn_inode_count_add(tx, -1);
}

static int run_step(struct op *op, struct itx *tx)
{
	struct step *s = (struct step *)op;
	struct cinode ci;
	int ret = txn_hold(op, tx, s->what == DELETE ? XATTRS_NR + 8 : 8, s->what != DELETE);

	if (ret < 0)
		return ret;
	s->gen = tx->open_gen;
	if (s->what == CREATE)
		return run_create(s, tx);
	ret = inode_get(tx, s->mi.ino, &ci);
	if (ret < 0)
		return ret;
	assert_int_equal(inode_size(&ci), s->mi.size);
	if (s->what == DELETE)
		return run_delete(s, tx, &ci);
	if (s->what == XATTR)
		ret = run_xattr(s, tx);
	if (s->what == ORPHAN || s->what == ADOPT)
		ci.d.nlink = le32_of(s->what == ADOPT);
	if (s->what == ALLOC)
		ret = dalloc_get(tx, 1 + s->mi.size % 90,
				 s->mi.size % 3 ? 0 : DATA_FIRST + s->mi.size % DATA_NR,
				 &s->mi.ext);
	if (s->what == FREE)
		ret = dalloc_put(tx, s->mi.ext);
	if (ret < 0)
		return ret;
	if (s->what == WRITE)
		ci.d.size = le64_of(s->mi.size + 1);
	return inode_put(tx, s->mi.ino, &ci, s->what == WRITE);
}

static void done_step(struct op *op, int err)
{
	struct step *s = (struct step *)op;

	pthread_mutex_lock(&s->lock);
	s->err = err;
	s->done = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static int run_op(struct step *s)
{
	struct timespec until;

	s->op = (struct op){
		.fsd = &fsd, .name = "step", .writes = true, .run = run_step, .done = done_step
	};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	s->done = false;
	op_start(&s->op);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += DEADLINE_S;
	pthread_mutex_lock(&s->lock);
	while (!s->done && pthread_cond_timedwait(&s->cond, &s->lock, &until) == 0)
		;
	if (!s->done) {
		fprintf(stderr, "operation %d did not end in %u s\n", s->what, DEADLINE_S);
		abort();
	}
	pthread_mutex_unlock(&s->lock);
	ops_drain(&fsd);
	return s->err;
}

static uint64_t below(uint64_t n)
{
	return test_random(&seed) % n;
}

static uint64_t last_seq(void)
{
	uint64_t seq;

	pthread_mutex_lock(&call_lock);
	seq = le64_get(leader.lt.get_trans_seq);
	pthread_mutex_unlock(&call_lock);
	return seq;
}

/* As a grant does, which comes after every commit that was answered before it and before those that are answered later. */
static void give_roots(void)
{
	struct forest_roots roots;

	pthread_mutex_lock(&call_lock);
	roots = (struct forest_roots){ .fs_root = leader.fs_root, .logs_root = leader.logs_root };
	reader_roots_given(&fsd, &roots);
	pthread_mutex_unlock(&call_lock);
}

static unsigned roots_asked(void)
{
	unsigned nr;

	pthread_mutex_lock(&call_lock);
	nr = leader.roots_asked;
	pthread_mutex_unlock(&call_lock);
	return nr;
}

static void do_step(struct minode *mi, enum what what)
{
	struct step *s = &the_step;
	uint64_t before = last_seq();

	if (what == CREATE ? mi->ino != 0 : mi->ino == 0)
		return;
	if ((what == ORPHAN && mi->is_orphan) || (what == ADOPT && !mi->is_orphan) ||
	    (what == ALLOC && mi->ext.len) || (what == FREE && !mi->ext.len))
		return;
	memset(s, 0, sizeof(*s));
	s->what = what;
	s->mi = *mi;
	s->id = (unsigned)below(XATTRS_NR);
	if (what == CREATE)
		s->mi = (struct minode){ .mode = below(3) ? S_IFREG | 0644 : S_IFDIR | 0755 };
	assert_int_equal(run_op(s), 0);
	*mi = s->mi;
	mi->meta_at = before;
	if (what == WRITE || what == CREATE)
		mi->data_at = before;
	switch (what) {
	case CREATE:
		inodes_nr++;
		break;
	case DELETE:
		inodes_nr--;
		*mi = (struct minode){ 0 };
		break;
	case WRITE:
		mi->size++;
		break;
	case XATTR:
		mi->xattrs ^= 1ull << s->id;
		break;
	case ORPHAN:
	case ADOPT:
		mi->is_orphan = what == ORPHAN;
		break;
	case FREE:
		mi->ext.len = 0;
		break;
	default:
		break;
	}
}

/* ---- what must be on the device ------------------------------------------------------------ */

struct found {
	uint64_t inodes, index_meta, index_data, orphans, xattrs;
	uint8_t *meta_used;
	struct block_set *bs;
};

static struct minode *model_of(uint64_t ino)
{
	for (size_t i = 0; i < INODES_NR; i++) {
		if (inodes[i].ino == ino)
			return &inodes[i];
	}
	return NULL;
}

static void check_inode(struct found *f, const struct forest_roots *roots, const struct item *it)
{
	struct disk_inode d;
	struct minode *mi = model_of(it->key.first);
	struct key key;
	struct item got;
	uint8_t val[ITEM_VAL_MAX];

	if (it->key.first == ROOT_INO)
		return;
	assert_non_null(mi);
	assert_int_equal(it->val_len, INODE_V2_BYTES);
	memcpy(&d, it->val, sizeof(d));
	assert_int_equal(le64_get(d.size), mi->size);
	assert_int_equal(le32_get(d.mode), mi->mode);
	assert_true(le64_get(d.meta_seq) >= mi->meta_at && le64_get(d.meta_seq) <= leader.seq);
	assert_true(it->seq >= le64_get(d.meta_seq) + is_young_lock(it->key.first));
	key = key_index(TYPE_INDEX_META_SEQ, le64_get(d.meta_seq), it->key.first);
	assert_int_equal(forest_lookup(f->bs, roots, &key, &got, val), 0);
	key = key_index(TYPE_INDEX_DATA_SEQ, le64_get(d.data_seq), it->key.first);
	assert_int_equal(forest_lookup(f->bs, roots, &key, &got, val),
			 S_ISREG(mi->mode) ? 0 : -ENOENT);
	if (S_ISREG(mi->mode))
		assert_true(le64_get(d.data_seq) >= mi->data_at &&
			    le64_get(d.data_seq) <= leader.seq);
	f->inodes++;
}

static void use_block(struct found *f, uint64_t blkno)
{
	assert_int_equal(leader.given[blkno], GIVEN);
	assert_int_equal(f->meta_used[blkno], 0);
	f->meta_used[blkno] = 1;
}

static int use_list(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	use_block(arg, ref.blkno);
	for (uint32_t i = 0; i < le32_get(b->nr); i++)
		use_block(arg, le64_get(b->blknos[le32_get(b->start) + i]));
	return 0;
}

static int use_tree(void *arg, const struct btree_visit *v)
{
	assert_int_equal(v->err, 0);
	use_block(arg, v->ref.blkno);
	return 0;
}

static void check_blocks(struct found *f)
{
	struct key start = { .zone = ZONE_LOG_TREES };
	struct btree_ref ref;
	struct disk_log_trees lt;
	int64_t delta = 0;

	f->meta_used = calloc(1, META_BLOCKS);
	while (btree_next(f->bs, &leader.logs_root, &start, &ref) == 0) {
		assert_int_equal(log_trees_check(&ref.item, &lt), 0);
		start = key_next(ref.item.key);
		btree_put(f->bs, &ref);
		delta += (int64_t)le64_get(lt.inode_count_delta);
		assert_int_equal(btree_visit_blocks(f->bs, &lt.item_root, use_tree, f), 0);
		assert_int_equal(lt.item_root.height != 0, le64_get(lt.bloom_ref.blkno) != 0);
		if (le64_get(lt.bloom_ref.blkno))
			use_block(f, le64_get(lt.bloom_ref.blkno));
		assert_int_equal(alloc_list_each(f->bs, &lt.meta_avail, use_list, f), 0);
		assert_int_equal(alloc_list_each(f->bs, &lt.meta_freed, use_list, f), 0);
		assert_int_equal(btree_visit_blocks(f->bs, &lt.data_avail.root, use_tree, f), 0);
		assert_int_equal(btree_visit_blocks(f->bs, &lt.data_freed.root, use_tree, f), 0);
	}
	assert_int_equal(delta, inodes_nr);
	for (uint64_t b = 0; b < META_BLOCKS; b++)
		assert_int_equal(leader.given[b] == GIVEN, f->meta_used[b]);
	free(f->meta_used);
}

static void check_data_blocks(struct found *f)
{
	uint8_t *used = calloc(1, DATA_FIRST + DATA_NR);
	const struct disk_alloc_root *trees[2] = { &leader.lt.data_avail, &leader.lt.data_freed };
	struct extent ext;

	for (size_t i = 0; i < INODES_NR; i++) {
		for (uint64_t b = 0; b < inodes[i].ext.len; b++)
			assert_int_equal(used[inodes[i].ext.start + b]++, 0);
	}
	for (unsigned t = 0; t < 2; t++) {
		for (uint64_t at = 0; free_extents_next(f->bs, trees[t], at, &ext) == 0;
		     at = ext.start + ext.len) {
			for (uint64_t b = 0; b < ext.len; b++)
				assert_int_equal(used[ext.start + b]++, 0);
		}
	}
	for (uint64_t b = DATA_FIRST; b < DATA_FIRST + DATA_NR; b++)
		assert_int_equal(used[b], 1);
	free(used);
	/* Nothing is dirty: the cache offers exactly what the tree has. */
	assert_int_equal(dalloc_free_blocks(&fsd), le64_get(leader.lt.data_avail.total_len));
}

/* A reader under a lock sees what a walk sees: bloom bits of every item are set. */
static int count_range(void *arg, const struct item *it)
{
	(void)it;
	(*(unsigned *)arg)++;
	return 0;
}

static void check_bloom(struct found *f, const struct forest_roots *roots, uint64_t ino)
{
	struct key key = key_inode(ino), ls = key_lock_start(&key), le = key_lock_end(&ls), start,
		   end;
	unsigned nr = 0;

	assert_int_equal(
		forest_read_range(f->bs, roots, &ls, &le, &key, &start, &end, count_range, &nr), 0);
	assert_true(nr > 0);
}

/* The mount has gone on in what the leader opened after the last commit. */
static bool is_settled(void)
{
	struct txn_status st;
	uint64_t opened, committed;

	txn_get_status(&fsd, &st);
	pthread_mutex_lock(&call_lock);
	opened = le64_get(leader.lt.get_trans_seq);
	committed = le64_get(leader.lt.commit_trans_seq);
	pthread_mutex_unlock(&call_lock);
	return opened > committed && st.trans_seq == opened;
}

static void wait_until_settled(void)
{
	time_t until = time(NULL) + DEADLINE_S;

	while (!is_settled()) {
		assert_true(time(NULL) < until);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static void check_device(void)
{
	struct key all_start = KEY_ZEROS, all_end = KEY_ONES;
	struct block_dev dev = blkcli_block_dev(NULL);
	struct found f = { 0 };
	struct forest_roots roots;
	struct forest_iter *fi;
	uint64_t seq, want[3] = { 0 };
	struct item it;
	int ret;

	wait_until_settled();
	assert_int_equal(block_set_open(&f.bs, &dev, FSID, META_BLOCKS, 400), 0);
	net_get_roots(&fsd, &roots, &seq);
	assert_int_equal(forest_iter_open(&fi, f.bs, &roots, &all_start, &all_end), 0);
	while ((ret = forest_iter_next(fi, &it)) == 0) {
		if (it.key.zone == ZONE_INODE_INDEX) {
			assert_true(it.key.third == ROOT_INO || model_of(it.key.third));
			if (it.key.type == TYPE_INDEX_META_SEQ)
				f.index_meta++;
			else
				f.index_data++;
		} else if (it.key.zone == ZONE_ORPHAN) {
			assert_true(model_of(it.key.second)->is_orphan);
			f.orphans++;
		} else if (it.key.type == TYPE_XATTR) {
			assert_true(model_of(it.key.first)->xattrs >> it.key.third & 1);
			f.xattrs++;
		} else {
			assert_int_equal(it.key.type, TYPE_INODE);
			check_inode(&f, &roots, &it);
		}
	}
	assert_int_equal(ret, -ENOENT);
	forest_iter_close(fi);
	assert_int_equal(f.inodes, inodes_nr);
	assert_int_equal(f.index_meta, inodes_nr + 1);
	for (size_t i = 0; i < INODES_NR; i++) {
		want[0] += inodes[i].ino && S_ISREG(inodes[i].mode);
		want[1] += inodes[i].is_orphan;
		want[2] += (unsigned)__builtin_popcountll(inodes[i].xattrs);
		if (inodes[i].ino)
			check_bloom(&f, &roots, inodes[i].ino);
	}
	assert_int_equal(f.index_data, want[0]);
	assert_int_equal(f.orphans, want[1]);
	assert_int_equal(f.xattrs, want[2]);
	check_blocks(&f);
	check_data_blocks(&f);
	block_set_close(f.bs);
}

/* ---- set-up -------------------------------------------------------------------------------- */

static int begin(unsigned list_nr)
{
	struct disk_inode root = { .nlink = le32_of(2),
				   .mode = le32_of(S_IFDIR | 0755),
				   .meta_seq = le64_of(1),
				   .data_seq = le64_of(1),
				   .next_readdir_pos = le64_of(2) };
	struct item it = {
		.key = key_inode(ROOT_INO), .seq = 1, .val = &root, .val_len = INODE_V2_BYTES
	};
	struct block_dev dev = blkcli_block_dev(NULL);

	memset(&leader, 0, sizeof(leader));
	memset(inodes, 0, sizeof(inodes));
	inodes_nr = 0;
	pthread_mutex_init(&leader.lock, NULL);
	seed = test_env("SEED", 1);
	memdev_init(&leader.dev, seed);
	leader.next_blkno = META_FIRST_BLKNO;
	leader.al = (struct blkno_alloc){ .alloc = lead_alloc, .free = lead_free };
	leader.seq = 3;
	leader.next_ino = FIRST_INO;
	leader.finalize_every = 7;
	leader.hold_every = 5;
	leader.list_nr = list_nr;
	dev.arg = &leader;
	leader.flushed = true;
	assert_int_equal(block_set_open(&leader.bs, &dev, FSID, META_BLOCKS, 400), 0);
	assert_int_equal(btree_insert(leader.bs, &leader.al, &leader.fs_root, &it), 0);
	it = (struct item){ .key = key_index(TYPE_INDEX_META_SEQ, 1, ROOT_INO), .seq = 1 };
	assert_int_equal(btree_insert(leader.bs, &leader.al, &leader.fs_root, &it), 0);
	leader.lt.rid = le64_of(RID);
	leader.lt.nr = le64_of(1);
	assert_int_equal(free_extents_insert(leader.bs, &give_al, &leader.lt.data_avail,
					     (struct extent){ DATA_FIRST, DATA_NR }), 0);
	assert_int_equal(block_set_write(leader.bs), 0);

	memset(&fsd, 0, sizeof(fsd));
	strcpy(dir, "/tmp/test_fsd_txn.XXXXXX");
	assert_non_null(mkdtemp(dir));
	fsd.rid = RID;
	fsd.fsid = FSID;
	fsd.fmt_vers = 2;
	fsd.total_meta_blocks = META_BLOCKS;
	fsd.total_data_blocks = DATA_FIRST + DATA_NR;
	fsd.conf.commit_interval_ms = 20;
	assert_int_equal(items_open(&fsd, dir, 16u << 20, false), 0);
	assert_int_equal(ops_start(&fsd, 2), 0);
	assert_int_equal(txn_init(&fsd), 0);
	assert_int_equal(inos_start(&fsd), 0);
	assert_int_equal(reader_start(&fsd), 0);
	assert_int_equal(txn_start(&fsd), 0);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return begin(LIST_NR);
}

static int setup_short_lists(void **state)
{
	(void)state;
	return begin(200);
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	ops_drain(&fsd);
	assert_int_equal(txn_stop(&fsd), 0);
	ops_stop(&fsd);
	reader_stop(&fsd);
	inos_stop(&fsd);
	txn_fini(&fsd);
	items_close(&fsd);
	block_set_close(leader.bs);
	memdev_fini(&leader.dev);
	snprintf(path, sizeof(path), "%s/items.mdb", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/items.mdb-lock", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
	return 0;
}

/* ---- tests --------------------------------------------------------------------------------- */

static void device_equals_what_operations_did(void **state)
{
	unsigned rounds = (unsigned)test_env("ROUNDS", 40);
	const struct key first = { .zone = ZONE_ORPHAN }, last = KEY_ONES;

	(void)state;
	for (unsigned r = 0; r < rounds; r++) {
		for (uint64_t n = below(120); n; n--) {
			do_step(&inodes[below(INODES_NR)], (enum what)below(WHATS_NR));
			if (below(60) == 0)
				txn_commit(&fsd, TXN_FULL, NULL, NULL);
			if (below(100) == 0)
				items_evict(&fsd, true);
			if (below(30) == 0)
				give_roots();
		}
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
		check_device();
		/* Every item anew from the device: the roots must be of after the commit. */
		if (r % 2)
			assert_int_equal(items_drop(&fsd, &first, &last), 0);
	}
	assert_true(leader.commits >= rounds / 2);
	assert_true(stats_get(&fsd.stats.item_reads) > 0);
}

/* A merge that is about to begin keeps nobody waiting but the commit after the next. */
static void who_waits_for_a_commit_does_not_wait_for_the_next_transaction(void **state)
{
	uint64_t gen;

	(void)state;
	fsd.conf.commit_interval_ms = 60000;
	leader.hold_every = 1;
	atomic_store(&leader.is_holding, true);
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	gen = txn_committed_gen(&fsd);
	/* Stored and told, while the next transaction is not open; operations go on. */
	while (atomic_load(&leader.waits) < 2)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	do_step(&inodes[1], CREATE);
	do_step(&inodes[0], WRITE);
	assert_int_equal(txn_committed_gen(&fsd), gen);
	atomic_store(&leader.is_holding, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_true(txn_committed_gen(&fsd) > gen);
	check_device();
}

/*
 * A leader of this host flushes what the mount has written; the first commit under each leader the mount flushes
 * itself.  Where another one leads before the answer, what it had stored is stored, and the rest is written
 * again and flushed: that nothing is stored without a flush the mock of the leader sees.
 */
static void a_leader_of_this_host_flushes_for_the_mount(void **state)
{
	unsigned flushes, commits;

	(void)state;
	fsd.conf.commit_interval_ms = 60000;
	leader.finalize_every = leader.hold_every = 0;
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	atomic_store(&leader.own_term, 1);
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(leader.unflushed, 0);
	flushes = leader.flushes;
	commits = leader.commits;
	for (unsigned i = 1; i <= 4; i++) {
		do_step(&inodes[i], CREATE);
		do_step(&inodes[0], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	assert_int_equal(leader.unflushed, 4);
	assert_int_equal(leader.flushes, flushes);
	assert_int_equal(leader.commits, commits + 4);
	check_device();
	leader.changes_every = 5;
	for (unsigned i = 5; i < 45; i++) {
		do_step(&inodes[i], CREATE);
		do_step(&inodes[i / 2], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	/* Of both kinds of change, and after each one commit that is flushed. */
	assert_true(atomic_load(&leader.own_term) > 5);
	assert_true(leader.flushes > flushes);
	check_device();
	leader.changes_every = 0;
	/* An older leader is asked once: then each commit is written once, and flushed. */
	atomic_fetch_add(&leader.own_term, 1);
	leader.is_older = true;
	do_step(&inodes[0], WRITE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	commits = leader.unflushed;
	flushes = leader.flushes;
	for (unsigned i = 1; i <= 4; i++) {
		do_step(&inodes[i], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	assert_int_equal(leader.unflushed, commits + 1);
	assert_true(leader.flushes >= flushes + 4);
	/* It is restarted as a newer one, which is another term. */
	leader.is_older = false;
	atomic_fetch_add(&leader.own_term, 1);
	for (unsigned i = 1; i <= 4; i++) {
		do_step(&inodes[i], WRITE);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	}
	assert_int_equal(leader.unflushed, commits + 1 + 3);
	check_device();
	/* Another host leads. */
	atomic_store(&leader.own_term, 0);
	commits = leader.unflushed;
	do_step(&inodes[0], WRITE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(leader.unflushed, commits);
	check_device();
}

/* The device tells a client once that it has lost something; a merge that has flushed may have been told instead of us. */
static void what_another_flush_has_lost_is_written_again(void **state)
{
	uint64_t retries = stats_get(&fsd.stats.trans_commit_retry);
	unsigned commits = leader.commits;

	(void)state;
	fsd.conf.commit_interval_ms = 60000;
	leader.finalize_every = leader.hold_every = 0;
	leader.fails_others = true;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_false(leader.fails_others);
	assert_int_equal(stats_get(&fsd.stats.trans_commit_retry), retries + 1);
	assert_int_equal(leader.commits, commits + 1);
	check_device();
}

static void nothing_dirty_writes_and_sends_nothing(void **state)
{
	unsigned commits;
	uint64_t writes;

	(void)state;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	commits = leader.commits;
	writes = leader.dev.writes;
	for (unsigned i = 0; i < 5; i++)
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(leader.commits, commits);
	assert_int_equal(leader.dev.writes, writes);
	check_device();
}

/* With a grant come roots; others are asked for when they are too old, and only then. */
static void roots_that_came_with_a_grant_are_not_asked_for(void **state)
{
	const struct key first = { .zone = ZONE_ORPHAN }, last = KEY_ONES;
	unsigned asked;

	(void)state;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(items_drop(&fsd, &first, &last), 0);
	asked = roots_asked();
	give_roots();
	do_step(&inodes[0], TOUCH);
	assert_int_equal(roots_asked(), asked);
	/* What is committed now is not in them. */
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_int_equal(items_drop(&fsd, &first, &last), 0);
	do_step(&inodes[0], TOUCH);
	assert_true(roots_asked() > asked);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

static void failed_writes_are_repeated_until_they_succeed(void **state)
{
	(void)state;
	fsd.conf.commit_interval_ms = 60000;
	for (unsigned i = 0; i < 30; i++)
		do_step(&inodes[i], CREATE);
	pthread_mutex_lock(&leader.lock);
	leader.dev.fail_writes_after = 2;
	pthread_mutex_unlock(&leader.lock);
	txn_commit(&fsd, TXN_FSYNC, NULL, NULL);
	while (stats_get(&fsd.stats.trans_commit_retry) == 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	do_step(&inodes[40], CREATE);		/* operations go on meanwhile */
	do_step(&inodes[3], DELETE);
	pthread_mutex_lock(&leader.lock);
	leader.dev.fail_writes_after = -1;
	pthread_mutex_unlock(&leader.lock);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

/* Lists so short that a generation can hold a few items only: operations wait, none fails. */
static void short_lists_make_operations_wait_and_nothing_is_lost(void **state)
{
	(void)state;
	leader.finalize_every = 0;
	fsd.conf.commit_interval_ms = 60000;
	for (unsigned i = 0; i < INODES_NR; i++)
		do_step(&inodes[i], CREATE);
	for (unsigned n = 0; n < 5000; n++)
		do_step(&inodes[below(INODES_NR)], below(4) ? XATTR : WRITE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
	for (unsigned i = 0; i < INODES_NR; i++)
		do_step(&inodes[i], DELETE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
	assert_int_equal(inodes_nr, 0);
	assert_true(stats_get(&fsd.stats.trans_commit_full) > 3);
	assert_int_equal(stats_get(&fsd.stats.trans_commit_retry), 0);
}

/* Nothing else would wake it: nobody else is there, and the timer is far away. */
static void who_comes_to_wait_for_room_as_the_commit_ends_is_not_forgotten(void **state)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	(void)state;
	leader.finalize_every = leader.hold_every = 0;
	fsd.conf.commit_interval_ms = 10 * DEADLINE_S * 1000;
	for (unsigned i = 0; i < INODES_NR; i++)
		do_step(&inodes[i], CREATE);
	atomic_store(&late_looks.nr, 0);
	atomic_store(&late_looks.on, true);
	while (atomic_load(&late_looks.nr) < 5) {
		assert_true(clock_mono_ns() < end);
		do_step(&inodes[below(INODES_NR)], (enum what)below(ORPHAN));
	}
	atomic_store(&late_looks.on, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

static void wait_until_low(void)
{
	struct txn_status st;
	time_t end = time(NULL) + DEADLINE_S;

	do {
		txn_get_status(&fsd, &st);
		assert_true(time(NULL) < end);
		usleep(1000);
	} while (!st.is_low);
}

/* An xattr on the first inode; what the program is told. */
static int try_xattr(void)
{
	struct step *s = &the_step;

	memset(s, 0, sizeof(*s));
	s->what = XATTR;
	s->mi = inodes[0];
	return run_op(s);
}

/* The leader has said LOW, and then nothing was asked for a long time. */
static void be_idle_and_low(void)
{
	atomic_store(&leader.is_low, true);
	txn_sync_now(&fsd);
	wait_until_low();
	atomic_store(&fsd.txn->opened_ns, 0);
}

static void that_there_was_no_space_long_ago_is_asked_again_before_it_is_told(void **state)
{
	uint64_t seq;

	(void)state;
	leader.finalize_every = leader.hold_every = 0;
	fsd.conf.commit_interval_ms = 60000;
	do_step(&inodes[0], CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	/* It still is so: told, but only after the leader has said so again. */
	be_idle_and_low();
	seq = last_seq();
	assert_int_equal(try_xattr(), -ENOSPC);
	assert_true(last_seq() > seq);
	/* It is so no more: nobody is told. */
	be_idle_and_low();
	atomic_store(&leader.is_low, false);
	do_step(&inodes[0], XATTR);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	check_device();
}

static void sequence_is_told_when_it_is_committed(void **state)
{
	struct minode *mi = &inodes[0];
	struct cinode ci;
	struct itx tx;
	uint64_t seq, cached, end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	(void)state;
	do_step(mi, CREATE);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	/* At once through the table, and in the item itself when the commit has cleaned up. */
	do {
		assert_true(clock_mono_ns() < end);
		assert_int_equal(items_begin(&fsd, NULL, false, &tx), 0);
		assert_int_equal(inode_get(&tx, mi->ino, &ci), 0);
		seq = cached = le64_get(ci.d.meta_seq);
		assert_int_equal(txn_resolve_seq_now(&tx, &seq), 0);
		assert_false(seq & SEQ_REF);
		assert_true(seq >= mi->meta_at);
		seq = seq_ref(tx.open_gen);
		assert_int_equal(txn_resolve_seq_now(&tx, &seq), -EAGAIN);
		items_abort(&tx);
	} while (cached & SEQ_REF);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(who_waits_for_a_commit_does_not_wait_for_the_next_transaction),
		T(device_equals_what_operations_did),
		T(a_leader_of_this_host_flushes_for_the_mount),
		T(what_another_flush_has_lost_is_written_again),
		T(nothing_dirty_writes_and_sends_nothing),
		T(roots_that_came_with_a_grant_are_not_asked_for),
		T(failed_writes_are_repeated_until_they_succeed),
		cmocka_unit_test_setup_teardown(
			short_lists_make_operations_wait_and_nothing_is_lost, setup_short_lists,
			teardown),
		cmocka_unit_test_setup_teardown(
			who_comes_to_wait_for_room_as_the_commit_ends_is_not_forgotten, setup_short_lists,
			teardown),
		T(sequence_is_told_when_it_is_committed),
		T(that_there_was_no_space_long_ago_is_asked_again_before_it_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
