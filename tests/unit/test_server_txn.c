/*
 * The server's transaction, log trees and reclaim, against a device that can lose what was not flushed
 * at any write.  After each crash and at each end the whole volume is walked: every block is in
 * exactly one place, and what was committed is there.
 *
 * SEED and ROUNDS in the environment make another or a longer run.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/serverd/logs.h"
#include "services/serverd/mounts.h"
#include "server_dev.h"

#define RID	0x1111ull

/* --- jobs --- */

enum what { MOUNT, OPEN, COMMIT, RECLAIM, INOS, FAIL };

struct tjob {
	struct txn_job job;
	enum what what;
	uint64_t rid;
	bool open_next;
	struct disk_log_trees in, out;
	uint64_t start, nr;
	unsigned runs;
	int fail_with;
	int err;
	bool done;
};

static int tjob_run(struct txn_job *job, struct txn *t)
{
	struct tjob *j = (struct tjob *)job;
	struct mount_info m = { .rid = j->rid, .addr = 0x7f000001, .port = 1, .is_quorum = true };
	int ret;

	j->runs++;
	switch (j->what) {
	case MOUNT:
		return mounts_insert(t, &m);
	case OPEN:
		return logs_open(t, j->rid, NULL, &j->out);
	case COMMIT:
		return logs_commit(t, j->rid, &j->in, j->open_next, NULL, &j->out);
	case RECLAIM:
		return mounts_reclaim(t, j->rid);
	case INOS:
		return inos_take(t, 10240, &j->start, &j->nr);
	case FAIL:
		/* Half of something, then an error. */
		ret = mounts_insert(t, &m);
		return ret < 0 ? ret : j->fail_with;
	}
	return -EINVAL;
}

static void tjob_done(struct txn_job *job, int err)
{
	struct tjob *j = (struct tjob *)job;

	assert_false(j->done);
	j->done = true;
	j->err = err;
}

static struct tjob tjob(enum what what, uint64_t rid)
{
	return (struct tjob){ .job = { .run = tjob_run, .done = tjob_done }, .what = what, .rid = rid };
}

static int run_one(struct txn *t, struct tjob *j)
{
	txn_run(t, &j->job);
	assert_true(j->done);
	return j->err;
}

/* --- a server and a mount --- */

struct sim {
	struct dev *dev;
	struct seq_source seq;
	struct txn *t;
	/* the mount */
	struct block_set *bs;
	struct disk_log_trees lt;
	uint8_t present[512];		/* orphan items of inodes 2000.. that are committed */
	uint8_t next[512];		/* ... and with the transaction that runs */
	struct extent held[64];		/* mapped data extents, committed and to be */
	unsigned held_nr;
	struct extent held_next[64];
	unsigned held_next_nr;
	uint64_t trans_seq;		/* of the transaction that `next` belongs to */
};

static void sim_start_server(struct sim *s)
{
	struct txn_dev dev = txn_dev_of(s->dev);
	const char *why;

	s->seq = (struct seq_source){ 0 };
	assert_int_equal(txn_open(&s->t, &dev, &s->seq, FSID, 512, &why), 0);
}

static void sim_start_mount(struct sim *s)
{
	struct block_dev bd = { s->dev, dev_read, dev_write, dev_random };

	assert_int_equal(block_set_open(&s->bs, &bd, FSID, META, 256), 0);
}

static struct sim *sim_make(void)
{
	struct sim *s = calloc(1, sizeof(*s));

	s->dev = dev_make(META, DATA);
	sim_start_server(s);
	sim_start_mount(s);
	return s;
}

static void sim_stop(struct sim *s)
{
	txn_close(s->t);
	s->t = NULL;
	block_set_close(s->bs);
	s->bs = NULL;
}

static void sim_free(struct sim *s)
{
	if (s->t)
		sim_stop(s);
	dev_free(s->dev);
	free(s);
}

static int sim_mount(struct sim *s)
{
	struct tjob m = tjob(MOUNT, RID), o = tjob(OPEN, RID);
	int ret = run_one(s->t, &m);

	if (ret == 0)
		ret = run_one(s->t, &o);
	if (ret == 0)
		s->lt = o.out;
	return ret;
}

#define INO_BASE	2000u

