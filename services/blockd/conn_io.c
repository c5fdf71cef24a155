/*
 * Rings: descriptors become operations, and their ends completions.
 *
 * A connection has at most BLKRING_ENTRIES operations that were taken and whose completions the
 * client has not: a completion always has room, so nothing here waits for a client.  A client that
 * breaks a rule gets -EINVAL where the rule concerns one descriptor, and loses the connection where
 * the ring itself can no longer be believed.  Who may write, and until when, is looked at right
 * before an operation is handed to the engine.
 */
#include "conn_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

#define DRAIN_MAX		64	/* descriptors of one client in one pass */
#define REFUSALS_LOGGED_MAX	8	/* of one connection; all are counted */

/* How many more descriptors may be taken. */
static unsigned conn_room(const struct blockd *d, const struct conn *c)
{
	uint32_t untaken = c->cq_tail - blkring_load(&c->ring->cq_head);

	if (!d->free_ios || untaken > BLKRING_ENTRIES || c->inflight + untaken >= BLKRING_ENTRIES)
		return 0;
	return BLKRING_ENTRIES - c->inflight - untaken;
}

static void conn_post(struct blockd *d, struct conn *c, uint64_t tag, int result)
{
	struct blkring_desc done = { .tag = tag, .result = result };
	int ret;

	ret = blkring_push(&c->ring->cq_head, &c->ring->cq_tail, &c->cq_tail, c->ring->cq, &done);
	if (ret < 0)
		conn_close(d, c, "its completion ring makes no sense");
	else
		c->must_ring = true;
}

/* Count a refusal, and log the first ones: a client may repeat itself as fast as it likes. */
static void note_refusal(struct blockd *d, struct conn *c, const struct blkring_desc *desc, int err)
{
	const char *why = "it makes no sense";
	stats_counter *counter = &d->stats.refused_descriptors;

	switch (err) {
	case -ESTALE:
		why = "a newer term was set";
		counter = &d->stats.refused_stale_term;
		break;
	case -ENOLINK:
		why = "its rid is fenced";
		counter = &d->stats.refused_revoked;
		break;
	case -EPERM:
		why = "these blocks are not its to write";
		counter = &d->stats.refused_kind;
		break;
	case -EKEYEXPIRED:
		why = "it has no lease";
		counter = &d->stats.refused_lease;
		break;
	case -EBUSY:
		why = "another chain of it is under way";
		break;
	case -ENOMEM:
		why = "there is no memory";
		break;
	}
	stats_inc(counter);
	if (c->refusals_logged == REFUSALS_LOGGED_MAX)
		return;
	c->refusals_logged++;
	log_warning("%s %016" PRIx64 " term %" PRIu64 ": operation %u of %s at %" PRIu64 "+%u is "
		    "refused: %s", conn_name(c), c->rid, c->term, desc->op,
		    desc->dev < BLK_DEVS_NR ? d->vol.dev[desc->dev].name : "no device",
		    desc->dev_off, desc->len, why);
}

static bool is_write(unsigned op)
{
	return op == BLK_OP_WRITE || op == BLK_OP_DISCARD;
}

/*
 * A flush with BLKRING_AFTER waits for the writes that came before it, and a client that writes all the time
 * does not keep it waiting.  So writes have a round, and there are never more than two under way: those that
 * `held` waits for, and those of now.  What is to wait for both is in `held_next`, and when the first is over
 * a new round begins.
 */
static void flush_hold(struct blockd *d, struct conn *c, struct io *io)
{
	struct io **list = &c->held;

	if (!c->held) {
		if (c->round_writes[c->round] == 0) {
			engine_queue(d->engine, io);
			return;
		}
		c->round ^= 1;
	} else if (c->held_next || c->round_writes[c->round] > 0) {
		list = &c->held_next;
	}
	io->next = *list;
	*list = io;
}

