/*
 * Before programs that do not let go of the mount are cut off, the kernel is told to drop all
 * pages, and writes back what was stored to them through mappings first.  (syncfs(2) would need a
 * descriptor of the mount, which would keep it from ending when its last user lets go.)
 *
 * Promises: it takes no longer than it is given: what waits for a lock, for room or for a device
 * then is left to the cut, which ends the wait.  It is not begun without a lease or a leader: then
 * nothing can be stored, and programs wait as they would.
 *
 * Whether something is lost all the same is known, not guessed.  Each page is dropped, so who
 * stores to one afterwards has it read again.  If every page was dropped, and no read was answered
 * from before the first was until the cut, nobody can have stored anything since.  A page that is
 * locked for a read while the others are dropped is waited for; that read is answered, and counts.
 */
#include "saved.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "busy.h"
#include "clock.h"
#include "fuse.h"
#include "log.h"
#include "lost.h"
#include "net_client.h"

struct saved {
	struct fsd *fsd;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	uint64_t reads; /* answered before the first page was dropped */
	bool is_done;	/* all pages were, before the cut */
	bool is_late;
};

static void *drop_pages(void *arg)
{
	struct saved *s = arg;

	kcache_forget_all(s->fsd, true);
	pthread_mutex_lock(&s->mutex);
	s->is_done = !s->is_late;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->mutex);
	return NULL;
}

static bool has_leader(struct fsd *fsd)
{
	struct net_client_stats st;

	if (!fsd->net || atomic_load(&fsd->lease_lost_ns))
		return false;
	net_client_get_stats(fsd->net, &st);
	return st.greeted;
}

struct saved *saved_begin(struct fsd *fsd, unsigned ms)
{
	uint64_t end_ns = clock_mono_ns() + ms * NSEC_PER_MSEC;
	struct saved *s;
	int ret;

	if (!lost_may_have_stores(fsd) || !has_leader(fsd))
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->fsd = fsd;
	s->reads = busy_reads_ended();
	atomic_store(&fsd->stores_failed, 0);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->cond, NULL);
	ret = pthread_create(&s->thread, NULL, drop_pages, s);
	if (ret) {
		log_warning("%s: stores to mappings are not written back before the end: %s",
			    fsd->conf.mountpoint, strerror(ret));
		pthread_cond_destroy(&s->cond);
		pthread_mutex_destroy(&s->mutex);
		free(s);
		return NULL;
	}
	pthread_mutex_lock(&s->mutex);
	while (!s->is_done && clock_cond_wait(&s->cond, &s->mutex, end_ns) != ETIMEDOUT)
		;
	s->is_late = !s->is_done;
	pthread_mutex_unlock(&s->mutex);
	if (s->is_late)
		log_warning("%s: what programs have stored to mappings could not all be written "
			    "back in %u s",
			    fsd->conf.mountpoint, ms / 1000);
	return s;
}

void saved_end(struct saved *s)
{
	if (!s)
		return;
	pthread_join(s->thread, NULL); /* the cut has ended what it waited for */
	if (s->is_done && busy_reads_ended() == s->reads) {
		atomic_store(&s->fsd->stores_saved, true);
		log_notice("%s: what the programs that were cut off had stored to mappings has "
			   "been written back",
			   s->fsd->conf.mountpoint);
	}
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->mutex);
	free(s);
}
