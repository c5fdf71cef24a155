/*
 * The options of mount.scoutfs: what is understood becomes exactly one setting or flag, and
 * everything else is refused by name.  The program is included whole, since its parts are its own.
 */
int mount_scoutfs_main(int argc, char **argv);
#define main mount_scoutfs_main
#include "tools/mount.scoutfs.c"
#undef main

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct mount_request parse_ok(const char *text)
{
	struct mount_request rq = { .settings_nr = 0 };
	char err[ERR_BYTES] = "";

	if (parse_options(&rq, text, false, err, sizeof(err)) != 0)
		fail_msg("%s: %s", text, err);
	return rq;
}

static const char *setting(const struct mount_request *rq, const char *key)
{
	for (unsigned i = 0; i < rq->settings_nr; i++) {
		if (strncmp(rq->settings[i], key, strlen(key)) == 0 &&
		    rq->settings[i][strlen(key)] == '=')
			return rq->settings[i] + strlen(key) + 1;
	}
	return "";
}

static void options_become_settings(void **state)
{
	struct mount_request rq = parse_ok("rw,metadev_path=/dev/m,quorum_slot_nr=14,noacl,"
					   "data_prealloc_blocks=1,lock_idle_count=32,"
					   "orphan_scan_delay_ms=60000,quorum_heartbeat_timeout_ms="
					   "2000,"
					   "tcp_keepalive_timeout_ms=3001");

	(void)state;
	assert_int_equal(rq.settings_nr, 8);
	assert_string_equal(rq.meta, "/dev/m");
	assert_string_equal(setting(&rq, "meta_device"), "/dev/m");
	assert_string_equal(setting(&rq, "quorum_slot"), "14");
	assert_string_equal(setting(&rq, "acl"), "no");
	assert_string_equal(setting(&rq, "data_prealloc_blocks"), "1");
	assert_string_equal(setting(&rq, "lock_idle_count"), "32");
	assert_string_equal(setting(&rq, "orphan_scan_delay_ms"), "60000");
	assert_string_equal(setting(&rq, "heartbeat_timeout_ms"), "2000");
	assert_string_equal(setting(&rq, "tcp_keepalive_timeout_ms"), "3001");
	assert_int_equal(rq.set, 0);
	assert_int_equal(rq.clear, MS_RDONLY);
}

static void later_value_wins(void **state)
{
	struct mount_request rq = parse_ok("acl,noacl,ro,noatime,metadev_path=/a,metadev_path=/"
					   "b,acl,rw,relatime");

	(void)state;
	assert_int_equal(rq.settings_nr, 2);
	assert_string_equal(setting(&rq, "acl"), "yes");
	assert_string_equal(rq.meta, "/b");
	assert_string_equal(setting(&rq, "meta_device"), "/b");
	assert_int_equal(rq.set, MS_RELATIME);
	assert_true(rq.clear & MS_RDONLY);
	assert_true(rq.clear & MS_NOATIME);
}

static void options_of_mount_are_flags_or_nothing(void **state)
{
	struct mount_request rq = parse_ok("defaults,noauto,auto,nofail,_netdev,x-systemd."
					   "automount,comment=a=b,"
					   ",nosuid,nodev,noexec,ro");

	(void)state;
	assert_int_equal(rq.settings_nr, 0);
	assert_int_equal(rq.set, MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY);
	assert_false(rq.is_remount);
	rq = parse_ok("remount,ro");
	assert_true(rq.is_remount);
}

