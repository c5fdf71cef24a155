/*
 * POSIX semantics on a mounted directory, seen by a program: names, links, directories under
 * change, times, permissions of others, attributes, open files without names, appending.
 *
 *   semantics DIR             one line per promise: "ok TEXT" or "not ok TEXT: why"; run as root
 *   semantics --patient DIR   statfs(2), interrupted by SIGUSR1 any number of times: 0 if it works
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int failed;

static void report(bool good, const char *why, const char *fmt, ...)
{
	va_list ap;

	printf(good ? "ok " : "not ok ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	if (!good)
		printf(": %s", why);
	putchar('\n');
	failed |= !good;
}

/* A call that must succeed; one that must fail with that error; a condition. */
#define WORKS(call, ...) \
	do { \
		errno = 0; \
		bool good_ = (call) >= 0; \
		report(good_, strerror(errno), __VA_ARGS__); \
	} while (0)
#define FAILS(call, err, ...) \
	do { \
		errno = 0; \
		long ret_ = (long)(call); \
		report(ret_ < 0 && errno == (err), ret_ < 0 ? strerror(errno) : "it succeeded", \
		       __VA_ARGS__); \
	} while (0)
#define IS(cond, ...) report(cond, "it is not so: " #cond, __VA_ARGS__)

static void die(const char *what)
{
	printf("not ok cannot go on: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) < 0)
		die(path);
}

static bool holds(const char *path, const char *text)
{
	char buf[256];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	close(fd);
	return n == (ssize_t)strlen(text) && memcmp(buf, text, (size_t)n) == 0;
}

static struct stat st_of(const char *path)
{
	struct stat st;

	memset(&st, 0, sizeof(st));
	if (lstat(path, &st) < 0)
		st.st_ino = 0;
	return st;
}

static int rename2(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void names(void)
{
	char name[300], bytes[] = "\xff\x01 \n*";

	memset(name, 'n', sizeof(name));
	name[255] = 0;
	WORKS(mkdir(name, 0755), "a name of 255 bytes");
	IS(S_ISDIR(st_of(name).st_mode), "... is found again");
	WORKS(rmdir(name), "... and goes");
	name[255] = 'n';
	name[256] = 0;
	FAILS(mkdir(name, 0755), ENAMETOOLONG, "a name of 256 bytes");
	FAILS(access(name, F_OK), ENAMETOOLONG, "... cannot be looked up either");
	put(bytes, "x");
	IS(holds(bytes, "x"), "a name may hold any bytes but / and NUL");
	unlink(bytes);

	FAILS(open("none", O_RDONLY), ENOENT, "opening what is not there");
	put("file", "one");
	FAILS(open("file", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST, "O_EXCL on what is there");
	FAILS(mkdir("file", 0755), EEXIST, "mkdir on what is there");
	FAILS(open("file/x", O_RDONLY), ENOTDIR, "a file in the middle of a path");
	FAILS(open("file", O_RDONLY | O_DIRECTORY), ENOTDIR, "O_DIRECTORY on a file");
	FAILS(open(".", O_WRONLY), EISDIR, "writing to a directory");
	FAILS(access("none", F_OK), ENOENT, "a name that is not there, looked up twice");
	put("none", "now");
	WORKS(access("none", F_OK), "... is there at once when it is made");
	unlink("none");
	FAILS(access("none", F_OK), ENOENT, "... and gone at once when it is removed");
	unlink("file");
}

/* ---- links and removal ----------------------------------------------------------------------- */

static void links(void)
{
	put("a", "text");
	WORKS(link("a", "b"), "a hard link");
	IS(st_of("a").st_nlink == 2 && st_of("a").st_ino == st_of("b").st_ino,
	   "... is the same inode with two links");
	FAILS(link("a", "b"), EEXIST, "link on what is there");
	FAILS(link("none", "c"), ENOENT, "link to what is not there");
	mkdir("d", 0755);
	FAILS(link("d", "c"), EPERM, "link to a directory");
	FAILS(unlink("d"), EISDIR, "unlink of a directory");
	FAILS(rmdir("a"), ENOTDIR, "rmdir of a file");
	FAILS(rmdir("none"), ENOENT, "rmdir of what is not there");
	put("d/x", "");
	FAILS(rmdir("d"), ENOTEMPTY, "rmdir of a directory with an entry");
	unlink("d/x");
	WORKS(rmdir("d"), "rmdir of an empty one");
	WORKS(unlink("a"), "unlink of one of two names");
	IS(holds("b", "text") && st_of("b").st_nlink == 1, "... leaves the other, with one link");
	unlink("b");

	IS(st_of(".").st_nlink == 2, "an empty directory has two links");
	mkdir("d1", 0755);
	mkdir("d2", 0755);
	IS(st_of(".").st_nlink == 4, "each subdirectory is a link more");
	IS(st_of("d1/..").st_ino == st_of(".").st_ino, ".. is the parent");
	rmdir("d1");
	rmdir("d2");
	IS(st_of(".").st_nlink == 2, "... and one less when it goes");
}

static void renames(void)
{
	struct stat st;

	put("a", "a");
	put("b", "b");
	st = st_of("a");
	WORKS(rename("a", "c"), "rename");
	IS(holds("c", "a") && st_of("c").st_ino == st.st_ino, "... is the same file");
	FAILS(access("a", F_OK), ENOENT, "... and the old name is gone");
	WORKS(rename("c", "b"), "rename over a file");
	IS(holds("b", "a"), "... replaces it");
	FAILS(rename("none", "b"), ENOENT, "rename of what is not there");
	mkdir("d", 0755);
	mkdir("e", 0755);
	mkdir("d/sub", 0755);
	FAILS(rename("b", "d"), EISDIR, "a file over a directory");
	FAILS(rename("d", "b"), ENOTDIR, "a directory over a file");
	FAILS(rename("e", "d"), ENOTEMPTY, "a directory over one with entries");
	FAILS(rename("d", "d/sub/x"), EINVAL, "a directory into itself");
	put("a", "a2");
	FAILS(rename2("a", "b", RENAME_NOREPLACE), EEXIST, "RENAME_NOREPLACE on what is there");
	WORKS(rename2("a", "a3", RENAME_NOREPLACE), "RENAME_NOREPLACE on what is not");
	FAILS(rename2("a3", "b", RENAME_WHITEOUT), EINVAL, "RENAME_WHITEOUT is refused");
	FAILS(rename2("a3", "none", RENAME_EXCHANGE), ENOENT, "RENAME_EXCHANGE with what is not there");
	FAILS(rename2("a3", "b", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL, "... or with RENAME_NOREPLACE");
	IS(holds("a3", "a2") && holds("b", "a"), "... and changes nothing");
	st = st_of("a3");
	WORKS(rename2("a3", "b", RENAME_EXCHANGE), "RENAME_EXCHANGE of two files");
	IS(holds("a3", "a") && holds("b", "a2") && st_of("b").st_ino == st.st_ino, "... changes what they name");
	WORKS(rename2("a3", "b", RENAME_EXCHANGE), "... and back");
	IS(holds("a3", "a2") && holds("b", "a"), "... as it was");
	FAILS(rename2("d", "d/sub", RENAME_EXCHANGE), EINVAL, "... not of a directory and one below it");
	FAILS(rename2("d/sub", "d", RENAME_EXCHANGE), EINVAL, "... neither way");
	WORKS(rename2("a3", "d/sub", RENAME_EXCHANGE), "... of a file and a directory elsewhere");
	IS(holds("d/sub", "a2") && S_ISDIR(st_of("a3").st_mode), "... whatever they are");
	IS(st_of("d").st_nlink == 2 && st_of("a3/..").st_ino == st_of(".").st_ino, "... with its link and its ..");
	WORKS(rename2("d", "a3", RENAME_EXCHANGE), "... of two directories with and without entries");
	IS(holds("a3/sub", "a2") && st_of("a3").st_nlink == 2 && rmdir("d") == 0, "... each with its own");
	WORKS(rename("a3", "d"), "rename to a name that has moved away");
	WORKS(rename("d/sub", "a3"), "... and out of it");
	mkdir("d/sub", 0755);
	link("b", "b2");
	WORKS(rename("b", "b2"), "rename between two names of one inode");
	IS(st_of("b").st_ino && st_of("b2").st_ino, "... leaves both");
	WORKS(rename("d/sub", "e/sub"), "a directory moves to another one");
	IS(st_of("d").st_nlink == 2 && st_of("e").st_nlink == 3, "... and its link with it");
	IS(st_of("e/sub/..").st_ino == st_of("e").st_ino, "... .. is the new parent");
	mkdir("d/empty", 0755);
	WORKS(rename("e/sub", "d/empty"), "a directory over an empty one elsewhere");
	IS(st_of("d").st_nlink == 3 && st_of("e").st_nlink == 2, "... link counts follow");
	rmdir("d/empty");
	rmdir("d");
	rmdir("e");
	unlink("b");
	unlink("b2");
	unlink("a3");
}

/* O_TMPFILE: what programs do to make a file appear whole. */
static void tmpfiles(void)
{
	char path[64], buf[8];
	struct stat st;
	int fd = open(".", O_TMPFILE | O_RDWR, 0640), fd2;

	IS(fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0 && (st.st_mode & 07777) == 0640 && S_ISREG(st.st_mode),
	   "O_TMPFILE makes a file without a name");
	if (fd < 0)
		return;
	IS(write(fd, "whole", 5) == 5 && pread(fd, buf, sizeof(buf), 0) == 5 && memcmp(buf, "whole", 5) == 0,
	   "... that is written and read");
	WORKS(fsetxattr(fd, "user.a", "v", 1, 0), "... has attributes");
	WORKS(fsync(fd), "... can be synced");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	WORKS(linkat(AT_FDCWD, path, AT_FDCWD, "appears", AT_SYMLINK_FOLLOW), "... and gets a name");
	IS(holds("appears", "whole") && fstat(fd, &st) == 0 && st.st_nlink == 1, "... whole");
	IS(getxattr("appears", "user.a", buf, sizeof(buf)) == 1, "... with its attributes");
	FAILS(linkat(AT_FDCWD, path, AT_FDCWD, "appears", AT_SYMLINK_FOLLOW), EEXIST, "... which is not replaced");
	WORKS(linkat(AT_FDCWD, path, AT_FDCWD, "twice", AT_SYMLINK_FOLLOW), "... and another one");
	unlink("appears");
	unlink("twice");
	FAILS(linkat(AT_FDCWD, path, AT_FDCWD, "again", AT_SYMLINK_FOLLOW), ENOENT, "... none after its last one went");
	close(fd);
	fd = open(".", O_TMPFILE | O_WRONLY | O_EXCL, 0600);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	FAILS(linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW), ENOENT, "... none ever with O_EXCL");
	fd2 = open(path, O_RDWR);
	IS(write(fd, "x", 1) == 1 && read(fd2, buf, 1) == 1, "... opened again, it is the same file");
	close(fd2);
	close(fd);
	mkdir("sgid", 02775);
	if (chown("sgid", 0, 60002) < 0 || chmod("sgid", 02775) < 0)
		die("sgid");
	fd = open("sgid", O_TMPFILE | O_RDWR, 0666);
	IS(fd >= 0 && fstat(fd, &st) == 0 && st.st_gid == 60002 && (st.st_mode & 07777) == 0644,
	   "... has the group of a setgid directory, and the umask");
	close(fd);
	rmdir("sgid");
	FAILS(open("sgid", O_TMPFILE | O_RDWR, 0666), ENOENT, "... not in what is not there");
}

static void unnamed(void)
{
	char buf[16], path[4200];
	struct stat st;
	int fd, dirfd, cwd = open(".", O_RDONLY);

	fd = open("gone", O_RDWR | O_CREAT, 0644);
	if (fd < 0 || write(fd, "before", 6) != 6)
		die("gone");
	unlink("gone");
	IS(pread(fd, buf, sizeof(buf), 0) == 6 && memcmp(buf, "before", 6) == 0,
	   "an open file without a name is readable");
	IS(pwrite(fd, "after", 5, 0) == 5 && pread(fd, buf, 5, 0) == 5 &&
		   memcmp(buf, "after", 5) == 0,
	   "... and writable");
	WORKS(fsync(fd), "... and can be synced");
	IS(fstat(fd, &st) == 0 && st.st_nlink == 0, "... and has no link");
	WORKS(ftruncate(fd, 0), "... and can be truncated");
	close(fd);

	fd = open("old", O_RDONLY | O_CREAT, 0644);
	put("new", "new");
	WORKS(rename("new", "old"), "rename over an open file");
	IS(read(fd, buf, sizeof(buf)) == 0 && holds("old", "new"),
	   "... whoever has it open still sees the old one");
	close(fd);
	unlink("old");
	tmpfiles();

	mkdir("d", 0755);
	dirfd = open("d", O_RDONLY);
	if (chdir("d") < 0)
		die("d");
	IS(getcwd(path, sizeof(path)) && strcmp(strrchr(path, '/'), "/d") == 0, "getcwd");
	rmdir("../d");
	FAILS(syscall(SYS_getcwd, path, sizeof(path)), ENOENT, "getcwd in a removed directory");
	FAILS(open("x", O_CREAT | O_WRONLY, 0644), ENOENT,
	      "nothing can be made in a removed directory");
	FAILS(openat(dirfd, "x", O_CREAT | O_WRONLY, 0644), ENOENT, "... nor by its descriptor");
	IS(fstat(dirfd, &st) == 0 && st.st_nlink == 0, "... which still has a status");
	close(dirfd);
	if (fchdir(cwd) < 0)
		die("..");
	close(cwd);
}

/* ---- listings -------------------------------------------------------------------------------- */

#define LISTED	3000

static void listings(void)
{
	static unsigned char seen[LISTED];
	unsigned dots = 0, twice = 0, missing = 0, wrong = 0, n = 0;
	char name[64];
	struct dirent *de;
	struct stat st;
	long at = -1;
	DIR *dir;

	mkdir("list", 0755);
	for (unsigned i = 0; i < LISTED; i++) {
		sprintf(name, "list/entry-%u", i);
		put(name, "");
	}
	mkdir("list/sub", 0755);
	dir = opendir("list");
	if (!dir)
		die("list");
	/* odd ones are removed, one ahead of the reader, and new ones made, while it is read */
	while ((de = readdir(dir))) {
		unsigned i;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0) {
			dots++;
			continue;
		}
		if (strcmp(de->d_name, "sub") == 0) {
			wrong += de->d_type != DT_DIR;
			continue;
		}
		if (sscanf(de->d_name, "entry-%u", &i) != 1)
			continue;	/* a new one: may be there or not */
		if (n++ == 1000)
			at = telldir(dir);
		twice += seen[i]++;
		sprintf(name, "list/%.32s", de->d_name);
		if (n % 64 == 0) {
			st = st_of(name);
			/* one that was removed since libc read it is not there any more */
			wrong += st.st_ino && (st.st_ino != de->d_ino || de->d_type != DT_REG);
		}
		sprintf(name, "list/entry-%u", (i + 1) | 1);
		unlink(name);
		sprintf(name, "list/more-%u", i);
		if (i % 100 == 0)
			put(name, "");
	}
	for (unsigned i = 0; i < LISTED; i += 2)
		missing += !seen[i];
	IS(dots == 2, ". and .. are listed");
	IS(twice == 0, "no entry is listed twice while the directory changes");
	IS(missing == 0, "every entry that stays is listed while the directory changes");
	IS(wrong == 0, "d_ino and d_type are those of the inode");
	seekdir(dir, at);
	de = readdir(dir);
	IS(de && sscanf(de->d_name, "entry-%u", &n) == 1 && n > 900 && n < 2100,
	   "seekdir goes back to where telldir was");
	rewinddir(dir);
	n = 0;
	while ((de = readdir(dir)))
		n++;
	IS(n == 2 + 1 + LISTED / 2 + LISTED / 100, "a listing begun again shows what there is");
	rewinddir(dir);
	while ((de = readdir(dir))) {
		sprintf(name, "list/%.32s", de->d_name);
		if (unlink(name) < 0)
			rmdir(name);
	}
	closedir(dir);
	/* a name that is moved is behind all others: who reads on would meet each one for ever */
	for (unsigned i = 0; i < 300; i++) {
		sprintf(name, "list/%u", i);
		put(name, "");
	}
	dir = opendir("list");
	if (!dir)
		die("list");
	for (n = 0; n < 1000 && (de = readdir(dir));) {
		char to[64];

		if (de->d_name[0] == '.')
			continue;
		sprintf(name, "list/%.32s", de->d_name);
		sprintf(to, "list/x%.32s", de->d_name);
		if (rename(name, to) == 0)
			n++;
	}
	IS(n == 300, "a listing whose reader renames what it reads shows each name once");
	rewinddir(dir);
	for (n = 0; (de = readdir(dir));)
		n += de->d_name[0] == 'x';
	IS(n == 300, "and begun again all of the new ones");
	rewinddir(dir);
	while ((de = readdir(dir))) {
		sprintf(name, "list/%.32s", de->d_name);
		unlink(name);
	}
	closedir(dir);
	IS(st_of("list").st_size == 0, "an empty directory has size 0");
	WORKS(rmdir("list"), "a directory emptied while it is read can be removed");
}

/* ---- kinds of files -------------------------------------------------------------------------- */

static void symlinks(void)
{
	char target[4200], got[4200];

	memset(target, 't', sizeof(target));
	target[4095] = 0;
	WORKS(symlink(target, "long"), "a symlink of 4095 bytes");
	IS(readlink("long", got, sizeof(got)) == 4095 && memcmp(got, target, 4095) == 0,
	   "... reads back");
	IS(S_ISLNK(st_of("long").st_mode), "... is one");
	unlink("long");
	target[4095] = 't';
	target[4096] = 0;
	FAILS(symlink(target, "long"), ENAMETOOLONG, "a symlink of 4096 bytes");
	FAILS(symlink("", "empty"), ENOENT, "a symlink to nothing");
	put("file", "text");
	symlink("file", "to");
	IS(holds("to", "text"), "a symlink is followed");
	FAILS(open("to", O_RDONLY | O_NOFOLLOW), ELOOP, "... not with O_NOFOLLOW");
	symlink("loop", "loop");
	FAILS(open("loop", O_RDONLY), ELOOP, "a symlink to itself");
	FAILS(readlink("file", got, sizeof(got)), EINVAL, "readlink of a file");
	unlink("loop");
	unlink("to");
	unlink("file");
}

static void nodes(void)
{
	const dev_t devs[] = { makedev(1, 3), makedev(259, 1000000), makedev(4095, 0xfffff) };
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "sock" };
	int fd;

	WORKS(mkfifo("fifo", 0600), "a FIFO");
	IS(S_ISFIFO(st_of("fifo").st_mode), "... is one");
	fd = open("fifo", O_RDWR | O_NONBLOCK);
	IS(fd >= 0 && write(fd, "x", 1) == 1, "... carries bytes");
	close(fd);
	unlink("fifo");
	for (unsigned i = 0; i < 3; i++) {
		WORKS(mknod("dev", (i ? S_IFBLK : S_IFCHR) | 0666, devs[i]), "a device node %u:%u",
		      major(devs[i]), minor(devs[i]));
		IS(st_of("dev").st_rdev == devs[i], "... keeps its numbers");
		if (i == 0) {
			fd = open("dev", O_RDWR);
			IS(fd >= 0 && write(fd, "x", 1) == 1 && read(fd, &sa, 1) == 0,
			   "... is the null device");
			close(fd);
			sa.sun_family = AF_UNIX;
		}
		unlink("dev");
	}
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	WORKS(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), "a socket");
	IS(S_ISSOCK(st_of("sock").st_mode), "... is one");
	close(fd);
	unlink("sock");
}

