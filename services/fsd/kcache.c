/*
 * The FUSE session: mounting, serving, unmounting; and what the kernel is told to forget
 * (design.md D4, D7).
 *
 * A mount ends in one way: the connection goes.  An unmount makes it go when the last user lets go;
 * until then the mount is detached from the namespace, and after a grace it is aborted, so that a
 * stop always ends.
 *
 * The connection may be older than the process.  Then the kernel's FUSE_INIT of that time is given to
 * a new session, whose answer to it goes nowhere, and the kernel is asked to send again what has no
 * answer.  The kernel's numbers of inodes are the volume's and its file handles mean nothing, so that
 * any process can go on.
 *
 * Requests are read by threads of our own (serving.c): each knows the number and the flags of the request in
 * hand, of which libfuse tells its handlers only a part, and all can be made to stop reading between
 * two requests.
 */
#include "kcache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "busy.h"
#include "clock.h"
#include "fuse.h"
#include "fusectl.h"
#include "gonedir.h"
#include "interrupt.h"
#include "keep.h"
#include "locks.h"
#include "log.h"
#include "mountinfo.h"
#include "orphan.h"
#include "serving.h"
#include "testhook.h"
#include "vfsflags.h"

#define NOTIFY_RESEND		7	/* FUSE_NOTIFY_RESEND, Linux 6.9 */
#define NOTIFY_INC_EPOCH	8	/* FUSE_NOTIFY_INC_EPOCH, Linux 6.16 */
#define HAS_RESEND		(1u << 7)	/* FUSE_HAS_RESEND, in the second word of flags */
#define READ_AHEAD_KB		4096
#define BUFFER_BYTES		((1u << 20) + 4096u)	/* the greatest request, and what is before it */
/* Answers that an earlier process has written may still be on their way into the kernel's tables. */
#define KNOWS_ALL_MS		5000u
/* How long a revoke waits for that. */
#define ON_ITS_WAY_MS		1000u
/* After that long a process that went on from an earlier one has proved itself. */
#define SERVED_MS		10000u
#define TOLD_MS			1000u	/* for what waits for answers, until the connection is cut */

struct kcache {
	struct fuse_session *se;
	struct fsd *fsd;
	char mountpoint[CONF_PATH_BYTES];
	unsigned dev_minor;		/* of the mount: names its connection in /sys/fs/fuse */
	atomic_bool no_epochs;		/* the kernel does not know them, or name_cache = no */
	bool mounted;			/* and nobody has asked for the end */
	bool can_resend;
	bool swallow;			/* the answer to a replayed FUSE_INIT */
	_Atomic uint64_t serving_ns;	/* since when requests are taken, and come again; 0: not yet */
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool served;			/* kcache_serve has returned */
	bool unmounting;		/* a thread is in kcache_unmount */

	struct serving *serving;	/* the threads that read requests */
};

/* The request that this thread has in hand. */
static __thread struct fuse_request_now now;

const struct fuse_request_now *fuse_request(void)
{
	return &now;
}

/* A mount point left by a killed fsd answers ENOTCONN: detach it, or nothing can be mounted there
 * again. */
