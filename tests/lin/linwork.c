/*
 * The workload whose history lincheck judges: processes that do random operations on a few files
 * and names that other nodes use as well, and record each call and its answer.
 *
 *   linwork setup DIR NODE NODES                 make this node's share of the objects
 *   linwork run DIR LOGS NODE INC PROCS SEED     work until LOGS/stop exists; status 3: the mount only gives errors
 *   linwork look DIR LOGS NODE INC               look at every object once
 *   linwork sync DIR LOGS NODE INC               one fsync
 *   linwork now                                  the clock of the records
 *
 * LIN_PARTS="arena cell share map attr log sync" in the environment: not all of it, to find out what goes
 * wrong.  "map": mappings are also read; "share": stores through them are also made to a page of which
 * other nodes, and this one, write(2) other bytes.
 *
 * While LOGS/failing.NODE exists the devices of that node fail, and EIO does not mean that its mount is lost.
 *
 * NODE and INC (how often that node has been mounted) name the logs LOGS/lin.NODE.INC.PROC, which
 * have to outlive the node.  The objects are described in lin.h; all of them are empty, or zero,
 * after setup.
 */
#include "lin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define ARENAS		3
#define FILES		3		/* with cells */
#define CELLS		6
#define FILE_BYTES	12288
#define ATTRS		3		/* files whose size, mode and xattr change */
#define SERIES		2		/* of logs: the next one when one is full */
#define LOGS		20
#define LOG_FULL	200
#define XATTR		"user.lin"
#define PROC_LOOK	90
#define PROC_SYNC	91
#define ERRORS_MAX	25		/* in a row: the mount is lost */

/* Where each cell is: most of them on one page; the first two are stored to through a mapping, too, one on a page of its own. */
static const struct { off_t at; size_t len; } cells[CELLS] = {
	{ 8192, 8 }, { 512, 8 }, { 1024, 64 }, { 2048, 512 }, { 3072, 1024 }, { 4096, 4096 },
};

static atomic_int *stop;
static bool shares_page, reads_map;

struct worker {
	FILE *log;
	char failing[4096];		/* the file that says so */
	int node, inc, proc;
	uint64_t rng, counter;
	unsigned errors;		/* in a row */
	int file_fd[FILES];
	uint64_t *map[FILES];
	int series_at[SERIES];
	struct lin_op op;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void die_with(int status, const char *what)
{
	fprintf(stderr, "linwork: %s: %s\n", what, strerror(errno));
	exit(status);
}

static void die(const char *what)
{
	die_with(2, what);
}

static unsigned pick(struct worker *w, unsigned nr)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return (unsigned)((w->rng >> 11) % nr);
}

/*
 * --- paths, from the working directory, which is DIR: when its mount is lost they lead nowhere,
 * and not to whatever is at the mount point then
 */
static char *path_of(char *buf, const char *fmt, int a, int b)
{
	sprintf(buf, fmt, a, b);
	return buf;
}

static char *name_path(char *buf, int arena, int name)
{
	char dir[64];

	sprintf(buf, "%s/n%d", path_of(dir, "a%d-%d", arena, name / (LIN_NAMES / 2)), name % (LIN_NAMES / 2));
	return buf;
}

/* --- recording */
static void begin(struct worker *w, enum lin_kind kind, int obj, int a, int b, uint64_t v)
{
	w->op = (struct lin_op){ .kind = kind, .obj = obj, .a = a, .b = b, .v = v };
	fprintf(w->log, "I %" PRIu64 " %s %d %d %d %" PRIu64 "\n", now_ns(), lin_kind_names[kind], obj, a, b, v);
	fflush(w->log);
}

static void count_error(struct worker *w, int err)
{
	if (err == 0 || err == ENOENT || err == EEXIST || err == EISDIR || err == ENOTDIR) {
		w->errors = 0;
		return;
	}
	usleep(20000);
	if (err == EIO && access(w->failing, F_OK) == 0)
		w->errors = 0;
	else
		w->errors++;
}