/* A write has ended: those flushes that waited for the last of a round. */
static void flush_release(struct blockd *d, struct conn *c)
{
	while (c->held && c->round_writes[c->round ^ 1] == 0) {
		struct io *io = c->held;

		c->held = c->held_next;
		c->held_next = NULL;
		if (c->held)
			c->round ^= 1;
		while (io) {
			struct io *next = io->next;

			engine_queue(d->engine, io);
			io = next;
		}
	}
}

/* Whether this client may write now. */
static int write_check(const struct blockd *d, const struct conn *c, uint64_t *until_ns)
{
	int ret = tokens_check(&d->tokens, c->kind, c->rid, c->term);

	return ret < 0 ? ret : leases_check(d, c->kind, c->rid, c->term, until_ns);
}

static void write_queue(struct blockd *d, struct conn *c, struct io *io)
{
	c->writes_inflight++;
	c->round_writes[c->round]++;
	io->round = (uint8_t)c->round;
	engine_queue(d->engine, io);
}

/* The last of a chain reads what stands at its place. */
static void chain_look(struct blockd *d, struct conn *c, struct io *io)
{
	c->chain.looked_ns = clock_mono_ns();
	io->part = CHAIN_LOOK;
	io->op = BLK_OP_READ;
	io->is_durable = false;
	io->until_ns = 0;	/* to look takes no right; chain_write() asks for the one it takes */
	io->buf = c->chain.block;
	io->started_ns = c->chain.looked_ns;
	engine_queue(d->engine, io);
}

/* It is not written. */
static void chain_give_up(struct blockd *d, struct conn *c, struct io *io, int result)
{
	chain_end(&c->chain);
	c->inflight--;
	conn_post(d, c, io->tag, result);
	io_release(d, io);
}

static void chain_write(struct blockd *d, struct conn *c, struct io *io)
{
	const struct blkring_desc desc = { .op = BLK_OP_WRITE, .dev = io->dev, .dev_off = io->off,
					   .len = io->len };
	int ret = write_check(d, c, &io->until_ns);

	c->chain.last = NULL;
	if (ret < 0) {
		note_refusal(d, c, &desc, ret);
		chain_give_up(d, c, io, ret);
		return;
	}
	io->part = CHAIN_LAST;
	io->op = BLK_OP_WRITE;
	io->is_durable = true;
	io->buf = c->chain.buf;
	io->started_ns = clock_mono_ns();
	write_queue(d, c, io);
}

/* Something of an open connection's chain has ended. */
static void chain_go_on(struct blockd *d, struct conn *c)
{
	struct io *io = c->chain.last;

	switch (chain_next(&c->chain, clock_mono_ns(), d->look_known_ns)) {
	case CHAIN_WAIT:
		break;
	case CHAIN_FAIL:
		chain_give_up(d, c, io, -ECANCELED);
		break;
	case CHAIN_LOOK_AGAIN:
		c->chain.last = NULL;
		c->chain.has_looked_twice = true;
		chain_look(d, c, io);
		break;
	case CHAIN_WRITE:
		chain_write(d, c, io);
		break;
	}
}

/* The last of an open connection's chain has looked. */
static void chain_looked(struct blockd *d, struct conn *c, struct io *io, int result)
{
	if (result == 0)
		result = chain_check_look(&c->chain);
	if (result < 0) {
		chain_give_up(d, c, io, result);
		return;
	}
	io->next = NULL;
	c->chain.last = io;
	chain_go_on(d, c);
}

