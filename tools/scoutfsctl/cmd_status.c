/*
 * `scoutfsctl status`: how each service of an instance is, in words.  It asks the services
 * themselves and believes no pid file: what does not answer is down.  The exit status is the sum of
 * it: 0 every wanted service answers and none waits for something, 1 some of it is not so, 2
 * nothing runs, 3 it may not be asked.  --cluster is in status_cluster.c.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/runtime.h"
#include "tools/scoutfsctl/services.h"
#include "tools/scoutfsctl/status.h"

const char *const health_names[] = {
	[HEALTHY] = "healthy",
	[DEGRADED] = "degraded",
	[NOT_RUNNING] = "not running",
};

struct request {
	bool is_json, is_verbose, is_cluster, is_all, is_prom;
	unsigned healthy_nr, down_nr, unknown_nr, nr;
};

void status_ask_all(const struct instance_conf *conf, struct instance_answers *a)
{
	unsigned silent = 0, waiting = 0, wanted = 0;

	for (int s = 0; s < SERVICES_NR; s++) {
		if (!service_is_wanted(conf, s))
			continue;
		wanted++;
		service_ask(conf, s, &a->of[s]);
		if (a->of[s].err < 0)
			silent++;
		else if (a->of[s].reply.waiting_for[0])
			waiting++;
	}
	a->health = silent == wanted ? NOT_RUNNING : silent || waiting ? DEGRADED : HEALTHY;
}

void status_print_age(uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (s < 10)
		printf("%" PRIu64 ".%" PRIu64 " s", s, ms / 100 % 10);
	else if (s < 60)
		printf("%" PRIu64 " s", s);
	else if (s < 3600)
		printf("%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		printf("%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		printf("%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
}

/* "label  text", indented; the text may be anything. */
static void status_print_line(const char *label, const char *text)
{
	printf("    %-12s ", label);
	text_string(stdout, text, strlen(text));
	putchar('\n');
}

void status_print_service(const struct service_answer *a, enum service s, bool is_verbose)
{
	const struct msg_status_reply *r = &a->reply;

	if (a->err < 0) {
		printf("  %-8s down: %s\n", service_name(s), service_err_text(a->err));
		return;
	}
	printf("  %-8s ", service_name(s));
	text_string(stdout, r->state, strlen(r->state));
	printf("\n    %-12s ", "for");
	status_print_age(r->since_ms);
	printf(" (pid %" PRIu32 ", version ", r->pid);
	text_string(stdout, r->version, strlen(r->version));
	printf(")\n");
	if (r->waiting_for[0])
		status_print_line("waits for", r->waiting_for);
	for (unsigned i = 0; i < r->texts_nr; i++)
		status_print_line(r->texts[i].name, r->texts[i].text);
	for (unsigned i = 0; is_verbose && i < r->values_nr; i++) {
		printf("    ");
		text_string(stdout, r->values[i].name, strlen(r->values[i].name));
		printf(" %" PRIu64 "\n", r->values[i].value);
	}
}

void status_json_member(const char *before, const char *name, const char *text)
{
	printf("%s\"%s\":", before, name);
	json_string(stdout, text, strlen(text));
}

void status_print_service_json(const struct service_answer *a, enum service s)
{
	const struct msg_status_reply *r = &a->reply;

	printf("{\"service\":\"%s\",\"answers\":%s", service_name(s),
	       a->err < 0 ? "false" : "true");
	if (a->err < 0) {
		status_json_member(",", "error", service_err_text(a->err));
		printf("}");
		return;
	}
	status_json_member(",", "state", r->state);
	printf(",\"since_ms\":%" PRIu64 ",\"pid\":%" PRIu32, r->since_ms, r->pid);
	status_json_member(",", "version", r->version);
	status_json_member(",", "waiting_for", r->waiting_for);
	printf(",\"texts\":[");
	for (unsigned i = 0; i < r->texts_nr; i++) {
		status_json_member(i ? ",{" : "{", "name", r->texts[i].name);
		status_json_member(",", "text", r->texts[i].text);
		printf("}");
	}
	printf("],\"values\":{");
	for (unsigned i = 0; i < r->values_nr; i++) {
		if (i)
			putchar(',');
		json_string(stdout, r->values[i].name, strlen(r->values[i].name));
		printf(":%" PRIu64, r->values[i].value);
	}
	printf("}}");
}

