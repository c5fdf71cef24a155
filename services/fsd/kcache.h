/* What fuse.c gives kcache.c. */
#ifndef SCOUTFS_FSD_KCACHE_H
#define SCOUTFS_FSD_KCACHE_H

#include <fuse_lowlevel.h>

extern const struct fuse_lowlevel_ops kcache_fuse_ops;

#endif
