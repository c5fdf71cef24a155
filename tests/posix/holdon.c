/*
 * holdon DIR: what a program can have in hand when the process behind its mount is replaced.
 *
 * It opens, maps, locks and lists, says "ready" and waits for a line of its input, again and again: each
 * time the test has replaced the process meanwhile.  Then everything in hand must be as it was and go on
 * working.  "quit" ends it.  It speaks TAP without numbers: "ok - TEXT", "not ok - TEXT".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRIES		3000
#define LISTED		700	/* names read before the process is replaced */
#define MAP_BYTES	(1u << 20)
#define LINE		17	/* what one append writes */
#define APPENDERS	4

static bool failed;

static void check(bool ok, const char *what, int round)
{
	if (!ok) {
		failed = true;
		printf("not ok - round %d: %s: %s\n", round, what, strerror(errno));
		fflush(stdout);
	}
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	printf("not ok - %s: %s\n", what, strerror(errno));
	fflush(stdout);
	exit(1);
}

/* ---- appends: each exactly once, whatever is sent again -------------------------------------- */

static atomic_bool stop;
static atomic_ulong appended, append_errors;

static void *append(void *arg)
{
	int fd = open("log", O_WRONLY | O_APPEND), mine = (int)(long)arg;
	char line[LINE + 1];

	for (unsigned long n = 0; fd >= 0 && !atomic_load(&stop); n++) {
		snprintf(line, sizeof(line), "%02d %012lu\n", mine, n);
		line[LINE - 1] = '\n';
		if (write(fd, line, LINE) != LINE)
			atomic_fetch_add(&append_errors, 1);
		else
			atomic_fetch_add(&appended, 1);
	}
	close(fd);
	return NULL;
}

/* Numbers of each appender must be there one after another. */
static bool log_is_right(void)
{
	unsigned long next[APPENDERS] = { 0 }, lines = 0, n;
	FILE *f = fopen("log", "r");
	char line[LINE + 1];
	int who;

	if (!f)
		return false;
	while (fread(line, LINE, 1, f) == 1) {
		line[LINE - 1] = 0;
		if (sscanf(line, "%d %lu", &who, &n) != 2 || who < 0 || who >= APPENDERS || n != next[who]++) {
			fprintf(stderr, "holdon: line %lu is '%s'\n", lines, line);
			fclose(f);
			return false;
		}
		lines++;
	}
	fclose(f);
	if (lines != atomic_load(&appended))
		fprintf(stderr, "holdon: %lu lines, %lu were written\n", lines, atomic_load(&appended));
	return lines == atomic_load(&appended);
}

/* ---- the rest -------------------------------------------------------------------------------- */

struct hand {
	int kept, gone, locked;		/* descriptors: a file, an unlinked one, one with a lock */
	int unnamed;			/* one that never had a name */
	char *map;
	DIR *dir;
	char seen[ENTRIES];
	int listed;
};

static void make_unnamed(struct hand *h)
{
	h->unnamed = open(".", O_TMPFILE | O_RDWR, 0644);
	must(h->unnamed >= 0 && pwrite(h->unnamed, "unnamed", 7, 0) == 7, "O_TMPFILE");
}

/* It gets its first name; a file that has lost its last one gets none. */
static void name_unnamed(struct hand *h, int round)
{
	char name[32], path[64], buf[16] = "";
	int fd;

	snprintf(name, sizeof(name), "named%d", round);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", h->unnamed);
	check(linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0, "a file without a name gets one", round);
	close(h->unnamed);
	fd = open(name, O_RDONLY);
	check(fd >= 0 && read(fd, buf, sizeof(buf)) == 7 && memcmp(buf, "unnamed", 7) == 0, "and is whole", round);
	close(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", h->gone);
	check(linkat(AT_FDCWD, path, AT_FDCWD, "gone", AT_SYMLINK_FOLLOW) < 0 && errno == ENOENT,
	      "an unlinked one gets none", round);
	make_unnamed(h);
}

static void take_in_hand(struct hand *h)
{
	char name[64];

	must(mkdir("many", 0755) == 0 && mkdir("cwd", 0755) == 0, "mkdir");
	for (int i = 0; i < ENTRIES; i++) {
		int fd;

		snprintf(name, sizeof(name), "many/%04d", i);
		fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
		must(fd >= 0, name);
		close(fd);
	}
	h->kept = open("kept", O_CREAT | O_RDWR, 0644);
	must(h->kept >= 0 && pwrite(h->kept, "kept", 4, 0) == 4, "kept");
	h->gone = open("gone", O_CREAT | O_RDWR, 0644);
	must(h->gone >= 0 && pwrite(h->gone, "gone", 4, 0) == 4 && unlink("gone") == 0, "gone");
	make_unnamed(h);
	h->locked = open("locked", O_CREAT | O_RDWR, 0644);
	must(h->locked >= 0 && flock(h->locked, LOCK_EX) == 0, "flock");
	must(ftruncate(h->kept, MAP_BYTES) == 0, "ftruncate");
	h->map = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, h->kept, 0);
	must(h->map != MAP_FAILED, "mmap");
}

