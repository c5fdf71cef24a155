/*
 * Advisory locks as programs see them.
 *
 *   advlock self DIR             what POSIX and Linux say of flock, fcntl and OFD locks, with processes of one
 *                                host; on a local filesystem as well as on a mount.  "ok - ", "not ok - ".
 *   advlock count FILE N HOW     N times: lock FILE, read the number in it, write the next one, unlock.
 *                                HOW: flock, fcntl, ofd.  The number at the end tells whether any was lost.
 *   advlock brief DIR            takes a lock, asks for one, waits for one until a signal, gives back
 *   advlock bench FILE SECONDS   locks and unlocks a second, and the longest of them
 *   advlock agent DIR            commands on standard input, an answer each on standard output:
 *       open S NAME, close S          descriptor S, made if need be
 *       rd|wr|un S FIRST LEN          F_SETLK; with a w before it (wrd, wwr) F_SETLKW
 *       ord|owr|oun S FIRST LEN       F_OFD_SETLK
 *       sh|ex|no S                    flock with LOCK_NB; with a w before it (wsh, wex) without
 *       get S rd|wr FIRST LEN         F_GETLK: "free", or "rd|wr FIRST LEN PID"
 *       alarm MS                      the next wait is interrupted by a signal every MS, whose handler restarts no call
 *       pid                           its own number
 *       quit
 *     Answers: ok, an error's name, or what is said above.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 8

static int lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, cmd, &l) < 0 ? -errno : 0;
}

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ll + ts.tv_nsec / 1000;
}

/* ---- count, bench ---------------------------------------------------------------------------- */

static int take(int fd, const char *how)
{
	if (strcmp(how, "flock") == 0)
		return flock(fd, LOCK_EX) < 0 ? -errno : 0;
	return lock(fd, strcmp(how, "ofd") == 0 ? F_OFD_SETLKW : F_SETLKW, F_WRLCK, 0, 0);
}

static int give(int fd, const char *how)
{
	if (strcmp(how, "flock") == 0)
		return flock(fd, LOCK_UN) < 0 ? -errno : 0;
	return lock(fd, strcmp(how, "ofd") == 0 ? F_OFD_SETLK : F_SETLK, F_UNLCK, 0, 0);
}

static int count(const char *path, long times, const char *how)
{
	int fd = open(path, O_RDWR), ret = fd < 0 ? -errno : 0;
	char text[32];

	for (long i = 0; i < times && ret == 0; i++) {
		ssize_t n;
		int len;

		ret = take(fd, how);
		if (ret < 0)
			break;
		n = pread(fd, text, sizeof(text) - 1, 0);
		if (n < 0)
			ret = -errno;
		text[n > 0 ? n : 0] = 0;
		len = snprintf(text, sizeof(text), "%ld\n", atol(text) + 1);
		if (ret == 0 && pwrite(fd, text, (size_t)len, 0) != len)
			ret = -EIO;
		if (ret == 0)
			ret = give(fd, how);
	}
	if (ret < 0)
		fprintf(stderr, "%s: %s\n", path, strerror(-ret));
	return ret < 0;
}

static int bench(const char *path, int seconds)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600), ret = fd < 0 ? -errno : 0;
	int64_t begun = now_us(), longest = 0, at = begun;
	long nr = 0;

	while (ret == 0 && at < begun + seconds * 1000000ll) {
		int64_t was = at;

		ret = lock(fd, F_SETLKW, F_WRLCK, 0, 0);
		if (ret == 0)
			ret = lock(fd, F_SETLK, F_UNLCK, 0, 0);
		at = now_us();
		if (at - was > longest)
			longest = at - was;
		nr++;
	}
	if (ret < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(-ret));
		return 1;
	}
	printf("%ld pairs/s, %ld us each, longest %ld us\n", nr / seconds, (long)((at - begun) / nr), (long)longest);
	return 0;
}

/* ---- agent ----------------------------------------------------------------------------------- */

static void on_alarm(int sig)
{
	(void)sig;
}

static const char *name_of(int err)
{
	return err == 0 ? "ok" : strerrorname_np(-err);
}

/* Every `ms`, not once: on a slow machine the first may come before the call that it is to interrupt.  0: no more. */
static void set_alarm(long ms)
{
	struct timeval every = { ms / 1000, ms % 1000 * 1000 };
	struct itimerval it = { every, every };
	struct sigaction sa = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
}

static int flock_alarmed(int fd, int op, long ms)
{
	int ret;

	set_alarm(ms);
	ret = flock(fd, op) < 0 ? -errno : 0;
	set_alarm(0);
	return ret;
}

static int lock_alarmed(int fd, int cmd, short type, off_t start, off_t len, long ms)
{
	int ret;

	set_alarm(ms);
	ret = lock(fd, cmd, type, start, len);
	set_alarm(0);
	return ret;
}

