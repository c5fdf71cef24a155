/*
 * How long the kernel lets a device work on a write before it takes it for failed: what longest_io_ms must not be
 * shorter than, or a lost node's last write may land on what others were given.  design.md D6.
 *
 * Promises: says what is known to be too short, once, and never keeps anybody from starting: a driver without such a
 * limit (loop, virtio, device mapper itself) shows none, and what the path between adds cannot be seen.  Of a stacked
 * device the longest limit below it counts.  Nothing is said where no other node can have a lease: where all
 * quorum slots are loopback addresses.
 */
#include "blockd.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "conf.h"
#include "log.h"

#define DEPTH_MAX	8u	/* of devices upon devices */

static uint64_t read_ms(const char *dir, const char *name)
{
	char path[PATH_MAX];
	uint64_t ms = 0;
	FILE *f;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return 0;
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%" SCNu64, &ms) != 1)
		ms = 0;
	fclose(f);
	return ms;
}

/* dir: of a disk or a partition. */
static uint64_t limit_in(const char *dir, unsigned depth)
{
	uint64_t most = read_ms(dir, "queue/io_timeout"), ms = read_ms(dir, "../queue/io_timeout");
	char path[PATH_MAX];
	struct dirent *e;
	DIR *slaves;

	/* A partition has no queue of its own. */
	if (ms > most && read_ms(dir, "partition"))
		most = ms;
	if (depth == DEPTH_MAX || (size_t)snprintf(path, sizeof(path), "%s/slaves", dir) >= sizeof(path))
		return most;
	slaves = opendir(path);
	while (slaves && (e = readdir(slaves))) {
		if (e->d_name[0] == '.' ||
		    (size_t)snprintf(path, sizeof(path), "%s/slaves/%s", dir, e->d_name) >= sizeof(path))
			continue;
		ms = limit_in(path, depth + 1);
		most = ms > most ? ms : most;
	}
	if (slaves)
		closedir(slaves);
	return most;
}

uint64_t limit_of_device_ms(const char *sysfs, unsigned major_nr, unsigned minor_nr)
{
	char dir[PATH_MAX];

	if ((size_t)snprintf(dir, sizeof(dir), "%s/dev/block/%u:%u", sysfs, major_nr, minor_nr) >= sizeof(dir))
		return 0;
	return limit_in(dir, 0);
}

void limits_check(const struct volume *v, uint64_t longest_io_ms, const char *sysfs)
{
	for (unsigned i = 0; i < BLK_DEVS_NR && v->is_shared; i++) {
		const struct device *dev = &v->dev[i];
		struct stat st;
		uint64_t ms;

		if (!dev->is_bdev || fstat(dev->fd, &st) < 0)
			continue;
		ms = limit_of_device_ms(sysfs, major(st.st_rdev), minor(st.st_rdev));
		if (ms > longest_io_ms)
			log_warning("%s %s: the kernel lets it work on a write for %" PRIu64 " ms, and longest_io_ms is %" PRIu64
				    ": when this node is lost others may write before its last write has ended; raise longest_io_ms "
				    "on all nodes, or lower queue/io_timeout of the disks", dev->name, dev->path, ms,
				    longest_io_ms);
	}
}
