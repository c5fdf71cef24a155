/*
 * Who else uses a device.  The kernel keeps block devices from each other (O_EXCL: mounts, swap,
 * device mapper, RAID, also between a disk and its partitions), and blockd's flock is on the file
 * or device that it was given.  Neither reaches through a loop device: whoever has mounted one says
 * nothing of the file under it, and a lock of the file says nothing to who opens the loop device.
 * So both ways are walked here: down, from a loop device to what it is over, and at each level up,
 * to all other loop devices over the same.  Files are compared by device and inode number, so a
 * hard link or a bind mount is no way around it.
 *
 * Promises: a device that is used through a loop device of this host is refused, with its name and
 * its user, before anything is read of it.  Who is to write holds the loop devices over it that
 * were found free until it is done.  Loop devices over other parts of the same file have nothing to
 * do with each other (partitions of a loop device are taken for all of it), and one that is bound
 * and that nobody has opened exclusively is not in use.  For a given file, a loop device over it
 * that cannot be looked at (no node for it in /dev, no right to open it) counts as in use; for a
 * given loop device, others over the same file that have no node here are somebody else's (another
 * container's) and are left to what the volume itself says.
 */
#include "tools/scoutfsctl/in_use.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <linux/loop.h>

#include "mountinfo.h"
#include "tools/scoutfsctl/commands.h"

#define HOLDER_STEP_MS	20u
#define HOLDER_DEAD_MS	30000u	/* as blockd waits for the one before it */
#define HOLDER_GONE_MS	1000u	/* nobody is known to hold it (any more), or somebody who only reads */
#define DEPTH_MAX	8u	/* loop devices over loop devices */
#define USERS_BYTES	512

/* ---- who it is ------------------------------------------------------------------------------- */

/*
 * Who holds an flock on the file, from /proc/locks; 0 if that cannot be told.  Some file systems
 * show another device number there than stat does, so the inode alone is the second choice.
 */
static pid_t flock_holder_how(dev_t dev, ino_t ino, bool guess_too, bool *is_shared)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256];
	pid_t guess = 0;

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		bool is_it;
		unsigned maj, min;
		unsigned long inode;
		char how[8];
		int pid;

		if (sscanf(line, "%*d: FLOCK %*s %7s %d %x:%x:%lu", how, &pid, &maj, &min, &inode) != 5 ||
		    inode != ino || pid <= 0)
			continue;
		is_it = maj == major(dev) && min == minor(dev);
		if (!is_it && !guess_too)
			continue;
		guess = pid;
		*is_shared = strcmp(how, "READ") == 0;
		if (is_it)
			break;
	}
	fclose(f);
	return guess;
}

static pid_t flock_holder(dev_t dev, ino_t ino, bool guess_too)
{
	bool unused;

	return flock_holder_how(dev, ino, guess_too, &unused);
}

static bool is_dead(pid_t pid)
{
	char path[64], state = 'X';
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT;
	if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 'X';
	fclose(f);
	return state == 'Z' || state == 'X';
}

/* The first line of a file, without its end; false: there is none. */
static bool read_line(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(buf, (int)len, f) != NULL;
	fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

static bool is_mounted(dev_t dev, char *buf, size_t len)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[2 * PATH_MAX], at[PATH_MAX];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		unsigned maj, min;

		found = sscanf(line, "%*d %*d %u:%u %*s %4095s", &maj, &min, at) == 3 &&
			makedev(maj, min) == dev;
	}
	fclose(f);
	if (found) {
		mountinfo_unescape(at);
		snprintf(buf, len, "mounted at %.200s", at);
	}
	return found;
}

static bool is_swap(dev_t dev)
{
	FILE *f = fopen("/proc/swaps", "re");
	char line[2 * PATH_MAX], path[PATH_MAX];
	bool found = false;
	struct stat st;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%4095s", path) != 1)
			continue;
		mountinfo_unescape(path);
		found = stat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == dev;
	}
	fclose(f);
	return found;
}

