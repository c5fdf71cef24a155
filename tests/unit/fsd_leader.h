/*
 * For tests of generations and commits: a leader that keeps a volume in memory, its device, and the parts
 * of a mount that commits need but do not look into.
 *
 * The leader gives blocks, takes log trees, sometimes finishes a tree and begins the next, moves freed
 * data blocks back, and keeps account of every metadata block it gave: each is in one place.
 */
#ifndef SCOUTFS_TEST_FSD_LEADER_H
#define SCOUTFS_TEST_FSD_LEADER_H

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
	atomic_bool is_data_low;	/* ... for data */
	atomic_uint waits;
	unsigned flushes;
	bool fails_others;		/* before the next flush another thread's failed */
	uint64_t failures;		/* such flushes */
	bool refuses;			/* the device takes nothing of this mount any more: it is fenced */
	atomic_bool fails;		/* the device writes and flushes nothing */
	atomic_uint told_fenced;	/* how often the mount was told so */
	bool flushed;			/* nothing was written since the last flush */
	bool flushes_itself;		/* what comes need not be flushed */
	atomic_ullong own_term;		/* it is of this instance; 0: it is not */
	bool is_older;			/* it does not know commits that it is to flush for */
	unsigned unflushed;		/* such commits, */
	unsigned changes_every;		/* ... and when another leads instead */
} leader;

static pthread_mutex_t call_lock = PTHREAD_MUTEX_INITIALIZER;	/* one request at a time */

static inline int dev_read(void *arg, uint64_t blkno, void *buf)
{
	int ret;

	(void)arg;
	pthread_mutex_lock(&leader.lock);
	ret = memdev_read(&leader.dev, blkno, buf);
	pthread_mutex_unlock(&leader.lock);
	return ret;
}

/* arg: whether it is the leader's own, which is not flushed by the mount. */
static inline int dev_write(void *arg, const struct block_write *w, size_t nr)
{
	int ret;

	pthread_mutex_lock(&leader.lock);
	ret = memdev_write(&leader.dev, w, nr);
	if (!arg)
		leader.flushed = false;
	pthread_mutex_unlock(&leader.lock);
	return ret;
}

static inline uint64_t dev_random(void *arg)
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
	int ret;

	(void)c;
	pthread_mutex_lock(&leader.lock);
	ret = leader.refuses ? -ENOLINK : atomic_load(&leader.fails) ? -EIO : 0;
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

static inline int lead_alloc(void *arg, uint64_t *blkno)
{
	(void)arg;
	assert_true(leader.next_blkno < META_BLOCKS);
	*blkno = leader.next_blkno++;
	return 0;
}

static inline int lead_free(void *arg, uint64_t blkno)
{
	(void)arg;
	if (leader.given[blkno] == GIVEN)
		leader.given[blkno] = TAKEN_BACK;
	return 0;
}

/* A block that belongs to the mount from now on. */
static inline int give_alloc(void *arg, uint64_t *blkno)
{
	int ret = lead_alloc(arg, blkno);

	leader.given[*blkno] = GIVEN;
	return ret;
}

static struct blkno_alloc give_al = { .alloc = give_alloc, .free = lead_free };

static inline void put_lt(void)
{
	struct item it = { .key = key_log_trees(RID, le64_get(leader.lt.nr)), .val = &leader.lt,
			   .val_len = sizeof(leader.lt) };

	assert_int_equal(btree_force(leader.bs, &leader.al, &leader.logs_root, &it), 0);
	assert_int_equal(block_set_write(leader.bs), 0);
}

static inline int take_list_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
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

static inline void take_list(struct disk_alloc_list_head *head)
{
	uint32_t flags = le32_get(head->flags);

	assert_int_equal(alloc_list_each(leader.bs, head, take_list_block, NULL), 0);
	*head = (struct disk_alloc_list_head){ .flags = le32_of(flags) };
}

static inline void give_list(struct disk_alloc_list_head *head, uint32_t nr)
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

static inline void finalize(void)
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
static inline void open_next(void)
{
	uint64_t moved, lost;

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
						   &moved, &lost),
				 0);
	leader.lt.meta_avail.flags = le32_of(atomic_load(&leader.is_low) ? ALLOC_FLAG_LOW : 0);
	leader.lt.data_avail.flags = le32_of(atomic_load(&leader.is_data_low) ? ALLOC_FLAG_LOW : 0);
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

static inline uint64_t room_told(struct txn *t)
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

/* Uses that operations have taken by themselves: locks are granted here without any. */
static atomic_uint lock_uses;

void lock_unuse(struct op *op)
{
	atomic_fetch_sub(&lock_uses, op->uses_nr);
	op->uses_nr = 0;
}

void lock_note_dirty(struct op *op, uint64_t gen)
{
	(void)op, (void)gen;
}

static inline bool is_young_lock(uint64_t ino)
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

void pool_collecting(struct fsd *of, bool is_collecting) { (void)of; (void)is_collecting; }
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

/* Its process ends here, but for the threads of the test. */
void fsd_fenced(struct fsd *fsd)
{
	(void)fsd;
	if (!leader.refuses)
		abort();
	atomic_fetch_add(&leader.told_fenced, 1);
	pthread_exit(NULL);
}

#endif
