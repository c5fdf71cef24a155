/*
 * Until when each writer may write: what quorumd says of this host's serverd, and each fsd of its mount.
 * design.md D6; the rules are lib/core/lease's, the clock is CLOCK_BOOTTIME.
 *
 * Nobody may write without having been told that he may.  What was told outlives a blockd: it is kept in
 * RUNTIME_DIR/leases, so that a restarted one goes on in the middle of a commit.  It ends with the boot of
 * the machine, like the clock; the record names the boot.  It needs no fsync: a machine that has lost it
 * has been started anew.
 *
 * An fsd gives up what its kernel caches when its lease runs out, and says so.  Where it does not (it is dead and
 * was not started again in time, or it is stopped or hangs) we cut the mount's FUSE connection, or programs of this
 * host would be shown old files as good ones.  That alone is not enough: of files that are open the kernel goes on
 * showing the pages that it has, so it is made to drop all clean pages of the host, and programs that have files
 * of the mount mapped, which it does not drop, are killed, as they would be with the host.  Connections are known by
 * numbers that are used again: so only one that is, at that moment, a scoutfs mount of our name is cut.
 */
#include "blockd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "clock.h"
#include "conf.h"
#include "ctl.h"
#include "fusectl.h"
#include "log.h"
#include "thread.h"

#define LEASES_NAME	"leases"
#define BOOT_ID_BYTES	40
#define RECORD_BYTES	(128 + LEASE_GUARD_MAX * 96)
#define DROPS_NR	8u
#define DROP_MS		250
#define KILLED_MS	2000	/* for a killed process to be gone */
#define TICK_MAX_MS	1000	/* epoll's clock stands still while the machine sleeps, a lease's does not */

static int boot_id(char buf[BOOT_ID_BYTES])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, BOOT_ID_BYTES - 1);
	close(fd);
	if (n <= 0)
		return n < 0 ? -errno : -EIO;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return 0;
}

/* ---- the record ---- */

static void parse(struct blockd *d, FILE *f, uint64_t now)
{
	uint64_t rid, term, until;
	uint32_t kind, fuse_id;

	while (fscanf(f, " lease %" SCNu32 " %" SCNx64 " %" SCNu64 " %" SCNu64 " %" SCNu32, &kind, &rid,
		      &term, &until, &fuse_id) == 5) {
		if (kind == 0 || kind >= BLK_KIND_END)
			return;
		if (lease_guard_set(&d->leases, kind, rid, term, until, now) < 0)
			return;
		if (fuse_id)
			lease_guard_fuse(&d->leases, kind, rid, fuse_id, now);
	}
}

void leases_load(struct blockd *d)
{
	char path[PATH_MAX], ours[BOOT_ID_BYTES], found[BOOT_ID_BYTES];
	uint64_t fsid;
	FILE *f;

	if (rundir_path(path, d->conf->runtime_dir, LEASES_NAME) < 0 || boot_id(ours) < 0)
		return;
	f = fopen(path, "re");
	if (!f)
		return;
	if (fscanf(f, "boot %39s fsid %" SCNx64, found, &fsid) == 2 && strcmp(found, ours) == 0 &&
	    fsid == d->vol.fsid)
		parse(d, f, clock_boot_ns());
	fclose(f);
}

/* A record that cannot be made costs a restarted blockd's writers a moment, not their data. */
static void record(const struct blockd *d)
{
	char text[RECORD_BYTES], path[PATH_MAX], tmp[PATH_MAX], boot[BOOT_ID_BYTES];
	size_t len;
	bool failed;
	int fd;

	if (boot_id(boot) < 0 || rundir_path(path, d->conf->runtime_dir, LEASES_NAME) < 0 ||
	    rundir_path(tmp, d->conf->runtime_dir, LEASES_NAME ".new") < 0)
		return;
	len = (size_t)snprintf(text, sizeof(text), "boot %s fsid %016" PRIx64 "\n", boot, d->vol.fsid);
	for (size_t i = 0; i < LEASE_GUARD_MAX; i++) {
		const struct lease_right *r = &d->leases.v[i];

		if (r->kind)
			len += (size_t)snprintf(text + len, sizeof(text) - len,
						"lease %" PRIu32 " %016" PRIx64 " %" PRIu64 " %" PRIu64
						" %" PRIu32 "\n", r->kind, r->rid, r->term, r->until_ns,
						r->fuse_id);
	}
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	failed = fd < 0 || write(fd, text, len) != (ssize_t)len;
	if (fd >= 0)
		close(fd);
	if (failed || rename(tmp, path) < 0) {
		log_warning("%s: cannot be written: %s; a restart of blockd would make writers wait for "
			    "their next leases", path, strerror(errno));
		unlink(tmp);
	}
}

