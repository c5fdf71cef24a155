/*
 * A real blockd process on real (sparse) files, for tests.
 *
 * The test program is blockd too: started with --blockd as its first argument it runs blockd_main().
 * Every blockd is started by the main thread, and dies with it (PR_SET_PDEATHSIG follows the thread).
 * Every wait has a deadline, and when the alarm comes the log of the last blockd is shown.
 */
#ifndef TEST_BLOCKD_RIG_H
#define TEST_BLOCKD_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkcli.h"
#include "clock.h"
#include "csum/csum.h"
#include "format/mkfs_layout.h"
#include "services/blockd/blockd.h"
#include "sockfd.h"

#define DEADLINE_S	60
#define ALARM_S		180
#define POOL_BYTES	(8u << 20)
#define REGION_BYTES	(4u << 20)
#define META_BLOCKS	2048ull
#define DATA_BLOCKS	16384ull
#define DATA_OFF	(DATA_FIRST_BLKNO << SMALL_SHIFT)
#define RID		0x0123456789abcdefull

struct fixture {
	char dir[64];
	char conf[128];
	char meta[128];
	char data[128];
	char run[128];
	char sock[160];
	char log[128];
	const char *no_uring;		/* "1": the thread engine */
	pid_t pid;
};

static struct fixture *current;

/* ---- fixture ---- */

static inline void show_log(void)
{
	char buf[4096];
	ssize_t n;
	int fd = current ? open(current->log, O_RDONLY | O_CLOEXEC) : -1;

	while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
		if (write(STDERR_FILENO, buf, (size_t)n) < 0)
			break;
	if (fd >= 0)
		close(fd);
}

static inline void on_alarm(int sig)
{
	static const char text[] = "test_blkcli: a call never came back; the log of blockd:\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) > 0)
		show_log();
	_exit(1);
}

static inline int layout_write(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf,
			       size_t len)
{
	const int *fds = arg;

	return pwrite(fds[dev == MKFS_DATA], buf, len, (off_t)offset) == (ssize_t)len ? 0 : -EIO;
}

static inline int layout_flush(void *arg, enum mkfs_device dev)
{
	(void)arg;
	(void)dev;
	return 0;
}

static inline void make_volume(const char *meta, const char *data, uint64_t fsid)
{
	struct mkfs_params p = { .fmt_vers = 2, .fsid = fsid, .now_sec = 1600000000,
				 .total_meta_blocks = META_BLOCKS, .total_data_blocks = DATA_BLOCKS };
	int fds[2] = { open(meta, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
		       open(data, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) };
	struct mkfs_ops ops = { .arg = fds, .write = layout_write, .flush = layout_flush };

	memcpy(p.uuid, &fsid, sizeof(fsid));
	p.slots[0] = (struct mkfs_slot){ .is_used = true, .port = 42000, .addr = 0x7f000001 };
	assert_true(fds[0] >= 0 && fds[1] >= 0);
	assert_int_equal(ftruncate(fds[0], META_BLOCKS << LARGE_SHIFT), 0);
	assert_int_equal(ftruncate(fds[1], DATA_BLOCKS << SMALL_SHIFT), 0);
	assert_int_equal(mkfs_layout(&p, &ops), 0);
	close(fds[0]);
	close(fds[1]);
}

static inline void write_conf(const struct fixture *fx)
{
	FILE *f = fopen(fx->conf, "we");

	assert_non_null(f);
	fprintf(f, "meta_device = %s\ndata_device = %s\nmountpoint = %s/mnt\nruntime_dir = %s\n"
		"state_dir = %s\npool_size = %u\n", fx->meta, fx->data, fx->dir, fx->run, fx->dir,
		POOL_BYTES);
	assert_int_equal(fclose(f), 0);
}

static inline int setup_engine(void **state, const char *no_uring)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->no_uring = no_uring;
	strcpy(fx->dir, "/tmp/test_blkcli.XXXXXX");
	assert_non_null(mkdtemp(fx->dir));
	snprintf(fx->conf, sizeof(fx->conf), "%s/vol.conf", fx->dir);
	snprintf(fx->meta, sizeof(fx->meta), "%s/meta", fx->dir);
	snprintf(fx->data, sizeof(fx->data), "%s/data", fx->dir);
	snprintf(fx->run, sizeof(fx->run), "%s/run", fx->dir);
	snprintf(fx->sock, sizeof(fx->sock), "%s/blockd.sock", fx->run);
	snprintf(fx->log, sizeof(fx->log), "%s/log", fx->dir);
	assert_int_equal(mkdir(fx->run, 0700), 0);
	make_volume(fx->meta, fx->data, 0x1122334455667788ull);
	write_conf(fx);
	current = fx;
	*state = fx;
	alarm(ALARM_S);
	return 0;
}

static inline int setup(void **state)
{
	return setup_engine(state, "0");
}

static inline int setup_threads(void **state)
{
	return setup_engine(state, "1");
}

/* Everything below name, and name itself. */
static inline void remove_tree_at(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *de;

	while (d && (de = readdir(d))) {
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (unlinkat(fd, de->d_name, 0) < 0 && errno == EISDIR)
			remove_tree_at(fd, de->d_name);
	}
	if (d)
		closedir(d);
	unlinkat(at, name, AT_REMOVEDIR);
}

