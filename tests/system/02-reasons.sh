#!/bin/bash
# Whoever sees only the end of what tests/run says sees why something failed: for each failure its line and, before what the
# services said all the time, what was got instead of what was wanted, or a program's last words, in five short lines.
. "$(dirname "$0")/../lib/common.sh"
F=$TMP/fake LOGS=$TMP/logs
mkdir -p "$F"

# fake NAME: a test whose script is the standard input
fake() { { echo '. "$TOP/tests/lib/common.sh"'; cat; } >"$F/$1"; }
# runs NAME [KIND]: what tests/run says after the log that it shows
runs() { TMPDIR=$TMP timeout 120 "$TOP/tests/run" -l "$LOGS" "${2:-host}:$F/$1" 2>&1 | sed '1,/^----$/d' >"$TMP/end"; }
# says TEXT PATTERN...: lines with these, in this order
says() {
	local t=$1 p at=0 line
	shift
	for p; do
		line=$(grep -nE -- "$p" "$TMP/end" | cut -d: -f1 | awk -v at=$at '$1 > at' | head -n 1)
		[ -n "$line" ] || { fail "$t" "no '$p' in:
$(sed 's/^/| /' "$TMP/end")"; return; }
		at=$line
	done
	pass "$t"
}

fake values <<'END'
is "a list" "$(seq 1000)" "1"
fail "a load" "status 5: load : churn: /mnt/x: Input/output error
--- n1
$(seq 300)
fsd: cannot reach the leader
$(seq 300)"
pass "something"
for i in 1 2 3; do echo "# t$i: it goes on"; done
echo "# t4: reads back other bytes: error"
is "no error" 1 0
pass "something"
tap_done
END
runs values
says "what was got and wanted, what a program and the services said" "^FAILED  host values, exit status 1: .*/host-values.log$" \
	"not ok 1 - a list$" "# got '1 .n 2 .* 1000', wanted '1'$" \
	"not ok 2 - a load$" "# status 5: load : churn: /mnt/x: Input/output error$" "# fsd: cannot reach the leader$" \
	"not ok 4 - no error$" "# t4: reads back other bytes: error$" "# got '1', wanted '0'$" "^2 passed, 3 failed$"
is "in short lines" "$(awk 'length > 210' "$TMP/end")" ""
is "and in few: one for the program, five for a failure, and two that end it" "$(awk 'END {print NR <= 1 + 3 * 5 + 2}' "$TMP/end")" 1

fake many <<'END'
for i in 1 2 3 4 5 6 7; do is "number $i" a b; done
tap_done
END
runs many
says "of many failures the first" "not ok 1 - number 1" "got 'a', wanted 'b'" "not ok 3" "\.\.\. and 4 more$" "^0 passed, 7 failed$"

fake dies <<'END'
pass "begins"
echo "dies: services/x.c:12: f: Assertion \`a == b' failed." >&2
seq 30
kill -9 $$
END
runs dies
says "last words of what died" "^FAILED  host dies, exit status 137" "Assertion .a == b. failed" "^1 passed, 1 failed$"

fake silent </dev/null
runs silent
says "that a test has said nothing" "^FAILED  host silent, exit status 0" "said no result" "^0 passed, 1 failed$"

# ---- services that are built with sanitizers: a script that sees nothing of what became of them has failed
cat >"$TMP/faulty.c" <<'END'
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	volatile int big = 0x7fffffff, at = 8;
	char *volatile p = malloc(8);

	if (strcmp(argv[1], "overrun") == 0)
		p[at] = 1;
	if (strcmp(argv[1], "overflow") == 0)
		big += argc;
	assert(strcmp(argv[1], "assertion") != 0);
	if (strcmp(argv[1], "leak") != 0)
		free(p);
	p = NULL;
	return 0;
}
END
mkdir "$TMP/b-asan"
# shellcheck disable=SC2046
ok "a program with faults, as the services are built for this" \
	"${CC:-cc}" -g $(sed -n 's/^asan_flags = //p' "$TOP/tests/tests.mk") -o "$TMP/b-asan/faulty" "$TMP/faulty.c"
fake faulty <<'END'
for how in none overrun overflow leak assertion; do "$BUILD/faulty" $how >/dev/null 2>&1; done
pass "the script sees nothing"
tap_done
END
BUILD=$TMP/b runs faulty asan
for what in heap-buffer-overflow "signed integer overflow" "detected memory leaks" "AddressSanitizer: ABRT"; do
	ok "a sanitizer's report fails its test: $what" grep -E "^not ok - a sanitizer's report: .*$what" "$LOGS/asan-faulty.log"
done
says "... and is one failure" "^FAILED  asan faulty, exit status 0" "not ok - a sanitizer's report: " "^1 passed, 4 failed$"

cat >"$TMP/racy.c" <<'END'
#include <pthread.h>
#include <stddef.h>
static long count;
static void *add(void *arg)
{
	pthread_mutex_t *lock = arg;

	for (int i = 0; i < 1000; i++) {
		if (lock)
			pthread_mutex_lock(lock);
		count++;
		if (lock)
			pthread_mutex_unlock(lock);
	}
	return NULL;
}
int main(int argc, char **argv)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	void *arg = argc > 1 ? NULL : &lock;
	pthread_t other;

	(void)argv;
	if (pthread_create(&other, NULL, add, arg) != 0)
		return 1;
	add(arg);
	return pthread_join(other, NULL);
}
END
mkdir "$TMP/b-tsan"
# shellcheck disable=SC2046
ok "a program with a race" "${CC:-cc}" -g -pthread $(sed -n 's/^tsan_flags = //p' "$TOP/tests/tests.mk") -o "$TMP/b-tsan/racy" "$TMP/racy.c"
fake racy <<'END'
"$BUILD/racy" || fail "with a lock it ends well"
"$BUILD/racy" without >/dev/null 2>&1
pass "the script sees nothing"
tap_done
END
BUILD=$TMP/b runs racy tsan
says "a race fails its test, and where there is none nothing is said" "^FAILED  tsan racy, exit status 0" "not ok - a sanitizer's report: .*data race" \
	"SUMMARY: ThreadSanitizer: data race" "^1 passed, 1 failed$"
tap_done
