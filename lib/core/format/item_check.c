/*
 * The gate in front of every item value: after item_check() returned 0 the value has the size its
 * type asks for, lengths inside it stay inside it, enumerations have values we know, and the parts
 * of key and value that repeat each other agree.  Code behind the gate may then use the bytes
 * without looking again.  It judges one item by itself and needs nothing but its bytes.
 *
 * It is as strict as upstream can be relied on to be and no stricter: a field that upstream takes
 * from a user unchecked (times, for one) is not looked at here.
 */
#include "format/item_check.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "alloc/free_extents.h"
#include "csum/csum.h"

#define BAD(why, text) (*(why) = (text), -EBADMSG)

#define SYMLINK_FRAGMENTS_MAX ((SYMLINK_MAX_BYTES + ITEM_VAL_MAX - 1) / ITEM_VAL_MAX)
#define DATA_BLKNO_MAX ((1ull << 52) - 1)

static int check_inode(unsigned fmt_vers, const struct item *it, const char **why)
{
	struct disk_inode inode;
	uint32_t flags = INODE_FLAG_TRUNCATE;

	if (it->val_len != INODE_V1_BYTES && (fmt_vers < 2 || it->val_len != INODE_V2_BYTES))
		return BAD(why, "inode value of a wrong size");
	inode_from_item(it, &inode);
	if (dirent_type_of_mode(le32_get(inode.mode)) < 0)
		return BAD(why, "inode mode without a file type");
	if (le64_get(inode.size) > INT64_MAX)
		return BAD(why, "inode size beyond 2^63-1");
	if ((le64_get(inode.meta_seq) | le64_get(inode.data_seq)) > INT64_MAX)
		return BAD(why, "inode change sequence number beyond 2^63-1");
	if (le32_get(inode.nlink) > LINK_MAX_NR)
		return BAD(why, "inode link count beyond 2^31-1");
	if (fmt_vers >= 2)
		flags |= INODE_FLAG_RETENTION;
	if (le32_get(inode.flags) & ~flags)
		return BAD(why, "unknown inode flags");
	return 0;
}

static int check_xattr(const struct item *it, const char **why)
{
	const struct disk_xattr *x = it->val;
	size_t total;

	if (it->val_len < 1)
		return BAD(why, "empty xattr part");
	if (it->key.fourth != 0)
		return 0;
	if (it->val_len < sizeof(*x) + 1)
		return BAD(why, "xattr part 0 shorter than its header and a name");
	total = sizeof(*x) + x->name_len + le16_get(x->val_len);
	if (x->name_len == 0)
		return BAD(why, "xattr without a name");
	if (it->val_len != (total < ITEM_VAL_MAX ? total : ITEM_VAL_MAX))
		return BAD(why, "xattr part 0 of a wrong size for its name and value");
	if (memchr(x->name, 0, x->name_len))
		return BAD(why, "xattr name with a NUL");
	if (it->key.second != xattr_name_hash(x->name, x->name_len))
		return BAD(why, "xattr name does not match the hash in its key");
	return 0;
}

static int check_dirent(const struct item *it, const char **why)
{
	const struct disk_dirent *d = it->val;
	size_t len;
	uint64_t pos;

	if (it->val_len <= sizeof(*d) || it->val_len > sizeof(*d) + NAME_MAX_BYTES)
		return BAD(why, "directory entry of a wrong size");
	len = it->val_len - sizeof(*d);
	pos = le64_get(d->pos);
	if (d->ino.v == 0)
		return BAD(why, "directory entry for inode 0");
	if (d->type > DIRENT_WHT)
		return BAD(why, "directory entry of an unknown type");
	if (memchr(d->name, 0, len) || memchr(d->name, '/', len))
		return BAD(why, "entry name with a NUL or a slash");
	if (d->name[0] == '.' && (len == 1 || (len == 2 && d->name[1] == '.')))
		return BAD(why, "entry named . or ..");
	if (le64_get(d->hash) != dirent_name_hash(d->name, len))
		return BAD(why, "entry name does not match its hash");
	if (pos < DIRENT_FIRST_POS || pos > DIRENT_LAST_POS)
		return BAD(why, "directory position out of range");

	switch (it->key.type) {
	case TYPE_DIRENT:
		if (it->key.second != le64_get(d->hash) || it->key.third != pos)
			return BAD(why, "entry key does not match its value");
		break;
	case TYPE_READDIR:
		if (it->key.second != pos)
			return BAD(why, "readdir key does not match its value");
		break;
	default:
		if (it->key.first != le64_get(d->ino) || it->key.third != pos)
			return BAD(why, "backref key does not match its value");
		break;
	}
	return 0;
}

