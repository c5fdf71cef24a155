/*
 * Volumes in the worst pieces: every second block free, or in the lists and trees of a mount that is gone.
 * Reclaiming them, refilling from them and going on using them must take commits of bounded size, a
 * number of them that grows with the pieces, and end with every block in exactly one place.
 *
 * PIECES in the environment makes larger volumes.
 */
#include <stdint.h>
#include <stdlib.h>

static uint64_t meta_blocks, data_blocks;
#define META	meta_blocks
#define DATA	data_blocks

#include "server_dev.h"
#include "services/serverd/logs.h"
#include "services/serverd/mounts.h"

#define RID	0x1111ull
#define OTHER	0x2222ull
/* Blocks that trees and lists of the made volume are made of. */
#define REGION	12000u
/* What one commit of one job may write: its run, and the end, which may move more freed blocks than it must. */
#define COMMIT_BLOCKS_MAX	(TXN_JOB_BLOCKS + TXN_CLOSE_BLOCKS + 800u)
/* Pieces that a commit moves at least while there are any. */
#define PIECES_PER_COMMIT	400u

/* --- a volume made by hand --- */

struct maker {
	struct dev *dev;
	struct block_set *bs;
	struct disk_super super;
	struct blkno_alloc al;
	uint64_t next, end;
	uint64_t *freed;
	size_t freed_nr;
};

static int maker_alloc(void *arg, uint64_t *blkno)
{
	struct maker *m = arg;

	assert_true(m->freed_nr || m->next < m->end);
	*blkno = m->freed_nr ? m->freed[--m->freed_nr] : m->next++;
	return 0;
}

/* Nothing here was ever written, so it can be used again at once. */
static int maker_free(void *arg, uint64_t blkno)
{
	struct maker *m = arg;

	m->freed[m->freed_nr++] = blkno;
	return 0;
}

static void maker_open(struct maker *m)
{
	struct block_dev bd;

	*m = (struct maker){ .dev = dev_make(META, DATA), .next = 1028,
			     .end = 1028 + REGION,
			     .freed = malloc(REGION * sizeof(uint64_t)) };
	m->al = (struct blkno_alloc){ m, maker_alloc, maker_free };
	bd = (struct block_dev){ m->dev, dev_read, dev_write, dev_random };
	memcpy(&m->super, m->dev->super_now, sizeof(m->super));
	assert_int_equal(block_set_open(&m->bs, &bd, FSID, META, 64), 0);
	memset(m->super.meta_alloc, 0, sizeof(m->super.meta_alloc));
	memset(&m->super.data_alloc, 0, sizeof(m->super.data_alloc));
}

/* nr single blocks from `first` on, each with one between it and the next. */
static void put_singles(struct maker *m, struct disk_alloc_root *root, uint64_t first, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		assert_int_equal(free_extents_insert(m->bs, &m->al, root,
						     (struct extent){ first + 2 * i, 1 }), 0);
}

/* A block in front of the chain. */
static void put_list_block(struct maker *m, struct disk_alloc_list_head *head, uint64_t first,
			   uint64_t step, uint32_t nr)
{
	struct disk_alloc_list_block *b;
	struct block_ref ref;
	struct block *bl;

	assert_int_equal(block_new(m->bs, &m->al, MAGIC_ALLOC_LIST, &ref, &bl), 0);
	b = bl->data;
	b->next = head->ref;
	b->nr = le32_of(nr);
	for (uint32_t i = 0; i < nr; i++)
		b->blknos[i] = le64_of(first + step * i);
	block_put(m->bs, bl);
	head->ref = block_ref_put(ref);
	head->first_nr = le32_of(nr);
	le64_add(&head->total_nr, nr);
}

/* A chain of many blocks that are not full, each with entries from all over the place. */
static void put_scattered_list(struct maker *m, struct disk_alloc_list_head *head, uint64_t first,
			       uint64_t nr)
{
	uint64_t chain = nr / 500 + 1;

	for (uint64_t c = 0; c < chain; c++) {
		uint64_t here = nr / chain + (c < nr % chain);

		put_list_block(m, head, first + 2 * c, 2 * chain, (uint32_t)here);
	}
}

