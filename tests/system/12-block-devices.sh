#!/bin/bash
# Block devices (loop devices on sparse files) as a volume: the verbs that open devices, and blockd with
# I/O through it.  What is promised: whatever else holds a device, it is refused and named; one blockd a
# volume; a device that cannot do what a volume needs is refused or served another way, and said so.
. "$(dirname "$0")/../lib/common.sh"
PIDS=()
ours() {
	local p
	for p in "${PIDS[@]}"; do kill -9 "$p" 2>/dev/null && wait "$p" 2>/dev/null; done
	umount -l "$TMP/mounted" 2>/dev/null
	umount -l "$TMP/tmpfs" "$TMP/ramfs" 2>/dev/null
}
trap 'rc=$?; ours; (exit $rc); cleanup' EXIT

if [ ! -e /dev/loop-control ]; then
	fail "a loop device" "no /dev/loop-control: block devices cannot be tried here; load the loop module"
	tap_done
fi
# loop NAME FILE [losetup options]: attaches, the device in $NAME.  It is detached already, as far as it
# can be while our descriptor is open; so however this script ends, the device goes with it.
declare -A LOOP_FD
loop_try() {
	local name=$1 file=$2 fd; shift 2
	for _ in 1 2 3 4 5; do
		why=$(losetup -f --show "$@" "$file" 2>&1) || return 1
		exec {fd}<"$why"
		# Somebody else's losetup -d may have come between.
		if losetup -d "$why" 2>/dev/null && [ "$(blockdev --getsize64 "$why")" != 0 ]; then
			LOOP_FD[$why]=$fd
			printf -v "$name" %s "$why"
			return 0
		fi
		exec {fd}<&-
	done
	return 1
}
loop() { loop_try "$@" || { fail "a loop device for $2" "losetup: $why"; tap_done; }; }
unloop() {
	local fd=${LOOP_FD[$1]}
	exec {fd}<&-
	wait_for 60 sh -c '! losetup "$1"' - "$1" || fail "$1 is let go"
}
# refused TEXT PATTERN CMD...: fails, says PATTERN
refused() {
	local t=$1 pattern=$2 out rc; shift 2
	out=$(timeout 180 "$@" 2>&1); rc=$?
	if [ $rc = 0 ]; then fail "$t" "succeeded: $*"
	elif [ $rc = 124 ]; then fail "$t" "still running after 60 s, said: $out"
	elif ! grep -qE -- "$pattern" <<<"$out"; then fail "$t" "status $rc, said: $out"
	else pass "$t"; fi
}
# Not in a subshell: blockd is our child, $BLOCKD; its messages are in $LOG.
starts() {
	mkdir -p "$TMP/run"
	: >"$LOG"
	"$BUILD/scoutfs-blockd" -f "$CONF" >>"$LOG" 2>&1 &
	BLOCKD=$!
	PIDS+=("$BLOCKD")
	wait_for 60 has_begun
	if grep -q "serving volume" "$LOG"; then pass "$1"; else fail "$1" "$(cat "$LOG")"; fi
}
has_begun() { grep -q "serving volume" "$LOG" || no_process "$BLOCKD"; }
blockd_stop() { kill -TERM "$BLOCKD" 2>/dev/null; wait "$BLOCKD"; }
# The verdicts of a program that speaks TAP become ours, with a name before them.
verdicts() {
	local what=$1 line rc n=0; shift
	while IFS= read -r line; do
		case $line in
		"ok "*) pass "$what: ${line#* - }"; n=$((n + 1)) ;;
		"not ok "*) fail "$what: ${line#* - }"; n=$((n + 1)) ;;
		rc=*) rc=${line#rc=} ;;
		*) echo "# $line" ;;
		esac
	done < <(timeout 300 "$@" 2>&1; echo "rc=$?")
	[ "$n" -gt 0 ] && [ "$rc" = 0 ] || fail "$what: ran to its end" "status $rc after $n verdicts"
}
hold() { # PATH: exclusively open
	rm -f "$TMP/held"
	python3 -c 'import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
open(sys.argv[2], "w").close(); time.sleep(600)' "$1" "$TMP/held" & HOLDER=$!
	PIDS+=("$HOLDER")
	wait_for 60 test -e "$TMP/held"
}
let_go() { kill "$HOLDER"; wait "$HOLDER" 2>/dev/null; }
Q=(-A -Q "0,127.0.0.1,$PORT")
MKFS=("$CTL" mkfs "${Q[@]}")
SECOND=("$BUILD/scoutfs-blockd" -f "$CONF")
sum() { dd if="$1" bs=64K count=16 status=none | sha256sum; }

# --- a volume on two block devices
truncate -s 256M "$TMP/m"; truncate -s 128M "$TMP/d"
loop META "$TMP/m"
loop DATA "$TMP/d"
inst_conf
mkdir -p "$TMP/run"
refused "blockd: an empty block device" "meta_device $META: .*mkfs" "${SECOND[@]}"
ok "mkfs" "${MKFS[@]}" "$META" "$DATA"
check_clean "check"
is "mkfs used the devices' sizes" "$("$CTL" print -S "$META" | awk '/^super/ {for (i = 1; i < NF; i++) if ($i ~ /^total_(meta|data)_blocks$/) printf "%s ", $(i + 1)}')" \
	"$(($(blockdev --getsize64 "$META") / 65536)) $(($(blockdev --getsize64 "$DATA") / 4096)) "
refused "mkfs needs -f for a volume on a block device" "scoutfs volume.*-f" "${MKFS[@]}" "$META" "$DATA"

# --- somebody else has it
before=$(sum "$META")
for which in META DATA; do
	hold "${!which}"
	refused "mkfs: $which is held exclusively" "${!which} is in use" "${MKFS[@]}" "$META" "$DATA" -f
	refused "blockd: $which is held exclusively" "${which,,}_device ${!which}: in use \(mounted, or held" "${SECOND[@]}"
	let_go
