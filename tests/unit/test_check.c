/*
 * What `scoutfsctl check` promises: a sound volume has no finding, and each invariant of format.md
 * 20 that is broken is reported under its number and no other.  A small volume with a bit of
 * everything is made in memory through lib/core, spoiled in one place, and checked.
 */
#include "test_check_vol.h"

/* --- spoiling --- */

static struct disk_btree_item *raw_item(struct disk_btree_block *b, struct key key)
{
	int slot = btb_find(b, &key);

	assert_true(slot >= 0);
	return &b->items[slot];
}

static void fs_bad_crc(struct vol *v) { ((uint8_t *)FS_BLOCK(v))[40000] ^= 1; }
static void fs_bad_fsid(struct vol *v)
{
	FS_BLOCK(v)->hdr.fsid = le64_of(1);
	FS_SEAL(v);
}
static void fs_bad_seq(struct vol *v)
{
	v->super.fs_root.ref.seq = le64_of(12345);
	store_super(v);
}
static void super_unused(struct vol *v)
{
	v->super.unused[7] = 1;
	store_super(v);
}
static void super_uuid(struct vol *v)
{
	v->super.uuid[3] ^= 1;
	store_super(v);
}
static void super_is_big(struct vol *v)
{
	v->super.total_meta_blocks = le64_of(META_BLOCKS * 2);
	store_super(v);
}
static void super_vers(struct vol *v)
{
	v->super.fmt_vers = le64_of(3);
	store_super(v);
}
static void quorum_crc(struct vol *v) { memdev_at(&v->dev, 1)[SMALL_SIZE * 5 + 100] ^= 1; }
static void slots_equal(struct vol *v)
{
	v->super.qconf.slots[1] = v->super.qconf.slots[0];
	store_super(v);
}

static void slots_none(struct vol *v)
{
	memset(v->super.qconf.slots, 0, sizeof(v->super.qconf.slots));
	store_super(v);
}

static void volopt_unknown(struct vol *v)
{
	v->super.volopt.set_bits = le64_of(4);
	store_super(v);
}

static void quorum_events(struct vol *v)
{
	quorum(v, 0)->write_nr = le64_of(3);
	quorum(v, 0)->events[QUORUM_EVENT_BEGIN].write_nr = le64_of(3);
	quorum(v, 0)->events[QUORUM_EVENT_END].write_nr = le64_of(4);
	quorum_seal(v, 0);
}

static void fs_height(struct vol *v)
{
	v->super.fs_root.height = 2;
	store_super(v);
}
static void fs_height_21(struct vol *v)
{
	v->super.fs_root.height = 21;
	store_super(v);
}

static void avl_loop(struct vol *v)
{
	struct disk_btree_block *b = FS_BLOCK(v);

	b->items[(le16_get(b->item_root) - 16) / 56].node.left = b->item_root;
	FS_SEAL(v);
}

static void avl_order(struct vol *v)
{
	struct disk_btree_item *it = raw_item(FS_BLOCK(v), key_inode(FILE_INO));

	it->key.third = le64_of(99999999);
	it->key.type = TYPE_DATA_EXTENT;
	FS_SEAL(v);
}

static void avl_height(struct vol *v)
{
	FS_BLOCK(v)->items[3].node.height += 3;
	FS_SEAL(v);
}

static void hash_hole(struct vol *v)
{
	struct disk_btree_block *b = FS_BLOCK(v);
	uint8_t *table = (uint8_t *)b + BTREE_HASH_OFFSET;

	for (unsigned i = 0; i < BTREE_HASH_BUCKETS; i++)
		if (table[2 * i] | table[2 * i + 1]) {
			table[2 * i] = table[2 * i + 1] = 0;
			break;
		}
	FS_SEAL(v);
}

static void value_odd(struct vol *v)
{
	struct disk_btree_item *it = raw_item(FS_BLOCK(v), key_inode(FILE_INO));

	it->val_off = le16_of((uint16_t)(le16_get(it->val_off) + 4));
	FS_SEAL(v);
}

static void value_overlap(struct vol *v)
{
	raw_item(FS_BLOCK(v), key_inode(FILE_INO))->val_off =
		raw_item(FS_BLOCK(v), key_inode(DIR_INO))->val_off;
	FS_SEAL(v);
}