static void put_log(struct maker *m, const struct disk_log_trees *lt, bool is_mounted)
{
	struct disk_mounted_client mc = { 0 };
	struct item it = { .key = key_log_trees(le64_get(lt->rid), le64_get(lt->nr)), .val = lt,
			   .val_len = sizeof(*lt) };

	assert_int_equal(btree_insert(m->bs, &m->al, &m->super.logs_root, &it), 0);
	if (!is_mounted)
		return;
	it = (struct item){ .key = key_mounted_client(le64_get(lt->rid)), .val = &mc,
			    .val_len = sizeof(mc) };
	assert_int_equal(btree_insert(m->bs, &m->al, &m->super.mounted_clients, &it), 0);
}

/* Write it; what is left of the region is in a server list. */
static struct dev *maker_close(struct maker *m)
{
	struct disk_alloc_list_head *left = &m->super.server_meta_freed[1];
	struct dev *d = m->dev;

	put_list_block(m, left, 0, 1, 0);
	put_list_block(m, left, 0, 1, 0);
	for (uint64_t at = m->next; at < m->end;) {
		struct disk_alloc_list_block *b;
		struct block *bl;
		struct block_ref ref = block_ref_get(&left->ref);
		uint32_t nr = 0;

		assert_int_equal(block_get(m->bs, ref, MAGIC_ALLOC_LIST, &bl), 0);
		b = bl->data;
		while (m->freed_nr && nr < 1000)
			b->blknos[nr++] = le64_of(m->freed[--m->freed_nr]);
		while (at < m->end && nr < ALLOC_LIST_ENTRIES)
			b->blknos[nr++] = le64_of(at++);
		b->nr = le32_of(nr);
		left->first_nr = le32_of(nr);
		le64_add(&left->total_nr, nr);
		block_put(m->bs, bl);
		if (at < m->end) {
			/* The other empty one comes to the front. */
			struct disk_block_ref second;

			assert_int_equal(block_get(m->bs, ref, MAGIC_ALLOC_LIST, &bl), 0);
			b = bl->data;
			second = b->next;
			b->next = (struct disk_block_ref){ 0 };
			block_put(m->bs, bl);
			assert_int_equal(block_get(m->bs, block_ref_get(&second), MAGIC_ALLOC_LIST, &bl),
					 0);
			b = bl->data;
			b->next = left->ref;
			left->ref = second;
			block_put(m->bs, bl);
		}
	}
	assert_int_equal(m->freed_nr, 0);
	assert_int_equal(block_set_write(m->bs), 0);
	block_set_close(m->bs);
	m->super.seq = le64_of(100);
	m->super.hdr.crc = le32_of(block_crc(&m->super, sizeof(m->super)));
	memcpy(d->super_now, &m->super, SMALL_SIZE);
	assert_int_equal(dev_flush(d), 0);
	d->ops = 0;
	free(m->freed);
	return d;
}

/* --- a server that counts --- */

enum what { OPEN, COMMIT, RECLAIM, NUMBERS, FREE };

struct fjob {
	struct txn_job job;
	enum what what;
	uint64_t rid;
	struct disk_log_trees in, out;
	int err;
};

struct server {
	struct dev *dev;
	struct seq_source seq;
	struct txn *t;
	uint64_t commits, blocks_max;	/* of what ran last */
};

static int fjob_run(struct txn_job *job, struct txn *t)
{
	struct fjob *j = (struct fjob *)job;
	struct mount_info m = { .rid = j->rid };
	uint64_t start, nr;
	int ret;

	switch (j->what) {
	case OPEN:
		ret = mounts_insert(t, &m);
		if (ret == -ENOLINK)
			ret = 0;
		return ret < 0 ? ret : logs_open(t, j->rid, NULL, &j->out);
	case COMMIT:
		return logs_commit(t, j->rid, &j->in, true, NULL, &j->out);
	case RECLAIM:
		return mounts_reclaim(t, j->rid);
	case NUMBERS:
		return inos_take(t, 1, &start, &nr);
	case FREE:
		return merge_background(t);
	}
	return -EINVAL;
}

static void fjob_done(struct txn_job *job, int err)
{
	((struct fjob *)job)->err = err;
}

/* Run one job to its end, and see what each commit on the way wrote. */
static void run(struct server *s, struct fjob *j)
{
	const struct txn_stats *st = txn_stats(s->t);
	struct txn_job *todo = &j->job;

	j->job = (struct txn_job){ .run = fjob_run, .done = fjob_done };
	s->commits = s->blocks_max = 0;
	while (todo) {
		uint64_t blocks = atomic_load(&st->blocks_written);
		uint64_t commits = atomic_load(&st->commits);

		assert_int_equal(txn_step(s->t, &todo), 0);
		blocks = atomic_load(&st->blocks_written) - blocks;
		commits = atomic_load(&st->commits) - commits;
		s->commits += commits;
		if (commits && blocks / commits > s->blocks_max)
			s->blocks_max = blocks / commits;
	}
	assert_int_equal(j->err, 0);
	/* Nobody ran out of room and had to be taken back. */
	assert_int_equal(atomic_load(&st->aborts), 0);
}