/* ---- times, sizes, data ---------------------------------------------------------------------- */

/* Linux 6.6 asks for it. */
static void birth_time(void)
{
	struct statx made, changed;
	struct utsname un;
	int major = 0, minor = 0;

	if (uname(&un) < 0 || sscanf(un.release, "%d.%d", &major, &minor) != 2 || major < 6 || (major == 6 && minor < 6)) {
		printf("ok statx: this kernel does not ask for the birth time\n");
		return;
	}
	put("born", "");
	WORKS(statx(AT_FDCWD, "born", 0, STATX_BASIC_STATS | STATX_BTIME, &made), "statx");
	IS(made.stx_mask & STATX_BTIME && made.stx_btime.tv_sec == made.stx_ctime.tv_sec &&
	   made.stx_btime.tv_nsec == made.stx_ctime.tv_nsec, "... knows when a file was made");
	IS(made.stx_mode == (S_IFREG | 0644) && made.stx_nlink == 1 && made.stx_blksize == 4096 &&
	   made.stx_ino == st_of("born").st_ino, "... and all else");
	put("born", "changed");
	WORKS(statx(AT_FDCWD, "born", AT_STATX_FORCE_SYNC, STATX_BASIC_STATS | STATX_BTIME, &changed), "statx again");
	IS(changed.stx_btime.tv_sec == made.stx_btime.tv_sec && changed.stx_btime.tv_nsec == made.stx_btime.tv_nsec &&
	   changed.stx_size == 7 && (changed.stx_ctime.tv_nsec != made.stx_ctime.tv_nsec ||
				     changed.stx_ctime.tv_sec != made.stx_ctime.tv_sec),
	   "... a write changes the other times only");
	unlink("born");
}