static int detach_dead(struct fsd *fsd)
{
	const char *mountpoint = fsd->conf.mountpoint;
	struct statfs st;

	/* not stat: the kernel may still answer that from what it remembers of the dead mount's root */
	if (statfs(mountpoint, &st) == 0 || (errno != ENOTCONN && errno != ECONNABORTED))
		return 0;
	vfsflags_note(fsd);
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
		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &maj, &min, at) != 3)
			continue;
		mountinfo_unescape(at);
		if (strcmp(at, path) == 0) {
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

/* ---- reading and answering ------------------------------------------------------------------- */

static void note_request(struct fsd *fsd, const char *buf, size_t len)
{
	const struct fuse_in_header *h = (const struct fuse_in_header *)buf;
	const void *arg = h + 1;
	size_t arg_len = len - sizeof(*h);

	now = (struct fuse_request_now){ .unique = h->unique, .opcode = h->opcode };
	if (h->opcode == FUSE_WRITE && arg_len >= sizeof(struct fuse_write_in))
		now.kill_suidgid = ((const struct fuse_write_in *)arg)->write_flags &
				   FUSE_WRITE_KILL_SUIDGID;
	else if (h->opcode == FUSE_SETATTR && arg_len >= sizeof(struct fuse_setattr_in))
		now.kill_suidgid = ((const struct fuse_setattr_in *)arg)->valid &
				   FATTR_KILL_SUIDGID;
	else if (h->opcode == FUSE_INIT && len <= KEEP_INIT_MAX) {
		memcpy(fsd->keep->head->init, buf, len);
		atomic_store(&fsd->keep->head->init_len, (uint32_t)len);
	}
}

/*
 * The kernel copies a request into pages that are there already.  It must not have to make them: it gives
 * that up when this process is killed, and with it the request, which then fails with EIO instead of being
 * sent again.
 */
static void *make_buffer(void)
{
	void *p = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (mlock(p, BUFFER_BYTES) < 0)
		log_debug("a buffer for requests cannot be locked into memory: %s", strerror(errno));
	return p;
}

static ssize_t read_request(int fd, void *buf, size_t len, void *userdata)
{
	ssize_t n = read(fd, buf, len < BUFFER_BYTES ? len : BUFFER_BYTES);

	if (n >= (ssize_t)sizeof(struct fuse_in_header)) {
		note_request(userdata, buf, (size_t)n);
		/* They begin like these, and libfuse takes them for such; fuse.c looks which it was. */
		if (now.opcode == FUSE_TMPFILE_OPCODE)
			((struct fuse_in_header *)buf)->opcode = FUSE_CREATE;
		else if (now.opcode == FUSE_STATX_OPCODE)
			((struct fuse_in_header *)buf)->opcode = FUSE_GETATTR;
	}
	return n;
}

/*
 * What libfuse 3.14 does not know to ask for.  HANDLE_KILLPRIV_V2: we take setuid and setgid away when a
 * file is written, truncated or given away, so the kernel need not look for reasons before each write.
 */
static ssize_t answer_init_with(int fd, const struct iovec *iov, const struct keep_head *h)
{
	const struct fuse_in_header *in = (const struct fuse_in_header *)h->init;
	const struct fuse_init_in *offer = (const struct fuse_init_in *)(in + 1);
	struct fuse_init_out out = { 0 };
	struct iovec copy[2] = { iov[0], { &out, iov[1].iov_len } };

	memcpy(&out, iov[1].iov_base, iov[1].iov_len);
	out.flags |= offer->flags & FUSE_HANDLE_KILLPRIV_V2;
	return writev(fd, copy, 2);
}

static ssize_t write_answer(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fsd *fsd = userdata;
	ssize_t len = 0;

	if (now.opcode == FUSE_INIT && fsd->kcache->swallow) {
		for (int i = 0; i < count; i++)
			len += (ssize_t)iov[i].iov_len;
		return len;
	}
	if (now.opcode == FUSE_INIT && count == 2 && iov[1].iov_len <= sizeof(struct fuse_init_out) &&
	    iov[1].iov_len >= offsetof(struct fuse_init_out, max_background) &&
	    atomic_load(&fsd->keep->head->init_len) >= sizeof(struct fuse_in_header) + 16)
		return answer_init_with(fd, iov, fsd->keep->head);
	return writev(fd, iov, count);
}

static void *begin_requests(void *arg)
{
	struct fuse_buf *buf = calloc(1, sizeof(*buf));

	(void)arg;
	if (buf)
		buf->mem = make_buffer();
	if (buf && buf->mem)
		return buf;
	free(buf);
	return NULL;
}

static void end_requests(void *arg, void *mine)
{
	struct fuse_buf *buf = mine;

	(void)arg;
	munmap(buf->mem, BUFFER_BYTES);
	free(buf);
}

static int take_request(void *arg, void *mine)
{
	struct kcache *kc = arg;

	return fuse_session_receive_buf(kc->se, mine);
}

static void serve_request(void *arg, void *mine)
{
	struct kcache *kc = arg;

	fuse_session_process_buf(kc->se, mine);
	now = (struct fuse_request_now){ 0 };
}

static void no_more_requests(void *arg)
{
	struct kcache *kc = arg;

	fuse_session_exit(kc->se);
}

static int make_session(struct fsd *fsd, int fd)
{
	static const struct fuse_custom_io io = { .read = read_request, .writev = write_answer };
	char *argv[] = { (char *)"scoutfs-fsd", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	static const struct serving_calls calls = {
		.begin = begin_requests, .end = end_requests, .take = take_request, .serve = serve_request,
		.fail = no_more_requests,
	};
	struct kcache *kc = calloc(1, sizeof(*kc));
	int ret;

	if (kc)
		kc->serving = serving_new(&calls, kc, 0);
	if (!kc || !kc->serving) {
		free(kc);
		return -ENOMEM;
	}
	pthread_mutex_init(&kc->mutex, NULL);
	pthread_cond_init(&kc->cond, NULL);
	kc->fsd = fsd;
	if (!realpath(fsd->conf.mountpoint, kc->mountpoint))
		strcpy(kc->mountpoint, fsd->conf.mountpoint);
	ret = interrupts_start(fsd);
	if (ret == 0) {
		kc->se = fuse_session_new(&args, &kcache_fuse_ops, sizeof(kcache_fuse_ops), fsd);
		ret = kc->se ? 0 : -ENOMEM;
		fuse_opt_free_args(&args);
		if (ret == 0)
			ret = fuse_session_custom_io(kc->se, &io, fd);
		if (ret < 0)
			interrupts_stop(fsd);
	}
	if (ret < 0) {
		if (kc->se)
			fuse_session_destroy(kc->se);
		serving_free(kc->serving);
		free(kc);
		return ret;
	}
	fsd->kcache = kc;
	return 0;
}

/* The kernel offers what it can in FUSE_INIT. */
static bool init_offers_resend(const struct keep_head *h)
{
	const struct fuse_in_header *in = (const struct fuse_in_header *)h->init;
	const struct fuse_init_in *init = (const struct fuse_init_in *)(in + 1);

	return !testhook_is_old_kernel() && atomic_load(&h->init_len) >= sizeof(*in) + sizeof(*init) &&
	       init->flags & FUSE_INIT_EXT && init->flags2 & HAS_RESEND;
}

/* ---- mounting -------------------------------------------------------------------------------- */

static int open_device(void)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), ret = -errno;

	if (fd >= 0)
		return fd;
	log_err("/dev/fuse: %s: load the fuse module (modprobe fuse), or give this container the "
		"device",
		strerror(-ret));
	return ret;
}

