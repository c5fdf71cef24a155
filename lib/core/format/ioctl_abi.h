/*
 * The ioctls of a mounted volume that this landing has: interface.md 1.1, 1.2.  An ABI shared with
 * programs we do not build, so the layout is asserted and fields are plain host integers.
 */
#ifndef SCOUTFS_IOCTL_ABI_H
#define SCOUTFS_IOCTL_ABI_H

#include <assert.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define SCOUTFS_IOCTL_MAGIC	0xE8

#define WALK_INDEX_META_SEQ	0
#define WALK_INDEX_DATA_SEQ	1

struct ioc_walk_inodes_entry {
	uint64_t major;
	uint64_t ino;
	uint32_t minor;
	uint8_t pad[4];
};
static_assert(sizeof(struct ioc_walk_inodes_entry) == 24, "1.2");

struct ioc_walk_inodes {
	struct ioc_walk_inodes_entry first;
	struct ioc_walk_inodes_entry last;
	uint64_t entries_ptr;
	uint32_t nr_entries;
	uint8_t index;
	uint8_t pad[11];
};
static_assert(sizeof(struct ioc_walk_inodes) == 72, "1.2");
#define SCOUTFS_IOC_WALK_INODES	_IOW(SCOUTFS_IOCTL_MAGIC, 1, struct ioc_walk_inodes)
static_assert(SCOUTFS_IOC_WALK_INODES == 0x4048E801, "1.1");

struct ioc_ino_path {
	uint64_t ino;
	uint64_t dir_ino;
	uint64_t dir_pos;
	uint64_t result_ptr;
	uint16_t result_bytes;
	uint8_t pad[6];
};
static_assert(sizeof(struct ioc_ino_path) == 40, "1.2");
#define SCOUTFS_IOC_INO_PATH	_IOW(SCOUTFS_IOCTL_MAGIC, 2, struct ioc_ino_path)
static_assert(SCOUTFS_IOC_INO_PATH == 0x4028E802, "1.1");

struct ioc_ino_path_result {
	uint64_t dir_ino;
	uint64_t dir_pos;
	uint16_t path_bytes;	/* with the NUL */
	uint8_t pad[6];
	char path[];
};
static_assert(sizeof(struct ioc_ino_path_result) == 24, "1.2");

struct ioc_stat_more {
	uint64_t meta_seq;
	uint64_t data_seq;
	uint64_t data_version;
	uint64_t online_blocks;
	uint64_t offline_blocks;
	uint64_t crtime_sec;
	uint32_t crtime_nsec;
	uint8_t pad[4];
};
static_assert(sizeof(struct ioc_stat_more) == 56, "1.2");
#define SCOUTFS_IOC_STAT_MORE	_IOR(SCOUTFS_IOCTL_MAGIC, 5, struct ioc_stat_more)
static_assert(SCOUTFS_IOC_STAT_MORE == 0x8038E805, "1.1");

struct ioc_listxattr_hidden {
	uint64_t id_pos;
	uint64_t buf_ptr;
	uint32_t buf_bytes;
	uint32_t hash_pos;
};
static_assert(sizeof(struct ioc_listxattr_hidden) == 24, "1.2");
#define SCOUTFS_IOC_LISTXATTR_HIDDEN _IOWR(SCOUTFS_IOCTL_MAGIC, 8, struct ioc_listxattr_hidden)
static_assert(SCOUTFS_IOC_LISTXATTR_HIDDEN == 0xC018E808, "1.1");

struct ioc_statfs_more {
	uint64_t fsid;
	uint64_t rid;
	uint64_t committed_seq;
	uint64_t total_meta_blocks;
	uint64_t total_data_blocks;
	uint64_t reserved_meta_blocks;
};
static_assert(sizeof(struct ioc_statfs_more) == 48, "1.2");
#define SCOUTFS_IOC_STATFS_MORE	_IOR(SCOUTFS_IOCTL_MAGIC, 10, struct ioc_statfs_more)
static_assert(SCOUTFS_IOC_STATFS_MORE == 0x8030E80A, "1.1");

struct ioc_inode_attr_x {
	uint64_t x_mask;
	uint64_t x_flags;
	uint64_t meta_seq;
	uint64_t data_seq;
	uint64_t data_version;
	uint64_t online_blocks;
	uint64_t offline_blocks;
	uint64_t ctime_sec;
	uint32_t ctime_nsec;
	uint32_t crtime_nsec;
	uint64_t crtime_sec;
	uint64_t size;
	uint64_t bits;
	uint64_t project_id;
};
static_assert(sizeof(struct ioc_inode_attr_x) == 104, "1.2");
#define SCOUTFS_IOC_GET_ATTR_X	_IOW(SCOUTFS_IOCTL_MAGIC, 18, struct ioc_inode_attr_x)
static_assert(SCOUTFS_IOC_GET_ATTR_X == 0x4068E812, "1.1");

