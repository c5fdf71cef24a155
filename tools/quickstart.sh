#!/bin/bash
# make quickstart: a volume in two sparse files, its services, a mount, the change index; all of it
# gone again afterwards, whatever fails in between.
set -u
BUILD=${BUILD:-$(cd "$(dirname "$0")/.." && pwd)/build}
PATH=$BUILD:$PATH
[ "$(id -u)" = 0 ] || { echo "quickstart: must be root: it mounts a filesystem" >&2; exit 1; }
[ -c /dev/fuse ] || { echo "quickstart: /dev/fuse is missing: load the fuse module (modprobe fuse), or give this container the device" >&2; exit 1; }
T=$(mktemp -d /tmp/scoutfs-quickstart.XXXXXX)
M=$T/mnt C=$T/tour.conf
step() { printf '\n== %s\n' "$*"; }
show() { printf '   $ %s\n' "$*"; "$@" 2>&1 | sed 's/^/   /'; return "${PIPESTATUS[0]}"; }
die() { echo "quickstart: FAILED: $*" >&2; [ -e "$T/log" ] && { echo "-- what the services said last:"; tail -n 20 "$T/log"; } >&2; exit 1; }
cleanup() {
	rc=$?
	trap - EXIT
	[ -e "$T/run/run.pid" ] && scoutfsctl stop "$C" >/dev/null 2>&1
	for s in run fsd serverd quorumd blockd; do
		[ -e "$T/run/$s.pid" ] && kill -9 "$(cat "$T/run/$s.pid")" 2>/dev/null
	done
	umount -l "$M" 2>/dev/null; umount -l "$T/run" 2>/dev/null
	rm -rf "$T"
	[ $rc = 0 ] && echo && echo "quickstart: done, nothing is left behind."
	exit $rc
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

step "Make a volume: metadata and data each in a sparse file (a real one wants two block devices)"
truncate -s 8G "$T/meta"; truncate -s 16G "$T/data"
mkdir "$M"
PORT=$((20000 + RANDOM % 12000))	# none that the kernel gives to connections, which start at 32768
show scoutfsctl mkfs -A -Q "0,127.0.0.1,$PORT" "$T/meta" "$T/data" || die mkfs
cat > "$C" <<CONF
meta_device = $T/meta
data_device = $T/data
mountpoint = $M
quorum_slot = 0
runtime_dir = $T/run
state_dir = $T/state
CONF

step "Start its services: blockd, quorumd, serverd, fsd (with systemd: systemctl start scoutfs@NAME)"
show scoutfsctl run -d -l "$T/log" "$C" || die "the services did not come up"
show scoutfsctl status "$C"

step "Ask what has changed since the beginning of time: only the root directory exists"
show scoutfsctl walk-inodes meta_seq 0 -1 "$M" || die walk-inodes

step "Copy /usr/include in, and make it durable (sync DIR; plain sync does not reach a FUSE filesystem)"
seq=$(scoutfsctl walk-inodes meta_seq 0 -1 "$M" | awk '!/^#/ {m = $2} END {print m + 1}')
show cp -a /usr/include "$M/" || die copy
show sync "$M" || die sync

step "Ask what is new since seq $seq: just what was copied"
scoutfsctl walk-inodes meta_seq "$seq" -1 "$M" >"$T/new" || die walk-inodes
head -4 "$T/new" | sed 's/^/   /'
new=$(grep -vc '^#' "$T/new") want=$(($(find /usr/include | wc -l) + 1))
echo "   ... $new changed inodes: $((want - 1)) files and directories copied, and the root directory"
# hard links make one inode of several names
[ "$new" -le "$want" ] && [ "$new" -gt 0 ] || die "the index lists $new inodes, the copy has $want"
seq=$(awk '!/^#/ && $2 > m {m = $2} END {print m + 1}' "$T/new")

step "Nothing has changed since then, and the index says so without touching an inode"
show scoutfsctl walk-inodes meta_seq "$seq" -1 "$M" || die walk-inodes

step "Touch one file: one entry appears, and its path is found from the inode number"
f=$(cd "$M" && find include -type f | sort | head -1)
show touch -r "/usr/$f" "$M/$f" || die touch
show sync "$M" || die sync
show scoutfsctl walk-inodes meta_seq "$seq" -1 "$M" || die walk-inodes
ino=$(scoutfsctl walk-inodes meta_seq "$seq" -1 "$M" | awk '!/^#/ {print $4}')
[ -n "$ino" ] && [ "$(printf '%s\n' "$ino" | wc -l)" = 1 ] || die "expected one changed inode, got: $ino"
show scoutfsctl ino-path "$ino" -p "$M" || die ino-path

step "Unmount and check every structure on the devices"
show scoutfsctl stop "$C" || die stop
show scoutfsctl check "$T/meta" "$T/data" || die check

step "Mount again and compare with the source: no difference"
show scoutfsctl run -d -l "$T/log" "$C" || die "the services did not come up again"
echo "   \$ rsync -aHAXn --checksum --itemize-changes /usr/include $M/"
rsync -aHAXn --checksum --itemize-changes /usr/include "$M/" >"$T/diff" || die rsync
[ ! -s "$T/diff" ] || { cat "$T/diff"; die "the copy differs"; }
echo "   (it prints nothing)"
show scoutfsctl stop "$C" || die stop
show scoutfsctl check "$T/meta" "$T/data" || die check
