#!/bin/bash
# What an instance is given wrongly: devices, configuration, directories, address, mount point.  Of each is
# promised: a message that names it, an exit status that is not 0, nothing written to the volume, no
# process, socket or mount left behind.
. "$(dirname "$0")/../lib/common.sh"
HOLDER=
ours() {
	local rc=$?
	let_go
	return $rc
}
let_go() { [ -n "$HOLDER" ] && kill "$HOLDER" 2>/dev/null && wait "$HOLDER" 2>/dev/null; HOLDER=; }
trap 'ours; cleanup' EXIT

# --- what is looked at before and after
# The system areas of both devices: supers and quorum blocks.  Services that came up before the one that
# is refused may have voted and led, so some cases compare less; those say so.
supers() { { stat -c %s "$META" "$DATA"; head -c 131072 "$META"; head -c 131072 "$DATA"; } 2>/dev/null | sha256sum; }
save() { head -c 262144 "$META" >"$TMP/meta.head"; head -c 131072 "$DATA" >"$TMP/data.head"; }
restore() {
	truncate -s 8G "$META"; truncate -s 16G "$DATA"
	dd if="$TMP/meta.head" of="$META" conv=notrunc status=none
	dd if="$TMP/data.head" of="$DATA" conv=notrunc status=none
}
left_over() {
	pgrep -a 'scoutfs-' | sed 's/^/process /'
	findmnt -rn -o TARGET "$TMP/run" | sed 's/^/mount /'
	findmnt -rn -t fuse.scoutfs -o TARGET | grep -F "$TMP/" | sed 's/^/mount /'
	ss -Hxl 2>/dev/null | grep -F "$TMP/run/" | sed 's/^/socket /'
}
nothing_left() { [ -z "$(left_over)" ]; }

# refused_by TEXT PATTERN CMD...: it fails, says PATTERN, and leaves nothing.
refused_by() {
	local t=$1 pattern=$2 out rc; shift 2
	out=$(timeout -k 5 300 "$@" 2>&1 </dev/null); rc=$?
	if [ $rc = 0 ] || [ $rc -ge 124 ]; then fail "$t: refused" "status $rc, said: $out"
	elif ! grep -qE -- "$pattern" <<<"$out"; then fail "$t: the message names it" "status $rc, wanted $pattern, said: $out"
	else pass "$t: refused, and named"; fi
	wait_for 90 nothing_left || fail "$t: nothing is left" "$(left_over)"
}
# The whole instance, in the foreground; $3... are more arguments of `run`.
refused() {
	local t=$1 pattern=$2 before; shift 2
	before=$(supers)
	refused_by "$t" "$pattern" "$CTL" run "$@" "$CONF"
	is "$t: nothing is written" "$(supers)" "$before"
}
# The same where services that vote and lead came up first: the volume is whole, that is all.
refused_late() {
	local t=$1 pattern=$2; shift 2
	refused_by "$t" "$pattern" "$CTL" run "$@" "$CONF"
	check_clean "$t: the volume is as clean as before"
}
# Change bytes of a device; with $4, make the checksum of the 4 KiB block there right again.
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

# Configurations that this machine has are none of ours.
mount -t tmpfs none /run
vol_make
save
inst_conf