/* Start what a copied-out descriptor asks for, or answer why not. */
static void conn_start(struct blockd *d, struct conn *c, const struct blkring_desc *desc)
{
	bool is_last = desc->flags & BLKRING_LAST, is_taken = false;
	uint64_t until_ns = 0;
	struct io *io;
	char *base;
	int ret;

	ret = ring_desc_check(desc, &c->limits);
	if (ret == 0 && desc->chain) {
		ret = chain_take(&c->chain, desc);
		is_taken = ret == 0;
	}
	if (ret == 0 && is_write(desc->op))
		ret = write_check(d, c, &until_ns);
	if (ret < 0) {
		if (is_taken && is_last)
			chain_end(&c->chain);
		else if (is_taken)
			chain_ended(&c->chain, ret);
		note_refusal(d, c, desc, ret);
		conn_post(d, c, desc->tag, ret);
		return;
	}

	io = d->free_ios;
	d->free_ios = io->next;
	d->ios_nr++;
	base = desc->region == BLK_REGION_POOL ? d->pool.map : c->region;
	*io = (struct io){
		.owner = c,
		.tag = desc->tag,
		.op = desc->op,
		.dev = desc->dev,
		.is_bdev = d->vol.dev[desc->dev].is_bdev,
		.is_durable = desc->flags & BLKRING_DURABLE,
		.part = desc->chain ? CHAIN_BEFORE : CHAIN_NONE,
		.fd = d->vol.dev[desc->dev].fd,
		.off = desc->dev_off,
		.len = desc->len,
		.started_ns = clock_mono_ns(),
		.until_ns = until_ns,
	};
	if (desc->op == BLK_OP_READ || desc->op == BLK_OP_WRITE)
		io->buf = base + desc->region_off;
	c->inflight++;
	if (is_last) {
		c->chain.buf = io->buf;
		chain_look(d, c, io);
	} else if (desc->op == BLK_OP_FLUSH && desc->flags & BLKRING_AFTER) {
		flush_hold(d, c, io);
	} else if (is_write(desc->op)) {
		write_queue(d, c, io);
	} else {
		engine_queue(d->engine, io);
	}
}

static bool conn_drain(struct blockd *d, struct conn *c)
{
	unsigned nr = conn_room(d, c);
	unsigned index = c->index;
	bool any = false;

	nr = nr < DRAIN_MAX ? nr : DRAIN_MAX;
	while (nr-- > 0) {
		struct blkring_desc desc;
		int ret;

		if (!d->free_ios) {
			stats_inc(&d->stats.ios_full);
			break;
		}
		ret = blkring_pop(&c->ring->sq_tail, &c->ring->sq_head, &c->sq_head, c->ring->sq,
				  &desc);
		if (ret == 0)
			break;
		any = true;
		if (ret < 0) {
			conn_close(d, c, "its submission ring makes no sense");
			break;
		}
		conn_start(d, c, &desc);
		/* What it was answered may have shown its ring to be bad, and then it may be gone. */
		if (d->conns[index] != c || c->state != CONN_OPEN)
			break;
	}
	return any;
}

static void conn_ring_bell(struct blockd *d, struct conn *c)
{
	uint64_t one = 1;
	uint32_t wanted;

	if (!c->must_ring || c->state != CONN_OPEN)
		return;
	c->must_ring = false;
	blkring_fence();
	/* It sleeps until there are so many.  What it says of its own ring is its own affair. */
	wanted = blkring_load(&c->ring->client_sleeps);
	if (wanted && c->cq_tail - blkring_load(&c->ring->cq_head) >= wanted &&
	    __atomic_exchange_n(&c->ring->client_sleeps.v, 0, __ATOMIC_SEQ_CST)) {
		stats_inc(&d->stats.doorbells_sent);
		/* -EAGAIN: it has been rung 2^64 times, by the client itself. */
		if (write(c->cq_efd, &one, sizeof(one)) < 0)
			return;
	}
}

bool conns_drain(struct blockd *d)
{
	bool any = false;

	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++) {
		struct conn *c = d->conns[i];

		if (!c || c->state != CONN_OPEN)
			continue;
		/* A connection that was closed may be gone; its slot says so. */
		any |= conn_drain(d, c);
		if (d->conns[i] == c)
			conn_ring_bell(d, c);
	}
	return any;
}