static void item_bytes(struct vol *v)
{
	FS_BLOCK(v)->total_item_bytes = le16_of(
		(uint16_t)(le16_get(FS_BLOCK(v)->total_item_bytes) + 8));
	FS_SEAL(v);
}

static void parent_bound(struct vol *v)
{
	struct disk_btree_block *b;
	struct item it;

	grow_tree(v);
	b = FS_BLOCK(v);
	btb_item(b, btb_first(b), &it);
	it.key = key_prev(it.key);
	btb_set_key(b, btb_first(b), &it.key);
	FS_SEAL(v);
}

static void parent_edge(struct vol *v)
{
	struct key key = { .zone = 200 };

	grow_tree(v);
	btb_set_key(FS_BLOCK(v), btb_last(FS_BLOCK(v)), &key);
	FS_SEAL(v);
}

static void item_pad(struct vol *v)
{
	FS_BLOCK(v)->items[2].pad[1] = 1;
	FS_SEAL(v);
}

static void item_zone(struct vol *v)
{
	begin(v);
	put_in(v, &v->super.mounted_clients, &(struct key){ .zone = ZONE_LOG_TREES, .first = 1 }, 0,
	       "", 0);
	end(v);
}

static void item_size(struct vol *v)
{
	begin(v);
	put(v, TOTAL_KEY, "12345678", 8);
	end(v);
}

static void list_twice(struct vol *v)
{
	v->super.server_meta_avail[1] = v->super.server_meta_avail[0];
	store_super(v);
}

static void tree_twice(struct vol *v)
{
	begin(v);
	v->lt[1].data_freed = v->lt[1].data_avail;
	end(v);
}

static void free_total(struct vol *v)
{
	le64_add(&v->super.data_alloc.total_len, 1);
	store_super(v);
}

static void free_unpaired(struct vol *v)
{
	struct key key = key_free_by_order(1000, 100);

	begin(v);
	assert_int_equal(btree_delete(v->bs, &v->ma.al, &v->lt[1].data_avail.root, &key), 0);
	end(v);
}

static struct disk_alloc_list_block *avail_block(struct vol *v)
{
	return (void *)memdev_at(&v->dev, le64_get(v->super.server_meta_avail[0].ref.blkno));
}

static void avail_seal(struct vol *v)
{
	seal(v, le64_get(v->super.server_meta_avail[0].ref.blkno));
}

static void list_first_nr(struct vol *v)
{
	v->super.server_meta_avail[0].first_nr = le32_of(
		le32_get(v->super.server_meta_avail[0].first_nr) + 1);
	store_super(v);
}

static void list_total_nr(struct vol *v)
{
	le64_add(&v->super.server_meta_avail[0].total_nr, 1);
	store_super(v);
}
static void list_window(struct vol *v)
{
	avail_block(v)->start = le32_of(8000);
	avail_seal(v);
}

static void list_range(struct vol *v)
{
	struct disk_alloc_list_block *b = avail_block(v);

	/* The entry that it replaces must not be missed: it becomes a second list's. */
	b->nr = le32_of(le32_get(b->nr) + 1);
	b->blknos[le32_get(b->start) + le32_get(b->nr) - 1] = le64_of(META_BLOCKS + 5);
	v->super.server_meta_avail[0].first_nr = b->nr;
	v->super.server_meta_avail[0].total_nr = le64_of(le32_get(b->nr));
	avail_seal(v);
	store_super(v);
}

static void list_drop(struct vol *v, uint64_t instead)
{
	struct disk_alloc_list_block *b = avail_block(v);

	if (instead) {
		b->nr = le32_of(le32_get(b->nr) + 1);
		b->blknos[le32_get(b->start) + le32_get(b->nr) - 1] = le64_of(instead);
	} else {
		b->nr = le32_of(le32_get(b->nr) - 1);
	}
	v->super.server_meta_avail[0].first_nr = b->nr;
	v->super.server_meta_avail[0].total_nr = le64_of(le32_get(b->nr));
	avail_seal(v);
	store_super(v);
}

