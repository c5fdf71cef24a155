/*
 * The calls of a blockd client (blkcli.h).  The connection lives in blkcli_conn.c.
 *
 * A call is cut into pieces, each of which owns one slot of a fixed table from the moment it is filled
 * until its completion was taken (or the call gave up).  A slot's descriptor stays in the table until
 * then, so a new connection can send every unanswered one again: all four operations may be done twice,
 * because their caller is still waiting and nobody else can have been given the blocks.
 *
 * There is no completion thread on the fast path.  Of the threads that wait, one at a time is the
 * reaper: it spins on the completion index, then sleeps on the eventfd, hands out what came, and when
 * its own call is done wakes another waiter to take over.  While it is alone it sleeps until all of its call
 * is completed, so that a call of many operations costs one wake-up; whoever joins it ends that.  The
 * connection thread takes a ring away only while nobody reaps.
 *
 * Bytes that lie outside pool and region are copied through the slot's own 64 KiB of the region, behind
 * the callers' part: whoever has a slot can make progress.
 */
#include "blkcli.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "blkcli_impl.h"
#include "clock.h"

/* ---- waiting ---- */

/*
 * The reaper is not alone any more: it may sleep for long, and what somebody else waits for be there.  The
 * doorbell is rung whether it sleeps yet or not.
 */
static void reaper_disturb(struct blkcli *c)
{
	uint64_t one = 1;

	if (!c->is_reaping || c->reap_for <= 1)
		return;
	__atomic_store_n(&c->reap_for, 1, __ATOMIC_RELAXED);
	/* It can only fail by being rung already. */
	if (write(c->cq_efd, &one, sizeof(one)) < 0)
		return;
}

static void waiter_link(struct blkcli *c, struct waiter *w)
{
	pthread_condattr_t attr;

	memset(w, 0, sizeof(*w));
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->cond, &attr);
	pthread_condattr_destroy(&attr);
	if (c->conf.deadline_ms)
		w->deadline_ns = clock_mono_ns() + c->conf.deadline_ms * 1000000ull;
	w->next = c->waiters;
	c->waiters = w;
	reaper_disturb(c);
}

/* Leave the list; somebody else takes over reaping. */
static void waiter_unlink(struct blkcli *c, struct waiter *w)
{
	struct waiter **p = &c->waiters;

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	if (c->waiters && !c->is_reaping)
		pthread_cond_signal(&c->waiters->cond);
	pthread_cond_destroy(&w->cond);
}

static void slot_free(struct blkcli *c, struct slot *s)
{
	s->state = SLOT_FREE;
	s->waiter = NULL;
	s->op = NULL;
	s->gen++;
	c->free[c->free_nr++] = (uint32_t)(s - c->slots);
}

static void op_fail(struct blkcli_op *op, int err)
{
	if (op->result == 0)
		op->result = err;
}

static void slot_complete(struct blkcli *c, struct slot *s, int result)
{
	struct waiter *w = s->waiter;

	if (result > 0)
		result = -EIO;
	/* -EINVAL of one that is ordered is an older blockd's, and it is asked again. */
	if (result < 0 && s->desc.op == BLK_OP_FLUSH && !(result == -EINVAL && s->desc.flags & BLKRING_AFTER))
		c->flush_failures[s->desc.dev]++;
	/* The connection's thread sends it again when there may be a lease. */
	if (result == -EKEYEXPIRED && w && c->conf.kind == BLK_KIND_FSD) {
		s->state = SLOT_WAITING;
		c->stats.lease_waits++;
		if (!c->must_resend)
			client_wake_conn(c);
		c->must_resend = true;
		return;
	}
	if (w) {
		if (result < 0)
			op_fail(s->op, result);
		else if (s->copy_to)
			memcpy(s->copy_to, client_bounce(c, s), s->desc.len);
		if (--w->pending == 0)
			pthread_cond_signal(&w->cond);
	}
	if (result < 0)
		c->stats.errors++;
	slot_free(c, s);
}

