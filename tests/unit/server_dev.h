/*
 * For tests of serverd: a metadata device in memory that can lose what was not flushed at any write, and
 * the walk that proves of what lies on it that every block is in exactly one place (format.md 16.4, 16.5).
 */
#ifndef SCOUTFS_TEST_SERVER_DEV_H
#define SCOUTFS_TEST_SERVER_DEV_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "csum/csum.h"
#include "format/mkfs_layout.h"
#include "log/merge_items.h"
#include "log/srch.h"
#include "random.h"
#include "services/serverd/txn.h"

#define FSID	0x5ca1ab1e0ddba11ull
/* A test may have other sizes: define both before. */
#ifndef META
#define META	131072ull
#define DATA	4194304ull
#endif

/* --- the device --- */

struct dev {
	uint8_t **now;			/* what reads see */
	uint8_t **disk;			/* what a power cut leaves */
	uint64_t *pending;
	size_t pending_nr, pending_max;
	uint8_t super_now[SMALL_SIZE], super_disk[SMALL_SIZE];
	bool super_pending;
	uint64_t ops;			/* writes and flushes so far */
	uint64_t data_flushes;		/* of the data device, which holds nothing here */
	uint64_t supers;		/* writes of the super */
	bool data_fails;
	_Atomic bool reads_fail;	/* after so many more: */
	_Atomic int reads_left;
	bool knows_commits;		/* a whole commit is one call */
	uint64_t commits;		/* of these */
	uint64_t interrupt_at;		/* which of them is left in the middle; 0: none */
	bool interrupt_late;		/* when the super has been written */
	uint64_t crash_at;		/* that one and all later ones fail; 0: none */
};

static inline bool dev_is_down(struct dev *d)
{
	d->ops++;
	return d->crash_at && d->ops >= d->crash_at;
}

static inline void dev_put(struct dev *d, uint64_t blkno, const void *data)
{
	assert_true(blkno < META);
	if (d->now[blkno] != d->disk[blkno])
		free(d->now[blkno]);
	d->now[blkno] = malloc(LARGE_SIZE);
	memcpy(d->now[blkno], data, LARGE_SIZE);
	if (d->pending_nr == d->pending_max) {
		d->pending_max = d->pending_max ? d->pending_max * 2 : 256;
		d->pending = realloc(d->pending, d->pending_max * sizeof(*d->pending));
	}
	d->pending[d->pending_nr++] = blkno;
}

static inline void dev_settle(struct dev *d, uint64_t blkno, bool keep)
{
	if (d->now[blkno] == d->disk[blkno])
		return;
	if (keep) {
		free(d->disk[blkno]);
		d->disk[blkno] = d->now[blkno];
	} else {
		free(d->now[blkno]);
		d->now[blkno] = d->disk[blkno];
	}
}

static inline int dev_read(void *arg, uint64_t blkno, void *buf)
{
	struct dev *d = arg;

	if (d->reads_fail && atomic_load(&d->reads_left) <= 0)
		return -EIO;
	atomic_fetch_sub(&d->reads_left, d->reads_fail);
	if (d->now[blkno])
		memcpy(buf, d->now[blkno], LARGE_SIZE);
	else
		memset(buf, 0, LARGE_SIZE);
	return 0;
}

static inline int dev_write(void *arg, const struct block_write *w, size_t nr)
{
	struct dev *d = arg;

	for (size_t i = 0; i < nr; i++) {
		if (dev_is_down(d))
			return -EIO;
		dev_put(d, w[i].blkno, w[i].data);
	}
	return 0;
}

static inline uint64_t dev_random(void *arg)
{
	(void)arg;
	return rnd(0);
}

static inline int dev_flush(void *arg)
{
	struct dev *d = arg;

	if (dev_is_down(d))
		return -EIO;
	for (size_t i = 0; i < d->pending_nr; i++)
		dev_settle(d, d->pending[i], true);
	d->pending_nr = 0;
	memcpy(d->super_disk, d->super_now, SMALL_SIZE);
	return 0;
}

static inline int dev_read_super(void *arg, void *buf)
{
	memcpy(buf, ((struct dev *)arg)->super_now, SMALL_SIZE);
	return 0;
}

static inline int dev_write_super(void *arg, const void *buf)
{
	struct dev *d = arg;

	if (dev_is_down(d))
		return -EIO;
	d->supers++;
	memcpy(d->super_now, buf, SMALL_SIZE);
	/* A device without a durable write flushes: power may go in between. */
	return dev_flush(d);
}

