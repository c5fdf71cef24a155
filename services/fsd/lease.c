/*
 * Keeping the lease.  What is decided stands in lib/core/lease; here are its clock, its thread and what
 * follows from its decisions.
 *
 * Promises: blockd is told of each lease before anything relies on it; when a lease has run out no operation
 * begins, and the kernel is made to ask again for every name, attribute and page.  Dropping attributes and
 * names waits for nobody, and without them the kernel shows no file to a system call; dropping pages may wait
 * for an operation that waits for the lease, so it has a thread of its own, which then goes on when there
 * is one again.  blockd hears when we begin and when names and attributes are gone; if it does not (we are stopped,
 * or hang) it cuts the connection.
 *
 * Writes need nothing of this: blockd refuses them when the lease has run out, and blkcli sends them again.
 */
#include "lease.h"

#include <errno.h>
#include <stdlib.h>

#include "blkcli.h"
#include "clock.h"
#include "fuse.h"
#include "keep.h"
#include "lease/lease.h"
#include "log.h"
#include "net_client.h"
#include "op.h"
#include "thread.h"
#include "txn.h"

/* The condition's clock stands still while the machine sleeps, and the lease's does not. */
#define LOOK_NS		(500 * NSEC_PER_MSEC)

struct lease_keeper {
	struct fsd *fsd;
	pthread_mutex_t lock;
	pthread_cond_t cond;		/* of both threads */
	struct lease_holder h;
	bool greeted, stopping;
	bool has_threads;
	bool must_withdraw;
	uint64_t greeted_term;
	uint64_t lost_ns;
	pthread_t thread, withdrawer;
};

/* The question that is under way, freed with its answer. */
struct ask {
	struct lease_keeper *k;
	uint64_t id;
};

static void answered(void *arg, int err, unsigned type, const void *reply);

static void step(struct lease_keeper *k, const struct lease_hold_in *in);

static void ask_leader(struct lease_keeper *k, uint64_t id)
{
	struct msg_lease m = { .failing_ms = txn_failing_ms(k->fsd) };
	struct ask *a = malloc(sizeof(*a));
	int ret = -ENOMEM;

	if (a) {
		*a = (struct ask){ k, id };
		ret = k->stopping ? -ESHUTDOWN : net_client_call(k->fsd->net, MSG_lease, &m, answered, a);
	}
	if (ret == 0)
		return;
	free(a);
	step(k, &(struct lease_hold_in){ .kind = LEASE_HOLD_FAILED, .id = id });
}

/*
 * What blockd shall know of our connection: it cuts one that nobody makes forget.  With a lease only, or what an
 * earlier process has said stands.
 */
static void say_connection(struct lease_keeper *k, bool is_forgotten, uint32_t flags)
{
	uint32_t minor = k->fsd->kcache ? atomic_load(&k->fsd->keep->head->dev_minor) : 0;

	if (minor)
		blkcli_fuse(k->fsd->blk, is_forgotten ? 0 : minor | flags);
}

static void lose(struct lease_keeper *k)
{
	k->lost_ns = clock_mono_ns();
	atomic_store(&k->fsd->lease_lost_ns, k->lost_ns);
	say_connection(k, false, BLK_FUSE_WITHDRAWS);
	log_warning("this mount's lease has run out: its operations wait for the leader");
	ops_hold(k->fsd, true);
	k->must_withdraw = true;
	pthread_cond_broadcast(&k->cond);
}

static void resume(struct lease_keeper *k)
{
	say_connection(k, false, 0);
	atomic_store(&k->fsd->lease_lost_ns, 0);
	if (!k->lost_ns)
		return;
	log_notice("there is a lease again after %.1f s: operations go on",
		   (double)(clock_mono_ns() - k->lost_ns) / 1e9);
	k->lost_ns = 0;
	ops_hold(k->fsd, false);
}

/* With the lock held. */
static void step(struct lease_keeper *k, const struct lease_hold_in *in)
{
	struct lease_hold_acts acts;

	lease_holder_step(&k->h, in, clock_boot_ns(), &acts);
	lease_holder_check(&k->h);
	for (size_t i = 0; i < acts.nr; i++) {
		const struct lease_hold_act *a = &acts.v[i];

		switch (a->kind) {
		case LEASE_HOLD_ASK:
			ask_leader(k, a->id);
			break;
		case LEASE_HOLD_USE:
			blkcli_lease(k->fsd->blk, BLK_KIND_FSD, a->term, a->until_ns);
			break;
		case LEASE_HOLD_LOSE:
			lose(k);
			break;
		case LEASE_HOLD_RESUME:
			resume(k);
			break;
		case LEASE_HOLD_END:
			break;		/* net.c ends the process */
		}
	}
}

