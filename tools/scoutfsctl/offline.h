/* Files and directories of a volume that nobody uses, read through the forest (format.md 11-12). */
#ifndef SCOUTFSCTL_OFFLINE_H
#define SCOUTFSCTL_OFFLINE_H

#include "tools/scoutfsctl/volume.h"

/*
 * All return 0 or a negative errno; -EUCLEAN stands for damaged metadata and has been said already,
 * with the item's key.  -ENOENT: there is no such item or name.
 */

/* volume_open for reading; says on stderr who did not unmount it cleanly. */
int offline_open(struct volume *v, const char *meta_path, const char *data_path, const char *verb);

/*
 * Walk items of [first, last], newest versions, each passed through item_check.  each() returns 0
 * to go on; anything else ends the walk with that value.
 */
typedef int (*offline_item_fn)(void *arg, const struct item *it);
int offline_each(struct volume *v, const struct key *first, const struct key *last,
		 const char *verb, offline_item_fn each, void *arg);

int offline_inode(struct volume *v, uint64_t ino, struct disk_inode *inode, const char *verb);
/* The target, NUL terminated. */
int offline_readlink(struct volume *v, uint64_t ino, char target[SYMLINK_MAX_BYTES],
		     const char *verb);
/* A path from the root; symbolic links are followed, the last one only if asked.  Also -ELOOP,
 * -ENOTDIR. */
int offline_resolve(struct volume *v, const char *path, bool follow_last, uint64_t *ino,
		    const char *verb);

/* The seq before which index entries are final: the smallest open transaction's (11.1, 12.2), or
 * UINT64_MAX. */
int offline_stable_end(struct volume *v, uint64_t *seq, const char *verb);

/* Say why reading path failed, unless it was said; returns the exit status 1. */
int offline_failed(const char *verb, const char *path, int err);

#endif
