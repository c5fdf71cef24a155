/*
 * fsx FILE [OPS [SEED [MAX_KIB]]]: one file under random reads, writes, appends, stores and loads
 * through a mapping, truncation, preallocation, fsync, closing and opening again, dropping of the
 * page cache; all of it checked against memory, byte by byte.  At the end the file is fsynced and
 * what it must hold is written to FILE's name with ".want" in the current directory.  Exit status:
 * 0 equal, 1 not (said, with the operations that led there), 2 could not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_LINES	24u

static const char *path;
static int fd = -1, append_fd = -1;
static size_t max_bytes, size;
static uint8_t *want, *buf;	/* want is zero from size on */
static unsigned short rng[3];
static char log_lines[LOG_LINES][128];
static unsigned long op_nr;

static size_t rnd(size_t below)
{
	return below ? ((size_t)nrand48(rng) << 20 ^ (size_t)nrand48(rng)) % below : 0;
}

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(log_lines[op_nr % LOG_LINES], sizeof(log_lines[0]), fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	fprintf(stderr, "fsx: %s: operation %lu: ", path, op_nr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (errno: %s); the last operations:\n", strerror(err));
	for (unsigned long i = op_nr >= LOG_LINES ? op_nr - LOG_LINES + 1 : 0; i <= op_nr; i++)
		fprintf(stderr, "  %lu %s\n", i, log_lines[i % LOG_LINES]);
	exit(1);
}

static void compare(const uint8_t *got, size_t off, size_t len, const char *how)
{
	for (size_t i = 0; i < len; i++) {
		if (got[i] != want[off + i])
			fail("%s of %zu+%zu: byte %zu is 0x%02x, not 0x%02x", how, off, len,
			     off + i, got[i], want[off + i]);
	}
}

static void open_file(int flags)
{
	if (fd >= 0 && (close(fd) < 0 || close(append_fd) < 0))
		fail("close");
	fd = open(path, O_RDWR | O_CLOEXEC | flags, 0644);
	append_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0 || append_fd < 0)
		fail("open");
}

static void check_size(void)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		fail("fstat");
	if ((size_t)st.st_size != size)
		fail("the size is %lld, not %zu", (long long)st.st_size, size);
}

static void fill(size_t len)
{
	unsigned kind = (unsigned)rnd(8);

	for (size_t i = 0; i < len; i++)
		buf[i] = kind == 0 ? 0 : (uint8_t)(nrand48(rng) >> 7);
}

static size_t some_len(size_t max)
{
	size_t len = rnd(3) ? 1 + rnd(70000) : 1 + rnd(6000);

	if (rnd(4) == 0)
		len = (len + 4095) & ~(size_t)4095;
	return len < max ? len : max;
}

static size_t some_off(size_t below)
{
	size_t off = rnd(below);

	return rnd(3) ? off : off & ~(size_t)4095;
}

/* ---- operations ---------------------------------------------------------------------- */

static void do_read(void)
{
	size_t off = some_off(max_bytes), len = some_len(max_bytes - off), expect;
	ssize_t n;

	note("read %zu+%zu", off, len);
	expect = off >= size ? 0 : size - off < len ? size - off : len;
	n = pread(fd, buf, len, (off_t)off);
	if (n < 0 || (size_t)n != expect)
		fail("read of %zu+%zu gave %zd of %zu bytes", off, len, n, expect);
	compare(buf, off, expect, "read");
}

static void do_write(void)
{
	size_t off = some_off(max_bytes), len = some_len(max_bytes - off);

	note("write %zu+%zu (size %zu)", off, len, size);
	fill(len);
	if (pwrite(fd, buf, len, (off_t)off) != (ssize_t)len)
		fail("write");
	memcpy(want + off, buf, len);
	if (off + len > size)
		size = off + len;
}

static void do_append(void)
{
	size_t len = some_len(max_bytes - size);

	note("append %zu+%zu", size, len);
	if (!len)
		return;
	fill(len);
	if (write(append_fd, buf, len) != (ssize_t)len)
		fail("append");
	memcpy(want + size, buf, len);
	size += len;
}

static void do_truncate(void)
{
	size_t to = rnd(2) ? some_off(max_bytes) : rnd(size + 1);

	note("truncate %zu -> %zu", size, to);
	if (ftruncate(fd, (off_t)to) < 0)
		fail("truncate");
	if (to < size)
		memset(want + to, 0, size - to);
	size = to;
	check_size();
}

static void do_fallocate(void)
{
	size_t off = some_off(max_bytes), len = some_len(max_bytes - off);
	int keep = (int)rnd(2);

	note("fallocate %zu+%zu%s (size %zu)", off, len, keep ? " keep" : "", size);
	if (fallocate(fd, keep ? FALLOC_FL_KEEP_SIZE : 0, (off_t)off, (off_t)len) < 0)
		fail("fallocate");
	if (!keep && off + len > size)
		size = off + len;
	check_size();
}