static int check_extent(const struct item *it, const char **why)
{
	struct data_extent ext;

	if (it->val_len != sizeof(struct disk_extent))
		return BAD(why, "extent value of a wrong size");
	extent_from_item(it, &ext);
	if (ext.flags & ~(EXTENT_FLAG_OFFLINE | EXTENT_FLAG_UNWRITTEN))
		return BAD(why, "unknown extent flags");
	if (ext.blkno == 0 && ext.flags != EXTENT_FLAG_OFFLINE)
		return BAD(why, "extent that is neither mapped nor offline");
	if (ext.blkno != 0 && ext.flags == EXTENT_FLAG_OFFLINE)
		return BAD(why, "extent with written data that is offline");
	if (ext.blkno != 0 && (ext.blkno < DATA_FIRST_BLKNO || ext.blkno > DATA_BLKNO_MAX ||
			       ext.len - 1 > DATA_BLKNO_MAX - ext.blkno))
		return BAD(why, "extent maps blocks out of range");
	return 0;
}

/* Keys of zone 16: what each type leaves zero and may hold. */
static int check_fs_key(const struct key *k, const char **why)
{
	bool ok;

	if (k->first == 0)
		return BAD(why, "item of inode 0");
	switch (k->type) {
	case TYPE_INODE:
		ok = !k->second && !k->third && !k->fourth;
		break;
	case TYPE_XATTR:
		ok = k->second <= UINT32_MAX && k->fourth < XATTR_PARTS_MAX;
		break;
	case TYPE_DIRENT:
	case TYPE_LINK_BACKREF:
		ok = !k->fourth;
		break;
	case TYPE_READDIR:
		ok = !k->third && !k->fourth;
		break;
	case TYPE_SYMLINK:
		ok = k->second < SYMLINK_FRAGMENTS_MAX && !k->third && !k->fourth;
		break;
	case TYPE_DATA_EXTENT:
		ok = !k->fourth && k->third && k->second <= IBLOCK_MAX && k->third - 1 <= k->second;
		break;
	default:
		return BAD(why, "unknown item type in the fs zone");
	}
	return ok ? 0 : BAD(why, "item key out of range");
}

static int check_fs_value(unsigned fmt_vers, const struct item *it, const char **why)
{
	switch (it->key.type) {
	case TYPE_INODE:
		return check_inode(fmt_vers, it, why);
	case TYPE_XATTR:
		return check_xattr(it, why);
	case TYPE_SYMLINK:
		return it->val_len ? 0 : BAD(why, "empty symlink fragment");
	case TYPE_DATA_EXTENT:
		return check_extent(it, why);
	default:
		return check_dirent(it, why);
	}
}

/* An operation or a source that is not known is not refused: upstream lets them be added, and such a rule never applies. */
static int check_quota_rule(const struct item *it, const char **why)
{
	struct disk_quota_rule r;
	uint64_t selected[4] = { 0 };
	bool selects[4] = { false };

	if (it->val_len != sizeof(r))
		return BAD(why, "quota rule of a wrong size");
	memcpy(&r, it->val, sizeof(r));
	if (it->key.second != hash64(&r, sizeof(r)))
		return BAD(why, "quota rule does not match the hash in its key");
	if (r.rule_flags > 1)
		return BAD(why, "quota rule with an unknown flag");
	for (unsigned i = 0; i < 3; i++) {
		unsigned source = r.name_source[i];
		uint64_t val = le64_get(r.name_val[i]);

		if (r.name_flags[i] > 1)
			return BAD(why, "quota rule with an unknown name flag");
		if (!r.name_flags[i] || source > 3)
			continue;
		if (source == 0)
			return BAD(why, "quota rule that selects by a literal");
		if (selects[source] && selected[source] != val)
			return BAD(why, "quota rule that selects two values of one attribute");
		selects[source] = true;
		selected[source] = val;
	}
	return 0;
}

