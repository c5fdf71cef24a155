/*
 * mount.scoutfs: what mount(8) runs for `mount -t scoutfs -o metadev_path=META,... DATA DIR`.
 *
 * It translates the mount options of the kernel implementation into a configuration and has that
 * instance started: by systemd where that is process 1, else by `scoutfsctl run -d`.  An
 * /etc/scoutfs/NAME.conf that names the same devices and mount point is used as it is, and options
 * that disagree with it are refused.  Else the configuration is written to CONF_MOUNT_DIR, under a
 * name made of the mount point.  Nothing is written or started before every option has been
 * understood: what is unknown, malformed or not implemented fails the mount.
 *
 * A start may wait for a leader, or to be let in by one: what is waited for is said.
 *
 * Options of the VFS (ro, nosuid, ...) are set on the mount once it is there.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "conf.h"
#include "ctl.h"
#include "stdfds.h"

/* Exit status as mount(8) documents it. */
#define EXIT_USAGE 1
#define EXIT_FAIL  32

#define SETTINGS_MAX 16
/* While the services start: how often that is looked at, and said; how long they may take to answer. */
#define TICK_MS 20
#define SAY_MS 10000
#define ASK_MS 2000
#define ERR_BYTES    (CONF_ERR_BYTES + 256)

/* What the options come to. */
struct mount_request {
	char settings[SETTINGS_MAX][CONF_PATH_BYTES + 64]; /* key=value of the configuration */
	unsigned settings_nr;
	char meta[PATH_MAX];	  /* as given; "" if it was not */
	unsigned long set, clear; /* MS_ flags of the mount */
	bool is_remount;
};

enum option_kind {
	OPTION_SETTING, /* NAME=VALUE is KEY=VALUE of the configuration */
	OPTION_FIXED,	/* NAME is the setting KEY */
	OPTION_REFUSED, /* known elsewhere, not here yet */
};

struct volume_option {
	const char *name;
	enum option_kind kind;
	const char *key;
	bool is_single; /* twice is an error, as upstream */
};

static const struct volume_option volume_options[] = {
	{ "metadev_path", OPTION_SETTING, "meta_device", false },
	{ "quorum_slot_nr", OPTION_SETTING, "quorum_slot", true },
	{ "acl", OPTION_FIXED, "acl=yes", false },
	{ "noacl", OPTION_FIXED, "acl=no", false },
	{ "name_cache", OPTION_FIXED, "name_cache=yes", false },
	{ "noname_cache", OPTION_FIXED, "name_cache=no", false },
	{ "data_prealloc_blocks", OPTION_SETTING, "data_prealloc_blocks", false },
	{ "lock_idle_count", OPTION_SETTING, "lock_idle_count", false },
	{ "orphan_scan_delay_ms", OPTION_SETTING, "orphan_scan_delay_ms", true },
	{ "quorum_heartbeat_timeout_ms", OPTION_SETTING, "heartbeat_timeout_ms", false },
	{ "tcp_keepalive_timeout_ms", OPTION_SETTING, "tcp_keepalive_timeout_ms", false },
	{ "data_prealloc_contig_only", OPTION_REFUSED, NULL, false },
	{ "ino_alloc_per_lock", OPTION_REFUSED, NULL, false },
	{ "log_merge_wait_timeout_ms", OPTION_SETTING, "log_merge_wait_timeout_ms", false },
};
#define VOLUME_OPTIONS_NR (sizeof(volume_options) / sizeof(volume_options[0]))

