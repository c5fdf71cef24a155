/*
 * took CMD [ARG...]: how long a program takes from its start to its end, one line: seconds.
 *
 * A shell that times a program forks a copy of itself first, which takes about as long as a short
 * program runs.  posix_spawn(3) does not copy the parent, so that what is measured is the program:
 * to load it, to run it, and to wait for it.  Its output goes to /dev/null, its complaints are
 * shown.  Exit status 1, and no line, if it could not be started or failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	posix_spawn_file_actions_t actions;
	double began, took;
	int status, err;
	pid_t pid;

	if (argc < 2) {
		fprintf(stderr, "usage: took CMD [ARG...]\n");
		return 2;
	}
	err = posix_spawn_file_actions_init(&actions);
	if (!err)
		err = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (err) {
		fprintf(stderr, "took: %s\n", strerror(err));
		return 1;
	}
	began = now();
	err = posix_spawnp(&pid, argv[1], &actions, NULL, argv + 1, environ);
	if (err) {
		fprintf(stderr, "took: %s: %s\n", argv[1], strerror(err));
		return 1;
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR) {
			fprintf(stderr, "took: waiting for %s: %s\n", argv[1], strerror(errno));
			return 1;
		}
	}
	took = now() - began;
	posix_spawn_file_actions_destroy(&actions);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "took: %s %s %d\n", argv[1], WIFEXITED(status) ? "ended with status" :
			"was ended by signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		return 1;
	}
	printf("%.6f\n", took);
	return 0;
}