/* The answer; ret < 0: errno says what. */
static void end(struct worker *w, long ret, uint64_t r0, uint64_t r1, uint64_t r2)
{
	int err = ret < 0 ? errno : 0;

	fprintf(w->log, "R %" PRIu64 " %d %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", now_ns(), err, err ? 0 : r0,
		err ? 0 : r1, err ? 0 : r2);
	fflush(w->log);
	count_error(w, err);
}

static uint64_t unique(struct worker *w)
{
	return (uint64_t)w->node << 56 | (uint64_t)w->inc << 48 | (uint64_t)w->proc << 40 | ++w->counter;
}

/* --- arenas */
static void do_create(struct worker *w, int arena, int name)
{
	char path[4096];
	struct stat st;
	uint64_t t;
	int fd, err;

	begin(w, LIN_CREATE, arena, name, 0, 0);
	fd = open(name_path(path, arena, name), O_CREAT | O_EXCL | O_RDWR, 0600);
	if (fd < 0) {
		end(w, -1, 0, 0, 0);
		return;
	}
	/* the inode number belongs to what was opened, whenever it is asked for; only the time must be early */
	t = now_ns();
	err = fstat(fd, &st) < 0 ? errno : 0;
	fprintf(w->log, "R %" PRIu64 " %d %" PRIu64 " 0 0\n", t, err, err ? 0 : (uint64_t)st.st_ino);
	fflush(w->log);
	count_error(w, err);
	close(fd);
}

static void do_stat(struct worker *w, int arena, int name)
{
	char path[4096];
	struct stat st;
	int ret;

	begin(w, LIN_STAT, arena, name, 0, 0);
	ret = stat(name_path(path, arena, name), &st);
	end(w, ret, st.st_ino, st.st_nlink, S_ISDIR(st.st_mode));
}

static void do_link(struct worker *w, int arena, int from, int to)
{
	char path[4096], proc[64];
	struct stat st;
	int fd;

	/* what is linked is an open file: its inode number is certain */
	begin(w, LIN_STAT, arena, from, 0, 0);
	fd = open(name_path(path, arena, from), O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		end(w, -1, 0, 0, 0);
		if (fd >= 0)
			close(fd);
		return;
	}
	end(w, 0, st.st_ino, 0, S_ISDIR(st.st_mode));
	if (!S_ISDIR(st.st_mode)) {
		sprintf(proc, "/proc/self/fd/%d", fd);
		begin(w, LIN_LINK, arena, 0, to, st.st_ino);
		end(w, linkat(AT_FDCWD, proc, AT_FDCWD, name_path(path, arena, to), AT_SYMLINK_FOLLOW), 0, 0, 0);
	}
	close(fd);
}

static void do_list(struct worker *w, int arena, int dir)
{
	char path[4096];
	uint64_t seen = 0;
	struct dirent *de;
	int name = dir * (LIN_NAMES / 2);
	DIR *d;

	begin(w, LIN_LIST, arena, name, 0, 0);
	d = opendir(path_of(path, "a%d-%d", arena, dir));
	if (!d) {
		end(w, -1, 0, 0, 0);
		return;
	}
	while (errno = 0, (de = readdir(d))) {
		if (de->d_name[0] == 'n')
			seen |= 1u << (name + atoi(de->d_name + 1));
	}
	end(w, errno ? -1 : 0, seen, 0, 0);
	closedir(d);
}

