#!/bin/bash
# A stop cuts off programs that do not let go of the mount.  What they have stored to mappings and not synced is written back
# first, so that it is there afterwards, nothing is said of a loss, and the process ends well; so it is of a process that has
# gone on with the mount of one that died, which knows nothing of the files that the earlier one opened.  Who goes on storing may
# be cut off between two stores: then either nothing is lost, or it is said.  (Without a leader nothing can be saved, and that is
# said: tests/cluster/89-stop-waiting.sh.)  A stop waits 30 s for the programs: SOAK= does all.
. "$(dirname "$0")/../lib/common.sh"

# user.py PATH MODE READY: makes READY when it is done.  MODE: how it opens the file; "map" - it maps and stores, syncs that, and
# stores again, on all pages; "busy" - it goes on storing a number in both pages, the first one later, and says in READY.n which it was at last.
cat >"$TMP/user.py" <<'PY'
import mmap, os, signal, sys, time
path, mode, ready = sys.argv[1:]
fd = os.open(path, os.O_RDONLY if mode == 'read' else os.O_RDWR)
os.chdir(os.path.dirname(path))
if mode == 'map':
    m = mmap.mmap(fd, 65536)
    m[0:6] = b'synced'
    m.flush()
    for at in range(100, 65536, 4096):
        m[at:at + 6] = b'stored'
    os.close(fd)  # the mapping has it open
open(ready, 'w').close()
if mode == 'busy':
    m = mmap.mmap(fd, 65536)
    nr = os.open(ready + '.n', os.O_RDWR | os.O_CREAT)
    os.truncate(nr, 4096)
    n = mmap.mmap(nr, 4096)
    for i in range(1, 1 << 60):
        b = i.to_bytes(8, 'little')
        for at in range(0, 65536, 4096):
            m[at:at + 8] = b
        n[0:8] = b
        time.sleep(0.0005)
signal.pause()
PY
use() {
	rm -f "$TMP/ready"
	python3 "$TMP/user.py" "$MNT/file" "$1" "$TMP/ready" >"$TMP/user.log" 2>&1 & user=$!
	wait_for 60 test -e "$TMP/ready" && pass "$2" || fail "$2" "$(cat "$TMP/user.log")"
}
stored() { grep -aob stored "$MNT/file" | wc -l; }
said() { grep -cE -- "$1" "$LOG"; }
LOSS="were cut off: what they had stored to mappings and not synced may be lost"
SAVED="what the programs that were cut off had stored to mappings has been written back"
BAD="fsd did not end as it should"
# stop WHAT: the mount in use is stopped
stop() {
	ok "$1: it is stopped" timeout 150 "$CTL" stop "$CONF"
	ok "$1: it was in use" test "$(said "was still in use after 30 s: its programs get errors now")" = $((++cut))
	kill -9 "$user" 2>/dev/null; wait "$user" 2>/dev/null
}
cut=0

vol_make
inst_conf
ok "mount" inst_start
head -c 65536 /dev/zero >"$MNT/file"; sync "$MNT/file"

if [ -n "${SOAK:-}" ]; then
	use read "a program has a file open that it can only read"
	stop "read"
	is "read: nothing is lost" "$(said "$LOSS")" 0
	is "read: and fsd has ended well" "$(said "$BAD")" 0
	ok "mount again" inst_start
fi
use map "a program has stored to a mapping"
stop "mapped"
is "mapped: it was written back" "$(said "$SAVED")" 1
is "mapped: nothing is lost" "$(said "$LOSS")" 0
is "mapped: and fsd has ended well" "$(said "$BAD")" 0

ok "mount again" inst_start
is "what was synced is there" "$(head -c 6 "$MNT/file")" synced
is "and what was stored after that, on all pages" "$(stored)" 16
ok "written anew" dd if=/dev/zero of="$MNT/file" bs=64K count=1 conv=notrunc,fsync status=none
use map "a program has stored to a mapping"
kill -9 "$(inst_pid fsd)"
ok "fsd is killed: another one goes on with the mount" wait_for 120 grep -q "goes on at $MNT" "$LOG"
ok "and answers" timeout 120 stat "$MNT/file"
stop "killed"
is "killed: it was written back" "$(said "$SAVED")" 2
is "killed: nothing is lost" "$(said "$LOSS")" 0
is "killed: and fsd has ended well" "$(said "$BAD")" 0

ok "mount again" inst_start
is "what was synced is there" "$(head -c 6 "$MNT/file")" synced
is "and what was stored after that, on all pages" "$(stored)" 16

if [ -n "${SOAK:-}" ]; then
	use busy "a program goes on storing to a mapping"
	stop "busy"
	ok "mount again" inst_start
	kept=$(od -An -tu8 -N8 "$MNT/file") last=$(od -An -tu8 -N8 "$TMP/ready.n")
	echo "# stored last: $last, kept: $kept, said of a loss: $(said "$LOSS")"
	ok "busy: nothing is lost, or it is said" test "$((kept >= last || $(said "$LOSS") > 0))" = 1
	ok "busy: what is kept is of the last moment" test "$((last - kept))" -lt 1000
	lost=$(said "$LOSS")
fi
use map "a program has a mapping"
kill -9 "$user"; wait "$user" 2>/dev/null
ok "it ends, and what it has stored with it is there" sh -c "tail -c +101 '$MNT/file' | head -c 6 | grep -q stored"
ok "unmount" inst_stop
is "nothing that may be lost then" "$(said "$LOSS")" "${lost:-0}"
check_clean "check: clean"
tap_done
