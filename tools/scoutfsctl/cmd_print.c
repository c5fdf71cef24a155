/*
 * scoutfsctl print: every metadata structure of a volume, one record a line (interface.md 3.2).
 *
 * It takes no lock and may run on a volume in use, which then changes underneath; what it shows is
 * what the device had when each block was read.  A block that cannot be read or is not what its
 * reference says is named and left out, and the status is 1 at the end.  Nothing on the device can
 * make it loop: trees and lists are walked by core, which bounds them, and srch files are counted
 * here.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/fs.h>

#include "alloc/meta_alloc.h"
#include "btree/btree.h"
#include "csum/csum.h"
#include "format/super.h"
#include "log/forest.h"
#include "log/srch.h"
#include "tools/scoutfsctl/print.h"
#include "tools/scoutfsctl/volume.h"

#define VERB "print"

struct print {
	struct volume v;
	struct out out;
	bool skips_huge;
	uint64_t bad_nr;	/* blocks and items that could not be shown */
};

/* The tree being walked. */
struct tree_walk {
	struct print *pr;
	enum tree_kind kind;
	const char *name;
	/* Called for each good item, to go on to what it names; may be NULL. */
	void (*follow)(struct print *pr, const struct item *it);
};

static void out_bad(struct print *pr, const char *where, uint64_t blkno, const char *why)
{
	pr->bad_nr++;
	out_begin(&pr->out, "bad_block");
	out_word(&pr->out, "in", where);
	out_u64(&pr->out, "blkno", blkno);
	out_bytes(&pr->out, "why", why, strlen(why));
	out_end(&pr->out);
}

static const char *why_of(int err)
{
	switch (err) {
	case -ESTALE:
		return "checksum, magic, fsid, seq or blkno is not what the reference says";
	case -EBADMSG:
		return "malformed";
	case -EINVAL:
		return "reference beyond the device";
	default:
		return strerror(-err);
	}
}

static void out_header(struct out *o, const struct disk_header *hdr)
{
	out_u64(o, "blkno", le64_get(hdr->blkno));
	out_hex(o, "seq", le64_get(hdr->seq));
}

static void print_item(const struct tree_walk *tw, uint64_t blkno, const struct item *it)
{
	struct print *pr = tw->pr;
	struct out *o = &pr->out;
	const char *why;
	bool is_good = item_check(tw->kind, pr->v.fmt_vers, it, &why) == 0;

	out_begin(o, is_good ? "item" : "bad_item");
	out_word(o, "tree", tw->name);
	out_u64(o, "blkno", blkno);
	out_key(o, "key", &it->key);
	out_u64(o, "seq", it->seq);
	out_u64(o, "flags", it->flags);
	out_u64(o, "val_len", it->val_len);
	if (is_good) {
		out_item_value(o, tw->kind, it);
	} else {
		pr->bad_nr++;
		out_bytes(o, "why", why, strlen(why));
		out_bytes(o, "bytes", it->val, it->val_len);
	}
	out_end(o);
	if (is_good && tw->follow)
		tw->follow(pr, it);
}

static int print_tree_block(void *arg, const struct btree_visit *v)
{
	const struct tree_walk *tw = arg;
	struct out *o = &tw->pr->out;
	const struct disk_btree_block *b;
	struct item it;

	if (v->err) {
		out_bad(tw->pr, tw->name, v->ref.blkno, why_of(v->err));
		return 1;
	}
	b = v->bl->data;
	out_begin(o, "btree_block");
	out_word(o, "tree", tw->name);
	out_header(o, &b->hdr);
	out_u64(o, "level", b->level);
	out_u64(o, "nr_items", le16_get(b->nr_items));
	out_u64(o, "total_item_bytes", le16_get(b->total_item_bytes));
	out_u64(o, "mid_free_len", le16_get(b->mid_free_len));
	out_end(o);

	for (int slot = btb_first(b); slot >= 0; slot = btb_next(b, slot)) {
		btb_item(b, slot, &it);
		if (b->level == 0) {
			print_item(tw, v->ref.blkno, &it);
		} else {
			struct disk_block_ref ref;

			memcpy(&ref, it.val, sizeof(ref));
			out_begin(o, "child");
			out_word(o, "tree", tw->name);
			out_u64(o, "parent_blkno", v->ref.blkno);
			out_key(o, "key", &it.key);
			out_ref(o, "ref", &ref);
			out_end(o);
		}
	}
	return ferror(o->f) ? -EIO : 0;
}