static void work_arena(struct worker *w)
{
	int arena = (int)pick(w, ARENAS), a = (int)pick(w, LIN_NAMES), b = (int)pick(w, LIN_NAMES - 1);
	char pa[4096], pb[4096];

	b += b >= a;
	name_path(pa, arena, a);
	name_path(pb, arena, b);
	switch (pick(w, 16)) {
	case 0:
	case 1:
	case 2:
		do_create(w, arena, a);
		break;
	case 3:
	case 4:
		begin(w, LIN_UNLINK, arena, a, 0, 0);
		end(w, unlink(pa), 0, 0, 0);
		break;
	case 5:
		begin(w, LIN_MKDIR, arena, a, 0, 0);
		end(w, mkdir(pa, 0700), 0, 0, 0);
		break;
	case 6:
		begin(w, LIN_RMDIR, arena, a, 0, 0);
		end(w, rmdir(pa), 0, 0, 0);
		break;
	case 7:
	case 8:
		begin(w, LIN_RENAME, arena, a, b, 0);
		end(w, rename(pa, pb), 0, 0, 0);
		break;
	case 9:
	case 10:
		do_link(w, arena, a, b);
		break;
	case 11:
	case 12:
		do_list(w, arena, a / (LIN_NAMES / 2));
		break;
	default:
		do_stat(w, arena, a);
	}
}

/* --- cells: every word of a cell is the same */
static bool is_whole(const uint64_t *word, size_t len)
{
	for (size_t i = 1; i < len / 8; i++) {
		if (word[i] != word[0])
			return false;
	}
	return true;
}

/* The file, opened anew now and then. */
static int file_get(struct worker *w, int file)
{
	char path[4096];

	return pick(w, 4) ? w->file_fd[file] : open(path_of(path, "f%d", file, 0), O_RDWR);
}

static void file_put(struct worker *w, int file, int fd)
{
	int err = errno;

	if (fd >= 0 && fd != w->file_fd[file])
		close(fd);
	errno = err;
}

static void cell_read(struct worker *w, int file, int cell)
{
	uint64_t buf[4096 / 8];
	ssize_t n;
	int fd;

	begin(w, LIN_READ, LIN_OBJ_CELL + file * 16 + cell, 0, 0, 0);
	fd = file_get(w, file);
	n = fd < 0 ? -1 : pread(fd, buf, cells[cell].len, cells[cell].at);
	file_put(w, file, fd);
	end(w, n, n == (ssize_t)cells[cell].len && is_whole(buf, cells[cell].len) ? buf[0] : LIN_TORN, 0, 0);
}

static void cell_write(struct worker *w, int file, int cell)
{
	uint64_t buf[4096 / 8], v = unique(w);
	ssize_t n;
	int fd;

	for (size_t i = 0; i < cells[cell].len / 8; i++)
		buf[i] = v;
	begin(w, LIN_WRITE, LIN_OBJ_CELL + file * 16 + cell, 0, 0, v);
	fd = file_get(w, file);
	n = fd < 0 ? -1 : pwrite(fd, buf, cells[cell].len, cells[cell].at);
	file_put(w, file, fd);
	end(w, n, 0, 0, 0);
}

/* A page that cannot be read: SIGBUS, which is an error like others here. */
static sigjmp_buf no_page;
static volatile sig_atomic_t in_page;

