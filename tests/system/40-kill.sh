#!/bin/bash
# kill -9 of serverd, quorumd and blockd under load: applications see a pause and no error.
. "$(dirname "$0")/../lib/common.sh"
KILLS=${KILLS:-$([ -n "${SOAK:-}" ] && echo 20 || echo 3)}
vol_make
inst_conf
ok "mount" inst_start
coproc LOAD { exec "$BUILD/tests/posix/churn" "$MNT" 4 2>&1; }
exec {from}<&"${LOAD[0]}" {to}>&"${LOAD[1]}"
pid=$LOAD_PID

# The load's counters since the last question; what it complained of goes to the log.
report() {
	echo report >&"$to"
	while IFS= read -r -t 120 -u "$from" line; do
		case $line in ops*) set -- $line; done_ops=$2 errors=$4 longest=$6; return 0 ;; *) echo "# $line" ;; esac
	done
	done_ops=0 errors=1 longest=none
	return 1
}
restarted() { local p; p=$(inst_pid "$1" 2>/dev/null) && [ -n "$p" ] && [ "$p" != "$2" ] && kill -0 "$p"; }
# The load has done more: it did not only survive, it goes on.
goes_on() { report && [ "$done_ops" -gt $(($1 + 50)) ]; }

for service in serverd quorumd blockd; do
	worst=0
	for i in $(seq "$KILLS"); do
		report || break
		was=$done_ops old=$(inst_pid $service)
		kill -9 "$old"
		wait_for 60 restarted $service "$old" || fail "$service: kill $i: it is started again"
		wait_for 120 goes_on "$was" || { fail "$service: kill $i: the load goes on" "ops $done_ops, before $was"; break; }
		[ "$longest" -gt "$worst" ] && worst=$longest
	done
	is "$service: no application error in $KILLS kills (longest stall $worst ms)" "$errors" 0
done
echo stop >&"$to"
while IFS= read -r -t 120 -u "$from" line; do case $line in ops*) last=$line ;; *) echo "# $line" ;; esac; done
exec {to}>&- {from}<&-
wait "$pid"; rc=$?
is "the load ends without an error: ${last:-nothing said}" "$rc" 0

# fsd: what it leaves is not of the next one's version (42-restart.sh has the other case).  Its mount dies with
# it, and comes back by itself, also where the kernel remembers the old root.
echo kept >"$MNT/kept" && sync "$MNT" && stat "$MNT" >/dev/null
old=$(inst_pid fsd)
kill -STOP "$old"
printf '\377' | dd of="$TMP/run/keep" bs=1 seek=8 conv=notrunc status=none
kill -9 "$old"
mounted_again() { restarted fsd "$old" && [ "$(cat "$MNT/kept" 2>/dev/null)" = kept ]; }
ok "fsd: what another version left is not gone on from; the mount comes back" wait_for 60 mounted_again
ok "fsd: and it says so" grep -q "state of an earlier process is not used: another version" "$LOG"
ok "fsd: and can be written" touch "$MNT/after"
ok "unmount" inst_stop
check_clean "clean after the kills"
tap_done
