/*
 * Sealed datagrams of members: whatever is lost, held back, doubled, reflected, changed or sent again,
 * later or to another process, no message is believed twice, none that an earlier process of its sender
 * made after a later one was believed, and none made before the receiver began.  And who is not
 * disturbed is understood after two round trips.  design.md D10.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sodium.h>

#include "services/quorumd/seal.h"

#define DGRAM_MAX	(SEAL_BYTES + 64)
#define SLOT_A		0u
#define SLOT_B		1u
#define KEPT_MAX	4096u

struct dgram {
	uint8_t bytes[DGRAM_MAX];
	size_t len;
};

static uint8_t public_keys[3][KEYS_BYTES], secrets[3][KEYS_BYTES];

static int set_up(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		crypto_box_keypair(public_keys[i], secrets[i]);
	return 0;
}

/* A process of the node of that key whose peer in `slot` has that other key. */
static void begin(struct seal *s, unsigned own, unsigned slot, unsigned other)
{
	assert_int_equal(seal_init(s), 0);
	assert_int_equal(seal_set_key(s, slot, public_keys[other], secrets[own]), 0);
}

static struct dgram put(struct seal *s, unsigned slot, uint64_t answer, const void *msg, size_t len)
{
	struct dgram d;
	int ret = seal_put(s, slot, answer, msg, len, d.bytes, sizeof(d.bytes));

	assert_true(ret > 0);
	d.len = (size_t)ret;
	return d;
}

static struct dgram say(struct seal *s, unsigned slot, uint32_t number)
{
	return put(s, slot, 0, &number, sizeof(number));
}

/* What the receiver makes of it; *number of what it believes, *answer when it wants to be known. */
static enum seal_verdict hear(struct seal *s, unsigned slot, const struct dgram *d, uint32_t *number,
			      uint64_t *answer)
{
	uint8_t msg[DGRAM_MAX];
	size_t len = 0;
	enum seal_verdict v = seal_open(s, slot, d->bytes, d->len, msg, &len, answer);

	*number = 0;
	if (v == SEAL_GOOD || v == SEAL_FIRST) {
		assert_true(len == 0 || len == sizeof(*number));
		memcpy(number, msg, len);
	}
	return v;
}

/* What peers.c does with a datagram for `to`: answers go to `from` at once, and theirs to them. */
static uint32_t deliver(struct seal *to, unsigned from_slot, struct seal *from, unsigned to_slot,
			const struct dgram *d)
{
	uint32_t number, ignored;
	uint64_t answer;
	struct dgram back;

	switch (hear(to, from_slot, d, &number, &answer)) {
	case SEAL_STALE:
		back = put(to, from_slot, answer, NULL, 0);
		break;
	case SEAL_FIRST:
		back = put(to, from_slot, 0, NULL, 0);
		break;
	default:
		return number;
	}
	ignored = deliver(from, to_slot, to, from_slot, &back);
	assert_int_equal(ignored, 0);
	return number;
}

static void members_that_begin_understand_one_another(void **state)
{
	struct seal a, b;
	struct dgram d;

	(void)state;
	begin(&a, 0, SLOT_B, 1);
	begin(&b, 1, SLOT_A, 0);
	/* The first is not believed, for it may be old; it makes them known to each other. */
	d = say(&a, SLOT_B, 1);
	assert_int_equal(deliver(&b, SLOT_A, &a, SLOT_B, &d), 0);
	for (uint32_t i = 2; i < 100; i++) {
		d = say(&a, SLOT_B, i);
		assert_int_equal(deliver(&b, SLOT_A, &a, SLOT_B, &d), i);
		d = say(&b, SLOT_A, i);
		assert_int_equal(deliver(&a, SLOT_B, &b, SLOT_A, &d), i);
	}
	/* One of them begins again, and again. */
	for (uint32_t i = 0; i < 5; i++) {
		begin(&b, 1, SLOT_A, 0);
		d = say(&a, SLOT_B, 1000 + i);
		assert_int_equal(deliver(&b, SLOT_A, &a, SLOT_B, &d), 0);
		d = say(&a, SLOT_B, 2000 + i);
		assert_int_equal(deliver(&b, SLOT_A, &a, SLOT_B, &d), 2000 + i);
		d = say(&b, SLOT_A, 3000 + i);
		assert_int_equal(deliver(&a, SLOT_B, &b, SLOT_A, &d), 3000 + i);
	}
	seal_fini(&a);
	seal_fini(&b);
}

