/*
 * Promises of blockd and its client, with a real blockd process on real (sparse) files.
 *
 * This program is blockd too: started with --blockd as its first argument it runs blockd_main().  Every
 * blockd is started by the main thread, and dies with it (PR_SET_PDEATHSIG follows the thread).  Every
 * wait has a deadline, and when the alarm comes the log of the last blockd is shown.
 */
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

static void show_log(void)
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

static void on_alarm(int sig)
{
	static const char text[] = "test_blkcli: a call never came back; the log of blockd:\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) > 0)
		show_log();
	_exit(1);
}

static int layout_write(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf, size_t len)
{
	const int *fds = arg;

	return pwrite(fds[dev == MKFS_DATA], buf, len, (off_t)offset) == (ssize_t)len ? 0 : -EIO;
}

static int layout_flush(void *arg, enum mkfs_device dev)
{
	(void)arg;
	(void)dev;
	return 0;
}

static void make_volume(const char *meta, const char *data, uint64_t fsid)
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

static void write_conf(const struct fixture *fx)
{
	FILE *f = fopen(fx->conf, "we");

	assert_non_null(f);
	fprintf(f, "meta_device = %s\ndata_device = %s\nmountpoint = %s/mnt\nruntime_dir = %s\n"
		"state_dir = %s\npool_size = %u\n", fx->meta, fx->data, fx->dir, fx->run, fx->dir,
		POOL_BYTES);
	assert_int_equal(fclose(f), 0);
}

static int setup_engine(void **state, const char *no_uring)
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

static int setup(void **state)
{
	return setup_engine(state, "0");
}

static int setup_threads(void **state)
{
	return setup_engine(state, "1");
}

static void remove_tree(const char *dir)
{
	struct dirent *de;
	DIR *d = opendir(dir);

	while (d && (de = readdir(d))) {
		char path[512];

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		if (unlink(path) < 0 && errno == EISDIR)
			remove_tree(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
}

static pid_t spawn_blockd(struct fixture *fx, const char *override)
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

static void start(struct fixture *fx)
{
	fx->pid = spawn_blockd(fx, NULL);
}

static int stop(struct fixture *fx, int sig)
{
	int status = -1;

	assert_int_equal(kill(fx->pid, sig), 0);
	assert_int_equal(waitpid(fx->pid, &status, 0), fx->pid);
	fx->pid = 0;
	return status;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	if (fx->pid)
		stop(fx, SIGKILL);
	alarm(0);
	current = NULL;
	remove_tree(fx->dir);
	free(fx);
	return 0;
}

static struct blkcli *client_as(const struct fixture *fx, uint32_t kind, uint64_t rid, uint64_t term)
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

static struct blkcli *client(const struct fixture *fx)
{
	return client_as(fx, BLK_KIND_FSD, RID, 0);
}

static int run(struct blkcli *c, unsigned op, unsigned dev, uint64_t off, uint32_t len, void *buf)
{
	struct blkcli_op o = { .op = (uint8_t)op, .dev = (uint8_t)dev, .dev_off = off, .len = len,
			       .buf = buf };

	return blkcli_run(c, &o, 1);
}

static void fill(void *buf, size_t len, uint64_t seed)
{
	uint64_t *p = buf;

	for (size_t i = 0; i < len / 8; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		p[i] = seed;
	}
}

static void device_read(const char *path, uint64_t off, void *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, len, (off_t)off), (ssize_t)len);
	close(fd);
}

/* The log has this text somewhere. */
static bool log_has(const struct fixture *fx, const char *text)
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

static void expect_log(const struct fixture *fx, const char *text)
{
	if (!log_has(fx, text)) {
		show_log();
		fail_msg("the log does not say '%s'", text);
	}
}

/* Start a blockd that must give up, and check that it says why. */
static void expect_refusal(struct fixture *fx, const char *override, const char *text)
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

static unsigned dir_entries(const char *path)
{
	unsigned nr = 0;
	DIR *d = opendir(path);

	assert_non_null(d);
	while (readdir(d))
		nr++;
	closedir(d);
	return nr - 2;
}

/* ---- I/O ---- */

