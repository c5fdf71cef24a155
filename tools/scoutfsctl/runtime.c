/*
 * The runtime directory holds what survives the death of any process of an instance, but not of the
 * node: the item cache, the write-back pool, sockets, the rid.  It is a tmpfs of its own so that
 * its size is promised and nothing else can fill it.
 */
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "commands.h"

#define TMPFS_MAGIC_NR 0x01021994
#define RUNTIME_EXTRA  (16ull << 20)
#define SERVICE_USER   "scoutfs"

static int make_dirs(const char *path, mode_t mode)
{
	char buf[4096];

	if (snprintf(buf, sizeof(buf), "%s", path) >= (int)sizeof(buf))
		return -ENAMETOOLONG;
	for (char *p = buf + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(buf, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(buf, mode) < 0 && errno != EEXIST ? -errno : 0;
}

/* Whether path is the root of a mount, and of a tmpfs. */
static bool is_own_tmpfs(const char *path)
{
	char parent[4096];
	struct stat a, b;
	struct statfs fs;

	snprintf(parent, sizeof(parent), "%s/..", path);
	return stat(path, &a) == 0 && stat(parent, &b) == 0 && a.st_dev != b.st_dev &&
	       statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC_NR;
}

/* quorumd and serverd run as this user where there is one (systemd/scoutfs.sysusers). */
static const struct passwd *service_user(void)
{
	return geteuid() == 0 ? getpwnam(SERVICE_USER) : NULL;
}

/* The record of rids is appended to by services of root and of that user. */
static int give_state_dir(const struct instance_conf *conf)
{
	static const char *const names[] = { "", "/rids", "/rids.lock" };
	const struct passwd *pw = service_user();
	char path[4352];

	for (size_t i = 0; pw && i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", conf->state_dir, names[i]);
		if (lchown(path, pw->pw_uid, pw->pw_gid) < 0 && errno != ENOENT)
			return -errno;
	}
	return 0;
}

/* What the machine can still give away, in bytes; UINT64_MAX where it does not say. */
static uint64_t memory_available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = UINT64_MAX >> 10;
	char line[256];

	if (!f)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), f) && sscanf(line, "MemAvailable: %llu", &kib) != 1)
		;
	fclose(f);
	return kib << 10;
}

/* Cache and pool are allocated in full: what does not fit would have the kernel kill processes. */
static int check_memory(const char *verb, const struct instance_conf *conf, uint64_t want)
{
	uint64_t have = memory_available();

	if (want <= have)
		return 0;
	say_error(verb, "cache_size + pool_size of %s need %llu MiB of memory, and %llu MiB are available: make them smaller",
		  conf->name, (unsigned long long)(want >> 20), (unsigned long long)(have >> 20));
	return -ENOMEM;
}

/*
 * The item cache is read and written all over: with pages of 2 MiB, where there are such, each of its transactions
 * takes a sixth less time.  Files that are smaller keep small ones.  A kernel without them refuses the option.
 */
static int mount_tmpfs(const char *dir, const char *opts)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	char huge[160];

	snprintf(huge, sizeof(huge), "%s,huge=within_size", opts);
	if (mount("scoutfs", dir, "tmpfs", flags, huge) == 0)
		return 0;
	if (errno == EINVAL && mount("scoutfs", dir, "tmpfs", flags, opts) == 0)
		return 0;
	return -errno;
}

int runtime_start(const char *verb, const struct instance_conf *conf)
{
	uint64_t bytes = conf->cache_size + conf->pool_size + RUNTIME_EXTRA;
	const struct passwd *pw;
	char opts[128];
	int ret;

	if (!is_own_tmpfs(conf->runtime_dir)) {
		ret = check_memory(verb, conf, bytes);
		if (ret < 0)
			return ret;
	}
	ret = make_dirs(conf->runtime_dir, 0700);
	if (ret == 0)
		ret = make_dirs(conf->state_dir, 0755);
	if (ret == 0)
		ret = give_state_dir(conf);
	if (ret < 0) {
		say_error(verb,
			  "%s or %s cannot be made: %s: make the parent directory writable, or set "
			  "runtime_dir and state_dir",
			  conf->runtime_dir, conf->state_dir, strerror(-ret));
		return ret;
	}
	if (is_own_tmpfs(conf->runtime_dir))
		return 0;
	pw = service_user();
	snprintf(opts, sizeof(opts), "size=%llu,mode=%s,uid=%u,gid=%u,nr_inodes=1024",
		 (unsigned long long)bytes, pw ? "0750" : "0700", pw ? pw->pw_uid : geteuid(),
		 pw ? pw->pw_gid : getegid());
	ret = mount_tmpfs(conf->runtime_dir, opts);
	if (ret < 0)
		say_error(verb,
			  "cannot mount a tmpfs on %s: %s: run as root, with the right to mount",
			  conf->runtime_dir, strerror(-ret));
	return ret;
}

int runtime_stop(const char *verb, const struct instance_conf *conf)
{
	if (!is_own_tmpfs(conf->runtime_dir))
		return 0;
	if (umount(conf->runtime_dir) < 0) {
		int ret = -errno;

		say_error(verb, "cannot unmount %s: %s: stop what still uses it (fuser -m %s)",
			  conf->runtime_dir, strerror(-ret), conf->runtime_dir);
		return ret;
	}
	return 0;
}

int runtime_may_look(const char *verb, const struct instance_conf *conf)
{
	char path[4352];

	snprintf(path, sizeof(path), "%s/.", conf->runtime_dir);
	if (access(path, X_OK) == 0 || errno != EACCES)
		return 0;
	say_error(verb, "%s: permission denied: run as root", conf->runtime_dir);
	return -EACCES;
}

static void pid_path(const struct instance_conf *conf, const char *service, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s.pid", conf->runtime_dir, service);
}

int runtime_write_pid(const struct instance_conf *conf, const char *service, pid_t pid)
{
	char path[4352], tmp[4360];
	FILE *f;

	pid_path(conf, service, path, sizeof(path));
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	f = fopen(tmp, "we");
	if (!f)
		return -errno;
	fprintf(f, "%d\n", (int)pid);
	if (fclose(f) != 0 || rename(tmp, path) < 0)
		return -errno;
	return 0;
}

void runtime_remove_pid(const struct instance_conf *conf, const char *service)
{
	char path[4352];

	pid_path(conf, service, path, sizeof(path));
	unlink(path);
}

/* Whether the process is one of ours: a pid file may outlive its process, and the number be given again. */
static bool is_our_process(pid_t pid)
{
	char path[64], comm[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(comm, sizeof(comm), f))
		comm[0] = 0;
	fclose(f);
	return strncmp(comm, "scoutfs", 7) == 0;
}

pid_t runtime_read_pid(const struct instance_conf *conf, const char *service)
{
	char path[4352];
	int pid = 0;
	FILE *f;

	pid_path(conf, service, path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%d", &pid) != 1 || pid <= 0 || !is_our_process(pid))
		pid = 0;
	fclose(f);
	return pid;
}
