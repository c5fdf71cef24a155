/* Directories that the kernel knows by a name, and that another node has removed: the kernel is told.  design.md D4. */
#ifndef SCOUTFS_FSD_GONEDIR_H
#define SCOUTFS_FSD_GONEDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fsd;

/* While requests are served; 0 or -errno. */
int gonedirs_start(struct fsd *fsd);
/*
 * Nothing more is told; whether the thread is over, which is waited for so long: it may be waiting for a request that this
 * process has to answer.  Any thread may call it, and again.
 */
bool gonedirs_stop(unsigned limit_ms);

/* The kernel is given directory ino by that name; it has moved it (if it was given it); it may have forgotten it. */
void gonedir_named(uint64_t ino, uint64_t parent, const char *name, size_t len);
void gonedir_moved(uint64_t ino, uint64_t parent, const char *name, size_t len);
void gonedir_forgotten(struct fsd *fsd, uint64_t ino);
/* Another mount wants to delete directories of that group: they have lost their name.  Waits for nothing. */
void gonedir_asked(uint64_t group);

#endif