static void list_double(struct vol *v)
{
	struct disk_alloc_list_block *b = avail_block(v);

	list_drop(v, le64_get(b->blknos[le32_get(b->start)]));
}

static void meta_leak(struct vol *v) { list_drop(v, 0); }
static void meta_in_use_listed(struct vol *v)
{
	list_drop(v, le64_get(v->super.fs_root.ref.blkno));
}
static void meta_free_listed(struct vol *v) { list_drop(v, 4000); }

static void data_leak(struct vol *v)
{
	begin(v);
	take_data(v, 5000, 1);
	end(v);
}

static void data_double(struct vol *v)
{
	begin(v);
	assert_int_equal(free_extents_insert(v->bs, &v->ma.al, &v->lt[1].data_freed,
					     (struct extent){ .start = 65, .len = 1 }),
			 0);
	end(v);
}

#define EDIT(name, ...)                 \
	static void name(struct vol *v) \
	{                               \
		begin(v);               \
		__VA_ARGS__;            \
		end(v);                 \
	}
#define EDIT_INODE(name, ino, ...) \
	EDIT(name, struct disk_inode in = get_inode(v, ino); __VA_ARGS__; put_inode(v, ino, &in))

EDIT(log_no_finalize_seq, v->lt[0].finalize_seq = le64_of(0))
EDIT(log_two_open, v->lt[0].flags = le64_of(0); v->lt[0].finalize_seq = le64_of(0))
EDIT(log_commit_ahead, v->lt[1].commit_trans_seq = le64_of(61))
EDIT(log_still_owns, v->lt[1].flags = le64_of(1); v->lt[1].finalize_seq = le64_of(70))

static void log_wrong_rid(struct vol *v)
{
	struct key key = key_log_trees(RID, 2);

	begin(v);
	end(v);
	begin(v);
	v->lt[1].rid = le64_of(RID + 1);
	put_in(v, &v->super.logs_root, &key, 0, &v->lt[1], sizeof(v->lt[1]));
	v->lt[1].nr = le64_of(0);
	end(v);
}

static struct disk_bloom_block *bloom(struct vol *v)
{
	return (void *)memdev_at(&v->dev, le64_get(v->lt[0].bloom_ref.blkno));
}

static void bloom_empty(struct vol *v)
{
	memset(bloom(v)->bits, 0, sizeof(bloom(v)->bits));
	bloom(v)->total_set = le64_of(0);
	seal(v, le64_get(v->lt[0].bloom_ref.blkno));
}

static void bloom_total(struct vol *v)
{
	le64_add(&bloom(v)->total_set, 1);
	seal(v, le64_get(v->lt[0].bloom_ref.blkno));
}

static void seq_beyond(struct vol *v)
{
	begin(v);
	put_in(v, &v->super.fs_root, &(struct key){ .zone = ZONE_XATTR_TOTL, .first = 8 }, SEQ + 1,
	       &(struct disk_xattr_total){ { 0 }, { 0 } }, sizeof(struct disk_xattr_total));
	end(v);
}

static void fs_marker(struct vol *v)
{
	raw_item(FS_BLOCK(v), key_orphan(ORPHAN_INO))->flags = ITEM_FLAG_DELETION;
	FS_SEAL(v);
}

EDIT(no_such_inode, put(v, key_symlink(1999, 0), "x", 2))
EDIT(index_missing, del(v, key_index(TYPE_INDEX_DATA_SEQ, 10, FILE_INO)))
EDIT(index_stale, put(v, key_index(TYPE_INDEX_META_SEQ, 7, SYM_INO), NULL, 0))
EDIT(index_alien, put(v, key_index(TYPE_INDEX_META_SEQ, 7, 1888), NULL, 0))
EDIT(index_of_dir, put(v, key_index(TYPE_INDEX_DATA_SEQ, 10, DIR_INO), NULL, 0))
EDIT(readdir_missing, del(v, key_readdir(ROOT_INO, 3)))
EDIT(dirent_missing, del(v, key_dirent(ROOT_INO, dirent_name_hash("link", 4), 4));
     struct disk_inode in = get_inode(v, ROOT_INO); in.size = le64_of(10);
     put_inode(v, ROOT_INO, &in))