/* What sits on the block device: a device of the mapper, or of a RAID. */
static bool has_holder(const char *sys, char *buf, size_t len)
{
	char dir[256], path[PATH_MAX], name[128];
	struct dirent *e;
	bool found = false;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/holders", sys);
	d = opendir(dir);
	if (!d)
		return false;
	while (!found && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		found = true;
		snprintf(path, sizeof(path), "/sys/class/block/%s/dm/name", e->d_name);
		if (read_line(path, name, sizeof(name)))
			snprintf(buf, len, "part of %.60s, %.120s of the device mapper", e->d_name,
				 name);
		else
			snprintf(buf, len, "part of %.60s", e->d_name);
	}
	closedir(d);
	return found;
}

static bool bdev_users_of_one(dev_t dev, char *buf, size_t len)
{
	char sys[64];

	snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	if (has_holder(sys, buf, len) || is_mounted(dev, buf, len))
		return true;
	if (!is_swap(dev))
		return false;
	snprintf(buf, len, "swap space");
	return true;
}

/* Who uses a block device or one of its partitions, in words; false if that cannot be told. */
static bool bdev_users(dev_t dev, char *buf, size_t len)
{
	char sys[64], path[PATH_MAX], text[32], part[USERS_BYTES / 2];
	unsigned maj, min;
	struct dirent *e;
	bool found = false;
	DIR *d;

	if (bdev_users_of_one(dev, buf, len))
		return true;
	snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	d = opendir(sys);
	if (!d)
		return false;
	while (!found && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s/partition", sys, e->d_name);
		if (e->d_name[0] == '.' || access(path, F_OK) < 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s/dev", sys, e->d_name);
		found = read_line(path, text, sizeof(text)) &&
			sscanf(text, "%u:%u", &maj, &min) == 2 &&
			bdev_users_of_one(makedev(maj, min), part, sizeof(part));
		if (found)
			snprintf(buf, len, "its partition %.60s is %.200s", e->d_name, part);
	}
	closedir(d);
	return found;
}

bool in_use_wait_for_dead(const struct stat *st, struct in_use_waited *w)
{
	struct timespec step = { .tv_nsec = HOLDER_STEP_MS * 1000000 };
	bool is_shared = false;
	pid_t pid = flock_holder_how(st->st_dev, st->st_ino, true, &is_shared);
	char text[USERS_BYTES];

	if (pid && !is_dead(pid)) {
		if (!is_shared)
			return false;
		pid = 0;	/* udevd looks at what losetup has made just now: soon nobody will be known */
	}
	if (!pid && S_ISBLK(st->st_mode) && bdev_users(st->st_rdev, text, sizeof(text)))
		return false;
	if (pid ? w->dead_ms >= HOLDER_DEAD_MS : w->gone_ms >= HOLDER_GONE_MS)
		return false;
	nanosleep(&step, NULL);
	*(pid ? &w->dead_ms : &w->gone_ms) += HOLDER_STEP_MS;
	return true;
}

static const char *comm_of(pid_t pid, char *buf, size_t len)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (!read_line(path, buf, len) || !buf[0])
		snprintf(buf, len, "name unknown");
	return buf;
}

int in_use_say(const char *verb, const char *path, const struct stat *st)
{
	pid_t pid = flock_holder(st->st_dev, st->st_ino, true);
	char text[USERS_BYTES];

	if (pid)
		say_error(verb, "%s is in use by process %d (%s); stop it first", path, (int)pid,
			  comm_of(pid, text, sizeof(text)));
	else if (S_ISBLK(st->st_mode) && bdev_users(st->st_rdev, text, sizeof(text)))
		say_error(verb, "%s is in use (%s); release it first", path, text);
	else
		say_error(verb,
			  "%s is in use (mounted, or held by another program); release it first",
			  path);
	return -EBUSY;
}

/* ---- loop devices ---------------------------------------------------------------------------- */

/* One file or block device; a block device is known by its number, a file by where it lies. */
struct object {
	bool is_bdev;
	dev_t dev;
	ino_t ino;
};

