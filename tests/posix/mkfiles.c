/* mkfiles DIR FILES DIRS: files d<i % DIRS>/f<i>, each holding its number; 4 threads. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 4

static const char *root;
static long files, dirs;

static void *make(void *arg)
{
	char path[4096], text[32];

	for (long i = (long)arg; i < files; i += THREADS) {
		int fd, n = snprintf(text, sizeof(text), "%ld\n", i);

		snprintf(path, sizeof(path), "%s/d%ld/f%ld", root, i % dirs, i);
		fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0 || write(fd, text, (size_t)n) != n || close(fd) < 0) {
			fprintf(stderr, "%s: %s\n", path, strerror(errno));
			exit(1);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t th[THREADS];
	char path[4096];

	if (argc != 4 || (files = atol(argv[2])) < 1 || (dirs = atol(argv[3])) < 1) {
		fprintf(stderr, "usage: mkfiles DIR FILES DIRS\n");
		return 2;
	}
	root = argv[1];
	for (long d = 0; d < dirs; d++) {
		snprintf(path, sizeof(path), "%s/d%ld", root, d);
		if (mkdir(path, 0755) < 0) {
			fprintf(stderr, "%s: %s\n", path, strerror(errno));
			return 1;
		}
	}
	for (long t = 0; t < THREADS; t++)
		pthread_create(&th[t], NULL, make, (void *)t);
	for (long t = 0; t < THREADS; t++)
		pthread_join(th[t], NULL);
	return 0;
}
