/*
 * Histories of operations on a filesystem that several nodes share, and whether one order
 * explains them. The head of lin_check.c says what is promised and what is not.
 */
#ifndef LIN_H
#define LIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What the agent calls them in its log, in this order. */
#define LIN_KINDS(K)											\
	K(CREATE, "create") K(MKDIR, "mkdir") K(UNLINK, "unlink") K(RMDIR, "rmdir") K(RENAME, "rename")	\
	K(LINK, "link") K(STAT, "stat") K(LIST, "list") K(WRITE, "write") K(READ, "read")		\
	K(STORE, "store") K(APPEND, "append") K(READLOG, "readlog") K(SYNC, "sync")

enum lin_kind {
#define LIN_ENUM(k, s) LIN_##k,
	LIN_KINDS(LIN_ENUM)
#undef LIN_ENUM
	LIN_KINDS_NR
};

extern const char *const lin_kind_names[LIN_KINDS_NR];

#define LIN_NODES	16		/* node numbers are below that */
#define LIN_NAMES	8		/* names of one arena: 0-3 in its first directory, 4-7 in its second */
#define LIN_RECORD	16		/* bytes of an appended record */
#define LIN_LOG_MAX	256		/* records of a log that are looked at: one page */
#define LIN_TORN	UINT64_MAX	/* what a read says that found a mixture */
#define LIN_NEVER	UINT64_MAX

/* Objects of a log line: arenas from 0, then registers and logs from these numbers on. */
#define LIN_OBJ_CELL	1000		/* + file * 16 + cell */
#define LIN_OBJ_SIZE	2000
#define LIN_OBJ_MODE	3000
#define LIN_OBJ_XATTR	4000
#define LIN_OBJ_LOG	5000
#define LIN_OBJ_SYNC	6000		/* fsync of anything stores all that a mount has done */

/*
 * One operation as it was recorded.  What a and b are: names of an arena.  v: the value written,
 * or the inode number of a link.  err: errno, 0, or -1 while there is no answer.  r: what a
 * successful one returned: the inode number (create), inode number, link count or 0, is-directory
 * (stat), names seen as bits (list), the value (read), records and their hash (readlog).
 */
struct lin_op {
	uint64_t start, end;
	int node, inc, proc;
	enum lin_kind kind;
	int obj, a, b;
	uint64_t v;
	int err;
	uint64_t r[3];
};

/*
 * A mount that was lost with what it had not committed: its node's power was cut, or it was
 * fenced, at some time in from..to.  A machine that was paused may go on for a moment before it
 * learns that: what its programs begin before `zombie_until` is not held against it (0: no such
 * time).
 */
struct lin_crash {
	int node, inc;
	uint64_t from, to, zombie_until;
};

/* A node whose devices refused requests for a while: its programs may be told EIO meanwhile. */
struct lin_failing {
	int node;
	uint64_t from, to;
};

struct lin_history {
	struct lin_op *ops;
	size_t ops_nr, ops_max;
	struct lin_crash *crashes;
	size_t crashes_nr;
	struct lin_failing *failings;
	size_t failings_nr;
};

struct lin_stats {
	size_t ops, objects, checked, overlapped, undecided, configs_max;
	size_t unanswered, errors;	/* of mounts that were not lost */
	struct lin_op first_error;
	size_t device_errors;		/* of a node whose devices failed just then */
	size_t lost_unanswered, lost_errors;
	uint64_t worst_ns;		/* the longest operation that was answered */
	enum lin_kind worst_kind;
	uint64_t node_worst_ns[LIN_NODES];
};

/* The hash of a log with one more record. */
static inline uint64_t lin_hash(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
	return hash ^ hash >> 29;
}

/*
 * Read the log of one process of a node's incarnation.  0, or -EINVAL after a line on `out` says
 * which line is wrong; a last line that was cut short is left out.
 */
int lin_read_log(struct lin_history *h, FILE *f, int node, int inc, int proc, FILE *out);

/* Read "crash NODE INC FROM TO ZOMBIE_UNTIL" and "failing NODE FROM TO" lines.  0 or -EINVAL, said on `out`. */
int lin_read_events(struct lin_history *h, FILE *f, FILE *out);

/* Release what a history holds. */
void lin_history_fini(struct lin_history *h);

/*
 * How many objects of the history, or cuts of a lost mount, no order explains; each is described
 * on `out`. The history is sorted and otherwise unchanged.
 */
size_t lin_check(struct lin_history *h, struct lin_stats *stats, FILE *out);

#endif
