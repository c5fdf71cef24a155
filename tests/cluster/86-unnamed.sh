#!/bin/bash
# O_TMPFILE and RENAME_EXCHANGE between two nodes (tests/posix/unnamed.c): a file without a name is spared when the
# other node looks for orphans, and cannot come back once the other has removed it; what is exchanged is seen at once.
# And who removes files all the time keeps its locks while the other looks.
NODES="n1 n2" SLOTS=1
. "$(dirname "$0")/../lib/cluster.sh"
. "$(dirname "$0")/../lib/load.sh"

checked "two nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf orphan_scan_delay_ms=3000
checked "both start" cluster_start
for n in $NODES; do ok "$n is healthy" wait_for 60 node "$n" scoutfsctl status mnt; done
ok "a directory" node n1 mkdir $MNT/un

stat_of_n2() { node n2 scoutfsctl status -v mnt | awk -v f="$1" '$1 == f {print $2}'; }
has_found() { [ "$(stat_of_n2 orphan_scan_omap_set)" -gt 0 ]; }
load_start "$BUILD/tests/posix/unnamed" across "$(outside n1)/un" "$(outside n2)/un"
IFS= read -r -t 120 -u "$load_from" line
is "exchanges are seen by the other node, and a file without a name is held" "$line" held
# a mount looks for orphans when it begins
checked "the other node leaves" cluster_stop n2
checked "and comes back" cluster_start n2
ok "and finds the orphan, and that it is in use" wait_for 90 has_found
load_say go
said=$(timeout 120 cat <&"$load_from")
wait "$load_pid"
is "it is there all the same, gets a name, and does not come back when that was removed" "$? $said" "0 "
is "nothing is left" "$(node n2 ls $MNT/un)" ""
has_left() { [ "$(stat_of_n2 orphan_scan_recent)" -ge "$1" ]; }
mkfifo "$TMP/end"
"$BUILD/tests/bench/pulse" -s "$(outside n1)/un" 300 <"$TMP/end" >"$TMP/pulse" 2>&1 &
pulse=$!
exec {end}>"$TMP/end"
# what was there before is over then
ok "the other node sees what this one deletes" wait_for 120 has_left $(($(stat_of_n2 orphan_scan_recent) + 3))
tried=$(stat_of_n2 orphan_scan_attempts) left=$(stat_of_n2 orphan_scan_recent)
ok "and leaves it alone" wait_for 120 has_left $((left + 6))
tried=$(($(stat_of_n2 orphan_scan_attempts) - tried)) left=$(($(stat_of_n2 orphan_scan_recent) - left))
echo "# of $((tried + left)) orphans of a node at work the other tried to delete $tried"
ok "it does not take its locks for them" [ "$tried" -le "$left" ]
exec {end}>&-
wait $pulse
is "a program that makes and removes files has no error" "$? $(sed 's/.*errors/errors/' "$TMP/pulse")" "0 errors 0"
checked "both stop" cluster_stop
cluster_check "check: clean"
tap_done