void client_leave_chain(struct blkcli *c, struct slot *s)
{
	if (!s->desc.chain)
		return;
	s->desc.chain = 0;
	if (s->desc.flags & BLKRING_LAST)
		slot_complete(c, s, -EAGAIN);
}

int client_drain(struct blkcli *c)
{
	struct blkring_desc d;
	bool freed = false;
	int ret;

	while ((ret = blkring_pop(&c->ring->cq_tail, &c->ring->cq_head, &c->cq_head, c->ring->cq,
				  &d)) > 0) {
		uint32_t index = (uint32_t)d.tag;
		struct slot *s;

		if (index >= BLKRING_ENTRIES) {
			ret = -EPROTO;
			break;
		}
		s = &c->slots[index];
		if (s->state != SLOT_SENT || s->desc.tag != d.tag) {
			ret = -EPROTO;
			break;
		}
		slot_complete(c, s, d.result);
		freed = true;
	}
	if (freed) {
		for (struct waiter *w = c->waiters; w; w = w->next)
			if (w->wants_slot)
				pthread_cond_signal(&w->cond);
	}
	return ret < 0 ? ret : freed;
}

/* Without the lock, by the reaper. */
static bool has_enough(const struct blkcli *c, const struct blkring_shared *ring)
{
	uint32_t nr = blkring_load(&ring->cq_tail) - c->cq_head;

	return nr >= __atomic_load_n(&c->reap_for, __ATOMIC_RELAXED);
}

static void reap_sleep(struct blkcli *c, struct blkring_shared *ring, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = c->cq_efd, .events = POLLIN };
	uint64_t now = clock_mono_ns();
	uint64_t count;
	int timeout = -1;

	if (deadline_ns) {
		uint64_t ms = deadline_ns > now ? (deadline_ns - now) / 1000000 + 1 : 0;

		timeout = ms < 3600000 ? (int)ms : 3600000;
	}
	blkring_store(&ring->client_sleeps, __atomic_load_n(&c->reap_for, __ATOMIC_RELAXED));
	blkring_fence();
	if (!has_enough(c, ring))
		(void)poll(&pfd, 1, timeout);
	blkring_store(&ring->client_sleeps, 0);
	/* Not blocking: says only that somebody rang. */
	if (read(c->cq_efd, &count, sizeof(count)) < 0)
		count = 0;
}

/* Wait for completions as the reaper.  Called and returns with the lock held. */
static void reap(struct blkcli *c, const struct waiter *w)
{
	struct blkring_shared *ring = c->ring;
	uint64_t start, spin_ns;
	bool found;
	int ret;

	ret = client_drain(c);
	if (ret == 0) {
		c->is_reaping = true;
		/* Writes that wait for a lease have no completion yet. */
		c->reap_for = w->next || c->waiters != w || w->wants_slot || c->must_resend ? 1 :
			      (uint32_t)w->pending;
		pthread_mutex_unlock(&c->lock);
		start = clock_mono_ns();
		spin_ns = blkring_spin_ns(&c->spin);
		while (!(found = has_enough(c, ring))) {
			if (clock_mono_ns() - start > spin_ns)
				break;
			blkring_relax();
		}
		if (!found)
			reap_sleep(c, ring, w->deadline_ns);
		blkring_spin_end(&c->spin, clock_mono_ns() - start);
		pthread_mutex_lock(&c->lock);
		c->is_reaping = false;
		ret = client_drain(c);
		if (!c->is_connected)
			pthread_cond_broadcast(&c->conn_cond);
	}
	if (ret < 0)
		client_fail(c, "blockd completed what was not asked of it");
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
				  .tv_nsec = (long)(ns % 1000000000) };
}

/* Wait until something may have changed.  -ETIMEDOUT. */
static int client_wait(struct blkcli *c, struct waiter *w)
{
	struct timespec ts;

	client_kick(c);
	if (w->deadline_ns && clock_mono_ns() >= w->deadline_ns)
		return -ETIMEDOUT;
	if (c->is_connected && !c->is_reaping) {
		reap(c, w);
	} else if (w->deadline_ns) {
		ts = timespec_of(w->deadline_ns);
		pthread_cond_timedwait(&w->cond, &c->lock, &ts);
	} else {
		pthread_cond_wait(&w->cond, &c->lock);
	}
	return 0;
}