/* Options of mount(8) that are flags of the mount, and those that mean nothing to us. */
static const struct vfs_option {
	const char *name;
	unsigned long set, clear;
} vfs_options[] = {
	{ "ro", MS_RDONLY, 0 },
	{ "rw", 0, MS_RDONLY },
	{ "suid", 0, MS_NOSUID },
	{ "nosuid", MS_NOSUID, 0 },
	{ "dev", 0, MS_NODEV },
	{ "nodev", MS_NODEV, 0 },
	{ "exec", 0, MS_NOEXEC },
	{ "noexec", MS_NOEXEC, 0 },
	{ "atime", 0, MS_NOATIME },
	{ "noatime", MS_NOATIME, 0 },
	{ "diratime", 0, MS_NODIRATIME },
	{ "nodiratime", MS_NODIRATIME, 0 },
	{ "relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME },
	{ "strictatime", MS_STRICTATIME, MS_NOATIME | MS_RELATIME },
	{ "norelatime", 0, MS_RELATIME },
	{ "nostrictatime", 0, MS_STRICTATIME },
	{ "defaults", 0, 0 },
	{ "auto", 0, 0 },
	{ "noauto", 0, 0 },
	{ "nofail", 0, 0 },
	{ "_netdev", 0, 0 },
	{ "_rnetdev", 0, 0 },
	{ "nouser", 0, 0 },
	{ "user", 0, 0 },
	{ "users", 0, 0 },
	{ "owner", 0, 0 },
	{ "group", 0, 0 },
	{ "async", 0, 0 },
	{ "loud", 0, 0 },
	{ "silent", 0, 0 },
	/* what the kernel says of every FUSE mount, and a remount repeats */
	{ "allow_other", 0, 0 },
	{ "default_permissions", 0, 0 },
	{ "user_id=0", 0, 0 },
	{ "group_id=0", 0, 0 },
};
#define VFS_OPTIONS_NR (sizeof(vfs_options) / sizeof(vfs_options[0]))

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list args;

	fputs("mount.scoutfs: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

static int refuse(char *err, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int refuse(char *err, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err, size, fmt, args);
	va_end(args);
	return -EINVAL;
}

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static const struct volume_option *find_volume_option(const char *name, size_t len)
{
	for (size_t i = 0; i < VOLUME_OPTIONS_NR; i++) {
		if (strlen(volume_options[i].name) == len &&
		    strncmp(volume_options[i].name, name, len) == 0)
			return &volume_options[i];
	}
	return NULL;
}

/* True: it was one of mount(8)'s. */
static bool take_vfs_option(struct mount_request *rq, const char *option)
{
	if (strcmp(option, "remount") == 0) {
		rq->is_remount = true;
		return true;
	}
	for (size_t i = 0; i < VFS_OPTIONS_NR; i++) {
		const struct vfs_option *o = &vfs_options[i];

		if (strcmp(o->name, option) != 0)
			continue;
		rq->set = (rq->set & ~o->clear) | o->set;
		rq->clear = (rq->clear & ~o->set) | o->clear;
		return true;
	}
	/* for others than the kernel and us: systemd, mount(8), the administrator */
	return starts_with(option, "x-") || starts_with(option, "X-") ||
	       starts_with(option, "comment=") || starts_with(option, "max_read=");
}

/* A later value takes the place of an earlier one. */
static int add_setting(struct mount_request *rq, const struct volume_option *o, const char *value,
		       char *err, size_t err_size)
{
	size_t key_len = strcspn(o->key, "=");
	unsigned at = 0;

	while (at < rq->settings_nr && (strncmp(rq->settings[at], o->key, key_len) != 0 ||
					rq->settings[at][key_len] != '='))
		at++;
	if (at < rq->settings_nr && o->is_single)
		return refuse(err, err_size, "%s: given twice", o->name);
	if (value && strlen(value) >= CONF_PATH_BYTES)
		return refuse(err, err_size, "%s: longer than %d bytes", o->name,
			      CONF_PATH_BYTES - 1);
	if (at == rq->settings_nr)
		rq->settings_nr++;
	snprintf(rq->settings[at], sizeof(rq->settings[at]), "%s%s%s", o->key, value ? "=" : "",
		 value ? value : "");
	return 0;
}

static int take_volume_option(struct mount_request *rq, const char *option, char *err,
			      size_t err_size)
{
	const char *eq = strchr(option, '=');
	size_t len = eq ? (size_t)(eq - option) : strlen(option);
	const struct volume_option *o = find_volume_option(option, len);
	char why[CONF_ERR_BYTES], full[PATH_MAX];
	struct instance_conf scratch;
	const char *value = NULL;
	int ret;

	if (!o)
		return refuse(err, err_size, "%.80s: unknown option", option);
	if (o->kind == OPTION_REFUSED)
		return refuse(err, err_size, "%s: not implemented yet; leave it out", o->name);
	if (o->kind == OPTION_FIXED && eq)
		return refuse(err, err_size, "%s: takes no value", o->name);
	if (o->kind == OPTION_SETTING && (!eq || !eq[1]))
		return refuse(err, err_size, "%s: the value is missing", o->name);
	if (o->kind == OPTION_SETTING && strpbrk(eq + 1, "\n#"))
		return refuse(err, err_size, "%s: a line end or # cannot be in it", o->name);
	if (eq)
		value = eq + 1;
	if (strcmp(o->name, "metadev_path") == 0) {
		snprintf(rq->meta, sizeof(rq->meta), "%s", value);
		/* relative to where mount is called, as the other device and the mount point */
		if (value[0] != '/' && !(value = realpath(value, full)))
			return refuse(err, err_size, "%s: %.200s: %s", o->name, eq + 1, strerror(errno));
	}
	ret = add_setting(rq, o, value, err, err_size);
	if (ret < 0)
		return ret;
	/* by the rules of the configuration; its message names the key */
	conf_init(&scratch, "scratch", why, sizeof(why));
	for (unsigned i = 0; i < rq->settings_nr; i++) {
		if (strncmp(rq->settings[i], o->key, strcspn(o->key, "=")) == 0 &&
		    conf_override(&scratch, rq->settings[i], why, sizeof(why)) < 0)
			return refuse(err, err_size, "%s (%s)", o->name, why);
	}
	return 0;
}

/*
 * Read the text after -o into *rq, which may hold an earlier one's.  -EINVAL: err says "OPTION:
 * reason"; with is_sloppy what is unknown is passed over.
 */
static int parse_options(struct mount_request *rq, const char *text, bool is_sloppy, char *err,
			 size_t err_size)
{
	char *copy = strdup(text), *rest = copy, *option;
	int ret = copy ? 0 : -ENOMEM;

	if (!copy)
		refuse(err, err_size, "no memory");
	while (ret == 0 && (option = strsep(&rest, ","))) {
		if (!*option || take_vfs_option(rq, option))
			continue;
		if (is_sloppy && !find_volume_option(option, strcspn(option, "="))) {
			say("-s: %s is passed over", option);
			continue;
		}
		ret = take_volume_option(rq, option, err, err_size);
	}
	free(copy);
	return ret;
}

/*
 * An instance's name for a mount point, as systemd-escape --path makes it but for what is escaped:
 * names have no backslash, so it is _XX.  -ENAMETOOLONG; -EINVAL for /.
 */
static int name_of_mountpoint(const char *dir, char *name, size_t size)
{
	size_t n = 0;

	while (*dir == '/')
		dir++;
	if (!*dir)
		return -EINVAL;
	for (; *dir; dir++) {
		bool is_plain = isalnum((unsigned char)*dir) || (*dir == '.' && n > 0);

		if (n + 4 > size)
			return -ENAMETOOLONG;
		if (*dir == '/')
			name[n++] = '-';
		else if (is_plain)
			name[n++] = *dir;
		else
			n += (size_t)snprintf(name + n, size - n, "_%02x", (unsigned char)*dir);
	}
	name[n] = 0;
	return 0;
}

static int check_device(const char *what, const char *path, char *full)
{
	struct stat st;

	if (!realpath(path, full) || stat(full, &st) < 0) {
		say("%s %s: %s", what, path, strerror(errno));
		return -errno;
	}
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode)) {
		say("%s %s: neither a block device nor a file", what, path);
		return -ENOTBLK;
	}
	return 0;
}