static void print_tree(struct print *pr, enum tree_kind kind, const char *name,
		       const struct disk_btree_root *root,
		       void (*follow)(struct print *pr, const struct item *it))
{
	struct tree_walk tw = { .pr = pr, .kind = kind, .name = name, .follow = follow };
	int ret = btree_visit_blocks(pr->v.bs, root, print_tree_block, &tw);

	if (ret < 0 && !ferror(pr->out.f))
		out_bad(pr, name, le64_get(root->ref.blkno), why_of(ret));
}

struct list_walk {
	struct print *pr;
	const char *name;
};

static int print_list_block(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	const struct list_walk *lw = arg;
	struct out *o = &lw->pr->out;
	uint32_t start = le32_get(b->start), nr = le32_get(b->nr);
	uint64_t first = 0, len = 0;

	if (alloc_list_check(b, le64_get(lw->pr->v.super.total_meta_blocks)) < 0) {
		out_bad(lw->pr, lw->name, ref.blkno, "entries out of range or given twice");
		return 0;
	}
	out_begin(o, "alloc_list_block");
	out_word(o, "list", lw->name);
	out_header(o, &b->hdr);
	out_ref(o, "next", &b->next);
	out_u64(o, "start", start);
	out_u64(o, "nr", nr);
	out_list(o, "exts");
	for (uint32_t i = start; i < start + nr; i++) {
		uint64_t blkno = le64_get(b->blknos[i]);

		if (len && blkno == first + len) {
			len++;
			continue;
		}
		if (len)
			out_pair(o, first, len);
		first = blkno;
		len = 1;
	}
	if (len)
		out_pair(o, first, len);
	out_list_end(o);
	out_end(o);
	return ferror(o->f) ? -EIO : 0;
}

static void print_list(struct print *pr, const char *name, const struct disk_alloc_list_head *head)
{
	struct list_walk lw = { .pr = pr, .name = name };
	int ret;

	if (pr->skips_huge)
		return;
	ret = alloc_list_each(pr->v.bs, head, print_list_block, &lw);
	if (ret < 0 && !ferror(pr->out.f))
		out_bad(pr, name, le64_get(head->ref.blkno), why_of(ret));
}

struct srch_walk {
	struct print *pr;
	const char *name;
	uint64_t blocks_nr;
};

static int print_srch_entry(void *arg, const struct srch_entry *e)
{
	const struct srch_walk *sw = arg;
	struct out *o = &sw->pr->out;

	out_begin(o, "srch_entry");
	out_hex(o, "hash", e->hash);
	out_u64(o, "ino", e->ino);
	out_u64(o, "id", e->id);
	out_end(o);
	return 0;
}

static int print_srch_block(void *arg, const struct srch_visit *v)
{
	struct srch_walk *sw = arg;
	struct out *o = &sw->pr->out;
	const struct disk_srch_block *b;

	/* A file whose parents name blocks over and over would take forever. */
	if (++sw->blocks_nr > block_set_total_blocks(sw->pr->v.bs))
		return -ELOOP;
	if (v->err) {
		out_bad(sw->pr, sw->name, v->ref.blkno, v->why ? v->why : why_of(v->err));
		return 1;
	}
	if (v->level > 0) {
		out_begin(o, "srch_parent");
		out_word(o, "file", sw->name);
		out_header(o, v->bl->data);
		out_u64(o, "level", v->level);
		out_u64(o, "first_leaf", v->leaf);
		out_end(o);
		return ferror(o->f) ? -EIO : 0;
	}
	b = v->bl->data;
	out_begin(o, "srch_block");
	out_word(o, "file", sw->name);
	out_header(o, &b->hdr);
	out_u64(o, "leaf", v->leaf);
	out_u64(o, "entry_nr", le32_get(b->entry_nr));
	out_u64(o, "entry_bytes", le32_get(b->entry_bytes));
	out_end(o);
	srch_block_each(b, print_srch_entry, sw);
	return ferror(o->f) ? -EIO : 0;
}

