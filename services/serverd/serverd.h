/*
 * The server of one term: who is mounted, what they ask, what becomes of them.  runtime.md 3, 10.3, 17.
 *
 * The loop owns a server and makes every call; disk work is done by the worker (worker.h), which may do the loop's
 * work while it has its lock.
 * clients.c is about membership, requests.c about messages, server.c about the life of the whole.
 */
#ifndef SCOUTFS_SERVERD_H
#define SCOUTFS_SERVERD_H

#include "conf.h"
#include "lease/lease.h"
#include "lock_fsm.h"
#include "logs.h"
#include "merge.h"
#include "mounts.h"
#include "msg.h"
#include "net_server.h"
#include "omap.h"
#include "serverd_stats.h"
#include "txn.h"
#include "worker.h"

/* The calls of net_server.h that a server makes; a test may put others in their place. */
struct server_net {
	int (*greeted)(void *arg, uint64_t rid, enum greeting_status status);
	int (*respond)(void *arg, uint64_t rid, uint64_t handle, int err, unsigned type,
		       const void *msg);
	int (*request)(void *arg, uint64_t rid, unsigned type, const void *msg, uint64_t tag);
	int (*drop)(void *arg, uint64_t rid);
};

struct server_conf {
	const struct instance_conf *conf;	/* timeouts; must outlive the server */
	uint64_t term;
	uint64_t rid;				/* of this instance */
	uint64_t fsid;
	struct txn_dev dev;
	/* Worker's thread: nobody with an older term writes any more; this rid writes no more (2.7). */
	int (*set_term)(void *arg, uint64_t term);
	int (*revoke)(void *arg, uint64_t rid);
	/*
	 * Worker's thread: the mount of this very instance writes no more, this server does.  -EOPNOTSUPP: this
	 * host's blockd is too old to keep the two apart.
	 */
	int (*revoke_own_mount)(void *arg);
	/* Loop: whether it could be asked just now. */
	bool (*can_revoke_own_mount)(void *arg);
	/* Worker's thread: whether this host ever ran a mount of that rid; 1, 0 or an error. */
	int (*rid_is_ours)(void *arg, uint64_t rid);
	/* Worker's thread: whether that rid is known to write no more (fenced.h); 1, 0 or an error. */
	int (*rid_is_fenced)(void *arg, uint64_t rid);
	/*
	 * Loop: how long an earlier leader of that rid led whose own right has been waited out (fenced.h); 0: it is
	 * none.  NULL: never known.
	 */
	uint64_t (*lapsed_led_ms)(void *arg, uint64_t rid);
	/* Of worker_conf; may be NULL. */
	bool (*tasks_done)(void *arg);
	bool (*worker_idle)(void *arg, int wake_fd);
	/* Loop: the volume is open; begin to listen.  An error (logged) stops the server. */
	int (*listen)(void *arg, const struct txn_view *view);
	/* Loop: stop listening. */
	void (*unlisten)(void *arg);
	/*
	 * Loop: the clock of leases, and until when by it this server may write and give them.  NULL: now_ns
	 * and for ever.
	 */
	uint64_t (*boot_ns)(void *arg);
	uint64_t (*lease_until_ns)(void *arg);
	/* What quorumd says of the members, for those who ask; NULL: nothing.  As cluster_answer. */
	void (*members)(void *arg, struct msg_quorum_members *out);
	struct server_net net;
	void *arg;				/* of all the calls above */
	struct serverd_stats *stats;
};

enum client_state {
	CLIENT_MOUNTING,	/* its item is being written */
	CLIENT_EXPECTED,	/* mounted before this server; has not told all its locks */
	CLIENT_UP,
	CLIENT_REVOKING,	/* given up: its writes are being stopped */
	CLIENT_FENCE_WAIT,	/* given up: somebody must say that it cannot write any more */
	CLIENT_RECLAIMING,	/* fenced or leaving: its resources go back */
	CLIENT_STUCK,		/* the reclaim failed; the next server tries again */
};

struct client {
	struct client *next;
	struct server *server;
	struct mount_info info;
	enum client_state state;
	uint64_t since_ns;		/* it is in this state */
	uint64_t come_until_ns;		/* of one that is expected: it is waited for no longer, whatever it tells */
	bool was_greeted;		/* by this server */
	bool is_connected;
	bool is_fenced;			/* it may not come back */
	bool is_retried;		/* it was said that the reclaim is tried again */
	bool is_unstoppable;		/* blockd is too old to stop it, and it was said */
	bool has_merge_work;		/* a part of a log merge that it has not handed in */
	bool is_closing;		/* it has committed and wants no further transaction: it leaves, or its process ends */
	bool has_farewell;
	uint64_t farewell_handle;
	unsigned unanswered;		/* what it was asked and has not answered: others wait for it */
	struct lease_granter lease;
	uint32_t failing_ms;		/* as it said when it last asked for a lease: it cannot write for so long */
	uint64_t failing_since_ns;	/* lease.c's clock: when that began */
	bool is_withheld;		/* it got none because of that, and this was said */
	uint64_t data_blocks;		/* free ones of its own, when it was last told of its log trees */
	uint64_t data_stored_ns;	/* lease.c's clock: the last commit that took some; 0: none yet */
	uint64_t open_seq;		/* of the transaction it has open; 0: unknown, all ones: none */
	bool is_short;			/* stable.c: of data space, as it was told, and not asked to commit since */
	uint64_t deadline_ns;		/* 0: none.  EXPECTED: to be back; UP: to reconnect; FENCE_WAIT: its
					   lease is over, or blockd is asked again; STUCK */
	const char *reason;		/* why it was given up */
	struct txn_job *held;		/* requests.c: tasks that wait for its locks */
	struct txn_job *gathering;	/* ... and for a merge to begin */
	uint64_t nudged;		/* gather.c: the attempt in which it was asked to commit */
};

