/*
 * The caller's memory.  FUSE hands an ioctl's own struct over, but never what pointers in it lead
 * to; so results are written into the calling process from here.
 *
 * What makes that no more than the caller could do itself:
 *  - Only the thread of a request that is still unanswered is touched.  /proc/TID, opened once,
 *    pins the task; its `syscall` must say that it waits in this very ioctl with this argument,
 *    before the copy and again after it.  A thread waiting for us cannot be reused under us.
 *  - Its memory must be open to the credentials of the request: `mem` is opened with its fsuid and
 *    fsgid and no capability.  Programs that nobody but root may debug (root's, set-uid, Yama) fail
 *    that though they are the caller; for them the check is repeated with CAP_SYS_PTRACE, once
 *    their fsuid is known to be the request's.
 *  - The copy is process_vm_writev: it respects the protection of pages, which writing to `mem`
 *    does not.
 *  - Addresses come from the request's own struct; sizes are bounded by our callers.
 *
 * Another process can make such a copy wait for ever (userfaultfd, a page of a hung mount, or of
 * this mount).  So this runs in threads of its own, few for each user, which hold no lock,
 * transaction or request thread of the mount.  However many users do that, as many threads are left
 * for root as one user may have.  When the mount ends they are waited for a while and then left
 * behind: the end of the process ends them.
 */
#include "caller.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "thread.h"

#define RUNNING_PER_UID		4u
#define WAITING_PER_UID		2048u
#define WAITING_TOTAL		8192u		/* of all but root */
#define BYTES_PER_UID		(64u << 20)	/* of those that wait and those that run */
#define BYTES_TOTAL		(256u << 20)
#define BYTES_ROOT		(BYTES_TOTAL - BYTES_PER_UID)	/* with all others': more than its own only below this */
#define THREADS_MAX		64u
#define COPY_BYTES		(240u << 10)	/* between looks whether it was interrupted */
#define SETTLE_MS		2000u		/* for a thread on its way to sleep in its ioctl */

/* ---- threads ------------------------------------------------------------------------- */

/* Who has jobs. */
struct user {
	struct user *next;
	uint32_t uid;
	unsigned running, waiting;
	size_t bytes;
};

struct job {
	struct job *next;
	struct user *user;
	bool running;
	size_t bytes;
	void (*work)(void *arg);
	void *arg;
};

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t idle;
	struct job *jobs, **tail;	/* oldest first; running ones too */
	struct user *users;
	unsigned waiting, threads_nr;
	unsigned running_users;	/* all but root */
	size_t bytes;
	unsigned inside;	/* threads between caller_enter and caller_leave */
	bool stopping, gone;
} copies = { .mutex = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER, .tail = &copies.jobs };

static struct user *user_get(uint32_t uid)
{
	struct user *u = copies.users;

	while (u && u->uid != uid)
		u = u->next;
	if (u)
		return u;
	u = calloc(1, sizeof(*u));
	if (u) {
		u->uid = uid;
		u->next = copies.users;
		copies.users = u;
	}
	return u;
}

static void user_put(struct user *u)
{
	struct user **at = &copies.users;

	if (u->running || u->waiting)
		return;
	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	free(u);
}

static bool has_room(const struct user *u, size_t bytes)
{
	bool is_share = u->bytes + bytes <= BYTES_PER_UID;

	if (u->waiting >= WAITING_PER_UID)
		return false;
	/* others cannot keep root out, whose programs walk a whole volume, many at a time; nor it them */
	if (u->uid == 0)
		return is_share || copies.bytes + bytes <= BYTES_ROOT;
	return is_share && copies.waiting < WAITING_TOTAL && copies.bytes + bytes <= BYTES_TOTAL;
}

static bool may_run(const struct user *u)
{
	return u->running < RUNNING_PER_UID &&
	       (u->uid == 0 || copies.running_users < THREADS_MAX - RUNNING_PER_UID);
}

static struct job *next_job(void)
{
	for (struct job *j = copies.jobs; j && copies.waiting; j = j->next) {
		if (!j->running && may_run(j->user))
			return j;
	}
	return NULL;
}

