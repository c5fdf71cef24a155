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

#endif