/* Of what was not flushed any part may have reached the disk, the super whole or not at all. */
static inline void dev_power_cut(struct dev *d)
{
	for (size_t i = 0; i < d->pending_nr; i++)
		dev_settle(d, d->pending[i], rnd(2));
	d->pending_nr = 0;
	if (memcmp(d->super_now, d->super_disk, SMALL_SIZE) != 0 && rnd(2))
		memcpy(d->super_disk, d->super_now, SMALL_SIZE);
	memcpy(d->super_now, d->super_disk, SMALL_SIZE);
	d->crash_at = 0;
}

static inline int layout_write(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf, size_t len)
{
	struct dev *d = arg;

	if (dev != MKFS_META)
		return 0;
	if (offset == SUPER_BLKNO << SMALL_SHIFT) {
		assert_true(len >= SMALL_SIZE);
		memcpy(d->super_now, buf, SMALL_SIZE);
		memcpy(d->super_disk, buf, SMALL_SIZE);
	}
	for (size_t at = 0; at + LARGE_SIZE <= len && offset >= META_FIRST_BLKNO << LARGE_SHIFT;
	     at += LARGE_SIZE)
		dev_put(d, (offset + at) >> LARGE_SHIFT, (const uint8_t *)buf + at);
	return 0;
}

static inline int layout_flush(void *arg, enum mkfs_device dev)
{
	(void)arg;
	(void)dev;
	return 0;
}

static inline struct dev *dev_make(uint64_t meta, uint64_t data)
{
	struct mkfs_params p = { .fmt_vers = 2, .fsid = FSID, .uuid = { 1, 2, 3 }, .now_sec = 1,
				 .total_meta_blocks = meta, .total_data_blocks = data,
				 .slots[0] = { true, 42000, 0x7f000001 } };
	struct dev *d = calloc(1, sizeof(*d));
	struct mkfs_ops ops = { d, layout_write, layout_flush };
	const char *why;

	d->now = calloc(META, sizeof(*d->now));
	d->disk = calloc(META, sizeof(*d->disk));
	assert_int_equal(mkfs_params_check(&p, &why), 0);
	assert_int_equal(mkfs_layout(&p, &ops), 0);
	assert_int_equal(dev_flush(d), 0);
	d->ops = 0;
	return d;
}

static inline void dev_free(struct dev *d)
{
	for (uint64_t b = 0; b < META; b++) {
		if (d->now[b] != d->disk[b])
			free(d->now[b]);
		free(d->disk[b]);
	}
	free(d->now);
	free(d->disk);
	free(d->pending);
	free(d);
}

static inline int dev_write_durable(void *arg, const struct block_write *w, size_t nr, bool data, void *super)
{
	int ret = dev_write(arg, w, nr);

	if (ret == 0)
		ret = dev_flush(arg);
	if (ret == 0 && data)
		((struct dev *)arg)->data_flushes++;
	return ret < 0 ? ret : dev_read_super(arg, super);
}

/* -EAGAIN: interrupted, as by a blockd that is restarted. */
static inline int dev_write_commit(void *arg, struct txn_write *w)
{
	struct dev *d = arg;
	struct disk_super found;
	bool is_interrupted;
	int ret;

	if (!d->knows_commits)
		return -EAGAIN;
	is_interrupted = ++d->commits == d->interrupt_at;
	ret = dev_write_durable(arg, w->blocks, w->blocks_nr, w->data, &found);
	if (ret < 0)
		return ret;
	if (found.hdr.seq.v != w->old->hdr.seq.v || found.hdr.crc.v != w->old->hdr.crc.v)
		return -EUCLEAN;
	if (is_interrupted && !d->interrupt_late)
		return -EAGAIN;
	ret = dev_write_super(arg, w->super);
	w->at_super = ret < 0;
	return ret == 0 && is_interrupted ? -EAGAIN : ret;
}

static inline int dev_probe_data(void *arg)
{
	return ((struct dev *)arg)->data_fails ? -EIO : 0;
}

static inline struct txn_dev txn_dev_of(struct dev *d)
{
	return (struct txn_dev){ .arg = d, .blocks = { d, dev_read, dev_write, dev_random },
				 .write_durable = dev_write_durable, .write_commit = dev_write_commit,
				 .read_super = dev_read_super,
				 .write_super = dev_write_super, .probe_data = dev_probe_data };
}

/* --- the walk: every block in exactly one place --- */

struct walk {
	struct block_set *bs;
	uint8_t *meta;
	uint8_t *fs_root;		/* its blocks */
	struct extent *data;
	size_t data_nr, data_max;
	int bad;
};

static inline void own(struct walk *w, uint64_t blkno, const char *who)
{
	if (blkno < META_FIRST_BLKNO || blkno >= META || w->meta[blkno]++) {
		print_message("block %llu of %s is %s\n", (unsigned long long)blkno, who,
			      blkno < META ? "used twice" : "out of range");
		w->bad++;
	}
}

