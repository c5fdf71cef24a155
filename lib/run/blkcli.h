/*
 * A client of blockd: blocking block I/O for worker threads over the shared ring.  design.md D5, D6.
 *
 * Every call may be made by any thread, except open and close.  When blockd dies the client connects
 * again, for ever, and sends again what was not answered: callers just wait longer.  Buffers keep
 * their addresses, for the private region goes along and the pool is the same file.  So do writes of an fsd
 * whose lease has run out: nobody else is given its blocks while it may still get another one.
 */
#ifndef SCOUTFS_BLKCLI_H
#define SCOUTFS_BLKCLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkring.h"
#include "btree/block.h"

struct blkcli;

struct blkcli_conf {
	const char *socket_path;	/* RUNTIME_DIR/blockd.sock; copied */
	uint32_t kind;			/* enum blk_kind */
	uint64_t rid;			/* the token of every write: rid and, for a server, term */
	uint64_t term;
	size_t region_bytes;		/* of the private region for blkcli_buf_alloc; 0: none */
	void (*on_state)(void *arg, bool connected);	/* may be NULL; on a thread of the client, which
							   must not call the client back */
	void *arg;
	unsigned deadline_ms;		/* of each call and of open; 0: for ever */
};

/*
 * Connect and wait for blockd.  The caller closes *out with blkcli_close.  -ETIMEDOUT after the
 * deadline; -ENOMEM; what blockd refused with (logged): -EPROTO version, -EPERM kind not allowed,
 * -EINVAL, -ENOSPC too many clients or too big a region, -ENAMETOOLONG the socket's path.
 */
int blkcli_open(struct blkcli **out, const struct blkcli_conf *conf);
/* No call may be running.  I/O that was given up after a deadline may still happen (see blkcli_run). */
void blkcli_close(struct blkcli *c);

/* The mapped pool; NULL and 0 unless kind is fsd.  Valid until close. */
void *blkcli_pool(struct blkcli *c, size_t *len);
/* The mapped private region; NULL and 0 when none was asked for.  Valid until close. */
void *blkcli_region(struct blkcli *c, size_t *len);

/*
 * A buffer in the private region, 4096-aligned, waited for when none is free (the deadline does not
 * apply: it is the callers' own to give back).  NULL: larger than the region.
 */
void *blkcli_buf_alloc(struct blkcli *c, size_t bytes);
void blkcli_buf_free(struct blkcli *c, void *buf);

struct blkcli_op {
	uint8_t op;			/* enum blk_op */
	uint8_t dev;			/* enum blk_device */
	bool is_durable;		/* a WRITE that needs no FLUSH after it */
	bool is_after;			/* a FLUSH that covers what stands before it in ops, too */
	uint64_t dev_off;		/* bytes, a multiple of 4096 */
	uint32_t len;			/* bytes, a multiple of 4096; 0 for FLUSH */
	void *buf;			/* 4096-aligned in pool or region: used as it is; else copied */
	int result;			/* out: 0 or -errno */
};

/*
 * Run all ops and wait for all; returns 0 or the first error in order of ops.  They run in any order and at
 * once, but for a FLUSH that is_after; others cover writes of earlier calls only.  -EINVAL: alignment or
 * range; -ESTALE: a newer term was set; -ENOLINK: the rid was revoked; -EKEYEXPIRED: a serverd's lease has
 * run out; -EPERM: not this kind's to write; -EIO and others from the device.  -ETIMEDOUT: the deadline came
 * first; what blockd has not answered may still happen, and buffers in the pool or region stay in use until
 * it has; nothing is sent again after that.
 */
int blkcli_run(struct blkcli *c, struct blkcli_op *ops, size_t nr);

/*
 * Run all ops, the last of which writes the super block, durably and only after all others have
 * ended well, and only if what stands there is the super block of that seq and crc: kind serverd.
 * It is one call of blockd.  0 or the first error in order of ops, as blkcli_run; that of the last
 * is -ECANCELED if it was not written for another's.  -EUCLEAN: another super stands there.
 * -EAGAIN: it may be written or not, for blockd was restarted in between, or knows no such call:
 * everything is to be run again, the super block in a call of its own when the rest is done.
 */
