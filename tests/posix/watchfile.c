/*
 * Looks at a file that it keeps open and mapped, again and again, and writes down what it sees.
 *
 *	watchfile FILE LOG
 *
 * A line of LOG is the time before the look (CLOCK_REALTIME, seconds), how it looked (read, map) and the first word of
 * the file, or errno and its number.  A look that blocks leaves no line until it ends; a look through the mapping that
 * ends with SIGBUS is errno 5.  It ends when LOG.stop exists.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BYTES 64

static sigjmp_buf back;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static void say(FILE *f, const struct timespec *at, const char *how, const char *text, int err)
{
	fprintf(f, "%lld.%09ld %s ", (long long)at->tv_sec, at->tv_nsec, how);
	if (err)
		fprintf(f, "errno %d\n", err);
	else
		fprintf(f, "%.*s\n", (int)strcspn(text, " \n"), text);
	fflush(f);
}

int main(int argc, char **argv)
{
	char text[BYTES + 1], stop[4096];
	volatile const char *map;
	struct timespec at;
	FILE *log;
	int fd;

	if (argc != 3)
		return 2;
	snprintf(stop, sizeof(stop), "%s.stop", argv[2]);
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	log = fopen(argv[2], "we");
	map = fd < 0 ? MAP_FAILED : mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (!log || map == MAP_FAILED) {
		perror(argv[1]);
		return 1;
	}
	signal(SIGBUS, on_bus);
	while (access(stop, F_OK) < 0) {
		ssize_t n;

		clock_gettime(CLOCK_REALTIME, &at);
		n = pread(fd, text, BYTES, 0);
		text[n > 0 ? n : 0] = 0;
		say(log, &at, "read", text, n < 0 ? errno : 0);
		clock_gettime(CLOCK_REALTIME, &at);
		if (sigsetjmp(back, 1) == 0) {
			for (unsigned i = 0; i < BYTES; i++)
				text[i] = map[i];
			text[BYTES] = 0;
			say(log, &at, "map", text, 0);
		} else {
			say(log, &at, "map", "", EIO);
		}
		usleep(50000);
	}
	return 0;
}