/* gather.c: beginning log merges and bringing them to their end. */
struct gather {
	struct merge_policy policy;	/* the worker's gate */
	uint64_t attempt;		/* counts them */
	uint64_t deadline_ns;		/* of the attempt that runs; 0: none does */
	uint64_t next_try_ns;
	uint64_t idle_since_ns;		/* a merge is wanted, and nobody begins it; 0: not so */
	uint64_t commit_seq;		/* the last commit seen, of anything */
	uint64_t commit_ns;
	bool is_nudged;			/* the next one is what begin_when_idle asked for */
	unsigned failures;		/* in a row */
	uint64_t active[MERGE_ACTIVE_MAX];	/* who kept it from beginning when last seen */
	unsigned active_nr;
	bool was_running;		/* a merge, when last looked at */
	uint64_t running_since_ns;
	bool is_working;		/* the background task is the worker's */
	uint64_t work_at_ns;		/* when it is due; 0: there is nothing to do */
	bool is_alarmed;		/* trees pile up, and it was said */
	bool is_wanted;			/* a merge, and none runs */
	bool was_low;			/* metadata, when last looked at */
};

/* lease.c: whether the devices work for us, tried by the worker. */
struct device_probe {
	struct task task;
	bool is_running;
	bool is_said;			/* that they do not */
	uint64_t begins_ns;		/* lease.c's clock: the last that began */
	uint64_t began_ns, ended_ns;	/* the last that ended; 0: none yet */
	int err;			/* of that */
};

/* Rids given up in this term are remembered, so that they are told so. */
#define SERVER_FENCED_MAX	1024u

struct server {
	struct server_conf conf;
	enum server_status state;
	int err;			/* why it stopped by itself */
	struct seq_source seq;
	struct worker *worker;
	struct lockfsm *locks;
	struct omap *omap;
	struct advisory *advisory;	/* advisory.c */
	struct gather gather;
	struct client *clients;
	size_t clients_nr;
	uint64_t fenced[SERVER_FENCED_MAX];
	size_t fenced_nr;
	unsigned votes_needed;		/* 1.1 */
	uint64_t now_ns;		/* of this turn of the loop */
	uint64_t up_since_ns;
	uint64_t ticked_ns;		/* lease.c's clock: the last turn */
	uint64_t judge_from_ns;		/* from when on silence counts */
	struct device_probe probe;
	uint64_t stable_at_ns;		/* when stable.c looks again */
	uint64_t changed_seq;		/* stable.c: of the newest committed change, at most */
	uint64_t space_commits;		/* stable.c: commits when mounts that are short of space were looked at */
	uint64_t space_at_ns;		/* ... and when that may be done again */
	bool is_listening;
	bool kick_farewells;
	/* What the lock server and the map want done; their calls may not be interrupted by doing it. */
	struct lockfsm_act *acts;
	size_t acts_nr, acts_max;
	bool is_performing;
};

/* Begin to serve a term: STARTING.  -ENOMEM and what a thread costs. */
int server_start(struct server **out, const struct server_conf *conf, uint64_t now_ns);
/* Finish what is being committed, then DOWN. */
void server_stop(struct server *s);
/* Only when DOWN. */
void server_free(struct server *s);

enum server_status server_state(const struct server *s);
/* Why it stopped by itself (it is logged); 0 if it was told to. */
int server_error(const struct server *s);
int server_fd(const struct server *s);
/* When the fd is readable or the deadline has come. */
void server_dispatch(struct server *s, uint64_t now_ns);
uint64_t server_deadline(const struct server *s);

/* For the callbacks of net_server.h. */
void server_on_greeting(struct server *s, const struct net_greeting *g);
void server_on_request(struct server *s, uint64_t rid, uint64_t handle, unsigned type,
		       const void *msg);
void server_on_response(struct server *s, uint64_t rid, uint64_t tag, int err, unsigned type,
			const void *msg);
void server_on_disconnected(struct server *s, uint64_t rid, uint64_t since_ns);
void server_on_reconnected(struct server *s, uint64_t rid);
void server_on_left(struct server *s, uint64_t rid);

