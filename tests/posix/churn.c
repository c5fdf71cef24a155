/*
 * churn DIR THREADS: operations whose every answer is checked, until stdin closes or says "stop".
 *
 * Each thread works in a directory of its own: creates, writes, reads back and compares, renames, sets
 * xattrs, links, stats, lists, fsyncs and unlinks.  At the end one line: "ops N errors N longest_ms N".  An error is an
 * answer that may not be: it is said at once.  Exit status 1 if there was one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX	32
#define FILES		50
#define COMPLAINTS_MAX	100

static const char *root;
static atomic_bool stop;
static atomic_ulong ops, errors, longest_us;

static unsigned long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (unsigned long)ts.tv_sec * 1000000 + (unsigned long)ts.tv_nsec / 1000;
}

static void complain(const char *fmt, ...)
{
	va_list ap;

	/* the first are the telling ones, and when a mount is gone each call fails */
	if (atomic_fetch_add(&errors, 1) >= COMPLAINTS_MAX)
		return;
	va_start(ap, fmt);
	fprintf(stderr, "churn: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
}

/* Time one call; complain if it fails. */
#define DO(call)									\
	({										\
		unsigned long t0_ = now_us(), t1_, max_;				\
		long r_ = (long)(call);							\
		int e_ = errno;								\
		t1_ = now_us() - t0_;							\
		atomic_fetch_add(&ops, 1);						\
		max_ = atomic_load(&longest_us);					\
		while (t1_ > max_ && !atomic_compare_exchange_weak(&longest_us, &max_, t1_))	\
			;								\
		if (r_ < 0)								\
			complain("%s: %s", #call, strerror(e_));			\
		r_;									\
	})

static void fill(char *buf, size_t len, unsigned long seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (char)(seed * 31 + i * 7 + (i >> 8));
}

static void one_file(const char *dir, unsigned i, unsigned long round)
{
	static _Thread_local char out[100000], in[100000];
	char path[4096], other[4096];
	size_t len = 1 + (round * 7919 + i * 104729) % sizeof(out);
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/f%u", dir, i);
	snprintf(other, sizeof(other), "%s/g%u", dir, i);
	fd = (int)DO(open(path, O_CREAT | O_EXCL | O_RDWR, 0640));
	if (fd < 0)
		return;
	fill(out, len, round + i);
	if (DO(pwrite(fd, out, len, 0)) != (long)len)
		complain("%s: short write", path);
	if (i % 10 == 0)
		DO(fsync(fd));
	if (DO(pread(fd, in, sizeof(in), 0)) != (long)len || memcmp(in, out, len))
		complain("%s: reads back other bytes", path);
	DO(close(fd));
	DO(rename(path, other));
	if (DO(stat(other, &st)) == 0 && (st.st_size != (off_t)len || st.st_nlink != 1))
		complain("%s: size %ld instead of %zu, or nlink %lu instead of 1", other, (long)st.st_size, len,
			 (unsigned long)st.st_nlink);
	if (i % 3 == 0) {
		DO(setxattr(other, "user.churn", out, len % 200 + 1, 0));
		if (DO(getxattr(other, "user.churn", in, sizeof(in))) != (long)(len % 200 + 1) ||
		    memcmp(in, out, len % 200 + 1))
			complain("%s: another xattr than was set", other);
		if (i % 2)
			DO(removexattr(other, "user.churn"));
	}
	if (i % 7 == 0) {
		DO(link(other, path));
		DO(unlink(path));
	}
	if (stat(path, &st) == 0 || errno != ENOENT)
		complain("%s: is still there, or: %s", path, strerror(errno));
	fd = (int)DO(open(other, O_RDONLY));
	if (fd >= 0) {
		if (DO(pread(fd, in, sizeof(in), 0)) != (long)len || memcmp(in, out, len))
			complain("%s: other bytes after the rename", other);
		DO(close(fd));
	}
}

static void *work(void *arg)
{
	char dir[3000], path[4096];

	snprintf(dir, sizeof(dir), "%s/t%ld", root, (long)arg);
	DO(mkdir(dir, 0755));
	for (unsigned long round = 0; !atomic_load(&stop); round++) {
		unsigned made = 0, seen = 0;
		struct dirent *de;
		DIR *d;

		for (; made < FILES && !atomic_load(&stop); made++)
			one_file(dir, made, round);
		d = opendir(dir);
		while (d && (de = readdir(d)))
			seen += de->d_name[0] == 'g';
		if (d)
			closedir(d);
		if (seen != made)
			complain("%s: lists %u files instead of %u", dir, seen, made);
		for (unsigned i = 0; i < made; i++) {
			snprintf(path, sizeof(path), "%s/g%u", dir, i);
			DO(unlink(path));
		}
	}
	DO(rmdir(dir));
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t th[THREADS_MAX];
	long threads = argc == 3 ? atol(argv[2]) : 0;
	char line[64];

	if (threads < 1 || threads > THREADS_MAX) {
		fprintf(stderr, "usage: churn DIR THREADS\n");
		return 2;
	}
	root = argv[1];
	for (long i = 0; i < threads; i++)
		pthread_create(&th[i], NULL, work, (void *)i);
	while (fgets(line, sizeof(line), stdin)) {
		if (strncmp(line, "stop", 4) == 0)
			break;
		/* anything else: report so far, and begin to look for the longest stall anew */
		printf("ops %lu errors %lu longest_ms %lu\n", ops, errors, atomic_exchange(&longest_us, 0) / 1000);
		fflush(stdout);
	}
	atomic_store(&stop, 1);
	for (long i = 0; i < threads; i++)
		pthread_join(th[i], NULL);
	printf("ops %lu errors %lu longest_ms %lu\n", ops, errors, atomic_load(&longest_us) / 1000);
	return errors != 0;
}