static void times(void)
{
	static const time_t secs[] = { -315619200, 0, 1700000000, 16725225600 };
	struct stat st, after;
	struct timespec ts[2];

	put("t", "x");
	for (unsigned i = 0; i < 4; i++) {
		ts[0] = (struct timespec){ secs[i], 123456789 };
		ts[1] = (struct timespec){ secs[i] + 1, 987654321 };
		utimensat(AT_FDCWD, "t", ts, 0);
		st = st_of("t");
		IS(st.st_atim.tv_sec == secs[i] && st.st_atim.tv_nsec == 123456789 &&
			   st.st_mtim.tv_sec == secs[i] + 1 && st.st_mtim.tv_nsec == 987654321,
		   "times of %lld are kept to the nanosecond", (long long)secs[i]);
	}
	ts[0].tv_nsec = UTIME_OMIT;
	ts[1].tv_nsec = UTIME_NOW;
	utimensat(AT_FDCWD, "t", ts, 0);
	after = st_of("t");
	IS(after.st_atim.tv_sec == secs[3] && after.st_mtim.tv_sec > secs[2],
	   "UTIME_OMIT leaves, UTIME_NOW is now");
	st = st_of("t");
	IS(holds("t", "x") && !later(st_of("t").st_ctim, st.st_ctim), "reading changes no ctime");
	chmod("t", 0600);
	IS(later(st_of("t").st_ctim, st.st_ctim), "chmod changes ctime");
	st = st_of("t");
	link("t", "t2");
	IS(later(st_of("t").st_ctim, st.st_ctim), "link changes ctime");
	st = st_of(".");
	unlink("t2");
	after = st_of(".");
	IS(later(after.st_mtim, st.st_mtim) && later(after.st_ctim, st.st_ctim),
	   "unlink changes the directory's times");
	st = st_of("t");
	put("t", "y");
	after = st_of("t");
	IS(later(after.st_mtim, st.st_mtim) && later(after.st_ctim, st.st_ctim),
	   "writing changes mtime and ctime");
	st = st_of("t");
	truncate("t", 100);
	IS(later(st_of("t").st_mtim, st.st_mtim), "truncate changes mtime");
	birth_time();
	unlink("t");
}

