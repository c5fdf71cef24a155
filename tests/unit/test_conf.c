/*
 * Configuration, identity, log and status socket: what every service starts with.
 * A value that is not understood is an error that names file, line and key; a rid is agreed on by
 * all who start at once and known for ever after; nobody is shown a message twice in a row.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <zmq.h>

#include "clock.h"
#include "conf.h"
#include "ctl.h"
#include "instance.h"
#include "leader.h"
#include "log.h"
#include "zmqu.h"

#define DEADLINE_NS (60 * NSEC_PER_SEC)
#define OWNER	65534u	/* of the runtime directory, where that is not the one who runs this */

static char dir[64];
static char err[CONF_ERR_BYTES];
static struct instance_conf conf;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/scoutfs-conf.XXXXXX");
	memset(err, 0, sizeof(err));
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Load a file of this content; NAME is "vol". */
static int load(const char *text)
{
	char path[CONF_PATH_BYTES + 32];
	FILE *f;

	snprintf(path, sizeof(path), "%s/vol.conf", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	return conf_load(&conf, path, err, sizeof(err));
}

#define REQUIRED "meta_device = /dev/m\ndata_device = /dev/d\nmountpoint = /mnt\n"

/*
 * systemd/example.conf is where an operator reads what can be set: it names every key of the table in conf.c, and
 * what is commented out in it is what holds without it.
 */
static void the_example_shows_every_key_and_its_default(void **state)
{
	static struct instance_conf plain;
	static char example[1 << 16], source[1 << 16], text[1 << 16];
	char key[64], want[80], *line, *rest = example;
	FILE *f = fopen("systemd/example.conf", "r");
	unsigned keys = 0;

	(void)state;
	assert_non_null(f);
	assert_in_range(fread(example, 1, sizeof(example) - 1, f), 1, sizeof(example) - 2);
	fclose(f);
	f = fopen("lib/run/conf.c", "r");
	assert_non_null(f);
	assert_in_range(fread(source, 1, sizeof(source) - 1, f), 1, sizeof(source) - 2);
	fclose(f);
	for (const char *at = source; (at = strstr(at, "\tKEY(KIND_")); at++) {
		assert_int_equal(sscanf(at, "\tKEY(KIND_%*[A-Z0-9], %63[a-z0-9_],", key), 1);
		keys++;
		snprintf(want, sizeof(want), "\n%s = ", key);
		if (strstr(example, want))
			continue;
		snprintf(want, sizeof(want), "\n#%s = ", key);
		if (!strstr(example, want))
			fail_msg("systemd/example.conf does not show %s", key);
	}
	assert_in_range(keys, 20, 100);

	/* These have no default that could be written. */
	while ((line = strsep(&rest, "\n"))) {
		if (*line == '#' && sscanf(line, "#%63[a-z_] = ", key) == 1 && strcmp(key, "quorum_slot") != 0 &&
		    strcmp(key, "fence_command") != 0 && strcmp(key, "key_file") != 0 &&
		    strcmp(key, "allow_file") != 0 && !strstr(line, "/NAME"))
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\n", line + 1);
	}
	assert_int_equal(load(REQUIRED), 0);
	plain = conf;
	strcat(text, REQUIRED);
	assert_string_equal(load(text) == 0 ? "" : err, "");
	assert_memory_equal(&plain, &conf, sizeof(conf));
}

static void defaults_are_as_documented(void **state)
{
	(void)state;
	assert_int_equal(load(REQUIRED), 0);
	assert_string_equal(conf.name, "vol");
	assert_string_equal(conf.meta_device, "/dev/m");
	assert_string_equal(conf.data_device, "/dev/d");
	assert_string_equal(conf.mountpoint, "/mnt");
	assert_string_equal(conf.runtime_dir, "/run/scoutfs/vol");
	assert_string_equal(conf.state_dir, "/var/lib/scoutfs/vol");
	assert_int_equal(conf.quorum_slot, CONF_NO_SLOT);
	assert_int_equal(conf.cache_size, 256 << 20);
	assert_int_equal(conf.server_cache_size, 64 << 20);
	assert_int_equal(conf.pool_size, 256 << 20);
	assert_int_equal(conf.commit_interval_ms, 1000);
	assert_int_equal(conf.heartbeat_timeout_ms, 10000);
	assert_int_equal(conf.orphan_scan_delay_ms, 10000);
	assert_int_equal(conf.tcp_keepalive_timeout_ms, 24000);
	assert_int_equal(conf.client_timeout_ms, 20000);
	assert_int_equal(conf.recovery_timeout_ms, 30000);
	assert_int_equal(conf.log_merge_wait_timeout_ms, 500);
	assert_int_equal(conf.log_merge_min_height, 3);
	assert_int_equal(conf.log_merge_min_trees, 8);
	assert_int_equal(conf.data_prealloc_blocks, 2048);
	assert_int_equal(conf.lock_idle_count, 10000);
	assert_true(conf.acl);
	assert_true(conf.name_cache);
	assert_false(conf.insecure);
	assert_int_equal(conf.ioctl_pointers, CONF_POINTERS_ON);
}

static void every_key_is_read(void **state)
{
	(void)state;
	assert_int_equal(
		load(REQUIRED
		     "# a comment\n\n  quorum_slot=14   # and one more\n"
		     "runtime_dir = /run/a b#c\nstate_dir\t=\t/s\ncache_size = 1G\npool_size = 16384k\n"
		     "commit_interval_ms = 50\nheartbeat_timeout_ms = 2000\norphan_scan_delay_ms = 100\n"
		     "tcp_keepalive_timeout_ms = 3001\nclient_timeout_ms = 1000\n"
		     "log_merge_wait_timeout_ms = 100\nlog_merge_min_height = 1\nlog_merge_min_trees = 2\n"
		     "recovery_timeout_ms = 600000\ndata_prealloc_blocks = 1\nlock_idle_count = 32\n"
		     "acl = no\nname_cache = no\ninsecure = yes\nioctl_pointers = root"),
		0);
	assert_int_equal(conf.quorum_slot, 14);
	assert_string_equal(conf.runtime_dir, "/run/a b#c");
	assert_string_equal(conf.state_dir, "/s");
	assert_int_equal(conf.cache_size, 1 << 30);
	assert_int_equal(conf.pool_size, 16 << 20);
	assert_int_equal(conf.commit_interval_ms, 50);
	assert_int_equal(conf.heartbeat_timeout_ms, 2000);
	assert_int_equal(conf.orphan_scan_delay_ms, 100);
	assert_int_equal(conf.tcp_keepalive_timeout_ms, 3001);
	assert_int_equal(conf.client_timeout_ms, 1000);
	assert_int_equal(conf.recovery_timeout_ms, 600000);
	assert_int_equal(conf.log_merge_wait_timeout_ms, 100);
	assert_int_equal(conf.log_merge_min_height, 1);
	assert_int_equal(conf.log_merge_min_trees, 2);
	assert_int_equal(conf.data_prealloc_blocks, 1);
	assert_int_equal(conf.lock_idle_count, 32);
	assert_false(conf.acl);
	assert_false(conf.name_cache);
	assert_true(conf.insecure);
	assert_int_equal(conf.ioctl_pointers, CONF_POINTERS_ROOT);
}

static void bad_lines_are_named(void **state)
{
	static const struct {
		const char *line, *key;
	} bad[] = {
		{ "nonsense", "nonsense" },
		{ "colour = red", "colour: unknown key" },
		{ "acl", "acl" },
		{ "acl =", "acl: the value is missing" },
		{ "acl = maybe", "acl: 'maybe'" },
		{ "= yes", "unknown key" },
		{ "mountpoint = /again", "mountpoint: given before, in line 3" },
		{ "state_dir = relative", "state_dir: 'relative'" },
		{ "quorum_slot = 15", "quorum_slot: 15 is out of range" },
		{ "quorum_slot = -1", "quorum_slot: '-1'" },
		{ "quorum_slot = 1x", "quorum_slot: '1x'" },
		{ "heartbeat_timeout_ms = 1999", "heartbeat_timeout_ms: 1999" },
		{ "heartbeat_timeout_ms = 60001", "heartbeat_timeout_ms: 60001" },
		{ "orphan_scan_delay_ms = 99", "orphan_scan_delay_ms: 99" },
		{ "tcp_keepalive_timeout_ms = 3000", "tcp_keepalive_timeout_ms: 3000" },
		{ "lock_idle_count = 100001", "lock_idle_count: 100001" },
		{ "data_prealloc_blocks = 0", "data_prealloc_blocks: 0" },
		{ "commit_interval_ms = 99999999999999999999",
		  "commit_interval_ms: '99999999999999999999'" },
		{ "cache_size = 1", "cache_size: 1 is out of range" },
		{ "cache_size = 256X", "cache_size: '256X'" },
		{ "server_cache_size = 1M", "server_cache_size: 1048576 is out of range: give 4194304 to" },
		{ "cache_size = 256MB", "cache_size: '256MB'" },
		{ "cache_size = 99999999999T", "cache_size: '99999999999T'" },
		{ "pool_size = 16777217", "pool_size: 16777217 is not a multiple" },
		{ "ioctl_pointers = yes", "ioctl_pointers: 'yes'" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[256], where[96];

		snprintf(text, sizeof(text), REQUIRED "%s\n", bad[i].line);
		snprintf(where, sizeof(where), "%s/vol.conf:4: ", dir);
		assert_int_equal(load(text), -EINVAL);
		if (!strstr(err, where) || !strstr(err, bad[i].key))
			fail_msg("'%s' gave: %s", bad[i].line, err);
	}
}

static void what_is_missing_is_named(void **state)
{
	char path[CONF_PATH_BYTES + 32];

	(void)state;
	assert_int_equal(load("meta_device = /m\nmountpoint = /mnt\n"), -EINVAL);
	assert_non_null(strstr(err, "data_device: missing"));
	assert_int_equal(load("data_device = /m\nmountpoint = /mnt\n"), -EINVAL);
	assert_non_null(strstr(err, "meta_device: missing"));
	assert_int_equal(load("meta_device = /m\ndata_device = /d\n"), -EINVAL);
	assert_non_null(strstr(err, "mountpoint: missing"));
	assert_int_equal(load("meta_device = /m\ndata_device = /m\nmountpoint = /mnt\n"), -EINVAL);
	assert_non_null(strstr(err, "data_device: the same"));
	assert_int_equal(
		load(REQUIRED
		     "runtime_dir = /a-directory-whose-name-is-so-long-that-no-socket-in-it-"
		     "could-ever-be-named-in-108-bytes-0123456789\n"),
		-EINVAL);
	assert_non_null(strstr(err, "runtime_dir: longer"));
	snprintf(path, sizeof(path), "%s/none.conf", dir);
	assert_int_equal(conf_load(&conf, path, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, path));
	assert_int_equal(conf_load(&conf, dir, err, sizeof(err)), -EISDIR);
	assert_int_equal(conf_load(&conf, "no-such-volume", err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "/etc/scoutfs/no-such-volume.conf"));
	assert_int_equal(conf_load(&conf, "../evil", err, sizeof(err)), -ENOENT);
	snprintf(path, sizeof(path), "%s/bad name.conf", dir);
	assert_int_equal(conf_load(&conf, path, err, sizeof(err)), -EINVAL);
	assert_int_equal(conf_init(&conf, "", err, sizeof(err)), -EINVAL);
	assert_int_equal(conf_init(&conf, ".hidden", err, sizeof(err)), -EINVAL);
	assert_int_equal(conf_init(&conf, "a/b", err, sizeof(err)), -EINVAL);
}

static void a_command_line_overrides(void **state)
{
	(void)state;
	assert_int_equal(load(REQUIRED), 0);
	assert_int_equal(conf_override(&conf, "cache_size=64M", err, sizeof(err)), 0);
	assert_int_equal(conf.cache_size, 64 << 20);
	assert_int_equal(conf_override(&conf, "mountpoint = /other", err, sizeof(err)), 0);
	assert_string_equal(conf.mountpoint, "/other");
	assert_int_equal(conf_override(&conf, "acl", err, sizeof(err)), -EINVAL);
	assert_int_equal(conf_override(&conf, "cache_size=x", err, sizeof(err)), -EINVAL);
	assert_int_equal(conf.cache_size, 64 << 20);
}

/* --- identity ----------------------------------------------------------------------------------
 */

static void make_instance(void)
{
	char text[512];

	snprintf(text, sizeof(text), REQUIRED "runtime_dir = %s/run\nstate_dir = %s/lib/state\n",
		 dir, dir);
	assert_int_equal(load(text), 0);
}

static void a_rid_is_made_once_and_known_for_ever(void **state)
{
	char path[CONF_PATH_BYTES + 32], text[32];
	uint64_t rid, again;
	struct stat st;
	FILE *f;

	(void)state;
	make_instance();
	assert_int_equal(instance_rid_get(&conf, &rid), -ENOENT);
	assert_int_equal(instance_rid_is_ours(&conf, 1), 0);
	assert_int_equal(mkdir(conf.runtime_dir, 0700), 0);
	if (geteuid() == 0)
		assert_int_equal(chown(conf.runtime_dir, OWNER, OWNER), 0);
	umask(022);
	assert_int_equal(instance_rid_get(&conf, &rid), 0);
	/* The services are not of one user: each must come through to the record. */
	snprintf(path, sizeof(path), "%s/lib", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(stat(conf.state_dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	if (geteuid() == 0)
		assert_int_equal(st.st_uid, OWNER);
	snprintf(path, sizeof(path), "%s/rids", conf.state_dir);
	assert_int_equal(stat(path, &st), 0);
	if (geteuid() == 0)
		assert_int_equal(st.st_uid, OWNER);
	assert_true(rid != 0 && rid != UINT64_MAX);
	assert_int_equal(instance_rid_get(&conf, &again), 0);
	assert_true(rid == again);
	assert_int_equal(instance_rid_is_ours(&conf, rid), 1);
	assert_int_equal(instance_rid_is_ours(&conf, rid + 1), 0);

	/* The node loses its memory: another rid, but the old one is known; a torn line harms
	 * nobody. */
	snprintf(path, sizeof(path), "%s/rid", conf.runtime_dir);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/rids", conf.state_dir);
	f = fopen(path, "a");
	fputs("0123456789abc", f);
	fclose(f);
	assert_int_equal(instance_rid_get(&conf, &again), 0);
	assert_true(rid != again);
	assert_int_equal(instance_rid_is_ours(&conf, rid), 1);
	assert_int_equal(instance_rid_is_ours(&conf, again), 1);
	assert_int_equal(instance_rid_is_ours(&conf, 0x0123456789abcull), 0);

	/* What is not a rid is not used. */
	snprintf(path, sizeof(path), "%s/rid", conf.runtime_dir);
	for (int i = 0; i < 3; i++) {
		static const char *const bad[] = { "", "0000000000000000\n", "123456789abcdefg\n" };

		f = fopen(path, "w");
		snprintf(text, sizeof(text), "%s", bad[i]);
		fputs(text, f);
		fclose(f);
		assert_int_equal(instance_rid_get(&conf, &again), -EBADMSG);
	}
}

static void the_record_does_not_grow_for_ever(void **state)
{
	uint64_t rid = 0, first = 0;
	char path[CONF_PATH_BYTES + 32];
	struct stat st;
	FILE *f;

	(void)state;
	make_instance();
	assert_int_equal(mkdir(conf.runtime_dir, 0700), 0);
	assert_int_equal(instance_rid_get(&conf, &first), 0);
	snprintf(path, sizeof(path), "%s/rids", conf.state_dir);
	f = fopen(path, "a");
	for (uint64_t i = 1; i < 8192; i++)
		fprintf(f, "%016llx 0000000000000000 1\n", (unsigned long long)i);
	fclose(f);
	snprintf(path, sizeof(path), "%s/rid", conf.runtime_dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(instance_rid_get(&conf, &rid), 0);
	snprintf(path, sizeof(path), "%s/rids", conf.state_dir);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size < 4200 * 50);
	assert_int_equal(instance_rid_is_ours(&conf, rid), 1);
	assert_int_equal(instance_rid_is_ours(&conf, 8191), 1);
	assert_int_equal(instance_rid_is_ours(&conf, first), 0);
}

static void services_that_start_together_agree(void **state)
{
	uint64_t rid = 0, theirs;
	int fds[2];

	(void)state;
	make_instance();
	assert_int_equal(mkdir(conf.runtime_dir, 0700), 0);
	assert_int_equal(pipe(fds), 0);
	for (int i = 0; i < 16; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			if (instance_rid_get(&conf, &rid) < 0)
				rid = 0;
			_exit(write(fds[1], &rid, sizeof(rid)) != sizeof(rid));
		}
	}
	for (int i = 0; i < 16; i++) {
		assert_int_equal(read(fds[0], &theirs, sizeof(theirs)), sizeof(theirs));
		assert_true(theirs != 0);
		if (i == 0)
			rid = theirs;
		assert_true(rid == theirs);
	}
	while (wait(NULL) > 0)
		;
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(instance_rid_is_ours(&conf, rid), 1);
}

/* --- the log -----------------------------------------------------------------------------------
 */

/* Run f with stderr in a file; its text. */
static char *logged(void (*f)(void))
{
	static char text[8192];
	char path[CONF_PATH_BYTES + 32];
	int fd, saved = dup(STDERR_FILENO);
	ssize_t n;

	snprintf(path, sizeof(path), "%s/log", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	log_flush();
	dup2(fd, STDERR_FILENO);
	f();
	log_flush();
	dup2(saved, STDERR_FILENO);
	close(saved);
	n = pread(fd, text, sizeof(text) - 1, 0);
	assert_true(n >= 0);
	text[n] = 0;
	close(fd);
	return text;
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

static void say_things(void)
{
	for (int i = 0; i < 100; i++) {
		log_err("the device is bad");
		log_warning("and slow");
	}
	log_notice("leader");
	log_notice("no leader");
	log_notice("leader");
	log_err("two\nlines\tand %s", "more");
	log_debug("of no interest");
}

static void repeats_are_counted_and_lines_stay_lines(void **state)
{
	const char *text = logged(say_things);

	(void)state;
	assert_int_equal(count(text, "the device is bad"), 2);
	assert_int_equal(count(text, "the device is bad (99 more)"), 1);
	assert_int_equal(count(text, "and slow (99 more)"), 1);
	assert_int_equal(count(text, ": leader\n"), 2);
	assert_int_equal(count(text, "two lines and more\n"), 1);
	assert_int_equal(count(text, "of no interest"), 0);
	assert_int_equal(count(text, "\n"), 8);
}

/* --- the status socket -------------------------------------------------------------------------
 */

#define TEST_STATS(C) C(apples, "Apples") C(pears, "Pears")
STATS_STRUCT(test_stats, TEST_STATS);
STATS_DESCS(test_stats, TEST_STATS);
static struct test_stats test_counters;

static void fill_status(void *arg, struct msg_status_reply *reply)
{
	strcpy(reply->state, arg);
	reply->since_ms = 5;
	CTL_ADD_STATS(reply, test_stats, &test_counters);
	for (int i = 0; i < 400; i++)
		ctl_add_value(reply, "filler", 1);
	for (int i = 0; i < 40; i++)
		ctl_add_text(reply, "filler", "%d", i);
}

static int command(void *arg, const char *verb, const char *text_in, char *text, size_t size)
{
	(void)arg;
	if (strcmp(verb, "echo") != 0)
		return -EOPNOTSUPP;
	snprintf(text, size, "%s", text_in);
	return 0;
}

static void a_service_tells_its_state(void **state)
{
	static const struct ctl_ops ops = { .fill_status = fill_status, .command = command };
	static struct msg_status_reply reply;
	static struct msg_ctl_reply done;
	struct ctl *c, *second;
	char path[CONF_PATH_BYTES + 32];

	(void)state;
	make_instance();
	assert_int_equal(mkdir(conf.runtime_dir, 0700), 0);
	ctl_path(&conf, "test", path, sizeof(path));
	assert_int_equal(ctl_query(path, 1000, &reply), -ENOENT);
	assert_int_equal(ctl_start(&c, &conf, "test", &ops, "fine"), 0);
	stats_add(&test_counters.apples, 3);
	stats_inc(&test_counters.pears);
	assert_int_equal(ctl_query(path, 60000, &reply), 0);
	assert_string_equal(reply.service, "test");
	assert_string_equal(reply.version, SCOUTFS_VERSION);
	assert_int_equal(reply.pid, getpid());
	assert_string_equal(reply.state, "fine");
	assert_int_equal(reply.values_nr, STATUS_VALUES_MAX);
	assert_string_equal(reply.values[0].name, "apples");
	assert_int_equal(reply.values[0].value, 3);
	assert_string_equal(reply.values[1].name, "pears");
	assert_int_equal(reply.values[1].value, 1);
	assert_int_equal(reply.texts_nr, STATUS_TEXTS_MAX);
	assert_int_equal(ctl_do(path, 60000, "echo", "hello", &done), 0);
	assert_int_equal(done.code, 0);
	assert_string_equal(done.text, "hello");
	assert_int_equal(ctl_do(path, 60000, "dance", "", &done), 0);
	assert_int_equal(errors_from_wire(done.code), -EOPNOTSUPP);
	assert_non_null(strstr(done.text, "dance"));

	/* The first keeps its socket. */
	assert_int_equal(ctl_start(&second, &conf, "test", &ops, "second"), -EADDRINUSE);
	assert_int_equal(ctl_query(path, 60000, &reply), 0);
	assert_string_equal(reply.state, "fine");
	ctl_stop(c);
}

/* --- quorumd's line ----------------------------------------------------------------------------
 */

static void *open_quorumd(void *ctx)
{
	char path[CONF_PATH_BYTES + 32];
	void *sock;

	conf_runtime_path(&conf, "quorumd.sock", path, sizeof(path));
	assert_int_equal(zmqu_router(ctx, 0, &sock), 0);
	assert_int_equal(zmqu_bind_ipc(sock, path, 0600), 0);
	return sock;
}

/* Turn the line until a message of that type has come to quorumd. */
static void await(struct leader *l, void *sock, unsigned type, struct zmqu_ident *from,
		  union msg_body *body)
{
	uint64_t end = clock_mono_ns() + DEADLINE_NS;

	while (clock_mono_ns() < end) {
		struct msg_header hdr = { 0 };
		struct zmqu_frame f;

		leader_dispatch(l, clock_mono_ns());
		if (zmqu_recv(sock, 1, &f) < 0) {
			zmq_poll(NULL, 0, 2);
			continue;
		}
		*from = f.from;
		if (msg_get(zmq_msg_data(&f.msg), zmq_msg_size(&f.msg), &hdr, body) == 0 &&
		    hdr.type == type) {
			zmqu_frame_close(&f);
			return;
		}
		zmqu_frame_close(&f);
	}
	fail_msg("%s never came", msg_name(type));
}

static void await_state(struct leader *l, bool want, struct msg_leader_state *st)
{
	uint64_t end = clock_mono_ns() + DEADLINE_NS;

	while (leader_state(l, st) != want) {
		if (clock_mono_ns() > end)
			fail_msg("the leader's state is never %s", want ? "known" : "forgotten");
		leader_dispatch(l, clock_mono_ns());
		zmq_poll(NULL, 0, 2);
	}
}

static void the_line_to_quorumd_survives_its_restart(void **state)
{
	static union msg_body body;
	uint8_t buf[512];
	struct msg_header hdr = { .type = MSG_leader_state };
	struct msg_leader_state st = { .term = 5,
				       .role = QUORUM_LEADER,
				       .leader_slot = 3,
				       .leader_port = 99 },
				got;
	void *ctx = zmq_ctx_new(), *their_ctx = zmq_ctx_new(), *sock;
	struct zmqu_ident from;
	struct leader *l;

	(void)state;
	make_instance();
	assert_int_equal(mkdir(conf.runtime_dir, 0700), 0);
	assert_int_equal(leader_open(&l, ctx, &conf, LOCAL_SERVERD, 42), 0);
	leader_dispatch(l, clock_mono_ns());	/* nobody is there */
	assert_false(leader_state(l, &got));
	for (int round = 0; round < 3; round++) {
		sock = open_quorumd(their_ctx);
		leader_report(l, 5, SERVER_STARTING);
		await(l, sock, MSG_local_hello, &from, &body);
		assert_int_equal(body.local_hello.kind, LOCAL_SERVERD);
		assert_int_equal(body.local_hello.rid, 42);
		assert_int_equal(body.local_hello.pid, getpid());
		await(l, sock, MSG_server_state, &from, &body);
		assert_int_equal(body.server_state.term, 5);
		assert_int_equal(body.server_state.state, SERVER_STARTING);
		assert_int_equal(zmqu_send_msg(sock, &from, &hdr, &st, buf, sizeof(buf)), 0);
		await_state(l, true, &got);
		assert_int_equal(got.term, 5);
		assert_int_equal(got.leader_slot, 3);
		/* It says the same again, unasked. */
		await(l, sock, MSG_server_state, &from, &body);
		/* All is ended before the next begins: a closed context has let go of the path. */
		zmqu_close(sock);
		zmq_ctx_term(their_ctx);
		their_ctx = zmq_ctx_new();
		await_state(l, false, &got);
	}
	leader_close(l);
	zmq_ctx_term(ctx);
	zmq_ctx_term(their_ctx);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
	const struct CMUnitTest tests[] = {
		TEST(defaults_are_as_documented),
		TEST(the_example_shows_every_key_and_its_default),
		TEST(every_key_is_read),
		TEST(bad_lines_are_named),
		TEST(what_is_missing_is_named),
		TEST(a_command_line_overrides),
		TEST(a_rid_is_made_once_and_known_for_ever),
		TEST(the_record_does_not_grow_for_ever),
		TEST(services_that_start_together_agree),
		TEST(repeats_are_counted_and_lines_stay_lines),
		TEST(a_service_tells_its_state),
		TEST(the_line_to_quorumd_survives_its_restart),
	};

	unsetenv("JOURNAL_STREAM");
	unsetenv("SCOUTFS_DEBUG");
	return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
