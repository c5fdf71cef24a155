#!/bin/bash
# The end of an instance under `scoutfsctl run`: nothing is lost when fsd is just away, whoever stops it is told how it ended, a
# terminal that goes away is a stop, and strangers do not fill the supervisor's table of descriptors.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
# programs of its own: one of them is taken away for a while
mkdir "$TMP/bin"
cp "$BUILD"/scoutfs* "$TMP/bin"
CTL=$TMP/bin/scoutfsctl
vol_make
inst_conf commit_interval_ms=60000
run_pid() { cat "$TMP/run/run.pid"; }
there() { [ "$(cat "$MNT/$1" 2>/dev/null)" = "$1" ]; }

ok "mount" inst_start
echo first >"$MNT/first"
kill -9 "$(inst_pid fsd)"
ok "a stop just after fsd has died" inst_stop
check_clean "clean after it"
ok "mount again" inst_start
ok "what it had not stored is there" there first

# the same where fsd cannot come again: it says so, and the next start has it
echo second >"$MNT/second"
run=$(run_pid)
kill -STOP "$run"
kill -9 "$(inst_pid fsd)"
fsd=$TMP/bin/scoutfs-fsd
mv "$fsd" "$fsd.away"
kill -CONT "$run"
nok "a stop while fsd cannot come again fails" inst_stop
mv "$fsd.away" "$fsd"
ok "it says that something is left" grep -q "could not store what it left: it stays in $TMP/run" "$LOG"
ok "mount again" inst_start
ok "what was left is there" there second

# anybody's datagrams, with descriptors
run=$(run_pid)
had=$(ls "/proc/$run/fd" | wc -l)
python3 - "$run" <<'P' || fail "datagrams are sent"
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
fds = array.array("i", [os.open("/dev/null", os.O_RDONLY)] * 2)
for i in range(300):
    s.sendmsg([b"" if i % 2 else b"FDSTORE=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], 0, "\0scoutfs-run-" + sys.argv[1])
P
few() { [ "$(ls "/proc/$run/fd" | wc -l)" -le "$had" ]; }
ok "the supervisor keeps no descriptor of a stranger" wait_for 20 few

echo third >"$MNT/third"
kill -HUP "$run"
ok "a hang-up stops it" wait_for 60 no_process "$run"
ok "in order" grep -qx stopped "$TMP/state/run.result"
check_clean "clean after it"
ok "mount again" inst_start
ok "nothing was lost" there third
ok "unmount" inst_stop
check_clean "clean at the end"
tap_done
