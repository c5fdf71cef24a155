/*
 * What `scoutfsctl check` sorts beyond memory: the same records come out, in order, as often as wanted,
 * however little memory there is; and no room for the temporary file is an error, not a short answer.
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

#include "tools/scoutfsctl/check_volume.h"

struct rec {
	uint64_t key;
	uint64_t val;
	uint8_t pad[9];
};

static uint64_t rng = 88172645463325252ull;

static uint64_t rnd(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

static int cmp_rec(const void *a, const void *b)
{
	const struct rec *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->val < y->val ? -1 : x->val > y->val;
}

static void compare(struct check *ck, struct sorter *s, const struct rec *want, size_t nr)
{
	sorter_rewind(ck, s);
	for (size_t i = 0; i < nr; i++) {
		const struct rec *r = sorter_peek(s);

		assert_non_null(r);
		assert_memory_equal(r, &want[i], sizeof(*r));
		sorter_next(ck, s);
	}
	assert_null(sorter_peek(s));
	assert_int_equal(ck->err, 0);
}

/* kind 0: any order, 1: nearly in order, 2: in order, 3: in order backwards, 4: few different keys. */
static uint64_t key_of(unsigned kind, size_t i, size_t nr)
{
	switch (kind) {
	case 1:
		return 10 * i + rnd(300);
	case 2:
		return i;
	case 3:
		return nr - i;
	case 4:
		return rnd(5);
	default:
		return rnd(1ull << 40);
	}
}

static void records_come_out_in_order_whatever_the_memory(void **state)
{
	static const size_t memory[] = { 1, 3 * sizeof(struct rec), 50 * sizeof(struct rec), 1 << 20 };
	static const size_t counts[] = { 0, 1, 2, 7, 1000, 20000 };

	(void)state;
	for (unsigned n = 0; n < 5 * 4 * 6; n++) {
		struct check ck = { .sort_bytes = memory[n / 5 % 4], .temp_dir = "/tmp" };
		size_t nr = counts[n / 20];
		struct rec *want = calloc(nr + 1, sizeof(*want));
		struct sorter s;

		sorter_init(&s, sizeof(struct rec), cmp_rec);
		/* What a reset sorter held before is gone. */
		for (unsigned i = 0; i < 10; i++)
			sorter_add(&ck, &s, &(struct rec){ .key = i });
		sorter_rewind(&ck, &s);
		sorter_reset(&s);
		for (size_t i = 0; i < nr; i++) {
			want[i] = (struct rec){ .key = key_of(n % 5, i, nr), .val = rnd(3) };
			sorter_add(&ck, &s, &want[i]);
		}
		assert_int_equal(s.nr, nr);
		assert_true(s.buf_cap * sizeof(struct rec) <= 2 * sizeof(struct rec) + ck.sort_bytes);
		qsort(want, nr, sizeof(*want), cmp_rec);
		compare(&ck, &s, want, nr);
		compare(&ck, &s, want, nr);
		sorter_fini(&s);
		free(want);
	}
}

static void without_an_order_they_stay_as_they_came(void **state)
{
	struct check ck = { .sort_bytes = 100, .temp_dir = "/tmp" };
	struct rec want[1000] = { 0 };
	struct sorter s;

	(void)state;
	sorter_init(&s, sizeof(struct rec), NULL);
	for (unsigned i = 0; i < 1000; i++) {
		want[i].key = rnd(1000);
		sorter_add(&ck, &s, &want[i]);
	}
	/* In one piece: what comes in order is not merged. */
	assert_int_equal(s.runs_nr, 1);
	compare(&ck, &s, want, 1000);
	sorter_fini(&s);
}

static void no_room_for_a_temporary_file_is_an_error(void **state)
{
	struct check ck = { .sort_bytes = 100, .temp_dir = "/nowhere/at/all" };
	struct sorter s;

	(void)state;
	sorter_init(&s, sizeof(struct rec), cmp_rec);
	for (unsigned i = 0; i < 100; i++)
		sorter_add(&ck, &s, &(struct rec){ .key = i });
	assert_int_equal(ck.err, -ENOENT);
	assert_non_null(ck.err_what);
	sorter_rewind(&ck, &s);
	assert_null(sorter_peek(&s));
	sorter_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_come_out_in_order_whatever_the_memory),
		cmocka_unit_test(without_an_order_they_stay_as_they_came),
		cmocka_unit_test(no_room_for_a_temporary_file_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
