/*
 * Log merges through the server's transactions: two mounts write, their trees are finished together, one
 * of them or both do the work, and the device may lose power at any write or flush.  After each crash and
 * at the end every block is in one place and every item and total is what the mounts committed.
 *
 * SEED, ROUNDS and STEP in the environment make another, a longer or a finer run.
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

#include "log/merge_items.h"
#include "merge/merge.h"
#include "services/serverd/logs.h"
#include "services/serverd/merge.h"
#include "services/serverd/mounts.h"
#include "server_dev.h"

#define MOUNTS		2u
#define KEYS		600u
#define TOTALS		12u
#define INO_BASE	3000u
#define VAL_BYTES	700u

/* --- jobs --- */

enum what { MOUNT, OPEN, COMMIT, RECLAIM, GET, DONE, BACKGROUND };

struct tjob {
	struct txn_job job;
	enum what what;
	uint64_t rid;
	struct merge_gate gate;
	struct disk_log_trees in, out;
	struct disk_merge_request req;
	struct disk_merge_complete comp;
	bool has_work;
	int err;
	bool is_done;
};

static struct merge_policy policy;

static int tjob_run(struct txn_job *job, struct txn *t)
{
	struct tjob *j = (struct tjob *)job;
	struct mount_info m = { .rid = j->rid, .addr = 0x7f000001, .port = 1 };

	switch (j->what) {
	case MOUNT:
		return mounts_insert(t, &m);
	case OPEN:
		return logs_open(t, j->rid, &j->gate, &j->out);
	case COMMIT:
		return logs_commit(t, j->rid, &j->in, true, &j->gate, &j->out);
	case RECLAIM:
		return mounts_reclaim(t, j->rid);
	case GET:
		return merge_get(t, j->rid, &j->has_work, &j->req);
	case DONE:
		return merge_commit(t, j->rid, &j->comp);
	case BACKGROUND:
		return merge_background(t);
	}
	return -EINVAL;
}

static void tjob_done(struct txn_job *job, int err)
{
	struct tjob *j = (struct tjob *)job;

	j->is_done = true;
	j->err = err;
}

static struct tjob tjob(enum what what, uint64_t rid)
{
	return (struct tjob){ .job = { .run = tjob_run, .done = tjob_done }, .what = what, .rid = rid,
			      .gate.policy = &policy };
}

/* --- a server, mounts, and what they wrote --- */

struct model {
	uint32_t version[KEYS];		/* 0: absent */
	int64_t total[TOTALS], count[TOTALS];
};

struct mnt {
	uint64_t rid;
	struct block_set *bs;
	struct disk_log_trees lt;
	uint64_t trans_seq;		/* what `next` is committed under; 0: nothing is pending */
};

struct sim {
	struct dev *dev;
	struct seq_source seq;
	struct txn *t;
	struct mnt mnt[MOUNTS];
	struct model is, next;		/* committed, and with the transaction that is being committed */
	uint64_t begun, finished;	/* merges seen */
	uint64_t remains;		/* requests that were handed in unfinished */
};

static int run_one(struct sim *s, struct tjob *j)
{
	txn_run(s->t, &j->job);
	assert_true(j->is_done);
	return j->err;
}

static void start_server(struct sim *s)
{
	struct txn_dev dev = txn_dev_of(s->dev);
	const char *why;

	s->seq = (struct seq_source){ 0 };
	assert_int_equal(txn_open(&s->t, &dev, &s->seq, FSID, 512, &why), 0);
}

static void start_mounts(struct sim *s)
{
	struct block_dev bd = { s->dev, dev_read, dev_write, dev_random };

	for (unsigned i = 0; i < MOUNTS; i++) {
		s->mnt[i].rid = 0x100 + i;
		assert_int_equal(block_set_open(&s->mnt[i].bs, &bd, FSID, META, 256), 0);
	}
}

static struct sim *sim_make(void)
{
	struct sim *s = calloc(1, sizeof(*s));

