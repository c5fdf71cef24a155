/*
 * fsd: one mount, from the configuration to the farewell.  runtime.md 3.3, 3.4; design.md §2.
 *
 * Start: identity, blockd, both super blocks, the engine, the leader's greeting, the first
 * transaction, the root inode, the kernel's mount, READY.  Each step that fails says what and why,
 * and what the steps before have made goes again, in reverse.
 *
 * Stop (SIGTERM, SIGINT, or an unmount by anybody): the kernel lets go, unlinked files nobody uses
 * any more are deleted, the last commit is stored, the leader gets a farewell.  A second signal
 * cuts programs that still use the mount off.
 *
 * A process that is killed leaves everything to the next one: the item cache, the pool, the state file
 * (keep.h), and the kernel's connection with whoever keeps descriptors for it.  The next one goes on
 * where the last one was, and programs see a pause.  SIGUSR2 asks for just that (a planned restart);
 * what is different is that requests under way are answered first.  Without a kept connection what
 * was done is stored all the same, and mounted anew.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "advisory.h"
#include "blkcli.h"
#include "caller.h"
#include "clock.h"
#include "data.h"
#include "fenced.h"
#include "format/super.h"
#include "fuse.h"
#include "gonedir.h"
#include "inode.h"
#include "instance.h"
#include "keep.h"
#include "keys.h"
#include "locks.h"
#include "lease.h"
#include "leave.h"
#include "log.h"
#include "lost.h"
#include "merge.h"
#include "net.h"
#include "orphan.h"
#include "reader.h"
#include "reply.h"
#include "sdn.h"
#include "shown.h"
#include "status.h"
#include "thread.h"
#include "txn.h"

#define REGION_BYTES	(32u << 20)	/* what reads and metadata blocks pass through */
#define WORKERS		4u
#define UNMOUNT_GRACE_MS 30000u
#define CALLERS_GRACE_MS 5000u
/* A restart waits so long for what is under way: the kernel sends again what is not answered then; and
 * so long where it cannot. */
#define DRAIN_MS	1000u
#define DRAIN_ALL_MS	60000u
#define GONEDIRS_MS	60000u	/* for a message to the kernel that waits for an answer of ours */
#define STORE_MS	2000u	/* for its last commit, which the next process could do as well */
#define EXIT_FENCED	76	/* the units know it; and EXIT_KEPT: leave.h */

static struct fsd the_fsd;

static void say_fenced(struct fsd *fsd)
{
	log_err("this mount (rid %016llx) was fenced by the leader: others may have taken over what it had",
		(unsigned long long)fsd->rid);
	sdn_status("failed: fenced by the leader; start it again");
}

void fsd_fenced(struct fsd *fsd)
{
	say_fenced(fsd);
	/*
	 * First of all: nobody shall believe to have written, or be shown, anything.  A connection that is aborted
	 * goes on showing what the kernel has of open files.
	 */
	if (!atomic_exchange(&fsd->fenced, true)) {
		kcache_abort(fsd);
		kcache_forget_all(fsd, false);
		kcache_forget_all(fsd, true);
	}
	lost_report(fsd);
	keep_drop(fsd);
	keep_forget_descriptor();
	log_flush();
	_exit(EXIT_FENCED);
}

void fsd_fail(struct fsd *fsd, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_err("%s", text);
	sdn_status("failed: %s", text);
	keep_drop(fsd);
	keep_forget_descriptor();
	if (!atomic_exchange(&fsd->fenced, true)) {
		kcache_abort(fsd);
		umount2(fsd->conf.mountpoint, MNT_DETACH);
	}
	log_flush();
	_exit(1);
}

/* ---- signals ------------------------------------------------------------------------------- */

/* The process ends, and what it has stays for the next one. */
static void end_kept(const char *how)
{
	log_info("this process ends for the next one to go on%s", how);
	log_flush();
	_exit(EXIT_KEPT);
}

static atomic_bool restart_wanted;	/* as soon as there is something to go on from */