static void add_job(struct job *job)
{
	*copies.tail = job;
	copies.tail = &job->next;
	copies.waiting++;
	copies.bytes += job->bytes;
	job->user->waiting++;
	job->user->bytes += job->bytes;
}

static void start_job(struct job *job)
{
	job->running = true;
	copies.waiting--;
	job->user->waiting--;
	job->user->running++;
	copies.running_users += job->user->uid != 0;
}

static void remove_job(struct job *job)
{
	struct job **at = &copies.jobs;

	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	if (copies.tail == &job->next)
		copies.tail = at;
	copies.bytes -= job->bytes;
	job->user->bytes -= job->bytes;
	if (job->running) {
		job->user->running--;
		copies.running_users -= job->user->uid != 0;
	} else {
		copies.waiting--;
		job->user->waiting--;
	}
	user_put(job->user);
	free(job);
}

static void *copy_thread(void *arg)
{
	struct job *job;

	(void)arg;
	pthread_mutex_lock(&copies.mutex);
	while ((job = next_job())) {
		start_job(job);
		pthread_mutex_unlock(&copies.mutex);
		job->work(job->arg);
		pthread_mutex_lock(&copies.mutex);
		remove_job(job);
	}
	copies.threads_nr--;
	pthread_cond_broadcast(&copies.idle);
	pthread_mutex_unlock(&copies.mutex);
	return NULL;
}

/* A thread more, if one is of use.  The mutex is held. */
static int add_thread(void)
{
	pthread_t thread;
	int ret;

	if (!next_job() || copies.threads_nr == THREADS_MAX)
		return 0;
	ret = thread_start(&thread, "ioctl memory", copy_thread, NULL);
	if (ret < 0)
		return ret;
	pthread_detach(thread);
	copies.threads_nr++;
	return 0;
}

int caller_run(uint32_t uid, size_t bytes, void (*work)(void *arg), void *arg)
{
	struct job *job = calloc(1, sizeof(*job));
	int ret = 0;

	if (!job)
		return -ENOMEM;
	pthread_mutex_lock(&copies.mutex);
	*job = (struct job){ .user = user_get(uid), .bytes = bytes, .work = work, .arg = arg };
	if (!job->user)
		ret = -ENOMEM;
	else if (copies.stopping)
		ret = -ESHUTDOWN;
	else if (!has_room(job->user, bytes))
		ret = -EAGAIN;
	if (ret == 0) {
		add_job(job);
		ret = add_thread();
		if (ret < 0 && copies.threads_nr)
			ret = 0;	/* one that is there takes it */
		if (ret < 0)
			remove_job(job);
	} else {
		if (job->user)
			user_put(job->user);
		free(job);
	}
	pthread_mutex_unlock(&copies.mutex);
	return ret;
}

bool caller_enter(void)
{
	bool gone;

	pthread_mutex_lock(&copies.mutex);
	gone = copies.gone;
	copies.inside += !gone;
	pthread_mutex_unlock(&copies.mutex);
	return gone;
}

void caller_leave(void)
{
	pthread_mutex_lock(&copies.mutex);
	copies.inside--;
	pthread_cond_broadcast(&copies.idle);
	pthread_mutex_unlock(&copies.mutex);
}

void caller_stop(unsigned wait_ms)
{
	uint64_t end_ns = clock_mono_ns() + wait_ms * NSEC_PER_MSEC;
	int rc = 0;

	pthread_mutex_lock(&copies.mutex);
	copies.stopping = true;
	while (copies.threads_nr && rc == 0)
		rc = clock_cond_wait(&copies.idle, &copies.mutex, end_ns);
	if (copies.threads_nr)
		log_warning(
			"%u programs do not take the answers of their ioctls: they are given up",
			copies.threads_nr);
	copies.gone = true;
	while (copies.inside)
		pthread_cond_wait(&copies.idle, &copies.mutex);
	pthread_mutex_unlock(&copies.mutex);
}

/* ---- credentials of this thread ------------------------------------------------------ */

