/*
 * The server of a term as its mounts see it: who is let in, waited for, given up and let go, and what is
 * durable when they hear of it.  The network is a list of what was said; the volume and the worker are real.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static struct said *say(struct world *w, enum said_kind kind, uint64_t rid)
{
	struct said *x = &w->said[w->said_nr++];

	assert_true(w->said_nr < SAID_MAX);
	*x = (struct said){ .kind = kind, .rid = rid };
	return x;
}

static int t_greeted(void *arg, uint64_t rid, enum greeting_status status)
{
	say(arg, GREETED, rid)->err = (int)status;
	return 0;
}

static int t_respond(void *arg, uint64_t rid, uint64_t handle, int err, unsigned type, const void *msg)
{
	struct said *x = say(arg, RESPONDED, rid);

	x->handle = handle;
	x->err = err;
	x->type = type;
	if (msg && err == 0)
		memcpy(&x->body, msg, msg_struct_bytes(type));
	return 0;
}

static int t_request(void *arg, uint64_t rid, unsigned type, const void *msg, uint64_t tag)
{
	struct said *x = say(arg, ASKED, rid);

	x->handle = tag;
	x->type = type;
	memcpy(&x->body, msg, msg_struct_bytes(type));
	return 0;
}

static int t_drop(void *arg, uint64_t rid)
{
	say(arg, DROPPED, rid);
	return 0;
}

static int t_set_term(void *arg, uint64_t term)
{
	struct world *w = arg;

	w->term = term;
	return w->term_err;
}

static int t_revoke(void *arg, uint64_t rid)
{
	struct world *w = arg;

	w->revoked[w->revoked_nr++] = rid;
	return 0;
}

static int t_revoke_own(void *arg)
{
	struct world *w = arg;

	w->own_revoked++;
	return w->own_revoke_err;
}

static bool t_can_revoke_own(void *arg)
{
	return !((struct world *)arg)->blockd_is_old;
}

static int t_is_ours(void *arg, uint64_t rid)
{
	struct world *w = arg;

	for (unsigned i = 0; i < w->ours_nr; i++) {
		if (w->ours[i] == rid)
			return 1;
	}
	return 0;
}

static int t_is_fenced(void *arg, uint64_t rid)
{
	return rid == ((struct world *)arg)->known_fenced;
}

static int t_listen(void *arg, const struct txn_view *view)
{
	struct world *w = arg;

	assert_int_equal(le64_get(view->super.hdr.fsid), FSID);
	w->is_listening = true;
	return 0;
}

static void t_unlisten(void *arg)
{
	((struct world *)arg)->is_listening = false;
}

static uint64_t t_lapsed(void *arg, uint64_t rid)
{
	struct world *w = arg;

	return rid == w->lapsed_rid ? w->lapsed_led_ms : 0;
}

static uint64_t t_boot(void *arg)
{
	return ((struct world *)arg)->now;
}

static uint64_t t_lease_until(void *arg)
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

static void start(struct world *w, uint64_t term)
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

static void start_up(struct world *w, uint64_t term)
{
	start(w, term);
	WAIT_FOR(w, server_state(w->s) != SERVER_STARTING);
	assert_int_equal(server_state(w->s), SERVER_UP);
	assert_int_equal(w->term, term);
	assert_true(w->is_listening);
}

static void stop(struct world *w)
{
	server_stop(w->s);
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_false(w->is_listening);
	server_free(w->s);
	w->s = NULL;
}

static struct world *world_make(void)
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

static void world_free(struct world *w)
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
static struct said *find(struct world *w, enum said_kind kind, uint64_t rid, uint64_t handle)
{
	for (unsigned i = handle ? 0 : w->seen; i < w->said_nr; i++) {
		struct said *x = &w->said[i];

		if (x->kind == kind && x->rid == rid && (!handle || x->handle == handle))
			return x;
	}
	return NULL;
}

static struct world *turning;

static void count_turn(struct task *task, int err)
{
	(void)task;
	assert_int_equal(err, 0);
	turning->turned = true;
}

static int greet(struct world *w, uint64_t rid, uint64_t server_term, uint8_t flags)
{
	struct net_greeting g = { .msg = { .fsid = FSID, .fmt_vers = 2, .server_term = server_term,
					   .rid = rid, .flags = flags },
				  .addr = 0x7f000001 };

	w->seen = w->said_nr;
	server_on_greeting(w->s, &g);
	WAIT_FOR(w, find(w, GREETED, rid, 0));
	return find(w, GREETED, rid, 0)->err;
}

static uint64_t ask(struct world *w, uint64_t rid, unsigned type, const void *msg)
{
	w->seen = w->said_nr;
	server_on_request(w->s, rid, ++w->handles, type, msg);
	return w->handles;
}

static struct said *call(struct world *w, uint64_t rid, unsigned type, const void *msg)
{
	uint64_t handle = ask(w, rid, type, msg);

	WAIT_FOR(w, find(w, RESPONDED, rid, handle));
	return find(w, RESPONDED, rid, handle);
}

/* Seconds, with a turn of the loop in each: it was not stopped. */
static void pass_time(struct world *w, unsigned seconds)
{
	while (seconds--) {
		w->now += NSEC_PER_SEC;
		server_dispatch(w->s, w->now);
	}
}

/* Whatever was going to happen has happened: the loop turned, and the worker did what it had. */
static void turns(struct world *w)
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
static bool is_on_volume(struct world *w, uint64_t rid)
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
static void tell_no_locks(struct world *w, uint64_t rid)
{
	struct msg_lock_recover_reply none = { .locks_nr = 0 };

	server_on_response(w->s, rid, 0, 0, MSG_lock_recover_reply, &none);
}

static struct msg_lock lock_of(uint64_t group, uint8_t mode)
{
	return (struct msg_lock){ .key = { .zone = ZONE_FS, .first = group * 1024 },
				  .new_mode = mode };
}

/* --- tests --- */

static void a_mount_is_let_in_when_its_item_is_durable(void **state)
{
	struct world *w = world_make();
	struct msg_alloc_inodes want = { .count = 10240 };
	struct said *x;
	struct msg_commit_log_trees commit = { .open_next = 1 };
	uint64_t seq;

	(void)state;
	assert_false(is_on_volume(w, 1));
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_true(is_on_volume(w, 1));
	x = call(w, 1, MSG_open_log_trees, NULL);
	assert_int_equal(x->err, 0);
	assert_int_equal(le64_get(x->body.open_log_trees_reply.log_trees.nr), 1);
	commit.log_trees = x->body.open_log_trees_reply.log_trees;
	seq = le64_get(commit.log_trees.get_trans_seq);
	x = call(w, 1, MSG_commit_log_trees, &commit);
	assert_int_equal(x->err, 0);
	assert_true(le64_get(x->body.commit_log_trees_reply.log_trees.get_trans_seq) > seq);
	x = call(w, 1, MSG_get_roots, NULL);
	assert_true(x->body.get_roots_reply.last_stable_seq >= seq);
	x = call(w, 1, MSG_alloc_inodes, &want);
	assert_int_equal(x->body.alloc_inodes_reply.start, FIRST_INO);
	x = call(w, 1, MSG_statfs, NULL);
	assert_int_equal(x->body.statfs_reply.total_meta, META);
	/* Nothing is used but a few blocks of trees and lists. */
	assert_true(x->body.statfs_reply.free_meta > META - 100);
	assert_int_equal(x->body.statfs_reply.free_data, DATA - DATA_FIRST_BLKNO);
	assert_int_equal(x->body.statfs_reply.inode_count, 1);
	x = call(w, 1, MSG_sync_log_trees, NULL);
	assert_int_equal(x->err, -EOPNOTSUPP);
	/* Who is not mounted is not served. */
	x = call(w, 2, MSG_get_roots, NULL);
	assert_int_equal(x->err, -ENOLINK);
	world_free(w);
}

