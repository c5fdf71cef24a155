/*
 * The gate for item values: each kind of item is accepted when it is right, and refused, for one
 * reason at a time, when it is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/stat.h>

#include "csum/csum.h"
#include "format/item_check.h"
#include "key/key.h"

static uint8_t val[ITEM_VAL_MAX + 1];

static struct item item_of(struct key key, const void *v, size_t len)
{
	memset(val, 0, sizeof(val));
	if (len)
		memcpy(val, v, len);
	return (struct item){ .key = key, .seq = 1, .val = val, .val_len = (uint16_t)len };
}

static void check_good(int line, enum tree_kind tree, unsigned vers, const struct item *it)
{
	const char *why = "";

	if (item_check(tree, vers, it, &why) != 0)
		fail_msg("line %d: refused: %s", line, why);
}

static void check_bad(int line, enum tree_kind tree, unsigned vers, const struct item *it)
{
	const char *why = NULL;

	if (item_check(tree, vers, it, &why) != -EBADMSG || !why || !why[0])
		fail_msg("line %d: accepted, or refused without a reason", line);
}

#define good(tree, vers, it) check_good(__LINE__, tree, vers, it)
#define bad(tree, vers, it) check_bad(__LINE__, tree, vers, it)
/* A change that makes *it wrong, undone after. */
#define bad_if(tree, it, change) do {		\
	struct item saved_ = *(it);		\
	uint8_t bytes_[sizeof(val)];		\
	memcpy(bytes_, val, sizeof(val));	\
	change;					\
	bad(tree, 2, it);			\
	*(it) = saved_;				\
	memcpy(val, bytes_, sizeof(val));	\
	good(tree, 2, it);			\
} while (0)

static struct disk_inode an_inode(uint32_t mode)
{
	return (struct disk_inode){ .mode = le32_of(mode),
				    .nlink = le32_of(1),
				    .size = le64_of(5) };
}

static void inode_sizes_follow_the_version(void **state)
{
	struct disk_inode in = an_inode(0100644), got;
	struct item it;

	(void)state;
	in.proj = le64_of(77);
	it = item_of(key_inode(1024), &in, INODE_V2_BYTES);
	good(TREE_FS, 2, &it);
	bad(TREE_FS, 1, &it);
	inode_from_item(&it, &got);
	assert_memory_equal(&got, &in, sizeof(in));

	it = item_of(key_inode(1024), &in, INODE_V1_BYTES);
	good(TREE_FS, 2, &it);
	good(TREE_FS, 1, &it);
	/* a short inode has no project, whatever lies behind it */
	memset(val + INODE_V1_BYTES, 0xff, 8);
	inode_from_item(&it, &got);
	assert_true(le64_get(got.proj) == 0);
	assert_memory_equal(&got, &in, INODE_V1_BYTES);

	for (unsigned len = 0; len <= ITEM_VAL_MAX + 1; len++) {
		it.val_len = (uint16_t)len;
		if (len != INODE_V1_BYTES && len != INODE_V2_BYTES)
			bad(TREE_FS, 2, &it);
	}
}

static void inodes_must_make_sense(void **state)
{
	struct disk_inode in = an_inode(0100644);
	struct disk_inode *v = (void *)val;
	struct item it = item_of(key_inode(1024), &in, sizeof(in));

	(void)state;
	bad_if(TREE_FS, &it, it.key.first = 0);
	bad_if(TREE_FS, &it, it.key.second = 1);
	bad_if(TREE_FS, &it, it.key.third = 1);
	bad_if(TREE_FS, &it, it.key.fourth = 1);
	bad_if(TREE_FS, &it, v->mode = le32_of(0644));
	bad_if(TREE_FS, &it, v->mode = le32_of(0170644));
	bad_if(TREE_FS, &it, v->size = le64_of(1ull << 63));
	bad_if(TREE_FS, &it, v->nlink = le32_of(0x80000000));
	bad_if(TREE_FS, &it, v->meta_seq = le64_of(1ull << 63));
	bad_if(TREE_FS, &it, v->data_seq = le64_of(UINT64_MAX));
	bad_if(TREE_FS, &it, v->flags = le32_of(4));
	v->flags = le32_of(INODE_FLAG_RETENTION);
	good(TREE_FS, 2, &it);
	it.val_len = INODE_V1_BYTES;
	bad(TREE_FS, 1, &it);
}

