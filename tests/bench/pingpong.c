/*
 * pingpong first|second MINE THEIRS ROUNDS: how long a change takes from one mount to another.
 *
 * Each side has a file that only it writes: "first" writes n into MINE and reads THEIRS until it says n; "second" waits
 * for n in THEIRS and writes it into MINE.  A value that goes back was stale: said, exit status 1.  "first" prints
 * "rounds N median_us N p99_us N longest_ms N"; a round is there and back.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_US	(120ull * 1000000)

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void die(const char *what, const char *path)
{
	fprintf(stderr, "pingpong: %s %s: %s\n", what, path, strerror(errno));
	exit(2);
}

static void put(int fd, const char *path, uint64_t n)
{
	if (pwrite(fd, &n, sizeof(n), 0) != (ssize_t)sizeof(n))
		die("write of", path);
}

/* Read until @n is there; what is read may stay and rise, never fall. */
static void await(int fd, const char *path, uint64_t n)
{
	uint64_t end = now_us() + PATIENCE_US, got = 0, last = 0;

	for (;;) {
		ssize_t len = pread(fd, &got, sizeof(got), 0);

		if (len < 0)
			die("read of", path);
		if (len == 0)
			got = 0;
		if (got < last) {
			fprintf(stderr, "pingpong: %s: stale: %llu after %llu\n", path, (unsigned long long)got,
				(unsigned long long)last);
			exit(1);
		}
		last = got;
		if (got == n)
			return;
		if (now_us() > end) {
			fprintf(stderr, "pingpong: %s: says %llu, and not %llu\n", path, (unsigned long long)got,
				(unsigned long long)n);
			exit(1);
		}
	}
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	uint64_t rounds, end;
	uint32_t *took;
	int mine, theirs, first;

	if (argc != 5 || (strcmp(argv[1], "first") && strcmp(argv[1], "second")) || !(rounds = strtoull(argv[4], NULL, 10))) {
		fprintf(stderr, "usage: pingpong first|second MINE THEIRS ROUNDS\n");
		return 2;
	}
	first = !strcmp(argv[1], "first");
	took = calloc(rounds, sizeof(*took));
	mine = open(argv[2], O_CREAT | O_RDWR | O_TRUNC, 0644);
	if (!took || mine < 0)
		die("open of", argv[2]);
	end = now_us() + PATIENCE_US;
	while ((theirs = open(argv[3], O_RDONLY)) < 0 && errno == ENOENT && now_us() < end)
		usleep(1000);
	if (theirs < 0)
		die("open of", argv[3]);
	for (uint64_t n = 1; n <= rounds; n++) {
		uint64_t began = now_us();

		if (first)
			put(mine, argv[2], n);
		await(theirs, argv[3], n);
		if (!first)
			put(mine, argv[2], n);
		took[n - 1] = (uint32_t)(now_us() - began);
	}
	qsort(took, rounds, sizeof(*took), by_value);
	if (first)
		printf("rounds %llu median_us %u p99_us %u longest_ms %u\n", (unsigned long long)rounds, took[rounds / 2],
		       took[rounds - 1 - rounds / 100], took[rounds - 1] / 1000);
	free(took);
	return 0;
}
