/*
 * The devices: opened once, locked for as long as the descriptor lives, and believed only after both
 * super blocks have been checked (format.md 5.3).
 *
 * The lock is a flock on the very descriptor that does the I/O, and O_EXCL on block devices.  A killed
 * blockd's writes go on for a while after its death, and the kernel keeps the lock exactly that long;
 * so a lock whose holder is dead is waited for, and one whose holder lives is refused at once with its
 * pid.  Nothing is ever written here.
 */
#include "blockd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "format/super.h"
#include "log.h"

#define RETRY_STEP_MS		50
#define RETRY_UNKNOWN_MS	3000	/* a lock without a visible holder: its release may be under way */

/* Who holds a flock on the inode: a pid, 0 when nobody is listed, -1 when not visible from here. */
static pid_t lock_holder(const struct stat *st)
{
	char line[256];
	pid_t found = 0;
	FILE *f;

	f = fopen("/proc/locks", "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		unsigned maj, min;
		unsigned long long ino;
		long pid;

		if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", &pid, &maj, &min, &ino) != 4)
			continue;
		if (maj == major(st->st_dev) && min == minor(st->st_dev) && ino == st->st_ino) {
			found = pid > 0 ? (pid_t)pid : -1;
			break;
		}
	}
	fclose(f);
	return found;
}

static pid_t recorded_pid(const char *pid_path)
{
	long pid = 0;
	FILE *f = fopen(pid_path, "re");

	if (f) {
		if (fscanf(f, "%ld", &pid) != 1 || pid < 1 || pid > INT_MAX)
			pid = 0;
		fclose(f);
	}
	return (pid_t)pid;
}

/* A zombie has no file open any more, or is on its way there. */
static bool is_running(pid_t pid)
{
	char path[64];
	char state = 'Z';
	FILE *f;

	if (kill(pid, 0) < 0 && errno == ESRCH)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return errno != ENOENT;
	if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 'R';
	fclose(f);
	return state != 'Z' && state != 'X';
}

/*
 * The lock (or the exclusive open) was refused.  0: try again; -EBUSY: give up, said why.  waited_ms
 * is how long we have tried already.
 */
static int holder_wait(const struct device *dev, const struct stat *st, const char *pid_path,
		       unsigned waited_ms)
{
	struct timespec step = { .tv_nsec = RETRY_STEP_MS * 1000000 };
	pid_t pid = lock_holder(st);

	if (pid == 0 && recorded_pid(pid_path) != getpid())
		pid = recorded_pid(pid_path);
	if (pid == getpid()) {
		log_err("%s %s: is the other device too; meta_device and data_device must be two",
			dev->name, dev->path);
		return -EBUSY;
	}
	if (pid > 0 && is_running(pid)) {
		log_err("%s %s: in use by process %d; only one blockd may serve a volume on a host: "
			"stop that one first", dev->name, dev->path, (int)pid);
		return -EBUSY;
	}
	if (pid < 0) {
		log_err("%s %s: locked by a process of another pid namespace; stop that one first",
			dev->name, dev->path);
		return -EBUSY;
	}
	if (pid == 0 && waited_ms >= RETRY_UNKNOWN_MS) {
		log_err("%s %s: in use (mounted, or held by another driver or program); see lsblk and "
			"fuser, and free it", dev->name, dev->path);
		return -EBUSY;
	}
	if (waited_ms >= BLOCKD_RETRY_MS) {
		log_err("%s %s: still locked %u s after process %d died: its I/O does not end; check "
			"the device", dev->name, dev->path, waited_ms / 1000, (int)pid);
		return -EBUSY;
	}
	nanosleep(&step, NULL);
	return 0;
}

