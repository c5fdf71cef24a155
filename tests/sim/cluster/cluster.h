/*
 * The cluster's worlds: leaders and mounts over one volume.  What is real in them: serverd but for its
 * main loop and its worker's thread (server, clients, requests, lock server, open-inode map, transactions,
 * log trees, merge), both sides of the sessions, fsd's lock table and revokes, and lib/core.  What stands
 * in for the rest is in these files:
 *
 *   net_sim.c     ZeroMQ and the clocks, over the frame's streams
 *   worker_sim.c  serverd's worker without a thread
 *   volume_sim.c  the metadata device: terms and rids that may not write any more, power cuts
 *   server_sim.c  what serverd's main.c does
 *   mount_sim.c   what fsd's operations do, cut down to items that are read and written; its commits
 *   merge_sim.c   fsd's part of a log merge
 *   drive_cluster.c the worlds: elections, faults, the end
 *   check_locks.c, check_items.c  what must hold, of facts alone
 */
#ifndef SCOUTFS_SIM_CLUSTER_H
#define SCOUTFS_SIM_CLUSTER_H

#include "btree/block.h"
#include "csum/csum.h"
#include "format/format.h"
#include "key/key.h"
#include "tests/sim/sim.h"

#define CLUSTER_FSID		0x5ca1ab1e0ddba11ull
#define CLUSTER_META_BLOCKS	131072ull
#define CLUSTER_DATA_BLOCKS	4194304ull
#define SIM_SERVERS_MAX	3u
#define SIM_MOUNTS_MAX	5u
#define CLUSTER_GROUPS_MAX	8u	/* of inodes; one lock each */
#define CLUSTER_ITEMS		4u	/* of each group */
#define CLUSTER_RENAME		CLUSTER_GROUPS_MAX	/* the number of the rename lock */
#define CLUSTER_LOCKS		(CLUSTER_GROUPS_MAX + 1)

struct cluster;
struct vol;
struct server_sim;
struct mount_sim;
struct worker;
struct zsock;

/* A process of ours.  Code of the product that runs for it finds it in the_node. */
struct node {
	struct cluster *cl;
	struct sim *sim;
	unsigned proc;
	unsigned index;			/* among those of its kind */
	bool is_server;
	/* It died in the middle of what it does now: nothing it does from here on has an effect. */
	bool is_zombie;
	unsigned depth;			/* how often it is entered */
	struct zsock *socks;
	struct worker *worker;
	struct server_sim *server;
	struct mount_sim *mount;
	void (*turn)(struct node *n);	/* whatever can be done now; sets the timer */
	void (*bury)(struct node *n);	/* give back everything of a life that has ended */
};

extern struct node *the_node;

/* Around everything that runs code of the product.  node_leave: a turn, then what died is buried. */
void node_enter(struct node *n);
void node_leave(struct node *n);
/* Whether an action of the node happens; it may die here, before or after it. */
bool node_acts(struct node *n);
/* Turn it again soon. */
void node_poke(struct node *n, uint64_t after_ns);
/* A process made of a node: its ops are the same for all. */
void node_init(struct node *n, struct cluster *cl, const char *name);

struct cluster {
	struct sim *sim;
	struct vol *vol;
	unsigned servers_nr, mounts_nr, groups_nr;
	struct node servers[SIM_SERVERS_MAX], mounts[SIM_MOUNTS_MAX];
	/* Who leads, as the quorum blocks say. */
	unsigned leader;
	uint64_t term;
	uint64_t last_rid, last_sock, last_process, last_value, last_question;
	uint64_t idle_locks;
	unsigned resume_pm;		/* a mount whose process died goes on in another */
	/* What may happen in this world. */
	unsigned faults;		/* bits of enum fault, drive_cluster.c */
	unsigned frame_loss_pm, frame_dup_pm, send_full_pm;
	uint64_t crash_one_in;		/* so many actions of a process; 0: never */
	uint64_t calm_ns;		/* between two faults, at most */
	uint64_t election_ns;		/* until a leader that is not there is followed by another */
	uint64_t leader_since_ns;	/* when it was there last */
	uint32_t merge_wait_ms, merge_min_height, merge_min_trees;
	uint32_t keepalive_ms, client_timeout_ms, recovery_timeout_ms;
	bool is_ending;			/* no new operations */
	struct locks_check *locks_check;
	struct items_check *items_check;
};

