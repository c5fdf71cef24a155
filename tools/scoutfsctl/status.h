/* What the parts of `scoutfsctl status` share: the services of a node, and the cluster. */
#ifndef SCOUTFSCTL_STATUS_H
#define SCOUTFSCTL_STATUS_H

#include "tools/scoutfsctl/services.h"

/* Exit statuses, and what is said of an instance. */
enum health { HEALTHY = 0, DEGRADED = 1, NOT_RUNNING = 2, UNKNOWN = 3 };
extern const char *const health_names[];

struct instance_answers {
	enum health health;
	struct service_answer of[SERVICES_NR];
};
void status_ask_all(const struct instance_conf *conf, struct instance_answers *a);

/* "2 d 3 h", "5 min 10 s", "0.4 s": the two greatest units. */
void status_print_age(uint64_t ms);
void status_print_service(const struct service_answer *a, enum service s, bool is_verbose);
void status_print_service_json(const struct service_answer *a, enum service s);
/* "name":"text", with what stands before it. */
void status_json_member(const char *before, const char *name, const char *text);

/* The cluster of an instance as its leader sees it, or why it cannot be asked. */
enum health status_cluster(const struct instance_conf *conf, bool is_json, bool is_all);

#endif
