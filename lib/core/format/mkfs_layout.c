/*
 * The blocks of a new volume, byte for byte as format.md 17 and 22 give them, except for one thing:
 * AVL heights are right (21.2 tells what upstream writes; upstream_heights brings that back for the
 * test that compares our bytes with upstream's checksums).
 *
 * The order of writes is part of the promise.  The metadata super makes the volume; it is written
 * last, after everything it names is durable, so a mkfs that is cut off leaves no volume behind.
 *
 * Tree blocks are laid out by hand, not through btree/: the format fixes which slot is the root.
 */
#include "format/mkfs_layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/free_extents.h"
#include "btree/block.h"
#include "csum/csum.h"
#include "format/super.h"
#include "key/key.h"

#define FS_ROOT_BLKNO		META_FIRST_BLKNO
#define LIST_BLKNO		3ull
#define LIST_FIRST		4ull		/* the entries of the avail list */
#define LIST_NR			1024u
#define DATA_ALLOC_BLKNO	(LIST_FIRST + LIST_NR)
#define META_ALLOC0_BLKNO	(DATA_ALLOC_BLKNO + 1)
#define META_ALLOC1_BLKNO	(DATA_ALLOC_BLKNO + 2)
#define META_FREE_FIRST		(DATA_ALLOC_BLKNO + 3)

static_assert(MKFS_META_BLOCKS_MIN == META_FREE_FIRST + 2, "an extent for each meta_alloc");
static_assert(MKFS_DATA_BLOCKS_MIN == DATA_FIRST_BLKNO + 1, "an extent for data_alloc");

#define META_BLOCKS_MAX		((1ull << 48) - 1)
#define DATA_BLOCKS_MAX		((1ull << 52) - 1)

#define BLOCK_SEQ		1ull
#define ITEM_SEQ		1ull

int mkfs_params_check(const struct mkfs_params *p, const char **why)
{
	uint64_t zone = p->data_alloc_zone_blocks;
	unsigned slots = 0;

	*why = NULL;
	if (p->fmt_vers < FORMAT_VERSION_MIN || p->fmt_vers > FORMAT_VERSION_MAX)
		*why = "the format version must be 1 or 2";
	else if (p->total_meta_blocks < MKFS_META_BLOCKS_MIN)
		*why = "the metadata device is too small for the first blocks (1033 of 64 KiB)";
	else if (p->total_data_blocks < MKFS_DATA_BLOCKS_MIN)
		*why = "the data device is too small for the first blocks (65 of 4 KiB)";
	else if (p->total_meta_blocks > META_BLOCKS_MAX || p->total_data_blocks > DATA_BLOCKS_MAX)
		*why = "a device is greater than the format can address";
	else if (zone && zone < DATA_ALLOC_ZONE_BLOCKS_MIN)
		*why = "a data allocation zone must have at least 1048576 blocks";
	else if (zone && zone > p->total_data_blocks)
		*why = "a data allocation zone must not be greater than the data device";
	else if (zone &&
		 (p->total_data_blocks + DATA_ALLOC_ZONES_MAX - 1) / DATA_ALLOC_ZONES_MAX > zone)
		*why = "that would be more than 1024 data allocation zones";
	if (*why)
		return -EINVAL;

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		const struct mkfs_slot *s = &p->slots[i];

		if (!s->is_used)
			continue;
		slots++;
		if (!quorum_addr_is_valid(s->addr, s->port))
			*why = "a quorum slot needs a unicast IPv4 address and a port from 1 to 65535";
		for (unsigned j = 0; j < i; j++) {
			if (p->slots[j].is_used && p->slots[j].addr == s->addr &&
			    p->slots[j].port == s->port)
				*why = "two quorum slots have the same address and port";
		}
	}
	if (!slots)
		*why = "at least one quorum slot is needed";
	return *why ? -EINVAL : 0;
}

/*
 * A leaf of two items, slot 1 being the root of the AVL tree and slot 0 its left child.  Only slot
 * 1 may have a value.
 */