/* ---- running operations ---- */

/* What a piece's bytes are called in the ring; false: they must be copied. */
static bool region_of(const struct blkcli *c, const void *buf, uint32_t *region, uint64_t *off)
{
	uintptr_t p = (uintptr_t)buf;

	if (p % BLKRING_ALIGN)
		return false;
	if (c->pool && p >= (uintptr_t)c->pool && p - (uintptr_t)c->pool < c->pool_bytes) {
		*region = BLK_REGION_POOL;
		*off = p - (uintptr_t)c->pool;
		return true;
	}
	if (p >= (uintptr_t)c->region && p - (uintptr_t)c->region < c->user_bytes) {
		*region = BLK_REGION_PRIVATE;
		*off = p - (uintptr_t)c->region;
		return true;
	}
	return false;
}

static int op_check(const struct blkcli_op *op)
{
	if (op->op < BLK_OP_READ || op->op >= BLK_OP_END || op->dev >= BLK_DEVS_NR)
		return -EINVAL;
	if (op->op == BLK_OP_FLUSH)
		return op->len == 0 && op->dev_off == 0 && !op->is_durable ? 0 : -EINVAL;
	if (op->is_after)
		return -EINVAL;
	if (op->len == 0 || op->len % BLKRING_ALIGN || op->dev_off % BLKRING_ALIGN ||
	    op->dev_off > (uint64_t)INT64_MAX - op->len)
		return -EINVAL;
	if ((op->op != BLK_OP_DISCARD && !op->buf) || (op->op != BLK_OP_WRITE && op->is_durable))
		return -EINVAL;
	return 0;
}

/* Take a slot, waiting for one.  -ETIMEDOUT. */
static int slot_get(struct blkcli *c, struct waiter *w, struct slot **out)
{
	int ret = 0;

	w->wants_slot = true;
	while (c->free_nr == 0 && ret == 0)
		ret = client_wait(c, w);
	w->wants_slot = false;
	if (ret < 0)
		return ret;
	*out = &c->slots[c->free[--c->free_nr]];
	(*out)->state = SLOT_FILLING;
	return 0;
}

/* Make a piece one of the call's chain. */
static void piece_chain(struct waiter *w, struct slot *s, bool is_last)
{
	s->desc.chain = w->chain;
	if (!is_last) {
		w->chain_nr++;
		return;
	}
	s->desc.flags |= BLKRING_LAST;
	s->desc.before_nr = w->chain_nr;
	s->desc.expect_seq = w->expect_seq;
	s->desc.expect_crc = w->expect_crc;
}

