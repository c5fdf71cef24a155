/*
 * unnamed hold DIR NR: makes NR files without a name (O_TMPFILE) with BYTES each, fsyncs them, says
 * "ready" and waits to be killed.
 *
 * unnamed publish DIR NR PROCS: PROCS processes make NR files each, write one without a name and
 * then link it, as S3 gateways do; some they let go instead. Whatever happens to the services
 * meanwhile: no call fails, and at the end DIR holds just what was linked, whole. It says "going"
 * after the first file of each.
 *
 * unnamed across A B: the same directory through the mounts of two nodes. A file without a name is
 * A's until it has one, then B's as well; B removes it, and it stays A's, who cannot bring it back.
 * RENAME_EXCHANGE by one is seen by the other at once. It says "held" and waits for a line while A
 * holds a file that nobody's scan must delete; B may have been mounted anew when the line comes.
 * Exit status: 0 so it is, 1 not (said), 2 could not run.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES	70000u

static char content[BYTES];

static void fill(int proc, int nr)
{
	memset(content, 'a' + (proc * 7 + nr) % 26, BYTES);
}

static int say(const char *what, int nr)
{
	printf("%s of file %d: %s\n", what, nr, strerror(errno));
	fflush(stdout);
	return 1;
}

static int make(int dir, int proc, int nr)
{
	int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);

	fill(proc, nr);
	if (fd < 0) {
		say("O_TMPFILE", nr);
		return -1;
	}
	if (write(fd, content, BYTES) != (ssize_t)BYTES) {
		say("write", nr);
		close(fd);
		return -1;
	}
	return fd;
}

static int hold(int dir, int nr)
{
	for (int i = 0; i < nr; i++) {
		int fd = make(dir, 0, i);

		if (fd < 0)
			return 1;
		if (i == nr - 1 && fsync(fd) < 0)
			return say("fsync", i);
	}
	printf("ready\n");
	fflush(stdout);
	for (;;)
		pause();
}

static bool is_let_go(int nr)
{
	return nr % 5 == 3;
}

static int publish_some(int dir, int proc, int nr)
{
	char name[32], path[64];

	for (int i = 0; i < nr; i++) {
		int fd = make(dir, proc, i);

		if (fd < 0)
			return 1;
		snprintf(name, sizeof(name), "%d-%d", proc, i);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (!is_let_go(i) && linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW) < 0)
			return say("linkat", i);
		if (close(fd) < 0)
			return say("close", i);
		if (i == 0) {
			printf("going\n");
			fflush(stdout);
		}
	}
	return 0;
}

static int check_one(int dir, const char *name, int proc, int nr)
{
	static char buf[BYTES + 1];
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	size_t got = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return say("open", nr);
	while ((n = read(fd, buf + got, sizeof(buf) - got)) > 0)
		got += (size_t)n;
	fill(proc, nr);
	if (n < 0 || got != BYTES || memcmp(buf, content, BYTES) != 0 || fstat(fd, &st) < 0 || st.st_nlink != 1) {
		printf("%s is not what was linked: %zu bytes\n", name, got);
		close(fd);
		return 1;
	}
	close(fd);
	return 0;
}

static int check_all(int dir, int nr, int procs)
{
	int bad = 0, entries = 0, want = 0;
	struct dirent *e;
	char name[32];
	DIR *d;

	for (int p = 0; p < procs; p++) {
		for (int i = 0; i < nr; i++) {
			if (is_let_go(i))
				continue;
			snprintf(name, sizeof(name), "%d-%d", p, i);
			bad |= check_one(dir, name, p, i);
			want++;
		}
	}
	d = fdopendir(dir);
	while (d && (e = readdir(d)))
		entries += e->d_name[0] != '.';
	if (entries != want) {
		printf("%d entries, %d were linked\n", entries, want);
		bad = 1;
	}
	return bad;
}

static int publish(int dir, int nr, int procs)
{
	int status, bad = 0;

	for (int p = 0; p < procs; p++) {
		pid_t pid = fork();

		if (pid < 0)
			return 2;
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(publish_some(dir, p, nr));
		}
	}
	while (wait(&status) > 0)
		bad |= status != 0;
	return bad ? 1 : check_all(dir, nr, procs);
}

/* ---- two nodes ---- */