static void server_start(struct server *s, struct dev *d)
{
	struct txn_dev dev = txn_dev_of(d);
	const char *why;

	*s = (struct server){ .dev = d };
	assert_int_equal(txn_open(&s->t, &dev, &s->seq, FSID, 512, &why), 0);
}

static void server_stop(struct server *s)
{
	txn_close(s->t);
	dev_free(s->dev);
}

static uint64_t listed(const struct disk_super *super)
{
	return le64_get(super->server_meta_freed[0].total_nr) +
	       le64_get(super->server_meta_freed[1].total_nr);
}

static void say(const struct server *s, const char *what)
{
	print_message("%s: %llu commits, at most %llu blocks in one\n", what,
		      (unsigned long long)s->commits, (unsigned long long)s->blocks_max);
}

/* Small requests until the server's freed lists are back in its trees. */
static void settle(struct server *s, uint64_t pieces)
{
	struct txn_view view;
	uint64_t commits = 0, most = 0;

	for (;;) {
		struct fjob j = { .what = NUMBERS };

		run(s, &j);
		commits += s->commits;
		most = s->blocks_max > most ? s->blocks_max : most;
		txn_get_view(s->t, &view);
		if (listed(&view.super) < 2 * COMMIT_BLOCKS_MAX)
			break;
		assert_true(commits <= pieces / 50 + 20);
	}
	s->commits = commits;
	s->blocks_max = most;
	say(s, "settling");
	assert_true(most <= COMMIT_BLOCKS_MAX);
}

static uint64_t pieces_in(struct server *s, const struct disk_alloc_root *root)
{
	uint64_t at = 0, nr = 0;
	struct extent e;

	while (free_extents_next(txn_blocks(s->t), root, at, &e) == 0) {
		at = e.start + e.len;
		nr++;
	}
	return nr;
}

/* --- tests --- */

/* Fewer would leave a volume too small for the lists of a server and a mount. */
static uint64_t pieces_nr(void)
{
	uint64_t nr = env("PIECES", 16000);

	return nr < 16000 ? 16000 : nr;
}

/* A mount that is gone, its metadata list a long chain; the tree it goes to is in pieces too. */
static struct dev *make_long_list(uint64_t n)
{
	uint64_t first = 1028 + REGION, big = first + 2 * n;
	struct disk_log_trees lt = { .rid = le64_of(RID), .nr = le64_of(1),
				     .get_trans_seq = le64_of(9), .commit_trans_seq = le64_of(8) };
	struct maker m;

	meta_blocks = big + n + 40000;
	data_blocks = DATA_FIRST_BLKNO + 4 * n;
	maker_open(&m);
	assert_int_equal(free_extents_insert(m.bs, &m.al, &m.super.meta_alloc[0],
					     (struct extent){ big, META - big }), 0);
	put_singles(&m, &m.super.meta_alloc[1], first, n);
	put_scattered_list(&m, &lt.meta_freed, first + 1, n);
	put_singles(&m, &m.super.data_alloc, DATA_FIRST_BLKNO, n);
	put_singles(&m, &lt.data_avail, DATA_FIRST_BLKNO + 1, n);
	assert_int_equal(free_extents_insert(m.bs, &m.al, &lt.data_freed,
					     (struct extent){ DATA_FIRST_BLKNO + 2 * n, 2 * n }), 0);
	put_log(&m, &lt, true);
	return maker_close(&m);
}

static void a_dead_mount_that_owned_every_second_block_is_reclaimed(void **state)
{
	struct fjob j = { .what = RECLAIM, .rid = RID };
	uint64_t n = pieces_nr();
	struct txn_view view;
	struct server s;

	(void)state;
	rng = 1;
	server_start(&s, make_long_list(n));
	check_volume(s.dev);

	run(&s, &j);
	say(&s, "reclaim");
	assert_true(s.blocks_max <= COMMIT_BLOCKS_MAX);
	assert_true(s.commits <= 2 * n / PIECES_PER_COMMIT + 10);
	check_volume(s.dev);
	settle(&s, n);
	check_volume(s.dev);
	txn_get_view(s.t, &view);
	assert_int_equal(view.mounted_nr, 0);
	/* All of the data device is one piece again. */
	assert_int_equal(pieces_in(&s, &view.super.data_alloc), 1);
	assert_int_equal(le64_get(view.super.data_alloc.total_len), DATA - DATA_FIRST_BLKNO);
	server_stop(&s);
}

