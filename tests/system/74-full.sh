#!/bin/bash
# Full devices under eight writers, the data device and the metadata device in turn: each is told that there is
# no space and nothing else, what was acknowledged is there, what was fsynced also after a power cut in the
# middle of it, and deleting gives the space back - data at once, metadata when the log merge that it starts is done.
. "$(dirname "$0")/../lib/common.sh"
WRITERS=8

cat >"$TMP/writer.py" <<'PY'
# writer.py DIR NAME KIND: write until there is no space.  A line "done PATH DIGEST" for what an fsync has
# confirmed, "told PATH DIGEST" for what a system call has.  KIND data: files; meta: files with large xattrs.
import errno, hashlib, os, random, sys
top, name, kind = sys.argv[1:]
r = random.Random(name)
def digest(path):
    h = hashlib.sha256(open(path, "rb").read())
    for k in sorted(os.listxattr(path)):
        h.update(k.encode() + os.getxattr(path, k))
    return h.hexdigest()
def full(e):
    if e.errno != errno.ENOSPC:
        sys.exit("%s: %s" % (e.filename or name, e))
    return True
stop = False
for i in range(100000):
    path = "%s/%s-%d" % (top, name, i)
    try:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
    except OSError as e:
        full(e)
        break
    h = hashlib.sha256()
    try:
        for n in range(r.randrange(1, 5)):
            if kind == "meta":
                value = r.randbytes(60000)
                os.setxattr(fd, "user.%d" % n, value)
                h.update(b"user.%d" % n + value)
            else:
                value = r.randbytes(r.choice((100, 70000, 1 << 20)))
                took = os.write(fd, value)
                h.update(value[:took])
    except OSError as e:
        stop = full(e)
    # Even when nothing more fits, what was taken can be made durable.
    try:
        os.fsync(fd) if i % 4 == 0 or stop else None
    except OSError as e:
        sys.exit("fsync of %s: %s" % (path, e))
    os.close(fd)
    print("done" if i % 4 == 0 or stop else "told", path, h.hexdigest(), flush=True)
    if stop:
        break
else:
    sys.exit("%d files, and there is still space" % i)
PY
cat >"$TMP/verify.py" <<'PY'
# verify.py told|done LEAST LIST...: what writer.py wrote in its lists is so; done: up to the last fsync of each.
# There are LEAST lines or more.
import hashlib, os, sys
nr, lines = 0, []
for name in sys.argv[3:]:
    list = [line.split() for line in open(name)]
    while sys.argv[1] == "done" and list and list[-1][0] != "done":
        list.pop()
    lines += list
for word, path, want in lines:
    try:
        h = hashlib.sha256(open(path, "rb").read())
        for k in sorted(os.listxattr(path)):
            h.update(k.encode() + os.getxattr(path, k))
    except OSError as e:
        sys.exit("%s: %s" % (path, e))
    if h.hexdigest() != want:
        sys.exit("%s has other contents" % path)
    nr += 1
sys.exit(0 if nr >= int(sys.argv[2]) else "only %d lines" % nr)
PY
verify() { python3 "$TMP/verify.py" "$1" "${3:-20}" "$TMP"/list."$2".*; }
# value NAME: a number that some service tells
value() { "$CTL" status --json "$CONF" 2>/dev/null | grep -oE "\"$1\": ?[0-9]+" | head -n 1 | grep -oE '[0-9]+$'; }
at_least() { local v; v=$(value "$1") && [ "${v:-0}" -ge "$2" ]; }
no_merge() { [ "$(value log_merge_running)" = 0 ] && [ "$(value log_merge_freeing)" = 0 ]; }
statvfs() { python3 -c 'import os, sys; v = os.statvfs(sys.argv[1]); print(getattr(v, sys.argv[2]))' "$MNT" "$1"; }

start_writers() {	# NAME KIND
	local i
	mkdir -p "$MNT/$1" || return 1
	for i in $(seq $WRITERS); do
		python3 "$TMP/writer.py" "$MNT/$1" "$1$i" "$2" >"$TMP/list.$1.$i" 2>"$TMP/err.$1.$i" &
		writer[i]=$!
	done
}
end_writers() {		# NAME: all have ended, and well
	local i rc=0
	for i in $(seq $WRITERS); do
		wait "${writer[i]}" || { rc=1; cat "$TMP/err.$1.$i"; }
	done
	return $rc
}
lines() { cat "$TMP"/list."$1".* | wc -l; }
have_lines() { [ "$(lines "$1")" -ge "$2" ]; }
no_writers() { local i; for i in $(seq $WRITERS); do ! kill -0 "${writer[i]}" 2>/dev/null || return 1; done; }
timed_writers() {	# NAME KIND: as start and end, but never for ever
	start_writers "$1" "$2" || return 1
	wait_for 400 no_writers || { kill -9 "${writer[@]}"; echo "they are still writing"; return 1; }
	end_writers "$1"
}