EDIT_INODE(pos_beyond, ROOT_INO, in.next_readdir_pos = le64_of(5))

/* One of the three items says something else. */
static void retype(struct vol *v, struct key key)
{
	_Alignas(8) uint8_t buf[512];
	size_t len = get(v, &v->super.fs_root, key, buf, sizeof(buf));

	((struct disk_dirent *)buf)->type = DIRENT_SOCK;
	put(v, key, buf, len);
}

EDIT(readdir_differs, retype(v, key_readdir(ROOT_INO, 3)))
EDIT(backref_differs, retype(v, key_backref(SYM_INO, ROOT_INO, 5)))
EDIT(type_differs, retype(v, key_readdir(ROOT_INO, 5));
     retype(v, key_backref(SYM_INO, ROOT_INO, 5));
     retype(v, key_dirent(ROOT_INO, dirent_name_hash("sym", 3), 5)))

static void names_equal(struct vol *v)
{
	struct disk_inode in;

	begin(v);
	link_name(v, ROOT_INO, "sym", 6, SYM_INO, DIRENT_LNK);
	in = get_inode(v, ROOT_INO);
	in.size = le64_of(17);
	in.next_readdir_pos = le64_of(7);
	put_inode(v, ROOT_INO, &in);
	in = get_inode(v, SYM_INO);
	in.nlink = le32_of(2);
	put_inode(v, SYM_INO, &in);
	end(v);
}

static void name_hash(struct vol *v)
{
	struct key keys[3] = { key_dirent(ROOT_INO, dirent_name_hash("sym", 3), 5),
			       key_readdir(ROOT_INO, 5), key_backref(SYM_INO, ROOT_INO, 5) };
	_Alignas(8) uint8_t buf[512];

	begin(v);
	for (unsigned i = 0; i < 3; i++) {
		size_t len = get(v, &v->super.fs_root, keys[i], buf, sizeof(buf));

		((struct disk_dirent *)buf)->name[0] = 'S';
		put(v, keys[i], buf, len);
	}
	/* Those items are left out: nothing else may stumble. */
	struct disk_inode in = get_inode(v, ROOT_INO);
	in.size = le64_of(11);
	put_inode(v, ROOT_INO, &in);
	in = get_inode(v, SYM_INO);
	in.nlink = le32_of(0);
	put_inode(v, SYM_INO, &in);
	put(v, key_orphan(SYM_INO), NULL, 0);
	end(v);
}

EDIT_INODE(nlink_file, SYM_INO, in.nlink = le32_of(2))
EDIT_INODE(nlink_dir, ROOT_INO, in.nlink = le32_of(4))
EDIT_INODE(size_dir, ROOT_INO, in.size = le64_of(15))

/* Two directories that are in each other and in nothing else. */
static void dir_cycle(struct vol *v)
{
	begin(v);
	for (uint64_t i = 0; i < 2; i++) {
		struct disk_inode in = new_inode(S_IFDIR | 0755, 3, 1);

		in.next_readdir_pos = le64_of(3);
		put_inode(v, 1100 + i, &in);
		put(v, key_index(TYPE_INDEX_META_SEQ, 10, 1100 + i), NULL, 0);
		link_name(v, 1100 + i, "x", 2, 1101 - i, DIRENT_DIR);
	}
	le64_add(&v->super.inode_count, 2);
	end(v);
}

