/*
 * A small volume in memory with a bit of everything, made through lib/core, and the checker run on
 * it. For test_check*.c.
 */
#ifndef TEST_CHECK_VOL_H
#define TEST_CHECK_VOL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "alloc/meta_alloc.h"
#include "csum/csum.h"
#include "format/mkfs_layout.h"
#include "log/srch.h"
#include "memdev.h"
#include "tools/scoutfsctl/check_volume.h"

#define META_BLOCKS 4096ull
#define DATA_BLOCKS (1ull << 20)
#define FSID 0x1122334455667788ull
#define RID 0x77ull
#define SEQ 200ull /* of the volume */

#define DIR_INO 1024ull
#define FILE_INO 1025ull
#define SYM_INO 1026ull
#define ORPHAN_INO 1027ull
#define FIFO_INO 1028ull

#define SRCH_NAME "scoutfs.srch.x"
#define SRCH_ID 2u

struct vol {
	struct memdev dev;
	struct disk_super super;
	struct disk_super data_super;
	struct disk_log_trees lt[2]; /* nr 1, finalized, and nr 2 */
	struct block_set *bs;	     /* inside a transaction */
	struct meta_alloc ma;
};

/* --- a volume and transactions on it --- */

static inline int layout_write(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf,
			size_t len)
{
	struct vol *v = arg;

	if (dev == MKFS_DATA) {
		if (offset == SUPER_BLKNO << SMALL_SHIFT)
			memcpy(&v->data_super, buf, sizeof(v->data_super));
		return 0;
	}
	while (len) {
		size_t n = LARGE_SIZE - offset % LARGE_SIZE;

		if (n > len)
			n = len;
		memcpy(memdev_at(&v->dev, offset >> LARGE_SHIFT) + offset % LARGE_SIZE, buf, n);
		buf = (const char *)buf + n;
		offset += n;
		len -= n;
	}
	return 0;
}

static inline int layout_flush(void *arg, enum mkfs_device dev)
{
	(void)arg;
	(void)dev;
	return 0;
}

static inline void store_super(struct vol *v)
{
	v->super.hdr.crc = le32_of(block_crc(&v->super, SMALL_SIZE));
	memcpy(memdev_at(&v->dev, 1), &v->super, SMALL_SIZE);
}

static inline void begin(struct vol *v)
{
	assert_int_equal(block_set_open(&v->bs, &v->dev.dev, FSID, META_BLOCKS, 64), 0);
	meta_alloc_open(&v->ma, v->bs, &v->super.server_meta_avail[0],
			&v->super.server_meta_freed[0]);
}

static inline void put_in(struct vol *v, struct disk_btree_root *root, const struct key *key, uint64_t seq,
		   const void *val, size_t len)
{
	struct item it = { .key = *key, .seq = seq, .val = val, .val_len = (uint16_t)len };

	assert_int_equal(btree_force(v->bs, &v->ma.al, root, &it), 0);
}

static inline void end(struct vol *v)
{
	for (unsigned i = 0; i < 2; i++) {
		struct key key = key_log_trees(RID, i + 1);

		if (le64_get(v->lt[i].nr))
			put_in(v, &v->super.logs_root, &key, 0, &v->lt[i], sizeof(v->lt[i]));
	}
	meta_alloc_close(&v->ma);
	assert_int_equal(block_set_write(v->bs), 0);
	block_set_close(v->bs);
	v->bs = NULL;
	store_super(v);
}

static inline void put(struct vol *v, struct key key, const void *val, size_t len)
{
	put_in(v, &v->super.fs_root, &key, 10, val, len);
}

static inline void del(struct vol *v, struct key key)
{
	assert_int_equal(btree_delete(v->bs, &v->ma.al, &v->super.fs_root, &key), 0);
}

static inline void put_log(struct vol *v, unsigned i, struct key key, uint64_t seq, const void *val,
		    size_t len, uint8_t flags)
{
	struct item it = {
		.key = key, .seq = seq, .val = val, .val_len = (uint16_t)len, .flags = flags
	};

	assert_int_equal(log_tree_force(v->bs, &v->ma, &v->lt[i], &it), 0);
}

