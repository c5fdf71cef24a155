#!/bin/bash
# The mount of the leader's own host holds the others up for its lease, as any other does, and no longer: when its process is
# stopped, and when that is dead and not started again.  The lead stays where it is meanwhile.  And a pause of the whole
# host that is shorter than the time after which others elect costs it nothing: programs of its mount go on.
. "$(dirname "$0")/../lib/cluster.sh"
LEASE=3000 IO=1000 BEAT=10000 PAUSE=5

term() { property "$1" serverd StatusText | sed -n 's/^leader of term \([0-9]*\).*/\1/p'; }
is_dead() { [ "$(property "$1" fsd SubState)" = auto-restart ]; }
no_server_failed() { local n; for n in $NODES; do ! said "$n" "the server of term [0-9]+ stops:" || return 1; done; }
was_told() { said "$1" "rid $2\) was fenced by the leader"; }
is_down_or_anew() { is_down "$1" || { [ "$(node "$1" cat /run/scoutfs/mnt/rid)" != "$2" ] && healthy "$1"; }; }
gone() { ! kill -0 "$1" 2>/dev/null; }
# goes_on WHAT NODE FILE: it can write what the leader's mount held, soon enough, and no server ends for that
goes_on() {
	local t0=$SECONDS
	checked "$1: another writes what it held" timeout 90 "$RIG" exec "$2" sh -c "echo new >$MNT/$3 && sync $MNT/$3"
	echo "# $1: $((SECONDS - t0)) s"
	ok "$1: within its lease and what is waited for a busy machine" test $((SECONDS - t0)) -lt 60
	[ "$(term "$L")" = "$term" ] || echo "# $1: the lead has moved meanwhile (term $term, then '$(term "$L")'): a busy machine"
	checked "$1: no server stops because of it" no_server_failed
	ok "$1: blockd has cut it off" wait_for 60 said "$L" "no fsd gives up what the kernel remembers"
	ok "$1: and refuses its process, not this server" wait_for 60 said "$L" "the mount of rid [0-9a-f]+ is fenced on this host"
	ok "$1: the program that had a file of it open is told so" wait_for 60 gone "$reader"
}
# begin FILE: the leader's mount holds it, and a program there reads it again and again until it cannot
begin() {
	somebody_leads
	term=$(term "$L")
	ok "the leader holds a file" node "$L" sh -c "echo old >$MNT/$1 && sync $MNT/$1"
	node "$L" sh -c "exec 9<$MNT/$1; while cat /proc/self/fd/9 >/dev/null; do sleep 0.1; done" >/dev/null 2>&1 & reader=$!
}
again() {
	checked "$2: its mount starts again" timeout 150 "$RIG" exec "$1" systemctl start scoutfs@mnt
	ok "$2: and all are healthy" wait_for 90 all_healthy
	is "$2: it sees what others wrote" "$(node "$1" cat "$MNT/$3")" new
}

checked "three nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf lease_ms=$LEASE longest_io_ms=$IO heartbeat_timeout_ms=$BEAT
checked "all start" cluster_start
ok "all are healthy" wait_for 60 all_healthy

# --- a pause of the leader's host for longer than its mount's lease
begin paused
pid=$(node_pid "$L" fsd)
"$RIG" freeze "$L"; sleep $PAUSE; "$RIG" thaw "$L"
checked "after the pause its mount writes" timeout 90 "$RIG" exec "$L" sh -c "echo after >$MNT/paused && sync $MNT/paused"
is "it is the same process" "$(node_pid "$L" fsd)" "$pid"
nok "its mount was not cut off" said "$L" "the mount is cut off"
ok "the program that had a file open reads on" kill -0 "$reader"
checked "another node sees what it wrote" timeout 90 "$RIG" exec "$O" grep -q after $MNT/paused
kill "$reader"; wait "$reader" 2>/dev/null

# --- its process is stopped
begin stopped
pid=$(node_pid "$L" fsd)
node "$L" kill -STOP "$pid"
goes_on "stopped" "$O" stopped
node "$L" kill -CONT "$pid"
ok "stopped: it finds out that it was fenced" wait_for 60 is_down "$L"
again "$L" "stopped" stopped

# --- it is dead, and nobody starts it again
begin dead
rid=$(node "$L" cat /run/scoutfs/mnt/rid)
node "$L" sh -ec 'mkdir -p /run/systemd/system/scoutfs@mnt.service.d
	printf "[Service]\nRestartSec=1h\n" >/run/systemd/system/scoutfs@mnt.service.d/late.conf; systemctl daemon-reload'
node "$L" kill -9 "$(node_pid "$L" fsd)"
ok "dead: nobody starts it again" wait_for 30 is_dead "$L"
goes_on "dead" "$O" dead
node "$L" sh -ec 'rm -r /run/systemd/system/scoutfs@mnt.service.d; systemctl daemon-reload'
# (the reload may have it started at once, too)
node "$L" timeout 60 systemctl start scoutfs@mnt 2>/dev/null
ok "dead: the next process finds out that it was fenced" wait_for 60 was_told "$L" "$rid"
checked "dead: and with it all services end" wait_for 60 is_down_or_anew "$L" "$rid"
again "$L" "dead" dead

checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