static inline void own_data(struct walk *w, struct extent e)
{
	if (w->data_nr == w->data_max) {
		w->data_max = w->data_max ? w->data_max * 2 : 1024;
		w->data = realloc(w->data, w->data_max * sizeof(*w->data));
	}
	w->data[w->data_nr++] = e;
}

static inline int own_tree_block(void *arg, const struct btree_visit *v)
{
	struct walk *w = arg;

	assert_int_equal(v->err, 0);
	own(w, v->ref.blkno, "a tree");
	return 0;
}

static inline void walk_tree(struct walk *w, const struct disk_btree_root *root)
{
	assert_int_equal(btree_visit_blocks(w->bs, root, own_tree_block, w), 0);
}

static inline int own_list_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	struct walk *w = arg;

	own(w, ref.blkno, "a list's chain");
	for (uint32_t i = 0; i < le32_get(b->nr); i++)
		own(w, le64_get(b->blknos[le32_get(b->start) + i]), "a list");
	return 0;
}

static inline void walk_list(struct walk *w, const struct disk_alloc_list_head *head)
{
	assert_int_equal(alloc_list_each(w->bs, head, own_list_block, w), 0);
}

static inline int own_free_meta(void *arg, const struct item *it)
{
	if (it->key.zone == ZONE_FREE_BY_BLKNO) {
		for (uint64_t i = 0; i < it->key.second; i++)
			own(arg, it->key.first - i, "a free extent");
	}
	return 0;
}

static inline int own_free_data(void *arg, const struct item *it)
{
	if (it->key.zone == ZONE_FREE_BY_BLKNO)
		own_data(arg, (struct extent){ it->key.first - it->key.second + 1, it->key.second });
	return 0;
}

static inline void walk_extents(struct walk *w, const struct disk_alloc_root *root, btree_item_fn each)
{
	walk_tree(w, &root->root);
	assert_int_equal(btree_each(w->bs, &root->root, &KEY_ZEROS, &KEY_ONES, each, w), 0);
}

static inline int own_srch_block(void *arg, const struct srch_visit *v)
{
	assert_int_equal(v->err, 0);
	own(arg, v->ref.blkno, "a srch file");
	return 0;
}

static inline int walk_log(void *arg, const struct item *it)
{
	struct walk *w = arg;
	struct disk_log_trees lt;

	assert_int_equal(log_trees_check(it, &lt), 0);
	walk_list(w, &lt.meta_avail);
	walk_list(w, &lt.meta_freed);
	walk_tree(w, &lt.item_root);
	if (le64_get(lt.bloom_ref.blkno))
		own(w, le64_get(lt.bloom_ref.blkno), "a bloom block");
	walk_extents(w, &lt.data_avail, own_free_data);
	walk_extents(w, &lt.data_freed, own_free_data);
	assert_int_equal(srch_file_visit_blocks(w->bs, &lt.srch_file, false, own_srch_block, w), 0);
	return 0;
}

static inline int walk_srch(void *arg, const struct item *it)
{
	struct walk *w = arg;
	struct disk_srch_compact sc;
	struct disk_srch_file sf;

	if (it->key.type == TYPE_SRCH_LOG) {
		memcpy(&sf, it->val, sizeof(sf));
		assert_int_equal(srch_file_visit_blocks(w->bs, &sf, false, own_srch_block, w), 0);
	} else {
		memcpy(&sc, it->val, sizeof(sc));
		walk_list(w, &sc.meta_avail);
		walk_list(w, &sc.meta_freed);
	}
	return 0;
}

static inline int own_chain_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	(void)b;
	own(arg, ref.blkno, "a list's chain");
	return 0;
}

/* Blocks of a list that fs_root may still have, as long as what replaces them is not spliced (16.4). */
static inline int own_replaced(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	struct walk *w = arg;

	for (uint32_t i = 0; i < le32_get(b->nr); i++) {
		uint64_t blkno = le64_get(b->blknos[le32_get(b->start) + i]);

		if (!w->fs_root[blkno])
			own(w, blkno, "what a merge replaced");
	}
	return own_chain_block(arg, ref, b);
}

static inline int own_merged_block(void *arg, const struct btree_visit *v)
{
	struct walk *w = arg;

	assert_int_equal(v->err, 0);
	if (!w->fs_root[v->ref.blkno])
		own(w, v->ref.blkno, "a merged tree");
	return 0;
}

/* What is free already is in the allocators, which were walked before; the rest is nowhere else. */
static inline int own_unfreed_block(void *arg, const struct btree_visit *v)
{
	struct walk *w = arg;

	if (v->err == 0 && !w->meta[v->ref.blkno])
		own(w, v->ref.blkno, "a tree that is being freed");
	return v->err == -ESTALE || v->err == -EBADMSG ? 1 : v->err;
}

