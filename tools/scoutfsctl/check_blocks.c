/*
 * Blocks of the metadata device: who owns each (one byte a block), reading them, and walking trees
 * of them.  Each block of a tree is claimed before it is read, so a loop of references ends at its
 * second claim, and everything is read once.  What is below an unreadable block is unknown: then
 * the rule that every block belongs to something (15) is not applied, only that none belongs to
 * two.
 */
#include "check_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"

static const char *const owner_names[OWNERS_NR] = {
	[OWNER_NONE] = "nothing",
	[OWNER_FS_ROOT] = "fs_root",
	[OWNER_LOGS_ROOT] = "logs_root",
	[OWNER_LOG_MERGE] = "log_merge",
	[OWNER_CLIENTS] = "mounted_clients",
	[OWNER_SRCH_ROOT] = "srch_root",
	[OWNER_META_ALLOC] = "a meta_alloc tree",
	[OWNER_DATA_ALLOC] = "the data_alloc tree",
	[OWNER_SERVER_LIST] = "a server list's chain",
	[OWNER_LOG_ITEMS] = "a log tree's items",
	[OWNER_BLOOM] = "a log tree's bloom block",
	[OWNER_LOG_LIST] = "a log tree's list chain",
	[OWNER_LOG_DATA] = "a log tree's data extent tree",
	[OWNER_SRCH_FILE] = "a srch file",
	[OWNER_SRCH_INPUT] = "a srch file that is being compacted",
	[OWNER_SRCH_OUT] = "the output of a srch compaction",
	[OWNER_COMPACT_LIST] = "a srch compaction's list chain",
	[OWNER_MERGE_LIST] = "a log merge's list chain",
	[OWNER_COMPLETE] = "a merged subtree",
	[OWNER_FREEING] = "a tree that is being freed",
	[OWNER_FS_KEPT] = "fs_root and a merged subtree",
	[OWNER_FS_FREED] = "fs_root and the freed list of a merged subtree",
	[OWNER_SRCH_FREED] = "a srch file and the freed list of its compaction",
	[OWNER_ENTRY_SERVER] = "the entries of a server list",
	[OWNER_ENTRY_LOG] = "the entries of a log tree's list",
	[OWNER_ENTRY_COMPACT] = "the entries of a srch compaction's list",
	[OWNER_ENTRY_MERGE] = "the entries of a log merge's list",
	[OWNER_FREE_EXTENT] = "a free extent",
};

const char *check_owner_name(enum check_owner owner) { return owner_names[owner]; }

bool check_claim(struct check *ck, uint64_t blkno, enum check_owner owner, const char *name)
{
	enum check_owner old;

	if (blkno < META_FIRST_BLKNO || blkno >= ck->meta_blocks) {
		check_find(ck, owner <= OWNER_LAST_REF ? 10 : 14, AT_BLOCK(blkno),
			   "%s names large block %" PRIu64 ", outside 2..%" PRIu64, name, blkno,
			   ck->meta_blocks - 1);
		return false;
	}
	old = ck->owner[blkno];
	if (old == OWNER_NONE) {
		ck->owner[blkno] = (uint8_t)owner;
		return true;
	}
	check_find(ck, owner <= OWNER_LAST_REF && old <= OWNER_LAST_REF ? 12 : 15, AT_BLOCK(blkno),
		   "%s uses a large block that also belongs to %s", name, owner_names[old]);
	return false;
}

bool check_read(struct check *ck, struct block_ref ref, uint32_t magic, const char *name, void *buf)
{
	const struct disk_header *h = buf;
	const char *why;
	int ret;

	ret = ck->dev.read(ck->dev.arg, ref.blkno, buf);
	if (ret < 0) {
		check_find(ck, 1, AT_BLOCK(ref.blkno), "%s: reading the block: %s", name,
			   strerror(-ret));
	} else if (block_header_check(buf, LARGE_SIZE, magic, ck->fsid, ref.blkno, &why)) {
		check_find(ck, 1, AT_BLOCK(ref.blkno), "%s: %s", name, why);
	} else if (le64_get(h->seq) != ref.seq) {
		check_find(ck, 1, AT_BLOCK(ref.blkno),
			   "%s: the block has seq %016" PRIx64 ", its reference %016" PRIx64, name,
			   le64_get(h->seq), ref.seq);
	} else {
		if (!(++ck->blocks_nr % 64))
			check_progress(ck, "blocks", ck->blocks_nr, 0);
		return true;
	}
	ck->blocks_unknown = true;
	return false;
}

