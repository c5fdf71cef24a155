/*
 * ioctls CHECK DIR [ARG]: one check of a mount's ioctls, as the interface's text has them: numbers
 * and layouts are written down here again, on purpose.  Exit status: 0 as promised, 1 not (said), 2
 * could not be tried.
 *
 * The checks that need another user or other capabilities change them first and for good.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WALK_INODES	0x4048E801u
#define INO_PATH	0x4028E802u
#define STAT_MORE	0x8038E805u
#define LISTXATTR_HIDDEN 0xC018E808u
#define STATFS_MORE	0x8030E80Au
#define GET_ATTR_X	0x4068E812u
#define WALK_INODES_N	0xFFF8E881u
#define INO_PATH_N	0xFFF8E882u
#define LISTXATTR_HIDDEN_N 0xFFF8E888u
#define GET_ATTR_X_N	0xC068E892u
#define NATIVE_BYTES	16376u
#define NOBODY		65534u

struct entry { uint64_t major, ino; uint32_t minor, pad; };
struct walk { struct entry first, last; uint64_t ptr; uint32_t nr; uint8_t index, pad[11]; };
struct path { uint64_t ino, dir, pos, ptr; uint16_t bytes; uint8_t pad[6]; };
struct found { uint64_t dir, pos; uint16_t bytes; uint8_t pad[6]; char path[]; };
struct stat_more {
	uint64_t meta_seq, data_seq, data_version, online, offline, cr_sec;
	uint32_t cr_nsec, pad;
};
struct list { uint64_t id; uint64_t ptr; uint32_t bytes, hash; };
struct statfs_more { uint64_t fsid, rid, committed, meta, data, reserved; };
struct attr { uint64_t mask, flags, meta_seq, data_seq, data_version, online, offline, ct_sec;
	      uint32_t ct_nsec, cr_nsec; uint64_t cr_sec, size, bits, proj; };
struct walk_n {
	struct entry first, last;
	uint32_t nr;
	uint8_t index, is_end, pad[2];
	struct entry e[680];
};
struct path_n { uint64_t ino, dir, pos, bytes, pad; struct found found; };
struct list_n { uint64_t id, bytes; uint32_t hash, pad; char names[NATIVE_BYTES - 24]; };
_Static_assert(sizeof(struct walk) == 72 && sizeof(struct path) == 40 &&
		       sizeof(struct stat_more) == 56 && sizeof(struct list) == 24 &&
		       sizeof(struct statfs_more) == 48 && sizeof(struct attr) == 104 &&
		       sizeof(struct walk_n) == NATIVE_BYTES &&
		       sizeof(struct list_n) == NATIVE_BYTES,
	       "1.2");

static const char *dir;
static int dfd;

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "line %d: not so: %s (errno %s) ", __LINE__, #cond,        \
				strerror(errno));                                                  \
			fprintf(stderr, " " __VA_ARGS__);                                          \
			fprintf(stderr, "\n");                                                     \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* ioctl, its errno as a negative number. */
static int ctl(int fd, unsigned long cmd, void *arg)
{
	int ret = ioctl(fd, cmd, arg);

	return ret < 0 ? -errno : ret;
}

