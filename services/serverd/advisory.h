/* Advisory locks on the server: messages to and from the machine of advisory_fsm.h.  All calls: the loop's. */
#ifndef SCOUTFS_SERVERD_ADVISORY_H
#define SCOUTFS_SERVERD_ADVISORY_H

#include "advisory_fsm.h"
#include "serverd.h"

/* For server_start, server_free; -ENOMEM.  close: NULL is fine. */
int advisory_open(struct server *s);
void advisory_close(struct server *s);

/* A mount asks: adv_lock, adv_cancel or adv_test. */
void advisory_request(struct server *s, uint64_t rid, uint64_t handle, unsigned type, const void *msg);
/* It answers adv_recover; err: it cannot. */
void advisory_told(struct server *s, struct client *c, int err, const struct msg_adv_recover_reply *m);
/* EXPECT, GREETED, RESTARTED, GONE; the server stops when there is no memory. */
void advisory_note(struct server *s, enum advfsm_event_kind kind, uint64_t rid);
/* Whether a program of another mount waits for what that mount's have, or for its telling what they have. */
bool advisory_waits_for(const struct server *s, uint64_t rid);
/* For status. */
void advisory_stats(const struct server *s, struct advfsm_stats *st);
/* Do what the machine wants; a part of server_perform. */
void advisory_perform(struct server *s);

#endif