/* Which invariant a malformed item breaks; the size rule of 7.4 is 11. */
static unsigned item_invariant(const struct item *it)
{
	switch (it->key.zone) {
	case ZONE_INODE_INDEX:
		return it->val_len ? 11 : 20;
	case ZONE_ORPHAN:
		return it->val_len ? 11 : 23;
	case ZONE_QUOTA:
		return it->val_len == sizeof(struct disk_quota_rule) ? 29 : 11;
	case ZONE_LOG_TREES:
		return it->val_len == sizeof(struct disk_log_trees) ? 16 : 11;
	case ZONE_FREE_BY_BLKNO:
	case ZONE_FREE_BY_ORDER:
		return it->val_len ? 11 : 13;
	case ZONE_SRCH:
		return it->val_len == sizeof(struct disk_srch_file)	 ? 30
		       : it->val_len == sizeof(struct disk_srch_compact) ? 32
									 : 11;
	case ZONE_MERGE_RANGE:
	case ZONE_MERGE_REQUEST:
	case ZONE_MERGE_COMPLETE:
	case ZONE_MERGE_FREEING:
		return 33;
	case ZONE_FS:
		break;
	default:
		return 11;
	}
	switch (it->key.type) {
	case TYPE_INODE:
		return it->val_len == INODE_V1_BYTES || it->val_len == INODE_V2_BYTES ? 19 : 11;
	case TYPE_XATTR:
		return it->val_len ? 25 : 11;
	case TYPE_DIRENT:
	case TYPE_READDIR:
	case TYPE_LINK_BACKREF:
		return it->val_len > sizeof(struct disk_dirent) &&
				       it->val_len <= sizeof(struct disk_dirent) + NAME_MAX_BYTES
			       ? 21
			       : 11;
	case TYPE_SYMLINK:
		return it->val_len ? 24 : 11;
	case TYPE_DATA_EXTENT:
		return it->val_len == sizeof(struct disk_extent) ? 27 : 11;
	}
	return 11;
}

/* Told with its path once the trees are known to be readable; too many are told as they come. */
#define BAD_ITEMS_KEPT 1000u

static void tell_bad_item(struct check *ck, const struct check_tree *t, const struct item *it,
			  uint64_t blkno, const char *why, unsigned invariant)
{
	struct check_bad_item bad = {
		.invariant = invariant, .blkno = blkno, .key = it->key, .why = why
	};

	if (it->key.zone != ZONE_FS || ck->bad_items.nr == BAD_ITEMS_KEPT) {
		check_find(ck, invariant, AT_BLOCK_KEY(blkno, &it->key), "%s: %s", t->name, why);
		return;
	}
	memcpy(bad.tree, t->name, sizeof(bad.tree));
	vec_push(ck, &ck->bad_items, &bad, sizeof(bad));
}

void check_bad_items(struct check *ck)
{
	for (size_t i = 0; i < ck->bad_items.nr; i++) {
		const struct check_bad_item *b = VEC_AT(&ck->bad_items, struct check_bad_item, i);

		check_find(ck, b->invariant,
			   (&(struct check_where){
				   .ino = b->key.first, .blkno = b->blkno, .key = &b->key }),
			   "%s: %s", b->tree, b->why);
	}
}

/*
 * A malformed file system item is left out and the rest is checked; any other may have named
 * blocks, and a total can be anywhere in a sum.
 */
