/*
 * What outlives the process besides the item cache and the pool: design.md §3, D7.
 *
 * A file in the instance's tmpfs, mapped: who this mount is, the connection of the kernel, and the
 * cluster locks it holds.  A store into it is there whatever happens to the process afterwards, so
 * each is one word, made last.
 */
#ifndef SCOUTFS_FSD_KEEP_H
#define SCOUTFS_FSD_KEEP_H

#include "fsd.h"
#include "key/key.h"

/* Counts up when this file, a table of the item cache or the pool's records change their form. */
#define KEEP_VERSION	6u

#define KEEP_LOCKS_MAX	49152u
#define KEEP_NO_LOCK	UINT32_MAX
#define KEEP_INIT_MAX	512u

struct keep_lock {
	struct key start;
	_Atomic uint64_t write_seq;
	_Atomic uint64_t mode;		/* LOCK_MODE_NULL: the slot is free */
};

struct keep_head {
	uint64_t magic;
	uint32_t version;
	uint32_t locks_max;
	uint64_t rid, fsid;
	_Atomic uint32_t is_valid;	/* what is kept is whole */
	_Atomic uint32_t resumes;	/* since a process served for a while */
	_Atomic uint64_t term;		/* of the leader that knows this rid; 0: none */

	_Atomic uint32_t is_drained;	/* nothing the kernel sent was left without its answer */
	_Atomic uint32_t has_no_epochs;	/* of the kernel */
	_Atomic uint32_t dev_minor;
	_Atomic uint32_t init_len;	/* 0: there is no connection */
	uint8_t init[KEEP_INIT_MAX];	/* the kernel's FUSE_INIT */
};

struct keep {
	struct keep_head *head;
	struct keep_lock *locks;
	uint32_t next;			/* where a free slot is looked for */
	int fd;
};

/*
 * Open the file.  1: an earlier process has left a state that can be gone on from; 0: there is
 * nothing, or nothing that can be used (said), and it is empty now.  -errno, said.
 */
int keep_open(struct fsd *fsd);
/* From now on what is kept counts. */
void keep_set_valid(struct fsd *fsd);
/* What is kept is worth nothing (any more): the next process begins anew. */
void keep_drop(struct fsd *fsd);
void keep_close(struct fsd *fsd);

/* A descriptor of /dev/fuse that whoever starts this process has kept for it; -1: none. */
int keep_take_descriptor(void);
/* Have it kept, or not any more.  Without anybody who keeps such things nothing happens. */
void keep_store_descriptor(int fd);
void keep_forget_descriptor(void);
/* Whether somebody would keep it. */
bool keep_has_store(void);

/*
 * For locks.c, under its mutex: a lock is held in that mode from now on; its slot is *slot, or
 * KEEP_NO_LOCK before the first time.  When there is no slot for it the state cannot be gone on from.
 */
static inline void keep_note_lock(struct keep *k, uint32_t *slot, const struct key *start,
				  uint64_t mode, uint64_t write_seq)
{
	if (!k)
		return;
	if (*slot == KEEP_NO_LOCK && mode) {
		for (uint32_t n = 0; n < KEEP_LOCKS_MAX && *slot == KEEP_NO_LOCK; n++) {
			if (!atomic_load_explicit(&k->locks[k->next].mode, memory_order_relaxed))
				*slot = k->next;
			k->next = (k->next + 1) % KEEP_LOCKS_MAX;
		}
		if (*slot == KEEP_NO_LOCK) {
			atomic_store(&k->head->is_valid, 0);
			return;
		}
		k->locks[*slot].start = *start;
	}
	if (*slot == KEEP_NO_LOCK)
		return;
	atomic_store_explicit(&k->locks[*slot].write_seq, write_seq, memory_order_release);
	atomic_store_explicit(&k->locks[*slot].mode, mode, memory_order_release);
	if (!mode)
		*slot = KEEP_NO_LOCK;
}

#endif
