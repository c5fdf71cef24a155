/*
 * The structures of scoutfs format version 2 (and 1) as they lie on the devices: format.md, every
 * section.  Sizes and the offsets that matter are asserted beside each definition.  Names follow
 * format.md; `disk_` marks bytes that have not been checked by anybody.
 */
#ifndef SCOUTFS_FORMAT_H
#define SCOUTFS_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "util/le.h"

#define FORMAT_VERSION_MIN	1
#define FORMAT_VERSION_MAX	2

/* 1, 2: blocks and where they are */
#define SMALL_SHIFT		12
#define SMALL_SIZE		4096u
#define LARGE_SHIFT		16
#define LARGE_SIZE		65536u
#define SMALL_PER_LARGE_SHIFT	(LARGE_SHIFT - SMALL_SHIFT)
#define SUPER_BLKNO		16ull		/* small */
#define QUORUM_FIRST_BLKNO	17ull		/* small */
#define QUORUM_BLOCKS_NR	15u
#define QUORUM_SLOTS_MAX	15u
#define META_FIRST_BLKNO	2ull		/* large */
#define DATA_FIRST_BLKNO	64ull		/* small */
#define DEVICE_MIN_BYTES	(64ull << 30)	/* policy of mkfs, 2.3 */

/* 2.4 */
#define MAGIC_SUPER		0x103c428bu
#define MAGIC_QUORUM		0xbc310868u
#define MAGIC_BTREE		0xe597f96du
#define MAGIC_BLOOM		0x31995604u
#define MAGIC_SRCH_BLOCK	0x897e4a7du
#define MAGIC_SRCH_PARENT	0xb23a2a05u
#define MAGIC_ALLOC_LIST	0x8a93ac83u

/* 3.1 */
struct disk_header {
	le32 crc;
	le32 magic;
	le64 fsid;
	le64 seq;
	le64 blkno;
};
static_assert(sizeof(struct disk_header) == 32, "3.1");

/* 3.3 */
struct disk_block_ref {
	le64 blkno;
	le64 seq;
};
static_assert(sizeof(struct disk_block_ref) == 16, "3.3");

/* 4 */
struct disk_timespec {
	le64 sec;
	le32 nsec;
	uint8_t pad[4];
};
static_assert(sizeof(struct disk_timespec) == 16, "4");

#define ADDR_NONE	0
#define ADDR_IPV4	1
#define ADDR_IPV6	2

struct disk_inet_addr {
	le16 family;
	le16 port;		/* a number, not network order */
	le32 addr;		/* a number, not network order */
	uint8_t unused[24];	/* junk from upstream's mkfs, 21.1 */
};
static_assert(sizeof(struct disk_inet_addr) == 32, "4");

struct disk_btree_root {
	struct disk_block_ref ref;
	uint8_t height;
	uint8_t pad[7];
};
static_assert(sizeof(struct disk_btree_root) == 24, "4");

#define ALLOC_FLAG_LOW	1u

struct disk_alloc_list_head {
	struct disk_block_ref ref;
	le64 total_nr;
	le32 first_nr;
	le32 flags;
};
static_assert(sizeof(struct disk_alloc_list_head) == 32, "4");

struct disk_alloc_root {
	le64 total_len;
	le32 flags;
	uint8_t pad[4];
	struct disk_btree_root root;
};
static_assert(sizeof(struct disk_alloc_root) == 40, "4");

/* 5.1 */
struct disk_quorum_config {
	le64 version;
	struct disk_inet_addr slots[QUORUM_SLOTS_MAX];
};
static_assert(sizeof(struct disk_quorum_config) == 488, "5.1");

#define VOLOPT_DATA_ALLOC_ZONE_BLOCKS	0	/* option number = bit in set_bits */
#define DATA_ALLOC_ZONE_BLOCKS_MIN	1048576ull
#define DATA_ALLOC_ZONES_MAX		1024u

