/*
 * What blockd and its clients share: the ring of 64-byte descriptors in a sealed memfd, and the
 * messages of the SOCK_SEQPACKET socket that hands it out.  design.md D5, D6.
 *
 * One host, one byte order: plain integers.  Either side may lie or die at any moment, so each keeps
 * its own index in private memory, copies a descriptor out once and works on the copy.
 *
 * A side that is about to sleep sets its "sleeps" word, then looks once more; a side that has made
 * something visible looks at the other's word and rings the eventfd when it is set.  A full fence
 * between the two steps, on both sides, makes one of them see the other.
 */
#ifndef SCOUTFS_BLKRING_H
#define SCOUTFS_BLKRING_H

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#define BLKRING_ENTRIES		256u		/* in each direction; also the most one client has in flight */
#define BLKRING_LEN_MAX		(1u << 20)	/* bytes of one READ or WRITE */
#define BLKRING_DISCARD_MAX	(1u << 30)	/* bytes of one DISCARD */
#define BLKRING_ALIGN		4096u		/* of device offsets, region offsets and lengths */
#define BLKRING_REGION_MAX	(1ull << 30)	/* bytes of a private region */
#define BLKRING_SPIN_MIN_NS	5000u		/* either side spins this long before it sleeps, */
#define BLKRING_SPIN_MAX_NS	50000u		/* or this long when that is often enough */

enum blk_kind {
	BLK_KIND_FSD = 1,
	BLK_KIND_SERVERD,
	BLK_KIND_QUORUMD,
	BLK_KIND_TOOL,		/* reads only */
	BLK_KIND_END,
};

enum blk_op {
	BLK_OP_READ = 1,
	BLK_OP_WRITE,
	BLK_OP_FLUSH,		/* what was answered before it was sent is durable when it is answered */
	BLK_OP_DISCARD,
	BLK_OP_END,
};

#define BLKRING_DURABLE	1u	/* flag of a WRITE: it is durable when it is answered */
#define BLKRING_AFTER	2u	/* flag of a FLUSH: it waits for this client's writes before it */
#define BLKRING_LAST	4u	/* flag of a durable WRITE: it ends a chain */

enum blk_device {
	BLK_DEV_META,
	BLK_DEV_DATA,
	BLK_DEVS_NR,
};

enum blk_region {
	BLK_REGION_POOL,	/* the instance's write-back pool; fsd only */
	BLK_REGION_PRIVATE,	/* the connection's own */
	BLK_REGIONS_NR,
};

/*
 * Unused fields are 0 in a submission.  A completion carries tag and result: 0 or -errno.  A write
 * (DISCARD too) of an fsd or a serverd is answered -EKEYEXPIRED while its lease has run out;
 * -ESTALE and -ENOLINK mean that it will never be done.
 *
 * A serverd's operations with the same chain, not 0, belong together: one of them, the last to be
 * put into the ring, is the super block with BLKRING_LAST.  It is submitted when the before_nr
 * others have ended and all of them well, else it is answered -ECANCELED; and only if what stands
 * there is a super block of that sequence number and checksum, looked at in the meantime, else
 * -EUCLEAN.  A client has one chain under way; an operation of another is refused, -EBUSY.
 */
struct blkring_desc {
	uint8_t op;
	uint8_t dev;
	uint16_t flags;
	int32_t result;
	uint64_t tag;
	uint32_t region;
	uint32_t len;
	uint64_t region_off;
	uint64_t dev_off;
	uint64_t chain;
	uint64_t expect_seq;		/* this and the rest: of the last of a chain */
	uint32_t expect_crc;
	uint32_t before_nr;
};
static_assert(sizeof(struct blkring_desc) == 64, "one cache line");

struct blkring_index {
	uint32_t v;
	uint8_t pad[60];
};