static struct item a_dirent(uint8_t type, const char *name, size_t len)
{
	uint8_t buf[sizeof(struct disk_dirent) + 300] = { 0 };
	struct disk_dirent *d = (void *)buf;
	uint64_t hash = dirent_name_hash(name, len);
	struct key k;

	d->ino = le64_of(1030);
	d->hash = le64_of(hash);
	d->pos = le64_of(9);
	d->type = DIRENT_REG;
	memcpy(d->name, name, len);
	k = type == TYPE_DIRENT ? key_dirent(1024, hash, 9) :
	    type == TYPE_READDIR ? key_readdir(1024, 9) : key_backref(1030, 1024, 9);
	return item_of(k, buf, sizeof(*d) + len);
}

static void entries_must_agree_with_their_keys_and_names(void **state)
{
	static const uint8_t types[] = { TYPE_DIRENT, TYPE_READDIR, TYPE_LINK_BACKREF };
	static char longest[256];
	struct disk_dirent *d = (void *)val;

	(void)state;
	memset(longest, 'x', sizeof(longest));
	for (unsigned i = 0; i < 3; i++) {
		struct item it;

		it = a_dirent(types[i], longest, 255);
		good(TREE_FS, 2, &it);
		it = a_dirent(types[i], longest, 256);
		bad(TREE_FS, 2, &it);
		it = a_dirent(types[i], "", 0);
		bad(TREE_FS, 2, &it);
		it = a_dirent(types[i], ".", 1);
		bad(TREE_FS, 2, &it);
		it = a_dirent(types[i], "..", 2);
		bad(TREE_FS, 2, &it);
		it = a_dirent(types[i], "...", 3);
		good(TREE_FS, 2, &it);
		it = a_dirent(types[i], "a/b", 3);
		bad(TREE_FS, 2, &it);
		it = a_dirent(types[i], "a\0b", 3);
		bad(TREE_FS, 2, &it);

		it = a_dirent(types[i], "name", 4);
		good(TREE_LOG_ITEMS, 1, &it);
		for (uint16_t len = 0; len <= 32; len++)
			bad_if(TREE_FS, &it, it.val_len = len);
		bad_if(TREE_FS, &it, d->ino = le64_of(0));
		bad_if(TREE_FS, &it, d->type = 8);
		bad_if(TREE_FS, &it, d->name[0] = 'N');
		bad_if(TREE_FS, &it, d->hash = le64_of(1));
		bad_if(TREE_FS, &it, d->pos = le64_of(10));
		bad_if(TREE_FS, &it, it.key.fourth = 1);
		bad_if(TREE_FS, &it, it.key.second ^= 1ull << 40; it.key.third ^= 1);
		if (types[i] == TYPE_READDIR)
			bad_if(TREE_FS, &it, it.key.third = 1);
		if (types[i] == TYPE_LINK_BACKREF)
			bad_if(TREE_FS, &it, it.key.first = 1031);
		/* positions 0 and 1 stand for . and .., the greatest is not used */
		bad_if(TREE_FS, &it, d->pos = le64_of(1);
		       it.key.second = types[i] == TYPE_READDIR ? 1 : it.key.second;
		       it.key.third = types[i] == TYPE_READDIR ? 0 : 1);
		bad_if(TREE_FS, &it, d->pos = le64_of(UINT64_MAX);
		       it.key.second = types[i] == TYPE_READDIR ? UINT64_MAX : it.key.second;
		       it.key.third = types[i] == TYPE_READDIR ? 0 : UINT64_MAX);
	}
}

