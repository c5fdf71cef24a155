/*
 * A mount: what is read under its locks and kept while they are held; generations and their commits; its
 * session.  (What its applications do: apps_sim.c.)  The lock table and its revokes, the session, the log
 * tree and the reading of the forest are fsd's and lib/core's; around them stands the least that fsd does
 * (items.c, txn.c, commit.c, reader.c, net.c, notifier.c), with time between its steps.
 *
 * What must be as in fsd, for the checkers to say something about the product: items are known only while
 * their lock is held; a revoke's commit covers every generation in which the lock was written under; roots
 * are fetched again after each grant; an item's seq is the greater of the transaction's and the lock's.
 */
#include "mount_sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log/forest.h"
#include "services/fsd/data.h"
#include "services/fsd/fuse.h"
#include "services/fsd/net.h"
#include "services/fsd/reader.h"
#include "services/fsd/txn.h"

#define TURN_MIN_NS	(20 * SIM_US)
#define COMMIT_NS	(3 * SIM_SEC)
#define CLEAN_MAX	64u

struct mount_sim *mount_of_fsd(struct fsd *fsd)
{
	return (struct mount_sim *)fsd;
}

/* --- what locks.c and revoke.c need ------------------------------------------------------------ */

void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	sim_fail(sim_of(mount_of_fsd(fsd)), "a mount gives up: %s", fmt);
}

void mount_queue_op(struct mount_sim *m, struct op *op)
{
	op->next = NULL;
	*m->run_last = op;
	m->run_last = &op->next;
	((struct mop *)op)->is_queued = true;
}

void op_wake(struct op *op)
{
	mount_queue_op(mount_of_fsd(op->fsd), op);
}

bool ops_are_held(struct fsd *fsd)
{
	(void)fsd;
	return false;
}

void reader_roots_stale(struct fsd *fsd)
{
	mount_of_fsd(fsd)->roots_are_stale = true;
}

void reader_roots_given(struct fsd *fsd, const struct forest_roots *roots)
{
	struct mount_sim *m = mount_of_fsd(fsd);

	/* What is asked for is answered in the order of the session, so it is older if it comes before and newer after. */
	m->roots = *roots;
	m->has_roots = true;
	m->roots_are_stale = false;
}

uint64_t txn_committed_gen(struct fsd *fsd)
{
	return mount_of_fsd(fsd)->committed_gen;
}

void txn_commit_to(struct fsd *fsd, enum txn_why why, uint64_t gen, void (*then)(void *arg), void *arg)
{
	(void)why;
	mount_commit(mount_of_fsd(fsd), gen, then, arg);
}

void txn_commit(struct fsd *fsd, enum txn_why why, void (*then)(void *arg), void *arg)
{
	(void)why, (void)then, (void)arg;
	sim_fail(sim_of(mount_of_fsd(fsd)), "a lock is revoked with dirty items that it was not told of");
}

struct lock_call {
	struct mount_sim *m;
	struct msg_lock msg;
};

static void lock_answered(void *arg, int err, unsigned type, const void *reply)
{
	struct lock_call *c = arg;
	const struct msg_lock_reply *r = reply;
	struct forest_roots roots;

	(void)type;
	if (err == 0) {
		roots = (struct forest_roots){ r->fs_root, r->logs_root, r->srch_root, r->log_merge };
		/* What is granted after a farewell nobody uses. */
		if (r->write_seq && !c->m->is_bye_sent)
			cluster_fact(c->m->node, FACT_GRANTED_SEQ, cluster_lock(&r->key), r->write_seq,
				     0);
		locks_granted(&c->m->fsd, &r->key, r->old_mode, r->new_mode, r->write_seq,
			      r->has_roots ? &roots : NULL);
	} else if (err != -ESHUTDOWN && err != -ENOLINK) {
		sim_fail(sim_of(c->m), "a lock request was answered with an error: %d", err);
	}
	free(c);
}

void net_lock_request(struct fsd *fsd, const struct key *key, uint8_t old_mode, uint8_t new_mode)
{
	struct lock_call *c = malloc(sizeof(*c));

	*c = (struct lock_call){ mount_of_fsd(fsd), { *key, old_mode, new_mode } };
	mount_call(c->m, MSG_lock, &c->msg, lock_answered, c);
}