static int put_extent_item(struct sim *s, struct meta_alloc *ma, uint64_t slot, const struct extent *e)
{
	struct disk_extent de = { .blkno = le64_of(e ? e->start : 0) };
	struct item it = { .key = key_extent(5000 + slot, (e ? e->len : 1) - 1, e ? e->len : 1),
			   .seq = le64_get(s->lt.get_trans_seq), .val = &de,
			   .val_len = sizeof(de) };

	if (!e) {
		it.flags = ITEM_FLAG_DELETION;
		it.val_len = 0;
	}
	return log_tree_force(s->bs, ma, &s->lt, &it);
}

static int delete_extent_item(struct sim *s, struct meta_alloc *ma, uint64_t slot,
			      const struct extent *e)
{
	struct item it = { .key = key_extent(5000 + slot, e->len - 1, e->len),
			   .seq = le64_get(s->lt.get_trans_seq), .flags = ITEM_FLAG_DELETION };

	return log_tree_force(s->bs, ma, &s->lt, &it);
}

/* One transaction of the mount in memory: items come and go, data is allocated and freed. */
static void mount_work(struct sim *s, unsigned items, unsigned extents)
{
	struct meta_alloc ma;

	memcpy(s->next, s->present, sizeof(s->next));
	memcpy(s->held_next, s->held, sizeof(s->held));
	s->held_next_nr = s->held_nr;
	s->trans_seq = le64_get(s->lt.get_trans_seq);
	meta_alloc_open(&ma, s->bs, &s->lt.meta_avail, &s->lt.meta_freed);
	for (unsigned i = 0; i < items; i++) {
		unsigned at = (unsigned)rnd(sizeof(s->next));
		bool there = rnd(3) > 0;
		struct item it = { .key = key_orphan(INO_BASE + at), .seq = s->trans_seq,
				   .flags = there ? 0 : ITEM_FLAG_DELETION };

		assert_int_equal(log_tree_force(s->bs, &ma, &s->lt, &it), 0);
		s->next[at] = there;
	}
	for (unsigned i = 0; i < extents; i++) {
		unsigned slot = (unsigned)rnd(64);
		struct extent *e = &s->held_next[slot];

		if (e->len) {
			assert_int_equal(delete_extent_item(s, &ma, slot, e), 0);
			assert_int_equal(free_extents_insert(s->bs, &ma.al, &s->lt.data_freed, *e), 0);
			e->len = 0;
		} else {
			assert_int_equal(free_extents_alloc(s->bs, &ma.al, &s->lt.data_avail,
							    1 + rnd(3000), e), 0);
			assert_int_equal(put_extent_item(s, &ma, slot, e), 0);
		}
	}
	meta_alloc_close(&ma);
}

static void mount_accept(struct sim *s)
{
	memcpy(s->present, s->next, sizeof(s->present));
	memcpy(s->held, s->held_next, sizeof(s->held));
}

static int mount_write(struct sim *s)
{
	int ret = block_set_write(s->bs);

	return ret < 0 ? ret : dev_flush(s->dev);
}

/* Write, commit, go on with the next transaction. */
static int mount_commit(struct sim *s, bool open_next)
{
	struct tjob j = tjob(COMMIT, RID);
	int ret = mount_write(s);

	if (ret < 0)
		return ret;
	j.in = s->lt;
	j.open_next = open_next;
	ret = run_one(s->t, &j);
	if (ret < 0)
		return ret;
	s->lt = j.out;
	mount_accept(s);
	return 0;
}

/* What the model says is committed is what the volume says. */
static void check_model(struct sim *s)
{
	struct block_dev bd = { s->dev, dev_read, dev_write, dev_random };
	struct disk_super super;
	struct forest_roots roots;
	struct block_set *bs;
	uint8_t val[ITEM_VAL_MAX];

	memcpy(&super, s->dev->super_now, sizeof(super));
	forest_roots_of_super(&super, &roots);
	assert_int_equal(block_set_open(&bs, &bd, FSID, META, 256), 0);
	for (unsigned i = 0; i < sizeof(s->present); i++) {
		struct key key = key_orphan(INO_BASE + i);
		struct item it;

		assert_int_equal(forest_lookup(bs, &roots, &key, &it, val),
				 s->present[i] ? 0 : -ENOENT);
	}
	for (unsigned i = 0; i < 64; i++) {
		struct key key = key_extent(5000 + i, s->held[i].len - 1, s->held[i].len);
		struct disk_extent de;
		struct item it;

		if (!s->held[i].len)
			continue;
		assert_int_equal(forest_lookup(bs, &roots, &key, &it, val), 0);
		memcpy(&de, it.val, sizeof(de));
		assert_int_equal(le64_get(de.blkno), s->held[i].start);
	}
	block_set_close(bs);
}

