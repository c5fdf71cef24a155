#!/bin/bash
# SOAK_HOURS (1) of churn whose every answer is checked, with kills of random services every few minutes, fsd
# included.  Every PAUSE seconds the volume is unmounted and checked; neither memory, log trees nor
# metadata in use may grow from one pause to the next.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
HOURS=${SOAK_HOURS:-1}
PAUSE=${PAUSE:-600} KILL_EVERY=${KILL_EVERY:-90}
SEED=${SEED:-$(date +%s)}
echo "# SEED=$SEED SOAK_HOURS=$HOURS PAUSE=$PAUSE KILL_EVERY=$KILL_EVERY"
RANDOM=$((SEED % 32768))
vol_make 16G 32G
inst_conf
ok "mount" inst_start
rss() { awk '/^RssAnon/ {print int($2 / 1024)}' "/proc/$(inst_pid "$1")/status"; }
kills=0
end=$((SECONDS + $(awk -v h="$HOURS" 'BEGIN {print int(h * 3600)}')))
first_free=
for ((round = 1; SECONDS < end; round++)); do
	load_start "$BUILD/tests/posix/churn" "$MNT" 4
	worst=0
	stop_at=$((SECONDS + PAUSE))
	[ $stop_at -lt $end ] || stop_at=$end
	while [ $((SECONDS + KILL_EVERY)) -lt $stop_at ]; do
		sleep $((KILL_EVERY / 2 + RANDOM % KILL_EVERY))
		services=(serverd quorumd blockd fsd)
		service=${services[RANDOM % 4]}
		load_report || break
		was=$done_ops old=$(inst_pid "$service")
		kill -9 "$old"
		kills=$((kills + 1))
		wait_for 60 restarted "$service" "$old" || fail "round $round: $service is started again"
		wait_for 120 load_goes_on "$was" || { fail "round $round: the load goes on after a kill of $service" "ops $done_ops, before $was"; break; }
		[ "$longest" -gt "$worst" ] && worst=$longest
	done
	while [ $SECONDS -lt $stop_at ]; do sleep 1; done
	memory=
	for s in fsd serverd blockd quorumd; do memory+=" $s $(rss $s)"; done
	load_stop
	is "round $round: no application error ($done_ops operations, longest stall $worst ms, $kills kills so far; RssAnon in MiB:$memory)" "$errors" 0
	for s in fsd serverd blockd quorumd; do
		[ "$(rss $s)" -le 512 ] || fail "round $round: $s: RssAnon $(rss $s) MiB, above 512"
	done
	free=$("$CTL" status -v "$CONF" | awk '$1 == "free_meta_blocks" {print $2; exit}')
	ok "round $round: unmount" inst_stop
	check_clean "round $round: clean"
	trees=$("$CTL" print -S "$META" 2>/dev/null | grep -cw 'what log_trees\|what=log_trees')
	echo "# round $round: $trees log trees, $free metadata blocks free"
	[ "$trees" -le 40 ] || fail "round $round: log trees stay few" "$trees of them"
	first_free=${first_free:-$free}
	[ "${free:-0}" -ge $((first_free * 9 / 10)) ] || fail "round $round: metadata in use does not grow" "$free blocks free, $first_free after the first round"
	ok "round $round: mount" inst_start
done
ok "unmount" inst_stop
check_clean "clean after $kills kills"
tap_done
