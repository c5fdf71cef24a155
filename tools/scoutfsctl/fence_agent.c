/*
 * `scoutfsctl fence agent`: has each mount that must be dead killed by a program, and tells the service that waits.
 * interface.md 5; runtime.md 2.3, 2.4.
 *
 * Every request is a directory RUNTIME_DIR/fence/RID with files as existing agents know them (rid, ipv4_addr, reason,
 * elapsed_secs, fenced, error); whoever writes something else than 0 into `fenced` or `error` has answered it.  Where
 * the configuration has a fence_command, that is run for it, with the request in its environment: SCOUTFS_FENCED_REQ_RID,
 * _IP, _REASON, _FSID, _NAME.  Exit status 0 says that the mount certainly writes no more.  Anything else, or no end
 * within RUN_SECS, is no answer: it is run again after RETRY_SECS, and what went wrong stands in the file `agent`,
 * which the services show.  Requests are worked on at the same time, one program for each.
 *
 * A request that is answered otherwise meanwhile (the lease is over, an operator has said so) goes with its directory;
 * its program is left to end within that time.  A program may be run for a rid more than once: leaders change.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"
#include "log.h"
#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/fence.h"
#include "tools/scoutfsctl/services.h"

#define POLL_MS		500
#define COMMAND_MS	10000
#define RUN_SECS	30
#define RETRY_SECS	2
#define REQUESTS_MAX	64u
#define WORD_BYTES	64u

static const enum service fencers[] = { SERVICE_QUORUMD, SERVICE_SERVERD };
static const char *const files[] = { "rid", "ipv4_addr", "reason", "elapsed_secs", "fenced", "error", "agent" };

struct fence_request {
	uint64_t rid;			/* 0: free */
	enum service service;
	char ip[WORD_BYTES], reason[WORD_BYTES];
	time_t since, next_run, run_since;
	pid_t pid;			/* of the program; 0: none runs */
	unsigned runs;
	bool is_asked;			/* in the last answers of the services */
};

struct agent {
	struct instance_conf conf;
	char dir[CONF_PATH_BYTES + 16];
	uint64_t fsid;
	struct fence_request rq[REQUESTS_MAX];
};