/* The part of an object that is looked at; its end may lie beyond that of the object. */
struct part {
	uint64_t start, end;
};

struct claim_ctx {
	struct device *d;
	enum device_use use;
	const char *verb;
	bool is_loop;		/* what was given is one */
};

static int keep_claim(struct device *d, int fd, const char *verb)
{
	int *more = reallocarray(d->claims, d->claims_nr + 1, sizeof(*more));

	if (!more) {
		say_error(verb, "no memory to hold what is over %s", d->path);
		close(fd);
		return -ENOMEM;
	}
	d->claims = more;
	d->claims[d->claims_nr++] = fd;
	return 0;
}

void in_use_release(struct device *d)
{
	for (unsigned i = 0; i < d->claims_nr; i++)
		close(d->claims[i]);
	free(d->claims);
	d->claims = NULL;
	d->claims_nr = 0;
}

static struct object object_of(const struct stat *st)
{
	if (S_ISBLK(st->st_mode))
		return (struct object){ .is_bdev = true, .dev = st->st_rdev };
	return (struct object){ .dev = st->st_dev, .ino = st->st_ino };
}

/* The kernel's numbers of devices in struct loop_info64 are of 32 bits. */
static dev_t dev_of_kernel(uint64_t n)
{
	return makedev((n & 0xfff00) >> 8, (n & 0xff) | ((n >> 12) & 0xfff00));
}

/* What a loop device is over, and which part of that. */
static int loop_below(int fd, struct object *below, struct part *part)
{
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
		return -errno;
	part->start = info.lo_offset;
	part->end = info.lo_sizelimit && info.lo_sizelimit < UINT64_MAX - info.lo_offset
			    ? info.lo_offset + info.lo_sizelimit
			    : UINT64_MAX;
	if (info.lo_rdevice)
		*below = (struct object){ .is_bdev = true, .dev = dev_of_kernel(info.lo_rdevice) };
	else
		*below = (struct object){ .dev = dev_of_kernel(info.lo_device),
					  .ino = info.lo_inode };
	return 0;
}

static bool is_same(const struct object *a, const struct object *b)
{
	return a->is_bdev == b->is_bdev && a->dev == b->dev && (a->is_bdev || a->ino == b->ino);
}

/* Open the node of a block device, which is in `path` then: a descriptor or a negative errno. */
static int open_bdev(const char *name, dev_t dev, int flags, char *path, size_t len)
{
	struct stat st;
	int fd;

	snprintf(path, len, "/dev/%s", name);
	if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode) || st.st_rdev != dev)
		snprintf(path, len, "/dev/block/%u:%u", major(dev), minor(dev));
	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISBLK(st.st_mode) || st.st_rdev != dev)
		return -ENODEV;
	fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	return fd < 0 ? -errno : fd;
}

static int claim_above(struct claim_ctx *ctx, const struct object *o, const struct part *part,
		       dev_t except, unsigned depth);

/* A loop device is over what we use, and nobody may use it. */
static int claim_loop(struct claim_ctx *ctx, const char *name, dev_t dev, unsigned depth)
{
	struct object o = { .is_bdev = true, .dev = dev };
	struct part all = { .end = UINT64_MAX };
	struct in_use_waited w = { 0 };
	char path[PATH_MAX], text[USERS_BYTES];
	struct stat st;
	int fd, ret;

	do {
		fd = open_bdev(name, dev, O_EXCL, path, sizeof(path));
	} while (fd == -EBUSY && stat(path, &st) == 0 && in_use_wait_for_dead(&st, &w));
	if (fd == -EBUSY) {
		pid_t pid = stat(path, &st) == 0 ? flock_holder(st.st_dev, st.st_ino, true) : 0;
		char comm[64];

		if (pid)
			snprintf(text, sizeof(text), "by process %d (%s)", (int)pid,
				 comm_of(pid, comm, sizeof(comm)));
		else if (!bdev_users(dev, text, sizeof(text)))
			snprintf(text, sizeof(text), "mounted, or held by another program");
		say_error(ctx->verb,
			  "%s is in use through the loop device %s, which is over it (%s); release "
			  "that first, and detach it (losetup -d %s)",
			  ctx->d->path, path, text, path);
		return -EBUSY;
	}
	if (fd == -ENXIO || fd == -ENOENT)
		return 0;	/* gone in the meantime */
	if (fd < 0) {
		say_error(ctx->verb,
			  "could not see whether %s is in use through the loop device %s: %s; "
			  "detach that (losetup -d)",
			  ctx->d->path, path, strerror(-fd));
		return fd;
	}
	ret = claim_above(ctx, &o, &all, 0, depth + 1);
	if (ret < 0 || ctx->use != DEVICE_WRITE) {
		/* Several may read at the same time what nobody uses. */
		close(fd);
		return ret;
	}
	return keep_claim(ctx->d, fd, ctx->verb);
}

