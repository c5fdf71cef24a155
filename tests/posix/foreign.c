/*
 * foreign CHECK DIR: a program that knows the ioctls only from the interface's text, as archive software does: numbers and
 * layouts are written down here once more.  Exit status 0: as promised; 1: not, said on stderr; 2: could not be tried.
 *   rules    arguments: what is refused, and in which order; buffers at the end of a page; 32-bit callers
 *   crowd    many threads ask at once, and each gets its answer
 *   seqs     which operation moves meta_seq, data_seq, data_version
 *   follow   a reader of the index goes on from its position while files change (for SECONDS, in steps of N entries): nothing
 *            comes behind it, and it has seen the last change of each file
 *   holes    stores to mappings of holes and of preallocated space are found by SEEK_DATA; it waits for a line on stdin
 *            between them
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define WALK_INODES	0x4048E801u
#define INO_PATH	0x4028E802u
#define STAT_MORE	0x8038E805u
#define STATFS_MORE	0x8030E80Au
#define GET_ATTR_X	0x4068E812u

struct entry { uint64_t major, ino; uint32_t minor; uint8_t pad[4]; };
struct walk { struct entry first, last; uint64_t ptr; uint32_t nr; uint8_t index, pad[11]; };
struct path { uint64_t ino, dir, pos, ptr; uint16_t bytes; uint8_t pad[6]; };
struct more { uint64_t meta_seq, data_seq, version, online, offline, cr_sec; uint32_t cr_nsec, pad; };
struct attr { uint64_t mask, flags; uint8_t rest[88]; };
struct volume { uint64_t fsid, rid, committed, meta, data, reserved; };

static int dfd;
static int failures;

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "line %d: not so: %s: ", __LINE__, #cond);                 \
			fprintf(stderr, __VA_ARGS__);                                              \
			fprintf(stderr, "\n");                                                     \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static long ctl(int fd, unsigned cmd, void *arg)
{
	long ret = ioctl(fd, cmd, arg);

	return ret < 0 ? -errno : ret;
}

#define ANSWERS(fd, cmd, arg, want)                                                                \
	do {                                                                                       \
		long got = ctl(fd, cmd, arg);                                                      \
		CHECK(got == (want), "%s(%s) gives %ld, wanted %ld", #cmd, #arg, got, (long)(want)); \
	} while (0)

static int make(const char *name, const char *text)
{
	int fd = openat(dfd, name, O_CREAT | O_RDWR, 0644);

	CHECK(fd >= 0 && pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text), "%s: %s", name, strerror(errno));
	return fd;
}

static struct walk walk_of(void *to, uint32_t nr)
{
	return (struct walk){ .last = { UINT64_MAX, UINT64_MAX, UINT32_MAX, { 0 } }, .ptr = (uintptr_t)to, .nr = nr };
}

/* ---- rules --------------------------------------------------------------------------- */

/* n bytes before a page that nobody may write to. */
static uint8_t *before_page(size_t n, int prot)
{
	uint8_t *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(m != MAP_FAILED && mprotect(m + 4096, 4096, prot) == 0, "%s", strerror(errno));
	return m + 4096 - n;
}