/* The kernel's first request, which is there as soon as it is mounted. */
static int answer_init(struct kcache *kc)
{
	struct fuse_buf buf = { .mem = make_buffer() };
	int n;

	if (!buf.mem)
		return -ENOMEM;
	while ((n = fuse_session_receive_buf(kc->se, &buf)) == -EINTR)
		;
	if (n > 0)
		fuse_session_process_buf(kc->se, &buf);
	munmap(buf.mem, BUFFER_BYTES);
	now = (struct fuse_request_now){ 0 };
	if (n <= 0 || !atomic_load(&kc->fsd->keep->head->init_len)) {
		log_err("%s: the kernel does not begin as it should: %s", kc->mountpoint,
			n < 0 ? strerror(-n) : "no FUSE_INIT");
		return n < 0 ? n : -EPROTO;
	}
	return 0;
}

int kcache_mount(struct fsd *fsd)
{
	struct kcache *kc;
	struct stat st;
	char opts[256];
	unsigned long flags;
	int ret, fd;

	ret = detach_dead(fsd);
	if (ret == 0)
		ret = check_mountpoint(fsd->conf.mountpoint);
	if (ret < 0)
		return ret;
	fd = open_device();
	if (fd < 0)
		return fd;
	atomic_store(&fsd->keep->head->init_len, 0);
	atomic_store(&fsd->keep->head->is_drained, 0);
	atomic_store(&fsd->keep->head->has_no_epochs, 0);
	ret = make_session(fsd, fd);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	kc = fsd->kcache;
	snprintf(opts, sizeof(opts),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", fd);
	flags = vfsflags_noted(fsd);
	if (mount(fsd->conf.name, kc->mountpoint, "fuse.scoutfs", flags & ~(unsigned long)MS_RDONLY, opts) < 0) {
		ret = -errno;
		log_err("cannot mount at %s: %s: fsd must run as root, with the right to mount",
			kc->mountpoint, strerror(-ret));
		kcache_free(fsd);
		return ret;
	}
	kc->mounted = true;
	/* Nobody is served before FUSE_INIT is answered. */
	if (flags & MS_RDONLY && mount(NULL, kc->mountpoint, NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0) {
		ret = -errno;
		log_err("%s: it was read-only, and cannot be made so again: %s: unmount it (scoutfsctl stop) and "
			"mount it anew", kc->mountpoint, strerror(-ret));
		kcache_free(fsd);
		return ret;
	}
	vfsflags_applied(fsd);
	ret = answer_init(kc);
	if (ret < 0) {
		kcache_free(fsd);
		return ret;
	}
	kc->can_resend = init_offers_resend(fsd->keep->head);
	atomic_store(&kc->no_epochs, !fsd->conf.name_cache);
	new_epoch(kc);	/* learns whether there are any, before an entry is given out */
	atomic_store(&fsd->keep->head->has_no_epochs, atomic_load(&kc->no_epochs));
	if (mount_dev(kc->mountpoint, &st) == 0) {
		kc->dev_minor = minor(st.st_dev);
		raise_read_ahead(&st);
	}
	atomic_store(&fsd->keep->head->dev_minor, kc->dev_minor);
	keep_store_descriptor(fd);
	return 0;
}

/* Whether the connection ended while nobody was there, and not by an unmount: blockd cuts it when the mount's
 * lease has run out. */
static bool was_cut(struct fsd *fsd, int fd)
{
	struct pollfd p = { .fd = fd };
	char at[PATH_MAX];
	struct stat st;

	if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLERR))
		return false;
	if (!realpath(fsd->conf.mountpoint, at))
		snprintf(at, sizeof(at), "%s", fsd->conf.mountpoint);
	return mount_dev(at, &st) == 0 && minor(st.st_dev) == atomic_load(&fsd->keep->head->dev_minor);
}

