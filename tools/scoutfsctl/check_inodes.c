/*
 * One ordered pass over the resolved items (newest versions over fs_root and all log trees), inode
 * by inode: invariants 19, 20, 23, 24, 27, 28, 29.  Entries and xattrs are handed to check_links.c
 * and check_xattrs.c.  Items that item_check() refuses were reported when their block was read and
 * are left out here.
 */
#include "check_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct pass {
	struct check *ck;
	struct check_dir *dir;
	struct check_xattrs *xattrs;
	/* The inode whose items are passing; 0: none yet. */
	uint64_t ino;
	bool has_inode;
	bool is_reported; /* items without inode were told */
	struct disk_inode inode;
	uint64_t online, offline;
	uint64_t extent_end; /* logical block behind the last extent */
	uint64_t symlink_bytes;
	uint64_t fragments;
	uint8_t symlink_last;  /* byte */
	bool symlink_is_short; /* a fragment below 896 bytes was met */
};

static uint32_t mode_of(const struct pass *p)
{
	return p->has_inode ? le32_get(p->inode.mode) & S_IFMT : 0;
}

static void begin_inode(struct pass *p, uint64_t ino)
{
	struct check *ck = p->ck;
	struct check_dir *dir = p->dir;
	struct check_xattrs *xattrs = p->xattrs;

	*p = (struct pass){ .ck = ck, .dir = dir, .xattrs = xattrs, .ino = ino };
}

static void end_inode(struct pass *p)
{
	struct check *ck = p->ck;
	const struct disk_inode *inode = p->has_inode ? &p->inode : NULL;
	struct check_inode rec = { .ino = p->ino };

	if (!p->ino)
		return;
	check_xattrs_end(p->xattrs);
	check_dir_end(p->dir, p->ino, inode);
	if (!inode)
		return;
	rec.meta_seq = le64_get(inode->meta_seq);
	rec.data_seq = le64_get(inode->data_seq);
	rec.nlink = le32_get(inode->nlink);
	rec.mode = le32_get(inode->mode);
	sorter_add(ck, &ck->inodes, &rec);
	if (p->ino == ROOT_INO) {
		ck->has_root = true;
		ck->root_mode = rec.mode;
	}
	if (mode_of(p) == S_IFLNK &&
	    (p->symlink_bytes != le64_get(inode->size) || !p->symlink_bytes || p->symlink_last))
		check_find(ck, 24, AT_INO(p->ino),
			   "the symlink's target has %" PRIu64 " bytes and ends in byte %u, "
			   "its size is %" PRIu64,
			   p->symlink_bytes, p->symlink_last, le64_get(inode->size));
	if (p->online != le64_get(inode->online_blocks) ||
	    p->offline != le64_get(inode->offline_blocks))
		check_find(ck, 27, AT_INO(p->ino),
			   "the inode counts %" PRIu64 " online and %" PRIu64 " offline "
			   "blocks, its extents hold %" PRIu64 " and %" PRIu64,
			   le64_get(inode->online_blocks), le64_get(inode->offline_blocks),
			   p->online, p->offline);
}

/* What the volume says it holds (16.3). */
static uint64_t counted_inodes(const struct check *ck)
{
	uint64_t count = le64_get(ck->super.inode_count);

	for (size_t i = 0; i < ck->logs.nr; i++)
		count += le64_get(VEC_AT(&ck->logs, struct check_log, i)->lt.inode_count_delta);
	return count;
}

static void inode_item(struct pass *p, const struct item *it)
{
	struct check *ck = p->ck;

	inode_from_item(it, &p->inode);
	p->has_inode = true;
	ck->inodes_nr++;
	if (!(ck->inodes_nr % 256))
		check_progress(ck, "inodes", ck->inodes_nr, counted_inodes(ck));
	if (p->ino != ROOT_INO && (p->ino < FIRST_INO || p->ino >= le64_get(ck->super.next_ino)))
		check_find(ck, 28, AT_INO(p->ino),
			   "inode number %" PRIu64 " is outside %llu..%" PRIu64, p->ino, FIRST_INO,
			   le64_get(ck->super.next_ino) - 1);
	check_xattrs_inode(p->xattrs, p->ino, &p->inode);
}

static void symlink_item(struct pass *p, const struct item *it)
{
	struct check *ck = p->ck;

	if (p->has_inode && mode_of(p) != S_IFLNK)
		check_find(ck, 24, AT_ITEM(p->ino, &it->key),
			   "a symlink target on something that is no symlink");
	if (it->key.second != p->fragments++ || p->symlink_is_short)
		check_find(ck, 24, AT_ITEM(p->ino, &it->key),
			   "fragments of the symlink's target are missing or short");
	p->symlink_is_short = it->val_len < ITEM_VAL_MAX;
	p->symlink_bytes += it->val_len;
	p->symlink_last = ((const uint8_t *)it->val)[it->val_len - 1];
}