static inline size_t get(struct vol *v, const struct disk_btree_root *root, struct key key, void *val,
		  size_t max)
{
	struct btree_ref ref;
	size_t len;

	assert_int_equal(btree_lookup(v->bs, root, &key, &ref), 0);
	len = ref.item.val_len;
	assert_true(len <= max);
	memcpy(val, ref.item.val, len);
	btree_put(v->bs, &ref);
	return len;
}

static inline struct disk_inode get_inode(struct vol *v, uint64_t ino)
{
	struct disk_inode in = { 0 };

	get(v, &v->super.fs_root, key_inode(ino), &in, sizeof(in));
	return in;
}

static inline void put_inode(struct vol *v, uint64_t ino, const struct disk_inode *in)
{
	put(v, key_inode(ino), in, sizeof(*in));
}

static inline struct disk_inode new_inode(uint32_t mode, uint32_t nlink, uint64_t size)
{
	return (struct disk_inode){
		.mode = le32_of(mode),
		.nlink = le32_of(nlink),
		.size = le64_of(size),
		.meta_seq = le64_of(10),
		.data_seq = le64_of(10),
		.next_readdir_pos = le64_of(2),
	};
}

static inline size_t make_dirent(uint8_t *buf, const char *name, uint64_t pos, uint64_t ino, uint8_t type)
{
	struct disk_dirent *d = (void *)buf;
	size_t len = strlen(name);

	memset(d, 0, sizeof(*d));
	d->ino = le64_of(ino);
	d->hash = le64_of(dirent_name_hash(name, len));
	d->pos = le64_of(pos);
	d->type = type;
	memcpy(d->name, name, len);
	return sizeof(*d) + len;
}

static inline void link_name(struct vol *v, uint64_t dir, const char *name, uint64_t pos, uint64_t ino,
		      uint8_t type)
{
	_Alignas(8) uint8_t buf[512];
	size_t len = make_dirent(buf, name, pos, ino, type);

	put(v, key_dirent(dir, dirent_name_hash(name, strlen(name)), pos), buf, len);
	put(v, key_readdir(dir, pos), buf, len);
	put(v, key_backref(ino, dir, pos), buf, len);
}

static inline void put_xattr(struct vol *v, uint64_t ino, uint64_t id, const char *name, const char *value,
		      size_t value_len)
{
	static _Alignas(8) uint8_t buf[XATTR_PARTS_MAX * ITEM_VAL_MAX];
	struct disk_xattr *x = (void *)buf;
	size_t name_len = strlen(name), len = sizeof(*x) + name_len + value_len;

	memset(x, 0, sizeof(*x));
	x->val_len = le16_of((uint16_t)value_len);
	x->name_len = (uint8_t)name_len;
	memcpy(x->name, name, name_len);
	memcpy(x->name + name_len, value, value_len);
	for (size_t at = 0; at < len; at += ITEM_VAL_MAX)
		put(v,
		    key_xattr(ino, xattr_name_hash(name, name_len), id,
			      (uint8_t)(at / ITEM_VAL_MAX)),
		    buf + at, len - at < ITEM_VAL_MAX ? len - at : ITEM_VAL_MAX);
}

static inline void put_extent(struct vol *v, uint64_t ino, uint64_t first, uint64_t len, uint64_t blkno,
		       uint8_t flags)
{
	struct disk_extent e = { .blkno = le64_of(blkno), .flags = flags };

	put(v, key_extent(ino, first + len - 1, len), &e, sizeof(e));
}

static inline void take_data(struct vol *v, uint64_t start, uint64_t len)
{
	assert_int_equal(free_extents_remove(v->bs, &v->ma.al, &v->super.data_alloc,
					     (struct extent){ .start = start, .len = len }),
			 0);
}

/* A srch file of one leaf. */
static inline struct disk_srch_file make_srch(struct vol *v, const struct srch_entry *e, unsigned nr)
{
	struct disk_srch_file f = { .blocks = le64_of(1), .entries = le64_of(nr), .height = 1 };
	struct srch_entry prev = { 0 };
	struct disk_srch_block *b;
	struct block_ref ref;
	struct block *bl;
	size_t at = 0;

	assert_int_equal(block_new(v->bs, &v->ma.al, MAGIC_SRCH_BLOCK, &ref, &bl), 0);
	b = bl->data;
	for (unsigned i = 0; i < nr; i++) {
		struct disk_srch_entry d = { le64_of(e[i].hash), le64_of(e[i].ino),
					     le64_of(e[i].id) };

		at += srch_entry_encode(&prev, &e[i], b->entries + at);
		prev = e[i];
		if (!i || srch_entry_cmp(&e[i], &(struct srch_entry){ le64_get(b->first.hash),
								      le64_get(b->first.ino),
								      le64_get(b->first.id) }) < 0)
			b->first = d;
		if (!i || srch_entry_cmp(&e[i], &(struct srch_entry){ le64_get(b->last.hash),
								      le64_get(b->last.ino),
								      le64_get(b->last.id) }) > 0)
			b->last = d;
		b->tail = d;
	}
	b->entry_nr = le32_of(nr);
	b->entry_bytes = le32_of((uint32_t)at);
	f.first = b->first;
	f.last = b->last;
	f.ref = block_ref_put(ref);
	block_put(v->bs, bl);
	return f;
}

