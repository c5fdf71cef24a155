/*
 * Making, sharing and recording the instance's rid.
 *
 * RUNTIME_DIR/rid appears whole or not at all: it is written under another name and linked, which
 * fails when somebody else was first; then theirs is read.  STATE_DIR/rids is append-only, one line
 * "rid fsid seconds" a mount; it is changed under a flock of its own and fsynced, file and
 * directory, before a rid is given to a caller.  Services of root and of another user share it: what root
 * makes there belongs to whom the directory belongs to.  A line torn by a power cut is not a rid that
 * anybody has used, so the next append begins with a newline and readers skip what does not parse.
 * When the file has grown to RECORD_LINES_MAX lines its older half is dropped.
 */
#include "instance.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "format/format.h"
#include "log.h"

#define RID_LINE_BYTES		17	/* 16 hex digits and a newline */
#define RECORD_LINES_MAX	8192u
#define RECORD_LINE_BYTES	80

int instance_check_runtime_dir(const struct instance_conf *conf)
{
	struct stat st;
	int ret = 0;

	if (stat(conf->runtime_dir, &st) < 0)
		ret = -errno;
	else if (!S_ISDIR(st.st_mode))
		ret = -ENOTDIR;
	else if (access(conf->runtime_dir, W_OK | X_OK) < 0)
		ret = -errno;
	if (ret < 0)
		log_err("runtime directory %s: %s; make it (scoutfsctl runtime start does) or set runtime_dir",
			conf->runtime_dir, strerror(-ret));
	return ret;
}

static bool rid_is_valid(uint64_t rid)
{
	return rid != 0 && rid != UINT64_MAX;
}

static int write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* 0; -ENOENT: none yet; -EBADMSG. */
static int read_rid(const char *path, uint64_t *rid)
{
	char text[RID_LINE_BYTES + 1];
	char *end;
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text));
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return (int)n;
	if (n != RID_LINE_BYTES || text[RID_LINE_BYTES - 1] != '\n')
		return -EBADMSG;
	text[RID_LINE_BYTES - 1] = 0;
	if (strspn(text, "0123456789abcdef") != RID_LINE_BYTES - 1)
		return -EBADMSG;
	*rid = strtoull(text, &end, 16);
	return rid_is_valid(*rid) ? 0 : -EBADMSG;
}

/* Offer a new rid; 0 also when somebody else was first. */
static int make_rid(const struct instance_conf *conf, const char *path)
{
	char tmp[CONF_PATH_BYTES + 64], text[RID_LINE_BYTES + 1];
	uint64_t rid = 0;
	int ret, fd;

	while (!rid_is_valid(rid)) {
		if (getrandom(&rid, sizeof(rid), 0) != sizeof(rid) && errno != EINTR)
			return -errno;
	}
	snprintf(tmp, sizeof(tmp), "%s/.rid.%016" PRIx64, conf->runtime_dir, rid);
	snprintf(text, sizeof(text), "%016" PRIx64 "\n", rid);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	ret = write_all(fd, text, RID_LINE_BYTES);
	if (close(fd) < 0 && ret == 0)
		ret = -errno;
	if (ret == 0 && link(tmp, path) < 0 && errno != EEXIST)
		ret = -errno;
	unlink(tmp);
	return ret;
}

/*
 * The services are not of one user: each must come through to the record, whoever of them is the first.  What root makes is
 * given to whom the runtime directory belongs, as the record in it is (give_to_dir_owner()).
 */