int kcache_adopt(struct fsd *fsd, int fd)
{
	struct keep_head *h = fsd->keep->head;
	struct fuse_buf buf = { 0 };
	struct kcache *kc;
	int ret;

	if (!atomic_load(&h->init_len) || atomic_load(&h->init_len) > KEEP_INIT_MAX)
		return -EINVAL;
	if (!init_offers_resend(h) && !atomic_load(&h->is_drained)) {
		log_err("%s: its service has died, and this kernel cannot send again what was on "
			"its way (Linux 6.9 can): programs on the mount get errors",
			fsd->conf.mountpoint);
		return -EOPNOTSUPP;
	}
	if (was_cut(fsd, fd)) {
		log_notice("%s: its connection was cut while no fsd was there", fsd->conf.mountpoint);
		return -ENOTCONN;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	ret = make_session(fsd, fd);
	if (ret < 0)
		return ret;
	kc = fsd->kcache;
	kc->dev_minor = atomic_load(&h->dev_minor);
	kc->can_resend = init_offers_resend(h);
	atomic_store(&kc->no_epochs, atomic_load(&h->has_no_epochs));
	kc->mounted = true;
	kc->swallow = true;
	now = (struct fuse_request_now){ .opcode = FUSE_INIT };
	buf.mem = malloc(KEEP_INIT_MAX);
	if (buf.mem) {
		buf.size = atomic_load(&h->init_len);
		memcpy(buf.mem, h->init, buf.size);
		fuse_session_process_buf(kc->se, &buf);
		free(buf.mem);
	}
	now = (struct fuse_request_now){ 0 };
	kc->swallow = false;
	return buf.mem ? 0 : -ENOMEM;
}

static int ask_to_send_again(struct kcache *kc)
{
	struct fuse_out_header msg = { .len = sizeof(msg), .error = NOTIFY_RESEND };

	if (write(fuse_session_fd(kc->se), &msg, sizeof(msg)) == (ssize_t)sizeof(msg))
		return 0;
	/* ENODEV: unmounted meanwhile, which the first read tells as well */
	return errno == ENODEV || errno == ENOENT ? 0 : -errno;
}

/* ---- serving --------------------------------------------------------------------------------- */

int kcache_serve(struct fsd *fsd)
{
	struct kcache *kc = fsd->kcache;
	bool restarts;
	int ret;

	if (atomic_load(&fsd->is_resumed) && kc->can_resend) {
		ret = ask_to_send_again(kc);
		if (ret < 0) {
			log_err("%s: the kernel does not send again what had no answer: %s",
				kc->mountpoint, strerror(-ret));
			return ret;
		}
	}
	atomic_store(&kc->serving_ns, clock_mono_ns());
	atomic_store(&fsd->keep->head->is_drained, 0);
	if (gonedirs_start(fsd) < 0)
		log_warning("%s: no thread for directories that other nodes remove: getcwd(2) in one goes on until its name is "
			    "looked up", kc->mountpoint);
	ret = serving_run(kc->serving);
	/* Before a restart the caller of kcache_stop_reading has seen to it. */
	restarts = ret == 0 && serving_is_stopped(kc->serving);
	if (!gonedirs_stop(restarts ? 0 : TOLD_MS) && !restarts) {
		kcache_abort(fsd);	/* nobody answers any more what it waits for */
		gonedirs_stop(UINT_MAX);
	}
	pthread_mutex_lock(&kc->mutex);
	kc->served = true;
	pthread_cond_broadcast(&kc->cond);
	pthread_mutex_unlock(&kc->mutex);
	return ret;
}

void kcache_stop_reading(struct fsd *fsd)
{
	serving_stop(fsd->kcache->serving);
}

bool kcache_is_draining(struct fsd *fsd)
{
	return fsd->kcache && serving_is_stopped(fsd->kcache->serving);
}

bool kcache_can_resend(struct fsd *fsd)
{
	return fsd->kcache->can_resend;
}

bool kcache_has_served(struct fsd *fsd)
{
	uint64_t since = fsd->kcache ? atomic_load(&fsd->kcache->serving_ns) : 0;

	return since && clock_mono_ns() - since > SERVED_MS * NSEC_PER_MSEC;
}

void kcache_abort(struct fsd *fsd)
{
	struct kcache *kc = fsd->kcache;
	int ret;

	if (!kc || !kc->dev_minor)
		return;
	atomic_store(&fsd->was_cut, true);
	ret = fusectl_abort(kc->dev_minor);
	/* a forced unmount aborts as well, if the mount is not detached yet */
	if (ret < 0 && umount2(kc->mountpoint, MNT_FORCE | MNT_DETACH) < 0)
		log_err("%s: its connection cannot be cut: %s: programs on the mount hang until fsd ends",
			kc->mountpoint, strerror(-ret));
	fuse_session_exit(kc->se);
}

static bool wait_served(struct kcache *kc, unsigned ms)
{
	uint64_t end_ns = clock_mono_ns() + ms * NSEC_PER_MSEC;
	bool served;

	pthread_mutex_lock(&kc->mutex);
	while (!kc->served && clock_cond_wait(&kc->cond, &kc->mutex, end_ns) != ETIMEDOUT)
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
	struct pollfd pfd = { .events = POLLIN };
	struct stat st;

	if (!kc)
		return;
	pthread_mutex_lock(&kc->mutex);
	while (kc->unmounting)
		pthread_cond_wait(&kc->cond, &kc->mutex);
	pthread_mutex_unlock(&kc->mutex);
	fsd->kcache = NULL;
	/* What stands there is detached only if it is still ours: the connection tells. */
	pfd.fd = fuse_session_fd(kc->se);
	if (poll(&pfd, 1, 0) >= 0 && !(pfd.revents & POLLERR) && kc->mounted &&
	    mount_dev(kc->mountpoint, &st) == 0) {
		vfsflags_note(fsd);
		umount2(kc->mountpoint, MNT_DETACH);
	}
	keep_forget_descriptor();
	interrupts_stop(fsd);
	fuse_session_destroy(kc->se);
	pthread_cond_destroy(&kc->cond);
	pthread_mutex_destroy(&kc->mutex);
	serving_free(kc->serving);
	free(kc);
}

/* ---- what the kernel forgets ----------------------------------------------------------------- */

/* Whether the kernel can be told to forget entries (Linux 6.16); without, they are not cached. */
static bool kcache_has_epochs(struct fsd *fsd)
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
	struct kcache_call *call;	/* a revoke's */
	uint64_t patience_ns;		/* until then it waits for inodes that are on their way */
	bool left_out;
};