static inline void put_srch_log(struct vol *v, const struct disk_srch_file *f)
{
	struct key key = { .zone = ZONE_SRCH,
			   .type = TYPE_SRCH_LOG,
			   .second = le64_get(f->ref.blkno) };

	put_in(v, &v->super.srch_root, &key, 0, f, sizeof(*f));
}

static inline struct srch_entry file_srch_entry(void)
{
	return (struct srch_entry){ hash64(SRCH_NAME, strlen(SRCH_NAME)), FILE_INO, SRCH_ID };
}

static inline struct key indx_key(void)
{
	return (struct key){ .zone = ZONE_XATTR_INDX,
			     .first = 7ull << 56,
			     .second = 9ull << 56 | FILE_INO >> 8,
			     .third = FILE_INO << 56,
			     .fourth = 4 };
}

static inline struct disk_xattr_total total_of(uint64_t total, uint64_t count)
{
	return (struct disk_xattr_total){ le64_of(total), le64_of(count) };
}

#define TOTAL_KEY ((struct key){ .zone = ZONE_XATTR_TOTL, .first = 1, .second = 2, .third = 3 })

static inline void fill_root_dir(struct vol *v)
{
	struct disk_inode in = get_inode(v, ROOT_INO);

	in.size = le64_of(14);
	in.nlink = le32_of(3);
	in.next_readdir_pos = le64_of(6);
	put_inode(v, ROOT_INO, &in);
	link_name(v, ROOT_INO, "dir", 2, DIR_INO, DIRENT_DIR);
	link_name(v, ROOT_INO, "file", 3, FILE_INO, DIRENT_REG);
	link_name(v, ROOT_INO, "link", 4, FILE_INO, DIRENT_REG);
	link_name(v, ROOT_INO, "sym", 5, SYM_INO, DIRENT_LNK);
}

static inline void fill_file(struct vol *v)
{
	struct disk_inode in = new_inode(S_IFREG | 0644, 2, 8 * SMALL_SIZE);
	struct disk_xattr_total t = total_of(5, 1);
	static char big[2000];

	in.online_blocks = in.offline_blocks = le64_of(4);
	in.next_xattr_id = le64_of(5);
	put_inode(v, FILE_INO, &in);
	put(v, key_index(TYPE_INDEX_META_SEQ, 10, FILE_INO), NULL, 0);
	put(v, key_index(TYPE_INDEX_DATA_SEQ, 10, FILE_INO), NULL, 0);
	take_data(v, 64, 4);
	put_extent(v, FILE_INO, 0, 4, 64, 0);
	put_extent(v, FILE_INO, 4, 4, 0, EXTENT_FLAG_OFFLINE);
	put_xattr(v, FILE_INO, 0, "user.a", "v", 1);
	put_xattr(v, FILE_INO, 1, "user.big", big, sizeof(big));
	put_xattr(v, FILE_INO, SRCH_ID, SRCH_NAME, "", 0);
	put_xattr(v, FILE_INO, 3, "scoutfs.totl.t.1.2.3", "5", 1);
	put_xattr(v, FILE_INO, 4, "scoutfs.hide.indx.i.7.9", "", 0);
	put(v, TOTAL_KEY, &t, sizeof(t));
	put(v, indx_key(), NULL, 0);
}

