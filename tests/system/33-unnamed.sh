#!/bin/bash
# Files without a name (O_TMPFILE): written and then linked while fsd, serverd and blockd are killed, no call fails
# and what was linked is whole; what has no name when the node loses power is gone after the next start, with its space.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
U=$BUILD/tests/posix/unnamed
NR=${SOAK:+2000}
vol_make
inst_conf orphan_scan_delay_ms=500
ok "mount" inst_start

mkdir "$MNT/published"
timeout 300 "$U" publish "$MNT/published" "${NR:-150}" 4 >"$TMP/published" 2>&1 & load=$!
wait_for 60 grep -q going "$TMP/published"
kills=0
for service in fsd fsd serverd fsd blockd fsd; do
	no_process $load && break
	old=$(inst_pid $service)
	kill -9 "$old"
	wait_for 60 restarted $service "$old" || fail "$service is started again"
	wait_for 60 stat "$MNT/published" || fail "$service: the mount is there again"
	kills=$((kills + 1))
done
wait $load; rc=$?
is "what is linked is there, whole, and nothing else ($kills kills)" "$rc $(grep -v going "$TMP/published")" "0 "
inodes() { "$CTL" walk-inodes meta_seq 0 -1 -p "$MNT" | grep -vc '^#'; }
only_named() { sync "$MNT"; [ "$(inodes)" = "$(find "$MNT" | wc -l)" ]; }
ok "what was let go is deleted" wait_for 300 only_named

load_start "$U" hold "$MNT" 40
IFS= read -r -t 120 -u "$load_from" line
is "forty files are open and on the devices" "$line" ready
is "... in the index, and in no directory" "$(($(inodes) - $(find "$MNT" | wc -l)))" 40
load_kill
ok "... and gone when their program ends" wait_for 300 only_named
load_start "$U" hold "$MNT" 40
IFS= read -r -t 120 -u "$load_from" line
is "forty more" "$line" ready
power_cut
load_kill
check_clean "clean after the power cut, before anybody has looked"
ok "mount again" inst_start
ok "... and nothing is left of them" wait_for 300 only_named
ok "unmount" inst_stop
check_clean "clean"
tap_done