static void bad_item(struct check *ck, struct check_tree *t, const struct item *it, uint64_t blkno,
		     const char *why)
{
	/* A zone that does not belong here is no matter of what it means elsewhere. */
	bool is_fs = it->key.zone <= ZONE_FS,
	     is_fs_tree = t->kind == TREE_FS || t->kind == TREE_LOG_ITEMS;

	tell_bad_item(ck, t, it, blkno, why, is_fs == is_fs_tree ? item_invariant(it) : 11);
	if (!is_fs_tree) {
		t->is_broken = true;
		ck->blocks_unknown = true;
	} else if (it->key.zone == ZONE_FS) {
		ck->data_unknown |= it->key.type == TYPE_DATA_EXTENT;
	} else {
		t->is_broken |= it->key.zone == ZONE_XATTR_TOTL || !is_fs;
	}
}

static void give_items(struct check *ck, struct check_tree *t, const struct disk_btree_block *b,
		       uint64_t blkno, const uint16_t *order)
{
	for (unsigned i = 0; i < le16_get(b->nr_items); i++) {
		const struct disk_btree_item *d = &b->items[order[i]];
		struct item it = {
			.key = key_from_disk(&d->key),
			.seq = le64_get(d->seq),
			.val_len = le16_get(d->val_len),
			.flags = d->flags,
			.val = (const uint8_t *)b + le16_get(d->val_off),
		};
		const char *why;

		/* Told by check_tree_block(), and the tree is broken by it. */
		if (it.flags && (t->kind != TREE_LOG_ITEMS || it.flags & ~ITEM_FLAG_DELETION))
			continue;
		if (item_check(t->kind, ck->fmt_vers, &it, &why)) {
			bad_item(ck, t, &it, blkno, why);
		} else if (t->item) {
			t->item(ck, t, &it, blkno);
		}
	}
}

struct walk {
	struct check *ck;
	struct check_tree *t;
	struct {
		struct disk_btree_block *b;
		uint16_t order[CHECK_ITEMS_MAX];
	} levels[BTREE_HEIGHT_MAX];
};

/* Whether ref is a block of fs_root met again in a copy of its subtree (16.4). */
static bool is_shared(const struct walk *w, struct block_ref ref)
{
	return w->t->may_share_fs && ref.blkno < w->ck->meta_blocks &&
	       (w->ck->owner[ref.blkno] == OWNER_FS_ROOT || w->ck->owner[ref.blkno] == OWNER_FS_KEPT);
}

/* That block, and all below it, are used by the copy, too, and may not be in its freed list. */
static void keep_shared(struct walk *w, struct block_ref ref, unsigned level)
{
	struct check *ck = w->ck;
	struct disk_btree_block *b = w->levels[level].b;
	const uint8_t *end;

	ck->owner[ref.blkno] = OWNER_FS_KEPT;
	if (!level || ck->err)
		return;
	if (!b && !(b = w->levels[level].b = malloc(LARGE_SIZE))) {
		ck->err = -ENOMEM;
		return;
	}
	end = (const uint8_t *)b + LARGE_SIZE;
	/* what is wrong with it was said when fs_root was walked */
	if (ck->dev.read(ck->dev.arg, ref.blkno, b) < 0 || le64_get(b->hdr.blkno) != ref.blkno || b->level != level)
		return;
	for (unsigned i = 0; i < le16_get(b->nr_items) && (const uint8_t *)&b->items[i + 1] <= end; i++) {
		unsigned off = le16_get(b->items[i].val_off);
		struct disk_block_ref child;

		if (off + sizeof(child) > LARGE_SIZE)
			continue;
		memcpy(&child, (const uint8_t *)b + off, sizeof(child));
		if (is_shared(w, block_ref_get(&child)))
			keep_shared(w, block_ref_get(&child), level - 1);
	}
}

static void walk_block(struct walk *w, struct block_ref ref, unsigned level, struct key low,
		       struct key high, bool is_right_edge)
{
	struct check *ck = w->ck;
	struct check_tree *t = w->t;
	uint64_t before = check_findings(ck);
	struct disk_btree_block *b;
	uint16_t *order = w->levels[level].order;

