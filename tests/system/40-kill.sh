#!/bin/bash
# kill -9 of serverd, quorumd and blockd under load: applications see a pause and no error.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
KILLS=${KILLS:-$([ -n "${SOAK:-}" ] && echo 20 || echo 3)}
vol_make
inst_conf
ok "mount" inst_start
load_start "$BUILD/tests/posix/churn" "$MNT" 4

for service in serverd quorumd blockd; do
	worst=0
	for i in $(seq "$KILLS"); do
		load_report || break
		was=$done_ops old=$(inst_pid $service)
		kill -9 "$old"
		wait_for 60 restarted $service "$old" || fail "$service: kill $i: it is started again"
		wait_for 120 load_goes_on "$was" || { fail "$service: kill $i: the load goes on" "ops $done_ops, before $was"; break; }
		[ "$longest" -gt "$worst" ] && worst=$longest
	done
	is "$service: no application error in $KILLS kills (longest stall $worst ms)" "$errors" 0
done
load_stop; rc=$?
is "the load ends without an error: ${load_last:-nothing said}" "$rc" 0

# fsd: what it leaves is not of the next one's version (42-restart.sh has the other case).  Its mount dies with
# it, and comes back by itself, also where the kernel remembers the old root.
echo kept >"$MNT/kept" && sync "$MNT" && stat "$MNT" >/dev/null
fsd_of_another_version() {
	old=$(inst_pid fsd)
	kill -STOP "$old"
	printf '\377' | dd of="$TMP/run/keep" bs=1 seek=8 conv=notrunc status=none
	kill -9 "$old"
}
mounted_again() { restarted fsd "$old" && [ "$(cat "$MNT/kept" 2>/dev/null)" = kept ]; }
options() { findmnt -n -o VFS-OPTIONS "$MNT" | tr , '\n' | sort | tr '\n' ' '; }
mount -o remount,bind,nosuid,noexec,noatime "$MNT" || fail "mount options can be set"
had=$(options)
fsd_of_another_version
ok "fsd: what another version left is not gone on from; the mount comes back" wait_for 60 mounted_again
is "fsd: ... with the options that it had" "$(options)" "$had"
mount -o remount,bind,ro,nodev "$MNT" || fail "it can be made read-only"
had=$(options)
fsd_of_another_version
ok "fsd: a read-only mount comes back" wait_for 60 mounted_again
is "fsd: ... with the options that it had" "$(options)" "$had"
nok "fsd: ... which count" touch "$MNT/never"
mount -o remount,bind,rw "$MNT" || fail "it can be made writable"
ok "fsd: and it says so" grep -q "state of an earlier process is not used: another version" "$LOG"
ok "fsd: and can be written" touch "$MNT/after"
ok "unmount" inst_stop
check_clean "clean after the kills"
tap_done