static void walk_rules(int file)
{
	struct entry e[4], *at = (struct entry *)before_page(3 * sizeof(*at), PROT_READ);
	struct walk w;

	for (unsigned index = 2; index < 256; index++) {
		w = walk_of(e, index & 1);
		w.index = (uint8_t)index;
		ANSWERS(dfd, WALK_INODES, &w, -EINVAL);
	}
	w = walk_of(NULL, 0);
	ANSWERS(dfd, WALK_INODES, &w, 0);
	w = walk_of(NULL, 1);
	ANSWERS(dfd, WALK_INODES, &w, -EFAULT);
	w = walk_of((void *)0xffff888000000000u, 1);
	ANSWERS(dfd, WALK_INODES, &w, -EFAULT);
	w = walk_of(at, 3);
	ANSWERS(file, WALK_INODES, &w, 3);
	w = walk_of(at, 4);
	ANSWERS(file, WALK_INODES, &w, -EFAULT);
	w = walk_of((char *)e + 1, 3);
	ANSWERS(file, WALK_INODES, &w, 3);
	CHECK(memcmp((char *)e + 1, at, 3 * sizeof(*at)) == 0, "at an odd address");
	/* minor stands between major and ino */
	w = walk_of(e, 4);
	w.first = w.last = at[1];
	ANSWERS(dfd, WALK_INODES, &w, 1);
	w.first.minor = 1;
	ANSWERS(dfd, WALK_INODES, &w, 0);
	w.first = w.last = at[1];
	w.last.minor = 1;
	w.last.ino = 0;
	CHECK(ctl(dfd, WALK_INODES, &w) >= 1 && e[0].ino == at[1].ino, "last (major, 1, 0) has all of minor 0");
	w = walk_of(e, 4);
	w.first = w.last;
	ANSWERS(dfd, WALK_INODES, &w, 0);
	ANSWERS(dfd, WALK_INODES, (void *)1, -EFAULT);
	ANSWERS(dfd, WALK_INODES, before_page(sizeof(w) - 1, PROT_NONE), -EFAULT);
}

/* Each mask writes its own field and leaves every other byte alone. */
static void attr_rules(int file)
{
	static const uint8_t first[] = { 0, 8, 16, 24, 32, 40, 52, 64, 72, 80 };
	static const uint8_t end[] = { 8, 16, 24, 32, 40, 52, 64, 72, 80, 88 };
	struct attr a, *ro = (struct attr *)before_page(sizeof(*ro), PROT_NONE);

	for (unsigned bit = 0; bit < 10; bit++) {
		memset(&a, 0x5a, sizeof(a));
		a.mask = 1u << bit;
		a.flags = 0;
		ANSWERS(file, GET_ATTR_X, &a, 0);
		for (unsigned i = 0; i < sizeof(a.rest); i++)
			CHECK((i >= first[bit] && i < end[bit]) || a.rest[i] == 0x5a, "mask bit %u changes byte %u", bit, i);
	}
	a = (struct attr){ .mask = 0x400 };
	ANSWERS(file, GET_ATTR_X, &a, -EINVAL);
	a = (struct attr){ .mask = 1, .flags = 2 };
	ANSWERS(file, GET_ATTR_X, &a, -EINVAL);
	a = (struct attr){ .mask = 0, .flags = UINT64_MAX };
	ANSWERS(file, GET_ATTR_X, &a, 0);
	*ro = (struct attr){ .mask = 1 };
	ANSWERS(file, GET_ATTR_X, ro, 0);
	mprotect((void *)((uintptr_t)ro & ~4095ul), 4096, PROT_READ);
	ANSWERS(file, GET_ATTR_X, ro, -EFAULT);
}

/* As a 32-bit program: its system call for it, with memory that it can name. */
static long ctl32(int fd, unsigned cmd, void *arg)
{
#if defined(__x86_64__)
	long ret;

	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(54l), "b"((long)fd), "c"((long)cmd), "d"((long)(uintptr_t)arg)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
#else
	(void)fd, (void)cmd, (void)arg;
	return -ENOSYS;
#endif
}

