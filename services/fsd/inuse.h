/* Inodes in use by this mount, and what its kernel was given of them: runtime.md 10, design.md D4 (open-inode map). */
#ifndef SCOUTFS_FSD_INUSE_H
#define SCOUTFS_FSD_INUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "key/key.h"

struct fsd;

/* The kernel's reference count on ino (nlookup), and open handles.  Dropping the last one of an inode
 * with nlink 0 begins its deletion. */
void inode_ref(struct fsd *fsd, uint64_t ino, uint64_t nr);
void inode_forget(struct fsd *fsd, uint64_t ino, uint64_t nr);
void inode_open(struct fsd *fsd, uint64_t ino);
void inode_release(struct fsd *fsd, uint64_t ino);
bool inode_in_use(struct fsd *fsd, uint64_t ino);

/* Bits of the group's inodes in use here (128 bytes), for open_ino_map queries. */
void inode_use_map(struct fsd *fsd, uint64_t group, uint8_t map[128]);
/*
 * Each inode of [first, last] of which the kernel may have something it trusts (`all`: that it knows), because of a
 * revoke; `told`: it is told to drop everything.
 */
void inode_each_ref(struct fsd *fsd, uint64_t first, uint64_t last, bool all, bool told,
		    void (*each)(void *arg, uint64_t ino), void *arg);
/*
 * Around the making and sending of an answer with attributes, or with pages of that inode (0: none).  A revoke drops what was
 * given before, and what is given later knows of the revoke or is noted, so that the next one drops it.
 */
void inode_give_begin(struct fsd *fsd, uint64_t pages_of);
void inode_give_end(struct fsd *fsd);
/* lock_kernel_timeout for attributes: 0 as well for the first answers after a revoke.  Between those two. */
double inode_attr_timeout(struct fsd *fsd, uint64_t ino);

#endif