done
mkdir -p "$TMP/mounted"
truncate -s 512M "$TMP/other"
loop OTHER "$TMP/other"
if { mkfs.ext4 -q -F "$OTHER" || mkfs.xfs -q -f "$OTHER"; } 2>/dev/null && mount "$OTHER" "$TMP/mounted"; then
	refused "mkfs: a mounted device" "$OTHER is in use" "${MKFS[@]}" "$META" "$OTHER" -f
	refused "blockd: a mounted device" "data_device $OTHER: in use \(mounted, or held" "${SECOND[@]}" -o "data_device=$OTHER"
	umount "$TMP/mounted"
else
	fail "a mounted file system" "neither ext4 nor xfs can be made and mounted here"
fi
is "nothing was written by any of these" "$(sum "$META")" "$before"
refused "blockd: one device for both" "data_device: the same as meta_device" "${SECOND[@]}" -o "data_device=$META"

# --- blockd on them
starts "blockd starts"
nok "and needs no page cache" grep -q "direct I/O is not possible" "$LOG"
refused "a second blockd is told the first's pid" "meta_device $META: in use by process $BLOCKD;" "${SECOND[@]}"
mkdir -p "$TMP/run2"
cp --sparse=always "$TMP/m" "$TMP/m3"
refused "from another runtime directory too" "meta_device $META: in use by process $BLOCKD;" "${SECOND[@]}" -o "runtime_dir=$TMP/run2"
refused "and for the data device alone" "data_device $DATA: in use by process $BLOCKD;" "${SECOND[@]}" -o "meta_device=$TMP/m3" -o "runtime_dir=$TMP/run2"
is "the refused ones leave nothing" "$(ls -A "$TMP/run2")" ""
refused "mkfs is refused meanwhile" "$META is in use" "${MKFS[@]}" "$META" "$DATA" -f -f
refused "and check" "$META is in use" "$CTL" check "$META" "$DATA"
verdicts "io_uring" "$BUILD/tests/bench/blkio" check "$TMP/run/blockd.sock"
ok "the first blockd goes on" kill -0 "$BLOCKD"
blockd_stop; is "blockd stops" $? 0
check_clean "check after blockd"
export SCOUTFS_NO_URING=1
starts "blockd starts with threads"
verdicts "threads" "$BUILD/tests/bench/blkio" check "$TMP/run/blockd.sock"
unset SCOUTFS_NO_URING
kill -9 "$BLOCKD"; wait "$BLOCKD" 2>/dev/null
starts "and again after a kill -9"
blockd_stop

# --- other devices
truncate -s 256M "$TMP/m4"; truncate -s 128M "$TMP/d4"
loop M4 "$TMP/m4" -b 4096
loop D4 "$TMP/d4" -b 4096
is "sectors of 4096 bytes" "$(blockdev --getss "$D4")" 4096
ok "mkfs on them" "${MKFS[@]}" "$M4" "$D4"
META=$M4 DATA=$D4
check_clean "check on them"
inst_conf
starts "blockd starts on them"
verdicts "sectors of 4096 bytes" "$BUILD/tests/bench/blkio" check "$TMP/run/blockd.sock"
blockd_stop
unloop "$D4"
if loop_try big "$TMP/d4" -b 8192; then
	refused "blockd: sectors of 8192 bytes" "data_device $big: its sectors of 8192 bytes are larger" "${SECOND[@]}" -o "data_device=$big"
	refused "mkfs: sectors of 8192 bytes" "$big.*sectors of 8192 bytes" "${MKFS[@]}" "$M4" "$big" -f
	unloop "$big"
else
	echo "# this kernel has no sectors of 8192 bytes: $why"
fi
loop CUT "$TMP/d4" --sizelimit $((100 << 20))
refused "blockd: a device cut short" "data_device $CUT: .*smaller.*has 104857600 bytes" "${SECOND[@]}" -o "data_device=$CUT"
unloop "$CUT"
loop RO "$TMP/d4" -r
refused "blockd: a read-only device" "data_device $RO: is read-only" "${SECOND[@]}" -o "data_device=$RO"
unloop "$RO"
loop D4 "$TMP/d4" --direct-io=on
starts "blockd starts over a loop device with direct I/O, with other sectors"
blockd_stop

# --- where direct I/O is not possible.  ramfs has none; tmpfs has since Linux 6.6.
served() { # FS: a volume in files of it is served, and whether with direct I/O is in $direct
	META=$TMP/$1/m DATA=$TMP/$1/d
	mkdir "$TMP/$1"
	mount -t "$1" none "$TMP/$1" || { fail "$1" "cannot be mounted"; return; }
	truncate -s 128M "$META"; truncate -s 64M "$DATA"
	inst_conf
	ok "$1: mkfs" "${MKFS[@]}" "$META" "$DATA"
	starts "$1: blockd starts"
	direct=yes
	if ! dd if="$DATA" of=/dev/null iflag=direct bs=4096 count=1 status=none 2>/dev/null; then direct=no; fi
	is "$1: blockd says whether it goes through the page cache" "$(grep -c "notice: .*_device $TMP/$1/.: direct I/O is not possible" "$LOG")" "$([ $direct = yes ] && echo 0 || echo 2)"
	verdicts "$1" "$BUILD/tests/bench/blkio" check "$TMP/run/blockd.sock"
	blockd_stop; is "$1: blockd stops" $? 0
	check_clean "$1: check"
	umount "$TMP/$1"
}
served tmpfs
echo "# direct I/O on tmpfs: $direct"
served ramfs
is "ramfs: there was no direct I/O to be had" "$direct" no
tap_done
