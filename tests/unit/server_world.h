/*
 * For tests of the server of a term as its mounts see it: the network is a list of what was said; the
 * volume (server_dev.h) and the worker are real; the clock is the test's.
 */
#ifndef SCOUTFS_TEST_SERVER_WORLD_H
#define SCOUTFS_TEST_SERVER_WORLD_H

#include <poll.h>

#include "clock.h"
#include "services/serverd/serverd.h"
#include "server_dev.h"

#define OWN_RID		0xaaaaull
#define DEADLINE_NS	(60 * NSEC_PER_SEC)
#define SAID_MAX	512

enum said_kind { GREETED, RESPONDED, ASKED, DROPPED };

struct said {
	enum said_kind kind;
	uint64_t rid, handle;
	int err;			/* or the greeting's status */
	unsigned type;
	union msg_body body;
};

struct world {
	struct dev *dev;
	struct instance_conf conf;
	struct serverd_stats stats;
	struct server *s;
	uint64_t now;			/* what the server is told */
	struct said said[SAID_MAX];
	unsigned said_nr;
	unsigned seen;			/* said[] before it have been looked at */
	uint64_t ours[8];
	unsigned ours_nr;
	uint64_t known_fenced;
	uint64_t revoked[8];		/* by the worker; read when it is idle */
	unsigned revoked_nr;
	unsigned own_revoked;
	int own_revoke_err;
	bool blockd_is_old;
	uint64_t term;
	uint64_t handles;
	bool is_listening;
	bool turned;
	int term_err;
	uint64_t lapsed_rid, lapsed_led_ms;
	uint64_t lease_until_ns;	/* the server's own right, on the clock of `now` */
};

static inline struct said *say(struct world *w, enum said_kind kind, uint64_t rid)
{
	struct said *x = &w->said[w->said_nr++];

	assert_true(w->said_nr < SAID_MAX);
	*x = (struct said){ .kind = kind, .rid = rid };
	return x;
}

static inline int t_greeted(void *arg, uint64_t rid, enum greeting_status status)
{
	say(arg, GREETED, rid)->err = (int)status;
	return 0;
}

static inline int t_respond(void *arg, uint64_t rid, uint64_t handle, int err, unsigned type, const void *msg)
{
	struct said *x = say(arg, RESPONDED, rid);

	x->handle = handle;
	x->err = err;
	x->type = type;
	if (msg && err == 0)
		memcpy(&x->body, msg, msg_struct_bytes(type));
	return 0;
}

static inline int t_request(void *arg, uint64_t rid, unsigned type, const void *msg, uint64_t tag)
{
	struct said *x = say(arg, ASKED, rid);

	x->handle = tag;
	x->type = type;
	memcpy(&x->body, msg, msg_struct_bytes(type));
	return 0;
}

static inline int t_drop(void *arg, uint64_t rid)
{
	say(arg, DROPPED, rid);
	return 0;
}

static inline int t_set_term(void *arg, uint64_t term)
{
	struct world *w = arg;

	w->term = term;
	return w->term_err;
}

static inline int t_revoke(void *arg, uint64_t rid)
{
	struct world *w = arg;

	w->revoked[w->revoked_nr++] = rid;
	return 0;
}

static inline int t_revoke_own(void *arg)
{
	struct world *w = arg;

	w->own_revoked++;
	return w->own_revoke_err;
}

static inline bool t_can_revoke_own(void *arg)
{
	return !((struct world *)arg)->blockd_is_old;
}

static inline int t_is_ours(void *arg, uint64_t rid)
{
	struct world *w = arg;

	for (unsigned i = 0; i < w->ours_nr; i++) {
		if (w->ours[i] == rid)
			return 1;
	}
	return 0;
}

static inline int t_is_fenced(void *arg, uint64_t rid)
{
	return rid == ((struct world *)arg)->known_fenced;
}

static inline int t_listen(void *arg, const struct txn_view *view)
{
	struct world *w = arg;

	assert_int_equal(le64_get(view->super.hdr.fsid), FSID);
	w->is_listening = true;
	return 0;
}

static inline void t_unlisten(void *arg)
{
	((struct world *)arg)->is_listening = false;
}

static inline uint64_t t_lapsed(void *arg, uint64_t rid)
{
	struct world *w = arg;

	return rid == w->lapsed_rid ? w->lapsed_led_ms : 0;
}