# --- the command line and the configuration
refused_by "no configuration of that name" "/etc/scoutfs/none.conf.*No such file" "$CTL" run none
refused_by "a directory as configuration" "$TMP: .*directory" "$CTL" run "$TMP/"
refused "-o of an unknown key" "nonsense: unknown key" -o nonsense=1
refused "-o without a value" "cache_size" -o cache_size=
refused "-o that is no pair" "'nonsense' is not" -o nonsense
refused "a pool larger than the memory there is" "cache_size \\+ pool_size of t need [0-9]+ MiB of memory, and [0-9]+ MiB are available" -o pool_size=1T
refused "-o out of range" "heartbeat_timeout_ms: 1 is out of range" -o heartbeat_timeout_ms=1
refused "-o of a size that is none" "cache_size: '64X'" -o cache_size=64X
refused "-o of a cache too small" "cache_size: 4096 is out of range" -o cache_size=4096
refused_by "an unknown option" "unknown option '--nonsense'" "$CTL" run --nonsense "$CONF"
echo "metadevice = /dev/null" >>"$CONF"
refused "an unknown key" "$CONF:[0-9]+: metadevice: unknown key"
inst_conf; printf 'acl = maybe\n' >>"$CONF"
refused "a value that is none" "$CONF:[0-9]+: acl: 'maybe'"
inst_conf; printf 'quorum_slot = 0\n' >>"$CONF"
refused "a key given twice" "$CONF:[0-9]+: quorum_slot: given before"
inst_conf; sed -i '/^data_device/d' "$CONF"
refused "a key that is missing" "$CONF: data_device: missing"
inst_conf; printf 'acl = yes\0\n' >>"$CONF"
refused "a configuration that is no text" "$CONF: .*NUL"
inst_conf "data_device=$META"
refused "one device for both" "data_device: the same as meta_device"
inst_conf "mountpoint=mnt"
refused "a mount point that is not absolute" "mountpoint: 'mnt' is not an absolute path"
inst_conf
for d in blockd quorumd serverd fsd; do
	refused_by "$d: no configuration" "usage: scoutfs-$d" "$BUILD/scoutfs-$d"
	refused_by "$d: an unknown option" "usage: scoutfs-$d" "$BUILD/scoutfs-$d" --nonsense -f "$CONF"
	refused_by "$d: -o nonsense" "nonsense: unknown key" "$BUILD/scoutfs-$d" -f "$CONF" -o nonsense=1
	refused_by "$d: no runtime directory" "run.*(No such file|cannot)" "$BUILD/scoutfs-$d" -f "$CONF"
done

# --- devices
inst_conf "meta_device=$TMP/none"
refused "a metadata device that is not there" "meta_device $TMP/none: No such file"
inst_conf "data_device=$TMP/none"
refused "a data device that is not there" "data_device $TMP/none: No such file"
inst_conf "meta_device=$TMP/mnt"
refused "a directory as device" "meta_device $TMP/mnt"
inst_conf "meta_device=/dev/null"
refused "a character device" "meta_device /dev/null: neither"
inst_conf "meta_device=$DATA" "data_device=$META"
refused "the devices swapped" "meta_device $DATA"
ln -f "$META" "$TMP/link"
inst_conf "data_device=$TMP/link"
refused "one device by two names" "$TMP/link"
rm "$TMP/link"
inst_conf
damaged() { refused "$@"; restore; }
poke "$META" 65540 00000000;		damaged "metadata of no known magic" "meta_device $META: .*magic"
poke "$DATA" 65540 00000000;		damaged "data of no known magic" "data_device $DATA: .*magic"
poke "$META" 65700 ff;			damaged "metadata with a wrong checksum" "meta_device $META: .*checksum"
poke "$DATA" 65700 ff;			damaged "data with a wrong checksum" "data_device $DATA: .*checksum"
poke "$META" 65576 03 65536;		damaged "metadata of version 3" "meta_device $META: .*version"
poke "$DATA" 65576 01 65536;		damaged "devices of different versions" "$DATA.*version"
poke "$DATA" 65592 ff 65536;		damaged "a data device of another volume" "$DATA .*different volumes"
poke "$META" 65544 ffff 65536;		damaged "a metadata device of another volume" "$META .*different fsids"
truncate -s 7G "$META";			damaged "metadata cut short" "meta_device $META: .*7516192768 bytes"
truncate -s 15G "$DATA";		damaged "data cut short" "data_device $DATA: .*16106127360 bytes"
truncate -s 4096 "$META";		damaged "metadata cut to nothing" "meta_device $META: 4096 bytes are too few"
truncate -s 0 "$DATA";			damaged "an empty data device" "data_device $DATA: 0 bytes are too few"
vol_make; save
dd if=/dev/zero of="$META" bs=4096 seek=16 count=1 conv=notrunc status=none
printf '\x53\xef' | dd of="$META" bs=1 seek=1080 conv=notrunc status=none
damaged "a device with a file system of another kind" "meta_device $META: .*magic"
inst_conf quorum_slot=3
refused_late "a slot that mkfs did not make" "quorum_slot.* 3"
check_clean "after all of these the volume is what mkfs made"