/* The C library sets credentials of all threads; the system calls, of the calling one. */
struct caps {
	struct __user_cap_data_struct data[2];
};

static int caps_get(struct caps *caps)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capget, &head, caps->data) < 0 ? -errno : 0;
}

static int caps_set_effective(const struct caps *have, uint64_t effective)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct caps caps = *have;

	caps.data[0].effective = (uint32_t)effective & have->data[0].permitted;
	caps.data[1].effective = (uint32_t)(effective >> 32) & have->data[1].permitted;
	return syscall(SYS_capset, &head, caps.data) < 0 ? -errno : 0;
}

static int set_fs_ids(uid_t uid, gid_t gid)
{
	syscall(SYS_setfsgid, gid);
	syscall(SYS_setfsuid, uid);
	return (uid_t)syscall(SYS_setfsuid, -1) == uid && (gid_t)syscall(SYS_setfsgid, -1) == gid
		       ? 0
		       : -EPERM;
}

static int creds_assume(const struct caps *have, uid_t uid, gid_t gid, uint64_t effective)
{
	int ret = set_fs_ids(uid, gid);

	return ret < 0 ? ret : caps_set_effective(have, effective);
}

/* Back to what the daemon has; a thread that could not must not do anything any more. */
static void creds_restore(const struct caps *have, int dumpable)
{
	uint64_t effective = have->data[0].effective | (uint64_t)have->data[1].effective << 32;

	if (caps_set_effective(have, UINT64_MAX) < 0 || set_fs_ids(geteuid(), getegid()) < 0 ||
	    caps_set_effective(have, effective) < 0) {
		log_err("a thread cannot get its credentials back: %s", strerror(errno));
		abort();
	}
	/* changing them has made the daemon one that leaves no core */
	if (dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1);
}

/* ---- who it is ----------------------------------------------------------------------- */

static long ioctl_number(const struct caller *c)
{
#if defined(__x86_64__)
	return c->compat ? 54 : 16;
#elif defined(__aarch64__)
	return c->compat ? 54 : 29;
#else
	return c->compat ? -1 : SYS_ioctl;
#endif
}

/* "NR ARG1 ARG2 ...", "running", or "-1 SP PC" outside a system call. */
static int read_syscall(int dir, char *buf, size_t size)
{
	int fd = openat(dir, "syscall", O_RDONLY | O_CLOEXEC);
	ssize_t n;
	int ret = 0;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		ret = -errno;
	else
		buf[n] = 0;
	close(fd);
	return ret;
}

static void pause_ms(unsigned ms)
{
	struct timespec ts = { .tv_nsec = (long)ms * 1000000 };

	nanosleep(&ts, NULL);
}

/* Whether the task waits in the ioctl of the request: 0, -EINTR if not, -EACCES, -EPERM. */
static int check_waits(int dir, const struct caller *c)
{
	uint64_t deadline = clock_mono_ns() + SETTLE_MS * NSEC_PER_MSEC, cmd, arg;
	char buf[256];
	long nr;
	int ret;

	for (unsigned tries = 0;; tries++) {
		ret = read_syscall(dir, buf, sizeof(buf));
		if (ret == -ESRCH || ret == -ENOENT)
			return -EINTR;
		if (ret < 0)
			return ret;
		/* the request can be here before its thread sleeps */
		if (strncmp(buf, "running", 7) != 0)
			break;
		if (clock_mono_ns() > deadline)
			return -EINTR;
		if (tries < 32)
			sched_yield();
		else
			pause_ms(1);
	}
	if (sscanf(buf, "%ld %*s %lx %lx", &nr, &cmd, &arg) != 3)
		return -EINTR;
	if (nr != ioctl_number(c) || (uint32_t)cmd != c->cmd ||
	    (c->compat ? (uint32_t)arg : arg) != c->arg)
		return -EINTR;
	return 0;
}

struct status {
	uint64_t cap_eff;
	uid_t fsuid;
	bool has_fsuid, has_caps;
};