/* Items of fs_root and of log item trees, zones 4 to 16. */
static int check_forest_item(unsigned fmt_vers, const struct item *it, const char **why)
{
	const struct key *k = &it->key;
	bool deletion = it->flags & ITEM_FLAG_DELETION;
	bool ok;
	int ret;

	if (fmt_vers < 2 && (k->zone == ZONE_QUOTA || k->zone == ZONE_XATTR_INDX))
		return BAD(why, "item of a zone that format version 1 does not have");

	switch (k->zone) {
	case ZONE_INODE_INDEX:
		ok = (k->type == TYPE_INDEX_META_SEQ || k->type == TYPE_INDEX_DATA_SEQ) &&
		     !k->first && k->third && !k->fourth;
		break;
	case ZONE_ORPHAN:
		ok = k->type == TYPE_ORPHAN && !k->first && k->second && !k->third && !k->fourth;
		break;
	case ZONE_QUOTA:
		ok = k->type == TYPE_QUOTA_RULE && !k->first && !k->fourth;
		break;
	case ZONE_XATTR_TOTL:
		ok = !k->type && !k->fourth;
		break;
	case ZONE_XATTR_INDX:
		ok = !k->type;
		break;
	case ZONE_FS:
		ret = check_fs_key(k, why);
		if (ret < 0)
			return ret;
		ok = true;
		break;
	default:
		return BAD(why, "zone that does not belong in this tree");
	}
	if (!ok)
		return BAD(why, "item key out of range");
	if (deletion)
		return k->zone == ZONE_XATTR_TOTL ? BAD(why, "deletion marker of a total") : 0;

	switch (k->zone) {
	case ZONE_QUOTA:
		return check_quota_rule(it, why);
	case ZONE_XATTR_TOTL:
		return it->val_len == sizeof(struct disk_xattr_total) ? 0 :
		       BAD(why, "total of a wrong size");
	case ZONE_FS:
		return check_fs_value(fmt_vers, it, why);
	default:
		return it->val_len == 0 ? 0 : BAD(why, "value where there is none");
	}
}

static int check_log_trees_item(const struct item *it, const char **why)
{
	struct disk_log_trees lt;

	if (it->key.zone != ZONE_LOG_TREES)
		return BAD(why, "zone that does not belong in this tree");
	if (it->key.type || it->key.third || it->key.fourth)
		return BAD(why, "item key out of range");
	if (it->val_len != sizeof(lt))
		return BAD(why, "log trees value of a wrong size");
	memcpy(&lt, it->val, sizeof(lt));
	if (le64_get(lt.rid) != it->key.first || le64_get(lt.nr) != it->key.second)
		return BAD(why, "log trees key does not match its value");
	return 0;
}

