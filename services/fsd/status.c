/*
 * The state of the mount in words and numbers: for scoutfsctl status, systemctl status, and the
 * watchdog.
 *
 * Promises: whoever waits can see for what, and since when.  It shows what exists: the parts of fsd
 * are looked at under a lock that main takes before it frees them.  The watchdog is fed only while
 * the cache's writer lock and the commit's lock can be had, so an engine that hangs is restarted,
 * and a device or leader that hangs is not mistaken for one.
 */
#include "status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "advisory.h"
#include "clock.h"
#include "ctl.h"
#include "data.h"
#include "fuse.h"
#include "items.h"
#include "lease.h"
#include "keep.h"
#include "keys.h"
#include "locks.h"
#include "log.h"
#include "merge.h"
#include "net.h"
#include "net_client.h"
#include "op.h"
#include "reply.h"
#include "sdn.h"
#include "shown.h"
#include "thread.h"
#include "txn.h"

STATS_DESCS(fsd_stats, FSD_STATS);

#define LEADER_ANSWER_S	3	/* a leader that answers nothing for so long is said to be silent */

/* One mount a process. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct fsd *fsd;		/* NULL: detached */
	struct ctl *ctl;
	enum fsd_phase phase;
	uint64_t since_ns;
	bool unmounts;			/* and is served still: programs hold it */
	bool stopping;
	bool has_thread;
	pthread_t thread;
} status = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static const char *const phase_words[] = {
	[PHASE_DEVICES] = "looking at the devices", [PHASE_LEADER] = "waiting for a leader",
	[PHASE_OPENING] = "opening the volume",	    [PHASE_MOUNTED] = "mounted",
	[PHASE_UNMOUNTING] = "unmounting",	    [PHASE_COMMITTING] = "storing the last commit",
	[PHASE_LEAVING] = "saying farewell",
};

static enum fsd_phase shown_phase(void)
{
	return status.phase == PHASE_MOUNTED && status.unmounts ? PHASE_UNMOUNTING : status.phase;
}

/* While it is not mounted it is not well, whatever else there is to say. */
static const char *const phase_waits[] = {
	[PHASE_LEADER] = "a leader",
	[PHASE_OPENING] = "the volume to be opened and mounted",
	[PHASE_UNMOUNTING] = "programs to let go of the mount",
	[PHASE_COMMITTING] = "the last commit",
};

static bool has_session(enum fsd_phase phase)
{
	return phase >= PHASE_OPENING && phase <= PHASE_COMMITTING;
}

static double seconds(uint64_t since_ns)
{
	uint64_t now = clock_mono_ns();

	return now > since_ns ? (double)(now - since_ns) / 1e9 : 0;
}

/* What this process waits for, whatever its phase; the empty string: nothing.  With the lock held. */
static void waits_inside(struct fsd *fsd, char *buf, size_t size)
{
	struct txn_status ts;
	uint64_t since = 0, age = 0;
	char words[224], op[64];

	*buf = '\0';
	if (status.phase == PHASE_DEVICES) {
		snprintf(buf, size, "blockd");
		return;
	}
	if (!fsd)
		return;
	if (status.phase == PHASE_LEAVING) {
		snprintf(buf, size, "the leader's answer to the farewell");
		return;
	}
	if (!net_is_connected(fsd, words, sizeof(words), &since)) {
		snprintf(buf, size, "%s, for %.0f s", words, seconds(since));
		return;
	}
	if (!has_session(status.phase))
		return;
	if (ops_are_held(fsd)) {
		snprintf(buf, size, "a lease from the leader");
		return;
	}
	txn_get_status(fsd, &ts);
	if (ts.busy_since_ns && seconds(ts.busy_since_ns) > 2) {
		snprintf(buf, size, "a commit (%s), for %.0f s", ts.doing,
			 seconds(ts.busy_since_ns));
		return;
	}
	if (ops_oldest_waiting(fsd, op, sizeof(op), &age) && age > 2 * NSEC_PER_SEC)
		snprintf(buf, size, "%s waits for a lock, items or room, for %.0f s", op,
			 (double)age / 1e9);
}

/* What is waited for, in words; the empty string: nothing.  With the lock held. */
static void waits_for(struct fsd *fsd, char *buf, size_t size)
{
	enum fsd_phase phase = shown_phase();

	waits_inside(fsd, buf, size);
	if (!*buf && phase < sizeof(phase_waits) / sizeof(phase_waits[0]) && phase_waits[phase])
		snprintf(buf, size, "%s", phase_waits[phase]);
}

static void state_words(struct fsd *fsd, char *buf, size_t size)
{
	enum fsd_phase phase = shown_phase();

	if (phase == PHASE_MOUNTED && fsd)
		snprintf(buf, size, "mounted at %.200s", fsd->conf.mountpoint);
	else
		snprintf(buf, size, "%s", phase_words[phase]);
}