/*
 * The kernel does not know an inode that it was told of: whoever asked for it has the answer and has not run since, or it is
 * forgotten and has not said so.  The first one will make an inode of that answer, with attributes that it trusts.  A revoke
 * waits for that, or they would be trusted as long as nobody asks for the name again.
 */
static int inval_when_known(struct inval *iv, uint64_t ino)
{
	const struct timespec pause = { .tv_nsec = NSEC_PER_MSEC / 2 };
	int ret = -ENOENT;

	while (ret == -ENOENT && inode_in_use(iv->kc->fsd, ino) && clock_mono_ns() < iv->patience_ns) {
		nanosleep(&pause, NULL);
		ret = fuse_lowlevel_notify_inval_inode(iv->kc->se, node_of_ino(ino), iv->off, iv->len);
	}
	return ret;
}

static void inval_one(void *arg, uint64_t ino)
{
	struct inval *iv = arg;
	int ret = fuse_lowlevel_notify_inval_inode(iv->kc->se, node_of_ino(ino), iv->off, iv->len);

	if (ret == -ENOENT && iv->call)
		ret = inval_when_known(iv, ino);
	if (ret < 0 && ret != -ENOENT)
		log_debug("inode %llu: the kernel does not drop its cache: %s",
			  (unsigned long long)ino, strerror(-ret));
}