/* Only for the mount of its own instance, in this term; whoever else asks has to flush first. */
static void a_server_flushes_for_the_mount_that_shares_its_blockd(void **state)
{
	struct world *w = world_make();
	struct msg_commit_unflushed m = { 0 };
	uint64_t flushes, stored;
	struct said *x;

	(void)state;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	m.log_trees = call(w, 1, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	m.term = w->term;
	flushes = w->dev->data_flushes;
	x = call(w, 1, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, -EAGAIN);

	m.log_trees = call(w, OWN_RID, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	m.term = w->term - 1;
	x = call(w, OWN_RID, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, -EAGAIN);
	x = call(w, OWN_RID, MSG_open_log_trees, NULL);
	stored = le64_get(m.log_trees.get_trans_seq);
	assert_int_equal(le64_get(x->body.open_log_trees_reply.log_trees.get_trans_seq), stored);
	assert_int_equal(w->dev->data_flushes, flushes);

	m.term = w->term;
	x = call(w, OWN_RID, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, 0);
	assert_int_equal(le64_get(x->body.commit_log_trees_reply.log_trees.commit_trans_seq), stored);
	assert_true(le64_get(x->body.commit_log_trees_reply.log_trees.get_trans_seq) > stored);
	assert_int_equal(w->dev->data_flushes, flushes + 1);
	/* What comes again is answered, and who has flushed needs none. */
	x = call(w, OWN_RID, MSG_commit_unflushed, &m);
	assert_int_equal(x->err, 0);
	assert_int_equal(le64_get(x->body.commit_log_trees_reply.log_trees.commit_trans_seq), stored);
	{
		struct msg_commit_log_trees plain = { .open_next = 1 };

		flushes = w->dev->data_flushes;
		plain.log_trees = x->body.commit_log_trees_reply.log_trees;
		assert_int_equal(call(w, OWN_RID, MSG_commit_log_trees, &plain)->err, 0);
		assert_int_equal(w->dev->data_flushes, flushes);
	}
	world_free(w);
}

static void a_farewell_is_answered_when_nothing_of_the_mount_is_left(void **state)
{
	struct world *w = world_make();
	struct said *x;

	(void)state;
	assert_int_equal(greet(w, 1, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	call(w, 1, MSG_open_log_trees, NULL);
	x = call(w, 1, MSG_farewell, NULL);
	assert_int_equal(x->err, 0);
	assert_false(is_on_volume(w, 1));
	assert_int_equal(w->s->clients_nr, 0);
	/* Said again, to this server or the next: it has left. */
	assert_int_equal(greet(w, 1, 1, GREETING_FLAG_FAREWELL), GREETING_OK);
	x = call(w, 1, MSG_farewell, NULL);
	assert_int_equal(x->err, 0);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, GREETING_FLAG_FAREWELL), GREETING_OK);
	x = call(w, 1, MSG_farewell, NULL);
	assert_int_equal(x->err, 0);
	world_free(w);
}

static void quorum_members_leave_last_and_together(void **state)
{
	struct world *w = world_make();
	uint64_t h1, h2, h3;

	(void)state;
	w->s->votes_needed = 2;
	assert_int_equal(greet(w, 1, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	assert_int_equal(greet(w, 3, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	assert_int_equal(greet(w, 4, 0, 0), GREETING_OK);
	/* The third is not needed for a majority. */
	assert_int_equal(call(w, 1, MSG_farewell, NULL)->err, 0);
	h2 = ask(w, 2, MSG_farewell, NULL);
	h3 = ask(w, 3, MSG_farewell, NULL);
	/* The other two are, as long as somebody else is mounted. */
	turns(w);
	assert_true(is_on_volume(w, 2) && is_on_volume(w, 3));
	assert_null(find(w, RESPONDED, 2, h2));
	assert_null(find(w, RESPONDED, 3, h3));
	h1 = ask(w, 4, MSG_farewell, NULL);
	WAIT_FOR(w, find(w, RESPONDED, 4, h1) && find(w, RESPONDED, 2, h2) &&
		    find(w, RESPONDED, 3, h3));
	assert_int_equal(w->s->clients_nr, 0);
	assert_false(is_on_volume(w, 2) || is_on_volume(w, 3) || is_on_volume(w, 4));
	world_free(w);
}

static void a_lock_waits_for_mounts_of_before_and_goes_on_without_who_is_fenced(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	for (uint64_t rid = 1; rid <= 3; rid++) {
		assert_int_equal(greet(w, rid, 0, 0), GREETING_OK);
		call(w, rid, MSG_open_log_trees, NULL);
	}
	stop(w);
	dev_power_cut(w->dev);
	w->ours[w->ours_nr++] = 3;	/* a mount of this host before it was started anew */
	start_up(w, 2);
	WAIT_FOR(w, !client_find(w->s, 3));
	assert_false(is_on_volume(w, 3));
	assert_int_equal(w->revoked_nr, 1);
	assert_int_equal(w->revoked[0], 3);
	assert_int_equal(greet(w, 3, 1, 0), GREETING_FENCED);
	assert_int_equal(greet(w, 3, 0, 0), GREETING_FENCED);

	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	assert_non_null(find(w, ASKED, 1, 0));
	/* Until its locks are known it gets no transaction. */
	h = ask(w, 1, MSG_open_log_trees, NULL);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	tell_no_locks(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	h = ask(w, 1, MSG_lock, &want);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));

	/* 2 never comes: it is not of this host, so somebody has to say that it is dead, or its lease must end. */
	pass_time(w, 31);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(server_fence_ack(w->s, 9), -ENOENT);
	assert_int_equal(server_fence_ack(w->s, 1), -ENOENT);
	assert_true(is_on_volume(w, 2));
	assert_int_equal(server_fence_ack(w->s, 2), 0);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->body.lock_reply.new_mode, MSG_LOCK_WRITE);
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(server_fence_ack(w->s, 2), -ENOENT);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	world_free(w);
}

/* Its holder has given the lock back, nothing was written under it, and nobody remembers the number. */
static void a_write_seq_that_nobody_remembers_is_not_granted_again(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t first;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	call(w, 1, MSG_open_log_trees, NULL);
	first = call(w, 1, MSG_lock, &want)->body.lock_reply.write_seq;
	assert_true(first > 0);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	assert_true(call(w, 1, MSG_lock, &want)->body.lock_reply.write_seq > first);
	world_free(w);
}

/* Its leader was fenced by an operator's word; that its mount is the same is no reason to ask again. */
static void who_is_known_to_be_fenced_is_not_waited_for(void **state)
{
	struct world *w = world_make();

	(void)state;
	for (uint64_t rid = 1; rid <= 2; rid++) {
		assert_int_equal(greet(w, rid, 0, 0), GREETING_OK);
		call(w, rid, MSG_open_log_trees, NULL);
	}
	stop(w);
	dev_power_cut(w->dev);
	w->known_fenced = 2;
	start_up(w, 2);
	/* Without the clock going on. */
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->revoked_nr, 1);
	assert_int_equal(w->revoked[0], 2);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	stop(w);
	/* Nor is it let in as a new one by a server that has not given it up itself. */
	start_up(w, 3);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_FENCED);
	assert_false(is_on_volume(w, 2));
	assert_null(client_find(w->s, 2));
	world_free(w);
}

static void a_mount_that_stays_away_is_given_up_and_its_locks_with_it(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->ours[w->ours_nr++] = 2;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	assert_int_equal(call(w, 2, MSG_lock, &want)->err, 0);
	server_on_disconnected(w->s, 2, w->now);
	h = ask(w, 1, MSG_lock, &want);
	assert_non_null(find(w, ASKED, 2, 0));
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_lock_invalidate);
	/* Back in time: nothing happens. */
	w->now += 19 * NSEC_PER_SEC;
	server_dispatch(w->s, w->now);
	server_on_reconnected(w->s, 2);
	w->now += 40 * NSEC_PER_SEC;
	server_dispatch(w->s, w->now);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	/* Away for too long. */
	server_on_disconnected(w->s, 2, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->err, 0);
	assert_non_null(find(w, DROPPED, 2, 0));
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->revoked_nr, 1);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	world_free(w);
}

