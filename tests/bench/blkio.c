/*
 * I/O through a running blockd, as a service would do it (lib/run/blkcli.h), on the data device's second
 * half: whatever is there is lost.
 *
 *   blkio check SOCKET         writes, flushes, reads and discards in pieces of 4 KiB and 64 KiB, from a
 *                              region and from anywhere, and compares.  TAP; exit status 1 on "not ok".
 *   blkio rate SOCKET DEVICE   round trips a second through blockd and by pread/pwrite (O_DIRECT) on
 *                              DEVICE, the same device, by turns; medians, and the ratio of the two.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkcli.h"
#include "clock.h"

#define REGION_BYTES	(4u << 20)
#define SPAN_BYTES	(16u << 20)
#define BATCH		32
#define TURNS		9
#define TURN_NS		(150 * NSEC_PER_MSEC)

static struct blkcli *cli;
static uint64_t base;
static unsigned tap_nr, failures;

static void say(bool good, const char *text)
{
	if (!good)
		failures++;
	printf("%sok %u - %s\n", good ? "" : "not ", ++tap_nr, text);
}

static int run(unsigned op, uint64_t off, uint32_t len, void *buf)
{
	struct blkcli_op o = { .op = (uint8_t)op, .dev = BLK_DEV_DATA, .dev_off = off, .len = len,
			       .buf = buf };

	return blkcli_run(cli, &o, 1);
}

static void fill(char *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i += sizeof(seed)) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		memcpy(buf + i, &seed, sizeof(seed));
	}
}

/* ---- check ---- */

static bool is_same_again(char *buf, char *want, uint32_t piece, uint64_t seed)
{
	for (uint64_t at = 0; at < SPAN_BYTES; at += piece * 7) {
		fill(buf, piece, seed + at);
		if (run(BLK_OP_WRITE, base + at, piece, buf) < 0)
			return false;
	}
	if (blkcli_flush(cli, BLK_DEV_DATA) < 0)
		return false;
	for (uint64_t at = 0; at < SPAN_BYTES; at += piece * 7) {
		memset(buf, 0, piece);
		fill(want, piece, seed + at);
		if (run(BLK_OP_READ, base + at, piece, buf) < 0 || memcmp(buf, want, piece) != 0)
			return false;
	}
	return true;
}

static void check(char *region)
{
	char *want = malloc(65536);
	char *buf = malloc(65536 + 1);
	uint64_t end = blkcli_data_blocks(cli) << SMALL_SHIFT;
	int ret;

	if (!want || !buf) {
		say(false, "memory");
		return;
	}
	say(is_same_again(region, want, 4096, 1), "4 KiB written are read again, from the region");
	say(is_same_again(region, want, 65536, 2), "64 KiB written are read again, from the region");
	say(is_same_again(buf + 1, want, 4096, 3), "4 KiB written are read again, from anywhere");
	say(is_same_again(buf + 1, want, 65536, 4), "64 KiB written are read again, from anywhere");
	fill(region, 4096, 5);
	say(run(BLK_OP_WRITE, end - 4096, 4096, region) == 0 &&
	    run(BLK_OP_READ, end - 4096, 4096, want) == 0 && memcmp(region, want, 4096) == 0,
	    "the volume's last block is written and read");
	say(run(BLK_OP_READ, end, 4096, want) == -EINVAL, "and nothing behind it");
	ret = run(BLK_OP_DISCARD, base, SPAN_BYTES, NULL);
	if (ret == -EOPNOTSUPP) {
		printf("# the device cannot discard\n");
	} else {
		memset(want, 0, 65536);
		say(ret == 0 && run(BLK_OP_READ, base, 65536, buf) == 0 &&
		    memcmp(buf, want, 65536) == 0, "what was discarded reads as zeros");
	}
	free(want);
	free(buf);
}

/* ---- rate ---- */

static uint64_t random_off(void)
{
	static uint64_t x = 1;

	x = x * 6364136223846793005u + 1442695040888963407u;
	return base + (x >> 33) % (SPAN_BYTES / 4096) * 4096;
}

