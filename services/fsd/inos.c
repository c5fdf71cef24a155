/*
 * Inode numbers: two pools fetched from the leader in runs, so that directories and other inodes
 * fall into different lock groups.  runtime.md 10.1.
 *
 * Promises: no number is handed out twice.  Numbers left over when the mount ends are lost, as are
 * those of operations that failed after they had one; there are 2^64.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "net.h"
#include "op.h"
#include "txn.h"

#define INOS_RUN	10240u
#define INOS_LOW	1024u

static_assert((INODE_LOCK_GROUP & (INODE_LOCK_GROUP - 1)) == 0, "the last of a group has all low bits");

struct ino_pool {
	struct inos *inos;
	uint64_t next, end;
	uint64_t spare_next, spare_end;		/* fetched before it is needed */
	bool is_fetching;
	bool is_exhausted;			/* the leader has no more */
	struct op *waiters;
};

struct inos {
	struct fsd *fsd;
	pthread_mutex_t lock;
	struct ino_pool pools[2];		/* others, directories */
};

int inos_start(struct fsd *fsd)
{
	struct inos *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	in->fsd = fsd;
	in->pools[0].inos = in->pools[1].inos = in;
	pthread_mutex_init(&in->lock, NULL);
	fsd->inos = in;
	return 0;
}

/* After ops_stop: no fetch is under way. */
void inos_stop(struct fsd *fsd)
{
	if (!fsd->inos)
		return;
	pthread_mutex_destroy(&fsd->inos->lock);
	free(fsd->inos);
	fsd->inos = NULL;
}

static void fetch(void *arg)
{
	struct ino_pool *p = arg;
	struct inos *in = p->inos;
	uint64_t start = 0, nr = 0;
	struct op *op, *next;
	int ret = net_alloc_inodes(in->fsd, INOS_RUN, &start, &nr);

	if (ret == 0 && nr && (start < FIRST_INO || start + nr < start)) {
		log_err("the leader's inode numbers %llu + %llu make no sense: run scoutfsctl check",
			(unsigned long long)start, (unsigned long long)nr);
		ret = -EIO;
	}
	pthread_mutex_lock(&in->lock);
	p->is_fetching = false;
	if (ret == 0 && nr == 0)
		p->is_exhausted = true;
	if (ret == 0 && nr && p->next == p->end) {
		p->next = start;
		p->end = start + nr;
	} else if (ret == 0 && nr) {
		p->spare_next = start;
		p->spare_end = start + nr;
	}
	op = p->waiters;
	p->waiters = NULL;
	pthread_mutex_unlock(&in->lock);
	for (; op; op = next) {
		next = op->next;
		if (ret < 0)
			op_fail(op, ret == -ENOSPC ? -ENOSPC : -EIO);
		else
			op_wake(op);
	}
}

/* With the lock held. */
static bool begin_fetch(struct ino_pool *p)
{
	if (p->is_fetching || p->is_exhausted || p->spare_next != p->spare_end)
		return false;
	p->is_fetching = true;
	return true;
}

static void wait_inos(struct op *op)
{
	struct ino_pool *p = op->need.ptr;
	bool now, begin = false;

	pthread_mutex_lock(&p->inos->lock);
	now = p->next != p->end || p->spare_next != p->spare_end || p->is_exhausted;
	if (!now) {
		op->next = p->waiters;
		p->waiters = op;
		begin = begin_fetch(p);
	}
	pthread_mutex_unlock(&p->inos->lock);
	if (begin)
		ops_defer(op->fsd, fetch, p);
	if (now)
		op_wake(op);
}

uint64_t txn_last_unused_ino(const struct itx *tx, bool dir, uint64_t ino)
{
	struct inos *in = tx->fsd->inos;
	const struct ino_pool *p = &in->pools[dir];
	uint64_t last = ino, group_last = ino | (INODE_LOCK_GROUP - 1);

	pthread_mutex_lock(&in->lock);
	if (p->next == ino + 1 && p->next != p->end)
		last = p->end - 1 < group_last ? p->end - 1 : group_last;
	pthread_mutex_unlock(&in->lock);
	return last;
}

int txn_alloc_ino(struct op *op, struct itx *tx, bool dir, uint64_t *ino)
{
	struct inos *in = tx->fsd->inos;
	struct ino_pool *p = &in->pools[dir];
	bool begin = false;
	int ret = 0;

	pthread_mutex_lock(&in->lock);
	if (p->next == p->end && p->spare_next != p->spare_end) {
		p->next = p->spare_next;
		p->end = p->spare_end;
		p->spare_next = p->spare_end = 0;
	}
	if (p->next != p->end)
		*ino = p->next++;
	else
		ret = p->is_exhausted ? -ENOSPC : -EINPROGRESS;
	if (ret == 0 && p->end - p->next < INOS_LOW)
		begin = begin_fetch(p);
	pthread_mutex_unlock(&in->lock);
	if (begin)
		ops_defer(in->fsd, fetch, p);
	if (ret != -EINPROGRESS)
		return ret;
	op->need.ptr = p;
	return op_park(op, wait_inos);
}
