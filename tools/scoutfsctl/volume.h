/*
 * A volume on two devices (or files) that this program opens itself: for mkfs, print, check and the
 * offline readers.  format.md 2.3, 5.3, 6.2, 18.2.
 */
#ifndef SCOUTFSCTL_VOLUME_H
#define SCOUTFSCTL_VOLUME_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "btree/block.h"
#include "format/format.h"
#include "log/forest.h"

/* One open device. */
struct device {
	const char *path;
	int fd;
	bool is_bdev;
	uint64_t bytes;
	int *claims;		/* descriptors that keep others from using it by another name (in_use.h) */
	unsigned claims_nr;
};

enum device_use {
	DEVICE_PEEK,		/* read what may be in use: no lock (print) */
	DEVICE_READ,		/* shared flock, and O_EXCL on a block device */
	DEVICE_WRITE,		/* exclusive flock, and O_EXCL on a block device */
};

/*
 * Open a device.  On failure the reason (with the holder's pid where it is known) has been said on
 * stderr under `verb`, and a negative errno comes back: -EBUSY in use, also through a loop device.
 */
int device_open(struct device *d, const char *path, enum device_use use, const char *verb);
void device_close(struct device *d);
/* All of it, or a negative errno; a read beyond the end is -EIO. */
int device_read(const struct device *d, uint64_t offset, void *buf, size_t len);

/* A volume; the caller may look at every field and owns none. */
struct volume {
	struct device meta;
	struct device data;		/* fd -1 if opened without one */
	struct disk_super super;	/* of the metadata device */
	uint64_t fsid;
	unsigned fmt_vers;
	struct block_dev dev;		/* reads blocks of the metadata device; writes fail */
	struct block_set *bs;
	struct forest_roots roots;
};

/*
 * Open and check (5.3, 2.3).  data_path may be NULL.  Failures as device_open: said, negative
 * errno.  With DEVICE_PEEK only the metadata super itself is checked and a bad checksum is said, not
 * fatal.
 */
int volume_open(struct volume *v, const char *meta_path, const char *data_path, enum device_use use,
		const char *verb);
void volume_close(struct volume *v);

/* Who may still be using the volume, or did not unmount it (6.2). */
struct volume_holder {
	bool is_slot;		/* a quorum slot, else a mounted client */
	unsigned slot;
	uint64_t rid;
	bool is_elected;	/* it was the leader */
};
#define VOLUME_HOLDERS_MAX 64
struct volume_holders {
	unsigned nr;		/* those in h[]; more may exist */
	bool unreadable;	/* a quorum block or the clients tree could not be read */
	struct volume_holder h[VOLUME_HOLDERS_MAX];
};
/* 0 and nr 0: cleanly unmounted.  A negative errno: nothing could be found out. */
int volume_find_holders(struct volume *v, struct volume_holders *out);
/* The same from an open metadata device and its super alone, without names of mounted clients: for
 * mkfs, which must not rely on the rest. */
int device_find_holders(const struct device *meta, const struct disk_super *super,
			struct volume_holders *out);
/* One line a holder to f, as "not cleanly unmounted: ..." */
void volume_say_holders(FILE *f, const struct volume_holders *hs);

#endif
