#!/bin/bash
# Leases on one node (design.md D6): who may write and until when is shown; services that restart within the
# lease cost nobody an error; a leader that is silent for longer makes programs wait and not fail; a dead fsd's
# mount is cut off when its lease is over; a mount that was fenced is refused by a later leader too, and all of its
# instance ends for another to be started.
. "$(dirname "$0")/../lib/common.sh"

# value SERVICE NAME: a number, or the text of that name
value() {
	"$CTL" status --json "$CONF" | python3 -c "import json, sys
for x in json.loads(sys.stdin.readline())['services']:
	if x['service'] == '$1':
		print(x['values'].get('$2', '') if '$2' in x['values'] else
		      '\n'.join(t['text'] for t in x['texts'] if t['name'] == '$2'))"
}
none_mounted() { [ "$(value serverd mounts)" = 0 ]; }
more() { [ "$(value "$1" "$2")" -gt "$3" ]; }
has() { value "$1" "$2" | grep -qE -- "$3"; }
# fsd waits; status takes its time with a serverd that is stopped
waits() { "$CTL" status "$CONF" 2>/dev/null | grep -q "a lease from the leader"; }
mounted() { stat "$MNT/." && mountpoint -q "$MNT" && "$CTL" status "$CONF" >/dev/null; }
changed() { [ "$(inst_pid "$1")" != "$2" ] && kill -0 "$(inst_pid "$1")"; }

vol_make
inst_conf lease_ms=2000 longest_io_ms=1000 client_timeout_ms=1000 heartbeat_timeout_ms=60000
ok "mount" inst_start
ok "healthy" wait_for 60 "$CTL" status "$CONF"
rid=$(cat "$TMP/run/rid")

# --- what is shown
ok "fsd says how long its lease lasts" wait_for 60 more fsd lease_left_ms 0
ok "serverd says what it has given" wait_for 60 has serverd lease "^mount $rid: lasts [0-9]+ ms"
ok "quorumd says how long serverd may write" wait_for 60 has quorumd lease "^serverd may write for [0-9]+ ms"
ok "blockd knows the mount's" wait_for 60 has blockd lease "^mount $rid: lasts [0-9]+ ms, of term 1"
ok "and serverd's" wait_for 60 has blockd lease "^serverd $rid: lasts [0-9]+ ms, of term 1"
ok "leases are renewed" wait_for 60 more serverd leases_given 3
# A machine that is busy for longer than a lease costs one: not each time.
nothing_refused() {
	local was given
	was=$(value blockd refused_lease) given=$(value serverd leases_given)
	[ -n "$given" ] && wait_for 20 more serverd leases_given $((given + 5)) && [ -n "$was" ] && [ "$(value blockd refused_lease)" = "$was" ]
}
ok "while they are, nothing is refused" wait_for 120 nothing_refused

# --- services die and come back within the lease: nobody is told, nothing is lost
: >"$TMP/errors"
( i=0; while [ ! -e "$TMP/enough" ]; do
	echo $i >"$MNT/f$((i % 50))" && sync "$MNT/f$((i % 50))" && [ "$(cat "$MNT/f$((i % 50))")" = $i ] || echo "round $i" >>"$TMP/errors"
	i=$((i + 1))
done; echo $i >"$TMP/rounds" ) 2>>"$TMP/errors" &
load=$!
for s in serverd blockd quorumd serverd blockd quorumd; do
	old=$(inst_pid $s)
	kill -9 "$old"
	wait_for 120 changed $s "$old" || fail "$s comes back"
	wait_for 120 "$CTL" status "$CONF" || fail "healthy after $s was killed"
done
touch "$TMP/enough"; wait $load
is "no error while serverd, blockd and quorumd were killed" "$(cat "$TMP/errors")" ""
ok "the load did something" test "$(cat "$TMP/rounds")" -gt 6
rm -f "$TMP/enough"