static void srch_result(struct print *pr, const struct srch_walk *sw,
			const struct disk_srch_file *sf, int ret)
{
	if (ret < 0 && !ferror(pr->out.f))
		out_bad(pr, sw->name, le64_get(sf->ref.blkno), why_of(ret));
}

static void print_srch_file(struct print *pr, const char *name, const struct disk_srch_file *sf,
			    bool is_sorted)
{
	struct srch_walk sw = { .pr = pr, .name = name };

	if (pr->skips_huge || le64_get(sf->ref.blkno) == 0)
		return;
	srch_result(pr, &sw, sf,
		    srch_file_visit_blocks(pr->v.bs, sf, is_sorted, print_srch_block, &sw));
}

static void print_bloom(struct print *pr, const struct disk_block_ref *ref)
{
	const struct disk_bloom_block *bb;
	struct out *o = &pr->out;
	struct block *bl;
	int ret;

	if (le64_get(ref->blkno) == 0)
		return;
	ret = block_get(pr->v.bs, block_ref_get(ref), MAGIC_BLOOM, &bl);
	if (ret < 0) {
		out_bad(pr, "bloom", le64_get(ref->blkno), why_of(ret));
		return;
	}
	bb = bl->data;
	if (bloom_block_check(bb) < 0)
		out_bad(pr, "bloom", le64_get(ref->blkno), "bits do not agree with their count");
	out_begin(o, "bloom_block");
	out_header(o, &bb->hdr);
	out_u64(o, "total_set", le64_get(bb->total_set));
	if (!pr->skips_huge) {
		uint64_t first = 0, len = 0;

		out_list(o, "bits");
		for (uint32_t n = 0; n < BLOOM_BITS; n++) {
			if (!(bb->bits[n / 8] >> n % 8 & 1))
				continue;
			if (len && n == first + len) {
				len++;
				continue;
			}
			if (len)
				out_pair(o, first, len);
			first = n;
			len = 1;
		}
		if (len)
			out_pair(o, first, len);
		out_list_end(o);
	}
	out_end(o);
	block_put(pr->v.bs, bl);
}

static void follow_log_trees(struct print *pr, const struct item *it)
{
	struct disk_log_trees lt;

	memcpy(&lt, it->val, sizeof(lt));
	print_list(pr, "log_trees.meta_avail", &lt.meta_avail);
	print_list(pr, "log_trees.meta_freed", &lt.meta_freed);
	if (!pr->skips_huge) {
		print_tree(pr, TREE_FREE_EXTENTS, "log_trees.data_avail", &lt.data_avail.root,
			   NULL);
		print_tree(pr, TREE_FREE_EXTENTS, "log_trees.data_freed", &lt.data_freed.root,
			   NULL);
	}
	print_srch_file(pr, "log_trees.srch_file", &lt.srch_file, false);
	print_bloom(pr, &lt.bloom_ref);
	if (!pr->skips_huge)
		print_tree(pr, TREE_LOG_ITEMS, "log_trees.item_root", &lt.item_root, NULL);
}

static void follow_srch(struct print *pr, const struct item *it)
{
	struct disk_srch_file sf;
	struct disk_srch_compact sc;

	if (it->key.type == TYPE_SRCH_LOG || it->key.type == TYPE_SRCH_SORTED) {
		memcpy(&sf, it->val, sizeof(sf));
		print_srch_file(pr, it->key.type == TYPE_SRCH_LOG ? "srch_log" : "srch_sorted", &sf,
				it->key.type == TYPE_SRCH_SORTED);
		return;
	}
	memcpy(&sc, it->val, sizeof(sc));
	print_list(pr, "compact.meta_avail", &sc.meta_avail);
	print_list(pr, "compact.meta_freed", &sc.meta_freed);
	if (!(sc.flags & SRCH_COMPACT_DELETE)) {
		/* The inputs still have items of their own, which show them (20.32). */
		print_srch_file(pr, "compact.out", &sc.out, true);
		return;
	}
	for (unsigned i = 0; i < sc.nr && !pr->skips_huge; i++) {
		bool is_sorted = sc.flags & SRCH_COMPACT_SORTED;
		struct srch_walk sw = { .pr = pr, .name = "compact.in" };

		srch_result(pr, &sw, &sc.in[i].file,
			    srch_input_visit_unfreed(pr->v.bs, &sc.in[i], is_sorted,
						     print_srch_block, &sw));
	}
}

