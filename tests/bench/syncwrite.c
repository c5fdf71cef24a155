/*
 * syncwrite FILE COUNT: what a small durable write costs, one line: seconds for one of them.
 *
 * FILE is made empty, then COUNT times 4 KiB are put at its end with write(2) and made durable with
 * fsync(2), as a database's log or a mail spool does; only that is timed.  Exit status 1, and no
 * line, if anything failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BYTES	4096

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int failed(const char *what, const char *path)
{
	fprintf(stderr, "syncwrite: %s %s: %s\n", what, path, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	char block[BYTES];
	double began;
	long count;
	ssize_t n;
	int fd;

	if (argc != 3 || (count = atol(argv[2])) < 1) {
		fprintf(stderr, "usage: syncwrite FILE COUNT\n");
		return 2;
	}
	memset(block, 's', sizeof(block));
	fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || fsync(fd) < 0)
		return failed("making", argv[1]);
	began = now();
	for (long i = 0; i < count; i++) {
		n = write(fd, block, sizeof(block));
		if (n >= 0 && n < (ssize_t)sizeof(block))
			errno = ENOSPC;
		if (n < (ssize_t)sizeof(block))
			return failed("writing", argv[1]);
		if (fsync(fd) < 0)
			return failed("fsync of", argv[1]);
	}
	printf("%.6f\n", (now() - began) / (double)count);
	if (close(fd) < 0)
		return failed("closing", argv[1]);
	return 0;
}
