#!/bin/bash
# 1,000,000 files in 1,000 directories and 200,000 in one: merges run, answers are right, memory stays
# within its bounds, and a mount after a kill takes as long as on an empty volume.  FILES= IN_ONE= for fewer.
. "$(dirname "$0")/../lib/common.sh"
FILES=${FILES:-1000000} IN_ONE=${IN_ONE:-200000} DIRS=1000
SAMPLE=2000

seconds() { local t=$EPOCHREALTIME; "$@" || return; awk -v a="$t" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}'; }
start_again() { inst_start >"$TMP/start.out" 2>&1 && stat "$MNT" >/dev/null; }
# Each daemon's memory; none may be above 512 MiB.
memory() {
	local s rss
	for s in fsd serverd blockd quorumd; do
		rss=$(awk '/^RssAnon/ {print int($2 / 1024)}' "/proc/$(inst_pid $s)/status")
		[ "$rss" -le 512 ] && pass "$1: $s: RssAnon $rss MiB" || fail "$1: $s: RssAnon $rss MiB, above 512"
	done
}
# Random files of DIR (of $2 files in $3 directories) hold their numbers.
sample() {
	local i bad=0
	for i in $(awk -v n="$2" -v k=$SAMPLE -v seed=$RANDOM 'BEGIN {srand(seed); for (; k; k--) print int(rand() * n)}'); do
		[ "$(<"$1/d$((i % $3))/f$i")" = "$i" ] || bad=$((bad + 1))
	done 2>>"$TMP/sample.err"
	is "$SAMPLE random files of $2 hold their numbers$4" "$bad" 0
}
walked() { "$CTL" walk-inodes data_seq 0 -1 "$MNT" | grep -vc '^#'; }

vol_make 64G 64G
inst_conf cache_size=128M pool_size=128M
ok "mount" inst_start
power_cut
empty=$(seconds start_again) && pass "an empty volume is mounted $empty s after a kill" || fail "mounted after a kill" "$(cat "$TMP/start.out")"
mkdir "$MNT/many" "$MNT/one"
t=$(seconds "$BUILD/tests/posix/mkfiles" "$MNT/many" "$FILES" $DIRS) && pass "$FILES files in $DIRS directories: $t s" ||
	fail "$FILES files in $DIRS directories"
# The directories outgrow the cache; that a new name is not there yet is known without reading them.
reads=$("$CTL" status -v "$CONF" | awk '$1 == "item_reads" {print $2}')
[ "${reads:-$FILES}" -le $((FILES / 20)) ] && pass "which took $reads reads of items" ||
	fail "making files in directories that outgrow the cache takes few reads" "$reads reads for $FILES files"
memory "after $FILES files"
t=$(seconds "$BUILD/tests/posix/mkfiles" "$MNT/one" "$IN_ONE" 1) && pass "$IN_ONE files in one directory: $t s" ||
	fail "$IN_ONE files in one directory"
ok "sync" sync "$MNT"
memory "after all"
sample "$MNT/many" "$FILES" $DIRS ""
sample "$MNT/one" "$IN_ONE" 1 ""
is "every file is in the index" "$(walked)" $((FILES + IN_ONE))
is "every name is listed" "$(find "$MNT" -type f | wc -l)" $((FILES + IN_ONE))
echo "# bytes per file: metadata $(($(du -B1 "$META" | cut -f1) / (FILES + IN_ONE))), data $(($(du -B1 "$DATA" | cut -f1) / (FILES + IN_ONE)))"
"$CTL" status "$CONF" | sed 's/^/# /'
power_cut
full=$(seconds start_again) && pass "mounted $full s after a kill" || fail "mounted after a kill" "$(cat "$TMP/start.out")"
awk -v e="$empty" -v f="$full" 'BEGIN {exit !(f <= e + 5)}' &&
	pass "which does not depend on the number of files (empty $empty s, full $full s)" ||
	fail "mounting a full volume takes no longer" "empty $empty s, full $full s"
sample "$MNT/many" "$FILES" $DIRS ", after the kill"
is "every file is in the index after the kill" "$(walked)" $((FILES + IN_ONE))
ok "unmount" inst_stop
t=$(seconds "$CTL" check "$META" "$DATA" 2>"$TMP/check.out") && pass "clean, said check after ${t##*$'\n'} s" ||
	fail "clean" "$(tail -n 20 "$TMP/check.out")"
tap_done