EDIT(orphan_missing, del(v, key_orphan(ORPHAN_INO)))
EDIT(orphan_linked, put(v, key_orphan(SYM_INO), NULL, 0))
EDIT(orphan_alien, put(v, key_orphan(1900), NULL, 0))
EDIT_INODE(symlink_size, SYM_INO, in.size = le64_of(7))
EDIT(symlink_end, put(v, key_symlink(SYM_INO, 0), "hello!", 6))
EDIT(symlink_gone, del(v, key_symlink(SYM_INO, 0)))
EDIT(xattr_part, del(v, key_xattr(FILE_INO, xattr_name_hash("user.big", 8), 1, 1)))
EDIT(xattr_twice, put_xattr(v, FILE_INO, 3 + 1, "user.a", "w", 1))
EDIT(xattr_name, put_xattr(v, FILE_INO, 4, "scoutfs.not-a-tag", "w", 1))
EDIT(xattr_id, put_xattr(v, FILE_INO, 5, "user.late", "w", 1))
EDIT(totl_value, struct disk_xattr_total t = total_of(6, 1); put(v, TOTAL_KEY, &t, sizeof(t)))
EDIT(totl_missing, del(v, TOTAL_KEY))
EDIT(indx_missing, del(v, indx_key()))
EDIT(indx_alien, struct key k = indx_key(); k.fourth = 9; put(v, k, NULL, 0))
EDIT(extent_sum, del(v, key_extent(FILE_INO, 7, 4)))
EDIT(extent_range, put_extent(v, FILE_INO, 0, 4, DATA_BLOCKS - 2, 0))
EDIT(extent_flags, put_extent(v, FILE_INO, 4, 4, 0, 0))
EDIT(extent_overlap, put_extent(v, FILE_INO, 3, 2, 0, EXTENT_FLAG_OFFLINE);
     del(v, key_extent(FILE_INO, 7, 4)); put_extent(v, FILE_INO, 5, 2, 0, EXTENT_FLAG_OFFLINE))
EDIT(inode_count, le64_add(&v->super.inode_count, 1))
EDIT(next_ino, v->super.next_ino = le64_of(1028))

static void quota_hash(struct vol *v)
{
	struct disk_quota_rule rule = { .prio = 2 };

	begin(v);
	put(v, (struct key){ .zone = ZONE_QUOTA, .type = TYPE_QUOTA_RULE, .second = 1 }, &rule,
	    sizeof(rule));
	end(v);
}

static struct disk_srch_block *srch_leaf(struct vol *v)
{
	return (void *)memdev_at(&v->dev, le64_get(v->lt[1].srch_file.ref.blkno));
}

static void srch_seal(struct vol *v) { seal(v, le64_get(v->lt[1].srch_file.ref.blkno)); }
static void srch_bounds(struct vol *v)
{
	le64_add(&srch_leaf(v)->first.hash, UINT64_MAX);
	srch_leaf(v)->last = srch_leaf(v)->first;
	srch_seal(v);
}
static void srch_bytes(struct vol *v)
{
	srch_leaf(v)->entry_bytes = le32_of(3);
	srch_seal(v);
}
EDIT(srch_entries, le64_add(&v->lt[1].srch_file.entries, 1))
EDIT(srch_tall, v->lt[1].srch_file.height = 2)
EDIT(srch_missed, struct srch_entry e = file_srch_entry();
     struct disk_srch_file f = make_srch(v, &e, 1); put_srch_log(v, &f))
EDIT(srch_extra, struct srch_entry e = { 77, FILE_INO, 3 };
     struct disk_srch_file f = make_srch(v, &e, 1); put_srch_log(v, &f))

EDIT(compact_log, struct disk_srch_compact c = { .flags = SRCH_COMPACT_LOG };
     put_compact(v, &c, true))
EDIT(compact_delete, struct disk_srch_compact c = { .flags = SRCH_COMPACT_DELETE };
     put_compact(v, &c, false))
EDIT(compact_no_state, struct disk_srch_compact c = { .flags = 0 }; put_compact(v, &c, true))

static void compact_orphaned(struct vol *v)
{
	struct disk_srch_compact c = { .flags = SRCH_COMPACT_LOG };
	struct key key = { .zone = ZONE_SRCH, .type = TYPE_SRCH_LOG };

	compact_log(v);
	begin(v);
	put_compact(v, &c, true);
	/* The item of an input goes away, its block is given back: only the record still names
	 * it. */
	key.second = le64_get(c.in[1].file.ref.blkno);
	assert_int_equal(btree_delete(v->bs, &v->ma.al, &v->super.srch_root, &key), 0);
	assert_int_equal(block_free(v->bs, &v->ma.al, block_ref_get(&c.in[1].file.ref)), 0);
	end(v);
}

