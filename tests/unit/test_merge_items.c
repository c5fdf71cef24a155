/* What reading log_merge items promises: log/merge_items.h, format.md 14.1. */
#include "rig.h"

#include <errno.h>

#include "log/merge_items.h"

static struct disk_key disk(uint8_t zone, uint64_t first)
{
	const struct key k = { .zone = zone, .first = first };

	return key_to_disk(&k);
}

#define ITEM(key_, val_) (&(struct item){ .key = key_, .val = &(val_), .val_len = sizeof(val_) })
#define KEY(zone_, first_, second_) \
	((struct key){ .zone = zone_, .first = first_, .second = second_ })

/* A changed copy, a changed key and any other length are refused with words. */
#define REFUSED(get, type, out, key_, good, change) do { \
		type bad_ = good; \
		type *b = &bad_; \
		const char *why_ = NULL; \
		change; \
		assert_int_equal(get(ITEM(key_, bad_), &(out), &why_), -EBADMSG); \
		assert_non_null(why_); } while (0)
#define REFUSED_KEYS(get, out, key_, good) do { \
		const char *why_ = NULL; \
		struct item it_ = *ITEM(key_, good); \
		it_.val_len--; \
		assert_int_equal(get(&it_, &(out), &why_), -EBADMSG); \
		it_.val_len += 2; \
		assert_int_equal(get(&it_, &(out), &why_), -EBADMSG); \
		it_.val_len--; \
		assert_int_equal(get(&it_, &(out), &why_), 0); \
		it_.key.fourth++; \
		assert_int_equal(get(&it_, &(out), &why_), -EBADMSG); \
		it_.key.fourth--; \
		it_.key.first++; \
		assert_int_equal(get(&it_, &(out), &why_), -EBADMSG); \
		it_.key.first--; \
		it_.key.zone++; \
		assert_int_equal(get(&it_, &(out), &why_), -EBADMSG); } while (0)

static void status_is_read_and_checked(void **state)
{
	const struct disk_merge_status d = { .next_range_key = disk(16, 7),
					     .nr_requests = le64_of(1),
					     .nr_complete = le64_of(2),
					     .seq = le64_of(3) };
	const struct key key = KEY(ZONE_MERGE_STATUS, 0, 0);
	struct merge_status st;

	(void)state;
	REFUSED_KEYS(merge_status_get, st, key, d);
	assert_int_equal(st.next_range_key.zone, 16);
	assert_int_equal(st.next_range_key.first, 7);
	assert_int_equal(st.nr_requests, 1);
	assert_int_equal(st.nr_complete, 2);
	assert_int_equal(st.seq, 3);
	REFUSED(merge_status_get, struct disk_merge_status, st, key, d,
		b->next_range_key.pad[4] = 1);
}

static void range_is_read_and_checked(void **state)
{
	const struct disk_merge_range d = { .start = disk(8, 7), .end = disk(16, 9) };
	const struct key key = KEY(ZONE_MERGE_RANGE, 7, 0);
	struct merge_range range;

	(void)state;
	REFUSED_KEYS(merge_range_get, range, key, d);
	assert_int_equal(range.start.zone, 8);
	assert_int_equal(range.start.first, 7);
	assert_int_equal(range.end.zone, 16);
	REFUSED(merge_range_get, struct disk_merge_range, range, key, d, b->end = disk(8, 6));
	REFUSED(merge_range_get, struct disk_merge_range, range, key, d, b->start = disk(8, 8));
	REFUSED(merge_range_get, struct disk_merge_range, range, key, d, b->end.pad[0] = 1);
}

static void request_is_read_and_checked(void **state)
{
	const struct disk_merge_request d = {
		.meta_avail = { .ref = { le64_of(20), le64_of(1) },
				.total_nr = le64_of(5),
				.first_nr = le32_of(5) },
		.logs_root = { .ref = { le64_of(21), le64_of(1) }, .height = 1 },
		.root = { .ref = { le64_of(22), le64_of(1) }, .height = 2 },
		.start = disk(4, 1),
		.end = disk(16, 1),
		.input_seq = le64_of(30),
		.rid = le64_of(31),
		.seq = le64_of(32),
		.flags = le64_of(MERGE_REQUEST_SUBTREE),
	};
	const struct key key = KEY(ZONE_MERGE_REQUEST, 31, 32);
	struct disk_merge_request back;
	struct merge_request req;

	(void)state;
	REFUSED_KEYS(merge_request_get, req, key, d);
	merge_request_put(&req, &back);
	assert_memory_equal(&back, &d, sizeof(d));
	assert_memory_equal(&req.meta_avail, &d.meta_avail, sizeof(d.meta_avail));
	assert_memory_equal(&req.logs_root, &d.logs_root, sizeof(d.logs_root));
	assert_memory_equal(&req.root, &d.root, sizeof(d.root));
	assert_int_equal(req.start.zone, 4);
	assert_int_equal(req.end.zone, 16);
	assert_int_equal(req.input_seq, 30);
	assert_int_equal(req.rid, 31);
	assert_int_equal(req.seq, 32);
	assert_int_equal(req.flags, MERGE_REQUEST_SUBTREE);
#define BAD(change) REFUSED(merge_request_get, struct disk_merge_request, req, key, d, change)
	BAD(b->rid = le64_of(32));
	BAD(b->seq = le64_of(31));
	BAD(b->flags = le64_of(2));
	BAD(b->start = disk(16, 2));
	BAD(b->root.height = 0);
	BAD(b->logs_root.height = 21);
	BAD(b->meta_avail.first_nr = le32_of(6));
	BAD(b->meta_freed.total_nr = le64_of(1));
#undef BAD
}

