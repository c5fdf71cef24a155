#!/bin/bash
# 200,000 files with bounded memory: what a mount holds does not grow with what is on it.
. "$(dirname "$0")/../lib/common.sh"
FILES=200000 DIRS=100
vol_make 8G 16G
inst_conf cache_size=64M pool_size=64M
ok "mount with a cache of 64 MiB" inst_start
ok "$FILES files in $DIRS directories" "$BUILD/tests/posix/mkfiles" "$MNT" "$FILES" "$DIRS"
ok "sync" sync "$MNT"
used=$(du -sb --apparent-size "$TMP/run" | cut -f1)
[ "$used" -le $((64 * 2 * 1048576 + 16 * 1048576)) ] && pass "cache and pool stay in their sizes ($((used >> 20)) MiB)" ||
	fail "cache and pool stay in their sizes" "$used bytes in $TMP/run"
for s in fsd serverd blockd quorumd; do
	rss=$(awk '/^RssAnon/ {print int($2 / 1024)}' "/proc/$(inst_pid $s)/status")
	limit=512
	[ "$rss" -le $limit ] && pass "$s: RssAnon $rss MiB, within $limit" || fail "$s: RssAnon $rss MiB, above $limit"
done
is "every file is in the index" "$("$CTL" walk-inodes data_seq 0 -1 "$MNT" | grep -vc '^#')" "$FILES"
is "every name is listed" "$(find "$MNT" -type f | wc -l)" "$FILES"
for i in 1 $((FILES / 3)) $((FILES - 1)); do
	is "file $i holds its number" "$(cat "$MNT/d$((i % DIRS))/f$i")" "$i"
done
ok "unmount" inst_stop
check_clean "clean with $FILES files"
# What it takes: memory that does not grow with the volume, and about the time that reading the blocks takes.
read -r mib secs blocks < <(python3 -c '
import re, resource, subprocess, sys, time
begin = time.monotonic()
out = subprocess.run(sys.argv[1:], capture_output=True, text=True).stdout
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10, "%.2f" % (time.monotonic() - begin),
      re.search(r"(\d+) metadata blocks", out).group(1))' "$CTL" check "$META" "$DATA")
dd_secs=$(python3 -c '
import sys, time
begin, f = time.monotonic(), open(sys.argv[1], "rb", buffering=0)
for _ in range(int(sys.argv[2])): f.read(65536)
print("%.2f" % (time.monotonic() - begin))' "$META" "$blocks")
[ "${mib:-9999}" -le 160 ] && pass "check: at most $mib MiB; $((blocks / 16)) MiB of blocks in $secs s (read alone: $dd_secs s)" ||
	fail "check: memory is bounded" "$mib MiB"
ok "mount again" inst_start
is "file 7 after the remount" "$(cat "$MNT/d7/f7")" 7
ok "remove one directory" rm -r "$MNT/d7"
ok "unmount again" inst_stop
check_clean "clean after a directory of them was removed"
tap_done
