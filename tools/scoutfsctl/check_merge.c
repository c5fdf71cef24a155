/*
 * The log_merge tree: invariant 33, and the blocks its items own.  A merge that was interrupted
 * leaves them, so all of them may be met on a volume that is otherwise idle.
 *
 * A completion that was not spliced yet owns the blocks of its subtree that fs_root does not have;
 * the blocks that they replaced stand in its freed list and are in fs_root still (16.4).  One
 * whose lists are zeroed was spliced: its subtree is part of fs_root and may have changed since.
 */
#include "check_volume.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log/merge_items.h"

/* Upstream hands out no more work than this at a time, and sets nr_complete to it while
 * splicing (14.2). */
#define MERGE_BATCH 8u

static void merge_item(struct check *ck, struct check_tree *t, const struct item *it,
		       uint64_t blkno)
{
	struct check_merge m = { .key = it->key, .len = it->val_len };

	(void)t;
	(void)blkno;
	assert(it->val_len <= sizeof(m.val));
	memcpy(m.val, it->val, it->val_len);
	vec_push(ck, &ck->merges, &m, sizeof(m));
}

static struct item as_item(const struct check_merge *m)
{
	return (struct item){ .key = m->key, .val = m->val, .val_len = m->len };
}

static bool was_spliced(const struct merge_complete *c)
{
	return !le64_get(c->meta_avail.ref.blkno) && !le64_get(c->meta_freed.ref.blkno);
}

/* A part of the keys that somebody is to merge, or has merged. */
struct part {
	struct key start, end;
	const struct key *key;	/* of its item */
	uint64_t seq, input_seq;	/* 0: it has none */
};

struct counts {
	const struct check_merge *status;
	struct vec parts;
	struct merge_status st;
	uint64_t requests, completes, ranges;
	bool is_splicing;
};

static void add_part(struct check *ck, struct counts *n, const struct part *p)
{
	if (key_cmp(&p->start, &p->end) > 0)
		check_find(ck, 33, AT_KEY(p->key), "log_merge: its keys end before they start");
	else
		vec_push(ck, &n->parts, p, sizeof(*p));
}

static int cmp_part(const void *a, const void *b)
{
	return key_cmp(&((const struct part *)a)->start, &((const struct part *)b)->start);
}

/* Two that share keys would be merged twice, and may share a parent (14.2). */
static void check_parts(struct check *ck, struct counts *n)
{
	const struct part *widest = NULL;

	if (n->parts.nr)
		qsort(n->parts.p, n->parts.nr, sizeof(struct part), cmp_part);
	for (size_t i = 0; i < n->parts.nr; i++) {
		const struct part *p = VEC_AT(&n->parts, struct part, i);

		if (widest && key_cmp(&p->start, &widest->end) <= 0)
			check_find(ck, 33, AT_KEY(p->key),
				   "log_merge: its keys are also those of the item before it");
		if (!widest || key_cmp(&p->end, &widest->end) > 0)
			widest = p;
		if (p->seq > ck->seq_max)
			check_find(ck, 33, AT_KEY(p->key),
				   "log_merge: the seq %" PRIu64 " is beyond the volume's %" PRIu64,
				   p->seq, ck->seq_max);
		if (n->status && p->input_seq && p->input_seq != n->st.seq)
			check_find(ck, 33, AT_KEY(p->key),
				   "a merge request is of merge %" PRIu64 ", the one that runs is %" PRIu64,
				   p->input_seq, n->st.seq);
	}
}

static void bad_value(struct check *ck, const struct key *key, const char *why)
{
	check_find(ck, 33, AT_KEY(key), "log_merge: %s", why);
	ck->blocks_unknown = true;
}

static void walk_request(struct check *ck, const struct merge_request *r, const struct key *key)
{
	uint64_t root = le64_get(r->root.ref.blkno);

	check_alloc_list(ck, &r->meta_avail, OWNER_MERGE_LIST, OWNER_ENTRY_MERGE,
			 "meta_avail of a merge request");
	check_alloc_list(ck, &r->meta_freed, OWNER_MERGE_LIST, OWNER_ENTRY_MERGE,
			 "meta_freed of a merge request");
	if (root < ck->meta_blocks && ck->owner[root] != OWNER_FS_ROOT && ck->owner[root] != OWNER_FS_KEPT &&
	    !ck->blocks_unknown)
		check_find(ck, 33, AT_BLOCK_KEY(root, key),
			   "the subtree of a merge request is not in fs_root");
}

