#!/bin/bash
# A data device in the worst pieces: it is filled with files of one block, every second of them goes, and a large file
# is written into the holes; then the same the other way round.  Nothing is lost, also by a power cut, nothing is told
# to be full that is not, and in the end all is in one piece again.
. "$(dirname "$0")/../lib/common.sh"
FILES=${FILES:-$([ -n "${SOAK:-}" ] && echo 100000 || echo 9000)}
DATA_BYTES=$((FILES * 4096 + (8 << 20)))

cat >"$TMP/pieces.py" <<'PY'
# pieces.py DIR make NR | DIR cut REMAINDER | DIR fill NAME BLOCKS | DIR verify NAME
import errno, hashlib, os, random, sys
top, what, arg = sys.argv[1:4]
def block(i): return random.Random(i).randbytes(4096)
def path(i): return "%s/d%d/f%d" % (top, i % 20, i)
def names():
    for d in os.listdir(top):
        if os.path.isdir(top + "/" + d):
            yield from (int(n[1:]) for n in os.listdir(top + "/" + d))
if what == "make":
    for d in range(20): os.makedirs("%s/d%d" % (top, d), exist_ok=True)
    for i in range(int(arg)):
        with open(path(i), "wb", buffering=0) as f: f.write(block(i))
    # What is left is used up too, so that there are no other holes.
    with open(top + "/rest", "wb", buffering=0) as f:
        try:
            while f.write(b"x" * 65536): pass
        except OSError as e:
            if e.errno != errno.ENOSPC: raise
    os.sync()
elif what == "cut":
    for i in list(names()):
        if i % 2 == int(arg): os.unlink(path(i))
elif what == "fill":
    h, left, r = hashlib.sha256(), int(sys.argv[4]) * 4096, random.Random(arg)
    with open(top + "/" + arg, "wb", buffering=0) as f:
        while left:
            chunk = r.randbytes(min(left, 1 << 20))
            n = f.write(chunk)
            h.update(chunk[:n])
            left -= n
        os.fsync(f.fileno())
    print(h.hexdigest())
else:
    for i in names():
        if open(path(i), "rb").read() != block(i): sys.exit("file %d has other contents" % i)
    if arg != "-" and hashlib.sha256(open(top + "/" + arg, "rb").read()).hexdigest() != sys.argv[4]:
        sys.exit(arg + " has other contents")
PY
pieces() { timeout 500 python3 "$TMP/pieces.py" "$MNT" "$@"; }
bavail() { python3 -c 'import os, sys; print(os.statvfs(sys.argv[1]).f_bavail)' "$MNT"; }
have_free() { [ "$(bavail)" -ge "$1" ]; }

vol_make 8G $DATA_BYTES 2>/dev/null
inst_conf
ok "mount" inst_start
ok "$FILES files of one block, and a file that takes the rest" pieces make $FILES
ok "durably" sync "$MNT"
is "nothing is available" "$(bavail)" 0
half=$((FILES / 2 - 16))
ok "every second file is removed" pieces cut 1
ok "the holes are given back" wait_for 120 have_free $half
sum=$(pieces fill one $half 2>"$TMP/err"); is "a file of $half blocks goes into them" "$? $(cat "$TMP/err")" "0 "
ok "all contents are right" pieces verify one "$sum"
power_cut
ok "mount after a power cut" inst_start
ok "all contents are right after it" pieces verify one "$sum"
ok "the other files are removed" pieces cut 0
ok "what they had is given back" wait_for 120 have_free $half
sum2=$(pieces fill two $half 2>"$TMP/err"); is "a second file goes where they were" "$? $(cat "$TMP/err")" "0 "
ok "its contents are right" pieces verify two "$sum2"
ok "and those of the first" pieces verify one "$sum"
ok "unmount" inst_stop
check_clean "clean with two files in each other's holes"
ok "mount again" inst_start
ok "everything is removed" rm -rf "${MNT:?}"/*
ok "durably" sync "$MNT"
ok "all blocks are back" wait_for 120 have_free $((DATA_BYTES / 4096 - 65))
ok "unmount" inst_stop
check_clean "clean and empty"
is "the free data is one piece" "$("$CTL" print "$META" | grep -c "tree data_alloc .* what free_by_blkno")" 1
tap_done