static int open_slot(int *slot, const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	*slot = open(path, O_RDWR | O_CREAT, 0644);
	return *slot < 0 ? -errno : 0;
}

static short type_of(const char *word)
{
	return strcmp(word, "rd") == 0 ? F_RDLCK : strcmp(word, "wr") == 0 ? F_WRLCK : F_UNLCK;
}

static void get(int fd, const char *type, long first, long len)
{
	struct flock l = { .l_type = type_of(type), .l_start = first, .l_len = len };

	if (fcntl(fd, F_GETLK, &l) < 0)
		printf("%s\n", strerrorname_np(errno));
	else if (l.l_type == F_UNLCK)
		printf("free\n");
	else
		printf("%s %ld %ld %d\n", l.l_type == F_RDLCK ? "rd" : "wr", (long)l.l_start, (long)l.l_len,
		       (int)l.l_pid);
}

static int do_command(int *fds, const char *dir, const char *line)
{
	static long alarm_ms;
	char word[16] = "", name[256] = "";
	const char *w = word;
	long a = 0, b = 0, ms = 0;
	int s = 0, op, cmd = F_SETLK, n = sscanf(line, "%15s %d", word, &s);

	if (n < 1 || s < 0 || (s >= SLOTS && strcmp(word, "alarm") != 0))
		return -EINVAL;
	if (strcmp(word, "open") == 0 && sscanf(line, "%*s %*d %255s", name) == 1)
		return open_slot(&fds[s], dir, name);
	if (strcmp(word, "close") == 0)
		return close(fds[s]) < 0 ? -errno : 0;
	if (strcmp(word, "alarm") == 0) {
		alarm_ms = s;
		return 0;
	}
	if (w[0] == 'w' && strcmp(w, "wr") != 0) {
		cmd = F_SETLKW;
		ms = alarm_ms;
		alarm_ms = 0;
		w++;
	} else if (w[0] == 'o') {
		cmd = F_OFD_SETLK;
		w++;
	}
	if (sscanf(line, "%*s %*d %ld %ld", &a, &b) == 2)
		return lock_alarmed(fds[s], cmd, type_of(w), a, b, ms);
	op = strcmp(w, "sh") == 0 ? LOCK_SH : strcmp(w, "ex") == 0 ? LOCK_EX : strcmp(w, "no") == 0 ? LOCK_UN : -1;
	if (op < 0)
		return -EINVAL;
	return flock_alarmed(fds[s], cmd == F_SETLKW ? op : op | LOCK_NB, ms);
}

static int agent(const char *dir)
{
	int fds[SLOTS] = { -1, -1, -1, -1, -1, -1, -1, -1 }, s;
	char line[512], type[3];
	long a, b;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "get %d %2s %ld %ld", &s, type, &a, &b) == 4 && s >= 0 && s < SLOTS)
			get(fds[s], type, a, b);
		else if (strncmp(line, "pid", 3) == 0)
			printf("%d\n", (int)getpid());
		else if (strncmp(line, "quit", 4) == 0)
			break;
		else
			printf("%s\n", name_of(do_command(fds, dir, line)));
	}
	return 0;
}

/* ---- self ------------------------------------------------------------------------------------ */

static bool failed;

static void check(bool is_ok, const char *what)
{
	printf("%s - %s\n", is_ok ? "ok" : "not ok", what);
	fflush(stdout);
	failed = failed || !is_ok;
}

/* Another process: run fn(arg) and give back what it returns. */
static int other(int (*fn)(void *arg), void *arg)
{
	pid_t pid;
	int st = 0;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(fn(arg));
	waitpid(pid, &st, 0);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 255;
}

struct probe {
	const char *path;
	short type;
	off_t start, len;
};

/* 0, or the errno of a lock that another process tries. */
static int run_probe(void *arg)
{
	struct probe *p = arg;
	int fd = open(p->path, O_RDWR);

	return fd < 0 ? errno : -lock(fd, F_SETLK, p->type, p->start, p->len);
}

static bool is_free(const char *path, short type, off_t start, off_t len)
{
	struct probe p = { path, type, start, len };

	return other(run_probe, &p) == 0;
}

/* The types of bytes 0.. as others see them: '.', 'r' or 'w'. */
static const char *see(const char *path, int nr)
{
	static char text[64];

	for (int i = 0; i < nr; i++)
		text[i] = is_free(path, F_WRLCK, i, 1) ? '.' : is_free(path, F_RDLCK, i, 1) ? 'r' : 'w';
	text[nr] = 0;
	return text;
}

