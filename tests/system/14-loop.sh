#!/bin/bash
# Volumes in files and loop devices over them: who uses one by its other name is not overlooked.  What is promised: a file whose
# loop device is in use (mounted, a part of the device mapper, held, also through a hard link, a bind mount, or a loop device
# over the loop device) is refused by mkfs, check, the offline readers and change-quorum-config, with the loop device's name; a
# loop device over a file that an instance serves is refused, with the pid; loop devices over one file are not mixed
# up where they are over different parts of it; and what nobody uses is not in the way.
. "$(dirname "$0")/../lib/common.sh"
LOOPS=()
ours() {
	local l
	dmsetup remove "scoutfstest$$" 2>/dev/null
	umount -l "$TMP/mounted" "$TMP/bound" 2>/dev/null
	for l in "${LOOPS[@]}"; do losetup -d "$l" 2>/dev/null; done
}
trap 'rc=$?; ours; (exit $rc); cleanup' EXIT
if [ ! -e /dev/loop-control ]; then
	fail "a loop device" "no /dev/loop-control: load the loop module"
	tap_done
fi
# attach NAME FILE [losetup options]: the device in $NAME
attach() {
	local name=$1 file=$2 dev; shift 2
	dev=$(losetup -f --show "$@" "$file" 2>&1) || { fail "a loop device for $file" "losetup: $dev"; tap_done; }
	LOOPS+=("$dev")
	printf -v "$name" %s "$dev"
}
# detach DEVICE FILE: it is gone when losetup knows none for the file (somebody may just look at it)
bound() { losetup -j "$2" | grep -q "^$1:"; }
detach() { losetup -d "$1"; wait_for 60 not_bound "$1" "$2" || fail "$1 is let go of"; }
not_bound() { ! bound "$@"; }
refused() {
	local t=$1 pattern=$2 out rc; shift 2
	out=$(timeout 120 "$@" 2>&1); rc=$?
	if [ $rc = 0 ]; then fail "$t" "succeeded: $*"
	elif ! grep -qE -- "$pattern" <<<"$out"; then fail "$t" "status $rc, said: $out"
	else pass "$t"; fi
}
sum() { dd if="$1" bs=64K count=64 status=none | sha256sum; }
M=$TMP/m D=$TMP/d
Q=(-A -Q "0,127.0.0.1,$PORT")
MKFS=("$CTL" mkfs "${Q[@]}" -f -f)
truncate -s 256M "$M"; truncate -s 128M "$D"
mkdir "$TMP/mounted" "$TMP/bound" "$TMP/dir"
ok "mkfs in two files" "${MKFS[@]}" "$M" "$D"
before=$(sum "$M")

# --- a file whose loop device is in use
attach L "$D"
ok "a loop device that nobody uses is not in the way: check" "$CTL" check "$M" "$D"
ok "mkfs" "${MKFS[@]}" "$M" "$D"
before=$(sum "$M")
if { mkfs.ext4 -q -F "$L" || mkfs.xfs -q -f "$L"; } 2>/dev/null && mount "$L" "$TMP/mounted"; then
	THROUGH="is in use through the loop device $L, which is over it \(mounted at $TMP/mounted\); release.*losetup -d $L"
	data=$(sum "$D")
	refused "mkfs: mounted" "$D $THROUGH" "${MKFS[@]}" "$M" "$D"
	refused "mkfs: mounted, the metadata" "$D $THROUGH" "${MKFS[@]}" "$D" "$M"
	ln "$D" "$TMP/dir/link"
	refused "mkfs: a hard link" "$TMP/dir/link $THROUGH" "${MKFS[@]}" "$M" "$TMP/dir/link"
	touch "$TMP/bound/x"; mount --bind "$TMP" "$TMP/bound"
	refused "mkfs: through a bind mount" "$TMP/bound/d $THROUGH" "${MKFS[@]}" "$M" "$TMP/bound/d"
	umount "$TMP/bound"
	refused "check" "$D $THROUGH" "$CTL" check "$M" "$D"
	refused "ls" "$D $THROUGH" "$CTL" ls --meta "$M" --data "$D"
	refused "walk-inodes" "$D $THROUGH" "$CTL" walk-inodes --meta "$D" --data "$M" meta_seq 0 -1
	refused "change-quorum-config" "$D $THROUGH" "$CTL" change-quorum-config -Q "0,127.0.0.1,$PORT" -F "$D"
	attach L2 "$D"
	refused "another loop device over the same file" "$L2 $THROUGH" "${MKFS[@]}" "$M" "$L2"
	detach "$L2" "$D"
	attach L2 "$D" --offset $((96 << 20))
	refused "one over a part of it" "$L2 $THROUGH" "${MKFS[@]}" "$M" "$L2"
	detach "$L2" "$D"
	is "nothing was written by any of these" "$(sum "$M") $(sum "$D")" "$before $data"
	umount "$TMP/mounted"
