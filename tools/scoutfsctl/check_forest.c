/*
 * logs_root and what each of its items owns: item tree, bloom block, lists, data extent trees,
 * srch file; then fs_root.  Invariants 16-18.  Keeps every log_trees item in ck->logs for the
 * phases that need the sums (28) or the set of rids.
 */
#include "check_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void logs_item(struct check *ck, struct check_tree *t, const struct item *it, uint64_t blkno)
{
	struct check_log log = { .rid = it->key.first, .nr = it->key.second };
	const struct disk_log_trees *lt = &log.lt;
	uint64_t get_seq, commit_seq;

	memcpy(&log.lt, it->val, sizeof(log.lt));
	get_seq = le64_get(lt->get_trans_seq);
	commit_seq = le64_get(lt->commit_trans_seq);
	if (le64_get(lt->rid) != log.rid || le64_get(lt->nr) != log.nr)
		check_find(ck, 16, AT_BLOCK_KEY(blkno, &it->key),
			   "%s: the value is of rid %016" PRIx64 " nr %" PRIu64, t->name,
			   le64_get(lt->rid), le64_get(lt->nr));
	if (!log.rid || log.rid == UINT64_MAX || !log.nr)
		check_find(ck, 16, AT_BLOCK_KEY(blkno, &it->key),
			   "%s: rid %016" PRIx64 " nr %" PRIu64 " cannot be", t->name, log.rid,
			   log.nr);
	if (commit_seq > get_seq)
		check_find(ck, 16, AT_BLOCK_KEY(blkno, &it->key),
			   "%s: commit_trans_seq %" PRIu64 " is beyond get_trans_seq %" PRIu64,
			   t->name, commit_seq, get_seq);
	if (le64_get(lt->flags) & ~LOG_TREES_FLAG_FINALIZED)
		check_find(ck, 16, AT_BLOCK_KEY(blkno, &it->key), "%s: unknown flags %#" PRIx64,
			   t->name, le64_get(lt->flags));
	if (le64_get(lt->max_item_seq) > ck->seq_max)
		ck->seq_max = le64_get(lt->max_item_seq);
	vec_push(ck, &ck->logs, &log, sizeof(log));
}

static bool list_is_empty(const struct disk_alloc_list_head *h)
{
	return !le64_get(h->ref.blkno) && !le64_get(h->total_nr);
}

static bool extents_are_empty(const struct disk_alloc_root *r)
{
	return !le64_get(r->root.ref.blkno) && !le64_get(r->total_len);
}

/* Rules among the items: i is the place of log in ck->logs, which is in key order. */
static void check_log_state(struct check *ck, size_t i)
{
	const struct check_log *log = VEC_AT(&ck->logs, struct check_log, i);
	const struct disk_log_trees *lt = &log->lt;
	struct key key = key_log_trees(log->rid, log->nr);
	bool is_last = i + 1 == ck->logs.nr ||
		       VEC_AT(&ck->logs, struct check_log, i + 1)->rid != log->rid;

	if (!(le64_get(lt->flags) & LOG_TREES_FLAG_FINALIZED)) {
		if (!is_last)
			check_find(ck, 16, AT_KEY(&key),
				   "a log tree is not finalized although its mount has a later "
				   "one");
		if (le64_get(lt->finalize_seq))
			check_find(ck, 16, AT_KEY(&key),
				   "a log tree that is not finalized has finalize_seq %" PRIu64,
				   le64_get(lt->finalize_seq));
		if (le64_get(lt->get_trans_seq) > le64_get(lt->commit_trans_seq)) {
			ck->is_in_use = true;
			check_note(ck,
				   "not cleanly unmounted: transaction %" PRIu64
				   " of rid %016" PRIx64 " is open; "
				   "what it had not committed is lost",
				   le64_get(lt->get_trans_seq), log->rid);
		}
		return;
	}
	if (!le64_get(lt->finalize_seq))
		check_find(ck, 16, AT_KEY(&key), "a finalized log tree has no finalize_seq");
	if (!list_is_empty(&lt->meta_avail) || !list_is_empty(&lt->meta_freed) ||
	    !extents_are_empty(&lt->data_avail) || !extents_are_empty(&lt->data_freed))
		check_find(ck, 16, AT_KEY(&key), "a finalized log tree still has allocators");
	if (le64_get(lt->srch_file.ref.blkno) || le64_get(lt->srch_file.blocks))
		check_find(ck, 16, AT_KEY(&key), "a finalized log tree still has a srch file");
}

struct log_walk {
	struct disk_bloom_block *bloom; /* NULL: none, or unreadable */
	struct key lock_start;		/* tested last */
	bool lock_is_set;
};

static void check_seq(struct check *ck, unsigned invariant, const struct check_tree *t,
		      const struct item *it, uint64_t blkno)
{
	if (it->seq > ck->seq_max)
		check_find(ck, invariant, AT_BLOCK_KEY(blkno, &it->key),
			   "%s: the item's seq %" PRIu64 " is beyond the "
			   "volume's %" PRIu64,
			   t->name, it->seq, ck->seq_max);
}

