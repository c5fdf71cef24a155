/*
 * The time limit of a device as sysfs shows it, in a folder that looks like sysfs: of a disk, of a partition, of what lies
 * below a stacked device, and of devices that have none; and when blockd warns of it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"
#include "services/blockd/blockd.h"

static char top[] = "/tmp/test_blockd_limit.XXXXXX";

static void run(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	assert_int_equal(system(text), 0);
}

static int make_sysfs(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(top));
	run("cd %s && mkdir -p dev/block devices/sda/queue devices/sda/sda1 devices/sda/slaves devices/sdb/queue "
	    "devices/loop7/queue devices/dm-0/slaves devices/dm-0/queue devices/dm-1/slaves", top);
	run("cd %s/devices && echo 30000 >sda/queue/io_timeout && echo 1 >sda/sda1/partition && "
	    "echo 45000 >sdb/queue/io_timeout && echo rubbish >dm-0/queue/io_timeout", top);
	run("cd %s/dev/block && ln -s ../../devices/sda 8:0 && ln -s ../../devices/sda/sda1 8:1 && "
	    "ln -s ../../devices/loop7 7:7 && ln -s ../../devices/dm-0 253:0 && ln -s ../../devices/dm-1 253:1", top);
	run("cd %s/devices && ln -s ../../sda/sda1 dm-0/slaves/sda1 && ln -s ../../sdb dm-0/slaves/sdb && "
	    "ln -s ../../dm-1 dm-1/slaves/dm-1", top);
	return 0;
}

static int remove_sysfs(void **state)
{
	(void)state;
	run("rm -r %s", top);
	return 0;
}

static void what_sysfs_shows_is_found(void **state)
{
	(void)state;
	assert_int_equal(limit_of_device_ms(top, 8, 0), 30000);
	assert_int_equal(limit_of_device_ms(top, 8, 1), 30000);
	assert_int_equal(limit_of_device_ms(top, 7, 7), 0);
	assert_int_equal(limit_of_device_ms(top, 253, 0), 45000);
	/* A circle, which the kernel does not make, ends. */
	assert_int_equal(limit_of_device_ms(top, 253, 1), 0);
	assert_int_equal(limit_of_device_ms(top, 9, 9), 0);
}

/* What is said on stderr meanwhile. */
static size_t said(const struct volume *v, uint64_t longest_io_ms, char *buf, size_t size)
{
	FILE *f = tmpfile();
	int old = dup(2);
	size_t n;

	assert_non_null(f);
	fflush(stderr);
	dup2(fileno(f), 2);
	limits_check(v, longest_io_ms, top);
	log_flush();
	fflush(stderr);
	dup2(old, 2);
	close(old);
	rewind(f);
	n = fread(buf, 1, size - 1, f);
	buf[n] = 0;
	fclose(f);
	return n;
}

static void it_warns_of_what_is_too_short_where_others_can_mount(void **state)
{
	char path[128], buf[2048];
	struct volume v = { .is_shared = true };
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/node", top);
	assert_int_equal(mknod(path, S_IFBLK | 0600, makedev(8, 0)), 0);
	fd = open(path, O_PATH | O_CLOEXEC);
	assert_true(fd >= 0);
	v.dev[BLK_DEV_META] = (struct device){ .name = "meta_device", .path = (char *)"/dev/x", .fd = fd, .is_bdev = true };
	v.dev[BLK_DEV_DATA] = (struct device){ .name = "data_device", .path = (char *)"/dev/y", .fd = fd };
	assert_true(said(&v, 2000, buf, sizeof(buf)) > 0);
	assert_non_null(strstr(buf, "meta_device /dev/x: the kernel lets it work on a write for 30000 ms, and longest_io_ms is 2000"));
	assert_null(strstr(buf, "data_device"));
	assert_int_equal(said(&v, 30000, buf, sizeof(buf)), 0);
	v.is_shared = false;
	assert_int_equal(said(&v, 2000, buf, sizeof(buf)), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_sysfs_shows_is_found),
		cmocka_unit_test(it_warns_of_what_is_too_short_where_others_can_mount),
	};

	return cmocka_run_group_tests(tests, make_sysfs, remove_sysfs);
}