static void what_came_before_is_not_believed_again(void **state)
{
	struct seal a, b, b2;
	struct dgram kept[50];
	uint32_t number;
	uint64_t answer;

	(void)state;
	begin(&a, 0, SLOT_B, 1);
	begin(&b, 1, SLOT_A, 0);
	for (uint32_t i = 0; i < 50; i++) {
		kept[i] = say(&a, SLOT_B, i + 1);
		deliver(&b, SLOT_A, &a, SLOT_B, &kept[i]);
	}
	for (uint32_t i = 0; i < 50; i++) {
		enum seal_verdict v = hear(&b, SLOT_A, &kept[i], &number, &answer);

		assert_true(v == SEAL_REPLAYED || v == SEAL_STALE);
	}
	/* Nor by the next process, which has heard nothing yet. */
	begin(&b2, 1, SLOT_A, 0);
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(hear(&b2, SLOT_A, &kept[i], &number, &answer), SEAL_STALE);
	seal_fini(&a);
	seal_fini(&b);
	seal_fini(&b2);
}

static void a_dead_process_is_not_heard_after_its_successor(void **state)
{
	struct seal a, old, new;
	struct dgram held[3], d;
	uint32_t number;
	uint64_t answer;

	(void)state;
	begin(&a, 0, SLOT_B, 1);
	begin(&old, 1, SLOT_A, 0);
	for (uint32_t i = 1; i < 4; i++) {
		d = say(&old, SLOT_A, i);
		deliver(&a, SLOT_B, &old, SLOT_A, &d);
	}
	/* Held back on the way: never seen by anybody. */
	for (uint32_t i = 0; i < 3; i++)
		held[i] = say(&old, SLOT_A, 10 + i);
	assert_int_equal(hear(&a, SLOT_B, &held[0], &number, &answer), SEAL_GOOD);
	begin(&new, 1, SLOT_A, 0);
	for (uint32_t i = 1; i < 4; i++) {
		d = say(&new, SLOT_A, 20 + i);
		deliver(&a, SLOT_B, &new, SLOT_A, &d);
	}
	for (uint32_t i = 1; i < 3; i++)
		assert_int_equal(hear(&a, SLOT_B, &held[i], &number, &answer), SEAL_STALE);
	/* It has done no harm to the successor. */
	d = say(&new, SLOT_A, 30);
	assert_int_equal(deliver(&a, SLOT_B, &new, SLOT_A, &d), 30);
	seal_fini(&a);
	seal_fini(&old);
	seal_fini(&new);
}

