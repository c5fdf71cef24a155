/*
 * The checker of histories (tests/lin): what it must accept and, for each of its rules, one that it must refuse.
 *
 * A history is written as lines "NODE.PROC START END KIND OBJECT A B V ERRNO R0 R1 R2"; END "-" is no answer, and
 * "crash NODE FROM TO ZOMBIE_UNTIL" is the loss of a node's mount; "failing NODE FROM TO": its devices failed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lin/lin.h"

#define CELL "1000"
#define CELL2 "1001"
#define SIZE "2000"
#define MODE "3000"
#define LOG "5000"

static size_t check(const char *text, struct lin_stats *stats)
{
	struct lin_history h = { 0 };
	char *copy = strdup(text), *save = NULL, *said = NULL;
	size_t wrong, len;
	FILE *out = open_memstream(&said, &len);

	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char log[512], until[32], kind[16], args[128], answer[128];
		unsigned long from;
		int node, proc;
		FILE *f;

		if (!strncmp(line, "crash ", 6) || !strncmp(line, "failing ", 8)) {
			if (line[0] == 'c')
				snprintf(log, sizeof(log), "crash %c 0%s\n", line[6], line + 7);
			else
				snprintf(log, sizeof(log), "%s\n", line);
			f = fmemopen(log, strlen(log), "r");
			assert_int_equal(lin_read_events(&h, f, out), 0);
			fclose(f);
			continue;
		}
		assert_int_equal(sscanf(line, "%d.%d %lu %31s %15s %127[^:]: %127[^\n]", &node, &proc, &from, until, kind,
					args, answer), 7);
		if (!strcmp(until, "-"))
			snprintf(log, sizeof(log), "I %lu %s %s\n", from, kind, args);
		else
			snprintf(log, sizeof(log), "I %lu %s %s\nR %s %s\n", from, kind, args, until, answer);
		f = fmemopen(log, strlen(log), "r");
		assert_int_equal(lin_read_log(&h, f, node, 0, proc, out), 0);
		fclose(f);
	}
	wrong = lin_check(&h, stats, out);
	assert_int_equal(stats->undecided, 0);
	fclose(out);
	/* what is refused is also described */
	assert_true(!wrong == !len);
	free(said);
	free(copy);
	lin_history_fini(&h);
	return wrong;
}

static void assert_fine(const char *text)
{
	struct lin_stats st;

	if (check(text, &st))
		fail_msg("refused:\n%s", text);
}

static void assert_wrong(const char *text)
{
	struct lin_stats st;

	if (!check(text, &st))
		fail_msg("accepted:\n%s", text);
}

/* NODE.PROC START END KIND OBJECT A B V: ERRNO R0 R1 R2 */
#define W(np, from, to, v)	np " " #from " " to " write " CELL " 0 0 " #v ": 0 0 0 0\n"
#define R(np, from, to, v)	np " " #from " " to " read " CELL " 0 0 0: 0 " #v " 0 0\n"
#define W2(np, from, to, v)	np " " #from " " to " write " CELL2 " 0 0 " #v ": 0 0 0 0\n"
#define R2(np, from, to, v)	np " " #from " " to " read " CELL2 " 0 0 0: 0 " #v " 0 0\n"
#define WS(np, from, to, v)	np " " #from " " to " write " SIZE " 0 0 " #v ": 0 0 0 0\n"
#define RS(np, from, to, v)	np " " #from " " to " read " SIZE " 0 0 0: 0 " #v " 0 0\n"
#define WM(np, from, to, v)	np " " #from " " to " write " MODE " 0 0 " #v ": 0 0 0 0\n"
#define RM(np, from, to, v)	np " " #from " " to " read " MODE " 0 0 0: 0 " #v " 0 0\n"
#define SYNC(np, from, to)	np " " #from " " to " sync 6000 0 0 0: 0 0 0 0\n"
#define NAME(np, from, to, what, a, answer) np " " #from " " to " " what " 0 " #a " 0 0: " answer "\n"
#define RENAME(np, from, to, a, b, err) np " " #from " " to " rename 0 " #a " " #b " 0: " #err " 0 0 0\n"
#define LINK(np, from, to, ino, b, err) np " " #from " " to " link 0 0 " #b " " #ino ": " #err " 0 0 0\n"
#define NOENT "2 0 0 0"
#define EXISTS "17 0 0 0"
#define OK "0 0 0 0"

