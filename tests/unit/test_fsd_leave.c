/*
 * A mount that stops without a leader: how long it waits for one, how it ends then, and what it says (services/fsd/leave.c).
 * The ends are those of processes of their own, in which the rest of fsd is a few lines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "net_client.h"
#include "services/fsd/fuse.h"
#include "services/fsd/keep.h"
#include "services/fsd/leave.h"
#include "services/fsd/lost.h"
#include "services/fsd/status.h"

#define STAYS		(-1)	/* the process goes on */
#define STAYS_MS	1000u
#define DEADLINE_MS	60000u
#define LOST_MS		100000u	/* since when there is no lease: longer than any patience */

static struct fsd fsd;
static struct keep_head head;
static struct keep keep = { .head = &head };
static struct {
	enum fsd_phase phase;
	bool is_greeted, is_dirty, is_restart, has_farewell, is_stored, may_have_stores;
} fake;

bool status_pin(enum fsd_phase *phase)
{
	*phase = fake.phase;
	return fake.phase < PHASE_LEAVING;
}
void status_unpin(void) { }
void kcache_abort(struct fsd *f) { atomic_store(&f->was_cut, true); fake.phase = PHASE_UNMOUNTING; }
void keep_forget_descriptor(void) { }
void net_client_get_stats(struct net_client *nc, struct net_client_stats *st)
{
	(void)nc;
	*st = (struct net_client_stats){ .greeted = fake.is_greeted };
}
int lost_count(struct fsd *f, struct lost *l)
{
	(void)f;
	*l = (struct lost){ .mapped = fake.is_dirty };
	return 0;
}
bool lost_is_none(const struct lost *l) { return !l->mapped; }
bool lost_report_cut(struct fsd *f)
{
	bool is_so = fake.may_have_stores && atomic_load(&f->was_cut);

	if (is_so)
		fprintf(stderr, "CUT\n");
	return is_so;
}
bool lost_report_left(struct fsd *f, uint64_t seconds)
{
	(void)f;
	if (fake.is_dirty)
		fprintf(stderr, "LEFT after %llu s\n", (unsigned long long)seconds);
	return fake.is_dirty;
}

static char said[8192];

static void run_process(int fd)
{
	dup2(fd, STDERR_FILENO);
	atomic_store(&fsd.lease_lost_ns, clock_mono_ns() > LOST_MS * NSEC_PER_MSEC ? clock_mono_ns() - LOST_MS * NSEC_PER_MSEC : 1);
	if (fake.has_farewell)
		leave_farewell(fake.is_stored);
	leave_begin(&fsd, fake.is_restart);
	for (;;)
		pause();
}

/* How such a process ends; what it says is in said[]. */
static int ends(void)
{
	FILE *f = tmpfile();
	uint64_t end_ns = clock_mono_ns() + DEADLINE_MS * NSEC_PER_MSEC;
	int status, ret = STAYS;
	pid_t pid;

	assert_non_null(f);
	pid = fork();
	if (pid == 0)
		run_process(fileno(f));
	assert_true(pid > 0);
	while (clock_mono_ns() < end_ns && waitpid(pid, &status, WNOHANG) == 0)
		usleep(10000);
	assert_true(clock_mono_ns() < end_ns && WIFEXITED(status));
	ret = WEXITSTATUS(status);
	rewind(f);
	said[fread(said, 1, sizeof(said) - 1, f)] = '\0';
	fclose(f);
	return ret;
}

static bool stays(void)
{
	pid_t pid = fork();
	bool is_there;
	int status;

	if (pid == 0)
		run_process(STDERR_FILENO);
	assert_true(pid > 0);
	usleep(STAYS_MS * 1000);
	is_there = waitpid(pid, &status, WNOHANG) == 0;
	if (is_there) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	return is_there;
}

static int setup(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	memset(&fsd, 0, sizeof(fsd));
	fsd.keep = &keep;
	atomic_store(&head.resumes, 1);
	snprintf(fsd.conf.mountpoint, sizeof(fsd.conf.mountpoint), "/nowhere/scoutfs-test");
	return 0;
}

static void a_lease_is_never_left(void **state)
{
	struct leave_view v = { .stopped_ms = 200000, .patience_ms = 27000, .election_ms = 15000 };

	(void)state;
	assert_false(leave_is_over(&v, false));
	assert_false(leave_may_cut(&v));
}

/* A host that boots for minutes: its leader is given time from the stop on. */
static void what_is_not_committed_gives_a_leader_time_from_the_stop_on(void **state)
{
	struct leave_view v = { .silent_ms = 180000, .patience_ms = 27000, .election_ms = 15000 };

	(void)state;
	assert_true(leave_is_over(&v, false));
	assert_false(leave_is_over(&v, true));
	assert_false(leave_may_cut(&v));
	v.stopped_ms = 15000;
	assert_true(leave_may_cut(&v));
	assert_false(leave_is_over(&v, true));
	v.stopped_ms = 53999;
	assert_false(leave_is_over(&v, true));
	v.stopped_ms = 54000;
	assert_true(leave_is_over(&v, true));
	v.patience_ms = 60000;
	v.stopped_ms = 60000;
	assert_true(leave_is_over(&v, true));
}