void net_invalidate_respond(struct fsd *fsd, struct net_req *req, const struct key *key,
			    uint8_t old_mode, uint8_t new_mode)
{
	struct msg_lock_invalidate_reply reply = { *key, old_mode, new_mode };

	net_client_respond(mount_of_fsd(fsd)->nc, req, 0, MSG_lock_invalidate_reply, &reply);
}

/* --- revokes ----------------------------------------------------------------------------------- */

static void drop_items(struct mount_sim *m, unsigned group)
{
	for (unsigned i = 0; i < CLUSTER_ITEMS; i++) {
		struct mitem *it = &m->items[cluster_item(group, i)];

		SIM_CHECK(sim_of(m), it->dirty_gen <= m->committed_gen,
			  "a lock is given up with item %u of generation %llu dirty, %llu is committed",
			  i, (unsigned long long)it->dirty_gen,
			  (unsigned long long)m->committed_gen);
		*it = (struct mitem){ .is_known = false };
	}
}

/* One piece of the notifier's work; the next follows. */
static void revoke_step(struct sim *s, void *arg, uint64_t life)
{
	struct mount_sim *m = arg;
	struct lock *l;

	(void)s, (void)life;
	node_enter(m->node);
	l = m->revoking;
	m->revoking = NULL;
	pthread_mutex_lock(&m->fsd.locks->mutex);
	if (l->step == REVOKE_NOTIFY || l->step == REVOKE_DROP) {
		if (sim_chance(sim_of(m), 20))
			revoke_leave_notify(l, sim_chance(sim_of(m), 50));
		else
			revoke_notified(l, sim_chance(sim_of(m), 20));
	} else {
		unsigned lock = cluster_lock(&l->start);

		if (revoke_has_to_drop(l) && lock != CLUSTER_RENAME)
			drop_items(m, lock);
		revoke_dropped(l, 0);
	}
	pthread_mutex_unlock(&m->fsd.locks->mutex);
	node_leave(m->node);
}

static void revoke_more(struct mount_sim *m)
{
	if (m->revoking || !m->fsd.locks)
		return;
	pthread_mutex_lock(&m->fsd.locks->mutex);
	m->revoking = revoke_next(m->fsd.locks, true);
	if (m->revoking)
		revoke_has_to_notify(m->revoking);
	pthread_mutex_unlock(&m->fsd.locks->mutex);
	if (m->revoking)
		sim_call_proc(sim_of(m), m->node->proc, some(m, 5 * SIM_MS), revoke_step, m, 0);
}

/* --- the session ------------------------------------------------------------------------------- */

static int resolve(void *arg, char *buf, size_t size)
{
	struct mount_sim *m = arg;
	struct cluster *cl = m->node->cl;
	unsigned i = cl->leader;

	/* What is read of the quorum blocks may be old. */
	if (sim_is_faulty(cl->sim) && sim_chance(cl->sim, 50))
		i = (unsigned)sim_rnd(cl->sim, cl->servers_nr);
	snprintf(buf, size, "tcp://%u", cl->servers[i].proc);
	return 0;
}

static void open_tree(struct mount_sim *m);

static void on_greeted(void *arg, uint64_t term, bool new_server)
{
	struct mount_sim *m = arg;

	(void)new_server;
	m->term = term;
	if (m->state != MOUNT_GREETING)
		return;
	m->state = MOUNT_OPENING;
	open_tree(m);
}

static void on_fenced(void *arg)
{
	struct mount_sim *m = arg;

	/* It ends itself; that it has is for the operator to say. */
	m->state = MOUNT_GONE;
}

static void answer_recover(struct mount_sim *m, struct net_req *req, const struct msg_lock_recover *r)
{
	struct lock_state held[3];	/* few, so that there are several rounds */
	struct msg_lock_recover_reply *reply = calloc(1, sizeof(*reply));

	reply->locks_nr = (uint32_t)locks_recover(&m->fsd, &r->key, held, 3);
	for (uint32_t i = 0; i < reply->locks_nr; i++) {
		reply->locks[i].key = held[i].key;
		reply->locks[i].mode = held[i].mode;
		reply->locks[i].write_seq = held[i].write_seq;
	}
	net_client_respond(m->nc, req, 0, MSG_lock_recover_reply, reply);
	free(reply);
}