static void this_instances_own_mount_is_waited_for_while_it_is_alone(void **state)
{
	struct world *w = world_make();

	(void)state;
	w->ours[w->ours_nr++] = OWN_RID;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	server_on_disconnected(w->s, OWN_RID, w->now);
	w->now += 60 * NSEC_PER_SEC;
	WAIT_FOR(w, client_find(w->s, OWN_RID)->state == CLIENT_FENCE_WAIT);
	assert_int_equal(w->revoked_nr, 0);
	/* Its next process is let in again. */
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
	stop(w);
	/* A new server of the same instance waits for it as well. */
	start_up(w, 2);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_EXPECTED);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_OK);
	tell_no_locks(w, OWN_RID);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
	assert_int_equal(call(w, OWN_RID, MSG_farewell, NULL)->err, 0);
	world_free(w);
}

/* It was away while nobody else was there; who comes then needs what it holds. */
static void this_instances_own_mount_is_given_up_when_another_one_comes(void **state)
{
	struct world *w = world_make();

	(void)state;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	server_on_disconnected(w->s, OWN_RID, w->now);
	pass_time(w, 100);
	WAIT_FOR(w, client_find(w->s, OWN_RID)->state == CLIENT_FENCE_WAIT);
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_int_equal(w->own_revoked, 1);
	assert_int_equal(w->revoked_nr, 0);
	assert_false(is_on_volume(w, OWN_RID));
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	world_free(w);
}

/* Its process is stopped, and another mount wants what it has: the lead stays, and blockd refuses that process alone. */
static void this_instances_own_mount_is_given_up_with_its_lease(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	w->own_revoke_err = -EIO;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	call(w, OWN_RID, MSG_lock, &want);
	assert_int_equal(call(w, OWN_RID, MSG_lease, NULL)->err, 0);
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(w->own_revoked, 0);
	pass_time(w, 1);
	/* Nobody gets it before blockd has said so, however often it must be asked. */
	WAIT_FOR(w, client_find(w->s, OWN_RID)->state == CLIENT_FENCE_WAIT);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	w->own_revoke_err = 0;
	assert_null(find(w, RESPONDED, 1, h));
	pass_time(w, 2);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_int_equal(stats_get(&w->stats.reclaimed_open_logs), 1);
	assert_int_equal(w->own_revoked, 2);
	assert_int_equal(w->revoked_nr, 0);
	assert_false(is_on_volume(w, OWN_RID));
	assert_int_equal(server_state(w->s), SERVER_UP);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	world_free(w);
}

/*
 * Its process is stopped, others wait, and this host's blockd is of before it could refuse that process alone: the
 * server and everybody else go on, and so does that mount when it answers after all, or the fence when blockd is replaced.
 */
static void with_an_older_blockd_this_instances_own_mount_is_waited_for(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE), other = lock_of(6, MSG_LOCK_WRITE);
	struct msg_lock_invalidate_reply given = { want.key, MSG_LOCK_WRITE, MSG_LOCK_NULL };
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	w->blockd_is_old = true;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	call(w, OWN_RID, MSG_lock, &want);
	assert_int_equal(call(w, OWN_RID, MSG_lease, NULL)->err, 0);
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 100);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(w->own_revoked, 0);
	assert_int_equal(call(w, 1, MSG_lease, NULL)->err, 0);
	assert_int_equal(call(w, 1, MSG_lock, &other)->err, 0);
	/* It was stopped, and goes on. */
	assert_int_equal(call(w, OWN_RID, MSG_lease, NULL)->err, 0);
	server_on_response(w->s, OWN_RID, 0, 0, MSG_lock_invalidate_reply, &given);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	/* Once more, and blockd is replaced. */
	h = ask(w, OWN_RID, MSG_lock, &want);
	given.key = want.key;
	server_on_response(w->s, 1, 0, 0, MSG_lock_invalidate_reply, &given);
	WAIT_FOR(w, find(w, RESPONDED, OWN_RID, h));
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 100);
	assert_null(find(w, RESPONDED, 1, h));
	w->blockd_is_old = false;
	pass_time(w, 2);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_int_equal(w->own_revoked, 1);
	world_free(w);
}

/* The same, and it is gone for good: an operator says so.  Also where blockd was found to be too old on the way. */
static void with_an_older_blockd_an_operators_word_ends_this_instances_own_mount(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = world_make();

		w->blockd_is_old = i == 0;
		w->own_revoke_err = -EOPNOTSUPP;
		assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
		assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
		server_on_disconnected(w->s, OWN_RID, w->now);
		pass_time(w, 100);
		WAIT_FOR(w, client_find(w->s, OWN_RID)->is_unstoppable);
		assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_FENCE_WAIT);
		assert_int_equal(w->own_revoked, i);
		w->blockd_is_old = true;
		assert_int_equal(server_fence_ack(w->s, OWN_RID), 0);
		WAIT_FOR(w, !client_find(w->s, OWN_RID));
		turns(w);
		assert_false(is_on_volume(w, OWN_RID));
		assert_int_equal(server_state(w->s), SERVER_UP);
		assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
		world_free(w);
	}
}

static void a_new_server_waits_for_its_own_mount_no_longer_than_for_others(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	pass_time(w, 2);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(w->own_revoked, 1);
	world_free(w);
}

