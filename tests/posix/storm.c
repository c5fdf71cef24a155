/*
 * storm SECONDS DIR DIR...: one directory of one filesystem at several mounts, and everything at once that could
 * make a revoke wait for itself.
 *
 * At each mount: writing one file, reading it, storing to a mapping of it with msync, faulting its pages in again and
 * again, truncating it meanwhile; making, renaming, removing names, looking for them and listing; and writing more than
 * the pool holds, with fsync.  Those who store and who make names are stopped (SIGSTOP) now and then in the middle of
 * it.  Who is not stopped must get something done within LIMIT_S, and no call may fail but for a name that is gone or there.
 *
 * It speaks TAP without numbers.  The directory is left empty.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOUNTS_MAX	8
#define LIMIT_S		60
#define MAPPED		(1u << 20)
#define SIZE		(2u << 20)
#define NAMES		8

struct worker {
	pid_t pid;
	const char *dir;
	const char *kind;
	atomic_ulong ops;
	unsigned long seen;		/* ops at since_ms */
	long since_ms, longest_ms;
	long stopped_until_ms;		/* 0: it runs */
	bool may_stop;
	char said[160];			/* by one that ends: which call failed, and how */
};

static struct worker *me;
static unsigned seed;

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static unsigned any(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

/* A call that may fail with these two errors. */
static void done(bool good, int a, int b, const char *what)
{
	if (!good && errno != a && errno != b) {
		snprintf(me->said, sizeof(me->said), "%s: %s", what, strerror(errno));
		_exit(1);
	}
	atomic_fetch_add(&me->ops, 1);
}

static int hot(int flags)
{
	int fd = open("hot", flags);

	done(fd >= 0, 0, 0, "open");
	return fd;
}

static void *map(int fd, int prot)
{
	void *p = mmap(NULL, MAPPED, prot, MAP_SHARED, fd, 0);

	done(p != MAP_FAILED, 0, 0, "mmap");
	return p;
}

static void work_write(void)
{
	static char buf[65536];
	int fd = hot(O_WRONLY);

	for (;;) {
		size_t len = 1 + any(any(4) ? 200 : sizeof(buf));

		done(pwrite(fd, buf, len, any(MAPPED - sizeof(buf))) == (ssize_t)len, 0, 0, "write");
	}
}

static void work_append(void)
{
	int fd = open("log", O_WRONLY | O_APPEND | O_CREAT, 0644);

	done(fd >= 0, 0, 0, "create");
	for (;;)
		done(write(fd, "a line that all append to one file, from all mounts at the same time\n", 69) == 69, 0, 0,
		     "append");
}

static void work_read(void)
{
	static char buf[65536];
	int fd = hot(O_RDONLY);

	for (;;)
		done(pread(fd, buf, 1 + any(sizeof(buf)), any(MAPPED)) > 0, 0, 0, "read");
}

static void work_store(void)
{
	char *p = map(hot(O_RDWR), PROT_READ | PROT_WRITE);

	for (;;) {
		for (unsigned n = any(40); n; n--)
			p[any(MAPPED)]++;
		done(msync(p, MAPPED, any(3) ? MS_SYNC : MS_ASYNC) == 0, 0, 0, "msync");
	}
}

static void work_fault(void)
{
	int fd = hot(O_RDONLY);
	volatile char *p = map(fd, PROT_READ);

	for (;;) {
		for (unsigned n = any(20); n; n--)
			(void)p[any(MAPPED)];
		done(madvise((void *)p, MAPPED, MADV_DONTNEED) == 0, 0, 0, "madvise");
		posix_fadvise(fd, 0, MAPPED, POSIX_FADV_DONTNEED);
	}
}

/* Behind what is mapped. */
static void work_truncate(void)
{
	int fd = hot(O_RDWR);
	char *p = map(fd, PROT_READ | PROT_WRITE);

	for (;;) {
		p[any(MAPPED)]++;
		done(ftruncate(fd, MAPPED + any(SIZE - MAPPED)) == 0, 0, 0, "truncate");
	}
}

static void work_name(void)
{
	char a[16], b[16];
	int fd;

	for (;;) {
		snprintf(a, sizeof(a), "d/%u", any(NAMES));
		snprintf(b, sizeof(b), "d/%u", any(NAMES));
		fd = open(a, O_CREAT | O_RDWR, 0644);
		done(fd >= 0, ENOENT, ESTALE, "create");
		if (fd >= 0)
			close(fd);
		done(rename(a, b) == 0, ENOENT, 0, "rename");
		if (any(2))
			done(unlink(b) == 0, ENOENT, 0, "unlink");
	}
}

static void work_look(void)
{
	struct stat st;
	char a[16];
	DIR *d;

	for (;;) {
		snprintf(a, sizeof(a), "d/%u", any(NAMES * 2));
		done(stat(a, &st) == 0, ENOENT, ESTALE, "stat");
		if (any(4))
			continue;
		d = opendir("d");
		done(d, 0, 0, "opendir");
		while (d && readdir(d))
			;
		closedir(d);
	}
}

/* More than the pool holds, all the time. */
static void work_fill(void)
{
	static char buf[1 << 20];
	char name[32];
	int fd;

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof(name), "fill-%d-%u", (int)getpid(), i % 4);
		fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
		done(fd >= 0, 0, 0, "create");
		for (int n = 0; n < 8; n++)
			done(write(fd, buf, sizeof(buf)) == sizeof(buf), 0, 0, "fill");
		if (any(2))
			done(fsync(fd) == 0, 0, 0, "fsync");
		close(fd);
	}
}

