/*
 * Earlier leaders: what quorumd does to be certain that they write no more, where blockd does not do at once what it is told
 * (services/quorumd/fence.c).
 */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "services/quorumd/quorumd.h"

#define RID_OURS	0x11u
#define RID_EARLIER	0x22u
#define SLOT_EARLIER	1u
#define TERM		9u

/* ---- what stands around it ---- */

static unsigned revokes_nr;
static int post_result;

int slot_io_post(struct slot_io *io, const struct slot_job *job)
{
	(void)io;
	assert_int_equal(job->kind, SLOT_JOB_REVOKE);
	assert_int_equal(job->rid, RID_EARLIER);
	revokes_nr += post_result == 0;
	return post_result;
}

uint64_t quorum_lease_over_ns(const struct quorum *q, unsigned slot, uint64_t term)
{
	(void)q; (void)slot; (void)term;
	return 0;	/* nothing is known of it: only somebody's word helps */
}

static void answer(struct quorumd *qd, int result)
{
	struct slot_job job = { .kind = SLOT_JOB_REVOKE, .rid = RID_EARLIER, .result = result };

	fences_revoked(qd, &job);
}

static struct quorumd *begin(void)
{
	struct quorum_slots slots = { .present = 3, .readable = 3 };
	struct quorumd *qd = calloc(1, sizeof(*qd));

	assert_non_null(qd);
	strcpy(qd->conf.runtime_dir, "/tmp/test_quorum_fence.XXXXXX");
	assert_non_null(mkdtemp(qd->conf.runtime_dir));
	strcpy(qd->conf.state_dir, qd->conf.runtime_dir);
	qd->rid = RID_OURS;
	pthread_mutex_init(&qd->mutex, NULL);
	slots.events[SLOT_EARLIER][QUORUM_EVENT_ELECT] = (struct quorum_event_rec){ 1, RID_EARLIER, TERM - 1 };
	revokes_nr = 0;
	post_result = 0;
	fences_begin(qd, &qd->fences, &slots, TERM, clock_boot_ns());
	assert_int_equal(revokes_nr, 0);
	return qd;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st; (void)type; (void)ftw;
	return remove(path);
}

static void end(struct quorumd *qd)
{
	assert_int_equal(nftw(qd->conf.runtime_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	pthread_mutex_destroy(&qd->mutex);
	free(qd);
}

/* ---- promises ---- */

static void a_revoke_that_blockd_could_not_do_is_tried_again(void **state)
{
	struct quorumd *qd = begin();
	uint64_t now = clock_boot_ns();
	char text[256];

	(void)state;
	assert_false(fences_step(qd, &qd->fences, now));
	assert_int_equal(fences_ack(qd, RID_EARLIER, text, sizeof(text)), 0);
	assert_false(fences_step(qd, &qd->fences, now));
	assert_int_equal(revokes_nr, 1);
	/* one question at a time */
	assert_false(fences_step(qd, &qd->fences, now));
	assert_int_equal(revokes_nr, 1);
	answer(qd, -ENOSPC);
	assert_false(fences_step(qd, &qd->fences, clock_boot_ns()));
	assert_int_equal(revokes_nr, 1);
	assert_false(fences_step(qd, &qd->fences, clock_boot_ns() + 2 * NSEC_PER_SEC));
	assert_int_equal(revokes_nr, 2);
	answer(qd, 0);
	assert_true(fences_step(qd, &qd->fences, clock_boot_ns()));
	end(qd);
}

static void one_that_could_not_be_sent_is_sent_again(void **state)
{
	struct quorumd *qd = begin();
	char text[256];

	(void)state;
	assert_int_equal(fences_ack(qd, RID_EARLIER, text, sizeof(text)), 0);
	post_result = -ENOMEM;
	assert_false(fences_step(qd, &qd->fences, clock_boot_ns()));
	post_result = 0;
	assert_false(fences_step(qd, &qd->fences, clock_boot_ns()));
	assert_int_equal(revokes_nr, 0);
	assert_false(fences_step(qd, &qd->fences, clock_boot_ns() + 2 * NSEC_PER_SEC));
	assert_int_equal(revokes_nr, 1);
	answer(qd, 0);
	assert_true(fences_step(qd, &qd->fences, clock_boot_ns()));
	end(qd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_revoke_that_blockd_could_not_do_is_tried_again),
		cmocka_unit_test(one_that_could_not_be_sent_is_sent_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