/*
 * Native forms (interface 1.5.2): the upstream number | 0x80, no pointers; the array follows the
 * header in the same buffer, and an answer is cut to what it has.  Privileges are upstream's.
 */
#define SCOUTFS_NATIVE_BYTES	16376u
#define SCOUTFS_IOC_NATIVE(nr) \
	_IOC(_IOC_READ | _IOC_WRITE, SCOUTFS_IOCTL_MAGIC, 0x80 | (nr), SCOUTFS_NATIVE_BYTES)

struct ioc_walk_inodes_n {
	struct ioc_walk_inodes_entry first;
	struct ioc_walk_inodes_entry last;
	uint32_t nr_entries;		/* in: at most, 0 as many as fit; out: how many follow */
	uint8_t index;
	uint8_t is_end;			/* out: nothing in [first, last] comes behind them */
	uint8_t pad[2];
	struct ioc_walk_inodes_entry entries[];
};
static_assert(sizeof(struct ioc_walk_inodes_n) == 56, "1.5.2");
#define SCOUTFS_IOC_WALK_INODES_N SCOUTFS_IOC_NATIVE(1)
static_assert(SCOUTFS_IOC_WALK_INODES_N == 0xFFF8E881, "1.5.2");

struct ioc_ino_path_n {
	uint64_t ino;
	uint64_t dir_ino;
	uint64_t dir_pos;
	uint64_t result_bytes;		/* out: of the ioc_ino_path_result that follows */
	uint8_t pad[8];
};
static_assert(sizeof(struct ioc_ino_path_n) == 40, "1.5.2");
#define SCOUTFS_IOC_INO_PATH_N	SCOUTFS_IOC_NATIVE(2)
static_assert(SCOUTFS_IOC_INO_PATH_N == 0xFFF8E882, "1.5.2");

struct ioc_listxattr_hidden_n {
	uint64_t id_pos;
	uint64_t bytes;			/* out: of names that follow */
	uint32_t hash_pos;
	uint8_t pad[4];
};
static_assert(sizeof(struct ioc_listxattr_hidden_n) == 24, "1.5.2");
#define SCOUTFS_IOC_LISTXATTR_HIDDEN_N SCOUTFS_IOC_NATIVE(8)

#define SCOUTFS_IOC_GET_ATTR_X_N _IOWR(SCOUTFS_IOCTL_MAGIC, 0x80 | 18, struct ioc_inode_attr_x)
static_assert(SCOUTFS_IOC_GET_ATTR_X_N == 0xC068E892, "1.5.2");

#define ATTR_X_META_SEQ		0x001u
#define ATTR_X_DATA_SEQ		0x002u
#define ATTR_X_DATA_VERSION	0x004u
#define ATTR_X_ONLINE_BLOCKS	0x008u
#define ATTR_X_OFFLINE_BLOCKS	0x010u
#define ATTR_X_CTIME		0x020u
#define ATTR_X_CRTIME		0x040u
#define ATTR_X_SIZE		0x080u
#define ATTR_X_RETENTION	0x100u
#define ATTR_X_PROJECT_ID	0x200u
#define ATTR_X_ALL		0x3ffu
#define ATTR_X_FLAG_SIZE_OFFLINE 1u
#define ATTR_X_BIT_RETENTION	1u

/* Upstream's other numbers; this version refuses them with EOPNOTSUPP. */
#define SCOUTFS_IOC_RELEASE		0x4018E803u
#define SCOUTFS_IOC_STAGE		0x4020E804u
#define SCOUTFS_IOC_DATA_WAITING	0x4028E806u
#define SCOUTFS_IOC_SETATTR_MORE	0x4030E807u
#define SCOUTFS_IOC_SEARCH_XATTRS	0x4038E809u
#define SCOUTFS_IOC_DATA_WAIT_ERR	0x4030E80Bu
#define SCOUTFS_IOC_ALLOC_DETAIL	0x4010E80Cu
#define SCOUTFS_IOC_MOVE_BLOCKS		0x4030E80Du
#define SCOUTFS_IOC_RESIZE_DEVICES	0x4010E80Eu
#define SCOUTFS_IOC_READ_XATTR_TOTALS	0x4028E80Fu
#define SCOUTFS_IOC_GET_ALLOCATED_INOS	0x4018E810u
#define SCOUTFS_IOC_GET_REFERRING_ENTRIES 0x4028E811u
#define SCOUTFS_IOC_SET_ATTR_X		0x4068E813u
#define SCOUTFS_IOC_GET_QUOTA_RULES	0x8020E814u
#define SCOUTFS_IOC_ADD_QUOTA_RULE	0x4030E815u
#define SCOUTFS_IOC_DEL_QUOTA_RULE	0x4030E816u
#define SCOUTFS_IOC_READ_XATTR_INDEX	0x8048E817u
#define SCOUTFS_IOC_PUNCH_OFFLINE	0x4020E818u
#define SCOUTFS_IOC_INJECT_TOTL_DELTA	0x4028E819u

#endif
