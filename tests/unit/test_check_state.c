/*
 * What `scoutfsctl check` promises beyond the single rules (test_check.c): what it excuses and
 * what not, what it says of a volume in use, that findings name paths and are bounded, and that no
 * bytes whatever go unseen or bring it down.
 */
#include <stdatomic.h>

#include "test_check_vol.h"

/* --- 0002-leaked-blocks.md --- */

/* What upstream leaves of a merged log tree: its root in nothing, its leaves given back. */
static uint64_t leak_root(struct vol *v, bool free_all)
{
	struct disk_btree_root root = { 0 };
	struct disk_btree_block *b;
	uint64_t blkno;

	begin(v);
	for (unsigned i = 0; i < 1500; i++) {
		struct item it = { .key = key_index(TYPE_INDEX_META_SEQ, 1, 3000 + i), .seq = 20 };

		assert_int_equal(btree_insert(v->bs, &v->ma.al, &root, &it), 0);
	}
	end(v);
	assert_int_equal(root.height, 2);
	blkno = le64_get(root.ref.blkno);
	b = root_block(v, &root);
	begin(v);
	for (int slot = btb_first(b); slot >= 0; slot = btb_next(b, slot)) {
		struct disk_block_ref child;
		struct item it;

		btb_item(b, slot, &it);
		memcpy(&child, it.val, sizeof(child));
		if (free_all || slot != btb_first(b))
			assert_int_equal(block_free(v->bs, &v->ma.al, block_ref_get(&child)), 0);
	}
	end(v);
	return blkno;
}

static void slot_junk(struct vol *v)
{
	v->super.qconf.slots[0].unused[3] = 0x7f;
	store_super(v);
}

static void leak_is_excused_only_where_upstream_is_proved(void **state)
{
	struct vol v;
	uint64_t blkno;

	(void)state;
	make_volume(&v);
	leak_root(&v, true);
	assert_true(check_says(&v, "a volume of our own mkfs", 15, 0));
	slot_junk(&v);
	assert_true(check_says(&v, "upstream's mkfs", 0, 15));
	free_volume(&v);

	make_volume(&v);
	leak_root(&v, false);
	slot_junk(&v);
	assert_true(check_says(&v, "a leaf was leaked as well", 15, 0));
	free_volume(&v);

	make_volume(&v);
	blkno = leak_root(&v, true);
	slot_junk(&v);
	memdev_at(&v.dev, blkno)[50000] ^= 1;
	assert_true(check_says(&v, "the root is not intact", 15, 0));
	free_volume(&v);
}

/* The root of the tree that is in use must not be the excuse for an older copy of itself. */
static void leak_whose_children_are_in_use_is_not_excused(void **state)
{
	struct block_ref ref;
	struct block *bl;
	struct vol v;

	(void)state;
	make_volume(&v);
	grow_tree(&v);
	slot_junk(&v);
	begin(&v);
	assert_int_equal(block_new(v.bs, &v.ma.al, MAGIC_BTREE, &ref, &bl), 0);
	memcpy((uint8_t *)bl->data + sizeof(struct disk_header),
	       (uint8_t *)FS_BLOCK(&v) + sizeof(struct disk_header),
	       LARGE_SIZE - sizeof(struct disk_header));
	block_put(v.bs, bl);
	end(&v);
	assert_true(check_says(&v, "a copy of fs_root's root", 15, 0));
	free_volume(&v);
}

/* --- state, paths, bounds, robustness --- */

static void put_event(struct vol *v, unsigned slot, enum quorum_event_kind kind, uint64_t write_nr,
		      uint64_t term)
{
	quorum(v, slot)->events[kind] = (struct disk_quorum_event){ .write_nr = le64_of(write_nr),
								    .rid = le64_of(0xabc),
								    .term = le64_of(term) };
}