static void rules_of_32_bits(int file, uint64_t ino)
{
	struct low {
		struct walk walk;
		struct entry entries[3];
		struct path path;
		struct more more;
		struct attr attr;
		char found[200];
	} *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long ret;

	CHECK(low != MAP_FAILED, "%s", strerror(errno));
	low->walk = walk_of(low->entries, 3);
	ret = ctl32(dfd, WALK_INODES, &low->walk);
	if (ret == -ENOSYS)
		return;
	CHECK(ret == 3 && low->entries[2].major >= low->entries[1].major, "%ld", ret);
	ret = ctl32(file, STAT_MORE, &low->more);
	CHECK(ret == 0 && low->more.online == 1, "%ld", ret);
	low->attr.mask = 0x3ff;
	ret = ctl32(file, GET_ATTR_X, &low->attr);
	CHECK(ret == 0 && memcmp(low->attr.rest, &low->more, 40) == 0, "%ld", ret);
	low->path = (struct path){ .ino = ino, .ptr = (uintptr_t)low->found, .bytes = sizeof(low->found) };
	ret = ctl32(dfd, INO_PATH, &low->path);
	CHECK(ret == 0 && strcmp(low->found + 24 + strlen(low->found + 24) - 4, "file") == 0, "%ld %s", ret, low->found + 24);
	low->walk = walk_of((void *)0x100000000u, 3);
	ret = ctl32(dfd, WALK_INODES, &low->walk);
	CHECK(ret == -EFAULT, "an address that it cannot have: %ld", ret);
}

/* Runs it in a process of its own: which signal has ended it, 0 when it has found nothing. */
static int in_child(void (*rules)(int file, uint64_t ino), int file, uint64_t ino)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		rules(file, ino);
		exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && (WIFSIGNALED(status) || status == 0), "%x", status);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* Who has no privilege learns nothing of the other arguments. */
static void rules_of_nobody(int file, uint64_t ino)
{
	char found[100];
	struct path p = { .ino = ino, .ptr = (uintptr_t)found };

	(void)file;
	ANSWERS(dfd, INO_PATH, &p, -ENAMETOOLONG);
	CHECK(setresuid(65534, 65534, 65534) == 0, "%s", strerror(errno));
	ANSWERS(dfd, INO_PATH, &p, -EPERM);
	p.bytes = sizeof(found);
	ANSWERS(dfd, INO_PATH, &p, -EPERM);
}

static void check_rules(void)
{
	static char arg[16384];
	int file = make("file", "hello");
	struct stat st;

	fstat(file, &st);
	for (unsigned i = 0; i < 4; i++)
		close(make((char[]){ 'a', (char)('0' + i), 0 }, ""));
	fsync(dfd);
	walk_rules(file);
	attr_rules(file);
	ANSWERS(file, STAT_MORE, before_page(sizeof(struct more) - 1, PROT_READ), -EFAULT);
	ANSWERS(openat(dfd, "file", O_PATH), WALK_INODES, arg, -EBADF);
	/* of every number only the commands exist */
	for (unsigned nr = 0; nr < 256; nr++) {
		for (unsigned dir = 0; dir < 4; dir++)
			ANSWERS(file, dir << 30 | 9u << 16 | 0xe800u | nr, arg, -ENOTTY);
	}
	ANSWERS(file, WALK_INODES ^ 1u << 16, arg, -ENOTTY);
	ANSWERS(file, WALK_INODES ^ 1u << 8, arg, -ENOTTY);
	CHECK(in_child(rules_of_nobody, file, st.st_ino) == 0, "it dies");
	/* a kernel without 32-bit programs kills who tries */
	if (in_child(rules_of_32_bits, file, st.st_ino))
		printf("no 32-bit programs here\n");
}

/* ---- crowd --------------------------------------------------------------------------- */

#define THREADS		400u
#define CALLS		10u

static uint64_t crowd_ino;

static void *ask(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	struct entry e[64];
	char found[4096];

	for (unsigned i = 0; i < CALLS; i++) {
		struct path p = { .ino = crowd_ino, .ptr = (uintptr_t)found, .bytes = sizeof(found) };
		struct attr a = { .mask = 0x3ff };
		struct walk w = walk_of(e, 64);

		if ((me + i) % 3 == 0)
			ANSWERS(dfd, INO_PATH, &p, 0);
		else if ((me + i) % 3 == 1)
			ANSWERS(dfd, GET_ATTR_X, &a, 0);
		else
			CHECK(ctl(dfd, WALK_INODES, &w) > 0, "%s", strerror(errno));
	}
	return NULL;
}

