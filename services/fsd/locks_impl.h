/* What locks.c, revoke.c and notifier.c share. */
#ifndef SCOUTFS_FSD_LOCKS_IMPL_H
#define SCOUTFS_FSD_LOCKS_IMPL_H

#include "locks.h"

#define LOCKS_HASH_NR	4096u
#define NOTIFIERS_MAX	256u	/* many wait for one page that a writer takes again and again on a busy machine */

enum revoke_step {
	REVOKE_NONE,
	REVOKE_NOTIFY,	/* (a)-(c): the kernel's caches are being withdrawn; users are served */
	REVOKE_DRAIN,	/* (d): new users wait, the last use has not ended */
	REVOKE_DROP,	/* no user: what NOTIFY could not, or users gave the kernel meanwhile, is withdrawn */
	REVOKE_COMMIT,	/* no user; what is dirty is being committed */
	REVOKE_FINISH,	/* a notifier will drop the items and answer */
};

/* An invalidation that has not been answered. */
struct inval {
	struct inval *next;
	struct net_req *req;
	uint8_t old_mode, new_mode;
};

struct lock {
	struct locks *ls;
	struct lock *hash_next;
	struct lock *lru_prev, *lru_next;
	struct lock *work_next;
	struct key start, end;
	uint64_t write_seq;
	uint64_t dirty_gen;
	uint64_t uses_begun;
	uint64_t uses_at_pass;		/* uses_begun before the kernel was told last */
	bool is_dropped;		/* in this revoke: the kernel has nothing any more */
	unsigned refs;			/* operations that name it, holding it or not */
	unsigned readers, writers;	/* uses */
	uint8_t mode;
	uint32_t slot;			/* keep.h: where its mode is kept */
	uint8_t revoke_to;		/* while step is not NONE */
	enum revoke_step step;
	bool gave_all;			/* the kernel may have been given something of any inode */
	bool leaves_truncated;		/* in this revoke: files of which a truncation waits are left out */
	bool is_requested;		/* an answer of the leader is due */
	bool is_idle;			/* on the LRU */
	struct op *waiters, **waiters_tail;
	struct inval *invals, **invals_tail;
};

struct locks {
	struct fsd *fsd;
	pthread_mutex_t mutex;
	pthread_cond_t work;
	struct lock *hash[LOCKS_HASH_NR];
	struct lock *lru_head, *lru_tail;
	struct lock *work_head, **work_tail;	/* for the notifiers */
	size_t nr;
	bool stopping;
	/* notifier.c's */
	struct call *calls;		/* into the kernel, under way */
	unsigned free_nr;		/* threads without work */
	unsigned threads_nr;
	pthread_t threads[NOTIFIERS_MAX];
};

/* All with the mutex held. */
struct lock *locks_find(struct locks *ls, const struct key *start);
struct lock *locks_find_inode(struct locks *ls, uint64_t ino);
/* Idle locks go on the LRU, idle ones that are not held are freed: l may be gone afterwards. */
void locks_settle(struct locks *ls, struct lock *l);
/* Let everybody who waits for l try again, and ask the leader if need be. */
void locks_pump(struct locks *ls, struct lock *l);
/* A use has ended: go on with a revoke that waited for it. */
void revoke_drained(struct lock *l);
void revoke_forget(struct lock *l);

/*
 * For whoever does the work of revokes.  revoke_next: the next lock with some, NULL: none now; without `may_begin` none in
 * its first step.  Its step says which.  NOTIFY, DROP: if revoke_has_to_notify says so the kernel is told to forget what it
 * has under the lock, then revoke_notified: `left_out`: some pages were locked and it was not told of those.  Instead
 * revoke_leave_notify, if that waits for somebody who waits for the lock; `truncated`: for a truncation, so that the next
 * call shall leave out such files (leaves_truncated).  FINISH: if revoke_has_to_drop says so its items are dropped,
 * then revoke_dropped with 0 or what went wrong; l may be gone afterwards.
 */
struct lock *revoke_next(struct locks *ls, bool may_begin);
bool revoke_has_to_notify(struct lock *l);
void revoke_notified(struct lock *l, bool left_out);
void revoke_leave_notify(struct lock *l, bool truncated);
bool revoke_has_to_drop(const struct lock *l);
void revoke_dropped(struct lock *l, int err);

/* The table without a thread that works for revokes.  -ENOMEM. */
int locks_open(struct fsd *fsd);
void locks_close(struct fsd *fsd);

#endif
