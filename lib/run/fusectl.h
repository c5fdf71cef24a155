/* Cutting a FUSE connection from outside: Documentation/filesystems/fuse.rst, "control filesystem". */
#ifndef SCOUTFS_FUSECTL_H
#define SCOUTFS_FUSECTL_H

#include <stdint.h>

/*
 * Abort the connection of that number (the minor number of the mount's st_dev): programs on the mount get
 * ENOTCONN instead of waiting or of what the kernel remembers.  Works where nobody has mounted the control
 * filesystem too.  Never asks the mount itself.  0; -ENOENT: there is none; -EPERM and others.
 */
int fusectl_abort(uint32_t id);

#endif