static void reclaiming_it_goes_on_after_any_power_cut(void **state)
{
	uint64_t rounds = env("ROUNDS", 3), writes = 0;

	(void)state;
	rng = env("SEED", 7) * 7919 + 1;
	for (uint64_t i = 0; i <= rounds; i++) {
		struct fjob j = { .what = RECLAIM, .rid = RID,
				  .job = { .run = fjob_run, .done = fjob_done } };
		struct dev *d = make_long_list(pieces_nr());
		struct server s;

		server_start(&s, d);
		/* The first round finds out how many writes and flushes there are. */
		d->crash_at = i ? 1 + rnd(writes) : 0;
		j.err = 1;
		txn_run(s.t, &j.job);
		if (!i) {
			assert_int_equal(j.err, 0);
			writes = d->ops;
		}
		if (j.err < 0) {
			txn_close(s.t);
			dev_power_cut(d);
			check_volume(d);
			server_start(&s, d);
		}
		d->crash_at = 0;
		run(&s, &(struct fjob){ .what = RECLAIM, .rid = RID });
		settle(&s, pieces_nr());
		check_volume(d);
		assert_int_equal(pieces_in(&s, &txn_super(s.t)->data_alloc), 1);
		server_stop(&s);
	}
	print_message("%llu writes and flushes\n", (unsigned long long)writes);
}

/* What a mount does with its data blocks: takes all it has, gives all back. */
static void use_data(struct server *s, struct disk_log_trees *lt)
{
	struct block_dev bd = { s->dev, dev_read, dev_write, dev_random };
	struct block_set *bs;
	struct meta_alloc ma;
	struct extent e;
	int ret;

	assert_int_equal(block_set_open(&bs, &bd, FSID, META, 256), 0);
	meta_alloc_open(&ma, bs, &lt->meta_avail, &lt->meta_freed);
	while ((ret = free_extents_alloc(bs, &ma.al, &lt->data_avail, 2048, &e)) == 0)
		assert_int_equal(free_extents_insert(bs, &ma.al, &lt->data_freed, e), 0);
	assert_int_equal(ret, -ENOSPC);
	meta_alloc_close(&ma);
	assert_int_equal(block_set_write(bs), 0);
	assert_int_equal(dev_flush(s->dev), 0);
	block_set_close(bs);
}

static void a_mount_lives_on_a_volume_of_single_blocks(void **state)
{
	uint64_t n = pieces_nr(), first = 1028 + REGION, got = 0;
	struct disk_log_trees other = { .rid = le64_of(OTHER), .nr = le64_of(1),
					.get_trans_seq = le64_of(9), .commit_trans_seq = le64_of(9) };
	struct fjob j = { .what = OPEN, .rid = RID }, r = { .what = RECLAIM, .rid = OTHER };
	struct disk_log_trees lt;
	struct txn_view view;
	struct server s;
	struct maker m;

	(void)state;
	rng = 2;
	meta_blocks = first + 2 * n;
	data_blocks = DATA_FIRST_BLKNO + 4 * n;
	maker_open(&m);
	put_singles(&m, &m.super.meta_alloc[0], first, n);
	put_scattered_list(&m, &other.meta_freed, first + 1, n);
	put_singles(&m, &m.super.data_alloc, DATA_FIRST_BLKNO, 2 * n);
	put_singles(&m, &other.data_freed, DATA_FIRST_BLKNO + 1, 2 * n);
	put_log(&m, &other, true);
	server_start(&s, maker_close(&m));

	run(&s, &j);
	say(&s, "open");
	assert_true(s.blocks_max <= COMMIT_BLOCKS_MAX);
	assert_true(s.commits <= 60);
	lt = j.out;
	/* Neither too many pieces for its cache nor so few that it could not work, and that is not the end. */
	assert_true(pieces_in(&s, &lt.data_avail) <= 16384);
	assert_true(pieces_in(&s, &lt.data_avail) >= 4096);
	assert_int_equal(le32_get(lt.data_avail.flags), 0);
	assert_true(le32_get(lt.meta_avail.first_nr) >= 4092);
	check_volume(s.dev);

	for (unsigned i = 0; i < 6; i++) {
		got += le64_get(lt.data_avail.total_len);
		use_data(&s, &lt);
		j = (struct fjob){ .what = COMMIT, .rid = RID, .in = lt };
		run(&s, &j);
		assert_true(s.blocks_max <= COMMIT_BLOCKS_MAX);
		assert_true(s.commits <= 60);
		lt = j.out;
		assert_true(le64_get(lt.data_avail.total_len) > 0);
		assert_int_equal(le32_get(lt.data_avail.flags), 0);
	}
	say(&s, "a commit");
	print_message("%llu data blocks were used\n", (unsigned long long)got);
	assert_true(got >= 6 * 4096);
	check_volume(s.dev);

	/* Who has the blocks between them goes. */
	run(&s, &r);
	say(&s, "reclaim");
	assert_true(s.blocks_max <= COMMIT_BLOCKS_MAX);
	assert_true(s.commits <= 2 * n / PIECES_PER_COMMIT + 10);
	settle(&s, n);
	r = (struct fjob){ .what = RECLAIM, .rid = RID };
	run(&s, &r);
	check_volume(s.dev);
	txn_get_view(s.t, &view);
	assert_int_equal(pieces_in(&s, &view.super.data_alloc), 1);
	server_stop(&s);
}