static void on_sigbus(int sig)
{
	if (in_page)
		siglongjmp(no_page, 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

static int word_load(_Atomic uint64_t *word, uint64_t *v)
{
	if (sigsetjmp(no_page, 1)) {
		in_page = 0;
		errno = EIO;
		return -1;
	}
	in_page = 1;
	*v = atomic_load(word);
	in_page = 0;
	return 0;
}

static int word_store(_Atomic uint64_t *word, uint64_t v)
{
	if (sigsetjmp(no_page, 1)) {
		in_page = 0;
		errno = EIO;
		return -1;
	}
	in_page = 1;
	atomic_store(word, v);
	in_page = 0;
	return 0;
}

/* Only cells of eight bytes: those a processor reads and writes at once. */
static void map_work(struct worker *w, int file, int cell)
{
	_Atomic uint64_t *word = (_Atomic uint64_t *)&w->map[file][cells[cell].at / 8];
	uint64_t v = 0;
	int ret;

	if (reads_map && pick(w, 3)) {
		begin(w, LIN_READ, LIN_OBJ_CELL + file * 16 + cell, 0, 0, 0);
		ret = word_load(word, &v);
		end(w, ret, v, 0, 0);
		return;
	}
	v = unique(w);
	begin(w, LIN_STORE, LIN_OBJ_CELL + file * 16 + cell, 0, 0, v);
	ret = word_store(word, v);
	end(w, ret < 0 ? ret : msync(w->map[file], FILE_BYTES, MS_SYNC), 0, 0, 0);
}

static void work_cell(struct worker *w)
{
	int file = (int)pick(w, FILES), cell = (int)pick(w, CELLS);

	if ((cell == 0 || (cell == 1 && shares_page)) && pick(w, reads_map ? 3 : 9) == 0)
		map_work(w, file, cell);
	else if (pick(w, 2))
		cell_write(w, file, cell);
	else
		cell_read(w, file, cell);
}

/* --- sizes, modes and xattrs of one file */
static void attr_read(struct worker *w, int file, int which)
{
	char path[4096];
	uint64_t v = 0;
	struct stat st;
	long ret;

	path_of(path, "s%d", file, 0);
	begin(w, LIN_READ, (which == 0 ? LIN_OBJ_SIZE : which == 1 ? LIN_OBJ_MODE : LIN_OBJ_XATTR) + file, 0, 0, 0);
	if (which == 2) {
		ret = getxattr(path, XATTR, &v, sizeof(v));
		if (ret >= 0 && ret != sizeof(v))
			v = LIN_TORN;
	} else {
		ret = stat(path, &st);
		v = which == 0 ? (uint64_t)st.st_size : st.st_mode & 0777;
	}
	end(w, ret, v, 0, 0);
}

static void work_attr(struct worker *w)
{
	int file = (int)pick(w, ATTRS), which = (int)pick(w, 3);
	char path[4096];
	uint64_t v;

	if (pick(w, 2)) {
		attr_read(w, file, which);
		return;
	}
	path_of(path, "s%d", file, 0);
	switch (which) {
	case 0:
		v = (uint64_t)((w->node * 32 + w->inc) * 32 + w->proc) << 16 | (++w->counter & 0xffff);
		begin(w, LIN_WRITE, LIN_OBJ_SIZE + file, 0, 0, v);
		end(w, truncate(path, (off_t)v), 0, 0, 0);
		break;
	case 1:
		v = pick(w, 01000);
		begin(w, LIN_WRITE, LIN_OBJ_MODE + file, 0, 0, v);
		end(w, chmod(path, (mode_t)v), 0, 0, 0);
		break;
	default:
		v = unique(w);
		begin(w, LIN_WRITE, LIN_OBJ_XATTR + file, 0, 0, v);
		end(w, setxattr(path, XATTR, &v, sizeof(v), 0), 0, 0, 0);
	}
}

/* --- logs */
static uint64_t log_read(struct worker *w, int series, int k)
{
	uint64_t buf[LIN_LOG_MAX * LIN_RECORD / 8], hash = 0, nr = 0;
	char path[4096];
	ssize_t n = -1;
	int fd, err;

	begin(w, LIN_READLOG, LIN_OBJ_LOG + series * 100 + k, 0, 0, 0);
	fd = open(path_of(path, "l%d-%d", series, k), O_RDONLY);
	if (fd >= 0) {
		n = pread(fd, buf, sizeof(buf), 0);
		err = errno;
		close(fd);
		errno = err;
	}
	for (ssize_t i = 0; i < n && nr != LIN_TORN; i += LIN_RECORD) {
		const uint64_t *rec = &buf[i / 8];

		if (n - i < LIN_RECORD || rec[1] != ~rec[0]) {
			nr = LIN_TORN;
		} else {
			hash = lin_hash(hash, rec[0]);
			nr++;
		}
	}
	end(w, n, nr, hash, 0);
	return n < 0 ? 0 : nr;
}

static void work_log(struct worker *w)
{
	int series = (int)pick(w, SERIES), k = w->series_at[series], fd;
	char path[4096];
	uint64_t rec[2];
	ssize_t n;

	if (pick(w, 2)) {
		if (log_read(w, series, k) > LOG_FULL && k < LOGS - 1)
			w->series_at[series]++;
		return;
	}
	rec[0] = unique(w);
	rec[1] = ~rec[0];
	begin(w, LIN_APPEND, LIN_OBJ_LOG + series * 100 + k, 0, 0, rec[0]);
	fd = open(path_of(path, "l%d-%d", series, k), O_WRONLY | O_APPEND);
	n = fd < 0 ? -1 : write(fd, rec, sizeof(rec));
	end(w, n, 0, 0, 0);
	if (fd >= 0)
		close(fd);
}

static void do_sync(struct worker *w)
{
	int fd;

	begin(w, LIN_SYNC, LIN_OBJ_SYNC, 0, 0, 0);
	fd = open(".", O_RDONLY);
	end(w, fd < 0 ? -1 : fsync(fd), 0, 0, 0);
	if (fd >= 0)
		close(fd);
}

/* --- processes */
static struct worker worker_open(const char *logs, int node, int inc, int proc)
{
	struct worker w = { .node = node, .inc = inc, .proc = proc };
	char path[4096];

	snprintf(path, sizeof(path), "%s/lin.%d.%d.%d", logs, node, inc, proc);
	snprintf(w.failing, sizeof(w.failing), "%s/failing.%d", logs, node);
	w.log = fopen(path, "a");
	if (!w.log)
		die(path);
	for (int i = 0; i < FILES; i++) {
		w.file_fd[i] = open(path_of(path, "f%d", i, 0), O_RDWR);
		if (w.file_fd[i] < 0)
			die_with(3, path);
		w.map[i] = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, w.file_fd[i], 0);
		if (w.map[i] == MAP_FAILED)
			die_with(3, "mmap");
	}
	return w;
}

static int work(struct worker *w)
{
	static const struct { const char *name; unsigned share; void (*work)(struct worker *w); } parts[] = {
		{ "arena", 45, work_arena }, { "cell", 27, work_cell }, { "attr", 14, work_attr },
		{ "log", 12, work_log }, { "sync", 2, do_sync },
	};
	const char *only = getenv("LIN_PARTS");

	shares_page = !only || strstr(only, "share");
	reads_map = !only || strstr(only, "map");
	while (!atomic_load(stop)) {
		unsigned i = 0, r = pick(w, 100);

		while (r >= parts[i].share)
			r -= parts[i++].share;
		if (only && !strstr(only, parts[i].name))
			continue;
		parts[i].work(w);
		if (w->errors > ERRORS_MAX)
			return 3;
		usleep(pick(w, 1000));
	}
	return 0;
}

static int run(const char *logs, int node, int inc, int procs, uint64_t seed)
{
	char path[4096];
	int status, ret = 0, left = procs;
	pid_t pid;

	sigaction(SIGBUS, &(struct sigaction){ .sa_handler = on_sigbus }, NULL);
	stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (stop == MAP_FAILED)
		die("mmap");
	for (int i = 0; i < procs; i++) {
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			struct worker w = worker_open(logs, node, inc, i);

			w.rng = (seed + (uint64_t)(node * 64 + inc * 8 + i + 1)) * 0x9e3779b97f4a7c15ull | 1;
			exit(work(&w));
		}
	}
	snprintf(path, sizeof(path), "%s/stop", logs);
	while (left) {
		if (access(path, F_OK) == 0)
			atomic_store(stop, 1);
		pid = waitpid(-1, &status, WNOHANG);
		if (pid <= 0) {
			usleep(20000);
			continue;
		}
		left--;
		/* blockd kills who has a mapping of a lost mount that nothing else makes void */
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			ret = ret ? ret : 3;
		else if (!WIFEXITED(status) || (WEXITSTATUS(status) && WEXITSTATUS(status) != 3))
			ret = 1;
		else if (WEXITSTATUS(status))
			ret = ret ? ret : 3;
	}
	return ret;
}

