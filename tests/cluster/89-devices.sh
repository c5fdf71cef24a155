#!/bin/bash
# The devices of one node fail while those of the others work: its path to them is broken.  Who waits for what that node has
# written and cannot store goes on when its lease is over, though it talks to its leader all the time; what it had fsynced is
# there.  Where it is the leader's node another one leads.  When its devices are well again it can be mounted again.
# Where they fail for all, nobody is given up: it would help nobody.
# (At random, also with failures that are over before the lease is: 94-linear.sh.)
. "$(dirname "$0")/../lib/cluster.sh"
export RIG_FLAKY=$BUILD/tests/rig/flakydisk
ms() { awk '{print int($1 * 1000)}' /proc/uptime; }
refused() { "$RIG" failed "$1" | awk '{nr += $3} END {exit !nr}'; }
said() { node "$1" journalctl --no-pager -q -o cat -u "$(unit "$2")" | grep -q "$3"; }
is_gone() { ! node "$1" timeout 20 stat "$MNT/d" >/dev/null 2>&1; }
another_leads() { local l; l=$(leader) && [ "$l" != "$1" ]; }
# The mount is over there, or its services are; then it is mounted anew.
mount_again() {
	checked "$1: the services end" cluster_stop "$1"
	checked "$1: it is mounted again" cluster_start "$1"
}

checked "three nodes boot, with devices that can be made to fail" cluster_up
checked "mkfs with three quorum slots" cluster_mkfs
checked "configured: leases of 8 s" cluster_conf lease_ms=8000 longest_io_ms=1000 heartbeat_timeout_ms=8000
checked "mounted" cluster_start
lead=$(the_leader)
read -r sick other <<<"$(for n in $NODES; do [ "$n" = "$lead" ] || echo "$n"; done | paste -sd' ')"
echo "# $lead leads, the devices of $sick fail, $other waits"
checked "$sick: a file, fsynced" node "$sick" sh -ec "mkdir $MNT/d; echo stored >$MNT/d/f; sync $MNT/d/f"

"$RIG" fail "$sick" 0 write flush && "$RIG" fail "$sick" 1 write flush || fail "devices fail"
checked "$sick: its devices refuse everything: a write is taken" node "$sick" sh -ec "printf more >>$MNT/d/f; mkdir $MNT/d/unstored"
wait_for 60 refused "$sick" || fail "a request was refused"
began=$(ms)
checked "$other reads that file while they go on failing" node "$other" timeout 120 cat "$MNT/d/f"
took=$(($(ms) - began))
echo "# $other has waited $took ms"
ok "... after a lease of 8 s and the longest write, not ten times as long" test $took -lt 90000
is "... what was fsynced is there" "$(node "$other" timeout 60 cat "$MNT/d/f")" stored
checked "$other goes on there" node "$other" timeout 60 sh -ec "echo $other >$MNT/d/g; sync $MNT/d/g"
leader_said() { said "$lead" serverd "holds up others, and its devices have refused what it must write" || said "$other" serverd "holds up others, and its devices have refused"; }
ok "the leader says why that mount gets no more time" wait_for 60 leader_said
ok "$sick: programs are told that the mount is gone" wait_for 60 is_gone "$sick"
checked "the devices heal" "$RIG" heal
mount_again "$sick"
is "$sick: sees what the others see" "$(node "$sick" timeout 60 cat "$MNT/d/f" "$MNT/d/g" | paste -sd' ')" "stored $other"

sick=$(the_leader)
read -r other _ <<<"$(for n in $NODES; do [ "$n" = "$sick" ] || echo "$n"; done | paste -sd' ')"
checked "$sick, which leads: a file" node "$sick" sh -ec "echo stored >$MNT/d/h; sync $MNT/d/h"
"$RIG" fail "$sick" 0 write flush && "$RIG" fail "$sick" 1 write flush || fail "devices fail"
began=$(ms)
checked "$other writes and fsyncs while the devices of the leader's node go on failing" \
	node "$other" timeout 200 sh -ec "echo $other >>$MNT/d/h; sync $MNT/d/h"
echo "# $other has waited $(($(ms) - began)) ms"
ok "another leads" wait_for 120 another_leads "$sick"
is "what was fsynced is there" "$(node "$other" timeout 60 cat "$MNT/d/h" | paste -sd' ')" "stored $other"
checked "the devices heal" "$RIG" heal
mount_again "$sick"
is "$sick: sees what the others see" "$(node "$sick" timeout 60 cat "$MNT/d/h" | paste -sd' ')" "stored $other"

lead=$(the_leader)
read -r holder other <<<"$(for n in $NODES; do [ "$n" = "$lead" ] || echo "$n"; done | paste -sd' ')"
fails_here_too() { said "$lead" serverd "because its devices fail, and they fail here, too"; }
for n in $NODES; do "$RIG" fail "$n" 1 write flush || fail "data devices fail"; done
checked "$holder: the data devices of all refuse everything: a write is taken" node "$holder" sh -ec "printf more >>$MNT/d/f"
node "$other" timeout 120 cat "$MNT/d/f" >"$TMP/read" 2>&1 & reader=$!
ok "the leader says that it cannot write, either" wait_for 60 fails_here_too
is_over() { ! kill -0 "$1"; }
nok "$other waits for longer than a lease and the longest write take" wait_for 16 is_over $reader
checked "the devices heal" "$RIG" heal
wait $reader; is "$other reads" $? 0
is "... what was not fsynced, either: nobody was given up" "$(paste -sd' ' "$TMP/read")" "stored more"
checked "$holder goes on" node "$holder" timeout 60 sh -ec "echo and more >>$MNT/d/f; sync $MNT/d/f"
checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