/*
 * Everybody comes back after a power cut.  The mount asks for its transaction: the one it was in is
 * still open, or it was committed after all.
 */
static void sim_restart(struct sim *s)
{
	struct tjob o = tjob(OPEN, RID);
	struct disk_log_trees lt;

	sim_stop(s);
	dev_power_cut(s->dev);
	check_volume(s->dev);
	sim_start_server(s);
	sim_start_mount(s);
	if (logs_newest(s->t, RID, &lt) == 0 && s->trans_seq &&
	    le64_get(lt.commit_trans_seq) == s->trans_seq)
		mount_accept(s);
	check_model(s);
	assert_int_equal(run_one(s->t, &o), 0);
	s->lt = o.out;
	check_volume(s->dev);
}

static void reclaim_and_check(struct sim *s)
{
	struct tjob r = tjob(RECLAIM, RID);
	struct disk_log_trees lt;
	struct txn_view view;

	assert_int_equal(run_one(s->t, &r), 0);
	check_volume(s->dev);
	check_model(s);
	txn_get_view(s->t, &view);
	assert_int_equal(view.mounted_nr, 0);
	assert_int_equal(view.super.mounted_clients.height, 0);
	assert_int_equal(view.open_trees_nr, 0);
	if (logs_newest(s->t, RID, &lt) == 0) {
		assert_int_equal(le64_get(lt.flags), LOG_TREES_FLAG_FINALIZED);
		assert_int_equal(le64_get(lt.meta_avail.total_nr), 0);
		assert_int_equal(le64_get(lt.data_avail.total_len), 0);
		assert_int_equal(le64_get(lt.commit_trans_seq), le64_get(lt.get_trans_seq));
		assert_true(le64_get(lt.finalize_seq) > 0);
	}
}

/* --- tests --- */

static void two_hundred_commits_leave_every_block_in_one_place(void **state)
{
	struct sim *s = sim_make();
	uint64_t rounds = env("ROUNDS", 200);
	struct txn_view view;
	uint64_t last_seq = 0;

	(void)state;
	rng = env("SEED", 11) * 77777 + 1;
	assert_int_equal(sim_mount(s), 0);
	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t seq = le64_get(s->lt.get_trans_seq);

		assert_true(seq > last_seq);
		last_seq = seq;
		mount_work(s, 20, 6);
		assert_int_equal(mount_commit(s, true), 0);
		txn_get_view(s->t, &view);
		/* All that is committed is stable, and nothing that is not. */
		assert_int_equal(view.last_stable_seq, le64_get(s->lt.get_trans_seq) - 1);
		assert_true(view.last_stable_seq >= seq);
		if (i % 20 == 0) {
			check_volume(s->dev);
			check_model(s);
		}
	}
	check_volume(s->dev);
	check_model(s);
	reclaim_and_check(s);
	sim_free(s);
}

/* The whole life of a mount; false when the device went down on the way. */
static bool life(struct sim *s)
{
	struct tjob i = tjob(INOS, RID), r = tjob(RECLAIM, RID);

	if (sim_mount(s) < 0 || run_one(s->t, &i) < 0)
		return false;
	for (unsigned n = 0; n < 5; n++) {
		mount_work(s, 30, 10);
		if (mount_commit(s, n != 3) < 0)
			return false;
		if (n == 3) {
			struct tjob o = tjob(OPEN, RID);

			if (run_one(s->t, &o) < 0)
				return false;
			s->lt = o.out;
		}
	}
	return run_one(s->t, &r) == 0;
}

static void power_cuts(bool knows_commits)
{
	uint64_t seed = env("SEED", 3), step = env("STEP", 1);
	bool whole = false;

	for (uint64_t at = 1; !whole; at += step) {
		struct sim *s = sim_make();

		rng = seed * 1000003 + at;
		s->dev->knows_commits = knows_commits;
		s->dev->ops = 0;
		s->dev->crash_at = at;
		whole = life(s);
		if (!whole) {
			struct txn_view view;
			const char *why;

			/* A server that failed to write refuses all work. */
			if (txn_failed(s->t, &why) < 0) {
				struct tjob o = tjob(OPEN, RID);

				assert_int_equal(run_one(s->t, &o), txn_failed(s->t, &why));
				assert_non_null(why);
			}
			sim_restart(s);
			/* ... and on: a few more transactions, then the mount is gone. */
			mount_work(s, 10, 5);
			assert_int_equal(mount_commit(s, true), 0);
			reclaim_and_check(s);
			txn_get_view(s->t, &view);
			assert_int_equal(view.log_trees_nr, 1);
		} else {
			check_volume(s->dev);
			print_message("%llu writes and flushes\n", (unsigned long long)s->dev->ops);
		}
		sim_free(s);
	}
}