static void fill_leaf(const struct mkfs_params *p, struct disk_btree_block *b, uint64_t blkno,
		      const struct key *low, const struct key *high, const void *val,
		      uint16_t val_len)
{
	const struct key *keys[2] = { low, high };
	size_t items_end = sizeof(*b) + 2 * sizeof(struct disk_btree_item);
	size_t val_bytes = (val_len + 7u) & ~7u;
	uint16_t refs[2];

	memset(b, 0, LARGE_SIZE);
	block_header_init(b, MAGIC_BTREE, p->fsid, BLOCK_SEQ, blkno);
	b->nr_items = le16_of(2);
	b->total_item_bytes = le16_of((uint16_t)(2 * sizeof(struct disk_btree_item) + val_bytes));
	b->mid_free_len = le16_of((uint16_t)(BTREE_HASH_OFFSET - val_bytes - items_end));

	for (unsigned i = 0; i < 2; i++) {
		struct disk_btree_item *it = &b->items[i];
		size_t off = (size_t)((char *)it - (char *)b);
		uint32_t bucket;
		le16 entry = le16_of((uint16_t)off);

		it->key = key_to_disk(keys[i]);
		it->seq = le64_of(ITEM_SEQ);
		bucket = hash32(&it->key, sizeof(it->key)) % BTREE_HASH_BUCKETS;
		/* Two items that meet in one bucket: the second goes into the next (9.4). */
		if (i == 1 &&
		    bucket == hash32(&b->items[0].key, sizeof(it->key)) % BTREE_HASH_BUCKETS)
			bucket = (bucket + 1) % BTREE_HASH_BUCKETS;
		memcpy((char *)b + BTREE_HASH_OFFSET + bucket * sizeof(le16), &entry,
		       sizeof(entry));
		refs[i] = (uint16_t)(off - offsetof(struct disk_btree_block, item_root));
	}
	b->item_root = le16_of(refs[1]);
	b->items[0].node.parent = le16_of(refs[1]);
	b->items[0].node.height = 1;
	b->items[1].node.left = le16_of(refs[0]);
	b->items[1].node.height = p->upstream_heights ? 0 : 2;
	if (val_len) {
		b->items[1].val_off = le16_of((uint16_t)(BTREE_HASH_OFFSET - val_bytes));
		b->items[1].val_len = le16_of(val_len);
		memcpy((char *)b + BTREE_HASH_OFFSET - val_bytes, val, val_len);
	}
}

static int write_large(const struct mkfs_ops *ops, void *block, uint64_t blkno)
{
	struct disk_header *hdr = block;

	hdr->crc = le32_of(block_crc(block, LARGE_SIZE));
	return ops->write(ops->arg, MKFS_META, blkno << LARGE_SHIFT, block, LARGE_SIZE);
}

static int write_fs_root(const struct mkfs_params *p, const struct mkfs_ops *ops, void *block)
{
	struct key index = key_index(TYPE_INDEX_META_SEQ, 0, ROOT_INO);
	struct key root = key_inode(ROOT_INO);
	struct disk_timespec now = { .sec = le64_of(p->now_sec), .nsec = le32_of(p->now_nsec) };
	struct disk_inode inode = {
		.next_readdir_pos = le64_of(DIRENT_FIRST_POS),
		.nlink = le32_of(2),
		.mode = le32_of(040755),
		.atime = now,
		.ctime = now,
		.mtime = now,
		.crtime = now,
	};

	fill_leaf(p, block, FS_ROOT_BLKNO, &index, &root, &inode,
		  p->fmt_vers >= 2 ? INODE_V2_BYTES : INODE_V1_BYTES);
	return write_large(ops, block, FS_ROOT_BLKNO);
}

static int write_free_extent(const struct mkfs_params *p, const struct mkfs_ops *ops, void *block,
			     uint64_t blkno, struct extent ext)
{
	struct key by_blkno = key_free_by_blkno(ext.start, ext.len);
	struct key by_order = key_free_by_order(ext.start, ext.len);

	fill_leaf(p, block, blkno, &by_blkno, &by_order, NULL, 0);
	return write_large(ops, block, blkno);
}

static int write_list(const struct mkfs_params *p, const struct mkfs_ops *ops, void *block)
{
	struct disk_alloc_list_block *lb = block;

	memset(lb, 0, LARGE_SIZE);
	block_header_init(lb, MAGIC_ALLOC_LIST, p->fsid, BLOCK_SEQ, LIST_BLKNO);
	lb->nr = le32_of(LIST_NR);
	for (unsigned i = 0; i < LIST_NR; i++)
		lb->blknos[i] = le64_of(LIST_FIRST + i);
	return write_large(ops, lb, LIST_BLKNO);
}

static int write_quorum(const struct mkfs_params *p, const struct mkfs_ops *ops, void *block)
{
	for (unsigned i = 0; i < QUORUM_BLOCKS_NR; i++) {
		struct disk_quorum_block *q = block;
		uint64_t blkno = QUORUM_FIRST_BLKNO + i;
		int ret;

		memset(q, 0, sizeof(*q));
		block_header_init(q, MAGIC_QUORUM, p->fsid, BLOCK_SEQ, blkno);
		q->hdr.crc = le32_of(block_crc(q, sizeof(*q)));
		ret = ops->write(ops->arg, MKFS_META, blkno << SMALL_SHIFT, q, sizeof(*q));
		if (ret < 0)
			return ret;
	}
	return 0;
}

