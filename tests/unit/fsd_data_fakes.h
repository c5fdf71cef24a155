/*
 * What stands around the operations on data, for tests of them over a real item cache in a temporary LMDB: a device in
 * memory that begins full of foreign bytes, locks that are granted when the test says so, two files and what must be
 * in them; the leader, the forest and FUSE are a few lines here.
 */
#ifndef SCOUTFS_TEST_FSD_DATA_FAKES_H
#define SCOUTFS_TEST_FSD_DATA_FAKES_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blkcli.h"
#include "clock.h"
#include "services/fsd/acl.h"
#include "services/fsd/caller.h"
#include "services/fsd/data.h"
#include "services/fsd/extents.h"
#include "services/fsd/fuse.h"
#include "services/fsd/locks.h"
#include "services/fsd/orphan.h"
#include "services/fsd/pending.h"
#include "services/fsd/ops_attr.h"
#include "services/fsd/pool.h"
#include "services/fsd/quota.h"
#include "services/fsd/reader.h"
#include "services/fsd/xattr.h"

#define BLOCK		4096u
#define DEV_BLOCKS	1400u		/* block 0 is never given out */
#define FILE_MAX	(300u * BLOCK)
#define POOL_PAGES	160u
#define IO_MAX		(20u * BLOCK)
#define FILES		2u
#define FOREIGN		0xEE

static uint8_t *device, *pool_mem;
static struct fsd fsd;
static char dir[] = "/tmp/test_fsd_data.XXXXXX";
static unsigned short seed[3];
static _Atomic unsigned device_reads, partial_allocs;
static pthread_mutex_t alloc_mutex =
	PTHREAD_MUTEX_INITIALIZER; /* of seed, in the operations' threads */

static inline unsigned rnd(unsigned below)
{
	unsigned v;

	pthread_mutex_lock(&alloc_mutex);
	v = (unsigned)nrand48(seed) % below;
	pthread_mutex_unlock(&alloc_mutex);
	return v;
}

/* ---- FUSE: one request at a time ----------------------------------------------------------------
 */

struct fuse_req {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done;
	int err;
	uint8_t buf[IO_MAX];
	size_t len;
	off_t off;
};
static struct fuse_req request = { .mutex = PTHREAD_MUTEX_INITIALIZER,
				   .cond = PTHREAD_COND_INITIALIZER };

/* One of so many operations that have run well is in a transaction that is not committed after all, and runs again. */
static _Atomic unsigned abort_one_in;

static inline int record_or_abort(struct itx *tx, struct op *op)
{
	unsigned one_in = atomic_load(&abort_one_in);

	(void)tx;
	return one_in && rnd(one_in) == 0 ? op_park(op, op_wake) : 0;
}
static inline void answered_nothing(struct fsd *f, uint32_t slot) { (void)f; (void)slot; }
static const struct op_answers aborting_answers = { .record = record_or_abort, .answered = answered_nothing };

static inline int answer(int err, const void *buf, size_t len, off_t off)
{
	pthread_mutex_lock(&request.mutex);
	assert(len <= IO_MAX);
	while (request.done)
		pthread_cond_wait(&request.cond, &request.mutex);
	request.done = true;
	request.err = err;
	request.len = len;
	request.off = off;
	if (buf)
		memcpy(request.buf, buf, len);
	pthread_cond_broadcast(&request.cond);
	pthread_mutex_unlock(&request.mutex);
	return 0;
}
void fuse_op_start(fuse_req_t req, struct op *op)
{
	(void)req;
	op->unique = 1;
	op_start(op);
}
void fuse_op_done(fuse_req_t req, struct op *op) { (void)req; (void)op; }
void kcache_forget_attributes(struct fsd *f, uint64_t ino) { (void)f; (void)ino; }
void inode_give_begin(struct fsd *f, uint64_t ino) { (void)f; (void)ino; }
void inode_give_end(struct fsd *f) { (void)f; }
int fuse_reply_err(fuse_req_t req, int err) { (void)req; return answer(err, NULL, 0, 0); }
int fuse_reply_buf(fuse_req_t req, const char *buf, size_t size)
{
	(void)req;
	return answer(0, buf, size, 0);
}
int fuse_reply_write(fuse_req_t req, size_t count) { (void)req; return answer(0, NULL, count, 0); }
int fuse_reply_lseek(fuse_req_t req, off_t off) { (void)req; return answer(0, NULL, 0, off); }

