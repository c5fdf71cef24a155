#!/bin/bash
# Devices that answer errors.  What cannot be written is written again until it can, loudly, and nobody is
# told before that it is durable; what cannot be read is an error of whoever wants it, and of nobody else.
# When the device heals everything goes on, and nothing acknowledged is lost.
. "$(dirname "$0")/../lib/common.sh"
FLAKY=$TMP/flaky
flaky_cleanup() {
	local rc=$?
	[ -e "$TMP/run/run.pid" ] && power_cut
	umount -l "$FLAKY" 2>/dev/null
	(exit $rc)
	cleanup
}
trap flaky_cleanup EXIT
vol_make 8G 4G 2>/dev/null
IMAGE_META=$META IMAGE_DATA=$DATA
mkdir "$FLAKY"
"$BUILD/tests/rig/flakydisk" "$FLAKY" meta="$META" data="$DATA" 2>"$TMP/flaky.err" &
ok "devices that can be made to fail" wait_for 90 test -e "$FLAKY/meta"
META=$FLAKY/meta DATA=$FLAKY/data
inst_conf
disk() { echo "$1 $2 $3" >"$FLAKY/ctl"; }
refused() { awk -v d="$1" -v r="$2" '$1 == d && $2 == r {exit !($3 > '"${3:-0}"')}' "$FLAKY/ctl"; }
refused_nr() { awk -v d="$1" -v r="$2" '$1 == d && $2 == r {print $3}' "$FLAKY/ctl"; }
said() { grep -q "$1" "$LOG"; }
alive() { ! no_process "$1"; }
is_io_error() { local out; out=$("$@" 2>&1) && { echo "succeeded: $*"; return 1; }; case $out in *"Input/output error"*) ;; *) echo "$out"; return 1 ;; esac; }
remount() { inst_stop && inst_start; }

ok "mount" inst_start
mkdir "$MNT/d"
head -c 300000 /dev/urandom >"$TMP/before"
ok "a file of before" cp "$TMP/before" "$MNT/d/before"
ok "it is durable" sync "$MNT/d/before"

# $1 device, $2 request, $3 what serves as sign in the log
waits_and_heals() {
	local name=$1-$2 pid had
	head -c 700000 /dev/urandom >"$TMP/$name"
	had=$(refused_nr "$1" "$2")
	disk "$1" "$2" fail
	ok "$1 $2 fails: a write to the mount is taken" cp "$TMP/$name" "$MNT/d/$name"
	sync "$MNT/d/$name" & pid=$!
	ok "$1 $2 fails: the commit is tried, and tried again" wait_for 60 refused "$1" "$2" $((had + 1))
	ok "$1 $2 fails: the log says what and why" wait_for 60 said "$3"
	ok "$1 $2 fails: fsync does not say that it is durable" alive $pid
	ok "$1 $2 fails: reading goes on" cmp "$TMP/$name" "$MNT/d/$name"
	# Not of this file: the kernel keeps its inode locked while it is fsynced.
	ok "$1 $2 fails: so does making" timeout -s KILL 60 mkdir "$MNT/d/$name.dir"
	ok "$1 $2 fails: and renaming" timeout -s KILL 60 mv "$MNT/d/$name.dir" "$MNT/d/$name.new"
	alive $pid || fail "$1 $2 fails: fsync still waits"
	disk "$1" "$2" heal
	ok "$1 $2 heals: fsync ends" wait_for 60 no_process $pid
	wait $pid; is "$1 $2 heals: and well" $? 0
	ok "$1 $2 heals: the new name is durable" sync "$MNT/d"
}
waits_and_heals data write "file data of generation .* cannot be written: Input/output error.*see to the device"
waits_and_heals data flush "file data of generation .* cannot be written: Input/output error"
waits_and_heals meta write "the log tree of generation .* cannot be written: Input/output error"

# ---- serverd dies while its device fails: the next one can neither be elected nor store anything until it heals.
head -c 500000 /dev/urandom >"$TMP/recovery"
old=$(inst_pid serverd) had=$(refused_nr meta write)
another() { local p; p=$(inst_pid serverd 2>/dev/null) && [ -n "$p" ] && [ "$p" != "$old" ] && alive "$p"; }
disk meta write fail
ok "meta write fails, serverd is killed: a write to the mount is taken" cp "$TMP/recovery" "$MNT/d/recovery"
kill -9 "$old"
sync "$MNT/d/recovery" & pid=$!
ok "... another process is started" wait_for 120 another
ok "... what it needs cannot be written" wait_for 120 refused meta write $((had + 1))
ok "... fsync does not say that it is durable" alive $pid
ok "... reading goes on" cmp "$TMP/recovery" "$MNT/d/recovery"
disk meta write heal
ok "meta write heals: fsync ends" wait_for 120 no_process $pid
wait $pid; is "... and well" $? 0
mkdir "$MNT/d/recovery.new" && sync "$MNT/d"
power_cut
ok "mount after a power cut" inst_start
for name in data-write data-flush meta-write recovery; do
	ok "what fsync called durable is there: $name" cmp "$TMP/$name" "$MNT/d/$name"
	ok "and the new name" test -d "$MNT/d/$name.new"
done
ok "what was there before is whole" cmp "$TMP/before" "$MNT/d/before"

# ---- reading.  A new mount has nothing cached but what it has looked at.
ok "a new mount" remount
ok "a name that is known" stat "$MNT/d"
disk data read fail
ok "data read fails: who reads the file gets EIO" is_io_error cat "$MNT/d/before"
ok "data read fails: attributes and names are there" ls -l "$MNT/d/"
ok "data read fails: another file can be written" cp "$TMP/before" "$MNT/d/another"
ok "data read fails: and made durable" sync "$MNT/d/another"
disk data read heal
ok "data read heals: the same file can be read" cmp "$TMP/before" "$MNT/d/before"
ok "a new mount" remount
disk meta read fail
ok "meta read fails: what is not known is an error" is_io_error stat "$MNT/d/before"
ok "meta read fails: the mount is there" mountpoint -q "$MNT"
for s in blockd quorumd serverd fsd; do ok "meta read fails: $s lives" alive "$(inst_pid $s)"; done
disk meta read heal
ok "meta read heals: it is found" stat "$MNT/d/before"
ok "meta read heals: and whole" cmp "$TMP/before" "$MNT/d/before"
ok "unmount" inst_stop
umount "$FLAKY"
META=$IMAGE_META DATA=$IMAGE_DATA
check_clean "clean after all that"
tap_done