static const struct {
	const char *kind;
	void (*work)(void);
	bool may_stop;
} kinds[] = {
	{ "write", work_write, false },		{ "append", work_append, false },
	{ "read", work_read, false },		{ "store", work_store, true },
	{ "fault", work_fault, false },		{ "truncate", work_truncate, false },
	{ "name", work_name, true },		{ "look", work_look, false },
	{ "fill", work_fill, false },
};
#define KINDS (int)(sizeof(kinds) / sizeof(kinds[0]))

static void start(struct worker *w, int kind)
{
	pid_t pid;

	w->kind = kinds[kind].kind;
	w->may_stop = kinds[kind].may_stop;
	w->since_ms = now_ms();
	pid = fork();
	if (pid < 0)
		exit(2);
	if (pid) {
		w->pid = pid;	/* not in the child, which has the same memory */
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = w;
	seed = (unsigned)getpid();
	done(chdir(w->dir) == 0, 0, 0, "chdir");
	kinds[kind].work();
}

/* False: it got nothing done for too long. */
static bool look_at(struct worker *w, long now)
{
	unsigned long ops = atomic_load(&w->ops);

	if (w->stopped_until_ms && now >= w->stopped_until_ms) {
		kill(w->pid, SIGCONT);
		w->stopped_until_ms = 0;
		w->since_ms = now;
	} else if (!w->stopped_until_ms && w->may_stop && any(20) == 0) {
		kill(w->pid, SIGSTOP);
		w->stopped_until_ms = now + 200 + any(1500);
	}
	if (ops != w->seen || w->stopped_until_ms) {
		w->seen = ops;
		w->since_ms = now;
	}
	if (now - w->since_ms > w->longest_ms)
		w->longest_ms = now - w->since_ms;
	return now - w->since_ms < LIMIT_S * 1000;
}

/* What the first that has ended says of it.  False: none has. */
static bool any_ended(const struct worker *w, int nr)
{
	int status, i;
	pid_t pid = waitpid(-1, &status, WNOHANG);

	for (i = 0; i < nr && w[i].pid != pid; i++)
		;
	if (pid <= 0 || i == nr)
		return false;
	printf("not ok - a call failed that may not: %s: %s: %s\n", w[i].dir, w[i].kind,
	       WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : w[i].said);
	return true;
}

static void empty(const char *dir)
{
	char path[4096];
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d))) {
		if (snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < (int)sizeof(path) && e->d_name[0] != '.')
			unlink(path);
	}
	if (d)
		closedir(d);
}

int main(int argc, char **argv)
{
	int dirs_nr = argc - 2, nr = 0, fd;
	bool good = true;
	struct worker *w;
	char path[4096];
	long end;

	if (dirs_nr < 1 || dirs_nr > MOUNTS_MAX) {
		fprintf(stderr, "usage: storm SECONDS DIR...\n");
		return 2;
	}
	w = mmap(NULL, sizeof(*w) * MOUNTS_MAX * KINDS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	snprintf(path, sizeof(path), "%s/d", argv[2]);
	if (w == MAP_FAILED || chdir(argv[2]) < 0 || mkdir("d", 0755) < 0 ||
	    (fd = open("hot", O_CREAT | O_RDWR, 0644)) < 0 || ftruncate(fd, SIZE) < 0) {
		printf("not ok - the storm begins: %s\n", strerror(errno));
		return 1;
	}
	close(fd);
	seed = 1;
	for (int m = 0; m < dirs_nr; m++) {
		for (int k = 0; k < KINDS; k++) {
			w[nr].dir = argv[2 + m];
			start(&w[nr++], k);
		}
	}
	end = now_ms() + atol(argv[1]) * 1000;
	while (good && now_ms() < end) {
		usleep(50000);
		for (int i = 0; i < nr && good; i++) {
			good = look_at(&w[i], now_ms());
			if (!good)
				printf("not ok - %s: nobody does '%s' any more: nothing for %d s\n", w[i].dir,
				       w[i].kind, LIMIT_S);
		}
		good = good && !any_ended(w, nr);
	}
	for (int i = 0; i < nr; i++)
		kill(w[i].pid, SIGKILL);
	while (wait(NULL) > 0)
		;
	for (int k = 0; k < KINDS && good; k++) {
		unsigned long ops = 0;
		long longest = 0;

		for (int i = k; i < nr; i += KINDS) {
			ops += atomic_load(&w[i].ops);
			longest = w[i].longest_ms > longest ? w[i].longest_ms : longest;
		}
		printf("%s - %s goes on: %lu times, the longest wait %ld ms\n", ops ? "ok" : "not ok", kinds[k].kind, ops,
		       longest);
		good = good && ops;
	}
	if (!good)
		return 1;	/* it may hang: nothing is touched any more */
	empty("d");
	empty(".");
	if (rmdir("d") < 0) {
		printf("not ok - the directory can be emptied: %s\n", strerror(errno));
		good = false;
	}
	return !good;
}