static void check_crowd(void)
{
	pthread_t thread[THREADS];
	struct stat st;

	fstat(make("file", "hello"), &st);
	crowd_ino = st.st_ino;
	fsync(dfd);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], NULL, ask, (void *)i) == 0, "no thread");
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
}

/* ---- seqs ---------------------------------------------------------------------------- */

static struct more more_of(const char *name)
{
	int fd = openat(dfd, name, O_RDONLY | O_NONBLOCK);
	struct more m;

	CHECK(fd >= 0, "%s: %s", name, strerror(errno));
	ANSWERS(fd, STAT_MORE, &m, 0);
	close(fd);
	return m;
}

/* What was done is committed, and what comes next gets another sequence number. */
static void next_transaction(void)
{
	static unsigned n;
	char text[16];
	int fd;

	snprintf(text, sizeof(text), "%u", ++n);
	fd = make("clock", text);
	CHECK(fsync(fd) == 0, "%s", strerror(errno));
	close(fd);
}

static void expect(const char *what, const char *name, const struct more *was, const char *want)
{
	struct more is = more_of(name);
	char got[8] = "";

	CHECK(is.meta_seq >= was->meta_seq && is.data_seq >= was->data_seq && is.version >= was->version,
	      "%s: %s goes back", what, name);
	strcat(got, is.meta_seq != was->meta_seq ? "M" : "");
	strcat(got, is.data_seq != was->data_seq ? "D" : "");
	strcat(got, is.version != was->version ? "V" : "");
	if (strcmp(got, want) == 0)
		return;
	failures++;
	fprintf(stderr, "%s: of %s '%s' moves, wanted '%s'\n", what, name, got, want);
}

