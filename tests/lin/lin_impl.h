/*
 * Between the preparation of a history (lin_check.c) and the search (lin_search.c).
 */
#ifndef LIN_IMPL_H
#define LIN_IMPL_H

#include "lin.h"

/* What the search takes one by one.  A lookup and the link count it returned are two: stat(2) is not atomic. */
enum step_kind {
	STEP_CREATE, STEP_MKDIR, STEP_UNLINK, STEP_RMDIR, STEP_RENAME, STEP_LINK, STEP_WRITE, STEP_APPEND,
	STEP_CRASH,			/* all above change something, all below look */
	STEP_LOOKUP,			/* name a is id, ID_NONE or ID_DIR */
	STEP_NLINK,			/* id has v links */
	STEP_PRESENT,			/* name a is there (v) or not */
	STEP_READ, STEP_READLOG,
};

#define ID_NONE		0
#define ID_DIR		1		/* directories are not told from one another */
#define ID_FILES	2

struct step {
	uint64_t start, end;
	enum step_kind kind;
	const struct lin_op *op;	/* NULL: the loss of a mount */
	int err;
	uint8_t a, b;
	uint16_t id;
	uint64_t v, w;
	int crash;			/* of its mount, or -1 */
	bool maybe;			/* may have happened, or not */
	bool any_id;			/* a create without an answer: its inode may be any unknown one */
	bool is_volatile;		/* its mount was lost, and no fsync came in between */
	bool keep, lose;		/* as the cut that is tried says */
	bool zombie;			/* its mount may have been lost already */
	bool weak_same;			/* a rename that may have found both names to be one file */
};

struct object {
	int obj;
	struct step *steps;
	size_t steps_nr, steps_max;
	uint64_t *inos;			/* id - ID_FILES -> inode number */
	uint16_t inos_nr;
	uint16_t *unknown;		/* ids that no create has returned */
	unsigned unknown_nr;
};

enum verdict { VERDICT_FINE, VERDICT_WRONG, VERDICT_UNDECIDED };

/*
 * Is there one order that explains the steps of this object?  What cannot be explained is said on
 * `out` if that is not NULL.
 */
enum verdict lin_search(const struct object *o, size_t *configs_max, FILE *out);

#endif