	s->dev = dev_make(META, DATA);
	start_server(s);
	start_mounts(s);
	atomic_store(&policy.may_begin, true);
	policy.min_height = 1;
	policy.min_trees = 0;
	return s;
}

static void sim_stop(struct sim *s)
{
	txn_close(s->t);
	s->t = NULL;
	for (unsigned i = 0; i < MOUNTS; i++) {
		block_set_close(s->mnt[i].bs);
		s->mnt[i].bs = NULL;
	}
}

static void sim_free(struct sim *s)
{
	if (s->t)
		sim_stop(s);
	dev_free(s->dev);
	free(s);
}

static void look(struct sim *s)
{
	struct txn_view v;

	txn_get_view(s->t, &v);
	if (v.merge.is_running && s->begun == s->finished)
		s->begun++;
	if (!v.merge.is_running)
		s->finished = s->begun;
}

/* --- what mounts write --- */

static struct key xattr_key_of(unsigned k)
{
	return key_xattr(INO_BASE + k * 7, 5, k % 3, 0);
}

static struct key total_key_of(unsigned k)
{
	return (struct key){ .zone = ZONE_XATTR_TOTL, .first = k, .second = k % 2, .third = 9 };
}

static int put_item(struct sim *s, struct mnt *m, struct meta_alloc *ma, unsigned k, bool there,
		    uint64_t seq)
{
	uint8_t val[VAL_BYTES];
	struct item it = { .key = xattr_key_of(k), .seq = seq, .val = val, .val_len = sizeof(val) };
	uint32_t version = s->next.version[k] + 1;

	memset(val, (int)k, sizeof(val));
	memcpy(val, &version, sizeof(version));
	if (!there) {
		it.flags = ITEM_FLAG_DELETION;
		it.val_len = 0;
	}
	/* A version of its own each time, deletions too: what was merged wrongly shows. */
	s->next.version[k] = there ? version : 0;
	return log_tree_force(m->bs, ma, &m->lt, &it);
}

static int put_total(struct sim *s, struct mnt *m, struct meta_alloc *ma, unsigned k, uint64_t seq)
{
	int64_t count = s->next.count[k] > 0 && rnd(2) ? -1 : 1;
	int64_t total = count < 0 && s->next.count[k] == 1 ? -s->next.total[k]
							   : (int64_t)rnd(1000) - 300;
	struct disk_xattr_total d = { le64_of((uint64_t)total), le64_of((uint64_t)count) };
	struct item it = { .key = total_key_of(k), .seq = seq, .val = &d, .val_len = sizeof(d) };

	s->next.count[k] += count;
	s->next.total[k] += total;
	return log_tree_force(m->bs, ma, &m->lt, &it);
}

/* Changes of one transaction, as if under locks that were granted just now. */
static void write_some(struct sim *s, struct mnt *m, unsigned nr)
{
	uint64_t seq = seq_next(&s->seq), trans = le64_get(m->lt.get_trans_seq);
	struct meta_alloc ma;

	seq = seq > trans ? seq : trans;
	s->next = s->is;
	m->trans_seq = trans;
	meta_alloc_open(&ma, m->bs, &m->lt.meta_avail, &m->lt.meta_freed);
	for (unsigned i = 0; i < nr; i++) {
		if (rnd(6) == 0)
			assert_int_equal(put_total(s, m, &ma, (unsigned)rnd(TOTALS), seq), 0);
		else
			assert_int_equal(put_item(s, m, &ma, (unsigned)rnd(KEYS), rnd(4) > 0, seq), 0);
	}
	meta_alloc_close(&ma);
}

static int flush_blocks(struct sim *s, struct block_set *bs)
{
	int ret = block_set_write(bs);

	return ret < 0 ? ret : dev_flush(s->dev);
}

static int commit_one(struct sim *s, struct mnt *m)
{
	struct tjob j = tjob(COMMIT, m->rid);
	int ret = flush_blocks(s, m->bs);

	if (ret < 0)
		return ret;
	j.in = m->lt;
	ret = run_one(s, &j);
	if (ret < 0)
		return ret;
	m->lt = j.out;
	if (m->trans_seq)
		s->is = s->next;
	m->trans_seq = 0;
	look(s);
	return 0;
}

