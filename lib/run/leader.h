/*
 * A service's connection with its host's quorumd: who leads, and how our serverd is.  design.md §2,
 * D7.
 *
 * Not a thread: one loop owns it, polls leader_fd() and calls leader_dispatch() when that is
 * readable or leader_deadline() has come.  quorumd going away and coming back is handled here: the
 * greeting and the state are said again.
 */
#ifndef SCOUTFS_LEADER_H
#define SCOUTFS_LEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "msg.h"

struct leader;

/* RUNTIME_DIR/quorumd.sock need not be there yet.  zmq_ctx must outlive it.  -ENOMEM, -EMFILE. */
int leader_open(struct leader **out, void *zmq_ctx, const struct instance_conf *conf,
		enum local_kind kind, uint64_t rid);
void leader_close(struct leader *l);

int leader_fd(const struct leader *l);
void leader_dispatch(struct leader *l, uint64_t now_ns);
uint64_t leader_deadline(const struct leader *l);

/*
 * What quorumd said last; false: nothing yet, or it has been silent since it went away.  For
 * serverd: serve st->term iff role is QUORUM_LEADER and stop is 0; do not begin while this is
 * false.
 */
bool leader_state(const struct leader *l, struct msg_leader_state *st);
/* When quorumd was last heard (clock_mono_ns), 0: never. */
uint64_t leader_last_heard_ns(const struct leader *l);

/* serverd: what quorumd said last of the quorum's members, with their ages at now_ns; none: not yet. */
void leader_members(const struct leader *l, uint64_t now_ns, struct msg_quorum_members *out);

/* serverd: this is our state from now on; it is repeated until quorumd cannot have missed it. */
void leader_report(struct leader *l, uint64_t term, enum server_status state);

#endif