static void a_read_returns_the_last_value_written(void **state)
{
	(void)state;
	assert_fine(R("1.0", 1, "2", 0) W("1.0", 10, "20", 7) R("2.0", 30, "40", 7));
	assert_wrong(W("1.0", 10, "20", 7) R("2.0", 30, "40", 0));
	assert_wrong(W("1.0", 10, "20", 7) W("2.0", 30, "40", 8) R("3.0", 50, "60", 7));
	assert_wrong(W("1.0", 10, "20", 7) R("2.0", 30, "40", 9));
}

static void at_the_same_time_any_order_goes_but_one_for_all(void **state)
{
	(void)state;
	assert_fine(W("1.0", 10, "50", 7) R("2.0", 20, "30", 0) R("2.0", 31, "40", 7));
	assert_wrong(W("1.0", 10, "50", 7) R("2.0", 20, "30", 7) R("3.0", 31, "40", 0));
	assert_fine(W("1.0", 10, "50", 7) W("2.0", 10, "50", 8) R("3.0", 60, "70", 7) R("1.0", 80, "90", 7));
	assert_wrong(W("1.0", 10, "50", 7) W("2.0", 10, "50", 8) R("3.0", 60, "70", 7) R("1.0", 80, "90", 8));
}

static void a_torn_read_is_refused(void **state)
{
	(void)state;
	assert_wrong(W("1.0", 10, "50", 7) "2.0 20 30 read " CELL " 0 0 0: 0 18446744073709551615 0 0\n");
}

static void who_looks_during_a_change_of_the_same_node_is_held_to_nothing(void **state)
{
	struct lin_stats st;

	(void)state;
	assert_fine(W("1.0", 10, "50", 7) R("1.1", 20, "30", 7) R("2.0", 31, "40", 0));
	assert_int_equal(check(W("1.0", 10, "50", 7) R("1.1", 20, "30", 7), &st), 0);
	assert_int_equal(st.overlapped, 1);
}

static void without_an_answer_it_may_have_happened(void **state)
{
	(void)state;
	assert_fine(W("1.0", 10, "-", 7) R("2.0", 30, "40", 0) R("2.0", 50, "60", 7));
	assert_wrong(W("1.0", 10, "-", 7) R("2.0", 30, "40", 7) R("2.0", 50, "60", 0));
	assert_fine("1.0 10 20 write " CELL " 0 0 7: 5 0 0 0\n" R("2.0", 30, "40", 0));
	assert_fine("1.0 10 20 write " CELL " 0 0 7: 5 0 0 0\n" R("2.0", 30, "40", 7));
	/* but what has failed does not happen later */
	assert_wrong("1.0 10 20 write " CELL " 0 0 7: 5 0 0 0\n" R("2.0", 30, "40", 0) R("2.0", 50, "60", 7));
}

