#!/bin/bash
# The verbs that open devices themselves: mkfs, print, walk-inodes, ls and cat, without any service.
# What is promised: a new volume is byte for byte the format's; nothing that may be wanted is
# overwritten; every kind of wrong device is refused with a message that names it and why.
. "$(dirname "$0")/../lib/common.sh"

M=$TMP/m D=$TMP/d
Q=(-Q 0,127.0.0.1,42000 -Q 1,127.0.0.1,42001 -Q 2,127.0.0.1,42002)
LOOPS=()
HOLDER=
# common.sh's cleanup removes $TMP; before it, let go of what is ours.
ours() {
	local rc=$?
	[ -n "$HOLDER" ] && kill "$HOLDER" 2>/dev/null && wait "$HOLDER" 2>/dev/null
	mountpoint -q "$TMP/full" && umount "$TMP/full"
	for l in "${LOOPS[@]}"; do losetup -d "$l" 2>/dev/null; done
	return $rc
}
trap 'ours; cleanup' EXIT

# Small, since whole files are summed: the format's first blocks take 65 MiB of metadata.
fresh() { rm -f "$M" "$D"; truncate -s 128M "$M"; truncate -s 64M "$D"; }
mkfs() { "$CTL" mkfs "$@"; }
# refused TEXT PATTERN CMD...: fails, says PATTERN on stderr
refused() {
	local t=$1 pattern=$2 out rc; shift 2
	out=$("$@" 2>&1 >/dev/null); rc=$?
	if [ $rc = 0 ]; then fail "$t" "succeeded: $*"
	elif ! grep -qE -- "$pattern" <<<"$out"; then fail "$t" "status $rc, said: $out"
	else pass "$t"; fi
}
bytes() { dd if="$1" bs=1 skip="$2" count="$3" status=none | od -An -tx1 | tr -d ' \n'; }
sum() { sha256sum <"$1"; }
# Change bytes of a file; the checksum of the 4 KiB block at $4, if given, is made right again.
poke() {
	python3 - "$@" <<-'PY'
	import struct, sys
	path, off, data = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
	f = open(path, 'r+b'); f.seek(off); f.write(data)
	if len(sys.argv) > 4:
	    at = int(sys.argv[4]); f.seek(at); b = f.read(4096); crc = 0xffffffff
	    for x in b[4:]:
	        crc ^= x
	        for _ in range(8): crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
	    f.seek(at); f.write(struct.pack('<I', crc))
	PY
}

# --- help
ok "--help prints the groups" grep -q "Archival Agent Support" <("$CTL" --help)
ok "--help names the format versions" grep -q "Supported format version: 1-2" <("$CTL" --help)
for v in mkfs print walk-inodes ls cat stat statfs df ino-path check; do
	ok "$v --help" grep -q "^usage: scoutfsctl $v " <("$CTL" $v --help)
done
"$CTL" nonsense >/dev/null 2>&1; is "an unknown verb exits 1" $? 1
"$CTL" mkfs --nonsense >/dev/null 2>&1; is "an unknown option exits 64" $? 64
for v in stop reload restart resign run status keygen "fence list" check; do
	# shellcheck disable=SC2086
	out=$("$CTL" $v --nonsense 2>&1); is "$v: an unknown option exits 64" $? 64
	ok "$v: and is named" grep -q "^scoutfsctl: ${v% *}: unknown option '--nonsense'" <<<"$out"
done
for v in mkfs print ls cat stat ino-path check change-quorum-config; do
	refused "$v: an unknown letter is named" "unknown option '-y'" "$CTL" $v x -yA
	refused "$v: an unknown word is named" "unknown option '--nonsense'" "$CTL" $v x --nonsense
done
refused "a value that an option does not take" "unknown option '--force=x'" "$CTL" mkfs x --force=x
refused "an option of another verb" "unknown option '--single-field'" "$CTL" df --single-field x
refused "a letter among others" "unknown option '-y'" "$CTL" mkfs --allow-small-size -fAyA x

