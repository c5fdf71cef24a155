#!/bin/bash
# A stop cuts off programs that do not let go of the mount.  Where they may have stores to mappings that the kernel has not
# written back, that is said, and the process ends with an error; where they cannot have, nothing is lost and nothing is said.
# So it is of a process that has gone on with the mount of one that died, which knows nothing of the files that the earlier one
# opened.  What was synced is there each time.  A stop waits 30 s for the programs: SOAK= does all.
. "$(dirname "$0")/../lib/common.sh"

# user.py PATH MODE READY: makes READY when it is done.  MODE: how it opens the file; "map" - it maps and stores, syncs that, and stores again.
cat >"$TMP/user.py" <<'PY'
import mmap, os, signal, sys
path, mode, ready = sys.argv[1:]
fd = os.open(path, os.O_RDWR if mode == 'map' else os.O_RDONLY)
os.chdir(os.path.dirname(path))
if mode == 'map':
    m = mmap.mmap(fd, 4096)
    m[0:6] = b'synced'
    m.flush()
    m[100:106] = b'stored'
    os.close(fd)  # the mapping has it open
open(ready, 'w').close()
signal.pause()
PY
use() {
	rm -f "$TMP/ready"
	python3 "$TMP/user.py" "$MNT/file" "$1" "$TMP/ready" >"$TMP/user.log" 2>&1 & user=$!
	wait_for 60 test -e "$TMP/ready" && pass "$2" || fail "$2" "$(cat "$TMP/user.log")"
}
said() { grep -cE -- "$1" "$LOG"; }
LOSS="were cut off: what they had stored to mappings and not synced may be lost"
BAD="fsd did not end as it should"
# stop WHAT STATUS: the mount in use is stopped, and whoever does so is told with STATUS whether all is well
stop() {
	timeout 150 "$CTL" stop "$CONF"
	is "$1: it is stopped, and says whether in order" $? "$2"
	ok "$1: it was in use" test "$(said "was still in use after 30 s: its programs get errors now")" = $((++cut))
	kill -9 "$user" 2>/dev/null; wait "$user" 2>/dev/null
}
cut=0

vol_make
inst_conf
ok "mount" inst_start
head -c 4096 /dev/zero >"$MNT/file"; sync "$MNT/file"

if [ -n "${SOAK:-}" ]; then
	use read "a program has a file open that it can only read"
	stop "read" 0
	is "read: nothing is lost" "$(said "$LOSS")" 0
	is "read: and fsd has ended well" "$(said "$BAD")" 0
	ok "mount again" inst_start
fi
use map "a program has stored to a mapping"
stop "mapped" 1
is "mapped: it is said what may be lost" "$(said "$LOSS")" 1
is "mapped: and fsd has ended with an error" "$(said "$BAD")" 1

ok "mount again" inst_start
is "what was synced is there" "$(head -c 6 "$MNT/file")" synced
use map "a program has stored to a mapping"
kill -9 "$(inst_pid fsd)"
ok "fsd is killed: another one goes on with the mount" wait_for 120 grep -q "goes on at $MNT" "$LOG"
ok "and answers" timeout 120 stat "$MNT/file"
stop "killed" 1
is "killed: it is said what may be lost" "$(said "$LOSS")" 2
is "killed: and fsd has ended with an error" "$(said "$BAD")" 2

ok "mount again" inst_start
is "what was synced is there" "$(head -c 6 "$MNT/file")" synced
use map "a program has a mapping"
kill -9 "$user"; wait "$user" 2>/dev/null
ok "it ends, and what it has stored with it is there" sh -c "tail -c +101 '$MNT/file' | head -c 6 | grep -q stored"
ok "unmount" inst_stop
is "nothing that may be lost then" "$(said "$LOSS")" 2
check_clean "check: clean"
tap_done
