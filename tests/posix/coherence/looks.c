/*
 * The looks: one mount changes something, another, which has it cached, looks once and sees it.
 */
#include "coherence.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NOBODY		65534

/*
 * In each round: prepare (where there is something), a look that must show the round before (where there was one), the
 * change at `from`, and the one look at `at` that counts.  False: it was not to be done, or not seen; `why` says more.
 */
struct look {
	const char *text;
	bool (*prepare)(int from, int at, long round);
	bool (*change)(int from, long round);
	bool (*look)(int at, long round);
	void (*end)(void);
	bool stays;		/* what was to be seen in a round can be seen until the next */
};

static int held[MOUNTS_MAX];
static void *maps[MOUNTS_MAX];
static int changed_at;		/* who made the change of this round */

static bool hold(const char *name)
{
	for (int i = 0; i < mounts_nr; i++) {
		held[i] = open(path(i, "%s", name), O_RDWR);
		maps[i] = held[i] < 0 ? MAP_FAILED :
			  mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, held[i], 0);
		if (maps[i] == MAP_FAILED)
			return saw("holding %s: %s", name, strerror(errno));
	}
	return true;
}

static void let_go(void)
{
	for (int i = 0; i < mounts_nr; i++) {
		munmap(maps[i], 4096);
		close(held[i]);
	}
	unlink(path(0, "f"));
}

static bool has_file(int from, int at, long round)
{
	(void)at;
	return round != 0 || put(from, "f", -1);
}

static bool has_held_file(int from, int at, long round)
{
	(void)at;
	return round != 0 || (put(from, "f", -1) && hold("f"));
}

static bool do_write(int from, long round)
{
	return put(from, "f", round);
}

static bool see_contents(int at, long round)
{
	return get(at, "f", round);
}

static bool do_write_held(int from, long round)
{
	return pwrite(held[from], &round, sizeof(round), 0) == sizeof(round);
}

static bool see_held(int at, long round)
{
	return shows(held[at], round);
}

static bool see_mapped(int at, long round)
{
	long got = *(volatile long *)maps[at];

	return got == round || saw("%ld, not %ld", got, round);
}

static bool do_store(int from, long round)
{
	*(volatile long *)maps[from] = round;
	return msync(maps[from], 4096, MS_SYNC) == 0;
}

static bool see_stored(int at, long round)
{
	return see_held(at, round) && see_mapped(at, round) && same_stat(changed_at, at, "f");
}

static bool do_append(int from, long round)
{
	int fd = open(path(from, "f"), O_WRONLY | O_APPEND);
	bool good = fd >= 0 && write(fd, &round, sizeof(round)) == sizeof(round);

	close(fd);
	return good;
}

/* Whoever appends has no page of it in the kernel, and the others that are mapped have to go. */
static bool see_appended_mapped(int at, long round)
{
	long near = ((volatile long *)maps[changed_at])[round + 1], far = ((volatile long *)maps[at])[round + 1];

	return (near == round && far == round) || saw("%ld where it was appended, %ld, not %ld", near, far, round);
}

static bool see_size(int at, long round)
{
	struct stat st;

	if (stat(path(at, "f"), &st) < 0)
		return saw("%s", strerror(errno));
	return st.st_size == (round + 2) * (long)sizeof(round) ||
	       saw("size %ld, not %ld", (long)st.st_size, (round + 2) * (long)sizeof(round));
}

static bool holds_appending(int from, int at, long round)
{
	if (!has_held_file(from, at, round))
		return false;
	for (int i = 0; i < mounts_nr && round == 0; i++) {
		if (fcntl(held[i], F_SETFL, O_APPEND) < 0)
			return saw("F_SETFL: %s", strerror(errno));
	}
	return true;
}

/* The place is where the file ends, whoever wrote last. */
static bool do_append_held(int from, long round)
{
	return write(held[from], &round, sizeof(round)) == sizeof(round);
}