static int parse_groups(const char *at, struct caller *c)
{
	char *end;

	for (;;) {
		unsigned long gid = strtoul(at, &end, 10);
		gid_t *more;

		if (end == at)
			return 0;
		more = realloc(c->groups, (c->groups_nr + 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		c->groups = more;
		c->groups[c->groups_nr++] = (gid_t)gid;
		at = end;
	}
}

static int read_status(int dir, struct status *st, struct caller *groups_to)
{
	int fd = openat(dir, "status", O_RDONLY | O_CLOEXEC), ret = 0;
	char *line = NULL;
	size_t size = 0;
	FILE *f;

	memset(st, 0, sizeof(*st));
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? -EINTR : -errno;
	f = fdopen(fd, "r");
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	/* a name of the program's own choice comes first, but without newlines */
	while (ret == 0 && getline(&line, &size, f) > 0) {
		if (strncmp(line, "Uid:", 4) == 0)
			st->has_fsuid = sscanf(line + 4, "%*u %*u %*u %u", &st->fsuid) == 1;
		else if (strncmp(line, "CapEff:", 7) == 0)
			st->has_caps = sscanf(line + 7, "%lx", &st->cap_eff) == 1;
		else if (groups_to && strncmp(line, "Groups:", 7) == 0)
			ret = parse_groups(line + 7, groups_to);
	}
	free(line);
	fclose(f);
	if (ret == 0 && (!st->has_fsuid || !st->has_caps))
		ret = -EINTR;	/* it has ended in between */
	return ret;
}

static bool is_in_our_user_ns(int dir)
{
	struct stat ours, theirs;

	return stat("/proc/self/ns/user", &ours) == 0 && fstatat(dir, "ns/user", &theirs, 0) == 0 &&
	       ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

/* The task's directory, which stays the task's whatever becomes of its number. */
static int open_task(const struct caller *c)
{
	static atomic_bool said;
	char path[32];
	int dir;

	if (c->tid == 0) {
		if (!atomic_exchange(&said, true))
			log_notice("ioctls of programs in other pid namespaces are refused where "
				   "they need the program's memory or capabilities: use the native "
				   "forms, or run fsd in the host's namespace");
		return -EOPNOTSUPP;
	}
	snprintf(path, sizeof(path), "/proc/%d", c->tid);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT || errno == ESRCH ? -EINTR : -errno;
	return dir;
}

/* Whether the task's user namespace knows an id, as user_namespaces(7) has it: "INSIDE OUTSIDE COUNT" in each line. */
static bool is_mapped(int dir, const char *map, uint32_t id)
{
	int fd = openat(dir, map, O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	unsigned long outside, count;
	bool found = false;

	if (!f) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!found && fscanf(f, "%*u %lu %lu", &outside, &count) == 2)
		found = id >= outside && id - outside < count;
	fclose(f);
	return found;
}

int caller_caps(pid_t tid, uint32_t uid, uint32_t gid, uint64_t *caps)
{
	struct status st;
	char path[32];
	int dir, ret;

	if (tid == 0)
		return -EOPNOTSUPP;
	snprintf(path, sizeof(path), "/proc/%d", tid);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	ret = read_status(dir, &st, NULL);
	/* anybody has all of them in a user namespace of his own; they count for files of those whom it knows */
	if (ret == 0 && st.cap_eff && !is_in_our_user_ns(dir) &&
	    !(is_mapped(dir, "uid_map", uid) && is_mapped(dir, "gid_map", gid)))
		st.cap_eff = 0;
	close(dir);
	*caps = st.cap_eff;
	return ret;
}

int caller_identify(struct caller *c)
{
	struct status st;
	int dir = open_task(c), ret;

	c->caps = 0;
	c->groups_nr = 0;
	if (dir == -EOPNOTSUPP)
		return 0;	/* it has what everybody has */
	if (dir < 0)
		return dir;
	ret = read_status(dir, &st, c);
	if (ret == 0 && is_in_our_user_ns(dir))
		c->caps = st.cap_eff;
	/* last: what was read was read of the thread that waits for us */
	if (ret == 0)
		ret = check_waits(dir, c);
	if (ret == 0 && st.fsuid != c->uid)
		ret = -EPERM;
	if (ret < 0)
		c->caps = 0;
	close(dir);
	return ret;
}

bool caller_in_group(const struct caller *c, gid_t gid)
{
	if (c->gid == gid)
		return true;
	for (size_t i = 0; i < c->groups_nr; i++) {
		if (c->groups[i] == gid)
			return true;
	}
	return false;
}

void caller_fini(struct caller *c)
{
	free(c->groups);
	c->groups = NULL;
	c->groups_nr = 0;
}

/* ---- its memory ---------------------------------------------------------------------- */

static bool yama_is_on(void)
{
	int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC);
	char scope = '0';

	if (fd < 0)
		return false;
	if (read(fd, &scope, 1) != 1)
		scope = '0';
	close(fd);
	return scope != '0';
}

/* With the credentials at hand: is the memory open to them, and does the task wait for us? */
static int try_access(int dir, const struct caller *c)
{
	int fd = openat(dir, "mem", O_RDWR | O_CLOEXEC), ret;

	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? -EINTR : -errno;
	ret = check_waits(dir, c);
	close(fd);
	return ret;
}

static int authorise(int dir, const struct caller *c)
{
	int dumpable = prctl(PR_GET_DUMPABLE), ret;
	struct caps have;
	struct status st;
	struct stat owner;

	ret = caps_get(&have);
	if (ret == 0)
		ret = read_status(dir, &st, NULL);
	/* not the directory, which is the user's even where nobody but root may debug */
	if (ret == 0 && fstatat(dir, "mem", &owner, 0) < 0)
		ret = -EINTR;
	if (ret < 0)
		return ret;
	if (st.fsuid != c->uid)
		return -EPERM;

	ret = creds_assume(&have, c->uid, c->gid, 0);
	if (ret == 0)
		ret = try_access(dir, c);
	creds_restore(&have, dumpable);
	if (ret != -EACCES && ret != -EPERM)
		return ret;
	if (c->uid != 0 && st.cap_eff == 0 && owner.st_uid == c->uid && !yama_is_on())
		return -EPERM;	/* nothing explains why it may not touch itself */
	ret = creds_assume(&have, owner.st_uid, owner.st_gid, 1ull << CAP_SYS_PTRACE);
	if (ret == 0)
		ret = try_access(dir, c);
	creds_restore(&have, dumpable);
	return ret == -EACCES ? -EPERM : ret;
}

static int copy(const struct caller *c, uint64_t to, const uint8_t *from, size_t len)
{
	struct iovec local = { (void *)(uintptr_t)from, len },
		     remote = { (void *)(uintptr_t)to, len };
	ssize_t n;

	do {
		n = process_vm_writev(c->tid, &local, 1, &remote, 1, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ESRCH ? -EINTR : errno == EPERM ? -EPERM : -EFAULT;
	return (size_t)n == len ? 0 : -EFAULT;
}

int caller_write(struct fsd *fsd, const struct caller *c, uint64_t to, const void *from, size_t len,
		 size_t unit, bool (*interrupted)(void *arg), void *arg, size_t *done)
{
	int dir, ret;

	*done = 0;
	if (to + len < to || (c->compat && to + len > UINT32_MAX))
		return -EFAULT;
	dir = open_task(c);
	if (dir < 0)
		return dir;
	ret = authorise(dir, c);
	while (ret == 0 && *done < len) {
		size_t part = len - *done < COPY_BYTES ? len - *done : COPY_BYTES / unit * unit;

		if (interrupted(arg)) {
			ret = -EINTR;
			break;
		}
		ret = copy(c, to + *done, (const uint8_t *)from + *done, part);
		if (ret < 0)
			break;
		ret = check_waits(dir, c);
		if (ret < 0)
			log_notice("thread %d ended its ioctl while the answer was copied to it",
				   c->tid);
		else
			*done += part;
	}
	close(dir);
	if (!caller_enter()) {
		stats_inc(ret == -EPERM ? &fsd->stats.ioctl_refused : &fsd->stats.ioctl_resolved);
		caller_leave();
	}
	return ret;
}
