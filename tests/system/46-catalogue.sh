#!/bin/bash
# The catalogue of conversations (runtime.md 17), generated from proto/messages.h: for every request its receiver
# dies when it has come and before anything is done about it, and again when its effect is there and the
# answer is not sent; its sender dies before it is sent, and when the answer has come and nobody has read it.
# The applications see a pause and no error, and nothing is done twice.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
ORDER=$TMP/die
export SCOUTFS_TEST_DIE=$ORDER
# Another mount or node, or a merge with one, has to be there for these: tests/sim and the unit tests of both ends.
NEEDS_OTHERS=" lock_invalidate open_ino_map_query sync_log_trees cluster_status cluster_mounts cluster_waits "
vol_make
inst_conf commit_interval_ms=200 log_merge_min_height=1 log_merge_min_trees=2
ok "mount" inst_start
mkdir "$MNT/load" "$MNT/work"
load_start "$BUILD/tests/posix/churn" "$MNT/load" 2

# "requests SENDER": each request of SENDER, and its answer.
requests() { sed -n "s/^\tM(\([a-z_]*\),[\t ]*[0-9]*, $1, \([a-z_]*\)).*/\1 \2/p" "$TOP/proto/messages.h"; }
taken() { [ ! -e "$ORDER" ]; }
turn=0
# Something that asks for message $1.
provoke() {
	local d=$MNT/work/$((turn += 1)) files=20
	case $1 in
	alloc_inodes*) files=1100 ;;	# more than a batch of inode numbers
	# the first commit under a leader is one that the mount has flushed
	commit_log_trees*|greeting*|lock_recover*|adv_recover*) kill -9 "$(inst_pid serverd)" ;;
	open_log_trees*) kill -9 "$(inst_pid fsd)" ;;
	adv_*) timeout 100 "$BUILD/tests/posix/advlock" brief "$MNT/work" 2>"$TMP/mkfiles.out" || return 1 ;;
	esac
	mkdir "$d" && "$BUILD/tests/posix/mkfiles" "$d" $files 1 >"$TMP/mkfiles.out" &&
		{ echo held >"$d/held"; exec {held}<"$d/held"; rm "$d/held"; exec {held}<&-; } &&
		df "$MNT" >/dev/null && sync "$d" && "$CTL" walk-inodes meta_seq 0 0 "$MNT" >/dev/null
}
# SERVICE send|recv MESSAGE: it dies there, while something makes that happen.
die_at() {
	local tries
	echo "scoutfs-$1 $2 $3" >"$ORDER.new"
	mv "$ORDER.new" "$ORDER"
	for tries in $(seq 40); do
		provoke "$3" || { fail "$1 dies at $2 $3: what was asked for is done" "$(cat "$TMP/mkfiles.out")"; return; }
		wait_for 1 taken && { pass "$1 dies at $2 $3"; return; }
	done
	rm -f "$ORDER"
	fail "$1 dies at $2 $3" "nothing made it happen in $tries rounds"
}
while read -r request answer; do
	case "$NEEDS_OTHERS farewell " in *" $request "*) continue ;; esac
	die_at serverd recv "$request"
	die_at serverd send "$answer"
	die_at fsd send "$request"
	die_at fsd recv "$answer"
done < <(requests "CLIENT, SERVER" | grep -v ' none$')
while read -r request answer; do
	case $NEEDS_OTHERS in *" $request "*) continue ;; esac
	die_at serverd send "$request"
	die_at serverd recv "$answer"
	die_at fsd recv "$request"
	die_at fsd send "$answer"
done < <(requests "SERVER, CLIENT" | grep -v ' none$')
load_stop; rc=$?
is "the load, whose every answer is checked, saw no error: ${load_last:-nothing said}" "$rc" 0
for point in "recv farewell" "send farewell_reply"; do
	echo "scoutfs-serverd $point" >"$ORDER"
	ok "unmounted although serverd dies at $point" umount "$MNT"
	gone() { [ ! -e "$TMP/run/run.pid" ]; }
	ok "everything has ended" wait_for 120 gone
	ok "serverd died at $point" taken
	check_clean "clean after serverd died at $point"
	ok "mount" inst_start
done
echo "scoutfs-serverd recv farewell" >"$ORDER"
began=$SECONDS
ok "stopped although serverd dies at recv farewell" inst_stop
ok "serverd died then" taken
ok "and is started again for that (stopped after $((SECONDS - began)) s)" test $((SECONDS - began)) -lt 60
check_clean "clean after every request of the catalogue"
tap_done