static int check_merge_item(const struct item *it, const char **why)
{
	const struct key *k = &it->key;
	struct disk_merge_range range;
	struct disk_merge_request req;
	struct disk_merge_complete comp;
	struct disk_merge_freeing fr;
	struct key start, end;
	size_t want;

	switch (k->zone) {
	case ZONE_MERGE_STATUS:
		want = sizeof(struct disk_merge_status);
		break;
	case ZONE_MERGE_RANGE:
		want = sizeof(range);
		break;
	case ZONE_MERGE_REQUEST:
		want = sizeof(req);
		break;
	case ZONE_MERGE_COMPLETE:
		want = sizeof(comp);
		break;
	case ZONE_MERGE_FREEING:
		want = sizeof(fr);
		break;
	default:
		return BAD(why, "zone that does not belong in this tree");
	}
	if (it->val_len != want)
		return BAD(why, "log merge value of a wrong size");
	if (k->zone != ZONE_MERGE_RANGE && (k->type || k->third || k->fourth))
		return BAD(why, "item key out of range");

	switch (k->zone) {
	case ZONE_MERGE_STATUS:
		return k->first || k->second ? BAD(why, "item key out of range") : 0;
	case ZONE_MERGE_RANGE:
		memcpy(&range, it->val, sizeof(range));
		start = key_from_disk(&range.start);
		end = key_from_disk(&range.end);
		if (key_cmp(&start, &end) > 0)
			return BAD(why, "merge range that ends before it starts");
		start.zone = ZONE_MERGE_RANGE;
		return key_eq(&start, k) ? 0 : BAD(why, "merge range key does not match its start");
	case ZONE_MERGE_REQUEST:
		memcpy(&req, it->val, sizeof(req));
		if (le64_get(req.rid) != k->first || le64_get(req.seq) != k->second)
			return BAD(why, "merge request key does not match its value");
		return 0;
	case ZONE_MERGE_COMPLETE:
		memcpy(&comp, it->val, sizeof(comp));
		if (k->second || le64_get(comp.seq) != k->first)
			return BAD(why, "merge completion key does not match its value");
		return 0;
	default:
		memcpy(&fr, it->val, sizeof(fr));
		if (k->second || le64_get(fr.seq) != k->first)
			return BAD(why, "merge freeing key does not match its value");
		return 0;
	}
}

static int check_srch_item(const struct item *it, const char **why)
{
	const struct key *k = &it->key;
	struct disk_srch_file sf;
	struct disk_srch_compact sc;

	if (k->zone != ZONE_SRCH)
		return BAD(why, "zone that does not belong in this tree");
	if (k->first || k->fourth)
		return BAD(why, "item key out of range");
	switch (k->type) {
	case TYPE_SRCH_LOG:
	case TYPE_SRCH_SORTED:
		if (it->val_len != sizeof(sf))
			return BAD(why, "srch file value of a wrong size");
		memcpy(&sf, it->val, sizeof(sf));
		if (k->type == TYPE_SRCH_LOG &&
		    (k->second != le64_get(sf.ref.blkno) || k->third != 0))
			return BAD(why, "srch log file key does not match its value");
		if (k->type == TYPE_SRCH_SORTED &&
		    (k->second != le64_get(sf.blocks) || k->third != le64_get(sf.ref.blkno)))
			return BAD(why, "srch sorted file key does not match its value");
		return 0;
	case TYPE_SRCH_PENDING:
	case TYPE_SRCH_BUSY:
		if (it->val_len != sizeof(sc))
			return BAD(why, "srch compaction value of a wrong size");
		memcpy(&sc, it->val, sizeof(sc));
		if (sc.nr > SRCH_COMPACT_INPUTS)
			return BAD(why, "srch compaction of more than 4 inputs");
		if (k->type == TYPE_SRCH_PENDING && (k->second != le64_get(sc.id) || k->third != 0))
			return BAD(why, "srch compaction key does not match its value");
		if (k->type == TYPE_SRCH_BUSY && k->third != le64_get(sc.id))
			return BAD(why, "srch compaction key does not match its value");
		return 0;
	default:
		return BAD(why, "unknown item type in the srch zone");
	}
}

static int check_free_extent_item(const struct item *it, const char **why)
{
	const struct key *k = &it->key;
	uint64_t last, len;

	if (k->zone == ZONE_FREE_BY_BLKNO) {
		last = k->first;
		len = k->second;
		if (k->type || k->third || k->fourth)
			return BAD(why, "item key out of range");
	} else if (k->zone == ZONE_FREE_BY_ORDER) {
		last = k->second;
		len = k->third;
		if (k->type || k->fourth)
			return BAD(why, "item key out of range");
	} else {
		return BAD(why, "zone that does not belong in this tree");
	}
	if (len == 0 || len - 1 > last)
		return BAD(why, "free extent of no length or with a wrapped start");
	if (k->zone == ZONE_FREE_BY_ORDER && k->first != UINT64_MAX - extent_order(len))
		return BAD(why, "free extent under a wrong order");
	return it->val_len ? BAD(why, "value where there is none") : 0;
}

