/*
 * The rids that are known to write no more: an operator has said so, or blockd refuses them.  design.md D6.
 *
 * Kept in RUNTIME_DIR/fenced, so that one word is enough: for quorumd and serverd, and for the processes
 * that follow them.  It goes with the instance's runtime directory, as what blockd refuses does.
 */
#ifndef SCOUTFS_FENCED_H
#define SCOUTFS_FENCED_H

#include <stddef.h>
#include <stdint.h>

#include "conf.h"

/*
 * Remember rid; fine when it is known already.  Any process, any thread.  -EINVAL: no rid, or what the file
 * fails with (logged: somebody will be asked once more than needed, nothing else is lost).
 */
int fenced_add(const struct instance_conf *conf, uint64_t rid);

/* Whether rid is remembered: 1 or 0.  Negative: the file cannot be read (logged; treat it as "no"). */
int fenced_has(const struct instance_conf *conf, uint64_t rid);

/*
 * What a fence agent (scoutfsctl fence agent) says of its work on rid, one line of RUNTIME_DIR/fence/RID/agent; "":
 * nothing.
 */
void fence_agent_note(const struct instance_conf *conf, uint64_t rid, char *buf, size_t size);

/*
 * The leaders of before that the leader of `term` has waited out instead: what their servers may have given their
 * own mounts is over, which says nothing of leases that others gave those before or later: so how long it
 * led counts.  Kept in RUNTIME_DIR/lapsed, for this host's serverd and for that term only.  The file's error,
 * logged: the server waits longer.
 */
struct lapsed_leader {
	uint64_t rid;
	uint64_t led_ms;	/* from when it was first known to lead until now */
};
int lapsed_set(const struct instance_conf *conf, uint64_t term, const struct lapsed_leader *leaders, size_t nr);
/* How long rid had led, if it is one of them; 0: it is not. */
uint64_t lapsed_led_ms(const struct instance_conf *conf, uint64_t term, uint64_t rid);

#endif
