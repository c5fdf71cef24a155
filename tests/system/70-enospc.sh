#!/bin/bash
# A full data device: whoever writes is told, also who stores to a mapping; what was acknowledged is there, what has
# blocks can be overwritten, and deleting gives the space back.  74-full.sh has more writers and the metadata device.
. "$(dirname "$0")/../lib/common.sh"

cat >"$TMP/writer.py" <<'PY'
# writer.py DIR NAME SEED [LIMIT]: write files until there is no space; a line "sha256 bytes path" for each.
import errno, hashlib, os, random, sys
top, name, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
limit = int(sys.argv[4]) if len(sys.argv) > 4 else 1 << 62
r = random.Random(seed)
full = False
total = i = 0
while not full and total < limit:
    path = "%s/%s-%d" % (top, name, i)
    i += 1
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
    h, size = hashlib.sha256(), 0
    for _ in range(r.randrange(1, 24)):
        chunk = r.randbytes(r.choice((1, 4095, 4096, 70000, 262144, 1 << 20)))
        try:
            n = os.write(fd, chunk)     # may be short; what it says is what was taken
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
            full = True
            break
        h.update(chunk[:n])
        size += n
    os.fsync(fd)
    os.close(fd)
    total += size
    print(h.hexdigest(), size, path, flush=True)
if not full:
    sys.exit(3)
PY
cat >"$TMP/verify.py" <<'PY'
# verify.py: lines of writer.py on stdin; the total of bytes, or what differs.
import hashlib, sys
total = 0
for line in sys.stdin:
    want, size, path = line.split()
    data = open(path, "rb").read()
    if len(data) != int(size) or hashlib.sha256(data).hexdigest() != want:
        sys.exit("%s: %d bytes, %s wanted, or other contents" % (path, len(data), size))
    total += len(data)
print(total)
PY
verify() { cat "$@" | python3 "$TMP/verify.py"; }
no_space() { local out; out=$("$@" 2>&1) && { echo "succeeded: $*"; return 1; }; case $out in *"No space left"*) ;; *) echo "$out"; return 1 ;; esac; }
statvfs() { python3 -c 'import os, sys; v = os.statvfs(sys.argv[1]); print(getattr(v, sys.argv[2]))' "$MNT" "$1"; }

DATA_BYTES=$((320 << 20))
vol_make 8G $DATA_BYTES 2>/dev/null
inst_conf pool_size=16M
ok "mount" inst_start
writers() {
	local i p rc=0
	for i in 1 2 3 4; do python3 "$TMP/writer.py" "$MNT" "$1$i" $((RANDOM * 4 + i)) >"$TMP/list.$1$i" 2>"$TMP/err.$1$i" & p[i]=$!; done
	for i in 1 2 3 4; do wait "${p[i]}" || { rc=1; cat "$TMP/err.$1$i"; }; done
	return $rc
}
ok "four writers until each is told that there is no space, and only that" writers a
total=$(verify "$TMP"/list.a?)
ok "what was acknowledged is there (${total:-?} bytes)" test -n "$total"
# A block at a file's end holds less than a block: 4 KiB of each file may be lost to that.
spare=$((DATA_BYTES - 65 * 4096 - ${total:-0} - $(cat "$TMP"/list.a? | wc -l) * 4096))
ok "nearly all of the device could be used ($spare bytes could not)" test "$spare" -lt $((4 << 20))
is "nothing is available" "$(statvfs f_bavail)" 0
is "df: no block of data is free, some of metadata are" \
	"$("$CTL" df -p "$MNT" | awk '$1 == "MetaData" {m = $5 > 0} $1 == "Data" {print m, $5}')" "1 0"
ok "one byte more is refused" no_space dd if=/dev/zero of="$MNT/one" bs=1 count=1
ok "files without data can be made" touch "$MNT/empty"
ok "and removed" rm "$MNT/empty" "$MNT/one"
first=$(awk '$2 > 100000 {print $3; exit}' "$TMP/list.a1")
cp "$first" "$TMP/copy"
printf overwritten >"$TMP/word"
for f in "$TMP/copy" "$first"; do dd if="$TMP/word" of="$f" bs=1 seek=70000 conv=notrunc,fsync status=none; done
ok "what has blocks can be overwritten" cmp "$TMP/copy" "$first"
# Stores to a mapped hole are not refused when they happen; whoever asks whether they are durable hears it.
truncate -s 1M "$MNT/mapped"
ok "msync tells that mapped stores have no room" python3 -c 'import errno, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
for at in range(0, 1 << 20, 4096): m[at] = 1
try:
    m.flush()
    os.fsync(fd)
except OSError as e: sys.exit(e.errno not in (errno.ENOSPC, errno.EIO))
sys.exit("it says that all is stored")' "$MNT/mapped"
rm -f "$MNT/mapped"
grep -v " $first\$" "$TMP"/list.a1 >"$TMP/list.a1.rest"
power_cut
ok "mount after a power cut" inst_start
ok "what was acknowledged and fsynced is there after a power cut" verify "$TMP/list.a1.rest" "$TMP"/list.a[234]
ok "and what was overwritten" cmp "$TMP/copy" "$first"
awk '{print $3}' "$TMP"/list.a[12] | xargs rm -f
room() { dd if=/dev/zero of="$MNT/again" bs=1M count=64 conv=fsync status=none; }
ok "after deleting half of it there is room again" wait_for 60 room
ok "the other half is whole" verify "$TMP"/list.a[34]
rm -f "$MNT/again"
ok "four writers fill it again" writers b
ok "all that was acknowledged is there" verify "$TMP"/list.a[34] "$TMP"/list.b?
rm -rf "${MNT:?}"/*
free_data() { [ "$(statvfs f_bavail)" -ge $((DATA_BYTES / 4096 - 65)) ]; }
ok "after deleting everything all blocks are available" wait_for 60 free_data
# What this mount gives back comes with a commit, for which whoever needs it waits instead of being told; not for ever,
# so a machine that is held up may see it now and then.  Without the wait every one is told.
dd if=/dev/zero of="$MNT/base" bs=1M count=150 status=none
refused='' told=0
for how in unlink empty shorten unlink empty shorten; do
	no_space dd if=/dev/zero of="$MNT/fill" bs=1M || refused="$refused it was not full before $how;"
	case $how in
	unlink) rm "$MNT/fill" ;;
	empty) : >"$MNT/fill" ;;
	shorten) truncate -s 1M "$MNT/fill" ;;
	esac
	out=$(dd if=/dev/zero of="$MNT/next" bs=1M count=40 status=none 2>&1) ||
		{ told=$((told + 1)); echo "# after $how: $out"; }
	rm -f "$MNT/fill" "$MNT/next"
done
is "it was full each time" "$refused" ""
ok "who deletes or truncates and then writes at once is not told of a full device ($told of 6 times)" test "$told" -le 2
rm -f "$MNT/base"
ok "unmount" inst_stop
check_clean "clean after that"
tap_done