static int make_state_dir(const struct instance_conf *conf)
{
	const bool is_root = geteuid() == 0;
	char dir[CONF_PATH_BYTES];
	struct stat st;

	if (is_root && stat(conf->runtime_dir, &st) < 0)
		return -errno;
	snprintf(dir, sizeof(dir), "%s", conf->state_dir);
	for (char *p = dir + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	if (mkdir(dir, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	return is_root && chown(dir, st.st_uid, st.st_gid) < 0 ? -errno : 0;
}

/* For the record only: who it was; 0 when the device cannot tell (blockd says why, and better). */
static uint64_t read_fsid(const struct instance_conf *conf)
{
	struct disk_header hdr;
	uint64_t fsid = 0;
	int fd;

	fd = open(conf->meta_device, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (pread(fd, &hdr, sizeof(hdr), (off_t)(SUPER_BLKNO * SMALL_SIZE)) ==
		    (ssize_t)sizeof(hdr) &&
	    le32_get(hdr.magic) == MAGIC_SUPER)
		fsid = le64_get(hdr.fsid);
	close(fd);
	return fsid;
}

/* A file that root has made in the state directory must be the other services' too. */
static int give_to_dir_owner(const struct instance_conf *conf, int fd)
{
	struct stat dir, st;

	if (geteuid() != 0)
		return 0;
	if (stat(conf->state_dir, &dir) < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_uid == dir.st_uid && st.st_gid == dir.st_gid)
		return 0;
	return fchown(fd, dir.st_uid, dir.st_gid) < 0 ? -errno : 0;
}

/*
 * A file of the state directory, whose owner may be another user than this process's and is not trusted with what this one
 * may do: -ELOOP for a symlink, -EPERM for what is no file or has another name, too.
 */
static int open_own(const struct instance_conf *conf, const char *path, int flags, mode_t mode, int *fd)
{
	struct stat st;
	int ret;

	*fd = open(path, flags | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode);
	if (*fd < 0)
		return -errno;
	if (fstat(*fd, &st) < 0)
		ret = -errno;
	else
		ret = S_ISREG(st.st_mode) && st.st_nlink == 1 ? give_to_dir_owner(conf, *fd) : -EPERM;
	if (ret < 0)
		close(*fd);
	return ret;
}

static int open_record(const struct instance_conf *conf, const char *path, FILE **f)
{
	int fd, ret = open_own(conf, path, O_RDWR | O_APPEND, 0644, &fd);

	if (ret < 0)
		return ret;
	*f = fdopen(fd, "a+");
	if (*f)
		return 0;
	ret = -errno;
	close(fd);
	return ret;
}

static bool line_has_rid(const char *line, uint64_t rid)
{
	uint64_t x, fsid;

	return sscanf(line, "%16" SCNx64 " %16" SCNx64, &x, &fsid) == 2 && x == rid;
}

/* Whether rid is in the open record; *lines is how many lines there are. */
static int record_find(FILE *f, uint64_t rid, bool *found, unsigned *lines)
{
	char line[RECORD_LINE_BYTES];

	*found = false;
	*lines = 0;
	rewind(f);
	while (fgets(line, sizeof(line), f)) {
		*found = *found || line_has_rid(line, rid);
		(*lines)++;
	}
	return ferror(f) ? -EIO : 0;
}

/* Write the younger half of the record into a new file, which takes its place. */
static int record_halve(const struct instance_conf *conf, FILE *f, unsigned lines)
{
	char path[CONF_PATH_BYTES + 16], tmp[CONF_PATH_BYTES + 16], line[RECORD_LINE_BYTES];
	unsigned i = 0;
	FILE *out;
	int ret;

	snprintf(path, sizeof(path), "%s/rids", conf->state_dir);
	snprintf(tmp, sizeof(tmp), "%s/rids.new", conf->state_dir);
	unlink(tmp);	/* of a process that was killed */
	ret = open_record(conf, tmp, &out);
	if (ret < 0)
		return ret;
	rewind(f);
	while (fgets(line, sizeof(line), f)) {
		if (i++ >= lines / 2 && fputs(line, out) < 0)
			ret = -EIO;
	}
	if (ferror(f) || fflush(out) != 0 || fsync(fileno(out)) < 0)
		ret = -EIO;
	if (fclose(out) != 0)
		ret = -EIO;
	if (ret == 0 && rename(tmp, path) < 0)
		ret = -errno;
	if (ret < 0)
		unlink(tmp);
	return ret;
}

/* The caller holds the lock. */
static int record_append(const struct instance_conf *conf, uint64_t rid)
{
	char path[CONF_PATH_BYTES + 16];
	char line[RECORD_LINE_BYTES];
	unsigned lines;
	bool found;
	FILE *f;
	int ret;

	snprintf(path, sizeof(path), "%s/rids", conf->state_dir);
	ret = open_record(conf, path, &f);
	if (ret < 0)
		return ret;
	ret = record_find(f, rid, &found, &lines);
	if (ret == 0 && !found && lines >= RECORD_LINES_MAX) {
		ret = record_halve(conf, f, lines);
		fclose(f);
		if (ret < 0)
			return ret;
		ret = open_record(conf, path, &f);
		if (ret < 0)
			return ret;
	}
	if (ret == 0 && !found) {
		char last = '\n';

		if (fseek(f, -1, SEEK_END) == 0 && fread(&last, 1, 1, f) != 1)
			last = '\n';
		snprintf(line, sizeof(line), "%s%016" PRIx64 " %016" PRIx64 " %lld\n",
			 last == '\n' ? "" : "\n", rid, read_fsid(conf),
			 (long long)clock_real().tv_sec);
		ret = write_all(fileno(f), line, strlen(line));
	}
	/* Also when it was found: the writer may have died before its fsync. */
	if (ret == 0 && fsync(fileno(f)) < 0)
		ret = -errno;
	fclose(f);
	if (ret == 0)
		ret = sync_dir(conf->state_dir);
	return ret;
}

static int record_rid(const struct instance_conf *conf, uint64_t rid)
{
	char path[CONF_PATH_BYTES + 16];
	int ret, fd;

	ret = make_state_dir(conf);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "%s/rids.lock", conf->state_dir);
	ret = open_own(conf, path, O_RDWR, 0640, &fd);
	if (ret < 0)
		return ret;
	while ((ret = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
		;
	ret = ret < 0 ? -errno : 0;
	if (ret == 0)
		ret = record_append(conf, rid);
	close(fd);
	return ret;
}

int instance_rid_get(const struct instance_conf *conf, uint64_t *rid)
{
	char path[CONF_PATH_BYTES + 16];
	int ret;

	ret = instance_check_runtime_dir(conf);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "%s/rid", conf->runtime_dir);
	ret = read_rid(path, rid);
	if (ret == -ENOENT) {
		ret = make_rid(conf, path);
		if (ret == 0)
			ret = read_rid(path, rid);
	}
	if (ret == -EBADMSG)
		log_err("%s: does not hold a rid of 16 hex digits; stop the instance's services and remove it",
			path);
	else if (ret < 0)
		log_err("%s: %s; the instance has no identity without it", path, strerror(-ret));
	if (ret < 0)
		return ret;
	ret = record_rid(conf, *rid);
	if (ret < 0)
		log_err("state directory %s: the rid of this mount cannot be recorded: %s; make it writable or set "
			"state_dir",
			conf->state_dir, strerror(-ret));
	return ret;
}

int instance_rid_is_ours(const struct instance_conf *conf, uint64_t rid)
{
	char path[CONF_PATH_BYTES + 16];
	unsigned lines;
	bool found;
	FILE *f;
	int ret;

	snprintf(path, sizeof(path), "%s/rids", conf->state_dir);
	f = fopen(path, "re");
	if (!f) {
		ret = -errno;
		if (ret == -ENOENT)
			return 0;
	} else {
		ret = record_find(f, rid, &found, &lines);
		fclose(f);
	}
	if (ret < 0) {
		log_err("%s: %s; no earlier mount can be recognised as this host's", path,
			strerror(-ret));
		return ret;
	}
	return found;
}
