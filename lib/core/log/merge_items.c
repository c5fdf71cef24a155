/*
 * Reading the items of the log_merge tree, format.md 14.1.
 *
 * Promises: what comes out has a key that belongs to its value, ranges that do not run backwards,
 * roots and allocator heads that can exist, and no flag this code has not heard of.  It says
 * nothing about the items taken together (20.33): that needs the whole tree.
 */
#include "log/merge_items.h"

#include <errno.h>
#include <string.h>

#include "log/root_check.h"

static int bad(const char **why, const char *words)
{
	*why = words;
	return -EBADMSG;
}

/* Key and length of an item whose key has at most `first` and `second` set. */
static int check_item(const struct item *it, uint8_t zone, uint64_t first, uint64_t second,
		      size_t val_len, const char **why)
{
	const struct key want = { .zone = zone, .first = first, .second = second };

	if (it->val_len != val_len)
		return bad(why, "the value has the wrong length");
	if (!key_eq(&it->key, &want))
		return bad(why, "the key does not belong to the value");
	return 0;
}

static int check_range(const struct disk_key *start, const struct disk_key *end, const char **why)
{
	const struct key s = key_from_disk(start);
	const struct key e = key_from_disk(end);

	if (!key_pad_is_zero(start) || !key_pad_is_zero(end))
		return bad(why, "padding of a key is not zero");
	if (key_cmp(&s, &e) > 0)
		return bad(why, "the range ends before it starts");
	return 0;
}

static int check_lists(const struct disk_alloc_list_head *avail,
		       const struct disk_alloc_list_head *freed, const char **why)
{
	if (alloc_list_head_check(avail) < 0 || alloc_list_head_check(freed) < 0)
		return bad(why, "an allocation list head contradicts itself");
	return 0;
}

int merge_status_get(const struct item *it, struct merge_status *st, const char **why)
{
	struct disk_merge_status d;
	int ret;

	ret = check_item(it, ZONE_MERGE_STATUS, 0, 0, sizeof(d), why);
	if (ret < 0)
		return ret;
	memcpy(&d, it->val, sizeof(d));
	if (!key_pad_is_zero(&d.next_range_key))
		return bad(why, "padding of a key is not zero");
	*st = (struct merge_status){
		.next_range_key = key_from_disk(&d.next_range_key),
		.nr_requests = le64_get(d.nr_requests),
		.nr_complete = le64_get(d.nr_complete),
		.seq = le64_get(d.seq),
	};
	return 0;
}

int merge_range_get(const struct item *it, struct merge_range *range, const char **why)
{
	struct disk_merge_range d;
	struct key want;
	int ret;

	if (it->val_len != sizeof(d))
		return bad(why, "the value has the wrong length");
	memcpy(&d, it->val, sizeof(d));
	ret = check_range(&d.start, &d.end, why);
	if (ret < 0)
		return ret;
	want = key_from_disk(&d.start);
	want.zone = ZONE_MERGE_RANGE;
	if (!key_eq(&it->key, &want))
		return bad(why, "the key does not belong to the value");
	range->start = key_from_disk(&d.start);
	range->end = key_from_disk(&d.end);
	return 0;
}

int merge_request_get(const struct item *it, struct merge_request *req, const char **why)
{
	struct disk_merge_request d;
	int ret;

	if (it->val_len != sizeof(d))
		return bad(why, "the value has the wrong length");
	memcpy(&d, it->val, sizeof(d));
	ret = check_item(it, ZONE_MERGE_REQUEST, le64_get(d.rid), le64_get(d.seq), sizeof(d), why);
	if (ret == 0)
		ret = check_range(&d.start, &d.end, why);
	if (ret == 0)
		ret = check_lists(&d.meta_avail, &d.meta_freed, why);
	if (ret < 0)
		return ret;
	if (!btree_root_is_sane(&d.logs_root) || !btree_root_is_sane(&d.root))
		return bad(why, "a tree root contradicts itself");
	if (le64_get(d.flags) & ~MERGE_REQUEST_SUBTREE)
		return bad(why, "unknown flags");
	*req = (struct merge_request){
		.meta_avail = d.meta_avail,
		.meta_freed = d.meta_freed,
		.logs_root = d.logs_root,
		.root = d.root,
		.start = key_from_disk(&d.start),
		.end = key_from_disk(&d.end),
		.input_seq = le64_get(d.input_seq),
		.rid = le64_get(d.rid),
		.seq = le64_get(d.seq),
		.flags = le64_get(d.flags),
	};
	return 0;
}