static void volume_in_use_is_named_and_its_committed_state_is_clean(void **state)
{
	struct disk_mounted_client c = { .flags = MOUNTED_CLIENT_QUORUM };
	static struct said said;
	struct check ck;
	struct vol v;

	(void)state;
	make_volume(&v);
	begin(&v);
	put_in(&v, &v.super.mounted_clients,
	       &(struct key){ .zone = ZONE_MOUNTED_CLIENT, .first = RID }, 0, &c, sizeof(c));
	v.lt[1].get_trans_seq = le64_of(70);
	end(&v);
	quorum(&v, 2)->write_nr = le64_of(1);
	quorum(&v, 2)->events[QUORUM_EVENT_BEGIN] = (struct disk_quorum_event){
		.write_nr = le64_of(1), .rid = le64_of(0xabc)
	};
	quorum_seal(&v, 2);
	assert_int_equal(run_check(&v, &ck, &said), 0);
	assert_int_equal(check_findings(&ck), 0);
	assert_true(ck.is_in_use);
	assert_non_null(strstr(said.text, "slot 2 was in use by rid 0000000000000abc"));
	assert_non_null(
		strstr(said.text, "rid 0000000000000077 is listed as mounted, a quorum member"));
	assert_non_null(strstr(said.text, "transaction 70 of rid 0000000000000077 is open"));
	free_volume(&v);

	make_volume(&v);
	assert_int_equal(run_check(&v, &ck, &said), 0);
	assert_false(ck.is_in_use);
	free_volume(&v);
}

/* A leader that lost power, booted again and left: it alarms nobody once a later leader has fenced it (6.2). */
static void leader_that_a_later_one_has_fenced_is_not_in_use(void **state)
{
	static const struct {
		uint64_t fence_term;
		const char *says;
	} cases[] = {
		{ 0, "the leader of term 4 in slot 2 (rid 0000000000000abc) has not stopped" },
		{ 3, "the leader of term 4 in slot 2 (rid 0000000000000abc) has not stopped" },
		{ 4, "the leader of term 4 in slot 2 (rid 0000000000000abc) has not stopped" },
		{ 5, NULL },
	};
	static struct said said;
	struct check ck;
	struct vol v;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		make_volume(&v);
		quorum(&v, 2)->write_nr = le64_of(3);
		put_event(&v, 2, QUORUM_EVENT_ELECT, 1, 4);
		put_event(&v, 2, QUORUM_EVENT_BEGIN, 2, 0);
		put_event(&v, 2, QUORUM_EVENT_END, 3, 0);
		quorum_seal(&v, 2);
		if (cases[i].fence_term) {
			quorum(&v, 7)->write_nr = le64_of(3);
			put_event(&v, 7, QUORUM_EVENT_FENCE, 3, cases[i].fence_term);
			quorum_seal(&v, 7);
		}
		assert_int_equal(run_check(&v, &ck, &said), 0);
		assert_int_equal(check_findings(&ck), 0);
		assert_int_equal(ck.is_in_use, cases[i].says != NULL);
		if (cases[i].says)
			assert_non_null(strstr(said.text, cases[i].says));
		else
			assert_null(strstr(said.text, "not cleanly unmounted"));
		free_volume(&v);
	}
}

static void finding_names_the_path(void **state)
{
	static struct said said;
	struct check ck;
	struct vol v;

	(void)state;
	make_volume(&v);
	v.super.next_ino = le64_of(1028);
	store_super(&v);
	assert_int_equal(run_check(&v, &ck, &said), 0);
	assert_non_null(strstr(said.text, "F28: /dir/fifo: "));
	free_volume(&v);

	make_volume(&v);
	begin(&v);
	put_extent(&v, FILE_INO, 4, 4, 0, 0);
	end(&v);
	assert_int_equal(run_check(&v, &ck, &said), 0);
	assert_non_null(strstr(said.text,
			       "F27: /file: fs_root: extent that is neither mapped nor offline"));
	free_volume(&v);
}

static void messages_of_a_kind_are_bounded_and_counted(void **state)
{
	static struct said said;
	unsigned lines = 0;
	struct check ck;
	struct vol v;

	(void)state;
	make_volume(&v);
	begin(&v);
	for (unsigned i = 0; i < 250; i++)
		put(&v, key_orphan(1500 + i), NULL, 0);
	end(&v);
	assert_int_equal(run_check(&v, &ck, &said), 0);
	assert_int_equal(ck.findings_nr[23], 250);
	for (const char *p = said.text; (p = strstr(p, "F23")); p++)
		lines++;
	assert_int_equal(lines, CHECK_SHOWN_MAX);
	free_volume(&v);
}

static atomic_bool was_read[META_BLOCKS];	/* by any of check's threads */

static int note_read(void *arg, uint64_t blkno, void *buf)
{
	(void)arg;
	(void)buf;
	was_read[blkno] = true;
	return 0;
}

