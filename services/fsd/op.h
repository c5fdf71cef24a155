/*
 * Operations: design.md D2.  An operation is a function over one LMDB transaction that either has
 * all it needs, or names what it waits for; then the transaction aborts, nothing has happened, the
 * operation is parked and later runs again from its start.
 */
#ifndef SCOUTFS_FSD_OP_H
#define SCOUTFS_FSD_OP_H

#include <errno.h>

#include "fsd.h"
#include "items.h"

#define OP_PARKED	(-EINPROGRESS)	/* run(): op->wait is set; abort, wait, run again */
#define OP_MORE		1	/* run(): commit this much, run again at once in a new transaction */

#define OP_LOCKS_MAX	12

struct op;
struct lock;

/* bit 63 of a request's number: the kernel has sent it before, to a process that did not answer */
#define FUSE_UNIQUE_SENT_AGAIN	(1ull << 63)

/* What is needed to answer a request that a process before this one has done (reply.h). */
struct op_again {
	/* In the transaction that did it: the one number that its answer is made of; NULL: none. */
	uint64_t (*answer)(const struct op *op);
	/* Instead of op's run(): fetch for done() what op->answer stands for.  NULL: nothing. */
	int (*run)(struct op *op, struct itx *tx);
};
/* Who records answers; all may be absent. */
struct op_answers {
	/* op's answer is decided in tx: 0, or what run() would return. */
	int (*record)(struct itx *tx, struct op *op);
	/* It has been written. */
	void (*answered)(struct fsd *fsd, uint32_t reply_slot);
};

/* A lock that an operation has named: locks.c's. */
struct lock_use {
	struct lock *lock;
	uint8_t mode;		/* held now, LOCK_NULL: not at the moment */
	uint8_t want;		/* what the operation needs before it runs again */
};

/*
 * Embedded first in each operation's own struct (with its arguments), made by fuse.c or by
 * background work.  One thread runs it at a time.  The owner frees it in done().
 */
struct op {
	struct fsd *fsd;
	const char *name;		/* for status and logs: "create", "unlink" ... */
	bool writes;			/* runs in a write transaction */

	/* 0, a positive errno-free result, -errno, OP_PARKED or OP_MORE.  Must be restartable: it
	 * keeps nothing from an aborted run but what it re-computes.  Any run may be aborted, whatever it
	 * returned: what only a committed part may leave to the next is to be kept with parts_nr. */
	int (*run)(struct op *op, struct itx *tx);
	/* Called exactly once, after the transaction has committed (err 0 or -errno) and with the
	 * operation's lock uses still held: answer, then free.  Uses are dropped after it returns
	 * (op_finish copies what it needs first, so done() may free op). */
	void (*done)(struct op *op, int err);

	/* Set by whoever returned OP_PARKED: arranges that op_wake(op) is called when it makes
	 * sense to run again (at once, if that is already so).  Called without any transaction or
	 * mutex held. */
	void (*wait)(struct op *op);
	/* Set by wait() where waiting can be given up (a list of its own module): takes op off the
	 * list if it is still on it, and says whether it was. */
	bool (*_Atomic cancel)(struct op *op);
	/* NULL, or called before it waits for a page of the pool: it gives back those that it holds. */
	void (*give_pages)(struct op *op);
	/*
	 * NULL, or what to do when a signal has come for its application, which waits for others and may do so
	 * for ever; a restart does not wait for that.  Set before it starts.
	 */
	void (*signalled)(struct op *op);
	union {
		struct { struct key start; uint8_t mode; } lock;
		struct key items;		/* this key is not known */
		struct { uint64_t ino, iblock, blkno; } page;
		uint64_t gen;
		void *ptr;
	} need;

	struct lock_use uses[OP_LOCKS_MAX];
	unsigned uses_nr;

	/* The kernel's request that it is for (fuse_op_start sets it), 0: none. */
	uint64_t unique;
	const struct op_again *again;
	uint64_t answer;		/* of a process before this one */
	uint32_t reply_slot;		/* reply.c's, from 1 */
	bool is_decided;		/* with OP_MORE: the answer is, though not all is done */

	/* It uses inode_give_begin for what its answer lets the kernel keep; others are taken to give something of all. */
	bool notes_itself;
	/* Until the answer the kernel does not write back what was stored to mappings of this inode; 0: of none. */
	uint64_t keeps_pages;
	/* What the kernel writes back, and a revoke that drops pages waits for: it may use a lock that is being given up. */
	bool is_writeback;
	struct op *next;		/* a queue or wait list it is on */
	uint64_t started_ns;		/* CLOCK_MONOTONIC, for status: who waits since when */
	uint64_t no_space_ns;		/* txn.c's: since when there is no space for the part of it that is to come; 0: there was */

	/* op.c's */
	struct op *parked_prev, *parked_next;
	int err;			/* set by op_fail: ends with it instead of running again */
	unsigned parts_nr;		/* so many parts of it (OP_MORE) are committed; read by run() */
	atomic_bool interrupted;
};

int ops_start(struct fsd *fsd, unsigned workers);
void ops_drain(struct fsd *fsd);	/* waits until nothing runs or is parked */
/*
 * The same, but no longer than that, and for requests between ops_enter and ops_leave, too; all: also for those with a
 * `signalled`.  False: some have no answer yet.
 */
bool ops_drain_for(struct fsd *fsd, unsigned ms, bool all);
/* A request of the kernel is open that is no operation, or not yet, or no longer. */
void ops_enter(struct fsd *fsd);
/* It has its answer, or is one; also when there are no operations any more. */
void ops_leave(struct fsd *fsd);
void ops_stop(struct fsd *fsd);		/* the same, and ends the threads */

/* Run in the calling thread until done or parked. */
void op_start(struct op *op);
/* As op_start, but in a worker: for callers that hold mutexes, or must not block. */
void op_queue(struct op *op);
/* Run (again) in a worker. */
void op_wake(struct op *op);
/* What it waits for cannot be had: it ends with err (-errno), without running again. */
void op_fail(struct op *op, int err);
/*
 * The application was interrupted: end op with -EINTR if it waits, or will wait, and nothing of it
 * is committed yet; otherwise nothing happens.  The caller sees to it that op is not done()
 * meanwhile.
 */
void op_interrupt(struct op *op);
/* Run work(arg) in a worker thread that may block on I/O (not in the same threads as op_wake's). */
void ops_defer(struct fsd *fsd, void (*work)(void *arg), void *arg);

/* For run(): note what is missing and return OP_PARKED. */
static inline int op_park(struct op *op, void (*wait)(struct op *op))
{
	op->wait = wait;
	return -EINPROGRESS;
}

/*
 * While on, no operation begins: whoever would run waits, until it is switched off (its application can be
 * killed meanwhile).  What runs already goes on.
 */
void ops_hold(struct fsd *fsd, bool on);
bool ops_are_held(struct fsd *fsd);

/* How many operations run or are parked. */
unsigned ops_active(struct fsd *fsd);
/* Whether `is` says so of any that is parked; it must not wait. */
bool ops_any_parked(struct fsd *fsd, bool (*is)(const struct op *op, const void *arg), const void *arg);
/* Oldest parked operation, for status: name and age; false if none. */
bool ops_oldest_waiting(struct fsd *fsd, char *what, size_t size, uint64_t *age_ns);

#endif