/*
 * What get_roots answers, beside the session: 0; -EAGAIN: this server is not that of term, serves nobody now, or its
 * own right is over, so that another may lead; -ENOLINK: the mount of rid is not up.
 */
int server_roots(struct server *s, uint64_t rid, uint64_t term, struct msg_get_roots_reply *reply);
/* An operator or agent says that rid can write no more.  -ENOENT: nobody waits for that. */
int server_fence_ack(struct server *s, uint64_t rid);
/* Or that this could not be made certain: the server stops, and the next one tries again.  -ENOENT. */
int server_fence_fail(struct server *s, uint64_t rid);

/* --- between the parts of the server --- */

/* Do what the lock server wants; the end of every entry from outside. */
void server_perform(struct server *s);
/* Stop because of err; `what` names it. */
void server_fail(struct server *s, int err, const char *what);
/* Answer a request; the server stops when not even that is possible. */
void server_respond(struct server *s, uint64_t rid, uint64_t handle, int err, unsigned type,
		    const void *msg);
void server_ask(struct server *s, uint64_t rid, unsigned type, const void *msg, uint64_t tag);

struct client *client_find(const struct server *s, uint64_t rid);
/* "is mounted", ... */
const char *client_state_text(enum client_state state);
/* A mount that was found on the volume at start; is_over: of this host, or known to be fenced.  -ENOMEM. */
int client_expect(struct server *s, const struct mount_info *m, const char *is_over);
/*
 * Whether others cannot go on before that mount has written; false, too, where it would not be given up if its lease ran
 * out, so that it must be given time to heal.
 */
bool client_must_write(const struct server *s, const struct client *c);
/* Give the mount up: it may not come back, and when that is certain its resources go back. */
void client_fence(struct server *s, struct client *c, const char *reason);
/* All its locks are known. */
void client_locks_done(struct server *s, uint64_t rid);
/*
 * An expected mount is here, or has told some of its locks: it is waited for a while longer, but not beyond
 * recovery_timeout_ms from the start of the server.
 */
void client_is_coming(struct server *s, struct client *c);
void client_farewell(struct server *s, uint64_t rid, uint64_t handle);
/* What time and other events have made possible. */
void clients_tick(struct server *s);
uint64_t clients_deadline(const struct server *s);
void clients_free(struct server *s);

/* Requests that waited for the mount's locks, or for a merge to begin, go on; or nobody wants their answer. */
void requests_release(struct client *c);
void requests_release_gathering(struct client *c);
void requests_forget(struct client *c);

void gather_init(struct server *s);
/* A request has passed the gate and found others' trees unfinished: they are asked to commit. */
void gather_note(struct server *s, const struct merge_gate *gate);
/* What time and the last commits have made possible. */
void gather_tick(struct server *s);
uint64_t gather_deadline(const struct server *s);
/* Whether a merge that is wanted does not begin, or one that runs does not end, because of that mount. */
bool gather_waits_for(const struct server *s, const struct client *c);

/*
 * stable.c: serving begins; a mount has been told its log trees; those that hold others' changes back are asked
 * to commit.
 */
void stable_init(struct server *s, const struct txn_view *v);
void stable_note(struct client *c, const struct disk_log_trees *lt);
void stable_tick(struct server *s);
/* The same of mounts that are short of data space, when somebody has given some back. */
void space_tick(struct server *s);
uint64_t space_deadline(const struct server *s);

/*
 * cluster_status.c: answer one of the cluster_* requests from memory.  The loop calls it, or whoever keeps the
 * loop from running.  -EAGAIN: not leading; -EOPNOTSUPP: another type.
 */
int cluster_answer(const struct server *s, unsigned type, const void *msg, uint64_t now_ns,
		   union msg_body *reply);

/* lease.c: a mount that lives by leases has greeted us; it asks for time. */
void lease_greeted(struct client *c);
/* It was found on the volume, or is let in anew: what that says of its leases is known. */
void lease_found(struct client *c);
/* A turn of the loop; whether a mount's silence may be held against it. */
void lease_tick(struct server *s);
bool lease_may_judge(const struct server *s);
/* Whether this server's own right to write has run out: another one may lead. */
bool lease_is_right_over(const struct server *s);
void lease_request(struct server *s, struct client *c, uint64_t handle, const struct msg_lease *m);
/* Its open or commit was answered with *out; in: the log trees that it committed, NULL: none. */
void lease_note_trees(struct client *c, const struct disk_log_trees *in, const struct disk_log_trees *out);
/* In how long nothing of it can reach a device any more; LEASE_NEVER: unknown. */
uint64_t lease_over_in_ns(const struct client *c);
/* How long what it was given lasts, by our clock. */
uint64_t lease_left_ns(const struct client *c);

/* status.c: what a status says of the mounts; those that must be dead first, for there is not room for everything. */
void status_add_mounts(const struct server *s, struct msg_status_reply *reply);

#endif
