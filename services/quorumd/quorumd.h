/*
 * quorumd: this node's vote.  What its parts share; README.md tells how they fit together.
 *
 * One thread, the loop in main.c, owns everything here but the worker that does slot I/O
 * (slot_io.c) and what the status socket's thread reads under `mutex`.  Times are clock_boot_ns(): a host
 * that slept must not take old heartbeats for fresh ones.
 */
#ifndef SCOUTFS_QUORUMD_H
#define SCOUTFS_QUORUMD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "msg.h"
#include "net_refuse.h"
#include "quorum_fsm.h"
#include "quorum_slot.h"
#include "quorumd_stats.h"

struct blkcli;
struct keys;
struct slot_io;
struct local;
struct peers;
struct ctl;

#define FENCED_RIDS_MAX 256u

/* Earlier leaders that must be fenced before we go on; fence.c. */
struct fences {
	bool is_active;
	uint64_t term; /* that waits for it; 0: our own slot, before any candidacy */
	uint64_t since_ns;
	size_t nr;
	struct quorum_fence wanted[QUORUM_FENCES_MAX];
	bool has_stopped[QUORUM_FENCES_MAX];	/* it has recorded so itself meanwhile */
	uint64_t scan_ns;	/* when the slots are looked at again; UINT64_MAX: that is under way */
	bool is_revoking[QUORUM_FENCES_MAX];	/* blockd has been told; its answer ends it */
	uint64_t again_ns[QUORUM_FENCES_MAX];	/* blockd could not: it is told again then; 0: not so */
	uint64_t lapse_ns[QUORUM_FENCES_MAX];	/* when its lease and all it allowed are over; 0: unknown */
};

struct quorumd {
	struct instance_conf conf;
	uint64_t rid;
	uint64_t fsid;
	unsigned slot;
	uint32_t present;
	uint32_t addrs[QUORUM_SLOTS_MAX];	/* numbers */
	uint16_t ports[QUORUM_SLOTS_MAX];
	struct keys *keys;		/* NULL: members talk without */
	void *zmq_ctx;
	struct blkcli *blk;
	struct slot_io *io;
	uint64_t slot_write_nr;		/* of our block; slot_io's thread's, once there are records */
	struct local *local;
	struct peers *peers;		/* NULL with one slot */
	struct ctl *ctl;
	struct quorum q;
	bool serving;			/* serverd has been told to serve q.lead_term */
	bool server_has_ended;		/* and is gone, which is not settled yet */
	bool exiting;
	int exit_status;
	uint64_t write_since_ns;	/* of the oldest record that is not written yet, 0: none */
	unsigned writes_nr;
	uint64_t lease_term, lease_until_ns;	/* what blockd and serverd were told */
	uint64_t adopt_term; /* != 0: our slot shows that we lead; serverd's word is awaited */
	uint64_t adopt_until_ns;
	struct fences clean, fences;	/* our own slot's; all */
	struct quorumd_stats stats;
	struct net_refusals refusals;

	int wake_fd;			/* rung by the status socket's thread */
	pthread_mutex_t mutex;		/* what follows */
	uint32_t keyless;		/* members whose key is not known */
	uint64_t acked[FENCED_RIDS_MAX];	/* rids that an operator says do not run any more */
	size_t acked_nr;
	uint64_t fenced[FENCED_RIDS_MAX];	/* rids that cannot write any more */
	size_t fenced_nr;
	uint64_t unfenced;	/* a rid that an operator or agent says could not be fenced; 0: none */
	bool is_asked_to_resign;
	struct {
		char state[256], waiting[256], fence_text[256];
		uint64_t since_ns, lease_until_ns;
		uint64_t term, lead_term;
		uint8_t role, voted_for, leader_slot, successor;
		enum quorum_lead lead;
		enum server_status server;
		bool is_server_here;
		uint64_t heard_ns[QUORUM_SLOTS_MAX];
	} shown;
};

/* main.c: one event into the machine, and what it asks for. */
void quorumd_event(struct quorumd *qd, const struct quorum_in *in);
void quorumd_event_kind(struct quorumd *qd, enum quorum_event_in kind, uint64_t term);