/* Open for O_DIRECT where possible; block devices exclusively, waiting for a dead holder. */
static int device_open_fd(struct device *dev, const char *pid_path)
{
	uint64_t start = clock_mono_ns();
	struct stat st;
	int flags = O_RDWR | O_CLOEXEC | O_DIRECT;
	int ret;

	if (stat(dev->path, &st) < 0) {
		ret = -errno;
		log_err("%s %s: %s; correct %s in the configuration", dev->name, dev->path,
			strerror(-ret), dev->name);
		return ret;
	}
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode)) {
		log_err("%s %s: neither a block device nor a file; correct %s in the configuration",
			dev->name, dev->path, dev->name);
		return -ENOTBLK;
	}
	dev->is_bdev = S_ISBLK(st.st_mode);
	dev->is_direct = true;
	if (dev->is_bdev)
		flags |= O_EXCL;
	while ((dev->fd = open(dev->path, flags)) < 0) {
		ret = -errno;
		if (ret == -EINVAL && (flags & O_DIRECT)) {
			flags &= ~O_DIRECT;
			dev->is_direct = false;
			continue;
		}
		if (ret == -EINTR)
			continue;
		if (ret != -EBUSY) {
			log_err("%s %s: %s; it must be readable and writable", dev->name, dev->path,
				strerror(-ret));
			return ret;
		}
		ret = holder_wait(dev, &st, pid_path,
				  (unsigned)((clock_mono_ns() - start) / 1000000));
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int device_lock(struct device *dev, const char *pid_path)
{
	uint64_t start = clock_mono_ns();
	struct stat st;
	int ret;

	if (fstat(dev->fd, &st) < 0)
		return -errno;
	while (flock(dev->fd, LOCK_EX | LOCK_NB) < 0) {
		ret = -errno;
		if (ret == -EINTR)
			continue;
		if (ret != -EWOULDBLOCK) {
			log_err("%s %s: cannot be locked: %s", dev->name, dev->path, strerror(-ret));
			return ret;
		}
		ret = holder_wait(dev, &st, pid_path,
				  (unsigned)((clock_mono_ns() - start) / 1000000));
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int device_measure(struct device *dev)
{
	struct stat st;
	int sector = 0, is_read_only = 0;
	int ret = 0;

	if (fstat(dev->fd, &st) < 0) {
		ret = -errno;
	} else if (S_ISBLK(st.st_mode) != dev->is_bdev) {
		ret = -ESTALE;
	} else if (!dev->is_bdev) {
		dev->bytes = (uint64_t)st.st_size;
	} else if (ioctl(dev->fd, BLKGETSIZE64, &dev->bytes) < 0 ||
		   ioctl(dev->fd, BLKSSZGET, &sector) < 0 ||
		   ioctl(dev->fd, BLKROGET, &is_read_only) < 0) {
		ret = -errno;
	} else if (sector > (int)SMALL_SIZE) {
		log_err("%s %s: its sectors of %d bytes are larger than the volume's blocks of %u",
			dev->name, dev->path, sector, SMALL_SIZE);
		return -EINVAL;
	} else if (is_read_only) {
		/* The kernel lets it be opened for writing, and refuses each write. */
		log_err("%s %s: is read-only; make it writable (blockdev --setrw) or correct %s in the "
			"configuration", dev->name, dev->path, dev->name);
		return -EROFS;
	}
	if (ret < 0)
		log_err("%s %s: cannot tell its size: %s", dev->name, dev->path, strerror(-ret));
	return ret;
}

static int device_read_super(struct device *dev, struct disk_super *super)
{
	off_t at = (off_t)(SUPER_BLKNO << SMALL_SHIFT);
	ssize_t n;

	if (dev->bytes < (uint64_t)at + sizeof(*super)) {
		log_err("%s %s: %llu bytes are too few for a volume; is it the right device, is it cut "
			"short?", dev->name, dev->path, (unsigned long long)dev->bytes);
		return -EINVAL;
	}
	n = pread(dev->fd, super, sizeof(*super), at);
	if (n < 0 && errno == EINVAL && dev->is_direct) {
		int flags = fcntl(dev->fd, F_GETFL);

		/* Some filesystems take O_DIRECT at open and refuse it, or our alignment, here. */
		if (flags >= 0 && fcntl(dev->fd, F_SETFL, flags & ~O_DIRECT) == 0) {
			dev->is_direct = false;
			n = pread(dev->fd, super, sizeof(*super), at);
		}
	}
	if (n != (ssize_t)sizeof(*super)) {
		int err = n < 0 ? -errno : -EIO;

		log_err("%s %s: the super block cannot be read: %s", dev->name, dev->path,
			strerror(-err));
		return err;
	}
	return 0;
}

/* The rules for one copy alone, and for its own device.  format.md 5.3, 2.3. */
static int super_check_alone(const struct device *dev, unsigned which, const struct disk_super *s)
{
	const char *why = NULL;
	int ret;

	ret = super_check(s, &why);
	if (ret < 0) {
		log_err("%s %s: %s (magic %08x); check %s in the configuration, or make a volume with "
			"scoutfsctl mkfs", dev->name, dev->path, why, le32_get(s->hdr.magic),
			dev->name);
		return ret;
	}
	ret = which == BLK_DEV_META ? super_check_meta(s, dev->bytes, &why) :
				      super_check_data(s, dev->bytes, &why);
	if (ret < 0)
		log_err("%s %s: %s (it has %llu bytes); check %s in the configuration, and whether the "
			"device was cut short", dev->name, dev->path, why,
			(unsigned long long)dev->bytes, dev->name);
	return ret;
}

/* The two copies belong together.  format.md 5.3. */
static int supers_check_pair(const struct volume *v, const struct disk_super *meta,
			     const struct disk_super *data)
{
	const struct device *md = &v->dev[BLK_DEV_META];
	const struct device *dd = &v->dev[BLK_DEV_DATA];
	const char *why = NULL;
	int ret;

	ret = super_check_pair(meta, data, md->bytes, dd->bytes, &why);
	if (ret == 0 && le64_get(meta->hdr.fsid) != le64_get(data->hdr.fsid)) {
		ret = -EINVAL;
		why = "the two devices have different fsids";
	}
	if (ret < 0)
		log_err("%s %s (fsid %016llx) and %s %s (fsid %016llx): %s; correct the configuration",
			md->name, md->path, (unsigned long long)le64_get(meta->hdr.fsid), dd->name,
			dd->path, (unsigned long long)le64_get(data->hdr.fsid), why);
	return ret;
}

static int supers_read(struct volume *v)
{
	struct disk_super *super[BLK_DEVS_NR];
	void *mem = NULL;
	int ret;

	ret = -posix_memalign(&mem, SMALL_SIZE, BLK_DEVS_NR * sizeof(struct disk_super));
	if (ret < 0) {
		log_err("no memory to read the super blocks");
		return ret;
	}
	for (unsigned i = 0; i < BLK_DEVS_NR; i++)
		super[i] = (struct disk_super *)mem + i;
	for (unsigned i = 0; i < BLK_DEVS_NR && ret == 0; i++) {
		ret = device_read_super(&v->dev[i], super[i]);
		if (ret == 0)
			ret = super_check_alone(&v->dev[i], i, super[i]);
	}
	if (ret == 0)
		ret = supers_check_pair(v, super[BLK_DEV_META], super[BLK_DEV_DATA]);
	if (ret == 0) {
		const struct disk_super *s = super[BLK_DEV_META];

		v->fsid = le64_get(s->hdr.fsid);
		v->meta_blocks = le64_get(s->total_meta_blocks);
		v->data_blocks = le64_get(s->total_data_blocks);
		for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++)
			v->is_shared |= quorum_slot_is_configured(&s->qconf, i) &&
					le32_get(s->qconf.slots[i].addr) >> 24 != 127;
		v->dev[BLK_DEV_META].volume_bytes = v->meta_blocks << LARGE_SHIFT;
		v->dev[BLK_DEV_DATA].volume_bytes = v->data_blocks << SMALL_SHIFT;
	}
	free(mem);
	return ret;
}

int volume_open(struct volume *v, const char *meta_path, const char *data_path, const char *pid_path)
{
	int ret = 0;

	memset(v, 0, sizeof(*v));
	v->dev[BLK_DEV_META].name = "meta_device";
	v->dev[BLK_DEV_DATA].name = "data_device";
	for (unsigned i = 0; i < BLK_DEVS_NR; i++)
		v->dev[i].fd = -1;
	v->dev[BLK_DEV_META].path = strdup(meta_path);
	v->dev[BLK_DEV_DATA].path = strdup(data_path);
	if (!v->dev[BLK_DEV_META].path || !v->dev[BLK_DEV_DATA].path) {
		log_err("no memory to open the devices");
		ret = -ENOMEM;
	}

	for (unsigned i = 0; i < BLK_DEVS_NR && ret == 0; i++) {
		ret = device_open_fd(&v->dev[i], pid_path);
		if (ret == 0)
			ret = device_lock(&v->dev[i], pid_path);
		if (ret == 0)
			ret = device_measure(&v->dev[i]);
	}
	if (ret == 0)
		ret = supers_read(v);
	if (ret < 0) {
		volume_close(v);
		return ret;
	}
	for (unsigned i = 0; i < BLK_DEVS_NR; i++)
		if (!v->dev[i].is_direct)
			log_notice("%s %s: direct I/O is not possible here; going through the page "
				   "cache, which costs memory and speed", v->dev[i].name,
				   v->dev[i].path);
	return 0;
}

void volume_close(struct volume *v)
{
	for (unsigned i = 0; i < BLK_DEVS_NR; i++) {
		if (v->dev[i].fd >= 0)
			close(v->dev[i].fd);
		v->dev[i].fd = -1;
		free(v->dev[i].path);
		v->dev[i].path = NULL;
	}
}