int blkcli_run_chain(struct blkcli *c, struct blkcli_op *ops, size_t nr, uint64_t seq,
		     uint32_t crc);

/* For blkcli_run: write a block of a set; a flush that is_after. */
static inline struct blkcli_op blkcli_write_op(const struct block_write *w)
{
	return (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_META,
				   .dev_off = w->blkno << LARGE_SHIFT, .len = LARGE_SIZE,
				   .buf = (void *)w->data };
}

static inline struct blkcli_op blkcli_flush_op(enum blk_device dev)
{
	return (struct blkcli_op){ .op = BLK_OP_FLUSH, .dev = (uint8_t)dev, .is_after = true };
}

/*
 * No server of an older term writes any more: on 0 all its writes in flight have ended.  A server's
 * own token takes the term too.  -ESTALE: a newer term was set before.  Kinds serverd and quorumd.
 */
int blkcli_set_term(struct blkcli *c, uint64_t term);
/* The rid writes no more on this host: on 0 all its writes in flight have ended.  Kinds as above. */
int blkcli_revoke(struct blkcli *c, uint64_t rid);
/*
 * As blkcli_revoke, for the mount (kind fsd) of that rid only: the serverd of the same instance goes on.
 * -EOPNOTSUPP: the blockd that is connected is too old for it, and has been told nothing.
 */
int blkcli_revoke_mount(struct blkcli *c, uint64_t rid);
/* Whether the blockd that is, or was last, connected knows blkcli_revoke_mount. */
bool blkcli_can_revoke_mount(struct blkcli *c);

/*
 * Until when (clock_boot_ns) a writer may write: kind fsd for itself, kind quorumd for the serverd of its
 * rid.  Never blocks, any thread; it is said again to whatever blockd comes.
 */
void blkcli_lease(struct blkcli *c, uint32_t kind, uint64_t term, uint64_t until_ns);
/* Kind fsd: the mount's FUSE connection (/sys/fs/fuse/connections/N), 0: it has none any more. */
void blkcli_fuse(struct blkcli *c, uint32_t fuse_id);
/* Kind fsd: whether writes wait for a lease, for the status. */
bool blkcli_waits_for_lease(struct blkcli *c);

/* What the super blocks say the volume is, as blockd found it. */
uint64_t blkcli_meta_blocks(const struct blkcli *c);	/* large */
uint64_t blkcli_data_blocks(const struct blkcli *c);	/* small */
uint64_t blkcli_fsid(const struct blkcli *c);

/* One 4096-byte block; errors as blkcli_run. */
int blkcli_read_small(struct blkcli *c, enum blk_device dev, uint64_t blkno, void *buf);
int blkcli_write_small(struct blkcli *c, enum blk_device dev, uint64_t blkno, const void *buf);
/* The same, and on 0 it is durable. */
int blkcli_write_small_durable(struct blkcli *c, enum blk_device dev, uint64_t blkno, const void *buf);
/* What has been written to dev and answered is durable.  Errors as blkcli_run. */
int blkcli_flush(struct blkcli *c, enum blk_device dev);
/*
 * How many flushes of dev have failed, whoever of this client asked for them.  A device tells each client once: of two
 * threads that write, the other's flush may have been told of what it lost of ours.  So who has written compares this with
 * what it was before its first write.
 */
uint64_t blkcli_flush_failures(struct blkcli *c, enum blk_device dev);

/* The metadata device as lib/core wants it.  Valid until close. */
struct block_dev blkcli_block_dev(struct blkcli *c);

struct blkcli_stats {
	uint64_t ops, bounced, errors, reconnects, resent, timeouts, lease_waits;
	bool connected;
};
void blkcli_get_stats(struct blkcli *c, struct blkcli_stats *st);

#endif
