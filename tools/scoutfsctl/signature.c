/*
 * The marks by which blkid and friends know a device's contents, so that mkfs can refuse to destroy
 * them.  A table of bytes at places; a place below zero is counted from the end of the device.  A
 * false alarm costs an operator one -f, a miss costs them their data, so a mark is taken at its
 * word.
 */
#include "tools/scoutfsctl/signature.h"

#include <string.h>

struct mark {
	const char *name;
	int64_t offset;
	const char *bytes;
	size_t len;
};

#define MARK(name, offset, text) { name, offset, text, sizeof(text) - 1 }

static const struct mark marks[] = {
	MARK("a scoutfs volume", 65536 + 4, "\x8b\x42\x3c\x10"),
	MARK("an xfs file system", 0, "XFSB"),
	MARK("an ext2, ext3 or ext4 file system", 1024 + 56, "\x53\xef"),
	MARK("a btrfs file system", 65536 + 64, "_BHRfS_M"),
	MARK("a gfs2 file system", 65536, "\x01\x16\x19\x70"),
	MARK("an f2fs file system", 1024, "\x10\x20\xf5\xf2"),
	MARK("an ocfs2 file system", 2 * 4096, "OCFSV2"),
	MARK("an NTFS file system", 3, "NTFS    "),
	MARK("an exFAT file system", 3, "EXFAT   "),
	MARK("a squashfs file system", 0, "hsqs"),
	MARK("an erofs file system", 1024, "\xe2\xe1\xf5\xe0"),
	MARK("an ISO 9660 file system", 32769, "CD001"),
	MARK("a bcache or bcachefs device", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
	MARK("a bcachefs file system", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
	MARK("a reiserfs file system", 65536 + 52, "ReIsEr"),
	MARK("a jfs file system", 32768, "JFS1"),
	MARK("a nilfs2 file system", 1024 + 6, "\x34\x34"),
	MARK("a minix file system", 1024 + 16, "\x7f\x13"),
	MARK("a minix file system", 1024 + 16, "\x8f\x13"),
	MARK("a minix file system", 1024 + 16, "\x68\x24"),
	MARK("a minix file system", 1024 + 16, "\x78\x24"),
	MARK("a minix file system", 1024 + 24, "\x5a\x4d"),
	MARK("a cramfs file system", 0, "\x45\x3d\xcd\x28"),
	MARK("a romfs file system", 0, "-rom1fs-"),
	MARK("a BFS file system", 0, "\xce\xfa\xad\x1b"),
	MARK("a UBIFS file system", 0, "\x31\x18\x10\x06"),
	MARK("a zonefs file system", 0, "SFOZ"),
	MARK("an HFS file system", 1024, "BD"),
	MARK("an HFS+ file system", 1024, "H+\0\x04"),
	MARK("an HFS+ file system", 1024, "HX\0\x05"),
	MARK("an APFS container", 32, "NXSB"),
	MARK("a UDF file system", 32769, "BEA01"),
	MARK("a UFS file system", 8192 + 1372, "\x54\x19\x01\x00"),
	MARK("a UFS file system", 65536 + 1372, "\x19\x01\x54\x19"),
	MARK("a VMFS file system", 0x200000, "\x5e\xf1\xab\x2f"),
	MARK("a VMFS volume member", 0x100000, "\x0d\xd0\x01\xc0"),
	MARK("a LUKS volume", 0, "LUKS\xba\xbe"),
	MARK("a LUKS volume", 16384, "SKUL\xba\xbe"),
	MARK("an LVM physical volume", 0, "LABELONE"),
	MARK("an LVM physical volume", 512, "LABELONE"),
	MARK("an LVM physical volume", 1024, "LABELONE"),
	MARK("an LVM physical volume", 1536, "LABELONE"),
	MARK("a BitLocker volume", 3, "-FVE-FS-"),
	MARK("an LVM1 physical volume", 0, "HM\x01\0"),
	MARK("an LVM1 physical volume", 0, "HM\x02\0"),
	MARK("an LVM snapshot", 0, "SnAp"),
	MARK("a VDO volume", 0, "dmvdo001"),
	MARK("a Stratis device", 512 + 4, "!Stra0tis\x86\xff\x02^\x41rh"),
	MARK("an Oracle ASM disk", 32, "ORCLDISK"),
	MARK("a Ceph bluestore device", 0, "bluestore block device"),
	MARK("a software RAID member", 0, "\xfc\x4e\x2b\xa9"),
	MARK("a software RAID member", 4096, "\xfc\x4e\x2b\xa9"),
	MARK("a firmware RAID member", -1024, "Intel Raid ISM Cfg"),
	MARK("a firmware RAID member", -512, "\xde\x11\xde\x11"),
	MARK("a firmware RAID member", -512, "\x11\xde\x11\xde"),
	MARK("a DRBD device", -4096 + 60, "\x83\x74\x02"),
	MARK("swap space", 4096 - 10, "SWAPSPACE2"),
	MARK("swap space", 4096 - 10, "SWAP-SPACE"),
	MARK("swap space", 16384 - 10, "SWAPSPACE2"),
	MARK("swap space", 65536 - 10, "SWAPSPACE2"),
	MARK("a hibernated system", 4096 - 10, "S1SUSPEND"),
	MARK("a GPT partition table", 512, "EFI PART"),
	MARK("a GPT partition table", 4096, "EFI PART"),
	MARK("a GPT partition table", -512, "EFI PART"),
	MARK("a GPT partition table", -4096, "EFI PART"),
	MARK("a partition table or a boot sector", 510, "\x55\xaa"),
};

/* Software RAID keeps its superblock near the end in versions 0.90 and 1.0. */
static int find_raid_at_end(const struct device *d, const char **name)
{
	const uint64_t at[2] = {
		(d->bytes & ~(uint64_t)65535) - 65536,
		((d->bytes >> 9) - 16) / 8 * 8 << 9,
	};
	uint8_t magic[4];
	int ret;

	if (d->bytes < 131072)
		return 0;
	for (unsigned i = 0; i < 2; i++) {
		ret = device_read(d, at[i], magic, sizeof(magic));
		if (ret < 0)
			return ret;
		if (memcmp(magic, "\xfc\x4e\x2b\xa9", 4) == 0) {
			*name = "a software RAID member";
			return 1;
		}
	}
	return 0;
}

/* ZFS labels hold 128 uberblocks of 1 KiB from 128 KiB on; any of them may be the used one. */
static int find_zfs(const struct device *d, const char **name)
{
	static uint8_t ring[131072];
	int ret;

	if (d->bytes < 2 * sizeof(ring))
		return 0;
	ret = device_read(d, sizeof(ring), ring, sizeof(ring));
	if (ret < 0)
		return ret;
	for (size_t at = 0; at < sizeof(ring); at += 1024) {
		if (memcmp(ring + at, "\x0c\xb1\xba\0\0\0\0\0", 8) == 0 ||
		    memcmp(ring + at, "\0\0\0\0\0\xba\xb1\x0c", 8) == 0) {
			*name = "a ZFS pool member";
			return 1;
		}
	}
	return 0;
}

int signature_find(const struct device *d, const char **name)
{
	uint8_t buf[32];
	int ret;

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		const struct mark *m = &marks[i];
		uint64_t back = m->offset < 0 ? (uint64_t)-m->offset : 0;
		uint64_t at = m->offset < 0 ? d->bytes - back : (uint64_t)m->offset;

		if (m->offset < 0 ? d->bytes < back : d->bytes < at + m->len)
			continue;
		ret = device_read(d, at, buf, m->len);
		if (ret < 0)
			return ret;
		if (memcmp(buf, m->bytes, m->len) == 0) {
			*name = m->name;
			return 1;
		}
	}
	ret = find_raid_at_end(d, name);
	return ret ? ret : find_zfs(d, name);
}