static inline int await(void)
{
	uint64_t end_ns = clock_mono_ns() + 60 * NSEC_PER_SEC;
	int rc = 0, err;

	pthread_mutex_lock(&request.mutex);
	while (!request.done && rc == 0)
		rc = clock_cond_wait(&request.cond, &request.mutex, end_ns);
	assert_true(request.done);
	request.done = false;
	err = request.err;	/* the next answer may wait for its turn already */
	pthread_cond_broadcast(&request.cond);
	pthread_mutex_unlock(&request.mutex);
	return -err;
}

/* ---- locks, the forest, quota: granted, known, absent -------------------------------- */

static _Atomic int held = LOCK_MODE_WRITE;	/* by this mount; who needs more waits */
static pthread_mutex_t lock_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct op *lock_waiters, **lock_tail = &lock_waiters;
static struct op *_Atomic granted;		/* has it for WRITE, whatever is held */
static void (*_Atomic when_named)(void);	/* called once, by the next operation that names it, in its transaction */

int lock_inode(struct op *op, uint64_t ino, enum lock_mode mode)
{
	void (*call)(void) = atomic_exchange(&when_named, NULL);

	(void)ino;
	if (call)
		call();
	op->uses_nr = 1;	/* it has named it */
	if ((int)mode <= atomic_load(&held) || op == atomic_load(&granted))
		return 0;
	return op_park(op, lock_wait);
}
bool lock_covers(const struct op *op, const struct key *key, bool write)
{
	(void)op; (void)key; (void)write;
	return true;
}
void lock_unuse(struct op *op) { op->uses_nr = 0; }
static atomic_bool lock_wanted;
bool lock_is_wanted(const struct op *op) { (void)op; return lock_wanted; }
void lock_wait(struct op *op)
{
	op->next = NULL;
	pthread_mutex_lock(&lock_mutex);
	*lock_tail = op;
	lock_tail = &op->next;
	pthread_mutex_unlock(&lock_mutex);
}
/* The first that waits may have it. */
static inline void grant_one(void)
{
	struct op *op;

	for (unsigned i = 0; i < 60000; i++) {
		pthread_mutex_lock(&lock_mutex);
		op = lock_waiters;
		if (op)
			lock_waiters = op->next;
		if (!lock_waiters)
			lock_tail = &lock_waiters;
		pthread_mutex_unlock(&lock_mutex);
		if (op) {
			op->next = NULL;
			atomic_store(&granted, op);
			op_wake(op);
			return;
		}
		usleep(1000);
	}
	fail_msg("nobody waits for the lock");
}
void lock_note_dirty(struct op *op, uint64_t gen) { (void)op; (void)gen; }
void reader_wait(struct op *op) { op_fail(op, -EIO); }
static _Atomic int quota_says;

int quota_check(struct op *op, struct itx *tx, enum quota_op what, uint64_t proj, uint32_t uid,
		uint32_t gid)
{
	(void)op; (void)tx; (void)what; (void)proj; (void)uid; (void)gid;
	return atomic_load(&quota_says);
}
int acl_chmod(struct itx *tx, uint64_t ino, struct cinode *ci, uint32_t mode)
{
	(void)tx; (void)ino; (void)ci; (void)mode;
	return 0;
}
/* Of whoever asks for a change. */
static uint64_t caller_has;
int caller_caps(pid_t tid, uint32_t uid, uint32_t gid, uint64_t *caps)
{
	(void)uid; (void)gid;
	*caps = caller_has;
	return tid ? 0 : -EOPNOTSUPP;
}
void fsd_fail(struct fsd *f, const char *fmt, ...)
{
	va_list ap;

	(void)f;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	abort();
}

/* ---- blockd -------------------------------------------------------------------------- */

void *blkcli_pool(struct blkcli *c, size_t *len)
{
	(void)c;
	*len = POOL_PAGES * BLOCK;
	return pool_mem;
}

/* The device is other hardware: it reads and writes memory while programs change it (tsan.supp). */
static __attribute__((noinline, unused)) void device_copy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
}

