/*
 * mdrate FILES THREADS DIR...: rates of metadata operations on several filesystems, one line for each DIR,
 * in their order: "create N stat N readdir N unlink N" (operations a second).  Each thread has a directory of
 * its own.  Every phase is run in each DIR before the next phase begins, so that all of them see the same
 * machine.  stat is run once before it counts, and then in many short turns, DIR after DIR, of which one of the
 * fastest is taken (nine in ten are slower): a warm stat waits for nothing, so what makes a turn slower is what else
 * runs on the machine.
 * Between phases all is made durable, so that none is measured while a filesystem still works on the one
 * before.  Exit status 1 if any operation failed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX	32
#define DIRS_MAX	8
#define STAT_TURNS	31
#define STAT_PASSES	2	/* of a turn */

struct rates {
	double create, stat, list, unlink;
	double turns[STAT_TURNS];
};

static const char *root;	/* the DIR of the phase that runs */
static long files, threads;
static atomic_long errors;

static void failed(const char *what, const char *path)
{
	if (atomic_fetch_add(&errors, 1) < 5)
		fprintf(stderr, "mdrate: %s %s: %s\n", what, path, strerror(errno));
}

static void file_path(char *buf, size_t size, long t, long i)
{
	snprintf(buf, size, "%s/dm%ld/f%07ld", root, t, i);
}

static void *create_files(void *arg)
{
	char path[4096];

	for (long i = 0; i < files; i++) {
		int fd;

		file_path(path, sizeof(path), (long)arg, i);
		fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0)
			failed("create", path);
		else
			close(fd);
	}
	return NULL;
}

static void *stat_files(void *arg)
{
	char path[4096];
	struct stat st;

	for (long i = 0; i < files; i++) {
		file_path(path, sizeof(path), (long)arg, i);
		if (stat(path, &st) < 0)
			failed("stat", path);
	}
	return NULL;
}

static void *stat_files_often(void *arg)
{
	for (int i = 0; i < STAT_PASSES; i++)
		stat_files(arg);
	return NULL;
}

static void *list_files(void *arg)
{
	char path[4096];
	long n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/dm%ld", root, (long)arg);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	if (n < files)
		failed("readdir", path);
	return NULL;
}

static void *unlink_files(void *arg)
{
	char path[4096];

	for (long i = 0; i < files; i++) {
		file_path(path, sizeof(path), (long)arg, i);
		if (unlink(path) < 0)
			failed("unlink", path);
	}
	return NULL;
}

/* fsync of a directory; a filesystem without it has nothing to do. */
static void settle(void)
{
	char path[4096];

	for (long t = 0; t < threads; t++) {
		int fd;

		snprintf(path, sizeof(path), "%s/dm%ld", root, t);
		fd = open(path, O_RDONLY | O_DIRECTORY);
		if (fd < 0 || (fsync(fd) < 0 && errno != ENOSYS && errno != EINVAL))
			failed("fsync", path);
		if (fd >= 0)
			close(fd);
	}
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double rate(void *(*phase)(void *))
{
	pthread_t th[THREADS_MAX];
	double began = now();

	for (long t = 0; t < threads; t++)
		pthread_create(&th[t], NULL, phase, (void *)t);
	for (long t = 0; t < threads; t++)
		pthread_join(th[t], NULL);
	return (double)(files * threads) / (now() - began);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double one_of_the_greatest(double *v, size_t nr)
{
	qsort(v, nr, sizeof(*v), by_value);
	return v[nr * 9 / 10];
}

static void make_dirs(void)
{
	char path[4096];

	for (long t = 0; t < threads; t++) {
		snprintf(path, sizeof(path), "%s/dm%ld", root, t);
		/* nullfs has every directory that is looked up */
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			failed("mkdir", path);
	}
}

static void remove_dirs(void)
{
	char path[4096];

	for (long t = 0; t < threads; t++) {
		snprintf(path, sizeof(path), "%s/dm%ld", root, t);
		if (rmdir(path) < 0)
			failed("rmdir", path);
	}
}

int main(int argc, char **argv)
{
	struct rates rates[DIRS_MAX];
	int dirs_nr = argc - 3;
	char **dirs = argv + 3;

	if (dirs_nr < 1 || dirs_nr > DIRS_MAX || (threads = atol(argv[2])) < 1 || threads > THREADS_MAX ||
	    (files = atol(argv[1]) / threads) < 1) {
		fprintf(stderr, "usage: mdrate FILES THREADS DIR... (at most %d)\n", DIRS_MAX);
		return 2;
	}
	for (int d = 0; d < dirs_nr; d++) {
		root = dirs[d];
		make_dirs();
		rates[d].create = rate(create_files);
		settle();
	}
	for (int turn = -1; turn < STAT_TURNS; turn++) {
		for (int d = 0; d < dirs_nr; d++) {
			root = dirs[d];
			if (turn < 0)
				rate(stat_files);
			else
				rates[d].turns[turn] = STAT_PASSES * rate(stat_files_often);
		}
	}
	for (int d = 0; d < dirs_nr; d++) {
		root = dirs[d];
		rates[d].stat = one_of_the_greatest(rates[d].turns, STAT_TURNS);
		rates[d].list = rate(list_files);
	}
	for (int d = 0; d < dirs_nr; d++) {
		root = dirs[d];
		rates[d].unlink = rate(unlink_files);
		settle();
		remove_dirs();
	}
	for (int d = 0; d < dirs_nr; d++)
		printf("create %.0f stat %.0f readdir %.0f unlink %.0f\n", rates[d].create, rates[d].stat,
		       rates[d].list, rates[d].unlink);
	return errors != 0;
}