# --- mkfs: what it makes
fresh
ok "mkfs makes a volume" mkfs "$M" "$D" "${Q[@]}" -A
is "its super is a metadata super" "$(bytes "$M" 65540 4)$(bytes "$M" 65584 8)" 8b423c100100000000000000
is "the data copy is not" "$(bytes "$D" 65540 4)$(bytes "$D" 65584 8)" 8b423c100000000000000000
is "slot 0 is 127.0.0.1:42000 in the format's order" "$(bytes "$M" 65656 8)" 010010a40100007f
is "nothing else lies on the data device" "$(tr -d '\0' <"$D" | wc -c)" \
	"$(dd if="$D" bs=4096 skip=16 count=1 status=none | tr -d '\0' | wc -c)"
is "nothing lies before the super" "$(head -c 65536 "$M" | tr -d '\0' | wc -c)" 0
check_volume() { META=$1 DATA=$2 check_clean "$3"; }
check_volume "$M" "$D" "check finds nothing"
is "ls of a new volume is empty" "$("$CTL" ls --meta "$M" --data "$D")" ""
is "walk-inodes shows the root" "$("$CTL" walk-inodes meta_seq 0 -1 --meta "$M" | awk 'NR == 2 {print $2, $4}')" "0 1"
is "data_seq has nothing" "$("$CTL" walk-inodes data_seq 0 -1 --meta "$M" --data "$D")" ""
ok "print shows fmt_vers" grep -q "fmt_vers 2" <("$CTL" print "$M")
ok "print --json is JSON throughout" sh -c '"$1" print --json "$2" | python3 -c "import sys, json
n = [json.loads(l)[\"kind\"] for l in sys.stdin]
assert n.count(\"quorum_slot\") == 3 and n.count(\"quorum_block\") == 15 and n.count(\"item\") == 8, n"' - "$CTL" "$M"

# A device that is opened as descriptor 2 would get the messages written over its first bytes.
fresh
mkfs "$M" "$D" "${Q[@]}" -A <&- >&- 2>&-; is "without stdin, stdout and stderr mkfs says that its output is lost" $? 1
is "and writes none of it to the devices" "$(head -c 65536 "$M" | tr -d '\0')$(head -c 65536 "$D" | tr -d '\0')" ""
check_volume "$M" "$D" "and has made the volume"
fresh
out=$(mkfs "$M" "$D" -Q 2 --node 10.0.0.1 --node 10.0.0.2:777 --node 10.0.0.3 -A -V 1 2>/dev/null)
is "mkfs of nodes: default and own ports" "$(grep -c -e '0: 10.0.0.1:12345$' -e '1: 10.0.0.2:777$' -e '2: 10.0.0.3:12345$' <<<"$out")" 3
is "version 1 is stored" "$(bytes "$M" 65576 8)" 0100000000000000
check_volume "$M" "$D" "check of version 1"
fresh
ok "several addresses after one --node" mkfs -A -Q 3 --node 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5:9 "$M" "$D"
fresh; truncate -s 2G "$M"; truncate -s 4G "$D"
ok "-m and -d cap the sizes" mkfs "$M" "$D" "${Q[@]}" -A -m 1G -d 3000001K
is "rounded down to blocks" "$("$CTL" print -S "$M" | awk '/^super/ {for (i = 1; i < NF; i++) if ($i ~ /^total_(meta|data)_blocks$/) printf "%s ", $(i + 1)}')" "16384 750000 "
fresh; truncate -s 16G "$D"
ok "-z sets the zone size" mkfs "$M" "$D" "${Q[@]}" -A -z 1048576
ok "print shows the zone size" grep -q "data_alloc_zone_blocks 1048576" <("$CTL" print -S "$M")

# --- mkfs: what it refuses, with nothing written
fresh
untouched() { is "nothing was written: $1" "$(cat "$M" "$D" | tr -d '\0' | wc -c)" 0; }
refused "no slot" "quorum slot is needed" mkfs "$M" "$D" -A
refused "slot number 15" "from 0 to 14" mkfs "$M" "$D" -A -Q 15,10.0.0.1,1
refused "slot twice" "given twice" mkfs "$M" "$D" -A -Q 1,10.0.0.1,1 -Q 1,10.0.0.2,1
refused "address twice" "same address" mkfs "$M" "$D" -A -Q 1,10.0.0.1,1 -Q 2,10.0.0.1,1
refused "multicast address" "unicast" mkfs "$M" "$D" -A -Q 1,224.0.0.1,1
refused "port 0" "port" mkfs "$M" "$D" -A -Q 1,10.0.0.1,0
refused "port 65536" "port" mkfs "$M" "$D" -A -Q 1,10.0.0.1,65536
refused "no address" "IPv4" mkfs "$M" "$D" -A -Q 1,host,1
refused "a count that is no majority" "majority of 3 nodes is 2" mkfs "$M" "$D" -A -Q 3 --node 10.0.0.1 10.0.0.2 10.0.0.3
refused "a count without nodes" "--node" mkfs "$M" "$D" -A -Q 2
refused "nodes without a count" "-Q 2" mkfs "$M" "$D" -A --node 10.0.0.1 10.0.0.2
refused "both forms" "not both" mkfs "$M" "$D" -A -Q 0,10.0.0.1,1 -Q 1 --node 10.0.0.1
refused "version 3" "1 and 2" mkfs "$M" "$D" -A "${Q[@]}" -V 3
refused "under 64 GiB" "64 GiB" mkfs "$M" "$D" "${Q[@]}"
refused "-m beyond the device" "fewer than" mkfs "$M" "$D" "${Q[@]}" -A -m 1T
refused "-m that is no size" "not a size" mkfs "$M" "$D" "${Q[@]}" -A -m 1X
refused "a zone too small" "1048576" mkfs "$M" "$D" "${Q[@]}" -A -z 1000
refused "one device for both" "same device" mkfs "$M" "$M" "${Q[@]}" -A
ln "$M" "$M.link"
refused "one device by two names" "same device" mkfs "$M" "$M.link" "${Q[@]}" -A
rm "$M.link"
refused "a missing device" "No such file" mkfs "$M" "$TMP/none" "${Q[@]}" -A
refused "a directory" "neither a block device" mkfs "$M" "$TMP" "${Q[@]}" -A
truncate -s 60M "$TMP/small"
refused "metadata too small for the first blocks" "too small" mkfs "$TMP/small" "$D" "${Q[@]}" -A
untouched "after all of these"

mark() { fresh; printf "$3" | dd of="$2" bs=1 seek="$4" conv=notrunc status=none; refused "refuses $1" "$5.*-f" mkfs "$M" "$D" "${Q[@]}" -A; }
mark ext4 "$M" '\x53\xef' 1080 ext4
mark xfs "$D" XFSB 0 xfs
mark btrfs "$D" _BHRfS_M 65600 btrfs
mark LVM "$M" LABELONE 512 LVM
mark swap "$M" SWAPSPACE2 4086 swap
mark GPT "$M" 'EFI PART' 512 GPT
mark MBR "$D" '\x55\xaa' 510 "partition table"
mark LUKS "$D" 'LUKS\xba\xbe' 0 LUKS
mark minix "$M" '\x5a\x4d' 1048 minix
mark cramfs "$D" '\x45\x3d\xcd\x28' 0 cramfs
mark UDF "$D" BEA01 32769 UDF
mark "firmware RAID at the end" "$M" 'Intel Raid ISM Cfg Sig. ' $(((128 << 20) - 1024)) "firmware RAID"
ok "-f overwrites it" mkfs "$M" "$D" "${Q[@]}" -A -f
check_volume "$M" "$D" "check after -f"
before=$(sum "$M")
refused "refuses a scoutfs volume" "scoutfs volume.*-f" mkfs "$M" "$D" "${Q[@]}" -A
is "and leaves it as it was" "$(sum "$M")" "$before"

# --- mkfs that fails half way leaves no volume
# The file system under META takes the clearing of the super but has no room for the rest.
mkdir "$TMP/full"
mount -t tmpfs -o size=256k none "$TMP/full"
truncate -s 2G "$TMP/full/m"
dd if="$M" of="$TMP/full/m" bs=4096 skip=16 seek=16 count=16 conv=notrunc status=none
refused "no room for the metadata" "could not write to '$TMP/full/m'.*No space left" mkfs "$TMP/full/m" "$D" "${Q[@]}" -A -f
is "the old super is gone" "$(dd if="$TMP/full/m" bs=4096 skip=16 count=1 status=none | tr -d '\0' | wc -c)" 0
is "on both devices" "$(dd if="$D" bs=4096 skip=16 count=1 status=none | tr -d '\0' | wc -c)" 0
umount "$TMP/full"

# --- in use
fresh
mkfs "$M" "$D" "${Q[@]}" -A >/dev/null 2>&1
hold() {
	python3 -c "import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | int(sys.argv[3]))
if not int(sys.argv[3]): fcntl.flock(fd, getattr(fcntl, 'LOCK_' + sys.argv[4]))
open(sys.argv[2], 'w').close(); time.sleep(600)" "$1" "$2" "$3" "${4:-EX}" & HOLDER=$!
	wait_for 60 test -e "$2"
}
let_go() { kill "$HOLDER"; wait "$HOLDER" 2>/dev/null; HOLDER=; }
hold "$D" "$TMP/held" 0
before=$(sum "$M")
refused "mkfs refuses a locked device and names the holder" "'?$D'? is in use by process $HOLDER \(python3\)" mkfs "$M" "$D" "${Q[@]}" -A -f
refused "ls refuses it" "in use by process" "$CTL" ls --meta "$M" --data "$D"
ok "print reads it" "$CTL" print "$M"
is "nothing was written" "$(sum "$M")" "$before"
let_go
ok "and reads again when it was let go" wait_for 60 "$CTL" ls --meta "$M" --data "$D"
# udevd holds a new device for a moment, with a shared lock: losetup, then mkfs, is what everybody does.
flock -s "$D" sh -c 'touch "$0"; sleep 0.2' "$TMP/reads" & HOLDER=$!
wait_for 60 test -e "$TMP/reads"
ok "who only reads for a moment is waited for" mkfs "$M" "$D" "${Q[@]}" -A -f
wait "$HOLDER"; HOLDER=
hold "$D" "$TMP/held3" 0 SH
refused "and no longer than that" "in use by process $HOLDER \(python3\)" mkfs "$M" "$D" "${Q[@]}" -A -f
let_go
# A killed blockd has its devices until its last writes have ended: it shows as a zombie while a thread of it is left.
python3 -c "import ctypes, fcntl, os, sys, threading, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
threading.Thread(target=lambda: (time.sleep(2), os._exit(0))).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)" "$D" & HOLDER=$!
is_zombie() { [ "$(cut -d' ' -f3 "/proc/$1/stat")" = Z ]; }
wait_for 60 is_zombie "$HOLDER"
ok "a holder that has died is waited for" "$CTL" ls --meta "$M" --data "$D"
wait "$HOLDER"; HOLDER=

if loop=$(losetup -f --show "$M" 2>/dev/null); then
	LOOPS+=("$loop")
	ok "a block device is read like a file" "$CTL" ls --meta "$loop" --data "$D"
	ok "print reads a block device" "$CTL" print -S "$loop"
	ok "mkfs on a block device" mkfs "$loop" "$D" "${Q[@]}" -A -f
	check_volume "$loop" "$D" "check of a block device"
	hold "$loop" "$TMP/held2" $((0200)) # O_EXCL
	refused "mkfs refuses a block device held exclusively" "$loop is in use" mkfs "$loop" "$D" "${Q[@]}" -A -f
	let_go
	losetup -d "$loop"; LOOPS=()
	wait_for 60 sh -c '! losetup "$1"' - "$loop"
	if loop=$(losetup -r -f --show "$M" 2>/dev/null); then
		LOOPS+=("$loop")
		refused "mkfs refuses a read-only device" "'$loop' is read-only" mkfs "$loop" "$D" "${Q[@]}" -A -f
		losetup -d "$loop"; LOOPS=()
	fi
else
	skip "no loop devices here: block devices not tried"
fi

# --- wrong devices are refused by all readers
fresh; mkfs "$M" "$D" "${Q[@]}" -A >/dev/null 2>&1
cp --sparse=always "$M" "$TMP/m2"; cp --sparse=always "$D" "$TMP/d2"
readers() {
	refused "ls: $1" "$2" "$CTL" ls --meta "$M" --data "$D"
	refused "cat: $1" "$2" "$CTL" cat --meta "$M" --data "$D" /x
	refused "walk-inodes: $1" "$2" "$CTL" walk-inodes meta_seq 0 -1 --meta "$M" --data "$D"
	restore
}
restore() { cp --sparse=always "$TMP/m2" "$M"; cp --sparse=always "$TMP/d2" "$D"; }
poke "$M" 65540 00000000; readers "metadata of no known magic" "$M.*no scoutfs super"
poke "$D" 65540 00000000; readers "data of no known magic" "$D.*no scoutfs super"
poke "$M" 65700 ff; readers "wrong checksum" "$M.*checksum"
poke "$M" 65576 03 65536; readers "version 3" "$M.*version is not 1 or 2"
poke "$D" 65576 01 65536; readers "different versions" "different format versions"
byte=$(od -An -tx1 -j 65592 -N 1 "$D" | tr -d ' ')	# of the fsid, which is random: it may be ff
poke "$D" 65592 "$([ "$byte" = ff ] && echo 00 || echo ff)" 65536; readers "a foreign data device" "different volumes"
truncate -s 70M "$M"; readers "truncated metadata" "$M.*smaller than the volume"
truncate -s 40M "$D"; readers "truncated data" "$D.*smaller than the volume"
truncate -s 4096 "$M"; readers "a stub" "$M.*too few"
t=$M; M=$D D=$t; readers_swapped() {
	refused "swapped devices" "not a metadata device" "$CTL" ls --meta "$M" --data "$D"
}; readers_swapped; t=$M; M=$D D=$t
# A wrong fsid in one block: the super is fine, the tree is not.
poke "$M" 131080 ffffffffffffffff
refused "ls: a root block of another volume" "damaged metadata" "$CTL" ls --meta "$M" --data "$D"
refused "print goes on and says so" "damaged" "$CTL" print "$M"
ok "print names the block and shows the rest" sh -c '"$1" print "$2" 2>/dev/null | grep -q "^bad_block in fs_root blkno 2 " && "$1" print "$2" 2>/dev/null | grep -q "tree data_alloc"' - "$CTL" "$M"
restore

# --- not cleanly unmounted: said, and what was committed is shown.  BEGIN of slot 0 gets write_nr 1.
poke "$M" $((69632 + 40)) 01000000000000000700000000000000 69632
out=$("$CTL" ls --meta "$M" --data "$D" 2>&1)
refused "mkfs -f refuses it" "not cleanly unmounted: quorum slot 0" mkfs "$M" "$D" "${Q[@]}" -A -f
truncate -s 128M "$D"
refused "also where it is to hold the data" "not cleanly unmounted: quorum slot 0" mkfs "$D" "$M" "${Q[@]}" -A -f
ok "and has written nothing" cmp <(dd if="$M" bs=4096 skip=16 count=2 status=none) <(dd if="$TMP/m2" bs=4096 skip=16 count=1 status=none; dd if="$M" bs=4096 skip=17 count=1 status=none)
ok "an unclean volume is named" grep -q "not cleanly unmounted: quorum slot 0, rid 0000000000000007" <<<"$out"
ok "mkfs -f -f makes a new volume of it" mkfs "$M" "$D" "${Q[@]}" -A -f -f
check_volume "$M" "$D" "check after -f -f"
restore

# --- a leader that lost power, in slot 1: ELECT 4 and no STOP, and nobody runs any more.  Until a later one has fenced it
ELECT=$((73728 + 40 + 80)) FENCE=$((69632 + 40 + 120))
poke "$M" $ELECT 010000000000000007000000000000000400000000000000 73728
refused "change-quorum-config refuses where a leader has not stopped" "quorum slot 1.*still the elected leader" "$CTL" change-quorum-config -F "${Q[@]}" "$M"
poke "$M" $FENCE 010000000000000009000000000000000500000000000000 69632
ok "not where a later leader has fenced it" "$CTL" change-quorum-config -F "${Q[@]}" "$M"
is "and no verb speaks of it" "$("$CTL" ls --meta "$M" --data "$D" 2>&1 >/dev/null)" ""
restore

# --- verbs of a mount, where there is none
for v in "walk-inodes meta_seq 0 -1 $TMP" "statfs -p $TMP" "df -p $TMP" "stat $M" "ino-path 1 -p $TMP"; do
	refused "${v%% *}: not a mount of ours" "not in a mounted scoutfs volume" "$CTL" $v
	ok "${v%% *}: and the line that scripts compare" grep -q "^scoutfsctl: ${v%% *} failed: Inappropriate ioctl for device (25)$" <("$CTL" $v 2>&1)
done
refused "a mount that does not exist" "could not open '$TMP/none'" "$CTL" statfs -p "$TMP/none"
refused "walk-inodes: a wrong position" "not a position" "$CTL" walk-inodes meta_seq 1.2.3.4 -1 "$TMP"
refused "walk-inodes: a wrong index" "not an index" "$CTL" walk-inodes ctime 0 -1 "$TMP"

# --- the program that asks mounts needs no other file; for what it hands over it names the one that is missing
mkdir -p "$TMP/alone/bin" "$TMP/alone/sbin"
cp "$CTL" "$TMP/alone/bin/scoutfs"
is "alone: --version" "$("$TMP/alone/bin/scoutfs" --version)" "scoutfs $(cat "$TOP/VERSION")"
refused "alone: a verb of a mount" "not in a mounted scoutfs volume" "$TMP/alone/bin/scoutfs" statfs -p "$TMP"
refused "alone: a verb of devices" "^scoutfs: ls: .*/scoutfsctl-admin could not be started: No such file" "$TMP/alone/bin/scoutfs" ls --meta "$M"
refused "alone: a walk of devices" "^scoutfs: walk-inodes: .*/scoutfsctl-admin could not be started" "$TMP/alone/bin/scoutfs" walk-inodes meta_seq 0 -1 --meta "$M"
cp "$CTL-admin" "$TMP/alone/sbin"
refused "installed: the name it was called by" "^scoutfs: ls: could not open '$TMP/none'" "$TMP/alone/bin/scoutfs" ls --meta "$TMP/none"
is "installed: a walk of devices" "$("$TMP/alone/bin/scoutfs" walk-inodes meta_seq 0 -1 --meta "$M")" "$("$CTL" walk-inodes meta_seq 0 -1 --meta "$M")"
[ -n "${SAN_REPORTS:-}" ] || nok "scoutfsctl needs no library" sh -c 'readelf -lW "$1" | grep INTERP' - "$CTL"

# --- output that cannot be written: whatever is asked, the exit status says so, and why
unwritten() {
	local t=$1 out rc
	shift
	out=$("$CTL" "$@" 2>&1 >/dev/full); rc=$?
	[ $rc -ne 0 ] && grep -qE "(could not|cannot) write the (output|result): No space left" <<<"$out" && return
	fail "$t: output that cannot be written is an error" "status $rc: $out"
	wrong=$((wrong + 1))
}
wrong=0
verbs=$("$CTL" --help | awk '/^  [a-z]/ {print $1}')
for v in $verbs; do unwritten "$v --help" "$v" --help; done
unwritten "--help" --help
unwritten "help" help
unwritten "--version" --version
unwritten "print" print "$M"
unwritten "walk-inodes" walk-inodes meta_seq 0 -1 --meta "$M"
unwritten "check" check "$M" "$D"
unwritten "check --json" check --json "$M" "$D"
is "no output that is lost looks like success ($(wc -w <<<"$verbs") verbs)" $wrong 0
ok "and there are verbs" test "$(wc -w <<<"$verbs")" -gt 15

# --- volumes of the upstream implementation
V=$SHARED/volumes
if [ ! -e "$V/volumes.tar.zst" ]; then
	skip "no $V: the volumes of the upstream implementation are not beside this clone"
	tap_done
fi
tar --zstd --sparse -xf "$V/volumes.tar.zst" -C "$TMP" || fail "unpack $V/volumes.tar.zst"

# Every line of the manifest against ls --json and cat: type, mode, owner, links, size, times, seqs,
# blocks, symlink targets, contents.
compare() {
	python3 - "$CTL" "$1" "$2" "$3" <<-'PY'
	import hashlib, json, re, subprocess, sys
	ctl, vol, listing = sys.argv[1:4]
	every, turn = int(sys.argv[4]), 0
	dev = ['--meta', vol + '/meta.img', '--data', vol + '/data.img']
	def run(*a): return subprocess.run([ctl, *a], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
	ls = {}
	names = run('ls', *dev, '-R', '--null')
	objs = run('ls', *dev, '-R', '--json')
	assert names.returncode == 0 and objs.returncode == 0, (names.stderr, objs.stderr)
	names = names.stdout.split(b'\0')[:-1]
	objs = [json.loads(l) for l in objs.stdout.decode().splitlines()]
	assert len(names) == len(objs), (len(names), len(objs))
	for n, o in zip(names, objs): ls[n] = o
	types = {'d': 'dir', 'f': 'file', 'l': 'link', 'p': 'fifo', 's': 'sock', 'c': 'chr', 'b': 'blk'}
	bad = cats = offline = 0
	def complain(*what):
	    global bad
	    bad += 1
	    if bad < 20: print('#', *what)
	seen = set()
	for line in open(listing + '/manifest.txt', 'rb'):
	    f = dict(p.split(b'=', 1) for p in line.rstrip(b'\n').split(b' ') if b'=' in p)
	    un = lambda s: re.sub(rb'\\x(..)', lambda m: bytes([int(m[1], 16)]), s)
	    path = un(f[b'path'])
	    if path == b'.': continue
	    seen.add(path)
	    o = ls.get(path)
	    if o is None: complain('missing', path); continue
	    want = {k.decode(): v.decode() for k, v in f.items() if k in (b'mode', b'uid', b'gid', b'nlink',
	        b'size', b'ino', b'meta_seq', b'data_seq', b'data_version', b'online_blocks',
	        b'offline_blocks', b'project_id')}
	    for k, v in want.items():
	        if str(o[k]) != v: complain(path, k, o[k], v)
	    t = f[b'type'].decode()
	    if types.get(t, t) != o['type']: complain(path, 'type', o['type'], t)
	    for k in ('mtime', 'ctime'):
	        if k.encode() in f:
	            s, n = o[k].split('.')
	            if int(s) * 10**9 + int(n) != int(f[k.encode()]): complain(path, k, o[k], f[k.encode()])
	    if b'crtime' in f and o['crtime'] != f[b'crtime'].decode(): complain(path, 'crtime', o['crtime'])
	    if b'target' in f and un(f[b'target']) != o['target'].encode('latin-1', 'replace'):
	        try: same = un(f[b'target']) == o['target'].encode()
	        except UnicodeError: same = False
	        if not same: complain(path, 'target', o['target'], f[b'target'])
	    sha = f.get(b'sha256')
	    if t != 'f' or sha is None: continue
	    if sha != b'OFFLINE' and o['size'] > 64 << 20:
	        c = subprocess.Popen([ctl, 'cat', *dev, path], stdout=subprocess.PIPE)
	        head = c.stdout.read(1 << 20); c.kill(); c.wait(); c.stdout.close()
	        if len(head) != 1 << 20: complain(path, 'head of a great file')
	        continue
	    turn += 1
	    if turn % every: continue
	    c = run('cat', *dev, path)
	    if sha == b'OFFLINE':
	        offline += 1
	        if c.returncode == 0 or b'offline' not in c.stderr: complain(path, 'offline', c.returncode, c.stderr)
	        continue
	    cats += 1
	    if c.returncode or hashlib.sha256(c.stdout).hexdigest() != sha.decode(): complain(path, 'contents', c.stderr)
	for path in ls:
	    if path not in seen: complain('not in the listing', path)
	print('#', vol, len(seen), 'paths,', cats, 'contents,', offline, 'offline')
	sys.exit(bad != 0 or cats < 100 or len(seen) < 1000)
	PY
}
every=1
for v in A-clean-unmerged B-clean-merged; do
	for i in meta_seq data_seq; do
		is "$v: walk-inodes $i is upstream's to the byte" \
			"$("$CTL" walk-inodes $i 0 -1 --meta "$TMP/$v/meta.img" --data "$TMP/$v/data.img" | sha256sum)" \
			"$(sha256sum <"$TMP/listing-AB/walk-$i.txt")"
	done
	ok "$v: ls and cat agree with upstream's listing" compare "$TMP/$v" "$TMP/listing-AB" "$every"
	ok "$v: print finds nothing wrong" "$CTL" print "$TMP/$v/meta.img"
	every=5	# the same data blocks again: every fifth file
done
v=C-crashed
out=$("$CTL" walk-inodes meta_seq 0 -1 --meta "$TMP/$v/meta.img" 2>&1 >"$TMP/walk")
ok "$v: named as not cleanly unmounted" grep -q "quorum slot 0.*still the elected leader" <<<"$out"
is "$v: walk-inodes shows what was committed" "$(sha256sum <"$TMP/walk")" "$(sha256sum <"$TMP/listing-C/walk-meta_seq.txt")"
is "walk-inodes from a position" "$("$CTL" walk-inodes --meta "$TMP/A-clean-unmerged/meta.img" -- meta_seq 87.0.1031 87.0.1033 | awk '!/^#/ {printf "%s ", $4}')" "1031 1032 1033 "
ok "ls -l of one directory" grep -q -- '-> orig$' <("$CTL" ls -l --meta "$TMP/A-clean-unmerged/meta.img" links)
refused "cat of a directory" "Is a directory" "$CTL" cat --meta "$TMP/A-clean-unmerged/meta.img" --data "$TMP/A-clean-unmerged/data.img" links
refused "cat of nothing" "No such file" "$CTL" cat --meta "$TMP/A-clean-unmerged/meta.img" --data "$TMP/A-clean-unmerged/data.img" links/none
is "cat follows a symbolic link" "$("$CTL" cat --meta "$TMP/A-clean-unmerged/meta.img" --data "$TMP/A-clean-unmerged/data.img" links/../links/rel | sha256sum)" \
	"$("$CTL" cat --meta "$TMP/A-clean-unmerged/meta.img" --data "$TMP/A-clean-unmerged/data.img" links/orig | sha256sum)"
tap_done