static void extent_item(struct pass *p, const struct item *it)
{
	struct check *ck = p->ck;
	const struct check_where *at = AT_ITEM(p->ino, &it->key);
	uint64_t size_blocks = (le64_get(p->inode.size) + SMALL_SIZE - 1) >> SMALL_SHIFT;
	struct data_extent e;

	extent_from_item(it, &e);
	if (p->has_inode && mode_of(p) != S_IFREG)
		check_find(ck, 27, at, "a data extent of something that is no regular file");
	if (e.iblock < p->extent_end)
		check_find(ck, 27, at,
			   "a data extent at block %" PRIu64 " overlaps the one before it",
			   e.iblock);
	p->extent_end = e.iblock + e.len;
	if (e.flags & EXTENT_FLAG_OFFLINE)
		p->offline += e.len;
	else if (!(e.flags & EXTENT_FLAG_UNWRITTEN))
		p->online += e.len;
	if (p->has_inode && p->extent_end > size_blocks && !(e.flags & EXTENT_FLAG_UNWRITTEN) &&
	    !(le32_get(p->inode.flags) & INODE_FLAG_TRUNCATE))
		check_warn(ck, 27, at,
			   "an extent to block %" PRIu64 " reaches beyond the end of file",
			   p->extent_end - 1);
	if (!e.blkno)
		return;
	if (e.blkno < DATA_FIRST_BLKNO || e.blkno >= ck->data_blocks ||
	    e.len > ck->data_blocks - e.blkno) {
		check_find(ck, 27, at,
			   "an extent maps data blocks %" PRIu64 "+%" PRIu64
			   ", outside %llu..%" PRIu64,
			   e.blkno, e.len, DATA_FIRST_BLKNO, ck->data_blocks - 1);
		ck->data_unknown = true;
		return;
	}
	sorter_add(ck, &ck->mapped,
		   &(struct check_data){ .start = e.blkno, .len = e.len, .ino = p->ino });
}

static void fs_item(struct pass *p, const struct item *it)
{
	if (it->key.first != p->ino) {
		end_inode(p);
		begin_inode(p, it->key.first);
	}
	if (it->key.type == TYPE_INODE) {
		inode_item(p, it);
		return;
	}
	if (!p->has_inode && !p->is_reported) {
		check_find(p->ck, 19, AT_ITEM(p->ino, &it->key),
			   "items of inode %" PRIu64 ", which does not exist", p->ino);
		p->is_reported = true;
	}
	switch (it->key.type) {
	case TYPE_XATTR:
		check_xattrs_item(p->xattrs, it);
		break;
	case TYPE_DIRENT:
	case TYPE_READDIR:
	case TYPE_LINK_BACKREF:
		check_dir_item(p->dir, it);
		break;
	case TYPE_SYMLINK:
		symlink_item(p, it);
		break;
	case TYPE_DATA_EXTENT:
		extent_item(p, it);
		break;
	}
}

static void one_item(struct pass *p, const struct item *it)
{
	struct check *ck = p->ck;

	switch (it->key.zone) {
	case ZONE_INODE_INDEX:
		sorter_add(ck, &ck->indexes,
			   &(struct check_index){ .ino = it->key.third,
						  .seq = it->key.second,
						  .type = it->key.type });
		break;
	case ZONE_ORPHAN:
		sorter_add(ck, &ck->orphans, &it->key.second);
		break;
	case ZONE_XATTR_TOTL: {
		struct disk_xattr_total d;
		struct check_total t = { .a = it->key.first,
					 .b = it->key.second,
					 .c = it->key.third };

		memcpy(&d, it->val, sizeof(d));
		t.total = le64_get(d.total);
		t.count = le64_get(d.count);
		if (t.total || t.count)
			sorter_add(ck, &ck->totals, &t);
		break;
	}
	case ZONE_XATTR_INDX:
		sorter_add(ck, &ck->indx, &it->key);
		break;
	case ZONE_FS:
		fs_item(p, it);
		break;
	}
}