static void follow_merge(struct print *pr, const struct item *it)
{
	struct disk_merge_request req;
	struct disk_merge_complete comp;

	if (it->key.zone == ZONE_MERGE_REQUEST) {
		memcpy(&req, it->val, sizeof(req));
		print_list(pr, "merge_request.meta_avail", &req.meta_avail);
		print_list(pr, "merge_request.meta_freed", &req.meta_freed);
	} else if (it->key.zone == ZONE_MERGE_COMPLETE) {
		memcpy(&comp, it->val, sizeof(comp));
		print_list(pr, "merge_complete.meta_avail", &comp.meta_avail);
		print_list(pr, "merge_complete.meta_freed", &comp.meta_freed);
		if (!pr->skips_huge)
			print_tree(pr, TREE_FS, "merge_complete.root", &comp.root, NULL);
	}
}

static void print_super(struct print *pr)
{
	const struct disk_super *s = &pr->v.super;
	struct out *o = &pr->out;
	uint32_t crc = block_crc(s, sizeof(*s));
	const uint8_t *u = s->uuid;
	char uuid[40];

	snprintf(uuid, sizeof(uuid),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
		 u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
		 u[15]);
	out_begin(o, "super");
	out_header(o, &s->hdr);
	out_word(o, "crc", crc == le32_get(s->hdr.crc) ? "good" : "bad");
	pr->bad_nr += crc != le32_get(s->hdr.crc);
	out_hex(o, "fsid", le64_get(s->hdr.fsid));
	out_word(o, "uuid", uuid);
	out_u64(o, "fmt_vers", le64_get(s->fmt_vers));
	out_u64(o, "flags", le64_get(s->flags));
	out_u64(o, "volume_seq", le64_get(s->seq));
	out_u64(o, "next_ino", le64_get(s->next_ino));
	out_u64(o, "inode_count", le64_get(s->inode_count));
	out_u64(o, "total_meta_blocks", le64_get(s->total_meta_blocks));
	out_u64(o, "total_data_blocks", le64_get(s->total_data_blocks));
	out_u64(o, "qconf_version", le64_get(s->qconf.version));
	out_alloc_root(o, "meta_alloc0", &s->meta_alloc[0]);
	out_alloc_root(o, "meta_alloc1", &s->meta_alloc[1]);
	out_alloc_root(o, "data_alloc", &s->data_alloc);
	out_list_head(o, "server_meta_avail0", &s->server_meta_avail[0]);
	out_list_head(o, "server_meta_avail1", &s->server_meta_avail[1]);
	out_list_head(o, "server_meta_freed0", &s->server_meta_freed[0]);
	out_list_head(o, "server_meta_freed1", &s->server_meta_freed[1]);
	out_root(o, "fs_root", &s->fs_root);
	out_root(o, "logs_root", &s->logs_root);
	out_root(o, "log_merge", &s->log_merge);
	out_root(o, "mounted_clients", &s->mounted_clients);
	out_root(o, "srch_root", &s->srch_root);
	out_hex(o, "volopt_set_bits", le64_get(s->volopt.set_bits));
	out_u64(o, "data_alloc_zone_blocks", le64_get(s->volopt.data_alloc_zone_blocks));
	out_end(o);

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (le16_get(s->qconf.slots[i].family) == ADDR_NONE)
			continue;
		out_begin(o, "quorum_slot");
		out_u64(o, "slot", i);
		out_addr(o, "addr", &s->qconf.slots[i]);
		out_end(o);
	}
}