int item_check(enum tree_kind tree, unsigned fmt_vers, const struct item *it, const char **why)
{
	if (it->val_len > ITEM_VAL_MAX)
		return BAD(why, "item value longer than 896 bytes");
	if (it->flags & ~(tree == TREE_LOG_ITEMS ? ITEM_FLAG_DELETION : 0))
		return BAD(why, "item flags that this tree does not have");

	switch (tree) {
	case TREE_FS:
	case TREE_LOG_ITEMS:
		return check_forest_item(fmt_vers, it, why);
	case TREE_LOGS:
		return check_log_trees_item(it, why);
	case TREE_LOG_MERGE:
		return check_merge_item(it, why);
	case TREE_MOUNTED_CLIENTS:
		if (it->key.zone != ZONE_MOUNTED_CLIENT)
			return BAD(why, "zone that does not belong in this tree");
		if (!it->key.first || it->key.type || it->key.second || it->key.third ||
		    it->key.fourth)
			return BAD(why, "item key out of range");
		return it->val_len == sizeof(struct disk_mounted_client) ? 0 :
		       BAD(why, "mounted client value of a wrong size");
	case TREE_SRCH:
		return check_srch_item(it, why);
	case TREE_FREE_EXTENTS:
		return check_free_extent_item(it, why);
	}
	return BAD(why, "unknown kind of tree");
}

void inode_from_item(const struct item *it, struct disk_inode *inode)
{
	memset(inode, 0, sizeof(*inode));
	memcpy(inode, it->val, it->val_len < sizeof(*inode) ? it->val_len : sizeof(*inode));
}

void extent_from_item(const struct item *it, struct data_extent *ext)
{
	struct disk_extent disk;

	memcpy(&disk, it->val, sizeof(disk));
	ext->iblock = it->key.second - it->key.third + 1;
	ext->len = it->key.third;
	ext->blkno = le64_get(disk.blkno);
	ext->flags = disk.flags;
}

int dirent_type_of_mode(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFIFO:
		return DIRENT_FIFO;
	case S_IFCHR:
		return DIRENT_CHR;
	case S_IFDIR:
		return DIRENT_DIR;
	case S_IFBLK:
		return DIRENT_BLK;
	case S_IFREG:
		return DIRENT_REG;
	case S_IFLNK:
		return DIRENT_LNK;
	case S_IFSOCK:
		return DIRENT_SOCK;
	default:
		return -1;
	}
}

uint32_t mode_of_dirent_type(uint8_t type)
{
	switch (type) {
	case DIRENT_FIFO:
		return S_IFIFO;
	case DIRENT_CHR:
		return S_IFCHR;
	case DIRENT_DIR:
		return S_IFDIR;
	case DIRENT_BLK:
		return S_IFBLK;
	case DIRENT_REG:
		return S_IFREG;
	case DIRENT_LNK:
		return S_IFLNK;
	case DIRENT_SOCK:
		return S_IFSOCK;
	default:
		return (uint32_t)-1;
	}
}

int xattr_name_tags(const void *name, size_t len)
{
	static const struct {
		char text[6];
		unsigned bit;
	} tags[] = {
		{ "hide.", XATTR_TAG_HIDE },
		{ "indx.", XATTR_TAG_INDX },
		{ "srch.", XATTR_TAG_SRCH },
		{ "totl.", XATTR_TAG_TOTL },
	};
	static const size_t prefix_len = sizeof("scoutfs.") - 1;
	static const size_t tag_len = 5;
	const char *p = name;
	unsigned found = 0, i;

	/* Shorter names have no room for a tag and something behind it. */
	if (len < prefix_len + tag_len + 1 || memcmp(p, "scoutfs.", prefix_len) != 0)
		return 0;
	for (p += prefix_len, len -= prefix_len; len >= tag_len; p += tag_len, len -= tag_len) {
		for (i = 0; i < 4 && memcmp(p, tags[i].text, tag_len) != 0; i++)
			;
		if (i == 4)
			break;
		found |= tags[i].bit;
	}
	if (!found ||
	    (found & (XATTR_TAG_INDX | XATTR_TAG_TOTL)) == (XATTR_TAG_INDX | XATTR_TAG_TOTL))
		return -EINVAL;
	return (int)found;
}