static struct disk_btree_root root_at(uint64_t blkno)
{
	return (struct disk_btree_root){
		.ref = { .blkno = le64_of(blkno), .seq = le64_of(BLOCK_SEQ) },
		.height = 1,
	};
}

static struct disk_alloc_root alloc_root_at(uint64_t blkno, struct extent ext)
{
	return (struct disk_alloc_root){ .total_len = le64_of(ext.len), .root = root_at(blkno) };
}

static void fill_super(const struct mkfs_params *p, struct disk_super *s, const struct extent *meta,
		       struct extent data)
{
	memset(s, 0, sizeof(*s));
	block_header_init(s, MAGIC_SUPER, p->fsid, BLOCK_SEQ, SUPER_BLKNO);
	s->fmt_vers = le64_of(p->fmt_vers);
	memcpy(s->uuid, p->uuid, sizeof(s->uuid));
	s->seq = le64_of(1);
	s->next_ino = le64_of(FIRST_INO);
	s->inode_count = le64_of(1);
	s->total_meta_blocks = le64_of(p->total_meta_blocks);
	s->total_data_blocks = le64_of(p->total_data_blocks);
	s->qconf.version = le64_of(1);
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (!p->slots[i].is_used)
			continue;
		s->qconf.slots[i].family = le16_of(ADDR_IPV4);
		s->qconf.slots[i].port = le16_of(p->slots[i].port);
		s->qconf.slots[i].addr = le32_of(p->slots[i].addr);
	}
	s->meta_alloc[0] = alloc_root_at(META_ALLOC0_BLKNO, meta[0]);
	s->meta_alloc[1] = alloc_root_at(META_ALLOC1_BLKNO, meta[1]);
	s->data_alloc = alloc_root_at(DATA_ALLOC_BLKNO, data);
	s->server_meta_avail[0] = (struct disk_alloc_list_head){
		.ref = { .blkno = le64_of(LIST_BLKNO), .seq = le64_of(BLOCK_SEQ) },
		.total_nr = le64_of(LIST_NR),
		.first_nr = le32_of(LIST_NR),
	};
	s->fs_root = root_at(FS_ROOT_BLKNO);
	if (p->data_alloc_zone_blocks) {
		s->volopt.set_bits = le64_of(1ull << VOLOPT_DATA_ALLOC_ZONE_BLOCKS);
		s->volopt.data_alloc_zone_blocks = le64_of(p->data_alloc_zone_blocks);
	}
}

static int write_super(const struct mkfs_ops *ops, struct disk_super *s, enum mkfs_device dev)
{
	int ret;

	s->flags = le64_of(dev == MKFS_META ? SUPER_FLAG_IS_META_BDEV : 0);
	s->hdr.crc = le32_of(block_crc(s, sizeof(*s)));
	ret = ops->write(ops->arg, dev, SUPER_BLKNO << SMALL_SHIFT, s, sizeof(*s));
	return ret < 0 ? ret : ops->flush(ops->arg, dev);
}

int mkfs_layout(const struct mkfs_params *p, const struct mkfs_ops *ops)
{
	uint64_t rest = p->total_meta_blocks - META_FREE_FIRST;
	uint64_t half = (rest + 1) / 2;
	struct extent meta[2] = {
		{ META_FREE_FIRST, half },
		{ META_FREE_FIRST + half, rest - half },
	};
	struct extent data = { DATA_FIRST_BLKNO, p->total_data_blocks - DATA_FIRST_BLKNO };
	void *block;
	int ret;

	if (posix_memalign(&block, SMALL_SIZE, LARGE_SIZE) != 0)
		return -ENOMEM;

	ret = write_fs_root(p, ops, block);
	if (ret == 0)
		ret = write_list(p, ops, block);
	if (ret == 0)
		ret = write_free_extent(p, ops, block, DATA_ALLOC_BLKNO, data);
	if (ret == 0)
		ret = write_free_extent(p, ops, block, META_ALLOC0_BLKNO, meta[0]);
	if (ret == 0)
		ret = write_free_extent(p, ops, block, META_ALLOC1_BLKNO, meta[1]);
	if (ret == 0)
		ret = write_quorum(p, ops, block);
	if (ret == 0)
		ret = ops->flush(ops->arg, MKFS_META);
	if (ret == 0) {
		fill_super(p, block, meta, data);
		ret = write_super(ops, block, MKFS_DATA);
	}
	if (ret == 0)
		ret = write_super(ops, block, MKFS_META);
	free(block);
	return ret;
}