struct disk_volume_options {
	le64 set_bits;
	le64 data_alloc_zone_blocks;
	le64 future[63];
};
static_assert(sizeof(struct disk_volume_options) == 520, "5.1");

#define SUPER_FLAG_IS_META_BDEV	1ull

struct disk_super {
	struct disk_header hdr;
	le64 id;
	le64 fmt_vers;
	le64 flags;
	uint8_t uuid[16];
	le64 seq;
	le64 next_ino;
	le64 inode_count;
	le64 total_meta_blocks;		/* large */
	le64 total_data_blocks;		/* small */
	struct disk_quorum_config qconf;
	struct disk_alloc_root meta_alloc[2];
	struct disk_alloc_root data_alloc;
	struct disk_alloc_list_head server_meta_avail[2];
	struct disk_alloc_list_head server_meta_freed[2];
	struct disk_btree_root fs_root;
	struct disk_btree_root logs_root;
	struct disk_btree_root log_merge;
	struct disk_btree_root mounted_clients;
	struct disk_btree_root srch_root;
	struct disk_volume_options volopt;
	uint8_t unused[SMALL_SIZE - 1488];
};
static_assert(sizeof(struct disk_super) == SMALL_SIZE, "5.1");
static_assert(offsetof(struct disk_super, qconf) == 112, "5.1");
static_assert(offsetof(struct disk_super, meta_alloc) == 600, "5.1");
static_assert(offsetof(struct disk_super, server_meta_avail) == 720, "5.1");
static_assert(offsetof(struct disk_super, fs_root) == 848, "5.1");
static_assert(offsetof(struct disk_super, srch_root) == 944, "5.1");
static_assert(offsetof(struct disk_super, volopt) == 968, "5.1");
static_assert(offsetof(struct disk_super, unused) == 1488, "5.1");

/* 6.1 */
enum quorum_event_kind {
	QUORUM_EVENT_BEGIN,
	QUORUM_EVENT_TERM,
	QUORUM_EVENT_ELECT,
	QUORUM_EVENT_FENCE,
	QUORUM_EVENT_STOP,
	QUORUM_EVENT_END,
	QUORUM_EVENTS_NR,
};

struct disk_quorum_event {
	le64 write_nr;
	le64 rid;
	le64 term;
	struct disk_timespec ts;
};
static_assert(sizeof(struct disk_quorum_event) == 40, "6.1");

struct disk_quorum_block {
	struct disk_header hdr;
	le64 write_nr;
	struct disk_quorum_event events[QUORUM_EVENTS_NR];
	uint8_t unused[SMALL_SIZE - 280];
};
static_assert(sizeof(struct disk_quorum_block) == SMALL_SIZE, "6.1");
static_assert(offsetof(struct disk_quorum_block, events) == 40, "6.1");

/* 7.1; the order is in key/key.h */
struct disk_key {
	le64 first;
	le64 second;
	le64 third;
	uint8_t fourth;
	uint8_t zone;
	uint8_t type;
	uint8_t pad[5];
};
static_assert(sizeof(struct disk_key) == 32, "7.1");

/* 7.3 */
enum zone {
	ZONE_INODE_INDEX	= 4,
	ZONE_ORPHAN		= 8,
	ZONE_QUOTA		= 10,
	ZONE_XATTR_TOTL		= 12,
	ZONE_XATTR_INDX		= 14,
	ZONE_FS			= 16,
	ZONE_LOCK		= 20,
	ZONE_LOG_TREES		= 24,
	ZONE_MOUNTED_CLIENT	= 28,
	ZONE_SRCH		= 32,
	ZONE_FREE_BY_BLKNO	= 36,
	ZONE_FREE_BY_ORDER	= 40,
	ZONE_MERGE_STATUS	= 44,
	ZONE_MERGE_RANGE	= 48,
	ZONE_MERGE_REQUEST	= 52,
	ZONE_MERGE_COMPLETE	= 56,
	ZONE_MERGE_FREEING	= 60,
};

