/*
 * item_check() against any key and value: what it accepts must be readable by everything that
 * decodes values.  print's decoder reads every field there is, so it stands for all of them; its
 * output goes nowhere.  The value lies in a heap block of its own size, so that a sanitizer sees
 * one byte too many.
 *
 * Input: tree kind, control, 32 key bytes, value.  Control bit 0 is the version, bit 1 sets the
 * deletion flag, bit 2 repairs the hashes a mutation breaks, without which little would be
 * accepted.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"
#include "format/item_check.h"
#include "key/key.h"
#include "tools/scoutfsctl/print.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

#define HEADER_BYTES (2 + sizeof(struct disk_key))
#define TREES_NR (TREE_FREE_EXTENTS + 1)

static void repair_hashes(struct key *k, uint8_t *val, size_t len)
{
	if (k->zone == ZONE_QUOTA && len == sizeof(struct disk_quota_rule)) {
		k->second = hash64(val, len);
	} else if (k->zone == ZONE_FS && k->type == TYPE_XATTR && len > sizeof(struct disk_xattr)) {
		const struct disk_xattr *x = (const void *)val;

		if (sizeof(*x) + x->name_len <= len)
			k->second = xattr_name_hash(x->name, x->name_len);
	} else if (k->zone == ZONE_FS && k->type >= TYPE_DIRENT && k->type <= TYPE_LINK_BACKREF &&
		   len > sizeof(struct disk_dirent)) {
		struct disk_dirent *d = (void *)val;

		d->hash = le64_of(dirent_name_hash(d->name, len - sizeof(*d)));
		if (k->type == TYPE_DIRENT)
			k->second = le64_get(d->hash);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *nowhere;
	struct out out = { .f = NULL };
	struct disk_key dk;
	enum tree_kind tree;
	unsigned control;
	struct item it;
	const char *why = NULL;
	uint8_t *val;
	size_t len;
	int ret;

	if (size < HEADER_BYTES || size - HEADER_BYTES > UINT16_MAX)
		return 0;
	if (!nowhere) {
		nowhere = fopen("/dev/null", "w");
		assert(nowhere);
	}
	tree = (enum tree_kind)(data[0] % TREES_NR);
	control = data[1];
	memcpy(&dk, data + 2, sizeof(dk));
	len = size - HEADER_BYTES;
	val = malloc(len ? len : 1);
	assert(val);
	memcpy(val, data + HEADER_BYTES, len);

	it = (struct item){ .key = key_from_disk(&dk), .val = val, .val_len = (uint16_t)len,
			    .flags = control & 2 ? ITEM_FLAG_DELETION : 0 };
	if (control & 4)
		repair_hashes(&it.key, val, len);
	ret = item_check(tree, control & 1 ? 1 : 2, &it, &why);
	if (ret == 0) {
		for (unsigned json = 0; json < 2; json++) {
			out = (struct out){ .f = nowhere, .is_json = json };
			out_begin(&out, "item");
			out_item_value(&out, tree, &it);
			out_end(&out);
		}
	} else {
		assert(why && why[0]);
	}
	free(val);
	return 0;
}

struct seed {
	enum tree_kind tree;
	struct key key;
	const void *val;
	size_t len;
};

static size_t put_seed(const struct seed *s, unsigned control, uint8_t *buf, size_t max)
{
	struct disk_key dk = key_to_disk(&s->key);

	if (max < HEADER_BYTES + s->len)
		return 0;
	buf[0] = (uint8_t)s->tree;
	buf[1] = (uint8_t)control;
	memcpy(buf + 2, &dk, sizeof(dk));
	if (s->len)
		memcpy(buf + HEADER_BYTES, s->val, s->len);
	return HEADER_BYTES + s->len;
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	static uint8_t zeros[ITEM_VAL_MAX];
	static uint8_t dirent[40], xattr[40], extent[16], inode[168], compact[584];
	static const struct xattr_indx xi = { 1, 2, 3, 4 };
	struct disk_dirent *d = (void *)dirent;
	struct disk_xattr *x = (void *)xattr;
	struct disk_inode *in = (void *)inode;
	uint64_t hash;

	memcpy(d->name, "some name", 8);
	hash = dirent_name_hash(d->name, 8);
	d->ino = le64_of(1030);
	d->hash = le64_of(hash);
	d->pos = le64_of(9);
	x->name_len = 9;
	x->val_len = le16_of(sizeof(xattr) - sizeof(*x) - 9);
	memcpy(x->name, "user.test", 9);
	((struct disk_extent *)(void *)extent)->blkno = le64_of(100);
	in->mode = le32_of(0100644);
	((struct disk_srch_compact *)(void *)compact)->nr = 4;

	const struct seed seeds[] = {
		{ TREE_FS, key_inode(1024), inode, 168 },
		{ TREE_FS, key_inode(1024), inode, 160 },
		{ TREE_FS, key_dirent(1024, hash, 9), dirent, sizeof(dirent) },
		{ TREE_FS, key_readdir(1024, 9), dirent, sizeof(dirent) },
		{ TREE_LOG_ITEMS, key_backref(1030, 1024, 9), dirent, sizeof(dirent) },
		{ TREE_FS, key_xattr(1024, xattr_name_hash("user.test", 9), 1, 0), xattr,
		  sizeof(xattr) },
		{ TREE_FS, key_xattr(1024, 5, 1, 1), xattr, sizeof(xattr) },
		{ TREE_FS, key_symlink(1024, 0), "target", 7 },
		{ TREE_FS, key_extent(1024, 9, 4), extent, sizeof(extent) },
		{ TREE_FS, key_index(TYPE_INDEX_DATA_SEQ, 5, 1024), NULL, 0 },
		{ TREE_FS, key_orphan(1024), NULL, 0 },
		{ TREE_FS,
		  { .zone = ZONE_QUOTA, .type = TYPE_QUOTA_RULE, .second = hash64(zeros, 48) },
		  zeros,
		  48 },
		{ TREE_FS, { .zone = ZONE_XATTR_TOTL, .first = 1 }, zeros, 16 },
		{ TREE_FS, key_xattr_indx(&xi), NULL, 0 },
		{ TREE_LOGS, { .zone = ZONE_LOG_TREES }, zeros, 472 },
		{ TREE_MOUNTED_CLIENTS, key_mounted_client(7), zeros, 40 },
		{ TREE_SRCH, { .zone = ZONE_SRCH, .type = TYPE_SRCH_LOG }, zeros, 88 },
		{ TREE_SRCH, { .zone = ZONE_SRCH, .type = TYPE_SRCH_SORTED }, zeros, 88 },
		{ TREE_SRCH, { .zone = ZONE_SRCH, .type = TYPE_SRCH_PENDING }, compact, 584 },
		{ TREE_SRCH,
		  { .zone = ZONE_SRCH, .type = TYPE_SRCH_BUSY, .second = 1 },
		  compact,
		  584 },
		{ TREE_LOG_MERGE, { .zone = ZONE_MERGE_STATUS }, zeros, 56 },
		{ TREE_LOG_MERGE, { .zone = ZONE_MERGE_RANGE }, zeros, 64 },
		{ TREE_LOG_MERGE, { .zone = ZONE_MERGE_REQUEST }, zeros, 208 },
		{ TREE_LOG_MERGE, { .zone = ZONE_MERGE_COMPLETE }, zeros, 208 },
		{ TREE_LOG_MERGE, { .zone = ZONE_MERGE_FREEING }, zeros, 64 },
		{ TREE_FREE_EXTENTS,
		  { .zone = ZONE_FREE_BY_BLKNO, .first = 99, .second = 100 },
		  NULL,
		  0 },
		{ TREE_FREE_EXTENTS,
		  { .zone = ZONE_FREE_BY_ORDER,
		    .first = UINT64_MAX - 2,
		    .second = 99,
		    .third = 100 },
		  NULL,
		  0 },
	};
	unsigned nr = sizeof(seeds) / sizeof(seeds[0]);

	if (i >= nr)
		return 0;
	/* A seed that is refused would test nothing. */
	struct item it = { .key = seeds[i].key,
			   .val = seeds[i].val,
			   .val_len = (uint16_t)seeds[i].len };
	const char *why;

	assert(item_check(seeds[i].tree, 2, &it, &why) == 0);
	return put_seed(&seeds[i], 4, buf, max);
}
