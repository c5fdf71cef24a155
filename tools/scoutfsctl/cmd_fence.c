/*
 * `scoutfsctl fence`: what waits for somebody to say that a mount is dead for certain, and saying that it
 * is, or that this could not be made certain (interface.md 5: then the leader stops, and the next one tries
 * again). The word goes only to the service that waits for that rid, and that service decides; nothing
 * is said in advance.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "errors.h"
#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/fence.h"
#include "tools/scoutfsctl/services.h"

#define COMMAND_MS 10000
#define RID_DIGITS 16

/* Only these have to do with fencing. */
static const enum service fencers[] = { SERVICE_QUORUMD, SERVICE_SERVERD };
#define FENCERS_NR (sizeof(fencers) / sizeof(fencers[0]))

struct request {
	uint64_t rid;		/* ack, fail; 0: list */
	const char *verb;	/* of the services' status sockets */
	bool is_json;		/* list */
	unsigned waiting_nr, silent_nr, asked_nr, failed_nr;
};

static void print_waiting(const struct request *rq, const struct instance_conf *conf, enum service s,
			  uint64_t rid, const char *reason)
{
	if (rq->is_json) {
		printf("{\"rid\":\"%016" PRIx64 "\",\"instance\":", rid);
		json_string(stdout, conf->name, strlen(conf->name));
		printf(",\"service\":\"%s\",\"reason\":", service_name(s));
		json_string(stdout, reason, strlen(reason));
		printf("}\n");
		return;
	}
	printf("%016" PRIx64 " %s %s ", rid, conf->name, service_name(s));
	text_string(stdout, reason, strlen(reason));
	putchar('\n');
}

static void tell(struct request *rq, const struct instance_conf *conf, enum service s)
{
	char path[CONF_PATH_BYTES + 64], rid[RID_DIGITS + 1];
	struct msg_ctl_reply *reply = calloc(1, sizeof(*reply));
	int ret;

	ctl_path(conf, service_name(s), path, sizeof(path));
	snprintf(rid, sizeof(rid), "%016" PRIx64, rq->rid);
	ret = reply ? ctl_do(path, COMMAND_MS, rq->verb, rid, reply) : -ENOMEM;
	if (ret < 0) {
		say_error("fence", "%s of %s: %s", service_name(s), conf->name,
			  service_err_text(ret));
		rq->failed_nr++;
	} else if (reply->code != 0) {
		say_error("fence", "%s of %s: %s", service_name(s), conf->name,
			  reply->text[0] ? reply->text : strerror(-errors_from_wire(reply->code)));
		rq->failed_nr++;
	} else {
		printf("%s of %s: ", service_name(s), conf->name);
		text_string(stdout, reply->text, strlen(reply->text));
		putchar('\n');
	}
	free(reply);
}

static void ask_service(struct request *rq, const struct instance_conf *conf, enum service s)
{
	struct service_answer *a = malloc(sizeof(*a));
	const char *reason;
	uint64_t rid;

	if (!a) {
		say_error("fence", "no memory");
		exit(1);
	}
	service_ask(conf, s, a);
	rq->asked_nr++;
	if (a->err < 0) {
		rq->silent_nr++;
		say_error("fence", "%s of %s: %s", service_name(s), conf->name,
			  service_err_text(a->err));
	}
	for (unsigned i = 0; a->err == 0 && i < a->reply.texts_nr; i++) {
		if (!fence_text_parse(&a->reply.texts[i], &rid, &reason))
			continue;
		if (!rq->rid) {
			print_waiting(rq, conf, s, rid, reason);
		} else if (rid == rq->rid) {
			rq->waiting_nr++;
			tell(rq, conf, s);
		}
	}
	free(a);
}

static void ask_instance(void *arg, const struct instance_conf *conf)
{
	for (size_t i = 0; i < FENCERS_NR; i++) {
		if (service_is_wanted(conf, fencers[i]))
			ask_service(arg, conf, fencers[i]);
	}
}

static bool parse_rid(const char *text, uint64_t *rid)
{
	size_t len = strlen(text);

	if (len == 0 || len > RID_DIGITS || strspn(text, "0123456789abcdefABCDEF") != len)
		return false;
	*rid = strtoull(text, NULL, 16);
	return *rid != 0;
}

int cmd_fence(int argc, char **argv)
{
	const char *action = argc > 1 ? argv[1] : "";
	struct request rq = { .rid = 0 };
	int names_at = 2, nr;

	if (strcmp(action, "agent") == 0) {
		if (argc != 3)
			return usage_error("fence", "agent: name one configuration");
		return fence_agent(argv[2]);
	}
	if (strcmp(action, "ack") == 0 || strcmp(action, "fail") == 0) {
		rq.verb = action[0] == 'a' ? "fence-ack" : "fence-fail";
		if (argc < 3 || !parse_rid(argv[2], &rq.rid))
			return usage_error("fence",
					   "%s: a rid has up to 16 hexadecimal digits, as "
					   "`fence list` shows them",
					   argc < 3 ? action : argv[2]);
		names_at = 3;
	} else if (strcmp(action, "list") != 0) {
		return usage_error("fence", "say list, ack RID, fail RID or agent");
	} else if (argc > 2 && strcmp(argv[2], "--json") == 0) {
		rq.is_json = true;
		names_at = 3;
	}
	if (argc > names_at && argv[names_at][0] == '-')
		return usage_error("fence", "unknown option '%s'", argv[names_at]);
	if (argc > names_at + 1)
		return usage_error("fence", "name one configuration, or none for all of them");
	nr = instances_each("fence", argv[names_at], ask_instance, &rq);
	if (nr < 0)
		return 1;
	if (rq.asked_nr == 0) {
		say_error("fence", "no instance with a quorum slot is configured here: ask where "
				   "the "
				   "volume is led");
		return 1;
	}
	if (rq.rid && rq.waiting_nr == 0 && rq.silent_nr) {
		say_error("fence",
			  "%016" PRIx64 ": nobody was told: who did not answer may wait for that rid",
			  rq.rid);
		return 1;
	}
	if (rq.rid && rq.waiting_nr == 0) {
		say_error("fence",
			  "%016" PRIx64 ": nothing here waits for that rid; `%s fence list` shows "
			  "what is waited for",
			  rq.rid, program_name());
		return 1;
	}
	/* a list without what the silent one waits for is not the list */
	return rq.failed_nr || (!rq.rid && rq.silent_nr);
}