static int check_directory(const char *path, char *full)
{
	struct stat st;

	if (!realpath(path, full) || stat(full, &st) < 0) {
		say("mount point %s: %s", path, strerror(errno));
		return -errno;
	}
	if (!S_ISDIR(st.st_mode)) {
		say("mount point %s: not a directory", path);
		return -ENOTDIR;
	}
	return 0;
}

/* Whether one of our mounts is on top of dir. */
static bool is_mounted(const char *dir)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	bool is_ours = false;
	struct mntent *m;

	while (f && (m = getmntent(f))) {
		if (strcmp(m->mnt_dir, dir) == 0)
			is_ours = strcmp(m->mnt_type, "fuse.scoutfs") == 0;
	}
	if (f)
		endmntent(f);
	return is_ours;
}

/* One file or device, whatever it is called. */
static bool same_thing(const char *a, const char *b)
{
	struct stat x, y;

	if (strcmp(a, b) == 0)
		return true;
	if (stat(a, &x) < 0 || stat(b, &y) < 0)
		return false;
	if (S_ISBLK(x.st_mode) && S_ISBLK(y.st_mode))
		return x.st_rdev == y.st_rdev;
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool is_for(const struct instance_conf *conf, const struct instance_conf *wanted)
{
	return same_thing(conf->meta_device, wanted->meta_device) &&
	       same_thing(conf->data_device, wanted->data_device) &&
	       same_thing(conf->mountpoint, wanted->mountpoint);
}

/* The administrator's configuration of this very mount: 1 found, 0 there is none. */
static int find_configured(const struct instance_conf *wanted, struct instance_conf *found)
{
	char err[CONF_ERR_BYTES];
	int ret = 0;
	glob_t g;

	if (glob(CONF_DIR "/*.conf", 0, NULL, &g) != 0)
		return 0;
	for (size_t i = 0; i < g.gl_pathc && ret == 0; i++) {
		if (conf_load(found, g.gl_pathv[i], err, sizeof(err)) < 0)
			say("%s; it is passed over", err);
		else if (is_for(found, wanted))
			ret = 1;
	}
	globfree(&g);
	return ret;
}

/* Options beside a configuration must say the same. */
static int check_agreement(const struct mount_request *rq, const struct instance_conf *conf)
{
	char err[CONF_ERR_BYTES];

	for (unsigned i = 0; i < rq->settings_nr; i++) {
		struct instance_conf changed = *conf;

		if (starts_with(rq->settings[i], "meta_device="))
			continue; /* compared already, whatever it is called */
		if (conf_override(&changed, rq->settings[i], err, sizeof(err)) < 0 ||
		    memcmp(&changed, conf, sizeof(changed)) != 0) {
			say("%s: " CONF_DIR "/%s.conf, which is for this mount, says otherwise: "
			    "change one of them",
			    rq->settings[i], conf->name);
			return -EINVAL;
		}
	}
	return 0;
}

/* A line of a configuration cannot say every path: it would be read as another one. */
static bool fits_configuration(const char *what, const char *path)
{
	size_t len = strlen(path);
	const char *p = path;

	/* a # after a blank begins a comment */
	while ((p = strchr(p, '#')) && !isspace((unsigned char)p[-1]))
		p++;
	if (len < CONF_PATH_BYTES && !p && !strchr(path, '\n') && !isspace((unsigned char)path[len - 1]))
		return true;
	say("%s %s: too long for a configuration, or with a line end, a # after a blank, or a blank at its end",
	    what, path);
	return false;
}

static int make_dir(const char *path, mode_t mode)
{
	return mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
}

static int write_conf(const struct mount_request *rq, const struct instance_conf *conf)
{
	char path[PATH_MAX], tmp[PATH_MAX];
	int ret;
	FILE *f;

	snprintf(path, sizeof(path), CONF_MOUNT_DIR "/%s.conf", conf->name);
	snprintf(tmp, sizeof(tmp), CONF_MOUNT_DIR "/.%s.%d", conf->name, (int)getpid());
	ret = make_dir("/run/scoutfs", 0755);
	ret = ret ?: make_dir(CONF_MOUNT_DIR, 0755);
	f = ret == 0 ? fopen(tmp, "we") : NULL;
	if (!f) {
		ret = ret ?: -errno;
		say("%s: %s", path, strerror(-ret));
		return ret;
	}
	fprintf(f,
		"# Made by mount.scoutfs of the options of a mount.\n"
		"data_device = %s\nmountpoint = %s\n",
		conf->data_device, conf->mountpoint);
	for (unsigned i = 0; i < rq->settings_nr; i++) {
		const char *eq = strchr(rq->settings[i], '=');
		bool is_meta = starts_with(rq->settings[i], "meta_device=");

		fprintf(f, "%.*s = %s\n", (int)(eq - rq->settings[i]), rq->settings[i],
			is_meta ? conf->meta_device : eq + 1);
	}
	if (fflush(f) != 0 || ferror(f))
		ret = -EIO;
	if (fclose(f) != 0 && ret == 0)
		ret = -errno;
	if (ret == 0 && rename(tmp, path) < 0)
		ret = -errno;
	if (ret < 0) {
		say("%s: %s", path, strerror(-ret));
		unlink(tmp);
	}
	return ret;
}

/* scoutfsctl beside this program (a build tree), else where it is installed. */
static void ctl_program(char *buf, size_t size)
{
	char self[PATH_MAX - 16];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = 0;
		*strrchr(self, '/') = 0;
		snprintf(buf, size, "%s/scoutfsctl", self);
		if (access(buf, X_OK) == 0)
			return;
	}
	snprintf(buf, size, "/usr/bin/scoutfsctl");
}