static struct item an_xattr(const char *name, size_t name_len, unsigned val_len)
{
	uint8_t buf[ITEM_VAL_MAX] = { 0 };
	struct disk_xattr *x = (void *)buf;
	size_t total = sizeof(*x) + name_len + val_len;

	x->val_len = le16_of((uint16_t)val_len);
	x->name_len = (uint8_t)name_len;
	memcpy(x->name, name, name_len);
	return item_of(key_xattr(1024, xattr_name_hash(name, name_len), 3, 0), buf,
		       total < ITEM_VAL_MAX ? total : ITEM_VAL_MAX);
}

static void xattr_parts_must_have_the_size_their_header_says(void **state)
{
	struct disk_xattr *x = (void *)val;
	struct item it;

	(void)state;
	for (unsigned len = 0; len < 2000; len += 111) {
		it = an_xattr("user.test", 9, len);
		good(TREE_FS, 2, &it);
		bad_if(TREE_FS, &it, it.val_len--);
		if (it.val_len < ITEM_VAL_MAX)
			bad_if(TREE_FS, &it, it.val_len++);
	}
	it = an_xattr("user.test", 9, 65535);
	good(TREE_FS, 2, &it);
	it = an_xattr("user.test", 9, 5);
	for (uint16_t len = 0; len < 22; len++)
		bad_if(TREE_FS, &it, it.val_len = len);
	bad_if(TREE_FS, &it, x->name_len = 0; it.val_len = 13;
	       it.key.second = xattr_name_hash("", 0));
	bad_if(TREE_FS, &it, x->name_len = 10);
	bad_if(TREE_FS, &it, x->name[8] = 'u');
	bad_if(TREE_FS, &it, x->name[8] = 0; it.key.second = xattr_name_hash(x->name, 9));
	bad_if(TREE_FS, &it, it.key.second++);
	bad_if(TREE_FS, &it, it.key.second |= 1ull << 32);
	bad_if(TREE_FS, &it, it.key.fourth = 74);
	/* a later part is any bytes, but some */
	it.key.fourth = 73;
	memset(val, 0xff, it.val_len);
	good(TREE_FS, 2, &it);
	bad_if(TREE_FS, &it, it.val_len = 0);
}

static struct item an_extent(uint64_t last, uint64_t len, uint64_t blkno, uint8_t flags)
{
	struct disk_extent e = { .blkno = le64_of(blkno), .flags = flags };

	return item_of(key_extent(1024, last, len), &e, sizeof(e));
}

static void extents_must_be_one_of_the_four_kinds_and_in_range(void **state)
{
	struct data_extent ext;
	struct item it;

	(void)state;
	for (unsigned flags = 0; flags < 256; flags++) {
		it = an_extent(9, 4, 100, (uint8_t)flags);
		if (flags == 0 || flags == 2 || flags == 3)
			good(TREE_FS, 2, &it);
		else
			bad(TREE_FS, 2, &it);
		it = an_extent(9, 4, 0, (uint8_t)flags);
		if (flags == 1)
			good(TREE_FS, 2, &it);
		else
			bad(TREE_FS, 2, &it);
	}
	it = an_extent(9, 4, 100, 2);
	extent_from_item(&it, &ext);
	assert_true(ext.iblock == 6 && ext.len == 4 && ext.blkno == 100 && ext.flags == 2);

	it = an_extent(9, 0, 100, 0);
	bad(TREE_FS, 2, &it);
	it = an_extent(9, 11, 100, 0);
	bad(TREE_FS, 2, &it);
	it = an_extent(9, 10, 64, 0);
	good(TREE_FS, 2, &it);
	it = an_extent(9, 10, 63, 0);
	bad(TREE_FS, 2, &it);
	it = an_extent(IBLOCK_MAX, IBLOCK_MAX + 1, 0, 1);
	good(TREE_FS, 2, &it);
	it = an_extent(IBLOCK_MAX + 1, 1, 0, 1);
	bad(TREE_FS, 2, &it);
	it = an_extent(9, 10, UINT64_MAX - 3, 0);
	bad(TREE_FS, 2, &it);
	it = an_extent(9, 10, IBLOCK_MAX - 8, 0);
	bad(TREE_FS, 2, &it);
	it = an_extent(9, 10, 100, 0);
	bad_if(TREE_FS, &it, it.val_len = 15);
	bad_if(TREE_FS, &it, it.val_len = 17);
	bad_if(TREE_FS, &it, it.key.fourth = 1);
}