static void do_map(int store)
{
	size_t off = some_off(size), len = size ? some_len(size - off) : 0,
	       first = off & ~(size_t)4095;
	uint8_t *map;

	note("map-%s %zu+%zu (size %zu)", store ? "store" : "load", off, len, size);
	if (!len)
		return;
	map = mmap(NULL, off + len - first, store ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
		   fd, (off_t)first);
	if (map == MAP_FAILED)
		fail("mmap");
	if (store) {
		fill(len);
		memcpy(map + (off - first), buf, len);
		memcpy(want + off, buf, len);
		if (rnd(3) == 0 && msync(map, off + len - first, MS_SYNC) < 0)
			fail("msync");
	} else {
		memcpy(buf, map + (off - first), len);
		compare(buf, off, len, "load");
	}
	if (munmap(map, off + len - first) < 0)
		fail("munmap");
}

static void do_seek(void)
{
	size_t off = some_off(size);
	off_t data, hole;

	note("seek %zu (size %zu)", off, size);
	if (!size)
		return;
	/* stores through a mapping are data once they are written back */
	if (fsync(fd) < 0)
		fail("fsync");
	data = lseek(fd, (off_t)off, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		fail("SEEK_DATA");
	if (data < 0)
		data = (off_t)size;
	for (size_t i = off; i < (size_t)data; i++) {
		if (want[i])
			fail("SEEK_DATA from %zu found %lld but byte %zu is not zero", off,
			     (long long)data, i);
	}
	hole = lseek(fd, (off_t)off, SEEK_HOLE);
	if (hole < (off_t)off || hole > (off_t)size)
		fail("SEEK_HOLE from %zu gave %lld", off, (long long)hole);
}

static void step(void)
{
	switch (rnd(24)) {
	case 0: case 1: case 2: case 3: case 4:
		do_write();
		break;
	case 5: case 6:
		do_append();
		break;
	case 7: case 8: case 9: case 10:
		do_read();
		break;
	case 11: case 12: case 13:
		do_map(1);
		break;
	case 14: case 15:
		do_map(0);
		break;
	case 16: case 17:
		do_truncate();
		break;
	case 18:
		do_fallocate();
		break;
	case 19:
		note("fsync");
		if (fsync(fd) < 0)
			fail("fsync");
		break;
	case 20:
		note("reopen");
		open_file(0);
		check_size();
		break;
	case 21:
		note("drop pages");
		if (fdatasync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
			fail("drop pages");
		break;
	case 22:
		do_seek();
		break;
	case 23:
		note("stat");
		check_size();
		break;
	}
}

static void check_all(void)
{
	note("all of it");
	check_size();
	for (size_t at = 0; at < size; at += 65536) {
		size_t len = size - at < 65536 ? size - at : 65536;

		if (pread(fd, buf, len, (off_t)at) != (ssize_t)len)
			fail("read of %zu+%zu", at, len);
		compare(buf, at, len, "read");
	}
}

static void save_want(void)
{
	const char *base = strrchr(path, '/');
	char name[512];
	FILE *f;

	snprintf(name, sizeof(name), "%s.want", base ? base + 1 : path);
	f = fopen(name, "w");
	if (!f || fwrite(want, 1, size, f) != size || fclose(f) != 0) {
		fprintf(stderr, "fsx: %s: %s\n", name, strerror(errno));
		exit(2);
	}
}

int main(int argc, char **argv)
{
	unsigned long ops, seed;

	if (argc < 2 || argc > 5) {
		fprintf(stderr, "usage: fsx FILE [OPS [SEED [MAX_KIB]]]\n");
		return 2;
	}
	path = argv[1];
	ops = argc > 2 ? strtoul(argv[2], NULL, 0) : 2000;
	seed = argc > 3 ? strtoul(argv[3], NULL, 0) : 1;
	max_bytes = (argc > 4 ? strtoul(argv[4], NULL, 0) : 1024) << 10;
	rng[0] = (unsigned short)seed;
	rng[1] = (unsigned short)(seed >> 16);
	rng[2] = 0x330e;
	want = calloc(1, max_bytes + 1);
	buf = malloc(max_bytes + 1);
	if (!want || !buf || max_bytes < 8192) {
		fprintf(stderr, "fsx: no memory, or MAX_KIB is under 8\n");
		return 2;
	}
	open_file(O_CREAT | O_TRUNC);
	for (op_nr = 0; op_nr < ops; op_nr++) {
		step();
		if (op_nr % 256 == 255)
			check_all();
	}
	check_all();
	if (fsync(fd) < 0)
		fail("fsync");
	save_want();
	return 0;
}