/* Send the piece of op that starts at byte pos; *done says how much it was.  -ETIMEDOUT. */
static int piece_send(struct blkcli *c, struct waiter *w, struct blkcli_op *op, uint32_t pos,
		      bool is_last, uint32_t *done)
{
	struct slot *s;
	char *bytes = op->op == BLK_OP_DISCARD || op->op == BLK_OP_FLUSH ? NULL :
		      (char *)op->buf + pos;
	uint32_t len = op->len - pos;
	uint32_t region = 0;
	uint64_t off = 0;
	bool direct = true;
	int ret;

	ret = slot_get(c, w, &s);
	if (ret < 0)
		return ret;
	s->copy_to = NULL;
	if (bytes) {
		direct = region_of(c, bytes, &region, &off);
		if (direct) {
			len = len < BLKRING_LEN_MAX ? len : BLKRING_LEN_MAX;
			assert(off + len <=
			       (region == BLK_REGION_POOL ? c->pool_bytes : c->user_bytes));
		} else {
			region = BLK_REGION_PRIVATE;
			off = c->user_bytes + (uint64_t)(s - c->slots) * BOUNCE_BYTES;
			len = len < BOUNCE_BYTES ? len : BOUNCE_BYTES;
		}
	} else if (op->op == BLK_OP_DISCARD) {
		len = len < BLKRING_DISCARD_MAX ? len : BLKRING_DISCARD_MAX;
	}
	s->desc = (struct blkring_desc){
		.op = op->op,
		.dev = op->dev,
		.flags = op->is_durable ? BLKRING_DURABLE : op->is_after ? BLKRING_AFTER : 0,
		.tag = (uint64_t)s->gen << 32 | (uint64_t)(s - c->slots),
		.region = region,
		.len = len,
		.region_off = off,
		.dev_off = op->dev_off + pos,
	};
	if (!direct) {
		c->stats.bounced++;
		if (op->op == BLK_OP_READ) {
			s->copy_to = bytes;
		} else {
			client_kick(c);
			pthread_mutex_unlock(&c->lock);
			memcpy(client_bounce(c, s), bytes, len);
			pthread_mutex_lock(&c->lock);
		}
	}
	s->op = op;
	s->waiter = w;
	s->state = SLOT_WAITING;
	w->pending++;
	c->stats.ops++;
	*done = len;
	if (w->chain) {
		piece_chain(w, s, is_last);
		if (c->connection != w->chain_connection || !c->is_connected)
			client_leave_chain(c, s);
	}
	if (s->state == SLOT_WAITING)
		client_send_slot(c, s);
	return 0;
}

/* Give up on whatever of this call has not been answered. */
static void call_abandon(struct blkcli *c, struct waiter *w)
{
	for (size_t i = 0; i < BLKRING_ENTRIES; i++) {
		struct slot *s = &c->slots[i];

		if (s->state == SLOT_FREE || s->waiter != w)
			continue;
		op_fail(s->op, -ETIMEDOUT);
		s->waiter = NULL;
		s->op = NULL;
		s->copy_to = NULL;
		/* blockd may still work on it: the slot is not free before it says so or is gone. */
		if (s->state != SLOT_SENT)
			slot_free(c, s);
	}
	c->stats.timeouts++;
}

static int first_error(const struct blkcli_op *ops, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		if (ops[i].result < 0)
			return ops[i].result;
	return 0;
}

struct expected_super {
	uint64_t seq;
	uint32_t crc;
};

/* With the lock held.  -EAGAIN: this blockd, or none, knows no chains. */
static int chain_begin(struct blkcli *c, struct waiter *w, const struct expected_super *expect)
{
	if (!c->is_connected || !(c->can & BLK_CAN_CHAIN))
		return -EAGAIN;
	w->chain = ++c->chains;
	w->chain_connection = c->connection;
	w->expect_seq = expect->seq;
	w->expect_crc = expect->crc;
	return 0;
}

/*
 * Results are in ops. *was_resent: not all was sent in the order of ops.  expect: they make a
 * chain, or NULL. -ETIMEDOUT; -EAGAIN: nothing was sent, for they cannot make one.
 */
static int run_once(struct blkcli *c, struct blkcli_op *ops, size_t nr,
		    const struct expected_super *expect, bool *was_resent)
{
	struct waiter w;
	int ret = 0;
	size_t i;

	for (i = 0; i < nr; i++)
		ops[i].result = op_check(&ops[i]);
	if (expect && first_error(ops, nr) < 0)
		return first_error(ops, nr);

	pthread_mutex_lock(&c->lock);
	waiter_link(c, &w);
	if (expect && chain_begin(c, &w, expect) < 0) {
		waiter_unlink(c, &w);
		pthread_mutex_unlock(&c->lock);
		return -EAGAIN;
	}
	for (i = 0; i < nr && ret == 0; i++) {
		uint32_t pos = 0;

		if (ops[i].result < 0)
			continue;
		do {
			uint32_t done = 0;

			ret = piece_send(c, &w, &ops[i], pos, i + 1 == nr, &done);
			if (ret < 0)
				op_fail(&ops[i], ret);
			pos += done;
		} while (ret == 0 && pos < ops[i].len);
	}
	client_kick(c);
	while (ret == 0 && w.pending > 0)
		ret = client_wait(c, &w);
	if (ret < 0) {
		call_abandon(c, &w);
		for (; i < nr; i++)
			op_fail(&ops[i], ret);
	}
	*was_resent = w.was_resent;
	waiter_unlink(c, &w);
	pthread_mutex_unlock(&c->lock);
	return ret;
}