static void a_leader_that_is_lost_late_is_waited_for_too(void **state)
{
	struct leave_view v = { .stopped_ms = 80000, .silent_ms = 1000, .patience_ms = 27000, .election_ms = 15000 };

	(void)state;
	assert_false(leave_is_over(&v, false));
	assert_false(leave_may_cut(&v));
	v.silent_ms = 27000;
	assert_true(leave_is_over(&v, true));
	/* but systemd kills after 120 s */
	v = (struct leave_view){ .stopped_ms = 110000, .silent_ms = 1, .patience_ms = 27000, .election_ms = 15000 };
	assert_true(leave_is_over(&v, true));
}

static void one_that_listens_is_waited_for_for_long(void **state)
{
	struct leave_view v = { .stopped_ms = 109999, .silent_ms = 180000, .patience_ms = 27000, .election_ms = 15000,
				.is_greeted = true };

	(void)state;
	assert_false(leave_is_over(&v, false));
	assert_false(leave_may_cut(&v));
	v.stopped_ms++;
	assert_true(leave_is_over(&v, false));
}

static void with_nothing_left_it_ends_at_once(void **state)
{
	(void)state;
	for (int phase = PHASE_UNMOUNTING; phase <= PHASE_COMMITTING; phase++) {
		fake.phase = (enum fsd_phase)phase;
		assert_int_equal(ends(), 0);
		assert_non_null(strstr(said, "; all is committed, and the next leader"));
	}
}

static void before_it_is_mounted_too(void **state)
{
	(void)state;
	fake.phase = PHASE_OPENING;
	assert_int_equal(ends(), 0);
	/* a restart of what an earlier process has left: that stays for the next one */
	fake.is_restart = true;
	assert_int_equal(ends(), EXIT_KEPT);
	/* and with programs on a connection that goes with it */
	fake.is_restart = false;
	atomic_store(&fsd.is_resumed, true);
	assert_true(stays());
}

static void a_leader_that_listens_and_what_is_left_keep_it(void **state)
{
	(void)state;
	fake.phase = PHASE_COMMITTING;
	fake.is_greeted = true;
	assert_true(stays());
	fake.is_greeted = false;
	fake.is_dirty = true;
	assert_true(stays());
	fake.is_dirty = false;
	fake.is_restart = true;
	assert_true(stays());
}

static void what_is_left_is_said_in_the_end(void **state)
{
	(void)state;
	fake.phase = PHASE_COMMITTING;
	fake.is_dirty = true;
	assert_int_equal(ends(), 1);	/* 2 * 5 s */
	assert_non_null(strstr(said, "asked to stop, and there is no leader"));
	assert_non_null(strstr(said, "LEFT after 1"));
	assert_null(strstr(said, "all is committed, and"));
}

static void programs_that_are_cut_off_may_lose_what_nobody_knows(void **state)
{
	(void)state;
	fake.phase = PHASE_MOUNTED;
	fake.may_have_stores = true;
	assert_int_equal(ends(), 1);	/* 5 s */
	assert_non_null(strstr(said, "its programs get errors now"));
	assert_non_null(strstr(said, "CUT"));
	assert_null(strstr(said, "; all is committed"));
	/* whoever has cut them, and how ever far it has got */
	atomic_store(&fsd.was_cut, true);
	fake.phase = PHASE_LEAVING;
	fake.has_farewell = fake.is_stored = true;
	assert_int_equal(ends(), 1);
	assert_null(strstr(said, "; all is committed"));
	/* programs that can have nothing mapped for writing lose nothing */
	fake.may_have_stores = false;
	assert_int_equal(ends(), 0);
	assert_non_null(strstr(said, "; all is committed"));
}

static void a_farewell_is_left_out_if_all_is_stored(void **state)
{
	(void)state;
	fake.phase = PHASE_LEAVING;
	assert_true(stays());	/* the last commit has failed: main says so, and ends */
	fake.has_farewell = true;
	assert_int_equal(ends(), 1);
	assert_null(strstr(said, "all is committed, and"));
	fake.is_stored = true;
	assert_int_equal(ends(), 0);
	assert_non_null(strstr(said, "; all is committed, and the next leader"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_lease_is_never_left, setup),
		cmocka_unit_test_setup(what_is_not_committed_gives_a_leader_time_from_the_stop_on, setup),
		cmocka_unit_test_setup(a_leader_that_is_lost_late_is_waited_for_too, setup),
		cmocka_unit_test_setup(one_that_listens_is_waited_for_for_long, setup),
		cmocka_unit_test_setup(with_nothing_left_it_ends_at_once, setup),
		cmocka_unit_test_setup(before_it_is_mounted_too, setup),
		cmocka_unit_test_setup(a_leader_that_listens_and_what_is_left_keep_it, setup),
		cmocka_unit_test_setup(what_is_left_is_said_in_the_end, setup),
		cmocka_unit_test_setup(programs_that_are_cut_off_may_lose_what_nobody_knows, setup),
		cmocka_unit_test_setup(a_farewell_is_left_out_if_all_is_stored, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