static void symlink_fragments_are_bounded(void **state)
{
	struct item it = item_of(key_symlink(1024, 4), "x", 2);

	(void)state;
	good(TREE_FS, 2, &it);
	bad_if(TREE_FS, &it, it.val_len = 0);
	bad_if(TREE_FS, &it, it.key.second = 5);
	bad_if(TREE_FS, &it, it.key.third = 1);
	bad_if(TREE_FS, &it, it.val_len = ITEM_VAL_MAX + 1);
}

static void valueless_items_and_totals(void **state)
{
	struct xattr_indx xi = { 1, 2, 3, 4 };
	struct disk_xattr_total t = { .count = le64_of(1) };
	struct item it;

	(void)state;
	it = item_of(key_index(TYPE_INDEX_META_SEQ, 0, 1), NULL, 0);
	good(TREE_FS, 1, &it);
	bad_if(TREE_FS, &it, it.val_len = 1);
	bad_if(TREE_FS, &it, it.key.type = 5);
	bad_if(TREE_FS, &it, it.key.first = 1);
	bad_if(TREE_FS, &it, it.key.third = 0);
	bad_if(TREE_FS, &it, it.key.fourth = 1);
	it = item_of(key_orphan(5), NULL, 0);
	good(TREE_FS, 1, &it);
	bad_if(TREE_FS, &it, it.val_len = 1);
	bad_if(TREE_FS, &it, it.key.second = 0);
	bad_if(TREE_FS, &it, it.key.third = 1);
	bad_if(TREE_FS, &it, it.key.type = 8);
	it = item_of(key_xattr_indx(&xi), NULL, 0);
	good(TREE_FS, 2, &it);
	bad(TREE_FS, 1, &it);
	bad_if(TREE_FS, &it, it.val_len = 1);
	bad_if(TREE_FS, &it, it.key.type = 1);
	it = item_of((struct key){ .zone = ZONE_XATTR_TOTL, .first = 1, .second = 2, .third = 3 },
		     &t, sizeof(t));
	good(TREE_FS, 1, &it);
	bad_if(TREE_FS, &it, it.val_len = 15);
	bad_if(TREE_FS, &it, it.key.fourth = 1);
}

static void quota_rules_must_be_known_and_hashed(void **state)
{
	struct disk_quota_rule r = { .prio = 1, .op = 1, .name_source = { 2, 0, 2 },
				     .name_flags = { 1, 0, 1 } };
	struct disk_quota_rule *v = (void *)val;
	struct key k = { .zone = ZONE_QUOTA, .type = TYPE_QUOTA_RULE };
	struct item it;

	(void)state;
	k.second = hash64(&r, sizeof(r));
	it = item_of(k, &r, sizeof(r));
	good(TREE_FS, 2, &it);
	bad(TREE_FS, 1, &it);
	/* upstream lets them in */
	r.op = 2;
	r.name_source[0] = r.name_source[1] = 4;
	k.second = hash64(&r, sizeof(r));
	it = item_of(k, &r, sizeof(r));
	good(TREE_FS, 2, &it);
	r.op = 1;
	r.name_source[0] = 2;
	r.name_source[1] = 0;
	k.second = hash64(&r, sizeof(r));
	it = item_of(k, &r, sizeof(r));
#define bad_rule(change) bad_if(TREE_FS, &it, change; it.key.second = hash64(val, sizeof(r)))
	bad_rule(v->rule_flags = 2);
	bad_rule(v->name_flags[1] = 2);
	bad_rule(v->name_flags[1] = 1);			/* selects by a literal */
	bad_rule(v->name_val[2] = le64_of(5));		/* two values of one attribute */
	bad_if(TREE_FS, &it, v->limit = le64_of(5));	/* hash */
	bad_if(TREE_FS, &it, it.val_len = 47);
	bad_if(TREE_FS, &it, it.key.type = 0);
}