static void put_request(struct vol *v)
{
	struct key ones = KEY_ONES,
		   key = { .zone = ZONE_MERGE_REQUEST, .first = RID, .second = 91 };
	struct disk_merge_request r = { .rid = le64_of(RID),
					.seq = le64_of(91),
					.input_seq = le64_of(MERGE_SEQ),
					.root = v->super.fs_root,
					.logs_root = v->super.logs_root,
					.end = key_to_disk(&ones) };

	assert_int_equal(
		alloc_list_fill(v->bs, &v->ma.al, &r.meta_avail, &v->super.meta_alloc[0], 1, 10),
		0);
	put_in(v, &v->super.log_merge, &key, 0, &r, sizeof(r));
}

EDIT(merge_running, put_status(v, 1, 0); put_request(v))
EDIT(merge_no_status, put_request(v))
EDIT(merge_count, put_status(v, 2, 0); put_request(v))

/* All keys from first of a zone on. */
static void put_range(struct vol *v, uint8_t zone, uint64_t first)
{
	struct key ones = KEY_ONES, start = { .zone = zone, .first = first }, key = start;
	struct disk_merge_range r = { key_to_disk(&start), key_to_disk(&ones) };

	key.zone = ZONE_MERGE_RANGE;
	put_in(v, &v->super.log_merge, &key, 0, &r, sizeof(r));
}

EDIT(merge_range_waits, put_status(v, 0, 0); put_range(v, ZONE_FS, 7))
EDIT(merge_ranges_overlap, put_status(v, 0, 0); put_range(v, ZONE_FS, 7); put_range(v, ZONE_FS, 99))
EDIT(merge_range_overlaps_request, put_status(v, 1, 0); put_request(v); put_range(v, ZONE_ORPHAN, 0))

static void merge_copy_waits(struct vol *v)
{
	grow_tree(v);
	merge_complete_waits(v);
}

/* What the copy of a subtree goes on using cannot be free. */
static void merge_frees_kept(struct vol *v)
{
	grow_tree(v);
	put_complete(v, 92, KEY_ZEROS, KEY_ONES, true);
	begin(v);
	put_status(v, 0, 1);
	end(v);
}

/* Each has its own part of fs_root; here both have replaced its root block. */
static void merge_frees_twice(struct vol *v)
{
	const struct key middle = key_inode(FILE_INO);

	grow_tree(v);
	put_complete(v, 92, KEY_ZEROS, middle, false);
	put_complete(v, 94, key_next(middle), KEY_ONES, false);
	begin(v);
	put_status(v, 0, 2);
	end(v);
}

/* The log tree that was merged is being freed: some of it is back in the allocators already. */
static void merge_freeing(struct vol *v)
{
	struct key key = { .zone = ZONE_MERGE_FREEING, .first = 93 };
	struct disk_merge_freeing f = { .seq = le64_of(93) };

	grow_tree(v);
	begin(v);
	/* A tree of its own with two levels. */
	for (unsigned i = 0; i < 1500; i++) {
		struct item it = { .key = key_index(TYPE_INDEX_META_SEQ, 1, 3000 + i), .seq = 20 };

		assert_int_equal(btree_insert(v->bs, &v->ma.al, &f.root, &it), 0);
	}
	end(v);
	begin(v);
	assert_int_equal(f.root.height, 2);
	{
		struct disk_btree_block *b = root_block(v, &f.root);
		struct disk_block_ref child;
		struct item it;

		btb_item(b, btb_first(b), &it);
		memcpy(&child, it.val, sizeof(child));
		assert_int_equal(block_free(v->bs, &v->ma.al, block_ref_get(&child)), 0);
		it.key = key_next(it.key);
		f.key = key_to_disk(&it.key);
	}
	put_in(v, &v->super.log_merge, &key, 0, &f, sizeof(f));
	end(v);
}

struct spoil {
	const char *name;
	void (*spoil)(struct vol *v);
	unsigned finding;
	unsigned warning;
};

#define S(fn, nr)              \
	{                      \
#fn, fn, nr, 0 \
	}
#define W(fn, nr)              \
	{                      \
#fn, fn, 0, nr \
	}

