#!/bin/bash
# The messages of the catalogue (runtime.md 17) that need two mounts - a lock is taken away, who uses an inode is
# asked, a commit is asked for - on three members: for each the server dies before it asks, so that the next one has to, and
# when the answer has come; the mount dies when it is asked, and before it answers. Programs see a pause and no
# error, and each node reads what the others have written.  Without SOAK=1 one point for each message.
# The rest of the catalogue: tests/system/46-catalogue.sh.
NODES="n1 n2 n3" SLOTS=3
. "$(dirname "$0")/../lib/cluster.sh"
. "$(dirname "$0")/../lib/node_loads.sh"
ORDER=/run/scoutfs-test/die
LOAD_THREADS=1

watch_orders() {
	local n
	for n in $NODES; do
		node "$n" sh -ec "mkdir -m 777 -p ${ORDER%/*}
			for u in scoutfs@ scoutfs-serverd@; do
				mkdir -p /etc/systemd/system/\$u.service.d
				printf '[Service]\nEnvironment=SCOUTFS_TEST_DIE=$ORDER\n' >/etc/systemd/system/\$u.service.d/test.conf
			done; systemctl daemon-reload" || return 1
	done
}
in_order() { timeout 100 "$RIG" exec "$@"; }
# One node writes where another does, reads what that one has written, and unlinks what it holds open.
turn=0
together() {
	local d=$MNT/work-$turn holder held rc=0
	in_order n1 sh -ec "mkdir $d; echo one >$d/one; echo held >$d/held" || return 1
	exec {held}< <(in_order n2 sh -ec "exec 3<$d/held; echo open; while [ -e $d/held ]; do sleep 0.05; done; cat <&3")
	holder=$!
	read -r -t 100 line <&"$held" && [ "$line" = open ] || { echo "the file is not opened"; rc=1; }
	in_order n2 sh -ec "[ \"\$(cat $d/one)\" = one ]; echo two >$d/two; sync $d" || rc=1
	in_order n3 sh -ec "[ \"\$(cat $d/one $d/two)\" = 'one
two' ]; echo three >$d/one" || rc=1
	in_order n1 sh -ec "[ \"\$(cat $d/one $d/two)\" = 'three
two' ]; rm $d/held; sync $d" || rc=1
	read -r -t 100 line <&"$held" && [ "$line" = held ] || { echo "what was unlinked is not read"; rc=1; }
	exec {held}<&-
	wait $holder || rc=1
	return $rc
}
taken() { ! node "$1" test -e $ORDER; }
# PROGRAM send|recv MESSAGE [NODE]: it dies there (a server: where it serves), while something makes that happen
die_at() {
	local n=${4:-} tries out
	[ -n "$n" ] || n=$(the_leader) || { fail "$1 $2 $3: somebody leads" "$(journals)"; return; }
	node "$n" sh -c "echo scoutfs-$1 $2 $3 >$ORDER.new; chmod 666 $ORDER.new; mv $ORDER.new $ORDER"
	for tries in $(seq 30); do
		turn=$((turn + 1))
		out=$(together 2>&1) || { fail "$1 dies at $2 $3: what is done on three nodes is right" "$out
$(journals)"; break; }
		wait_for 1 taken "$n" && { pass "$1 on $n dies at $2 $3 (turn $tries)"; return; }
	done
	node "$n" rm -f $ORDER
	fail "$1 on $n dies at $2 $3" "nothing made it happen in $tries turns
$(journals)"
}

checked "three nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf commit_interval_ms=200 log_merge_min_height=1 log_merge_min_trees=2 orphan_scan_delay_ms=200
checked "the services look for orders" watch_orders
checked "all start" cluster_start
loads_start n1 n3
if [ -z "${SOAK:-}" ]; then
	die_at serverd send lock_invalidate
	die_at fsd recv open_ino_map_query n2
	die_at serverd recv sync_log_trees_reply
else
	for message in lock_invalidate open_ino_map_query sync_log_trees; do
		die_at serverd send "$message"
		die_at serverd recv "${message}_reply"
		die_at fsd recv "$message" n2
		die_at fsd send "${message}_reply" n1
	done
fi
turn=$((turn + 1))
out=$(together 2>&1); is "after all of them everything is right: $out" $? 0
loads_stop n1 n3; rc=$?
is "no load has seen an error" $rc 0
checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
