/*
 * The item cache of a mount, in one LMDB environment in the instance's tmpfs: design.md §3, D2, D3;
 * runtime.md 6.6.
 *
 * It holds items (newest version), the key intervals that are completely known (an absent key
 * inside one is certainly absent), and which items are dirty in which generation.  Keys are the
 * sortable 27 bytes.  Who reads or writes an item must hold a use of the lock that covers it
 * (asserted).
 *
 * Inode items (zone 16 type 4) are cached as struct cinode (inode.h), not as their disk bytes:
 * their sequence numbers may still be references to a generation.  reader.c and txn.c convert.
 * Zones 4 (indexes) and 8 (orphans) are never cached: stream.c makes their items of the inodes.
 */
#ifndef SCOUTFS_FSD_ITEMS_H
#define SCOUTFS_FSD_ITEMS_H

#include <lmdb.h>

#include "fsd.h"
#include "key/key.h"

enum items_table {
	TABLE_ITEMS,	/* key27 padded to 32 -> struct item_rec, value padded to 8: both aligned */
	TABLE_RANGES,	/* key27 first -> key27 last (inclusive): known intervals, disjoint */
	TABLE_DIRTY,	/* be64 gen, be64 n -> key27s: items_dirty.c */
	TABLE_META,	/* name -> value: open_gen, committed_gen, ... */
	TABLE_GENS,	/* be64 gen -> le64 trans seq, for resolving references */
	TABLE_POOL,	/* be64 ino, be64 iblock -> pool.c's */
	TABLE_POOL_DIRTY, /* be64 gen, be64 ino, be64 iblock -> nothing */
	TABLE_DAVAIL,	/* be64 start -> le64 len: free data extents of this mount */
	TABLE_DLOG,	/* be64 gen, be64 n -> what happened to data blocks in that generation */
	TABLE_PENDING,	/* be64 id -> a write that is answered and not applied: mapped.c's */
	TABLE_REPLIES,	/* be32 slot -> reply.c's */
	TABLE_ADVISORY,	/* be64 ino, u8 kind, be64 owner -> advisory.c's */
	TABLE_TMPFILES,	/* be64 ino -> nothing: tmpfile.c's */
	TABLES_NR,
};

#define ITEM_REC_DELETED	1u	/* a deletion marker, dirty or not yet dropped */
#define ITEM_REC_PERSISTENT	2u	/* an older version may stand in some tree: needs a marker */
#define ITEM_REC_BAD		4u	/* was malformed when read: whoever asks for it gets -EIO */

struct item_rec {
	uint64_t mark;		/* generation that last wrote it; clean iff committed; 0: as read */
	uint8_t flags;
	uint8_t pad;
	uint16_t len;		/* of the value */
	uint8_t pad2[4];
	uint8_t val[];
};

/* One running transaction: a write transaction or a read snapshot. */
struct op;
struct itx {
	struct fsd *fsd;
	struct op *op;		/* whose; NULL for the engine's own */
	MDB_txn *txn;
	bool write;
	uint64_t open_gen;	/* of this snapshot */
	uint64_t committed_gen;
	uint64_t dirty_bytes;	/* added by this transaction; summed at commit (txn_hold) */
	uint64_t dirty_nr;
	uint64_t dlog_nr;	/* rows of TABLE_DLOG, likewise */
	uint64_t changes;	/* of any table so far: what fails without any has not happened */
	int64_t davail_delta;	/* change of the sum of TABLE_DAVAIL */
	bool has_freed;		/* it gives data blocks back */
	int err;		/* first LMDB error: it will abort with -EIO or park for room */
	/* items.c's: cursors that stay where the last look-up was, for the next one is often near;
	 * the known interval that was found last. */
	MDB_cursor *items_mc, *ranges_mc;
	struct key known_first, known_last;
	bool has_known;
};

/*
 * path: the runtime directory; size: bytes of the map.  Begins empty unless `keep`: then -EIO is for what an earlier
 * process has left and cannot be read, which is removed; with any other error it stays for the next attempt.
 */
int items_open(struct fsd *fsd, const char *path, size_t size, bool keep);
void items_close(struct fsd *fsd);

/* Write transactions exclude each other.  items_commit: 0 or -errno (the transaction is gone). */
int items_begin(struct fsd *fsd, struct op *op, bool write, struct itx *tx);
int items_commit(struct itx *tx);
void items_abort(struct itx *tx);
/* An LMDB error inside tx: notes it and returns what the caller should: OP_PARKED (the operation
 * runs again when there is room), -ENOSPC for the engine's own transactions, or -EIO (logged). */
