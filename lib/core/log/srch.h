/*
 * srch files: which inodes may carry a tagged xattr.  format.md 13, 20.30.
 *
 * Reading and checking of entries, leaf and parent blocks and whole files; encoding of one entry.
 * Blocks are read with block_get, so -ESTALE (start again from fresh roots), -EIO and -ENOMEM can
 * come from every call that takes a block set; -EBADMSG is a block or file that breaks a rule.
 */
#ifndef SCOUTFS_SRCH_H
#define SCOUTFS_SRCH_H

#include "btree/block.h"

struct srch_entry {
	uint64_t hash;
	uint64_t ino;
	uint64_t id;
};

int srch_entry_cmp(const struct srch_entry *a, const struct srch_entry *b);	/* 13.1 */
struct srch_entry srch_entry_get(const struct disk_srch_entry *d);

/* Encode *e after *prev (zeros at the start of a block) into buf; returns 2..26 bytes.  13.4 */
size_t srch_entry_encode(const struct srch_entry *prev, const struct srch_entry *e,
			 uint8_t buf[SRCH_ENTRY_MAX_BYTES]);
/* Decode what follows the entry in *e and put it there; returns the bytes used, or -EBADMSG when
 * len bytes do not hold an entry. */
int srch_entry_decode(const uint8_t *buf, size_t len, struct srch_entry *e);

/* each() returns 0 to go on; anything else ends the call with that value. */
typedef int (*srch_entry_fn)(void *arg, const struct srch_entry *e);

/* Whether a leaf block keeps 13.3: counts, offsets, bounds, tail, and order if it is of a sorted
 * file.  0, or -EBADMSG with *why in words. */
int srch_block_check(const struct disk_srch_block *b, bool sorted, const char **why);
/* The entries of a leaf that passed srch_block_check, in their order. */
int srch_block_each(const struct disk_srch_block *b, srch_entry_fn each, void *arg);

/* The least height for that many leaves (13.1); 0 for none, or for more than any device has. */
unsigned srch_height(uint64_t blocks);
/* Whether the 88 bytes can be a file: height, blocks, bounds, reference.  Absent is fine. */
int srch_file_check(const struct disk_srch_file *sf, const char **why);

/*
 * Visit every block of a file, parents before children, left to right.  err is 0, or why the block
 * could not be read or is malformed (why in words; bl is then NULL and nothing below is visited).
 * visit() returns 0 to go on (below it too), 1 to skip what is below, negative to stop.
 */
struct srch_visit {
	struct block_ref ref;
	unsigned level; /* 0: a leaf, bl->data is a disk_srch_block; else a disk_srch_parent */
	uint64_t leaf;		/* number of the (first) leaf in the file */
	const struct block *bl;
	int err;
	const char *why;
};
typedef int (*srch_visit_fn)(void *arg, const struct srch_visit *v);
int srch_file_visit_blocks(struct block_set *bs, const struct disk_srch_file *sf, bool sorted,
			   srch_visit_fn visit, void *arg);
/* The same for an input of a compaction in DELETE state: only what is not freed yet (13.6). */
int srch_input_visit_unfreed(struct block_set *bs, const struct disk_srch_compact_input *in,
			     bool sorted, srch_visit_fn visit, void *arg);

/* Every entry of a file, in file order; an absent file has none. */
int srch_file_each(struct block_set *bs, const struct disk_srch_file *sf, srch_entry_fn each,
		   void *arg);
/* Read a whole file and hold it against all of 20.30.  0, or the first error with *why in words. */
int srch_file_verify(struct block_set *bs, const struct disk_srch_file *sf, bool sorted,
		     const char **why);

#endif