/* Every mount gets its next transaction; those that others wait for commit. */
static int open_all(struct sim *s)
{
	for (unsigned tries = 0; tries < 4; tries++) {
		unsigned open = 0;

		for (unsigned i = 0; i < MOUNTS; i++) {
			struct mnt *m = &s->mnt[i];
			struct tjob j = tjob(OPEN, m->rid);
			int ret;

			if (logs_is_open(&m->lt)) {
				open++;
				continue;
			}
			ret = run_one(s, &j);
			if (ret < 0)
				return ret;
			m->lt = j.out;
			open += logs_is_open(&m->lt);
			for (unsigned a = 0; a < j.gate.active_nr; a++) {
				unsigned other = (unsigned)(j.gate.active[a] - 0x100);

				assert_true(other < MOUNTS && other != i);
				ret = commit_one(s, &s->mnt[other]);
				if (ret < 0)
					return ret;
			}
		}
		look(s);
		if (open == MOUNTS)
			return 0;
	}
	fail_msg("the barrier does not open");
	return -1;
}

static int mount_all(struct sim *s)
{
	for (unsigned i = 0; i < MOUNTS; i++) {
		struct tjob m = tjob(MOUNT, 0x100 + i), o = tjob(OPEN, 0x100 + i);
		int ret = run_one(s, &m);

		if (ret == 0)
			ret = run_one(s, &o);
		if (ret < 0)
			return ret;
		s->mnt[i].lt = o.out;
	}
	return 0;
}

/* --- the work --- */

enum { NO_WORK, SOME_WORK };

static int do_request(struct sim *s, struct mnt *m, const struct disk_merge_request *d)
{
	struct block_dev bd = { s->dev, dev_read, dev_write, dev_random };
	struct item it = { .key = { .zone = ZONE_MERGE_REQUEST, .first = m->rid,
				    .second = le64_get(d->seq) },
			   .val = d, .val_len = sizeof(*d) };
	struct tjob j = tjob(DONE, m->rid);
	struct merge_complete comp;
	struct merge_request req;
	struct merge_run *run;
	struct block_set *bs;
	const char *why;
	int ret;

	assert_int_equal(merge_request_get(&it, &req, &why), 0);
	assert_int_equal(block_set_open(&bs, &bd, FSID, META, 64), 0);
	assert_int_equal(merge_run_open(&run, bs, &req, &req.logs_root, rnd(3) ? 16 : 200), 0);
	while ((ret = merge_run_step(run, 100)) == 0)
		;
	assert_int_equal(ret, 1);
	merge_run_result(run, &comp);
	ret = flush_blocks(s, bs);
	merge_run_close(run);
	block_set_abort(bs);
	block_set_close(bs);
	if (ret < 0)
		return ret;
	s->remains += comp.flags & MERGE_COMPLETE_REMAIN ? 1 : 0;
	if (rnd(8) == 0)
		merge_run_give_up(&req, &comp);
	merge_complete_put(&comp, &j.comp);
	ret = run_one(s, &j);
	/* The answer was lost: it is handed in again. */
	if (ret == 0 && rnd(4) == 0) {
		j.is_done = false;
		ret = run_one(s, &j);
	}
	return ret;
}

static int work_once(struct sim *s, struct mnt *m)
{
	struct tjob j = tjob(GET, m->rid);
	int ret = run_one(s, &j);

	if (ret == 0)
		look(s);
	if (ret < 0 || !j.has_work)
		return ret < 0 ? ret : NO_WORK;
	/* Sometimes the mount forgets what it was doing, and asks again. */
	if (rnd(6)) {
		ret = do_request(s, m, &j.req);
		if (ret < 0)
			return ret;
	}
	look(s);
	return SOME_WORK;
}

static int work_and_free(struct sim *s)
{
	struct tjob b = tjob(BACKGROUND, 0);
	int ret = work_once(s, &s->mnt[rnd(MOUNTS)]);

	if (ret >= 0 && rnd(3) == 0)
		ret = run_one(s, &b);
	look(s);
	return ret < 0 ? ret : 0;
}