static void on_request(void *arg, struct net_req *req, unsigned type, const void *msg)
{
	struct msg_open_ino_map_query_reply bits = { 0 };
	const struct msg_open_ino_map_query *map = msg;
	const struct msg_lock_invalidate *inv = msg;
	struct mount_sim *m = arg;

	switch (type) {
	case MSG_lock_invalidate:
		locks_invalidate(&m->fsd, req, &inv->key, inv->old_mode, inv->new_mode);
		break;
	case MSG_lock_recover:
		answer_recover(m, req, msg);
		break;
	case MSG_open_ino_map_query:
		if (map->group >= 1 && map->group <= CLUSTER_GROUPS_MAX)
			memcpy(&bits.bits, m->in_use[map->group - 1], sizeof(bits.bits));
		net_client_respond(m->nc, req, 0, MSG_open_ino_map_query_reply, &bits);
		break;
	case MSG_sync_log_trees:
		m->wants_commit = true;
		net_client_respond(m->nc, req, 0, MSG_sync_log_trees_reply, NULL);
		break;
	default:
		net_client_respond(m->nc, req, -EOPNOTSUPP, 0, NULL);
	}
}

void mount_call(struct mount_sim *m, unsigned type, const void *msg,
		void (*done)(void *arg, int err, unsigned type, const void *reply), void *arg)
{
	int ret = net_client_call(m->nc, type, msg, done, arg);

	if (ret == -ENOLINK)
		done(arg, ret, 0, NULL);
	else
		SIM_CHECK(sim_of(m), ret == 0, "%s cannot be asked: %d", msg_name(type), ret);
}

/* --- generations and commits ------------------------------------------------------------------- */

static void begin_commit(struct mount_sim *m);

/* Whether the generation that an earlier process was committing is stored, the leader has just said. */
static void settle_commit(struct mount_sim *m)
{
	uint64_t seq = m->closing_seq, is_open = le64_get(m->lt.get_trans_seq);
	bool is_stored = seq && le64_get(m->lt.commit_trans_seq) == seq;

	sim_trace(sim_of(m), m->node->proc, "generation %llu is %sstored",
		  (unsigned long long)m->closing_gen, is_stored ? "" : "not ");
	SIM_CHECK(sim_of(m), !seq || is_stored || is_open == seq,
		  "transaction %llu is neither stored nor open", (unsigned long long)seq);
	if (is_stored) {
		m->committed_gen = m->closing_gen;
		cluster_fact(m->node, FACT_COMMITTED, m->committed_gen, 0, 0);
	}
	m->closing_gen = m->closing_seq = 0;
}

static void tree_opened(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_open_log_trees_reply *r = reply;
	struct mount_sim *m = arg;

	(void)type;
	m->is_opening = false;
	if (err == -ESHUTDOWN || err == -ENOLINK)
		return;
	SIM_CHECK(sim_of(m), err == 0, "a log tree is not opened: %d", err);
	m->lt = r->log_trees;
	SIM_CHECK(sim_of(m), le64_get(m->lt.get_trans_seq) > le64_get(m->lt.commit_trans_seq),
		  "a log tree that was asked for is not open");
	m->is_open = true;
	if (m->state == MOUNT_OPENING && m->closing_gen)
		settle_commit(m);
	if (m->state == MOUNT_OPENING) {
		m->state = MOUNT_RUNNING;
		sim_trace(sim_of(m), m->node->proc, "is mounted as %llx", (unsigned long long)m->rid);
		merge_sim_start(m);
	}
}

static void open_tree(struct mount_sim *m)
{
	if (m->is_open || m->is_opening)
		return;
	m->is_opening = true;
	mount_call(m, MSG_open_log_trees, NULL, tree_opened, m);
}

void mount_commit(struct mount_sim *m, uint64_t gen, void (*fn)(void *arg), void *arg)
{
	m->wants_commit = m->wants_commit || gen >= m->open_gen;
	if (!fn)
		return;
	SIM_CHECK(sim_of(m), m->thens_nr < MOUNT_THENS, "too much waits for a commit");
	m->thens[m->thens_nr++] = (struct then){ gen, fn, arg };
}

static void call_thens(struct mount_sim *m)
{
	for (unsigned i = 0; i < m->thens_nr; i++) {
		struct then t = m->thens[i];

		if (t.gen > m->committed_gen)
			continue;
		m->thens[i--] = m->thens[--m->thens_nr];
		t.fn(t.arg);
	}
}

