/*
 * The state file and the kept descriptor.
 *
 * Promises: a state is gone on from only if it was made by this version, for this mount of this
 * volume, and whole; everything else is begun anew, with a word about why.  A process that dies
 * again and again while it goes on from one state does not do so for ever.
 *
 * The descriptor of /dev/fuse is kept by whoever starts the service: systemd's descriptor store, or
 * `scoutfsctl run`, which speaks the same protocol.  It is not to be watched by them: each request
 * of the kernel would wake them up.
 */
#include "keep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "log.h"

#define KEEP_MAGIC	0x70656b7366756f63ull
#define KEEP_BYTES	(4096u + KEEP_LOCKS_MAX * sizeof(struct keep_lock))
#define RESUMES_MAX	300u
#define STORE_NAME	"fuse"

static_assert(sizeof(struct keep_head) <= 4096u, "the locks follow in the next page");

static const char *why_not(const struct keep_head *h, const struct fsd *fsd)
{
	if (h->magic != KEEP_MAGIC)
		return "";
	if (h->version != KEEP_VERSION || h->locks_max != KEEP_LOCKS_MAX)
		return "another version of this program has left it";
	if (h->rid != fsd->rid || h->fsid != fsd->fsid)
		return "it is of another mount";
	if (!atomic_load(&h->is_valid))
		return "";
	if (atomic_load(&h->resumes) >= RESUMES_MAX)
		return "processes that went on from it have died too often";
	return NULL;
}

static void begin_anew(struct fsd *fsd)
{
	struct keep_head *h = fsd->keep->head;

	memset(h, 0, sizeof(*h));
	memset(fsd->keep->locks, 0, KEEP_LOCKS_MAX * sizeof(struct keep_lock));
	h->version = KEEP_VERSION;
	h->locks_max = KEEP_LOCKS_MAX;
	h->rid = fsd->rid;
	h->fsid = fsd->fsid;
	h->magic = KEEP_MAGIC;
}

static int map_file(struct keep *k, const char *path)
{
	struct stat st;
	void *p;

	k->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (k->fd < 0)
		return -errno;
	/* All of it, now: a full tmpfs under a mapping kills the process. */
	if (fstat(k->fd, &st) < 0 || (st.st_size != 0 && st.st_size != KEEP_BYTES &&
				      ftruncate(k->fd, 0) < 0))
		return -errno;
	if (posix_fallocate(k->fd, 0, KEEP_BYTES) != 0)
		return -ENOSPC;
	p = mmap(NULL, KEEP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	k->head = p;
	k->locks = (struct keep_lock *)((char *)p + 4096);
	return 0;
}

int keep_open(struct fsd *fsd)
{
	struct keep *k = calloc(1, sizeof(*k));
	char path[PATH_MAX];
	const char *why;
	int ret;

	if (!k)
		return -ENOMEM;
	k->fd = -1;
	fsd->keep = k;
	snprintf(path, sizeof(path), "%s/keep", fsd->conf.runtime_dir);
	ret = map_file(k, path);
	if (ret < 0) {
		log_err("%s: %s; give the runtime directory %u KiB more room", path, strerror(-ret),
			(unsigned)(KEEP_BYTES >> 10));
		return ret;
	}
	why = why_not(k->head, fsd);
	if (!why) {
		atomic_fetch_add(&k->head->resumes, 1);
		return 1;
	}
	if (*why)
		log_warning("the state of an earlier process is not used: %s", why);
	begin_anew(fsd);
	return 0;
}

void keep_set_valid(struct fsd *fsd)
{
	atomic_store(&fsd->keep->head->is_valid, 1);
}

void keep_drop(struct fsd *fsd)
{
	if (fsd->keep && fsd->keep->head)
		atomic_store(&fsd->keep->head->is_valid, 0);
}

void keep_close(struct fsd *fsd)
{
	struct keep *k = fsd->keep;

	if (!k)
		return;
	if (k->head)
		munmap(k->head, KEEP_BYTES);
	if (k->fd >= 0)
		close(k->fd);
	free(k);
	fsd->keep = NULL;
}

/* ---- the descriptor -------------------------------------------------------------------------- */

int keep_take_descriptor(void)
{
	char **names = NULL;
	int nr = sd_listen_fds_with_names(1, &names), found = -1;

	for (int i = 0; i < nr; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (found < 0 && strcmp(names[i], STORE_NAME) == 0)
			found = fd;
		else
			close(fd);
		free(names[i]);
	}
	free(names);
	return found;
}

void keep_store_descriptor(int fd)
{
	int ret = sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDPOLL=0\nFDNAME=" STORE_NAME, &fd, 1);

	if (ret < 0)
		log_warning("the kernel's connection cannot be kept over a restart: %s", strerror(-ret));
}

void keep_forget_descriptor(void)
{
	sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=" STORE_NAME);
}

bool keep_has_store(void)
{
	const char *nr = getenv("FDSTORE");

	/* systemd says how many it keeps since version 254; before, the unit does for it */
	return getenv("NOTIFY_SOCKET") && (!nr || strcmp(nr, "0") != 0);
}
