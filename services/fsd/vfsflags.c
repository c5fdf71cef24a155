/*
 * Options that the VFS keeps with a mount.
 *
 * Promises: a mount that takes the place of one whose service has died has the options of that one:
 * what was read-only, nosuid or noexec is never less restricted because of a crash. The kernel has
 * them while the dead mount stands there; between its end and the next mount they are a line in the
 * instance's runtime directory, which an orderly stop takes away with all else. A note that is
 * there was not applied yet, and is better than whatever the mount point says then.
 */
#include "vfsflags.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "log.h"
#include "mountinfo.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW	256ul
#endif

static const struct {
	const char *name;
	unsigned long flag;
} options[] = {
	{ "ro", MS_RDONLY },	     { "nosuid", MS_NOSUID },
	{ "nodev", MS_NODEV },	     { "noexec", MS_NOEXEC },
	{ "noatime", MS_NOATIME },   { "nodiratime", MS_NODIRATIME },
	{ "relatime", MS_RELATIME }, { "nosymfollow", MS_NOSYMFOLLOW },
};

/* The flags in the sixth field of a line of mountinfo. */
static unsigned long vfsflags_parse(const char *text)
{
	unsigned long flags = 0;

	while (*text) {
		size_t len = strcspn(text, ",");

		for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
			if (strlen(options[i].name) == len &&
			    memcmp(options[i].name, text, len) == 0)
				flags |= options[i].flag;
		}
		text += len;
		text += *text == ',';
	}
	/* a mount with neither says so by saying nothing, and would be relatime without a word */
	if (!(flags & (MS_NOATIME | MS_RELATIME)))
		flags |= MS_STRICTATIME;
	return flags;
}

static void note_path(const struct fsd *fsd, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/mount_options", fsd->conf.runtime_dir);
}

/* The topmost mount there: the last line counts.  -ENOENT. */
static int options_there(const char *mountpoint, char *text, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192], at[4096], has[512];
	int ret = -ENOENT;

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*d %*d %*s %*s %4095s %511s", at, has) != 2)
			continue;
		mountinfo_unescape(at);
		if (strcmp(at, mountpoint) == 0) {
			snprintf(text, size, "%s", has);
			ret = 0;
		}
	}
	fclose(f);
	return ret;
}

static int write_note(const char *path, const char *text)
{
	char tmp[PATH_MAX + 8];
	size_t len = strlen(text);
	int fd, ret = 0;

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len)
		ret = -EIO;
	close(fd);
	if (ret == 0 && rename(tmp, path) < 0)
		ret = -errno;
	if (ret < 0)
		unlink(tmp);
	return ret;
}

void vfsflags_note(struct fsd *fsd)
{
	char path[PATH_MAX], text[512], real[PATH_MAX];
	int ret;

	note_path(fsd, path);
	if (access(path, F_OK) == 0)
		return;
	/* the mount may be dead: its own directory is not asked, but what leads there is */
	if (!realpath(fsd->conf.mountpoint, real))
		snprintf(real, sizeof(real), "%s", fsd->conf.mountpoint);
	ret = options_there(real, text, sizeof(text));
	if (ret == -ENOENT)
		return;
	if (ret == 0)
		ret = write_note(path, text);
	if (ret < 0)
		log_err("%s: with which options it was mounted cannot be kept (%s): it is mounted "
			"with the default ones: unmount it and mount it with yours",
			fsd->conf.mountpoint, strerror(-ret));
}

unsigned long vfsflags_noted(struct fsd *fsd)
{
	char path[PATH_MAX], text[512] = "";
	unsigned long flags = 0;
	FILE *f;

	note_path(fsd, path);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fgets(text, sizeof(text), f)) {
		text[strcspn(text, "\n")] = 0;
		flags = vfsflags_parse(text);
	}
	fclose(f);
	return flags;
}

void vfsflags_applied(struct fsd *fsd)
{
	char path[PATH_MAX];

	note_path(fsd, path);
	unlink(path);
}