/* 7.4 */
#define TYPE_INDEX_META_SEQ	4
#define TYPE_INDEX_DATA_SEQ	8
#define TYPE_ORPHAN		4
#define TYPE_QUOTA_RULE		4
#define TYPE_INODE		4
#define TYPE_XATTR		8
#define TYPE_DIRENT		12
#define TYPE_READDIR		16
#define TYPE_LINK_BACKREF	20
#define TYPE_SYMLINK		24
#define TYPE_DATA_EXTENT	28
#define TYPE_LOCK_RENAME	4
#define TYPE_SRCH_LOG		4
#define TYPE_SRCH_SORTED	8
#define TYPE_SRCH_PENDING	12
#define TYPE_SRCH_BUSY		16

/* 9 */
#define ITEM_VAL_MAX		896u
#define BTREE_HEIGHT_MAX	20u
#define BTREE_HASH_BUCKETS	1512u
#define BTREE_HASH_OFFSET	62512u
#define BTREE_USABLE_BYTES	65488u
#define BTREE_SPLIT_PERCENT	80u
#define BTREE_LWM_BYTES		16372u

struct disk_avl_node {
	le16 parent;
	le16 left;
	le16 right;
	uint8_t height;
	uint8_t pad;
};
static_assert(sizeof(struct disk_avl_node) == 8, "9.2");

#define ITEM_FLAG_DELETION	1u

struct disk_btree_item {
	struct disk_avl_node node;
	struct disk_key key;
	le64 seq;
	le16 val_off;
	le16 val_len;
	uint8_t flags;
	uint8_t pad[3];
};
static_assert(sizeof(struct disk_btree_item) == 56, "9.2");

struct disk_btree_block {
	struct disk_header hdr;
	le16 item_root;
	le16 nr_items;
	le16 total_item_bytes;
	le16 mid_free_len;
	uint8_t level;
	uint8_t pad[7];
	struct disk_btree_item items[];
};
static_assert(sizeof(struct disk_btree_block) == 48, "9.1");

/* 10.2 */
#define ALLOC_LIST_ENTRIES	8185u

struct disk_alloc_list_block {
	struct disk_header hdr;
	struct disk_block_ref next;
	le32 start;
	le32 nr;
	le64 blknos[ALLOC_LIST_ENTRIES];
};
static_assert(sizeof(struct disk_alloc_list_block) == LARGE_SIZE, "10.2");

#define DATA_AVAIL_LOW		262144ull	/* blocks, 10.5 */
#define DATA_AVAIL_TARGET	1048576ull

/* 11.4 */
#define BLOOM_BITS		523968u
#define BLOOM_HASHES		3u
#define BLOOM_HASH_SHIFT	19

struct disk_bloom_block {
	struct disk_header hdr;
	le64 total_set;
	uint8_t bits[LARGE_SIZE - 40];
};
static_assert(sizeof(struct disk_bloom_block) == LARGE_SIZE, "11.4");

/* 13 */
struct disk_srch_entry {
	le64 hash;
	le64 ino;
	le64 id;
};
static_assert(sizeof(struct disk_srch_entry) == 24, "13.1");

struct disk_srch_file {
	struct disk_srch_entry first;
	struct disk_srch_entry last;
	struct disk_block_ref ref;
	le64 blocks;
	le64 entries;
	uint8_t height;
	uint8_t pad[7];
};
static_assert(sizeof(struct disk_srch_file) == 88, "13.1");

#define SRCH_PARENT_REFS	4094u
#define SRCH_LEAF_BYTES		65424u
#define SRCH_LAST_START		65398u
#define SRCH_ENTRY_MAX_BYTES	26u
#define SRCH_LOG_ROTATE_BLOCKS	16u
#define SRCH_COMPACT_INPUTS	4u

struct disk_srch_parent {
	struct disk_header hdr;
	struct disk_block_ref refs[SRCH_PARENT_REFS];
};
static_assert(sizeof(struct disk_srch_parent) == LARGE_SIZE, "13.2");