# run KIND FREE: fill, verify, cut the power in the middle and when full, delete, fill again.  FREE is a command
# that says that everything has come back.
run() {
	local kind=$1 free=$2 first
	ok "$kind: $WRITERS writers until each is told that there is no space, and only that" timed_writers a "$kind"
	ok "$kind: all that was acknowledged is there ($(lines a) files)" verify told a
	power_cut
	ok "$kind: mount after a power cut of the full volume" inst_start
	ok "$kind: all that was fsynced is there" verify "done" a
	ok "$kind: deleting works" rm -rf "$MNT/a"
	ok "$kind: durably" sync "$MNT"
	ok "$kind: and gives the space back" wait_for 180 "$free"
	start_writers b "$kind"
	first=$(($(lines a) / 2))
	ok "$kind: $WRITERS writers again" wait_for 300 have_lines b "$first"
	power_cut
	kill -9 "${writer[@]}" 2>/dev/null; wait "${writer[@]}" 2>/dev/null
	ok "$kind: mount after a power cut while they wrote" inst_start
	ok "$kind: all that was fsynced is there" verify "done" b
	ok "$kind: deleting works" rm -rf "$MNT/b"
	ok "$kind: $WRITERS writers fill it once more, while that is given back" timed_writers c "$kind"
	# how much that is depends on how soon it is given back
	ok "$kind: all that was acknowledged is there ($(lines c) files)" verify told c 0
	ok "$kind: everything can be deleted" rm -rf "$MNT/c"
	ok "$kind: durably" sync "$MNT"
	ok "$kind: all space is back" wait_for 180 "$free"
	ok "$kind: unmount" inst_stop
	check_clean "$kind: clean after that"
}

vol_make 8G 200M 2>/dev/null
inst_conf pool_size=32M
ok "mount a volume with little space for data" inst_start
data_free() { [ "$(statvfs f_bavail)" -ge $((200 * 256 - 65)) ]; }
run data data_free

# The leader keeps 34681 large blocks for one mount (format 2.3), three lists of 8185 hold what is about to be used:
# about 2,100 blocks are to be filled.
META_SIZE=3900M
vol_make $META_SIZE 4G 2>/dev/null
# Merges come when they are needed, or when trees have grown; here, where all is counted, always.
inst_conf cache_size=256M log_merge_min_height=1
ok "mount a volume with little metadata" inst_start
meta_at_first=$(value free_meta_blocks)
# The leader has them, and the mount has heard of it: df says so.
given_back() { no_merge && at_least free_meta_blocks $((meta_at_first - $1)) && [ "$(statvfs f_bavail)" -gt 0 ]; }
roomy() { given_back 512; }
meta_free() { given_back 128; }
run meta meta_free

# ---- what a full metadata device refuses, and what it does not
inst_conf cache_size=256M
ok "mount it again" inst_start
ok "fill it" timed_writers d meta
[ "$(lines d)" -ge "$(($(lines a) / 2))" ] && pass "about as much as at first" ||
	fail "about as much as at first" "$(lines a) files at first, $(lines d) now"
keep=$(awk '$1 == "done" {print $2}' "$TMP"/list.d.* | head -n 1) gone=$(awk '$1 == "done" {print $2}' "$TMP"/list.d.* | tail -n 1)
# refused TEXT CMD...: CMD finds no space.  A merge may just have given some back; then that is used up first.
refused() {
	local text=$1 out i
	shift
	for i in $(seq 30); do
		out=$("$@" 2>&1) && {
			[ -e "$keep" ] || mv "$MNT/new" "$keep"
			rm -rf "$MNT/new"; setfattr -x user.new "$keep" 2>/dev/null; truncate -s 0 "$keep"
			mkdir -p "$MNT/x$i" 2>/dev/null && python3 "$TMP/writer.py" "$MNT/x$i" "$text" meta >/dev/null 2>&1
			continue
		}
		case $out in *"No space left"*) pass "$text"; return ;; *) fail "$text" "$out"; return ;; esac
	done
	fail "$text" "it succeeded $i times: $*"
}
refused "no file is made" touch "$MNT/new"
refused "no directory" mkdir "$MNT/new"
refused "no link" ln "$keep" "$MNT/new"
refused "no symbolic link" ln -s keep "$MNT/new"
refused "no rename" mv -T "$keep" "$MNT/new"
refused "no xattr" setfattr -n user.new -v x "$keep"
refused "no data is written" dd if=/dev/zero of="$keep" bs=1 count=1 seek=5000000 conv=notrunc status=none
is "what was refused has changed nothing" "$(ls "$MNT" | grep -c new) $(stat -c %s "$keep") $(getfattr -d "$keep" 2>&1 | grep -c user.new)" "0 0 0"
ok "fsync works" sync "$MNT"
ok "removing an xattr works" setfattr -x user.0 "$keep"
ok "truncation works" truncate -s 0 "$gone"
ok "unlink works" rm "$gone"
ok "all that is durable" sync "$MNT"
sed -i "\\# $keep #d; \\# $gone #d" "$TMP"/list.d.*
power_cut
ok "mount after a power cut" inst_start
ok "what was fsynced is there" verify "done" d
nok "what was unlinked is not" test -e "$gone"
nok "nor the xattr" getfattr -n user.0 "$keep"
ok "everything can be deleted" rm -rf "${MNT:?}"/*
ok "durably" sync "$MNT"
# A mount that has been idle since it was told that it is full may make files as soon as there is room again.
ok "there is room again" wait_for 180 roomy
ok "the first file that is made then is made" touch "$MNT/first"
ok "unmount" inst_stop
check_clean "clean after all that"
tap_done
