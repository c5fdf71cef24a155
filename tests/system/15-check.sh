#!/bin/bash
# scoutfsctl check on real devices: its exit status, its words in both forms, what it refuses, that it
# writes nothing; and volumes made by the upstream implementation.
. "$(dirname "$0")/../lib/common.sh"

run_check() { out=$("$CTL" check "$@" 2>"$TMP/err"); rc=$?; err=$(cat "$TMP/err"); }
says() { case $2 in *"$3"*) pass "$1" ;; *) fail "$1" "wanted '$3' in: $2" ;; esac; }
no_line() { if grep -q "$3" <<<"$2"; then fail "$1" "$2"; else pass "$1"; fi; }

# Put bytes (hex) at an offset of the super block of a device, with a right checksum.
patch_super() {
	python3 - "$1" "$2" "$3" <<'PY'
import struct, sys
path, off, val = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
f = open(path, 'r+b')
f.seek(65536)
b = bytearray(f.read(4096))
b[off:off + len(val)] = val
crc = 0xffffffff
for byte in b[4:]:
    crc ^= byte
    for _ in range(8):
        crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
struct.pack_into('<I', b, 0, crc)
f.seek(65536)
f.write(b)
PY
}
INODE_COUNT=88 SLOT0_JUNK=128

ok "a volume is made" vol_make 2G 4G
before=$(md5sum <"$META")
run_check "$META" "$DATA"
is "a new volume is clean: status 0" "$rc" 0
is "a new volume has nothing to report but the result" "$(wc -l <<<"$out")" 1
says "the result says clean" "$out" "clean, 0 warnings: 1 inodes"
is "no progress line without a terminal" "$err" ""
is "nothing was written to the device" "$(md5sum <"$META")" "$before"

run_check --json "$META" "$DATA"
is "--json: status 0" "$rc" 0
is "--json: one result" "$(python3 -c 'import json, sys
r = [json.loads(l) for l in sys.stdin]
print(len(r), r[-1]["kind"], r[-1]["findings"], r[-1]["cleanly_unmounted"])' <<<"$out")" "1 result 0 True"

cp --sparse=always "$META" "$TMP/spoiled"
patch_super "$TMP/spoiled" $INODE_COUNT 0700000000000000
run_check "$TMP/spoiled" "$DATA"
is "a wrong inode count: status 1" "$rc" 1
says "a wrong inode count is F28" "$out" "F28: the volume counts 7 inodes, there are 1"
is "a wrong inode count is nothing else" "$(grep -c '^F' <<<"$out")" 1
run_check --json "$TMP/spoiled" "$DATA"
is "--json: the finding and its count" "$(python3 -c 'import json, sys
r = [json.loads(l) for l in sys.stdin]
print(r[0]["kind"], r[0]["invariant"], r[-1]["by_invariant"])' <<<"$out")" "finding 28 {'28': 1}"
is "a full output device: status 2" "$("$CTL" check "$META" "$DATA" >/dev/full 2>/dev/null; echo $?)" 2

# One byte of the root b-tree block, without its checksum
cp --sparse=always "$META" "$TMP/spoiled"
printf 'x' | dd of="$TMP/spoiled" bs=1 seek=$((2 * 65536 + 40000)) conv=notrunc status=none
run_check "$TMP/spoiled" "$DATA"
is "a damaged block: status 1" "$rc" 1
says "a damaged block is F1 and named" "$out" "[block 2]"
says "what could not be checked is said" "$out" "note: not checked: files and directories"

# What it refuses to run on
cp --sparse=always "$META" "$TMP/spoiled"
dd if=/dev/zero of="$TMP/spoiled" bs=4096 seek=16 count=1 conv=notrunc status=none
run_check "$TMP/spoiled" "$DATA"
is "no super block: status 2" "$rc" 2
says "no super block: the device is named" "$err" "$TMP/spoiled"
run_check "$DATA" "$META"
is "devices swapped: status 2" "$rc" 2
run_check "$TMP/missing" "$DATA"
is "no such device: status 2" "$rc" 2
cp --sparse=always "$META" "$TMP/short"
truncate -s 1G "$TMP/short"
run_check "$TMP/short" "$DATA"
is "a truncated device: status 2" "$rc" 2
exec 9<"$META"
flock -x 9
run_check "$META" "$DATA"
is "a device in use: status 2" "$rc" 2
exec 9<&-
run_check --nonsense "$META" "$DATA"
is "an unknown option: a wrong command line" "$rc" 64
is "an unknown option is named, once" "$(grep -c -e --nonsense <<<"$err")" 1
run_check "$META"
is "one device only: a wrong command line" "$rc" 64
rm -f "$TMP/spoiled" "$TMP/short"

V=$SHARED/volumes
if [ ! -e "$V/volumes.tar.zst" ]; then
	skip "no $V: the volumes of the upstream implementation are not beside this clone"
	tap_done
fi
ok "volumes of the upstream implementation are unpacked" tar --zstd --sparse -xf "$V/volumes.tar.zst" -C "$TMP"

run_check "$TMP/A-clean-unmerged/meta.img" "$TMP/A-clean-unmerged/data.img"
is "A: status 0" "$rc" 0
no_line "A: no finding" "$out" '^F'
no_line "A: was cleanly unmounted" "$out" 'not cleanly unmounted'
says "A: all of it was looked at" "$out" "2859 inodes"

run_check "$TMP/B-clean-merged/meta.img" "$TMP/B-clean-merged/data.img"
is "B: status 0" "$rc" 0
no_line "B: no finding" "$out" '^F'
is "B: one block that upstream lost, as a warning (decisions/0002)" "$(grep '^W15' <<<"$out" | grep -o '\[block .*')" "[block 50047]"
says "B: all of it was looked at" "$out" "2859 inodes"

run_check "$TMP/C-crashed/meta.img" "$TMP/C-crashed/data.img"
is "C: status 0" "$rc" 0
no_line "C: no finding in the committed state" "$out" '^F'
says "C: its slot and rid are named" "$out" "not cleanly unmounted: quorum slot 0 was in use by rid ff504fb8821d8756"
says "C: its open transaction is named" "$out" "transaction 103 of rid ff504fb8821d8756 is open"
says "C: the result says what was checked" "$out" "clean as of its last commit"
run_check --json "$TMP/C-crashed/meta.img" "$TMP/C-crashed/data.img"
says "C: --json says that it was not cleanly unmounted" "$out" '"cleanly_unmounted":false'

# The same leak on a volume of our own mkfs is a finding: the junk behind the slot's address is the proof
for f in meta data; do
	patch_super "$TMP/B-clean-merged/$f.img" $SLOT0_JUNK "$(printf '00%.0s' $(seq 24))"
done
run_check "$TMP/B-clean-merged/meta.img" "$TMP/B-clean-merged/data.img"
is "B without upstream's marks: status 1" "$rc" 1
says "B without upstream's marks: the leak is F15" "$out" "F15: a large block is neither used nor free: it holds a b-tree block [block 50047]"
tap_done