/* A mount may wait for a leader for ever: what for, in its own words, every SAY_MS. */
static void say_waiting(const struct instance_conf *conf)
{
	static struct msg_status_reply reply;
	char path[CONF_PATH_BYTES + 64];

	ctl_path(conf, "fsd", path, sizeof(path));
	if (ctl_query(path, ASK_MS, &reply) == 0 && reply.waiting_for[0])
		say("%s: still waiting for %s", conf->mountpoint, reply.waiting_for);
}

/* The exit status of the program that starts conf's services, -1 if it could not be run. */
static int run_program(char *const argv[], const struct instance_conf *conf)
{
	const struct timespec tick = { .tv_nsec = TICK_MS * 1000000l };
	uint64_t say_at_ns = clock_mono_ns() + SAY_MS * NSEC_PER_MSEC;
	int status = -1, ret = 0;
	pid_t pid = fork();

	if (pid == 0) {
		execvp(argv[0], argv);
		say("%s: %s", argv[0], strerror(errno));
		_exit(127);
	}
	if (pid < 0)
		say("%s: %s", argv[0], strerror(errno));
	while (pid > 0 && ((ret = waitpid(pid, &status, WNOHANG)) == 0 || (ret < 0 && errno == EINTR))) {
		nanosleep(&tick, NULL);
		if (clock_mono_ns() < say_at_ns)
			continue;
		say_waiting(conf);
		say_at_ns = clock_mono_ns() + SAY_MS * NSEC_PER_MSEC;
	}
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int start_instance(const struct instance_conf *conf, bool is_verbose)
{
	const char *name = conf->name;
	char unit[CONF_NAME_BYTES + 16], ctl[PATH_MAX];
	bool has_systemd = sd_booted() > 0;

	snprintf(unit, sizeof(unit), "scoutfs@%s.service", name);
	ctl_program(ctl, sizeof(ctl));
	if (is_verbose)
		say(has_systemd ? "systemctl start %s" : "scoutfsctl run -d %s",
		    has_systemd ? unit : name);
	if (has_systemd) {
		char *argv[] = { (char *)"systemctl", (char *)"start", unit, NULL };

		if (run_program(argv, conf) == 0)
			return 0;
		say("%s did not start: see `scoutfsctl status %s` and `journalctl -u "
		    "'scoutfs*@%s'`",
		    unit, name, name);
	} else {
		char *argv[] = { ctl, (char *)"run", (char *)"-d", (char *)name, NULL };

		if (run_program(argv, conf) == 0)
			return 0;
	}
	return -EIO;
}

/* The flags that the options ask for, over those that the mount has. */
static int set_flags(const struct mount_request *rq, const char *dir)
{
	static const struct {
		unsigned long st, ms;
	} flags[] = {
		{ ST_RDONLY, MS_RDONLY },     { ST_NOSUID, MS_NOSUID },
		{ ST_NODEV, MS_NODEV },	      { ST_NOEXEC, MS_NOEXEC },
		{ ST_NOATIME, MS_NOATIME },   { ST_NODIRATIME, MS_NODIRATIME },
		{ ST_RELATIME, MS_RELATIME },
	};
	unsigned long has = 0, wants;
	struct statvfs vfs;

	if (statvfs(dir, &vfs) < 0) {
		say("%s: %s", dir, strerror(errno));
		return -errno;
	}
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (vfs.f_flag & flags[i].st)
			has |= flags[i].ms;
	}
	wants = (has & ~rq->clear) | rq->set;
	if (wants & (MS_NOATIME | MS_STRICTATIME))
		wants &= ~(unsigned long)MS_RELATIME;
	if (wants != has && mount(NULL, dir, NULL, MS_REMOUNT | MS_BIND | wants, NULL) < 0) {
		say("%s: its options cannot be set: %s", dir, strerror(errno));
		return -errno;
	}
	return 0;
}

