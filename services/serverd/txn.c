/*
 * The server's transaction.
 *
 * Promises: what a commit made durable is one consistent volume, and a crash at any moment leaves the
 * last such volume: no block that it references has been written over.  done(0) of a job is called
 * only when its changes are durable; a job that failed has left nothing.  After a write that may not have
 * happened, or when somebody else has written the super, nothing is written any more.
 *
 * How: trees are changed in a private copy of the super, on blocks taken from the active allocation list
 * (format 10.3).  commit() refills the idle avail list, moves the idle freed list, or what it can of it, into the
 * tree that is not allocated from once that is worth it, writes the blocks, flushes, looks at the super
 * meanwhile, writes it, flushes: all in one call of the device, where that is possible.  Then the
 * lists change places, and the trees too when the one in use runs low.  So a
 * block freed by one commit can be allocated at the earliest by the next but one.
 *
 * A job that fails has usually left trees half changed.  Instead of undoing, everything since the last
 * commit is forgotten (block_set_abort and the saved super) and the jobs that did not fail run again.
 *
 * Room: each run of a job may take TXN_JOB_BLOCKS from the active list, and the end of the commit
 * TXN_CLOSE_BLOCKS; when a job would start with less, what there is is committed first.  Long work
 * asks txn_has_room() after each small step and goes on in another commit, so that neither a volume in
 * millions of pieces nor a list of hundreds of thousands makes a commit larger than that.  The two
 * steps of the end work in small pieces too, and what they leave is done by the next commit; they may
 * take up to DRAIN_BLOCKS where there is room, for a backlog of freed blocks must not grow.
 */
#include "txn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "csum/csum.h"
#include "format/super.h"
#include "log/merge_items.h"

/* The server's lists are refilled from less than half, to a whole block (10.2). */
#define LIST_LOW	4092u
#define LIST_TARGET	ALLOC_LIST_ENTRIES
/* One step of a refill, and the room it wants; the first step of a commit is always made. */
#define FILL_STEP	128u
#define STEP_ROOM	150u
/* What moving freed blocks to a tree may take in one commit. */
#define DRAIN_BLOCKS	800u
/* So few are left in the list: moving them would write a block of the tree in each commit. */
#define DRAIN_WORTH	512u
/* Empty commits that may be made to come to room again. */
#define ROOM_COMMITS_MAX	80u
/* So long a look at the super, to see that nobody else writes it, is good for. */
#define SUPER_KNOWN_US		100000u

struct txn {
	struct txn_dev dev;
	struct seq_source *seq;
	struct block_set *bs;
	struct disk_super super;	/* private, dirty */
	struct disk_super stable;	/* as last written or read */
	struct meta_alloc ma;
	unsigned active;		/* which pair of lists is allocated from */
	unsigned avail;			/* which tree lists are filled from */
	bool flush_data;
	bool has_missed;		/* a flush of a probe has failed */
	uint32_t job_room;		/* what there was when the running job began its run */
	uint64_t mounted_nr;
	struct txn_view next_view;
	struct {			/* what the small trees held, by their roots */
		struct disk_btree_root srch, merge, mounted;	/* merge: of view */
		uint64_t srch_listed, mounted_nr;
		struct txn_merge_view view;
	} counted;
	struct txn_stats stats;

	pthread_mutex_t lock;		/* the rest is read by other threads */
	struct txn_view view;
	int failed;
	const char *failed_why;
};

uint64_t seq_next(struct seq_source *s)
{
	return atomic_fetch_add(&s->last, 1) + 1;
}

void seq_raise(struct seq_source *s, uint64_t seq)
{
	uint64_t last = atomic_load(&s->last);

	while (last < seq && !atomic_compare_exchange_weak(&s->last, &last, seq))
		;
}

