/*
 * A world of quorum members: one device with a quorum block for each, and on each host a quorumd
 * (the real machine, real quorum blocks; its edges as services/quorumd has them), a blockd that knows
 * who may write (the real lease guard), and a serverd that does nothing but write.
 */
#ifndef SCOUTFS_SIM_QUORUM_WORLD_H
#define SCOUTFS_SIM_QUORUM_WORLD_H

#include "lease/lease.h"
#include "services/quorumd/quorum_fsm.h"
#include "services/quorumd/quorum_slot.h"
#include "sim.h"

#define QW_FSID		0x0123456789abcdefull
#define QW_SUPER	0u			/* what serverds write; quorum block of slot s: 1 + s */
#define QW_JOBS_MAX	256u			/* as many terms as others can run through in a heartbeat timeout */
#define QW_RIDS_MAX	64u
#define QW_KIND_SERVER	1u			/* of the guard's writers */

/* Facts of this machine. */
enum {
	QW_FACT_READ = SIM_FACT_OWN,	/* a serverd reads the volume: v[0] slot, v[1] term */
};

/* What serverd writes. */
struct qw_super {
	uint64_t slot, rid, term, nr;
};

struct qw_job {
	enum { QW_RECORD, QW_SCAN, QW_SET_TERM, QW_REVOKE } kind;
	enum { QW_NOTHING, QW_SERVER_GONE, QW_ADOPT, QW_CLEAN, QW_LEAD } purpose;
	enum quorum_event_kind record;
	uint64_t term, rid;
};

struct qw_fences {
	bool is_active;
	uint64_t term, since_ns;
	size_t nr;
	struct quorum_fence wanted[QUORUM_FENCES_MAX];
	bool is_revoking[QUORUM_FENCES_MAX];
	uint64_t lapse_ns[QUORUM_FENCES_MAX];	/* when its lease is over; SIM_NEVER */
};

/* A host: what its processes are, and what survives them. */
struct qw_host {
	struct qw_world *w;
	unsigned slot;
	char qname[20], sname[20];
	unsigned qp, sp;		/* processes: quorumd, serverd */
	uint64_t heartbeat_ns;		/* its timeout, as configured here */

	/* Until the host loses power: the runtime directory and blockd. */
	uint64_t rid, boots;
	struct lease_guard guard;
	uint64_t min_term;
	uint64_t revoked[QW_RIDS_MAX], fenced[QW_RIDS_MAX];
	size_t revoked_nr, fenced_nr;

	/* quorumd */
	struct {
		bool is_running;	/* the machine has begun */
		struct quorum q;
		struct qw_job jobs[QW_JOBS_MAX];
		unsigned jobs_nr;
		bool is_job_running;
		uint64_t write_since_ns;
		unsigned writes_nr;
		uint64_t write_nr;	/* of our block */
		uint64_t adopt_term, adopt_until_ns;
		bool is_serving;	/* serverd has been told to */
		struct qw_fences fences, clean;
		uint64_t acked[QW_RIDS_MAX];
		size_t acked_nr;
		uint64_t server_life;	/* of the serverd that is known; 0: none */
		uint64_t server_heard_ns;
		bool has_server_state;
		uint64_t server_term;
		enum server_status server_status;
		uint64_t told_ns;
	} m;
	/* The blocks that are read for a job. */
	struct {
		_Alignas(8) uint8_t blocks[QUORUM_SLOTS_MAX][SMALL_SIZE];
		int errors[QUORUM_SLOTS_MAX];
		unsigned left;
		struct disk_quorum_block record;
		bool is_record_made;
	} io;

	/* serverd */
	struct {
		enum server_status status;
		uint64_t term;
		uint64_t quorumd_heard_ns;
		uint64_t next_write_ns, next_hello_ns;
		uint64_t nr;
		bool is_opening;	/* SET_TERM, then reading */
		unsigned writes;	/* under way */
	} s;
};

struct qw_world {
	unsigned nr;			/* members */
	uint64_t heartbeat_ns;		/* the longest timeout of any host */
	uint64_t fence_wait_ns, longest_io_ns;
	struct sim_disk *disk;
	struct qw_host *hosts;
	unsigned old_block_pm;		/* the device answers a record's read with an older block */
	bool is_uneven;			/* hosts are configured differently */
	bool is_agent_dead;		/* nobody answers fence requests */
};

/* The processes of quorumd; quorum_host.c. */
extern const struct sim_proc_ops qw_quorumd_ops;
/* Between quorumd and serverd of a host. */
struct qw_local {
	bool is_from_server;
	uint64_t rid;
	uint64_t term;
	enum server_status status;	/* from serverd */
	bool is_leader, is_stop;	/* from quorumd */
};
/* SHUTDOWN, as SIGTERM. */
void qw_quorumd_stop(struct sim *s, struct qw_host *h);
/* RESIGN, as scoutfsctl resign. */
void qw_quorumd_resign(struct sim *s, struct qw_host *h);
/* The serverd of that life has ended. */
void qw_server_ended(struct sim *s, void *host, uint64_t life);
/* Somebody says that rid writes no more. */
void qw_fence_ack(struct sim *s, struct qw_host *h, uint64_t rid);

/* blockd of a host; drive_quorum.c.  Whether a server may submit a write now: 0 or -errno. */
int qw_blockd_check(struct sim *s, const struct qw_host *h, uint64_t rid, uint64_t term);
/* Ask the world to end a host: an agent. */
void qw_agent_ask(struct sim *s, struct qw_host *h, const struct quorum_fence *f);

/* The checker; check_quorum.c. */
struct check_quorum;
struct check_quorum *check_quorum_new(struct sim *s, const struct sim_disk *disk, unsigned nr);
/* One server, and only one, has written in each part of the last second. */
bool check_quorum_is_served(struct sim *s, const struct check_quorum *c);

#endif
