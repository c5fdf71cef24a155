#!/bin/bash
# File data on a mount: random operations against memory, several files at once with a pool smaller than
# what is written; the same bytes after a commit, a power cut and a new mount; holes, preallocation,
# appends by several processes, set-user-ID, a full device.
. "$(dirname "$0")/../lib/common.sh"
OPS=${OPS:-$([ -n "${SOAK:-}" ] && echo 20000 || echo 1200)}
SEED=${SEED:-$RANDOM}
echo "# SEED=$SEED"
vol_make 8G 3G
inst_conf pool_size=16M
ok "mount" inst_start
mkdir -p "$TMP/want"

# ---- random operations, verified by the program itself
fsx() { (cd "$TMP/want" && exec timeout 600 "$BUILD/tests/posix/fsx" "$MNT/fsx$1" "$OPS" $((SEED + $1)) "$2"); }
fsx 1 1024 2>"$TMP/fsx1" & p1=$!
fsx 2 256 2>"$TMP/fsx2" & p2=$!
fsx 3 6144 2>"$TMP/fsx3" & p3=$!
for i in 1 2 3; do
	p=p$i
	wait "${!p}"; rc=$?
	is "random operations on file $i agree with memory" "$rc" 0
	[ $rc = 0 ] || sed 's/^/# /' "$TMP/fsx$i"
done

# ---- what was fsynced outlives a power cut
power_cut
ok "mount after a power cut" inst_start
for i in 1 2 3; do ok "fsynced file $i is whole after a power cut" cmp "$MNT/fsx$i" "$TMP/want/fsx$i.want"; done

# ---- much more data than the pool has
python3 -c 'import random, sys
r = random.Random(int(sys.argv[1]))
for i in range(96): sys.stdout.buffer.write(r.randbytes(1 << 20))' "$SEED" >"$TMP/big"
ok "write six times the pool" cp "$TMP/big" "$MNT/big"
ok "it reads back" cmp "$TMP/big" "$MNT/big"
ok "blocks are counted" test "$(stat -c %b "$MNT/big")" = $((96 * 2048))
ok "one block in the middle" dd if=/dev/zero of="$MNT/big" bs=4096 seek=5000 count=1 conv=notrunc status=none
dd if=/dev/zero of="$TMP/big" bs=4096 seek=5000 count=1 conv=notrunc status=none
printf 'three bytes across a block boundary' | dd of="$MNT/big" bs=1 seek=$((8191 * 4096 - 5)) conv=notrunc status=none
printf 'three bytes across a block boundary' | dd of="$TMP/big" bs=1 seek=$((8191 * 4096 - 5)) conv=notrunc status=none

# ---- holes and preallocation
truncate -s 1G "$MNT/sparse"
printf x | dd of="$MNT/sparse" bs=1 seek=$((512 << 20)) conv=notrunc status=none
is "a sparse file has one block" "$(stat -c %b "$MNT/sparse")" 8
is "data is found in a sparse file" "$(python3 -c 'import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
d = os.lseek(f, 0, os.SEEK_DATA); print(d, os.lseek(f, d, os.SEEK_HOLE), os.lseek(f, 0, os.SEEK_HOLE))' "$MNT/sparse")" \
	"$((512 << 20)) $(((512 << 20) + 4096)) 0"
ok "preallocate" fallocate -l 8M "$MNT/pre"
is "preallocated blocks read as zeroes" "$(tr -d '\0' <"$MNT/pre" | wc -c)" 0
is "preallocation makes the file long" "$(stat -c %s "$MNT/pre")" $((8 << 20))
: >"$MNT/keep"
ok "preallocate past the end" fallocate -n -l 4M "$MNT/keep"
is "preallocation may keep the size" "$(stat -c %s "$MNT/keep" 2>/dev/null)" 0
nok "punching holes is refused" fallocate -p -o 0 -l 4096 "$MNT/pre"

# ---- appends by several at once are all there
: >"$MNT/log"
for w in 1 2 3 4; do for i in $(seq 100); do echo "writer $w line $i"; done >"$TMP/lines$w"; done
for w in 1 2 3 4; do
	python3 -c 'import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for line in open(sys.argv[2], "rb"): os.write(f, line)' "$MNT/log" "$TMP/lines$w" & eval "a$w=\$!"
done
for w in 1 2 3 4; do p=a$w; wait "${!p}"; done
is "no appended line is lost or torn" "$(sort "$MNT/log" | md5sum)" "$(cat "$TMP"/lines? | sort | md5sum)"

# ---- writing takes set-user-ID away
cp /bin/true "$MNT/suid"; chmod 6755 "$MNT/suid"; chown 65534:65534 "$MNT/suid"; chmod 6755 "$MNT/suid"
chmod 711 "$TMP"; chmod 777 "$MNT"
ok "its owner writes to a set-user-ID file" setpriv --reuid 65534 --regid 65534 --clear-groups \
	sh -c "printf x >>'$MNT/suid'"
is "writing took set-user-ID away" "$(stat -c %a "$MNT/suid")" 755

# ---- a full data device: an error, nothing lost, room again after deletion
fill() { dd if=/dev/zero of="$MNT/fill" bs=1M count=4096 status=none; }
nok "the data device runs full" fill
out=$(fill 2>&1 | head -1); case $out in *"No space left"*) pass "and says so" ;; *) fail "and says so" "$out" ;; esac
ok "what was there before is whole" cmp "$TMP/big" "$MNT/big"
rm -f "$MNT/fill"
room() { dd if=/dev/zero of="$MNT/again" bs=1M count=64 conv=fsync status=none; }
ok "there is room again after deletion" wait_for 60 room

ok "unmount" inst_stop
check_clean "clean after all that"
ok "mount again" inst_start
ok "the big file is the same after unmount and mount" cmp "$TMP/big" "$MNT/big"
ok "unmount again" inst_stop
tap_done
