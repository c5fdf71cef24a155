/*
 * Advisory locks of this mount's programs: flock(2) and fcntl(2) through the leader.  What is promised stands in
 * advisory.c.
 */
#ifndef SCOUTFS_FSD_ADVISORY_H
#define SCOUTFS_FSD_ADVISORY_H

#include "advisory/adv_ranges.h"
#include "fuse.h"
#include "net_client.h"

/* So many programs may wait for a lock, or for an answer, at the same time; one more gets ENOLCK. */
#define ADVISORY_ASKED_MAX	4096u

/* keep: the kernel's connection goes on, and what the process before has left are its locks.  0 or -errno. */
int advisory_start(struct fsd *fsd, bool keep);
/* Whoever waits for a lock ends with EINTR, or has it: the leader says which. */
void advisory_interrupt_waits(struct fsd *fsd);
/* The connection is gone: whoever waits for a lock ends, so that the operations can be drained. */
void advisory_end_waits(struct fsd *fsd);
/* When the session is over. */
void advisory_stop(struct fsd *fsd);

struct advisory_ask {
	uint64_t ino, owner, fh;
	uint64_t first, last;	/* both inside */
	uint32_t pid;
	uint8_t kind;		/* enum msg_adv_kind */
	uint8_t type;		/* enum adv_type */
	bool wait;
};

/* All three answer req, now or later. */
void advisory_lock(struct fsd *fsd, fuse_req_t req, const struct advisory_ask *ask);
void advisory_test(struct fsd *fsd, fuse_req_t req, const struct advisory_ask *ask);
/* A descriptor of ino is closed by the process whose table of open files is `owner`. */
void advisory_flush(struct fsd *fsd, fuse_req_t req, uint64_t ino, uint64_t owner);
/* The open file fh of ino is gone. */
void advisory_released(struct fsd *fsd, uint64_t ino, uint64_t fh);
/* A number for a new open file, never given twice, by no process of this mount. */
uint64_t advisory_new_fh(struct fsd *fsd);

/* The leader asks what is held.  Home thread of the session. */
void advisory_tell(struct fsd *fsd, struct net_req *req, const struct msg_adv_recover *m);

/* For status: ranges held, requests that wait. */
void advisory_counts(struct fsd *fsd, uint64_t *held, uint64_t *waiting);

#endif