static void inval_range(struct inval *iv, uint64_t ino, uint64_t first, uint64_t end, uint64_t page)
{
	if (first == end || atomic_load(&iv->call->is_left))
		return;
	iv->off = (off_t)(first << SMALL_SHIFT);
	iv->len = end == UINT64_MAX ? 0 : (off_t)((end - first) << SMALL_SHIFT);
	atomic_store(&iv->call->page, page);
	atomic_store(&iv->call->since_ns, clock_mono_ns());
	inval_one(iv, ino);
}

/* All pages but those that are locked for a request, which show nothing.  What may be one of them comes last. */
static void inval_pages(void *arg, uint64_t ino)
{
	struct inval *iv = arg;
	struct busy_pages *busy = NULL;
	uint64_t from = 0;
	int nr;

	if (atomic_load(&iv->call->is_left)) {
		inode_give_begin(iv->kc->fsd, ino);	/* it was noted that it has nothing any more */
		inode_give_end(iv->kc->fsd);
		return;
	}
	if (iv->call->leaves_truncated && locks_keep_pages(iv->kc->fsd, ino)) {
		iv->left_out = true;
		inode_give_begin(iv->kc->fsd, ino);
		inode_give_end(iv->kc->fsd);
		return;
	}
	atomic_store(&iv->call->looked_ns, clock_mono_ns());
	nr = busy_pages(ino, &busy);
	if (nr < 0)
		fsd_fail(iv->kc->fsd, "out of memory");
	atomic_store(&iv->call->page, KCACHE_MANY);
	atomic_store(&iv->call->since_ns, clock_mono_ns());
	atomic_store(&iv->call->ino, ino);
	for (int i = 0; i < nr; i++) {
		inval_range(iv, ino, from, busy[i].first, KCACHE_MANY);
		from = busy[i].last + 1;
	}
	inval_range(iv, ino, from, UINT64_MAX, KCACHE_MANY);
	for (int i = 0; i < nr; i++) {
		for (uint64_t p = busy[i].first; busy[i].maybe && p <= busy[i].last; p++)
			inval_range(iv, ino, p, p + 1, p);
	}
	free(busy);
	atomic_store(&iv->call->ino, 0);
	if (nr || atomic_load(&iv->call->is_left)) {
		iv->left_out = true;
		inode_give_begin(iv->kc->fsd, ino);	/* to be dropped next time */
		inode_give_end(iv->kc->fsd);
	}
}