/* M: meta_seq, D: data_seq, V: data_version; `two` is another file, which moves as `want_two` says. */
#define MOVES2(one, want, two, want_two, call)                                                     \
	do {                                                                                       \
		struct more was_one, was_two;                                                      \
		next_transaction();                                                                \
		was_one = more_of(one);                                                            \
		was_two = more_of(two);                                                            \
		(void)!(call);                                                                     \
		next_transaction();                                                                \
		expect(#call, one, &was_one, want);                                                \
		expect(#call, two, &was_two, want_two);                                            \
	} while (0)
#define MOVES(name, want, call) MOVES2(name, want, "idle", "", call)

static void data_seqs(int f)
{
	char buf[5000] = "";
	char *m;

	MOVES("f", "MDV", pwrite(f, "x", 1, 0));
	MOVES("f", "", pwrite(f, "x", 0, 100000));
	MOVES("f", "MDV", pwrite(f, buf, sizeof(buf), 2000));
	MOVES("f", "", pread(f, buf, 10, 0));
	MOVES("f", "", lseek(f, 0, SEEK_HOLE));
	MOVES("f", "", fsync(f));
	MOVES("f", "MDV", ftruncate(f, 100));
	MOVES("f", "MDV", ftruncate(f, 10000));
	MOVES("f", "M", ftruncate(f, 10000));
	MOVES("f", "MDV", truncate("f", 0));
	MOVES("f", "M", close(open("f", O_RDWR | O_TRUNC)));
	MOVES("f", "", close(open("f", O_RDWR | O_CREAT, 0600)));
	MOVES("f", "MDV", fallocate(f, 0, 0, 10000));
	MOVES("f", "M", fallocate(f, 1, 0, 40960));
	MOVES("f", "MDV", fallocate(f, 0, 0, 20000));
	MOVES("f", "", fallocate(f, 2, 0, 4096));
	m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
	CHECK(m != MAP_FAILED, "%s", strerror(errno));
	MOVES("f", "MDV", (m[0]++, msync(m, 4096, MS_SYNC)));
	MOVES("f", "", msync(m, 4096, MS_SYNC));
	MOVES("f", "MDV", (m[0]++, munmap(m, 4096), fsync(f)));
	MOVES2("f", "MDV", "g", "", sendfile(f, open("g", O_RDONLY), NULL, 4));
	MOVES2("f", "MDV", "g", "", copy_file_range(open("g", O_RDONLY), NULL, f, NULL, 4, 0));
	MOVES("f", "MDV", write(open("f", O_WRONLY | O_APPEND), "app", 3));
}

static void name_seqs(void)
{
	struct timespec omit[2] = { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } };

	MOVES("f", "M", chmod("f", 0600));
	MOVES("f", "M", chmod("f", 0600));
	MOVES("f", "M", chown("f", (uid_t)-1, (gid_t)-1));
	MOVES("f", "M", utimensat(AT_FDCWD, "f", NULL, 0));
	MOVES("f", "", utimensat(AT_FDCWD, "f", omit, 0));
	MOVES("f", "M", setxattr("f", "user.a", "1", 1, 0));
	MOVES("f", "", setxattr("f", "user.b", "1", 1, XATTR_REPLACE));
	MOVES("f", "M", removexattr("f", "user.a"));
	MOVES("f", "", removexattr("f", "user.a"));
	MOVES2("f", "M", "d", "M", link("f", "d/l"));
	MOVES2("f", "M", "d", "M", rename("d/l", "d/k"));
	MOVES2("f", "", "d", "", rename("d/k", "f"));
	MOVES2("f", "M", "d", "M", unlink("d/k"));
	MOVES("d", "M", rename("f", "d/f"));
	MOVES("d", "M", rename("d/f", "f"));
	link("g", "over");
	MOVES2("g", "M", "d", "M", rename("d/new", "over"));
	MOVES("d", "M", mkdir("d/x", 0755));
	MOVES("d", "", mkdir("d/x", 0755));
	MOVES("d", "M", rmdir("d/x"));
	MOVES("d", "M", symlink("x", "d/s"));
	MOVES("d", "M", close(open("d/c", O_CREAT | O_RDWR, 0644)));
	MOVES("d", "M", setxattr("d", "user.q", "1", 1, 0));
	MOVES("d", "", close(open("d", O_RDONLY)));
}

static void check_seqs(void)
{
	int f = make("f", ""), g = make("g", "data"), i = make("idle", "idle");
	struct more m;

	CHECK(mkdir("d", 0755) == 0, "%s", strerror(errno));
	close(make("d/new", ""));
	m = more_of("f");
	CHECK(m.meta_seq && m.meta_seq == m.data_seq && m.version == 0, "a new file");
	data_seqs(f);
	name_seqs();
	close(f);
	close(g);
	close(i);
}

/* ---- follow -------------------------------------------------------------------------- */

#define WRITERS		3u
#define FILES		200u

static atomic_bool enough;

static void *change_files(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, seed = me + 1;
	char name[32], other[32];

	while (!atomic_load(&enough)) {
		unsigned i = (unsigned)rand_r(&seed) % FILES;
		int what = rand_r(&seed) % 6, fd = -1;

		snprintf(name, sizeof(name), "w%u-%u", me, i);
		snprintf(other, sizeof(other), "w%u-%u", me, (i + 1) % FILES);
		if (what == 0)
			unlinkat(dfd, name, 0);
		else if (what == 1)
			renameat(dfd, name, dfd, other);
		else if (what == 2)
			fchmodat(dfd, name, 0600 | (mode_t)rand_r(&seed) % 64, 0);
		else
			fd = openat(dfd, name, O_CREAT | O_RDWR, 0644);
		if (fd >= 0) {
			CHECK(pwrite(fd, "x", 1, rand_r(&seed) % 10000) == 1, "%s: %s", name, strerror(errno));
			CHECK(what != 3 || fsync(fd) == 0, "%s: %s", name, strerror(errno));
			close(fd);
		}
	}
	return NULL;
}

struct reader {
	struct walk w;
	struct entry *e, *seen;
	size_t seen_nr;
};

static long read_on(struct reader *r)
{
	long nr = ctl(dfd, WALK_INODES, &r->w);

	CHECK(nr >= 0, "walk: %s", strerror((int)-nr));
	for (long i = 0; i < nr; i++) {
		const struct entry *last = r->seen_nr ? &r->seen[r->seen_nr - 1] : NULL, *e = &r->e[i];

		CHECK(!last || e->major > last->major || (e->major == last->major && e->ino > last->ino),
		      "%lu of %lu comes behind %lu of %lu", e->major, e->ino, last->major, last->ino);
		r->seen = realloc(r->seen, (r->seen_nr + 1) * sizeof(*e));
		CHECK(r->seen, "no memory");
		r->seen[r->seen_nr++] = *e;
	}
	if (nr) {
		r->w.first = r->e[nr - 1];
		r->w.first.ino++;
	}
	return nr;
}

static bool has_seen(const struct reader *r, uint64_t ino, uint64_t seq)
{
	for (size_t i = r->seen_nr; i-- > 0 && r->seen[i].major >= seq;) {
		if (r->seen[i].ino == ino && r->seen[i].major == seq)
			return true;
	}
	return false;
}

static uint64_t committed(void)
{
	struct volume v;

	ANSWERS(dfd, STATFS_MORE, &v, 0);
	return v.committed;
}

static void check_follow(unsigned seconds, uint32_t step)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	struct reader r = { .e = calloc(step, sizeof(struct entry)) };
	time_t end = time(NULL) + (time_t)seconds;
	pthread_t thread[WRITERS];
	uint64_t last = 0, stable;
	unsigned files = 0;
	struct dirent *de;
	DIR *d = opendir(".");

	CHECK(r.e && d, "%s", strerror(errno));
	r.w = walk_of(r.e, step);
	for (uintptr_t i = 0; i < WRITERS; i++)
		CHECK(pthread_create(&thread[i], NULL, change_files, (void *)i) == 0, "no thread");
	while (time(NULL) < end) {
		if (read_on(&r) == 0)
			nanosleep(&ms, NULL);
	}
	atomic_store(&enough, true);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	CHECK(fsync(dfd) == 0, "%s", strerror(errno));
	while ((de = readdir(d))) {
		struct more m = more_of(de->d_name);

		last = de->d_name[0] == 'w' && m.meta_seq > last ? m.meta_seq : last;
	}
	/* it is committed; that it is stable, no older transaction being open, may take a moment */
	for (end = time(NULL) + 60; (stable = committed()) < last; nanosleep(&ms, NULL))
		CHECK(time(NULL) < end, "seq %lu is committed, and after a minute %lu is stable", last, stable);
	while (read_on(&r))
		;
	rewinddir(d);
	while ((de = readdir(d))) {
		if (de->d_name[0] != 'w')
			continue;
		CHECK(has_seen(&r, de->d_ino, more_of(de->d_name).meta_seq), "%s (%lu): its last change was not seen",
		      de->d_name, de->d_ino);
		files++;
	}
	CHECK(files, "no files were left to look for");
	closedir(d);
	printf("%u files, %zu entries\n", files, r.seen_nr);
}