static void what_is_written_is_read_again(void **state)
{
	struct fixture *fx = *state;
	size_t big = (3u << 20) + 4096;
	char *in = malloc(big + 1), *out = malloc(big + 1);
	struct blkcli *c;
	size_t len;
	char *buf, *pool;

	start(fx);
	c = client(fx);
	assert_int_equal(blkcli_meta_blocks(c), META_BLOCKS);
	assert_int_equal(blkcli_data_blocks(c), DATA_BLOCKS);
	assert_int_equal(blkcli_fsid(c), 0x1122334455667788ull);

	/* Copied, unaligned in memory, longer than one piece. */
	fill(in + 1, big - 1, 1);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, (uint32_t)big, in + 1), 0);
	assert_int_equal(run(c, BLK_OP_FLUSH, BLK_DEV_DATA, 0, 0, NULL), 0);
	memset(out, 0, big + 1);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, (uint32_t)big, out + 1), 0);
	assert_memory_equal(in + 1, out + 1, big);
	device_read(fx->data, DATA_OFF, out, big);
	assert_memory_equal(in + 1, out, big);

	/* From the region and from the pool, as they are. */
	buf = blkcli_buf_alloc(c, 2u << 20);
	assert_non_null(buf);
	fill(buf, 2u << 20, 2);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, 32u << 20, 2u << 20, buf), 0);
	pool = blkcli_pool(c, &len);
	assert_non_null(pool);
	assert_int_equal(len, POOL_BYTES);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, 32u << 20, 2u << 20, pool + 4096), 0);
	assert_memory_equal(pool + 4096, buf, 2u << 20);
	blkcli_buf_free(c, buf);

	/* Both devices, as lib/core sees them. */
	{
		struct block_dev dev = blkcli_block_dev(c);
		struct block_write w[3];

		for (unsigned i = 0; i < 3; i++)
			w[i] = (struct block_write){ .blkno = 100 + 7 * i, .data = in + LARGE_SIZE * i };
		assert_int_equal(dev.write(dev.arg, w, 3), 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(dev.read(dev.arg, w[i].blkno, out), 0);
			assert_memory_equal(out, w[i].data, LARGE_SIZE);
		}
		assert_int_not_equal(dev.random(dev.arg), dev.random(dev.arg));
	}
	assert_int_equal(blkcli_flush(c, BLK_DEV_META), 0);
	assert_int_equal(blkcli_read_small(c, BLK_DEV_META, SUPER_BLKNO, out), 0);
	assert_int_equal(block_crc(out, SMALL_SIZE), le32_get(((struct disk_header *)out)->crc));

	/* Discarded blocks of a file read as zero. */
	assert_int_equal(run(c, BLK_OP_DISCARD, BLK_DEV_DATA, DATA_OFF, 1u << 20, NULL), 0);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, out), 0);
	memset(in, 0, 4096);
	assert_memory_equal(in, out, 4096);

	blkcli_close(c);
	assert_int_equal(stop(fx, SIGTERM), 0);
	expect_log(fx, fx->no_uring[0] == '1' ? "through threads" : "through io_uring");
	assert_int_equal(access(fx->sock, F_OK), -1);
	free(in);
	free(out);
}

static void many_operations_run_in_one_call(void **state)
{
	enum { NR = 1000 };
	struct fixture *fx = *state;
	struct blkcli_op *ops = calloc(NR, sizeof(*ops));
	char *in = malloc(NR * 4096), *out = malloc(NR * 4096);
	struct blkcli *c;

	start(fx);
	c = client(fx);
	fill(in, NR * 4096, 3);
	for (unsigned i = 0; i < NR; i++)
		ops[i] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_DATA,
					     .dev_off = DATA_OFF + (i * 7919u % NR) * 4096,
					     .len = 4096, .buf = in + i * 4096 };
	assert_int_equal(blkcli_run(c, ops, NR), 0);
	for (unsigned i = 0; i < NR; i++) {
		ops[i].op = BLK_OP_READ;
		ops[i].buf = out + i * 4096;
	}
	assert_int_equal(blkcli_run(c, ops, NR), 0);
	assert_memory_equal(in, out, NR * 4096);
	assert_int_equal(blkcli_run(c, NULL, 0), 0);
	blkcli_close(c);
	free(ops);
	free(in);
	free(out);
}

static void bad_operations_are_refused_one_by_one(void **state)
{
	struct fixture *fx = *state;
	struct blkcli_op ops[3];
	struct blkcli *c;
	char *buf = aligned_alloc(4096, 8192);

	start(fx);
	c = client(fx);
	memset(buf, 1, 8192);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF + 512, 4096, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 512, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 0, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, NULL), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEVS_NR, DATA_OFF, 4096, buf), -EINVAL);
	assert_int_equal(run(c, 77, BLK_DEV_DATA, DATA_OFF, 4096, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_BLOCKS << SMALL_SHIFT, 4096, buf),
			 -EINVAL);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, UINT64_MAX - 4095, 4096, buf), -EINVAL);
	assert_int_equal(blkcli_write_small(c, BLK_DEV_META, SUPER_BLKNO, buf), -EPERM);
	assert_int_equal(blkcli_write_small(c, BLK_DEV_DATA, SUPER_BLKNO, buf), -EPERM);
	assert_int_equal(blkcli_read_small(c, BLK_DEV_DATA, UINT64_MAX, buf), -EINVAL);
	assert_null(blkcli_buf_alloc(c, REGION_BYTES + 1));

	/* A bad one among good ones. */
	for (unsigned i = 0; i < 3; i++)
		ops[i] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_DATA, .len = 4096,
					     .dev_off = DATA_OFF + i * 4096, .buf = buf };
	ops[1].dev_off = DATA_BLOCKS << SMALL_SHIFT;
	assert_int_equal(blkcli_run(c, ops, 3), -EINVAL);
	assert_int_equal(ops[0].result, 0);
	assert_int_equal(ops[1].result, -EINVAL);
	assert_int_equal(ops[2].result, 0);
	blkcli_close(c);
	free(buf);
}