/*
 * Whether a flush may have begun before a write that it was to cover had ended: something was sent again, or
 * blockd is of before there was such an order, and has refused it.
 */
static bool must_flush_again(const struct blkcli_op *op, bool was_resent)
{
	return op->op == BLK_OP_FLUSH && op->is_after && op_check(op) == 0 &&
	       (op->result == -EINVAL || (op->result == 0 && was_resent));
}

static int flush_once(struct blkcli *c, uint8_t dev)
{
	struct blkcli_op flush = { .op = BLK_OP_FLUSH, .dev = dev };
	bool unused;

	run_once(c, &flush, 1, NULL, &unused);
	return flush.result;
}

/* A durable write that was refused, by a blockd of before there were any: as a write and a flush. */
static void write_and_flush(struct blkcli *c, struct blkcli_op *op)
{
	bool unused;

	op->is_durable = false;
	run_once(c, op, 1, NULL, &unused);
	op->is_durable = true;
	if (op->result == 0)
		op->result = flush_once(c, op->dev);
}

int blkcli_run_chain(struct blkcli *c, struct blkcli_op *ops, size_t nr, uint64_t seq, uint32_t crc)
{
	struct expected_super expect = { seq, crc };
	bool unused;
	int ret = run_once(c, ops, nr, &expect, &unused);

	return ret == -EAGAIN ? ret : first_error(ops, nr);
}

int blkcli_run(struct blkcli *c, struct blkcli_op *ops, size_t nr)
{
	bool was_resent;
	int ret = run_once(c, ops, nr, NULL, &was_resent);

	for (size_t i = 0; i < nr && ret != -ETIMEDOUT; i++) {
		if (must_flush_again(&ops[i], was_resent))
			ops[i].result = flush_once(c, ops[i].dev);
		else if (ops[i].is_durable && ops[i].result == -EINVAL && op_check(&ops[i]) == 0)
			write_and_flush(c, &ops[i]);
	}
	return first_error(ops, nr);
}

/* ---- controls ---- */