static void add_gauges(struct fsd *fsd, struct msg_status_reply *r)
{
	struct items_dirty open, closed;
	struct merge_progress mp;
	struct txn_status ts;
	uint64_t used, size, held, waiting, left_ms, losses;

	txn_get_status(fsd, &ts);
	items_dirty(fsd, &open, &closed);
	items_usage(fsd, &used, &size);
	locks_counts(fsd, &held, &waiting);
	left_ms = lease_left_ms(fsd, &losses);
	ctl_add_value(r, "lease_left_ms", left_ms);
	ctl_add_value(r, "lease_losses", losses);
	ctl_add_value(r, "open_gen", ts.open_gen);
	ctl_add_value(r, "committed_gen", ts.committed_gen);
	ctl_add_value(r, "trans_seq", ts.trans_seq);
	ctl_add_value(r, "dirty_bytes", open.bytes + closed.bytes);
	ctl_add_value(r, "dirty_items", open.nr + closed.nr);
	ctl_add_value(r, "cache_used_bytes", used);
	ctl_add_value(r, "cache_size_bytes", size);
	ctl_add_value(r, "locks_held", held);
	ctl_add_value(r, "locks_waiting", waiting);
	advisory_counts(fsd, &held, &waiting);
	ctl_add_value(r, "advisory_locks_held", held);
	ctl_add_value(r, "advisory_locks_waiting", waiting);
	ctl_add_value(r, "meta_avail_blocks", ts.meta_avail);
	ctl_add_value(r, "meta_is_low", ts.is_low);
	ctl_add_value(r, "data_avail_blocks", dalloc_free_blocks(fsd));
	ctl_add_value(r, "operations", ops_active(fsd));
	ctl_add_value(r, "hole_table_others", shown_others(fsd));
	merge_get_progress(fsd, &mp);
	ctl_add_value(r, "log_merge_working_ms",
		      mp.since_ns ? (clock_mono_ns() - mp.since_ns) / NSEC_PER_MSEC : 0);
	ctl_add_value(r, "log_merge_working_items", mp.items);
	if (fsd->pool) {
		pool_usage(fsd, &used, &size);
		ctl_add_value(r, "pool_used_pages", used);
		ctl_add_value(r, "pool_pages", size);
	}
}

/* Of the session with the leader. */
static void add_session(struct fsd *fsd, struct msg_status_reply *r)
{
	struct net_client_stats st;

	net_client_get_stats(fsd->net, &st);
	ctl_add_value(r, "net_connects", st.connects);
	ctl_add_value(r, "net_calls", st.calls);
	ctl_add_value(r, "net_calls_pending", st.pending);
	ctl_add_value(r, "net_resent", st.resent);
	ctl_add_value(r, "net_requests", st.requests);
	ctl_add_value(r, "net_duplicates", st.duplicates);
	ctl_add_value(r, "net_lost", st.lost);
}

static void fill_status(void *arg, struct msg_status_reply *r)
{
	struct fsd *fsd;
	char words[128];
	uint64_t since;

	(void)arg;
	pthread_mutex_lock(&status.lock);
	fsd = status.fsd;
	r->since_ms = (clock_mono_ns() - status.since_ns) / NSEC_PER_MSEC;
	state_words(fsd, r->state, sizeof(r->state));
	waits_for(fsd, r->waiting_for, sizeof(r->waiting_for));
	if (fsd) {
		ctl_add_text(r, "rid", "%016llx", (unsigned long long)fsd->rid);
		if (status.phase > PHASE_DEVICES)	/* else it is being read just now */
			ctl_add_text(r, "fsid", "%016llx", (unsigned long long)fsd->fsid);
		ctl_add_text(r, "mountpoint", "%s", fsd->conf.mountpoint);
		keys_status(fsd->keys, &fsd->conf, r);
	}
	if (fsd && has_session(status.phase)) {
		if (net_is_connected(fsd, words, sizeof(words), &since))
			ctl_add_text(r, "leader", "%s", words);
		add_gauges(fsd, r);
		add_session(fsd, r);
		CTL_ADD_STATS(r, fsd_stats, &fsd->stats);
	}
	pthread_mutex_unlock(&status.lock);
}

/* One question to the leader: the asker may have given up when the answer comes. */
struct leader_question {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned users;
	bool is_done;
	int err;
	union msg_body reply;
};

static void question_put(struct leader_question *q)
{
	bool is_last;

	pthread_mutex_lock(&q->lock);
	is_last = --q->users == 0;
	pthread_mutex_unlock(&q->lock);
	if (!is_last)
		return;
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->cond);
	free(q);
}

static void question_done(void *arg, int err, unsigned type, const void *reply)
{
	struct leader_question *q = arg;

	pthread_mutex_lock(&q->lock);
	q->is_done = true;
	q->err = err;
	if (err == 0)
		memcpy(&q->reply, reply, msg_struct_bytes(type));
	pthread_cond_signal(&q->cond);
	pthread_mutex_unlock(&q->lock);
	question_put(q);
}