# --- a leader that is silent for longer than the lease, but not dead
echo before >"$MNT/kept"; sync "$MNT/kept"; cat "$MNT/kept" >/dev/null
freeze "$(inst_pid serverd)"
ok "the mount says that it waits for a lease" wait_for 120 waits
timeout 2 cat "$MNT/kept" >/dev/null 2>&1; is "what was cached is not shown any more: reading waits" $? 124
( echo after >"$MNT/kept" && sync "$MNT/kept" && cat "$MNT/kept" ) >"$TMP/late" 2>&1 &
late=$!
kill -CONT "$(inst_pid serverd)"
wait $late; is "who waited had no error" $? 0
is "and did what it wanted" "$(cat "$TMP/late")" after
ok "there is a lease again" wait_for 60 more fsd lease_left_ms 0
ok "the loss was counted" more fsd lease_losses 0
ok "and the signal that ended who waited for it" more fsd fuse_interrupts 0
ok "orphans were looked for, and there are none" wait_for 60 more fsd orphan_scan_empty 0
is "the kernel asks again and gets an answer" "$(timeout 120 cat "$MNT/kept")" after

# --- a write that was begun before: blockd refuses it, and it is done when there is a lease again
dd if=/dev/zero of="$MNT/big" bs=1M count=8 status=none
freeze "$(inst_pid serverd)"
( sync "$MNT/big" ) >"$TMP/late" 2>&1 &
late=$!
ok "the lease runs out again" wait_for 120 waits
kill -CONT "$(inst_pid serverd)"
wait $late; is "the fsync that waited had no error" "$?$(cat "$TMP/late")" 0

# --- fsd is gone for longer than its lease, and nobody starts it again
kill -STOP "$(cat "$TMP/run/run.pid")"
kill -9 "$(inst_pid fsd)"
ok "blockd cuts the mount off" wait_for 60 more blockd fuse_cut 0
timeout 120 cat "$MNT/kept" >/dev/null 2>&1; rc=$?
ok "programs get an error instead of old files" test $rc -ne 0 -a $rc -ne 124
ok "serverd waits for its own mount" wait_for 60 has serverd fence "^$rid: "

# --- that could not be fenced: the server stops and the next one asks again
term=$(value serverd term)
ok "fence fail is taken" "$CTL" fence fail "$rid" "$CONF"
ok "the server stops" wait_for 60 grep -q "stops: a mount could not be fenced" "$LOG"
kill -CONT "$(cat "$TMP/run/run.pid")"
ok "the next one serves a later term" wait_for 60 more serverd term "$term"
ok "the next fsd mounts anew" wait_for 120 mounted
is "what was stored is there" "$(cat "$MNT/kept")" after

# --- fenced: what it had is given back, and a later leader refuses it
kill -STOP "$(cat "$TMP/run/run.pid")"
kill -9 "$(inst_pid fsd)"
ok "serverd waits for its mount again" wait_for 60 has serverd fence "^$rid: "
ok "fence ack is taken" "$CTL" fence ack "$rid" "$CONF"
ok "it is no mount any more" wait_for 60 none_mounted
old=$(inst_pid serverd)
kill -9 "$old"
kill -CONT "$(cat "$TMP/run/run.pid")"
gone() { [ ! -e "$TMP/run/run.pid" ]; }
# The mount may have been told, and the whole instance have ended, before anybody looks.
replaced() { changed serverd "$old" || gone; }
ok "serverd is another process" wait_for 60 replaced
ok "the fenced mount was told so" wait_for 60 grep -q "rid $rid) was fenced by the leader" "$LOG"
ok "all services of its instance end" wait_for 120 gone
ok "started again it begins anew" inst_start
nok "with another rid" test "$(cat "$TMP/run/rid")" = "$rid"
is "what was stored is there still" "$(cat "$MNT/kept")" after
echo new >"$MNT/kept"; sync "$MNT/kept"

# --- fenced by the server of this host, which died before that was on the volume: the leader knows nothing of it
rid=$(cat "$TMP/run/rid")
ok "the mount is healthy" wait_for 60 "$CTL" status "$CONF"
losses() { grep -cE "lost, for it was not committed|mappings and not synced may be lost" "$LOG"; }
before=$(losses)
told_more() { [ "$(losses)" -gt "$before" ]; }
echo "$rid" >>"$TMP/run/fenced"
kill -9 "$(inst_pid fsd)"
ok "its next process ends with a word" wait_for 60 grep -q "rid $rid) was fenced by the leader" "$LOG"
ok "and says what is lost with it" wait_for 60 told_more
ok "it is not tried again: all services of its instance end" wait_for 120 gone
is "and programs get an error" "$(timeout 60 cat "$MNT/kept" 2>/dev/null)" ""
ok "started again it begins anew, too" inst_start
is "what was stored is there" "$(cat "$MNT/kept")" new
ok "unmount" inst_stop
check_clean "the volume is clean"
tap_done
