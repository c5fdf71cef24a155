/*
 * coherence [-n ROUNDS] [-r RECORDS] [-t TEXT] DIR DIR...: one directory of one filesystem, as several mounts show it.
 *
 * What one mount has answered, the next call on any other must show: there is no waiting and no second look.
 * First the looks (looks.c): one mount changes something, another, which has it cached, looks once; they take
 * turns.  Then the races (races.c): a process at each mount, all at once, and nothing that any of them did may be lost.
 *
 * It speaks TAP without numbers, a line for each promise: "ok - TEXT", "not ok - TEXT"; with -t only those that
 * begin so.  A DIR may lie in another mount namespace (/proc/PID/root/...).  Run as root.  The directory is left empty.
 */
#include "coherence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATHS		8
#define PATH_BYTES	4096

const char *mounts[MOUNTS_MAX];
int mounts_nr;
long rounds = 30, records = 150;
bool failed;
char why[512];

double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

bool saw(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return false;
}

const char *path(int at, const char *fmt, ...)
{
	static char paths[PATHS][PATH_BYTES];
	static unsigned next;
	char *p = paths[next++ % PATHS];
	va_list ap;
	int n = snprintf(p, PATH_BYTES, "%s/", mounts[at]);

	va_start(ap, fmt);
	vsnprintf(p + n, (size_t)(PATH_BYTES - n), fmt, ap);
	va_end(ap);
	return p;
}

bool put_bytes(int at, const char *name, const void *bytes, size_t len)
{
	int fd = open(path(at, "%s", name), O_CREAT | O_WRONLY, 0644);
	bool good = fd >= 0 && pwrite(fd, bytes, len, 0) == (ssize_t)len;

	if (fd >= 0)
		close(fd);
	return good;
}

bool put(int at, const char *name, long value)
{
	return put_bytes(at, name, &value, sizeof(value));
}

bool shows(int fd, long value)
{
	long got = -1;
	ssize_t n = pread(fd, &got, sizeof(got), 0);

	if (n != (ssize_t)sizeof(got))
		return saw("read %zd bytes: %s", n, strerror(errno));
	return got == value || saw("%ld, not %ld", got, value);
}

bool get(int at, const char *name, long value)
{
	int fd = open(path(at, "%s", name), O_RDONLY);
	bool good;

	if (fd < 0)
		return saw("open %s: %s", name, strerror(errno));
	good = shows(fd, value);
	close(fd);
	return good;
}

bool is_missing(int at, const char *name)
{
	struct stat st;

	if (stat(path(at, "%s", name), &st) == 0)
		return saw("%s is there", name);
	return errno == ENOENT || saw("%s: %s", name, strerror(errno));
}

bool is_there(int at, const char *name)
{
	struct stat st;

	return stat(path(at, "%s", name), &st) == 0 || saw("%s: %s", name, strerror(errno));
}

bool same_stat(int a, int b, const char *name)
{
	struct stat x, y;

	if (lstat(path(a, "%s", name), &x) < 0 || lstat(path(b, "%s", name), &y) < 0)
		return saw("%s: %s", name, strerror(errno));
	if (x.st_ino != y.st_ino)
		return saw("inode %lu, not %lu", y.st_ino, x.st_ino);
	if (x.st_size != y.st_size)
		return saw("size %ld, not %ld", (long)y.st_size, (long)x.st_size);
	if (x.st_mode != y.st_mode || x.st_uid != y.st_uid || x.st_gid != y.st_gid)
		return saw("mode %o of %u:%u, not %o of %u:%u", y.st_mode, y.st_uid, y.st_gid, x.st_mode,
			   x.st_uid, x.st_gid);
	if (x.st_nlink != y.st_nlink)
		return saw("%lu links, not %lu", y.st_nlink, x.st_nlink);
	if (memcmp(&x.st_mtim, &y.st_mtim, sizeof(x.st_mtim)) || memcmp(&x.st_ctim, &y.st_ctim, sizeof(x.st_ctim)))
		return saw("mtime %ld.%09ld ctime %ld.%09ld, not %ld.%09ld and %ld.%09ld", y.st_mtim.tv_sec,
			   y.st_mtim.tv_nsec, y.st_ctim.tv_sec, y.st_ctim.tv_nsec, x.st_mtim.tv_sec,
			   x.st_mtim.tv_nsec, x.st_ctim.tv_sec, x.st_ctim.tv_nsec);
	return x.st_blocks == y.st_blocks || saw("%ld blocks, not %ld", (long)y.st_blocks, (long)x.st_blocks);
}

void remove_file(void)
{
	unlink(path(0, "f"));
}

int main(int argc, char **argv)
{
	const char *only = "";
	int opt;

	while ((opt = getopt(argc, argv, "n:r:t:")) != -1) {
		if (opt == 'n')
			rounds = atol(optarg);
		else if (opt == 'r')
			records = atol(optarg);
		else if (opt == 't')
			only = optarg;
		else
			return 2;
	}
	while (optind < argc && mounts_nr < MOUNTS_MAX)
		mounts[mounts_nr++] = argv[optind++];
	if (mounts_nr < 2 || rounds < 2 || rounds > 255 || records < 4 || records * mounts_nr > 8192) {
		fprintf(stderr, "usage: coherence [-n ROUNDS] [-r RECORDS] [-t TEXT] DIR DIR...\n");
		return 2;
	}
	umask(0);
	run_looks(only);
	run_races(only);
	return failed;
}
