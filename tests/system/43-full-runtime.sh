#!/bin/bash
# The runtime directory is full, of something that is not ours, and services die at that moment.  They say what is wrong and
# where; programs wait; when there is room again everything goes on by itself, without an error and with all that was written.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
vol_make
inst_conf
ok "mount" inst_start
load_start "$BUILD/tests/posix/churn" "$MNT" 4
load_report
ok "the load goes on" wait_for 120 load_goes_on 0

fill() { cat /dev/zero >>"$TMP/run/filler"; }
# A service may be just replacing a small file of its own.
is_full() { fill; [ "$(df --output=avail "$TMP/run" | tail -n 1 | tr -d ' ')" = 0 ]; }
ok "the runtime directory is filled to the last byte" wait_for 60 is_full
load_report; was=$done_ops
ok "what runs goes on" wait_for 120 load_goes_on "$was"
ok "what is asked to be durable becomes so" timeout 120 sync "$MNT"

# Who dies may leave a page behind, which the next one takes and starts: then that one dies as well.
kill -9 "$(inst_pid serverd)"
said() {
	fill
	grep -q "$TMP/run/blockd.pid: cannot be written: No space left on device" "$LOG" && return
	pgrep -P "$(inst_pid run)" scoutfs-blockd | xargs -r kill -9
	return 1
}
ok "blockd is killed, cannot start, and says why" wait_for 120 said
load_report; was=$done_ops
rm "$TMP/run/filler"
ok "there is room again: the load goes on" wait_for 120 load_goes_on "$was"
load_stop; rc=$?
is "no program had an error: ${load_last:-nothing said}" "$rc" 0
ok "unmount" inst_stop
check_clean "clean afterwards"
tap_done
