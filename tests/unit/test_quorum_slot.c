/*
 * The quorum blocks: what is recorded in them and when, what is refused, and whom they say must be fenced.
 * format.md 6; runtime.md 2.2.
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

#include "quorum_disk.h"

static void a_record_changes_one_event_and_is_durable(void **state)
{
	static struct disk d;
	struct quorum_dev dev = disk_dev(&d);
	struct disk_quorum_block before;
	struct timespec ts = { 1700000000, 123456789 };
	uint64_t nr = 0;

	(void)state;
	disk_format(&d);
	before = d.written[3];
	assert_int_equal(quorum_slot_record(&dev, FSID, 3, 77, QUORUM_EVENT_BEGIN, 9, ts, &nr), 0);
	assert_int_equal(d.flushes, 1);
	assert_int_equal(le64_get(d.durable[3].write_nr), 1);
	assert_int_equal(le64_get(d.durable[3].events[QUORUM_EVENT_BEGIN].rid), 77);
	assert_int_equal(le64_get(d.durable[3].events[QUORUM_EVENT_BEGIN].term), 9);
	assert_int_equal(le64_get(d.durable[3].events[QUORUM_EVENT_BEGIN].write_nr), 1);
	assert_int_equal(le64_get(d.durable[3].events[QUORUM_EVENT_BEGIN].ts.sec), 1700000000);
	assert_int_equal(le32_get(d.durable[3].events[QUORUM_EVENT_BEGIN].ts.nsec), 123456789);
	assert_int_equal(quorum_slot_record(&dev, FSID, 3, 77, QUORUM_EVENT_ELECT, 10, ts, &nr), 0);
	assert_int_equal(le64_get(d.durable[3].write_nr), 2);
	assert_int_equal(le64_get(d.durable[3].events[QUORUM_EVENT_BEGIN].write_nr), 1);
	assert_int_equal(le64_get(d.durable[3].hdr.seq), 1);
	/* Nothing else has changed: not the other events, not the rest of the block, not other
	 * slots. */
	assert_memory_equal(&d.durable[3].events[QUORUM_EVENT_FENCE],
			    &before.events[QUORUM_EVENT_FENCE], sizeof(before.events[0]) * 3);
	assert_memory_equal(d.durable[3].unused, before.unused, sizeof(before.unused));
	before = d.written[2];
	assert_int_equal(le64_get(before.write_nr), 0);
	assert_int_equal(nr, 2);
}

/* Found by the simulator: an ELECT that is written over by an older block hides a server. */
static void a_device_that_gives_old_blocks_is_not_written_to(void **state)
{
	static struct disk d;
	struct quorum_dev dev = disk_dev(&d);
	struct disk_quorum_block before, after;
	struct timespec ts = { 1, 0 };
	struct quorum_slots s;
	uint64_t nr;

	(void)state;
	disk_format(&d);
	quorum_slots_read(&dev, FSID, 1, &s);
	nr = s.write_nr[0];
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 1, QUORUM_EVENT_BEGIN, 1, ts, &nr), 0);
	before = d.written[0];
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 1, QUORUM_EVENT_ELECT, 2, ts, &nr), 0);
	after = d.written[0];
	d.written[0] = before;
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 1, QUORUM_EVENT_TERM, 3, ts, &nr), -ESTALE);
	assert_memory_equal(&d.written[0], &before, sizeof(before));
	d.written[0] = after;
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 1, QUORUM_EVENT_TERM, 3, ts, &nr), 0);
	quorum_slots_read(&dev, FSID, 1, &s);
	assert_int_equal(s.write_nr[0], 3);
	assert_int_equal(s.events[0][QUORUM_EVENT_ELECT].term, 2);
}

static void a_slot_used_twice_and_a_damaged_block_are_refused(void **state)
{
	static struct disk d;
	struct quorum_dev dev = disk_dev(&d);
	struct timespec ts = { 1, 0 };
	uint64_t nr = 0, nr_1 = 0;
	struct quorum_slots s;

	(void)state;
	disk_format(&d);
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 1, QUORUM_EVENT_TERM, 1, ts, &nr), -EEXIST);
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 1, QUORUM_EVENT_BEGIN, 1, ts, &nr), 0);
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 2, QUORUM_EVENT_BEGIN, 1, ts, &nr), 0);
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 1, QUORUM_EVENT_TERM, 2, ts, &nr), -EEXIST);
	assert_int_equal(le64_get(d.written[0].write_nr), 2);
	d.written[0].events[0].term = le64_of(99);
	assert_int_equal(quorum_slot_record(&dev, FSID, 0, 2, QUORUM_EVENT_TERM, 2, ts, &nr), -EBADMSG);
	assert_int_equal(quorum_slot_record(&dev, FSID + 1, 1, 2, QUORUM_EVENT_BEGIN, 2, ts, &nr_1),
			 -EBADMSG);
	quorum_slots_read(&dev, FSID, 7, &s);
	assert_int_equal(s.readable, 6);
	assert_int_equal(s.error, -EBADMSG);
	d.read_error = -EIO;
	quorum_slots_read(&dev, FSID, 7, &s);
	assert_int_equal(s.readable, 0);
	assert_int_equal(s.error, -EIO);
	assert_int_equal(quorum_slot_record(&dev, FSID, 1, 2, QUORUM_EVENT_BEGIN, 2, ts, &nr_1), -EIO);
	d.read_error = 0;
	d.write_error = -ENOLINK;
	assert_int_equal(quorum_slot_record(&dev, FSID, 1, 2, QUORUM_EVENT_BEGIN, 2, ts, &nr_1), -ENOLINK);
	d.write_error = 0;
	d.flush_error = -EIO;
	assert_int_equal(quorum_slot_record(&dev, FSID, 1, 2, QUORUM_EVENT_BEGIN, 2, ts, &nr_1), -EIO);
}