static int remount(const struct mount_request *rq, const char *dir)
{
	if (!is_mounted(dir)) {
		say("%s: no scoutfs volume is mounted there", dir);
		return EXIT_FAIL;
	}
	return set_flags(rq, dir) < 0 ? EXIT_FAIL : 0;
}

/* The instance for this mount, checked, with its file in place unless is_fake. */
static int prepare(const struct mount_request *rq, struct instance_conf *wanted, bool is_fake)
{
	char path[PATH_MAX], err[CONF_ERR_BYTES];
	struct instance_conf found;

	if (conf_check(wanted, err, sizeof(err)) < 0) {
		say("%s", err);
		return -EINVAL;
	}
	if (find_configured(wanted, &found)) {
		*wanted = found;
		return check_agreement(rq, &found);
	}
	snprintf(path, sizeof(path), CONF_DIR "/%s.conf", wanted->name);
	if (access(path, F_OK) == 0) {
		say("%s has the name that %s would get, and is for other devices: correct or "
		    "rename it",
		    path, wanted->mountpoint);
		return -EEXIST;
	}
	return is_fake ? 0 : write_conf(rq, wanted);
}

static int do_mount(const struct mount_request *rq, const char *data, const char *dir, bool is_fake,
		    bool is_verbose)
{
	char data_path[PATH_MAX], meta_path[PATH_MAX], name[CONF_NAME_BYTES], err[CONF_ERR_BYTES];
	struct instance_conf conf;

	if (check_device("data device", data, data_path) < 0 ||
	    check_device("metadata device", rq->meta, meta_path) < 0)
		return EXIT_FAIL;
	if (is_mounted(dir)) {
		say("%s: a scoutfs volume is mounted there already", dir);
		return EXIT_FAIL;
	}
	if (name_of_mountpoint(dir, name, sizeof(name)) < 0 ||
	    conf_init(&conf, name, err, sizeof(err)) < 0) {
		say("%s: no instance's name can be made of this mount point: write a file in "
		    "%s and start scoutfs@NAME",
		    dir, CONF_DIR);
		return EXIT_FAIL;
	}
	if (!fits_configuration("data device", data_path) ||
	    !fits_configuration("metadata device", meta_path) ||
	    !fits_configuration("mount point", dir))
		return EXIT_FAIL;
	for (unsigned i = 0; i < rq->settings_nr; i++) {
		if (conf_override(&conf, rq->settings[i], err, sizeof(err)) < 0) {
			say("%s", err);
			return EXIT_FAIL;
		}
	}
	snprintf(conf.meta_device, sizeof(conf.meta_device), "%.*s", CONF_PATH_BYTES - 1,
		 meta_path);
	snprintf(conf.data_device, sizeof(conf.data_device), "%.*s", CONF_PATH_BYTES - 1,
		 data_path);
	snprintf(conf.mountpoint, sizeof(conf.mountpoint), "%.*s", CONF_PATH_BYTES - 1, dir);
	if (prepare(rq, &conf, is_fake) < 0)
		return EXIT_FAIL;
	if (is_fake)
		return 0;
	if (start_instance(&conf, is_verbose) < 0 || set_flags(rq, dir) < 0)
		return EXIT_FAIL;
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: mount -t scoutfs -o "
			"metadev_path=META[,quorum_slot_nr=N][,OPTION]... DATA DIR\n"
			"mount.scoutfs DATA DIR [-fnsv] [-o OPTION[,OPTION]...]\n");
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static struct mount_request rq;
	bool is_fake = false, is_sloppy = false, is_verbose = false;
	char err[ERR_BYTES], dir[PATH_MAX];
	int opt;

	if (stdfds_occupy() < 0) {
		say("the closed ones of stdin, stdout, stderr cannot be replaced: %s", strerror(errno));
		return EXIT_FAIL;
	}
	/* -s counts for every -o, wherever it stands */
	while ((opt = getopt(argc, argv, "fnsvo:t:hV")) != -1) {
		switch (opt) {
		case 'f':
			is_fake = true;
			break;
		case 's':
			is_sloppy = true;
			break;
		case 'v':
			is_verbose = true;
			break;
		case 'n': /* there is no mtab to leave alone */
		case 'o':
		case 't':
			break;
		case 'V':
			printf("mount.scoutfs " SCOUTFS_VERSION "\n");
			if (fflush(stdout) == 0 && !ferror(stdout))
				return 0;
			say("could not write the output: %s", strerror(errno));
			return EXIT_FAIL;
		default:
			return usage();
		}
	}
	if (argc - optind != 2)
		return usage();
	optind = 1;
	while ((opt = getopt(argc, argv, "fnsvo:t:hV")) != -1) {
		if (opt == 'o' && parse_options(&rq, optarg, is_sloppy, err, sizeof(err)) < 0) {
			say("%s: %s", err, strerror(EINVAL));
			return EXIT_FAIL;
		}
	}
	if (check_directory(argv[optind + 1], dir) < 0)
		return EXIT_FAIL;
	if (rq.is_remount)
		return remount(&rq, dir);
	if (!rq.meta[0]) {
		say("metadev_path: missing; name the volume's metadata device: %s",
		    strerror(EINVAL));
		return EXIT_FAIL;
	}
	if (geteuid() != 0 && !is_fake) {
		say("only root can mount");
		return EXIT_USAGE;
	}
	return do_mount(&rq, argv[optind], dir, is_fake, is_verbose);
}