int items_error(struct itx *tx, int rc, const char *what);
/* Run fn in a write transaction of the engine's own, as often as it takes to find room; 0 or fn's
 * or -EIO. */
int items_run(struct fsd *fsd, int (*fn)(struct itx *tx, void *arg), void *arg);
MDB_dbi items_dbi(const struct itx *tx, enum items_table table);

/*
 * Value bytes valid until the next change in, or the end of, this transaction.
 * -ENOENT: certainly absent.  OP_PARKED: not known; the reader has been asked (op->wait is set).
 */
struct ival {
	struct key key;
	const void *val;
	size_t len;
	uint64_t mark;
	uint8_t flags;
};
int item_get(struct itx *tx, const struct key *key, struct ival *iv);
/* The first item in [key, last], which lie within one lock. */
int item_next(struct itx *tx, const struct key *key, const struct key *last, struct ival *iv);

/* Create or replace; dirty in the open generation.  The key must be known (call item_get first). */
int item_put(struct itx *tx, const struct key *key, const void *val, size_t len);
/* Create what is not there: -EEXIST, or OP_PARKED as item_get. */
int item_insert(struct itx *tx, const struct key *key, const void *val, size_t len);
/* Delete an item; leaves a marker where an older version may exist.  keep_val: the marker
 * keeps the value it had (inode items: txn.c needs their old seqs).  -ENOENT, or OP_PARKED as item_get. */
int item_delete(struct itx *tx, const struct key *key, const void *keep_val, size_t keep_len);
/* Declare [first, last] known: it holds just what is cached of it now (a fresh inode number). */
int items_set_known(struct itx *tx, const struct key *first, const struct key *last);

/*
 * For reader.c: insert what was read for [start, end] where it is not known yet; skips keys that
 * are. The sample was taken for a key of the range before the roots were (the read barrier,
 * runtime 6.6). -EAGAIN: what was read may be older than what the cache has had since: read again
 * from new roots. -ENOSPC: make room first (items_make_room).
 */
struct items_sample { uint64_t committed_gen, drops; };
void items_sample(struct fsd *fsd, const struct key *key, struct items_sample *s);
struct read_item { struct key key; uint16_t len; uint8_t flags; const void *val; };
int items_insert_read(struct itx *tx, const struct items_sample *s, const struct key *start,
		      const struct key *end, const struct read_item *items, size_t nr);
/* The cache is about as full as eviction keeps it: what is not asked for is not worth inserting. */
bool items_is_tight(struct fsd *fsd);
/* For locks.c: forget everything in [start, end]; -EBUSY if something there is dirty. */
int items_drop(struct fsd *fsd, const struct key *start, const struct key *end);
/* Evict clean intervals until the environment is under its low-water mark, if it is above the high
 * one or `now` is set; returns how many records went. */
size_t items_evict(struct fsd *fsd, bool now);
/* Evict or, if that frees nothing, wait for a commit: for threads that may block. */
void items_make_room(struct fsd *fsd);

struct items_dirty { uint64_t bytes, nr, dlog_nr; bool any; };
/*
 * For txn.c.  Close the open generation: *gen is its number, *snap a snapshot that shows it and
 * nothing newer (items_abort ends it).  closed() tells what it has in it, before the next one can
 * be written to. -ENOSPC, -EIO.
 */
int items_close_gen(struct fsd *fsd, uint64_t *gen, struct itx *snap,
		    void (*closed)(void *arg, const struct items_dirty *dirty), void *arg);
/* The open generation: at least that of every transaction whose commit the caller knows of. */
uint64_t items_open_gen(struct fsd *fsd);
/* In tx: everything up to gen is committed; counts from here on in every transaction. */
int items_set_committed(struct itx *tx, uint64_t gen);
/* When an earlier process has left something: count what is dirty in the open generation, and tell
 * txn_touch.  None other may be open. */
int items_recount(struct fsd *fsd);
/* What is dirty: of the open generation, and of the one being committed. */
void items_dirty(struct fsd *fsd, struct items_dirty *open, struct items_dirty *closed);
/* The same inside a transaction: of its open generation and the one before. */
void items_dirty_in(const struct itx *tx, struct items_dirty *open, struct items_dirty *closed);
/* The last generation in which data blocks were given back, as of before the write transaction tx; 0: none. */
uint64_t items_freed_gen(const struct itx *tx);
/* Sum of TABLE_DAVAIL in blocks. */
uint64_t items_davail(struct fsd *fsd);
/* Pages used and available, for status and txn_hold. */
void items_usage(struct fsd *fsd, uint64_t *used_bytes, uint64_t *size_bytes);

#endif