/* One batch each; `fd` >= 0: straight to the device. */
static int step(int fd, unsigned op, unsigned nr, char *bufs)
{
	struct blkcli_op ops[BATCH];

	for (unsigned i = 0; i < nr; i++) {
		uint64_t off = random_off();
		char *buf = bufs + i * 4096;

		if (fd >= 0) {
			ssize_t n = op == BLK_OP_READ ? pread(fd, buf, 4096, (off_t)off) :
							pwrite(fd, buf, 4096, (off_t)off);
			if (n != 4096)
				return n < 0 ? -errno : -EIO;
		} else {
			ops[i] = (struct blkcli_op){ .op = (uint8_t)op, .dev = BLK_DEV_DATA,
						     .dev_off = off, .len = 4096, .buf = buf };
		}
	}
	return fd >= 0 ? 0 : blkcli_run(cli, ops, nr);
}

static double turn(int fd, unsigned op, unsigned nr, char *bufs)
{
	uint64_t start = clock_mono_ns();
	uint64_t now = start;
	unsigned long done = 0;

	while (now - start < TURN_NS) {
		int ret = step(fd, op, nr, bufs);

		if (ret < 0) {
			fprintf(stderr, "blkio: %s\n", strerror(-ret));
			exit(1);
		}
		done += nr;
		now = clock_mono_ns();
	}
	return (double)done * 1e9 / (double)(now - start);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v)
{
	qsort(v, TURNS, sizeof(*v), by_value);
	return v[TURNS / 2];
}

static void rate(const char *what, int fd, unsigned op, unsigned nr, char *bufs)
{
	double ring[TURNS], straight[TURNS], ratio[TURNS];

	for (unsigned i = 0; i < TURNS; i++) {
		straight[i] = turn(fd, op, nr, bufs);
		ring[i] = turn(-1, op, nr, bufs);
		ratio[i] = ring[i] / straight[i];
	}
	printf("%-26s ring %8.0f/s  straight %8.0f/s  ratio %.2f\n", what, median(ring),
	       median(straight), median(ratio));
	fflush(stdout);
}

static int rates(const char *device, char *region)
{
	int fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
	char *heap = aligned_alloc(4096, BATCH * 4096);

	if (fd < 0 || !heap) {
		fprintf(stderr, "blkio: %s: %s\n", device, strerror(errno));
		return 1;
	}
	/* Allocated blocks on both sides: the first write of a hole is another matter. */
	for (uint64_t at = 0; at < SPAN_BYTES; at += BATCH * 4096)
		if (run(BLK_OP_WRITE, base + at, BATCH * 4096, region) < 0)
			return 1;
	rate("4 KiB reads, one by one", fd, BLK_OP_READ, 1, region);
	rate("4 KiB writes, one by one", fd, BLK_OP_WRITE, 1, region);
	rate("4 KiB reads, copied", fd, BLK_OP_READ, 1, heap);
	rate("4 KiB reads, 32 at once", fd, BLK_OP_READ, BATCH, region);
	rate("4 KiB writes, 32 at once", fd, BLK_OP_WRITE, BATCH, region);
	close(fd);
	free(heap);
	return 0;
}

int main(int argc, char **argv)
{
	struct blkcli_conf conf = { .kind = BLK_KIND_FSD, .rid = 0xb10c10, .deadline_ms = 60000,
				    .region_bytes = REGION_BYTES };
	char *region;
	size_t len;
	int ret = 0;

	if (argc < 3 || (strcmp(argv[1], "check") != 0 && (strcmp(argv[1], "rate") != 0 || argc < 4))) {
		fprintf(stderr, "usage: blkio check SOCKET | rate SOCKET DEVICE\n");
		return 64;
	}
	conf.socket_path = argv[2];
	ret = blkcli_open(&cli, &conf);
	if (ret < 0) {
		fprintf(stderr, "blkio: %s: %s\n", argv[2], strerror(-ret));
		return 1;
	}
	/* As long as blockd believes; nobody else uses the volume. */
	blkcli_lease(cli, BLK_KIND_FSD, 1, clock_boot_ns() + 110 * NSEC_PER_SEC);
	region = blkcli_region(cli, &len);
	base = blkcli_data_blocks(cli) / 2 << SMALL_SHIFT;
	if (strcmp(argv[1], "rate") == 0) {
		ret = rates(argv[3], region);
	} else {
		check(region);
		printf("1..%u\n", tap_nr);
		ret = failures != 0;
	}
	blkcli_close(cli);
	return ret;
}
