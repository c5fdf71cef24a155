#!/bin/bash
# Log merges: under load, through deaths of the server at every message of a merge, through power cuts, over
# mount and unmount, and on a full metadata device, where they give back what was deleted.
. "$(dirname "$0")/../lib/common.sh"
. "$(dirname "$0")/../lib/load.sh"
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 60 || echo 4)}
SEED=${SEED:-$(date +%s)}
echo "# SEED=$SEED ROUNDS=$ROUNDS"
RANDOM=$((SEED % 32768))

# value SERVICE NAME: a number of its status
value() {
	"$CTL" status --json "$CONF" 2>/dev/null | python3 -c 'import json, sys
top = json.load(sys.stdin)
top = top[0] if isinstance(top, list) else top
print([s["values"][sys.argv[2]] for s in top["services"] if s["service"] == sys.argv[1]][0])' "$1" "$2" 2>/dev/null
}
at_least() { local v; v=$(value "$1" "$2") && [ "$v" -ge "$3" ]; }
equals() { local v; v=$(value "$1" "$2") && [ "$v" = "$3" ]; }
idle() { equals serverd log_merge_running 0 && equals serverd log_merge_freeing 0; }

# ---- under load, with either side dying between a merge's effects and their answers
vol_make 2>/dev/null
inst_conf commit_interval_ms=100 log_merge_min_height=1
export SCOUTFS_TEST_DIE=$TMP/die
ok "mount" inst_start
load_start "$BUILD/tests/posix/churn" "$MNT" 4
ok "merges run while four threads write" wait_for 120 at_least serverd log_merge_complete 3
trees=0
for _ in $(seq 20); do
	n=$(value serverd log_trees_nr) && [ "$n" -gt "$trees" ] && trees=$n
	sleep 0.05
done
ok "the number of log trees is bounded ($trees seen)" test "$trees" -gt 0 -a "$trees" -le 6
deaths=0
ordered() { [ ! -e "$TMP/die" ]; }
for order in "serverd recv get_log_merge" "serverd send get_log_merge_reply" "serverd recv commit_log_merge" \
	"serverd send commit_log_merge_reply" "serverd send commit_log_trees_reply" "fsd send get_log_merge" \
	"fsd recv get_log_merge_reply" "fsd send commit_log_merge" "fsd recv commit_log_merge_reply" \
	"fsd recv commit_log_trees_reply"; do
	echo "scoutfs-$order" >"$TMP/die.new"
	mv "$TMP/die.new" "$TMP/die"
	wait_for 120 ordered || { fail "$order comes"; rm -f "$TMP/die"; }
	wait_for 120 at_least serverd log_merge_complete 1 && deaths=$((deaths + 1)) || fail "after $order merges go on"
done
is "either side has died at every message of a merge, and each time merges went on" "$deaths" 10
for i in 1 2 3; do
	old=$(inst_pid serverd)
	kill -9 "$old"
	wait_for 120 at_least serverd log_merge_complete 1 || fail "kill $i of serverd: merges go on"
	sleep "0.$((RANDOM % 10))"
done
load_report
is "no application error in all that ($done_ops operations, longest stall $longest ms)" "$errors" 0
load_stop; rc=$?
is "the load ends without an error: ${load_last:-nothing said}" "$rc" 0
ok "what was begun comes to its end without load" wait_for 120 idle
is "the mount has given up no work" "$(value fsd log_merge_errors)" 0
before=$(cd "$MNT" && find . | sort | sha256sum)
ok "unmount" inst_stop
check_clean "clean after merges under load"
ok "mount again" inst_start
is "the names are the same" "$(cd "$MNT" && find . | sort | sha256sum)" "$before"
ok "unmount" inst_stop

# ---- power cuts
ok "mount" inst_start
load_start "$BUILD/tests/posix/crashload" "$MNT" "$SEED" "$ROUNDS"
for round in $(seq "$ROUNDS"); do
	load_expect running 120 || { fail "round $round: the load goes on"; break; }
	# Half of the cuts come when a merge has been seen to run, or just after.
	if [ $((RANDOM % 2)) = 0 ]; then wait_for 3 equals serverd log_merge_running 1; else sleep "1.$((RANDOM % 10))"; fi
	power_cut
	load_expect gone 120 || { fail "round $round: the load notices the cut"; break; }
	out=$("$CTL" check "$META" "$DATA" 2>&1) || { fail "round $round: check of the crashed volume" "$(tail -n 20 <<<"$out")"; break; }
	inst_start >"$TMP/start.out" 2>&1 || { fail "round $round: mounts again at once" "$(cat "$TMP/start.out")"; break; }
	load_say ""
	load_expect ok 120 || { fail "round $round: verdict" "${line:-no line}"; break; }
done
load_kill
ok "merges come to their end" wait_for 120 idle
ok "unmount" inst_stop
check_clean "clean after $ROUNDS power cuts"

# ---- every mount leaves a tree; merges keep them few
vol_make 2>/dev/null
inst_conf log_merge_min_trees=3
most=0
for i in $(seq 8); do
	inst_start >"$TMP/start.out" 2>&1 || { fail "mount $i" "$(cat "$TMP/start.out")"; break; }
	echo "$i" >"$MNT/f$i"
	n=$(value serverd log_trees_nr) && [ "$n" -gt "$most" ] && most=$n
	inst_stop >/dev/null 2>&1
done
ok "mounting again and again leaves few log trees ($most at most)" test "$most" -gt 0 -a "$most" -le 6
ok "mount" inst_start
is "and every file" "$(cat "$MNT"/f* | sort -n | tr '\n' ' ')" "1 2 3 4 5 6 7 8 "
ok "unmount" inst_stop
check_clean "clean after that"

# ---- a full metadata device: what was deleted comes back
# The leader keeps 34681 large blocks for one mount (format 2.3); its own lists and the mount's hold 24555, so on
# this device some 2,700 are there to be used.
vol_make 3872M 1G 2>/dev/null
inst_conf cache_size=128M
ok "mount a volume with little metadata" inst_start
free_at_first=$(value serverd free_meta_blocks)
cat >"$TMP/fill.py" <<'PY'
# fill.py DIR: files with large xattrs until there is no space
import errno, os, sys
try:
    for i in range(20000):
        path = "%s/f%d" % (sys.argv[1], i)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        for k in range(4):
            os.setxattr(path, "user.%d" % k, os.urandom(60000))
except OSError as e:
    sys.exit(0 if e.errno == errno.ENOSPC else str(e))
sys.exit("20,000 files and there is still space")
PY
mkdir "$MNT/d" "$MNT/e"
ok "xattrs until there is no space" timeout 300 python3 "$TMP/fill.py" "$MNT/d"
nr=$(ls "$MNT/d" | wc -l)
ok "everything can be deleted ($nr files)" rm -rf "$MNT/d"
ok "durably" sync "$MNT"
given_back() { idle && at_least serverd free_meta_blocks $((free_at_first - 8)); }
ok "merges give it back: as many blocks are free as at first ($free_at_first)" wait_for 120 given_back
not_low() { equals fsd meta_is_low 0; }
ok "the mount is not LOW any more" wait_for 120 not_low
ok "it can be filled again" timeout 300 python3 "$TMP/fill.py" "$MNT/e"
again=$(ls "$MNT/e" | wc -l)
ok "with about as much ($again files)" test "$again" -gt $((nr / 2))
ok "unmount" inst_stop
check_clean "clean after a full metadata device"
tap_done