static void appended_records_are_all_there_in_their_order(void **state)
{
	char h1[32], h12[32], h21[32], text[1024];

	(void)state;
	snprintf(h1, sizeof(h1), "%lu", lin_hash(0, 1));
	snprintf(h12, sizeof(h12), "%lu", lin_hash(lin_hash(0, 1), 2));
	snprintf(h21, sizeof(h21), "%lu", lin_hash(lin_hash(0, 2), 1));
#define APPENDS "1.0 10 20 append " LOG " 0 0 1: 0 0 0 0\n2.0 30 40 append " LOG " 0 0 2: 0 0 0 0\n"
#define BOTH "1.0 10 35 append " LOG " 0 0 1: 0 0 0 0\n2.0 30 40 append " LOG " 0 0 2: 0 0 0 0\n"
	snprintf(text, sizeof(text), APPENDS "3.0 50 60 readlog " LOG " 0 0 0: 0 2 %s 0\n", h12);
	assert_fine(text);
	snprintf(text, sizeof(text), APPENDS "3.0 50 60 readlog " LOG " 0 0 0: 0 2 %s 0\n", h21);
	assert_wrong(text);
	snprintf(text, sizeof(text), APPENDS "3.0 50 60 readlog " LOG " 0 0 0: 0 1 %s 0\n", h1);
	assert_wrong(text);
	snprintf(text, sizeof(text), BOTH "3.0 50 60 readlog " LOG " 0 0 0: 0 2 %s 0\n", h21);
	assert_fine(text);
}

static void names_are_there_or_not(void **state)
{
	(void)state;
	assert_fine(NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("2.0", 3, "4", "stat", 0, "0 100 1 0")
		    NAME("3.0", 5, "6", "create", 0, EXISTS) NAME("3.0", 7, "8", "unlink", 0, OK)
		    NAME("1.0", 9, "10", "stat", 0, NOENT) NAME("1.0", 11, "12", "unlink", 0, NOENT));
	/* a stale negative entry, a stale name, an O_EXCL that two win, a file that another is said to be */
	assert_wrong(NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("2.0", 3, "4", "stat", 0, NOENT));
	assert_wrong(NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("3.0", 7, "8", "unlink", 0, OK)
		     NAME("2.0", 9, "10", "stat", 0, "0 100 1 0"));
	assert_wrong(NAME("1.0", 1, "5", "create", 0, "0 100 0 0") NAME("2.0", 2, "6", "create", 0, "0 101 0 0"));
	assert_wrong(NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("2.0", 3, "4", "stat", 0, "0 101 1 0"));
	assert_wrong(NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("1.0", 3, "6", "unlink", 0, OK)
		     NAME("2.0", 4, "7", "unlink", 0, OK));
}

static void directories_are_not_files(void **state)
{
	(void)state;
	assert_fine(NAME("1.0", 1, "2", "mkdir", 4, OK) NAME("2.0", 3, "4", "unlink", 4, "21 0 0 0")
		    NAME("2.0", 5, "6", "stat", 4, "0 200 2 1") RENAME("3.0", 7, "8", 4, 0, 0)
		    NAME("2.0", 9, "10", "rmdir", 0, OK) NAME("1.0", 11, "12", "rmdir", 0, NOENT));
	assert_wrong(NAME("1.0", 1, "2", "mkdir", 4, OK) NAME("2.0", 3, "4", "unlink", 4, OK));
	assert_wrong(NAME("1.0", 1, "2", "create", 4, "0 100 0 0") NAME("2.0", 3, "4", "rmdir", 4, OK));
	assert_wrong(NAME("1.0", 1, "2", "mkdir", 0, OK) NAME("1.0", 3, "4", "create", 1, "0 100 0 0")
		     RENAME("2.0", 5, "6", 1, 0, 0));
}

static void rename_replaces_at_once(void **state)
{
	(void)state;
#define TWO NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("1.0", 3, "4", "create", 5, "0 101 0 0")
	assert_fine(TWO RENAME("1.0", 5, "9", 0, 5, 0) NAME("2.0", 10, "11", "stat", 0, NOENT)
		    NAME("2.0", 12, "13", "stat", 5, "0 100 1 0"));
	/* a moment without the name that is replaced, and one with both */
	assert_wrong(TWO RENAME("1.0", 5, "9", 0, 5, 0) NAME("2.0", 6, "7", "stat", 5, NOENT));
	assert_wrong(TWO RENAME("1.0", 5, "9", 0, 5, 0) NAME("2.0", 6, "7", "stat", 5, "0 100 1 0")
		     NAME("2.0", 8, "10", "stat", 0, "0 100 1 0"));
	assert_wrong(TWO RENAME("1.0", 5, "9", 0, 5, 0) RENAME("2.0", 10, "11", 0, 5, 0));
	assert_wrong(RENAME("2.0", 10, "11", 0, 5, 0));
	/* two of the same at once: the second may have found both names to be one file */
	assert_fine(TWO RENAME("1.0", 5, "9", 0, 5, 0) RENAME("2.0", 6, "11", 0, 5, 0));
}