# --- in use
python3 -c "import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX)
open(sys.argv[2], 'w').close(); time.sleep(600)" "$DATA" "$TMP/held" & HOLDER=$!
wait_for 60 test -e "$TMP/held"
inst_conf
refused "a locked data device" "data_device $DATA: in use by process $HOLDER"
let_go
inst_conf "runtime_dir=$TMP/other" "state_dir=$TMP/other.state"
cp "$CONF" "$TMP/other.conf"
mkdir "$TMP/other"
"$BUILD/scoutfs-blockd" -f "$TMP/other.conf" >"$LOG" 2>&1 & HOLDER=$!
wait_for 60 "$CTL" print -S "$META"
wait_for 60 test -S "$TMP/other/ctl-blockd.sock" || fail "the other instance's blockd comes up" "$(cat "$LOG")"
inst_conf
others() { pgrep -a 'scoutfs-' | grep -v "^$HOLDER "; findmnt -rn -o TARGET "$TMP/run"; }
nothing_left() { [ -z "$(others)" ]; }
refused "devices of another instance" "(meta|data)_device .*: in use by process $HOLDER"
let_go
nothing_left() { [ -z "$(left_over)" ]; }
# What a service has opened as its descriptor 2 would get its log.
rm -rf "$TMP/other"; mkdir "$TMP/other"
"$BUILD/scoutfs-blockd" -f "$TMP/other.conf" <&- >&- 2>&- & HOLDER=$!
wait_for 60 test -S "$TMP/other/ctl-blockd.sock"
is "a service without stdin, stdout and stderr has opened nothing in their place" \
	"$(readlink "/proc/$HOLDER/fd/0" "/proc/$HOLDER/fd/1" "/proc/$HOLDER/fd/2" | tr '\n' ' ')" "/ / / "
let_go
rm -rf "$TMP/other"

# --- directories
mkdir "$TMP/ro"; mount -t tmpfs -o ro none "$TMP/ro"
inst_conf "runtime_dir=$TMP/ro/run"
refused "a runtime directory that cannot be made" "$TMP/ro/run.*Read-only"
inst_conf "state_dir=$TMP/ro/state"
refused "a state directory that cannot be made" "$TMP/ro/state.*Read-only"
inst_conf "state_dir=$TMP/ro"
refused "a state directory that cannot be written" "$TMP/ro.*Read-only"
inst_conf "runtime_dir=$CONF/run"
refused "a runtime directory below a file" "$CONF/run.*Not a directory"
inst_conf "runtime_dir=/$(printf 'x%.0s' $(seq 120))"
refused "a runtime directory too long for sockets" "runtime_dir: longer than"
umount "$TMP/ro"
mkdir -p "$TMP/run"; mount -t tmpfs -o size=16M none "$TMP/run"
inst_conf
refused "a runtime directory without room for pool and cache" "(pool|$TMP/run).*(No space|cannot be allocated)"
mkdir -p "$TMP/run"; mount -t tmpfs -o size=80M none "$TMP/run"
refused_late "a runtime directory with room for the pool only" "$TMP/run.*No space"

# --- address
inst_conf
python3 -c "import socket, sys, time
s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(1)
open(sys.argv[2], 'w').close(); time.sleep(600)" "$PORT" "$TMP/bound" & HOLDER=$!
wait_for 60 test -e "$TMP/bound"
refused_late "an address in use" "127.0.0.1.*$PORT.*Address already in use"
let_go
"$CTL" mkfs -f -f -A -Q "0,192.0.2.1,$PORT" "$META" "$DATA" >/dev/null 2>&1
refused_late "an address that others can reach, without keys" "192\.0\.2\.1.*insecure"
inst_conf insecure=yes
refused_late "an address that is not this host's" "192\.0\.2\.1|Cannot assign"
vol_make