/* ---- what clients say ---- */

int leases_set(struct blockd *d, const struct blk_lease *l, uint32_t kind, uint64_t rid)
{
	uint64_t now = clock_boot_ns();
	int ret, changed = 0;

	if (l->kind == 0 && kind == BLK_KIND_FSD)
		return 0;
	if (l->rid != rid || (l->kind != BLK_KIND_SERVERD && l->kind != BLK_KIND_FSD) ||
	    kind != (l->kind == BLK_KIND_SERVERD ? BLK_KIND_QUORUMD : BLK_KIND_FSD) ||
	    (l->fuse_id && kind != BLK_KIND_FSD))
		return -EINVAL;
	pthread_mutex_lock(&d->leases_lock);
	ret = l->until_ns ? lease_guard_set(&d->leases, l->kind, rid, l->term, l->until_ns, now) : 0;
	if (ret > 0)
		changed = 1;
	if (ret >= 0 && kind == BLK_KIND_FSD)
		ret = lease_guard_fuse(&d->leases, l->kind, rid, l->fuse_id & ~BLK_FUSE_WITHDRAWS, now);
	if (ret >= 0 && l->fuse_id & BLK_FUSE_WITHDRAWS)
		lease_guard_withdraws(&d->leases, kind, rid, now);
	if (ret > 0)
		changed = 1;
	/* Who says so is there, and may not have had an entry when it came. */
	if (kind == BLK_KIND_FSD)
		lease_guard_here(&d->leases, kind, rid, true, now);
	pthread_mutex_unlock(&d->leases_lock);
	if (changed)
		record(d);
	return ret < 0 ? ret : 0;
}

int leases_check(const struct blockd *d, uint32_t kind, uint64_t rid, uint64_t term, uint64_t *until_ns)
{
	*until_ns = 0;
	if (kind != BLK_KIND_FSD && kind != BLK_KIND_SERVERD)
		return 0;
	return lease_guard_check(&d->leases, kind, rid, term, kind == BLK_KIND_SERVERD, clock_boot_ns(),
				 until_ns);
}

void leases_here(struct blockd *d, uint32_t kind, uint64_t rid, bool is_here)
{
	pthread_mutex_lock(&d->leases_lock);
	lease_guard_here(&d->leases, kind, rid, is_here, clock_boot_ns());
	pthread_mutex_unlock(&d->leases_lock);
}

/* ---- cutting off ---- */

static bool is_mounted_in(const struct blockd *d, const char *mountinfo, uint32_t fuse_id)
{
	FILE *f = fopen(mountinfo, "re");
	char line[8192], source[CONF_NAME_BYTES + 1], *rest;
	unsigned major_nr, minor_nr;
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		rest = strstr(line, " - ");
		found = rest && sscanf(line, "%*d %*d %u:%u", &major_nr, &minor_nr) == 2 &&
			major_nr == 0 && minor_nr == fuse_id &&
			sscanf(rest, " - fuse.scoutfs %65s", source) == 1 &&
			strcmp(source, d->conf->name) == 0;
	}
	fclose(f);
	return found;
}

/*
 * Whether the connection of that number is a mount of our name.  Never asks the mount itself.  A unit with options
 * that make it a mount namespace may not see what is mounted after its start.
 */
static bool is_our_mount(const struct blockd *d, uint32_t fuse_id)
{
	return is_mounted_in(d, "/proc/self/mountinfo", fuse_id) || is_mounted_in(d, "/proc/1/mountinfo", fuse_id);
}

static void drop_pages(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) != 1)
		log_err("/proc/sys/vm/drop_caches: %s; programs may see old contents of files that they have open", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static bool maps_mount(const char *pid, uint32_t fuse_id)
{
	char path[64], line[PATH_MAX + 128];
	unsigned major_nr, minor_nr;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.20s/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*s %*s %*s %x:%x", &major_nr, &minor_nr) == 2 && major_nr == 0 &&
			minor_nr == fuse_id;
	fclose(f);
	return found;
}

/* Who has files of the mount mapped; how many. */
static unsigned kill_mappers(uint32_t fuse_id)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	unsigned nr = 0;

	while (dir && (e = readdir(dir))) {
		int fd;

		if (strspn(e->d_name, "0123456789") != strlen(e->d_name))
			continue;
		/* The descriptor first, so that no other process can have the number when it is killed. */
		fd = pidfd_open(atoi(e->d_name), 0);
		if (fd >= 0 && maps_mount(e->d_name, fuse_id) && pidfd_send_signal(fd, SIGKILL, NULL, 0) == 0) {
			struct pollfd p = { fd, POLLIN, 0 };

			/* What it has mapped is dropped only when it is gone. */
			poll(&p, 1, KILLED_MS);
			nr++;
		}
		if (fd >= 0)
			close(fd);
	}
	if (dir)
		closedir(dir);
	return nr;
}

