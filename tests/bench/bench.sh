#!/bin/bash
# make bench: ratios to a do-nothing FUSE server (the ceiling) and to xfs, in one run, medians of
# $RUNS.  Never bare numbers: machines are shared and noisy.
#
# The volume and xfs stand on the same: loop devices that pass every request on to files (direct I/O), where
# the part of the files that they will use was written beforehand.  A loop device's page cache is one that no
# disk has; and a flush of a file that has got new blocks makes the filesystem below commit its journal,
# which no disk does either, and which would meet the volume (it never writes a block in place) but not
# the log of xfs (mkfs.xfs has written that).  What of this is not possible here is said and left out, for both.
export LC_ALL=C
. "$(dirname "$0")/../lib/common.sh"
RUNS=${RUNS:-3} FILES=${FILES:-20000} THREADS=${THREADS:-4} WALK_FILES=${WALK_FILES:-100000}
BIG=${BIG:-1024}	# MiB
XFS=$TMP/xfs NUL=$TMP/nullfs
mkdir -p "$XFS" "$NUL"
META_FILE=$META DATA_FILE=$DATA XFS_FILE=$TMP/xfs.img LOOPS=() IS_WRITTEN=0
# MiB of each file that are used: FIRST COUNT.  The format begins its free metadata in two places.  A volume takes what
# has not been used yet before what was given back, so it goes on with each run, as far as there is more; xfs does not.
least() { echo $(($1 < $2 ? $1 : $2)); }
META_USED=(0 1024 4096 "$(least $((80 + RUNS * 427)) 4096)") DATA_USED=(0 "$(least $((420 + RUNS * (BIG + 135))) 16384)")
XFS_USED=(0 $((2 * BIG + 1024)))
# A device that is in use goes with its last user.
loops_detach() { [ ${#LOOPS[@]} = 0 ] || losetup -d "${LOOPS[@]}" 2>/dev/null; LOOPS=(); }
bench_cleanup() {
	local rc=$?
	umount -l "$NUL" 2>/dev/null; umount "$XFS" 2>/dev/null
	loops_detach
	(exit "$rc")	# cleanup keeps it
	cleanup
}
trap bench_cleanup EXIT
stop_here() { echo "bench: $1" >&2; [ ! -s "$TMP/err" ] || cat "$TMP/err" >&2; exit 1; }
loop_attach() { local dev; dev=$(losetup --find --show $DIO "$1" 2>"$TMP/err") || return 1; LOOPS+=("$dev"); }
loops_attach() { loops_detach; loop_attach "$XFS_FILE" && loop_attach "$META_FILE" && loop_attach "$DATA_FILE"; }
free_mib() { df -B1M --output=avail "$TMP" | tail -n 1 | tr -d ' '; }
used_mib() { local f; for f; do stat -c '%b' "$f"; done | awk '{n += $1} END {print int(n / 2048)}'; }
sum_mib() { local n=0; while [ $# -gt 0 ]; do n=$((n + $2)); shift 2; done; echo "$n"; }
write_used() {
	local file=$1 part
	shift
	# past the page cache where that is possible: what stays there would be in the way of direct I/O later
	while [ $# -gt 0 ]; do
		part=(if=/dev/zero of="$file" bs=1M seek="$1" count="$2" "conv=notrunc,fsync" status=none)
		dd oflag=direct "${part[@]}" 2>/dev/null || dd "${part[@]}" 2>"$TMP/err" || stop_here "$file cannot be written"
		shift 2
	done
}
media_make() {
	local half why
	truncate -s 8G "$META_FILE"; truncate -s 16G "$DATA_FILE"; truncate -s "${XFS_USED[1]}M" "$XFS_FILE"
	FULL=$(sum_mib "${META_USED[@]}" "${DATA_USED[@]}" "${XFS_USED[@]}") half=$(((RUNS + 1) * BIG + 3072))
	if [ "$(stat -f -c %T "$TMP")" != tmpfs ] && [ "$(free_mib)" -ge $((FULL + 2048)) ]; then
		IS_WRITTEN=1
		write_used "$META_FILE" "${META_USED[@]}"; write_used "$DATA_FILE" "${DATA_USED[@]}"; write_used "$XFS_FILE" "${XFS_USED[@]}"
		FILES_ARE="files that were written beforehand ($FULL MiB)"
	elif [ "$(free_mib)" -ge "$half" ]; then
		FILES_ARE="sparse files ($(free_mib) MiB are free in ${TMPDIR:-/tmp}; to write them beforehand takes a disk with $((FULL + 2048)))"
	else
		stop_here "$half MiB are needed in ${TMPDIR:-/tmp}, $(free_mib) are free: name another place in TMPDIR, or a smaller BIG or RUNS"
	fi
	if DIO=--direct-io=on && loops_attach; then
		echo "Volume and xfs: on loop devices with direct I/O over $FILES_ARE."
	elif DIO= && loops_attach; then
		echo "Volume and xfs: on loop devices without direct I/O, over $FILES_ARE."
	elif why=$(head -n 1 "$TMP/err") && loops_detach && loop_attach "$XFS_FILE"; then
		echo "Volume on, xfs on a loop device over $FILES_ARE: no loop devices for the volume ($why)."
		return
	else
		stop_here "xfs cannot be mounted here: there is no loop device"
	fi
	META=${LOOPS[1]} DATA=${LOOPS[2]}
}

media_make
# -K: what was written is not given back
{ mkfs.xfs -q -K "${LOOPS[0]}" && mount "${LOOPS[0]}" "$XFS"; } 2>"$TMP/err" ||
	stop_here "xfs cannot be mounted here (mkfs.xfs, a loop device and the xfs module are needed)"
"$BUILD/tests/bench/nullfs" -o fsname=nullfs "$NUL" || stop_here "nullfs does not mount"
"$CTL" mkfs -f -A -Q "0,127.0.0.1,$PORT" "$META" "$DATA" >/dev/null 2>"$TMP/err" || stop_here "mkfs fails"
inst_conf cache_size=512M pool_size=512M
inst_start >/dev/null || { echo "bench: scoutfs does not start" >&2; cat "$LOG" >&2; exit 1; }
loops_detach	# they are in use: they go when that ends, however it comes about

median() { sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
# Of a program, without the shell that starts it.
seconds() { "$BUILD/tests/bench/took" "$@" || { echo "bench: failed: $*" >&2; exit 1; }; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.2f", a / b; else printf "-"}'; }
row() { printf '| %-34s | %10s | %10s | %s |\n' "$@"; }

copy_time() { seconds cp -a /usr/include "$1/inc" && rm -r "$1/inc"; }
drop() { sync; echo 3 >/proc/sys/vm/drop_caches 2>/dev/null; }

echo "| what | to nullfs | to xfs | aim |"
echo "| --- | --- | --- | --- |"
for _ in $(seq "$RUNS"); do
	"$BUILD/tests/bench/mdrate" "$FILES" "$THREADS" "$NUL" "$XFS" "$MNT" >"$TMP/md" || exit 1
	{ read -r nul; read -r xfs; read -r mnt; } <"$TMP/md"
	echo "$nul" >>"$TMP/md.NUL"; echo "$xfs" >>"$TMP/md.XFS"; echo "$mnt" >>"$TMP/md.MNT"
done
col() { awk -v c="$2" '{print $c}' "$TMP/md.$1" | median; }
i=2
for what in create "warm stat" readdir unlink; do
	ours=$(col MNT $i)
	case $what in create | unlink) aim="0.40 of nullfs" ;; "warm stat") aim="0.80 of xfs" ;; *) aim="" ;; esac
	row "$what (rate)" "$(ratio "$ours" "$(col NUL $i)")" "$(ratio "$ours" "$(col XFS $i)")" "$aim"
	i=$((i + 2))
done
for _ in $(seq "$RUNS"); do
	for fs in XFS MNT; do copy_time "${!fs}" >>"$TMP/cp.$fs" || exit 1; done
done
row "copy of /usr/include (time)" - "$(ratio "$(median <"$TMP/cp.MNT")" "$(median <"$TMP/cp.XFS")")" ""
for _ in $(seq "$RUNS"); do
	for fs in XFS MNT; do
		seconds dd if=/dev/zero of="${!fs}/big" bs=1M count="$BIG" conv=fsync status=none >>"$TMP/bw.$fs" || exit 1
		drop
		seconds dd if="${!fs}/big" of=/dev/null bs=1M status=none >>"$TMP/br.$fs" || exit 1
		rm "${!fs}/big"
	done
done
# short turns, so that both see the same noise
for _ in $(seq $((5 * RUNS))); do
	for fs in XFS MNT; do
		"$BUILD/tests/bench/syncwrite" "${!fs}/small" 50 >>"$TMP/sf.$fs" || exit 1
	done
done
row "$BIG MiB write + fsync (time)" - "$(ratio "$(median <"$TMP/bw.MNT")" "$(median <"$TMP/bw.XFS")")" ""
row "$BIG MiB cold read (time)" - "$(ratio "$(median <"$TMP/br.MNT")" "$(median <"$TMP/br.XFS")")" ""
row "4 KiB write + fsync (time)" - "$(ratio "$(median <"$TMP/sf.MNT")" "$(median <"$TMP/sf.XFS")")" "4.00 of xfs"

"$BUILD/tests/posix/mkfiles" "$MNT" "$WALK_FILES" 100 || exit 1
sync "$MNT"
touch "$MNT/stamp"; sync "$MNT"
seq=$("$CTL" walk-inodes meta_seq 0 -1 "$MNT" | awk '!/^#/ && $2 > m {m = $2} END {print m + 1}')
for k in $(seq 10); do touch "$MNT/d$k/f$k"; done
sync "$MNT"
for _ in $(seq $((5 * RUNS))); do
	seconds "$CTL" walk-inodes meta_seq "$seq" -1 "$MNT" >>"$TMP/walk" || exit 1
	seconds find "$MNT" -newer "$MNT/stamp" >>"$TMP/find" || exit 1
done
is_ten=$("$CTL" walk-inodes meta_seq "$seq" -1 "$MNT" | grep -vc '^#')
[ "$is_ten" = 10 ] || { echo "bench: walk-inodes lists $is_ten changes instead of 10" >&2; exit 1; }
row "find -newer / walk-inodes, 10 of $WALK_FILES" - "$(ratio "$(median <"$TMP/find")" "$(median <"$TMP/walk")") x faster" "100 x"
inst_stop >/dev/null
# used_more FILE FIRST COUNT...
used_more() {
	local more=$(($(used_mib "$1") - $(sum_mib "${@:2}")))
	[ "$more" -le 64 ] || echo "Of $(basename "$1") $more MiB more were used than had been written beforehand."
}
if [ "$IS_WRITTEN" = 1 ]; then
	used_more "$META_FILE" "${META_USED[@]}"; used_more "$DATA_FILE" "${DATA_USED[@]}"; used_more "$XFS_FILE" "${XFS_USED[@]}"
fi
"$CTL" check "$META_FILE" "$DATA_FILE" >/dev/null || { echo "bench: the volume is not clean afterwards" >&2; exit 1; }
