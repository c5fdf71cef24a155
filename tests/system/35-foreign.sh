#!/bin/bash
# A mount as programs see it that were written for something else: the ioctls from the interface's text alone, a reader of
# the index while services are killed, copies of files that are being stored to through mappings, and each errno, time and
# mode of a list as xfs has them in the same run.
. "$(dirname "$0")/../lib/common.sh"
vol_make
inst_conf
ok "mount" inst_start
chmod 711 "$TMP"
chmod 777 "$MNT"
foreign() { mkdir -p "$MNT/$1" && timeout 240 "$BUILD/tests/posix/foreign" "$1" "$MNT/$1" "${@:2}"; }

ok "ioctls: arguments, refusals and their order, 32-bit programs" foreign rules
ok "400 threads that ask at once are all answered" foreign crowd
ok "what moves meta_seq, data_seq and data_version, and what does not" foreign seqs

# ---- killed in the middle: nothing is missing in the index, nothing comes behind its reader
foreign follow "${SECONDS_FOLLOWED:-8}" 7 >"$TMP/follow" 2>&1 & follow=$!
for s in fsd serverd fsd; do
	sleep 1.5	# in between it works; nothing depends on how long
	kill -9 "$(inst_pid $s)"
done
wait $follow; rc=$?
is "a reader of the index misses nothing: $(tail -n 1 "$TMP/follow")" $rc 0

# ---- stores to mappings that the kernel has not written back, over two kills
mkfifo "$TMP/go"
foreign holes <"$TMP/go" >"$TMP/holes" 2>&1 & holes=$!
exec 5<>"$TMP/go"
stored() { [ "$(grep -c stored "$TMP/holes")" -ge "$1" ] || no_process $holes; }
served() { timeout 30 stat "$MNT/holes"; }
for i in 1 2 3 4; do
	wait_for 120 stored $i
	[ $i -gt 2 ] || kill -9 "$(inst_pid fsd)"
	wait_for 120 served
	echo on >&5
done
wait $holes; rc=$?
exec 5>&-
is "SEEK_DATA finds what was stored to mappings of holes, also by an earlier fsd: $(tail -n 1 "$TMP/holes")" $rc 0

# ---- the list, here and there
mkdir "$TMP/xfs" "$MNT/list"
truncate -s 512M "$TMP/xfs.img"
likelocal() { timeout 120 "$BUILD/tests/posix/likelocal" "$1" <"$TOP/tests/posix/likelocal.txt" >"$TMP/$2" 2>&1; }
ok "the list of errnos, times and modes, done here" likelocal "$MNT/list" ours
if mkfs.xfs -q "$TMP/xfs.img" >"$TMP/err" 2>&1 && mount -o loop "$TMP/xfs.img" "$TMP/xfs" 2>"$TMP/err"; then
	mkdir "$TMP/xfs/list"
	ok "the same on xfs" likelocal "$TMP/xfs/list" theirs
	umount "$TMP/xfs"
	is "$(grep -c ' = ' "$TMP/ours") operations: all as on xfs" "$(diff "$TMP/theirs" "$TMP/ours")" ""
else
	skip "xfs cannot be mounted here ($(head -n 1 "$TMP/err")): nothing to compare with"
fi
ok "unmount" inst_stop
check_clean "clean"
tap_done
