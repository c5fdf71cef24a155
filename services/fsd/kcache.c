/*
 * The FUSE session: mounting, serving, unmounting; and what the kernel is told to forget
 * (design.md D4).
 *
 * A mount ends in one way: the connection goes.  An unmount makes it go when the last user lets go;
 * until then the mount is detached from the namespace, and after a grace it is aborted, so that a
 * stop always ends.
 */
#include "kcache.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "clock.h"
#include "fuse.h"
#include "interrupt.h"
#include "locks.h"
#include "log.h"
#include "orphan.h"

#define FUSE_THREADS		10
#define NOTIFY_INC_EPOCH	8	/* FUSE_NOTIFY_INC_EPOCH, Linux 6.16 */
#define READ_AHEAD_KB		4096

struct kcache {
	struct fuse_session *se;
	char mountpoint[CONF_PATH_BYTES];
	unsigned dev_minor;		/* of the mount: names its connection in /sys/fs/fuse */
	atomic_bool no_epochs;		/* the kernel does not know them */
	bool mounted;			/* and nobody has asked for the end */
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool served;			/* kcache_serve has returned */
	bool unmounting;		/* a thread is in kcache_unmount */
};

/* A mount point left by a killed fsd answers ENOTCONN: detach it, or nothing can be mounted there
 * again. */
static int detach_dead(const char *mountpoint)
{
	struct statfs st;

	/* not stat: the kernel may still answer that from what it remembers of the dead mount's root */
	if (statfs(mountpoint, &st) == 0 || (errno != ENOTCONN && errno != ECONNABORTED))
		return 0;
	if (umount2(mountpoint, MNT_DETACH) < 0) {
		int ret = -errno;

		log_err("%s: a dead mount is there and cannot be detached: %s: unmount it by hand "
			"(umount -l)",
			mountpoint, strerror(-ret));
		return ret;
	}
	log_notice("%s: a mount whose service had died was detached", mountpoint);
	return 0;
}

static int check_mountpoint(const char *path)
{
	char parent[CONF_PATH_BYTES + 4];
	struct stat st, up;

	if (stat(path, &st) < 0) {
		int ret = -errno;

		log_err("mountpoint %s: %s: make the directory", path, strerror(-ret));
		return ret;
	}
	if (!S_ISDIR(st.st_mode)) {
		log_err("mountpoint %s is not a directory: name one", path);
		return -ENOTDIR;
	}
	snprintf(parent, sizeof(parent), "%s/..", path);
	if (stat(parent, &up) == 0 && (st.st_dev != up.st_dev || st.st_ino == up.st_ino)) {
		log_err("mountpoint %s: something is mounted there already: unmount it, or name "
			"another directory",
			path);
		return -EBUSY;
	}
	return 0;
}

/* The default read-ahead of a FUSE mount is 128 KiB: streams want more. */
static void raise_read_ahead(const struct stat *st)
{
	char path[128], text[32];
	int n = snprintf(text, sizeof(text), "%d", READ_AHEAD_KB), fd;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st->st_dev),
		 minor(st->st_dev));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, text, (size_t)n) != n)
		log_debug("%s: %s: read-ahead stays as it is", path, strerror(errno));
	close(fd);
}

/* The device number of what is mounted at path, without asking the filesystem itself. */
static int mount_dev(const char *path, struct stat *st)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192], at[4096];
	unsigned maj, min;
	int ret = -ENOENT;

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &maj, &min, at) == 3 &&
		    strcmp(at, path) == 0) {
			st->st_dev = makedev(maj, min);
			ret = 0;
		}
	}
	fclose(f);
	return ret;
}

/* All entries that were looked up before now are looked up again when they are used. */
static void new_epoch(struct kcache *kc)
{
	struct {
		uint32_t len;
		int32_t error;
		uint64_t unique;
	} msg = { sizeof(msg), NOTIFY_INC_EPOCH, 0 };

	if (atomic_load(&kc->no_epochs))
		return;
	if (write(fuse_session_fd(kc->se), &msg, sizeof(msg)) != (ssize_t)sizeof(msg) &&
	    errno == EINVAL) {
		atomic_store(&kc->no_epochs, true);
		log_notice("this kernel has no FUSE epochs (Linux 6.16 has): it asks for every "
			   "name each time it is used");
	}
}

