/*
 * The applications of a mount: operations that use locks, read items under them and write them, some of
 * them interrupted, some waiting for a commit; files opened and closed; and questions to the leader.
 */
#include "mount_sim.h"

#include <stdlib.h>

static bool is_known(const struct mount_sim *m, unsigned group)
{
	for (unsigned i = 0; i < CLUSTER_ITEMS; i++) {
		if (!m->items[cluster_item(group, i)].is_known)
			return false;
	}
	return true;
}

/* --- operations -------------------------------------------------------------------------------- */

static int take_lock(struct mop *o, unsigned i)
{
	if (o->lock[i] == CLUSTER_RENAME)
		return lock_rename(&o->op);
	return lock_inode(&o->op, cluster_ino(o->lock[i]), o->mode[i]);
}

static void tell_uses(struct mop *o, bool begin)
{
	for (unsigned i = 0; i < o->nr; i++)
		cluster_fact(o->m->node, begin ? FACT_HOLD : FACT_UNHOLD, o->lock[i], o->mode[i], 0);
	o->holds = begin;
}

static void end_op(struct mop *o)
{
	struct mount_sim *m = o->m;
	uint64_t mask = 0;

	if (o->holds)
		tell_uses(o, false);
	lock_unuse(&o->op);
	for (unsigned i = 0; i < o->nr; i++)
		mask |= 1ull << o->lock[i];
	if (o->state != MOP_LOCKS) {
		m->done_nr++;
		cluster_fact(m->node, FACT_DONE, mask, 0, 0);
	}
	o->state = MOP_NONE;
	o->waits_for_items = 0;
}

static void synced(void *arg)
{
	struct mop *o = arg;

	if (o->state == MOP_SYNC)
		end_op(o);
}

/* The answer of an operation is out. */
static void answered(struct sim *s, void *arg, uint64_t value)
{
	struct mop *o = arg;
	struct mount_sim *m = o->m;

	(void)s, (void)value;
	node_enter(m->node);
	if (o->is_sync && o->gen > m->committed_gen) {
		tell_uses(o, false);
		lock_unuse(&o->op);
		o->state = MOP_SYNC;
		mount_commit(m, o->gen, synced, o);
	} else {
		end_op(o);
	}
	node_leave(m->node);
}

static void use_inodes(struct mop *o, unsigned group)
{
	struct mount_sim *m = o->m;
	unsigned nr = (unsigned)sim_rnd(sim_of(m), 8);
	uint8_t *bits = m->in_use[group];

	if (bits[0] >> nr & 1) {
		cluster_fact(m->node, FACT_CLOSED, group * 1024 + nr, 0, 0);
		bits[0] = (uint8_t)(bits[0] & ~(1u << nr));
	} else {
		bits[0] = (uint8_t)(bits[0] | 1u << nr);
		cluster_fact(m->node, FACT_OPENED, group * 1024 + nr, 0, 0);
	}
}

static void work(struct mop *o)
{
	struct mount_sim *m = o->m;
	struct cluster *cl = m->node->cl;
	bool wrote = false;

	tell_uses(o, true);
	for (unsigned i = 0; i < o->nr; i++) {
		sim_trace(cl->sim, m->node->proc, "operation %u has lock %u in mode %u",
			  (unsigned)(o - m->ops), o->lock[i], o->mode[i]);
		if (o->lock[i] == CLUSTER_RENAME)
			continue;
		for (unsigned j = 0; j < CLUSTER_ITEMS; j++)
			cluster_fact(m->node, FACT_READ, cluster_item(o->lock[i], j),
				     m->items[cluster_item(o->lock[i], j)].value, 0);
		if (sim_chance(cl->sim, 200))
			use_inodes(o, o->lock[i]);
		if (o->mode[i] == LOCK_MODE_WRITE && sim_chance(cl->sim, 900)) {
			uint64_t item = cluster_item(o->lock[i], (unsigned)sim_rnd(cl->sim, CLUSTER_ITEMS));
			uint64_t value = sim_chance(cl->sim, 250) ? 0 : ++cl->last_value;

			m->items[item].value = value;
			m->items[item].dirty_gen = m->open_gen;
			cluster_fact(m->node, FACT_WRITE, item, value, m->open_gen);
			wrote = true;
		}
	}
	o->gen = m->open_gen;
	if (wrote)
		lock_note_dirty(&o->op, m->open_gen);
	o->state = MOP_HOLD;
	sim_call_proc(cl->sim, m->node->proc, some(m, 20 * SIM_MS), answered, o, 0);
}

