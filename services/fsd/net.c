/*
 * The session with the leader: finding it, asking it, answering it.  runtime.md 1.6, 3, 17.
 *
 * Promises: every request of the leader gets exactly one answer; grants and revokes reach the lock
 * table in the order in which they arrived; nothing here blocks the session's home thread but the
 * look for a leader, which reads 64 KiB.
 *
 * The session itself (numbers, resending, other servers) is net_client's.
 */
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "advisory.h"
#include "blkcli.h"
#include "btree/btree.h"
#include "clock.h"
#include "fenced.h"
#include "format/super.h"
#include "gonedir.h"
#include "keep.h"
#include "lease.h"
#include "log.h"
#include "net_client.h"
#include "op.h"
#include "orphan.h"
#include "shortcut.h"
#include "txn.h"

#define GREET_SAY_MS	10000u
#define FAREWELL_MS	120000u
#define LOCK_RETRY_MS	100u

struct session_net {
	struct fsd *fsd;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool greeted;		/* once at least */
	bool answers_maps;
	bool is_ours;		/* the leader that is greeted next is of our slot */
	uint64_t own_term;	/* net_own_term() */
	struct shortcut *shortcut;
	uint64_t started_ns;
	char why_none[128];	/* who is waited for, in words */
};

/* ---- the leader's address ------------------------------------------------------------------ */

struct first_blocks {
	struct disk_super super;
	struct disk_quorum_block slots[QUORUM_SLOTS_MAX];
};
static_assert(sizeof(struct first_blocks) == LARGE_SIZE,
	      "the super and the slots lie side by side");
static_assert(QUORUM_FIRST_BLKNO == SUPER_BLKNO + 1, "the super and the slots lie side by side");

static int read_first_blocks(struct fsd *fsd, struct first_blocks *fb)
{
	struct blkcli_op op = { .op = BLK_OP_READ,
				.dev = BLK_DEV_META,
				.dev_off = SUPER_BLKNO << SMALL_SHIFT,
				.len = sizeof(*fb),
				.buf = fb };
	const char *why;
	int ret = blkcli_run(fsd->blk, &op, 1);

	if (ret == 0)
		ret = super_check(&fb->super, &why);
	if (ret == 0 && (le64_get(fb->super.hdr.fsid) != fsd->fsid ||
			 le64_get(fb->super.fmt_vers) != fsd->fmt_vers))
		ret = -ESTALE;
	return ret;
}

static void say_none(struct session_net *s, const char *why)
{
	pthread_mutex_lock(&s->lock);
	snprintf(s->why_none, sizeof(s->why_none), "%s", why);
	pthread_mutex_unlock(&s->lock);
}

static int resolve(void *arg, char *buf, size_t size)
{
	struct session_net *s = arg;
	struct first_blocks *fb = malloc(sizeof(*fb));
	const struct disk_inet_addr *a;
	uint64_t best = 0, elect;
	int slot = -1, ret;
	char words[128];
	const char *why;
	uint32_t ip;

	if (!fb)
		return -ENOMEM;
	ret = read_first_blocks(s->fsd, fb);
	if (ret < 0) {
		say_none(s, "a leader (the super block cannot be read)");
		goto out;
	}
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (!quorum_slot_is_configured(&fb->super.qconf, i) ||
		    quorum_block_check(&fb->slots[i], i, s->fsd->fsid, &why) < 0 ||
		    !quorum_block_is_elected(&fb->slots[i]))
			continue;
		elect = le64_get(fb->slots[i].events[QUORUM_EVENT_ELECT].term);
		if (elect > best) {
			best = elect;
			slot = (int)i;
		}
	}
	ret = -EAGAIN;
	if (slot < 0) {
		say_none(s, "a leader (no member of the quorum leads)");
		goto out;
	}
	pthread_mutex_lock(&s->lock);
	s->is_ours = slot == s->fsd->conf.quorum_slot;
	pthread_mutex_unlock(&s->lock);
	a = &fb->super.qconf.slots[slot];
	ip = le32_get(a->addr);
	if (!s->fsd->keys && ip >> 24 != 127 && !s->fsd->conf.insecure) {
		say_none(s, "keys: the leader's address is not loopback (scoutfsctl keygen, or insecure = yes)");
		log_err("the leader is at %u.%u.%u.%u, which is not loopback, and this node has no keys: make one with "
			"scoutfsctl keygen and add it to the lists, or if that network is trusted set insecure = yes",
			ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
		ret = -EPERM;
		goto out;
	}
	if ((size_t)snprintf(buf, size, "tcp://%u.%u.%u.%u:%u", ip >> 24, ip >> 16 & 255,
			     ip >> 8 & 255, ip & 255, le16_get(a->port)) < size)
		ret = 0;
	snprintf(words, sizeof(words), "the leader of term %llu at %u.%u.%u.%u:%u, which does not answer",
		 (unsigned long long)best, ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255,
		 le16_get(a->port));
	say_none(s, words);
out:
	free(fb);
	return ret;
}

