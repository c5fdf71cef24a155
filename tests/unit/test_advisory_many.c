/*
 * A mount whose programs hold very many advisory locks tells them to a new leader: each once, in order, and in a moment of
 * processor time - everybody's locks wait for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "advisory/adv_table.h"
#include "msg.h"
#include "services/serverd/advisory_fsm.h"

#define LOCKS		100000u
#define RID		7u
#define CPU_MAX_S	4.0	/* it takes a fortieth of that, and took three times as much */

static struct advfsm_act asked;
static unsigned asks, all_done;

static void emit(void *arg, const struct advfsm_act *act)
{
	(void)arg;
	if (act->kind == ADVFSM_ASK) {
		asked = *act;
		asks++;
	} else {
		assert_int_equal(act->kind, ADVFSM_ALL_DONE);
		all_done++;
	}
}

static void count(void *arg, uint64_t rid, const struct advfsm_lock *l)
{
	unsigned *nr = arg;

	assert_int_equal(rid, RID);
	assert_int_equal(l->type, ADV_WRITE);
	(*nr)++;
}

/* What the mount answers, as fsd does. */
static bool answer(struct advfsm *f, struct adv_table *t)
{
	const struct adv_told after = { .ino = asked.lock.ino, .owner = asked.lock.owner, .kind = asked.lock.kind,
					.range.last = asked.lock.last };
	struct adv_told told[ADV_RECOVER_MAX];
	struct advfsm_lock locks[ADV_RECOVER_MAX];
	struct advfsm_event ev = { .kind = ADVFSM_TOLD, .rid = RID, .round = asked.round, .told = locks };
	int nr = adv_table_tell(t, asked.from_start ? NULL : &after, told, ADV_RECOVER_MAX, &ev.is_last);

	assert_true(nr > 0);
	ev.told_nr = (size_t)nr;
	for (int i = 0; i < nr; i++)
		locks[i] = (struct advfsm_lock){ .ino = told[i].ino, .owner = told[i].owner, .kind = told[i].kind,
						 .type = told[i].range.type, .first = told[i].range.first,
						 .last = told[i].range.last };
	assert_int_equal(advfsm_step(f, &ev), 0);
	return ev.is_last;
}

static void very_many_locks_are_told_in_a_moment(void **state)
{
	const struct adv_range all = { .first = 0, .last = UINT64_MAX, .type = ADV_WRITE };
	struct advfsm_ops ops = { NULL, emit };
	struct adv_table *t;
	struct advfsm *f;
	unsigned nr = 0;
	clock_t begun;
	double took;

	(void)state;
	assert_int_equal(adv_table_open(&t, 0), 0);
	/* In no order, as programs take them. */
	for (uint64_t i = 0; i < LOCKS; i++) {
		uint64_t at = i * 48271 % LOCKS;

		assert_int_equal(adv_table_load(t, 1000 + at, ADV_KIND_FLOCK, at, 0, 1, &all, 1), 0);
	}
	assert_int_equal(advfsm_open(&f, &ops), 0);
	assert_int_equal(advfsm_step(f, &(struct advfsm_event){ .kind = ADVFSM_EXPECT, .rid = RID }), 0);
	assert_int_equal(advfsm_step(f, &(struct advfsm_event){ .kind = ADVFSM_GREETED, .rid = RID }), 0);
	begun = clock();
	while (!answer(f, t))
		;
	took = (double)(clock() - begun) / CLOCKS_PER_SEC;
	print_message("%u locks in %u answers: %.2f s\n", LOCKS, asks, took);
	assert_int_equal(asks, (LOCKS + ADV_RECOVER_MAX - 1) / ADV_RECOVER_MAX);
	assert_int_equal(all_done, 1);
	advfsm_each(f, &nr, count);
	assert_int_equal(nr, LOCKS);
	assert_true(took < CPU_MAX_S);
	advfsm_close(f);
	adv_table_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(very_many_locks_are_told_in_a_moment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