bool kcache_has_unread(struct fsd *fsd)
{
	struct pollfd p = { .events = POLLIN };

	if (!fsd->kcache)
		return false;
	p.fd = fuse_session_fd(fsd->kcache->se);
	return poll(&p, 1, 0) > 0 && p.revents & POLLIN;
}

bool kcache_invalidate(struct fsd *fsd, uint64_t first_ino, uint64_t last_ino, bool all, struct kcache_call *call)
{
	struct inval iv = { .kc = fsd->kcache, .call = call,
			    .patience_ns = clock_mono_ns() + ON_ITS_WAY_MS * NSEC_PER_MSEC };

	if (!iv.kc)
		return false;
	new_epoch(iv.kc);
	iv.off = -1;		/* attributes */
	inode_each_ref(fsd, first_ino, last_ino, all, false, inval_one, &iv);
	inode_each_ref(fsd, first_ino, last_ino, all, true, inval_pages, &iv);
	return iv.left_out;
}

/* What the kernel was given by an earlier process is not known by number: it is under the locks that there are. */
static void inval_locked(struct fsd *fsd, struct inval *iv, bool told)
{
	struct lock_state held[64];
	struct key at = KEY_ZEROS;
	size_t nr;

	while ((nr = locks_recover(fsd, &at, held, 64)) > 0) {
		for (size_t i = 0; i < nr; i++) {
			if (held[i].key.zone == ZONE_FS)
				inode_each_ref(fsd, held[i].key.first, held[i].key.first + INODE_LOCK_GROUP - 1, true,
					       told, inval_one, iv);
		}
		at = key_next(held[nr - 1].key);
	}
}

void kcache_forget_all(struct fsd *fsd, bool pages)
{
	struct inval iv = { .kc = fsd->kcache, .off = pages ? 0 : -1 };

	if (!iv.kc)
		return;
	if (!pages)
		new_epoch(iv.kc);
	inode_each_ref(fsd, 0, UINT64_MAX, true, pages, inval_one, &iv);
	if (atomic_load(&fsd->is_resumed))
		inval_locked(fsd, &iv, pages);
}

bool kcache_was_cut(struct fsd *fsd)
{
	return fsd->kcache && was_cut(fsd, fuse_session_fd(fsd->kcache->se));
}

void kcache_forget_attributes(struct fsd *fsd, uint64_t ino)
{
	struct inval iv = { .kc = fsd->kcache, .off = -1 };

	if (iv.kc)
		inval_one(&iv, ino);
}

int kcache_tell_removed(struct fsd *fsd, uint64_t parent, const char *name, size_t len)
{
	if (kcache_is_draining(fsd))
		return -EAGAIN;
	return fuse_lowlevel_notify_inval_entry(fsd->kcache->se, node_of_ino(parent), name, len);
}

bool kcache_knows(struct fsd *fsd, uint64_t ino)
{
	struct kcache *kc = fsd->kcache;
	uint64_t since = kc ? atomic_load(&kc->serving_ns) : 0;

	if (!since || clock_mono_ns() - since < KNOWS_ALL_MS * NSEC_PER_MSEC)
		return true;
	/* Only attributes are dropped, which waits for nobody. */
	return fuse_lowlevel_notify_inval_inode(kc->se, node_of_ino(ino), -1, 0) != -ENOENT;
}
