/*
 * The verbs that scoutfsctl does not do itself: scoutfsctl-admin gets the whole command line and takes its place.
 *
 * Archive software asks a mount for its changes over and over, and an answer takes less time than it takes to
 * link a process with a dozen libraries.  So scoutfsctl is linked statically from what asks a mount, and all that
 * reads devices or talks to services is in the other program (docs/decisions/0007-two-programs.md).
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/walk.h"

#define ADMIN "scoutfsctl-admin"

/* Beside this program (a build tree), else where `make install` puts it. */
static void admin_path(char *buf, size_t size)
{
	char self[PATH_MAX - 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	snprintf(buf, size, "/usr/sbin/" ADMIN);
	if (n <= 0)
		return;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return;
	*slash = '\0';
	snprintf(buf, size, "%s/" ADMIN, self);
	if (access(buf, X_OK) < 0)
		snprintf(buf, size, "%s/../sbin/" ADMIN, self);
}

/* Returns only where it fails: the exit status. */
static int hand_over(void)
{
	char *const *argv = program_args();
	char path[PATH_MAX];

	admin_path(path, sizeof(path));
	execv(path, argv);
	say_error(argv[1], "%s could not be started: %s; install it with the other programs of scoutfs", path,
		  strerror(errno));
	return 1;
}

#define COMMAND_HAND_OVER(function, ...) \
	int cmd_##function(int argc, char **argv) \
	{ \
		(void)argc; \
		(void)argv; \
		return hand_over(); \
	}
ADMIN_COMMANDS(COMMAND_HAND_OVER)

int walk_devices(struct walk *w, const char *meta, const char *data)
{
	(void)w;
	(void)meta;
	(void)data;
	return hand_over();
}
