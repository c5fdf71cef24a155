/*
 * `scoutfsctl resign`: a planned hand-over.  The leader finishes its commit, says that it has resigned, and
 * another living member leads; the mounts go on with that one.  For maintenance: what follows, a restart or an
 * update of this host, then interrupts nobody.  quorumd decides (services/quorumd/status.c); this asks it and waits
 * until another member leads, for only then it is done.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "ctl.h"
#include "errors.h"
#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/services.h"

#define COMMAND_MS	10000
#define ANSWER_MS	2000
#define HAND_OVER_NS	(30 * NSEC_PER_SEC)
#define POLL_NS		20000000l

struct request {
	unsigned asked_nr, failed_nr;
};

/* What quorumd says of itself; NULL: it does not say so. */
static const char *text_of(const struct msg_status_reply *st, const char *name)
{
	for (unsigned i = 0; i < st->texts_nr; i++) {
		if (strcmp(st->texts[i].name, name) == 0)
			return st->texts[i].text;
	}
	return NULL;
}

static bool is_leader(const struct msg_status_reply *st)
{
	for (unsigned i = 0; i < st->values_nr; i++) {
		if (strcmp(st->values[i].name, "is_leader") == 0)
			return st->values[i].value;
	}
	return false;
}

/* Until somebody leads who is not this host: 0; -ETIMEDOUT.  *st is the last answer. */
static int wait_for_another(const char *path, struct msg_status_reply *st)
{
	uint64_t end = clock_mono_ns() + HAND_OVER_NS;
	const char *leader;

	do {
		nanosleep(&(struct timespec){ .tv_nsec = POLL_NS }, NULL);
		if (ctl_query(path, ANSWER_MS, st) < 0)
			continue;
		leader = text_of(st, "leader");
		if (!is_leader(st) && leader && strcmp(leader, "none") != 0)
			return 0;
	} while (clock_mono_ns() < end);
	return -ETIMEDOUT;
}

static void resign(struct request *rq, const struct instance_conf *conf)
{
	struct msg_status_reply *st = calloc(1, sizeof(*st));
	struct msg_ctl_reply *reply = calloc(1, sizeof(*reply));
	char path[CONF_PATH_BYTES + 64];
	uint64_t began = clock_mono_ns();
	const char *leader;
	int ret;

	ctl_path(conf, service_name(SERVICE_QUORUMD), path, sizeof(path));
	ret = st && reply ? ctl_do(path, COMMAND_MS, "resign", "", reply) : -ENOMEM;
	if (ret < 0) {
		say_error("resign", "quorumd of %s: %s", conf->name, service_err_text(ret));
	} else if (reply->code && errors_from_wire(reply->code) == -ENOENT) {
		printf("%s: this host does not lead\n", conf->name);
	} else if (reply->code) {
		ret = errors_from_wire(reply->code);
		say_error("resign", "%s: %s", conf->name, reply->text[0] ? reply->text : strerror(-ret));
	} else {
		ret = wait_for_another(path, st);
		leader = text_of(st, "leader");
		if (ret < 0)
			say_error("resign", "%s: nobody else leads after %u s; `%s status %s` says what is "
				  "waited for", conf->name, (unsigned)(HAND_OVER_NS / NSEC_PER_SEC),
				  program_name(), conf->name);
		else
			printf("%s: %s leads, after %llu ms\n", conf->name, leader,
			       (unsigned long long)(clock_mono_ns() - began) / NSEC_PER_MSEC);
	}
	rq->failed_nr += ret < 0;
	free(st);
	free(reply);
}

static void ask_instance(void *arg, const struct instance_conf *conf)
{
	struct request *rq = arg;

	if (!service_is_wanted(conf, SERVICE_QUORUMD))
		return;
	rq->asked_nr++;
	resign(rq, conf);
}

int cmd_resign(int argc, char **argv)
{
	struct request rq = { 0 };

	if (refuse_options("resign", argc, argv))
		return EXIT_USAGE;
	if (argc > 2)
		return usage_error("resign", "name one configuration, or none for all of them");
	if (instances_each("resign", argv[1], ask_instance, &rq) < 0)
		return 1;
	if (rq.asked_nr == 0) {
		say_error("resign", "no instance with a quorum slot is configured here: it cannot lead");
		return 1;
	}
	return rq.failed_nr != 0;
}
