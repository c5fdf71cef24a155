#!/bin/bash
# The mount outlives each of its services: kill -9 and planned restarts of all of them under a load that
# checks every answer; programs see a pause and no error.  tests/posix/holdon.c then looks at what a
# program can have in hand when its mount's process goes.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 20 || echo 4)}
vol_make
inst_conf orphan_scan_delay_ms=300 lease_ms=30000
ok "mount" inst_start

# an unlinked file stays as long as somebody has it open, also when nobody here remembers that, and no longer
counter() { "$CTL" status -v "$CONF" | awk -v n="$1" '$1 == n { print $2; exit }'; }
is_at_least() { local v; v=$(counter "$1"); [ -n "$v" ] && [ "$v" -ge "$2" ]; }
seq 100000 >"$MNT/unlinked" && sync "$MNT/unlinked"
exec {held}<"$MNT/unlinked"
rm "$MNT/unlinked"
old=$(inst_pid fsd)
kill -9 "$old"
wait_for 60 restarted fsd "$old"
# the first seconds of a process count everything as in use: some scans later it asks the kernel
ok "a later process looks for orphans" wait_for 120 is_at_least orphan_scan 20
is "an unlinked file that is open stays" "$(counter inode_deleted) $(md5sum <&"$held")" "0 $(seq 100000 | md5sum)"
exec {held}<&-
ok "and goes when it is closed" wait_for 60 is_at_least inode_deleted 1

# each service under a load
load_start "$BUILD/tests/posix/churn" "$MNT" 4
for service in fsd blockd serverd quorumd; do
	for how in kill restart; do
		worst=0
		for i in $(seq "$ROUNDS"); do
			load_report || break
			was=$done_ops old=$(inst_pid $service)
			if [ $how = kill ]; then kill -9 "$old"
			else "$CTL" restart $service "$CONF" || fail "$service: restart $i"; fi
			wait_for 60 restarted $service "$old" || fail "$service: $how $i: it is started again"
			wait_for 120 load_goes_on "$was" || { fail "$service: $how $i: the load goes on" "ops $done_ops, before $was"; break; }
			[ "$longest" -gt "$worst" ] && worst=$longest
		done
		is "$service: no application error in $ROUNDS x $how (longest stall $worst ms)" "$errors" 0
	done
done
# a restart is one whenever in a start it is asked for; some in a row, but no lease outlasts as many as one likes
load_report
for i in $(seq $((ROUNDS * 3))); do
	old=$(inst_pid fsd)
	kill -USR2 "$old" 2>/dev/null
	wait_for 60 restarted fsd "$old" || fail "fsd: asked while it starts, $i: it is started again"
	sleep "0.0$((RANDOM % 10))"
	[ $((i % 3)) != 0 ] || wait_for 120 load_goes_on "$done_ops" || fail "fsd: asked while it starts, $i: the load goes on"
done
was=$done_ops
ok "fsd: restarts while it starts: the load goes on" wait_for 120 load_goes_on "$was"
load_report
is "fsd: no application error in $((ROUNDS * 3)) restarts while it starts (longest stall $longest ms)" "$errors" 0
# several at once
for services in "fsd serverd" "fsd blockd" "fsd quorumd" "fsd serverd quorumd blockd"; do
	worst=0
	for i in $(seq "$ROUNDS"); do
		load_report || break
		was=$done_ops old=$(inst_pid fsd)
		# shellcheck disable=SC2046
		kill -9 $(for s in $services; do inst_pid "$s" 2>/dev/null; done)
		wait_for 60 restarted fsd "$old" || fail "$services: $i: fsd is started again"
		wait_for 120 load_goes_on "$was" || { fail "$services: $i: the load goes on" "ops $done_ops, before $was"; break; }
		[ "$longest" -gt "$worst" ] && worst=$longest
	done
	is "$services at once: no application error in $ROUNDS kills (longest stall $worst ms)" "$errors" 0
done
load_stop; rc=$?
is "the load ends without an error: ${load_last:-nothing said}" "$rc" 0

# what a program has in hand
coproc HAND { exec "$BUILD/tests/posix/holdon" "$MNT" 2>&1; }
exec {from}<&"${HAND[0]}" {to}>&"${HAND[1]}"
pid=$HAND_PID
hand_is_ready() {
	while IFS= read -r -t 120 -u "$from" line; do
		case $line in ready) return 0 ;; "not ok"*) fail "${line#not ok - }" ;; *) echo "# $line" ;; esac
	done
	return 1
}
hand_is_ready || fail "holdon begins"
for i in $(seq $((ROUNDS * 2))); do
	old=$(inst_pid fsd)
	if [ $((i % 2)) = 1 ]; then kill -9 "$old"; else "$CTL" restart fsd "$CONF" || fail "restart $i"; fi
	wait_for 60 restarted fsd "$old" || fail "fsd is started again ($i)"
	echo "go on" >&"$to"
	hand_is_ready || { fail "holdon goes on ($i)"; break; }
done
echo quit >&"$to"
while IFS= read -r -t 120 -u "$from" line; do
	case $line in ok*) pass "${line#ok - }" ;; "not ok"*) fail "${line#not ok - }" ;; *) echo "# $line" ;; esac
done
exec {to}>&- {from}<&-
wait "$pid" 2>/dev/null
ok "unmount" inst_stop
check_clean "clean after the kills and restarts"
echo "# generations that a killed process left: $(grep -c "before was stored" "$LOG") stored already, $(grep -c "before was not stored" "$LOG") stored with the next"
tap_done