/* A tree of `nr` large items that a merge has left to be freed. */
static void put_freeing(struct maker *m, uint64_t nr)
{
	uint8_t val[ITEM_VAL_MAX] = { 0 };
	struct disk_merge_freeing f = { .seq = le64_of(50) };
	struct item it = { .val = val, .val_len = sizeof(val), .seq = 9 };

	for (uint64_t i = 0; i < nr; i++) {
		it.key = key_xattr(2000 + i, 1, 0, 0);
		assert_int_equal(btree_insert(m->bs, &m->al, &f.root, &it), 0);
	}
	it = (struct item){ .key = { .zone = ZONE_MERGE_FREEING, .first = 50 }, .val = &f,
			    .val_len = sizeof(f) };
	assert_int_equal(btree_insert(m->bs, &m->al, &m->super.log_merge, &it), 0);
}

static void a_merged_tree_is_freed_in_commits_of_bounded_size(void **state)
{
	uint64_t n = pieces_nr(), first = 1028 + REGION, commits = 0, free_at_first;
	struct txn_view view;
	struct server s;
	struct maker m;

	(void)state;
	rng = 3;
	meta_blocks = first + 2 * n;
	data_blocks = DATA_FIRST_BLKNO + n;
	maker_open(&m);
	put_singles(&m, &m.super.meta_alloc[0], first, n);
	put_singles(&m, &m.super.meta_alloc[1], first + 1, n);
	assert_int_equal(free_extents_insert(m.bs, &m.al, &m.super.data_alloc,
					     (struct extent){ DATA_FIRST_BLKNO, n }), 0);
	put_freeing(&m, 2 * n);
	server_start(&s, maker_close(&m));
	txn_get_view(s.t, &view);
	free_at_first = view.free_meta_blocks;
	while (view.super.log_merge.height > 0) {
		struct fjob j = { .what = FREE };
		uint64_t before = view.free_meta_blocks;

		run(&s, &j);
		txn_get_view(s.t, &view);
		commits += s.commits;
		assert_true(s.commits > 0);
		assert_true(s.blocks_max <= COMMIT_BLOCKS_MAX);
		/* What it frees is bounded too: it all has to go into the lists and trees. */
		assert_true(view.free_meta_blocks <= before + TXN_JOB_BLOCKS);
	}
	print_message("%llu blocks freed in %llu commits\n",
		      (unsigned long long)(view.free_meta_blocks - free_at_first),
		      (unsigned long long)commits);
	assert_true(view.free_meta_blocks - free_at_first >= 2 * n / 70);
	assert_true(commits >= 2);
	settle(&s, n);
	check_volume(s.dev);
	server_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_dead_mount_that_owned_every_second_block_is_reclaimed),
		cmocka_unit_test(reclaiming_it_goes_on_after_any_power_cut),
		cmocka_unit_test(a_mount_lives_on_a_volume_of_single_blocks),
		cmocka_unit_test(a_merged_tree_is_freed_in_commits_of_bounded_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