static inline uint64_t t_boot(void *arg)
{
	return ((struct world *)arg)->now;
}

static inline uint64_t t_lease_until(void *arg)
{
	return ((struct world *)arg)->lease_until_ns;
}

/* Let the loop turn until cond holds. */
#define WAIT_FOR(w, cond)								\
	do {										\
		uint64_t give_up_ = clock_mono_ns() + DEADLINE_NS;			\
		while (!(cond)) {							\
			struct pollfd fd_ = { server_fd((w)->s), POLLIN, 0 };		\
			if (clock_mono_ns() > give_up_)					\
				fail_msg("%s does not come true", #cond);		\
			server_dispatch((w)->s, (w)->now);				\
			if (!(cond) && server_deadline((w)->s) > (w)->now)		\
				poll(&fd_, 1, 100);					\
		}									\
	} while (0)

static inline void start(struct world *w, uint64_t term)
{
	struct server_conf sc = {
		.conf = &w->conf, .term = term, .rid = OWN_RID, .fsid = FSID,
		.dev = txn_dev_of(w->dev), .set_term = t_set_term, .revoke = t_revoke,
		.revoke_own_mount = t_revoke_own, .can_revoke_own_mount = t_can_revoke_own,
		.rid_is_ours = t_is_ours, .rid_is_fenced = t_is_fenced,
		.listen = t_listen, .unlisten = t_unlisten,
		.lapsed_led_ms = t_lapsed, .boot_ns = t_boot, .lease_until_ns = t_lease_until,
		.net = { t_greeted, t_respond, t_request, t_drop }, .arg = w, .stats = &w->stats,
	};

	assert_int_equal(server_start(&w->s, &sc, w->now), 0);
}

static inline void start_up(struct world *w, uint64_t term)
{
	start(w, term);
	WAIT_FOR(w, server_state(w->s) != SERVER_STARTING);
	assert_int_equal(server_state(w->s), SERVER_UP);
	assert_int_equal(w->term, term);
	assert_true(w->is_listening);
}

static inline void stop(struct world *w)
{
	server_stop(w->s);
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_false(w->is_listening);
	server_free(w->s);
	w->s = NULL;
}

static inline struct world *world_make(void)
{
	struct world *w = calloc(1, sizeof(*w));

	w->dev = dev_make(META, DATA);
	w->conf.client_timeout_ms = 20000;
	w->conf.recovery_timeout_ms = 30000;
	w->conf.lease_ms = 10000;
	w->conf.longest_io_ms = 30000;
	w->lease_until_ns = UINT64_MAX;
	w->now = NSEC_PER_SEC;
	start_up(w, 1);
	return w;
}

static inline void world_free(struct world *w)
{
	if (w->s)
		stop(w);
	check_volume(w->dev);
	dev_free(w->dev);
	free(w);
}

/*
 * The first thing of a kind said to rid since the last look, or at any time with a handle (they are
 * unique); NULL: nothing yet.
 */
static inline struct said *find(struct world *w, enum said_kind kind, uint64_t rid, uint64_t handle)
{
	for (unsigned i = handle ? 0 : w->seen; i < w->said_nr; i++) {
		struct said *x = &w->said[i];

		if (x->kind == kind && x->rid == rid && (!handle || x->handle == handle))
			return x;
	}
	return NULL;
}

static struct world *turning;

static inline void count_turn(struct task *task, int err)
{
	(void)task;
	assert_int_equal(err, 0);
	turning->turned = true;
}

static inline int greet(struct world *w, uint64_t rid, uint64_t server_term, uint8_t flags)
{
	struct net_greeting g = { .msg = { .fsid = FSID, .fmt_vers = 2, .server_term = server_term,
					   .rid = rid, .flags = flags },
				  .addr = 0x7f000001 };

	w->seen = w->said_nr;
	server_on_greeting(w->s, &g);
	WAIT_FOR(w, find(w, GREETED, rid, 0));
	return find(w, GREETED, rid, 0)->err;
}

static inline uint64_t ask(struct world *w, uint64_t rid, unsigned type, const void *msg)
{
	w->seen = w->said_nr;
	server_on_request(w->s, rid, ++w->handles, type, msg);
	return w->handles;
}

static inline struct said *call(struct world *w, uint64_t rid, unsigned type, const void *msg)
{
	uint64_t handle = ask(w, rid, type, msg);

	WAIT_FOR(w, find(w, RESPONDED, rid, handle));
	return find(w, RESPONDED, rid, handle);
}

/* Seconds, with a turn of the loop in each: it was not stopped. */
static inline void pass_time(struct world *w, unsigned seconds)
{
	while (seconds--) {
		w->now += NSEC_PER_SEC;
		server_dispatch(w->s, w->now);
	}
}

/* Whatever was going to happen has happened: the loop turned, and the worker did what it had. */
static inline void turns(struct world *w)
{
	for (unsigned i = 0; i < 3; i++) {
		struct task task = { .complete = count_turn };

		server_dispatch(w->s, w->now);
		w->turned = false;
		turning = w;
		worker_submit(w->s->worker, &task);
		WAIT_FOR(w, w->turned);
	}
}

/* On the device itself; the worker must have nothing to do. */
static inline bool is_on_volume(struct world *w, uint64_t rid)
{
	struct block_dev bd = { w->dev, dev_read, dev_write, dev_random };
	struct disk_super super;
	struct key key = key_mounted_client(rid);
	struct block_set *bs;
	struct btree_ref ref;
	int ret;

	memcpy(&super, w->dev->super_disk, sizeof(super));
	assert_int_equal(block_set_open(&bs, &bd, FSID, META, 64), 0);
	ret = btree_lookup(bs, &super.mounted_clients, &key, &ref);
	if (ret == 0)
		btree_put(bs, &ref);
	block_set_close(bs);
	return ret == 0;
}

/* A mount told its locks, here none. */
static inline void tell_no_locks(struct world *w, uint64_t rid)
{
	struct msg_lock_recover_reply none = { .locks_nr = 0 };

	server_on_response(w->s, rid, 0, 0, MSG_lock_recover_reply, &none);
}

static inline struct msg_lock lock_of(uint64_t group, uint8_t mode)
{
	return (struct msg_lock){ .key = { .zone = ZONE_FS, .first = group * 1024 },
				  .new_mode = mode };
}

static inline void let_in(struct world *w, uint64_t rid)
{
	assert_int_equal(greet(w, rid, 0, 0), GREETING_OK);
}

/* A mount's log tree with an open transaction. */
static inline struct disk_log_trees open_tree(struct world *w, uint64_t rid)
{
	struct said *x = call(w, rid, MSG_open_log_trees, NULL);

	assert_int_equal(x->err, 0);
	return x->body.open_log_trees_reply.log_trees;
}

static const struct msg_lease healthy;

/* A mount's lease, from now on. */
static inline void renew(struct world *w, uint64_t rid)
{
	assert_int_equal(call(w, rid, MSG_lease, &healthy)->err, 0);
}

/* Items under the open transaction of lt, on the device. */
static inline void write_items(struct world *w, struct disk_log_trees *lt, unsigned nr)
{
	struct block_dev bd = { w->dev, dev_read, dev_write, dev_random };
	struct item it = { .seq = le64_get(lt->get_trans_seq) };
	struct block_set *bs;
	struct meta_alloc ma;

	assert_int_equal(block_set_open(&bs, &bd, FSID, META, 64), 0);
	meta_alloc_open(&ma, bs, &lt->meta_avail, &lt->meta_freed);
	for (unsigned i = 0; i < nr; i++) {
		it.key = key_orphan(2000 + 10000 * it.seq + i);
		assert_int_equal(log_tree_force(bs, &ma, lt, &it), 0);
	}
	meta_alloc_close(&ma);
	assert_int_equal(block_set_write(bs), 0);
	assert_int_equal(dev_flush(w->dev), 0);
	block_set_close(bs);
}

static inline void write_item(struct world *w, struct disk_log_trees *lt)
{
	write_items(w, lt, 1);
}

static inline struct disk_log_trees commit_tree(struct world *w, uint64_t rid, const struct disk_log_trees *lt)
{
	struct msg_commit_log_trees m = { .log_trees = *lt, .open_next = 1 };
	struct said *x = call(w, rid, MSG_commit_log_trees, &m);

	assert_int_equal(x->err, 0);
	return x->body.commit_log_trees_reply.log_trees;
}

static inline struct said *answer_of(struct world *w, uint64_t rid, uint64_t handle)
{
	turns(w);
	return find(w, RESPONDED, rid, handle);
}

#endif