uint64_t seq_last(struct seq_source *s)
{
	return atomic_load(&s->last);
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

struct block_set *txn_blocks(struct txn *t) { return t->bs; }
struct blkno_alloc *txn_alloc(struct txn *t) { return &t->ma.al; }
struct disk_super *txn_super(struct txn *t) { return &t->super; }
const struct disk_super *txn_stable(struct txn *t) { return &t->stable; }
struct seq_source *txn_seq(struct txn *t) { return t->seq; }
const struct txn_stats *txn_stats(const struct txn *t) { return &t->stats; }

struct disk_alloc_root *txn_meta_avail(struct txn *t)
{
	return &t->super.meta_alloc[t->avail];
}

struct disk_alloc_list_head *txn_meta_freed(struct txn *t)
{
	return &t->super.server_meta_freed[!t->active];
}

static uint64_t trees_len(const struct disk_super *s)
{
	return le64_get(s->meta_alloc[0].total_len) + le64_get(s->meta_alloc[1].total_len);
}

/* 2.3: two lists for the server; for each mount its lists, a merge and its log. */
static uint64_t reserved_meta(const struct txn *t)
{
	return 16370u + (t->mounted_nr ? t->mounted_nr : 1) * 18311u;
}

/*
 * Both trees count, for their roles change when the one in use runs low
 * (docs/decisions/0003-low-counts-both-trees.md).
 */
bool txn_meta_is_low(const struct txn *t)
{
	return trees_len(&t->super) <= reserved_meta(t);
}

static uint32_t room(struct txn *t)
{
	uint32_t avail = meta_alloc_avail_nr(&t->ma);
	uint32_t freed = meta_alloc_freed_room(&t->ma);

	return avail < freed ? avail : freed;
}

bool txn_has_room(struct txn *t)
{
	uint32_t has = room(t), used = t->job_room - has;

	/* Who has not begun may take a step: where there is little room that is how it goes on. */
	return used == 0 || (has > TXN_CLOSE_BLOCKS + STEP_ROOM && used + STEP_ROOM <= TXN_JOB_BLOCKS);
}

unsigned txn_room(struct txn *t)
{
	uint32_t has = room(t);

	/* Where there is less the end does with less: its steps look at what there is. */
	return has > 2 * TXN_CLOSE_BLOCKS ? has - TXN_CLOSE_BLOCKS : has / 2;
}

void txn_flush_data(struct txn *t)
{
	t->flush_data = true;
}

static int txn_fail(struct txn *t, int err, const char *why)
{
	pthread_mutex_lock(&t->lock);
	if (!t->failed) {
		t->failed = err;
		t->failed_why = why;
	}
	err = t->failed;
	pthread_mutex_unlock(&t->lock);
	return err;
}

int txn_failed(struct txn *t, const char **why)
{
	int ret;

	pthread_mutex_lock(&t->lock);
	ret = t->failed;
	if (why)
		*why = t->failed_why;
	pthread_mutex_unlock(&t->lock);
	return ret;
}

void txn_get_view(struct txn *t, struct txn_view *view)
{
	pthread_mutex_lock(&t->lock);
	*view = t->view;
	pthread_mutex_unlock(&t->lock);
}

/* --- what a commit counts --- */

static uint64_t listed(const struct disk_alloc_list_head *a, const struct disk_alloc_list_head *b)
{
	return le64_get(a->total_nr) + le64_get(b->total_nr);
}

static int count_compaction(void *arg, const struct item *it)
{
	struct disk_srch_compact sc;

	if ((it->key.type == TYPE_SRCH_PENDING || it->key.type == TYPE_SRCH_BUSY) &&
	    it->val_len == sizeof(sc)) {
		memcpy(&sc, it->val, sizeof(sc));
		*(uint64_t *)arg += listed(&sc.meta_avail, &sc.meta_freed);
	}
	return 0;
}

static int count_merge(void *arg, const struct item *it)
{
	struct txn_merge_view *v = arg;
	struct merge_complete comp;
	struct merge_request req;
	struct merge_status st;
	const char *why;

	switch (it->key.zone) {
	case ZONE_MERGE_STATUS:
		v->is_running = merge_status_get(it, &st, &why) == 0;
		v->seq = v->is_running ? st.seq : 0;
		break;
	case ZONE_MERGE_RANGE:
		v->ranges++;
		break;
	case ZONE_MERGE_REQUEST:
		v->requests++;
		if (merge_request_get(it, &req, &why) == 0)
			v->blocks += listed(&req.meta_avail, &req.meta_freed);
		break;
	case ZONE_MERGE_COMPLETE:
		v->completes++;
		if (merge_complete_get(it, &comp, &why) == 0)
			v->blocks += listed(&comp.meta_avail, &comp.meta_freed);
		break;
	case ZONE_MERGE_FREEING:
		v->freeing++;
		break;
	default:
		break;
	}
	return 0;
}

static int count_one(void *arg, const struct item *it)
{
	(void)it;
	(*(uint64_t *)arg)++;
	return 0;
}

static int each_item(struct txn *t, const struct disk_btree_root *root, btree_item_fn each, void *arg)
{
	return btree_each(t->bs, root, &KEY_ZEROS, &KEY_ONES, each, arg);
}

/* Count a tree again only when its root has changed since. */
static int count_tree(struct txn *t, const struct disk_btree_root *root, struct disk_btree_root *seen,
		      btree_item_fn each, void *counts, size_t size)
{
	int ret;

	if (memcmp(root, seen, sizeof(*root)) == 0)
		return 0;
	memset(counts, 0, size);
	ret = each_item(t, root, each, counts);
	if (ret == 0)
		*seen = *root;
	return ret;
}

struct count_logs {
	struct txn *t;
	struct txn_view *view;
};

static bool rid_is_mounted(struct txn *t, uint64_t rid, int *err)
{
	struct key key = key_mounted_client(rid);
	struct btree_ref ref;
	int ret = btree_lookup(t->bs, &t->super.mounted_clients, &key, &ref);

	if (ret == 0)
		btree_put(t->bs, &ref);
	else if (ret != -ENOENT)
		*err = ret;
	return ret == 0;
}

static int count_log(void *arg, const struct item *it)
{
	struct count_logs *c = arg;
	struct disk_log_trees lt;
	uint64_t opened;
	int ret = log_trees_check(it, &lt);

	if (ret < 0)
		return ret;
	/* What it holds was written with numbers this counter must be past (16.1). */
	seq_raise(c->t->seq, le64_get(lt.max_item_seq));
	if (le64_get(lt.max_item_seq) > c->view->newest_item_seq)
		c->view->newest_item_seq = le64_get(lt.max_item_seq);
	c->view->log_trees_nr++;
	c->view->finished_trees_nr += le64_get(lt.flags) & LOG_TREES_FLAG_FINALIZED;
	if (lt.item_root.height > c->view->height_max)
		c->view->height_max = lt.item_root.height;
	c->view->free_meta_blocks += listed(&lt.meta_avail, &lt.meta_freed);
	c->view->free_data_blocks += le64_get(lt.data_avail.total_len) +
				     le64_get(lt.data_freed.total_len);
	c->view->inode_count += le64_get(lt.inode_count_delta);
	opened = le64_get(lt.get_trans_seq);
	if (opened > le64_get(lt.commit_trans_seq)) {
		bool mounted = rid_is_mounted(c->t, le64_get(lt.rid), &ret);

		if (mounted && opened - 1 < c->view->last_stable_seq)
			c->view->last_stable_seq = opened - 1;
		c->view->open_trees_nr += mounted;
	}
	return ret;
}

/* Everything of a view but the super's header, from the dirty super. */
static int count_view(struct txn *t, struct txn_view *v)
{
	struct count_logs c = { t, v };
	int ret;

	*v = (struct txn_view){ .super = t->super };
	ret = count_tree(t, &t->super.srch_root, &t->counted.srch, count_compaction,
			 &t->counted.srch_listed, sizeof(t->counted.srch_listed));
	if (ret == 0)
		ret = count_tree(t, &t->super.log_merge, &t->counted.merge, count_merge,
				 &t->counted.view, sizeof(t->counted.view));
	if (ret == 0)
		ret = count_tree(t, &t->super.mounted_clients, &t->counted.mounted, count_one,
				 &t->counted.mounted_nr, sizeof(t->counted.mounted_nr));
	if (ret < 0)
		return ret;
	t->mounted_nr = t->counted.mounted_nr;
	v->mounted_nr = t->mounted_nr;
	v->merge = t->counted.view;
	v->last_stable_seq = le64_get(t->super.seq);
	v->inode_count = le64_get(t->super.inode_count);
	v->free_meta_blocks = trees_len(&t->super) + t->counted.srch_listed + v->merge.blocks;
	for (unsigned i = 0; i < 2; i++)
		v->free_meta_blocks += listed(&t->super.server_meta_avail[i],
					      &t->super.server_meta_freed[i]);
	v->free_data_blocks = le64_get(t->super.data_alloc.total_len);
	v->reserved_meta_blocks = reserved_meta(t);
	v->meta_is_low = txn_meta_is_low(t);
	return each_item(t, &t->super.logs_root, count_log, &c);
}

static void publish(struct txn *t)
{
	pthread_mutex_lock(&t->lock);
	t->view = t->next_view;
	t->view.super = t->stable;
	pthread_mutex_unlock(&t->lock);
}

/* --- beginning, forgetting, committing --- */

static void open_lists(struct txn *t)
{
	meta_alloc_open(&t->ma, t->bs, &t->super.server_meta_avail[t->active],
			&t->super.server_meta_freed[t->active]);
}

/* Use the other tree when the one in use is low and the other has more (10.3). */
static void swap_trees_if_low(struct txn *t)
{
	uint64_t avail = le64_get(t->super.meta_alloc[t->avail].total_len);
	uint64_t other = le64_get(t->super.meta_alloc[!t->avail].total_len);

	if (avail < 2 * reserved_meta(t) && other > avail)
		t->avail = !t->avail;
}

static bool is_changed(const struct txn *t)
{
	return block_set_dirty_nr(t->bs) > 0 || memcmp(&t->super, &t->stable, sizeof(t->super)) != 0;
}

/* As if nothing had happened since the last commit. */
static void forget(struct txn *t)
{
	meta_alloc_close(&t->ma);
	block_set_abort(t->bs);
	t->super = t->stable;
	memset(&t->counted, 0xff, sizeof(t->counted));
	atomic_fetch_add(&t->stats.aborts, 1);
	open_lists(t);
}

static int refill_idle_list(struct txn *t)
{
	struct disk_alloc_list_head *head = &t->super.server_meta_avail[!t->active];
	struct disk_alloc_root *tree = txn_meta_avail(t);
	int ret = 0;

	if (le32_get(head->first_nr) >= LIST_LOW)
		return 0;
	for (bool first = true; ret == 0 && le32_get(head->first_nr) < LIST_TARGET &&
				le64_get(tree->total_len) > 0; first = false) {
		uint32_t to = le32_get(head->first_nr) + FILL_STEP;

		if (!first && room(t) < STEP_ROOM)
			break;
		to = to < LIST_TARGET ? to : LIST_TARGET;
		ret = alloc_list_fill(t->bs, &t->ma.al, head, tree, to, to);
	}
	return ret;
}

/* all: also what is not worth it, because there may be need of it. */
static int drain_idle_list(struct txn *t, bool all)
{
	struct disk_alloc_list_head *head = &t->super.server_meta_freed[!t->active];
	uint32_t began = room(t), most;
	int ret = -EINPROGRESS;

	if (!all && le64_get(head->total_nr) < DRAIN_WORTH && !txn_meta_is_low(t))
		return 0;
	while (ret == -EINPROGRESS && room(t) >= STEP_ROOM &&
	       began - room(t) + STEP_ROOM <= DRAIN_BLOCKS) {
		most = DRAIN_BLOCKS - (began - room(t));
		most = most < room(t) ? most : room(t);
		ret = alloc_list_empty_some(t->bs, &t->ma.al, head, &t->super.meta_alloc[!t->avail],
					    1, most / 8);
	}
	return ret == -EINPROGRESS ? 0 : ret;
}

/* Whether what was on the device is still the super that this server wrote or read last. */
static int check_super_is_ours(struct txn *t, const struct disk_super *on_disk)
{
	const char *why;

	if (super_check(on_disk, &why) < 0)
		return txn_fail(t, -ESTALE, why);
	if (le64_get(on_disk->hdr.fsid) != le64_get(t->stable.hdr.fsid))
		return txn_fail(t, -ESTALE, "another volume was put on the metadata device");
	if (le64_get(on_disk->fmt_vers) != le64_get(t->stable.fmt_vers))
		return txn_fail(t, -ESTALE, "the volume's format version was changed by somebody else");
	if (le64_get(on_disk->hdr.seq) != le64_get(t->stable.hdr.seq) ||
	    le32_get(on_disk->hdr.crc) != le32_get(t->stable.hdr.crc))
		return txn_fail(t, -ESTALE, "somebody else has written the super block: "
					    "another server works on this volume");
	return 0;
}

static bool is_same_super(const struct disk_super *a, const struct disk_super *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static int fail_blocks(struct txn *t, int err)
{
	return txn_fail(t, err, "metadata blocks could not be written");
}

static int fail_super(struct txn *t, int err)
{
	return txn_fail(t, err, "the super block could not be written");
}

/*
 * Blocks, flushes, super, each when the one before is done; and the super is looked at with the
 * blocks, which takes no time of its own. may_stand: the new one may stand there, by a try that
 * nobody knows the end of.
 */
static int write_by_steps(struct txn *t, const struct txn_write *w, bool may_stand)
{
	uint64_t began = now_us();
	struct disk_super on_disk;
	int ret = t->dev.write_durable(t->dev.arg, w->blocks, w->blocks_nr, w->data, &on_disk);

	if (ret < 0)
		return fail_blocks(t, ret);
	/* Where the devices took long, what stood there says little. */
	if (now_us() - began > SUPER_KNOWN_US)
		ret = t->dev.read_super(t->dev.arg, &on_disk);
	if (ret < 0)
		return txn_fail(t, ret, "the super block could not be read before it was written");
	if (!may_stand || !is_same_super(&on_disk, w->super))
		ret = check_super_is_ours(t, &on_disk);
	if (ret < 0)
		return ret;
	ret = t->dev.write_super(t->dev.arg, w->super);
	return ret < 0 ? fail_super(t, ret) : 0;
}

/* Something else than the old super was found: what, in words.  Nothing is written any more. */
static int fail_foreign_super(struct txn *t)
{
	struct disk_super on_disk;
	int ret = t->dev.read_super(t->dev.arg, &on_disk);

	if (ret == 0)
		ret = check_super_is_ours(t, &on_disk);
	if (ret < 0)
		return txn_fail(t, ret, "the super block could not be read before it was written");
	return txn_fail(t, -ESTALE, "the super block was for a moment not the one that this server "
				    "wrote");
}

/* All that is dirty, durable, and the super that names it. */
static int write_all(struct txn *t)
{
	struct txn_write w = { .data = t->flush_data, .old = &t->stable, .super = &t->super };
	struct block_write *blocks;
	int ret = block_set_gather(t->bs, &blocks, &w.blocks_nr);

	if (ret < 0)
		return fail_blocks(t, ret);
	w.blocks = blocks;
	ret = t->dev.write_commit ? t->dev.write_commit(t->dev.arg, &w) : -EAGAIN;
	if (ret == -EAGAIN)
		ret = write_by_steps(t, &w, t->dev.write_commit);
	else if (ret == -EUCLEAN)
		ret = fail_foreign_super(t);
	else if (ret < 0)
		ret = w.at_super ? fail_super(t, ret) : fail_blocks(t, ret);
	free(blocks);
	if (ret < 0)
		return ret;
	block_set_written(t->bs);
	t->flush_data = false;
	return 0;
}

/*
 * Make everything since the last commit durable.  An error before the first write is an ordinary one
 * (the caller forgets the changes); any later one is fatal.
 */
static int commit(struct txn *t)
{
	uint64_t began = now_us();
	uint64_t blocks;
	int ret = 0;

	if (!is_changed(t)) {
		t->flush_data = false;
		return 0;
	}
	ret = refill_idle_list(t);
	if (ret == 0)
		ret = drain_idle_list(t, false);
	meta_alloc_close(&t->ma);
	if (ret == 0) {
		t->super.seq = le64_of(seq_last(t->seq));
		ret = count_view(t, &t->next_view);
	}
	if (ret < 0)
		return ret;

	blocks = block_set_dirty_nr(t->bs);
	le64_add(&t->super.hdr.seq, 1);
	t->super.hdr.crc = le32_of(block_crc(&t->super, sizeof(t->super)));
	ret = write_all(t);
	if (ret < 0)
		return ret;

	t->stable = t->super;
	publish(t);
	t->active = !t->active;
	swap_trees_if_low(t);
	open_lists(t);
	atomic_fetch_add(&t->stats.commits, 1);
	atomic_fetch_add(&t->stats.blocks_written, blocks);
	atomic_store(&t->stats.commit_us_last, now_us() - began);
	atomic_fetch_add(&t->stats.commit_us_sum, now_us() - began);
	return 0;
}

/*
 * Commits that only move blocks between lists and trees, until a job fits or they no longer help.
 * 0 also when there is still no room.
 */
static int make_room(struct txn *t)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < ROOM_COMMITS_MAX &&
			     room(t) < TXN_JOB_BLOCKS + TXN_CLOSE_BLOCKS; i++) {
		ret = refill_idle_list(t);
		if (ret == 0)
			ret = drain_idle_list(t, true);
		if (ret == 0 && !is_changed(t)) {
			/* Nothing to move: the other pair may still be the better one. */
			if (le64_get(t->super.server_meta_avail[!t->active].total_nr) <=
			    le64_get(t->super.server_meta_avail[t->active].total_nr))
				break;
			meta_alloc_close(&t->ma);
			t->active = !t->active;
			open_lists(t);
			continue;
		}
		if (ret == 0)
			ret = commit(t);
	}
	if (ret < 0 && !txn_failed(t, NULL))
		forget(t);
	return ret == -ENOSPC ? 0 : ret;
}

