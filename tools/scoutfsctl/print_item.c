/*
 * What an item's value says, field by field.  Every value comes through item_check first, so sizes
 * and lengths inside it can be relied on (format.md 11.1, 12-15).
 */
#include "tools/scoutfsctl/print.h"

#include <string.h>

#include "alloc/free_extents.h"
#include "key/key.h"

static void out_inode(struct out *o, const struct item *it)
{
	struct disk_inode in;
	char mode[16];

	inode_from_item(it, &in);
	snprintf(mode, sizeof(mode), "%06o", le32_get(in.mode));
	out_u64(o, "ino", it->key.first);
	out_u64(o, "size", le64_get(in.size));
	out_u64(o, "meta_seq", le64_get(in.meta_seq));
	out_u64(o, "data_seq", le64_get(in.data_seq));
	out_u64(o, "data_version", le64_get(in.data_version));
	out_u64(o, "online_blocks", le64_get(in.online_blocks));
	out_u64(o, "offline_blocks", le64_get(in.offline_blocks));
	out_u64(o, "next_readdir_pos", le64_get(in.next_readdir_pos));
	out_u64(o, "next_xattr_id", le64_get(in.next_xattr_id));
	out_u64(o, "version", le64_get(in.version));
	out_u64(o, "nlink", le32_get(in.nlink));
	out_u64(o, "uid", le32_get(in.uid));
	out_u64(o, "gid", le32_get(in.gid));
	out_word(o, "mode", mode);
	out_u64(o, "rdev", le32_get(in.rdev));
	out_u64(o, "inode_flags", le32_get(in.flags));
	out_time(o, "atime", &in.atime);
	out_time(o, "ctime", &in.ctime);
	out_time(o, "mtime", &in.mtime);
	out_time(o, "crtime", &in.crtime);
	if (it->val_len == INODE_V2_BYTES)
		out_u64(o, "proj", le64_get(in.proj));
}

static void out_xattr(struct out *o, const struct item *it)
{
	const struct disk_xattr *x = it->val;
	const uint8_t *p = it->val;

	out_u64(o, "ino", it->key.first);
	out_u64(o, "id", it->key.third);
	out_u64(o, "part", it->key.fourth);
	if (it->key.fourth != 0) {
		out_bytes(o, "value", p, it->val_len);
		return;
	}
	out_u64(o, "value_len", le16_get(x->val_len));
	out_bytes(o, "name", x->name, x->name_len);
	out_bytes(o, "value", x->name + x->name_len, it->val_len - sizeof(*x) - x->name_len);
}

static void out_dirent(struct out *o, const struct item *it)
{
	const struct disk_dirent *d = it->val;

	if (it->key.type == TYPE_LINK_BACKREF)
		out_u64(o, "dir", it->key.second);
	else
		out_u64(o, "dir", it->key.first);
	out_u64(o, "ino", le64_get(d->ino));
	out_hex(o, "hash", le64_get(d->hash));
	out_u64(o, "pos", le64_get(d->pos));
	out_u64(o, "type", d->type);
	out_bytes(o, "name", d->name, it->val_len - sizeof(*d));
}

static void out_extent(struct out *o, const struct item *it)
{
	struct data_extent ext;

	extent_from_item(it, &ext);
	out_u64(o, "ino", it->key.first);
	out_u64(o, "iblock", ext.iblock);
	out_u64(o, "len", ext.len);
	out_u64(o, "blkno", ext.blkno);
	out_word(o, "state",
		 ext.flags == 0			      ? "written"
		 : ext.flags == EXTENT_FLAG_OFFLINE   ? "offline"
		 : ext.flags == EXTENT_FLAG_UNWRITTEN ? "unwritten"
						      : "unwritten,offline");
}

static void out_quota_rule(struct out *o, const struct item *it)
{
	static const char *const sources[] = { "literal", "project", "uid", "gid", "unknown" };
	static const char *const ops[] = { "inode", "data", "unknown" };
	struct disk_quota_rule r;

	memcpy(&r, it->val, sizeof(r));
	out_u64(o, "prio", r.prio);
	for (unsigned i = 0; i < 3; i++) {
		static const char *const names[] = { "name0", "name1", "name2" };

		out_group(o, names[i]);
		out_u64(o, "val", le64_get(r.name_val[i]));
		out_word(o, "source", sources[r.name_source[i] < 4 ? r.name_source[i] : 4]);
		out_u64(o, "select", r.name_flags[i]);
		out_group_end(o);
	}
	out_word(o, "op", ops[r.op < 2 ? r.op : 2]);
	out_u64(o, "limit", le64_get(r.limit));
	out_u64(o, "rule_flags", r.rule_flags);
}