/* Whether an operation runs, or has left something behind that is to be committed. */
static bool has_work(const struct mount_sim *m)
{
	for (unsigned i = 0; i < MOUNT_OPS; i++) {
		if (m->ops[i].state != MOP_NONE && m->ops[i].state != MOP_SYNC)
			return true;
	}
	for (uint64_t i = 0; i < m->node->cl->groups_nr * CLUSTER_ITEMS; i++) {
		if (m->items[i].dirty_gen > m->committed_gen && m->items[i].dirty_gen != m->closing_gen)
			return true;
	}
	return false;
}

static void committed(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_commit_log_trees_reply *r = reply;
	struct mount_sim *m = arg;

	(void)type;
	if (err == -ESHUTDOWN || err == -ENOLINK)
		return;
	SIM_CHECK(sim_of(m), err == 0, "a commit is refused: %d", err);
	m->lt = r->log_trees;
	m->is_open = le64_get(m->lt.get_trans_seq) > le64_get(m->lt.commit_trans_seq);
	m->committed_gen = m->closing_gen;
	m->closing_gen = m->closing_seq = 0;
	cluster_fact(m->node, FACT_COMMITTED, m->committed_gen, 0, 0);
	if (!m->is_open && (m->state == MOUNT_RUNNING || has_work(m)))
		open_tree(m);
}

static int put_item(struct mount_sim *m, struct meta_alloc *ma, uint64_t item, uint64_t value)
{
	struct key key = cluster_item_key(item);
	uint64_t seq = le64_get(m->lt.get_trans_seq), write_seq = lock_write_seq(&m->fsd, &key);
	struct item it = { .key = key, .seq = write_seq > seq ? write_seq : seq, .val = &value,
			   .val_len = sizeof(value) };

	if (!value) {
		it.flags = ITEM_FLAG_DELETION;
		it.val_len = 0;
	}
	return log_tree_force(m->bs, ma, &m->lt, &it);
}

/* Stream the generation that is closing out. */
static void write_out(struct sim *s, void *arg, uint64_t gen)
{
	struct msg_commit_log_trees msg = { .open_next = true };
	struct mount_sim *m = arg;
	struct meta_alloc ma;
	int ret = 0;

	node_enter(m->node);
	m->closing_seq = le64_get(m->lt.get_trans_seq);
	meta_alloc_open(&ma, m->bs, &m->lt.meta_avail, &m->lt.meta_freed);
	for (uint64_t i = 0; i < m->node->cl->groups_nr * CLUSTER_ITEMS && ret == 0; i++) {
		struct mitem *it = &m->items[i];

		if (it->closing)
			ret = put_item(m, &ma, i, it->closing_value);
		it->closing = false;
	}
	meta_alloc_close(&ma);
	if (ret == 0)
		ret = block_set_write(m->bs);
	if (ret == 0)
		ret = vol_flush(m->node);
	SIM_CHECK(s, ret == 0 || m->node->is_zombie || vol_is_revoked(m->node->cl->vol, m->rid),
		  "generation %llu cannot be written: %d", (unsigned long long)gen, ret);
	msg.log_trees = m->lt;
	/* The last one of a mount that leaves opens nothing. */
	msg.open_next = m->state == MOUNT_RUNNING || has_work(m);
	if (ret == 0) {
		cluster_fact(m->node, FACT_COMMIT_SENT, gen, 0, 0);
		mount_call(m, MSG_commit_log_trees, &msg, committed, m);
	}
	node_leave(m->node);
}

static void begin_commit(struct mount_sim *m)
{
	if (m->closing_gen || !m->is_open || m->state < MOUNT_RUNNING || m->state == MOUNT_GONE)
		return;
	m->wants_commit = m->is_commit_due = false;
	for (uint64_t i = 0; i < m->node->cl->groups_nr * CLUSTER_ITEMS; i++) {
		struct mitem *it = &m->items[i];

		if (it->dirty_gen <= m->committed_gen)
			continue;
		it->closing = true;
		it->closing_value = it->value;
	}
	m->closing_gen = m->open_gen++;
	sim_trace(sim_of(m), m->node->proc, "generation %llu is closed",
		  (unsigned long long)m->closing_gen);
	sim_call_proc(sim_of(m), m->node->proc, some(m, 10 * SIM_MS), write_out, m, m->closing_gen);
}

