/* What the files of the FUSE handlers share: how a request becomes an operation. */
#ifndef SCOUTFS_FSD_FUSE_IMPL_H
#define SCOUTFS_FSD_FUSE_IMPL_H

#include "fuse.h"

#include <errno.h>
#include <stdlib.h>

static inline struct fsd *fsd_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* A zeroed operation of `size` bytes that begins with struct op; answers ENOMEM itself. */
static inline void *new_op(fuse_req_t req, size_t size, const char *name, bool writes,
			   int (*run)(struct op *, struct itx *), void (*done)(struct op *, int))
{
	struct op *op = calloc(1, size);

	stats_inc(&fsd_of(req)->stats.fuse_requests);
	if (!op) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	op->fsd = fsd_of(req);
	op->name = name;
	op->writes = writes;
	op->run = run;
	op->done = done;
	return op;
}

/* fuse_statfs.c; interface 4.1.  fuse_xattr.c; interface 2. */
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
