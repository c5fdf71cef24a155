/*
 * crashload DIR SEED ROUNDS: random operations on a tree, mirrored in a model, through power cuts.
 *
 * A mount commits generations: whole operations, in order.  So what is there after a power cut must be
 * the model after some prefix of the operations, and the prefix holds at least everything up to the last
 * fsync that returned.  Each round:
 *
 *	"running R" is printed; operations go on until one fails because the services are gone;
 *	a line is read from stdin (the volume is mounted again);
 *	the tree is read, the prefix is looked for, and every byte of every file is judged: it must be what
 *	the prefix says or what a later write of this process put there - never foreign.
 *	"ok"/"not ok" is printed, and the model becomes that prefix.
 *
 * Exit status 1 if anything was not ok.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define DIRS		6
#define NAMES		40		/* names in each directory */
#define FILE_MAX	(192 * 1024)
#define FILES_MAX	200000
#define XATTR		"user.mark"

enum kind { K_NONE, K_FILE, K_DIR, K_LINK };

/* An object; names point to it.  Contents are versions: write number w stored at each byte. */
struct object {
	enum kind kind;
	uint32_t mode, nlink, size, xattr;	/* xattr: 0 absent, else the number stored */
	uint32_t target;			/* K_LINK */
};

enum op_kind { OP_CREATE, OP_WRITE, OP_TRUNC, OP_RENAME, OP_HARDLINK, OP_UNLINK, OP_MKDIR, OP_RMDIR, OP_SYMLINK,
	       OP_CHMOD, OP_SETXATTR, OP_FSYNC, OP_KINDS };

struct op {
	uint8_t kind;
	uint16_t a, b;		/* slots: dir * NAMES + name */
	uint32_t obj;		/* what slot a named, or the new object */
	uint32_t off, len, val;
};

static const char *root = ".";	/* the tree, entered by its path again after each mount */
static uint64_t rng;
static struct op *ops;
static size_t ops_nr, ops_cap, synced;	/* ops[0..synced) are durable */
static struct op *lost;			/* operations of earlier rounds that no prefix held: */
static size_t lost_nr;			/* their data may have been written in place all the same */
static struct object objs[FILES_MAX];
static uint32_t objs_nr = 1;
static uint32_t slots[DIRS * NAMES];	/* object number, 0: free */

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}
static uint32_t below(uint32_t n) { return (uint32_t)(rnd() % n); }