struct disk_srch_block {
	struct disk_header hdr;
	struct disk_srch_entry first;
	struct disk_srch_entry last;
	struct disk_srch_entry tail;
	le32 entry_nr;
	le32 entry_bytes;
	uint8_t entries[SRCH_LEAF_BYTES];
};
static_assert(sizeof(struct disk_srch_block) == LARGE_SIZE, "13.3");

#define SRCH_COMPACT_LOG	1u
#define SRCH_COMPACT_SORTED	2u
#define SRCH_COMPACT_DELETE	4u
#define SRCH_COMPACT_DONE	16u
#define SRCH_COMPACT_ERROR	32u

struct disk_srch_compact_input {
	struct disk_srch_file file;
	le64 blk;
	le64 pos;
};
static_assert(sizeof(struct disk_srch_compact_input) == 104, "13.6");

struct disk_srch_compact {
	struct disk_alloc_list_head meta_avail;
	struct disk_alloc_list_head meta_freed;
	le64 id;
	uint8_t nr;
	uint8_t flags;
	uint8_t pad[6];
	struct disk_srch_file out;
	struct disk_srch_compact_input in[SRCH_COMPACT_INPUTS];
};
static_assert(sizeof(struct disk_srch_compact) == 584, "13.6");

/* 11.1 */
#define LOG_TREES_FLAG_FINALIZED	1ull

struct disk_log_trees {
	struct disk_alloc_list_head meta_avail;
	struct disk_alloc_list_head meta_freed;
	struct disk_btree_root item_root;
	struct disk_block_ref bloom_ref;
	struct disk_alloc_root data_avail;
	struct disk_alloc_root data_freed;
	struct disk_srch_file srch_file;
	le64 data_alloc_zone_blocks;
	le64 data_alloc_zones[DATA_ALLOC_ZONES_MAX / 64];
	le64 inode_count_delta;
	le64 get_trans_seq;
	le64 commit_trans_seq;
	le64 max_item_seq;
	le64 finalize_seq;
	le64 rid;
	le64 nr;
	le64 flags;
};
static_assert(sizeof(struct disk_log_trees) == 472, "11.1");
static_assert(offsetof(struct disk_log_trees, inode_count_delta) == 408, "11.1");
static_assert(offsetof(struct disk_log_trees, flags) == 464, "11.1");

/* 12.1 */
#define ROOT_INO		1ull
#define FIRST_INO		1024ull
#define INODE_LOCK_GROUP	1024ull
#define SEQ_LOCK_GROUP		1024ull
#define LINK_MAX_NR		0x7fffffffu	/* 2^31-1 */

#define INODE_FLAG_TRUNCATE	1u
#define INODE_FLAG_RETENTION	2u

struct disk_inode {
	le64 size;
	le64 meta_seq;
	le64 data_seq;
	le64 data_version;
	le64 online_blocks;
	le64 offline_blocks;
	le64 next_readdir_pos;
	le64 next_xattr_id;
	le64 version;
	le32 nlink;
	le32 uid;
	le32 gid;
	le32 mode;
	le32 rdev;		/* major << 20 | minor */
	le32 flags;
	struct disk_timespec atime;
	struct disk_timespec ctime;
	struct disk_timespec mtime;
	struct disk_timespec crtime;
	le64 proj;		/* version 2 */
};
#define INODE_V1_BYTES	160u
#define INODE_V2_BYTES	168u
static_assert(sizeof(struct disk_inode) == INODE_V2_BYTES, "12.1");
static_assert(offsetof(struct disk_inode, nlink) == 72, "12.1");
static_assert(offsetof(struct disk_inode, proj) == INODE_V1_BYTES, "12.1");

/* 12.4 */
#define NAME_MAX_BYTES		255u
#define DIRENT_FIRST_POS	2ull
#define DIRENT_LAST_POS		(UINT64_MAX - 1)

enum dirent_type { DIRENT_FIFO, DIRENT_CHR, DIRENT_DIR, DIRENT_BLK, DIRENT_REG, DIRENT_LNK,
		   DIRENT_SOCK, DIRENT_WHT };

