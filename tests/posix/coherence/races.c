/*
 * The races: a process at each mount, all at once, and nothing that any of them did may be lost.
 */
#include "coherence.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RECORD		251	/* some reach over the end of a page */

/* work() is one process for each mount, all at once; it returns how much it did, -1: it failed. */
struct race {
	const char *text;
	bool (*prepare)(void);
	long (*work)(int at);
	bool (*right)(const long *did);
	void (*end)(void);
};

static bool race_file(void)
{
	return put_bytes(0, "f", "", 0);
}

static long work_append(int at)
{
	int fd = open(path(at, "f"), O_WRONLY | O_APPEND);
	char rec[RECORD];

	memset(rec, ' ', sizeof(rec));
	for (long i = 0; i < records; i++) {
		rec[snprintf(rec, sizeof(rec), "%d %012ld", at, i)] = ' ';
		rec[RECORD - 1] = '\n';
		if (write(fd, rec, RECORD) != RECORD)
			return -1;
	}
	close(fd);
	return records;
}

static bool all_appended(const long *did)
{
	long next[MOUNTS_MAX] = { 0 }, i;
	char rec[RECORD + 1] = "";
	int fd = open(path(0, "f"), O_RDONLY), who;
	bool good = true;

	while (good && read(fd, rec, RECORD) == RECORD) {
		if (sscanf(rec, "%d %ld", &who, &i) != 2 || who < 0 || who >= mounts_nr || i != next[who]++)
			good = saw("a record is '%s'", rec);
	}
	close(fd);
	for (int m = 0; good && m < mounts_nr; m++)
		good = next[m] == did[m] || saw("%ld of %ld records of mount %d", next[m], did[m], m + 1);
	return good;
}

/* A directory is the lock: who makes it has it. */
static long work_count(int at)
{
	int fd = open(path(at, "f"), O_RDWR);

	for (long i = 0; i < records / 3; i++) {
		long v = 0;

		while (mkdir(path(at, "lock"), 0755) < 0) {
			if (errno != EEXIST)
				return -1;
			usleep(1000);
		}
		if (pread(fd, &v, sizeof(v), 0) < 0)
			return -1;
		v++;
		if (pwrite(fd, &v, sizeof(v), 0) != sizeof(v) || rmdir(path(at, "lock")) < 0)
			return -1;
	}
	close(fd);
	return records / 3;
}

static bool all_counted(const long *did)
{
	long want = 0;

	for (int m = 0; m < mounts_nr; m++)
		want += did[m];
	return get(0, "f", want);
}