/* Whether SIGUSR2 is to be taken for SIGTERM. */
static bool plan_restart(struct fsd *fsd)
{
	sigset_t pending;

	/* With systemd a stop is both, SIGTERM first: then it is on its way out for good. */
	sigpending(&pending);
	if (sigismember(&pending, SIGTERM) == 1 || atomic_load(&fsd->stopping) ||
	    status_get_phase() > PHASE_MOUNTED)
		return false;
	if (status_get_phase() == PHASE_DEVICES)
		end_kept(" (it had not begun)");
	if (status_get_phase() == PHASE_LEADER && fsd->keep && atomic_load(&fsd->keep->head->is_valid)) {
		/*
		 * It may wait for ever, and a stop of the unit may be no more than this signal.  Nothing that the kernel
		 * sends has been read yet, so the next process finds what this one has found.
		 */
		lost_report_kept(fsd);
		atomic_fetch_sub(&fsd->keep->head->resumes, 1);
		end_kept(" (no leader has let it in)");
	}
	if (status_get_phase() < PHASE_MOUNTED) {
		atomic_store(&restart_wanted, true);
		/* One that begins anew has nothing yet that another could go on from. */
		if (!fsd->keep || !atomic_load(&fsd->keep->head->is_valid))
			return true;
		/* Its leader may be gone again, and a stop of the unit may be no more than this signal here, too. */
		leave_begin(fsd, true);
		return false;
	}
	if (!keep_has_store()) {
		log_warning("no restart: nobody keeps the kernel's connection for the next process "
			    "(systemd and scoutfsctl run do)");
		return false;
	}
	sdn_status("restarting: requests under way are answered");
	/* A thread that waits in the kernel for an answer keeps a process from ending: so as long as there are answers. */
	if (!gonedirs_stop(GONEDIRS_MS))
		log_warning("%s: a directory is in use by an operation that does not end: this process may not either, and programs "
			    "get errors then; scoutfsctl status shows what that waits for", fsd->conf.mountpoint);
	kcache_stop_reading(fsd);	/* serve() goes on with it */
	return false;
}

static void *signal_thread(void *arg)
{
	struct fsd *fsd = &the_fsd;
	bool is_unmounted = false;
	sigset_t *set = arg;
	int sig;

	for (;;) {
		if (sigwait(set, &sig) != 0)
			continue;
		if (sig == SIGHUP) {
			keys_reload_said(fsd->keys);
			continue;
		}
		if (sig == SIGUSR2 && !plan_restart(fsd))
			continue;
		atomic_store(&fsd->stopping, true);
		if (status_get_phase() == PHASE_DEVICES) {
			/* Nothing is open at anybody yet, and blockd may never come. */
			log_info("stopped while waiting for blockd");
			log_flush();
			_exit(0);
		}
		leave_begin(fsd, false);
		if (status_get_phase() != PHASE_MOUNTED)
			continue;	/* main looks at `stopping`, or is on its way out */
		sdn_stopping();
		if (!is_unmounted) {
			status_unmounts();
			kcache_unmount(fsd, UNMOUNT_GRACE_MS);
		}
		is_unmounted = true;
	}
	return NULL;
}

/* Before any other thread, so that all of them leave signals to that one. */
static int catch_signals(void)
{
	static sigset_t set;
	pthread_t thread;
	int ret;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	ret = thread_start(&thread, "signals", signal_thread, &set);
	if (ret == 0)
		pthread_detach(thread);
	return ret;
}

/* ---- the volume ---------------------------------------------------------------------------- */

static int read_super(struct fsd *fsd, enum blk_device dev, struct disk_super *s)
{
	const char *path = dev == BLK_DEV_META ? fsd->conf.meta_device : fsd->conf.data_device;
	const char *why;
	int ret = blkcli_read_small(fsd->blk, dev, SUPER_BLKNO, s);

	if (ret < 0) {
		log_err("%s: its super block cannot be read: %s", path, strerror(-ret));
		return ret;
	}
	ret = super_check(s, &why);
	if (ret < 0)
		log_err("%s: its super block: %s; is it the right device?", path, why);
	return ret;
}

static int open_volume(struct fsd *fsd)
{
	uint64_t meta_bytes = blkcli_meta_blocks(fsd->blk) << LARGE_SHIFT;
	uint64_t data_bytes = blkcli_data_blocks(fsd->blk) << SMALL_SHIFT;
	struct disk_super *meta = malloc(sizeof(*meta)), *data = malloc(sizeof(*data));
	const char *why = "";
	int ret = -ENOMEM;

	if (!meta || !data)
		goto out;
	ret = read_super(fsd, BLK_DEV_META, meta);
	if (ret == 0)
		ret = read_super(fsd, BLK_DEV_DATA, data);
	if (ret < 0)
		goto out;
	ret = super_check_meta(meta, meta_bytes, &why);
	if (ret < 0) {
		log_err("%s: %s", fsd->conf.meta_device, why);
		goto out;
	}
	ret = super_check_data(data, data_bytes, &why);
	if (ret < 0) {
		log_err("%s: %s", fsd->conf.data_device, why);
		goto out;
	}
	ret = super_check_pair(meta, data, meta_bytes, data_bytes, &why);
	if (ret < 0) {
		log_err("%s and %s: %s", fsd->conf.meta_device, fsd->conf.data_device, why);
		goto out;
	}
	fsd->fsid = le64_get(meta->hdr.fsid);
	fsd->fmt_vers = (uint32_t)le64_get(meta->fmt_vers);
	fsd->total_meta_blocks = le64_get(meta->total_meta_blocks);
	fsd->total_data_blocks = le64_get(meta->total_data_blocks);
out:
	free(meta);
	free(data);
	return ret;
}