static void self_ranges(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600), fd2 = open(path, O_RDWR);
	struct flock l = { .l_type = F_WRLCK, .l_start = 2, .l_len = 1 };

	check(fd >= 0 && fd2 >= 0, "open");
	check(lock(fd, F_SETLK, F_WRLCK, 0, 8) == 0 && strcmp(see(path, 9), "wwwwwwww.") == 0, "a write lock");
	check(lock(fd, F_SETLK, F_RDLCK, 2, 3) == 0 && strcmp(see(path, 9), "wwrrrwww.") == 0,
	      "... made a read lock in its middle");
	check(lock(fd, F_SETLK, F_UNLCK, 3, 1) == 0 && strcmp(see(path, 9), "wwr.rwww.") == 0, "... split");
	check(lock(fd, F_SETLK, F_WRLCK, 2, 3) == 0 && strcmp(see(path, 9), "wwwwwwww.") == 0,
	      "... made whole again");
	check(fcntl(fd, F_GETLK, &l) == 0 && l.l_type == F_UNLCK, "F_GETLK: nobody's but its own");
	check(lock(fd, F_SETLK, F_WRLCK, 10, 0) == 0 && !is_free(path, F_RDLCK, INT64_MAX - 1, 1) &&
	      is_free(path, F_WRLCK, 9, 1), "to the end of the file");
	check(lock(fd2, F_SETLK, F_RDLCK, 0, 4) == 0 && strcmp(see(path, 6), "rrrrww") == 0,
	      "one owner, whichever descriptor");
	close(fd2);
	check(is_free(path, F_WRLCK, 0, 0), "all are gone when any descriptor of the file is closed");
	check(lock(fd, F_SETLK, F_WRLCK, 5, 1) == 0, "lock again");
	close(fd);
	check(is_free(path, F_WRLCK, 0, 0), "closing frees");
}

static int hold_and_die(void *arg)
{
	int fd = open(arg, O_RDWR);

	if (lock(fd, F_SETLK, F_WRLCK, 0, 0) < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 1;
	kill(getpid(), SIGKILL);
	return 2;
}

static int try_flock(void *arg)
{
	int fd = open(arg, O_RDWR);

	return flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
}

static int inherited(void *arg)
{
	/* POSIX locks are not inherited, flock's are. */
	return lock(*(int *)arg, F_SETLK, F_WRLCK, 0, 1) == -EAGAIN && flock(*(int *)arg, LOCK_EX | LOCK_NB) == 0 ? 0 : 1;
}

static void self_owners(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600), fd2 = open(path, O_RDWR), fd3;

	check(other(hold_and_die, (void *)path) == 255 && is_free(path, F_WRLCK, 0, 0) && other(try_flock, (void *)path) == 0,
	      "a killed process leaves no lock");
	check(lock(fd, F_SETLK, F_WRLCK, 0, 1) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0, "POSIX and flock of one file");
	check(other(inherited, &fd) == 0, "a child inherits flock and no POSIX locks");
	check(flock(fd2, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK, "flock excludes another open file");
	fd3 = dup(fd);
	close(fd);
	check(flock(fd2, LOCK_SH | LOCK_NB) < 0, "... while a duplicate is open");
	close(fd3);
	check(flock(fd2, LOCK_SH | LOCK_NB) == 0, "... and not when all are closed");
	fd = open(path, O_RDWR);
	check(flock(fd, LOCK_SH | LOCK_NB) == 0, "two share");
	check(flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "... so neither gets it alone");
	flock(fd2, LOCK_UN);
	check(flock(fd, LOCK_EX | LOCK_NB) == 0 && flock(fd, LOCK_SH | LOCK_NB) == 0 &&
	      flock(fd2, LOCK_SH | LOCK_NB) == 0, "... until the other lets go; and back");
	close(fd);
	close(fd2);
}

static void self_ofd(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600), fd2 = open(path, O_RDWR), fd3 = open(path, O_RDWR);

	check(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 4) == 0, "OFD lock");
	check(lock(fd2, F_OFD_SETLK, F_RDLCK, 3, 1) == -EAGAIN, "... excludes another open file of its process");
	check(lock(fd3, F_SETLK, F_RDLCK, 0, 1) == -EAGAIN, "... and POSIX locks");
	close(fd3);
	check(lock(fd2, F_OFD_SETLK, F_WRLCK, 0, 1) == -EAGAIN, "... and stays when another descriptor is closed");
	close(fd);
	/* RELEASE comes after close. */
	for (int i = 0; i < 1000 && lock(fd2, F_OFD_SETLK, F_WRLCK, 0, 1) < 0; i++)
		usleep(10000);
	check(lock(fd2, F_OFD_SETLK, F_WRLCK, 0, 1) == 0, "... and goes with its open file");
	close(fd2);
}

/* Shared with the other process: who is how far. */
static volatile int *stage;

