#!/bin/bash
# The units, in one node of the rig: systemctl restart and kill -9 of each service under a load that checks
# every answer; the mount outlives its process in systemd's descriptor store.  A stop unmounts all the same.
. "$(dirname "$0")/../lib/node.sh"
. "$(dirname "$0")/../lib/load.sh"
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 20 || echo 3)}

node_up
cp "$BUILD/tests/posix/churn" "$BUILD/tests/posix/holdon" "$RIG_DIR/shared/"
out=$(node systemd-analyze verify scoutfs-unmount@mnt.service 2>&1)
is "systemd-analyze verify finds nothing" "$out" ""
node_conf
checked "systemctl start scoutfs@mnt" node timeout 120 systemctl start scoutfs@mnt

load_start "$RIG" exec n1 /shared/churn "$MNT" 4
restarted() { local p; p=$(property "$1" MainPID); [ "$p" != 0 ] && [ "$p" != "$2" ] && [ "$(property "$1" ActiveState)" = active ]; }
for service in fsd blockd serverd quorumd; do
	for how in kill restart; do
		worst=0
		for i in $(seq "$ROUNDS"); do
			load_report || break
			was=$done_ops old=$(property $service MainPID)
			[ "$old" -gt 1 ] || { fail "$service: $how $i: it runs" "$(journal)"; break; }	# 0 would be the test itself
			if [ $how = kill ]; then node kill -9 "$old"
			else node timeout 120 systemctl restart "$(unit $service)" || fail "systemctl restart $service ($i)" "$(journal)"; fi
			wait_for 60 restarted $service "$old" || fail "$service: $how $i: it is started again" "$(journal)"
			wait_for 120 load_goes_on "$was" || { fail "$service: $how $i: the load goes on" "$(journal)"; break; }
			[ "$longest" -gt "$worst" ] && worst=$longest
		done
		is "$service: no application error in $ROUNDS x $how (longest stall $worst ms)" "$errors" 0
	done
done
load_stop; rc=$?
is "the load ends without an error: ${load_last:-nothing said}" "$rc" 0
is "fsd is no failed unit" "$(property fsd Result)" success

checked "systemctl stop scoutfs@mnt" node timeout 200 systemctl stop scoutfs@mnt
nok "it is not mounted any more" node mountpoint -q $MNT
if wait_for 120 all_are inactive unmount; then pass "all units have stopped"; else
	fail "all units have stopped" "$(node systemctl --no-pager list-units --all 'scoutfs*'; journal)"; fi
nok "the journal speaks of no lost or failed thing" sh -c '"$1" exec n1 journalctl -q -o cat -u scoutfs@mnt | grep -E "cannot be gone on|not used|lost"' - "$RIG"
checked "check: clean" node scoutfsctl check /dev/shared0 /dev/shared1

# a stop that begins with umount(8), and one of a mount that is in use
checked "started again" node timeout 120 systemctl start scoutfs@mnt
ok "umount" node umount $MNT
ok "umount stops everything" wait_for 120 all_are inactive unmount
checked "started again" node timeout 120 systemctl start scoutfs@mnt
coproc USER { exec "$RIG" exec n1 sh -c "cd $MNT && echo in && exec sleep 600"; }
read -r -t 60 _ <&"${USER[0]}"
checked "systemctl stop of a mount in use" node timeout 200 systemctl stop scoutfs@mnt
nok "unmounts it" node mountpoint -q $MNT
kill "$USER_PID" 2>/dev/null; node pkill -x sleep
ok "all units have stopped after all" wait_for 120 all_are inactive unmount
checked "check at the end: clean" node scoutfsctl check /dev/shared0 /dev/shared1
[ "$tap_failed" = 0 ] || journal 200 | sed 's/^/# /'
tap_done