int merge_complete_get(const struct item *it, struct merge_complete *comp, const char **why)
{
	struct disk_merge_complete d;
	struct key start, end, remain;
	int ret;

	if (it->val_len != sizeof(d))
		return bad(why, "the value has the wrong length");
	memcpy(&d, it->val, sizeof(d));
	ret = check_item(it, ZONE_MERGE_COMPLETE, le64_get(d.seq), 0, sizeof(d), why);
	if (ret == 0)
		ret = check_range(&d.start, &d.end, why);
	if (ret == 0)
		ret = check_lists(&d.meta_avail, &d.meta_freed, why);
	if (ret < 0)
		return ret;
	if (!btree_root_is_sane(&d.root))
		return bad(why, "a tree root contradicts itself");
	/* ERROR is never stored. */
	if (le64_get(d.flags) & ~MERGE_COMPLETE_REMAIN)
		return bad(why, "unknown flags");
	start = key_from_disk(&d.start);
	end = key_from_disk(&d.end);
	remain = key_from_disk(&d.remain);
	if (!key_pad_is_zero(&d.remain) || key_cmp(&remain, &start) < 0 ||
	    key_cmp(&remain, &end) > 0)
		return bad(why, "the remainder is outside the range");
	if (!(le64_get(d.flags) & MERGE_COMPLETE_REMAIN) && !key_eq(&remain, &end))
		return bad(why, "nothing remains, but remain is not the end");
	*comp = (struct merge_complete){
		.meta_avail = d.meta_avail,
		.meta_freed = d.meta_freed,
		.root = d.root,
		.start = start,
		.end = end,
		.remain = remain,
		.rid = le64_get(d.rid),
		.seq = le64_get(d.seq),
		.flags = le64_get(d.flags),
	};
	return 0;
}

int merge_freeing_get(const struct item *it, struct merge_freeing *fr, const char **why)
{
	struct disk_merge_freeing d;
	int ret;

	if (it->val_len != sizeof(d))
		return bad(why, "the value has the wrong length");
	memcpy(&d, it->val, sizeof(d));
	ret = check_item(it, ZONE_MERGE_FREEING, le64_get(d.seq), 0, sizeof(d), why);
	if (ret < 0)
		return ret;
	if (!btree_root_is_sane(&d.root))
		return bad(why, "a tree root contradicts itself");
	if (!key_pad_is_zero(&d.key))
		return bad(why, "padding of a key is not zero");
	*fr = (struct merge_freeing){ d.root, key_from_disk(&d.key), le64_get(d.seq) };
	return 0;
}

void merge_request_put(const struct merge_request *req, struct disk_merge_request *d)
{
	*d = (struct disk_merge_request){
		.meta_avail = req->meta_avail,
		.meta_freed = req->meta_freed,
		.logs_root = req->logs_root,
		.root = req->root,
		.start = key_to_disk(&req->start),
		.end = key_to_disk(&req->end),
		.input_seq = le64_of(req->input_seq),
		.rid = le64_of(req->rid),
		.seq = le64_of(req->seq),
		.flags = le64_of(req->flags),
	};
}

void merge_complete_put(const struct merge_complete *comp, struct disk_merge_complete *d)
{
	*d = (struct disk_merge_complete){
		.meta_avail = comp->meta_avail,
		.meta_freed = comp->meta_freed,
		.root = comp->root,
		.start = key_to_disk(&comp->start),
		.end = key_to_disk(&comp->end),
		.remain = key_to_disk(&comp->remain),
		.rid = le64_of(comp->rid),
		.seq = le64_of(comp->seq),
		.flags = le64_of(comp->flags),
	};
}

int merge_status_read(struct block_set *bs, const struct disk_btree_root *log_merge,
		      struct merge_status *st)
{
	const struct key key = { .zone = ZONE_MERGE_STATUS };
	struct btree_ref ref;
	const char *why;
	int ret;

	ret = btree_lookup(bs, log_merge, &key, &ref);
	if (ret < 0)
		return ret;
	ret = merge_status_get(&ref.item, st, &why);
	btree_put(bs, &ref);
	return ret;
}