static void commit_timer(struct sim *s, void *arg, uint64_t value)
{
	struct mount_sim *m = arg;

	(void)value;
	node_enter(m->node);
	m->is_commit_due = true;
	sim_call_proc(s, m->node->proc, COMMIT_NS, commit_timer, m, 0);
	node_leave(m->node);
}

/* --- reading ----------------------------------------------------------------------------------- */

static void read_items(struct sim *s, void *arg, uint64_t value);

static void roots_came(void *arg, int err, unsigned type, const void *reply)
{
	const struct msg_get_roots_reply *r = reply;
	struct mount_sim *m = arg;

	(void)type;
	m->roots_are_asked = false;
	if (err == -ESHUTDOWN || err == -ENOLINK)
		return;
	SIM_CHECK(sim_of(m), err == 0, "roots are refused: %d", err);
	m->roots = (struct forest_roots){ r->fs_root, r->logs_root, r->srch_root, r->log_merge };
	m->has_roots = true;
}

static int read_group(struct mount_sim *m, unsigned group)
{
	for (unsigned i = 0; i < CLUSTER_ITEMS; i++) {
		uint64_t nr = cluster_item(group, i), value = 0;
		struct key key = cluster_item_key(nr);
		uint8_t val[ITEM_VAL_MAX];
		struct item it;
		int ret;

		if (m->items[nr].is_known)
			continue;
		ret = forest_lookup(m->reader, &m->roots, &key, &it, val);
		if (ret < 0 && ret != -ENOENT)
			return ret;
		if (ret == 0)
			memcpy(&value, val, sizeof(value));
		m->items[nr] = (struct mitem){ .is_known = true, .value = value };
	}
	return 0;
}

static void read_items(struct sim *s, void *arg, uint64_t value)
{
	struct mount_sim *m = arg;

	(void)value;
	node_enter(m->node);
	m->is_reading = false;
	for (unsigned i = 0; i < MOUNT_OPS && m->has_roots && !m->roots_are_stale; i++) {
		struct mop *o = &m->ops[i];
		int ret;

		if (!o->waits_for_items)
			continue;
		ret = read_group(m, o->waits_for_items - 1);
		if (ret == -ESTALE) {
			m->roots_are_stale = true;
			break;
		}
		SIM_CHECK(s, ret == 0, "items cannot be read: %d", ret);
		o->waits_for_items = 0;
		mount_queue_op(m, &o->op);
	}
	node_leave(m->node);
}

/* Whatever somebody waits for is asked for, or read. */
static void read_more(struct mount_sim *m)
{
	bool is_wanted = false;

	for (unsigned i = 0; i < MOUNT_OPS; i++)
		is_wanted = is_wanted || m->ops[i].waits_for_items;
	if (!is_wanted || m->roots_are_asked || m->is_reading)
		return;
	if (!m->has_roots || m->roots_are_stale) {
		/* A grant from here on makes what is answered stale. */
		m->roots_are_stale = false;
		m->roots_are_asked = true;
		mount_call(m, MSG_get_roots, NULL, roots_came, m);
		return;
	}
	m->is_reading = true;
	sim_call_proc(sim_of(m), m->node->proc, some(m, 3 * SIM_MS), read_items, m, 0);
}

/* --- leaving ------------------------------------------------------------------------------------ */

static void bye_answered(void *arg, int err, unsigned type, const void *reply)
{
	struct mount_sim *m = arg;

	(void)type, (void)reply;
	if (err == -ESHUTDOWN || err == -ENOLINK)
		return;
	SIM_CHECK(sim_of(m), err == 0, "a farewell is refused: %d", err);
	m->state = MOUNT_GONE;
	cluster_fact(m->node, FACT_FENCED, m->rid, 0, 0);
}

/* Whether the item of this rid is gone from the volume, so that the farewell was heard. */
static int is_bye_heard(void *arg)
{
	struct mount_sim *m = arg;
	struct key key = key_mounted_client(m->rid);
	struct disk_super super;
	struct btree_ref ref;
	int ret;

	vol_read_super(m->node, &super);
	ret = btree_lookup(m->reader, &super.mounted_clients, &key, &ref);
	if (ret == 0)
		btree_put(m->reader, &ref);
	return ret == -ENOENT ? 1 : ret == 0 ? 0 : -EAGAIN;
}

