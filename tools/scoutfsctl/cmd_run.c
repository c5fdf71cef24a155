/*
 * `scoutfsctl run`: the services of one instance in the foreground (or, with -d, behind it) where
 * no systemd does it.  It brings them up in order, each when the one before is READY, restarts one
 * that ends, and takes them down in reverse.  It knows nothing of a volume: what it promises is
 * that when it ends nothing it started runs any more.
 *
 * A service may have a descriptor kept for its next process, as with systemd's descriptor store
 * (sd_pid_notify_with_fds(3), FDSTORE=1): fsd does so with the kernel's connection, which would be
 * gone with its process otherwise.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "commands.h"
#include "runtime.h"
#include "services.h"

#define RESTART_FIRST_MS 100
#define RESTART_MAX_MS	 5000
#define STOP_LIMIT_MS	 120000 /* then SIGKILL */
#define OVERRIDES_MAX	 32
#define LONG_ENOUGH_MS	 1000	/* a service that ran for so long is started again at once */
#define RESTART_LIMIT_MS 120000
#define EXIT_KEPT	 75	/* of a service that has ended for its next process to go on */
#define EXIT_FENCED	 76	/* of an fsd whose mount was fenced */
#define STORE_NAME_MAX	 32
#define LISTEN_FDS_START 3
#define NOTIFIES_MAX	 64

struct child {
	pid_t pid;
	bool wanted;
	bool ready;
	bool is_owed; /* fsd: it ended and was to come again, for what it has not stored */
	uint64_t started_ms;
	uint64_t restart_ms; /* start again at that time; 0: not waiting */
	unsigned backoff_ms;
	int kept_fd; /* -1: none */
	char kept_name[STORE_NAME_MAX];
};

struct supervisor {
	struct instance_conf conf;
	const char *conf_arg;
	const char *overrides[OVERRIDES_MAX];
	unsigned overrides_nr;
	struct child s[SERVICES_NR];
	int notify_fd, signal_fd;
	int ready_fd; /* -d: the waiting parent's pipe; else -1 */
	char notify_path[108];
	bool up; /* all were READY once */
	bool stopping;
	int needed_nr; /* those before it have not been asked to end */
	bool keeps_runtime; /* there is what no process has stored */
	int status;
};

static uint64_t now_ms(void)
{
	return clock_mono_ns() / 1000000;
}

/* The daemon beside this program (a build tree), else where `make install` puts it. */
static void daemon_path(const char *service, char *buf, size_t size)
{
	char self[3072];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = 0;
		slash = strrchr(self, '/');
		if (slash)
			*slash = 0;
		snprintf(buf, size, "%s/scoutfs-%s", self, service);
		if (access(buf, X_OK) == 0)
			return;
	}
	snprintf(buf, size, "/usr/sbin/scoutfs-%s", service);
}

static int open_notify(struct supervisor *sv)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int on = 1, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	snprintf(sv->notify_path, sizeof(sv->notify_path), "@scoutfs-run-%d", (int)getpid());
	memcpy(sa.sun_path, sv->notify_path, strlen(sv->notify_path));
	sa.sun_path[0] = 0;
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&sa,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
			     strlen(sv->notify_path))) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	sv->notify_fd = fd;
	return 0;
}

/* In the new process: what was kept, where sd_listen_fds(3) looks for it. */
static void pass_kept(const struct child *s)
{
	char pid[16];

	if (s->kept_fd < 0) {
		unsetenv("LISTEN_FDS");
		return;
	}
	/* dup2 to itself would leave it to be closed by exec */
	if (s->kept_fd == LISTEN_FDS_START)
		fcntl(s->kept_fd, F_SETFD, 0);
	else
		dup2(s->kept_fd, LISTEN_FDS_START);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	setenv("LISTEN_FDNAMES", s->kept_name, 1);
}