static inline void fill_others(struct vol *v)
{
	struct disk_inode in = new_inode(S_IFDIR | 0755, 2, 4);
	struct disk_quota_rule rule = { .prio = 1, .op = 1, .limit = le64_of(100) };

	in.next_readdir_pos = le64_of(3);
	put_inode(v, DIR_INO, &in);
	put(v, key_index(TYPE_INDEX_META_SEQ, 10, DIR_INO), NULL, 0);
	in = new_inode(S_IFLNK | 0777, 1, 6);
	put_inode(v, SYM_INO, &in);
	put(v, key_symlink(SYM_INO, 0), "hello", 6);
	put(v, key_index(TYPE_INDEX_META_SEQ, 10, SYM_INO), NULL, 0);
	in = new_inode(S_IFREG | 0600, 0, 0);
	put_inode(v, ORPHAN_INO, &in);
	put(v, key_orphan(ORPHAN_INO), NULL, 0);
	put(v, key_index(TYPE_INDEX_META_SEQ, 10, ORPHAN_INO), NULL, 0);
	put(v, key_index(TYPE_INDEX_DATA_SEQ, 10, ORPHAN_INO), NULL, 0);
	put(v,
	    (struct key){ .zone = ZONE_QUOTA,
			  .type = TYPE_QUOTA_RULE,
			  .second = hash64(&rule, sizeof(rule)) },
	    &rule, sizeof(rule));
	/* An older state that log tree 2 has deleted. */
	put(v, key_index(TYPE_INDEX_META_SEQ, 5, FILE_INO), NULL, 0);
}

/* dir/fifo, in the finalized log tree only. */
static inline void fill_log1(struct vol *v)
{
	struct disk_inode in = new_inode(S_IFIFO | 0600, 1, 0);
	_Alignas(8) uint8_t buf[64];
	size_t len = make_dirent(buf, "fifo", 2, FIFO_INO, DIRENT_FIFO);

	v->lt[0] = (struct disk_log_trees){ .rid = le64_of(RID), .nr = le64_of(1) };
	put_log(v, 0, key_inode(FIFO_INO), 40, &in, sizeof(in), 0);
	put_log(v, 0, key_index(TYPE_INDEX_META_SEQ, 10, FIFO_INO), 40, NULL, 0, 0);
	put_log(v, 0, key_dirent(DIR_INO, dirent_name_hash("fifo", 4), 2), 40, buf, len, 0);
	put_log(v, 0, key_readdir(DIR_INO, 2), 40, buf, len, 0);
	put_log(v, 0, key_backref(FIFO_INO, DIR_INO, 2), 40, buf, len, 0);
	v->lt[0].inode_count_delta = le64_of(1);
	v->lt[0].get_trans_seq = v->lt[0].commit_trans_seq = le64_of(40);
	v->lt[0].flags = le64_of(LOG_TREES_FLAG_FINALIZED);
	v->lt[0].finalize_seq = le64_of(50);
}

static inline void fill_log2(struct vol *v)
{
	struct disk_inode in = get_inode(v, FILE_INO);
	struct srch_entry e = file_srch_entry();

	v->lt[1] = (struct disk_log_trees){ .rid = le64_of(RID), .nr = le64_of(2) };
	in.uid = le32_of(7);
	put_log(v, 1, key_inode(FILE_INO), 60, &in, sizeof(in), 0);
	put_log(v, 1, key_index(TYPE_INDEX_META_SEQ, 5, FILE_INO), 60, NULL, 0, ITEM_FLAG_DELETION);
	v->lt[1].get_trans_seq = v->lt[1].commit_trans_seq = le64_of(60);
	v->lt[1].srch_file = make_srch(v, &e, 1);
	take_data(v, 1000, 100);
	assert_int_equal(free_extents_insert(v->bs, &v->ma.al, &v->lt[1].data_avail,
					     (struct extent){ .start = 1000, .len = 100 }),
			 0);
	assert_int_equal(alloc_list_fill(v->bs, &v->ma.al, &v->lt[1].meta_avail,
					 &v->super.meta_alloc[0], 1, 10),
			 0);
}

