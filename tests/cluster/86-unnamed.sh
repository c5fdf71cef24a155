#!/bin/bash
# O_TMPFILE and RENAME_EXCHANGE between two nodes (tests/posix/unnamed.c): a file without a name is spared when the
# other node looks for orphans, and cannot come back once the other has removed it; what is exchanged is seen at once.
NODES="n1 n2" SLOTS=1
. "$(dirname "$0")/../lib/cluster.sh"
. "$(dirname "$0")/../lib/load.sh"

checked "two nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf
checked "both start" cluster_start
for n in $NODES; do ok "$n is healthy" wait_for 60 node "$n" scoutfsctl status mnt; done
ok "a directory" node n1 mkdir $MNT/un

has_scanned() { [ "$(node n2 scoutfsctl status -v mnt | awk '$1 == "orphan_scan" {print $2}')" -gt 0 ]; }
load_start "$BUILD/tests/posix/unnamed" across "$(outside n1)/un" "$(outside n2)/un"
IFS= read -r -t 120 -u "$load_from" line
is "exchanges are seen by the other node, and a file without a name is held" "$line" held
# a mount looks for orphans when it begins
checked "the other node leaves" cluster_stop n2
checked "and comes back" cluster_start n2
ok "and looks for orphans" wait_for 90 has_scanned
load_say go
said=$(timeout 120 cat <&"$load_from")
wait "$load_pid"
is "it is there all the same, gets a name, and does not come back when that was removed" "$? $said" "0 "
is "nothing is left" "$(node n2 ls $MNT/un)" ""
checked "both stop" cluster_stop
cluster_check "check: clean"
tap_done