/* slot_io.c: jobs that block, done in order by one thread. */
enum slot_job_kind {
	SLOT_JOB_RECORD,	/* record an event in our slot */
	SLOT_JOB_SCAN,		/* read all slots */
	SLOT_JOB_SET_TERM,	/* no server of an older term writes on this host any more */
	SLOT_JOB_REVOKE,	/* no process of this rid writes on this host any more */
};
struct slot_job {
	struct slot_job *next;
	enum slot_job_kind kind;
	enum quorum_event_kind record;
	uint64_t term, rid;
	uint64_t purpose;	/* the asker's */
	int result;
	struct quorum_slots slots;	/* SCAN */
};
int slot_io_start(struct slot_io **out, struct quorumd *qd);
/* Jobs that wait are dropped; one that hangs is left to the end of the process. */
void slot_io_stop(struct slot_io *io);
int slot_io_fd(const struct slot_io *io);
/* Take over a job; -ENOMEM. */
int slot_io_post(struct slot_io *io, const struct slot_job *job);
/* The next that is done, to be freed by the caller; NULL: none. */
struct slot_job *slot_io_done(struct slot_io *io);

/* local.c: the services of this host on quorumd.sock. */
int local_open(struct local **out, struct quorumd *qd);
void local_close(struct local *l);
int local_fd(const struct local *l);
/* serverd's pidfd, readable when it has ended; -1: none. */
int local_server_fd(const struct local *l);
void local_dispatch(struct local *l, uint64_t now_ns);
uint64_t local_deadline(const struct local *l);
/* Tell all of them who leads, now and again and again. */
void local_tell(struct local *l, const struct msg_leader_state *st);
/* serverd has ended: forget it. */
void local_server_ended(struct local *l);
/* End serverd by SIGKILL; its end is noticed as any. */
void local_kill_server(struct local *l);
/* What serverd said last; false: there is none. */
bool local_server_state(const struct local *l, struct msg_server_state *st);

/* peers.c: the other members, by datagrams between the slots' addresses. */
int peers_open(struct peers **out, struct quorumd *qd);
void peers_close(struct peers *p);
int peers_fd(const struct peers *p);
void peers_dispatch(struct peers *p);
/* With keys: their list was read again. */
void peers_reload_keys(struct peers *p);
void peers_send(struct peers *p, const struct msg_quorum_state *st);

/* fence.c */
/* Begin to fence what `slots` shows for term (0: our own slot only); fences_step says when it is
 * done. */
void fences_begin(struct quorumd *qd, struct fences *f, const struct quorum_slots *slots,
		  uint64_t term, uint64_t now_ns);
void fences_end(struct quorumd *qd, struct fences *f);
/* Go on; whether all are fenced by now, or their leases are over. */
bool fences_step(struct quorumd *qd, struct fences *f, uint64_t now_ns);
/* The slots have been looked at again: who has recorded STOP meanwhile needs no fence. */
void fences_seen_again(struct fences *f, uint64_t our_rid, const struct quorum_slots *slots);
/* When the last lease that is waited for is over; 0: none is. */
uint64_t fences_lapse_ns(const struct fences *f);
/* Somebody has said that a rid of f could not be fenced; asked once. */
bool fences_failed(struct quorumd *qd, const struct fences *f);
/* A REVOKE job has come back. */
void fences_revoked(struct quorumd *qd, const struct slot_job *job);
/* An operator's word that rid does not run any more (any thread).  -ENOENT: nobody waits for it. */
int fences_ack(struct quorumd *qd, uint64_t rid, char *text, size_t size);
/* The word that it could not be made certain (any thread).  -ENOENT: nobody waits for it. */
int fences_fail(struct quorumd *qd, uint64_t rid, char *text, size_t size);
/* What is waited for, in words; "" for nothing. */
void fences_text(struct quorumd *qd, const struct fences *f, char *buf, size_t size);
/* A text "fence" for each rid that needs an operator's word: "RID: why" (any thread). */
void fences_fill_status(struct quorumd *qd, struct msg_status_reply *reply);

/* status.c */
void status_update(struct quorumd *qd, uint64_t now_ns);
int status_start(struct quorumd *qd);

#endif
