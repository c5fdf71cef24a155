#!/bin/bash
# SOAK_HOURS (1) of churn whose every answer is checked, with kills of random services every few minutes, fsd
# included.  Every PAUSE seconds the volume is unmounted and checked; neither memory, log trees nor
# metadata in use may grow from one pause to the next.
. "$(dirname "$0")/../lib/common.sh"
HOURS=${SOAK_HOURS:-1}
PAUSE=${PAUSE:-600} KILL_EVERY=${KILL_EVERY:-90}
SEED=${SEED:-$(date +%s)}
echo "# SEED=$SEED SOAK_HOURS=$HOURS PAUSE=$PAUSE KILL_EVERY=$KILL_EVERY"
RANDOM=$((SEED % 32768))
vol_make 16G 32G
inst_conf
ok "mount" inst_start
restarted() { local p; p=$(inst_pid "$1" 2>/dev/null) && [ -n "$p" ] && [ "$p" != "$2" ] && kill -0 "$p"; }
# The load's counters until now.
report() {
	echo "$1" >&"$to"
	while IFS= read -r -t 300 -u "$from" line; do
		case $line in ops*) set -- $line; done_ops=$2 errors=$4 longest=$6; return 0 ;; *) echo "# $line" ;; esac
	done
	done_ops=0 errors=1 longest=none
	return 1
}
rss() { awk '/^RssAnon/ {print int($2 / 1024)}' "/proc/$(inst_pid "$1")/status"; }
kills=0
end=$((SECONDS + $(awk -v h="$HOURS" 'BEGIN {print int(h * 3600)}')))
first_used=
for ((round = 1; SECONDS < end; round++)); do
	coproc LOAD { exec "$BUILD/tests/posix/churn" "$MNT" 4 2>&1; }
	exec {from}<&"${LOAD[0]}" {to}>&"${LOAD[1]}"
	pid=$LOAD_PID worst=0
	stop_at=$((SECONDS + PAUSE))
	[ $stop_at -lt $end ] || stop_at=$end
	while [ $((SECONDS + KILL_EVERY)) -lt $stop_at ]; do
		sleep $((KILL_EVERY / 2 + RANDOM % KILL_EVERY))
		services=(serverd quorumd blockd fsd)
		service=${services[RANDOM % 4]}
		report report || break
		was=$done_ops old=$(inst_pid "$service")
		kill -9 "$old"
		kills=$((kills + 1))
		wait_for 60 restarted "$service" "$old" || fail "round $round: $service is started again"
		goes_on() { report report && [ "$longest" -gt "$worst" ] && worst=$longest; [ "$done_ops" -gt $((was + 50)) ]; }
		wait_for 120 goes_on || { fail "round $round: the load goes on after a kill of $service" "ops $done_ops, before $was"; break; }
	done
	while [ $SECONDS -lt $stop_at ]; do sleep 1; done
	memory=
	for s in fsd serverd blockd quorumd; do memory+=" $s $(rss $s)"; done
	report stop
	exec {to}>&- {from}<&-
	wait "$pid"
	is "round $round: no application error ($done_ops operations, longest stall $worst ms, $kills kills so far; RssAnon in MiB:$memory)" "$errors" 0
	for s in fsd serverd blockd quorumd; do
		[ "$(rss $s)" -le 512 ] || fail "round $round: $s: RssAnon $(rss $s) MiB, above 512"
	done
	ok "round $round: unmount" inst_stop
	check_clean "round $round: clean"
	trees=$("$CTL" print -S "$META" 2>/dev/null | grep -cw 'what log_trees\|what=log_trees')
	used=$(($(du -B1 "$META" | cut -f1) >> 20))
	echo "# round $round: $trees log trees, metadata file $used MiB"
	[ "$trees" -le 40 ] || fail "round $round: log trees stay few" "$trees of them"
	ok "round $round: mount" inst_start
done
ok "unmount" inst_stop
check_clean "clean after $kills kills"
tap_done
