/*
 * The metadata device of a cluster's world.  A write is seen by all at once, but is only safe from a power cut
 * after a flush.  It refuses writes of servers of an older term and of rids that were revoked, as blockd
 * does (design D6).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "format/mkfs_layout.h"
#include "server_sim.h"
#include "tools/scoutfsctl/check_volume.h"

#define REVOKED_MAX	256u

struct buf {
	struct buf *next;
	uint8_t bytes[LARGE_SIZE];
};

struct vol {
	struct sim *s;
	struct buf **now;		/* what reads see */
	struct buf **disk;		/* what a power cut leaves */
	struct buf *spare;
	uint64_t *pending;		/* blocks whose now is not disk */
	size_t pending_nr, pending_max;
	uint8_t super_now[SMALL_SIZE], super_disk[SMALL_SIZE], data_super[SMALL_SIZE];
	uint64_t term;
	uint64_t revoked[REVOKED_MAX];
	unsigned revoked_nr;
};

static struct buf *buf_get(struct vol *v)
{
	struct buf *b = v->spare;

	if (b)
		v->spare = b->next;
	else
		b = sim_alloc(v->s, sizeof(*b));
	return b;
}

static void buf_put(struct vol *v, struct buf *b)
{
	if (!b)
		return;
	b->next = v->spare;
	v->spare = b;
}

static void put_block(struct vol *v, uint64_t blkno, const void *data)
{
	if (v->now[blkno] == v->disk[blkno]) {
		if (v->pending_nr == v->pending_max) {
			uint64_t *more = sim_alloc(v->s, 2 * (v->pending_max + 512) * sizeof(*more));

			if (v->pending_nr)
				memcpy(more, v->pending, v->pending_nr * sizeof(*more));
			v->pending = more;
			v->pending_max = 2 * (v->pending_max + 512);
		}
		v->pending[v->pending_nr++] = blkno;
		v->now[blkno] = buf_get(v);
	}
	memcpy(v->now[blkno]->bytes, data, LARGE_SIZE);
}

static void settle(struct vol *v, uint64_t blkno, bool keep)
{
	if (keep) {
		buf_put(v, v->disk[blkno]);
		v->disk[blkno] = v->now[blkno];
	} else {
		buf_put(v, v->now[blkno]);
		v->now[blkno] = v->disk[blkno];
	}
}

static void flush(struct vol *v)
{
	for (size_t i = 0; i < v->pending_nr; i++)
		settle(v, v->pending[i], true);
	v->pending_nr = 0;
	memcpy(v->super_disk, v->super_now, SMALL_SIZE);
}

void vol_power_cut(struct vol *v)
{
	for (size_t i = 0; i < v->pending_nr; i++)
		settle(v, v->pending[i], sim_chance(v->s, 500));
	v->pending_nr = 0;
	if (sim_chance(v->s, 500))
		memcpy(v->super_disk, v->super_now, SMALL_SIZE);
	memcpy(v->super_now, v->super_disk, SMALL_SIZE);
}

void vol_set_term(struct vol *v, uint64_t term)
{
	if (term > v->term)
		v->term = term;
}

void vol_revoke(struct vol *v, uint64_t rid)
{
	SIM_CHECK(v->s, v->revoked_nr < REVOKED_MAX, "the simulator revokes too many rids");
	v->revoked[v->revoked_nr++] = rid;
}

bool vol_is_revoked(const struct vol *v, uint64_t rid)
{
	for (unsigned i = 0; i < v->revoked_nr; i++) {
		if (v->revoked[i] == rid)
			return true;
	}
	return false;
}

/* --- as a node sees it --- */

/* 0: the node may write, and its write happens. */
static int may_write(struct node *n)
{
	struct vol *v = n->cl->vol;

	if (!node_acts(n))
		return -EIO;
	if (n->is_server && server_sim_term(n) < v->term)
		return -EKEYREVOKED;
	if (n->mount && vol_is_revoked(v, mount_sim_rid(n)))
		return -EKEYREVOKED;
	return 0;
}

static int dev_read(void *arg, uint64_t blkno, void *buf)
{
	struct vol *v = ((struct node *)arg)->cl->vol;

	if (v->now[blkno])
		memcpy(buf, v->now[blkno]->bytes, LARGE_SIZE);
	else
		memset(buf, 0, LARGE_SIZE);
	return 0;
}

static int dev_write(void *arg, const struct block_write *w, size_t nr)
{
	struct node *n = arg;

	for (size_t i = 0; i < nr; i++) {
		int ret = may_write(n);

		if (ret < 0)
			return ret;
		put_block(n->cl->vol, w[i].blkno, w[i].data);
	}
	return 0;
}

static uint64_t dev_random(void *arg)
{
	struct sim *s = ((struct node *)arg)->sim;

	return sim_rnd(s, 1ull << 32) << 32 | sim_rnd(s, 1ull << 32);
}

struct block_dev vol_dev(struct node *n)
{
	return (struct block_dev){ n, dev_read, dev_write, dev_random };
}