static bool see_appended(int at, long round)
{
	long got = -1;
	ssize_t n = pread(held[at], &got, sizeof(got), (round + 1) * (long)sizeof(got));

	if (n != sizeof(got) || got != round) {
		struct stat st;
		long again = -1;
		ssize_t m = pread(held[at], &again, sizeof(again), (round + 1) * (long)sizeof(got));
		fstat(held[at], &st);
		return saw("%zd bytes, %ld, not %ld; again %zd %ld size %ld", n, got, round, m, again, (long)st.st_size);
	}
	return true;
}

/* Cut and made longer again: what was behind the cut is zero. */
static bool has_long_file(int from, int at, long round)
{
	char text[12000];

	(void)at;
	(void)round;
	memset(text, 'x', sizeof(text));
	return put_bytes(from, "f", text, sizeof(text)) && truncate(path(from, "f"), sizeof(text)) == 0;
}

static long cut_at(long round)
{
	return 1 + round * 997 % 8999;
}

static bool do_truncate(int from, long round)
{
	return truncate(path(from, "f"), cut_at(round)) == 0 && truncate(path(from, "f"), 9000) == 0;
}

static bool see_truncated(int at, long round)
{
	char text[12000];
	int fd = open(path(at, "f"), O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text));

	close(fd);
	if (n != 9000)
		return saw("%zd bytes, not 9000", n);
	for (long i = 0; i < n; i++) {
		if (text[i] != (i < cut_at(round) ? 'x' : 0))
			return saw("byte %ld is %d", i, text[i]);
	}
	return true;
}

static bool do_times(int from, long round)
{
	struct timespec ts[2] = { { 1000000 + round, round }, { 2000000 + round, 7 * round } };

	return utimensat(AT_FDCWD, path(from, "f"), ts, 0) == 0;
}