/* --- what must be there --- */

static void check_model(struct sim *s)
{
	struct block_dev bd = { s->dev, dev_read, dev_write, dev_random };
	struct disk_super super;
	struct forest_roots roots;
	struct block_set *bs;
	uint8_t val[ITEM_VAL_MAX];
	struct item it;

	memcpy(&super, s->dev->super_now, sizeof(super));
	forest_roots_of_super(&super, &roots);
	assert_int_equal(block_set_open(&bs, &bd, FSID, META, 256), 0);
	for (unsigned k = 0; k < KEYS; k++) {
		struct key key = xattr_key_of(k);

		assert_int_equal(forest_lookup(bs, &roots, &key, &it, val),
				 s->is.version[k] ? 0 : -ENOENT);
		if (s->is.version[k])
			assert_memory_equal(val, &s->is.version[k], 4);
	}
	for (unsigned k = 0; k < TOTALS; k++) {
		struct key key = total_key_of(k);
		bool there = s->is.total[k] || s->is.count[k];
		struct disk_xattr_total d;

		assert_int_equal(forest_lookup(bs, &roots, &key, &it, val), there ? 0 : -ENOENT);
		if (!there)
			continue;
		memcpy(&d, val, sizeof(d));
		assert_int_equal((int64_t)le64_get(d.total), s->is.total[k]);
		assert_int_equal((int64_t)le64_get(d.count), s->is.count[k]);
	}
	block_set_close(bs);
}

static void restart(struct sim *s)
{
	struct disk_log_trees lt;

	sim_stop(s);
	dev_power_cut(s->dev);
	check_volume(s->dev);
	start_server(s);
	start_mounts(s);
	for (unsigned i = 0; i < MOUNTS; i++) {
		struct mnt *m = &s->mnt[i];

		/* Whether the last commit was stored stands in the mount's newest tree. */
		if (m->trans_seq && logs_newest(s->t, m->rid, &lt) == 0 &&
		    le64_get(lt.commit_trans_seq) == m->trans_seq)
			s->is = s->next;
		m->trans_seq = 0;
	}
	s->begun = s->finished;
	look(s);
	check_model(s);
	/* They come back one after another and go on where they were. */
	for (unsigned i = 0; i < MOUNTS; i++) {
		struct tjob o = tjob(OPEN, s->mnt[i].rid);

		o.gate.policy = NULL;
		assert_int_equal(run_one(s, &o), 0);
		s->mnt[i].lt = o.out;
	}
}

/* Everything is merged and freed, by whoever is asked. */
static int settle(struct sim *s)
{
	struct txn_view v;
	int ret;

	atomic_store(&policy.may_begin, false);
	for (unsigned i = 0; i < 2000; i++) {
		struct tjob b = tjob(BACKGROUND, 0);

		txn_get_view(s->t, &v);
		if (!v.merge.is_running && !v.merge.freeing)
			return 0;
		ret = work_once(s, &s->mnt[i % MOUNTS]);
		if (ret >= 0)
			ret = run_one(s, &b);
		if (ret < 0)
			return ret;
	}
	fail_msg("the merge does not end");
	return -1;
}

static void check_end(struct sim *s)
{
	struct txn_view v;

	txn_get_view(s->t, &v);
	assert_int_equal(v.super.log_merge.height, 0);
	check_volume(s->dev);
	check_model(s);
}

/* --- tests --- */

static int live(struct sim *s, uint64_t rounds)
{
	int ret = 0;

	for (uint64_t i = 0; i < rounds && ret == 0; i++) {
		struct mnt *m = &s->mnt[rnd(MOUNTS)];

		write_some(s, m, 1 + (unsigned)rnd(40));
		ret = commit_one(s, m);
		if (ret == 0)
			ret = open_all(s);
		for (unsigned n = (unsigned)rnd(4); n && ret == 0; n--)
			ret = work_and_free(s);
	}
	return ret;
}

