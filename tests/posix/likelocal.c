/*
 * likelocal DIR < LIST: do what the list says in DIR, a fresh directory, and print what came of it, a line for each: what
 * two filesystems print is compared.  No number that one may choose for itself (inodes, blocks, times) is printed.
 *
 * A line of the list is an operation and its arguments; it is done for each argument, whose parts are parted by commas.
 *   section NAME       go to a new directory of that name
 *   as UID GID [GID..] who does what follows: not root but these, groups last; "as 0 0": root again
 *   watch PATH...      from here on say whose mtime (m) and ctime (c) each operation has changed; none: no more
 *   # ...              nothing
 * In arguments @N is a name of N letters, @/N a path of N letters to the file f, and "" nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PARTS	4
#define WATCHED	4
#define WORDS	64

static char *part[PARTS];	/* of the argument at hand; "" where there is none */
static gid_t groups[8];
static size_t groups_nr;
static uid_t uid;
static gid_t gid;
static char section[64] = "";
static const char *top;
static char watched[WATCHED][256];
static struct stat was[WATCHED];

static long num(unsigned i) { return strtol(part[i], NULL, 0); }
static mode_t octal(unsigned i, mode_t other) { return *part[i] ? (mode_t)strtoul(part[i], NULL, 8) : other; }

/* Letters, each a flag of open(2). */
static int flags_of(const char *s)
{
	static const struct { char c; int flag; } all[] = {
		{ 'r', O_RDONLY }, { 'w', O_WRONLY }, { 'b', O_RDWR }, { 'c', O_CREAT }, { 'x', O_EXCL }, { 't', O_TRUNC },
		{ 'a', O_APPEND }, { 'd', O_DIRECTORY }, { 'n', O_NOFOLLOW }, { 'p', O_PATH }, { 'i', O_DIRECT },
		{ 'T', O_TMPFILE }, { 'k', O_NONBLOCK }, { 'm', O_NOATIME },
	};
	int flags = 0;

	for (; *s; s++) {
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			flags |= *s == all[i].c ? all[i].flag : 0;
	}
	return flags;
}

static long closed(int fd)
{
	return fd < 0 ? fd : close(fd);
}

/* f on a descriptor of the first part, opened as it says. */
#define WITH_FD(flags, call)                                                                       \
	do {                                                                                       \
		int fd = open(part[0], flags), err;                                                \
		long ret = fd < 0 ? -1 : (call);                                                   \
		err = errno;                                                                       \
		if (fd >= 0)                                                                       \
			close(fd);                                                                 \
		errno = err;                                                                       \
		return ret;                                                                        \
	} while (0)

static long do_open(void) { return closed(open(part[0], flags_of(part[1]), octal(2, 0644))); }
static long do_mkdir(void) { return mkdir(part[0], octal(1, 0755)); }
static long do_rmdir(void) { return rmdir(part[0]); }
static long do_unlink(void) { return unlink(part[0]); }
static long do_link(void) { return link(part[0], part[1]); }
static long do_follow(void) { return linkat(AT_FDCWD, part[0], AT_FDCWD, part[1], AT_SYMLINK_FOLLOW); }
static long do_symlink(void) { return symlink(part[0], part[1]); }
static long do_rename(void) { return rename(part[0], part[1]); }
static long do_noreplace(void) { return renameat2(AT_FDCWD, part[0], AT_FDCWD, part[1], RENAME_NOREPLACE); }
static long do_exchange(void) { return renameat2(AT_FDCWD, part[0], AT_FDCWD, part[1], RENAME_EXCHANGE); }
static long do_fifo(void) { return mknod(part[0], S_IFIFO | octal(1, 0644), 0); }
static long do_reg(void) { return mknod(part[0], S_IFREG | octal(1, 0644), 0); }
static long do_chr(void) { return mknod(part[0], S_IFCHR | octal(1, 0644), 0x103); }
static long do_chmod(void) { return chmod(part[0], octal(1, 0)); }
static long do_chown(void) { return chown(part[0], (uid_t)num(1), (gid_t)num(2)); }
static long do_lchown(void) { return lchown(part[0], (uid_t)num(1), (gid_t)num(2)); }
static long do_truncate(void) { return truncate(part[0], num(1)); }
static long do_access(void) { return access(part[0], (int)num(1)); }
static long do_exec(void) { return execl(part[0], part[0], NULL); }
static long do_setx(void) { return lsetxattr(part[0], part[1], part[2], strlen(part[2]), (int)num(3)); }
static long do_getx(void) { return lgetxattr(part[0], part[1], NULL, 0); }
static long do_delx(void) { return lremovexattr(part[0], part[1]); }
static long do_listx(void) { return llistxattr(part[0], NULL, 0); }
static long do_ftruncate(void) { WITH_FD(flags_of(part[1]), ftruncate(fd, num(2))); }
static long do_write(void) { WITH_FD(O_WRONLY, pwrite(fd, "wwwwwwwwwwwwwwww", (size_t)num(2), num(1))); }
static long do_append(void) { WITH_FD(O_WRONLY | O_APPEND, pwrite(fd, "aaaaaaaa", (size_t)num(1), 0)); }
static long do_falloc(void) { WITH_FD(O_RDWR, fallocate(fd, (int)num(1), num(2), num(3))); }
static long do_fsetx(void) { WITH_FD(flags_of(part[1]), fsetxattr(fd, part[2], "v", 1, 0)); }
static long do_dir(void) { return closed(open(part[0], O_RDONLY | O_DIRECTORY)); }

