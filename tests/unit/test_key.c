/* Keys: one order in all three forms, steps without gaps, text to and fro. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "key/key.h"

static uint64_t seed = 0x5eed;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Small and extreme values, so that equal fields and carries are common. */
static uint64_t rnd_field(uint64_t max)
{
	static const uint64_t v[] = { 0, 1, 2, 255, 256, 0x8000000000000000, UINT64_MAX - 1,
				      UINT64_MAX };
	uint64_t r = rnd() % 10;

	r = r < 8 ? v[r] : rnd();
	return r > max ? (r & 1 ? max : r & max) : r;
}

static struct key rnd_key(void)
{
	return (struct key){ .zone = (uint8_t)rnd_field(255), .first = rnd_field(UINT64_MAX),
			     .type = (uint8_t)rnd_field(255), .second = rnd_field(UINT64_MAX),
			     .third = rnd_field(UINT64_MAX), .fourth = (uint8_t)rnd_field(255) };
}

static int sign(int x) { return (x > 0) - (x < 0); }

static void each_field_outranks_all_after_it(void **state)
{
	struct key low[6], high[6];

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		low[i] = (struct key){ 7, 7, 7, 7, 7, 7 };
		high[i] = low[i];
	}
	/* high is greater in one field and least in all after it; low is greatest in those */
	high[0] = (struct key){ 8, 0, 0, 0, 0, 0 };
	low[0] = (struct key){ 7, UINT64_MAX, 255, UINT64_MAX, UINT64_MAX, 255 };
	high[1] = (struct key){ 7, 8, 0, 0, 0, 0 };
	low[1] = (struct key){ 7, 7, 255, UINT64_MAX, UINT64_MAX, 255 };
	high[2] = (struct key){ 7, 7, 8, 0, 0, 0 };
	low[2] = (struct key){ 7, 7, 7, UINT64_MAX, UINT64_MAX, 255 };
	high[3] = (struct key){ 7, 7, 7, 8, 0, 0 };
	low[3] = (struct key){ 7, 7, 7, 7, UINT64_MAX, 255 };
	high[4] = (struct key){ 7, 7, 7, 7, 8, 0 };
	low[4] = (struct key){ 7, 7, 7, 7, 7, 255 };
	high[5] = (struct key){ 7, 7, 7, 7, 7, 8 };
	for (unsigned i = 0; i < 6; i++) {
		assert_true(key_cmp(&low[i], &high[i]) < 0);
		assert_true(key_cmp(&high[i], &low[i]) > 0);
		assert_true(key_cmp(&low[i], &low[i]) == 0 && key_eq(&low[i], &low[i]));
	}
}

static void sortable_bytes_and_disk_bytes_keep_the_key_and_its_order(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		struct key a = rnd_key(), b = rnd() % 4 ? rnd_key() : a, back;
		uint8_t sa[KEY_SORT_BYTES], sb[KEY_SORT_BYTES];
		struct disk_key disk = key_to_disk(&a);

		key_to_sortable(&a, sa);
		key_to_sortable(&b, sb);
		assert_int_equal(sign(memcmp(sa, sb, sizeof(sa))), sign(key_cmp(&a, &b)));
		back = key_from_sortable(sa);
		assert_true(key_eq(&a, &back));
		assert_true(key_pad_is_zero(&disk));
		disk.pad[rnd() % 5] = 1;
		assert_false(key_pad_is_zero(&disk));
		back = key_from_disk(&disk);
		assert_true(key_eq(&a, &back));
	}
}

static void next_and_prev_are_neighbours_and_wrap(void **state)
{
	struct key zeros = KEY_ZEROS, ones = KEY_ONES, k;

	(void)state;
	k = key_next(ones);
	assert_true(key_eq(&k, &zeros));
	k = key_prev(zeros);
	assert_true(key_eq(&k, &ones));

	for (unsigned i = 0; i < 100000; i++) {
		struct key a = rnd_key(), n = key_next(a), p = key_prev(a), x;
		uint8_t sa[KEY_SORT_BYTES], sn[KEY_SORT_BYTES];
		int at = KEY_SORT_BYTES - 1;

		x = key_prev(n);
		assert_true(key_eq(&a, &x));
		x = key_next(p);
		assert_true(key_eq(&a, &x));
		if (!key_eq(&a, &ones))
			assert_true(key_cmp(&a, &n) < 0);
		/* the next key is the next number: add one to the 27 bytes by hand */
		key_to_sortable(&a, sa);
		while (at >= 0 && ++sa[at] == 0)
			at--;
		key_to_sortable(&n, sn);
		assert_memory_equal(sa, sn, sizeof(sa));
	}
}

static void text_is_read_back(void **state)
{
	struct key ones = KEY_ONES, k;
	char text[KEY_TEXT_BYTES];

	(void)state;
	assert_true(key_to_text(&ones, text, sizeof(text)) < (int)sizeof(text));
	assert_string_equal(text, "255.18446744073709551615.255.18446744073709551615."
				  "18446744073709551615.255");
	for (unsigned i = 0; i < 10000; i++) {
		struct key a = rnd_key();

		key_to_text(&a, text, sizeof(text));
		assert_int_equal(key_from_text(text, &k), 0);
		assert_true(key_eq(&a, &k));
	}
	assert_int_equal(key_from_text("16.5", &k), 0);
	assert_true(k.zone == 16 && k.first == 5 && !k.type && !k.second && !k.third && !k.fourth);
	assert_int_equal(key_from_text("16.-1.12.0xfF", &k), 0);
	assert_true(k.first == UINT64_MAX && k.type == 12 && k.second == 255);
}

static void wrong_text_is_refused(void **state)
{
	static const char *const wrong[] = {
		"", ".", "16.", ".5", "16..5", "256", "16.18446744073709551616", "16.1.256",
		"16.1.1.1.1.256", "16.1.1.1.1.1.1", "16.1.1.1.1.1.", "-2", "--1", "+1", " 1", "1 ",
		"0x", "1x", "16.0xg", "-1x", "0x1ffffffffffffffff",
	};
	struct key k;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (key_from_text(wrong[i], &k) != -EINVAL)
			fail_msg("'%s' was accepted", wrong[i]);
	}
}

static void locks_cover_their_items_and_do_not_overlap(void **state)
{
	static const uint8_t zones[] = { 4, 8, 10, 12, 14, 16, 20 };

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		struct key a = rnd_key(), b = rnd_key(), as, ae, bs, be;

		a.zone = zones[rnd() % 7];
		b.zone = zones[rnd() % 7];
		if (a.zone == 4)
			a.first = 0;
		if (b.zone == 4)
			b.first = 0;
		/* the orphan lock starts at its type */
		if (a.zone == 8)
			a.first = 0, a.type = 4;
		if (b.zone == 8)
			b.first = 0, b.type = 4;
		as = key_lock_start(&a);
		ae = key_lock_end(&as);
		bs = key_lock_start(&b);
		be = key_lock_end(&bs);
		assert_true(key_cmp(&as, &a) <= 0 && key_cmp(&a, &ae) <= 0);
		if (key_eq(&as, &bs))
			assert_true(key_eq(&ae, &be));
		else
			assert_true(key_cmp(&ae, &bs) < 0 || key_cmp(&be, &as) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_field_outranks_all_after_it),
		cmocka_unit_test(sortable_bytes_and_disk_bytes_keep_the_key_and_its_order),
		cmocka_unit_test(next_and_prev_are_neighbours_and_wrap),
		cmocka_unit_test(text_is_read_back),
		cmocka_unit_test(wrong_text_is_refused),
		cmocka_unit_test(locks_cover_their_items_and_do_not_overlap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