static void an_error_of_the_device_is_answered(void **state)
{
	struct fixture *fx = *state;
	struct blkcli *c;
	char *buf = aligned_alloc(4096, 4096);
	int fd;

	start(fx);
	c = client(fx);
	/* The device loses its second half under our feet. */
	fd = open(fx->data, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DATA_BLOCKS << SMALL_SHIFT >> 1), 0);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, (DATA_BLOCKS - 1) << SMALL_SHIFT, 4096, buf),
			 -EIO);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	close(fd);
	blkcli_close(c);
	stop(fx, SIGTERM);
	expect_log(fx, "read of 4096 bytes");
	free(buf);
}

struct buf_thread {
	struct blkcli *c;
	pthread_t thread;
	atomic_bool got;
};

static void *buf_taker(void *arg)
{
	struct buf_thread *t = arg;
	void *buf = blkcli_buf_alloc(t->c, REGION_BYTES / 2);

	atomic_store(&t->got, true);
	blkcli_buf_free(t->c, buf);
	return NULL;
}

static void buffers_wait_for_their_turn(void **state)
{
	struct fixture *fx = *state;
	struct buf_thread t = { 0 };
	char *a, *b, *region;
	size_t len;

	start(fx);
	t.c = client(fx);
	region = blkcli_region(t.c, &len);
	assert_int_equal(len, REGION_BYTES);
	a = blkcli_buf_alloc(t.c, REGION_BYTES / 2);
	b = blkcli_buf_alloc(t.c, REGION_BYTES / 2);
	assert_true(a != b && a >= region && b >= region);
	assert_true((a < b ? b : a) + REGION_BYTES / 2 <= region + len);
	assert_int_equal(pthread_create(&t.thread, NULL, buf_taker, &t), 0);
	assert_false(atomic_load(&t.got));
	blkcli_buf_free(t.c, a);
	pthread_join(t.thread, NULL);
	assert_true(atomic_load(&t.got));
	blkcli_buf_free(t.c, b);
	blkcli_close(t.c);
}

/* ---- death ---- */

#define WRITERS		4
#define WRITER_BLOCKS	64

struct writer {
	struct blkcli *c;
	unsigned nr;
	pthread_t thread;
	atomic_bool *stop;
	atomic_ulong rounds;
	int err;
	const char *what;
	uint64_t seeds[WRITER_BLOCKS];
};

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t first = DATA_OFF + (uint64_t)w->nr * WRITER_BLOCKS * 4096;
	uint64_t x = w->nr + 1;
	char *mine = aligned_alloc(4096, 4096);
	char *shared = blkcli_buf_alloc(w->c, 4096);
	size_t len;
	char *pool = (char *)blkcli_pool(w->c, &len) + w->nr * 4096;

	while (!atomic_load(w->stop) && !w->err) {
		char *bufs[3] = { mine, shared, pool };
		char want[4096];
		unsigned block, old;
		char *buf;

		x = x * 6364136223846793005u + 1442695040888963407u;
		block = (unsigned)(x >> 33) % WRITER_BLOCKS;
		old = (unsigned)(x >> 43) % WRITER_BLOCKS;
		buf = bufs[(x >> 53) % 3];
		fill(buf, 4096, x);
		w->what = "write";
		w->err = run(w->c, BLK_OP_WRITE, BLK_DEV_DATA, first + block * 4096, 4096, buf);
		if (w->err)
			break;
		w->seeds[block] = x;
		if ((x >> 60) == 0) {
			w->what = "flush";
			w->err = blkcli_flush(w->c, BLK_DEV_DATA);
		} else if (w->seeds[old]) {
			w->what = "read";
			w->err = run(w->c, BLK_OP_READ, BLK_DEV_DATA, first + old * 4096, 4096, buf);
			fill(want, 4096, w->seeds[old]);
			if (w->err == 0 && memcmp(buf, want, 4096) != 0) {
				w->what = "comparison";
				w->err = -EILSEQ;
			}
		}
		atomic_fetch_add(&w->rounds, 1);
	}
	blkcli_buf_free(w->c, shared);
	free(mine);
	return NULL;
}

/* Every writer gets `more` rounds further, within the deadline. */
static void expect_progress(struct writer *w, unsigned long more)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	unsigned long goal[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++)
		goal[i] = atomic_load(&w[i].rounds) + more;
	for (unsigned i = 0; i < WRITERS; i++) {
		while (atomic_load(&w[i].rounds) < goal[i] && !w[i].err && clock_mono_ns() < end)
			poll(NULL, 0, 1);
		if (w[i].err || atomic_load(&w[i].rounds) < goal[i]) {
			struct blkcli_stats st;

			blkcli_get_stats(w[i].c, &st);
			show_log();
			fprintf(stderr, "writer %u: %s at round %lu: %s (connected %d, reconnects %"
				PRIu64 ", resent %" PRIu64 ")\n", i, w[i].what,
				atomic_load(&w[i].rounds), strerror(-w[i].err), st.connected,
				st.reconnects, st.resent);
			/* Its threads are stuck or failed, and cmocka would go on beside them. */
			_exit(1);
		}
	}
}