int kcache_mount(struct fsd *fsd)
{
	char opts[512];
	char *argv[] = { (char *)"scoutfs-fsd", (char *)"-o", opts, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct kcache *kc;
	char real[CONF_PATH_BYTES];
	struct stat st;
	int ret;

	ret = detach_dead(fsd->conf.mountpoint);
	if (ret == 0)
		ret = check_mountpoint(fsd->conf.mountpoint);
	if (ret < 0)
		return ret;
	if (access("/dev/fuse", R_OK | W_OK) < 0) {
		ret = -errno;
		log_err("/dev/fuse: %s: load the fuse module (modprobe fuse), or give this "
			"container the device",
			strerror(-ret));
		return ret;
	}
	kc = calloc(1, sizeof(*kc));
	if (!kc)
		return -ENOMEM;
	pthread_mutex_init(&kc->mutex, NULL);
	pthread_cond_init(&kc->cond, NULL);
	ret = interrupts_start(fsd);
	if (ret < 0) {
		free(kc);
		return ret;
	}
	if (!realpath(fsd->conf.mountpoint, real))
		strcpy(real, fsd->conf.mountpoint);
	strcpy(kc->mountpoint, real);
	snprintf(opts, sizeof(opts),
		 "fsname=%s,subtype=scoutfs,allow_other,default_permissions,dev,suid",
		 fsd->conf.name);
	kc->se = fuse_session_new(&args, &kcache_fuse_ops, sizeof(kcache_fuse_ops), fsd);
	fuse_opt_free_args(&args);
	if (!kc->se) {
		interrupts_stop(fsd);
		free(kc);
		return -ENOMEM;
	}
	fsd->kcache = kc;
	if (fuse_session_mount(kc->se, kc->mountpoint) != 0) {
		ret = errno ? -errno : -EPERM;
		log_err("cannot mount at %s: %s: fsd must run as root, with the right to mount",
			kc->mountpoint, strerror(-ret));
		kcache_free(fsd);
		return ret;
	}
	kc->mounted = true;
	new_epoch(kc);	/* learns whether there are any, before an entry is given out */
	if (mount_dev(kc->mountpoint, &st) == 0) {
		kc->dev_minor = minor(st.st_dev);
		raise_read_ahead(&st);
	}
	return 0;
}

int kcache_serve(struct fsd *fsd)
{
	struct kcache *kc = fsd->kcache;
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	int ret;

	if (!cfg)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(cfg, 0);
	fuse_loop_cfg_set_max_threads(cfg, FUSE_THREADS);
	fuse_loop_cfg_set_idle_threads(cfg, FUSE_THREADS);
	ret = fuse_session_loop_mt(kc->se, cfg);
	fuse_loop_cfg_destroy(cfg);
	pthread_mutex_lock(&kc->mutex);
	kc->served = true;
	pthread_cond_broadcast(&kc->cond);
	pthread_mutex_unlock(&kc->mutex);
	return ret > 0 ? 0 : ret;
}

/* fusectl, where nobody has mounted it: a mount of our own that is in no namespace. */
static int open_fusectl(const char *path)
{
	int ctx = fsopen("fusectl", FSOPEN_CLOEXEC), dir = -1, fd = -1;

	if (ctx >= 0 && fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		dir = fsmount(ctx, FSMOUNT_CLOEXEC, 0);
	if (dir >= 0) {
		fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
		close(dir);
	}
	if (ctx >= 0)
		close(ctx);
	return fd;
}

void kcache_abort(struct fsd *fsd)
{
	struct kcache *kc = fsd->kcache;
	char path[64];
	int fd;

	if (!kc || !kc->dev_minor)
		return;
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", kc->dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open_fusectl(path + strlen("/sys/fs/fuse/connections/"));
	if (fd >= 0) {
		if (write(fd, "1", 1) != 1)
			log_err("%s: %s: the connection stays: programs on the mount hang until "
				"fsd ends",
				path, strerror(errno));
		close(fd);
	} else {
		/* a forced unmount aborts as well, if the mount is not detached yet */
		umount2(kc->mountpoint, MNT_FORCE | MNT_DETACH);
	}
	fuse_session_exit(kc->se);
}

static bool wait_served(struct kcache *kc, unsigned ms)
{
	struct timespec until;
	bool served;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&kc->mutex);
	while (!kc->served && pthread_cond_timedwait(&kc->cond, &kc->mutex, &until) != ETIMEDOUT)
		;
	served = kc->served;
	pthread_mutex_unlock(&kc->mutex);
	return served;
}

void kcache_unmount(struct fsd *fsd, unsigned grace_ms)
{
	struct kcache *kc = fsd->kcache;

	if (!kc || !kc->mounted)
		return;
	pthread_mutex_lock(&kc->mutex);
	kc->mounted = false;
	kc->unmounting = true;
	pthread_mutex_unlock(&kc->mutex);
	if (umount2(kc->mountpoint, 0) < 0 && errno == EBUSY) {
		log_notice("%s is in use: it is detached now, and gone when the last program has "
			   "let go, at the latest in %u s (fuser -m shows who)",
			   kc->mountpoint, grace_ms / 1000);
		umount2(kc->mountpoint, MNT_DETACH);
	}
	if (!wait_served(kc, grace_ms)) {
		log_warning("%s was still in use after %u s: its programs get errors now",
			    kc->mountpoint, grace_ms / 1000);
		kcache_abort(fsd);
	}
	pthread_mutex_lock(&kc->mutex);
	kc->unmounting = false;
	pthread_cond_broadcast(&kc->cond);
	pthread_mutex_unlock(&kc->mutex);
}

void kcache_free(struct fsd *fsd)
{
	struct kcache *kc = fsd->kcache;

	if (!kc)
		return;
	pthread_mutex_lock(&kc->mutex);
	while (kc->unmounting)
		pthread_cond_wait(&kc->cond, &kc->mutex);
	pthread_mutex_unlock(&kc->mutex);
	fsd->kcache = NULL;
	/* Detaches what is mounted only if that is still ours: the connection tells. */
	fuse_session_unmount(kc->se);
	interrupts_stop(fsd);
	fuse_session_destroy(kc->se);
	pthread_cond_destroy(&kc->cond);
	pthread_mutex_destroy(&kc->mutex);
	free(kc);
}

/* ---- what the kernel forgets ----------------------------------------------------------------- */

bool kcache_has_epochs(struct fsd *fsd)
{
	return fsd->kcache && !atomic_load(&fsd->kcache->no_epochs);
}

double kcache_entry_timeout(struct fsd *fsd, uint64_t dir)
{
	return kcache_has_epochs(fsd) ? lock_kernel_timeout(fsd, dir) : 0.0;
}

struct inval {
	struct kcache *kc;
	off_t off, len;
};

static void inval_one(void *arg, uint64_t ino)
{
	struct inval *iv = arg;
	int ret = fuse_lowlevel_notify_inval_inode(iv->kc->se, node_of_ino(ino), iv->off, iv->len);

	if (ret < 0 && ret != -ENOENT)
		log_debug("inode %llu: the kernel does not drop its cache: %s",
			  (unsigned long long)ino, strerror(-ret));
}

void kcache_invalidate(struct fsd *fsd, uint64_t first_ino, uint64_t last_ino)
{
	struct inval iv = { .kc = fsd->kcache };

	if (!iv.kc)
		return;
	new_epoch(iv.kc);
	iv.off = -1;		/* attributes */
	inode_each_ref(fsd, first_ino, last_ino, inval_one, &iv);
	iv.off = 0;		/* pages, all of them */
	inode_each_ref(fsd, first_ino, last_ino, inval_one, &iv);
}

void kcache_invalidate_pages(struct fsd *fsd, uint64_t ino, uint64_t off, uint64_t len)
{
	struct inval iv = { .kc = fsd->kcache, .off = (off_t)off, .len = (off_t)len };

	if (iv.kc)
		inval_one(&iv, ino);
}
