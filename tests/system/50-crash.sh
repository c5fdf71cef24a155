#!/bin/bash
# Power cuts: all services die at once by SIGKILL and the runtime directory is gone.  What is there
# afterwards is a prefix of what was done that holds everything fsynced (tests/posix/crashload.c).
. "$(dirname "$0")/../lib/common.sh"
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 100 || echo 20)}
SEED=${SEED:-$(date +%s)}
echo "# SEED=$SEED ROUNDS=$ROUNDS"
RANDOM=$((SEED % 32768))
vol_make
inst_conf commit_interval_ms=300
ok "mount" inst_start
coproc LOAD { exec "$BUILD/tests/posix/crashload" "$MNT" "$SEED" "$ROUNDS" 2>&1; }
exec {from}<&"${LOAD[0]}" {to}>&"${LOAD[1]}"
pid=$LOAD_PID

# Lines of the load until one begins with $1; its verdicts become ours.  Fails after $2 s of silence.
expect() {
	while IFS= read -r -t "$2" -u "$from" line; do
		case $line in
		ok*) pass "${line#ok - }" ;;
		"not ok"*) fail "${line#not ok - }" ;;
		"#"*) echo "$line" ;;
		esac
		case $line in "$1"*) return 0 ;; esac
	done
	return 1
}
for round in $(seq "$ROUNDS"); do
	expect running 60 || { fail "round $round: the load goes on"; break; }
	sleep "$((RANDOM % 2)).$((RANDOM % 10))"	# how long it may run before the cut
	power_cut
	expect gone 120 || { fail "round $round: the load notices the cut"; break; }
	out=$("$CTL" check "$META" "$DATA" 2>&1) || { fail "round $round: check of the crashed volume" "$(tail -n 20 <<<"$out")"; break; }
	inst_start >"$TMP/start.out" 2>&1 || { fail "round $round: mounts again at once" "$(cat "$TMP/start.out")"; break; }
	echo >&"$to"
	expect ok 120 || { fail "round $round: verdict" "${line:-no line}"; break; }
done
exec {to}>&- {from}<&-
kill "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
ok "unmount" inst_stop
check_clean "clean after $ROUNDS power cuts"
tap_done