static void links_are_counted(void **state)
{
	(void)state;
#define ONE NAME("1.0", 1, "2", "create", 0, "0 100 0 0")
	assert_fine(ONE LINK("2.0", 3, "4", 100, 5, 0) NAME("1.0", 5, "6", "stat", 0, "0 100 2 0")
		    NAME("3.0", 7, "8", "unlink", 0, OK) NAME("2.0", 9, "10", "stat", 5, "0 100 1 0")
		    NAME("3.0", 11, "12", "unlink", 5, OK) LINK("2.0", 13, "14", 100, 5, 2));
	assert_wrong(ONE LINK("2.0", 3, "4", 100, 5, 0) NAME("1.0", 5, "6", "stat", 0, "0 100 1 0"));
	assert_wrong(ONE NAME("3.0", 7, "8", "unlink", 0, OK) LINK("2.0", 13, "14", 100, 5, 0));
	assert_wrong(ONE LINK("2.0", 13, "14", 100, 5, 2));
	/* renaming one link over another does nothing */
	assert_fine(ONE LINK("2.0", 3, "4", 100, 5, 0) RENAME("1.0", 5, "6", 0, 5, 0)
		    NAME("2.0", 7, "8", "stat", 0, "0 100 2 0"));
	assert_wrong(ONE LINK("2.0", 3, "4", 100, 5, 0) RENAME("1.0", 5, "6", 0, 5, 0)
		     NAME("2.0", 7, "8", "stat", 0, NOENT));
}

static void a_listing_has_what_was_there_all_the_time(void **state)
{
	(void)state;
#define LIST(np, from, to, mask) np " " #from " " to " list 0 0 0 0: 0 " #mask " 0 0\n"
	assert_fine(TWO LIST("2.0", 5, "6", 1));
	assert_wrong(TWO LIST("2.0", 5, "6", 0));
	assert_wrong(TWO LIST("2.0", 5, "6", 3));
	/* what changes meanwhile may be seen in any mixture */
	assert_fine(TWO LIST("2.0", 5, "20", 0) RENAME("1.0", 6, "7", 0, 1, 0) RENAME("1.0", 8, "9", 1, 2, 0));
	assert_fine(TWO LIST("2.0", 5, "20", 7) RENAME("1.0", 6, "7", 0, 1, 0) RENAME("1.0", 8, "9", 1, 2, 0));
	assert_wrong(TWO LIST("2.0", 5, "20", 8) RENAME("1.0", 6, "7", 0, 1, 0) RENAME("1.0", 8, "9", 1, 2, 0));
}

