#!/bin/bash
# Fencing (design.md D6): a node that is cut off, stopped or without power holds the others up for its lease, the drift of
# clocks and the longest write, and no longer, whether it leads or not.  Its kernel shows nothing old afterwards, its
# programs get errors, what it had not committed is said to be lost, and its mount is started again without a reboot.
#   SOAK=1: with the default times, and each fault against leader and follower
. "$(dirname "$0")/../lib/cluster.sh"
LEASE=5000 IO=2000 BEAT=6000

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }
writes() { node "$1" sh -c "echo $2 >$MNT/$3 && sync $MNT/$3"; }
# goes_on NODE WORD FILE FAULT: it can write, and how long that took
goes_on() { local t; t=$(now); checked "$4: another writes what it held" timeout 90 "$RIG" exec "$1" sh -c "echo $2 >$MNT/$3 && sync $MNT/$3"; echo "# $4: $(since "$t") s"; }
# watch NODE FILE: keep it open and mapped there, and note what is seen
watch() {
	rm -f "$RIG_DIR/shared/seen" "$RIG_DIR/shared/seen.stop"
	node "$1" /shared/bin/watchfile "$MNT/$2" /shared/seen 2>/dev/null & watcher=$!
	if wait_for 60 grep -q "map $3\$" "$RIG_DIR/shared/seen"; then pass "it is open and mapped there"; else fail "it is open and mapped there"; fi
}
# stale WORD TIME: what was still seen after that time
stale() { awk -v w="$1" -v t="$2" '$1 > t && $3 == w' "$RIG_DIR/shared/seen" | head -3; }
later() { awk -v t="$(now)" -v s="$1" 'BEGIN { printf "%.3f", t + s }'; }
# The dead mount gives errors, the watcher among others; or it is killed, for it has a file of it mapped.
sees_errors() { grep -q "read errno" "$RIG_DIR/shared/seen" || ! kill -0 "$watcher" 2>/dev/null; }
watch_ends() { touch "$RIG_DIR/shared/seen.stop"; kill -9 "$watcher" 2>/dev/null; wait "$watcher" 2>/dev/null; return 0; }
rid_of() { node "$1" cat /run/scoutfs/mnt/rid; }
# again NODE OLD_RID TEXT: what an operator does
again() {
	checked "$3: its mount starts again without a reboot" timeout 150 "$RIG" exec "$1" systemctl start scoutfs@mnt
	ok "$3: and is healthy" wait_for 60 healthy "$1"
	nok "$3: with another rid" test "$(rid_of "$1")" = "$2"
}

[ -n "${SOAK:-}" ] && LEASE=10000 IO=2000 BEAT=10000
checked "three nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf lease_ms=$LEASE longest_io_ms=$IO heartbeat_timeout_ms=$BEAT commit_interval_ms=60000
checked "all start" cluster_start
ok "all are healthy" wait_for 60 all_healthy

# --- a follower is cut off, with things in hand that it has not committed
somebody_leads
old=$(rid_of "$V")
ok "a file that all know" writes "$V" old cut
watch "$V" cut old
ok "and something that is never committed" node "$V" sh -c "mkdir $MNT/lost && echo gone >$MNT/lost/file"
"$RIG" cut "$V"
goes_on "$O" new cut "a node is cut off"
t=$(later 1)	# a busy host's threads are late; the lease, drift and longest write leave 2 s
ok "the cut off node says whom it waits for" wait_for 60 sh -c "timeout 60 '$RIG' exec $V scoutfsctl status mnt | grep -E 'waits for +(a lease from the leader|the leader)'"
# A program that waits for a cluster that cannot be reached dies when it is killed.
node "$V" timeout -s KILL 2 cat "$MNT/cut" >/dev/null 2>&1; is "who waits for an unreachable cluster can be killed" $? 137
"$RIG" heal
ok "it is told that it was fenced" wait_for 60 said "$V" "was fenced by the leader"
ok "what was lost is said" wait_for 60 said "$V" "lost, for it was not committed: [0-9]+ changes of [0-9]+ inodes and [0-9]+ bytes"
ok "its programs get errors" wait_for 60 sees_errors
is "nothing old was seen after others had changed it" "$(stale old "$t")" ""
watch_ends
ok "its services end" wait_for 60 is_down "$V"
nok "nobody writes into the directory under the dead mount" node "$V" sh -c "echo x >$MNT/under"
again "$V" "$old" "the node that was cut off"
is "it sees what others wrote" "$(node "$V" cat "$MNT/cut")" new
nok "what was not committed is not there" node "$O" test -e "$MNT/lost"

# --- a mount's process is stopped: its node is well, and its kernel has pages of it
somebody_leads
ok "a file that all know" writes "$V" old stopped
watch "$V" stopped old
pid=$(node_pid "$V" fsd)
node "$V" kill -STOP "$pid"
goes_on "$O" new stopped "an fsd is stopped"
t=$(later 5)	# blockd has to find and kill who maps it
ok "blockd cuts the mount off" wait_for 60 said "$V" "no fsd gives up what the kernel remembers"
ok "its programs get errors" wait_for 60 sees_errors
is "nothing old was seen after others had changed it" "$(stale old "$t")" ""
watch_ends
old=$(rid_of "$V")
node "$V" kill -CONT "$pid"
ok "it finds out that it was fenced" wait_for 60 is_down "$V"
again "$V" "$old" "the fsd that was stopped"
is "it sees what others wrote" "$(node "$V" cat "$MNT/stopped")" new

# --- the leader's node loses power
somebody_leads
ok "the leader holds a directory" node "$L" sh -c "mkdir $MNT/dir && echo kept >$MNT/dir/kept && sync $MNT/dir/kept"
"$RIG" kill "$L"
t=$(now)
goes_on "$O" new dir/new "the leader's node loses power"
is "what the leader had fsynced is there" "$(node "$O" cat "$MNT/dir/kept")" kept
ok "no operator was asked" sh -c "! '$RIG' exec $O scoutfsctl fence list mnt | grep -q . && ! '$RIG' exec $V scoutfsctl fence list mnt | grep -q ."
ok "the node boots" "$RIG" start "$L"
checked "and mounts" cluster_start "$L"
ok "all are healthy" wait_for 60 all_healthy
is "it sees what others wrote" "$(node "$L" cat "$MNT/dir/new")" new

checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