/* --- what somebody outside can see; proc is the mount's or the server's --- */
enum cluster_fact {
	FACT_HOLD = SIM_FACT_OWN,	/* an operation uses lock v[0] in mode v[1] from now on */
	FACT_UNHOLD,			/* ... no more */
	FACT_READ,			/* item v[0] is v[1] */
	FACT_WRITE,			/* item v[0] becomes v[1] in generation v[2] */
	FACT_COMMIT_SENT,		/* generation v[0] may become durable from now on */
	FACT_COMMITTED,			/* generation v[0] is durable */
	FACT_MOUNTED,			/* a new mount: rid v[0] */
	FACT_RESUMED,			/* rid v[0] goes on in a new process, no operation of the old one does */
	FACT_FENCED,			/* rid v[0] is known to write no more */
	FACT_INOS,			/* inode numbers v[0], v[1] of them, are the mount's */
	FACT_ASKED,			/* a mount asks something: number v[0] */
	FACT_HEARD,			/* a server is given the question v[0], term v[1] */
	FACT_ANSWERED,			/* the mount got the answer of v[0] */
	FACT_GRANTED_SEQ,		/* write_seq v[1] of lock v[0] */
	FACT_OPENED,			/* inode v[0] (group * 1024 + nr) is in use by the mount */
	FACT_CLOSED,			/* ... no more */
	FACT_MAP_ASKED,			/* the map of group v[0] is asked for; question v[1] */
	FACT_MAP,			/* answer of question v[1]: group v[0], bits in buf */
	FACT_DONE,			/* an operation that used locks v[0] (a mask) is over */
};

void cluster_fact(struct node *n, unsigned kind, uint64_t a, uint64_t b, uint64_t c);

static inline uint64_t cluster_item(unsigned group, unsigned nr)
{
	return (uint64_t)group * CLUSTER_ITEMS + nr;
}
static inline uint64_t cluster_ino(unsigned group)
{
	return ((uint64_t)group + 1) * INODE_LOCK_GROUP + 7;
}
static inline struct key cluster_item_key(uint64_t item)
{
	return key_symlink(cluster_ino((unsigned)(item / CLUSTER_ITEMS)) + item % CLUSTER_ITEMS, 0);
}
/* Which lock a start key names. */
static inline unsigned cluster_lock(const struct key *start)
{
	return start->zone == ZONE_LOCK ? CLUSTER_RENAME :
	       (unsigned)(start->first / INODE_LOCK_GROUP) - 1;
}

/* --- net_sim.c --- */
void net_sim_recv(struct node *n, unsigned from, const void *buf, size_t len);
void net_sim_broken(struct node *n, unsigned peer);
bool net_sim_has_input(const struct node *n);
/* After everything that used them is gone. */
void net_sim_bury(struct node *n);

/* --- worker_sim.c: worker.h --- */

/* --- volume_sim.c --- */
struct vol *vol_new(struct sim *s);
/* The device as a node has it. */
struct block_dev vol_dev(struct node *n);
int vol_flush(struct node *n);
int vol_read_super(struct node *n, void *buf);
int vol_write_super(struct node *n, const void *buf);
/* Whoever has an older term writes no more. */
void vol_set_term(struct vol *v, uint64_t term);
void vol_revoke(struct vol *v, uint64_t rid);
bool vol_is_revoked(const struct vol *v, uint64_t rid);
/* What was not flushed may be lost. */
void vol_power_cut(struct vol *v);
/* Without a node, for checkers. */
struct block_dev vol_checkers_dev(struct vol *v);
const struct disk_super *vol_super(struct vol *v);
/* Every block is in exactly one place, every structure is right; ends the world otherwise. */
void vol_check(struct vol *v);

/* --- server_sim.c --- */
void server_sim_init(struct cluster *cl, unsigned i);
void server_sim_learn(struct node *n);
/* An operator says so; false: nobody waits for it. */
bool server_sim_fence_ack(struct node *n, uint64_t rid);
/* The first rid that waits for an operator; 0: none. */
uint64_t server_sim_fence_wanted(const struct node *n);
bool server_sim_is_up(const struct node *n);
bool server_sim_is_recovered(const struct node *n);

/* --- mount_sim.c --- */
void mount_sim_init(struct cluster *cl, unsigned i);
uint64_t mount_sim_rid(const struct node *n);
uint64_t mount_sim_done(const struct node *n);
bool mount_sim_is_running(const struct node *n);
bool mount_sim_is_idle(const struct node *n);
/* What the next process could go on from is lost. */
void mount_sim_forget(struct node *n);
/* Begin an unmount. */
void mount_sim_leave(struct node *n);

/* --- checkers --- */
void check_locks_watch(struct cluster *cl);
/* Whether whoever lives has all his answers. */
bool check_locks_all_answered(const struct cluster *cl);
void check_items_watch(struct cluster *cl);
/* The value of item on the volume, at the end. */
void check_items_final(struct cluster *cl, uint64_t item, uint64_t value);

#endif