static void a_power_cut_at_any_write_loses_nothing_committed(void **state)
{
	(void)state;
	power_cuts(false);
}

static void nor_does_one_where_a_commit_is_one_call(void **state)
{
	(void)state;
	power_cuts(true);
}

/* Whether the super of the interrupted call was written or not, the commit is one, and the next goes on from it. */
static void a_commit_that_is_interrupted_is_done_by_steps(void **state)
{
	uint64_t commits = 1;

	(void)state;
	for (uint64_t at = 1; at <= commits; at++) {
		for (unsigned late = 0; late < 2; late++) {
			struct sim *s = sim_make();

			rng = env("SEED", 3) * 1000003 + at;
			s->dev->knows_commits = true;
			s->dev->interrupt_at = at;
			s->dev->interrupt_late = late;
			assert_true(life(s));
			commits = s->dev->commits;
			assert_true(commits > 5);
			assert_int_equal(txn_failed(s->t, NULL), 0);
			check_volume(s->dev);
			check_model(s);
			sim_free(s);
		}
	}
}

/* A mount with thousands of scattered extents in its allocators. */
static void make_fragmented(struct sim *s, unsigned extents)
{
	struct meta_alloc ma;

	assert_int_equal(sim_mount(s), 0);
	memcpy(s->next, s->present, sizeof(s->next));
	memcpy(s->held_next, s->held, sizeof(s->held));
	s->trans_seq = le64_get(s->lt.get_trans_seq);
	meta_alloc_open(&ma, s->bs, &s->lt.meta_avail, &s->lt.meta_freed);
	for (unsigned i = 0; i < extents; i++) {
		struct extent keep, give;

		assert_int_equal(free_extents_alloc(s->bs, &ma.al, &s->lt.data_avail, 1, &keep), 0);
		assert_int_equal(free_extents_alloc(s->bs, &ma.al, &s->lt.data_avail, 1, &give), 0);
		assert_int_equal(free_extents_insert(s->bs, &ma.al, &s->lt.data_freed, give), 0);
		if (i < 2000) {
			struct disk_extent de = { .blkno = le64_of(keep.start) };
			struct item it = { .key = key_extent(6000, i, 1), .seq = s->trans_seq,
					   .val = &de, .val_len = sizeof(de) };

			assert_int_equal(log_tree_force(s->bs, &ma, &s->lt, &it), 0);
		} else {
			assert_int_equal(free_extents_insert(s->bs, &ma.al, &s->lt.data_avail, keep),
					 0);
		}
	}
	meta_alloc_close(&ma);
}

/*
 * The mount lives, and the next server knows nothing of its end: what it would commit of is given back, in part, once
 * that has begun.
 */
static bool is_late(struct sim *s)
{
	struct tjob late = tjob(COMMIT, RID);
	struct disk_log_trees lt;

	if (logs_newest(s->t, RID, &lt) < 0 || memcmp(&lt.meta_avail, &s->lt.meta_avail, sizeof(lt.meta_avail)) == 0)
		return false;
	late.in = s->lt;
	assert_int_equal(run_one(s->t, &late), -EINVAL);
	return true;
}

static void reclaim_goes_on_from_any_of_its_commits(void **state)
{
	uint64_t slices = 0;
	unsigned late_nr = 0;
	bool whole = false;

	(void)state;
	rng = env("SEED", 5) * 999331 + 1;
	for (uint64_t nr = 1; !whole; nr++) {
		struct sim *s = sim_make();
		struct tjob r = tjob(RECLAIM, RID);
		uint64_t writes;

		make_fragmented(s, 12000);
		assert_int_equal(mount_commit(s, nr % 2), 0);
		writes = s->dev->ops;
		s->dev->crash_at = writes + nr * env("STEP", 7);
		whole = run_one(s->t, &r) == 0;
		slices = atomic_load(&txn_stats(s->t)->slices);
		if (!whole) {
			sim_stop(s);
			dev_power_cut(s->dev);
			check_volume(s->dev);
			sim_start_server(s);
			sim_start_mount(s);
			late_nr += nr % 2 && is_late(s);
		}
		reclaim_and_check(s);
		sim_free(s);
	}
	assert_true(slices > 3);
	assert_true(late_nr > 0);
}

