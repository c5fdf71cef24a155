/*
 * flakydisk MOUNTPOINT NAME=IMAGE...: image files that can be made to fail.
 *
 * MOUNTPOINT/NAME is the image, read, written and fsynced as it is asked for, without a cache of our own.
 * A line "NAME read|write|flush fail|heal" written to MOUNTPOINT/ctl makes those requests fail with EIO, or
 * ends that; it holds for every request that begins after the write has returned.  Reading ctl gives
 * "NAME read|write|flush COUNT" lines: how many requests have been failed.
 *
 * Runs in the foreground until it is unmounted or killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISKS_MAX	8
#define CTL_BYTES	1024

enum request { REQUEST_READ, REQUEST_WRITE, REQUEST_FLUSH, REQUESTS_NR };

static const char *const request_names[REQUESTS_NR] = { "read", "write", "flush" };

struct disk {
	char name[32];
	int fd;
	off_t size;
	atomic_bool fails[REQUESTS_NR];
	atomic_uint failed[REQUESTS_NR];
};

static struct disk disks[DISKS_MAX];
static unsigned disks_nr;

static struct disk *disk_of(const char *path)
{
	for (unsigned i = 0; i < disks_nr; i++) {
		if (strcmp(path + 1, disks[i].name) == 0)
			return &disks[i];
	}
	return NULL;
}

static bool is_ctl(const char *path)
{
	return strcmp(path, "/ctl") == 0;
}

static bool has_failed(struct disk *d, enum request r)
{
	if (!atomic_load(&d->fails[r]))
		return false;
	atomic_fetch_add(&d->failed[r], 1);
	return true;
}

/* ---- the control file ---- */

static int ctl_command(const char *buf, size_t len)
{
	char text[128] = "/", name[32], request[16], what[16];
	struct disk *d;

	if (len >= sizeof(text))
		return -EINVAL;
	memcpy(text, buf, len);
	text[len] = 0;
	if (sscanf(text, "%31s %15s %15s", name, request, what) != 3)
		return -EINVAL;
	snprintf(text, sizeof(text), "/%s", name);
	d = disk_of(text);
	if (!d || (strcmp(what, "fail") != 0 && strcmp(what, "heal") != 0))
		return -EINVAL;
	for (unsigned r = 0; r < REQUESTS_NR; r++) {
		if (strcmp(request, request_names[r]) == 0) {
			atomic_store(&d->fails[r], strcmp(what, "fail") == 0);
			return (int)len;
		}
	}
	return -EINVAL;
}

static int ctl_read(char *buf, size_t len, off_t off)
{
	char text[CTL_BYTES];
	size_t at = 0;

	for (unsigned i = 0; i < disks_nr; i++) {
		for (unsigned r = 0; r < REQUESTS_NR; r++)
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s %s %u\n", disks[i].name,
					       request_names[r], atomic_load(&disks[i].failed[r]));
	}
	if ((size_t)off >= at)
		return 0;
	if (len > at - (size_t)off)
		len = at - (size_t)off;
	memcpy(buf, text + off, len);
	return (int)len;
}

/* ---- what the kernel asks ---- */

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	struct disk *d = disk_of(path);

	(void)fi;
	st->st_nlink = 1;
	st->st_mode = S_IFREG | 0600;
	if (d)
		st->st_size = d->size;
	else if (strcmp(path, "/") == 0)
		st->st_mode = S_IFDIR | 0755;
	else if (!is_ctl(path))
		return -ENOENT;
	return 0;
}

static int do_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	fi->direct_io = 1;
	return 0;
}

/* A shell opens the control file for writing with O_TRUNC. */
static int do_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	(void)size;
	(void)fi;
	return is_ctl(path) ? 0 : -EPERM;
}

static int do_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct disk *d = disk_of(path);
	ssize_t n;

	(void)fi;
	if (!d)
		return ctl_read(buf, len, off);
	if (has_failed(d, REQUEST_READ))
		return -EIO;
	n = pread(d->fd, buf, len, off);
	return n < 0 ? -errno : (int)n;
}

static int do_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct disk *d = disk_of(path);
	ssize_t n;

	(void)fi;
	if (!d)
		return ctl_command(buf, len);
	if (has_failed(d, REQUEST_WRITE))
		return -EIO;
	if (off + (off_t)len > d->size)
		return -ENOSPC;
	n = pwrite(d->fd, buf, len, off);
	return n < 0 ? -errno : (int)n;
}

static int do_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	struct disk *d = disk_of(path);

	(void)datasync;
	(void)fi;
	if (!d)
		return 0;
	if (has_failed(d, REQUEST_FLUSH))
		return -EIO;
	return fdatasync(d->fd) < 0 ? -errno : 0;
}

static const struct fuse_operations operations = {
	.getattr = do_getattr,
	.open = do_open,
	.truncate = do_truncate,
	.read = do_read,
	.write = do_write,
	.fsync = do_fsync,
};

static int add_disk(const char *arg)
{
	const char *path = strchr(arg, '=');
	struct disk *d = &disks[disks_nr];
	struct stat st;

	if (!path || path == arg || (size_t)(path - arg) >= sizeof(d->name) || disks_nr == DISKS_MAX)
		return -EINVAL;
	memcpy(d->name, arg, (size_t)(path - arg));
	d->fd = open(path + 1, O_RDWR | O_CLOEXEC);
	if (d->fd < 0 || fstat(d->fd, &st) < 0)
		return -errno;
	d->size = st.st_size;
	disks_nr++;
	return 0;
}

int main(int argc, char **argv)
{
	char *args[] = { argv[0], "-f", "-o", "fsname=flakydisk", argc > 1 ? argv[1] : "", NULL };
	int ret;

	if (argc < 3) {
		fprintf(stderr, "usage: flakydisk MOUNTPOINT NAME=IMAGE...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		ret = add_disk(argv[i]);
		if (ret < 0) {
			fprintf(stderr, "flakydisk: %s: %s\n", argv[i], strerror(-ret));
			return 1;
		}
	}
	return fuse_main(5, args, &operations, NULL);
}