static void a_lost_mount_takes_back_what_it_had_not_fsynced(void **state)
{
	(void)state;
#define CRASH "crash 1 100 110 0\n"
	assert_fine(CRASH W("1.0", 10, "20", 7) R("1.0", 30, "40", 7) R("2.0", 120, "130", 0));
	assert_fine(CRASH W("1.0", 10, "20", 7) R("2.0", 120, "130", 7));
	assert_fine(CRASH W("1.0", 10, "20", 7) W("1.0", 30, "40", 8) R("2.0", 120, "130", 7));
	/* not without a loss, nor of another mount, nor before it */
	assert_wrong(W("1.0", 10, "20", 7) R("2.0", 120, "130", 0));
	assert_wrong(CRASH W("3.0", 10, "20", 7) R("2.0", 120, "130", 0));
	assert_wrong(CRASH W("1.0", 10, "20", 7) R("2.0", 60, "70", 0));
	/* nor what was fsynced */
	assert_wrong(CRASH W("1.0", 10, "20", 7) SYNC("1.1", 30, "40") R("2.0", 120, "130", 0));
	assert_fine(CRASH SYNC("1.1", 5, "40") W("1.0", 10, "20", 7) R("2.0", 120, "130", 0));
	assert_fine(CRASH W("1.0", 10, "20", 7) SYNC("2.1", 30, "40") R("2.0", 120, "130", 0));
	assert_wrong(CRASH "1.0 10 20 store " CELL " 0 0 7: 0 0 0 0\n" R("2.0", 120, "130", 0));
	/* it stays lost */
	assert_wrong(CRASH W("1.0", 10, "20", 7) R("2.0", 120, "130", 0) R("2.0", 140, "150", 7));
}

static void what_another_node_has_seen_is_never_lost(void **state)
{
	(void)state;
	assert_wrong(CRASH W("1.0", 10, "20", 7) R("2.0", 30, "40", 7) R("2.0", 120, "130", 0));
	assert_wrong(CRASH NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("2.0", 3, "4", "stat", 0, "0 100 1 0")
		     NAME("3.0", 120, "130", "stat", 0, NOENT));
	/* that another name was looked at says nothing */
	assert_fine(CRASH NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("2.0", 3, "4", "create", 5, "0 101 0 0")
		    NAME("3.0", 120, "130", "stat", 0, NOENT) NAME("3.0", 140, "150", "stat", 5, "0 101 1 0"));
	assert_wrong(CRASH NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("2.0", 3, "4", "create", 0, EXISTS)
		     NAME("3.0", 120, "130", "stat", 0, NOENT));
}

static void the_lost_changes_are_the_last_ones(void **state)
{
	(void)state;
	/* of one object: the second kept, the first not */
	assert_wrong(CRASH NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("1.0", 3, "4", "create", 1, "0 101 0 0")
		     NAME("3.0", 120, "130", "stat", 0, NOENT) NAME("3.0", 140, "150", "stat", 1, "0 101 1 0"));
	assert_fine(CRASH NAME("1.0", 1, "2", "create", 0, "0 100 0 0") NAME("1.0", 3, "4", "create", 1, "0 101 0 0")
		    NAME("3.0", 120, "130", "stat", 1, NOENT) NAME("3.0", 140, "150", "stat", 0, "0 100 1 0"));
	/* of two objects */
	assert_fine(CRASH WS("1.0", 10, "20", 7) WM("1.0", 30, "40", 8) RS("2.0", 120, "130", 7) RM("2.0", 140, "150", 0));
	assert_wrong(CRASH WS("1.0", 10, "20", 7) WM("1.0", 30, "40", 8) RS("2.0", 120, "130", 0) RM("2.0", 140, "150", 8));
	assert_fine(CRASH WS("1.0", 10, "35", 7) WM("1.1", 30, "40", 8) RS("2.0", 120, "130", 0) RM("2.0", 140, "150", 8));
	/* file data is overwritten in place: later data may be there, earlier data may not be missing */
	assert_fine(CRASH WS("1.0", 10, "20", 7) W("1.0", 30, "40", 8) RS("2.0", 120, "130", 0) R("2.0", 140, "150", 8));
	assert_wrong(CRASH W("1.0", 10, "20", 8) WS("1.0", 30, "40", 7) RS("2.0", 120, "130", 7) R("2.0", 140, "150", 0));
	/* of two objects and two mounts */
	assert_fine(CRASH "crash 3 200 210 0\n" W("1.0", 10, "20", 7) W2("3.0", 30, "40", 8) R("2.0", 220, "230", 0)
		    R2("2.0", 240, "250", 8));
}

