/*
 * The identity of an instance: its rid.  design.md §2, D6; runtime.md 0.1.
 *
 * The first service to start makes it; it is kept in RUNTIME_DIR/rid, so it lives as long as the
 * instance's dirty state does, and is recorded in STATE_DIR/rids before anybody may use it, so that
 * after a power cut this host knows which mounts were its own.
 */
#ifndef SCOUTFS_INSTANCE_H
#define SCOUTFS_INSTANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "conf.h"

/*
 * The rid of this instance, made if there is none: services that start at the same time agree on
 * it. It is never 0 nor all ones and is recorded durably when this returns.  Errors are logged:
 * what the directories or files fail with, -EBADMSG for a rid file that holds something else.
 */
int instance_rid_get(const struct instance_conf *conf, uint64_t *rid);

/*
 * Whether an instance of this name on this host ever had rid, the present one included: 1 or 0.
 * Negative: the record cannot be read (logged; treat it as "not ours").
 */
int instance_rid_is_ours(const struct instance_conf *conf, uint64_t rid);

/* The directory or an error that says what to do (logged): it must exist and be writable. */
int instance_check_runtime_dir(const struct instance_conf *conf);

#endif