static void everything_else_is_refused_by_name(void **state)
{
	static const struct {
		const char *text, *name;
	} bad[] = {
		{ "nonsense", "nonsense" },
		{ "nonsense=1", "nonsense=1" },
		{ "rw=1", "rw=1" },
		{ "acl=yes", "acl" },
		{ "quorum_slot_nr", "quorum_slot_nr" },
		{ "quorum_slot_nr=", "quorum_slot_nr" },
		{ "quorum_slot_nr=15", "quorum_slot_nr" },
		{ "quorum_slot_nr=-1", "quorum_slot_nr" },
		{ "quorum_slot_nr=1x", "quorum_slot_nr" },
		{ "quorum_slot_nr=1,quorum_slot_nr=1", "quorum_slot_nr" },
		{ "orphan_scan_delay_ms=100,orphan_scan_delay_ms=100", "orphan_scan_delay_ms" },
		{ "orphan_scan_delay_ms=99", "orphan_scan_delay_ms" },
		{ "quorum_heartbeat_timeout_ms=60001", "quorum_heartbeat_timeout_ms" },
		{ "tcp_keepalive_timeout_ms=3000", "tcp_keepalive_timeout_ms" },
		{ "data_prealloc_blocks=0", "data_prealloc_blocks" },
		{ "lock_idle_count=31", "lock_idle_count" },
		{ "lock_idle_count=18446744073709551616", "lock_idle_count" },
		{ "metadev_path=relative", "metadev_path" },
		{ "metadev_path=/dev/m\nioctl_pointers = on", "metadev_path" },
		{ "ino_alloc_per_lock=1", "ino_alloc_per_lock" },
		{ "meta_device=/dev/m", "meta_device=/dev/m" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct mount_request rq = { .settings_nr = 0 };
		char err[ERR_BYTES] = "";

		if (parse_options(&rq, bad[i].text, false, err, sizeof(err)) != -EINVAL)
			fail_msg("%s was taken", bad[i].text);
		if (!starts_with(err, bad[i].name))
			fail_msg("%s: the message is \"%s\"", bad[i].text, err);
	}
}

static void sloppy_passes_over_unknown_but_not_malformed(void **state)
{
	struct mount_request rq = { .settings_nr = 0 };
	char err[ERR_BYTES];

	(void)state;
	assert_int_equal(parse_options(&rq, "nonsense,acl", true, err, sizeof(err)), 0);
	assert_int_equal(rq.settings_nr, 1);
	assert_int_equal(parse_options(&rq, "quorum_slot_nr=99", true, err, sizeof(err)), -EINVAL);
}

static void long_values_do_not_fit(void **state)
{
	struct mount_request rq = { .settings_nr = 0 };
	char text[2 * PATH_MAX], err[ERR_BYTES];

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text, "metadev_path=/", 14);
	text[sizeof(text) - 1] = 0;
	assert_int_equal(parse_options(&rq, text, false, err, sizeof(err)), -EINVAL);
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(parse_options(&rq, text, false, err, sizeof(err)), -EINVAL);
}

static void names_of_mountpoints_are_distinct_and_valid(void **state)
{
	static const struct {
		const char *dir, *name;
	} good[] = {
		{ "/mnt", "mnt" },
		{ "/mnt/scoutfs", "mnt-scoutfs" },
		{ "/mnt-scoutfs", "mnt_2dscoutfs" },
		{ "/mnt_x", "mnt_5fx" },
		{ "/.hidden/a.b", "_2ehidden-a.b" },
		{ "/a b", "a_20b" },
		{ "/\xc3\xa4", "_c3_a4" },
	};
	char name[CONF_NAME_BYTES], err[CONF_ERR_BYTES], dir[CONF_NAME_BYTES + 8];
	struct instance_conf conf;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(name_of_mountpoint(good[i].dir, name, sizeof(name)), 0);
		assert_string_equal(name, good[i].name);
		assert_int_equal(conf_init(&conf, name, err, sizeof(err)), 0);
	}
	assert_int_equal(name_of_mountpoint("/", name, sizeof(name)), -EINVAL);
	memset(dir, '-', sizeof(dir));
	dir[0] = '/';
	dir[sizeof(dir) - 1] = 0;
	assert_int_equal(name_of_mountpoint(dir, name, sizeof(name)), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_become_settings),
		cmocka_unit_test(later_value_wins),
		cmocka_unit_test(options_of_mount_are_flags_or_nothing),
		cmocka_unit_test(everything_else_is_refused_by_name),
		cmocka_unit_test(sloppy_passes_over_unknown_but_not_malformed),
		cmocka_unit_test(long_values_do_not_fit),
		cmocka_unit_test(names_of_mountpoints_are_distinct_and_valid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
