/*
 * RUNTIME_DIR/lapsed: "term N", and a rid and milliseconds a line, replaced whole.
 * RUNTIME_DIR/fenced: one line of 16 hex digits a rid, the oldest first.
 *
 * Promises: the file is replaced whole, so nobody reads half of a change and a full runtime directory
 * leaves it as it was; changes exclude each other by a flock on a file of its own.  Lines that are not rids
 * are not taken for any and go with the next change.  A list that has grown to RIDS_MAX loses its older half:
 * forgetting a rid only means asking for it again.
 */
#include "fenced.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "log.h"

#define RIDS_MAX	4096u
#define DIGITS		16
#define LINE_BYTES	64

struct list {
	size_t nr;
	uint64_t rids[RIDS_MAX];
};

static bool parse_line(const char *line, uint64_t *rid)
{
	if (strspn(line, "0123456789abcdef") != DIGITS || strcmp(line + DIGITS, "\n") != 0)
		return false;
	*rid = strtoull(line, NULL, 16);
	return *rid != 0;
}

static int read_list(const char *path, struct list *l)
{
	char line[LINE_BYTES];
	FILE *f = fopen(path, "re");
	uint64_t rid;
	int ret = 0;

	l->nr = 0;
	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (fgets(line, sizeof(line), f)) {
		if (!parse_line(line, &rid))
			continue;
		if (l->nr == RIDS_MAX) {
			memmove(l->rids, l->rids + RIDS_MAX / 2, RIDS_MAX / 2 * sizeof(*l->rids));
			l->nr = RIDS_MAX / 2;
		}
		l->rids[l->nr++] = rid;
	}
	if (ferror(f))
		ret = -EIO;
	fclose(f);
	return ret;
}

static bool list_has(const struct list *l, uint64_t rid)
{
	for (size_t i = 0; i < l->nr; i++) {
		if (l->rids[i] == rid)
			return true;
	}
	return false;
}

static int write_list(const char *path, const struct list *l, uint64_t rid)
{
	char tmp[CONF_PATH_BYTES + 32];
	size_t from = l->nr == RIDS_MAX ? RIDS_MAX / 2 : 0;
	bool failed = false;
	FILE *f;
	int ret = 0;

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	f = fopen(tmp, "we");
	if (!f)
		return -errno;
	for (size_t i = from; i < l->nr; i++)
		failed = failed || fprintf(f, "%016" PRIx64 "\n", l->rids[i]) < 0;
	failed = failed || fprintf(f, "%016" PRIx64 "\n", rid) < 0;
	if (failed || fflush(f) != 0 || fsync(fileno(f)) < 0)
		ret = errno ? -errno : -EIO;
	if (fclose(f) != 0 && ret == 0)
		ret = -errno;
	if (ret == 0 && rename(tmp, path) < 0)
		ret = -errno;
	if (ret < 0)
		unlink(tmp);
	return ret;
}

static int add_locked(const char *path, uint64_t rid)
{
	struct list *l = malloc(sizeof(*l));
	int ret;

	if (!l)
		return -ENOMEM;
	ret = read_list(path, l);
	if (ret == 0 && !list_has(l, rid))
		ret = write_list(path, l, rid);
	free(l);
	return ret;
}

int fenced_add(const struct instance_conf *conf, uint64_t rid)
{
	char path[CONF_PATH_BYTES + 16], lock[CONF_PATH_BYTES + 16];
	int ret, fd;

	if (rid == 0 || rid == UINT64_MAX)
		return -EINVAL;
	conf_runtime_path(conf, "fenced", path, sizeof(path));
	conf_runtime_path(conf, "fenced.lock", lock, sizeof(lock));
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0) {
		ret = -errno;
	} else {
		while ((ret = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
			;
		ret = ret < 0 ? -errno : add_locked(path, rid);
		close(fd);
	}
	if (ret < 0)
		log_err("%s: that rid %016" PRIx64 " is fenced cannot be kept: %s; it may be asked for "
			"again", path, rid, strerror(-ret));
	return ret;
}

int fenced_has(const struct instance_conf *conf, uint64_t rid)
{
	char path[CONF_PATH_BYTES + 16];
	struct list *l = malloc(sizeof(*l));
	int ret = -ENOMEM;

	conf_runtime_path(conf, "fenced", path, sizeof(path));
	if (l) {
		ret = read_list(path, l);
		if (ret == 0)
			ret = list_has(l, rid);
		free(l);
	}
	if (ret < 0)
		log_err("%s: %s; what was fenced before is not known", path, strerror(-ret));
	return ret;
}

int lapsed_set(const struct instance_conf *conf, uint64_t term, const struct lapsed_leader *leaders, size_t nr)
{
	char path[CONF_PATH_BYTES + 16], tmp[CONF_PATH_BYTES + 32];
	bool failed;
	int ret = 0;
	FILE *f;

	conf_runtime_path(conf, "lapsed", path, sizeof(path));
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	f = fopen(tmp, "we");
	failed = !f || fprintf(f, "term %" PRIu64 "\n", term) < 0;
	for (size_t i = 0; i < nr && !failed; i++)
		failed = fprintf(f, "%016" PRIx64 " %" PRIu64 "\n", leaders[i].rid, leaders[i].led_ms) < 0;
	if (failed)
		ret = -errno;
	if (f && fclose(f) != 0 && ret == 0)
		ret = -errno;
	if (ret == 0 && rename(tmp, path) < 0)
		ret = -errno;
	if (ret < 0) {
		log_warning("%s: which leaders were waited out cannot be kept: %s; their mounts are waited for once "
			    "more", path, strerror(-ret));
		unlink(tmp);
	}
	return ret;
}

uint64_t lapsed_led_ms(const struct instance_conf *conf, uint64_t term, uint64_t rid)
{
	uint64_t of_term, x, ms, led_ms = 0;
	char path[CONF_PATH_BYTES + 16];
	FILE *f;

	conf_runtime_path(conf, "lapsed", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "term %" SCNu64, &of_term) == 1 && of_term == term) {
		while (led_ms == 0 && fscanf(f, " %16" SCNx64 " %" SCNu64, &x, &ms) == 2)
			led_ms = x == rid ? ms : 0;
	}
	fclose(f);
	return led_ms;
}

void fence_agent_note(const struct instance_conf *conf, uint64_t rid, char *buf, size_t size)
{
	char name[64], path[CONF_PATH_BYTES + 64];
	FILE *f;

	buf[0] = 0;
	snprintf(name, sizeof(name), "fence/%016" PRIx64 "/agent", rid);
	conf_runtime_path(conf, name, path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return;
	if (!fgets(buf, (int)size, f))
		buf[0] = 0;
	fclose(f);
}