int blkcli_run(struct blkcli *c, struct blkcli_op *ops, size_t nr)
{
	(void)c;
	for (size_t i = 0; i < nr; i++) {
		assert(ops[i].dev == BLK_DEV_DATA &&
		       ops[i].dev_off + ops[i].len <= (size_t)DEV_BLOCKS * BLOCK);
		assert(ops[i].dev_off >= BLOCK);
		if (ops[i].op == BLK_OP_READ) {
			device_copy(ops[i].buf, device + ops[i].dev_off, ops[i].len);
			device_reads++;
		} else {
			device_copy(device + ops[i].dev_off, ops[i].buf, ops[i].len);
		}
	}
	return 0;
}

/* ---- data blocks: a row a free block; freed ones wait for the commit of their generation  */

struct freed_row {
	uint64_t be_gen, be_blkno;
};

/* There are none at the moment, but some are being given back. */
static atomic_bool blocks_come;
static struct op *_Atomic waits_freed;
static atomic_bool no_blocks;	/* nor will there be any */

void txn_wait_freed(struct op *op) { atomic_store(&waits_freed, op); }

int dalloc_get(struct itx *tx, uint64_t want, uint64_t hint, struct extent *ext)
{
	uint64_t be = htobe64(hint ? hint : 1 + rnd(DEV_BLOCKS - 1)), max = 1 + rnd(12);
	MDB_val key = { sizeof(be), &be }, val;
	MDB_cursor *cur;
	int rc;

	assert(want);
	if (blocks_come)
		return op_park(tx->op, txn_wait_freed);
	if (no_blocks)
		return -ENOSPC;
	*ext = (struct extent){ 0 };
	if (max < want) {
		want = max;
		partial_allocs++;
	}
	assert(mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_DAVAIL), &cur) == 0);
	rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
	if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST);
	while (rc == 0 && ext->len < want) {
		uint64_t blkno;

		memcpy(&blkno, key.mv_data, sizeof(blkno));
		blkno = be64toh(blkno);
		if (ext->len && blkno != ext->start + ext->len)
			break;
		if (!ext->len)
			ext->start = blkno;
		ext->len++;
		rc = mdb_cursor_del(cur, 0);
		if (rc == 0)
			rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	if (rc && rc != MDB_NOTFOUND)
		return items_error(tx, rc, "take blocks");
	return ext->len ? 0 : -ENOSPC;
}

int dalloc_put(struct itx *tx, struct extent ext)
{
	assert(ext.len && ext.start && ext.start + ext.len <= DEV_BLOCKS);
	for (uint64_t b = ext.start; b < ext.start + ext.len; b++) {
		struct freed_row row = { htobe64(tx->open_gen), htobe64(b) };
		MDB_val key = { sizeof(row), &row }, val = { 0, NULL };
		int rc = mdb_put(tx->txn, items_dbi(tx, TABLE_DLOG), &key, &val, MDB_NOOVERWRITE);

		assert(rc != MDB_KEYEXIST);	/* freed twice */
		if (rc)
			return items_error(tx, rc, "free blocks");
	}
	return 0;
}

static inline int free_again(struct itx *tx, void *arg)
{
	uint64_t gen = *(uint64_t *)arg;
	MDB_val key, val;
	MDB_cursor *cur;
	int rc;

	assert(mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_DLOG), &cur) == 0);
	while ((rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST)) == 0) {
		struct freed_row row;
		MDB_val k = { sizeof(row.be_blkno), &row.be_blkno }, v = { 0, NULL };

		memcpy(&row, key.mv_data, sizeof(row));
		if (be64toh(row.be_gen) > gen)
			break;
		rc = mdb_cursor_del(cur, 0);
		if (rc == 0)
			rc = mdb_put(tx->txn, items_dbi(tx, TABLE_DAVAIL), &k, &v, MDB_NOOVERWRITE);
		assert(rc == 0);		/* neither free already, nor out of room */
	}
	mdb_cursor_close(cur);
	return items_set_committed(tx, gen);
}

/* ---- generations --------------------------------------------------------------------- */

static pthread_mutex_t commit_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t commit_cond = PTHREAD_COND_INITIALIZER;
static bool commit_wanted, commit_stop;

static inline void ignore_dirty(void *arg, const struct items_dirty *dirty) { (void)arg; (void)dirty; }

static void (*when_closed)(void);	/* called by a commit between the snapshot and the pages that it names */

