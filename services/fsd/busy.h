/*
 * What the kernel has asked of a file's data and has no answer to: which pages that keeps locked, and which bytes
 * a write(2) has put into the page cache already.  busy.c says what for.
 */
#ifndef SCOUTFS_FSD_BUSY_H
#define SCOUTFS_FSD_BUSY_H

#include <stdbool.h>
#include <stdint.h>

struct op;

enum busy_kind {
	BUSY_READ,
	BUSY_DIRECT,	/* a read of a descriptor with O_DIRECT */
	BUSY_WRITE,	/* write(2) */
	BUSY_PAST,	/* write(2) of a descriptor whose writes never come through the page cache */
	BUSY_BACK,	/* the kernel writes back what was stored to a mapping */
};

/* A request; embedded in its operation, which owns it and everything it points to. */
struct busy {
	struct busy *next;
	enum busy_kind kind;
	uint64_t ino, offset, len;
	uint64_t since_ns;
	const uint8_t *data;	/* BUSY_WRITE: what is written */
	bool is_locked;		/* BUSY_WRITE: its last page has turned out to be; BUSY_DIRECT: its pages have */
};

struct busy_pages {
	uint64_t first, last;
	bool maybe;		/* or not */
};

/* From before the operation starts until before its answer. */
void busy_begin(struct busy *b, enum busy_kind kind, uint64_t ino, uint64_t offset, uint64_t len, const void *data);
void busy_end(struct busy *b);

/*
 * The pages of ino that such requests keep locked, in order, apart from each other; they go to *out, which is the caller's
 * to free, and their number is returned; or -ENOMEM.
 */
int busy_pages(uint64_t ino, struct busy_pages **out);
/*
 * Dropping pages of ino takes its time: whether one that may keep some locked has begun at since_ns or later, or, if the kernel's
 * requests are `all_read`, a direct read must be it, which is noted.
 */
bool busy_has_begun(uint64_t ino, uint64_t since_ns, bool all_read);
/*
 * Dropping that page, which is there `maybe`, takes its time.  True: because a write has it locked, which is noted; false: it is
 * being written back.
 */
bool busy_found_locked(uint64_t ino, uint64_t page);
/* For run() of the read that b is: OP_PARKED while there are writes of its pages, else 0.  Its uses are given up meanwhile. */
int busy_wait_writes(struct op *op, struct busy *b);
/* Call each() for every BUSY_WRITE of ino; it borrows b and must not wait. */
void busy_each_write(uint64_t ino, void (*each)(void *arg, const struct busy *b), void *arg);

#endif
