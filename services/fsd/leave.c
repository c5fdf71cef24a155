/*
 * Leaving without a leader.
 *
 * A mount that stops commits what it has and says farewell, and both need a leader.  One that comes back, or follows, is
 * waited for: an election, the lease of the leader before and its last write.  When all that is long over nobody can
 * say when there will be one, and whoever stops the mount - a shutdown, an operator - would only wait for systemd's
 * limit, and then hear nothing.
 *
 * How long is counted from the end of the lease: when the mount is stopped later nothing is gained by waiting, if nothing is
 * lost either.  What is not committed is lost with the runtime directory, though, and the leader may just be coming back
 * (its host has booted): so with that the stop itself begins a time of its own, twice as long.  Programs that still use the mount
 * wait for what does not come; they keep it as long as one that has just come back may take, and get errors then.
 *
 * Promises: it ends within LAST_MS of the stop if it has no lease then, says what it waits for, and how much was not
 * committed; with something, its exit status is not 0.  What that is stays in the runtime directory, as after a crash at that
 * moment (D7): the next process of the instance commits it, if the directory is still there.  What was fsynced is on the
 * volume.  When programs were cut off that may have had files mapped for writing it never says that all is committed: the
 * kernel may have had stores to mappings that it could not write back without a lease, and nobody knows of them (lost.c).
 */
#include "leave.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "clock.h"
#include "fuse.h"
#include "keep.h"
#include "log.h"
#include "lost.h"
#include "net_client.h"
#include "sdn.h"
#include "status.h"
#include "thread.h"

#define LOOK_MS		100
#define COUNT_MS	1000		/* between two looks that find something */
#define ELECTION_MS	5000u		/* and what else a new leader does before it listens, on a busy machine */
#define PATIENCE_MAX_MS	60000u
#define LAST_MS		110000u		/* within what systemd and scoutfsctl run give a stop */

static atomic_bool is_for_good;		/* not only for the next process to go on */
static _Atomic enum { NO_FAREWELL, FAREWELL_LEFT, FAREWELL_STORED } farewell;
static uint64_t begun_ns;

