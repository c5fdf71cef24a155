#!/bin/bash
# Three nodes start at the same time, elect one leader, and see one another's files; one after the other leaves and
# comes back, the leader too, while the rest goes on.
. "$(dirname "$0")/../lib/cluster.sh"
echoes() { node "$2" sh -c "echo $1 >$MNT/$1" && node "$3" grep -qx "$1" "$MNT/$1"; }

checked "three nodes boot" cluster_up
checked "mkfs with three quorum slots" cluster_mkfs
checked "configured" cluster_conf
checked "all start at the same time" cluster_start
for n in $NODES; do ok "$n is healthy" wait_for 60 node "$n" scoutfsctl status mnt; done
ok "one of them leads" wait_for 60 one_leads
checked "what n1 writes n2 reads" echoes one n1 n2
checked "what n2 writes n3 reads" echoes two n2 n3
checked "what n3 writes n1 reads" echoes three n3 n1
for n in $NODES; do
	rest=${NODES/$n/}
	set -- $rest
	checked "$n leaves" cluster_stop "$n"
	checked "the others go on" echoes "without-$n" "$1" "$2"
	checked "$n comes back" cluster_start "$n"
	ok "and sees what was written without it" node "$n" grep -qx "without-$n" "$MNT/without-$n"
done
case $BUILD in *-asan)
	for d in $DAEMONS; do checked "a report of $d in a node would fail this test" san_hears n2 "$d"; done
	ok "and what was ended for that is back" wait_for 120 all_healthy ;;
esac
checked "all stop at the same time" cluster_stop
cluster_check "check: clean"
tap_done
