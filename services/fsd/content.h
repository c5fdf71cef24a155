/* The bytes of a file under its lock, from pool and device: for read(2), and for what is compared with them. */
#ifndef SCOUTFS_FSD_CONTENT_H
#define SCOUTFS_FSD_CONTENT_H

#include "op.h"

#define CONTENT_SEGS_MAX	264	/* a request is at most 257 blocks */

/* A range that comes from the device. */
struct content_seg {
	uint64_t blkno;
	uint32_t at;		/* in the buffer, bytes from its start */
	uint32_t blocks;
};

/* Whole blocks of a file that an operation gathers; it lives as long as the operation. */
struct content {
	struct op *op;
	uint64_t ino, first;	/* block at the start of buf */
	uint8_t *buf;
	struct content_seg segs[CONTENT_SEGS_MAX], have[CONTENT_SEGS_MAX];
	unsigned segs_nr, have_nr;
	bool did_io;
	int io_err;
	bool has_holes;		/* in buf, as last gathered: from and to these blocks */
	uint64_t hole_first, hole_last;
};

/* For bytes [offset, offset + len) of ino; -ENOMEM.  content_fini releases the buffer. */
int content_init(struct content *c, struct op *op, uint64_t ino, uint64_t offset, uint64_t len);
void content_fini(struct content *c);
/*
 * For run(), with a use of ino's lock: make the blocks that hold bytes up to `end` be in buf; what is after the end of the
 * file there is anything.  OP_PARKED while the device is read; -EIO for what cannot be had.
 */
int content_gather(struct content *c, struct itx *tx, uint64_t end);
/* Block b, which comes after all that are noted, is zeroes because nothing is there. */
void content_note_hole(struct content *c, uint64_t b);

#endif