/* Send it, with the lock held; -EAGAIN: there is no leader now. */
static int question_send(struct leader_question *q, unsigned type, const void *msg)
{
	char words[128];
	uint64_t since;

	if (!status.fsd || !status.fsd->net || status.phase < PHASE_LEADER || status.phase > PHASE_COMMITTING ||
	    !net_is_connected(status.fsd, words, sizeof(words), &since))
		return -EAGAIN;
	return net_client_call(status.fsd->net, type, msg, question_done, q);
}

/* What the leader says to a cluster_* request, if it says it soon. */
static int ask_leader(void *arg, unsigned type, const void *msg, union msg_body *reply)
{
	struct leader_question *q = calloc(1, sizeof(*q));
	pthread_condattr_t attr;
	struct timespec until;
	int ret;

	(void)arg;
	if (!q)
		return -ENOMEM;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->cond, &attr);
	pthread_condattr_destroy(&attr);
	q->users = 2;
	pthread_mutex_lock(&status.lock);
	ret = question_send(q, type, msg);
	pthread_mutex_unlock(&status.lock);
	if (ret < 0) {
		q->users = 1;
		question_put(q);
		return ret;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LEADER_ANSWER_S;
	pthread_mutex_lock(&q->lock);
	while (!q->is_done && ret == 0)
		ret = -pthread_cond_timedwait(&q->cond, &q->lock, &until);
	ret = q->is_done ? q->err : -ETIMEDOUT;
	if (ret == 0)
		memcpy(reply, &q->reply, msg_struct_bytes(msg_reply_type(type)));
	pthread_mutex_unlock(&q->lock);
	question_put(q);
	return ret;
}

static void show(void)
{
	struct items_dirty open, closed;
	char words[256], waiting[256];

	pthread_mutex_lock(&status.lock);
	state_words(status.fsd, words, sizeof(words));
	waits_for(status.fsd, waiting, sizeof(waiting));
	if (status.fsd && has_session(status.phase))
		items_dirty(status.fsd, &open, &closed); /* waits for the writer: see the top */
	if (status.fsd && status.phase == PHASE_MOUNTED && kcache_has_served(status.fsd)) {
		atomic_store(&status.fsd->keep->head->resumes, 0);
		replies_settle(status.fsd);
	}
	pthread_mutex_unlock(&status.lock);
	sdn_status("%s%s%s", words, *waiting ? ", waiting for " : "", waiting);
	sdn_watchdog();
}

static void *run(void *arg)
{
	bool stopping;

	(void)arg;
	do {
		show();
		pthread_mutex_lock(&status.lock);
		if (!status.stopping)
			clock_cond_wait(&status.cond, &status.lock, clock_mono_ns() + NSEC_PER_SEC);
		stopping = status.stopping;
		pthread_mutex_unlock(&status.lock);
	} while (!stopping);
	return NULL;
}

int status_start(struct fsd *fsd)
{
	static const struct ctl_ops ops = { .fill_status = fill_status, .cluster = ask_leader };
	int ret;

	status.fsd = fsd;
	status.since_ns = clock_mono_ns();
	ret = ctl_start(&status.ctl, &fsd->conf, "fsd", &ops, NULL);
	if (ret < 0)
		return ret;
	ret = thread_start(&status.thread, "states", run, NULL);
	status.has_thread = ret == 0;
	return ret;
}

void status_phase(enum fsd_phase phase)
{
	pthread_mutex_lock(&status.lock);
	status.phase = phase;
	status.since_ns = clock_mono_ns();
	pthread_cond_signal(&status.cond);
	pthread_mutex_unlock(&status.lock);
}

void status_unmounts(void)
{
	pthread_mutex_lock(&status.lock);
	status.unmounts = true;
	status.since_ns = clock_mono_ns();
	pthread_cond_signal(&status.cond);
	pthread_mutex_unlock(&status.lock);
}

enum fsd_phase status_get_phase(void)
{
	enum fsd_phase phase;

	pthread_mutex_lock(&status.lock);
	phase = status.phase;
	pthread_mutex_unlock(&status.lock);
	return phase;
}

bool status_pin(enum fsd_phase *phase)
{
	pthread_mutex_lock(&status.lock);
	*phase = status.phase;
	if (status.fsd && status.phase < PHASE_LEAVING)
		return true;
	pthread_mutex_unlock(&status.lock);
	return false;
}

void status_unpin(void)
{
	pthread_mutex_unlock(&status.lock);
}

void status_detach(void)
{
	pthread_mutex_lock(&status.lock);
	status.fsd = NULL;
	pthread_mutex_unlock(&status.lock);
}

void status_stop(void)
{
	if (status.has_thread) {
		pthread_mutex_lock(&status.lock);
		status.stopping = true;
		pthread_cond_signal(&status.cond);
		pthread_mutex_unlock(&status.lock);
		pthread_join(status.thread, NULL);
	}
	if (status.ctl)
		ctl_stop(status.ctl);
	status.ctl = NULL;
}
