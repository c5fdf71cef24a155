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

# ---- reads that wait for another node take no places that write-backs need, which those nodes wait for: 12 by default
is "the kernel may send many requests before the first is answered" "$(unshare -m sh -c 'mount -t fusectl none /sys/fs/fuse/connections &&
	cat "/sys/fs/fuse/connections/$1/max_background"' - "$(mountpoint -d "$MNT" | cut -d: -f2)")" 1024

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

# ---- an append that is greater than a request comes in parts: in their order, also past the kernel's cache
for how in append append,direct; do
	dd if="$TMP/big" of="$MNT/app" bs=8M oflag=$how conv=notrunc status=none
	ok "what is appended in great pieces ($how) is in order" cmp "$TMP/big" "$MNT/app"
	rm -f "$MNT/app"
done

# ---- writing takes set-user-ID away
cp /bin/true "$MNT/suid"; chmod 6755 "$MNT/suid"; chown 65534:65534 "$MNT/suid"; chmod 6755 "$MNT/suid"
chmod 711 "$TMP"; chmod 777 "$MNT"
ok "its owner writes to a set-user-ID file" setpriv --reuid 65534 --regid 65534 --clear-groups \
	sh -c "printf x >>'$MNT/suid'"
is "writing took set-user-ID away" "$(stat -c %a "$MNT/suid")" 755
# who may not keep them: as on a local disk, in each way that changes a file; and what the kernel then executes
as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
suid_file() { cp /usr/bin/id "$MNT/suid2"; chown "${2:-65534:65534}" "$MNT/suid2"; chmod "$1" "$MNT/suid2"; stat -c %a "$MNT/suid2" >/dev/null; }
mode_after() { local t=$1 mode=$2 want=$3; shift 3; suid_file "$mode"; "$@" 2>/dev/null; is "$t" "$(stat -c %a "$MNT/suid2")" "$want"; }
mode_after "a write by another user takes both" 6775 775 as_nobody sh -c "printf x >>'$MNT/suid2'"
mode_after "setgid without group execution is none" 6765 2765 as_nobody sh -c "printf x >>'$MNT/suid2'"
mode_after "truncation takes both" 6775 775 as_nobody truncate -s 100 "$MNT/suid2"
mode_after "O_TRUNC takes both" 6775 775 as_nobody sh -c ": >'$MNT/suid2'"
mode_after "fallocate takes both" 6775 775 as_nobody fallocate -l 8M "$MNT/suid2"
mode_after "chown by root takes both" 6775 775 chown 1:1 "$MNT/suid2"
mode_after "chgrp by the owner takes both" 6775 775 as_nobody chgrp 65534 "$MNT/suid2"
mode_after "root may write and keep them" 6775 6775 sh -c "printf x >>'$MNT/suid2'"
mode_after "root may truncate and keep them" 6775 6775 truncate -s 100 "$MNT/suid2"
suid_file 4777 0:0
is "a setuid file runs as its owner" "$(as_nobody "$MNT/suid2" -u)" 0
as_nobody dd if=/usr/bin/id of="$MNT/suid2" conv=notrunc bs=1M status=none
is "right after a write by another it does not" "$(as_nobody "$MNT/suid2" -u)" 65534
capable() { python3 -c 'import os, sys; os.setxattr(sys.argv[1], "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))' "$MNT/suid2" &&
	getfattr --absolute-names -d -m security.capability "$MNT/suid2" 2>/dev/null | grep -q capability; }
loses() { local t=$1; shift; suid_file 755 65534:65534; capable || fail "$t: has a capability at first"; "$@" 2>/dev/null
	nok "$t" sh -c 'getfattr --absolute-names -d -m security.capability "$1" 2>/dev/null | grep -q capability' - "$MNT/suid2"; }
loses "a write takes file capabilities" sh -c "printf x >>'$MNT/suid2'"
loses "a truncation does" truncate -s 50 "$MNT/suid2"
loses "chown does" chown 1:1 "$MNT/suid2"

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