/* commit_mutex is held: one at a time */
static inline void commit(void)
{
	struct blkcli_op rest[POOL_REST_MAX];
	struct pool_batch *pb;
	struct itx snap;
	uint64_t gen;
	size_t rest_nr;

	pool_collecting(&fsd, true);
	assert(items_close_gen(&fsd, &gen, &snap, ignore_dirty, NULL) == 0);
	if (when_closed)
		when_closed();
	assert(pool_collect(&snap, gen, &pb) == 0);
	items_abort(&snap);
	pool_collecting(&fsd, false);
	assert(pool_write(&fsd, pb, rest, &rest_nr) == 0);
	assert(blkcli_run(NULL, rest, rest_nr) == 0);
	assert(items_run(&fsd, free_again, &gen) == 0);
	pool_committed(&fsd, pb);
}

static inline void *committer(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&commit_mutex);
	while (!commit_stop) {
		if (!commit_wanted) {
			pthread_cond_wait(&commit_cond, &commit_mutex);
			continue;
		}
		commit_wanted = false;
		commit();
	}
	pthread_mutex_unlock(&commit_mutex);
	return NULL;
}

/* Called by operations, which may hold up a commit's transactions for a moment only. */
void txn_commit(struct fsd *f, enum txn_why why, void (*then)(void *arg), void *arg)
{
	(void)f; (void)why; (void)arg;
	assert(!then);
	pthread_mutex_lock(&commit_mutex);
	commit_wanted = true;
	pthread_cond_signal(&commit_cond);
	pthread_mutex_unlock(&commit_mutex);
}
void txn_commit_wait(struct fsd *f, enum txn_why why, uint64_t gen)
{
	(void)f; (void)why; (void)gen;
	pthread_mutex_lock(&commit_mutex);
	commit();
	pthread_mutex_unlock(&commit_mutex);
}
/* A write-back waits for room before its second transaction: its row is there, it has no answer. */
static _Atomic bool stops_writeback;
static unsigned writeback_holds;
static atomic_bool no_metadata;		/* but what deletions may take */
static struct op *_Atomic stopped;

static inline void stop(struct op *op)
{
	atomic_store(&stopped, op);
}

int txn_hold(struct op *op, struct itx *tx, unsigned items_nr, bool allocating)
{
	(void)tx; (void)items_nr;
	if (allocating && no_metadata)
		return -ENOSPC;
	if (stops_writeback && op->is_writeback && ++writeback_holds == 2)
		return op_park(op, stop);
	return 0;
}
void txn_wait_room(struct op *op) { op_wake(op); }
void txn_touch(struct itx *tx, const struct key *key, const void *val, size_t len)
{
	(void)tx; (void)key; (void)val; (void)len;
}

/* ---- the model ----------------------------------------------------------------------- */

struct file {
	uint64_t ino, size;
	uint8_t bytes[FILE_MAX];	/* zero from size on */
};
static struct file files[FILES];

static inline struct file_req *new_req(const struct file *f, uint64_t off, uint64_t len, int flags)
{
	struct file_req *rq = calloc(1, sizeof(*rq));

	assert_non_null(rq);
	rq->req = &request;
	rq->ino = f->ino;
	rq->offset = off;
	rq->len = len;
	rq->flags = flags;
	return rq;
}

static inline void simple_done(struct op *op, int err)
{
	(void)op;
	answer(-err, NULL, 0, 0);
}

static inline struct cinode get_inode(const struct file *f)
{
	struct attr_op a = {
		.op = { .fsd = &fsd, .name = "getattr", .run = attr_run_get, .done = simple_done },
		.ino = f->ino
	};

	op_start(&a.op);
	assert_int_equal(await(), 0);
	return a.ci;
}

static inline void check_read(struct file *f, uint64_t off, uint64_t len)
{
	uint64_t want = off >= f->size ? 0 : f->size - off < len ? f->size - off : len;

	op_read(&fsd, new_req(f, off, len, 0));
	assert_int_equal(await(), 0);
	assert_int_equal(request.len, want);
	assert_memory_equal(request.buf, f->bytes + off, want);
}

static inline void check_all(struct file *f)
{
	for (uint64_t at = 0; at < f->size; at += IO_MAX)
		check_read(f, at, IO_MAX);
	check_read(f, f->size, BLOCK);
	assert_int_equal(inode_size(&(struct cinode){ .d = get_inode(f).d }), f->size);
}