static void what_is_not_the_peers_is_not_opened(void **state)
{
	struct seal a, b, c;
	struct dgram d, bad;
	uint32_t number;
	uint64_t answer;

	(void)state;
	begin(&a, 0, SLOT_B, 1);
	begin(&b, 1, SLOT_A, 0);
	begin(&c, 2, SLOT_A, 0);
	for (uint32_t i = 1; i < 4; i++) {
		d = say(&a, SLOT_B, i);
		deliver(&b, SLOT_A, &a, SLOT_B, &d);
	}
	d = say(&a, SLOT_B, 5);
	for (size_t bit = 0; bit < 8 * d.len; bit++) {
		bad = d;
		bad.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(hear(&b, SLOT_A, &bad, &number, &answer), SEAL_FALSE);
	}
	for (size_t len = 0; len < d.len; len++) {
		bad = d;
		bad.len = len;
		assert_int_equal(hear(&b, SLOT_A, &bad, &number, &answer), SEAL_FALSE);
	}
	/* To its sender, and to another node. */
	assert_int_equal(hear(&a, SLOT_B, &d, &number, &answer), SEAL_STALE);
	assert_int_equal(hear(&c, SLOT_A, &d, &number, &answer), SEAL_FALSE);
	/* From another node at that address. */
	bad = say(&c, SLOT_A, 6);
	assert_int_equal(hear(&a, SLOT_B, &bad, &number, &answer), SEAL_FALSE);
	/* Untouched it is good, after all that. */
	assert_int_equal(hear(&b, SLOT_A, &d, &number, &answer), SEAL_GOOD);
	assert_int_equal(number, 5);
	/* A key that is taken away. */
	seal_forget_key(&b, SLOT_A);
	d = say(&a, SLOT_B, 7);
	assert_int_equal(hear(&b, SLOT_A, &d, &number, &answer), SEAL_FALSE);
	seal_fini(&a);
	seal_fini(&b);
	seal_fini(&c);
}

/* A network that loses, doubles, delays for ever and sends again; processes that end and begin. */
static void nothing_is_believed_twice_or_out_of_its_time(void **state)
{
	static struct dgram kept[KEPT_MAX];
	static uint32_t kept_process[KEPT_MAX], kept_number[KEPT_MAX];
	unsigned kept_nr = 0, believed = 0;
	uint32_t process = 1, number = 0, last_process = 0, last_number = 0, got;
	struct seal a, b;
	uint64_t answer;

	(void)state;
	srand(getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : 1);
	begin(&a, 0, SLOT_B, 1);
	begin(&b, 1, SLOT_A, 0);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned what = (unsigned)rand() % 100, i;
		struct dgram d;

		if (what < 1) {
			seal_fini(&a);
			begin(&a, 0, SLOT_B, 1);
			process++;
			number = 0;
		} else if (what < 2) {
			/* Its memory of what came is gone: only what it asks for protects it. */
			seal_fini(&b);
			begin(&b, 1, SLOT_A, 0);
		} else if (what < 40 && kept_nr < KEPT_MAX) {
			kept_process[kept_nr] = process;
			kept_number[kept_nr] = ++number;
			kept[kept_nr++] = say(&a, SLOT_B, number);
		} else if (what < 60) {
			/* What b says reaches a, or not. */
			d = say(&b, SLOT_A, 1);
			if (rand() % 4 && hear(&a, SLOT_B, &d, &got, &answer) == SEAL_STALE) {
				d = put(&a, SLOT_B, answer, NULL, 0);
				hear(&b, SLOT_A, &d, &got, &answer);
			}
		} else if (kept_nr) {
			/* One of the last, or any. */
			i = rand() % 2 ? kept_nr - 1 - (unsigned)rand() % (kept_nr < 4 ? kept_nr : 4) :
					 (unsigned)rand() % kept_nr;
			if (hear(&b, SLOT_A, &kept[i], &got, &answer) == SEAL_STALE) {
				if (rand() % 2) {
					d = put(&b, SLOT_A, answer, NULL, 0);
					hear(&a, SLOT_B, &d, &got, &answer);
				}
				continue;
			}
			if (!got)
				continue;
			believed++;
			assert_int_equal(got, kept_number[i]);
			assert_true(kept_process[i] > last_process ||
				    (kept_process[i] == last_process && got > last_number));
			last_process = kept_process[i];
			last_number = got;
		}
		if (kept_nr == KEPT_MAX)
			kept_nr = 0;
	}
	assert_true(believed > 100);
	seal_fini(&a);
	seal_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_that_begin_understand_one_another),
		cmocka_unit_test(what_came_before_is_not_believed_again),
		cmocka_unit_test(a_dead_process_is_not_heard_after_its_successor),
		cmocka_unit_test(what_is_not_the_peers_is_not_opened),
		cmocka_unit_test(nothing_is_believed_twice_or_out_of_its_time),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
