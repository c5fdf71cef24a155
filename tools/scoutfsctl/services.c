/*
 * Finding instances and asking their services.  A service that is silent costs ASK_MS and is named
 * as such; nothing here changes anything.
 */
#include "tools/scoutfsctl/services.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "tools/scoutfsctl/commands.h"

#define ASK_MS	   5000
#define RID_DIGITS 16

static const char *const names[SERVICES_NR] = {
	[SERVICE_BLOCKD] = "blockd",
	[SERVICE_QUORUMD] = "quorumd",
	[SERVICE_SERVERD] = "serverd",
	[SERVICE_FSD] = "fsd",
};

const char *service_name(enum service s)
{
	return names[s];
}

bool service_is_known(const char *name)
{
	for (int s = 0; s < SERVICES_NR; s++) {
		if (strcmp(names[s], name) == 0)
			return true;
	}
	return false;
}

bool service_is_wanted(const struct instance_conf *conf, enum service s)
{
	bool needs_slot = s == SERVICE_QUORUMD || s == SERVICE_SERVERD;

	return !needs_slot || conf->quorum_slot != CONF_NO_SLOT;
}

void service_ask(const struct instance_conf *conf, enum service s, struct service_answer *out)
{
	char path[CONF_PATH_BYTES + 64];

	ctl_path(conf, service_name(s), path, sizeof(path));
	memset(&out->reply, 0, sizeof(out->reply));
	out->err = ctl_query(path, ASK_MS, &out->reply);
}

const char *service_err_text(int err)
{
	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
		return "not running";
	case -ETIMEDOUT:
		return "does not answer";
	case -EPROTO:
		return "answers something that is not understood: is it of another version?";
	case -EACCES:
		return "cannot be asked: permission denied; run as root";
	default:
		return strerror(-err);
	}
}

static int one_instance(const char *verb, const char *path_or_name,
			void (*each)(void *arg, const struct instance_conf *conf), void *arg)
{
	struct instance_conf conf;
	char err[CONF_ERR_BYTES];

	if (conf_load(&conf, path_or_name, err, sizeof(err)) < 0) {
		say_error(verb, "%s", err);
		return -1;
	}
	each(arg, &conf);
	return 1;
}

/* Whether the file of mount.scoutfs is of an instance that is up, and not left from an earlier
 * mount. */
static bool is_left_over(const char *path)
{
	struct instance_conf conf;
	char err[CONF_ERR_BYTES], sock[CONF_PATH_BYTES + 64];

	if (conf_load(&conf, path, err, sizeof(err)) < 0)
		return false;
	ctl_path(&conf, service_name(SERVICE_BLOCKD), sock, sizeof(sock));
	return access(sock, F_OK) < 0 && errno == ENOENT;
}

int instances_each(const char *verb, const char *path_or_name,
		   void (*each)(void *arg, const struct instance_conf *conf), void *arg)
{
	bool is_bad = false;
	int nr = 0;
	glob_t g;

	if (path_or_name)
		return one_instance(verb, path_or_name, each, arg);
	if (glob(CONF_DIR "/*.conf", 0, NULL, &g) == GLOB_NOSPACE ||
	    glob(CONF_MOUNT_DIR "/*.conf", GLOB_APPEND, NULL, &g) == GLOB_NOSPACE) {
		say_error(verb, "%s", strerror(ENOMEM));
		return -1;
	}
	for (size_t i = 0; i < g.gl_pathc; i++) {
		if (strncmp(g.gl_pathv[i], CONF_MOUNT_DIR, strlen(CONF_MOUNT_DIR)) == 0 &&
		    is_left_over(g.gl_pathv[i]))
			continue;
		if (one_instance(verb, g.gl_pathv[i], each, arg) < 0)
			is_bad = true;
		else
			nr++;
	}
	globfree(&g);
	return is_bad ? -1 : nr;
}

bool fence_text_parse(const struct msg_stat_text *t, uint64_t *rid, const char **reason)
{
	const char *text = t->text;

	if (strcmp(t->name, "fence") != 0 || strspn(text, "0123456789abcdef") != RID_DIGITS ||
	    (text[RID_DIGITS] != ':' && text[RID_DIGITS] != 0))
		return false;
	*rid = strtoull(text, NULL, 16);
	*reason = text + RID_DIGITS;
	*reason += strspn(*reason, ": ");
	return true;
}