static void io_count(struct blockd *d, const struct io *io)
{
	struct blockd_stats *s = &d->stats;
	bool is_meta = io->dev == BLK_DEV_META;
	stats_counter *errors = &s->discard_errors;

	stats_add(&s->io_us, (clock_mono_ns() - io->started_ns) / 1000);
	switch (io->op) {
	case BLK_OP_READ:
		stats_inc(is_meta ? &s->meta_reads : &s->data_reads);
		stats_add(is_meta ? &s->meta_read_bytes : &s->data_read_bytes, io->len);
		errors = &s->read_errors;
		break;
	case BLK_OP_WRITE:
		stats_inc(is_meta ? &s->meta_writes : &s->data_writes);
		stats_add(is_meta ? &s->meta_write_bytes : &s->data_write_bytes, io->len);
		errors = &s->write_errors;
		break;
	case BLK_OP_FLUSH:
		stats_inc(is_meta ? &s->meta_flushes : &s->data_flushes);
		errors = &s->flush_errors;
		break;
	default:
		stats_inc(&s->discards);
		break;
	}
	if (io->result < 0)
		stats_inc(errors);
}

/* The result that the client is told. */
static int io_result(struct blockd *d, struct conn *c, const struct io *io)
{
	static const char *const names[BLK_OP_END] = { "", "read", "write", "flush", "discard" };
	struct device *dev = &d->vol.dev[io->dev];
	int result = io->result;

	if (result == -EKEYEXPIRED) {
		stats_inc(&d->stats.refused_lease);
		return result;
	}
	if (result < 0 && !(io->op == BLK_OP_DISCARD && result == -EOPNOTSUPP))
		log_err("%s %s: %s of %u bytes at %" PRIu64 " for %s failed: %s; check the device",
			dev->name, dev->path, names[io->op], io->len, io->off, conn_name(c),
			strerror(-result));
	/*
	 * The kernel tells of a lost write-back once, to whoever flushes first, be it with a write;
	 * every client has something to lose by it, so each is told at its next flush.
	 */
	if (result < 0 && (io->op == BLK_OP_FLUSH || io->is_durable))
		dev->flush_errors++;
	if (io->op != BLK_OP_FLUSH)
		return result;
	if (c->flush_errors_seen[io->dev] != dev->flush_errors) {
		c->flush_errors_seen[io->dev] = dev->flush_errors;
		return result < 0 ? result : -EIO;
	}
	return result;
}

/* An operation has ended. */
static void io_complete(struct blockd *d, struct io *io)
{
	struct conn *c = io->owner;
	unsigned index = c->index;
	enum chain_part part = io->part;
	int result;

	io_count(d, io);
	result = io_result(d, c, io);
	if (part == CHAIN_LOOK && c->state == CONN_OPEN) {
		chain_looked(d, c, io, result);
		return;
	}
	c->inflight--;
	if (is_write(io->op)) {
		c->writes_inflight--;
		c->round_writes[io->round]--;
		flush_release(d, c);
	}
	if (part == CHAIN_LAST)
		chain_end(&c->chain);
	else if (part == CHAIN_BEFORE)
		chain_ended(&c->chain, result);
	if (c->state == CONN_OPEN)
		conn_post(d, c, io->tag, result);
	else if (c->inflight == 0)
		conn_release(d, c);
	io_release(d, io);
	/* What it was told may have shown its ring to be bad, and then it may be gone. */
	if (part == CHAIN_BEFORE && d->conns[index] == c && c->state == CONN_OPEN)
		chain_go_on(d, c);
}

void conns_complete(struct blockd *d, struct io *list)
{
	while (list) {
		struct io *io = list;

		list = io->next;
		io_complete(d, io);
	}
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i])
			conn_ring_bell(d, d->conns[i]);
	conns_retry_held(d);
}

bool conns_sleep_begin(struct blockd *d)
{
	bool any = false;

	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i] && d->conns[i]->state == CONN_OPEN)
			blkring_store(&d->conns[i]->ring->blockd_sleeps, 1);
	blkring_fence();
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++) {
		struct conn *c = d->conns[i];

		if (c && c->state == CONN_OPEN && blkring_load(&c->ring->sq_tail) != c->sq_head)
			any |= conn_room(d, c) > 0;
	}
	return any;
}

void conns_sleep_end(struct blockd *d)
{
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		if (d->conns[i] && d->conns[i]->state == CONN_OPEN)
			blkring_store(&d->conns[i]->ring->blockd_sleeps, 0);
}