static const struct spoil spoils[] = {
	S(fs_bad_crc, 1),
	S(fs_bad_fsid, 1),
	S(fs_bad_seq, 1),
	S(super_unused, 1),
	S(super_uuid, 1),
	S(super_is_big, 1),
	S(super_vers, 1),
	S(quorum_crc, 1),
	S(slots_equal, 2),
	S(slots_none, 2),
	S(volopt_unknown, 2),
	S(quorum_events, 3),
	S(fs_height, 4),
	S(fs_height_21, 4),
	S(avl_loop, 5),
	S(avl_order, 5),
	W(avl_height, 6),
	S(hash_hole, 7),
	S(value_odd, 8),
	S(value_overlap, 8),
	S(item_bytes, 9),
	S(parent_bound, 10),
	S(parent_edge, 10),
	S(item_pad, 11),
	S(item_zone, 11),
	S(item_size, 11),
	S(list_twice, 12),
	S(tree_twice, 12),
	S(free_total, 13),
	S(free_unpaired, 13),
	S(list_first_nr, 14),
	S(list_total_nr, 14),
	S(list_window, 14),
	S(list_range, 14),
	S(list_double, 14),
	S(meta_leak, 15),
	S(meta_in_use_listed, 15),
	S(meta_free_listed, 15),
	S(data_leak, 15),
	S(data_double, 15),
	S(log_no_finalize_seq, 16),
	S(log_two_open, 16),
	S(log_commit_ahead, 16),
	S(log_still_owns, 16),
	S(log_wrong_rid, 16),
	S(bloom_empty, 17),
	S(bloom_total, 17),
	S(seq_beyond, 17),
	S(fs_marker, 18),
	S(no_such_inode, 19),
	S(index_missing, 20),
	S(index_stale, 20),
	S(index_alien, 20),
	S(index_of_dir, 20),
	S(readdir_missing, 21),
	S(dirent_missing, 21),
	S(pos_beyond, 21),
	S(readdir_differs, 21),
	S(backref_differs, 21),
	S(type_differs, 21),
	S(names_equal, 21),
	S(name_hash, 21),
	S(nlink_file, 22),
	S(nlink_dir, 22),
	S(size_dir, 22),
	S(dir_cycle, 22),
	S(orphan_missing, 23),
	S(orphan_linked, 23),
	S(orphan_alien, 23),
	S(symlink_size, 24),
	S(symlink_end, 24),
	S(symlink_gone, 24),
	S(xattr_part, 25),
	S(xattr_twice, 25),
	S(xattr_name, 25),
	S(xattr_id, 25),
	S(totl_value, 26),
	S(totl_missing, 26),
	S(indx_missing, 26),
	S(indx_alien, 26),
	S(extent_sum, 27),
	S(extent_range, 27),
	S(extent_flags, 27),
	S(extent_overlap, 27),
	S(inode_count, 28),
	S(next_ino, 28),
	S(quota_hash, 29),
	S(srch_bounds, 30),
	S(srch_bytes, 30),
	S(srch_entries, 30),
	S(srch_tall, 30),
	S(srch_missed, 31),
	S(srch_extra, 31),
	S(compact_orphaned, 32),
	S(compact_no_state, 32),
	S(merge_no_status, 33),
	S(merge_count, 33),
	S(merge_ranges_overlap, 33),
	S(merge_range_overlaps_request, 33),
	/* Sound, if unusual. */
	S(grow_tree, 0),
	S(compact_log, 0),
	S(compact_delete, 0),
	S(merge_running, 0),
	S(merge_range_waits, 0),
	S(merge_complete_waits, 0),
	S(merge_copy_waits, 0),
	S(merge_frees_kept, 15),
	S(merge_frees_twice, 15),
	S(merge_freeing, 0),
};

static void sound_volume_has_no_finding(void **state)
{
	struct vol v;

	(void)state;
	make_volume(&v);
	assert_true(check_says(&v, "sound", 0, 0));
	free_volume(&v);
}

static void each_broken_rule_is_reported_under_its_number_alone(void **state)
{
	unsigned wrong = 0;
	struct vol v;

	(void)state;
	for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
		make_volume(&v);
		spoils[i].spoil(&v);
		wrong += !check_says(&v, spoils[i].name, spoils[i].finding, spoils[i].warning);
		free_volume(&v);
	}
	assert_int_equal(wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_volume_has_no_finding),
		cmocka_unit_test(each_broken_rule_is_reported_under_its_number_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