struct blkring_shared {
	struct blkring_index sq_tail;		/* written by the client */
	struct blkring_index sq_head;		/* by blockd */
	struct blkring_index cq_tail;		/* by blockd */
	struct blkring_index cq_head;		/* by the client */
	struct blkring_index blockd_sleeps;	/* by blockd */
	/*
	 * By the client: how many completions it wants to lie in the ring before it is woken; 0: it is awake.
	 * An earlier blockd wakes it for the first one.
	 */
	struct blkring_index client_sleeps;
	uint8_t pad[4096 - 6 * 64];
	struct blkring_desc sq[BLKRING_ENTRIES];
	struct blkring_desc cq[BLKRING_ENTRIES];
};
static_assert(sizeof(struct blkring_shared) == 4096 + 2 * 64 * BLKRING_ENTRIES, "whole pages");

static inline uint32_t blkring_load(const struct blkring_index *x)
{
	return __atomic_load_n(&x->v, __ATOMIC_ACQUIRE);
}

static inline void blkring_store(struct blkring_index *x, uint32_t v)
{
	__atomic_store_n(&x->v, v, __ATOMIC_RELEASE);
}

static inline void blkring_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void blkring_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/*
 * How long it pays to spin: a wake-up costs more than a fast device needs, and spinning in vain keeps others off the
 * processor, the one that would bring what is waited for among them.  So more than every other spin must have been
 * long enough lately; while that is not so every sixteenth wait tries, and one that was right is followed by another.
 * (A wait that slept says little: the wake-up is part of it.)
 */
#define BLKRING_SPIN_CREDIT	8u

struct blkring_spin {
	uint32_t credit;		/* each spin that was long enough adds one, up to that; each other takes one */
	uint32_t waits;
	uint32_t is_long;		/* the wait that is under way spins for long */
};

/* The next wait begins: how long it spins. */
static inline uint64_t blkring_spin_ns(struct blkring_spin *s)
{
	s->is_long = s->credit > 0 || s->waits++ % 16 == 0;
	return s->is_long ? BLKRING_SPIN_MAX_NS : BLKRING_SPIN_MIN_NS;
}

/* It ended after so long. */
static inline void blkring_spin_end(struct blkring_spin *s, uint64_t ns)
{
	if (!s->is_long)
		return;
	if (ns > BLKRING_SPIN_MAX_NS)
		s->credit -= s->credit > 0;
	else if (s->credit < BLKRING_SPIN_CREDIT)
		s->credit++;
}