struct forget {
	uint32_t fuse_id;
	char mountpoint[CONF_PATH_BYTES];
};

/* A thread: it looks at every process, which may take its time. */
static void *forget(void *arg)
{
	struct forget *f = arg;
	unsigned killed = kill_mappers(f->fuse_id);

	if (killed)
		log_warning("%s: %u programs that had files of it mapped were killed: nothing else keeps them from what "
			    "is not true any more", f->mountpoint, killed);
	/* A page that somebody is just looking at stays: again, and again. */
	for (unsigned i = 0; i < DROPS_NR; i++) {
		drop_pages();
		poll(NULL, 0, DROP_MS);
	}
	free(f);
	return NULL;
}

static void start_forgetting(const struct blockd *d, uint32_t fuse_id)
{
	struct forget *f = malloc(sizeof(*f));
	pthread_t thread;
	int ret = -ENOMEM;

	if (f) {
		f->fuse_id = fuse_id;
		snprintf(f->mountpoint, sizeof(f->mountpoint), "%s", d->conf->mountpoint);
		ret = thread_start(&thread, "forget pages", forget, f);
	}
	if (ret == 0) {
		pthread_detach(thread);
		return;
	}
	free(f);
	log_err("%s: no memory to make the kernel forget its pages: programs may see old contents of files that they "
		"have open", d->conf->mountpoint);
}

static void cut(struct blockd *d, uint32_t fuse_id)
{
	int ret;

	if (!is_our_mount(d, fuse_id)) {
		log_debug("FUSE connection %u is not our mount any more", fuse_id);
		return;
	}
	ret = fusectl_abort(fuse_id);
	if (ret < 0) {
		log_err("%s: its lease has run out and no fsd gives up what the kernel remembers, but its FUSE "
			"connection %u cannot be cut: %s; programs on it may see old files: unmount it (umount -f -l)",
			d->conf->mountpoint, fuse_id, strerror(-ret));
		return;
	}
	stats_inc(&d->stats.fuse_cut);
	start_forgetting(d, fuse_id);
	log_warning("%s: its lease has run out and no fsd gives up what the kernel remembers (it is dead, stopped or "
		    "hangs): the mount is cut off; start its fsd again", d->conf->mountpoint);
}

int leases_tick(struct blockd *d)
{
	uint64_t now = clock_boot_ns(), deadline;
	bool any = false;
	uint32_t id;

	pthread_mutex_lock(&d->leases_lock);
	while ((id = lease_guard_next_cut(&d->leases, LEASE_GRACE_NS, now))) {
		pthread_mutex_unlock(&d->leases_lock);
		cut(d, id);
		any = true;
		pthread_mutex_lock(&d->leases_lock);
	}
	deadline = lease_guard_deadline(&d->leases, LEASE_GRACE_NS);
	now = clock_boot_ns();
	pthread_mutex_unlock(&d->leases_lock);
	if (any)
		record(d);
	if (deadline == LEASE_NEVER)
		return -1;
	if (deadline <= now)
		return 1;
	return deadline - now > TICK_MAX_MS * NSEC_PER_MSEC ? TICK_MAX_MS :
							      (int)((deadline - now) / NSEC_PER_MSEC) + 1;
}

/* ---- status ---- */

void leases_fill_status(struct blockd *d, struct msg_status_reply *r)
{
	uint64_t now = clock_boot_ns();

	pthread_mutex_lock(&d->leases_lock);
	for (size_t i = 0; i < LEASE_GUARD_MAX; i++) {
		const struct lease_right *l = &d->leases.v[i];
		bool is_over = now >= l->until_ns;
		uint64_t ms = (is_over ? now - l->until_ns : l->until_ns - now) / NSEC_PER_MSEC;

		/* The dead stay in the table until their place is needed. */
		if (!l->kind || (is_over && !l->is_here && l->kind == BLK_KIND_FSD))
			continue;
		ctl_add_text(r, "lease", "%s %016" PRIx64 ": %s %" PRIu64 " ms%s, of term %" PRIu64,
			     l->kind == BLK_KIND_FSD ? "mount" : "serverd", l->rid,
			     is_over ? "ran out" : "lasts", ms, is_over ? " ago" : "", l->term);
	}
	pthread_mutex_unlock(&d->leases_lock);
}
