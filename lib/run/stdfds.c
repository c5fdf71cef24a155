/*
 * A program that was started with stderr closed must not have a device as descriptor 2: its next
 * message would be written over the volume.  So the places of closed standard descriptors are taken
 * first, by a descriptor that can neither be read nor written: to whoever uses it, it is as closed as
 * before.
 */
#include "stdfds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int stdfds_occupy(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		if (errno != EBADF)
			return -errno;
		/* The lowest number that is free is fd: those below are taken. */
		if (open("/", O_PATH | O_DIRECTORY) < 0)
			return -errno;
	}
	return 0;
}