static void a_commit_that_comes_again_has_one_effect(void **state)
{
	struct sim *s = sim_make();
	struct tjob first = tjob(COMMIT, RID), again, later, plain, old = tjob(COMMIT, RID);
	struct tjob open_again = tjob(OPEN, RID);
	uint64_t super_seq;
	struct txn_view view;

	(void)state;
	rng = 99;
	assert_int_equal(sim_mount(s), 0);
	mount_work(s, 10, 4);
	assert_int_equal(mount_write(s), 0);
	first.in = s->lt;
	first.open_next = true;
	again = plain = first;
	assert_int_equal(run_one(s->t, &first), 0);
	mount_accept(s);

	/* The reply is lost with the server; the next one is asked again. */
	sim_stop(s);
	dev_power_cut(s->dev);
	sim_start_server(s);
	sim_start_mount(s);
	txn_get_view(s->t, &view);
	super_seq = le64_get(view.super.hdr.seq);
	assert_int_equal(run_one(s->t, &again), 0);
	assert_memory_equal(&again.out, &first.out, sizeof(first.out));
	plain.open_next = false;
	assert_int_equal(run_one(s->t, &plain), 0);
	assert_memory_equal(&plain.out, &first.out, sizeof(first.out));
	assert_int_equal(run_one(s->t, &open_again), 0);
	assert_memory_equal(&open_again.out, &first.out, sizeof(first.out));
	/* None of it wrote anything. */
	txn_get_view(s->t, &view);
	assert_int_equal(le64_get(view.super.hdr.seq), super_seq);

	s->lt = first.out;
	mount_work(s, 10, 4);
	assert_int_equal(mount_commit(s, true), 0);
	/* Once the next transaction is committed the first is nobody's any more. */
	old.in = first.in;
	assert_int_equal(run_one(s->t, &old), -EINVAL);
	later = tjob(COMMIT, RID);
	later.in = s->lt;
	later.in.get_trans_seq = le64_of(le64_get(s->lt.get_trans_seq) + 5);
	assert_int_equal(run_one(s->t, &later), -EINVAL);
	check_volume(s->dev);
	check_model(s);
	sim_free(s);
}

static void a_commit_that_cannot_be_is_refused(void **state)
{
	struct sim *s = sim_make();
	struct disk_log_trees good;
	struct tjob j;

	(void)state;
	rng = 7;
	assert_int_equal(sim_mount(s), 0);
	mount_work(s, 10, 4);
	assert_int_equal(mount_write(s), 0);
	good = s->lt;
#define REFUSED(change)							\
	do {								\
		j = tjob(COMMIT, RID);					\
		j.in = good;						\
		change;							\
		assert_int_equal(run_one(s->t, &j), -EINVAL);		\
	} while (0)
	REFUSED(j.in.rid = le64_of(RID + 1));
	REFUSED(j.in.item_root.ref.blkno = le64_of(META));
	REFUSED(j.in.item_root.height = 99);
	REFUSED(j.in.bloom_ref = (struct disk_block_ref){ 0 });
	REFUSED(j.in.meta_avail.total_nr = le64_of(META + 1));
	REFUSED(j.in.meta_avail.first_nr = le32_of(9000));
	REFUSED(j.in.data_avail.total_len = le64_of(DATA + 1));
	REFUSED(j.in.max_item_seq = le64_of(UINT64_MAX));
	REFUSED(j.in.inode_count_delta = le64_of(1ull << 63));
	j = tjob(COMMIT, RID);
	j.in = good;
	j.in.nr = le64_of(2);
	assert_int_equal(run_one(s->t, &j), -ENOENT);
	/* Flags and zones are not the mount's to say. */
	j = tjob(COMMIT, RID);
	j.in = good;
	j.in.flags = le64_of(LOG_TREES_FLAG_FINALIZED);
	j.in.finalize_seq = le64_of(4);
	assert_int_equal(run_one(s->t, &j), 0);
	mount_accept(s);
	assert_int_equal(le64_get(j.out.flags), 0);
	assert_int_equal(le64_get(j.out.finalize_seq), 0);
	check_volume(s->dev);
	check_model(s);
	sim_free(s);
}

