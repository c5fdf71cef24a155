/* An instance's runtime directory: a tmpfs of its own, and the pid files in it.  design.md §3. */
#ifndef SCOUTFSCTL_RUNTIME_H
#define SCOUTFSCTL_RUNTIME_H

#include <sys/types.h>

#include "conf.h"

/* Mount the tmpfs (cache + pool + 16 MiB, mode 0700) unless it is there; 0 or -errno, said. */
int runtime_start(const char *verb, const struct instance_conf *conf);
/* Unmount it; services must have ended.  -EBUSY, said, if something still uses it. */
int runtime_stop(const char *verb, const struct instance_conf *conf);

/* Whether this user may look into the runtime directory at all: 0 or -EACCES, said. */
int runtime_may_look(const char *verb, const struct instance_conf *conf);

/* RUNTIME_DIR/SERVICE.pid: write; read (0: none, or nobody runs under it). */
int runtime_write_pid(const struct instance_conf *conf, const char *service, pid_t pid);
void runtime_remove_pid(const struct instance_conf *conf, const char *service);
pid_t runtime_read_pid(const struct instance_conf *conf, const char *service);

#endif
