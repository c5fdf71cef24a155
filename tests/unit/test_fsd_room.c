/*
 * Room for metadata: what one generation has added to the log tree counts as long as it may be touched,
 * and never keeps a mount out in which nothing is dirty.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memdev.h"
#include "services/fsd/room.h"

#define TOTAL	4096u
#define AVAIL	400u

static const struct items_dirty clean;

struct world {
	struct memdev md;
	struct memalloc ma;
	struct block_set *bs;
	struct disk_log_trees lt;
	struct room *room;
};

static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	memdev_init(&w->md, 1);
	memalloc_init(&w->ma, TOTAL);
	assert_int_equal(block_set_open(&w->bs, &w->md.dev, 7, TOTAL, 64), 0);
	assert_int_equal(room_open(&w->room), 0);
	w->lt.meta_avail.first_nr = le32_of(AVAIL);
	w->lt.meta_avail.total_nr = le64_of(AVAIL);
	assert_int_equal(room_opened(w->room, w->bs, &w->lt), 0);
}

static void world_fini(struct world *w)
{
	room_close(w->room);
	block_set_close(w->bs);
	memalloc_fini(&w->ma);
	memdev_fini(&w->md);
}

static struct key key_of(uint64_t i)
{
	return key_inode(i);
}

/* The items with i in [from, to), touched, streamed out and stored, as a generation of its own. */
static void add_generation(struct world *w, uint64_t from, uint64_t to, bool touched_meanwhile)
{
	static const char val[800];
	struct items_dirty dirty = { .any = true };
	struct key key;

	for (uint64_t i = from; i < to; i++) {
		key = key_of(i);
		room_touch(w->room, &key);
		dirty.bytes += sizeof(val) + 64;
		dirty.nr++;
	}
	room_closed(w->room, &dirty);
	for (uint64_t i = from; i < to; i++) {
		struct item it = { .key = key_of(i), .val = val, .val_len = sizeof(val) };

		assert_int_equal(btree_force(w->bs, &w->ma.al, &w->lt.item_root, &it), 0);
	}
	assert_int_equal(block_set_write(w->bs), 0);
	if (touched_meanwhile) {
		key = key_of(from);
		room_touch(w->room, &key);
	}
	assert_int_equal(room_opened(w->room, w->bs, &w->lt), 0);
}

static uint64_t need_of(struct world *w, unsigned items_nr)
{
	struct room_need rn;

	room_need(w->room, &clean, items_nr, 0, &rn);
	return rn.need;
}

static uint64_t have_of(struct world *w)
{
	struct room_need rn;

	room_need(w->room, &clean, 0, 0, &rn);
	return rn.have;
}

static void what_a_big_generation_added_keeps_nobody_out(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	assert_true(need_of(&w, 8) < have_of(&w));
	add_generation(&w, 0, 12000, false);		/* into about 200 leaves */
	room_clean(w.room);
	assert_true(need_of(&w, 8) < have_of(&w));
	world_fini(&w);
}

static void what_aborted_transactions_touched_is_forgotten(void **state)
{
	struct world w;
	struct key key;
	uint64_t fresh;

	(void)state;
	world_init(&w);
	add_generation(&w, 0, 12000, true);
	room_clean(w.room);
	fresh = need_of(&w, 8);
	for (uint64_t i = 0; i < 12000; i += 10) {
		key = key_of(i);
		room_touch(w.room, &key);
	}
	assert_true(need_of(&w, 8) > have_of(&w));	/* every leaf: it would not fit */
	room_clean(w.room);
	assert_int_equal(need_of(&w, 8), fresh);
	/* And they count again from then on. */
	key = key_of(5000);
	room_touch(w.room, &key);
	assert_true(need_of(&w, 8) > fresh);
	world_fini(&w);
}

/* Who touched something while the commit ran may have touched any of the leaves that it made. */
static void what_is_being_added_counts_until_the_next_generation(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	add_generation(&w, 0, 12000, true);
	assert_true(need_of(&w, 200) > 3 * 150);
	room_closed(w.room, &(struct items_dirty){ .bytes = 100, .nr = 1, .any = true });
	assert_int_equal(room_opened(w.room, w.bs, &w.lt), 0);
	assert_true(need_of(&w, 8) < have_of(&w));
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_big_generation_added_keeps_nobody_out),
		cmocka_unit_test(what_aborted_transactions_touched_is_forgotten),
		cmocka_unit_test(what_is_being_added_counts_until_the_next_generation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