static void killed_blockd_costs_a_pause_and_nothing_else(void **state)
{
	const char *env = getenv("ROUNDS");
	unsigned rounds = env ? (unsigned)atoi(env) : 6;
	struct fixture *fx = *state;
	struct writer w[WRITERS];
	struct blkcli_stats st;
	atomic_bool must_stop = false;
	struct blkcli *c;
	char buf[4096], want[4096];
	unsigned compared = 0;

	start(fx);
	c = client(fx);
	memset(w, 0, sizeof(w));
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i].c = c;
		w[i].nr = i;
		w[i].stop = &must_stop;
		w[i].what = "start";
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	for (unsigned r = 0; r < rounds; r++) {
		expect_progress(w, 20 + 13 * r);
		stop(fx, SIGKILL);
		start(fx);
	}
	expect_progress(w, 20);
	atomic_store(&must_stop, true);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(w[i].thread, NULL);
	blkcli_get_stats(c, &st);
	assert_int_equal(st.reconnects, rounds);
	blkcli_close(c);
	assert_int_equal(stop(fx, SIGTERM), 0);

	for (unsigned i = 0; i < WRITERS; i++) {
		assert_int_equal(w[i].err, 0);
		for (unsigned b = 0; b < WRITER_BLOCKS; b++) {
			if (!w[i].seeds[b])
				continue;
			device_read(fx->data, DATA_OFF + (i * WRITER_BLOCKS + b) * 4096ull, buf, 4096);
			fill(want, 4096, w[i].seeds[b]);
			assert_memory_equal(buf, want, 4096);
			compared++;
		}
	}
	assert_true(compared > WRITERS);
}

static atomic_uint ups, downs;

static void count_state(void *arg, bool connected)
{
	(void)arg;
	atomic_fetch_add(connected ? &ups : &downs, 1);
}

static void pool_and_region_survive(void **state)
{
	struct blkcli_conf conf = { .kind = BLK_KIND_FSD, .rid = RID, .region_bytes = REGION_BYTES,
				    .on_state = count_state, .deadline_ms = DEADLINE_S * 1000 };
	struct fixture *fx = *state;
	struct blkcli *c, *c2;
	char *pool, *region, *want = aligned_alloc(4096, 65536);
	size_t len;

	conf.socket_path = fx->sock;
	ups = downs = 0;
	start(fx);
	assert_int_equal(blkcli_open(&c, &conf), 0);
	pool = blkcli_pool(c, &len);
	region = blkcli_region(c, &len);
	fill(pool, 65536, 5);
	fill(region, 65536, 6);
	stop(fx, SIGKILL);
	start(fx);
	/* The new blockd writes from both what was put in before. */
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 65536, pool), 0);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF + 65536, 65536, region), 0);
	device_read(fx->data, DATA_OFF, want, 65536);
	assert_memory_equal(want, pool, 65536);
	device_read(fx->data, DATA_OFF + 65536, want, 65536);
	assert_memory_equal(want, region, 65536);
	assert_true(atomic_load(&ups) == 2 && atomic_load(&downs) == 1);

	/* And another client finds the same pool. */
	c2 = client(fx);
	assert_memory_equal(blkcli_pool(c2, &len), pool, 65536);
	blkcli_close(c2);
	blkcli_close(c);
	free(want);
}