static void out_forest_value(struct out *o, const struct item *it)
{
	struct disk_xattr_total t;
	struct xattr_indx xi;

	switch (it->key.zone) {
	case ZONE_INODE_INDEX:
		out_word(o, "what", it->key.type == TYPE_INDEX_META_SEQ ? "meta_seq" : "data_seq");
		return;
	case ZONE_ORPHAN:
		out_word(o, "what", "orphan");
		return;
	case ZONE_QUOTA:
		out_word(o, "what", "quota_rule");
		if (!(it->flags & ITEM_FLAG_DELETION))
			out_quota_rule(o, it);
		return;
	case ZONE_XATTR_TOTL:
		memcpy(&t, it->val, sizeof(t));
		out_word(o, "what", "xattr_total");
		out_s64(o, "total", (int64_t)le64_get(t.total));
		out_s64(o, "count", (int64_t)le64_get(t.count));
		return;
	case ZONE_XATTR_INDX:
		xi = xattr_indx_from_key(&it->key);
		out_word(o, "what", "xattr_index");
		out_u64(o, "major", xi.major);
		out_u64(o, "minor", xi.minor);
		out_u64(o, "ino", xi.ino);
		out_u64(o, "id", xi.id);
		return;
	default:
		break;
	}

	static const char *const types[] = {
		[TYPE_INODE] = "inode", [TYPE_XATTR] = "xattr", [TYPE_DIRENT] = "dirent",
		[TYPE_READDIR] = "readdir", [TYPE_LINK_BACKREF] = "link_backref",
		[TYPE_SYMLINK] = "symlink", [TYPE_DATA_EXTENT] = "extent",
	};

	out_word(o, "what", types[it->key.type]);
	if (it->flags & ITEM_FLAG_DELETION)
		return;
	switch (it->key.type) {
	case TYPE_INODE:
		out_inode(o, it);
		break;
	case TYPE_XATTR:
		out_xattr(o, it);
		break;
	case TYPE_SYMLINK:
		out_u64(o, "ino", it->key.first);
		out_bytes(o, "target", it->val, it->val_len);
		break;
	case TYPE_DATA_EXTENT:
		out_extent(o, it);
		break;
	default:
		out_dirent(o, it);
		break;
	}
}

static void out_log_trees(struct out *o, const struct item *it)
{
	struct disk_log_trees lt;

	memcpy(&lt, it->val, sizeof(lt));
	out_word(o, "what", "log_trees");
	out_hex(o, "rid", le64_get(lt.rid));
	out_u64(o, "nr", le64_get(lt.nr));
	out_u64(o, "tree_flags", le64_get(lt.flags));
	out_u64(o, "get_trans_seq", le64_get(lt.get_trans_seq));
	out_u64(o, "commit_trans_seq", le64_get(lt.commit_trans_seq));
	out_u64(o, "max_item_seq", le64_get(lt.max_item_seq));
	out_u64(o, "finalize_seq", le64_get(lt.finalize_seq));
	out_s64(o, "inode_count_delta", (int64_t)le64_get(lt.inode_count_delta));
	out_root(o, "item_root", &lt.item_root);
	out_ref(o, "bloom_ref", &lt.bloom_ref);
	out_list_head(o, "meta_avail", &lt.meta_avail);
	out_list_head(o, "meta_freed", &lt.meta_freed);
	out_alloc_root(o, "data_avail", &lt.data_avail);
	out_alloc_root(o, "data_freed", &lt.data_freed);
	out_srch_file(o, "srch_file", &lt.srch_file);
	out_u64(o, "data_alloc_zone_blocks", le64_get(lt.data_alloc_zone_blocks));
	if (!lt.data_alloc_zone_blocks.v)
		return;
	out_list(o, "data_alloc_zones");
	for (unsigned n = 0; n < DATA_ALLOC_ZONES_MAX; n++) {
		if (le64_get(lt.data_alloc_zones[n / 64]) >> n % 64 & 1)
			out_pair(o, n, 1);
	}
	out_list_end(o);
}

static void out_mounted_client(struct out *o, const struct item *it)
{
	struct disk_mounted_client mc;

	memcpy(&mc, it->val, sizeof(mc));
	out_word(o, "what", "mounted_client");
	out_hex(o, "rid", it->key.first);
	out_addr(o, "addr", &mc.addr);
	out_u64(o, "client_flags", mc.flags);
}