/* ---- holes --------------------------------------------------------------------------- */

#define HOLE_BYTES	(1 << 20)

/* What a copy that leaves holes out would have of the file. */
static void copy_is_whole(const char *name, const char *bytes)
{
	static char buf[HOLE_BYTES], copy[HOLE_BYTES];
	int fd = openat(dfd, name, O_RDONLY);
	off_t at = 0, end;
	struct stat st;

	CHECK(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", name, strerror(errno));
	/* where there are no blocks tar does not look */
	CHECK(st.st_blocks || !memchr(bytes, 's', HOLE_BYTES), "%s: it has no blocks", name);
	memset(copy, 0, sizeof(copy));
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		CHECK(end > at && pread(fd, copy + at, (size_t)(end - at), at) == end - at, "%s: [%ld, %ld): %s", name, at,
		      end, strerror(errno));
		at = end;
	}
	CHECK(errno == ENXIO, "%s", strerror(errno));
	CHECK(pread(fd, buf, sizeof(buf), 0) == HOLE_BYTES && memcmp(buf, bytes, HOLE_BYTES) == 0, "%s: read", name);
	CHECK(memcmp(copy, bytes, HOLE_BYTES) == 0, "%s: a copy without its holes lacks what was stored", name);
	close(fd);
}

static char *map_of(const char *name, bool prepared)
{
	int fd = openat(dfd, name, O_CREAT | O_RDWR, 0644);
	char *m;

	CHECK(fd >= 0 && ftruncate(fd, HOLE_BYTES) == 0, "%s: %s", name, strerror(errno));
	CHECK(!prepared || fallocate(fd, 0, 0, HOLE_BYTES) == 0, "%s: %s", name, strerror(errno));
	m = mmap(NULL, HOLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED, "%s: %s", name, strerror(errno));
	close(fd);
	return m;
}