static int across_failed;

static void is(bool so, const char *what)
{
	if (!so) {
		across_failed = 1;
		printf("not so: %s: %s\n", what, strerror(errno));
		fflush(stdout);
	}
}

static bool holds(int dir, const char *name, const char *text)
{
	char buf[16] = "";
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

	if (fd >= 0)
		close(fd);
	return n == (ssize_t)strlen(text) && memcmp(buf, text, (size_t)n) == 0;
}

static void put(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	is(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0, name);
}

static unsigned links_of(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, 0) == 0 ? (unsigned)st.st_nlink : 0;
}

static void exchange_across(int a, int b)
{
	put(a, "x", "x");
	put(b, "y", "y");
	for (int i = 0; i < 20; i++) {
		int who = i % 4 < 2 ? a : b;

		is(holds(a, "x", i % 2 ? "y" : "x") && holds(b, "x", i % 2 ? "y" : "x"), "x before an exchange");
		is(renameat2(who, "x", who, "y", RENAME_EXCHANGE) == 0, "exchange");
		is(holds(b, "x", i % 2 ? "x" : "y") && holds(a, "x", i % 2 ? "x" : "y"), "x after it");
		is(holds(b, "y", i % 2 ? "y" : "x") && holds(a, "y", i % 2 ? "y" : "x"), "y after it");
	}
	is(mkdirat(a, "d1", 0755) == 0 && mkdirat(b, "d2", 0755) == 0 && mkdirat(b, "d1/sub", 0755) == 0, "mkdir");
	put(a, "d2/file", "file");
	is(links_of(b, "d1") == 3 && links_of(a, "d2") == 2, "links before an exchange");
	is(renameat2(a, "d1/sub", a, "d2/file", RENAME_EXCHANGE) == 0, "exchange of a directory and a file");
	is(links_of(b, "d1") == 2 && links_of(b, "d2") == 3 && holds(b, "d1/sub", "file"), "what the other sees");
	is(renameat2(b, "d2", b, "d2/file", RENAME_EXCHANGE) < 0 && errno == EINVAL, "exchange with what is above");
	is(unlinkat(b, "d1/sub", 0) == 0 && unlinkat(a, "d2/file", AT_REMOVEDIR) == 0 &&
	   unlinkat(b, "d1", AT_REMOVEDIR) == 0 && unlinkat(a, "d2", AT_REMOVEDIR) == 0, "all can go");
	is(unlinkat(a, "x", 0) == 0 && unlinkat(b, "y", 0) == 0, "these too");
}

static int across(int a, const char *b_path)
{
	int fd = make(a, 0, 7), b = open(b_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[64], line[8];
	static char buf[BYTES];
	struct stat st;

	if (fd < 0 || b < 0)
		return 1;
	is(fsync(fd) == 0, "fsync");
	exchange_across(a, b);
	close(b);
	printf("held\n");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 2;
	b = open(b_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	is(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == (off_t)BYTES, "a file without a name stays");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	is(linkat(AT_FDCWD, path, a, "0-7", AT_SYMLINK_FOLLOW) == 0, "it gets a name");
	is(check_one(b, "0-7", 0, 7) == 0, "the other reads it");
	is(unlinkat(b, "0-7", 0) == 0, "the other removes it");
	is(linkat(AT_FDCWD, path, a, "again", AT_SYMLINK_FOLLOW) < 0 && errno == ENOENT, "it does not come back");
	fill(0, 7);
	is(pread(fd, buf, BYTES, 0) == (ssize_t)BYTES && memcmp(buf, content, BYTES) == 0, "who has it open reads it");
	close(fd);
	close(b);
	return across_failed;
}

int main(int argc, char **argv)
{
	int dir = argc > 3 ? open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (dir >= 0 && argc == 4 && strcmp(argv[1], "hold") == 0)
		return hold(dir, atoi(argv[3]));
	if (dir >= 0 && argc == 5 && strcmp(argv[1], "publish") == 0)
		return publish(dir, atoi(argv[3]), atoi(argv[4]));
	if (dir >= 0 && argc == 4 && strcmp(argv[1], "across") == 0)
		return across(dir, argv[3]);
	fprintf(stderr, "usage: unnamed hold DIR NR | publish DIR NR PROCS | across A B\n");
	return 2;
}