static inline void make_volume(struct vol *v)
{
	struct srch_entry pair[2] = { { 5, 9, 9 }, { 5, 9, 9 } };
	struct mkfs_ops ops = { .arg = v, .write = layout_write, .flush = layout_flush };
	struct mkfs_params p = { .fmt_vers = 2,
				 .fsid = FSID,
				 .total_meta_blocks = META_BLOCKS,
				 .total_data_blocks = DATA_BLOCKS };
	struct disk_srch_file f;

	memset(v, 0, sizeof(*v));
	memdev_init(&v->dev, 1);
	for (unsigned i = 0; i < 3; i++)
		p.slots[i] = (struct mkfs_slot){ .is_used = true,
						 .port = (uint16_t)(42000 + i),
						 .addr = 0x7f000001 };
	assert_int_equal(mkfs_layout(&p, &ops), 0);
	memcpy(&v->super, memdev_at(&v->dev, 1), sizeof(v->super));
	v->super.seq = le64_of(SEQ);
	v->super.next_ino = le64_of(2048);
	v->super.inode_count = le64_of(5);
	begin(v);
	fill_root_dir(v);
	fill_file(v);
	fill_others(v);
	fill_log1(v);
	fill_log2(v);
	f = make_srch(v, pair, 2);
	put_srch_log(v, &f);
	end(v);
}

static inline void free_volume(struct vol *v) { memdev_fini(&v->dev); }

/* --- checking --- */

struct said {
	char text[16384];
	size_t len;
};

static inline void hear(void *arg, const struct check_message *m)
{
	struct said *s = arg;
	char key[KEY_TEXT_BYTES] = "";
	int n;

	if (m->key)
		key_to_text(m->key, key, sizeof(key));
	n = snprintf(s->text + s->len, sizeof(s->text) - s->len, "%c%u: %s: %s [%llu %s]\n",
		     "NWF"[m->severity], m -> invariant, m -> path ? m -> path : "", m->text,
		     (unsigned long long)m->blkno, key);
	if (n > 0 && (size_t)n < sizeof(s->text) - s->len)
		s->len += (size_t)n;
}

static inline int run_check_in(struct vol *v, struct check *ck, struct said *said, size_t sort_bytes)
{
	int ret;

	*said = (struct said){ 0 };
	*ck = (struct check){
		.dev = v->dev.dev,
		.meta_bytes = META_BLOCKS << LARGE_SHIFT,
		.data_bytes = DATA_BLOCKS << SMALL_SHIFT,
		.data_super = &v->data_super,
		.message = hear,
		.message_arg = said,
		.sort_bytes = sort_bytes,
	};
	ret = check_volume(ck);
	check_fini(ck);
	return ret;
}

/* In plenty of memory, and in next to none: the answer is the same. */
static inline int run_check(struct vol *v, struct check *ck, struct said *said)
{
	static struct said little_said;
	struct check little;
	int ret = run_check_in(v, &little, &little_said, 1);

	assert_int_equal(run_check_in(v, ck, said, 0), ret);
	assert_memory_equal(ck->findings_nr, little.findings_nr, sizeof(ck->findings_nr));
	assert_memory_equal(ck->warnings_nr, little.warnings_nr, sizeof(ck->warnings_nr));
	return ret;
}

/* Whether exactly findings of that number (0: none) are reported, and the same of warnings; says
 * what is not so. */
static inline bool check_says(struct vol *v, const char *what, unsigned finding, unsigned warning)
{
	static struct said said;
	struct check ck;
	int ret = run_check(v, &ck, &said);
	bool is_right = finding == 1 || !ret;

	for (unsigned i = 1; i <= CHECK_INVARIANTS_NR; i++) {
		is_right &= (ck.findings_nr[i] > 0) == (i == finding);
		is_right &= (ck.warnings_nr[i] > 0) == (i == warning);
	}
	if (!is_right)
		print_error("%s: not exactly F%u W%u (returned %d):\n%s", what, finding, warning,
			    ret, said.text);
	return is_right;
}

/* --- its blocks, and states that take some making --- */

static inline struct disk_btree_block *root_block(struct vol *v, const struct disk_btree_root *root)
{
	return (void *)memdev_at(&v->dev, le64_get(root->ref.blkno));
}

static inline void seal(struct vol *v, uint64_t blkno)
{
	struct disk_header *h = (void *)memdev_at(&v->dev, blkno);

	h->crc = le32_of(block_crc(h, LARGE_SIZE));
}

#define FS_BLOCK(v) root_block(v, &(v)->super.fs_root)
#define FS_SEAL(v) seal(v, le64_get((v)->super.fs_root.ref.blkno))

static inline struct disk_quorum_block *quorum(struct vol *v, unsigned slot)
{
	return (void *)(memdev_at(&v->dev, 1) + SMALL_SIZE * (slot + 1));
}