/* Whether our mounted_clients item is gone from the device, so that a farewell was heard
 * (runtime 3.4). */
static int is_gone(void *arg)
{
	struct session_net *s = arg;
	struct fsd *fsd = s->fsd;
	struct block_dev dev = blkcli_block_dev(fsd->blk);
	struct first_blocks *fb = malloc(sizeof(*fb));
	struct key key = key_mounted_client(fsd->rid);
	struct btree_ref ref;
	struct block_set *bs;
	int ret;

	if (!fb)
		return -ENOMEM;
	ret = read_first_blocks(fsd, fb);
	if (ret == 0)
		ret = block_set_open(&bs, &dev, fsd->fsid, le64_get(fb->super.total_meta_blocks),
				     4);
	if (ret == 0) {
		ret = btree_lookup(bs, &fb->super.mounted_clients, &key, &ref);
		if (ret == 0)
			btree_put(bs, &ref);
		block_set_close(bs);
		ret = ret == -ENOENT ? 1 : ret == 0 ? 0 : -EAGAIN;
	}
	free(fb);
	return ret;
}

/* ---- what the leader says ------------------------------------------------------------------ */

static void on_greeted(void *arg, uint64_t term, bool new_server)
{
	struct session_net *s = arg;

	log_debug("greeted by the leader of term %llu", (unsigned long long)term);
	(void)new_server;
	/*
	 * By the server of this host when that led, which this leader has not heard of: blockd here refuses every write, or will
	 * in a moment, for the server that led notes it before it asks blockd.
	 */
	if (fenced_has(&s->fsd->conf, s->fsd->rid) == 1)
		fsd_fenced(s->fsd);
	atomic_store(&s->fsd->keep->head->term, term);
	lease_greeted(s->fsd, term);
	pthread_mutex_lock(&s->lock);
	s->greeted = true;
	s->own_term = s->is_ours ? term : 0;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

/* Its leader may be one no more, and not know it. */
static void on_disconnected(void *arg)
{
	struct session_net *s = arg;

	pthread_mutex_lock(&s->lock);
	s->own_term = 0;
	pthread_mutex_unlock(&s->lock);
}

static void on_fenced(void *arg)
{
	struct session_net *s = arg;

	fsd_fenced(s->fsd);
}

static void answer_recover(struct fsd *fsd, struct net_req *req, const struct msg_lock_recover *m)
{
	struct msg_lock_recover_reply *reply = calloc(1, sizeof(*reply));
	struct lock_state *held = calloc(LOCK_RECOVER_MAX, sizeof(*held));

	if (!reply || !held)
		fsd_fail(fsd, "out of memory");
	reply->locks_nr = (uint32_t)locks_recover(fsd, &m->key, held, LOCK_RECOVER_MAX);
	for (uint32_t i = 0; i < reply->locks_nr; i++) {
		reply->locks[i].key = held[i].key;
		reply->locks[i].mode = held[i].mode;
		reply->locks[i].write_seq = held[i].write_seq;
	}
	net_client_respond(fsd->net, req, 0, MSG_lock_recover_reply, reply);
	free(reply);
	free(held);
}

void net_answer_maps(struct fsd *fsd, bool on)
{
	pthread_mutex_lock(&fsd->session->lock);
	fsd->session->answers_maps = on;
	pthread_mutex_unlock(&fsd->session->lock);
}

struct map_query {
	struct session_net *s;
	struct net_req *req;
	uint64_t group;
	bool has_directories;
};

static void answer_map(void *arg)
{
	struct msg_open_ino_map_query_reply reply = { 0 };
	struct map_query *q = arg;
	struct session_net *s = q->s;
	struct fsd *fsd = s->fsd;
	bool answers;

	static_assert(sizeof(reply.bits) == 128, "a bit for each inode of a group");
	pthread_mutex_lock(&s->lock);
	answers = s->answers_maps;
	pthread_mutex_unlock(&s->lock);
	if (answers)
		inode_use_map(fsd, q->group, (uint8_t *)&reply.bits);
	else if (atomic_load(&fsd->is_resumed))
		memset(&reply.bits, 0xff, sizeof(reply.bits));	/* it is not known yet */
	net_client_respond(fsd->net, q->req, 0, MSG_open_ino_map_query_reply, &reply);
	if (q->has_directories)
		gonedir_asked(q->group);
	free(q);
}

static void take_map_query(struct session_net *s, struct net_req *req,
			   const struct msg_open_ino_map_query *m)
{
	struct map_query *q = malloc(sizeof(*q));

	if (!q)
		fsd_fail(s->fsd, "out of memory");
	*q = (struct map_query){ .s = s, .req = req, .group = m->group, .has_directories = m->has_directories };
	/* The kernel may have to be asked, which this thread must not wait for. */
	if (atomic_load(&s->fsd->is_resumed))
		ops_defer(s->fsd, answer_map, q);
	else
		answer_map(q);
}

static void on_request(void *arg, struct net_req *req, unsigned type, const void *msg)
{
	struct session_net *s = arg;
	struct fsd *fsd = s->fsd;
	const struct msg_lock_invalidate *inv;

	switch (type) {
	case MSG_lock_invalidate:
		inv = msg;
		locks_invalidate(fsd, req, &inv->key, inv->old_mode, inv->new_mode);
		break;
	case MSG_lock_recover:
		answer_recover(fsd, req, msg);
		break;
	case MSG_open_ino_map_query:
		take_map_query(s, req, msg);
		break;
	case MSG_adv_recover:
		advisory_tell(fsd, req, msg);
		break;
	case MSG_sync_log_trees:
		txn_sync_now(fsd);
		net_client_respond(fsd->net, req, 0, MSG_sync_log_trees_reply, NULL);
		break;
	default:
		net_client_respond(fsd->net, req, -EOPNOTSUPP, 0, NULL);
	}
}

void net_invalidate_respond(struct fsd *fsd, struct net_req *req, const struct key *key,
			    uint8_t old_mode, uint8_t new_mode)
{
	struct msg_lock_invalidate_reply reply = { .key = *key,
						   .old_mode = old_mode,
						   .new_mode = new_mode };

	net_client_respond(fsd->net, req, 0, MSG_lock_invalidate_reply, &reply);
}

/* ---- locks --------------------------------------------------------------------------------- */

struct lock_call {
	struct fsd *fsd;
	struct msg_lock msg;
};

static void send_lock(struct lock_call *c);

static void retry_lock(void *arg)
{
	nanosleep(&(struct timespec){ .tv_nsec = LOCK_RETRY_MS * 1000000l }, NULL);
	send_lock(arg);
}

static void lock_done(void *arg, int err, unsigned type, const void *reply)
{
	struct lock_call *c = arg;
	const struct msg_lock_reply *m = reply;
	struct forest_roots roots;

	(void)type;
	if (err == 0) {
		/* An older leader sends none. */
		if (m->has_roots)
			roots = (struct forest_roots){ m->fs_root, m->logs_root, m->srch_root, m->log_merge };
		locks_granted(c->fsd, &m->key, m->old_mode, m->new_mode, m->write_seq, m->has_roots ? &roots : NULL);
		free(c);
	} else if (err == -ESHUTDOWN || err == -ENOLINK) {
		free(c);	/* the end of the session: nobody waits for it any more */
	} else {
		log_warning("the leader could not look at a lock request: %s; asking again", strerror(-err));
		ops_defer(c->fsd, retry_lock, c);
	}
}

static void send_lock(struct lock_call *c)
{
	int ret = net_client_call(c->fsd->net, MSG_lock, &c->msg, lock_done, c);

	if (ret == -ESHUTDOWN || ret == -ENOLINK)
		free(c);
	else if (ret < 0)
		ops_defer(c->fsd, retry_lock, c);
}

void net_lock_request(struct fsd *fsd, const struct key *key, uint8_t old_mode, uint8_t new_mode)
{
	struct lock_call *c = malloc(sizeof(*c));

	if (!c)
		fsd_fail(fsd, "out of memory");
	*c = (struct lock_call){
		.fsd = fsd, .msg = { .key = *key, .old_mode = old_mode, .new_mode = new_mode }
	};
	send_lock(c);
}

/* ---- requests ------------------------------------------------------------------------------ */

static int call(struct fsd *fsd, unsigned type, const void *msg, void *reply)
{
	int ret;

	/* Too many calls, or no memory for one: both pass. */
	while ((ret = net_client_call_sync(fsd->net, type, msg, reply)) == -EBUSY)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	return ret;
}

int net_open_log_trees(struct fsd *fsd, struct disk_log_trees *lt)
{
	struct msg_open_log_trees_reply reply;
	int ret = call(fsd, MSG_open_log_trees, NULL, &reply);

	static_assert(sizeof(reply.log_trees) == sizeof(*lt), "carried as it lies on the device");
	if (ret == 0)
		memcpy(lt, &reply.log_trees, sizeof(*lt));
	return ret;
}

/* Of either kind; the answer has the log tree as it goes on. */
static int commit(struct fsd *fsd, unsigned type, const void *msg, struct disk_log_trees *next)
{
	struct msg_commit_log_trees_reply reply;
	int ret = call(fsd, type, msg, &reply);

	if (ret == 0)
		memcpy(next, &reply.log_trees, sizeof(*next));
	return ret;
}

int net_commit_log_trees(struct fsd *fsd, const struct disk_log_trees *lt, bool open_next,
			 struct disk_log_trees *next)
{
	struct msg_commit_log_trees msg = { .open_next = open_next };

	memcpy(&msg.log_trees, lt, sizeof(*lt));
	return commit(fsd, MSG_commit_log_trees, &msg, next);
}

uint64_t net_own_term(struct fsd *fsd)
{
	uint64_t term;

	pthread_mutex_lock(&fsd->session->lock);
	term = fsd->session->own_term;
	pthread_mutex_unlock(&fsd->session->lock);
	return term;
}

int net_commit_unflushed(struct fsd *fsd, const struct disk_log_trees *lt, uint64_t term,
			 struct disk_log_trees *next)
{
	struct msg_commit_unflushed msg = { .term = term };

	memcpy(&msg.log_trees, lt, sizeof(*lt));
	return commit(fsd, MSG_commit_unflushed, &msg, next);
}

int net_get_roots(struct fsd *fsd, struct forest_roots *roots, uint64_t *last_stable_seq)
{
	struct msg_get_roots_reply reply;
	uint64_t term = net_own_term(fsd);
	int ret = -EAGAIN;

	if (term)
		ret = shortcut_roots(fsd->session->shortcut, fsd->rid, term, &reply);
	if (ret < 0)
		ret = call(fsd, MSG_get_roots, NULL, &reply);
	if (ret < 0)
		return ret;
	memcpy(&roots->fs_root, &reply.fs_root, sizeof(roots->fs_root));
	memcpy(&roots->logs_root, &reply.logs_root, sizeof(roots->logs_root));
	memcpy(&roots->srch_root, &reply.srch_root, sizeof(roots->srch_root));
	memcpy(&roots->log_merge, &reply.log_merge, sizeof(roots->log_merge));
	*last_stable_seq = reply.last_stable_seq;
	return 0;
}

int net_alloc_inodes(struct fsd *fsd, uint64_t count, uint64_t *start, uint64_t *nr)
{
	struct msg_alloc_inodes msg = { .count = count };
	struct msg_alloc_inodes_reply reply;
	int ret = call(fsd, MSG_alloc_inodes, &msg, &reply);

	if (ret == 0) {
		*start = reply.start;
		*nr = reply.nr;
	}
	return ret;
}

int net_open_ino_map(struct fsd *fsd, uint64_t group, bool has_directories, uint8_t bits[128])
{
	struct msg_open_ino_map msg = { .group = group, .has_directories = has_directories };
	struct msg_open_ino_map_reply reply;
	int ret = call(fsd, MSG_open_ino_map, &msg, &reply);

	if (ret == 0)
		memcpy(bits, &reply.bits, 128);
	return ret;
}

int net_statfs(struct fsd *fsd, struct net_statfs *st)
{
	struct msg_statfs_reply r;
	int ret = call(fsd, MSG_statfs, NULL, &r);

	if (ret == 0)
		*st = (struct net_statfs){ .total_meta = r.total_meta,
					   .free_meta = r.free_meta,
					   .total_data = r.total_data,
					   .free_data = r.free_data,
					   .inode_count = r.inode_count,
					   .reserved_meta = r.reserved_meta,
					   .committed_seq = r.committed_seq };
	return ret;
}

/* ---- start, stop, status ------------------------------------------------------------------- */

int net_start(struct fsd *fsd)
{
	struct session_net *s = calloc(1, sizeof(*s));
	struct net_client_conf conf = {
		.rid = fsd->rid,
		.fsid = fsd->fsid,
		.fmt_vers = fsd->fmt_vers,
		.term = atomic_load(&fsd->keep->head->term),
		.flags = fsd->conf.quorum_slot != CONF_NO_SLOT ? GREETING_FLAG_QUORUM : 0,
		.keepalive_ms = fsd->conf.tcp_keepalive_timeout_ms,
		.keys = fsd->keys,
		.ops = { .resolve = resolve, .on_greeted = on_greeted, .on_request = on_request,
			 .on_fenced = on_fenced, .on_disconnected = on_disconnected },
		.arg = s,
	};
	int ret;

	if (!s)
		return -ENOMEM;
	s->fsd = fsd;
	s->started_ns = clock_mono_ns();
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	say_none(s, "a leader (none was looked for yet)");
	fsd->session = s;
	ret = shortcut_open(&s->shortcut, &fsd->conf);
	if (ret == 0)
		ret = lease_open(fsd);
	if (ret == 0)
		ret = net_client_start(&fsd->net, &conf);
	if (ret < 0)
		fsd->net = NULL;
	else
		ret = lease_start(fsd);
	if (ret < 0) {
		log_err("the session with the leader cannot start: %s", strerror(-ret));
		net_stop(fsd);
	}
	return ret;
}

int net_wait_greeted(struct fsd *fsd)
{
	struct session_net *s = fsd->session;
	uint64_t said = clock_mono_ns(), now, since;
	char why[NET_WHY_BYTES];
	bool greeted;

	do {
		now = clock_mono_ns();
		pthread_mutex_lock(&s->lock);
		if (!s->greeted)
			clock_cond_wait(&s->cond, &s->lock, now + 100 * NSEC_PER_MSEC);
		greeted = s->greeted;
		pthread_mutex_unlock(&s->lock);
		if (!greeted && now - said > GREET_SAY_MS * NSEC_PER_MSEC) {
			said = now;
			net_is_connected(fsd, why, sizeof(why), &since);
			log_notice("waiting for %s (scoutfsctl status of the quorum members says more)", why);
		}
	} while (!greeted && !atomic_load(&fsd->stopping));
	return greeted ? 0 : -EINTR;
}

void net_farewell(struct fsd *fsd)
{
	int ret;

	if (!fsd->net)
		return;
	ret = net_client_farewell(fsd->net, is_gone, fsd->session, FAREWELL_MS);
	if (ret < 0)
		log_warning("the leader has not answered this mount's farewell: %s; %s, and the leader cleans up after a while",
			    strerror(-ret), atomic_load(&fsd->was_cut) ?
			    "all is committed but stores to mappings of programs that were cut off" : "all is committed");
}

void net_stop(struct fsd *fsd)
{
	struct session_net *s = fsd->session;

	if (!s)
		return;
	lease_stop(fsd);
	if (fsd->net)
		net_client_stop(fsd->net);
	lease_close(fsd);
	fsd->net = NULL;
	fsd->session = NULL;
	shortcut_close(s->shortcut);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->cond);
	free(s);
}

bool net_is_connected(struct fsd *fsd, char *words, size_t size, uint64_t *since_ns)
{
	struct session_net *s = fsd->session;
	struct net_client_stats st;

	net_client_get_stats(fsd->net, &st);
	*since_ns = st.since_ns ? st.since_ns : s->started_ns;
	if (st.greeted) {
		snprintf(words, size, "leader of term %llu at %s", (unsigned long long)st.term,
			 st.endpoint);
		return true;
	}
	pthread_mutex_lock(&s->lock);
	snprintf(words, size, "%s", st.why[0] ? st.why : s->why_none);
	pthread_mutex_unlock(&s->lock);
	return false;
}
