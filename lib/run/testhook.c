/*
 * Dying at a message.
 *
 * Tests walk the catalogue of conversations and kill either side between an effect and its answer, which no
 * signal from outside hits by chance.  The order is in a file, so that a test gives the next one while
 * the services run; it is read at each message only where the environment names it.
 */
#include "testhook.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "msg.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *order_path;

bool testhook_is_old_kernel(void)
{
	return getenv("SCOUTFS_TEST_OLD_KERNEL") != NULL;
}

static void look_for_order_path(void)
{
	order_path = getenv("SCOUTFS_TEST_DIE");
}

void testhook_message(enum testhook_point point, unsigned type)
{
	char line[128], program[32], where[8], message[64];
	ssize_t n;
	int fd;

	pthread_once(&once, look_for_order_path);
	if (!order_path)
		return;
	fd = open(order_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n <= 0)
		return;
	line[n] = 0;
	if (sscanf(line, "%31s %7s %63s", program, where, message) != 3 ||
	    strcmp(program, program_invocation_short_name) != 0 ||
	    strcmp(where, point == TESTHOOK_SEND ? "send" : "recv") != 0 ||
	    strcmp(message, msg_name(type)) != 0)
		return;
	/* Only who took the order away follows it. */
	if (unlink(order_path) < 0)
		return;
	log_notice("dies as a test has ordered: %s %s", where, message);
	log_flush();
	kill(getpid(), SIGKILL);
	pause();
}