/* Also where the clock has gone back: peers never listen again to a process that is older than one they have heard. */
static void each_process_of_a_slot_is_newer_than_the_one_before(void **state)
{
	static struct disk d;
	struct quorum_dev dev = disk_dev(&d);
	struct timespec ts = { .tv_sec = 1000 };
	struct quorum_slots s;
	uint64_t nr, last = 1ull << 62;	/* the time of day, of an earlier version */

	(void)state;
	disk_format(&d);
	for (unsigned process = 0; process < 3; process++, ts.tv_sec -= 100) {
		quorum_slots_read(&dev, FSID, 7, &s);
		assert_true(quorum_slots_incarnation(&s, 1) > last);
		last = quorum_slots_incarnation(&s, 1);
		nr = s.write_nr[1];
		assert_int_equal(quorum_slot_record(&dev, FSID, 1, 2, QUORUM_EVENT_BEGIN, 0, ts, &nr), 0);
	}
}

static void the_fence_list_is_as_specified(void **state)
{
	struct quorum_fence list[QUORUM_FENCES_MAX];
	struct quorum_slots s = { .present = 7, .readable = 7 };

	(void)state;
	assert_int_equal(quorum_slots_to_fence(&s, 1, 10, list), 0);
	assert_int_equal(quorum_slots_max_term(&s), 0);
	/* A leader that has not stopped, then that has. */
	s.events[1][QUORUM_EVENT_ELECT] = (struct quorum_event_rec){ 1, 0x11, 4 };
	assert_int_equal(quorum_slots_to_fence(&s, 1, 10, list), 1);
	assert_int_equal(list[0].rid, 0x11);
	assert_int_equal(list[0].slot, 1);
	assert_int_equal(list[0].term, 4);
	assert_true(quorum_slot_is_led(&s, 1));
	assert_int_equal(quorum_slots_to_fence(&s, 0x11, 10, list), 0);		/* we */
	assert_int_equal(quorum_slots_to_fence(&s, 1, 3, list), 0);		/* newer than us */
	s.events[1][QUORUM_EVENT_STOP] = (struct quorum_event_rec){ 2, 0x11, 4 };
	assert_int_equal(quorum_slots_to_fence(&s, 1, 10, list), 0);
	assert_false(quorum_slot_is_led(&s, 1));
	/* A later ELECT of the slot does not hide a server that was up and never stopped. */
	s.events[1][QUORUM_EVENT_FENCE] = (struct quorum_event_rec){ 3, 0x12, 5 };
	s.events[1][QUORUM_EVENT_ELECT] = (struct quorum_event_rec){ 4, 0x13, 7 };
	assert_int_equal(quorum_slots_to_fence(&s, 1, 10, list), 2);
	/* One rid is named once. */
	s.events[1][QUORUM_EVENT_ELECT].rid = 0x12;
	assert_int_equal(quorum_slots_to_fence(&s, 1, 10, list), 1);
	/* Who was there before a later leader was up has been fenced by that one. */
	s.events[2][QUORUM_EVENT_ELECT] = (struct quorum_event_rec){ 1, 0x21, 9 };
	s.events[2][QUORUM_EVENT_FENCE] = (struct quorum_event_rec){ 2, 0x21, 9 };
	assert_int_equal(quorum_slots_to_fence(&s, 1, 10, list), 1);
	assert_int_equal(list[0].rid, 0x21);
	assert_int_equal(quorum_slots_max_term(&s), 9);
	/* Whoever was elected in between, and has been overtaken. */
	assert_int_equal(quorum_slots_newer(&s, 6), 9);
	assert_int_equal(quorum_slots_newer(&s, 8), 9);
	assert_int_equal(quorum_slots_newer(&s, 9), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_changes_one_event_and_is_durable),
		cmocka_unit_test(a_device_that_gives_old_blocks_is_not_written_to),
		cmocka_unit_test(a_slot_used_twice_and_a_damaged_block_are_refused),
		cmocka_unit_test(each_process_of_a_slot_is_newer_than_the_one_before),
		cmocka_unit_test(the_fence_list_is_as_specified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