/*
 * What comes first writes nothing, so where everything fails nothing is written.  A write that failed has changed nothing:
 * the bytes are those that stand there, which was looked at.
 */
int txn_probe(struct txn *t)
{
	struct disk_super on_disk;
	int ret = txn_failed(t, NULL);

	if (ret < 0)
		return ret;
	ret = t->dev.probe_data(t->dev.arg);
	if (ret == 0)
		ret = t->dev.write_durable(t->dev.arg, NULL, 0, false, &on_disk);
	if (ret == 0)
		ret = t->dev.read_super(t->dev.arg, &on_disk);
	if (ret == 0)
		ret = check_super_is_ours(t, &on_disk);
	if (ret == 0)
		ret = t->dev.write_super(t->dev.arg, &t->stable);
	if (ret < 0)
		t->has_missed = true;
	return ret;
}

bool txn_has_missed(const struct txn *t)
{
	return t->has_missed;
}

/* --- jobs --- */

struct job_list {
	struct txn_job *head;
	struct txn_job **tail;
};

static void list_init(struct job_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_push(struct job_list *l, struct txn_job *job)
{
	job->next = NULL;
	*l->tail = job;
	l->tail = &job->next;
}

static struct txn_job *list_pop(struct job_list *l)
{
	struct txn_job *job = l->head;

	if (job) {
		l->head = job->next;
		if (!l->head)
			l->tail = &l->head;
		job->next = NULL;
	}
	return job;
}

/* All of `front`, then all of `back`, which is empty afterwards. */
static void list_join(struct job_list *front, struct job_list *back)
{
	struct txn_job *job;

	while ((job = list_pop(back)))
		list_push(front, job);
}

static void finish(struct txn *t, struct txn_job *job, int err)
{
	atomic_fetch_add(&t->stats.jobs, 1);
	if (err < 0)
		atomic_fetch_add(&t->stats.jobs_failed, 1);
	job->done(job, err);
}

static void finish_all(struct txn *t, struct job_list *l, int err)
{
	struct txn_job *job;

	while ((job = list_pop(l)))
		finish(t, job, err);
}

/* What one transaction made of its jobs. */
struct batch {
	struct job_list ran;	/* ended with 0 */
	struct job_list again;	/* want to go on in the next one */
	struct job_list left;	/* did not run, or not to their end */
};

/* A job failed.  Its changes go, and with them those of the others, which are to run again. */
static void batch_fail_job(struct txn *t, struct batch *b, struct txn_job *job, int err, bool alone)
{
	struct job_list rest;

	forget(t);
	list_init(&rest);
	/* Perhaps there was only too little room behind the others: it comes first next time. */
	if (err == -ENOSPC && !alone)
		list_push(&rest, job);
	else
		finish(t, job, err);
	list_join(&rest, &b->ran);
	list_join(&rest, &b->again);
	list_join(&rest, &b->left);
	list_join(&b->left, &rest);
}

/* Run the jobs of b->left as far as there is room; false: one failed and nothing is to be committed. */
static bool batch_run(struct txn *t, struct batch *b)
{
	bool alone = true;

	while (b->left.head) {
		struct txn_job *job;
		int ret;

		if (!alone && room(t) < TXN_JOB_BLOCKS + TXN_CLOSE_BLOCKS)
			break;
		job = list_pop(&b->left);
		t->job_room = room(t);
		ret = job->run(job, t);
		if (ret < 0 && ret != -EINPROGRESS) {
			batch_fail_job(t, b, job, ret, alone);
			return false;
		}
		list_push(ret == 0 ? &b->ran : &b->again, job);
		alone = alone && !is_changed(t);
	}
	return true;
}

/*
 * One transaction: run jobs while there is room, commit, finish what is done.  What did not fit or
 * wants to go on is left in *todo.
 */
static int run_batch(struct txn *t, struct job_list *todo)
{
	struct batch b;
	bool changed;
	int ret;

	ret = make_room(t);
	if (ret < 0)
		return ret;
	list_init(&b.ran);
	list_init(&b.again);
	list_init(&b.left);
	list_join(&b.left, todo);
	if (batch_run(t, &b)) {
		changed = is_changed(t);
		ret = commit(t);
		if (ret < 0 && !txn_failed(t, NULL))
			forget(t);
		finish_all(t, &b.ran, ret);
		/* Who wants to go on and has not moved never will. */
		if (ret < 0 || !changed)
			finish_all(t, &b.again, ret < 0 ? ret : -ENOSPC);
		else if (b.again.head)
			atomic_fetch_add(&t->stats.slices, 1);
	}
	list_join(todo, &b.again);
	list_join(todo, &b.left);
	return txn_failed(t, NULL);
}

int txn_step(struct txn *t, struct txn_job **jobs)
{
	struct job_list todo;
	int ret = txn_failed(t, NULL);

	list_init(&todo);
	while (*jobs) {
		struct txn_job *next = (*jobs)->next;

		list_push(&todo, *jobs);
		*jobs = next;
	}
	if (ret == 0 && todo.head)
		ret = run_batch(t, &todo);
	if (ret < 0)
		finish_all(t, &todo, ret);
	*jobs = todo.head;
	return txn_failed(t, NULL);
}

int txn_run(struct txn *t, struct txn_job *jobs)
{
	int ret;

	do {
		ret = txn_step(t, &jobs);
	} while (jobs);
	return ret;
}

static int open_super(struct txn *t, uint64_t fsid, const char **why)
{
	int ret;

	*why = "it could not be read";
	ret = t->dev.read_super(t->dev.arg, &t->stable);
	if (ret < 0)
		return ret;
	ret = super_check(&t->stable, why);
	if (ret < 0)
		return ret;
	if (le64_get(t->stable.hdr.fsid) != fsid) {
		*why = "it is of another volume than the one this instance was started for";
		return -EINVAL;
	}
	return 0;
}

int txn_open(struct txn **out, const struct txn_dev *dev, struct seq_source *seq, uint64_t fsid,
	     size_t clean_blocks_max, const char **why)
{
	struct txn *t = calloc(1, sizeof(*t));
	const struct disk_super *s = &t->stable;
	int ret;

	*why = "out of memory";
	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->dev = *dev;
	t->seq = seq;
	ret = open_super(t, fsid, why);
	if (ret < 0)
		goto fail;
	t->super = t->stable;
	*why = "out of memory";
	ret = block_set_open(&t->bs, &dev->blocks, fsid, le64_get(s->total_meta_blocks),
			     clean_blocks_max);
	if (ret < 0)
		goto fail;
	if (dev->buffers)
		block_set_use_buffers(t->bs, dev->buffers);
	/* Roles are not stored: the fuller list and the fuller tree are allocated from (10.3). */
	t->active = le64_get(s->server_meta_avail[0].total_nr) <
		    le64_get(s->server_meta_avail[1].total_nr);
	t->avail = le64_get(s->meta_alloc[0].total_len) < le64_get(s->meta_alloc[1].total_len);
	open_lists(t);
	seq_raise(seq, le64_get(s->seq));
	*why = "its metadata could not be read";
	ret = count_view(t, &t->next_view);
	if (ret < 0)
		goto fail;
	publish(t);
	*out = t;
	return 0;
fail:
	txn_close(t);
	return ret;
}

void txn_close(struct txn *t)
{
	if (!t)
		return;
	if (t->bs) {
		meta_alloc_close(&t->ma);
		block_set_abort(t->bs);
		block_set_close(t->bs);
	}
	pthread_mutex_destroy(&t->lock);
	free(t);
}