int vol_flush(struct node *n)
{
	if (!node_acts(n))
		return -EIO;
	flush(n->cl->vol);
	return 0;
}

int vol_read_super(struct node *n, void *buf)
{
	memcpy(buf, n->cl->vol->super_now, SMALL_SIZE);
	return 0;
}

int vol_write_super(struct node *n, const void *buf)
{
	int ret = may_write(n);

	if (ret == 0)
		memcpy(n->cl->vol->super_now, buf, SMALL_SIZE);
	return ret;
}

/* --- as a checker sees it --- */

static int plain_read(void *arg, uint64_t blkno, void *buf)
{
	struct vol *v = arg;

	if (v->now[blkno])
		memcpy(buf, v->now[blkno]->bytes, LARGE_SIZE);
	else
		memset(buf, 0, LARGE_SIZE);
	if (blkno == 1)
		memcpy(buf, v->super_now, SMALL_SIZE);
	return 0;
}

static int plain_write(void *arg, const struct block_write *w, size_t nr)
{
	(void)arg, (void)w, (void)nr;
	return -EROFS;
}

static uint64_t plain_random(void *arg)
{
	(void)arg;
	return 0;
}

struct block_dev vol_checkers_dev(struct vol *v)
{
	return (struct block_dev){ v, plain_read, plain_write, plain_random };
}

const struct disk_super *vol_super(struct vol *v)
{
	return (const struct disk_super *)v->super_now;
}

struct heard {
	char text[256];
	unsigned nr;
};

/*
 * The worlds' symbolic links have no inodes, and an open transaction owns blocks; both are as it should be
 * here.
 */
static bool is_expected(const struct check_message *m)
{
	return m->ino != 0 || m->severity != CHECK_FINDING;
}

static void hear(void *arg, const struct check_message *m)
{
	struct heard *h = arg;

	if (is_expected(m) || h->nr++)
		return;
	snprintf(h->text, sizeof(h->text), "invariant %u, block %llu: %s", m->invariant,
		 (unsigned long long)m->blkno, m->text);
}

void vol_check(struct vol *v)
{
	struct check *ck = sim_alloc(v->s, sizeof(*ck));
	struct heard h = { .nr = 0 };
	int ret;

	*ck = (struct check){
		.dev = vol_checkers_dev(v),
		.meta_bytes = CLUSTER_META_BLOCKS << LARGE_SHIFT,
		.data_bytes = CLUSTER_DATA_BLOCKS << SMALL_SHIFT,
		.data_super = (const struct disk_super *)v->data_super,
		.message = hear, .message_arg = &h,
	};
	ret = check_volume(ck);
	check_fini(ck);
	SIM_CHECK(v->s, ret == 0, "the volume cannot be checked: %d (%s)", ret, h.text);
	SIM_CHECK(v->s, h.nr == 0, "the volume is wrong: %s (%u findings)", h.text, h.nr);
}

/* --- a new volume --- */

static int layout_write(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf, size_t len)
{
	struct vol *v = arg;

	if (offset == SUPER_BLKNO << SMALL_SHIFT && len >= SMALL_SIZE)
		memcpy(dev == MKFS_META ? v->super_now : v->data_super, buf, SMALL_SIZE);
	if (dev != MKFS_META)
		return 0;
	for (size_t at = 0; at + LARGE_SIZE <= len; at += LARGE_SIZE)
		put_block(v, (offset + at) >> LARGE_SHIFT, (const uint8_t *)buf + at);
	if (len < LARGE_SIZE && offset >> LARGE_SHIFT == 1) {
		uint8_t first[LARGE_SIZE];

		plain_read(v, 1, first);
		memcpy(first + (offset & (LARGE_SIZE - 1)), buf, len);
		put_block(v, 1, first);
	}
	return 0;
}

static int layout_flush(void *arg, enum mkfs_device dev)
{
	(void)dev;
	flush(arg);
	return 0;
}

struct vol *vol_new(struct sim *s)
{
	struct mkfs_params p = { .fmt_vers = 2, .fsid = CLUSTER_FSID, .uuid = { 1, 2, 3 },
				 .now_sec = 1, .total_meta_blocks = CLUSTER_META_BLOCKS,
				 .total_data_blocks = CLUSTER_DATA_BLOCKS,
				 .slots[0] = { true, 42000, 0x7f000001 } };
	struct vol *v = sim_alloc(s, sizeof(*v));
	struct mkfs_ops ops = { v, layout_write, layout_flush };
	const char *why;

	v->s = s;
	v->now = sim_alloc(s, CLUSTER_META_BLOCKS * sizeof(struct buf *));
	v->disk = sim_alloc(s, CLUSTER_META_BLOCKS * sizeof(struct buf *));
	SIM_CHECK(s, mkfs_params_check(&p, &why) == 0, "no such volume: %s", why);
	SIM_CHECK(s, mkfs_layout(&p, &ops) == 0, "the volume cannot be made");
	flush(v);
	return v;
}