static void merges_under_load_keep_every_item_and_block(void **state)
{
	uint64_t rounds = env("ROUNDS", 150);
	struct sim *s = sim_make();
	struct txn_view v;

	(void)state;
	rng = env("SEED", 1) * 7919 + 1;
	assert_int_equal(mount_all(s), 0);
	for (uint64_t i = 0; i < rounds; i++) {
		assert_int_equal(live(s, 1), 0);
		txn_get_view(s->t, &v);
		/* Each mount has one that it writes and one that is merged; what a merge that ran left. */
		assert_true(v.log_trees_nr <= 2 * MOUNTS);
		if (i % 10 == 0) {
			check_volume(s->dev);
			check_model(s);
		}
	}
	assert_int_equal(settle(s), 0);
	check_end(s);
	assert_true(s->finished >= rounds / 20);
	assert_true(s->remains > 0);
	sim_free(s);
}

static void a_power_cut_at_any_write_loses_nothing(void **state)
{
	uint64_t step = env("STEP", 23);
	bool whole = false;

	(void)state;
	for (uint64_t at = 1 + env("SEED", 0) % step; !whole; at += step) {
		struct sim *s = sim_make();

		rng = 31 * at + 7;
		assert_int_equal(mount_all(s), 0);
		/* Something for the first merge to change. */
		assert_int_equal(live(s, 3), 0);
		s->dev->ops = 0;
		s->dev->crash_at = at;
		whole = live(s, 12) == 0 && settle(s) == 0;
		if (!whole) {
			restart(s);
			atomic_store(&policy.may_begin, true);
			assert_int_equal(live(s, 4), 0);
			assert_int_equal(settle(s), 0);
		} else {
			s->dev->crash_at = 0;
			print_message("%llu writes and flushes\n", (unsigned long long)s->dev->ops);
		}
		check_end(s);
		sim_free(s);
	}
}

static void a_mount_that_goes_is_merged_without_it(void **state)
{
	struct sim *s = sim_make();
	struct tjob get = tjob(GET, 0x101), r = tjob(RECLAIM, 0x101);
	struct txn_view v;

	(void)state;
	rng = 5;
	assert_int_equal(mount_all(s), 0);
	assert_int_equal(live(s, 6), 0);
	/* It has work and dies with it. */
	for (unsigned i = 0; i < 100 && !get.has_work; i++) {
		assert_int_equal(live(s, 1), 0);
		get = tjob(GET, 0x101);
		assert_int_equal(run_one(s, &get), 0);
	}
	assert_true(get.has_work);
	assert_int_equal(run_one(s, &r), 0);
	check_volume(s->dev);
	txn_get_view(s->t, &v);
	assert_int_equal(v.merge.requests, 0);
	/* The other one goes on alone: what was begun ends, and its next commit begins another. */
	block_set_close(s->mnt[1].bs);
	s->mnt[1] = s->mnt[0];
	assert_int_equal(settle(s), 0);
	atomic_store(&policy.may_begin, true);
	s->mnt[1].bs = NULL;
	write_some(s, &s->mnt[0], 20);
	assert_int_equal(commit_one(s, &s->mnt[0]), 0);
	assert_true(logs_is_open(&s->mnt[0].lt));
	txn_get_view(s->t, &v);
	assert_true(v.merge.is_running);
	s->mnt[1] = s->mnt[0];
	assert_int_equal(settle(s), 0);
	check_end(s);
	txn_get_view(s->t, &v);
	/* Nothing is left of the one that went. */
	assert_int_equal(v.log_trees_nr, 1);
	s->mnt[1].bs = NULL;
	sim_free(s);
}