/* The server that had blockd refuse it died before that was on the volume. */
static void own_mount_that_an_earlier_server_fenced_does_not_come_back(void **state)
{
	struct world *w = world_make();

	(void)state;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	stop(w);
	w->known_fenced = OWN_RID;
	start_up(w, 2);
	assert_int_equal(greet(w, OWN_RID, 1, 0), GREETING_FENCED);
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	turns(w);
	assert_false(is_on_volume(w, OWN_RID));
	assert_int_equal(w->own_revoked, 1);
	/* Nor does a process that knows of no leader. */
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_FENCED);
	world_free(w);
}

static void a_rid_that_nobody_knows_is_told_that_it_was_fenced(void **state)
{
	struct world *w = world_make();

	(void)state;
	assert_int_equal(greet(w, 7, 1, 0), GREETING_FENCED);
	assert_false(is_on_volume(w, 7));
	world_free(w);
}

static void a_mount_that_lies_of_its_locks_is_given_up(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	struct msg_lock_recover_reply lie = { .locks_nr = 1 };

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_OK);
	lie.locks[0] = (struct msg_lock_held){ want.key, MSG_LOCK_WRITE, 3 };
	server_on_response(w->s, 1, 0, 0, MSG_lock_recover_reply, &lie);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	server_on_response(w->s, 2, 0, 0, MSG_lock_recover_reply, &lie);
	assert_true(client_find(w->s, 2)->is_fenced);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	tell_no_locks(w, 1);
	assert_int_equal(server_fence_ack(w->s, 2), 0);
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	/* An error instead of an answer is no better. */
	server_on_response(w->s, 1, 0, -EIO, MSG_lock_invalidate_reply, NULL);
	assert_true(client_find(w->s, 1)->is_fenced);
	world_free(w);
}

static void the_open_inode_map_waits_for_who_may_have_inodes_open(void **state)
{
	struct world *w = world_make();
	struct msg_open_ino_map want = { .group = 3 };
	struct msg_open_ino_map_query_reply bits = { .bits.bytes[0] = 6 };
	struct said *x;
	uint64_t h;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	h = ask(w, 1, MSG_open_ino_map, &want);
	x = find(w, ASKED, 2, 0);
	assert_non_null(x);
	assert_int_equal(x->body.open_ino_map_query.group, 3);
	server_on_response(w->s, 2, x->handle, 0, MSG_open_ino_map_query_reply, &bits);
	assert_int_equal(find(w, RESPONDED, 1, h)->body.open_ino_map_reply.bits.bytes[0], 6);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	h = ask(w, 1, MSG_open_ino_map, &want);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	/* Given up is not enough: it may still have files open until it is certainly dead. */
	pass_time(w, 31);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	turns(w);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(server_fence_ack(w->s, 2), 0);
	assert_non_null(find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->body.open_ino_map_reply.bits.bytes[0], 0);
	world_free(w);
}

static void a_server_that_cannot_write_stops_and_answers_nothing(void **state)
{
	struct world *w = world_make();
	unsigned said;
	uint64_t h;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	w->dev->crash_at = w->dev->ops + 1;
	h = ask(w, 1, MSG_open_log_trees, NULL);
	said = w->said_nr;
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_int_equal(server_error(w->s), -EIO);
	assert_null(find(w, RESPONDED, 1, h));
	assert_int_equal(w->said_nr, said);
	server_free(w->s);
	w->s = NULL;
	dev_power_cut(w->dev);
	/* The next one has everything that was durable. */
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	assert_int_equal(call(w, 1, MSG_open_log_trees, NULL)->err, 0);
	world_free(w);
}

static void a_term_that_blockd_refuses_is_not_served(void **state)
{
	struct world *w = world_make();

	(void)state;
	stop(w);
	w->term_err = -ESTALE;
	start(w, 3);
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_int_equal(server_error(w->s), -ESTALE);
	assert_false(w->is_listening);
	server_free(w->s);
	w->s = NULL;
	world_free(w);
}

static int forget_mounts(struct txn_job *job, struct txn *t)
{
	struct key key = key_mounted_client(1);

	(void)job;
	return btree_delete(txn_blocks(t), txn_alloc(t), &txn_super(t)->mounted_clients, &key);
}

static void must_succeed(struct txn_job *job, int err)
{
	(void)job;
	assert_int_equal(err, 0);
}

static void abandoned_log_trees_are_finished_at_the_start(void **state)
{
	struct txn_job job = { .run = forget_mounts, .done = must_succeed };
	struct world *w = world_make();
	struct seq_source seq = { 0 };
	struct disk_log_trees lt;
	struct txn_dev dev;
	struct txn *t;
	const char *why;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(call(w, 1, MSG_open_log_trees, NULL)->err, 0);
	stop(w);
	/* As an upstream server may leave it: the log tree without the mounted item. */
	dev = txn_dev_of(w->dev);
	assert_int_equal(txn_open(&t, &dev, &seq, FSID, 64, &why), 0);
	assert_int_equal(txn_run(t, &job), 0);
	txn_close(t);
	start_up(w, 2);
	/* Its rid may not come back as if it were new. */
	assert_int_equal(greet(w, 1, 1, 0), GREETING_FENCED);
	/* The tasks before this one have been done when it is answered. */
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	stop(w);
	assert_int_equal(txn_open(&t, &dev, &seq, FSID, 64, &why), 0);
	assert_int_equal(logs_newest(t, 1, &lt), 0);
	assert_int_equal(le64_get(lt.flags), LOG_TREES_FLAG_FINALIZED);
	txn_close(t);
	world_free(w);
}

/* --- log merges: who waits for whom (gather.c) --- */

/* Items under the open transaction of lt, on the device. */
static void write_items(struct world *w, struct disk_log_trees *lt, unsigned nr)
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

static void write_item(struct world *w, struct disk_log_trees *lt)
{
	write_items(w, lt, 1);
}

static struct disk_log_trees commit_tree(struct world *w, uint64_t rid, const struct disk_log_trees *lt)
{
	struct msg_commit_log_trees m = { .log_trees = *lt, .open_next = 1 };
	struct said *x = call(w, rid, MSG_commit_log_trees, &m);

	assert_int_equal(x->err, 0);
	return x->body.commit_log_trees_reply.log_trees;
}

/*
 * A process sends its commit again to a new server and dies before all locks are known; the next process of the
 * mount asks whether that was stored.  It was not, and may not be stored afterwards: its blocks are used again.
 */