void apps_sim_run(struct mop *o)
{
	struct mount_sim *m = o->m;

	o->is_queued = false;
	if (o->state != MOP_LOCKS)
		return;
	atomic_store(&o->op.cancel, NULL);
	for (unsigned i = 0; i < o->nr; i++) {
		if (take_lock(o, i)) {
			o->op.wait(&o->op);
			return;
		}
	}
	for (unsigned i = 0; i < o->nr; i++) {
		if (o->lock[i] == CLUSTER_RENAME || is_known(m, o->lock[i]))
			continue;
		o->waits_for_items = o->lock[i] + 1;
		return;
	}
	work(o);
}

static void new_op(struct sim *s, void *arg, uint64_t value);

static void next_op_later(struct mop *o)
{
	sim_call_proc(sim_of(o->m), o->m->node->proc, some(o->m, 400 * SIM_MS), new_op, o, 0);
}

static void add_lock(struct mop *o, unsigned lock, uint8_t mode)
{
	for (unsigned i = 0; i < o->nr; i++) {
		if (o->lock[i] == lock)
			return;
	}
	o->lock[o->nr] = lock;
	o->mode[o->nr++] = mode;
}

/* An application wants something, if it does not wait for anything. */
static void new_op(struct sim *s, void *arg, uint64_t value)
{
	struct mop *o = arg;
	struct mount_sim *m = o->m;
	bool (*cancel)(struct op *op);
	unsigned nr;

	(void)value;
	node_enter(m->node);
	next_op_later(o);
	cancel = atomic_load(&o->op.cancel);
	if (o->state == MOP_LOCKS && cancel && sim_chance(s, 20)) {
		/* It was interrupted. */
		atomic_store(&o->op.cancel, NULL);
		if (cancel(&o->op))
			end_op(o);
	}
	if (o->state == MOP_NONE && !o->is_queued && m->state == MOUNT_RUNNING && !m->node->cl->is_ending) {
		*o = (struct mop){ .op = { .fsd = &m->fsd, .name = "op" }, .m = m,
				   .state = MOP_LOCKS };
		nr = 1 + (unsigned)sim_rnd(s, 2);
		if (sim_chance(s, 100))
			add_lock(o, CLUSTER_RENAME, LOCK_MODE_WRITE);
		while (nr--)
			add_lock(o, (unsigned)sim_rnd(s, m->node->cl->groups_nr),
				 sim_chance(s, 500) ? LOCK_MODE_WRITE : LOCK_MODE_READ);
		o->is_sync = sim_chance(s, 200);
		mount_queue_op(m, &o->op);
	}
	node_leave(m->node);
}

/* --- questions ---------------------------------------------------------------------------------- */

struct question {
	struct mount_sim *m;
	uint64_t nr;
	uint64_t group;
};

static void inos_came(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_alloc_inodes_reply *r = reply;
	struct question *q = arg;

	(void)type;
	if (err == 0) {
		cluster_fact(q->m->node, FACT_ANSWERED, q->nr, 0, 0);
		cluster_fact(q->m->node, FACT_INOS, r->start, r->nr, 0);
	}
	free(q);
}

static void map_came(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_open_ino_map_reply *r = reply;
	struct question *q = arg;

	(void)type;
	if (err == 0)
		sim_publish(sim_of(q->m), &(struct sim_fact){
			.kind = FACT_MAP, .proc = q->m->node->proc, .v = { q->group, q->nr },
			.buf = &r->bits, .len = sizeof(r->bits) });
	free(q);
}

static void ask_something(struct sim *s, void *arg, uint64_t value)
{
	struct mount_sim *m = arg;
	struct cluster *cl = m->node->cl;
	struct question *q;

	(void)value;
	node_enter(m->node);
	sim_call_proc(s, m->node->proc, SIM_SEC + some(m, 2 * SIM_SEC), ask_something, m, 0);
	if (m->state == MOUNT_RUNNING && !cl->is_ending) {
		q = malloc(sizeof(*q));
		*q = (struct question){ m, cl->last_question++ % 10240 + 1, sim_rnd(s, cl->groups_nr) };
		if (sim_chance(s, 500)) {
			struct msg_alloc_inodes msg = { .count = q->nr };

			cluster_fact(m->node, FACT_ASKED, q->nr, 0, 0);
			mount_call(m, MSG_alloc_inodes, &msg, inos_came, q);
		} else {
			struct msg_open_ino_map msg = { .group = q->group + 1 };

			cluster_fact(m->node, FACT_MAP_ASKED, q->group, q->nr, 0);
			mount_call(m, MSG_open_ino_map, &msg, map_came, q);
		}
	}
	node_leave(m->node);
}

void apps_sim_start(struct mount_sim *m)
{
	for (unsigned i = 0; i < MOUNT_OPS; i++) {
		m->ops[i].m = m;
		next_op_later(&m->ops[i]);
	}
	sim_call_proc(sim_of(m), m->node->proc, some(m, 3 * SIM_SEC), ask_something, m, 0);
}