static int look(struct worker *w)
{
	for (int a = 0; a < ARENAS; a++) {
		for (int n = 0; n < LIN_NAMES; n++)
			do_stat(w, a, n);
		do_list(w, a, 0);
		do_list(w, a, 1);
	}
	for (int f = 0; f < FILES; f++) {
		for (int c = 0; c < CELLS; c++)
			cell_read(w, f, c);
	}
	for (int s = 0; s < ATTRS * 3; s++)
		attr_read(w, s / 3, s % 3);
	for (int s = 0; s < SERIES * LOGS; s++)
		log_read(w, s / LOGS, s % LOGS);
	return w->errors ? 3 : 0;
}

/* Make a file of so many zeros.  Objects of one node share its cluster lock, so every node makes a part. */
static void make_file(const char *path, size_t len)
{
	static const char zeros[FILE_BYTES];
	uint64_t v = 0;
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);

	if (fd < 0 || write(fd, zeros, len) != (ssize_t)len || fsetxattr(fd, XATTR, &v, sizeof(v), 0) < 0)
		die(path);
	close(fd);
}

static void setup(int node, int nodes)
{
	int i = 0, fd;
	char path[4096];

	for (int a = 0; a < ARENAS * 2; a++) {
		if (i++ % nodes == node - 1 && mkdir(path_of(path, "a%d-%d", a / 2, a % 2), 0700) < 0)
			die(path);
	}
	for (int f = 0; f < FILES; f++) {
		if (i++ % nodes == node - 1)
			make_file(path_of(path, "f%d", f, 0), FILE_BYTES);
	}
	for (int s = 0; s < ATTRS; s++) {
		if (i++ % nodes != node - 1)
			continue;
		make_file(path_of(path, "s%d", s, 0), 0);
		if (chmod(path, 0) < 0)
			die(path);
	}
	for (int s = 0; s < SERIES * LOGS; s++) {
		if (i++ % nodes == node - 1)
			make_file(path_of(path, "l%d-%d", s / LOGS, s % LOGS), 0);
	}
	fd = open(".", O_RDONLY);
	if (fd < 0 || fsync(fd) < 0)
		die("fsync");
	close(fd);
}