static void what_a_dead_process_asked_is_not_done_after_the_next_one_was_told(void **state)
{
	struct world *w = world_make();
	struct net_greeting again = { .msg = { .fsid = FSID, .fmt_vers = 2, .rid = 1 }, .addr = 0x7f000001,
				      .restarted = true };
	struct msg_commit_log_trees m = { .open_next = 1 };
	struct disk_log_trees lt, told;
	uint64_t commit, opening;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	lt = call(w, 1, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	write_item(w, &lt);
	stop(w);
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	m.log_trees = lt;
	commit = ask(w, 1, MSG_commit_log_trees, &m);
	turns(w);
	assert_null(find(w, RESPONDED, 1, commit));
	w->seen = w->said_nr;
	server_on_greeting(w->s, &again);
	WAIT_FOR(w, find(w, GREETED, 1, 0));
	opening = ask(w, 1, MSG_open_log_trees, NULL);
	tell_no_locks(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	told = find(w, RESPONDED, 1, opening)->body.open_log_trees_reply.log_trees;
	assert_int_equal(le64_get(told.item_root.ref.blkno), 0);
	turns(w);
	told = call(w, 1, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	assert_int_equal(le64_get(told.item_root.ref.blkno), 0);
	assert_null(find(w, RESPONDED, 1, commit));
	world_free(w);
}

static bool merge_runs(struct world *w)
{
	struct txn_view v;

	txn_get_view(worker_txn(w->s->worker), &v);
	return v.merge.is_running;
}

/* Two mounts with open transactions, and the first has committed something that wants a merge. */
static struct world *make_barrier(struct disk_log_trees lt[2])
{
	struct world *w = world_make();

	w->conf.log_merge_wait_timeout_ms = 500;
	for (uint64_t rid = 1; rid <= 2; rid++) {
		assert_int_equal(greet(w, rid, 0, 0), GREETING_OK);
		lt[rid - 1] = call(w, rid, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	}
	turns(w);
	w->s->gather.policy.min_height = 1;
	write_item(w, &lt[0]);
	lt[0] = commit_tree(w, 1, &lt[0]);
	/* It is told that it is stored; its next transaction waits. */
	assert_false(logs_is_open(&lt[0]));
	assert_int_equal(le64_get(lt[0].nr), 2);
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_sync_log_trees);
	assert_null(find(w, ASKED, 1, 0));
	assert_false(merge_runs(w));
	return w;
}

static void a_merge_begins_when_the_last_mount_has_committed(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	uint64_t opening = ask(w, 1, MSG_open_log_trees, NULL);
	struct msg_sync_log_trees_reply none;
	struct said *x;

	(void)state;
	turns(w);
	assert_null(find(w, RESPONDED, 1, opening));
	/* Asked once, however long it takes. */
	assert_null(find(w, ASKED, 2, 0));
	server_on_response(w->s, 2, 0, 0, MSG_sync_log_trees_reply, &none);
	assert_int_equal(stats_get(&w->stats.answers_bad), 0);
	lt[1] = commit_tree(w, 2, &lt[1]);
	assert_true(logs_is_open(&lt[1]));
	assert_true(merge_runs(w));
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	x = find(w, RESPONDED, 1, opening);
	assert_int_equal(x->err, 0);
	assert_true(logs_is_open(&x->body.open_log_trees_reply.log_trees));
	assert_int_equal(stats_get(&w->stats.log_merge_start), 1);
	assert_int_equal(stats_get(&w->stats.log_merge_wait_timeout), 0);
	world_free(w);
}

static void a_mount_that_does_not_commit_delays_others_for_the_timeout_only(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	uint64_t opening = ask(w, 1, MSG_open_log_trees, NULL);
	struct said *x;

	(void)state;
	turns(w);
	w->now += 499 * NSEC_PER_MSEC;
	turns(w);
	assert_null(find(w, RESPONDED, 1, opening));
	w->now += 2 * NSEC_PER_MSEC;
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	x = find(w, RESPONDED, 1, opening);
	lt[0] = x->body.open_log_trees_reply.log_trees;
	assert_true(logs_is_open(&lt[0]));
	assert_false(merge_runs(w));
	assert_int_equal(stats_get(&w->stats.log_merge_wait_timeout), 1);
	/* For a while nobody is bothered again, and no tree is finished for nothing. */
	write_item(w, &lt[0]);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_true(logs_is_open(&lt[0]));
	assert_int_equal(le64_get(lt[0].nr), 2);
	turns(w);
	assert_null(find(w, ASKED, 2, 0));
	/* Then it is tried again. */
	w->now += 6 * NSEC_PER_SEC;
	turns(w);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_false(logs_is_open(&lt[0]));
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_sync_log_trees);
	lt[1] = commit_tree(w, 2, &lt[1]);
	assert_true(merge_runs(w));
	world_free(w);
}

/* It is given up while its next transaction waits: that is opened for nobody. */
static void who_is_given_up_gets_no_tree_any_more(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	struct txn_view v;

	(void)state;
	w->ours[w->ours_nr++] = 1;
	ask(w, 1, MSG_open_log_trees, NULL);
	turns(w);
	server_on_disconnected(w->s, 1, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, !client_find(w->s, 1));
	turns(w);
	txn_get_view(worker_txn(w->s->worker), &v);
	assert_int_equal(v.mounted_nr, 1);
	assert_int_equal(v.open_trees_nr, 1);
	assert_int_equal(v.finished_trees_nr, 2);
	world_free(w);
}

/* Nobody writes any more, and what was written wants a merge. */
static void a_merge_that_is_wanted_begins_without_load(void **state)
{
	struct world *w = world_make();
	struct disk_log_trees lt;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	lt = call(w, 1, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	write_item(w, &lt);
	lt = commit_tree(w, 1, &lt);
	assert_true(logs_is_open(&lt));
	w->s->gather.policy.min_height = 1;
	turns(w);
	assert_null(find(w, ASKED, 1, 0));
	w->now += 10 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(find(w, ASKED, 1, 0)->type, MSG_sync_log_trees);
	lt = commit_tree(w, 1, &lt);
	assert_true(logs_is_open(&lt));
	assert_true(merge_runs(w));
	world_free(w);
}

/* Nothing wants a merge, but nobody has written for long, and there is more than a block to gain. */
static void what_lies_in_log_trees_is_merged_when_nobody_writes(void **state)
{
	struct world *w = world_make();
	struct disk_log_trees lt;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	lt = call(w, 1, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	write_item(w, &lt);
	lt = commit_tree(w, 1, &lt);
	turns(w);
	w->now += 16 * NSEC_PER_SEC;
	turns(w);
	w->now += 4 * NSEC_PER_SEC;
	turns(w);
	assert_null(find(w, ASKED, 1, 0));
	write_items(w, &lt, 3000);
	assert_int_equal(lt.item_root.height, 2);
	lt = commit_tree(w, 1, &lt);
	turns(w);
	w->now += 14 * NSEC_PER_SEC;
	turns(w);
	assert_null(find(w, ASKED, 1, 0));
	w->now += 2 * NSEC_PER_SEC;
	turns(w);
	w->now += 4 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(find(w, ASKED, 1, 0)->type, MSG_sync_log_trees);
	lt = commit_tree(w, 1, &lt);
	assert_true(merge_runs(w));
	world_free(w);
}

/* --- leases --- */

static void a_lost_mounts_lease_is_waited_for_and_nobody_is_asked(void **state)
{
	struct world *w = world_make();
	uint64_t given;
	struct said *x;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	w->now += 50 * NSEC_PER_SEC;
	x = call(w, 2, MSG_lease, NULL);
	assert_int_equal(x->err, 0);
	assert_int_equal(x->body.lease_reply.lease_ms, 10000);
	given = w->now;
	server_on_disconnected(w->s, 2, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	/* Given up is given up. */
	assert_int_equal(call(w, 2, MSG_lease, NULL)->err, -ENOLINK);
	/* Its lease, the drift of clocks, the longest write: 40.2 s. */
	w->now = given + 40 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_FENCE_WAIT);
	assert_true(is_on_volume(w, 2));
	w->now = given + 41 * NSEC_PER_SEC;
	WAIT_FOR(w, !client_find(w->s, 2));
	turns(w);
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->stats.fence_lapses, 1);
	/* And it may not come back. */
	assert_int_equal(greet(w, 2, 1, 0), GREETING_FENCED);
	world_free(w);
}

/* It may be of an implementation that knows no leases, or of a leader that gave them without end. */
static void who_has_not_greeted_us_is_not_given_up_by_time(void **state)
{
	struct world *w = world_make();

	(void)state;
	/* Of an implementation that writes nothing of leases into their items. */
	w->conf.lease_ms = 0;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	stop(w);
	w->conf.lease_ms = 10000;
	start_up(w, 2);
	/* This one has, and then stays away: an earlier leader may have given it the longest lease. */
	assert_int_equal(greet(w, 2, 1, 0), GREETING_OK);
	pass_time(w, 31);
	WAIT_FOR(w, client_find(w->s, 1)->state == CLIENT_FENCE_WAIT);
	WAIT_FOR(w, client_find(w->s, 2)->state == CLIENT_FENCE_WAIT);
	w->now += 29 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_FENCE_WAIT);
	w->now += 1000 * NSEC_PER_SEC;
	WAIT_FOR(w, !client_find(w->s, 2));
	turns(w);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_FENCE_WAIT);
	assert_true(is_on_volume(w, 1));
	assert_int_equal(server_fence_ack(w->s, 1), 0);
	WAIT_FOR(w, !client_find(w->s, 1));
	world_free(w);
}

static struct said *answer_of(struct world *w, uint64_t rid, uint64_t handle)
{
	turns(w);
	return find(w, RESPONDED, rid, handle);
}

/* The volume says how long its leases are. */
static void who_never_greeted_us_is_over_with_the_leases_that_the_volume_tells_of(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(1, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	call(w, 2, MSG_open_log_trees, NULL);
	stop(w);
	w->conf.lease_ms = 20000;
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	h = ask(w, 1, MSG_lock, &want);
	/* 10 s of its first leader, not 20 of this one; the drift; the longest write. */
	pass_time(w, 6);
	assert_int_equal(call(w, 1, MSG_lease, NULL)->err, 0);
	pass_time(w, 6);
	assert_null(answer_of(w, 1, h));
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	assert_int_equal(w->stats.fence_acks, 0);
	/* Nor is a mount given longer ones than the volume says. */
	assert_int_equal(call(w, 1, MSG_lease, NULL)->body.lease_reply.lease_ms, 10000);
	world_free(w);
}

/* The leader before has been waited out, and its mount with it; not so what that had from another. */
static void the_mount_of_a_leader_that_was_waited_out_is_not_waited_for_again(void **state)
{
	struct world *w = world_make();

	(void)state;
	w->conf.longest_io_ms = 1000;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	stop(w);
	w->lapsed_rid = 1;
	w->lapsed_led_ms = 9000;
	start_up(w, 2);
	pass_time(w, 10);
	turns(w);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	stop(w);
	w->lapsed_led_ms = 11000;
	start_up(w, 3);
	pass_time(w, 1);
	turns(w);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	pass_time(w, 3);
	WAIT_FOR(w, !client_find(w->s, 1));
	world_free(w);
}

static void who_is_waited_for_is_given_up_with_its_lease_and_nobody_else(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	for (uint64_t rid = 1; rid <= 3; rid++)
		assert_int_equal(greet(w, rid, 0, 0), GREETING_OK);
	call(w, 2, MSG_lock, &want);
	assert_int_equal(call(w, 2, MSG_lease, NULL)->err, 0);
	assert_int_equal(call(w, 3, MSG_lease, NULL)->err, 0);
	/* Both are silent from now on, and connected: their processes may be stopped. */
	h = ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	assert_null(answer_of(w, 1, h));
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(is_on_volume(w, 2));
	pass_time(w, 100);
	assert_int_equal(client_find(w->s, 3)->state, CLIENT_UP);
	/* Who has come back in time loses nothing: here when the lease was over, and nobody wanted anything. */
	assert_int_equal(call(w, 3, MSG_lease, NULL)->err, 0);
	world_free(w);
}

static void who_waits_for_a_silent_mounts_file_lock_gets_it_with_its_lease(void **state)
{
	struct world *w = world_make();
	struct msg_adv_lock m = { .number = 1, .kind = MSG_ADV_FLOCK, .type = MSG_ADV_WRITE, .ino = 77, .owner = 5,
				  .last = UINT64_MAX, .pid = 9 };
	uint64_t h;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	for (uint64_t rid = 1; rid <= 3; rid++)
		assert_int_equal(greet(w, rid, 0, 0), GREETING_OK);
	assert_int_equal(call(w, 2, MSG_adv_lock, &m)->body.adv_lock_reply.status, MSG_ADV_GRANTED);
	m.ino = 78;
	assert_int_equal(call(w, 3, MSG_adv_lock, &m)->body.adv_lock_reply.status, MSG_ADV_GRANTED);
	assert_int_equal(call(w, 2, MSG_lease, NULL)->err, 0);
	assert_int_equal(call(w, 3, MSG_lease, NULL)->err, 0);
	/* Both are silent from now on; what 3 has nobody wants. */
	m.ino = 77;
	m.wait = 1;
	h = ask(w, 1, MSG_adv_lock, &m);
	pass_time(w, 12);
	assert_null(answer_of(w, 1, h));
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, h));
	assert_int_equal(find(w, RESPONDED, 1, h)->body.adv_lock_reply.status, MSG_ADV_GRANTED);
	pass_time(w, 100);
	assert_int_equal(client_find(w->s, 3)->state, CLIENT_UP);
	world_free(w);
}