static void a_merge_begins_only_when_every_tree_is_finished(void **state)
{
	struct sim *s = sim_make();
	struct tjob c, o;
	struct txn_view v;

	(void)state;
	rng = 6;
	assert_int_equal(mount_all(s), 0);
	policy.min_height = 0;
	write_some(s, &s->mnt[1], 30);
	assert_int_equal(commit_one(s, &s->mnt[1]), 0);
	assert_true(logs_is_open(&s->mnt[1].lt));
	/* Mount 0 wants one; mount 1 has an open transaction. */
	policy.min_height = 1;
	write_some(s, &s->mnt[0], 30);
	assert_int_equal(commit_one(s, &s->mnt[0]), 0);
	assert_false(logs_is_open(&s->mnt[0].lt));
	assert_int_equal(le64_get(s->mnt[0].lt.nr), 2);
	o = tjob(OPEN, 0x100);
	assert_int_equal(run_one(s, &o), 0);
	assert_false(logs_is_open(&o.out));
	assert_int_equal(o.gate.active_nr, 1);
	assert_int_equal(o.gate.active[0], 0x101);
	txn_get_view(s->t, &v);
	assert_false(v.merge.is_running);
	check_volume(s->dev);
	check_model(s);
	/* Given up: it goes on in its new tree, and the volume is fine. */
	atomic_store(&policy.may_begin, false);
	o = tjob(OPEN, 0x100);
	assert_int_equal(run_one(s, &o), 0);
	assert_true(logs_is_open(&o.out));
	s->mnt[0].lt = o.out;
	check_volume(s->dev);
	check_model(s);
	/* The next attempt: mount 1 commits, and 0 has nothing that counts but an open transaction. */
	atomic_store(&policy.may_begin, true);
	assert_int_equal(commit_one(s, &s->mnt[1]), 0);
	assert_false(logs_is_open(&s->mnt[1].lt));
	assert_int_equal(commit_one(s, &s->mnt[0]), 0);
	assert_true(logs_is_open(&s->mnt[0].lt));
	txn_get_view(s->t, &v);
	assert_true(v.merge.is_running);
	assert_true(le64_get(s->mnt[0].lt.get_trans_seq) > v.merge.seq);
	/* A commit that comes again after its tree is gone is known all the same. */
	assert_int_equal(open_all(s), 0);
	write_some(s, &s->mnt[0], 5);
	assert_int_equal(flush_blocks(s, s->mnt[0].bs), 0);
	assert_int_equal(settle(s), 0);
	atomic_store(&policy.may_begin, true);
	c = tjob(COMMIT, 0x100);
	c.in = s->mnt[0].lt;
	assert_int_equal(run_one(s, &c), 0);
	s->is = s->next;
	s->mnt[0].lt = c.out;
	s->mnt[0].trans_seq = 0;
	assert_int_equal(commit_one(s, &s->mnt[1]), 0);
	assert_int_equal(open_all(s), 0);
	assert_int_equal(settle(s), 0);
	c.is_done = false;
	assert_int_equal(run_one(s, &c), 0);
	assert_memory_equal(&c.out, &s->mnt[0].lt, sizeof(c.out));
	check_end(s);
	sim_free(s);
}

/* More trees stand in the way than a gate can name; that those it names are nobody's is not enough. */
static void abandoned_trees_do_not_hide_a_mount_that_writes(void **state)
{
	struct sim *s = sim_make();
	struct txn_view v;

	(void)state;
	rng = 7;
	policy.min_height = 0;
	for (uint64_t rid = 1; rid <= MERGE_ACTIVE_MAX; rid++) {
		struct tjob o = tjob(OPEN, rid);

		assert_int_equal(run_one(s, &o), 0);
	}
	assert_int_equal(mount_all(s), 0);
	write_some(s, &s->mnt[0], 30);
	policy.min_height = 1;
	assert_int_equal(commit_one(s, &s->mnt[0]), 0);
	txn_get_view(s->t, &v);
	assert_false(v.merge.is_running);
	check_volume(s->dev);
	sim_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_merge_begins_only_when_every_tree_is_finished),
		cmocka_unit_test(abandoned_trees_do_not_hide_a_mount_that_writes),
		cmocka_unit_test(merges_under_load_keep_every_item_and_block),
		cmocka_unit_test(a_mount_that_goes_is_merged_without_it),
		cmocka_unit_test(a_power_cut_at_any_write_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