static void print_instance_json(const struct instance_conf *conf, const struct instance_answers *a)
{
	const char *before = "";

	status_json_member("{", "instance", conf->name);
	status_json_member(",", "health", health_names[a->health]);
	status_json_member(",", "mountpoint", conf->mountpoint);
	status_json_member(",", "meta_device", conf->meta_device);
	status_json_member(",", "data_device", conf->data_device);
	printf(",\"services\":[");
	for (int s = 0; s < SERVICES_NR; s++) {
		if (!service_is_wanted(conf, s))
			continue;
		printf("%s", before);
		before = ",";
		status_print_service_json(&a->of[s], s);
	}
	printf("]}\n");
}

static void print_instance(const struct instance_conf *conf, const struct instance_answers *a,
			   bool is_verbose)
{
	printf("scoutfs %s on %s: %s\n", conf->name, conf->mountpoint, health_names[a->health]);
	for (int s = 0; s < SERVICES_NR; s++) {
		if (service_is_wanted(conf, s))
			status_print_service(&a->of[s], s, is_verbose);
	}
}

static void prom_sample(const char *name, const struct instance_conf *conf, enum service s, uint64_t value)
{
	printf("scoutfs_%s{instance=", name);
	json_string(stdout, conf->name, strlen(conf->name));
	printf(",service=\"%s\"} %" PRIu64 "\n", service_name(s), value);
}

/* Letters, digits and underscores: what may be in the name of a metric. */
static bool is_metric_name(const char *name)
{
	return name[0] && strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(name);
}

/* Every number of every service in the text format of Prometheus. */
static void print_instance_prom(const struct instance_conf *conf, const struct instance_answers *a)
{
	for (int s = 0; s < SERVICES_NR; s++) {
		const struct msg_status_reply *r = &a->of[s].reply;

		if (!service_is_wanted(conf, s))
			continue;
		prom_sample("up", conf, s, a->of[s].err == 0);
		if (a->of[s].err < 0)
			continue;
		prom_sample("waits", conf, s, r->waiting_for[0] != 0);
		prom_sample("state_ms", conf, s, r->since_ms);
		for (unsigned i = 0; i < r->values_nr; i++) {
			if (is_metric_name(r->values[i].name))
				prom_sample(r->values[i].name, conf, s, r->values[i].value);
		}
	}
}

static void count_health(struct request *rq, enum health health)
{
	rq->nr++;
	rq->healthy_nr += health == HEALTHY;
	rq->down_nr += health == NOT_RUNNING;
}

static void show_instance(void *arg, const struct instance_conf *conf)
{
	struct request *rq = arg;
	struct instance_answers *a;

	if (runtime_may_look("status", conf) < 0) {
		rq->unknown_nr++;
		return;
	}
	if (rq->is_cluster) {
		count_health(rq, status_cluster(conf, rq->is_json, rq->is_all));
		return;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		say_error("status", "no memory");
		exit(1);
	}
	status_ask_all(conf, a);
	if (rq->is_prom)
		print_instance_prom(conf, a);
	else if (rq->is_json)
		print_instance_json(conf, a);
	else
		print_instance(conf, a, rq->is_verbose);
	count_health(rq, a->health);
	free(a);
}

int cmd_status(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "cluster", no_argument, NULL, 'c' },
		{ "all", no_argument, NULL, 'a' },
		{ "prom", no_argument, NULL, 'p' },
		{ NULL, 0, NULL, 0 },
	};
	struct request rq = { .is_json = false };
	int opt, nr;

	while ((opt = getopt_long(argc, argv, ":v", longopts, NULL)) != -1) {
		if (opt == 'j')
			rq.is_json = true;
		else if (opt == 'v')
			rq.is_verbose = true;
		else if (opt == 'c')
			rq.is_cluster = true;
		else if (opt == 'a')
			rq.is_all = true;
		else if (opt == 'p')
			rq.is_prom = true;
		else
			return unknown_option("status", argv);
	}
	if (rq.is_prom && (rq.is_cluster || rq.is_json))
		return usage_error("status", "--prom stands alone");
	if (argc - optind > 1)
		return usage_error("status", "name one configuration, or none for all of them");
	nr = instances_each("status", argv[optind], show_instance, &rq);
	if (rq.unknown_nr)
		return UNKNOWN;
	if (nr < 0)
		return rq.down_nr == rq.nr ? NOT_RUNNING : DEGRADED;
	if (nr == 0)
		say_error("status", "there is no configuration in " CONF_DIR);
	return rq.down_nr == rq.nr ? NOT_RUNNING : rq.healthy_nr == rq.nr ? HEALTHY : DEGRADED;
}
