/*
 * ISA-L, loaded when the first checksum is made, as zmq_lazy.c does with ZeroMQ.
 *
 * Verbs on devices make many checksums, and those on a mount none; a walk of the change index is over in about
 * the time that it takes to link a library.  Where it cannot be loaded, checksums are the same and slower.
 */
#include <dlfcn.h>
#include <pthread.h>

#include "csum/csum.h"

#if __has_include(<isa-l/crc.h>)
#include <isa-l/crc.h>

#define LIBISAL	"libisal.so.2"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static typeof(&crc32_iscsi) fast;

static void load(void)
{
	void *lib = dlopen(LIBISAL, RTLD_NOW | RTLD_LOCAL);

	if (lib)
		fast = (typeof(&crc32_iscsi))dlsym(lib, "crc32_iscsi");
}

unsigned int crc32_iscsi(unsigned char *buf, int len, unsigned int crc)
{
	pthread_once(&once, load);
	if (fast)
		return fast(buf, len, crc);
	return crc32c_table_more(crc, buf, (size_t)len);
}
#endif