static inline void do_write(struct file *f, uint64_t off, uint64_t len, bool append, bool mapped)
{
	struct file_req *rq = new_req(f, append ? rnd(FILE_MAX) : off, len, append ? O_APPEND : 0);
	uint8_t *bytes = malloc(len);
	int ret;

	for (uint64_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)rnd(256);
	rq->buf = malloc(len);
	memcpy(rq->buf, bytes, len);
	rq->write_cache = mapped;
	op_write(&fsd, rq);
	ret = await();
	if (mapped) {
		/* answered before it is applied; what comes later must see it all the same */
		assert_int_equal(ret, 0);
		len = off >= f->size ? 0 : f->size - off < len ? f->size - off : len;
	} else if (ret == -ENOSPC) {
		len = 0;
	} else {
		assert_int_equal(ret, 0);
		assert_true(request.len > 0 && request.len <= len);
		len = request.len;
	}
	memcpy(f->bytes + off, bytes, len);
	if (off + len > f->size && len)
		f->size = off + len;
	free(bytes);
	if (ret == -ENOSPC) /* the blocks that the next one needs are freed, but not committed */
		txn_commit_wait(&fsd, TXN_FULL, 0);
}

static inline void do_truncate(struct file *f, uint64_t size)
{
	struct attr_op a = { .op = { .fsd = &fsd,
				     .name = "truncate",
				     .writes = true,
				     .run = attr_run_set,
				     .unique = 1,
				     .done = simple_done },
			     .ino = f->ino,
			     .attr.st_size = (off_t)size,
			     .to_set = FUSE_SET_ATTR_SIZE };

	op_start(&a.op);
	assert_int_equal(await(), 0);
	if (size < f->size)
		memset(f->bytes + size, 0, f->size - size);
	f->size = size;
}

struct blocks_range { uint64_t ino, at, end; };

/* -ENOENT: not all of them are allocated. */
static inline int allocated_run(struct itx *tx, void *arg)
{
	const struct blocks_range *b = arg;
	struct data_extent ext;

	for (uint64_t at = b->at; at < b->end; at = ext.iblock + ext.len) {
		int ret = extent_next(tx, b->ino, at, &ext);

		if (ret < 0)
			return ret;
		if (!extent_has(&ext, at) || !ext.blkno)
			return -ENOENT;
	}
	return 0;
}

static inline void do_fallocate(struct file *f, uint64_t off, uint64_t len, bool keep)
{
	uint64_t size;
	int ret;

	op_fallocate(&fsd, new_req(f, off, len, keep ? FALLOC_FL_KEEP_SIZE : 0));
	ret = await();
	size = inode_size(&(struct cinode){ .d = get_inode(f).d });
	if (ret == -ENOSPC) {
		/* a part may be there */
		assert_true(size >= f->size && (size == f->size || (!keep && size <= off + len)));
		f->size = size;
		txn_commit_wait(&fsd, TXN_FULL, 0);
		return;
	}
	assert_int_equal(ret, 0);
	if (!keep && off + len > f->size)
		f->size = off + len;
	assert_int_equal(size, f->size);
	assert_int_equal(items_run(&fsd, allocated_run, &(struct blocks_range){
		f->ino, off / BLOCK, (off + len + BLOCK - 1) / BLOCK }), 0);
}

/* ---- pages of mappings ---------------------------------------------------------------- */

struct poke {
	const struct file *f;
	unsigned word;
	uint64_t value;
};

/* Another node has written a word of the file's first block, which is in the pool. */
static inline int poke_run(struct itx *tx, void *arg)
{
	const struct poke *p = arg;
	struct pool_rec rec;
	int ret = pool_find(tx, p->f->ino, 0, &rec);

	if (ret == 0)
		memcpy((uint8_t *)pool_page(fsd.pool, rec.page) + p->word * 8, &p->value, 8);
	return ret;
}

static inline void poke(struct file *f, unsigned word, uint64_t value)
{
	struct poke p = { f, word, value };

	assert_int_equal(items_run(&fsd, poke_run, &p), 0);
	memcpy(f->bytes + word * 8, &value, 8);
}

static inline int peek_run(struct itx *tx, void *arg)
{
	struct poke *p = arg;
	struct pool_rec rec;
	int ret = pool_find(tx, p->f->ino, 0, &rec);

	if (ret == 0)
		memcpy(&p->value, (uint8_t *)pool_page(fsd.pool, rec.page) + p->word * 8, 8);
	return ret;
}

