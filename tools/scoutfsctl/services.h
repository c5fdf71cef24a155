/* The services of an instance, asked over their status sockets.  design.md D9. */
#ifndef SCOUTFSCTL_SERVICES_H
#define SCOUTFSCTL_SERVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "msg.h"

enum service { SERVICE_BLOCKD, SERVICE_QUORUMD, SERVICE_SERVERD, SERVICE_FSD, SERVICES_NR };

/* "blockd", ... */
const char *service_name(enum service s);
bool service_is_known(const char *name);
/* Whether the configuration wants it: quorumd and serverd only with a quorum slot. */
bool service_is_wanted(const struct instance_conf *conf, enum service s);

struct service_answer {
	int err; /* as ctl_query; reply only when 0 */
	struct msg_status_reply reply;
};
void service_ask(const struct instance_conf *conf, enum service s, struct service_answer *out);
/* Why a service is silent, in words; err as of service_answer. */
const char *service_err_text(int err);

/*
 * Call each(arg, conf) for the instance of that NAME or FILE or, for NULL, for every one that has a
 * file in /etc/scoutfs, and for those that mount.scoutfs made and whose runtime directory is there.
 * Returns how many there were; -1, said for the verb, when a configuration could not be read.
 */
int instances_each(const char *verb, const char *path_or_name,
		   void (*each)(void *arg, const struct instance_conf *conf), void *arg);

/* What a service waits to be told about, as its status texts "fence" say: "RID: reason". */
bool fence_text_parse(const struct msg_stat_text *t, uint64_t *rid, const char **reason);

#endif