static long do_bigx(void)
{
	static char value[70000];
	long len = num(2);

	return lsetxattr(part[0], part[1], value, (size_t)len, 0);
}

static long do_touch(void)
{
	int fd = open(part[0], O_CREAT | O_WRONLY | O_TRUNC, 0600);

	if (fd < 0 || write(fd, "hello", 5) != 5 || fchmod(fd, octal(1, 0644)) < 0)
		return -1;
	return close(fd);
}

/* A store to a mapping, synced. */
static long do_map(void)
{
	int fd = open(part[0], O_RDWR), ret = -1;
	char *m = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (m != MAP_FAILED) {
		m[num(1)]++;
		ret = msync(m, 4096, MS_SYNC);
		munmap(m, 4096);
	}
	if (fd >= 0)
		close(fd);
	return ret;
}

static struct timespec time_of(const char *s)
{
	if (strcmp(s, "now") == 0)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	if (strcmp(s, "omit") == 0)
		return (struct timespec){ .tv_nsec = UTIME_OMIT };
	return (struct timespec){ .tv_sec = strtol(s, NULL, 0), .tv_nsec = 123456789 };
}

static long do_utimes(void)
{
	struct timespec ts[2] = { time_of(part[1]), time_of(part[2]) };

	return utimensat(AT_FDCWD, part[0], *part[1] ? ts : NULL, AT_SYMLINK_NOFOLLOW);
}