static void sizes(void)
{
	static char zeros[10000], buf[10000];
	struct stat st;
	int fd = open("s", O_RDWR | O_CREAT, 0644);

	memset(buf, 'x', sizeof(buf));
	IS(write(fd, buf, sizeof(buf)) == sizeof(buf), "writing 10000 bytes");
	WORKS(ftruncate(fd, 5000), "shrinking to 5000");
	WORKS(ftruncate(fd, 10000), "growing to 10000 again");
	memset(buf + 5000, 0, 5000);
	IS(pread(fd, zeros, sizeof(zeros), 0) == sizeof(zeros) &&
		   memcmp(zeros, buf, sizeof(buf)) == 0,
	   "... what was cut off reads as zeros");
	FAILS(ftruncate(fd, -1), EINVAL, "a negative size");
	FAILS(truncate(".", 0), EISDIR, "truncate of a directory");
	IS(lseek(fd, 0, SEEK_END) == 10000, "SEEK_END is the size");
	IS(pwrite(fd, "end", 3, 1 << 20) == 3 && fstat(fd, &st) == 0 && st.st_size == (1 << 20) + 3,
	   "writing past the end");
	IS(st.st_blocks < 100, "... leaves a hole");
	IS(lseek(fd, 0, SEEK_DATA) == 0 && lseek(fd, 0, SEEK_HOLE) >= 8192,
	   "SEEK_DATA and SEEK_HOLE know it");
	FAILS(lseek(fd, 2 << 20, SEEK_DATA), ENXIO, "SEEK_DATA past the end");
	WORKS(fallocate(fd, FALLOC_FL_KEEP_SIZE, 2 << 20, 1 << 20), "fallocate past the end");
	IS(fstat(fd, &st) == 0 && st.st_size == (1 << 20) + 3, "... keeps the size when told so");
	FAILS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EOPNOTSUPP,
	      "punching holes is refused");
	close(fd);
	unlink("s");
}