static void a_job_that_fails_leaves_the_others(void **state)
{
	struct sim *s = sim_make();
	struct tjob a = tjob(MOUNT, 1), bad = tjob(FAIL, 2), b = tjob(MOUNT, 3), i = tjob(INOS, 4);

	(void)state;
	bad.fail_with = -EUCLEAN;
	a.job.next = &bad.job;
	bad.job.next = &b.job;
	b.job.next = &i.job;
	assert_int_equal(txn_run(s->t, &a.job), 0);
	assert_int_equal(a.err, 0);
	assert_int_equal(bad.err, -EUCLEAN);
	assert_int_equal(b.err, 0);
	assert_int_equal(i.err, 0);
	assert_int_equal(mounts_has(s->t, 1), 1);
	assert_int_equal(mounts_has(s->t, 2), 0);
	assert_int_equal(mounts_has(s->t, 3), 1);
	/* One commit served all, and the numbers were taken once. */
	assert_int_equal(atomic_load(&txn_stats(s->t)->commits), 1);
	assert_int_equal(i.start, FIRST_INO);
	assert_int_equal(i.nr, 10240);
	/* For want of room it is tried alone before it fails. */
	bad = tjob(FAIL, 2);
	bad.fail_with = -ENOSPC;
	a = tjob(MOUNT, 5);
	a.job.next = &bad.job;
	assert_int_equal(txn_run(s->t, &a.job), 0);
	assert_int_equal(a.err, 0);
	assert_int_equal(bad.err, -ENOSPC);
	assert_int_equal(bad.runs, 2);
	check_volume(s->dev);
	sim_free(s);
}

static void inode_numbers_are_never_given_twice_and_skip_the_root_node(void **state)
{
	struct sim *s = sim_make();
	struct disk_super super;
	struct tjob j = tjob(INOS, RID);

	(void)state;
	sim_stop(s);
	memcpy(&super, s->dev->super_now, sizeof(super));
	super.next_ino = le64_of(0x100000000ull - 5000);
	super.hdr.crc = le32_of(block_crc(&super, sizeof(super)));
	memcpy(s->dev->super_now, &super, sizeof(super));
	sim_start_server(s);
	sim_start_mount(s);
	assert_int_equal(run_one(s->t, &j), 0);
	assert_true(j.start > 0x100000000ull);
	sim_stop(s);
	super = *(struct disk_super *)(void *)s->dev->super_now;
	assert_int_equal(le64_get(super.next_ino), j.start + j.nr);
	super.next_ino = le64_of(UINT64_MAX - 100);
	super.hdr.crc = le32_of(block_crc(&super, sizeof(super)));
	memcpy(s->dev->super_now, &super, sizeof(super));
	sim_start_server(s);
	sim_start_mount(s);
	j = tjob(INOS, RID);
	assert_int_equal(run_one(s->t, &j), 0);
	assert_int_equal(j.nr, 0);
	sim_free(s);
}

static void somebody_else_writes(bool knows_commits)
{
	struct sim *s = sim_make();
	struct tjob m = tjob(MOUNT, 1), again = tjob(MOUNT, 2);
	struct disk_super super, before;
	const char *why = NULL;

	s->dev->knows_commits = knows_commits;
	memcpy(&super, s->dev->super_now, sizeof(super));
	le64_add(&super.hdr.seq, 1);
	super.hdr.crc = le32_of(block_crc(&super, sizeof(super)));
	memcpy(s->dev->super_now, &super, sizeof(super));
	before = super;
	assert_int_equal(run_one(s->t, &m), -ESTALE);
	assert_memory_equal(s->dev->super_now, &before, sizeof(before));
	assert_int_equal(txn_failed(s->t, &why), -ESTALE);
	assert_non_null(strstr(why, "somebody else"));
	assert_int_equal(run_one(s->t, &again), -ESTALE);
	sim_free(s);
}

static void a_super_that_somebody_else_wrote_stops_everything(void **state)
{
	(void)state;
	somebody_else_writes(false);
	somebody_else_writes(true);
}

static void a_volume_of_another_kind_is_not_opened(void **state)
{
	struct dev *d = dev_make(META, DATA);
	struct txn_dev dev = txn_dev_of(d);
	struct seq_source seq = { 0 };
	struct txn *t = NULL;
	const char *why = NULL;

	(void)state;
	assert_int_equal(txn_open(&t, &dev, &seq, FSID + 1, 64, &why), -EINVAL);
	assert_non_null(strstr(why, "another volume"));
	d->super_now[100] ^= 1;
	assert_true(txn_open(&t, &dev, &seq, FSID, 64, &why) < 0);
	assert_non_null(why);
	dev_free(d);
}