static void start_service(struct supervisor *sv, int i)
{
	const char *argv[6 + 2 * OVERRIDES_MAX];
	unsigned n = 0;
	char path[4096];
	pid_t pid;

	daemon_path(service_name(i), path, sizeof(path));
	argv[n++] = path;
	argv[n++] = "-f";
	argv[n++] = sv->conf_arg;
	for (unsigned o = 0; o < sv->overrides_nr; o++) {
		argv[n++] = "-o";
		argv[n++] = sv->overrides[o];
	}
	argv[n] = NULL;

	pid = fork();
	if (pid == 0) {
		sigset_t none;

		/* this program has one thread: the signal comes when it dies, not earlier */
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		signal(SIGPIPE, SIG_DFL);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setenv("NOTIFY_SOCKET", sv->notify_path, 1);
		pass_kept(&sv->s[i]);
		execv(path, (char *const *)argv);
		say_error("run", "%s: %s: build it (make) or install it (make install)", path,
			  strerror(errno));
		_exit(127);
	}
	sv->s[i].restart_ms = 0;
	sv->s[i].ready = sv->s[i].is_owed = false;
	sv->s[i].started_ms = now_ms();
	if (pid < 0) {
		say_error("run", "cannot start %s: %s", service_name(i), strerror(errno));
		sv->s[i].restart_ms = now_ms() + RESTART_MAX_MS;
		return;
	}
	sv->s[i].pid = pid;
	runtime_write_pid(&sv->conf, service_name(i), pid);
}

static void tell_parent(struct supervisor *sv, char status)
{
	if (sv->ready_fd >= 0) {
		if (write(sv->ready_fd, &status, 1) != 1)
			say_error("run", "the waiting command has gone away");
		close(sv->ready_fd);
		sv->ready_fd = -1;
	}
}

static bool has_line(const char *text, const char *line)
{
	size_t len = strlen(line);

	for (const char *at = text; (at = strstr(at, line)); at += len) {
		if ((at == text || at[-1] == '\n') && (at[len] == 0 || at[len] == '\n'))
			return true;
	}
	return false;
}

static void forget_kept(struct child *s)
{
	if (s->kept_fd >= 0)
		close(s->kept_fd);
	s->kept_fd = -1;
}

/* fd (-1: none) came with the message. */
static void take_message(struct child *s, const char *text, int fd)
{
	const char *name = strstr(text, "FDNAME=");

	if (has_line(text, "READY=1")) {
		s->ready = true;
		s->backoff_ms = 0;
	}
	if (has_line(text, "FDSTOREREMOVE=1"))
		forget_kept(s);
	if (!has_line(text, "FDSTORE=1") || fd < 0) {
		if (fd >= 0)
			close(fd);
		return;
	}
	forget_kept(s);
	s->kept_fd = fd;
	snprintf(s->kept_name, sizeof(s->kept_name), "%.*s",
		 name ? (int)strcspn(name + 7, "\n") : 6, name ? name + 7 : "stored");
}

/* The last of those that came, or the one before, if none did; all others are closed. */
static int take_descriptor(const struct cmsghdr *c, int before)
{
	size_t nr = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	int fd = before;

	for (size_t i = 0; i < nr; i++) {
		if (fd >= 0)
			close(fd);
		memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
	}
	return fd;
}