static inline pid_t spawn_blockd(struct fixture *fx, const char *override)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(fx->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || fd < 0 ||
		    dup2(fd, STDERR_FILENO) < 0 || setenv("SCOUTFS_NO_URING", fx->no_uring, 1) < 0)
			_exit(99);
		execl("/proc/self/exe", "scoutfs-blockd", "--blockd", "-f", fx->conf,
		      override ? "-o" : NULL, override, NULL);
		_exit(98);
	}
	return pid;
}

static inline void start(struct fixture *fx)
{
	fx->pid = spawn_blockd(fx, NULL);
}

static inline int stop(struct fixture *fx, int sig)
{
	int status = -1;

	assert_int_equal(kill(fx->pid, sig), 0);
	assert_int_equal(waitpid(fx->pid, &status, 0), fx->pid);
	fx->pid = 0;
	return status;
}

static inline int teardown(void **state)
{
	struct fixture *fx = *state;

	if (fx->pid)
		stop(fx, SIGKILL);
	alarm(0);
	current = NULL;
	remove_tree_at(AT_FDCWD, fx->dir);
	free(fx);
	return 0;
}

#define LEASE_NS	(100 * NSEC_PER_SEC)	/* longer than any test takes */

static inline struct blkcli *client_without_lease(const struct fixture *fx, uint32_t kind, uint64_t rid,
						  uint64_t term)
{
	struct blkcli_conf conf = { .socket_path = fx->sock, .kind = kind, .rid = rid, .term = term,
				    .region_bytes = REGION_BYTES, .deadline_ms = DEADLINE_S * 1000 };
	struct blkcli *c = NULL;
	int ret = blkcli_open(&c, &conf);

	if (ret < 0) {
		show_log();
		fail_msg("no connection to blockd: %s", strerror(-ret));
	}
	return c;
}

/* As quorumd does: this host's serverd may write in that term. */
static inline void lease_server(const struct fixture *fx, uint64_t rid, uint64_t term)
{
	struct blkcli *q = client_without_lease(fx, BLK_KIND_QUORUMD, rid, 0);

	blkcli_lease(q, BLK_KIND_SERVERD, term, clock_boot_ns() + LEASE_NS);
	/* When a control is answered what was said before it is known. */
	assert_int_not_equal(blkcli_set_term(q, 0), -ETIMEDOUT);
	blkcli_close(q);
}

static inline struct blkcli *client_as(const struct fixture *fx, uint32_t kind, uint64_t rid,
				       uint64_t term)
{
	struct blkcli *c;

	if (kind == BLK_KIND_SERVERD)
		lease_server(fx, rid, term);
	c = client_without_lease(fx, kind, rid, term);
	if (kind == BLK_KIND_FSD)
		blkcli_lease(c, kind, 1, clock_boot_ns() + LEASE_NS);
	return c;
}

static inline struct blkcli *client(const struct fixture *fx)
{
	return client_as(fx, BLK_KIND_FSD, RID, 0);
}

static inline int run(struct blkcli *c, unsigned op, unsigned dev, uint64_t off, uint32_t len,
		      void *buf)
{
	struct blkcli_op o = { .op = (uint8_t)op, .dev = (uint8_t)dev, .dev_off = off, .len = len,
			       .buf = buf };

	return blkcli_run(c, &o, 1);
}

static inline void fill(void *buf, size_t len, uint64_t seed)
{
	uint8_t *p = buf;	/* at any address */

	for (size_t i = 0; i < len / sizeof(seed); i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		memcpy(p + i * sizeof(seed), &seed, sizeof(seed));
	}
}

static inline void device_read(const char *path, uint64_t off, void *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, len, (off_t)off), (ssize_t)len);
	close(fd);
}

/* The log has this text somewhere. */
static inline bool log_has(const struct fixture *fx, const char *text)
{
	static char buf[65536];
	int fd = open(fx->log, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	assert_true(n >= 0);
	buf[n] = 0;
	return strstr(buf, text) != NULL;
}

static inline void expect_log(const struct fixture *fx, const char *text)
{
	if (!log_has(fx, text)) {
		show_log();
		fail_msg("the log does not say '%s'", text);
	}
}

/* Start a blockd that must give up, and check that it says why. */
static inline void expect_refusal(struct fixture *fx, const char *override, const char *text)
{
	int status = 0;
	pid_t pid;

	unlink(fx->log);
	pid = spawn_blockd(fx, override);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) == 0 || WEXITSTATUS(status) >= 98) {
		show_log();
		fail_msg("status %x where a refusal was expected (%s)", status, text);
	}
	expect_log(fx, text);
}

static inline unsigned dir_entries(const char *path)
{
	unsigned nr = 0;
	DIR *d = opendir(path);

	assert_non_null(d);
	while (readdir(d))
		nr++;
	closedir(d);
	return nr - 2;
}

#define TEST(f)		{ #f, f, setup, teardown, NULL }
#define TEST_THREADS(f)	{ #f "/threads", f, setup_threads, teardown, NULL }

/* The test program's main(). */
#define BLOCKD_RIG_MAIN(tests)								\
	int main(int argc, char **argv)							\
	{										\
		if (argc > 1 && strcmp(argv[1], "--blockd") == 0) {			\
			argv[1] = argv[0];						\
			return blockd_main(argc - 1, argv + 1);				\
		}									\
		signal(SIGALRM, on_alarm);						\
		signal(SIGPIPE, SIG_IGN);						\
		return cmocka_run_group_tests(tests, NULL, NULL);			\
	}

#endif