static void a_merge_waits_for_a_silent_mount_no_longer_than_its_lease(void **state)
{
	struct disk_log_trees lt[2];
	struct world *w = make_barrier(lt);
	struct said *x;
	uint64_t opening;

	(void)state;
	w->conf.longest_io_ms = 2000;
	w->conf.client_timeout_ms = 600000;
	assert_int_equal(call(w, 2, MSG_lease, NULL)->err, 0);
	opening = ask(w, 1, MSG_open_log_trees, NULL);
	/* It has something that is not committed and says nothing any more. */
	turns(w);
	pass_time(w, 1);
	WAIT_FOR(w, find(w, RESPONDED, 1, opening));
	x = find(w, RESPONDED, 1, opening);
	lt[0] = x->body.open_log_trees_reply.log_trees;
	pass_time(w, 11);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	pass_time(w, 1);
	WAIT_FOR(w, !client_find(w->s, 2));
	assert_false(merge_runs(w));
	pass_time(w, 10);
	lt[0] = commit_tree(w, 1, &lt[0]);
	assert_true(merge_runs(w));
	/* Work of the merge that a mount has taken is another's when that one is silent. */
	assert_int_equal(greet(w, 3, 0, 0), GREETING_OK);
	assert_int_equal(call(w, 3, MSG_lease, NULL)->err, 0);
	assert_true(call(w, 3, MSG_get_log_merge, NULL)->body.get_log_merge_reply.has_work);
	assert_false(call(w, 1, MSG_get_log_merge, NULL)->body.get_log_merge_reply.has_work);
	pass_time(w, 12);
	turns(w);
	assert_non_null(client_find(w->s, 3));
	pass_time(w, 1);
	WAIT_FOR(w, !client_find(w->s, 3));
	turns(w);
	assert_true(call(w, 1, MSG_get_log_merge, NULL)->body.get_log_merge_reply.has_work);
	world_free(w);
}