/* One message of a service: which one is told by the sender's pid. */
static void read_notify(struct supervisor *sv)
{
	char buf[2048];
	/* anybody may send; what does not fit the kernel closes */
	char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(16 * sizeof(int))]
		__attribute__((aligned(8)));
	struct iovec iov = { buf, sizeof(buf) - 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(sv->notify_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct ucred cred = { .pid = 0 };
	int fd = -1;

	for (struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&cred, CMSG_DATA(c), sizeof(cred));
		else if (c->cmsg_type == SCM_RIGHTS)
			fd = take_descriptor(c, fd);
	}
	buf[n > 0 ? n : 0] = 0;
	for (int i = 0; i < SERVICES_NR; i++) {
		if (cred.pid > 0 && sv->s[i].pid == cred.pid) {
			take_message(&sv->s[i], buf, fd);
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

/* Start what can be started: each service when those before it are ready. */
static void advance(struct supervisor *sv)
{
	bool before = true;
	uint64_t now = now_ms();

	if (sv->stopping)
		return;
	for (int i = 0; i < SERVICES_NR; i++) {
		struct child *s = &sv->s[i];

		if (!s->wanted)
			continue;
		if (!s->pid && (sv->up || before) && s->restart_ms <= now)
			start_service(sv, i);
		before = before && s->ready;
	}
	if (before && !sv->up) {
		sv->up = true;
		printf("scoutfs %s: mounted on %s\n", sv->conf.name, sv->conf.mountpoint);
		fflush(stdout);
		tell_parent(sv, 0);
	}
}

static void begin_stop(struct supervisor *sv, int status)
{
	if (!sv->stopping)
		sv->status = status;
	sv->stopping = true;
}

/* Not all there ever are: anybody may send some. */
static void read_notifies(struct supervisor *sv)
{
	struct pollfd p = { .fd = sv->notify_fd, .events = POLLIN };

	for (int i = 0; i < NOTIFIES_MAX && poll(&p, 1, 0) > 0; i++)
		read_notify(sv);
}

static void child_ended(struct supervisor *sv, pid_t pid, int wstatus)
{
	for (int i = 0; i < SERVICES_NR; i++) {
		struct child *s = &sv->s[i];
		bool clean = WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0;
		bool kept = WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == EXIT_KEPT;

		if (s->pid != pid)
			continue;
		/* what it had to say last: perhaps a descriptor to keep */
		read_notifies(sv);
		s->pid = 0;
		s->is_owed = i == SERVICE_FSD && sv->up && !clean &&
			     !(WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == EXIT_FENCED);
		s->ready = false;
		runtime_remove_pid(&sv->conf, service_name(i));
		if (sv->stopping && (i >= sv->needed_nr || !sv->up)) {
			if (!clean) {
				say_error("run", "%s did not end as it should: what was not fsynced may be lost; "
					  "see its log",
					  service_name(i));
				sv->status = 1;
			}
			return;
		}
		if (i == SERVICE_FSD && clean) {
			begin_stop(sv, 0); /* somebody unmounted it */
			return;
		}
		/* A new mount needs a new identity, so every service of this instance has to end first. */
		if (i == SERVICE_FSD && WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == EXIT_FENCED) {
			say_error("run", "%s: its mount was fenced: all services of %s end; start it again",
				  sv->conf.mountpoint, sv->conf.name);
			begin_stop(sv, 1);
			return;
		}
		if (WIFSIGNALED(wstatus))
			say_error("run", "%s was killed by signal %d", service_name(i),
				  WTERMSIG(wstatus));
		else if ((!clean && !kept) || !sv->up)
			say_error("run", "%s ended with status %d", service_name(i),
				  WEXITSTATUS(wstatus));
		if (!sv->up) {
			begin_stop(sv, 1); /* it has said why */
			return;
		}
		if (now_ms() - s->started_ms >= LONG_ENOUGH_MS && !s->backoff_ms) {
			s->restart_ms = now_ms();
			continue;
		}
		/* somebody has asked for it, or has killed it: not a fault of its own */
		if (clean || kept || (WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGKILL)) {
			s->restart_ms = now_ms() + RESTART_FIRST_MS;
			continue;
		}
		s->backoff_ms = s->backoff_ms ? s->backoff_ms * 2 : RESTART_FIRST_MS;
		if (s->backoff_ms > RESTART_MAX_MS)
			s->backoff_ms = RESTART_MAX_MS;
		s->restart_ms = now_ms() + s->backoff_ms;
	}
}

/* Wait for signals, notifications and restart times, at most until `until_ms`. */
static void wait_events(struct supervisor *sv, uint64_t until_ms)
{
	struct pollfd p[2] = { { .fd = sv->signal_fd, .events = POLLIN },
			       { .fd = sv->notify_fd, .events = POLLIN } };
	uint64_t now = now_ms();
	struct signalfd_siginfo si;
	int wstatus;
	pid_t pid;

	for (int i = 0; i < SERVICES_NR; i++)
		if ((!sv->stopping || i < sv->needed_nr) && sv->s[i].restart_ms &&
		    sv->s[i].restart_ms < until_ms)
			until_ms = sv->s[i].restart_ms;
	poll(p, 2, until_ms <= now ? 0 : (int)(until_ms - now));
	if (p[1].revents)
		read_notifies(sv);
	while (read(sv->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		if (si.ssi_signo != SIGCHLD)
			begin_stop(sv, sv->up ? 0 : 1);
	while ((pid = waitpid(-1, &wstatus, WNOHANG)) > 0)
		child_ended(sv, pid, wstatus);
}

/* Whoever is ending still needs those below it: they are started again as at any time. */
static void restart_needed(struct supervisor *sv)
{
	for (int i = 0; i < sv->needed_nr && sv->up; i++)
		if (sv->s[i].wanted && !sv->s[i].pid && sv->s[i].restart_ms <= now_ms())
			start_service(sv, i);
}

/*
 * fsd is away, and was to come again: what its last process had not stored is stored by the next one, or by one of a later start
 * of the instance.
 */
static void let_it_store(struct supervisor *sv, int i)
{
	struct child *s = &sv->s[i];
	uint64_t limit = now_ms() + STOP_LIMIT_MS;

	start_service(sv, i);
	while (s->pid && !s->ready && now_ms() < limit) {
		restart_needed(sv);
		wait_events(sv, limit);
	}
	if (s->pid)
		return;
	say_error("run", "%s had died and could not store what it left: it stays in %s for the next start; see its log",
		  service_name(i), sv->conf.runtime_dir);
	sv->keeps_runtime = true;
	sv->status = 1;
}

/* In reverse order; a service that does not end in time is killed, loudly. */
static void stop_all(struct supervisor *sv)
{
	for (int i = SERVICES_NR - 1; i >= 0; i--) {
		struct child *s = &sv->s[i];
		uint64_t limit = now_ms() + STOP_LIMIT_MS;

		sv->needed_nr = i;
		if (!s->pid && s->is_owed)
			let_it_store(sv, i);
		if (!s->pid)
			continue;
		kill(s->pid, SIGTERM);
		while (s->pid) {
			restart_needed(sv);
			if (now_ms() >= limit) {
				say_error("run",
					  "%s did not stop in %u s: killed; the volume is "
					  "recovered at its next mount",
					  service_name(i), STOP_LIMIT_MS / 1000);
				kill(s->pid, SIGKILL);
				limit = now_ms() + STOP_LIMIT_MS;
				sv->status = 1;
			}
			wait_events(sv, limit);
		}
	}
}

/* How the instance ended, for `stop`; NULL: it has not yet. */
static void result_path(const struct instance_conf *conf, char *buf, size_t size)
{
	snprintf(buf, size, "%s/run.result", conf->state_dir);
}

static void write_result(const struct instance_conf *conf, const char *text)
{
	char path[CONF_PATH_BYTES + 16];
	int fd;

	result_path(conf, path, sizeof(path));
	unlink(path);
	if (!text)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		say_error("run", "%s: cannot be written: %s; `%s stop` will not know how it ended", path, strerror(errno),
			  program_name());
	if (fd >= 0)
		close(fd);
}

static int read_result(const struct instance_conf *conf)
{
	char path[CONF_PATH_BYTES + 16], text[16] = "";
	FILE *f;

	result_path(conf, path, sizeof(path));
	f = fopen(path, "re");
	if (f && !fgets(text, sizeof(text), f))
		text[0] = 0;
	if (f)
		fclose(f);
	if (strcmp(text, "stopped\n") == 0)
		return 0;
	say_error("stop", "%s has ended, but %s: what was not fsynced may be lost; see its log", conf->name,
		  *text ? "not as it should" : "nobody knows how");
	return 1;
}

static int supervise(struct supervisor *sv)
{
	sv->needed_nr = SERVICES_NR;
	runtime_write_pid(&sv->conf, "run", getpid());
	write_result(&sv->conf, NULL);
	while (!sv->stopping) {
		advance(sv);
		wait_events(sv, now_ms() + 60000);
	}
	stop_all(sv);
	runtime_remove_pid(&sv->conf, "run");
	if (!sv->keeps_runtime && runtime_stop("run", &sv->conf) < 0)
		sv->status = 1;
	write_result(&sv->conf, sv->status ? "failed\n" : "stopped\n");
	tell_parent(sv, (char)(sv->status ? sv->status : 1));
	return sv->status;
}

/* -d: a child goes on; the parent waits for its word. */
static int detach(struct supervisor *sv, const char *log)
{
	int p[2], fd;
	char status = 1;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return verb_failed("run", -errno);
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return verb_failed("run", -errno);
	if (pid > 0) {
		close(p[1]);
		if (read(p[0], &status, 1) != 1)
			status = 1;
		if (status)
			say_error("run", "%s did not come up: see %s", sv->conf.name, log);
		else
			printf("scoutfs %s: mounted on %s\n", sv->conf.name, sv->conf.mountpoint);
		return status;
	}
	close(p[0]);
	sv->ready_fd = p[1];
	setsid();
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd < 0) {
		say_error("run", "%s: %s: name another log file with -l", log, strerror(errno));
		_exit(1);
	}
	dup2(fd, 1);
	dup2(fd, 2);
	close(fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		dup2(fd, 0);
		close(fd);
	}
	return -1;
}

int cmd_run(int argc, char **argv)
{
	static const struct option longopts[] = { { NULL, 0, NULL, 0 } };
	struct supervisor sv = { .ready_fd = -1, .notify_fd = -1, .signal_fd = -1 };
	const char *log = NULL;
	char log_buf[4352], conf_path[4096], err[CONF_ERR_BYTES];
	bool detached = false;
	sigset_t set;
	int opt, ret;

	while ((opt = getopt_long(argc, argv, ":dl:o:", longopts, NULL)) != -1) {
		switch (opt) {
		case 'd':
			detached = true;
			break;
		case 'l':
			log = optarg;
			break;
		case 'o':
			if (sv.overrides_nr == OVERRIDES_MAX)
				return usage_error("run", "more than %d -o options", OVERRIDES_MAX);
			sv.overrides[sv.overrides_nr++] = optarg;
			break;
		case ':':
			return usage_error("run", "option '-%c' needs a value", optopt);
		default:
			return unknown_option("run", argv);
		}
	}
	if (optind + 1 != argc)
		return usage_error("run", "name one configuration: NAME of /etc/scoutfs/NAME.conf, "
					  "or a file");
	sv.conf_arg = argv[optind];
	if (strchr(sv.conf_arg, '/') && realpath(sv.conf_arg, conf_path))
		sv.conf_arg = conf_path;
	if (conf_load(&sv.conf, sv.conf_arg, err, sizeof(err)) < 0) {
		say_error("run", "%s", err);
		return 1;
	}
	for (unsigned o = 0; o < sv.overrides_nr; o++) {
		if (conf_override(&sv.conf, sv.overrides[o], err, sizeof(err)) < 0) {
			say_error("run", "-o %s", err);
			return 1;
		}
	}
	if (runtime_start("run", &sv.conf) < 0)
		return 1;
	if (runtime_read_pid(&sv.conf, "run")) {
		say_error("run", "%s is running already (pid %d): stop it with `%s stop %s`",
			  sv.conf.name, (int)runtime_read_pid(&sv.conf, "run"), program_name(),
			  argv[optind]);
		return 1;
	}
	for (int i = 0; i < SERVICES_NR; i++) {
		sv.s[i].wanted = service_is_wanted(&sv.conf, i);
		sv.s[i].kept_fd = -1;
	}

	if (!log) {
		snprintf(log_buf, sizeof(log_buf), "%s/%s.log", sv.conf.state_dir, sv.conf.name);
		log = log_buf;
	}
	if (detached) {
		ret = detach(&sv, log);
		if (ret >= 0)
			return ret;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);	/* of a terminal that is gone */
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGCHLD);
	signal(SIGPIPE, SIG_IGN);	/* whoever reads what it says may be gone, too */
	sigprocmask(SIG_BLOCK, &set, NULL);
	sv.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	ret = sv.signal_fd < 0 ? -errno : open_notify(&sv);
	if (ret < 0)
		return verb_failed("run", ret);
	return supervise(&sv);
}

int cmd_stop(int argc, char **argv)
{
	struct instance_conf conf;
	uint64_t limit = now_ms() + 2 * STOP_LIMIT_MS;
	char err[CONF_ERR_BYTES];
	pid_t pid;

	if (refuse_options("stop", argc, argv))
		return EXIT_USAGE;
	if (argc != 2)
		return usage_error("stop", "name one configuration");
	if (conf_load(&conf, argv[1], err, sizeof(err)) < 0) {
		say_error("stop", "%s", err);
		return 1;
	}
	if (runtime_may_look("stop", &conf) < 0)
		return 1;
	pid = runtime_read_pid(&conf, "run");
	if (!pid) {
		say_error("stop",
			  "%s is not running under `%s run` (with systemd: systemctl stop "
			  "scoutfs@%s)",
			  conf.name, program_name(), conf.name);
		return 1;
	}
	if (kill(pid, SIGTERM) < 0)
		return verb_failed("stop", -errno);
	while (kill(pid, 0) == 0) {
		struct timespec ts = { .tv_nsec = 20000000 };
		char path[64], line[512];
		FILE *f;
		bool zombie;

		/* a zombie whose parent does not wait has stopped too */
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
		f = fopen(path, "re");
		zombie = f && fgets(line, sizeof(line), f) && strstr(line, ") Z ");
		if (f)
			fclose(f);
		if (zombie)
			break;
		if (now_ms() > limit) {
			say_error("stop", "%s (pid %d) has not stopped: see `%s status %s`",
				  conf.name, (int)pid, program_name(), argv[1]);
			return 1;
		}
		nanosleep(&ts, NULL);
	}
	return read_result(&conf);
}

int cmd_reload(int argc, char **argv)
{
	static const enum service talkers[] = { SERVICE_QUORUMD, SERVICE_SERVERD, SERVICE_FSD };
	struct instance_conf conf;
	char err[CONF_ERR_BYTES];
	unsigned nr = 0;

	if (refuse_options("reload", argc, argv))
		return EXIT_USAGE;
	if (argc != 2)
		return usage_error("reload", "name one configuration");
	if (conf_load(&conf, argv[1], err, sizeof(err)) < 0) {
		say_error("reload", "%s", err);
		return 1;
	}
	if (runtime_may_look("reload", &conf) < 0)
		return 1;
	for (size_t i = 0; i < sizeof(talkers) / sizeof(talkers[0]); i++) {
		pid_t pid = runtime_read_pid(&conf, service_name(talkers[i]));

		if (!pid)
			continue;
		if (kill(pid, SIGHUP) < 0)
			return verb_failed("reload", -errno);
		nr++;
	}
	if (nr)
		return 0;
	say_error("reload", "%s is not running under `%s run` (with systemd: systemctl reload scoutfs@%s)",
		  conf.name, program_name(), conf.name);
	return 1;
}

static bool is_up(const struct instance_conf *conf, int i)
{
	static struct service_answer a;

	service_ask(conf, i, &a);
	return a.err == 0 && (i != SERVICE_FSD || strncmp(a.reply.state, "mounted", 7) == 0);
}

/* End one process of a running instance and wait for the next: what it did goes on. */
static int restart_service(const struct instance_conf *conf, int i)
{
	pid_t old = runtime_read_pid(conf, service_name(i)), pid;
	uint64_t limit = now_ms() + RESTART_LIMIT_MS;

	if (!old) {
		say_error("restart", "%s of %s is not running", service_name(i), conf->name);
		return 1;
	}
	if (kill(old, i == SERVICE_FSD ? SIGUSR2 : SIGTERM) < 0)
		return verb_failed("restart", -errno);
	do {
		struct timespec ts = { .tv_nsec = 10000000 };

		if (now_ms() > limit) {
			say_error("restart", "%s of %s has not come back: see `%s status`",
				  service_name(i), conf->name, program_name());
			return 1;
		}
		nanosleep(&ts, NULL);
		pid = runtime_read_pid(conf, service_name(i));
	} while (!pid || pid == old || !is_up(conf, i));
	return 0;
}

int cmd_restart(int argc, char **argv)
{
	struct instance_conf conf;
	char err[CONF_ERR_BYTES];
	int ret = 0;

	if (refuse_options("restart", argc, argv))
		return EXIT_USAGE;
	if (argc != 2 && argc != 3)
		return usage_error("restart", "name one configuration, after the service if it is to be one");
	if (argc == 3 && !service_is_known(argv[1]))
		return usage_error("restart", "'%s' is no service", argv[1]);
	if (conf_load(&conf, argv[argc - 1], err, sizeof(err)) < 0) {
		say_error("restart", "%s", err);
		return 1;
	}
	if (runtime_may_look("restart", &conf) < 0)
		return 1;
	if (!runtime_read_pid(&conf, "run")) {
		say_error("restart",
			  "%s is not running under `%s run` (with systemd: systemctl restart "
			  "scoutfs@%s, or scoutfs-SERVICE@%s)",
			  conf.name, program_name(), conf.name, conf.name);
		return 1;
	}
	for (int i = 0; i < SERVICES_NR && ret == 0; i++) {
		if (service_is_wanted(&conf, i) &&
		    (argc == 2 || strcmp(argv[1], service_name(i)) == 0))
			ret = restart_service(&conf, i);
	}
	return ret;
}

/* Whether all that a service needs is there, so that its unit does not wait for what cannot come. */
static int services_ready(const struct instance_conf *conf, const char *before)
{
	static struct service_answer a;
	int status = 0;

	for (int s = 0; strcmp(service_name(s), before) != 0; s++) {
		if (!service_is_wanted(conf, s))
			continue;
		service_ask(conf, s, &a);
		if (a.err == 0)
			continue;
		say_error("runtime", "%s of %s: %s: see systemctl status scoutfs-%s@%s",
			  service_name(s), conf->name, service_err_text(a.err), service_name(s),
			  conf->name);
		status = 1;
	}
	return status;
}

/* What the units need of a configuration, so that they need no shell. */
int cmd_runtime(int argc, char **argv)
{
	bool is_ready = argc == 4 && strcmp(argv[1], "ready") == 0;
	struct instance_conf conf;
	char err[CONF_ERR_BYTES];

	if (argc != 3 && !is_ready)
		return usage_error("runtime", "start, stop, has-slot or ready SERVICE, and one "
					      "configuration");
	if (is_ready && !service_is_known(argv[2]))
		return usage_error("runtime", "'%s' is no service", argv[2]);
	if (conf_load(&conf, argv[argc - 1], err, sizeof(err)) < 0) {
		say_error("runtime", "%s", err);
		return 255;
	}
	if (strcmp(argv[1], "start") == 0)
		return runtime_start("runtime", &conf) < 0;
	if (strcmp(argv[1], "stop") == 0)
		return runtime_stop("runtime", &conf) < 0;
	if (strcmp(argv[1], "has-slot") == 0)
		return conf.quorum_slot < 0;
	if (is_ready)
		return services_ready(&conf, argv[2]);
	return usage_error("runtime", "'%s' is none of start, stop, has-slot, ready", argv[1]);
}
