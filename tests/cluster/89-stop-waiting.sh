#!/bin/bash
# A mount that no leader lets in is stopped at once, and says what goes with it: one that has lost its leader and then its
# process, one whose node's key is not allowed, one that finds no leader.  One that is mounted and has lost its leader waits
# for the next one as long as that may take, and no longer.  They are mounted again when there is a leader.
NODES="n1 n2" SLOTS=1
. "$(dirname "$0")/../lib/cluster.sh"
healthy() { node "$1" scoutfsctl status mnt; }
all_healthy() { healthy n1 && healthy n2; }
says() { property "$1" fsd StatusText | grep -q -- "$2"; }
said() { node "$1" journalctl --no-pager -q -o cat -u 'scoutfs*@mnt.service' | grep -qE -- "$2"; }
runs_again() { local p; p=$(node_pid "$1" fsd); [ "${p:-0}" -gt 1 ] && [ "$p" != "$2" ]; }
# stops NODE WHAT: within a time that is a fraction of systemd's
stops() {
	local t0=$SECONDS
	checked "$2: it is stopped" timeout 100 "$RIG" exec "$1" systemctl stop scoutfs@mnt
	ok "$2: soon ($((SECONDS - t0)) s)" test $((SECONDS - t0)) -lt 60
	wait_for 60 ended "$1" || fail "$2: all its services end" "$(journals)"
}

checked "two nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf lease_ms=3000 longest_io_ms=1000 heartbeat_timeout_ms=3000 commit_interval_ms=60000
checked "both start" cluster_start
ok "both are healthy" wait_for 60 all_healthy
ok "n2 has something that is stored, and something that is not" node n2 sh -c "echo kept >$MNT/kept && sync $MNT/kept && echo lost >$MNT/lost"

"$RIG" cut n1
pid=$(node_pid n2 fsd)
node n2 kill -9 "$pid"
ok "without a leader: another process of n2 waits" wait_for 60 runs_again n2 "$pid"
ok "and says so" wait_for 60 says n2 "waiting for a leader"
stops n2 "without a leader, with state of before"
ok "it says what goes with it" wait_for 60 said n2 "no leader has let this mount in: [0-9]+ changes of [0-9]+ inodes"
node n2 systemctl start --no-block scoutfs@mnt
ok "a new one waits" wait_for 60 says n2 "waiting for a leader"
stops n2 "without a leader"
"$RIG" heal
checked "with the leader it mounts" cluster_start n2
is "what was stored is there" "$(node n2 cat $MNT/kept)" kept
nok "what was not is not" node n1 test -e $MNT/lost

# --- mounted, and its leader goes for good: a program waits in a file, and something is not stored
count() { node "$1" journalctl --no-pager -q -o cat -u scoutfs@mnt.service | grep -cE -- "$2"; }
counts() { [ "$(count n2 "$LEFT")" = "$1" ]; }
LEFT="no leader for [0-9]+ s: [0-9]+ changes of [0-9]+ inodes and [0-9]+ bytes of file data are not committed"
ok "mounted, it has something that is stored, and something that is not" node n2 sh -c "echo again >$MNT/kept && sync $MNT/kept && echo lost >$MNT/lost"
"$RIG" cut n1
stops n2 "mounted, without a leader"
ok "it says how much is not committed" wait_for 60 counts 1
is "and its unit has failed for that" "$(property n2 fsd Result)" exit-code
"$RIG" heal
checked "with the leader it mounts again" cluster_start n2
is "what was stored is there again" "$(node n2 cat $MNT/kept)" again
nok "what was not is not again" node n1 test -e $MNT/lost

# --- the same with nothing that is not stored, and a program that waits
node n2 sh -c "sync $MNT; exec 9<$MNT/kept; touch /run/has-it-open; exec sleep 300" & user=$!
ok "a program has a file open" wait_for 60 node n2 test -e /run/has-it-open
"$RIG" cut n1
stops n2 "in use, without a leader"
kill $user 2>/dev/null; wait $user 2>/dev/null
ok "which is said" wait_for 60 said n2 "no leader for [0-9]+ s: this mount ends without a farewell; all is committed"
ok "and nothing more is lost" counts 1
"$RIG" heal
checked "and it mounts once more" cluster_start n2

stops n2 "mounted"
node n2 scoutfsctl keygen -f >/dev/null 2>&1
node n2 systemctl start --no-block scoutfs@mnt
ok "with a key that nobody knows it waits, and says why" wait_for 60 says n2 "does not allow this node's key"
stops n2 "with a key that nobody knows"
cluster_list n1 n2 >"$TMP/nodes.allow"
for n in n1 n2; do node $n sh -c 'cat >/etc/scoutfs/nodes.allow' <"$TMP/nodes.allow"; done
node n1 systemctl reload scoutfs@mnt
checked "with one that is allowed it mounts" cluster_start n2

checked "both stop" cluster_stop
cluster_check "check: clean"
tap_done
