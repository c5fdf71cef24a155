#!/bin/bash
# Power cuts: all services die at once by SIGKILL and the runtime directory is gone.  What is there
# afterwards is a prefix of what was done that holds everything fsynced (tests/posix/crashload.c).
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 100 || echo 20)}
SEED=${SEED:-$(date +%s)}
echo "# SEED=$SEED ROUNDS=$ROUNDS"
RANDOM=$((SEED % 32768))
vol_make
inst_conf commit_interval_ms=300
ok "mount" inst_start
load_start "$BUILD/tests/posix/crashload" "$MNT" "$SEED" "$ROUNDS"
for round in $(seq "$ROUNDS"); do
	load_expect running 120 || { fail "round $round: the load goes on"; break; }
	sleep "$((RANDOM % 2)).$((RANDOM % 10))"	# how long it may run before the cut
	power_cut
	load_expect gone 120 || { fail "round $round: the load notices the cut"; break; }
	out=$("$CTL" check "$META" "$DATA" 2>&1) || { fail "round $round: check of the crashed volume" "$(tail -n 20 <<<"$out")"; break; }
	inst_start >"$TMP/start.out" 2>&1 || { fail "round $round: mounts again at once" "$(cat "$TMP/start.out")"; break; }
	load_say ""
	load_expect ok 120 || { fail "round $round: verdict" "${line:-no line}"; break; }
done
load_kill
ok "unmount" inst_stop
check_clean "clean after $ROUNDS power cuts"
tap_done