static int control_run(struct blkcli *c, enum blkmsg_type type, uint64_t value)
{
	struct timespec ts;
	uint64_t deadline_ns = 0;
	int ret = 0;

	if (c->conf.deadline_ms)
		deadline_ns = clock_mono_ns() + c->conf.deadline_ms * 1000000ull;
	ts = timespec_of(deadline_ns);

	pthread_mutex_lock(&c->lock);
	while (c->control.state != CONTROL_NONE && ret == 0)
		ret = deadline_ns ? pthread_cond_timedwait(&c->conn_cond, &c->lock, &ts) :
				    pthread_cond_wait(&c->conn_cond, &c->lock);
	if (ret == 0) {
		c->control.state = CONTROL_WAITING;
		c->control.msg.hdr = blkmsg_header(type);
		c->control.msg.id++;
		c->control.msg.value = value;
		client_wake_conn(c);
		while (c->control.state != CONTROL_DONE && ret == 0)
			ret = deadline_ns ? pthread_cond_timedwait(&c->conn_cond, &c->lock, &ts) :
					    pthread_cond_wait(&c->conn_cond, &c->lock);
		if (c->control.state == CONTROL_DONE) {
			ret = c->control.result;
			/* A server's token follows the term it set, in later connections too. */
			if (ret == 0 && type == BLKMSG_SET_TERM && c->conf.kind == BLK_KIND_SERVERD)
				c->conf.term = value;
		} else {
			ret = -ETIMEDOUT;
		}
		c->control.state = CONTROL_NONE;
		pthread_cond_broadcast(&c->conn_cond);
	} else {
		ret = -ETIMEDOUT;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

int blkcli_set_term(struct blkcli *c, uint64_t term)
{
	return control_run(c, BLKMSG_SET_TERM, term);
}

int blkcli_revoke(struct blkcli *c, uint64_t rid)
{
	return control_run(c, BLKMSG_REVOKE, rid);
}

int blkcli_revoke_mount(struct blkcli *c, uint64_t rid)
{
	return control_run(c, BLKMSG_REVOKE_MOUNT, rid);
}

bool blkcli_can_revoke_mount(struct blkcli *c)
{
	bool can;

	pthread_mutex_lock(&c->lock);
	can = c->can & BLK_CAN_REVOKE_MOUNT;
	pthread_mutex_unlock(&c->lock);
	return can;
}

/* ---- leases ---- */

void blkcli_lease(struct blkcli *c, uint32_t kind, uint64_t term, uint64_t until_ns)
{
	pthread_mutex_lock(&c->lock);
	c->lease.kind = kind;
	c->lease.rid = c->conf.rid;
	c->lease.term = term;
	c->lease.until_ns = until_ns;
	c->lease_is_due = true;
	pthread_mutex_unlock(&c->lock);
	client_wake_conn(c);
}

void blkcli_fuse(struct blkcli *c, uint32_t fuse_id)
{
	pthread_mutex_lock(&c->lock);
	c->lease.kind = c->conf.kind;
	c->lease.rid = c->conf.rid;
	c->lease.fuse_id = fuse_id;
	c->lease_is_due = true;
	pthread_mutex_unlock(&c->lock);
	client_wake_conn(c);
}

bool blkcli_waits_for_lease(struct blkcli *c)
{
	bool waits;

	pthread_mutex_lock(&c->lock);
	waits = c->must_resend;
	pthread_mutex_unlock(&c->lock);
	return waits;
}

/* ---- the private region ---- */

static size_t pages_of(size_t bytes)
{
	return (bytes + BLKRING_ALIGN - 1) / BLKRING_ALIGN;
}

/* First page of a free run of nr pages at or after `from`, or -1.  runs[] is 0 on free pages. */
static ssize_t run_find(const struct blkcli *c, size_t from, size_t nr)
{
	size_t pages = c->user_bytes / BLKRING_ALIGN;
	size_t i = from;
	size_t len = 0;

	while (i < pages) {
		if (c->runs[i]) {
			i += c->runs[i];
			len = 0;
			continue;
		}
		i++;
		if (++len == nr)
			return (ssize_t)(i - nr);
	}
	return -1;
}

void *blkcli_buf_alloc(struct blkcli *c, size_t bytes)
{
	size_t nr = pages_of(bytes ? bytes : 1);
	ssize_t at;

	if (nr > c->user_bytes / BLKRING_ALIGN)
		return NULL;
	pthread_mutex_lock(&c->buf_lock);
	while ((at = run_find(c, 0, nr)) < 0)
		pthread_cond_wait(&c->buf_cond, &c->buf_lock);
	c->runs[at] = (uint32_t)nr;
	pthread_mutex_unlock(&c->buf_lock);
	return (char *)c->region + (size_t)at * BLKRING_ALIGN;
}

void blkcli_buf_free(struct blkcli *c, void *buf)
{
	size_t at = (size_t)((char *)buf - (char *)c->region);

	assert(at % BLKRING_ALIGN == 0);
	assert(at < c->user_bytes);
	at /= BLKRING_ALIGN;
	pthread_mutex_lock(&c->buf_lock);
	assert(c->runs[at] != 0);
	c->runs[at] = 0;
	pthread_cond_broadcast(&c->buf_cond);
	pthread_mutex_unlock(&c->buf_lock);
}

void *blkcli_pool(struct blkcli *c, size_t *len)
{
	*len = c->pool_bytes;
	return c->pool;
}

void *blkcli_region(struct blkcli *c, size_t *len)
{
	*len = c->user_bytes;
	return c->user_bytes ? c->region : NULL;
}

/* ---- what lies on top ---- */

uint64_t blkcli_meta_blocks(const struct blkcli *c)
{
	return c->meta_blocks;
}

uint64_t blkcli_data_blocks(const struct blkcli *c)
{
	return c->data_blocks;
}

uint64_t blkcli_fsid(const struct blkcli *c)
{
	return c->fsid;
}

static int run_one(struct blkcli *c, enum blk_op op, unsigned dev, uint64_t off, uint32_t len,
		   const void *buf)
{
	struct blkcli_op o = { .op = (uint8_t)op, .dev = (uint8_t)dev, .dev_off = off, .len = len,
			       .buf = (void *)buf };

	return blkcli_run(c, &o, 1);
}

int blkcli_read_small(struct blkcli *c, enum blk_device dev, uint64_t blkno, void *buf)
{
	if (blkno > INT64_MAX >> SMALL_SHIFT)
		return -EINVAL;
	return run_one(c, BLK_OP_READ, dev, blkno << SMALL_SHIFT, SMALL_SIZE, buf);
}

int blkcli_write_small(struct blkcli *c, enum blk_device dev, uint64_t blkno, const void *buf)
{
	if (blkno > INT64_MAX >> SMALL_SHIFT)
		return -EINVAL;
	return run_one(c, BLK_OP_WRITE, dev, blkno << SMALL_SHIFT, SMALL_SIZE, buf);
}

int blkcli_write_small_durable(struct blkcli *c, enum blk_device dev, uint64_t blkno, const void *buf)
{
	struct blkcli_op o = { .op = BLK_OP_WRITE, .dev = (uint8_t)dev, .is_durable = true,
			       .dev_off = blkno << SMALL_SHIFT, .len = SMALL_SIZE,
			       .buf = (void *)buf };

	if (blkno > INT64_MAX >> SMALL_SHIFT)
		return -EINVAL;
	return blkcli_run(c, &o, 1);
}

int blkcli_flush(struct blkcli *c, enum blk_device dev)
{
	return run_one(c, BLK_OP_FLUSH, dev, 0, 0, NULL);
}

uint64_t blkcli_flush_failures(struct blkcli *c, enum blk_device dev)
{
	uint64_t nr;

	pthread_mutex_lock(&c->lock);
	nr = c->flush_failures[dev];
	pthread_mutex_unlock(&c->lock);
	return nr;
}

static int dev_read(void *arg, uint64_t blkno, void *buf)
{
	if (blkno > INT64_MAX >> LARGE_SHIFT)
		return -EINVAL;
	return run_one(arg, BLK_OP_READ, BLK_DEV_META, blkno << LARGE_SHIFT, LARGE_SIZE, buf);
}

static int dev_write(void *arg, const struct block_write *w, size_t nr)
{
	struct blkcli_op ops[BLKRING_ENTRIES];
	int first = 0;

	while (nr > 0) {
		size_t n = nr < BLKRING_ENTRIES ? nr : BLKRING_ENTRIES;
		int ret;

		for (size_t i = 0; i < n; i++) {
			if (w[i].blkno > INT64_MAX >> LARGE_SHIFT)
				return -EINVAL;
			ops[i] = blkcli_write_op(&w[i]);
		}
		ret = blkcli_run(arg, ops, n);
		if (ret < 0 && first == 0)
			first = ret;
		w += n;
		nr -= n;
	}
	return first;
}

static uint64_t dev_random(void *arg)
{
	uint64_t v;

	(void)arg;
	/* Up to 256 bytes come whole once the system's pool is ready, and getrandom waits for that. */
	while (getrandom(&v, sizeof(v), 0) != sizeof(v))
		;
	return v;
}

struct block_dev blkcli_block_dev(struct blkcli *c)
{
	return (struct block_dev){ .arg = c, .read = dev_read, .write = dev_write,
				   .random = dev_random };
}

void blkcli_get_stats(struct blkcli *c, struct blkcli_stats *st)
{
	pthread_mutex_lock(&c->lock);
	*st = c->stats;
	st->connected = c->is_connected;
	pthread_mutex_unlock(&c->lock);
}