static bool is_one_hole(const char *name)
{
	int fd = openat(dfd, name, O_RDONLY);
	bool is = lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO;

	close(fd);
	return is;
}

static void check_holes(void)
{
	static char bytes[HOLE_BYTES];
	char *m[2], line[8];
	char *early;

	early = map_of("early", false);
	munmap(early, HOLE_BYTES);
	copy_is_whole("early", bytes);	/* read: the kernel has pages of its hole */
	CHECK(is_one_hole("early"), "a hole that was read is one still");
	early = map_of("early", false);
	m[0] = map_of("hole", false);
	m[1] = map_of("prepared", true);
	CHECK(is_one_hole("hole") && is_one_hole("prepared"), "nothing was stored yet");
	for (unsigned at = 5000; at < HOLE_BYTES; at += 300000) {
		bytes[at] = 's';
		early[at] = m[0][at] = m[1][at] = 's';
		copy_is_whole("early", bytes);
		copy_is_whole("hole", bytes);
		copy_is_whole("prepared", bytes);
		printf("stored\n");
		fflush(stdout);
		/* meanwhile fsd may be another one */
		CHECK(fgets(line, sizeof(line), stdin), "nobody says that it goes on");
		copy_is_whole("early", bytes);
		copy_is_whole("hole", bytes);
		copy_is_whole("prepared", bytes);
	}
	munmap(early, HOLE_BYTES);
	munmap(m[0], HOLE_BYTES);
	munmap(m[1], HOLE_BYTES);
	copy_is_whole("hole", bytes);
}

int main(int argc, char **argv)
{
	const char *check = argc > 2 ? argv[1] : "";

	dfd = argc > 2 && chdir(argv[2]) == 0 ? open(".", O_RDONLY | O_DIRECTORY) : -1;
	if (dfd >= 0 && strcmp(check, "rules") == 0)
		check_rules();
	else if (dfd >= 0 && strcmp(check, "crowd") == 0)
		check_crowd();
	else if (dfd >= 0 && strcmp(check, "seqs") == 0)
		check_seqs();
	else if (dfd >= 0 && strcmp(check, "follow") == 0 && argc == 5)
		check_follow((unsigned)atoi(argv[3]), (uint32_t)atoi(argv[4]));
	else if (dfd >= 0 && strcmp(check, "holes") == 0)
		check_holes();
	else {
		fprintf(stderr, "usage: foreign rules|crowd|seqs|holes DIR, foreign follow DIR SECONDS STEP\n");
		return 2;
	}
	return failures != 0;
}
