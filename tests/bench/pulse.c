/*
 * pulse [-s] [-r RATE] DIR SECONDS: what one program in DIR feels.
 *
 * One step creates a file, writes 4 KiB to it, with -s makes it durable, stats it, and unlinks the one made 16 steps
 * before.  With -r at most RATE steps a second; else as many as there is time for.  Ends after SECONDS, or when
 * stdin says so by a line.  Prints one line: "steps N median_us N p99_us N longest_ms N errors N"; exit status 1 when
 * a call failed (each is said).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEPT	16
#define BYTES	4096

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void path_of(char *path, size_t size, const char *dir, uint64_t nr)
{
	snprintf(path, size, "%s/pulse-%d-%llu", dir, (int)getpid(), (unsigned long long)nr);
}

static int unlink_nr(const char *dir, uint64_t nr)
{
	char path[4096];

	path_of(path, sizeof(path), dir, nr);
	return unlink(path);
}

/* One step; 0, or -1 with errno and the name of the call that failed. */
static int step(const char *dir, uint64_t nr, int durable, const char **failed)
{
	char path[4096], data[BYTES];
	struct stat st;
	int fd, rc = 0;

	path_of(path, sizeof(path), dir, nr);
	memset(data, (int)nr, sizeof(data));
	*failed = "open";
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0)
		return -1;
	*failed = "write";
	if (write(fd, data, sizeof(data)) != (ssize_t)sizeof(data))
		rc = -1;
	if (!rc && durable) {
		*failed = "fsync";
		rc = fsync(fd);
	}
	if (close(fd) && !rc) {
		*failed = "close";
		rc = -1;
	}
	if (!rc) {
		*failed = "stat";
		rc = stat(path, &st);
	}
	if (!rc && nr >= KEPT) {
		*failed = "unlink";
		rc = unlink_nr(dir, nr - KEPT);
	}
	return rc;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Wait until the time of the next step; true when stdin has something to say, or the end has come. */
static int is_over(uint64_t next, uint64_t end)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};
	uint64_t now = now_us();
	int wait_ms = now < next ? (int)((next - now + 999) / 1000) : 0;

	return now >= end || poll(&in, 1, wait_ms) > 0;
}

int main(int argc, char **argv)
{
	uint64_t nr, end, next, began, errors = 0;
	unsigned long rate = 0;
	uint32_t *took = NULL;
	size_t room = 0;
	int opt, durable = 0;
	const char *failed;

	while ((opt = getopt(argc, argv, "sr:")) != -1) {
		if (opt == 's')
			durable = 1;
		else if (opt == 'r')
			rate = strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (argc - optind != 2) {
		fprintf(stderr, "usage: pulse [-s] [-r RATE] DIR SECONDS\n");
		return 2;
	}
	next = now_us();
	end = next + strtoull(argv[optind + 1], NULL, 10) * 1000000;
	for (nr = 0; !is_over(next, end); nr++) {
		if (nr == room) {
			room = room ? room * 2 : 4096;
			took = realloc(took, room * sizeof(*took));
			if (!took)
				return 2;
		}
		began = now_us();
		if (step(argv[optind], nr, durable, &failed)) {
			fprintf(stderr, "pulse: step %llu: %s: %s\n", (unsigned long long)nr, failed, strerror(errno));
			errors++;
		}
		took[nr] = (uint32_t)(now_us() - began);
		if (rate)
			next = began + 1000000 / rate;
	}
	for (uint64_t i = nr > KEPT ? nr - KEPT : 0; i < nr; i++)
		unlink_nr(argv[optind], i);
	if (nr)
		qsort(took, nr, sizeof(*took), by_value);
	printf("steps %llu median_us %u p99_us %u longest_ms %u errors %llu\n", (unsigned long long)nr,
	       nr ? took[nr / 2] : 0, nr ? took[nr - 1 - nr / 100] : 0, nr ? took[nr - 1] / 1000 : 0,
	       (unsigned long long)errors);
	free(took);
	return errors ? 1 : 0;
}