/* The file that a loop device is bound to, by the kernel's name for it; false: to none. */
static bool read_bound(const char *name, dev_t *dev, char *backing, size_t len)
{
	char path[PATH_MAX], text[32];
	unsigned maj, min;

	snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", name);
	if (!read_line(path, backing, len))
		return false;
	snprintf(path, sizeof(path), "/sys/block/%s/dev", name);
	if (!read_line(path, text, sizeof(text)) || sscanf(text, "%u:%u", &maj, &min) != 2)
		return false;
	*dev = makedev(maj, min);
	return true;
}

/* One block device of /sys/block: if it is a loop device over the part of the object. */
static int claim_if_over(struct claim_ctx *ctx, const char *name, const struct object *o,
			 const struct part *part, dev_t except, unsigned depth)
{
	char path[PATH_MAX], backing[PATH_MAX];
	struct object below;
	struct part its;
	struct stat st;
	dev_t dev;
	int fd;

	if (!read_bound(name, &dev, backing, sizeof(backing)) || dev == except)
		return 0;
	fd = open_bdev(name, dev, 0, path, sizeof(path));
	if (fd >= 0) {
		bool is_over = loop_below(fd, &below, &its) == 0 && is_same(&below, o) &&
			       its.start < part->end && part->start < its.end;

		close(fd);
		return is_over ? claim_loop(ctx, name, dev, depth) : 0;
	}
	if (ctx->is_loop || stat(backing, &st) < 0)
		return 0;
	below = object_of(&st);
	if (!is_same(&below, o))
		return 0;
	say_error(ctx->verb,
		  "%s has the loop device %s over it, which cannot be opened to see whether it is "
		  "in use; detach that first (losetup -d), or run this as root where it has a "
		  "node in /dev",
		  ctx->d->path, name);
	return -EBUSY;
}

/* All loop devices over a part of an object, but one. */
static int claim_above(struct claim_ctx *ctx, const struct object *o, const struct part *part,
		       dev_t except, unsigned depth)
{
	DIR *dir = depth < DEPTH_MAX ? opendir("/sys/block") : NULL;
	struct dirent *e;
	int ret = 0;

	if (!dir)
		return 0;
	while (ret == 0 && (e = readdir(dir)))
		ret = claim_if_over(ctx, e->d_name, o, part, except, depth);
	closedir(dir);
	return ret;
}

/* The disk that a partition is of; the device itself if it is none. */
static dev_t whole_of(dev_t dev)
{
	char path[128], text[32];
	unsigned maj, min;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(dev), minor(dev));
	if (access(path, F_OK) < 0)
		return dev;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(dev), minor(dev));
	if (!read_line(path, text, sizeof(text)) || sscanf(text, "%u:%u", &maj, &min) != 2)
		return dev;
	return makedev(maj, min);
}

