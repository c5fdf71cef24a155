/* The operation that writes data of a file: what ops_file.c and mapped.c share. */
#ifndef SCOUTFS_FSD_WRITE_OP_H
#define SCOUTFS_FSD_WRITE_OP_H

#include "busy.h"
#include "content.h"
#include "fuse.h"
#include "pending.h"

#define WRITE_PAGES_MAX		264

struct write_op {
	struct op op;
	struct file_req *rq;
	struct busy busy;			/* until it is answered */
	uint32_t pages[WRITE_PAGES_MAX];	/* the operation's own */
	unsigned pages_nr;
	struct { uint32_t page; uint64_t iblock; } used[WRITE_PAGES_MAX];	/* of them, by this run */
	unsigned used_nr;
	struct write_store { uint32_t page; uint16_t off, len; uint32_t pos; } stores[WRITE_PAGES_MAX];
	unsigned stores_nr;			/* len bytes from pos of the request on belong at off of the page */
	uint64_t offset, len;			/* what this run wrote */
	bool lost;				/* write-back: there were no blocks for a part of it, which is not written */
	bool dropped_suidgid;

	/* From a mapping: mapped.c's. */
	bool is_answered;			/* it is a pending write (pending.h) */
	bool answers_first;			/* it is to become one, though its lock may be had */
	uint64_t pending_id;			/* its row in the item cache */
	struct pending_turn turn;
	struct content *base;			/* what the kernel's pages were before the stores */
	uint8_t *mask;				/* what was stored, by words; NULL: all of it */
	uint64_t stored_len;			/* with a mask: what of the request lies within the file */
};

#endif