static void answered(void *arg, int err, unsigned type, const void *reply)
{
	struct ask *a = arg;
	struct lease_keeper *k = a->k;
	const struct msg_lease_reply *m = reply;
	struct lease_hold_in in = { .kind = LEASE_HOLD_FAILED, .id = a->id };

	(void)type;
	/* A lease of no length, or one that no leader gives, is none. */
	if (err == 0 && m->lease_ms >= LEASE_MS_MIN && m->lease_ms <= LEASE_MS_MAX) {
		in.kind = LEASE_HOLD_GRANTED;
		in.lease_ns = m->lease_ms * NSEC_PER_MSEC;
	}
	pthread_mutex_lock(&k->lock);
	in.term = k->greeted_term;
	step(k, &in);
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	free(a);
}

static void wait_until(struct lease_keeper *k, uint64_t deadline_ns)
{
	uint64_t now = clock_boot_ns();
	uint64_t ns = deadline_ns <= now ? 0 : deadline_ns - now < LOOK_NS ? deadline_ns - now : LOOK_NS;

	clock_cond_wait(&k->cond, &k->lock, clock_mono_ns() + ns);
}

static void *keep(void *arg)
{
	struct lease_keeper *k = arg;

	pthread_mutex_lock(&k->lock);
	while (!k->stopping) {
		struct lease_hold_in in = { .kind = LEASE_HOLD_TICK };

		if (k->greeted) {
			k->greeted = false;
			in = (struct lease_hold_in){ .kind = LEASE_HOLD_GREETED, .term = k->greeted_term };
		}
		step(k, &in);
		if (!k->greeted)
			wait_until(k, lease_holder_deadline(&k->h));
	}
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

static void *withdraw(void *arg)
{
	struct lease_keeper *k = arg;

	pthread_mutex_lock(&k->lock);
	while (!k->stopping) {
		if (!k->must_withdraw) {
			pthread_cond_wait(&k->cond, &k->lock);
			continue;
		}
		k->must_withdraw = false;
		pthread_mutex_unlock(&k->lock);
		kcache_forget_all(k->fsd, false);
		pthread_mutex_lock(&k->lock);
		if (k->lost_ns)
			say_connection(k, true, 0);
		pthread_mutex_unlock(&k->lock);
		kcache_forget_all(k->fsd, true);
		pthread_mutex_lock(&k->lock);
	}
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

int lease_open(struct fsd *fsd)
{
	struct lease_keeper *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->fsd = fsd;
	lease_holder_init(&k->h);
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->cond, NULL);
	fsd->lease = k;
	return 0;
}

int lease_start(struct fsd *fsd)
{
	struct lease_keeper *k = fsd->lease;
	int ret = thread_start(&k->thread, "lease", keep, k);

	if (ret < 0)
		return ret;
	ret = thread_start(&k->withdrawer, "withdrawal", withdraw, k);
	if (ret == 0) {
		k->has_threads = true;
		return 0;
	}
	pthread_mutex_lock(&k->lock);
	k->stopping = true;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->thread, NULL);
	return ret;
}

void lease_stop(struct fsd *fsd)
{
	struct lease_keeper *k = fsd->lease;

	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stopping = true;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	if (!k->has_threads)
		return;
	pthread_join(k->thread, NULL);
	pthread_join(k->withdrawer, NULL);
}

void lease_close(struct fsd *fsd)
{
	struct lease_keeper *k = fsd->lease;

	if (!k)
		return;
	fsd->lease = NULL;
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->cond);
	free(k);
}

void lease_greeted(struct fsd *fsd, uint64_t term)
{
	struct lease_keeper *k = fsd->lease;

	pthread_mutex_lock(&k->lock);
	k->greeted = true;
	k->greeted_term = term;
	/* The first one may be gone again before it gives a lease, and a stop waits for as long as for one that ran out. */
	if (k->h.state == LEASE_HOLDER_NONE && !atomic_load(&fsd->lease_lost_ns))
		atomic_store(&fsd->lease_lost_ns, clock_mono_ns());
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
}

void lease_has_connection(struct fsd *fsd)
{
	struct lease_keeper *k = fsd->lease;

	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	if (lease_holder_may(&k->h, clock_boot_ns()))
		say_connection(k, false, 0);
	pthread_mutex_unlock(&k->lock);
}

uint64_t lease_left_ms(struct fsd *fsd, uint64_t *losses)
{
	struct lease_keeper *k = fsd->lease;
	uint64_t now = clock_boot_ns(), left = 0;

	*losses = 0;
	if (!k)
		return 0;
	pthread_mutex_lock(&k->lock);
	if (lease_holder_may(&k->h, now))
		left = (k->h.until_ns - now) / NSEC_PER_MSEC;
	*losses = k->h.losses;
	pthread_mutex_unlock(&k->lock);
	return left;
}
