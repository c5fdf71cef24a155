#!/bin/bash
# The ioctls of a mount, called as programs call them: answers, the memory of the caller, other users,
# privileges, processes that are killed meanwhile; and the verbs of scoutfsctl that use them.
# A network of its own: the volume made elsewhere names a port that may be taken here.
[ -n "${OWN_NET:-}" ] || OWN_NET=1 exec unshare --net bash "$0"
ip link set lo up
. "$(dirname "$0")/../lib/common.sh"
vol_make
inst_conf
ok "mount" inst_start
chmod 711 "$TMP"
chmod 777 "$MNT"
mkdir "$MNT/many"
for i in $(seq 700); do echo "$i" >"$MNT/many/f$i"; done
echo plain >"$MNT/plain"
echo secret >"$MNT/secret"; chmod 600 "$MNT/secret"
echo acl >"$MNT/by-acl"; chmod 600 "$MNT/by-acl"; setfacl -m u:65534:r "$MNT/by-acl"
mkfifo "$MNT/fifo"
ln -s plain "$MNT/link"
sync "$MNT"
check() { timeout 120 "$BUILD/tests/posix/ioctls" "$@"; }

ok "walk_inodes gives every inode once, in order, in pieces of any size, in both forms" check walk "$MNT"
is "walk_inodes meta_seq has every inode" \
	"$("$CTL" walk-inodes meta_seq 0 -1 -p "$MNT" | grep -v '^#' | awk '{print $4}' | sort)" \
	"$(find "$MNT" -printf '%i\n' | sort)"
is "walk_inodes data_seq has every regular file" \
	"$("$CTL" walk-inodes data_seq 0 -1 -p "$MNT" | grep -v '^#' | awk '{print $4}' | sort)" \
	"$(find "$MNT" -type f -printf '%i\n' | sort)"
last=$("$CTL" walk-inodes meta_seq 0 -1 -p "$MNT" | tail -1 | awk '{print $2}')
echo more >>"$MNT/many/f7"; sync "$MNT"
is "one changed file is one entry behind the last seen" \
	"$("$CTL" walk-inodes meta_seq $((last + 1)) -1 -p "$MNT" | grep -v '^#' | awk '{print $4}')" \
	"$(stat -c %i "$MNT/many/f7")"
rm "$MNT/many/f8"; sync "$MNT"
gone() { [ "$("$CTL" walk-inodes meta_seq 0 -1 -p "$MNT" | grep -vc '^#')" = "$(find "$MNT" | wc -l)" ]; }
ok "a deleted file leaves the index" wait_for 60 gone

ok "bad and read-only memory: EFAULT, and nothing is changed" check memory "$MNT"
ok "answers into a mapped file of the same mount" check own-mapping "$MNT"
ok "many threads at once" check threads "$MNT"
ok "ino_path: hard links, positions, room, renamed, unlinked" check paths "$MNT"
ok "ino_path without CAP_DAC_READ_SEARCH: EPERM" check paths-uncapable "$MNT"
check paths-nested "$MNT" 2>"$TMP/err"; rc=$?
case $rc in 0) pass "root of a nested user namespace has no privilege here" ;; 2) skip "$(cat "$TMP/err")" ;;
	*) fail "root of a nested user namespace has no privilege here" "$(cat "$TMP/err")" ;; esac
ok "an unprivileged user: walks, is refused paths and what it may not read" check nobody "$MNT"
ok "stat_more, statfs_more, get_attr_x" check attrs "$MNT"
ok "commands of later versions: EOPNOTSUPP; others: ENOTTY" check others "$MNT"
ok "processes killed in the middle leave nothing waiting" check killed "$MNT"

# ---- the verbs
ok "stat" "$CTL" stat "$MNT/plain"
is "stat -s" "$("$CTL" stat -s online_blocks "$MNT/plain")" 1
is "ino-path" "$("$CTL" ino-path -p "$MNT" "$(stat -c %i "$MNT/many/f9")")" many/f9
deep=$MNT; want=
for i in $(seq 60); do deep=$deep/directory$i want=$want${want:+/}directory$i; done
mkdir -p "$deep"
is "ino-path of a deep directory" "$("$CTL" ino-path -p "$MNT" "$(stat -c %i "$deep")")" "$want"
ok "unmount" inst_stop
# Where services have LeakSanitizer: it stops every thread before it looks, and below there is one that cannot be stopped.
asan=${ASAN_OPTIONS:-}
export ASAN_OPTIONS=$asan:detect_leaks=0
ok "mount again" inst_start
export ASAN_OPTIONS=$asan
is "ino-path with nothing in the cache" "$("$CTL" ino-path -p "$MNT" "$(stat -c %i "$deep")")" "$want"
ok "walk_inodes after a new mount" check walk "$MNT"

# ---- a program whose memory never takes the answer does not keep the mount from ending
"$BUILD/tests/posix/ioctls" stuck "$MNT" >"$TMP/stuck" 2>&1 & stuck=$!
is_stuck() { grep -q waiting "$TMP/stuck" || ! kill -0 $stuck; }
wait_for 60 is_stuck
ok "others are served while it hangs" check threads "$MNT"
ok "the mount ends while a program's memory hangs" inst_stop
kill -9 $stuck 2>/dev/null; wait $stuck 2>/dev/null
nok "and it ends in good order" grep -q "killed; the volume is recovered" "$LOG"
is "it did hang" "$(cat "$TMP/stuck")" waiting

# ---- pointers can be forbidden
inst_conf ioctl_pointers=off
ok "mount with ioctl_pointers=off" inst_start
ok "then only the forms without pointers work" check pointers-off "$MNT"
ok "unmount at last" inst_stop
check_clean "clean"

# ---- hidden attributes, which only volumes made elsewhere have yet
V=$SHARED/volumes
if [ -e "$V/volumes.tar.zst" ]; then
	tar --zstd --sparse -xf "$V/volumes.tar.zst" -C "$TMP"
	sync "$TMP"/B-clean-merged/*.img	# see 20-volumes.sh
	META=$TMP/B-clean-merged/meta.img DATA=$TMP/B-clean-merged/data.img
	rm -rf "$TMP/state"
	inst_conf
	ok "mount a volume of the upstream implementation" inst_start
	ok "hidden attributes, one at a time and all at once" check hidden "$MNT" xattr/s1 3
	is "ino-path of hard links as upstream's" \
		"$("$CTL" ino-path -p "$MNT" "$(stat -c %i "$MNT/links/orig")" | sort)" "$(sort "$TMP/listing-AB/ino-path-links-orig.txt")"
	ok "unmount it" inst_stop
else
	skip "no $V: hidden attributes are not tried"
fi
tap_done
