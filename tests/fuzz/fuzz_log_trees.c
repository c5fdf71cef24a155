/*
 * Items that describe log trees and merges, and readers that follow them: log/forest.h,
 * log/merge_items.h, format.md 11.1, 14.1.  The input is a key and a value; it is offered to every
 * decoder, and as a log tree and a merge status to the forest's readers over a small volume.
 */
#include "log/forest.h"
#include "log/merge_items.h"
#include "tests/unit/memdev.h"

#define TOTAL 1000u
#define FSID 7u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

/* What stands on the volume beside the input; made the same way each time, so refs of seeds are
 * good. */
struct volume {
	struct memdev dev;
	struct memalloc alloc;
	struct block_set *bs;
	struct disk_log_trees lt;
	struct forest_roots roots;
};

static void must(int ret)
{
	assert(ret == 0);
}

static void volume_open(struct volume *v)
{
	struct disk_alloc_root free_blocks = { 0 };
	struct disk_alloc_list_head avail = { 0 }, freed = { 0 };
	struct meta_alloc ma;
	struct item it = { .val = "value", .val_len = 5, .seq = 5 };

	memset(v, 0, sizeof(*v));
	memdev_init(&v->dev, 1);
	memalloc_init(&v->alloc, TOTAL);
	v->alloc.cursor = 500;
	must(block_set_open(&v->bs, &v->dev.dev, FSID, TOTAL, 16));
	must(free_extents_insert(v->bs, &v->alloc.al, &free_blocks, (struct extent){ 2, 100 }));
	must(alloc_list_fill(v->bs, &v->alloc.al, &avail, &free_blocks, 100, 100));
	must(block_set_write(v->bs));
	meta_alloc_open(&ma, v->bs, &avail, &freed);
	for (uint64_t ino = 1; ino < 20; ino++) {
		it.key = key_inode(ino);
		must(btree_insert(v->bs, &v->alloc.al, &v->roots.fs_root, &it));
		must(log_tree_force(v->bs, &ma, &v->lt, &it));
	}
	meta_alloc_close(&ma);
	v->lt.rid = le64_of(9);
	v->lt.nr = le64_of(1);
	must(block_set_write(v->bs));
}

static void volume_close(struct volume *v)
{
	block_set_close(v->bs);
	memalloc_fini(&v->alloc);
	memdev_fini(&v->dev);
}

static int ignore(void *arg, const struct item *it)
{
	(void)arg;
	(void)it;
	return 0;
}

static void read_forest(struct volume *v)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES, key = key_inode(3);
	const struct key lock_start = key_lock_start(&key), lock_end = key_lock_end(&lock_start);
	struct forest_iter *fi;
	uint8_t val[ITEM_VAL_MAX];
	struct key start, end;
	struct item it;
	unsigned nr = 0;

	(void)forest_lookup(v->bs, &v->roots, &key, &it, val);
	(void)forest_read_range(v->bs, &v->roots, &lock_start, &lock_end, &key, &start, &end,
				ignore, NULL);
	if (forest_iter_open(&fi, v->bs, &v->roots, &zeros, &ones) == 0) {
		while (forest_iter_next(fi, &it) == 0)
			assert(++nr < 5000);
		forest_iter_close(fi);
	}
}

static void decode(const struct item *it)
{
	struct disk_log_trees lt;
	struct merge_status st;
	struct merge_range range;
	struct merge_request req;
	struct merge_complete comp;
	struct merge_freeing fr;
	const char *why;

	if (log_trees_check(it, &lt) == 0)
		assert(it->key.first == le64_get(lt.rid) && it->key.second == le64_get(lt.nr));
	(void)merge_status_get(it, &st, &why);
	if (merge_range_get(it, &range, &why) == 0)
		assert(key_cmp(&range.start, &range.end) <= 0);
	if (merge_request_get(it, &req, &why) == 0)
		assert(key_cmp(&req.start, &req.end) <= 0);
	if (merge_complete_get(it, &comp, &why) == 0)
		assert(key_cmp(&comp.start, &comp.remain) <= 0 &&
		       key_cmp(&comp.remain, &comp.end) <= 0);
	(void)merge_freeing_get(it, &fr, &why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t val[ITEM_VAL_MAX];
	struct disk_key dkey = { 0 };
	struct volume v;
	struct item it;

	memcpy(&dkey, data, size < sizeof(dkey) ? size : sizeof(dkey));
	data += size < sizeof(dkey) ? size : sizeof(dkey);
	size -= size < sizeof(dkey) ? size : sizeof(dkey);
	it = (struct item){ .key = key_from_disk(&dkey), .val = val,
			    .val_len = (uint16_t)(size < sizeof(val) ? size : sizeof(val)) };
	memcpy(val, data, it.val_len);
	decode(&it);

	volume_open(&v);
	must(btree_insert(v.bs, &v.alloc.al, &v.roots.logs_root, &it));
	read_forest(&v);
	v.roots.log_merge = v.roots.logs_root;
	v.roots.logs_root = (struct disk_btree_root){ 0 };
	read_forest(&v);
	volume_close(&v);
	return 0;
}

static size_t seed_of(uint8_t *buf, const struct key *key, const void *val, size_t len)
{
	const struct disk_key dkey = key_to_disk(key);

	memcpy(buf, &dkey, sizeof(dkey));
	memcpy(buf + sizeof(dkey), val, len);
	return sizeof(dkey) + len;
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	const struct disk_merge_status st = { .seq = le64_of(50) };
	const struct disk_merge_range range = { 0 };
	const struct disk_merge_request req = { .rid = le64_of(1), .seq = le64_of(2) };
	const struct disk_merge_complete comp = { .seq = le64_of(2) };
	const struct disk_merge_freeing fr = { .seq = le64_of(2) };
	struct key key = { 0 };
	struct volume v;
	size_t ret;

	if (max < sizeof(struct disk_key) + sizeof(struct disk_log_trees))
		return 0;
	switch (i) {
	case 0:
	case 1:
		volume_open(&v);
		key = key_log_trees(9, 1);
		if (i == 1) {
			v.lt.flags = le64_of(LOG_TREES_FLAG_FINALIZED);
			v.lt.finalize_seq = le64_of(9);
		}
		ret = seed_of(buf, &key, &v.lt, sizeof(v.lt));
		volume_close(&v);
		return ret;
	case 2:
		key.zone = ZONE_MERGE_STATUS;
		return seed_of(buf, &key, &st, sizeof(st));
	case 3:
		key.zone = ZONE_MERGE_RANGE;
		return seed_of(buf, &key, &range, sizeof(range));
	case 4:
		key = (struct key){ .zone = ZONE_MERGE_REQUEST, .first = 1, .second = 2 };
		return seed_of(buf, &key, &req, sizeof(req));
	case 5:
		key = (struct key){ .zone = ZONE_MERGE_COMPLETE, .first = 2 };
		return seed_of(buf, &key, &comp, sizeof(comp));
	case 6:
		key = (struct key){ .zone = ZONE_MERGE_FREEING, .first = 2 };
		return seed_of(buf, &key, &fr, sizeof(fr));
	default:
		return 0;
	}
}
