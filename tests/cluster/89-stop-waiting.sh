#!/bin/bash
# A mount that no leader lets in is stopped at once, and says what goes with it: one that has lost its leader and then its
# process, one whose node's key is not allowed, one that finds no leader.  One that is mounted and has lost its leader waits
# for the next one as long as that may take, and from the stop on when something is not committed, and no longer.  They are mounted again when there is a leader.
NODES="n1 n2" SLOTS=1
. "$(dirname "$0")/../lib/cluster.sh"
PATIENCE=12	# heartbeat_timeout_ms + lease_ms + longest_io_ms + 5 s
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
checked "configured" cluster_conf lease_ms=3000 longest_io_ms=1000 heartbeat_timeout_ms=3000 tcp_keepalive_timeout_ms=5000 commit_interval_ms=60000
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

# --- mounted, and its leader is away for longer than an election may take; it comes back when the mount is stopped
count() { node n2 journalctl --no-pager -q -o cat -u scoutfs@mnt.service | grep -cE -- "$1"; }
counts() { [ "$(count "$1")" = "$2" ]; }
LEFT="no leader for [0-9]+ s: [0-9]+ changes of [0-9]+ inodes and [0-9]+ bytes of file data( and [0-9]+ writes of mapped pages)? are not committed"
WAITS="asked to stop, and there is no leader: one is waited for"
has_lost() { counts "this mount's lease has run out" "$1"; }
before=$(count "this mount's lease has run out")
ok "mounted, it has something that is not stored" node n2 sh -c "echo late >$MNT/late"
"$RIG" cut n1
ok "its lease runs out" wait_for 60 has_lost $((before + 1))
sleep $PATIENCE
timeout 100 "$RIG" exec n2 systemctl stop scoutfs@mnt & stop=$!
ok "stopped when nobody can say when there will be a leader, it says that it waits" wait_for 20 counts "$WAITS" 1
ok "and the kernel lets go" wait_for 20 says n2 "unmounting\|storing the last commit"
# ten looks of fsd, at each of which it would end if it counted from the end of the lease
nok "it does not end then" wait_for 2 ended n2
"$RIG" heal
wait $stop
is "it is stopped" $? 0
wait_for 60 ended n2 || fail "all its services end" "$(journals)"
is "its unit has not failed" "$(property n2 fsd Result)" success
is "with the leader that came back all is committed" "$(node n1 cat $MNT/late)" late
is "and nothing else is said" "$(count "$LEFT")" 0
checked "it mounts again" cluster_start n2

# --- mounted, and its leader goes for good: a program has a file open, and something is not stored
node n2 sh -c "echo again >$MNT/kept && sync $MNT/kept && echo lost >$MNT/lost; exec 9<>$MNT/kept; touch /run/has-it-open; exec sleep 300" & user=$!
ok "mounted, it has something that is stored, and something that is not; a program has a file open" wait_for 60 node n2 test -e /run/has-it-open
"$RIG" cut n1
stops n2 "in use, without a leader"
kill $user 2>/dev/null; wait $user 2>/dev/null
ok "it says how much is not committed" wait_for 60 counts "$LEFT" 1
ok "and that nobody knows what programs had in mappings" counts "programs that used it were cut off: what they had stored to mappings" 1
is "not that all was committed" "$(count "all (else )?is committed, and")" 0
is "and its unit has failed for that" "$(property n2 fsd Result)" exit-code
"$RIG" heal
checked "with the leader it mounts again" cluster_start n2
is "what was stored is there again" "$(node n2 cat $MNT/kept)" again
nok "what was not is not again" node n1 test -e $MNT/lost

# --- the same with nothing that is not stored: the one without and the other with a program that has a file open
without_loss() {
	local user="" what="$1" said="$2" result="$3" before
	before=$(count "$said")
	[ -z "$4" ] || { node n2 sh -c "exec 9$4$MNT/kept; touch /run/has-it-open.$5; exec sleep 300" & user=$!; }
	[ -z "$4" ] || ok "a program has a file open" wait_for 60 node n2 test -e /run/has-it-open."$5"
	node n2 sync $MNT/kept
	"$RIG" cut n1
	stops n2 "$what"
	[ -z "$user" ] || { kill $user 2>/dev/null; wait $user 2>/dev/null; }
	ok "$what: it says what that means" wait_for 60 counts "$said" $((before + 1))
	is "$what: nothing is lost that is known" "$(count "$LEFT")" 1
	is "$what: how its unit ends" "$(property n2 fsd Result)" "$result"
	"$RIG" heal
	checked "$what: and it mounts once more" cluster_start n2
}
if [ -n "${SOAK:-}" ]; then
	without_loss "without a leader, all committed" "this mount ends without a farewell; all is committed" success ""
	without_loss "in use, all committed" "this mount ends without a farewell; all else is committed" exit-code "<>" 1
	without_loss "in use by who only reads, all committed" "this mount ends without a farewell; all is committed" success "<" 2
fi

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