static inline int walk_merge(void *arg, const struct item *it)
{
	struct merge_complete comp;
	struct merge_freeing fr;
	struct walk *w = arg;
	struct disk_merge_request req;
	const char *why;

	if (it->key.zone == ZONE_MERGE_REQUEST) {
		memcpy(&req, it->val, sizeof(req));
		walk_list(w, &req.meta_avail);
		walk_list(w, &req.meta_freed);
	} else if (it->key.zone == ZONE_MERGE_COMPLETE) {
		assert_int_equal(merge_complete_get(it, &comp, &why), 0);
		walk_list(w, &comp.meta_avail);
		assert_int_equal(alloc_list_each(w->bs, &comp.meta_freed, own_replaced, w), 0);
		/* With its lists gone it is a part of fs_root, or was. */
		if (le64_get(comp.meta_avail.ref.blkno) || le64_get(comp.meta_freed.ref.blkno))
			assert_int_equal(btree_visit_blocks(w->bs, &comp.root, own_merged_block, w), 0);
	} else if (it->key.zone == ZONE_MERGE_FREEING) {
		assert_int_equal(merge_freeing_get(it, &fr, &why), 0);
		assert_int_equal(btree_visit_blocks(w->bs, &fr.root, own_unfreed_block, w), 0);
	}
	return 0;
}

static inline int extent_cmp(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static inline void walk_items(struct walk *w, const struct disk_super *super)
{
	struct forest_roots roots;
	struct forest_iter *fi;
	struct item it;
	int ret;

	forest_roots_of_super(super, &roots);
	assert_int_equal(forest_iter_open(&fi, w->bs, &roots, &KEY_ZEROS, &KEY_ONES), 0);
	while ((ret = forest_iter_next(fi, &it)) == 0) {
		struct disk_extent de;

		if (it.key.zone != ZONE_FS || it.key.type != TYPE_DATA_EXTENT)
			continue;
		memcpy(&de, it.val, sizeof(de));
		own_data(w, (struct extent){ le64_get(de.blkno), it.key.third });
	}
	assert_int_equal(ret, -ENOENT);
	forest_iter_close(fi);
}

/* The volume on the device, by itself: no memory of the server helps. */
static inline void check_volume(struct dev *d)
{
	struct block_dev bd = { d, dev_read, dev_write, dev_random };
	struct walk w = { .meta = calloc(1, META) };
	struct disk_super super;
	uint64_t at = DATA_FIRST_BLKNO;

	memcpy(&super, d->super_now, sizeof(super));
	assert_int_equal(block_crc(&super, sizeof(super)), le32_get(super.hdr.crc));
	assert_int_equal(block_set_open(&w.bs, &bd, FSID, META, 512), 0);
	walk_tree(&w, &super.fs_root);
	w.fs_root = malloc(META);
	memcpy(w.fs_root, w.meta, META);
	walk_tree(&w, &super.logs_root);
	walk_tree(&w, &super.log_merge);
	walk_tree(&w, &super.mounted_clients);
	walk_tree(&w, &super.srch_root);
	for (unsigned i = 0; i < 2; i++) {
		walk_extents(&w, &super.meta_alloc[i], own_free_meta);
		walk_list(&w, &super.server_meta_avail[i]);
		walk_list(&w, &super.server_meta_freed[i]);
	}
	walk_extents(&w, &super.data_alloc, own_free_data);
	assert_int_equal(btree_each(w.bs, &super.logs_root, &KEY_ZEROS, &KEY_ONES, walk_log, &w), 0);
	assert_int_equal(btree_each(w.bs, &super.srch_root, &KEY_ZEROS, &KEY_ONES, walk_srch, &w), 0);
	assert_int_equal(btree_each(w.bs, &super.log_merge, &KEY_ZEROS, &KEY_ONES, walk_merge, &w),
			 0);
	walk_items(&w, &super);
	for (uint64_t b = META_FIRST_BLKNO; b < META; b++) {
		if (!w.meta[b] && w.bad++ < 20)
			print_message("block %llu is nowhere\n", (unsigned long long)b);
	}
	qsort(w.data, w.data_nr, sizeof(*w.data), extent_cmp);
	for (size_t i = 0; i < w.data_nr; i++) {
		if (w.data[i].start != at && w.bad++ < 20)
			print_message("data blocks %llu and %llu do not meet\n",
				      (unsigned long long)at, (unsigned long long)w.data[i].start);
		at = w.data[i].start + w.data[i].len;
	}
	assert_int_equal(at, DATA);
	assert_int_equal(w.bad, 0);
	block_set_close(w.bs);
	free(w.meta);
	free(w.fs_root);
	free(w.data);
}

#endif