static time_t now_secs(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* ---- the directory ---- */

static void file_path(const struct agent *a, uint64_t rid, const char *name, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%016" PRIx64 "%s%s", a->dir, rid, *name ? "/" : "", name);
}

/* Without a newline, as others read them. */
static void put(const struct agent *a, uint64_t rid, const char *name, const char *text)
{
	char path[sizeof(a->dir) + 64];
	size_t len = strlen(text);
	int fd;

	file_path(a, rid, name, path, sizeof(path));
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		log_warning("%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Whether somebody has written an answer into it. */
static bool is_written(const struct agent *a, uint64_t rid, const char *name)
{
	char path[sizeof(a->dir) + 64], text[8] = "";
	ssize_t n;
	int fd;

	file_path(a, rid, name, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return n > 0 && strcmp(text, "0") != 0;
}

static void dir_make(const struct agent *a, const struct fence_request *r)
{
	char path[sizeof(a->dir) + 64], rid[32];

	file_path(a, r->rid, "", path, sizeof(path));
	if ((mkdir(a->dir, 0755) < 0 && errno != EEXIST) || (mkdir(path, 0755) < 0 && errno != EEXIST)) {
		log_warning("%s: %s", path, strerror(errno));
		return;
	}
	snprintf(rid, sizeof(rid), "%016" PRIx64, r->rid);
	put(a, r->rid, "rid", rid);
	put(a, r->rid, "ipv4_addr", r->ip);
	put(a, r->rid, "reason", r->reason);
	put(a, r->rid, "elapsed_secs", "0");
	put(a, r->rid, "fenced", "0");
	put(a, r->rid, "error", "0");
}

static void dir_remove(const struct agent *a, uint64_t rid)
{
	char path[sizeof(a->dir) + 64];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		file_path(a, rid, files[i], path, sizeof(path));
		unlink(path);
	}
	file_path(a, rid, "", path, sizeof(path));
	rmdir(path);
}

/* ---- answers ---- */

static void answer(const struct agent *a, struct fence_request *r, const char *verb, const char *who)
{
	char path[CONF_PATH_BYTES + 64], rid[32];
	struct msg_ctl_reply *reply = calloc(1, sizeof(*reply));
	int ret = -ENOMEM;

	ctl_path(&a->conf, service_name(r->service), path, sizeof(path));
	snprintf(rid, sizeof(rid), "%016" PRIx64, r->rid);
	if (reply)
		ret = ctl_do(path, COMMAND_MS, verb, rid, reply);
	if (ret < 0)
		log_err("%s of %s cannot be told of rid %s: %s", service_name(r->service), a->conf.name, rid,
			service_err_text(ret));
	else
		log_notice("rid %s at %s: %s by %s; %s: %s", rid, r->ip,
			   strcmp(verb, "fence-ack") == 0 ? "fenced" : "not fenced", who, service_name(r->service),
			   reply->text);
	/* Who still waits is asked for again. */
	r->next_run = now_secs() + RETRY_SECS;
	free(reply);
}

static void failed(struct agent *a, struct fence_request *r, const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "%.150s failed %u times, last: %s; it is run again", a->conf.fence_command, r->runs, why);
	put(a, r->rid, "agent", text);
	log_err("rid %016" PRIx64 " at %s is not fenced: %s", r->rid, r->ip, text);
	r->next_run = now_secs() + RETRY_SECS;
}

/* ---- programs ---- */

static void setenv_rid(const struct agent *a, const struct fence_request *r)
{
	char text[32];

	snprintf(text, sizeof(text), "%016" PRIx64, r->rid);
	setenv("SCOUTFS_FENCED_REQ_RID", text, 1);
	setenv("SCOUTFS_FENCED_REQ_IP", r->ip, 1);
	setenv("SCOUTFS_FENCED_REQ_REASON", r->reason, 1);
	snprintf(text, sizeof(text), "%016" PRIx64, a->fsid);
	setenv("SCOUTFS_FENCED_REQ_FSID", text, 1);
	setenv("SCOUTFS_FENCED_REQ_NAME", a->conf.name, 1);
}

static void run(struct agent *a, struct fence_request *r)
{
	sigset_t none;

	r->runs++;
	r->run_since = now_secs();
	log_notice("fencing rid %016" PRIx64 " at IP %s for %s: %s", r->rid, r->ip, r->reason, a->conf.fence_command);
	put(a, r->rid, "agent", "its program runs");
	r->pid = fork();
	if (r->pid < 0) {
		r->pid = 0;
		failed(a, r, strerror(errno));
	} else if (r->pid == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setpgid(0, 0);
		setenv_rid(a, r);
		execl(a->conf.fence_command, a->conf.fence_command, (char *)NULL);
		fprintf(stderr, "%s: %s\n", a->conf.fence_command, strerror(errno));
		_exit(127);
	}
}

static void reap(struct agent *a)
{
	char why[64];
	int st;
	pid_t pid;

	while ((pid = waitpid(-1, &st, WNOHANG)) > 0) {
		for (size_t i = 0; i < REQUESTS_MAX; i++) {
			struct fence_request *r = &a->rq[i];

			if (!r->rid || r->pid != pid)
				continue;
			r->pid = 0;
			if (WIFEXITED(st) && WEXITSTATUS(st) == 0) {
				answer(a, r, "fence-ack", a->conf.fence_command);
				continue;
			}
			if (WIFEXITED(st))
				snprintf(why, sizeof(why), "exit status %d", WEXITSTATUS(st));
			else
				snprintf(why, sizeof(why), "signal %d", WTERMSIG(st));
			failed(a, r, why);
		}
	}
}

/* ---- requests ---- */

static struct fence_request *find(struct agent *a, uint64_t rid, enum service s)
{
	struct fence_request *free_one = NULL;

	for (size_t i = 0; i < REQUESTS_MAX; i++) {
		struct fence_request *r = &a->rq[i];

		if (r->rid == rid && r->service == s)
			return r;
		if (!r->rid && !free_one)
			free_one = r;
	}
	if (free_one)
		*free_one = (struct fence_request){ .service = s, .since = now_secs() };
	return free_one;
}

static void take(struct agent *a, enum service s, const struct msg_stat_text *t)
{
	char ip[WORD_BYTES], reason[WORD_BYTES];
	struct fence_request *r;
	uint64_t rid;

	if (strcmp(t->name, "fence_request") != 0 ||
	    sscanf(t->text, "%16" SCNx64 " %63s %63s %16" SCNx64, &rid, ip, reason, &a->fsid) != 4 || rid == 0)
		return;
	r = find(a, rid, s);
	if (!r)
		return;
	if (!r->rid) {
		r->rid = rid;
		strcpy(r->ip, ip);
		strcpy(r->reason, reason);
		dir_make(a, r);
	}
	r->is_asked = true;
}

static void ask(struct agent *a)
{
	struct service_answer *an = malloc(sizeof(*an));

	for (size_t i = 0; i < REQUESTS_MAX; i++)
		a->rq[i].is_asked = false;
	for (size_t k = 0; an && k < sizeof(fencers) / sizeof(fencers[0]); k++) {
		service_ask(&a->conf, fencers[k], an);
		if (an->err < 0)
			continue;
		for (unsigned i = 0; i < an->reply.texts_nr; i++)
			take(a, fencers[k], &an->reply.texts[i]);
	}
	free(an);
}

/* Another service may wait for the same rid: its directory and its program are one. */
static bool is_shared(const struct agent *a, const struct fence_request *of)
{
	for (size_t i = 0; i < REQUESTS_MAX; i++) {
		if (&a->rq[i] != of && a->rq[i].rid == of->rid && (a->rq[i].is_asked || a->rq[i].pid))
			return true;
	}
	return false;
}

static void work(struct agent *a, struct fence_request *r)
{
	time_t now = now_secs();
	char text[32];

	/* Nobody else ends a program that hangs, asked for or not: it would keep its place for good. */
	if (r->pid && now - r->run_since > RUN_SECS)
		kill(-r->pid, SIGKILL);
	if (!r->is_asked) {
		if (r->pid)
			return;
		if (!is_shared(a, r))
			dir_remove(a, r->rid);
		r->rid = 0;
		return;
	}
	snprintf(text, sizeof(text), "%lld", (long long)(now - r->since));
	put(a, r->rid, "elapsed_secs", text);
	if (r->pid || now < r->next_run)
		return;
	if (is_written(a, r->rid, "fenced"))
		answer(a, r, "fence-ack", "the file `fenced`");
	else if (is_written(a, r->rid, "error"))
		answer(a, r, "fence-fail", "the file `error`");
	else if (a->conf.fence_command[0])
		run(a, r);
}

static void loop(struct agent *a, int signal_fd)
{
	struct signalfd_siginfo si;
	bool is_over = false;

	while (!is_over) {
		struct pollfd p = { signal_fd, POLLIN, 0 };

		ask(a);
		for (size_t i = 0; i < REQUESTS_MAX; i++) {
			if (a->rq[i].rid)
				work(a, &a->rq[i]);
		}
		poll(&p, 1, POLL_MS);
		while (read(signal_fd, &si, sizeof(si)) == sizeof(si))
			is_over = is_over || si.ssi_signo != SIGCHLD;
		reap(a);
	}
	/* What runs is left to end: half a fence is none. */
	for (size_t i = 0; i < REQUESTS_MAX; i++) {
		if (a->rq[i].rid)
			dir_remove(a, a->rq[i].rid);
	}
}

int fence_agent(const char *name)
{
	static struct agent a;
	char err[CONF_ERR_BYTES];
	sigset_t set;
	int fd;

	if (conf_load(&a.conf, name, err, sizeof(err)) < 0) {
		say_error("fence", "%s", err);
		return 1;
	}
	if (a.conf.quorum_slot == CONF_NO_SLOT) {
		say_error("fence", "%s has no quorum_slot: it never leads, and nothing is to be fenced here", a.conf.name);
		return 1;
	}
	if (a.conf.fence_command[0] && access(a.conf.fence_command, X_OK) < 0) {
		say_error("fence", "fence_command %s: %s; name a program that can be run", a.conf.fence_command,
			  strerror(errno));
		return 1;
	}
	conf_runtime_path(&a.conf, "fence", a.dir, sizeof(a.dir));
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0) {
		say_error("fence", "no descriptor for signals: %s", strerror(errno));
		return 1;
	}
	if (a.conf.fence_command[0])
		log_info("mounts that must be dead are fenced by %s", a.conf.fence_command);
	else
		log_info("mounts that must be dead are shown in %s for others to fence", a.dir);
	loop(&a, fd);
	close(fd);
	return 0;
}