int main(int argc, char **argv)
{
	struct worker w;

	if (argc == 2 && !strcmp(argv[1], "now")) {
		printf("%" PRIu64 "\n", now_ns());
		return 0;
	}
	if (argc < 5) {
		fprintf(stderr, "usage: linwork setup DIR NODE NODES | run DIR LOGS NODE INC PROCS SEED | "
			"look DIR LOGS NODE INC | sync DIR LOGS NODE INC | now\n");
		return 2;
	}
	if (!strcmp(argv[1], "setup") && mkdir(argv[2], 0700) < 0 && errno != EEXIST)
		die(argv[2]);
	if (chdir(argv[2]) < 0)
		die(argv[2]);
	if (!strcmp(argv[1], "setup")) {
		setup(atoi(argv[3]), atoi(argv[4]));
		return 0;
	}
	if (!strcmp(argv[1], "run") && argc == 8)
		return run(argv[3], atoi(argv[4]), atoi(argv[5]), atoi(argv[6]), strtoull(argv[7], NULL, 0));
	if (argc != 6 || (strcmp(argv[1], "look") && strcmp(argv[1], "sync")))
		return 2;
	w = worker_open(argv[3], atoi(argv[4]), atoi(argv[5]), argv[1][0] == 'l' ? PROC_LOOK : PROC_SYNC);
	w.rng = 1;
	if (argv[1][0] == 'l')
		return look(&w);
	do_sync(&w);
	return w.errors ? 3 : 0;
}
