#!/bin/bash
# make bench: ratios to a do-nothing FUSE server (the ceiling) and to xfs, in one run, medians of
# $RUNS.  Never bare numbers: machines are shared and noisy.  The volume and xfs stand on the same: loop
# devices over sparse files, or, where there are not enough of them, the volume on the files themselves.
export LC_ALL=C
. "$(dirname "$0")/../lib/common.sh"
RUNS=${RUNS:-3} FILES=${FILES:-20000} THREADS=${THREADS:-4} WALK_FILES=${WALK_FILES:-100000}
BIG=${BIG:-1024}	# MiB
XFS=$TMP/xfs NUL=$TMP/nullfs
mkdir -p "$XFS" "$NUL"
META_FILE=$META DATA_FILE=$DATA LOOPS=()
# A device that is in use goes with its last user.
loops_detach() { [ ${#LOOPS[@]} = 0 ] || losetup -d "${LOOPS[@]}" 2>/dev/null; LOOPS=(); }
bench_cleanup() { umount -l "$NUL" 2>/dev/null; umount "$XFS" 2>/dev/null; loops_detach; cleanup; }
trap bench_cleanup EXIT
loop_attach() { local dev; dev=$(losetup --find --show "$1" 2>"$TMP/err") || return 1; LOOPS+=("$dev"); }
volume_make() {
	truncate -s 8G "$META_FILE"; truncate -s 16G "$DATA_FILE"
	if loop_attach "$META_FILE" && loop_attach "$DATA_FILE"; then
		META=${LOOPS[0]} DATA=${LOOPS[1]}
		echo "Volume and xfs: on loop devices over sparse files."
	else
		loops_detach
		echo "Volume on sparse files, xfs on a loop device: no loop devices for the volume ($(head -n 1 "$TMP/err"))."
	fi
	"$CTL" mkfs -f -A -Q "0,127.0.0.1,$PORT" "$META" "$DATA" >/dev/null 2>"$TMP/err" ||
		{ cat "$TMP/err" >&2; exit 1; }
}

truncate -s 12G "$TMP/xfs.img"
mkfs.xfs -q "$TMP/xfs.img" && mount -o loop "$TMP/xfs.img" "$XFS" || { echo "bench: xfs cannot be mounted here (mkfs.xfs, a loop device and the xfs module are needed)" >&2; exit 1; }
"$BUILD/tests/bench/nullfs" -o fsname=nullfs "$NUL" || { echo "bench: nullfs does not mount" >&2; exit 1; }
volume_make
inst_conf cache_size=512M pool_size=512M
inst_start >/dev/null || { echo "bench: scoutfs does not start" >&2; cat "$LOG" >&2; exit 1; }
loops_detach	# blockd has them open: they go when it ends, however that comes about

median() { sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
# no process of ours is in the time: some of what is measured is shorter than the start of date(1)
seconds() { local t0=$EPOCHREALTIME t1; "$@" >/dev/null 2>"$TMP/err" || { cat "$TMP/err" >&2; echo "bench: failed: $*" >&2; exit 1; }; t1=$EPOCHREALTIME; awk -v a="$t0" -v b="$t1" 'BEGIN {printf "%.6f\n", b - a}'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.2f", a / b; else printf "-"}'; }
row() { printf '| %-34s | %10s | %10s | %s |\n' "$@"; }

copy_time() { local t; t=$(seconds cp -a /usr/include "$1/inc"); rm -r "$1/inc"; echo "$t"; }
big_write() { dd if=/dev/zero of="$1/big" bs=1M count="$BIG" conv=fsync status=none; }
big_read() { dd if="$1/big" of=/dev/null bs=1M status=none; }
drop() { sync; echo 3 >/proc/sys/vm/drop_caches 2>/dev/null; }
small_fsync() { dd if=/dev/zero of="$1/small" bs=4k count=50 oflag=sync conv=notrunc status=none; }

echo "| what | to nullfs | to xfs | aim |"
echo "| --- | --- | --- | --- |"
for _ in $(seq "$RUNS"); do
	for fs in NUL XFS MNT; do
		"$BUILD/tests/bench/mdrate" "${!fs}" "$FILES" "$THREADS" >>"$TMP/md.$fs" || exit 1
	done
done
col() { awk -v c="$2" '{print $c}' "$TMP/md.$1" | median; }
i=2
for what in create "warm stat" readdir unlink; do
	ours=$(col MNT $i)
	case $what in create | unlink) aim="0.40 of nullfs" ;; "warm stat") aim="0.80 of xfs" ;; *) aim="" ;; esac
	row "$what (rate)" "$(ratio "$ours" "$(col NUL $i)")" "$(ratio "$ours" "$(col XFS $i)")" "$aim"
	i=$((i + 2))
done
for w in copy_time; do
	for _ in $(seq "$RUNS"); do for fs in XFS MNT; do $w "${!fs}" >>"$TMP/$w.$fs"; done; done
	row "copy of /usr/include (time)" - "$(ratio "$(median <"$TMP/$w.MNT")" "$(median <"$TMP/$w.XFS")")" ""
done
for _ in $(seq "$RUNS"); do
	for fs in XFS MNT; do
		seconds big_write "${!fs}" >>"$TMP/bw.$fs"
		drop
		seconds big_read "${!fs}" >>"$TMP/br.$fs"
		rm "${!fs}/big"
	done
done
# short turns, so that both see the same noise
for _ in $(seq $((5 * RUNS))); do
	for fs in XFS MNT; do
		: >"${!fs}/small"
		seconds small_fsync "${!fs}" >>"$TMP/sf.$fs"
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
walk() { "$CTL" walk-inodes meta_seq "$seq" -1 "$MNT"; }
newer() { find "$MNT" -newer "$MNT/stamp"; }
for _ in $(seq $((5 * RUNS))); do seconds walk >>"$TMP/walk"; seconds newer >>"$TMP/find"; done
is_ten=$(walk | grep -vc '^#')
[ "$is_ten" = 10 ] || { echo "bench: walk-inodes lists $is_ten changes instead of 10" >&2; exit 1; }
row "find -newer / walk-inodes, 10 of $WALK_FILES" - "$(ratio "$(median <"$TMP/find")" "$(median <"$TMP/walk")") x faster" "100 x"
inst_stop >/dev/null
"$CTL" check "$META_FILE" "$DATA_FILE" >/dev/null || { echo "bench: the volume is not clean afterwards" >&2; exit 1; }