static void a_deadline_ends_a_call(void **state)
{
	struct blkcli_conf conf = { .kind = BLK_KIND_FSD, .rid = RID, .region_bytes = REGION_BYTES,
				    .deadline_ms = 100 };
	struct fixture *fx = *state;
	struct blkcli *c, *slow;
	struct blkcli_stats st;
	char *buf;

	conf.socket_path = fx->sock;
	assert_int_equal(blkcli_open(&c, &conf), -ETIMEDOUT);
	start(fx);
	slow = client(fx);
	conf.deadline_ms = DEADLINE_S * 1000;
	assert_int_equal(blkcli_open(&c, &conf), 0);
	blkcli_close(c);

	/* blockd hangs: the call comes back, and later ones work when it goes on. */
	conf.deadline_ms = 500;
	assert_int_equal(blkcli_open(&c, &conf), 0);
	assert_int_equal(kill(fx->pid, SIGSTOP), 0);
	buf = blkcli_buf_alloc(c, 4096);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), -ETIMEDOUT);
	assert_int_equal(blkcli_revoke(c, 5), -ETIMEDOUT);
	assert_int_equal(kill(fx->pid, SIGCONT), 0);
	assert_int_equal(run(slow, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	blkcli_get_stats(c, &st);
	assert_int_equal(st.timeouts, 1);
	blkcli_buf_free(c, buf);
	blkcli_close(c);

	/* blockd is dead: the same, and the write is not made later. */
	assert_int_equal(blkcli_open(&c, &conf), 0);
	stop(fx, SIGKILL);
	buf = blkcli_buf_alloc(c, 4096);
	fill(buf, 4096, 77);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF + 8192, 4096, buf), -ETIMEDOUT);
	start(fx);
	assert_int_equal(run(slow, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	do
		blkcli_get_stats(c, &st);
	while (!st.connected);
	assert_int_equal(st.resent, 0);
	blkcli_buf_free(c, buf);
	blkcli_close(c);
	blkcli_close(slow);
}

/* ---- tokens ---- */

static void a_passed_term_writes_no_more(void **state)
{
	struct fixture *fx = *state;
	struct blkcli *old, *new, *quorumd, *fsd;
	char *buf = aligned_alloc(4096, 4096);

	memset(buf, 3, 4096);
	start(fx);
	old = client_as(fx, BLK_KIND_SERVERD, RID, 4);
	quorumd = client_as(fx, BLK_KIND_QUORUMD, RID, 0);
	fsd = client(fx);
	assert_int_equal(blkcli_write_small(old, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_set_term(fsd, 9), -EPERM);
	assert_int_equal(blkcli_set_term(quorumd, 5), 0);
	assert_int_equal(blkcli_set_term(quorumd, 4), -ESTALE);
	assert_int_equal(blkcli_write_small(old, BLK_DEV_META, 512, buf), -ESTALE);
	assert_int_equal(run(old, BLK_OP_DISCARD, BLK_DEV_META, 512 << 12, 4096, NULL), -ESTALE);
	assert_int_equal(blkcli_read_small(old, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_write_small(fsd, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_write_small(quorumd, BLK_DEV_META, 20, buf), 0);
	new = client_as(fx, BLK_KIND_SERVERD, RID, 5);
	assert_int_equal(blkcli_write_small(new, BLK_DEV_META, 512, buf), 0);

	/* Not even by way of a new blockd; and a server's own token follows the term it sets. */
	assert_int_equal(blkcli_set_term(new, 6), 0);
	stop(fx, SIGKILL);
	start(fx);
	assert_int_equal(blkcli_write_small(old, BLK_DEV_META, 512, buf), -ESTALE);
	assert_int_equal(blkcli_write_small(new, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_set_term(old, 5), -ESTALE);
	blkcli_close(old);
	blkcli_close(new);
	blkcli_close(quorumd);
	blkcli_close(fsd);
	free(buf);
}

static void a_revoked_rid_writes_no_more(void **state)
{
	struct fixture *fx = *state;
	struct blkcli *victim, *other, *serverd;
	char *buf = aligned_alloc(4096, 4096);

	memset(buf, 3, 4096);
	start(fx);
	victim = client_as(fx, BLK_KIND_FSD, 0x55, 0);
	other = client_as(fx, BLK_KIND_FSD, 0x66, 0);
	serverd = client_as(fx, BLK_KIND_SERVERD, RID, 1);
	assert_int_equal(blkcli_revoke(victim, 0x66), -EPERM);
	assert_int_equal(blkcli_revoke(serverd, 0), -EINVAL);
	assert_int_equal(blkcli_revoke(serverd, 0x55), 0);
	assert_int_equal(blkcli_revoke(serverd, 0x55), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(run(victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), -ENOLINK);
		assert_int_equal(run(victim, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
		assert_int_equal(run(other, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
		stop(fx, SIGKILL);
		start(fx);
	}
	blkcli_close(victim);
	blkcli_close(other);
	blkcli_close(serverd);
	stop(fx, SIGTERM);

	/* Another volume under the same name begins anew. */
	make_volume(fx->meta, fx->data, 0x99);
	start(fx);
	victim = client_as(fx, BLK_KIND_FSD, 0x55, 0);
	assert_int_equal(run(victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	blkcli_close(victim);
	free(buf);
}

/* ---- liars ---- */

struct raw {
	int sock;
	int fds[BLKMSG_FDS_MAX];
	size_t fds_nr;
	struct blkmsg_hello_reply reply;
	struct blkring_shared *ring;
};

static int raw_connect(const struct fixture *fx)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(sock >= 0);
	strcpy(sa.sun_path, fx->sock);
	while (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		if (clock_mono_ns() > end)
			fail_msg("no blockd: %s", strerror(errno));
		poll(NULL, 0, 2);
	}
	return sock;
}

static struct blkmsg_hello raw_hello(void)
{
	return (struct blkmsg_hello){ .hdr = blkmsg_header(BLKMSG_HELLO), .kind = BLK_KIND_FSD,
				      .rid = RID, .region_bytes = 1 << 20 };
}

/* 1: welcome; 0: closed without a word; else what it was refused with. */
static int raw_greet(const struct fixture *fx, struct raw *r, const void *msg, size_t len, int fd)
{
	ssize_t n;
	int ret;

	memset(r, 0, sizeof(*r));
	r->sock = raw_connect(fx);
	ret = sockfd_send(r->sock, msg, len, &fd, fd >= 0);
	if (ret == -EPIPE || ret == -ECONNRESET)
		return 0;
	assert_int_equal(ret, 0);
	n = sockfd_recv(r->sock, &r->reply, sizeof(r->reply), r->fds, BLKMSG_FDS_MAX, &r->fds_nr);
	if (n == 0 || n == -ECONNRESET)
		return 0;
	assert_int_equal(n, sizeof(r->reply));
	if (r->reply.error < 0)
		return r->reply.error;
	r->ring = mmap(NULL, sizeof(*r->ring), PROT_READ | PROT_WRITE, MAP_SHARED, r->fds[0], 0);
	assert_true(r->ring != MAP_FAILED);
	return 1;
}

static void raw_close(struct raw *r)
{
	if (r->ring)
		munmap(r->ring, sizeof(*r->ring));
	sockfd_close_all(r->fds, r->fds_nr);
	close(r->sock);
}

static void raw_bell(struct raw *r)
{
	uint64_t one = 1;

	assert_int_equal(write(r->fds[1], &one, sizeof(one)), sizeof(one));
}

/* blockd closes the connection. */
static void expect_closed(struct raw *r)
{
	struct pollfd pfd = { .fd = r->sock, .events = POLLIN };
	char c;

	assert_int_equal(poll(&pfd, 1, DEADLINE_S * 1000), 1);
	assert_true(recv(r->sock, &c, 1, 0) <= 0);
}

static void bad_greetings_are_refused(void **state)
{
	struct fixture *fx = *state;
	struct blkmsg_hello h;
	struct raw r;
	int memfd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int sealed = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(memfd, 1 << 20), 0);
	assert_int_equal(ftruncate(sealed, 1 << 20), 0);
	assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	start(fx);

#define EXPECT(want, fd) do {							\
		assert_int_equal(raw_greet(fx, &r, &h, sizeof(h), fd), want);	\
		raw_close(&r);							\
	} while (0)
	h = raw_hello();
	EXPECT(1, -1);
	h.hdr.version++;
	EXPECT(-EPROTO, -1);
	h = raw_hello();
	h.hdr.magic++;
	EXPECT(0, -1);
	h = raw_hello();
	h.hdr.type = BLKMSG_REVOKE;
	EXPECT(0, -1);
	h = raw_hello();
	h.kind = BLK_KIND_END;
	EXPECT(-EINVAL, -1);
	h = raw_hello();
	h.rid = 0;
	EXPECT(-EINVAL, -1);
	h = raw_hello();
	h.region_bytes = 100;
	EXPECT(-EINVAL, -1);
	h = raw_hello();
	h.region_bytes = BLKRING_REGION_MAX + 4096;
	EXPECT(-ENOSPC, -1);
	h = raw_hello();
	EXPECT(-EINVAL, sealed);
	h.flags = BLK_HELLO_REGION;
	EXPECT(-EINVAL, -1);
	EXPECT(-EINVAL, memfd);
	EXPECT(-EINVAL, STDERR_FILENO);
	EXPECT(1, sealed);
	h.region_bytes = 2 << 20;
	EXPECT(-EINVAL, sealed);
#undef EXPECT
	h = raw_hello();
	assert_int_equal(raw_greet(fx, &r, &h, sizeof(h) - 1, -1), 0);
	raw_close(&r);
	assert_int_equal(raw_greet(fx, &r, &h, 3, -1), 0);
	raw_close(&r);
	close(memfd);
	close(sealed);
}

static void no_client_can_shrink_what_blockd_maps(void **state)
{
	struct fixture *fx = *state;
	struct blkmsg_hello h = raw_hello();
	struct raw r;

	start(fx);
	assert_int_equal(raw_greet(fx, &r, &h, sizeof(h), -1), 1);
	assert_int_equal(r.fds_nr, 5);
	assert_int_equal(ftruncate(r.fds[0], 0), -1);
	assert_int_equal(ftruncate(r.fds[3], 0), -1);
	raw_close(&r);
}

static void a_lying_client_harms_only_itself(void **state)
{
	const char *env = getenv("ROUNDS");
	unsigned rounds = env ? (unsigned)atoi(env) * 50 : 300;
	struct fixture *fx = *state;
	struct blkcli *good;
	char *buf = aligned_alloc(4096, 4096);
	uint64_t x = 88172645463325252ull;

	start(fx);
	good = client(fx);
	for (unsigned i = 0; i < rounds; i++) {
		struct blkmsg_hello h = raw_hello();
		uint64_t words[64];
		struct raw r;

		fill(words, sizeof(words), x += i);
		h.kind = 1 + words[0] % (BLK_KIND_END - 1);
		assert_int_equal(raw_greet(fx, &r, &h, sizeof(h), -1), 1);
		switch (words[1] % 4) {
		case 0:		/* a ring of noise, with a believable length */
			fill(r.ring->sq, sizeof(r.ring->sq), words[2]);
			blkring_store(&r.ring->sq_tail, words[3] % (BLKRING_ENTRIES + 1));
			raw_bell(&r);
			break;
		case 1:		/* good shapes, wild numbers; many reads into the same place */
			for (unsigned k = 0; k < BLKRING_ENTRIES; k++) {
				uint64_t y = words[k % 64] ^ k * 0x9e3779b97f4a7c15ull;

				r.ring->sq[k] = (struct blkring_desc){
					.op = (uint8_t)(1 + y % 3 % 2 * 2), .dev = y >> 2 & 1, .tag = k,
					.region = y >> 3 & 1, .len = (uint32_t)(y >> 8 & 3) << 12,
					.region_off = (y >> 16 & 0x1ff) << 12,
					.dev_off = (y >> 32 & 0xffff) << 12,
				};
			}
			blkring_store(&r.ring->sq_tail, BLKRING_ENTRIES);
			raw_bell(&r);
			if (words[4] & 1)
				break;
			/* ... and a completion index that runs away */
			blkring_store(&r.ring->cq_head, (uint32_t)words[5]);
			raw_bell(&r);
			break;
		case 2:		/* an index that cannot be */
			blkring_store(&r.ring->sq_tail, 0x40000000u + (uint32_t)(words[2] >> 34));
			raw_bell(&r);
			expect_closed(&r);
			break;
		case 3:		/* noise on the socket */
			if (send(r.sock, words, 1 + words[2] % sizeof(words), MSG_NOSIGNAL) < 0)
				assert_true(errno == EPIPE || errno == ECONNRESET);
			expect_closed(&r);
			break;
		}
		raw_close(&r);
		assert_int_equal(run(good, BLK_OP_READ, BLK_DEV_META, 65536, 4096, buf), 0);
	}
	blkcli_close(good);
	/* It is still the first one, and it can stop. */
	assert_int_equal(stop(fx, SIGTERM), 0);
	free(buf);
}

static void clients_beyond_the_limit_are_told(void **state)
{
	struct fixture *fx = *state;
	struct raw r[BLOCKD_CLIENTS_MAX];
	struct blkmsg_hello h = raw_hello();
	struct raw one;

	start(fx);
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		assert_int_equal(raw_greet(fx, &r[i], &h, sizeof(h), -1), 1);
	one.sock = raw_connect(fx);
	assert_int_equal(sockfd_recv(one.sock, &one.reply, sizeof(one.reply), one.fds, BLKMSG_FDS_MAX,
				     &one.fds_nr), sizeof(one.reply));
	assert_int_equal(one.reply.error, -ENOSPC);
	close(one.sock);
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		raw_close(&r[i]);
	blkcli_close(client(fx));
}

/* ---- starts that must fail ---- */

static void a_second_blockd_names_the_first(void **state)
{
	struct fixture *fx = *state;
	char text[64], override[256], other[128];
	struct blkcli *c;
	char buf[4096];

	start(fx);
	c = client(fx);
	snprintf(text, sizeof(text), "in use by process %d", (int)fx->pid);
	expect_refusal(fx, NULL, text);
	snprintf(other, sizeof(other), "%s/other", fx->dir);
	assert_int_equal(mkdir(other, 0700), 0);
	snprintf(override, sizeof(override), "runtime_dir=%s", other);
	expect_refusal(fx, override, text);
	assert_int_equal(dir_entries(other), 0);
	/* The first does not even notice. */
	assert_int_equal(blkcli_read_small(c, BLK_DEV_META, SUPER_BLKNO, buf), 0);
	blkcli_close(c);
}

static void a_dead_holder_is_waited_for(void **state)
{
	struct fixture *fx = *state;
	int ready[2];
	pid_t holder, keeper;
	char c;

	/*
	 * The holder takes the lock and dies, but its file stays open in the keeper: to the kernel a
	 * lock of a dead process, as after a kill with writes under way.
	 */
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	holder = fork();
	assert_true(holder >= 0);
	if (holder == 0) {
		int fd = open(fx->meta, O_RDWR | O_CLOEXEC);

		if (fd < 0 || flock(fd, LOCK_EX) < 0)
			_exit(1);
		keeper = fork();
		if (keeper == 0) {
			/* Lives until the test closes its end, in whichever way. */
			close(ready[1]);
			(void)read(ready[0], &c, 1);
			_exit(0);
		}
		_exit(keeper < 0);
	}
	close(ready[0]);
	{
		int status;

		assert_int_equal(waitpid(holder, &status, 0), holder);
		assert_int_equal(status, 0);
	}
	start(fx);
	/* Not there while the lock is held ... */
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(waitpid(fx->pid, NULL, WNOHANG), 0);
		assert_int_equal(access(fx->sock, F_OK), -1);
		poll(NULL, 0, 10);
	}
	/* ... and then it is. */
	close(ready[1]);
	blkcli_close(client(fx));
}

static void patch(const char *path, uint64_t off, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
	close(fd);
}

/* Change a super block and make its checksum right again. */
static void patch_super(const char *path, size_t off, const void *bytes, size_t len)
{
	struct disk_super s;

	device_read(path, 65536, &s, sizeof(s));
	memcpy((char *)&s + off, bytes, len);
	s.hdr.crc = le32_of(block_crc(&s, SMALL_SIZE));
	patch(path, 65536, &s, sizeof(s));
}

static void wrong_devices_are_refused_by_name(void **state)
{
	struct fixture *fx = *state;
	uint64_t v = 3;
	char override[256];
	char other_meta[160], other_data[160];

	snprintf(override, sizeof(override), "meta_device=%s/none", fx->dir);
	expect_refusal(fx, override, "meta_device");
	snprintf(override, sizeof(override), "data_device=%s", fx->run);
	expect_refusal(fx, override, "neither a block device nor a file");
	snprintf(override, sizeof(override), "meta_device=%s", fx->data);
	expect_refusal(fx, override, "meta_device");
	snprintf(override, sizeof(override), "data_device=%s", fx->meta);
	expect_refusal(fx, override, "data_device");

	snprintf(other_meta, sizeof(other_meta), "%s/meta2", fx->dir);
	snprintf(other_data, sizeof(other_data), "%s/data2", fx->dir);
	make_volume(other_meta, other_data, 0x77);
	snprintf(override, sizeof(override), "data_device=%s", other_data);
	expect_refusal(fx, override, "different volumes");
	/* Same uuid, other fsid. */
	patch_super(other_data, offsetof(struct disk_super, uuid), "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
	expect_refusal(fx, override, "different fsids");

	assert_int_equal(truncate(fx->data, (DATA_BLOCKS << SMALL_SHIFT) - 4096), 0);
	expect_refusal(fx, NULL, fx->data);
	expect_log(fx, "smaller than the volume says");
	assert_int_equal(truncate(fx->data, 4096), 0);
	expect_refusal(fx, NULL, fx->data);
	expect_log(fx, "too few for a volume");

	make_volume(fx->meta, fx->data, 0x1122334455667788ull);
	patch_super(fx->meta, offsetof(struct disk_super, fmt_vers), &v, sizeof(v));
	expect_refusal(fx, NULL, "format version");
	make_volume(fx->meta, fx->data, 0x1122334455667788ull);
	patch_super(fx->meta, offsetof(struct disk_super, hdr.blkno), &v, sizeof(v));
	expect_refusal(fx, NULL, "meta_device");
	make_volume(fx->meta, fx->data, 0x1122334455667788ull);
	patch(fx->meta, 65536 + 200, "x", 1);
	expect_refusal(fx, NULL, "checksum");
	patch(fx->meta, 65536 + 4, "\0\0\0\0", 4);
	expect_refusal(fx, NULL, "no scoutfs super block");
	assert_int_equal(dir_entries(fx->run), 0);
}

static void bad_runtime_directories_are_refused(void **state)
{
	struct fixture *fx = *state;
	char override[256], path[160];
	int fd;

	snprintf(override, sizeof(override), "runtime_dir=%s/none", fx->dir);
	expect_refusal(fx, override, "runtime_dir");
	snprintf(override, sizeof(override), "runtime_dir=%s", fx->conf);
	expect_refusal(fx, override, "Not a directory");
	expect_refusal(fx, "runtime_dir=/proc/self", "must be writable");

	/* A pool of another size may hold data. */
	snprintf(path, sizeof(path), "%s/pool", fx->run);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 12345), 0);
	close(fd);
	expect_refusal(fx, NULL, "12345 bytes");
	assert_int_equal(dir_entries(fx->run), 1);
	unlink(path);

	snprintf(path, sizeof(path), "%s/tokens", fx->run);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	patch(path, 0, "fsid 1 term", 11);
	expect_refusal(fx, NULL, "makes no sense");
	assert_int_equal(dir_entries(fx->run), 1);
}

static void a_tmpfs_too_small_for_the_pool_is_refused(void **state)
{
	struct fixture *fx = *state;

	if (geteuid() != 0 || mount("none", fx->run, "tmpfs", 0, "size=4m,mode=0700") < 0) {
		fprintf(stderr, "not tested: no right to mount a tmpfs\n");
		skip();
	}
	expect_refusal(fx, NULL, "cannot be allocated");
	assert_int_equal(dir_entries(fx->run), 0);
	assert_int_equal(umount(fx->run), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(f)		{ #f, f, setup, teardown, NULL }
#define TEST_THREADS(f)	{ #f "/threads", f, setup_threads, teardown, NULL }
		TEST(what_is_written_is_read_again),
		TEST_THREADS(what_is_written_is_read_again),
		TEST(many_operations_run_in_one_call),
		TEST_THREADS(many_operations_run_in_one_call),
		TEST(bad_operations_are_refused_one_by_one),
		TEST(an_error_of_the_device_is_answered),
		TEST_THREADS(an_error_of_the_device_is_answered),
		TEST(buffers_wait_for_their_turn),
		TEST(killed_blockd_costs_a_pause_and_nothing_else),
		TEST_THREADS(killed_blockd_costs_a_pause_and_nothing_else),
		TEST(pool_and_region_survive),
		TEST(a_deadline_ends_a_call),
		TEST(a_passed_term_writes_no_more),
		TEST(a_revoked_rid_writes_no_more),
		TEST(bad_greetings_are_refused),
		TEST(no_client_can_shrink_what_blockd_maps),
		TEST(a_lying_client_harms_only_itself),
		TEST_THREADS(a_lying_client_harms_only_itself),
		TEST(clients_beyond_the_limit_are_told),
		TEST(a_second_blockd_names_the_first),
		TEST(a_dead_holder_is_waited_for),
		TEST(wrong_devices_are_refused_by_name),
		TEST(bad_runtime_directories_are_refused),
		TEST(a_tmpfs_too_small_for_the_pool_is_refused),
	};

	if (argc > 1 && strcmp(argv[1], "--blockd") == 0) {
		argv[1] = argv[0];
		return blockd_main(argc - 1, argv + 1);
	}
	signal(SIGALRM, on_alarm);
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