	if (ck->err || (t->freed_below && key_cmp(&high, t->freed_below) < 0))
		return;
	if (is_shared(w, ref)) {
		keep_shared(w, ref, level);
		return;
	}
	if (!w->levels[level].b && !(w->levels[level].b = malloc(LARGE_SIZE))) {
		ck->err = -ENOMEM;
		return;
	}
	b = w->levels[level].b;
	if (!check_claim(ck, ref.blkno, t->owner, t->name) ||
	    !check_read(ck, ref, MAGIC_BTREE, t->name, b) ||
	    !check_tree_block(ck, t, b, ref.blkno, level, &low, &high, is_right_edge, order)) {
		t->is_broken = true;
		ck->blocks_unknown = true;
		return;
	}
	if (check_findings(ck) != before)
		t->is_broken = true;
	if (!level) {
		give_items(ck, t, b, ref.blkno, order);
		return;
	}
	for (unsigned i = 0; i < le16_get(b->nr_items); i++) {
		const struct disk_btree_item *it = &b->items[order[i]];
		struct key bound = key_from_disk(&it->key);
		struct disk_block_ref child;

		memcpy(&child, (const uint8_t *)b + le16_get(it->val_off), sizeof(child));
		walk_block(w, block_ref_get(&child), level - 1, low, bound,
			   is_right_edge && i + 1u == le16_get(b->nr_items));
		low = key_next(bound);
	}
}

void check_walk_tree(struct check *ck, struct check_tree *t, const struct disk_btree_root *root)
{
	struct block_ref ref = block_ref_get(&root->ref);
	struct walk *w;

	t->is_broken = false;
	if (root->height > BTREE_HEIGHT_MAX || !root->height != !ref.blkno) {
		check_find(ck, 4, NOWHERE, "%s: height %u with root block %" PRIu64, t->name,
			   root->height, ref.blkno);
		t->is_broken = true;
		ck->blocks_unknown = true;
		return;
	}
	if (!root->height)
		return;
	w = calloc(1, sizeof(*w));
	if (!w) {
		ck->err = -ENOMEM;
		return;
	}
	w->ck = ck;
	w->t = t;
	walk_block(w, ref, root->height - 1u, KEY_ZEROS, KEY_ONES, !t->may_share_fs);
	for (unsigned i = 0; i < BTREE_HEIGHT_MAX; i++)
		free(w->levels[i].b);
	free(w);
}

/* What a block in nothing looks like, to say where it came from. */
static const char *describe_block(struct check *ck, uint64_t blkno, const void *buf)
{
	static const struct {
		uint32_t magic;
		const char *what;
	} kinds[] = {
		{ MAGIC_BTREE, "a b-tree block" },
		{ MAGIC_BLOOM, "a bloom block" },
		{ MAGIC_SRCH_BLOCK, "a srch leaf" },
		{ MAGIC_SRCH_PARENT, "a srch parent" },
		{ MAGIC_ALLOC_LIST, "an allocation list block" },
	};
	const char *why;

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!block_header_check(buf, LARGE_SIZE, kinds[i].magic, ck->fsid, blkno, &why))
			return kinds[i].what;
	return "nothing of this volume";
}

static void leaked_block(struct check *ck, uint64_t blkno, void *buf)
{
	int ret = ck->dev.read(ck->dev.arg, blkno, buf);

	if (ret < 0)
		check_find(ck, 15, AT_BLOCK(blkno),
			   "a large block is neither used nor free, and cannot be read: %s",
			   strerror(-ret));
	else if (check_is_known_leak(ck, blkno, buf))
		check_warn(ck, 15, AT_BLOCK(blkno),
			   "the root of a merged log tree was not freed by the upstream "
			   "implementation: 64 KiB are lost, nothing else");
	else
		check_find(ck, 15, AT_BLOCK(blkno),
			   "a large block is neither used nor free: it holds %s",
			   describe_block(ck, blkno, buf));
}

void check_meta_partition(struct check *ck)
{
	void *buf;

	if (ck->blocks_unknown) {
		check_note(
			ck,
			"not checked: whether every metadata block belongs to something (15), since some "
			"could not be read");
		return;
	}
	buf = malloc(LARGE_SIZE);
	if (!buf) {
		ck->err = -ENOMEM;
		return;
	}
	for (uint64_t blkno = META_FIRST_BLKNO; blkno < ck->meta_blocks; blkno++)
		if (ck->owner[blkno] == OWNER_NONE)
			leaked_block(ck, blkno, buf);
	free(buf);
}