static void fail(const char *fmt, ...)
{
	va_list ap;

	printf("not ok - ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	exit(1);
}

static void slot_path(unsigned slot, char *buf, size_t size)
{
	snprintf(buf, size, "%s/d%u/n%u", root, slot / NAMES, slot % NAMES);
}

/* The byte that write number `val` puts at `off`: never 0, and never that of another write nearby. */
static uint8_t pattern(uint32_t val, uint32_t off)
{
	uint64_t x = (uint64_t)val * 0x9e3779b97f4a7c15ull + off / 8;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return (uint8_t)((x >> (8 * (off % 8))) | 1);
}

/* ---- the model: apply one operation ------------------------------------------------------------ */

static void drop_name(unsigned slot)
{
	objs[slots[slot]].nlink--;
	slots[slot] = 0;
}

static void apply(const struct op *op)
{
	struct object *o = &objs[op->obj];

	switch (op->kind) {
	case OP_CREATE:
		*o = (struct object){ .kind = K_FILE, .mode = 0644, .nlink = 1 };
		slots[op->a] = op->obj;
		break;
	case OP_MKDIR:
		*o = (struct object){ .kind = K_DIR, .mode = 0755, .nlink = 1 };
		slots[op->a] = op->obj;
		break;
	case OP_SYMLINK:
		*o = (struct object){ .kind = K_LINK, .mode = 0777, .nlink = 1, .target = op->val };
		slots[op->a] = op->obj;
		break;
	case OP_WRITE:
		if (op->off + op->len > o->size)
			o->size = op->off + op->len;
		break;
	case OP_TRUNC:
		o->size = op->len;
		break;
	case OP_RENAME:
		if (slots[op->b])
			drop_name(op->b);
		slots[op->b] = op->obj;
		slots[op->a] = 0;
		break;
	case OP_HARDLINK:
		o->nlink++;
		slots[op->b] = op->obj;
		break;
	case OP_UNLINK:
	case OP_RMDIR:
		drop_name(op->a);
		break;
	case OP_CHMOD:
		o->mode = op->val;
		break;
	case OP_SETXATTR:
		o->xattr = op->val;
		break;
	}
}

static void replay(size_t nr)
{
	memset(slots, 0, sizeof(slots));
	for (size_t i = 0; i < nr; i++)
		apply(&ops[i]);
}

/* ---- doing one operation ----------------------------------------------------------------------- */

static bool choose(struct op *op)
{
	unsigned a = below(DIRS * NAMES), b = below(DIRS * NAMES);
	struct object *o = &objs[slots[a]];
	static uint32_t mark;

	memset(op, 0, sizeof(*op));
	op->kind = (uint8_t)below(OP_KINDS);
	if (op->kind == OP_FSYNC && below(12))
		op->kind = OP_WRITE;
	op->a = (uint16_t)a;
	op->b = (uint16_t)b;
	op->obj = slots[a];
	op->val = ++mark;
	switch (op->kind) {
	case OP_CREATE: case OP_MKDIR: case OP_SYMLINK:
		if (slots[a] || objs_nr == FILES_MAX)
			return false;
		op->obj = objs_nr;
		return true;
	case OP_WRITE:
		op->off = below(4) ? below(FILE_MAX / 2) : below(FILE_MAX / 4096) * 4096;
		op->len = below(3) ? 1 + below(9000) : 1 + below(FILE_MAX / 2);
		return slots[a] && o->kind == K_FILE;
	case OP_TRUNC:
		op->len = below(FILE_MAX / 2);
		return slots[a] && o->kind == K_FILE;
	case OP_RENAME:
		if (!slots[a] || a == b || slots[a] == slots[b])
			return false;
		return !slots[b] || (objs[slots[b]].kind == K_DIR) == (o->kind == K_DIR);
	case OP_HARDLINK:
		return slots[a] && !slots[b] && o->kind == K_FILE;
	case OP_UNLINK:
		return slots[a] && o->kind != K_DIR;
	case OP_RMDIR:
		return slots[a] && o->kind == K_DIR;
	case OP_CHMOD:
		op->val = 0400 | below(0400);
		return slots[a] && o->kind != K_LINK;
	case OP_SETXATTR:
		return slots[a] && o->kind == K_FILE;
	case OP_FSYNC:
		return slots[a] && o->kind == K_FILE;
	}
	return false;
}

static int do_write(const char *path, const struct op *op)
{
	static uint8_t buf[FILE_MAX];
	int fd = open(path, O_WRONLY), err = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	for (uint32_t i = 0; i < op->len; i++)
		buf[i] = pattern(op->val, op->off + i);
	n = pwrite(fd, buf, op->len, op->off);
	/* short: the services went away in the middle of it */
	if (n != (ssize_t)op->len)
		err = n < 0 ? -errno : -ENOTCONN;
	close(fd);
	return err;
}

static int perform(const struct op *op)
{
	char a[4096], b[4096], val[32];
	int fd, ret = 0;

	slot_path(op->a, a, sizeof(a));
	slot_path(op->b, b, sizeof(b));
	switch (op->kind) {
	case OP_CREATE:
		fd = open(a, O_CREAT | O_EXCL | O_WRONLY, 0644);
		ret = fd < 0 ? -1 : close(fd);
		break;
	case OP_MKDIR: ret = mkdir(a, 0755); break;
	case OP_SYMLINK:
		snprintf(val, sizeof(val), "t%u", op->val);
		ret = symlink(val, a);
		break;
	case OP_WRITE: return do_write(a, op);
	case OP_TRUNC: ret = truncate(a, op->len); break;
	case OP_RENAME: ret = rename(a, b); break;
	case OP_HARDLINK: ret = link(a, b); break;
	case OP_UNLINK: ret = unlink(a); break;
	case OP_RMDIR: ret = rmdir(a); break;
	case OP_CHMOD: ret = chmod(a, op->val); break;
	case OP_SETXATTR:
		snprintf(val, sizeof(val), "%u", op->val);
		ret = setxattr(a, XATTR, val, strlen(val), 0);
		break;
	case OP_FSYNC:
		fd = open(a, O_RDONLY);
		if (fd < 0)
			return -errno;
		ret = fsync(fd) < 0 ? -errno : 0;
		close(fd);
		return ret;
	}
	return ret < 0 ? -errno : 0;
}

static bool services_gone(int err)
{
	return err == -ENOTCONN || err == -ECONNABORTED || err == -ENODEV;
}

/*
 * A server that is killed while it takes a request over from the kernel can make that request end with
 * EIO (the kernel's copy to the dying process fails) before the connection is seen to be gone: such an
 * error is the cut, if what is asked next is not answered any more.
 */
static bool cut_by(int err)
{
	struct statvfs st;

	if (services_gone(err))
		return true;
	if (err != -EIO && err != -EINTR)
		return false;
	for (unsigned tries = 0; tries < 100; tries++) {
		if (statvfs(root, &st) < 0 && services_gone(-errno))
			return true;
		usleep(10000);
	}
	return false;
}

/* Operations until the services are gone; the last one may or may not have happened. */
static void load(void)
{
	for (;;) {
		struct op op;
		int err;

		if (!choose(&op))
			continue;
		if (ops_nr == ops_cap) {
			ops_cap = ops_cap ? 2 * ops_cap : 4096;
			ops = realloc(ops, ops_cap * sizeof(*ops));
			if (!ops)
				fail("no memory for the model");
		}
		ops[ops_nr++] = op;
		if (op.kind == OP_CREATE || op.kind == OP_MKDIR || op.kind == OP_SYMLINK)
			objs_nr++;
		err = perform(&op);
		if (cut_by(err))
			return;
		if (err < 0)
			fail("operation %zu (kind %d) failed although it could not: %s", ops_nr - 1, op.kind, strerror(-err));
		apply(&op);
		if (op.kind == OP_FSYNC)
			synced = ops_nr;
	}
}

/* ---- what is there ------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v + 0x9e3779b97f4a7c15ull + (h << 6) + (h >> 2);
	h *= 0xff51afd7ed558ccdull;
	return h ^ h >> 32;
}

struct seen {
	bool there;
	struct object o;
	uint64_t ino;
};
static struct seen seen[DIRS * NAMES];

static uint64_t state_hash(unsigned slot, const struct object *o)
{
	uint64_t h = mix(1, slot);

	h = mix(h, o->kind);
	h = mix(h, o->mode);
	h = mix(h, o->kind == K_FILE ? o->nlink : 0);
	h = mix(h, o->kind == K_FILE ? o->size : 0);
	h = mix(h, o->kind == K_FILE ? o->xattr : 0);
	return mix(h, o->kind == K_LINK ? o->target : 0);
}

static uint64_t look(void)
{
	uint64_t sum = 0;
	char path[4096], buf[64];
	struct stat st;
	ssize_t n;

	for (unsigned d = 0; d < DIRS; d++) {
		struct dirent *de;
		unsigned names = 0, found = 0;
		DIR *dir;

		snprintf(path, sizeof(path), "%s/d%u", root, d);
		dir = opendir(path);
		if (!dir)
			fail("%s: %s", path, strerror(errno));
		while ((de = readdir(dir)))
			names += de->d_name[0] != '.';
		closedir(dir);
		for (unsigned i = 0; i < NAMES; i++) {
			struct seen *s = &seen[d * NAMES + i];

			memset(s, 0, sizeof(*s));
			slot_path(d * NAMES + i, path, sizeof(path));
			if (lstat(path, &st) < 0) {
				if (errno != ENOENT)
					fail("%s: %s", path, strerror(errno));
				continue;
			}
			found++;
			s->there = true;
			s->ino = st.st_ino;
			s->o.kind = S_ISREG(st.st_mode) ? K_FILE : S_ISDIR(st.st_mode) ? K_DIR : K_LINK;
			s->o.mode = st.st_mode & 07777;
			s->o.nlink = (uint32_t)st.st_nlink;
			s->o.size = (uint32_t)st.st_size;
			if (s->o.kind == K_FILE && (n = getxattr(path, XATTR, buf, sizeof(buf) - 1)) > 0) {
				buf[n] = 0;
				s->o.xattr = (uint32_t)strtoul(buf, NULL, 10);
			}
			if (s->o.kind == K_LINK && (n = readlink(path, buf, sizeof(buf) - 1)) > 1) {
				buf[n] = 0;
				s->o.target = (uint32_t)strtoul(buf + 1, NULL, 10);
			}
			sum += state_hash(d * NAMES + i, &s->o);
		}
		if (names != found)
			fail("directory d%u lists %u names, %u can be looked up", d, names, found);
	}
	return sum;
}

static uint64_t model_hash(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < DIRS * NAMES; i++)
		if (slots[i])
			sum += state_hash(i, &objs[slots[i]]);
	return sum;
}

static void explain(void)
{
	for (unsigned i = 0; i < DIRS * NAMES; i++) {
		const struct object *m = &objs[slots[i]], *s = &seen[i].o;

		if (slots[i] ? !seen[i].there || state_hash(i, m) != state_hash(i, s) : seen[i].there)
			printf("# d%u/n%u: model kind %d mode %o nlink %u size %u xattr %u, there: kind %d mode %o nlink %u size %u xattr %u\n",
			       i / NAMES, i % NAMES, slots[i] ? m->kind : 0, m->mode, m->nlink, m->size, m->xattr,
			       s->kind, s->mode, s->nlink, s->size, s->xattr);
	}
}

/*
 * Each byte of slot's file: what the prefix left there, or what a later operation wrote there in place.
 * A byte that a later truncation cleared may read as zero.
 */
static void judge_contents(unsigned slot, size_t prefix)
{
	uint32_t obj = slots[slot], size = objs[obj].size;
	static uint8_t got[FILE_MAX * 2], fine[FILE_MAX * 2], want[FILE_MAX * 2];
	char path[4096];
	int fd;

	slot_path(slot, path, sizeof(path));
	fd = open(path, O_RDONLY);
	if (fd < 0 || pread(fd, got, sizeof(got), 0) != (ssize_t)size)
		fail("%s: cannot be read whole: %s", path, strerror(errno));
	close(fd);
	memset(want, 0, size);
	memset(fine, 0, size);
	for (size_t i = 0; i < ops_nr + lost_nr; i++) {
		const struct op *op = i < ops_nr ? &ops[i] : &lost[i - ops_nr];
		uint32_t end;

		if (op->obj != obj || (op->kind != OP_WRITE && op->kind != OP_TRUNC))
			continue;
		end = op->kind == OP_WRITE ? op->off + op->len : sizeof(want);
		for (uint32_t at = op->kind == OP_WRITE ? op->off : op->len; at < end && at < sizeof(want); at++) {
			uint8_t v = op->kind == OP_WRITE ? pattern(op->val, at) : 0;

			if (i < prefix)
				want[at] = v;
			else if (at < size && got[at] == v)
				fine[at] = 1;
		}
	}
	for (uint32_t at = 0; at < size; at++)
		if (got[at] != want[at] && !fine[at])
			fail("%s: byte %u is %02x: the prefix of %zu operations says %02x, and no later write put it there",
			     path, at, got[at], prefix, want[at]);
}

/*
 * The kernel may send one write(2) as several requests, split at page boundaries: each is whole or
 * absent, the system call need not be.  Whether the first part of op alone, after what stands in the
 * model, is what is there; then op becomes that part.
 */
static bool is_part_of_write(struct op *op, uint64_t there)
{
	uint32_t end = op->off + op->len, size = objs[op->obj].size;
	bool found = false;

	if (op->kind != OP_WRITE)
		return false;
	for (uint32_t at = (op->off & ~4095u) + 4096; at < end && !found; at += 4096) {
		if (at <= size)
			continue;
		objs[op->obj].size = at;
		found = model_hash() == there;
		if (found)
			op->len = at - op->off;
	}
	objs[op->obj].size = size;
	return found;
}

static void verify(unsigned round)
{
	uint64_t there = look();
	size_t k, files = 0;

	replay(synced);
	for (k = synced; k <= ops_nr; k++) {
		if (model_hash() == there)
			break;
		if (k == ops_nr)
			continue;
		if (is_part_of_write(&ops[k], there)) {
			apply(&ops[k++]);
			break;
		}
		apply(&ops[k]);
	}
	if (k > ops_nr) {
		replay(synced);
		explain();
		fail("round %u: the tree is no prefix of %zu operations that holds the %zu fsynced ones", round, ops_nr, synced);
	}
	for (unsigned i = 0; i < DIRS * NAMES; i++) {
		for (unsigned j = 0; slots[i] && j < i; j++)
			if (slots[j] && (slots[i] == slots[j]) != (seen[i].ino == seen[j].ino))
				fail("round %u: slots %u and %u are one inode on one side only", round, i, j);
		if (slots[i] && objs[slots[i]].kind == K_FILE) {
			judge_contents(i, k);
			files++;
		}
	}
	printf("ok - round %u: the first %zu of %zu operations are there, %zu were fsynced, %zu files read\n", round, k, ops_nr,
	       synced, files);
	fflush(stdout);
	lost = realloc(lost, (lost_nr + ops_nr - k + 1) * sizeof(*lost));
	if (!lost)
		fail("no memory for the model");
	memcpy(lost + lost_nr, ops + k, (ops_nr - k) * sizeof(*lost));
	lost_nr += ops_nr - k;
	ops_nr = synced = k;
}

/* Work inside: a mount that is detached meanwhile must not show what lies below it. */
static void enter(const char *dir)
{
	if (chdir(dir) < 0)
		fail("%s: %s", dir, strerror(errno));
}

int main(int argc, char **argv)
{
	char line[64], path[4096];

	if (argc != 4) {
		fprintf(stderr, "usage: crashload DIR SEED ROUNDS\n");
		return 2;
	}
	enter(argv[1]);
	rng = strtoull(argv[2], NULL, 10) * 2654435761u + 88172645463325252ull;
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(0);
	for (unsigned d = 0; d < DIRS; d++) {
		snprintf(path, sizeof(path), "%s/d%u", root, d);
		if (mkdir(path, 0755) < 0)
			fail("%s: %s", path, strerror(errno));
	}
	int fd = open(root, O_RDONLY);

	if (fd < 0 || fsync(fd) < 0)
		fail("fsync of %s: %s", root, strerror(errno));
	close(fd);
	for (unsigned round = 1; round <= (unsigned)atoi(argv[3]); round++) {
		printf("running %u\n", round);
		load();
		printf("gone %u after %zu operations\n", round, ops_nr);
		if (chdir("/") < 0 || !fgets(line, sizeof(line), stdin))
			return 1;
		enter(argv[1]);
		verify(round);
	}
	return 0;
}