static void appending(void)
{
	enum { WRITERS = 4, RECORDS = 200, BYTES = 40 };
	static char buf[WRITERS * RECORDS * BYTES + 1];
	unsigned count[WRITERS] = { 0 };
	bool whole = true;
	ssize_t n;
	int fd;

	put("log", "");
	for (int w = 0; w < WRITERS; w++) {
		if (fork() == 0) {
			char rec[BYTES];

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			memset(rec, 'A' + w, sizeof(rec));
			fd = open("log", O_WRONLY | O_APPEND);
			for (int i = 0; i < RECORDS; i++) {
				if (pwrite(fd, rec, sizeof(rec), 0) !=
				    sizeof(rec)) /* Linux: appends all the same */
					_exit(1);
			}
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	fd = open("log", O_RDONLY);
	n = read(fd, buf, sizeof(buf));
	close(fd);
	IS(n == WRITERS * RECORDS * BYTES, "O_APPEND by several processes loses nothing");
	for (ssize_t at = 0; at < n; at += BYTES) {
		for (int i = 1; i < BYTES; i++)
			whole = whole && buf[at + i] == buf[at];
		if (buf[at] >= 'A' && buf[at] < 'A' + WRITERS)
			count[buf[at] - 'A']++;
	}
	for (int w = 0; w < WRITERS; w++)
		whole = whole && count[w] == RECORDS;
	IS(whole, "... and mixes nothing");
	unlink("log");
}

static void mappings(void)
{
	struct stat before, after;
	int fd = open("m", O_RDWR | O_CREAT, 0644);
	char *p, buf[8];

	if (ftruncate(fd, 8192) < 0)
		die("m");
	p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	IS(p != MAP_FAILED, "a shared mapping");
	if (p == MAP_FAILED)
		return;
	fstat(fd, &before);
	memcpy(p + 4090, "mapped!", 7);
	WORKS(msync(p, 8192, MS_SYNC), "msync");
	IS(pread(fd, buf, 7, 4090) == 7 && memcmp(buf, "mapped!", 7) == 0, "... read sees it");
	fstat(fd, &after);
	IS(later(after.st_mtim, before.st_mtim), "... and mtime has changed");
	if (pwrite(fd, "written", 7, 100) != 7)
		die("m");
	IS(memcmp(p + 100, "written", 7) == 0, "the mapping sees what is written");
	munmap(p, 8192);
	close(fd);
	unlink("m");
}

static void volume(void)
{
	struct statvfs sv;
	int fd = open(".", O_RDONLY), fd2;

	WORKS(statvfs(".", &sv), "statvfs");
	IS(sv.f_namemax == 255 && sv.f_frsize == 4096,
	   "... says 255 bytes for names and 4096 for blocks");
	IS(sv.f_blocks && sv.f_bfree <= sv.f_blocks && sv.f_files && sv.f_ffree <= sv.f_files,
	   "... and has room");
	WORKS(fsync(fd), "fsync of a directory");
	WORKS(fdatasync(fd), "fdatasync of a directory");
	close(fd);
	put("l", "");
	fd = open("l", O_RDWR);
	fd2 = open("l", O_RDWR);
	WORKS(flock(fd, LOCK_EX), "flock");
	FAILS(flock(fd2, LOCK_EX | LOCK_NB), EWOULDBLOCK, "... excludes another open file");
	close(fd);
	close(fd2);
	unlink("l");
}

/* What open_by_handle_at needs (interface 1.5.3): the handle that archive managers make of a
 * number. */
static void handles(const char *top)
{
	struct {
		struct file_handle h;
		uint64_t ino, parent;
	} fh = { .h = { .handle_bytes = 16, .handle_type = 0x81 } };
	int mount = open(top, O_RDONLY), fd;
	char buf[8];

	put("h", "by hand");
	fh.ino = st_of("h").st_ino;
	fd = open_by_handle_at(mount, &fh.h, O_RDONLY);
	IS(fd >= 0 && read(fd, buf, 7) == 7 && memcmp(buf, "by hand", 7) == 0,
	   "a file is opened by its number");
	close(fd);
	unlink("h");
	FAILS(open_by_handle_at(mount, &fh.h, O_RDONLY), ESTALE, "... not when it is gone");
	mkdir("hd", 0755);
	mkdir("hd/sub", 0755);
	fh.ino = st_of("hd/sub").st_ino;
	fd = open_by_handle_at(mount, &fh.h, O_RDONLY | O_DIRECTORY);
	IS(fd >= 0 && faccessat(fd, "../sub", F_OK, 0) == 0, "a directory is opened by its number");
	close(fd);
	rmdir("hd/sub");
	rmdir("hd");
	close(mount);
}

/* ---- attributes ------------------------------------------------------------------------------ */

static void xattrs(void)
{
	static char big[70000], got[70000];
	char name[300];
	struct stat st;

	put("x", "");
	memset(big, 'v', sizeof(big));
	WORKS(setxattr("x", "user.a", "1", 1, XATTR_CREATE), "XATTR_CREATE of a new one");
	FAILS(setxattr("x", "user.a", "2", 1, XATTR_CREATE), EEXIST, "... of one that is there");
	FAILS(setxattr("x", "user.b", "2", 1, XATTR_REPLACE), ENODATA, "XATTR_REPLACE of none");
	FAILS(setxattr("x", "user.a", "2", 1, XATTR_CREATE | XATTR_REPLACE), EINVAL,
	      "both at once");
	WORKS(setxattr("x", "user.a", "22", 2, XATTR_REPLACE),
	      "XATTR_REPLACE of one that is there");
	IS(getxattr("x", "user.a", got, sizeof(got)) == 2 && memcmp(got, "22", 2) == 0,
	   "... has the new value");
	IS(getxattr("x", "user.a", NULL, 0) == 2, "size 0 asks for the length");
	FAILS(getxattr("x", "user.a", got, 1), ERANGE, "a buffer that is too small");
	FAILS(getxattr("x", "user.none", got, 1), ENODATA, "one that is not there");
	WORKS(setxattr("x", "user.empty", "", 0, 0), "an empty value");
	IS(getxattr("x", "user.empty", got, sizeof(got)) == 0, "... reads as one");
	WORKS(setxattr("x", "user.big", big, 65535, 0), "a value of 65535 bytes");
	IS(getxattr("x", "user.big", got, sizeof(got)) == 65535 && memcmp(got, big, 65535) == 0,
	   "... reads back");
	FAILS(setxattr("x", "user.big", big, 65536, 0), E2BIG, "a value of 65536 bytes");
	WORKS(setxattr("x", "user.big", "small", 5, 0), "a big value becomes small");
	IS(getxattr("x", "user.big", got, sizeof(got)) == 5, "... and is");
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[255] = 0;
	WORKS(setxattr("x", name, "v", 1, 0), "a name of 255 bytes");
	name[255] = 'n';
	name[256] = 0;
	FAILS(setxattr("x", name, "v", 1, 0), ERANGE, "a name of 256 bytes");
	FAILS(setxattr("x", "other.a", "v", 1, 0), EOPNOTSUPP, "a namespace that there is not");
	FAILS(setxattr("x", "scoutfs.a", "v", 1, 0), EINVAL, "scoutfs. without a tag");
	FAILS(setxattr("x", "scoutfs.hide.a", "v", 1, 0), EOPNOTSUPP,
	      "tagged ones are not written yet");
	WORKS(setxattr("x", "trusted.t", "v", 1, 0), "trusted.");
	WORKS(setxattr("x", "security.s", "v", 1, 0), "security.");
	{
		ssize_t n = listxattr("x", got, sizeof(got)), nr = 0;

		for (ssize_t at = 0; at < n; at += (ssize_t)strlen(got + at) + 1)
			nr++;
		IS(nr == 6, "listxattr names all six");
		IS(listxattr("x", NULL, 0) == n, "... and their length for size 0");
		FAILS(listxattr("x", got, 4), ERANGE, "... and not into too small a buffer");
	}
	st = st_of("x");
	WORKS(removexattr("x", "user.a"), "removexattr");
	FAILS(removexattr("x", "user.a"), ENODATA, "... only once");
	IS(later(st_of("x").st_ctim, st.st_ctim) && !later(st_of("x").st_mtim, st.st_mtim),
	   "... changes ctime, not mtime");
	symlink("x", "xl");
	FAILS(lsetxattr("xl", "user.a", "v", 1, 0), EPERM, "user. on a symlink");
	WORKS(lsetxattr("xl", "trusted.a", "v", 1, 0), "trusted. on a symlink");
	unlink("xl");
	unlink("x");
}

/* ---- other users ----------------------------------------------------------------------------- */

#define SOMEBODY	60001
#define ANOTHER		60002

/* Runs check() as a user without privileges; its report counts. */
static void as_user(uid_t uid, void (*check)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (syscall(SYS_setgroups, 0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
		    setresuid(uid, uid, uid) < 0)
			die("setresuid");
		failed = 0;
		check();
		fflush(stdout);
		_exit(failed);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		failed = 1;
}

static void check_owner(void)
{
	struct stat st;
	int fd;

	FAILS(open("private", O_RDONLY), EACCES, "a file that is not for others");
	FAILS(open("closed/x", O_RDONLY), EACCES, "a directory that is not for others");
	FAILS(open("new", O_WRONLY | O_CREAT, 0644), EACCES, "making a file in it");
	FAILS(unlink("private"), EACCES, "unlink in somebody else's directory");
	FAILS(chmod("private", 0777), EPERM, "chmod of somebody else's file");
	FAILS(chown("private", SOMEBODY, SOMEBODY), EPERM, "chown to oneself");
	chown("program", -1, -1);	/* what it answers is not the same everywhere */
	IS((st_of("program").st_mode & 07777) == 06755, "chown to nobody takes setuid from no one else's file");
	FAILS(setxattr("private", "user.a", "v", 1, 0), EACCES, "setxattr of somebody else's file");
	FAILS(mknod("open/dev", S_IFCHR | 0666, makedev(1, 3)), EPERM,
	      "a device node without privilege");
	FAILS(syscall(SYS_utimensat, AT_FDCWD, "private",
		      (struct timespec[2]){ { 1, 0 }, { 1, 0 } }, 0),
	      EPERM, "utimes of somebody else's file");
	umask(027);
	fd = open("open/mine", O_RDWR | O_CREAT, 0666);
	IS(fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == SOMEBODY && st.st_gid == SOMEBODY &&
		   (st.st_mode & 07777) == 0640,
	   "a new file has its maker's owner and group, and the umask");
	WORKS(setxattr("open/mine", "user.a", "v", 1, 0), "user. on one's own file");
	FAILS(setxattr("open/mine", "trusted.a", "v", 1, 0), EPERM, "trusted. without privilege");
	WORKS(chmod("open/mine", 06777), "setuid and setgid");
	IS(write(fd, "x", 1) == 1 && (st_of("open/mine").st_mode & 07777) == 0777,
	   "... are gone after a write");
	close(fd);
	mkdir("sgid/sub", 0755);
	st = st_of("sgid/sub");
	IS(st.st_gid == ANOTHER && st.st_mode & S_ISGID,
	   "a setgid directory gives its group and bit to a directory");
	close(open("sgid/file", O_WRONLY | O_CREAT, 02775));
	st = st_of("sgid/file");
	IS(st.st_gid == ANOTHER && !(st.st_mode & S_ISGID), "... and only its group to a file");
}

static void check_another(void)
{
	FAILS(unlink("open/mine"), EPERM, "unlink of another's file in a sticky directory");
	FAILS(rename("open/mine", "open/theirs"), EPERM, "rename of it");
	close(open("open/theirs", O_WRONLY | O_CREAT, 0644));
	FAILS(rename("open/theirs", "open/mine"), EPERM, "rename over it");
	WORKS(unlink("open/theirs"), "one's own goes");
}

static void permissions(void)
{
	umask(0);
	chmod(".", 0755);
	put("private", "secret");
	chmod("private", 0600);
	mkdir("closed", 0700);
	put("closed/x", "");
	put("program", "");
	chmod("program", 06755);
	mkdir("open", 01777);
	mkdir("sgid", 0777);
	if (chown("sgid", 0, ANOTHER) < 0 || chmod("sgid", 02777) < 0)
		die("sgid");
	as_user(SOMEBODY, check_owner);
	as_user(ANOTHER, check_another);
	WORKS(chown("open/mine", 7, 8), "root gives a file away");
	IS(st_of("open/mine").st_uid == 7 && st_of("open/mine").st_gid == 8, "... and it is so");
	umask(022);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupts;

static void on_signal(int sig)
{
	(void)sig;
	interrupts++;
}

static int patient(const char *dir)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct statvfs sv;

	sigaction(SIGUSR1, &sa, NULL);	/* without SA_RESTART */
	puts("waiting");
	fflush(stdout);
	if (statvfs(dir, &sv) < 0) {
		printf("statvfs: %s\n", strerror(errno));
		return 1;
	}
	return interrupts ? 0 : 2;
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*check)(void);
	} checks[] = {
		{ "names", names },       { "links", links },
		{ "renames", renames },   { "unnamed", unnamed },
		{ "listings", listings }, { "symlinks", symlinks },
		{ "nodes", nodes },       { "times", times },
		{ "sizes", sizes },       { "appending", appending },
		{ "mappings", mappings }, { "volume", volume },
		{ "xattrs", xattrs },     { "permissions", permissions },
	};

	if (argc == 3 && strcmp(argv[1], "--patient") == 0)
		return patient(argv[2]);
	if (argc != 2) {
		fprintf(stderr, "usage: semantics DIR | --patient DIR\n");
		return 2;
	}
	umask(022);
	for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		if (chdir(argv[1]) < 0 || mkdir(checks[i].name, 0755) < 0 ||
		    chdir(checks[i].name) < 0)
			die(checks[i].name);
		checks[i].check();
	}
	if (chdir(argv[1]) < 0)
		die(argv[1]);
	handles(argv[1]);
	return failed;
}