# --- mount point
inst_conf "mountpoint=$TMP/none"
refused_late "a mount point that is not there" "mountpoint $TMP/none: No such file"
inst_conf "mountpoint=$CONF"
refused_late "a mount point that is a file" "mountpoint $CONF.*not a directory"
inst_conf
mount -t tmpfs none "$MNT"
refused_late "a busy mount point" "mountpoint $MNT: something is mounted there"
ok "what is mounted there stays" mountpoint -q "$MNT"
umount "$MNT"
mkdir "$TMP/dev"
mount -t tmpfs none "$TMP/dev"
for x in null:1:3 zero:1:5 random:1:8 urandom:1:9; do IFS=: read -r n a b <<<"$x"; mknod "$TMP/dev/$n" c "$a" "$b"; done
mkdir "$TMP/dev/shm"
# shellcheck disable=SC2016
refused_by "/dev/fuse missing" "/dev/fuse: No such file" unshare --mount sh -c \
	'mount --rbind "$1" /dev && exec "$2" run "$3"' - "$TMP/dev" "$CTL" "$CONF"
umount "$TMP/dev"
check_clean "/dev/fuse missing: the volume is as clean as before"

# --- mount.scoutfs
M=$BUILD/mount.scoutfs
helper() { local t=$1 p=$2 before; shift 2; before=$(supers); refused_by "$t" "$p" "$M" "$@"; is "$t: nothing is written" "$(supers)" "$before"; }
helper "mount: no arguments" "usage"
helper "mount: no metadata device" "metadev_path: missing" "$DATA" "$MNT"
helper "mount: an unknown option" "nonsense: unknown option.*Invalid argument" "$DATA" "$MNT" -o "metadev_path=$META,nonsense"
helper "mount: a slot that is none" "quorum_slot_nr.*Invalid argument" "$DATA" "$MNT" -o "metadev_path=$META,quorum_slot_nr=15"
helper "mount: a slot twice" "quorum_slot_nr: given twice" "$DATA" "$MNT" -o "metadev_path=$META,quorum_slot_nr=0,quorum_slot_nr=0"
helper "mount: no such device" "data device $TMP/none: No such file" "$TMP/none" "$MNT" -o "metadev_path=$META"
helper "mount: no such mount point" "mount point $TMP/none: No such file" "$DATA" "$TMP/none" -o "metadev_path=$META"
helper "mount: no such metadata device, by a relative path" "metadev_path: meta.none: No such file" "$DATA" "$MNT" -o "metadev_path=meta.none"
ln "$META" "$TMP/m #"; ln -s "m #" "$TMP/m2"; mkdir "$TMP/blank "
helper "mount: a device of a name that no configuration can hold" "metadata device $TMP/m #: .*#" "$DATA" "$MNT" -o "metadev_path=$TMP/m2"
helper "mount: a mount point of such a name" "mount point $TMP/blank : .*blank" "$DATA" "$TMP/blank " -o "metadev_path=$META"
rm "$TMP/m #" "$TMP/m2"
helper "mount: a mount point that is a file" "mount point $CONF: not a directory" "$DATA" "$CONF" -o "metadev_path=$META"
"$M" "$DATA" "$MNT" >/dev/null 2>&1; is "mount: exit status of a failure" $? 32
"$M" >/dev/null 2>&1; is "mount: exit status of wrong usage" $? 1
for p in mount.scoutfs scoutfs-blockd scoutfs-quorumd scoutfs-serverd scoutfs-fsd; do
	nok "$p -V: output that is lost is a failure" sh -c '"$1" -V >/dev/full' - "$BUILD/$p"
done
nok "mount: no configuration was made" sh -c 'ls /run/scoutfs/.mount/*.conf'

# --- and with everything right it mounts
inst_conf
ok "with nothing wrong it mounts" inst_start
name=$(printf 'n%.0s' $(seq 255))
ok "a name of 255 bytes" touch "$MNT/$name"
nok "a name of 256 bytes" touch "$MNT/${name}n"
ok "and is said to be too long" grep -q "File name too long" <(touch "$MNT/${name}n" 2>&1)
out=$("$CTL" run "$CONF" 2>&1); rc=$?
is "it is not run a second time" "$rc" 1
ok "and whose it is, is said" grep -q "running already (pid $(cat "$TMP/run/run.pid"))" <<<"$out"
ok "unmounts" inst_stop
check_clean "clean after all"
tap_done