static void markers_stand_only_in_log_trees_and_need_no_value(void **state)
{
	struct item it = item_of(key_inode(1024), NULL, 0);

	(void)state;
	it.flags = ITEM_FLAG_DELETION;
	good(TREE_LOG_ITEMS, 2, &it);
	bad(TREE_FS, 2, &it);
	it.val_len = 3;
	good(TREE_LOG_ITEMS, 2, &it);
	it.key.second = 1;
	bad(TREE_LOG_ITEMS, 2, &it);
	it = item_of(key_inode(1024), NULL, 0);
	it.flags = 2;
	bad(TREE_LOG_ITEMS, 2, &it);
	it.key = (struct key){ .zone = ZONE_XATTR_TOTL };
	it.flags = ITEM_FLAG_DELETION;
	bad(TREE_LOG_ITEMS, 2, &it);
}

static void items_of_the_other_trees(void **state)
{
	struct disk_log_trees lt = { .rid = le64_of(7), .nr = le64_of(2) };
	struct disk_mounted_client mc = { .flags = 1 };
	struct disk_srch_file sf = { .ref.blkno = le64_of(9), .blocks = le64_of(3) };
	struct disk_srch_compact sc = { .id = le64_of(9), .nr = 4 };
	struct key sk = { .zone = ZONE_SRCH };
	struct item it;

	(void)state;
	it = item_of(key_log_trees(7, 2), &lt, sizeof(lt));
	good(TREE_LOGS, 2, &it);
	bad_if(TREE_LOGS, &it, it.key.first = 8);
	bad_if(TREE_LOGS, &it, it.key.second = 1);
	bad_if(TREE_LOGS, &it, it.key.third = 1);
	bad_if(TREE_LOGS, &it, it.val_len--);
	bad(TREE_FS, 2, &it);

	it = item_of(key_mounted_client(7), &mc, sizeof(mc));
	good(TREE_MOUNTED_CLIENTS, 2, &it);
	bad_if(TREE_MOUNTED_CLIENTS, &it, it.key.first = 0);
	bad_if(TREE_MOUNTED_CLIENTS, &it, it.key.type = 1);
	bad_if(TREE_MOUNTED_CLIENTS, &it, it.val_len--);
	bad_if(TREE_MOUNTED_CLIENTS, &it, it.key.zone = ZONE_SRCH);

	sk.type = TYPE_SRCH_LOG;
	sk.second = 9;
	it = item_of(sk, &sf, sizeof(sf));
	good(TREE_SRCH, 2, &it);
	bad_if(TREE_SRCH, &it, it.key.second = 8);
	bad_if(TREE_SRCH, &it, it.key.third = 1);
	bad_if(TREE_SRCH, &it, it.val_len--);
	bad_if(TREE_SRCH, &it, it.key.type = 5);
	bad_if(TREE_SRCH, &it, it.key.first = 1);
	it.key.type = TYPE_SRCH_SORTED;
	it.key.second = 3;
	it.key.third = 9;
	good(TREE_SRCH, 2, &it);
	bad_if(TREE_SRCH, &it, it.key.second = 9);
	bad_if(TREE_SRCH, &it, it.key.third = 3);
	sk.type = TYPE_SRCH_PENDING;
	it = item_of(sk, &sc, sizeof(sc));
	good(TREE_SRCH, 2, &it);
	bad_if(TREE_SRCH, &it, it.key.second = 8);
	bad_if(TREE_SRCH, &it, ((struct disk_srch_compact *)(void *)val)->nr = 5);
	it.key.type = TYPE_SRCH_BUSY;
	it.key.second = 1234;
	it.key.third = 9;
	good(TREE_SRCH, 2, &it);
	bad_if(TREE_SRCH, &it, it.key.third = 8);
}