static long do_mtime(void)
{
	struct stat st;

	if (lstat(part[0], &st) < 0)
		return -1;
	printf("    %s: mtime %ld.%09ld\n", part[0], (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	return 0;
}

static long do_show(void)
{
	char target[4097] = "";
	struct stat st;

	if (lstat(part[0], &st) < 0)
		return -1;
	printf("    %s: %o of %u:%u, %lu links", part[0], st.st_mode, st.st_uid, st.st_gid, (unsigned long)st.st_nlink);
	if (S_ISREG(st.st_mode))
		printf(", %ld bytes", (long)st.st_size);
	if (S_ISLNK(st.st_mode))
		printf(", target of %zd", readlink(part[0], target, sizeof(target)));
	printf("\n");
	return 0;
}

static const struct { const char *name; long (*run)(void); } ops[] = {
#define OP(name) { #name, do_##name }
	OP(open), OP(mkdir), OP(rmdir), OP(unlink), OP(link), OP(follow), OP(symlink), OP(rename), OP(noreplace),
	OP(exchange), OP(fifo), OP(reg), OP(chr), OP(chmod), OP(chown), OP(lchown), OP(truncate), OP(access), OP(exec),
	OP(setx), OP(getx), OP(delx), OP(listx), OP(ftruncate), OP(write), OP(append), OP(falloc), OP(fsetx), OP(dir),
	OP(bigx), OP(touch), OP(map), OP(utimes), OP(mtime), OP(show),
#undef OP
};

static int by_time(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? (a.tv_sec < b.tv_sec ? -1 : 1) : (a.tv_nsec > b.tv_nsec) - (a.tv_nsec < b.tv_nsec);
}

/* A time that is given to a file from here on is later than what it has. */
static void watch_begin(void)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	struct timespec now, coarse;

	for (unsigned i = 0; i < WATCHED && *watched[i]; i++)
		lstat(watched[i], &was[i]);
	clock_gettime(CLOCK_REALTIME, &now);
	do {
		nanosleep(&ms, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
	} while (by_time(coarse, now) <= 0);
}

static void watch_end(void)
{
	struct stat st;

	for (unsigned i = 0; i < WATCHED && *watched[i]; i++) {
		if (lstat(watched[i], &st) < 0)
			printf(" %s[gone]", watched[i]);
		else
			printf(" %s[%s%s]", watched[i], by_time(st.st_mtim, was[i].st_mtim) ? "m" : "",
			       by_time(st.st_ctim, was[i].st_ctim) ? "c" : "");
	}
}

static void run(long (*op)(void))
{
	long ret = op();

	if (ret < 0)
		printf(" = %s", strerrorname_np(errno));
	else
		printf(" = %ld", ret);
	fflush(stdout);
}

/* Root does it itself; others in a process of their own. */
static void run_as(long (*op)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	if (uid == 0) {
		run(op);
		return;
	}
	pid = fork();
	if (pid == 0) {
		if (setgroups(groups_nr, groups) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
			_exit(1);
		run(op);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		printf(" ended with status %x", status);
}

/* @N and @/N and "" */
static char *expand(char *s)
{
	bool is_path = s[0] == '@' && s[1] == '/';
	size_t len = s[0] == '@' ? strtoul(s + 1 + is_path, NULL, 10) : 0;
	char *p;

	if (strcmp(s, "\"\"") == 0)
		return strdup("");
	if (!len)
		return strdup(s);
	p = malloc(len + 1);
	memset(p, 'n', len);
	/* ./././f, and .//f */
	for (size_t i = 0; is_path && i + 1 < len; i++)
		p[i] = i % 2 || i + 2 == len ? '/' : '.';
	if (is_path)
		p[len - 1] = 'f';
	p[len] = 0;
	return p;
}

static void each(const char *name, long (*op)(void), char *arg)
{
	char *rest = strdup(arg), *next = rest;

	for (unsigned i = 0; i < PARTS; i++) {
		char *s = next ? strsep(&next, ",") : "";

		part[i] = expand(s);
	}
	printf("%s: %s %s", section, name, arg);
	if (op == do_show || op == do_mtime)
		printf("\n");
	if (*watched[0])
		watch_begin();
	run_as(op);
	if (*watched[0])
		watch_end();
	printf("\n");
	for (unsigned i = 0; i < PARTS; i++)
		free(part[i]);
	free(rest);
}

static int begin_section(const char *name)
{
	snprintf(section, sizeof(section), "%s", name);
	uid = gid = 0;
	groups_nr = 0;
	memset(watched, 0, sizeof(watched));
	return chdir(top) < 0 || mkdir(name, 0777) < 0 || chdir(name) < 0 || chmod(".", 0777) < 0;
}

static void become(char *const word[], unsigned nr)
{
	uid = (uid_t)strtoul(word[1], NULL, 0);
	gid = (gid_t)strtoul(word[2], NULL, 0);
	groups_nr = 0;
	for (unsigned i = 3; i < nr && groups_nr < 8; i++)
		groups[groups_nr++] = (gid_t)strtoul(word[i], NULL, 0);
	printf("%s: as %u %u\n", section, uid, gid);
}

static int line(char *text)
{
	char *word[WORDS] = { NULL }, *save;
	unsigned nr = 0;

	for (char *w = strtok_r(text, " \t\n", &save); w && nr < WORDS; w = strtok_r(NULL, " \t\n", &save))
		word[nr++] = w;
	if (!nr || word[0][0] == '#')
		return 0;
	if (strcmp(word[0], "section") == 0 && nr == 2)
		return begin_section(word[1]);
	if (strcmp(word[0], "as") == 0 && nr >= 3) {
		become(word, nr);
		return 0;
	}
	if (strcmp(word[0], "watch") == 0) {
		memset(watched, 0, sizeof(watched));
		for (unsigned i = 1; i < nr && i <= WATCHED; i++)
			snprintf(watched[i - 1], sizeof(watched[0]), "%s", word[i]);
		return 0;
	}
	for (size_t o = 0; o < sizeof(ops) / sizeof(ops[0]); o++) {
		for (unsigned i = 1; i < nr && strcmp(ops[o].name, word[0]) == 0; i++)
			each(ops[o].name, ops[o].run, word[i]);
		if (strcmp(ops[o].name, word[0]) == 0)
			return 0;
	}
	fprintf(stderr, "likelocal: the list says '%s', which is no operation\n", word[0]);
	return 1;
}

int main(int argc, char **argv)
{
	char *text = NULL;
	size_t size = 0;

	if (argc != 2 || argv[1][0] != '/' || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: likelocal /DIR <LIST\n");
		return 2;
	}
	top = argv[1];
	umask(022);
	while (getline(&text, &size, stdin) > 0) {
		if (line(text)) {
			fprintf(stderr, "likelocal: %s: %s\n", section, strerror(errno));
			return 1;
		}
	}
	free(text);
	return 0;
}
