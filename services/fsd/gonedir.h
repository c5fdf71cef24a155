/* Directories that the kernel knows by a name, and that another node has removed: the kernel is told.  design.md D4. */
#ifndef SCOUTFS_FSD_GONEDIR_H
#define SCOUTFS_FSD_GONEDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fsd;

/* While requests are served; 0 or -errno.  Without `wait` the process ends, and the thread with it. */
int gonedirs_start(struct fsd *fsd);
void gonedirs_stop(bool wait);

/* The kernel is given directory ino by that name; it has moved it (if it was given it); it may have forgotten it. */
void gonedir_named(uint64_t ino, uint64_t parent, const char *name, size_t len);
void gonedir_moved(uint64_t ino, uint64_t parent, const char *name, size_t len);
void gonedir_forgotten(struct fsd *fsd, uint64_t ino);
/* Another mount wants to delete inodes of that group, so some have lost their last name.  Waits for nothing. */
void gonedir_asked(uint64_t group);

#endif
