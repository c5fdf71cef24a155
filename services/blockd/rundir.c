/*
 * The runtime directory: the pool file, and small files replaced whole.
 *
 * The pool is made under another name, allocated to its full size and only then given its own, so a
 * `pool` is always whole: whoever maps it never meets a page that a full tmpfs refuses (that would be
 * a SIGBUS).  It is never cut or emptied: an fsd's unwritten file data may be in it.
 */
#include "blockd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define POOL_NAME	"pool"
#define POOL_NAME_NEW	"pool.new"

int rundir_path(char *buf, const char *dir, const char *name)
{
	int n = snprintf(buf, PATH_MAX, "%s/%s", dir, name);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int rundir_replace(const char *dir, const char *name, const char *text, size_t len)
{
	char path[PATH_MAX];
	char temp[PATH_MAX + 8];
	ssize_t n;
	int fd;
	int ret;

	ret = rundir_path(path, dir, name);
	if (ret < 0)
		return ret;
	snprintf(temp, sizeof(temp), "%s.new", path);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	n = write(fd, text, len);
	if (n != (ssize_t)len)
		ret = n < 0 ? -errno : -ENOSPC;
	else if (fdatasync(fd) < 0)
		ret = -errno;
	if (close(fd) < 0 && ret == 0)
		ret = -errno;
	if (ret == 0 && rename(temp, path) < 0)
		ret = -errno;
	if (ret < 0)
		unlink(temp);
	return ret;
}

int rundir_check(const char *dir)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;
	int ret = 0;

	if (stat(dir, &st) < 0)
		ret = -errno;
	else if (!S_ISDIR(st.st_mode))
		ret = -ENOTDIR;
	if (ret < 0) {
		log_err("runtime_dir %s: %s; make it (a tmpfs is mounted there normally)", dir,
			strerror(-ret));
		return ret;
	}
	snprintf(path, sizeof(path), "%s/.blockd-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0) {
		ret = -errno;
		log_err("runtime_dir %s: no file can be made in it: %s; it must be writable", dir,
			strerror(-ret));
		return ret;
	}
	unlink(path);
	close(fd);
	return 0;
}

/* A new pool file under its own name, or nothing. */
static int pool_make(const char *dir, const char *path, uint64_t bytes)
{
	char temp[PATH_MAX];
	int fd;
	int ret;

	ret = rundir_path(temp, dir, POOL_NAME_NEW);
	if (ret < 0)
		return ret;
	/* One that a killed start left has no data: it never had its name. */
	unlink(temp);
	fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (fallocate(fd, 0, 0, (off_t)bytes) < 0)
		ret = -errno;
	else if (rename(temp, path) < 0)
		ret = -errno;
	if (ret < 0) {
		unlink(temp);
		close(fd);
		return ret;
	}
	return fd;
}

int pool_open(struct pool *p, const char *dir, uint64_t bytes)
{
	char path[PATH_MAX];
	struct stat st;
	int ret;

	memset(p, 0, sizeof(*p));
	p->fd = -1;
	p->bytes = bytes;
	ret = rundir_path(path, dir, POOL_NAME);
	if (ret < 0) {
		log_err("runtime_dir %s: too long a name", dir);
		return ret;
	}
	p->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (p->fd < 0 && errno == ENOENT) {
		p->fd = pool_make(dir, path, bytes);
		if (p->fd < 0) {
			log_err("%s: %llu bytes cannot be allocated: %s; make the tmpfs on runtime_dir "
				"larger (cache_size + pool_size + 16 MiB) or pool_size smaller", path,
				(unsigned long long)bytes, strerror(-p->fd));
			return p->fd;
		}
		p->is_new = true;
	} else if (p->fd < 0) {
		ret = -errno;
		log_err("%s: %s", path, strerror(-ret));
		return ret;
	}

	if (fstat(p->fd, &st) < 0) {
		ret = -errno;
		log_err("%s: %s", path, strerror(-ret));
	} else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes) {
		ret = -EINVAL;
		log_err("%s: has %llu bytes and pool_size says %llu; it may hold data not yet written: "
			"unmount cleanly with the old pool_size, then remove it", path,
			(unsigned long long)st.st_size, (unsigned long long)bytes);
	} else if (fallocate(p->fd, 0, 0, (off_t)bytes) < 0) {
		/* Keeps what is there and gives pages to what is not. */
		ret = -errno;
		log_err("%s: %llu bytes cannot be allocated: %s; make the tmpfs on runtime_dir larger",
			path, (unsigned long long)bytes, strerror(-ret));
	} else {
		p->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
		if (p->map == MAP_FAILED) {
			ret = -errno;
			p->map = NULL;
			log_err("%s: cannot be mapped: %s", path, strerror(-ret));
		}
	}
	if (ret < 0)
		pool_close(p, dir, p->is_new);
	return ret;
}

void pool_close(struct pool *p, const char *dir, bool forget)
{
	char path[PATH_MAX];

	if (p->map)
		munmap(p->map, p->bytes);
	if (p->fd >= 0) {
		close(p->fd);
		if (forget && rundir_path(path, dir, POOL_NAME) == 0)
			unlink(path);
	}
	p->map = NULL;
	p->fd = -1;
}