static void silence_does_not_count_while_the_server_itself_was_away(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);

	(void)state;
	w->conf.longest_io_ms = 2000;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	call(w, 2, MSG_lock, &want);
	assert_int_equal(call(w, 2, MSG_lease, NULL)->err, 0);
	ask(w, 1, MSG_lock, &want);
	/* Stopped, and what 2 has sent meanwhile is not read yet. */
	w->now += 60 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	assert_int_equal(call(w, 2, MSG_lease, NULL)->err, 0);
	pass_time(w, 9);
	/* And while it could give nobody a lease. */
	w->lease_until_ns = w->now;
	pass_time(w, 60);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	w->lease_until_ns = UINT64_MAX;
	pass_time(w, 2);
	assert_int_equal(client_find(w->s, 2)->state, CLIENT_UP);
	pass_time(w, 2);
	WAIT_FOR(w, !client_find(w->s, 2));
	world_free(w);
}

/* Or whoever has waited for the end of the server's right would have to wait for its mount as well. */
static void the_servers_own_mount_gets_no_lease_beyond_its_own(void **state)
{
	struct world *w = world_make();

	(void)state;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	w->lease_until_ns = w->now + 4 * NSEC_PER_SEC;
	assert_int_equal(call(w, OWN_RID, MSG_lease, NULL)->body.lease_reply.lease_ms, 4000);
	assert_int_equal(call(w, 1, MSG_lease, NULL)->body.lease_reply.lease_ms, 10000);
	w->lease_until_ns = w->now + NSEC_PER_SEC / 2;
	assert_int_equal(call(w, OWN_RID, MSG_lease, NULL)->err, -EAGAIN);
	w->lease_until_ns = w->now + 20 * NSEC_PER_SEC;
	assert_int_equal(call(w, OWN_RID, MSG_lease, NULL)->body.lease_reply.lease_ms, 10000);
	world_free(w);
}

