/* Quorum blocks in memory, as a device keeps them, for tests of what is done with them. */
#ifndef SCOUTFS_TEST_QUORUM_DISK_H
#define SCOUTFS_TEST_QUORUM_DISK_H

#include <stdint.h>
#include <string.h>

#include "csum/csum.h"
#include "services/quorumd/quorum_slot.h"

#define FSID	0x0123456789abcdefull

struct disk {
	struct disk_quorum_block written[QUORUM_SLOTS_MAX], durable[QUORUM_SLOTS_MAX];
	int read_error, write_error, flush_error;
	unsigned flushes;
};

static inline int disk_read(void *arg, uint64_t blkno, void *buf)
{
	struct disk *d = arg;

	if (d->read_error)
		return d->read_error;
	memcpy(buf, &d->written[blkno - QUORUM_FIRST_BLKNO], SMALL_SIZE);
	return 0;
}

static inline int disk_write(void *arg, uint64_t blkno, const void *buf)
{
	struct disk *d = arg;

	if (d->write_error)
		return d->write_error;
	memcpy(&d->written[blkno - QUORUM_FIRST_BLKNO], buf, SMALL_SIZE);
	return 0;
}

static inline int disk_flush(void *arg)
{
	struct disk *d = arg;

	if (d->flush_error)
		return d->flush_error;
	memcpy(d->durable, d->written, sizeof(d->durable));
	d->flushes++;
	return 0;
}

static inline struct quorum_dev disk_dev(struct disk *d)
{
	return (struct quorum_dev){ d, disk_read, disk_write, disk_flush };
}

static inline void disk_format(struct disk *d)
{
	memset(d, 0, sizeof(*d));
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		struct disk_quorum_block *b = &d->written[i];

		b->hdr.magic = le32_of(MAGIC_QUORUM);
		b->hdr.fsid = le64_of(FSID);
		b->hdr.seq = le64_of(1);
		b->hdr.blkno = le64_of(QUORUM_FIRST_BLKNO + i);
		b->hdr.crc = le32_of(block_crc(b, sizeof(*b)));
	}
	memcpy(d->durable, d->written, sizeof(d->durable));
}

#endif