static void items_of_the_merge_tree(void **state)
{
	struct disk_merge_status st = { .seq = le64_of(3) };
	struct disk_merge_range range = { .start = { .zone = 16, .type = 8, .first = le64_of(5) },
					  .end = { .zone = 16, .type = 8, .first = le64_of(6) } };
	struct disk_merge_request req = { .rid = le64_of(7), .seq = le64_of(4) };
	struct disk_merge_complete comp = { .seq = le64_of(5) };
	struct disk_merge_freeing fr = { .seq = le64_of(6) };
	struct key k = { .zone = ZONE_MERGE_STATUS };
	struct item it;

	(void)state;
	it = item_of(k, &st, sizeof(st));
	good(TREE_LOG_MERGE, 2, &it);
	bad_if(TREE_LOG_MERGE, &it, it.key.first = 1);
	bad_if(TREE_LOG_MERGE, &it, it.val_len--);
	bad_if(TREE_LOG_MERGE, &it, it.key.zone = 45);

	k = key_from_disk(&range.start);
	k.zone = ZONE_MERGE_RANGE;
	it = item_of(k, &range, sizeof(range));
	good(TREE_LOG_MERGE, 2, &it);
	bad_if(TREE_LOG_MERGE, &it, it.key.type = 0);
	bad_if(TREE_LOG_MERGE, &it,
	       ((struct disk_merge_range *)(void *)val)->end.first = le64_of(4));
	bad_if(TREE_LOG_MERGE, &it, it.val_len--);

	k = (struct key){ .zone = ZONE_MERGE_REQUEST, .first = 7, .second = 4 };
	it = item_of(k, &req, sizeof(req));
	good(TREE_LOG_MERGE, 2, &it);
	bad_if(TREE_LOG_MERGE, &it, it.key.first = 8);
	bad_if(TREE_LOG_MERGE, &it, it.key.second = 8);
	bad_if(TREE_LOG_MERGE, &it, it.key.third = 8);
	bad_if(TREE_LOG_MERGE, &it, it.val_len--);
	k = (struct key){ .zone = ZONE_MERGE_COMPLETE, .first = 5 };
	it = item_of(k, &comp, sizeof(comp));
	good(TREE_LOG_MERGE, 2, &it);
	bad_if(TREE_LOG_MERGE, &it, it.key.first = 8);
	bad_if(TREE_LOG_MERGE, &it, it.key.second = 8);
	bad_if(TREE_LOG_MERGE, &it, it.val_len--);
	k = (struct key){ .zone = ZONE_MERGE_FREEING, .first = 6 };
	it = item_of(k, &fr, sizeof(fr));
	good(TREE_LOG_MERGE, 2, &it);
	bad_if(TREE_LOG_MERGE, &it, it.key.first = 8);
	bad_if(TREE_LOG_MERGE, &it, it.key.second = 8);
	bad_if(TREE_LOG_MERGE, &it, it.val_len--);
}

static void free_extent_keys_must_hold_together(void **state)
{
	struct key k = { .zone = ZONE_FREE_BY_BLKNO, .first = 99, .second = 100 };
	struct item it = item_of(k, NULL, 0);

	(void)state;
	good(TREE_FREE_EXTENTS, 2, &it);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.second = 0);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.second = 101);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.third = 1);
	bad_if(TREE_FREE_EXTENTS, &it, it.val_len = 8);
	/* 64..511 is order 2 */
	it.key = (struct key){ .zone = ZONE_FREE_BY_ORDER, .first = UINT64_MAX - 2, .second = 99,
			       .third = 100 };
	good(TREE_FREE_EXTENTS, 2, &it);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.first--);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.third = 101);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.third = 0);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.fourth = 1);
	bad_if(TREE_FREE_EXTENTS, &it, it.key.zone = 37);
}

