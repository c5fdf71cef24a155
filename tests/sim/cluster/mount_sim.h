/* A mount of a cluster's world: what mount_sim.c, apps_sim.c and merge_sim.c share. */
#ifndef SCOUTFS_SIM_MOUNT_SIM_H
#define SCOUTFS_SIM_MOUNT_SIM_H

#include "cluster.h"
#include "lib/run/net_client_impl.h"
#include "services/fsd/keep.h"
#include "services/fsd/locks.h"
#include "services/fsd/locks_impl.h"

#define MOUNT_OPS	4u		/* applications, each with one operation at a time */
#define MOUNT_USES	3u
#define MOUNT_THENS	64u
#define MOUNT_MAPS	8u

enum mop_state {
	MOP_NONE,
	MOP_LOCKS,		/* wants locks and items */
	MOP_HOLD,		/* has done its work, its answer is not out */
	MOP_SYNC,		/* waits for a commit, without locks */
};

/* An operation. */
struct mop {
	struct op op;		/* first */
	struct mount_sim *m;
	enum mop_state state;
	unsigned nr;
	unsigned lock[MOUNT_USES];
	uint8_t mode[MOUNT_USES];
	bool is_sync, is_queued, holds;
	unsigned waits_for_items;	/* a group's number + 1 */
	uint64_t gen;
};

struct mitem {
	bool is_known;
	uint64_t value;		/* 0: absent */
	uint64_t dirty_gen;	/* the last that wrote it */
	bool closing;		/* closing_value is to be streamed out */
	uint64_t closing_value;
};

struct then {
	uint64_t gen;
	void (*fn)(void *arg);
	void *arg;
};

enum mount_state { MOUNT_GREETING, MOUNT_OPENING, MOUNT_RUNNING, MOUNT_LEAVING, MOUNT_GONE };

struct mount_sim {
	struct fsd fsd;		/* first */
	struct node *node;
	uint64_t rid, process;
	enum mount_state state;
	struct net_client *nc;
	struct block_set *bs;		/* of the log tree */
	struct block_set *reader;
	struct disk_log_trees lt;
	bool is_open;			/* lt may be written to */
	bool is_opening;
	uint64_t open_gen, closing_gen, committed_gen;
	bool wants_commit, is_commit_due;
	struct mitem items[CLUSTER_GROUPS_MAX * CLUSTER_ITEMS];
	struct mop ops[MOUNT_OPS];
	struct op *run_first, **run_last;
	struct then thens[MOUNT_THENS];
	unsigned thens_nr;
	struct forest_roots roots;
	bool has_roots, roots_are_stale, roots_are_asked, is_reading;
	struct lock *revoking;		/* its kernel's caches, or its items */
	bool is_bye_sent;
	uint8_t in_use[CLUSTER_GROUPS_MAX][128];	/* bits of inodes */
	uint64_t done_nr;		/* operations, over all lives */

	/* What outlives the process, as in the instance's tmpfs; items and generations do, too. */
	bool can_resume;
	struct keep keep;
	uint64_t term;			/* of the leader that knows this mount */
	uint64_t closing_seq;		/* trans_seq of closing_gen; 0: it was not streamed out */

	struct merge_sim *merge;
};

static inline struct sim *sim_of(const struct mount_sim *m)
{
	return m->node->sim;
}

static inline uint64_t some(const struct mount_sim *m, uint64_t max_ns)
{
	return sim_rnd(sim_of(m), max_ns);
}

struct mount_sim *mount_of_fsd(struct fsd *fsd);
/* The operation runs again, in the mount's next turn. */
void mount_queue_op(struct mount_sim *m, struct op *op);
/* What must be answered, or the world ends: an error of the leader that a mount can live with is 0. */
void mount_call(struct mount_sim *m, unsigned type, const void *msg,
		void (*done)(void *arg, int err, unsigned type, const void *reply), void *arg);
/* Ask for the commit of what is open now, and call fn when it is durable (may be NULL). */
void mount_commit(struct mount_sim *m, uint64_t gen, void (*fn)(void *arg), void *arg);

/* apps_sim.c */
void apps_sim_start(struct mount_sim *m);
void apps_sim_run(struct mop *o);

/* merge_sim.c */
void merge_sim_start(struct mount_sim *m);
void merge_sim_end(struct mount_sim *m);

#endif