static void wait_stage(int want)
{
	for (int i = 0; i < 6000 && *stage < want; i++)
		usleep(10000);
}

static int deadlock_peer(void *arg)
{
	int fd = open(arg, O_RDWR), ret;

	ret = lock(fd, F_SETLK, F_WRLCK, 1, 1);
	*stage = ret < 0 ? 9 : 1;
	wait_stage(2);
	return lock(fd, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 0 : 1;	/* waits for its parent */
}

static void self_waits(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600), st, ret;
	struct sigaction sa = { .sa_handler = on_alarm };
	pid_t pid;

	/* A circle of two: whoever closes it is told. */
	*stage = 0;
	check(lock(fd, F_SETLK, F_WRLCK, 0, 1) == 0, "hold the first byte");
	pid = fork();
	if (pid == 0) {
		close(fd);
		_exit(deadlock_peer((void *)path));
	}
	wait_stage(1);
	*stage = 2;
	usleep(300000);		/* it waits now, or will */
	do
		ret = lock(fd, F_SETLKW, F_WRLCK, 1, 1);
	while (ret == -EINTR);
	if (ret == -EDEADLK) {
		check(true, "who would wait for himself gets EDEADLK");
	} else {
		/* The other was late and closed the circle: it was told, and ended. */
		waitpid(pid, &st, 0);
		check(ret == 0 && WIFEXITED(st) && WEXITSTATUS(st) == 1, "who would wait for himself gets EDEADLK (the other)");
		pid = 0;
	}
	lock(fd, F_SETLK, F_UNLCK, 0, 0);
	if (pid) {
		waitpid(pid, &st, 0);
		check(WIFEXITED(st) && WEXITSTATUS(st) == 0, "... and the other gets its lock when it is free");
	}
	/* A signal. */
	*stage = 0;
	pid = fork();
	if (pid == 0) {
		close(fd);
		fd = open(path, O_RDWR);
		sigaction(SIGALRM, &sa, NULL);
		*stage = lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0 && flock(fd, LOCK_EX) == 0 ? 1 : 9;
		pause();
		_exit(0);
	}
	wait_stage(1);
	check(*stage == 1, "another process holds all of it");
	check(lock_alarmed(fd, F_SETLKW, F_RDLCK, 0, 1, 200) == -EINTR,
	      "a wait for a POSIX lock ends with EINTR at a signal");
	check(flock_alarmed(fd, LOCK_SH, 200) == -EINTR, "a wait for flock too");
	close(fd);
	kill(pid, SIGKILL);
	waitpid(pid, &st, 0);
	check(is_free(path, F_WRLCK, 0, 0), "nobody who was interrupted has anything");
}

static int self(const char *dir)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/advlock.%d", dir, (int)getpid());
	stage = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	self_ranges(path);
	self_owners(path);
	self_ofd(path);
	self_waits(path);
	unlink(path);
	return failed;
}

/* One request of each kind. */
static int brief(const char *dir)
{
	struct flock l = { .l_type = F_RDLCK, .l_len = 1 };
	int fd[2], ret;
	char path[512];

	snprintf(path, sizeof(path), "%s/advlock.%d", dir, (int)getpid());
	fd[0] = open(path, O_RDWR | O_CREAT, 0600);
	fd[1] = open(path, O_RDWR);
	if (fd[0] < 0 || fd[1] < 0 || flock(fd[0], LOCK_EX) < 0 || lock(fd[0], F_OFD_SETLKW, F_WRLCK, 0, 1) < 0) {
		perror("lock");
		return 1;
	}
	if (fcntl(fd[1], F_GETLK, &l) < 0 || l.l_type != F_WRLCK) {
		perror("F_GETLK");
		return 1;
	}
	ret = -flock_alarmed(fd[1], LOCK_EX, 100);
	if (ret != EINTR || flock(fd[0], LOCK_UN) < 0 || flock(fd[1], LOCK_EX) < 0) {
		fprintf(stderr, "waiting, and giving back: %s, %s\n", strerror(ret), strerror(errno));
		return 1;
	}
	close(fd[0]);
	close(fd[1]);
	unlink(path);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "self") == 0)
		return self(argv[2]);
	if (argc == 3 && strcmp(argv[1], "agent") == 0)
		return agent(argv[2]);
	if (argc == 3 && strcmp(argv[1], "brief") == 0)
		return brief(argv[2]);
	if (argc == 4 && strcmp(argv[1], "bench") == 0)
		return bench(argv[2], atoi(argv[3]));
	if (argc == 5 && strcmp(argv[1], "count") == 0)
		return count(argv[2], atol(argv[3]), argv[4]);
	fprintf(stderr, "usage: advlock self DIR | brief DIR | count FILE N flock|fcntl|ofd | bench FILE SECONDS | agent DIR\n");
	return 2;
}