static inline uint64_t peek(const struct file *f, unsigned word)
{
	struct poke p = { f, word, 0 };

	assert_int_equal(items_run(&fsd, peek_run, &p), 0);
	return p.value;
}

static inline void start_write(struct file *f, const uint64_t *page, uint64_t off, uint64_t len, bool mapped)
{
	struct file_req *rq = new_req(f, off, len, 0);

	rq->buf = malloc(len);
	assert_non_null(rq->buf);
	memcpy(rq->buf, (const uint8_t *)page + off, len);
	rq->write_cache = mapped;
	op_write(&fsd, rq);
}

static inline void wait_applied(const struct file *f)
{
	for (unsigned i = 0; pending_is_there(f->ino); i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
}

static inline void begin_with_page(struct file *f, uint64_t *page)
{
	atomic_store(&held, LOCK_MODE_WRITE);
	atomic_store(&granted, NULL);	/* a new one may lie where that one was */
	do_truncate(f, 0);
	do_write(f, 0, BLOCK, false, false);
	memcpy(page, f->bytes, BLOCK);
	atomic_store(&held, LOCK_MODE_READ);
}

/* ---- running it ---------------------------------------------------------------------- */

static pthread_t commit_thread;

static inline int make_files(struct itx *tx, void *arg)
{
	int ret = 0;

	(void)arg;
	for (unsigned b = 1; b < DEV_BLOCKS; b++) {
		uint64_t be = htobe64(b);
		MDB_val key = { sizeof(be), &be }, val = { 0, NULL };

		assert(mdb_put(tx->txn, items_dbi(tx, TABLE_DAVAIL), &key, &val, 0) == 0);
	}
	for (unsigned i = 0; i < FILES && ret == 0; i++) {
		struct key first = key_inode(files[i].ino = 1024 + i), last = first;
		struct cinode ci;

		last.type = UINT8_MAX;
		last.second = last.third = UINT64_MAX;
		last.fourth = UINT8_MAX;
		first = (struct key){ .zone = first.zone, .first = first.first };
		inode_init(tx, &ci, S_IFREG | 0644, 0, 0, 0);
		ret = items_set_known(tx, &first, &last);
		if (ret == 0)
			ret = inode_put(tx, files[i].ino, &ci, true);
	}
	return ret;
}

static inline void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	memset(p, FOREIGN, len);
	return p;
}

/* What outlives a process. */
static inline void setup_host(void)
{
	fsd.total_data_blocks = DEV_BLOCKS;
	const char *text = getenv("FSD_EXTENTS_SEED");
	unsigned long n = text ? strtoul(text, NULL, 0) : 1;

	seed[0] = (unsigned short)n;
	seed[1] = (unsigned short)(n >> 16);
	seed[2] = 0x330e;
	device = shared((size_t)DEV_BLOCKS * BLOCK);
	pool_mem = shared(POOL_PAGES * BLOCK);
	assert_non_null(mkdtemp(dir));
}

/* A process of the mount; is_next: it goes on from what an earlier one has left. */
static inline int setup_process(bool is_next)
{
	if (items_open(&fsd, dir, 16u << 20, is_next) < 0 || (!is_next && items_run(&fsd, make_files, NULL) < 0))
		return -1;
	fsd.answers = &aborting_answers;
	return ops_start(&fsd, 2) < 0 || pool_start(&fsd) < 0 ||
	       pthread_create(&commit_thread, NULL, committer, NULL) ? -1 : 0;
}

static inline int setup(void **state)
{
	(void)state;
	setup_host();
	return setup_process(false);
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st; (void)type; (void)ftw;
	return remove(path);
}

static inline int teardown(void **state)
{
	(void)state;
	ops_stop(&fsd);
	pool_stop(&fsd);
	pthread_mutex_lock(&commit_mutex);
	commit_stop = true;
	pthread_cond_signal(&commit_cond);
	pthread_mutex_unlock(&commit_mutex);
	pthread_join(commit_thread, NULL);
	items_close(&fsd);
	munmap(device, (size_t)DEV_BLOCKS * BLOCK);
	munmap(pool_mem, POOL_PAGES * BLOCK);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
