/*
 * For tests of generations and commits: a mount (of fsd_leader.h) with operations on some inodes, a model
 * of what they have done, and the look that finds exactly that on the device.
 */
#ifndef SCOUTFS_TEST_FSD_MODEL_H
#define SCOUTFS_TEST_FSD_MODEL_H

#include "fsd_leader.h"
#include "services/fsd/orphan.h"

#define INODES_NR	150u
#define XATTRS_NR	40u	/* most an inode has */

/* orphan.c's: here inodes are deleted by operations of the test, not behind them, unless it says so. */
static atomic_bool deletes_hurry;

bool inode_deletes_hurry(struct fsd *of)
{
	(void)of;
	return atomic_load(&deletes_hurry);
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

static inline int run_create(struct step *s, struct itx *tx)
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

static inline struct key xattr_key(uint64_t ino, unsigned id)
{
	return key_xattr(ino, xattr_name_hash("user.12345", 10), id, 0);
}

static inline int run_xattr(struct step *s, struct itx *tx)
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

static inline int run_delete(struct step *s, struct itx *tx, struct cinode *ci)
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

static inline int run_step(struct op *op, struct itx *tx)
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

static inline void done_step(struct op *op, int err)
{
	struct step *s = (struct step *)op;

	pthread_mutex_lock(&s->lock);
	s->err = err;
	s->done = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static inline int run_op(struct step *s)
{
	uint64_t end_ns;

	s->op = (struct op){
		.fsd = &fsd, .name = "step", .writes = true, .run = run_step, .done = done_step
	};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	s->done = false;
	op_start(&s->op);
	end_ns = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	pthread_mutex_lock(&s->lock);
	while (!s->done && clock_cond_wait(&s->cond, &s->lock, end_ns) == 0)
		;
	if (!s->done) {
		fprintf(stderr, "operation %d did not end in %u s\n", s->what, DEADLINE_S);
		abort();
	}
	pthread_mutex_unlock(&s->lock);
	ops_drain(&fsd);
	return s->err;
}

static inline uint64_t below(uint64_t n)
{
	return test_random(&seed) % n;
}

static inline uint64_t last_seq(void)
{
	uint64_t seq;

	pthread_mutex_lock(&call_lock);
	seq = le64_get(leader.lt.get_trans_seq);
	pthread_mutex_unlock(&call_lock);
	return seq;
}

/* As a grant does, which comes after every commit that was answered before it and before those that are answered later. */
static inline void give_roots(void)
{
	struct forest_roots roots;

	pthread_mutex_lock(&call_lock);
	roots = (struct forest_roots){ .fs_root = leader.fs_root, .logs_root = leader.logs_root };
	reader_roots_given(&fsd, &roots);
	pthread_mutex_unlock(&call_lock);
}

static inline unsigned roots_asked(void)
{
	unsigned nr;

	pthread_mutex_lock(&call_lock);
	nr = leader.roots_asked;
	pthread_mutex_unlock(&call_lock);
	return nr;
}

static inline void do_step(struct minode *mi, enum what what)
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

static inline struct minode *model_of(uint64_t ino)
{
	for (size_t i = 0; i < INODES_NR; i++) {
		if (inodes[i].ino == ino)
			return &inodes[i];
	}
	return NULL;
}

static inline void check_inode(struct found *f, const struct forest_roots *roots, const struct item *it)
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

static inline void use_block(struct found *f, uint64_t blkno)
{
	assert_int_equal(leader.given[blkno], GIVEN);
	assert_int_equal(f->meta_used[blkno], 0);
	f->meta_used[blkno] = 1;
}

static inline int use_list(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	use_block(arg, ref.blkno);
	for (uint32_t i = 0; i < le32_get(b->nr); i++)
		use_block(arg, le64_get(b->blknos[le32_get(b->start) + i]));
	return 0;
}

static inline int use_tree(void *arg, const struct btree_visit *v)
{
	assert_int_equal(v->err, 0);
	use_block(arg, v->ref.blkno);
	return 0;
}

static inline void check_blocks(struct found *f)
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

static inline void check_data_blocks(struct found *f)
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
static inline int count_range(void *arg, const struct item *it)
{
	(void)it;
	(*(unsigned *)arg)++;
	return 0;
}

static inline void check_bloom(struct found *f, const struct forest_roots *roots, uint64_t ino)
{
	struct key key = key_inode(ino), ls = key_lock_start(&key), le = key_lock_end(&ls), start,
		   end;
	unsigned nr = 0;

	assert_int_equal(
		forest_read_range(f->bs, roots, &ls, &le, &key, &start, &end, count_range, &nr), 0);
	assert_true(nr > 0);
}

/* The mount has gone on in what the leader opened after the last commit. */
static inline bool is_settled(void)
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

static inline void wait_until_settled(void)
{
	uint64_t end_ns = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;

	while (!is_settled()) {
		assert_true(clock_mono_ns() < end_ns);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static inline void check_device(void)
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
	/* A commit that nobody waits for may begin meanwhile: the leader gives, and opens, when this has looked. */
	pthread_mutex_lock(&call_lock);
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
	pthread_mutex_unlock(&call_lock);
	block_set_close(f.bs);
}

/* ---- set-up -------------------------------------------------------------------------------- */

/* With what an earlier life of it has left. */
static inline void mount_start(bool is_kept)
{
	assert_int_equal(items_open(&fsd, dir, 16u << 20, is_kept), 0);
	assert_int_equal(ops_start(&fsd, 2), 0);
	assert_int_equal(txn_init(&fsd), 0);
	assert_int_equal(inos_start(&fsd), 0);
	assert_int_equal(reader_start(&fsd), 0);
	assert_int_equal(txn_start(&fsd), 0);
}

/* What the last commit said. */
static inline int mount_stop(void)
{
	int ret;

	ops_drain(&fsd);
	ret = txn_stop(&fsd);
	ops_stop(&fsd);
	reader_stop(&fsd);
	inos_stop(&fsd);
	txn_fini(&fsd);
	items_close(&fsd);
	return ret;
}

/* interval_ms: of commits that nobody asks for; the thread reads it as it begins. */
static inline int begin(unsigned list_nr, unsigned interval_ms)
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
	fsd.conf.commit_interval_ms = interval_ms;
	mount_start(false);
	return 0;
}

static inline int setup(void **state)
{
	(void)state;
	return begin(LIST_NR, 20);
}

/* Commits come when they are asked for. */
static inline int setup_rare(void **state)
{
	(void)state;
	return begin(LIST_NR, 10 * DEADLINE_S * 1000);
}

static inline int setup_short_lists(void **state)
{
	(void)state;
	return begin(200, 10 * DEADLINE_S * 1000);
}

static inline int teardown(void **state)
{
	char path[128];

	(void)state;
	assert_int_equal(mount_stop(), 0);
	block_set_close(leader.bs);
	memdev_fini(&leader.dev);
	snprintf(path, sizeof(path), "%s/items.mdb", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/items.mdb-lock", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
	return 0;
}

#endif