static int fail_read(void *arg, uint64_t blkno, void *buf)
{
	(void)buf;
	return blkno == *(uint64_t *)arg ? -EIO : 0;
}

static void any_flipped_bit_and_any_unreadable_block_is_found(void **state)
{
	uint64_t seed = test_env("SEED", 1);
	static struct said said;
	struct check ck;
	struct vol v;

	(void)state;
	make_volume(&v);
	grow_tree(&v);
	memset(was_read, 0, sizeof(was_read));
	v.dev.on_read = note_read;
	assert_true(check_says(&v, "sound", 0, 0));
	for (uint64_t b = 2; b < META_BLOCKS; b++) {
		unsigned byte = (unsigned)(test_random(&seed) % LARGE_SIZE),
			 bit = (unsigned)(test_random(&seed) % 8);

		if (!was_read[b])
			continue;
		v.dev.on_read = NULL;
		memdev_at(&v.dev, b)[byte] ^= (uint8_t)(1u << bit);
		run_check(&v, &ck, &said);
		if (!ck.findings_nr[1])
			fail_msg("block %llu byte %u bit %u: not found", (unsigned long long)b,
				 byte, bit);
		memdev_at(&v.dev, b)[byte] ^= (uint8_t)(1u << bit);
		v.dev.on_read = fail_read;
		v.dev.on_read_arg = &b;
		run_check(&v, &ck, &said);
		if (!ck.findings_nr[1])
			fail_msg("block %llu: -EIO is not told", (unsigned long long)b);
	}
	free_volume(&v);
}

static void put_deleting_compaction(struct vol *v)
{
	struct disk_srch_compact c = { .flags = SRCH_COMPACT_DELETE };

	begin(v);
	put_compact(v, &c, false);
	end(v);
}

/* Bytes that someone spoiled and sealed with a right checksum: any answer, but an answer. */
static void sealed_nonsense_gets_an_answer(void **state)
{
	uint64_t seed = test_env("SEED", 1), rounds = test_env("ROUNDS", 400);
	static struct said said;
	struct check ck;
	struct vol v;

	(void)state;
	print_message("SEED=%llu ROUNDS=%llu\n", (unsigned long long)seed,
		      (unsigned long long)rounds);
	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t b, left;
		int ret;

		make_volume(&v);
		if (i % 4 == 1)
			grow_tree(&v);
		else if (i % 4 == 2)
			put_deleting_compaction(&v);
		else if (i % 4 == 3)
			merge_complete_waits(&v);
		memset(was_read, 0, sizeof(was_read));
		v.dev.on_read = note_read;
		run_check(&v, &ck, &said);
		v.dev.on_read = NULL;
		left = test_random(&seed) % 40;
		for (b = 1;; b = b + 1 < META_BLOCKS ? b + 1 : 1)
			if (was_read[b] && !left--)
				break;
		for (unsigned n = 1 + (unsigned)(test_random(&seed) % 4); n; n--) {
			/* Where structure is dense: the head of the block, else anywhere. */
			unsigned at = (unsigned)(test_random(&seed) % (n & 1 ? 2048 : LARGE_SIZE));

			if (b == 1)
				at = 32 + at % 936;
			memdev_at(&v.dev, b)[at] = (uint8_t)test_random(&seed);
		}
		if (b == 1) {
			memcpy(&v.super, memdev_at(&v.dev, 1), sizeof(v.super));
			store_super(&v);
		} else {
			seal(&v, b);
		}
		ret = run_check(&v, &ck, &said);
		assert_true(ret == 0 || (ret == -EBADMSG && check_findings(&ck)));
		free_volume(&v);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leak_is_excused_only_where_upstream_is_proved),
		cmocka_unit_test(leak_whose_children_are_in_use_is_not_excused),
		cmocka_unit_test(volume_in_use_is_named_and_its_committed_state_is_clean),
		cmocka_unit_test(leader_that_a_later_one_has_fenced_is_not_in_use),
		cmocka_unit_test(finding_names_the_path),
		cmocka_unit_test(messages_of_a_kind_are_bounded_and_counted),
		cmocka_unit_test(any_flipped_bit_and_any_unreadable_block_is_found),
		cmocka_unit_test(sealed_nonsense_gets_an_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