static void modes_and_entry_types_match(void **state)
{
	static const uint32_t modes[] = { S_IFIFO, S_IFCHR, S_IFDIR, S_IFBLK,
					  S_IFREG, S_IFLNK, S_IFSOCK };

	(void)state;
	for (unsigned t = 0; t < 7; t++) {
		assert_int_equal(dirent_type_of_mode(modes[t] | 0755), (int)t);
		assert_int_equal(mode_of_dirent_type((uint8_t)t), modes[t]);
	}
	assert_int_equal(dirent_type_of_mode(0755), -1);
	assert_true(mode_of_dirent_type(DIRENT_WHT) == (uint32_t)-1);
	assert_true(mode_of_dirent_type(200) == (uint32_t)-1);
}

static void tags_are_read_off_the_front_of_scoutfs_names(void **state)
{
	static const struct {
		const char *name;
		int tags;
	} v[] = {
		{ "user.a", 0 },
		{ "user.scoutfs.srch.x", 0 },
		{ "trusted.srch.x", 0 },
		{ "scoutfs.", 0 },
		{ "scoutfs.x", 0 },
		{ "scoutfs.srch.", 0 }, /* 13 bytes: no tags */
		{ "scoutfs.srch.t", XATTR_TAG_SRCH },
		{ "scoutfs.hide.t", XATTR_TAG_HIDE },
		{ "scoutfs.hide.hide.t", XATTR_TAG_HIDE },
		{ "scoutfs.hide.srch.totl.foo.1.2.3",
		  XATTR_TAG_HIDE | XATTR_TAG_SRCH | XATTR_TAG_TOTL },
		{ "scoutfs.indx.x.1.2", XATTR_TAG_INDX },
		{ "scoutfs.srch.indx.x.1.2", XATTR_TAG_SRCH | XATTR_TAG_INDX },
		{ "scoutfs.srch.foo.totl.x", XATTR_TAG_SRCH }, /* parsing stops at foo */
		{ "scoutfs.hide.srch.", XATTR_TAG_HIDE | XATTR_TAG_SRCH },
		{ "scoutfs.indx.totl.x", -EINVAL },
		{ "scoutfs.totl.hide.indx.x", -EINVAL },
		{ "scoutfs.unknown", -EINVAL },
		{ "scoutfs.srchx.t", -EINVAL },
		{ "scoutfs.SRCH.t", -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		int got = xattr_name_tags(v[i].name, strlen(v[i].name));

		if (got != v[i].tags)
			fail_msg("%s: %d, wanted %d", v[i].name, got, v[i].tags);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inode_sizes_follow_the_version),
		cmocka_unit_test(inodes_must_make_sense),
		cmocka_unit_test(entries_must_agree_with_their_keys_and_names),
		cmocka_unit_test(xattr_parts_must_have_the_size_their_header_says),
		cmocka_unit_test(extents_must_be_one_of_the_four_kinds_and_in_range),
		cmocka_unit_test(symlink_fragments_are_bounded),
		cmocka_unit_test(valueless_items_and_totals),
		cmocka_unit_test(quota_rules_must_be_known_and_hashed),
		cmocka_unit_test(markers_stand_only_in_log_trees_and_need_no_value),
		cmocka_unit_test(items_of_the_other_trees),
		cmocka_unit_test(items_of_the_merge_tree),
		cmocka_unit_test(free_extent_keys_must_hold_together),
		cmocka_unit_test(modes_and_entry_types_match),
		cmocka_unit_test(tags_are_read_off_the_front_of_scoutfs_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