/* Its lease is short only because the server's right is: it is not given up for silence any sooner for that. */
static void the_servers_own_mount_may_be_silent_as_long_as_others(void **state)
{
	struct world *w = world_make();
	struct msg_lock want = lock_of(5, MSG_LOCK_WRITE);

	(void)state;
	w->conf.longest_io_ms = 2000;
	assert_int_equal(greet(w, OWN_RID, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	call(w, OWN_RID, MSG_lock, &want);
	pass_time(w, 40);
	w->lease_until_ns = w->now + 3 * NSEC_PER_SEC;
	assert_int_equal(call(w, OWN_RID, MSG_lease, NULL)->body.lease_reply.lease_ms, 3000);
	w->lease_until_ns = UINT64_MAX;
	ask(w, 1, MSG_lock, &want);
	pass_time(w, 12);
	turns(w);
	assert_int_equal(client_find(w->s, OWN_RID)->state, CLIENT_UP);
	pass_time(w, 1);
	WAIT_FOR(w, !client_find(w->s, OWN_RID));
	world_free(w);
}

static void a_server_whose_own_lease_is_over_gives_none(void **state)
{
	struct world *w = world_make();

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	w->lease_until_ns = w->now + 1;
	assert_int_equal(call(w, 1, MSG_lease, NULL)->err, 0);
	w->now++;
	assert_int_equal(call(w, 1, MSG_lease, NULL)->err, -EAGAIN);
	assert_int_equal(w->stats.leases_given, 1);
	assert_int_equal(w->stats.leases_refused, 1);
	world_free(w);
}

static void a_fence_that_failed_stops_the_server_and_the_next_one_asks_again(void **state)
{
	struct world *w = world_make();

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(server_fence_fail(w->s, 1), -ENOENT);
	server_on_disconnected(w->s, 1, w->now);
	w->now += 21 * NSEC_PER_SEC;
	WAIT_FOR(w, client_find(w->s, 1)->state == CLIENT_FENCE_WAIT);
	assert_int_equal(server_fence_fail(w->s, 9), -ENOENT);
	assert_int_equal(server_fence_fail(w->s, 1), 0);
	WAIT_FOR(w, server_state(w->s) == SERVER_DOWN);
	assert_int_equal(server_error(w->s), -EHOSTUNREACH);
	server_free(w->s);
	w->s = NULL;
	start_up(w, 2);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_EXPECTED);
	assert_true(is_on_volume(w, 1));
	world_free(w);
}

static uint64_t stable_seq(struct world *w)
{
	struct txn_view v;

	txn_get_view(worker_txn(w->s->worker), &v);
	return v.last_stable_seq;
}

static void what_one_mount_commits_is_not_hidden_by_idle_ones(void **state)
{
	struct world *w = world_make();
	struct disk_log_trees lt[3];
	uint64_t seq = 0;

	(void)state;
	for (uint64_t rid = 1; rid <= 3; rid++) {
		assert_int_equal(greet(w, rid, 0, 0), GREETING_OK);
		lt[rid - 1] = call(w, rid, MSG_open_log_trees, NULL)->body.open_log_trees_reply.log_trees;
	}
	/* Where nothing has changed nobody is asked. */
	w->seen = w->said_nr;
	for (unsigned i = 0; i < 3; i++) {
		w->now += 2 * NSEC_PER_SEC;
		turns(w);
	}
	assert_true(!find(w, ASKED, 1, 0) && !find(w, ASKED, 2, 0) && !find(w, ASKED, 3, 0));
	seq = le64_get(lt[2].get_trans_seq);
	write_item(w, &lt[2]);
	lt[2] = commit_tree(w, 3, &lt[2]);
	assert_true(stable_seq(w) < seq);
	w->now += 2 * NSEC_PER_SEC;
	turns(w);
	assert_int_equal(find(w, ASKED, 1, 0)->type, MSG_sync_log_trees);
	assert_int_equal(find(w, ASKED, 2, 0)->type, MSG_sync_log_trees);
	assert_null(find(w, ASKED, 3, 0));
	/* Who does not answer that is not given up for it. */
	assert_int_equal(client_find(w->s, 1)->unanswered, 0);
	for (unsigned i = 0; i < 2; i++)
		lt[i] = commit_tree(w, i + 1, &lt[i]);
	assert_true(stable_seq(w) >= seq);
	/* And empty commits bring no others. */
	w->seen = w->said_nr;
	w->now += 2 * NSEC_PER_SEC;
	turns(w);
	assert_true(!find(w, ASKED, 1, 0) && !find(w, ASKED, 2, 0) && !find(w, ASKED, 3, 0));
	world_free(w);
}

/* As a tool asks, beside the loop. */
static int ask_cluster(struct world *w, unsigned type, const void *msg, union msg_body *reply)
{
	int ret = cluster_answer(w->s, type, msg, w->now, reply);

	if (ret == 0)
		assert_int_equal(msg_check(msg_reply_type(type), reply), 0);
	return ret;
}

static void mounts_and_waits_of_the_cluster_are_told_and_bounded(void **state)
{
	struct world *w = world_make();
	struct msg_cluster_mounts page = { 0 };
	struct msg_lock want = lock_of(7, MSG_LOCK_WRITE);
	const struct msg_cluster_mounts_reply *m;
	const struct msg_cluster_wait *x;
	union msg_body *r = malloc(sizeof(*r));
	unsigned told = 0;
	uint64_t left;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	assert_int_equal(call(w, 1, MSG_lock, &want)->err, 0);
	ask(w, 2, MSG_lock, &want);
	w->now += 3 * NSEC_PER_SEC;
	assert_int_equal(ask_cluster(w, MSG_cluster_waits, NULL, r), 0);
	assert_int_equal(r->cluster_waits_reply.waits_nr, 1);
	x = &r->cluster_waits_reply.waits[0];
	assert_true(x->rid == 2 && x->mode == MSG_LOCK_WRITE && x->key.first == 7 * 1024);
	assert_true(x->holder == 1 && x->holders == 1 && x->holder_mode == MSG_LOCK_WRITE);
	assert_true(x->since_ms == 3000 && x->asked_ms == 3000);

	/* A mount asks the same over the network. */
	memcpy(r, &call(w, 2, MSG_cluster_status, NULL)->body, sizeof(*r));
	assert_true(r->cluster_status_reply.mounts == 2 && r->cluster_status_reply.term == 1);
	assert_true(r->cluster_status_reply.locks_waiting == 1 && r->cluster_status_reply.locks_revoking == 1);
	assert_true(r->cluster_status_reply.total_meta == META && r->cluster_status_reply.fsid == FSID);

	/* More than a page, and in whatever order they came. */
	for (uint64_t i = 0; i < 2 * CLUSTER_MOUNTS_MAX; i++) {
		struct mount_info info = { .rid = 10 + (i * 37) % (2 * CLUSTER_MOUNTS_MAX), .addr = 0x0a000001 };

		assert_int_equal(client_expect(w->s, &info, NULL), 0);
	}
	left = 2 * CLUSTER_MOUNTS_MAX + 2;
	do {
		assert_int_equal(ask_cluster(w, MSG_cluster_mounts, &page, r), 0);
		m = &r->cluster_mounts_reply;
		assert_true(m->mounts_nr > 0);
		for (uint32_t i = 0; i < m->mounts_nr; i++, told++) {
			assert_true(m->mounts[i].rid > page.after);
			page.after = m->mounts[i].rid;
			assert_int_equal(m->mounts[i].is_well, page.after <= 2);
			assert_int_equal(m->mounts[i].is_quorum, page.after == 2);
		}
		left -= m->mounts_nr;
		assert_true(m->left == left);
	} while (left);
	assert_int_equal(told, 2 * CLUSTER_MOUNTS_MAX + 2);
	assert_int_equal(ask_cluster(w, MSG_cluster_waits, NULL, r), 0);
	assert_true(r->cluster_waits_reply.is_recovering);
	assert_int_equal(ask_cluster(w, MSG_statfs, NULL, r), -EOPNOTSUPP);
	stop(w);
	start(w, 2);
	assert_int_equal(ask_cluster(w, MSG_cluster_status, NULL, r), -EAGAIN);
	WAIT_FOR(w, server_state(w->s) == SERVER_UP);
	free(r);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mount_is_let_in_when_its_item_is_durable),
		cmocka_unit_test(a_server_flushes_for_the_mount_that_shares_its_blockd),
		cmocka_unit_test(a_farewell_is_answered_when_nothing_of_the_mount_is_left),
		cmocka_unit_test(a_merge_begins_when_the_last_mount_has_committed),
		cmocka_unit_test(a_mount_that_does_not_commit_delays_others_for_the_timeout_only),
		cmocka_unit_test(who_is_given_up_gets_no_tree_any_more),
		cmocka_unit_test(a_merge_that_is_wanted_begins_without_load),
		cmocka_unit_test(what_lies_in_log_trees_is_merged_when_nobody_writes),
		cmocka_unit_test(quorum_members_leave_last_and_together),
		cmocka_unit_test(a_lock_waits_for_mounts_of_before_and_goes_on_without_who_is_fenced),
		cmocka_unit_test(a_write_seq_that_nobody_remembers_is_not_granted_again),
		cmocka_unit_test(who_is_known_to_be_fenced_is_not_waited_for),
		cmocka_unit_test(a_mount_that_stays_away_is_given_up_and_its_locks_with_it),
		cmocka_unit_test(this_instances_own_mount_is_waited_for_while_it_is_alone),
		cmocka_unit_test(this_instances_own_mount_is_given_up_when_another_one_comes),
		cmocka_unit_test(this_instances_own_mount_is_given_up_with_its_lease),
		cmocka_unit_test(with_an_older_blockd_this_instances_own_mount_is_waited_for),
		cmocka_unit_test(with_an_older_blockd_an_operators_word_ends_this_instances_own_mount),
		cmocka_unit_test(a_new_server_waits_for_its_own_mount_no_longer_than_for_others),
		cmocka_unit_test(own_mount_that_an_earlier_server_fenced_does_not_come_back),
		cmocka_unit_test(who_waits_for_a_silent_mounts_file_lock_gets_it_with_its_lease),
		cmocka_unit_test(a_merge_waits_for_a_silent_mount_no_longer_than_its_lease),
		cmocka_unit_test(what_a_dead_process_asked_is_not_done_after_the_next_one_was_told),
		cmocka_unit_test(a_rid_that_nobody_knows_is_told_that_it_was_fenced),
		cmocka_unit_test(a_mount_that_lies_of_its_locks_is_given_up),
		cmocka_unit_test(the_open_inode_map_waits_for_who_may_have_inodes_open),
		cmocka_unit_test(a_server_that_cannot_write_stops_and_answers_nothing),
		cmocka_unit_test(a_term_that_blockd_refuses_is_not_served),
		cmocka_unit_test(abandoned_log_trees_are_finished_at_the_start),
		cmocka_unit_test(a_lost_mounts_lease_is_waited_for_and_nobody_is_asked),
		cmocka_unit_test(who_has_not_greeted_us_is_not_given_up_by_time),
		cmocka_unit_test(who_never_greeted_us_is_over_with_the_leases_that_the_volume_tells_of),
		cmocka_unit_test(the_mount_of_a_leader_that_was_waited_out_is_not_waited_for_again),
		cmocka_unit_test(who_is_waited_for_is_given_up_with_its_lease_and_nobody_else),
		cmocka_unit_test(silence_does_not_count_while_the_server_itself_was_away),
		cmocka_unit_test(the_servers_own_mount_gets_no_lease_beyond_its_own),
		cmocka_unit_test(the_servers_own_mount_may_be_silent_as_long_as_others),
		cmocka_unit_test(a_server_whose_own_lease_is_over_gives_none),
		cmocka_unit_test(a_fence_that_failed_stops_the_server_and_the_next_one_asks_again),
		cmocka_unit_test(what_one_mount_commits_is_not_hidden_by_idle_ones),
		cmocka_unit_test(mounts_and_waits_of_the_cluster_are_told_and_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
