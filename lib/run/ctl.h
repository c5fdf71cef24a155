/*
 * Each service's status socket, RUNTIME_DIR/ctl-SERVICE.sock, and how scoutfsctl asks it. design.md
 * D9.
 */
#ifndef SCOUTFS_CTL_H
#define SCOUTFS_CTL_H

#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "msg.h"
#include "stats.h"

struct ctl;

/* Both are called by the socket's own thread: they take what locks they need, shortly. */
struct ctl_ops {
	/* Fill in state, since_ms, waiting_for, values and texts; service, version and pid are
	 * there. */
	void (*fill_status)(void *arg, struct msg_status_reply *reply);
	/* Do what verb says: 0 or a negative errno, and words for the operator.  NULL: there are no
	 * verbs. */
	int (*command)(void *arg, const char *verb, const char *arg_text, char *text,
		       size_t text_size);
	/*
	 * Answer a cluster_* request with the struct of its answer's type: 0 or a negative errno.  It may
	 * wait for others, shortly.  NULL: this service does not know.
	 */
	int (*cluster)(void *arg, unsigned type, const void *msg, union msg_body *reply);
};

/*
 * Answer on RUNTIME_DIR/ctl-SERVICE.sock (mode 0660) until ctl_stop.  -EADDRINUSE and others,
 * logged.
 */
int ctl_start(struct ctl **out, const struct instance_conf *conf, const char *service,
	      const struct ctl_ops *ops, void *arg);
void ctl_stop(struct ctl *c);

/* For fill_status; what does not fit any more is left out. */
void ctl_add_value(struct msg_status_reply *reply, const char *name, uint64_t value);
void ctl_add_text(struct msg_status_reply *reply, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void ctl_add_stats(struct msg_status_reply *reply, const struct stats_desc *descs, size_t nr,
		   const void *stats);
/* ctl_add_stats for a STATS_STRUCT with its STATS_DESCS. */
#define CTL_ADD_STATS(reply, type, stats)                                                          \
	ctl_add_stats((reply), type##_descs, STATS_NR(type), (stats))

/* The path of a service's socket. */
void ctl_path(const struct instance_conf *conf, const char *service, char *buf, size_t size);

/*
 * Ask the service at path.  -ENOENT: there is no such socket; -ECONNREFUSED: nobody answers it any
 * more; -ETIMEDOUT; -EPROTO: it answers something else.
 */
int ctl_query(const char *path, unsigned timeout_ms, struct msg_status_reply *reply);
/* A cluster_* request; *reply is the struct of its answer's type.  The service's own errors too. */
int ctl_cluster(const char *path, unsigned timeout_ms, unsigned type, const void *msg, void *reply);
/* Have it do something; *reply says how that went (reply->code as in errors.h). */
int ctl_do(const char *path, unsigned timeout_ms, const char *verb, const char *arg,
	   struct msg_ctl_reply *reply);

#endif