static int index_of(const char *name)
{
	int i = atoi(name);

	return name[0] != '.' && i >= 0 && i < ENTRIES ? i : -1;
}

static void begin_list(struct hand *h)
{
	struct dirent *e;

	memset(h->seen, 0, sizeof(h->seen));
	h->dir = opendir("many");
	must(h->dir, "opendir");
	for (h->listed = 0; h->listed < LISTED && (e = readdir(h->dir));) {
		if (index_of(e->d_name) >= 0) {
			h->seen[index_of(e->d_name)]++;
			h->listed++;
		}
	}
}

static void end_list(struct hand *h, int round)
{
	struct dirent *e;
	bool each_once = true;

	while ((e = readdir(h->dir))) {
		if (index_of(e->d_name) >= 0)
			h->seen[index_of(e->d_name)]++;
	}
	for (int i = 0; i < ENTRIES; i++)
		each_once = each_once && h->seen[i] == 1;
	check(each_once, "a listing goes on: each name once", round);
	check(closedir(h->dir) == 0, "closedir", round);
}

/* Another process must still be kept out. */
static bool is_locked_out(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		int fd = open("locked", O_RDWR);

		_exit(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK ? 0 : 1);
	}
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static void use(struct hand *h, int round)
{
	char buf[16] = "", text[16];
	struct stat st;

	snprintf(text, sizeof(text), "%04d", round);
	check(pread(h->kept, buf, 4, 0) == 4 && memcmp(buf, "kept", 4) == 0, "an open file is read", round);
	check(pwrite(h->kept, text, 4, 8) == 4 && pread(h->kept, buf, 4, 8) == 4 &&
	      memcmp(buf, text, 4) == 0, "and written", round);
	check(fstat(h->gone, &st) == 0 && st.st_nlink == 0, "an unlinked file has no link", round);
	check(pread(h->gone, buf, 4, 0) == 4 && memcmp(buf, "gone", 4) == 0, "and is read", round);
	check(pwrite(h->gone, "gone", 4, 0) == 4, "and written", round);
	name_unnamed(h, round);
	check(access(".", R_OK) == 0 && stat(".", &st) == 0 && S_ISDIR(st.st_mode),
	      "the working directory is there", round);
	check(is_locked_out(), "a lock is held", round);
	check(memcmp(h->map, "kept", 4) == 0, "a mapping is read", round);
	for (int i = 1; i < round; i++)
		check(h->map[(size_t)i * 4096 + 1] == (char)i, "with what was stored before", round);
	h->map[(size_t)round * 4096 + 1] = (char)round;
	if (round % 2)
		check(msync(h->map, MAP_BYTES, MS_SYNC) == 0, "msync", round);
	else
		check(msync(h->map, MAP_BYTES, MS_ASYNC) == 0 && sync_file_range(h->kept, 0, 0,
		      SYNC_FILE_RANGE_WRITE) == 0, "writing back", round);
	end_list(h, round);
	begin_list(h);
}

int main(int argc, char **argv)
{
	pthread_t threads[APPENDERS];
	static struct hand h;
	char line[64];
	int round = 0, fd;

	if (argc != 2 || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: holdon DIR\n");
		return 2;
	}
	take_in_hand(&h);
	begin_list(&h);
	fd = open("log", O_CREAT | O_WRONLY, 0644);
	must(fd >= 0, "log");
	close(fd);
	for (long i = 0; i < APPENDERS; i++)
		must(pthread_create(&threads[i], NULL, append, (void *)i) == 0, "thread");
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && strncmp(line, "quit", 4) != 0) {
		use(&h, ++round);
		printf("ready\n");
		fflush(stdout);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < APPENDERS; i++)
		pthread_join(threads[i], NULL);
	closedir(h.dir);
	printf("%s - %d rounds: files, mappings, listings, locks and the working directory go on\n",
	       failed ? "not ok" : "ok", round);
	printf("%s - %lu appends, each is there once\n",
	       log_is_right() && !atomic_load(&append_errors) ? "ok" : "not ok", atomic_load(&appended));
	fflush(stdout);
	return failed;
}