static long work_create(int at)
{
	long won = 0;

	for (long i = 0; i < records / 2; i++) {
		int fd = open(path(at, "c%ld", i), O_CREAT | O_EXCL | O_WRONLY, 0644);

		if (fd < 0 && errno != EEXIST)
			return -1;
		won += fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	return won;
}

static bool each_created_once(const long *did)
{
	long sum = 0;

	for (int m = 0; m < mounts_nr; m++)
		sum += did[m];
	return sum == records / 2 || saw("%ld names were made %ld times", records / 2, sum);
}

/*
 * open(O_CREAT) of names that others make and remove: it makes or it opens, and fails for nobody.  ESTALE: the name came
 * or went twice while the kernel looked.
 */
static long work_make_or_open(int at)
{
	for (long i = 0; i < records * 4; i++) {
		int fd = open(path(at, "c%ld", i % 4), O_CREAT | O_RDWR | (i % 16 == 15 ? O_TRUNC : 0), 0644);

		if (fd < 0 && errno != ESTALE)
			return -1;
		if (fd >= 0 && (write(fd, "x", 1) != 1 || close(fd) < 0))
			return -1;
		if (unlink(path(at, "c%ld", i % 4)) < 0 && errno != ENOENT)
			return -1;
	}
	return records * 4;
}

/* A symbolic link that all replace and read: the kernel keeps its page locked while it asks for the target. */
static long work_symlink(int at)
{
	char target[64];

	for (long i = 0; i < records * 4; i++) {
		ssize_t n;

		if (i % 4 == 0 && (symlink("a target", path(at, "n%d", at)) < 0 || rename(path(at, "n%d", at), path(at, "s")) < 0))
			return -1;
		n = readlink(path(at, "s"), target, sizeof(target));
		if (n < 0 ? errno != ENOENT && errno != ESTALE : n != 8 || memcmp(target, "a target", 8) != 0)
			return -1;
	}
	return records * 4;
}

static void remove_replaced(void)
{
	unlink(path(0, "s"));
}

static bool all_worked(const long *did)
{
	(void)did;
	return true;
}

static void remove_created(void)
{
	for (long i = 0; i < records; i++)
		unlink(path(0, "c%ld", i));
}

/* Each name has one who takes it away. */
static bool race_names(void)
{
	char name[32];
	bool good = true;

	for (long i = 0; i < records / 2 && good; i++) {
		snprintf(name, sizeof(name), "c%ld", i);
		good = put(0, name, i);
	}
	return good;
}

/*
 * A new name of one's own.  With the same new name for all, several may be told success: rename(2) of two names of one file
 * succeeds and does nothing (POSIX), the kernel says so without a word to the filesystem, and it looks up the old name and
 * then the new one; another node's rename in between makes them one file.  Nothing is lost by that, but success does not say
 * who did it.  RENAME_NOREPLACE does (work_claim), like link(2) and O_EXCL.
 */
static long work_take(int at)
{
	long won = 0;

	for (long i = 0; i < records / 2; i++) {
		int ret = i % 2 ? unlink(path(at, "c%ld", i)) : rename(path(at, "c%ld", i), path(at, "t%d-%ld", at, i));

		if (ret < 0 && errno != ENOENT)
			return -1;
		won += ret == 0;
	}
	return won;
}

/* One name for all, which only the first may take. */
static long work_claim(int at)
{
	long won = 0;

	for (long i = 0; i < records / 2; i++) {
		int ret = renameat2(AT_FDCWD, path(at, "c%ld", i), AT_FDCWD, path(at, "t0-%ld", i), RENAME_NOREPLACE);

		if (ret < 0 && errno != ENOENT && errno != EEXIST)
			return -1;
		won += ret == 0;
	}
	return won;
}

static void remove_taken(void)
{
	for (int m = 0; m < mounts_nr; m++) {
		for (long i = 0; i < records / 2; i++)
			unlink(path(0, "t%d-%ld", m, i));
	}
	remove_created();
}

static long work_link(int at)
{
	for (long i = 0; i < records / 2; i++) {
		if (link(path(at, "f"), path(at, "l%d-%ld", at, i)) < 0)
			return -1;
		if (i % 4 == 3 && unlink(path(at, "l%d-%ld", at, i)) < 0)
			return -1;
	}
	return records / 2 - records / 2 / 4;
}

static bool all_linked(const long *did)
{
	struct stat st;
	long want = 1;

	for (int m = 0; m < mounts_nr; m++)
		want += did[m];
	if (stat(path(0, "f"), &st) < 0)
		return saw("%s", strerror(errno));
	return st.st_nlink == (nlink_t)want || saw("%lu links, not %ld", st.st_nlink, want);
}

static void remove_linked(void)
{
	for (int m = 0; m < mounts_nr; m++) {
		for (long i = 0; i < records / 2; i++)
			unlink(path(0, "l%d-%ld", m, i));
	}
	unlink(path(0, "f"));
}

/* Bytes next to each other, of one page: by writing, and by storing in a mapping. */
static bool race_page(void)
{
	return put_bytes(0, "f", "", 0) && truncate(path(0, "f"), 2 * 4096) == 0;
}

static long work_bytes(int at)
{
	int fd = open(path(at, "f"), O_RDWR);

	for (long i = 0; i < records; i++) {
		char c = (char)(1 + at + i);
		off_t off = i * mounts_nr + at;

		if (pwrite(fd, &c, 1, off % 8192) != 1)
			return -1;
		if (pread(fd, &c, 1, off % 8192) != 1 || c != (char)(1 + at + i))
			return -1;
	}
	close(fd);
	return records;
}

static bool all_bytes(const long *did)
{
	char got[8192];
	int fd = open(path(0, "f"), O_RDONLY);
	ssize_t n = read(fd, got, sizeof(got));

	(void)did;
	close(fd);
	if (n != sizeof(got))
		return saw("%zd bytes", n);
	for (long i = 0; i < records; i++) {
		for (int m = 0; m < mounts_nr; m++) {
			char want = (char)(1 + m + i);

			if (got[i * mounts_nr + m] != want)
				return saw("byte %ld is %d, not %d", i * mounts_nr + m, got[i * mounts_nr + m], want);
		}
	}
	return true;
}

/* What the first mount has written last, for all processes. */
static _Atomic long *written;

static bool race_seen(void)
{
	if (!written)
		written = mmap(NULL, sizeof(*written), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (written == MAP_FAILED)
		return false;
	*written = 0;
	return put(0, "f", 0) && truncate(path(0, "f"), 2 * 4096) == 0;
}

/* Whoever reads without the page cache leaves alone what mappings show, and that has to go with each revoke. */
static pid_t read_directly(int at)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open(path(at, "f"), O_RDONLY | O_DIRECT);
		void *page = aligned_alloc(4096, 2 * 4096);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (fd >= 0 && page && pread(fd, page, 2 * 4096, 0) == 2 * 4096)
			;
		_exit(1);
	}
	return pid;
}

