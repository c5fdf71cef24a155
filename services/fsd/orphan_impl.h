/* What inuse.c, orphan.c and orphan_scan.c share: the table of inodes in use, and who ends those that are not. */
#ifndef SCOUTFS_FSD_ORPHAN_IMPL_H
#define SCOUTFS_FSD_ORPHAN_IMPL_H

#include <pthread.h>

#include "orphan.h"

enum ref_trust {
	TRUSTED,
	REVOKED,	/* the kernel's attributes are from before a revoke */
	TOLD,		/* they have been sent since, at told_ns */
};

struct ref {
	struct ref *next;	/* in its bucket */
	struct ref *next_doomed;
	uint64_t ino;
	uint64_t nlookup;
	uint32_t opens;
	bool unlinked;		/* lost its last link: delete it when out of use */
	bool deleting;		/* queued or running */
	bool held;		/* the kernel knew it when it was asked (fsd->is_resumed) */
	bool given;		/* the kernel may have pages or attributes of it that it trusts */
	enum ref_trust trust;
	uint64_t told_ns;
};

struct orphans {
	struct fsd *fsd;
	pthread_mutex_t mutex;		/* of all that follows but what says otherwise */
	bool stopping;

	/* inuse.c */
	struct ref **buckets;
	size_t buckets_nr, refs_nr;
	/* Read: an answer that gives something is on its way; written: what was given is to be dropped. */
	pthread_rwlock_t giving;

	/* orphan.c */
	struct ref *doomed, **doomed_tail;
	size_t doomed_nr;
	unsigned deleting_nr;
	bool hurry;			/* do not wait for company */
	atomic_bool gives_up;		/* the mount ends: what runs ends after its part, nothing more is begun */
	uint64_t hurry_until_ns;	/* nor until then */
	uint64_t unlinked_ns;		/* when an inode has last lost its last link */
	pthread_t reaper;
	pthread_cond_t reap;		/* for it */
	pthread_cond_t cond;		/* a deletion has ended, or it is time to stop */

	/* orphan_scan.c; its own thread's */
	pthread_t scanner;
	uint64_t *seen;			/* what its last scan has found, in order */
	size_t seen_nr;
};

/* The table is made, with the root in use; ended, with all that is in it.  -ENOMEM. */
int inuse_init(struct orphans *o);
void inuse_fini(struct orphans *o);
/* The kernel has let go of everything. */
void inuse_forget_all(struct orphans *o);

/* These four with the mutex held; what they return is the table's, until the mutex is let go. */
struct ref *ref_find(struct orphans *o, uint64_t ino);
/* Never fails: the process ends when there is no memory. */
struct ref *ref_find_or_add(struct orphans *o, uint64_t ino);
void ref_remove(struct orphans *o, struct ref *r);
bool ref_is_used(const struct ref *r);
/* The same, after any change of r: it goes, or its inode does. */
void orphan_settle(struct orphans *o, struct ref *r);

/* The scan's thread; ends when `stopping` is set and `cond` told. */
void *orphan_scanner(void *o);

#endif