static void a_paused_machine_is_told_late(void **state)
{
	(void)state;
	/* it shows the old value after another has written, and its own write is lost */
#define PAUSED "crash 1 100 500 310\n"
	assert_fine(PAUSED W("2.0", 200, "210", 7) R("1.0", 305, "320", 0) W("1.1", 306, "325", 9) R("3.0", 600, "610", 7));
	assert_wrong(PAUSED W("2.0", 200, "210", 7) R("1.0", 315, "320", 0));
	assert_wrong("crash 1 100 500 0\n" W("2.0", 200, "210", 7) R("1.0", 305, "320", 0));
}

static size_t errors_of(const char *text, size_t *device_errors)
{
	struct lin_stats st;

	assert_false(check(text, &st));
	*device_errors = st.device_errors;
	return st.errors;
}

static void an_error_is_excused_where_devices_fail_and_only_there(void **state)
{
	size_t of_device;

	(void)state;
#define FAILING "failing 1 100 200\n"
#define FAILED(proc, start, end, err) proc " " #start " " #end " write " CELL " 0 0 7: " err " 0 0 0\n"
	assert_int_equal(errors_of(FAILING FAILED("1.0", 90, 110, "5"), &of_device), 0);
	assert_int_equal(of_device, 1);
	assert_int_equal(errors_of(FAILING FAILED("1.0", 190, 210, "5"), &of_device), 0);
	assert_int_equal(errors_of(FAILING FAILED("1.0", 201, 210, "5"), &of_device), 1);
	assert_int_equal(of_device, 0);
	assert_int_equal(errors_of(FAILING FAILED("1.0", 80, 99, "5"), &of_device), 1);
	assert_int_equal(errors_of(FAILING FAILED("2.0", 120, 130, "5"), &of_device), 1);
	assert_int_equal(errors_of(FAILING FAILED("1.0", 120, 130, "28"), &of_device), 1);
	/* such a write has happened, or not, and stays so */
	assert_fine(FAILING FAILED("1.0", 120, 130, "5") R("2.0", 140, "150", 7));
	assert_fine(FAILING FAILED("1.0", 120, 130, "5") R("2.0", 140, "150", 0));
	assert_wrong(FAILING FAILED("1.0", 120, 130, "5") R("2.0", 140, "150", 7) R("2.0", 160, "170", 0));
	/* an fsync that failed has stored nothing, and a failure takes nothing back that was answered */
	assert_fine(FAILING CRASH W("1.0", 10, "20", 7) "1.0 101 102 sync 6000 0 0 0: 5 0 0 0\n" R("2.0", 120, "130", 0));
	assert_wrong(FAILING W("1.0", 110, "120", 7) R("2.0", 140, "150", 0));
}

static void a_create_without_answer_may_be_the_file_that_is_there(void **state)
{
	(void)state;
	assert_fine(CRASH NAME("1.0", 90, "-", "create", 0, "0") NAME("3.0", 120, "130", "stat", 0, "0 100 1 0"));
	assert_fine(CRASH NAME("1.0", 90, "-", "create", 0, "0") NAME("3.0", 120, "130", "create", 0, EXISTS));
	assert_fine(CRASH NAME("1.0", 90, "-", "create", 0, "0") NAME("3.0", 120, "130", "create", 0, "0 101 0 0"));
	assert_wrong(NAME("3.0", 120, "130", "stat", 0, "0 100 1 0"));
}

static void a_wrong_line_is_named(void **state)
{
	static const char *const lines[] = {
		"R 5 0 0 0 0\n", "I 5 dance 0 0 0 0\n", "I 5 write 0 0 0 0\n", "I 5 create 1000 0 0 0\n",
		"I 5 create 0 9 0 0\n", "I 5 rename 0 1 1 0\n", "I 5 read 1000 0 0 0\nR 4 0 0 0 0\n",
	};
	char *said = NULL;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct lin_history h = { 0 };
		FILE *out = open_memstream(&said, &len);
		FILE *f = fmemopen((void *)lines[i], strlen(lines[i]), "r");

		assert_int_equal(lin_read_log(&h, f, 1, 0, 3, out), -EINVAL);
		fclose(f);
		fclose(out);
		assert_non_null(strstr(said, "process 3: line"));
		free(said);
		lin_history_fini(&h);
	}
}