static void a_nearly_full_device_says_low_and_never_wedges(void **state)
{
	struct sim *s = sim_make();
	uint64_t given = 0;
	unsigned n = 0;
	int ret = 0;

	(void)state;
	rng = 21;
	assert_int_equal(sim_mount(s), 0);
	assert_int_equal(le32_get(s->lt.meta_avail.flags), 0);
	/* Mounts come until nothing is left for them; each takes its lists. */
	for (; n < 40 && ret == 0; n++) {
		struct tjob m = tjob(MOUNT, 100 + n), o = tjob(OPEN, 100 + n);

		ret = run_one(s->t, &m);
		if (ret == 0)
			ret = run_one(s->t, &o);
		if (ret == 0 && n > 3)
			assert_int_equal(le32_get(o.out.meta_avail.flags), ALLOC_FLAG_LOW);
		if (ret == 0)
			given += le64_get(o.out.meta_avail.total_nr);
	}
	/* LOW or not, what there was was given, from both trees. */
	assert_true(given > META - META / 4);
	assert_true(ret == 0 || ret == -ENOSPC);
	check_volume(s->dev);
	/* They go again, and everything comes back. */
	for (unsigned i = 0; i < n; i++) {
		struct tjob r = tjob(RECLAIM, 100 + i);

		assert_int_equal(run_one(s->t, &r), 0);
	}
	mount_work(s, 10, 4);
	assert_int_equal(mount_commit(s, true), 0);
	for (unsigned i = 0; i < 6; i++) {
		mount_work(s, 10, 4);
		assert_int_equal(mount_commit(s, true), 0);
	}
	assert_int_equal(le32_get(s->lt.meta_avail.flags), 0);
	reclaim_and_check(s);
	sim_free(s);
}

/* A job that needs nearly all that one may have, and leaves nothing. */
static int run_greedy(struct txn_job *job, struct txn *t)
{
	struct blkno_alloc *al = txn_alloc(t);
	uint64_t blkno[TXN_JOB_BLOCKS - 20];
	int ret = 0;

	(void)job;
	for (unsigned i = 0; ret == 0 && i < TXN_JOB_BLOCKS - 20; i++)
		ret = al->alloc(al->arg, &blkno[i]);
	for (unsigned i = 0; ret == 0 && i < TXN_JOB_BLOCKS - 20; i++)
		ret = al->free(al->arg, blkno[i]);
	return ret;
}

static void jobs_begin_only_with_room_for_them(void **state)
{
	struct sim *s = sim_make();
	struct tjob jobs[60];

	(void)state;
	for (unsigned i = 0; i < 60; i++) {
		jobs[i] = tjob(MOUNT, 100 + i);
		if (i % 2)
			jobs[i].job.run = run_greedy;
		if (i)
			jobs[i - 1].job.next = &jobs[i].job;
	}
	assert_int_equal(txn_run(s->t, &jobs[0].job), 0);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(jobs[i].err, 0);
	/* Far more than one list holds, and yet nobody ran dry and had to be taken back. */
	assert_int_equal(atomic_load(&txn_stats(s->t)->aborts), 0);
	assert_true(atomic_load(&txn_stats(s->t)->commits) >= 2);
	check_volume(s->dev);
	sim_free(s);
}

struct tree_job {
	struct tjob t;
	int (*fn)(struct txn *t, struct tree_job *j);
};

static int tree_job_run(struct txn_job *job, struct txn *t)
{
	struct tree_job *j = (struct tree_job *)job;

	return j->fn(t, j);
}

