#!/bin/bash
# What depends on the kernel: one before Linux 6.9 sends no request again, so a planned restart of fsd sees to it that each has its
# answer; one before 6.16 asks for every name, as others do with name_cache = no, where mounts inside the volume stay.  The
# mount point has a blank in its name.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
export SCOUTFS_TEST_OLD_KERNEL=1
MNT="$TMP/my mount"
vol_make
inst_conf name_cache=no
ok "mount" inst_start

# a lock that somebody waits for, and unlocks and ioctls all the time
echo locked >"$MNT/locked"
flock "$MNT/locked" sleep 1000 & holder=$!
has_lock() { ! flock -n "$MNT/locked" true; }
wait_for 30 has_lock || fail "the lock is held"
flock "$MNT/locked" true 2>"$TMP/waiter" & waiter=$!
somebody_waits() { [ "$("$CTL" status -v "$CONF" | awk '$1 == "advisory_locks_waiting" { print $2; exit }')" = 1 ]; }
ok "a program waits for a lock" wait_for 30 somebody_waits
( while [ ! -e "$TMP/enough" ]; do
	flock "$MNT/other" true && "$CTL" ino-path 1 -p "$MNT" >/dev/null && "$CTL" stat "$MNT" >/dev/null || echo "$?" >>"$TMP/wrong"
done ) & busy=$!
exec {open}>"$MNT/open"
for i in 1 2 3 4 5 6; do
	old=$(inst_pid fsd)
	ok "a planned restart of fsd ($i)" "$CTL" restart fsd "$CONF"
	wait_for 60 restarted fsd "$old" || fail "fsd is started again ($i)"
	say() { echo "$1" >&"$open"; }
	ok "an open file goes on" say "$i"
done
touch "$TMP/enough"
ends() { ! kill -0 "$1" 2>/dev/null; }
ok "no unlock and no ioctl is left without an answer" wait_for 30 ends $busy
is "nor has one an error" "$(cat "$TMP/wrong" 2>/dev/null)" ""
ok "who waited for a lock was interrupted" wait_for 30 ends $waiter
nok "the lock is still held" flock -n "$MNT/locked" true
is "what was written is there" "$(tr '\n' ' ' <"$MNT/open")" "1 2 3 4 5 6 "
is "no program was cut off" "$(grep -c "cannot send again\|its service has died" "$LOG")" 0
{ pkill -P $holder; kill $holder; } 2>/dev/null
exec {open}>&-

# a kill ends such a mount; it comes back with its options, which are found in spite of the blank
echo kept >"$MNT/kept" && sync "$MNT"
mount -o remount,bind,nosuid,nodev "$MNT" || fail "mount options can be set"
options() { findmnt -n -o VFS-OPTIONS "$MNT" | tr , '\n' | sort | tr '\n' ' '; }
had=$(options) old=$(inst_pid fsd)
mounted_again() { restarted fsd "$old" && [ "$(cat "$MNT/kept" 2>/dev/null)" = kept ]; }
kill -9 "$old"
ok "the mount comes back after a kill" wait_for 60 mounted_again
is "with the options that it had" "$(options)" "$had"

# a mount inside: all names are let go when the lease is lost, and this one stays
mkdir "$MNT/inside" && mount -t tmpfs none "$MNT/inside" && touch "$MNT/inside/there" || fail "tmpfs inside the volume"
leases_lost() { grep -c "this mount's lease has run out" "$LOG"; }
lost=$(leases_lost)
another_is_lost() { [ "$(leases_lost)" -gt "$lost" ]; }
kill -STOP "$(inst_pid serverd)"
ok "the lease runs out" wait_for 60 another_is_lost
kill -CONT "$(inst_pid serverd)"
wait_for 60 cat "$MNT/kept" >/dev/null 2>&1
ok "what is mounted inside stays when the kernel's names are let go" test -e "$MNT/inside/there"
umount "$MNT/inside"
ok "unmount" inst_stop
check_clean "clean after the restarts"
tap_done