static void close_inodes(struct mount_sim *m)
{
	for (unsigned g = 0; g < CLUSTER_GROUPS_MAX; g++) {
		for (unsigned i = 0; i < 8; i++) {
			if (m->in_use[g][0] >> i & 1)
				cluster_fact(m->node, FACT_CLOSED, g * 1024 + i, 0, 0);
		}
		m->in_use[g][0] = 0;
	}
}

static void leave_more(struct mount_sim *m)
{
	bool is_waited_for = false;

	if (m->state != MOUNT_LEAVING || m->is_bye_sent || m->closing_gen)
		return;
	for (unsigned i = 0; i < MOUNT_OPS; i++) {
		if (m->ops[i].state == MOP_SYNC)
			is_waited_for = true;
		else if (m->ops[i].state != MOP_NONE)
			return;
	}
	if (is_waited_for || has_work(m)) {
		m->wants_commit = true;
		open_tree(m);
		return;
	}
	close_inodes(m);
	m->is_bye_sent = true;
	sim_trace(sim_of(m), m->node->proc, "says farewell");
	SIM_CHECK(sim_of(m), net_client_call_farewell(m->nc, is_bye_heard, m, bye_answered, m) == 0,
		  "a farewell cannot be said");
}

void mount_sim_leave(struct node *n)
{
	if (sim_proc_is_alive(n->sim, n->proc) && n->mount->state == MOUNT_RUNNING) {
		n->mount->state = MOUNT_LEAVING;
		merge_sim_end(n->mount);
		node_poke(n, 0);
	}
}

/* --- the process -------------------------------------------------------------------------------- */

static void open_parts(struct node *n, const struct net_client_conf *conf)
{
	struct mount_sim *m = n->mount;
	struct block_dev dev = vol_dev(n);

	SIM_CHECK(n->sim,
		  block_set_open(&m->bs, &dev, CLUSTER_FSID, CLUSTER_META_BLOCKS, CLEAN_MAX) == 0 &&
		  block_set_open(&m->reader, &dev, CLUSTER_FSID, CLUSTER_META_BLOCKS, CLEAN_MAX) == 0 &&
		  locks_open(&m->fsd) == 0 && net_client_open(&m->nc, conf, ++n->cl->last_process) == 0,
		  "a mount cannot start");
	m->node = n;
	m->run_last = &m->run_first;
	m->fsd.conf.lock_idle_count = n->cl->idle_locks;
	m->fsd.keep = m->keep.locks ? &m->keep : NULL;
}

/* What an earlier process has left is gone on from. */
static void take_over(struct mount_sim *m, const struct mount_sim *old)
{
	m->rid = old->rid;
	m->term = old->term;
	memcpy(m->items, old->items, sizeof(m->items));
	memcpy(m->in_use, old->in_use, sizeof(m->in_use));
	m->open_gen = old->open_gen;
	m->closing_gen = old->closing_gen;
	m->closing_seq = old->closing_seq;
	m->committed_gen = old->committed_gen;
	for (uint64_t i = 0; i < CLUSTER_GROUPS_MAX * CLUSTER_ITEMS; i++)
		m->items[i].closing = false;
}

static void tell_resumed(struct node *n)
{
	struct mount_sim *m = n->mount;

	sim_trace(n->sim, n->proc, "goes on as %llx", (unsigned long long)m->rid);
	cluster_fact(n, FACT_RESUMED, m->rid, 0, 0);
	for (unsigned g = 0; g < CLUSTER_GROUPS_MAX; g++) {
		for (unsigned i = 0; i < 8; i++) {
			if (m->in_use[g][0] >> i & 1)
				cluster_fact(n, FACT_OPENED, g * 1024 + i, 0, 0);
		}
	}
	SIM_CHECK(n->sim, locks_restore(&m->fsd, m->open_gen) == 0, "locks that are kept make no sense");
}