/* A compaction and two merge requests of a mount, with lists of their own. */
static int plant_work(struct txn *t, struct tree_job *j)
{
	struct disk_srch_compact sc = { .id = le64_of(77), .nr = 4, .flags = SRCH_COMPACT_LOG };
	struct disk_merge_status st = { .nr_requests = le64_of(2), .seq = le64_of(3) };
	struct key status = { .zone = ZONE_MERGE_STATUS };
	struct key busy = { .zone = ZONE_SRCH, .type = TYPE_SRCH_BUSY, .second = RID, .third = 77 };
	struct disk_super *super = txn_super(t);
	struct item it;
	int ret;

	(void)j;
	ret = alloc_list_fill(txn_blocks(t), txn_alloc(t), &sc.meta_avail, txn_meta_avail(t), 50, 50);
	it = (struct item){ .key = busy, .val = &sc, .val_len = sizeof(sc) };
	if (ret == 0)
		ret = btree_insert(txn_blocks(t), txn_alloc(t), &super->srch_root, &it);
	it = (struct item){ .key = status, .val = &st, .val_len = sizeof(st) };
	if (ret == 0)
		ret = btree_insert(txn_blocks(t), txn_alloc(t), &super->log_merge, &it);
	for (uint64_t n = 0; ret == 0 && n < 2; n++) {
		struct key start = { .zone = ZONE_FS, .first = 1000 * n };
		struct key end = { .zone = ZONE_FS, .first = 1000 * n + 999 };
		struct disk_merge_request req = {
			.start = key_to_disk(&start), .end = key_to_disk(&end),
			.rid = le64_of(RID), .seq = le64_of(10 + n), .input_seq = le64_of(3),
			.root = super->fs_root,
		};

		ret = alloc_list_fill(txn_blocks(t), txn_alloc(t), &req.meta_avail,
				      txn_meta_avail(t), 60, 60);
		it = (struct item){ .key = { .zone = ZONE_MERGE_REQUEST, .first = RID,
					     .second = 10 + n },
				    .val = &req, .val_len = sizeof(req) };
		if (ret == 0)
			ret = btree_insert(txn_blocks(t), txn_alloc(t), &super->log_merge, &it);
	}
	return ret;
}

static int count_zone(void *arg, const struct item *it)
{
	((unsigned *)arg)[it->key.zone]++;
	if (it->key.zone == ZONE_SRCH)
		assert_int_equal(it->key.type, TYPE_SRCH_PENDING);
	if (it->key.zone == ZONE_MERGE_STATUS)
		assert_int_equal(le64_get(((const struct disk_merge_status *)it->val)->nr_requests), 0);
	return 0;
}

static void reclaim_gives_back_what_the_mount_worked_on_for_others(void **state)
{
	struct sim *s = sim_make();
	struct tree_job plant = { .t = tjob(MOUNT, RID), .fn = plant_work };
	struct txn_view before, view;
	unsigned zones[256] = { 0 };

	(void)state;
	rng = 5;
	assert_int_equal(sim_mount(s), 0);
	plant.t.job.run = tree_job_run;
	txn_get_view(s->t, &before);
	assert_int_equal(run_one(s->t, &plant.t), 0);
	check_volume(s->dev);
	txn_get_view(s->t, &view);
	/* What is in their lists is free space all the same; only trees and list blocks are not. */
	assert_true(before.free_meta_blocks - view.free_meta_blocks < 16);
	reclaim_and_check(s);
	assert_int_equal(btree_each(txn_blocks(s->t), &txn_super(s->t)->srch_root, &KEY_ZEROS,
				    &KEY_ONES, count_zone, zones), 0);
	assert_int_equal(btree_each(txn_blocks(s->t), &txn_super(s->t)->log_merge, &KEY_ZEROS,
				    &KEY_ONES, count_zone, zones), 0);
	assert_int_equal(zones[ZONE_SRCH], 1);
	assert_int_equal(zones[ZONE_MERGE_STATUS], 1);
	assert_int_equal(zones[ZONE_MERGE_REQUEST], 0);
	assert_int_equal(zones[ZONE_MERGE_RANGE], 2);
	sim_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_hundred_commits_leave_every_block_in_one_place),
		cmocka_unit_test(a_power_cut_at_any_write_loses_nothing_committed),
		cmocka_unit_test(nor_does_one_where_a_commit_is_one_call),
		cmocka_unit_test(a_commit_that_is_interrupted_is_done_by_steps),
		cmocka_unit_test(reclaim_goes_on_from_any_of_its_commits),
		cmocka_unit_test(a_commit_that_comes_again_has_one_effect),
		cmocka_unit_test(a_commit_that_cannot_be_is_refused),
		cmocka_unit_test(a_job_that_fails_leaves_the_others),
		cmocka_unit_test(inode_numbers_are_never_given_twice_and_skip_the_root_node),
		cmocka_unit_test(a_super_that_somebody_else_wrote_stops_everything),
		cmocka_unit_test(a_volume_of_another_kind_is_not_opened),
		cmocka_unit_test(jobs_begin_only_with_room_for_them),
		cmocka_unit_test(a_nearly_full_device_says_low_and_never_wedges),
		cmocka_unit_test(reclaim_gives_back_what_the_mount_worked_on_for_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