static long work_see(int at)
{
	int fd = open(path(at, "f"), O_RDWR), ended;
	volatile long *seen = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	pid_t reader = at ? read_directly(at) : 0;
	long n = 0, want = 0;

	if (seen == MAP_FAILED || reader < 0)
		return -1;
	for (; at == 0 && n < records; n++) {
		long value = n + 1;

		if (pwrite(fd, &value, sizeof(value), 0) != sizeof(value))
			return -1;
		*written = value;
	}
	while (at && want < records) {
		want = *written;
		if (*seen < want) {
			fprintf(stderr, "coherence: a mapping shows %ld after %ld was written\n", *seen, want);
			n = -1;
			break;
		}
		n++;
	}
	if (reader) {
		bool went_on = waitpid(reader, &ended, WNOHANG) == 0;

		kill(reader, SIGKILL);
		waitpid(reader, &ended, 0);
		n = went_on ? n : -1;
	}
	munmap((void *)seen, 4096);
	close(fd);
	return n;
}

static const struct race races[] = {
	{ "appending at the same time: no record is lost or torn", race_file, work_append, all_appended, remove_file },
	{ "counting under a lock: no increment is lost", race_file, work_count, all_counted, remove_file },
	{ "making the same names: each is made once", NULL, work_create, each_created_once, remove_created },
	{ "open(O_CREAT) of names that come and go: it fails nowhere", NULL, work_make_or_open, all_worked,
	  remove_created },
	{ "reading a symbolic link that is replaced: it goes on", NULL, work_symlink, all_worked, remove_replaced },
	{ "unlinking and renaming the same names: each goes once", race_names, work_take, each_created_once,
	  remove_taken },
	{ "claiming the same names (RENAME_NOREPLACE): each is claimed once", race_names, work_claim, each_created_once,
	  remove_taken },
	{ "linking one file: no link is lost", race_file, work_link, all_linked, remove_linked },
	{ "writing bytes of the same pages: none is lost", race_page, work_bytes, all_bytes, remove_file },
	{ "mappings of what others read directly: none is late", race_seen, work_see, all_worked, remove_file },
};

static long work_of(const struct race *r, int at, int out)
{
	long did;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	errno = 0;
	did = r->work(at);
	if (did < 0)
		fprintf(stderr, "coherence: mount %d: %s\n", at + 1, strerror(errno));
	return write(out, &did, sizeof(did)) == sizeof(did) ? 0 : 1;
}

static void run_race(const struct race *r)
{
	long did[MOUNTS_MAX], sum = 0;
	int out[MOUNTS_MAX][2];
	bool good = !r->prepare || r->prepare();
	double t = now_ms();

	snprintf(why, sizeof(why), "%s", "it could not begin");
	for (int m = 0; m < mounts_nr && good; m++) {
		if (pipe(out[m]) < 0)
			exit(2);
		fflush(stdout);
		if (fork() == 0)
			_exit((int)work_of(r, m, out[m][1]));
		close(out[m][1]);
	}
	for (int m = 0; m < mounts_nr && good; m++) {
		if (read(out[m][0], &did[m], sizeof(did[m])) != sizeof(did[m]))
			did[m] = -1;
		close(out[m][0]);
		sum += did[m];
	}
	while (wait(NULL) > 0)
		;
	t = now_ms() - t;
	for (int m = 0; m < mounts_nr && good; m++)
		good = did[m] >= 0 || saw("a call at mount %d failed", m + 1);
	good = good && r->right(did);
	printf("%s - %s (%.2f ms each)%s%s\n", good ? "ok" : "not ok", r->text, sum > 0 ? t / (double)sum : 0,
	       good ? "" : ": ", good ? "" : why);
	fflush(stdout);
	failed |= !good;
	r->end();
}

void run_races(const char *only)
{
	for (size_t i = 0; i < sizeof(races) / sizeof(races[0]); i++) {
		if (strncmp(races[i].text, only, strlen(only)) == 0)
			run_race(&races[i]);
	}
}
