#!/bin/bash
# A node unmounts while another takes its locks: every unmount ends in good order, whatever of it a revoke meets.
NODES="n1 n2" SLOTS=1
. "$(dirname "$0")/../lib/cluster.sh"

DIRS=${DIRS:-${SOAK:+25}} ROUNDS=${ROUNDS:-${SOAK:+20}}
DIRS=${DIRS:-12} ROUNDS=${ROUNDS:-3}
checked "two nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf
checked "both start" cluster_start
for n in $NODES; do ok "$n is healthy" wait_for 60 node "$n" scoutfsctl status mnt; done
# each directory with its files fills an inode group, which has a lock of its own
ok "files" node n1 sh -c "for d in \$(seq $DIRS); do mkdir $MNT/\$d && (cd $MNT/\$d && seq 1100 | xargs touch) || exit 1; done; sync $MNT"
ends=0
for round in $(seq "$ROUNDS"); do
	node n2 find $MNT -type f -size +1 >/dev/null	# its kernel knows all of them
	# a lock after the other, each with a thousand inodes that the kernel of n2 is told of, before, while and after it unmounts
	node n1 sh -c "for d in \$(seq $DIRS); do touch $MNT/\$d/$round || exit 1; done" &
	touches=$!
	cluster_stop n2
	[ "$(property n2 fsd Result)" = success ] && ends=$((ends + 1))
	wait $touches || fail "round $round: the other node has no error"
	cluster_start n2 || fail "round $round: it comes back"
done
is "every unmount ends in good order" "$ends" "$ROUNDS"
nok "and no service has died" said n2 'dumped core|status=11|status=6|Assertion|Main process exited, code=killed'
checked "both stop" cluster_stop
cluster_check "check: clean"
tap_done