int check_cmp_index(const void *a, const void *b)
{
	const struct check_index *x = a, *y = b;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static const char *index_name(uint8_t type)
{
	return type == TYPE_INDEX_META_SEQ ? "meta_seq" : "data_seq";
}

/* The next index item if it is of this type. */
static const struct check_index *peek_index(struct check *ck, uint8_t type)
{
	const struct check_index *idx = sorter_peek(&ck->indexes);

	return idx && idx->type == type ? idx : NULL;
}

/* All index items of one inode. */
static void check_inode_index(struct check *ck, const struct check_inode *in, uint8_t type)
{
	bool is_wanted = type == TYPE_INDEX_META_SEQ || S_ISREG(in->mode), is_met = false;
	uint64_t seq = type == TYPE_INDEX_META_SEQ ? in->meta_seq : in->data_seq;
	const struct check_index *idx;

	for (; (idx = peek_index(ck, type)) && idx->ino == in->ino; sorter_next(ck, &ck->indexes)) {
		if (is_wanted && idx->seq == seq)
			is_met = true;
		else
			check_find(ck, 20, AT_INO(in->ino),
				   "a %s index item with seq %" PRIu64 " that is not the "
				   "inode's",
				   index_name(type), idx->seq);
	}
	if (is_wanted && !is_met)
		check_find(ck, 20, AT_INO(in->ino),
			   "no %s index item with the inode's seq %" PRIu64
			   ": the change index does not show it",
			   index_name(type), seq);
}

/* The index items of one type against the inodes, both by inode number (20). */
static void check_index_type(struct check *ck, uint8_t type)
{
	const struct check_index *idx;
	const struct check_inode *in;

	sorter_rewind(ck, &ck->inodes);
	do {
		in = sorter_peek(&ck->inodes);
		for (; (idx = peek_index(ck, type)) && (!in || idx->ino < in->ino);
		     sorter_next(ck, &ck->indexes))
			check_find(ck, 20, AT_INO(idx->ino),
				   "a %s index item for inode %" PRIu64 ", which does not "
				   "exist",
				   index_name(type), idx->ino);
		if (in) {
			check_inode_index(ck, in, type);
			sorter_next(ck, &ck->inodes);
		}
	} while (in);
}

static void check_indexes(struct check *ck)
{
	sorter_rewind(ck, &ck->indexes);
	check_index_type(ck, TYPE_INDEX_META_SEQ);
	check_index_type(ck, TYPE_INDEX_DATA_SEQ);
}

/* Orphans come in inode order, as the inodes do. */
static void check_orphans(struct check *ck)
{
	const struct check_inode *in;
	const uint64_t *orphan;

	sorter_rewind(ck, &ck->orphans);
	sorter_rewind(ck, &ck->inodes);
	do {
		bool is_orphan;

		in = sorter_peek(&ck->inodes);
		for (; (orphan = sorter_peek(&ck->orphans)) && (!in || *orphan < in->ino);
		     sorter_next(ck, &ck->orphans))
			check_find(ck, 23, NOWHERE,
				   "an orphan item for inode %" PRIu64 ", which does not exist",
				   *orphan);
		if (!in)
			break;
		is_orphan = orphan && *orphan == in->ino;
		if (is_orphan)
			sorter_next(ck, &ck->orphans);
		if (is_orphan && in->nlink)
			check_find(ck, 23, AT_INO(in->ino),
				   "an orphan item for an inode with %u links", in->nlink);
		if (!is_orphan && !in->nlink)
			check_find(ck, 23, AT_INO(in->ino),
				   "inode %" PRIu64 " has no link and no orphan item: it is "
				   "never deleted",
				   in->ino);
		sorter_next(ck, &ck->inodes);
	} while (!ck->err);
}

static void check_count(struct check *ck)
{
	uint64_t count = counted_inodes(ck);

	if (count != ck->inodes_nr)
		check_find(ck, 28, NOWHERE,
			   "the volume counts %" PRIu64 " inodes, there are %" PRIu64, count,
			   ck->inodes_nr);
}

static int walk_items(struct pass *p)
{
	struct check *ck = p->ck;
	struct key start = KEY_ZEROS, end = KEY_ONES;
	struct forest_iter *fi;
	struct item it;
	const char *why;
	int ret;

	ret = forest_iter_open(&fi, ck->bs, &ck->roots, &start, &end);
	if (ret < 0)
		return ret;
	while (!ck->err && !atomic_load(&ck->is_cancelled) && !(ret = forest_iter_next(fi, &it)))
		if (!item_check(TREE_FS, ck->fmt_vers, &it, &why))
			one_item(p, &it);
	forest_iter_close(fi);
	if (atomic_load(&ck->is_cancelled))
		return -ECANCELED;
	if (ret != -ENOENT)
		return ret;
	end_inode(p);
	return 0;
}

int check_items_walk(struct check *ck)
{
	struct pass p = { .ck = ck, .dir = check_dir_alloc(ck), .xattrs = check_xattrs_alloc(ck) };
	int ret = p.dir && p.xattrs ? walk_items(&p) : -ENOMEM;

	check_dir_free(p.dir);
	check_xattrs_free(p.xattrs);
	return ret;
}

void check_items_end(struct check *ck, int ret)
{
	if (ret == -ENOMEM && !ck->err)
		ck->err = ret;
	if (ck->err)
		return;
	if (ret < 0) {
		/* Every block was found sound by now: a finding above is why readers refuse. */
		if (check_findings(ck))
			check_note(
				ck,
				"not checked: files and directories (19-29): readers refuse the log trees for "
				"what was found above (%s)",
				strerror(-ret));
		else
			check_find(ck, 1, NOWHERE, "reading all items over the log trees fails: %s",
				   strerror(-ret));
		ck->forest_broken = true;
		return;
	}
	if (!ck->has_root || !S_ISDIR(ck->root_mode))
		check_find(ck, 19, NOWHERE, "the root inode %s",
			   ck->has_root ? "is not a directory" : "does not exist");
	check_indexes(ck);
	check_orphans(ck);
	check_count(ck);
}
