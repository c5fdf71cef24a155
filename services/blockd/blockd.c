/*
 * blockd: the only process that reads or writes a volume's devices on this host while the volume is in
 * use.  design.md D5, D6.
 *
 * It starts all or not at all: configuration, runtime directory, devices with their locks and super
 * blocks, tokens, pool, socket, in this order, and READY is said when a client can connect.  A start
 * that fails leaves nothing it made.
 *
 * One thread, one loop: take descriptors from the rings, tell the kernel, answer what has ended.  When
 * there was nothing to do for 50 us (5 us when that was mostly in vain lately) it asks for doorbells, looks once
 * more, and sleeps in epoll.  Death at any instruction is covered by the clients (they send again) and by
 * the kernel (it keeps the locks until the last write has ended); an orderly stop only saves them the
 * wait.
 */
#include "blockd.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "conf.h"
#include "ctl.h"
#include "log.h"
#include "sdn.h"

#define SOCKET_NAME	"blockd.sock"
#define PID_NAME	"blockd.pid"
#define GROUP_NAME	"scoutfs"
#define EVENTS_MAX	32
#define BUSY_PASSES	64	/* sockets and signals are looked at this often under full load */
#define RESUBMIT_MS	1

int blockd_watch(struct blockd *d, int fd, enum watch watch, unsigned index)
{
	struct epoll_event ev = { .events = watch == WATCH_BELL ? EPOLLIN | EPOLLET : EPOLLIN,
				  .data.u64 = WATCH_DATA(watch, index) };

	return epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* ---- start and stop ---- */

/* The services run as user scoutfs, fsd and blockd as root: the group may connect where it exists. */
static int socket_open(struct blockd *d)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char path[PATH_MAX];
	const struct group *gr = getgrnam(GROUP_NAME);
	mode_t old;
	int ret = 0;

	conf_runtime_path(d->conf, SOCKET_NAME, path, sizeof(path));
	if (strlen(path) >= sizeof(sa.sun_path)) {
		log_err("%s: longer than a socket's path may be (%zu bytes); use a shorter runtime_dir",
			path, sizeof(sa.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memcpy(sa.sun_path, path, strlen(path) + 1);
	d->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->listen_fd < 0) {
		ret = -errno;
		log_err("%s: %s", path, strerror(-ret));
		return ret;
	}
	/* We hold the devices' locks: a socket that is there belongs to a blockd that is dead. */
	unlink(path);
	old = umask(0177);
	if (bind(d->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		ret = -errno;
	umask(old);
	if (ret == 0 && gr && (chown(path, (uid_t)-1, gr->gr_gid) < 0 || chmod(path, 0660) < 0))
		ret = -errno;
	if (ret == 0 && listen(d->listen_fd, BLOCKD_CLIENTS_MAX) < 0)
		ret = -errno;
	if (ret < 0) {
		log_err("%s: cannot be listened on: %s", path, strerror(-ret));
		close(d->listen_fd);
		d->listen_fd = -1;
		unlink(path);
	}
	return ret;
}

static void signals_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
}

static int events_open(struct blockd *d)
{
	sigset_t set;
	int fds[2];
	int ret;

	signals_set(&set);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->signal_fd < 0 || d->epoll_fd < 0) {
		ret = -errno;
	} else {
		engine_fds(d->engine, fds);
		ret = blockd_watch(d, d->listen_fd, WATCH_LISTEN, 0);
		if (ret == 0)
			ret = blockd_watch(d, d->signal_fd, WATCH_SIGNAL, 0);
		if (ret == 0)
			ret = blockd_watch(d, fds[0], WATCH_BELL, 0);
		if (ret == 0 && fds[1] >= 0)
			ret = blockd_watch(d, fds[1], WATCH_BELL, 0);
	}
	if (ret < 0)
		log_err("the event loop cannot start: %s", strerror(-ret));
	return ret;
}

static void runtime_unlink(const struct blockd *d, const char *name)
{
	char path[PATH_MAX];

	conf_runtime_path(d->conf, name, path, sizeof(path));
	unlink(path);
}

/* Take down what stands, in reverse; `failed`: also what only this start made. */
static void blockd_close(struct blockd *d, bool failed)
{
	if (d->listen_fd >= 0) {
		runtime_unlink(d, SOCKET_NAME);
		close(d->listen_fd);
	}
	if (d->ctl)
		ctl_stop(d->ctl);
	engine_close(d->engine);
	if (d->epoll_fd >= 0)
		close(d->epoll_fd);
	if (d->signal_fd >= 0)
		close(d->signal_fd);
	pool_close(&d->pool, d->conf->runtime_dir, failed && d->pool.is_new);
	/* Ours as long as we hold the locks. */
	if (d->vol.dev[BLK_DEV_META].fd >= 0)
		runtime_unlink(d, PID_NAME);
	volume_close(&d->vol);
}

static int pid_record(const struct blockd *d)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	int ret = rundir_replace(d->conf->runtime_dir, PID_NAME, text, (size_t)len);

	if (ret < 0)
		log_err("%s/" PID_NAME ": cannot be written: %s", d->conf->runtime_dir,
			strerror(-ret));
	return ret;
}

static int blockd_open(struct blockd *d)
{
	const struct instance_conf *conf = d->conf;
	const char *no_uring = getenv("SCOUTFS_NO_URING");
	char pid_path[PATH_MAX];
	int ret;

	conf_runtime_path(conf, PID_NAME, pid_path, sizeof(pid_path));
	ret = rundir_check(conf->runtime_dir);
	if (ret == 0)
		ret = volume_open(&d->vol, conf->meta_device, conf->data_device, pid_path);
	if (ret == 0)
		limits_check(&d->vol, conf->longest_io_ms, "/sys");
	if (ret == 0)
		ret = pid_record(d);
	if (ret == 0)
		ret = tokens_load(&d->tokens, conf->runtime_dir, d->vol.fsid);
	if (ret == 0)
		leases_load(d);
	if (ret == 0)
		ret = pool_open(&d->pool, conf->runtime_dir, conf->pool_size);
	if (ret == 0)
		ret = engine_open(&d->engine, no_uring && strcmp(no_uring, "1") == 0);
	if (ret == 0)
		ret = status_start(d);
	if (ret == 0)
		ret = socket_open(d);
	if (ret == 0)
		ret = events_open(d);
	return ret;
}

/* ---- the loop ---- */

static void signals_read(struct blockd *d)
{
	struct signalfd_siginfo si;

	if (read(d->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		d->is_stopping = true;
}

/* At most once in half of the time systemd gives us. */
static void alive_tell(struct blockd *d)
{
	uint64_t now = clock_mono_ns();

	if (d->watchdog_ns && now >= d->watchdog_due_ns) {
		sdn_watchdog();
		d->watchdog_due_ns = now + d->watchdog_ns / 2;
	}
}

static void clients_tell(struct blockd *d)
{
	if (d->clients_told == d->conns_nr + 1)
		return;
	d->clients_told = d->conns_nr + 1;
	sdn_status("serving volume %016" PRIx64 " to %u clients through %s", d->vol.fsid,
		   d->conns_nr, engine_name(d->engine));
}

/* Wait for events and handle those of sockets and signals; rings and engine are the loop's. */
static void events_wait(struct blockd *d, int timeout_ms)
{
	struct epoll_event ev[EVENTS_MAX];
	bool must_accept = false;
	int nr;

	nr = epoll_wait(d->epoll_fd, ev, EVENTS_MAX, timeout_ms);
	for (int i = 0; i < nr; i++) {
		unsigned index = (unsigned)(ev[i].data.u64 & UINT32_MAX);

		switch ((enum watch)(ev[i].data.u64 >> 32)) {
		case WATCH_LISTEN:
			must_accept = true;
			break;
		case WATCH_SIGNAL:
			signals_read(d);
			break;
		case WATCH_SOCKET:
			conn_socket_event(d, index);
			break;
		case WATCH_BELL:
			/* Rings and engine are looked at in any case. */
			break;
		}
	}
	/* Last, so that no event of this batch meets a new connection in an old one's place. */
	if (must_accept)
		conns_accept(d);
	alive_tell(d);
	clients_tell(d);
}

/* Answer what has ended.  Whether there was any. */
static bool ends_answer(struct blockd *d)
{
	struct io *list = engine_reap(d->engine);

	if (list)
		conns_complete(d, list);
	return list != NULL;
}

static void loop_sleep(struct blockd *d, bool must_resubmit)
{
	int timeout_ms = leases_tick(d);

	if (d->watchdog_ns && (timeout_ms < 0 || d->watchdog_ns / 2 / NSEC_PER_MSEC < (uint64_t)timeout_ms))
		timeout_ms = (int)(d->watchdog_ns / 2 / NSEC_PER_MSEC) + 1;
	if (must_resubmit)
		timeout_ms = RESUBMIT_MS;
	stats_inc(&d->stats.sleeps);
	engine_sleep_begin(d->engine);
	if (conns_sleep_begin(d) || ends_answer(d))
		timeout_ms = 0;
	/* what ended short has been queued again */
	if (!engine_submit(d->engine) && timeout_ms != 0)
		timeout_ms = RESUBMIT_MS;
	events_wait(d, timeout_ms);
	conns_sleep_end(d);
	engine_sleep_end(d->engine);
}

static void loop_run(struct blockd *d)
{
	uint64_t busy_ns = clock_mono_ns();
	struct blkring_spin *spin = &d->spin[0];
	uint64_t spin_ns = BLKRING_SPIN_MIN_NS;
	uint64_t now;
	unsigned passes = 0;

	while (!d->is_stopping) {
		bool any = conns_drain(d);
		bool is_submitted = engine_submit(d->engine);

		any |= ends_answer(d);
		now = clock_mono_ns();
		if (any) {
			blkring_spin_end(spin, now - busy_ns);
			/* Ends that come close together say nothing of when there will be more to do. */
			spin = &d->spin[d->ios_nr > 0];
			spin_ns = blkring_spin_ns(spin);
			busy_ns = now;
			if (++passes % BUSY_PASSES == 0) {
				leases_tick(d);
				events_wait(d, 0);
			}
		} else if (now - busy_ns < spin_ns) {
			blkring_relax();
		} else {
			loop_sleep(d, !is_submitted);
		}
	}
}

/* What was begun is ended; clients send the rest to the next blockd. */
static void loop_stop(struct blockd *d)
{
	sdn_stopping();
	/* From here on only ends of I/O wake us. */
	epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, d->listen_fd, NULL);
	epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, d->signal_fd, NULL);
	conns_close(d);
	while (d->ios_nr > 0) {
		bool is_submitted = engine_submit(d->engine);

		if (ends_answer(d))
			continue;
		sdn_status("stopping: waiting for %u operations to end", d->ios_nr);
		engine_sleep_begin(d->engine);
		if (!ends_answer(d)) {
			struct epoll_event ev[EVENTS_MAX];

			(void)epoll_wait(d->epoll_fd, ev, EVENTS_MAX, is_submitted ? 1000 : RESUBMIT_MS);
		}
		engine_sleep_end(d->engine);
		alive_tell(d);
	}
}

int blockd_main(int argc, char **argv)
{
	static struct blockd blockd;
	struct instance_conf conf;
	struct blockd *d = &blockd;
	bool is_done = false;
	sigset_t set;
	int ret;

	ret = conf_from_args(&conf, argc, argv, &is_done);
	if (ret != 0 || is_done)
		return ret;

	/* Before there is any thread: they are the loop's. */
	signals_set(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->conf = &conf;
	d->started_ns = clock_mono_ns();
	d->look_known_ns = LOOK_KNOWN_NS;
	d->watchdog_ns = sdn_watchdog_ns();
	d->listen_fd = -1;
	d->epoll_fd = -1;
	d->signal_fd = -1;
	d->pool.fd = -1;
	pthread_mutex_init(&d->leases_lock, NULL);
	for (unsigned i = 0; i < BLK_DEVS_NR; i++)
		d->vol.dev[i].fd = -1;
	for (unsigned i = 0; i < BLOCKD_IOS_MAX; i++) {
		d->ios[i].next = d->free_ios;
		d->free_ios = &d->ios[i];
	}
	ret = blockd_open(d);
	if (ret < 0) {
		blockd_close(d, true);
		return EXIT_FAILURE;
	}
	log_info("serving volume %016" PRIx64 ": %s, %s, through %s", d->vol.fsid, conf.meta_device,
		 conf.data_device, engine_name(d->engine));
	sdn_ready();
	loop_run(d);
	loop_stop(d);
	blockd_close(d, false);
	log_info("stopped");
	return EXIT_SUCCESS;
}