else
	fail "a mounted file system" "neither ext4 nor xfs can be made and mounted here"
fi
attach L2 "$L"
exec {held}<"$L2"
if mount "$L2" "$TMP/mounted"; then
	refused "a loop device over the loop device" "$D is in use through the loop device $L2.*mounted at $TMP/mounted" "${MKFS[@]}" "$M" "$D"
	refused "and the one between" "$L is in use through the loop device $L2" "${MKFS[@]}" "$M" "$L"
	umount "$TMP/mounted"
else
	fail "a loop device over a loop device is mounted"
fi
exec {held}<&-
detach "$L2" "$L"
if dmsetup create "scoutfstest$$" --table "0 1024 linear $L 0" 2>/dev/null; then
	refused "the device mapper has it" "$D is in use through the loop device $L.*scoutfstest$$ of the device mapper" "${MKFS[@]}" "$M" "$D"
	refused "and it itself" "$L is in use \(part of dm-.*scoutfstest$$ of the device mapper\)" "${MKFS[@]}" "$M" "$L"
	dmsetup remove "scoutfstest$$"
else
	skip "no device mapper here"
fi
ok "when it is free again: mkfs" "${MKFS[@]}" "$M" "$D"
ok "and of the loop device" "${MKFS[@]}" "$M" "$L"
refused "one storage for both: a file, then its loop device" "$L is in use|$L is a loop device over $D, which is the other device" "${MKFS[@]}" "$D" "$L"
refused "the other way round" "$D is in use through the loop device $L" "${MKFS[@]}" "$L" "$D"
detach "$L" "$D"

# --- different parts of one file
truncate -s 512M "$TMP/both"
attach P1 "$TMP/both" --sizelimit $((256 << 20))
attach P2 "$TMP/both" --offset $((256 << 20))
ok "two loop devices over two parts of a file: mkfs" "${MKFS[@]}" "$P1" "$P2"
ok "check" "$CTL" check "$P1" "$P2"
META=$P1 DATA=$P2
detach "$P1" "$TMP/both"; detach "$P2" "$TMP/both"

# --- partitions: the kernel keeps them from each other and from the whole
attach P "$TMP/both" -P
addpart "$P" 1 2048 $((128 << 11)) 2>/dev/null
if wait_for 5 test -b "${P}p1"; then
	if { mkfs.ext4 -q -F "${P}p1" || mkfs.xfs -q -f "${P}p1"; } 2>/dev/null && mount "${P}p1" "$TMP/mounted"; then
		refused "a partition is mounted: the whole" "$P is in use \(its partition ${P#/dev/}p1 is mounted at $TMP/mounted\)" "${MKFS[@]}" "$M" "$P"
		refused "and the file" "$TMP/both is in use through the loop device $P.*its partition .* is mounted" "${MKFS[@]}" "$M" "$TMP/both"
		umount "$TMP/mounted"
	else
		fail "a file system on a partition"
	fi
else
	skip "no partitions of loop devices here"
fi
detach "$P" "$TMP/both"

# --- an instance
META=$M DATA=$D
ok "mkfs" vol_make
inst_conf
attach LM "$M"; attach LD "$D"
ok "an instance serves the files; loop devices over them are idle" inst_start
pid=$(inst_pid blockd)
refused "mkfs of a loop device over its metadata" "$LM is a loop device over $M, which is in use by process $pid \(scoutfs-blockd\)" "${MKFS[@]}" "$LM" "$TMP/both"
refused "mkfs of a loop device over its data" "$LD is a loop device over $D, which is in use by process $pid" "${MKFS[@]}" "$TMP/both" "$LD"
refused "check of the loop devices" "$LM is a loop device over $M, which is in use by process $pid" "$CTL" check "$LM" "$LD"
ok "it goes on" sh -c "echo x >'$MNT/file' && sync '$MNT/file'"
ok "unmount" inst_stop
check_clean "check: clean"
detach "$LM" "$M"; detach "$LD" "$D"
attach LM "$M"; attach LD "$D"
inst_conf meta_device="$LM" data_device="$LD"
ok "an instance serves the loop devices" inst_start
pid=$(inst_pid blockd)
refused "mkfs of the file under one" "$M is in use through the loop device $LM, which is over it \(by process $pid \(scoutfs-blockd\)\)" "${MKFS[@]}" "$M" "$TMP/both"
refused "check of the files" "$M is in use through the loop device $LM" "$CTL" check "$M" "$D"
ok "what was written is there" grep -q x "$MNT/file"
ok "unmount" inst_stop
check_clean "check: clean"
tap_done