static bool see_times(int at, long round)
{
	struct stat st;

	if (stat(path(at, "f"), &st) < 0)
		return saw("%s", strerror(errno));
	return (st.st_mtim.tv_sec == 2000000 + round && st.st_mtim.tv_nsec == 7 * round) ||
	       saw("mtime %ld.%09ld", st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static bool do_mode(int from, long round)
{
	return chmod(path(from, "f"), 0400 | (mode_t)(round & 0177)) == 0 &&
	       chown(path(from, "f"), (uid_t)round, (gid_t)round + 1) == 0;
}

static bool see_mode(int at, long round)
{
	struct stat st;

	if (stat(path(at, "f"), &st) < 0)
		return saw("%s", strerror(errno));
	return ((st.st_mode & 07777) == (0400 | (mode_t)(round & 0177)) && st.st_uid == (uid_t)round &&
		st.st_gid == (gid_t)round + 1) ||
	       saw("mode %o of %u:%u", st.st_mode, st.st_uid, st.st_gid);
}

static bool same_attributes(int at, long round)
{
	(void)round;
	return same_stat(changed_at, at, "f");
}

/* A directory that is closed to others: what they had looked up through it is no way in. */
static bool has_directory(int from, int at, long round)
{
	(void)at;
	return round != 0 || (mkdir(path(from, "d"), 0755) == 0 && put(from, "d/f", 0));
}

static bool do_close_directory(int from, long round)
{
	return chmod(path(from, "d"), round % 2 ? 0755 : 0700) == 0;
}

static bool see_permission(int at, long round)
{
	int fd;
	bool may;

	setfsuid(NOBODY);
	fd = open(path(at, "d/f"), O_RDONLY);
	may = fd >= 0;
	if (may)
		close(fd);
	setfsuid(0);
	return may == round % 2 || saw("%s", may ? "a closed directory lets in" : "an open one does not let in");
}

static void remove_directory(void)
{
	unlink(path(0, "d/f"));
	rmdir(path(0, "d"));
}

static bool has_no_file(int from, int at, long round)
{
	(void)from;
	(void)round;
	unlink(path(from, "f"));
	return is_missing(at, "f");
}

static bool see_there(int at, long round)
{
	(void)round;
	return is_there(at, "f") && same_stat(changed_at, at, "f");
}

static bool has_seen_file(int from, int at, long round)
{
	return put(from, "f", round) && get(at, "f", round);
}

static bool do_unlink(int from, long round)
{
	(void)round;
	return unlink(path(from, "f")) == 0;
}

static bool see_missing(int at, long round)
{
	int fd;

	(void)round;
	if (!is_missing(at, "f"))
		return false;
	fd = open(path(at, "f"), O_RDONLY);
	if (fd < 0)
		return true;
	close(fd);
	return saw("it is opened");
}

static bool do_rename_over(int from, long round)
{
	return put(from, "new", round) && rename(path(from, "new"), path(from, "f")) == 0;
}

static bool see_renamed(int at, long round)
{
	return get(at, "f", round) && is_missing(at, "new");
}

/* A name within a directory that moves. */
static bool has_tree(int from, int at, long round)
{
	if (round == 0 && (mkdir(path(from, "d0"), 0755) < 0 || !put(from, "d0/f", 7)))
		return false;
	return get(at, path(at, "d%ld/f", round) + strlen(mounts[at]) + 1, 7);
}

static bool do_move_directory(int from, long round)
{
	return rename(path(from, "d%ld", round), path(from, "d%ld", round + 1)) == 0;
}

static bool see_moved(int at, long round)
{
	char was[64], is[64];

	snprintf(was, sizeof(was), "d%ld/f", round);
	snprintf(is, sizeof(is), "d%ld/f", round + 1);
	return is_missing(at, was) && get(at, is, 7);
}

static void remove_moved(void)
{
	for (long i = 0; i <= rounds; i++) {
		unlink(path(0, "d%ld/f", i));
		rmdir(path(0, "d%ld", i));
	}
}

static bool do_mkdir_rmdir(int from, long round)
{
	return (round % 2 ? rmdir(path(from, "d")) : mkdir(path(from, "d"), 0755)) == 0;
}

static bool see_directory(int at, long round)
{
	struct stat st;

	if (stat(mounts[at], &st) < 0)
		return saw("%s", strerror(errno));
	if (st.st_nlink != (round % 2 ? 2 : 3))
		return saw("%lu links of the directory above", st.st_nlink);
	return round % 2 ? is_missing(at, "d") : is_there(at, "d");
}

static bool do_symlink(int from, long round)
{
	char target[32];

	snprintf(target, sizeof(target), "target-%ld", round);
	unlink(path(from, "s"));
	return symlink(target, path(from, "s")) == 0;
}

static bool see_symlink(int at, long round)
{
	char target[32], got[32] = "";

	snprintf(target, sizeof(target), "target-%ld", round);
	if (readlink(path(at, "s"), got, sizeof(got) - 1) < 0)
		return saw("%s", strerror(errno));
	return strcmp(got, target) == 0 || saw("%s, not %s", got, target);
}

static void remove_symlink(void)
{
	unlink(path(0, "s"));
}

static bool do_link(int from, long round)
{
	return link(path(from, "f"), path(from, "link%ld", round)) == 0;
}

static bool see_links(int at, long round)
{
	struct stat st;

	if (stat(path(at, "f"), &st) < 0)
		return saw("%s", strerror(errno));
	return st.st_nlink == (nlink_t)round + 2 || saw("%lu links, not %ld", st.st_nlink, round + 2);
}

static void remove_links(void)
{
	for (long i = 0; i < rounds; i++)
		unlink(path(0, "link%ld", i));
	unlink(path(0, "f"));
}

static bool do_xattr(int from, long round)
{
	if (round % 3 == 2)
		return removexattr(path(from, "f"), "user.x") == 0;
	return setxattr(path(from, "f"), "user.x", &round, sizeof(round), 0) == 0;
}

static bool see_xattr(int at, long round)
{
	char list[64];
	long got = -1;
	ssize_t n = getxattr(path(at, "f"), "user.x", &got, sizeof(got));

	if (round % 3 == 2)
		return (n < 0 && errno == ENODATA && listxattr(path(at, "f"), list, sizeof(list)) == 0) ||
		       saw("it is there: %ld", got);
	return (n == sizeof(got) && got == round && listxattr(path(at, "f"), list, sizeof(list)) == 7) ||
	       saw("%ld, not %ld", got, round);
}

/* user::rw- user:ID:r-- group::r-- mask::MASK other::--- */
struct acl {
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} e[5];
};

static struct acl acl_of(long round)
{
	return (struct acl){ 2, { { 1, 6, UINT32_MAX }, { 2, 4, 1000 + (uint32_t)round }, { 4, 4, UINT32_MAX },
				  { 16, 4 | (uint16_t)(round % 4), UINT32_MAX }, { 32, 0, UINT32_MAX } } };
}

static bool do_acl(int from, long round)
{
	struct acl acl = acl_of(round);

	return setxattr(path(from, "f"), "system.posix_acl_access", &acl, sizeof(acl), 0) == 0;
}

static bool see_acl(int at, long round)
{
	struct acl acl = acl_of(round), got;
	ssize_t n = getxattr(path(at, "f"), "system.posix_acl_access", &got, sizeof(got));
	struct stat st;

	if (n != sizeof(got) || memcmp(&acl, &got, sizeof(got)) != 0)
		return saw("another list of %zd bytes", n);
	if (stat(path(at, "f"), &st) < 0 || (st.st_mode & 0777) != (0600u | (4u | round % 4) << 3))
		return saw("mode %o", st.st_mode);
	return true;
}

/* Somebody whom only the list lets in. */
static bool do_let_in(int from, long round)
{
	struct acl acl = acl_of(round);

	acl.e[1].id = round % 2 ? NOBODY : NOBODY - 1;
	acl.e[3].perm = 4;
	return setxattr(path(from, "f"), "system.posix_acl_access", &acl, sizeof(acl), 0) == 0;
}

static bool see_let_in(int at, long round)
{
	int fd;
	bool may;

	setfsuid(NOBODY);
	setfsgid(NOBODY);
	fd = open(path(at, "f"), O_RDONLY);
	may = fd >= 0;
	if (may)
		close(fd);
	setfsgid(0);
	setfsuid(0);
	return may == round % 2 || saw("%s", may ? "let in by an old list" : "kept out by an old list");
}

/* Listings: exactly what is there, each once. */
static int list(int at, const char *name, char *seen, int max)
{
	DIR *d = opendir(path(at, "%s", name));
	struct dirent *e;
	int nr = 0;

	if (!d)
		return -1;
	while ((e = readdir(d))) {
		int i = atoi(e->d_name + 1);

		if (e->d_name[0] == '.')
			continue;
		nr++;
		if (i >= 0 && i < max)
			seen[i]++;
	}
	closedir(d);
	return nr;
}

static bool has_list(int from, int at, long round)
{
	char seen[256] = "";

	if (round == 0 && mkdir(path(from, "d"), 0755) < 0)
		return saw("mkdir: %s", strerror(errno));
	list(at, "d", seen, sizeof(seen));
	return true;
}

static bool do_add(int from, long round)
{
	char name[32];

	snprintf(name, sizeof(name), "d/e%ld", round);
	if (round >= 5 && unlink(path(from, "d/e%ld", round - 5)) < 0)
		return false;
	return put(from, name, round);
}

static bool see_list(int at, long round)
{
	char seen[256] = "";
	int nr = list(at, "d", seen, sizeof(seen));

	if (nr != (round < 5 ? round + 1 : 5))
		return saw("%d names", nr);
	for (long i = 0; i < (long)sizeof(seen); i++) {
		if (seen[i] != (i <= round && i > round - 5))
			return saw("name %ld is there %d times", i, seen[i]);
	}
	return true;
}

static void remove_list(void)
{
	for (long i = 0; i < rounds; i++)
		unlink(path(0, "d/e%ld", i));
	rmdir(path(0, "d"));
}

/* Held at one mount, its last name removed at another. */
static bool has_open_file(int from, int at, long round)
{
	if (!put(from, "f", round))
		return saw("%s", strerror(errno));
	held[at] = open(path(at, "f"), O_RDWR);
	return held[at] >= 0 || saw("%s", strerror(errno));
}

static bool goes_on_without_name(int at, long round)
{
	struct stat st;
	long other = round + 1;
	bool good = shows(held[at], round);

	if (good && (fstat(held[at], &st) < 0 || st.st_nlink != 0))
		good = saw("%lu links", st.st_nlink);
	if (good && pwrite(held[at], &other, sizeof(other), 0) != sizeof(other))
		good = saw("writing: %s", strerror(errno));
	good = good && shows(held[at], other);
	close(held[at]);
	return good;
}

static bool see_nameless(int at, long round)
{
	return goes_on_without_name(at, round) && is_missing(at, "f");
}

static bool do_replace(int from, long round)
{
	return put(from, "new", round + 1000) && rename(path(from, "new"), path(from, "f")) == 0;
}

static bool see_replaced(int at, long round)
{
	return goes_on_without_name(at, round) && get(at, "f", round + 1000);
}

/* The working directory, removed elsewhere. */
static bool is_in_directory(int from, int at, long round)
{
	struct stat st;

	(void)round;
	if (mkdir(path(from, "d"), 0755) < 0 || chdir(path(at, "d")) < 0 || stat(".", &st) < 0)
		return saw("%s", strerror(errno));
	return true;
}

static bool do_rmdir(int from, long round)
{
	(void)round;
	return rmdir(path(from, "d")) == 0;
}

static bool see_removed_cwd(int at, long round)
{
	char buf[4096];
	struct stat st;
	bool good = true;
	int fd;

	(void)round;
	fd = open("x", O_CREAT | O_WRONLY, 0644);
	if (fd >= 0 || errno != ENOENT)
		good = saw("making a file in it: %s", fd >= 0 ? "done" : strerror(errno));
	close(fd);
	if (good && (stat(".", &st) < 0 || st.st_nlink != 0))
		good = saw("it has %lu links: %s", st.st_nlink, strerror(errno));
	/*
	 * getcwd(2) is answered by the kernel alone, which knows when somebody here has looked for the name.
	 * Not libc's, for which what lies in another namespace is not there.
	 */
	good = good && is_missing(at, "d");
	errno = 0;
	if (good && (syscall(SYS_getcwd, buf, sizeof(buf)) >= 0 || errno != ENOENT))
		good = saw("getcwd: %s", errno ? strerror(errno) : buf);
	if (chdir("/") < 0)
		good = saw("%s", strerror(errno));
	return good;
}

/*
 * Nobody looks for the name: the kernel is told, in a moment.  Who removed it must not use it any more itself, and asks the
 * others before it deletes the inode.
 */
static bool see_gone_soon(int at, long round)
{
	char buf[4096];
	bool good = false;

	(void)at, (void)round;
	for (int i = 0; i < 6000 && !good; i++) {
		good = syscall(SYS_getcwd, buf, sizeof(buf)) < 0 && errno == ENOENT;
		if (!good)
			usleep(10000);
	}
	if (!good)
		saw("getcwd goes on for a minute");
	if (chdir("/") < 0)
		good = saw("%s", strerror(errno));
	return good;
}

static const struct look looks[] = {
	{ "contents", has_file, do_write, see_contents, remove_file, true },
	{ "contents, between open files", has_held_file, do_write_held, see_held, let_go, true },
	{ "contents, in a mapping", has_held_file, do_write_held, see_mapped, let_go, true },
	{ "a store to a mapping, after msync", has_held_file, do_store, see_stored, let_go, true },
	{ "mappings after appending", has_held_file, do_append, see_appended_mapped, let_go, true },
	{ "the size after appending", has_file, do_append, see_size, remove_file, true },
	{ "appending where another has appended", holds_appending, do_append_held, see_appended, let_go, true },
	{ "truncation", has_long_file, do_truncate, see_truncated, remove_file, false },
	{ "times set", has_file, do_times, see_times, remove_file, true },
	{ "mode and owner", has_file, do_mode, see_mode, remove_file, true },
	{ "all attributes after a write", has_file, do_write, same_attributes, remove_file, true },
	{ "who may enter a directory", has_directory, do_close_directory, see_permission, remove_directory, true },
	{ "a name that was missing", has_no_file, do_write, see_there, remove_file, false },
	{ "a name that is gone", has_seen_file, do_unlink, see_missing, NULL, false },
	{ "a file renamed over another", has_file, do_rename_over, see_renamed, remove_file, true },
	{ "names in a directory that has moved", has_tree, do_move_directory, see_moved, remove_moved, false },
	{ "directories made and removed", NULL, do_mkdir_rmdir, see_directory, remove_directory, true },
	{ "where a symbolic link leads", NULL, do_symlink, see_symlink, remove_symlink, true },
	{ "link counts", has_file, do_link, see_links, remove_links, true },
	{ "extended attributes", has_file, do_xattr, see_xattr, remove_file, true },
	{ "access control lists", has_file, do_acl, see_acl, remove_file, true },
	{ "whom a list lets in", has_file, do_let_in, see_let_in, remove_file, true },
	{ "listings", has_list, do_add, see_list, remove_list, true },
	{ "an open file whose name is removed", has_open_file, do_unlink, see_nameless, NULL, false },
	{ "an open file that is replaced", has_open_file, do_replace, see_replaced, remove_file, false },
	{ "a working directory that is removed", is_in_directory, do_rmdir, see_removed_cwd, NULL, false },
	{ "a working directory that is removed, without a look at it", is_in_directory, do_rmdir, see_gone_soon, NULL, false },
};

static int cmp_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void run_look(const struct look *l)
{
	double *took = calloc((size_t)rounds, sizeof(*took)), t;
	long bad = 0, bad_round = -1;
	char first[sizeof(why) + 64] = "";

	for (long r = 0; r < rounds; r++) {
		int from = (int)(r % mounts_nr), at = (int)((r + 1 + r / mounts_nr % (mounts_nr - 1)) % mounts_nr);
		bool good;

		snprintf(why, sizeof(why), "%s", "the change failed");
		changed_at = from;
		good = !l->prepare || l->prepare(from, at, r);
		/* so that the mount has something to be wrong with */
		if (good && r && l->stays)
			good = l->look(at, r - 1);
		if (good)
			snprintf(why, sizeof(why), "%s", "the change failed");
		t = now_ms();
		errno = 0;
		good = good && l->change(from, r) && l->look(at, r);
		took[r] = now_ms() - t;
		if (good)
			continue;
		if (!bad++) {
			bad_round = r;
			snprintf(first, sizeof(first), "mount %d after mount %d: %s", at + 1, from + 1, why);
		}
		if (r == 0)
			break;	/* what others rely on may not be there */
	}
	if (l->end)
		l->end();
	qsort(took, (size_t)rounds, sizeof(*took), cmp_double);
	printf("%s - %s (%ld rounds, %.1f ms, at most %.1f)", bad ? "not ok" : "ok", l->text, rounds,
	       took[rounds / 2], took[rounds - 1]);
	if (bad)
		printf(": %ld bad, the first in round %ld: %s", bad, bad_round, first);
	putchar('\n');
	fflush(stdout);
	failed |= bad != 0;
	free(took);
}

void run_looks(const char *only)
{
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
		if (strncmp(looks[i].text, only, strlen(only)) == 0)
			run_look(&looks[i]);
	}
}
