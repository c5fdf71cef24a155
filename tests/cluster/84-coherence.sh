#!/bin/bash
# What one node has done the next call on any other shows, whatever it is (tests/posix/coherence/); and taking a lock
# away waits for nobody who waits for it: writing back, mapped pages, a pool that is full, programs that are stopped,
# pages and directories that the kernel has locked (tests/posix/storm.c).  With SOAK= longer.
. "$(dirname "$0")/../lib/cluster.sh"
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 200 || echo 6)}
RECORDS=${RECORDS:-$([ -n "${SOAK:-}" ] && echo 600 || echo 30)}
STORM=${STORM:-$([ -n "${SOAK:-}" ] && echo 300 || echo 8)}

checked "three nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured, with little memory" cluster_conf pool_size=8M cache_size=16M
checked "all start" cluster_start
for n in $NODES; do ok "$n is healthy" wait_for 60 node "$n" scoutfsctl status mnt; done
ok "a directory" node n1 mkdir $MNT/co
dirs=(); for n in $NODES; do dirs+=("$(outside "$n")/co"); done

verdicts $((120 + ROUNDS * 20)) "$BUILD/tests/posix/coherence" -n "$ROUNDS" -r "$RECORDS" "${dirs[@]}"
is "nothing is left of it" "$(node n2 ls $MNT/co)" ""
verdicts $((180 + STORM)) "$BUILD/tests/posix/storm" "$STORM" "${dirs[@]}"
is "nothing is left of it" "$(node n3 ls $MNT/co)" ""
echo "# revokes that went on before the kernel had dropped all pages: $(for n in $NODES; do
	node "$n" scoutfsctl status -v mnt | awk '/lock_notify_left/ {print $2}'; done | paste -sd' ')"

checked "all stop at the same time" cluster_stop
cluster_check "check: clean"
tap_done
