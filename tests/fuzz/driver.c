/*
 * main() for a fuzz target where the compiler brings none: runs the files (or the files of the
 * directories) that it is given, or mutates the target's own starting inputs, always the same way
 * for a seed.
 *
 *	fuzz_NAME [-runs=N] [-seed=S] [-max_len=BYTES] [FILE|DIR...]
 *
 * Options are spelled as libFuzzer spells them, and others that start with a dash are ignored with
 * a line, so that one command line serves both.  A target may define fuzz_seed(): it puts the i-th
 * valid input into buf and returns its length, 0 when there are no more.  Without it inputs start
 * from random bytes.
 *
 * A crash leaves the input that made it in crash-NAME-SEED-RUN in the current directory, to be run
 * again as a FILE.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

#define RUNS_DEFAULT	20000u
#define MAX_LEN_DEFAULT	(128u * 1024)
#define MUTATIONS_MAX	8u

/* What the crash handler needs; set before each run. */
static const uint8_t *current;
static size_t current_len;
static char crash_name[256];

static uint64_t rng_state;

static uint64_t rng(void)
{
	uint64_t z = (rng_state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t below(uint64_t n)
{
	return n ? rng() % n : 0;
}

/* Only async-signal-safe calls in here. */
static void on_crash(int sig)
{
	int fd = open(crash_name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	size_t done = 0;

	while (fd >= 0 && done < current_len) {
		ssize_t n = write(fd, current + done, current_len - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (fd >= 0 && done == current_len) {
		(void)!write(STDERR_FILENO, "input kept in ", 14);
		(void)!write(STDERR_FILENO, crash_name, strlen(crash_name));
		(void)!write(STDERR_FILENO, "\n", 1);
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

/* The exact length on the heap, so that a sanitizer sees each byte read beyond it. */
static void run_one(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy) {
		fprintf(stderr, "no memory for an input of %zu bytes\n", len);
		exit(2);
	}
	memcpy(copy, data, len);
	current = copy;
	current_len = len;
	LLVMFuzzerTestOneInput(copy, len);
	free(copy);
}

static int run_file(const char *path, size_t max_len)
{
	uint8_t *buf = malloc(max_len);
	FILE *f = fopen(path, "rb");
	size_t len;
	int ret = 0;

	if (!f || !buf) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		ret = -1;
		goto out;
	}
	len = fread(buf, 1, max_len, f);
	if (ferror(f)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		ret = -1;
		goto out;
	}
	run_one(buf, len);
out:
	if (f)
		fclose(f);
	free(buf);
	return ret;
}

static int run_path(const char *path, size_t max_len, unsigned *files)
{
	struct dirent *de;
	DIR *dir = opendir(path);
	int ret = 0;

	if (!dir) {
		if (errno != ENOTDIR) {
			fprintf(stderr, "%s: %s\n", path, strerror(errno));
			return -1;
		}
		++*files;
		return run_file(path, max_len);
	}
	while (ret == 0 && (de = readdir(dir))) {
		char child[4096];
		struct stat st;

		if (snprintf(child, sizeof(child), "%s/%s", path, de->d_name) >= (int)sizeof(child))
			continue;
		if (stat(child, &st) < 0 || !S_ISREG(st.st_mode))
			continue;
		++*files;
		ret = run_file(child, max_len);
	}
	closedir(dir);
	return ret;
}

/*
 * A place to change.  Inputs are often sparse (a block is mostly zeros), so half of the time it is
 * near a byte that is not zero, and small offsets are as likely as large ones.
 */
static size_t pick_place(const uint8_t *buf, size_t len)
{
	size_t at;

	switch (below(4)) {
	case 0:
		return below(len);
	case 1:
		at = below(1ull << below(17));
		return at < len ? at : below(len);
	default:
		at = below(len);
		for (size_t i = 0; i < len; i++)
			if (buf[(at + i) % len])
				return (at + i) % len;
		return at;
	}
}

static uint64_t interesting(void)
{
	static const uint64_t vals[] = {
		0, 1, 2, 7, 8, 16, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000,
		0x7fffffff, 0x80000000, 0xffffffff, 1ull << 63, UINT64_MAX,
	};

	return vals[below(sizeof(vals) / sizeof(vals[0]))];
}

static void put_le(uint8_t *p, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static size_t mutate(uint8_t *buf, size_t len, size_t max_len)
{
	size_t at, from, nr;

	if (len == 0) {
		buf[0] = (uint8_t)rng();
		return 1;
	}
	at = pick_place(buf, len);
	nr = 1ull << below(4);
	if (nr > len - at)
		nr = 1;
	switch (below(8)) {
	case 0:
		buf[at] ^= (uint8_t)(1u << below(8));
		break;
	case 1:
		buf[at] = (uint8_t)rng();
		break;
	case 2:
		put_le(buf + at, interesting(), nr);
		break;
	case 3:
		put_le(buf + at, get_le(buf + at, nr) + below(33) - 16, nr);
		break;
	case 4:		/* a piece over another */
		from = pick_place(buf, len);
		nr = 1 + below(64);
		if (nr > len - at)
			nr = len - at;
		if (nr > len - from)
			nr = len - from;
		memmove(buf + at, buf + from, nr);
		break;
	case 5:		/* the same number elsewhere: links and lengths are often repeated */
		from = pick_place(buf, len);
		nr = 2;
		if (at + nr <= len && from + nr <= len)
			memmove(buf + at, buf + from, nr);
		break;
	case 6:
		if (below(4) == 0)
			return below(len);
		buf[at] = 0;
		break;
	default:
		if (below(4) == 0) {
			nr = 1 + below(64);
			if (nr > max_len - len)
				nr = max_len - len;
			for (size_t i = 0; i < nr; i++)
				buf[len + i] = (uint8_t)rng();
			return len + nr;
		}
		put_le(buf + at, rng() >> below(64), nr);
		break;
	}
	return len;
}

static size_t start_input(uint8_t *buf, size_t max_len, unsigned seeds_nr)
{
	size_t len;

	if (seeds_nr)
		return fuzz_seed((unsigned)below(seeds_nr), buf, max_len);
	len = below(1ull << below(13));
	if (len > max_len)
		len = max_len;
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)rng();
	return len;
}

static void run_mutations(const char *name, uint64_t runs, uint64_t seed, size_t max_len)
{
	uint8_t *buf = malloc(max_len);
	unsigned seeds_nr = 0;

	if (!buf) {
		fprintf(stderr, "no memory for inputs of %zu bytes\n", max_len);
		exit(2);
	}
	while (fuzz_seed && fuzz_seed(seeds_nr, buf, max_len) > 0)
		seeds_nr++;
	for (uint64_t run = 0; run < runs; run++) {
		size_t len;

		/* Each run has its own generator: a failure is repeated by its number alone. */
		rng_state = seed * 0x2545f4914f6cdd1dull + run;
		snprintf(crash_name, sizeof(crash_name), "crash-%s-%llu-%llu", name,
			 (unsigned long long)seed,
			 (unsigned long long)run);
		if (run < seeds_nr) {
			run_one(buf, fuzz_seed((unsigned)run, buf, max_len));
			continue;
		}
		len = start_input(buf, max_len, seeds_nr);
		for (uint64_t i = 1 + below(MUTATIONS_MAX); i > 0; i--)
			len = mutate(buf, len, max_len);
		run_one(buf, len);
	}
	free(buf);
	printf("%s: %llu runs from %u starting inputs, seed %llu\n", name, (unsigned long long)runs,
	       seeds_nr,
	       (unsigned long long)seed);
}

static int number_option(const char *arg, const char *name, uint64_t *val)
{
	size_t len = strlen(name);
	char *end;

	if (strncmp(arg, name, len) != 0 || arg[len] != '=')
		return 0;
	errno = 0;
	*val = strtoull(arg + len + 1, &end, 0);
	if (errno || end == arg + len + 1 || *end) {
		fprintf(stderr, "%s: not a number; give %s=N\n", arg, name);
		exit(2);
	}
	return 1;
}

int main(int argc, char **argv)
{
	static const int signals[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash ? slash + 1 : argv[0];
	uint64_t runs = RUNS_DEFAULT, seed = 1, max_len = MAX_LEN_DEFAULT;
	unsigned files = 0;
	int paths = 0;

	for (int i = 1; i < argc; i++) {
		if (number_option(argv[i], "-runs", &runs) ||
		    number_option(argv[i], "-seed", &seed) ||
		    number_option(argv[i], "-max_len", &max_len))
			continue;
		if (argv[i][0] == '-')
			fprintf(stderr, "%s: ignored, this driver does not know it\n", argv[i]);
		else
			paths++;
	}
	if (max_len == 0 || max_len > SIZE_MAX / 2) {
		fprintf(stderr, "-max_len=%llu: give at least 1\n", (unsigned long long)max_len);
		return 2;
	}
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], on_crash);
	if (paths == 0) {
		run_mutations(name, runs, seed, max_len);
		return 0;
	}
	snprintf(crash_name, sizeof(crash_name), "crash-%s", name);
	for (int i = 1; i < argc; i++)
		if (argv[i][0] != '-' && run_path(argv[i], max_len, &files) < 0)
			return 2;
	printf("%s: %u files\n", name, files);
	return 0;
}
