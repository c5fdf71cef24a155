/*
 * The rids that are known to write no more: an operator has said so, or blockd refuses them.  design.md D6.
 *
 * Kept in RUNTIME_DIR/fenced, so that one word is enough: for quorumd and serverd, and for the processes
 * that follow them.  It goes with the instance's runtime directory, as what blockd refuses does.
 */
#ifndef SCOUTFS_FENCED_H
#define SCOUTFS_FENCED_H

#include <stdint.h>

#include "conf.h"

/*
 * Remember rid; fine when it is known already.  Any process, any thread.  -EINVAL: no rid, or what the file
 * fails with (logged: somebody will be asked once more than needed, nothing else is lost).
 */
int fenced_add(const struct instance_conf *conf, uint64_t rid);

/* Whether rid is remembered: 1 or 0.  Negative: the file cannot be read (logged; treat it as "no"). */
int fenced_has(const struct instance_conf *conf, uint64_t rid);

#endif