static int open_blockd(struct fsd *fsd)
{
	char path[CONF_PATH_BYTES];
	struct blkcli_conf bc = { .socket_path = path, .kind = BLK_KIND_FSD, .rid = fsd->rid,
				  .region_bytes = REGION_BYTES };
	int ret;

	conf_runtime_path(&fsd->conf, "blockd.sock", path, sizeof(path));
	ret = blkcli_open(&fsd->blk, &bc);
	if (ret < 0)
		log_err("%s: blockd does not take this mount: %s", path, strerror(-ret));
	return ret;
}

/* ---- the root ------------------------------------------------------------------------------ */

struct root_op {
	struct op op;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_done;
	int err;
	struct cinode ci;
};

static int run_root(struct op *op, struct itx *tx)
{
	struct root_op *r = (struct root_op *)op;
	int ret = lock_inode(op, ROOT_INO, LOCK_MODE_READ);

	return ret < 0 ? ret : inode_get(tx, ROOT_INO, &r->ci);
}

static void done_root(struct op *op, int err)
{
	struct root_op *r = (struct root_op *)op;

	pthread_mutex_lock(&r->lock);
	r->err = err;
	r->is_done = true;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

static int read_root(struct fsd *fsd)
{
	/* Static: the operation's last touch of it may come after done(). */
	static struct root_op r = {
		.op = { .name = "reading the root", .run = run_root, .done = done_root },
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.cond = PTHREAD_COND_INITIALIZER
	};

	r.op.fsd = fsd;
	op_start(&r.op);
	pthread_mutex_lock(&r.lock);
	while (!r.is_done)
		pthread_cond_wait(&r.cond, &r.lock);
	pthread_mutex_unlock(&r.lock);
	if (r.err < 0)
		log_err("the root directory cannot be read: %s; run scoutfsctl check", strerror(-r.err));
	else if (!S_ISDIR(inode_mode(&r.ci)))
		log_err("inode 1 is not a directory: run scoutfsctl check");
	return r.err < 0 ? r.err : S_ISDIR(inode_mode(&r.ci)) ? 0 : -EIO;
}

/* ---- start and stop ------------------------------------------------------------------------ */

/* The item cache with what an earlier process has left, if that can be gone on from (*is_kept). */
static int open_cache(struct fsd *fsd, bool *is_kept)
{
	int ret = keep_open(fsd);

	*is_kept = ret == 1;
	if (ret < 0)
		return ret;
	ret = items_open(fsd, fsd->conf.runtime_dir, fsd->conf.cache_size, *is_kept);
	if (ret < 0 && ret != -EIO && *is_kept)
		/* Not for what is in it: it does not count as a try, and the next start has it again. */
		atomic_fetch_sub(&fsd->keep->head->resumes, 1);
	if (ret == -EIO && *is_kept) {
		log_warning("what an earlier process has left cannot be read; what it had not stored is lost");
		keep_drop(fsd);
		keep_close(fsd);
		*is_kept = false;
		ret = keep_open(fsd);
		if (ret == 0)
			ret = items_open(fsd, fsd->conf.runtime_dir, fsd->conf.cache_size, false);
	}
	return ret;
}

/* The kernel's connection of an earlier process, when there is one and it can be gone on with. */
static void adopt_connection(struct fsd *fsd, int fd, bool is_kept)
{
	if (fd < 0)
		return;
	if (is_kept && kcache_adopt(fsd, fd) == 0) {
		atomic_store(&fsd->is_resumed, true);
		return;
	}
	log_warning("%s: the connection of an earlier process cannot be gone on with: programs get "
		    "errors, and it is mounted anew",
		    fsd->conf.mountpoint);
	if (!fsd->kcache)
		close(fd);
	kcache_free(fsd);
	keep_forget_descriptor();
}

/*
 * A process that knows of no leader would be let in as a new mount, and this host's blockd refuses its rid: the server
 * here has fenced it (fenced.h).
 */
static void end_if_fenced(struct fsd *fsd)
{
	if (fenced_has(&fsd->conf, fsd->rid) != 1)
		return;
	say_fenced(fsd);
	keep_forget_descriptor();
	log_flush();
	_exit(EXIT_FENCED);
}

static int start_engine(struct fsd *fsd, int fd)
{
	bool is_kept;
	int ret = open_cache(fsd, &is_kept);

	if (ret == 0 && !is_kept)
		end_if_fenced(fsd);
	if (ret == 0)
		adopt_connection(fsd, fd, is_kept);
	if (ret == 0)
		ret = ops_start(fsd, WORKERS);
	if (ret == 0)
		ret = locks_start(fsd);
	if (ret == 0 && is_kept)
		ret = locks_restore(fsd, items_open_gen(fsd));
	if (ret == 0)
		ret = replies_start(fsd, atomic_load(&fsd->is_resumed));
	if (ret == 0)
		ret = advisory_start(fsd, atomic_load(&fsd->is_resumed));
	if (ret == 0)
		ret = shown_start(fsd, atomic_load(&fsd->is_resumed));
	if (ret == 0)
		ret = txn_init(fsd);
	if (ret == 0)
		ret = merge_init(fsd);
	if (ret == 0)
		ret = inos_start(fsd);
	if (ret == 0)
		ret = reader_start(fsd);
	if (ret == 0)
		ret = pool_start(fsd);
	/*
	 * A leader elsewhere may not have heard that the server here has fenced it, and would take it back; it would end at
	 * its first commit, and so would each process after this one.
	 */
	if (ret == 0 && is_kept && fenced_has(&fsd->conf, fsd->rid) == 1)
		fsd_fenced(fsd);
	if (ret < 0)
		log_err("this mount cannot start: %s", strerror(-ret));
	return ret;
}

static int start_session(struct fsd *fsd)
{
	int ret = net_start(fsd);

	if (ret == 0) {
		status_phase(PHASE_LEADER);
		ret = net_wait_greeted(fsd);
	}
	if (ret < 0)
		return ret;
	status_phase(PHASE_OPENING);
	ret = txn_start(fsd);
	if (ret == 0)
		ret = read_root(fsd);
	if (ret == 0)
		ret = data_start_pending(fsd);
	if (ret == 0 && atomic_load(&fsd->stopping))
		ret = -EINTR;
	if (ret == 0)
		ret = orphans_start(fsd);
	if (ret == 0)
		ret = merge_start(fsd);
	if (ret < 0)
		return ret;
	net_answer_maps(fsd, true);
	if (fsd->kcache)
		return 0;
	ret = kcache_mount(fsd);
	if (ret == 0)
		lease_has_connection(fsd);
	return ret;
}

/* Of a mount that was not opened: whether nothing of an earlier process is left. */
static bool has_nothing(struct fsd *fsd)
{
	struct lost l;

	return !fsd->items || (lost_count(fsd, &l) == 0 && lost_is_none(&l));
}

/* Whatever was started; `greeted`: the leader knows this mount.  0, or why what was written is not
 * all stored. */
static int stop_all(struct fsd *fsd, bool greeted)
{
	bool was_opened = fsd->orphans;
	int ret;

	if (fsd->blk)
		blkcli_fuse(fsd->blk, 0);
	caller_stop(CALLERS_GRACE_MS);
	advisory_end_waits(fsd);
	if (fsd->ops)
		/* Requests of a connection that was cut still count inodes in use. */
		ops_drain(fsd);
	lost_note_end(fsd);
	if (fsd->orphans) {
		orphans_drain(fsd);
		net_answer_maps(fsd, false);
		orphans_stop(fsd);
	}
	if (fsd->ops)
		ops_drain(fsd);
	merge_stop(fsd);
	status_phase(PHASE_COMMITTING);
	ret = txn_stop(fsd);
	if (ret < 0)
		log_err("the last commit could not be stored: %s; what was not fsynced may be lost", strerror(-ret));
	/* All there was is stored: from here on there is nothing to go on from. */
	if (ret == 0 && was_opened)
		keep_drop(fsd);
	if (ret == 0)
		leave_farewell(was_opened || has_nothing(fsd));
	status_phase(PHASE_LEAVING);
	if (greeted && ret == 0)
		net_farewell(fsd);
	locks_end_revokes(fsd);
	net_stop(fsd);
	orphans_close(fsd);
	status_detach();
	ops_stop(fsd);
	locks_stop(fsd);
	reader_stop(fsd);
	if (fsd->pool)
		pool_stop(fsd);
	inos_stop(fsd);
	merge_fini(fsd);
	txn_fini(fsd);
	replies_stop(fsd);
	advisory_stop(fsd);
	shown_stop(fsd);
	items_close(fsd);
	kcache_free(fsd);
	keep_close(fsd);
	if (fsd->blk)
		blkcli_close(fsd->blk);
	return ret;
}

struct last_commit {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void last_commit_done(void *arg)
{
	struct last_commit *lc = arg;

	pthread_mutex_lock(&lc->lock);
	lc->done = true;
	pthread_cond_signal(&lc->cond);
	pthread_mutex_unlock(&lc->lock);
}

/* No thread reads requests any more, and the next process is to go on. */
static void end_for_restart(struct fsd *fsd)
{
	static struct last_commit lc = { .lock = PTHREAD_MUTEX_INITIALIZER,
					 .cond = PTHREAD_COND_INITIALIZER };
	bool can_resend = kcache_can_resend(fsd), drained;
	uint64_t end_ns;

	/* What has no answer never gets one: a sleeper for a lock asks again by himself. */
	if (!can_resend)
		advisory_interrupt_waits(fsd);
	drained = ops_drain_for(fsd, can_resend ? DRAIN_MS : DRAIN_ALL_MS, !can_resend);
	end_ns = clock_mono_ns() + STORE_MS * NSEC_PER_MSEC;
	atomic_store(&fsd->keep->head->is_drained, drained);
	txn_commit(fsd, TXN_FSYNC, last_commit_done, &lc);
	pthread_mutex_lock(&lc.lock);
	while (!lc.done && clock_cond_wait(&lc.cond, &lc.lock, end_ns) == 0)
		;
	pthread_mutex_unlock(&lc.lock);
	atomic_store(&fsd->keep->head->resumes, 0);
	end_kept(drained ? "" : "; some requests have no answer yet");
}

static int serve(struct fsd *fsd)
{
	int ret;

	status_phase(PHASE_MOUNTED);
	keep_set_valid(fsd);
	log_info("volume %016llx %s at %s", (unsigned long long)fsd->fsid,
		 atomic_load(&fsd->is_resumed) ? "goes on" : "is mounted", fsd->conf.mountpoint);
	sdn_ready();
	if (atomic_load(&restart_wanted))
		end_for_restart(fsd);
	ret = kcache_serve(fsd);
	if (ret == 0 && kcache_is_draining(fsd))
		end_for_restart(fsd);
	if (ret == 0 && !atomic_load(&fsd->stopping) && kcache_was_cut(fsd)) {
		log_warning("%s: its connection was cut, for this process did not answer in time: what there is will be "
			    "stored, and it is mounted anew", fsd->conf.mountpoint);
		atomic_store(&fsd->was_cut, true);
		ret = -ENOTCONN;
	}
	atomic_store(&fsd->stopping, true);
	sdn_stopping();
	status_phase(PHASE_UNMOUNTING);
	if (ret < 0)
		log_err("%s: the kernel's requests can no longer be read: %s", fsd->conf.mountpoint, strerror(-ret));
	return ret;
}

int main(int argc, char **argv)
{
	struct fsd *fsd = &the_fsd;
	bool done, greeted = false;
	int status, ret, stored, fd;

	status = conf_from_args(&fsd->conf, argc, argv, &done);
	if (status || done)
		return status;
	fd = keep_take_descriptor();
	ret = keys_open_said(&fsd->keys, &fsd->conf);
	if (ret == 0)
		ret = catch_signals();
	if (ret == 0)
		ret = instance_check_runtime_dir(&fsd->conf);
	if (ret == 0)
		ret = instance_rid_get(&fsd->conf, &fsd->rid);
	if (ret == 0)
		ret = status_start(fsd);
	if (ret == 0)
		ret = open_blockd(fsd);
	if (ret == 0)
		ret = open_volume(fsd);
	if (ret == 0)
		ret = start_engine(fsd, fd);
	if (ret == 0) {
		ret = start_session(fsd);
		greeted = fsd->txn && status_get_phase() >= PHASE_OPENING;
		if (ret == 0) {
			ret = serve(fsd);
		} else if (ret == -EINTR) {
			log_info("stopped before the volume was mounted");
			lost_report_kept(fsd);
		}
	}
	stored = stop_all(fsd, greeted);
	status_stop();
	if (ret == -EINTR)
		ret = 0;
	if (lost_report_cut(fsd))
		stored = -EIO;
	return ret < 0 || stored < 0 ? 1 : 0;
}
