/*
 * Leaving without a leader.
 *
 * A mount that stops commits what it has and says farewell, and both need a leader.  One that comes back, or follows, is
 * waited for: an election, the lease of the leader before and its last write.  When all that is long over nobody can
 * say when there will be one, and whoever stops the mount - a shutdown, an operator - would only wait for systemd's
 * limit, and then hear nothing.
 *
 * Promises: it ends then, and says how much was not committed; with something, its exit status is not 0.  What that is
 * stays in the runtime directory, as after a crash at that moment (D7): the next process of the instance commits it, if the
 * directory is still there.  What was fsynced is on the volume.  Programs that still use the mount wait for what does not
 * come; they have a moment to let go, and get errors then.
 */
#include "leave.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "fuse.h"
#include "keep.h"
#include "log.h"
#include "lost.h"
#include "sdn.h"
#include "status.h"

#define LOOK_MS		100
#define ELECTION_MS	5000u		/* and what else a new leader does before it listens, on a busy machine */
#define GRACE_MS	5000u		/* for programs */
#define PATIENCE_MAX_MS	60000u		/* well within what systemd and scoutfsctl run give a stop */

/* How long after the end of the lease a leader is waited for. */
static uint64_t patience_ms(const struct fsd *fsd)
{
	uint64_t ms = (uint64_t)fsd->conf.heartbeat_timeout_ms + fsd->conf.lease_ms + fsd->conf.longest_io_ms + ELECTION_MS;

	return ms < PATIENCE_MAX_MS ? ms : PATIENCE_MAX_MS;
}

static uint64_t silent_ms(const struct fsd *fsd)
{
	uint64_t lost_ns = atomic_load(&fsd->lease_lost_ns), now = clock_mono_ns();

	return lost_ns && now > lost_ns ? (now - lost_ns) / NSEC_PER_MSEC : 0;
}

/* No other is to be expected either. */
static bool is_without_leader(const struct fsd *fsd)
{
	return silent_ms(fsd) >= patience_ms(fsd);
}

static void end(struct fsd *fsd, bool is_committed) __attribute__((noreturn));
static void end(struct fsd *fsd, bool is_committed)
{
	uint64_t s = silent_ms(fsd) / 1000;

	if (!is_committed)
		is_committed = !lost_report_left(fsd, s);
	if (is_committed)
		log_warning("no leader for %" PRIu64 " s: this mount ends without a farewell; all is committed, and the next "
			    "leader cleans up after a while", s);
	sdn_status(is_committed ? "stopped without a leader" :
				  "failed: stopped without a leader, and not all is committed; see its log");
	keep_forget_descriptor();
	log_flush();
	_exit(is_committed ? 0 : 1);
}

/* Pinned: the kernel's connection is there. */
static void cut(struct fsd *fsd)
{
	log_warning("%s is still in use, and there is no leader: its programs get errors now", fsd->conf.mountpoint);
	kcache_abort(fsd);
}

static void *leave(void *arg)
{
	uint64_t cut_ns = clock_mono_ns() + GRACE_MS * NSEC_PER_MSEC;
	struct fsd *fsd = arg;
	bool was_cut = false;

	for (;; poll(NULL, 0, LOOK_MS)) {
		enum fsd_phase phase = status_get_phase();

		if (!is_without_leader(fsd))
			continue;
		if (phase == PHASE_LEAVING)
			end(fsd, true);
		/* What is cut, and what is counted, is there as long as the status may look at it. */
		if (phase < PHASE_MOUNTED || !status_pin())
			continue;
		if (phase > PHASE_MOUNTED && is_without_leader(fsd)) {
			end(fsd, false);
		} else if (phase == PHASE_MOUNTED && !was_cut && clock_mono_ns() >= cut_ns) {
			cut(fsd);
			was_cut = true;
		}
		status_unpin();
	}
	return NULL;
}

void leave_begin(struct fsd *fsd)
{
	static atomic_bool has_begun;
	pthread_t thread;
	int ret;

	if (atomic_exchange(&has_begun, true))
		return;
	ret = pthread_create(&thread, NULL, leave, fsd);
	if (ret == 0)
		pthread_detach(thread);
	else
		log_warning("a leader that never comes is waited for: %s", strerror(ret));
}