static void begin_life(struct node *n)
{
	struct mount_sim *m = n->mount, *old = malloc(sizeof(*old));
	struct net_client_conf conf = {
		.fsid = CLUSTER_FSID, .fmt_vers = 2,
		.keepalive_ms = n->cl->keepalive_ms,
		.ops = { .resolve = resolve, .on_greeted = on_greeted, .on_request = on_request,
			 .on_fenced = on_fenced },
		.arg = m,
	};
	bool is_resumed = m->can_resume && sim_chance(n->sim, n->cl->resume_pm);

	SIM_CHECK(n->sim, old, "no memory");
	*old = *m;
	memset(m, 0, sizeof(*m));
	m->done_nr = old->done_nr;
	m->keep = old->keep;
	m->open_gen = 1;
	if (is_resumed) {
		take_over(m, old);
	} else {
		m->rid = ++n->cl->last_rid;
		if (m->keep.locks)
			memset(m->keep.locks, 0, KEEP_LOCKS_MAX * sizeof(m->keep.locks[0]));
	}
	free(old);
	conf.rid = m->rid;
	conf.term = m->term;
	open_parts(n, &conf);
	if (is_resumed)
		tell_resumed(n);
	else
		cluster_fact(n, FACT_MOUNTED, m->rid, 0, 0);
	sim_call_proc(n->sim, n->proc, COMMIT_NS, commit_timer, m, 0);
	apps_sim_start(m);
}

static void turn(struct node *n)
{
	struct mount_sim *m = n->mount;
	uint64_t now = clock_mono_ns(), at;

	if (!m->nc)
		begin_life(n);
	net_client_turn(m->nc);
	call_thens(m);
	while (m->run_first) {
		struct op *op = m->run_first;

		m->run_first = op->next;
		if (!m->run_first)
			m->run_last = &m->run_first;
		apps_sim_run((struct mop *)op);
	}
	revoke_more(m);
	read_more(m);
	if (m->wants_commit || m->is_commit_due)
		begin_commit(m);
	leave_more(m);
	net_client_turn(m->nc);
	at = net_client_deadline(m->nc);
	if (net_sim_has_input(n) || m->run_first)
		at = now;
	if (at < now + TURN_MIN_NS)
		at = now + TURN_MIN_NS;
	if (n->is_zombie)
		return;
	sim_timer_set(n->sim, n->proc, at == UINT64_MAX ? SIM_NEVER : at);
	/* Unmounted, or fenced: somebody mounts again. */
	if (m->state == MOUNT_GONE)
		sim_proc_restart(n->sim, n->proc, sim_between(n->sim, 100 * SIM_MS, 2 * SIM_SEC));
}

static void bury(struct node *n)
{
	struct mount_sim *m = n->mount;

	if (!m->nc)
		return;
	m->can_resume = m->keep.locks && (m->state == MOUNT_RUNNING || m->state == MOUNT_LEAVING) &&
			!m->is_bye_sent;
	merge_sim_end(m);
	net_client_close(m->nc);
	m->nc = NULL;
	locks_close(&m->fsd);
	block_set_abort(m->bs);
	block_set_close(m->bs);
	block_set_close(m->reader);
}

void mount_sim_forget(struct node *n)
{
	n->mount->can_resume = false;
}

uint64_t mount_sim_rid(const struct node *n)
{
	return n->mount->rid;
}

uint64_t mount_sim_done(const struct node *n)
{
	return n->mount->done_nr;
}

bool mount_sim_is_running(const struct node *n)
{
	return sim_proc_is_alive(n->sim, n->proc) && n->mount->state == MOUNT_RUNNING;
}

bool mount_sim_is_idle(const struct node *n)
{
	const struct mount_sim *m = n->mount;

	return mount_sim_is_running(n) && !m->closing_gen && !m->run_first && !m->revoking &&
	       !has_work(m);
}

void mount_sim_init(struct cluster *cl, unsigned i)
{
	static const char *const names[SIM_MOUNTS_MAX] = { "mount0", "mount1", "mount2", "mount3",
							       "mount4" };
	struct node *n = &cl->mounts[i];

	n->index = i;
	n->mount = sim_alloc(cl->sim, sizeof(*n->mount));
	if (cl->resume_pm) {
		n->mount->keep.head = sim_alloc(cl->sim, sizeof(struct keep_head));
		n->mount->keep.locks = sim_alloc(cl->sim, KEEP_LOCKS_MAX * sizeof(struct keep_lock));
	}
	n->turn = turn;
	n->bury = bury;
	node_init(n, cl, names[i]);
}
