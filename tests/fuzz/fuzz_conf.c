/* A configuration file of any bytes: an error with words, or values that are all in their ranges.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct instance_conf conf;
	char err[CONF_ERR_BYTES] = "";
	char path[64];
	int fd = memfd_create("conf", 0);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (conf_load(&conf, path, err, sizeof(err)) < 0) {
		assert(err[0] && memchr(err, 0, sizeof(err)));
	} else {
		assert(conf_check(&conf, err, sizeof(err)) == 0);
		assert(conf.meta_device[0] == '/' && conf.data_device[0] == '/' &&
		       conf.mountpoint[0] == '/');
		assert(conf.quorum_slot >= CONF_NO_SLOT && conf.quorum_slot <= 14);
		assert(conf.cache_size % 4096 == 0 && conf.pool_size % 4096 == 0);
		assert(conf.heartbeat_timeout_ms >= 2000 && conf.heartbeat_timeout_ms <= 60000);
		assert(conf.ioctl_pointers <= CONF_POINTERS_ON);
	}
	close(fd);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	static const char *const seeds[] = {
		"meta_device = /m\ndata_device = /d\nmountpoint = /mnt\nquorum_slot = 3 # ours\ncache_size=64M\n",
		"# nothing but this\nmeta_device=/m\ndata_device=/d\nmountpoint=/x\nacl=no\nioctl_pointers=root\n",
		"heartbeat_timeout_ms = 2000\nruntime_dir = /r\nstate_dir = /s\npool_size = 16384K\n",
	};
	size_t len;

	if (i >= sizeof(seeds) / sizeof(seeds[0]))
		return 0;
	len = strlen(seeds[i]);
	if (len > max)
		len = max;
	memcpy(buf, seeds[i], len);
	return len;
}
