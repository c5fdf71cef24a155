/*
 * What a mount asks of the leader of its own instance beside their session: the roots that readers start from.
 * design.md D12, runtime.md 17.
 */
#ifndef SCOUTFS_SHORTCUT_H
#define SCOUTFS_SHORTCUT_H

#include <stdint.h>

#include "conf.h"
#include "msg.h"

struct shortcut_server;

/*
 * The answer to get_roots of that mount, by the leader of that term: 0, or a negative errno where this is not
 * that leader or does not know the mount.  Called by the shortcut's own thread.
 */
typedef int (*shortcut_roots_fn)(void *arg, uint64_t rid, uint64_t term,
				 struct msg_get_roots_reply *reply);

/*
 * Answer on RUNTIME_DIR/roots.sock (mode 0660) until shortcut_server_stop.  Only one process of the instance may
 * do so at a time: what another has left there is replaced.  Negative errno, logged.
 */
int shortcut_server_start(struct shortcut_server **out, const struct instance_conf *conf,
			  shortcut_roots_fn roots, void *arg);
/* NULL is none.  No call of roots is running any more when it returns. */
void shortcut_server_stop(struct shortcut_server *s);

struct shortcut;

/* -ENOMEM.  The caller's until shortcut_close (NULL is none); conf is not kept. */
int shortcut_open(struct shortcut **out, const struct instance_conf *conf);
void shortcut_close(struct shortcut *s);

/*
 * Ask the server of that term.  0, or -EAGAIN, after a fifth of a second at most: it is to be asked through the
 * session.  Any thread; those that come while another asks are told so at once.
 */
int shortcut_roots(struct shortcut *s, uint64_t rid, uint64_t term, struct msg_get_roots_reply *reply);

#endif