static void print_quorum_blocks(struct print *pr)
{
	static const char *const events[QUORUM_EVENTS_NR] = { "begin", "term", "elect",
							      "fence", "stop", "end" };
	struct disk_quorum_block q;
	struct out *o = &pr->out;
	const char *why;
	int ret;

	for (unsigned i = 0; i < QUORUM_BLOCKS_NR; i++) {
		uint64_t blkno = QUORUM_FIRST_BLKNO + i;

		ret = device_read(&pr->v.meta, blkno << SMALL_SHIFT, &q, sizeof(q));
		if (ret < 0) {
			out_bad(pr, "quorum", blkno, strerror(-ret));
			continue;
		}
		if (quorum_block_check(&q, i, pr->v.fsid, &why) < 0) {
			out_bad(pr, "quorum", blkno, why);
			continue;
		}
		out_begin(o, "quorum_block");
		out_u64(o, "slot", i);
		out_header(o, &q.hdr);
		out_u64(o, "write_nr", le64_get(q.write_nr));
		for (unsigned e = 0; e < QUORUM_EVENTS_NR; e++) {
			if (!q.events[e].rid.v)
				continue;
			out_group(o, events[e]);
			out_u64(o, "write_nr", le64_get(q.events[e].write_nr));
			out_hex(o, "rid", le64_get(q.events[e].rid));
			out_u64(o, "term", le64_get(q.events[e].term));
			out_time(o, "ts", &q.events[e].ts);
			out_group_end(o);
		}
		out_end(o);
	}
}

static void print_volume(struct print *pr)
{
	const struct disk_super *s = &pr->v.super;

	print_super(pr);
	print_quorum_blocks(pr);
	print_tree(pr, TREE_MOUNTED_CLIENTS, "mounted_clients", &s->mounted_clients, NULL);
	print_list(pr, "server_meta_avail0", &s->server_meta_avail[0]);
	print_list(pr, "server_meta_avail1", &s->server_meta_avail[1]);
	print_list(pr, "server_meta_freed0", &s->server_meta_freed[0]);
	print_list(pr, "server_meta_freed1", &s->server_meta_freed[1]);
	if (!pr->skips_huge) {
		print_tree(pr, TREE_FREE_EXTENTS, "meta_alloc0", &s->meta_alloc[0].root, NULL);
		print_tree(pr, TREE_FREE_EXTENTS, "meta_alloc1", &s->meta_alloc[1].root, NULL);
		print_tree(pr, TREE_FREE_EXTENTS, "data_alloc", &s->data_alloc.root, NULL);
	}
	print_tree(pr, TREE_LOG_MERGE, "log_merge", &s->log_merge, follow_merge);
	print_tree(pr, TREE_SRCH, "srch_root", &s->srch_root, follow_srch);
	print_tree(pr, TREE_LOGS, "logs_root", &s->logs_root, follow_log_trees);
	if (!pr->skips_huge)
		print_tree(pr, TREE_FS, "fs_root", &s->fs_root, NULL);
}

int cmd_print(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "skip-likely-huge", no_argument, NULL, 'S' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct print pr = { .out = { .f = stdout } };
	struct device flushed;
	int c, ret;

	while ((c = getopt_long(argc, argv, ":S", longs, NULL)) != -1) {
		switch (c) {
		case 'S':
			pr.skips_huge = true;
			break;
		case 'j':
			pr.out.is_json = true;
			break;
		default:
			return unknown_option(VERB, argv);
		}
	}
	if (argc - optind != 1)
		return usage_error(VERB, "one metadata device is needed");

	/* What another host wrote is not in this host's cache of the device. */
	ret = device_open(&flushed, argv[optind], DEVICE_PEEK, VERB);
	if (ret < 0)
		return verb_failed(VERB, ret);
	if (flushed.is_bdev && ioctl(flushed.fd, BLKFLSBUF, 0) < 0)
		say_error(VERB, "could not drop cached blocks of '%s', some may be old: %s",
			  argv[optind], strerror(errno));
	device_close(&flushed);

	ret = volume_open(&pr.v, argv[optind], NULL, DEVICE_PEEK, VERB);
	if (ret < 0)
		return verb_failed(VERB, ret);
	print_volume(&pr);
	volume_close(&pr.v);
	if (pr.bad_nr) {
		say_error(VERB, "%" PRIu64 " blocks or items are damaged; run check on the volume",
			  pr.bad_nr);
		return 1;
	}
	return 0;
}