struct disk_dirent {
	le64 ino;
	le64 hash;
	le64 pos;
	uint8_t type;
	uint8_t pad[7];
	uint8_t name[];		/* to the end of the value, no terminator */
};
static_assert(sizeof(struct disk_dirent) == 32, "12.4");

/* 12.5 */
#define SYMLINK_MAX_BYTES	4096u		/* with the terminating NUL */

/* 12.6 */
#define XATTR_NAME_MAX_BYTES	255u
#define XATTR_VALUE_MAX_BYTES	65535u
#define XATTR_PARTS_MAX		74u

struct disk_xattr {
	le16 val_len;
	uint8_t name_len;
	uint8_t pad[5];
	uint8_t name[];		/* then the value */
};
static_assert(sizeof(struct disk_xattr) == 8, "12.6");

/* 12.8 */
struct disk_xattr_total {
	le64 total;
	le64 count;
};
static_assert(sizeof(struct disk_xattr_total) == 16, "12.8");

/* 12.10 */
struct disk_quota_rule {
	le64 name_val[3];
	le64 limit;
	uint8_t prio;
	uint8_t op;
	uint8_t rule_flags;
	uint8_t name_source[3];
	uint8_t name_flags[3];
	uint8_t pad[7];
};
static_assert(sizeof(struct disk_quota_rule) == 48, "12.10");

/* 12.11 */
#define EXTENT_FLAG_OFFLINE	1u
#define EXTENT_FLAG_UNWRITTEN	2u
#define IBLOCK_MAX		((1ull << 52) - 1)

struct disk_extent {
	le64 blkno;
	uint8_t flags;
	uint8_t pad[7];
};
static_assert(sizeof(struct disk_extent) == 16, "12.11");

/* 14.1 */
struct disk_merge_status {
	struct disk_key next_range_key;
	le64 nr_requests;
	le64 nr_complete;
	le64 seq;
};
static_assert(sizeof(struct disk_merge_status) == 56, "14.1");

struct disk_merge_range {
	struct disk_key start;
	struct disk_key end;
};
static_assert(sizeof(struct disk_merge_range) == 64, "14.1");

#define MERGE_REQUEST_SUBTREE	1ull

struct disk_merge_request {
	struct disk_alloc_list_head meta_avail;
	struct disk_alloc_list_head meta_freed;
	struct disk_btree_root logs_root;
	struct disk_btree_root root;
	struct disk_key start;
	struct disk_key end;
	le64 input_seq;
	le64 rid;
	le64 seq;
	le64 flags;
};
static_assert(sizeof(struct disk_merge_request) == 208, "14.1");

#define MERGE_COMPLETE_ERROR	1ull
#define MERGE_COMPLETE_REMAIN	2ull

struct disk_merge_complete {
	struct disk_alloc_list_head meta_avail;
	struct disk_alloc_list_head meta_freed;
	struct disk_btree_root root;
	struct disk_key start;
	struct disk_key end;
	struct disk_key remain;
	le64 rid;
	le64 seq;
	le64 flags;
};
static_assert(sizeof(struct disk_merge_complete) == 208, "14.1");

struct disk_merge_freeing {
	struct disk_btree_root root;
	struct disk_key key;
	le64 seq;
};
static_assert(sizeof(struct disk_merge_freeing) == 64, "14.1");

/* 15 */
#define MOUNTED_CLIENT_QUORUM	1u

/*
 * Seven bytes of padding: zero, or junk, from others (21.1).  Ours say with the mark that the mount lives by
 * leases, and how long they are at most: an implementation without leases cannot be waited for.
 */
#define MOUNTED_CLIENT_LEASE	"LS1"

struct disk_mounted_client {
	struct disk_inet_addr addr;
	uint8_t flags;
	uint8_t lease_mark[3];
	le32 lease_ms;
};
static_assert(offsetof(struct disk_mounted_client, lease_ms) == 36, "15");
static_assert(sizeof(struct disk_mounted_client) == 40, "15");

#endif
