/* See fusectl.h.  Where the control filesystem is not mounted we look into an instance of it of our own. */
#include "fusectl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

static int open_in_own(const char *path)
{
	int ctx = fsopen("fusectl", FSOPEN_CLOEXEC), dir = -1, fd = -1;
	int err = ctx < 0 ? errno : 0;

	if (ctx >= 0) {
		if (fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
			dir = fsmount(ctx, FSMOUNT_CLOEXEC, 0);
		err = errno;
		close(ctx);
	}
	if (dir >= 0) {
		fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
		err = errno;
		close(dir);
	}
	return fd >= 0 ? fd : -err;
}

int fusectl_abort(uint32_t id)
{
	char path[80], own[32];
	int ret = 0, fd;

	snprintf(own, sizeof(own), "%u/abort", id);
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%s", own);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open_in_own(own);
	if (fd < 0)
		return fd;
	if (write(fd, "1", 1) != 1)
		ret = -errno;
	close(fd);
	return ret;
}