static void complete_is_read_and_checked(void **state)
{
	const struct disk_merge_complete d = {
		.root = { .ref = { le64_of(22), le64_of(1) }, .height = 2 },
		.start = disk(4, 1), .end = disk(16, 1), .remain = disk(8, 1),
		.rid = le64_of(31), .seq = le64_of(32), .flags = le64_of(MERGE_COMPLETE_REMAIN),
	};
	const struct key key = KEY(ZONE_MERGE_COMPLETE, 32, 0);
	struct disk_merge_complete back;
	struct merge_complete comp;

	(void)state;
	REFUSED_KEYS(merge_complete_get, comp, key, d);
	merge_complete_put(&comp, &back);
	assert_memory_equal(&back, &d, sizeof(d));
	assert_memory_equal(&comp.root, &d.root, sizeof(d.root));
	assert_int_equal(comp.start.zone, 4);
	assert_int_equal(comp.end.zone, 16);
	assert_int_equal(comp.remain.zone, 8);
	assert_int_equal(comp.rid, 31);
	assert_int_equal(comp.seq, 32);
	assert_int_equal(comp.flags, MERGE_COMPLETE_REMAIN);
#define BAD(change) REFUSED(merge_complete_get, struct disk_merge_complete, comp, key, d, change)
	BAD(b->seq = le64_of(31));
	BAD(b->flags = le64_of(MERGE_COMPLETE_ERROR));
	BAD(b->flags = le64_of(0));		/* then remain is the end */
	BAD(b->remain = disk(16, 2));
	BAD(b->remain = disk(4, 0));
	BAD(b->remain.pad[1] = 1);
	BAD(b->end = disk(4, 0));
	BAD(b->root.ref.blkno = le64_of(1));
	BAD(b->meta_freed.flags = le32_of(8));
#undef BAD
}

static void freeing_is_read_and_checked(void **state)
{
	const struct disk_merge_freeing d = { .root = { .ref = { le64_of(22), le64_of(1) },
							.height = 2 },
					      .key = disk(16, 4),
					      .seq = le64_of(9) };
	const struct key key = KEY(ZONE_MERGE_FREEING, 9, 0);
	struct merge_freeing fr;

	(void)state;
	REFUSED_KEYS(merge_freeing_get, fr, key, d);
	assert_memory_equal(&fr.root, &d.root, sizeof(d.root));
	assert_int_equal(fr.key.first, 4);
	assert_int_equal(fr.seq, 9);
	REFUSED(merge_freeing_get, struct disk_merge_freeing, fr, key, d, b->root.height = 30);
	REFUSED(merge_freeing_get, struct disk_merge_freeing, fr, key, d, b->key.pad[0] = 1);
	REFUSED(merge_freeing_get, struct disk_merge_freeing, fr, key, d, b->seq = le64_of(8));
}

static void a_merge_is_active_iff_its_status_is_there(void **state)
{
	const struct disk_merge_status d = { .seq = le64_of(3) };
	struct disk_btree_root root = { 0 };
	struct merge_status st;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 100);
	assert_int_equal(merge_status_read(r.bs, &root, &st), -ENOENT);
	assert_int_equal(btree_insert(r.bs, &r.al, &root, ITEM(KEY(ZONE_MERGE_STATUS, 0, 0), d)),
			 0);
	assert_int_equal(merge_status_read(r.bs, &root, &st), 0);
	assert_int_equal(st.seq, 3);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(status_is_read_and_checked),
		cmocka_unit_test(range_is_read_and_checked),
		cmocka_unit_test(request_is_read_and_checked),
		cmocka_unit_test(complete_is_read_and_checked),
		cmocka_unit_test(freeing_is_read_and_checked),
		cmocka_unit_test(a_merge_is_active_iff_its_status_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