static void walk_complete(struct check *ck, const struct merge_complete *c, const struct key *key)
{
	struct check_tree t = { .owner = OWNER_COMPLETE,
				.kind = TREE_FS,
				.name = "a merged subtree",
				.may_share_fs = true };

	if (c->flags & ~MERGE_COMPLETE_REMAIN)
		check_find(ck, 33, AT_KEY(key), "a merge completion has flags %#" PRIx64, c->flags);
	if (was_spliced(c))
		return;
	check_alloc_list(ck, &c->meta_avail, OWNER_MERGE_LIST, OWNER_ENTRY_MERGE,
			 "meta_avail of a merge completion");
	check_walk_tree(ck, &t, &c->root);
}

static void walk_freeing(struct check *ck, const struct merge_freeing *f)
{
	struct check_tree t = { .owner = OWNER_FREEING,
				.kind = TREE_LOG_ITEMS,
				.name = "a tree that is being freed",
				.freed_below = &f->key };

	check_walk_tree(ck, &t, &f->root);
}

static void look_at(struct check *ck, const struct check_merge *m, struct counts *n)
{
	struct item it = as_item(m);
	const char *why;

	switch (m->key.zone) {
	case ZONE_MERGE_STATUS:
		if (merge_status_get(&it, &n->st, &why))
			bad_value(ck, &m->key, why);
		else
			n->status = m;
		break;
	case ZONE_MERGE_RANGE: {
		struct merge_range r;

		if (merge_range_get(&it, &r, &why))
			bad_value(ck, &m->key, why);
		else
			add_part(ck, n, &(struct part){ r.start, r.end, &m->key, 0, 0 });
		n->ranges++;
		break;
	}
	case ZONE_MERGE_REQUEST: {
		struct merge_request r;

		n->requests++;
		if (merge_request_get(&it, &r, &why)) {
			bad_value(ck, &m->key, why);
			break;
		}
		add_part(ck, n, &(struct part){ r.start, r.end, &m->key, r.seq, r.input_seq });
		walk_request(ck, &r, &m->key);
		break;
	}
	case ZONE_MERGE_COMPLETE: {
		struct merge_complete c;

		n->completes++;
		if (merge_complete_get(&it, &c, &why)) {
			bad_value(ck, &m->key, why);
		} else {
			n->is_splicing |= was_spliced(&c);
			add_part(ck, n, &(struct part){ c.start, c.end, &m->key, c.seq, 0 });
			walk_complete(ck, &c, &m->key);
		}
		break;
	}
	case ZONE_MERGE_FREEING: {
		struct merge_freeing f;

		if (merge_freeing_get(&it, &f, &why))
			bad_value(ck, &m->key, why);
		else
			walk_freeing(ck, &f);
		break;
	}
	}
}

void check_merge_items(struct check *ck)
{
	struct check_tree t = { .owner = OWNER_LOG_MERGE,
				.kind = TREE_LOG_MERGE,
				.name = "log_merge",
				.item = merge_item };
	struct counts n = { 0 };

	check_walk_tree(ck, &t, &ck->super.log_merge);
	for (size_t i = 0; i < ck->merges.nr && !ck->err; i++)
		look_at(ck, VEC_AT(&ck->merges, struct check_merge, i), &n);
	if (t.is_broken)
		goto out;
	check_parts(ck, &n);
	if (!n.status) {
		if (n.requests || n.completes || n.ranges)
			check_find(ck, 33, NOWHERE,
				   "log_merge has %" PRIu64 " requests, %" PRIu64
				   " completions and %" PRIu64 " ranges but no status item",
				   n.requests, n.completes, n.ranges);
		goto out;
	}
	if (n.st.seq > ck->seq_max)
		check_find(ck, 33, AT_KEY(&n.status->key),
			   "the merge's seq %" PRIu64 " is beyond the volume's %" PRIu64, n.st.seq,
			   ck->seq_max);
	if (n.st.nr_requests != n.requests)
		check_find(ck, 33, AT_KEY(&n.status->key),
			   "nr_requests is %" PRIu64 ", there are %" PRIu64 " requests",
			   n.st.nr_requests, n.requests);
	if (n.st.nr_complete != n.completes && !n.is_splicing && n.st.nr_complete < MERGE_BATCH)
		check_find(ck, 33, AT_KEY(&n.status->key),
			   "nr_complete is %" PRIu64 ", there are %" PRIu64 " completions",
			   n.st.nr_complete, n.completes);
out:
	vec_free(&n.parts);
}

void check_merge_shared(struct check *ck)
{
	for (size_t i = 0; i < ck->merges.nr && !ck->err; i++) {
		const struct check_merge *m = VEC_AT(&ck->merges, struct check_merge, i);
		struct item it = as_item(m);
		struct merge_complete c;
		const char *why;

		if (m->key.zone == ZONE_MERGE_COMPLETE && !merge_complete_get(&it, &c, &why))
			check_freed_list(ck, &c.meta_freed, OWNER_MERGE_LIST, OWNER_ENTRY_MERGE,
					 "meta_freed of a merge completion");
	}
}