static void become_nobody(void)
{
	CHECK(syscall(SYS_setgroups, 0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
	      setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

static int open_in(const char *name, int flags)
{
	int fd = openat(dfd, name, flags | O_CLOEXEC, 0644);

	CHECK(fd >= 0, "%s", name);
	return fd;
}

static struct walk walk_all(struct entry *to, uint32_t nr, uint8_t index)
{
	return (struct walk){ .last = { UINT64_MAX, UINT64_MAX, UINT32_MAX, 0 },
			      .ptr = (uintptr_t)to,
			      .nr = nr,
			      .index = index };
}

/* ---- walking ------------------------------------------------------------------------- */

#define MANY 20000u
static struct entry all[MANY];

static uint32_t get_all(uint8_t index)
{
	struct walk w = walk_all(all, MANY, index);
	int n = ctl(dfd, WALK_INODES, &w);

	CHECK(n > 0 && n < (int)MANY, "%d", n);
	for (int i = 1; i < n; i++)
		CHECK(all[i - 1].major < all[i].major ||
		      (all[i - 1].major == all[i].major && all[i - 1].ino < all[i].ino));
	return (uint32_t)n;
}

/* After: it is committed, so that the same is found each time. */
static void check_walk(void)
{
	uint32_t n = get_all(0), got = 0;
	struct entry one[3];
	struct walk w;
	struct walk_n *wn = calloc(1, sizeof(*wn));

	CHECK(n >= 2 && n < MANY);
	/* a few at a time, going on behind the last */
	w = walk_all(one, 3, 0);
	for (int r; (r = ctl(dfd, WALK_INODES, &w)) != 0; got += (uint32_t)r) {
		CHECK(r > 0 && r <= 3 && got + (uint32_t)r <= n, "%d", r);
		CHECK(memcmp(one, all + got, (size_t)r * sizeof(one[0])) == 0);
		w.first = one[r - 1];
		w.first.ino++;
	}
	CHECK(got == n, "%u of %u", got, n);
	/* the native form: the same, without pointers */
	wn->last = w.last;
	got = 0;
	for (int r = 1; r; got += (uint32_t)r) {
		wn->is_end = 1;
		r = ctl(dfd, WALK_INODES_N, wn);
		CHECK(r >= 0 && (uint32_t)r == wn->nr && got + wn->nr <= n, "%d", r);
		CHECK(wn->is_end == (wn->nr < sizeof(wn->e) / sizeof(wn->e[0])), "%u of %u", wn->is_end, wn->nr);
		if (!r)
			break;
		CHECK(memcmp(wn->e, all + got, wn->nr * sizeof(wn->e[0])) == 0);
		wn->first = wn->e[r - 1];
		wn->first.ino++;
		wn->nr = 0;
	}
	CHECK(got == n);
	/* edges */
	w = walk_all(one, 0, 0);
	CHECK(ctl(dfd, WALK_INODES, &w) == 0);
	w = walk_all(one, 3, 7);
	CHECK(ctl(dfd, WALK_INODES, &w) == -EINVAL);
	w = walk_all(one, 3, 0);
	w.first = all[1];
	w.last = all[0];
	CHECK(ctl(dfd, WALK_INODES, &w) == 0);
	w.first = w.last = all[n - 1];
	CHECK(ctl(dfd, WALK_INODES, &w) == 1 && one[0].ino == all[n - 1].ino);
	w.first.minor = 1;	/* behind every inode of that seq */
	w.last = (struct entry){ UINT64_MAX, UINT64_MAX, UINT32_MAX, 0 };
	CHECK(ctl(dfd, WALK_INODES, &w) == 0 || one[0].major > all[n - 1].major);
	/* data_seq: regular files only */
	n = get_all(1);
	for (uint32_t i = 0; i < n; i++)
		CHECK(all[i].ino != 1);
}

/* ---- memory -------------------------------------------------------------------------- */

static void check_memory(void)
{
	long page = sysconf(_SC_PAGESIZE);
	uint8_t *map = mmap(NULL, 2 * (size_t)page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct entry e[2];
	struct walk w = walk_all(NULL, 2, 0);

	CHECK(map != MAP_FAILED);
	CHECK(ctl(dfd, WALK_INODES, &w) == -EFAULT);
	w.ptr = UINT64_MAX - 8;
	CHECK(ctl(dfd, WALK_INODES, &w) == -EFAULT);
	w.ptr = 0xffff888000000000ull;
	CHECK(ctl(dfd, WALK_INODES, &w) == -EFAULT);
	/* a page it may only read stays as it is */
	memset(map, 0x5a, (size_t)page);
	CHECK(mprotect(map, (size_t)page, PROT_READ) == 0);
	w.ptr = (uintptr_t)map;
	CHECK(ctl(dfd, WALK_INODES, &w) == -EFAULT);
	for (long i = 0; i < page; i++)
		CHECK(map[i] == 0x5a);
	CHECK(ctl(dfd, GET_ATTR_X, map) == -EINVAL);	/* 0x5a5a: unknown bits */
	/* the second of two entries does not fit */
	CHECK(mprotect(map, (size_t)page, PROT_READ | PROT_WRITE) == 0 &&
	      munmap(map + page, (size_t)page) == 0);
	w.ptr = (uintptr_t)map + (size_t)page - sizeof(e[0]);
	CHECK(ctl(dfd, WALK_INODES, &w) == -EFAULT);
	w.nr = 1;
	CHECK(ctl(dfd, WALK_INODES, &w) == 1);
	/* any alignment, as copying has it */
	w.ptr = (uintptr_t)map + 3;
	CHECK(ctl(dfd, WALK_INODES, &w) == 1);
	w.ptr = (uintptr_t)e;
	CHECK(ctl(dfd, WALK_INODES, &w) == 1 && memcmp(e, map + 3, sizeof(e[0])) == 0);
}

/* The answer goes into pages of a file of this very mount, which the mount must bring in to be
 * written. */
static void check_own_mapping(void)
{
	int fd = open_in("mapping", O_RDWR | O_CREAT);
	pid_t pids[8];
	int bad = 0, st;

	CHECK(ftruncate(fd, 8 * 65536) == 0);
	for (unsigned i = 0; i < 8; i++) {
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (pids[i] == 0) {
			struct entry *e = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
					       i * 65536);
			struct walk w = walk_all(e, 65536 / sizeof(*e), 0);
			int n = e == MAP_FAILED ? -1 : ctl(dfd, WALK_INODES, &w);

			_exit(n > 0 && e[0].ino != 0 ? 0 : 1);
		}
	}
	for (unsigned i = 0; i < 8; i++)
		bad += waitpid(pids[i], &st, 0) != pids[i] || st != 0;
	CHECK(bad == 0, "%d", bad);
	CHECK(close(fd) == 0 && unlinkat(dfd, "mapping", 0) == 0);
}

static void *walk_thread(void *arg)
{
	struct entry e;
	struct walk w = walk_all(&e, 1, 0);

	(void)arg;
	for (unsigned i = 0; i < 50; i++)
		CHECK(ctl(dfd, WALK_INODES, &w) == 1 && e.major > 0);
	return NULL;
}

static void check_threads(void)
{
	pthread_t t[12];

	for (unsigned i = 0; i < 12; i++)
		CHECK(pthread_create(&t[i], NULL, walk_thread, NULL) == 0);
	for (unsigned i = 0; i < 12; i++)
		pthread_join(t[i], NULL);
}

/* ---- paths
 * ------------------------------------------------------------------------------------------------
 */

static int get_path(uint64_t ino, uint64_t from_dir, uint64_t from_pos, struct found *f,
		    uint16_t bytes)
{
	struct path p = {
		.ino = ino, .dir = from_dir, .pos = from_pos, .ptr = (uintptr_t)f, .bytes = bytes
	};

	return ctl(dfd, INO_PATH, &p);
}

static void check_paths(void)
{
	struct found *f = malloc(UINT16_MAX);
	struct path_n *n = calloc(1, NATIVE_BYTES);
	struct stat st;
	bool seen[2] = { false, false };
	int fd;

	CHECK(mkdirat(dfd, "d1", 0755) == 0 && mkdirat(dfd, "d1/d2", 0755) == 0 &&
	      mkdirat(dfd, "d3", 0755) == 0);
	fd = open_in("d1/d2/name", O_RDWR | O_CREAT);
	CHECK(linkat(dfd, "d1/d2/name", dfd, "d3/other", 0) == 0 && fstat(fd, &st) == 0);
	CHECK(get_path(st.st_ino, 0, 0, f, UINT16_MAX) == 0);
	for (unsigned i = 0; i < 2; i++) {
		const char *base = strstr(f->path, "d1/d2/name");

		CHECK(f->bytes == strlen(f->path) + 1);
		if (!base)
			base = strstr(f->path, "d3/other");
		CHECK(base && !seen[*(base + 1) == '3'], "%s", f->path);
		seen[*(base + 1) == '3'] = true;
		if (i == 0)
			CHECK(get_path(st.st_ino, f->dir, f->pos + 1, f, UINT16_MAX) == 0);
	}
	CHECK(get_path(st.st_ino, f->dir, f->pos + 1, f, UINT16_MAX) == -ENOENT);
	/* exactly enough room, and a byte less */
	CHECK(get_path(st.st_ino, f->dir, f->pos, f, UINT16_MAX) == 0);
	CHECK(get_path(st.st_ino, f->dir, f->pos, f, (uint16_t)(24 + f->bytes)) == 0);
	CHECK(get_path(st.st_ino, f->dir, f->pos, f, (uint16_t)(24 + f->bytes - 1)) ==
	      -ENAMETOOLONG);
	CHECK(get_path(st.st_ino, 0, 0, f, 10) == -ENAMETOOLONG);
	/* the native form */
	n->ino = st.st_ino;
	n->dir = f->dir;
	n->pos = f->pos;
	CHECK(ctl(dfd, INO_PATH_N, n) == 0);
	CHECK(n->bytes == 24u + f->bytes && memcmp(&n->found, f, 24u + f->bytes) == 0, "%s",
	      n->found.path);
	/* a name that moves, the root, what does not exist, and what has no name any more */
	CHECK(renameat(dfd, "d3/other", dfd, "d1/moved") == 0 &&
	      unlinkat(dfd, "d1/d2/name", 0) == 0);
	CHECK(get_path(st.st_ino, 0, 0, f, UINT16_MAX) == 0 && strstr(f->path, "d1/moved"), "%s",
	      f->path);
	CHECK(unlinkat(dfd, "d1/moved", 0) == 0);
	CHECK(get_path(st.st_ino, 0, 0, f, UINT16_MAX) == -ENOENT);
	CHECK(get_path(1, 0, 0, f, UINT16_MAX) == -ENOENT &&
	      get_path(1ull << 40, 0, 0, f, UINT16_MAX) == -ENOENT);
	CHECK(get_path(st.st_ino, 0, 0, NULL, UINT16_MAX) == -ENOENT);
	CHECK(fstatat(dfd, "d1/d2", &st, 0) == 0 &&
	      get_path(st.st_ino, 0, 0, NULL, UINT16_MAX) == -EFAULT);
	close(fd);
	CHECK(unlinkat(dfd, "d1/d2", AT_REMOVEDIR) == 0 && unlinkat(dfd, "d1", AT_REMOVEDIR) == 0 &&
	      unlinkat(dfd, "d3", AT_REMOVEDIR) == 0);
}

static int path_of_dir(void)
{
	struct found *f = malloc(UINT16_MAX);
	struct path_n *n = calloc(1, NATIVE_BYTES);
	struct stat st;
	int ret;

	CHECK(fstatat(dfd, "plain", &st, 0) == 0);
	n->ino = st.st_ino;
	ret = get_path(st.st_ino, 0, 0, f, UINT16_MAX);
	CHECK(ret == ctl(dfd, INO_PATH_N, n));
	return ret;
}

/* uid 0, but without the capability */
static void check_paths_uncapable(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	CHECK(path_of_dir() == 0);
	CHECK(syscall(SYS_capget, &head, data) == 0);
	data[0].effective &= ~(1u << CAP_DAC_READ_SEARCH);
	CHECK(syscall(SYS_capset, &head, data) == 0);
	CHECK(path_of_dir() == -EPERM);
}

/* root of a user namespace of its own: all capabilities, but of nothing here */
static void check_paths_nested(void)
{
	struct entry e;
	struct walk w = walk_all(&e, 1, 0);

	if (unshare(CLONE_NEWUSER) < 0) {
		fprintf(stderr, "no user namespaces: %s\n", strerror(errno));
		exit(2);
	}
	CHECK(path_of_dir() == -EPERM);
	CHECK(ctl(dfd, WALK_INODES, &w) == 1);
}

/* ---- other users --------------------------------------------------------------------- */

static void check_nobody(void)
{
	struct entry e;
	struct walk w = walk_all(&e, 1, 0);
	int secret = open_in("secret", O_RDONLY), plain = open_in("plain", O_RDONLY),
	    by_acl = open_in("by-acl", O_RDONLY);
	struct list l = { .ptr = (uintptr_t)&e, .bytes = sizeof(e) };
	struct list_n *ln = calloc(1, sizeof(*ln));
	struct stat_more sm;
	struct statfs_more sf;

	become_nobody();
	CHECK(ctl(dfd, WALK_INODES, &w) == 1);
	check_threads();
	check_memory();
	CHECK(ctl(dfd, STATFS_MORE, &sf) == 0 && ctl(secret, STAT_MORE, &sm) == 0);
	CHECK(path_of_dir() == -EPERM);
	/* read permission on the inode counts, not what the descriptor was opened for */
	CHECK(ctl(secret, LISTXATTR_HIDDEN, &l) == -EACCES &&
	      ctl(secret, LISTXATTR_HIDDEN_N, ln) == -EACCES);
	CHECK(ctl(plain, LISTXATTR_HIDDEN, &l) == 0 && ctl(plain, LISTXATTR_HIDDEN_N, ln) == 0 &&
	      ln->bytes == 0);
	CHECK(ctl(by_acl, LISTXATTR_HIDDEN, &l) == 0);
	/* a program nobody may debug, as set-user-ID ones are, is served all the same */
	CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
	CHECK(ctl(dfd, WALK_INODES, &w) == 1);
}

/* ---- attributes ---------------------------------------------------------------------- */

static void check_attrs(void)
{
	int fd = open_in("attrs", O_RDWR | O_CREAT);
	struct { struct attr a; uint8_t after[16]; } x;
	struct stat_more sm, dm;
	struct attr n;
	struct stat st;
	struct statfs_more sf;

	/* a seq that is not committed yet is waited for */
	CHECK(pwrite(fd, "xyz", 3, 8192) == 3 && fstat(fd, &st) == 0);
	CHECK(ctl(fd, STAT_MORE, &sm) == 0);
	CHECK(sm.meta_seq > 0 && sm.data_seq > 0 && sm.data_version > 0 && !(sm.meta_seq >> 63),
	      "%llx", (unsigned long long)sm.meta_seq);
	CHECK(sm.online == 1 && sm.offline == 0 && (uint64_t)st.st_blocks == 8 * sm.online);
	CHECK(fsync(fd) == 0 && ctl(dfd, STATFS_MORE, &sf) == 0);
	CHECK(sf.committed >= sm.meta_seq && sf.fsid && sf.rid && sf.meta && sf.data);
	CHECK(ctl(dfd, STAT_MORE, &dm) == 0 && dm.meta_seq > 0);

	memset(&x, 0xa5, sizeof(x));
	x.a.mask = x.a.flags = 0;
	CHECK(ctl(fd, GET_ATTR_X, &x) == 0 && x.a.meta_seq == 0xa5a5a5a5a5a5a5a5ull);
	x.a.mask = 0x400;
	CHECK(ctl(fd, GET_ATTR_X, &x) == -EINVAL);
	x.a.mask = 1;
	x.a.flags = 2;
	CHECK(ctl(fd, GET_ATTR_X, &x) == -EINVAL);
	/* what was not asked for keeps the caller's bytes, before and behind */
	x.a.mask = 0x4 | 0x10;
	x.a.flags = 0;
	CHECK(ctl(fd, GET_ATTR_X, &x) == 0);
	CHECK(x.a.data_version == sm.data_version && x.a.offline == 0);
	CHECK(x.a.meta_seq == 0xa5a5a5a5a5a5a5a5ull && x.a.online == 0xa5a5a5a5a5a5a5a5ull &&
	      x.a.ct_sec == 0xa5a5a5a5a5a5a5a5ull && x.a.proj == 0xa5a5a5a5a5a5a5a5ull &&
	      x.after[0] == 0xa5);
	x.a.mask = 0x3ff;
	CHECK(ctl(fd, GET_ATTR_X, &x) == 0);
	CHECK(x.a.meta_seq == sm.meta_seq && x.a.data_seq == sm.data_seq && x.a.online == 1 &&
	      x.a.size == 8195);
	CHECK(x.a.ct_sec == (uint64_t)st.st_ctim.tv_sec &&
	      x.a.ct_nsec == (uint64_t)st.st_ctim.tv_nsec);
	CHECK(x.a.cr_sec == sm.cr_sec && x.a.cr_nsec == sm.cr_nsec && x.a.bits == 0 &&
	      x.a.proj == 0 && x.after[0] == 0xa5);
	n = (struct attr){ .mask = 0x3ff };
	CHECK(ctl(fd, GET_ATTR_X_N, &n) == 0 && memcmp(&n, &x.a, sizeof(n)) == 0);
	CHECK(close(fd) == 0);
}

/* Hidden attributes exist on volumes made elsewhere: ARG names one, with as many as the listing
 * shows. */
static void check_hidden(const char *name, unsigned nr)
{
	int fd = open_in(name, O_RDONLY);
	char buf[40];	/* for one name at a time */
	struct list l = { .ptr = (uintptr_t)buf, .bytes = sizeof(buf) };
	struct list_n *ln = calloc(1, sizeof(*ln));
	unsigned got = 0;
	int ret;

	while ((ret = ctl(fd, LISTXATTR_HIDDEN, &l)) > 0) {
		for (int at = 0; at < ret; at += (int)strlen(buf + at) + 1, got++)
			CHECK(strncmp(buf + at, "scoutfs.", 8) == 0 && strstr(buf + at, "hide."),
			      "%s", buf + at);
	}
	CHECK(ret == 0 && got == nr, "%d %u", ret, got);
	ret = ctl(fd, LISTXATTR_HIDDEN_N, ln);
	CHECK(ret > 0 && (uint64_t)ret == ln->bytes);
	for (int at = 0; at < ret; at += (int)strlen(ln->names + at) + 1)
		got--;
	CHECK(got == 0, "%u", got);
	CHECK(ctl(fd, LISTXATTR_HIDDEN_N, ln) == 0);
	/* a buffer too small for one name gives none, and does not move on */
	l = (struct list){ .ptr = (uintptr_t)buf, .bytes = 5 };
	CHECK(ctl(fd, LISTXATTR_HIDDEN, &l) == 0 && l.id == 0 && l.hash == 0);
}

static void check_others(void)
{
	static const unsigned later[] = { 0x4018E803, 0x4020E804, 0x4028E806, 0x4030E807,
					  0x4038E809, 0x4030E80B, 0x4010E80C, 0x4030E80D,
					  0x4010E80E, 0x4028E80F, 0x4018E810, 0x4028E811,
					  0x4068E813, 0x8020E814, 0x4030E815, 0x4030E816,
					  0x8048E817, 0x4020E818, 0x4028E819 };
	static const unsigned never[] = { 0x4048E81A, 0x4048E802, 0x4028E801, 0xC048E801,
					  0x8038E806, 0x40487801, 0x5401 };
	uint8_t buf[256] = { 0 };
	int fd = open_in("plain", O_RDWR);

	for (unsigned i = 0; i < sizeof(later) / sizeof(later[0]); i++)
		CHECK(ctl(fd, later[i], buf) == -EOPNOTSUPP, "%x", later[i]);
	for (unsigned i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		CHECK(ctl(fd, never[i], buf) == -ENOTTY, "%x", never[i]);
	close(fd);
}

/* ioctl_pointers=off: what needs pointers is refused, the native forms work. */
static void check_pointers_off(void)
{
	struct entry e;
	struct walk w = walk_all(&e, 1, 0);
	struct walk_n *wn = calloc(1, sizeof(*wn));
	struct attr a = { .mask = 0x80 };
	struct stat_more sm;

	wn->last = w.last;
	CHECK(ctl(dfd, WALK_INODES, &w) == -EOPNOTSUPP && ctl(dfd, GET_ATTR_X, &a) == -EOPNOTSUPP);
	CHECK(ctl(dfd, WALK_INODES_N, wn) > 0 && ctl(dfd, GET_ATTR_X_N, &a) == 0 &&
	      ctl(dfd, STAT_MORE, &sm) == 0);
}

/* The process ends while many of its threads ask: nothing of the mount may be left waiting. */
static void *walk_for_ever(void *arg)
{
	struct walk w = walk_all(all, MANY, 0);

	(void)arg;
	for (;;)
		ctl(dfd, WALK_INODES, &w);
	return NULL;
}

static void check_killed(void)
{
	for (unsigned round = 0; round < 10; round++) {
		pid_t pid = fork();
		int st;

		CHECK(pid >= 0);
		if (pid == 0) {
			pthread_t t;
			struct walk w = walk_all(all, MANY, 0);

			for (unsigned i = 0; i < 8; i++)
				pthread_create(&t, NULL, walk_for_ever, NULL);
			for (unsigned i = 0; i < 5 + round; i++)
				ctl(dfd, WALK_INODES, &w);
			kill(getpid(), SIGKILL);
		}
		CHECK(waitpid(pid, &st, 0) == pid && WIFSIGNALED(st));
	}
	walk_thread(NULL);
}

/* Memory that nobody fills in: whoever touches it waits, until this process is killed. */
static void *stuck_thread(void *arg)
{
	struct walk w = walk_all(arg, 1, 0);

	for (;;)
		ctl(dfd, WALK_INODES, &w);
	return NULL;
}

static void check_stuck(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int ufd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = { .range = { (uintptr_t)map, 4096 },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffd_msg msg;
	pthread_t t;

	CHECK(map != MAP_FAILED);
	if (ufd < 0 || ioctl(ufd, UFFDIO_API, &api) < 0 || ioctl(ufd, UFFDIO_REGISTER, &reg) < 0) {
		fprintf(stderr, "no userfaultfd: %s\n", strerror(errno));
		exit(2);
	}
	for (unsigned i = 0; i < 3; i++)
		CHECK(pthread_create(&t, NULL, stuck_thread, map) == 0);
	/* somebody has touched it: the mount, for this process only waits */
	CHECK(read(ufd, &msg, sizeof(msg)) == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT);
	printf("waiting\n");
	fflush(stdout);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void);
	} checks[] = {
		{ "walk", check_walk },
		{ "memory", check_memory },
		{ "own-mapping", check_own_mapping },
		{ "threads", check_threads },
		{ "paths", check_paths },
		{ "paths-uncapable", check_paths_uncapable },
		{ "paths-nested", check_paths_nested },
		{ "nobody", check_nobody },
		{ "attrs", check_attrs },
		{ "others", check_others },
		{ "pointers-off", check_pointers_off },
		{ "killed", check_killed },
		{ "stuck", check_stuck },
	};

	if (argc < 3)
		return 2;
	dir = argv[2];
	dfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dfd < 0) {
		fprintf(stderr, "%s: %s\n", dir, strerror(errno));
		return 2;
	}
	if (strcmp(argv[1], "hidden") == 0 && argc == 5) {
		check_hidden(argv[3], (unsigned)atoi(argv[4]));
		return 0;
	}
	for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		if (strcmp(argv[1], checks[i].name) == 0) {
			checks[i].run();
			return 0;
		}
	}
	return 2;
}