static void out_srch_value(struct out *o, const struct item *it)
{
	struct disk_srch_file sf;
	struct disk_srch_compact sc;

	if (it->key.type == TYPE_SRCH_LOG || it->key.type == TYPE_SRCH_SORTED) {
		memcpy(&sf, it->val, sizeof(sf));
		out_word(o, "what", it->key.type == TYPE_SRCH_LOG ? "srch_log" : "srch_sorted");
		out_srch_file(o, "file", &sf);
		return;
	}
	memcpy(&sc, it->val, sizeof(sc));
	out_word(o, "what", it->key.type == TYPE_SRCH_PENDING ? "srch_pending" : "srch_busy");
	if (it->key.type == TYPE_SRCH_BUSY)
		out_hex(o, "rid", it->key.second);
	out_u64(o, "id", le64_get(sc.id));
	out_u64(o, "nr", sc.nr);
	out_u64(o, "compact_flags", sc.flags);
	out_list_head(o, "meta_avail", &sc.meta_avail);
	out_list_head(o, "meta_freed", &sc.meta_freed);
	out_srch_file(o, "out", &sc.out);
	for (unsigned i = 0; i < sc.nr; i++) {
		static const char *const names[] = { "in0", "in1", "in2", "in3" };

		out_group(o, names[i]);
		out_srch_file(o, "file", &sc.in[i].file);
		out_u64(o, "blk", le64_get(sc.in[i].blk));
		out_u64(o, "pos", le64_get(sc.in[i].pos));
		out_group_end(o);
	}
}

static void out_disk_key(struct out *o, const char *name, const struct disk_key *dk)
{
	struct key k = key_from_disk(dk);

	out_key(o, name, &k);
}

static void out_merge_value(struct out *o, const struct item *it)
{
	struct disk_merge_status st;
	struct disk_merge_range range;
	struct disk_merge_request req;
	struct disk_merge_complete comp;
	struct disk_merge_freeing fr;

	switch (it->key.zone) {
	case ZONE_MERGE_STATUS:
		memcpy(&st, it->val, sizeof(st));
		out_word(o, "what", "merge_status");
		out_disk_key(o, "next_range_key", &st.next_range_key);
		out_u64(o, "nr_requests", le64_get(st.nr_requests));
		out_u64(o, "nr_complete", le64_get(st.nr_complete));
		out_u64(o, "merge_seq", le64_get(st.seq));
		return;
	case ZONE_MERGE_RANGE:
		memcpy(&range, it->val, sizeof(range));
		out_word(o, "what", "merge_range");
		out_disk_key(o, "start", &range.start);
		out_disk_key(o, "end", &range.end);
		return;
	case ZONE_MERGE_REQUEST:
		memcpy(&req, it->val, sizeof(req));
		out_word(o, "what", "merge_request");
		out_hex(o, "rid", le64_get(req.rid));
		out_u64(o, "request_seq", le64_get(req.seq));
		out_u64(o, "input_seq", le64_get(req.input_seq));
		out_u64(o, "request_flags", le64_get(req.flags));
		out_root(o, "logs_root", &req.logs_root);
		out_root(o, "root", &req.root);
		out_disk_key(o, "start", &req.start);
		out_disk_key(o, "end", &req.end);
		out_list_head(o, "meta_avail", &req.meta_avail);
		out_list_head(o, "meta_freed", &req.meta_freed);
		return;
	case ZONE_MERGE_COMPLETE:
		memcpy(&comp, it->val, sizeof(comp));
		out_word(o, "what", "merge_complete");
		out_hex(o, "rid", le64_get(comp.rid));
		out_u64(o, "complete_seq", le64_get(comp.seq));
		out_u64(o, "complete_flags", le64_get(comp.flags));
		out_root(o, "root", &comp.root);
		out_disk_key(o, "start", &comp.start);
		out_disk_key(o, "end", &comp.end);
		out_disk_key(o, "remain", &comp.remain);
		out_list_head(o, "meta_avail", &comp.meta_avail);
		out_list_head(o, "meta_freed", &comp.meta_freed);
		return;
	default:
		memcpy(&fr, it->val, sizeof(fr));
		out_word(o, "what", "merge_freeing");
		out_u64(o, "freeing_seq", le64_get(fr.seq));
		out_root(o, "root", &fr.root);
		out_disk_key(o, "freed_to", &fr.key);
		return;
	}
}

static void out_free_extent(struct out *o, const struct item *it)
{
	bool by_blkno = it->key.zone == ZONE_FREE_BY_BLKNO;
	uint64_t last = by_blkno ? it->key.first : it->key.second;
	uint64_t len = by_blkno ? it->key.second : it->key.third;

	out_word(o, "what", by_blkno ? "free_by_blkno" : "free_by_order");
	out_u64(o, "start", last - len + 1);
	out_u64(o, "len", len);
	out_u64(o, "order", extent_order(len));
}

void out_item_value(struct out *o, enum tree_kind tree, const struct item *it)
{
	switch (tree) {
	case TREE_FS:
	case TREE_LOG_ITEMS:
		out_forest_value(o, it);
		break;
	case TREE_LOGS:
		out_log_trees(o, it);
		break;
	case TREE_LOG_MERGE:
		out_merge_value(o, it);
		break;
	case TREE_MOUNTED_CLIENTS:
		out_mounted_client(o, it);
		break;
	case TREE_SRCH:
		out_srch_value(o, it);
		break;
	case TREE_FREE_EXTENTS:
		out_free_extent(o, it);
		break;
	}
}