static inline void quorum_seal(struct vol *v, unsigned slot)
{
	quorum(v, slot)->hdr.crc = le32_of(block_crc(quorum(v, slot), SMALL_SIZE));
}

/* Enough xattrs that fs_root has a parent. */
static inline void grow_tree(struct vol *v)
{
	static char value[800];
	struct disk_inode in;
	char name[32];

	begin(v);
	for (unsigned i = 0; i < 120; i++) {
		snprintf(name, sizeof(name), "user.n%u", i);
		put_xattr(v, FILE_INO, 10 + i, name, value, sizeof(value));
	}
	get(v, &v->lt[1].item_root, key_inode(FILE_INO), &in, sizeof(in));
	in.next_xattr_id = le64_of(130);
	put_log(v, 1, key_inode(FILE_INO), 61, &in, sizeof(in), 0);
	end(v);
	assert_int_equal(v->super.fs_root.height, 2);
}

static inline void put_compact(struct vol *v, struct disk_srch_compact *c, bool with_items)
{
	struct key key = { .zone = ZONE_SRCH, .type = TYPE_SRCH_PENDING };
	struct srch_entry pair[2] = { { 6, 9, 9 }, { 6, 9, 9 } };

	c->nr = 2;
	for (unsigned i = 0; i < 2; i++) {
		c->in[i].file = make_srch(v, pair, 2);
		if (with_items)
			put_srch_log(v, &c->in[i].file);
	}
	c->id = c->in[0].file.ref.blkno;
	key.second = le64_get(c->id);
	put_in(v, &v->super.srch_root, &key, 0, c, sizeof(*c));
}

#define MERGE_SEQ 90ull

static inline void put_status(struct vol *v, uint64_t requests, uint64_t completes)
{
	struct disk_merge_status st = { .nr_requests = le64_of(requests),
					.nr_complete = le64_of(completes),
					.seq = le64_of(MERGE_SEQ) };

	put_in(v, &v->super.log_merge, &(struct key){ .zone = ZONE_MERGE_STATUS }, 0, &st,
	       sizeof(st));
}

/*
 * A completion that is not spliced: its subtree is a copy of fs_root with one more quota rule...
 * of which the replaced block stands in its freed list and is in fs_root still (16.4).
 */
/*
 * Work of a merge that waits to be spliced: a copy of fs_root with one item more, for keys from start to end.
 * frees_kept: with a leaf in its freed list that the copy goes on using.
 */
static inline void put_complete(struct vol *v, uint64_t seq, struct key start, struct key end_key, bool frees_kept)
{
	struct key key = { .zone = ZONE_MERGE_COMPLETE, .first = seq };
	struct disk_merge_complete c = { .rid = le64_of(RID),
					 .seq = le64_of(seq),
					 .root = v->super.fs_root,
					 .start = key_to_disk(&start),
					 .end = key_to_disk(&end_key),
					 .remain = key_to_disk(&end_key) };
	struct item it = { .key = { .zone = ZONE_XATTR_TOTL, .first = 55 },
			   .seq = 30,
			   .val = &(struct disk_xattr_total){ { 0 }, { 0 } },
			   .val_len = sizeof(struct disk_xattr_total) };
	struct meta_alloc worker;

	begin(v);
	assert_int_equal(
		alloc_list_fill(v->bs, &v->ma.al, &c.meta_avail, &v->super.meta_alloc[0], 1, 50),
		0);
	end(v);
	begin(v);
	meta_alloc_open(&worker, v->bs, &c.meta_avail, &c.meta_freed);
	assert_int_equal(btree_insert(v->bs, &worker.al, &c.root, &it), 0);
	if (frees_kept) {
		struct disk_btree_block *b = root_block(v, &v->super.fs_root);
		struct disk_block_ref child;
		struct item last;

		btb_item(b, btb_last(b), &last);	/* the item goes to the first */
		memcpy(&child, last.val, sizeof(child));
		assert_int_equal(block_free(v->bs, &worker.al, block_ref_get(&child)), 0);
	}
	meta_alloc_close(&worker);
	put_in(v, &v->super.log_merge, &key, 0, &c, sizeof(c));
	end(v);
}

static inline void merge_complete_waits(struct vol *v)
{
	put_complete(v, 92, KEY_ZEROS, KEY_ONES, false);
	begin(v);
	put_status(v, 0, 1);
	end(v);
}

#endif