static int say_below(struct claim_ctx *ctx, const char *backing, dev_t dev, ino_t ino)
{
	pid_t pid = flock_holder(dev, ino, false);
	char comm[64];

	if (pid == getpid())
		say_error(ctx->verb,
			  "%s is a loop device over %s, which is the other device; a volume needs "
			  "two",
			  ctx->d->path, backing);
	else if (pid)
		say_error(ctx->verb,
			  "%s is a loop device over %s, which is in use by process %d (%s); stop "
			  "it first",
			  ctx->d->path, backing, (int)pid, comm_of(pid, comm, sizeof(comm)));
	else
		say_error(ctx->verb,
			  "%s is a loop device over %s, which is in use; release it first",
			  ctx->d->path, backing);
	return -EBUSY;
}

/*
 * Whether what a loop device is over is used without it.  It is looked for by the path that the
 * kernel has for it; *fd is it, or -1 where the path leads to something else or nowhere (it was
 * removed, or lies in another container): locks are looked for by its numbers then.  Nothing is
 * held: another loop device may be over another part of it.
 */
static int look_below(struct claim_ctx *ctx, dev_t loop, const struct object *below, int *fd)
{
	char sys[128], backing[PATH_MAX];
	struct in_use_waited w = { 0 };
	struct object o;
	struct stat st;
	int ret;

	*fd = -1;
	snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u/loop/backing_file", major(loop),
		 minor(loop));
	if (!read_line(sys, backing, sizeof(backing)))
		return 0;
	if (stat(backing, &st) < 0)
		memset(&st, 0, sizeof(st));
	o = object_of(&st);
	if (!is_same(&o, below)) {
		if (!below->is_bdev && flock_holder(below->dev, below->ino, false))
			return say_below(ctx, backing, below->dev, below->ino);
		return 0;
	}
	do {
		*fd = open(backing, O_RDONLY | O_CLOEXEC | (o.is_bdev ? O_EXCL : 0));
		ret = *fd < 0 ? -errno : 0;
		if (ret == 0 &&
		    flock(*fd, (ctx->use == DEVICE_WRITE ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
			ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
			close(*fd);
			*fd = -1;
		}
	} while (ret == -EBUSY && in_use_wait_for_dead(&st, &w));
	if (ret == -EBUSY)
		return say_below(ctx, backing, st.st_dev, st.st_ino);
	if (ret < 0)
		say_error(ctx->verb,
			  "could not see whether %s, under the loop device %s, is in use: %s",
			  backing, ctx->d->path, strerror(-ret));
	return ret;
}

/* Down from a loop device, level by level; at each the others that are over the same. */
static int look_down(struct claim_ctx *ctx, struct object o)
{
	struct part part = { .end = UINT64_MAX };
	int fd = ctx->d->fd, ret = 0;

	for (unsigned depth = 0; ret == 0 && depth < DEPTH_MAX && o.is_bdev && fd >= 0; depth++) {
		dev_t whole = whole_of(o.dev);
		struct object below;
		struct part its;
		int lower;

		if (loop_below(fd, &below, &its) < 0)
			break;
		part.end = part.end < its.end - its.start ? its.start + part.end : its.end;
		part.start =
			part.start < UINT64_MAX - its.start ? its.start + part.start : UINT64_MAX;
		ret = look_below(ctx, whole, &below, &lower);
		if (fd != ctx->d->fd)
			close(fd);
		fd = lower;
		if (ret == 0)
			ret = claim_above(ctx, &below, &part, whole, 0);
		o = below;
	}
	if (fd >= 0 && fd != ctx->d->fd)
		close(fd);
	return ret;
}

int in_use_claim(struct device *d, const struct stat *st, enum device_use use, const char *verb)
{
	struct claim_ctx ctx = { .d = d, .use = use, .verb = verb };
	struct object o = object_of(st), below;
	struct part all = { .end = UINT64_MAX }, its;
	int ret;

	if (use == DEVICE_PEEK)
		return 0;
	ctx.is_loop = d->is_bdev && loop_below(d->fd, &below, &its) == 0;
	ret = claim_above(&ctx, &o, &all, 0, 0);
	if (ret == 0 && ctx.is_loop)
		ret = look_down(&ctx, o);
	if (ret < 0)
		in_use_release(d);
	return ret;
}