static void log_item(struct check *ck, struct check_tree *t, const struct item *it, uint64_t blkno)
{
	struct log_walk *w = t->arg;
	struct key lock_start = key_lock_start(&it->key);

	check_seq(ck, 17, t, it, blkno);
	if (it->key.zone == ZONE_XATTR_TOTL && it->flags & ITEM_FLAG_DELETION)
		check_find(ck, 11, AT_BLOCK_KEY(blkno, &it->key),
			   "%s: a total cannot be a deletion marker", t->name);
	if (!w->bloom)
		return;
	if (!w->lock_is_set || !key_eq(&lock_start, &w->lock_start)) {
		w->lock_start = lock_start;
		w->lock_is_set = true;
		if (!bloom_block_test(w->bloom, &lock_start))
			check_find(ck, 17, AT_BLOCK_KEY(blkno, &it->key),
				   "%s: the bloom block lacks the bits of "
				   "this item: readers do not see it",
				   t->name);
	}
}

static void check_bloom(struct check *ck, const struct disk_log_trees *lt, const char *name,
			struct log_walk *w, struct disk_bloom_block *buf)
{
	struct block_ref ref = block_ref_get(&lt->bloom_ref);

	if (!ref.blkno) {
		if (lt->item_root.height)
			check_find(ck, 17, NOWHERE,
				   "%s has items but no bloom block: readers do not see them",
				   name);
		return;
	}
	if (!check_claim(ck, ref.blkno, OWNER_BLOOM, name) ||
	    !check_read(ck, ref, MAGIC_BLOOM, name, buf)) {
		ck->forest_broken = true;
		return;
	}
	if (bloom_block_check(buf))
		check_find(ck, 17, AT_BLOCK(ref.blkno),
			   "%s: total_set of the bloom block is %" PRIu64
			   ", which is not the number of its bits",
			   name, le64_get(buf->total_set));
	w->bloom = buf;
}

static void check_log(struct check *ck, const struct check_log *log, struct disk_bloom_block *bloom)
{
	const struct disk_log_trees *lt = &log->lt;
	struct log_walk w = { 0 };
	struct check_tree t = {
		.owner = OWNER_LOG_ITEMS, .kind = TREE_LOG_ITEMS, .item = log_item, .arg = &w
	};
	char name[48], part[80];

	snprintf(name, sizeof(name), "log tree %016" PRIx64 "/%" PRIu64, log->rid, log->nr);
	check_bloom(ck, lt, name, &w, bloom);
	snprintf(t.name, sizeof(t.name), "%s", name);
	check_walk_tree(ck, &t, &lt->item_root);
	ck->forest_broken |= t.is_broken;
	snprintf(part, sizeof(part), "meta_avail of %s", name);
	check_alloc_list(ck, &lt->meta_avail, OWNER_LOG_LIST, OWNER_ENTRY_LOG, part);
	snprintf(part, sizeof(part), "meta_freed of %s", name);
	check_alloc_list(ck, &lt->meta_freed, OWNER_LOG_LIST, OWNER_ENTRY_LOG, part);
	snprintf(part, sizeof(part), "data_avail of %s", name);
	check_free_extents(ck, &lt->data_avail, OWNER_LOG_DATA, part, "a log tree's data_avail");
	snprintf(part, sizeof(part), "data_freed of %s", name);
	check_free_extents(ck, &lt->data_freed, OWNER_LOG_DATA, part, "a log tree's data_freed");
	snprintf(part, sizeof(part), "the srch file of %s", name);
	check_srch_file(ck, &lt->srch_file, OWNER_SRCH_FILE, part, true);
}

static void fs_item(struct check *ck, struct check_tree *t, const struct item *it, uint64_t blkno)
{
	check_seq(ck, 17, t, it, blkno);
}

static void client_item(struct check *ck, struct check_tree *t, const struct item *it,
			uint64_t blkno)
{
	const struct disk_mounted_client *c = it->val;

	(void)t;
	(void)blkno;
	ck->is_in_use = true;
	check_note(ck, "not cleanly unmounted: rid %016" PRIx64 " is listed as mounted%s",
		   it->key.first, c->flags & MOUNTED_CLIENT_QUORUM ? ", a quorum member" : "");
}

void check_logs(struct check *ck)
{
	struct check_tree clients = { .owner = OWNER_CLIENTS,
				      .kind = TREE_MOUNTED_CLIENTS,
				      .name = "mounted_clients",
				      .item = client_item };
	struct check_tree logs = {
		.owner = OWNER_LOGS_ROOT, .kind = TREE_LOGS, .name = "logs_root", .item = logs_item
	};
	struct check_tree fs = {
		.owner = OWNER_FS_ROOT, .kind = TREE_FS, .name = "fs_root", .item = fs_item
	};
	struct disk_bloom_block *bloom = malloc(sizeof(*bloom));

	if (!bloom) {
		ck->err = -ENOMEM;
		return;
	}
	check_walk_tree(ck, &clients, &ck->super.mounted_clients);
	check_walk_tree(ck, &logs, &ck->super.logs_root);
	if (logs.is_broken)
		ck->forest_broken = ck->data_unknown = ck->srch_unknown = true;
	if (!ck->super.fs_root.height)
		check_find(ck, 18, NOWHERE, "fs_root is empty: the volume cannot be read");
	check_walk_tree(ck, &fs, &ck->super.fs_root);
	ck->forest_broken |= fs.is_broken;
	for (size_t i = 0; i < ck->logs.nr && !ck->err; i++) {
		check_log_state(ck, i);
		check_log(ck, VEC_AT(&ck->logs, struct check_log, i), bloom);
	}
	free(bloom);
}