static void the_log_of_a_killed_process_goes_on(void **state)
{
	static const char log[] = "I 5 write 1000 0 0 7\nI 8 read 1000 0 0 0\nR 9 0 7 0 0\nI 10 read 10";
	struct lin_history h = { 0 };
	FILE *f = fmemopen((void *)log, strlen(log), "r");

	(void)state;
	assert_int_equal(lin_read_log(&h, f, 1, 0, 3, stdout), 0);
	assert_int_equal(h.ops_nr, 2);
	assert_int_equal(h.ops[0].err, -1);
	assert_int_equal(h.ops[1].r[0], 7);
	fclose(f);
	lin_history_fini(&h);
}

/* Six processes on one register, by a machine that keeps the rules; then with one answer that breaks them. */
static void many_operations_take_seconds(void **state)
{
	struct lin_history h = { 0 };
	struct lin_stats st;
	uint64_t value = 0, seed = 1;
	FILE *out = fopen("/dev/null", "w");

	(void)state;
	h.ops = calloc(40000, sizeof(*h.ops));
	for (size_t i = 0; i < 40000; i++) {
		struct lin_op *op = &h.ops[i];

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		/* each takes effect at 100 * i, and runs while five others do */
		*op = (struct lin_op){ .node = (int)(i % 6), .proc = 0, .obj = LIN_OBJ_CELL,
				       .start = 1000 + 100 * i - (seed >> 40) % 290,
				       .end = 1000 + 100 * i + (seed >> 50) % 290 };
		op->kind = seed >> 33 & 1 ? LIN_WRITE : LIN_READ;
		op->v = i + 1;
		if (op->kind == LIN_WRITE)
			value = op->v;
		else
			op->r[0] = value;
	}
	h.ops_nr = 40000;
	assert_int_equal(lin_check(&h, &st, out), 0);
	assert_int_equal(st.ops, 40000);
	for (size_t i = 39000; i < 40000; i++) {
		if (h.ops[i].kind == LIN_READ) {
			h.ops[i].r[0] = 17;
			break;
		}
	}
	assert_int_equal(lin_check(&h, &st, out), 1);
	fclose(out);
	lin_history_fini(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_returns_the_last_value_written),
		cmocka_unit_test(at_the_same_time_any_order_goes_but_one_for_all),
		cmocka_unit_test(a_torn_read_is_refused),
		cmocka_unit_test(who_looks_during_a_change_of_the_same_node_is_held_to_nothing),
		cmocka_unit_test(without_an_answer_it_may_have_happened),
		cmocka_unit_test(appended_records_are_all_there_in_their_order),
		cmocka_unit_test(names_are_there_or_not),
		cmocka_unit_test(directories_are_not_files),
		cmocka_unit_test(rename_replaces_at_once),
		cmocka_unit_test(links_are_counted),
		cmocka_unit_test(a_listing_has_what_was_there_all_the_time),
		cmocka_unit_test(a_lost_mount_takes_back_what_it_had_not_fsynced),
		cmocka_unit_test(what_another_node_has_seen_is_never_lost),
		cmocka_unit_test(the_lost_changes_are_the_last_ones),
		cmocka_unit_test(a_paused_machine_is_told_late),
		cmocka_unit_test(an_error_is_excused_where_devices_fail_and_only_there),
		cmocka_unit_test(a_create_without_answer_may_be_the_file_that_is_there),
		cmocka_unit_test(a_wrong_line_is_named),
		cmocka_unit_test(the_log_of_a_killed_process_goes_on),
		cmocka_unit_test(many_operations_take_seconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