static uint64_t min_ms(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What is not committed, and no lease: so long after it was asked to stop. */
static uint64_t dirty_ms(const struct leave_view *v)
{
	return min_ms(2 * v->patience_ms, PATIENCE_MAX_MS);
}

bool leave_may_cut(const struct leave_view *v)
{
	return v->silent_ms >= v->patience_ms && v->stopped_ms >= v->election_ms && !v->is_greeted;
}

bool leave_is_over(const struct leave_view *v, bool is_dirty)
{
	if (!v->silent_ms)
		return false;
	if (v->stopped_ms >= LAST_MS)
		return true;
	return v->silent_ms >= v->patience_ms && !v->is_greeted && (!is_dirty || v->stopped_ms >= dirty_ms(v));
}

/* All but whether there is a leader. */
static struct leave_view look(const struct fsd *fsd)
{
	const struct instance_conf *c = &fsd->conf;
	uint64_t lost_ns = atomic_load(&fsd->lease_lost_ns), now = clock_mono_ns();

	return (struct leave_view){
		.stopped_ms = (now - begun_ns) / NSEC_PER_MSEC,
		.silent_ms = lost_ns && now > lost_ns ? (now - lost_ns) / NSEC_PER_MSEC : 0,
		.patience_ms = min_ms((uint64_t)c->heartbeat_timeout_ms + c->lease_ms + c->longest_io_ms + ELECTION_MS,
				      PATIENCE_MAX_MS),
		.election_ms = min_ms((uint64_t)c->heartbeat_timeout_ms + ELECTION_MS, PATIENCE_MAX_MS),
	};
}

static void say_once(const struct leave_view *v)
{
	uint64_t clean = v->patience_ms > v->silent_ms ? v->patience_ms - v->silent_ms : 0;
	uint64_t dirty = dirty_ms(v) > v->stopped_ms ? dirty_ms(v) - v->stopped_ms : 0;
	static bool is_said;

	if (is_said || !v->silent_ms)
		return;
	is_said = true;
	log_notice("asked to stop, and there is no leader: one is waited for, so that all is committed: %" PRIu64 " s, or with "
		   "something that is not committed %" PRIu64 " s", clean / 1000, (clean > dirty ? clean : dirty) / 1000);
}

static void end(struct fsd *fsd, bool is_left, uint64_t silent_ms) __attribute__((noreturn));
static void end(struct fsd *fsd, bool is_left, uint64_t silent_ms)
{
	bool may_lose = lost_report_cut(fsd);
	uint64_t s = silent_ms / 1000;

	if (may_lose && !is_left)
		log_warning("no leader for %" PRIu64 " s: this mount ends without a farewell; all else is committed, and the next "
			    "leader cleans up after a while", s);
	else if (!is_left)
		log_warning("no leader for %" PRIu64 " s: this mount ends without a farewell; all is committed, and the next "
			    "leader cleans up after a while", s);
	sdn_status(is_left || may_lose ? "failed: stopped without a leader, and not all may be committed; see its log" :
					"stopped without a leader");
	keep_forget_descriptor();
	log_flush();
	_exit(is_left || may_lose ? 1 : 0);
}

/* Before it was mounted, and the next process may find a leader. */
static void end_kept(struct fsd *fsd, uint64_t silent_ms) __attribute__((noreturn));
static void end_kept(struct fsd *fsd, uint64_t silent_ms)
{
	lost_report_left(fsd, silent_ms / 1000);
	atomic_fetch_sub(&fsd->keep->head->resumes, 1);
	log_info("this process ends for the next one to go on (the leader that has let it in is gone)");
	log_flush();
	_exit(EXIT_KEPT);
}

static bool is_dirty(struct fsd *fsd)
{
	struct lost l;

	return lost_count(fsd, &l) < 0 || !lost_is_none(&l);
}

/* Pinned: what is cut, and what is counted, is there.  When to look again. */
static int look_pinned(struct fsd *fsd, enum fsd_phase phase)
{
	struct leave_view v = look(fsd);
	struct net_client_stats st;
	/* Whose connection the kernel has kept: nothing of it has been read yet. */
	bool is_adopted = phase == PHASE_OPENING && atomic_load(&fsd->is_resumed);

	net_client_get_stats(fsd->net, &st);
	v.is_greeted = st.greeted;
	say_once(&v);
	if (phase == PHASE_MOUNTED) {
		if (leave_may_cut(&v) && !atomic_load(&fsd->was_cut)) {
			log_warning("%s is still in use, and there is no leader: its programs get errors now",
				    fsd->conf.mountpoint);
			kcache_abort(fsd);
		}
		if (v.stopped_ms < LAST_MS)
			return LOOK_MS;
	}
	if (!leave_is_over(&v, false))
		return LOOK_MS;
	if (!leave_is_over(&v, is_adopted || is_dirty(fsd)))
		return COUNT_MS;
	if (!atomic_load(&is_for_good))
		end_kept(fsd, v.silent_ms);
	if (is_adopted) {
		atomic_store(&fsd->was_cut, true);
		umount2(fsd->conf.mountpoint, MNT_DETACH);
	}
	end(fsd, lost_report_left(fsd, v.silent_ms / 1000), v.silent_ms);
}

static void *leave(void *arg)
{
	struct fsd *fsd = arg;
	enum fsd_phase phase;
	struct leave_view v;
	int ms = LOOK_MS;

	for (;; poll(NULL, 0, ms)) {
		if (status_pin(&phase)) {
			/* A restart commits what it can in a moment, and ends by itself. */
			if (phase == PHASE_OPENING || (phase > PHASE_OPENING && atomic_load(&is_for_good)))
				ms = look_pinned(fsd, phase);
			status_unpin();
		} else if (atomic_load(&farewell) != NO_FAREWELL) {
			v = look(fsd);
			if (leave_is_over(&v, false))
				end(fsd, atomic_load(&farewell) != FAREWELL_STORED, v.silent_ms);
		}
	}
	return NULL;
}

void leave_farewell(bool is_stored)
{
	atomic_store(&farewell, is_stored ? FAREWELL_STORED : FAREWELL_LEFT);
}

void leave_begin(struct fsd *fsd, bool is_restart)
{
	static atomic_bool has_begun;
	pthread_t thread;
	int ret;

	if (!is_restart)
		atomic_store(&is_for_good, true);
	if (atomic_exchange(&has_begun, true))
		return;
	begun_ns = clock_mono_ns();
	ret = thread_start(&thread, "leave", leave, fsd);
	if (ret == 0)
		pthread_detach(thread);
	else
		log_warning("a leader that never comes is waited for: %s", strerror(-ret));
}
