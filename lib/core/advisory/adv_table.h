/*
 * The advisory locks of one mount's programs, as the mount knows them, and what it has asked for.  Pure.
 *
 * It is what the mount tells a server that has to learn it.  So it never has a lock that the server may have
 * given to somebody else: one is put in when the server's answer has come, and taken out before the server
 * is asked to.  Answers are given to it in the order in which the server made them.
 */
#ifndef SCOUTFS_ADV_TABLE_H
#define SCOUTFS_ADV_TABLE_H

#include <stddef.h>

#include "advisory/adv_ranges.h"

#define ADV_KIND_FLOCK	1u	/* 0: POSIX; the same numbers as on the wire */

struct adv_call;

/* An owner in a file: while it holds something, has asked for something, or is referenced. */
struct adv_entry {
	struct adv_entry *next;
	uint64_t ino, owner;
	uint64_t fh;		/* the open file through which it locked last */
	uint32_t pid;
	uint8_t kind;
	unsigned refs;
	struct adv_ranges ranges;
	struct adv_call *calls;	/* not answered, newest first */
};

/* One request. */
struct adv_call {
	struct adv_call *next;
	struct adv_entry *entry;
	uint64_t number;
	uint64_t first, last;
	uint8_t type;		/* ADV_UNLOCK: gives back */
};

struct adv_table;

int adv_table_open(struct adv_table **out, uint64_t first_number);	/* -ENOMEM */
void adv_table_close(struct adv_table *t);

/* NULL: it holds nothing and has asked for nothing. */
struct adv_entry *adv_table_find(const struct adv_table *t, uint64_t ino, uint8_t kind, uint64_t owner);
/* One that holds something and locked last through fh; NULL: there is none. */
struct adv_entry *adv_table_find_fh(const struct adv_table *t, uint64_t ino, uint64_t fh);
/* The same, made if need be; the caller drops its reference with adv_entry_put.  NULL: no memory. */
struct adv_entry *adv_entry_get(struct adv_table *t, uint64_t ino, uint8_t kind, uint64_t owner);
void adv_entry_put(struct adv_table *t, struct adv_entry *e);

/*
 * The owner will ask for this: what it gives back with that is gone from the table at once (*has_changed).
 * -ENOMEM: nothing has changed.
 */
int adv_give_back(struct adv_entry *e, uint64_t first, uint64_t last, uint8_t type, bool *has_changed);
/* Whether giving that back would leave more pieces than an owner may have: the server would refuse it. */
bool adv_is_too_much(const struct adv_entry *e, uint64_t first, uint64_t last);
/* Whether nobody can refuse it, for what is held: then it need not, and must not, be a request that waits. */
bool adv_is_sure(const struct adv_entry *e, uint64_t first, uint64_t last, uint8_t type);
/*
 * The server is asked now, in the order of these calls, and there is nothing to give back (any more).  The
 * call is the table's until it is ended.  -ENOMEM: nothing has changed.
 */
int adv_call_begin(struct adv_table *t, struct adv_entry *e, uint64_t first, uint64_t last, uint8_t type,
		   struct adv_call **out);
/* The answer; the call is gone.  Its entry may be too, unless referenced.  -ENOMEM: it is not in the table. */
int adv_call_end(struct adv_table *t, struct adv_call *c, bool is_granted);

/* What an earlier process has left.  -ENOMEM. */
int adv_table_load(struct adv_table *t, uint64_t ino, uint8_t kind, uint64_t owner, uint64_t fh, uint32_t pid,
		   const struct adv_range *v, uint32_t nr);

struct adv_told {
	uint64_t ino, owner;
	struct adv_range range;
	uint32_t pid;
	uint8_t kind;
};
/*
 * Up to max of what is held, in order of ino, kind, owner, first; after the last byte of `after` (NULL: from the
 * start), whatever has become of that since it was told.  How many, or -ENOMEM.  *is_last: there are no more.
 */
int adv_table_tell(struct adv_table *t, const struct adv_told *after, struct adv_told *out, size_t max, bool *is_last);

/* How many owners there are, and how many ranges they hold. */
void adv_table_count(const struct adv_table *t, uint64_t *entries, uint64_t *ranges);

#endif