/* Every word is read from src exactly once, whatever the compiler would like. */
static inline void blkring_desc_copy(struct blkring_desc *dst, const struct blkring_desc *src)
{
	const uint64_t *from = (const uint64_t *)src;
	uint64_t *to = (uint64_t *)dst;

	for (size_t i = 0; i < sizeof(*dst) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/*
 * Take the next descriptor of a direction.  head is the consumer's own index, published in *shared_head.
 * 1: *out is a private copy; 0: nothing there; -EPROTO: the producer's index cannot be.
 */
static inline int blkring_pop(const struct blkring_index *tail, struct blkring_index *shared_head,
			      uint32_t *head, const struct blkring_desc *ring,
			      struct blkring_desc *out)
{
	uint32_t nr = blkring_load(tail) - *head;

	if (nr == 0)
		return 0;
	if (nr > BLKRING_ENTRIES)
		return -EPROTO;
	blkring_desc_copy(out, &ring[*head % BLKRING_ENTRIES]);
	blkring_store(shared_head, ++*head);
	return 1;
}

/*
 * Put a descriptor into a direction.  tail is the producer's own index; the consumer sees nothing before
 * it is stored in the shared one.  0; -ENOSPC: full; -EPROTO: the consumer's index cannot be.
 */
static inline int blkring_put(const struct blkring_index *head, uint32_t *tail,
			      struct blkring_desc *ring, const struct blkring_desc *in)
{
	uint32_t nr = *tail - blkring_load(head);

	if (nr > BLKRING_ENTRIES)
		return -EPROTO;
	if (nr == BLKRING_ENTRIES)
		return -ENOSPC;
	ring[(*tail)++ % BLKRING_ENTRIES] = *in;
	return 0;
}

/* The same, and seen at once. */
static inline int blkring_push(const struct blkring_index *head, struct blkring_index *shared_tail,
			       uint32_t *tail, struct blkring_desc *ring,
			       const struct blkring_desc *in)
{
	int ret = blkring_put(head, tail, ring, in);

	if (ret == 0)
		blkring_store(shared_tail, *tail);
	return ret;
}

/*
 * Socket messages.  The client's first is a hello; it is answered once, with descriptors in this order:
 * ring, submission eventfd, completion eventfd, private region, pool (kind fsd).  With BLK_HELLO_REGION
 * the hello brings the private region of an earlier connection, which then is used again.  After that
 * the client sends controls, one at a time, and leases, which have no answer: the newest counts, and is
 * said again on a new connection.
 */
#define BLKMSG_MAGIC	0x6b6c6253u
#define BLKMSG_VERSION	2u
#define BLKMSG_FDS_MAX	5u

#define BLK_HELLO_REGION	1u

/*
 * What this blockd understands beyond version 2 as it was first; one that is older says 0, for it fills the text of a
 * greeting that refuses nothing with zeros.  BLKRING_DURABLE and BLKRING_AFTER need no bit: they are refused one by one
 * (-EINVAL), and the client does without.  An unknown message ends the connection, so it must be known before.
 */
#define BLK_CAN_REVOKE_MOUNT	1u
#define BLK_CAN_CHAIN		2u

enum blkmsg_type {
	BLKMSG_HELLO = 1,
	BLKMSG_HELLO_REPLY,
	BLKMSG_SET_TERM,	/* value: servers of an older term may not write any more */
	BLKMSG_REVOKE,		/* value: this rid may not write any more */
	BLKMSG_CONTROL_REPLY,
	BLKMSG_LEASE,
	BLKMSG_REVOKE_MOUNT,	/* value: no fsd of this rid may write any more; its serverd may */
};

struct blkmsg_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
};

/* With a fuse_id: the lease has run out and the fsd is making the kernel forget.  Longer than a minor number. */
#define BLK_FUSE_WITHDRAWS	0x80000000u

/*
 * Until when a writer may write, by CLOCK_BOOTTIME of this host, and the term of the leader that gave it or,
 * for a serverd, that it serves.  An fsd tells of itself, quorumd of the serverd of its rid.
 */
struct blk_lease {
	uint32_t kind;			/* 0: none is told; then all is 0 */
	uint32_t fuse_id;		/* fsd: its FUSE connection, cut when it does not give up what the
					   kernel caches as soon as the lease has run out; 0: none, or the
					   kernel has forgotten everything */
	uint64_t rid;
	uint64_t term;
	uint64_t until_ns;
};

struct blkmsg_hello {
	struct blkmsg_header hdr;
	uint32_t kind;
	uint32_t flags;
	uint64_t rid;
	uint64_t term;
	uint64_t region_bytes;
	struct blk_lease lease;
};

struct blkmsg_lease {
	struct blkmsg_header hdr;
	struct blk_lease lease;
};

struct blkmsg_hello_reply {
	struct blkmsg_header hdr;
	int32_t error;			/* 0 or -errno; then text says why and nothing below counts */
	uint32_t entries;
	uint64_t region_bytes;
	uint64_t pool_bytes;		/* 0: no pool for this kind */
	uint64_t fsid;
	uint64_t meta_blocks;		/* large */
	uint64_t data_blocks;		/* small */
	char text[152];
	uint32_t can;			/* BLK_CAN_* */
	uint32_t pad;
};
static_assert(sizeof(struct blkmsg_hello_reply) == 216, "of the length that every client of version 2 expects");

struct blkmsg_control {
	struct blkmsg_header hdr;
	uint64_t id;
	uint64_t value;
};

struct blkmsg_control_reply {
	struct blkmsg_header hdr;
	uint64_t id;
	int32_t error;
	uint32_t pad;
};

union blkmsg {
	struct blkmsg_header hdr;
	struct blkmsg_hello hello;
	struct blkmsg_hello_reply hello_reply;
	struct blkmsg_control control;
	struct blkmsg_control_reply control_reply;
	struct blkmsg_lease lease;
};

static inline struct blkmsg_header blkmsg_header(enum blkmsg_type type)
{
	return (struct blkmsg_header){ BLKMSG_MAGIC, BLKMSG_VERSION, (uint16_t)type };
}

#endif
