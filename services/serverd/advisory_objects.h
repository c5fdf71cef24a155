/*
 * What the machine of advisory locks is made of (advisory_fsm.c): files, who holds ranges of them and who waits, owners.
 * Nothing here decides.  Functions that make something return NULL where there is no memory.
 */
#ifndef SCOUTFS_SERVERD_ADVISORY_OBJECTS_H
#define SCOUTFS_SERVERD_ADVISORY_OBJECTS_H

#include "advisory_fsm.h"

struct link {
	struct link *next;
	uint64_t hash;
};

struct table {
	struct link **buckets;
	size_t buckets_nr;	/* a power of two */
	size_t nr;
};

struct owner {
	struct link link;
	uint64_t rid, number;
	uint8_t kind;
	unsigned refs;			/* holders and waiters */
	struct waiter *waits;		/* POSIX */
	uint64_t seen;			/* the last search that came by */
	struct owner *search_next;
};

struct holder {
	struct holder *next;
	struct owner *owner;
	uint32_t pid;
	struct adv_ranges have;
	struct adv_ranges told;		/* in recovery: what is to become of it */
};

struct waiter {
	struct waiter *next;		/* of the file, in order of arrival */
	struct waiter *next_of_owner;
	struct file *file;
	struct owner *owner;
	uint64_t handle, number;
	uint64_t first, last;
	uint32_t pid;
	uint8_t type;
};

struct file {
	struct link link;
	uint64_t ino;
	uint8_t kind;
	struct holder *holders;
	struct waiter *waiters;
};

/* A request that waits for somebody to tell its locks. */
struct gated {
	struct gated *next;
	struct advfsm_event ev;
};

/* A rid that has not told all its locks. */
struct expected {
	struct expected *next;
	uint64_t rid;
	uint64_t round;			/* of the question; 0: it was not asked yet */
	bool has_told;			/* `last` counts */
	struct advfsm_lock last;
	bool is_new;			/* of an earlier server: everybody waits for it, not only its own */
};

struct advfsm {
	struct advfsm_ops ops;
	struct table files, owners;
	struct gated *gated, **gated_tail;
	struct expected *expected;
	uint64_t last_round;
	uint64_t last_search;
	struct advfsm_stats st;
};

int advobj_table_open(struct table *t);		/* -ENOMEM */

struct file *advobj_file_find(const struct advfsm *f, uint64_t ino, uint8_t kind);
struct file *advobj_file_make(struct advfsm *f, uint64_t ino, uint8_t kind);
void advobj_file_drop_if_empty(struct advfsm *f, struct file *file);

/* The caller owns one reference. */
struct owner *advobj_owner_get(struct advfsm *f, uint64_t rid, uint8_t kind, uint64_t number);

/* Where the owner's holder is linked, or would be: then *it is NULL. */
struct holder **advobj_holder_find(struct file *file, uint64_t rid, uint64_t number);
struct holder *advobj_holder_make(struct advfsm *f, struct file *file, uint64_t rid, uint64_t number);
void advobj_holder_drop(struct advfsm *f, struct holder **at);
void advobj_holder_drop_if_empty(struct advfsm *f, struct file *file, struct holder *h);
/* -ENOLCK, -ENOMEM: nothing has changed. */
int advobj_holder_set(struct advfsm *f, struct holder *h, uint64_t first, uint64_t last, uint8_t type);

/* The lowest range of another owner that is in the way, and whose it is; NULL: none is. */
const struct adv_range *advobj_conflict(const struct file *file, uint64_t rid, uint64_t number,
					uint64_t first, uint64_t last, uint8_t type,
					const struct holder **who);
bool advobj_is_blocked(const struct file *file, const struct owner *o, uint64_t first, uint64_t last,
		       uint8_t type);

/* Unlink and free. */
void advobj_waiter_drop(struct advfsm *f, struct waiter **at);

#endif
